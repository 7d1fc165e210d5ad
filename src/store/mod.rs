//! The durable truth: backends of [`crate::chat::port::Store`], one folder each.
//!
//! The vocabulary and its rules belong to [`crate::chat::port`]; `tests/contract.rs` states them as
//! tests and runs them against every backend.

// A backend has threads, clocks and files; only the pure part must not.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::disallowed_macros
)]

mod admin;
mod blocks;
mod changes;
mod common;
mod erase;
mod export;
mod files;
pub mod postgres;
pub mod sqlite;
