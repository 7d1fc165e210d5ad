//! The control plane: everything that is spoken in plain HTTP, on a thread of its own, so that a
//! hundred scrapes cannot slow one message.
//!
//! Invariants: it holds no state of chat; it never waits for a shard, only for the store, and for
//! that not longer than a second; every answer that is an error is problem+json (RFC 9457) with a
//! code of the wire protocol; connections, bodies and times are bounded.
//!
//! Next: [`serve`] takes the connections, [`routes`] tells who answers what.

pub mod admin;
pub mod cors;
pub mod demo;
mod export;
pub mod files;
pub mod health;
mod hook_counts;
pub mod hooks;
pub mod metrics;
pub mod page;
pub mod problem;
pub mod rejoin;
pub mod request_id;
pub mod requests;
pub mod routes;
pub mod serve;
pub mod shard_client;
pub mod store_client;
pub mod tokens;
pub mod transfers;
pub mod upkeep;
pub mod upload_counts;
pub mod uploads;
pub mod webhooks;

use crate::blob::Blob;
use crate::blob::local::Folder;
use crate::chat::port::{Asked, Identify, ServiceAsked, Store};
use crate::chat::stats::Stats;
use crate::identity::DemoLogin;
use crate::protocol::network::Network;
use hooks::HookParts;
use rejoin::Rejoin;
use std::sync::Arc;
use tokens::Tokens;
use tokio::sync::Notify;
use upkeep::UpkeepParts;
use webhooks::WebhookParts;

/// What the control plane needs of the node.
#[derive(Clone)]
pub struct Parts {
    /// The node itself.
    pub node: Arc<dyn NodeView>,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Present only in development.
    pub demo: Option<Arc<dyn DemoLogin>>,
    /// Takes the connections that become WebSockets after all.
    pub rejoin: Arc<Rejoin>,
    /// Takes the requests of clients without a socket.
    pub asks: Arc<Asks>,
    /// Who checks tokens.
    pub identify: Arc<dyn Identify>,
    /// The origin of the Main App, where the page gets its tokens.
    pub main_app_url: Option<String>,
    /// Whose pages may read the answers.
    pub origins: Arc<Origins>,
    /// For those who run the service, if there are tokens.
    pub admin: Option<AdminParts>,
    /// What goes on beside the requests; `None`: nothing does.
    pub upkeep: Option<UpkeepParts>,
    /// For other services.
    pub webhooks: WebhookParts,
    /// For files.
    pub files: FileParts,
    /// Who is told by us; `None`: nobody.
    pub hooks: Option<HookParts>,
}

/// What the control plane needs of the place where files are kept.
#[derive(Clone)]
pub struct FileParts {
    /// The place.
    pub blob: Blob,
    /// The folder, if it is one of this node, which is served here.
    pub folder: Option<Arc<Folder>>,
    /// Origins, beside this server's own, where pages upload to and fetch from.
    pub origins: Vec<String>,
    /// What is counted of uploads.
    pub counts: Arc<upload_counts::UploadCounts>,
}

/// What the Admin API needs of the node.
#[derive(Clone)]
pub struct AdminParts {
    /// Who may ask.
    pub tokens: Tokens,
    /// Wrong tokens that one address may give in a minute.
    pub failures_per_min: u32,
    /// Proxies of ours.
    pub trusted: Vec<Network>,
    /// The shards.
    pub shards: u16,
    /// Asks one of them.
    pub serves: Arc<Serves>,
    /// Told that an erasure is to be done.
    pub erasures: Arc<Notify>,
    /// For how many days rooms keep messages that have no age of their own; 0: for ever.
    pub retention_days: u32,
    /// Begins to drain; over how many ms. Must not block.
    pub drain: Arc<Drains>,
}

/// Gives a shard what the service wants of it; whether there is such a shard, and it had room. Must not block.
pub type Serves = dyn Fn(u16, ServiceAsked) -> bool + Send + Sync;

/// Begins to drain; over how many ms.
pub type Drains = dyn Fn() -> u64 + Send + Sync;

/// Whether pages of this origin (in lower case) may speak to a server that was called by this `Host`.
pub type Origins = dyn Fn(&str, Option<&str>) -> bool + Send + Sync;

/// Gives a request to the shard that its user belongs to; whether that had room for it. Must not block.
pub type Asks = dyn Fn(Asked) -> bool + Send + Sync;

/// What the control plane sees of the node. Asked for every scrape and every probe, so it must
/// not block.
pub trait NodeView: Send + Sync {
    /// Its name.
    fn name(&self) -> &str;
    /// Whether it takes connections.
    fn phase(&self) -> Phase;
    /// What each shard counts, in their order; not older than a few seconds.
    fn shards(&self) -> Vec<ShardView>;
    /// What was logged.
    fn log_counts(&self) -> LogView;
}

/// Where a node is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Not all shards are up.
    Starting,
    /// Taking connections.
    Up,
    /// Asking its clients to leave.
    Draining,
}

/// What one shard counts.
#[derive(Clone, Debug, Default)]
pub struct ShardView {
    /// What its core counts.
    pub chat: Stats,
    /// What its driver counts and what only rises: name, help, value.
    pub counters: Vec<(&'static str, &'static str, u64)>,
    /// What its driver counts and what rises and falls: name, help, value.
    pub gauges: Vec<(&'static str, &'static str, u64)>,
}

/// What was logged since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogView {
    /// Warnings.
    pub warnings: u64,
    /// Errors.
    pub errors: u64,
    /// Lines that found no room.
    pub lost: u64,
}
