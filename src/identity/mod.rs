//! The seam of identity: who a token names. What every backend answers stands in
//! [`crate::chat::port::Identify`]; here stand the backends and what they share.
//!
//! Invariants: nothing of a token is believed before its signature is right; nothing of a token
//! is ever logged; `Expired` is said only of a token that is valid otherwise.

pub mod claims;
pub mod demo;
pub mod hs256;
pub mod introspection;
pub mod jwks;
pub mod keys;
#[cfg(feature = "server")]
pub mod remote;
pub mod secret_file;
pub mod webhook;

pub use webhook::{WebhookHead, WebhookRefused, WebhookSecrets};

use crate::limits;
use crate::protocol::{UnixMs, UserId};

/// A token of the demo login.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DemoUser {
    /// The token.
    pub token: String,
    /// Whom it names.
    pub user: UserId,
    /// The name as it is shown.
    pub name: String,
}

/// Gives anybody a user. Only development has it.
pub trait DemoLogin: Send + Sync {
    /// A token for this name; the same name is the same user. `None`: nobody can be called this.
    fn login(&self, name: &str, now: UnixMs) -> Option<DemoUser>;
}

/// Whether a user can be called this: it is not blank, not too long, and holds no U+0000, which
/// some stores cannot keep.
pub fn is_name(name: &str) -> bool {
    !name.trim().is_empty()
        && name.chars().count() <= limits::TITLE_CHARS_MAX
        && !name.contains('\0')
}
