//! What the fake server does beside sends: changes of messages, receipts, typing, presence, lists.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Fault, Inner, Room};

/// The messages of a room in their current state, by `seq`.
fn messages(room: &Room) -> impl Iterator<Item = &Value> {
    room.events
        .iter()
        .filter_map(|event| event.message.as_ref())
}

fn changed_seq(message: &Value) -> u64 {
    message["changed_seq"]
        .as_u64()
        .unwrap_or_else(|| message["seq"].as_u64().unwrap())
}

fn is_deleted(message: &Value) -> bool {
    message["deleted_at"].is_string()
}

impl Inner {
    /// Whether this is the occasion at which the fault happens.
    fn strikes(&mut self, fault: Fault) -> bool {
        if self.fault != fault {
            return false;
        }
        self.strikes += 1;
        // What later changes would make up for goes on from there.
        let is_lasting = matches!(fault, Fault::MiscountStored | Fault::EditNotStored);
        self.strikes == self.at || is_lasting && self.strikes > self.at
    }

    pub fn strikes_so_far(&self) -> u64 {
        self.strikes
    }

    fn room_of(request: &Value) -> Uuid {
        Uuid::parse_str(request["data"]["room_id"].as_str().unwrap()).unwrap()
    }

    pub(super) fn change(&mut self, session: u64, request: &Value) {
        let kind = request["type"].as_str().unwrap();
        let data = &request["data"];
        let room_id = Self::room_of(request);
        let user = self.sessions[&session].user;
        let seq = data["message_seq"].as_u64().unwrap();
        let room = &self.rooms[&room_id];
        let Some(mut message) = messages(room)
            .find(|message| message["seq"] == seq && message["kind"] == "text")
            .cloned()
        else {
            self.refuse(session, request, "not_found", None);
            return;
        };
        let is_author = message["sender_id"] == json!(user);
        let is_owner = room.members[0] == user;
        if kind == "message.edit" && !is_author
            || kind == "message.delete" && !is_author && !is_owner
        {
            self.refuse(session, request, "forbidden", None);
            return;
        }
        if is_deleted(&message) && matches!(kind, "message.edit" | "reaction.add") {
            self.refuse(session, request, "gone", None);
            return;
        }
        let emoji = data["emoji"].as_str().unwrap_or_default().to_owned();
        let reaction = (seq, user, emoji.clone());
        let is_held = room.reactions.contains(&reaction);
        let holds = match kind {
            "message.edit" => message["text"] == data["text"],
            "message.delete" => is_deleted(&message),
            "reaction.add" => is_held,
            _ => !is_held,
        };
        let revision = message["revision"].as_u64().unwrap_or(1);
        let answer = |changed: bool, seq: u64, revision: u64| {
            json!({"room_id": room_id, "message_seq": data["message_seq"], "changed": changed,
                "seq": seq, "revision": revision})
        };
        if holds {
            let data = answer(false, changed_seq(&message), revision);
            self.ack(session, request, &data);
            return;
        }
        let expected = data["expected_revision"].as_u64();
        if kind == "message.edit" && expected.is_some_and(|expected| expected != revision) {
            self.refuse(session, request, "revision_conflict", None);
            return;
        }
        let next = room.last_seq + 1;
        if kind == "message.edit" && self.strikes(Fault::LoseEdit) {
            let data = answer(true, next, revision + 1);
            self.ack(session, request, &data);
            return;
        }
        message["changed_seq"] = json!(next);
        let (name, mut told) = match kind {
            "message.edit" => {
                message["text"] = data["text"].clone();
                message["revision"] = json!(revision + 1);
                let told = json!({"message_seq": seq, "message": message});
                ("message.updated", told)
            }
            "message.delete" => {
                if !self.strikes(Fault::DeletedTextBack) {
                    message["text"] = Value::Null;
                }
                message["deleted_at"] = json!("2026-01-01T00:00:00.000Z");
                message["mentions"] = json!([]);
                message["reactions"] = json!({});
                let room = self.rooms.get_mut(&room_id).unwrap();
                room.reactions.retain(|(of, _, _)| *of != seq);
                let told = json!({"message_seq": seq, "actor_id": user,
                    "deleted_at": message["deleted_at"]});
                ("message.deleted", told)
            }
            _ => {
                let added = kind == "reaction.add";
                let room = self.rooms.get_mut(&room_id).unwrap();
                if added {
                    room.reactions.insert(reaction);
                } else {
                    room.reactions.remove(&reaction);
                }
                let of = |(of, _, what): &&(u64, Uuid, String)| *of == seq && *what == emoji;
                let count = room.reactions.iter().filter(of).count() as u64;
                let stored = count + u64::from(added && self.strikes(Fault::MiscountStored));
                if stored == 0 {
                    message["reactions"].as_object_mut().unwrap().remove(&emoji);
                } else {
                    message["reactions"][&emoji] = json!({"count": stored});
                }
                let count = count + u64::from(added && self.strikes(Fault::MiscountEvent));
                let told = json!({"message_seq": seq, "user_id": user, "emoji": emoji,
                    "added": added, "count": count});
                ("reaction.updated", told)
            }
        };
        self.publish(room_id, name, &told, None, None);
        let mut at = next;
        if kind == "message.edit" && self.strikes(Fault::EditTwice) {
            message["revision"] = json!(revision + 2);
            at += 1;
            message["changed_seq"] = json!(at);
            told["message"] = message.clone();
            self.publish(room_id, name, &told, None, None);
        }
        let is_forgotten = kind == "message.edit" && self.strikes(Fault::EditNotStored);
        let room = self.rooms.get_mut(&room_id).unwrap();
        let event = room.events.iter_mut().find(|event| event.seq == seq);
        let revision = message["revision"].as_u64().unwrap_or(1);
        if !is_forgotten {
            event.unwrap().message = Some(message);
        }
        let data = answer(true, at, revision);
        self.ack(session, request, &data);
    }

