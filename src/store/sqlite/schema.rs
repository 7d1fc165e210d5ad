//! Brings a database to the newest schema, and sets up connections.
//!
//! Invariants: a migration is applied whole or not at all, and never changes once it was applied
//! somewhere (its checksum is kept). A database that is refused is left as it was.

use super::options::{BUSY_MS_MAX, DbOptions, OpenError, STATEMENTS_MAX};
use crate::chat::sabotage::{Sabotage, Sabotaged};
use crate::protocol::Epoch;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use std::path::Path;
use std::time::Duration;

/// Migrations, by version, from 1 without a gap.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_core.sql"),
    include_str!("../../../migrations/sqlite/0002_own_state.sql"),
    include_str!("../../../migrations/sqlite/0003_blocks.sql"),
    include_str!("../../../migrations/sqlite/0004_search.sql"),
    include_str!("../../../migrations/sqlite/0005_admin.sql"),
    include_str!("../../../migrations/sqlite/0006_erase.sql"),
    include_str!("../../../migrations/sqlite/0007_webhooks.sql"),
    include_str!("../../../migrations/sqlite/0008_uploads.sql"),
    include_str!("../../../migrations/sqlite/0009_hooks.sql"),
    include_str!("../../../migrations/sqlite/0010_retention.sql"),
    include_str!("../../../migrations/sqlite/0011_severed_marks.sql"),
    include_str!("../../../migrations/sqlite/0012_room_pictures.sql"),
];

/// `application_id` of our databases: "CafC".
const APPLICATION_ID: i64 = 0x4361_6643;

/// Pages of the log after which the commit that reached them copies them into the database: 32 MiB.
/// The larger the log, the more often a page that is written again and again (the last one of a
/// busy room) is copied once for many commits, and the longer a start after a crash. A thread of
/// its own for the copying was measured and rejected: docs/decisions/0010.
const CHECKPOINT_PAGES: i64 = 8_000;
/// The log is cut down to this after it grew larger, bytes.
const LOG_BYTES_KEPT: i64 = 64 << 20;

/// What a database says about itself.
pub(super) struct Meta {
    pub epoch: Epoch,
    pub hash_key: [u8; 32],
}

/// A connection that writes, to a file or in memory, with its schema brought up to date.
pub(super) fn open_writer(
    path: Option<&Path>,
    options: &DbOptions,
) -> Result<(Connection, Meta), OpenError> {
    let mut connection = match path {
        Some(path) => Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?,
        None => Connection::open_in_memory()?,
    };
    prepare(&connection)?;
    let applied = applied(&connection)?;
    // Not possible inside a transaction, and harmless in any database that was not refused.
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch(&format!(
        "PRAGMA synchronous = {};
         PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};
         PRAGMA journal_size_limit = {LOG_BYTES_KEPT};
         PRAGMA secure_delete = FAST;
         PRAGMA cache_size = -65536;",
        if options.sabotage.is(Sabotage::SynchronousOff) {
            "OFF"
        } else {
            "FULL"
        }
    ))?;
    migrate(&mut connection, applied)?;
    let meta = meta(&connection, options)?;
    sabotage(&connection, options.sabotage)?;
    Ok((connection, meta))
}

/// The same, of a file that is a database of ours already.
pub(super) fn open_existing(
    path: &Path,
    options: &DbOptions,
) -> Result<(Connection, Meta), OpenError> {
    if applied(&open_reader(path)?)? == 0 {
        return Err(OpenError::Foreign);
    }
    open_writer(Some(path), options)
}

/// A connection that only reads, from the file that a writer has open.
pub(super) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    prepare(&connection)?;
    connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -32768;")?;
    Ok(connection)
}

/// `mmap_size` stays 0: through a mapping a failing disk is a SIGBUS, which ends the process,
/// instead of an error, which is answered `unavailable`.
fn prepare(connection: &Connection) -> Result<(), OpenError> {
    connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Plans that do not depend on the values bound: without it a statement whose plan could is
    // parsed and planned again with every binding, which was a sixth of a commit's instructions.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.execute_batch(
        "PRAGMA temp_store = MEMORY; PRAGMA trusted_schema = OFF; PRAGMA mmap_size = 0;",
    )?;
    Ok(())
}

