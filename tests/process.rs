//! The program as a whole: it starts, two people talk, it stops as told, and it refuses to start
//! where it cannot keep its word.
#![cfg(all(feature = "server", not(feature = "echo")))]

mod support;

use caffis_chat::identity::hs256::{Issuer, Signer};
use caffis_chat::protocol::{UnixMs, UserId};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
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

/// Sends these bytes, and reads the head and the body of as many answers as are expected.
fn exchange(stream: &mut TcpStream, bytes: &[u8], answers: usize) -> Vec<(String, String)> {
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    stream.write_all(bytes).expect("sent");
    let mut read = Vec::new();
    let mut found = Vec::new();
    while found.len() < answers {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().expect("a length"));
            if rest.len() >= length {
                found.push((head.to_owned(), rest[..length].to_owned()));
                read.drain(..head.len() + 4 + length);
                continue;
            }
        }
        let mut buffer = [0; 65536];
        let length = stream.read(&mut buffer).expect("an answer");
        assert!(length > 0, "closed after {text:?}");
        read.extend_from_slice(&buffer[..length]);
    }
    assert!(read.is_empty(), "more than expected: {read:?}");
    found
}

#[test]
fn an_upgrade_is_taken_on_a_connection_that_carried_plain_requests() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let (token, _) = server.login("Ada");
    let plain = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for before in [1, 2, 3] {
        let mut stream = TcpStream::connect(server.address).expect("connected");
        for (_, body) in exchange(&mut stream, &plain.repeat(before), before) {
            assert_eq!(body, "ok\n");
        }
        let mut ada = server.connect_over(stream);
        let ready = ada.ask("auth", &json!({ "token": token }));
        assert_eq!(ready["type"], "ready", "{ready}");
    }
    // Together with the plain request before it.
    let upgrade = "GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-protocol: caffis.chat.v1\r\n";
    let both = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n{upgrade}\r\n");
    let mut stream = TcpStream::connect(server.address).expect("connected");
    let answers = exchange(&mut stream, both.as_bytes(), 2);
    assert_eq!(answers[0].1, "ok\n");
    assert!(answers[1].0.starts_with("HTTP/1.1 101"), "{answers:?}");
    assert!(answers[1].0.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    // What a shard refuses, it refuses here too.
    let evil = format!(
        "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n{upgrade}origin: https://evil.example\r\n\r\n"
    );
    let mut stream = TcpStream::connect(server.address).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    stream.write_all(evil.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("closed");
    assert!(answer.contains("HTTP/1.1 403"), "{answer}");

    server.signal("TERM");
    let ended = server.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    no_complaints(&ended.log);
}

#[test]
fn the_dashboard_and_the_alerts_name_only_metrics_that_exist() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let (status, text) = server.http("GET", "/metrics", "");
    assert_eq!(status, 200);
    let mut known = std::collections::BTreeSet::new();
    for line in text.lines() {
        let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|line| line.split_once(' '))
        else {
            continue;
        };
        known.insert(name.to_owned());
        if kind == "histogram" {
            known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        }
    }
    for (file, least) in [
        ("tuning/grafana-dashboard.json", 20),
        ("tuning/alerts.yaml", 8),
        ("docs/operations.md", 8),
    ] {
        let text = std::fs::read_to_string(file).expect("there");
        let named: std::collections::BTreeSet<_> = text
            .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .filter(|word| word.starts_with("caffis_") || word.starts_with("process_"))
            // The name of the crate, in filters of the log.
            .filter(|word| *word != "caffis_chat")
            .collect();
        assert!(named.len() >= least, "{file} names only {named:?}");
        let unknown: Vec<_> = named
            .iter()
            .filter(|name| !known.contains(**name))
            .collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}");
    }
}

