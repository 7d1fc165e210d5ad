//! A token: nothing is believed that our secret did not sign; of what it signed only claims in their ranges
//! are taken. An input of two lines is a header and claims that are signed here, so that what lies behind the
//! signature is reached; any other is a token as it stands.

#![no_main]

use caffis_chat::chat::port::IdentityError;
use caffis_chat::identity::hs256::{Hs256, Issuer};
use caffis_chat::protocol::UnixMs;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

const SECRET: &[u8] = b"only-for-fuzzing-0123456789abcdef-0123456789abcdef";
const NOW: UnixMs = UnixMs(1_750_000_000_000);

struct Keys {
    verifier: Hs256,
    signer: EncodingKey,
}

fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| {
        let issuer = Issuer {
            issuer: "caffis".to_owned(),
            audience: "caffis-chat".to_owned(),
        };
        Keys {
            verifier: Hs256::new([SECRET], issuer),
            signer: EncodingKey::from_secret(SECRET),
        }
    })
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from_be_bytes([0, group[0], group[1], group[2]]);
        for place in 0..=chunk.len() {
            let index = bits >> (18 - 6 * place) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

fuzz_target!(|input: &str| {
    let keys = keys();
    let Some((header, claims)) = input.split_once('\n') else {
        // Signed by nobody.
        let told = keys.verifier.check(input, NOW);
        assert!(matches!(told, Err(IdentityError::Invalid)), "{told:?}");
        return;
    };
    let message = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(claims.as_bytes())
    );
    let Ok(signature) = crypto::sign(message.as_bytes(), &keys.signer, Algorithm::HS256) else {
        return;
    };
    match keys
        .verifier
        .check(&format!("{message}.{signature}"), NOW)
    {
        Ok(identity) => {
            assert!(identity.expires_at.0 + 120_000 > NOW.0, "{identity:?}");
            assert!(header.contains("HS256"), "{header}");
            assert!(claims.contains("caffis-chat"), "{claims}");
            let id = identity.user.to_string();
            assert!(claims.to_ascii_lowercase().contains(&id), "{claims}");
        }
        Err(IdentityError::Expired | IdentityError::Invalid) => (),
        Err(IdentityError::Unavailable) => unreachable!("a secret is always there"),
    }
});
