//! The requests of the mixed load that go over HTTP: what is asked, and what is made of the answers.

use std::net::SocketAddr;

use uuid::Uuid;

use super::{Asked, FILES_MAX, File, UnderWay};
use crate::checker::{Kind, Mark, Outcome, PageBy};
use crate::engine::Engine;
use crate::identity;
use crate::ids::{ChangeNumber, ClientIndex, MessageNumber, RoomIndex};
use crate::mix::OpKind;
use crate::web::{self, Web};
use crate::wire;
use crate::world::frames::{as_page, is_temporary};
use crate::world::{Phase, State};

impl State {
    pub(super) fn target(&self, client: ClientIndex) -> Option<SocketAddr> {
        let node = self.clients[client.index()].node;
        self.targets.get(node.index()).copied()
    }

    pub(super) fn ask_web(
        &mut self,
        (client, room, kind, due_us): (ClientIndex, RoomIndex, OpKind, u64),
        asked: Asked,
        mut request: web::Request,
    ) -> bool {
        let (Some(to), Ok(token)) = (self.target(client), self.issuer.token(client)) else {
            return false;
        };
        let Some(mix) = &mut self.mix else {
            return false;
        };
        let more = &mut mix.more;
        // A file's ticket or URL is all that is to be shown.
        if !matches!(asked, Asked::Bring(_) | Asked::Fetch(..)) {
            request.token = Some(token);
            request.content_type = "application/json".to_owned();
        }
        request.tag = more.next;
        more.next = more.next.wrapping_add(1);
        let under_way = UnderWay {
            client,
            room,
            kind,
            due_us,
            asked,
        };
        more.under_way.insert(request.tag, under_way);
        more.web.get_or_insert_default().ask(to, request)
    }

    pub(super) fn message_path(&self, room: RoomIndex) -> Option<String> {
        let id = self.rooms[room.index()].id?;
        Some(format!("/v1/rooms/{id}/messages"))
    }

    /// The send of a message over HTTP, by its own id.
    pub(super) fn post_message(
        &mut self,
        number: MessageNumber,
        kind: OpKind,
        due_us: u64,
        asked: Asked,
    ) -> bool {
        let Some(sent) = self.checker.message(number).cloned() else {
            return false;
        };
        let Some(path) = self.message_path(sent.room) else {
            return false;
        };
        let client = self.rooms[sent.room.index()].members[sent.slot.index()];
        let mut body = serde_json::json!({"kind": "text", "text": self.checker.text(number)});
        if sent.reply_to_seq > 0 {
            body["reply_to_seq"] = sent.reply_to_seq.into();
        }
        if let Some(slot) = sent.mention {
            let member = self.rooms[sent.room.index()].members[slot.index()];
            body["mentions"] = serde_json::json!([identity::user_id(member)]);
        }
        // Sends over HTTP stand in no order with any other.
        self.checker.attempted(number, u32::MAX - number.0);
        let request = web::Request {
            method: "POST",
            path,
            idempotency_key: Some(self.ids.id(number, sent.due_us).to_string()),
            body: body.to_string().into_bytes(),
            ..web::Request::default()
        };
        self.ask_web((client, sent.room, kind, due_us), asked, request)
    }

    pub(super) fn web_send(&mut self, room: RoomIndex, due_us: u64) -> bool {
        let Some((client, slot)) = self.ready_member(room) else {
            return false;
        };
        if self.clients[client.index()].unacked.len() >= crate::limits::UNACKED_PER_CLIENT_MAX {
            return false;
        }
        let payload_bytes = self.settings.payload_bytes;
        let number = self.checker.add_message(room, slot, due_us, payload_bytes);
        self.clients[client.index()].unacked.push_back(number);
        self.unacked += 1;
        self.stats.sends += 1;
        if let Some(mix) = &mut self.mix {
            mix.more.sends.insert(number);
            mix.more.sent_as.insert(number, OpKind::WebSend);
        }
        self.post_message(number, OpKind::WebSend, due_us, Asked::Send(number))
    }

    /// A message that is acknowledged is sent again, over HTTP: it is one.
    pub(super) fn web_again(&mut self, room: RoomIndex, due_us: u64) -> bool {
        let Some((number, _)) = self.pick_message(room) else {
            return false;
        };
        let is_acked = self
            .checker
            .message(number)
            .is_some_and(|sent| sent.outcome == Outcome::Acked && sent.upload.is_none());
        is_acked && self.post_message(number, OpKind::WebAgain, due_us, Asked::Again(number))
    }

