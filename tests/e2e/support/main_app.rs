//! The Main App, as far as the chat service sees it: its public keys, and what it says of a token.

use crate::keyring::SigningKey;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it answers, and what it was asked.
#[derive(Default)]
struct State {
    jwks: String,
    introspection: String,
    /// Requests, head and body.
    asked: Vec<String>,
    /// Answers that go nowhere.
    redirects: bool,
}

/// A Main App on a port of its own.
pub struct MainApp {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl MainApp {
    pub fn start() -> MainApp {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = state.clone();
        // Ends with the test program.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                thread::spawn(move || serve(stream, &shared));
            }
        });
        MainApp { address, state }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// These are its keys from now on.
    pub fn keys(&self, keys: &[(&str, &SigningKey)]) {
        let keys: Vec<Value> = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
        self.state().jwks = json!({ "keys": keys }).to_string();
    }

    /// This is said of every token from now on.
    pub fn says(&self, answer: &Value) {
        self.state().introspection = answer.to_string();
    }

    /// Whether it sends everybody elsewhere.
    pub fn redirects(&self, redirects: bool) {
        self.state().redirects = redirects;
    }

    /// What it was asked at this path so far.
    pub fn asked(&self, path: &str) -> Vec<String> {
        let is_it = |asked: &&String| asked.split(' ').nth(1) == Some(path);
        self.state().asked.iter().filter(is_it).cloned().collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
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
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break (head.to_owned(), body.to_owned());
        }
    };
    let mut state = state.lock().expect("not poisoned");
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    state.asked.push(format!("{head}\r\n\r\n{body}"));
    let (status, answer) = match path.as_str() {
        _ if state.redirects => ("302 Found", String::new()),
        "/jwks" => ("200 OK", state.jwks.clone()),
        "/introspect" => ("200 OK", state.introspection.clone()),
        _ => ("404 Not Found", String::new()),
    };
    drop(state);
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nlocation: /jwks\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
    let _gone = stream.write_all(answer.as_bytes());
}
