//! The control plane over real sockets: what it answers, what it refuses, and what it does not
//! wait for. The node and the store behind it are stand-ins.
#![cfg(feature = "server")]

use caffis_chat::api::serve::{self, CONNECTIONS_MAX, ControlPlane, Door};
use caffis_chat::api::webhooks::WebhookParts;
use caffis_chat::api::{FileParts, LogView, NodeView, Parts, Phase, ShardView};
use caffis_chat::blob::Blob;
use caffis_chat::chat::port::{
    ReplySink, SignedIn, Store, StoreAnswer, StoreCall, StoreError, StoreReply, Ticket,
};
use caffis_chat::chat::stats::LATENCY_BOUNDS_US;
use caffis_chat::identity::DemoLogin;
use caffis_chat::identity::demo::{Demo, user_of};
use caffis_chat::identity::hs256::{Hs256, Issuer};
use caffis_chat::protocol::{Epoch, UnixMs};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

struct FakeNode(Mutex<Phase>);

impl NodeView for FakeNode {
    fn name(&self) -> &str {
        "n1"
    }
    fn phase(&self) -> Phase {
        *self.0.lock().expect("not poisoned")
    }
    fn shards(&self) -> Vec<ShardView> {
        let mut view = ShardView {
            counters: vec![("accepted", " Sockets accepted.", 7)],
            gauges: vec![("open", " WebSockets open.", 3)],
            ..ShardView::default()
        };
        view.chat.messages_committed = 41;
        view.chat.connections = 3;
        view.chat.received_to_committed.record(60);
        view.chat.received_to_committed.record(700);
        view.chat.received_to_committed.record(20_000_000);
        vec![view.clone(), view]
    }
    fn log_counts(&self) -> LogView {
        LogView {
            warnings: 2,
            errors: 1,
            lost: 0,
        }
    }
}

/// What the store does with a call.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Answers,
    Overloaded,
    /// Keeps what it was given.
    Silent,
}

struct FakeStore {
    mood: Mutex<Mood>,
    users: Mutex<BTreeMap<String, Option<String>>>,
    kept: Mutex<Vec<Arc<dyn ReplySink>>>,
}

impl Store for FakeStore {
    fn submit(&self, ticket: Ticket, call: StoreCall, sink: &Arc<dyn ReplySink>) {
        let mood = *self.mood.lock().expect("not poisoned");
        let result = match (mood, call) {
            (Mood::Silent, _) => {
                self.kept.lock().expect("not poisoned").push(sink.clone());
                return;
            }
            (Mood::Overloaded, _) => Err(StoreError::Overloaded),
            (Mood::Answers, StoreCall::Heads { .. }) => Ok(StoreAnswer::Heads {
                severed: Vec::new(),
                floors: Vec::new(),
                rooms: Vec::new(),
                users: Vec::new(),
            }),
            (Mood::Answers, StoreCall::SignIn(users)) => {
                let mut known = self.users.lock().expect("not poisoned");
                let answer = users.into_iter().map(|sign_in| {
                    known.insert(sign_in.user.to_string(), sign_in.name);
                    Some(SignedIn {
                        block_version: 0,
                        ends: Vec::new(),
                        version: 1,
                        rooms: Vec::new(),
                    })
                });
                Ok(StoreAnswer::SignIn(answer.collect()))
            }
            (Mood::Answers, call) => panic!("the control plane asked {call:?}"),
        };
        let epoch = self.epoch();
        sink.reply(StoreReply {
            ticket,
            epoch,
            result,
        });
    }
    fn epoch(&self) -> Epoch {
        Epoch(1)
    }
    fn durability(&self) -> &'static str {
        "commit"
    }
}

/// A control plane behind a listener, as the shards would be.
struct Server {
    address: SocketAddr,
    node: Arc<FakeNode>,
    store: Arc<FakeStore>,
    door: Door,
    _plane: ControlPlane,
}

