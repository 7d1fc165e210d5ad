//! Signatures of webhooks: [Standard Webhooks 1.0](https://www.standardwebhooks.com).
//!
//! `webhook-signature: v1,BASE64(HMAC-SHA256(secret, "id.timestamp.body"))`, where the secret is written
//! `whsec_BASE64`, `webhook-id` stays the same over all tries, and `webhook-timestamp` (s) is of this try.

use crate::now_ms;
use crate::web::Problem;
use aws_lc_rs::hmac;
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// How old or early a webhook may be, s.
pub const TOLERANCE_S: i64 = 300;

/// A shared secret.
#[derive(Clone)]
pub struct Secret(hmac::Key);

impl Secret {
    /// Reads `whsec_…`; at least 24 bytes, as the standard asks. `None`: it is none.
    pub fn parse(text: &str) -> Option<Secret> {
        let bytes = STANDARD.decode(text.trim().strip_prefix("whsec_")?).ok()?;
        (24..=64)
            .contains(&bytes.len())
            .then(|| Secret(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The value of `webhook-signature`.
    pub fn sign(&self, id: &str, timestamp_s: i64, body: &[u8]) -> String {
        let tag = hmac::sign(&self.0, &signed(id, timestamp_s, body));
        format!("v1,{}", STANDARD.encode(tag))
    }

    /// Whether one of the signatures in the header is ours, and the webhook of now.
    pub fn verify(
        &self,
        id: &str,
        timestamp_s: i64,
        body: &[u8],
        header: &str,
        now_s: i64,
    ) -> bool {
        let is_ours = |signature: &str| {
            let tag = signature
                .strip_prefix("v1,")
                .and_then(|tag| STANDARD.decode(tag).ok());
            tag.is_some_and(|tag| {
                hmac::verify(&self.0, &signed(id, timestamp_s, body), &tag).is_ok()
            })
        };
        timestamp_s.abs_diff(now_s) <= TOLERANCE_S.unsigned_abs() && header.split(' ').any(is_ours)
    }
}

/// A webhook that came, whose signature was right.
#[derive(Debug)]
pub struct Event {
    /// The same with every attempt: what was taken once is taken.
    pub id: String,
    /// What it tells.
    pub kind: String,
    pub data: Value,
}

/// Reads a webhook. Nothing of it is believed before its signature, over the bytes as they came, is right.
///
/// # Errors
/// 401: it is not ours, or not of now. 400: it is no event.
pub fn open(secret: &Secret, headers: &HeaderMap, body: &[u8]) -> Result<Event, Problem> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    let told = header("webhook-id").zip(header("webhook-timestamp"));
    let (id, at) = told.ok_or_else(|| Problem::unauthorized("this is not signed"))?;
    let signatures = header("webhook-signature").unwrap_or_default();
    let is_ours = at
        .parse()
        .is_ok_and(|at| secret.verify(id, at, body, signatures, now_ms() / 1_000));
    if !is_ours {
        return Err(Problem::unauthorized("the signature is not right"));
    }
    let mut event: Value = serde_json::from_slice(body).map_err(|_| Problem::bad("no JSON"))?;
    let kind = event["type"].as_str().map(str::to_owned);
    Ok(Event {
        id: id.to_owned(),
        kind: kind.ok_or_else(|| Problem::bad("`type` is missing"))?,
        data: event["data"].take(),
    })
}

fn signed(id: &str, timestamp_s: i64, body: &[u8]) -> Vec<u8> {
    [format!("{id}.{timestamp_s}.").as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the standard's own libraries.
    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const AT: i64 = 1_614_265_330;
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn secret() -> Secret {
        Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret")
    }

    #[test]
    fn the_signature_is_that_of_the_standard() {
        assert_eq!(secret().sign(ID, AT, BODY), SIGNATURE);
        assert!(secret().verify(ID, AT, BODY, SIGNATURE, AT));
        let several = format!("v1,bm90IG91cnM= {SIGNATURE} v2,AAAA");
        assert!(secret().verify(ID, AT, BODY, &several, AT + TOLERANCE_S));
    }

    #[test]
    fn what_is_changed_or_old_is_refused() {
        let secret = secret();
        assert!(!secret.verify("msg_other", AT, BODY, SIGNATURE, AT));
        assert!(!secret.verify(ID, AT + 1, BODY, SIGNATURE, AT));
        assert!(!secret.verify(ID, AT, b"{}", SIGNATURE, AT));
        assert!(!secret.verify(ID, AT, BODY, &SIGNATURE[3..], AT));
        assert!(!secret.verify(ID, AT, BODY, SIGNATURE, AT + TOLERANCE_S + 1));
        assert!(!secret.verify(ID, AT, BODY, SIGNATURE, AT - TOLERANCE_S - 1));
    }

    #[test]
    fn what_is_no_secret_is_none() {
        for text in [
            "",
            "whsec_",
            "whsec_c2hvcnQ=",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_!",
        ] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
    }
}