    pub(super) fn marks(&self, room: &Room, user: Uuid) -> (u64, u64) {
        room.marks.get(&user).copied().unwrap_or_default()
    }

    pub(super) fn unread(&self, room: &Room, user: Uuid) -> u64 {
        let (read_seq, _) = self.marks(room, user);
        let is_unread = |message: &&Value| {
            message["seq"].as_u64() > Some(read_seq)
                && message["kind"] == "text"
                && message["sender_id"] != json!(user)
                && !is_deleted(message)
        };
        let unread = messages(room).filter(is_unread).count() as u64;
        unread.min(100) + u64::from(self.fault == Fault::UnreadOffByOne)
    }

    pub(super) fn watermarks(&self, room: &Room) -> Value {
        let members = room.members.iter().map(|member| {
            let (read, delivered) = self.marks(room, *member);
            json!({"user_id": member, "name": "x", "role": "member", "read_seq": read,
                "delivered_seq": delivered})
        });
        members.collect()
    }

    pub(super) fn receipt(&mut self, session: u64, request: &Value) {
        let user = self.sessions[&session].user;
        for (room_id, seq) in request["data"]["rooms"].as_object().unwrap() {
            let room_id = Uuid::parse_str(room_id).unwrap();
            if self.fault == Fault::LoseReceipts {
                self.strikes += 1;
                if self.strikes >= self.at {
                    continue;
                }
            }
            let room = self.rooms.get_mut(&room_id).unwrap();
            let seq = seq.as_u64().unwrap().min(room.last_seq);
            let mark = room.marks.entry(user).or_default();
            let before = *mark;
            if request["type"] == "receipt.read" {
                mark.0 = mark.0.max(seq);
            }
            mark.1 = mark.1.max(seq);
            let mut told = *mark;
            if told == before {
                continue;
            }
            let was_told = !room.told.insert(user);
            if was_told && self.strikes(Fault::WatermarkBack) {
                told = (0, 0);
            }
            let data = json!({"user_id": user, "read_seq": told.0, "delivered_seq": told.1});
            self.tell(room_id, Some(user), "receipt.updated", &data);
        }
    }

    /// Tells the members something that has no place in the room's log.
    fn tell(&self, room_id: Uuid, but: Option<Uuid>, kind: &str, data: &Value) {
        let frame = json!({"type": kind, "room_id": room_id, "data": data}).to_string();
        let members = &self.rooms[&room_id].members;
        for (id, session) in &self.sessions {
            if members.contains(&session.user) && Some(session.user) != but {
                self.say(*id, &frame);
            }
        }
    }

