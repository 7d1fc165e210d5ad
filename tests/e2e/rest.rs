//! The HTTP API: what is done there is told on sockets, and the other way round, under the same rules.

use crate::admin;
use crate::openapi;
use crate::postgres::PostgresServer;
use crate::support::client::{message, uuid};
use crate::support::rest::Rest;
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::wait::{wait_for, wait_until};
use crate::support::{Client, User};
use crate::uploads;
use serde_json::{Value, json};
use std::thread;
use uuid::Uuid;

/// A scenario on both stores.
macro_rules! on_both {
    ($( $sqlite:ident $postgres:ident => $scenario:expr; )*) => { $(
        #[test]
        fn $sqlite() {
            $scenario(&Server::unlimited());
        }

        #[test]
        fn $postgres() {
            let postgres = PostgresServer::start("");
            let url = postgres.url(&postgres.database());
            let mut settings = NO_LIMIT.to_vec();
            settings.push(("CAFFIS_DATABASE_URL", &url));
            $scenario(&server::start(&settings).anywhere());
        }
    )* };
}

on_both! {
    a_message_over_http_comes_to_sockets_once
    a_message_over_http_comes_to_sockets_once_on_postgres => messages_and_keys;
    messages_are_changed_over_http
    messages_are_changed_over_http_on_postgres => changes;
    rooms_and_members_are_changed_over_http
    rooms_and_members_are_changed_over_http_on_postgres => rooms;
}

/// A user with a socket and one without, both in one group.
fn world(server: &Server) -> (Client, Rest, String, Uuid) {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let rest = Rest::new(server.address, &bob);
    // Makes the account, so that a room can have him.
    rest.get("/v1/rooms").is(200);
    let mut client = server.connect(&ada);
    let room = client.group(&[&bob]);
    (client, rest, format!("/v1/rooms/{room}"), room)
}

fn text(text: &str) -> Value {
    json!({"kind": "text", "text": text})
}

