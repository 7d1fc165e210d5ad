//! What rooms are to a user alone, as its connections change it and are told: receipts, muted, archived,
//! unread.
//!
//! Invariants: nothing here closes a connection, and what waits is bounded: a receipt is a hint, and is told
//! again by `ready` and `room.get`. A user's other devices are told what the store says once it is written,
//! never what was asked for.

use super::bus::{Context, GivenReceipts, MeshMessage, ToldReceipts};
use super::commands::Refused;
use super::frame::{Class, Frame, Stamps};
use super::load::Load;
use super::port::{OwnChange, OwnState, StoreAnswer, StoreCall, StoreError};
use super::session::{Read, Session, State};
use super::sessions::{Call, Sessions, append};
use super::{ConnId, ShardIx};
use crate::limits;
use crate::protocol::event::{Notice, UnreadUpdated};
use crate::protocol::reply::Changed;
use crate::protocol::request::{ReceiptMarks, RoomArchive, RoomMute};
use crate::protocol::view::Watermark;
use crate::protocol::{ErrorCode, RequestId, RoomId, UnixMs, UserId, reply};
use std::collections::BTreeMap;

/// What is to be read of rooms, to be told to their users' devices: all but this one.
pub type OwnDue = BTreeMap<(RoomId, UserId), Option<ConnId>>;

impl Sessions {
    /// `receipt.delivered` or `receipt.read`: each room's home is told. A hint, so nobody waits for it.
    pub(super) fn receipts(
        &mut self,
        conn: ConnId,
        user: UserId,
        marks: ReceiptMarks,
        is_read: bool,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        if marks.rooms.len() > limits::RECEIPT_ROOMS_MAX {
            return Err((ErrorCode::TooLarge, "too many rooms in one request"));
        }
        let mut by_home: BTreeMap<ShardIx, Vec<_>> = BTreeMap::new();
        for (room, seq) in marks.rooms {
            by_home
                .entry(ctx.home_of(room))
                .or_default()
                .push((room, seq));
        }
        let mut result = Ok(());
        for (home, rooms) in by_home {
            if !ctx.takes_writes(home) {
                result = Err((ErrorCode::Overloaded, "the home of a room is busy"));
            } else {
                let given = GivenReceipts {
                    user,
                    by: (ctx.shard, conn),
                    is_read,
                    rooms,
                };
                ctx.tell(home, MeshMessage::Receipts(Box::new(given)));
            }
        }
        result
    }

    /// `room.mute`.
    pub(super) fn mute(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        mute: RoomMute,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let until = mute.until.unwrap_or(Some(UnixMs::FOR_GOOD));
        let until = until.filter(|until| *until > ctx.now.unix);
        self.set_own(conn, request, mute.room_id, OwnChange::Mute(until), ctx)
    }

    /// `room.archive`.
    pub(super) fn archive(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        archive: RoomArchive,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let change = OwnChange::Archive(archive.archived.unwrap_or(true));
        self.set_own(conn, request, archive.room_id, change, ctx)
    }

    /// In the order of the connection's reads, so that a read after it sees it.
    fn set_own(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        room: RoomId,
        change: OwnChange,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        self.queue_read(conn, request, Read::SetOwn(room, change), ctx)
    }

    /// The store answered a change.
    pub(super) fn own_set(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        room_id: RoomId,
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        let user = self.get(conn).and_then(Session::user);
        let Some(user) = user.or_else(|| self.guest_user(conn)) else {
            return;
        };
        if !self.has_read(conn) {
            return;
        }
        match result {
            Ok(StoreAnswer::SetOwn(Ok(changed))) => {
                let home = ctx.home_of(room_id);
                if changed && ctx.takes_writes(home) {
                    ctx.tell(home, MeshMessage::OwnChanged(room_id, user, conn));
                }
                if let Some(id) = request {
                    let seq = None;
                    let changed = Changed {
                        room_id,
                        changed,
                        seq,
                    };
                    self.say_json(conn, &reply::ack(id, &changed), ctx);
                }
            }
            Ok(StoreAnswer::SetOwn(Err(refusal))) => {
                self.refuse(conn, request, refusal.code, refusal.message, ctx);
            }
            Err(StoreError::Overloaded) => {
                self.refuse(
                    conn,
                    request,
                    ErrorCode::Overloaded,
                    "the store is busy",
                    ctx,
                );
            }
            Ok(_) | Err(StoreError::Unavailable(_)) => {
                let message = "the store does not answer";
                self.refuse(conn, request, ErrorCode::Unavailable, message, ctx);
            }
        }
        self.go_on_reading(conn, ctx);
    }

