//! The connections of a shard and presence: how each wants to be seen, and whom it watches.
//!
//! Invariants: a connection watches only users who shared a room with its user when it asked, each until
//! [`limits::PRESENCE_WATCH_MS`] later, or until one of the two blocks the other; others are told as offline, like somebody who was never there. Nothing
//! of presence closes a connection: while one does not read, or the shard has too much to do, its changes
//! wait, the newest of each user.
//! A change is never told before the snapshot that it is newer than.

use super::bus::Context;
use super::commands::Refused;
use super::frame::{Class, Frame};
use super::load::Load;
use super::map::{Map, Seeded};
use super::port::{StoreAnswer, StoreError};
use super::presence::PresenceMessage;
use super::session::{Read, State};
use super::sessions::Sessions;
use super::{ConnId, ShardIx};
use crate::limits;
use crate::protocol::event::Notice;
use crate::protocol::presence::{
    PresenceChoice, PresenceIs, PresenceSnapshot, PresenceState, PresenceUpdated, UserPresence,
};
use crate::protocol::{ErrorCode, RequestId, UnixMs, UserId, reply};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Whom the connections of a shard watch.
#[derive(Debug)]
pub struct Watches {
    users: Map<UserId, Watched>,
    /// Who watches, each once, in the order in which it is looked whether that ends.
    watchers: VecDeque<ConnId>,
    /// Who is to be told of changes, each once.
    behind: Vec<ConnId>,
    told_ms: u64,
}

#[derive(Debug, Default)]
struct Watched {
    /// Questions to the presence home without an answer.
    asked: u32,
    connections: Vec<ConnId>,
}

/// What a connection watches.
#[derive(Debug, Default)]
pub struct Watching {
    users: BTreeMap<UserId, Watch>,
    /// Changes it was not told yet.
    changes: BTreeMap<UserId, UserPresence>,
    /// A request that waits for presence homes.
    asking: Option<Asking>,
    /// Those of the request under way who may still be seen: a block may come to be known before what the
    /// store or a home said of a time without it.
    pending: BTreeSet<UserId>,
    /// It is among those who are looked at in turn.
    listed: bool,
}

/// One user whom a connection watches.
#[derive(Clone, Copy, Debug)]
struct Watch {
    until_ms: u64,
    /// As what the connection was last told to see them.
    told: PresenceState,
}

#[derive(Debug)]
struct Asking {
    request: Option<RequestId>,
    until_ms: u64,
    /// Homes without an answer.
    homes: usize,
    found: Vec<UserPresence>,
}

/// How somebody is told of whom nothing may be known.
fn unknown(user_id: UserId) -> UserPresence {
    UserPresence {
        user_id,
        state: PresenceState::Offline,
        last_seen_at: None,
    }
}

impl Watches {
    /// Nobody.
    pub fn new(seed: u64) -> Watches {
        Watches {
            users: Map::with_hasher(Seeded::with_seed(seed)),
            watchers: VecDeque::new(),
            behind: Vec::new(),
            told_ms: 0,
        }
    }

    #[cfg(test)]
    pub(super) fn watchers(&self) -> usize {
        self.watchers.len()
    }

    /// Forgets those of these users whom nobody watches, and says so to their homes.
    fn drop_unwatched(&mut self, users: impl IntoIterator<Item = UserId>, ctx: &mut Context<'_>) {
        let mut unwatched = Vec::new();
        for user in users {
            let watched = self.users.get(&user);
            if watched.is_some_and(|own| own.asked == 0 && own.connections.is_empty()) {
                self.users.remove(&user);
                unwatched.push(user);
            }
        }
        ctx.tell_presence_homes(unwatched, PresenceMessage::Unwatch);
    }

    fn remove(&mut self, conn: ConnId, users: &[UserId], ctx: &mut Context<'_>) {
        for user in users {
            if let Some(watched) = self.users.get_mut(user) {
                watched.connections.retain(|own| *own != conn);
            }
        }
        self.drop_unwatched(users.iter().copied(), ctx);
    }
}

