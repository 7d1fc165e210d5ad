//! How the users are seen whose presence home this shard is: the shard of their bucket of presence, to
//! which the relay brings what other nodes say of them.
//!
//! Invariants: what others are told of a user is what was settled, not what is: a connection that came or
//! chose counts after [`limits::PRESENCE_COALESCE_MS`], the end of one after
//! [`limits::PRESENCE_GRACE_MS`], so a reconnect is not seen, and neither is one who chooses `invisible` right after
//! `ready`. Every shard that watches a user is owed each change of what it was told, and of several only the
//! newest. What other nodes said holds for a time, and is asked for again within it: a lost message, or a
//! node that died, makes it late and nothing else.
//!
//! Continued in [`super::presence_relay`], what it tells other nodes and hears from them.
//!
//! Next: [`super::watches`] on each shard that watches.

use super::bus::{Context, MeshMessage};
use super::map::{Map, Seeded};
use super::port::RelayCall;
use super::{ConnId, Effect, Peers, ShardIx};
use crate::limits;
use crate::protocol::presence::{PresenceChoice, PresenceState, UserPresence};
use crate::protocol::{UnixMs, UserId};
use std::collections::{BTreeSet, VecDeque};

/// What shards tell each other about presence.
#[derive(Debug)]
pub enum PresenceMessage {
    /// To the user's presence home: this connection of the sender's is ready, or chose. At most one for each
    /// request.
    Is(UserId, ConnId, PresenceChoice),
    /// To the user's presence home: it is gone. One for each that was ready.
    Gone(UserId, ConnId),
    /// To the presence home of these users: the sender wants to hear of them. Not sent when the queue is
    /// full: the client is told `overloaded`.
    Watch(ConnId, Vec<UserId>),
    /// To the presence home: nobody on the sender's shard wants to hear of these users any more.
    Unwatch(Vec<UserId>),
    /// From the presence home: how they are seen; one for each `Watch`.
    Snapshot(ConnId, Vec<UserPresence>),
    /// From the presence home: how they are seen now. Not sent when the queue is full: the home keeps whom
    /// it owes.
    Changed(Vec<UserPresence>),
    /// To the presence home: another node asks for these users.
    Asked(Vec<UserId>),
    /// To the presence home: another node asks which of these users have a connection.
    ConnectedAsked(Vec<UserId>),
    /// To the presence home: another node says how it sees them.
    Told {
        /// The run of the node.
        origin: u64,
        /// How long it holds, s.
        ttl_s: u16,
        /// The users.
        users: Vec<UserPresence>,
    },
}

/// The users that this shard is the presence home of.
#[derive(Debug)]
pub struct Presence {
    pub(super) people: Map<UserId, Person>,
    /// When to look at whom again, ms; each at most once.
    timers: BTreeSet<(u64, UserId)>,
    /// By shard: of whom it is owed the newest.
    owed: Vec<BTreeSet<UserId>>,
    /// By bucket of presence, of which this shard has those that are its own.
    pub(super) buckets: Vec<Bucket>,
    /// Users to ask other nodes for.
    pub(super) to_ask: BTreeSet<UserId>,
    /// Users to tell other nodes of.
    pub(super) to_tell: BTreeSet<UserId>,
    /// Who went, the earliest first, and the how manieth end it was.
    gone: VecDeque<(UserId, u64)>,
    ends: u64,
}

#[derive(Debug, Default)]
pub(super) struct Person {
    connections: Vec<(ShardIx, ConnId, PresenceChoice)>,
    /// What was settled of the connections to this node.
    pub(super) settled: PresenceState,
    /// When what they are is settled, ms.
    settles_at_ms: Option<u64>,
    /// Since when none of them can be seen.
    hidden_at: Option<UnixMs>,
    /// When they could last be seen on this node.
    pub(super) seen_here_at: Option<UnixMs>,
    /// Which end it was.
    end: u64,
    /// What other nodes said; only while watched.
    pub(super) elsewhere: Vec<Elsewhere>,
    /// When they could last be seen on another node, as far as that was said.
    pub(super) seen_elsewhere_at: Option<UnixMs>,
    pub(super) watchers: Vec<ShardIx>,
    /// What the watchers were told, or are owed.
    told: Option<UserPresence>,
    timer_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Elsewhere {
    pub(super) origin: u64,
    pub(super) state: PresenceState,
    pub(super) heard_at: UnixMs,
    pub(super) until_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) watched: BTreeSet<UserId>,
    pub(super) confirmed: bool,
    pub(super) ask_at_ms: u64,
    /// Other nodes are told of changes until then, ms.
    pub(super) wanted_until_ms: u64,
}

