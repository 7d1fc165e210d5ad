//! Who sends a webhook, and that we sent ours: Standard Webhooks 1.0, symmetric signatures.
//!
//! Invariants: nothing of a request is believed before its signature is right and its time near; signatures are
//! compared in constant time; every secret is tried, so that which one it is takes no other time.

use crate::limits;
use crate::protocol::UnixMs;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What secrets begin with.
pub const PREFIX: &str = "whsec_";
/// Bytes of a secret, by the standard.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The secrets of one sender: two while they are rotated.
pub struct WebhookSecrets(Vec<Key>);

impl std::fmt::Debug for WebhookSecrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} secrets", self.0.len())
    }
}

/// Why a webhook is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WebhookRefused {
    /// A header is missing or is not what the standard says.
    Headers,
    /// It was signed too long ago, or is from the future.
    Time,
    /// None of the signatures is of one of our secrets.
    Signature,
}

/// The head of a webhook, as it stands in its headers.
#[derive(Clone, Copy, Debug)]
pub struct WebhookHead<'a> {
    /// `webhook-id`.
    pub id: &'a str,
    /// `webhook-timestamp`.
    pub timestamp: &'a str,
    /// `webhook-signature`.
    pub signatures: &'a str,
}

impl WebhookSecrets {
    /// Reads secrets, each `whsec_` and base64.
    ///
    /// # Errors
    /// One of them is none, or there is none.
    pub fn new<'a>(
        secrets: impl IntoIterator<Item = &'a str>,
    ) -> Result<WebhookSecrets, &'static str> {
        let key = |secret: &str| {
            let bytes = STANDARD.decode(secret.strip_prefix(PREFIX)?).ok()?;
            (SECRET_BYTES.contains(&bytes.len())).then(|| Key::new(HMAC_SHA256, &bytes))
        };
        let keys: Option<Vec<Key>> = secrets.into_iter().map(key).collect();
        match keys {
            Some(keys) if !keys.is_empty() => Ok(WebhookSecrets(keys)),
            _ => Err("a secret is `whsec_` and 24 to 64 bytes in base64"),
        }
    }

    /// Signs a webhook of ours, with every secret: the receiver takes whichever it knows.
    pub fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let signature = |key| {
            let tag = sign(key, id, timestamp, body);
            format!("v1,{}", STANDARD.encode(tag.as_ref()))
        };
        let all: Vec<String> = self.0.iter().map(signature).collect();
        all.join(" ")
    }

    /// Checks a webhook at this time: when it was signed.
    ///
    /// # Errors
    /// [`WebhookRefused`].
    pub fn check(
        &self,
        head: WebhookHead<'_>,
        body: &[u8],
        now: UnixMs,
    ) -> Result<UnixMs, WebhookRefused> {
        // With a full stop in it, id and time could be told apart in more than one way.
        let id_fits = (1..=limits::WEBHOOK_ID_BYTES_MAX).contains(&head.id.len())
            && (head.id.bytes()).all(|byte| byte.is_ascii_graphic() && byte != b'.');
        let digits = (1..=12).contains(&head.timestamp.len())
            && head.timestamp.bytes().all(|byte| byte.is_ascii_digit());
        if !id_fits || !digits || head.signatures.len() > limits::WEBHOOK_SIGNATURES_BYTES_MAX {
            return Err(WebhookRefused::Headers);
        }
        let signed_s: u64 = (head.timestamp.parse()).map_err(|_| WebhookRefused::Headers)?;
        let given: Vec<Vec<u8>> = head
            .signatures
            .split(' ')
            // Other versions are other people's.
            .filter_map(|signature| signature.strip_prefix("v1,"))
            .take(limits::WEBHOOK_SIGNATURES_MAX)
            .filter_map(|signature| STANDARD.decode(signature).ok())
            .collect();
        let mut is_right = false;
        for key in &self.0 {
            let own = sign(key, head.id, head.timestamp, body);
            for given in &given {
                is_right |= verify_slices_are_equal(own.as_ref(), given).is_ok();
            }
        }
        if !is_right {
            return Err(WebhookRefused::Signature);
        }
        let signed_at = UnixMs(signed_s * 1_000);
        match signed_at.0.abs_diff(now.0) <= limits::WEBHOOK_TOLERANCE_MS {
            true => Ok(signed_at),
            false => Err(WebhookRefused::Time),
        }
    }
}

fn sign(key: &Key, id: &str, timestamp: &str, body: &[u8]) -> Tag {
    let mut context = aws_lc_rs::hmac::Context::with_key(key);
    for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
        context.update(part);
    }
    context.sign()
}
