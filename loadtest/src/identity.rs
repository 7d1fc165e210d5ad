//! Who the clients are and what they write: users, tokens, rooms, message ids and texts, all derived
//! from numbers, so that every process and every repetition makes the same ones.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use uuid::Uuid;

use crate::ids::{ClientIndex, MessageNumber, RoomIndex};

/// Namespace of everything the load test names.
const NAMESPACE: Uuid = Uuid::from_u128(0x6c6f_6164_7465_5374_8000_6361_6666_6973);
/// Tokens outlive the longest run.
const TOKEN_LIFE_S: u64 = 24 * 3600;
/// Characters that need care on their way through JSON and UTF-8.
const AWKWARD: &str = "☕ \"quoted\" \\ \n é 👍 ";

pub fn user_id(client: ClientIndex) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("user {}", client.0).as_bytes())
}

pub fn device_id(client: ClientIndex) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("device {}", client.0).as_bytes())
}

/// `layout` names the shape of the run, so that two shapes on one database share no room.
pub fn client_room_id(layout: &str, room: RoomIndex) -> Uuid {
    Uuid::new_v5(&NAMESPACE, format!("room {layout} {}", room.0).as_bytes())
}

/// Signs the tokens that a Main App would issue.
pub struct Issuer {
    key: EncodingKey,
    issuer: String,
    audience: String,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: String,
    exp: u64,
    iss: &'a str,
    aud: &'a str,
    name: String,
}

impl Issuer {
    pub fn new(secret: &str, issuer: &str, audience: &str) -> Self {
        Self {
            key: EncodingKey::from_secret(secret.as_bytes()),
            issuer: issuer.to_owned(),
            audience: audience.to_owned(),
        }
    }

    /// # Errors
    /// When the signing library refuses the key.
    pub fn token(&self, client: ClientIndex) -> Result<String, jsonwebtoken::errors::Error> {
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let claims = Claims {
            sub: user_id(client).to_string(),
            exp: now_s + TOKEN_LIFE_S,
            iss: &self.issuer,
            aud: &self.audience,
            name: format!("load {}", client.0),
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
    }
}

/// Message ids of one run: UUIDv7 by form (the due time in front), with the run's nonce and the
/// message's number in the random part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageIds {
    nonce: u64,
}

impl MessageIds {
    /// Only the low 42 bits of `nonce` count.
    pub fn new(nonce: u64) -> Self {
        Self {
            nonce: nonce & ((1 << 42) - 1),
        }
    }

    pub fn id(self, number: MessageNumber, due_us: u64) -> Uuid {
        let time_ms = u128::from(due_us / 1000) & ((1 << 48) - 1);
        let nonce_high = u128::from(self.nonce >> 30);
        let nonce_low = u128::from(self.nonce & ((1 << 30) - 1));
        Uuid::from_u128(
            time_ms << 80
                | 0x7 << 76
                | nonce_high << 64
                | 0b10 << 62
                | nonce_low << 32
                | u128::from(number.0),
        )
    }

    /// The number of a message of this run, `None` for a stranger's.
    pub fn number(self, id: Uuid) -> Option<MessageNumber> {
        let bits = id.as_u128();
        let nonce_high = (bits >> 64) as u64 & 0xfff;
        let nonce_low = (bits >> 32) as u64 & ((1 << 30) - 1);
        (nonce_high << 30 | nonce_low == self.nonce).then_some(MessageNumber(bits as u32))
    }
}

/// The text of a message: its due time and number, for an edited one its revision, then awkward
/// characters, then filler, in all `payload_bytes` bytes (more if the front alone is longer).
pub fn text(number: MessageNumber, revision: u32, due_us: u64, payload_bytes: usize) -> String {
    let mut text = format!("due={due_us} n={} ", number.0);
    if revision > 1 {
        text.push_str(&format!("r={revision} "));
    }
    if text.len() + AWKWARD.len() <= payload_bytes {
        text.push_str(AWKWARD);
    }
    let mut letter = number.0 as usize;
    while text.len() < payload_bytes {
        text.push((b'a' + (letter % 26) as u8) as char);
        letter += 1;
    }
    text
}

/// The text as it stands between the quotes of a JSON string.
pub fn json_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match character {
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_ids_are_version_7_and_carry_the_number() {
        let ids = MessageIds::new(u64::MAX);
        for number in [0, 1, 77, u32::MAX] {
            let id = ids.id(MessageNumber(number), 1_800_000_000_123_456);
            assert_eq!(id.get_version_num(), 7);
            assert_eq!(id.get_variant(), uuid::Variant::RFC4122);
            assert_eq!(ids.number(id), Some(MessageNumber(number)));
            assert_eq!(MessageIds::new(5).number(id), None);
        }
    }

    #[test]
    fn texts_have_the_asked_size_and_survive_json() {
        for payload_bytes in [64, 100, 150, 4000] {
            let text = text(MessageNumber(3), 1, 1_800_000_000_123_456, payload_bytes);
            assert_eq!(text.len(), payload_bytes);
            let json = format!("\"{}\"", json_escaped(&text));
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
        assert!(text(MessageNumber(3), 1, 1_800_000_000_123_456, 0).starts_with("due="));
    }

    #[test]
    fn a_token_holds_the_user() {
        let issuer = Issuer::new("secret", "caffis", "caffis-chat");
        let token = issuer.token(ClientIndex(5)).unwrap();
        let mut validation = jsonwebtoken::Validation::new(Algorithm::HS256);
        validation.set_audience(&["caffis-chat"]);
        validation.set_issuer(&["caffis"]);
        let decoded = jsonwebtoken::decode::<serde_json::Value>(
            &token,
            &jsonwebtoken::DecodingKey::from_secret(b"secret"),
            &validation,
        )
        .unwrap();
        assert_eq!(decoded.claims["sub"], user_id(ClientIndex(5)).to_string());
    }
}
