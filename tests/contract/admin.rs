//! What those who run the service read and do, and that it is noted.

use crate::harness::*;
use caffis_chat::chat::port::admin::*;
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::admin::*;
use caffis_chat::protocol::ending::Began;
use caffis_chat::protocol::event::RoomEventBody;
use caffis_chat::protocol::view::{Role, RoomKind};
use caffis_chat::protocol::{CloseCode, ErrorCode, RoomId, Seq, UnixMs};
use uuid::Uuid;

/// A session that began with this version.
fn began(version: u64) -> Began {
    Began {
        version,
        ..Began::default()
    }
}

impl Backend {
    fn admin(&self, call: AdminCall) -> AdminAnswer {
        match self.call(StoreCall::Admin(Box::new(call))) {
            StoreAnswer::Admin(answer) => *answer,
            other => panic!("{other:?}"),
        }
    }

    fn audit(&self) -> Vec<AdminActDone> {
        let AdminAnswer::Audit(page) = self.admin(AdminCall::Audit(page(1_000))) else {
            panic!("not the answer to an audit");
        };
        page.expect("a page").acts
    }

    fn end_sessions(&self, n: u128, code: CloseCode, entry: AuditEntry) -> Option<u64> {
        let user = user(n);
        let call = AdminCall::EndSessions { user, code, entry };
        let AdminAnswer::SessionsEnded(end) = self.admin(call) else {
            panic!("not the answer to an end of sessions");
        };
        end.map(|end| {
            assert_eq!((end.user, end.code), (user, code));
            end.version
        })
    }

    fn reports(&self, filter: AdminReportFilter, read: PageRead) -> AdminReports {
        let AdminAnswer::Reports(page) = self.admin(AdminCall::Reports(filter, read)) else {
            panic!("not the answer to reports");
        };
        page.expect("a page")
    }

    fn report(&self, key: ReportKey) -> Option<AdminReport> {
        let AdminAnswer::Report(report) = self.admin(AdminCall::Report(key)) else {
            panic!("not the answer to a report");
        };
        report
    }

    fn dismiss(&self, report: ReportKey, entry: AuditEntry) -> Option<(AdminReport, bool)> {
        let AdminAnswer::Dismissed(done) = self.admin(AdminCall::Dismiss { report, entry }) else {
            panic!("not the answer to a dismissal");
        };
        done
    }
}

fn page(limit: usize) -> PageRead {
    PageRead {
        query: None,
        cursor: None,
        limit,
    }
}

fn entry(n: u128, act: &'static str) -> AuditEntry {
    AuditEntry {
        id: Uuid::from_u128(n),
        who: "0123abcd".to_owned(),
        node: "n1".to_owned(),
        request_id: format!("request-{n}"),
        act,
        target: Some(format!("target {n}")),
        detail: None,
    }
}

fn moderate(room: RoomId, seq: Seq, entry: AuditEntry) -> Op {
    Op {
        actor: SERVICE,
        room,
        kind: OpKind::ChangeMessage {
            seq,
            change: MessageChange::Moderate(Box::new(entry)),
        },
    }
}

fn report(room: RoomId, actor: u128, seq: Seq) -> Op {
    change(room, actor, seq, MessageChange::Report)
}

fn key(room: RoomId, message_seq: Seq, n: u128) -> ReportKey {
    ReportKey {
        room,
        message_seq,
        reporter: user(n),
    }
}

/// All pages of a list, and how many there were.
fn all_pages<T>(read: impl Fn(Option<String>) -> (Vec<T>, Option<String>)) -> (Vec<T>, usize) {
    let (mut found, mut pages, mut cursor) = (Vec::new(), 0, None);
    loop {
        let (mut more, next) = read(cursor);
        found.append(&mut more);
        pages += 1;
        match next {
            Some(next) => cursor = Some(next),
            None => return (found, pages),
        }
    }
}

#[test]
fn sessions_end_by_a_version_that_later_ones_have() {
    for mut backend in Backend::all() {
        backend.users(2);
        let before = backend.sign_in(1);
        assert!(before.ends.is_empty());
        let other = backend.version(2);
        let version = backend.end_sessions(1, CloseCode::Draining, entry(1, "end"));
        let version = version.expect("a user");
        assert!(version > before.version);
        assert_eq!(backend.version(1), version);
        assert_eq!(backend.version(2), other, "of another user");
        let after = backend.sign_in(1);
        assert_eq!(after.version, version);
        let [end] = after.ends[..] else {
            panic!("{:?}", after.ends);
        };
        assert_eq!((end.user, end.version), (user(1), version));
        assert_eq!(end.code, CloseCode::Draining);
        assert!(end.ends(&began(before.version)), "who came before");
        assert!(!end.ends(&began(after.version)), "who came after");
        // The next one says how, for all that came before it.
        let next = backend.end_sessions(1, CloseCode::UserDeleted, entry(2, "end"));
        let next = next.expect("a user");
        assert!(next > version);
        backend.reopen();
        let ends = backend.sign_in(1).ends;
        assert_eq!(ends.len(), 1);
        assert_eq!(ends[0].code, CloseCode::UserDeleted);
        assert!(ends[0].ends(&began(version)) && !ends[0].ends(&began(next)));
    }
}

