//! The floor: a process that accepts the same connections and sends the same bytes, one bare
//! non-blocking `send` per delivery, and does nothing else. No rights, no store, no batches.
//!
//! It knows just enough of the wire protocol for the load test's own clients to talk to it. Two ways:
//! `echo` (receive a message, then send it to its room, as a chat server must) and `pure` (told once,
//! it sends at a rate by itself and receives nothing). Only on loopback, only as a child of the load
//! test.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde::Deserialize;
use tungstenite::handshake::derive_accept_key;
use uuid::Uuid;

use crate::websocket;

const LISTENER: Token = Token(usize::MAX);
/// The kernel caps it at `somaxconn`.
const BACKLOG: i32 = 4096;

struct Peer {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// Bytes that the socket did not take.
    unsent: Vec<u8>,
    is_upgraded: bool,
    user: Option<Uuid>,
}

struct Room {
    id: Uuid,
    members: Vec<Uuid>,
    last_seq: u64,
}

/// What makes it send by itself.
struct Pure {
    rate_per_s: f64,
    began: Instant,
    until: Instant,
    sent: u64,
    payload_bytes: usize,
}

#[derive(Deserialize)]
struct Request<'a> {
    id: Option<u64>,
    r#type: &'a str,
    #[serde(borrow, default)]
    data: RequestData<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RequestData<'a> {
    #[serde(borrow)]
    token: Option<&'a str>,
    room_id: Option<Uuid>,
    #[serde(borrow)]
    client_msg_id: Option<&'a str>,
    #[serde(borrow)]
    text: Option<sonic_rs::LazyValue<'a>>,
    member_ids: Vec<Uuid>,
    #[serde(default)]
    user_ids: Vec<Uuid>,
    rate: f64,
    seconds: f64,
    payload_bytes: usize,
}

pub struct Reference {
    poll: Poll,
    listener: TcpListener,
    peers: Vec<Option<Peer>>,
    peer_by_user: HashMap<Uuid, usize>,
    rooms: Vec<Room>,
    room_by_id: HashMap<Uuid, usize>,
    pure: Option<Pure>,
}

/// Serves until it is killed.
///
/// # Errors
/// When it cannot listen or epoll fails.
pub fn serve(listen: SocketAddr) -> io::Result<()> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(listen),
        socket2::Type::STREAM,
        None,
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    let mut listener = TcpListener::from_std(socket.into());
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut reference = Reference {
        poll,
        listener,
        peers: Vec::new(),
        peer_by_user: HashMap::new(),
        rooms: Vec::new(),
        room_by_id: HashMap::new(),
        pure: None,
    };
    let mut events = Events::with_capacity(4096);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let timeout = reference.send_due();
        if let Err(error) = reference.poll.poll(&mut events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        for event in &events {
            match event.token() {
                LISTENER => reference.accept()?,
                Token(peer) => {
                    if event.is_writable() {
                        reference.flush(peer);
                    }
                    if event.is_readable() {
                        reference.read(peer, &mut buffer);
                    }
                }
            }
        }
    }
}