    /// The home of a room tells how far members are: others are told so, their own devices what the room is
    /// to them.
    pub fn receipts_told(&mut self, receipts: &ToldReceipts, ctx: &mut Context<'_>) {
        for told in &receipts.told {
            if let Some(frame) = &told.frame {
                self.tell_receipt(receipts.room, told.mark, frame.clone(), ctx);
            }
            let user = told.mark.user_id;
            if !told.is_own_changed || !self.users.contains_key(&user) {
                continue;
            }
            let by = told.by.filter(|(shard, _)| *shard == ctx.shard);
            let by = by.map(|(_, conn)| conn);
            let waits = self.own_due.len() >= limits::OWN_STATES_WAITING_MAX;
            match self.own_due.get_mut(&(receipts.room, user)) {
                Some(other) => *other = other.filter(|other| Some(*other) == by),
                None if waits => (),
                None => {
                    self.own_due.insert((receipts.room, user), by);
                }
            }
        }
        self.read_own(ctx);
    }

    /// Tells a receipt to all who hear the room but its user.
    fn tell_receipt(
        &mut self,
        room: RoomId,
        mark: Watermark,
        bytes: Box<[u8]>,
        ctx: &mut Context<'_>,
    ) {
        let Some(place) = self.index.get(&room).copied() else {
            return;
        };
        let bytes_max = self.outbox_bytes_max(ctx);
        let Some(local) = self.rooms.get(place as usize) else {
            return;
        };
        let class = Class::Coalescible(key_of(room, mark.user_id));
        let frame = Frame::encoded(bytes, class, Stamps::default());
        for subscriber in &local.subscribers {
            let index = subscriber.index();
            let Some(Some(session)) = self.table.get_mut(index as usize) else {
                continue;
            };
            match &mut session.state {
                State::Ready(ready) if ready.user != mark.user_id => (),
                State::Joining(joining) => {
                    if joining.receipts.len() < limits::RECEIPTS_EARLY_MAX {
                        joining.receipts.push((room, mark));
                    }
                    continue;
                }
                State::Ready(_) | State::Fresh { .. } | State::Closing => continue,
            }
            let conn = ConnId {
                index,
                generation: session.generation,
            };
            if session.outbox.bytes() > limits::RECEIPT_OUTBOX_BYTES_MAX {
                ctx.stats.frames_dropped += 1;
                continue;
            }
            ctx.stats.receipts_told += 1;
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

    /// Reads what rooms are to users of whom another device is connected here; one call at a time.
    pub(super) fn read_own(&mut self, ctx: &mut Context<'_>) {
        if self.reading_own || self.own_due.is_empty() || !ctx.may_read() {
            return;
        }
        if ctx.bus.load >= Load::NoReceipts {
            return;
        }
        let mut asked = Vec::new();
        while asked.len() < limits::HEADS_MAX
            && let Some(((room, user), by)) = self.own_due.pop_first()
        {
            let conns = self.users.get(&user).map_or(&[][..], Vec::as_slice);
            if conns.iter().any(|conn| Some(*conn) != by) {
                asked.push((room, user, by));
            }
        }
        if asked.is_empty() {
            return;
        }
        self.reading_own = true;
        let questions = asked.iter().map(|(room, user, _)| (*room, *user)).collect();
        let ticket = ctx.call(StoreCall::OwnStates(questions));
        self.calls.insert(ticket, Call::Own(asked));
    }

    /// The store answered.
    pub(super) fn own_read(
        &mut self,
        asked: &[(RoomId, UserId, Option<ConnId>)],
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        self.reading_own = false;
        let states = match result {
            Ok(StoreAnswer::OwnStates(states)) => states,
            _ => Vec::new(),
        };
        for ((room, user, by), state) in asked.iter().zip(states) {
            if let Some(state) = state {
                self.tell_own(*room, *user, *by, &state, ctx);
            }
        }
        self.read_own(ctx);
    }

    fn tell_own(
        &mut self,
        room_id: RoomId,
        user: UserId,
        by: Option<ConnId>,
        state: &OwnState,
        ctx: &mut Context<'_>,
    ) {
        let own = state.view(ctx.now.unix);
        let updated = Notice::UnreadUpdated(UnreadUpdated { room_id, own });
        let class = Class::Coalescible(key_of(room_id, user).rotate_left(1));
        let frame = Frame::text(&updated.to_json(), class);
        for conn in self.users.get(&user).cloned().unwrap_or_default() {
            let is_ready = |state: &State| matches!(state, State::Ready(_));
            let hears = self
                .get(conn)
                .is_some_and(|session| is_ready(&session.state));
            if hears && Some(conn) != by {
                self.say(conn, &frame, ctx);
            }
        }
    }
}

/// What is the same of two frames of which only the newer matters.
fn key_of(room: RoomId, user: UserId) -> u64 {
    let ((a, b), (c, d)) = (room.0.as_u64_pair(), user.0.as_u64_pair());
    let mixed = (a ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
    (mixed ^ c ^ d).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1
}
