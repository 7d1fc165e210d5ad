//! The name of one HTTP request, by which a line of our log and one of a proxy's or of another
//! service's can be found together.
//!
//! Invariant: what comes from outside is taken only if it is short and harmless in a log.

use axum::http::{HeaderMap, HeaderName};
use std::fmt;

/// The header that brings it, and that takes it back.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest that is taken from outside, bytes.
const BYTES_MAX: usize = 128;

/// The name of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RequestId(String);

impl RequestId {
    /// That of the caller, or a new one.
    pub fn of(headers: &HeaderMap) -> RequestId {
        let given = headers.get(HEADER).and_then(|value| value.to_str().ok());
        match given {
            Some(given) if is_harmless(given) => RequestId(given.to_owned()),
            Some(_) | None => RequestId(uuid::Uuid::now_v7().to_string()),
        }
    }

    /// As it stands in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

fn is_harmless(id: &str) -> bool {
    (1..=BYTES_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-:/=+@".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn an_id_from_outside_is_kept_if_it_is_harmless() {
        let long = "x".repeat(BYTES_MAX + 1);
        for (given, kept) in [
            ("0192-abc", true),
            ("1-67891233-abcdef012345678912345678", true),
            (&long[1..], true),
            (&long, false),
            ("", false),
            ("two words", false),
            ("\"quoted\"", false),
            ("a,b", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_str(given).expect("a header"));
            let id = RequestId::of(&headers);
            assert_eq!(id.as_str() == given, kept, "{given:?}");
            assert!(is_harmless(id.as_str()));
        }
        let none = HeaderMap::new();
        assert_ne!(RequestId::of(&none), RequestId::of(&none));
    }
}
