//! What holds for a moment only: who is typing, who is there, and who wants to hear nothing of whom. While
//! everything fails little of it can be asked for; at the end, when all is quiet, what every client shows must be
//! what is so.

use crate::client::Client;
use crate::truth::Block;
use crate::world::World;
use caffis_chat::chat::Peers;
use caffis_chat::chat::port::{BlocksRead, StoreAnswer, StoreCall};
use caffis_chat::protocol::{RoomId, Seq, UserId};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Longest time in which what holds for a moment must have become right: what a node said holds for 60 s.
const ROUNDS_MAX: usize = 1_200;
/// How often it is looked, in such rounds.
const LOOK_EVERY: usize = 5;
/// A round, µs.
const ROUND_US: u64 = 100_000;

/// What one connection was told.
#[derive(Default)]
pub struct Hints {
    /// Who is typing, where anybody is.
    pub typing: BTreeMap<RoomId, Vec<UserId>>,
    /// Whom it watches.
    asked: BTreeSet<UserId>,
    /// It has asked for everybody, at the end.
    pub watches_all: bool,
    presence: BTreeMap<UserId, String>,
    /// It was there before one typed: who comes later is told when others do.
    was_there: bool,
    /// How it wants to be seen; empty: as a new connection is.
    pub choice: &'static str,
}

impl Hints {
    /// It asked for these.
    pub fn ask(&mut self, users: &[UserId]) {
        self.asked.extend(users);
    }

    /// `typing.updated`.
    pub fn typing_updated(&mut self, room: RoomId, data: &Value) -> Result<(), String> {
        let users = data["user_ids"].as_array().into_iter().flatten();
        let users = users.map(|id| id.as_str().and_then(|id| id.parse().ok()).map(UserId));
        let users: Option<Vec<UserId>> = users.collect();
        let users = users.ok_or(format!("no users: {data}"))?;
        if !users.is_sorted_by(|a, b| a < b) {
            return Err(format!("not a set: {data}"));
        }
        match users.is_empty() {
            true => self.typing.remove(&room),
            false => self.typing.insert(room, users),
        };
        Ok(())
    }

    /// `presence.updated`.
    pub fn presence_updated(&mut self, data: &Value) -> Result<(), String> {
        self.told(&data["users"])
    }

    /// How users are seen.
    pub fn told(&mut self, users: &Value) -> Result<(), String> {
        for told in users.as_array().into_iter().flatten() {
            let user = told["user_id"].as_str().and_then(|id| id.parse().ok());
            let user = UserId(user.ok_or(format!("nobody: {told}"))?);
            if !self.asked.contains(&user) {
                return Err(format!("told of {user}, who is not watched"));
            }
            let state = told["state"].as_str().unwrap_or_default().to_owned();
            self.presence.insert(user, state);
        }
        Ok(())
    }
}

impl World {
    /// A client types, watches, chooses, blocks.
    pub fn hint(&mut self, place: usize, room: RoomId) {
        let other = self.pick_client();
        let (own, other) = (self.clients[place].user, self.clients[other].user);
        match self.rng.below(14) {
            0..4 => self.clients[place].tell("typing.start", &json!({ "room_id": room })),
            4 => self.clients[place].tell("typing.stop", &json!({ "room_id": room })),
            5..8 => {
                let users = self.everybody();
                self.clients[place].watch(&users);
            }
            8..11 => {
                let choice = ["online", "away", "invisible"][self.rng.below(3)];
                self.clients[place].choose(choice);
            }
            _ if own == other || self.scenario.block_permille == 0 => (),
            _ => {
                let known = self.truth.blocks.get(&(own, other)).copied();
                let is_blocked = known.is_some_and(|block| block.since.is_some());
                if is_blocked && self.rng.permille(200) {
                    self.unblock(place, other);
                } else if self.rng.permille(self.scenario.block_permille) {
                    self.clients[place].block(other, true);
                }
            }
        }
    }

    fn unblock(&mut self, place: usize, other: UserId) {
        let own = self.clients[place].user;
        let last_seq = self.head_of(RoomId::direct(own, other));
        if let Some(block) = self.truth.blocks.get_mut(&(own, other)) {
            block.until.get_or_insert(last_seq);
        }
        self.clients[place].block(other, false);
    }

