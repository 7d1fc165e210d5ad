//! Reads: stretches of events, sign-in, lists. Pages of history are compared with a model in
//! `random`.

use crate::harness::*;
use caffis_chat::chat::port::{
    BlocksRead, EventsRead, HistoryPage, HistoryRead, ListRead, MembersRead, SignIn, StoreCall,
};
use caffis_chat::chat::port::{RoomsPage, StoreAnswer};
use caffis_chat::limits;
use caffis_chat::protocol::event::RoomEventBody;
use caffis_chat::protocol::{ErrorCode, RoomId, Seq, UnixMs, UserId};

fn seqs(backend: &Backend, read: EventsRead) -> Vec<Seq> {
    let page = backend.events(read);
    page.events.iter().map(|event| event.seq).collect()
}

/// Whose presence a user may see.
#[test]
fn who_is_in_a_room_with_a_user_is_told_as_of_now() {
    for backend in Backend::all() {
        backend.users(8);
        let shares = |n: u128, others: &[u128]| {
            let asked = StoreCall::WhoShares {
                user: user(n),
                others: users(others.iter().copied()),
            };
            let StoreAnswer::WhoShares(found) = backend.call(asked) else {
                panic!("not the answer to who shares");
            };
            let number = |found: UserId| (1..=9).find(|n| user(*n) == found);
            let mut numbers: Vec<u128> = found.into_iter().filter_map(number).collect();
            numbers.sort_unstable();
            numbers
        };
        let all: Vec<u128> = (1..=9).collect();
        assert_eq!(shares(1, &all), []);
        let (first, second) = (group_id(1, 1), group_id(2, 1));
        backend.done(create_group(1, 1, [2, 3]));
        backend.done(create_group(2, 1, [4]));
        backend.done(create_direct(5, 1));
        // Oneself too; 9 is unknown.
        assert_eq!(shares(1, &all), [1, 2, 3, 5]);
        assert_eq!(shares(2, &all), [1, 2, 3, 4]);
        assert_eq!(shares(6, &all), []);
        assert_eq!(shares(9, &all), []);
        assert_eq!(shares(1, &[3, 4, 9]), [3]);
        assert_eq!(shares(1, &[]), []);
        // Who left, or was removed, does not; nor does who stays in another room see them.
        backend.done(remove(first, 1, [3]));
        assert_eq!(shares(1, &all), [1, 2, 5]);
        assert_eq!(shares(3, &all), []);
        backend.done(add(second, 2, [1]));
        backend.done(leave(first, 1));
        assert_eq!(shares(1, &all), [1, 2, 4, 5]);
        backend.done(leave(second, 1));
        assert_eq!(shares(1, &all), [1, 5]);
        assert_eq!(shares(2, &all), [2, 4]);
    }
}

#[test]
fn events_are_cut_at_the_end_that_was_asked_for() {
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        let sends = (2..=11).map(|id| send(room, 1, id, "ten bytes!"));
        backend.commit(sends.collect());
        let read = |after, to, events_max, bytes_max, newest| EventsRead {
            room,
            after,
            to,
            events_max,
            bytes_max,
            newest,
        };
        let all = usize::MAX;
        let check = |read: EventsRead, expected: std::ops::RangeInclusive<Seq>| {
            assert_eq!(
                seqs(&backend, read),
                expected.collect::<Vec<_>>(),
                "{read:?}"
            );
        };
        check(read(0, Seq::MAX, all, all, false), 1..=11);
        check(read(0, Seq::MAX, all, all, true), 1..=11);
        check(read(3, 7, all, all, false), 4..=7);
        check(read(3, 7, 2, all, false), 4..=5);
        check(read(3, 7, 2, all, true), 6..=7);
        // At most so many bytes, but at least one event.
        check(read(3, 7, all, 20, false), 4..=5);
        check(read(3, 7, all, 29, true), 6..=7);
        check(read(3, 7, all, 9, false), 4..=4);
        check(read(3, 7, all, 0, true), 7..=7);
        for nothing in [
            read(11, Seq::MAX, all, all, false),
            read(7, 7, all, all, true),
        ] {
            assert!(seqs(&backend, nothing).is_empty());
            assert_eq!(backend.events(nothing).last_seq, 11);
            assert_eq!(backend.events(nothing).floor, 0);
        }
    }
}

