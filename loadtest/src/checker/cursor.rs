//! How far one client is in one room: its position (what it has), and the stream of the present
//! connection (what must come next).
//!
//! Invariants: the position never falls but by [`Cursor::rewind`]; it moves by events in order, or by
//! the last page of the history, never by an ack. On one connection every `seq` comes once, in order, without
//! a hole, beginning after what `ready` said.

use crate::limits::MISSING_PER_CURSOR_MAX;

#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// False until the client heard of the room for the first time.
    pub is_joined: bool,
    pub position: u64,
    /// The last `seq` of the present connection's stream.
    stream: u64,
    /// The history is being paged; the position moves only with its last page.
    pub is_catching_up: bool,
    /// Where the next page goes on. No position to resume from before the last page: what was
    /// changed before it and once more after it comes with a later page only.
    paged: u64,
    /// Holes of the stream that may still be filled, late.
    missing: Vec<u64>,
    /// Holes that were never filled on their connection.
    lost: u64,
}

/// What an event meant to the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// New: the position moved to it.
    New,
    /// In order on this connection, but known from before, or held while catching up.
    Known,
    /// In order after a hole of so many events.
    AfterGap(u64),
    /// It had been skipped before.
    Late,
    /// It had come before on this connection.
    Doubled,
}

impl Cursor {
    /// The client takes part from after `last_seq` on.
    pub fn join(&mut self, last_seq: u64) {
        self.is_joined = true;
        self.position = last_seq;
        self.stream = last_seq;
    }

    /// A new connection whose stream begins after `stream`.
    pub fn begin_stream(&mut self, stream: u64) {
        self.lost += self.missing.len() as u64;
        self.missing.clear();
        self.stream = stream;
        self.is_catching_up = false;
    }

    pub fn begin_catching_up(&mut self) {
        self.is_catching_up = true;
        self.paged = self.position;
    }

    /// Where the next page begins.
    pub fn page_after(&self) -> u64 {
        self.paged
    }

    pub fn arrive(&mut self, seq: u64) -> Step {
        if seq <= self.stream {
            return match self.missing.iter().position(|missing| *missing == seq) {
                Some(place) => {
                    self.missing.swap_remove(place);
                    Step::Late
                }
                None => Step::Doubled,
            };
        }
        let skipped = seq - self.stream - 1;
        let room = MISSING_PER_CURSOR_MAX.saturating_sub(self.missing.len()) as u64;
        let remembered = skipped.min(room);
        self.missing
            .extend(self.stream + 1..self.stream + 1 + remembered);
        self.lost += skipped - remembered;
        self.stream = seq;
        let is_new = !self.is_catching_up && seq > self.position;
        if is_new {
            // After a hole too: the hole itself is the finding, and a client that stood still
            // would only hide what follows.
            self.position = seq;
        }
        match (skipped, is_new) {
            (0, true) => Step::New,
            (0, false) => Step::Known,
            (skipped, _) => Step::AfterGap(skipped),
        }
    }

    /// A page of the history goes on at `next_after_seq`. With the last page the position moves, and
    /// the stream, which runs on from before that page was read, continues without a seam.
    pub fn page(&mut self, next_after_seq: u64, is_last: bool) {
        self.paged = self.paged.max(next_after_seq);
        if is_last {
            self.position = self.position.max(self.paged).max(self.stream);
            self.is_catching_up = false;
        }
    }

    /// The server said openly that it skipped up to `last_seq`; the history fills the hole.
    pub fn told_gap(&mut self, last_seq: u64) {
        self.stream = self.stream.max(last_seq);
        if !self.is_catching_up {
            self.begin_catching_up();
        }
    }

    /// Pretends that the last `count` events were never received, down to `floor`.
    pub fn rewind(&mut self, count: u64, floor: u64) {
        self.position = self.position.saturating_sub(count).max(floor);
    }

    /// Events that this client never got, though the stream went past them.
    pub fn lost(&self) -> u64 {
        self.lost + self.missing.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(last_seq: u64) -> Cursor {
        let mut cursor = Cursor::default();
        cursor.join(last_seq);
        cursor
    }

    #[test]
    fn events_in_order_move_the_position() {
        let mut cursor = joined(3);
        assert_eq!([4, 5, 6].map(|seq| cursor.arrive(seq)), [Step::New; 3]);
        assert_eq!((cursor.position, cursor.lost()), (6, 0));
    }

    #[test]
    fn a_hole_filled_late_is_out_of_order_but_not_lost() {
        let mut cursor = joined(0);
        assert_eq!(cursor.arrive(2), Step::AfterGap(1));
        assert_eq!(cursor.lost(), 1);
        assert_eq!(cursor.arrive(1), Step::Late);
        assert_eq!(cursor.lost(), 0);
        assert_eq!(cursor.arrive(1), Step::Doubled);
    }

    #[test]
    fn a_hole_left_behind_by_a_reconnect_stays_lost() {
        let mut cursor = joined(0);
        assert_eq!(cursor.arrive(3), Step::AfterGap(2));
        cursor.begin_stream(3);
        assert_eq!(cursor.arrive(4), Step::New);
        assert_eq!(cursor.lost(), 2);
    }

    #[test]
    fn while_catching_up_only_the_last_page_moves_the_position() {
        let mut cursor = joined(10);
        cursor.begin_stream(100);
        cursor.begin_catching_up();
        assert_eq!(cursor.arrive(101), Step::Known);
        assert_eq!(cursor.position, 10);
        cursor.page(60, false);
        assert_eq!((cursor.position, cursor.page_after()), (10, 60));
        cursor.page(100, true);
        assert_eq!(cursor.position, 101);
        assert_eq!(cursor.arrive(102), Step::New);
    }

    #[test]
    fn what_the_last_page_already_held_is_known_when_it_comes_live() {
        let mut cursor = joined(10);
        cursor.begin_stream(20);
        cursor.begin_catching_up();
        cursor.page(22, true);
        assert_eq!(cursor.arrive(21), Step::Known);
        assert_eq!(cursor.arrive(22), Step::Known);
        assert_eq!(cursor.arrive(23), Step::New);
    }

    #[test]
    fn an_open_gap_is_filled_by_the_history() {
        let mut cursor = joined(5);
        cursor.told_gap(9);
        assert_eq!(cursor.arrive(10), Step::Known);
        cursor.page(10, true);
        assert_eq!((cursor.position, cursor.lost()), (10, 0));
    }

    #[test]
    fn remembered_holes_are_bounded_and_all_are_counted() {
        let mut cursor = joined(0);
        let far = 10 * MISSING_PER_CURSOR_MAX as u64;
        assert_eq!(cursor.arrive(far), Step::AfterGap(far - 1));
        assert_eq!(cursor.lost(), far - 1);
        assert_eq!(cursor.missing.len(), MISSING_PER_CURSOR_MAX);
    }
}
