//! The relay over a Redis Cluster: sharded pub/sub, a line to each master.
//!
//! A bucket's channel lives in one slot, so its messages stay on the master that owns the slot, where
//! plain PUBLISH goes to every node of the cluster. Invariants: the relay is `Up` only while every slot has
//! a master and the line to each works, and `Down` as soon as one is lost, though the others go on
//! carrying messages; what a master drops because its slot went elsewhere is told as `Lost` and
//! followed at the new owner.
//!
//! The crate's own cluster client is not used, because it can neither tell which subscriptions were lost nor
//! keep answers apart from the `sunsubscribe` that a master sends unasked when a slot leaves it. Here
//! that does no harm: a subscriber's connection carries nothing else, and what is subscribed to is known
//! from what Redis says of each channel, never from which answer belongs to which request.

use super::topology::{self, Address, Answer, Topology};
use super::{
    ANSWER_MAX, HEARTBEAT, PUBLISHES_MAX, PUBLISHES_PER_TRIP, Publishes, RETRY_FIRST, RETRY_MAX,
    SILENCE_MAX, SUBSCRIBES_PER_TRIP, Shared, WANTED, closed, spread, within,
};
use crate::chat::port::RelayNews;
use crate::limits::RELAY_BUCKETS;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError,
    Value,
};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

/// The masters are asked again so often, should nothing tell that slots moved.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// And not more often than this, whatever tells it.
const ASK_AT_MOST_EVERY: Duration = Duration::from_millis(100);
/// A message whose slot has moved is sent so often in all.
const SENDS_MAX: u8 = 3;
/// Names tried for a heartbeat's channel: enough to find one in a single slot of all.
const BEAT_NAMES_MAX: u32 = 1 << 20;

/// A message, and how often it was sent.
struct Publish {
    bucket: u16,
    bytes: Box<[u8]>,
    sent: u8,
}

/// What the lines and the one who keeps them share.
struct Common {
    shared: Arc<Shared>,
    topology: Mutex<Arc<Topology>>,
    /// By bucket: the line that has it, by its number; 0: none.
    places: Vec<AtomicU32>,
    /// `Up` was told.
    up: AtomicBool,
    /// Something tells that slots have moved.
    ask: Notify,
    /// A line works, or does not any more.
    changed: Notify,
    /// Messages that came to the wrong master.
    returned: mpsc::Sender<Publish>,
}

/// The connections to one master.
struct Line {
    /// From 1; never used again.
    number: u32,
    address: Address,
    common: Arc<Common>,
    works: AtomicBool,
    /// The channel of the heartbeat: one in a slot of this master.
    beat: Mutex<String>,
    /// A heartbeat, or the confirmation of its channel, came.
    heard: AtomicBool,
    hears: Notify,
    lost: Notify,
}

/// A line as its keeper sees it.
struct Kept {
    line: Arc<Line>,
    publishes: mpsc::Sender<Publish>,
    /// A bucket, and whether it is wanted.
    follows: mpsc::UnboundedSender<(u16, bool)>,
    task: tokio::task::AbortHandle,
}

/// A task that has ended.
enum Ended {
    Line(u32, RedisError),
    Asked(Result<Answer, RedisError>),
}

/// Works until these nodes are no cluster any more.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    seed: &ConnectionInfo,
    topology: Topology,
    publishes: &mut Publishes,
) -> RedisError {
    let (returned, mut returns) = mpsc::channel(PUBLISHES_MAX);
    let common = Arc::new(Common {
        shared: shared.clone(),
        topology: Mutex::new(Arc::new(topology)),
        places: (0..RELAY_BUCKETS).map(|_| AtomicU32::new(0)).collect(),
        up: AtomicBool::new(false),
        ask: Notify::new(),
        changed: Notify::new(),
        returned,
    });
    let mut keeper = Keeper {
        seed: seed.clone(),
        common,
        slots: (0..RELAY_BUCKETS)
            .map(|bucket| topology::slot(&shared.channel(bucket)))
            .collect(),
        lines: HashMap::new(),
        waits: HashMap::new(),
        tasks: JoinSet::new(),
        asking: false,
        asked: 0,
        last_line: 0,
        uncovered: false,
    };
    let failed = keeper.work(publishes, &mut returns).await;
    if keeper.common.up.load(Ordering::Acquire) {
        shared.tell_all(&RelayNews::Down);
    }
    failed
}