fn issuer() -> Issuer {
    Issuer {
        issuer: "caffis".to_owned(),
        audience: "caffis-chat".to_owned(),
    }
}

fn server(development: bool) -> Server {
    let node = Arc::new(FakeNode(Mutex::new(Phase::Up)));
    let store = Arc::new(FakeStore {
        mood: Mutex::new(Mood::Answers),
        users: Mutex::default(),
        kept: Mutex::default(),
    });
    let demo = development.then(|| Arc::new(Demo::new(SECRET, issuer())) as Arc<dyn DemoLogin>);
    let parts = Parts {
        hooks: None,
        upkeep: None,
        node: node.clone(),
        store: store.clone(),
        demo,
        rejoin: Arc::new(|stream, _| Err(stream)),
        asks: Arc::new(|_| false),
        identify: Arc::new(Hs256::new([SECRET], issuer())),
        main_app_url: Some("https://app.test".to_owned()),
        files: FileParts {
            counts: Arc::default(),
            blob: Blob::nowhere("this is a test".to_owned()),
            folder: None,
            origins: Vec::new(),
        },
        webhooks: WebhookParts {
            map: None,
            main_app: None,
            shards: 1,
            serves: Arc::new(|_, _| false),
            has_peers: false,
            erasures: Arc::default(),
        },
        origins: Arc::new(|origin, _| origin == "https://page.test"),
        admin: None,
    };
    let (plane, door) = serve::start(parts, Vec::new()).expect("started");
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let hands = door.clone();
    std::thread::spawn(move || {
        // Ends with the test's process. The shards hand over what they read: here the first byte.
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut first = vec![0];
            if stream.read(&mut first).ok() != Some(1) || stream.set_nonblocking(true).is_err() {
                continue;
            }
            if let Err(mut refused) = hands.hand_over(stream, first) {
                let _gone = refused.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n");
            }
        }
    });
    Server {
        address,
        node,
        store,
        door,
        _plane: plane,
    }
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
    #[track_caller]
    fn expect_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], status);
        assert_eq!(body["code"], code);
        assert_eq!(body["type"], "about:blank");
        let told = body["title"].is_string() && body["detail"].is_string();
        assert!(told && body["temporary"].is_boolean(), "{body}");
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connected");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("set");
    stream
}

/// Sends these bytes on a new connection and reads the answer up to its end.
fn exchange(server: &Server, bytes: &[u8]) -> Answer {
    let mut stream = connect(server.address);
    stream.write_all(bytes).expect("sent");
    read_answer(&mut stream, bytes.starts_with(b"HEAD"))
}

fn read_answer(stream: &mut TcpStream, is_head: bool) -> Answer {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        let mut buffer = [0; 4096];
        let length = stream.read(&mut buffer).expect("an answer");
        assert!(length > 0, "closed: {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..length]);
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).expect("UTF-8");
    let mut lines = head.lines();
    let status = lines.next().expect("a status line");
    let status = status.split(' ').nth(1).expect("a status").parse();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length: usize = headers
        .get("content-length")
        .map_or(0, |length| length.parse().expect("a length"));
    let mut body = bytes[head_end..].to_vec();
    if !is_head {
        let have = body.len();
        body.resize(length, 0);
        stream.read_exact(&mut body[have..]).expect("the body");
    }
    Answer {
        status: status.expect("a number"),
        headers,
        body,
    }
}

fn get(server: &Server, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    exchange(server, request.as_bytes())
}

fn post(server: &Server, path: &str, content_type: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {content_type}\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    exchange(server, request.as_bytes())
}

fn login(server: &Server, body: &str) -> Answer {
    post(server, "/v1/demo/login", "application/json", body)
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMs(since.expect("after 1970").as_millis() as u64)
}

