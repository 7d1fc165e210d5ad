//! What a session gives: short-lived JWTs (EdDSA), the keys that check them (JWKS, RFC 7517), and the answer to
//! whether one is still good (introspection, RFC 7662).
//!
//! Keys are published before they sign: `next` is in the set, too, so that who has fetched the set knows the
//! key when it becomes `current`. A `previous` key stays while tokens of it can be valid.

use crate::accounts::session;
use crate::{App, Shared};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::Form;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use example_kit::db::{Db, DbError, Tx};
use example_kit::web::{Problem, bearer, json_answer};
use example_kit::{now_ms, params, rfc3339, same_secret};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// How long others may keep the set of keys, s.
const JWKS_AGE_S: i64 = 60;

#[derive(Serialize, Deserialize)]
struct Claims {
    sub: String,
    sid: String,
    iss: String,
    aud: Vec<String>,
    iat: i64,
    exp: i64,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<String>,
}

fn broken(error: impl std::fmt::Display) -> Problem {
    tracing::error!(%error, "tokens");
    Problem(
        axum::http::StatusCode::INTERNAL_SERVER_ERROR,
        "no token can be made".to_owned(),
    )
}

/// `POST /v1/token`: a token for the session that the request shows. The pages of chat and map ask here, with the
/// cookie, and again before it expires.
pub async fn token(State(app): App, headers: HeaderMap) -> Result<Response, Problem> {
    let own = session(&app, &headers).await?;
    let key = "SELECT kid, pkcs8 FROM signing_keys WHERE state = 'current'";
    let key = app.db.query(key, params![]).await?;
    let key = key.first().ok_or_else(|| broken("no key"))?;
    let pkcs8 = URL_SAFE_NO_PAD.decode(key.text(1)?).map_err(broken)?;
    let now_s = now_ms() / 1_000;
    let claims = Claims {
        sub: own.user.user_id,
        sid: own.sid,
        iss: app.settings.issuer.clone(),
        aud: app.settings.audiences.clone(),
        iat: now_s,
        exp: now_s + app.settings.token_s,
        name: own.user.name,
        picture: own.user.picture,
    };
    let header = Header {
        kid: Some(key.text(0)?),
        ..Header::new(Algorithm::EdDSA)
    };
    let token = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&pkcs8))
        .map_err(broken)?;
    let expires_at = rfc3339(claims.exp * 1_000);
    let answer = json!({"token": token, "expires_at": expires_at, "user_id": claims.sub, "name": claims.name});
    Ok(json_answer(&answer))
}

