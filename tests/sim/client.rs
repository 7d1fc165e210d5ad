//! A client as the protocol asks it to be, and as suspicious as it can be: it checks every frame
//! it is sent against what it was promised.

use crate::hints::Hints;
use crate::node::At;
use crate::receipts::Receipts;
use crate::truth::{Truth, uuid_of};
use caffis_chat::chat::ConnId;
use caffis_chat::protocol::{RoomId, Seq, UserId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The reason where what was missed is no longer kept.
const EXPIRED: &str = "position_expired";

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Pending {
    pub room: RoomId,
    pub id: Uuid,
    pub text: String,
    /// Its file.
    pub upload: Option<Uuid>,
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
    /// The last `ready` said that its position is no longer kept.
    pub expired: bool,
    /// Live events without a whole message that came while it was catching up: the pages may be older
    /// than they are and newer than what they change, so they are applied after them.
    later: Vec<Value>,
}

/// A message as a client has it.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Shown {
    pub changed_seq: Seq,
    pub sender: String,
    pub files: Vec<String>,
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
            sender: message["sender_id"].as_str().unwrap_or_default().to_owned(),
            files: files_of(message),
            text: message["text"].as_str().map(str::to_owned),
            deleted: !message["deleted_at"].is_null(),
            reactions: reactions
                .map(|(emoji, it)| (emoji.clone(), it["count"].as_u64().unwrap_or(0)))
                .collect(),
        }
    }
}

/// The uploads in a message.
pub fn files_of(message: &Value) -> Vec<String> {
    let files = message["attachments"].as_array().into_iter().flatten();
    let ids = files.filter_map(|file| file["upload_id"].as_str());
    ids.map(str::to_owned).collect()
}

impl View {
    /// A whole message, in an event or in a page.
    fn show(&mut self, message: &Value) {
        if message["event"]["type"] == "user.erased" {
            let seq = message["seq"].as_u64().unwrap_or(0);
            return self.erase(seq, &message["event"]);
        }
        let seq = message["seq"].as_u64().unwrap_or(0);
        let shown = Shown::of(message);
        let held = self.messages.entry(seq).or_default();
        if shown.changed_seq > held.changed_seq {
            *held = shown;
        }
    }

    /// `user.erased`, as an event or in a page: all messages of one author.
    fn erase(&mut self, event_seq: Seq, data: &Value) {
        let id = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        let (user, stood_as) = (id("user_id"), id("erased_as"));
        for held in self.messages.values_mut() {
            if held.sender == user || held.sender == stood_as {
                *held = Shown {
                    changed_seq: held.changed_seq,
                    sender: stood_as.clone(),
                    deleted: true,
                    ..Shown::default()
                };
            }
        }
        for left in data["reactions"].as_array().into_iter().flatten() {
            let held = left["message_seq"].as_u64();
            let held = held.and_then(|seq| self.messages.get_mut(&seq));
            let Some(held) = held.filter(|held| held.changed_seq <= event_seq) else {
                continue;
            };
            held.changed_seq = event_seq;
            let emoji = left["emoji"].as_str().unwrap_or_default().to_owned();
            match left["count"].as_u64() {
                Some(count) if count > 0 => held.reactions.insert(emoji, count),
                _ => held.reactions.remove(&emoji),
            };
        }
    }

    /// Nothing up to here is kept any more.
    fn drop_up_to(&mut self, floor: Seq) {
        self.messages.retain(|seq, _| *seq > floor);
    }

