//! Sends: idempotency, order, refusals.

use crate::harness::*;
use caffis_chat::protocol::ErrorCode;

#[test]
fn a_message_gets_the_next_seq_and_is_read_by_its_sender() {
    let backend = Backend::sqlite();
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

#[test]
fn a_retry_is_the_first_message_also_after_a_restart() {
    let mut backend = Backend::sqlite();
    backend.users(2);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, [2]));
    let first = backend.done(send(room, 1, 9, "hello"));
    for reopened in [false, true] {
        if reopened {
            backend.reopen();
        }
        let again = backend.done(send(room, 1, 9, "hello"));
        assert_eq!(sent(&again), (2, true));
        assert!(again.events.is_empty());
        let refused = backend.refused(send(room, 1, 9, "another"));
        assert_eq!(refused, ErrorCode::IdempotencyConflict);
        assert_eq!(backend.all_events(room).events.len(), 2);
        assert_eq!(backend.all_events(room).events[1], first.events[0]);
    }
}
