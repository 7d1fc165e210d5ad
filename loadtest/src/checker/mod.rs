//! Compares everything that clients saw, acks, deliveries, replays and pages of history, with what
//! was sent, and with what the rooms hold in the end. Pure: no socket, no clock.
//!
//! Invariants: one log per room holds the first content seen at each `seq`; everybody else must see
//! the same. What is known of a message only ever grows, but by [`Checker::restore`], which takes a
//! power cut's witness back to the instant of the cut.
//!
//! Next: [`changes`], edits, deletions and reactions; [`marks`], receipts; [`verdict`] and [`fold`], the
//! comparison with the histories at the end.

mod changes;
mod cursor;
mod erased;
mod files;
mod finding;
mod fold;
mod identify;
mod marks;
mod pages;
mod restore;
#[cfg(test)]
mod tests;
mod verdict;

pub use changes::{Ack, Asked, Change, EMOJIS, Fate, Shown, Want, What};
pub use cursor::{Cursor, Step};
pub use finding::{Findings, Kind};
pub use marks::Mark;
pub use pages::{Page, PageBy, Paged};
pub use verdict::RoomHistory;

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::identity::{self, MessageIds};
use crate::ids::{ClientIndex, MessageNumber, RoomIndex, Slot};

/// A `seq` this far beyond all known ones is nonsense and must not cost memory.
const SEQ_JUMP_MAX: usize = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A message of this run, compared letter by letter with what was sent.
    Message(MessageNumber),
    /// A message of somebody else, by a fingerprint of its names.
    Stranger(u64),
    /// A change of a message.
    Change(Change),
    /// A member was erased.
    Erased(Slot),
    /// An event that is no message of a person.
    Other,
}

/// A message as a frame or a page shows it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observed<'a> {
    pub sender_id: Option<Uuid>,
    pub client_msg_id: Option<Uuid>,
    pub kind: &'a str,
    pub text: &'a str,
    pub reply_to_seq: Option<u64>,
    pub mentions: &'a [String],
    /// The last event that changed it; 0 for a server that does not say so: its own.
    pub changed_seq: u64,
    pub shown: Shown,
    /// It says that this user was erased, and as whom they stand there now.
    pub erased: Option<(Uuid, Uuid)>,
    /// Its only file.
    pub file: Option<Uuid>,
    /// Which of [`EMOJIS`] are the asker's, a bit each; `None` where it is not said.
    pub mine: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Open,
    Acked,
    Refused,
    /// Sent after the instant of a power cut: it may exist or not.
    Void,
}

/// What is known of a message of this run.
#[derive(Clone, Debug)]
pub struct Sent {
    pub room: RoomIndex,
    pub slot: Slot,
    pub due_us: u64,
    pub payload_bytes: u32,
    /// The message it answers; 0 for none.
    pub reply_to_seq: u64,
    /// The member it names.
    pub mention: Option<Slot>,
    /// Its file.
    pub upload: Option<Uuid>,
    /// The highest revision that an edit that left would make.
    pub asked_revision: u32,
    /// The highest revision that an ack named.
    pub known_revision: u32,
    /// Somebody asked to delete it.
    pub is_delete_asked: bool,
    pub outcome: Outcome,
    pub attempts: u16,
    /// The client's connection that sent it first.
    connection: u32,
    /// An attempt has an unknown outcome, so a later ack may say `duplicate`.
    is_uncertain: bool,
    /// It was known to be stored before the last attempt left, so its ack must say `duplicate`.
    was_stored_before_attempt: bool,
    acked_seq: u64,
    /// When the first ack came.
    pub acked_us: u64,
    /// Where an event or a page showed it; 0 for nowhere yet.
    seen_seq: u64,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    content: Option<Content>,
    /// Of the first frame that brought it; equal frames need no parsing.
    fingerprint: u64,
    /// Members whose position this event moved.
    receipts: u32,
    /// Nothing but an ack has named this place so far.
    is_by_ack_only: bool,
}

