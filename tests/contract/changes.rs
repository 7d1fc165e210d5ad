//! Changes of messages: what they leave, what they are told as, and what is refused.

use crate::harness::*;
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::event::{ReactionUpdated, RoomEventBody};
use caffis_chat::protocol::view::{All, Mention, Pin, Reaction, Role};
use caffis_chat::protocol::{ErrorCode, RoomId, UnixMs};

/// A group of 1 (owner), 2 and 3 with a message of 2 at `seq` 2.
fn room(backend: &Backend) -> RoomId {
    backend.users(4);
    backend.done(create_group(1, 1, [2, 3]));
    let room = group_id(1, 1);
    backend.done(send(room, 2, 9, "helo"));
    room
}

fn expecting(room: RoomId, text: &str, revision: u32) -> Op {
    let expected_revision = Some(revision);
    let text = text.to_owned();
    let edit = MessageChange::Edit {
        text,
        expected_revision,
    };
    change(room, 2, 2, edit)
}

#[test]
fn an_edit_is_an_event_and_the_message_shows_it() {
    for mut backend in Backend::all() {
        let room = room(&backend);
        backend.set_clock_ms(START_MS + 5);
        let done = backend.done(edit(room, 2, 2, "hello"));
        assert_eq!(message_changed(&done), (true, 3, 2));
        let RoomEventBody::MessageUpdated {
            message_seq,
            message,
        } = &done.events[0].body
        else {
            panic!("not message.updated");
        };
        assert_eq!((*message_seq, done.events[0].seq), (2, 3));
        assert_eq!(message.text.as_deref(), Some("hello"));
        assert_eq!(
            (message.seq, message.changed_seq, message.revision),
            (2, 3, 2)
        );
        let times = (message.created_at, message.edited_at);
        assert_eq!(times, (UnixMs(START_MS), Some(UnixMs(START_MS + 5))));
        assert_eq!(done.events[0].ts, UnixMs(START_MS + 5));
        for reopened in [false, true] {
            if reopened {
                backend.reopen();
            }
            assert_eq!(backend.message(room, 3, 2), **message);
            assert_eq!(backend.last_seq(room), 3);
            // Nobody was told more than this message since `seq` 2.
            assert_eq!(
                backend.history(room, 3, HistoryPage::After(2)),
                [(**message).clone()]
            );
            assert_eq!(backend.all_events(room).events[2], done.events[0]);
        }
        let next = backend.done(send(room, 1, 10, "next"));
        assert_eq!(sent(&next), (4, false));
    }
}

#[test]
fn an_edit_that_is_retried_changes_nothing_and_one_of_another_revision_is_refused() {
    for backend in Backend::all() {
        let room = room(&backend);
        assert_eq!(
            message_changed(&backend.done(expecting(room, "hello", 1))),
            (true, 3, 2)
        );
        // Its ack was lost: the revision is another by now, but the text is what it was to be.
        let again = backend.done(expecting(room, "hello", 1));
        assert_eq!(message_changed(&again), (false, 3, 2));
        assert!(again.events.is_empty());
        let conflict = backend.refused(expecting(room, "hullo", 1));
        assert_eq!(conflict, ErrorCode::RevisionConflict);
        let expected_revision = Some(1);
        let delete = MessageChange::Delete { expected_revision };
        let conflict = backend.refused(change(room, 2, 2, delete));
        assert_eq!(conflict, ErrorCode::RevisionConflict);
        assert_eq!(
            message_changed(&backend.done(expecting(room, "hullo", 2))),
            (true, 4, 3)
        );
        assert_eq!(backend.last_seq(room), 4);
    }
}

#[test]
fn a_retried_send_stays_a_duplicate_after_an_edit_and_a_delete() {
    for backend in Backend::all() {
        let room = room(&backend);
        backend.done(edit(room, 2, 2, "hello"));
        assert_eq!(sent(&backend.done(send(room, 2, 9, "helo"))), (2, true));
        let conflict = backend.refused(send(room, 2, 9, "hello"));
        assert_eq!(conflict, ErrorCode::IdempotencyConflict);
        backend.done(delete(room, 2, 2));
        assert_eq!(sent(&backend.done(send(room, 2, 9, "helo"))), (2, true));
        let conflict = backend.refused(send(room, 2, 9, ""));
        assert_eq!(conflict, ErrorCode::IdempotencyConflict);
        assert_eq!(backend.last_seq(room), 4);
    }
}

