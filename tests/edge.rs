//! The sockets of the data plane, from outside: bytes in, bytes out, and what peers do wrong.
//!
//! The store knows no rooms and answers from a thread of its own; everything else is what
//! production runs. What needs a process to itself runs in a child of this test program.

use caffis_chat::chat::CoreConfig;
use caffis_chat::chat::port::files::NoFiles;
use caffis_chat::chat::port::{
    Decided, Identify, Identity, IdentityError, ReplySink, RoomsPage, SignedIn, Store, StoreAnswer,
    StoreCall, StoreError, StoreReply, Ticket,
};
use caffis_chat::edge::handshake::AllowedOrigins;
use caffis_chat::edge::peers::PeerLimits;
use caffis_chat::limits;
use caffis_chat::protocol::{Epoch, UnixMs, UserId};
use caffis_chat::shard::{self, Handle, ShardError, Shards, ShardsConfig, Snapshot};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// Everything happens within this, or the test fails.
const DEADLINE: Duration = Duration::from_secs(30);

type Call = (Ticket, StoreCall, Arc<dyn ReplySink>);

struct NoRooms {
    calls: Mutex<mpsc::Sender<Call>>,
}

impl NoRooms {
    fn start() -> Arc<NoRooms> {
        let (calls, called) = mpsc::channel::<Call>();
        std::thread::spawn(move || {
            for (ticket, call, sink) in called {
                let result = match call {
                    StoreCall::SignIn(users) => Ok(StoreAnswer::SignIn(
                        users
                            .iter()
                            .map(|_| {
                                Some(SignedIn {
                                    block_version: 0,
                                    ends: Vec::new(),
                                    version: 1,
                                    rooms: Vec::new(),
                                })
                            })
                            .collect(),
                    )),
                    StoreCall::ListRooms(_) => Ok(StoreAnswer::ListRooms(Ok(RoomsPage {
                        rooms: Vec::new(),
                        next_cursor: None,
                    }))),
                    _ => Err(StoreError::Unavailable("a store without rooms".to_owned())),
                };
                let epoch = Epoch(1);
                sink.reply(StoreReply {
                    ticket,
                    epoch,
                    result,
                });
            }
        });
        Arc::new(NoRooms {
            calls: Mutex::new(calls),
        })
    }
}

impl Store for NoRooms {
    fn submit(&self, ticket: Ticket, call: StoreCall, sink: &Arc<dyn ReplySink>) {
        let calls = self.calls.lock().expect("no panic under it");
        calls
            .send((ticket, call, sink.clone()))
            .expect("the thread lives");
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn durability(&self) -> &'static str {
        "commit"
    }
}

struct AnybodyByNumber;

impl Identify for AnybodyByNumber {
    fn identify(
        &self,
        token: &str,
        now: UnixMs,
        _later: &mut dyn FnMut() -> Decided,
    ) -> Option<Result<Identity, IdentityError>> {
        let number = token.parse().map_err(|_| IdentityError::Invalid);
        Some(number.map(|number| Identity {
            user: UserId(uuid::Uuid::from_u128(number)),
            expires_at: UnixMs(now.0 + 3_600_000),
            name: None,
            picture: None,
            issued_at: None,
            sid: None,
        }))
    }
}

struct Server {
    address: SocketAddr,
    handle: Handle,
    shards: Option<Shards>,
}

fn config(shards: u16) -> ShardsConfig {
    let mut core = CoreConfig::new("test", shards, Epoch(1));
    core.commands_per_10s = 1_000_000;
    ShardsConfig {
        listen: "127.0.0.1:0".parse().expect("an address"),
        pinned: false,
        core,
        seed: 7,
        origins: AllowedOrigins::SameHostOrLoopback,
        connections_max: 10_000,
        peers: PeerLimits::default(),
        store: NoRooms::start(),
        relay: None,
        identify: Arc::new(AnybodyByNumber),
        files: Arc::new(NoFiles),
        handoff: Arc::new(|stream, _| Err(stream)),
    }
}