impl Person {
    fn choice(&self) -> PresenceState {
        let choices = self.connections.iter().map(|(_, _, choice)| choice.seen());
        choices.max().unwrap_or_default()
    }

    /// How others see them, over all nodes.
    fn seen(&self, user_id: UserId) -> UserPresence {
        let elsewhere = self.elsewhere.iter().map(|node| node.state).max();
        let state = self.settled.max(elsewhere.unwrap_or_default());
        let seen_at = self.seen_here_at.max(self.seen_elsewhere_at);
        UserPresence {
            user_id,
            state,
            last_seen_at: seen_at.filter(|_| state == PresenceState::Offline),
        }
    }

    /// How others see them, as far as this node knows by itself.
    pub(super) fn seen_here(&self, user_id: UserId) -> UserPresence {
        UserPresence {
            user_id,
            state: self.settled,
            last_seen_at: (self.seen_here_at).filter(|_| self.settled == PresenceState::Offline),
        }
    }

    fn is_unused(&self) -> bool {
        self.connections.is_empty()
            && self.watchers.is_empty()
            && self.settles_at_ms.is_none()
            && self.seen_here_at.is_none()
    }
}

/// The place of a user's bucket.
pub(super) fn place(user: UserId) -> usize {
    usize::from(user.presence_bucket() - limits::PRESENCE_BUCKET)
}

impl Context<'_> {
    /// The shard that knows how this user is seen.
    pub fn presence_home(&self, user: UserId) -> ShardIx {
        user.presence_bucket() % self.config.shards
    }

    /// Tells a shard something about presence.
    pub(super) fn tell_presence(&mut self, shard: ShardIx, message: PresenceMessage) {
        self.tell(shard, MeshMessage::Presence(Box::new(message)));
    }

    /// Tells the presence homes of these users something about their own.
    pub(super) fn tell_presence_homes(
        &mut self,
        users: impl IntoIterator<Item = UserId>,
        message: impl Fn(Vec<UserId>) -> PresenceMessage,
    ) {
        let mut by_home: Vec<Vec<UserId>> = vec![Vec::new(); usize::from(self.config.shards)];
        for user in users {
            by_home[usize::from(self.presence_home(user))].push(user);
        }
        for (home, users) in (0..).zip(by_home) {
            if !users.is_empty() {
                self.tell_presence(home, message(users));
            }
        }
    }
}

impl Presence {
    /// How others see a user whose home this is; who is not known is offline.
    pub(super) fn seen(&self, user: UserId) -> UserPresence {
        let known = self.people.get(&user).map(|person| person.seen(user));
        known.unwrap_or(UserPresence {
            user_id: user,
            state: PresenceState::Offline,
            last_seen_at: None,
        })
    }

    /// Nobody.
    pub fn new(seed: u64) -> Presence {
        Presence {
            people: Map::with_hasher(Seeded::with_seed(seed)),
            timers: BTreeSet::new(),
            owed: Vec::new(),
            buckets: (0..limits::PRESENCE_BUCKETS)
                .map(|_| Bucket::default())
                .collect(),
            to_ask: BTreeSet::new(),
            to_tell: BTreeSet::new(),
            gone: VecDeque::new(),
            ends: 0,
        }
    }

    /// A connection is ready, or chose.
    pub fn is(
        &mut self,
        user: UserId,
        (shard, conn): (ShardIx, ConnId),
        choice: PresenceChoice,
        ctx: &Context<'_>,
    ) {
        let person = self.people.entry(user).or_default();
        let mut own = person.connections.iter_mut();
        match own.find(|own| (own.0, own.1) == (shard, conn)) {
            Some(own) => own.2 = choice,
            None => person.connections.push((shard, conn, choice)),
        }
        self.moved(user, limits::PRESENCE_COALESCE_MS, ctx);
    }

    /// Whether the user has a connection to this node.
    pub fn is_connected(&self, user: UserId) -> bool {
        (self.people.get(&user)).is_some_and(|person| !person.connections.is_empty())
    }

