//! Events that are not lost: a row written in the transaction that makes them true, sent until answered.
//!
//! Invariants: an event whose transaction committed is sent until the receiver answers 2xx, whoever is killed
//! meanwhile; all tries have one `webhook-id`, by which the receiver knows a repetition. Nothing is said of
//! order: events carry a version, or are idempotent.
//!
//! A worker takes a row by pushing `next_at` beyond the time that a try may take: that is its lease. A worker
//! that dies gives it back by the passing of time.

use crate::client::{self, Answer};
use crate::db::{Db, DbError, Tx};
use crate::webhook::Secret;
use crate::{now_ms, params};
use hyper::Method;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// How long one try may take.
const TRY_MAX: Duration = Duration::from_secs(5);
/// How long a worker has a row to itself: longer than a try and what is written after it.
const LEASE_MS: i64 = 8_000;
/// Time between tries: doubled each time, up to a minute.
const BACKOFF_MS: (i64, i64) = (250, 60_000);
/// How long a worker sleeps when nobody wakes it: rows of other processes are found so.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Sent at once.
const WORKERS: usize = 4;

/// Writes an event beside the change that it tells of. `subject` is what it is about.
/// Returns its `webhook-id`.
///
/// # Errors
/// The database.
pub async fn put(tx: &mut Tx, subject: &str, kind: &str, data: &Value) -> Result<String, DbError> {
    let (id, now) = (format!("msg_{}", uuid::Uuid::now_v7().simple()), now_ms());
    let body = json!({"type": kind, "timestamp": crate::rfc3339(now), "data": data});
    tx.query(
        "INSERT INTO webhook_outbox (id, subject, body, created_at, next_at, attempts) \
         VALUES ($1, $2, $3, $4, $4, 0)",
        params![&id, subject, body.to_string(), now],
    )
    .await?;
    Ok(id)
}

/// Sends what [`put`] wrote.
#[derive(Clone)]
pub struct Outbox {
    db: Db,
    url: Arc<str>,
    secret: Secret,
    wake: Arc<Notify>,
}

impl Outbox {
    /// Sends to this URL, from now on.
    pub fn start(db: Db, url: &str, secret: Secret) -> Outbox {
        let outbox = Outbox {
            db,
            url: url.into(),
            secret,
            wake: Arc::default(),
        };
        for _ in 0..WORKERS {
            let worker = outbox.clone();
            tokio::spawn(async move {
                loop {
                    match worker.send_one().await {
                        Ok(true) => (),
                        Ok(false) => {
                            let _ = tokio::time::timeout(LOOK_AGAIN, worker.wake.notified()).await;
                        }
                        Err(error) => {
                            tracing::warn!(%error, "outbox: the database does not answer");
                            tokio::time::sleep(LOOK_AGAIN).await;
                        }
                    }
                }
            });
        }
        outbox
    }

    /// Something was committed: look now.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Sends one event that is due. Whether there was one.
    async fn send_one(&self) -> Result<bool, DbError> {
        let now = now_ms();
        let mut tx = self.db.begin().await?;
        let take = format!(
            "UPDATE webhook_outbox SET next_at = $1, attempts = attempts + 1 WHERE id = (\
             SELECT id FROM webhook_outbox WHERE delivered_at IS NULL AND next_at <= $2 \
             ORDER BY next_at, id LIMIT 1 {}) RETURNING id, body, attempts",
            tx.skip_locked()
        );
        let taken = tx.query(&take, params![now + LEASE_MS, now]).await?;
        tx.commit().await?;
        let Some(row) = taken.first() else {
            return Ok(false);
        };
        let (id, body, attempts) = (row.text(0)?, row.text(1)?, row.int(2)?);
        let answered = self.try_once(&id, body).await;
        let (now, failed) = (
            now_ms(),
            match answered {
                Ok(answer) if (200..300).contains(&answer.status) => {
                    let body = String::from_utf8_lossy(&answer.body).into_owned();
                    let done =
                        "UPDATE webhook_outbox SET delivered_at = $2, answer = $3 WHERE id = $1";
                    self.db.query(done, params![&id, now_ms(), body]).await?;
                    return Ok(true);
                }
                Ok(answer) => format!("answered {}", answer.status),
                Err(error) => error,
            },
        );
        tracing::warn!(id, attempts, failed, "webhook: will be sent again");
        let again = "UPDATE webhook_outbox SET next_at = $2, last_error = $3 WHERE id = $1 AND delivered_at IS NULL";
        self.db
            .query(again, params![&id, now + backoff_ms(attempts), failed])
            .await?;
        Ok(true)
    }

    async fn try_once(&self, id: &str, body: String) -> Result<Answer, String> {
        let timestamp = now_ms() / 1_000;
        let signature = self.secret.sign(id, timestamp, body.as_bytes());
        let timestamp = timestamp.to_string();
        let headers = [
            ("content-type", "application/json"),
            ("webhook-id", id),
            ("webhook-timestamp", &timestamp),
            ("webhook-signature", &signature),
        ];
        client::request(
            Method::POST,
            &self.url,
            &headers,
            body.into_bytes(),
            TRY_MAX,
        )
        .await
    }
}

fn backoff_ms(attempts: i64) -> i64 {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(16);
    BACKOFF_MS
        .0
        .saturating_mul(1 << doublings)
        .min(BACKOFF_MS.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_come_apart_and_never_stop() {
        assert_eq!([1, 2, 3, 4].map(backoff_ms), [250, 500, 1_000, 2_000]);
        assert_eq!(backoff_ms(1_000_000), 60_000);
    }
}
