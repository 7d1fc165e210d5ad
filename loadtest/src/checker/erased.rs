//! Users who are erased: one event a room, `user.erased`, by which every message of theirs is a tombstone without an
//! author, with the same `changed_seq`, and all their reactions are gone.
//!
//! Invariants: from the time at which it is asked for, a message of theirs may be such a tombstone or not; when the
//! event is there, and all the more at the end, it must be; nobody is erased for whom that was not asked, and nobody
//! who is not in the room.
//!
//! No run asks that somebody is erased yet; the tests below do.

use uuid::Uuid;

use super::{Checker, Content, Kind, Observed, Outcome};
use crate::ids::{ClientIndex, RoomIndex, Slot};

impl Checker {
    /// It is asked for that a user is erased: what they have open may be done or not, and they hear nothing more.
    pub fn erase(&mut self, client: ClientIndex) {
        self.erasing.insert(client);
        let rooms = &self.rooms;
        let is_theirs = |room: RoomIndex, slot: Slot| {
            rooms[room.index()].members.get(slot.index()) == Some(&client)
        };
        for sent in &mut self.messages {
            if sent.outcome == Outcome::Open && is_theirs(sent.room, sent.slot) {
                sent.outcome = Outcome::Void;
            }
        }
        for asked in &mut self.changes {
            if asked.outcome == Outcome::Open && is_theirs(asked.room, asked.slot) {
                asked.outcome = Outcome::Void;
            }
        }
    }

    /// Whether that was asked for of this member.
    pub(super) fn is_erasing(&self, room: RoomIndex, slot: Slot) -> bool {
        let client = self.rooms[room.index()].members.get(slot.index());
        client.is_some_and(|client| self.erasing.contains(client))
    }

    /// `user.erased`, as an event or in a page.
    pub(super) fn erased(
        &mut self,
        room: RoomIndex,
        seq: u64,
        user: Uuid,
        stood_as: Uuid,
    ) -> Content {
        let log = &self.rooms[room.index()];
        let is_user = |client: &ClientIndex| self.users[client.index()] == user;
        let place = log.members.iter().position(is_user);
        let Some(slot) = place.map(|place| Slot(place as u32)) else {
            self.findings.found(Kind::InventedChange, || {
                format!("room {} seq {seq}: {user} is erased and no member", room.0)
            });
            return Content::Other;
        };
        if !self.is_erasing(room, slot) {
            self.findings.found(Kind::InventedChange, || {
                format!(
                    "room {} seq {seq}: nobody asked that {user} is erased",
                    room.0
                )
            });
        }
        self.stands_as(room, slot, stood_as);
        Content::Erased(slot)
    }

    /// Whoever stands where an erased member stood is one and the same, and nobody of the run.
    fn stands_as(&mut self, room: RoomIndex, slot: Slot, stood_as: Uuid) {
        let known = self.rooms[room.index()]
            .erased
            .entry(slot)
            .or_insert(stood_as);
        if *known != stood_as || self.users.contains(&stood_as) {
            let known = *known;
            self.findings.found(Kind::DifferentContent, || {
                format!("room {} member {}: {known} and {stood_as}", room.0, slot.0)
            });
        }
    }

    /// Whether this is a message of an erased member as nobody's. It has nothing but its place.
    pub(super) fn is_nobody(
        &mut self,
        room: RoomIndex,
        slot: Slot,
        observed: &Observed<'_>,
    ) -> bool {
        let client = self.rooms[room.index()].members[slot.index()];
        let Some(sender) = observed.sender_id else {
            return false;
        };
        if sender == self.users[client.index()] {
            return false;
        }
        self.stands_as(room, slot, sender);
        let is_empty = observed.text.is_empty()
            && observed.mentions.is_empty()
            && observed.file.is_none()
            && observed.shown.counts.iter().all(|count| *count == 0);
        if !is_empty {
            self.findings.found(Kind::AlteredMessage, || {
                format!("room {}: of an erased member: {observed:?}", room.0)
            });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::{Ack, Change, Fate, RoomHistory, Shown, Want, What};
    use crate::identity::{self, MessageIds};
    use crate::ids::MessageNumber;

    const ROOM: RoomIndex = RoomIndex(0);
    const NOBODY: Uuid = Uuid::from_u128(99);

    fn observed<'a>(
        checker: &Checker,
        number: MessageNumber,
        slot: u32,
        text: &'a str,
    ) -> Observed<'a> {
        Observed {
            sender_id: Some(identity::user_id(ClientIndex(slot))),
            client_msg_id: Some(checker.ids.id(number, 1)),
            kind: "text",
            text,
            ..Observed::default()
        }
    }

