//! A client of the chat protocol that trusts nobody: every frame is checked against the document,
//! every reply against its request, and every room's events must come once, in order, without a
//! gap, from the position that `ready` or `room.added` told.

use super::socket::{End, Frame, Socket};
use super::token::User;
use super::wait::DEADLINE;
use crate::schema;
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A client.
#[derive(Debug)]
pub struct Client {
    pub socket: Socket,
    pub user: User,
    /// `data` of `ready`; null before.
    pub ready: Value,
    /// Per room, the newest event received, or what they begin after.
    pub positions: BTreeMap<Uuid, u64>,
    /// Pings received, each of which was answered.
    pub pings: usize,
    next_id: u64,
    /// Requests that have no reply yet, by id.
    asked: BTreeMap<u64, String>,
    replies: BTreeMap<u64, Value>,
    events: VecDeque<Value>,
}

impl Client {
    /// A client that has not said anything.
    pub fn new(socket: Socket, user: &User) -> Client {
        Client {
            socket,
            user: user.clone(),
            ready: Value::Null,
            positions: BTreeMap::new(),
            pings: 0,
            next_id: 1,
            asked: BTreeMap::new(),
            replies: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    /// A client that is signed in, from these positions on.
    pub fn sign_in(socket: Socket, user: &User, resume: Option<Value>) -> Client {
        let mut client = Client::new(socket, user);
        let id = client.tell_auth(&user.token(), resume);
        let ready = client.reply(id);
        assert_eq!(ready["type"], "ready", "{ready}");
        client
    }

    /// Sends `auth`.
    pub fn tell_auth(&mut self, token: &str, resume: Option<Value>) -> u64 {
        let mut data = json!({
            "token": token,
            "device_id": Uuid::new_v4(),
            "client": {"name": "end-to-end", "version": "1.0.0"},
        });
        if let Some(resume) = resume {
            data["resume"] = resume;
        }
        self.tell("auth", &data)
    }

    /// The shard that has this connection, which is the first part of its id.
    pub fn shard(&self) -> usize {
        let id = self.ready["connection_id"].as_str().expect("ready");
        let shard = id.split('-').next().expect("a part");
        shard.parse().expect("a number")
    }

    /// Sends a request.
    pub fn tell(&mut self, name: &str, data: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let text = json!({"id": id, "type": name, "data": data}).to_string();
        let kind = schema::validate_client_frame(&text).expect("a request of the document");
        assert_eq!(kind, format!("request.{name}"));
        self.asked.insert(id, name.to_owned());
        self.socket.send_text(&text);
        id
    }

    /// Sends a request that wants no reply.
    pub fn tell_only(&mut self, name: &str, data: &Value) {
        let text = json!({"type": name, "data": data}).to_string();
        schema::validate_client_frame(&text).expect("a request of the document");
        self.socket.send_text(&text);
    }

    /// Sends a request as it stands, good or bad, whose reply has this id.
    pub fn tell_text(&mut self, id: u64, name: &str, text: &str) {
        self.asked.insert(id, name.to_owned());
        self.next_id = self.next_id.max(id + 1);
        self.socket.send_text(text);
    }

    /// Waits for a reply. Events that come before it are kept.
    pub fn reply(&mut self, id: u64) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(reply) = self.replies.remove(&id) {
                return reply;
            }
            self.receive_one("a reply", deadline);
        }
    }

    /// Whether a reply has come by now, of what was read so far.
    pub fn is_replied(&self, id: u64) -> bool {
        self.replies.contains_key(&id)
    }

