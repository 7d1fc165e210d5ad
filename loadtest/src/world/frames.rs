//! What arrives on a client's connection, each kind of frame to its place.

use uuid::Uuid;

use super::{Early, Phase, State, Timer};
use crate::checker::{Change, EMOJIS, Kind, Observed, Page, Shown, What};
use crate::engine::{ConnId, Engine};
use crate::ids::{ClientIndex, MessageNumber, RoomIndex, Slot};
use crate::random::fingerprint;
use crate::wire::{self, Head, RequestId};

/// Early frames kept per room until its name is known.
const EARLY_MAX: usize = 4096;

impl State {
    pub(super) fn frame(
        &mut self,
        engine: &mut Engine,
        id: ConnId,
        client: ClientIndex,
        frame: &[u8],
    ) {
        self.clients[client.index()].heard_us = self.clock.now_us();
        let Some(head) = wire::head(frame) else {
            self.bad_frame(client, "no type", frame);
            return;
        };
        if let (Some(seq), Some(room_id)) = (head.seq, head.room_id) {
            let Ok(room_id) = Uuid::try_parse(room_id) else {
                self.bad_frame(client, "bad room_id", frame);
                return;
            };
            self.event(client, &head, room_id, seq, frame);
            return;
        }
        if head.id.is_some() {
            self.reply(engine, client, &head, frame);
            return;
        }
        match head.kind {
            "ping" => engine.send_text(id, br#"{"type":"pong"}"#),
            "room.added" => match wire::parse::<wire::Data<wire::RoomAdded>>(frame) {
                Ok(added) => {
                    let added = added.data;
                    self.room_added(client, added.room.room_id, added.last_seq);
                }
                Err(error) => self.bad_frame(client, &error, frame),
            },
            "room.gap" => self.gap(engine, client, &head, frame),
            "server.closing" | "server.draining" => {
                if let Ok(hint) = wire::parse::<wire::Data<wire::RetryAfter>>(frame) {
                    let wait_ms = hint.data.retry_after_ms.or(hint.data.reconnect_after_ms);
                    self.clients[client.index()].retry_after_ms = wait_ms;
                }
            }
            "error" => match wire::parse::<wire::ErrorReply>(frame) {
                Ok(reply) => self.refused_without_id(client, &reply.error),
                Err(error) => self.bad_frame(client, &error, frame),
            },
            _ => self.ephemeral(client, &head, frame),
        }
    }

    fn event(
        &mut self,
        client: ClientIndex,
        head: &Head<'_>,
        room_id: Uuid,
        seq: u64,
        frame: &[u8],
    ) {
        let fingerprint = fingerprint(frame);
        let Some((room, slot)) = self.membership(client, room_id) else {
            if self.room_by_id.contains_key(&room_id) {
                self.checker.findings.found(Kind::NotAMember, || {
                    format!("client {} got {} of room {room_id}", client.0, head.kind)
                });
            } else {
                self.early(client, room_id, Early::Event(seq, fingerprint));
            }
            return;
        };
        let arrival = self.checker.event(room, slot, seq, fingerprint);
        if arrival.needs_content {
            self.content(client, room, seq, fingerprint, head, frame);
        }
        if !arrival.is_new {
            self.stats.events_known += 1;
            return;
        }
        self.stats.deliveries += 1;
        self.count_event(room, seq, head.kind);
        let Some(received) = self.checker.received(room, seq) else {
            return;
        };
        let latency_us = self.clock.now_us().saturating_sub(received.due_us);
        if self.stats.is_in_window(received.due_us) {
            self.stats.delivery.record(latency_us);
            if received.by_all {
                self.stats.last_delivery.record(latency_us);
            }
        }
        let node = self.clients[client.index()].node;
        let sent_to = self.sent_to.get(received.number.index());
        let is_same_node = sent_to.is_none_or(|sender| *sender == node);
        self.stats
            .delivered(received.due_us, latency_us, is_same_node);
    }

    fn content(
        &mut self,
        client: ClientIndex,
        room: RoomIndex,
        seq: u64,
        fingerprint: u64,
        head: &Head<'_>,
        frame: &[u8],
    ) {
        let place = (room, seq, fingerprint);
        let told = match head.kind {
            "message.created" => self.created(client, place, frame),
            "user.erased" => self.erased((room, seq, fingerprint), frame),
            "message.updated" | "message.deleted" | "reaction.updated" | "message.pinned"
            | "message.unpinned" => self.changed(place, head, frame),
            _ => {
                self.checker.content(room, seq, fingerprint, "", None);
                Ok(())
            }
        };
        if let Err(error) = told {
            self.bad_frame(client, &error, frame);
        }
    }

    fn created(
        &mut self,
        client: ClientIndex,
        (room, seq, fingerprint): (RoomIndex, u64, u64),
        frame: &[u8],
    ) -> Result<(), String> {
        let created = wire::parse::<wire::Created>(frame)?;
        let message = &created.data.message;
        if message.seq != seq {
            self.bad_frame(client, "message.seq is not the event's seq", frame);
        }
        let observed = observed(message);
        self.checker
            .content(room, seq, fingerprint, &created.ts, Some(observed));
        Ok(())
    }

    fn erased(
        &mut self,
        (room, seq, fingerprint): (RoomIndex, u64, u64),
        frame: &[u8],
    ) -> Result<(), String> {
        let told = wire::parse::<wire::ErasedEvent>(frame)?;
        let observed = Observed {
            erased: told.data.user_id.zip(told.data.erased_as),
            ..Observed::default()
        };
        self.checker
            .content(room, seq, fingerprint, &told.ts, Some(observed));
        Ok(())
    }

    fn changed(
        &mut self,
        (room, seq, fingerprint): (RoomIndex, u64, u64),
        head: &Head<'_>,
        frame: &[u8],
    ) -> Result<(), String> {
        let told = wire::parse::<wire::Changed>(frame)?;
        let data = &told.data;
        let slot = |user: Option<Uuid>| user.and_then(|user| self.slot_of(room, user));
        let what = match head.kind {
            "message.updated" => What::Edited,
            "message.deleted" => What::Deleted(slot(data.actor_id)),
            "reaction.updated" => What::Reacted {
                by: slot(data.user_id),
                emoji: data
                    .emoji
                    .as_deref()
                    .and_then(|emoji| EMOJIS.iter().position(|known| *known == emoji))
                    .map(|place| place as u8),
                added: data.added.ok_or("no `added`")?,
                count: data.count.ok_or("no `count`")?,
            },
            _ => What::Else,
        };
        let message_seq = data.message_seq;
        let message = data.message.as_ref();
        if message.is_some_and(|message| message.seq != message_seq)
            || message.is_none() && what == What::Edited
        {
            return Err("message_seq does not name the message".to_owned());
        }
        let change = Change { message_seq, what };
        let shown = (change, message.map(observed));
        self.checker
            .changed(room, seq, fingerprint, &told.ts, shown);
        Ok(())
    }

    /// Counts what was received, for the report of the mixed load.
    fn count_event(&mut self, room: RoomIndex, seq: u64, name: &str) {
        let Some(mix) = &mut self.mix else { return };
        let name = match self.checker.change_at(room, seq).map(|change| change.what) {
            Some(What::Reacted { added: true, .. }) => "reaction added",
            Some(What::Reacted { added: false, .. }) => "reaction removed",
            _ => name,
        };
        mix.count_event(name);
    }

    fn reply(&mut self, engine: &mut Engine, client: ClientIndex, head: &Head<'_>, frame: &[u8]) {
        let request = head.id.and_then(RequestId::from_number);
        if head.kind == "error" {
            match wire::parse::<wire::ErrorReply>(frame) {
                Ok(reply) => self.error(client, request, &reply.error),
                Err(error) => self.bad_frame(client, &error, frame),
            }
            return;
        }
        let result = match request {
            Some(RequestId::Auth) => wire::parse::<wire::Data<wire::Ready>>(frame)
                .map(|reply| self.ready(engine, client, reply.data)),
            Some(RequestId::Send(number)) => wire::parse::<wire::Data<wire::SendAck>>(frame)
                .map(|reply| self.acked(engine, client, number, &reply.data)),
            Some(RequestId::History(room)) => wire::parse::<wire::Data<wire::HistoryPage>>(frame)
                .map(|reply| self.page(engine, client, room, &reply.data)),
            Some(RequestId::RoomCreate(room)) => wire::parse::<wire::Data<wire::RoomAck>>(frame)
                .map(|reply| self.room_named(engine, room, reply.data.room.room_id)),
            Some(RequestId::MembersAdd(room)) => {
                self.members_added(engine, room);
                Ok(())
            }
            Some(RequestId::Change(change)) => wire::parse::<wire::Data<wire::ChangeAck>>(frame)
                .map(|reply| self.change_acked(client, change, &reply.data, false)),
            Some(RequestId::Ask(number)) => self.ask_answered(client, number, frame),
            None => Err("a reply to nothing".to_owned()),
        };
        if let Err(error) = result {
            self.bad_frame(client, &error, frame);
        }
    }

    fn error(&mut self, client: ClientIndex, request: Option<RequestId>, error: &wire::ErrorBody) {
        self.stats.count_error(&error.code);
        let is_temporary = is_temporary(&error.code);
        let pause_us = match error.retry_after_ms {
            Some(ms) => self.random.between(ms * 1000, ms * 1250),
            None => self.random.between(100_000, 1_000_000),
        };
        match request {
            Some(RequestId::Send(number)) => self.send_refused(client, number, error, pause_us),
            Some(RequestId::Change(change)) => self.change_error(client, change, error, pause_us),
            Some(RequestId::Ask(number)) => self.ask_error(client, number, error),
            Some(RequestId::History(_)) if is_temporary => {
                let connection = self.clients[client.index()].connection;
                self.timer(pause_us, Timer::History(client, connection));
            }
            Some(RequestId::RoomCreate(room) | RequestId::MembersAdd(room)) if is_temporary => {
                self.room_refused(room, pause_us);
            }
            Some(RequestId::RoomCreate(_) | RequestId::MembersAdd(_)) => {
                self.setup_error = Some(format!(
                    "a room could not be made: {} {}",
                    error.code, error.message
                ));
            }
            // A refused `auth` is followed by a close, which says what to do.
            Some(RequestId::Auth) => {}
            Some(RequestId::History(_)) | None => {
                self.checker.findings.found(Kind::UnexpectedRefusal, || {
                    format!("client {}: {request:?}: {}", client.0, error.code)
                });
            }
        }
    }

    fn gap(&mut self, engine: &mut Engine, client: ClientIndex, head: &Head<'_>, frame: &[u8]) {
        self.stats.gaps_told += 1;
        let place = head
            .room_id
            .and_then(|room_id| Uuid::try_parse(room_id).ok())
            .and_then(|room_id| self.membership(client, room_id));
        match (place, wire::parse::<wire::Data<wire::Gap>>(frame)) {
            (Some((room, slot)), Ok(gap)) => {
                if self.checker.told_gap(room, slot, gap.data.last_seq) {
                    self.clients[client.index()].catching_up.push_back(room);
                    self.ask_page(engine, client);
                }
            }
            (None, _) => self.bad_frame(client, "room.gap of an unknown room", frame),
            (_, Err(error)) => self.bad_frame(client, &error, frame),
        }
    }

    /// Asks for the next page of the room that is being caught up, if none is on its way.
    pub(super) fn ask_page(&mut self, engine: &mut Engine, client: ClientIndex) {
        let it = &mut self.clients[client.index()];
        let (Some(room), Some(id)) = (it.catching_up.front().copied(), it.conn) else {
            return;
        };
        if it.is_page_asked || it.phase != Phase::Ready {
            return;
        }
        it.is_page_asked = true;
        let Ok(place) = it
            .memberships
            .binary_search_by_key(&room, |(room, _)| *room)
        else {
            return;
        };
        let slot = it.memberships[place].1;
        let Some(room_id) = self.rooms[room.index()].id else {
            return;
        };
        let after_seq = self.checker.cursor(room, slot).page_after();
        let page = self.settings.history_page;
        let request = wire::history_get(room, room_id, after_seq, page);
        engine.send_text(id, request.as_bytes());
    }

    fn page(
        &mut self,
        engine: &mut Engine,
        client: ClientIndex,
        room: RoomIndex,
        page: &wire::HistoryPage,
    ) {
        self.stats.history_pages += 1;
        let it = &mut self.clients[client.index()];
        let is_asked = it.is_page_asked && it.catching_up.front() == Some(&room);
        let place = it
            .memberships
            .binary_search_by_key(&room, |(room, _)| *room);
        let (true, Ok(place)) = (is_asked, place) else {
            self.checker.findings.found(Kind::BadFrame, || {
                format!("client {}: a page of room {} unasked", client.0, room.0)
            });
            return;
        };
        let slot: Slot = it.memberships[place].1;
        it.is_page_asked = false;
        let cursor = self.checker.cursor(room, slot);
        let (before, after_seq) = (cursor.position, cursor.page_after());
        self.checker.page(room, slot, &as_page(after_seq, page));
        let cursor = self.checker.cursor(room, slot);
        self.stats.deliveries += cursor.position.saturating_sub(before);
        // A page that moves nothing would be asked for again for ever; it was found already.
        if !cursor.is_catching_up || cursor.page_after() == after_seq {
            self.checker.cursor_mut(room, slot).is_catching_up = false;
            self.clients[client.index()].catching_up.pop_front();
        }
        self.ask_page(engine, client);
    }

    pub(super) fn acked(
        &mut self,
        engine: &mut Engine,
        client: ClientIndex,
        number: MessageNumber,
        ack: &wire::SendAck,
    ) {
        let room = self.room_by_id.get(&ack.room_id).copied();
        let is_first = self.checker.acked(
            client,
            number,
            ack.client_msg_id,
            room,
            ack.seq,
            ack.duplicate,
        );
        self.stats.acks += u64::from(is_first);
        self.stats.acks_duplicate += u64::from(ack.duplicate);
        self.settle(client, number);
        if !is_first {
            return;
        }
        let now_us = self.clock.now_us();
        self.checker.acked_at(number, now_us);
        self.stats.nodes[self.clients[client.index()].node.index()].acked(now_us);
        if let Some(sent) = self.checker.message(number) {
            let latency_us = now_us.saturating_sub(sent.due_us);
            if self.stats.is_in_window(sent.due_us) {
                self.stats.ack.record(latency_us);
            }
            let due_us = sent.due_us;
            self.stats.acked(due_us, latency_us);
            let kind = self.kind_sent(number);
            // What HTTP acknowledged is counted there.
            if self.mix.is_some() && kind != crate::mix::OpKind::WebSend {
                self.answered(kind, due_us);
            }
        }
        let every = self.settings.probe_every;
        if every > 0 && number.0.is_multiple_of(every) {
            self.stats.probes += 1;
            self.transmit(engine, client, number);
        }
    }

    pub(super) fn early(&mut self, client: ClientIndex, room_id: Uuid, early: Early) {
        let waiting = self.early.entry(room_id).or_default();
        if waiting.len() < EARLY_MAX {
            waiting.push((client, early));
        }
    }

    pub(super) fn bad_frame(&mut self, client: ClientIndex, what: &str, frame: &[u8]) {
        self.checker.findings.found(Kind::BadFrame, || {
            let shown = &frame[..frame.len().min(300)];
            let shown = String::from_utf8_lossy(shown);
            format!("client {}: {what}: {shown}", client.0)
        });
    }
}

/// The errors after which the same request may succeed.
pub(super) fn is_temporary(code: &str) -> bool {
    matches!(
        code,
        "rate_limited" | "overloaded" | "unavailable" | "internal"
    )
}

pub(super) fn observed(message: &wire::Message) -> Observed<'_> {
    let mut counts = Shown::FIRST.counts;
    let mut mine = message.reactions.is_empty().then_some(0_u8);
    for (emoji, reaction) in &message.reactions {
        let place = EMOJIS.iter().position(|known| known == emoji);
        let place = place.unwrap_or(EMOJIS.len());
        counts[place] = u16::try_from(reaction.count).unwrap_or(u16::MAX);
        if let Some(is_mine) = reaction.mine {
            *mine.get_or_insert(0) |= u8::from(is_mine) << place;
        }
    }
    let erased = message.event.as_ref();
    let erased = erased.filter(|event| event.kind == "user.erased");
    Observed {
        erased: erased.and_then(|event| event.user_id.zip(event.erased_as)),
        sender_id: message.sender_id,
        client_msg_id: message.client_msg_id,
        kind: &message.kind,
        text: message.text.as_deref().unwrap_or_default(),
        reply_to_seq: message.reply_to_seq,
        mentions: &message.mentions,
        changed_seq: message.changed_seq.unwrap_or(message.seq),
        shown: Shown {
            revision: message.revision.unwrap_or(1),
            is_deleted: message.deleted_at.is_some(),
            counts,
        },
        file: match message.attachments.as_slice() {
            [] => None,
            [one] => Some(one.upload_id),
            _ => Some(Uuid::nil()),
        },
        mine,
    }
}

pub(super) fn as_page(after_seq: u64, page: &wire::HistoryPage) -> Page<'_> {
    Page {
        after_seq,
        messages: page
            .messages
            .iter()
            .map(|message| (message.seq, observed(message)))
            .collect(),
        has_more: page.has_more,
        last_seq: page.last_seq,
        next_after_seq: page.next_after_seq,
    }
}
