//! A client as the protocol asks it to be, and as suspicious as it can be: it checks every frame
//! it is sent against what it was promised.

use crate::node::At;
use crate::receipts::Receipts;
use caffis_chat::chat::ConnId;
use caffis_chat::protocol::{RoomId, Seq, UserId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What is the same for everybody, whoever saw it first.
#[derive(Default)]
pub struct Truth {
    /// The event at each place of each room, as first seen by anybody.
    pub events: BTreeMap<(RoomId, Seq), String>,
    /// The place that was acknowledged for each message.
    pub acked: BTreeMap<(RoomId, UserId, Uuid), Seq>,
    /// The place at which each message was seen.
    pub placed: BTreeMap<(RoomId, UserId, Uuid), Seq>,
    /// Each state of each message: by room, `seq` and `changed_seq`.
    pub states: BTreeMap<(RoomId, Seq, Seq), String>,
    /// Events that were acknowledged as changes, and of which message.
    pub changed: BTreeMap<(RoomId, Seq), Seq>,
    /// The node that wrote each event, where it is known.
    pub origin: BTreeMap<(RoomId, Seq), usize>,
    /// Live events that were heard at another node than wrote them.
    pub crossed: u64,
    /// `room.added` that were.
    pub added_across: u64,
}

impl Truth {
    /// Somebody was shown this event.
    fn event(&mut self, room: RoomId, seq: Seq, event: &Value) -> Result<(), String> {
        let shown = same_for_all(room, event);
        match self.events.get(&(room, seq)) {
            None => {
                self.events.insert((room, seq), shown);
            }
            Some(known) if *known == shown => (),
            Some(known) => {
                return Err(format!("two events at {room}/{seq}:\n  {known}\n  {shown}"));
            }
        }
        let message = &event["data"]["message"];
        if !message.is_null() {
            if message["changed_seq"].as_u64() < Some(seq) {
                return Err(format!("a message before its own event: {event}"));
            }
            self.message(room, message)?;
        }
        Ok(())
    }

    fn is_from_elsewhere(&self, room: RoomId, seq: Seq, host: usize) -> bool {
        self.origin
            .get(&(room, seq))
            .is_some_and(|origin| *origin != host)
    }

    /// Somebody was shown this message, in an event or in the history.
    fn message(&mut self, room: RoomId, message: &Value) -> Result<(), String> {
        let (Some(seq), Some(sender)) = (message["seq"].as_u64(), uuid_of(&message["sender_id"]))
        else {
            return Err(format!("not a message: {message}"));
        };
        self.state(room, seq, message)?;
        let Some(id) = uuid_of(&message["client_msg_id"]) else {
            return Ok(());
        };
        let key = (room, UserId(sender), id);
        match self.placed.insert(key, seq) {
            Some(other) if other != seq => Err(format!(
                "message {id} stands at {other} and at {seq} of {room}"
            )),
            _ => Ok(()),
        }
    }
}

impl Truth {
    /// At one `changed_seq` a message is the same for everybody.
    fn state(&mut self, room: RoomId, seq: Seq, message: &Value) -> Result<(), String> {
        let Some(changed_seq) = message["changed_seq"].as_u64() else {
            return Err(format!("a message without changed_seq: {message}"));
        };
        let mut shown = message.clone();
        for (_, reaction) in shown["reactions"].as_object_mut().into_iter().flatten() {
            *reaction = reaction["count"].take();
        }
        let shown = shown.to_string();
        let known = self
            .states
            .entry((room, seq, changed_seq))
            .or_insert_with(|| shown.clone());
        match *known == shown {
            true => Ok(()),
            false => Err(format!(
                "two states of {room}/{seq} at {changed_seq}:\n  {known}\n  {shown}"
            )),
        }
    }
}

/// What no two recipients of an event are told differently: all but the room's spelling, and the
/// state of a message, which may be a later one when the event is told again.
pub fn same_for_all(room: RoomId, event: &Value) -> String {
    let mut shown = event.clone();
    shown["room_id"] = json!(room);
    if let Some(message) = shown["data"].get_mut("message") {
        *message = json!([
            message["seq"],
            message["sender_id"],
            message["client_msg_id"]
        ]);
    }
    shown.to_string()
}

fn uuid_of(value: &Value) -> Option<Uuid> {
    value.as_str().and_then(|text| Uuid::parse_str(text).ok())
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Pending {
    pub room: RoomId,
    pub id: Uuid,
    pub text: String,
}

/// A client's view of one room.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The position: everything up to here was received or caught up.
    pub position: Seq,
    /// The last live event of this connection; live events continue from it.
    pub live: Seq,
    /// Catching up by `history.get` from here.
    pub catching_up: Option<Seq>,
    /// The messages it was shown, by `seq`.
    pub messages: BTreeMap<Seq, Shown>,
    /// Live events without a whole message that came while it was catching up: the pages may be older
    /// than they are and newer than what they change, so they are applied after them.
    later: Vec<Value>,
}

/// A message as a client has it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Shown {
    pub changed_seq: Seq,
    pub text: Option<String>,
    pub deleted: bool,
    pub reactions: BTreeMap<String, u64>,
}

