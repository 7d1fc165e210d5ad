//! How far members are in rooms: what they said, what others were told of it, and what is unread.
//!
//! Invariants: a member is never told to be further than they said, than their own newest message, or
//! than where they joined; what one connection is told of a member never goes back.

use std::collections::HashMap;

use super::{Checker, Content, Kind};
use crate::ids::{ClientIndex, RoomIndex, Slot};
use crate::limits::UNREAD_MAX;

/// Read and delivered up to here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub read: u64,
    pub delivered: u64,
}

impl Mark {
    fn is_behind(self, other: Self) -> bool {
        self.read < other.read || self.delivered < other.delivered
    }

    fn or_further(self, other: Self) -> Self {
        Self {
            read: self.read.max(other.read),
            delivered: self.delivered.max(other.delivered),
        }
    }
}

/// One member of a room.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Member {
    said: Mark,
    /// The newest message that they wrote, where it was seen.
    pub(super) own_seq: u64,
    /// The furthest that anybody was told of them.
    told: Mark,
    /// What `room.get` said last.
    got: Option<Mark>,
}

/// What one client was told of one member.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    connection: u32,
    last: Mark,
    furthest: Mark,
}

/// What a reply said a room is to a user.
#[derive(Clone, Copy, Debug)]
pub(super) struct OwnView {
    room: RoomIndex,
    slot: Slot,
    read_seq: u64,
    unread: u64,
    source: &'static str,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    told: HashMap<(ClientIndex, RoomIndex, Slot), Told>,
    own_views: Vec<OwnView>,
    /// The server takes receipts.
    has_receipts: bool,
    /// So many replies about unread messages were compared.
    compared: u64,
}

impl Checker {
    pub fn expect_receipts(&mut self) {
        self.marks.has_receipts = true;
    }

    /// How many statements about what is unread were compared with the log.
    pub fn unread_compared(&self) -> u64 {
        self.marks.compared
    }

    /// What a member said of themselves so far.
    pub fn said(&self, room: RoomIndex, slot: Slot) -> Mark {
        self.rooms[room.index()].marks[slot.index()].said
    }

    /// A member says how far they are.
    pub fn say_mark(&mut self, room: RoomIndex, slot: Slot, mark: Mark) {
        let said = &mut self.rooms[room.index()].marks[slot.index()].said;
        // Who has read something has received it.
        let delivered = mark.delivered.max(mark.read);
        *said = said.or_further(Mark { delivered, ..mark });
    }

    /// `receipt.updated` on a client's so-many-th connection.
    pub fn receipt(
        &mut self,
        (client, connection): (ClientIndex, u32),
        room: RoomIndex,
        slot: Slot,
        mark: Mark,
    ) {
        let words = |what: &str| {
            format!(
                "client {}, room {} member {}: {what}: {mark:?}",
                client.0, room.0, slot.0
            )
        };
        if mark.read > mark.delivered {
            self.findings
                .found(Kind::BadFrame, || words("read, not delivered"));
        }
        let told = self.marks.told.entry((client, room, slot)).or_default();
        if told.connection != connection {
            *told = Told {
                connection,
                furthest: told.furthest,
                ..Told::default()
            };
        }
        if mark.is_behind(told.last) {
            let last = told.last;
            self.findings.found(Kind::WatermarkBack, || {
                words(&format!("told {last:?} before"))
            });
        }
        told.last = mark;
        told.furthest = told.furthest.or_further(mark);
        let member = &mut self.rooms[room.index()].marks[slot.index()];
        member.told = member.told.or_further(mark);
    }

    /// A member's watermarks in `ready`: what this client was told before is stored.
    pub fn ready_mark(&mut self, client: ClientIndex, room: RoomIndex, slot: Slot, mark: Mark) {
        let told = self.marks.told.get(&(client, room, slot)).copied();
        let furthest = told.unwrap_or_default().furthest;
        if mark.is_behind(furthest) {
            self.findings.found(Kind::WatermarkBack, || {
                format!(
                    "client {}, room {} member {}: ready says {mark:?}, told before {furthest:?}",
                    client.0, room.0, slot.0
                )
            });
        }
        let member = &mut self.rooms[room.index()].marks[slot.index()];
        member.told = member.told.or_further(mark);
    }

    /// A member's watermarks by `room.get`, the room being at `last_seq`.
    pub fn got_mark(&mut self, room: RoomIndex, slot: Slot, mark: Mark, last_seq: u64) {
        if mark.read > mark.delivered && self.marks.has_receipts
            || mark.read.max(mark.delivered) > last_seq
        {
            self.findings.found(Kind::WatermarkAhead, || {
                format!(
                    "room {} member {}: {mark:?} of last_seq {last_seq}",
                    room.0, slot.0
                )
            });
        }
        let member = &mut self.rooms[room.index()].marks[slot.index()];
        member.got = Some(mark);
        member.told = member.told.or_further(mark);
    }

