//! From `auth` to `ready`: verify the token, load the user's rooms, subscribe to them, and tell the
//! client where it stands in each.
//!
//! Invariants: `ready` is said in the very step in which the connection begins to receive live
//! events, so each room's `last_seq` is exactly what they continue from; many users' loads share
//! one call to the store; a room is `recovered` only if every missed event can be replayed.
//!
//! Next: [`super::replay`].

use super::bus::{Context, MeshMessage, Replayable, Subscribe, SubscribeRoom, Subscribed};
use super::fanout::{LocalRoom, Subscriber};
use super::map::{Map, Seeded};
use super::port::{
    Identity, IdentityError, RoomForSignIn, SignIn, StoreAnswer, StoreCall, StoreError,
};
use super::service;
use super::session::{Joining, Ready, Replay, State};
use super::sessions::{Call, Sessions};
use super::{ConnId, Effect};
use crate::limits;
use crate::protocol::ending::sid_hash;
use crate::protocol::presence::PresenceChoice;
use crate::protocol::reply::{self, Limits, NotRecovered, ReadyRoom};
use crate::protocol::request::Auth;
use crate::protocol::view::Watermark;
use crate::protocol::{CloseCode, Epoch, ErrorCode, RequestId, RoomId, Seq, UnixMs, UserId};
use std::collections::VecDeque;

/// Sign-in calls of one shard that the store may have under way.
const SIGN_INS_UNDER_WAY_MAX: usize = 2;

impl Sessions {
    /// The first frame.
    pub(super) fn auth(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        auth: Auth,
        ctx: &mut Context<'_>,
    ) {
        let (resume_epoch, resume) = match auth.resume {
            Some(resume) => (Some(resume.epoch.into_string()), resume.rooms),
            None => (None, Default::default()),
        };
        if resume.len() > limits::READY_ROOMS_MAX {
            let message = "`resume` names more rooms than `ready` describes";
            self.refuse(conn, request, ErrorCode::TooLarge, message, ctx);
            return self.close(conn, CloseCode::ProtocolViolation, ctx);
        }
        let now_ms = ctx.now_ms();
        let seed = self.seed;
        let Some(session) = self.get_mut(conn) else {
            return;
        };
        session.state = State::Joining(Box::new(Joining {
            request,
            since_ms: now_ms,
            user: None,
            expires_at: UnixMs(0),
            name: None,
            picture: None,
            client: auth.client.as_ref().map(service::client_name),
            resume_epoch,
            resume,
            early: Vec::new(),
            version: 0,
            block_version: 0,
            sid: None,
            issued_at: None,
            ends: Vec::new(),
            rooms: Vec::new(),
            asked: 0,
            answers: Map::with_hasher(Seeded::with_seed(seed)),
            added: Vec::new(),
            receipts: Vec::new(),
        }));
        ctx.effects
            .push(Effect::Verify(conn, auth.token.into_string()));
    }

    /// A frame between `auth` and `ready` waits.
    pub(super) fn early(&mut self, conn: ConnId, text: &str, ctx: &mut Context<'_>) {
        let Some(session) = self.get_mut(conn) else {
            return;
        };
        let State::Joining(joining) = &mut session.state else {
            return;
        };
        let bytes: usize = joining.early.iter().map(String::len).sum();
        if joining.early.len() >= limits::EARLY_FRAMES_MAX
            || bytes + text.len() > limits::FRAME_BYTES_MAX
        {
            return self.close(conn, CloseCode::RateLimited, ctx);
        }
        joining.early.push(text.to_owned());
    }