    /// Every user, once, in order.
    pub fn everybody(&self) -> Vec<UserId> {
        let users: BTreeSet<UserId> = self.clients.iter().map(|client| client.user).collect();
        users.into_iter().collect()
    }

    fn head_of(&mut self, room: RoomId) -> Seq {
        let users = Vec::new();
        let call = StoreCall::Heads {
            rooms: vec![room],
            users,
        };
        match self.store.read(self.unix(), &call) {
            Ok(StoreAnswer::Heads { rooms, .. }) => rooms.first().map_or(0, |(_, seq)| *seq),
            other => panic!("heads: {other:?}"),
        }
    }

    /// Blocks that somebody was told of in this step hold from here on.
    pub fn note_blocks(&mut self) {
        if self.truth.blocks.len() == self.truth.blocks_noted {
            return;
        }
        self.truth.blocks_noted = self.truth.blocks.len();
        let unknown = |(_, block): &(&(UserId, UserId), &Block)| block.since.is_none();
        let new: Vec<(UserId, UserId)> = (self.truth.blocks.iter())
            .filter(unknown)
            .map(|(pair, _)| *pair)
            .collect();
        for (by, user) in new {
            self.report.blocks += 1;
            let last_seq = self.head_of(RoomId::direct(by, user));
            if let Some(block) = self.truth.blocks.get_mut(&(by, user)) {
                block.since = Some(last_seq);
            }
        }
    }

    /// What blocks forbid was not done, and they are there. `direct` is what stands in direct rooms.
    pub fn compare_blocks(&mut self) -> Result<(), String> {
        if self.lost_epoch == Some(self.store.epoch()) {
            return Ok(());
        }
        for ((by, user), block) in self.truth.blocks.clone() {
            let room = RoomId::direct(by, user);
            let Some(since) = block.since else { continue };
            let until = block.until.unwrap_or(Seq::MAX);
            for event in self.events(room, since, until)? {
                let name = event.body.name();
                let json = event.to_json();
                let adds = name == "reaction.updated" && json.contains("\"added\":true");
                if adds || ["message.created", "message.updated", "message.pinned"].contains(&name)
                {
                    return Err(format!("{by} blocks {user} ({block:?}): {json}"));
                }
            }
            let is_erased = |user| self.clients.iter().any(|it| it.user == user && it.erased);
            if block.until.is_some() || is_erased(by) || is_erased(user) {
                continue;
            }
            let call = StoreCall::Blocks(BlocksRead {
                user: by,
                cursor: None,
                limit: 100,
            });
            match self.store.read(self.unix(), &call) {
                Ok(StoreAnswer::Blocks(Ok(listed)))
                    if listed.users.iter().any(|blocked| blocked.user_id == user) => {}
                other => return Err(format!("{by} has blocked {user}: {other:?}")),
            }
        }
        Ok(())
    }

    /// Direct rooms in which one blocks the other, or is erased.
    pub fn severed(&mut self) -> BTreeSet<RoomId> {
        let rooms = self.last_seqs().into_keys().collect();
        let users = Vec::new();
        match self
            .store
            .read(self.unix(), &StoreCall::Heads { rooms, users })
        {
            Ok(StoreAnswer::Heads { severed, .. }) => severed.into_iter().collect(),
            other => panic!("heads: {other:?}"),
        }
    }

    /// Time passes, until all is right.
    fn settle_hints(
        &mut self,
        say: impl Fn(&mut World),
        wrong: impl Fn(&mut World) -> Vec<String>,
    ) -> Result<(), String> {
        for round in 0..ROUNDS_MAX {
            if round % LOOK_EVERY == 0 {
                say(self);
            }
            self.now_us += ROUND_US;
            self.step()?;
            if round % LOOK_EVERY == LOOK_EVERY - 1 && wrong(self).is_empty() {
                return Ok(());
            }
        }
        Err(wrong(self).join("\n"))
    }

    /// So long, in quiet.
    pub fn pause(&mut self, ms: u64) -> Result<(), String> {
        for _ in 0..ms * 1_000 / ROUND_US {
            self.now_us += ROUND_US;
            self.step()?;
        }
        Ok(())
    }

