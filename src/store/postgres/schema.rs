//! Brings a database to the newest schema, and reads what it says about itself.
//!
//! Invariants: all migrations that are missing are applied in one transaction, under a lock, so that
//! nodes may start together; a migration never changes once it was applied somewhere (its checksum is
//! kept). A database that is refused is left as it was. Migrations expand: a program of the version before
//! works on the newer schema, and may start on it, so that nodes are replaced one after the other and the
//! new version can be taken back ([`NEEDS`]).

use super::options::OpenError;
use crate::protocol::Epoch;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Transaction};

/// Migrations, by version, from 1 without a gap.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/postgres/0001_core.sql"),
    include_str!("../../../migrations/postgres/0002_commit.sql"),
    include_str!("../../../migrations/postgres/0003_changes.sql"),
    include_str!("../../../migrations/postgres/0004_own_state.sql"),
    include_str!("../../../migrations/postgres/0005_blocks.sql"),
    include_str!("../../../migrations/postgres/0006_search.sql"),
    include_str!("../../../migrations/postgres/0007_admin.sql"),
    include_str!("../../../migrations/postgres/0008_erase.sql"),
    include_str!("../../../migrations/postgres/0009_webhooks.sql"),
    include_str!("../../../migrations/postgres/0010_held.sql"),
    include_str!("../../../migrations/postgres/0011_uploads.sql"),
    include_str!("../../../migrations/postgres/0012_hooks.sql"),
    include_str!("../../../migrations/postgres/0013_retention.sql"),
    include_str!("../../../migrations/postgres/0014_severed_marks.sql"),
    include_str!("../../../migrations/postgres/0015_room_pictures.sql"),
];

/// The least version that a program must know to work on a database that has all of [`MIGRATIONS`]. Raised
/// only by a migration that contracts (takes away what an older program uses), one release after the
/// program that no longer uses it.
const NEEDS: i64 = 3;

/// Key of the advisory lock under which migrations run: "CafCmigr".
const MIGRATION_LOCK: i64 = 0x4361_6643_6d69_6772;

/// Longest wait for the tables' locks, ms. Below PostgreSQL's `deadlock_timeout` of a second: where a
/// migration and the statements of other nodes wait for each other, it is the migration that gives way.
const TABLES_LOCK_MS_MAX: u64 = 400;
/// Longest time of trying again.
const MIGRATE_MAX: Duration = Duration::from_secs(120);

/// Applies what was not applied yet, or refuses. Nodes of the version before may be at work meanwhile.
pub(super) async fn migrate(client: &mut Client) -> Result<(), OpenError> {
    let begun = Instant::now();
    loop {
        match try_migrate(client).await {
            Err(Tried::TablesBusy) if begun.elapsed() < MIGRATE_MAX => {
                // Others go on meanwhile, and not all nodes that start come back at once.
                let random = u64::from(uuid::Uuid::new_v4().as_bytes()[0]);
                tokio::time::sleep(Duration::from_millis(100 + random)).await;
            }
            Err(Tried::TablesBusy) => {
                let text = "the tables are never free for the migration".to_owned();
                return Err(OpenError::Failed(text));
            }
            Err(Tried::Failed(error)) => return Err(error),
            Ok(()) => return Ok(()),
        }
    }
}

/// Why a try brought nothing.
enum Tried {
    /// Somebody works with the tables.
    TablesBusy,
    Failed(OpenError),
}

impl From<OpenError> for Tried {
    fn from(error: OpenError) -> Tried {
        Tried::Failed(error)
    }
}

/// Locks all tables for what changes them, `chat_rooms` first as every batch does, so that nothing waits in
/// the middle of a migration.
async fn lock_tables(transaction: &Transaction<'_>) -> Result<(), Tried> {
    let failed = |error: Error| OpenError::Failed(super::row::told(&error));
    let rows = transaction
        .query(
            "SELECT format('%I', c.relname) FROM pg_class c
             WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
                 AND NOT c.relispartition AND pg_has_role(c.relowner, 'USAGE')
             ORDER BY c.relname <> 'chat_rooms', c.relname",
            &[],
        )
        .await
        .map_err(failed)?;
    let tables: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let locked = transaction
        .batch_execute(&format!(
            "SET LOCAL lock_timeout = {TABLES_LOCK_MS_MAX};
             LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
            tables.join(", ")
        ))
        .await;
    locked.map_err(|error| match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE | &SqlState::T_R_DEADLOCK_DETECTED) => Tried::TablesBusy,
        _ => failed(error).into(),
    })
}