impl Server {
    fn start(config: ShardsConfig) -> Server {
        let shards = shard::start(config).expect("the shards start");
        Server {
            address: shards.address(),
            handle: shards.handle(),
            shards: Some(shards),
        }
    }

    fn stats(&self, of: impl Fn(&Snapshot) -> u64) -> u64 {
        self.handle.stats().iter().map(of).sum()
    }

    /// Waits until the counters, which are a second old, say so.
    fn wait(&self, what: &str, condition: impl Fn(&Server) -> bool) {
        let turns = || {
            self.handle
                .stats()
                .into_iter()
                .map(|shard| shard.driver.turns)
        };
        let before: Vec<u64> = turns().collect();
        let is_fresh = || turns().zip(&before).all(|(now, before)| now > *before);
        let began = Instant::now();
        while !(is_fresh() && condition(self)) {
            let stats = self.handle.stats();
            assert!(began.elapsed() < DEADLINE, "{what}: {stats:#?}");
            std::thread::yield_now();
        }
    }

    fn wait_empty(&self) {
        self.wait("no socket and no session is left", |server| {
            server.stats(|s| s.driver.sockets + s.core.connections) == 0
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(shards) = self.shards.take() {
            shards.join().expect("the shards end");
        }
    }
}

const REQUEST: &str = "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SUBPROTOCOL: &str = "Sec-WebSocket-Protocol: caffis.chat.v1\r\n";

struct Client {
    stream: BufReader<TcpStream>,
}

#[derive(PartialEq, Eq, Debug)]
enum Got {
    Text(String),
    Pong(Vec<u8>),
    Close(u16, String),
    End,
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream.set_write_timeout(Some(DEADLINE)).expect("a timeout");
    stream.set_nodelay(true).expect("an option");
    stream
}

/// Everything up to the end of the stream.
fn read_all(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an orderly end");
    String::from_utf8(bytes).expect("ascii")
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..=125 => bytes.push(0x80 | length as u8),
        length @ ..=65_535 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

impl Client {
    fn upgrade(address: SocketAddr) -> Client {
        let mut client = Client {
            stream: BufReader::with_capacity(1 << 10, connect(address)),
        };
        client.send(format!("{REQUEST}{SUBPROTOCOL}\r\n").as_bytes());
        client.read_head("HTTP/1.1 101 ");
        client
    }

    fn read_head(&mut self, status: &str) {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        assert!(line.starts_with(status), "{line}");
        while line != "\r\n" {
            line.clear();
            assert!(self.stream.read_line(&mut line).expect("a line") > 0);
        }
    }

    fn sign_in(address: SocketAddr, number: u128) -> Client {
        let mut client = Client::upgrade(address);
        client.text(&format!(
            r#"{{"id":1,"type":"auth","data":{{"token":"{number}","device_id":"d","client":{{"name":"t","version":"1"}}}}}}"#
        ));
        match client.next() {
            Got::Text(text) if text.contains(r#""type":"ready""#) => client,
            other => panic!("{other:?}"),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).expect("a write");
    }

    fn text(&mut self, text: &str) {
        self.send(&frame(0x81, text.as_bytes()));
    }

    fn next(&mut self) -> Got {
        let mut head = [0; 2];
        match self.stream.read_exact(&mut head) {
            Ok(()) => (),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Got::End,
            Err(error) => panic!("{error}"),
        }
        let mut length = u64::from(head[1]);
        assert!(length < 128, "a server does not mask");
        let long = match length {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if long > 0 {
            let mut bytes = [0; 8];
            self.stream
                .read_exact(&mut bytes[8 - long..])
                .expect("a length");
            length = u64::from_be_bytes(bytes);
        }
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).expect("a payload");
        match head[0] {
            0x81 => Got::Text(String::from_utf8(payload).expect("text")),
            0x8a => Got::Pong(payload),
            0x88 if payload.is_empty() => Got::Close(0, String::new()),
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                Got::Close(code, String::from_utf8(payload.split_off(2)).expect("text"))
            }
            first => panic!("a frame that begins with {first:#x}"),
        }
    }

    /// The close frame, after whatever comes before it, and the end of the stream behind it.
    fn closed(mut self) -> (u16, String) {
        loop {
            match self.next() {
                Got::Text(_) | Got::Pong(_) => (),
                Got::Close(code, reason) => {
                    assert_eq!(self.next(), Got::End);
                    return (code, reason);
                }
                Got::End => panic!("an end without a close frame"),
            }
        }
    }
}

#[test]
fn signs_in_on_every_shard_and_answers_through_the_store() {
    let server = Server::start(config(3));
    for number in 0..64 {
        let mut client = Client::sign_in(server.address, number);
        client.text(r#"{"id":2,"type":"rooms.list","data":{}}"#);
        match client.next() {
            Got::Text(text) => assert!(text.contains(r#""rooms":[]"#), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    server.wait("all shards were used", |server| {
        let stats = server.handle.stats();
        stats.iter().all(|shard| shard.core.sessions_ready > 0)
    });
    server.wait_empty();
}

#[test]
fn frames_behind_the_request_belong_to_the_connection() {
    let server = Server::start(config(1));
    let mut client = Client {
        stream: BufReader::new(connect(server.address)),
    };
    let mut bytes = format!("{REQUEST}{SUBPROTOCOL}\r\n").into_bytes();
    bytes.extend_from_slice(&frame(0x89, b"early"));
    // In two pieces, cut within the frame.
    let (first, second) = bytes.split_at(bytes.len() - 4);
    client.send(first);
    client.read_head("HTTP/1.1 101 ");
    client.send(second);
    assert_eq!(client.next(), Got::Pong(b"early".to_vec()));
}

#[test]
fn a_request_that_stalls_is_told_408() {
    let server = Server::start(config(1));
    let streams = ["", "GET /v1/w", &REQUEST[..60]].map(|request| {
        let mut stream = connect(server.address);
        stream.write_all(request.as_bytes()).expect("a write");
        stream
    });
    for stream in streams {
        let response = read_all(stream);
        assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    }
    server.wait_empty();
}

#[test]
fn requests_that_are_refused() {
    let mut config = config(2);
    config.connections_max = 1;
    let server = Server::start(config);
    let head = |lines: &str| format!("{REQUEST}{lines}\r\n");
    let long = format!("X: {}\r\n", "x".repeat(limits::HANDSHAKE_BYTES_MAX));
    let version = REQUEST.replace("13", "12");
    let _first = Client::upgrade(server.address);
    for (request, status) in [
        (head("Origin: https://evil.example\r\n"), "403"),
        (head("Sec-WebSocket-Protocol: other\r\n"), "400"),
        (head(""), "400"),
        (head(&long), "431"),
        (format!("{version}{SUBPROTOCOL}\r\n"), "426"),
        (
            "GET /v1/ws HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
            "426",
        ),
        (head(SUBPROTOCOL), "503"),
        // Nobody takes it.
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "503"),
    ] {
        let mut stream = connect(server.address);
        stream.write_all(request.as_bytes()).expect("a write");
        let response = read_all(stream);
        let expected = format!("HTTP/1.1 {status} ");
        assert!(response.starts_with(&expected), "{request}: {response}");
    }
}

#[test]
fn what_is_no_websocket_is_handed_on_with_its_bytes() {
    let (sender, receiver) = mpsc::channel();
    let mut config = config(2);
    config.handoff =
        Arc::new(move |stream, bytes| sender.send((stream, bytes)).map_err(|lost| lost.0.0));
    let server = Server::start(config);
    for request in [
        "GET /healthz HTTP/1.1\r\n\r\n",
        "POST /v1/ws HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
        "?",
    ] {
        let mut stream = connect(server.address);
        stream.write_all(request.as_bytes()).expect("a write");
        let (mut taken, bytes) = receiver.recv_timeout(DEADLINE).expect("it is handed on");
        assert_eq!(bytes, request.as_bytes());
        taken.set_nonblocking(false).expect("an option");
        // Nothing of it is read by the shard any more.
        stream.write_all(b"more").expect("a write");
        let mut more = [0; 4];
        taken.read_exact(&mut more).expect("the rest");
        assert_eq!(&more, b"more");
        taken
            .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
            .expect("a write");
        drop(taken);
        assert_eq!(read_all(stream), "HTTP/1.1 200 OK\r\n\r\n");
    }
    server.wait_empty();
    assert_eq!(server.stats(|shard| shard.driver.handed_off), 3);
}

#[test]
fn broken_rules_close_with_their_code() {
    let server = Server::start(config(1));
    let too_large = [&[0x81, 0xff][..], &(70_000_u64).to_be_bytes(), &[0; 4]].concat();
    let fragments = [frame(0x01, b""), frame(0x00, b"").repeat(100_000)].concat();
    for (bytes, code, reason) in [
        (vec![0x81, 1, b'a'], 1002, "protocol_error"),
        (frame(0xc1, b"a"), 1002, "protocol_error"),
        (frame(0x88, &[0x03, 0xed]), 1002, "protocol_error"),
        (frame(0x81, b"\xff"), 1007, "invalid_payload"),
        (frame(0x01, b"\xc3\x28"), 1007, "invalid_payload"),
        (too_large, 1009, "message_too_big"),
        (fragments, 4008, "protocol_violation"),
        (frame(0x82, b"binary"), 4008, "protocol_violation"),
        (frame(0x81, br#"{"type":"pong"}"#), 4001, "unauthenticated"),
    ] {
        let mut client = Client::upgrade(server.address);
        // The server may close before it has taken all of it.
        let _closed_meanwhile = client.stream.get_mut().write_all(&bytes);
        assert_eq!(client.closed(), (code, reason.to_owned()));
    }
    server.wait_empty();
}

#[test]
fn pings_and_closes_are_answered_in_kind() {
    let server = Server::start(config(1));
    for (payload, code) in [(&b""[..], 0), (&[0x03, 0xe8], 1000), (&[0x0f, 0xa0], 4000)] {
        let mut client = Client::upgrade(server.address);
        client.send(&frame(0x89, b"ping"));
        assert_eq!(client.next(), Got::Pong(b"ping".to_vec()));
        client.send(&frame(0x8a, b"unasked"));
        // What comes behind a close frame is discarded.
        let bytes = [frame(0x88, payload), frame(0x89, b"late")].concat();
        client.send(&bytes);
        assert_eq!(client.closed(), (code, String::new()));
    }
    server.wait_empty();
}

#[test]
fn the_answer_to_a_close_reaches_a_peer_that_ended_its_side() {
    let server = Server::start(config(1));
    let mut client = Client::upgrade(server.address);
    client.send(&frame(0x88, &[0x03, 0xe8]));
    let stream = client.stream.get_ref();
    stream.shutdown(std::net::Shutdown::Write).expect("an end");
    assert_eq!(client.closed(), (1000, String::new()));
    server.wait_empty();
}

/// What the core answers without the store: about 150 bytes that name the request.
fn unknown(id: u64) -> String {
    format!(r#"{{"id":{id},"type":"nothing.like.it"}}"#)
}

#[test]
fn a_reader_that_pauses_gets_every_frame_in_order() {
    let server = Server::start(config(1));
    let mut client = Client::sign_in(server.address, 1);
    let mut count = 0;
    // How much the kernel takes for a reader that pauses is its own affair. 1,000 replies are an
    // eighth of what the outbox holds after that.
    while server.stats(|shard| shard.driver.sends_short) == 0 {
        assert!(count < 100_000, "the socket is never full");
        for id in count..count + 1_000 {
            client.text(&unknown(id));
            // Pongs go between frames, never into one.
            if id % 100 == 0 {
                client.send(&frame(0x89, b"between"));
            }
        }
        count += 1_000;
        server.wait("they are answered", |server| {
            server.stats(|shard| shard.core.commands_refused) >= count
        });
    }
    let mut expected = 0;
    while expected < count {
        match client.next() {
            Got::Text(text) => {
                assert!(
                    text.starts_with(&format!(r#"{{"id":{expected},"#)),
                    "{text}"
                );
                expected += 1;
            }
            Got::Pong(payload) => assert_eq!(payload, b"between"),
            other => panic!("{other:?}"),
        }
    }
    client.send(&frame(0x88, &[0x03, 0xe8]));
    assert_eq!(client.closed(), (1000, String::new()));
}

#[test]
fn one_that_never_reads_is_closed_and_harms_nobody() {
    let server = Server::start(config(1));
    let mut client = Client::sign_in(server.address, 1);
    let mut neighbour = Client::sign_in(server.address, 2);
    client
        .stream
        .get_ref()
        .set_nonblocking(true)
        .expect("an option");
    let began = Instant::now();
    let mut id = 0;
    while server.stats(|shard| shard.core.closed_slow) == 0 {
        assert!(began.elapsed() < DEADLINE, "it is not closed");
        // Whole frames or parts of them: what arrives after the close is discarded anyway.
        let _full = client
            .stream
            .get_mut()
            .write(&frame(0x81, unknown(id).as_bytes()));
        id += 1;
    }
    neighbour.text(&unknown(1));
    assert!(matches!(neighbour.next(), Got::Text(_)));
    server.wait("its socket is closed although it reads nothing", |server| {
        server.stats(|shard| shard.driver.sockets) == 1
    });
}

#[test]
fn a_drain_closes_everybody_and_ends_the_shards() {
    let mut server = Server::start(config(2));
    let clients: Vec<_> = (0..20)
        .map(|number| Client::sign_in(server.address, number))
        .collect();
    server.handle.drain(200);
    for client in clients {
        assert_eq!(client.closed(), (4102, "draining".to_owned()));
    }
    let shards = server.shards.take().expect("running");
    shards.join().expect("an orderly end");
    assert!(
        TcpStream::connect(server.address).is_err(),
        "it still listens"
    );
}

#[test]
fn an_address_in_use_is_refused() {
    let server = Server::start(config(1));
    let mut second = config(2);
    second.listen = server.address;
    match shard::start(second) {
        Err(ShardError::Listen { address, .. }) => assert_eq!(address, server.address),
        other => panic!("{other:?}"),
    }
}

/// Thousands of connections that end in every way there is.
fn churn(address: SocketAddr, rounds: u128) {
    let request = format!("{REQUEST}{SUBPROTOCOL}\r\n");
    for round in 0..rounds {
        let mut stream = connect(address);
        match round % 8 {
            // Gone before a word.
            0 => (),
            // Gone within the request.
            1 => stream
                .write_all(&request.as_bytes()[..50])
                .expect("a write"),
            // Gone before the answer, with it unread: a reset.
            2 => stream.write_all(request.as_bytes()).expect("a write"),
            // Gone without a close frame.
            3 => drop(Client::sign_in(address, round)),
            // Within a frame.
            4 => {
                let mut client = Client::sign_in(address, round);
                client.send(&frame(0x81, &[b'a'; 100])[..50]);
            }
            // In order.
            5 => {
                let mut client = Client::sign_in(address, round);
                client.send(&frame(0x88, &[0x03, 0xe8]));
                assert_eq!(client.closed(), (1000, String::new()));
            }
            // With answers unread: a reset.
            6 => {
                let mut client = Client::sign_in(address, round);
                for id in 0..20 {
                    client.text(&unknown(id));
                }
            }
            // Half ended, and then gone.
            _ => {
                let client = Client::sign_in(address, round);
                let stream = client.stream.get_ref();
                stream.shutdown(std::net::Shutdown::Write).expect("an end");
            }
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("proc").count()
}

/// Starts this program again for one of the tests below, in a process of its own.
fn child(test: &str, shell: &str) -> Child {
    let program = std::env::current_exe().expect("a path");
    Command::new("sh")
        .args([
            "-c",
            &format!("{shell} exec \"$0\" --exact {test} --nocapture"),
        ])
        .arg(program)
        .env("CAFFIS_EDGE_CHILD", test)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

fn is_child(test: &str) -> bool {
    std::env::var("CAFFIS_EDGE_CHILD").is_ok_and(|name| name == test)
}

#[test]
fn connections_that_end_in_any_way_leave_nothing_behind() {
    const NAME: &str = "connections_that_end_in_any_way_leave_nothing_behind";
    if is_child(NAME) {
        let server = Server::start(config(2));
        churn(server.address, 64);
        server.wait_empty();
        let before = descriptors();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let address = server.address;
                std::thread::spawn(move || churn(address, 1_000))
            })
            .collect();
        for thread in threads {
            thread.join().expect("a client");
        }
        server.wait_empty();
        assert_eq!(descriptors(), before, "descriptors were lost");
        println!("nothing is left");
    } else {
        let output = child(NAME, "").wait_with_output().expect("a child");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("nothing is left"), "{text}");
    }
}

/// Ticks of 10 ms of processor time that a process has used.
fn cpu_ticks(process: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
    ticks(11) + ticks(12)
}

#[test]
fn without_descriptors_it_neither_spins_nor_stops() {
    const NAME: &str = "without_descriptors_it_neither_spins_nor_stops";
    if is_child(NAME) {
        let server = Server::start(config(1));
        println!("listens on {}", server.address);
        // Until the parent is done.
        std::io::stdin()
            .read_line(&mut String::new())
            .expect("a line");
        return;
    }
    let mut server = child(NAME, "ulimit -n 64;");
    let mut lines = BufReader::new(server.stdout.take().expect("piped")).lines();
    let address = lines
        .by_ref()
        .map_while(Result::ok)
        .find_map(|line| {
            line.split_once("listens on ")
                .map(|(_, address)| address.to_owned())
        })
        .expect("an address");
    let address: SocketAddr = address.trim().parse().expect("an address");
    // More than it can have; the rest waits in the kernel's queue.
    let mut streams: Vec<TcpStream> = (0..100).map(|_| connect(address)).collect();
    let request = format!("{REQUEST}{SUBPROTOCOL}\r\n");
    for stream in &mut streams {
        stream.write_all(request.as_bytes()).expect("a write");
    }
    let mut last = streams.pop().expect("a hundred");
    last.set_read_timeout(Some(Duration::from_secs(2)))
        .expect("a timeout");
    let before = cpu_ticks(server.id());
    let mut byte = [0; 1];
    let waited = last.read(&mut byte);
    assert!(waited.is_err(), "it was accepted: {waited:?}");
    let used = cpu_ticks(server.id()) - before;
    assert!(
        used < 20,
        "{used}0 ms of processor time in 2 s of having no descriptors"
    );
    // When there is room again, it goes on.
    drop(streams);
    last.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    last.read_exact(&mut byte).expect("an answer");
    drop(server.stdin.take());
    assert!(server.wait().expect("a child").success());
}

#[test]
fn many_half_open_requests_keep_nobody_out() {
    caffis_chat::sys::raise_descriptors().expect("a limit");
    let server = Server::start(config(1));
    let held: Vec<TcpStream> = (0..caffis_chat::edge::HANDSHAKES_MAX)
        .map(|_| connect(server.address))
        .collect();
    server.wait("all are accepted", |server| {
        server.stats(|shard| shard.driver.sockets) == held.len() as u64
    });
    let request = format!("{REQUEST}{SUBPROTOCOL}\r\n");
    let began = Instant::now();
    loop {
        // Long before the ten seconds of the others are over.
        assert!(began.elapsed() < Duration::from_secs(5), "it is kept out");
        let mut stream = connect(server.address);
        let mut status = [0; 12];
        let _refused_already = stream.write_all(request.as_bytes());
        if stream.read_exact(&mut status).is_ok() && &status == b"HTTP/1.1 101" {
            break;
        }
    }
    drop(held);
    server.wait_empty();
}