#[test]
fn a_deleted_message_is_a_tombstone_without_anything_of_it() {
    for backend in Backend::all() {
        let room = room(&backend);
        let named = backend.done(mentioning(room, 1, 10, "@u2", [2]));
        let seq = sent(&named).0;
        backend.done(react(room, 3, seq, "👍"));
        backend.done(pin(room, 1, seq));
        backend.set_clock_ms(START_MS + 7);
        let done = backend.done(delete(room, 1, seq));
        assert_eq!(message_changed(&done), (true, 6, 1));
        let RoomEventBody::MessageDeleted(deleted) = &done.events[0].body else {
            panic!("not message.deleted");
        };
        let told = (deleted.message_seq, deleted.actor_id, deleted.deleted_at);
        assert_eq!(told, (seq, user(1), UnixMs(START_MS + 7)));
        let message = backend.message(room, 3, seq);
        assert_eq!(message.text, None);
        assert_eq!((message.changed_seq, message.revision), (6, 1));
        assert_eq!(message.deleted_at, Some(UnixMs(START_MS + 7)));
        assert!(message.mentions.is_empty() && message.reactions.is_empty());
        let pins = backend.get_room(room, 3).expect("a member").room.pins;
        assert_eq!(pins, Some(Vec::new()));
        // What it was is told to nobody any more, also not by its earlier events.
        let events = backend.all_events(room).events;
        assert!(!format!("{events:?}").contains("@u2"));

        let again = backend.done(delete(room, 1, seq));
        assert_eq!(message_changed(&again), (false, 6, 1));
        assert!(again.events.is_empty());
        for op in [
            edit(room, 1, seq, "back"),
            react(room, 3, seq, "👍"),
            pin(room, 1, seq),
            change(room, 3, seq, MessageChange::Report),
        ] {
            assert_eq!(backend.refused(op), ErrorCode::Gone);
        }
        for op in [
            unreact(room, 3, seq, "👍"),
            change(room, 1, seq, MessageChange::Unpin),
        ] {
            assert!(!message_changed(&backend.done(op)).0);
        }
        assert_eq!(backend.last_seq(room), 6);
    }
}

#[test]
fn a_deleted_message_is_not_unread() {
    for backend in Backend::all() {
        let room = room(&backend);
        let unread = || {
            let rooms = backend.sign_in(3).rooms;
            rooms[0].described.as_ref().map(|room| room.unread)
        };
        assert_eq!(unread(), Some(1));
        backend.done(edit(room, 2, 2, "hello"));
        assert_eq!(unread(), Some(1), "an edit is no message more");
        backend.done(delete(room, 2, 2));
        assert_eq!(unread(), Some(0));
    }
}

#[test]
fn reactions_are_counted_once_per_user_and_emoji() {
    for mut backend in Backend::all() {
        let room = room(&backend);
        let told = |done: &OpDone| {
            let RoomEventBody::ReactionUpdated(told) = &done.events[0].body else {
                panic!("not reaction.updated");
            };
            told.clone()
        };
        let expected = |n, emoji: &str, added, count| ReactionUpdated {
            message_seq: 2,
            user_id: user(n),
            emoji: emoji.to_owned(),
            added,
            count,
        };
        for (n, count) in [(1, 1), (3, 2)] {
            let done = backend.done(react(room, n, 2, "👍"));
            assert_eq!(told(&done), expected(n, "👍", true, count));
            let again = backend.done(react(room, n, 2, "👍"));
            assert!(!message_changed(&again).0 && again.events.is_empty());
        }
        let done = backend.done(react(room, 3, 2, "👩🏽‍🚀"));
        assert_eq!(message_changed(&done), (true, 5, 1));
        backend.reopen();
        let shown = |n: u128| {
            let reactions = backend.message(room, n, 2).reactions.into_iter();
            reactions.map(|(emoji, reaction)| (emoji, reaction.count, reaction.mine))
        };
        assert!(shown(3).eq([
            ("👍".to_owned(), 2, Some(true)),
            ("👩🏽‍🚀".to_owned(), 1, Some(true)),
        ]));
        assert!(shown(2).eq([
            ("👍".to_owned(), 2, Some(false)),
            ("👩🏽‍🚀".to_owned(), 1, Some(false)),
        ]));
        let listed = backend.call(StoreCall::ListRooms(ListRead {
            user: user(1),
            cursor: None,
            limit: 1,
            archived: false,
            now: UnixMs(START_MS),
        }));
        let StoreAnswer::ListRooms(Ok(listed)) = listed else {
            panic!("not a list");
        };
        let last = listed.rooms[0].last_message.as_ref().expect("a message");
        let (count, mine) = (2, Some(true));
        assert_eq!(last.reactions["👍"], Reaction { count, mine });

        let done = backend.done(unreact(room, 3, 2, "👍"));
        assert_eq!(told(&done), expected(3, "👍", false, 1));
        assert_eq!(backend.all_events(room).events[5], done.events[0]);
        assert!(!message_changed(&backend.done(unreact(room, 3, 2, "👍"))).0);
        let done = backend.done(unreact(room, 1, 2, "👍"));
        assert_eq!(told(&done), expected(1, "👍", false, 0));
        backend.done(unreact(room, 3, 2, "👩🏽‍🚀"));
        assert!(backend.message(room, 1, 2).reactions.is_empty());
        assert_eq!(backend.last_seq(room), 8);
        // In an event nothing depends on who receives it.
        let events = format!("{:?}", backend.all_events(room).events);
        assert!(!events.contains("mine: Some"));
    }
}

