//! Rooms and their members: who may what, who becomes owner, whose version rises.

use crate::harness::*;
use caffis_chat::chat::port::{Op, OpKind, StoreAnswer, StoreCall};
use caffis_chat::limits;
use caffis_chat::protocol::event::{Membership, RoomEventBody};
use caffis_chat::protocol::view::{Role, RoomKind};
use caffis_chat::protocol::{ErrorCode, RoomId};

#[test]
fn a_group_opens_with_its_creator_as_owner_and_everybody_has_read_its_first_event() {
    for backend in Backend::all() {
        backend.users(3);
        let done = backend.done(create_group(1, 1, [2, 3]));
        let (room, is_new) = created(&done);
        assert!(is_new);
        assert_eq!((room.last_seq, room.member_count), (1, 3));
        assert_eq!(room.title.as_deref(), Some("group 1"));
        assert_eq!(room.created_at.0, START_MS);
        assert_eq!(done.events.len(), 1);
        let RoomEventBody::RoomCreated { room: told } = &done.events[0].body else {
            panic!("not room.created");
        };
        assert_eq!(**told, *room);
        for (n, role) in [(1, Role::Owner), (2, Role::Member), (3, Role::Member)] {
            assert_eq!(backend.role(room.room_id, n), Some(role));
            let seen = backend.get_room(room.room_id, n).expect("a member");
            assert_eq!(seen.room, *room);
            assert_eq!(seen.own.read_seq, 1);
            for member in seen.room.members {
                assert_eq!((member.read_seq, member.delivered_seq), (1, 1));
            }
        }
    }
}

#[test]
fn a_group_is_opened_once_whatever_is_repeated() {
    for mut backend in Backend::all() {
        backend.users(4);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3]));
        backend.done(send(room, 2, 9, "hello"));
        backend.done(add(room, 1, [4]));
        for reopened in [false, true] {
            if reopened {
                backend.reopen();
            }
            let done = backend.done(create_group(1, 1, [2, 3]));
            let (told, is_new) = created(&done);
            assert!(!is_new && done.events.is_empty());
            // As it is, not as it was.
            assert_eq!((told.last_seq, told.member_count), (3, 4));
            assert_eq!(*told, backend.get_room(room, 1).expect("a member").room);
        }
        let other_members = backend.refused(create_group(1, 1, [2]));
        assert_eq!(other_members, ErrorCode::IdempotencyConflict);
        let mut other_title = create_group(1, 1, [2, 3]);
        if let OpKind::CreateRoom { title, .. } = &mut other_title.kind {
            *title = None;
        }
        assert_eq!(backend.refused(other_title), ErrorCode::IdempotencyConflict);
        assert_eq!(backend.last_seq(room), 3);
    }
}

/// In one batch the room shows what the writes before it made.
#[test]
fn a_room_found_in_a_batch_is_as_the_batch_left_it() {
    for backend in Backend::all() {
        backend.users(2);
        let outcomes = backend.commit(vec![
            create_group(1, 1, [2]),
            send(group_id(1, 1), 2, 9, "hello"),
            create_group(1, 1, [2]),
        ]);
        let (room, is_new) = created(outcomes[2].as_ref().expect("stands"));
        assert!(!is_new);
        assert_eq!(room.last_seq, 2);
        let read = room
            .members
            .iter()
            .map(|member| (member.user_id, member.read_seq));
        let mut expected = vec![(user(1), 1), (user(2), 2)];
        expected.sort_unstable();
        assert_eq!(read.collect::<Vec<_>>(), expected);
    }
}

#[test]
fn the_creator_who_left_finds_the_room_as_it_was_opened() {
    for backend in Backend::all() {
        backend.users(4);
        let first = backend.done(create_group(1, 1, [2]));
        backend.done(leave(group_id(1, 1), 1));
        backend.done(add(group_id(1, 1), 2, [3, 4]));
        let again = backend.done(create_group(1, 1, [2]));
        assert_eq!(created(&again).0, created(&first).0);
        assert!(!created(&again).1);
    }
}

