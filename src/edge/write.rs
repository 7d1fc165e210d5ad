//! Writes outboxes to sockets: one send for everything that a turn produced for a connection.
//!
//! Invariants: a frame is never interrupted by another; after a send that took less than there
//! was, nothing is sent until the socket has room, and one poll waits for that; the close frame is
//! the last, after which the direction is ended at once.
//!
//! Plain `send` calls: requests on the ring for the same were 1.5 % dearer (see
//! docs/decisions/0003).

use super::slab::{ControlFrames, State};
use super::{Chat, Edge, SEND_BYTES_MAX, SENDS_PER_FLUSH};
use crate::chat::ConnId;
use crate::protocol::{CloseCode, websocket};
use crate::sys::{self, Shutdown, Token};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// What one send came to.
enum Sent {
    /// Nothing is left.
    All,
    /// There is more, and there may be room.
    Some,
    /// There is no room now.
    Short,
    /// The socket is broken.
    Broken,
}

impl Edge {
    /// The core has something to write to a connection.
    pub fn want_flush(&mut self, conn: ConnId) {
        if self.is_current(conn) {
            self.mark_dirty(conn.index);
        }
    }

    /// The core wants a connection closed.
    pub fn close(&mut self, chat: &Chat, conn: ConnId, code: CloseCode) {
        if self.is_current(conn) && matches!(self.slab[conn.index].state(), State::Open(_)) {
            self.end(chat, conn.index, Some(code as u16), code.reason());
        }
    }

    fn is_current(&mut self, conn: ConnId) -> bool {
        self.slab
            .find(conn.index, conn.generation, u32::MAX)
            .is_some()
    }

    /// Writes every connection that has something to write. Once a turn.
    pub fn flush(&mut self, chat: &mut Chat) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            self.slab[index].dirty = false;
            self.flush_one(chat, index);
        }
        // Those that are to go on in the next turn were put into the new list.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    fn flush_one(&mut self, chat: &mut Chat, index: u32) {
        match self.slab[index].state() {
            State::Open(_) | State::Ending(_) => (),
            State::Free | State::Handshaking(_) | State::Lingering { .. } | State::Dead => return,
        }
        for _ in 0..SENDS_PER_FLUSH {
            match self.send_once(chat, index) {
                Sent::All => {
                    if !self.queue_close(index) {
                        return self.written_all(chat, index);
                    }
                }
                Sent::Some => (),
                Sent::Short => return self.poll_writable(index),
                Sent::Broken => return self.finish(chat, index),
            }
        }
        self.mark_dirty(index);
    }

    fn send_once(&mut self, chat: &mut Chat, index: u32) -> Sent {
        let conn = self.conn(index);
        let connection = &mut self.slab[index];
        let Some(socket) = &connection.socket else {
            return Sent::Broken;
        };
        let outbox = chat.core.outbox(conn).filter(|outbox| !outbox.is_empty());
        let control_bytes = match &connection.control {
            // Between frames only: at the end of one, or further into itself.
            Some(control) if control.begun || !connection.mid_frame || outbox.is_none() => {
                &control.bytes[..]
            }
            Some(_) | None => &[],
        };
        let (bytes, whole_frame) = match outbox {
            None if control_bytes.is_empty() => return Sent::All,
            // The common case, which copies nothing.
            Some(outbox) if control_bytes.is_empty() && !outbox.several() => (outbox.first(), true),
            outbox => {
                self.scratch.clear();
                self.scratch.extend_from_slice(control_bytes);
                if let Some(outbox) = outbox {
                    outbox.fill(&mut self.scratch, SEND_BYTES_MAX);
                }
                (&self.scratch[..], false)
            }
        };
        self.stats.sends += 1;
        let sent = match send(socket.as_fd(), bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Sent::Broken,
        };
        let short = sent < bytes.len();
        let from_control = sent.min(control_bytes.len());
        if from_control > 0 {
            connection.control = connection
                .control
                .take()
                .and_then(|control| control.rest(from_control));
        }
        if sent > from_control {
            chat.core
                .written(chat.now, conn, sent - from_control, &mut chat.effects);
        }
        let left = chat
            .core
            .outbox(conn)
            .is_some_and(|outbox| !outbox.is_empty());
        if sent > from_control {
            connection.mid_frame = left && (short || !whole_frame);
        }
        if short {
            self.stats.sends_short += 1;
            Sent::Short
        } else if left || connection.control.is_some() {
            Sent::Some
        } else {
            Sent::All
        }
    }

    /// Puts the close frame behind everything else, if the connection is to be closed and it is
    /// not there yet.
    fn queue_close(&mut self, index: u32) -> bool {
        let connection = &mut self.slab[index];
        let Some(ending) = connection.ending().filter(|ending| !ending.queued) else {
            return false;
        };
        ending.queued = true;
        let (code, reason) = (ending.code, ending.reason);
        let control = connection.control.get_or_insert_default();
        websocket::append_close(code, reason, &mut control.bytes);
        true
    }

    /// Nothing is left to write: a connection that is to be closed ends its direction.
    fn written_all(&mut self, chat: &mut Chat, index: u32) {
        let connection = &mut self.slab[index];
        let Some(ending) = connection.ending() else {
            return;
        };
        let peer_ended = ending.peer_ended;
        if let Some(socket) = &connection.socket {
            sys::shutdown(socket, Shutdown::Write);
        }
        if peer_ended {
            self.finish(chat, index);
        } else {
            // Nothing more can be written, so the core need not wait for the peer.
            self.forget(chat, index);
            self.linger(chat, index);
        }
    }

    fn poll_writable(&mut self, index: u32) {
        let connection = &mut self.slab[index];
        if let Some(socket) = &connection.socket
            && !connection.polling
        {
            let token = Token {
                index,
                generation: connection.generation,
            };
            self.ring.poll_writable(socket.as_fd(), token);
            connection.polling = true;
        }
    }

    pub(super) fn writable(&mut self, token: Token) {
        let Some(connection) = self.find(token) else {
            // A place is not used again while a request names it.
            unreachable!("a poll outlived its connection");
        };
        connection.polling = false;
        self.mark_dirty(token.index);
        self.settle(token.index);
    }
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match sys::send(socket, bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            result => return result,
        }
    }
}

impl ControlFrames {
    /// What is left after so many bytes went out.
    fn rest(mut self: Box<Self>, bytes: usize) -> Option<Box<Self>> {
        self.bytes.drain(..bytes);
        self.begun = true;
        (!self.bytes.is_empty()).then_some(self)
    }
}
