//! `POST /v1/demo/login {"name":"Ada"}` → `{"token","user_id"}`. Development only.
//!
//! The user is created at once, not only when they connect, so that others can open a room with
//! them before.

use super::problem::Problem;
use super::store_client::StoreClient;
use crate::chat::port::{SignIn, StoreAnswer, StoreCall, StoreError};
use crate::identity::DemoLogin;
use crate::protocol::{ErrorCode, UnixMs, UserId};
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Deserialize)]
struct Asked {
    name: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    token: &'a str,
    user_id: UserId,
}

/// Answers one login.
///
/// # Errors
/// What is wrong with the request, or with the store.
pub async fn login(
    demo: &dyn DemoLogin,
    store: &StoreClient,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, Problem> {
    // A page of another origin can send a form or plain text without asking; JSON it cannot.
    if !is_json(headers) {
        let detail = "the body must be application/json";
        return Err(Problem::new(ErrorCode::UnsupportedMedia, detail));
    }
    let asked: Asked = serde_json::from_slice(body).map_err(|_| {
        let detail = "the body must be {\"name\":\"…\"}";
        Problem::new(ErrorCode::BadRequest, detail)
    })?;
    let user = demo.login(&asked.name, now()).ok_or_else(|| {
        let detail = "`name` must have 1 to 200 characters, not all of them blank, and no U+0000";
        Problem::new(ErrorCode::BadRequest, detail)
    })?;
    let sign_in = SignIn {
        user: user.user,
        name: Some(user.name),
        picture: None,
        resume: Vec::new(),
        describe_max: 0,
    };
    match store.call(StoreCall::SignIn(vec![sign_in])).await {
        Ok(StoreAnswer::SignIn(_)) => (),
        Ok(_) => {
            tracing::error!("the store answered another question than the sign-in");
            return Err(Problem::new(ErrorCode::Internal, "try again"));
        }
        Err(StoreError::Overloaded) => {
            return Err(Problem::new(ErrorCode::Overloaded, "the store is busy"));
        }
        Err(StoreError::Unavailable(reason)) => {
            tracing::warn!(reason, "demo login: the store did not answer");
            return Err(Problem::new(ErrorCode::Unavailable, "the store is away"));
        }
    }
    let answer = Answer {
        token: &user.token,
        user_id: user.user,
    };
    let content_type = (header::CONTENT_TYPE, "application/json");
    let cache = (header::CACHE_CONTROL, "no-store");
    let body = serde_json::to_string(&answer).unwrap_or_default();
    Ok((StatusCode::OK, [content_type, cache], body).into_response())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 makes tokens that are expired, which is noticed at once.
    UnixMs(since.map_or(0, |since| since.as_millis() as u64))
}