#[test]
fn an_act_that_comes_twice_is_done_and_noted_once() {
    for backend in Backend::all() {
        backend.users(1);
        let first = backend.end_sessions(1, CloseCode::Draining, entry(1, "end"));
        // A connection to a database may break after it was done.
        let again = backend.end_sessions(1, CloseCode::Draining, entry(1, "end"));
        assert_eq!(again, first);
        assert_eq!(backend.audit().len(), 1);
        assert_eq!(Some(backend.version(1)), first);
        backend.admin(AdminCall::Note(entry(2, "look")));
        backend.admin(AdminCall::Note(entry(2, "look")));
        assert_eq!(backend.audit().len(), 2);
    }
}

#[test]
fn who_is_not_there_has_no_sessions_to_end_and_nothing_is_noted() {
    for backend in Backend::all() {
        backend.users(1);
        let nobody = backend.end_sessions(7, CloseCode::Draining, entry(1, "end"));
        assert_eq!(nobody, None);
        let room = group_id(1, 1);
        assert!(
            backend
                .dismiss(key(room, 1, 1), entry(2, "resolve"))
                .is_none()
        );
        let refused = backend.refused(moderate(room, 1, entry(3, "resolve")));
        assert_eq!(refused, ErrorCode::Forbidden);
        backend.done(create_group(1, 1, []));
        let refused = backend.refused(moderate(room, 7, entry(4, "resolve")));
        assert_eq!(refused, ErrorCode::NotFound);
        // What the room itself said is nobody's to delete.
        let refused = backend.refused(moderate(room, 1, entry(5, "resolve")));
        assert_eq!(refused, ErrorCode::Forbidden);
        assert!(backend.audit().is_empty());
        assert!(backend.report(key(room, 1, 1)).is_none());
    }
}

#[test]
fn a_message_that_was_reported_is_deleted_as_its_sender_would() {
    for backend in Backend::all() {
        backend.users(4);
        let room = RoomId::direct(user(1), user(2));
        backend.done(create_direct(1, 2));
        let (seq, _) = sent(&backend.done(send(room, 1, 10, "an insult")));
        backend.done(react(room, 1, seq, "👍"));
        backend.done(pin(room, 2, seq));
        backend.done(report(room, 2, seq));
        // Also where the two have nothing to say to each other any more.
        backend.done(block(2, 1));
        let mut by = entry(1, "admin.reports.resolve");
        by.detail = Some("insulting".to_owned());
        let done = backend.done(moderate(room, seq, by.clone()));
        let (changed, event_seq, revision) = message_changed(&done);
        assert_eq!((changed, revision), (true, 1));
        let [event] = &done.events[..] else {
            panic!("{:?}", done.events);
        };
        assert_eq!(event.seq, event_seq);
        let RoomEventBody::MessageDeleted(deleted) = &event.body else {
            panic!("{event:?}");
        };
        assert_eq!((deleted.message_seq, deleted.actor_id), (seq, SERVICE));
        assert_eq!(backend.last_seq(room), event_seq, "the room's next event");
        assert_eq!(backend.all_events(room).events.last(), Some(event));
        let message = backend.message(room, 2, seq);
        assert_eq!((message.text, message.changed_seq), (None, event_seq));
        assert!(message.deleted_at.is_some() && message.reactions.is_empty());
        assert_eq!(
            backend.get_room(room, 2).expect("a member").room.pins,
            Some(vec![])
        );
        // A retry of the message is still one, and stays deleted.
        assert_eq!(
            sent(&backend.done(send(room, 1, 10, "an insult"))),
            (seq, true)
        );

        let settled = backend.report(key(room, seq, 2)).expect("a report");
        assert_eq!(settled.state, AdminReportState::Deleted);
        assert_eq!(settled.resolved_by.as_deref(), Some("0123abcd"));
        assert_eq!(settled.note.as_deref(), Some("insulting"));
        assert_eq!((settled.sender_id, settled.revision), (Some(user(1)), 1));
        // Again, it is so already: noted, and no event.
        let again = backend.done(moderate(room, seq, entry(2, "admin.reports.resolve")));
        assert_eq!(message_changed(&again), (false, event_seq, 1));
        assert!(again.events.is_empty());
        let audit = backend.audit();
        let outcomes: Vec<&str> = audit.iter().map(|act| act.outcome.as_str()).collect();
        assert_eq!(outcomes, ["unchanged", "done"]);
        assert_eq!(audit[1].detail.as_deref(), Some("insulting"));
        assert_eq!(audit[1].target.as_deref(), Some("target 1"));
        assert_eq!(audit[1].request_id, "request-1");
        assert_eq!(
            (audit[1].who.as_str(), audit[1].node.as_str()),
            ("0123abcd", "n1")
        );
        assert_eq!(audit[1].at, UnixMs(START_MS));
    }
}

