//! A client that stops reading: it is closed, holds little until then, harms nobody, and comes back
//! to everything.

use crate::support::client::message;
use crate::support::follower::Follower;
use crate::support::pair::Pair;
use crate::support::socket::{End, Frame};
use crate::support::{Client, Server, User};
use serde_json::Value;
use std::collections::BTreeMap;
use uuid::Uuid;

/// What one connection may have waiting, bytes.
const OUTBOX_BYTES_MAX: f64 = 1_048_576.0;

struct Sent {
    /// Acknowledged, by `seq`.
    messages: BTreeMap<u64, Uuid>,
}

impl Sent {
    /// Sends so many messages, which a reader takes as they come.
    fn send(&mut self, [sender, reader]: &mut [Client; 2], room: Uuid, text: &str, count: usize) {
        for _ in 0..count {
            let id = Uuid::now_v7();
            let sent = sender.ack("message.send", &message(room, id, text));
            let seq = sent["seq"].as_u64().expect("a seq");
            self.messages.insert(seq, id);
            reader.wait_for_seq(room, seq);
            reader.take_events();
        }
        sender.take_events();
    }
}

#[test]
fn a_reader_that_stalls_is_closed_4200_with_a_bounded_queue_and_comes_back_to_everything() {
    let server = Server::unlimited();
    let pair = Pair::start(&server);
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    drop(server.connect(&eve));
    let mut others = [server.connect_on(0, &ada), server.connect_on(1, &bob)];
    let room = others[0].group(&[&bob, &eve]);
    let mut follower = Follower::new(&eve);
    let mut stalled = follower.connect(&server);
    let mut sent = Sent {
        messages: BTreeMap::new(),
    };
    // 16 KB a message. First the buffers of both sockets fill, then the outbox begins to.
    let text = "😀".repeat(4_000);
    let mut held = 0.0;
    let deliveries_before = server.metrics().sum("caffis_deliveries_total");
    while held == 0.0 {
        assert!(sent.messages.len() < 4_096, "64 MB went nowhere");
        sent.send(&mut others, room, &text, 16);
        let expected = 3 * sent.messages.len();
        // The pair's own deliveries come on top.
        let metrics = server.wait_for_metrics("the counters", |metrics| {
            let delivered = metrics.sum("caffis_deliveries_total") - deliveries_before;
            delivered >= expected as f64 && metrics.sum("caffis_outbox_bytes") <= OUTBOX_BYTES_MAX
        });
        held = metrics.sum("caffis_outbox_bytes");
        assert_eq!(metrics.sum("caffis_closed_slow_total"), 0.0);
    }
    assert!(held <= OUTBOX_BYTES_MAX, "{held} bytes are held");
    // More than is left of its budget.
    sent.send(&mut others, room, &text, 80);
    let last_seq = *sent.messages.keys().last().expect("something was sent");
    // The close comes behind what the buffers held, to one who reads again in time.
    let mut before_close = Vec::new();
    let end = loop {
        match stalled.socket.read() {
            Ok(Frame::Text(text)) => before_close.push(text),
            Ok(Frame::Pong(_)) => (),
            Err(end) => break end,
        }
    };
    assert_eq!(end, End::Close(Some(4200), "slow_consumer".to_owned()));
    let mut position = follower.positions[&room];
    for text in &before_close {
        let event: Value = serde_json::from_str(text).expect("JSON");
        position += 1;
        assert_eq!(
            event["seq"], position,
            "what came before the close has no hole"
        );
        let seen = follower.seen.entry(room).or_default();
        seen.insert(position, event["data"]["message"]["client_msg_id"].clone());
    }
    follower.positions.insert(room, position);
    assert!(
        position < last_seq,
        "it was closed because it had not read everything"
    );

    // Nobody else noticed: the reader has had each message before the next one was sent.
    pair.stop();
    let metrics = server.wait_for_metrics("the close", |metrics| {
        metrics.sum("caffis_closed_slow_total") == 1.0 && metrics.sum("caffis_outbox_bytes") == 0.0
    });
    assert_eq!(metrics.sum("caffis_anomalies_total"), 0.0);

    let mut back = follower.connect(&server);
    sent.send(&mut others, room, "Welcome back.", 1);
    let last_seq = *sent.messages.keys().last().expect("something was sent");
    follower.catch_up(&mut back, room, last_seq);
    let seen: BTreeMap<u64, String> = (follower.seen[&room].iter())
        .map(|(seq, id)| (*seq, id.as_str().expect("a message").to_owned()))
        .collect();
    let expected = sent
        .messages
        .iter()
        .map(|(seq, id)| (*seq, id.to_string()))
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_replay_that_is_read_slowly_never_counts_as_slow() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    drop(server.connect(&bob));
    let mut sender = server.connect_on(0, &ada);
    let rooms: Vec<Uuid> = (0..6).map(|_| sender.group(&[&bob])).collect();
    let mut follower = Follower::new(&bob);
    drop(follower.connect(&server));
    // 12 × 16 KB in each of six rooms: more than an outbox may hold, in rooms that are all small
    // enough to be replayed, though not all of them to one connection.
    let text = "😀".repeat(4_000);
    let mut last = Vec::new();
    for room in &rooms {
        let mut last_seq = 0;
        for _ in 0..12 {
            last_seq = sender.send(*room, &text);
        }
        last.push(last_seq);
    }
    let mut reader = follower.connect(&server);
    assert!(follower.recovered >= 4, "{}", follower.recovered);
    // Nothing is read of it until much else has happened.
    for _ in 0..20 {
        sender.round_trip();
    }
    for (room, seq) in rooms.iter().zip(last) {
        follower.catch_up(&mut reader, *room, seq);
    }
    let closed = server.metrics().sum("caffis_closed_slow_total");
    assert_eq!(closed, 0.0);
}
