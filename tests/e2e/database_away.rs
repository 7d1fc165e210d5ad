//! The lines to PostgreSQL carry nothing for a while: nothing is acknowledged that is not stored, everything is
//! answered in time, nobody is disconnected, and afterwards all goes on.

use crate::line::Line;
use crate::postgres::PostgresServer;
use crate::support::client::{code_of, message};
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::socket::Socket;
use crate::support::wait::wait_for;
use crate::support::{Client, User};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// What protects users is 5 s; a busy machine gets three times that.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

struct World {
    line: Line,
    server: Server,
    _postgres: PostgresServer,
}

impl World {
    fn start() -> World {
        let postgres = PostgresServer::start("");
        let database = postgres.database();
        let line = Line::to(SocketAddr::from(([127, 0, 0, 1], postgres.port())));
        let port = format!("127.0.0.1:{}/", postgres.port());
        let own = format!("{}/", line.address);
        let url = postgres.url(&database).replace(&port, &own);
        let mut settings = NO_LIMIT.to_vec();
        settings.push(("CAFFIS_DATABASE_URL", &url));
        let mut server = server::start(&settings).anywhere();
        for part in [
            "the database did not answer in time",
            "no connection to the database",
            "commit is tried again",
            "read failed",
        ] {
            server.expect_log(part);
        }
        World {
            line,
            server,
            _postgres: postgres,
        }
    }
}

/// That it was not taken for now, and when to try again.
fn is_put_off(reply: &Value) {
    assert_eq!(reply["type"], "error", "{reply}");
    let code = code_of(reply);
    assert!(["unavailable", "overloaded"].contains(&&*code), "{reply}");
    assert_eq!(reply["error"]["temporary"], true, "{reply}");
    assert!(
        reply["error"]["retry_after_ms"].as_u64() > Some(0),
        "{reply}"
    );
}

/// Sends it, by its own name, until it is stored; its `seq`.
fn retry(client: &mut Client, room: Uuid, id: Uuid) -> u64 {
    let data = message(room, id, "Is anybody there?");
    let reply = wait_for("the store", || {
        let reply = client.ask("message.send", &data);
        (reply["type"] == "ack").then_some(reply)
    });
    reply["data"]["seq"].as_u64().expect("a seq")
}

/// What the room holds: each message's `client_msg_id` and `seq`, each once, without a hole.
fn stored(client: &mut Client, room: Uuid) -> BTreeMap<Uuid, u64> {
    let mut found = BTreeMap::new();
    for (message, seq) in client.history_after(room, 0).iter().zip(1..) {
        assert_eq!(message["seq"], seq, "a hole");
        if let Some(id) = message["client_msg_id"].as_str() {
            let again = found.insert(Uuid::parse_str(id).expect("an id"), seq);
            assert_eq!(again, None, "stored twice");
        }
    }
    found
}

#[test]
fn a_database_that_is_out_of_reach_delays_and_loses_nothing() {
    let World {
        line,
        server,
        _postgres,
    } = World::start();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bob_client = server.connect(&bob);
    let mut ada_client = server.connect(&ada);
    let room = ada_client.direct(&bob);
    let seq = ada_client.send(room, "Before.");
    bob_client.wait_for_seq(room, seq);

    line.carry(false);
    let ids: Vec<Uuid> = (0..20).map(|_| Uuid::now_v7()).collect();
    let began = Instant::now();
    let asked: Vec<u64> = (ids.iter())
        .map(|id| ada_client.tell("message.send", &message(room, *id, "Is anybody there?")))
        .collect();
    for id in asked {
        is_put_off(&ada_client.reply(id));
    }
    assert!(began.elapsed() < ANSWERED_WITHIN, "{:?}", began.elapsed());
    // What needs the database is answered too: reads, and whoever comes.
    let began = Instant::now();
    is_put_off(&bob_client.ask("room.get", &json!({"room_id": room})));
    let mut late = Client::new(Socket::open(server.address), &bob);
    let id = late.tell_auth(&bob.token(), None);
    is_put_off(&late.reply(id));
    late.closed_with(4100);
    assert!(
        began.elapsed() < 2 * ANSWERED_WITHIN,
        "{:?}",
        began.elapsed()
    );
    // Those who are there stay.
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 503);

    line.carry(true);
    let began = Instant::now();
    let first = retry(&mut ada_client, room, ids[0]);
    assert!(began.elapsed() < ANSWERED_WITHIN, "{:?}", began.elapsed());
    let mut acked = BTreeMap::from([(ids[0], first)]);
    for id in &ids[1..] {
        acked.insert(*id, retry(&mut ada_client, room, *id));
    }
    // On the connection that was there all the while.
    bob_client.wait_for_seq(room, *acked.values().max().expect("some"));
    let mut found = stored(&mut bob_client, room);
    found.retain(|id, _| ids.contains(id));
    assert_eq!(found, acked);
    server.connect(&bob).round_trip();
    wait_for("readiness", || {
        (server.get("/readyz").status == 200).then_some(())
    });
}

