//! Retention: what is older than a room keeps it is gone for everybody, live and later, on each node, whatever is killed
//! meanwhile.

use crate::admin::{Service, TOKENS};
use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::client::message;
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::socket::Socket;
use crate::support::wait::{wait_for, wait_until};
use crate::support::{Client, User};
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use std::path::Path;
use uuid::Uuid;

/// 40 days, ms.
const LONG_AGO: u64 = 40 * 24 * 60 * 60 * 1_000;

fn with_tokens<'a>(more: &[(&'a str, &'a str)]) -> server::Start<'a> {
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_ADMIN_TOKEN", TOKENS));
    settings.extend_from_slice(more);
    server::start(&settings)
}

/// Makes everything that was written so far older, by so many ms.
fn age_sql() -> String {
    format!(
        "UPDATE messages SET created_at = created_at - {LONG_AGO};
         UPDATE room_events SET ts = ts - {LONG_AGO};
         UPDATE chat_rooms SET created_at = created_at - {LONG_AGO};"
    )
}

/// The same in the file of a server that does not run.
fn age(folder: &Path) {
    let file = Connection::open(folder.join("chat.db")).expect("the file opens");
    file.execute_batch(&age_sql()).expect("it is aged");
}

fn resume(server: &Server, user: &User, epoch: &Value, room: Uuid, after: u64) -> Client {
    let resume = json!({"epoch": epoch, "rooms": {room.to_string(): after}});
    Client::sign_in(Socket::open(server.address), user, Some(resume))
}

fn floor(service: &Service, room: Uuid) -> u64 {
    let room = service.get(&format!("rooms/{room}")).is(200);
    room["floor_seq"].as_u64().expect("a floor")
}

fn on(room: Uuid, seq: u64) -> Value {
    json!({"room_id": room, "message_seq": seq})
}

/// On these nodes, of which the first is told; `old` was sent as `first_id` and is to be dropped, with all before it.
struct Dropped<'a> {
    nodes: &'a [&'a Server],
    ada: User,
    bob: User,
    room: Uuid,
    epoch: Value,
    first_id: Uuid,
    old: u64,
}

