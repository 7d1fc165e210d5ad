//! Either kind of database behind one enum: a SQLite file by default, PostgreSQL by its URL.
//!
//! The same SQL runs on both. Its placeholders are `$1`, `$2`, …; ids are TEXT, times BIGINT (ms since 1970),
//! which both have. What differs stands in the two folders of migrations, and in [`Tx::skip_locked`].
//!
//! Invariant: everything happens in a transaction, and one that is not committed never happened, also
//! when its future is dropped half-way.

use bytes::BytesMut;
use rusqlite::Connection;
use std::path::Path;
use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, NoTls};

/// Connections to PostgreSQL at most.
const CONNECTIONS_MAX: usize = 8;
/// How long a statement, or another process's write to the SQLite file, is waited for.
const WAIT: Duration = Duration::from_secs(5);
/// Any number of our own: processes that migrate one database at once do so one after the other.
const MIGRATION_LOCK: i64 = 0x0063_6166_6669_7331;

/// Why something did not happen. The text is for the log, not for a user.
#[derive(Debug)]
pub struct DbError(String);

impl std::fmt::Display for DbError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for DbError {}

impl From<rusqlite::Error> for DbError {
    fn from(error: rusqlite::Error) -> DbError {
        DbError(format!("SQLite: {error}"))
    }
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> DbError {
        let told = error.as_db_error().map(ToString::to_string);
        DbError(format!(
            "PostgreSQL: {}",
            told.unwrap_or_else(|| error.to_string())
        ))
    }
}

/// A parameter or a column.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    Null,
    Int(i64),
    Real(f64),
    Text(String),
}

macro_rules! value_from {
    ($($from:ty => $make:expr),* $(,)?) => {
        $(impl From<$from> for Value { fn from(one: $from) -> Value { $make(one) } })*
    };
}
value_from! {
    i64 => Value::Int,
    f64 => Value::Real,
    String => Value::Text,
    &str => |one: &str| Value::Text(one.to_owned()),
    &String => |one: &String| Value::Text(one.clone()),
    Option<String> => |one: Option<String>| one.map_or(Value::Null, Value::Text),
    Option<&str> => |one: Option<&str>| one.map_or(Value::Null, Value::from),
}

/// Parameters of a statement.
#[macro_export]
macro_rules! params {
    ($($one:expr),* $(,)?) => { &[$($crate::db::Value::from($one)),*] };
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Value::Null => Ok(rusqlite::types::Null.into()),
            Value::Int(one) => rusqlite::ToSql::to_sql(one),
            Value::Real(one) => rusqlite::ToSql::to_sql(one),
            Value::Text(one) => rusqlite::ToSql::to_sql(one),
        }
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(one) => ToSql::to_sql(one, kind, out),
            Value::Real(one) => ToSql::to_sql(one, kind, out),
            Value::Text(one) => ToSql::to_sql(one, kind, out),
        }
    }
    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::FLOAT8, Type::TEXT].contains(kind)
    }
    to_sql_checked!();
}

/// A row of what was asked for.
#[derive(Debug)]
pub struct Row(Vec<Value>);

