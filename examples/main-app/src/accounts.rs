//! Who somebody is: a code proves an address, and a session follows from it. Sign-up and log-in ask for a code
//! alike, so neither tells whether an address has an account.
//!
//! The session is one secret: in an httpOnly cookie for pages, in `Authorization: Bearer` for programs. Only its
//! hash is kept.

use crate::profile::{self, Profile};
use crate::{App, Shared};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use example_kit::db::Tx;
use example_kit::web::{Problem, bearer, json_answer};
use example_kit::{hash, now_ms, params, random_below, random_secret, rfc3339, same_secret};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

const CODE_MS: i64 = 10 * 60_000;
/// A code has six digits: who may guess five times is right once in 200,000.
const ATTEMPTS_MAX: i64 = 5;
/// Codes for one address in an hour, so that nobody's mailbox is filled, and guesses stay few.
const CODES_PER_HOUR: i64 = 10;
const SESSION_MS: i64 = 30 * 24 * 3_600_000;
const INVITATION_MS: i64 = 14 * 24 * 3_600_000;
const COOKIE: &str = "caffis_session";

#[derive(Deserialize)]
pub struct Asked {
    email: String,
    name: Option<String>,
    invitation: Option<String>,
}

/// `POST /v1/signup {"email","name","invitation"?}`: a code for who comes anew.
pub async fn sign_up(State(app): App, Json(asked): Json<Asked>) -> Result<Response, Problem> {
    let name = asked
        .name
        .ok_or_else(|| Problem::bad("`name` is missing"))?;
    let name = profile::valid_name(&name)?;
    if let Some(code) = &asked.invitation {
        let open =
            "SELECT 1 FROM invitations WHERE code = $1 AND used_by IS NULL AND expires_at > $2";
        if app
            .db
            .query(open, params![code, now_ms()])
            .await?
            .is_empty()
        {
            return Err(Problem::bad(
                "this invitation is not known, used, or too old",
            ));
        }
    }
    send_code(&app, &asked.email, Some(name), asked.invitation).await
}

/// `POST /v1/login {"email"}`: a code for who has been here.
pub async fn log_in(State(app): App, Json(asked): Json<Asked>) -> Result<Response, Problem> {
    send_code(&app, &asked.email, None, None).await
}

async fn send_code(
    app: &Shared,
    email: &str,
    name: Option<String>,
    invitation: Option<String>,
) -> Result<Response, Problem> {
    let email = email.trim().to_lowercase();
    let is_address = email.len() <= 254
        && !email.contains(|c: char| c.is_whitespace() || c.is_control())
        && email
            .split_once('@')
            .is_some_and(|(user, host)| !user.is_empty() && !host.is_empty());
    if !is_address {
        return Err(Problem::bad("`email` is no address"));
    }
    let (now, id) = (now_ms(), Uuid::now_v7().to_string());
    let code = format!("{:06}", random_below(1_000_000));
    let mut tx = app.db.begin().await?;
    let sent = "SELECT COUNT(*) FROM verification_codes WHERE email = $1 AND created_at > $2";
    let sent = tx.query(sent, params![&email, now - 3_600_000]).await?;
    if sent.first().map_or(Ok(0), |row| row.int(0))? >= CODES_PER_HOUR {
        let detail = "too many codes for this address: wait an hour".to_owned();
        return Err(Problem(StatusCode::TOO_MANY_REQUESTS, detail));
    }
    tx.query(
        "INSERT INTO verification_codes (id, email, name, invitation, code_hash, attempts, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, 0, $6, $7)",
        params![&id, &email, name, invitation, hash(&format!("{id}{code}")), now, now + CODE_MS],
    )
    .await?;
    tx.commit().await?;
    // Here the e-mail would be sent. The example shows the code instead (MAIN_APP_SHOW_CODES).
    Ok(json_answer(
        &json!({"challenge": id, "expires_at": rfc3339(now + CODE_MS), "code": code}),
    ))
}

#[derive(Deserialize)]
pub struct Proof {
    challenge: String,
    code: String,
    /// For programs: the session in the answer instead of a cookie.
    #[serde(default)]
    bearer: bool,
}