#[test]
fn a_pair_has_one_direct_room_whoever_opens_it() {
    for backend in Backend::all() {
        backend.users(2);
        let first = backend.done(create_direct(1, 2));
        assert!(created(&first).1);
        assert_eq!(created(&first).0.kind, RoomKind::Direct);
        assert_eq!(created(&first).0.title, None);
        for op in [create_direct(1, 2), create_direct(2, 1)] {
            let done = backend.done(op);
            assert_eq!(created(&done), (created(&first).0, false));
        }
        assert_eq!(
            backend.role(created(&first).0.room_id, 1),
            Some(Role::Member)
        );
        assert_eq!(
            backend.role(created(&first).0.room_id, 2),
            Some(Role::Member)
        );
    }
}

#[test]
fn a_room_id_that_is_not_the_pairs_is_refused() {
    for backend in Backend::all() {
        backend.users(3);
        let mut op = create_direct(1, 2);
        op.room = RoomId::direct(user(1), user(3));
        assert_eq!(backend.refused(op), ErrorCode::BadRequest);
    }
}

#[test]
fn nobody_unknown_becomes_a_member_and_nothing_is_left_of_the_attempt() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        assert_eq!(
            backend.refused(create_group(1, 1, [2, 99])),
            ErrorCode::NotFound
        );
        assert_eq!(backend.refused(create_direct(1, 99)), ErrorCode::NotFound);
        assert!(backend.open_room(room).is_none());
        assert!(backend.sign_in(2).rooms.is_empty());
        backend.done(create_group(1, 1, []));
        assert_eq!(backend.refused(add(room, 1, [2, 99])), ErrorCode::NotFound);
        assert_eq!(backend.role(room, 2), None);
        assert_eq!(backend.last_seq(room), 1);
    }
}

/// Rows: who acts; columns: on whom. `+` allowed, `-` forbidden, `0` nothing to change.
/// o: the owner, a: admins, m: members, f: who left, s: who never was there.
#[test]
fn who_may_add_and_remove_whom() {
    // There is no write that makes an admin yet, so there are none.
    let actors = [(1, "owner"), (3, "member"), (5, "former"), (6, "stranger")];
    let cases = [
        (1, "0---", "+---"),
        (3, "0---", "++--"),
        (4, "0---", "+---"),
        (5, "+---", "0-0-"),
        (6, "+---", "0---"),
    ];
    for backend in Backend::all() {
        backend.users(6);
        let mut name = 0;
        for (at, (actor, who)) in actors.into_iter().enumerate() {
            for (whom, adds, removes) in cases {
                for (does, expected, op) in [
                    ("adds", adds, add as fn(_, _, _) -> _),
                    ("removes", removes, remove),
                ] {
                    name += 1;
                    let room = group_id(1, name);
                    backend.done(create_group(1, name, [3, 4, 5]));
                    backend.done(leave(room, 5));
                    let last_seq = backend.last_seq(room);
                    let found = match backend.one(op(room, actor, [whom])) {
                        Ok(done) if changed(&done).is_some() => b'+',
                        Ok(_) => b'0',
                        Err(refusal) => {
                            assert_eq!(refusal.code, ErrorCode::Forbidden);
                            b'-'
                        }
                    };
                    let expected = expected.as_bytes()[at];
                    assert_eq!(found as char, expected as char, "{who} {does} {whom}");
                    let is_unchanged = backend.last_seq(room) == last_seq;
                    assert_eq!(is_unchanged, found != b'+', "{who} {does} {whom}");
                }
            }
        }
    }
}

#[test]
fn a_direct_room_has_its_two_members_for_ever() {
    for backend in Backend::all() {
        backend.users(3);
        let room = RoomId::direct(user(1), user(2));
        backend.done(create_direct(1, 2));
        for op in [
            add(room, 1, [3]),
            remove(room, 1, [2]),
            remove(room, 1, [1]),
            leave(room, 1),
            leave(room, 3),
        ] {
            assert_eq!(backend.refused(op), ErrorCode::Forbidden);
        }
        assert_eq!(backend.last_seq(room), 1);
    }
}

