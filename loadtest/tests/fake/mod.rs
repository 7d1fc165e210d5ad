//! A small chat server in memory that can misbehave on demand, once, at a chosen message: the proof
//! that the load test finds what it is there to find. Threads and tungstenite, so that its framing
//! shares nothing with the load test's own.

mod mixed;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tungstenite::Message as Frame;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::Frame as RawFrame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use uuid::Uuid;

pub const SECRET: &str = "the fake server's secret, long enough";

/// What goes wrong, at the message whose number (counted from 1 over all rooms) is `at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// All connections break; everything is kept.
    CutAll,
    /// All connections break, and later replies say `recovered:false`.
    CutAllTooMuch,
    LoseDelivery,
    /// The last event of a room never reaches one member.
    LoseTail,
    DoubleDelivery,
    SwapDeliveries,
    SkipSeq,
    AckWithoutStoring,
    AckOfAnotherSeq,
    AckAsDuplicate,
    ForgetIds,
    AlterText,
    AlterForOne,
    LoseFromHistory,
    NeverAck,
    Refuse,
    /// The connections break, and the newest messages are gone.
    CrashAndForget,
    /// The connections break, and each replay leaves out one event.
    LameReplay,
    ChangeEpoch,
    DeliverToStranger,
    TimeBack,
    SwapSends,
    StopClient,
    GarbageFrame,
    /// One refusal that says when to come again, and one that says nothing: no anomaly.
    RateLimitOnce,
    /// An open `room.gap` instead of an event: no anomaly.
    TellGap,
    // Of the mixed load; these happen at their `at`-th occasion.
    /// Acknowledged, and nobody hears of it.
    LoseEdit,
    /// Told, and not kept.
    EditNotStored,
    EditTwice,
    MiscountEvent,
    MiscountStored,
    /// A deleted message keeps its text.
    DeletedTextBack,
    UnreadOffByOne,
    WatermarkBack,
    /// From the `at`-th on receipts are dropped.
    LoseReceipts,
    StrangerTypes,
    PresenceForAll,
    /// An older server, which does not know receipts: no anomaly.
    NoReceipts,
}

struct Session {
    user: Uuid,
    out: Sender<Vec<u8>>,
    stream: TcpStream,
    watched: HashSet<Uuid>,
}

#[derive(Clone)]
struct Event {
    seq: u64,
    frame: String,
    message: Option<Value>,
}

#[derive(Default)]
struct Room {
    members: Vec<Uuid>,
    events: Vec<Event>,
    last_seq: u64,
    ids: HashMap<(Uuid, String), (u64, String)>,
    reactions: HashSet<(u64, Uuid, String)>,
    /// Read and delivered, by member.
    marks: HashMap<Uuid, (u64, u64)>,
    /// Members of whom the others were told a mark.
    told: HashSet<Uuid>,
}

struct Inner {
    fault: Fault,
    at: u64,
    strikes: u64,
    messages: u64,
    clock: u64,
    epoch: u64,
    too_much: bool,
    lame: bool,
    rooms: HashMap<Uuid, Room>,
    room_ids: HashMap<String, Uuid>,
    sessions: HashMap<u64, Session>,
    next_session: u64,
    held_send: Option<(u64, Value)>,
    journal: Option<Journal>,
}

/// When what was acknowledged is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before anybody hears of it.
    Synced,
    /// Handed to the system, which writes it when it likes: survives a kill, not a power cut.
    Written,
    /// Kept in the process for a while: survives neither.
    Buffered,
}

/// One line of JSON per event or room.
struct Journal {
    file: File,
    durability: Durability,
    buffer: Vec<u8>,
}

/// What a buffered journal holds back.
const BUFFERED_BYTES: usize = 16 << 10;

impl Journal {
    fn write(&mut self, line: &Value) {
        self.buffer.extend_from_slice(line.to_string().as_bytes());
        self.buffer.push(b'\n');
        if self.durability == Durability::Buffered && self.buffer.len() < BUFFERED_BYTES {
            return;
        }
        self.file.write_all(&self.buffer).unwrap();
        self.buffer.clear();
        if self.durability == Durability::Synced {
            self.file.sync_data().unwrap();
        }
    }
}