    /// A connection is gone.
    pub fn gone(&mut self, user: UserId, connection: (ShardIx, ConnId), ctx: &Context<'_>) {
        if let Some(person) = self.people.get_mut(&user) {
            (person.connections).retain(|own| (own.0, own.1) != connection);
            self.moved(user, limits::PRESENCE_GRACE_MS, ctx);
        }
    }

    /// The connections of a user are others, or want something else: that is settled after this time.
    fn moved(&mut self, user: UserId, wait_ms: u64, ctx: &Context<'_>) {
        let Some(person) = self.people.get_mut(&user) else {
            return;
        };
        let choice = person.choice();
        match choice {
            PresenceState::Offline => {
                person.hidden_at.get_or_insert(ctx.now.unix);
            }
            PresenceState::Away | PresenceState::Online => person.hidden_at = None,
        }
        person.settles_at_ms = match choice == person.settled {
            true => None,
            false => {
                let at_ms = ctx.now_ms() + wait_ms;
                match person.settles_at_ms {
                    // Who changes all the time is told of all the same.
                    Some(before_ms) if !person.connections.is_empty() => Some(before_ms.min(at_ms)),
                    // Whatever they chose last, they may come back.
                    Some(_) | None => Some(at_ms),
                }
            }
        };
        self.remind(user);
    }

    /// Sets the timer of a user, or forgets them.
    pub(super) fn remind(&mut self, user: UserId) {
        let Some(person) = self.people.get_mut(&user) else {
            return;
        };
        let ends = person.elsewhere.iter().map(|node| node.until_ms);
        let timer_ms = ends.chain(person.settles_at_ms).min();
        if timer_ms != person.timer_ms {
            if let Some(at_ms) = person.timer_ms {
                self.timers.remove(&(at_ms, user));
            }
            if let Some(at_ms) = timer_ms {
                self.timers.insert((at_ms, user));
            }
            person.timer_ms = timer_ms;
        }
        if person.is_unused() {
            // Nothing is due for them: what other nodes said is kept only while they are watched.
            self.people.remove(&user);
        }
    }

    /// A shard wants to hear of these users.
    pub fn watch(&mut self, from: ShardIx, conn: ConnId, users: &[UserId], ctx: &mut Context<'_>) {
        let mut snapshot = Vec::with_capacity(users.len());
        for user in users {
            let person = self.people.entry(*user).or_default();
            let seen = person.seen(*user);
            snapshot.push(seen);
            if person.watchers.contains(&from) {
                continue;
            }
            person.watchers.push(from);
            person.told = Some(seen);
            if person.watchers.len() == 1 && ctx.config.peers == Peers::Relay {
                let bucket = &mut self.buckets[place(*user)];
                if bucket.watched.is_empty() {
                    let follow = RelayCall::Follow(user.presence_bucket());
                    ctx.effects.push(Effect::Relay(follow));
                    bucket.ask_at_ms = ctx.now_ms() + limits::PRESENCE_ASK_MS;
                }
                bucket.watched.insert(*user);
                self.to_ask.insert(*user);
            }
        }
        ctx.tell_presence(from, PresenceMessage::Snapshot(conn, snapshot));
    }

    /// Nobody on that shard wants to hear of these users any more.
    pub fn unwatch(&mut self, from: ShardIx, users: &[UserId], ctx: &mut Context<'_>) {
        for user in users {
            let Some(person) = self.people.get_mut(user) else {
                continue;
            };
            person.watchers.retain(|shard| *shard != from);
            if let Some(owed) = self.owed.get_mut(usize::from(from)) {
                owed.remove(user);
            }
            if !person.watchers.is_empty() {
                continue;
            }
            (person.told, person.seen_elsewhere_at) = (None, None);
            person.elsewhere.clear();
            self.to_ask.remove(user);
            let bucket = &mut self.buckets[place(*user)];
            if bucket.watched.remove(user) && bucket.watched.is_empty() {
                bucket.confirmed = false;
                let unfollow = RelayCall::Unfollow(user.presence_bucket());
                ctx.effects.push(Effect::Relay(unfollow));
            }
            self.remind(*user);
        }
    }

