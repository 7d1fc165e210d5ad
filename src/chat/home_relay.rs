//! What the home of rooms tells other nodes, and hears from them.
//!
//! The relay is a hint. Invariants: a room opens after its bucket is followed, or without it when
//! the relay is away or silent, and in that order: followed, `last_seq` read, gate open; whatever
//! may have been missed meanwhile is found by comparing `last_seq` with the store, which happens
//! always, after every new following at once, and more often while the relay is away.

use super::bus::Context;
use super::gate::Passed;
use super::home::Home;
use super::port::{RelayCall, RelayNews};
use super::presence::PresenceMessage;
use super::service;
use super::{Effect, Peers};
use crate::limits;
use crate::protocol::event::{EncodedEvent, Membership, RoomEvent};
use crate::protocol::relay::{self, RelayMessage};
use crate::protocol::{RoomId, UserId};
use std::collections::VecDeque;
use std::sync::Arc;

/// The buckets that this shard follows.
#[derive(Debug, Default)]
pub struct Follows {
    /// By bucket; few enough that most are there on a busy node.
    buckets: Vec<Option<Box<Follow>>>,
    /// Buckets with rooms that wait for the relay's word.
    waited_for: VecDeque<(u64, u16)>,
    users: bool,
    /// All rooms are compared with the store then, ms.
    pub(super) compare_at_ms: Option<u64>,
    /// Rooms of which an event is missing, and when it is fetched, µs.
    pub(super) gaps: VecDeque<(u64, RoomId)>,
}

#[derive(Debug, Default)]
struct Follow {
    rooms: usize,
    confirmed: bool,
    waiting: Vec<RoomId>,
}

impl Follows {
    fn get_mut(&mut self, bucket: u16) -> Option<&mut Follow> {
        self.buckets.get_mut(usize::from(bucket))?.as_deref_mut()
    }
}

impl Home {
    /// A room is held from now on: follow it, then open it.
    pub(super) fn follow(&mut self, room: RoomId, ctx: &mut Context<'_>) {
        if ctx.config.peers != Peers::Relay {
            self.to_open.push(room);
            return;
        }
        let bucket = room.bucket();
        let place = usize::from(bucket);
        if self.follows.buckets.len() <= place {
            self.follows.buckets.resize_with(place + 1, || None);
        }
        let follow = self.follows.buckets[place].get_or_insert_with(|| {
            call(RelayCall::Follow(bucket), ctx);
            Box::default()
        });
        follow.rooms += 1;
        if follow.confirmed || !ctx.bus.relay_up {
            self.to_open.push(room);
            return;
        }
        if follow.waiting.is_empty() {
            let until_ms = ctx.now_ms() + limits::FOLLOW_MS_MAX;
            self.follows.waited_for.push_back((until_ms, bucket));
        }
        follow.waiting.push(room);
    }

    /// A room is no longer held.
    pub(super) fn unfollow(&mut self, room: RoomId, ctx: &mut Context<'_>) {
        let bucket = room.bucket();
        let Some(follow) = self.follows.get_mut(bucket) else {
            return;
        };
        follow.rooms -= 1;
        follow.waiting.retain(|waiting| *waiting != room);
        if follow.rooms == 0 {
            self.follows.buckets[usize::from(bucket)] = None;
            call(RelayCall::Unfollow(bucket), ctx);
        }
    }

    /// The relay says something.
    pub fn relay_news(&mut self, news: RelayNews, ctx: &mut Context<'_>) {
        match news {
            RelayNews::Up => ctx.bus.relay_up = true,
            RelayNews::Down => {
                ctx.bus.relay_up = false;
                for bucket in 0..self.follows.buckets.len() as u16 {
                    if let Some(follow) = self.follows.get_mut(bucket) {
                        follow.confirmed = false;
                        self.to_open.append(&mut follow.waiting);
                    }
                }
                self.follows.waited_for.clear();
                self.open_rooms(ctx);
            }
            RelayNews::Following(bucket) => {
                if let Some(follow) = self.follows.get_mut(bucket) {
                    follow.confirmed = true;
                    let all_wait = follow.waiting.len() == follow.rooms;
                    self.to_open.append(&mut follow.waiting);
                    if !all_wait {
                        self.compare_soon(ctx);
                    }
                    self.open_rooms(ctx);
                } else if bucket < limits::USERS_BUCKET {
                    call(RelayCall::Unfollow(bucket), ctx);
                }
            }
            RelayNews::Lost => self.compare_soon(ctx),
            RelayNews::Message(bytes) => self.relayed(&bytes, ctx),
        }
    }

