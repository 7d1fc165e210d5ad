//! The program itself, as a process: started on a free port with a folder of its own, and looked
//! at from outside.
#![allow(dead_code, reason = "each test binary uses its part")]

use super::schema;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

/// Everything here answers within seconds, or never; a busy machine gets more.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A running node.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// How a process ended, and what it logged.
pub struct Ended {
    pub status: ExitStatus,
    pub log: String,
}

/// The program with nothing of this process's own settings.
pub fn command(folder: &Path, env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_caffis-chat"));
    command
        .env_clear()
        .env("CAFFIS_LISTEN", "127.0.0.1:0")
        .env("CAFFIS_DATA_DIR", folder)
        .env("CAFFIS_NODE", "n1")
        .env("CAFFIS_SHARDS", "2")
        .env("CAFFIS_DRAIN_MS", "200")
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Server {
    /// Starts a node and waits until it is ready.
    pub fn start(folder: &Path, env: &[(&str, &str)]) -> Server {
        let mut child = command(folder, env).spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (ready, address) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if line.contains("ready") {
                    let _unheard = ready.send(address_in(&line));
                }
                lines.lock().expect("not poisoned").push(line);
            }
        });
        let address = address.recv_timeout(DEADLINE).unwrap_or_else(|_| {
            let _gone = child.kill();
            panic!("not ready: {:?}", log.lock().expect("not poisoned"));
        });
        Server {
            address,
            child,
            log,
        }
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for the end of the process.
    pub fn ended(mut self) -> Ended {
        let began = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waited") {
                break status;
            }
            assert!(began.elapsed() < DEADLINE, "does not end");
            std::thread::yield_now();
        };
        let log = self.log.lock().expect("not poisoned").join("\n");
        Ended { status, log }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").join("\n")
    }

    /// One HTTP request; the answer's status and body.
    pub fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).expect("a status");
        (status.parse().expect("a number"), body.to_owned())
    }

    /// A demo user's token and id.
    pub fn login(&self, name: &str) -> (String, String) {
        let body = json!({ "name": name }).to_string();
        let (status, body) = self.http("POST", "/v1/demo/login", &body);
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let field = |name: &str| body[name].as_str().expect("a string").to_owned();
        (field("token"), field("user_id"))
    }

    /// A WebSocket that has not said anything.
    pub fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("connected");
        self.connect_over(stream)
    }

    /// The same over a connection that is there already.
    pub fn connect_over(&self, stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(DEADLINE)).expect("set");
        let mut request = format!("ws://{}/v1/ws", self.address)
            .into_client_request()
            .expect("an address");
        let protocol = "caffis.chat.v1".parse().expect("a header");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        let (socket, _) = tungstenite::client(request, stream).expect("upgraded");
        Client {
            socket,
            next_id: 1,
            events: Vec::new(),
        }
    }

    /// A WebSocket that is signed in, and what `ready` said.
    pub fn sign_in(&self, token: &str) -> (Client, Value) {
        let mut client = self.connect();
        let ready = client.ask("auth", &json!({ "token": token }));
        assert_eq!(ready["type"], "ready", "{ready}");
        (client, ready["data"].clone())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already, or the test failed.
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn address_in(line: &str) -> SocketAddr {
    let at = line.find("127.0.0.1:").expect("an address");
    let address: String = line[at..]
        .chars()
        .take_while(|c| c.is_ascii_digit() || ".:".contains(*c))
        .collect();
    address.parse().expect("an address")
}

/// A client that checks every frame against the AsyncAPI document.
pub struct Client {
    socket: WebSocket<TcpStream>,
    next_id: u64,
    events: Vec<Value>,
}

impl Client {
    /// Sends a request.
    pub fn tell(&mut self, name: &str, data: &Value) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let frame = json!({"id": id, "type": name, "data": data}).to_string();
        schema::validate_client_frame(&frame).expect("a request of the document");
        self.socket.send(Message::text(frame)).expect("sent");
        id
    }

    /// Sends a request and waits for its reply; events that come before are kept.
    pub fn ask(&mut self, name: &str, data: &Value) -> Value {
        let id = self.tell(name, data);
        loop {
            let frame = self.read().expect("a reply");
            if frame["id"] == id {
                schema::validate_reply(name, &frame.to_string()).expect("its reply");
                return frame;
            }
            self.events.push(frame);
        }
    }

    /// The next event.
    pub fn event(&mut self) -> Value {
        if self.events.is_empty() {
            return self.read().expect("an event");
        }
        self.events.remove(0)
    }

    /// Waits for an event of this type.
    pub fn event_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.event();
            if event["type"] == kind {
                return event;
            }
        }
    }

    /// Reads up to the end; how it was closed.
    pub fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            match self.read() {
                Ok(_) => (),
                Err(close) => return close,
            }
        }
    }

    fn read(&mut self) -> Result<Value, Option<CloseFrame>> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    schema::validate_server_frame(&text).expect("a frame of the document");
                    return Ok(serde_json::from_str(&text).expect("JSON"));
                }
                Ok(Message::Close(close)) => return Err(close),
                Ok(Message::Ping(_) | Message::Pong(_)) => (),
                Ok(other) => panic!("the server never sends {other:?}"),
                Err(_) => return Err(None),
            }
        }
    }
}