#[test]
fn a_process_that_runs_is_healthy_and_one_that_can_take_users_is_ready() {
    let server = server(true);
    let healthy = |server: &Server| assert_eq!(get(server, "/healthz").text(), "ok\n");
    healthy(&server);
    assert_eq!(get(&server, "/readyz").text(), "ready\n");

    for (phase, reason) in [
        (Phase::Starting, "not up"),
        (Phase::Draining, "about to stop"),
    ] {
        *server.node.0.lock().expect("not poisoned") = phase;
        let answer = get(&server, "/readyz");
        answer.expect_problem(503, "unavailable");
        assert!(answer.text().contains(reason), "{}", answer.text());
        assert_eq!(answer.header("retry-after"), "1");
        healthy(&server);
    }
    *server.node.0.lock().expect("not poisoned") = Phase::Up;

    // An answer of the store is believed for a moment, so it is asked until that is over.
    for mood in [Mood::Silent, Mood::Overloaded] {
        *server.store.mood.lock().expect("not poisoned") = mood;
        let began = Instant::now();
        let answer = loop {
            let answer = get(&server, "/readyz");
            if answer.status == 503 {
                break answer;
            }
            assert!(began.elapsed() < Duration::from_secs(10), "still ready");
        };
        answer.expect_problem(503, "unavailable");
        assert!(answer.text().contains("store"), "{}", answer.text());
        healthy(&server);
    }
}

#[test]
fn a_store_that_is_silent_is_not_waited_for_longer_than_a_second() {
    let server = server(true);
    *server.store.mood.lock().expect("not poisoned") = Mood::Silent;
    let began = Instant::now();
    get(&server, "/readyz").expect_problem(503, "unavailable");
    assert!(began.elapsed() >= Duration::from_millis(900));
    // Three times the second that users are promised: the machine may be busy.
    assert!(began.elapsed() < Duration::from_secs(3));
    // Many who ask at once share one question.
    let asked = server.store.kept.lock().expect("not poisoned").len();
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| get(&server, "/readyz").expect_problem(503, "unavailable"));
        }
    });
    let more = server.store.kept.lock().expect("not poisoned").len() - asked;
    assert!(more < 5, "{more} questions for 20 probes");
}