#[test]
fn a_moderator_beside_members_in_one_batch() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let (seq, _) = sent(&backend.done(send(room, 2, 10, "spam")));
        let outcomes = backend.commit(vec![
            send(room, 1, 11, "before"),
            moderate(room, seq, entry(1, "resolve")),
            edit(room, 2, seq, "spam again"),
            send(room, 1, 12, "after"),
        ]);
        let codes: Vec<Option<ErrorCode>> = outcomes
            .iter()
            .map(|outcome| outcome.as_ref().err().map(|it| it.code))
            .collect();
        assert_eq!(codes, [None, None, Some(ErrorCode::Gone), None]);
        let events = backend.all_events(room).events;
        let seqs: Vec<Seq> = events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, [1, 2, 3, 4, 5]);
        assert_eq!(backend.audit().len(), 1);
    }
}

#[test]
fn reports_wait_in_their_order_until_they_are_settled() {
    for backend in Backend::all() {
        backend.users(4);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3, 4]));
        let mut keys = Vec::new();
        for n in 0..3 {
            backend.set_clock_ms(START_MS + n * 1_000);
            let (seq, _) = sent(&backend.done(send(room, 1, 10 + u128::from(n), "spam")));
            for who in [2, 3] {
                backend.done(report(room, who, seq));
                keys.push(key(room, seq, who));
            }
        }
        keys.sort_unstable();
        let open = |limit| {
            all_pages(|cursor| {
                let page = backend.reports(
                    AdminReportFilter::Open,
                    PageRead {
                        query: None,
                        cursor,
                        limit,
                    },
                );
                assert!(page.reports.len() <= limit);
                (page.reports, page.next_cursor)
            })
        };
        let (found, pages) = open(4);
        let ids: Vec<String> = found.iter().map(|it| it.report_id.clone()).collect();
        let wanted: Vec<String> = keys.iter().map(|key| key.to_id()).collect();
        assert_eq!((ids, pages), (wanted, 2));
        assert_eq!(found[0].state, AdminReportState::Open);
        assert_eq!(found[0].resolved_at, None);
        // One of two reports of a message.
        let (dismissed, changed) = backend.dismiss(keys[0], entry(1, "a")).expect("a report");
        assert!(changed);
        assert_eq!(dismissed.state, AdminReportState::Dismissed);
        assert!(dismissed.resolved_at.is_some());
        let (same, changed) = backend.dismiss(keys[0], entry(2, "b")).expect("a report");
        assert!(!changed);
        assert_eq!(same, dismissed);
        // Both of another, and one that was dismissed before.
        backend.done(moderate(room, keys[2].message_seq, entry(3, "c")));
        backend.done(moderate(room, keys[0].message_seq, entry(4, "d")));
        assert_eq!(open(100).0.len(), 2);
        let resolved = backend
            .reports(AdminReportFilter::Resolved, page(100))
            .reports;
        assert_eq!(resolved.len(), 4);
        let all_deleted = |it: &AdminReport| it.state == AdminReportState::Deleted;
        assert!(resolved.iter().all(all_deleted), "{resolved:?}");
        let (unchanged, changed) = backend.dismiss(keys[2], entry(5, "e")).expect("a report");
        assert!(!changed && unchanged.state == AdminReportState::Deleted);
        for cursor in ["", "x", "1-2-3", &format!("zz-{}", keys[0].to_id())] {
            let read = PageRead {
                query: None,
                cursor: Some(cursor.to_owned()),
                limit: 1,
            };
            let call = AdminCall::Reports(AdminReportFilter::Open, read);
            let AdminAnswer::Reports(Err(refusal)) = backend.admin(call) else {
                panic!("{cursor:?} is taken");
            };
            assert_eq!(refusal.code, ErrorCode::BadRequest);
        }
    }
}

