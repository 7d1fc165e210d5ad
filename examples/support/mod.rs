//! What the tests of both services share: a service as a process that can be killed, the chat as somebody who
//! receives webhooks, and words for asking.
#![allow(dead_code, reason = "each test binary uses its part")]

#[path = "../../tests/support/postgres.rs"]
pub mod postgres;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use example_kit::client::{self, Answer};
use example_kit::now_ms;
use example_kit::webhook::Secret;
use hyper::Method;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

pub const DEADLINE: Duration = Duration::from_secs(30);
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const OTHER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// A service as a process. Dropped, it is killed.
pub struct Service {
    pub url: String,
    child: Child,
}

impl Service {
    /// Starts a program and waits until it is ready.
    pub fn start(program: &str, env: &[(&str, &str)]) -> Service {
        let mut child = Command::new(program)
            .env_clear()
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut line).expect("read");
        let url = line
            .trim()
            .strip_prefix("ready ")
            .expect("it is ready")
            .to_owned();
        Service { url, child }
    }

    /// Ends it as a power cut does.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Asks, as whoever shows this.
    pub async fn ask(&self, method: &str, path: &str, bearer: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {bearer}");
        self.ask_with(method, path, &[("authorization", &bearer)], body)
            .await
    }

    /// Asks with these headers.
    pub async fn ask_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let url = format!("{}{path}", self.url);
        client::json(method, &url, headers, &body)
            .await
            .expect("an answer")
    }

    /// Asks what must be granted.
    pub async fn get(&self, method: &str, path: &str, bearer: &str, body: Value) -> Value {
        let answer = self.ask(method, path, bearer, body).await;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: {} {text}",
            answer.status
        );
        answer.json()
    }

    /// Tells it something as the chat does, with the signature of `secret`, `late_s` after it was signed; the status.
    pub async fn told(
        &self,
        (secret, late_s): (&str, i64),
        id: &str,
        kind: &str,
        data: &Value,
    ) -> u16 {
        let at = now_ms() / 1_000 - late_s;
        let body = json!({"type": kind, "timestamp": "2026-01-01T00:00:00.000Z", "data": data});
        let secret = Secret::parse(secret).expect("a secret");
        let signature = secret.sign(id, at, body.to_string().as_bytes());
        let at = at.to_string();
        let headers = [
            ("webhook-id", id),
            ("webhook-timestamp", at.as_str()),
            ("webhook-signature", signature.as_str()),
        ];
        self.ask_with("POST", "/v1/webhooks/chat", &headers, body)
            .await
            .status
    }

    /// Asks what must be refused so.
    pub async fn refuses(&self, status: u16, method: &str, path: &str, bearer: &str, body: Value) {
        let answer = self.ask(method, path, bearer, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.json());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How the chat answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    Answers,
    Busy,
    /// Takes what is sent, and never says so.
    Silent,
}

/// A webhook whose signature was right.
#[derive(Debug, PartialEq)]
pub struct Received {
    pub id: String,
    pub kind: String,
    pub data: Value,
    /// Whether the sender was told that it arrived.
    pub answered: bool,
}

/// The chat, as far as webhooks go.
pub struct Chat {
    pub url: String,
    mood: Arc<Mutex<Mood>>,
    heard: mpsc::UnboundedReceiver<Received>,
}

impl Chat {
    /// Takes webhooks at `/hook`. Each answer names a room.
    pub async fn start() -> Chat {
        let (tell, heard) = mpsc::unbounded_channel();
        let mood = Arc::new(Mutex::new(Mood::Answers));
        let own = mood.clone();
        let hook = move |headers: HeaderMap, body: Bytes| {
            let (tell, mood) = (tell.clone(), own.clone());
            async move {
                let header = |name: &str| headers[name].to_str().expect("text").to_owned();
                let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
                let (at, now) = (at.parse().expect("a number"), now_ms() / 1_000);
                let secret = Secret::parse(SECRET).expect("a secret");
                if !secret.verify(&id, at, &body, &header("webhook-signature"), now) {
                    return StatusCode::UNAUTHORIZED.into_response();
                }
                let event: Value = serde_json::from_slice(&body).expect("JSON");
                assert!(event["timestamp"].as_str().expect("a time").ends_with('Z'));
                let kind = event["type"].as_str().expect("a type").to_owned();
                let mood = *mood.lock().expect("not poisoned");
                let (data, answered) = (event["data"].clone(), mood == Mood::Answers);
                let _ = tell.send(Received {
                    id,
                    kind,
                    data,
                    answered,
                });
                match mood {
                    Mood::Answers => {
                        axum::Json(json!({"room_id": "the room", "created": true})).into_response()
                    }
                    Mood::Busy => StatusCode::SERVICE_UNAVAILABLE.into_response(),
                    Mood::Silent => std::future::pending().await,
                }
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
        let router = axum::Router::new().route("/hook", post(hook));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Chat { url, mood, heard }
    }

    pub fn is(&self, mood: Mood) {
        *self.mood.lock().expect("not poisoned") = mood;
    }

    /// The next webhook, whichever it is.
    pub async fn next(&mut self) -> Received {
        let next = tokio::time::timeout(DEADLINE, self.heard.recv()).await;
        next.expect("within the deadline").expect("the chat runs")
    }

    /// The next one of this kind.
    pub async fn next_of(&mut self, kind: &str) -> Received {
        loop {
            let next = self.next().await;
            if next.kind == kind {
                return next;
            }
        }
    }
}

/// Asks again until it is so.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looked = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(DEADLINE, looked)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"))
}
