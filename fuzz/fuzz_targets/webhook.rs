//! A webhook: its signature, and its body. An input is id, time and signatures, each on a line of its own, and then
//! the body. It is checked as it stands, signed by nobody; and signed here, so that what lies behind the
//! signature is reached.

#![no_main]

use caffis_chat::identity::{WebhookHead, WebhookRefused, WebhookSecrets};
use caffis_chat::protocol::webhook::{of_main_app, of_map};
use caffis_chat::protocol::UnixMs;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

/// "whsec_" and the base64 of [`SECRET`].
const WHSEC: &str = "whsec_b25seS1mb3ItZnV6emluZy0wMTIzNDU2Nzg5YWJjZGVm";
const SECRET: &[u8] = b"only-for-fuzzing-0123456789abcdef";
const NOW: UnixMs = UnixMs(1_750_000_000_000);

fn secrets() -> &'static WebhookSecrets {
    static SECRETS: OnceLock<WebhookSecrets> = OnceLock::new();
    SECRETS.get_or_init(|| WebhookSecrets::new([WHSEC]).expect("a secret"))
}

/// The signature of the standard, by another library.
fn sign(id: &str, timestamp: &str, body: &[u8]) -> String {
    let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let key = EncodingKey::from_secret(SECRET);
    let signature = crypto::sign(&message, &key, Algorithm::HS256).expect("HS256 can always sign");
    format!("v1,{}=", signature.replace('-', "+").replace('_', "/"))
}

fuzz_target!(|input: &[u8]| {
    let mut parts = input.splitn(4, |byte| *byte == b'\n');
    let mut line = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let (Some(id), Some(timestamp), Some(signatures)) = (line(), line(), line()) else {
        return;
    };
    let body = parts.next().unwrap_or_default();
    let own = sign(id, timestamp, body);
    let head = WebhookHead {
        id,
        timestamp,
        signatures,
    };
    let told = secrets().check(head, body, NOW);
    // What nobody signed is believed only where the fuzzer has guessed the signature, which it cannot.
    assert!(told.is_err() || signatures.contains(&own), "{told:?}");

    let both = format!("{signatures} {own}");
    let first = format!("{own} {signatures}");
    for signatures in [&own, &first, &both] {
        let told = secrets().check(WebhookHead { signatures, ..head }, body, NOW);
        match told {
            Ok(at) => {
                assert!(at.0.abs_diff(NOW.0) <= 300_000, "{at:?}");
                assert!(!id.contains('.') && !id.is_empty(), "{id}");
                assert_eq!(timestamp.parse::<u64>().ok(), Some(at.0 / 1_000), "{timestamp}");
            }
            Err(WebhookRefused::Time) => {
                let at: u64 = timestamp.parse().expect("only a time is too late");
                assert!((at * 1_000).abs_diff(NOW.0) > 300_000, "{timestamp}");
            }
            Err(WebhookRefused::Headers) => (),
            // Behind too many others it is not looked at.
            Err(WebhookRefused::Signature) => assert!(signatures.matches("v1,").count() > 16),
        }
        // One bit more or less, and it is another.
        let changed = [body, b"!"].concat();
        let told = secrets().check(WebhookHead { signatures, ..head }, &changed, NOW);
        assert!(told.is_err(), "{told:?}");
    }
    let _map = of_map(body);
    let _main_app = of_main_app(body);
});
