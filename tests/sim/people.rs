//! What the people do: they come, go, write, change what was written, make rooms, and change who is in
//! them.

use crate::client::Pending;
use crate::world::World;
use caffis_chat::protocol::{RoomId, UserId};
use serde_json::json;

impl World {
    /// A client does something.
    pub fn act(&mut self) -> Result<(), String> {
        for place in self.each() {
            if self.clients[place].gone || self.clients[place].resting {
                continue;
            }
            if self.clients[place].wire.is_none() {
                if self.clients[place].connect_at_us <= self.now_us || self.calm {
                    self.connect(place)?;
                }
                continue;
            }
            if self.calm {
                continue;
            }
            if self.rng.permille(self.scenario.cut_permille) {
                self.report.cuts += 1;
                self.hang_up(place, None)?;
                continue;
            }
            if self.rng.permille(self.scenario.stall_permille) {
                let stall_us = self.rng.below(60_000_000) as u64;
                self.clients[place].stalled_until_us = self.now_us + stall_us;
            }
            for _ in 0..1 + self.rng.below(self.scenario.busy) {
                if self.clients[place].is_ready() {
                    self.use_room(place)?;
                }
            }
        }
        Ok(())
    }

    fn use_room(&mut self, place: usize) -> Result<(), String> {
        let user = self.clients[place].user;
        if self.clients[place].rooms.is_empty() || self.rng.permille(10) {
            let mut members: Vec<UserId> = (0..3)
                .map(|_| {
                    let other = self.pick_client();
                    self.clients[other].user
                })
                .filter(|other| *other != user)
                .collect();
            let direct = self.rng.permille(300) && !members.is_empty();
            if direct {
                members.truncate(1);
            }
            let kind = if direct { "direct" } else { "group" };
            let id = uuid::Uuid::from_u128(self.rng.below(3) as u128);
            let data = json!({"kind": kind, "member_ids": members, "client_room_id": id});
            let idempotent = direct || !self.rooms.contains(&RoomId::group(user, id));
            if idempotent {
                let room = match direct {
                    true => RoomId::direct(user, members[0]),
                    false => RoomId::group(user, id),
                };
                if !self.rooms.contains(&room) {
                    self.rooms.push(room);
                }
                self.clients[place].request("room.create", data);
            }
            return Ok(());
        }
        let rooms: Vec<RoomId> = self.clients[place].rooms.keys().copied().collect();
        if rooms.is_empty() {
            return Ok(());
        }
        let room = rooms[self.rng.below(rooms.len())];
        if !self.clients[place].tickets.is_empty() && self.rng.permille(500) {
            self.use_file(place, room);
            return Ok(());
        }
        if self.rng.permille(self.scenario.member_permille) {
            let other = self.pick_client();
            let users = [self.clients[other].user];
            let (kind, data) = match self.rng.below(3) {
                0 => (
                    "room.members.remove",
                    json!({"room_id": room, "user_ids": users}),
                ),
                1 => ("room.leave", json!({"room_id": room})),
                _ => (
                    "room.members.add",
                    json!({"room_id": room, "user_ids": users}),
                ),
            };
            self.clients[place].request(kind, data);
        } else if self.rng.permille(150) {
            self.give_receipt(place, room);
        } else if self.rng.permille(20) {
            let is_so = self.rng.permille(500);
            match self.rng.below(2) {
                0 => self.clients[place].mute(room, is_so),
                _ => self.clients[place].archive(room, is_so),
            }
        } else if self.rng.permille(100) {
            self.hint(place, room);
        } else if self.rng.permille(150) {
            self.use_file(place, room);
        } else if self.rng.permille(150) {
            self.change_a_message(place, room);
        } else if self.rng.permille(50) && !self.clients[place].done.is_empty() {
            // A retry of what was acknowledged long ago.
            self.report.duplicates += 1;
            let client = &mut self.clients[place];
            let again = client.done[self.rng.below(client.done.len())].clone();
            if client.rooms.contains_key(&again.room) {
                client.send(&again);
            }
        } else if self.clients[place].pending.len() < 8 {
            let length = self.rng.below(400);
            let id = self.rng.uuid();
            let text = format!("{id} {}", "x".repeat(length));
            self.clients[place].begin(Pending {
                room,
                id,
                text,
                upload: None,
            });
        }
        Ok(())
    }

    /// Of what was said lately, by whomever: much of it is refused.
    fn change_a_message(&mut self, place: usize, room: RoomId) {
        let position = self.clients[place].rooms[&room].position;
        let back = self.rng.below(12) as u64;
        let mut data = json!({"room_id": room, "message_seq": position.saturating_sub(back)});
        let kind = match self.rng.below(20) {
            0..9 => {
                data["text"] = json!(format!("edited {}", self.rng.below(3)));
                if self.rng.permille(200) {
                    data["expected_revision"] = json!(1 + self.rng.below(2));
                }
                "message.edit"
            }
            9 => "message.delete",
            10..15 => {
                data["emoji"] = json!(["👍", "❤", "👩🏽‍🚀"][self.rng.below(3)]);
                "reaction.add"
            }
            15..17 => {
                data["emoji"] = json!(["👍", "❤️", "👩🏽‍🚀"][self.rng.below(3)]);
                "reaction.remove"
            }
            17 => "message.pin",
            18 => "message.unpin",
            _ => "message.report",
        };
        self.clients[place].change(kind, data);
    }
}
