//! Thousands of WebSocket client connections on one thread: epoll through mio, a slab of small
//! states, no task and no buffer per idle connection.
//!
//! Invariants: a [`ConnId`] is never reused, so an answer to a connection that is gone is dropped;
//! all writes of a turn to one connection leave in one system call; whoever does not read (paused or
//! throttled connections) does so for real, the bytes stay in the socket.
//!
//! Next: [`crate::world`], which implements [`Handler`].

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};
use tungstenite::handshake::derive_accept_key;

use crate::ids::NodeIndex;
use crate::limits::{
    FRAME_BYTES_MAX, HANDSHAKE_BYTES_MAX, READ_BUFFER_BYTES, READS_PER_TURN_MAX, UNSENT_BYTES_MAX,
};
use crate::random::Random;
use crate::websocket::{self, FrameError};

/// `connect` on a non-blocking socket: in progress.
const EINPROGRESS: i32 = 115;
/// The same for every connection: the key protects against caching proxies, not against people.
const WEBSOCKET_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Slot in the low half, generation in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId(u64);

impl ConnId {
    fn new(slot: usize, generation: u32) -> Self {
        Self(slot as u64 | u64::from(generation) << 32)
    }

    fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The server's close frame.
    Code(u16),
    /// A close frame without a code.
    NoCode,
    /// The upgrade was answered with another HTTP status.
    Http(u16),
    /// The stream ended, with or without a reset, before a close frame.
    Lost(io::ErrorKind),
    /// The server broke the WebSocket protocol.
    Violation(FrameError),
    /// The answer to the upgrade was not one to our request.
    BadHandshake(&'static str),
}

pub enum Incoming<'a> {
    Open,
    Text(&'a [u8]),
    Closed(Closed),
}

/// What happens on connections. Called in a turn; may send, connect and abort on the same engine.
pub trait Handler {
    fn incoming(&mut self, engine: &mut Engine, id: ConnId, owner: u64, incoming: Incoming<'_>);
}

#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectOptions {
    /// SO_RCVBUF, for readers whose slowness the server shall feel soon.
    pub receive_buffer_bytes: Option<usize>,
    /// Read at most so many bytes a second.
    pub read_bytes_per_s: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
    /// We sent a close frame; whatever still comes is not looked at.
    Closing,
}

struct Throttle {
    bytes_per_s: u64,
    allowance: f64,
    filled_at: Instant,
}

struct Conn {
    stream: TcpStream,
    owner: u64,
    phase: Phase,
    /// Bytes of an incomplete frame. Without capacity when there are none.
    inbox: Vec<u8>,
    /// Payload of the fragments so far of a fragmented text.
    fragments: Option<Vec<u8>>,
    outbox: Vec<u8>,
    is_dirty: bool,
    is_paused: bool,
    is_readable: bool,
    /// The server's FIN was seen: read until the end shows, whatever the size of a read says.
    is_read_closed: bool,
    throttle: Option<Box<Throttle>>,
}

struct Place {
    generation: u32,
    conn: Option<Conn>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct EngineCounts {
    pub frames_received: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
}

pub struct Engine {
    poll: Poll,
    events: Events,
    places: Vec<Place>,
    free: Vec<u32>,
    dirty: Vec<ConnId>,
    /// Connections with bytes left in the socket when their share of a turn was used up.
    again: Vec<ConnId>,
    throttled: Vec<ConnId>,
    ended: Vec<(ConnId, Closed)>,
    read_buffer: Vec<u8>,
    random: Random,
    targets: Vec<SocketAddr>,
    path: String,
    abandoned: Vec<TcpStream>,
    sources: Vec<Ipv4Addr>,
    next_source: usize,
    pub counts: EngineCounts,
}

impl Engine {
    /// # Errors
    /// When the system gives no epoll instance.
    pub fn new(targets: &[SocketAddr], path: &str, seed: u64) -> io::Result<Self> {
        // One pair of addresses has some 28,000 ephemeral ports; four sources serve 100,000.
        let is_loopback = |target: &SocketAddr| target.ip().is_loopback() && target.is_ipv4();
        let sources = if targets.iter().all(is_loopback) {
            (2..=5).map(|last| Ipv4Addr::new(127, 0, 0, last)).collect()
        } else {
            Vec::new()
        };
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(4096),
            places: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            again: Vec::new(),
            throttled: Vec::new(),
            ended: Vec::new(),
            read_buffer: vec![0; READ_BUFFER_BYTES],
            random: Random::new(seed),
            targets: targets.to_vec(),
            path: path.to_owned(),
            abandoned: Vec::new(),
            sources,
            next_source: 0,
            counts: EngineCounts::default(),
        })
    }