    /// Nobody types; one types in each room and all are told; nobody types. Everybody is seen as they are; some
    /// choose otherwise, one goes, and everybody is seen so.
    pub fn compare_hints(&mut self) -> Result<(), String> {
        if self.lost_epoch == Some(self.store.epoch()) {
            return Ok(());
        }
        let severed = self.severed();
        let nobody = |world: &mut World| world.wrong_typing(&severed, false);
        let one = |world: &mut World| world.wrong_typing(&severed, true);
        self.settle_hints(|_| (), nobody)
            .map_err(|text| format!("still typing: {text}"))?;
        for client in &mut self.clients {
            client.hints.was_there = true;
        }
        self.settle_hints(World::type_everywhere, one)
            .map_err(|text| format!("typing is not told: {text}"))?;
        for (place, room) in self.typists() {
            // The others forget it.
            if place % 2 == 0 {
                self.clients[place].tell("typing.stop", &json!({ "room_id": room }));
            }
        }
        self.settle_hints(|_| (), nobody)
            .map_err(|text| format!("typing does not end: {text}"))?;
        self.report.typing_told += self.typists().len() as u64;
        self.compare_presence()
    }

    /// In each room the first who is there.
    fn typists(&self) -> Vec<(usize, RoomId)> {
        let mut typists = BTreeMap::new();
        for (place, client) in self.clients.iter().enumerate() {
            for room in client.rooms.keys().filter(|_| client.is_ready()) {
                typists.entry(*room).or_insert(place);
            }
        }
        typists
            .into_iter()
            .map(|(room, place)| (place, room))
            .collect()
    }

    /// A sixth of the rooms at a time, so each every 3 s: a shard with little room takes a few hints at once.
    fn type_everywhere(&mut self) {
        let turn = (self.now_us / (LOOK_EVERY as u64 * ROUND_US) % 6) as usize;
        let typists = self.typists().into_iter().skip(turn).step_by(6);
        for (place, room) in typists {
            self.clients[place].tell("typing.start", &json!({ "room_id": room }));
        }
    }

    fn wrong_typing(&self, severed: &BTreeSet<RoomId>, is_one: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let typists = self.typists();
        for client in self.clients.iter().filter(|client| client.is_ready()) {
            for room in client.rooms.keys() {
                let typist = typists.iter().find(|(_, typed)| typed == room);
                let typist = typist.map(|(place, _)| &self.clients[*place]);
                let heard = typist.filter(|typist| self.hears(client, typist));
                let expected: Vec<UserId> = match (is_one, severed.contains(room)) {
                    (true, false) => heard.map(|typist| typist.user).into_iter().collect(),
                    _ => Vec::new(),
                };
                let shown = client.hints.typing.get(room).cloned().unwrap_or_default();
                if shown != expected && (client.hints.was_there || !is_one) {
                    wrong.push(format!(
                        "{} shows {shown:?} in {room}, not {expected:?}",
                        client.user
                    ));
                }
            }
        }
        wrong
    }

    /// Without a relay only the own node is heard.
    fn hears(&self, client: &Client, other: &Client) -> bool {
        self.scenario.peers == Peers::Relay || client.last_host == other.last_host
    }

    fn compare_presence(&mut self) -> Result<(), String> {
        let wrong = World::wrong_presence;
        self.settle_hints(World::watch_all, wrong)
            .map_err(|text| format!("presence: {text}"))?;
        let choices = ["away", "invisible", "online"];
        for place in 0..self.clients.len() {
            if self.clients[place].is_ready() && self.rng.permille(500) {
                let choice = choices[self.rng.below(3)];
                self.clients[place].choose(choice);
            }
        }
        self.settle_hints(World::watch_all, wrong)
            .map_err(|text| format!("presence after a choice: {text}"))?;
        self.block_in_quiet()?;
        let leaving = (0..self.clients.len()).find(|place| self.clients[*place].is_ready());
        if let Some(place) = leaving {
            self.clients[place].resting = true;
            self.hang_up(place, None)?;
            self.settle_hints(World::watch_all, wrong)
                .map_err(|text| format!("presence of one who went: {text}"))?;
            self.clients[place].resting = false;
        }
        let told = self
            .clients
            .iter()
            .flat_map(|client| client.hints.presence.values());
        let seen = told.filter(|state| *state != "offline").count();
        self.report.presence_told += seen as u64;
        Ok(())
    }