/// What was told when it was committed is told again, however the room and its members have changed
/// since, also after a restart.
#[test]
fn events_are_told_again_as_they_were_committed() {
    for mut backend in Backend::all() {
        backend.users(4);
        let room = group_id(1, 1);
        let mut told = Vec::new();
        for (step, op) in [
            create_group(1, 1, [2]),
            send(room, 2, 1, "hello"),
            add(room, 1, [3, 4]),
            remove(room, 1, [2]),
            leave(room, 1),
            send(room, 3, 2, "we are alone"),
        ]
        .into_iter()
        .enumerate()
        {
            backend.set_clock_ms(START_MS + step as u64);
            told.extend(backend.done(op).events);
        }
        for n in 1..=4 {
            backend.sign_in_as(sign_in(n, Some("renamed")));
        }
        assert_eq!(backend.all_events(room).events, told);
        backend.reopen();
        assert_eq!(backend.all_events(room).events, told);
        let RoomEventBody::MemberJoined(joined) = &told[2].body else {
            panic!("not member.joined");
        };
        assert!(joined.name.starts_with('u'), "the name at the time");
    }
}

#[test]
fn an_unknown_user_is_created_and_a_name_is_refreshed_only_if_given() {
    for backend in Backend::all() {
        let first = backend.sign_in_as(sign_in(1, Some("Ada")));
        assert!(first.rooms.is_empty());
        backend.done(create_group(1, 1, []));
        let name = || {
            let seen = backend.get_room(group_id(1, 1), 1).expect("a member");
            seen.room.members[0].name.clone()
        };
        assert_eq!(name(), "Ada");
        let again = backend.sign_in_as(sign_in(1, None));
        assert_eq!(name(), "Ada");
        backend.sign_in_as(sign_in(1, Some("Ada L.")));
        assert_eq!(name(), "Ada L.");
        // Not a change of rooms.
        assert_eq!(backend.version(1), again.version);
        backend.sign_in_as(sign_in(2, None));
        backend.done(add(group_id(1, 1), 1, [2]));
    }
}

/// One of the names stands, and nobody waits for ever.
#[test]
fn one_user_with_two_names_in_one_call_is_signed_in_twice() {
    for backend in Backend::all() {
        let users = vec![sign_in(1, Some("Ada")), sign_in(1, Some("Lovelace"))];
        let StoreAnswer::SignIn(answers) = backend.call(StoreCall::SignIn(users)) else {
            panic!("not the answer to a sign-in");
        };
        assert_eq!(answers.len(), 2);
    }
}

#[test]
fn signing_in_describes_the_rooms_of_resume_first_then_by_activity() {
    for backend in Backend::all() {
        backend.users(2);
        for name in 1..=6 {
            backend.set_clock_ms(START_MS + name as u64);
            backend.done(create_group(1, name, [2]));
        }
        backend.set_clock_ms(START_MS + 10);
        backend.done(send(group_id(1, 3), 2, 1, "hello"));
        let signed_in = backend.sign_in_as(SignIn {
            resume: vec![
                group_id(1, 1),
                group_id(1, 99),
                group_id(1, 5),
                group_id(1, 1),
            ],
            describe_max: 4,
            ..sign_in(1, None)
        });
        let rooms: Vec<_> = signed_in
            .rooms
            .iter()
            .map(|room| (room.room, room.described.is_some()))
            .collect();
        let expected = [
            (1, true),
            (5, true),
            (3, true),
            (6, true),
            (4, false),
            (2, false),
        ];
        assert_eq!(rooms, expected.map(|(name, is)| (group_id(1, name), is)));
        let described = signed_in.rooms[2].described.as_ref().expect("described");
        assert_eq!(described.unread, 1);
        let mut read: Vec<(UserId, Seq, Seq)> = described
            .watermarks
            .iter()
            .map(|mark| (mark.user_id, mark.read_seq, mark.delivered_seq))
            .collect();
        read.sort_unstable();
        let mut expected = vec![(user(1), 1, 1), (user(2), 2, 2)];
        expected.sort_unstable();
        assert_eq!(read, expected);
        // More of resume than are described: the rest is by activity.
        let signed_in = backend.sign_in_as(SignIn {
            resume: vec![group_id(1, 2), group_id(1, 1)],
            describe_max: 1,
            ..sign_in(1, None)
        });
        let rooms: Vec<RoomId> = signed_in.rooms.iter().map(|room| room.room).collect();
        assert_eq!(rooms, [2, 3, 6, 5, 4, 1].map(|name| group_id(1, name)));
    }
}

#[test]
fn watermarks_come_with_rooms_of_up_to_eight_members() {
    for backend in Backend::all() {
        backend.users(9);
        backend.done(create_group(1, 8, 2..=8));
        backend.done(create_group(1, 9, 2..=9));
        for room in backend.sign_in(1).rooms {
            let described = room.described.expect("described");
            let expected = if room.room == group_id(1, 8) { 8 } else { 0 };
            assert_eq!(described.watermarks.len(), expected);
        }
    }
}

