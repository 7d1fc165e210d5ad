//! Presence: who is told how somebody is seen, when that changes, and who is not.

use crate::admin::{Service, TOKENS};
use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::server::{self, Server};
use crate::support::token::now_ms;
use crate::support::wait::DEADLINE;
use crate::support::{Client, User};
use serde_json::{Value, json};
use std::time::Instant;
use uuid::Uuid;

/// Asks for these users: the snapshot.
fn subscribe(client: &mut Client, users: &[&User]) -> Vec<Value> {
    let ids: Vec<Uuid> = users.iter().map(|user| user.id).collect();
    let ack = client.ack("presence.subscribe", &json!({ "user_ids": ids }));
    let users = ack["users"].as_array().expect("users").clone();
    assert_eq!(users.len(), ids.len(), "{ack}");
    users
}

/// How this user is seen in a list.
fn of<'a>(users: &'a [Value], user: &User) -> &'a Value {
    let id = user.id.to_string();
    let found = users.iter().find(|seen| seen["user_id"] == *id);
    found.unwrap_or_else(|| panic!("{id} is not in {users:?}"))
}

/// Waits until this user is told to be seen so; whatever else is told of them on the way must be one of
/// these.
fn wait_for(client: &mut Client, user: &User, state: &str, on_the_way: &[&str]) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "{} is not {state}", user.name);
        let event = client.event_of("presence.updated");
        assert!(event.get("seq").is_none() && event.get("room_id").is_none());
        let users = event["data"]["users"].as_array().expect("users");
        for seen in users {
            if seen["user_id"] != *user.id.to_string() {
                continue;
            }
            if seen["state"] == state {
                return seen.clone();
            }
            let other = seen["state"].as_str().expect("a state");
            assert!(on_the_way.contains(&other), "{event} before {state}");
        }
    }
}

fn set(client: &mut Client, state: &str) {
    let ack = client.ack("presence.set", &json!({ "state": state }));
    assert_eq!(ack, json!({"state": state, "changed": true}));
}

/// The ms of a time that was told.
fn seen_ms(seen: &Value) -> u64 {
    let text = seen["last_seen_at"].as_str().expect("when last seen");
    let (_, time) = text.split_once('T').expect("RFC 3339");
    let part = |from: usize, to: usize| time[from..to].parse::<u64>().expect("a number");
    ((part(0, 2) * 60 + part(3, 5)) * 60 + part(6, 8)) * 1_000 + part(9, 12)
}

/// That a time lies between two others, within a day. A turn of a busy shard has one time, that of its
/// beginning.
fn assert_between(from_ms: u64, seen: &Value, to_ms: u64) {
    let from_ms = from_ms - 1_000;
    let day = 86_400_000;
    let after = (seen_ms(seen) + day - from_ms % day) % day;
    assert!(
        after <= to_ms - from_ms,
        "{seen}: {after} ms after {from_ms}"
    );
}

#[test]
fn who_shares_a_room_is_seen_to_come_to_go_and_to_choose() {
    let server = server::start(&[("CAFFIS_ADMIN_TOKEN", TOKENS)]).anywhere();
    let service = Service::new(&server);
    // Those who run the service are told the same as others.
    let told_to_service = |seen: &Value, user: &User| {
        let told = service.get(&format!("users/{}", user.id)).is(200);
        assert_eq!(told["state"], seen["state"]);
        assert_eq!(told["last_seen_at"], seen["last_seen_at"]);
    };
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    // The two sit on different shards, so that it crosses from one to the other and back.
    let mut bob_client = server.connect_on(1, &bob);
    let mut ada_client = server.connect_on(0, &ada);
    ada_client.direct(&bob);
    let seen = subscribe(&mut ada_client, &[&bob, &ada]);
    if of(&seen, &bob)["state"] == "offline" {
        // He came less than a second ago.
        wait_for(&mut ada_client, &bob, "online", &[]);
    }
    set(&mut bob_client, "away");
    wait_for(&mut ada_client, &bob, "away", &[]);
    let again = bob_client.ack("presence.set", &json!({"state": "away"}));
    assert_eq!(again["changed"], false);
    // The most present of his connections decides.
    let mut second = server.connect(&bob);
    let seen = wait_for(&mut ada_client, &bob, "online", &[]);
    assert!(seen.get("last_seen_at").is_none(), "{seen}");
    told_to_service(&seen, &bob);
    set(&mut second, "invisible");
    wait_for(&mut ada_client, &bob, "away", &[]);
    let from_ms = now_ms();
    set(&mut bob_client, "invisible");
    let seen = wait_for(&mut ada_client, &bob, "offline", &[]);
    assert_between(from_ms, &seen, now_ms());
    // Who asks later hears the same.
    let snapshot = subscribe(&mut ada_client, &[&bob]);
    assert_eq!(*of(&snapshot, &bob), seen);
    set(&mut second, "online");
    wait_for(&mut ada_client, &bob, "online", &[]);
    let from_ms = now_ms();
    drop(second);
    drop(bob_client);
    let seen = wait_for(&mut ada_client, &bob, "offline", &[]);
    assert_between(from_ms, &seen, now_ms());
    told_to_service(&seen, &bob);
}