    /// Each of two members writes, the second reacts to the first, and is erased: event 4.
    fn run(is_asked: bool, stood_as: Uuid) -> Checker {
        let members = vec![ClientIndex(0), ClientIndex(1)];
        let mut checker = Checker::new(MessageIds::new(1), 2, &[members]);
        for slot in 0..2 {
            checker.joined(ROOM, Slot(slot), 0);
        }
        for slot in 0..2 {
            let number = checker.add_message(ROOM, Slot(slot), 1, 40);
            checker.attempted(number, 1);
            let seq = u64::from(slot) + 1;
            let id = checker.ids.id(number, 1);
            checker.acked(ClientIndex(slot), number, id, Some(ROOM), seq, false);
            let text = checker.text(number);
            let shown = observed(&checker, number, slot, &text);
            for listener in 0..2 {
                checker.event(ROOM, Slot(listener), seq, seq);
                checker.content(ROOM, seq, seq, "", Some(shown));
            }
        }
        let want = Want::React {
            emoji: 0,
            added: true,
        };
        let place = (ROOM, Slot(1));
        let asked = checker.add_change(place, (MessageNumber(0), 1), want, Fate::Done, 1);
        checker.change_attempted(asked);
        let ack = Ack {
            seq: 3,
            changed: true,
            revision: 1,
        };
        checker.change_acked(ClientIndex(1), asked, Some(ROOM), 1, ack);
        let what = What::Reacted {
            by: Some(Slot(1)),
            emoji: Some(0),
            added: true,
            count: 1,
        };
        let message_seq = 1;
        for listener in 0..2 {
            checker.event(ROOM, Slot(listener), 3, 3);
            checker.changed(ROOM, 3, 3, "", (Change { message_seq, what }, None));
        }
        if is_asked {
            checker.erase(ClientIndex(1));
        }
        checker.event(ROOM, Slot(0), 4, 4);
        let erased = Observed {
            erased: Some((identity::user_id(ClientIndex(1)), stood_as)),
            ..Observed::default()
        };
        checker.content(ROOM, 4, 4, "", Some(erased));
        checker
    }

    const TOMBSTONE: Shown = Shown {
        is_deleted: true,
        ..Shown::FIRST
    };

    fn stored(first: (u64, u64, Shown), second: (u64, u64, Shown)) -> RoomHistory {
        let content = |number| Content::Message(MessageNumber(number));
        RoomHistory {
            last_seq: 4,
            contents: vec![(1, content(0)), (2, content(1))],
            shown: vec![first, second],
            ..RoomHistory::default()
        }
    }

    #[test]
    fn an_erased_users_messages_are_tombstones_and_their_reactions_gone() {
        let (plain, gone) = ((1, 4, Shown::FIRST), (2, 2, TOMBSTONE));
        let mut reacted = Shown::FIRST;
        reacted.counts[0] = 1;
        for (first, second, expected) in [
            (plain, gone, vec![]),
            (plain, (2, 2, Shown::FIRST), vec![Kind::WrongState]),
            (plain, (2, 4, TOMBSTONE), vec![Kind::WrongState]),
            ((1, 3, reacted), gone, vec![Kind::WrongState]),
            ((1, 3, Shown::FIRST), gone, vec![Kind::WrongState]),
        ] {
            let mut checker = run(true, NOBODY);
            checker.finish(&[stored(first, second)]);
            let findings = &checker.findings;
            assert_eq!(findings.kinds(), expected, "{findings:?}");
        }
    }

    #[test]
    fn nobody_is_erased_who_was_not_to_be_and_nobody_takes_their_place() {
        let kinds = |checker: Checker| checker.findings.kinds();
        assert_eq!(kinds(run(false, NOBODY)), [Kind::InventedChange]);
        let other = identity::user_id(ClientIndex(0));
        assert_eq!(kinds(run(true, other)), [Kind::DifferentContent]);
    }

    #[test]
    fn nobody_is_erased_in_a_room_that_they_are_not_in() {
        let mut checker = run(true, NOBODY);
        checker.event(ROOM, Slot(0), 5, 5);
        let erased = Observed {
            erased: Some((Uuid::from_u128(97), NOBODY)),
            ..Observed::default()
        };
        checker.content(ROOM, 5, 5, "", Some(erased));
        assert_eq!(checker.findings.kinds(), [Kind::InventedChange]);
    }

    #[test]
    fn a_page_shows_what_they_wrote_as_nobodys_and_nothing_of_it() {
        for (text, sender, expected) in [
            ("", NOBODY, vec![]),
            ("left", NOBODY, vec![Kind::AlteredMessage]),
            ("", Uuid::from_u128(98), vec![Kind::DifferentContent]),
        ] {
            let mut checker = run(true, NOBODY);
            let shown = Observed {
                sender_id: Some(sender),
                shown: TOMBSTONE,
                ..observed(&checker, MessageNumber(1), 1, text)
            };
            checker.hit(ROOM, 2, shown);
            assert_eq!(checker.findings.kinds(), expected, "{text} {sender}");
        }
    }
}