impl Reference {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            let (mut stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let token = Token(self.peers.len());
            self.poll.registry().register(
                &mut stream,
                token,
                Interest::READABLE | Interest::WRITABLE,
            )?;
            self.peers.push(Some(Peer {
                stream,
                inbox: Vec::new(),
                unsent: Vec::new(),
                is_upgraded: false,
                user: None,
            }));
        }
    }

    fn read(&mut self, peer: usize, buffer: &mut [u8]) {
        loop {
            let Some(it) = &mut self.peers[peer] else {
                return;
            };
            match it.stream.read(buffer) {
                Ok(0) => {
                    self.peers[peer] = None;
                    return;
                }
                Ok(count) => {
                    it.inbox.extend_from_slice(&buffer[..count]);
                    self.received(peer);
                    if count < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.peers[peer] = None;
                    return;
                }
            }
        }
    }

    fn received(&mut self, peer: usize) {
        let Some(it) = &mut self.peers[peer] else {
            return;
        };
        let mut inbox = std::mem::take(&mut it.inbox);
        if !it.is_upgraded {
            let Some(end) = inbox.windows(4).position(|window| window == b"\r\n\r\n") else {
                it.inbox = inbox;
                return;
            };
            it.is_upgraded = true;
            let answer = upgrade(&String::from_utf8_lossy(&inbox[..end]));
            self.send(peer, answer.as_bytes());
            inbox.drain(..end + 4);
        }
        let mut used = 0;
        while let Some((opcode, payload, length)) = unmasked(&mut inbox[used..]) {
            if opcode == websocket::TEXT {
                self.request(peer, payload);
            }
            used += length;
        }
        inbox.drain(..used);
        if let Some(it) = &mut self.peers[peer] {
            it.inbox = inbox;
        }
    }

    fn request(&mut self, peer: usize, payload: &[u8]) {
        let Ok(request) = sonic_rs::from_slice::<Request<'_>>(payload) else {
            return;
        };
        match request.r#type {
            "auth" => self.authenticate(peer, request.data.token.unwrap_or_default()),
            "room.create" => self.create(peer, &request),
            "room.members.add" => self.add(peer, &request),
            "message.send" => self.message(peer, &request),
            "reference.go" => {
                let now = Instant::now();
                self.pure = Some(Pure {
                    rate_per_s: request.data.rate,
                    began: now,
                    until: now + Duration::from_secs_f64(request.data.seconds),
                    sent: 0,
                    payload_bytes: request.data.payload_bytes,
                });
            }
            _ => {}
        }
    }

    fn authenticate(&mut self, peer: usize, token: &str) {
        // Unchecked: the floor knows no rights. `sub` is all it needs.
        let user = subject(token).unwrap_or_default();
        self.peer_by_user.insert(user, peer);
        if let Some(it) = &mut self.peers[peer] {
            it.user = Some(user);
        }
        let ready = r#"{"id":1,"type":"ready","data":{"epoch":"floor","rooms":[]}}"#;
        self.send(peer, &frame(ready));
    }

    fn create(&mut self, peer: usize, request: &Request<'_>) {
        let Some(creator) = self.peers[peer].as_ref().and_then(|it| it.user) else {
            return;
        };
        let id = Uuid::from_u128(1 + self.rooms.len() as u128);
        let mut members = vec![creator];
        members.extend(&request.data.member_ids);
        self.tell_added(id, &members);
        self.room_by_id.insert(id, self.rooms.len());
        self.rooms.push(Room {
            id,
            members,
            last_seq: 0,
        });
        let request_id = request.id.unwrap_or(0);
        let ack = format!(
            r#"{{"id":{request_id},"type":"ack","data":{{"room":{{"room_id":"{id}"}},"created":true}}}}"#
        );
        self.send(peer, &frame(&ack));
    }

    fn add(&mut self, peer: usize, request: &Request<'_>) {
        let Some(id) = request.data.room_id else {
            return;
        };
        let Some(room) = self.room_by_id.get(&id).copied() else {
            return;
        };
        self.rooms[room].members.extend(&request.data.user_ids);
        self.tell_added(id, &request.data.user_ids);
        let request_id = request.id.unwrap_or(0);
        let ack = format!(
            r#"{{"id":{request_id},"type":"ack","data":{{"room_id":"{id}","changed":true,"seq":0}}}}"#
        );
        self.send(peer, &frame(&ack));
    }

    fn tell_added(&mut self, room: Uuid, members: &[Uuid]) {
        let added = frame(&format!(
            r#"{{"type":"room.added","data":{{"room":{{"room_id":"{room}"}},"last_seq":0}}}}"#
        ));
        for member in members {
            if let Some(peer) = self.peer_by_user.get(member).copied() {
                self.send(peer, &added);
            }
        }
    }

    fn message(&mut self, peer: usize, request: &Request<'_>) {
        let data = &request.data;
        let (Some(room_id), Some(client_msg_id), Some(text), Some(it)) = (
            data.room_id,
            data.client_msg_id,
            &data.text,
            &self.peers[peer],
        ) else {
            return;
        };
        let sender = it.user.unwrap_or_default();
        let Some(room) = self.room_by_id.get(&room_id).copied() else {
            return;
        };
        let seq = self.publish(room, sender, client_msg_id, text.as_raw_str());
        let request_id = request.id.unwrap_or(0);
        let ack = format!(
            r#"{{"id":{request_id},"type":"ack","data":{{"client_msg_id":"{client_msg_id}","room_id":"{room_id}","seq":{seq},"ts":"2026-01-01T00:00:00.000Z","duplicate":false}}}}"#
        );
        self.send(peer, &frame(&ack));
    }

    /// `text` with its quotes. The bytes are those of the real server's event.
    fn publish(&mut self, room: usize, sender: Uuid, client_msg_id: &str, text: &str) -> u64 {
        let room = &mut self.rooms[room];
        room.last_seq += 1;
        let (room_id, seq) = (room.id, room.last_seq);
        let ts = "2026-01-01T00:00:00.000Z";
        let event = frame(&format!(
            r#"{{"type":"message.created","room_id":"{room_id}","seq":{seq},"ts":"{ts}","data":{{"message_seq":{seq},"message":{{"seq":{seq},"sender_id":"{sender}","client_msg_id":"{client_msg_id}","kind":"text","text":{text},"attachments":[],"reply_to_seq":null,"mentions":[],"reactions":{{}},"changed_seq":{seq},"revision":1,"edited_at":null,"deleted_at":null,"created_at":"{ts}"}}}}}}"#
        ));
        for place in 0..room.members.len() {
            let member = self.rooms[self.room_by_id[&room_id]].members[place];
            if let Some(peer) = self.peer_by_user.get(&member).copied() {
                self.send(peer, &event);
            }
        }
        seq
    }

    /// One `send`; what does not fit waits for the socket.
    fn send(&mut self, peer: usize, bytes: &[u8]) {
        let Some(it) = self.peers.get_mut(peer).and_then(Option::as_mut) else {
            return;
        };
        if !it.unsent.is_empty() {
            it.unsent.extend_from_slice(bytes);
            return;
        }
        match it.stream.write(bytes) {
            Ok(count) if count == bytes.len() => {}
            Ok(count) => it.unsent.extend_from_slice(&bytes[count..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                it.unsent.extend_from_slice(bytes);
            }
            Err(_) => self.peers[peer] = None,
        }
    }

    fn flush(&mut self, peer: usize) {
        let Some(it) = self.peers.get_mut(peer).and_then(Option::as_mut) else {
            return;
        };
        if it.unsent.is_empty() {
            return;
        }
        let unsent = std::mem::take(&mut it.unsent);
        self.send(peer, &unsent);
    }

    /// Sends what is due by itself. Returns how long to wait for the next.
    fn send_due(&mut self) -> Option<Duration> {
        let mut pure = self.pure.take()?;
        let now = Instant::now();
        if now > pure.until || self.rooms.is_empty() {
            return None;
        }
        let due = |sent: u64| Duration::from_secs_f64(sent as f64 / pure.rate_per_s.max(1e-3));
        let text = format!("\"{}\"", "x".repeat(pure.payload_bytes));
        while pure.began + due(pure.sent) <= now {
            let room = pure.sent as usize % self.rooms.len();
            let id = Uuid::from_u128(u128::from(pure.sent)).to_string();
            self.publish(room, Uuid::nil(), &id, &text);
            pure.sent += 1;
        }
        let wait = (pure.began + due(pure.sent)).saturating_duration_since(Instant::now());
        self.pure = Some(pure);
        Some(wait)
    }
}

