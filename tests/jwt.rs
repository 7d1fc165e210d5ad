//! Tokens signed with the issuer's own keys: every way to be let in by one that it did not sign, or did not sign for us;
//! and when its keys are fetched, kept and given up, with a clock that the tests tell.
#![cfg(feature = "server")]

#[path = "support/keyring.rs"]
mod keyring;

use caffis_chat::chat::port::{Decided, Identity, IdentityError};
use caffis_chat::identity::claims::Issuer;
use caffis_chat::identity::introspection::Introspections;
use caffis_chat::identity::jwks::{Found, KeySet, KeySetProblem};
use caffis_chat::identity::keys::{Asked, Keys, Times};
use caffis_chat::limits;
use caffis_chat::protocol::UnixMs;
use keyring::{SigningKey, base64url};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const NOW_S: u64 = 1_700_000_000;
const NOW: UnixMs = UnixMs(NOW_S * 1_000);
const USER: &str = "6f1c1f9e-6d8e-4c39-9a67-0d3f0f7d9a11";

fn issuer() -> Issuer {
    Issuer {
        issuer: "caffis".to_owned(),
        audience: "caffis-chat".to_owned(),
    }
}

fn good_claims() -> Value {
    json!({"sub": USER, "exp": NOW_S + 600, "iss": "caffis", "aud": "caffis-chat"})
}

