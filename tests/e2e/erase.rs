//! Erasing a user: what others see of it, live and later, on their node and on another, and what is left.

use crate::admin::{Service, TOKENS};
use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::client::message;
use crate::support::rest::Rest;
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::socket::Socket;
use crate::support::wait::wait_until;
use crate::support::{Client, User};
use serde_json::{Value, json};
use std::path::Path;
use uuid::Uuid;

fn with_tokens<'a>(more: &[(&'a str, &'a str)]) -> server::Start<'a> {
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_ADMIN_TOKEN", TOKENS));
    settings.extend_from_slice(more);
    server::start(&settings)
}

/// Asks for it, and again until nothing is left.
fn erase(server: &Server, user: &User) {
    let service = Service::new(server);
    let path = format!("users/{}/erase", user.id);
    service.post(&path, &json!({})).is(200);
    wait_until("nothing is left", || {
        service.get(&path).is(200)["state"] == "done"
    });
}

/// The event of a room, which tells of this user.
fn erased(client: &mut Client, room: Uuid, user: &User) -> Value {
    let event = client.event_of("user.erased");
    assert_eq!(event["room_id"], room.to_string());
    assert_eq!(event["data"]["user_id"], user.id.to_string());
    event
}

fn is_refused(server: &Server, user: &User) {
    let mut client = Client::new(Socket::open(server.address), user);
    let id = client.tell_auth(&user.token(), None);
    assert_eq!(client.reply(id)["error"]["code"], "unauthenticated");
    client.closed_with(4011);
    Rest::new(server.address, user)
        .get("/v1/rooms")
        .is_problem(401, "unauthenticated");
}

fn seen_live_later_and_from_the_beginning(nodes: [&Server; 2]) {
    let [one, other] = nodes;
    let (ada, bob) = (User::new("Ada"), User::new("Grimbart"));
    let mut bobs = one.connect(&bob);
    let mut adas = other.connect(&ada);
    let room = adas.group(&[&bob]);
    let hers = adas.send(room, "mine");
    bobs.wait_for_seq(room, hers);
    let theirs = bobs.send(room, "schluesselblume");
    bobs.ack(
        "reaction.add",
        &json!({"room_id": room, "message_seq": hers, "emoji": "👍"}),
    );
    adas.wait_for_seq(room, hers + 2);
    // Whoever comes back from here gets what was missed from the window, or from the store.
    let positions = [hers, hers + 2];
    erase(one, &bob);
    bobs.closed_with(4011);
    let event = erased(&mut adas, room, &bob);
    let seq = event["seq"].as_u64().expect("a seq");
    assert_eq!(seq, hers + 3, "one event");
    assert_eq!(
        event["data"]["reactions"],
        json!([{"message_seq": hers, "emoji": "👍", "count": 0}])
    );
    for node in nodes {
        is_refused(node, &bob);
        for after in positions {
            let epoch = adas.ready["epoch"].clone();
            let resume = json!({"epoch": epoch, "rooms": {room.to_string(): after}});
            let mut again = Client::sign_in(Socket::open(node.address), &ada, Some(resume));
            assert_eq!(again.ready["rooms"][0]["recovered"], true);
            for missed in after + 1..=seq {
                let told = again.event();
                assert_eq!(told["seq"], missed, "{told}");
                assert!(!told.to_string().contains("schluesselblume"), "{told}");
                assert!(!told.to_string().contains("Grimbart"), "{told}");
            }
            let history = again.history_after(room, 0);
            let message = history.iter().find(|it| it["seq"] == theirs).expect("it");
            assert_eq!(message["text"], Value::Null);
            assert_eq!(message["sender_id"], event["data"]["erased_as"]);
            assert_eq!(message["deleted_at"], event["data"]["deleted_at"]);
            let last = history
                .iter()
                .find(|it| it["seq"] == seq)
                .expect("the event");
            assert_eq!(last["event"]["type"], "user.erased");
            assert_eq!(last["event"]["user_id"], bob.id.to_string());
        }
    }
    assert_eq!(
        adas.refusal(
            "room.create",
            &json!({
                "kind": "direct", "member_ids": [bob.id], "client_room_id": Uuid::now_v7()
            })
        ),
        "not_found"
    );
    // Asked again it is done, and of somebody who never was there too.
    erase(other, &bob);
    erase(other, &User::new("Nobody"));
}

#[test]
fn an_erasure_is_seen_live_by_who_comes_back_and_in_the_history() {
    let server = with_tokens(&[]).anywhere();
    seen_live_later_and_from_the_beginning([&server, &server]);
}

