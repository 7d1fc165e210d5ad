//! Accepts connections, and stops doing so for a while when the process has no descriptors left.
//!
//! Invariants: one accept is under way while the listener is open, unless paused; a pause ends by
//! itself; a closed listener is released only when the accept under way has ended.
//!
//! Next: the first bytes decide in [`super::handshake`].

use super::handshake::{Refused, forwarded_for};
use super::peers::{Counted, TooMany};
use super::slab::{Handshaking, State};
use super::{ACCEPT_PAUSE_MS, Chat, Edge, HANDSHAKE_MS_HURRIED, HANDSHAKES_MAX, after_ms};
use crate::chat::ConnId;
use crate::limits;
use crate::sys::{self, Shutdown};
use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};

/// How often the lack of descriptors is logged at most, ms.
const LOG_EVERY_MS: u64 = 10_000;
/// How often requests that take long are looked for at most, ms.
const HURRY_EVERY_MS: u64 = 100;

/// The listener.
#[derive(Debug)]
pub(super) struct Accepting {
    /// `None` once it is closed.
    listener: Option<TcpListener>,
    /// An accept is under way.
    asked: bool,
    /// The listener is to be closed.
    ends: bool,
    /// Nothing is accepted before, µs.
    paused_until_us: u64,
    /// The lack of descriptors is not logged before, µs.
    logged_until_us: u64,
    /// Requests that take long are not looked for before, µs.
    hurried_until_us: u64,
    /// Addresses with too many sockets are not logged before, µs.
    crowd_logged_until_us: u64,
}

impl Accepting {
    pub(super) fn new(listener: TcpListener) -> Accepting {
        Accepting {
            listener: Some(listener),
            asked: false,
            ends: false,
            paused_until_us: 0,
            logged_until_us: 0,
            hurried_until_us: 0,
            crowd_logged_until_us: 0,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.listener.is_none()
    }
}

/// `None`: it is gone already.
fn address_of(stream: &TcpStream) -> Option<IpAddr> {
    stream.peer_addr().map(|address| address.ip()).ok()
}

impl Edge {
    /// Asks for connections if they are wanted and not asked for. Once a turn.
    pub fn keep_accepting(&mut self, chat: &Chat) {
        let accepting = &mut self.accepting;
        if accepting.asked {
            return;
        }
        if accepting.ends {
            accepting.listener = None;
        } else if let Some(listener) = &accepting.listener
            && accepting.paused_until_us <= chat.now.mono_us
        {
            self.ring.accept(listener);
            accepting.asked = true;
        }
    }

    /// Closes the listener, and the connections that have not sent their request.
    pub fn stop_accepting(&mut self, chat: &mut Chat) {
        self.accepting.ends = true;
        if let Some(listener) = &self.accepting.listener {
            sys::shutdown(listener, Shutdown::Both);
        }
        for index in self.slab.handshakes_due(u64::MAX) {
            self.refuse(chat, index, Refused::Overloaded);
        }
    }

    /// A connection, or why there is none.
    pub fn accepted(&mut self, chat: &mut Chat, result: io::Result<OwnedFd>, more: bool) {
        self.accepting.asked = more;
        match result {
            Ok(socket) if self.accepting.ends || !self.make_room(chat) => {
                self.stats.refused += 1;
                // Closed at once, so this may not arrive; but it costs nothing that lasts.
                let _told = sys::send(socket.as_fd(), &Refused::Overloaded.response());
            }
            Ok(socket) => {
                let stream = TcpStream::from(socket);
                let address = address_of(&stream);
                let counted = self.count(chat, address);
                let socket = OwnedFd::from(stream);
                let Ok(counted) = counted else {
                    // So far above what it may have that not even an answer is waited for.
                    let _told = sys::send(socket.as_fd(), &Refused::Crowded.response());
                    return;
                };
                self.stats.accepted += 1;
                let handshaking = Handshaking {
                    bytes: Vec::new(),
                    deadline_us: after_ms(chat.now, limits::HANDSHAKE_MS_MAX),
                };
                let state = State::Handshaking(Box::new(handshaking));
                let index = self.slab.insert(socket, state);
                self.keep_count(index, counted);
                self.keep_address(index, address);
                self.settle(index);
            }
            Err(error) => {
                let scarce = [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS];
                // After the others (the peer was gone already) it is asked again at once.
                if error
                    .raw_os_error()
                    .is_some_and(|code| scarce.contains(&code))
                {
                    self.pause(chat, &error);
                }
            }
        }
    }

    /// A connection that the control plane had, with the bytes of its upgrade. From here on it is
    /// like one just accepted.
    pub fn joined(&mut self, chat: &mut Chat, stream: TcpStream, read: Vec<u8>) {
        // The ring wants a blocking one.
        let room =
            stream.set_nonblocking(false).is_ok() && !self.accepting.ends && self.make_room(chat);
        self.stats.joined += 1;
        let address = address_of(&stream);
        let counted = self.count(chat, address);
        let handshaking = Handshaking {
            bytes: Vec::new(),
            deadline_us: after_ms(chat.now, limits::HANDSHAKE_MS_MAX),
        };
        let state = State::Handshaking(Box::new(handshaking));
        let index = self.slab.insert(OwnedFd::from(stream), state);
        match counted {
            Err(TooMany) => self.refuse(chat, index, Refused::Crowded),
            Ok(_) if !room => self.refuse(chat, index, Refused::Overloaded),
            Ok(counted) => {
                self.keep_count(index, counted);
                self.keep_address(index, address);
                self.handshake(chat, index, read, 0);
            }
        }
        self.settle(index);
    }