impl Shown {
    /// A whole message.
    pub fn of(message: &Value) -> Shown {
        let reactions = message["reactions"].as_object().into_iter().flatten();
        Shown {
            changed_seq: message["changed_seq"].as_u64().unwrap_or(0),
            text: message["text"].as_str().map(str::to_owned),
            deleted: !message["deleted_at"].is_null(),
            reactions: reactions
                .map(|(emoji, it)| (emoji.clone(), it["count"].as_u64().unwrap_or(0)))
                .collect(),
        }
    }
}

impl View {
    /// A whole message, in an event or in a page.
    fn show(&mut self, message: &Value) {
        let seq = message["seq"].as_u64().unwrap_or(0);
        let shown = Shown::of(message);
        let held = self.messages.entry(seq).or_default();
        if shown.changed_seq > held.changed_seq {
            *held = shown;
        }
    }

    /// An event that is neither old nor ahead of what was caught up.
    fn apply(&mut self, event: &Value) {
        let data = &event["data"];
        if !data["message"].is_null() {
            return self.show(&data["message"]);
        }
        let seq = event["seq"].as_u64().unwrap_or(0);
        let held = data["message_seq"]
            .as_u64()
            .and_then(|seq| self.messages.get_mut(&seq));
        let Some(held) = held.filter(|held| held.changed_seq < seq) else {
            return;
        };
        held.changed_seq = seq;
        match event["type"].as_str() {
            Some("message.deleted") => {
                *held = Shown {
                    changed_seq: seq,
                    deleted: true,
                    ..Shown::default()
                };
            }
            Some("reaction.updated") => {
                let emoji = data["emoji"].as_str().unwrap_or_default().to_owned();
                match data["count"].as_u64() {
                    Some(count) if count > 0 => held.reactions.insert(emoji, count),
                    _ => held.reactions.remove(&emoji),
                };
            }
            _ => (),
        }
    }

    /// Whole messages at once, other live events when everything before them is there.
    fn live_event(&mut self, event: &Value) {
        if self.catching_up.is_some() && event["data"]["message"].is_null() {
            self.later.push(event.clone());
        } else {
            self.apply(event);
        }
    }

    fn caught_up(&mut self, next: Seq) {
        self.catching_up = None;
        self.position = self.position.max(next).max(self.live);
        for event in std::mem::take(&mut self.later) {
            self.apply(&event);
        }
    }
}

/// A socket as both ends see it.
pub struct Wire {
    pub conn: ConnId,
    pub at: At,
    /// Written by the server, not yet read.
    pub to_client: Vec<u8>,
    /// Text frames on their way to the server.
    pub to_server: Vec<String>,
    /// Server side is flushing.
    pub dirty: bool,
    /// Close code, once the server has sent it.
    pub close: Option<u16>,
    pub ready: bool,
    asked: BTreeMap<u64, Asked>,
}

#[derive(Clone, Debug)]
enum Asked {
    Auth,
    Send(RoomId, Uuid),
    History(RoomId),
    Change,
    Other,
}

impl Wire {
    pub fn new(conn: ConnId, at: At) -> Wire {
        Wire {
            conn,
            at,
            to_client: Vec::new(),
            to_server: Vec::new(),
            dirty: false,
            close: None,
            ready: false,
            asked: BTreeMap::new(),
        }
    }
}