fn list(backend: &Backend, read: ListRead) -> Result<RoomsPage, ErrorCode> {
    let StoreAnswer::ListRooms(page) = backend.call(StoreCall::ListRooms(read)) else {
        panic!("not the answer to a list");
    };
    page.map_err(|refusal| refusal.code)
}

#[test]
fn rooms_are_listed_by_activity_page_by_page() {
    for backend in Backend::all() {
        backend.users(12);
        // Several rooms of one millisecond, so that the room decides.
        for name in 1..=25u128 {
            backend.set_clock_ms(START_MS + name as u64 / 4);
            backend.done(create_group(1, name, 2..=12));
        }
        backend.set_clock_ms(START_MS + 100);
        backend.done(send(group_id(1, 7), 2, 1, "the newest"));
        backend.done(add(group_id(1, 7), 1, []));
        let mut expected: Vec<(u64, RoomId)> = (1..=25u128)
            .map(|name| {
                let ms = if name == 7 { 100 } else { name as u64 / 4 };
                (u64::MAX - ms, group_id(1, name))
            })
            .collect();
        expected.sort_unstable();
        let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let read = ListRead {
                user: user(1),
                cursor,
                limit: 10,
                archived: false,
                now: UnixMs(START_MS),
            };
            let page = list(&backend, read).expect("a page");
            pages += 1;
            found.extend(page.rooms);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(pages, 3);
        let rooms: Vec<RoomId> = found.iter().map(|listed| listed.room.room_id).collect();
        assert!(rooms.iter().eq(expected.iter().map(|(_, room)| room)));
        let newest = &found[0];
        assert_eq!((newest.own.unread, newest.own.read_seq), (1, 1));
        let last = newest.last_message.as_ref().expect("a message");
        assert_eq!(last.text.as_deref(), Some("the newest"));
        assert_eq!(
            (newest.room.member_count, newest.room.members.len()),
            (12, 8)
        );
        assert!(
            found[1..]
                .iter()
                .all(|listed| listed.last_message.is_none())
        );
    }
}

#[test]
fn a_list_knows_its_own_cursors_only() {
    for backend in Backend::all() {
        backend.users(1);
        backend.done(create_group(1, 1, []));
        let read = |cursor: Option<&str>, archived| ListRead {
            user: user(1),
            cursor: cursor.map(str::to_owned),
            limit: 10,
            archived,
            now: UnixMs(START_MS),
        };
        for cursor in ["", "-", "x", "1-2", "ffffffffffffffffff-00", "\u{0}", "1-é"] {
            let refused = list(&backend, read(Some(cursor), false)).expect_err("refused");
            assert_eq!(refused, ErrorCode::BadRequest, "{cursor}");
        }
        assert!(
            list(&backend, read(None, true))
                .expect("a page")
                .rooms
                .is_empty()
        );
        assert_eq!(
            list(&backend, read(None, false))
                .expect("a page")
                .rooms
                .len(),
            1
        );
    }
}

#[test]
fn history_and_rooms_are_for_members() {
    for backend in Backend::all() {
        backend.users(3);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        backend.done(send(room, 1, 1, "secret"));
        backend.done(remove(room, 1, [2]));
        for (n, room) in [(2, room), (3, room), (1, group_id(1, 2))] {
            let answer = backend.call(StoreCall::History(HistoryRead {
                room,
                user: user(n),
                page: HistoryPage::Newest,
                limit: 10,
                bytes_max: limits::HISTORY_PAGE_BYTES_MAX,
            }));
            let StoreAnswer::History(page) = answer else {
                panic!("not the answer to a history");
            };
            assert_eq!(page.expect_err("refused").code, ErrorCode::Forbidden);
            let seen = backend.get_room(room, n);
            assert_eq!(seen.expect_err("refused").code, ErrorCode::Forbidden);
        }
        assert!(backend.sign_in(2).rooms.is_empty());
    }
}

#[test]
fn the_epoch_stays_while_the_data_does() {
    for mut backend in Backend::all() {
        let epoch = backend.store().epoch();
        backend.reopen();
        assert_eq!(backend.store().epoch(), epoch);
        assert_eq!(backend.store().durability(), "commit");
    }
    let epochs = Backend::all().into_iter().chain(Backend::all());
    let epochs: Vec<u64> = epochs.map(|backend| backend.store().epoch().0).collect();
    for (at, epoch) in epochs.iter().enumerate() {
        assert!(!epochs[..at].contains(epoch), "two stores, one epoch");
    }
}

