//! Senders of webhooks, who sign them with a library of their own.

use super::socket::{self, Answer};
use super::token::now_s;
use crate::openapi;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::net::SocketAddr;
use uuid::Uuid;

pub const MAP: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const MAIN_APP: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
/// What a server needs to take webhooks.
pub const SECRETS: &[(&str, &str)] = &[
    ("CAFFIS_WEBHOOK_SECRETS_MAP", MAP),
    ("CAFFIS_WEBHOOK_SECRETS_MAIN_APP", MAIN_APP),
];

/// A webhook, signed.
#[derive(Clone, Debug)]
pub struct Webhook {
    pub path: &'static str,
    pub id: String,
    pub timestamp: String,
    pub signature: String,
    pub body: String,
}

pub fn sign(secret: &str, id: &str, timestamp: &str, body: &str) -> String {
    let bytes = STANDARD.decode(&secret["whsec_".len()..]).expect("base64");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
    let tag = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

impl Webhook {
    /// Signed now with this secret.
    pub fn new(path: &'static str, secret: &str, body: &Value) -> Webhook {
        Webhook::at(path, secret, body, now_s())
    }

    /// Signed then.
    pub fn at(path: &'static str, secret: &str, body: &Value, at_s: i64) -> Webhook {
        let (id, timestamp, body) = (
            format!("msg_{}", Uuid::new_v4()),
            at_s.to_string(),
            body.to_string(),
        );
        Webhook {
            signature: sign(secret, &id, &timestamp, &body),
            path,
            id,
            timestamp,
            body,
        }
    }

    /// An invite that was accepted.
    pub fn invite(invite: &str, inviter: Uuid, invitee: Uuid) -> Webhook {
        let data = json!({
            "invite_id": invite, "inviter_id": inviter, "invitee_id": invitee,
            "title": "Coffee", "place": {"lat": 52.5, "lon": 13.4},
        });
        Webhook::map("meetup.invite.accepted", &data)
    }

    pub fn map(name: &str, data: &Value) -> Webhook {
        let body = json!({"type": name, "timestamp": "2026-01-02T03:04:05Z", "data": data});
        Webhook::new("/v1/webhooks/map", MAP, &body)
    }

    pub fn main_app(name: &str, data: &Value) -> Webhook {
        let body = json!({"type": name, "data": data});
        Webhook::new("/v1/webhooks/main-app", MAIN_APP, &body)
    }

    /// Sends it as it stands.
    #[track_caller]
    pub fn send(&self, address: SocketAddr) -> (u16, Value) {
        let answer = self.post(address);
        let kind = answer
            .head
            .lines()
            .find_map(|it| it.strip_prefix("content-type: "));
        openapi::validate(
            "POST",
            self.path,
            answer.status,
            kind.unwrap_or_default(),
            &answer.body,
        )
        .expect("an answer of the document");
        let body = serde_json::from_str(&answer.body).expect("JSON");
        (answer.status, body)
    }

    /// Sends it and expects that it is taken.
    #[track_caller]
    pub fn taken(&self, address: SocketAddr) -> Value {
        let (status, body) = self.send(address);
        assert_eq!(status, 200, "{self:?}: {body}");
        body
    }

    fn post(&self, address: SocketAddr) -> Answer {
        let Webhook {
            path,
            id,
            timestamp,
            signature,
            body,
        } = self;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nwebhook-id: {id}\r\n\
             webhook-timestamp: {timestamp}\r\nwebhook-signature: {signature}\r\n\r\n{body}",
            body.len()
        );
        socket::http(socket::connect(address), &request).expect("an answer")
    }
}
