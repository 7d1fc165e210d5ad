//! Retention: what is older than a room keeps it is dropped, and all reads begin above that.

use crate::harness::*;
use caffis_chat::chat::port::admin::{AdminAnswer, AdminCall, AuditEntry, PageRead};
use caffis_chat::chat::port::upkeep::*;
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::event::RoomEventBody;
use caffis_chat::protocol::view::MessageKind;
use caffis_chat::protocol::{ErrorCode, RoomId, Seq};
use uuid::Uuid;

fn upkeep(backend: &Backend, step: Upkeep) -> UpkeepDone {
    let StoreAnswer::Upkeep(done) = backend.call(StoreCall::Upkeep(step)) else {
        panic!("not the answer to upkeep");
    };
    done
}

fn next(backend: &Backend, held: bool, days: u32) -> Option<Vec<RoomId>> {
    match upkeep(backend, Upkeep::RetainNext { held, days }) {
        UpkeepDone::RetainNext(next) => next,
        other => panic!("{other:?}"),
    }
}

pub fn retain(backend: &Backend, room: RoomId, days: u32) -> bool {
    match upkeep(backend, Upkeep::Retain { room, days }) {
        UpkeepDone::Retained(done) => done,
        other => panic!("{other:?}"),
    }
}

fn floor(backend: &Backend, room: RoomId) -> Seq {
    let heads = backend.call(StoreCall::Heads {
        rooms: vec![room],
        users: Vec::new(),
    });
    let StoreAnswer::Heads { floors, .. } = heads else {
        panic!("not the answer to heads");
    };
    let floor = floors.first().map_or(0, |(_, floor)| *floor);
    assert_eq!(backend.open_room(room).expect("a room").floor, floor);
    assert_eq!(backend.all_events(room).floor, floor);
    floor
}

