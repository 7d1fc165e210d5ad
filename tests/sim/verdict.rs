//! Whether what was promised was kept: in the step in which it could first be seen, and at the end,
//! when all nodes, all clients and the store must agree.

use crate::client::Shown;
use crate::truth::same_for_all;
use crate::world::World;
use caffis_chat::chat::Peers;
use caffis_chat::chat::port::{StoreAnswer, StoreCall};
use caffis_chat::limits;
use caffis_chat::protocol::{RoomId, Seq, UnixMs, UserId};
use std::collections::{BTreeMap, BTreeSet};

impl World {
    /// Promise 1, in the very step in which a client learns of it.
    pub fn check_newest_ack(&mut self, place: usize, text: &str) -> Result<(), String> {
        let user = self.clients[place].user;
        let ack: serde_json::Value =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let room = ack["data"]["room_id"]
            .as_str()
            .and_then(|room| room.parse().ok());
        let (Some(room), Some(seq)) = (room, ack["data"]["seq"].as_u64()) else {
            return Err(format!("an ack without room or seq: {text}"));
        };
        if seq <= self.floor(RoomId(room)) {
            // Acknowledged again, and dropped since.
            return Ok(());
        }
        let events = self.events(RoomId(room), seq - 1, seq)?;
        let stored = events
            .first()
            .map(|event| event.to_json())
            .unwrap_or_default();
        let id = ack["data"]["client_msg_id"].as_str().unwrap_or_default();
        let (_, user, _) = self.truth.key_now((RoomId(room), user, uuid::Uuid::nil()));
        match stored.contains(id) && stored.contains(&user.to_string()) {
            true => Ok(()),
            false => Err(format!(
                "acknowledged but not committed: {text}; at its place: {stored}"
            )),
        }
    }

