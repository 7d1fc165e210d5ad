//! What the chat tells us: whom to push to, and what to take back. A phone's list of notifications, and the number on
//! the app's icon.
//!
//! Every webhook is taken once, by its id, in one transaction with what it does: one that comes again, because our
//! answer was lost, does nothing. Of a room they come in order; between rooms a badge may be older than the one before,
//! until the next.

use crate::accounts::session;
use crate::{App, Shared};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use example_kit::client;
use example_kit::db::Tx;
use example_kit::web::{Problem, json_answer};
use example_kit::webhook::{self, Event};
use example_kit::{now_ms, params};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// What a phone shows at most; older ones go.
const KEPT: i64 = 50;
/// The chat waits 2.5 s for an answer.
const PASSED_ON: Duration = Duration::from_millis(2_000);

#[derive(Deserialize)]
struct Required {
    user_id: String,
    room_id: String,
    room_title: Option<String>,
    message_seq: i64,
    sent_at: String,
    sender_name: String,
    message_kind: String,
    preview: Option<String>,
    badge: i64,
}

#[derive(Deserialize)]
struct Cancelled {
    user_id: String,
    room_id: String,
    up_to_seq: i64,
    badge: i64,
}

/// `POST /v1/webhooks/chat`: 204 when it is taken, or was before.
pub async fn receive(
    State(app): App,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let secret = app.settings.chat_secret.as_ref();
    let secret = secret.ok_or_else(|| Problem::not_found("nobody tells us anything"))?;
    let event = webhook::open(secret, &headers, &body)?;
    if event.kind == "room.created" {
        // The chat has one receiver. The map has a secret of its own, with which the chat signed, too.
        pass_on(&app, &headers, &body).await?;
    }
    let mut tx = app.db.begin().await?;
    let first = "INSERT INTO received_webhooks (id, received_at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING RETURNING 1";
    let first = tx.query(first, params![&event.id, now_ms()]).await?;
    if !first.is_empty() {
        take(&mut tx, event).await?;
    }
    tx.commit().await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn take(tx: &mut Tx, event: Event) -> Result<(), Problem> {
    let bad = |_| Problem::bad("`data` is not as it should be");
    match event.kind.as_str() {
        "push.required" => notify(tx, serde_json::from_value(event.data).map_err(bad)?).await,
        "push.cancelled" => take_back(tx, serde_json::from_value(event.data).map_err(bad)?).await,
        // What we do not know, or do not use.
        _ => Ok(()),
    }
}

async fn notify(tx: &mut Tx, push: Required) -> Result<(), Problem> {
    if !has_account(tx, &push.user_id).await? {
        return Ok(());
    }
    let text = push.preview.unwrap_or_else(|| {
        match push.message_kind.as_str() {
            "image" => "a picture",
            "voice" => "a voice note",
            "file" => "a file",
            _ => "a message",
        }
        .to_owned()
    });
    let title = match push.room_title {
        Some(room) => format!("{} in {room}", push.sender_name),
        None => push.sender_name,
    };
    tx.query(
        "INSERT INTO notifications (user_id, room_id, message_seq, title, text, sent_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (user_id, room_id, message_seq) DO NOTHING",
        params![&push.user_id, push.room_id, push.message_seq, title, text, push.sent_at],
    )
    .await?;
    tx.query(
        "DELETE FROM notifications WHERE user_id = $1 AND sent_at < (SELECT MIN(sent_at) FROM (SELECT sent_at \
         FROM notifications WHERE user_id = $1 ORDER BY sent_at DESC LIMIT $2) newest)",
        params![&push.user_id, KEPT],
    )
    .await?;
    set_badge(tx, &push.user_id, push.badge).await
}

async fn take_back(tx: &mut Tx, push: Cancelled) -> Result<(), Problem> {
    if !has_account(tx, &push.user_id).await? {
        return Ok(());
    }
    tx.query(
        "DELETE FROM notifications WHERE user_id = $1 AND room_id = $2 AND message_seq <= $3",
        params![&push.user_id, push.room_id, push.up_to_seq],
    )
    .await?;
    set_badge(tx, &push.user_id, push.badge).await
}

/// The chat may know people whom we do not.
async fn has_account(tx: &mut Tx, user_id: &str) -> Result<bool, Problem> {
    let account = "SELECT 1 FROM users WHERE id = $1 AND status <> 'deleted'";
    Ok(!tx.query(account, params![user_id]).await?.is_empty())
}

async fn set_badge(tx: &mut Tx, user_id: &str, badge: i64) -> Result<(), Problem> {
    let set = "INSERT INTO badges (user_id, badge) VALUES ($1, $2) ON CONFLICT (user_id) DO UPDATE SET badge = excluded.badge";
    tx.query(set, params![user_id, badge]).await?;
    Ok(())
}

/// As it came, with its signatures. Until the map has it we have not: the chat sends it again.
async fn pass_on(app: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let Some(url) = &app.settings.map_webhook_url else {
        return Ok(());
    };
    let mut passed = vec![("content-type", "application/json")];
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        passed.extend(value.map(|value| (name, value)));
    }
    let told = client::request(Method::POST, url, &passed, body.to_vec(), PASSED_ON).await;
    match told {
        Ok(answer) if (200..300).contains(&answer.status) => Ok(()),
        told => {
            let status = told.map(|answer| answer.status);
            tracing::warn!(?status, "the map does not take what the chat tells");
            let away = "the map does not take it now".to_owned();
            Err(Problem(StatusCode::SERVICE_UNAVAILABLE, away))
        }
    }
}

/// `GET /v1/notifications`: the newest first, and the badge.
pub async fn list(State(app): App, headers: HeaderMap) -> Result<Response, Problem> {
    let own = session(&app, &headers).await?.user.user_id;
    let all = "SELECT room_id, message_seq, title, text, sent_at FROM notifications WHERE user_id = $1 \
               ORDER BY sent_at DESC, message_seq DESC";
    let mut notifications: Vec<Value> = Vec::new();
    for row in app.db.query(all, params![&own]).await? {
        notifications.push(json!({
            "room_id": row.text(0)?, "message_seq": row.int(1)?, "title": row.text(2)?,
            "text": row.text(3)?, "sent_at": row.text(4)?,
        }));
    }
    let badge = "SELECT badge FROM badges WHERE user_id = $1";
    let badge = app.db.query(badge, params![&own]).await?;
    let badge = badge.first().map_or(Ok(0), |row| row.int(0))?;
    Ok(json_answer(
        &json!({"notifications": notifications, "badge": badge}),
    ))
}
