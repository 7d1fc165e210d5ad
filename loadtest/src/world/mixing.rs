//! The mixed load: beside sends, everything else that clients do, in shares.
//!
//! Invariants: a change that has no answer is asked for again, as a send is, until it has one; of one
//! message's edits its author has one open at a time, so that each revision's text is known; reads
//! are not repeated, they end with their connection.
//!
//! Next: [`super::heard`], what comes of it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use uuid::Uuid;

use super::more::{About, More};
use super::{Phase, State, Timer};
use crate::checker::{EMOJIS, Fate, Mark, PageBy, Want};
use crate::engine::Engine;
use crate::identity;
use crate::ids::{ChangeNumber, ClientIndex, MessageNumber, RoomIndex, Slot};
use crate::limits::{SEND_ATTEMPTS_MAX, UNACKED_PER_CLIENT_MAX};
use crate::mix::{KindStats, OpKind, Owed, Shares};
use crate::wire::{self, RequestId};

/// Draws of a message until one is found that may be changed.
const PICKS_MAX: u32 = 8;
/// Messages are changed as long as they are among the newest events of their room.
const PICK_FROM_NEWEST: u64 = 64;
/// Reactions that a client remembers, to take them back.
const OWN_REACTIONS_MAX: usize = 16;
/// Messages of a page that is asked for.
const PAGE: u64 = 30;

/// A read, or a choice, without an answer.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub client: ClientIndex,
    pub kind: OpKind,
    pub room: RoomIndex,
    pub by: PageBy,
    pub due_us: u64,
    /// Users of a subscription.
    pub users: Vec<Uuid>,
    /// Asked at the end, when nothing changes.
    pub is_final: bool,
    /// It is of the load, and not of its end.
    pub is_counted: bool,
    pub about: About,
}

impl Ask {
    pub(super) fn new(client: ClientIndex, kind: OpKind, room: RoomIndex, due_us: u64) -> Self {
        Self {
            client,
            kind,
            room,
            by: PageBy::Newest,
            due_us,
            users: Vec::new(),
            is_final: false,
            is_counted: true,
            about: About::Nothing,
        }
    }
}

/// Whether the server takes receipts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Receipts {
    Unknown,
    Taken,
    Refused,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct OwnReaction {
    room: RoomIndex,
    message_seq: u64,
    emoji: u8,
}

/// What is left to ask at the end.
#[derive(Default)]
pub(super) struct Inspection {
    pub queue: VecDeque<(ClientIndex, OpKind, RoomIndex, Option<String>)>,
    pub in_flight: usize,
    pub not_before_us: u64,
    /// Rooms listed so far, by client.
    pub listed: HashMap<ClientIndex, usize>,
}

pub struct Mix {
    pub shares: Shares,
    pub kinds: BTreeMap<OpKind, KindStats>,
    /// Events received, by what they tell.
    pub events: BTreeMap<String, u64>,
    pub receipts: Receipts,
    /// A backend is out of order: news of other nodes may come late.
    pub is_disturbed: bool,
    /// Searches that had to find.
    pub searches_judged: u64,
    pub(super) asks: HashMap<u32, Ask>,
    pub(super) next_ask: u32,
    pub(super) owed: Owed,
    pub(super) more: More,
    pub(super) typing_said: HashMap<(RoomIndex, Slot), u64>,
    pub(super) typing_told: HashMap<(ClientIndex, RoomIndex), Vec<Slot>>,
    pub(super) watched: HashMap<ClientIndex, HashSet<Uuid>>,
    reactions: HashMap<ClientIndex, VecDeque<OwnReaction>>,
    /// Messages of which an edit that expected no revision may still be done, late.
    frozen: HashSet<MessageNumber>,
    pub(super) inspection: Inspection,
}

impl Mix {
    pub(super) fn new(shares: Shares) -> Self {
        Self {
            shares,
            kinds: BTreeMap::new(),
            events: BTreeMap::new(),
            receipts: Receipts::Unknown,
            is_disturbed: false,
            searches_judged: 0,
            asks: HashMap::new(),
            next_ask: 0,
            owed: Owed::default(),
            more: More::default(),
            typing_said: HashMap::new(),
            typing_told: HashMap::new(),
            watched: HashMap::new(),
            reactions: HashMap::new(),
            frozen: HashSet::new(),
            inspection: Inspection::default(),
        }
    }

