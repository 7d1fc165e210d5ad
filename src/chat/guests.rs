//! Guests: clients without a socket, who ask one thing and are told one thing (HTTP).
//!
//! A guest is named like a connection, by a place that no socket has, and its command goes the very same
//! way: rate, checks, the room's home or the store. What would be written to a connection is its answer.
//!
//! Invariants: at most [`limits::ASKS_MAX`] at once, each answered exactly once, after
//! [`limits::ASK_MS_MAX`] at the latest; a late reply does not reach the guest that has the place now.

use super::bus::Context;
use super::commands::Refused;
use super::map::{Map, Seeded};
use super::port::{
    Answer, Ask, AskId, Identity, SignIn, SignedIn, StoreAnswer, StoreCall, StoreError,
};
use super::rate::{Left, Limits};
use super::session::Read;
use super::sessions::{Call, Sessions};
use super::sign_in::ERASED;
use super::{ConnId, Effect, service};
use crate::limits;
use crate::protocol::ending::{Began, sid_hash};
use crate::protocol::request::{self, Command, Request};
use crate::protocol::{ErrorCode, RequestId, UserId, reply};
use slab::Slab;
use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash, Hasher};

/// Places from here on are those of guests.
const GUESTS_FROM: u32 = 1 << 31;
/// The id of every request of a guest, and so of its reply.
const REQUEST: RequestId = 0;
/// Sign-in calls of guests that the store may have under way.
const SIGN_INS_UNDER_WAY_MAX: usize = 2;

/// Whether this is no connection.
pub fn is_guest(conn: ConnId) -> bool {
    conn.index >= GUESTS_FROM
}

/// A client that waits for its answer.
#[derive(Debug)]
struct Guest {
    ask: AskId,
    generation: u32,
    user: UserId,
    since_ms: u64,
    left: Option<Left>,
    /// What it asks, while its account is looked for.
    held: Option<(Identity, Command)>,
}

/// The guests of a shard, all of users whose home it is.
#[derive(Debug)]
pub struct Guests {
    table: Slab<Guest>,
    generation: u32,
    known: Known,
    signing_in: VecDeque<ConnId>,
    sign_ins_under_way: usize,
}

/// Users of whom the store knows what their tokens say: the newest, and those before them.
#[derive(Debug)]
struct Known {
    newer: Map<UserId, Knew>,
    older: Map<UserId, Knew>,
    hasher: Seeded,
}

/// What was known of a user, and when, ms: what ended their session since may not have been told.
#[derive(Clone, Copy, Debug)]
struct Knew {
    hash: u64,
    at_ms: u64,
}

impl Known {
    fn hash(&self, identity: &Identity) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        identity.name.hash(&mut hasher);
        identity.picture.hash(&mut hasher);
        identity.sid.hash(&mut hasher);
        identity.issued_at.hash(&mut hasher);
        hasher.finish()
    }

    fn has(&self, identity: &Identity, now_ms: u64) -> bool {
        let hash = self.hash(identity);
        let knew = self.newer.get(&identity.user);
        let knew = knew.or_else(|| self.older.get(&identity.user));
        let fresh = |knew: &&Knew| now_ms < knew.at_ms + limits::ASKERS_KNOWN_MS;
        knew.filter(fresh).is_some_and(|knew| knew.hash == hash)
    }

    fn insert(&mut self, identity: &Identity, at_ms: u64) {
        if self.newer.len() >= limits::ASKERS_KNOWN_MAX / 2 {
            self.older = std::mem::replace(&mut self.newer, Map::with_hasher(self.hasher.clone()));
        }
        let hash = self.hash(identity);
        self.newer.insert(identity.user, Knew { hash, at_ms });
    }
}

impl Guests {
    /// Nobody.
    pub fn new(seed: u64) -> Guests {
        let hasher = Seeded::with_seed(seed);
        Guests {
            table: Slab::new(),
            generation: 0,
            known: Known {
                newer: Map::with_hasher(hasher.clone()),
                older: Map::with_hasher(hasher.clone()),
                hasher,
            },
            signing_in: VecDeque::new(),
            sign_ins_under_way: 0,
        }
    }

    /// Something ends sessions of this user: the next request looks whether its own has ended.
    pub(super) fn forget(&mut self, user: UserId) {
        self.known.newer.remove(&user);
        self.known.older.remove(&user);
    }

    /// How many wait for their answer.
    pub fn waiting(&self) -> usize {
        self.table.len()
    }
}

fn find(table: &mut Slab<Guest>, conn: ConnId) -> Option<&mut Guest> {
    let guest = table.get_mut((conn.index - GUESTS_FROM) as usize)?;
    (guest.generation == conn.generation).then_some(guest)
}

/// What makes sense without a connection only on one, if at all.
fn needs_connection(command: &Command) -> bool {
    matches!(
        command,
        Command::Auth(_)
            | Command::AuthRefresh(_)
            | Command::TypingStart(_)
            | Command::TypingStop(_)
            | Command::PresenceSet(_)
            | Command::PresenceSubscribe(_)
    )
}