#[test]
fn leaving_twice_changes_nothing_and_a_stranger_cannot_leave() {
    for backend in Backend::all() {
        backend.users(3);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        assert_eq!(changed(&backend.done(leave(room, 2))), Some(2));
        assert_eq!(changed(&backend.done(leave(room, 2))), None);
        assert_eq!(changed(&backend.done(remove(room, 2, [2]))), None);
        assert_eq!(backend.refused(leave(room, 3)), ErrorCode::Forbidden);
        assert_eq!(
            backend.refused(leave(group_id(1, 2), 3)),
            ErrorCode::Forbidden
        );
        assert_eq!(
            backend.refused(remove(room, 2, [1, 2])),
            ErrorCode::Forbidden
        );
    }
}

#[test]
fn joining_and_leaving_are_events_of_their_own_in_the_order_of_the_users() {
    for backend in Backend::all() {
        backend.users(5);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let added = backend.done(add(room, 1, [2, 3, 4, 5]));
        let joined: Vec<_> = added
            .events
            .iter()
            .map(|event| event.membership())
            .collect();
        let expected = users([3, 4, 5]);
        let expected: Vec<_> = expected
            .iter()
            .map(|u| Some(Membership::Joined(*u)))
            .collect();
        assert_eq!(joined, expected);
        assert_eq!(changed(&added), Some(4));
        let removed = backend.done(remove(room, 1, [3, 4]));
        let left: Vec<_> = removed
            .events
            .iter()
            .map(|event| event.membership())
            .collect();
        let expected = users([3, 4]);
        let expected: Vec<_> = expected
            .iter()
            .map(|u| Some(Membership::Left(*u)))
            .collect();
        assert_eq!(left, expected);
        let told = backend.all_events(room).events;
        assert_eq!(told[1..4], added.events[..]);
        assert_eq!(told[4..], removed.events[..]);
        assert!(told.iter().map(|event| event.seq).eq(1..=6));
    }
}

#[test]
fn a_new_member_has_read_up_to_the_join_and_one_who_returns_too() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        backend.done(send(room, 1, 1, "before"));
        let joined = changed(&backend.done(add(room, 1, [2])));
        assert_eq!(joined, Some(3));
        assert_eq!(backend.get_room(room, 2).expect("a member").own.read_seq, 3);
        backend.done(leave(room, 2));
        backend.done(send(room, 1, 2, "meanwhile"));
        backend.done(add(room, 1, [2]));
        assert_eq!(backend.get_room(room, 2).expect("a member").own.read_seq, 6);
        backend.done(send(room, 1, 3, "after"));
        let rooms = backend.sign_in(2).rooms;
        assert_eq!(rooms[0].described.as_ref().map(|room| room.unread), Some(1));
    }
}

#[test]
fn the_longest_serving_member_succeeds_an_owner_who_leaves() {
    for mut backend in Backend::all() {
        backend.users(4);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        backend.done(add(room, 1, [4]));
        backend.done(add(room, 1, [2]));
        backend.done(add(room, 1, [3]));
        // 4 came first, but returned last.
        backend.done(leave(room, 4));
        backend.done(add(room, 1, [4]));
        backend.reopen();
        let done = backend.done(leave(room, 1));
        let names: Vec<_> = done.events.iter().map(|event| event.body.name()).collect();
        assert_eq!(names, ["member.left", "member.role_changed"]);
        let RoomEventBody::MemberRoleChanged(role_changed) = &done.events[1].body else {
            panic!("not member.role_changed");
        };
        assert_eq!(role_changed.user_id, user(2));
        assert_eq!(role_changed.role, Role::Owner);
        assert_eq!(role_changed.actor_id, user(1));
        assert_eq!(changed(&done), Some(done.events[1].seq));
        assert_eq!(backend.role(room, 2), Some(Role::Owner));
        // Nobody is owner by having been one.
        backend.done(add(room, 2, [1]));
        assert_eq!(backend.role(room, 1), Some(Role::Member));
        // And the last one leaves an empty room behind.
        for n in [2, 3, 4, 1] {
            backend.done(leave(room, n));
        }
        let opened = backend.open_room(room).expect("still there");
        assert!(opened.members.is_empty());
        let last = backend.all_events(room).events.pop().expect("events");
        assert_eq!(last.membership(), Some(Membership::Left(user(1))));
    }
}

