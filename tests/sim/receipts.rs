//! What clients are told of how far others are: never back, never ahead of the room, and at the end, when
//! everybody has read everything, what the store has.

use crate::client::Client;
use crate::world::World;
use caffis_chat::chat::Peers;
use caffis_chat::chat::port::{StoreAnswer, StoreCall};
use caffis_chat::protocol::{RoomId, Seq, UserId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Read and delivered.
type Marks = (Seq, Seq);

/// How far members are, as one client knows it.
#[derive(Default)]
pub struct Receipts {
    /// The greater of all it was ever told.
    known: BTreeMap<(RoomId, UserId), Marks>,
    /// What this connection was told last.
    told: BTreeMap<(RoomId, UserId), Marks>,
    /// What this connection was told last of its own user.
    own: BTreeMap<RoomId, Seq>,
    /// What rooms are to the user: muted, archived.
    rooms: BTreeMap<RoomId, (bool, bool)>,
    /// Receipts that were told, by room.
    heard: BTreeMap<RoomId, u64>,
    pub receipts: u64,
    pub unread: u64,
}

fn marks_of(data: &Value) -> Option<(UserId, Marks)> {
    let user = data["user_id"].as_str()?.parse().ok()?;
    let marks = (data["read_seq"].as_u64()?, data["delivered_seq"].as_u64()?);
    Some((UserId(user), marks))
}

fn goes_back(before: Marks, after: Marks) -> bool {
    after.0 < before.0 || after.1 < before.1
}

impl Receipts {
    pub fn new_connection(&mut self) {
        self.told.clear();
        self.own.clear();
    }

    pub fn forget(&mut self) {
        self.known.clear();
    }

    fn learn(&mut self, room: RoomId, user: UserId, marks: Marks) {
        let known = self.known.entry((room, user)).or_default();
        *known = (known.0.max(marks.0), known.1.max(marks.1));
    }

    /// `receipt.updated`.
    pub fn updated(&mut self, own: UserId, room: RoomId, data: &Value) -> Result<(), String> {
        let (user, marks) = marks_of(data).ok_or(format!("no receipt: {data}"))?;
        if user == own || marks.0 > marks.1 {
            return Err(format!("{own} is told {data} of {room}"));
        }
        let before = self.told.insert((room, user), marks).unwrap_or_default();
        if goes_back(before, marks) {
            return Err(format!("{user} in {room}: {marks:?} after {before:?}"));
        }
        self.receipts += 1;
        *self.heard.entry(room).or_default() += 1;
        self.learn(room, user, marks);
        Ok(())
    }

    /// What a room is to the user, in `ready` or `unread.updated`.
    pub fn own_is(&mut self, room: RoomId, data: &Value) {
        let is_muted = !data["muted_until"].is_null();
        let own = (is_muted, data["archived"] == true);
        self.rooms.insert(room, own);
    }

    /// An ack: it is muted and archived so, where that was asked for.
    pub fn own_set(&mut self, room: RoomId, muted: Option<bool>, archived: Option<bool>) {
        let own = self.rooms.entry(room).or_default();
        *own = (muted.unwrap_or(own.0), archived.unwrap_or(own.1));
    }

    /// `unread.updated`.
    pub fn own_updated(&mut self, room: RoomId, data: &Value) -> Result<(), String> {
        let read_seq = data["read_seq"].as_u64().ok_or("no read_seq")?;
        let before = self.own.insert(room, read_seq).unwrap_or(0);
        if read_seq < before {
            return Err(format!("own read_seq of {room}: {read_seq} after {before}"));
        }
        self.unread += 1;
        self.own_is(room, data);
        Ok(())
    }

    /// A room of `ready`: the store has what was told before.
    pub fn ready(&mut self, room: RoomId, data: &Value, is_same: bool) -> Result<(), String> {
        for mark in data["watermarks"].as_array().into_iter().flatten() {
            let (user, marks) = marks_of(mark).ok_or(format!("no watermark: {mark}"))?;
            let known = self.known.get(&(room, user)).copied().unwrap_or_default();
            if is_same && goes_back(known, marks) {
                return Err(format!("{user} in {room} is at {marks:?}, told {known:?}"));
            }
            self.learn(room, user, marks);
        }
        Ok(())
    }

    /// A message: its author has read it.
    pub fn spoke(&mut self, room: RoomId, message: &Value) {
        let sender = message["sender_id"].as_str().and_then(|id| id.parse().ok());
        if let (Some(sender), Some(seq)) = (sender, message["seq"].as_u64())
            && message["kind"] != "system"
        {
            self.learn(room, UserId(sender), (seq, seq));
        }
    }
}

impl Client {
    /// Says how far it is in a room.
    pub fn receipt(&mut self, room: RoomId, seq: Seq, is_read: bool) {
        let kind = match is_read {
            true => "receipt.read",
            false => "receipt.delivered",
        };
        self.tell(kind, &json!({"rooms": {room.to_string(): seq}}));
    }
}

impl World {
    /// A client says how far it is, sometimes wrongly.
    pub fn give_receipt(&mut self, place: usize, room: RoomId) {
        let seq = match self.rng.below(8) {
            0 => self.rng.below(1_000) as u64,
            _ => self.clients[place].rooms[&room].position,
        };
        let is_read = self.rng.permille(500);
        self.clients[place].receipt(room, seq, is_read);
    }

    /// Nobody is further than the room.
    pub fn check_receipt(&mut self, text: &str) -> Result<(), String> {
        if self.lost_epoch.is_some() || !text.contains("\"receipt.updated\"") {
            return Ok(());
        }
        let frame: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let room = frame["room_id"].as_str().and_then(|room| room.parse().ok());
        let Some(room) = room.map(RoomId) else {
            return Ok(());
        };
        let last_seq = self.last_seqs().get(&room).copied();
        match frame["data"]["delivered_seq"].as_u64() <= last_seq {
            true => Ok(()),
            false => Err(format!("ahead of {last_seq:?}: {text}")),
        }
    }

    /// Somebody speaks in each room, everybody reads it, and everybody knows it of everybody.
    pub fn read_everything(&mut self) -> Result<(), String> {
        if self.lost_epoch == Some(self.store.epoch()) {
            // What was lost and made up for before anybody looked cannot be noticed.
            return Ok(());
        }
        // What the relay loses of receipts stays unsaid until they advance again.
        self.scenario.relay_news_max = 1_000;
        let rooms: Vec<RoomId> = self.last_seqs().into_keys().collect();
        for room in rooms {
            let has = |client: &&mut Client| client.rooms.contains_key(&room) && !client.gone;
            if let Some(client) = self.clients.iter_mut().find(has) {
                client.say(room, self.rng.uuid());
            }
        }
        self.settle_until(|world| world.is_settled(), World::unsettled)?;
        let severed = self.severed();
        if !severed.is_empty() {
            // A node compares rooms with the store every 5 s.
            self.pause(7_000)?;
        }
        let heard = |world: &World| -> Vec<Option<u64>> {
            let clients = world.clients.iter();
            clients
                .flat_map(|client| {
                    severed
                        .iter()
                        .map(|room| client.receipts.heard.get(room).copied())
                })
                .collect()
        };
        let heard_before = heard(self);
        for client in &mut self.clients {
            let rooms: Vec<(RoomId, Seq)> = client
                .rooms
                .iter()
                .map(|(room, view)| (*room, view.position))
                .collect();
            for (room, seq) in rooms {
                client.receipt(room, seq, true);
            }
        }
        let differing = |world: &mut World| world.differing_receipts().join("\n");
        self.settle_until(|world| world.differing_receipts().is_empty(), differing)?;
        match heard(self) == heard_before {
            true => Ok(()),
            false => Err(format!("receipts are told in one of {severed:?}")),
        }
    }

    /// A device of each user mutes and archives a room, or no longer: so it is in the store, and all their
    /// devices know.
    pub fn compare_own(&mut self) -> Result<(), String> {
        if self.lost_epoch == Some(self.store.epoch()) {
            return Ok(());
        }
        let mut asked: BTreeMap<(UserId, RoomId), (bool, bool)> = BTreeMap::new();
        for place in 0..self.clients.len() {
            let client = &mut self.clients[place];
            let room = client.rooms.keys().next().copied();
            let Some(room) = room.filter(|_| client.is_ready()) else {
                continue;
            };
            if asked.contains_key(&(client.user, room)) {
                continue;
            }
            let own = client
                .receipts
                .rooms
                .get(&room)
                .copied()
                .unwrap_or_default();
            client.mute(room, !own.0);
            client.archive(room, !own.1);
            asked.insert((client.user, room), (!own.0, !own.1));
        }
        let differing = |world: &mut World| world.differing_own(&asked).join("\n");
        self.settle_until(|world| world.differing_own(&asked).is_empty(), differing)
    }

    fn differing_own(&mut self, asked: &BTreeMap<(UserId, RoomId), (bool, bool)>) -> Vec<String> {
        let mut differing = Vec::new();
        for ((user, room), wanted) in asked {
            let call = StoreCall::OwnStates(vec![(*room, *user)]);
            let stored = match self.store.read(self.unix(), &call) {
                Ok(StoreAnswer::OwnStates(states)) => states.first().copied().flatten(),
                other => return vec![format!("{other:?}")],
            };
            let stored = stored.map(|own| own.view(self.unix()));
            let stored = stored.map(|own| (own.muted_until.is_some(), own.archived));
            if stored != Some(*wanted) {
                differing.push(format!("{room} is {stored:?} to {user}, not {wanted:?}"));
            }
            for place in 0..self.clients.len() {
                let known = self.clients[place].receipts.rooms.get(room).copied();
                let is_told = self.clients[place].user == *user && self.is_heard(place, *user);
                if is_told && known != Some(*wanted) {
                    differing.push(format!("a device of {user} has {known:?}, not {wanted:?}"));
                }
            }
        }
        differing
    }

    pub fn settle_until(
        &mut self,
        is_done: impl Fn(&mut World) -> bool,
        what: impl Fn(&mut World) -> String,
    ) -> Result<(), String> {
        for round in 0..4_000 {
            self.now_us += 10_000;
            self.step()?;
            if round % 20 == 19 && is_done(self) {
                return Ok(());
            }
        }
        Err(format!("receipts do not settle: {}", what(self)))
    }

    /// Where a client does not know of a member what the store has.
    fn differing_receipts(&mut self) -> Vec<String> {
        let mut differing = Vec::new();
        let severed = self.severed();
        for place in (0..self.clients.len())
            .filter(|place| !self.clients[*place].gone)
            .collect::<Vec<_>>()
        {
            let own = self.clients[place].user;
            let asked: Vec<(RoomId, UserId)> = self.clients[place]
                .rooms
                .keys()
                .map(|room| (*room, own))
                .collect();
            let call = StoreCall::GetRooms(asked);
            let Ok(StoreAnswer::GetRooms(rooms)) = self.store.read(self.unix(), &call) else {
                return vec!["no rooms".to_owned()];
            };
            for (room, read_seq) in rooms
                .into_iter()
                .flatten()
                .map(|found| (found.room, found.own.read_seq))
            {
                if read_seq != room.last_seq {
                    differing.push(format!("{own} has not read {}: {read_seq}", room.room_id));
                }
                for member in &room.members {
                    let marks = (member.read_seq, member.delivered_seq);
                    let (id, user) = (room.room_id, member.user_id);
                    // Of a severed room both see how it stood when it was severed.
                    let is_shown = !severed.contains(&id) && self.has_client(user);
                    if marks != (room.last_seq, room.last_seq) && is_shown {
                        differing.push(format!("{user} has not read {id}: {marks:?}"));
                    }
                    let known = self.clients[place].receipts.known.get(&(id, user));
                    if user != own
                        && !severed.contains(&id)
                        && self.is_heard(place, user)
                        && known != Some(&marks)
                    {
                        differing.push(format!(
                            "{own} knows {known:?} of {user} in {id}: {marks:?}"
                        ));
                    }
                }
            }
        }
        differing
    }

    fn has_client(&self, user: UserId) -> bool {
        self.clients.iter().any(|client| client.user == user)
    }

    /// Without a relay receipts are told on the node where they were given.
    fn is_heard(&self, place: usize, user: UserId) -> bool {
        let host = self.clients[place].last_host;
        let mut devices = self.clients.iter().filter(|client| client.user == user);
        self.scenario.peers == Peers::Relay || devices.all(|client| client.last_host == host)
    }
}
