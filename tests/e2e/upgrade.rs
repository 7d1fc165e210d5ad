//! This version beside the next one: its schema, its messages to other nodes, and nodes of it that tell this
//! one nothing. What the next version will bring is not known; that it only adds is its promise
//! (docs/operations.md), and what this version makes of additions is proved here.

use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::client::message;
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::{Client, User};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// What a later version may do to the schema: columns on every table that is read as a whole, a table, an
/// index, and a migration that this version may work on.
const NEXT_MIGRATION: &str = "
    ALTER TABLE chat_users ADD COLUMN next_one text;
    ALTER TABLE chat_rooms ADD COLUMN next_one jsonb NOT NULL DEFAULT '{}';
    ALTER TABLE messages ADD COLUMN next_one bigint NOT NULL DEFAULT 7;
    ALTER TABLE room_participants ADD COLUMN next_one text;
    ALTER TABLE message_read_status ADD COLUMN next_one bigint;
    ALTER TABLE room_events ADD COLUMN next_one text;
    ALTER TABLE meta ADD COLUMN next_one text;
    CREATE TABLE next_things (room_id uuid PRIMARY KEY, thing text NOT NULL);
    CREATE INDEX next_index ON messages (room_id, created_at);
    INSERT INTO schema_migrations (version, checksum, needs)
        SELECT max(version) + 1, '', max(needs) FROM schema_migrations";

struct World {
    postgres: PostgresServer,
    database: String,
    redis: Redis,
}

impl World {
    fn start() -> World {
        let postgres = PostgresServer::start("");
        let database = postgres.database();
        let redis = Redis::start();
        World {
            postgres,
            database,
            redis,
        }
    }

    fn node(&self, with_redis: bool) -> Server {
        let (url, redis_url) = (self.postgres.url(&self.database), self.redis.url());
        let mut settings = NO_LIMIT.to_vec();
        settings.push(("CAFFIS_DATABASE_URL", &url));
        if with_redis {
            settings.push(("CAFFIS_REDIS_URL", &redis_url));
        }
        server::start(&settings).anywhere()
    }
}

/// Everything that writes and reads, once; the last `seq`.
fn use_all(client: &mut Client, room: Uuid) -> u64 {
    let data = message(room, Uuid::now_v7(), "Coffee?");
    let seq = client.ack("message.send", &data)["seq"].clone();
    assert_eq!(client.ack("message.send", &data)["duplicate"], true);
    let named = |key: &str, value: &str| {
        let mut data = json!({"room_id": room, "message_seq": seq});
        data[key] = json!(value);
        data
    };
    client.ack("message.edit", &named("text", "Tea?"));
    client.ack("reaction.add", &named("emoji", "👍"));
    client.ack("message.pin", &json!({"room_id": room, "message_seq": seq}));
    let eve = User::new("Eve");
    let added = json!({"room_id": room, "user_ids": [eve.id]});
    assert_eq!(client.refusal("room.members.add", &added), "not_found");
    let titled = json!({"room_id": room, "title": Uuid::now_v7().to_string()});
    let last = client.ack("room.update", &titled)["seq"].as_u64();
    client.ack("room.get", &json!({"room_id": room}));
    client.ack("rooms.list", &json!({}));
    let history = client.history_after(room, seq.as_u64().expect("a seq") - 1);
    assert_eq!(history[0]["text"], "Tea?");
    last.expect("a seq")
}

/// Every message to other nodes from now on, with its channel, until one fits.
fn overhear(redis: &Redis, cause: impl FnOnce()) -> (String, Vec<u8>) {
    let client = ::redis::Client::open(redis.url()).expect("a URL");
    let mut line = client.get_connection().expect("Redis");
    let mut heard = line.as_pubsub();
    heard.psubscribe("*").expect("subscribed");
    heard
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("set");
    cause();
    loop {
        let message = heard.get_message().expect("a message");
        let bytes = message.get_payload_bytes();
        // Version 1, an event.
        if bytes.starts_with(&[1, 1]) {
            return (message.get_channel_name().to_owned(), bytes.to_vec());
        }
    }
}

#[test]
fn a_node_works_beside_nodes_of_the_next_version_and_starts_on_their_schema() {
    let world = World::start();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let first = world.node(true);
    let mut adas = first.connect(&ada);
    let mut bobs = first.connect(&bob);
    let room = adas.group(&[&bob]);
    let admin = json!({"room_id": room, "user_ids": [bob.id], "role": "admin"});
    adas.ack("room.role.set", &admin);
    bobs.wait_for_seq(room, use_all(&mut adas, room));

    // The next version's first node comes and migrates, while this one has its statements prepared.
    world.postgres.sql(&world.database, NEXT_MIGRATION);
    bobs.wait_for_seq(room, use_all(&mut adas, room));

    // One of this version that crashed, or is taken back to, starts on it.
    let mut second = world.node(true);
    second.expect_log("the database has a newer schema, which this version works on too");
    let mut others = second.connect(&bob);
    others.wait_for_seq(room, use_all(&mut adas, room));
    adas.wait_for_seq(room, use_all(&mut others, room));

    // The next version's messages, and what is no message at all, change nothing.
    let (channel, told) = overhear(&world.redis, || {
        let seq = adas.send(room, "As it is told today.");
        others.wait_for_seq(room, seq);
    });
    let client = ::redis::Client::open(world.redis.url()).expect("a URL");
    let mut line = client.get_connection().expect("Redis");
    let mut unknown_version = told.clone();
    unknown_version[0] = 2;
    let mut unknown_kind = told.clone();
    unknown_kind[1] = 200;
    let with_more = [&told[..], b"and more"].concat();
    let noise = vec![0xff; 70_000];
    for bytes in [
        &unknown_version[..],
        &unknown_kind,
        &told[..20],
        &with_more,
        &noise,
        b"",
    ] {
        let heard: i64 = ::redis::cmd("PUBLISH")
            .arg(&channel)
            .arg(bytes)
            .query(&mut line)
            .expect("published");
        assert_eq!(heard, 2, "both nodes follow the room");
    }
    let seq = adas.send(room, "Afterwards.");
    others.wait_for_seq(room, seq);

    // A node that this one does not hear at all: the store tells.
    let mut unheard = world.node(false);
    unheard.expect_log("the database has a newer schema, which this version works on too");
    let mut strange = unheard.connect(&bob);
    let seq = use_all(&mut strange, room);
    adas.wait_for_seq(room, seq);
    others.wait_for_seq(room, seq);
    let all = |client: &mut Client| -> Vec<Value> { client.history_after(room, 0) };
    assert_eq!(all(&mut bobs), all(&mut strange));
}