#[derive(Clone, Debug, Default)]
struct RoomLog {
    members: Vec<ClientIndex>,
    cursors: Vec<Cursor>,
    is_based: bool,
    /// Where this run's knowledge begins; entries follow from `base_seq + 1`.
    base_seq: u64,
    entries: Vec<Entry>,
    /// The highest `seq` that anybody showed.
    known_seq: u64,
    /// Time of the latest event whose content was read.
    latest: (u64, String),
    /// In which states changed messages were shown, by their `seq` and `changed_seq`.
    shown: HashMap<(u64, u64), Shown>,
    pages: Vec<pages::PageSeen>,
    /// How far each member is.
    marks: Vec<marks::Member>,
    /// As whom erased members stand there, once that was seen.
    erased: HashMap<Slot, Uuid>,
}

impl RoomLog {
    fn entry(&mut self, seq: u64) -> Option<&mut Entry> {
        let place = usize::try_from(seq.checked_sub(self.base_seq + 1)?).ok()?;
        if place >= self.entries.len() {
            if place > self.entries.len() + SEQ_JUMP_MAX {
                return None;
            }
            self.entries.resize_with(place + 1, Entry::default);
        }
        self.entries.get_mut(place)
    }
}

impl Sent {
    fn text(&self, number: MessageNumber, revision: u32) -> String {
        identity::text(number, revision, self.due_us, self.payload_bytes as usize)
    }
}

/// What `ready` says of a room.
#[derive(Clone, Copy, Debug)]
pub struct ReadyRoom<'a> {
    pub last_seq: u64,
    pub recovered: bool,
    pub from_seq: Option<u64>,
    pub to_seq: Option<u64>,
    pub reason: Option<&'a str>,
    /// The client had named its position.
    pub was_asked: bool,
}

/// What the client does after `ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterReady {
    /// Live events follow, perhaps after a replay.
    Stream,
    /// The missed events must be paged from the history.
    CatchUp,
}

/// What an event was, for those who measure.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The frame must be parsed and given to [`Checker::content`].
    pub needs_content: bool,
    pub is_new: bool,
}

/// The message at a place that somebody just received.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub number: MessageNumber,
    pub due_us: u64,
    /// All members have it now.
    pub by_all: bool,
}

#[derive(Clone, Debug)]
pub struct Checker {
    ids: MessageIds,
    users: Vec<Uuid>,
    rooms: Vec<RoomLog>,
    messages: Vec<Sent>,
    changes: Vec<Asked>,
    marks: marks::Marks,
    unseen_rooms: u64,
    /// Who is to be erased, or is.
    erasing: HashSet<ClientIndex>,
    pub findings: Findings,
}

impl Checker {
    /// `rooms` lists the members of each.
    pub fn new(ids: MessageIds, clients: usize, rooms: &[Vec<ClientIndex>]) -> Self {
        let users = (0..clients as u32)
            .map(|client| identity::user_id(ClientIndex(client)))
            .collect();
        let rooms = rooms
            .iter()
            .map(|members| RoomLog {
                members: members.clone(),
                cursors: vec![Cursor::default(); members.len()],
                marks: vec![marks::Member::default(); members.len()],
                ..RoomLog::default()
            })
            .collect();
        Self {
            ids,
            users,
            rooms,
            messages: Vec::new(),
            changes: Vec::new(),
            marks: marks::Marks::default(),
            unseen_rooms: 0,
            erasing: HashSet::new(),
            findings: Findings::default(),
        }
    }

    pub fn cursor(&self, room: RoomIndex, slot: Slot) -> &Cursor {
        &self.rooms[room.index()].cursors[slot.index()]
    }

    pub fn cursor_mut(&mut self, room: RoomIndex, slot: Slot) -> &mut Cursor {
        &mut self.rooms[room.index()].cursors[slot.index()]
    }

    /// The highest `seq` that an ack, an event or a page showed.
    pub fn known_seq(&self, room: RoomIndex) -> u64 {
        self.rooms[room.index()].known_seq
    }

    /// Where this run's knowledge of the room begins.
    pub fn base_seq(&self, room: RoomIndex) -> u64 {
        self.rooms[room.index()].base_seq
    }

    pub fn is_behind(&self, room: RoomIndex, slot: Slot) -> bool {
        let log = &self.rooms[room.index()];
        let cursor = &log.cursors[slot.index()];
        let is_gone = self.erasing.contains(&log.members[slot.index()]);
        !is_gone && (cursor.position < log.known_seq || cursor.is_catching_up)
    }

    /// Members of the room that do not have all that is known to be in it.
    pub fn behind(&self, room: RoomIndex) -> usize {
        (0..self.rooms[room.index()].cursors.len() as u32)
            .filter(|slot| self.is_behind(room, Slot(*slot)))
            .count()
    }