    fn relayed(&mut self, bytes: &[u8], ctx: &mut Context<'_>) {
        let Some(relayed) = relay::decode(bytes) else {
            ctx.stats.relay_ignored += 1;
            return;
        };
        if relayed.origin == ctx.config.run {
            return;
        }
        if relayed.epoch != ctx.config.epoch {
            // One of the two nodes has not heard yet that the history was replaced. The store says
            // which.
            ctx.stats.relay_ignored += 1;
            self.compare_soon(ctx);
            return;
        }
        ctx.stats.relay_received += 1;
        match relayed.message {
            RelayMessage::Event(room, event) => {
                if let Some(index) = self.index.get(&room).copied() {
                    self.offer(index, event, Passed::default(), ctx);
                }
            }
            RelayMessage::Head(room, seq) => self.heard_of(room, seq, ctx),
            RelayMessage::Added(room, users) => self.tell_added(room, users.into(), ctx),
            RelayMessage::Block(change) => Self::tell_block(change, ctx),
            RelayMessage::Ended(end) => service::tell_end(end, ctx),
            RelayMessage::Presence { ttl_s, users } => {
                let told = PresenceMessage::Told {
                    origin: relayed.origin,
                    ttl_s,
                    users,
                };
                // The bucket of presence is followed by the users' presence home.
                ctx.tell_presence(ctx.shard, told);
            }
            RelayMessage::Receipts(room, receipts) => self.heard_receipts(room, &receipts),
            RelayMessage::PresenceAsked(users) => {
                ctx.tell_presence_homes(users, PresenceMessage::Asked);
            }
            RelayMessage::ConnectedAsked(users) => {
                ctx.tell_presence_homes(users, PresenceMessage::ConnectedAsked);
            }
            RelayMessage::Connected(users) => {
                let now_ms = ctx.now_ms();
                ctx.bus.elsewhere.heard(&users, now_ms);
            }
            RelayMessage::Typing(room, users) => {
                self.heard_typing(room, relayed.origin, users, ctx);
            }
        }
    }

    /// Tells other nodes of an event of ours.
    pub(super) fn publish(&mut self, room: RoomId, event: &EncodedEvent, ctx: &mut Context<'_>) {
        let message = match event.frame.len() <= limits::RELAY_EVENT_BYTES_MAX {
            true => RelayMessage::Event(room, event.clone()),
            false => RelayMessage::Head(room, event.seq),
        };
        tell(room.bucket(), &message, ctx);
    }

    /// Tells other nodes of new members: of rooms that they may not hold.
    pub(super) fn publish_added(room: RoomId, users: &Arc<[UserId]>, ctx: &mut Context<'_>) {
        if ctx.config.peers == Peers::Relay {
            let message = RelayMessage::Added(room, users.to_vec());
            tell(limits::USERS_BUCKET, &message, ctx);
        }
    }

    /// Who became a member by these events, by room.
    pub(super) fn joined_by(events: &[(RoomEvent, u64)]) -> Vec<(RoomId, Arc<[UserId]>)> {
        let mut joined: Vec<(RoomId, Vec<UserId>)> = Vec::new();
        for (event, _) in events {
            if let Some(Membership::Joined(user)) = event.membership() {
                match joined.last_mut() {
                    Some((room, users)) if *room == event.room_id => users.push(user),
                    _ => joined.push((event.room_id, vec![user])),
                }
            }
        }
        let shared = |(room, users): (RoomId, Vec<UserId>)| (room, users.into());
        joined.into_iter().map(shared).collect()
    }

    /// All rooms are compared with the store in a moment.
    fn compare_soon(&mut self, ctx: &Context<'_>) {
        let at_ms = ctx.now_ms() + limits::FOLLOWED_COMPARE_MS;
        self.follows.compare_at_ms.get_or_insert(at_ms);
    }

    /// Time has passed.
    pub(super) fn tick_relay(&mut self, ctx: &mut Context<'_>) {
        let users_home = limits::USERS_BUCKET % ctx.config.shards == ctx.shard;
        if ctx.config.peers == Peers::Relay && users_home && !self.follows.users {
            self.follows.users = true;
            call(RelayCall::Follow(limits::USERS_BUCKET), ctx);
        }
        let now_ms = ctx.now_ms();
        let mut late = false;
        while let Some((_, bucket)) = self.follows.waited_for.pop_front_if(|it| it.0 <= now_ms) {
            if let Some(follow) = self.follows.get_mut(bucket) {
                late |= !follow.waiting.is_empty();
                self.to_open.append(&mut follow.waiting);
            }
        }
        if late {
            self.open_rooms(ctx);
        }
    }

    /// An event is missing: the relay may still bring it, else it is fetched.
    pub(super) fn mind_the_gap(&mut self, index: usize, ctx: &mut Context<'_>) {
        if ctx.config.peers != Peers::Relay {
            return self.fetch(index, ctx);
        }
        let room = &mut self.rooms[index];
        if !room.gap_noted {
            room.gap_noted = true;
            let at_us = ctx.now.mono_us + limits::GAP_WAIT_US;
            self.follows.gaps.push_back((at_us, room.id));
        }
    }

    /// When [`Home::due`] is to be called, µs.
    pub fn due_us(&self) -> Option<u64> {
        let gap = self.follows.gaps.front().map(|(at_us, _)| *at_us);
        match (gap, self.commits.due_us()) {
            (Some(gap), Some(batch)) => Some(gap.min(batch)),
            (gap, batch) => gap.or(batch),
        }
    }

    /// Its time has come.
    pub fn due(&mut self, ctx: &mut Context<'_>) {
        self.commits.due(ctx);
        let now_us = ctx.now.mono_us;
        while let Some((_, room)) = self.follows.gaps.pop_front_if(|gap| gap.0 <= now_us) {
            let Some(index) = self.index.get(&room).copied() else {
                continue;
            };
            self.rooms[index].gap_noted = false;
            if self.rooms[index].gate.waits() {
                self.fetch(index, ctx);
            }
        }
    }
}

pub(super) fn tell(bucket: u16, message: &RelayMessage, ctx: &mut Context<'_>) {
    ctx.stats.relay_published += 1;
    let bytes = relay::encode(ctx.config.run, ctx.config.epoch, message);
    call(RelayCall::Publish(bucket, bytes), ctx);
}

fn call(call: RelayCall, ctx: &mut Context<'_>) {
    ctx.effects.push(Effect::Relay(call));
}