    /// Everybody watches everybody, also who comes back.
    fn watch_all(&mut self) {
        let everybody = self.everybody();
        let clients = self.clients.iter_mut();
        for client in clients.filter(|it| it.is_ready() && !it.hints.watches_all) {
            client.hints.watches_all = true;
            client.watch(&everybody);
        }
    }

    /// One blocks another whom they see: neither sees the other from then on, whatever the other chooses.
    fn block_in_quiet(&mut self) -> Result<(), String> {
        let sharing = self.sharing();
        let ready: Vec<usize> = (0..self.clients.len())
            .filter(|place| self.clients[*place].is_ready())
            .collect();
        let user = |place: usize| self.clients[place].user;
        let pairs = ready.iter().flat_map(|a| ready.iter().map(|b| (*a, *b)));
        let pair = pairs
            .into_iter()
            .find(|(a, b)| user(*a) != user(*b) && sharing[&user(*a)].contains(&user(*b)));
        let Some((place, other)) = pair.filter(|_| self.scenario.block_permille > 0) else {
            return Ok(());
        };
        let users = (user(place), user(other));
        self.clients[place].block(users.1, true);
        let is_known = |world: &mut World| match world.is_severed(users.0, users.1) {
            true => world.wrong_presence(),
            false => vec!["not blocked yet".to_owned()],
        };
        let again = move |world: &mut World| {
            world.watch_all();
            if !world.clients[place].is_blocking() && !world.is_severed(users.0, users.1) {
                world.clients[place].block(users.1, true);
            }
        };
        self.settle_hints(again, is_known)
            .map_err(|text| format!("presence after a block: {text}"))?;
        for device in self.clients.iter_mut().filter(|it| it.user == users.1) {
            let is_away = device.hints.choice == "away";
            device.choose(if is_away { "online" } else { "away" });
        }
        // Longer than until any change is told.
        self.pause(4_000)?;
        self.settle_hints(World::watch_all, World::wrong_presence)
            .map_err(|text| format!("presence after a block and a choice: {text}"))
    }

    /// Whom each user may see: those with whom they share a room and whom no block severs from them.
    fn sharing(&mut self) -> BTreeMap<UserId, BTreeSet<UserId>> {
        let everybody = self.everybody();
        let mut sharing = BTreeMap::new();
        for user in everybody.clone() {
            let others = everybody.clone();
            let call = StoreCall::WhoShares { user, others };
            match self.store.read(self.unix(), &call) {
                Ok(StoreAnswer::WhoShares(seen)) => {
                    sharing.insert(user, seen.into_iter().collect())
                }
                other => panic!("{other:?}"),
            };
        }
        sharing
    }

    fn wrong_presence(&mut self) -> Vec<String> {
        let sharing = self.sharing();
        let mut wrong = Vec::new();
        for client in self.clients.iter().filter(|client| client.is_ready()) {
            for user in sharing.keys() {
                let may_see = *user == client.user || sharing[&client.user].contains(user);
                let devices = self.clients.iter().filter(|other| other.user == *user);
                let devices = devices.filter(|other| other.is_ready() && self.hears(client, other));
                let choices = devices.map(|other| match other.hints.choice {
                    "invisible" => 0,
                    "away" => 1,
                    _ => 2,
                });
                let state = ["offline", "away", "online"][choices.max().unwrap_or(0)];
                let shown = client.hints.presence.get(user).map(String::as_str);
                // Who was watched before they had no room in common is seen until that ends.
                let is_right = match may_see {
                    true => shown == Some(state),
                    false if self.is_severed(client.user, *user) => shown == Some("offline"),
                    false => shown == Some("offline") || shown == Some(state),
                };
                if !is_right {
                    wrong.push(format!(
                        "{} sees {user} as {shown:?}, not {state} ({may_see})",
                        client.user
                    ));
                }
            }
        }
        wrong
    }

    /// Whether one of them is known to block the other.
    fn is_severed(&self, one: UserId, other: UserId) -> bool {
        [(one, other), (other, one)].iter().any(|pair| {
            let block = self.truth.blocks.get(pair);
            block.is_some_and(|block| block.since.is_some() && block.until.is_none())
        })
    }
}
