//! What members of the rooms that a shard is home to have received and read: gathered, written many at a
//! time, and told after that. Never on the path of a message.
//!
//! Invariants: of each member and room only the newest waits, whether to be written or to be told; what waits
//! is bounded; nothing is told that is not written; of one member and room at most one is told in
//! [`limits::RECEIPTS_MS`], and none that is older than one told before.
//!
//! Next: [`super::home_receipts`] writes them, and tells the shards that listen and other nodes.

use super::map::{Map, Seeded};
use super::port::{Receipt, ReceiptOutcome};
use super::{ConnId, ShardIx};
use crate::limits;
use crate::protocol::{RoomId, Seq, UserId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A connection of this node.
pub type Device = (ShardIx, ConnId);

/// How far a member is in a room; zeros: not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// Read up to here.
    pub read_seq: Seq,
    /// Received up to here.
    pub delivered_seq: Seq,
}

impl Mark {
    /// Whether the other says nothing new.
    fn covers(self, other: Mark) -> bool {
        self.read_seq >= other.read_seq && self.delivered_seq >= other.delivered_seq
    }

    fn merged(self, other: Mark) -> Mark {
        Mark {
            read_seq: self.read_seq.max(other.read_seq),
            delivered_seq: self.delivered_seq.max(other.delivered_seq),
        }
    }
}

/// What is to be told of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Telling {
    /// The member.
    pub user: UserId,
    /// How far they are; zeros: only their own devices are told.
    pub mark: Mark,
    /// What the room is to the member alone may have changed: their other devices want to know.
    pub is_own_changed: bool,
    /// The only device by which it changed, which knows.
    pub by: Option<Device>,
    /// It was learned here, so other nodes are to be told.
    pub is_ours: bool,
}

/// The receipts of the rooms that a shard is home to.
#[derive(Debug)]
pub struct Receipts {
    /// To be written.
    waiting: Map<(RoomId, UserId), Waiting>,
    /// The keys of `waiting`, the oldest first.
    order: VecDeque<(RoomId, UserId)>,
    /// Being written.
    flight: Option<Vec<((RoomId, UserId), Waiting)>>,
    /// The next batch is not begun before, ms.
    next_ms: u64,
    /// The last batch failed.
    failed: bool,
    rooms: Map<RoomId, Told>,
    /// The rooms of which something is to be told.
    to_tell: BTreeSet<RoomId>,
    /// How many members' receipts are to be told.
    untold: usize,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    mark: Mark,
    by: Option<Device>,
}

/// What was told of a room, and is to be.
#[derive(Debug, Default)]
struct Told {
    /// What was told last of each member, and when, ms.
    told: BTreeMap<UserId, (Mark, u64)>,
    untold: BTreeMap<UserId, Telling>,
    /// Nothing more is told before, ms.
    next_ms: u64,
}

impl Receipts {
    /// None.
    pub fn new(seed: u64) -> Receipts {
        Receipts {
            waiting: Map::with_hasher(Seeded::with_seed(seed)),
            order: VecDeque::new(),
            flight: None,
            next_ms: 0,
            failed: false,
            rooms: Map::with_hasher(Seeded::with_seed(seed)),
            to_tell: BTreeSet::new(),
            untold: 0,
        }
    }

    /// A member gave a receipt. Of those that were not written yet only the newest is kept.
    pub fn take(&mut self, room: RoomId, user: UserId, mark: Mark, by: Device) {
        let told = self.rooms.get(&room).and_then(|room| room.told.get(&user));
        if told.is_some_and(|(told, _)| told.covers(mark)) {
            return;
        }
        let by = Some(by);
        self.wait((room, user), Waiting { mark, by }, false);
    }

    fn wait(&mut self, key: (RoomId, UserId), more: Waiting, is_older: bool) {
        if let Some(waiting) = self.waiting.get_mut(&key) {
            if !waiting.mark.covers(more.mark) {
                // What another device gave, the one does not know.
                waiting.by = waiting.by.filter(|by| Some(*by) == more.by);
                waiting.mark = waiting.mark.merged(more.mark);
            }
            return;
        }
        if self.waiting.len() >= limits::RECEIPTS_WAITING_MAX {
            if is_older {
                return;
            }
            if let Some(oldest) = self.order.pop_front() {
                self.waiting.remove(&oldest);
            }
        }
        self.waiting.insert(key, more);
        match is_older {
            true => self.order.push_front(key),
            false => self.order.push_back(key),
        }
    }