async fn try_migrate(client: &mut Client) -> Result<(), Tried> {
    let failed = |error: Error| OpenError::Failed(super::row::told(&error));
    let transaction = client.transaction().await.map_err(failed)?;
    // Another node may be at it: as long as that takes, within reason.
    transaction
        .batch_execute("SET LOCAL statement_timeout = '120s'; SET LOCAL lock_timeout = '120s'")
        .await
        .map_err(failed)?;
    transaction
        .execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK])
        .await
        .map_err(failed)?;
    let is_new: bool = transaction
        .query_one("SELECT to_regclass('schema_migrations') IS NULL", &[])
        .await
        .map_err(failed)?
        .get(0);
    let mut applied = 0;
    if !is_new {
        let needs = if has_needs(&transaction).await.map_err(failed)? {
            "needs"
        } else {
            "version"
        };
        let rows = transaction
            .query(
                &format!(
                    "SELECT version, checksum, {needs} FROM schema_migrations ORDER BY version"
                ),
                &[],
            )
            .await
            .map_err(failed)?;
        let known = MIGRATIONS.len() as i64;
        let found = rows.last().map_or(0, |row| row.get::<_, i64>(0));
        if rows.iter().any(|row| row.get::<_, i64>(2) > known) {
            return Err(OpenError::Newer { found, known }.into());
        }
        if found > known {
            tracing::warn!(
                found,
                known,
                "the database has a newer schema, which this version works on too"
            );
        }
        for (row, sql) in rows.iter().zip(MIGRATIONS) {
            if row.get::<_, &[u8]>(1) != checksum(sql) {
                return Err(OpenError::MigrationDiffers(row.get(0)).into());
            }
        }
        applied = rows.len();
    }
    if applied < MIGRATIONS.len() {
        if applied > 0 {
            lock_tables(&transaction).await?;
        }
        transaction
            .batch_execute(
                "CREATE TABLE IF NOT EXISTS schema_migrations (
                     version bigint PRIMARY KEY, checksum bytea NOT NULL);
                 -- The least version that a program must know once this one is applied.
                 ALTER TABLE schema_migrations ADD COLUMN IF NOT EXISTS needs bigint;
                 UPDATE schema_migrations SET needs = version WHERE needs IS NULL;
                 ALTER TABLE schema_migrations ALTER COLUMN needs SET NOT NULL",
            )
            .await
            .map_err(failed)?;
        for (version, sql) in (1i64..).zip(MIGRATIONS).skip(applied) {
            transaction.batch_execute(sql).await.map_err(failed)?;
            transaction
                .execute(
                    "INSERT INTO schema_migrations (version, checksum, needs) VALUES ($1, $2, $3)",
                    &[&version, &checksum(sql).as_slice(), &version.min(NEEDS)],
                )
                .await
                .map_err(failed)?;
            tracing::info!(version, "migration applied");
        }
    }
    let (epoch, hash_key) = (random_epoch(), random());
    transaction
        .execute(
            "INSERT INTO meta (one, epoch, hash_key) VALUES (1, $1, $2) ON CONFLICT DO NOTHING",
            &[&epoch, &hash_key.as_slice()],
        )
        .await
        .map_err(failed)?;
    transaction.commit().await.map_err(failed)?;
    Ok(())
}

/// Databases of the first versions say nothing of it.
async fn has_needs(transaction: &Transaction<'_>) -> Result<bool, Error> {
    let row = transaction
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_attribute
                 WHERE attrelid = 'schema_migrations'::regclass AND attname = 'needs'
                     AND NOT attisdropped)",
            &[],
        )
        .await?;
    Ok(row.get(0))
}

fn checksum(sql: &str) -> [u8; 32] {
    *blake3::hash(sql.as_bytes()).as_bytes()
}

fn random() -> [u8; 32] {
    let (a, b) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let mut both = [0; 32];
    both[..16].copy_from_slice(a.as_bytes());
    both[16..].copy_from_slice(b.as_bytes());
    *blake3::hash(&both).as_bytes()
}

/// 64 random bits, as the database keeps them.
pub(super) fn random_epoch() -> i64 {
    let mut low = [0; 8];
    low.copy_from_slice(&random()[..8]);
    i64::from_le_bytes(low)
}

/// Which server this is, and which of its histories: another one after a promotion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ServerIdentity {
    system: i64,
    timeline: i64,
}

impl ServerIdentity {
    /// The epoch of a database of this server whose `meta` holds this one.
    pub fn epoch(self, kept: i64) -> Epoch {
        let mut hash = blake3::Hasher::new();
        for number in [kept, self.system, self.timeline] {
            hash.update(&number.to_le_bytes());
        }
        let mut low = [0; 8];
        low.copy_from_slice(&hash.finalize().as_bytes()[..8]);
        Epoch(u64::from_le_bytes(low))
    }
}

/// What a server says about itself and the database.
pub(super) struct About {
    pub server: ServerIdentity,
    pub epoch_kept: i64,
    pub hash_key: [u8; 32],
    /// The setting with which it may forget what it committed.
    pub weakness: Option<String>,
}

/// Asks a server about itself. A replica is refused: it can neither write nor say how far it is behind.
pub(super) async fn about(client: &Client) -> Result<About, String> {
    let told = |error: Error| super::row::told(&error);
    let row = client
        .query_one(
            "SELECT pg_is_in_recovery(), current_setting('fsync'),
                 current_setting('full_page_writes'), current_setting('synchronous_commit')",
            &[],
        )
        .await
        .map_err(told)?;
    if row.get(0) {
        return Err("the server is a replica".to_owned());
    }
    let weakness = ["fsync", "full_page_writes", "synchronous_commit"]
        .into_iter()
        .zip(1..)
        // Every other value of the third one at least waits for this server's own disk.
        .find(|(_, column)| row.get::<_, &str>(*column) == "off")
        .map(|(setting, _)| format!("{setting}=off"));
    // The timeline of what is written now; that of the control file is as old as the last checkpoint.
    let identity = client
        .query_one(
            "SELECT (SELECT system_identifier FROM pg_control_system()),
                 ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint",
            &[],
        )
        .await;
    let server = match identity {
        Ok(row) => ServerIdentity {
            system: row.get(0),
            timeline: row.get(1),
        },
        Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            tracing::warn!("the server does not tell who it is: a promotion will go unnoticed");
            ServerIdentity {
                system: 0,
                timeline: 0,
            }
        }
        Err(error) => return Err(told(error)),
    };
    let meta = client
        .query_one("SELECT epoch, hash_key FROM meta", &[])
        .await
        .map_err(told)?;
    let hash_key = <[u8; 32]>::try_from(meta.get::<_, &[u8]>(1))
        .map_err(|_| "meta.hash_key is not 32 bytes long".to_owned())?;
    Ok(About {
        server,
        epoch_kept: meta.get(0),
        hash_key,
        weakness,
    })
}
