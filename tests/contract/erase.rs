//! Erasing users: the account, then each room by one event, and what is left of them.

use crate::harness::*;
use caffis_chat::chat::port::upkeep::*;
use caffis_chat::chat::port::*;
use caffis_chat::protocol::event::{Membership, RoomEventBody};
use caffis_chat::protocol::view::{Message, MessageKind, Role, SystemEvent, UserErased};
use caffis_chat::protocol::{ErrorCode, RoomId, Seq, UserId};

fn upkeep(backend: &Backend, step: Upkeep) -> UpkeepDone {
    let StoreAnswer::Upkeep(done) = backend.call(StoreCall::Upkeep(step)) else {
        panic!("not the answer to upkeep");
    };
    done
}

fn begin(backend: &Backend, n: u128) -> EraseState {
    match upkeep(backend, Upkeep::EraseBegin(user(n))) {
        UpkeepDone::EraseState(state) => state,
        other => panic!("{other:?}"),
    }
}

fn state(backend: &Backend, n: u128) -> EraseState {
    match upkeep(backend, Upkeep::EraseState(user(n))) {
        UpkeepDone::EraseState(state) => state,
        other => panic!("{other:?}"),
    }
}

fn next(backend: &Backend, held: Option<u128>) -> Option<Erasure> {
    match upkeep(backend, Upkeep::EraseNext(held.map(user))) {
        UpkeepDone::EraseNext(next) => next,
        other => panic!("{other:?}"),
    }
}

/// One step in a room: whether it was the last, and its event.
fn step(backend: &Backend, room: RoomId, erasure: &Erasure) -> (bool, Option<RoomEventBody>) {
    let done = backend.done(Op {
        actor: erasure.user,
        room,
        kind: OpKind::Erase {
            requested_at: erasure.requested_at,
        },
    });
    let OpReply::Erased(is_done) = done.reply else {
        panic!("not the reply to an erasure");
    };
    assert!(done.events.len() <= 1, "one event");
    let event = done.events.into_iter().next();
    if let Some(event) = &event {
        assert_eq!(event.membership(), Some(Membership::Erased(erasure.user)));
    }
    (is_done, event.map(|event| event.body))
}

/// Erases a user; the event of each room.
pub fn erase(backend: &Backend, n: u128) -> Vec<(RoomId, UserErased)> {
    begin(backend, n);
    let mut events = Vec::new();
    while let Some(erasure) = next(backend, Some(n)) {
        assert_eq!(erasure.user, user(n));
        if erasure.rooms.is_empty() {
            let end = upkeep(backend, Upkeep::EraseEnd(user(n)));
            assert_eq!(end, UpkeepDone::EraseEnd(true));
            continue;
        }
        for room in &erasure.rooms {
            loop {
                let (done, event) = step(backend, *room, &erasure);
                assert_eq!(done, event.is_some(), "the last step makes the event");
                if let Some(RoomEventBody::UserErased(event)) = event {
                    events.push((*room, event));
                }
                if done {
                    break;
                }
            }
        }
    }
    assert_eq!(state(backend, n), EraseState::Done);
    events
}

fn is_tombstone_of(message: &Message, author: UserId) {
    assert_eq!(message.sender_id, author, "{message:?}");
    assert!(
        message.text.is_none() && message.deleted_at.is_some(),
        "{message:?}"
    );
    assert!(
        message.mentions.is_empty() && message.reactions.is_empty(),
        "{message:?}"
    );
}