/// A room with a message that somebody reacted to and pinned, a few others, and an edit of the first.
fn lived_in<'a>(nodes: &'a [&'a Server]) -> Dropped<'a> {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = nodes[0].connect(&bob);
    let mut adas = nodes[0].connect(&ada);
    let room = adas.group(&[&bob]);
    let first_id = Uuid::now_v7();
    let sent = adas.ack("message.send", &message(room, first_id, "schluesselblume"));
    let old = sent["seq"].as_u64().expect("a seq");
    bobs.wait_for_seq(room, old);
    let mut like = on(room, old);
    like["emoji"] = json!("👍");
    bobs.ack("reaction.add", &like);
    adas.ack("message.pin", &on(room, old));
    bobs.send(room, "schluesselblume, too");
    Dropped {
        nodes,
        epoch: adas.ready["epoch"].clone(),
        ada,
        bob,
        room,
        first_id,
        old,
    }
}

/// With everything up to now aged: what all see when the room is told to keep 30 days.
fn is_gone_for_everybody(it: &Dropped<'_>) {
    let Dropped {
        nodes,
        ada,
        bob,
        room,
        epoch,
        first_id,
        old,
    } = it;
    let (room, old) = (*room, *old);
    let service = Service::new(nodes[0]);
    assert_eq!(floor(&service, room), 0);
    let mut adas = nodes[nodes.len() - 1].connect(ada);
    let before = adas.ack("history.get", &json!({"room_id": room}))["last_seq"]
        .as_u64()
        .expect("a seq");
    // An edit of today of a message of long ago, and a message of today.
    let mut edit = on(room, old);
    edit["text"] = json!("schluesselblume, edited");
    adas.ack("message.edit", &edit);
    let new = adas.send(room, "schluesselblume, new");
    adas.wait_for_seq(room, new);
    // Replayed out of the window: it holds what is to be dropped.
    let mut bobs = resume(nodes[0], bob, epoch, room, old - 1);
    assert_eq!(bobs.ready["rooms"][0]["recovered"], true);
    bobs.wait_for_seq(room, new);

    let told = service.put(
        &format!("rooms/{room}/retention"),
        &json!({"days": 30, "reason": "as agreed"}),
    );
    let told = told.is(200);
    assert_eq!(
        (&told["days"], &told["changed"]),
        (&json!(30), &json!(true))
    );
    wait_until("what is old is dropped", || floor(&service, room) == before);

    for node in *nodes {
        // A home that has the room learns of it when it compares.
        let mut again = wait_for("the position is expired", || {
            let again = resume(node, bob, epoch, room, old - 1);
            let standing = &again.ready["rooms"][0];
            (standing["reason"] == "position_expired").then_some(again)
        });
        assert_eq!(again.ready["rooms"][0]["recovered"], false);
        assert_eq!(again.ready["rooms"][0]["last_seq"], new);
        assert_eq!(again.ready["rooms"][0]["unread"], 1);
        // As a client does then: from where it was.
        for page in [
            json!({"after_seq": old - 1}),
            json!({"around_seq": old}),
            json!({}),
        ] {
            let mut asked = page;
            asked["room_id"] = json!(room);
            let history = again.ack("history.get", &asked);
            let messages = history["messages"].as_array().expect("messages");
            let seqs: Vec<&Value> = messages.iter().map(|it| &it["seq"]).collect();
            assert_eq!(seqs, [new], "{history}");
            assert_eq!(
                (&history["floor_seq"], &history["has_more"]),
                (&json!(before), &json!(false))
            );
        }
        // What can still be replayed says nothing of it.
        let mut replayed = resume(node, ada, epoch, room, before);
        assert_eq!(replayed.ready["rooms"][0]["recovered"], true);
        let edited = replayed.event_of("message.updated");
        assert_eq!(edited["data"]["message"]["text"], Value::Null);
        assert!(edited["data"]["message"]["deleted_at"].is_string());
        assert_eq!(replayed.message(room)["seq"], new);

        for (name, field, value) in [
            ("message.edit", "text", "again"),
            ("reaction.add", "emoji", "👍"),
            ("message.pin", "", ""),
            ("message.report", "", ""),
        ] {
            let mut data = on(room, old);
            if !field.is_empty() {
                data[field] = json!(value);
            }
            assert_eq!(replayed.refusal(name, &data), "gone", "{name}");
        }
        let mut answer = message(room, Uuid::now_v7(), "what was that?");
        answer["reply_to_seq"] = json!(old);
        assert_eq!(replayed.refusal("message.send", &answer), "gone");
        let again = replayed.ack("message.send", &message(room, *first_id, "schluesselblume"));
        assert_eq!(
            (&again["seq"], &again["duplicate"]),
            (&json!(old), &json!(true))
        );
        wait_until("only what is there is found", || {
            let hits = replayed.ack("search", &json!({"query": "schluesselblume"}));
            let hits = hits["hits"].as_array().expect("hits").clone();
            assert!(
                hits.iter().all(|hit| hit["message"]["seq"] == new),
                "{hits:?}"
            );
            hits.len() == 1
        });
        let seen = replayed.ack("room.get", &json!({"room_id": room}));
        assert_eq!(seen["room"]["pins"], json!([]));
    }
    // What is live goes on as if nothing had been.
    let next = adas.send(room, "and on");
    bobs.wait_for_seq(room, next);
    let acts = service.get("audit").is(200);
    let act = acts["acts"]
        .as_array()
        .expect("acts")
        .iter()
        .find(|act| act["act"] == "admin.rooms.retention")
        .expect("it is noted");
    assert_eq!(act["detail"], "30 days: as agreed");
    assert_eq!(act["target"], room.to_string());
}

#[test]
fn what_is_older_than_a_room_keeps_it_is_gone_for_everybody() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = with_tokens(&[]).within(folder.path());
    let it = {
        let nodes = [&server];
        let Dropped {
            ada,
            bob,
            room,
            epoch,
            first_id,
            old,
            ..
        } = lived_in(&nodes);
        (ada, bob, room, epoch, first_id, old)
    };
    server.terminate();
    server.ended();
    age(folder.path());
    let server = with_tokens(&[]).within(folder.path());
    let (ada, bob, room, epoch, first_id, old) = it;
    is_gone_for_everybody(&Dropped {
        nodes: &[&server],
        ada,
        bob,
        room,
        epoch,
        first_id,
        old,
    });
}

