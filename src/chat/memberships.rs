//! Which rooms a connection hears after `ready`, as its user is added and removed.
//!
//! Invariants: a removal takes effect in the step that delivers the room's `member.left`, which is
//! the last event the user gets; an addition is told by the room's home and, if that is lost, by
//! the user's `version` in the store, which is compared every
//! [`limits::HEADS_POLL_MS`]: each connection keeps the version that its rooms are as of.

use super::ConnId;
use super::bus::{Context, Subscribed};
use super::fanout::Subscriber;
use super::port::{RoomForUser, SignIn, StoreAnswer, StoreCall, StoreError};
use super::session::State;
use super::sessions::{Call, Sessions};
use crate::limits;
use crate::protocol::event::{Notice, RoomAdded, RoomRemoved};
use crate::protocol::{RoomId, UserId};

impl Sessions {
    /// The user is no longer a member: this was the last event.
    pub(super) fn left(&mut self, room: RoomId, user: UserId, ctx: &mut Context<'_>) {
        let conns = self.users.get(&user).cloned().unwrap_or_default();
        for conn in conns {
            self.remove_room(conn, room, ctx);
        }
    }

    /// A connection no longer hears a room, and is told so.
    fn remove_room(&mut self, conn: ConnId, room: RoomId, ctx: &mut Context<'_>) {
        let Some(place) = self.index.get(&room).copied() else {
            return;
        };
        let Some(local) = self.rooms.get_mut(place as usize) else {
            return;
        };
        if !local.remove(conn.index) {
            return;
        }
        let mut tell = false;
        if let Some(session) = self.get_mut(conn) {
            match &mut session.state {
                State::Ready(ready) => {
                    ready.rooms.retain(|own| *own != place);
                    ready.replay.retain(|replay| replay.room != room);
                    // The user may be a member again by now, and this connection was told so while
                    // it still had the room.
                    ready.version = 0;
                    tell = true;
                }
                State::Joining(joining) => {
                    joining.answers.insert(room, Subscribed::NotAMember);
                }
                State::Fresh { .. } | State::Closing => (),
            }
        }
        if tell {
            let removed = Notice::RoomRemoved(RoomRemoved { room_id: room });
            self.say_json(conn, &removed.to_json(), ctx);
        }
        self.drop_room_if_unused(place, ctx);
    }

    /// These users became members of the room.
    pub fn added(&mut self, room: RoomId, users: &[UserId], ctx: &mut Context<'_>) {
        for user in users {
            let mut wanted = false;
            for conn in self.users.get(user).cloned().unwrap_or_default() {
                let place = self.index.get(&room).copied();
                match self.get_mut(conn).map(|session| &mut session.state) {
                    Some(State::Joining(joining)) => joining.added.push(room),
                    Some(State::Ready(ready)) => {
                        wanted |= place.is_none_or(|place| !ready.rooms.contains(&place));
                    }
                    Some(State::Fresh { .. } | State::Closing) | None => (),
                }
            }
            if wanted && !self.added.contains(&(room, *user)) {
                self.added.push((room, *user));
            }
        }
        self.read_added(ctx);
    }

    pub(super) fn read_added(&mut self, ctx: &mut Context<'_>) {
        if self.reading_added || self.added.is_empty() {
            return;
        }
        self.reading_added = true;
        let count = self.added.len().min(limits::HEADS_MAX);
        let asked: Vec<(RoomId, UserId)> = self.added.drain(..count).collect();
        let ticket = ctx.call(StoreCall::GetRooms(asked.clone()));
        self.calls.insert(ticket, Call::Added(asked));
    }

