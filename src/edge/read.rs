//! What a socket received: a request in the making, frames, or bytes that nobody waits for.
//!
//! Invariants: every buffer goes back to the ring in the turn it came; a connection in a life
//! that listens has exactly one receive under way.
//!
//! Next: messages go into the core; pongs and closes to [`super::write`].

use super::handshake::{Head, Refused, read_head};
use super::peers::Counted;
use super::slab::{Connection, ControlFrames, Ending, State};
use super::{CLOSE_MS_MAX, CLOSING_MAX, CONTROL_BYTES_MAX, Chat, Edge, after_ms};
use crate::chat::{ConnId, Input};
use crate::limits;
use crate::protocol::CloseCode;
use crate::protocol::websocket::{self, Item, Reader, Stream};
use crate::sys::{self, Event, Lent, Shutdown, Token};
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

impl Edge {
    /// Takes one event of the ring about a socket.
    pub fn take(&mut self, chat: &mut Chat, event: Event) {
        match event {
            Event::Accepted { result, more } => self.accepted(chat, result, more),
            Event::Received {
                token,
                result,
                more,
            } => self.received(chat, token, result, more),
            Event::Writable { token } => self.writable(token),
            Event::Rung { .. } | Event::Timer => (),
        }
    }

    fn received(
        &mut self,
        chat: &mut Chat,
        token: Token,
        result: io::Result<Option<Lent>>,
        more: bool,
    ) {
        let index = token.index;
        let Some(connection) = self.find(token) else {
            // A place is not used again while a request names it.
            unreachable!("a receive outlived its connection");
        };
        connection.receiving = more;
        match result {
            Ok(Some(lent)) => {
                self.stats.bytes_received += lent.bytes() as u64;
                self.bytes(chat, index, &lent);
                self.ring.give_back(lent);
            }
            Ok(None) => self.peer_ended(chat, index),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                self.stats.buffers_missing += 1;
            }
            Err(_) => self.finish(chat, index),
        }
        self.settle(index);
    }

    pub(super) fn find(&mut self, token: Token) -> Option<&mut Connection> {
        self.slab
            .find(token.index, token.generation, Token::GENERATION_MASK)
    }

    /// Sees to it that a connection that listens has a receive under way, and that one that is
    /// over is released when it has none.
    pub(super) fn settle(&mut self, index: u32) {
        let connection = &mut self.slab[index];
        let token = Token {
            index,
            generation: connection.generation,
        };
        let Some(socket) = &connection.socket else {
            return;
        };
        match connection.state() {
            State::Free => (),
            State::Dead => {
                if !connection.receiving && !connection.polling {
                    self.release(index);
                }
            }
            State::Ending(ending) if ending.peer_ended => (),
            State::Handshaking(_) => {
                if !connection.receiving {
                    self.ring.receive_once(socket.as_fd(), token);
                    connection.receiving = true;
                }
            }
            State::Open(_) | State::Ending(_) | State::Lingering { .. } => {
                if !connection.receiving {
                    self.ring.receive(socket.as_fd(), token);
                    connection.receiving = true;
                }
            }
        }
    }

    /// Frees a place, and closes its socket if that is still there.
    fn release(&mut self, index: u32) {
        self.keep_count(index, Counted::default());
        drop(self.slab.release(index));
    }

    fn bytes(&mut self, chat: &mut Chat, index: u32, lent: &Lent) {
        let conn = self.conn(index);
        let connection = &mut self.slab[index];
        if let Some((reader, control)) = connection.reading() {
            let outcome = read_frames(reader, control, conn, chat, self.ring.bytes(lent));
            self.after_frames(chat, index, &outcome);
        } else if let Some(handshaking) = connection.handshaking() {
            let seen = handshaking.bytes.len();
            let mut bytes = std::mem::take(&mut handshaking.bytes);
            bytes.extend_from_slice(self.ring.bytes(lent));
            self.handshake(chat, index, bytes, seen);
        }
    }

    pub(super) fn handshake(
        &mut self,
        chat: &mut Chat,
        index: u32,
        mut bytes: Vec<u8>,
        seen: usize,
    ) {
        match read_head(&bytes, seen, &self.config.origins) {
            Head::Incomplete => {
                if let Some(handshaking) = self.slab[index].handshaking() {
                    handshaking.bytes = bytes;
                }
            }
            Head::Refused(refused) => self.refuse(chat, index, refused),
            Head::Outdated { response } => self.refuse_with(chat, index, &response),
            Head::Http => self.hand_off(chat, index, bytes),
            Head::Upgrade { .. }
                if self.config.connections.load(Ordering::Relaxed)
                    >= self.config.connections_max =>
            {
                self.refuse(chat, index, Refused::Overloaded);
            }
            Head::Upgrade { .. } if unauthenticated(chat) >= limits::UNAUTHENTICATED_MAX => {
                self.refuse(chat, index, Refused::Overloaded);
            }
            Head::Upgrade { head_bytes, .. }
                if !self.may_upgrade(chat, index, &bytes[..head_bytes]) =>
            {
                self.refuse(chat, index, Refused::Crowded);
            }
            Head::Upgrade {
                head_bytes,
                response,
            } => {
                self.note_forwarded(index, &bytes[..head_bytes]);
                self.upgrade(chat, index, &response, &mut bytes[head_bytes..]);
            }
        }
    }

    fn upgrade(&mut self, chat: &mut Chat, index: u32, response: &[u8], rest: &mut [u8]) {
        // A new socket has room for it; one that has not is broken.
        let sent = match &self.slab[index].socket {
            Some(socket) => sys::send(socket.as_fd(), response),
            None => Ok(0),
        };
        if !sent.is_ok_and(|sent| sent == response.len()) {
            return self.finish(chat, index);
        }
        self.stats.upgraded += 1;
        self.slab.set_state(index, State::Open(Reader::default()));
        let conn = self.conn(index);
        self.slab[index].known = true;
        self.config.connections.fetch_add(1, Ordering::Relaxed);
        chat.tell(Input::Opened(conn));
        if let Some((reader, control)) = self.slab[index].reading() {
            let outcome = read_frames(reader, control, conn, chat, rest);
            self.after_frames(chat, index, &outcome);
        }
    }

    fn hand_off(&mut self, chat: &mut Chat, index: u32, bytes: Vec<u8>) {
        let Some(socket) = self.slab[index].socket.take() else {
            return;
        };
        let stream = TcpStream::from(socket);
        let handed = match stream.set_nonblocking(true) {
            Ok(()) => (self.config.handoff)(stream, bytes),
            Err(_) => Err(stream),
        };
        match handed {
            Ok(()) => {
                self.stats.handed_off += 1;
                self.release(index);
            }
            Err(stream) => {
                // The ring wants a blocking one.
                let _broken_then = stream.set_nonblocking(false);
                self.slab[index].socket = Some(OwnedFd::from(stream));
                self.refuse(chat, index, Refused::Overloaded);
            }
        }
    }

    /// Answers a request that does not become a WebSocket, and closes.
    pub(super) fn refuse(&mut self, chat: &mut Chat, index: u32, refused: Refused) {
        self.refuse_with(chat, index, &refused.response());
    }

    fn refuse_with(&mut self, chat: &mut Chat, index: u32, response: &[u8]) {
        self.stats.refused += 1;
        if let Some(socket) = &self.slab[index].socket {
            let _broken = sys::send(socket.as_fd(), response);
            sys::shutdown(socket, Shutdown::Write);
        }
        self.linger(chat, index);
    }

    /// Waits for the peer to end its side.
    pub(super) fn linger(&mut self, chat: &mut Chat, index: u32) {
        if self.slab.closing() >= CLOSING_MAX {
            return self.finish(chat, index);
        }
        let deadline_us = after_ms(chat.now, CLOSE_MS_MAX);
        self.slab.set_state(index, State::Lingering { deadline_us });
    }

    fn after_frames(&mut self, chat: &Chat, index: u32, outcome: &Outcome) {
        match outcome.end {
            None => (),
            Some(End::Peer(code)) => self.end(chat, index, code, ""),
            Some(End::Violation(code)) => {
                self.stats.violations += 1;
                self.end(chat, index, Some(code as u16), code.reason());
            }
        }
        if outcome.answers {
            self.mark_dirty(index);
        }
    }

    /// Writes what is left and then a close frame, from the end of this turn on. Nothing that is
    /// received from now on counts.
    pub(super) fn end(&mut self, chat: &Chat, index: u32, code: Option<u16>, reason: &'static str) {
        let ending = Ending {
            code,
            reason,
            queued: false,
            peer_ended: false,
            deadline_us: after_ms(chat.now, CLOSE_MS_MAX),
        };
        self.slab.set_state(index, State::Ending(Box::new(ending)));
        self.mark_dirty(index);
    }

    fn peer_ended(&mut self, chat: &mut Chat, index: u32) {
        match self.slab[index].ending() {
            // The answer to its close frame may not be written yet.
            Some(ending) => ending.peer_ended = true,
            None => self.finish(chat, index),
        }
    }

    /// The connection is over: the core is told, and the socket is closed as soon as nothing
    /// names it.
    pub(super) fn finish(&mut self, chat: &mut Chat, index: u32) {
        self.forget(chat, index);
        self.slab.set_state(index, State::Dead);
        let connection = &self.slab[index];
        if let Some(socket) = &connection.socket
            && (connection.receiving || connection.polling)
        {
            // Ends the requests under way.
            sys::shutdown(socket, Shutdown::Both);
        }
        self.settle(index);
    }

    /// Tells the core, if it was not told, that the connection is gone.
    pub(super) fn forget(&mut self, chat: &mut Chat, index: u32) {
        let conn = self.conn(index);
        if std::mem::take(&mut self.slab[index].known) {
            self.config.connections.fetch_sub(1, Ordering::Relaxed);
            chat.tell(Input::Closed(conn));
        }
    }

    pub(super) fn overdue(&mut self, chat: &mut Chat, index: u32) {
        match self.slab[index].state() {
            State::Handshaking(_) => self.refuse(chat, index, Refused::Timeout),
            State::Ending(_) | State::Lingering { .. } => self.finish(chat, index),
            State::Free | State::Open(_) | State::Dead => (),
        }
        self.settle(index);
    }
}

