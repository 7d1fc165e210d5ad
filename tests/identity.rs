//! Tokens: what is taken, and everything that is refused. Tokens are put together byte by byte
//! here, so that nothing is out of reach because a library would not write it.
#![cfg(feature = "server")]

use caffis_chat::chat::port::{Identity, IdentityError};
use caffis_chat::identity::demo::{Demo, TOKEN_MS, user_of};
use caffis_chat::identity::hs256::{Hs256, Issuer};
use caffis_chat::identity::{DemoLogin, secret_file};
use caffis_chat::protocol::{UnixMs, UserId};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OLD_SECRET: &[u8] = b"fedcba9876543210fedcba9876543210";
const NOW_S: u64 = 1_700_000_000;
const NOW: UnixMs = UnixMs(NOW_S * 1_000);
const USER: &str = "6f1c1f9e-6d8e-4c39-9a67-0d3f0f7d9a11";

fn issuer() -> Issuer {
    Issuer {
        issuer: "caffis".to_owned(),
        audience: "caffis-chat".to_owned(),
    }
}

fn identify(token: &str) -> Result<Identity, IdentityError> {
    Hs256::new([SECRET, OLD_SECRET], issuer()).check(token, NOW)
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let all = chunk
            .iter()
            .fold(0u32, |all, byte| all << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            let six = all >> (18 - 6 * place) & 63;
            text.push(char::from(ALPHABET[six as usize]));
        }
    }
    text
}

/// A token of this header and these claims, each as it stands, signed with this secret.
fn token_of(header: &str, claims: &str, secret: &[u8]) -> String {
    let message = format!(
        "{}.{}",
        base64url(header.as_bytes()),
        base64url(claims.as_bytes())
    );
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256)
        .expect("HS256 can always sign");
    format!("{message}.{signature}")
}

fn good_claims() -> Value {
    json!({"sub": USER, "exp": NOW_S + 600, "iss": "caffis", "aud": "caffis-chat"})
}

