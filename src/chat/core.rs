//! One shard's state, and the step that changes it: the router between the connections
//! ([`super::sessions`]) and the rooms this shard is home to ([`super::home`]).

use super::bus::{Bus, Context, Local, MeshMessage};
use super::home::Home;
use super::load::Load;
use super::outbox::Outbox;
use super::port::{StoreAnswer, StoreError, StoreReply, Ticket};
use super::sessions::Sessions;
use super::stats::Stats;
use super::{ConnId, CoreConfig, Effect, Input, Now, ShardIx};
use crate::protocol::Epoch;
use std::collections::VecDeque;

/// One shard's state.
#[derive(Debug)]
pub struct ShardCore {
    config: CoreConfig,
    shard: ShardIx,
    sessions: Sessions,
    home: Home,
    bus: Bus,
    stats: Stats,
    drained: bool,
    /// Calls before this one were made when the history was another one.
    first_ticket: Ticket,
}

impl ShardCore {
    /// A shard without connections. `seed` drives everything that is random in it.
    pub fn new(config: CoreConfig, shard: ShardIx, seed: u64) -> ShardCore {
        assert!(shard < config.shards, "a shard of this node");
        ShardCore {
            bus: Bus::new(config.shards, seed),
            sessions: Sessions::new(seed, 0),
            home: Home::new(seed),
            stats: Stats::default(),
            drained: false,
            first_ticket: 0,
            config,
            shard,
        }
    }

    /// Takes one input and appends what is to be done. Reads no clock, does no I/O, never fails,
    /// never waits.
    pub fn step(&mut self, now: Now, input: Input<'_>, effects: &mut Vec<Effect>) {
        if let Input::Mesh(_, MeshMessage::Epoch(epoch)) = input {
            self.adopt(epoch, now, effects);
            return self.settle(now, effects);
        }
        let (sessions, home, mut ctx) = self.parts(now, effects);
        let ctx = &mut ctx;
        match input {
            Input::Opened(conn) => sessions.opened(conn, ctx),
            #[cfg(feature = "echo")]
            Input::Text(conn, text) => sessions.echo_text(conn, text, ctx),
            #[cfg(not(feature = "echo"))]
            Input::Text(conn, text) => sessions.text(conn, text, ctx),
            #[cfg(feature = "echo")]
            Input::Binary(conn, bytes) => sessions.echo_binary(conn, bytes, ctx),
            #[cfg(not(feature = "echo"))]
            Input::Binary(conn, _) => sessions.binary(conn, ctx),
            Input::Heard(conn) => sessions.heard(conn, ctx),
            Input::Closed(conn) => sessions.closed(conn, ctx),
            Input::Verified(conn, result) => sessions.verified(conn, result, ctx),
            Input::Store(reply) => self.answered(now, reply, effects),
            Input::Files(id, answer) => sessions.files_told(id, answer, ctx),
            Input::Mesh(from, message) => route(sessions, home, from, message, ctx),
            Input::Tick => {
                home.tick(ctx);
                sessions.tick(ctx);
            }
            Input::Due => home.due(ctx),
            Input::Relay(news) => {
                sessions.presence.relay_news(&news, ctx);
                home.relay_news(news, ctx);
            }
            Input::Ask(ask) => sessions.ask(*ask, ctx),
            Input::Serve(id, ask) => sessions.serve(id, *ask, ctx),
            Input::Drain { spread_ms } => sessions.drain(spread_ms, ctx),
        }
        self.settle(now, effects);
    }

    /// What waits to be written to a connection; `None` once it is gone.
    pub fn outbox(&self, conn: ConnId) -> Option<&Outbox> {
        self.sessions.get(conn).map(|session| &session.outbox)
    }

    /// Connections that are looked at in turn for subscriptions that end.
    #[cfg(test)]
    pub(super) fn watchers(&self) -> usize {
        self.sessions.watches.watchers()
    }