    /// Counts a new socket for its address, unless that is a proxy of ours: it then tells later for whom it
    /// connects. An address may have some sockets above its limit, so that they can be told of it.
    fn count(&mut self, chat: &Chat, address: Option<IpAddr>) -> Result<Counted, TooMany> {
        let peers = self.config.peers.clone();
        if !peers.counts() {
            return Ok(Counted::default());
        }
        match address {
            Some(address) if !peers.trusts(address) => {
                let limits = peers.limits();
                let sockets_max = limits.per_address_max + limits.unauthenticated_max();
                peers
                    .add(address, sockets_max)
                    .inspect_err(|_| self.note_crowd(chat, Some(address)))
            }
            Some(_) | None => Ok(Counted::default()),
        }
    }

    /// Remembers how the socket at this place is counted.
    pub(super) fn keep_count(&mut self, index: u32, counted: Counted) {
        let place = index as usize;
        if self.counted.len() <= place {
            self.counted.resize(place + 1, Counted::default());
        }
        let before = std::mem::replace(&mut self.counted[place], counted);
        self.config.peers.remove(before);
    }

    /// Remembers where the socket at this place comes from.
    fn keep_address(&mut self, index: u32, address: Option<IpAddr>) {
        let place = index as usize;
        if self.addresses.len() <= place {
            self.addresses.resize(place + 1, None);
        }
        self.addresses[place] = address;
    }

    /// Of an upgrade that a proxy of ours makes for somebody, remembers for whom.
    pub(super) fn note_forwarded(&mut self, index: u32, head: &[u8]) {
        let own = self.addresses.get(index as usize).copied().flatten();
        if own.is_some_and(|address| self.config.peers.trusts(address))
            && let Some(address) = forwarded_for(head, &self.config.peers.limits().trusted)
        {
            self.keep_address(index, Some(address));
        }
    }

    /// Where a WebSocket comes from, while it is there.
    pub fn address(&self, conn: ConnId) -> Option<IpAddr> {
        let address = self.addresses.get(conn.index as usize).copied()??;
        (self.slab[conn.index].generation == conn.generation).then(|| address.to_canonical())
    }

    /// The token of this connection was verified.
    pub fn authenticated(&mut self, conn: ConnId) {
        let place = conn.index as usize;
        if self.slab[conn.index].generation == conn.generation
            && let Some(counted) = self.counted.get_mut(place)
        {
            self.config.peers.authenticated(counted);
        }
    }

    /// Whether the address that this upgrade comes from may have one more WebSocket.
    pub(super) fn may_upgrade(&mut self, chat: &Chat, index: u32, head: &[u8]) -> bool {
        let peers = self.config.peers.clone();
        if !peers.counts() {
            return true;
        }
        let counted = self
            .counted
            .get(index as usize)
            .copied()
            .unwrap_or_default();
        if counted != Counted::default() {
            let crowded = peers.is_crowded(counted);
            if crowded {
                self.note_crowd(chat, None);
            }
            return !crowded;
        }
        let limits = peers.limits();
        let Some(address) = forwarded_for(head, &limits.trusted) else {
            return true;
        };
        match peers.add(address, limits.per_address_max) {
            Ok(counted) => self.keep_count(index, counted),
            Err(TooMany) => {
                self.note_crowd(chat, Some(address));
                return false;
            }
        }
        true
    }

    fn note_crowd(&mut self, chat: &Chat, address: Option<IpAddr>) {
        self.stats.refused_crowded += 1;
        if self.accepting.crowd_logged_until_us <= chat.now.mono_us {
            self.accepting.crowd_logged_until_us = after_ms(chat.now, LOG_EVERY_MS);
            let address = address.map(tracing::field::display);
            tracing::warn!(
                address,
                "too many connections of one address; if it is a proxy of yours, name it in \
                 CAFFIS_TRUSTED_PROXIES"
            );
        }
    }

    /// Whether another request may be in the making; gives up old ones if there are too many.
    fn make_room(&mut self, chat: &mut Chat) -> bool {
        if self.slab.handshaking() < HANDSHAKES_MAX {
            return true;
        }
        if self.accepting.hurried_until_us <= chat.now.mono_us {
            // Not for every connection: all places are looked through.
            self.accepting.hurried_until_us = after_ms(chat.now, HURRY_EVERY_MS);
            let left_ms = limits::HANDSHAKE_MS_MAX - HANDSHAKE_MS_HURRIED;
            for index in self.slab.handshakes_due(after_ms(chat.now, left_ms)) {
                self.refuse(chat, index, Refused::Timeout);
            }
        }
        self.slab.handshaking() < HANDSHAKES_MAX
    }

    fn pause(&mut self, chat: &Chat, error: &io::Error) {
        self.stats.accept_pauses += 1;
        self.accepting.paused_until_us = after_ms(chat.now, ACCEPT_PAUSE_MS);
        if self.accepting.logged_until_us <= chat.now.mono_us {
            self.accepting.logged_until_us = after_ms(chat.now, LOG_EVERY_MS);
            tracing::warn!(%error, pause_ms = ACCEPT_PAUSE_MS, "cannot accept connections");
        }
    }
}