fn set_age(backend: &Backend, room: RoomId, days: Option<u32>) -> Option<bool> {
    let entry = AuditEntry {
        id: Uuid::now_v7(),
        who: "00000000".to_owned(),
        node: "n".to_owned(),
        request_id: "r".to_owned(),
        act: "admin.rooms.retention",
        target: Some(room.to_string()),
        detail: None,
    };
    let call = AdminCall::SetRetention { room, days, entry };
    match backend.call(StoreCall::Admin(Box::new(call))) {
        StoreAnswer::Admin(answer) => match *answer {
            AdminAnswer::RetentionSet(changed) => changed,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn acts(backend: &Backend) -> Vec<(String, String)> {
    let page = PageRead {
        query: None,
        cursor: None,
        limit: 50,
    };
    let call = StoreCall::Admin(Box::new(AdminCall::Audit(page)));
    let StoreAnswer::Admin(answer) = backend.call(call) else {
        panic!("not the answer to the audit trail");
    };
    let AdminAnswer::Audit(Ok(audit)) = *answer else {
        panic!("{answer:?}");
    };
    let acts = audit.acts.into_iter();
    acts.map(|act| (act.act, act.outcome)).collect()
}

fn search(backend: &Backend, n: u128, query: &str) -> Vec<Seq> {
    let read = SearchRead {
        user: user(n),
        query: query.to_owned(),
        room: None,
        before: None,
        limit: limits::SEARCH_PAGE_MAX,
        bytes_max: usize::MAX,
    };
    match backend.call(StoreCall::Search(read)) {
        StoreAnswer::Search(Ok(page)) => page.hits.iter().map(|hit| hit.message.seq).collect(),
        other => panic!("{other:?}"),
    }
}

pub fn at_day(backend: &Backend, day: u64) {
    backend.set_clock_ms(START_MS + day * DAY_MS);
}

/// A room of two: on day 0 it is opened and Bob (2) writes `old`, which is pinned and reacted to, and another that
/// names Ada; on day 20 the first is edited; on day 30 he writes a third.
fn lived_in(backend: &Backend) -> (RoomId, Seq, Seq, Seq) {
    backend.users(2);
    let room = group_id(1, 1);
    at_day(backend, 0);
    backend.done(create_group(1, 1, [2]));
    let old = sent(&backend.done(send(room, 2, 1, "kaffeesatz"))).0;
    backend.done(react(room, 1, old, "👍"));
    backend.done(pin(room, 1, old));
    let named = sent(&backend.done(mentioning(room, 2, 2, "kaffeesatz too", [1]))).0;
    at_day(backend, 20);
    backend.done(edit(room, 2, old, "kaffeesatz, edited"));
    at_day(backend, 30);
    let new = sent(&backend.done(send(room, 2, 3, "kaffeesatz, new"))).0;
    (room, old, named, new)
}

#[test]
fn what_is_older_is_dropped_and_every_read_begins_above_it() {
    for backend in Backend::all() {
        let (room, old, named, new) = lived_in(&backend);
        assert_eq!((floor(&backend, room), named + 1), (0, new - 1));
        let before = backend.last_seq(room);
        assert_eq!(backend.get_room(room, 1).expect("a member").own.unread, 3);

        assert!(retain(&backend, room, 15));
        assert_eq!(floor(&backend, room), named);
        assert_eq!(backend.last_seq(room), before, "no event is made");

        let seqs = |page| -> Vec<Seq> {
            let messages = backend.history(room, 1, page);
            messages.iter().map(|message| message.seq).collect()
        };
        assert_eq!(seqs(HistoryPage::Newest), [new]);
        assert!(seqs(HistoryPage::Before(named)).is_empty());
        assert_eq!(seqs(HistoryPage::Around(old)), [new]);
        // The old message changed since, but is no longer there.
        assert_eq!(seqs(HistoryPage::After(0)), [new]);
        let read = HistoryRead {
            room,
            user: user(1),
            page: HistoryPage::After(1),
            limit: 10,
            bytes_max: usize::MAX,
        };
        let StoreAnswer::History(Ok(page)) = backend.call(StoreCall::History(read)) else {
            panic!("no page");
        };
        assert_eq!((page.floor_seq, page.has_more), (Some(named), false));
        assert_eq!(page.next_after_seq, Some(before));

        // An edit above the floor is told as what its message is.
        let events = backend.all_events(room);
        let told: Vec<Seq> = events.events.iter().map(|event| event.seq).collect();
        assert_eq!(told, (named + 1..=before).collect::<Vec<_>>());
        match &events.events[0].body {
            RoomEventBody::MessageUpdated { message, .. } => {
                assert_eq!(message.seq, old);
                assert!(message.text.is_none() && message.deleted_at.is_some());
            }
            other => panic!("{other:?}"),
        }

        let seen = backend.get_room(room, 1).expect("a member");
        assert_eq!(seen.room.pins, Some(Vec::new()));
        assert_eq!((seen.own.read_seq, seen.own.unread), (1, 1));
        let signed_in = backend.sign_in(1);
        assert_eq!(signed_in.rooms[0].described.as_ref().expect("it").unread, 1);
        // A second time there is nothing to do.
        assert!(retain(&backend, room, 15));
        assert_eq!(floor(&backend, room), named);
    }
}

#[test]
fn who_names_a_dropped_message_is_told_that_it_is_gone() {
    for backend in Backend::all() {
        let (room, old, ..) = lived_in(&backend);
        assert!(retain(&backend, room, 15));
        let before = backend.last_seq(room);
        let report = change(room, 1, old, MessageChange::Report);
        for op in [
            edit(room, 2, old, "again"),
            react(room, 1, old, "🎉"),
            pin(room, 1, old),
            report,
        ] {
            assert_eq!(backend.refused(op), ErrorCode::Gone);
        }
        assert!(!message_changed(&backend.done(delete(room, 2, old))).0);
        assert!(!message_changed(&backend.done(unreact(room, 1, old, "👍"))).0);
        assert_eq!(backend.last_seq(room), before);
        // One that answers it, alone, among others, and with a mention.
        assert_eq!(backend.refused(reply_to(room, 1, 9, old)), ErrorCode::Gone);
        let mut naming = mentioning(room, 1, 10, "you", [2]);
        if let OpKind::Send { reply_to_seq, .. } = &mut naming.kind {
            *reply_to_seq = Some(old);
        }
        let outcomes = backend.commit(vec![
            send(room, 1, 11, "before"),
            reply_to(room, 1, 9, old),
            reply_to(room, 1, 12, before),
            naming,
            reply_to(room, 1, 13, before + 1),
            reply_to(room, 1, 14, 99_999),
        ]);
        let codes: Vec<Option<ErrorCode>> = outcomes
            .iter()
            .map(|outcome| outcome.as_ref().err().map(|refusal| refusal.code))
            .collect();
        let (gone, unknown) = (Some(ErrorCode::Gone), Some(ErrorCode::NotFound));
        assert_eq!(codes, [None, gone, None, gone, None, unknown]);
        assert_eq!(backend.last_seq(room), before + 3);
    }
}

#[test]
fn a_send_that_is_retried_after_it_was_dropped_is_a_duplicate() {
    for backend in Backend::all() {
        let (room, old, named, _) = lived_in(&backend);
        // An answer that was sent before, too.
        let answer = sent(&backend.done(reply_to(room, 1, 4, old))).0;
        assert!(retain(&backend, room, 15));
        assert_eq!(
            sent(&backend.done(reply_to(room, 1, 4, old))),
            (answer, true)
        );
        assert_eq!(
            sent(&backend.done(send(room, 2, 1, "kaffeesatz"))),
            (old, true)
        );
        let again = mentioning(room, 2, 2, "kaffeesatz too", [1]);
        assert_eq!(sent(&backend.done(again)), (named, true));
        let conflict = ErrorCode::IdempotencyConflict;
        assert_eq!(backend.refused(send(room, 2, 1, "another")), conflict);
        // Nor does opening the room once more open another.
        assert!(!created(&backend.done(create_group(1, 1, [2]))).1);
        backend.done(leave(room, 1));
        let opened = backend.done(create_group(1, 1, [2]));
        assert_eq!(created(&opened).0.title.as_deref(), Some("group 1"));
    }
}

#[test]
fn what_was_dropped_is_not_found() {
    for backend in Backend::all() {
        let (room, _, _, new) = lived_in(&backend);
        while search(&backend, 1, "kaffeesatz").len() < 3 {}
        assert!(retain(&backend, room, 15));
        assert_eq!(search(&backend, 1, "kaffeesatz"), [new]);
    }
}

#[test]
fn a_long_room_is_dropped_in_stretches_and_its_newest_event_stays() {
    for mut backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let count = 2 * RETAIN_STRETCH as u128 + 10;
        for chunk in (1..=count).collect::<Vec<_>>().chunks(500) {
            backend.commit(chunk.iter().map(|n| send(room, 2, *n, "old")).collect());
        }
        backend.done(set_title(room, 1, Some("the last word")));
        let last_seq = backend.last_seq(room);
        at_day(&backend, 40);
        assert!(!retain(&backend, room, 30));
        assert_eq!(floor(&backend, room), RETAIN_STRETCH);
        // Somebody else goes on.
        backend.reopen();
        assert!(!retain(&backend, room, 30));
        let unread = backend.get_room(room, 1).expect("a member").own.unread;
        assert_eq!(unread, 11, "those that are left");
        assert!(retain(&backend, room, 30));
        assert_eq!(floor(&backend, room), last_seq);
        assert_eq!(backend.last_seq(room), last_seq);
        assert!(backend.history(room, 1, HistoryPage::Newest).is_empty());
        assert!(backend.all_events(room).events.is_empty());
        let own = backend.get_room(room, 1).expect("a member").own;
        assert_eq!(own.unread, 0);
        // It goes on as it was.
        let first = sent(&backend.done(send(room, 2, 9_999, "new"))).0;
        assert_eq!(first, last_seq + 1);
        let messages = backend.history(room, 1, HistoryPage::Newest);
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].kind, MessageKind::Text);
    }
}