/// `POST /v1/verify {"challenge","code"}`: the address is proved, so a session begins.
pub async fn verify(State(app): App, Json(proof): Json<Proof>) -> Result<Response, Problem> {
    let refused = || Problem::unauthorized("this code is wrong, used, or too old");
    let now = now_ms();
    let mut tx = app.db.begin().await?;
    // Counted before it is compared, and whatever follows: nobody guesses twice at once.
    let tried = tx
        .query(
            "UPDATE verification_codes SET attempts = attempts + 1 WHERE id = $1 AND used_at IS NULL \
             AND expires_at > $2 AND attempts < $3 RETURNING code_hash, email, name, invitation",
            params![&proof.challenge, now, ATTEMPTS_MAX],
        )
        .await?;
    let row = tried.first().ok_or_else(refused)?;
    if !same_secret(
        &row.text(0)?,
        &hash(&format!("{}{}", proof.challenge, proof.code.trim())),
    ) {
        tx.commit().await?;
        return Err(refused());
    }
    let used = "UPDATE verification_codes SET used_at = $2 WHERE id = $1";
    tx.query(used, params![&proof.challenge, now]).await?;
    let (email, name, invitation) = (row.text(1)?, row.opt_text(2)?, row.opt_text(3)?);
    let known = tx
        .query(
            "SELECT id, status FROM users WHERE email = $1",
            params![&email],
        )
        .await?;
    let user_id = match (known.first(), name) {
        (Some(user), _) if user.text(1)? == "active" => user.text(0)?,
        (Some(_), _) => return Err(Problem::forbidden("this account is suspended")),
        (None, Some(name)) => new_user(&mut tx, &email, &name, invitation).await?,
        (None, None) => return Err(Problem::not_found("nobody has signed up with this address")),
    };
    let (sid, secret) = (Uuid::now_v7().to_string(), random_secret());
    tx.query(
        "INSERT INTO sessions (id, user_id, secret_hash, created_at, expires_at) VALUES ($1, $2, $3, $4, $5)",
        params![&sid, &user_id, hash(&secret), now, now + SESSION_MS],
    )
    .await?;
    tx.commit().await?;
    app.outbox.wake();
    let session = format!("{sid}.{secret}");
    if proof.bearer {
        return Ok(json_answer(
            &json!({"user_id": user_id, "session_id": sid, "session": session}),
        ));
    }
    let answer = json_answer(&json!({"user_id": user_id, "session_id": sid}));
    Ok((
        [(
            header::SET_COOKIE,
            cookie(&app, &session, SESSION_MS / 1_000),
        )],
        answer,
    )
        .into_response())
}

/// Other sites' pages cannot send it with what changes anything (`SameSite`), nor any page's script read it.
fn cookie(app: &Shared, value: &str, max_age_s: i64) -> String {
    let secure = if app.settings.public_url.starts_with("https://") {
        "; Secure"
    } else {
        ""
    };
    format!("{COOKIE}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={max_age_s}{secure}")
}

async fn new_user(
    tx: &mut Tx,
    email: &str,
    name: &str,
    invitation: Option<String>,
) -> Result<String, Problem> {
    let (id, now) = (Uuid::now_v7().to_string(), now_ms());
    // A second sign-up with this address, proved at the same moment, waits here and then finds it taken.
    let made = tx
        .query(
            "INSERT INTO users (id, email, name, status, version, created_at) VALUES ($1, $2, $3, 'active', 1, $4) \
             ON CONFLICT (email) DO NOTHING RETURNING id",
            params![&id, email, name, now],
        )
        .await?;
    if made.is_empty() {
        return Err(Problem::conflict("this address has just signed up: log in"));
    }
    if let Some(code) = invitation {
        let take = "UPDATE invitations SET used_by = $2 WHERE code = $1 AND used_by IS NULL RETURNING inviter_id";
        let taken = tx.query(take, params![code, &id]).await?;
        // Somebody else may have used it since. The account is made all the same.
        if let Some(row) = taken.first() {
            let by = "UPDATE users SET invited_by = $2 WHERE id = $1";
            tx.query(by, params![&id, row.text(0)?]).await?;
        }
    }
    let user = Profile {
        user_id: id.clone(),
        name: name.to_owned(),
        picture: None,
        version: 1,
    };
    profile::tell(tx, "user.created", &user, &Value::Null).await?;
    Ok(id)
}

/// Who asks, by a session that is valid.
pub struct Session {
    pub sid: String,
    pub user: Profile,
}

