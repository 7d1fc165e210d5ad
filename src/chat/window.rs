//! The window of a room: its newest released events, encoded, for those who come back.
//!
//! Invariants: the events are contiguous and end at the gate's `released`; at most
//! [`limits::REPLAY_EVENTS_MAX`] and [`limits::REPLAY_BYTES_MAX`], so that "the window covers it"
//! and "it may be replayed" are one question.

use super::frame::Frame;
use crate::limits;
use crate::protocol::Seq;
use std::collections::VecDeque;

/// The window of one room.
#[derive(Debug, Default)]
pub struct Window {
    /// `seq` of the first frame, if there is one.
    first: Seq,
    frames: VecDeque<Frame>,
    bytes: usize,
}

impl Window {
    /// Appends the event after the last one; drops the oldest ones that are too many.
    pub fn push(&mut self, seq: Seq, frame: Frame) {
        if self.frames.is_empty() {
            self.first = seq;
        }
        assert_eq!(
            self.first + self.frames.len() as u64,
            seq,
            "a window has no gap"
        );
        self.bytes += frame.len();
        self.frames.push_back(frame);
        while self.frames.len() > limits::REPLAY_EVENTS_MAX || self.bytes > limits::REPLAY_BYTES_MAX
        {
            let Some(oldest) = self.frames.pop_front() else {
                return;
            };
            self.bytes -= oldest.len();
            self.first += 1;
        }
    }

    /// Puts an event before the first one, if it is the one that is missing there and fits.
    pub fn push_front(&mut self, seq: Seq, frame: Frame) -> bool {
        let fits = self.frames.len() < limits::REPLAY_EVENTS_MAX
            && self.bytes + frame.len() <= limits::REPLAY_BYTES_MAX;
        if self.frames.is_empty() || seq + 1 != self.first || !fits {
            return false;
        }
        self.first = seq;
        self.bytes += frame.len();
        self.frames.push_front(frame);
        true
    }

    /// Whether every event after `after`, up to the last one, is here.
    pub fn covers(&self, after: Seq) -> bool {
        !self.frames.is_empty() && after + 1 >= self.first
    }

    /// The events after `after`, oldest first; none if not all of them are here.
    pub fn after(&self, after: Seq) -> impl Iterator<Item = (Seq, &Frame)> {
        let skip = match self.covers(after) {
            true => usize::try_from(after + 1 - self.first).unwrap_or(usize::MAX),
            false => self.frames.len(),
        };
        (self.first..).zip(&self.frames).skip(skip)
    }

    /// The frame of this event.
    pub fn get(&self, seq: Seq) -> Option<&Frame> {
        let index = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.frames.get(index)
    }

    /// Whether this event is here.
    pub fn holds(&self, seq: Seq) -> bool {
        self.get(seq).is_some()
    }

    /// `seq` of the oldest event that is here, if any is.
    pub fn first(&self) -> Option<Seq> {
        (!self.frames.is_empty()).then_some(self.first)
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Window::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::frame::{Class, Stamps};

    fn frame(len: usize) -> Frame {
        Frame::encoded(vec![0; len].into(), Class::Durable, Stamps::default())
    }

    fn seqs(window: &Window, after: Seq) -> Vec<Seq> {
        window.after(after).map(|(seq, _)| seq).collect()
    }

    #[test]
    fn the_newest_events_are_kept() {
        let mut window = Window::default();
        assert!(!window.covers(0) && seqs(&window, 0).is_empty());
        for seq in 5..=8 {
            window.push(seq, frame(10));
        }
        assert!(window.covers(4) && window.covers(8) && !window.covers(3));
        assert_eq!(seqs(&window, 6), [7, 8]);
        assert_eq!(seqs(&window, 2), Vec::<Seq>::new());
        assert!(window.push_front(4, frame(1)) && !window.push_front(2, frame(1)));
        assert_eq!(seqs(&window, 3).len(), 5);
        for seq in 9..=1_000 {
            window.push(seq, frame(1));
        }
        assert_eq!(
            seqs(&window, 1_000 - limits::REPLAY_EVENTS_MAX as u64)[0],
            701
        );
        assert_eq!(window.bytes(), limits::REPLAY_EVENTS_MAX);
        window.push(1_001, frame(limits::REPLAY_BYTES_MAX));
        assert_eq!(seqs(&window, 1_000), [1_001]);
        assert!(window.get(1_001).is_some() && window.get(1_002).is_none());
    }
}