#[test]
fn rooms_are_told_when_they_have_something_to_drop_and_one_at_a_time_drops() {
    for backend in Backend::all() {
        backend.users(2);
        let of = |name| group_id(1, name);
        for (day, name) in [(0, 1), (1, 2), (2, 3)] {
            at_day(&backend, day);
            backend.done(create_group(1, name, [2]));
        }
        at_day(&backend, 10);
        assert_eq!(next(&backend, false, 0), Some(Vec::new()), "for ever");
        // Somebody drops: nobody else does, until it was silent for so long.
        assert_eq!(next(&backend, false, 9), Some(vec![of(1)]));
        assert_eq!(next(&backend, false, 9), None);
        assert_eq!(next(&backend, true, 9), Some(vec![of(1)]));
        backend.set_clock_ms(START_MS + 10 * DAY_MS + RETAIN_LEASE_MS);
        assert_eq!(next(&backend, false, 9), Some(vec![of(1)]));
        // A step is a word, too.
        backend.set_clock_ms(START_MS + 10 * DAY_MS + 2 * RETAIN_LEASE_MS - 1);
        assert!(retain(&backend, of(1), 9));
        backend.set_clock_ms(START_MS + 10 * DAY_MS + 2 * RETAIN_LEASE_MS);
        assert_eq!(next(&backend, false, 8), None);
        assert_eq!(next(&backend, true, 9), Some(Vec::new()), "it is done");
        assert_eq!(next(&backend, true, 8), Some(vec![of(2)]));

        // An age of its own counts, whatever that of the others.
        assert_eq!(set_age(&backend, of(3), Some(1)), Some(true));
        assert_eq!(set_age(&backend, of(3), Some(1)), Some(false));
        assert_eq!(set_age(&backend, of(2), Some(0)), Some(true));
        assert_eq!(set_age(&backend, group_id(1, 9), Some(1)), None);
        assert_eq!(next(&backend, true, 0), Some(vec![of(3)]));
        assert_eq!(next(&backend, true, 8), Some(vec![of(3)]));
        assert!(retain(&backend, of(2), 1), "it keeps all");
        assert_eq!(floor(&backend, of(2)), 0);
        assert!(retain(&backend, of(3), 0));
        assert!(floor(&backend, of(3)) > 0);
        // What is written later is looked at when it is old enough, and by some more.
        at_day(&backend, 12);
        backend.done(send(of(3), 1, 1, "new"));
        // It was empty since day 10: what came since may be as old as that, but is not.
        assert_eq!(next(&backend, true, 0), Some(vec![of(3)]));
        assert!(retain(&backend, of(3), 0));
        backend.set_clock_ms(START_MS + 13 * DAY_MS + RETAIN_SLACK_MS);
        assert_eq!(next(&backend, true, 0), Some(Vec::new()));
        backend.set_clock_ms(START_MS + 13 * DAY_MS + RETAIN_SLACK_MS + 1);
        assert_eq!(next(&backend, true, 0), Some(vec![of(3)]));
        assert!(retain(&backend, of(3), 0));
        assert_eq!(next(&backend, true, 0), Some(Vec::new()));
        assert_eq!(floor(&backend, of(3)), backend.last_seq(of(3)));
        assert_eq!(set_age(&backend, of(3), None), Some(true));

        let noted = acts(&backend);
        let outcomes: Vec<&str> = noted.iter().map(|(_, outcome)| outcome.as_str()).collect();
        assert_eq!(outcomes, ["done", "done", "unchanged", "done"]);
        assert!(noted.iter().all(|(act, _)| act == "admin.rooms.retention"));
    }
}

#[test]
fn a_user_is_erased_from_a_room_that_dropped_what_they_wrote() {
    for backend in Backend::all() {
        let (room, old, ..) = lived_in(&backend);
        assert!(retain(&backend, room, 15));
        upkeep(&backend, Upkeep::EraseBegin(user(2)));
        let UpkeepDone::EraseNext(Some(erasure)) = upkeep(&backend, Upkeep::EraseNext(None)) else {
            panic!("there is an erasure");
        };
        let done = backend.done(Op {
            actor: user(2),
            room,
            kind: OpKind::Erase {
                requested_at: erasure.requested_at,
            },
        });
        assert_eq!(done.events.len(), 1);
        assert_eq!(
            sent(&backend.done(send(room, 2, 1, "kaffeesatz"))),
            (old, true)
        );
    }
}