#[test]
fn the_demo_login_gives_a_token_that_is_valid_and_a_user_that_is_known() {
    let server = server(true);
    let answer = login(&server, r#"{"name":" Ada ","more":1}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), "no-store");
    let body = answer.json();
    let user = user_of("ada");
    assert_eq!(body["user_id"], user.to_string());
    let token = body["token"].as_str().expect("a string");
    let identity = Hs256::new([SECRET], issuer()).check(token, now());
    assert_eq!(identity.expect("valid").user, user);
    let users = server.store.users.lock().expect("not poisoned");
    assert_eq!(users.get(&user.to_string()), Some(&Some("Ada".to_owned())));
}

#[test]
fn the_demo_login_refuses_what_is_no_name() {
    let server = server(true);
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "{\"name\":7}",
        "{\"name\":null}",
        "{\"name\":\"\"}",
        "{\"name\":\" \\t\"}",
        "{\"name\":\"a\\u0000b\"}",
        "{\"name\":\"a\"",
        "\u{0}",
    ] {
        login(&server, body).expect_problem(400, "bad_request");
    }
    let long = json!({"name": "é".repeat(201)}).to_string();
    login(&server, &long).expect_problem(400, "bad_request");
    let fits = json!({"name": "é".repeat(200)}).to_string();
    assert_eq!(login(&server, &fits).status, 200);
    // What a page of another origin can send without being asked about it.
    for content_type in ["text/plain", "application/x-www-form-urlencoded", ""] {
        post(&server, "/v1/demo/login", content_type, r#"{"name":"Ada"}"#)
            .expect_problem(415, "unsupported_media");
    }
    assert_eq!(server.store.users.lock().expect("not poisoned").len(), 1);
}

#[test]
fn the_demo_login_says_when_the_store_is_away() {
    let server = server(true);
    *server.store.mood.lock().expect("not poisoned") = Mood::Overloaded;
    login(&server, r#"{"name":"Ada"}"#).expect_problem(503, "overloaded");
    *server.store.mood.lock().expect("not poisoned") = Mood::Silent;
    let answer = login(&server, r#"{"name":"Ada"}"#);
    answer.expect_problem(503, "unavailable");
    assert_eq!(answer.json()["temporary"], true);
}

#[test]
fn production_has_no_demo_login() {
    let server = server(false);
    login(&server, r#"{"name":"Ada"}"#).expect_problem(404, "not_found");
    get(&server, "/v1/demo/login").expect_problem(404, "not_found");
    assert!(server.store.users.lock().expect("not poisoned").is_empty());
}

#[test]
fn the_page_is_told_how_people_sign_in() {
    for development in [true, false] {
        let answer = get(&server(development), "/v1/sign-in");
        let told = json!({"main_app_url": "https://app.test", "demo": development});
        assert_eq!((answer.status, answer.json()), (200, told));
    }
}

#[test]
fn the_page_is_served_and_comes_again_only_when_it_changed() {
    let server = server(true);
    for (path, content_type, file) in [
        ("/", "text/html; charset=utf-8", "index.html"),
        ("/app.js", "text/javascript; charset=utf-8", "app.js"),
        ("/style.css", "text/css; charset=utf-8", "style.css"),
    ] {
        let answer = get(&server, path);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), content_type);
        let committed = std::fs::read(format!("web/dist/{file}")).expect("there");
        assert_eq!(answer.body, committed);
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(
            policy.contains("; connect-src 'self' https://app.test;"),
            "{policy}"
        );

        let tag = answer.header("etag");
        let ask = |tag: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nif-none-match: {tag}\r\n\r\n");
            exchange(&server, request.as_bytes())
        };
        for known in [tag.to_owned(), format!("\"x\", W/{tag}"), "*".to_owned()] {
            let again = ask(&known);
            assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
            assert_eq!(again.header("etag"), tag);
        }
        assert_eq!(ask("\"x\"").status, 200);
        let head = format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let head = exchange(&server, head.as_bytes());
        assert_eq!(head.status, 200);
        assert_eq!(head.header("content-length"), committed.len().to_string());
    }
}

#[test]
fn what_is_not_there_is_a_problem() {
    let server = server(true);
    for path in [
        "/nowhere",
        "/v1",
        "/app.js/",
        "/../Cargo.toml",
        "/%2e%2e/x",
        "//",
    ] {
        let answer = get(&server, path);
        answer.expect_problem(404, "not_found");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    let answer = get(&server, "/v1/ws");
    answer.expect_problem(426, "bad_request");
    assert_eq!(answer.header("upgrade"), "websocket");
    let answer = post(&server, "/healthz", "text/plain", "x");
    answer.expect_problem(405, "bad_request");
    assert_eq!(answer.header("allow"), "GET,HEAD");
    get(&server, "/v1/demo/login").expect_problem(405, "bad_request");
}

#[test]
fn what_is_too_large_is_refused() {
    let server = server(true);
    let body = format!("{{\"name\":\"{}\"}}", "x".repeat(64 << 10));
    login(&server, &body).expect_problem(413, "too_large");
    // The same without saying how long it is.
    let chunk = "x".repeat(70_000);
    let chunked = format!(
        "POST /v1/demo/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n{:x}\r\n{chunk}\r\n0\r\n\r\n",
        chunk.len()
    );
    exchange(&server, chunked.as_bytes()).expect_problem(413, "too_large");
    let head = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
        "x".repeat(70_000)
    );
    let mut stream = connect(server.address);
    // The server may close before all of it is sent.
    let _cut = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _cut = stream.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{answer:?}"
    );
}

#[test]
fn what_is_no_http_is_refused() {
    let server = server(true);
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00"[..],
        b"hello\r\n\r\n",
        b"GET /\r\n\r\n",
    ] {
        let mut stream = connect(server.address);
        stream.write_all(bytes).expect("sent");
        stream.shutdown(std::net::Shutdown::Write).expect("shut");
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    }
    assert_eq!(get(&server, "/healthz").status, 200);
}