/// Good claims with these changes; null removes one.
fn claims_with(changes: Value) -> String {
    let mut claims = good_claims();
    let all = claims.as_object_mut().expect("an object");
    for (name, value) in changes.as_object().expect("an object") {
        if value.is_null() {
            all.remove(name);
        } else {
            all.insert(name.clone(), value.clone());
        }
    }
    claims.to_string()
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

fn check_claims(changes: Value, expected: Result<(), IdentityError>) {
    let token = token_of(HEADER, &claims_with(changes.clone()), SECRET);
    assert_eq!(
        identify(&token).map(|_| ()),
        expected,
        "claims with {changes}"
    );
}

#[test]
fn a_valid_token_names_its_user() {
    let claims = claims_with(json!({"name": "Ada", "picture": "https://x/y.png", "sid": "s1"}));
    let identity = identify(&token_of(HEADER, &claims, SECRET)).expect("a valid token");
    let expected = Identity {
        user: USER.parse::<UserId>().expect("a UUID"),
        expires_at: UnixMs((NOW_S + 600) * 1_000),
        name: Some("Ada".to_owned()),
        picture: Some("https://x/y.png".to_owned()),
        issued_at: None,
        sid: Some("s1".to_owned()),
    };
    assert_eq!(identity, expected);
}

#[test]
fn claims_are_taken_or_refused() {
    const INVALID: Result<(), IdentityError> = Err(IdentityError::Invalid);
    const EXPIRED: Result<(), IdentityError> = Err(IdentityError::Expired);
    // Times: seconds, whole, within 60 s of skew.
    check_claims(json!({}), Ok(()));
    check_claims(json!({"exp": NOW_S - 59}), Ok(()));
    check_claims(json!({"exp": NOW_S - 60}), EXPIRED);
    check_claims(json!({"exp": 0}), EXPIRED);
    check_claims(json!({"exp": 253_402_300_799u64}), Ok(()));
    check_claims(json!({"exp": 253_402_300_800u64}), INVALID);
    check_claims(json!({"exp": u64::MAX}), INVALID);
    check_claims(json!({"exp": -1}), INVALID);
    check_claims(json!({"exp": null}), INVALID);
    check_claims(json!({"exp": (NOW_S + 600).to_string()}), INVALID);
    check_claims(json!({"exp": 1_700_000_600.5}), INVALID);
    check_claims(json!({"exp": [NOW_S + 600]}), INVALID);
    check_claims(json!({"exp": true}), INVALID);
    check_claims(json!({"nbf": NOW_S + 60}), Ok(()));
    check_claims(json!({"nbf": NOW_S + 61}), INVALID);
    check_claims(json!({"nbf": u64::MAX}), INVALID);
    check_claims(json!({"nbf": "0"}), INVALID);
    check_claims(json!({"nbf": 0.5}), INVALID);
    // Expired is said only of what is valid otherwise.
    check_claims(json!({"exp": 1, "iss": "other"}), INVALID);
    check_claims(json!({"exp": 1, "aud": "other"}), INVALID);
    check_claims(json!({"exp": 1, "sub": "x"}), INVALID);
    check_claims(json!({"exp": 1, "nbf": NOW_S + 61}), INVALID);
    // Subject.
    check_claims(json!({"sub": null}), INVALID);
    check_claims(json!({"sub": ""}), INVALID);
    check_claims(json!({"sub": "ada"}), INVALID);
    check_claims(json!({"sub": 7}), INVALID);
    check_claims(json!({"sub": USER.to_uppercase()}), Ok(()));
    check_claims(json!({"sub": USER.replace('-', "")}), INVALID);
    check_claims(json!({"sub": format!("{{{USER}}}")}), INVALID);
    check_claims(json!({"sub": format!("urn:uuid:{USER}")}), INVALID);
    // Issuer and audience.
    check_claims(json!({"iss": null}), INVALID);
    check_claims(json!({"iss": "Caffis"}), INVALID);
    check_claims(json!({"iss": ["caffis"]}), INVALID);
    check_claims(json!({"aud": null}), INVALID);
    check_claims(json!({"aud": "caffis"}), INVALID);
    check_claims(json!({"aud": []}), INVALID);
    check_claims(json!({"aud": ["other"]}), INVALID);
    check_claims(json!({"aud": ["other", "caffis-chat"]}), Ok(()));
    check_claims(json!({"aud": ["caffis-chat", 1]}), INVALID);
    check_claims(json!({"aud": {"caffis-chat": true}}), INVALID);
    // What is optional must still have its type and fit.
    check_claims(json!({"name": "é".repeat(200)}), Ok(()));
    check_claims(json!({"name": "é".repeat(201)}), INVALID);
    check_claims(json!({"name": "a\u{0}b"}), INVALID);
    check_claims(json!({"name": "  "}), INVALID);
    check_claims(json!({"name": 1}), INVALID);
    check_claims(json!({"picture": "x".repeat(2_048)}), Ok(()));
    check_claims(json!({"picture": "x".repeat(2_049)}), INVALID);
    check_claims(json!({"picture": "\u{0}"}), INVALID);
    check_claims(json!({"sid": 1}), INVALID);
    check_claims(json!({"sid": ""}), INVALID);
    check_claims(json!({"sid": "s".repeat(257)}), INVALID);
    check_claims(json!({"iat": NOW_S}), Ok(()));
    check_claims(json!({"iat": "whatever"}), INVALID);
    check_claims(json!({"iat": u64::MAX}), INVALID);
    // Unknown claims are ignored.
    check_claims(json!({"scope": {"deep": [1]}, "jti": 7}), Ok(()));
}

#[test]
fn headers_are_taken_or_refused() {
    let check = |header: &str, taken: bool| {
        let token = token_of(header, &good_claims().to_string(), SECRET);
        assert_eq!(identify(&token).is_ok(), taken, "header {header}");
    };
    check(r#"{"alg":"HS256"}"#, true);
    check(r#"{"alg":"HS256","typ":"jwt"}"#, true);
    check(r#"{"alg":"HS256","typ":"at+jwt"}"#, true);
    check(r#"{"alg":"HS256","kid":"anything/../../etc/passwd"}"#, true);
    check(r#"{"alg":"HS256","typ":"secevent+jwt"}"#, false);
    for alg in [
        "none", "None", "NONE", "nOnE", "", "hs256", "HS384", "HS512", "RS256", "RS512", "PS256",
        "ES256", "EdDSA",
    ] {
        check(&format!(r#"{{"alg":"{alg}","typ":"JWT"}}"#), false);
    }
    check(r#"{"typ":"JWT"}"#, false);
    check(r#"{"alg":null}"#, false);
    check(r#"{"alg":["HS256"]}"#, false);
    check(r#"{"alg":"HS256","alg":"none"}"#, false);
    check(r#"{"alg":"HS256","crit":["exp"]}"#, false);
    check(r#"{"alg":"HS256","crit":[]}"#, false);
    check(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, false);
    check(r#"{"alg":"HS256","b64":false}"#, false);
    check(r#"{"alg":"HS256","zip":"DEF"}"#, false);
    check(r#"{"alg":"HS256","enc":"A128GCM"}"#, false);
    check(r#"{"alg":"HS256","cty":"JWT"}"#, false);
    check(
        r#"{"alg":"HS256","jku":"https://evil.example/keys"}"#,
        false,
    );
    check(
        r#"{"alg":"HS256","x5u":"https://evil.example/cert"}"#,
        false,
    );
    check(r#"{"alg":"HS256","x5c":["AAAA"]}"#, false);
    check(r#"{"alg":"HS256","jwk":{"kty":"oct","k":"AAAA"}}"#, false);
    check("[]", false);
    check("", false);
    check("{", false);
}

#[test]
fn secrets_rotate_and_a_foreign_one_is_refused() {
    let claims = good_claims().to_string();
    assert!(identify(&token_of(HEADER, &claims, SECRET)).is_ok());
    assert!(identify(&token_of(HEADER, &claims, OLD_SECRET)).is_ok());
    let foreign = token_of(
        HEADER,
        &claims,
        b"another secret, as long as the others are",
    );
    assert_eq!(identify(&foreign), Err(IdentityError::Invalid));
    assert_eq!(
        identify(&token_of(HEADER, &claims, b"")),
        Err(IdentityError::Invalid)
    );
    // An expired token of a foreign secret tells nothing about it.
    let expired = claims_with(json!({"exp": 1}));
    let foreign = token_of(
        HEADER,
        &expired,
        b"another secret, as long as the others are",
    );
    assert_eq!(identify(&foreign), Err(IdentityError::Invalid));
}

#[test]
fn a_key_embedded_in_the_token_does_not_verify_it() {
    let secret = b"the key of the attacker, who signs";
    let header = format!(
        r#"{{"alg":"HS256","jwk":{{"kty":"oct","k":"{}"}}}}"#,
        base64url(secret)
    );
    let token = token_of(&header, &good_claims().to_string(), secret);
    assert_eq!(identify(&token), Err(IdentityError::Invalid));
}

#[test]
fn what_was_changed_after_signing_is_refused() {
    let token = token_of(HEADER, &good_claims().to_string(), SECRET);
    // Every character on its own: each bit of header, claims and signature counts. (Base64 of a
    // length that is no multiple of 3 has unused bits; the decoder refuses them set.)
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert_eq!(identify(&changed), Err(IdentityError::Invalid), "at {at}");
    }
    let parts: Vec<_> = token.split('.').collect();
    for broken in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        parts[0].to_owned(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}."),
        format!("{token}.{}", parts[2]),
        format!("{token}="),
        format!(" {token}"),
        format!("{token}\n"),
        token.replace('.', "\u{2024}"),
        format!("{}..{}", parts[0], parts[2]),
        token[..token.len() - 1].to_owned(),
    ] {
        assert_eq!(identify(&broken), Err(IdentityError::Invalid), "{broken:?}");
    }
}

#[test]
fn claims_that_are_no_object_or_given_twice_are_refused() {
    let twice = format!(
        r#"{{"sub":"{USER}","exp":{},"exp":{},"iss":"caffis","aud":"caffis-chat"}}"#,
        1,
        NOW_S + 600
    );
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    for claims in ["", "null", "[]", "\"x\"", "{", "{}", &twice, &deep] {
        let token = token_of(HEADER, claims, SECRET);
        assert_eq!(
            identify(&token),
            Err(IdentityError::Invalid),
            "{claims:.40}"
        );
    }
}

#[test]
fn a_token_above_8_kib_is_refused_unread() {
    let filler = |length: usize| {
        let claims = claims_with(json!({"filler": "x".repeat(length)}));
        token_of(HEADER, &claims, SECRET)
    };
    let fits = filler(5_000);
    assert!(fits.len() <= 8_192 && identify(&fits).is_ok());
    let large = filler(7_000);
    assert!(large.len() > 8_192);
    assert_eq!(identify(&large), Err(IdentityError::Invalid));
}

#[test]
fn the_demo_login_gives_the_same_name_the_same_user() {
    let demo = Demo::new(SECRET, issuer());
    let ada = demo.login("Ada", NOW).expect("a name");
    let again = demo.login("  aDA ", NOW).expect("a name");
    assert_eq!(ada.user, again.user);
    assert_eq!(ada.user, user_of("ada"));
    assert_ne!(ada.user, user_of("bob"));
    assert_eq!((ada.name.as_str(), again.name.as_str()), ("Ada", "aDA"));

    let identity = identify(&ada.token).expect("a demo token is a valid token");
    assert_eq!(identity.user, ada.user);
    assert_eq!(identity.name.as_deref(), Some("Ada"));
    assert_eq!(identity.expires_at, UnixMs(NOW.0 + TOKEN_MS));

    for name in ["", "   ", "a\u{0}b", &"x".repeat(201)] {
        assert_eq!(demo.login(name, NOW), None, "{name:?}");
    }
}

#[test]
fn the_development_secret_is_made_once_and_only_its_owner_may_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = secret_file::read_or_create(folder.path()).expect("made");
    assert_eq!(secret.len(), 64);
    let again = secret_file::read_or_create(folder.path()).expect("read");
    assert_eq!(secret, again);
    let path = folder.path().join(secret_file::FILE);
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let other = tempfile::tempdir().expect("a folder");
    let others = secret_file::read_or_create(other.path()).expect("made");
    assert_ne!(secret, others);

    for broken in ["", "short", &"g".repeat(64), &"a".repeat(65)] {
        std::fs::write(&path, broken).expect("written");
        let error = secret_file::read_or_create(folder.path()).expect_err("no secret of ours");
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{broken:?}");
    }
}
