//! The rest of the mixed load: files, search, blocks, what rooms are to a user alone, and the same requests over HTTP.
//!
//! Invariants: a message or change is under way over HTTP or over a socket, never both; one that HTTP says nothing of
//! goes on over the socket with the same id; nobody names whom they ever wanted to block, so that no message is
//! refused for a block.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use serde::Deserialize;
use uuid::Uuid;

use super::frames::observed;
use super::mixing::Ask;
use super::{Phase, State};
use crate::checker::{Kind, Mark, Outcome, PageBy};
use crate::engine::Engine;
use crate::identity;
use crate::ids::{ChangeNumber, ClientIndex, MessageNumber, RoomIndex, Slot};
use crate::mix::OpKind;
use crate::web::{self, Web};
use crate::wire::{self, RequestId};

mod over_http;
#[cfg(test)]
mod tests;

/// Files that are fetched again.
const FILES_MAX: usize = 256;
/// What was acknowledged so long ago must be found, µs.
const FOUND_AFTER_US: u64 = 6_000_000;

/// What an [`Ask`] is about.
#[derive(Clone, Debug, Default)]
pub(super) enum About {
    #[default]
    Nothing,
    Found(MessageNumber),
    Archived(bool),
    Blocked(Uuid, bool),
    /// Whom the client blocks; how often it had asked to block by then, if none of that was under way.
    Listed(Option<u64>),
    File(Vec<u8>),
    Fetch(MessageNumber),
}

/// What an HTTP request is about.
enum Asked {
    Send(MessageNumber),
    Again(MessageNumber),
    Change(ChangeNumber),
    Mark(RoomIndex, Slot, Mark),
    Page(RoomIndex),
    Bring(Uuid),
    Fetch(MessageNumber),
}

struct UnderWay {
    client: ClientIndex,
    room: RoomIndex,
    kind: OpKind,
    due_us: u64,
    asked: Asked,
}

/// A file that is in a message.
struct File {
    number: MessageNumber,
    room: RoomIndex,
    upload: Uuid,
    bytes: Vec<u8>,
}

#[derive(Default)]
pub(super) struct More {
    web: Option<Web>,
    next: u32,
    under_way: HashMap<u32, UnderWay>,
    pub sends: HashSet<MessageNumber>,
    pub changes: HashSet<ChangeNumber>,
    /// The next change goes over HTTP.
    pub change_by_web: bool,
    files: VecDeque<File>,
    bringing: HashMap<Uuid, Vec<u8>>,
    /// Rooms that were archived, until that is undone at the end.
    pub archived: BTreeSet<(ClientIndex, RoomIndex)>,
    /// Who ever wanted to block whom.
    pub apart: HashSet<(ClientIndex, ClientIndex)>,
    blocks: HashMap<ClientIndex, BTreeMap<Uuid, bool>>,
    blocking: HashSet<ClientIndex>,
    /// How often each client asked to block somebody, or no longer.
    blocks_asked: HashMap<ClientIndex, u64>,
}

#[derive(Deserialize)]
struct Ticket {
    upload_id: Uuid,
    url: String,
    fields: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Urls {
    urls: Vec<FileUrl>,
    missing: Vec<Uuid>,
}

#[derive(Deserialize)]
struct FileUrl {
    upload_id: Uuid,
    url: String,
}

#[derive(Deserialize)]
struct Hits {
    hits: Vec<Hit>,
}

#[derive(Deserialize)]
struct Hit {
    room_id: Uuid,
    message: wire::Message,
}

#[derive(Deserialize)]
struct BlockSet {
    user_id: Uuid,
    blocked: bool,
}

#[derive(Deserialize)]
struct Blocks {
    users: Vec<BlockedUser>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct BlockedUser {
    user_id: Uuid,
}

impl More {
    /// How often the client asked to block, for a list that is asked for now; `None` if such a request is under way.
    fn blocks_turn(&self, client: ClientIndex) -> Option<u64> {
        let is_quiet = !self.blocking.contains(&client);
        is_quiet.then(|| self.blocks_asked.get(&client).copied().unwrap_or(0))
    }