#[test]
fn reactions_of_a_user_and_on_a_message_are_bounded() {
    for backend in Backend::all() {
        let room = room(&backend);
        let emojis = (0..).map(|n| format!("e{n}"));
        let emojis: Vec<String> = emojis.take(limits::REACTION_EMOJIS_MAX + 1).collect();
        let (first, rest) = emojis.split_at(limits::REACTIONS_PER_USER_MAX);
        for emoji in first {
            backend.done(react(room, 1, 2, emoji));
        }
        assert_eq!(
            backend.refused(react(room, 1, 2, &rest[0])),
            ErrorCode::TooLarge
        );
        for (place, emoji) in rest.iter().enumerate() {
            // No user has too many of them.
            let n = if place < limits::REACTIONS_PER_USER_MAX {
                2
            } else {
                3
            };
            let outcome = backend.one(react(room, n, 2, emoji));
            let is_last = place + 1 == rest.len();
            match outcome {
                Ok(done) if !is_last => assert!(message_changed(&done).0),
                Err(refusal) if is_last => assert_eq!(refusal.code, ErrorCode::TooLarge),
                other => panic!("{place}: {other:?}"),
            }
        }
        // One that is there already may be put by others.
        backend.done(react(room, 3, 2, &emojis[0]));
        backend.done(unreact(room, 1, 2, &emojis[1]));
        backend.done(react(room, 3, 2, &emojis[limits::REACTION_EMOJIS_MAX]));
    }
}

#[test]
fn pins_are_shown_with_the_room_the_last_first_and_are_bounded() {
    for mut backend in Backend::all() {
        let room = room(&backend);
        backend.done(send(room, 2, 10, "second"));
        backend.done(set_role(room, 1, [3], Role::Admin));
        backend.done(pin(room, 1, 3));
        let done = backend.done(pin(room, 3, 2));
        assert_eq!(message_changed(&done), (true, 6, 1));
        let RoomEventBody::MessagePinned(pinned) = &done.events[0].body else {
            panic!("not message.pinned");
        };
        assert_eq!((pinned.message_seq, pinned.actor_id), (2, user(3)));
        assert!(!message_changed(&backend.done(pin(room, 1, 2))).0);
        backend.reopen();
        let pin_by = |message_seq, n| Pin {
            message_seq,
            pinned_by: user(n),
            pinned_at: UnixMs(START_MS),
        };
        let shown = backend.get_room(room, 2).expect("a member").room.pins;
        assert_eq!(shown, Some(vec![pin_by(2, 3), pin_by(3, 1)]));
        assert_eq!(backend.message(room, 2, 2).changed_seq, 6);
        let unpin = |n, seq| change(room, n, seq, MessageChange::Unpin);
        let done = backend.done(unpin(1, 3));
        let RoomEventBody::MessageUnpinned(unpinned) = &done.events[0].body else {
            panic!("not message.unpinned");
        };
        assert_eq!((unpinned.message_seq, unpinned.actor_id), (3, user(1)));
        assert!(!message_changed(&backend.done(unpin(1, 3))).0);
        assert_eq!(backend.all_events(room).events[6], done.events[0]);
        for n in 1..limits::PINS_MAX as u128 {
            let seq = sent(&backend.done(send(room, 1, 100 + n, "more"))).0;
            backend.done(pin(room, 1, seq));
        }
        assert_eq!(backend.refused(pin(room, 1, 3)), ErrorCode::TooLarge);
        backend.done(unpin(1, 2));
        backend.done(pin(room, 1, 3));
    }
}