#[test]
fn an_owner_who_removes_also_himself_is_succeeded() {
    for backend in Backend::all() {
        backend.users(3);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3]));
        let done = backend.done(remove(room, 1, [1, 2]));
        let names: Vec<_> = done.events.iter().map(|event| event.body.name()).collect();
        assert_eq!(names, ["member.left", "member.left", "member.role_changed"]);
        assert_eq!(backend.role(room, 3), Some(Role::Owner));
        assert_eq!(backend.open_room(room).expect("a room").members.len(), 1);
    }
}

#[test]
fn the_version_of_each_user_whose_rooms_change_rises_and_no_other() {
    for backend in Backend::all() {
        backend.users(4);
        let versions = || [1, 2, 3, 4].map(|n| backend.version(n));
        let room = group_id(1, 1);
        let mut before = versions();
        for (op, whose) in [
            (create_group(1, 1, [2]), vec![1, 2]),
            (create_direct(3, 4), vec![3, 4]),
            (add(room, 1, [2, 3]), vec![3]),
            (send(room, 3, 1, "hello"), vec![]),
            (create_group(1, 1, [2]), vec![]),
            (remove(room, 1, [2, 4]), vec![2]),
            (leave(room, 2), vec![]),
            (leave(room, 1), vec![1]),
        ] {
            backend.done(op);
            let after = versions();
            for n in 1..=4u128 {
                let at = n as usize - 1;
                let rose = after[at] > before[at];
                assert_eq!(rose, whose.contains(&n), "user {n}");
            }
            before = after;
        }
        assert_eq!(backend.sign_in(1).version, before[0]);
    }
}

#[test]
fn a_room_takes_no_more_than_its_members_max() {
    for backend in Backend::all() {
        let max = limits::MEMBERS_MAX as u128;
        backend.users(max + 1);
        let room = group_id(1, 1);
        let refused = backend.refused(create_group(1, 1, 2..=max + 1));
        assert_eq!(refused, ErrorCode::TooLarge);
        let done = backend.done(create_group(1, 1, 2..max));
        assert_eq!(created(&done).0.member_count as u128, max - 1);
        assert_eq!(
            created(&done).0.members.len(),
            limits::ROOM_MEMBERS_SHOWN_MAX
        );
        assert_eq!(
            backend.refused(add(room, 1, [max, max + 1])),
            ErrorCode::TooLarge
        );
        backend.done(add(room, 1, [max]));
        assert_eq!(
            backend.refused(add(room, 1, [max + 1])),
            ErrorCode::TooLarge
        );
        let opened = backend.open_room(room).expect("a room");
        assert_eq!(opened.members.len() as u128, max);
    }
}

#[test]
fn a_user_is_in_no_more_than_so_many_rooms() {
    for backend in Backend::all() {
        backend.users(3);
        let max = limits::ROOMS_PER_USER_MAX as u128;
        let rooms: Vec<Op> = (1..=max).map(|name| create_group(1, name, [])).collect();
        for rooms in rooms.chunks(limits::BATCH_OPS_MAX) {
            for outcome in backend.commit(rooms.to_vec()) {
                outcome.expect("stands");
            }
        }
        assert_eq!(
            backend.refused(create_group(1, max + 1, [])),
            ErrorCode::TooLarge
        );
        assert_eq!(backend.refused(create_direct(2, 1)), ErrorCode::TooLarge);
        backend.done(create_group(2, 1, [3]));
        assert_eq!(
            backend.refused(add(group_id(2, 1), 2, [1])),
            ErrorCode::TooLarge
        );
        let signed_in = backend.sign_in(1);
        assert_eq!(signed_in.rooms.len() as u128, max);
        let described = signed_in
            .rooms
            .iter()
            .filter(|room| room.described.is_some());
        assert_eq!(described.count(), 500);
        // One less makes room for another.
        backend.done(leave(group_id(1, 1), 1));
        backend.done(add(group_id(2, 1), 2, [1]));
    }
}