/// Good claims with these changes; null removes one.
fn claims_with(changes: &Value) -> String {
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

/// The issuer's keys, and their set.
struct Ring {
    rsa: SigningKey,
    ec: SigningKey,
    ed: SigningKey,
    jwks: String,
    set: KeySet,
}

fn ring() -> Ring {
    let (rsa, ec, ed) = (SigningKey::rsa(), SigningKey::ec(), SigningKey::ed());
    let jwks = json!({"keys": [rsa.jwk("r1"), ec.jwk("e1"), ed.jwk("d1")]}).to_string();
    let set = KeySet::parse(jwks.as_bytes()).expect("a set");
    Ring {
        rsa,
        ec,
        ed,
        jwks,
        set,
    }
}

impl Ring {
    fn check(&self, token: &str) -> Result<Identity, IdentityError> {
        match self.set.check(token, &issuer(), NOW) {
            Found::Verdict(verdict) => verdict,
            // Once the keys were fetched and it is still not there.
            Found::NoSuchKey => Err(IdentityError::Invalid),
        }
    }

    #[track_caller]
    fn refuses(&self, what: &str, token: &str) {
        assert_eq!(self.check(token), Err(IdentityError::Invalid), "{what}");
    }

    fn keys(&self) -> [(&'static str, &SigningKey); 3] {
        [("r1", &self.rsa), ("e1", &self.ec), ("d1", &self.ed)]
    }
}

#[test]
fn each_key_signs_with_its_own_algorithm() {
    let ring = ring();
    for (kid, key) in ring.keys() {
        let identity = ring.check(&key.signed(kid, &good_claims())).expect(kid);
        assert_eq!(identity.user.to_string(), USER);
        // Without a name it is the one key of its algorithm.
        let header = json!({"alg": key.alg()}).to_string();
        let token = key.token(&header, &good_claims().to_string());
        assert!(ring.check(&token).is_ok(), "{kid} unnamed");
    }
}

#[test]
fn what_the_issuer_did_not_sign_is_refused() {
    let ring = ring();
    let claims = good_claims().to_string();
    let strangers = [SigningKey::rsa(), SigningKey::ec(), SigningKey::ed()];
    for ((kid, key), stranger) in ring.keys().into_iter().zip(&strangers) {
        let alg = key.alg();
        // Another's key under the name of ours.
        ring.refuses("a stranger", &stranger.signed(kid, &good_claims()));
        // No algorithm, however it is spelt, with and without a signature.
        for none in ["none", "None", "NONE", "nOnE", "", "null"] {
            let header = json!({"alg": none, "kid": kid}).to_string();
            ring.refuses(none, &SigningKey::Nobody.token(&header, &claims));
            ring.refuses(none, &key.token(&header, &claims));
        }
        // Our algorithm, and nothing behind the last dot.
        let header = json!({"alg": alg, "kid": kid}).to_string();
        ring.refuses("unsigned", &SigningKey::Nobody.token(&header, &claims));
        // The public key as a shared secret, in every form in which it is known.
        let jwk = key.jwk(kid);
        let mut secrets = vec![jwk.to_string().into_bytes(), ring.jwks.clone().into_bytes()];
        for part in ["n", "x", "y", "e"] {
            if let Some(text) = jwk[part].as_str() {
                secrets.push(text.as_bytes().to_vec());
                secrets.push(keyring_decode(text));
            }
        }
        for secret in secrets {
            let secret = SigningKey::Secret(secret);
            for claimed in ["HS256", alg] {
                let header = json!({"alg": claimed, "kid": kid}).to_string();
                ring.refuses("a public key as a secret", &secret.token(&header, &claims));
            }
        }
        // A right signature under another algorithm's name: the key's alone counts.
        for other in [
            "HS256", "HS384", "HS512", "RS384", "RS512", "PS256", "PS384", "PS512", "ES384",
            "ES512", "ES256K", "RS256", "ES256", "EdDSA", "Ed25519", "rs256", "es256", "eddsa",
        ] {
            if other != alg {
                let header = json!({"alg": other, "kid": kid}).to_string();
                ring.refuses(other, &key.token(&header, &claims));
            }
        }
        // Signed by one of our keys under the name of another one.
        for (other, _) in ring.keys().into_iter().filter(|(other, _)| *other != kid) {
            ring.refuses("of another name", &key.signed(other, &good_claims()));
        }
    }
    let SigningKey::Rsa(rsa) = ring.rsa else {
        panic!("an RSA key")
    };
    let sha512 = SigningKey::RsaSha512(rsa);
    for alg in ["RS256", "RS512"] {
        let header = json!({"alg": alg, "kid": "r1"}).to_string();
        let token = sha512.token(&header, &claims);
        let verdict = ring.set.check(&token, &issuer(), NOW);
        assert_eq!(verdict, Found::Verdict(Err(IdentityError::Invalid)));
    }
}

fn keyring_decode(text: &str) -> Vec<u8> {
    use base64::Engine;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    engine.decode(text).expect("of our own making")
}

#[test]
fn a_kid_is_only_compared() {
    let ring = ring();
    let stranger = SigningKey::ec();
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "file:///proc/sys/kernel/randomize_va_space",
        "https://evil.example/jwks.json",
        "e1' OR '1'='1",
        "e1'; DROP TABLE chat_users; --",
        "e1\u{0}",
        "e1 ",
        " e1",
        "E1",
        "*",
        "e1,r1",
        "",
        "${jndi:ldap://evil.example}",
        "|/usr/bin/id",
    ] {
        for (_, key) in ring.keys() {
            ring.refuses(kid, &key.signed(kid, &good_claims()));
        }
        ring.refuses(kid, &stranger.signed(kid, &good_claims()));
    }
    let long = "k".repeat(limits::KID_BYTES_MAX + 1);
    let token = ring.ec.signed(&long, &good_claims());
    // Not even looked for.
    let found = ring.set.check(&token, &issuer(), NOW);
    assert_eq!(found, Found::Verdict(Err(IdentityError::Invalid)));
    for kid in [json!(1), json!(["e1"]), json!({"e1": 1}), json!(true)] {
        let header = json!({"alg": "ES256", "kid": kid}).to_string();
        ring.refuses(
            "no string",
            &ring.ec.token(&header, &good_claims().to_string()),
        );
    }
}

#[test]
fn a_key_that_comes_with_the_token_is_not_taken() {
    let ring = ring();
    let claims = good_claims().to_string();
    for stranger in [SigningKey::rsa(), SigningKey::ec(), SigningKey::ed()] {
        let alg = stranger.alg();
        let certificate = base64url(b"a certificate");
        for (name, value) in [
            ("jwk", stranger.jwk("e1")),
            ("jku", json!("https://evil.example/jwks.json")),
            ("x5u", json!("https://evil.example/cert.pem")),
            ("x5c", json!([certificate])),
            ("crit", json!(["exp"])),
            ("crit", json!([])),
            ("b64", json!(false)),
            ("zip", json!("DEF")),
            ("zip", json!("GZIP")),
            ("enc", json!("A128GCM")),
            ("cty", json!("JWT")),
        ] {
            for kid in [Some("e1"), Some("stranger"), None] {
                let mut header = json!({"alg": alg, "typ": "JWT"});
                header[name] = value.clone();
                if let Some(kid) = kid {
                    header["kid"] = json!(kid);
                }
                ring.refuses(name, &stranger.token(&header.to_string(), &claims));
            }
            // And such a header is refused where the signature is ours.
            let mut header = json!({"alg": "ES256", "kid": "e1"});
            header[name] = value;
            ring.refuses(name, &ring.ec.token(&header.to_string(), &claims));
        }
    }
}

#[test]
fn claims_that_are_not_for_us_or_not_for_now_are_refused() {
    let ring = ring();
    for changes in [
        json!({"iss": "other"}),
        json!({"iss": null}),
        json!({"iss": ["caffis"]}),
        json!({"aud": "other"}),
        json!({"aud": null}),
        json!({"aud": []}),
        json!({"aud": ["other"]}),
        json!({"aud": {"caffis-chat": true}}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": "ada"}),
        json!({"sub": 7}),
        json!({"sub": format!("{USER}' OR '1'='1")}),
        json!({"exp": null}),
        json!({"exp": (NOW_S + 600).to_string()}),
        json!({"exp": NOW_S as f64 + 600.5}),
        json!({"exp": 1e300}),
        json!({"exp": u64::MAX}),
        json!({"exp": -1}),
        json!({"exp": true}),
        json!({"nbf": NOW_S + 61}),
        json!({"nbf": u64::MAX}),
        json!({"nbf": "0"}),
        json!({"iat": "now"}),
        json!({"iat": u64::MAX}),
        json!({"sid": 7}),
        json!({"name": 7}),
    ] {
        for (kid, key) in ring.keys() {
            let header = json!({"alg": key.alg(), "kid": kid}).to_string();
            let token = key.token(&header, &claims_with(&changes));
            ring.refuses(&changes.to_string(), &token);
        }
    }
    let expired = ring.ec.token(
        r#"{"alg":"ES256","kid":"e1"}"#,
        &claims_with(&json!({"exp": NOW_S - 60})),
    );
    assert_eq!(ring.check(&expired), Err(IdentityError::Expired));
}

#[test]
fn what_is_no_token_or_too_long_is_refused() {
    let ring = ring();
    let token = ring.ec.signed("e1", &good_claims());
    let parts: Vec<_> = token.split('.').collect();
    let long = claims_with(&json!({"filler": "x".repeat(7_000)}));
    let long = ring.ec.token(r#"{"alg":"ES256","kid":"e1"}"#, &long);
    assert!(long.len() > limits::TOKEN_BYTES_MAX);
    for broken in [
        String::new(),
        "..".to_owned(),
        format!("{}.{}", parts[0], parts[1]),
        format!("{token}.{}", parts[2]),
        format!("{token}="),
        token[..token.len() - 1].to_owned(),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(86)),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(8)),
        // ECDSA takes r = s = 0 from nobody.
        format!("{}.{}.{}", parts[0], parts[1], base64url(&[0; 64])),
        long,
    ] {
        ring.refuses(&broken, &broken);
    }
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        ring.refuses("changed", &changed);
    }
}