fn messages_and_keys(server: &Server) {
    let (mut client, rest, path, room) = world(server);
    let messages = format!("{path}/messages");
    // Sent here, told there, in the room's one order.
    let sent = rest.send_keyed("POST", &messages, "\"first try\"", &text("?"));
    sent.is_problem(400, "bad_request");
    let first = rest
        .send_keyed("POST", &messages, "\"first\"", &text("Hello, socket."))
        .is(201);
    assert_eq!(first["duplicate"], false);
    let seq = first["seq"].as_u64().expect("a seq");
    client.wait_for_seq(room, seq);
    let told = client.message(room);
    assert_eq!(told["seq"], seq);
    assert_eq!(told["data"]["message"]["text"], "Hello, socket.");
    assert_eq!(
        told["data"]["message"]["sender_id"],
        rest.user.id.to_string()
    );
    assert_eq!(
        told["data"]["message"]["client_msg_id"],
        first["client_msg_id"]
    );
    // A retry is the same message; the same key for another one is none; another user's is another.
    let again = rest
        .send_keyed("POST", &messages, "first", &text("Hello, socket."))
        .is(200);
    assert_eq!(
        (&again["seq"], &again["duplicate"]),
        (&first["seq"], &json!(true))
    );
    let other = rest.send_keyed("POST", &messages, "first", &text("Something else."));
    other.is_problem(409, "idempotency_conflict");
    let ada = Rest::new(server.address, &client.user);
    let hers = ada
        .send_keyed("POST", &messages, "first", &text("Hello, socket."))
        .is(201);
    assert_eq!(hers["seq"], seq + 1);
    // A key that is an id is the id, so a socket can go on with it.
    let id = Uuid::now_v7();
    let sent = ada
        .send_keyed("POST", &messages, &id.to_string(), &text("Mine."))
        .is(201);
    assert_eq!(sent["client_msg_id"], id.to_string());
    let acked = client.ack("message.send", &message(room, id, "Mine."));
    assert_eq!(
        (&acked["seq"], &acked["duplicate"]),
        (&sent["seq"], &json!(true))
    );
    // Many at once, some of them twice: each is one message.
    let sending: Vec<_> = (0..12)
        .map(|n: u32| {
            let (rest, messages) = (rest.clone(), messages.clone());
            let key = format!("n-{}", n / 2);
            thread::spawn(move || {
                let text = text(&format!("number {}", n / 2));
                let told = rest.send_keyed("POST", &messages, &key, &text);
                assert!([200, 201].contains(&told.status), "{}", told.body);
                told.body["seq"].as_u64().expect("a seq")
            })
        })
        .collect();
    let mut seqs: Vec<u64> = (sending.into_iter())
        .map(|thread| thread.join().expect("sent"))
        .collect();
    seqs.sort_unstable();
    seqs.dedup();
    assert_eq!(seqs.len(), 6, "{seqs:?}");
    client.wait_for_seq(room, *seqs.last().expect("some"));
    // What a socket sent is read here, page by page.
    let last = client.send(room, "From a socket.");
    let page = rest.get(&format!("{messages}?limit=2")).is(200);
    assert_eq!(page["messages"][1]["seq"], last);
    assert_eq!(page["has_more"], true);
    let before = rest
        .get(&format!("{messages}?before_seq={last}&limit=1"))
        .is(200);
    assert_eq!(before["messages"][0]["seq"], last - 1);
    let around = rest
        .get(&format!("{messages}?around_seq={seq}&limit=3"))
        .is(200);
    let around: Vec<_> = around["messages"]
        .as_array()
        .expect("a page")
        .iter()
        .collect();
    assert!(around.iter().any(|message| message["seq"] == seq));
    let (mut after, mut found) = (0, 0);
    loop {
        let page = rest
            .get(&format!("{messages}?after_seq={after}&limit=4"))
            .is(200);
        found += page["messages"].as_array().expect("a page").len();
        after = page["next_after_seq"].as_u64().expect("where to go on");
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(
        (after, found as u64),
        (last, last),
        "every event was a message"
    );
    rest.get(&format!("{messages}?after_seq=1&before_seq=2"))
        .is_problem(400, "bad_request");
    // Who is no member is told the same as on a socket.
    let eve = Rest::new(server.address, &User::new("Eve"));
    eve.get(&messages).is_problem(403, "forbidden");
    eve.send("POST", &messages, &text("Let me in."))
        .is_problem(403, "forbidden");
    let long = "x".repeat(4_001);
    rest.send("POST", &messages, &text(&long))
        .is_problem(413, "too_large");
    rest.send("POST", &messages, &text("  "))
        .is_problem(400, "bad_request");
    rest.send("POST", &messages, &text("a\0b"))
        .is_problem(400, "bad_request");
}

fn changes(server: &Server) {
    let (mut client, rest, path, room) = world(server);
    let sent = rest.send("POST", &format!("{path}/messages"), &text("Teh end."));
    let seq = sent.is(201)["seq"].as_u64().expect("a seq");
    let message = format!("{path}/messages/{seq}");
    let edit = json!({"text": "The end.", "expected_revision": 1});
    let edited = rest.send("PATCH", &message, &edit).is(200);
    assert_eq!(
        (&edited["changed"], &edited["revision"]),
        (&json!(true), &json!(2))
    );
    let told = client.event_of("message.updated");
    assert_eq!(told["data"]["message"]["text"], "The end.");
    rest.send(
        "PATCH",
        &message,
        &json!({"text": "Other.", "expected_revision": 1}),
    )
    .is_problem(409, "revision_conflict");
    // 👍, encoded; without its variation selector a heart is one too.
    for emoji in ["%F0%9F%91%8D", "%E2%9D%A4"] {
        let reaction = format!("{message}/reactions/{emoji}");
        assert_eq!(rest.ask("PUT", &reaction, &[], "").is(200)["changed"], true);
        assert_eq!(client.event_of("reaction.updated")["data"]["added"], true);
        assert_eq!(
            rest.ask("PUT", &reaction, &[], "").is(200)["changed"],
            false
        );
        assert_eq!(rest.delete(&reaction).is(200)["changed"], true);
        assert_eq!(client.event_of("reaction.updated")["data"]["added"], false);
    }
    rest.ask("PUT", &format!("{message}/reactions/no"), &[], "")
        .is_problem(400, "bad_request");
    // A group's owner pins; Bob is none.
    rest.ask("PUT", &format!("{message}/pin"), &[], "")
        .is_problem(403, "forbidden");
    let ada = Rest::new(server.address, &client.user);
    assert_eq!(
        ada.ask("PUT", &format!("{message}/pin"), &[], "").is(200)["changed"],
        true
    );
    client.event_of("message.pinned");
    assert_eq!(
        ada.delete(&format!("{message}/pin")).is(200)["changed"],
        true
    );
    client.event_of("message.unpinned");
    let report = format!("{message}/report");
    assert_eq!(ada.ask("POST", &report, &[], "").is(200)["changed"], true);
    assert_eq!(ada.ask("POST", &report, &[], "").is(200)["changed"], false);
    rest.delete(&format!("{message}?expected_revision=7"))
        .is_problem(409, "revision_conflict");
    assert_eq!(rest.delete(&message).is(200)["changed"], true);
    let told = client.event_of("message.deleted");
    assert_eq!(told["data"]["message_seq"], seq);
    assert_eq!(rest.delete(&message).is(200)["changed"], false);
    rest.send("PATCH", &message, &edit).is_problem(410, "gone");
    rest.delete(&format!("{path}/messages/999"))
        .is_problem(404, "not_found");
    rest.delete(&format!("{path}/messages/x"))
        .is_problem(400, "bad_request");
    client.wait_for_seq(room, told["seq"].as_u64().expect("a seq"));
}

fn rooms(server: &Server) {
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let rest = Rest::new(server.address, &ada);
    let mut bob_client = server.connect(&bob);
    let _eve_client = server.connect(&eve);
    // A user whom nobody has seen is there with their first request.
    let me = rest.get("/v1/users/me").is(200);
    assert_eq!(
        (&me["user_id"], &me["name"]),
        (&json!(ada.id), &json!(ada.name))
    );
    assert_eq!(rest.get("/v1/rooms").is(200)["rooms"], json!([]));
    let group = json!({"kind": "group", "member_ids": [bob.id], "title": "Coffee"});
    let made = rest
        .send_keyed("POST", "/v1/rooms", "a-room", &group)
        .is(201);
    let room = uuid(&made["room"]["room_id"]);
    assert_eq!(made["created"], true);
    let again = rest
        .send_keyed("POST", "/v1/rooms", "a-room", &group)
        .is(200);
    assert_eq!(
        (&again["room"]["room_id"], &again["created"]),
        (&json!(room), &json!(false))
    );
    let other = json!({"kind": "group", "member_ids": [], "title": "Tea"});
    rest.send_keyed("POST", "/v1/rooms", "a-room", &other)
        .is_problem(409, "idempotency_conflict");
    let added = bob_client.event_of("room.added");
    assert_eq!(uuid(&added["data"]["room"]["room_id"]), room);
    let members = added["data"]["room"]["members"]
        .as_array()
        .expect("members");
    assert!(
        members.iter().any(|member| member["name"] == ada.name),
        "{added}"
    );
    let path = format!("/v1/rooms/{room}");
    let changed = rest.send("PATCH", &path, &json!({"title": "Tea"})).is(200);
    assert_eq!(changed["changed"], true);
    bob_client.event_of("room.updated");
    assert_eq!(rest.get(&path).is(200)["room"]["title"], "Tea");
    let members = format!("{path}/members");
    let added = rest.send("POST", &members, &json!({"user_ids": [eve.id]}));
    assert_eq!(added.is(200)["changed"], true);
    bob_client.event_of("member.joined");
    let role = format!("{members}/{}/role", eve.id);
    assert_eq!(
        rest.send("PUT", &role, &json!({"role": "admin"})).is(200)["changed"],
        true
    );
    bob_client.event_of("member.role_changed");
    rest.send("PUT", &role, &json!({"role": "king"}))
        .is_problem(400, "bad_request");
    assert_eq!(
        rest.delete(&format!("{members}/{}", eve.id)).is(200)["changed"],
        true
    );
    bob_client.event_of("member.left");
    let bob_rest = Rest::new(server.address, &bob);
    bob_rest
        .send("PATCH", &path, &json!({"title": "Mine"}))
        .is_problem(403, "forbidden");
    rest.get(&format!("/v1/rooms/{}", Uuid::new_v4()))
        .is_problem(403, "forbidden");
    assert_eq!(
        rest.ask("POST", &format!("{path}/leave"), &[], "").is(200)["changed"],
        true
    );
    rest.get(&path).is_problem(403, "forbidden");
    bob_client.event_of("member.left");
    // A page at a time.
    for n in 0..3 {
        let group = json!({"kind": "group", "member_ids": [], "title": format!("{n}")});
        rest.send("POST", "/v1/rooms", &group).is(201);
    }
    let first = rest.get("/v1/rooms?limit=2").is(200);
    assert_eq!(first["rooms"].as_array().map(Vec::len), Some(2));
    let cursor = first["next_cursor"].as_str().expect("more");
    let second = rest
        .get(&format!("/v1/rooms?limit=2&cursor={cursor}"))
        .is(200);
    assert_eq!(second["rooms"].as_array().map(Vec::len), Some(1));
    rest.get("/v1/rooms?cursor=nonsense")
        .is_problem(400, "bad_request");
}

/// What a room is to one member, whom one blocks, and what one finds.
fn what_is_one_s_own(server: &Server) {
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let rest = Rest::new(server.address, &ada);
    let mut ada_client = server.connect(&ada);
    let mut bob_client = server.connect(&bob);
    let _eve_client = server.connect(&eve);
    let room = ada_client.group(&[&bob, &eve]);
    let path = format!("/v1/rooms/{room}");

    // Archived here, told to one's own connections.
    let archive = |is_so: bool| {
        let body = json!({"archived": is_so});
        rest.send("PUT", &format!("{path}/archive"), &body).is(200)
    };
    assert_eq!(archive(true)["changed"], true);
    let told = ada_client.event_of("unread.updated");
    assert_eq!(told["data"]["archived"], true, "{told}");
    assert_eq!(archive(true)["changed"], false);
    let archived = rest.get("/v1/rooms?archived=true").is(200);
    assert_eq!(uuid(&archived["rooms"][0]["room_id"]), room);
    assert_eq!(archive(false)["changed"], true);
    let mute = format!("{path}/mute");
    assert_eq!(rest.send("PUT", &mute, &json!({})).is(200)["changed"], true);
    let until = json!({"until": null});
    assert_eq!(rest.send("PUT", &mute, &until).is(200)["changed"], true);

    let first = rest.get(&format!("{path}/members?limit=2")).is(200);
    assert_eq!(first["members"].as_array().map(Vec::len), Some(2));
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let rest_of_it = format!("{path}/members?limit=2&cursor={cursor}");
    let second = rest.get(&rest_of_it).is(200);
    assert_eq!(second["members"].as_array().map(Vec::len), Some(1));

    let seq = ada_client.send(room, "Kaffee um vier?");
    wait_for("the message is found", || {
        let found = rest.get("/v1/search?query=kaff").is(200);
        (found["hits"][0]["message"]["seq"] == seq).then_some(())
    });
    rest.get("/v1/search").is_problem(400, "bad_request");

    // Read here, told to the others of the room and to one's own connections.
    let bob_s = Rest::new(server.address, &bob);
    let read = |rooms: Value| {
        let body = json!({"rooms": rooms});
        bob_s.send("POST", "/v1/users/me/receipts/read", &body)
    };
    read(json!({room.to_string(): seq})).is(202);
    let told = ada_client.event_of("receipt.updated");
    assert_eq!(told["data"]["user_id"], json!(bob.id), "{told}");
    assert_eq!(told["data"]["read_seq"], seq, "{told}");
    let told = bob_client.event_of("unread.updated");
    assert_eq!(
        (&told["data"]["read_seq"], &told["data"]["unread"]),
        (&json!(seq), &json!(0))
    );
    assert_eq!(bob_s.get(&path).is(200)["read_seq"], seq);
    let delivered = json!({"rooms": {room.to_string(): 1}});
    let path_of_it = "/v1/users/me/receipts/delivered";
    bob_s.send("POST", path_of_it, &delivered).is(202);
    let too_many: serde_json::Map<String, Value> = (0..501)
        .map(|_| (Uuid::new_v4().to_string(), json!(1)))
        .collect();
    read(too_many.into()).is_problem(413, "too_large");
    read(json!({"no room": 1})).is_problem(400, "bad_request");

    let block = format!("/v1/users/me/blocks/{}", bob.id);
    assert_eq!(
        rest.send("PUT", &block, &json!({})).is(200)["changed"],
        true
    );
    let blocks = rest.get("/v1/users/me/blocks").is(200);
    assert_eq!(blocks.to_string().matches(&bob.id.to_string()).count(), 1);
    let direct =
        json!({"kind": "direct", "member_ids": [bob.id], "client_room_id": Uuid::new_v4()});
    rest.send("POST", "/v1/rooms", &direct)
        .is_problem(403, "forbidden");
    assert_eq!(rest.delete(&block).is(200)["changed"], true);
    drop(bob_client);
}

#[test]
fn every_operation_of_the_document_is_answered() {
    let server = Server::unlimited();
    messages_and_keys(&server);
    changes(&server);
    rooms(&server);
    what_is_one_s_own(&server);
    admin::everything();
    uploads::without_a_socket(&server);
    for (method, path) in openapi::operations() {
        // Of others than users, and an archive, which have tests of their own.
        let is_own = ["/v1/admin/webhooks", "/v1/webhooks/"]
            .iter()
            .any(|own| path.starts_with(own));
        if is_own || path.ends_with("/export") {
            continue;
        }
        let seen = openapi::seen(&method, &path);
        assert!(
            seen.iter().any(|status| (200..300).contains(status)),
            "{method} {path}: {seen:?}"
        );
    }
}

#[test]
fn the_openapi_document_that_is_served_is_the_committed_one() {
    let server = Server::new();
    let answer = server.get("/v1/openapi.json");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("content-type: application/json"));
    assert_eq!(answer.body, include_str!("../../docs/openapi.json"));
}