#[test]
fn a_large_room_works_like_a_small_one() {
    for backend in Backend::all() {
        backend.users(1_000);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, 2..=500));
        for chunk in (501..=1_000)
            .collect::<Vec<u128>>()
            .chunks(limits::USERS_PER_REQUEST_MAX)
        {
            backend.done(add(room, 1, chunk.iter().copied()));
        }
        let sends = (1..=1_000).map(|n| send(room, n, n, "hello everybody"));
        for (n, outcome) in (1..).zip(backend.commit(sends.collect())) {
            assert_eq!(sent(&outcome.expect("stands")), (501 + n, false));
        }
        let seen = backend.get_room(room, 777).expect("a member");
        assert_eq!((seen.room.last_seq, seen.room.member_count), (1_501, 1_000));
        assert_eq!(seen.own.read_seq, 501 + 777);
        assert_eq!(seen.room.members.len(), limits::ROOM_MEMBERS_SHOWN_MAX);
        let opened = backend.open_room(room).expect("a room");
        let mut members: Vec<_> = opened.members.iter().map(|(user, _)| *user).collect();
        members.sort_unstable();
        assert_eq!(members, users(1..=1_000));
        let rooms = backend.sign_in(777).rooms;
        let described = rooms[0].described.as_ref().expect("described");
        assert!(described.watermarks.is_empty());
        assert_eq!(described.unread, limits::UNREAD_MAX);
    }
}

/// Enough sends that a store which collects watermarks must put them away several times.
#[test]
fn the_watermarks_of_thousands_of_sends_are_all_kept() {
    for mut backend in Backend::all() {
        backend.users(1_000);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, 2..=1_000));
        let mut last_seq = 1;
        for round in 0..11u128 {
            // The last of them send less.
            let senders = 1_000 - 50 * round;
            let sends = (1..=senders).map(|n| send(room, n, round * 1_000 + n, "hello"));
            backend.commit(sends.collect());
            let first = last_seq;
            last_seq += senders as u64;
            if round % 4 == 3 {
                backend.reopen();
            }
            let questions = (1..=1_000u128).map(|n| (room, user(n)));
            let call = StoreCall::GetRooms(questions.step_by(97).collect());
            let StoreAnswer::GetRooms(answers) = backend.call(call) else {
                panic!("not the answer to get rooms");
            };
            for (n, answer) in (1..=1_000u64).step_by(97).zip(answers) {
                let found = answer.expect("a member");
                if u128::from(n) <= senders {
                    assert_eq!(found.own.read_seq, first + n, "user {n} in round {round}");
                } else {
                    assert!(
                        found.own.read_seq > 1 && found.own.read_seq <= first,
                        "user {n}"
                    );
                }
                assert_eq!(found.room.last_seq, last_seq);
                for member in &found.room.members {
                    assert_eq!(member.read_seq, member.delivered_seq);
                    let own = member.user_id == user(n as u128);
                    assert!(!own || member.read_seq == found.own.read_seq);
                }
            }
        }
    }
}

#[test]
fn unknown_rooms_are_told_as_such() {
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        assert!(backend.open_room(room).is_none());
        assert_eq!(backend.last_seq(room), 0);
        let page = backend.all_events(room);
        assert_eq!((page.events.len(), page.last_seq), (0, 0));
        let refusal = backend.get_room(room, 1).expect_err("refused");
        assert_eq!(refusal.code, ErrorCode::Forbidden);
        let answer = backend.call(StoreCall::Heads {
            rooms: vec![room],
            users: vec![user(9)],
        });
        assert!(format!("{answer:?}").contains("rooms: [], users: []"));
    }
}