    /// How many wait for being written.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing is under way, and nothing waits that could be written.
    pub fn is_idle(&self) -> bool {
        self.flight.is_none() && (self.failed || self.waiting.is_empty())
    }

    /// The next batch, if it is its time, by room and user; `is_last`: it always is.
    pub fn batch(&mut self, now_ms: u64, is_last: bool) -> Option<Vec<Receipt>> {
        let is_full = self.waiting.len() >= limits::RECEIPTS_BATCH_MAX && !self.failed;
        let is_due = is_full || now_ms >= self.next_ms || is_last && !self.failed;
        if self.flight.is_some() || self.waiting.is_empty() || !is_due {
            return None;
        }
        self.next_ms = now_ms + limits::RECEIPTS_MS;
        let count = self.order.len().min(limits::RECEIPTS_BATCH_MAX);
        let mut flight = Vec::with_capacity(count);
        for key in self.order.drain(..count) {
            if let Some(waiting) = self.waiting.remove(&key) {
                flight.push((key, waiting));
            }
        }
        flight.sort_unstable_by_key(|(key, _)| *key);
        let receipt = |((room, user), waiting): &((RoomId, UserId), Waiting)| Receipt {
            room: *room,
            user: *user,
            read_seq: waiting.mark.read_seq,
            delivered_seq: waiting.mark.delivered_seq,
        };
        let batch = flight.iter().map(receipt).collect();
        self.flight = Some(flight);
        Some(batch)
    }

    /// The store answered the batch; `None`: nobody knows whether it was written, so it is given again. How
    /// many advanced.
    pub fn answered(&mut self, outcomes: Option<Vec<ReceiptOutcome>>) -> usize {
        let flight = self.flight.take().unwrap_or_default();
        self.failed = outcomes.is_none();
        let Some(outcomes) = outcomes else {
            for (key, waiting) in flight.into_iter().rev() {
                self.wait(key, waiting, true);
            }
            return 0;
        };
        let mut advanced = 0;
        for (((room, user), waiting), outcome) in flight.into_iter().zip(outcomes) {
            match outcome {
                ReceiptOutcome::NotAMember | ReceiptOutcome::Known => (),
                ReceiptOutcome::Busy => self.wait((room, user), waiting, true),
                ReceiptOutcome::Advanced {
                    read_seq,
                    delivered_seq,
                    is_read,
                } => {
                    advanced += 1;
                    let mark = Mark {
                        read_seq,
                        delivered_seq,
                    };
                    let telling = Telling {
                        user,
                        mark,
                        is_own_changed: is_read,
                        by: waiting.by,
                        is_ours: true,
                    };
                    self.note(room, telling);
                }
            }
        }
        advanced
    }

    /// Something is to be told of a member.
    pub fn note(&mut self, id: RoomId, more: Telling) {
        let room = self.rooms.entry(id).or_default();
        if !more.is_own_changed
            && let Some((told, _)) = room.told.get(&more.user)
            && told.covers(more.mark)
        {
            return;
        }
        if let Some(untold) = room.untold.get_mut(&more.user) {
            untold.mark = untold.mark.merged(more.mark);
            if more.is_own_changed {
                untold.by = match untold.is_own_changed {
                    true => untold.by.filter(|by| Some(*by) == more.by),
                    false => more.by,
                };
                untold.is_own_changed = true;
            }
            untold.is_ours |= more.is_ours;
        } else if self.untold < limits::RECEIPTS_UNTOLD_MAX {
            self.untold += 1;
            room.untold.insert(more.user, more);
        }
        self.to_tell.insert(id);
    }

    /// Somebody begins to listen, and may have read the watermarks before those of the last while were told.
    pub fn tell_again(&mut self, id: RoomId, now_ms: u64) {
        let Some(room) = self.rooms.get_mut(&id) else {
            return;
        };
        for (user, (mark, told_ms)) in &room.told {
            let is_recent = now_ms < told_ms + limits::RECEIPTS_AGAIN_MS;
            let has_place = self.untold < limits::RECEIPTS_UNTOLD_MAX;
            if is_recent && has_place && !room.untold.contains_key(user) {
                self.untold += 1;
                let telling = Telling {
                    user: *user,
                    mark: *mark,
                    is_own_changed: false,
                    by: None,
                    is_ours: false,
                };
                room.untold.insert(*user, telling);
            }
        }
        if !room.untold.is_empty() {
            self.to_tell.insert(id);
        }
    }