#[test]
fn one_event_a_room_says_that_all_messages_of_a_user_are_gone() {
    for backend in Backend::all() {
        backend.users(4);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3]));
        let first = sent(&backend.done(send(room, 2, 1, "kaffeesatz"))).0;
        backend.done(edit(room, 2, first, "kaffeesatz leserlich"));
        backend.done(react(room, 1, first, "👍"));
        backend.done(pin(room, 1, first));
        let others = sent(&backend.done(mentioning(room, 1, 2, "hello", [2, 3]))).0;
        backend.done(react(room, 2, others, "👍"));
        backend.done(react(room, 3, others, "👍"));
        backend.done(react(room, 2, others, "🎉"));
        let pinned = sent(&backend.done(send(room, 3, 3, "mine"))).0;
        backend.done(set_role(room, 1, [2], Role::Admin));
        backend.done(pin(room, 2, pinned));
        let last = sent(&backend.done(send(room, 2, 4, "bye"))).0;
        let before = backend.last_seq(room);
        let changed_before = backend.message(room, 1, first).changed_seq;

        let events = erase(&backend, 2);
        assert_eq!(events.len(), 1);
        let (of, erased) = &events[0];
        assert_eq!(*of, room);
        assert_eq!((erased.user_id, erased.owner_id), (user(2), None));
        assert!(!erased.reactions_more);
        let left: Vec<_> = erased
            .reactions
            .iter()
            .map(|left| (left.message_seq, left.emoji.as_str(), left.count))
            .collect();
        let mut sorted = left.clone();
        sorted.sort_unstable();
        let mut expected = vec![(others, "👍", 1), (others, "🎉", 0)];
        expected.sort_unstable();
        assert_eq!(sorted, expected);
        assert_eq!(backend.last_seq(room), before + 1, "one event");

        for seq in [first, last] {
            is_tombstone_of(&backend.message(room, 1, seq), erased.erased_as);
        }
        assert_eq!(backend.message(room, 1, first).changed_seq, changed_before);
        let message = backend.message(room, 3, others);
        assert_eq!(message.changed_seq, before + 1);
        assert_eq!(message.mentions.len(), 1);
        assert_eq!(message.reactions.len(), 1);
        assert_eq!(message.reactions["👍"].count, 1);
        assert_eq!(message.reactions["👍"].mine, Some(true));

        let seen = backend.get_room(room, 1).expect("a member").room;
        assert_eq!(seen.member_count, 2);
        assert!(seen.members.iter().all(|member| member.user_id != user(2)));
        let pins = seen.pins.expect("pins");
        assert_eq!(pins.len(), 1);
        assert_eq!(
            (pins[0].message_seq, pins[0].pinned_by),
            (pinned, erased.erased_as)
        );

        // Who catches up by what changed gets the event, and what it does not say itself.
        let newer = backend.history(room, 1, HistoryPage::After(before));
        let told: Vec<(Seq, MessageKind)> = newer
            .iter()
            .map(|message| (message.seq, message.kind))
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told.contains(&(others, MessageKind::Text)));
        assert!(newer.iter().any(|message| message.seq == before + 1
            && message.event == Some(SystemEvent::UserErased(erased.clone()))));
        // What is told again says nothing of them either.
        let again = backend.all_events(room);
        assert_eq!(again.events.len() as Seq, before + 1);
        for event in &again.events {
            let json = event.to_json();
            assert!(
                !json.contains("kaffeesatz") && !json.contains("\"u2\""),
                "{json}"
            );
            let names = json.contains(&user(2).to_string());
            assert_eq!(names, event.seq == before + 1, "{json}");
        }
    }
}

#[test]
fn nobody_is_an_erased_user_again() {
    for backend in Backend::all() {
        backend.users(3);
        backend.done(create_group(1, 1, [2]));
        backend.done(create_group(1, 2, [3]));
        backend.done(block(3, 2));
        let version = backend.version(3);
        begin(&backend, 2);
        let refused = |backend: &Backend| {
            let call = StoreCall::SignIn(vec![sign_in(2, Some("again")), sign_in(1, None)]);
            let StoreAnswer::SignIn(answers) = backend.call(call) else {
                panic!("not the answer to a sign-in");
            };
            assert!(answers[0].is_none() && answers[1].is_some());
        };
        refused(&backend);
        assert!(backend.version(3) > version, "one block less");
        assert_eq!(
            backend.refused(add(group_id(1, 2), 1, [2])),
            ErrorCode::NotFound
        );
        assert_eq!(backend.refused(create_direct(1, 2)), ErrorCode::NotFound);
        assert_eq!(backend.refused(block(1, 2)), ErrorCode::NotFound);
        erase(&backend, 2);
        refused(&backend);
        // Also one whom nobody ever saw.
        assert_eq!(state(&backend, 9), EraseState::None);
        assert!(erase(&backend, 9).is_empty());
        let call = StoreCall::SignIn(vec![sign_in(9, Some("new"))]);
        let StoreAnswer::SignIn(answers) = backend.call(call) else {
            panic!("not the answer to a sign-in");
        };
        assert!(answers[0].is_none());
        assert_eq!(begin(&backend, 9), EraseState::Done, "a second time");
    }
}

#[test]
fn a_send_that_is_retried_after_its_author_was_erased_is_a_duplicate() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let first = sent(&backend.done(send(room, 2, 1, "once"))).0;
        let named = sent(&backend.done(mentioning(room, 2, 2, "you", [1]))).0;
        erase(&backend, 2);
        assert_eq!(sent(&backend.done(send(room, 2, 1, "once"))), (first, true));
        assert_eq!(
            sent(&backend.done(mentioning(room, 2, 2, "you", [1]))),
            (named, true)
        );
        let conflict = ErrorCode::IdempotencyConflict;
        assert_eq!(backend.refused(send(room, 2, 1, "twice")), conflict);
        assert_eq!(
            backend.refused(send(room, 2, 3, "new")),
            ErrorCode::Forbidden
        );
    }
}

