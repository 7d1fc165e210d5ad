//! Tokens of the Main App: by its public keys, which rotate and are away at times, and by asking it.

use crate::keyring::SigningKey;
use crate::support::client::code_of;
use crate::support::main_app::MainApp;
use crate::support::server::start;
use crate::support::socket::{End, Socket};
use crate::support::token::{SECRET, now_s, signed};
use crate::support::wait::wait_until;
use crate::support::{Client, Server, User};
use serde_json::json;
use std::time::Duration;

fn ready_with(server: &Server, user: &User, token: &str) -> Client {
    let mut client = Client::new(Socket::open(server.address), user);
    let id = client.tell_auth(token, None);
    assert_eq!(client.reply(id)["type"], "ready");
    client
}

/// Signs in with this token and is refused; the code and how it was closed.
fn refused(server: &Server, token: &str) -> (String, u16) {
    let mut client = Client::new(Socket::open(server.address), &User::new("Eve"));
    let id = client.tell_auth(token, None);
    let code = code_of(&client.reply(id));
    match client.end() {
        End::Close(Some(close), _) => (code, close),
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_rotate_while_people_stay_connected() {
    let app = MainApp::start();
    let (old, new, forged) = (SigningKey::rsa(), SigningKey::ec(), SigningKey::ec());
    app.keys(&[("old", &old)]);
    let url = app.url("/jwks");
    let mut server = start(&[("CAFFIS_JWKS_URL", &url)]).anywhere();
    server.expect_log("issuer's keys cannot be fetched");
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let later_s = now_s() + 600;
    // The first sign-in may come before the keys.
    let mut first = ready_with(&server, &ada, &old.signed("old", &ada.claims(later_s)));
    let hmac = signed(&bob.claims(later_s), SECRET);
    let mut shared_secret = ready_with(&server, &bob, &hmac);

    // A forger's key under a known and an unknown name.
    let by_old = forged.signed("old", &ada.claims(later_s));
    assert_eq!(
        refused(&server, &by_old),
        ("unauthenticated".to_owned(), 4001)
    );
    let asked = app.asked("/jwks").len();
    for n in 0..20 {
        let unknown = forged.signed(&format!("../{n}"), &ada.claims(later_s));
        let (code, close) = refused(&server, &unknown);
        assert!(
            [("unauthenticated", 4001), ("unavailable", 4100)].contains(&(code.as_str(), close))
        );
    }
    assert!(app.asked("/jwks").len() <= asked + 1, "asked for each");

    // A new key is there half a minute later at the latest, and nobody was disconnected.
    app.keys(&[("new", &new)]);
    let token = new.signed("new", &ada.claims(later_s));
    wait_until_signed_in(&server, &ada, &token);
    let ack = first.ack("auth.refresh", &json!({"token": token}));
    assert!(ack["token_expires_at"].is_string());
    first.round_trip();
    shared_secret.round_trip();
    let gone = refused(&server, &old.signed("old", &ada.claims(later_s)));
    assert!(["unauthenticated", "unavailable"].contains(&gone.0.as_str()));

    // Away: those of known keys come and go, others are told to come again.
    app.redirects(true);
    ready_with(&server, &bob, &new.signed("new", &bob.claims(later_s))).round_trip();
    let stranger = SigningKey::ed();
    let (code, close) = refused(&server, &stranger.signed("newer", &bob.claims(later_s)));
    assert_eq!((code.as_str(), close), ("unavailable", 4100));
    first.round_trip();
}

fn wait_until_signed_in(server: &Server, user: &User, token: &str) {
    wait_until("the new key", || {
        let mut client = Client::new(Socket::open(server.address), user);
        let id = client.tell_auth(token, None);
        let reply = client.reply(id);
        if reply["type"] == "error" {
            assert_eq!(code_of(&reply), "unavailable");
            std::thread::park_timeout(Duration::from_millis(500));
        }
        reply["type"] == "ready"
    });
}

#[test]
fn the_main_app_is_asked_about_each_token_where_that_is_wanted() {
    let app = MainApp::start();
    let ada = User::new("Ada");
    let url = app.url("/introspect");
    let server = start(&[
        ("CAFFIS_INTROSPECTION_URL", &url),
        ("CAFFIS_MAIN_APP_TOKEN", "a-service-token"),
    ])
    .anywhere();
    app.says(&json!({"active": true, "sub": ada.id}));
    let token = ada.token();
    ready_with(&server, &ada, &token).round_trip();
    ready_with(&server, &ada, &token).round_trip();
    let asked = app.asked("/introspect");
    // The second time it is known.
    assert_eq!(asked.len(), 1, "{asked:?}");
    let request = &asked[0];
    assert!(
        request.starts_with("POST /introspect HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("authorization: Bearer a-service-token"),
        "{request}"
    );
    assert!(request.contains(&format!("token={token}&token_type_hint=access_token")));
    // No good, and of somebody else.
    for answer in [
        json!({"active": false}),
        json!({"active": true, "sub": User::new("Eve").id}),
    ] {
        app.says(&answer);
        let token = ada.token_until(now_s() + 900 + app.asked("/introspect").len() as i64);
        assert_eq!(
            refused(&server, &token),
            ("unauthenticated".to_owned(), 4001)
        );
    }
    // Forged ones are not asked about.
    let count = app.asked("/introspect").len();
    let forged = signed(
        &ada.claims(now_s() + 600),
        "another secret of more than 32 bytes long",
    );
    assert_eq!(
        refused(&server, &forged),
        ("unauthenticated".to_owned(), 4001)
    );
    assert_eq!(app.asked("/introspect").len(), count);
    assert!(!server.log().contains(&token), "a token in the log");
    assert!(
        !server.log().contains("a-service-token"),
        "a secret in the log"
    );
}
