//! What a token says, once its signature is right: the claims that mean something here, and the headers that
//! ask for nothing that we do not do (RFC 7515, RFC 7519, and the advice of RFC 8725).
//!
//! Invariants: the clock is told, never read; a header that asks for more than one signature of one algorithm
//! is refused, not ignored; `Expired` is said only of what is valid otherwise.

use super::is_name;
use crate::chat::port::{Identity, IdentityError};
use crate::limits;
use crate::protocol::{UnixMs, UserId};
use jsonwebtoken::{Algorithm, Header, Validation};
use serde::Deserialize;
use uuid::Uuid;

/// Latest `exp`, `nbf` and `iat`, s: the end of the year 9999, which is as far as RFC 3339 goes.
const TIME_MAX_S: u64 = 253_402_300_799;

/// Who issues our tokens, and for whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Issuer {
    /// `iss`.
    pub issuer: String,
    /// `aud`, or one of it.
    pub audience: String,
}

/// The claims that mean something here. Unknown ones are ignored (RFC 7519, section 4); ones of
/// another type, and ones that are given twice, are refused by their types.
#[derive(Deserialize)]
pub(super) struct Claims {
    sub: String,
    exp: u64,
    #[serde(default)]
    nbf: Option<u64>,
    #[serde(default)]
    iat: Option<u64>,
    iss: String,
    aud: Audience,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    picture: Option<String>,
    #[serde(default)]
    sid: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    /// Whether this is one of it.
    pub fn has(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Several(several) => several.iter().any(|one| one == audience),
        }
    }
}

/// What the library is to check: this algorithm and the signature. It would read a clock of its own, and round
/// floats; we check claims ourselves.
pub(super) fn validation(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// Whether a header asks for nothing but a signature of this algorithm. A key, a certificate or a place to
/// fetch one would be the sender's; extensions that we do not know may change what the signature covers.
pub(super) fn is_plain(header: &Header, algorithm: Algorithm) -> bool {
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
    *alg == algorithm
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

impl Claims {
    /// Whom they name, at this time.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] or [`IdentityError::Expired`].
    pub fn identity(self, issuer: &Issuer, now: UnixMs) -> Result<Identity, IdentityError> {
        if self.iss != issuer.issuer || !self.aud.has(&issuer.audience) {
            return Err(IdentityError::Invalid);
        }
        let said = Said {
            sub: self.sub,
            exp: self.exp,
            nbf: self.nbf,
            iat: self.iat,
            name: self.name,
            picture: self.picture,
            sid: self.sid,
        };
        said.identity(now)
    }
}

/// What the issuer says of a user, by a token or when it is asked about one.
pub(super) struct Said {
    pub sub: String,
    pub exp: u64,
    pub nbf: Option<u64>,
    pub iat: Option<u64>,
    pub name: Option<String>,
    pub picture: Option<String>,
    pub sid: Option<String>,
}

impl Said {
    /// Whom it names, at this time.
    ///
    /// # Errors
    /// [`IdentityError::Invalid`] or [`IdentityError::Expired`].
    pub fn identity(self, now: UnixMs) -> Result<Identity, IdentityError> {
        let user = parse_user(&self.sub).ok_or(IdentityError::Invalid)?;
        let named = self.name.as_deref().is_none_or(is_name);
        let pictured = self.picture.as_deref().is_none_or(is_picture);
        let in_session = self.sid.as_deref().is_none_or(is_sid);
        let times = [Some(self.exp), self.nbf, self.iat];
        let in_range = times.iter().flatten().all(|time| *time <= TIME_MAX_S);
        if !named || !pictured || !in_session || !in_range {
            return Err(IdentityError::Invalid);
        }
        let skew_ms = limits::TOKEN_SKEW_S * 1_000;
        if self.nbf.is_some_and(|nbf| nbf * 1_000 > now.0 + skew_ms) {
            return Err(IdentityError::Invalid);
        }
        // RFC 7519, section 4.1.4: "on or after" its `exp` a token is not accepted.
        if now.0 >= self.exp * 1_000 + skew_ms {
            return Err(IdentityError::Expired);
        }
        Ok(Identity {
            user,
            expires_at: UnixMs(self.exp * 1_000),
            issued_at: self.iat.map(|iat| UnixMs(iat * 1_000)),
            sid: self.sid,
            name: self.name,
            picture: self.picture,
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

/// Whether a picture can be kept.
pub fn is_picture(picture: &str) -> bool {
    picture.len() <= limits::PICTURE_BYTES_MAX && !picture.contains('\0')
}

/// Whether a session of the issuer can be kept.
pub fn is_sid(sid: &str) -> bool {
    (1..=limits::SID_BYTES_MAX).contains(&sid.len()) && !sid.contains('\0')
}
