//! The connections of a shard: their lives, and what they are told.
//!
//! Invariants: a connection's place in the table is its driver's place; what is said to a
//! connection goes through its outbox, in order; a connection that is being closed is no longer
//! subscribed to anything; every connection has a reminder in the wheel until it is gone.
//!
//! Continued in [`super::sign_in`] (from `auth` to `ready`), [`super::memberships`] (which rooms a
//! connection hears), [`super::commands`] (requests), [`super::replay`] (events that were missed),
//! [`super::watches`] (presence) and [`super::own`] (what rooms are to a user alone).

use super::budgets::Ledger;
use super::bus::{Context, MeshMessage, PageWanted};
use super::crowd::Crowd;
use super::fanout::LocalRoom;
use super::files::FilesAsked;
use super::frame::{Class, Frame, Stamps};
use super::guests::{self, Guests};
use super::map::{Map, Seeded};
use super::outbox::Pushed::{self, Full};
use super::own::OwnDue;
use super::port::{Identity, IdentityError, StoreAnswer, StoreError, Ticket};
use super::presence::Presence;
use super::sabotage::Sabotage;
use super::session::{Due, Session, State};
use super::timers::Timers;
use super::watches::Watches;
use super::{ConnId, Effect, TICK_MS};
use crate::limits;
use crate::protocol::event::{Membership, Notice, PING_JSON, ServerClosing, ServerDraining};
use crate::protocol::{
    CloseCode, ErrorCode, RequestId, RoomId, Seq, UnixMs, UserId, reply, websocket,
};
use slab::Slab;
use std::collections::VecDeque;

/// The connections of a shard.
#[derive(Debug)]
pub struct Sessions {
    pub(super) table: Vec<Option<Box<Session>>>,
    pub(super) rooms: Slab<LocalRoom>,
    pub(super) index: Map<RoomId, u32>,
    /// The connections of each user, from the moment their token is verified.
    pub(super) users: Map<UserId, Vec<ConnId>>,
    /// All connections of the users that this shard is home to.
    pub(super) crowd: Crowd,
    /// How the users are seen whose presence home this shard is.
    pub(super) presence: Presence,
    pub(super) watches: Watches,
    /// What the users that this shard is home to have taken lately.
    pub(super) ledger: Ledger,
    /// Requests over HTTP of these users.
    pub(super) guests: Guests,
    /// Questions about files, and who waits for them.
    pub(super) files: FilesAsked,
    /// Connections with something taken that the user's other places do not know yet.
    pub(super) spenders: Vec<ConnId>,
    pub(super) calls: Map<Ticket, Call>,
    pub(super) signing_in: VecDeque<ConnId>,
    pub(super) sign_ins_under_way: usize,
    /// Memberships that another shard told of, to be read: (room, user).
    pub(super) added: Vec<(RoomId, UserId)>,
    pub(super) reading_added: bool,
    pub(super) own_due: OwnDue,
    pub(super) reading_own: bool,
    /// Replays that could not go on.
    pub(super) held_replays: Vec<ConnId>,
    /// Connections with reads that could not begin.
    pub(super) held_reads: Vec<ConnId>,
    timers: Timers,
    ping: Frame,
    pub(super) outbox_bytes: usize,
    open: usize,
    pub(super) ready: usize,
    pub(super) versions_round_ms: u64,
    pub(super) versions_queue: VecDeque<UserId>,
    pub(super) versions_under_way: bool,
    draining: Option<u64>,
    pub(super) seed: u64,
}