    pub fn messages(&self) -> &[Sent] {
        &self.messages
    }

    pub fn message(&self, number: MessageNumber) -> Option<&Sent> {
        self.messages.get(number.index())
    }

    pub fn add_message(
        &mut self,
        room: RoomIndex,
        slot: Slot,
        due_us: u64,
        payload_bytes: u32,
    ) -> MessageNumber {
        let number = MessageNumber(self.messages.len() as u32);
        self.messages.push(Sent {
            room,
            slot,
            due_us,
            payload_bytes,
            reply_to_seq: 0,
            mention: None,
            upload: None,
            asked_revision: 1,
            known_revision: 1,
            is_delete_asked: false,
            outcome: Outcome::Open,
            attempts: 0,
            connection: 0,
            is_uncertain: false,
            was_stored_before_attempt: false,
            acked_seq: 0,
            acked_us: 0,
            seen_seq: 0,
        });
        number
    }

    /// Before it is sent for the first time: it answers another message, or names a member.
    pub fn adorn(&mut self, number: MessageNumber, reply_to_seq: u64, mention: Option<Slot>) {
        if let Some(sent) = self.messages.get_mut(number.index()) {
            sent.reply_to_seq = reply_to_seq;
            sent.mention = mention;
        }
    }

    pub fn text(&self, number: MessageNumber) -> String {
        self.text_at(number, 1)
    }

    /// The text that the message has at a revision.
    pub fn text_at(&self, number: MessageNumber, revision: u32) -> String {
        self.messages
            .get(number.index())
            .map_or_else(String::new, |sent| sent.text(number, revision))
    }

    /// The message leaves on the client's so-many-th connection.
    pub fn attempted(&mut self, number: MessageNumber, connection: u32) {
        let Some(sent) = self.messages.get_mut(number.index()) else {
            return;
        };
        if sent.attempts == 0 {
            sent.connection = connection;
        }
        sent.attempts += 1;
        sent.was_stored_before_attempt = sent.seen_seq > 0 || sent.acked_seq > 0;
    }

    /// The last attempt may have been stored or not.
    pub fn uncertain(&mut self, number: MessageNumber) {
        if let Some(sent) = self.messages.get_mut(number.index()) {
            sent.is_uncertain = true;
        }
    }

    /// Returns whether this is the message's first ack.
    pub fn acked(
        &mut self,
        client: ClientIndex,
        number: MessageNumber,
        client_msg_id: Uuid,
        room: Option<RoomIndex>,
        seq: u64,
        is_duplicate: bool,
    ) -> bool {
        let Self {
            ids,
            rooms,
            messages,
            findings,
            ..
        } = self;
        let Some(sent) = messages.get_mut(number.index()) else {
            findings.found(Kind::AckLied, || {
                format!("ack for message {}, which was never sent", number.0)
            });
            return false;
        };
        let log = &mut rooms[sent.room.index()];
        let RoomIndex(sent_room) = sent.room;
        let words = |what: &str| {
            format!(
                "ack of message {} in room {sent_room}: {what} (seq {seq}, duplicate \
                 {is_duplicate})",
                number.0
            )
        };
        if log.members[sent.slot.index()] != client || sent.attempts == 0 {
            findings.found(Kind::AckLied, || words("this client had not sent it"));
            return false;
        }
        if client_msg_id != ids.id(number, sent.due_us) {
            findings.found(Kind::AckLied, || words("another client_msg_id"));
        }
        if room != Some(sent.room) {
            findings.found(Kind::AckLied, || words("another room_id"));
            return false;
        }
        let may_be_stored =
            sent.is_uncertain || sent.acked_seq > 0 || sent.was_stored_before_attempt;
        if is_duplicate && !may_be_stored {
            findings.found(Kind::WrongDuplicateFlag, || words("it was sent only once"));
        }
        if !is_duplicate && sent.was_stored_before_attempt {
            findings.found(Kind::WrongDuplicateFlag, || {
                words("it was stored before this attempt")
            });
        }
        if sent.acked_seq > 0 && sent.acked_seq != seq {
            findings.found(Kind::DoubledMessage, || {
                words(&format!("first acked as seq {}", sent.acked_seq))
            });
        } else if sent.seen_seq > 0 && sent.seen_seq != seq {
            findings.found(Kind::AckLied, || {
                words(&format!("delivered as seq {}", sent.seen_seq))
            });
        }
        let is_first = sent.acked_seq == 0;
        if is_first {
            sent.acked_seq = seq;
            sent.outcome = Outcome::Acked;
        }
        log.known_seq = log.known_seq.max(seq);
        match log.entry(seq) {
            None => findings.found(Kind::AckLied, || words("an impossible seq")),
            Some(entry) => match entry.content {
                None => {
                    entry.content = Some(Content::Message(number));
                    entry.is_by_ack_only = true;
                }
                Some(Content::Message(other)) if other == number => {}
                Some(other) => findings.found(Kind::AckLied, || {
                    words(&format!("that place holds {other:?}"))
                }),
            },
        }
        is_first
    }

