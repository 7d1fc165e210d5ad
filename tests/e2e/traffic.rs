//! Coming and going in the middle of traffic: whatever the moment, everything comes once.

use crate::support::client::message;
use crate::support::follower::Follower;
use crate::support::wait::DEADLINE;
use crate::support::{Client, Server, User};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use uuid::Uuid;

/// Somebody who sends to these rooms in turn until told to stop: every message that was
/// acknowledged, by room and `seq`.
fn sender(
    mut client: Client,
    rooms: Vec<Uuid>,
    stop: Arc<AtomicBool>,
) -> JoinHandle<BTreeMap<Uuid, BTreeMap<u64, Uuid>>> {
    thread::spawn(move || {
        let mut acked: BTreeMap<Uuid, BTreeMap<u64, Uuid>> = BTreeMap::new();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            for room in &rooms {
                number += 1;
                let id = Uuid::now_v7();
                let sent = client.ack("message.send", &message(*room, id, &number.to_string()));
                let seq = sent["seq"].as_u64().expect("a seq");
                let again = acked.entry(*room).or_default().insert(seq, id);
                assert_eq!(again, None, "one seq, one message");
            }
            client.take_events();
            // A pause in which the events come in: neither a burst nor a trickle.
            let _nothing_came = client.receive(Duration::from_millis(2));
        }
        acked
    })
}

#[test]
fn a_client_that_reconnects_in_the_middle_of_traffic_gets_everything_once() {
    const RECONNECTS: usize = 150;
    let server = Server::unlimited();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    drop(server.connect(&eve));
    let mut first = server.connect_on(0, &ada);
    let second = server.connect_on(1, &bob);
    // Rooms of either home, each with a sender on either shard.
    let rooms: Vec<Uuid> = (0..4).map(|_| first.group(&[&bob, &eve])).collect();
    let mut follower = Follower::new(&eve);
    drop(follower.connect(&server));
    assert_eq!(follower.positions.len(), rooms.len());

    let stop = Arc::new(AtomicBool::new(false));
    let senders = [first, second].map(|client| sender(client, rooms.clone(), stop.clone()));
    for round in 0..RECONNECTS {
        let mut client = follower.connect(&server);
        // Leaves at another moment each time: at once, in the middle of a replay, after some live
        // events; by a close frame or without a word.
        for _ in 0..(round * 7) % 40 {
            client.receive(DEADLINE).expect("there is traffic");
        }
        follower.take(&mut client);
        if round % 3 == 0 {
            client.socket.send_frame(8, &1000_u16.to_be_bytes());
        }
    }
    stop.store(true, Ordering::Relaxed);
    let sent = senders.map(|thread| thread.join().expect("a sender"));

    let mut client = follower.connect(&server);
    for room in &rooms {
        let last_seq = sent
            .iter()
            .filter_map(|sent| sent[room].keys().last())
            .max();
        follower.catch_up(&mut client, *room, *last_seq.expect("something was sent"));
        let mut expected = BTreeMap::new();
        for (seq, id) in sent.iter().flat_map(|sent| &sent[room]) {
            let again = expected.insert(*seq, json!(id));
            assert_eq!(again, None, "one seq, one message");
        }
        assert_eq!(follower.seen[room], expected);
    }
    assert!(follower.recovered > RECONNECTS, "{}", follower.recovered);
}

#[test]
fn members_who_come_and_go_in_the_middle_of_traffic_hear_their_part_without_a_gap() {
    let server = Server::unlimited();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut devices = [server.connect_on(0, &eve), server.connect_on(1, &eve)];
    let mut owner = server.connect_on(0, &ada);
    let bob_client = server.connect_on(1, &bob);
    let room = owner.group(&[&bob]);
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = sender(bob_client, vec![room], stop.clone());
    let members = json!({"room_id": room, "user_ids": [eve.id]});
    for _ in 0..40 {
        let joined = owner.ack("room.members.add", &members)["seq"].clone();
        let left = owner.ack("room.members.remove", &members)["seq"].clone();
        assert!(left.as_u64() > joined.as_u64());
        owner.take_events();
        for device in &mut devices {
            // A client's own rules see to it that there is no hole. Whoever comes and goes faster
            // than they can be told may not hear of it at all.
            device.round_trip();
            device.take_events();
        }
    }
    let joined = owner.ack("room.members.add", &members)["seq"]
        .as_u64()
        .expect("a seq");
    for device in &mut devices {
        device.wait_for_seq(room, joined + 3);
    }
    stop.store(true, Ordering::Relaxed);
    let sent = traffic.join().expect("a sender");
    let last_seq = *sent[&room].keys().last().expect("something was sent");
    for device in &mut devices {
        device.wait_for_seq(room, last_seq);
    }
}
