//! Over a real Redis Cluster: each bucket on the master of its slot, and masters that die, stall and give
//! slots away.

use super::redis_cluster::{Cluster, until};
use super::{Node, WAIT, message};
use caffis_chat::chat::port::{Relay, RelayCall, RelayNews};
use caffis_chat::limits::{RELAY_BUCKETS, USERS_BUCKET};
use std::time::Instant;

fn channel(bucket: u16) -> String {
    format!("test:{bucket}")
}

/// A bucket of the first shard whose slot this master has at the beginning.
fn bucket_on(cluster: &Cluster, master: usize) -> u16 {
    let mut buckets = (0..USERS_BUCKET).step_by(2);
    let found = buckets.find(|bucket| cluster.owner(&channel(*bucket)) == master);
    found.expect("a bucket")
}

impl Node {
    fn of(cluster: &Cluster) -> Node {
        Node::at(&cluster.urls())
    }

    /// Publishes until it is heard here: what is published to a master that changes may be lost.
    fn comes_through(&self, to: &Node, bucket: u16, text: &str) {
        let deadline = Instant::now() + WAIT;
        loop {
            self.publish(bucket, text);
            let news = to.shards[usize::from(bucket) % 2].recv_timeout(WAIT / 100);
            if news == Ok(message(text)) {
                return;
            }
            assert!(Instant::now() < deadline, "{text:?} is not heard");
        }
    }
}

#[test]
fn every_bucket_is_carried_by_the_master_of_its_slot_and_by_no_other() {
    let cluster = Cluster::start(3, 0);
    // One address of the cluster is enough.
    let (a, b) = (Node::at(&cluster.urls()[..1]), Node::of(&cluster));
    let buckets = usize::from(RELAY_BUCKETS);
    for bucket in 0..RELAY_BUCKETS {
        b.relay.submit(RelayCall::Follow(bucket));
    }
    let mut confirmed = vec![false; buckets];
    while confirmed.contains(&false) {
        for shard in &b.shards {
            match shard.recv_timeout(WAIT / 100) {
                Ok(RelayNews::Following(bucket)) => confirmed[usize::from(bucket)] = true,
                Ok(RelayNews::Up) | Err(_) => (),
                Ok(other) => panic!("{other:?}"),
            }
        }
    }
    // Nobody listens by plain pub/sub, which goes to every node.
    let mut carried = 0;
    for node in &cluster.nodes {
        assert_eq!(node.cli(&["PUBSUB", "CHANNELS"]), "");
        let channels = node.cli(&["PUBSUB", "SHARDCHANNELS", "test:*"]);
        let own = channels.lines().filter(|it| !it.contains("beat")).count();
        assert!(own > buckets / 4, "{own} buckets of {buckets}");
        carried += own;
    }
    assert_eq!(carried, buckets);
    for bucket in [0, 1, 77, USERS_BUCKET] {
        let channel = channel(bucket);
        for (place, node) in cluster.nodes.iter().enumerate() {
            let here = u32::from(place == cluster.owner(&channel));
            assert_eq!(node.listeners(&channel), here, "{channel} on {place}");
        }
    }
    a.hears(0, &RelayNews::Up);
    for bucket in 0..RELAY_BUCKETS {
        a.publish(bucket, &format!("{bucket}"));
        // It has a queue; to fill it is another test.
        if bucket % 1_000 == 0 || bucket == USERS_BUCKET {
            b.hears(usize::from(bucket) % 2, &message(&format!("{bucket}")));
        }
    }
}

#[test]
fn messages_of_a_bucket_come_in_order_and_only_while_it_is_wanted() {
    let cluster = Cluster::start(3, 0);
    let (a, b) = (Node::of(&cluster), Node::of(&cluster));
    a.hears(0, &RelayNews::Up);
    let [first, second, third] = [0, 1, 2].map(|master| bucket_on(&cluster, master));
    b.follow(first);
    b.follow(second);
    b.follow(third);
    for n in 0..1_000 {
        a.publish(second, &format!("{n}"));
    }
    for n in 0..1_000 {
        assert_eq!(b.shards[0].recv_timeout(WAIT), Ok(message(&format!("{n}"))));
    }
    b.relay.submit(RelayCall::Unfollow(first));
    until("it is not listened to", || {
        cluster.nodes[0].listeners(&channel(first)) == 0
    });
    a.publish(first, "nobody");
    a.comes_through(&b, third, "somebody");
}

