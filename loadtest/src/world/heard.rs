//! What comes of the mixed load: answers, news without a place in a room, and at the end, when
//! nothing changes any more, what every room is to everybody.

use std::time::Duration;

use uuid::Uuid;

use super::frames::{as_page, is_temporary};
use super::mixing::{Ask, Receipts};
use super::{Phase, SetupError, State, World};
use crate::checker::{Ack, Kind, Mark, PageBy};
use crate::clock::us;
use crate::engine::Engine;
use crate::ids::{ChangeNumber, ClientIndex, RoomIndex, Slot};
use crate::limits::{
    INSPECTION_IN_FLIGHT_MAX, INSPECTION_LIMIT, RECEIPTS_LIMIT, TYPING_ENDS_AFTER, TYPING_SLACK,
    UNREAD_MAX,
};
use crate::mix::OpKind;
use crate::wire::{self, Head};

impl World {
    /// Mixes everything that clients do into the load from now on. All rooms must be made.
    ///
    /// # Errors
    /// When the run cannot go on.
    pub fn begin_mix(&mut self) -> Result<(), SetupError> {
        let Some(shares) = self.state.settings.mix.clone() else {
            return Ok(());
        };
        let mut shares = shares;
        if self.state.nodes.len() > 1 {
            // Their folders are each their own.
            shares.leave_out(OpKind::OF_FILES);
        }
        let mix = super::mixing::Mix::new(shares);
        self.state.mix = Some(Box::new(mix));
        // A server that does not know receipts says so; one that does never answers.
        let asker = (0..self.state.clients.len() as u32).map(ClientIndex);
        let mut asker =
            asker.filter(|client| self.state.clients[client.index()].phase == Phase::Ready);
        let room = |client: &ClientIndex| {
            let memberships = &self.state.clients[client.index()].memberships;
            memberships.first().map(|(room, _)| (*client, *room))
        };
        let Some((client, room)) = asker.find_map(|client| room(&client)) else {
            return Ok(());
        };
        let now_us = self.state.clock.now_us();
        let engine = &mut self.engine;
        self.state
            .ask(engine, client, OpKind::Read, room, now_us, None);
        self.run_until(Duration::from_secs(1), |state| {
            state
                .mix
                .as_ref()
                .is_some_and(|mix| mix.receipts != Receipts::Unknown)
        })?;
        let Some(mix) = &mut self.state.mix else {
            return Ok(());
        };
        mix.asks.retain(|_, ask| ask.kind != OpKind::Read);
        if mix.receipts == Receipts::Unknown {
            mix.receipts = Receipts::Taken;
            self.state.checker.expect_receipts();
        } else {
            self.progress
                .line("notice: the server does not know receipts; they are left out");
        }
        Ok(())
    }

    /// While a backend is out of order, news of other nodes may come late.
    pub fn disturb(&mut self, is_disturbed: bool) {
        if let Some(mix) = &mut self.state.mix {
            mix.is_disturbed = is_disturbed;
        }
    }

    /// Asks, when all is quiet, what every room is to every member, and how far all are.
    ///
    /// # Errors
    /// When the run cannot go on.
    pub fn inspect(&mut self) -> Result<(), SetupError> {
        if self.state.mix.is_none() {
            return Ok(());
        }
        self.progress.stage("asking what is unread");
        let is_answered = self.run_until(INSPECTION_LIMIT, |state| {
            let is_asking = state.mix.as_ref().is_some_and(|mix| !mix.asks.is_empty());
            !is_asking && !state.is_asking_web()
        })?;
        let is_still = self.run_until(TYPING_ENDS_AFTER * 3 + TYPING_SLACK, |state| {
            let mix = state.mix.as_ref();
            mix.is_none_or(|mix| mix.typing_told.is_empty())
        })?;
        let state = &mut self.state;
        if let Some(mix) = &mut state.mix {
            if !is_answered {
                let (over_http, one) = mix.more.open_over_http();
                let open = format!("{:?}, over HTTP {one}", mix.asks.values().next());
                let count = (mix.asks.len() + over_http) as u64;
                let findings = &mut state.checker.findings;
                findings.found_many(Kind::Unanswered, count, || open);
                mix.asks.clear();
            }
            if !is_still {
                let told = format!("still typing: {:?}", mix.typing_told);
                state
                    .checker
                    .findings
                    .found(Kind::WrongTyping, || told.chars().take(200).collect());
                mix.typing_told.clear();
            }
        }
        self.undo()?;
        self.search_all()?;
        let state = &mut self.state;
        state.checker.forget_views();
        state.plan_inspection();
        self.answer_inspection()?;
        // Receipts are written together, once a second.
        let deadline_us = self.state.clock.now_us() + us(RECEIPTS_LIMIT);
        while self.state.clock.now_us() < deadline_us && self.state.plan_again() {
            self.run_for(Duration::from_millis(300))?;
            self.answer_inspection()?;
        }
        Ok(())
    }

