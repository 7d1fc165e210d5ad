//! The queue of one connection: references to shared frames, with a budget in bytes.
//!
//! Invariants: frames leave in the order they came; a durable frame is never dropped silently:
//! when it does not fit, [`Outbox::push`] says so and the connection must be closed 4200; the
//! first frame is never dropped or replaced once a part of it was written.
//!
//! Next: the driver takes the bytes ([`Outbox::fill`]) and tells how many went out
//! ([`Outbox::written`]).

use super::frame::{Class, Frame};
use std::collections::VecDeque;

/// Frames that are kept allocated for an idle connection; more is given back.
const IDLE_CAPACITY: usize = 8;

/// The queue of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    frames: VecDeque<Frame>,
    /// Bytes of `frames` not yet written.
    bytes: usize,
    /// Bytes of the first frame already written.
    offset: usize,
}

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Pushed {
    /// It is in the queue.
    Queued,
    /// It, or what could be given up for it, was dropped by its class.
    Dropped,
    /// A durable frame does not fit: the connection must be closed.
    Full,
}

impl Outbox {
    /// Appends a frame, if the queue then holds at most `bytes_max`; makes room by dropping what
    /// is ephemeral.
    pub fn push(&mut self, frame: &Frame, bytes_max: usize) -> Pushed {
        if let Class::Coalescible(key) = frame.class() {
            self.remove_key(key);
        }
        if self.bytes + frame.len() > bytes_max {
            match frame.class() {
                Class::Ephemeral => return Pushed::Dropped,
                Class::Coalescible(_) | Class::Durable => {
                    self.remove_where(|class| class == Class::Ephemeral);
                    if self.bytes + frame.len() > bytes_max {
                        return match frame.class() {
                            Class::Durable => Pushed::Full,
                            Class::Coalescible(_) | Class::Ephemeral => Pushed::Dropped,
                        };
                    }
                }
            }
        }
        self.bytes += frame.len();
        self.frames.push_back(frame.clone());
        Pushed::Queued
    }

    /// Bytes waiting.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// What is left of the first frame: all there is to write in the common case of one frame.
    pub fn first(&self) -> &[u8] {
        self.frames
            .front()
            .map_or(&[], |frame| &frame.bytes()[self.offset..])
    }

    /// Whether more than one frame waits.
    pub fn several(&self) -> bool {
        self.frames.len() > 1
    }

    /// Appends the waiting bytes to `buffer` until it holds `buffer_max`.
    pub fn fill(&self, buffer: &mut Vec<u8>, buffer_max: usize) {
        let mut offset = self.offset;
        for frame in &self.frames {
            let bytes = &frame.bytes()[offset..];
            offset = 0;
            let room = buffer_max.saturating_sub(buffer.len());
            if room == 0 {
                return;
            }
            buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    /// Takes note that this many bytes went out; calls `gone` with each frame that is now
    /// written whole.
    pub fn written(&mut self, mut bytes: usize, mut gone: impl FnMut(&Frame)) {
        assert!(bytes <= self.bytes, "more was written than there was");
        self.bytes -= bytes;
        while bytes > 0 {
            let Some(front) = self.frames.front() else {
                break;
            };
            let rest = front.len() - self.offset;
            if bytes < rest {
                self.offset += bytes;
                return;
            }
            bytes -= rest;
            self.offset = 0;
            if let Some(frame) = self.frames.pop_front() {
                gone(&frame);
            }
        }
        if self.frames.is_empty() && self.frames.capacity() > IDLE_CAPACITY {
            self.frames = VecDeque::new();
        }
    }

    /// Drops everything but the rest of a frame that was begun: what a connection that is being
    /// closed may still hold, so that a close frame can follow.
    pub fn abandon(&mut self) {
        let keep = usize::from(self.offset > 0);
        self.frames.truncate(keep);
        self.frames.shrink_to(keep);
        self.bytes = self.first().len();
    }

    fn remove_key(&mut self, key: u64) {
        self.remove_where(|class| class == Class::Coalescible(key));
    }

    fn remove_where(&mut self, unwanted: impl Fn(Class) -> bool) {
        let (begun, mut index, mut removed) = (self.offset > 0, 0, 0);
        self.frames.retain(|frame| {
            let keep = (begun && index == 0) || !unwanted(frame.class());
            index += 1;
            removed += if keep { 0 } else { frame.len() };
            keep
        });
        self.bytes -= removed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::frame::Stamps;

    fn frame(text: &str, class: Class) -> Frame {
        Frame::encoded(text.as_bytes().into(), class, Stamps::default())
    }

    fn content(outbox: &Outbox) -> String {
        let mut buffer = Vec::new();
        outbox.fill(&mut buffer, usize::MAX);
        assert_eq!(buffer.len(), outbox.bytes());
        String::from_utf8(buffer).expect("ascii")
    }

    #[test]
    fn frames_leave_in_order_and_in_parts() {
        let mut outbox = Outbox::default();
        for text in ["abc", "def", "g"] {
            assert_eq!(
                outbox.push(&frame(text, Class::Durable), 100),
                Pushed::Queued
            );
        }
        let mut gone = Vec::new();
        outbox.written(4, |frame| gone.push(frame.bytes().to_vec()));
        assert_eq!(gone, [b"abc".to_vec()]);
        assert_eq!(
            (content(&outbox).as_str(), outbox.first()),
            ("efg", &b"ef"[..])
        );
        let mut buffer = vec![b'x'];
        outbox.fill(&mut buffer, 3);
        assert_eq!(buffer, b"xef");
        outbox.written(3, |_| ());
        assert!(outbox.is_empty() && outbox.first().is_empty());
    }

    #[test]
    fn ephemeral_goes_first_then_durable_closes() {
        let mut outbox = Outbox::default();
        assert_eq!(
            outbox.push(&frame("ping", Class::Ephemeral), 10),
            Pushed::Queued
        );
        assert_eq!(
            outbox.push(&frame("12345", Class::Durable), 10),
            Pushed::Queued
        );
        assert_eq!(
            outbox.push(&frame("pong", Class::Ephemeral), 10),
            Pushed::Dropped
        );
        assert_eq!(
            outbox.push(&frame("67890", Class::Durable), 10),
            Pushed::Queued
        );
        assert_eq!(content(&outbox), "1234567890");
        assert_eq!(outbox.push(&frame("!", Class::Durable), 10), Pushed::Full);
        assert_eq!(content(&outbox), "1234567890");
    }

    #[test]
    fn of_a_coalescible_key_only_the_newest_stays() {
        let mut outbox = Outbox::default();
        for (text, key) in [("a1", 1), ("b1", 2), ("a2", 1)] {
            assert_eq!(
                outbox.push(&frame(text, Class::Coalescible(key)), 10),
                Pushed::Queued
            );
        }
        assert_eq!(content(&outbox), "b1a2");
        assert_eq!(
            outbox.push(&frame("123456789", Class::Coalescible(3)), 10),
            Pushed::Dropped
        );
    }

    #[test]
    fn a_frame_that_was_begun_is_never_taken_back() {
        let mut outbox = Outbox::default();
        assert_eq!(
            outbox.push(&frame("a1", Class::Coalescible(1)), 10),
            Pushed::Queued
        );
        outbox.written(1, |_| ());
        assert_eq!(
            outbox.push(&frame("a2", Class::Coalescible(1)), 10),
            Pushed::Queued
        );
        assert_eq!(content(&outbox), "1a2");
        outbox.abandon();
        assert_eq!(content(&outbox), "1");
        outbox.written(1, |_| ());
        outbox.abandon();
        assert!(outbox.is_empty());
    }
}