/// WebSockets of this shard that are not ready.
fn unauthenticated(chat: &Chat) -> u64 {
    let stats = chat.core.stats();
    stats.connections.saturating_sub(stats.sessions)
}

/// What the frames of one chunk ask of the driver.
#[derive(Default)]
struct Outcome {
    end: Option<End>,
    /// There are control frames to be written.
    answers: bool,
}

/// How a stream of frames ended.
#[derive(Clone, Copy)]
enum End {
    /// By the peer's close frame, which is answered with the same code.
    Peer(Option<u16>),
    /// By something that may not be.
    Violation(CloseCode),
}

fn read_frames(
    reader: &mut Reader,
    control: &mut Option<Box<ControlFrames>>,
    conn: ConnId,
    chat: &mut Chat,
    bytes: &mut [u8],
) -> Outcome {
    let mut outcome = Outcome::default();
    let read = reader.read(bytes, |item| match item {
        Item::Text(text) => chat.tell(Input::Text(conn, text)),
        Item::Binary(bytes) => chat.tell(Input::Binary(conn, bytes)),
        Item::Ping(payload) => {
            outcome.answers = true;
            control.get_or_insert_default().pong(payload);
            chat.tell(Input::Heard(conn));
        }
        Item::Pong => chat.tell(Input::Heard(conn)),
        Item::Close(code) => outcome.end = Some(End::Peer(code)),
    });
    match read {
        Ok(Stream::Open) => (),
        Ok(Stream::Closed) => assert!(outcome.end.is_some(), "a close frame has its item"),
        Err(code) => outcome.end = Some(End::Violation(code)),
    }
    outcome
}

impl ControlFrames {
    fn pong(&mut self, payload: &[u8]) {
        if self.bytes.len() + payload.len() > CONTROL_BYTES_MAX {
            if self.begun {
                return;
            }
            self.bytes.clear();
        }
        websocket::append_pong(payload, &mut self.bytes);
    }
}