    /// Forgets what `room.get` said, before everything is asked again.
    pub fn forget_views(&mut self) {
        self.marks.own_views.clear();
        for log in &mut self.rooms {
            log.marks.iter_mut().for_each(|member| member.got = None);
        }
    }

    /// What the room is to one of its members, said while nothing changes.
    pub fn own_view(
        &mut self,
        (room, slot): (RoomIndex, Slot),
        read_seq: u64,
        unread: u64,
        source: &'static str,
    ) {
        self.marks.own_views.push(OwnView {
            room,
            slot,
            read_seq,
            unread,
            source,
        });
    }

    /// Whether `room.get` lacks something that was said.
    pub fn lags(&self, room: RoomIndex) -> bool {
        let has_receipts = self.marks.has_receipts;
        let lags = |member: &Member| {
            let least = member.least(has_receipts);
            member.got.is_some_and(|got| got.is_behind(least))
        };
        let log = &self.rooms[room.index()];
        let mut members = log.marks.iter().zip(&log.members);
        members.any(|(member, client)| lags(member) && !self.erasing.contains(client))
    }

    /// Compares all that was told with what was said.
    pub(super) fn finish_marks(&mut self, room: RoomIndex) {
        let has_receipts = self.marks.has_receipts;
        let log = &self.rooms[room.index()];
        let joined = log.base_seq + log.leading_others();
        for (slot, member) in log.marks.iter().enumerate() {
            if self.erasing.contains(&log.members[slot]) {
                continue;
            }
            let place = || format!("room {} member {slot}: {member:?}", room.0);
            let least = member.least(has_receipts);
            let said = member.said.delivered.max(member.own_seq).max(joined);
            let most = Mark {
                read: member.said.read.max(member.own_seq).max(joined),
                delivered: said,
            };
            if member.got.is_some_and(|got| got.is_behind(least)) {
                self.findings
                    .found(Kind::WatermarkLost, || format!("{}, {least:?}", place()));
            }
            if most.is_behind(member.told) {
                self.findings
                    .found(Kind::WatermarkAhead, || format!("{}, {most:?}", place()));
            }
        }
    }

    /// What was said of each room to its members.
    pub(super) fn take_views(&mut self) -> Vec<Vec<OwnView>> {
        let mut views = vec![Vec::new(); self.rooms.len()];
        for view in std::mem::take(&mut self.marks.own_views) {
            views[view.room.index()].push(view);
        }
        views
    }

    /// Compares what is unread with the log of a room: `alive` are its messages that are not deleted,
    /// each with its author's place, by `seq`.
    pub(super) fn finish_unread(
        &mut self,
        room: RoomIndex,
        own: Vec<OwnView>,
        alive: Option<&[(u64, Option<Slot>)]>,
    ) {
        let base_seq = self.rooms[room.index()].base_seq;
        let Some(alive) = alive else { return };
        for view in own {
            // What stood there before this run is not known.
            if view.read_seq < base_seq {
                continue;
            }
            let after = alive.partition_point(|(seq, _)| *seq <= view.read_seq);
            let others = alive[after..]
                .iter()
                .filter(|(_, author)| *author != Some(view.slot));
            let unread = (others.count() as u64).min(UNREAD_MAX);
            self.marks.compared += 1;
            if unread != view.unread {
                self.findings.found(Kind::WrongUnread, || {
                    format!("{view:?}: {unread} messages after read_seq")
                });
            }
            let member = &self.rooms[room.index()].marks[view.slot.index()];
            let least = member.own_seq.max(match self.marks.has_receipts {
                // `ready` and lists may be read before the last receipt is written; `room.get` is
                // asked until it is.
                true if view.source == "room.get" => member.said.read,
                _ => 0,
            });
            if view.read_seq < least {
                self.findings.found(Kind::WatermarkLost, || {
                    format!("{view:?}: {least} was said or written")
                });
            }
        }
    }
}

impl Member {
    /// How far they must be, when everything is stored.
    fn least(&self, has_receipts: bool) -> Mark {
        if has_receipts {
            Mark {
                read: self.said.read.max(self.own_seq),
                delivered: self.said.delivered.max(self.own_seq),
            }
        } else {
            Mark {
                read: self.own_seq,
                delivered: 0,
            }
        }
    }
}

impl super::RoomLog {
    /// How many events stand before the first message.
    fn leading_others(&self) -> u64 {
        let is_other = |entry: &&super::Entry| matches!(entry.content, Some(Content::Other) | None);
        self.entries.iter().take_while(is_other).count() as u64
    }
}
