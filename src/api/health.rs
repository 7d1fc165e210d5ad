//! Whether the process lives (`/healthz`), and whether it can take users (`/readyz`).
//!
//! The store is asked at most a few times a second, whoever asks how often.

use super::problem::Problem;
use super::store_client::StoreClient;
use super::{NodeView, Phase};
use crate::chat::port::StoreCall;
use crate::protocol::ErrorCode;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long an answer of the store stands for later questions.
const FRESH: Duration = Duration::from_millis(250);

/// Asks whether the store answers.
pub struct Readiness {
    node: Arc<dyn NodeView>,
    store: StoreClient,
    /// When it was asked last, and whether it answered. Holding the lock over the question makes
    /// all who ask meanwhile wait for the same answer.
    last: Mutex<Option<(Instant, bool)>>,
}

impl Readiness {
    /// Of this node and this store.
    pub fn new(node: Arc<dyn NodeView>, store: StoreClient) -> Readiness {
        Readiness {
            node,
            store,
            last: Mutex::new(None),
        }
    }

    /// Why the node cannot take users; `None` if it can.
    pub async fn problem(&self) -> Option<&'static str> {
        match self.node.phase() {
            Phase::Starting => Some("the shards are not up yet"),
            Phase::Draining => Some("the node is about to stop"),
            Phase::Up if !self.store_answers().await => Some("the store does not answer"),
            Phase::Up => None,
        }
    }

    async fn store_answers(&self) -> bool {
        let mut last = self.last.lock().await;
        if let Some((at, answered)) = *last
            && at.elapsed() < FRESH
        {
            return answered;
        }
        let nothing = StoreCall::Heads {
            rooms: Vec::new(),
            users: Vec::new(),
        };
        let answered = self.store.call(nothing).await.is_ok();
        *last = Some((Instant::now(), answered));
        answered
    }
}

fn text(text: &'static str) -> Response {
    let cache = (header::CACHE_CONTROL, "no-store");
    ([cache], text).into_response()
}

/// `GET /healthz`: this thread runs.
pub async fn healthz() -> Response {
    text("ok\n")
}

/// `GET /readyz`.
pub async fn readyz(readiness: &Readiness) -> Response {
    match readiness.problem().await {
        None => text("ready\n"),
        Some(reason) => Problem::new(ErrorCode::Unavailable, reason).into_response(),
    }
}
