//! What is the same for everybody: what anybody was shown must be what everybody is shown.

use crate::client::files_of;
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
    /// Replays that were overtaken by a floor.
    pub gaps_told: u64,
    /// Who stands in a room where an erased user stood.
    pub erased: BTreeMap<(RoomId, UserId), UserId>,
    /// Nobody is told any more what erased users wrote, or that it was them.
    pub is_erased_for_all: bool,
    /// Events of a room up to this one are dropped.
    pub floors: BTreeMap<RoomId, Seq>,
    /// The message in which each file was shown.
    pub files: BTreeMap<String, (RoomId, Seq)>,
    /// Messages that were refused because their file was gone.
    pub refused: BTreeSet<Uuid>,
    /// Who blocked whom.
    pub blocks: BTreeMap<(UserId, UserId), Block>,
    /// So many of these were looked up.
    pub blocks_noted: usize,
}

/// A block that was acknowledged.
#[derive(Clone, Copy, Default, Debug)]
pub struct Block {
    /// The newest event of the two's direct room when its author learned that it holds; not looked up yet.
    pub since: Option<Seq>,
    /// The same when its author first asked to take it back.
    pub until: Option<Seq>,
}

impl Truth {
    /// Somebody was shown this event.
    pub fn event(&mut self, room: RoomId, seq: Seq, event: &Value) -> Result<(), String> {
        let shown = same_for_all(room, event);
        match self.events.get(&(room, seq)) {
            None => {
                self.events.insert((room, seq), shown);
            }
            Some(known) if *known == shown => (),
            // Before and after somebody in it was erased.
            Some(known)
                if self.without_erased(room, known) == self.without_erased(room, &shown) => {}
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

    pub fn is_from_elsewhere(&self, room: RoomId, seq: Seq, host: usize) -> bool {
        self.origin
            .get(&(room, seq))
            .is_some_and(|origin| *origin != host)
    }

    /// A text in which every erased user of the room is who stands there now.
    pub fn without_erased(&self, room: RoomId, text: &str) -> String {
        let mut text = text.to_owned();
        let from = (room, UserId(Uuid::nil()));
        let to = (room, UserId(Uuid::max()));
        for ((_, user), stood_as) in self.erased.range(from..=to) {
            text = text
                .replace(&user.to_string(), &stood_as.to_string())
                .replace(&format!("\"name\":\"{stood_as}\""), "\"name\":\"\"");
        }
        text
    }

    /// The name of a message by now.
    pub fn key_now(&self, (room, user, id): (RoomId, UserId, Uuid)) -> (RoomId, UserId, Uuid) {
        let stood_as = self.erased.get(&(room, user)).copied();
        (room, stood_as.unwrap_or(user), id)
    }

    /// The store has erased a user in a room.
    pub fn user_erased(&mut self, room: RoomId, user: UserId, stood_as: UserId) {
        self.erased.insert((room, user), stood_as);
        let placed = std::mem::take(&mut self.placed);
        let now = placed
            .into_iter()
            .map(|(key, seq)| (self.key_now(key), seq));
        self.placed = now.collect();
        let acked = std::mem::take(&mut self.acked);
        let now = acked.into_iter().map(|(key, seq)| (self.key_now(key), seq));
        self.acked = now.collect();
    }

    /// Its author was told that somebody is blocked, or no longer.
    pub fn block_acked(&mut self, by: UserId, user: UserId, blocked: bool) {
        if blocked {
            self.blocks.entry((by, user)).or_default();
        }
    }

    /// Somebody was shown this message, in an event or in the history.
    pub fn message(&mut self, room: RoomId, message: &Value) -> Result<(), String> {
        let (Some(seq), Some(sender)) = (message["seq"].as_u64(), uuid_of(&message["sender_id"]))
        else {
            return Err(format!("not a message: {message}"));
        };
        let is_erased = self.erased.contains_key(&(room, UserId(sender)));
        if self.is_erased_for_all && is_erased {
            return Err(format!("told of an erased user: {message}"));
        }
        self.state(room, seq, message)?;
        for file in files_of(message) {
            match self.files.insert(file.clone(), (room, seq)) {
                Some(other) if other != (room, seq) => {
                    return Err(format!("file {file} is in {other:?} and in {room}/{seq}"));
                }
                _ => (),
            }
        }
        let Some(id) = uuid_of(&message["client_msg_id"]) else {
            return Ok(());
        };
        let key = self.key_now((room, UserId(sender), id));
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
        if *known == shown {
            return Ok(());
        }
        // What is dropped, and what an erased user wrote, is a tombstone without a `changed_seq` of its own.
        let is_dropped = self.floors.get(&room).is_some_and(|floor| seq <= *floor);
        let known = known.clone();
        let [before, after] = [&known, &shown].map(|state| self.without_erased(room, state));
        let is_erased = (before.clone(), after.clone()) != (known.clone(), shown.clone());
        let is_tombstone =
            |state: &str| !state.contains("\"deleted_at\":null") && !state.contains("\"text\":\"");
        match before == after
            || (is_dropped || is_erased) && (is_tombstone(&known) || is_tombstone(&shown))
        {
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

pub fn uuid_of(value: &Value) -> Option<Uuid> {
    value.as_str().and_then(|text| Uuid::parse_str(text).ok())
}
