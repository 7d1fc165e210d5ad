//! One connection, ready to be used: its settings made, its statements prepared, and the epoch known
//! that the server had when it was made.
//!
//! Invariants: every statement is planned once, for any values, and by an index: a plan made while a
//! table was small does not scan it when it is large. Dropping a session ends its connection at once,
//! and with it what the server was doing for it.

use super::options::{OpenError, Target};
use super::schema::{self, About, ServerIdentity};
use crate::protocol::Epoch;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, Statement};

/// A connection.
pub(super) struct Session {
    client: Client,
    statements: BTreeMap<&'static str, Statement>,
    about: About,
    epoch: Cell<Epoch>,
    /// For how many batches more sends are stored only after a look for their duplicates.
    pub careful: Cell<u32>,
    task: JoinHandle<()>,
    closed: Rc<Notify>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection without anything prepared, for migrations.
pub(super) async fn connect(
    target: &Target,
    statement_max: Duration,
) -> Result<(Client, JoinHandle<()>, Rc<Notify>), String> {
    let told = |error: Error| super::row::told(&error);
    let (client, connection) = target
        .config
        .connect(target.tls.clone())
        .await
        .map_err(told)?;
    let closed = Rc::new(Notify::new());
    let notify = Rc::clone(&closed);
    let task = tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = super::row::told(&error), "connection ended");
        }
        notify.notify_one();
    });
    let ms = statement_max.as_millis();
    client
        .batch_execute(&format!(
            "SET statement_timeout = {ms}; SET lock_timeout = {ms};
             SET idle_in_transaction_session_timeout = {ms};
             SET default_transaction_isolation = 'read committed';
             SET client_min_messages = warning; SET jit = off;
             SET plan_cache_mode = force_generic_plan;
             SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_mergejoin = off"
        ))
        .await
        .map_err(told)?;
    Ok((client, task, closed))
}

impl Session {
    /// Makes a connection ready.
    pub async fn open(
        target: &Target,
        statement_max: Duration,
        statements: &[&'static str],
    ) -> Result<Session, String> {
        let (client, task, closed) = connect(target, statement_max).await?;
        let about = match schema::about(&client).await {
            Ok(about) => about,
            Err(text) => {
                task.abort();
                return Err(text);
            }
        };
        let mut session = Session {
            client,
            statements: BTreeMap::new(),
            epoch: Cell::new(about.server.epoch(about.epoch_kept)),
            careful: Cell::new(0),
            about,
            task,
            closed,
        };
        for sql in statements {
            let prepared = session.client.prepare(sql).await;
            let prepared = prepared.map_err(|error| super::row::told(&error))?;
            session.statements.insert(sql, prepared);
        }
        Ok(session)
    }

    /// Runs a statement that was prepared when the session was made.
    pub async fn query(
        &self,
        sql: &'static str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        match self.statements.get(sql) {
            Some(statement) => self.client.query(statement, params).await,
            None => self.client.query(sql, params).await,
        }
    }

    /// Key of the body hashes.
    pub fn hash_key(&self) -> &[u8; 32] {
        &self.about.hash_key
    }

    /// The server at the other end.
    pub fn server(&self) -> ServerIdentity {
        self.about.server
    }

    /// The setting with which the server may forget what it committed.
    pub fn weakness(&self) -> Option<&str> {
        self.about.weakness.as_deref()
    }

    /// The epoch as far as this session knows.
    pub fn epoch(&self) -> Epoch {
        self.epoch.get()
    }

    /// Takes note of what `meta` holds now, and says which epoch that is.
    pub fn epoch_is(&self, kept: i64) -> Epoch {
        self.epoch.set(self.about.server.epoch(kept));
        self.epoch.get()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Waits for the connection to end.
    pub async fn closed(&self) {
        if !self.is_closed() {
            self.closed.notified().await;
        }
    }
}

/// Brings the database to the newest schema, over a connection of its own.
pub(super) async fn migrate(target: &Target, connect_max: Duration) -> Result<(), OpenError> {
    let connected = tokio::time::timeout(connect_max, connect(target, connect_max)).await;
    let (mut client, task, _) = match connected {
        Ok(Ok(connected)) => connected,
        Ok(Err(text)) => return Err(OpenError::Unreachable(text)),
        Err(_) => return Err(OpenError::Unreachable("it does not answer".to_owned())),
    };
    let migrated = schema::migrate(&mut client).await;
    drop(client);
    task.abort();
    migrated
}
