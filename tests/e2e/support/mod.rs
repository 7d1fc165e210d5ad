//! What the tests share: the program as a process, sockets, clients, and ways to wait.

pub mod client;
pub mod follower;
pub mod main_app;
pub mod metrics;
pub mod pair;
pub mod receiver;
pub mod rest;
pub mod server;
pub mod socket;
pub mod token;
pub mod wait;
pub mod webhooks;

pub use client::Client;
pub use server::Server;
pub use token::User;
