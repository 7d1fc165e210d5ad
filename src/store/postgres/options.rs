//! How a PostgreSQL store is opened, its bounds, and why it may not be.

use super::tls::{self, Trust};
use crate::limits;
use crate::protocol::UnixMs;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// Connections that commit. A caller's batches go through one at a time, in their order, so as many
/// batches are under way as there are callers, up to this.
pub(super) const LANES: usize = 4;
/// Connections that commit and may wait long for rooms that others hold, so that no other batch does.
pub(super) const WAITING_LANES: usize = 2;
/// Connections that read. One long page then holds up a quarter of what is asked meanwhile.
pub(super) const READERS: usize = 4;
/// Connections that search. A search takes as long as a statement may, and holds up only other searches.
pub(super) const SEARCHERS: usize = 2;
/// Reads, sign-ins included, that may wait or be under way. Above it: `overloaded`.
pub(super) const CALLS_MAX: usize = 2 * limits::STORE_CALLS_MAX;
/// Writes that may wait or be under way. At 100 µs for a write in a batch these are 0.8 s, well below
/// [`limits::COMMIT_MS_MAX`], after which nobody waits for the answer any more.
pub(super) const QUEUED_OPS_MAX: usize = 8 * limits::BATCH_OPS_MAX;
/// Writes after which a group of one lane is closed.
pub(super) const GROUP_OPS_MAX: usize = limits::BATCH_OPS_MAX;
/// Users made known by one statement.
pub(super) const KNOWN_USERS_MAX: usize = 4 * limits::SIGN_IN_USERS_MAX;
/// Times that a transaction is tried which the database ended for the sake of another.
pub(super) const TRIES_MAX: u32 = 3;
/// Longest time to make a connection ready, TLS and preparing included.
pub(super) const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Wait before the second attempt to connect; twice as long before each further one.
pub(super) const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest wait between two attempts. With [`CONNECT_MAX`] a database that is back is found in
/// less than 5 s, also where nothing told that it was away.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Members shown per room in a list of rooms.
pub(super) const LISTED_MEMBERS_MAX: usize = limits::READY_WATERMARK_MEMBERS_MAX;

const _: () = assert!(limits::SIGN_IN_USERS_MAX <= KNOWN_USERS_MAX);
const _: () = assert!(GROUP_OPS_MAX <= QUEUED_OPS_MAX);

/// The time that commits get, where it is not the database's.
pub type Clock = Arc<dyn Fn() -> UnixMs + Send + Sync>;

/// How a [`super::PostgresStore`] is opened.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://user:password@host:port/database?sslmode=…`, as libpq reads it.
    pub url: String,
    /// Refuse a server that may forget what it committed, instead of saying so.
    pub must_be_durable: bool,
    /// The clock whose time commits get, for tests; `None`: the database's.
    pub clock: Option<Clock>,
    /// Longest time for a statement, and for a lock in it; the server ends it.
    pub statement_max: Duration,
    /// Longest time for a call, after which it is answered `unavailable`.
    pub call_max: Duration,
}

impl PostgresOptions {
    /// For this URL, with the bounds of production.
    pub fn new(url: impl Into<String>) -> PostgresOptions {
        PostgresOptions {
            url: url.into(),
            must_be_durable: false,
            clock: None,
            statement_max: Duration::from_secs(2),
            call_max: Duration::from_millis(limits::COMMIT_MS_MAX),
        }
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password.
        f.debug_struct("PostgresOptions")
            .field("must_be_durable", &self.must_be_durable)
            .field("statement_max", &self.statement_max)
            .field("call_max", &self.call_max)
            .finish_non_exhaustive()
    }
}

/// Why a database was not opened. Nothing was changed in it.
#[derive(Debug)]
pub enum OpenError {
    /// The URL cannot be used. Tells nothing of what stands in it.
    Url(String),
    /// Not reachable, or it refuses us.
    Unreachable(String),
    /// The database was written by a newer version of this program.
    Newer {
        /// Its schema version.
        found: i64,
        /// The newest one known here.
        known: i64,
    },
    /// A migration that was applied is not the one known by this number here.
    MigrationDiffers(i64),
    /// The server may forget what it committed: which setting says so.
    NotDurable(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Url(text) => write!(f, "the URL of the database: {text}"),
            OpenError::Unreachable(text) => write!(f, "no connection to PostgreSQL: {text}"),
            OpenError::Newer { found, known } => write!(
                f,
                "the database has schema version {found}, this program knows up to {known}: \
                 it was written by a newer version"
            ),
            OpenError::MigrationDiffers(version) => write!(
                f,
                "migration {version} of the database is not the one of this program"
            ),
            OpenError::NotDurable(setting) => write!(
                f,
                "the server runs with {setting}, so it may forget what it acknowledged; \
                 production mode needs fsync, full_page_writes and synchronous_commit on"
            ),
            OpenError::Failed(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for OpenError {}

/// Where to connect, and how.
pub(super) struct Target {
    pub config: tokio_postgres::Config,
    pub tls: MakeRustlsConnect,
}

impl Target {
    /// Reads a URL. `sslmode` and `sslrootcert` are ours, because the driver knows only three modes.
    pub fn parse(url: &str) -> Result<Target, OpenError> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root, mut rest) = (String::from("prefer"), None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = value.to_owned(),
                Some(("sslrootcert", value)) => root = Some(decoded(value)),
                _ => rest.push(pair),
            }
        }
        let url = if rest.is_empty() {
            address.to_owned()
        } else {
            format!("{address}?{}", rest.join("&"))
        };
        // The driver's error quotes no value, only says which one it could not read.
        let mut config = tokio_postgres::Config::from_str(&url)
            .map_err(|error| OpenError::Url(error.to_string()))?;
        if config.get_hosts().is_empty() {
            return Err(OpenError::Url("it names no host".to_owned()));
        }
        let (ssl_mode, trust) = match (mode.as_str(), &root) {
            ("disable", _) => (SslMode::Disable, Trust::Anybody),
            ("prefer", _) => (SslMode::Prefer, Trust::Anybody),
            // As libpq: with a root certificate at hand `require` checks it.
            ("require", None) => (SslMode::Require, Trust::Anybody),
            ("require" | "verify-ca", Some(_)) => (SslMode::Require, Trust::Issuer),
            ("verify-full", Some(_)) => (SslMode::Require, Trust::IssuerAndName),
            ("verify-ca" | "verify-full", None) => {
                return Err(OpenError::Url(format!(
                    "sslmode={mode} needs sslrootcert=FILE, the certificates that are trusted"
                )));
            }
            _ => {
                let text = "sslmode is one of disable, prefer, require, verify-ca, verify-full";
                return Err(OpenError::Url(text.to_owned()));
            }
        };
        config.ssl_mode(ssl_mode);
        config.connect_timeout(CONNECT_MAX);
        config.keepalives(true);
        config.keepalives_idle(Duration::from_secs(5));
        config.keepalives_interval(Duration::from_secs(1));
        config.keepalives_retries(3);
        config.tcp_user_timeout(Duration::from_secs(4));
        if config.get_application_name().is_none() {
            config.application_name("caffis-chat");
        }
        let tls = tls::connector(trust, root.as_deref()).map_err(OpenError::Url)?;
        Ok(Target { config, tls })
    }
}

/// `%2F` and the like.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (*first, byte) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (byte, _) => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