#[test]
fn a_reconnect_is_not_seen() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bob_client = server.connect(&bob);
    let mut ada_client = server.connect(&ada);
    ada_client.direct(&bob);
    subscribe(&mut ada_client, &[&bob]);
    set(&mut bob_client, "away");
    wait_for(&mut ada_client, &bob, "away", &["online"]);
    drop(bob_client);
    // He is back on the other shard, or the same.
    let mut bob_client = server.connect(&bob);
    wait_for(&mut ada_client, &bob, "online", &[]);
    set(&mut bob_client, "away");
    // Nothing in between says that he was offline.
    wait_for(&mut ada_client, &bob, "away", &[]);
}

#[test]
fn strangers_are_told_as_offline_whatever_they_are() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut bob_client = server.connect(&bob);
    let mut ada_client = server.connect(&ada);
    let mut eve_client = server.connect(&eve);
    let room = ada_client.direct(&bob);
    subscribe(&mut ada_client, &[&bob]);
    set(&mut bob_client, "away");
    wait_for(&mut ada_client, &bob, "away", &["online"]);
    let nobody = User::new("Nobody");
    let seen = subscribe(&mut eve_client, &[&bob, &ada, &nobody]);
    for user in [&bob, &ada, &nobody] {
        let hidden = json!({"user_id": user.id, "state": "offline"});
        assert_eq!(*of(&seen, user), hidden);
    }
    set(&mut bob_client, "online");
    wait_for(&mut ada_client, &bob, "online", &[]);
    // By the time that Ada was told, Eve would have been, but for other shards' second.
    let group = ada_client.group(&[&bob, &eve]);
    assert_ne!(group, room);
    let told = |client: &mut Client| {
        client.round_trip();
        client.take_event_of("presence.updated")
    };
    assert_eq!(told(&mut eve_client), None);
    // From now on they share a room, and she may ask again.
    let seen = subscribe(&mut eve_client, &[&bob]);
    assert_eq!(of(&seen, &bob)["state"], "online");
    set(&mut bob_client, "away");
    wait_for(&mut eve_client, &bob, "away", &[]);
    wait_for(&mut ada_client, &bob, "away", &[]);
}

#[test]
fn a_new_connection_watches_nobody() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bob_client = server.connect(&bob);
    let mut ada_client = server.connect(&ada);
    ada_client.direct(&bob);
    subscribe(&mut ada_client, &[&bob]);
    let mut other = server.connect(&ada);
    set(&mut bob_client, "away");
    wait_for(&mut ada_client, &bob, "away", &["online"]);
    other.round_trip();
    set(&mut bob_client, "online");
    wait_for(&mut ada_client, &bob, "online", &[]);
    other.round_trip();
    assert_eq!(other.take_event_of("presence.updated"), None);
}

#[test]
fn too_many_users_are_refused() {
    let server = Server::new();
    let mut client = server.connect(&User::new("Ada"));
    let ids: Vec<Uuid> = (0..201).map(|_| Uuid::new_v4()).collect();
    let code = client.refusal("presence.subscribe", &json!({ "user_ids": ids }));
    assert_eq!(code, "too_large");
    let ack = client.ack("presence.subscribe", &json!({ "user_ids": &ids[..200] }));
    assert_eq!(ack["users"].as_array().map(Vec::len), Some(200));
    let ack = client.ack("presence.subscribe", &json!({"user_ids": []}));
    assert_eq!(ack["users"], json!([]));
}

#[test]
fn presence_is_seen_across_nodes() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let (url, redis_url) = (postgres.url(&postgres.database()), redis.url());
    let node = |name| {
        let settings = [
            ("CAFFIS_DATABASE_URL", &*url),
            ("CAFFIS_REDIS_URL", &redis_url),
            ("CAFFIS_NODE", name),
        ];
        server::start(&settings).anywhere()
    };
    let (a, b) = (node("a"), node("b"));
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut ada_client = a.connect(&ada);
    let mut bob_client = b.connect(&bob);
    ada_client.direct(&bob);
    let seen = subscribe(&mut ada_client, &[&bob]);
    assert_eq!(of(&seen, &bob)["state"], "offline", "nobody was asked yet");
    wait_for(&mut ada_client, &bob, "online", &[]);
    set(&mut bob_client, "away");
    wait_for(&mut ada_client, &bob, "away", &[]);
    // He comes to Ada's node as well, and leaves it.
    let here = a.connect(&bob);
    wait_for(&mut ada_client, &bob, "online", &[]);
    drop(here);
    wait_for(&mut ada_client, &bob, "away", &[]);
    let from_ms = now_ms();
    set(&mut bob_client, "invisible");
    let seen = wait_for(&mut ada_client, &bob, "offline", &[]);
    assert_between(from_ms, &seen, now_ms());
}