#[test]
fn one_connection_serves_several_requests_also_when_they_come_together() {
    let server = server(true);
    let mut stream = connect(server.address);
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    stream.write_all(&request.repeat(3)).expect("sent");
    let mut all = Vec::new();
    while all
        .windows(4)
        .filter(|four| four == b"ok\n" || four.starts_with(b"ok\n"))
        .count()
        < 3
    {
        let mut buffer = [0; 1024];
        let length = stream.read(&mut buffer).expect("answers");
        assert!(length > 0, "closed");
        all.extend_from_slice(&buffer[..length]);
        all.push(b' ');
    }
    stream.write_all(request).expect("sent");
    assert_eq!(read_answer(&mut stream, false).text(), "ok\n");
}

#[test]
fn a_connection_that_says_nothing_more_is_closed() {
    let server = server(true);
    std::thread::scope(|scope| {
        for opening in [
            "G",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        ] {
            scope.spawn(|| {
                let mut stream = connect(server.address);
                // 10 s for a head; three times that on a busy machine.
                let timeout = Some(Duration::from_secs(30));
                stream.set_read_timeout(timeout).expect("set");
                stream.write_all(opening.as_bytes()).expect("sent");
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).expect("closed in time");
            });
        }
    });
}

#[test]
fn more_connections_than_there_may_be_are_given_back_and_places_come_free() {
    let server = server(true);
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    let pair = || {
        let client = connect(address);
        let (served, _) = listener.accept().expect("accepted");
        served.set_nonblocking(true).expect("set");
        (client, served)
    };
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let (client, served) = pair();
        server
            .door
            .hand_over(served, b"G".to_vec())
            .expect("there is room");
        clients.push(client);
    }
    let (client, served) = pair();
    let refused = server.door.hand_over(served, Vec::new()).expect_err("full");
    drop((client, refused));
    // One leaves; its place is free as soon as that is noticed.
    drop(clients.pop());
    let began = Instant::now();
    loop {
        let (mut client, served) = pair();
        let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n".to_vec();
        if server.door.hand_over(served, request).is_ok() {
            assert_eq!(read_answer(&mut client, false).text(), "ok\n");
            break;
        }
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "no place came free"
        );
    }
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let server = server(true);
    get(&server, "/nowhere");
    let answer = get(&server, "/metrics");
    assert_eq!(
        answer.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = answer.text();
    for line in [
        "caffis_build_info{node=\"n1\",version=\"0.1.0\"} 1",
        "caffis_shards 2",
        "caffis_messages_committed_total{shard=\"0\"} 41",
        "caffis_messages_committed_total{shard=\"1\"} 41",
        "# TYPE caffis_messages_committed_total counter",
        "caffis_connections{shard=\"1\"} 3",
        "# TYPE caffis_connections gauge",
        "caffis_driver_accepted_total{shard=\"0\"} 7",
        "caffis_driver_open{shard=\"0\"} 3",
        "# TYPE caffis_received_to_committed_seconds histogram",
        "caffis_received_to_committed_seconds_bucket{shard=\"0\",le=\"0.00005\"} 0",
        "caffis_received_to_committed_seconds_bucket{shard=\"0\",le=\"0.0001\"} 1",
        "caffis_received_to_committed_seconds_bucket{shard=\"0\",le=\"0.001\"} 2",
        "caffis_received_to_committed_seconds_bucket{shard=\"0\",le=\"10\"} 2",
        "caffis_received_to_committed_seconds_bucket{shard=\"0\",le=\"+Inf\"} 3",
        "caffis_received_to_committed_seconds_count{shard=\"0\"} 3",
        "caffis_received_to_committed_seconds_sum{shard=\"0\"} 20.00076",
        "caffis_log_lines_total{level=\"warn\"} 2",
        "caffis_log_lines_total{level=\"error\"} 1",
        "caffis_http_responses_total{route=\"other\",status=\"4xx\"} 1",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    for family in ["process_cpu_seconds_total", "process_resident_memory_bytes"] {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(family)?.strip_prefix(' '))
            .and_then(|value| value.parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= 0.0), "{family}\n{text}");
    }
    check_exposition(text);
    assert_eq!(
        text.matches("received_to_committed_seconds_bucket{shard=\"0\"")
            .count(),
        LATENCY_BOUNDS_US.len() + 1
    );
}