    /// The token was verified: load the user's rooms.
    pub(super) fn sign_in(
        &mut self,
        conn: ConnId,
        result: Result<Identity, IdentityError>,
        ctx: &mut Context<'_>,
    ) {
        let Some(State::Joining(joining)) = self.get_mut(conn).map(|session| &mut session.state)
        else {
            return;
        };
        let request = joining.request;
        match result {
            Ok(identity) => {
                joining.user = Some(identity.user);
                joining.expires_at = identity.expires_at;
                joining.name = identity.name;
                joining.picture = identity.picture;
                joining.sid = identity.sid.as_deref().map(sid_hash);
                joining.issued_at = identity.issued_at;
                self.users.entry(identity.user).or_default().push(conn);
                let home = ctx.home_of_user(identity.user);
                ctx.tell(home, MeshMessage::Came(identity.user, conn));
                self.signing_in.push_back(conn);
                self.sign_in_more(ctx);
            }
            Err(error) => {
                let (code, close) = refusal_of(error);
                self.refuse(conn, request, code, "the token is not accepted", ctx);
                self.close(conn, close, ctx);
            }
        }
    }

    /// Sends the next sign-ins: whoever came while a call was under way shares the next one.
    pub(super) fn sign_in_more(&mut self, ctx: &mut Context<'_>) {
        while self.sign_ins_under_way < SIGN_INS_UNDER_WAY_MAX && !self.signing_in.is_empty() {
            let mut conns = Vec::new();
            let mut sign_ins = Vec::new();
            while let Some(conn) = self.signing_in.pop_front() {
                let Some(State::Joining(joining)) = self.get(conn).map(|session| &session.state)
                else {
                    continue;
                };
                let Some(user) = joining.user else { continue };
                sign_ins.push(SignIn {
                    user,
                    name: joining.name.clone(),
                    picture: joining.picture.clone(),
                    resume: joining.resume.keys().copied().collect(),
                    describe_max: limits::READY_ROOMS_MAX,
                });
                conns.push(conn);
                if conns.len() == limits::SIGN_IN_USERS_MAX {
                    break;
                }
            }
            if conns.is_empty() {
                return;
            }
            self.sign_ins_under_way += 1;
            let ticket = ctx.call(StoreCall::SignIn(sign_ins));
            self.calls.insert(ticket, Call::SignIn(conns));
        }
    }

    /// The rooms were loaded: subscribe to them.
    pub(super) fn signed_in(
        &mut self,
        conns: Vec<ConnId>,
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        self.sign_ins_under_way -= 1;
        match result {
            Ok(StoreAnswer::SignIn(signed_in)) => {
                for (conn, signed_in) in conns.into_iter().zip(signed_in) {
                    let Some(session) = self.get_mut(conn) else {
                        continue;
                    };
                    let State::Joining(joining) = &mut session.state else {
                        continue;
                    };
                    joining.version = signed_in.version;
                    joining.block_version = signed_in.block_version;
                    joining.rooms = signed_in.rooms;
                    let mut ends = signed_in.ends;
                    ends.append(&mut joining.ends);
                    let began = joining.began();
                    if !self.close_if_ended(conn, &began, &ends, ctx) {
                        self.subscribe_more(conn, ctx);
                    }
                }
            }
            _ => {
                for conn in conns {
                    self.sign_in_failed(conn, ctx);
                }
            }
        }
        self.sign_in_more(ctx);
    }

    fn sign_in_failed(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let Some(State::Joining(joining)) = self.get(conn).map(|session| &session.state) else {
            return;
        };
        let request = joining.request;
        self.refuse(
            conn,
            request,
            ErrorCode::Unavailable,
            "the store does not answer",
            ctx,
        );
        self.close(conn, CloseCode::Overloaded, ctx);
    }

    /// Subscribes to further rooms, so many at a time; says `ready` when all have answered.
    fn subscribe_more(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let epoch = ctx.config.epoch.to_string();
        let Some(State::Joining(joining)) = self.get_mut(conn).map(|session| &mut session.state)
        else {
            return;
        };
        let Some(user) = joining.user else { return };
        if joining.answers.len() == joining.rooms.len() {
            return self.say_ready(conn, ctx);
        }
        if joining.answers.len() < joining.asked {
            return;
        }
        let same_epoch = joining.resume_epoch.as_deref() == Some(epoch.as_str());
        let from = joining.asked;
        let to = joining
            .rooms
            .len()
            .min(from + limits::SUBSCRIBES_IN_FLIGHT_MAX);
        joining.asked = to;
        let asks: Vec<(RoomId, Seq, Option<Seq>)> = joining.rooms[from..to]
            .iter()
            .map(|room| {
                // A position ahead of the store is answered without its home.
                let after = joining.resume.get(&room.room).copied();
                let after = after.filter(|after| same_epoch && *after <= room.last_seq);
                (room.room, room.last_seq, after)
            })
            .collect();
        self.ask_home(conn, user, &asks, ctx);
    }