    fn answer_inspection(&mut self) -> Result<(), SetupError> {
        let is_done = self.run_until(INSPECTION_LIMIT, |state| {
            let is_done = |mix: &super::mixing::Mix| {
                mix.inspection.queue.is_empty() && mix.inspection.in_flight == 0
            };
            state.mix.as_deref().is_none_or(is_done)
        })?;
        if !is_done && let Some(mix) = &mut self.state.mix {
            let left = mix.inspection.queue.len() + mix.inspection.in_flight;
            mix.inspection.queue.clear();
            self.state.checker.findings.found(Kind::Unanswered, || {
                format!("{left} rooms and lists were not told at the end")
            });
        }
        Ok(())
    }
}

impl State {
    fn plan_inspection(&mut self) {
        let Some(mix) = &mut self.mix else { return };
        let queue = &mut mix.inspection.queue;
        mix.inspection.listed.clear();
        for (index, client) in self.clients.iter().enumerate() {
            let client_index = ClientIndex(index as u32);
            if let Some((room, _)) = client.memberships.first()
                && client.is_wanted
                && client.phase != Phase::Stopped
            {
                queue.push_back((client_index, OpKind::RoomsList, *room, None));
            }
        }
        for (index, plan) in self.rooms.iter().enumerate() {
            let ends = [plan.members.first(), plan.members.last()];
            for client in ends.into_iter().flatten() {
                let room = RoomIndex(index as u32);
                queue.push_back((*client, OpKind::RoomGet, room, None));
            }
        }
    }

    /// Rooms of which something that was said is not there yet. Returns whether there are any.
    fn plan_again(&mut self) -> bool {
        let Some(mix) = &mut self.mix else {
            return false;
        };
        for (index, plan) in self.rooms.iter().enumerate() {
            let room = RoomIndex(index as u32);
            if self.checker.lags(room) {
                let queue = &mut mix.inspection.queue;
                queue.push_back((plan.members[0], OpKind::RoomGet, room, None));
            }
        }
        !mix.inspection.queue.is_empty()
    }

    pub(super) fn inspect_more(&mut self, engine: &mut Engine, now_us: u64) {
        loop {
            let Some(mix) = &mut self.mix else { return };
            let inspection = &mut mix.inspection;
            if inspection.in_flight >= INSPECTION_IN_FLIGHT_MAX || now_us < inspection.not_before_us
            {
                return;
            }
            let Some((client, kind, room, cursor)) = inspection.queue.pop_front() else {
                return;
            };
            if self.clients[client.index()].phase == Phase::Ready {
                inspection.in_flight += 1;
                self.ask(engine, client, kind, room, now_us, Some(cursor));
            } else {
                inspection.not_before_us = now_us + 50_000;
                inspection.queue.push_back((client, kind, room, cursor));
                return;
            }
        }
    }

    pub(super) fn change_acked(
        &mut self,
        client: ClientIndex,
        change: ChangeNumber,
        reply: &wire::ChangeAck,
        is_over_http: bool,
    ) {
        let room = self.room_by_id.get(&reply.room_id).copied();
        let ack = Ack {
            seq: reply.seq,
            changed: reply.changed,
            revision: reply.revision,
        };
        let message_seq = reply.message_seq;
        let is_first = self
            .checker
            .change_acked(client, change, room, message_seq, ack);
        self.settle_change(client, change);
        let Some(asked) = self.checker.change(change).filter(|_| is_first) else {
            return;
        };
        let (want, due_us) = (asked.want, asked.due_us);
        let kind = self.kind_asked(change, want);
        // What was asked for over HTTP and done over the socket was not exercised over HTTP.
        if (kind == OpKind::WebEdit) != is_over_http {
            return;
        }
        self.answered(kind, due_us);
        if !reply.changed
            && let Some(counts) = self.mix_kind(kind)
        {
            counts.unchanged += 1;
        }
    }