#[test]
fn a_message_is_reported_once_by_each_and_nobody_hears_of_it() {
    for mut backend in Backend::all() {
        let room = room(&backend);
        let report = |n| change(room, n, 2, MessageChange::Report);
        for n in [1, 3] {
            for (is_first, reopened) in [(true, true), (false, false)] {
                let done = backend.done(report(n));
                assert_eq!(message_changed(&done), (is_first, 2, 1));
                assert!(done.events.is_empty());
                if reopened {
                    backend.reopen();
                }
            }
        }
        assert_eq!(backend.last_seq(room), 2);
        assert_eq!(backend.message(room, 3, 2).changed_seq, 2);
    }
}

#[test]
fn mentions_are_members_and_part_of_the_body() {
    for mut backend in Backend::all() {
        let room = room(&backend);
        let done = backend.done(mentioning(room, 1, 20, "all of you, @u3", [0, 3]));
        assert_eq!(sent(&done), (3, false));
        let expected = [Mention::All(All::All), Mention::User(user(3))];
        backend.reopen();
        assert_eq!(backend.message(room, 2, 3).mentions, expected);
        assert_eq!(backend.all_events(room).events[2], done.events[0]);
        let again = mentioning(room, 1, 20, "all of you, @u3", [3, 0]);
        assert_eq!(sent(&backend.done(again)), (3, true));
        for named in [vec![], vec![3], vec![0, 2]] {
            let other = mentioning(room, 1, 20, "all of you, @u3", named);
            assert_eq!(backend.refused(other), ErrorCode::IdempotencyConflict);
        }
        let stranger = mentioning(room, 1, 21, "@u4", [2, 4]);
        assert_eq!(backend.refused(stranger), ErrorCode::NotFound);
        let all = mentioning(room, 2, 22, "all", [0]);
        assert_eq!(backend.refused(all), ErrorCode::Forbidden);
        // A retry is a duplicate also when it would be refused by now.
        backend.done(remove(room, 1, [3]));
        let again = mentioning(room, 1, 20, "all of you, @u3", [0, 3]);
        assert_eq!(sent(&backend.done(again)), (3, true));
        assert_eq!(backend.last_seq(room), 4);
    }
}

#[test]
fn a_title_changes_once_and_the_room_is_still_found_by_what_it_was_opened_with() {
    for mut backend in Backend::all() {
        let room = room(&backend);
        let done = backend.done(set_title(room, 1, Some("Tea")));
        assert_eq!(changed(&done), Some(3));
        let RoomEventBody::RoomUpdated(updated) = &done.events[0].body else {
            panic!("not room.updated");
        };
        assert_eq!(
            (updated.title.clone(), &updated.picture, updated.actor_id),
            (Some(Some("Tea".to_owned())), &None, user(1))
        );
        assert_eq!(
            changed(&backend.done(set_title(room, 1, Some("Tea")))),
            None
        );
        backend.reopen();
        assert_eq!(backend.all_events(room).events[2], done.events[0]);
        let again = backend.done(create_group(1, 1, [2, 3]));
        let (found, is_new) = created(&again);
        assert_eq!((found.title.as_deref(), is_new), (Some("Tea"), false));
        assert_eq!(changed(&backend.done(set_title(room, 1, None))), Some(4));
        assert_eq!(
            backend.get_room(room, 3).expect("a member").room.title,
            None
        );
    }
}

#[test]
fn a_picture_changes_once_and_leaves_the_title_as_it_was() {
    const MILL: &str = "https://caffis.example/mill.jpg";
    for mut backend in Backend::all() {
        let room = room(&backend);
        let of_room = |backend: &Backend| {
            let room = backend.get_room(room, 3).expect("a member").room;
            (room.title, room.picture)
        };
        let (title, none) = of_room(&backend);
        assert_eq!(none, None);
        let done = backend.done(set_picture(room, 1, Some(MILL)));
        assert_eq!(changed(&done), Some(3));
        let RoomEventBody::RoomUpdated(updated) = &done.events[0].body else {
            panic!("not room.updated");
        };
        let expected = (&None, &Some(Some(MILL.to_owned())));
        assert_eq!((&updated.title, &updated.picture), expected);
        backend.reopen();
        assert_eq!(backend.all_events(room).events[2], done.events[0]);
        assert_eq!(of_room(&backend), (title.clone(), Some(MILL.to_owned())));
        assert_eq!(
            changed(&backend.done(set_picture(room, 1, Some(MILL)))),
            None
        );
        let refused = backend.refused(set_picture(room, 2, None));
        assert_eq!(refused, ErrorCode::Forbidden);
        // Both at once, of which one is as it was.
        let mut both = set_picture(room, 1, None);
        let OpKind::UpdateRoom { title: own, .. } = &mut both.kind else {
            panic!("another kind");
        };
        *own = Some(title.clone());
        let done = backend.done(both);
        let RoomEventBody::RoomUpdated(updated) = &done.events[0].body else {
            panic!("not room.updated");
        };
        assert_eq!((&updated.title, &updated.picture), (&None, &Some(None)));
        assert_eq!(backend.all_events(room).events[3], done.events[0]);
        assert_eq!(of_room(&backend), (title, None));
    }
}