    /// The rooms of which something may be told now.
    pub fn to_tell(&self, now_ms: u64) -> Vec<RoomId> {
        let is_due = |id: &&RoomId| {
            let room = self.rooms.get(*id);
            room.is_some_and(|room| now_ms >= room.next_ms)
        };
        self.to_tell.iter().filter(is_due).copied().collect()
    }

    /// What is to be told of a room; taken as told. `is_shown`: others in the room are told as well.
    pub fn tell(&mut self, id: RoomId, is_shown: bool, now_ms: u64) -> Vec<Telling> {
        self.to_tell.remove(&id);
        let Some(room) = self.rooms.get_mut(&id) else {
            return Vec::new();
        };
        room.next_ms = now_ms + limits::RECEIPTS_MS;
        self.untold -= room.untold.len();
        let mut telling: Vec<Telling> = std::mem::take(&mut room.untold).into_values().collect();
        if !is_shown {
            room.told.clear();
            return telling;
        }
        for one in &mut telling {
            if one.mark == Mark::default() {
                continue;
            }
            let (told, told_ms) = room.told.entry(one.user).or_default();
            one.mark = told.merged(one.mark);
            // Told again it is not newer.
            if *told != one.mark {
                (*told, *told_ms) = (one.mark, now_ms);
            }
        }
        telling
    }

    /// A user is no member any more.
    pub fn left(&mut self, room: RoomId, user: UserId) {
        if let Some(room) = self.rooms.get_mut(&room) {
            room.told.remove(&user);
            self.untold -= usize::from(room.untold.remove(&user).is_some());
        }
    }

    /// The room is no longer held here.
    pub fn forget(&mut self, id: RoomId) {
        self.to_tell.remove(&id);
        if let Some(room) = self.rooms.remove(&id) {
            self.untold -= room.untold.len();
        }
    }

    /// Forgets everything: it was of another history.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.order.clear();
        self.flight = None;
        self.rooms.clear();
        self.to_tell.clear();
        self.untold = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ROOM: RoomId = RoomId(Uuid::from_u128(7));

    fn user(n: u128) -> UserId {
        UserId(Uuid::from_u128(n))
    }

    fn device(index: u32) -> Device {
        let generation = 0;
        (0, ConnId { index, generation })
    }

    fn mark(read_seq: Seq, delivered_seq: Seq) -> Mark {
        Mark {
            read_seq,
            delivered_seq,
        }
    }

    fn advanced(read_seq: Seq, delivered_seq: Seq) -> ReceiptOutcome {
        ReceiptOutcome::Advanced {
            read_seq,
            delivered_seq,
            is_read: true,
        }
    }

    fn marks(receipts: &mut Receipts, now_ms: u64) -> Vec<(UserId, Mark)> {
        let telling = receipts.tell(ROOM, true, now_ms);
        telling.iter().map(|one| (one.user, one.mark)).collect()
    }

    #[test]
    fn of_many_receipts_only_the_newest_is_written_and_told_once() {
        let mut receipts = Receipts::new(1);
        for seq in 1..100 {
            receipts.take(ROOM, user(1), mark(0, seq), device(1));
        }
        receipts.take(ROOM, user(1), mark(50, 50), device(1));
        let batch = receipts.batch(0, false).expect("a batch");
        let newest = Receipt {
            room: ROOM,
            user: user(1),
            read_seq: 50,
            delivered_seq: 99,
        };
        assert_eq!(batch, [newest]);
        assert_eq!(receipts.to_tell(0), [], "not before it is written");
        assert_eq!(receipts.answered(Some(vec![advanced(50, 99)])), 1);
        assert_eq!(receipts.to_tell(0), [ROOM]);
        assert_eq!(marks(&mut receipts, 0), [(user(1), mark(50, 99))]);
        // What is known costs nothing any more.
        receipts.take(ROOM, user(1), mark(50, 50), device(1));
        assert_eq!(
            (receipts.waiting(), receipts.batch(9_999, false)),
            (0, None)
        );
    }