#[test]
fn only_public_keys_for_signatures_are_taken_from_a_set() {
    let ring = ring();
    let changed = |key: &SigningKey, changes: &Value| {
        let mut jwk = key.jwk("k");
        for (name, value) in changes.as_object().expect("an object") {
            jwk[name] = value.clone();
        }
        json!({"keys": [jwk]}).to_string()
    };
    let secret = SigningKey::Secret(b"0123456789abcdef0123456789abcdef".to_vec());
    for (key, changes) in [
        (&secret, json!({})),
        (&ring.rsa, json!({"use": "enc"})),
        (&ring.rsa, json!({"key_ops": ["encrypt"]})),
        (&ring.rsa, json!({"alg": "RS512"})),
        (&ring.rsa, json!({"alg": "HS256"})),
        (&ring.rsa, json!({"alg": "none"})),
        // 1,024 bits.
        (&ring.rsa, json!({"n": base64url(&[0xC1; 128])})),
        (&ring.rsa, json!({"n": 7})),
        (&ring.rsa, json!({"e": ""})),
        (&ring.ec, json!({"crv": "P-384"})),
        (&ring.ec, json!({"crv": "secp256k1"})),
        (&ring.ec, json!({"alg": "HS256"})),
        (&ring.ec, json!({"x": base64url(&[1; 31])})),
        (&ring.ed, json!({"crv": "X25519"})),
        (&ring.ed, json!({"x": "not base64!"})),
        (
            &ring.ed,
            json!({"kid": "k".repeat(limits::KID_BYTES_MAX + 1)}),
        ),
    ] {
        let set = KeySet::parse(changed(key, &changes).as_bytes());
        assert_eq!(set.err(), Some(KeySetProblem::NoUsableKey), "{changes}");
    }
    for no_set in ["", "[]", "null", "{}", "{\"keys\":{}}", "<html>"] {
        let set = KeySet::parse(no_set.as_bytes());
        assert_eq!(set.err(), Some(KeySetProblem::NoKeySet), "{no_set}");
    }
    let twice = json!({"keys": [ring.ec.jwk("k"), ring.rsa.jwk("k")]}).to_string();
    let set = KeySet::parse(twice.as_bytes());
    assert_eq!(set.err(), Some(KeySetProblem::KidTwice));
    let many: Vec<Value> = (0..=limits::KEYS_MAX)
        .map(|n| ring.ec.jwk(&n.to_string()))
        .collect();
    let set = KeySet::parse(json!({"keys": many}).to_string().as_bytes());
    assert_eq!(set.err(), Some(KeySetProblem::TooMany));
    // One that cannot be used does not spoil the others.
    let mixed =
        json!({"keys": [secret.jwk("s"), 7, {"kty": "XYZ"}, ring.ec.jwk("e1")]}).to_string();
    let set = KeySet::parse(mixed.as_bytes()).expect("a set");
    assert_eq!(set.len(), 1);
    // Of two keys of one algorithm an unnamed token means neither.
    let two = json!({"keys": [ring.ec.jwk("a"), SigningKey::ec().jwk("b")]}).to_string();
    let set = KeySet::parse(two.as_bytes()).expect("a set");
    let token = ring
        .ec
        .token(r#"{"alg":"ES256"}"#, &good_claims().to_string());
    let verdict = set.check(&token, &issuer(), NOW);
    assert_eq!(verdict, Found::Verdict(Err(IdentityError::Invalid)));
}

/// Verdicts that came later, each with the number under which it was asked for.
type Verdicts = Arc<Mutex<Vec<(usize, Result<Identity, IdentityError>)>>>;

/// The keys with a clock, and an issuer that is there or away.
struct World {
    keys: Keys,
    now_ms: u64,
    told: Verdicts,
    asked: usize,
    fetches: usize,
    issuer: Option<String>,
}

impl World {
    fn new(jwks: Option<String>) -> World {
        World {
            keys: Keys::new(issuer()),
            now_ms: 0,
            told: Verdicts::default(),
            asked: 0,
            fetches: 0,
            issuer: jwks,
        }
    }

    fn times(&self) -> Times {
        Times {
            mono_ms: self.now_ms,
            unix: UnixMs(NOW.0 + self.now_ms),
        }
    }

    /// Time passes, and what is due is done, a millisecond after the other.
    fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        loop {
            self.tell(self.keys.expire(self.times()));
            if self.keys.begin(self.times()) {
                self.fetches += 1;
                let fetched = self.issuer.as_ref();
                let fetched = fetched.and_then(|jwks| KeySet::parse(jwks.as_bytes()).ok());
                self.tell(self.keys.end(self.times(), fetched));
            }
            let due_ms = self.keys.due_ms();
            if due_ms > end_ms {
                self.now_ms = end_ms;
                return;
            }
            self.now_ms = due_ms.max(self.now_ms);
        }
    }

    fn tell(&self, told: Vec<(Decided, Result<Identity, IdentityError>)>) {
        for (decided, verdict) in told {
            decided(verdict);
        }
    }

    /// The verdict, or the number under which it comes later.
    fn ask(&mut self, token: &str) -> Result<Result<Identity, IdentityError>, usize> {
        self.asked += 1;
        let (number, told) = (self.asked, self.told.clone());
        let mut later = || -> Decided {
            let told = told.clone();
            Box::new(move |verdict| told.lock().expect("no panic").push((number, verdict)))
        };
        match self.keys.check(token, self.times(), &mut later) {
            Asked::Now(verdict) => Ok(verdict),
            Asked::Waits { .. } => Err(number),
        }
    }

    fn verdict(&self, number: usize) -> Option<Result<Identity, IdentityError>> {
        let told = self.told.lock().expect("no panic");
        let mut own = told.iter().filter(|(own, _)| *own == number);
        let verdict = own.next().map(|(_, verdict)| verdict.clone());
        assert!(own.next().is_none(), "told twice");
        verdict
    }
}

