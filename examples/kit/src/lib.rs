//! What the two example services share, so that each of them shows only what is its own:
//! [`db`] either kind of database behind one enum, [`outbox`] events that are not lost, [`webhook`] their
//! signatures (Standard Webhooks 1.0), [`client`] one HTTP request, [`web`] what every HTTP service needs.

pub mod client;
pub mod db;
pub mod outbox;
pub mod web;
pub mod webhook;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time, in ms since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// A time as RFC 3339 in UTC, by the civil calendar (Howard Hinnant, `civil_from_days`).
pub fn rfc3339(ms: i64) -> String {
    let (days, of_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, ms) = (of_day / 1_000 % 60, of_day % 1_000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// A secret that nobody guesses: 32 bytes of the system's randomness.
///
/// # Panics
/// The system has no randomness, with which nothing here may go on.
pub fn random_secret() -> String {
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system's randomness");
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A number below `end`, each as likely.
///
/// # Panics
/// As [`random_secret`].
pub fn random_below(end: u64) -> u64 {
    // What does not fill a whole span of `end` is drawn again.
    let usable = u64::MAX - u64::MAX % end;
    loop {
        let mut bytes = [0u8; 8];
        aws_lc_rs::rand::fill(&mut bytes).expect("the system's randomness");
        let drawn = u64::from_le_bytes(bytes);
        if drawn < usable {
            return drawn % end;
        }
    }
}

/// What is kept of a secret: SHA-256.
pub fn hash(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, secret.as_bytes()))
}

/// Whether two secrets are the same, in a time that does not tell how much of them is.
pub fn same_secret(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_has_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(
            rfc3339(1_893_456_000_123 - 1_000),
            "2029-12-31T23:59:59.123Z"
        );
    }

    #[test]
    fn every_number_below_the_end_is_drawn_and_none_above() {
        let drawn: std::collections::BTreeSet<u64> = (0..500).map(|_| random_below(6)).collect();
        assert_eq!(drawn, (0..6).collect());
    }

    #[test]
    fn secrets_differ_and_compare() {
        let (one, other) = (random_secret(), random_secret());
        assert_ne!(one, other);
        assert!(same_secret(&one, &one.clone()));
        assert!(!same_secret(&one, &other));
        assert!(!same_secret(&one, &one[1..]));
    }
}