    pub(super) fn typing(&mut self, session: u64, request: &Value) {
        let user = self.sessions[&session].user;
        let room_id = Self::room_of(request);
        let is_start = request["type"] == "typing.start";
        let is_stuck = is_start && self.strikes(Fault::StrangerTypes);
        let mut users = vec![user];
        if is_stuck {
            users = vec![Uuid::from_u128(7)];
        }
        let data = json!({"user_ids": users});
        if is_start {
            self.tell(room_id, None, "typing.updated", &data);
        }
        // Forgotten at once: an earlier end is no anomaly.
        let data = json!({"user_ids": []});
        self.tell(room_id, None, "typing.updated", &data);
    }

    pub(super) fn presence_set(&mut self, session: u64, request: &Value) {
        let user = self.sessions[&session].user;
        let state = request["data"]["state"].clone();
        let data = json!({"state": state, "changed": true});
        self.ack(session, request, &data);
        let state = match state.as_str().unwrap() {
            "invisible" => json!("offline"),
            _ => state,
        };
        let is_loud = self.strikes(Fault::PresenceForAll);
        let frame = json!({"type": "presence.updated", "data":
            {"users": [{"user_id": user, "state": state}]}});
        for (id, other) in &self.sessions {
            if is_loud || other.watched.contains(&user) {
                self.say(*id, &frame.to_string());
            }
        }
    }

    pub(super) fn presence_subscribe(&mut self, session: u64, request: &Value) {
        let users = request["data"]["user_ids"].as_array().unwrap();
        let watched = &mut self.sessions.get_mut(&session).unwrap().watched;
        let mut told = Vec::new();
        for user in users {
            watched.insert(Uuid::parse_str(user.as_str().unwrap()).unwrap());
            told.push(json!({"user_id": user, "state": "online"}));
        }
        let data = json!({"users": told, "until": "2026-01-01T00:15:00.000Z"});
        self.ack(session, request, &data);
    }

    pub(super) fn rooms_list(&mut self, session: u64, request: &Value) {
        let user = self.sessions[&session].user;
        let rooms: Vec<Value> = self
            .rooms
            .iter()
            .filter(|(_, room)| room.members.contains(&user))
            .map(|(id, room)| {
                json!({"room_id": id, "kind": "group", "last_seq": room.last_seq,
                    "read_seq": self.marks(room, user).0, "unread": self.unread(room, user)})
            })
            .collect();
        self.ack(session, request, &json!({"rooms": rooms}));
    }

    pub(super) fn room_get(&mut self, session: u64, request: &Value) {
        let user = self.sessions[&session].user;
        let id = Self::room_of(request);
        let room = &self.rooms[&id];
        let data = json!({"room": {"room_id": id, "kind": "group", "last_seq": room.last_seq,
            "members": self.watermarks(room)}, "read_seq": self.marks(room, user).0,
            "unread": self.unread(room, user)});
        self.ack(session, request, &data);
    }

    pub(super) fn history(&mut self, session: u64, request: &Value) {
        let data = &request["data"];
        let room = &self.rooms[&Self::room_of(request)];
        // Small pages, so that short runs turn them.
        let pages = if self.journal.is_some() { 100 } else { 7 };
        let limit = data["limit"].as_u64().unwrap().min(pages) as usize;
        let mut found: Vec<Value> = messages(room).cloned().collect();
        for message in &mut found {
            message["changed_seq"] = json!(changed_seq(message));
        }
        let last_seq = room.last_seq;
        let reply = match data["after_seq"].as_u64() {
            Some(after) => {
                found.retain(|message| changed_seq(message) > after);
                found.sort_by_key(changed_seq);
                let has_more = found.len() > limit;
                found.truncate(limit);
                let next = match found.last() {
                    Some(message) if has_more => changed_seq(message),
                    _ => last_seq,
                };
                json!({"messages": found, "has_more": has_more, "last_seq": last_seq,
                    "next_after_seq": next})
            }
            None => {
                let before = data["before_seq"].as_u64().unwrap_or(u64::MAX);
                found.retain(|message| message["seq"].as_u64() < Some(before));
                let rest = found.len().saturating_sub(limit);
                let page = found.split_off(rest);
                json!({"messages": page, "has_more": rest > 0, "last_seq": last_seq})
            }
        };
        self.ack(session, request, &reply);
    }
}
