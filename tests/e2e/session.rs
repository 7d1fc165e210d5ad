//! From the upgrade to `ready`, and how long a session lasts.

use crate::support::client::code_of;
use crate::support::socket::{End, Frame, PING, Socket};
use crate::support::token::{SECRET, now_ms, now_s, signed};
use crate::support::{Client, Server, User};
use serde_json::json;
use std::time::{Duration, Instant};
use uuid::Uuid;

#[test]
fn auth_is_answered_with_who_where_and_the_limits() {
    let server = Server::new();
    let user = User::new("Ada");
    let exp_s = now_s() + 600;
    let mut client = Client::new(Socket::open(server.address), &user);
    let id = client.tell_auth(&user.token_until(exp_s), None);
    let reply = client.reply(id);
    assert_eq!(reply["type"], "ready");
    let ready = &client.ready;
    assert_eq!(ready["user_id"], user.id.to_string());
    assert_eq!(ready["node"], "n1");
    assert!(!ready["epoch"].as_str().expect("an epoch").is_empty());
    assert!(!ready["connection_id"].as_str().expect("an id").is_empty());
    assert_eq!(ready["rooms"], json!([]));
    assert_eq!(ms_of(&ready["token_expires_at"]), exp_s as u64 * 1_000);
    assert!(ms_of(&ready["server_time"]).abs_diff(now_ms()) < 30_000);
    let limits = json!({
        "frame_bytes": 65_536, "rooms_per_user": 5_000, "text_chars": 4_000,
        "sends_per_10s": 50, "commands_per_10s": 200, "typing_interval_ms": 3_000,
        "ping_interval_ms": 25_000, "ping_timeout_ms": 10_000, "replay_max": 300,
        "history_page_max": 100, "durability": "commit",
    });
    assert_eq!(ready["limits"], limits);
}

/// Ms since 1970 of "2026-01-02T03:04:05.678Z".
fn ms_of(time: &serde_json::Value) -> u64 {
    let time = time.as_str().expect("a time");
    let number = |from: usize, to: usize| time[from..to].parse::<u64>().expect("a number");
    assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
    let (mut year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    // Days since 1970 of the Gregorian calendar, in years that begin in March.
    let month = if month > 2 {
        month - 3
    } else {
        year -= 1;
        month + 9
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let hours = 24 * (days - 719_469) + number(11, 13);
    ((60 * hours + number(14, 16)) * 60 + number(17, 19)) * 1_000 + number(20, 23)
}

#[test]
fn requests_sent_before_ready_are_answered_after_it() {
    let server = Server::new();
    let user = User::new("Ada");
    let mut client = Client::new(Socket::open(server.address), &user);
    let auth = client.tell_auth(&user.token(), None);
    let ids: Vec<u64> = (0..10)
        .map(|_| client.tell("rooms.list", &json!({})))
        .collect();
    assert_eq!(client.reply(auth)["type"], "ready");
    for id in ids {
        assert_eq!(client.reply(id)["type"], "ack");
    }
}

#[test]
fn a_refreshed_token_keeps_the_connection_past_the_first_ones_end() {
    let server = Server::new();
    let user = User::new("Ada");
    let first_end_s = now_s() + 3;
    let mut client = Client::new(Socket::open(server.address), &user);
    let id = client.tell_auth(&user.token_until(first_end_s), None);
    assert_eq!(client.reply(id)["type"], "ready");

    let other = User::new("Bob").token();
    assert_eq!(
        client.refusal("auth.refresh", &json!({"token": other})),
        "forbidden"
    );
    let forged = signed(
        &user.claims(now_s() + 600),
        "another secret of more than 32 bytes long",
    );
    let refused = client.refusal("auth.refresh", &json!({"token": forged}));
    assert_eq!(refused, "unauthenticated");
    let second_end_s = now_s() + 600;
    let token = user.token_until(second_end_s);
    let refreshed = client.ack("auth.refresh", &json!({"token": token}));
    assert_eq!(
        ms_of(&refreshed["token_expires_at"]),
        second_end_s as u64 * 1_000
    );

    // The connection says nothing of its own, and stands well after the first end.
    while now_s() < first_end_s + 2 {
        assert_eq!(client.receive(Duration::from_millis(250)), Err(End::Silent));
    }
    client.round_trip();
}

#[test]
fn a_connection_whose_token_ends_is_closed_4202_then_and_not_before() {
    let server = Server::new();
    let user = User::new("Ada");
    let end_s = now_s() + 3;
    let mut client = Client::new(Socket::open(server.address), &user);
    let id = client.tell_auth(&user.token_until(end_s), None);
    assert_eq!(client.reply(id)["type"], "ready");
    client.closed_with(4202);
    let late_ms = now_ms() as i64 - end_s * 1_000;
    assert!((0..5_000).contains(&late_ms), "{late_ms} ms after its end");
}

#[test]
fn an_expired_token_is_closed_4202() {
    let server = Server::new();
    // Beyond the skew of clocks that is allowed for, and within it.
    for age_s in [3_600, 10] {
        let user = User::new("Ada");
        let mut client = Client::new(Socket::open(server.address), &user);
        client.tell_auth(&user.token_until(now_s() - age_s), None);
        client.closed_with(4202);
    }
}

#[test]
fn a_bad_token_is_closed_4001() {
    let server = Server::new();
    let user = User::new("Ada");
    let good = user.claims(now_s() + 600);
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = good.clone();
        claims[name] = value;
        signed(&claims, SECRET)
    };
    let signed_well = user.token();
    let parts: Vec<&str> = signed_well.split('.').collect();
    let swapped = User::new("Eve").token();
    let other_claims = swapped.split('.').nth(1).expect("three parts");
    // {"alg":"none","typ":"JWT"}
    let unsigned_header = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let tokens = [
        String::new(),
        "not a token".to_owned(),
        signed(&good, "another secret of more than 32 bytes long"),
        format!("{}.{}.{}", parts[0], other_claims, parts[2]),
        format!("{unsigned_header}.{}.", parts[1]),
        format!("{unsigned_header}.{}.{}", parts[1], parts[2]),
        with("iss", json!("somebody else")),
        with("aud", json!("another service")),
        with("sub", json!("ada")),
        with("nbf", json!(now_s() + 3_600)),
        with("name", json!("x".repeat(10_000))),
    ];
    for token in tokens {
        let mut client = Client::new(Socket::open(server.address), &user);
        let id = client.tell_auth(&token, None);
        assert_eq!(code_of(&client.reply(id)), "unauthenticated", "{token}");
        client.closed_with(4001);
    }
}

#[test]
fn a_connection_without_auth_is_closed_4001_after_ten_seconds() {
    let server = Server::new();
    let mut client = Client::new(Socket::open(server.address), &User::new("Silent"));
    let began = Instant::now();
    client.closed_with(4001);
    let took = began.elapsed();
    let expected = Duration::from_secs(9)..Duration::from_secs(25);
    assert!(expected.contains(&took), "{took:?}");
}

#[test]
fn a_first_frame_that_is_not_auth_is_closed_4001() {
    let server = Server::new();
    let mut client = Client::new(Socket::open(server.address), &User::new("Ada"));
    assert_eq!(client.refusal("rooms.list", &json!({})), "unauthenticated");
    client.closed_with(4001);
    // A frame that is no request at all is no better.
    let mut client = Client::new(Socket::open(server.address), &User::new("Ada"));
    client.socket.send_text("hello");
    client.closed_with(4001);
}

#[test]
fn a_second_auth_is_refused_and_changes_nothing() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut client = server.connect(&ada);
    let data = json!({"token": bob.token()});
    assert_eq!(client.refusal("auth", &data), "bad_request");
    let room = client.group(&[]);
    let got = client.ack("room.get", &json!({"room_id": room}));
    assert_eq!(got["room"]["members"][0]["user_id"], ada.id.to_string());
}