    /// Asks the homes of rooms for their events: (room, newest event known, position).
    pub(super) fn ask_home(
        &mut self,
        conn: ConnId,
        user: UserId,
        asks: &[(RoomId, Seq, Option<Seq>)],
        ctx: &mut Context<'_>,
    ) {
        let mut by_home: Vec<Vec<SubscribeRoom>> =
            (0..ctx.config.shards).map(|_| Vec::new()).collect();
        for (room, head, after) in asks.iter().copied() {
            let place = match self.index.get(&room) {
                Some(place) => *place,
                None => {
                    let place = self.rooms.insert(LocalRoom::new(room)) as u32;
                    self.index.insert(room, place);
                    place
                }
            };
            self.rooms[place as usize].asked += 1;
            by_home[usize::from(ctx.home_of(room))].push(SubscribeRoom { room, head, after });
        }
        for (home, rooms) in (0..).zip(by_home) {
            if !rooms.is_empty() {
                let subscribe = Subscribe {
                    shard: ctx.shard,
                    conn,
                    user,
                    rooms,
                };
                ctx.tell(home, MeshMessage::Subscribe(Box::new(subscribe)));
            }
        }
    }

    /// A home answered.
    pub fn subscribed(
        &mut self,
        conn: ConnId,
        room: RoomId,
        epoch: Epoch,
        outcome: Subscribed,
        ctx: &mut Context<'_>,
    ) {
        let Some(place) = self.index.get(&room).copied() else {
            return;
        };
        // A home that has not heard yet that the history was replaced is about to forget who asked.
        let outcome = match epoch == ctx.config.epoch {
            true => outcome,
            false => Subscribed::Unavailable,
        };
        let local = &mut self.rooms[place as usize];
        local.asked -= 1;
        if let Subscribed::From { position, .. } = outcome {
            match local.position {
                None => local.position = Some(position),
                Some(own) if own != position => ctx.stats.anomalies += 1,
                Some(_) => (),
            }
        }
        let wanted = match self.get_mut(conn).map(|session| &mut session.state) {
            Some(State::Joining(joining)) => {
                joining.answers.insert(room, outcome);
                true
            }
            Some(State::Ready(ready)) => {
                let adding = ready
                    .adding
                    .iter()
                    .position(|adding| adding.room.room_id == room);
                match adding.map(|adding| ready.adding.swap_remove(adding)) {
                    Some(adding) => {
                        self.room_added(conn, place, adding, outcome, ctx);
                        return self.drop_room_if_unused(place, ctx);
                    }
                    None => false,
                }
            }
            Some(State::Fresh { .. } | State::Closing) | None => false,
        };
        if wanted {
            if let Subscribed::From { .. } = outcome {
                self.rooms[place as usize]
                    .subscribers
                    .push(Subscriber::waiting(conn));
            }
            if outcome == Subscribed::Unavailable {
                self.sign_in_failed(conn, ctx);
            } else {
                self.subscribe_more(conn, ctx);
            }
        }
        self.drop_room_if_unused(place, ctx);
    }