fn upgrade(request: &str) -> String {
    let key = request
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .map_or("", |(_, value)| value.trim());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: caffis.chat.v1\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
}

/// The `sub` of a token, its signature unseen.
fn subject(token: &str) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Claims {
        sub: Uuid,
    }
    let token = jsonwebtoken::dangerous::insecure_decode::<Claims>(token).ok()?;
    Some(token.claims.sub)
}

fn frame(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() + 10);
    bytes.push(0x80 | websocket::TEXT);
    match text.len() {
        length @ 0..=125 => bytes.push(length as u8),
        length @ 126..=0xffff => {
            bytes.push(126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Unmasks the client frame at the front in place. Returns its opcode, payload and whole length.
fn unmasked(bytes: &mut [u8]) -> Option<(u8, &[u8], usize)> {
    let (first, second) = (*bytes.first()?, *bytes.get(1)?);
    let (header, length) = match second & 0x7f {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        127 => {
            let mut word = [0; 8];
            word.copy_from_slice(bytes.get(2..10)?);
            (10, u64::from_be_bytes(word) as usize)
        }
        short => (2, usize::from(short)),
    };
    let mut mask = [0; 4];
    mask.copy_from_slice(bytes.get(header..header + 4)?);
    let payload = bytes.get_mut(header + 4..header + 4 + length)?;
    for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
    Some((first & 0x0f, payload, header + 4 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_frames_are_unmasked_whole_or_not_at_all() {
        for length in [0, 5, 125, 126, 70_000] {
            let text = "x".repeat(length);
            let mut bytes = Vec::new();
            websocket::write_masked(&mut bytes, websocket::TEXT, text.as_bytes(), 0xdead_beef);
            let whole = bytes.len();
            assert!(unmasked(&mut bytes.clone()[..whole - 1]).is_none());
            let (opcode, payload, used) = unmasked(&mut bytes).unwrap();
            assert_eq!(
                (opcode, payload, used),
                (websocket::TEXT, text.as_bytes(), whole)
            );
        }
    }

    #[test]
    fn its_frames_are_what_the_clients_read() {
        for length in [0, 125, 126, 70_000] {
            let bytes = frame(&"x".repeat(length));
            let start = websocket::parse_start(&bytes).unwrap().unwrap();
            assert_eq!(
                (start.payload_bytes, start.frame_bytes()),
                (length, bytes.len())
            );
        }
    }
}
