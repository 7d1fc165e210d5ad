//! What a presence home tells other nodes, and hears from them.
//!
//! A node asks all others, by the bucket that everybody follows, for the users that are watched on it, again and
//! again; each answers by the buckets of those users, which only nodes follow on which somebody of them is
//! watched. So presence costs the relay nothing where nobody looks, and every answer confirms the ones before.
//! A change is told at once in buckets that were asked for lately.

use super::Effect;
use super::Peers;
use super::bus::Context;
use super::port::{RelayCall, RelayNews};
use super::presence::{Elsewhere, Presence, place};
use crate::limits;
use crate::protocol::UserId;
use crate::protocol::presence::{PresenceState, UserPresence};
use crate::protocol::relay::{self, RelayMessage};
use std::collections::BTreeSet;

impl Presence {
    /// Another node asks for these users: it is told of those who are known here, and for a while of
    /// every change in their buckets.
    pub fn asked(&mut self, users: &[UserId], ctx: &Context<'_>) {
        let until_ms = ctx.now_ms() + limits::PRESENCE_WANTED_MS;
        for user in users {
            self.buckets[place(*user)].wanted_until_ms = until_ms;
            let known = self.people.get(user).is_some_and(|person| {
                person.settled != PresenceState::Offline || person.seen_here_at.is_some()
            });
            if known {
                self.to_tell.insert(*user);
            }
        }
    }

    /// Another node says how these users are seen by their connections to it.
    pub fn told(&mut self, origin: u64, ttl_s: u16, users: &[UserPresence], ctx: &Context<'_>) {
        let ttl_ms = u64::from(ttl_s.min(2 * limits::PRESENCE_TTL_S)) * 1_000;
        for presence in users {
            let user = presence.user_id;
            let Some(person) = self.people.get_mut(&user) else {
                continue;
            };
            if person.watchers.is_empty() {
                continue;
            }
            person.elsewhere.retain(|node| node.origin != origin);
            if presence.state != PresenceState::Offline {
                if person.elsewhere.len() < limits::PRESENCE_NODES_MAX {
                    person.elsewhere.push(Elsewhere {
                        origin,
                        state: presence.state,
                        heard_at: ctx.now.unix,
                        until_ms: ctx.now_ms() + ttl_ms,
                    });
                }
            } else {
                person.seen_elsewhere_at = person.seen_elsewhere_at.max(presence.last_seen_at);
            }
            self.note(user);
            self.remind(user);
        }
    }

    /// Another node asks which of these users have a connection: it is told of those who have, whatever they chose to
    /// be seen as. It is no answer to a user.
    pub fn tell_connected(&self, mut users: Vec<UserId>, ctx: &mut Context<'_>) {
        users.retain(|user| self.is_connected(*user));
        if !users.is_empty() {
            publish(limits::USERS_BUCKET, &RelayMessage::Connected(users), ctx);
        }
    }

    /// The relay says something.
    pub fn relay_news(&mut self, news: &RelayNews, ctx: &Context<'_>) {
        match news {
            RelayNews::Down => {
                for bucket in &mut self.buckets {
                    bucket.confirmed = false;
                }
            }
            RelayNews::Following(bucket) => {
                let place = bucket.checked_sub(limits::PRESENCE_BUCKET);
                let bucket = place.and_then(|place| self.buckets.get_mut(usize::from(place)));
                if let Some(bucket) = bucket
                    && !bucket.watched.is_empty()
                {
                    bucket.confirmed = true;
                    bucket.ask_at_ms = ctx.now_ms();
                }
            }
            RelayNews::Up | RelayNews::Lost | RelayNews::Message(_) => (),
        }
    }

    /// Asks the other nodes for those who are new, and now and then for everybody who is watched.
    pub(super) fn ask(&mut self, ctx: &mut Context<'_>) {
        if ctx.config.peers != Peers::Relay {
            return;
        }
        let now_ms = ctx.now_ms();
        let mut wait = BTreeSet::new();
        for user in std::mem::take(&mut self.to_ask) {
            // Until the bucket is followed the answer would be lost; then all are asked for.
            if self.buckets[place(user)].confirmed {
                wait.insert(user);
            }
        }
        for bucket in &mut self.buckets {
            if bucket.confirmed && bucket.ask_at_ms <= now_ms {
                bucket.ask_at_ms = now_ms + limits::PRESENCE_ASK_MS;
                wait.extend(&bucket.watched);
            }
        }
        let users: Vec<UserId> = wait.into_iter().collect();
        for users in users.chunks(limits::PRESENCE_USERS_PER_MESSAGE) {
            let message = RelayMessage::PresenceAsked(users.to_vec());
            publish(limits::USERS_BUCKET, &message, ctx);
        }
    }

    /// Tells other nodes of those they asked for, and of what changed.
    pub(super) fn tell(&mut self, ctx: &mut Context<'_>) {
        let mut by_bucket: Vec<(u16, Vec<UserPresence>)> = Vec::new();
        let mut users: Vec<UserId> = std::mem::take(&mut self.to_tell).into_iter().collect();
        users.sort_by_key(|user| user.presence_bucket());
        for user in users {
            let Some(person) = self.people.get(&user) else {
                continue;
            };
            let (bucket, seen) = (user.presence_bucket(), person.seen_here(user));
            match by_bucket.last_mut() {
                Some((last, users))
                    if *last == bucket && users.len() < limits::PRESENCE_USERS_PER_MESSAGE =>
                {
                    users.push(seen);
                }
                _ => by_bucket.push((bucket, vec![seen])),
            }
        }
        for (bucket, users) in by_bucket {
            let ttl_s = limits::PRESENCE_TTL_S;
            publish(bucket, &RelayMessage::Presence { ttl_s, users }, ctx);
        }
    }
}

fn publish(bucket: u16, message: &RelayMessage, ctx: &mut Context<'_>) {
    ctx.stats.relay_published += 1;
    let bytes = relay::encode(ctx.config.run, ctx.config.epoch, message);
    ctx.effects
        .push(Effect::Relay(RelayCall::Publish(bucket, bytes)));
}
