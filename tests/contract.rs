//! What every store must do, in the words of [`caffis_chat::chat::port`] alone, run against each
//! backend. What only one backend promises (its files, its failures) stands in a file of its own.

// Tests have threads, clocks and files; only the pure part must not.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]

#[path = "contract/admin.rs"]
mod admin;
#[path = "contract/blocks.rs"]
mod blocks;
#[path = "contract/changes.rs"]
mod changes;
#[path = "contract/concurrent.rs"]
mod concurrent;
#[path = "contract/erase.rs"]
mod erase;
#[path = "contract/export.rs"]
mod export;
#[path = "contract/harness.rs"]
mod harness;
#[path = "contract/hooks.rs"]
mod hooks;
#[path = "contract/intake.rs"]
mod intake;
#[path = "contract/matrix.rs"]
mod matrix;
#[path = "contract/model.rs"]
mod model;
#[path = "contract/postgres.rs"]
mod postgres;
#[path = "support/postgres.rs"]
mod postgres_server;
#[path = "contract/random.rs"]
mod random;
#[path = "contract/reads.rs"]
mod reads;
#[path = "contract/receipts.rs"]
mod receipts;
#[path = "contract/retention.rs"]
mod retention;
#[path = "contract/rooms.rs"]
mod rooms;
#[path = "contract/search.rs"]
mod search;
#[path = "contract/sends.rs"]
mod sends;
#[path = "contract/sqlite.rs"]
mod sqlite;
#[path = "contract/uploads.rs"]
mod uploads;