#[test]
fn who_has_no_token_learns_nothing() {
    let server = Server::new();
    let user = User::new("Ada");
    let rest = Rest::new(server.address, &user);
    let good = format!("authorization: Bearer {}", user.token());
    let old = format!("authorization: Bearer {}", user.token_until(1_000));
    let forged = format!("{good}x");
    let basic = "authorization: Basic YTpi".to_owned();
    for (path, body) in [("/v1/rooms", ""), ("/v1/users/me", "")] {
        for lines in [
            &[] as &[&str],
            &[&old],
            &[&forged],
            &[&basic],
            &[&good, &good],
            &["authorization: Bearer"],
        ] {
            let told = rest.ask_bare("GET", path, lines, body);
            told.is_problem(401, "unauthenticated");
            let challenge = told.header("www-authenticate").expect("a challenge");
            assert!(challenge.starts_with("bearer"), "{challenge}");
        }
        rest.ask_bare("GET", path, &[&good], body).is(200);
    }
    // A room that there is and one that there is not are the same to a stranger.
    rest.ask_bare("GET", &format!("/v1/rooms/{}", Uuid::new_v4()), &[], "")
        .is_problem(401, "unauthenticated");
}

#[test]
fn what_is_no_request_is_a_problem() {
    let server = Server::unlimited();
    let (_client, rest, path, _) = world(&server);
    let messages = format!("{path}/messages");
    let json = "content-type: application/json";
    let good = text("x").to_string();
    let status = |lines: &[&str], body: &str| rest.ask("POST", &messages, lines, body);
    status(&["content-type: text/plain"], &good).is_problem(415, "unsupported_media");
    status(&[], &good).is_problem(415, "unsupported_media");
    status(&[json, "content-encoding: gzip"], &good).is_problem(415, "unsupported_media");
    status(&[json, "accept: text/html"], &good).is_problem(406, "bad_request");
    status(&[json], "{").is_problem(400, "bad_request");
    status(&[json], "[]").is_problem(400, "bad_request");
    status(&[json, "idempotency-key: a", "idempotency-key: b"], &good)
        .is_problem(400, "bad_request");
    let large = text(&"x".repeat(70_000)).to_string();
    status(&[json], &large).is_problem(413, "too_large");
    status(&["content-type: application/json; charset=utf-8"], &good).is(201);
    let told = rest.ask("TRACE", &messages, &[], "");
    assert_eq!(told.status, 405);
    assert!(
        told.header("allow")
            .is_some_and(|allow| allow.contains("post"))
    );
    rest.get("/v1/rooms/not-an-id")
        .is_problem(400, "bad_request");
    rest.get("/v1/rooms/%ff").is_problem(400, "bad_request");
    // Ids that name one request, and are told back.
    let told = rest.ask("GET", &path, &["x-request-id: from-a-proxy"], "");
    assert_eq!(told.header("x-request-id"), Some("from-a-proxy"));
    wait_until("the line of the log", || {
        server.log().contains("from-a-proxy")
    });
}

