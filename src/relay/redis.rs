//! The relay over Redis pub/sub: a channel for each bucket. On a Redis Cluster it is sharded pub/sub, by
//! `cluster`; on a single Redis it is the plain one, here.
//!
//! Redis loses without a word what it could not deliver, so nothing here is relied upon. Invariants:
//! a shard is told `Following` only after Redis confirmed the subscription, and `Down` before
//! anything that was followed is lost for good; what is wanted survives every connection; the
//! connection is given up when a heartbeat, published on the one connection and received on the
//! other, does not come back, which also finds a Redis that stalls; a call never blocks.

mod cluster;
mod topology;

use crate::chat::port::{Relay, RelayCall, RelayNews, RelaySink};
use crate::limits::RELAY_BUCKETS;
use crossbeam_queue::ArrayQueue;
use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, Client, RedisError};
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use topology::{Address, Answer, Topology};

/// Messages that wait to be published; more are dropped.
const PUBLISHES_MAX: usize = 16_384;
/// Messages published by one round trip.
const PUBLISHES_PER_TRIP: usize = 512;
/// Channels named in one SUBSCRIBE.
const SUBSCRIBES_PER_TRIP: usize = 512;
/// A connection, or an answer, that takes longer is given up.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A heartbeat is sent this often.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// Without a heartbeat heard for so long the connection is given up.
const SILENCE_MAX: Duration = Duration::from_millis(2_500);
/// Between two tries to connect: the first is nearly at once.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The relay, and its thread. Dropping it ends the thread.
pub struct RedisRelay {
    shared: Arc<Shared>,
    publishes: mpsc::Sender<(u16, Box<[u8]>)>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    /// One Redis, or several nodes of a cluster: the next is tried when one fails. A cluster's other nodes
    /// are learned from it.
    clients: Vec<Client>,
    prefix: String,
    /// Names this node's heartbeat.
    run: u64,
    shards: OnceLock<Vec<Arc<dyn RelaySink>>>,
    wanted: Wanted,
    stop: AtomicBool,
    stopped: Notify,
    /// Messages that were dropped because too many waited, and not told of yet.
    dropped: AtomicU64,
}

/// Which buckets are wanted, and those of which that has changed.
struct Wanted {
    /// By bucket: [`WANTED`] and [`NOTED`].
    flags: Vec<AtomicU8>,
    /// Each bucket at most once.
    changed: ArrayQueue<u16>,
    notify: Notify,
}

const WANTED: u8 = 1;
/// It stands in `changed`.
const NOTED: u8 = 2;

impl Wanted {
    fn new() -> Wanted {
        let buckets = usize::from(RELAY_BUCKETS);
        Wanted {
            flags: (0..buckets).map(|_| AtomicU8::new(0)).collect(),
            changed: ArrayQueue::new(buckets),
            notify: Notify::new(),
        }
    }

    fn set(&self, bucket: u16, wanted: bool) {
        let Some(flags) = self.flags.get(usize::from(bucket)) else {
            return;
        };
        match wanted {
            true => flags.fetch_or(WANTED, Ordering::AcqRel),
            false => flags.fetch_and(!WANTED, Ordering::AcqRel),
        };
        self.note(bucket);
    }

    fn note(&self, bucket: u16) {
        if self.flags[usize::from(bucket)].fetch_or(NOTED, Ordering::AcqRel) & NOTED == 0 {
            // It has a place for every bucket.
            let _has_room = self.changed.push(bucket);
            self.notify.notify_one();
        }
    }

    /// The next bucket to look at, and whether it is wanted.
    fn next(&self) -> Option<(u16, bool)> {
        let bucket = self.changed.pop()?;
        let before = self.flags[usize::from(bucket)].fetch_and(!NOTED, Ordering::AcqRel);
        Some((bucket, before & WANTED != 0))
    }

    /// Notes all that are wanted: nothing is subscribed to on a new connection.
    fn note_all(&self) {
        for bucket in 0..self.flags.len() as u16 {
            if self.flags[usize::from(bucket)].load(Ordering::Acquire) & WANTED != 0 {
                self.note(bucket);
            }
        }
    }
}

impl std::fmt::Debug for RedisRelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisRelay").finish_non_exhaustive()
    }
}