    /// Says `ready`, and from this step on the connection receives live events.
    fn say_ready(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let Some(session) = self.get_mut(conn) else {
            return;
        };
        let State::Joining(joining) = std::mem::replace(&mut session.state, State::Closing) else {
            return;
        };
        let Some(user) = joining.user else { return };
        let began = joining.began();
        let mut answer = Standing::new(&joining, ctx.config.epoch.to_string(), ctx.now.unix);
        let mut places = Vec::with_capacity(joining.rooms.len());
        for room in &joining.rooms {
            let Some(Subscribed::From { replay, .. }) = joining.answers.get(&room.room) else {
                answer.not_a_member(room.room);
                continue;
            };
            let Some(place) = self.index.get(&room.room).copied() else {
                continue;
            };
            let local = &mut self.rooms[place as usize];
            let position = local.position.unwrap_or(0);
            places.push(place);
            if !answer.room(room, position, *replay) {
                local.go_live(conn);
            }
        }
        answer.strangers(&joining);
        let Standing {
            rooms,
            rooms_more,
            replay,
            ..
        } = answer;
        let random = ctx.random() as u32;
        let ready = reply::Ready {
            user_id: user,
            connection_id: service::connection_name(ctx.shard, conn, random),
            node: ctx.config.node.clone(),
            epoch: ctx.config.epoch,
            server_time: ctx.now.unix,
            token_expires_at: joining.expires_at,
            limits: limits_of(ctx),
            rooms,
            rooms_more,
            paused: ctx.bus.load.paused().to_vec(),
        };
        if let Some(session) = self.get_mut(conn) {
            session.state = State::Ready(Box::new(Ready {
                user,
                expires_at: joining.expires_at,
                random,
                client: joining.client,
                began,
                version: joining.version,
                block_version: joining.block_version,
                rooms: places,
                refreshing: None,
                refusals: 0,
                reading: false,
                reads: VecDeque::new(),
                replay,
                pulling: false,
                adding: Vec::new(),
                presence: PresenceChoice::default(),
                watching: None,
            }));
        }
        self.ready += 1;
        ctx.stats.sessions_ready += 1;
        self.arrive(conn, user, ctx);
        self.remind_of_expiry(conn, joining.expires_at, ctx);
        self.say_json(
            conn,
            &reply::ready(joining.request.unwrap_or(0), &ready),
            ctx,
        );
        self.go_on_replaying(conn, ctx);
        for room in joining.added {
            self.added(room, &[user], ctx);
        }
        for text in joining.early {
            self.text(conn, &text, ctx);
        }
    }
}

/// How a refused token is answered.
pub(super) fn refusal_of(error: IdentityError) -> (ErrorCode, CloseCode) {
    match error {
        IdentityError::Invalid => (ErrorCode::Unauthenticated, CloseCode::Unauthenticated),
        IdentityError::Expired => (ErrorCode::Unauthenticated, CloseCode::TokenExpired),
        IdentityError::Unavailable => (ErrorCode::Unavailable, CloseCode::Overloaded),
    }
}

fn limits_of(ctx: &Context<'_>) -> Limits {
    Limits {
        frame_bytes: limits::FRAME_BYTES_MAX,
        rooms_per_user: limits::ROOMS_PER_USER_MAX,
        text_chars: limits::TEXT_CHARS_MAX,
        sends_per_10s: ctx.config.sends_per_10s,
        commands_per_10s: ctx.config.commands_per_10s,
        typing_interval_ms: limits::TYPING_INTERVAL_MS,
        ping_interval_ms: ctx.config.ping_interval_ms,
        ping_timeout_ms: ctx.config.ping_timeout_ms,
        replay_max: limits::REPLAY_EVENTS_MAX,
        history_page_max: limits::HISTORY_PAGE_MAX,
        durability: ctx.config.durability,
    }
}

/// Where a client stands in each of its rooms.
struct Standing<'a> {
    joining: &'a Joining,
    same_epoch: bool,
    now: UnixMs,
    events_left: usize,
    bytes_left: usize,
    rooms: Vec<ReadyRoom>,
    rooms_more: bool,
    replay: VecDeque<Replay>,
}