#[test]
fn pages_of_allowed_origins_may_ask() {
    let server = server::start(&[("CAFFIS_ALLOWED_ORIGINS", "https://app.caffis.test")]).anywhere();
    let rest = Rest::new(server.address, &User::new("Ada"));
    let preflight = |origin: &str| {
        let lines = [origin, "access-control-request-method: PATCH"];
        rest.ask_bare("OPTIONS", "/v1/rooms", &lines, "")
    };
    let told = preflight("origin: https://app.caffis.test");
    assert_eq!(told.status, 204);
    let origin = told.header("access-control-allow-origin");
    assert_eq!(origin, Some("https://app.caffis.test"));
    let methods = told.header("access-control-allow-methods");
    assert!(methods.is_some_and(|methods| methods.contains("patch")));
    let headers = told.header("access-control-allow-headers");
    assert!(headers.is_some_and(|headers| headers.contains("idempotency-key")));
    let told = rest.ask("GET", "/v1/rooms", &["origin: https://app.caffis.test"], "");
    assert_eq!(told.header("vary"), Some("origin"));
    assert!(told.header("access-control-allow-origin").is_some());
    told.is(200);
    let stranger = rest.ask("GET", "/v1/rooms", &["origin: https://evil.test"], "");
    assert_eq!(stranger.header("access-control-allow-origin"), None);
    stranger.is(200);
    let lines = [
        "origin: https://evil.test",
        "access-control-request-method: GET",
    ];
    let told = rest.ask_bare("OPTIONS", "/v1/rooms", &lines, "");
    assert_eq!(
        (told.status, told.header("access-control-allow-origin")),
        (403, None)
    );
}