#[test]
fn more_than_the_queue_holds_is_answered_in_time_and_never_acknowledged_falsely() {
    /// Together more than a shard holds (8,192), for each less than its outbox holds answers of.
    const CLIENTS: usize = 5;
    const SENDS: usize = 2_000;
    let World {
        line,
        server,
        _postgres,
    } = World::start();
    let users: Vec<User> = (0..CLIENTS).map(|_| User::new("Ada")).collect();
    let mut clients: Vec<Client> = users.iter().map(|user| server.connect(user)).collect();
    let others: Vec<&User> = users[1..].iter().collect();
    let room = clients[0].group(&others);
    let mut neighbour = server.connect(&User::new("Bob"));
    let elsewhere = neighbour.group(&[]);

    line.carry(false);
    let began = Instant::now();
    let mut asked: Vec<Vec<(Uuid, u64)>> = Vec::new();
    for client in &mut clients {
        let ids = (0..SENDS).map(|_| Uuid::now_v7());
        let ask = |id| {
            (
                id,
                client.tell("message.send", &message(room, id, "Is anybody there?")),
            )
        };
        asked.push(ids.map(ask).collect());
    }
    let told = began.elapsed();
    let mut overloaded = 0;
    for (client, asked) in clients.iter_mut().zip(&asked) {
        for (_, request) in asked {
            let reply = client.reply(*request);
            is_put_off(&reply);
            overloaded += usize::from(code_of(&reply) == "overloaded");
        }
    }
    let answered = began.elapsed() - told;
    assert!(answered < ANSWERED_WITHIN, "{answered:?} after {told:?}");
    assert!(overloaded > 0, "the queue was never full");

    line.carry(true);
    // Who has done nothing of it goes on as soon as the others.
    retry(&mut neighbour, elsewhere, Uuid::now_v7());
    let mut acked = BTreeMap::new();
    for (client, asked) in clients.iter_mut().zip(&asked) {
        for (id, _) in asked.iter().step_by(SENDS / 4) {
            acked.insert(*id, retry(client, room, *id));
        }
    }
    // What was put off may have been stored all the same, but once, and the retry told where.
    let found = stored(&mut clients[0], room);
    let sent = |id: &Uuid| asked.iter().flatten().any(|(other, _)| other == id);
    assert!(found.keys().all(sent), "never sent");
    for (id, seq) in acked {
        assert_eq!(found.get(&id), Some(&seq));
    }
}

/// Asks for each of these pages, and takes those that are answered with messages.
fn pages(client: &mut Client, room: Uuid, pages: &[Value]) -> Vec<Option<Value>> {
    let asked: Vec<u64> = (pages.iter())
        .map(|page| {
            let mut data = page.clone();
            data["room_id"] = json!(room);
            client.tell("history.get", &data)
        })
        .collect();
    let answer = |id| {
        let reply = client.reply(id);
        if reply["type"] == "ack" {
            return Some(reply["data"].clone());
        }
        is_put_off(&reply);
        None
    };
    asked.into_iter().map(answer).collect()
}

/// What a window holds is read from it: to the letter what the store said before.
#[test]
fn pages_that_a_window_holds_are_read_while_the_database_is_out_of_reach() {
    let World {
        line,
        server,
        _postgres,
    } = World::start();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut ada_client = server.connect(&ada);
    let mut bob_client = server.connect(&bob);
    let _eve_client = server.connect(&eve);
    let room = ada_client.group(&[&bob]);
    let mut seqs: Vec<u64> = Vec::new();
    for text in ["one", "two", "three", "four", "five", "six"] {
        seqs.push(ada_client.send(room, text));
    }
    let about = |seq: u64| json!({"room_id": room, "message_seq": seq});
    let say = |client: &mut Client, name: &str, seq: u64, key: &str, value: &str| {
        let mut data = about(seq);
        data[key] = json!(value);
        client.ack(name, &data);
    };
    say(&mut ada_client, "message.edit", seqs[0], "text", "ONE");
    say(&mut ada_client, "reaction.add", seqs[0], "emoji", "👍");
    say(&mut bob_client, "reaction.add", seqs[0], "emoji", "👍");
    say(&mut bob_client, "reaction.add", seqs[0], "emoji", "🎉");
    say(&mut bob_client, "reaction.add", seqs[1], "emoji", "🎉");
    say(&mut bob_client, "reaction.remove", seqs[1], "emoji", "🎉");
    ada_client.ack("message.pin", &about(seqs[2]));
    say(&mut bob_client, "reaction.add", seqs[3], "emoji", "🎉");
    ada_client.ack("message.delete", &about(seqs[3]));
    let eve_added = json!({"room_id": room, "user_ids": [eve.id]});
    ada_client.ack("room.members.add", &eve_added);
    let titled = json!({"room_id": room, "title": "Coffee"});
    let last = ada_client.ack("room.update", &titled)["seq"].as_u64();
    let last = last.expect("a seq");
    bob_client.wait_for_seq(room, last);

    // All but the line that says how the room was opened, which no page out of a window has.
    let held = [
        json!({"limit": 3}),
        json!({"limit": 7}),
        json!({"before_seq": seqs[5], "limit": 2}),
        json!({"after_seq": seqs[0] - 1}),
        json!({"after_seq": seqs[4], "limit": 3}),
        json!({"after_seq": last - 1}),
        json!({"after_seq": last}),
    ];
    let not_held = [
        json!({"after_seq": 0}),
        json!({"around_seq": seqs[2], "limit": 3}),
    ];
    let stored: Vec<Vec<Option<Value>>> = [&mut ada_client, &mut bob_client]
        .map(|client| pages(client, room, &held))
        .to_vec();
    assert!(stored.iter().flatten().all(Option::is_some));
    assert_ne!(stored[0], stored[1], "whose reactions they are");

    line.carry(false);
    for (client, stored) in [&mut ada_client, &mut bob_client].into_iter().zip(&stored) {
        assert_eq!(&pages(client, room, &held), stored);
    }
    assert_eq!(pages(&mut bob_client, room, &not_held), [None, None]);
}