fn jwks(keys: &[(&str, &SigningKey)]) -> String {
    let keys: Vec<Value> = keys.iter().map(|(kid, key)| key.jwk(kid)).collect();
    json!({ "keys": keys }).to_string()
}

fn forever(key: &SigningKey, kid: &str) -> String {
    let mut claims = good_claims();
    claims["exp"] = json!(NOW_S + 100_000);
    key.signed(kid, &claims)
}

#[test]
fn the_first_sign_ins_wait_for_the_keys() {
    let key = SigningKey::ec();
    let mut world = World::new(Some(jwks(&[("a", &key)])));
    let good = world.ask(&forever(&key, "a")).expect_err("it waits");
    let unknown = world.ask(&forever(&key, "b")).expect_err("it waits");
    assert_eq!(world.verdict(good), None);
    world.pass(0);
    assert!(world.verdict(good).expect("told").is_ok());
    assert_eq!(world.verdict(unknown), Some(Err(IdentityError::Invalid)));
    assert!(world.ask(&forever(&key, "a")).expect("known").is_ok());
    assert_eq!(world.fetches, 1);
}

#[test]
fn a_rotation_is_noticed_by_the_first_token_of_the_new_key() {
    let (old, new) = (SigningKey::ec(), SigningKey::ed());
    let mut world = World::new(Some(jwks(&[("old", &old)])));
    world.pass(60_000);
    world.issuer = Some(jwks(&[("old", &old), ("new", &new)]));
    let waits = world.ask(&forever(&new, "new")).expect_err("it waits");
    // Those of the old key wait for nobody.
    assert!(world.ask(&forever(&old, "old")).expect("known").is_ok());
    world.pass(0);
    assert!(world.verdict(waits).expect("told").is_ok());
    assert_eq!(world.fetches, 2);
    // What the issuer has taken back is good for nothing after the next fetch.
    world.issuer = Some(jwks(&[("new", &new)]));
    world.pass(limits::KEYS_REFRESH_MS);
    assert_eq!(world.fetches, 3);
    let gone = world.ask(&forever(&old, "old"));
    assert!(!matches!(gone, Ok(Ok(_))), "{gone:?}");
}