#[test]
fn a_replay_that_the_drop_overtakes_says_so_and_goes_on_above() {
    const ROOMS: usize = 4;
    // As much as is replayed of a room, and more in all than the sockets between take.
    const MESSAGES: usize = 30;
    let text = "ü".repeat(4_000);
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = with_tokens(&[]).within(folder.path());
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    server.connect(&bob);
    let mut adas = server.connect(&ada);
    let rooms: Vec<Uuid> = (0..ROOMS).map(|_| adas.group(&[&bob])).collect();
    for room in &rooms {
        for _ in 0..MESSAGES {
            adas.send(*room, &text);
        }
    }
    let epoch = adas.ready["epoch"].clone();
    server.terminate();
    server.ended();
    age(folder.path());
    let server = with_tokens(&[]).within(folder.path());
    let service = Service::new(&server);
    let mut adas = server.connect(&ada);
    let news: Vec<u64> = rooms.iter().map(|room| adas.send(*room, "new")).collect();

    let positions: Map<String, Value> = (rooms.iter().zip(&news))
        .map(|(room, new)| (room.to_string(), json!(new - MESSAGES as u64)))
        .collect();
    let resumed = || {
        let resume = json!({"epoch": epoch, "rooms": positions});
        Client::sign_in(Socket::open(server.address), &bob, Some(resume))
    };
    // Reads no further than `ready`, which promises everything.
    let mut bobs = resumed();
    for room in bobs.ready["rooms"].as_array().expect("rooms") {
        assert_eq!(room["recovered"], true, "{room}");
    }
    for room in &rooms {
        let told = service.put(
            &format!("rooms/{room}/retention"),
            &json!({"days": 30, "reason": "as agreed"}),
        );
        told.is(200);
    }
    wait_until("what is old is dropped", || {
        (rooms.iter().zip(&news)).all(|(room, new)| floor(&service, *room) + 1 == *new)
    });
    wait_until("the homes know", || {
        let again = resumed();
        let rooms = again.ready["rooms"].as_array().expect("rooms");
        let is_expired = |room: &Value| room["reason"] == "position_expired";
        rooms.iter().all(is_expired)
    });
    // Its events are followed by the client: each once, in turn, from where a gap says.
    for (room, new) in rooms.iter().zip(&news) {
        bobs.wait_for_seq(*room, *new);
    }
    let events = bobs.take_events();
    let gaps: Vec<&Value> = (events.iter().filter(|event| event["type"] == "room.gap")).collect();
    assert!(!gaps.is_empty(), "the sockets between took everything");
    for gap in gaps {
        let place = rooms
            .iter()
            .position(|room| gap["room_id"] == room.to_string());
        let (room, new) = place
            .map(|at| (rooms[at], news[at]))
            .expect("a room of theirs");
        assert_eq!(
            gap["data"],
            json!({"last_seq": new - 1, "reason": "position_expired"})
        );
        // What there is of it.
        let position = positions[&room.to_string()].as_u64().expect("a position");
        let page = bobs.history_after(room, position);
        let seqs: Vec<&Value> = page.iter().map(|message| &message["seq"]).collect();
        assert_eq!(seqs, [&json!(new)]);
    }
    // And live.
    let next = adas.send(rooms[0], "live");
    bobs.wait_for_seq(rooms[0], next);
}

