//! Loads a Caffis Chat server with thousands of real connections and checks every delivery.
//!
//! From the inside out: [`checker`] is pure and decides what is wrong; [`world`] plays the clients;
//! [`engine`] moves the bytes; [`scenarios`] are what one can run.

pub mod backends;
pub mod checker;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod engine;
pub mod identity;
pub mod ids;
pub mod janitor;
pub mod layout;
pub mod limits;
pub mod measure;
pub mod mix;
pub mod progress;
pub mod proxy;
pub mod random;
pub mod reference;
pub mod report;
pub mod scenarios;
pub mod server;
pub mod stats;
pub mod web;
pub mod websocket;
pub mod wire;
pub mod world;