/// Who notices that the history was replaced asks for another epoch; of many who do, one makes it.
#[test]
fn an_epoch_is_renewed_once_for_all_who_ask() {
    for mut backend in Backend::all() {
        let first = backend.store().epoch();
        let renew = |backend: &Backend, epoch| {
            let answer = backend.call(StoreCall::RenewEpoch(epoch));
            assert!(matches!(answer, StoreAnswer::RenewEpoch));
            backend.store().epoch()
        };
        let second = renew(&backend, first);
        assert_ne!(second, first);
        // Asked again with the old one: somebody was first.
        assert_eq!(renew(&backend, first), second);
        backend.reopen();
        assert_eq!(backend.store().epoch(), second);
        let third = renew(&backend, second);
        assert!(![first, second].contains(&third));
        // Nothing else has changed; a connection that hears of it only now may say so, once.
        let answered =
            |call: &dyn Fn() -> StoreCall| (0..20).any(|_| backend.try_call(call()).is_ok());
        assert!(answered(&|| StoreCall::SignIn(vec![sign_in(1, None)])));
        assert!(answered(&|| StoreCall::Commit(vec![create_group(
            1,
            1,
            []
        )])));
    }
}

/// What is there all the while stands on one page, and only one, however much comes between two of them.
#[test]
fn pages_end_and_lose_nothing_while_more_comes() {
    for backend in Backend::all() {
        backend.users(40);
        for name in 1..=6u128 {
            backend.set_clock_ms(START_MS + name as u64);
            backend.done(create_group(1, name, 2..=12));
        }
        let blocks = (2..=12).map(|n| block(40, n)).collect();
        assert!(backend.commit(blocks).iter().all(Result::is_ok));
        // Not one of those that are listed: a new member is activity.
        let room = group_id(2, 50);
        backend.done(create_group(2, 50, 3..=13));
        let (mut rooms, mut members, mut blocked) = (Vec::new(), Vec::new(), Vec::new());
        let (mut of_rooms, mut of_members, mut of_blocks) = (None, None, None);
        for round in 0.. {
            assert!(round < 20, "it ends");
            let first = round == 0;
            let mut more = false;
            if first || of_rooms.is_some() {
                let read = ListRead {
                    user: user(1),
                    cursor: of_rooms.take(),
                    limit: 2,
                    archived: false,
                    now: UnixMs(START_MS),
                };
                let page = list(&backend, read).expect("a page");
                rooms.extend(page.rooms.iter().map(|listed| listed.room.room_id));
                of_rooms = page.next_cursor;
                more |= of_rooms.is_some();
            }
            if first || of_members.is_some() {
                let read = StoreCall::ListMembers(MembersRead {
                    room,
                    user: user(2),
                    cursor: of_members.take(),
                    limit: 5,
                });
                let StoreAnswer::ListMembers(Ok(page)) = backend.call(read) else {
                    panic!("no page of members");
                };
                members.extend(page.members.iter().map(|member| member.user_id));
                of_members = page.next_cursor;
                more |= of_members.is_some();
            }
            if first || of_blocks.is_some() {
                let read = StoreCall::Blocks(BlocksRead {
                    user: user(40),
                    cursor: of_blocks.take(),
                    limit: 4,
                });
                let StoreAnswer::Blocks(Ok(page)) = backend.call(read) else {
                    panic!("no page of blocks");
                };
                blocked.extend(page.users.iter().map(|blocked| blocked.user_id));
                of_blocks = page.next_cursor;
                more |= of_blocks.is_some();
            }
            if !more {
                break;
            }
            // A new room, a message in one that was shown, a new member, one who was shown leaves, a block more.
            let n = 20 + round;
            backend.set_clock_ms(START_MS + 100 + round as u64);
            backend.done(create_group(1, 100 + round, 2..=3));
            backend.done(send(group_id(1, 6), 1, n, "the newest"));
            backend.done(add(room, 2, [n]));
            if first {
                let shown = (3..=13).find(|n| members[..5].contains(&user(*n)));
                backend.done(leave(room, shown.expect("one of them")));
            }
            backend.done(block(40, n));
        }
        let times = |all: &[UserId], n: u128| all.iter().filter(|one| **one == user(n)).count();
        for name in 1..=6 {
            let id = group_id(1, name);
            assert_eq!(rooms.iter().filter(|one| **one == id).count(), 1, "{name}");
        }
        for n in 2..=13 {
            assert_eq!(times(&members, n), 1, "member {n}");
        }
        for n in 2..=12 {
            assert_eq!(times(&blocked, n), 1, "block {n}");
        }
        for n in 20..40 {
            assert!(times(&members, n) <= 1 && times(&blocked, n) <= 1, "{n}");
        }
    }
}