    pub(super) fn answered(&mut self, kind: OpKind, due_us: u64) {
        let latency_us = self.clock.now_us().saturating_sub(due_us);
        let is_in_window = self.stats.is_in_window(due_us);
        let has_window = self.stats.window_us.is_some();
        if let Some(counts) = self.mix_kind(kind) {
            counts.acked += 1;
            if is_in_window || !has_window {
                counts.latency.record(latency_us);
            }
        }
    }

    pub(super) fn ask_error(&mut self, client: ClientIndex, number: u32, error: &wire::ErrorBody) {
        let now_us = self.clock.now_us();
        let Some(mix) = &mut self.mix else { return };
        let Some(ask) = mix.asks.remove(&number) else {
            return;
        };
        if ask.is_final {
            mix.inspection.in_flight -= 1;
            if is_temporary(&error.code) {
                let wait_ms = error.retry_after_ms.unwrap_or(200);
                mix.inspection.not_before_us = now_us + wait_ms.min(1000) * 1000;
                mix.inspection.listed.remove(&client);
                let again = (ask.client, ask.kind, ask.room, None);
                mix.inspection.queue.push_back(again);
                return;
            }
        }
        mix.more.forget(&ask);
        mix.kind(ask.kind).refused(&error.code);
        if ask.kind == OpKind::Read && error.code == "unknown_type" {
            mix.receipts = Receipts::Refused;
            return;
        }
        if !is_temporary(&error.code) {
            self.checker.findings.found(Kind::UnexpectedRefusal, || {
                format!("client {}: {}: {ask:?}", client.0, error.code)
            });
        }
    }

    /// A refusal of something that had asked for no reply.
    pub(super) fn refused_without_id(&mut self, client: ClientIndex, error: &wire::ErrorBody) {
        self.stats.count_error(&error.code);
        if !is_temporary(&error.code) {
            self.checker.findings.found(Kind::UnexpectedRefusal, || {
                format!(
                    "client {}: {} {}, to a frame without id",
                    client.0, error.code, error.message
                )
            });
        }
    }

    /// # Errors
    /// When the reply is not what was asked for.
    pub(super) fn ask_answered(
        &mut self,
        client: ClientIndex,
        number: u32,
        frame: &[u8],
    ) -> Result<(), String> {
        let Some(ask) = self.mix.as_mut().and_then(|mix| mix.asks.remove(&number)) else {
            return Err("an answer to nothing".to_owned());
        };
        if ask.client != client {
            return Err("an answer to another".to_owned());
        }
        // A file's address is not yet the file.
        let is_first_part = OpKind::OF_FILES.contains(&ask.kind);
        if ask.is_final
            && let Some(mix) = &mut self.mix
        {
            mix.inspection.in_flight -= 1;
        } else if !is_first_part && ask.is_counted {
            self.answered(ask.kind, ask.due_us);
        }
        match ask.kind {
            OpKind::HistoryNewest | OpKind::HistoryBefore | OpKind::HistoryAfter => {
                let page = wire::parse::<wire::Data<wire::HistoryPage>>(frame)?.data;
                self.stats.history_pages += 1;
                let room = ask.room;
                match ask.by {
                    PageBy::After(seq) => {
                        self.checker.check_page(room, &as_page(seq, &page));
                    }
                    by => self.checker.check_range(room, &as_page(0, &page), by),
                }
            }
            OpKind::RoomsList => self.listed(&ask, frame)?,
            OpKind::RoomGet => self.room_got(&ask, frame)?,
            OpKind::PresenceSubscribe => {
                let told = wire::parse::<wire::Data<wire::Users>>(frame)?.data;
                let told: Vec<Uuid> = told.users.iter().map(|user| user.user_id).collect();
                if told != ask.users {
                    self.checker.findings.found(Kind::WrongPresence, || {
                        format!("client {}: asked {:?}, told {told:?}", client.0, ask.users)
                    });
                }
            }
            _ => self.more_answered(&ask, frame)?,
        }
        Ok(())
    }

