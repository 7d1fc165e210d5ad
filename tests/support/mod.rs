//! What several test binaries share.

pub mod schema;
pub mod server;
