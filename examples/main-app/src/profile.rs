//! What others see of a user, and the events that tell them.
//!
//! Every event carries the whole profile and its version: one that is lost, late or told twice does no harm,
//! as the receiver keeps the newest.

use crate::accounts::session;
use crate::{App, Shared};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use example_kit::db::Tx;
use example_kit::outbox;
use example_kit::params;
use example_kit::web::{Problem, json_answer};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

const NAME_CHARS_MAX: usize = 64;
const PICTURE_BYTES_MAX: usize = 500;
const PREFERENCES_MAX: i64 = 32;

/// A user as others see them.
pub struct Profile {
    pub user_id: String,
    pub name: String,
    pub picture: Option<String>,
    pub version: i64,
}

/// A name without blanks around it.
///
/// # Errors
/// Nobody can be called this.
pub fn valid_name(name: &str) -> Result<String, Problem> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS_MAX || name.contains(char::is_control) {
        return Err(Problem::bad("a name has 1 to 64 characters"));
    }
    Ok(name.to_owned())
}

/// The next version of a user, whom this transaction has to itself from here on.
pub async fn raise(tx: &mut Tx, user_id: &str) -> Result<Profile, Problem> {
    let raised = tx
        .query(
            "UPDATE users SET version = version + 1 WHERE id = $1 AND status <> 'deleted' RETURNING name, picture, version",
            params![user_id],
        )
        .await?;
    let row = raised
        .first()
        .ok_or_else(|| Problem::not_found("no such user"))?;
    let user_id = user_id.to_owned();
    Ok(Profile {
        user_id,
        name: row.text(0)?,
        picture: row.opt_text(1)?,
        version: row.int(2)?,
    })
}

/// Writes an event of this profile, to be sent once the transaction commits.
pub async fn tell(tx: &mut Tx, kind: &str, user: &Profile, more: &Value) -> Result<(), Problem> {
    let Profile {
        user_id,
        name,
        picture,
        version,
    } = user;
    let mut data =
        json!({"user_id": user_id, "version": version, "name": name, "picture": picture});
    if let (Some(data), Some(more)) = (data.as_object_mut(), more.as_object()) {
        data.extend(more.clone());
    }
    outbox::put(tx, user_id, kind, &data).await?;
    Ok(())
}

/// `GET /v1/me`.
pub async fn me(State(app): App, headers: HeaderMap) -> Result<Response, Problem> {
    let own = session(&app, &headers).await?;
    answer(&app, own.user, &own.sid).await
}

async fn answer(app: &Shared, user: Profile, sid: &str) -> Result<Response, Problem> {
    let all = "SELECT key, value FROM user_preferences WHERE user_id = $1 ORDER BY key";
    let mut preferences = Map::new();
    for row in app.db.query(all, params![&user.user_id]).await? {
        preferences.insert(row.text(0)?, row.text(1)?.into());
    }
    let Profile {
        user_id,
        name,
        picture,
        version,
    } = user;
    let me = json!({"user_id": user_id, "session_id": sid, "name": name, "picture": picture, "version": version, "preferences": preferences});
    Ok(json_answer(&me))
}

#[derive(Deserialize)]
pub struct Change {
    name: Option<String>,
    /// Empty: none.
    picture: Option<String>,
    /// A value of null takes a preference back.
    #[serde(default)]
    preferences: BTreeMap<String, Option<String>>,
}

/// `PATCH /v1/me {"name"?,"picture"?,"preferences"?}`: what changes, and the event that tells it, or neither.
pub async fn change(
    State(app): App,
    headers: HeaderMap,
    Json(change): Json<Change>,
) -> Result<Response, Problem> {
    let own = session(&app, &headers).await?;
    let name = change.name.as_deref().map(valid_name).transpose()?;
    let is_picture = |url: &String| {
        url.is_empty()
            || url.len() <= PICTURE_BYTES_MAX
                && url.starts_with("https://")
                && !url.contains(char::is_control)
    };
    if !change.picture.as_ref().is_none_or(is_picture) {
        return Err(Problem::bad("a picture is an https:// URL, or empty"));
    }
    let mut tx = app.db.begin().await?;
    let mut user = raise(&mut tx, &own.user.user_id).await?;
    user.name = name.unwrap_or(user.name);
    user.picture = change
        .picture
        .map_or(user.picture, |url| (!url.is_empty()).then_some(url));
    let write = "UPDATE users SET name = $2, picture = $3 WHERE id = $1";
    tx.query(
        write,
        params![&user.user_id, &user.name, user.picture.clone()],
    )
    .await?;
    for (key, value) in change.preferences {
        let fits =
            (1..=64).contains(&key.len()) && value.as_ref().is_none_or(|value| value.len() <= 256);
        if !fits || key.contains('\0') || value.as_ref().is_some_and(|value| value.contains('\0')) {
            return Err(Problem::bad(
                "a preference has a name of 1 to 64 bytes and a value of up to 256",
            ));
        }
        match value {
            Some(value) => {
                let put = "INSERT INTO user_preferences (user_id, key, value) VALUES ($1, $2, $3) \
                           ON CONFLICT (user_id, key) DO UPDATE SET value = excluded.value";
                tx.query(put, params![&user.user_id, key, value]).await?
            }
            None => {
                let take = "DELETE FROM user_preferences WHERE user_id = $1 AND key = $2";
                tx.query(take, params![&user.user_id, key]).await?
            }
        };
    }
    let count = "SELECT COUNT(*) FROM user_preferences WHERE user_id = $1";
    let count = tx.query(count, params![&user.user_id]).await?;
    if count.first().map_or(Ok(0), |row| row.int(0))? > PREFERENCES_MAX {
        return Err(Problem::bad("more than 32 preferences"));
    }
    tell(&mut tx, "user.updated", &user, &Value::Null).await?;
    tx.commit().await?;
    app.outbox.wake();
    answer(&app, user, &own.sid).await
}
