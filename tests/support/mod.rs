//! What several test binaries share.

pub mod form;
pub mod s3;
pub mod schema;
pub mod server;