impl RedisRelay {
    /// Starts the thread, which connects by itself, now or when Redis is there. `urls` are
    /// `redis://` or `rediss://`, of one Redis or of several nodes of a cluster; deployments that share
    /// a Redis differ in `prefix`; `run` is a random number for this run of the node.
    ///
    /// # Errors
    /// A URL that makes no sense, or a thread that cannot be started.
    pub fn start(urls: &[&str], prefix: &str, run: u64) -> io::Result<RedisRelay> {
        let clients = urls.iter().map(|url| Client::open(*url));
        let clients = clients
            .collect::<Result<Vec<_>, _>>()
            .map_err(io::Error::other)?;
        if clients.is_empty() {
            return Err(io::Error::other("no address"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (publishes, waiting) = mpsc::channel(PUBLISHES_MAX);
        let shared = Arc::new(Shared {
            clients,
            prefix: prefix.to_owned(),
            run,
            shards: OnceLock::new(),
            wanted: Wanted::new(),
            stop: AtomicBool::new(false),
            stopped: Notify::new(),
            dropped: AtomicU64::new(0),
        });
        let own = shared.clone();
        let thread = std::thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || runtime.block_on(own.run(waiting)))?;
        Ok(RedisRelay {
            shared,
            publishes,
            thread: Some(thread),
        })
    }
}

impl Relay for RedisRelay {
    fn attach(&self, shards: Vec<Arc<dyn RelaySink>>) {
        assert!(
            self.shared.shards.set(shards).is_ok(),
            "a relay is attached once"
        );
        self.shared.wanted.notify.notify_one();
    }

    fn submit(&self, call: RelayCall) {
        match call {
            RelayCall::Publish(bucket, bytes) => {
                if self.publishes.try_send((bucket, bytes)).is_err() {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            RelayCall::Follow(bucket) => self.shared.wanted.set(bucket, true),
            RelayCall::Unfollow(bucket) => self.shared.wanted.set(bucket, false),
        }
    }
}

impl Drop for RedisRelay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.stopped.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the relay's thread panicked");
        }
    }
}

type Publishes = mpsc::Receiver<(u16, Box<[u8]>)>;

impl Shared {
    async fn run(self: Arc<Self>, mut publishes: Publishes) {
        tokio::select! {
            () = self.stopped.notified() => (),
            () = self.keep_connected(&mut publishes) => (),
        }
    }

    async fn keep_connected(self: &Arc<Self>, publishes: &mut Publishes) {
        while self.shards.get().is_none() {
            self.wanted.notify.notified().await;
        }
        let mut wait = RETRY_FIRST;
        let mut said = false;
        let mut clients = self.clients.iter().cycle();
        while !self.stop.load(Ordering::Acquire) {
            let Some(client) = clients.next() else { return };
            match self.connect(client).await {
                Ok(Found::Cluster(topology)) => {
                    (wait, said) = (RETRY_FIRST, false);
                    let seed = client.get_connection_info();
                    let error = cluster::serve(self, seed, topology, publishes).await;
                    tracing::warn!(%error, "the relay's cluster is lost; the store is looked at instead");
                }
                Ok(Found::Single(connection)) => {
                    tracing::info!("the relay is connected");
                    (wait, said) = (RETRY_FIRST, false);
                    // What waited for a connection was found in the store by now. Before `Up`:
                    // whoever publishes after it must not lose that.
                    while publishes.try_recv().is_ok() {}
                    self.dropped.store(0, Ordering::Relaxed);
                    self.tell_all(&RelayNews::Up);
                    let error = self.serve(connection, publishes).await;
                    self.tell_all(&RelayNews::Down);
                    tracing::warn!(%error, "the relay is lost; the store is looked at instead");
                }
                Err(error) if !said => {
                    said = true;
                    tracing::warn!(%error, "no connection to the relay; the store is looked at instead");
                }
                Err(_) => (),
            }
            sleep(spread(wait)).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn connect(&self, client: &Client) -> Result<Found, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER_MAX))
            .set_response_timeout(Some(ANSWER_MAX));
        let mut publisher = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        if let Some(address) = Address::of(client.get_connection_info().addr())
            && let Answer::Cluster { topology, .. } =
                topology::ask(&mut publisher, &address).await?
        {
            return Ok(Found::Cluster(topology));
        }
        let subscriber = within(client.get_async_pubsub()).await?;
        let (mut sink, stream) = subscriber.split();
        within(sink.subscribe(self.heartbeat_channel())).await?;
        Ok(Found::Single(Connection {
            publisher,
            sink,
            stream,
        }))
    }

    /// Works until something fails; says what.
    async fn serve(&self, connection: Connection, publishes: &mut Publishes) -> RedisError {
        let Connection {
            publisher,
            sink,
            stream,
        } = connection;
        self.wanted.note_all();
        let heard = Cell::new(Instant::now());
        let failed = tokio::select! {
            failed = self.publish(publisher.clone(), publishes) => failed,
            failed = self.subscribe(sink) => failed,
            failed = self.listen(stream, &heard) => failed,
            failed = self.beat(publisher, &heard) => failed,
        };
        failed.err().unwrap_or_else(|| closed("ended"))
    }

