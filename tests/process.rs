//! The program as a whole: it starts, two people talk, it stops as told, and it refuses to start
//! where it cannot keep its word.
#![cfg(all(feature = "server", not(feature = "echo")))]

mod support;

use caffis_chat::identity::hs256::{Issuer, Signer};
use caffis_chat::protocol::{UnixMs, UserId};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use support::server::{DEADLINE, Server, command};
use uuid::Uuid;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn no_complaints(log: &str) {
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

fn send(room: &str, text: &str) -> Value {
    json!({"room_id": room, "client_msg_id": Uuid::now_v7(), "kind": "text", "text": text})
}

#[test]
fn two_people_talk_and_nothing_is_forgotten_over_a_restart() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.http("GET", "/readyz", "").0, 200);
    let (ada_token, ada_id) = server.login("Ada");
    let (bob_token, bob_id) = server.login("Bob");
    let (mut ada, ready) = server.sign_in(&ada_token);
    assert_eq!(ready["user_id"], ada_id);
    assert_eq!(ready["node"], "n1");
    let (mut bob, _) = server.sign_in(&bob_token);

    let wanted =
        json!({"kind": "direct", "member_ids": [bob_id], "client_room_id": Uuid::new_v4()});
    let created = ada.ask("room.create", &wanted);
    let room = created["data"]["room"]["room_id"].as_str().expect("a room");
    assert_eq!(bob.event_of("room.added")["data"]["room"]["room_id"], room);
    let sent = ada.ask("message.send", &send(room, "Coffee?"));
    let seq = sent["data"]["seq"].as_u64().expect("a seq");
    let event = bob.event_of("message.created");
    assert_eq!(event["data"]["message"]["text"], "Coffee?");
    assert_eq!(event["seq"], seq);
    let answered = bob.ask("message.send", &send(room, "At four."));
    assert_eq!(answered["data"]["seq"], seq + 1);
    assert_eq!(ada.event_of("message.created")["seq"], seq);
    assert_eq!(ada.event_of("message.created")["seq"], seq + 1);

    server.signal("TERM");
    for client in [&mut ada, &mut bob] {
        let close = client.closed().expect("told why");
        assert_eq!(
            (u16::from(close.code), close.reason.as_str()),
            (4102, "draining")
        );
    }
    let ended = server.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    no_complaints(&ended.log);

    // The same token, because the secret was kept; the same history, because it was committed.
    let server = Server::start(folder.path(), &[]);
    let (mut ada, ready) = server.sign_in(&ada_token);
    assert_eq!(ready["rooms"][0]["last_seq"], seq + 1);
    let history = ada.ask("history.get", &json!({"room_id": room}));
    let texts: Vec<_> = history["data"]["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .filter_map(|message| message["text"].as_str())
        .collect();
    assert_eq!(texts, ["Coffee?", "At four."]);
    server.signal("INT");
    let ended = server.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    no_complaints(&ended.log);
}

#[test]
fn metrics_count_what_happened() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let (token, _) = server.login("Ada");
    let (mut ada, _) = server.sign_in(&token);
    let wanted = json!({"kind": "group", "member_ids": [], "client_room_id": Uuid::new_v4()});
    let created = ada.ask("room.create", &wanted);
    let room = created["data"]["room"]["room_id"].as_str().expect("a room");
    for text in ["1", "2", "3"] {
        ada.ask("message.send", &send(room, text));
    }
    // The shards publish their counters about once a second.
    let began = Instant::now();
    loop {
        let (_, text) = server.http("GET", "/metrics", "");
        let sum = |name: &str| -> u64 {
            text.lines()
                .filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once(' '))
                .map(|(_, value)| value.parse::<u64>().expect("a number"))
                .sum()
        };
        let counted = sum("caffis_messages_committed_total") == 3
            && sum("caffis_sessions") == 1
            && sum("caffis_received_to_committed_seconds_count") >= 3
            && sum("caffis_published_to_written_seconds_count") >= 3;
        if counted {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "{text}");
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("CAFFIS_DRAIN_MS", "600000")]);
    let (token, _) = server.login("Ada");
    let (mut ada, _) = server.sign_in(&token);
    server.signal("TERM");
    ada.event_of("server.draining");
    server.signal("TERM");
    let ended = server.ended();
    assert_eq!(ended.status.code(), Some(143), "{}", ended.log);
}