    /// Takes note that this many bytes of the outbox went out.
    pub fn written(&mut self, now: Now, conn: ConnId, bytes: usize, effects: &mut Vec<Effect>) {
        let (sessions, _, mut ctx) = self.parts(now, effects);
        sessions.written(conn, bytes, &mut ctx);
        self.settle(now, effects);
    }

    /// When [`Input::Due`] is wanted next, µs of [`Now::mono_us`]; a timer late by less than a
    /// millisecond harms nothing.
    pub fn due_us(&self) -> Option<u64> {
        self.home.due_us()
    }

    /// The messages that wait to be put into the ring towards another shard, oldest first. The
    /// driver takes as many as fit; what it leaves is what the core sees as "full".
    pub fn mesh_out(&mut self, to: ShardIx) -> &mut VecDeque<MeshMessage> {
        &mut self.bus.mesh[usize::from(to)]
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    fn parts<'a>(
        &'a mut self,
        now: Now,
        effects: &'a mut Vec<Effect>,
    ) -> (&'a mut Sessions, &'a mut Home, Context<'a>) {
        let ShardCore {
            config,
            shard,
            sessions,
            home,
            bus,
            stats,
            ..
        } = self;
        (
            sessions,
            home,
            Context {
                now,
                config,
                shard: *shard,
                bus,
                stats,
                effects,
            },
        )
    }

    fn answered(&mut self, now: Now, reply: StoreReply, effects: &mut Vec<Effect>) {
        let StoreReply {
            ticket,
            epoch,
            result,
        } = reply;
        self.bus.calls -= 1;
        match result {
            Ok(_) => self.bus.store_away = false,
            Err(StoreError::Unavailable(_)) => self.bus.store_away = true,
            Err(StoreError::Overloaded) => (),
        }
        let mut result = result;
        if epoch != self.config.epoch {
            if ticket < self.first_ticket {
                // Read before the history was replaced, of which another shard heard first.
                result = Err(StoreError::Unavailable("of another history".to_owned()));
            } else {
                self.adopt(epoch, now, effects);
                let (_, _, ctx) = self.parts(now, effects);
                for shard in (0..ctx.config.shards).filter(|shard| *shard != ctx.shard) {
                    ctx.bus.mesh[usize::from(shard)].push_back(MeshMessage::Epoch(epoch));
                }
            }
        }
        let (sessions, home, mut ctx) = self.parts(now, effects);
        let ctx = &mut ctx;
        if home.commits.is_flight(ticket) {
            let outcomes = match result {
                Ok(StoreAnswer::Commit(outcomes)) => Ok(outcomes),
                Ok(_) => unreachable!("a store answers a commit with outcomes"),
                Err(error) => Err(error),
            };
            let committed = home.commits.answered(ticket, outcomes, ctx);
            home.committed(committed, ctx);
        } else if home.awaits(ticket) {
            home.answered(ticket, result, ctx);
        } else {
            sessions.answered(ticket, result, ctx);
        }
    }

    /// The history was replaced: nothing that is known here holds any more.
    fn adopt(&mut self, epoch: Epoch, now: Now, effects: &mut Vec<Effect>) {
        if epoch == self.config.epoch {
            return;
        }
        self.config.epoch = epoch;
        self.first_ticket = self.bus.next_ticket;
        let (sessions, home, mut ctx) = self.parts(now, effects);
        sessions.forget(&mut ctx);
        home.forget(&mut ctx);
    }