pub struct FakeServer {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
}

impl FakeServer {
    pub fn start(fault: Fault, at: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self::new(listener.local_addr().unwrap(), fault, at);
        server.listen(listener);
        server
    }

    /// One that keeps its rooms in a file.
    #[allow(dead_code)]
    pub fn start_durable(listen: SocketAddr, folder: &Path, durability: Durability) -> Self {
        let server = Self::new(listen, Fault::None, 0);
        let path = folder.join("journal");
        let kept = std::fs::read(&path).unwrap_or_default();
        // What a crash cut off in the middle of a line was never acknowledged.
        let whole = kept
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |end| end + 1);
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        file.set_len(whole as u64).unwrap();
        file.sync_all().unwrap();
        // The name, too, must survive.
        File::open(folder).unwrap().sync_all().unwrap();
        {
            let mut inner = server.inner.lock().unwrap();
            for line in kept[..whole].split(|byte| *byte == b'\n') {
                // A hole left by the file system after a power cut is no line.
                if let Ok(line) = serde_json::from_slice(line) {
                    inner.load(&line);
                }
            }
            inner.journal = Some(Journal {
                file,
                durability,
                buffer: Vec::new(),
            });
        }
        server.listen(TcpListener::bind(listen).unwrap());
        server
    }

    fn new(address: SocketAddr, fault: Fault, at: u64) -> Self {
        let inner = Arc::new(Mutex::new(Inner {
            fault,
            at,
            strikes: 0,
            messages: 0,
            clock: 0,
            epoch: 1,
            too_much: false,
            lame: false,
            rooms: HashMap::new(),
            room_ids: HashMap::new(),
            sessions: HashMap::new(),
            next_session: 0,
            held_send: None,
            journal: None,
        }));
        Self { address, inner }
    }

    fn listen(&self, listener: TcpListener) {
        let shared = self.inner.clone();
        // Ends with the test's process; tests are short and few.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
    }

    /// How often the fault had an occasion.
    #[allow(dead_code)]
    pub fn strikes(&self) -> u64 {
        self.inner.lock().unwrap().strikes_so_far()
    }

    /// How many messages were sent to it.
    pub fn messages(&self) -> u64 {
        self.inner.lock().unwrap().messages
    }
}

