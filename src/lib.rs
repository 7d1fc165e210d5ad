//! The chat service of Caffis: durable, ordered chat over WebSocket, a thread per core.
//!
//! The modules stand in the order of what may import what: each sees only those above it (see
//! `tests/tidy.rs`, which checks it, and docs/ARCHITECTURE.md, which tells why).
//!
//! The first three are pure: no clock, no thread, no socket, no disk. They are built alone by
//! `cargo check --no-default-features`, and clippy's `disallowed_*` lists (clippy.toml) keep
//! clocks, threads and unordered maps out of them.

#![warn(missing_docs)]

#[deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]
pub mod chat;
#[deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]
pub mod limits;
#[deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]
pub mod protocol;

#[cfg(feature = "server")]
pub mod edge;
#[cfg(feature = "server")]
pub mod shard;
#[cfg(feature = "server")]
pub mod sys;

#[cfg(feature = "server")]
pub mod outbound;
#[cfg(feature = "search")]
#[deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]
pub mod search;

#[cfg(feature = "server")]
pub mod blob;
#[cfg(feature = "identity")]
pub mod identity;
#[cfg(feature = "server")]
pub mod relay;
#[cfg(feature = "server")]
pub mod store;

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod doctor;
#[cfg(feature = "server")]
pub mod node;
#[cfg(feature = "server")]
pub mod tasks;
#[cfg(feature = "server")]
pub mod telemetry;
