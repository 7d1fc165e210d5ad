//! What a block of one user by another changes on a node, beside what the store refuses from then on: the
//! home of their direct room passes on no typing, neither watches the other's presence any more, and the
//! one who did it is told on all connections. Whom it is against is told nothing.
//!
//! Invariant: what is told at once may be lost, and is then found by comparing with the store: the rooms' by
//! what is read with `last_seq`, the users' by their `version`, which a block raises for both.

use super::bus::{Context, MeshMessage};
use super::commands::Refused;
use super::home::Home;
use super::home_relay;
use super::port::{OpKind, SignedIn, StoreAnswer, StoreCall, StoreError};
use super::session::State;
use super::sessions::{Call, Sessions};
use super::{ConnId, Peers};
use crate::limits;
use crate::protocol::block::{BlockChange, BlocksUpdated};
use crate::protocol::event::Notice;
use crate::protocol::relay::RelayMessage;
use crate::protocol::{ErrorCode, RoomId, Seq, UserId};

/// The write of a `user.block` or `user.unblock`, and the room it goes by.
pub(super) fn block_of(
    actor: UserId,
    user: UserId,
    blocked: bool,
) -> Result<(RoomId, OpKind), Refused> {
    if user == actor {
        return Err((ErrorCode::BadRequest, "nobody blocks themselves"));
    }
    let kind = OpKind::SetBlock { user, blocked };
    Ok((RoomId::direct(actor, user), kind))
}

impl Home {
    /// Tells all shards of this node.
    pub(super) fn tell_block(change: BlockChange, ctx: &mut Context<'_>) {
        for shard in 0..ctx.config.shards {
            if ctx.takes_events(shard) {
                ctx.tell(shard, MeshMessage::Block(change));
            }
        }
    }

    /// Tells other nodes.
    pub(super) fn publish_block(change: BlockChange, ctx: &mut Context<'_>) {
        if ctx.config.peers == Peers::Relay {
            let message = RelayMessage::Block(change);
            home_relay::tell(limits::USERS_BUCKET, &message, ctx);
        }
    }

    /// Two users have one block more or less between them.
    pub fn block_changed(&mut self, change: &BlockChange, ctx: &mut Context<'_>) {
        let room = RoomId::direct(change.by, change.user);
        self.set_severed(room, change.severed, ctx);
    }

    /// The store said of these rooms which are severed.
    pub(super) fn severed_are(
        &mut self,
        asked: &[(RoomId, Seq)],
        severed: &[RoomId],
        ctx: &mut Context<'_>,
    ) {
        for (room, _) in asked {
            self.set_severed(*room, severed.contains(room), ctx);
        }
    }

    fn set_severed(&mut self, id: RoomId, severed: bool, ctx: &mut Context<'_>) {
        let Some(room) = self.room_mut(id) else {
            return;
        };
        if std::mem::replace(&mut room.severed, severed) == severed || !severed {
            return;
        }
        // Who was typing a moment ago is told to have stopped, as anybody who stops.
        for user in room.members.clone() {
            self.typing.left(id, user);
        }
        self.tell_typing(id, ctx);
    }
}

impl Sessions {
    /// Two users have one block more or less between them.
    pub fn block_changed(&mut self, change: &BlockChange, ctx: &mut Context<'_>) {
        let updated = BlocksUpdated {
            user_id: Some(change.user),
            blocked: Some(change.blocked),
        };
        self.blocks_updated(change.by, change.version, updated, ctx);
        if change.severed {
            self.unwatch_each_other(change.by, change.user, ctx);
        }
    }

    /// Tells a user's connections, but those that know this or more.
    fn blocks_updated(
        &mut self,
        user: UserId,
        version: u64,
        updated: BlocksUpdated,
        ctx: &mut Context<'_>,
    ) {
        let json = Notice::BlocksUpdated(updated).to_json();
        for conn in self.users.get(&user).cloned().unwrap_or_default() {
            if let Some(State::Ready(ready)) = self.get_mut(conn).map(|it| &mut it.state)
                && ready.block_version < version
            {
                ready.block_version = version;
                self.say_json(conn, &json, ctx);
            }
        }
    }

    fn unwatch_each_other(&mut self, one: UserId, other: UserId, ctx: &mut Context<'_>) {
        for (watcher, watched) in [(one, other), (other, one)] {
            for conn in self.users.get(&watcher).cloned().unwrap_or_default() {
                self.unwatch(conn, &[watched], ctx);
            }
        }
    }

    /// Something changed of a user that no event told: their blocks, or those of others, among it.
    pub(super) fn compare_blocks(
        &mut self,
        user: UserId,
        signed_in: &SignedIn,
        ctx: &mut Context<'_>,
    ) {
        let updated = BlocksUpdated {
            user_id: None,
            blocked: None,
        };
        self.blocks_updated(user, signed_in.block_version, updated, ctx);
        for conn in self.users.get(&user).cloned().unwrap_or_default() {
            for others in self.watched_by(conn).chunks(limits::USERS_PER_REQUEST_MAX) {
                if !ctx.may_read() {
                    self.reconcile_later(conn);
                    break;
                }
                let ticket = ctx.call(StoreCall::WhoShares {
                    user,
                    others: others.to_vec(),
                });
                self.calls
                    .insert(ticket, Call::StillShared(conn, others.to_vec()));
            }
        }
    }

    /// The store said who of those that a connection watches may still be seen.
    pub(super) fn still_shared(
        &mut self,
        conn: ConnId,
        asked: &[UserId],
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        let Ok(StoreAnswer::WhoShares(sharing)) = result else {
            return self.reconcile_later(conn);
        };
        let own = self.get(conn).and_then(|session| session.user());
        let over = asked.iter().copied();
        let over: Vec<UserId> = over
            .filter(|user| Some(*user) != own && !sharing.contains(user))
            .collect();
        self.unwatch(conn, &over, ctx);
    }
}