impl Sessions {
    /// Counts a command of a guest, and a send as both; says when to come back if it is too many.
    pub(super) fn take_rate_of_guest(
        &mut self,
        conn: ConnId,
        limits: Limits,
        is_send: bool,
        ctx: &mut Context<'_>,
    ) -> Result<(), u64> {
        let Some(guest) = find(&mut self.guests.table, conn) else {
            return Ok(());
        };
        let user = guest.user;
        let (taken, left) = self.take_at_home(user, limits, is_send, ctx);
        if let Some(guest) = find(&mut self.guests.table, conn) {
            guest.left = Some(left);
        }
        taken
    }

    /// Who the guest at this place is.
    pub(super) fn guest_user(&mut self, conn: ConnId) -> Option<UserId> {
        is_guest(conn)
            .then(|| find(&mut self.guests.table, conn))?
            .map(|guest| guest.user)
    }

    /// A client without a socket asks.
    pub fn ask(&mut self, ask: Ask, ctx: &mut Context<'_>) {
        ctx.stats.asks += 1;
        let Ask {
            id,
            identity,
            command,
        } = ask;
        let user = identity.user;
        let Some(conn) = self.new_guest(id, user, ctx) else {
            return;
        };
        let place = (conn.index - GUESTS_FROM) as usize;
        let command = command.and_then(|command| match needs_connection(&command) {
            true => Err(request::Refused {
                code: ErrorCode::BadRequest,
                message: "only on a connection".to_owned(),
            }),
            false => Ok(command),
        });
        match command {
            Ok(command) if !self.guests.known.has(&identity, ctx.now_ms()) => {
                self.guests.table[place].held = Some((identity, command));
                self.guests.signing_in.push_back(conn);
                self.sign_guests_in(ctx);
            }
            command => self.guest_request(conn, user, command, ctx),
        }
    }

    /// A write of the service, which waits for its answer as a guest does: its place, and the id of its request.
    pub(super) fn guest_of_service(
        &mut self,
        id: AskId,
        actor: UserId,
        ctx: &mut Context<'_>,
    ) -> Option<(ConnId, Option<RequestId>)> {
        let conn = self.new_guest(id, actor, ctx)?;
        Some((conn, Some(REQUEST)))
    }

    /// A place for one more who waits; without room they are told so at once.
    fn new_guest(&mut self, id: AskId, user: UserId, ctx: &mut Context<'_>) -> Option<ConnId> {
        let is_draining = self.draining();
        let guests = &mut self.guests;
        let refusal = if is_draining {
            Some((ErrorCode::Unavailable, "the node stops"))
        } else if guests.table.len() >= limits::ASKS_MAX {
            Some((ErrorCode::Overloaded, "too many requests are under way"))
        } else {
            None
        };
        if let Some((code, message)) = refusal {
            ctx.stats.commands_refused += 1;
            let reply = reply::error(Some(REQUEST), code, message, Some(limits::RETRY_AFTER_MS));
            let answer = Answer { reply, left: None };
            ctx.effects.push(Effect::Answer(id, answer));
            return None;
        }
        guests.generation = guests.generation.wrapping_add(1);
        let generation = guests.generation;
        let place = guests.table.insert(Guest {
            ask: id,
            generation,
            user,
            since_ms: ctx.now_ms(),
            left: None,
            held: None,
        });
        Some(ConnId {
            index: GUESTS_FROM + place as u32,
            generation,
        })
    }

    fn guest_request(
        &mut self,
        conn: ConnId,
        user: UserId,
        command: Result<Command, request::Refused>,
        ctx: &mut Context<'_>,
    ) {
        let id = Some(REQUEST);
        self.request(conn, user, Request { id, command }, ctx);
    }

    /// Makes sure that the accounts of guests are there: who came while a call was under way shares the
    /// next one, or needs none any more.
    fn sign_guests_in(&mut self, ctx: &mut Context<'_>) {
        let mut known: Vec<(ConnId, UserId, Command)> = Vec::new();
        let guests = &mut self.guests;
        while guests.sign_ins_under_way < SIGN_INS_UNDER_WAY_MAX && !guests.signing_in.is_empty() {
            let mut conns: Vec<ConnId> = Vec::new();
            let mut sign_ins: Vec<SignIn> = Vec::new();
            while conns.len() < limits::SIGN_IN_USERS_MAX
                && let Some(conn) = guests.signing_in.pop_front()
            {
                let Some(guest) = find(&mut guests.table, conn) else {
                    continue;
                };
                let Some((identity, command)) = guest.held.take() else {
                    continue;
                };
                if guests.known.has(&identity, ctx.now_ms()) {
                    known.push((conn, identity.user, command));
                    continue;
                }
                sign_ins.retain(|other| other.user != identity.user);
                sign_ins.push(SignIn {
                    user: identity.user,
                    name: identity.name.clone(),
                    picture: identity.picture.clone(),
                    resume: Vec::new(),
                    describe_max: 0,
                });
                guest.held = Some((identity, command));
                conns.push(conn);
            }
            if conns.is_empty() {
                break;
            }
            guests.sign_ins_under_way += 1;
            let users = sign_ins.iter().map(|sign_in| sign_in.user).collect();
            let ticket = ctx.call(StoreCall::SignIn(sign_ins));
            self.calls.insert(ticket, Call::Guests(conns, users));
        }
        for (conn, user, command) in known {
            self.guest_request(conn, user, Ok(command), ctx);
        }
    }

