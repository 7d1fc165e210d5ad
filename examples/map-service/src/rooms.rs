//! What the chat tells of its rooms, so that who is near and known is one step from being written to.
//!
//! `room.created` says who is there when a room is opened. Who comes and goes later is not told: a link may lead to a
//! room that one has left, and the chat says so there.

use crate::App;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use example_kit::db::{Db, DbError};
use example_kit::params;
use example_kit::web::Problem;
use example_kit::webhook;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Created {
    room_id: String,
    kind: String,
    member_ids: Vec<String>,
}

/// `POST /v1/webhooks/chat`: 204 when it is taken, or was before.
pub async fn receive(
    State(app): App,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let secret = app.chat_secret.as_ref();
    let secret = secret.ok_or_else(|| Problem::not_found("nobody tells us anything"))?;
    let event = webhook::open(secret, &headers, &body)?;
    if event.kind == "room.created" {
        let bad = |_| Problem::bad("`data` is not as it should be");
        let room: Created = serde_json::from_value(event.data).map_err(bad)?;
        let mut tx = app.db.begin().await?;
        // The same however often it is told.
        let add = "INSERT INTO rooms (id, kind) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
        tx.query(add, params![&room.room_id, room.kind]).await?;
        for user in room.member_ids {
            let add = "INSERT INTO room_members (user_id, room_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            tx.query(add, params![user, &room.room_id]).await?;
        }
        tx.commit().await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// With whom somebody has a room that was opened for the two alone, as each meetup has one; the direct one before groups.
///
/// # Errors
/// The database does not answer.
pub async fn with(db: &Db, user: &str) -> Result<BTreeMap<String, String>, DbError> {
    let shared = "SELECT other.user_id, r.id FROM room_members own JOIN rooms r ON r.id = own.room_id \
                  JOIN room_members other ON other.room_id = r.id AND other.user_id <> own.user_id \
                  WHERE own.user_id = $1 AND (SELECT count(*) FROM room_members all_of WHERE all_of.room_id = r.id) = 2 \
                  ORDER BY CASE r.kind WHEN 'direct' THEN 1 ELSE 0 END, r.id";
    let mut found = BTreeMap::new();
    // The last of a person stays.
    for row in db.query(shared, params![user]).await? {
        found.insert(row.text(0)?, row.text(1)?);
    }
    Ok(found)
}
