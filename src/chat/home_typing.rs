//! How the home of rooms hears and tells who is typing.

use super::bus::{Context, MeshMessage, Write};
use super::home::Home;
use super::load::Load;
use super::port::{OpKind, StoreCall, TypingSample};
use super::{Peers, home_relay};
use crate::protocol::event::{RoomNotice, TypingUpdated};
use crate::protocol::relay::RelayMessage;
use crate::protocol::{RoomId, UnixMs, UserId, websocket};

impl Home {
    /// A user of this node types, or stops. Who hears the room may; its shard has looked.
    pub fn typing(&mut self, room: RoomId, user: UserId, is_typing: bool, ctx: &mut Context<'_>) {
        let held = self.room_mut(room);
        if held.is_some_and(|held| !held.severed) {
            self.typing.say(room, user, is_typing, ctx.now_ms());
            self.tell_typing(room, ctx);
        }
    }

    /// Users of another node type, and no others of it.
    pub(super) fn heard_typing(
        &mut self,
        room: RoomId,
        origin: u64,
        users: Vec<UserId>,
        ctx: &mut Context<'_>,
    ) {
        let Some(index) = self.index.get(&room) else {
            return;
        };
        if self.rooms[*index].severed {
            return;
        }
        let members = &self.rooms[*index].members;
        let is_member = |user: &UserId| members.binary_search(user).is_ok();
        let users = users.into_iter().filter(is_member).collect();
        self.typing.heard(room, origin, users, ctx.now_ms());
        self.tell_typing(room, ctx);
    }

    /// Who sends a message has finished typing it.
    pub(super) fn typed(&mut self, write: &Write, ctx: &Context<'_>) {
        if matches!(write.op.kind, OpKind::Send { .. }) {
            let (room, user) = (write.op.room, write.op.actor);
            self.typing.say(room, user, false, ctx.now_ms());
        }
    }

    /// Time has passed.
    pub(super) fn tick_typing(&mut self, ctx: &mut Context<'_>) {
        for room in self.typing.rooms() {
            self.tell_typing(room, ctx);
        }
        let sample = self.typing.sample(ctx.now_ms());
        // The first thing that is given up.
        if sample.is_empty() || ctx.bus.load >= Load::NoTyping || ctx.bus.store_away {
            return;
        }
        let unix = ctx.now.unix;
        let sample = sample
            .into_iter()
            .map(|(room, user, left_ms)| TypingSample {
                room,
                user,
                expires_at: UnixMs(unix.0 + left_ms),
            });
        // Nobody waits for the answer.
        ctx.call(StoreCall::SampleTyping(sample.collect()));
    }

    pub(super) fn tell_typing(&mut self, id: RoomId, ctx: &mut Context<'_>) {
        let telling = self.typing.tell(id, ctx.now_ms());
        if let (Some(users), true) = (telling.elsewhere, ctx.config.peers == Peers::Relay) {
            home_relay::tell(id.bucket(), &RelayMessage::Typing(id, users), ctx);
        }
        let Some(user_ids) = telling.here else {
            return;
        };
        let nobody = user_ids.is_empty();
        let notice = RoomNotice::TypingUpdated {
            room_id: id,
            data: TypingUpdated { user_ids },
        };
        let frame = websocket::encode_text(&notice.to_json());
        let room = self.room_mut(id);
        let mut is_told = true;
        for listener in room.map_or(&[][..], |room| &room.listeners) {
            if ctx.takes_events(listener.shard) {
                let notice = MeshMessage::Notice {
                    room: id,
                    frame: frame.clone(),
                    nobody,
                };
                ctx.tell(listener.shard, notice);
            } else {
                is_told = false;
            }
        }
        if !is_told {
            self.typing.tell_again(id, ctx.now_ms());
        }
    }
}