    pub(super) fn kind(&mut self, kind: OpKind) -> &mut KindStats {
        self.kinds.entry(kind).or_default()
    }

    pub(super) fn count_event(&mut self, name: &str) {
        match self.events.get_mut(name) {
            Some(count) => *count += 1,
            None => {
                self.events.insert(name.to_owned(), 1);
            }
        }
    }

    /// What a connection was told, and had asked for, ends with it.
    pub(super) fn forget_connection(&mut self, client: ClientIndex) {
        self.typing_told
            .retain(|(listener, _), _| *listener != client);
        self.watched.remove(&client);
        let Self {
            asks,
            kinds,
            inspection,
            more,
            ..
        } = self;
        asks.retain(|_, ask| {
            if ask.client != client {
                return true;
            }
            more.forget(ask);
            if ask.is_final {
                inspection.in_flight -= 1;
                let again = (ask.client, ask.kind, ask.room, None);
                inspection.listed.remove(&ask.client);
                inspection.queue.push_back(again);
            } else {
                kinds.entry(ask.kind).or_default().unanswered += 1;
            }
            false
        });
    }
}

impl State {
    pub(super) fn mix_kind(&mut self, kind: OpKind) -> Option<&mut KindStats> {
        self.mix.as_mut().map(|mix| mix.kind(kind))
    }

    /// One operation is due in a room.
    pub(super) fn mix_due(&mut self, engine: &mut Engine, room: RoomIndex, due_us: u64) {
        let Some(mix) = &mut self.mix else { return };
        let kind = mix.shares.draw(&mut self.random);
        // What could not be done in another room is perhaps possible in this one.
        if let Some(owed) = mix.owed.take() {
            self.mix_one(engine, owed, room, due_us);
        }
        self.mix_one(engine, kind, room, due_us);
    }

    /// Does an operation, or owes it.
    fn mix_one(&mut self, engine: &mut Engine, kind: OpKind, room: RoomIndex, due_us: u64) {
        let is_asked = match kind {
            OpKind::Send => self.mixed_send(engine, room, due_us),
            OpKind::Edit => self.edit(engine, room, due_us),
            OpKind::Delete => self.delete(engine, room, due_us),
            OpKind::ReactionAdd => self.react(engine, room, due_us),
            OpKind::ReactionRemove => self.take_back(engine, room, due_us),
            OpKind::Delivered | OpKind::Read => self.say_receipt(engine, room, kind),
            OpKind::TypingStart | OpKind::TypingStop => self.type_in(engine, room, kind),
            OpKind::Connect => self.roam(engine, room),
            kind if OpKind::MORE.contains(&kind) => self.do_more(engine, kind, room, due_us),
            _ => match self.ready_member(room) {
                Some((client, _)) => self.ask(engine, client, kind, room, due_us, None),
                None => false,
            },
        };
        let Some(mix) = &mut self.mix else { return };
        match is_asked {
            true => mix.kind(kind).asked += 1,
            false => {
                mix.kind(kind).not_asked += 1;
                mix.owed.put(kind);
            }
        }
    }

    /// Some member with a connection.
    pub(super) fn ready_member(&mut self, room: RoomIndex) -> Option<(ClientIndex, Slot)> {
        let members = self.rooms[room.index()].members.len();
        let first = self.random.below(members as u64) as usize;
        (0..members)
            .map(|step| (first + step) % members)
            .map(|slot| (self.rooms[room.index()].members[slot], Slot(slot as u32)))
            .find(|(client, _)| self.clients[client.index()].phase == Phase::Ready)
    }

    fn mixed_send(&mut self, engine: &mut Engine, room: RoomIndex, due_us: u64) -> bool {
        let senders = u64::from(self.rooms[room.index()].senders.max(1));
        let slot = Slot(self.random.below(senders) as u32);
        let reply_to_seq = match self.random.below(8) {
            0 => self.pick_message(room).map_or(0, |(_, seq)| seq),
            _ => 0,
        };
        let members = self.rooms[room.index()].members.len() as u64;
        let mention = match self.random.below(8) {
            0 => Some(Slot(self.random.below(members) as u32)),
            _ => None,
        };
        let plan = &self.rooms[room.index()].members;
        let sender = plan[slot.index()];
        let is_apart = |slot: &Slot| {
            let pair = (sender, plan[slot.index()]);
            self.mix
                .as_ref()
                .is_some_and(|mix| mix.more.apart.contains(&pair))
        };
        let mention = mention.filter(|slot| !is_apart(slot));
        self.send_new(engine, room, slot, due_us, (reply_to_seq, mention))
    }