    /// Handles what this shard told itself, until it has nothing more to say.
    fn settle(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let (shard, drained) = (self.shard, self.drained);
        let (sessions, home, mut ctx) = self.parts(now, effects);
        let ctx = &mut ctx;
        home.catch_up(ctx);
        while let Some(local) = ctx.bus.local.pop_front() {
            match local {
                Local::Message(message) => route(sessions, home, shard, message, ctx),
                Local::Deliver(room, seq, frame) => sessions.deliver(room, seq, &frame, ctx),
            }
        }
        ctx.stats.connections = sessions.open() as u64;
        ctx.stats.sessions = sessions.ready() as u64;
        ctx.stats.rooms_local = sessions.rooms() as u64;
        ctx.stats.rooms_home = home.rooms() as u64;
        ctx.stats.outbox_bytes = sessions.outbox_bytes() as u64;
        ctx.stats.window_bytes = home.window_bytes() as u64;
        ctx.stats.commit_queue = home.commits.waiting() as u64;
        ctx.stats.store_calls = ctx.bus.calls as u64;
        ctx.stats.relay_up = u64::from(ctx.bus.relay_up);
        ctx.bus.load = Load::of(
            sessions.outbox_bytes(),
            ctx.config.outbox_shard_bytes_max,
            home.commits.waiting(),
        );
        ctx.stats.load = ctx.bus.load as u64;
        ctx.stats.asks_waiting = sessions.guests.waiting() as u64;
        let is_ending = sessions.draining() && sessions.is_empty() && !drained;
        if is_ending && home.end_receipts(ctx) && home.commits.is_idle() {
            self.drained = true;
            effects.push(Effect::Drained);
        }
    }
}

/// Gives a message to the part it is for.
fn route(
    sessions: &mut Sessions,
    home: &mut Home,
    from: ShardIx,
    message: MeshMessage,
    ctx: &mut Context<'_>,
) {
    match message {
        MeshMessage::Write(write) => home.write(*write, ctx),
        MeshMessage::Reply(conn, bytes) => sessions.reply(conn, bytes, ctx),
        MeshMessage::Subscribe(request) => home.subscribe(&request, ctx),
        MeshMessage::Subscribed {
            conn,
            room,
            epoch,
            outcome,
        } => {
            sessions.subscribed(conn, room, epoch, outcome, ctx);
        }
        MeshMessage::Unsubscribe(room) => home.unsubscribe(room, from, ctx),
        MeshMessage::Deliver { room, seq, frame } => {
            sessions.deliver(room, seq, &frame.unpack(), ctx);
        }
        MeshMessage::Pull { conn, room, after } => home.pull(from, conn, room, after, ctx),
        MeshMessage::Pulled { conn, room, frames } => sessions.pulled(conn, room, frames, ctx),
        MeshMessage::Expired(room) => sessions.expired(room, ctx),
        MeshMessage::Page(wanted) => home.page(from, wanted, ctx),
        MeshMessage::Paged(wanted, json) => sessions.paged(wanted, json, ctx),
        MeshMessage::Typing {
            room,
            user,
            is_typing,
        } => home.typing(room, user, is_typing, ctx),
        MeshMessage::Notice {
            room,
            frame,
            nobody,
        } => sessions.notice(room, frame, nobody, ctx),
        MeshMessage::Receipts(given) => home.receipts(&given, ctx),
        MeshMessage::OwnChanged(room, user, conn) => {
            home.own_changed(room, user, (from, conn), ctx)
        }
        MeshMessage::ToldReceipts(receipts) => sessions.receipts_told(&receipts, ctx),
        MeshMessage::Came(user, conn) => sessions.came(from, user, conn, ctx),
        MeshMessage::Went(user, conn) => sessions.went(from, user, conn, ctx),
        MeshMessage::Budget(message) => sessions.budget_message(from, message, ctx),
        MeshMessage::Crowded(conn) => sessions.crowded(conn, ctx),
        MeshMessage::Presence(message) => sessions.presence_message(from, *message, ctx),
        MeshMessage::Block(change) => {
            home.block_changed(&change, ctx);
            sessions.block_changed(&change, ctx);
        }
        MeshMessage::Ended(end) => sessions.ended(end, ctx),
        MeshMessage::Added { room, users } => sessions.added(room, &users, ctx),
        // Comes from other shards only, and is taken by the step itself.
        MeshMessage::Epoch(_) => (),
    }
}