    /// An event that is neither old nor ahead of what was caught up.
    fn apply(&mut self, event: &Value) {
        let data = &event["data"];
        if event["type"] == "user.erased" {
            return self.erase(event["seq"].as_u64().unwrap_or(0), data);
        }
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
                    sender: std::mem::take(&mut held.sender),
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
    /// Users who are watched from then on.
    Watch,
    /// How it is seen from then on.
    Choice(&'static str),
    /// Whom it blocks, or no longer.
    Block,
    /// A place to bring a file to, for a message in this room.
    Upload(RoomId),
    /// Where to fetch these from.
    Urls(Vec<String>),
    /// Muted and archived, where it says so.
    Own(RoomId, Option<bool>, Option<bool>),
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
    pub hints: Hints,
    /// Tickets that it got and that the world took no note of yet.
    pub tickets: Vec<(RoomId, Uuid)>,
    /// Its user was erased.
    pub erased: bool,
    /// It was told so, and stays away.
    pub gone: bool,
    /// It stays away for a while, also when all is calm.
    pub resting: bool,
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
            hints: Hints::default(),
            tickets: Vec::new(),
            erased: false,
            gone: false,
            resting: false,
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
        self.begin(Pending {
            room,
            id,
            text,
            upload: None,
        });
    }

    /// Sends it, until it is acknowledged.
    pub fn begin(&mut self, pending: Pending) {
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

    /// It was not told yet what became of a block that it asked for.
    pub fn is_blocking(&self) -> bool {
        let asked = self.wire.iter().flat_map(|wire| wire.asked.values());
        asked.into_iter().any(|asked| matches!(asked, Asked::Block))
    }

    pub fn is_ready(&self) -> bool {
        self.wire.as_ref().is_some_and(|wire| wire.ready)
    }

    pub fn send(&mut self, pending: &Pending) {
        let mut data = json!({
            "room_id": pending.room, "client_msg_id": pending.id, "kind": "text", "text": pending.text,
        });
        if let Some(upload) = pending.upload {
            data["kind"] = json!("file");
            data["attachments"] = json!([{ "upload_id": upload }]);
        }
        self.ask("message.send", data, Asked::Send(pending.room, pending.id));
    }

    pub fn request(&mut self, kind: &str, data: Value) {
        self.ask(kind, data, Asked::Other);
    }

    /// Asks for a change of one message, whose outcome may stay open.
    pub fn change(&mut self, kind: &str, data: Value) {
        self.ask(kind, data, Asked::Change);
    }

    /// Wants to be told of these users.
    pub fn watch(&mut self, users: &[UserId]) {
        self.hints.ask(users);
        self.ask(
            "presence.subscribe",
            json!({ "user_ids": users }),
            Asked::Watch,
        );
    }

    /// How this connection wants to be seen.
    pub fn choose(&mut self, state: &'static str) {
        self.ask(
            "presence.set",
            json!({ "state": state }),
            Asked::Choice(state),
        );
    }

    pub fn block(&mut self, user: UserId, blocked: bool) {
        let kind = match blocked {
            true => "user.block",
            false => "user.unblock",
        };
        self.ask(kind, json!({ "user_id": user }), Asked::Block);
    }

    /// Wants to bring a file.
    pub fn upload(&mut self, room: RoomId) {
        let data = json!({
            "room_id": room, "kind": "file", "name": "a.pdf", "size": 100,
            "content_type": "application/pdf",
        });
        self.ask("upload.create", data, Asked::Upload(room));
    }

    pub fn urls(&mut self, room: RoomId, uploads: Vec<String>) {
        let data = json!({"room_id": room, "upload_ids": uploads});
        self.ask("attachment.urls", data, Asked::Urls(uploads));
    }

    /// Mutes the room, or no longer.
    pub fn mute(&mut self, room: RoomId, muted: bool) {
        let mut data = json!({ "room_id": room });
        if !muted {
            data["until"] = Value::Null;
        }
        self.ask("room.mute", data, Asked::Own(room, Some(muted), None));
    }

    /// Archives the room, or no longer.
    pub fn archive(&mut self, room: RoomId, archived: bool) {
        let data = json!({"room_id": room, "archived": archived});
        self.ask("room.archive", data, Asked::Own(room, None, Some(archived)));
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
            "ready" => self.on_ready(&frame["data"], truth),
            "ack" => self.on_ack(&frame, truth),
            "error" => self.on_error(&frame, truth),
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
                self.hints.typing.remove(&room);
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
            "room.gap" => self.on_gap(&frame, truth),
            "receipt.updated" => {
                let room = room_of(&frame["room_id"])?;
                if !self.rooms.contains_key(&room) {
                    return Err(format!("a receipt of a room that is not had: {frame}"));
                }
                self.receipts.updated(self.user, room, &frame["data"])
            }
            "typing.updated" => {
                let room = room_of(&frame["room_id"])?;
                if !self.rooms.contains_key(&room) {
                    return Err(format!("typing in a room that is not had: {frame}"));
                }
                self.hints.typing_updated(room, &frame["data"])
            }
            "presence.updated" => self.hints.presence_updated(&frame["data"]),
            "user.blocks.updated" => Ok(()),
            "unread.updated" => {
                let room = room_of(&frame["data"]["room_id"])?;
                self.receipts.own_updated(room, &frame["data"])
            }
            "server.draining" | "server.closing" => Ok(()),
            _ => self.on_event(&frame, truth),
        }
    }

    /// What was to be replayed is dropped: a page has what there is of it.
    fn on_gap(&mut self, frame: &Value, truth: &mut Truth) -> Result<(), String> {
        let room = room_of(&frame["room_id"])?;
        let last_seq = frame["data"]["last_seq"].as_u64();
        let floor = truth.floors.get(&room).copied().unwrap_or(0);
        let view = self.rooms.get_mut(&room);
        let (Some(view), Some(last_seq)) = (view, last_seq) else {
            return Err(format!("a gap nowhere: {frame}"));
        };
        if last_seq <= view.live || last_seq > floor || frame["data"]["reason"] != EXPIRED {
            return Err(format!("no gap above the floor {floor}: {frame}, {view:?}"));
        }
        truth.gaps_told += 1;
        view.live = last_seq;
        if view.catching_up.is_none() {
            let after = view.position;
            view.catching_up = Some(after);
            self.history(room, after);
        }
        Ok(())
    }

    fn on_ready(&mut self, data: &Value, truth: &Truth) -> Result<(), String> {
        let Some(wire) = &mut self.wire else {
            return Ok(());
        };
        wire.ready = true;
        wire.asked.clear();
        let epoch = data["epoch"].as_str().unwrap_or_default().to_owned();
        let same_epoch = epoch == self.epoch;
        self.epoch = epoch;
        self.receipts.new_connection();
        self.hints = Hints::default();
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
            self.receipts.own_is(id, room);
            let known = self.rooms.contains_key(&id);
            let view = self.rooms.entry(id).or_default();
            view.catching_up = None;
            view.expired = false;
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
                view.expired = room["reason"] == EXPIRED;
                let floor = truth.floors.get(&id).copied().unwrap_or(0);
                if view.expired && view.position >= floor {
                    return Err(format!("expired above the floor {floor}: {room}, {view:?}"));
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
                let key = truth.key_now((room, self.user, id));
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
                if let (Some(floor), Some(view)) =
                    (data["floor_seq"].as_u64(), self.rooms.get_mut(&room))
                {
                    view.drop_up_to(floor);
                }
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
            Asked::Watch => self.hints.told(&data["users"])?,
            Asked::Choice(state) => self.hints.choice = state,
            Asked::Block => {
                let other = uuid_of(&data["user_id"]).ok_or("an ack of a block")?;
                truth.block_acked(self.user, UserId(other), data["blocked"] == true);
            }
            Asked::Upload(room) => {
                let upload = uuid_of(&data["upload_id"]).ok_or("a ticket without upload")?;
                self.tickets.push((room, upload));
            }
            Asked::Urls(asked) => {
                let urls = data["urls"].as_array().into_iter().flatten();
                for url in urls {
                    let upload = url["upload_id"].as_str().unwrap_or_default();
                    if !asked.iter().any(|asked| asked == upload) {
                        return Err(format!("told of a file that was not asked for: {frame}"));
                    }
                }
            }
            Asked::Own(room, muted, archived) => {
                self.receipts.own_set(room, muted, archived);
            }
            Asked::Auth | Asked::Other => (),
        }
        Ok(())
    }

    fn on_error(&mut self, frame: &Value, truth: &mut Truth) -> Result<(), String> {
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
            (Some(Asked::Auth), "unauthenticated") if self.erased => Ok(()),
            (
                Some(Asked::Send(_, id)),
                "gone" | "not_found" | "too_large" | "unsupported_media",
            ) if self.sends_file(id) => {
                // Said only where the message is not there; a file that is in another message stays there.
                if code == "gone" {
                    truth.refused.insert(id);
                }
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

    fn sends_file(&self, id: Uuid) -> bool {
        let mut own = self.pending.iter().chain(&self.done);
        own.any(|pending| pending.id == id && pending.upload.is_some())
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
                _ => None,
            })
            .collect();
        let under_way: BTreeSet<Uuid> = wire
            .asked
            .values()
            .filter_map(|asked| match asked {
                Asked::Send(_, id) => Some(*id),
                _ => None,
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