#[test]
fn what_is_dropped_is_gone_on_all_nodes() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let database = postgres.database();
    let (url, redis_url) = (postgres.url(&database), redis.url());
    let settings = [
        ("CAFFIS_DATABASE_URL", &*url),
        ("CAFFIS_REDIS_URL", &*redis_url),
    ];
    let nodes: Vec<Server> = (0..2).map(|_| with_tokens(&settings).anywhere()).collect();
    let nodes = [&nodes[0], &nodes[1]];
    let it = lived_in(&nodes);
    postgres.sql(&database, &age_sql());
    is_gone_for_everybody(&it);
}

/// How many messages still have a text, and how many rows there are.
fn texts(folder: &Path, room: Uuid) -> (u64, u64) {
    let file = Connection::open(folder.join("chat.db")).expect("the file opens");
    file.query_row(
        "SELECT count(text), count(*) FROM messages WHERE room_id = ?1 AND kind <> 'system'",
        [room.as_bytes()],
        |row| {
            Ok((
                row.get::<_, i64>(0)?.unsigned_abs(),
                row.get::<_, i64>(1)?.unsigned_abs(),
            ))
        },
    )
    .expect("a count")
}

#[test]
fn a_drop_that_is_killed_in_the_middle_goes_on_after_the_restart() {
    const MESSAGES: usize = 6_000;
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = with_tokens(&[]).within(folder.path());
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    drop(server.connect(&bob));
    let mut adas = server.connect(&ada);
    let room = adas.group(&[&bob]);
    let ids: Vec<Uuid> = (0..MESSAGES).map(|_| Uuid::now_v7()).collect();
    let mut seqs = Vec::new();
    for ids in ids.chunks(500) {
        let asked: Vec<u64> = ids
            .iter()
            .map(|id| adas.tell("message.send", &message(room, *id, "old")))
            .collect();
        seqs.extend(
            asked
                .into_iter()
                .map(|id| adas.reply(id)["data"]["seq"].clone()),
        );
        adas.take_events();
    }
    server.terminate();
    server.ended();
    age(folder.path());
    let keeps = [("CAFFIS_RETENTION_DAYS", "30")];
    let last = seqs.last().expect("some").as_u64().expect("a seq");
    let mut server = with_tokens(&keeps).within(folder.path());
    let mut kills = 0;
    loop {
        let service = Service::new(&server);
        let reached = wait_for("some of it is dropped", || {
            Some(floor(&service, room)).filter(|floor| *floor > 1_000 * (kills + 1))
        });
        server.kill();
        let (texts, rows) = texts(folder.path(), room);
        assert_eq!(rows, MESSAGES as u64, "each keeps its key");
        // Between two stretches, never within one: what is below the floor is dropped, and nothing above it.
        let file = Connection::open(folder.path().join("chat.db")).expect("the file opens");
        let at: u64 = file
            .query_row("SELECT floor_seq FROM chat_rooms", [], |row| {
                row.get::<_, i64>(0).map(i64::unsigned_abs)
            })
            .expect("a floor");
        assert!(at >= reached);
        assert_eq!(texts, last - at);
        server = with_tokens(&keeps).within(folder.path());
        kills += 1;
        if at == last || kills == 3 {
            break;
        }
    }
    let service = Service::new(&server);
    wait_until("all of it is dropped", || floor(&service, room) == last);
    let mut adas = server.connect(&ada);
    let history = adas.ack("history.get", &json!({"room_id": room}));
    assert_eq!(history["messages"], json!([]));
    for (id, seq) in ids.iter().zip(&seqs).step_by(777) {
        let again = adas.ack("message.send", &message(room, *id, "old"));
        assert_eq!((&again["seq"], &again["duplicate"]), (seq, &json!(true)));
    }
    assert_eq!(adas.send(room, "new"), last + 1);
    let mut bobs = server.connect(&bob);
    assert_eq!(bobs.ready["rooms"][0]["unread"], 1);
    bobs.round_trip();
}