fn serve(mut stream: TcpStream, inner: &Arc<Mutex<Inner>>) {
    let _ = stream.set_nodelay(true);
    let mut front = [0; 11];
    if stream
        .peek(&mut front)
        .is_ok_and(|_| front == *b"GET /readyz")
    {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        return;
    }
    let writer = stream.try_clone().unwrap();
    let for_session = stream.try_clone().unwrap();
    #[allow(clippy::result_large_err)]
    let confirm = |_: &Request, mut response: Response| {
        let protocol = HeaderValue::from_static("caffis.chat.v1");
        response
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let Ok(mut socket) = tungstenite::accept_hdr(stream, confirm) else {
        return;
    };
    let (out, queue) = channel();
    thread::spawn(move || write_all(writer, &queue));
    let mut session = None;
    while let Ok(frame) = socket.read() {
        let Frame::Text(text) = frame else { continue };
        let request: Value = serde_json::from_str(&text).unwrap();
        let mut inner = inner.lock().unwrap();
        match session {
            None => session = inner.authenticate(&request, &out, for_session.try_clone().unwrap()),
            Some(id) => inner.request(id, &request),
        }
    }
    if let Some(id) = session {
        inner.lock().unwrap().sessions.remove(&id);
    }
}

fn write_all(mut stream: TcpStream, queue: &Receiver<Vec<u8>>) {
    for bytes in queue {
        if stream.write_all(&bytes).is_err() {
            return;
        }
    }
}

fn text_frame(text: &str) -> Vec<u8> {
    let frame = RawFrame::message(text.as_bytes().to_vec(), OpCode::Data(Data::Text), true);
    let mut bytes = Vec::new();
    frame.format(&mut bytes).unwrap();
    bytes
}

impl Inner {
    fn say(&self, session: u64, frame: &str) {
        if let Some(session) = self.sessions.get(&session) {
            let _ = session.out.send(text_frame(frame));
        }
    }

    fn ack(&self, session: u64, request: &Value, data: &Value) {
        let reply = json!({"id": request["id"], "type": "ack", "data": data});
        self.say(session, &reply.to_string());
    }

    fn refuse(&self, session: u64, request: &Value, code: &str, retry_after_ms: Option<u64>) {
        let reply = json!({"id": request["id"], "type": "error",
            "error": {"code": code, "message": code, "retry_after_ms": retry_after_ms}});
        self.say(session, &reply.to_string());
    }

    fn load(&mut self, line: &Value) {
        let uuid = |value: &Value| Uuid::parse_str(value.as_str().unwrap_or_default()).ok();
        if let Some(id) = uuid(&line["room"]) {
            let members = line["members"].as_array().unwrap();
            let room = Room {
                members: members.iter().filter_map(uuid).collect(),
                ..Room::default()
            };
            self.rooms.insert(id, room);
            let key = line["key"].as_str().unwrap().to_owned();
            self.room_ids.insert(key, id);
        }
        if let Some(id) = uuid(&line["event"])
            && let Some(room) = self.rooms.get_mut(&id)
        {
            let seq = line["seq"].as_u64().unwrap();
            room.last_seq = seq;
            if let Some(user) = uuid(&line["user"]) {
                let key = (user, line["id"].as_str().unwrap().to_owned());
                let ts = line["ts"].as_str().unwrap().to_owned();
                room.ids.insert(key, (seq, ts));
            }
            self.clock += 1;
            room.events.push(Event {
                seq,
                frame: line["frame"].as_str().unwrap().to_owned(),
                message: Some(line["message"].clone()).filter(Value::is_object),
            });
        }
    }

    fn authenticate(
        &mut self,
        request: &Value,
        out: &Sender<Vec<u8>>,
        stream: TcpStream,
    ) -> Option<u64> {
        let data = &request["data"];
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&["caffis-chat"]);
        let secret = std::env::var("CAFFIS_JWT_SECRET").unwrap_or_else(|_| SECRET.to_owned());
        let token = jsonwebtoken::decode::<Value>(
            data["token"].as_str()?,
            &DecodingKey::from_secret(secret.as_bytes()),
            &validation,
        )
        .ok()?;
        let user = Uuid::parse_str(token.claims["sub"].as_str()?).ok()?;
        let session = self.next_session;
        self.next_session += 1;
        self.sessions.insert(
            session,
            Session {
                user,
                out: out.clone(),
                stream,
                watched: HashSet::new(),
            },
        );
        let resume = &data["resume"]["rooms"];
        let mut rooms = Vec::new();
        let mut replays = Vec::new();
        for (id, room) in &self.rooms {
            if !room.members.contains(&user) {
                continue;
            }
            let last_seq = room.last_seq;
            let mut entry = json!({"room_id": id, "kind": "group", "last_seq": last_seq,
                "read_seq": self.marks(room, user).0, "unread": self.unread(room, user),
                "watermarks": self.watermarks(room)});
            match resume[id.to_string()].as_u64() {
                None => entry["reason"] = json!("not_requested"),
                Some(position) if position > last_seq => {
                    entry["reason"] = json!("ahead_of_server");
                }
                Some(position) if self.too_much && position < last_seq => {
                    entry["reason"] = json!("too_much");
                }
                Some(position) => {
                    entry["recovered"] = json!(true);
                    entry["from_seq"] = json!(position + 1);
                    entry["to_seq"] = json!(last_seq);
                    let missed = room.events.iter().filter(|event| event.seq > position);
                    let skip = usize::from(self.lame);
                    replays.extend(missed.skip(skip).map(|event| event.frame.clone()));
                }
            }
            entry["recovered"] = json!(entry["recovered"] == true);
            rooms.push(entry);
        }
        let ready = json!({"id": request["id"], "type": "ready", "data": {"user_id": user,
            "epoch": format!("e{}", self.epoch), "rooms": rooms}});
        self.say(session, &ready.to_string());
        for frame in replays {
            self.say(session, &frame);
        }
        self.say(session, r#"{"type":"ping"}"#);
        Some(session)
    }

    fn request(&mut self, session: u64, request: &Value) {
        if !self.sessions.contains_key(&session) {
            // Cut off with requests still in its buffer.
            return;
        }
        match request["type"].as_str().unwrap() {
            "room.create" => self.create(session, request),
            "room.members.add" => self.add_members(session, request),
            "message.send" => self.send(session, request),
            "history.get" => self.history(session, request),
            "message.edit" | "message.delete" | "reaction.add" | "reaction.remove" => {
                self.change(session, request);
            }
            "receipt.delivered" | "receipt.read" if self.fault == Fault::NoReceipts => {
                self.refuse(session, request, "unknown_type", None);
            }
            "receipt.delivered" | "receipt.read" => self.receipt(session, request),
            "typing.start" | "typing.stop" => self.typing(session, request),
            "presence.set" => self.presence_set(session, request),
            "presence.subscribe" => self.presence_subscribe(session, request),
            "rooms.list" => self.rooms_list(session, request),
            "room.get" => self.room_get(session, request),
            "pong" => {}
            other => panic!("the fake server does not know {other}"),
        }
    }

    fn create(&mut self, session: u64, request: &Value) {
        let data = &request["data"];
        let user = self.sessions[&session].user;
        let key = format!("{user} {}", data["client_room_id"]);
        if let Some(id) = self.room_ids.get(&key) {
            let data = json!({"room": {"room_id": id}, "created": false});
            self.ack(session, request, &data);
            return;
        }
        let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes());
        self.room_ids.insert(key.clone(), id);
        let room_key = key;
        let mut members = vec![user];
        for member in data["member_ids"].as_array().unwrap() {
            members.push(Uuid::parse_str(member.as_str().unwrap()).unwrap());
        }
        let added = json!({"type": "room.added", "data": {"room": {"room_id": id}, "last_seq": 0,
            "read_seq": 0}});
        let room = Room {
            members,
            ..Room::default()
        };
        for (other, it) in &self.sessions {
            if room.members.contains(&it.user) {
                self.say(*other, &added.to_string());
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.write(&json!({"room": id, "key": room_key, "members": room.members}));
        }
        self.rooms.insert(id, room);
        self.publish(id, "room.created", &json!({}), None, None);
        let data = json!({"room": {"room_id": id}, "created": true});
        self.ack(session, request, &data);
    }

    fn add_members(&mut self, session: u64, request: &Value) {
        let id = Uuid::parse_str(request["data"]["room_id"].as_str().unwrap()).unwrap();
        for member in request["data"]["user_ids"].as_array().unwrap() {
            let member = Uuid::parse_str(member.as_str().unwrap()).unwrap();
            let data = json!({"user_id": member});
            let system = json!({"kind": "system", "text": null, "client_msg_id": null});
            self.publish(id, "member.joined", &data, Some(system), None);
            let room = self.rooms.get_mut(&id).unwrap();
            room.members.push(member);
            let added = json!({"type": "room.added", "data": {"room": {"room_id": id},
                "last_seq": room.last_seq, "read_seq": 0}});
            for (other, it) in &self.sessions {
                if it.user == member {
                    self.say(*other, &added.to_string());
                }
            }
        }
        self.ack(session, request, &json!({"changed": true}));
    }

    fn is_now(&self, fault: Fault) -> bool {
        self.fault == fault && self.messages == self.at
    }

    fn send(&mut self, session: u64, request: &Value) {
        let data = &request["data"];
        let user = self.sessions[&session].user;
        let room_id = Uuid::parse_str(data["room_id"].as_str().unwrap()).unwrap();
        let key = (user, data["client_msg_id"].as_str().unwrap().to_owned());
        let known = self.rooms[&room_id].ids.get(&key).cloned();
        if let Some((seq, ts)) = known
            && self.fault != Fault::ForgetIds
        {
            let data = ack_data(request, room_id, seq, &ts, true);
            self.ack(session, request, &data);
            return;
        }
        self.messages += 1;
        if self.is_now(Fault::RateLimitOnce) {
            self.refuse(session, request, "rate_limited", Some(50));
            return;
        }
        if self.fault == Fault::RateLimitOnce && self.messages == self.at + 1 {
            // Stored, but it says that it does not know: the retry must be a duplicate.
            self.store(session, request, room_id, &key);
            self.refuse(session, request, "unavailable", None);
            return;
        }
        if self.is_now(Fault::Refuse) {
            self.refuse(session, request, "forbidden", None);
            return;
        }
        if self.is_now(Fault::AckWithoutStoring) {
            let data = ack_data(
                request,
                room_id,
                self.rooms[&room_id].last_seq + 1,
                "t",
                false,
            );
            self.ack(session, request, &data);
            return;
        }
        if self.is_now(Fault::SwapSends) {
            // Held back until after its sender's next one.
            self.held_send = Some((session, request.clone()));
            return;
        }
        let is_again =
            |held: &Value| held["data"]["client_msg_id"] == request["data"]["client_msg_id"];
        if (self.held_send.as_ref()).is_some_and(|(_, held)| is_again(held)) {
            // Its sender became impatient: it is still held back.
            return;
        }
        let held = self.held_send.take_if(|(before, _)| *before == session);
        if let Some((before, held)) = held {
            self.send_through(session, request, room_id, &key);
            let id = held["data"]["client_msg_id"].as_str().unwrap().to_owned();
            self.send_through(before, &held, room_id, &(user, id));
            return;
        }
        self.send_through(session, request, room_id, &key);
    }

    fn send_through(&mut self, session: u64, request: &Value, room_id: Uuid, key: &(Uuid, String)) {
        let (mut seq, ts) = self.store(session, request, room_id, key);
        if self.is_now(Fault::NeverAck) {
            return;
        }
        if self.is_now(Fault::AckOfAnotherSeq) {
            seq += 1;
        }
        let duplicate = self.is_now(Fault::AckAsDuplicate);
        let data = ack_data(request, room_id, seq, &ts, duplicate);
        self.ack(session, request, &data);
        self.after_send(session, room_id);
    }

    /// Faults that concern more than the message itself.
    fn after_send(&mut self, session: u64, room_id: Uuid) {
        if self.messages != self.at {
            return;
        }
        match self.fault {
            Fault::CutAll => self.cut_all(),
            Fault::CutAllTooMuch => {
                self.too_much = true;
                self.cut_all();
            }
            Fault::LameReplay => {
                self.lame = true;
                self.cut_all();
            }
            Fault::ChangeEpoch => {
                self.epoch += 1;
                self.cut_all();
            }
            Fault::CrashAndForget => {
                for room in self.rooms.values_mut() {
                    if room.last_seq < 3 {
                        continue;
                    }
                    room.events.truncate(room.events.len() - 2);
                    room.last_seq = room.events.last().map_or(0, |event| event.seq);
                    let last_seq = room.last_seq;
                    room.ids.retain(|_, (seq, _)| *seq <= last_seq);
                }
                self.cut_all();
            }
            Fault::LoseFromHistory => {
                let room = self.rooms.get_mut(&room_id).unwrap();
                if let Some(event) = room.events.last_mut() {
                    event.message = None;
                }
            }
            Fault::StopClient => {
                let session = &self.sessions[&session];
                let _ = session.out.send(vec![0x88, 2, 0x0f, 0xa3]);
            }
            Fault::GarbageFrame => {
                let session = &self.sessions[&session];
                let _ = session.out.send(text_frame("not json"));
            }
            _ => {}
        }
    }

    fn cut_all(&mut self) {
        for session in self.sessions.values() {
            let _ = session.stream.shutdown(Shutdown::Both);
        }
        self.sessions.clear();
    }

    fn store(
        &mut self,
        session: u64,
        request: &Value,
        room_id: Uuid,
        key: &(Uuid, String),
    ) -> (u64, String) {
        let _ = session;
        let data = &request["data"];
        let mut text = data["text"].as_str().unwrap().to_owned();
        if self.is_now(Fault::AlterText) {
            text.pop();
        }
        let message = json!({"sender_id": key.0, "client_msg_id": key.1, "kind": "text",
            "text": text, "reply_to_seq": data["reply_to_seq"], "reactions": {}, "revision": 1,
            "mentions": data["mentions"].as_array().cloned().unwrap_or_default()});
        let (seq, ts) = self.publish(
            room_id,
            "message.created",
            &json!({"message": message.clone()}),
            Some(message),
            Some(key),
        );
        (seq, ts)
    }

    /// Gives the event its place and sends it to all members who are here.
    fn publish(
        &mut self,
        room_id: Uuid,
        kind: &str,
        data: &Value,
        message: Option<Value>,
        key: Option<&(Uuid, String)>,
    ) -> (u64, String) {
        let is_message = kind == "message.created";
        let (is_skip, is_back) = (
            is_message && self.is_now(Fault::SkipSeq),
            is_message && self.is_now(Fault::TimeBack),
        );
        self.clock += 1;
        let clock = if is_back { 0 } else { self.clock };
        let ts = format!("2026-01-01T00:00:{:02}.{:03}Z", clock / 1000, clock % 1000);
        let room = self.rooms.get_mut(&room_id).unwrap();
        room.last_seq += 1 + u64::from(is_skip);
        let seq = room.last_seq;
        let mut data = data.clone();
        if is_message {
            data["message"]["seq"] = json!(seq);
        }
        let frame = json!({"type": kind, "room_id": room_id, "seq": seq, "ts": ts, "data": data});
        let message = message.map(|mut message| {
            message["seq"] = json!(seq);
            message
        });
        if let Some(key) = key {
            room.ids.insert(key.clone(), (seq, ts.clone()));
            let mark = room.marks.entry(key.0).or_default();
            *mark = (seq, seq);
        }
        if let Some(journal) = &mut self.journal {
            journal.write(
                &json!({"event": room_id, "seq": seq, "frame": frame.to_string(),
                "message": message, "user": key.map(|key| key.0), "id": key.map(|key| &key.1),
                "ts": ts}),
            );
        }
        room.events.push(Event {
            seq,
            frame: frame.to_string(),
            message,
        });
        self.fan_out(room_id, is_message, &frame);
        (seq, ts)
    }

    fn fan_out(&mut self, room_id: Uuid, is_message: bool, frame: &Value) {
        let members = self.rooms[&room_id].members.clone();
        let text = frame.to_string();
        let victim = members.get(1).copied();
        let is_at = is_message && self.messages == self.at;
        let is_after = is_message && self.messages >= self.at;
        for (id, session) in &self.sessions {
            let is_member = members.contains(&session.user);
            let is_victim = Some(session.user) == victim;
            if !is_member {
                if is_at && self.fault == Fault::DeliverToStranger {
                    self.say(*id, &text);
                }
                continue;
            }
            match self.fault {
                Fault::LoseDelivery if is_at && is_victim => {}
                Fault::LoseTail if is_after && is_victim => {}
                Fault::TellGap if is_at && is_victim => {
                    let gap = json!({"type": "room.gap", "room_id": room_id,
                        "data": {"last_seq": frame["seq"], "reason": "position_expired"}});
                    self.say(*id, &gap.to_string());
                }
                Fault::DoubleDelivery if is_at && is_victim => {
                    self.say(*id, &text);
                    self.say(*id, &text);
                }
                Fault::SwapDeliveries if is_at && is_victim => {
                    let room = &self.rooms[&room_id];
                    // The room's next event, made up here, overtakes this one.
                    let mut later = frame.clone();
                    later["seq"] = json!(room.last_seq + 1);
                    later["data"]["message"]["seq"] = later["seq"].clone();
                    self.say(*id, &later.to_string());
                    self.say(*id, &text);
                }
                Fault::AlterForOne if is_at && is_victim => {
                    let mut other = frame.clone();
                    other["data"]["message"]["text"] = json!("something else");
                    self.say(*id, &other.to_string());
                }
                _ => self.say(*id, &text),
            }
        }
    }
}

fn ack_data(request: &Value, room_id: Uuid, seq: u64, ts: &str, duplicate: bool) -> Value {
    json!({"client_msg_id": request["data"]["client_msg_id"], "room_id": room_id, "seq": seq,
        "ts": ts, "duplicate": duplicate})
}
