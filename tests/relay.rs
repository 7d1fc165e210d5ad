//! The relay over a real Redis: what arrives, what is said when it does not, and that it comes back.

#[path = "relay/cluster.rs"]
mod cluster;
#[path = "support/redis.rs"]
mod redis;
#[path = "support/redis_cluster.rs"]
mod redis_cluster;

use caffis_chat::chat::port::{Relay, RelayCall, RelayNews, RelaySink};
use caffis_chat::limits::{RELAY_BUCKETS, USERS_BUCKET};
use caffis_chat::relay::redis::RedisRelay;
use redis::Redis;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// For what takes milliseconds; generous, as the machine may be busy.
const WAIT: Duration = Duration::from_secs(20);

struct Sink(Mutex<Sender<RelayNews>>);

impl RelaySink for Sink {
    fn news(&self, news: RelayNews) {
        // The test may have ended.
        let _heard = self.0.lock().expect("not poisoned").send(news);
    }
}

/// A node of two shards.
struct Node {
    relay: RedisRelay,
    shards: Vec<Receiver<RelayNews>>,
}

impl Node {
    fn start(redis: &Redis) -> Node {
        Node::at(&[redis.url()])
    }

    fn at(urls: &[String]) -> Node {
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let urls: Vec<&str> = urls.iter().map(|url| &**url).collect();
        let relay = RedisRelay::start(&urls, "test", run).expect("a relay");
        let (mut sinks, mut shards) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (sink, news) = channel();
            sinks.push(Arc::new(Sink(Mutex::new(sink))) as Arc<dyn RelaySink>);
            shards.push(news);
        }
        relay.attach(sinks);
        Node { relay, shards }
    }

    fn hears(&self, shard: usize, expected: &RelayNews) {
        let deadline = Instant::now() + WAIT;
        let mut heard = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.shards[shard].recv_timeout(left) {
                Ok(news) if news == *expected => return,
                Ok(news) => heard.push(news),
                Err(_) => panic!("{expected:?} was not heard, only {heard:?}"),
            }
        }
    }

    fn follow(&self, bucket: u16) {
        self.relay.submit(RelayCall::Follow(bucket));
        self.hears(usize::from(bucket) % 2, &RelayNews::Following(bucket));
    }

    fn publish(&self, bucket: u16, text: &str) {
        let bytes = text.as_bytes().into();
        self.relay.submit(RelayCall::Publish(bucket, bytes));
    }
}

fn message(text: &str) -> RelayNews {
    RelayNews::Message(text.as_bytes().into())
}

#[test]
fn what_is_published_reaches_every_node_that_follows_in_order() {
    let redis = Redis::start();
    let (a, b, c) = (
        Node::start(&redis),
        Node::start(&redis),
        Node::start(&redis),
    );
    for node in [&a, &b] {
        node.follow(7);
    }
    c.follow(8);
    for n in 0..1_000 {
        a.publish(7, &format!("{n}"));
    }
    a.publish(8, "to c");
    for node in [&a, &b] {
        for n in 0..1_000 {
            let news = node.shards[1].recv_timeout(WAIT);
            assert_eq!(news, Ok(message(&format!("{n}"))));
        }
    }
    // It never hears of 7.
    assert_eq!(c.shards[0].recv_timeout(WAIT), Ok(message("to c")));
}

#[test]
fn every_bucket_can_be_followed_at_once() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    for bucket in 0..RELAY_BUCKETS {
        b.relay.submit(RelayCall::Follow(bucket));
    }
    let confirmed = |shard: usize, expected: usize| {
        for _ in 0..expected {
            let news = b.shards[shard].recv_timeout(WAIT).expect("news");
            assert!(
                matches!(news, RelayNews::Up | RelayNews::Following(_)),
                "{news:?}"
            );
        }
    };
    let buckets = usize::from(RELAY_BUCKETS);
    // Each shard also hears that the relay is up.
    confirmed(0, buckets.div_ceil(2) + 1);
    confirmed(1, buckets / 2 + 1);
    a.hears(0, &RelayNews::Up);
    a.publish(USERS_BUCKET, "users");
    b.hears(usize::from(USERS_BUCKET) % 2, &message("users"));
}

#[test]
fn a_bucket_that_is_no_longer_wanted_is_not_heard() {
    let redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    a.hears(0, &RelayNews::Up);
    b.follow(2);
    b.follow(4);
    b.relay.submit(RelayCall::Unfollow(2));
    // One of the same shard that is confirmed later: by then the other is gone.
    b.follow(6);
    a.publish(2, "nobody");
    a.publish(4, "somebody");
    assert_eq!(b.shards[0].recv_timeout(WAIT), Ok(message("somebody")));
}

#[test]
fn a_killed_redis_is_told_of_and_what_was_followed_is_followed_again() {
    let mut redis = Redis::start();
    let (a, b) = (Node::start(&redis), Node::start(&redis));
    a.hears(0, &RelayNews::Up);
    b.follow(2);
    redis.kill();
    for shard in 0..2 {
        a.hears(shard, &RelayNews::Down);
        b.hears(shard, &RelayNews::Down);
    }
    // What is wanted while it is away is followed too, what is published then is not kept.
    b.relay.submit(RelayCall::Follow(4));
    a.publish(2, "lost");
    redis.restart();
    b.hears(0, &RelayNews::Up);
    a.hears(0, &RelayNews::Up);
    let mut followed = [
        b.shards[0].recv_timeout(WAIT),
        b.shards[0].recv_timeout(WAIT),
    ];
    followed.sort_by_key(|news| format!("{news:?}"));
    let expected = [Ok(RelayNews::Following(2)), Ok(RelayNews::Following(4))];
    assert_eq!(followed, expected);
    a.publish(2, "heard");
    assert_eq!(b.shards[0].recv_timeout(WAIT), Ok(message("heard")));
}

#[test]
fn a_redis_that_stalls_is_told_of() {
    let redis = Redis::start();
    let a = Node::start(&redis);
    a.follow(2);
    redis.signal("STOP");
    a.hears(0, &RelayNews::Down);
    redis.signal("CONT");
    a.hears(0, &RelayNews::Up);
    a.hears(0, &RelayNews::Following(2));
}

#[test]
fn a_relay_without_redis_starts_and_ends() {
    let mut redis = Redis::start();
    redis.kill();
    let a = Node::start(&redis);
    a.publish(1, "nobody");
    redis.restart();
    a.hears(1, &RelayNews::Up);
    drop(a);
}

#[test]
fn an_address_that_makes_no_sense_is_refused() {
    assert!(RedisRelay::start(&["http://127.0.0.1"], "test", 1).is_err());
    assert!(RedisRelay::start(&[], "test", 1).is_err());
}
