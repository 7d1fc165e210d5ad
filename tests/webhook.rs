//! Signatures of webhooks, by Standard Webhooks 1.0: what is taken, and everything that is refused.
#![cfg(feature = "server")]

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use caffis_chat::identity::{WebhookHead, WebhookRefused, WebhookSecrets};
use caffis_chat::protocol::UnixMs;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const AT_S: u64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
/// Of the reference implementations.
const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn check(
    id: &str,
    timestamp: &str,
    signatures: &str,
    body: &[u8],
    now_s: u64,
) -> Result<UnixMs, WebhookRefused> {
    let secrets = WebhookSecrets::new([SECRET, OLD_SECRET]).expect("secrets");
    let head = WebhookHead {
        id,
        timestamp,
        signatures,
    };
    secrets.check(head, body, UnixMs(now_s * 1_000))
}

fn sign(secret: &str, id: &str, timestamp: &str, body: &[u8]) -> String {
    let bytes = STANDARD.decode(&secret["whsec_".len()..]).expect("base64");
    let message = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), &message);
    format!("v1,{}", STANDARD.encode(tag.as_ref()))
}

#[test]
fn the_example_of_the_standard_is_taken() {
    let at = AT_S.to_string();
    assert_eq!(sign(SECRET, ID, &at, BODY), SIGNATURE);
    let taken = check(ID, &at, SIGNATURE, BODY, AT_S);
    assert_eq!(taken, Ok(UnixMs(AT_S * 1_000)));
}

#[test]
fn ours_are_signed_with_every_secret() {
    let at = AT_S.to_string();
    let one = WebhookSecrets::new([SECRET]).expect("secrets");
    assert_eq!(one.sign(ID, &at, BODY), SIGNATURE);
    let both = WebhookSecrets::new([OLD_SECRET, SECRET]).expect("secrets");
    let old = sign(OLD_SECRET, ID, &at, BODY);
    assert_eq!(both.sign(ID, &at, BODY), format!("{old} {SIGNATURE}"));
}

#[test]
fn either_secret_may_sign_while_they_are_rotated_and_others_beside_them() {
    let at = AT_S.to_string();
    let old = sign(OLD_SECRET, ID, &at, BODY);
    let stranger = sign("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ID, &at, BODY);
    for signatures in [
        old.clone(),
        format!("{old} {SIGNATURE}"),
        format!("{stranger} {old}"),
        format!("v1a,AAAA {old}"),
        format!("v1,AAAA v1,not-base64 {old} nonsense"),
    ] {
        assert!(
            check(ID, &at, &signatures, BODY, AT_S).is_ok(),
            "{signatures}"
        );
    }
    let many = format!("{}{old}", format!("{stranger} ").repeat(16));
    let refused = check(ID, &at, &many, BODY, AT_S);
    assert_eq!(refused, Err(WebhookRefused::Signature));
}

#[test]
fn what_is_not_signed_as_it_stands_is_refused() {
    let at = AT_S.to_string();
    let base64 = &SIGNATURE["v1,".len()..];
    let version_2 = format!("v2,{base64}");
    let upper = format!("V1,{base64}");
    let unpadded = SIGNATURE.trim_end_matches('=');
    let stranger = sign("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ID, &at, BODY);
    for signatures in [
        "", " ", "v1,", "v1", base64, &version_2, &upper, unpadded, &stranger, "v1,AAAA",
    ] {
        let refused = check(ID, &at, signatures, BODY, AT_S);
        assert_eq!(refused, Err(WebhookRefused::Signature), "{signatures:?}");
    }
    let later = (AT_S + 1).to_string();
    for (id, at, body) in [
        ("msg_p5jXN8AQM9LWM0D4loKWxJej", at.as_str(), BODY),
        (ID, later.as_str(), BODY),
        (ID, at.as_str(), br#"{"test": 2432232315}"#.as_slice()),
        (ID, at.as_str(), br#"{"test":2432232314}"#.as_slice()),
        (ID, at.as_str(), b"".as_slice()),
    ] {
        let refused = check(id, at, SIGNATURE, body, AT_S);
        assert_eq!(refused, Err(WebhookRefused::Signature), "{id} {at}");
    }
    // What could be told apart in two ways: `a.1` at 2, and `a` at 1 with a longer body.
    let split = sign(SECRET, "a.1", "2", b"x");
    assert_eq!(
        check("a.1", "2", &split, b"x", 2),
        Err(WebhookRefused::Headers)
    );
    let long = "i".repeat(257);
    let huge = "v1,AAAA ".repeat(600);
    for (id, at, signatures) in [
        ("", at.as_str(), SIGNATURE),
        (long.as_str(), at.as_str(), SIGNATURE),
        ("two words", at.as_str(), SIGNATURE),
        ("é", at.as_str(), SIGNATURE),
        (ID, "", SIGNATURE),
        (ID, "now", SIGNATURE),
        (ID, "-1", SIGNATURE),
        (ID, "+1614265330", SIGNATURE),
        (ID, "1614265330.0", SIGNATURE),
        (ID, "1614265330 ", SIGNATURE),
        (ID, "16142653300000000", SIGNATURE),
        (ID, at.as_str(), huge.as_str()),
    ] {
        let refused = check(id, at, signatures, BODY, AT_S);
        assert_eq!(refused, Err(WebhookRefused::Headers), "{id:?} {at:?}");
    }
}

#[test]
fn it_holds_for_five_minutes_either_way() {
    let at = AT_S.to_string();
    for (now_s, taken) in [
        (AT_S - 301, false),
        (AT_S - 300, true),
        (AT_S + 300, true),
        (AT_S + 301, false),
        (0, false),
    ] {
        let told = check(ID, &at, SIGNATURE, BODY, now_s);
        match taken {
            true => assert!(told.is_ok(), "{now_s}"),
            false => assert_eq!(told, Err(WebhookRefused::Time), "{now_s}"),
        }
    }
    let zero = sign(SECRET, ID, "0", BODY);
    assert_eq!(check(ID, "0", &zero, BODY, AT_S), Err(WebhookRefused::Time));
    let far = sign(SECRET, ID, "999999999999", BODY);
    let told = check(ID, "999999999999", &far, BODY, AT_S);
    assert_eq!(told, Err(WebhookRefused::Time));
}

#[test]
fn a_secret_is_whsec_and_enough_bytes() {
    assert!(WebhookSecrets::new([SECRET]).is_ok());
    let none: [&str; 0] = [];
    assert!(WebhookSecrets::new(none).is_err());
    for wrong in [
        "",
        "whsec_",
        "whsec_c2hvcnQ=",
        &SECRET["whsec_".len()..],
        "whsec_!",
    ] {
        assert!(WebhookSecrets::new([SECRET, wrong]).is_err(), "{wrong}");
    }
    let shown = format!("{:?}", WebhookSecrets::new([SECRET]).expect("a secret"));
    assert!(!shown.contains("MfKQ"), "{shown}");
}
