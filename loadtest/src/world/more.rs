//! The rest of the mixed load: files, search, blocks, what rooms are to a user alone, and the same requests over HTTP.
//!
//! Invariants: a message or change is under way over HTTP or over a socket, never both; one that HTTP says nothing of
//! goes on over the socket with the same id; nobody names whom they ever wanted to block, so that no message is
//! refused for a block.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use serde::Deserialize;
use uuid::Uuid;

use super::State;
use super::frames::observed;
use super::mixing::Ask;
use crate::checker::{Kind, Mark, Outcome};
use crate::engine::Engine;
use crate::identity;
use crate::ids::{ChangeNumber, ClientIndex, MessageNumber, RoomIndex, Slot};
use crate::mix::OpKind;
use crate::web::{self, Web};
use crate::wire;

mod at_the_end;
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
    /// Whose file it is, and its bytes.
    Fetch(MessageNumber, Vec<u8>),
}

/// What an HTTP request is about.
#[derive(Debug)]
enum Asked {
    Send(MessageNumber),
    Again(MessageNumber),
    Change(ChangeNumber),
    Mark(RoomIndex, Slot, Mark),
    Page(RoomIndex),
    Bring(Uuid),
    Fetch(MessageNumber, Vec<u8>),
}

#[derive(Debug)]
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
    /// As what messages were asked for that are not plain sends, until they are acknowledged.
    pub sent_as: HashMap<MessageNumber, OpKind>,
    /// Changes that were asked for over HTTP.
    pub web_changes: HashSet<ChangeNumber>,
    /// The next change goes over HTTP.
    pub change_by_web: bool,
    files: VecDeque<File>,
    bringing: HashMap<Uuid, Vec<u8>>,
    /// Rooms that were archived, until that is undone at the end.
    pub archived: BTreeSet<(ClientIndex, RoomIndex)>,
    /// Who blocked whom, until that is undone at the end.
    blocked: BTreeSet<(ClientIndex, ClientIndex)>,
    /// From now on the answers say that it is undone: nothing else is under way.
    is_undoing: bool,
    /// What must be found at the end, and by whom it is searched for.
    last_searches: BTreeMap<MessageNumber, ClientIndex>,
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
    /// How many requests are under way over HTTP, and one of them in words.
    pub(super) fn open_over_http(&self) -> (usize, String) {
        let one = format!("{:?}", self.under_way.values().next());
        (self.under_way.len(), one.chars().take(300).collect())
    }

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
                ("search", self.query(number), About::Found(number))
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
                let here = mix.more.files.iter().filter(|file| file.room == room);
                let here: Vec<&File> = here.collect();
                let place = self.random.below(here.len().max(1) as u64) as usize;
                let Some(file) = here.get(place) else {
                    return false;
                };
                let data = format!(r#"{in_room},"upload_ids":["{}"]"#, file.upload);
                let about = About::Fetch(file.number, file.bytes.clone());
                ("attachment.urls", data, about)
            }
            _ => return false,
        };
        if let (About::Archived(true), Some(mix)) = (&about, &mut self.mix) {
            mix.more.archived.insert((client, room));
        }
        let ask = Ask {
            about,
            ..Ask::new(client, kind, room, due_us)
        };
        self.put_ask(engine, ask, (name, &data))
    }

    /// Finds a message by when it was due.
    fn query(&self, number: MessageNumber) -> String {
        let due_us = self.checker.message(number).map_or(0, |sent| sent.due_us);
        format!(r#""query":"{due_us}","limit":20"#)
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
            mix.more.blocked.insert((client, other));
            "user.block"
        } else {
            "user.unblock"
        };
        let data = format!(r#""user_id":"{user}""#);
        let ask = Ask {
            about: About::Blocked(user, blocked),
            ..Ask::new(client, OpKind::Block, room, due_us)
        };
        self.put_ask(engine, ask, (name, &data))
    }

    /// An ask of these was answered.
    ///
    /// # Errors
    /// When the reply is not what was asked for.
    pub(super) fn more_answered(&mut self, ask: &Ask, frame: &[u8]) -> Result<(), String> {
        let client = ask.client;
        match &ask.about {
            About::Found(number) => self.found(ask, *number, frame)?,
            About::Archived(is_so) => {
                // Before the end a newer request may be under way, or one of a connection that is lost.
                if let Some(mix) = &mut self.mix
                    && mix.more.is_undoing
                    && !is_so
                {
                    mix.more.archived.remove(&(client, ask.room));
                }
            }
            About::Blocked(user, blocked) => {
                let set = wire::parse::<wire::Data<BlockSet>>(frame)?.data;
                if (set.user_id, set.blocked) != (*user, *blocked) {
                    return Err("another block than was asked for".to_owned());
                }
                if let Some(mix) = &mut self.mix {
                    mix.more.blocking.remove(&client);
                    if let Some(other) = self.client_by_user.get(user)
                        && mix.more.is_undoing
                        && !blocked
                    {
                        mix.more.blocked.remove(&(client, *other));
                    }
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
            About::Fetch(number, bytes) => self.fetch(ask, (*number, bytes), frame)?,
            About::Listed(turn) => {
                let listed = wire::parse::<wire::Data<Blocks>>(frame)?.data;
                self.blocks_listed(client, *turn, &listed);
            }
            About::Nothing => {}
        }
        Ok(())
    }

    fn found(&mut self, ask: &Ask, number: MessageNumber, frame: &[u8]) -> Result<(), String> {
        let client = ask.client;
        let hits = wire::parse::<wire::Data<Hits>>(frame)?.data.hits;
        let due_us = self.checker.message(number).map_or(0, |sent| sent.due_us);
        let asked_for = due_us.to_string();
        let mut is_found = false;
        for hit in &hits {
            let text = hit.message.text.as_deref().unwrap_or_default();
            if !text.contains(&asked_for) {
                self.checker.findings.found(Kind::WrongSearch, || {
                    format!("client {}: {asked_for} is not in {text:?}", client.0)
                });
            }
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
        let Some(mix) = &mut self.mix else {
            return Ok(());
        };
        if !ask.is_counted {
            // What is searched for at the end is asked again until it is found.
            if is_found && mix.more.last_searches.remove(&number).is_some() {
                mix.searches_judged += 1;
            }
            return Ok(());
        }
        let must_be = self.checker.message(number).is_some_and(|sent| {
            let author = self.rooms[sent.room.index()].members[sent.slot.index()];
            let is_apart = mix.more.apart.contains(&(client, author));
            let is_old = sent.acked_us + FOUND_AFTER_US < now_us;
            sent.outcome == Outcome::Acked && !sent.is_delete_asked && is_old && !is_apart
        });
        let is_judged = must_be && !mix.is_disturbed;
        mix.searches_judged += u64::from(is_judged);
        if is_judged && !is_found {
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

    /// Whether a message's file may be gone, or not be there yet.
    fn may_miss(&self, number: MessageNumber) -> bool {
        let sent = self.checker.message(number);
        sent.is_none_or(|sent| sent.is_delete_asked || sent.outcome != Outcome::Acked)
    }

    fn fetch(
        &mut self,
        ask: &Ask,
        (number, bytes): (MessageNumber, &[u8]),
        frame: &[u8],
    ) -> Result<(), String> {
        let told = wire::parse::<wire::Data<Urls>>(frame)?.data;
        let may_miss = self.may_miss(number);
        let sent = self.checker.message(number);
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
        self.ask_web(whose, Asked::Fetch(number, bytes.to_vec()), request);
        Ok(())
    }
}