#[derive(Debug)]
pub(super) enum Call {
    SignIn(Vec<ConnId>),
    Added(Vec<(RoomId, UserId)>),
    /// Of these users.
    Versions(Vec<UserId>),
    Reconcile(Vec<UserId>),
    Read(ConnId, Option<RequestId>),
    /// Each with the device that knows.
    Own(Vec<(RoomId, UserId, Option<ConnId>)>),
    SetOwn(ConnId, Option<RequestId>, RoomId),
    /// Of guests whose account may not be there yet, and of whom it asks.
    Guests(Vec<ConnId>, Vec<UserId>),
    /// Of a connection with a new token.
    Refresh(ConnId, Box<Identity>),
    /// A page, which its room's home may have too.
    Page(PageWanted),
    /// Of these users.
    Shared(ConnId, Option<RequestId>, Vec<UserId>),
    /// Of these users, whom it watches.
    StillShared(ConnId, Vec<UserId>),
}

impl Sessions {
    /// No connections.
    pub fn new(seed: u64, now_ms: u64) -> Sessions {
        Sessions {
            table: Vec::new(),
            rooms: Slab::new(),
            index: Map::with_hasher(Seeded::with_seed(seed)),
            users: Map::with_hasher(Seeded::with_seed(seed)),
            crowd: Crowd::new(seed),
            presence: Presence::new(seed),
            watches: Watches::new(seed),
            ledger: Ledger::new(seed),
            guests: Guests::new(seed),
            files: FilesAsked::new(seed),
            spenders: Vec::new(),
            calls: Map::with_hasher(Seeded::with_seed(seed)),
            signing_in: VecDeque::new(),
            sign_ins_under_way: 0,
            added: Vec::new(),
            reading_added: false,
            own_due: OwnDue::new(),
            reading_own: false,
            held_replays: Vec::new(),
            held_reads: Vec::new(),
            timers: Timers::new(now_ms),
            ping: Frame::text(PING_JSON, Class::Ephemeral),
            outbox_bytes: 0,
            open: 0,
            ready: 0,
            versions_round_ms: 0,
            versions_queue: VecDeque::new(),
            versions_under_way: false,
            draining: None,
            seed,
        }
    }

    /// Connections that are not gone yet.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Whether there is nobody who waits to be told something: neither connection nor guest.
    pub fn is_empty(&self) -> bool {
        self.open == 0 && self.guests.waiting() == 0
    }

    /// Connections that are ready.
    pub fn ready(&self) -> usize {
        self.ready
    }

    /// Rooms with subscribers here.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    /// Bytes in all outboxes; a shared frame counts for each.
    pub fn outbox_bytes(&self) -> usize {
        self.outbox_bytes
    }

    /// Whether the node stops.
    pub fn draining(&self) -> bool {
        self.draining.is_some()
    }

    /// A connection, unless its place was taken by another one.
    pub fn get(&self, conn: ConnId) -> Option<&Session> {
        let session = self.table.get(conn.index as usize)?.as_deref()?;
        (session.generation == conn.generation).then_some(session)
    }

