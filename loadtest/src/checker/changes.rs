//! Changes of messages: what was asked, what was answered, and in which states messages were shown.
//!
//! Invariants: the text of a message at a revision follows from its number and the revision, so no
//! text is kept; an event of a change is kept without the state that it may show, which is a later
//! one when the event is told again; what only the whole log can decide is left to the verdict.
//!
//! Next: [`super::fold`], which derives every state from the log.

use super::{Checker, Kind, Outcome};
use crate::ids::{ChangeNumber, ClientIndex, MessageNumber, RoomIndex, Slot};

/// What clients react with, spelt in full.
pub const EMOJIS: [&str; 4] = ["👍", "☕", "🎉", "😀"];

/// An event that changed a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub message_seq: u64,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Edited,
    /// By whom; `None`: no member.
    Deleted(Option<Slot>),
    Reacted {
        by: Option<Slot>,
        /// Its place in [`EMOJIS`]; `None`: another one.
        emoji: Option<u8>,
        added: bool,
        count: u64,
    },
    /// A pin, or what nobody here asks for.
    Else,
}

/// What a message looks like, beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shown {
    pub revision: u32,
    pub is_deleted: bool,
    /// How often each of [`EMOJIS`] was put; the last place counts all others.
    pub counts: [u16; EMOJIS.len() + 1],
}

impl Shown {
    /// As it was sent.
    pub const FIRST: Self = Self {
        revision: 1,
        is_deleted: false,
        counts: [0; EMOJIS.len() + 1],
    };
}

impl Default for Shown {
    fn default() -> Self {
        Self::FIRST
    }
}

/// What a client wants of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Want {
    /// The text of this revision.
    Edit {
        revision: u32,
        expected: Option<u32>,
    },
    Delete,
    React {
        emoji: u8,
        added: bool,
    },
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done, unless the message is deleted meanwhile.
    Done,
    /// Another revision was expected on purpose.
    Conflict,
    /// Not this member's to change.
    Forbidden,
}

/// A change that a client asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub room: RoomIndex,
    pub slot: Slot,
    pub number: MessageNumber,
    pub message_seq: u64,
    pub want: Want,
    pub fate: Fate,
    pub due_us: u64,
    pub attempts: u16,
    pub outcome: Outcome,
    pub(super) is_uncertain: bool,
    /// Its effect may hold before it is asked for.
    pub(super) is_redundant: bool,
    pub(super) ack: Option<Ack>,
    /// It was answered that the message is deleted.
    pub(super) was_gone: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub seq: u64,
    pub changed: bool,
    pub revision: u32,
}

impl Asked {
    /// How many events may come of it.
    pub(super) fn possible(&self) -> u32 {
        let is_done = self.ack.is_some_and(|ack| ack.changed);
        match self.outcome {
            _ if self.is_uncertain => u32::from(self.attempts),
            Outcome::Void => u32::from(self.attempts),
            Outcome::Open => u32::from(self.attempts.min(1)),
            Outcome::Acked => u32::from(is_done),
            Outcome::Refused => 0,
        }
    }
}

impl Checker {
    pub fn changes(&self) -> &[Asked] {
        &self.changes
    }

    pub fn change(&self, change: ChangeNumber) -> Option<&Asked> {
        self.changes.get(change.index())
    }

    /// `message` must be known to stand at `message_seq`.
    pub fn add_change(
        &mut self,
        (room, slot): (RoomIndex, Slot),
        (number, message_seq): (MessageNumber, u64),
        want: Want,
        fate: Fate,
        due_us: u64,
    ) -> ChangeNumber {
        let change = ChangeNumber(self.changes.len() as u32);
        let asked_revision = self.message(number).map_or(1, |sent| sent.asked_revision);
        let is_redundant = match want {
            Want::Edit { revision, .. } => revision <= asked_revision,
            Want::Delete | Want::React { .. } => true,
        };
        self.changes.push(Asked {
            room,
            slot,
            number,
            message_seq,
            want,
            fate,
            due_us,
            attempts: 0,
            outcome: Outcome::Open,
            is_uncertain: false,
            is_redundant,
            ack: None,
            was_gone: false,
        });
        change
    }

    pub fn change_attempted(&mut self, change: ChangeNumber) {
        let Some(asked) = self.changes.get_mut(change.index()) else {
            return;
        };
        asked.attempts += 1;
        let Some(sent) = self.messages.get_mut(asked.number.index()) else {
            return;
        };
        match asked.want {
            Want::Edit { revision, .. } if asked.fate == Fate::Done => {
                sent.asked_revision = sent.asked_revision.max(revision);
            }
            Want::Delete => sent.is_delete_asked = true,
            Want::Edit { .. } | Want::React { .. } => {}
        }
    }

    /// The last attempt may have been stored or not.
    pub fn change_uncertain(&mut self, change: ChangeNumber) {
        if let Some(asked) = self.changes.get_mut(change.index()) {
            asked.is_uncertain = true;
        }
    }