    /// A message among the newest events, less often one that is being deleted.
    pub(super) fn pick_message(&mut self, room: RoomIndex) -> Option<(MessageNumber, u64)> {
        let newest = self.checker.known_seq(room);
        for _ in 0..PICKS_MAX {
            let back = self.random.below(newest.clamp(1, PICK_FROM_NEWEST));
            let seq = newest - back.min(newest);
            let Some(number) = self.checker.message_at(room, seq) else {
                continue;
            };
            let sent = self.checker.message(number)?;
            if !sent.is_delete_asked || self.random.below(3) == 0 {
                return Some((number, seq));
            }
        }
        None
    }

    /// Whether the client may ask for another change of the message.
    fn may_change(&self, client: ClientIndex, number: MessageNumber) -> bool {
        let it = &self.clients[client.index()];
        let is_open = |change: &ChangeNumber| {
            let asked = self.checker.change(*change);
            asked.is_some_and(|asked| asked.number == number)
        };
        it.phase == Phase::Ready
            && it.open_changes.len() < UNACKED_PER_CLIENT_MAX
            && !it.open_changes.iter().any(is_open)
    }

    pub(super) fn edit(&mut self, engine: &mut Engine, room: RoomIndex, due_us: u64) -> bool {
        let Some((number, seq)) = self.pick_message(room) else {
            return false;
        };
        let Some(sent) = self.checker.message(number) else {
            return false;
        };
        let (author, now) = (sent.slot, sent.asked_revision);
        let members = self.rooms[room.index()].members.len() as u32;
        let (mut slot, mut revision, mut expected) = (author, now + 1, Some(now));
        let mut fate = Fate::Done;
        match self.random.below(40) {
            0 | 1 if members > 1 => {
                slot = Slot((author.0 + 1) % members);
                fate = Fate::Forbidden;
            }
            2 | 3 => {
                expected = Some(now + 1);
                fate = Fate::Conflict;
            }
            4 | 5 => revision = now,
            6..20 => expected = None,
            _ => {}
        }
        let client = self.rooms[room.index()].members[slot.index()];
        let is_frozen = |mix: &Mix| mix.frozen.contains(&number);
        if !self.may_change(client, number) || self.mix.as_deref().is_some_and(is_frozen) {
            return false;
        }
        let want = Want::Edit { revision, expected };
        self.change(engine, (room, slot), (number, seq), want, fate, due_us)
    }

    fn delete(&mut self, engine: &mut Engine, room: RoomIndex, due_us: u64) -> bool {
        let Some((number, seq)) = self.pick_message(room) else {
            return false;
        };
        let Some(sent) = self.checker.message(number) else {
            return false;
        };
        // Its author, or the room's owner, who made it.
        let slot = match self.random.below(4) {
            0 => Slot(0),
            _ => sent.slot,
        };
        let client = self.rooms[room.index()].members[slot.index()];
        if !self.may_change(client, number) {
            return false;
        }
        let place = (room, slot);
        let want = Want::Delete;
        self.change(engine, place, (number, seq), want, Fate::Done, due_us)
    }

    fn react(&mut self, engine: &mut Engine, room: RoomIndex, due_us: u64) -> bool {
        let (Some((number, seq)), Some((client, slot))) =
            (self.pick_message(room), self.ready_member(room))
        else {
            return false;
        };
        if !self.may_change(client, number) {
            return false;
        }
        let emoji = self.random.below(EMOJIS.len() as u64) as u8;
        let want = Want::React { emoji, added: true };
        let is_asked = self.change(
            engine,
            (room, slot),
            (number, seq),
            want,
            Fate::Done,
            due_us,
        );
        if is_asked && let Some(mix) = &mut self.mix {
            let own = mix.reactions.entry(client).or_default();
            if own.len() == OWN_REACTIONS_MAX {
                own.pop_front();
            }
            own.push_back(OwnReaction {
                room,
                message_seq: seq,
                emoji,
            });
        }
        is_asked
    }