/// `GET /.well-known/jwks.json`.
pub async fn jwks(State(app): App) -> Result<Response, Problem> {
    let rows = app
        .db
        .query(
            "SELECT kid, public FROM signing_keys ORDER BY kid",
            params![],
        )
        .await?;
    let keys: Vec<Value> = rows
        .iter()
        .map(|row| {
            Ok(json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": row.text(0)?, "x": row.text(1)?}))
        })
        .collect::<Result<_, Problem>>()?;
    let cache = (
        header::CACHE_CONTROL,
        format!("public, max-age={JWKS_AGE_S}"),
    );
    Ok(([cache], axum::Json(json!({"keys": keys}))).into_response())
}

#[derive(Deserialize)]
pub struct Introspected {
    token: String,
}

/// `POST /introspect`, `token=…` as a form, for services that show the shared token.
pub async fn introspect(
    State(app): App,
    headers: HeaderMap,
    Form(asked): Form<Introspected>,
) -> Result<Response, Problem> {
    if !bearer(&headers).is_some_and(|shown| same_secret(shown, &app.settings.introspection_token))
    {
        return Err(Problem::unauthorized("for services only"));
    }
    // Of a token that is not good nothing is told, not even why.
    let Some(claims) = still_good(&app, &asked.token).await? else {
        return Ok(json_answer(&json!({"active": false})));
    };
    let mut answer = json!(claims);
    answer["active"] = true.into();
    answer["token_type"] = "Bearer".into();
    Ok(json_answer(&answer))
}

async fn still_good(app: &Shared, token: &str) -> Result<Option<Claims>, Problem> {
    let Some(kid) = jsonwebtoken::decode_header(token)
        .ok()
        .and_then(|header| header.kid)
    else {
        return Ok(None);
    };
    let key = app
        .db
        .query(
            "SELECT public FROM signing_keys WHERE kid = $1",
            params![kid],
        )
        .await?;
    let Some(key) = key.first() else {
        return Ok(None);
    };
    let key = DecodingKey::from_ed_components(&key.text(0)?).map_err(broken)?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.leeway = 0;
    validation.set_issuer(&[&app.settings.issuer]);
    validation.set_audience(&app.settings.audiences);
    let Ok(token) = jsonwebtoken::decode::<Claims>(token, &key, &validation) else {
        return Ok(None);
    };
    let live = "SELECT 1 FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.id = $1 AND u.id = $2 \
                AND s.revoked_at IS NULL AND s.expires_at > $3 AND u.status = 'active'";
    let Claims { sid, sub, .. } = &token.claims;
    let live = app.db.query(live, params![sid, sub, now_ms()]).await?;
    Ok((!live.is_empty()).then_some(token.claims))
}

/// Makes the first two keys of a new database. Of two processes that do so at once, one's stay.
pub async fn first_keys(db: &Db) -> Result<(), DbError> {
    let mut tx = db.begin().await?;
    for state in ["current", "next"] {
        add_key(&mut tx, state).await?;
    }
    tx.commit().await
}

async fn add_key(tx: &mut Tx, state: &str) -> Result<(), DbError> {
    let (pkcs8, public) = new_pair();
    let add = "INSERT INTO signing_keys (kid, pkcs8, public, state) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    tx.query(
        add,
        params![Uuid::now_v7().to_string(), pkcs8, public, state],
    )
    .await?;
    Ok(())
}

/// A private key as PKCS #8 and its public one, both base64url.
fn new_pair() -> (String, String) {
    let pair = Ed25519KeyPair::generate().expect("the system's randomness");
    let pkcs8 = pair.to_pkcs8v1().expect("a key that was just made");
    (
        URL_SAFE_NO_PAD.encode(pkcs8.as_ref()),
        URL_SAFE_NO_PAD.encode(pair.public_key()),
    )
}

/// The next key signs from now on, and there is a new next one. Returns the ids of the keys of now and of then.
pub async fn rotate(app: &Shared) -> Result<(String, String), Problem> {
    let (now, mut tx) = (now_ms(), app.db.begin().await?);
    // Its last tokens are over, with a minute for clocks that differ.
    let over = "DELETE FROM signing_keys WHERE state = 'previous' AND retired_at < $1";
    tx.query(over, params![now - (app.settings.token_s + 60) * 1_000])
        .await?;
    let retire = "UPDATE signing_keys SET state = 'previous', retired_at = $1 WHERE state = 'current' RETURNING kid";
    let retired = tx.query(retire, params![now]).await?;
    let promote = "UPDATE signing_keys SET state = 'current' WHERE state = 'next' RETURNING kid";
    let promoted = tx.query(promote, params![]).await?;
    add_key(&mut tx, "next").await?;
    let (Some(retired), Some(promoted)) = (retired.first(), promoted.first()) else {
        return Err(Problem::conflict("another rotation is under way"));
    };
    let kids = (promoted.text(0)?, retired.text(0)?);
    tx.commit().await?;
    Ok(kids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_pair_signs_what_its_public_key_checks() {
        let (pkcs8, public) = new_pair();
        let pkcs8 = URL_SAFE_NO_PAD.decode(pkcs8).expect("base64url");
        let claims = json!({"sub": "ada", "exp": now_ms() / 1_000 + 60});
        let key = EncodingKey::from_ed_der(&pkcs8);
        let token =
            jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).expect("signed");
        let validation = Validation::new(Algorithm::EdDSA);
        let check = |public: &str| {
            let key = DecodingKey::from_ed_components(public).expect("a key");
            jsonwebtoken::decode::<Value>(&token, &key, &validation).is_ok()
        };
        assert!(check(&public));
        assert!(!check(&new_pair().1));
    }
}