    /// Returns whether this is its first answer.
    pub fn change_acked(
        &mut self,
        client: ClientIndex,
        change: ChangeNumber,
        room: Option<RoomIndex>,
        message_seq: u64,
        ack: Ack,
    ) -> bool {
        let findings = &mut self.findings;
        let asked = self.changes.get_mut(change.index());
        let Some(asked) = asked.filter(|asked| asked.attempts > 0) else {
            findings.found(Kind::AckLied, || {
                format!("ack of change {}, which was never asked for", change.0)
            });
            return false;
        };
        let log = &mut self.rooms[asked.room.index()];
        let words = |what: &str| {
            format!(
                "change {} of message {} in room {}, {:?}: {what}: {ack:?}",
                change.0, asked.message_seq, asked.room.0, asked.want
            )
        };
        let is_own = log.members[asked.slot.index()] == client;
        if !is_own || room != Some(asked.room) || message_seq != asked.message_seq {
            findings.found(Kind::AckLied, || words("acked to or for another"));
            return false;
        }
        if asked.outcome != Outcome::Open {
            findings.found(Kind::AckLied, || words("answered twice"));
            return false;
        }
        if asked.fate != Fate::Done {
            findings.found(Kind::MissingRefusal, || words("done"));
        }
        if !ack.changed && !asked.is_uncertain && !asked.is_redundant {
            findings.found(Kind::WrongChangedFlag, || words("nothing had done it"));
        }
        if let Want::Edit { revision, .. } = asked.want
            && asked.fate == Fate::Done
            && ack.revision != revision
        {
            findings.found(Kind::WrongState, || words("another revision"));
        }
        asked.outcome = Outcome::Acked;
        asked.ack = Some(ack);
        log.known_seq = log.known_seq.max(ack.seq);
        if let (Want::Edit { revision, .. }, Some(sent)) =
            (asked.want, self.messages.get_mut(asked.number.index()))
        {
            sent.known_revision = sent.known_revision.max(revision);
        }
        true
    }

    /// The server refused it for good.
    pub fn change_refused(&mut self, change: ChangeNumber, code: &str) {
        let Some(asked) = self.changes.get_mut(change.index()) else {
            return;
        };
        asked.outcome = Outcome::Refused;
        let is_delete_asked = self
            .messages
            .get(asked.number.index())
            .is_some_and(|sent| sent.is_delete_asked);
        let is_possible = match (code, asked.fate, asked.want) {
            ("revision_conflict", fate, _) => fate == Fate::Conflict,
            ("forbidden", fate, _) => fate == Fate::Forbidden,
            ("gone", Fate::Done | Fate::Conflict, Want::Edit { .. })
            | ("gone", Fate::Done, Want::React { added: true, .. }) => is_delete_asked,
            _ => false,
        };
        let author = self.messages.get(asked.number.index());
        let place = author.map(|sent| (sent.room, sent.slot));
        asked.was_gone = code == "gone";
        let room_members =
            |(room, slot): (RoomIndex, Slot)| self.rooms[room.index()].members.get(slot.index());
        let is_erasing = place
            .and_then(room_members)
            .is_some_and(|author| self.erasing.contains(author));
        let is_possible = is_possible || asked.was_gone && is_erasing;
        if !is_possible {
            self.findings.found(Kind::UnexpectedRefusal, || {
                format!("change {} was refused: {code}: {asked:?}", change.0)
            });
        }
    }

    /// Remembers the state in which a frame or page showed a message, and compares it with what
    /// others were shown.
    pub(super) fn shown(
        &mut self,
        room: RoomIndex,
        seq: u64,
        changed_seq: u64,
        shown: Shown,
        source: &str,
    ) {
        let log = &mut self.rooms[room.index()];
        if seq <= log.base_seq {
            return;
        }
        if changed_seq == seq {
            if shown != Shown::FIRST {
                self.findings.found(Kind::WrongState, || {
                    format!(
                        "room {} message {seq}: {source} shows {shown:?}, unchanged",
                        room.0
                    )
                });
            }
            return;
        }
        let known = log.shown.entry((seq, changed_seq)).or_insert(shown);
        if *known != shown {
            self.findings.found(Kind::DifferentContent, || {
                format!(
                    "room {} message {seq} as of {changed_seq}: {source} shows {shown:?}, before \
                     {known:?}",
                    room.0
                )
            });
        }
    }

    /// A message of this run that stands at `seq`, for somebody who wants to change it.
    pub fn message_at(&self, room: RoomIndex, seq: u64) -> Option<MessageNumber> {
        let log = &self.rooms[room.index()];
        let place = usize::try_from(seq.checked_sub(log.base_seq + 1)?).ok()?;
        match log.entries.get(place)? {
            entry if entry.is_by_ack_only => None,
            entry => match entry.content? {
                super::Content::Message(number) => Some(number),
                _ => None,
            },
        }
    }

    /// The change that stands at `seq`.
    pub fn change_at(&self, room: RoomIndex, seq: u64) -> Option<Change> {
        let log = &self.rooms[room.index()];
        let place = usize::try_from(seq.checked_sub(log.base_seq + 1)?).ok()?;
        match log.entries.get(place)?.content? {
            super::Content::Change(change) => Some(change),
            _ => None,
        }
    }
}