    #[test]
    fn a_room_is_told_of_once_a_second_and_only_of_what_is_newer() {
        let mut receipts = Receipts::new(1);
        let note = |receipts: &mut Receipts, read_seq| {
            let telling = Telling {
                user: user(1),
                mark: mark(read_seq, read_seq),
                is_own_changed: false,
                by: None,
                is_ours: true,
            };
            receipts.note(ROOM, telling);
        };
        note(&mut receipts, 5);
        assert_eq!(marks(&mut receipts, 0), [(user(1), mark(5, 5))]);
        note(&mut receipts, 7);
        note(&mut receipts, 6);
        assert_eq!(receipts.to_tell(limits::RECEIPTS_MS - 1), []);
        assert_eq!(receipts.to_tell(limits::RECEIPTS_MS), [ROOM]);
        let now_ms = limits::RECEIPTS_MS;
        assert_eq!(marks(&mut receipts, now_ms), [(user(1), mark(7, 7))]);
        note(&mut receipts, 6);
        assert_eq!(receipts.to_tell(9_999), [], "late news of another node");
        receipts.tell_again(ROOM, 9_999);
        assert_eq!(marks(&mut receipts, 9_999), [(user(1), mark(7, 7))]);
        receipts.tell_again(ROOM, now_ms + limits::RECEIPTS_AGAIN_MS);
        assert_eq!(receipts.to_tell(99_999), [], "everybody has read it by now");
    }

    #[test]
    fn what_could_not_be_written_is_given_again_with_what_is_newer() {
        let mut receipts = Receipts::new(1);
        receipts.take(ROOM, user(1), mark(5, 5), device(1));
        receipts.take(ROOM, user(2), mark(5, 5), device(1));
        assert_eq!(receipts.batch(0, false).map(|batch| batch.len()), Some(2));
        receipts.take(ROOM, user(1), mark(6, 6), device(1));
        assert_eq!(receipts.batch(9_999, true), None, "one at a time");
        assert_eq!(receipts.answered(None), 0);
        assert!(receipts.is_idle(), "a store that is away holds nobody up");
        assert_eq!(receipts.batch(limits::RECEIPTS_MS - 1, true), None);
        let batch = receipts.batch(limits::RECEIPTS_MS, false).expect("both");
        let read: Vec<Seq> = batch.iter().map(|receipt| receipt.read_seq).collect();
        assert_eq!(read, [6, 5]);
        receipts.answered(Some(vec![ReceiptOutcome::Busy, ReceiptOutcome::Known]));
        assert!(!receipts.is_idle());
        let batch = receipts.batch(0, true).expect("the one that was busy");
        assert_eq!(batch[0].user, user(1));
        receipts.answered(Some(vec![ReceiptOutcome::NotAMember]));
        assert_eq!(
            (receipts.is_idle(), receipts.to_tell(9_999)),
            (true, vec![])
        );
    }

    #[test]
    fn what_waits_is_bounded_and_the_newest_stay() {
        let mut receipts = Receipts::new(1);
        let all = limits::RECEIPTS_WAITING_MAX as u128 + 10;
        for n in 0..all {
            receipts.take(ROOM, user(n), mark(1, 1), device(1));
        }
        assert_eq!(receipts.waiting(), limits::RECEIPTS_WAITING_MAX);
        let first = receipts.batch(0, false).expect("a full one")[0].user;
        assert_eq!(first, user(10));
        // While they are under way as many others come: those that come back are the oldest.
        for n in all..2 * all {
            receipts.take(ROOM, user(n), mark(1, 1), device(1));
        }
        receipts.answered(None);
        assert_eq!(receipts.waiting(), limits::RECEIPTS_WAITING_MAX);
        for n in 0..limits::RECEIPTS_UNTOLD_MAX as u128 + 10 {
            let telling = Telling {
                user: user(n),
                mark: mark(1, 1),
                is_own_changed: false,
                by: None,
                is_ours: true,
            };
            receipts.note(ROOM, telling);
        }
        assert_eq!(marks(&mut receipts, 0).len(), limits::RECEIPTS_UNTOLD_MAX);
        receipts.left(ROOM, user(3));
        receipts.forget(ROOM);
        assert_eq!(receipts.untold, 0);
    }

    #[test]
    fn the_only_device_by_which_it_changed_is_known() {
        let by = |devices: &[u32]| {
            let mut receipts = Receipts::new(1);
            for (seq, index) in (1..).zip(devices) {
                receipts.take(ROOM, user(1), mark(seq, seq), device(*index));
            }
            receipts.batch(0, false);
            receipts.answered(Some(vec![advanced(9, 9)]));
            receipts.tell(ROOM, true, 0)[0].by
        };
        assert_eq!(by(&[1, 1]), Some(device(1)));
        assert_eq!(by(&[1, 2]), None);
        assert_eq!(by(&[1, 2, 2]), None);
    }
}