    pub fn open_connections(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Starts a connection to a node and the upgrade; [`Incoming::Open`] or [`Incoming::Closed`]
    /// follows.
    ///
    /// # Errors
    /// When the system has no descriptor or port left, or there is no such node.
    pub fn connect(
        &mut self,
        owner: u64,
        node: NodeIndex,
        options: ConnectOptions,
    ) -> io::Result<ConnId> {
        let target = *self
            .targets
            .get(node.index())
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        let socket = Socket::new(
            Domain::for_address(target),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(bytes) = options.receive_buffer_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        if !self.sources.is_empty() {
            let source = self.sources[self.next_source % self.sources.len()];
            self.next_source += 1;
            socket.bind(&SockAddr::from(SocketAddrV4::new(source, 0)))?;
        }
        match socket.connect(&SockAddr::from(target)) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let mut stream = TcpStream::from_std(socket.into());
        let slot = match self.free.pop() {
            Some(slot) => slot as usize,
            None => {
                self.places.push(Place {
                    generation: 0,
                    conn: None,
                });
                self.places.len() - 1
            }
        };
        let id = ConnId::new(slot, self.places[slot].generation);
        let registered = self.poll.registry().register(
            &mut stream,
            Token(id.0 as usize),
            Interest::READABLE | Interest::WRITABLE,
        );
        if let Err(error) = registered {
            self.free.push(slot as u32);
            return Err(error);
        }
        let throttle = options.read_bytes_per_s.map(|bytes_per_s| {
            Box::new(Throttle {
                bytes_per_s,
                allowance: 0.0,
                filled_at: Instant::now(),
            })
        });
        if throttle.is_some() {
            self.throttled.push(id);
        }
        self.places[slot].conn = Some(Conn {
            stream,
            owner,
            phase: Phase::Connecting,
            inbox: Vec::new(),
            fragments: None,
            outbox: Vec::new(),
            is_dirty: false,
            is_paused: false,
            is_readable: false,
            is_read_closed: false,
            throttle,
        });
        Ok(id)
    }

    /// Queues a text frame; it leaves at the end of the turn. Dropped if the connection is gone.
    pub fn send_text(&mut self, id: ConnId, payload: &[u8]) {
        self.queue(id, websocket::TEXT, payload);
    }

    /// Says goodbye and drops the connection; no [`Incoming::Closed`] follows.
    pub fn close(&mut self, id: ConnId) {
        self.queue(id, websocket::CLOSE, &1000_u16.to_be_bytes());
        if let Some(conn) = self.conn(id) {
            conn.phase = Phase::Closing;
            let _ = flush(conn);
        }
        self.release(id);
    }

    /// Drops the connection by a reset, as a crashed client or a cut cable would; no
    /// [`Incoming::Closed`] follows.
    pub fn abort(&mut self, id: ConnId) {
        if let Some(conn) = self.conn(id) {
            let _ = SockRef::from(&conn.stream).set_linger(Some(Duration::ZERO));
        }
        self.release(id);
    }

    /// Ends the connection by FIN without a close frame, as an exiting process would.
    pub fn drop_silently(&mut self, id: ConnId) {
        self.release(id);
    }

    /// Leaves the connection as a client does that loses its network: it sends nothing more, not even
    /// that it ends, and reads nothing. (Its kernel still acknowledges what fits into the socket.)
    pub fn abandon(&mut self, id: ConnId) {
        if let Some(conn) = self.release(id) {
            self.abandoned.push(conn.stream);
        }
    }

    /// How many abandoned connections the server has not ended yet. Those that it has are let go.
    pub fn abandoned(&mut self) -> usize {
        let buffer = &mut self.read_buffer;
        self.abandoned.retain_mut(|stream| {
            loop {
                match stream.read(buffer) {
                    Ok(0) => return false,
                    Ok(_) => {}
                    Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
                }
            }
        });
        self.abandoned.len()
    }

    /// Stops or resumes reading: what arrives meanwhile stays in the socket.
    pub fn set_paused(&mut self, id: ConnId, is_paused: bool) {
        if let Some(conn) = self.conn(id) {
            conn.is_paused = is_paused;
            // Readable or not, one read decides; an edge may have passed unseen.
            conn.is_readable = true;
            if !is_paused {
                self.again.push(id);
            }
        }
    }

    /// Shrinks the receive buffer of an open connection.
    pub fn set_receive_buffer(&mut self, id: ConnId, bytes: usize) {
        if let Some(conn) = self.conn(id) {
            let _ = SockRef::from(&conn.stream).set_recv_buffer_size(bytes);
        }
    }

    /// Writes what was queued outside of a turn.
    pub fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            let Some(conn) = self.conn(id) else { continue };
            conn.is_dirty = false;
            if conn.phase == Phase::Connecting {
                continue;
            }
            match flush(conn) {
                Ok(sent) => self.counts.bytes_sent += sent as u64,
                // The read side usually tells more (a close code), but may never do so.
                Err(error) => self.ended.push((id, Closed::Lost(error.kind()))),
            }
        }
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Waits for sockets at most `timeout` and handles all that happened.
    ///
    /// # Errors
    /// When epoll itself fails.
    pub fn turn(&mut self, timeout: Duration, handler: &mut impl Handler) -> io::Result<()> {
        let mut timeout = timeout;
        if !self.again.is_empty() || !self.ended.is_empty() {
            timeout = Duration::ZERO;
        } else if !self.throttled.is_empty() {
            timeout = timeout.min(Duration::from_millis(5));
        }
        self.flush();
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(1));
        let polled = self.poll.poll(&mut events, Some(timeout));
        if let Err(error) = polled
            && error.kind() != io::ErrorKind::Interrupted
        {
            self.events = events;
            return Err(error);
        }
        let mut buffer = std::mem::take(&mut self.read_buffer);
        for id in std::mem::take(&mut self.again) {
            self.read(id, &mut buffer, handler);
        }
        self.refill(&mut buffer, handler);
        for event in &events {
            let id = ConnId(event.token().0 as u64);
            if event.is_writable() || event.is_error() {
                self.writable(id, handler);
            }
            if event.is_read_closed()
                && let Some(conn) = self.conn(id)
            {
                conn.is_read_closed = true;
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(id, &mut buffer, handler);
            }
        }
        self.read_buffer = buffer;
        self.events = events;
        for (id, closed) in std::mem::take(&mut self.ended) {
            self.end(id, closed, handler);
        }
        self.flush();
        Ok(())
    }