impl Row {
    fn at<T>(&self, column: usize, take: impl Fn(&Value) -> Option<T>) -> Result<T, DbError> {
        let found = self.0.get(column).and_then(take);
        found.ok_or_else(|| DbError(format!("column {column} is not as expected")))
    }
    /// A text that is there.
    pub fn text(&self, column: usize) -> Result<String, DbError> {
        self.at(column, |value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
    }
    /// A text or NULL.
    pub fn opt_text(&self, column: usize) -> Result<Option<String>, DbError> {
        self.at(column, |value| match value {
            Value::Text(text) => Some(Some(text.clone())),
            Value::Null => Some(None),
            _ => None,
        })
    }
    /// An integer that is there.
    pub fn int(&self, column: usize) -> Result<i64, DbError> {
        self.at(column, |value| match value {
            Value::Int(int) => Some(*int),
            _ => None,
        })
    }
    /// An integer or NULL.
    pub fn opt_int(&self, column: usize) -> Result<Option<i64>, DbError> {
        self.at(column, |value| match value {
            Value::Int(int) => Some(Some(*int)),
            Value::Null => Some(None),
            _ => None,
        })
    }
    /// A real number that is there.
    pub fn real(&self, column: usize) -> Result<f64, DbError> {
        self.at(column, |value| match value {
            Value::Real(real) => Some(*real),
            _ => None,
        })
    }
}

/// One step of a schema, in both dialects.
pub struct Migration {
    pub sqlite: &'static str,
    pub postgres: &'static str,
}

/// A database. A copy of the handle is the same database.
#[derive(Clone)]
pub enum Db {
    /// One connection, so one writer.
    Sqlite(Arc<Mutex<Connection>>),
    Postgres(Arc<Pool>),
}

/// Connections that nobody uses now.
pub struct Pool {
    config: tokio_postgres::Config,
    idle: StdMutex<Vec<Client>>,
    permits: Arc<Semaphore>,
}

/// A transaction. Dropped, it never happened.
pub enum Tx {
    Sqlite(Option<OwnedMutexGuard<Connection>>),
    /// Handed back to the pool by a commit only; else it is closed, which rolls back.
    Postgres(Client, Arc<Pool>, OwnedSemaphorePermit),
}

impl Db {
    /// `postgres://…`, or `sqlite:FILE`, or the name of a file.
    ///
    /// # Errors
    /// It cannot be opened, or a migration fails.
    pub async fn open(url: &str, migrations: &[Migration]) -> Result<Db, DbError> {
        let db = if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let mut config: tokio_postgres::Config = url.parse()?;
            config.connect_timeout(WAIT);
            Db::Postgres(Arc::new(Pool {
                config,
                idle: StdMutex::default(),
                permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            }))
        } else {
            let connection =
                Connection::open(Path::new(url.strip_prefix("sqlite:").unwrap_or(url)))?;
            connection.busy_timeout(WAIT)?;
            // FULL: what is committed survives a power cut, too.
            connection.execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
            )?;
            Db::Sqlite(Arc::new(Mutex::new(connection)))
        };
        db.migrate(migrations).await?;
        Ok(db)
    }

    async fn migrate(&self, migrations: &[Migration]) -> Result<(), DbError> {
        let mut tx = self.begin().await?;
        if let Db::Postgres(_) = self {
            tx.query(
                "SELECT 1 FROM pg_advisory_xact_lock($1)",
                params![MIGRATION_LOCK],
            )
            .await?;
        }
        tx.batch("CREATE TABLE IF NOT EXISTS schema_migrations (version BIGINT PRIMARY KEY)")
            .await?;
        for (version, migration) in (1i64..).zip(migrations) {
            let known = "SELECT version FROM schema_migrations WHERE version = $1";
            if !tx.query(known, params![version]).await?.is_empty() {
                continue;
            }
            tx.batch(match self {
                Db::Sqlite(_) => migration.sqlite,
                Db::Postgres(_) => migration.postgres,
            })
            .await?;
            let applied = "INSERT INTO schema_migrations (version) VALUES ($1)";
            tx.query(applied, params![version]).await?;
        }
        tx.commit().await
    }

    /// Begins a transaction. On SQLite it is the only one.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        match self {
            Db::Sqlite(connection) => {
                let mut tx = Tx::Sqlite(Some(connection.clone().lock_owned().await));
                tx.blocking(|connection| {
                    // Of a transaction that was dropped half-way.
                    if !connection.is_autocommit() {
                        connection.execute_batch("ROLLBACK")?;
                    }
                    connection.execute_batch("BEGIN IMMEDIATE")
                })
                .await?;
                Ok(tx)
            }
            Db::Postgres(pool) => {
                let permit = pool.permits.clone().acquire_owned().await;
                let permit = permit.map_err(|_| DbError("the pool is closed".to_owned()))?;
                let client = pool.connection().await?;
                client.batch_execute("BEGIN").await?;
                Ok(Tx::Postgres(client, pool.clone(), permit))
            }
        }
    }

    /// One statement as a transaction.
    pub async fn query(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>, DbError> {
        let mut tx = self.begin().await?;
        let rows = tx.query(sql, params).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

impl Pool {
    async fn connection(&self) -> Result<Client, DbError> {
        let idle = self.idle.lock().map_or(None, |mut idle| {
            idle.retain(|client| !client.is_closed());
            idle.pop()
        });
        if let Some(client) = idle {
            return Ok(client);
        }
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(%error, "a connection to the database is lost");
            }
        });
        let timeout = format!("SET statement_timeout = {}", WAIT.as_millis());
        client.batch_execute(&timeout).await?;
        Ok(client)
    }
}

impl Tx {
    /// Runs a statement and gives its rows.
    pub async fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, DbError> {
        match self {
            Tx::Sqlite(_) => {
                // A number after `?` is what `$` with a number is elsewhere.
                let (sql, params) = (sql.replace('$', "?"), params.to_vec());
                self.blocking(move |connection| sqlite_rows(connection, &sql, &params))
                    .await
            }
            Tx::Postgres(client, ..) => {
                let params: Vec<&(dyn ToSql + Sync)> = params
                    .iter()
                    .map(|one| one as &(dyn ToSql + Sync))
                    .collect();
                let rows = client.query(sql, &params).await?;
                rows.iter().map(postgres_row).collect()
            }
        }
    }