    /// When its first ack came.
    pub fn acked_at(&mut self, number: MessageNumber, now_us: u64) {
        if let Some(sent) = self.messages.get_mut(number.index()) {
            sent.acked_us = now_us;
        }
    }

    /// The server refused the message for good.
    pub fn refused(&mut self, number: MessageNumber, code: &str) {
        let Some(sent) = self.messages.get_mut(number.index()) else {
            return;
        };
        sent.outcome = Outcome::Refused;
        let room = sent.room.0;
        self.findings.found(Kind::UnexpectedRefusal, || {
            format!("message {} to room {room} was refused: {code}", number.0)
        });
        if sent.seen_seq > 0 {
            self.findings.found(Kind::RefusedStored, || {
                format!("message {} was refused after it was delivered", number.0)
            });
        }
    }

    /// The client is a member from after `last_seq` on. Said again, it changes nothing.
    pub fn joined(&mut self, room: RoomIndex, slot: Slot, last_seq: u64) {
        let log = &mut self.rooms[room.index()];
        if !log.is_based {
            log.is_based = true;
            log.base_seq = last_seq;
        }
        log.known_seq = log.known_seq.max(last_seq);
        let cursor = &mut log.cursors[slot.index()];
        if !cursor.is_joined {
            cursor.join(last_seq);
        }
    }

    /// A new connection of a member begins.
    pub fn ready(&mut self, room: RoomIndex, slot: Slot, ready: ReadyRoom<'_>) -> AfterReady {
        if !self.cursor(room, slot).is_joined {
            self.joined(room, slot, ready.last_seq);
            return AfterReady::Stream;
        }
        let log = &mut self.rooms[room.index()];
        let cursor = &mut log.cursors[slot.index()];
        let position = cursor.position;
        let findings = &mut self.findings;
        let words = |what: &str| {
            format!(
                "room {} member {} at position {position}: {what}: {ready:?}",
                room.0, slot.0
            )
        };
        log.known_seq = log.known_seq.max(ready.last_seq);
        if ready.last_seq < position || ready.reason == Some("ahead_of_server") {
            findings.found(Kind::AheadOfServer, || words("the store has less"));
            cursor.begin_stream(ready.last_seq);
            return AfterReady::Stream;
        }
        if ready.recovered {
            let has_range =
                ready.from_seq == Some(position + 1) && ready.to_seq == Some(ready.last_seq);
            if !ready.was_asked {
                findings.found(Kind::WrongResume, || words("recovered without being asked"));
            } else if position < ready.last_seq && !has_range {
                findings.found(Kind::WrongResume, || words("not the missed events"));
            }
            cursor.begin_stream(position);
            return AfterReady::Stream;
        }
        cursor.begin_stream(ready.last_seq);
        match ready.reason {
            Some("epoch_changed") => {
                findings.found(Kind::EpochChanged, || words("nothing was replaced"));
                cursor.position = ready.last_seq;
                return AfterReady::Stream;
            }
            Some("position_expired" | "too_much") => {}
            Some("not_requested") | None if !ready.was_asked => {}
            _ => findings.found(Kind::WrongResume, || words("no fitting reason")),
        }
        if position == ready.last_seq {
            return AfterReady::Stream;
        }
        cursor.begin_catching_up();
        AfterReady::CatchUp
    }