/// Whose session a request shows.
///
/// # Errors
/// 401: it shows none that is valid.
pub async fn session(app: &Shared, headers: &HeaderMap) -> Result<Session, Problem> {
    let refused = || Problem::unauthorized("log in first");
    let shown = bearer(headers)
        .or_else(|| in_cookie(headers))
        .ok_or_else(refused)?;
    let (sid, secret) = shown.split_once('.').ok_or_else(refused)?;
    let found = app
        .db
        .query(
            "SELECT s.secret_hash, u.id, u.name, u.picture, u.version FROM sessions s JOIN users u ON u.id = s.user_id \
             WHERE s.id = $1 AND s.revoked_at IS NULL AND s.expires_at > $2 AND u.status = 'active'",
            params![sid, now_ms()],
        )
        .await?;
    let row = found.first().ok_or_else(refused)?;
    if !same_secret(&row.text(0)?, &hash(secret)) {
        return Err(refused());
    }
    let user = Profile {
        user_id: row.text(1)?,
        name: row.text(2)?,
        picture: row.opt_text(3)?,
        version: row.int(4)?,
    };
    Ok(Session {
        sid: sid.to_owned(),
        user,
    })
}

fn in_cookie(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

/// `GET /v1/sessions`: where one is logged in.
pub async fn sessions(State(app): App, headers: HeaderMap) -> Result<Response, Problem> {
    let own = session(&app, &headers).await?;
    let live = "SELECT id, created_at FROM sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2 \
                ORDER BY created_at";
    let rows = app
        .db
        .query(live, params![&own.user.user_id, now_ms()])
        .await?;
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let id = row.text(0)?;
            Ok(json!({"is_this": id == own.sid, "session_id": id, "created_at": rfc3339(row.int(1)?)}))
        })
        .collect::<Result<_, Problem>>()?;
    Ok(json_answer(&json!({"sessions": rows})))
}

/// `POST /v1/logout`: this session ends, and every connection that lives by it.
pub async fn log_out(State(app): App, headers: HeaderMap) -> Result<Response, Problem> {
    let own = session(&app, &headers).await?;
    end(&app, &own.user.user_id, &own.sid).await?;
    Ok((
        [(header::SET_COOKIE, cookie(&app, "", 0))],
        StatusCode::NO_CONTENT,
    )
        .into_response())
}

/// `DELETE /v1/sessions/{sid}`: one of one's sessions ends, such as that of a lost phone.
pub async fn end_session(
    State(app): App,
    headers: HeaderMap,
    Path(sid): Path<String>,
) -> Result<Response, Problem> {
    let own = session(&app, &headers).await?;
    end(&app, &own.user.user_id, &sid).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn end(app: &Shared, user_id: &str, sid: &str) -> Result<(), Problem> {
    let mut tx = app.db.begin().await?;
    let revoke = "UPDATE sessions SET revoked_at = $3 WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL RETURNING id";
    if tx
        .query(revoke, params![sid, user_id, now_ms()])
        .await?
        .is_empty()
    {
        return Err(Problem::not_found(
            "no session of yours has this id, or it has ended",
        ));
    }
    let user = profile::raise(&mut tx, user_id).await?;
    // When the last of its tokens is over by itself.
    let last = rfc3339(now_ms() + app.settings.token_s * 1_000);
    profile::tell(
        &mut tx,
        "session.revoked",
        &user,
        &json!({"sid": sid, "expires_at": last}),
    )
    .await?;
    tx.commit().await?;
    app.outbox.wake();
    Ok(())
}

/// `POST /v1/invitations`: a code for a friend, good for one.
pub async fn invite(State(app): App, headers: HeaderMap) -> Result<Response, Problem> {
    let own = session(&app, &headers).await?;
    let (code, now) = (random_secret()[..12].to_owned(), now_ms());
    let add = "INSERT INTO invitations (code, inviter_id, created_at, expires_at) VALUES ($1, $2, $3, $4)";
    app.db
        .query(
            add,
            params![&code, &own.user.user_id, now, now + INVITATION_MS],
        )
        .await?;
    let url = format!("{}/#invitation={code}", app.settings.public_url);
    Ok(json_answer(
        &json!({"code": code, "url": url, "expires_at": rfc3339(now + INVITATION_MS)}),
    ))
}