    /// Waits for a reply, as long as the connection stands.
    pub fn reply_or_end(&mut self, id: u64) -> Result<Value, End> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(reply) = self.replies.remove(&id) {
                return Ok(reply);
            }
            self.receive_until(deadline)?;
        }
    }

    /// Sends a request and waits for its reply.
    pub fn ask(&mut self, name: &str, data: &Value) -> Value {
        let id = self.tell(name, data);
        self.reply(id)
    }

    /// Sends a request and waits for its ack, whose data it is.
    pub fn ack(&mut self, name: &str, data: &Value) -> Value {
        let mut reply = self.ask(name, data);
        assert_eq!(reply["type"], "ack", "{name} {data}: {reply}");
        reply["data"].take()
    }

    /// Sends a request and waits for its refusal, whose code it is.
    pub fn refusal(&mut self, name: &str, data: &Value) -> String {
        code_of(&self.ask(name, data))
    }

    /// The next event.
    pub fn event(&mut self) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.receive_one("an event", deadline);
        }
    }

    /// The next event of this type; those before it are kept.
    pub fn event_of(&mut self, kind: &str) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(event) = self.take_event_of(kind) {
                return event;
            }
            self.receive_one(kind, deadline);
        }
    }

    /// An event of this type that has arrived.
    pub fn take_event_of(&mut self, kind: &str) -> Option<Value> {
        let place = self.events.iter().position(|event| event["type"] == kind)?;
        self.events.remove(place)
    }

    /// The next message created in this room; other events before it are kept.
    pub fn message(&mut self, room: Uuid) -> Value {
        let is_it = |event: &Value| {
            event["type"] == "message.created" && event["room_id"] == room.to_string()
        };
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(place) = self.events.iter().position(is_it) {
                return self.events.remove(place).expect("it is there");
            }
            self.receive_one("a message", deadline);
        }
    }

    /// All events that have arrived and were not taken yet.
    pub fn take_events(&mut self) -> Vec<Value> {
        self.events.drain(..).collect()
    }

    /// Waits until this room's events have come up to this one.
    pub fn wait_for_seq(&mut self, room: Uuid, seq: u64) {
        let deadline = Instant::now() + DEADLINE;
        while self
            .positions
            .get(&room)
            .is_none_or(|position| *position < seq)
        {
            self.receive_one("an event of a room", deadline);
        }
    }

    /// Whatever this connection's shard had to say to it before now has arrived after this.
    pub fn round_trip(&mut self) {
        self.ack("rooms.list", &json!({"limit": 1}));
    }

    /// Reads up to the end of the connection. Events before it are kept.
    pub fn end(&mut self) -> End {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Err(end) = self.receive_until(deadline) {
                return end;
            }
        }
    }

    /// Reads up to the end, which must be a close with this code.
    pub fn closed_with(&mut self, code: u16) {
        match self.end() {
            End::Close(Some(own), reason) => {
                assert_eq!(own, code, "{reason}");
                assert!(!reason.is_empty(), "a code without a reason");
            }
            other => panic!("{other:?} instead of {code}"),
        }
    }

    /// Takes what has come, and answers pings: as long as something else is waited for, which may take longer than
    /// a silent client is kept.
    pub fn attend(&mut self) {
        loop {
            match self.receive(Duration::from_millis(1)) {
                Ok(()) => (),
                Err(End::Silent) => return,
                Err(end) => panic!("{}: {end:?}", self.user.name),
            }
        }
    }

    /// Takes one frame, or the end.
    ///
    /// # Errors
    /// The end.
    pub fn receive(&mut self, within: Duration) -> Result<(), End> {
        self.receive_until(Instant::now() + within)
    }

    fn receive_until(&mut self, deadline: Instant) -> Result<(), End> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.socket.read_within(left)? {
            Frame::Pong(_) => Ok(()),
            Frame::Text(text) => {
                self.take(&text);
                Ok(())
            }
        }
    }

    /// Takes one frame. The deadline is that of the whole wait: pings come for ever.
    fn receive_one(&mut self, what: &str, deadline: Instant) {
        if let Err(end) = self.receive_until(deadline) {
            panic!("{}: waited for {what}: {end:?}", self.user.name);
        }
    }

    fn take(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).expect("JSON");
        match frame["type"].as_str().expect("every frame has a type") {
            "ping" => {
                schema::validate_server_frame(text).expect("a ping");
                self.pings += 1;
                self.tell_only("pong", &json!({}));
            }
            "ack" | "error" | "ready" => self.take_reply(frame, text),
            _ => {
                schema::validate_server_frame(text).expect("an event");
                self.follow(&frame);
                self.events.push_back(frame);
            }
        }
    }

    fn take_reply(&mut self, frame: Value, text: &str) {
        // A request that was no request has no id to answer to.
        let id = frame["id"].as_u64().unwrap_or(0);
        let asked = match id {
            0 => None,
            id => Some(
                self.asked
                    .remove(&id)
                    .unwrap_or_else(|| panic!("nobody asked: {text}")),
            ),
        };
        match asked.as_deref() {
            Some("") | None => schema::validate_server_frame(text).expect("an error"),
            Some(name) => schema::validate_reply(name, text).expect("its reply"),
        };
        if frame["type"] == "ready" {
            self.ready = frame["data"].clone();
            self.stand(&frame["data"]);
        }
        let again = self.replies.insert(id, frame);
        assert!(again.is_none() || id == 0, "a second reply: {text}");
    }

    /// Where the rooms stand after `ready`.
    fn stand(&mut self, ready: &Value) {
        for room in ready["rooms"].as_array().expect("rooms") {
            if room.get("kind").is_none() {
                continue;
            }
            let after = match room["recovered"].as_bool().expect("recovered") {
                true => room["from_seq"].as_u64().expect("from_seq") - 1,
                false => room["last_seq"].as_u64().expect("last_seq"),
            };
            let again = self.positions.insert(uuid(&room["room_id"]), after);
            assert!(again.is_none(), "a room twice: {ready}");
        }
    }

    fn follow(&mut self, event: &Value) {
        let data = &event["data"];
        if event["type"] == "room.added" {
            let last_seq = data["last_seq"].as_u64().expect("last_seq");
            let again = self
                .positions
                .insert(uuid(&data["room"]["room_id"]), last_seq);
            assert!(again.is_none(), "added to a room that it has: {event}");
        } else if event["type"] == "room.removed" {
            let had = self.positions.remove(&uuid(&data["room_id"]));
            assert!(
                had.is_some(),
                "removed from a room that it has not: {event}"
            );
        } else if event["type"] == "room.gap" {
            let position = self.positions.get_mut(&uuid(&event["room_id"]));
            let position = position.unwrap_or_else(|| panic!("a stranger's gap: {event}"));
            let after = data["last_seq"].as_u64().expect("last_seq");
            assert!(after > *position, "no gap after {position}: {event}");
            *position = after;
        } else if let Some(seq) = event["seq"].as_u64() {
            let position = self.positions.get_mut(&uuid(&event["room_id"]));
            let position = position.unwrap_or_else(|| panic!("a stranger's event: {event}"));
            assert_eq!(seq, *position + 1, "{}: {event}", self.user.name);
            *position = seq;
        }
    }

    /// Opens the direct room with this user, or finds it.
    pub fn direct(&mut self, other: &User) -> Uuid {
        let data = json!({
            "kind": "direct", "member_ids": [other.id], "client_room_id": Uuid::new_v4(),
        });
        let room = uuid(&self.ack("room.create", &data)["room"]["room_id"]);
        self.wait_for_seq(room, 1);
        room
    }

    /// Opens a group with these users.
    pub fn group(&mut self, others: &[&User]) -> Uuid {
        let members: Vec<Uuid> = others.iter().map(|user| user.id).collect();
        let data = json!({
            "kind": "group", "member_ids": members, "title": "A group",
            "client_room_id": Uuid::new_v4(),
        });
        let room = uuid(&self.ack("room.create", &data)["room"]["room_id"]);
        self.wait_for_seq(room, 1);
        room
    }

    /// Sends a message and waits for its ack: its `seq`.
    pub fn send(&mut self, room: Uuid, text: &str) -> u64 {
        let sent = self.ack("message.send", &message(room, Uuid::now_v7(), text));
        assert_eq!(sent["duplicate"], false, "{sent}");
        sent["seq"].as_u64().expect("a seq")
    }

    /// All messages of a room after this one, page by page.
    pub fn history_after(&mut self, room: Uuid, after_seq: u64) -> Vec<Value> {
        let mut messages = Vec::new();
        let mut after_seq = after_seq;
        loop {
            let asked = json!({"room_id": room, "after_seq": after_seq});
            let mut page = self.ack("history.get", &asked);
            let next = page["next_after_seq"].as_u64().expect("next_after_seq");
            if let Value::Array(page) = page["messages"].take() {
                messages.extend(page);
            }
            if page["has_more"] == false {
                assert_eq!(page["last_seq"], next);
                return messages;
            }
            assert!(next > after_seq, "a page leads on: {page}");
            after_seq = next;
        }
    }
}

/// `data` of a text message.
pub fn message(room: Uuid, client_msg_id: Uuid, text: &str) -> Value {
    json!({"room_id": room, "client_msg_id": client_msg_id, "kind": "text", "text": text})
}

/// An id.
pub fn uuid(value: &Value) -> Uuid {
    let text = value.as_str().unwrap_or_else(|| panic!("no id: {value}"));
    Uuid::parse_str(text).expect("an id")
}

/// The code of an error, whose flag must be that of its code.
pub fn code_of(reply: &Value) -> String {
    assert_eq!(reply["type"], "error", "{reply}");
    let error = &reply["error"];
    let code = error["code"].as_str().expect("a code").to_owned();
    let temporary = ["rate_limited", "overloaded", "unavailable", "internal"];
    assert_eq!(
        error["temporary"],
        temporary.contains(&code.as_str()),
        "{reply}"
    );
    assert_eq!(
        error.get("retry_after_ms").is_some(),
        error["temporary"] == true,
        "{reply}"
    );
    code
}