    fn conn(&mut self, id: ConnId) -> Option<&mut Conn> {
        let place = self.places.get_mut(id.slot())?;
        if place.generation != id.generation() {
            return None;
        }
        place.conn.as_mut()
    }

    fn queue(&mut self, id: ConnId, opcode: u8, payload: &[u8]) {
        let mask = self.random.next_u64() as u32;
        let Some(conn) = self.conn(id) else { return };
        websocket::write_masked(&mut conn.outbox, opcode, payload, mask);
        let is_stuck = conn.outbox.len() > UNSENT_BYTES_MAX;
        if !conn.is_dirty {
            conn.is_dirty = true;
            self.dirty.push(id);
        }
        if is_stuck {
            self.ended
                .push((id, Closed::Lost(io::ErrorKind::WriteZero)));
        }
    }

    fn release(&mut self, id: ConnId) -> Option<Conn> {
        let place = self.places.get_mut(id.slot())?;
        if place.generation != id.generation() {
            return None;
        }
        let mut conn = place.conn.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.slot() as u32);
        if conn.throttle.is_some() {
            self.throttled.retain(|other| *other != id);
        }
        let _ = self.poll.registry().deregister(&mut conn.stream);
        Some(conn)
    }

    fn end(&mut self, id: ConnId, closed: Closed, handler: &mut impl Handler) {
        if let Some(conn) = self.release(id) {
            handler.incoming(self, id, conn.owner, Incoming::Closed(closed));
        }
    }

    fn writable(&mut self, id: ConnId, handler: &mut impl Handler) {
        let path = std::mem::take(&mut self.path);
        let Some(conn) = self.conn(id) else {
            self.path = path;
            return;
        };
        let mut failed = None;
        if conn.phase == Phase::Connecting {
            match conn.stream.take_error() {
                Ok(None) if let Ok(host) = conn.stream.peer_addr() => {
                    conn.phase = Phase::Upgrading;
                    let request = format!(
                        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
                         Connection: Upgrade\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n\
                         Sec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Protocol: caffis.chat.v1\r\n\r\n"
                    );
                    conn.outbox.extend_from_slice(request.as_bytes());
                }
                Ok(None) => {}
                Ok(Some(error)) | Err(error) => failed = Some(error.kind()),
            }
        }
        if failed.is_none() && conn.phase != Phase::Connecting && !conn.outbox.is_empty() {
            match flush(conn) {
                Ok(sent) => self.counts.bytes_sent += sent as u64,
                Err(error) => failed = Some(error.kind()),
            }
        }
        self.path = path;
        if let Some(kind) = failed {
            self.end(id, Closed::Lost(kind), handler);
        }
    }

    /// Gives throttled connections what they may read by now.
    fn refill(&mut self, buffer: &mut [u8], handler: &mut impl Handler) {
        let now = Instant::now();
        for id in self.throttled.clone() {
            let Some(conn) = self.conn(id) else { continue };
            let Some(throttle) = &mut conn.throttle else {
                continue;
            };
            let elapsed = now.duration_since(throttle.filled_at).as_secs_f64();
            throttle.filled_at = now;
            // A tenth of a second of credit: more would be a burst that a slow line cannot take.
            let cap = (throttle.bytes_per_s as f64 / 10.0).max(1.0);
            throttle.allowance =
                (throttle.allowance + elapsed * throttle.bytes_per_s as f64).min(cap);
            if conn.is_readable && throttle.allowance >= 1.0 {
                self.read(id, buffer, handler);
            }
        }
    }

    fn read(&mut self, id: ConnId, buffer: &mut [u8], handler: &mut impl Handler) {
        for _ in 0..READS_PER_TURN_MAX {
            let Some(conn) = self.conn(id) else { return };
            conn.is_readable = true;
            if conn.is_paused || conn.phase == Phase::Connecting {
                return;
            }
            let wanted = match &conn.throttle {
                None => buffer.len(),
                Some(throttle) if throttle.allowance < 1.0 => return,
                Some(throttle) => buffer.len().min(throttle.allowance as usize),
            };
            let got = match conn.stream.read(&mut buffer[..wanted]) {
                Ok(0) => {
                    return self.end(id, Closed::Lost(io::ErrorKind::UnexpectedEof), handler);
                }
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    conn.is_readable = false;
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return self.end(id, Closed::Lost(error.kind()), handler),
            };
            if let Some(throttle) = &mut conn.throttle {
                throttle.allowance -= got as f64;
            }
            self.counts.bytes_received += got as u64;
            if let Err(closed) = self.received(id, &buffer[..got], handler) {
                return self.end(id, closed, handler);
            }
            // A short read emptied the socket: the next bytes raise a new edge. A FIN that came
            // with the same edge does not, so go on until it shows.
            let Some(conn) = self.conn(id) else { return };
            if got < wanted && !conn.is_read_closed {
                conn.is_readable = false;
                return;
            }
        }
        self.again.push(id);
    }

    /// Cuts what arrived into frames. The rest of an incomplete one waits in the inbox.
    fn received(
        &mut self,
        id: ConnId,
        arrived: &[u8],
        handler: &mut impl Handler,
    ) -> Result<(), Closed> {
        let Some(conn) = self.conn(id) else {
            return Ok(());
        };
        let mut inbox = std::mem::take(&mut conn.inbox);
        let bytes: &[u8] = if inbox.is_empty() {
            arrived
        } else {
            inbox.extend_from_slice(arrived);
            &inbox
        };
        let mut used = 0;
        while used < bytes.len() {
            let Some(conn) = self.conn(id) else {
                return Ok(());
            };
            let consumed = match conn.phase {
                Phase::Upgrading => self.upgraded(id, &bytes[used..], handler)?,
                Phase::Open => self.frame(id, &bytes[used..], handler)?,
                Phase::Connecting | Phase::Closing => bytes.len() - used,
            };
            if consumed == 0 {
                break;
            }
            used += consumed;
        }
        let rest = bytes.len() - used;
        if let Some(conn) = self.conn(id)
            && rest > 0
        {
            if used == 0 && !inbox.is_empty() {
                conn.inbox = inbox;
            } else {
                conn.inbox = bytes[used..].to_vec();
            }
        }
        Ok(())
    }

    fn upgraded(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        handler: &mut impl Handler,
    ) -> Result<usize, Closed> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            if bytes.len() > HANDSHAKE_BYTES_MAX {
                return Err(Closed::BadHandshake("answer too long"));
            }
            return Ok(0);
        };
        check_upgrade(&bytes[..end])?;
        let Some(conn) = self.conn(id) else {
            return Ok(bytes.len());
        };
        conn.phase = Phase::Open;
        let owner = conn.owner;
        handler.incoming(self, id, owner, Incoming::Open);
        Ok(end + 4)
    }

    /// Handles the frame at the front. Returns its length, 0 if it is incomplete.
    fn frame(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        handler: &mut impl Handler,
    ) -> Result<usize, Closed> {
        let Some(start) = websocket::parse_start(bytes).map_err(Closed::Violation)? else {
            return Ok(0);
        };
        let Some(payload) = bytes.get(start.header_bytes..start.frame_bytes()) else {
            return Ok(0);
        };
        self.counts.frames_received += 1;
        let Some(conn) = self.conn(id) else {
            return Ok(start.frame_bytes());
        };
        let owner = conn.owner;
        match start.opcode {
            websocket::TEXT if start.is_final && conn.fragments.is_none() => {
                handler.incoming(self, id, owner, Incoming::Text(payload));
            }
            websocket::TEXT | websocket::CONTINUATION => {
                let begins = start.opcode == websocket::TEXT;
                if begins == conn.fragments.is_some() {
                    return Err(Closed::Violation(FrameError::BadFragment));
                }
                let mut whole = conn.fragments.take().unwrap_or_default();
                whole.extend_from_slice(payload);
                if whole.len() > FRAME_BYTES_MAX {
                    return Err(Closed::Violation(FrameError::TooLong));
                }
                if start.is_final {
                    handler.incoming(self, id, owner, Incoming::Text(&whole));
                } else {
                    conn.fragments = Some(whole);
                }
            }
            websocket::PING => {
                let echo = payload.to_vec();
                self.queue(id, websocket::PONG, &echo);
            }
            websocket::PONG => {}
            websocket::CLOSE => {
                let code = websocket::close_code(payload);
                self.queue(id, websocket::CLOSE, &payload[..payload.len().min(2)]);
                if let Some(conn) = self.conn(id) {
                    let _ = flush(conn);
                }
                return Err(code.map_or(Closed::NoCode, Closed::Code));
            }
            _ => return Err(Closed::Violation(FrameError::ReservedOpcode)),
        }
        Ok(start.frame_bytes())
    }
}

