//! The embedded store: SQLite in one file, written by one thread.
//!
//! - [`Db`]: the rules, synchronous, without a clock or a thread, so that the simulator drives the
//!   very same code on a database in memory.
//! - [`SqliteStore`]: the threads around it: one writer that commits what all callers gave it
//!   together, and readers with connections of their own.
//!
//! Invariants: nothing but [`Db`] writes to the file, and a lock on the data folder keeps other
//! processes away from it. A call is answered exactly once. An outcome is told only after its
//! transaction is on disk.
//!
//! In the order in which a call meets them: `threads`, `db`, then `write`, `members` and `messages` (writes) or
//! `read`, `history`, `rooms` (reads), on the rows of `row` and the tables of `schema`.

mod admin;
mod backup;
mod blocks;
mod db;
mod erase;
mod export;
mod history;
mod hooks;
mod intake;
mod marks;
mod members;
mod messages;
mod options;
mod own;
mod read;
mod retain;
mod rooms;
mod row;
mod schema;
mod search;
mod search_index;
mod threads;
mod uploads;
mod write;

pub use backup::{backup, restore};
pub use db::Db;
pub use options::{DbOptions, OpenError, SqliteOptions};
pub use threads::SqliteStore;