#[test]
fn a_change_names_a_message_and_no_other_event() {
    for backend in Backend::all() {
        let room = room(&backend);
        backend.done(react(room, 1, 2, "👍"));
        for seq in [0, 3, 4, u64::MAX] {
            for op in [
                edit(room, 2, seq, "hello"),
                delete(room, 2, seq),
                react(room, 2, seq, "👍"),
                unreact(room, 2, seq, "👍"),
                pin(room, 1, seq),
                change(room, 2, seq, MessageChange::Report),
            ] {
                assert_eq!(backend.refused(op), ErrorCode::NotFound);
            }
            assert_eq!(
                backend.refused(reply_to(room, 1, 50, seq)),
                ErrorCode::NotFound
            );
        }
        // Whether there is such a room is told to its members only.
        let there = backend.one(delete(room, 4, 2)).expect_err("refused");
        let nowhere = backend
            .one(delete(group_id(1, 2), 4, 2))
            .expect_err("refused");
        assert_eq!(there, nowhere);
        assert_eq!(there.code, ErrorCode::Forbidden);
    }
}

#[test]
fn changes_and_sends_of_one_batch_stand_in_its_order() {
    for backend in Backend::all() {
        let room = room(&backend);
        let outcomes = backend.commit(vec![
            send(room, 1, 30, "third"),
            edit(room, 1, 3, "third!"),
            react(room, 2, 3, "👍"),
            send(room, 2, 31, "sixth"),
            reply_to(room, 2, 32, 6),
            delete(room, 1, 3),
            edit(room, 1, 3, "too late"),
            send(room, 1, 30, "third"),
        ]);
        let seqs: Vec<Option<u64>> = outcomes
            .iter()
            .map(|outcome| {
                let done = outcome.as_ref().ok()?;
                done.events.first().map(|event| event.seq)
            })
            .collect();
        let expected = [
            Some(3),
            Some(4),
            Some(5),
            Some(6),
            Some(7),
            Some(8),
            None,
            None,
        ];
        assert_eq!(seqs, expected);
        assert_eq!(
            outcomes[6].as_ref().expect_err("gone").code,
            ErrorCode::Gone
        );
        assert_eq!(sent(outcomes[7].as_ref().expect("stands")), (3, true));
        let told = backend.all_events(room).events;
        assert!(told.iter().map(|event| event.seq).eq(1..=8));
        let stretch = |after, to, newest| {
            let read = EventsRead {
                room,
                after,
                to,
                events_max: 2,
                bytes_max: usize::MAX,
                newest,
            };
            backend.events(read).events
        };
        assert_eq!(stretch(2, 8, false), told[2..4]);
        assert_eq!(stretch(2, 8, true), told[6..8]);
        assert_eq!(stretch(4, 5, true), told[4..5]);
    }
}

#[test]
fn any_script_and_any_emoji_is_kept_as_it_was_typed() {
    // Decomposed and composed, a compatibility ideograph, joiners, marks, right to left, tags.
    let texts = [
        "e\u{301} é",
        "\u{FA19} \u{795E}",
        "👨‍👩‍👧‍👦 ❤️ ❤ 🏴󠁧󠁢󠁳󠁣󠁴󠁿 👍🏽",
        "می‌خواهم שָׁלוֹם",
        "นี้ हिन्दी 한국어 ｶﾞ",
        "a\u{300}\u{301}\u{302} \u{200F}\u{2068}x\u{2069} \r\n\t ",
        "\u{10FFFF}\u{FDD0}\u{FEFF}",
    ];
    for backend in Backend::all() {
        let room = room(&backend);
        for (text, n) in texts.iter().zip(0u64..) {
            let seq = sent(&backend.done(send(room, 1, 100 + u128::from(n), text))).0;
            assert_eq!(backend.message(room, 2, seq).text.as_deref(), Some(*text));
            let edited = format!("{text}!");
            backend.done(edit(room, 1, seq, &edited));
            assert_eq!(backend.message(room, 2, seq).text, Some(edited));
        }
    }
}