#[test]
fn users_are_found_by_id_and_by_a_part_of_their_name() {
    for backend in Backend::all() {
        backend.users(300);
        backend.sign_in_as(sign_in(301, Some("Zoë Ürümqi")));
        let users = |query: Option<&str>, limit| {
            all_pages(|cursor| {
                let call = AdminCall::Users(PageRead {
                    query: query.map(str::to_owned),
                    cursor,
                    limit,
                });
                let AdminAnswer::Users(page) = backend.admin(call) else {
                    panic!("not the answer to users");
                };
                let page = page.expect("a page");
                (page.users, page.next_cursor)
            })
        };
        let (all, pages) = users(None, 100);
        assert_eq!((all.len(), pages), (301, 4));
        assert!(all.is_sorted_by_key(|user| user.user_id));
        let (some, _) = users(Some("U29"), 200);
        let mut names: Vec<&str> = some.iter().map(|user| user.name.as_str()).collect();
        names.sort_unstable();
        let mut wanted: Vec<String> = (290..300).map(|n| format!("u{n}")).collect();
        wanted.push("u29".to_owned());
        wanted.sort_unstable();
        assert_eq!(names, wanted);
        let (own, _) = users(Some("ZOË"), 10);
        assert!(
            own.is_empty(),
            "only the case of ASCII letters does not matter"
        );
        let (own, _) = users(Some("oë Ü"), 10);
        assert_eq!(own.len(), 1);
        let (own, pages) = users(Some(&user(7).to_string()), 10);
        assert_eq!((own.len(), pages), (1, 1));
        let first = &own[0];
        assert_eq!((first.user_id, first.name.as_str()), (user(7), "u7"));
        assert_eq!((first.created_at, first.room_count), (UnixMs(START_MS), 0));
        // Neither `%` nor `_` means anything.
        assert!(users(Some("%"), 10).0.is_empty());
        let read = PageRead {
            cursor: Some("x".to_owned()),
            ..page(1)
        };
        let AdminAnswer::Users(Err(refusal)) = backend.admin(AdminCall::Users(read)) else {
            panic!("a bad cursor is taken");
        };
        assert_eq!(refusal.code, ErrorCode::BadRequest);
    }
}

#[test]
fn rooms_are_found_by_id_and_by_a_part_of_their_title() {
    for backend in Backend::all() {
        backend.users(3);
        for n in 1..=5 {
            backend.done(create_group(1, n, [2]));
        }
        backend.done(create_direct(1, 2));
        let rooms = |query: Option<&str>| {
            let (rooms, _) = all_pages(|cursor| {
                let call = AdminCall::Rooms(PageRead {
                    query: query.map(str::to_owned),
                    cursor,
                    limit: 2,
                });
                let AdminAnswer::Rooms(page) = backend.admin(call) else {
                    panic!("not the answer to rooms");
                };
                let page = page.expect("a page");
                (page.rooms, page.next_cursor)
            });
            rooms
        };
        assert_eq!(rooms(None).len(), 6);
        assert_eq!(rooms(Some("GROUP")).len(), 5);
        let own = rooms(Some("group 3"));
        assert_eq!(own.len(), 1);
        let own = &own[0];
        assert_eq!(own.room_id, group_id(1, 3));
        assert_eq!((own.created_by, own.member_count), (user(1), 2));
        assert_eq!((own.last_seq, own.last_at), (1, UnixMs(START_MS)));
        let direct = RoomId::direct(user(1), user(2));
        let own = rooms(Some(&direct.to_string()));
        assert_eq!((own[0].room_id, own[0].kind), (direct, RoomKind::Direct));
        assert_eq!(own[0].title, None);
    }
}

