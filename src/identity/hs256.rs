//! Tokens signed with a shared secret: JWS compact serialisation with HS256 and nothing else
//! (RFC 7515, RFC 7519, and the advice of RFC 8725).
//!
//! Invariants: one algorithm per key, named by us and never by the token; a header that asks for
//! anything we do not do is refused, not ignored; the clock is told, never read.

use super::claims::{Claims, is_plain, validation};
use crate::chat::port::{Decided, Identify, Identity, IdentityError};
use crate::limits;
use crate::protocol::{UnixMs, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;

pub use super::claims::Issuer;

/// Checks tokens against one or more shared secrets.
#[derive(Debug)]
pub struct Hs256 {
    keys: Vec<DecodingKey>,
    issuer: Issuer,
    validation: Validation,
}

impl Hs256 {
    /// Takes the secrets that are valid now; several of them while they are rotated.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>, issuer: Issuer) -> Hs256 {
        let keys: Vec<_> = secrets.into_iter().map(DecodingKey::from_secret).collect();
        assert!(!keys.is_empty(), "without a secret no token can be checked");
        Hs256 {
            keys,
            issuer,
            validation: validation(Algorithm::HS256),
        }
    }

    /// Checks a token at this time.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] or [`IdentityError::Expired`].
    pub fn check(&self, token: &str, now: UnixMs) -> Result<Identity, IdentityError> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(IdentityError::Invalid);
        }
        let claims = self.signed(token).ok_or(IdentityError::Invalid)?;
        claims.identity(&self.issuer, now)
    }

    /// The claims of a token that one of our secrets signed.
    fn signed(&self, token: &str) -> Option<Claims> {
        // `kid` is ignored: it is the sender's word, and there are at most a few secrets.
        let data = self
            .keys
            .iter()
            .find_map(|key| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok())?;
        is_plain(&data.header, Algorithm::HS256).then_some(data.claims)
    }
}

impl Identify for Hs256 {
    fn identify(
        &self,
        token: &str,
        now: UnixMs,
        _later: &mut dyn FnMut() -> Decided,
    ) -> Option<Result<Identity, IdentityError>> {
        Some(self.check(token, now))
    }
}

#[derive(Serialize)]
struct Issued<'a> {
    sub: String,
    exp: u64,
    iss: &'a str,
    aud: &'a str,
    name: &'a str,
}

/// Signs tokens with a shared secret.
pub struct Signer {
    key: EncodingKey,
    issuer: Issuer,
}

impl Signer {
    /// Signs with this secret.
    pub fn new(secret: &[u8], issuer: Issuer) -> Signer {
        Signer {
            key: EncodingKey::from_secret(secret),
            issuer,
        }
    }

    /// A token for this user, valid until `expires_at` (rounded down to seconds).
    ///
    /// # Errors
    /// The library cannot sign: never with HS256 and claims that are strings and integers.
    pub fn sign(
        &self,
        user: UserId,
        name: &str,
        expires_at: UnixMs,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Issued {
            sub: user.to_string(),
            exp: expires_at.0 / 1_000,
            iss: &self.issuer.issuer,
            aud: &self.issuer.audience,
            name,
        };
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.key)
    }
}