    /// Asks for an edit over HTTP.
    pub(in crate::world) fn web_change(
        &mut self,
        client: ClientIndex,
        change: ChangeNumber,
    ) -> bool {
        let Some(asked) = self.checker.change(change).cloned() else {
            return false;
        };
        let (Some(path), crate::checker::Want::Edit { revision, expected }) =
            (self.message_path(asked.room), asked.want)
        else {
            return false;
        };
        let text = self.checker.text_at(asked.number, revision);
        let mut body = serde_json::json!({ "text": text });
        if let Some(expected) = expected {
            body["expected_revision"] = expected.into();
        }
        self.checker.change_attempted(change);
        if let Some(mix) = &mut self.mix {
            mix.more.changes.insert(change);
            mix.more.web_changes.insert(change);
        }
        let request = web::Request {
            method: "PATCH",
            path: format!("{path}/{}", asked.message_seq),
            body: body.to_string().into_bytes(),
            ..web::Request::default()
        };
        let whose = (client, asked.room, OpKind::WebEdit, asked.due_us);
        self.ask_web(whose, Asked::Change(change), request)
    }

    pub(super) fn web_read(&mut self, room: RoomIndex, due_us: u64) -> bool {
        let (Some((client, slot)), Some(room_id)) =
            (self.ready_member(room), self.rooms[room.index()].id)
        else {
            return false;
        };
        let is_taken = |mix: &crate::world::Mix| mix.receipts == crate::world::Receipts::Taken;
        let read = self.checker.cursor(room, slot).position;
        if read == 0 || !self.mix.as_deref().is_some_and(is_taken) {
            return false;
        }
        let mark = Mark { read, delivered: 0 };
        self.checker.say_mark(room, slot, mark);
        let request = web::Request {
            method: "POST",
            path: "/v1/users/me/receipts/read".to_owned(),
            body: format!(r#"{{"rooms":{{"{room_id}":{read}}}}}"#).into_bytes(),
            ..web::Request::default()
        };
        let asked = Asked::Mark(room, slot, mark);
        self.ask_web((client, room, OpKind::WebRead, due_us), asked, request)
    }

    pub(super) fn web_history(&mut self, room: RoomIndex, due_us: u64) -> bool {
        let (Some((client, _)), Some(path)) = (self.ready_member(room), self.message_path(room))
        else {
            return false;
        };
        let request = web::Request {
            method: "GET",
            path: format!("{path}?limit=30"),
            ..web::Request::default()
        };
        let asked = Asked::Page(room);
        self.ask_web((client, room, OpKind::WebHistory, due_us), asked, request)
    }

    /// Whether anything is under way over HTTP.
    pub fn is_asking_web(&self) -> bool {
        let mix = self.mix.as_ref();
        mix.is_some_and(|mix| !mix.more.under_way.is_empty())
    }

    /// Takes what came over HTTP.
    pub(in crate::world) fn take_web(&mut self, engine: &mut Engine) {
        loop {
            let Some(mix) = &mut self.mix else { return };
            let Some(answer) = mix.more.web.as_ref().and_then(Web::answer) else {
                return;
            };
            let Some(under_way) = mix.more.under_way.remove(&answer.tag) else {
                continue;
            };
            self.web_answered(engine, under_way, answer.result);
        }
    }

    pub(super) fn web_answered(
        &mut self,
        engine: &mut Engine,
        under_way: UnderWay,
        result: Result<(u16, Vec<u8>), String>,
    ) {
        let UnderWay {
            client,
            room,
            kind,
            due_us,
            asked,
        } = under_way;
        if let Some(mix) = &mut self.mix {
            match &asked {
                Asked::Send(number) => drop(mix.more.sends.remove(number)),
                Asked::Change(change) => drop(mix.more.changes.remove(change)),
                _ => {}
            }
        }
        let body = match result {
            Ok((200..=299, body)) => body,
            Ok((status, body)) => {
                let error = wire::parse::<wire::ErrorBody>(&body).ok();
                if error.is_none() {
                    let what = format!("{} over HTTP: {status} without a code", kind.name());
                    self.bad_frame(client, &what, &body);
                }
                return self.web_refused(engine, (client, kind), asked, error);
            }
            Err(_) => return self.web_refused(engine, (client, kind), asked, None),
        };
        // A file is done when its message is, and a change is counted with its ack.
        let is_done = !matches!(asked, Asked::Bring(_) | Asked::Change(_));
        let told = self.web_told(engine, (client, room, due_us), asked, &body);
        match told {
            Ok(()) if is_done => self.answered(kind, due_us),
            Ok(()) => {}
            Err(error) => self.bad_frame(
                client,
                &format!("{} over HTTP: {error}", kind.name()),
                &body,
            ),
        }
    }

    pub(super) fn web_told(
        &mut self,
        engine: &mut Engine,
        (client, room, due_us): (ClientIndex, RoomIndex, u64),
        asked: Asked,
        body: &[u8],
    ) -> Result<(), String> {
        match asked {
            Asked::Send(number) | Asked::Again(number) => {
                let ack = wire::parse::<wire::SendAck>(body)?;
                self.acked(engine, client, number, &ack);
            }
            Asked::Change(change) => {
                let ack = wire::parse::<wire::ChangeAck>(body)?;
                self.change_acked(client, change, &ack, true);
            }
            Asked::Mark(..) => {}
            Asked::Page(room) => {
                let page = wire::parse::<wire::HistoryPage>(body)?;
                self.stats.history_pages += 1;
                self.checker
                    .check_range(room, &as_page(0, &page), PageBy::Newest);
            }
            Asked::Bring(upload) => self.brought(engine, client, room, upload, due_us),
            Asked::Fetch(number, bytes) => {
                if bytes != body {
                    self.checker.findings.found(Kind::WrongFile, || {
                        format!("message {}: other bytes than were brought", number.0)
                    });
                }
            }
        }
        Ok(())
    }

    /// A file is there: a message is sent with it, over the socket.
    pub(super) fn brought(
        &mut self,
        engine: &mut Engine,
        client: ClientIndex,
        room: RoomIndex,
        upload: Uuid,
        due_us: u64,
    ) {
        let Some(slot) = self.membership_in(client, room) else {
            return;
        };
        let Some(bytes) = (self.mix.as_mut()).and_then(|mix| mix.more.bringing.remove(&upload))
        else {
            return;
        };
        if self.clients[client.index()].phase == Phase::Stopped {
            return;
        }
        let payload_bytes = self.settings.payload_bytes;
        let number = self.checker.add_message(room, slot, due_us, payload_bytes);
        self.checker.attach(number, upload);
        self.clients[client.index()].unacked.push_back(number);
        self.unacked += 1;
        self.stats.sends += 1;
        if self.clients[client.index()].phase == Phase::Ready {
            self.transmit(engine, client, number);
        }
        if let Some(mix) = &mut self.mix {
            mix.more.sent_as.insert(number, OpKind::File);
            let files = &mut mix.more.files;
            if files.len() == FILES_MAX {
                files.pop_front();
            }
            files.push_back(File {
                number,
                room,
                upload,
                bytes,
            });
        }
    }

    /// HTTP says no, or nothing: what must be done goes on over the socket.
    pub(super) fn web_refused(
        &mut self,
        engine: &mut Engine,
        (client, kind): (ClientIndex, OpKind),
        asked: Asked,
        error: Option<wire::ErrorBody>,
    ) {
        let code = error
            .as_ref()
            .map_or("no_answer", |error| &error.code)
            .to_owned();
        if let Some(counts) = self.mix_kind(kind) {
            counts.refused(&code);
        }
        if let Asked::Fetch(number, _) = asked {
            return self.not_fetched(client, number, error.as_ref());
        }
        let error = error.filter(|error| !is_temporary(&error.code));
        match (asked, error) {
            (Asked::Send(number), None) => {
                self.checker.uncertain(number);
                self.transmit(engine, client, number);
            }
            (Asked::Send(number), Some(error)) => {
                self.checker.refused(number, &error.code);
                self.settle(client, number);
            }
            (Asked::Change(change), None) => {
                self.change_uncertain(change);
                self.transmit_change(engine, client, change);
            }
            (Asked::Change(change), Some(error)) => {
                self.checker.change_refused(change, &error.code);
                self.settle_change(client, change);
            }
            (Asked::Mark(room, slot, mark), None) => {
                self.send_mark(engine, client, room, slot, mark);
            }
            (Asked::Again(_) | Asked::Page(_) | Asked::Bring(_) | Asked::Fetch(..), None) => {}
            (_, Some(error)) => {
                let code = error.code;
                self.checker.findings.found(Kind::UnexpectedRefusal, || {
                    format!("client {}: {} over HTTP: {code}", client.0, kind.name())
                });
            }
        }
    }

    /// A file did not come, though its address was told.
    fn not_fetched(
        &mut self,
        client: ClientIndex,
        number: MessageNumber,
        error: Option<&wire::ErrorBody>,
    ) {
        let is_disturbed = self.mix.as_ref().is_some_and(|mix| mix.is_disturbed);
        let code = error.map(|error| error.code.as_str());
        let is_excused = match code {
            Some("rate_limited" | "overloaded" | "unavailable") => true,
            // The server is perhaps away, which its client notices too.
            None | Some("internal") => {
                is_disturbed || self.clients[client.index()].phase != Phase::Ready
            }
            Some(_) => false,
        };
        if !is_excused && !self.may_miss(number) {
            self.checker.findings.found(Kind::WrongFile, || {
                format!("message {}: its file did not come: {code:?}", number.0)
            });
        }
    }
}
