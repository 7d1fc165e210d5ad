//! A client without a socket. Every answer is checked against the OpenAPI document.

use super::socket;
use super::token::User;
use crate::openapi;
use serde_json::Value;
use std::fmt::Write as _;
use std::net::SocketAddr;

/// A client without a socket.
#[derive(Clone, Debug)]
pub struct Rest {
    pub address: SocketAddr,
    pub user: User,
    token: String,
}

/// What it was answered.
#[derive(Clone, Debug)]
pub struct Told {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

impl Told {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Expects this status; the body.
    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// Expects a problem of this status and code.
    #[track_caller]
    pub fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert_eq!(self.body["status"], status);
        let is_challenged = self.header("www-authenticate").is_some();
        assert_eq!(is_challenged, status == 401, "{}", self.head);
        assert_eq!(
            self.header("retry-after").is_some(),
            self.body["temporary"] == true,
            "{}",
            self.head
        );
    }
}

impl Rest {
    /// Asks this server in the name of this user.
    pub fn new(address: SocketAddr, user: &User) -> Rest {
        Rest {
            address,
            user: user.clone(),
            token: user.token(),
        }
    }

    /// Sends a request with these further header lines.
    #[track_caller]
    pub fn ask(&self, method: &str, target: &str, lines: &[&str], body: &str) -> Told {
        let authorization = format!("authorization: Bearer {}", self.token);
        let mut all = vec![authorization.as_str()];
        all.extend_from_slice(lines);
        self.ask_bare(method, target, &all, body)
    }

    /// Sends a request with these header lines only.
    #[track_caller]
    pub fn ask_bare(&self, method: &str, target: &str, lines: &[&str], body: &str) -> Told {
        let length = body.len();
        let mut request = format!(
            "{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n"
        );
        for line in lines {
            let _ = write!(request, "{line}\r\n");
        }
        let request = request + "\r\n" + body;
        let answer = socket::http(socket::connect(self.address), &request).expect("an answer");
        let told = Told {
            status: answer.status,
            body: serde_json::from_str(&answer.body).unwrap_or_default(),
            head: answer.head,
        };
        let content_type = told.header("content-type").unwrap_or_default();
        if !["OPTIONS", "TRACE"].contains(&method)
            && (!answer.body.is_empty() || answer.status == 202)
        {
            openapi::validate(method, target, told.status, content_type, &answer.body)
                .expect("an answer of the document");
        }
        told
    }

    #[track_caller]
    pub fn get(&self, target: &str) -> Told {
        self.ask("GET", target, &[], "")
    }

    #[track_caller]
    pub fn delete(&self, target: &str) -> Told {
        self.ask("DELETE", target, &[], "")
    }

    /// Sends JSON.
    #[track_caller]
    pub fn send(&self, method: &str, target: &str, body: &Value) -> Told {
        self.ask(
            method,
            target,
            &["content-type: application/json"],
            &body.to_string(),
        )
    }

    /// Sends JSON under an idempotency key.
    #[track_caller]
    pub fn send_keyed(&self, method: &str, target: &str, key: &str, body: &Value) -> Told {
        let key = format!("idempotency-key: {key}");
        self.ask(
            method,
            target,
            &["content-type: application/json", &key],
            &body.to_string(),
        )
    }
}