    fn listed(&mut self, ask: &Ask, frame: &[u8]) -> Result<(), String> {
        let page = wire::parse::<wire::Data<wire::RoomsListed>>(frame)?.data;
        for room in &page.rooms {
            let Some(place) = self.membership(ask.client, room.room_id) else {
                // From an earlier run on the same store.
                continue;
            };
            if room.unread > UNREAD_MAX || room.read_seq > room.last_seq {
                self.checker.findings.found(Kind::WrongUnread, || {
                    format!(
                        "room {}: unread {}, read_seq {} of {}",
                        place.0.0, room.unread, room.read_seq, room.last_seq
                    )
                });
            }
            if ask.is_final {
                let (read_seq, unread) = (room.read_seq, room.unread);
                self.checker.own_view(place, read_seq, unread, "rooms.list");
                if let Some(mix) = &mut self.mix {
                    *mix.inspection.listed.entry(ask.client).or_default() += 1;
                }
            }
        }
        let Some(mix) = self.mix.as_mut().filter(|_| ask.is_final) else {
            return Ok(());
        };
        if let Some(cursor) = page.next_cursor {
            let next = (ask.client, ask.kind, ask.room, Some(cursor));
            mix.inspection.queue.push_back(next);
            return Ok(());
        }
        let listed = mix.inspection.listed.remove(&ask.client).unwrap_or(0);
        let rooms = self.clients[ask.client.index()].memberships.len();
        if listed != rooms {
            self.checker.findings.found(Kind::WrongUnread, || {
                format!(
                    "client {}: {listed} of its {rooms} rooms are listed",
                    ask.client.0
                )
            });
        }
        Ok(())
    }

    fn room_got(&mut self, ask: &Ask, frame: &[u8]) -> Result<(), String> {
        let got = wire::parse::<wire::Data<wire::RoomGot>>(frame)?.data;
        let Some((room, own)) = self.membership(ask.client, got.room.room_id) else {
            return Err("a room that was not asked for".to_owned());
        };
        for member in &got.room.members {
            let Some(slot) = self.slot_of(room, member.user_id) else {
                return Err(format!("{} is no member", member.user_id));
            };
            let mark = Mark {
                read: member.read_seq,
                delivered: member.delivered_seq,
            };
            self.checker.got_mark(room, slot, mark, got.room.last_seq);
        }
        if let (true, Some(read_seq), Some(unread)) = (ask.is_final, got.read_seq, got.unread) {
            // Asked again while something lags: the last word counts, and it is compared by its own
            // `read_seq`.
            let is_settled = !self.checker.lags(room);
            if is_settled {
                let place = (room, own);
                self.checker.own_view(place, read_seq, unread, "room.get");
            }
        }
        Ok(())
    }

    pub(super) fn slot_of(&self, room: RoomIndex, user: Uuid) -> Option<Slot> {
        let client = *self.client_by_user.get(&user)?;
        self.membership_in(client, room)
    }

    pub(super) fn membership_in(&self, client: ClientIndex, room: RoomIndex) -> Option<Slot> {
        let memberships = &self.clients[client.index()].memberships;
        let place = memberships
            .binary_search_by_key(&room, |(room, _)| *room)
            .ok()?;
        memberships.get(place).map(|(_, slot)| *slot)
    }

    /// An event without a place in a room's log.
    pub(super) fn ephemeral(&mut self, client: ClientIndex, head: &Head<'_>, frame: &[u8]) {
        self.stats.ephemeral += 1;
        let Some(mix) = &mut self.mix else { return };
        mix.count_event(head.kind);
        let heard = match head.kind {
            "typing.updated" => self.typing_heard(client, head, frame),
            "receipt.updated" => self.receipt_heard(client, head, frame),
            "presence.updated" => self.presence_heard(client, frame),
            _ => Ok(()),
        };
        if let Err(error) = heard {
            self.bad_frame(client, &error, frame);
        }
    }

