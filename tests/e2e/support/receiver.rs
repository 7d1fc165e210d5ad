//! A receiver of webhooks of ours, which checks who sent them by a library of its own.

use super::wait::wait_for;
use super::webhooks::sign;
use crate::openapi;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use uuid::Uuid;

pub const OUT: &str = "whsec_dGhpcyBpcyBhIHNlY3JldCBvZiB0aGUgdGVzdHMh";
pub const OUT_NEXT: &str = "whsec_YW5vdGhlciBvbmUgd2hpbGUgdGhleSByb3RhdGUhISE=";

/// A webhook that came.
#[derive(Clone, Debug)]
pub struct Got {
    pub id: String,
    pub body: String,
    pub value: Value,
    /// What it was answered.
    pub status: u16,
}

impl Got {
    pub fn kind(&self) -> &str {
        self.value["type"].as_str().expect("a type")
    }

    pub fn data(&self) -> &Value {
        &self.value["data"]
    }

    pub fn is_of(&self, user: Uuid) -> bool {
        self.data()["user_id"] == user.to_string()
    }
}

/// What it answers.
#[derive(Clone, Default)]
struct Answers {
    status: u16,
    /// Further lines of the head.
    lines: String,
    /// Takes the request, and does not answer.
    hangs: bool,
}

#[derive(Default)]
struct State {
    answers: Answers,
    got: Vec<Got>,
}

/// A receiver on a port of its own. It stops with its test program.
pub struct Receiver {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    pub fn start() -> Receiver {
        let receiver = Receiver::listen(TcpListener::bind("127.0.0.1:0").expect("a port"));
        receiver.answers(200, "");
        receiver
    }

    /// One that begins to listen at an address of before.
    pub fn listen(listener: TcpListener) -> Receiver {
        let address = listener.local_addr().expect("an address");
        let state: Arc<Mutex<State>> = Arc::default();
        state.lock().expect("not poisoned").answers.status = 200;
        let shared = state.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        Receiver { address, state }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks?of=chat", self.address)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    /// What it answers from now on.
    pub fn answers(&self, status: u16, lines: &str) {
        self.state().answers = Answers {
            status,
            lines: lines.to_owned(),
            hangs: false,
        };
    }

    /// It takes requests and does not answer from now on.
    pub fn hangs(&self) {
        self.state().answers.hangs = true;
    }

    /// All that came so far.
    pub fn all(&self) -> Vec<Got> {
        self.state().got.clone()
    }

    /// All of this type that were taken, each id once; the same id always has the same body.
    pub fn taken(&self, kind: &str) -> Vec<Got> {
        let mut bodies: BTreeMap<String, String> = BTreeMap::new();
        let mut taken = Vec::new();
        for got in self.all() {
            let body = bodies
                .entry(got.id.clone())
                .or_insert_with(|| got.body.clone());
            assert_eq!(*body, got.body, "another body under the same id");
            let is_new = !taken.iter().any(|other: &Got| other.id == got.id);
            if got.kind() == kind && (200..300).contains(&got.status) && is_new {
                taken.push(got);
            }
        }
        taken
    }

    /// Waits until so many of this type were taken.
    pub fn wait_for(&self, kind: &str, count: usize) -> Vec<Got> {
        wait_for(&format!("{count} of {kind}"), || {
            Some(self.taken(kind)).filter(|taken| taken.len() >= count)
        })
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4_096];
    let (head, body) = loop {
        let Ok(count @ 1..) = stream.read(&mut chunk) else {
            return;
        };
        bytes.extend_from_slice(&chunk[..count]);
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head");
        let length = header(&head, "content-length").expect("a length");
        let body = &bytes[end + 4..];
        if body.len() >= length.parse::<usize>().expect("a number") {
            break (
                head.clone(),
                String::from_utf8(body.to_vec()).expect("text"),
            );
        }
    };
    assert!(head.starts_with("POST /hooks?of=chat HTTP/1.1"), "{head}");
    let [id, timestamp, signatures] = ["webhook-id", "webhook-timestamp", "webhook-signature"]
        .map(|name| header(&head, name).expect(name));
    assert!(
        signatures
            .split(' ')
            .any(|it| it == sign(OUT, &id, &timestamp, &body)),
        "a wrong signature: {head}"
    );
    let (answers, status) = {
        let mut state = state.lock().expect("not poisoned");
        let answers = state.answers.clone();
        let status = if answers.hangs { 0 } else { answers.status };
        let value = serde_json::from_str(&body).expect("JSON");
        // A body that is not as the document says is answered nothing good, which the tests notice.
        let problem = openapi::validate_told(&value).err();
        if let Some(problem) = &problem {
            eprintln!("{problem}");
        }
        let status = if problem.is_some() { 500 } else { status };
        state.got.push(Got {
            id,
            body,
            value,
            status,
        });
        (answers, status)
    };
    if answers.hangs {
        // Until the other side has given up.
        let _gone = stream.read(&mut chunk);
        return;
    }
    let answer = format!(
        "HTTP/1.1 {} So\r\n{}content-length: 0\r\nconnection: close\r\n\r\n",
        status, answers.lines
    );
    let _gone = stream.write_all(answer.as_bytes());
}

fn header(head: &str, name: &str) -> Option<String> {
    head.lines().find_map(|line| {
        let (own, value) = line.split_once(':')?;
        own.eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}