#[test]
fn settings_that_are_wrong_are_told_and_nothing_is_touched() {
    let folder = folder();
    let data = folder.path().join("data");
    let env = [("CAFFIS_SHARDS", "0"), ("CAFFIS_LISTEN", "0.0.0.0:8080")];
    let output = command(&data, &env).output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains("CAFFIS_SHARDS") && told.contains("CAFFIS_ALLOW_INSECURE"),
        "{told}"
    );
    assert!(
        !data.exists(),
        "a node that cannot run leaves nothing behind"
    );

    let usage = command(&data, &[])
        .arg("--nonsense")
        .output()
        .expect("runs");
    assert_eq!(usage.status.code(), Some(2));
    let help = command(&data, &[]).arg("--help").output().expect("runs");
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("CAFFIS_JWT_SECRET"));

    let many = [("CAFFIS_CONNECTIONS_MAX", "10000000")];
    let output = command(&data, &many).output().expect("runs");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("open files"), "{told}");
}

#[test]
fn the_generated_files_are_printed_by_the_program() {
    let folder = folder();
    for (name, file) in [
        ("config", "config.example.toml"),
        ("asyncapi", "docs/asyncapi.json"),
    ] {
        let output = command(folder.path(), &[])
            .arg(name)
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(0));
        let committed = std::fs::read(file).expect("there");
        assert!(output.stdout == committed, "{file} is out of date");
    }
}

#[test]
fn a_second_node_on_the_same_folder_or_address_is_refused() {
    let (first, second) = (folder(), folder());
    let server = Server::start(first.path(), &[]);
    let output = command(first.path(), &[]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("in use by another process"), "{told}");

    let address = server.address.to_string();
    let env = [("CAFFIS_LISTEN", address.as_str())];
    let output = command(second.path(), &env).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("cannot listen on"), "{told}");

    assert_eq!(server.http("GET", "/readyz", "").0, 200);
}

const SECRET: &str = "c6a1f1d2b7e84c0f9d3a5b8e7f60412399ab";

fn production(folder: &Path) -> Server {
    let env = [
        ("CAFFIS_MODE", "production"),
        ("CAFFIS_JWT_SECRET", SECRET),
        ("CAFFIS_ALLOWED_ORIGINS", "https://app.example.org"),
    ];
    Server::start(folder, &env)
}

#[test]
fn production_takes_tokens_of_its_secret_only_and_logs_json_without_secrets() {
    let folder = folder();
    let server = production(folder.path());
    let (status, _) = server.http("POST", "/v1/demo/login", r#"{"name":"Ada"}"#);
    assert_eq!(status, 404);
    let signer = |secret: &str| {
        let issuer = Issuer {
            issuer: "caffis".to_owned(),
            audience: "caffis-chat".to_owned(),
        };
        Signer::new(secret.as_bytes(), issuer)
    };
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let now_ms = since.as_millis() as u64;
    let user = UserId(Uuid::new_v4());
    let token = |secret: &str, expires_ms: u64| {
        let signed = signer(secret).sign(user, "Ada", UnixMs(expires_ms));
        signed.expect("signed")
    };
    let (_, ready) = server.sign_in(&token(SECRET, now_ms + 60_000));
    assert_eq!(ready["user_id"], user.to_string());

    for (token, code) in [
        (
            token("another secret of more than 32 bytes", now_ms + 60_000),
            4001,
        ),
        (token(SECRET, now_ms - 120_000), 4202),
    ] {
        let mut client = server.connect();
        client.tell("auth", &json!({ "token": token }));
        let close = client.closed().expect("told why");
        assert_eq!(u16::from(close.code), code);
        assert!(!server.log().contains(&token), "a token in the log");
    }

    server.signal("TERM");
    let ended = server.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    for line in ended.log.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(
            line["level"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
    }
    assert!(!ended.log.contains(SECRET), "a secret in the log");
    no_complaints(&ended.log);
    assert!(!folder.path().join("development.secret").exists());
}