    fn place_of(&self, client: ClientIndex, head: &Head<'_>) -> Result<(RoomIndex, Slot), String> {
        head.room_id
            .and_then(|room_id| Uuid::try_parse(room_id).ok())
            .and_then(|room_id| self.membership(client, room_id))
            .ok_or_else(|| "of a room that it is not in".to_owned())
    }

    fn typing_heard(
        &mut self,
        client: ClientIndex,
        head: &Head<'_>,
        frame: &[u8],
    ) -> Result<(), String> {
        let (room, _) = self.place_of(client, head)?;
        let told = wire::parse::<wire::Data<wire::UserIds>>(frame)?.data;
        let mut typing = Vec::with_capacity(told.user_ids.len());
        for user in told.user_ids {
            match self.slot_of(room, user) {
                Some(slot) => typing.push(slot),
                None => self.checker.findings.found(Kind::WrongTyping, || {
                    format!("room {}: {user} types and is no member", room.0)
                }),
            }
        }
        let now_us = self.clock.now_us();
        for slot in &typing {
            if !self.may_type(room, *slot, now_us) {
                self.checker.findings.found(Kind::WrongTyping, || {
                    format!("room {} member {} does not type", room.0, slot.0)
                });
            }
        }
        let Some(mix) = &mut self.mix else {
            return Ok(());
        };
        if typing.is_empty() {
            mix.typing_told.remove(&(client, room));
        } else {
            mix.typing_told.insert((client, room), typing);
        }
        Ok(())
    }

    /// Whether the member said so lately enough to be told as typing.
    fn may_type(&self, room: RoomIndex, slot: Slot, now_us: u64) -> bool {
        let Some(mix) = &self.mix else { return true };
        let Some(said_us) = mix.typing_said.get(&(room, slot)) else {
            return false;
        };
        // What another node said holds as long again; while a backend is away it may come any time.
        let nodes = if self.nodes.len() > 1 { 2 } else { 1 };
        let longest = us(TYPING_ENDS_AFTER * nodes + TYPING_SLACK);
        mix.is_disturbed || now_us.saturating_sub(*said_us) <= longest
    }

    /// Finds who is told to be typing for too long.
    pub(super) fn sweep_typing(&mut self, now_us: u64) {
        let Some(mix) = &self.mix else { return };
        let stuck = mix.typing_told.iter().filter(|((_, room), slots)| {
            let may = |slot: &Slot| self.may_type(*room, *slot, now_us);
            !slots.iter().any(may)
        });
        let stuck: Vec<_> = stuck
            .map(|(place, slots)| (*place, slots.clone()))
            .collect();
        for (place, slots) in stuck {
            self.checker.findings.found(Kind::WrongTyping, || {
                format!("{place:?}: {slots:?} are told to type and stopped long ago")
            });
            if let Some(mix) = &mut self.mix {
                mix.typing_told.remove(&place);
            }
        }
    }

    fn receipt_heard(
        &mut self,
        client: ClientIndex,
        head: &Head<'_>,
        frame: &[u8],
    ) -> Result<(), String> {
        let (room, _) = self.place_of(client, head)?;
        let told = wire::parse::<wire::Data<wire::Watermark>>(frame)?.data;
        let slot = self
            .slot_of(room, told.user_id)
            .ok_or("a receipt of one who is no member")?;
        let connection = self.clients[client.index()].connection;
        let mark = Mark {
            read: told.read_seq,
            delivered: told.delivered_seq,
        };
        self.checker.receipt((client, connection), room, slot, mark);
        Ok(())
    }

    fn presence_heard(&mut self, client: ClientIndex, frame: &[u8]) -> Result<(), String> {
        let told = wire::parse::<wire::Data<wire::Users>>(frame)?.data;
        let watched = self.mix.as_ref().and_then(|mix| mix.watched.get(&client));
        for user in told.users {
            let is_watched = watched.is_some_and(|watched| watched.contains(&user.user_id));
            let is_state = matches!(user.state.as_str(), "online" | "away" | "offline");
            if !is_watched || !is_state {
                self.checker.findings.found(Kind::WrongPresence, || {
                    format!(
                        "client {}: {} is {}, watched: {is_watched}",
                        client.0, user.user_id, user.state
                    )
                });
            }
        }
        Ok(())
    }
}
