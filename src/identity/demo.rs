//! The demo login: anybody becomes the user of the name they give. Development only.

use super::hs256::{Issuer, Signer};
use super::{DemoLogin, DemoUser, is_name};
use crate::protocol::{UnixMs, UserId};
use uuid::Uuid;

/// How long a demo token is valid, ms.
pub const TOKEN_MS: u64 = 24 * 60 * 60 * 1_000;

/// Namespace of the demo's users (UUIDv5, RFC 9562 section 5.5).
const DEMO_NAMESPACE: Uuid = Uuid::from_u128(0x1d0e_7a3c_94b1_4c55_8f2a_6b7e_c0ff_ee01);

/// The user of this name: the same for every spelling that differs in case or outer blanks.
pub fn user_of(name: &str) -> UserId {
    let name = name.trim().to_lowercase();
    UserId(Uuid::new_v5(&DEMO_NAMESPACE, name.as_bytes()))
}

/// Issues demo tokens.
pub struct Demo(Signer);

impl Demo {
    /// Signs with this secret, which must be one that the node's tokens are checked against.
    pub fn new(secret: &[u8], issuer: Issuer) -> Demo {
        Demo(Signer::new(secret, issuer))
    }
}

impl DemoLogin for Demo {
    fn login(&self, name: &str, now: UnixMs) -> Option<DemoUser> {
        let name = name.trim();
        if !is_name(name) {
            return None;
        }
        let user = user_of(name);
        let expires_at = UnixMs(now.0 + TOKEN_MS);
        let token = self.0.sign(user, name, expires_at).ok()?;
        Some(DemoUser {
            token,
            user,
            name: name.to_owned(),
        })
    }
}