#[test]
fn one_user_and_one_room_with_all_there_is() {
    for backend in Backend::all() {
        backend.users(4);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3]));
        let (seq, _) = sent(&backend.done(send(room, 2, 10, "spam")));
        let (other, _) = sent(&backend.done(send(room, 1, 11, "hello")));
        backend.done(report(room, 1, seq));
        backend.done(report(room, 2, other));
        backend.done(pin(room, 1, other));
        backend.done(block(2, 1));
        backend.done(block(2, 4));
        backend.end_sessions(2, CloseCode::Draining, entry(1, "end"));
        let AdminAnswer::User(Some(kept)) = backend.admin(AdminCall::User(user(2))) else {
            panic!("not the user");
        };
        assert_eq!((kept.user.user_id, kept.user.room_count), (user(2), 1));
        assert_eq!(kept.user.version, backend.version(2));
        assert_eq!(kept.sessions_ended_at, Some(UnixMs(START_MS)));
        let [own] = &kept.rooms[..] else {
            panic!("{:?}", kept.rooms);
        };
        assert_eq!((own.room_id, own.role), (room, Role::Member));
        assert_eq!(own.title.as_deref(), Some("group 1"));
        assert_eq!(kept.blocks, users([1, 4]));
        let by: Vec<Seq> = kept.reports_by.iter().map(|it| it.message_seq).collect();
        let about: Vec<Seq> = kept.reports_about.iter().map(|it| it.message_seq).collect();
        assert_eq!((by, about), (vec![other], vec![seq]));
        let AdminAnswer::User(None) = backend.admin(AdminCall::User(user(9))) else {
            panic!("who is not there");
        };

        let AdminAnswer::Room(Some(shown)) = backend.admin(AdminCall::Room(room)) else {
            panic!("not the room");
        };
        assert_eq!((shown.messages, shown.pins, shown.reports_open), (2, 1, 2));
        assert_eq!(shown.room.last_seq, backend.last_seq(room));
        let roles: Vec<Role> = shown.members.iter().map(|it| it.role).collect();
        assert_eq!(roles.iter().filter(|role| **role == Role::Owner).count(), 1);
        assert_eq!(roles.len(), 3);
        assert!(shown.members.iter().any(|it| it.name == "u3"));
        let AdminAnswer::Room(None) = backend.admin(AdminCall::Room(group_id(1, 2))) else {
            panic!("a room that is not there");
        };
    }
}

#[test]
fn the_service_reads_what_a_member_reads() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        for n in 0..6 {
            backend.done(send(room, 1, 10 + n, &format!("text {n}")));
        }
        backend.done(edit(room, 1, 3, "edited"));
        backend.done(react(room, 2, 4, "👍"));
        for (page, limit) in [
            (HistoryPage::Newest, 3),
            (HistoryPage::Newest, 100),
            (HistoryPage::Before(5), 2),
            (HistoryPage::After(2), 3),
            (HistoryPage::Around(4), 3),
        ] {
            let bytes_max = limits::HISTORY_PAGE_BYTES_MAX;
            let call = AdminCall::Messages {
                room,
                page,
                limit,
                bytes_max,
            };
            let AdminAnswer::Messages(Some(found)) = backend.admin(call) else {
                panic!("not the messages");
            };
            // User 1 put no emoji, no more than the service did.
            let read = HistoryRead {
                room,
                user: user(1),
                page,
                limit,
                bytes_max,
            };
            let StoreAnswer::History(Ok(wanted)) = backend.call(StoreCall::History(read)) else {
                panic!("not the history");
            };
            assert_eq!(found.messages, wanted.messages, "{page:?}");
            assert_eq!(found.has_more, wanted.has_more, "{page:?}");
            assert_eq!(found.last_seq, wanted.last_seq);
            assert_eq!(found.next_after_seq, wanted.next_after_seq);
        }
        let call = AdminCall::Messages {
            room: group_id(1, 2),
            page: HistoryPage::Newest,
            limit: 1,
            bytes_max: 1,
        };
        let AdminAnswer::Messages(None) = backend.admin(call) else {
            panic!("of a room that is not there");
        };
    }
}

#[test]
fn the_audit_trail_is_told_newest_first_page_by_page() {
    for backend in Backend::all() {
        for n in 1..=7 {
            backend.set_clock_ms(START_MS + u64::try_from(n).expect("small"));
            backend.admin(AdminCall::Note(entry(n, "look")));
        }
        let (acts, pages) = all_pages(|cursor| {
            let read = PageRead { cursor, ..page(3) };
            let AdminAnswer::Audit(page) = backend.admin(AdminCall::Audit(read)) else {
                panic!("not the answer to an audit");
            };
            let page = page.expect("a page");
            (page.acts, page.next_cursor)
        });
        assert_eq!(pages, 3);
        let told: Vec<(u64, &str)> = acts
            .iter()
            .map(|act| (act.at.0 - START_MS, act.request_id.as_str()))
            .collect();
        let wanted: Vec<(u64, String)> =
            (1..=7).rev().map(|n| (n, format!("request-{n}"))).collect();
        let wanted: Vec<(u64, &str)> = wanted.iter().map(|(n, id)| (*n, id.as_str())).collect();
        assert_eq!(told, wanted);
        assert!(acts.iter().all(|act| act.outcome == "begun"));
        let read = PageRead {
            cursor: Some("-1".to_owned()),
            ..page(1)
        };
        let AdminAnswer::Audit(Err(refusal)) = backend.admin(AdminCall::Audit(read)) else {
            panic!("a bad cursor is taken");
        };
        assert_eq!(refusal.code, ErrorCode::BadRequest);
    }
}
