//! Sends: idempotency, order, refusals, time.

use crate::harness::*;
use caffis_chat::chat::port::OpKind;
use caffis_chat::protocol::ErrorCode;
use caffis_chat::protocol::event::RoomEventBody;

#[test]
fn a_message_gets_the_next_seq_and_is_read_by_its_sender() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let done = backend.done(send(room, 2, 9, "hello"));
        assert_eq!(sent(&done), (2, false));
        assert_eq!(done.events, backend.all_events(room).events[1..]);
        let rooms = backend.sign_in(2).rooms;
        assert_eq!((rooms[0].last_seq, rooms[0].read_seq), (2, 2));
        let rooms = backend.sign_in(1).rooms;
        assert_eq!((rooms[0].last_seq, rooms[0].read_seq), (2, 1));
        assert_eq!(rooms[0].described.as_ref().map(|room| room.unread), Some(1));
    }
}

#[test]
fn a_retry_is_the_first_message_also_after_a_restart() {
    for mut backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let first = backend.done(send(room, 1, 9, "hello"));
        for reopened in [false, true] {
            if reopened {
                backend.reopen();
            }
            backend.set_clock_ms(START_MS + 60_000);
            let again = backend.done(send(room, 1, 9, "hello"));
            assert_eq!(sent(&again), (2, true));
            assert_eq!(ts_of_send(&again), first.events[0].ts);
            assert!(again.events.is_empty());
            for other_body in [send(room, 1, 9, "another"), reply_to(room, 1, 9, 1)] {
                let refused = backend.refused(other_body);
                assert_eq!(refused, ErrorCode::IdempotencyConflict);
            }
            assert_eq!(backend.all_events(room).events.len(), 2);
            assert_eq!(backend.all_events(room).events[1], first.events[0]);
        }
    }
}

#[test]
fn an_id_is_unique_for_its_sender_and_room_only() {
    for backend in Backend::all() {
        backend.users(2);
        backend.done(create_group(1, 1, [2]));
        backend.done(create_group(1, 2, [2]));
        for op in [
            send(group_id(1, 1), 1, 9, "one"),
            send(group_id(1, 1), 2, 9, "two"),
            send(group_id(1, 2), 1, 9, "three"),
        ] {
            assert!(!sent(&backend.done(op)).1);
        }
    }
}

#[test]
fn a_retry_within_one_batch_is_the_first_message() {
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        let outcomes = backend.commit(vec![
            create_group(1, 1, []),
            send(room, 1, 9, "hello"),
            send(room, 1, 9, "hello"),
            send(room, 1, 9, "another"),
        ]);
        assert_eq!(sent(outcomes[1].as_ref().expect("stands")), (2, false));
        assert_eq!(sent(outcomes[2].as_ref().expect("stands")), (2, true));
        let refusal = outcomes[3].as_ref().expect_err("refused");
        assert_eq!(refusal.code, ErrorCode::IdempotencyConflict);
    }
}

#[test]
fn a_retry_by_a_removed_member_is_a_duplicate_but_a_new_message_is_forbidden() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        backend.done(send(room, 2, 9, "hello"));
        backend.done(remove(room, 1, [2]));
        assert_eq!(sent(&backend.done(send(room, 2, 9, "hello"))), (2, true));
        let conflict = backend.refused(send(room, 2, 9, "another"));
        assert_eq!(conflict, ErrorCode::IdempotencyConflict);
        assert_eq!(
            backend.refused(send(room, 2, 10, "new")),
            ErrorCode::Forbidden
        );
    }
}

#[test]
fn a_stranger_may_not_send_and_cannot_tell_whether_there_is_such_a_room() {
    for backend in Backend::all() {
        backend.users(2);
        backend.done(create_group(1, 1, []));
        let there = backend.one(send(group_id(1, 1), 2, 9, "hello"));
        let nowhere = backend.one(send(group_id(1, 2), 2, 9, "hello"));
        assert_eq!(
            there.as_ref().expect_err("refused").code,
            ErrorCode::Forbidden
        );
        assert_eq!(there.expect_err("refused"), nowhere.expect_err("refused"));
    }
}