#[test]
fn who_was_the_owner_is_followed_by_the_heir_in_the_same_event() {
    for backend in Backend::all() {
        backend.users(3);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3]));
        backend.done(set_role(room, 1, [3], Role::Admin));
        let before = backend.last_seq(room);
        let events = erase(&backend, 1);
        assert_eq!(events[0].1.owner_id, Some(user(3)));
        assert_eq!(backend.role(room, 3), Some(Role::Owner));
        assert_eq!(backend.last_seq(room), before + 1);
        // The last one: nobody is left.
        erase(&backend, 3);
        assert_eq!(erase(&backend, 2)[0].1.owner_id, None);
    }
}

#[test]
fn a_direct_room_stays_for_the_other_to_read() {
    for backend in Backend::all() {
        backend.users(2);
        let room = RoomId::direct(user(1), user(2));
        backend.done(create_direct(1, 2));
        backend.done(send(room, 1, 1, "hello"));
        let theirs = sent(&backend.done(send(room, 2, 2, "hi"))).0;
        let events = erase(&backend, 2);
        let history = backend.history(room, 1, HistoryPage::Newest);
        assert_eq!(history.len(), 4);
        assert_eq!(history[1].text.as_deref(), Some("hello"));
        is_tombstone_of(&backend.message(room, 1, theirs), events[0].1.erased_as);
        assert_eq!(
            backend
                .get_room(room, 1)
                .expect("a member")
                .room
                .member_count,
            1
        );
        assert_eq!(
            backend.refused(send(room, 1, 3, "hello?")),
            ErrorCode::Forbidden
        );
        // Found, and not made anew.
        assert!(!created(&backend.done(create_direct(1, 2))).1);
    }
}

#[test]
fn a_room_that_was_left_is_erased_too() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let seq = sent(&backend.done(send(room, 2, 1, "gone"))).0;
        backend.done(leave(room, 2));
        let events = erase(&backend, 2);
        assert_eq!(events.len(), 1);
        is_tombstone_of(&backend.message(room, 1, seq), events[0].1.erased_as);
        assert_eq!(
            backend
                .get_room(room, 1)
                .expect("a member")
                .room
                .member_count,
            1
        );
    }
}

/// Wherever the node that is at it dies, another one goes on.
#[test]
fn an_erasure_goes_on_where_it_was_left() {
    for mut backend in Backend::all() {
        backend.users(2);
        let (long, short) = (group_id(1, 1), group_id(1, 2));
        backend.done(create_group(1, 1, [2]));
        backend.done(create_group(1, 2, [2]));
        let count = 2 * ERASE_STRETCH + 10;
        for chunk in (0..u128::from(count)).collect::<Vec<_>>().chunks(200) {
            backend.commit(
                chunk
                    .iter()
                    .map(|n| send(long, 2 - n % 2, 10 + n, "words"))
                    .collect(),
            );
        }
        backend.done(send(short, 2, 5, "words"));
        begin(&backend, 2);
        let erasure = next(&backend, None).expect("one");
        assert_eq!(erasure.rooms.len(), 2);
        assert_eq!(next(&backend, None), None, "somebody has it");
        assert_eq!(step(&backend, long, &erasure), (false, None));
        backend.reopen();
        backend.set_clock_ms(START_MS + ERASE_LEASE_MS + 1);
        let again = next(&backend, None).expect("nobody has it any more");
        assert_eq!(again, erasure);
        assert_eq!(step(&backend, long, &again), (false, None));
        assert!(step(&backend, long, &again).1.is_some());
        assert_eq!(step(&backend, long, &again), (true, None), "once");
        assert_eq!(
            upkeep(&backend, Upkeep::EraseEnd(user(2))),
            UpkeepDone::EraseEnd(false),
            "a room is left"
        );
        let rest = next(&backend, Some(2)).expect("the other room");
        assert_eq!(rest.rooms, [short]);
        assert!(step(&backend, short, &rest).1.is_some());
        assert_eq!(erase(&backend, 2), [], "only the end was left");
        let history = backend.history(long, 1, HistoryPage::Newest);
        let words = history
            .iter()
            .filter(|message| message.text.is_some())
            .count();
        assert_eq!(words as u64, count / 2);
        assert_eq!(
            history
                .iter()
                .filter(|message| message.deleted_at.is_some())
                .count() as u64,
            count / 2
        );
    }
}

#[test]
fn erased_words_are_found_no_longer() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        backend.done(send(room, 2, 1, "wolkenbruch"));
        let search = || {
            let read = SearchRead {
                user: user(1),
                query: "wolkenbruch".to_owned(),
                room: None,
                before: None,
                limit: 10,
                bytes_max: usize::MAX,
            };
            let StoreAnswer::Search(hits) = backend.call(StoreCall::Search(read)) else {
                panic!("not the answer to a search");
            };
            hits.expect("a page").hits.len()
        };
        until("it is indexed", || search() == 1);
        erase(&backend, 2);
        assert_eq!(search(), 0);
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !condition() {
        assert!(std::time::Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}