    /// Promise 5: what waits anywhere is bounded.
    pub fn check_bounds(&mut self) -> Result<(), String> {
        let (deliver_max, outbox_bytes) = (
            self.scenario.mesh_deliver_max,
            self.scenario.outbox_bytes as u64,
        );
        for (host, node) in self.hosts.iter_mut().enumerate() {
            let count = node.shards;
            for (index, shard) in node
                .node
                .iter_mut()
                .flat_map(|it| it.shards.iter_mut().enumerate())
            {
                let stats = shard.stats();
                let window_max = 1 << 20;
                if stats.window_bytes > window_max + limits::REPLAY_BYTES_MAX as u64 {
                    return Err(format!("windows of {} bytes", stats.window_bytes));
                }
                // A floor above what a node has released is one.
                let may_be = self.lost_epoch.is_some() || !self.truth.floors.is_empty();
                if stats.anomalies > 0 && !may_be {
                    let anomalies = stats.anomalies;
                    return Err(format!(
                        "shard {index} of node {host} counted {anomalies} anomalies"
                    ));
                }
                if stats.outbox_bytes > 21 * outbox_bytes + 4_096 * 64 {
                    return Err(format!("outboxes of {} bytes", stats.outbox_bytes));
                }
                for to in 0..count {
                    let waiting = shard.mesh_out(to as u16).len();
                    if waiting > deliver_max + 2_000 {
                        return Err(format!(
                            "{waiting} messages wait from shard {index} to {to}"
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    pub fn is_settled(&mut self) -> bool {
        let last: BTreeMap<RoomId, Seq> = self.last_seqs();
        // What was lost and made up for before anybody looked cannot be noticed.
        let unnoticed = self.lost_epoch == Some(self.store.epoch());
        let epoch = self.store.epoch().to_string();
        let relays = self.scenario.peers == Peers::Relay;
        let all_idle = self.hosts.iter().all(|host| {
            host.node.as_ref().is_some_and(|node| !node.draining)
                && (!relays || host.link.is_calm())
        });
        all_idle
            && self.orphans.is_empty()
            && self.erasing.is_empty()
            && self.clients.iter().all(|client| {
                client.gone
                    || client.is_ready()
                        && !client.erased
                        && !client.is_blocking()
                        && client.epoch == epoch
                        && client.pending.is_empty()
                        && (unnoticed
                            || client.rooms.iter().all(|(room, view)| {
                                view.catching_up.is_none() && last.get(room) == Some(&view.position)
                            }))
            })
            && (unnoticed || self.has_all_rooms())
    }

    fn has_all_rooms(&mut self) -> bool {
        for place in 0..self.clients.len() {
            let expected = self.rooms_of(self.clients[place].user);
            if self.clients[place].gone {
                continue;
            }
            if !expected.iter().eq(self.clients[place].rooms.keys()) {
                return false;
            }
        }
        true
    }

    pub fn unsettled(&mut self) -> String {
        let epoch = self.store.epoch().to_string();
        let last = self.last_seqs();
        let mut lines = Vec::new();
        for place in 0..self.clients.len() {
            let expected = self.rooms_of(self.clients[place].user);
            let client = &self.clients[place];
            let rooms: Vec<RoomId> = client.rooms.keys().copied().collect();
            let behind: Vec<_> = client
                .rooms
                .iter()
                .filter(|(room, view)| last.get(room) != Some(&view.position))
                .map(|(room, view)| (room, view, last.get(room)))
                .collect();
            if client.gone {
                continue;
            }
            if !client.is_ready()
                || client.erased
                || client.epoch != epoch
                || !client.pending.is_empty()
                || !behind.is_empty()
                || rooms != expected
            {
                lines.push(format!(
                    "client {place} {}: of {} in {epoch}, connected {}, ready {}, pending {:?}, \
                     behind {behind:?}, rooms {rooms:?} of {expected:?}",
                    client.user,
                    client.epoch,
                    client.wire.is_some(),
                    client.is_ready(),
                    client.pending,
                ));
            }
        }
        if !self.erasing.is_empty() {
            lines.push(format!("erasing {:?}", self.erasing));
        }
        lines.join("\n")
    }

    /// Events of a room up to this one are dropped.
    fn floor(&self, room: RoomId) -> Seq {
        self.truth.floors.get(&room).copied().unwrap_or(0)
    }

    fn known_rooms(&mut self) -> Vec<RoomId> {
        let mut rooms: Vec<RoomId> = self.truth.events.keys().map(|(room, _)| *room).collect();
        rooms.extend(self.truth.placed.keys().map(|(room, ..)| *room));
        rooms.extend(
            self.clients
                .iter()
                .flat_map(|client| client.rooms.keys().copied()),
        );
        rooms.extend(&self.rooms);
        rooms.sort_unstable();
        rooms.dedup();
        rooms
    }

    pub fn last_seqs(&mut self) -> BTreeMap<RoomId, Seq> {
        let rooms = self.known_rooms();
        match self.store.read(
            self.unix(),
            &StoreCall::Heads {
                rooms,
                users: Vec::new(),
            },
        ) {
            Ok(StoreAnswer::Heads { rooms, .. }) => rooms.into_iter().collect(),
            other => panic!("heads: {other:?}"),
        }
    }

    fn rooms_of(&mut self, user: UserId) -> Vec<RoomId> {
        let rooms = self.known_rooms();
        let asked: Vec<(RoomId, UserId)> = rooms.iter().map(|room| (*room, user)).collect();
        match self.store.read(self.unix(), &StoreCall::GetRooms(asked)) {
            Ok(StoreAnswer::GetRooms(answers)) => rooms
                .into_iter()
                .zip(answers)
                .filter(|(_, answer)| answer.is_ok())
                .map(|(room, _)| room)
                .collect(),
            other => panic!("rooms: {other:?}"),
        }
    }

    /// At the end the store is read whole and compared with all that anybody was told.
    pub fn compare(&mut self) -> Result<(), String> {
        let mut stored: BTreeMap<(RoomId, UserId, uuid::Uuid), Seq> = BTreeMap::new();
        for (room, last_seq) in self.last_seqs() {
            let events = self.events(room, 0, Seq::MAX)?;
            let floor = self.floor(room);
            if events.len() as u64 != last_seq - floor {
                return Err(format!(
                    "{} events after {floor} up to {last_seq} in {room}",
                    events.len()
                ));
            }
            let mut ts = UnixMs(0);
            for (event, seq) in events.iter().zip(floor + 1..) {
                if event.seq != seq || event.ts < ts {
                    return Err(format!("{} stands at {seq} of {room}", event.seq));
                }
                ts = event.ts;
                let json: serde_json::Value =
                    serde_json::from_str(&event.to_json()).map_err(|error| error.to_string())?;
                let text = same_for_all(room, &json);
                if let Some(message) = self.truth.changed.get(&(room, seq))
                    && json["data"]["message_seq"] != *message
                {
                    return Err(format!("a change of {message} at {room}/{seq}: {json}"));
                }
                if let Some(shown) = self.truth.events.get(&(room, seq))
                    && self.truth.without_erased(room, shown)
                        != self.truth.without_erased(room, &text)
                {
                    return Err(format!(
                        "stored at {room}/{seq}:\n  {json}\n  shown: {shown}"
                    ));
                }
                if json["type"] != "message.created" {
                    continue;
                }
                let message = &json["data"]["message"];
                let id = message["client_msg_id"]
                    .as_str()
                    .and_then(|id| id.parse().ok());
                let sender = message["sender_id"].as_str().and_then(|id| id.parse().ok());
                if let (Some(id), Some(sender)) = (id, sender)
                    && let Some(other) = stored.insert((room, UserId(sender), id), seq)
                {
                    return Err(format!(
                        "message {id} is stored at {other} and {seq} of {room}"
                    ));
                }
            }
        }
        for (key, seq) in &self.truth.acked {
            if *seq > self.floor(key.0) && stored.get(key) != Some(seq) {
                return Err(format!(
                    "acknowledged {key:?} at {seq}, stored {:?}",
                    stored.get(key)
                ));
            }
        }
        for (key, seq) in &self.truth.placed {
            if *seq > self.floor(key.0) && stored.get(key) != Some(seq) {
                return Err(format!(
                    "shown {key:?} at {seq}, stored {:?}",
                    stored.get(key)
                ));
            }
        }
        self.compare_shown()?;
        self.compare_follows()
    }

    /// What clients hold of messages is what the store has of them, however they came to hold it.
    fn compare_shown(&mut self) -> Result<(), String> {
        if self.lost_epoch == Some(self.store.epoch()) {
            // What was lost and made up for before anybody looked cannot be noticed.
            return Ok(());
        }
        let mut current: BTreeMap<(RoomId, Seq), Shown> = BTreeMap::new();
        for (room, _) in self.last_seqs() {
            for event in self.events(room, 0, Seq::MAX)? {
                if let Some(message) = event.body.message() {
                    let json = serde_json::to_value(message).map_err(|error| error.to_string())?;
                    current.insert((room, message.seq), Shown::of(&json));
                }
            }
        }
        let mut changed = 0;
        for client in self.clients.iter().filter(|client| !client.gone) {
            for (room, view) in &client.rooms {
                let floor = self.truth.floors.get(room).copied().unwrap_or(0);
                for (seq, shown) in view.messages.range(floor + 1..) {
                    // System messages come by pages only, and never change.
                    let Some(current) = current.get(&(*room, *seq)) else {
                        continue;
                    };
                    changed += u64::from(shown.changed_seq > *seq);
                    if shown != current {
                        return Err(format!(
                            "{} holds {room}/{seq} as {shown:?}, not {current:?}",
                            client.user
                        ));
                    }
                }
            }
        }
        self.report.changed += changed;
        Ok(())
    }

    /// A node follows the buckets of the rooms that it holds, and no other.
    fn compare_follows(&mut self) -> Result<(), String> {
        let rooms = self.known_rooms();
        let buckets: BTreeSet<u16> = rooms.iter().map(|room| room.bucket()).collect();
        if self.scenario.peers != Peers::Relay || buckets.len() < rooms.len() {
            return Ok(());
        }
        for (place, host) in self.hosts.iter().enumerate() {
            let shards = host.node.iter().flat_map(|node| &node.shards);
            let held: u64 = shards.map(|shard| shard.stats().rooms_home).sum();
            let followed = host.link.wanted.range(..limits::PRESENCE_BUCKET).count();
            // And the one of new members.
            if followed as u64 != held + 1 {
                let wanted = &host.link.wanted;
                return Err(format!("node {place} follows {wanted:?} for {held} rooms"));
            }
        }
        Ok(())
    }
}