    /// An ask ended with its connection: what it would have done may be done.
    pub(super) fn forget(&mut self, ask: &Ask) {
        if let About::Blocked(user, _) = ask.about {
            self.blocking.remove(&ask.client);
            if let Some(blocks) = self.blocks.get_mut(&ask.client) {
                blocks.remove(&user);
            }
        }
    }
}

impl State {
    /// Does one of these things. Returns whether it could.
    pub(super) fn do_more(
        &mut self,
        engine: &mut Engine,
        kind: OpKind,
        room: RoomIndex,
        due_us: u64,
    ) -> bool {
        match kind {
            OpKind::WebSend => self.web_send(room, due_us),
            OpKind::WebAgain => self.web_again(room, due_us),
            OpKind::WebEdit => {
                if let Some(mix) = &mut self.mix {
                    mix.more.change_by_web = true;
                }
                let is_asked = self.edit(engine, room, due_us);
                if let Some(mix) = &mut self.mix {
                    mix.more.change_by_web = false;
                }
                is_asked
            }
            OpKind::WebRead => self.web_read(room, due_us),
            OpKind::WebHistory => self.web_history(room, due_us),
            _ => self.ask_more(engine, kind, room, due_us),
        }
    }

    fn ask_more(
        &mut self,
        engine: &mut Engine,
        kind: OpKind,
        room: RoomIndex,
        due_us: u64,
    ) -> bool {
        let Some((client, _)) = self.ready_member(room) else {
            return false;
        };
        let Some(room_id) = self.rooms[room.index()].id else {
            return false;
        };
        let in_room = format!(r#""room_id":"{room_id}""#);
        let is_so = self.random.below(2) == 0;
        let (name, data, about) = match kind {
            OpKind::Search => {
                let Some((number, _)) = self.pick_message(room) else {
                    return false;
                };
                let due_us = self.checker.message(number).map_or(0, |sent| sent.due_us);
                let data = format!(r#""query":"{due_us}","limit":20"#);
                ("search", data, About::Found(number))
            }
            OpKind::Mute => {
                let until = if is_so { "" } else { r#","until":null"# };
                ("room.mute", format!("{in_room}{until}"), About::Nothing)
            }
            OpKind::Archive => {
                let data = format!(r#"{in_room},"archived":{is_so}"#);
                ("room.archive", data, About::Archived(is_so))
            }
            OpKind::Block => return self.block(engine, client, room, due_us),
            OpKind::BlocksList => {
                let turn = (self.mix.as_ref()).and_then(|mix| mix.more.blocks_turn(client));
                let about = About::Listed(turn);
                ("user.blocks", r#""limit":100"#.to_owned(), about)
            }
            OpKind::File => {
                let bytes = format!("%PDF-1.7\nfile of {due_us} in {room_id}\n").into_bytes();
                let size = bytes.len();
                let data = format!(
                    r#"{in_room},"kind":"file","name":"f.pdf","size":{size},"content_type":"application/pdf""#
                );
                ("upload.create", data, About::File(bytes))
            }
            OpKind::FileUrls => {
                let Some(mix) = &self.mix else { return false };
                let mut here = mix.more.files.iter().rev().filter(|file| file.room == room);
                let Some(file) = here.next() else {
                    return false;
                };
                let data = format!(r#"{in_room},"upload_ids":["{}"]"#, file.upload);
                ("attachment.urls", data, About::Fetch(file.number))
            }
            _ => return false,
        };
        if let (About::Archived(true), Some(mix)) = (&about, &mut self.mix) {
            mix.more.archived.insert((client, room));
        }
        self.put_ask(engine, (client, kind, room), due_us, (name, &data), about)
    }

    fn put_ask(
        &mut self,
        engine: &mut Engine,
        (client, kind, room): (ClientIndex, OpKind, RoomIndex),
        due_us: u64,
        (name, data): (&str, &str),
        about: About,
    ) -> bool {
        let (Some(mix), Some(id)) = (&mut self.mix, self.clients[client.index()].conn) else {
            return false;
        };
        let number = mix.next_ask;
        mix.next_ask = mix.next_ask.wrapping_add(1);
        mix.asks.insert(
            number,
            Ask {
                client,
                kind,
                room,
                by: PageBy::Newest,
                due_us,
                users: Vec::new(),
                is_final: false,
                about,
            },
        );
        let frame = wire::request(Some(RequestId::Ask(number)), name, data);
        engine.send_text(id, frame.as_bytes());
        true
    }

    /// Blocks a member of the room, or no longer; one at a time for each client.
    fn block(
        &mut self,
        engine: &mut Engine,
        client: ClientIndex,
        room: RoomIndex,
        due_us: u64,
    ) -> bool {
        let members = &self.rooms[room.index()].members;
        let other = members[self.random.below(members.len() as u64) as usize];
        let is_named = |a: ClientIndex, b: ClientIndex| {
            self.clients[a.index()].unacked.iter().any(|number| {
                let sent = self.checker.message(*number);
                sent.is_some_and(|sent| {
                    let members = &self.rooms[sent.room.index()].members;
                    sent.mention.is_some_and(|slot| members[slot.index()] == b)
                })
            })
        };
        if other == client || is_named(client, other) || is_named(other, client) {
            return false;
        }
        let Some(mix) = &mut self.mix else {
            return false;
        };
        if !mix.more.blocking.insert(client) {
            return false;
        }
        *mix.more.blocks_asked.entry(client).or_default() += 1;
        mix.more.apart.insert((client, other));
        mix.more.apart.insert((other, client));
        let user = identity::user_id(other);
        let blocks = mix.more.blocks.entry(client).or_default();
        let blocked = !blocks.get(&user).copied().unwrap_or(false);
        let name = if blocked {
            "user.block"
        } else {
            "user.unblock"
        };
        let data = format!(r#""user_id":"{user}""#);
        let about = About::Blocked(user, blocked);
        self.put_ask(
            engine,
            (client, OpKind::Block, room),
            due_us,
            (name, &data),
            about,
        )
    }

    /// An ask of these was answered.
    ///
    /// # Errors
    /// When the reply is not what was asked for.
    pub(super) fn more_answered(&mut self, ask: &Ask, frame: &[u8]) -> Result<(), String> {
        let client = ask.client;
        match &ask.about {
            About::Found(number) => self.found(client, *number, frame)?,
            About::Archived(is_so) => {
                // Answers of one connection come in its order, so what was asked last is told last.
                if let Some(mix) = &mut self.mix {
                    let place = (client, ask.room);
                    match is_so {
                        true => drop(mix.more.archived.insert(place)),
                        false => drop(mix.more.archived.remove(&place)),
                    }
                }
            }
            About::Blocked(user, blocked) => {
                let set = wire::parse::<wire::Data<BlockSet>>(frame)?.data;
                if (set.user_id, set.blocked) != (*user, *blocked) {
                    return Err("another block than was asked for".to_owned());
                }
                if let Some(mix) = &mut self.mix {
                    mix.more.blocking.remove(&client);
                    mix.more
                        .blocks
                        .entry(client)
                        .or_default()
                        .insert(*user, *blocked);
                }
            }
            About::File(bytes) => {
                let ticket = wire::parse::<wire::Data<Ticket>>(frame)?.data;
                let fields = ticket.fields.iter();
                let fields = fields.map(|(name, value)| (name.as_str(), value.as_str()));
                let (content_type, body) = web::form(fields, "f.pdf", "application/pdf", bytes);
                if let Some(mix) = &mut self.mix {
                    mix.more.bringing.insert(ticket.upload_id, bytes.clone());
                }
                let request = web::Request {
                    method: "POST",
                    path: ticket.url,
                    content_type,
                    body,
                    ..web::Request::default()
                };
                let asked = Asked::Bring(ticket.upload_id);
                self.ask_web((client, ask.room, OpKind::File, ask.due_us), asked, request);
            }
            About::Fetch(number) => self.fetch(ask, *number, frame)?,
            About::Listed(turn) => {
                let listed = wire::parse::<wire::Data<Blocks>>(frame)?.data;
                self.blocks_listed(client, *turn, &listed);
            }
            About::Nothing => {}
        }
        Ok(())
    }

    fn found(
        &mut self,
        client: ClientIndex,
        number: MessageNumber,
        frame: &[u8],
    ) -> Result<(), String> {
        let hits = wire::parse::<wire::Data<Hits>>(frame)?.data.hits;
        let mut is_found = false;
        for hit in &hits {
            let Some((room, _)) = self.membership(client, hit.room_id) else {
                self.checker.findings.found(Kind::WrongSearch, || {
                    format!("client {}: found in {}", client.0, hit.room_id)
                });
                continue;
            };
            let shown = observed(&hit.message);
            self.checker.hit(room, hit.message.seq, shown);
            is_found |= self.checker.message_at(room, hit.message.seq) == Some(number);
        }
        let now_us = self.clock.now_us();
        let Some(mix) = &self.mix else { return Ok(()) };
        let must_be = self.checker.message(number).is_some_and(|sent| {
            let author = self.rooms[sent.room.index()].members[sent.slot.index()];
            let is_apart = mix.more.apart.contains(&(client, author));
            let is_old = sent.acked_us + FOUND_AFTER_US < now_us;
            sent.outcome == Outcome::Acked && !sent.is_delete_asked && is_old && !is_apart
        });
        if must_be && !is_found && !mix.is_disturbed {
            self.checker.findings.found(Kind::WrongSearch, || {
                format!("client {}: message {} is not found", client.0, number.0)
            });
        }
        Ok(())
    }

    /// A read is not ordered with writes: it is compared only where none was under way meanwhile.
    fn blocks_listed(&mut self, client: ClientIndex, turn: Option<u64>, listed: &Blocks) {
        let Some(mix) = &self.mix else { return };
        let is_beside = turn.is_none() || mix.more.blocks_turn(client) != turn;
        if is_beside || listed.next_cursor.is_some() {
            return;
        }
        for (user, blocked) in mix.more.blocks.get(&client).into_iter().flatten() {
            let is_listed = listed.users.iter().any(|it| it.user_id == *user);
            if is_listed != *blocked {
                self.checker.findings.found(Kind::WrongBlocks, || {
                    format!(
                        "client {}: {user} blocked {blocked}, listed {is_listed}",
                        client.0
                    )
                });
            }
        }
    }

    fn fetch(&mut self, ask: &Ask, number: MessageNumber, frame: &[u8]) -> Result<(), String> {
        let told = wire::parse::<wire::Data<Urls>>(frame)?.data;
        let sent = self.checker.message(number);
        let may_miss =
            sent.is_none_or(|sent| sent.is_delete_asked || sent.outcome != Outcome::Acked);
        let upload = sent.and_then(|sent| sent.upload);
        let url = told
            .urls
            .into_iter()
            .find(|url| Some(url.upload_id) == upload);
        let Some(url) = url else {
            let is_missing = upload.is_some_and(|upload| told.missing.contains(&upload));
            if !is_missing || !may_miss {
                self.checker.findings.found(Kind::WrongFile, || {
                    format!("message {}: no URL of {upload:?}", number.0)
                });
            }
            return Ok(());
        };
        let request = web::Request {
            method: "GET",
            path: url.url,
            ..web::Request::default()
        };
        let whose = (ask.client, ask.room, OpKind::FileUrls, ask.due_us);
        self.ask_web(whose, Asked::Fetch(number), request);
        Ok(())
    }

    /// What is archived comes back to the list. Returns whether nothing is left of it.
    pub(super) fn unarchive(&mut self, engine: &mut Engine, now_us: u64) -> bool {
        let archived = match &self.mix {
            Some(mix) => mix.more.archived.clone(),
            None => return true,
        };
        for (client, room) in &archived {
            let is_asked = self.mix.as_ref().is_some_and(|mix| {
                let mut asks = mix.asks.values();
                asks.any(|ask| {
                    (ask.client, ask.room, ask.kind) == (*client, *room, OpKind::Archive)
                })
            });
            let (Some(room_id), false) = (self.rooms[room.index()].id, is_asked) else {
                continue;
            };
            if self.clients[client.index()].phase == Phase::Ready {
                let data = format!(r#""room_id":"{room_id}","archived":false"#);
                let about = About::Archived(false);
                let whose = (*client, OpKind::Archive, *room);
                self.put_ask(engine, whose, now_us, ("room.archive", &data), about);
            }
        }
        archived.is_empty()
    }
}