pub struct Client {
    pub user: UserId,
    pub wire: Option<Wire>,
    pub rooms: BTreeMap<RoomId, View>,
    pub pending: Vec<Pending>,
    /// Sent and acknowledged: retried now and then all the same.
    pub done: Vec<Pending>,
    pub stalled_until_us: u64,
    pub connect_at_us: u64,
    pub last_host: usize,
    /// Of its last `ready`.
    pub epoch: String,
    /// The store has lost some of its history since then.
    pub may_be_ahead: bool,
    pub receipts: Receipts,
    next_request: u64,
    pub closes: BTreeMap<u16, u32>,
}

impl Client {
    pub fn new(user: UserId) -> Client {
        Client {
            user,
            wire: None,
            rooms: BTreeMap::new(),
            pending: Vec::new(),
            done: Vec::new(),
            stalled_until_us: 0,
            connect_at_us: 0,
            last_host: 0,
            epoch: String::new(),
            may_be_ahead: false,
            receipts: Receipts::default(),
            next_request: 1,
            closes: BTreeMap::new(),
        }
    }

    fn ask(&mut self, kind: &str, data: Value, asked: Asked) {
        let id = self.next_request;
        self.next_request += 1;
        if let Some(wire) = &mut self.wire {
            wire.asked.insert(id, asked);
            wire.to_server
                .push(json!({"id": id, "type": kind, "data": data}).to_string());
        }
    }

    /// Says something to which there is no reply.
    pub fn tell(&mut self, kind: &str, data: &Value) {
        if let Some(wire) = &mut self.wire {
            wire.to_server
                .push(json!({"type": kind, "data": data}).to_string());
        }
    }

    /// Sends a message, until it is acknowledged.
    pub fn say(&mut self, room: RoomId, id: Uuid) {
        let text = "everybody reads this".to_owned();
        let pending = Pending { room, id, text };
        self.send(&pending);
        self.pending.push(pending);
    }

    /// The first frame of a connection.
    pub fn auth(&mut self, expires_at_ms: u64) {
        let mut data = json!({
            "token": format!("{}:{expires_at_ms}", self.user),
            "device_id": "sim",
            "client": {"name": "sim", "version": "1"},
        });
        if !self.rooms.is_empty() {
            let positions: serde_json::Map<String, Value> = self
                .rooms
                .iter()
                .map(|(room, view)| (room.to_string(), view.position.into()))
                .collect();
            data["resume"] = json!({"epoch": self.epoch, "rooms": positions});
        }
        self.ask("auth", data, Asked::Auth);
    }