/// Writes as much as the socket takes. Returns the number of bytes.
fn flush(conn: &mut Conn) -> io::Result<usize> {
    let mut sent = 0;
    while sent < conn.outbox.len() {
        match conn.stream.write(&conn.outbox[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if sent == conn.outbox.len() {
        // An idle connection keeps no buffer.
        conn.outbox = Vec::new();
    } else {
        conn.outbox.drain(..sent);
    }
    Ok(sent)
}

fn check_upgrade(head: &[u8]) -> Result<(), Closed> {
    let Ok(head) = std::str::from_utf8(head) else {
        return Err(Closed::BadHandshake("answer is not text"));
    };
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1.1 "))
        .and_then(|rest| rest.get(..3))
        .and_then(|status| status.parse::<u16>().ok())
        .ok_or(Closed::BadHandshake("no status line"))?;
    if status != 101 {
        return Err(Closed::Http(status));
    }
    let (mut accept, mut protocol) = (None, None);
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.eq_ignore_ascii_case("sec-websocket-accept") {
            accept = Some(value.trim());
        } else if name.eq_ignore_ascii_case("sec-websocket-protocol") {
            protocol = Some(value.trim());
        }
    }
    if accept != Some(derive_accept_key(WEBSOCKET_KEY.as_bytes()).as_str()) {
        return Err(Closed::BadHandshake("wrong Sec-WebSocket-Accept"));
    }
    if protocol != Some("caffis.chat.v1") {
        return Err(Closed::BadHandshake("subprotocol not confirmed"));
    }
    Ok(())
}
