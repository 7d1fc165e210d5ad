//! Tokens signed with a shared secret: JWS compact serialisation with HS256 and nothing else
//! (RFC 7515, RFC 7519, and the advice of RFC 8725).
//!
//! Invariants: one algorithm per key, named by us and never by the token; a header that asks for
//! anything we do not do is refused, not ignored; the clock is told, never read.

use super::is_name;
use crate::chat::port::{Identify, Identity, IdentityError};
use crate::limits;
use crate::protocol::{UnixMs, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Latest `exp` and `nbf`, s: the end of the year 9999, which is as far as RFC 3339 goes.
const TIME_MAX_S: u64 = 253_402_300_799;
/// Longest `picture`, bytes.
const PICTURE_BYTES_MAX: usize = 2_048;

/// Who issues our tokens, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issuer {
    /// `iss`.
    pub issuer: String,
    /// `aud`, or one of it.
    pub audience: String,
}

/// Checks tokens against one or more shared secrets.
#[derive(Debug)]
pub struct Hs256 {
    keys: Vec<DecodingKey>,
    issuer: Issuer,
    validation: Validation,
}

/// The claims that mean something here. Unknown ones are ignored (RFC 7519, section 4); ones of
/// another type, and ones that are given twice, are refused by their types.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    nbf: Option<u64>,
    iss: String,
    aud: Audience,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    picture: Option<String>,
    /// The session at the issuer; read for its type only, until sessions can be revoked.
    #[serde(default)]
    #[allow(dead_code, reason = "refuses a `sid` that is no string")]
    sid: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Hs256 {
    /// Takes the secrets that are valid now; several of them while they are rotated.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>, issuer: Issuer) -> Hs256 {
        let keys: Vec<_> = secrets.into_iter().map(DecodingKey::from_secret).collect();
        assert!(!keys.is_empty(), "without a secret no token can be checked");
        let mut validation = Validation::new(Algorithm::HS256);
        // The library would read a clock of its own, and round floats; we check claims ourselves.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        Hs256 {
            keys,
            issuer,
            validation,
        }
    }

    /// The claims of a token that one of our secrets signed.
    fn signed(&self, token: &str) -> Option<Claims> {
        // `kid` is ignored: it is the sender's word, and there are at most a few secrets.
        let data = self
            .keys
            .iter()
            .find_map(|key| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok())?;
        is_plain(&data.header).then_some(data.claims)
    }
}

/// Whether a header asks for nothing but HS256. A key, a certificate or a place to fetch one
/// would be the sender's; extensions that we do not know may change what the signature covers.
fn is_plain(header: &Header) -> bool {
    let Header {
        typ,
        alg,
        cty,
        jku,
        jwk,
        kid: _,
        x5u,
        x5c,
        x5t: _,
        x5t_s256: _,
        crit,
        enc,
        zip,
        url: _,
        nonce: _,
        extras,
    } = header;
    let is_jwt = |typ: &String| {
        let typ = typ.to_ascii_lowercase();
        matches!(
            typ.strip_prefix("application/").unwrap_or(&typ),
            "jwt" | "at+jwt"
        )
    };
    *alg == Algorithm::HS256
        && typ.as_ref().is_none_or(is_jwt)
        && cty.is_none()
        && jku.is_none()
        && jwk.is_none()
        && x5u.is_none()
        && x5c.is_none()
        && crit.is_none()
        && enc.is_none()
        && zip.is_none()
        && !extras.inner().contains_key("b64")
}

impl Identify for Hs256 {
    fn identify(&self, token: &str, now: UnixMs) -> Result<Identity, IdentityError> {
        if token.len() > limits::TOKEN_BYTES_MAX {
            return Err(IdentityError::Invalid);
        }
        let claims = self.signed(token).ok_or(IdentityError::Invalid)?;
        let user = parse_user(&claims.sub).ok_or(IdentityError::Invalid)?;
        let for_us = match &claims.aud {
            Audience::One(audience) => *audience == self.issuer.audience,
            Audience::Several(audiences) => audiences.contains(&self.issuer.audience),
        };
        let named = claims.name.as_deref().is_none_or(is_name);
        let pictured = claims.picture.as_deref().is_none_or(is_picture);
        if claims.iss != self.issuer.issuer || !for_us || !named || !pictured {
            return Err(IdentityError::Invalid);
        }
        let in_range = claims.exp <= TIME_MAX_S && claims.nbf.is_none_or(|nbf| nbf <= TIME_MAX_S);
        let skew_ms = limits::TOKEN_SKEW_S * 1_000;
        let begun = claims
            .nbf
            .is_none_or(|nbf| nbf.saturating_mul(1_000) <= now.0 + skew_ms);
        if !in_range || !begun {
            return Err(IdentityError::Invalid);
        }
        // RFC 7519, section 4.1.4: "on or after" its `exp` a token is not accepted.
        if now.0 >= claims.exp * 1_000 + skew_ms {
            return Err(IdentityError::Expired);
        }
        Ok(Identity {
            user,
            expires_at: UnixMs(claims.exp * 1_000),
            name: claims.name,
            picture: claims.picture,
        })
    }
}

/// A UUID in its one canonical spelling (case aside): other spellings of the same id would be
/// other strings to whoever issued them.
fn parse_user(sub: &str) -> Option<UserId> {
    if sub.len() != 36 {
        return None;
    }
    Uuid::try_parse(sub).ok().map(UserId)
}

fn is_picture(picture: &str) -> bool {
    picture.len() <= PICTURE_BYTES_MAX && !picture.contains('\0')
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
