//! A server that is killed, as by a power cut of the process, and started again on the same data.

use crate::support::client::message;
use crate::support::follower::Follower;
use crate::support::{Client, Server, User};
use serde_json::json;
use std::collections::BTreeMap;
use std::thread;
use uuid::Uuid;

/// What a sender knows of its messages when the connection breaks.
#[derive(Default)]
struct Told {
    /// Sent, with the `seq` of those that were acknowledged.
    messages: BTreeMap<Uuid, Option<u64>>,
}

/// Sends to a room as fast as it can until the connection breaks.
fn send_until_the_end(mut client: Client, room: Uuid) -> Told {
    const AHEAD: usize = 50;
    let mut told = Told::default();
    let mut waiting: BTreeMap<u64, Uuid> = BTreeMap::new();
    loop {
        while waiting.len() < AHEAD {
            let id = Uuid::now_v7();
            waiting.insert(
                client.tell("message.send", &message(room, id, &id.to_string())),
                id,
            );
            told.messages.insert(id, None);
        }
        let Some((request, id)) = waiting.pop_first() else {
            unreachable!("some are always waiting");
        };
        match client.reply_or_end(request) {
            Ok(reply) => {
                assert_eq!(reply["type"], "ack", "{reply}");
                told.messages.insert(id, reply["data"]["seq"].as_u64());
            }
            Err(_) => {
                // Acks that had come in before it broke count too.
                for (request, id) in waiting {
                    if let Ok(reply) = client.reply_or_end(request) {
                        told.messages.insert(id, reply["data"]["seq"].as_u64());
                    }
                }
                return told;
            }
        }
        client.take_events();
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_and_retries_are_one_message() {
    const KILLS: usize = 5;
    let folder = tempfile::tempdir().expect("a folder");
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut server = Server::unlimited_in(folder.path());
    drop(server.connect(&bob));
    let rooms: Vec<Uuid> = {
        let mut client = server.connect(&ada);
        (0..3).map(|_| client.group(&[&bob])).collect()
    };
    let mut follower = Follower::new(&bob);
    drop(follower.connect(&server));
    // Per room everything ever sent, with the one `seq` it has.
    let mut known: BTreeMap<Uuid, BTreeMap<Uuid, u64>> = BTreeMap::new();
    let (mut acked, mut unacked) = (0, 0);
    for kill in 0..KILLS {
        let senders: Vec<_> = (rooms.iter().zip([0, 1, 0]))
            .map(|(room, shard)| {
                let (client, room) = (server.connect_on(shard, &ada), *room);
                thread::spawn(move || (room, send_until_the_end(client, room)))
            })
            .collect();
        // In the middle of it, at another moment each time: a reader has seen so many.
        let mut reader = follower.connect(&server);
        for _ in 0..100 + 150 * kill {
            reader.event();
        }
        server.kill();
        server = Server::unlimited_in(folder.path());
        let mut client = server.connect_on(kill % 2, &ada);
        for sender in senders {
            let (room, told) = sender.join().expect("a sender");
            let known = known.entry(room).or_default();
            for (id, seq) in told.messages {
                let again = client.ack("message.send", &message(room, id, &id.to_string()));
                let own = again["seq"].as_u64().expect("a seq");
                if let Some(seq) = seq {
                    acked += 1;
                    assert_eq!(
                        (own, &again["duplicate"]),
                        (seq, &json!(true)),
                        "{id} was lost"
                    );
                } else {
                    unacked += 1;
                }
                assert_eq!(known.insert(id, own), None, "ids are sent once");
            }
        }
    }
    assert!(
        acked > 100 && unacked > 0,
        "{acked} acknowledged, {unacked} not"
    );
    // One message each, in a history without a hole.
    let mut client = server.connect(&ada);
    let mut reader = follower.connect(&server);
    for room in rooms {
        let history = client.history_after(room, 0);
        let mut expected: BTreeMap<u64, String> = BTreeMap::new();
        for (id, seq) in &known[&room] {
            let again = expected.insert(*seq, id.to_string());
            assert_eq!(again, None, "one seq, one message");
        }
        let mut found: BTreeMap<u64, String> = BTreeMap::new();
        for (message, seq) in history.iter().zip(1_u64..) {
            assert_eq!(message["seq"], seq, "a hole");
            if let Some(id) = message["client_msg_id"].as_str() {
                assert_eq!(message["text"], id);
                found.insert(seq, id.to_owned());
            }
        }
        assert_eq!(found, expected);
        // And who followed all the while, over every crash, has seen each of them once.
        follower.catch_up(&mut reader, room, history.len() as u64);
        let seen: BTreeMap<u64, String> = (follower.seen[&room].iter())
            .map(|(seq, id)| (*seq, id.as_str().expect("a message").to_owned()))
            .collect();
        assert_eq!(seen, expected);
    }
}

#[test]
fn rooms_and_members_survive_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let server = Server::unlimited_in(folder.path());
    for user in [&bob, &eve] {
        drop(server.connect(user));
    }
    let mut client = server.connect(&ada);
    let epoch = client.ready["epoch"].clone();
    let group_id = Uuid::new_v4();
    let wanted = json!({
        "kind": "group", "member_ids": [bob.id], "title": "Coffee", "client_room_id": group_id,
    });
    let group = client.ack("room.create", &wanted)["room"].clone();
    let direct = client.direct(&bob);
    let add = json!({"room_id": group["room_id"], "user_ids": [eve.id]});
    client.ack("room.members.add", &add);
    let remove = json!({"room_id": group["room_id"], "user_ids": [bob.id]});
    client.ack("room.members.remove", &remove);
    let before = client.ack("rooms.list", &json!({}));
    server.kill();

    let server = Server::unlimited_in(folder.path());
    let mut client = server.connect(&ada);
    assert_eq!(client.ready["epoch"], epoch, "the history is the same");
    assert_eq!(client.ack("rooms.list", &json!({})), before);
    let again = client.ack("room.create", &wanted);
    assert_eq!(
        (&again["created"], &again["room"]["last_seq"]),
        (&json!(false), &json!(3))
    );
    assert_eq!(client.direct(&bob), direct);
    let mut bob_client = server.connect(&bob);
    let asked = json!({"room_id": group["room_id"]});
    assert_eq!(bob_client.refusal("room.get", &asked), "forbidden");
}
