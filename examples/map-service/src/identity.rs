//! Who asks: the Main App's tokens, checked with the keys that it publishes, without asking it each time.
//!
//! Keys are fetched when one is not known or the set is a minute old, and not more often than every two seconds, so that
//! made-up key ids cost the Main App nothing. While it is away the keys that are known go on being used.

use crate::Shared;
use axum::http::{HeaderMap, StatusCode};
use example_kit::web::{Problem, bearer};
use example_kit::{client, now_ms, params};
use hyper::Method;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::Mutex;

const SET_AGE_MS: i64 = 60_000;
const FETCH_AGAIN_MS: i64 = 2_000;
/// Everybody waits for it.
const FETCH_MAX: Duration = Duration::from_secs(1);

/// A user, by a token that is valid.
#[derive(Deserialize)]
pub struct User {
    #[serde(rename = "sub")]
    pub id: String,
    pub name: String,
}

/// Checks tokens.
pub struct Identity {
    url: String,
    validation: Validation,
    keys: Mutex<Keys>,
}

struct Keys {
    set: Vec<Jwk>,
    fetched_at: i64,
    tried_at: i64,
}

impl Identity {
    /// By the set of keys at this URL.
    pub fn new(url: String, issuer: &str, audience: &str) -> Identity {
        // The algorithm is ours to choose, never the token's.
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let keys = Keys {
            set: Vec::new(),
            fetched_at: 0,
            tried_at: 0,
        };
        Identity {
            url,
            validation,
            keys: Mutex::new(keys),
        }
    }

    async fn user(&self, token: &str) -> Result<User, Problem> {
        let refused = || Problem::unauthorized("no valid token");
        let kid = jsonwebtoken::decode_header(token)
            .ok()
            .and_then(|header| header.kid);
        let jwk = self
            .key(&kid.ok_or_else(refused)?)
            .await?
            .ok_or_else(refused)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| refused())?;
        let token = jsonwebtoken::decode::<User>(token, &key, &self.validation);
        token.map(|token| token.claims).map_err(|_| refused())
    }

    async fn key(&self, kid: &str) -> Result<Option<Jwk>, Problem> {
        let (now, mut keys) = (now_ms(), self.keys.lock().await);
        let is_known = keys.find(kid).is_some();
        if (!is_known || now - keys.fetched_at > SET_AGE_MS) && now - keys.tried_at > FETCH_AGAIN_MS
        {
            keys.tried_at = now;
            match client::request(Method::GET, &self.url, &[], Vec::new(), FETCH_MAX).await {
                Ok(answer) if answer.status == 200 => {
                    match serde_json::from_slice::<JwkSet>(&answer.body) {
                        Ok(set) => (keys.set, keys.fetched_at) = (set.keys, now),
                        Err(error) => tracing::warn!(%error, "the Main App's keys cannot be read"),
                    }
                }
                Ok(answer) => tracing::warn!(answer.status, "the Main App does not give its keys"),
                Err(error) => tracing::warn!(error, "the Main App does not answer"),
            }
        }
        if keys.set.is_empty() {
            let detail = "the Main App's keys are not known yet".to_owned();
            return Err(Problem(StatusCode::SERVICE_UNAVAILABLE, detail));
        }
        Ok(keys.find(kid).cloned())
    }
}

impl Keys {
    fn find(&self, kid: &str) -> Option<&Jwk> {
        self.set
            .iter()
            .find(|key| key.common.key_id.as_deref() == Some(kid))
    }
}

/// Who asks. Their name is kept, for others to see.
///
/// # Errors
/// 401: nobody whom the Main App knows.
pub async fn user(app: &Shared, headers: &HeaderMap) -> Result<User, Problem> {
    let token = bearer(headers).ok_or_else(|| Problem::unauthorized("no token"))?;
    let user = app.identity.user(token).await?;
    let keep = "INSERT INTO people (user_id, name) VALUES ($1, $2) \
                ON CONFLICT (user_id) DO UPDATE SET name = excluded.name WHERE people.name <> excluded.name";
    app.db.query(keep, params![&user.id, &user.name]).await?;
    Ok(user)
}