/// Refuses what is not ours, newer, or other than known, before anything is written. The number of
/// migrations that were applied.
pub(super) fn applied(connection: &Connection) -> Result<usize, OpenError> {
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(0);
    }
    let application: i64 = connection.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(OpenError::Foreign);
    }
    let mut statement =
        connection.prepare("SELECT version, checksum FROM schema_migrations ORDER BY version")?;
    let applied = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, Vec<u8>)>, _>>()?;
    let known = MIGRATIONS.len() as i64;
    if let Some((found, _)) = applied.last().filter(|(found, _)| *found > known) {
        return Err(OpenError::Newer {
            found: *found,
            known,
        });
    }
    for ((version, found), sql) in applied.iter().zip(MIGRATIONS) {
        if *found != checksum(sql) {
            return Err(OpenError::MigrationDiffers(*version));
        }
    }
    Ok(applied.len())
}

fn checksum(sql: &str) -> [u8; 32] {
    *blake3::hash(sql.as_bytes()).as_bytes()
}

/// Applies what was not applied yet: nothing is written to a database that is up to date.
fn migrate(connection: &mut Connection, applied: usize) -> Result<(), OpenError> {
    if applied == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID};
         CREATE TABLE IF NOT EXISTS schema_migrations (
             version  INTEGER PRIMARY KEY,
             checksum BLOB NOT NULL
         ) STRICT;"
    ))?;
    for (version, sql) in (1i64..).zip(MIGRATIONS).skip(applied) {
        transaction.execute_batch(sql)?;
        transaction.execute(
            "INSERT INTO schema_migrations (version, checksum) VALUES (?1, ?2)",
            params![version, checksum(sql)],
        )?;
    }
    transaction.commit()?;
    Ok(())
}

/// What the database says about itself; made now if it was just created.
fn meta(connection: &Connection, options: &DbOptions) -> Result<Meta, OpenError> {
    let kept = || {
        connection
            .query_row("SELECT epoch, hash_key FROM meta", [], |row| {
                Ok(Meta {
                    epoch: Epoch(row.get::<_, i64>(0)?.cast_unsigned()),
                    hash_key: row.get(1)?,
                })
            })
            .optional()
    };
    if let Some(meta) = kept()? {
        return Ok(meta);
    }
    let epoch = options.epoch.unwrap_or_else(random_epoch);
    let hash_key = options.hash_key.unwrap_or_else(random);
    // An epoch is a name, not a number: all 64 bits are kept.
    connection.execute(
        "INSERT INTO meta (one, epoch, hash_key) VALUES (1, ?1, ?2)",
        params![epoch.0.cast_signed(), hash_key],
    )?;
    Ok(Meta { epoch, hash_key })
}

fn random() -> [u8; 32] {
    let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let mut both = [0; 32];
    both[..16].copy_from_slice(a.as_bytes());
    both[16..].copy_from_slice(b.as_bytes());
    *blake3::hash(&both).as_bytes()
}

fn random_epoch() -> Epoch {
    first_epoch(&random())
}

fn first_epoch(bytes: &[u8; 32]) -> Epoch {
    let mut low = [0; 8];
    low.copy_from_slice(&bytes[..8]);
    Epoch(u64::from_le_bytes(low))
}

/// Gives the history another epoch if it still has this one, and tells which it has now. Random,
/// because the same backup may be restored twice; only where the first epoch was given, for a
/// simulation that repeats, it follows from the last one.
pub(super) fn renew_epoch(
    connection: &Connection,
    options: &DbOptions,
    last: Epoch,
) -> Result<Epoch, rusqlite::Error> {
    let next = match options.epoch {
        Some(_) => first_epoch(blake3::hash(&last.0.to_le_bytes()).as_bytes()),
        None => random_epoch(),
    };
    connection
        .prepare_cached("UPDATE meta SET epoch = ?2 WHERE epoch = ?1")?
        .execute([last.0.cast_signed(), next.0.cast_signed()])?;
    connection
        .prepare_cached("SELECT epoch FROM meta")?
        .query_row([], |row| Ok(Epoch(row.get::<_, i64>(0)?.cast_unsigned())))
}

/// Turns a retry's only guard off, where that is the fault to be caught.
fn sabotage(connection: &Connection, sabotage: Sabotaged) -> Result<(), OpenError> {
    if sabotage.is(Sabotage::DuplicateNotDetected) {
        connection.execute_batch(
            "DROP INDEX messages_once;
             CREATE INDEX messages_once ON messages (client_msg_id, sender_id, room_id);",
        )?;
    }
    Ok(())
}