#[test]
fn a_user_has_one_budget_over_http_and_all_connections() {
    let server = server::start(&[("CAFFIS_SENDS_PER_10S", "20")]).anywhere();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let rest = Rest::new(server.address, &ada);
    let mut clients = [server.connect_on(0, &ada), server.connect_on(1, &ada)];
    let _bob = server.connect(&bob);
    let room = clients[0].group(&[&bob]);
    let messages = format!("/v1/rooms/{room}/messages");
    let told = rest.send("POST", &messages, &text("One."));
    let limit = told.header("ratelimit-limit").map(str::to_owned);
    assert_eq!(limit.as_deref(), Some("20"));
    told.is(201);
    // Twelve on one connection are soon known over HTTP and on the other connection.
    for n in 0..12 {
        clients[0].send(room, &n.to_string());
    }
    let remaining = |told: &crate::support::rest::Told| {
        let remaining = told.header("ratelimit-remaining").expect("told");
        remaining.parse::<u32>().expect("a number")
    };
    wait_for("the word of it", || {
        let told = rest.send("POST", &messages, &text("x"));
        (told.status == 429 || remaining(&told) < 8).then_some(())
    });
    // Go on over HTTP until it is enough: the message is not there, and it is said when to come back.
    let refused = wait_for("the end of the budget", || {
        let told = rest.send("POST", &messages, &text("y"));
        (told.status == 429).then_some(told)
    });
    refused.is_problem(429, "rate_limited");
    assert_eq!(remaining(&refused), 0);
    let reset = refused.header("ratelimit-reset").expect("told");
    assert!(
        reset
            .parse::<u64>()
            .is_ok_and(|reset| (1..=31).contains(&reset))
    );
    assert!(refused.body["retry_after_ms"].as_u64() > Some(0));
    // Nor is there any on a connection, as soon as it knows, nor on a new one.
    let refused = wait_for("the word of it there", || {
        let reply = clients[1].ask("message.send", &message(room, Uuid::now_v7(), "z"));
        (reply["type"] == "error").then_some(reply)
    });
    assert_eq!(refused["error"]["code"], "rate_limited");
    let mut fresh = server.connect(&ada);
    let mut taken = 0;
    wait_for("the word of it on a new one", || {
        let reply = fresh.ask("message.send", &message(room, Uuid::now_v7(), "fresh"));
        taken += u32::from(reply["type"] == "ack");
        (reply["type"] == "error").then_some(())
    });
    assert!(taken < 20, "as if it were alone: {taken}");
    // Another user is not concerned.
    let bob_rest = Rest::new(server.address, &bob);
    bob_rest.send("POST", &messages, &text("Me?")).is(201);
    server.wait_for_metrics("what was asked", |metrics| {
        metrics.sum("caffis_asks_total") > 2.0 && metrics.sum("caffis_asks_waiting") == 0.0
    });
    let metrics = server.metrics();
    assert!(metrics.sum("caffis_http_problems_total") >= 1.0);
}
