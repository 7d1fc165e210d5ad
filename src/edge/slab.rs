//! The places of a shard's connections.
//!
//! Invariants: small numbers are used again first, so that arrays indexed by them stay dense; a
//! place is free only when no request names its descriptor; 40 bytes a place.

use crate::protocol::websocket::Reader;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::{Index, IndexMut};
use std::os::fd::OwnedFd;

/// One place.
#[derive(Debug, Default)]
pub struct Connection {
    /// The socket; there from accept to release.
    pub socket: Option<OwnedFd>,
    /// How often the place was used before.
    pub generation: u32,
    /// Where the connection is in its life. Changed by [`Slab::set_state`] only.
    state: State,
    /// Pongs and the close frame, which wait for the end of a frame.
    pub control: Option<Box<ControlFrames>>,
    /// A receive is under way.
    pub receiving: bool,
    /// A poll for room is under way.
    pub polling: bool,
    /// It is in the list of those to be written.
    pub dirty: bool,
    /// The core heard `Opened` and not yet `Closed`.
    pub known: bool,
    /// The last send may have ended within a frame of the outbox.
    pub mid_frame: bool,
}

/// The rare frames that the driver makes itself.
#[derive(Debug, Default)]
pub struct ControlFrames {
    /// Whole frames, or the rest of one that was begun and whole ones.
    pub bytes: Vec<u8>,
    /// The first one was begun.
    pub begun: bool,
}

/// Where a connection is in its life.
#[derive(Debug, Default)]
pub enum State {
    /// There is none.
    #[default]
    Free,
    /// Its request is not whole; received once at a time, so that the socket can be given away.
    Handshaking(Box<Handshaking>),
    /// A WebSocket.
    Open(Reader),
    /// What is left is written, then a close frame; what is received is discarded.
    Ending(Box<Ending>),
    /// Nothing is written any more; what is received is discarded until the peer ends its side,
    /// because closing a socket with unread bytes destroys what is still on its way to the peer.
    Lingering {
        /// When to wait no longer, µs.
        deadline_us: u64,
    },
    /// Over, but a request under way still names the socket.
    Dead,
}

/// A request in the making.
#[derive(Debug)]
pub struct Handshaking {
    /// What was received of it.
    pub bytes: Vec<u8>,
    /// When to wait no longer, µs.
    pub deadline_us: u64,
}

/// A close in the making.
#[derive(Debug)]
pub struct Ending {
    /// The code to send; none answers a close frame without one.
    pub code: Option<u16>,
    /// The reason to send.
    pub reason: &'static str,
    /// The close frame is among the control frames, or sent.
    pub queued: bool,
    /// The peer has ended its side already.
    pub peer_ended: bool,
    /// When to wait no longer, µs.
    pub deadline_us: u64,
}

const _: () = assert!(size_of::<Connection>() <= 40);

impl Connection {
    /// Where the connection is in its life.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The reader, if it is open, and the control frames, which grow by what is read.
    pub fn reading(&mut self) -> Option<(&mut Reader, &mut Option<Box<ControlFrames>>)> {
        match &mut self.state {
            State::Open(reader) => Some((reader, &mut self.control)),
            _ => None,
        }
    }

    /// The request in the making.
    pub fn handshaking(&mut self) -> Option<&mut Handshaking> {
        match &mut self.state {
            State::Handshaking(handshaking) => Some(handshaking),
            _ => None,
        }
    }

    /// The close in the making.
    pub fn ending(&mut self) -> Option<&mut Ending> {
        match &mut self.state {
            State::Ending(ending) => Some(ending),
            _ => None,
        }
    }
}

/// All places.
#[derive(Debug, Default)]
pub struct Slab {
    places: Vec<Connection>,
    free: BinaryHeap<Reverse<u32>>,
    handshaking: usize,
    open: usize,
    closing: usize,
}

impl Slab {
    /// Takes a place for a new socket.
    pub fn insert(&mut self, socket: OwnedFd, state: State) -> u32 {
        let index = match self.free.pop() {
            Some(Reverse(index)) => index,
            None => {
                self.places.push(Connection::default());
                (self.places.len() - 1) as u32
            }
        };
        self[index].socket = Some(socket);
        self.set_state(index, state);
        index
    }

    /// Frees a place; gives the socket, which is closed when it is dropped.
    pub fn release(&mut self, index: u32) -> Option<OwnedFd> {
        self.set_state(index, State::Free);
        let connection = &mut self[index];
        assert!(
            !connection.receiving && !connection.polling,
            "a request names the socket"
        );
        assert!(!connection.known, "the core was not told");
        let socket = connection.socket.take();
        let dirty = connection.dirty;
        *connection = Connection {
            generation: connection.generation.wrapping_add(1),
            // Still in the list, which is looked through at the end of the turn.
            dirty,
            ..Connection::default()
        };
        self.free.push(Reverse(index));
        socket
    }

    /// Moves a connection on in its life; gives the state it was in.
    pub fn set_state(&mut self, index: u32, state: State) -> State {
        if let Some(count) = self.count_of(&state) {
            *count += 1;
        }
        let before = std::mem::replace(&mut self[index].state, state);
        if let Some(count) = self.count_of(&before) {
            *count -= 1;
        }
        before
    }

    fn count_of(&mut self, state: &State) -> Option<&mut usize> {
        match state {
            State::Handshaking(_) => Some(&mut self.handshaking),
            State::Open(_) => Some(&mut self.open),
            State::Ending(_) | State::Lingering { .. } => Some(&mut self.closing),
            State::Free | State::Dead => None,
        }
    }

    /// A place by its number and generation, both as a completion tells them.
    pub fn find(&mut self, index: u32, generation: u32, mask: u32) -> Option<&mut Connection> {
        self.places
            .get_mut(index as usize)
            .filter(|place| place.generation & mask == generation & mask)
    }

    /// How many requests are in the making.
    pub fn handshaking(&self) -> usize {
        self.handshaking
    }

    /// How many WebSockets are open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// How many places are taken.
    pub fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connections are being closed.
    pub fn closing(&self) -> usize {
        self.closing
    }

    /// Whether any connection is in a state that may not last.
    pub fn has_deadlines(&self) -> bool {
        self.handshaking + self.closing > 0
    }

    /// The connections whose state has lasted too long.
    pub fn overdue(&self, now_us: u64) -> Vec<u32> {
        let overdue = |place: &Connection| match &place.state {
            State::Handshaking(handshaking) => handshaking.deadline_us <= now_us,
            State::Ending(ending) => ending.deadline_us <= now_us,
            State::Lingering { deadline_us } => *deadline_us <= now_us,
            State::Free | State::Open(_) | State::Dead => false,
        };
        self.select(overdue)
    }

    /// The connections whose request is in the making and due by then.
    pub fn handshakes_due(&self, by_us: u64) -> Vec<u32> {
        self.select(|place| match &place.state {
            State::Handshaking(handshaking) => handshaking.deadline_us <= by_us,
            _ => false,
        })
    }

    fn select(&self, wanted: impl Fn(&Connection) -> bool) -> Vec<u32> {
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, place)| wanted(place))
            .map(|(index, _)| index as u32)
            .collect()
    }
}

impl Index<u32> for Slab {
    type Output = Connection;

    fn index(&self, index: u32) -> &Connection {
        &self.places[index as usize]
    }
}

impl IndexMut<u32> for Slab {
    fn index_mut(&mut self, index: u32) -> &mut Connection {
        &mut self.places[index as usize]
    }
}