#[test]
fn pongs_are_taken_and_pings_of_the_websocket_are_answered() {
    let server = Server::new();
    let mut client = server.connect(&User::new("Ada"));
    client.tell_only("pong", &json!({}));
    for payload in [&b""[..], b"are you there?", &[0xff; 125]] {
        client.socket.send_frame(PING, payload);
        assert_eq!(client.socket.read(), Ok(Frame::Pong(payload.to_vec())));
    }
    client.round_trip();
}

#[test]
fn one_user_has_many_devices_and_every_one_hears_everything() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut devices: Vec<Client> = (0..6).map(|n| server.connect_on(n % 2, &ada)).collect();
    let mut bob = server.connect(&bob);
    let room = bob.direct(&ada);
    let seq = bob.send(room, "Which phone?");
    for device in &mut devices {
        assert_eq!(
            device.event_of("room.added")["data"]["room"]["room_id"],
            room.to_string()
        );
        assert_eq!(device.message(room)["seq"], seq);
    }
    // The one that answers, and those that do not, all hear it.
    let seq = devices[0].send(room, "All of them.");
    for device in &mut devices {
        assert_eq!(device.message(room)["seq"], seq);
    }
}

#[test]
fn a_silent_connection_is_pinged_and_closed_4201_and_one_that_answers_stays() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut dead = server.connect(&ada);
    let mut alive = server.connect(&bob);
    let began = Instant::now();
    let mut told = Vec::new();
    let end = loop {
        // One of them reads what comes and answers nothing.
        match dead.socket.read_within(Duration::from_millis(100)) {
            Ok(frame) => told.push(frame),
            Err(End::Silent) => (),
            Err(end) => break end,
        }
        let answered = alive.receive(Duration::from_millis(100));
        assert!(
            matches!(answered, Ok(()) | Err(End::Silent)),
            "{answered:?}"
        );
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "a dead connection lives"
        );
    };
    let took = began.elapsed();
    assert_eq!(told, [Frame::Text("{\"type\":\"ping\"}".to_owned())]);
    assert_eq!(end, End::Close(Some(4201), "ping_timeout".to_owned()));
    let expected = Duration::from_secs(33)..Duration::from_secs(45);
    assert!(expected.contains(&took), "{took:?}");
    alive.round_trip();
    assert_eq!(alive.pings, 1);
}

#[test]
fn a_request_without_an_id_is_done_without_a_reply() {
    let server = Server::new();
    let mut client = server.connect(&User::new("Ada"));
    let room = client.group(&[]);
    let text = crate::support::client::message(room, Uuid::now_v7(), "No need to answer.");
    client.tell_only("message.send", &text);
    let event = client.message(room);
    assert_eq!(event["data"]["message"]["text"], "No need to answer.");
    client.tell_only("rooms.list", &json!({}));
    client.tell_only("room.get", &json!({"room_id": Uuid::new_v4()}));
    // The next reply is the one that was asked for, or the client would complain.
    client.round_trip();
}