#[test]
fn a_reply_names_a_message_of_its_room() {
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        backend.done(create_group(1, 2, []));
        backend.done(send(group_id(1, 2), 1, 1, "elsewhere"));
        backend.done(send(group_id(1, 2), 1, 2, "elsewhere"));
        backend.done(send(room, 1, 8, "hello"));
        for nothing in [3, 4, 1 << 53, u64::MAX] {
            let refused = backend.refused(reply_to(room, 1, 9, nothing));
            assert_eq!(refused, ErrorCode::NotFound, "{nothing}");
        }
        let done = backend.done(reply_to(room, 1, 9, 2));
        let RoomEventBody::MessageCreated { message, .. } = &done.events[0].body else {
            panic!("not a message");
        };
        assert_eq!((message.seq, message.reply_to_seq), (3, Some(2)));
        assert_eq!(sent(&backend.done(reply_to(room, 1, 9, 2))), (3, true));
    }
}

#[test]
fn a_batch_is_decided_in_its_order() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        let outcomes = backend.commit(vec![
            send(room, 1, 1, "too early"),
            create_group(1, 1, []),
            send(room, 1, 1, "now"),
            send(room, 2, 2, "not yet"),
            add(room, 1, [2]),
            send(room, 2, 2, "now"),
            leave(room, 2),
            send(room, 2, 3, "too late"),
        ]);
        let stands: Vec<bool> = outcomes.iter().map(Result::is_ok).collect();
        let expected = [false, true, true, false, true, true, true, false];
        assert_eq!(stands, expected);
        let done = |at: usize| outcomes[at].as_ref().expect("stands");
        assert_eq!(sent(done(2)), (2, false));
        assert_eq!(changed(done(4)), Some(3));
        assert_eq!(sent(done(5)), (4, false));
        assert_eq!(changed(done(6)), Some(5));
        assert_eq!(backend.last_seq(room), 5);
    }
}

#[test]
fn the_time_of_a_room_never_goes_back() {
    for mut backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        backend.done(send(room, 1, 1, "first"));
        backend.set_clock_ms(START_MS - 3_600_000);
        backend.done(send(room, 1, 2, "an hour earlier"));
        backend.reopen();
        backend.done(send(room, 1, 3, "after a restart"));
        backend.set_clock_ms(START_MS + 5);
        backend.done(send(room, 1, 4, "later"));
        let times: Vec<u64> = backend
            .all_events(room)
            .events
            .iter()
            .map(|event| event.ts.0 - START_MS)
            .collect();
        assert_eq!(times, [0, 0, 0, 0, 5]);
    }
}

/// Parsing refuses it (`bad_request`), so it is our own fault if one comes here; the store must not
/// take it, and the batch it came in must not suffer.
#[test]
fn a_text_with_a_zero_is_never_stored() {
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        let outcomes = backend.commit(vec![
            send(room, 1, 1, "before"),
            send(room, 1, 2, "a\0b"),
            send(room, 1, 3, "after"),
        ]);
        assert_eq!(sent(outcomes[0].as_ref().expect("stands")), (2, false));
        let refusal = outcomes[1].as_ref().expect_err("refused");
        assert_eq!(refusal.code, ErrorCode::Internal);
        assert_eq!(sent(outcomes[2].as_ref().expect("stands")), (3, false));
    }
}

#[test]
fn texts_come_back_as_they_were_sent() {
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        let long = "👩‍👩‍👧 ".repeat(1_000);
        let texts = [
            "",
            " ",
            "'; DROP TABLE messages; --",
            "\u{1}\u{7f}\n\t\"\\",
            "ÄÖÜ ß 漢字 \u{202e}",
            &long,
        ];
        for (id, text) in (1..).zip(texts) {
            let done = backend.done(send(room, 1, id, text));
            let OpKind::Send { text, .. } = send(room, 1, id, text).kind else {
                panic!("a send");
            };
            let RoomEventBody::MessageCreated { message, .. } = &done.events[0].body else {
                panic!("not a message");
            };
            assert_eq!(message.text, Some(text));
        }
        let told = backend.all_events(room).events;
        for (event, text) in told[1..].iter().zip(texts) {
            let RoomEventBody::MessageCreated { message, .. } = &event.body else {
                panic!("not a message");
            };
            assert_eq!(message.text.as_deref(), Some(text));
        }
    }
}