#[test]
fn strangers_cannot_make_us_ask_the_issuer_more_often_than_once_in_30_s() {
    let (key, stranger) = (SigningKey::ec(), SigningKey::ec());
    let mut world = World::new(Some(jwks(&[("a", &key)])));
    world.pass(1_000);
    assert_eq!(world.fetches, 1);
    let mut unavailable = 0;
    let minutes = 9;
    for second in 0..minutes * 60 {
        for n in 0..20 {
            let token = forever(&stranger, &format!("{second}-{n}"));
            let verdict = world.ask(&token);
            unavailable += usize::from(verdict == Ok(Err(IdentityError::Unavailable)));
            assert!(!matches!(verdict, Ok(Ok(_))));
        }
        assert!(world.ask(&forever(&key, "a")).expect("known").is_ok());
        world.pass(1_000);
    }
    assert!(
        world.fetches <= 1 + 2 * minutes + 1,
        "{} fetches",
        world.fetches
    );
    assert!(unavailable > 0);
    let told = world.told.lock().expect("no panic");
    assert!(told.iter().all(|(_, verdict)| verdict.is_err()));
}

#[test]
fn an_issuer_that_is_away_for_10_minutes_harms_only_new_keys() {
    let (old, new) = (SigningKey::rsa(), SigningKey::ec());
    let mut world = World::new(Some(jwks(&[("old", &old)])));
    world.pass(limits::KEYS_REFRESH_MS - 1_000);
    world.issuer = None;
    for _ in 0..60 {
        assert!(world.ask(&forever(&old, "old")).expect("known").is_ok());
        let asked_ms = world.now_ms;
        match world.ask(&forever(&new, "new")) {
            Ok(verdict) => assert_eq!(verdict, Err(IdentityError::Unavailable)),
            Err(number) => {
                world.pass(limits::IDENTIFY_MS_MAX);
                assert_eq!(
                    world.verdict(number),
                    Some(Err(IdentityError::Unavailable)),
                    "asked at {asked_ms}"
                );
            }
        }
        world.pass(10_000);
    }
    assert!(world.fetches <= 40, "{} fetches", world.fetches);
    world.issuer = Some(jwks(&[("old", &old), ("new", &new)]));
    world.pass(limits::KEYS_ASK_MS);
    assert!(world.ask(&forever(&new, "new")).expect("known").is_ok());
}

