//! How the embedded store is opened, and its bounds.

use crate::chat::sabotage::Sabotaged;
use crate::limits;
use crate::protocol::{Epoch, UnixMs};
use std::path::PathBuf;
use std::sync::Arc;
use std::{fmt, time};

/// Calls that may wait for the writer, and for the readers. Above it: `overloaded`.
pub(super) const CALLS_MAX: usize = 2 * limits::STORE_CALLS_MAX;
/// Writes that may wait for the writer. At the measured 20 µs for a write in a batch these are
/// 0.7 s, well below [`limits::COMMIT_MS_MAX`], after which nobody waits for the answer any more.
pub(super) const QUEUED_OPS_MAX: usize = 4 * limits::COMMIT_QUEUE_MAX;
/// Writes after which a group is closed: 20 ms of work, so that a burst of one caller does not
/// hold back the answers of all others for longer.
pub(super) const GROUP_OPS_MAX: usize = limits::BATCH_OPS_MAX;
/// Calls of one group; sign-ins count as many.
pub(super) const GROUP_CALLS_MAX: usize = 1_024;
/// Sign-ins under way at the writer. Above it: `overloaded`.
pub(super) const SIGN_INS_WRITING_MAX: usize = 256;
/// Threads that read. Two, so that one long page does not hold up a storm of sign-ins; more would
/// take the cores from the shards.
pub(super) const READERS: usize = 2;
/// Longest wait for a lock of the database, ms. Only a checkpoint or a recovery ever holds one.
pub(super) const BUSY_MS_MAX: u64 = 2_000;
/// Statements kept prepared per connection: more than there are in this module.
pub(super) const STATEMENTS_MAX: usize = 128;
/// Members shown per room in a list of rooms.
pub(super) const LISTED_MEMBERS_MAX: usize = limits::READY_WATERMARK_MEMBERS_MAX;

// A whole batch of one caller fits into a group, and a full queue can still be answered in time.
const _: () = assert!(limits::BATCH_OPS_MAX <= GROUP_OPS_MAX);
const _: () = assert!(QUEUED_OPS_MAX >= limits::COMMIT_QUEUE_MAX);
const _: () = assert!(limits::SIGN_IN_USERS_MAX <= GROUP_OPS_MAX);

/// Messages are indexed so long after the first that is not, together with those that came meanwhile.
pub(super) const INDEX_EVERY: time::Duration = time::Duration::from_millis(250);
/// Between two steps while there is more to index.
pub(super) const INDEX_MORE: time::Duration = time::Duration::from_millis(10);
/// So late a step is made before the next group even while writes wait, and after a failure.
pub(super) const INDEX_LATE_MAX: time::Duration = time::Duration::from_millis(500);

/// How a [`super::Db`] is opened.
#[derive(Clone, Debug, Default)]
pub struct DbOptions {
    /// The epoch of a new database, instead of a random one: for a simulation that repeats.
    pub epoch: Option<Epoch>,
    /// The key of the body hashes of a new database, instead of a random one.
    pub hash_key: Option<[u8; 32]>,
    /// The fault that is on, in test builds.
    pub sabotage: Sabotaged,
}

/// How a [`super::SqliteStore`] is opened.
#[derive(Clone)]
pub struct SqliteOptions {
    /// How its database is opened.
    pub db: DbOptions,
    /// The clock whose time commits get. It may go back; the times within a room will not.
    pub clock: Arc<dyn Fn() -> UnixMs + Send + Sync>,
}

impl Default for SqliteOptions {
    fn default() -> SqliteOptions {
        SqliteOptions {
            db: DbOptions::default(),
            clock: Arc::new(|| {
                let since = time::SystemTime::now().duration_since(time::UNIX_EPOCH);
                UnixMs(since.map_or(0, |since| since.as_millis() as u64))
            }),
        }
    }
}

impl fmt::Debug for SqliteOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteOptions")
            .field("db", &self.db)
            .finish_non_exhaustive()
    }
}

/// Why a database was not opened. Nothing was changed in it.
#[derive(Debug)]
pub enum OpenError {
    /// Another process has the data folder open.
    InUse(PathBuf),
    /// The database was written by a newer version of this program.
    Newer {
        /// Its schema version.
        found: i64,
        /// The newest one known here.
        known: i64,
    },
    /// A migration that was applied is not the one known by this number here.
    MigrationDiffers(i64),
    /// The file is a database, but not one of ours.
    Foreign,
    /// Anything else: no such folder, no right to it, a broken file, a full disk.
    Io(String),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::InUse(folder) => write!(
                f,
                "the data folder {} is in use by another process",
                folder.display()
            ),
            OpenError::Newer { found, known } => write!(
                f,
                "the database has schema version {found}, this program knows up to {known}: \
                 it was written by a newer version"
            ),
            OpenError::MigrationDiffers(version) => write!(
                f,
                "migration {version} of the database is not the one of this program"
            ),
            OpenError::Foreign => write!(f, "the file is not a database of this program"),
            OpenError::Io(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for OpenError {}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> OpenError {
        OpenError::Io(error.to_string())
    }
}

impl From<std::io::Error> for OpenError {
    fn from(error: std::io::Error) -> OpenError {
        OpenError::Io(error.to_string())
    }
}
