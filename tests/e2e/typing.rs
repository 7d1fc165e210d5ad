//! Who is typing: told to those who hear the room, on whichever shard and node they are, and forgotten.

use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::server::{self, NO_LIMIT};
use crate::support::wait::wait_until;
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use uuid::Uuid;

fn start(client: &mut Client, room: Uuid) {
    client.tell_only("typing.start", &json!({ "room_id": room }));
}

fn stop(client: &mut Client, room: Uuid) {
    client.tell_only("typing.stop", &json!({ "room_id": room }));
}

/// Waits until the client is told exactly these.
fn told(client: &mut Client, room: Uuid, users: &[&User]) {
    let mut expected: Vec<String> = users.iter().map(|user| user.id.to_string()).collect();
    expected.sort();
    loop {
        let event = client.event_of("typing.updated");
        assert_eq!(event["room_id"], room.to_string());
        assert_eq!(event.get("seq"), None, "it is no durable event");
        let mut ids: Vec<String> = event["data"]["user_ids"]
            .as_array()
            .expect("the whole set")
            .iter()
            .map(|id| id.as_str().expect("an id").to_owned())
            .collect();
        ids.sort();
        if ids == expected {
            return;
        }
    }
}

#[test]
fn everybody_in_the_room_is_told_who_types_and_who_stopped() {
    let server = Server::unlimited();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    // On both shards, wherever the room's home is.
    let mut bobs: Vec<Client> = (0..2).map(|shard| server.connect_on(shard, &bob)).collect();
    let mut adas = server.connect(&ada);
    let mut eves = server.connect(&eve);
    let room = adas.group(&[&bob]);
    for client in &mut bobs {
        client.event_of("room.added");
    }
    start(&mut adas, room);
    for client in bobs.iter_mut().chain([&mut adas]) {
        told(client, room, &[&ada]);
    }
    start(&mut bobs[0], room);
    for client in bobs.iter_mut().chain([&mut adas]) {
        told(client, room, &[&ada, &bob]);
    }
    stop(&mut bobs[0], room);
    told(&mut adas, room, &[&ada]);
    // Who sends has finished typing; who says nothing more is forgotten.
    adas.send(room, "Done.");
    told(&mut bobs[1], room, &[]);
    start(&mut adas, room);
    told(&mut bobs[1], room, &[&ada]);
    told(&mut bobs[1], room, &[]);
    // A stranger hears nothing and says nothing; without an id the refusal is silent.
    start(&mut eves, room);
    let refused = eves.refusal("typing.start", &json!({ "room_id": room }));
    assert_eq!(refused, "forbidden");
    eves.round_trip();
    assert_eq!(eves.take_event_of("typing.updated"), None::<Value>);
}

#[test]
fn where_more_than_a_hundred_connections_listen_typing_is_neither_taken_nor_told() {
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_CONNECTIONS_PER_USER", "0"));
    let server = server::start(&settings).anywhere();
    let (ada, bob, cleo) = (User::new("Ada"), User::new("Bob"), User::new("Cleo"));
    // Bob's and Ada's on one shard, Cleo's on the other.
    let mut bobs: Vec<Client> = (0..99).map(|_| server.connect_on(0, &bob)).collect();
    let mut cleos = server.connect_on(1, &cleo);
    let mut adas = server.connect_on(0, &ada);
    let room = adas.group(&[&bob, &cleo]);
    let seq = adas.send(room, "So many.");
    for client in bobs.iter_mut().chain([&mut cleos]) {
        client.wait_for_seq(room, seq);
    }
    start(&mut adas, room);
    told(&mut cleos, room, &[&ada]);
    told(&mut bobs[0], room, &[&ada]);
    stop(&mut adas, room);
    told(&mut cleos, room, &[]);
    told(&mut bobs[0], room, &[]);
    start(&mut cleos, room);
    told(&mut bobs[0], room, &[&cleo]);
    // One more: of Cleo, who types, everybody is still told the end.
    bobs.push(server.connect_on(0, &bob));
    stop(&mut cleos, room);
    told(&mut bobs[0], room, &[]);
    told(&mut cleos, room, &[]);
    // From now on Ada is not heard, and of Cleo only Cleo's own shard is told.
    start(&mut adas, room);
    // By the room's home, so what came before it from there has arrived.
    let data = json!({"room_id": room, "message_seq": seq, "emoji": "👍"});
    adas.ack("reaction.add", &data);
    start(&mut cleos, room);
    let event = cleos.event_of("typing.updated");
    assert_eq!(event["data"]["user_ids"], json!([cleo.id]));
    // Said by the same home, so that what was told of typing before has arrived.
    let done = adas.ack("reaction.remove", &data);
    bobs[0].wait_for_seq(room, done["seq"].as_u64().expect("a seq"));
    assert_eq!(bobs[0].take_event_of("typing.updated"), None::<Value>);
    // Who goes makes room again, and what is told then is the whole set.
    bobs.pop();
    wait_until("one connection less", || {
        start(&mut adas, room);
        start(&mut cleos, room);
        adas.round_trip();
        cleos.round_trip();
        let told = cleos.take_event_of("typing.updated");
        told.is_some_and(|event| event["data"]["user_ids"].as_array().map(Vec::len) == Some(2))
    });
}

#[test]
fn who_left_the_room_types_no_more() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = server.connect(&bob);
    let mut adas = server.connect(&ada);
    let room = adas.group(&[&bob]);
    bobs.event_of("room.added");
    start(&mut bobs, room);
    told(&mut adas, room, &[&bob]);
    bobs.ack("room.leave", &json!({ "room_id": room }));
    told(&mut adas, room, &[]);
}

#[test]
fn typing_is_told_across_nodes_and_ends_with_the_node() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let url = postgres.url(&postgres.database());
    let redis_url = redis.url();
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_DATABASE_URL", &url));
    settings.push(("CAFFIS_REDIS_URL", &redis_url));
    let nodes: Vec<Server> = (0..2)
        .map(|_| server::start(&settings).anywhere())
        .collect();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = nodes[1].connect(&bob);
    let mut adas = nodes[0].connect(&ada);
    let room = adas.direct(&bob);
    let seq = adas.send(room, "Are you there?");
    bobs.wait_for_seq(room, seq);
    start(&mut adas, room);
    told(&mut bobs, room, &[&ada]);
    start(&mut bobs, room);
    told(&mut adas, room, &[&ada, &bob]);
    stop(&mut adas, room);
    told(&mut bobs, room, &[&bob]);
    start(&mut adas, room);
    told(&mut bobs, room, &[&ada, &bob]);
    let mut nodes = nodes.into_iter();
    nodes.next().expect("the first").kill();
    stop(&mut bobs, room);
    told(&mut bobs, room, &[]);
}