impl<'a> Standing<'a> {
    fn new(joining: &'a Joining, epoch: String, now: UnixMs) -> Standing<'a> {
        Standing {
            joining,
            same_epoch: joining.resume_epoch.as_deref() == Some(epoch.as_str()),
            now,
            events_left: limits::REPLAY_CONNECTION_EVENTS_MAX,
            bytes_left: limits::REPLAY_CONNECTION_BYTES_MAX,
            rooms: Vec::new(),
            rooms_more: false,
            replay: VecDeque::new(),
        }
    }

    /// Tells of one room; whether something of it is to be replayed.
    fn room(&mut self, room: &RoomForSignIn, position: Seq, replay: Replayable) -> bool {
        let Some(description) = &room.described else {
            self.rooms_more = true;
            return false;
        };
        let asked = self.joining.resume.get(&room.room).copied();
        let recovered = match asked {
            None => Err(NotRecovered::NotRequested),
            Some(_) if !self.same_epoch => Err(NotRecovered::EpochChanged),
            Some(after) if after > room.last_seq => Err(NotRecovered::AheadOfServer),
            Some(after) => self.admit(after, position, replay).map(|()| after),
        };
        // A client that is ahead of this shard hears nothing twice: what is live for it continues
        // from where it is.
        let last_seq = recovered.map_or(position, |after| after.max(position));
        let replays = recovered.is_ok_and(|after| after != position);
        if let Ok(cursor) = recovered
            && replays
        {
            self.replay.push_back(Replay {
                room: room.room,
                cursor,
            });
        }
        let mut watermarks = description.watermarks.clone();
        for (_, newer) in self
            .joining
            .receipts
            .iter()
            .filter(|(id, _)| *id == room.room)
        {
            let is_same = |mark: &&mut Watermark| mark.user_id == newer.user_id;
            if let Some(mark) = watermarks.iter_mut().find(is_same) {
                mark.read_seq = mark.read_seq.max(newer.read_seq);
                mark.delivered_seq = mark.delivered_seq.max(newer.delivered_seq);
            }
        }
        self.rooms.push(ReadyRoom {
            room_id: room.room,
            kind: Some(room.kind),
            last_seq,
            read_seq: room.read_seq,
            unread: description.unread,
            recovered: recovered.is_ok(),
            reason: recovered.err(),
            from_seq: recovered.ok().map(|after| after + 1),
            to_seq: recovered.ok().map(|_| last_seq),
            muted_until: description.muted_until.filter(|until| *until > self.now),
            archived: (description.archived).is_now(description.muted_until, self.now),
            watermarks,
        });
        replays
    }

    /// Whether a replay fits into what one connection may have.
    fn admit(&mut self, after: Seq, to: Seq, replay: Replayable) -> Result<(), NotRecovered> {
        match replay {
            Replayable::NotAsked => Err(NotRecovered::NotRequested),
            Replayable::TooMuch => Err(NotRecovered::TooMuch),
            Replayable::Expired => Err(NotRecovered::PositionExpired),
            Replayable::Bytes(bytes) => {
                let events = usize::try_from(to.saturating_sub(after)).unwrap_or(usize::MAX);
                if events > self.events_left || bytes > self.bytes_left {
                    return Err(NotRecovered::TooMuch);
                }
                self.events_left -= events;
                self.bytes_left -= bytes;
                Ok(())
            }
        }
    }

    /// A room of `resume` that is not the user's.
    fn not_a_member(&mut self, room: RoomId) {
        if self.joining.resume.contains_key(&room) {
            self.rooms.push(ReadyRoom {
                room_id: room,
                kind: None,
                last_seq: 0,
                read_seq: 0,
                unread: 0,
                recovered: false,
                reason: Some(NotRecovered::NotAMember),
                from_seq: None,
                to_seq: None,
                muted_until: None,
                archived: false,
                watermarks: Vec::new(),
            });
        }
    }

    /// The rooms of `resume` that the store does not list for the user.
    fn strangers(&mut self, joining: &Joining) {
        for room in joining.resume.keys() {
            if !joining.answers.contains_key(room) {
                self.not_a_member(*room);
            }
        }
    }
}