#[test]
fn a_killed_master_is_told_of_the_others_go_on_and_it_comes_back() {
    let mut cluster = Cluster::start(3, 0);
    let (a, b) = (Node::of(&cluster), Node::of(&cluster));
    a.hears(0, &RelayNews::Up);
    let (lost, kept) = (bucket_on(&cluster, 2), bucket_on(&cluster, 0));
    b.follow(lost);
    b.follow(kept);
    cluster.nodes[2].kill();
    for shard in 0..2 {
        a.hears(shard, &RelayNews::Down);
        b.hears(shard, &RelayNews::Down);
    }
    // Nobody took its slots over; those of others carry on meanwhile.
    a.comes_through(&b, kept, "meanwhile");
    a.publish(lost, "lost");
    cluster.nodes[2].restart();
    b.hears(0, &RelayNews::Up);
    let mut told = [lost, kept];
    told.sort_unstable();
    // Both are told again, in some order: what is confirmed holds only while it is up.
    let mut heard = [
        b.shards[0].recv_timeout(WAIT),
        b.shards[0].recv_timeout(WAIT),
    ];
    heard.sort_by_key(|news| match news {
        Ok(RelayNews::Following(bucket)) => *bucket,
        other => panic!("{other:?}"),
    });
    assert_eq!(heard, told.map(|bucket| Ok(RelayNews::Following(bucket))));
    a.hears(0, &RelayNews::Up);
    a.comes_through(&b, lost, "heard");
    a.comes_through(&b, kept, "heard too");
}

#[test]
fn a_promoted_replica_is_followed() {
    let mut cluster = Cluster::start(3, 1);
    let (a, b) = (Node::of(&cluster), Node::of(&cluster));
    a.hears(0, &RelayNews::Up);
    let bucket = bucket_on(&cluster, 0);
    b.follow(bucket);
    cluster.nodes[0].kill();
    b.hears(0, &RelayNews::Down);
    b.hears(0, &RelayNews::Up);
    b.hears(0, &RelayNews::Following(bucket));
    a.hears(0, &RelayNews::Down);
    a.hears(0, &RelayNews::Up);
    a.comes_through(&b, bucket, "by the replica");
    assert_eq!(cluster.nodes[3].listeners(&channel(bucket)), 1);
}

#[test]
fn a_slot_that_moves_is_followed_to_its_new_master() {
    let cluster = Cluster::start(3, 0);
    let (a, b) = (Node::of(&cluster), Node::of(&cluster));
    a.hears(0, &RelayNews::Up);
    let (moves, stays) = (bucket_on(&cluster, 0), bucket_on(&cluster, 2));
    b.follow(moves);
    b.follow(stays);
    cluster.migrate(cluster.slot(&channel(moves)), 0, 1);
    // What may have been lost is told, then that it is followed again; nothing else is disturbed.
    assert_eq!(b.shards[0].recv_timeout(WAIT), Ok(RelayNews::Lost));
    assert_eq!(
        b.shards[0].recv_timeout(WAIT),
        Ok(RelayNews::Following(moves))
    );
    assert_eq!(cluster.nodes[1].listeners(&channel(moves)), 1);
    assert_eq!(cluster.nodes[0].listeners(&channel(moves)), 0);
    // The other node, which does not follow it, learns of it when it publishes: not even this is lost.
    a.publish(moves, "to its new master");
    assert_eq!(
        b.shards[0].recv_timeout(WAIT),
        Ok(message("to its new master"))
    );
    a.publish(stays, "as ever");
    assert_eq!(b.shards[0].recv_timeout(WAIT), Ok(message("as ever")));
    assert!(
        a.shards[1]
            .try_recv()
            .is_ok_and(|news| news == RelayNews::Up)
    );
    assert!(a.shards[1].try_recv().is_err(), "it was never away");
}

#[test]
fn the_heartbeat_moves_with_its_slot() {
    let cluster = Cluster::start(3, 0);
    let a = Node::of(&cluster);
    a.hears(0, &RelayNews::Up);
    let beats = |place: usize| cluster.nodes[place].cli(&["PUBSUB", "SHARDCHANNELS", "*:beat:*"]);
    let before = beats(0);
    cluster.migrate(cluster.slot(&before), 0, 1);
    until("another channel is chosen", || {
        let now = beats(0);
        now != before && !now.is_empty()
    });
    a.follow(bucket_on(&cluster, 0));
    assert!(a.shards[0].try_recv().is_err(), "it was never away");
}

#[test]
fn a_master_that_stalls_is_told_of() {
    let cluster = Cluster::start(3, 0);
    let a = Node::of(&cluster);
    a.hears(0, &RelayNews::Up);
    cluster.nodes[1].signal("STOP");
    a.hears(0, &RelayNews::Down);
    cluster.nodes[1].signal("CONT");
    a.hears(0, &RelayNews::Up);
}
