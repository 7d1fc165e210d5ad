//! A person who keeps what was received over many connections, as the protocol says a client must:
//! positions, replays, and pages of history where a replay would be too much.

use super::client::{Client, uuid};
use super::server::Server;
use super::socket::Socket;
use super::token::User;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What is kept over connections.
#[derive(Debug)]
pub struct Follower {
    pub user: User,
    /// The history that the positions belong to.
    pub epoch: String,
    /// Up to where every event is known, per room.
    pub positions: BTreeMap<Uuid, u64>,
    /// Every event received, per room and `seq`, with the `client_msg_id` of messages.
    pub seen: BTreeMap<Uuid, BTreeMap<u64, Value>>,
    /// Rooms recovered by replay so far.
    pub recovered: usize,
    /// Rooms caught up with pages of history so far.
    pub paged: usize,
}

impl Follower {
    /// Knows nothing yet.
    pub fn new(user: &User) -> Follower {
        Follower {
            user: user.clone(),
            epoch: String::new(),
            positions: BTreeMap::new(),
            seen: BTreeMap::new(),
            recovered: 0,
            paged: 0,
        }
    }

    /// Connects from the positions it has; rooms it does not know begin at their newest event.
    pub fn connect(&mut self, server: &Server) -> Client {
        let rooms = json!(self.positions);
        let resume = json!({"epoch": self.epoch, "rooms": rooms});
        let resume = (!self.epoch.is_empty()).then_some(resume);
        let mut client = Client::sign_in(Socket::open(server.address), &self.user, resume);
        let epoch = client.ready["epoch"].as_str().expect("an epoch").to_owned();
        if !self.epoch.is_empty() {
            assert_eq!(epoch, self.epoch, "nothing was restored");
        }
        self.epoch = epoch;
        for room in client.ready["rooms"].as_array().expect("rooms").clone() {
            let id = uuid(&room["room_id"]);
            match self.positions.get(&id).copied() {
                None => {
                    assert_eq!(room["reason"], "not_requested", "{room}");
                    self.positions
                        .insert(id, room["last_seq"].as_u64().expect("a seq"));
                }
                Some(position) if room["recovered"] == true => {
                    assert_eq!(room["from_seq"], position + 1, "{room}");
                    assert_eq!(room["to_seq"], room["last_seq"], "{room}");
                    self.recovered += 1;
                }
                Some(position) => {
                    assert_eq!(room["reason"], "too_much", "{room}");
                    self.page(&mut client, id, position);
                }
            }
        }
        client
    }

    fn page(&mut self, client: &mut Client, room: Uuid, position: u64) {
        self.paged += 1;
        let mut last = position;
        for message in client.history_after(room, position) {
            last = message["changed_seq"].as_u64().expect("a seq");
            assert_eq!(message["seq"], last, "nothing was edited");
            self.see(room, last, message["client_msg_id"].clone());
        }
        self.positions.insert(room, last);
    }

    /// Takes what a connection has received so far.
    pub fn take(&mut self, client: &mut Client) {
        for event in client.take_events() {
            let Some(seq) = event["seq"].as_u64() else {
                continue;
            };
            let room = uuid(&event["room_id"]);
            let position = self.positions.entry(room).or_insert(seq - 1);
            // What a page of history has told already comes once more by itself.
            if seq <= *position {
                assert!(self.seen[&room].contains_key(&seq), "never told: {event}");
                continue;
            }
            assert_eq!(seq, *position + 1, "a hole: {event}");
            *position = seq;
            self.see(room, seq, event["data"]["message"]["client_msg_id"].clone());
        }
    }

    fn see(&mut self, room: Uuid, seq: u64, client_msg_id: Value) {
        let again = self
            .seen
            .entry(room)
            .or_default()
            .insert(seq, client_msg_id);
        assert!(again.is_none(), "{room} {seq} came twice");
    }

    /// Waits on this connection until it knows a room up to here.
    pub fn catch_up(&mut self, client: &mut Client, room: Uuid, seq: u64) {
        client.wait_for_seq(room, seq);
        self.take(client);
    }
}