    async fn publish(
        &self,
        mut connection: MultiplexedConnection,
        publishes: &mut Publishes,
    ) -> Result<(), RedisError> {
        let mut batch = Vec::with_capacity(PUBLISHES_PER_TRIP);
        while publishes.recv_many(&mut batch, PUBLISHES_PER_TRIP).await > 0 {
            let mut pipe = redis::pipe();
            for (bucket, bytes) in batch.drain(..) {
                pipe.cmd("PUBLISH")
                    .arg(self.channel(bucket))
                    .arg(&bytes[..])
                    .ignore();
            }
            within(pipe.query_async::<()>(&mut connection)).await?;
            self.say_dropped();
        }
        Ok(())
    }

    fn say_dropped(&self) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(
                dropped,
                "too much to publish; other nodes find it in the store"
            );
        }
    }

    async fn subscribe(&self, mut sink: PubSubSink) -> Result<(), RedisError> {
        loop {
            let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
            while wanted.len() + unwanted.len() < SUBSCRIBES_PER_TRIP
                && let Some((bucket, want)) = self.wanted.next()
            {
                match want {
                    true => wanted.push(bucket),
                    false => unwanted.push(bucket),
                }
            }
            if wanted.is_empty() && unwanted.is_empty() {
                self.wanted.notify.notified().await;
            }
            // One of which that changes meanwhile stands in the queue again.
            if !unwanted.is_empty() {
                within(sink.unsubscribe(self.channels(&unwanted))).await?;
            }
            if !wanted.is_empty() {
                within(sink.subscribe(self.channels(&wanted))).await?;
            }
            for bucket in wanted {
                self.tell(bucket, RelayNews::Following(bucket));
            }
        }
    }

    async fn listen(
        &self,
        mut stream: PubSubStream,
        heard: &Cell<Instant>,
    ) -> Result<(), RedisError> {
        let heartbeat = self.heartbeat_channel();
        while let Some(message) = stream.next().await {
            let channel = message.get_channel_name();
            if channel == heartbeat {
                heard.set(Instant::now());
            } else if let Some(bucket) = self.bucket(channel) {
                let bytes = message.get_payload_bytes().into();
                self.tell(bucket, RelayNews::Message(bytes));
            }
        }
        Err(closed("the subscriber's connection was closed"))
    }

    async fn beat(
        &self,
        mut connection: MultiplexedConnection,
        heard: &Cell<Instant>,
    ) -> Result<(), RedisError> {
        loop {
            let mut beat = redis::cmd("PUBLISH");
            beat.arg(self.heartbeat_channel()).arg(b"1");
            within(beat.query_async::<()>(&mut connection)).await?;
            sleep(HEARTBEAT).await;
            if heard.get().elapsed() > SILENCE_MAX {
                return Err(closed("no heartbeat came back"));
            }
        }
    }

    fn heartbeat_channel(&self) -> String {
        format!("{}:beat:{:016x}", self.prefix, self.run)
    }

    /// One of a cluster's heartbeats: these numbers are spread over all slots.
    fn beat_channel(&self, number: u32) -> String {
        format!("{}:beat:{:016x}:{number}", self.prefix, self.run)
    }

    fn channel(&self, bucket: u16) -> String {
        format!("{}:{bucket}", self.prefix)
    }

    fn channels(&self, buckets: &[u16]) -> Vec<String> {
        buckets.iter().map(|bucket| self.channel(*bucket)).collect()
    }

    fn bucket(&self, channel: &str) -> Option<u16> {
        let bucket = channel.strip_prefix(&*self.prefix)?.strip_prefix(':')?;
        bucket.parse().ok().filter(|bucket| *bucket < RELAY_BUCKETS)
    }

    fn tell(&self, bucket: u16, news: RelayNews) {
        if let Some(shards) = self.shards.get() {
            shards[usize::from(bucket) % shards.len()].news(news);
        }
    }

    fn tell_all(&self, news: &RelayNews) {
        for shard in self.shards.get().into_iter().flatten() {
            shard.news(news.clone());
        }
    }
}

enum Found {
    Single(Connection),
    Cluster(Topology),
}

struct Connection {
    publisher: MultiplexedConnection,
    sink: PubSubSink,
    stream: PubSubStream,
}

/// The answer, unless it takes too long.
async fn within<T>(answer: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
    timeout(ANSWER_MAX, answer)
        .await
        .unwrap_or_else(|_| Err(closed("no answer in time")))
}

fn closed(why: &'static str) -> RedisError {
    RedisError::from(io::Error::new(io::ErrorKind::TimedOut, why))
}

/// About so long: nodes that lost it together do not come back together.
fn spread(wait: Duration) -> Duration {
    wait.mul_f64(0.5 + f64::from(jitter()) / f64::from(u32::MAX) / 2.0)
}

/// Some number, for spreading.
fn jitter() -> u32 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.subsec_nanos().wrapping_mul(0x9e37_79b9))
}