/// And of it nothing is left in any table but what `docs/operations.md` names, and nothing in Redis.
#[test]
fn an_erasure_is_seen_on_all_nodes_and_leaves_nothing_behind() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let database = postgres.database();
    let (url, redis_url) = (postgres.url(&database), redis.url());
    let settings = [
        ("CAFFIS_DATABASE_URL", &*url),
        ("CAFFIS_REDIS_URL", &*redis_url),
    ];
    let nodes: Vec<Server> = (0..2).map(|_| with_tokens(&settings).anywhere()).collect();
    seen_live_later_and_from_the_beginning([&nodes[0], &nodes[1]]);
    let mut found = Vec::new();
    let id = postgres.sql(
        &database,
        "SELECT event->>'user_id' FROM messages WHERE event->>'type' = 'user.erased'",
    );
    let tables = postgres.sql(
        &database,
        "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class
         WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace",
    );
    for table in tables.trim().split(',') {
        for needle in ["schluesselblume", "Grimbart", id.trim()] {
            let count = postgres.sql(
                &database,
                &format!("SELECT count(*) FROM {table} t WHERE strpos(t::text, '{needle}') > 0"),
            );
            if count.trim() != "0" {
                assert_eq!(needle, id.trim(), "{table}");
                // Partitions of one table are one.
                found.push(table.split("_p").next().unwrap_or(table).to_owned());
            }
        }
    }
    // The event itself, and that somebody asked for it.
    assert_eq!(found, ["admin_audit", "messages"]);
    let bytes = Uuid::parse_str(id.trim()).expect("an id").into_bytes();
    let needles = [
        &b"schluesselblume"[..],
        b"Grimbart",
        id.trim().as_bytes(),
        &bytes,
    ];
    // What is there is found, whatever holds it.
    redis.command(&["XADD", "a-stream", "*", "text", "eine schluesselblume"]);
    redis.command(&["HSET", "a-hash", id.trim(), "x"]);
    redis.command(&["-n", "3", "SET", "of Grimbart", "x"]);
    let mut found = redis.keys_with(&needles);
    found.sort_unstable();
    assert_eq!(found, ["a-hash", "a-stream", "of Grimbart"]);
    for key in [&["a-stream"][..], &["a-hash"], &["of Grimbart"]] {
        let database = if key[0].starts_with("of") { "3" } else { "0" };
        redis.command(&["-n", database, "DEL", key[0]]);
    }
    assert!(redis.keys_with(&needles).is_empty());
    // Nothing is kept there at all: what nodes tell each other is told, and gone.
    let kept = redis.command(&["INFO", "keyspace"]);
    assert_eq!(String::from_utf8_lossy(&kept).trim(), "# Keyspace");
    let channels = redis.command(&["PUBSUB", "CHANNELS"]);
    for needle in needles {
        assert!(!channels.windows(needle.len()).any(|it| it == needle));
    }
}

#[test]
fn an_erasure_that_is_killed_in_the_middle_goes_on_after_the_restart() {
    const ROOMS: usize = 12;
    const MESSAGES: usize = 1_200;
    let folder = tempfile::tempdir().expect("a folder");
    let server = within(folder.path());
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = server.connect(&bob);
    let mut adas = server.connect(&ada);
    let rooms: Vec<Uuid> = (0..ROOMS).map(|_| adas.group(&[&bob])).collect();
    for room in &rooms {
        let count = if *room == rooms[0] { MESSAGES } else { 3 };
        let asked: Vec<u64> = (0..count)
            .map(|_| bobs.tell("message.send", &message(*room, Uuid::now_v7(), "words")))
            .collect();
        for id in asked {
            assert_eq!(bobs.reply(id)["type"], "ack");
        }
        bobs.take_events();
    }
    let service = Service::new(&server);
    let path = format!("users/{}/erase", bob.id);
    assert_eq!(service.post(&path, &json!({})).is(200)["state"], "running");
    server.kill();
    let server = within(folder.path());
    is_refused(&server, &bob);
    let service = Service::new(&server);
    wait_until("it goes on by itself", || {
        service.get(&path).is(200)["state"] == "done"
    });
    let mut adas = server.connect(&ada);
    for room in rooms {
        let history = adas.history_after(room, 0);
        let of_type = |name: &str| {
            history
                .iter()
                .filter(|it| it["event"]["type"] == name)
                .count()
        };
        assert_eq!(of_type("user.erased"), 1);
        assert!(history.iter().all(|it| it["text"] == Value::Null));
    }
}

fn within(folder: &Path) -> Server {
    with_tokens(&[]).within(folder)
}