impl Sessions {
    /// Another shard, or this one, tells something about presence.
    pub fn presence_message(
        &mut self,
        from: ShardIx,
        message: PresenceMessage,
        ctx: &mut Context<'_>,
    ) {
        match message {
            PresenceMessage::Is(user, conn, choice) => {
                self.presence.is(user, (from, conn), choice, ctx);
            }
            PresenceMessage::Gone(user, conn) => self.presence.gone(user, (from, conn), ctx),
            PresenceMessage::Watch(conn, users) => self.presence.watch(from, conn, &users, ctx),
            PresenceMessage::Unwatch(users) => self.presence.unwatch(from, &users, ctx),
            PresenceMessage::Asked(users) => self.presence.asked(&users, ctx),
            PresenceMessage::ConnectedAsked(users) => {
                self.presence.tell_connected(users, ctx);
            }
            PresenceMessage::Told {
                origin,
                ttl_s,
                users,
            } => self.presence.told(origin, ttl_s, &users, ctx),
            PresenceMessage::Snapshot(conn, users) => self.presence_snapshot(conn, &users, ctx),
            PresenceMessage::Changed(users) => self.presence_changed(&users),
        }
    }

    /// A connection became ready: its user is seen, unless it says otherwise at once.
    pub(super) fn arrive(&mut self, conn: ConnId, user: UserId, ctx: &mut Context<'_>) {
        let is = PresenceMessage::Is(user, conn, PresenceChoice::default());
        ctx.tell_presence(ctx.presence_home(user), is);
    }

    /// A connection that was ready is gone.
    pub(super) fn depart(
        &mut self,
        conn: ConnId,
        user: UserId,
        watching: Option<Box<Watching>>,
        ctx: &mut Context<'_>,
    ) {
        ctx.tell_presence(ctx.presence_home(user), PresenceMessage::Gone(user, conn));
        if let Some(watching) = watching {
            let users: Vec<UserId> = watching.users.into_keys().collect();
            self.watches.remove(conn, &users, ctx);
        }
    }

