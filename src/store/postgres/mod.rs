//! The store that outgrows one machine: PostgreSQL, which many nodes may share.
//!
//! - [`PostgresStore`]: one thread of data I/O with all connections of this node: lanes that write,
//!   readers that never wait behind them, and one that makes users known.
//! - A batch is one round trip: a function of the database locks the rooms first and looks afterwards
//!   (`migrations/postgres/0002_commit.sql`).
//!
//! Invariants: a call is answered exactly once, in time, whatever the database does. An outcome is told
//! only after its transaction is committed. The database is the only sequencer: nothing is remembered
//! here that another node may change.
//!
//! In the order in which a call meets them: `threads`, `lanes`, then `commit` and `changes` (writes) or `read`,
//! `history`, `rooms` (reads), on the rows of `row`, over a `session` that `options` and `tls` describe
//! and `schema` keeps at the newest version.

mod admin;
mod blocks;
mod changes;
mod commit;
mod erase;
mod export;
mod history;
mod hooks;
mod index;
mod intake;
mod lanes;
mod options;
mod own;
mod read;
mod retain;
mod rooms;
mod row;
mod schema;
mod search;
mod session;
mod threads;
mod tls;
mod uploads;

pub use options::{OpenError, PostgresOptions};
pub use threads::{PostgresStore, migrate};