    /// Takes back a reaction; now and then one that was never put.
    fn take_back(&mut self, engine: &mut Engine, room: RoomIndex, due_us: u64) -> bool {
        let Some((client, _)) = self.ready_member(room) else {
            return false;
        };
        let own = self
            .mix
            .as_mut()
            .and_then(|mix| mix.reactions.get_mut(&client)?.pop_front());
        let room = own.map_or(room, |own| own.room);
        let place = self.membership_in(client, room).map(|slot| (room, slot));
        let target = match own {
            Some(own) => self
                .checker
                .message_at(own.room, own.message_seq)
                .map(|number| (number, own.message_seq, own.emoji)),
            None => self
                .pick_message(room)
                .map(|(number, seq)| (number, seq, 0)),
        };
        let (Some(place), Some((number, seq, emoji))) = (place, target) else {
            return false;
        };
        if !self.may_change(client, number) {
            return false;
        }
        let want = Want::React {
            emoji,
            added: false,
        };
        self.change(engine, place, (number, seq), want, Fate::Done, due_us)
    }

    fn change(
        &mut self,
        engine: &mut Engine,
        (room, slot): (RoomIndex, Slot),
        message: (MessageNumber, u64),
        want: Want,
        fate: Fate,
        due_us: u64,
    ) -> bool {
        let client = self.rooms[room.index()].members[slot.index()];
        let change = self
            .checker
            .add_change((room, slot), message, want, fate, due_us);
        self.clients[client.index()].open_changes.push_back(change);
        self.open_changes += 1;
        let is_by_web = self.mix.as_ref().is_some_and(|mix| mix.more.change_by_web);
        if !(is_by_web && self.web_change(client, change)) {
            self.transmit_change(engine, client, change);
        }
        true
    }