struct Keeper {
    seed: ConnectionInfo,
    common: Arc<Common>,
    /// By bucket.
    slots: Vec<u16>,
    lines: HashMap<Address, Kept>,
    /// Masters whose line was lost: when the next is made, and how long the wait was.
    waits: HashMap<Address, (Instant, Duration)>,
    tasks: JoinSet<Ended>,
    asking: bool,
    /// Counts, so that not always the same node is asked.
    asked: usize,
    last_line: u32,
    /// Slots without a master were told of.
    uncovered: bool,
}

impl Keeper {
    async fn work(
        &mut self,
        publishes: &mut Publishes,
        returns: &mut mpsc::Receiver<Publish>,
    ) -> RedisError {
        let common = self.common.clone();
        let mut tick = interval(HEARTBEAT);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ask_at, mut asked_at) = (Instant::now() + ASK_EVERY, Instant::now());
        // Messages that were sent back wait until it is known where to.
        let mut held = false;
        let mut batch = Vec::with_capacity(PUBLISHES_PER_TRIP);
        self.reach_masters();
        loop {
            tokio::select! {
                // What tells that slots have moved comes before the messages that it sent back.
                biased;
                () = common.ask.notified() => {
                    (held, ask_at) = (true, ask_at.min(asked_at + ASK_AT_MOST_EVERY));
                }
                Some(Ok(ended)) = self.tasks.join_next() => match ended {
                    Ended::Line(number, error) => {
                        self.line_ended(number, &error);
                        common.ask.notify_one();
                    }
                    Ended::Asked(answer) => {
                        (self.asking, held) = (false, false);
                        match answer {
                            Ok(Answer::Plain) => return closed("it is a cluster no more"),
                            Ok(Answer::Cluster { topology, settled: true }) => self.learn(topology),
                            // What was said before holds; it is asked again soon.
                            Ok(Answer::Cluster { .. }) | Err(_) => {
                                ask_at = ask_at.min(Instant::now() + RETRY_MAX);
                            }
                        }
                    }
                },
                () = common.changed.notified() => self.judge(),
                () = common.shared.wanted.notify.notified() => self.follow(),
                () = sleep_until(ask_at), if !self.asking => {
                    (asked_at, ask_at) = (Instant::now(), Instant::now() + ASK_EVERY);
                    self.ask();
                }
                _ = tick.tick() => {
                    self.reach_masters();
                    self.mend();
                }
                Some(publish) = returns.recv(), if !held => self.send(publish),
                some = publishes.recv_many(&mut batch, PUBLISHES_PER_TRIP) => {
                    if some == 0 {
                        return closed("ended");
                    }
                    for (bucket, bytes) in batch.drain(..) {
                        self.send(Publish { bucket, bytes, sent: 0 });
                    }
                }
            }
        }
    }

    /// Gives a message to the line of its slot. Without one it is lost, and found in the store.
    fn send(&self, publish: Publish) {
        let topology = self.common.topology();
        let owner = topology.owner(self.slots[usize::from(publish.bucket)]);
        let kept = owner.and_then(|owner| self.lines.get(owner));
        if let Some(kept) = kept
            && kept.line.works()
            && kept.publishes.try_send(publish).is_err()
        {
            self.common.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Passes on which buckets are wanted, or not any more.
    fn follow(&self) {
        let topology = self.common.topology();
        while let Some((bucket, wanted)) = self.common.shared.wanted.next() {
            let owner = topology.owner(self.slots[usize::from(bucket)]);
            let place = self.common.places[usize::from(bucket)].load(Ordering::Acquire);
            for kept in self.lines.values().filter(|kept| kept.line.works()) {
                let owns = owner == Some(&kept.line.address);
                let has = place == kept.line.number;
                if owns || has {
                    // One that has ended needs nothing more.
                    let _ended = kept.follows.send((bucket, wanted && owns));
                }
            }
        }
    }

    /// Notes what is wanted and not where it belongs: after slots have moved, or lines were made.
    fn mend(&self) {
        let topology = self.common.topology();
        let wanted = &self.common.shared.wanted;
        for (bucket, place) in (0..).zip(&self.common.places) {
            if wanted.flags[usize::from(bucket)].load(Ordering::Acquire) & WANTED == 0 {
                continue;
            }
            let owner = topology.owner(self.slots[usize::from(bucket)]);
            let kept = owner.and_then(|owner| self.lines.get(owner));
            if let Some(kept) = kept
                && kept.line.works()
                && place.load(Ordering::Acquire) != kept.line.number
            {
                wanted.note(bucket);
            }
        }
    }

    /// Makes a line to each master that has none, once its wait is over.
    fn reach_masters(&mut self) {
        let topology = self.common.topology();
        for address in &topology.masters {
            let waits = self.waits.get(address);
            if self.lines.contains_key(address)
                || waits.is_some_and(|(until, _)| Instant::now() < *until)
            {
                continue;
            }
            self.last_line += 1;
            let line = Arc::new(Line {
                number: self.last_line,
                address: address.clone(),
                common: self.common.clone(),
                works: AtomicBool::new(false),
                beat: Mutex::default(),
                heard: AtomicBool::new(false),
                hears: Notify::new(),
                lost: Notify::new(),
            });
            let (publishes, to_publish) = mpsc::channel(PUBLISHES_MAX);
            let (follows, to_follow) = mpsc::unbounded_channel();
            let (own, info) = (line.clone(), self.info_of(address));
            let task = self.tasks.spawn(async move {
                let failed = own.serve(info, to_publish, to_follow).await;
                let error = failed.err().unwrap_or_else(|| closed("ended"));
                Ended::Line(own.number, error)
            });
            let kept = Kept {
                line,
                publishes,
                follows,
                task,
            };
            self.lines.insert(address.clone(), kept);
        }
    }

    fn line_ended(&mut self, number: u32, error: &RedisError) {
        let ended = self.lines.values().find(|kept| kept.line.number == number);
        let Some(address) = ended.map(|kept| kept.line.address.clone()) else {
            return;
        };
        let worked = self.drop_line(&address);
        let before = self.waits.get(&address).map(|(_, wait)| *wait);
        let wait = match before {
            Some(wait) if !worked => (wait * 2).min(RETRY_MAX),
            _ => RETRY_FIRST,
        };
        if worked || before.is_none() {
            let (host, port) = (&address.host, address.port);
            tracing::warn!(%error, host, port, "a master of the relay's cluster is lost");
        }
        self.waits
            .insert(address, (Instant::now() + spread(wait), wait));
        self.judge();
    }

    /// Forgets a line; says whether it had worked.
    fn drop_line(&mut self, address: &Address) -> bool {
        let Some(kept) = self.lines.remove(address) else {
            return false;
        };
        kept.task.abort();
        // Before the buckets are given up: what still comes by it must not take them again.
        let worked = kept.line.works.swap(false, Ordering::AcqRel);
        for place in &self.common.places {
            let number = kept.line.number;
            let _other = place.compare_exchange(number, 0, Ordering::AcqRel, Ordering::Acquire);
        }
        worked
    }

    /// Tells whether the relay works, if that has changed.
    fn judge(&mut self) {
        let topology = self.common.topology();
        let works = |address| {
            self.lines
                .get(address)
                .is_some_and(|kept| kept.line.works())
        };
        let whole = topology.is_whole();
        if !whole && !std::mem::replace(&mut self.uncovered, !whole) {
            tracing::warn!(
                "slots of the relay's cluster have no master; the store is looked at instead"
            );
        }
        self.uncovered = !whole;
        let up = whole && topology.masters.iter().all(works);
        for address in &topology.masters {
            if works(address) {
                self.waits.remove(address);
            }
        }
        let shared = &self.common.shared;
        if up == self.common.up.swap(up, Ordering::AcqRel) {
            if up || topology.masters.iter().any(works) {
                self.mend();
            }
            return;
        }
        if !up {
            shared.tell_all(&RelayNews::Down);
            tracing::warn!("the relay is not whole; the store is looked at instead");
            self.mend();
            return;
        }
        tracing::info!(masters = topology.masters.len(), "the relay is connected");
        shared.dropped.store(0, Ordering::Relaxed);
        shared.tell_all(&RelayNews::Up);
        for (bucket, place) in (0..).zip(&self.common.places) {
            if place.load(Ordering::Acquire) != 0 {
                shared.tell(bucket, RelayNews::Following(bucket));
            }
        }
        self.mend();
    }

    /// Takes over who owns what.
    fn learn(&mut self, topology: Topology) {
        if *self.common.topology() == topology {
            return;
        }
        let gone: Vec<Address> = self.lines.keys().cloned().collect();
        for address in gone.iter().filter(|it| !topology.masters.contains(it)) {
            self.drop_line(address);
        }
        self.waits
            .retain(|address, _| topology.masters.contains(address));
        *self.common.lock_topology() = Arc::new(topology);
        self.reach_masters();
        self.judge();
    }

    /// Asks one node after the other, until one answers.
    fn ask(&mut self) {
        self.asking = true;
        let topology = self.common.topology();
        self.asked += 1;
        let mut masters: Vec<&Address> = topology.masters.iter().collect();
        let first = self.asked % masters.len().max(1);
        masters.rotate_left(first);
        // Those whose line works first.
        masters.sort_by_key(|it| self.lines.get(*it).is_none_or(|kept| !kept.line.works()));
        let mut infos: Vec<ConnectionInfo> =
            masters.into_iter().map(|it| self.info_of(it)).collect();
        let seeds = self.common.shared.clients.iter();
        infos.extend(seeds.map(|seed| seed.get_connection_info().clone()));
        self.tasks.spawn(async move {
            let mut answer = Err(closed("no node to ask"));
            for info in infos {
                answer = timeout(ANSWER_MAX, ask(info))
                    .await
                    .unwrap_or_else(|_| Err(closed("no answer in time")));
                if matches!(
                    answer,
                    Ok(Answer::Cluster { settled: true, .. } | Answer::Plain)
                ) {
                    break;
                }
            }
            Ended::Asked(answer)
        });
    }

    fn info_of(&self, address: &Address) -> ConnectionInfo {
        let to = address.reached_like(self.seed.addr());
        self.seed.clone().set_addr(to)
    }
}

/// Connects to a node and asks it.
async fn ask(info: ConnectionInfo) -> Result<Answer, RedisError> {
    let address = Address::of(info.addr()).ok_or_else(|| closed("not reached by TCP"))?;
    let client = Client::open(info)?;
    let mut connection = client
        .get_multiplexed_async_connection_with_config(&config())
        .await?;
    topology::ask(&mut connection, &address).await
}

fn config() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_MAX))
        .set_response_timeout(Some(ANSWER_MAX))
}