#[test]
fn who_waits_is_answered_within_3_s_whatever_the_issuer_does() {
    let key = SigningKey::ec();
    let mut world = World::new(None);
    // The issuer takes the request and says nothing.
    assert!(world.keys.begin(world.times()));
    let waits = world.ask(&forever(&key, "a")).expect_err("it waits");
    world.pass(limits::IDENTIFY_MS_MAX - 1);
    assert_eq!(world.verdict(waits), None);
    world.pass(1);
    assert_eq!(world.verdict(waits), Some(Err(IdentityError::Unavailable)));
    // No more than so many wait at all.
    for _ in 0..limits::IDENTIFY_WAITING_MAX {
        world.ask(&forever(&key, "a")).expect_err("it waits");
    }
    let refused = world.ask(&forever(&key, "a"));
    assert_eq!(refused, Ok(Err(IdentityError::Unavailable)));
}

#[test]
fn what_the_issuer_says_of_a_token_holds_for_a_while() {
    let introspections = Introspections::new(issuer());
    let told: Verdicts = Verdicts::default();
    let at = |ms: u64| Times {
        mono_ms: ms,
        unix: UnixMs(NOW.0 + ms),
    };
    let ask = |number: usize, token: &str, ms: u64| {
        let mut later = || -> Decided {
            let told = told.clone();
            Box::new(move |verdict| told.lock().expect("no panic").push((number, verdict)))
        };
        introspections.check(token, None, at(ms), &mut later)
    };
    let answer = |body: Option<Value>, ms: u64| {
        let question = introspections.question().expect("a question");
        let body = body.map(|body| body.to_string());
        let body = body.as_ref().map(|body| body.as_bytes());
        for (decided, verdict) in introspections.answered(&question, body, at(ms)) {
            decided(verdict);
        }
    };
    let good = json!({"active": true, "sub": USER, "exp": NOW_S + 600, "name": "Ada"});
    // Two who ask about one token ask the issuer once.
    assert_eq!(ask(1, "opaque", 0), None);
    assert_eq!(ask(2, "opaque", 0), None);
    answer(Some(good.clone()), 10);
    assert!(introspections.question().is_none());
    let both: Vec<_> = told.lock().expect("no panic").drain(..).collect();
    assert_eq!(both.len(), 2);
    assert!(both.iter().all(|(_, verdict)| verdict.is_ok()));
    let held = ask(3, "opaque", limits::INTROSPECTED_MS).expect("known");
    assert_eq!(held.expect("good").name.as_deref(), Some("Ada"));
    assert_eq!(ask(4, "opaque", limits::INTROSPECTED_MS + 11), None);
    // Everything but a plain yes is a no.
    for (number, (body, verdict)) in [
        (json!({"active": false}), IdentityError::Invalid),
        (json!({"active": true}), IdentityError::Invalid),
        (json!({"active": true, "sub": USER}), IdentityError::Invalid),
        (
            json!({"active": "true", "sub": USER, "exp": NOW_S + 600}),
            IdentityError::Unavailable,
        ),
        (
            json!({"active": true, "sub": "ada", "exp": NOW_S + 600}),
            IdentityError::Invalid,
        ),
        (
            json!({"active": true, "sub": USER, "exp": 1}),
            IdentityError::Expired,
        ),
        (
            json!({"active": true, "sub": USER, "exp": NOW_S + 600, "iss": "other"}),
            IdentityError::Invalid,
        ),
        (
            json!({"active": true, "sub": USER, "exp": NOW_S + 600, "aud": "other"}),
            IdentityError::Invalid,
        ),
        (
            json!({"active": true, "sub": USER, "exp": NOW_S + 600, "nbf": NOW_S + 600}),
            IdentityError::Invalid,
        ),
        (json!([]), IdentityError::Unavailable),
    ]
    .into_iter()
    .enumerate()
    {
        if number > 0 {
            assert_eq!(ask(10 + number, &format!("t{number}"), 0), None);
        } else {
            told.lock().expect("no panic").clear();
        }
        answer(Some(body.clone()), 0);
        let last = told.lock().expect("no panic").pop().expect("told");
        assert_eq!(last.1, Err(verdict), "{body}");
    }
    // While it is away nothing is believed, and nothing is kept.
    const LATER: u64 = 100_000;
    assert_eq!(ask(30, "away", LATER), None);
    answer(None, LATER);
    let last = told.lock().expect("no panic").pop().expect("told");
    assert_eq!(last.1, Err(IdentityError::Unavailable));
    assert_eq!(ask(31, "away", LATER + 1), None);
    let late = introspections.expire(at(LATER + 1 + limits::IDENTIFY_MS_MAX));
    assert_eq!(late.len(), 1);
    assert!(introspections.question().is_none(), "nobody waits for it");
}