    /// Runs statements without parameters.
    async fn batch(&mut self, sql: &'static str) -> Result<(), DbError> {
        match self {
            Tx::Sqlite(_) => {
                self.blocking(|connection| connection.execute_batch(sql))
                    .await
            }
            Tx::Postgres(client, ..) => Ok(client.batch_execute(sql).await?),
        }
    }

    /// What to add to a `SELECT` so that workers take different rows: SQLite has one writer anyway.
    pub fn skip_locked(&self) -> &'static str {
        match self {
            Tx::Sqlite(_) => "",
            Tx::Postgres(..) => "FOR UPDATE SKIP LOCKED",
        }
    }

    /// From here on it has happened. An error says nothing about the outcome.
    pub async fn commit(mut self) -> Result<(), DbError> {
        if let Tx::Sqlite(_) = self {
            return self
                .blocking(|connection| connection.execute_batch("COMMIT"))
                .await;
        }
        if let Tx::Postgres(client, pool, _permit) = self {
            client.batch_execute("COMMIT").await?;
            if let Ok(mut idle) = pool.idle.lock() {
                idle.push(client);
            }
        }
        Ok(())
    }

    /// Does what waits for the disk on a thread that may wait.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DbError> {
        let Tx::Sqlite(held) = self else {
            return Err(DbError("not SQLite".to_owned()));
        };
        let connection = held.take();
        let connection = connection.ok_or_else(|| DbError("the transaction is over".to_owned()))?;
        let work = tokio::task::spawn_blocking(move || {
            let result = work(&connection);
            (connection, result)
        });
        let (connection, result) = work.await.map_err(|error| DbError(error.to_string()))?;
        *held = Some(connection);
        Ok(result?)
    }
}

fn sqlite_rows(connection: &Connection, sql: &str, params: &[Value]) -> rusqlite::Result<Vec<Row>> {
    use rusqlite::types::ValueRef;
    let mut statement = connection.prepare_cached(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query(rusqlite::params_from_iter(params))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values = (0..columns).map(|column| {
            Ok(match row.get_ref(column)? {
                ValueRef::Integer(int) => Value::Int(int),
                ValueRef::Real(real) => Value::Real(real),
                ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Null | ValueRef::Blob(_) => Value::Null,
            })
        });
        found.push(Row(values.collect::<rusqlite::Result<_>>()?));
    }
    Ok(found)
}

fn postgres_row(row: &tokio_postgres::Row) -> Result<Row, DbError> {
    let value = |(index, column): (usize, &tokio_postgres::Column)| {
        Ok(match *column.type_() {
            Type::INT8 => row
                .try_get::<_, Option<i64>>(index)?
                .map_or(Value::Null, Value::Int),
            Type::INT4 => row
                .try_get::<_, Option<i32>>(index)?
                .map_or(Value::Null, |int| Value::Int(int.into())),
            Type::FLOAT8 => row
                .try_get::<_, Option<f64>>(index)?
                .map_or(Value::Null, Value::Real),
            _ => row
                .try_get::<_, Option<String>>(index)?
                .map_or(Value::Null, Value::Text),
        })
    };
    Ok(Row(row
        .columns()
        .iter()
        .enumerate()
        .map(value)
        .collect::<Result<_, DbError>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: [Migration; 1] = [Migration {
        sqlite: "CREATE TABLE t (id TEXT PRIMARY KEY, n BIGINT NOT NULL, x DOUBLE PRECISION)",
        postgres: "",
    }];

    #[tokio::test]
    async fn what_is_not_committed_never_happened() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("test.db");
        let url = format!("sqlite:{}", file.display());
        let db = Db::open(&url, &SCHEMA).await.expect("opened");
        let add = "INSERT INTO t (id, n, x) VALUES ($1, $2, $3)";
        let mut tx = db.begin().await.expect("begun");
        tx.query(add, params!["dropped", 1, 0.5])
            .await
            .expect("added");
        drop(tx);
        let mut tx = db.begin().await.expect("begun after one that was dropped");
        tx.query(add, params!["kept", 2, 1.5]).await.expect("added");
        tx.commit().await.expect("committed");
        drop(db);
        // Opened again, and migrated once only.
        let db = Db::open(&url, &SCHEMA).await.expect("opened again");
        let rows = db
            .query("SELECT id, n, x FROM t", params![])
            .await
            .expect("read");
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].text(0).expect("text"), "kept");
        assert_eq!(rows[0].int(1).expect("int"), 2);
        assert!((rows[0].real(2).expect("real") - 1.5).abs() < f64::EPSILON);
        assert!(rows[0].int(0).is_err(), "of another type");
        assert!(rows[0].text(9).is_err(), "not there");
    }
}