/// Runs one of the program's other tasks on this data folder; its exit code and what it said.
fn run_task(data: &Path, args: &[&str]) -> (i32, String) {
    let output = command(data, &[]).args(args).output().expect("runs");
    let told = [output.stdout, output.stderr].concat();
    let code = output.status.code().expect("an exit code");
    (code, String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn a_backup_of_a_running_node_is_restored_with_a_new_epoch() {
    let folder = folder();
    let (data, other) = (folder.path().join("data"), folder.path().join("other"));
    let file = folder.path().join("backup.db");
    let path = file.to_str().expect("UTF-8");
    let (code, told) = run_task(&data, &["backup", path]);
    assert!(
        code == 1 && !file.exists(),
        "there is nothing to copy: {told}"
    );

    let server = Server::start(&data, &[]);
    let (token, _) = server.login("Ada");
    let (mut ada, ready) = server.sign_in(&token);
    let epoch = ready["epoch"].clone();
    let wanted = json!({"kind": "group", "member_ids": [], "client_room_id": Uuid::new_v4()});
    let created = ada.ask("room.create", &wanted);
    let room = created["data"]["room"]["room_id"].as_str().expect("a room");
    let kept = send(room, "kept");
    ada.ask("message.send", &kept);
    let (code, told) = run_task(&data, &["backup", path]);
    assert_eq!(code, 0, "{told}");
    ada.ask("message.send", &send(room, "later than the backup"));
    let (code, told) = run_task(&data, &["backup", path]);
    assert!(code == 1 && told.contains("exists"), "overwritten: {told}");

    // Neither beneath a node that runs nor over what is there.
    let (code, told) = run_task(&data, &["restore", path]);
    assert!(code == 1 && told.contains("in use"), "{told}");
    let (code, told) = run_task(&data, &["renew-epoch"]);
    assert!(code == 1 && told.contains("in use"), "{told}");
    server.signal("TERM");
    let ended = server.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    let (code, told) = run_task(&data, &["restore", path]);
    assert!(code == 1 && told.contains("exists"), "{told}");

    // What is no backup is refused and leaves nothing.
    let broken = folder.path().join("broken.db");
    let mut bytes = std::fs::read(&file).expect("read");
    bytes.truncate(bytes.len() / 2);
    for bytes in [&b""[..], b"no database", &bytes] {
        std::fs::write(&broken, bytes).expect("written");
        let (code, told) = run_task(&other, &["restore", broken.to_str().expect("UTF-8")]);
        assert_eq!(code, 1, "{told}");
        let left: Vec<_> = std::fs::read_dir(&other)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .filter(|name| name != "chat.lock")
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    let (code, told) = run_task(&other, &["restore", path]);
    assert_eq!(code, 0, "{told}");
    std::fs::copy(
        data.join("development.secret"),
        other.join("development.secret"),
    )
    .expect("copied");
    let server = Server::start(&other, &[]);
    let (mut ada, ready) = server.sign_in(&token);
    assert_ne!(
        ready["epoch"], epoch,
        "positions of the old history would be believed"
    );
    let restored = ready["epoch"].clone();
    let history = ada.ask("history.get", &json!({ "room_id": room }));
    let texts: Vec<_> = history["data"]["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .filter_map(|message| message["text"].as_str())
        .collect();
    assert_eq!(texts, ["kept"]);
    // A retry of what was restored is still the same message.
    assert_eq!(ada.ask("message.send", &kept)["data"]["duplicate"], true);
    server.signal("TERM");
    assert_eq!(server.ended().status.code(), Some(0));

    let (code, told) = run_task(&other, &["renew-epoch"]);
    assert_eq!(code, 0, "{told}");
    let server = Server::start(&other, &[]);
    let (_ada, ready) = server.sign_in(&token);
    assert!(
        ready["epoch"] != restored && ready["epoch"] != epoch,
        "{ready}"
    );
}

/// The program told to examine this host, under these limits of the shell.
fn doctor(folder: &Path, env: &[(&str, &str)], limits: &str) -> (i32, Value) {
    let server = env!("CARGO_BIN_EXE_caffis-chat");
    let output = Command::new("bash")
        .args(["-c", &format!("{limits} exec {server} doctor --json")])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("CAFFIS_DATA_DIR", folder)
        .env("CAFFIS_LISTEN", "127.0.0.1:0")
        .env("CAFFIS_SHARDS", "1")
        .envs(env.iter().copied())
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"));
    (output.status.code().expect("an exit code"), report)
}

fn verdict<'a>(report: &'a Value, name: &str) -> &'a str {
    let checks = report["checks"].as_array().expect("checks");
    let finding = checks.iter().find(|finding| finding["check"] == name);
    finding.expect(name)["verdict"].as_str().expect("a verdict")
}

#[test]
fn the_doctor_finds_what_this_host_lacks() {
    let folder = folder();
    let data = folder.path().join("data");
    let (code, report) = doctor(&data, &[], "");
    assert_eq!((code, &report["ok"]), (0, &json!(true)), "{report}");
    assert!(!data.exists(), "it leaves nothing behind");

    let (code, report) = doctor(&data, &[], "ulimit -n 400;");
    assert_eq!(
        (code, verdict(&report, "open files")),
        (1, "fail"),
        "{report}"
    );
    let few = [("CAFFIS_CONNECTIONS_MAX", "300")];
    let (code, report) = doctor(&data, &few, "ulimit -n 1024;");
    assert_eq!(
        (code, verdict(&report, "open files")),
        (0, "ok"),
        "{report}"
    );
    let (code, report) = doctor(&data, &[], "ulimit -n 1024;");
    assert_eq!(
        (code, verdict(&report, "open files")),
        (0, "warn"),
        "{report}"
    );

    // Files of a node that has others beside it.
    assert_eq!(verdict(&report, "files"), "ok", "{report}");
    let database = [(
        "CAFFIS_DATABASE_URL",
        "postgres://nobody@127.0.0.1:1/nothing",
    )];
    let (_, report) = doctor(&data, &database, "");
    assert_eq!(verdict(&report, "files"), "warn", "{report}");
    assert!(
        report.to_string().contains("CAFFIS_S3_ENDPOINT"),
        "{report}"
    );

    let server = Server::start(&data, &[]);
    let address = server.address.to_string();
    let listen = [("CAFFIS_LISTEN", address.as_str())];
    let (code, report) = doctor(&data, &listen, "");
    assert_eq!((code, verdict(&report, "address")), (1, "fail"), "{report}");
    assert_eq!(verdict(&report, "data folder"), "ok", "{report}");

    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    let (code, report) = doctor(&file.join("below"), &[], "");
    assert_eq!(
        (code, verdict(&report, "data folder")),
        (1, "fail"),
        "{report}"
    );

    let output = command(&data, &[]).arg("doctor").output().expect("runs");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        table.contains("listen backlog") && table.contains(" failed\n"),
        "{table}"
    );
}

#[test]
fn the_health_check_says_whether_the_node_takes_users() {
    let folder = folder();
    let server = Server::start(folder.path(), &[("CAFFIS_DRAIN_MS", "600000")]);
    let port = server.address.port();
    let ask = |listen: String| {
        let env = [("CAFFIS_LISTEN", listen.as_str())];
        let mut command = command(folder.path(), &env);
        let output = command.arg("health").output().expect("runs");
        let told = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&told).into_owned(),
        )
    };
    assert_eq!(
        ask(format!("127.0.0.1:{port}")),
        (Some(0), "ready\n".to_owned())
    );
    let (token, _) = server.login("Ada");
    let (mut ada, _) = server.sign_in(&token);
    server.signal("TERM");
    ada.event_of("server.draining");
    let (code, told) = ask(format!("127.0.0.1:{port}"));
    assert_eq!(code, Some(1), "{told}");
    server.signal("TERM");
    assert_eq!(server.ended().status.code(), Some(143));
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

    let mut stream = TcpStream::connect(server.address).expect("connected");
    let request = "GET /v1/asyncapi.json HTTP/1.1\r\nhost: x\r\nx-request-id: trace-42\r\n\r\n";
    let answers = exchange(&mut stream, request.as_bytes(), 1);
    let head = &answers[0].0;
    assert!(head.contains("\r\nx-request-id: trace-42\r\n"), "{head}");

    server.signal("TERM");
    let ended = server.ended();
    assert_eq!(ended.status.code(), Some(0), "{}", ended.log);
    let mut answered = Vec::new();
    for line in ended.log.lines() {
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(
            line["level"].is_string() && line["timestamp"].is_string(),
            "{line}"
        );
        if line["message"] == "answered" {
            answered.push(line);
        }
    }
    assert_eq!(answered.len(), 1, "{answered:?}");
    assert_eq!(answered[0]["status"], 200);
    let span = &answered[0]["span"];
    assert_eq!(span["request_id"], "trace-42");
    assert_eq!(span["route"], "/v1/asyncapi.json");
    assert_eq!(span["method"], "GET");
    assert!(!ended.log.contains(SECRET), "a secret in the log");
    no_complaints(&ended.log);
    assert!(!folder.path().join("development.secret").exists());
}
