//! From an invite to a room in the chat.
//!
//! Accepting writes the answer and the webhook in one transaction, so the chat hears of it sooner or later, once or more
//! often; it makes one room per `invite_id` in any case. Its reply, which names the room, stays in the outbox's row.

use crate::App;
use crate::identity::user;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use example_kit::outbox;
use example_kit::web::{Problem, json_answer};
use example_kit::{now_ms, params, rfc3339};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

const TITLE_CHARS_MAX: usize = 100;

#[derive(Deserialize)]
pub struct Asked {
    invitee_id: Uuid,
    place_id: String,
    title: Option<String>,
    /// The same id is the same invite, so that it may be sent again.
    invite_id: Option<Uuid>,
}

/// `POST /v1/invites {"invitee_id","place_id","title"?,"invite_id"?}`.
pub async fn create(
    State(app): App,
    headers: HeaderMap,
    Json(asked): Json<Asked>,
) -> Result<Response, Problem> {
    let own = user(&app, &headers).await?;
    let (now, invitee) = (now_ms(), asked.invitee_id.to_string());
    if invitee == own.id {
        return Err(Problem::bad("nobody meets with themselves"));
    }
    let mut tx = app.db.begin().await?;
    let place = tx
        .query(
            "SELECT name FROM places WHERE id = $1",
            params![&asked.place_id],
        )
        .await?;
    let place = place
        .first()
        .ok_or_else(|| Problem::not_found("no such place"))?
        .text(0)?;
    let title = asked.title.unwrap_or_else(|| format!("Coffee at {place}"));
    let title = title.trim();
    if title.is_empty()
        || title.chars().count() > TITLE_CHARS_MAX
        || title.contains(char::is_control)
    {
        return Err(Problem::bad("a title has 1 to 100 characters"));
    }
    let id = asked.invite_id.unwrap_or_else(Uuid::now_v7).to_string();
    tx.query(
        "INSERT INTO meetup_invites (id, inviter_id, invitee_id, place_id, title, status, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, 'pending', $6, $7) ON CONFLICT (id) DO NOTHING",
        params![&id, &own.id, &invitee, &asked.place_id, title, now, now + app.invite_ms],
    )
    .await?;
    let same = "SELECT 1 FROM meetup_invites WHERE id = $1 AND inviter_id = $2 AND invitee_id = $3 AND place_id = $4 AND title = $5";
    if tx
        .query(same, params![&id, &own.id, invitee, asked.place_id, title])
        .await?
        .is_empty()
    {
        return Err(Problem::conflict("another invite has this id"));
    }
    tx.commit().await?;
    Ok(json_answer(
        &json!({"invite_id": id, "expires_at": rfc3339(now + app.invite_ms)}),
    ))
}

/// `POST /v1/invites/{invite_id}/accept`. Accepted twice is accepted once.
pub async fn accept(
    State(app): App,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    answer(&app, &headers, &id, "accepted").await
}

/// `POST /v1/invites/{invite_id}/decline`.
pub async fn decline(
    State(app): App,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    answer(&app, &headers, &id, "declined").await
}

async fn answer(
    app: &crate::Shared,
    headers: &HeaderMap,
    id: &str,
    answer: &str,
) -> Result<Response, Problem> {
    let own = user(app, headers).await?;
    let mut tx = app.db.begin().await?;
    let changed = tx
        .query(
            "UPDATE meetup_invites SET status = $3 WHERE id = $1 AND invitee_id = $2 AND status = 'pending' \
             AND expires_at > $4 RETURNING inviter_id, title, place_id",
            params![id, &own.id, answer, now_ms()],
        )
        .await?;
    let Some(row) = changed.first() else {
        let found = "SELECT status FROM meetup_invites WHERE id = $1 AND invitee_id = $2";
        let found = tx.query(found, params![id, &own.id]).await?;
        let status = found
            .first()
            .ok_or_else(|| Problem::not_found("no invite to you has this id"))?
            .text(0)?;
        return match status.as_str() {
            status if status == answer => {
                Ok(json_answer(&json!({"status": answer, "changed": false})))
            }
            "pending" => Err(Problem::conflict("this invite is too old")),
            status => Err(Problem::conflict(&format!("this invite was {status}"))),
        };
    };
    if answer == "accepted" {
        let (inviter, title, place_id) = (row.text(0)?, row.text(1)?, row.text(2)?);
        let place = tx
            .query(
                "SELECT name, lat, lon FROM places WHERE id = $1",
                params![&place_id],
            )
            .await?;
        let place = place
            .first()
            .ok_or_else(|| Problem::not_found("no such place"))?;
        let place = json!({"place_id": place_id, "name": place.text(0)?, "lat": place.real(1)?, "lon": place.real(2)?});
        let data = json!({"invite_id": id, "inviter_id": inviter, "invitee_id": own.id, "title": title, "place": place});
        outbox::put(&mut tx, id, "meetup.invite.accepted", &data).await?;
    }
    tx.commit().await?;
    app.outbox.wake();
    Ok(json_answer(&json!({"status": answer, "changed": true})))
}

/// `GET /v1/invites`: one's invites, the newest first, each with its room once the chat has said which.
pub async fn all(State(app): App, headers: HeaderMap) -> Result<Response, Problem> {
    let own = user(&app, &headers).await?;
    let rows = app
        .db
        .query(
            "SELECT i.id, i.inviter_id, i.invitee_id, a.name, b.name, i.title, p.name, i.status, i.expires_at, o.answer \
             FROM meetup_invites i JOIN places p ON p.id = i.place_id JOIN people a ON a.user_id = i.inviter_id \
             LEFT JOIN people b ON b.user_id = i.invitee_id LEFT JOIN webhook_outbox o ON o.subject = i.id \
             WHERE i.inviter_id = $1 OR i.invitee_id = $1 ORDER BY i.created_at DESC, i.id LIMIT 50",
            params![&own.id],
        )
        .await?;
    let mut invites = Vec::new();
    for row in &rows {
        let told: Value = row
            .opt_text(9)?
            .and_then(|told| serde_json::from_str(&told).ok())
            .unwrap_or_default();
        let status = row.text(7)?;
        let is_over = status == "pending" && row.int(8)? <= now_ms();
        invites.push(json!({
            "invite_id": row.text(0)?, "inviter_id": row.text(1)?, "invitee_id": row.text(2)?,
            "inviter": row.text(3)?, "invitee": row.opt_text(4)?, "title": row.text(5)?, "place": row.text(6)?,
            "status": if is_over { "expired" } else { &status }, "expires_at": rfc3339(row.int(8)?),
            "room_id": told.get("room_id"),
        }));
    }
    Ok(json_answer(&json!({"invites": invites})))
}