    fn add_room(&mut self, user: UserId, room: &RoomForUser, ctx: &mut Context<'_>) {
        let conns = self.users.get(&user).cloned().unwrap_or_default();
        let id = room.room.room_id;
        for conn in conns {
            let place = self.index.get(&id).copied();
            let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state)
            else {
                continue;
            };
            let known = place.is_some_and(|place| ready.rooms.contains(&place))
                || ready.adding.iter().any(|adding| adding.room.room_id == id);
            if !known {
                ready.adding.push(room.clone());
                self.ask_home(conn, user, &[(id, room.room.last_seq, None)], ctx);
            }
        }
    }

    /// A room that the user became a member of while connected.
    pub(super) fn room_added(
        &mut self,
        conn: ConnId,
        place: u32,
        adding: RoomForUser,
        outcome: Subscribed,
        ctx: &mut Context<'_>,
    ) {
        let Subscribed::From { position, .. } = outcome else {
            return self.reconcile_later(conn);
        };
        let RoomForUser { room, own } = adding;
        self.rooms[place as usize]
            .subscribers
            .push(Subscriber::waiting(conn));
        self.rooms[place as usize].go_live(conn);
        if let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) {
            ready.rooms.push(place);
        }
        let added = RoomAdded {
            room,
            last_seq: position,
            read_seq: own.read_seq,
        };
        self.say_json(conn, &Notice::RoomAdded(added).to_json(), ctx);
    }

    /// The rooms that users were added to were read.
    pub(super) fn added_read(
        &mut self,
        asked: &[(RoomId, UserId)],
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        self.reading_added = false;
        if let Ok(StoreAnswer::GetRooms(rooms)) = result {
            for ((_, user), room) in asked.iter().zip(rooms) {
                // Refused: no longer a member.
                if let Ok(room) = room {
                    self.add_room(*user, &room, ctx);
                }
            }
        } else {
            for (_, user) in asked {
                for conn in self.users.get(user).cloned().unwrap_or_default() {
                    self.reconcile_later(conn);
                }
            }
        }
        self.read_added(ctx);
    }

    /// A change of this connection's rooms may have been missed.
    pub(super) fn reconcile_later(&mut self, conn: ConnId) {
        if let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) {
            ready.version = 0;
        }
    }

    /// Begins the next round of comparing users with the store, when it is time.
    pub(super) fn compare_with_store(&mut self, ctx: &mut Context<'_>) {
        let now_ms = ctx.now_ms();
        if now_ms >= self.versions_round_ms + ctx.heads_poll_ms() {
            self.versions_round_ms = now_ms;
            if self.versions_queue.is_empty() {
                self.versions_queue.extend(self.users.keys());
            }
        }
        self.ask_versions(ctx);
    }

    /// The versions of users were read.
    pub(super) fn versions_read(
        &mut self,
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        self.versions_under_way = false;
        if let Ok(StoreAnswer::Heads { users, .. }) = result {
            self.compare_versions(&users, ctx);
        }
    }

    /// The rooms of users of whom something had changed were read.
    pub(super) fn rooms_read(
        &mut self,
        users: &[UserId],
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        let Ok(StoreAnswer::SignIn(signed_in)) = result else {
            return;
        };
        for (user, signed_in) in users.iter().zip(signed_in) {
            for conn in self.users.get(user).cloned().unwrap_or_default() {
                let state = self.get_mut(conn).map(|session| &mut session.state);
                if let Some(State::Ready(ready)) = state {
                    ready.version = ready.version.max(signed_in.version);
                }
            }
            for end in &signed_in.ends {
                self.ended(*end, ctx);
            }
            self.compare_blocks(*user, &signed_in, ctx);
            for room in signed_in.rooms {
                self.added(room.room, &[*user], ctx);
            }
        }
    }

    fn ask_versions(&mut self, ctx: &mut Context<'_>) {
        if self.versions_under_way || self.versions_queue.is_empty() || !ctx.may_read() {
            return;
        }
        self.versions_under_way = true;
        let count = self.versions_queue.len().min(limits::HEADS_MAX);
        let users = self.versions_queue.drain(..count).collect();
        let ticket = ctx.call(StoreCall::Heads {
            rooms: Vec::new(),
            users,
        });
        self.calls.insert(ticket, Call::Versions);
    }

    /// Reads the rooms of users of whom something changed that no event told.
    fn compare_versions(&mut self, users: &[(UserId, u64)], ctx: &mut Context<'_>) {
        let mut sign_ins = Vec::new();
        for (user, version) in users.iter().copied() {
            let conns = self.users.get(&user).map_or(&[][..], Vec::as_slice);
            let behind = conns.iter().any(|conn| match self.get(*conn) {
                Some(session) => match &session.state {
                    State::Ready(ready) => ready.version < version,
                    State::Fresh { .. } | State::Joining(_) | State::Closing => false,
                },
                None => false,
            });
            if behind {
                sign_ins.push(SignIn {
                    user,
                    name: None,
                    picture: None,
                    resume: Vec::new(),
                    describe_max: 0,
                });
            }
        }
        for chunk in sign_ins.chunks(limits::SIGN_IN_USERS_MAX) {
            let users = chunk.iter().map(|sign_in| sign_in.user).collect();
            let ticket = ctx.call(StoreCall::SignIn(chunk.to_vec()));
            self.calls.insert(ticket, Call::Reconcile(users));
        }
        self.ask_versions(ctx);
    }
}