    /// `presence.set`.
    pub(super) fn choose_presence(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        state: PresenceChoice,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return Ok(());
        };
        let user = ready.user;
        let changed = std::mem::replace(&mut ready.presence, state) != state;
        if changed {
            let is = PresenceMessage::Is(user, conn, state);
            ctx.tell_presence(ctx.presence_home(user), is);
        }
        if let Some(id) = request {
            self.say_json(conn, &reply::ack(id, &PresenceIs { state, changed }), ctx);
        }
        Ok(())
    }

    /// `presence.subscribe`: first the store is asked whom of them the user may see.
    pub(super) fn watch(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        users: Vec<UserId>,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return Ok(());
        };
        if ready.reads.len() >= limits::READS_WAITING_MAX {
            return Err((ErrorCode::RateLimited, "too many reads are waiting"));
        }
        ready.reads.push_back((request, Read::Presence(users)));
        self.go_on_reading(conn, ctx);
        Ok(())
    }

    /// The store is asked for these.
    pub(super) fn begin_watch(&mut self, conn: ConnId, users: &[UserId]) {
        if let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) {
            let watching = ready.watching.get_or_insert_default();
            watching.pending = users.iter().copied().collect();
        }
    }

    /// The store said who of them shares a room with the user: their homes are asked.
    pub(super) fn shared_read(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        asked: &[UserId],
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        if let Err((code, message)) = self.ask_presence(conn, request, asked, result, ctx) {
            if let Some(State::Ready(ready)) = self.get_mut(conn).map(|it| &mut it.state) {
                ready.reading = false;
                let is_unused = |watching: &mut Box<Watching>| {
                    watching.pending.clear();
                    watching.users.is_empty() && watching.changes.is_empty() && !watching.listed
                };
                ready.watching.take_if(is_unused);
            }
            self.refuse(conn, request, code, message, ctx);
            self.go_on_reading(conn, ctx);
        }
    }

    fn ask_presence(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        asked: &[UserId],
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let sharing: BTreeSet<UserId> = match result {
            Ok(StoreAnswer::WhoShares(users)) => users.into_iter().collect(),
            Err(StoreError::Overloaded) => {
                return Err((ErrorCode::Overloaded, "the store is busy"));
            }
            Ok(_) | Err(StoreError::Unavailable(_)) => {
                return Err((ErrorCode::Unavailable, "the store does not answer"));
            }
        };
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return Ok(());
        };
        let user = ready.user;
        let watching = ready.watching.get_or_insert_default();
        let may_see = |other: &UserId| {
            *other == user || sharing.contains(other) && watching.pending.contains(other)
        };
        let (seen, hidden): (Vec<UserId>, Vec<UserId>) = asked.iter().copied().partition(may_see);
        let homes: BTreeSet<ShardIx> = seen.iter().map(|other| ctx.presence_home(*other)).collect();
        if !homes.iter().all(|home| ctx.takes_writes(*home)) {
            return Err((ErrorCode::Overloaded, "too many requests are waiting"));
        }
        let watching = ready.watching.get_or_insert_default();
        let more = (seen.iter()).filter(|other| !watching.users.contains_key(other));
        if watching.users.len() + more.count() > limits::PRESENCE_WATCHED_MAX {
            return Err((ErrorCode::TooLarge, "too many users are watched"));
        }
        watching.asking = Some(Asking {
            request,
            until_ms: ctx.now_ms() + limits::PRESENCE_WATCH_MS,
            homes: homes.len(),
            found: hidden.into_iter().map(unknown).collect(),
        });
        for other in &seen {
            self.watches.users.entry(*other).or_default().asked += 1;
        }
        if seen.is_empty() {
            self.say_snapshot(conn, ctx);
        }
        ctx.tell_presence_homes(seen, |users| PresenceMessage::Watch(conn, users));
        Ok(())
    }

    /// A presence home answered.
    fn presence_snapshot(&mut self, conn: ConnId, users: &[UserPresence], ctx: &mut Context<'_>) {
        let mut new = Vec::new();
        let (mut complete, mut begins) = (false, false);
        if let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state)
            && let Some(watching) = &mut ready.watching
            && let Some(asking) = &mut watching.asking
        {
            let own = ready.user;
            for presence in users {
                let user = presence.user_id;
                if user != own && !watching.pending.contains(&user) {
                    asking.found.push(unknown(user));
                    continue;
                }
                let watch = Watch {
                    until_ms: asking.until_ms,
                    told: presence.state,
                };
                if watching.users.insert(user, watch).is_none() {
                    new.push(user);
                }
                watching.changes.remove(&user);
                asking.found.push(*presence);
            }
            if !watching.users.is_empty() {
                begins = !std::mem::replace(&mut watching.listed, true);
            }
            asking.homes -= 1;
            complete = asking.homes == 0;
        }
        if begins {
            self.watches.watchers.push_back(conn);
        }
        for presence in users {
            if let Some(watched) = self.watches.users.get_mut(&presence.user_id) {
                watched.asked -= 1;
            }
        }
        for user in new {
            if let Some(watched) = self.watches.users.get_mut(&user) {
                watched.connections.push(conn);
            }
        }
        // Of those whose connection is gone by now.
        let asked = users.iter().map(|presence| presence.user_id);
        self.watches.drop_unwatched(asked, ctx);
        if complete {
            self.say_snapshot(conn, ctx);
        }
    }

    /// All homes have answered.
    fn say_snapshot(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return;
        };
        ready.reading = false;
        let asking = ready.watching.as_mut().and_then(|own| {
            own.pending.clear();
            own.asking.take()
        });
        if let Some(Asking {
            request: Some(id),
            until_ms,
            mut found,
            ..
        }) = asking
        {
            found.sort_by_key(|presence| presence.user_id);
            let left_ms = until_ms.saturating_sub(ctx.now_ms());
            let snapshot = PresenceSnapshot {
                users: found,
                until: UnixMs(ctx.now.unix.0 + left_ms),
            };
            self.say_json(conn, &reply::ack(id, &snapshot), ctx);
        }
        self.go_on_reading(conn, ctx);
    }

    /// Whom a connection watches, or is about to.
    pub(super) fn watched_by(&self, conn: ConnId) -> Vec<UserId> {
        let watched: BTreeSet<UserId> = match self.get(conn).map(|session| &session.state) {
            Some(State::Ready(ready)) => (ready.watching.iter())
                .flat_map(|watching| watching.users.keys().chain(&watching.pending))
                .copied()
                .collect(),
            _ => BTreeSet::new(),
        };
        watched.into_iter().collect()
    }

    /// A connection may not see these any more: it is told as if they had gone.
    pub(super) fn unwatch(&mut self, conn: ConnId, users: &[UserId], ctx: &mut Context<'_>) {
        let mut over = Vec::new();
        if let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state)
            && let Some(watching) = &mut ready.watching
        {
            let was_behind = !watching.changes.is_empty();
            for user in users {
                watching.pending.remove(user);
                let Some(watch) = watching.users.remove(user) else {
                    continue;
                };
                watching.changes.remove(user);
                if watch.told != PresenceState::Offline {
                    watching.changes.insert(*user, unknown(*user));
                }
                over.push(*user);
            }
            if !was_behind && !watching.changes.is_empty() {
                self.watches.behind.push(conn);
            }
        }
        self.watches.remove(conn, &over, ctx);
    }

    /// A presence home tells of changes.
    fn presence_changed(&mut self, users: &[UserPresence]) {
        for presence in users {
            let Some(watched) = self.watches.users.get(&presence.user_id) else {
                continue;
            };
            for conn in &watched.connections {
                let Some(Some(session)) = self.table.get_mut(conn.index as usize) else {
                    continue;
                };
                if let State::Ready(ready) = &mut session.state
                    && session.generation == conn.generation
                    && let Some(watching) = &mut ready.watching
                {
                    if watching.changes.is_empty() {
                        self.watches.behind.push(*conn);
                    }
                    watching.changes.insert(presence.user_id, *presence);
                }
            }
        }
    }

    /// Time has passed.
    pub(super) fn tick_presence(&mut self, ctx: &mut Context<'_>) {
        self.presence.tick(ctx);
        let now_ms = ctx.now_ms();
        let calm = ctx.bus.load < Load::NoPresence;
        if calm && now_ms >= self.watches.told_ms + limits::PRESENCE_COALESCE_MS {
            self.watches.told_ms = now_ms;
            self.tell_changes(ctx);
        }
        // Everybody is looked at within 16 s.
        for _ in 0..self.watches.watchers.len().div_ceil(64) {
            let Some(conn) = self.watches.watchers.pop_front() else {
                break;
            };
            let mut over = Vec::new();
            if let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state)
                && let Some(watching) = &mut ready.watching
            {
                let ended = watching
                    .users
                    .extract_if(.., |_, watch| watch.until_ms <= now_ms);
                over.extend(ended.map(|(user, _)| user));
                for user in &over {
                    watching.changes.remove(user);
                }
                watching.listed = !watching.users.is_empty() || !watching.changes.is_empty();
                let begins = watching.asking.is_some() || !watching.pending.is_empty();
                if watching.listed {
                    self.watches.watchers.push_back(conn);
                } else if !begins {
                    ready.watching = None;
                }
            }
            self.watches.remove(conn, &over, ctx);
        }
    }

    /// Tells every connection that reads of the changes it was not told.
    fn tell_changes(&mut self, ctx: &mut Context<'_>) {
        for conn in std::mem::take(&mut self.watches.behind) {
            let Some(session) = self.get_mut(conn) else {
                continue;
            };
            let slow = session.outbox.bytes() > limits::PRESENCE_OUTBOX_BYTES_MAX;
            let State::Ready(ready) = &mut session.state else {
                continue;
            };
            let Some(watching) = &mut ready.watching else {
                continue;
            };
            if slow || watching.asking.is_some() {
                if !watching.changes.is_empty() {
                    self.watches.behind.push(conn);
                }
                continue;
            }
            let changes = std::mem::take(&mut watching.changes);
            for (user, change) in &changes {
                if let Some(watch) = watching.users.get_mut(user) {
                    watch.told = change.state;
                }
            }
            let changes: Vec<UserPresence> = changes.into_values().collect();
            for users in changes.chunks(limits::USERS_PER_REQUEST_MAX) {
                let updated = PresenceUpdated {
                    users: users.to_vec(),
                };
                let json = Notice::PresenceUpdated(updated).to_json();
                self.say(conn, &Frame::text(&json, Class::Ephemeral), ctx);
            }
        }
    }
}