impl Common {
    fn lock_topology(&self) -> std::sync::MutexGuard<'_, Arc<Topology>> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn topology(&self) -> Arc<Topology> {
        self.lock_topology().clone()
    }
}

impl Line {
    fn works(&self) -> bool {
        self.works.load(Ordering::Acquire)
    }

    /// Connects, and works until something fails; says what.
    async fn serve(
        self: &Arc<Self>,
        info: ConnectionInfo,
        publishes: mpsc::Receiver<Publish>,
        follows: mpsc::UnboundedReceiver<(u16, bool)>,
    ) -> Result<(), RedisError> {
        let settings = info.redis_settings().clone();
        let client = Client::open(info.clone())?;
        let publisher = client
            .get_multiplexed_async_connection_with_config(&config())
            .await?;
        // Each line hears only by the connection that it made last, which is this one.
        let own = self.clone();
        let pushes = config().set_push_sender(move |push: PushInfo| {
            own.pushed(push);
            Ok::<(), std::convert::Infallible>(())
        });
        let info = info.set_redis_settings(settings.set_protocol(ProtocolVersion::RESP3));
        let client = Client::open(info)?;
        let mut subscriber = client
            .get_multiplexed_async_connection_with_config(&pushes)
            .await?;
        self.choose_beat(&mut subscriber).await?;
        within(async {
            while !self.heard.load(Ordering::Acquire) {
                self.hears.notified().await;
            }
            Ok(())
        })
        .await?;
        self.works.store(true, Ordering::Release);
        self.common.changed.notify_one();
        tokio::select! {
            failed = self.publish(publisher.clone(), publishes) => failed,
            failed = self.follow(subscriber.clone(), follows) => failed,
            failed = self.beat(publisher, subscriber) => failed,
            () = self.lost.notified() => Err(closed("the subscriber's connection was closed")),
        }
    }