    /// A connection, unless its place was taken by another one.
    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        let session = self.table.get_mut(conn.index as usize)?.as_deref_mut()?;
        (session.generation == conn.generation).then_some(session)
    }

    /// The upgrade was answered.
    pub fn opened(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let place = conn.index as usize;
        if self.table.len() <= place {
            self.table.resize_with(place + 1, || None);
        }
        assert!(
            self.table[place].is_none(),
            "a place is free before it is used again"
        );
        let now_ms = ctx.now_ms();
        self.table[place] = Some(Box::new(Session::new(conn.generation, now_ms)));
        self.open += 1;
        ctx.stats.connections_opened += 1;
        self.timers.remind(conn, now_ms + limits::AUTH_MS_MAX);
        if self.draining.is_some() {
            self.close(conn, CloseCode::Draining, ctx);
        }
    }

    /// The socket is gone.
    pub fn closed(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        if self.get(conn).is_none() {
            return;
        }
        self.leave_everything(conn, ctx);
        if let Some(session) = self.table[conn.index as usize].take() {
            self.outbox_bytes -= session.outbox.bytes();
            self.open -= 1;
        }
        if self.open == 0 {
            self.table = Vec::new();
        }
    }

    /// The connection lives.
    pub fn heard(&mut self, conn: ConnId, ctx: &Context<'_>) {
        let now_ms = ctx.now_ms();
        if let Some(session) = self.get_mut(conn) {
            session.heard_ms = now_ms;
        }
    }

    /// This many bytes of the outbox went out.
    pub fn written(&mut self, conn: ConnId, bytes: usize, ctx: &mut Context<'_>) {
        let now_us = ctx.now.mono_us;
        let Some(session) = self.get_mut(conn) else {
            return;
        };
        session.outbox.written(bytes, |frame| {
            let published_us = frame.stamps().published_us;
            if published_us > 0 {
                let elapsed_us = now_us.saturating_sub(published_us);
                ctx.stats.published_to_written.record(elapsed_us);
            }
        });
        let (replays, reads) = match &session.state {
            State::Ready(ready) => (!ready.replay.is_empty(), !ready.reads.is_empty()),
            State::Fresh { .. } | State::Joining(_) | State::Closing => (false, false),
        };
        self.outbox_bytes -= bytes;
        ctx.stats.bytes_written += bytes as u64;
        if replays {
            self.go_on_replaying(conn, ctx);
        }
        if reads {
            self.go_on_reading(conn, ctx);
        }
    }

    /// Appends a frame to an outbox. Whether the connection still takes more.
    pub(super) fn say(&mut self, conn: ConnId, frame: &Frame, ctx: &mut Context<'_>) -> bool {
        let bytes_max = self.outbox_bytes_max(ctx);
        let Some(Some(session)) = self.table.get_mut(conn.index as usize) else {
            return false;
        };
        if session.generation != conn.generation || matches!(session.state, State::Closing) {
            return false;
        }
        if append(session, conn, frame, bytes_max, &mut self.outbox_bytes, ctx) == Full {
            self.close_slow(conn, ctx);
            return false;
        }
        true
    }

    /// A durable frame did not fit.
    fn close_slow(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        if ctx.config.sabotage.is(Sabotage::OutboxDropUnnoticed) {
            return;
        }
        ctx.stats.closed_slow += 1;
        self.close(conn, CloseCode::SlowConsumer, ctx);
    }

    /// What one outbox may hold: the limit of a connection, or, once all of them together hold
    /// the shard's share, an equal part of it for each, so that those close who hold the most.
    pub(super) fn outbox_bytes_max(&self, ctx: &Context<'_>) -> usize {
        if self.outbox_bytes < ctx.config.outbox_shard_bytes_max {
            return ctx.config.outbox_bytes_max;
        }
        let part = ctx.config.outbox_shard_bytes_max / self.open.max(1);
        part.clamp(4 << 10, ctx.config.outbox_bytes_max)
    }

    /// Says a JSON text that is never dropped.
    pub(super) fn say_json(&mut self, conn: ConnId, json: &str, ctx: &mut Context<'_>) -> bool {
        match guests::is_guest(conn) {
            true => self.answer(conn, json, ctx),
            false => self.say(conn, &Frame::text(json, Class::Durable), ctx),
        }
    }

    /// Passes on the reply of a home.
    pub fn reply(&mut self, conn: ConnId, bytes: Box<[u8]>, ctx: &mut Context<'_>) {
        if guests::is_guest(conn) {
            let json = String::from_utf8_lossy(websocket::payload(&bytes));
            self.answer(conn, &json, ctx);
            return;
        }
        self.say(conn, &Frame::event(bytes, Stamps::default(), None), ctx);
    }

    /// Looks at the connection again when its token ends, which may be before the next reminder.
    pub(super) fn remind_of_expiry(&mut self, conn: ConnId, expires_at: UnixMs, ctx: &Context<'_>) {
        let left_ms = expires_at.0.saturating_sub(ctx.now.unix.0);
        self.timers.remind(
            conn,
            ctx.now_ms() + left_ms.min(ctx.config.ping_interval_ms),
        );
    }

    /// Refuses a request.
    pub(super) fn refuse(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        code: ErrorCode,
        message: &str,
        ctx: &mut Context<'_>,
    ) {
        ctx.stats.commands_refused += 1;
        let retry_after_ms = code.temporary().then_some(limits::RETRY_AFTER_MS);
        let json = reply::error(request, code, message, retry_after_ms);
        self.say_json(conn, &json, ctx);
    }

    /// Ends a connection: what it was told before still goes out, unless it does not read.
    pub(super) fn close(&mut self, conn: ConnId, code: CloseCode, ctx: &mut Context<'_>) {
        let Some(session) = self.get(conn) else {
            return;
        };
        if matches!(session.state, State::Closing) {
            return;
        }
        if code.announced() {
            let retry_after_ms = match code {
                CloseCode::ConnectionLimit => {
                    let least_ms = limits::CONNECTION_LIMIT_RETRY_MS;
                    least_ms + ctx.random() % least_ms
                }
                _ => 1_000 + ctx.random() % 4_000,
            };
            let closing = ServerClosing {
                code: code as u16,
                retry_after_ms,
            };
            let json = Notice::ServerClosing(closing).to_json();
            if !self.say_json(conn, &json, ctx) {
                return;
            }
        }
        self.leave_everything(conn, ctx);
        let Some(session) = self.get_mut(conn) else {
            return;
        };
        session.state = State::Closing;
        if code == CloseCode::SlowConsumer {
            let before = session.outbox.bytes();
            session.outbox.abandon();
            let dropped = before - session.outbox.bytes();
            self.outbox_bytes -= dropped;
        }
        ctx.effects.push(Effect::Close(conn, code));
    }

    /// The home of its user says that it has to go.
    pub fn crowded(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        if self
            .get(conn)
            .is_some_and(|session| session.user().is_some())
        {
            ctx.stats.closed_crowded += 1;
            self.close(conn, CloseCode::ConnectionLimit, ctx);
        }
    }

    /// Takes a connection out of every room and list.
    fn leave_everything(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let Some(session) = self.get_mut(conn) else {
            return;
        };
        let user = session.user();
        let mut rooms: Vec<u32> = Vec::new();
        let mut asked: Vec<RoomId> = Vec::new();
        match std::mem::replace(&mut session.state, State::Closing) {
            State::Ready(ready) => {
                rooms = ready.rooms;
                self.ready -= 1;
                self.depart(conn, ready.user, ready.watching, ctx);
            }
            State::Joining(joining) => {
                asked = joining.rooms[..joining.asked]
                    .iter()
                    .map(|room| room.room)
                    .collect();
            }
            State::Fresh { .. } | State::Closing => (),
        }
        if let Some(user) = user {
            if let Some(conns) = self.users.get_mut(&user) {
                conns.retain(|own| *own != conn);
                if conns.is_empty() {
                    self.users.remove(&user);
                }
            }
            self.tell_went(user, conn, ctx);
        }
        rooms.extend(asked.iter().filter_map(|room| self.index.get(room)));
        for place in rooms {
            if let Some(room) = self.rooms.get_mut(place as usize) {
                room.remove(conn.index);
            }
            self.drop_room_if_unused(place, ctx);
        }
    }

    /// Nobody listens to the room any more: its home need not tell this shard.
    pub(super) fn drop_room_if_unused(&mut self, place: u32, ctx: &mut Context<'_>) {
        let Some(room) = self.rooms.get(place as usize) else {
            return;
        };
        if room.asked == 0 && room.subscribers.is_empty() {
            let room = self.rooms.remove(place as usize);
            self.index.remove(&room.id);
            if room.position.is_some() {
                let home = ctx.home_of(room.id);
                ctx.tell(home, MeshMessage::Unsubscribe(room.id));
            }
        }
    }

    /// A room's next event.
    pub fn deliver(&mut self, room: RoomId, seq: Seq, frame: &Frame, ctx: &mut Context<'_>) {
        let Some(place) = self.index.get(&room).copied() else {
            return;
        };
        let bytes_max = self.outbox_bytes_max(ctx);
        let Some(local) = self.rooms.get_mut(place as usize) else {
            return;
        };
        let Some(position) = local.position else {
            return;
        };
        if seq != position + 1 {
            ctx.stats.anomalies += 1;
            if !ctx.config.sabotage.is(Sabotage::GateSkipped) {
                return;
            }
        }
        local.position = Some(seq);
        let mut slow: Vec<ConnId> = Vec::new();
        for subscriber in local
            .subscribers
            .iter()
            .filter(|subscriber| subscriber.is_live())
        {
            let index = subscriber.index();
            let Some(Some(session)) = self.table.get_mut(index as usize) else {
                continue;
            };
            ctx.stats.deliveries += 1;
            let conn = ConnId {
                index,
                generation: session.generation,
            };
            if append(session, conn, frame, bytes_max, &mut self.outbox_bytes, ctx) == Full {
                slow.push(conn);
            }
        }
        for conn in slow {
            self.close_slow(conn, ctx);
        }
        if let Some(Membership::Left(user) | Membership::Erased(user)) = frame.membership() {
            self.left(room, user, ctx);
        }
    }

    /// Who types: only the newest of a room matters, and nobody is closed for it. In a crowd nobody is told but that
    /// it is over, where something else was told before there were so many.
    pub fn notice(&mut self, room: RoomId, bytes: Box<[u8]>, nobody: bool, ctx: &mut Context<'_>) {
        let Some(place) = self.index.get(&room).copied() else {
            return;
        };
        let bytes_max = self.outbox_bytes_max(ctx);
        let Some(local) = self.rooms.get_mut(place as usize) else {
            return;
        };
        let is_crowd = local.subscribers.len() > limits::TYPING_CONNECTIONS_MAX;
        if is_crowd && !(nobody && local.shows_typing) {
            return;
        }
        local.shows_typing = !nobody;
        let (high, low) = room.0.as_u64_pair();
        let frame = Frame::encoded(bytes, Class::Coalescible(high ^ low), Stamps::default());
        for subscriber in local.subscribers.iter().filter(|one| one.is_live()) {
            let index = subscriber.index();
            let Some(Some(session)) = self.table.get_mut(index as usize) else {
                continue;
            };
            let conn = ConnId {
                index,
                generation: session.generation,
            };
            let _dropped = append(
                session,
                conn,
                &frame,
                bytes_max,
                &mut self.outbox_bytes,
                ctx,
            );
        }
    }

    /// What is owed to this shard of a room is no longer kept: who listens has to come again, and is told then what
    /// to reload.
    pub fn expired(&mut self, room: RoomId, ctx: &mut Context<'_>) {
        let Some(place) = self.index.get(&room).copied() else {
            return;
        };
        let Some(local) = self.rooms.get_mut(place as usize) else {
            return;
        };
        local.position = None;
        let listening: Vec<u32> = local.subscribers.iter().map(|one| one.index()).collect();
        for index in listening {
            let conn = self.conn_at(index);
            self.close(conn, CloseCode::SlowConsumer, ctx);
        }
    }

    /// The connection at a place, whatever its generation.
    fn conn_at(&self, index: u32) -> ConnId {
        let session = self.table.get(index as usize).and_then(Option::as_deref);
        ConnId {
            index,
            generation: session.map_or(0, |session| session.generation),
        }
    }

    /// Answer to [`Effect::Verify`].
    pub fn verified(
        &mut self,
        conn: ConnId,
        result: Result<Identity, IdentityError>,
        ctx: &mut Context<'_>,
    ) {
        let Some(session) = self.get_mut(conn) else {
            return;
        };
        match &mut session.state {
            State::Joining(joining) if joining.user.is_none() => {
                self.sign_in(conn, result, ctx);
            }
            State::Ready(_) => self.refreshed(conn, result, ctx),
            State::Joining(_) | State::Fresh { .. } | State::Closing => (),
        }
    }

    /// Takes an answer of the store, if it is one of ours.
    pub fn answered(
        &mut self,
        ticket: Ticket,
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        let Some(call) = self.calls.remove(&ticket) else {
            return;
        };
        match call {
            Call::SignIn(conns) => self.signed_in(conns, result, ctx),
            Call::Added(asked) => self.added_read(&asked, result, ctx),
            Call::Versions(asked) => self.versions_read(&asked, result, ctx),
            Call::Reconcile(users) => self.rooms_read(&users, result, ctx),
            Call::Read(conn, request) => self.read_done(conn, request, result, ctx),
            Call::Own(asked) => self.own_read(&asked, result, ctx),
            Call::SetOwn(conn, request, room) => self.own_set(conn, request, room, result, ctx),
            Call::StillShared(conn, asked) => self.still_shared(conn, &asked, result, ctx),
            Call::Guests(conns, users) => self.guests_signed_in(conns, &users, result, ctx),
            Call::Refresh(conn, identity) => self.refresh_read(conn, &identity, result, ctx),
            Call::Page(wanted) if result.is_err() && !wanted.is_last_try => {
                let last = PageWanted {
                    is_last_try: true,
                    ..wanted
                };
                ctx.tell(ctx.home_of(wanted.read.room), MeshMessage::Page(last));
            }
            Call::Page(wanted) => self.read_done(wanted.conn, Some(wanted.request), result, ctx),
            Call::Shared(conn, request, asked) => {
                self.shared_read(conn, request, &asked, result, ctx);
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, ctx: &mut Context<'_>) {
        let now_ms = ctx.now_ms();
        for conn in self.timers.due(now_ms) {
            let due = match self.get(conn) {
                Some(session) => due(session, ctx),
                None => continue,
            };
            match due {
                Due::Nothing(at_ms) => self.timers.remind(conn, at_ms),
                Due::Ping => {
                    let ping = self.ping.clone();
                    if let Some(session) = self.get_mut(conn) {
                        session.pinged_ms = now_ms;
                    }
                    self.say(conn, &ping, ctx);
                    self.timers.remind(conn, now_ms + TICK_MS);
                }
                Due::Close(code) => {
                    ctx.stats.closed_silent += u64::from(code == CloseCode::PingTimeout);
                    self.close(conn, code, ctx);
                }
            }
        }
        for conn in std::mem::take(&mut self.held_replays) {
            self.go_on_replaying(conn, ctx);
        }
        for conn in std::mem::take(&mut self.held_reads) {
            self.go_on_reading(conn, ctx);
        }
        self.tick_budgets(ctx);
        self.tick_guests(ctx);
        self.tick_files(ctx);
        self.sign_in_more(ctx);
        self.read_added(ctx);
        self.read_own(ctx);
        self.compare_with_store(ctx);
        self.tick_presence(ctx);
    }

    /// Closes everybody, spread over this time.
    pub fn drain(&mut self, spread_ms: u64, ctx: &mut Context<'_>) {
        if self.draining.is_some() {
            return;
        }
        let now_ms = ctx.now_ms();
        self.draining = Some(now_ms + spread_ms);
        for index in 0..self.table.len() {
            let conn = self.conn_at(index as u32);
            let after_ms = ctx.random() % (spread_ms + 1);
            let Some(session) = self.get_mut(conn) else {
                continue;
            };
            match session.state {
                State::Ready(_) => {
                    session.drain_at_ms = Some(now_ms + after_ms);
                    self.timers.remind(conn, now_ms + after_ms);
                    let notice = ServerDraining {
                        reconnect_after_ms: after_ms,
                    };
                    let json = Notice::ServerDraining(notice).to_json();
                    self.say_json(conn, &json, ctx);
                }
                State::Fresh { .. } | State::Joining(_) => {
                    self.close(conn, CloseCode::Draining, ctx);
                }
                State::Closing => (),
            }
        }
    }

    /// Closes everybody: the history was replaced. No position holds any more, also of rooms of
    /// which a home has still to answer.
    pub fn forget(&mut self, ctx: &mut Context<'_>) {
        for index in 0..self.table.len() {
            let conn = self.conn_at(index as u32);
            self.close(conn, CloseCode::EpochChanged, ctx);
        }
        self.dismiss_guests(ctx);
        for (_, room) in &mut self.rooms {
            room.position = None;
        }
    }
}

/// Appends a frame to a connection's outbox and keeps the books.
pub(super) fn append(
    session: &mut Session,
    conn: ConnId,
    frame: &Frame,
    bytes_max: usize,
    outbox_bytes: &mut usize,
    ctx: &mut Context<'_>,
) -> Pushed {
    let before = session.outbox.bytes();
    let pushed = session.outbox.push(frame, bytes_max);
    let after = session.outbox.bytes();
    *outbox_bytes = *outbox_bytes + after - before;
    session.sent_ms = ctx.now_ms();
    if before == 0 && after > 0 {
        ctx.effects.push(Effect::Flush(conn));
    }
    ctx.stats.frames_dropped += u64::from(pushed == Pushed::Dropped);
    pushed
}

/// What is due for a connection now.
fn due(session: &Session, ctx: &Context<'_>) -> Due {
    let now_ms = ctx.now_ms();
    let (interval_ms, timeout_ms) = (ctx.config.ping_interval_ms, ctx.config.ping_timeout_ms);
    if let Some(at_ms) = session.drain_at_ms
        && now_ms >= at_ms
        && !matches!(session.state, State::Closing)
    {
        return Due::Close(CloseCode::Draining);
    }
    let mut next_ms = u64::MAX;
    match &session.state {
        State::Fresh { since_ms } => {
            let end_ms = since_ms + limits::AUTH_MS_MAX;
            match now_ms >= end_ms {
                true => return Due::Close(CloseCode::Unauthenticated),
                false => return Due::Nothing(end_ms),
            }
        }
        State::Closing => return Due::Nothing(now_ms + interval_ms),
        State::Joining(joining) => {
            // Twice the time of a call: the sign-in, then the rooms.
            let end_ms = joining.since_ms + 2 * limits::SIGN_IN_MS_MAX + 1_000;
            match now_ms >= end_ms {
                true => return Due::Close(CloseCode::Overloaded),
                false => return Due::Nothing(end_ms),
            }
        }
        State::Ready(ready) => {
            let now_unix = ctx.now.unix;
            if now_unix >= ready.expires_at {
                return Due::Close(CloseCode::TokenExpired);
            }
            next_ms = next_ms.min(now_ms + (ready.expires_at.0 - now_unix.0));
        }
    }
    let silent_until_ms = session.heard_ms + interval_ms + timeout_ms;
    if now_ms >= silent_until_ms {
        return Due::Close(CloseCode::PingTimeout);
    }
    let quiet_since_ms = session.heard_ms.min(session.sent_ms).max(session.pinged_ms);
    let ping_at_ms = quiet_since_ms + interval_ms;
    if now_ms >= ping_at_ms {
        return Due::Ping;
    }
    next_ms = next_ms.min(silent_until_ms).min(ping_at_ms);
    if let Some(at_ms) = session.drain_at_ms {
        next_ms = next_ms.min(at_ms);
    }
    Due::Nothing(next_ms)
}

/// Whether a read may begin now.
pub(super) fn may_begin(session: &Session) -> bool {
    session.outbox.bytes() <= limits::OUTBOX_READ_BYTES_MAX
}