    /// Owes the watchers of a user what they were not told.
    pub(super) fn note(&mut self, user: UserId) {
        let Some(person) = self.people.get_mut(&user) else {
            return;
        };
        let seen = person.seen(user);
        if person.watchers.is_empty() || person.told == Some(seen) {
            return;
        }
        person.told = Some(seen);
        for shard in &person.watchers {
            let place = usize::from(*shard);
            if self.owed.len() <= place {
                self.owed.resize_with(place + 1, BTreeSet::new);
            }
            self.owed[place].insert(user);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, ctx: &mut Context<'_>) {
        let now_ms = ctx.now_ms();
        while let Some((at_ms, user)) = self.timers.first().copied()
            && at_ms <= now_ms
        {
            self.timers.pop_first();
            self.due(user, ctx);
        }
        self.ask(ctx);
        self.tell(ctx);
        for (shard, owed) in (0..).zip(&mut self.owed) {
            if owed.is_empty() || !ctx.takes_events(shard) {
                continue;
            }
            let seen_of = |user| Some(self.people.get(&user)?.seen(user));
            let changed: Vec<UserPresence> = std::mem::take(owed)
                .into_iter()
                .filter_map(seen_of)
                .collect();
            ctx.tell_presence(shard, PresenceMessage::Changed(changed));
        }
    }

    /// The time of a user's timer has come.
    fn due(&mut self, user: UserId, ctx: &Context<'_>) {
        let now_ms = ctx.now_ms();
        let Some(person) = self.people.get_mut(&user) else {
            return;
        };
        person.timer_ms = None;
        if person.settles_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            person.settles_at_ms = None;
            person.settled = person.choice();
            if person.settled == PresenceState::Offline {
                person.seen_here_at = Some(person.hidden_at.unwrap_or(ctx.now.unix));
                self.ends += 1;
                person.end = self.ends;
                self.gone.push_back((user, self.ends));
            }
            if self.buckets[place(user)].wanted_until_ms > now_ms {
                self.to_tell.insert(user);
            }
        }
        let over = person
            .elsewhere
            .iter()
            .filter(|node| node.until_ms <= now_ms);
        // A node that says nothing any more: they were last seen when it last said so.
        let heard_at = over.map(|node| node.heard_at).max();
        person.seen_elsewhere_at = person.seen_elsewhere_at.max(heard_at);
        person.elsewhere.retain(|node| node.until_ms > now_ms);
        self.note(user);
        self.remind(user);
        while self.gone.len() > limits::PRESENCE_GONE_MAX
            && let Some((user, end)) = self.gone.pop_front()
        {
            self.forget_when_seen(user, end);
        }
    }