    /// Asks for a change on the client's present connection, for the first time or again.
    pub(super) fn transmit_change(
        &mut self,
        engine: &mut Engine,
        client: ClientIndex,
        change: ChangeNumber,
    ) {
        let it = &self.clients[client.index()];
        let (Phase::Ready, Some(id)) = (it.phase, it.conn) else {
            return;
        };
        if self
            .mix
            .as_ref()
            .is_some_and(|mix| mix.more.changes.contains(&change))
        {
            // It is under way over HTTP.
            return;
        }
        let Some(asked) = self.checker.change(change) else {
            return;
        };
        let Some(room_id) = self.rooms[asked.room.index()].id else {
            return;
        };
        let message_seq = asked.message_seq;
        let mut data = format!(r#""room_id":"{room_id}","message_seq":{message_seq}"#);
        let kind = match asked.want {
            Want::Edit { revision, expected } => {
                let text = self.checker.text_at(asked.number, revision);
                let text = identity::json_escaped(&text);
                data.push_str(&format!(r#","text":"{text}""#));
                if let Some(expected) = expected {
                    data.push_str(&format!(r#","expected_revision":{expected}"#));
                }
                "message.edit"
            }
            Want::Delete => "message.delete",
            Want::React { emoji, added } => {
                let emoji = EMOJIS[usize::from(emoji) % EMOJIS.len()];
                data.push_str(&format!(r#","emoji":"{emoji}""#));
                if added {
                    "reaction.add"
                } else {
                    "reaction.remove"
                }
            }
        };
        if asked.attempts > 0 {
            self.stats.retries += 1;
        }
        let frame = wire::request(Some(RequestId::Change(change)), kind, &data);
        self.checker.change_attempted(change);
        engine.send_text(id, frame.as_bytes());
    }

    pub(super) fn resend_change(
        &mut self,
        engine: &mut Engine,
        change: ChangeNumber,
        connection: u32,
    ) {
        let Some(asked) = self.checker.change(change) else {
            return;
        };
        let client = self.rooms[asked.room.index()].members[asked.slot.index()];
        let it = &self.clients[client.index()];
        if it.connection == connection && it.open_changes.contains(&change) {
            self.transmit_change(engine, client, change);
        }
    }

    /// What a change that may be done or not means for later ones.
    pub(super) fn change_uncertain(&mut self, change: ChangeNumber) {
        self.checker.change_uncertain(change);
        if let (Some(asked), Some(mix)) = (self.checker.change(change), &mut self.mix)
            && let Want::Edit { expected: None, .. } = asked.want
        {
            mix.frozen.insert(asked.number);
        }
    }

    pub(super) fn change_error(
        &mut self,
        client: ClientIndex,
        change: ChangeNumber,
        error: &wire::ErrorBody,
        pause_us: u64,
    ) {
        let Some(asked) = self.checker.change(change) else {
            return;
        };
        let (want, attempts) = (asked.want, asked.attempts);
        let kind = self.kind_asked(change, want);
        if let Some(counts) = self.mix_kind(kind) {
            counts.refused(&error.code);
        }
        if super::frames::is_temporary(&error.code) && attempts < SEND_ATTEMPTS_MAX {
            if error.code != "rate_limited" {
                self.change_uncertain(change);
            }
            let connection = self.clients[client.index()].connection;
            self.timer(pause_us, Timer::ResendChange(change, connection));
            return;
        }
        self.checker.change_refused(change, &error.code);
        self.settle_change(client, change);
    }

    /// As what a change was asked for.
    pub(super) fn kind_asked(&self, change: ChangeNumber, want: Want) -> OpKind {
        let is_web = |mix: &Mix| mix.more.web_changes.contains(&change);
        match self.mix.as_deref().is_some_and(is_web) {
            true => OpKind::WebEdit,
            false => kind_of(want),
        }
    }

    pub(super) fn settle_change(&mut self, client: ClientIndex, change: ChangeNumber) {
        let open = &mut self.clients[client.index()].open_changes;
        if let Some(place) = open.iter().position(|open| *open == change) {
            open.remove(place);
            self.open_changes -= 1;
        }
    }

    fn say_receipt(&mut self, engine: &mut Engine, room: RoomIndex, kind: OpKind) -> bool {
        let is_taken = |mix: &Mix| mix.receipts == Receipts::Taken;
        if !self.mix.as_deref().is_some_and(is_taken) {
            return false;
        }
        let Some((client, slot)) = self.ready_member(room) else {
            return false;
        };
        let position = self.checker.cursor(room, slot).position;
        let mark = match kind {
            OpKind::Read => Mark {
                read: position.saturating_sub(self.random.below(4)),
                delivered: 0,
            },
            _ => Mark {
                read: 0,
                delivered: position,
            },
        };
        self.send_mark(engine, client, room, slot, mark)
    }

    pub(super) fn send_mark(
        &mut self,
        engine: &mut Engine,
        client: ClientIndex,
        room: RoomIndex,
        slot: Slot,
        mark: Mark,
    ) -> bool {
        let it = &self.clients[client.index()];
        // Before it is ready, nothing may be said but who it is; it says again what it said.
        let (Some(room_id), Phase::Ready, Some(id)) =
            (self.rooms[room.index()].id, it.phase, it.conn)
        else {
            return false;
        };
        for (kind, seq) in [
            ("receipt.delivered", mark.delivered),
            ("receipt.read", mark.read),
        ] {
            if seq > 0 {
                let data = format!(r#""rooms":{{"{room_id}":{seq}}}"#);
                engine.send_text(id, wire::request(None, kind, &data).as_bytes());
            }
        }
        self.checker.say_mark(room, slot, mark);
        mark != Mark::default()
    }

    /// A client that is back says again how far it was: a receipt may be lost with its connection.
    pub(super) fn say_again(&mut self, engine: &mut Engine, client: ClientIndex) {
        let is_taken = |mix: &Mix| mix.receipts == Receipts::Taken;
        if !self.mix.as_deref().is_some_and(is_taken) {
            return;
        }
        for (room, slot) in self.clients[client.index()].memberships.clone() {
            let said = self.checker.said(room, slot);
            self.send_mark(engine, client, room, slot, said);
        }
    }

    fn type_in(&mut self, engine: &mut Engine, room: RoomIndex, kind: OpKind) -> bool {
        let Some((client, slot)) = self.ready_member(room) else {
            return false;
        };
        let (Some(room_id), Some(id)) = (
            self.rooms[room.index()].id,
            self.clients[client.index()].conn,
        ) else {
            return false;
        };
        let name = match kind {
            OpKind::TypingStart => {
                let now_us = self.clock.now_us();
                if let Some(mix) = &mut self.mix {
                    mix.typing_said.insert((room, slot), now_us);
                }
                "typing.start"
            }
            _ => "typing.stop",
        };
        let data = format!(r#""room_id":"{room_id}""#);
        engine.send_text(id, wire::request(None, name, &data).as_bytes());
        true
    }

    /// A member of the room goes, and comes back after a while.
    fn roam(&mut self, engine: &mut Engine, room: RoomIndex) -> bool {
        let Some((client, _)) = self.ready_member(room) else {
            return false;
        };
        let Some(id) = self.clients[client.index()].conn else {
            return false;
        };
        match self.random.below(3) {
            0 => engine.abort(id),
            1 => engine.drop_silently(id),
            _ => engine.close(id),
        }
        self.left(client);
        self.clients[client.index()].is_roaming = true;
        let pause_us = self.random.between(50_000, 1_500_000);
        self.timer(pause_us, Timer::Reconnect(client));
        true
    }

    /// Asks for something that is answered once, or not at all.
    pub(super) fn ask(
        &mut self,
        engine: &mut Engine,
        client: ClientIndex,
        kind: OpKind,
        room: RoomIndex,
        due_us: u64,
        at_the_end: Option<Option<String>>,
    ) -> bool {
        let Some(room_id) = self.rooms[room.index()].id else {
            return false;
        };
        let mut ask = Ask::new(client, kind, room, due_us);
        ask.is_final = at_the_end.is_some();
        let known_seq = self.checker.known_seq(room);
        let (name, data) = match kind {
            OpKind::HistoryNewest => (
                "history.get",
                format!(r#""room_id":"{room_id}","limit":{PAGE}"#),
            ),
            OpKind::HistoryBefore => {
                let seq = self.random.between(2, known_seq.max(2));
                ask.by = PageBy::Before(seq);
                let data = format!(r#""room_id":"{room_id}","before_seq":{seq},"limit":{PAGE}"#);
                ("history.get", data)
            }
            OpKind::HistoryAfter => {
                let seq = known_seq.saturating_sub(self.random.below(2 * PAGE));
                ask.by = PageBy::After(seq);
                let data = format!(r#""room_id":"{room_id}","after_seq":{seq},"limit":{PAGE}"#);
                ("history.get", data)
            }
            OpKind::RoomsList => {
                let data = match at_the_end.as_ref().and_then(Option::as_ref) {
                    Some(cursor) => format!(r#""limit":100,"cursor":"{cursor}""#),
                    None => r#""limit":100"#.to_owned(),
                };
                ("rooms.list", data)
            }
            OpKind::RoomGet => ("room.get", format!(r#""room_id":"{room_id}""#)),
            OpKind::PresenceSet => {
                let states = ["online", "away", "invisible"];
                let state = states[self.random.below(3) as usize];
                ("presence.set", format!(r#""state":"{state}""#))
            }
            OpKind::PresenceSubscribe => {
                let members = self.rooms[room.index()].members.iter().take(20);
                ask.users = members.map(|member| identity::user_id(*member)).collect();
                ask.users.sort_unstable();
                let list = wire::uuid_list(ask.users.iter().copied());
                ("presence.subscribe", format!(r#""user_ids":[{list}]"#))
            }
            // Probes whether receipts are known; a server that knows them does not answer.
            OpKind::Read => {
                let data = format!(r#""rooms":{{"{room_id}":1}}"#);
                ("receipt.read", data)
            }
            _ => return false,
        };
        self.put_ask(engine, ask, (name, &data))
    }

    /// Asks on the client's connection, and keeps what was asked until its answer.
    pub(super) fn put_ask(
        &mut self,
        engine: &mut Engine,
        ask: Ask,
        (name, data): (&str, &str),
    ) -> bool {
        let (Some(mix), Some(id)) = (&mut self.mix, self.clients[ask.client.index()].conn) else {
            return false;
        };
        let number = mix.next_ask;
        mix.next_ask = mix.next_ask.wrapping_add(1);
        if !ask.users.is_empty() {
            let watched = mix.watched.entry(ask.client).or_default();
            watched.extend(ask.users.iter().copied());
        }
        mix.asks.insert(number, ask);
        let frame = wire::request(Some(RequestId::Ask(number)), name, data);
        engine.send_text(id, frame.as_bytes());
        true
    }
}

fn kind_of(want: Want) -> OpKind {
    match want {
        Want::Edit { .. } => OpKind::Edit,
        Want::Delete => OpKind::Delete,
        Want::React { added: true, .. } => OpKind::ReactionAdd,
        Want::React { added: false, .. } => OpKind::ReactionRemove,
    }
}