    pub fn is_ready(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.ready)
    }

    pub fn send(&mut self, pending: &Pending) {
        let data = json!({
            "room_id": pending.room, "client_msg_id": pending.id, "kind": "text", "text": pending.text,
        });
        self.ask("message.send", data, Asked::Send(pending.room, pending.id));
    }

    pub fn request(&mut self, kind: &str, data: Value) {
        self.ask(kind, data, Asked::Other);
    }

    /// Asks for a change of one message, whose outcome may stay open.
    pub fn change(&mut self, kind: &str, data: Value) {
        self.ask(kind, data, Asked::Change);
    }

    fn history(&mut self, room: RoomId, after: Seq) {
        let data = json!({"room_id": room, "after_seq": after, "limit": 10});
        self.ask("history.get", data, Asked::History(room));
    }

    /// Takes one frame of the server.
    pub fn frame(&mut self, text: &str, truth: &mut Truth) -> Result<(), String> {
        let frame: Value =
            serde_json::from_str(text).map_err(|error| format!("{error} in a frame: {text}"))?;
        match frame["type"].as_str().unwrap_or_default() {
            "ready" => self.on_ready(&frame["data"]),
            "ack" => self.on_ack(&frame, truth),
            "error" => self.on_error(&frame),
            "ping" => {
                if let Some(wire) = &mut self.wire {
                    wire.to_server.push("{\"type\":\"pong\"}".to_owned());
                }
                Ok(())
            }
            "room.added" => {
                let data = &frame["data"];
                let room = room_of(&data["room"]["room_id"])?;
                let last_seq = data["last_seq"].as_u64().ok_or("last_seq of room.added")?;
                let elsewhere = truth.is_from_elsewhere(room, last_seq, self.last_host);
                truth.added_across += u64::from(elsewhere);
                let view = self.rooms.entry(room).or_default();
                view.live = last_seq;
                if view.position < last_seq {
                    view.catching_up = Some(view.position);
                    let after = view.position;
                    self.history(room, after);
                }
                Ok(())
            }
            "room.removed" => {
                let room = room_of(&frame["data"]["room_id"])?;
                self.rooms
                    .remove(&room)
                    .map(drop)
                    .ok_or(format!("room.removed for {room}, which is not had"))
            }
            "receipt.updated" => {
                let room = room_of(&frame["room_id"])?;
                if !self.rooms.contains_key(&room) {
                    return Err(format!("a receipt of a room that is not had: {frame}"));
                }
                self.receipts.updated(self.user, room, &frame["data"])
            }
            "unread.updated" => {
                let room = room_of(&frame["data"]["room_id"])?;
                self.receipts.own_updated(room, &frame["data"])
            }
            "server.draining" | "server.closing" => Ok(()),
            _ => self.on_event(&frame, truth),
        }
    }

    fn on_ready(&mut self, data: &Value) -> Result<(), String> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        wire.ready = true;
        wire.asked.clear();
        let epoch = data["epoch"].as_str().unwrap_or_default().to_owned();
        let same_epoch = epoch == self.epoch;
        self.epoch = epoch;
        self.receipts.new_connection();
        if !same_epoch || self.may_be_ahead {
            self.receipts.forget();
        }
        let mut member_of = BTreeSet::new();
        let mut catch_up = Vec::new();
        for room in data["rooms"].as_array().into_iter().flatten() {
            let id = room_of(&room["room_id"])?;
            let last_seq = room["last_seq"].as_u64().ok_or("last_seq of ready")?;
            if room["reason"] == "not_a_member" {
                continue;
            }
            member_of.insert(id);
            let is_same = same_epoch && !self.may_be_ahead;
            self.receipts.ready(id, room, is_same)?;
            let known = self.rooms.contains_key(&id);
            let view = self.rooms.entry(id).or_default();
            view.catching_up = None;
            view.later.clear();
            if !same_epoch {
                view.messages.clear();
            }
            let recovered = room["recovered"] == true;
            if recovered && !same_epoch || room["reason"] == "epoch_changed" && same_epoch {
                return Err(format!("the epoch is the same: {same_epoch}, but {room}"));
            }
            if recovered {
                if room["from_seq"] != view.position + 1 || room["to_seq"] != last_seq {
                    return Err(format!(
                        "recovered from elsewhere than {}: {room}",
                        view.position
                    ));
                }
                view.live = view.position;
            } else {
                let ahead = room["reason"] == "ahead_of_server";
                if ahead && !self.may_be_ahead {
                    return Err(format!(
                        "events that were delivered are gone: {room}, {view:?}"
                    ));
                }
                if known && room["reason"] == "not_requested" {
                    return Err(format!(
                        "a position that was named was not requested: {room}"
                    ));
                }
                if ahead || room["reason"] == "epoch_changed" {
                    // Nothing of what it knows is sure.
                    view.position = 0;
                    view.messages.clear();
                }
                view.live = last_seq;
                view.catching_up = Some(view.position);
                catch_up.push((id, view.position));
            }
        }
        self.may_be_ahead &= same_epoch;
        self.rooms.retain(|room, _| member_of.contains(room));
        for (room, after) in catch_up {
            self.history(room, after);
        }
        for pending in self.pending.clone() {
            self.send(&pending);
        }
        Ok(())
    }

    fn on_ack(&mut self, frame: &Value, truth: &mut Truth) -> Result<(), String> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        let id = frame["id"].as_u64().ok_or("an ack without id")?;
        let asked = wire
            .asked
            .remove(&id)
            .ok_or(format!("an ack that nobody asked for: {frame}"))?;
        let data = &frame["data"];
        match asked {
            Asked::Send(room, id) => {
                let seq = data["seq"].as_u64().ok_or("seq of an ack")?;
                if let Some(place) = self.pending.iter().position(|pending| pending.id == id) {
                    let pending = self.pending.remove(place);
                    self.done.push(pending);
                }
                let key = (room, self.user, id);
                match truth.acked.insert(key, seq) {
                    Some(other) if other != seq => {
                        return Err(format!(
                            "message {id} was acknowledged as {other} and as {seq}"
                        ));
                    }
                    _ => (),
                }
            }
            Asked::History(room) => {
                for message in data["messages"].as_array().into_iter().flatten() {
                    truth.message(room, message)?;
                    self.receipts.spoke(room, message);
                    if let Some(view) = self.rooms.get_mut(&room) {
                        view.show(message);
                    }
                }
                let next = data["next_after_seq"].as_u64().ok_or("next_after_seq")?;
                let more = data["has_more"] == true;
                let Some(view) = self.rooms.get_mut(&room) else {
                    return Ok(());
                };
                if view.catching_up.is_none() {
                    return Ok(());
                }
                if more {
                    // Not yet a position to resume from: what was changed before it, and again after
                    // it, comes with a later page only.
                    view.catching_up = Some(next);
                    self.history(room, next);
                } else {
                    view.caught_up(next);
                }
            }
            Asked::Change => {
                let room = room_of(&data["room_id"])?;
                let (Some(message), Some(seq)) =
                    (data["message_seq"].as_u64(), data["seq"].as_u64())
                else {
                    return Err(format!("no ack of a change: {frame}"));
                };
                if data["changed"] == true && seq > message {
                    truth.changed.insert((room, seq), message);
                }
            }
            Asked::Auth | Asked::Other => (),
        }
        Ok(())
    }

    fn on_error(&mut self, frame: &Value) -> Result<(), String> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        let code = frame["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let asked = frame["id"].as_u64().and_then(|id| wire.asked.remove(&id));
        match (asked, code.as_str()) {
            (Some(Asked::Send(_, id)), "forbidden") => {
                self.pending.retain(|pending| pending.id != id);
                Ok(())
            }
            // A retry comes later, with the same id.
            (_, "unavailable" | "overloaded" | "rate_limited") => Ok(()),
            (Some(Asked::Change), "gone" | "revision_conflict" | "too_large") => Ok(()),
            (_, "forbidden" | "not_found") => Ok(()),
            (asked, code) => Err(format!("{code} to {asked:?}: {frame}")),
        }
    }

    /// Asks again for histories whose answer did not come.
    pub fn retry(&mut self) {
        let Some(wire) = &self.wire else { return };
        if !wire.ready {
            return;
        }
        let asked: BTreeSet<RoomId> = wire
            .asked
            .values()
            .filter_map(|asked| match asked {
                Asked::History(room) => Some(*room),
                Asked::Auth | Asked::Send(..) | Asked::Change | Asked::Other => None,
            })
            .collect();
        let under_way: BTreeSet<Uuid> = wire
            .asked
            .values()
            .filter_map(|asked| match asked {
                Asked::Send(_, id) => Some(*id),
                Asked::Auth | Asked::History(_) | Asked::Change | Asked::Other => None,
            })
            .collect();
        let missing: Vec<(RoomId, Seq)> = self
            .rooms
            .iter()
            .filter(|(room, _)| !asked.contains(room))
            .filter_map(|(room, view)| view.catching_up.map(|after| (*room, after)))
            .collect();
        for (room, after) in missing {
            self.history(room, after);
        }
        for pending in self.pending.clone() {
            if !under_way.contains(&pending.id) {
                self.send(&pending);
            }
        }
    }

    fn on_event(&mut self, frame: &Value, truth: &mut Truth) -> Result<(), String> {
        let room = room_of(&frame["room_id"])?;
        let seq = frame["seq"]
            .as_u64()
            .ok_or(format!("not an event: {frame}"))?;
        truth.event(room, seq, frame)?;
        self.receipts.spoke(room, &frame["data"]["message"]);
        truth.crossed += u64::from(truth.is_from_elsewhere(room, seq, self.last_host));
        let user = self.user;
        let Some(view) = self.rooms.get_mut(&room) else {
            return Err(format!(
                "{user} was told {seq} of {room}, which they are not in"
            ));
        };
        if seq != view.live + 1 {
            return Err(format!(
                "{user} was told {seq} after {} of {room}",
                view.live
            ));
        }
        view.live = seq;
        if seq > view.position {
            view.live_event(frame);
        }
        if view.catching_up.is_none() && seq > view.position {
            if seq != view.position + 1 {
                return Err(format!(
                    "{user} misses {}..{seq} of {room}",
                    view.position + 1
                ));
            }
            view.position = seq;
        }
        Ok(())
    }
}

fn room_of(value: &Value) -> Result<RoomId, String> {
    uuid_of(value)
        .map(RoomId)
        .ok_or(format!("not a room: {value}"))
}