    /// A durable event came on a member's connection.
    pub fn event(&mut self, room: RoomIndex, slot: Slot, seq: u64, fingerprint: u64) -> Arrival {
        let log = &mut self.rooms[room.index()];
        let findings = &mut self.findings;
        let cursor = &mut log.cursors[slot.index()];
        let place = || format!("room {} member {} seq {seq}", room.0, slot.0);
        if !cursor.is_joined {
            findings.found(Kind::NotAMember, || {
                format!("{}: before room.added or ready named the room", place())
            });
            log.cursors[slot.index()].join(seq.saturating_sub(1));
        }
        let cursor = &mut log.cursors[slot.index()];
        let before = cursor.position;
        let step = cursor.arrive(seq);
        match step {
            Step::New | Step::Known => {}
            Step::AfterGap(count) => findings.found_many(Kind::Gap, count, || {
                format!("{}: {count} missing before it", place())
            }),
            Step::Late => findings.found(Kind::OutOfOrder, || {
                format!("{}: after a greater one", place())
            }),
            Step::Doubled => findings.found(Kind::DoubledDelivery, || {
                format!("{}: twice on one connection", place())
            }),
        }
        let is_new = cursor.position > before;
        log.known_seq = log.known_seq.max(seq);
        let Some(entry) = log.entry(seq) else {
            return Arrival {
                needs_content: false,
                is_new,
            };
        };
        if is_new {
            entry.receipts += 1;
        }
        Arrival {
            needs_content: entry.content.is_none()
                || entry.is_by_ack_only
                || entry.fingerprint != fingerprint,
            is_new,
        }
    }

    /// The frame of [`Checker::event`] told of a change, and may show the message, as it is by then.
    pub fn changed(
        &mut self,
        room: RoomIndex,
        seq: u64,
        fingerprint: u64,
        ts: &str,
        (change, observed): (Change, Option<Observed<'_>>),
    ) {
        self.place(room, seq, Content::Change(change), "an event");
        if let Some(observed) = observed {
            let content = self.identify(room, change.message_seq, observed);
            self.place(room, change.message_seq, content, "an event of a change");
            if observed.changed_seq < seq {
                self.findings.found(Kind::WrongState, || {
                    format!(
                        "room {} seq {seq}: shows the message as of {}",
                        room.0, observed.changed_seq
                    )
                });
            }
        }
        self.timed(room, seq, fingerprint, ts);
    }

    /// What the frame of [`Checker::event`] held. `ts` is the event's time.
    pub fn content(
        &mut self,
        room: RoomIndex,
        seq: u64,
        fingerprint: u64,
        ts: &str,
        observed: Option<Observed<'_>>,
    ) {
        let content = observed.map_or(Content::Other, |observed| {
            self.identify(room, seq, observed)
        });
        self.place(room, seq, content, "an event");
        self.timed(room, seq, fingerprint, ts);
    }

    /// Later copies of the frame need no parsing, and the room's clock never runs back.
    fn timed(&mut self, room: RoomIndex, seq: u64, fingerprint: u64, ts: &str) {
        let log = &mut self.rooms[room.index()];
        if let Some(entry) = log.entry(seq) {
            entry.fingerprint = fingerprint;
        }
        if seq > log.latest.0 {
            let (latest_seq, latest_ts) = &mut log.latest;
            if ts.len() == latest_ts.len() && ts < latest_ts.as_str() {
                self.findings.found(Kind::TimeWentBack, || {
                    format!(
                        "room {} seq {seq}: {ts} after {latest_ts} of seq {latest_seq}",
                        room.0
                    )
                });
            }
            *latest_seq = seq;
            latest_ts.clear();
            latest_ts.push_str(ts);
        }
    }

    /// The message at a place, for latencies.
    pub fn received(&mut self, room: RoomIndex, seq: u64) -> Option<Received> {
        let log = &mut self.rooms[room.index()];
        let members = log.members.len() as u32;
        let entry = log.entry(seq)?;
        let Some(Content::Message(number)) = entry.content else {
            return None;
        };
        let by_all = entry.receipts == members;
        let due_us = self.messages.get(number.index())?.due_us;
        Some(Received {
            number,
            due_us,
            by_all,
        })
    }

    /// The server said that it skipped events of this connection. Returns whether the history must
    /// be paged.
    pub fn told_gap(&mut self, room: RoomIndex, slot: Slot, last_seq: u64) -> bool {
        let log = &mut self.rooms[room.index()];
        log.known_seq = log.known_seq.max(last_seq);
        let cursor = &mut log.cursors[slot.index()];
        let is_first = !cursor.is_catching_up;
        cursor.told_gap(last_seq);
        is_first
    }
}