    /// Redis says something by the subscriber's connection.
    fn pushed(&self, push: PushInfo) {
        let shared = &self.common.shared;
        if push.kind == PushKind::Disconnection {
            return self.lost.notify_one();
        }
        let mut data = push.data.into_iter();
        let Some(Value::BulkString(channel)) = data.next() else {
            return;
        };
        let channel = String::from_utf8_lossy(&channel);
        let Some(bucket) = shared.bucket(&channel) else {
            let is_beat = *channel == *self.lock_beat();
            if is_beat && matches!(push.kind, PushKind::SMessage | PushKind::SSubscribe) {
                self.heard.store(true, Ordering::Release);
                self.hears.notify_one();
            }
            return;
        };
        let place = &self.common.places[usize::from(bucket)];
        match push.kind {
            PushKind::SMessage => {
                if let Some(Value::BulkString(bytes)) = data.next() {
                    shared.tell(bucket, RelayNews::Message(bytes.into()));
                }
            }
            PushKind::SSubscribe if self.works() => {
                place.store(self.number, Ordering::Release);
                if self.common.up.load(Ordering::Acquire) {
                    shared.tell(bucket, RelayNews::Following(bucket));
                }
            }
            PushKind::SUnsubscribe => {
                let had =
                    place.compare_exchange(self.number, 0, Ordering::AcqRel, Ordering::Acquire);
                let flags = &shared.wanted.flags[usize::from(bucket)];
                if had.is_ok() && flags.load(Ordering::Acquire) & WANTED != 0 {
                    // Its slot went elsewhere, or it was not wanted for a moment: then it is followed again.
                    shared.tell(bucket, RelayNews::Lost);
                    self.common.ask.notify_one();
                }
            }
            _ => (),
        }
    }

