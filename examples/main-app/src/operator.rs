//! What operators do, who show `MAIN_APP_ADMIN_TOKEN`.

use crate::profile::{raise, tell};
use crate::{App, Shared, tokens};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use example_kit::web::{Problem, bearer, json_answer};
use example_kit::{now_ms, params, same_secret};
use serde_json::{Value, json};

fn allowed(app: &Shared, headers: &HeaderMap) -> Result<(), Problem> {
    let is_operator =
        bearer(headers).is_some_and(|shown| same_secret(shown, &app.settings.admin_token));
    is_operator
        .then_some(())
        .ok_or_else(|| Problem::unauthorized("for operators only"))
}

/// `POST /admin/rotate`: another key signs from now on.
pub async fn rotate(State(app): App, headers: HeaderMap) -> Result<Response, Problem> {
    allowed(&app, &headers)?;
    let (current, previous) = tokens::rotate(&app).await?;
    Ok(json_answer(
        &json!({"current": current, "previous": previous}),
    ))
}

/// `POST /admin/users/{user_id}/suspend`.
pub async fn suspend(
    State(app): App,
    headers: HeaderMap,
    Path(user_id): Path<String>,
) -> Result<Response, Problem> {
    allowed(&app, &headers)?;
    end_account(&app, &user_id, "user.suspended").await
}

/// `POST /admin/users/{user_id}/restore`: a suspended account may be used again.
pub async fn restore(
    State(app): App,
    headers: HeaderMap,
    Path(user_id): Path<String>,
) -> Result<Response, Problem> {
    allowed(&app, &headers)?;
    let mut tx = app.db.begin().await?;
    let user = raise(&mut tx, &user_id).await?;
    let active = "UPDATE users SET status = 'active' WHERE id = $1";
    tx.query(active, params![&user_id]).await?;
    tell(&mut tx, "user.updated", &user, &json!({"suspended": false})).await?;
    tx.commit().await?;
    app.outbox.wake();
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /admin/users/{user_id}`: the account is over, and what it knew of the person is gone.
pub async fn delete(
    State(app): App,
    headers: HeaderMap,
    Path(user_id): Path<String>,
) -> Result<Response, Problem> {
    allowed(&app, &headers)?;
    end_account(&app, &user_id, "user.deleted").await
}

async fn end_account(app: &Shared, user_id: &str, kind: &str) -> Result<Response, Problem> {
    let mut tx = app.db.begin().await?;
    let mut user = raise(&mut tx, user_id).await?;
    if kind == "user.deleted" {
        (user.name, user.picture) = ("Deleted user".to_owned(), None);
        let codes =
            "DELETE FROM verification_codes WHERE email = (SELECT email FROM users WHERE id = $1)";
        tx.query(codes, params![user_id]).await?;
        let gone = "UPDATE users SET status = 'deleted', email = NULL, name = $2, picture = NULL WHERE id = $1";
        tx.query(gone, params![user_id, &user.name]).await?;
        for table in ["user_preferences", "notifications", "badges"] {
            let delete = format!("DELETE FROM {table} WHERE user_id = $1");
            tx.query(&delete, params![user_id]).await?;
        }
    } else {
        tx.query(
            "UPDATE users SET status = 'suspended' WHERE id = $1",
            params![user_id],
        )
        .await?;
    }
    let revoke = "UPDATE sessions SET revoked_at = $2 WHERE user_id = $1 AND revoked_at IS NULL";
    tx.query(revoke, params![user_id, now_ms()]).await?;
    tell(&mut tx, kind, &user, &Value::Null).await?;
    tx.commit().await?;
    app.outbox.wake();
    Ok(StatusCode::NO_CONTENT.into_response())
}
