//! Users and their tokens, made with a library of its own and not with the server's code.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// The secret of every server started here.
pub const SECRET: &str = "a secret of the end-to-end tests of more than 32 bytes";
/// Long enough for any test.
pub const TOKEN_S: i64 = 3_600;

/// Somebody.
#[derive(Clone, Debug)]
pub struct User {
    pub id: Uuid,
    pub name: String,
}

impl User {
    /// Somebody whom no server has seen.
    pub fn new(name: &str) -> User {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        User {
            id: Uuid::new_v4(),
            name: format!("{name} {number}"),
        }
    }

    /// A token that is good for hours.
    pub fn token(&self) -> String {
        self.token_until(now_s() + TOKEN_S)
    }

    /// A token with this `exp`, s.
    pub fn token_until(&self, exp_s: i64) -> String {
        signed(&self.claims(exp_s), SECRET)
    }

    /// The claims of a good token.
    pub fn claims(&self, exp_s: i64) -> Value {
        json!({
            "sub": self.id, "name": self.name, "exp": exp_s,
            "iss": "caffis", "aud": "caffis-chat",
        })
    }
}

/// A token of these claims.
pub fn signed(claims: &Value, secret: &str) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("strings are signed")
}

/// Now, s since 1970.
pub fn now_s() -> i64 {
    (now_ms() / 1_000) as i64
}

/// Now, ms since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}