    async fn publish(
        &self,
        mut connection: MultiplexedConnection,
        mut publishes: mpsc::Receiver<Publish>,
    ) -> Result<(), RedisError> {
        let shared = &self.common.shared;
        let mut batch = Vec::with_capacity(PUBLISHES_PER_TRIP);
        while publishes.recv_many(&mut batch, PUBLISHES_PER_TRIP).await > 0 {
            let mut pipe = redis::pipe();
            for publish in &batch {
                pipe.cmd("SPUBLISH")
                    .arg(shared.channel(publish.bucket))
                    .arg(&publish.bytes[..]);
            }
            pipe.ignore_errors();
            let answers: Vec<Value> = within(pipe.query_async(&mut connection)).await?;
            for (mut publish, answer) in batch.drain(..).zip(answers) {
                if matches!(answer, Value::ServerError(_)) {
                    // Its slot went elsewhere.
                    self.common.ask.notify_one();
                    publish.sent += 1;
                    if publish.sent < SENDS_MAX {
                        // If too many come back they are found in the store.
                        let _full = self.common.returned.try_send(publish);
                    }
                }
            }
            shared.say_dropped();
        }
        Ok(())
    }

    async fn follow(
        &self,
        mut connection: MultiplexedConnection,
        mut follows: mpsc::UnboundedReceiver<(u16, bool)>,
    ) -> Result<(), RedisError> {
        let shared = &self.common.shared;
        let mut batch = Vec::with_capacity(SUBSCRIBES_PER_TRIP);
        while follows.recv_many(&mut batch, SUBSCRIBES_PER_TRIP).await > 0 {
            let mut pipe = redis::pipe();
            // One channel in each: those of one command must be of one slot.
            for (bucket, wanted) in batch.drain(..) {
                let name = match wanted {
                    true => "SSUBSCRIBE",
                    false => "SUNSUBSCRIBE",
                };
                pipe.cmd(name).arg(shared.channel(bucket));
            }
            pipe.ignore_errors();
            // What was confirmed is told by pushes; what was not is found by the keeper's look.
            let answers: Vec<Value> = within(pipe.query_async(&mut connection)).await?;
            if answers.iter().any(|it| matches!(it, Value::ServerError(_))) {
                self.common.ask.notify_one();
            }
        }
        Ok(())
    }

    async fn beat(
        &self,
        mut connection: MultiplexedConnection,
        mut subscriber: MultiplexedConnection,
    ) -> Result<(), RedisError> {
        let mut heard = Instant::now();
        loop {
            if !self.owns(&self.lock_beat().clone()) {
                self.choose_beat(&mut subscriber).await?;
            }
            let mut beat = redis::cmd("SPUBLISH");
            beat.arg(self.lock_beat().clone()).arg(b"1");
            match within(beat.query_async::<()>(&mut connection)).await {
                // Its slot went elsewhere: another is chosen when the new owners are known.
                Err(error) if error.is_cluster_error() => self.common.ask.notify_one(),
                answer => answer?,
            }
            sleep(HEARTBEAT).await;
            match self.heard.swap(false, Ordering::AcqRel) {
                true => heard = Instant::now(),
                false if heard.elapsed() > SILENCE_MAX => {
                    return Err(closed("no heartbeat came back"));
                }
                false => (),
            }
        }
    }

    /// Subscribes to a heartbeat's channel in a slot of this master; gives up the one before.
    async fn choose_beat(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut names = (0..BEAT_NAMES_MAX).map(|n| self.common.shared.beat_channel(n));
        let Some(name) = names.find(|name| self.owns(name)) else {
            return Err(closed("it has no slot"));
        };
        let before = std::mem::replace(&mut *self.lock_beat(), name.clone());
        let mut pipe = redis::pipe();
        pipe.cmd("SSUBSCRIBE").arg(name);
        if !before.is_empty() {
            pipe.cmd("SUNSUBSCRIBE").arg(before);
        }
        pipe.ignore_errors();
        within(pipe.query_async::<Vec<Value>>(connection)).await?;
        Ok(())
    }

    fn owns(&self, channel: &str) -> bool {
        self.common.topology().owner(topology::slot(channel)) == Some(&self.address)
    }

    fn lock_beat(&self) -> std::sync::MutexGuard<'_, String> {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
