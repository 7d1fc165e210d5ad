//! The program through a real socket: every test starts the binary on a free port with a folder of
//! its own, talks to it as clients do, and looks only at what a client or an operator can see.
//!
//! Every frame that is sent or received is checked against the AsyncAPI document, unless it is bad
//! on purpose; every client checks that each room's events come once, in order, without a gap; and
//! a test fails on a line of the log that it did not expect.
//!
//! A test waits for a condition, up to a deadline that is long enough for a busy machine.

#![cfg(all(feature = "server", not(feature = "echo")))]

#[path = "../support/keyring.rs"]
mod keyring;
#[path = "../support/line.rs"]
mod line;
#[path = "../support/openapi.rs"]
mod openapi;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/redis.rs"]
mod redis;
#[path = "../support/schema.rs"]
mod schema;
mod support;

mod admin;
mod bad_frames;
mod bad_requests;
mod blocks;
mod bounds;
mod changes;
mod conformance;
mod crash;
mod crowds;
mod database_away;
mod descriptors;
mod drain;
mod erase;
mod export;
mod held_room;
mod history;
mod hooks;
mod http;
mod identity;
mod members;
mod messages;
mod presence;
mod rates;
mod receipts;
mod rest;
mod resume;
mod retention;
mod rooms;
mod search;
mod session;
mod slow;
mod store_full;
mod traffic;
mod typing;
mod upgrade;
mod uploads;
mod webhooks;