/// The rules of the text format: each family has its help and type once, before its samples,
/// which stand together; no sample twice; every value is a number; buckets never fall.
fn check_exposition(text: &str) {
    let mut families = BTreeMap::new();
    let mut samples = std::collections::BTreeSet::new();
    let mut current = String::new();
    let mut bucket = (String::new(), 0.0);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.trim().is_empty(), "{line}");
            assert!(
                families.insert(name.to_owned(), "").is_none(),
                "twice: {line}"
            );
            current = name.to_owned();
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(
                rest.starts_with(&format!("{current} ")),
                "{line} after {current}"
            );
        } else {
            let (sample, value) = line.rsplit_once(' ').expect("a value");
            let value: f64 = value.parse().expect("a number");
            let name = sample.split('{').next().expect("a name");
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|family| *family == current)
                .unwrap_or(name);
            assert_eq!(family, current, "{line}");
            assert!(samples.insert(sample.to_owned()), "twice: {line}");
            if let Some((series, _)) = sample.split_once(",le=") {
                if bucket.0 == series {
                    assert!(value >= bucket.1, "{line}");
                }
                bucket = (series.to_owned(), value);
            }
        }
    }
    assert!(samples.len() > 50, "{} samples", samples.len());
}

#[test]
fn the_asyncapi_document_is_served() {
    let server = server(false);
    let answer = get(&server, "/v1/asyncapi.json");
    assert_eq!(answer.header("content-type"), "application/json");
    let committed = std::fs::read("docs/asyncapi.json").expect("there");
    assert!(
        answer.body == committed,
        "the served document is another one"
    );
}

#[test]
fn a_control_plane_that_stops_ends_also_when_peers_do_not() {
    let server = server(true);
    let mut stuck = connect(server.address);
    stuck.write_all(b"GET / HTTP/1.1\r\n").expect("sent");
    get(&server, "/healthz");
    let began = Instant::now();
    drop(server);
    assert!(
        began.elapsed() < Duration::from_secs(9),
        "{:?}",
        began.elapsed()
    );
    drop(stuck);
}

#[test]
fn the_page_of_the_http_api_is_served_with_its_document() {
    let server = server(false);
    for (path, content_type, part) in [
        ("/v1/docs", "text/html; charset=utf-8", "docs.js"),
        (
            "/v1/docs.js",
            "text/javascript; charset=utf-8",
            "openapi.json",
        ),
        ("/v1/docs.css", "text/css; charset=utf-8", ".method"),
        (
            "/v1/openapi.json",
            "application/json",
            "\"openapi\": \"3.1.0\"",
        ),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let answer = exchange(&server, request.as_bytes());
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("content-type"), content_type);
        assert!(answer.text().contains(part), "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("script-src 'self'"), "{policy}");
    }
}

#[test]
fn a_request_that_no_shard_has_room_for_is_overloaded() {
    let server = server(true);
    let body = "{\"name\":\"Ada\"}";
    let login = format!(
        "POST /v1/demo/login HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let login = exchange(&server, login.as_bytes()).json();
    let token = login["token"].as_str().expect("a token");
    let request =
        format!("GET /v1/rooms HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    let answer = exchange(&server, request.as_bytes());
    answer.expect_problem(503, "overloaded");
    assert_eq!(answer.header("retry-after"), "1");
    // Whom the token names is asked of a shard too: the session may have ended.
    let request = request.replace("/v1/rooms", "/v1/users/me");
    let me = exchange(&server, request.as_bytes());
    me.expect_problem(503, "overloaded");
}