    /// The accounts are there.
    pub(super) fn guests_signed_in(
        &mut self,
        conns: Vec<ConnId>,
        users: &[UserId],
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        self.guests.sign_ins_under_way -= 1;
        let (signed_in, refusal): (Vec<Option<SignedIn>>, Option<Refused>) = match result {
            Ok(StoreAnswer::SignIn(signed_in)) => (signed_in, None),
            Err(StoreError::Overloaded) => (
                Vec::new(),
                Some((ErrorCode::Overloaded, "the store is busy")),
            ),
            Ok(_) | Err(StoreError::Unavailable(_)) => (
                Vec::new(),
                Some((ErrorCode::Unavailable, "the store does not answer")),
            ),
        };
        let refused = |identity: &Identity| -> Option<Refused> {
            if refusal.is_some() {
                return refusal;
            }
            let place = users.iter().position(|user| *user == identity.user)?;
            let Some(signed_in) = signed_in.get(place)? else {
                return Some((ErrorCode::Unauthenticated, ERASED));
            };
            let began = Began {
                version: signed_in.version,
                sid: identity.sid.as_deref().map(sid_hash),
                issued_at: identity.issued_at,
            };
            let end = signed_in.ends.iter().find(|end| end.ends(&began))?;
            Some((service::code_of(end.code), service::ENDED))
        };
        for conn in conns {
            let held = find(&mut self.guests.table, conn).and_then(|guest| guest.held.take());
            let Some((identity, command)) = held else {
                continue;
            };
            match refused(&identity) {
                Some((code, message)) => self.refuse(conn, Some(REQUEST), code, message, ctx),
                None => {
                    self.guests.known.insert(&identity, ctx.now_ms());
                    self.guest_request(conn, identity.user, Ok(command), ctx);
                }
            }
        }
        self.sign_guests_in(ctx);
    }

    /// Begins a read for a guest, who has no other one.
    pub(super) fn read_for_guest(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        read: Read,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let Some(user) = find(&mut self.guests.table, conn).map(|guest| guest.user) else {
            return Ok(());
        };
        if !ctx.may_read() {
            return Err((ErrorCode::Overloaded, "the store is busy"));
        }
        self.begin_read(conn, user, request, read, ctx);
        Ok(())
    }

    /// Tells a guest its answer, the first that comes. Whether it still waited.
    pub(super) fn answer(&mut self, conn: ConnId, reply: &str, ctx: &mut Context<'_>) -> bool {
        if find(&mut self.guests.table, conn).is_none() {
            return false;
        }
        let place = (conn.index - GUESTS_FROM) as usize;
        let Guest { ask, left, .. } = self.guests.table.remove(place);
        let reply = reply.to_owned();
        ctx.effects
            .push(Effect::Answer(ask, Answer { reply, left }));
        true
    }

    /// Tells a guest that its hint was taken; a connection hears nothing.
    pub(super) fn taken(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        if is_guest(conn) {
            let nothing: [(); 0] = [];
            self.answer(conn, &reply::ack(REQUEST, &nothing), ctx);
        }
    }

    /// Time has passed: who waited too long is told so.
    pub(super) fn tick_guests(&mut self, ctx: &mut Context<'_>) {
        let now_ms = ctx.now_ms();
        let late = |guest: &Guest| guest.since_ms + limits::ASK_MS_MAX <= now_ms;
        self.refuse_guests(late, "no answer in time; retry with the same id", ctx);
        self.sign_guests_in(ctx);
    }

    /// The history was replaced: what was asked of the old one is not answered any more.
    pub(super) fn dismiss_guests(&mut self, ctx: &mut Context<'_>) {
        self.guests.known.newer.clear();
        self.guests.known.older.clear();
        self.refuse_guests(|_| true, "the history was replaced; try again", ctx);
    }

    fn refuse_guests(
        &mut self,
        which: impl Fn(&Guest) -> bool,
        message: &str,
        ctx: &mut Context<'_>,
    ) {
        let table = self.guests.table.iter();
        let refused: Vec<ConnId> = table
            .filter(|(_, guest)| which(guest))
            .map(|(place, guest)| ConnId {
                index: GUESTS_FROM + place as u32,
                generation: guest.generation,
            })
            .collect();
        for conn in refused {
            self.refuse(conn, Some(REQUEST), ErrorCode::Unavailable, message, ctx);
        }
    }
}