    fn forget_when_seen(&mut self, user: UserId, end: u64) {
        if let Some(person) = self.people.get_mut(&user)
            && person.end == end
        {
            person.seen_here_at = None;
            self.note(user);
            self.remind(user);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bus::{Bus, Local};
    use super::super::port::RelayNews;
    use super::super::stats::Stats;
    use super::super::{CoreConfig, Now};
    use super::*;
    use crate::protocol::Epoch;
    use crate::protocol::relay::{self, RelayMessage};
    use PresenceState::{Away, Offline, Online};
    use uuid::Uuid;

    const ADA: UserId = UserId(Uuid::from_u128(1));
    /// The wall clock at 0 ms.
    const START: u64 = 1_700_000_000_000;

    /// A presence home of one shard, watched by that shard.
    struct World {
        presence: Presence,
        config: CoreConfig,
        bus: Bus,
        stats: Stats,
        effects: Vec<Effect>,
        now_ms: u64,
    }

    fn conn(index: u32) -> ConnId {
        ConnId {
            index,
            generation: 0,
        }
    }

    fn seen(state: PresenceState, last_seen_ms: Option<u64>) -> UserPresence {
        UserPresence {
            user_id: ADA,
            state,
            last_seen_at: last_seen_ms.map(|ms| UnixMs(START + ms)),
        }
    }

    impl World {
        fn new(run: u64) -> World {
            let mut config = CoreConfig::new("test", 1, Epoch(1));
            (config.peers, config.run) = (Peers::Relay, run);
            World {
                presence: Presence::new(1),
                config,
                bus: Bus::new(1, 1),
                stats: Stats::default(),
                effects: Vec::new(),
                now_ms: 0,
            }
        }

        fn with(&mut self, does: impl FnOnce(&mut Presence, &mut Context<'_>)) {
            let mut ctx = Context {
                now: Now {
                    mono_us: self.now_ms * 1_000,
                    unix: UnixMs(START + self.now_ms),
                },
                config: &self.config,
                shard: 0,
                bus: &mut self.bus,
                stats: &mut self.stats,
                effects: &mut self.effects,
            };
            does(&mut self.presence, &mut ctx);
        }

        fn is(&mut self, n: u32, choice: PresenceChoice) {
            self.with(|presence, ctx| presence.is(ADA, (0, conn(n)), choice, ctx));
        }

        fn gone(&mut self, n: u32) {
            self.with(|presence, ctx| presence.gone(ADA, (0, conn(n)), ctx));
        }

        /// Begins to watch: what is told at once.
        fn watch(&mut self) -> UserPresence {
            self.with(|presence, ctx| presence.watch(0, conn(9), &[ADA], ctx));
            let followed = RelayNews::Following(ADA.presence_bucket());
            self.with(|presence, ctx| presence.relay_news(&followed, ctx));
            match self.told().as_slice() {
                [only] => *only,
                other => panic!("{other:?}"),
            }
        }

        /// Everything that shards were told.
        fn told(&mut self) -> Vec<UserPresence> {
            let mut all = Vec::new();
            while let Some(local) = self.bus.local.pop_front() {
                let Local::Message(MeshMessage::Presence(message)) = local else {
                    panic!("{local:?}");
                };
                match *message {
                    PresenceMessage::Snapshot(_, users) | PresenceMessage::Changed(users) => {
                        all.extend(users);
                    }
                    other => panic!("{other:?}"),
                }
            }
            all
        }

        /// Time passes, tick by tick: what is told meanwhile.
        fn pass(&mut self, ms: u64) -> Vec<UserPresence> {
            for _ in 0..ms.div_ceil(250) {
                self.now_ms += 250;
                self.with(|presence, ctx| presence.tick(ctx));
            }
            self.told()
        }

        /// What it gave to the relay, by bucket.
        fn published(&mut self) -> Vec<(u16, RelayMessage)> {
            let publish = |effect| match effect {
                Effect::Relay(RelayCall::Publish(bucket, bytes)) => {
                    let relayed = relay::decode(&bytes).expect("our own");
                    Some((bucket, relayed.message))
                }
                _ => None,
            };
            self.effects.drain(..).filter_map(publish).collect()
        }

        /// Takes what another node gave to the relay.
        fn hear(&mut self, origin: u64, messages: Vec<(u16, RelayMessage)>) {
            for (bucket, message) in messages {
                match message {
                    RelayMessage::PresenceAsked(users) => {
                        assert_eq!(bucket, limits::USERS_BUCKET);
                        self.with(|presence, ctx| presence.asked(&users, ctx));
                    }
                    RelayMessage::Presence { ttl_s, users } => {
                        assert_eq!(bucket, ADA.presence_bucket());
                        self.with(|presence, ctx| presence.told(origin, ttl_s, &users, ctx));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn the_most_present_connection_decides_and_a_reconnect_is_not_seen() {
        let mut world = World::new(1);
        assert_eq!(world.watch(), seen(Offline, None));
        world.is(1, PresenceChoice::Online);
        assert_eq!(world.pass(3_000), [seen(Online, None)]);
        world.is(2, PresenceChoice::Away);
        world.is(1, PresenceChoice::Invisible);
        assert_eq!(world.pass(3_000), [seen(Away, None)]);
        world.is(1, PresenceChoice::Online);
        assert_eq!(world.pass(3_000), [seen(Online, None)]);
        // They end one after the other, the last right after it chose.
        world.gone(1);
        assert_eq!(world.pass(500), []);
        world.is(2, PresenceChoice::Invisible);
        world.gone(2);
        assert_eq!(world.pass(7_000), []);
        world.is(3, PresenceChoice::Online);
        assert_eq!(world.pass(60_000), []);
        let went_ms = world.now_ms;
        world.gone(3);
        assert_eq!(world.pass(10_000), [seen(Offline, Some(went_ms))]);
    }

    #[test]
    fn who_is_invisible_is_seen_as_offline_since_they_chose() {
        let mut world = World::new(1);
        world.watch();
        // One who says so right after `ready` is never seen.
        world.is(1, PresenceChoice::Online);
        assert_eq!(world.pass(500), []);
        world.is(1, PresenceChoice::Invisible);
        assert_eq!(world.pass(5_000), []);
        world.is(1, PresenceChoice::Online);
        assert_eq!(world.pass(5_000), [seen(Online, None)]);
        let chose_ms = world.now_ms;
        world.is(1, PresenceChoice::Invisible);
        assert_eq!(world.pass(5_000), [seen(Offline, Some(chose_ms))]);
        // When they really go nothing is told, and a later asker hears the same.
        world.gone(1);
        assert_eq!(world.pass(20_000), []);
        world.with(|presence, ctx| presence.unwatch(0, &[ADA], ctx));
        assert_eq!(world.watch(), seen(Offline, Some(chose_ms)));
    }

    #[test]
    fn who_changes_all_the_time_is_told_of_at_most_once_a_second() {
        let mut world = World::new(1);
        world.watch();
        world.is(1, PresenceChoice::Online);
        world.pass(2_000);
        let mut told = 0;
        for _ in 0..20 {
            world.is(1, PresenceChoice::Away);
            told += world.pass(250).len();
            world.is(1, PresenceChoice::Invisible);
            told += world.pass(250).len();
        }
        assert!((1..=10).contains(&told), "{told}");
    }

    #[test]
    fn a_full_mesh_is_owed_only_the_newest() {
        let mut world = World::new(1);
        world.watch();
        world.config.mesh_deliver_max = 0;
        world.is(1, PresenceChoice::Online);
        assert_eq!(world.pass(3_000), []);
        world.is(1, PresenceChoice::Away);
        assert_eq!(world.pass(3_000), []);
        world.config.mesh_deliver_max = 1;
        assert_eq!(world.pass(1_000), [seen(Away, None)]);
    }

    #[test]
    fn another_node_is_asked_and_tells_of_changes_until_it_dies() {
        let (mut here, mut there) = (World::new(1), World::new(2));
        there.is(1, PresenceChoice::Online);
        there.pass(2_000);
        // Nobody asks, so nothing is published.
        assert_eq!(there.published(), []);
        assert_eq!(here.watch(), seen(Offline, None));
        here.pass(250);
        there.hear(1, here.published());
        there.pass(250);
        here.hear(2, there.published());
        assert_eq!(here.pass(250), [seen(Online, None)]);
        // A change is told without a question, and one here counts as well.
        there.is(1, PresenceChoice::Away);
        there.pass(2_000);
        here.hear(2, there.published());
        assert_eq!(here.pass(250), [seen(Away, None)]);
        here.is(1, PresenceChoice::Online);
        assert_eq!(here.pass(2_000), [seen(Online, None)]);
        here.gone(1);
        assert_eq!(here.pass(10_000), [seen(Away, None)]);
        // As long as it answers it holds; what was lost is asked for again.
        let mut heard_ms = 0;
        for _ in 0..10 {
            assert_eq!(here.pass(30_000), []);
            there.pass(30_000);
            there.hear(1, here.published());
            there.pass(250);
            heard_ms = here.now_ms;
            here.hear(2, there.published());
        }
        // Then it is silent.
        assert_eq!(here.pass(70_000), [seen(Offline, Some(heard_ms))]);
    }

    #[test]
    fn who_is_gone_from_one_node_and_back_on_another_never_went() {
        let (mut here, mut there) = (World::new(1), World::new(2));
        here.watch();
        here.pass(250);
        there.hear(1, here.published());
        here.is(1, PresenceChoice::Online);
        assert_eq!(here.pass(2_000), [seen(Online, None)]);
        here.gone(1);
        there.is(1, PresenceChoice::Online);
        there.pass(2_000);
        here.hear(2, there.published());
        assert_eq!(here.pass(20_000), []);
        let went_ms = there.now_ms;
        there.gone(1);
        there.pass(10_000);
        here.hear(2, there.published());
        // Each node has a clock of its own; this one's user was seen here later than there.
        let last_ms = went_ms.max(2_250);
        assert_eq!(here.pass(1_000), [seen(Offline, Some(last_ms))]);
    }

    #[test]
    fn nothing_is_kept_of_whom_nobody_watches_and_who_was_never_seen() {
        let mut world = World::new(1);
        world.watch();
        world.is(1, PresenceChoice::Invisible);
        world.gone(1);
        let away = vec![seen(Away, None)];
        world.with(|presence, ctx| presence.told(2, 60, &away, ctx));
        world.pass(1_000);
        world.effects.clear();
        world.with(|presence, ctx| presence.unwatch(0, &[ADA], ctx));
        let unfollow = RelayCall::Unfollow(ADA.presence_bucket());
        assert!(matches!(&world.effects[..], [Effect::Relay(call)] if *call == unfollow));
        world.pass(60_000);
        let Presence { people, timers, .. } = &world.presence;
        assert!(people.is_empty() && timers.is_empty());
    }
}
