//! Search through real sockets: what is found, by whom, and what is no query.

use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::client::uuid;
use crate::support::server::{self, NO_LIMIT};
use crate::support::wait::wait_for;
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use uuid::Uuid;

/// The hits of a query: rooms and `seq`s.
fn found(client: &mut Client, data: &Value) -> Vec<(Uuid, u64)> {
    let ack = client.ack("search", data);
    let hits = ack["hits"].as_array().expect("hits");
    hits.iter()
        .map(|hit| {
            let seq = hit["message"]["seq"].as_u64().expect("a seq");
            (uuid(&hit["room_id"]), seq)
        })
        .collect()
}

/// Waits until these and no others are found.
fn wait_found(client: &mut Client, query: &str, expected: &[(Uuid, u64)]) {
    wait_for(&format!("hits of {query}"), || {
        let hits = found(client, &json!({"query": query}));
        (hits == expected).then_some(())
    });
}

/// On one node, or with two people on different ones.
fn talk(nodes: &[Server]) {
    let [ada, bob, eve] = ["Ada", "Bob", "Eve"].map(User::new);
    let mut bobs = nodes[nodes.len() - 1].connect(&bob);
    let mut eves = nodes[nodes.len() - 1].connect(&eve);
    let mut adas = nodes[0].connect(&ada);
    let direct = adas.direct(&bob);
    let group = adas.group(&[&bob, &eve]);
    for client in [&mut bobs, &mut eves] {
        while !client.positions.contains_key(&group) {
            client.event_of("room.added");
        }
    }
    let first = adas.send(direct, "Kaffee um vier, Grüße!");
    let second = bobs.send(group, "kaffee 東京 ☕");
    // On every node, whoever sent it.
    for client in [&mut adas, &mut bobs] {
        wait_found(client, "KAFF", &[(group, second), (direct, first)]);
        wait_found(client, "grusse kaffee", &[(direct, first)]);
    }
    wait_found(&mut eves, "kaff", &[(group, second)]);
    let within = json!({"query": "kaff", "room_id": direct});
    assert_eq!(found(&mut adas, &within), [(direct, first)]);
    assert_eq!(eves.refusal("search", &within), "forbidden");
    // In pages.
    let page = adas.ack("search", &json!({"query": "kaff", "limit": 1}));
    assert_eq!(
        (page["hits"].as_array().map(Vec::len), &page["has_more"]),
        (Some(1), &json!(true))
    );
    let next = json!({"query": "kaff", "limit": 1, "before": page["next_before"]});
    let page = adas.ack("search", &next);
    assert_eq!(uuid(&page["hits"][0]["room_id"]), direct);
    assert_eq!(page["has_more"], false);
    assert!(page.get("next_before").is_none());
    // Of whom one blocks nothing is found.
    eves.ack("user.block", &json!({"user_id": bob.id}));
    assert_eq!(found(&mut eves, &json!({"query": "kaff"})), []);
    // Edited by its author, it is found by what it says now; deleted, by nothing.
    let edit = json!({"room_id": direct, "message_seq": first, "text": "Tee um vier"});
    adas.ack("message.edit", &edit);
    assert_eq!(
        found(&mut bobs, &json!({"query": "kaff"})),
        [(group, second)]
    );
    wait_found(&mut bobs, "tee um", &[(direct, first)]);
    bobs.ack(
        "message.delete",
        &json!({"room_id": group, "message_seq": second}),
    );
    assert_eq!(found(&mut adas, &json!({"query": "kaff"})), []);
}

#[test]
fn what_was_said_is_found_by_those_who_may_see_it() {
    talk(&[Server::unlimited()]);
}

#[test]
fn what_was_said_is_found_on_every_node() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let (url, redis_url) = (postgres.url(&postgres.database()), redis.url());
    let nodes = ["a", "b"].map(|name| {
        let mut settings = NO_LIMIT.to_vec();
        settings.push(("CAFFIS_DATABASE_URL", &*url));
        settings.push(("CAFFIS_REDIS_URL", &*redis_url));
        settings.push(("CAFFIS_NODE", name));
        server::start(&settings).anywhere()
    });
    talk(&nodes);
}

/// What a node that died had not indexed yet is found after the next start.
#[test]
fn what_was_not_indexed_before_a_crash_is_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let ada = User::new("Ada");
    let server = Server::unlimited_in(folder.path());
    let mut adas = server.connect(&ada);
    let room = adas.group(&[]);
    let mut expected: Vec<(Uuid, u64)> = (0..5)
        .map(|n| (room, adas.send(room, &format!("word {n}"))))
        .collect();
    server.kill();
    let server = Server::unlimited_in(folder.path());
    let mut adas = server.connect(&ada);
    expected.reverse();
    wait_found(&mut adas, "word", &expected);
}

#[test]
fn what_is_no_query_is_refused_and_whatever_else_is_typed_is_one() {
    let server = Server::unlimited();
    let mut client = server.connect(&User::new("Ada"));
    for (data, code) in [
        (json!({"query": ""}), "bad_request"),
        (json!({"query": " \t "}), "bad_request"),
        (json!({"query": "x".repeat(201)}), "too_large"),
        (
            json!({"query": "a b c d e f g h i j k l m n o p q"}),
            "too_large",
        ),
        (json!({"query": "a", "before": "nonsense"}), "bad_request"),
        (
            json!({"query": "a", "room_id": Uuid::new_v4()}),
            "forbidden",
        ),
    ] {
        assert_eq!(client.refusal("search", &data), code, "{data}");
    }
    let nul = r#"{"id":900,"type":"search","data":{"query":"a\u0000b"}}"#;
    client.tell_text(900, "search", nul);
    assert_eq!(client.reply(900)["error"]["code"], "bad_request");
    for query in ["\"", "* & | !", "'':*", "東".repeat(200).as_str()] {
        assert_eq!(found(&mut client, &json!({"query": query})), []);
    }
}
