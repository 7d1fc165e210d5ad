//! Public keys of the issuer (JWK Set, RFC 7517), and tokens that one of them signed: RS256, ES256 and EdDSA.
//!
//! Invariants: a key has one algorithm, which the key says and never a token; a key is found by comparing
//! its `kid`, which is never a path, a query or an address; what is no public key for signatures is no key.

use super::claims::{Claims, Issuer, is_plain, validation};
use crate::chat::port::{Identity, IdentityError};
use crate::limits;
use crate::protocol::UnixMs;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Bytes of an RSA modulus: 2,048 to 8,192 bits (RFC 7518, section 3.3).
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;
/// Bytes of a coordinate of P-256, and of a public key of Ed25519.
const POINT_BYTES: usize = 32;

/// The keys that tokens are checked against.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Why there is no set of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeySetProblem {
    /// It is no JSON object with `keys`.
    NoKeySet,
    /// There are more than [`limits::KEYS_MAX`].
    TooMany,
    /// None of them is a public key of an algorithm that is known here.
    NoUsableKey,
    /// Two of them have the same `kid`: which one is meant cannot be told.
    KidTwice,
}

impl std::fmt::Display for KeySetProblem {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            KeySetProblem::NoKeySet => "it is no JSON object with `keys`",
            KeySetProblem::TooMany => "it has too many keys",
            KeySetProblem::NoUsableKey => "it has no RS256, ES256 or EdDSA key",
            KeySetProblem::KidTwice => "two keys have the same `kid`",
        })
    }
}

/// What a set of keys says about a token.
#[derive(PartialEq, Eq, Debug)]
pub enum Found {
    /// Whom it names, or why it is refused.
    Verdict(Result<Identity, IdentityError>),
    /// None of these keys is the one that it says it is signed with.
    NoSuchKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
}

impl KeySet {
    /// Reads a set. Keys of other kinds, uses and algorithms are passed over, as RFC 7517 (section 5) wants it.
    ///
    /// # Errors
    /// [`KeySetProblem`].
    pub fn parse(bytes: &[u8]) -> Result<KeySet, KeySetProblem> {
        let set: Set = serde_json::from_slice(bytes).map_err(|_| KeySetProblem::NoKeySet)?;
        if set.keys.len() > limits::KEYS_MAX {
            return Err(KeySetProblem::TooMany);
        }
        let read = |value| serde_json::from_value::<Jwk>(value).ok();
        let keys: Vec<Key> = set
            .keys
            .into_iter()
            .filter_map(read)
            .filter_map(key_of)
            .collect();
        if keys.is_empty() {
            return Err(KeySetProblem::NoUsableKey);
        }
        let mut kids: Vec<_> = keys.iter().filter_map(|key| key.kid.as_deref()).collect();
        kids.sort_unstable();
        if kids.windows(2).any(|two| two[0] == two[1]) {
            return Err(KeySetProblem::KidTwice);
        }
        Ok(KeySet(keys))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Never: a set without a key is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks a token at this time.
    pub fn check(&self, token: &str, issuer: &Issuer, now: UnixMs) -> Found {
        const INVALID: Found = Found::Verdict(Err(IdentityError::Invalid));
        if token.len() > limits::TOKEN_BYTES_MAX {
            return INVALID;
        }
        let Ok(header) = jsonwebtoken::decode_header(token) else {
            return INVALID;
        };
        let is_known = matches!(
            header.alg,
            Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA
        );
        if !is_known || !is_plain(&header, header.alg) {
            return INVALID;
        }
        let key = match &header.kid {
            Some(kid) if kid.len() > limits::KID_BYTES_MAX => return INVALID,
            Some(kid) => self.0.iter().find(|key| key.kid.as_ref() == Some(kid)),
            // Without a name it can only be the one key of its kind.
            None => {
                let mut fitting = self.0.iter().filter(|key| key.algorithm == header.alg);
                match (fitting.next(), fitting.next()) {
                    (Some(only), None) => Some(only),
                    (Some(_), Some(_)) => return INVALID,
                    (None, _) => None,
                }
            }
        };
        let Some(Key { algorithm, key, .. }) = key else {
            return Found::NoSuchKey;
        };
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation(*algorithm));
        let claims = claims
            .ok()
            .filter(|data| is_plain(&data.header, *algorithm));
        Found::Verdict(match claims {
            Some(data) => data.claims.identity(issuer, now),
            None => Err(IdentityError::Invalid),
        })
    }
}

/// The key, if it is a public one for signatures of an algorithm that is known here.
fn key_of(jwk: Jwk) -> Option<Key> {
    let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig");
    let verifies = |ops: &Vec<String>| ops.iter().any(|op| op == "verify");
    let kid_fits = (jwk.kid.as_ref()).is_none_or(|kid| kid.len() <= limits::KID_BYTES_MAX);
    if !for_signatures || !jwk.key_ops.as_ref().is_none_or(verifies) || !kid_fits {
        return None;
    }
    let bytes = |text: &Option<String>| {
        let decoded = URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        decoded.map(|bytes| bytes.len())
    };
    let (algorithm, names, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", None)
            if RSA_BYTES.contains(&bytes(&jwk.n)?) && (1..=8).contains(&bytes(&jwk.e)?) =>
        {
            let key = DecodingKey::from_rsa_components(jwk.n.as_deref()?, jwk.e.as_deref()?);
            (Algorithm::RS256, &["RS256"][..], key)
        }
        ("EC", Some("P-256")) if bytes(&jwk.x)? == POINT_BYTES && bytes(&jwk.y)? == POINT_BYTES => {
            let key = DecodingKey::from_ec_components(jwk.x.as_deref()?, jwk.y.as_deref()?);
            (Algorithm::ES256, &["ES256"][..], key)
        }
        ("OKP", Some("Ed25519")) if bytes(&jwk.x)? == POINT_BYTES => {
            let key = DecodingKey::from_ed_components(jwk.x.as_deref()?);
            // RFC 9864 gives EdDSA with this curve a name of its own.
            (Algorithm::EdDSA, &["EdDSA", "Ed25519"][..], key)
        }
        _ => return None,
    };
    let alg_fits = jwk.alg.as_deref().is_none_or(|alg| names.contains(&alg));
    Some(Key {
        kid: jwk.kid,
        algorithm,
        key: key.ok().filter(|_| alg_fits)?,
    })
}
