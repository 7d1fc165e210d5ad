//! The Main App as a process, on both databases, asked over real HTTP.

#[path = "../../support/mod.rs"]
mod support;

use example_kit::client::{self, Answer};
use hyper::Method;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use support::{Chat, DEADLINE, Mood, OTHER_SECRET, SECRET, Service, postgres};

const CHAT_PAGE: &str = "http://chat.test";

fn start(database: &str, chat: &Chat) -> Service {
    Service::start(
        env!("CARGO_BIN_EXE_main-app"),
        &[
            ("MAIN_APP_LISTEN", "127.0.0.1:0"),
            ("MAIN_APP_DATABASE_URL", database),
            ("MAIN_APP_SHOW_CODES", "1"),
            ("MAIN_APP_CHAT_URL", CHAT_PAGE),
            ("MAIN_APP_WEBHOOK_URL", &chat.url),
            ("MAIN_APP_WEBHOOK_SECRET", SECRET),
            ("MAIN_APP_CHAT_WEBHOOK_SECRET", SECRET),
            ("MAIN_APP_MAP_WEBHOOK_URL", &chat.url),
            ("MAIN_APP_INTROSPECTION_TOKEN", "introspection"),
            ("MAIN_APP_ADMIN_TOKEN", "operator"),
        ],
    )
}

/// A person with a session, and their id.
async fn sign_up(app: &Service, name: &str, more: Value) -> (String, String) {
    let mut asked = json!({"email": format!("{name}@example.org"), "name": name});
    if let Some(invitation) = more.get("invitation") {
        asked["invitation"] = invitation.clone();
    }
    let sent = app.get("POST", "/v1/signup", "", asked).await;
    let proof = json!({"challenge": sent["challenge"], "code": sent["code"], "bearer": true});
    let told = app.get("POST", "/v1/verify", "", proof).await;
    (text(&told["session"]), text(&told["user_id"]))
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

async fn introspect(app: &Service, shown: &str, token: &str) -> Answer {
    let bearer = format!("Bearer {shown}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    let (url, body) = (
        format!("{}/introspect", app.url),
        format!("token={token}").into_bytes(),
    );
    client::request(Method::POST, &url, &headers, body, DEADLINE)
        .await
        .expect("an answer")
}

async fn keys(app: &Service) -> JwkSet {
    let set = app
        .get("GET", "/.well-known/jwks.json", "", Value::Null)
        .await;
    serde_json::from_value(set).expect("a set of keys")
}

/// The claims of a token, checked with the key that it names of this set.
fn claims(token: &str, keys: &JwkSet) -> Option<Value> {
    let kid = jsonwebtoken::decode_header(token).ok()?.kid?;
    let key = DecodingKey::from_jwk(keys.find(&kid)?).ok()?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&["caffis"]);
    validation.set_audience(&["caffis-chat"]);
    Some(jsonwebtoken::decode(token, &key, &validation).ok()?.claims)
}

async fn codes_prove_addresses(app: &Service) {
    let ask = json!({"email": "guess@example.org", "name": "Guess"});
    let sent = app.get("POST", "/v1/signup", "", ask).await;
    let right = text(&sent["code"]);
    let wrong = if right == "000000" {
        "000001"
    } else {
        "000000"
    };
    for _ in 0..5 {
        let guess = json!({"challenge": sent["challenge"], "code": wrong});
        app.refuses(401, "POST", "/v1/verify", "", guess).await;
    }
    let proof = json!({"challenge": sent["challenge"], "code": right});
    app.refuses(401, "POST", "/v1/verify", "", proof).await;
    // Whether an address is known is not told before it is proved.
    let sent = app
        .get(
            "POST",
            "/v1/login",
            "",
            json!({"email": "nobody@example.org"}),
        )
        .await;
    let proof = json!({"challenge": sent["challenge"], "code": sent["code"]});
    app.refuses(404, "POST", "/v1/verify", "", proof).await;
    for (email, name) in [
        ("no address", "Ada"),
        ("@", "Ada"),
        ("ada@example.org", " "),
        ("ada@example.org", "\u{7}"),
    ] {
        app.refuses(
            400,
            "POST",
            "/v1/signup",
            "",
            json!({"email": email, "name": name}),
        )
        .await;
    }
    for _ in 0..9 {
        app.get(
            "POST",
            "/v1/login",
            "",
            json!({"email": "guess@example.org"}),
        )
        .await;
    }
    app.refuses(
        429,
        "POST",
        "/v1/login",
        "",
        json!({"email": "guess@example.org"}),
    )
    .await;
}

async fn tokens_outlive_a_rotation(app: &Service, session: &str, user_id: &str) {
    let before = keys(app).await;
    assert_eq!(before.keys.len(), 2, "the one that signs, and the next");
    let token = |told: Value| text(&told["token"]);
    let old = token(app.get("POST", "/v1/token", session, json!({})).await);
    let told = claims(&old, &before).expect("a valid token");
    assert_eq!(
        (text(&told["sub"]), text(&told["name"])),
        (user_id.to_owned(), "Ada".to_owned())
    );
    app.refuses(401, "POST", "/admin/rotate", "guess", json!({}))
        .await;
    app.get("POST", "/admin/rotate", "operator", json!({}))
        .await;
    let (new, after) = (
        token(app.get("POST", "/v1/token", session, json!({})).await),
        keys(app).await,
    );
    assert!(
        claims(&new, &before).is_some(),
        "who has the set of before knows the new key"
    );
    assert!(
        claims(&old, &after).is_some(),
        "tokens of before stay valid"
    );
    let kid = |token: &str| jsonwebtoken::decode_header(token).expect("a header").kid;
    assert_ne!(kid(&old), kid(&new));
    assert_eq!(after.keys.len(), 3);
    for (token, active) in [
        (old.as_str(), true),
        (&new, true),
        (&new[..new.len() - 6], false),
        ("x", false),
    ] {
        let answer = introspect(app, "introspection", token).await;
        assert_eq!(
            (answer.status, answer.json()["active"].as_bool()),
            (200, Some(active)),
            "{token}"
        );
        if active {
            assert_eq!(text(&answer.json()["sub"]), user_id);
        } else {
            assert_eq!(
                answer.json(),
                json!({"active": false}),
                "nothing else is told"
            );
        }
    }
    assert_eq!(introspect(app, "guess", &new).await.status, 401);
}

async fn pages_ask_with_the_cookie(app: &Service) {
    let sent = app
        .get("POST", "/v1/login", "", json!({"email": "ada@example.org"}))
        .await;
    let proof = json!({"challenge": sent["challenge"], "code": sent["code"]});
    let answer = app.ask("POST", "/v1/verify", "", proof.clone()).await;
    assert_eq!(answer.json().get("session"), None, "no script sees it");
    app.refuses(401, "POST", "/v1/verify", "", proof).await;
    let set = answer.headers["set-cookie"].to_str().expect("text");
    assert!(set.contains("; HttpOnly; SameSite=Lax"), "{set}");
    let cookie = set.split(';').next().expect("a pair");
    let ask = async |method: &str, path: &str, origin: &str| {
        app.ask_with(
            method,
            path,
            &[("cookie", cookie), ("origin", origin)],
            json!({}),
        )
        .await
    };
    let answer = ask("POST", "/v1/token", CHAT_PAGE).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["access-control-allow-origin"], CHAT_PAGE);
    assert_eq!(answer.headers["access-control-allow-credentials"], "true");
    assert_eq!(ask("OPTIONS", "/v1/token", CHAT_PAGE).await.status, 204);
    // Other pages may ask nothing, and this page nothing else.
    for (path, origin) in [
        ("/v1/token", "http://evil.test"),
        ("/v1/logout", CHAT_PAGE),
        ("/v1/logout", "null"),
    ] {
        let answer = ask("POST", path, origin).await;
        assert_eq!(answer.status, 403, "{path} {origin}");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    assert_eq!(ask("POST", "/v1/logout", &app.url).await.status, 204);
    assert_eq!(ask("POST", "/v1/token", CHAT_PAGE).await.status, 401);
}

async fn pushes_are_shown_and_taken_back(app: &Service, (session, user_id): (&str, &str)) {
    let shown = async || {
        let told = app.get("GET", "/v1/notifications", session, Value::Null);
        let told = told.await;
        let all = told["notifications"].as_array().expect("a list").clone();
        let lines: Vec<String> = all
            .iter()
            .map(|it| format!("{}: {}", text(&it["title"]), text(&it["text"])))
            .collect();
        (lines, told["badge"].as_i64().expect("a number"))
    };
    let push = |room: &str, seq: i64, preview: Value, badge: i64| {
        let is_group = room == "group";
        json!({
            "user_id": user_id, "room_id": room, "room_kind": if is_group { "group" } else { "direct" },
            "room_title": is_group.then_some("Friday"), "message_seq": seq,
            "sent_at": format!("2026-01-01T00:00:0{seq}.000Z"), "sender_id": "b", "sender_name": "Bob",
            "message_kind": if preview.is_null() { "image" } else { "text" }, "preview": preview,
            "mentioned": false, "unread": 1, "badge": badge,
        })
    };
    let now = (SECRET, 0);
    assert_eq!(shown().await, (vec![], 0));
    let first = push("direct", 1, json!("Coffee?"), 1);
    for wrong in [(OTHER_SECRET, 0), (SECRET, 400), (SECRET, -400)] {
        assert_eq!(app.told(wrong, "1", "push.required", &first).await, 401);
    }
    assert_eq!(shown().await, (vec![], 0), "what is not signed is nothing");
    let broken = json!({"user_id": user_id});
    assert_eq!(app.told(now, "1", "push.required", &broken).await, 400);
    for _ in 0..2 {
        assert_eq!(app.told(now, "1", "push.required", &first).await, 204);
    }
    let second = push("group", 2, Value::Null, 2);
    assert_eq!(app.told(now, "2", "push.required", &second).await, 204);
    let both = ["Bob in Friday: a picture", "Bob: Coffee?"].map(str::to_owned);
    assert_eq!(shown().await, (both.to_vec(), 2));

    let read =
        json!({"user_id": user_id, "room_id": "direct", "up_to_seq": 1, "unread": 0, "badge": 1});
    assert_eq!(app.told(now, "3", "push.cancelled", &read).await, 204);
    assert_eq!(shown().await, (both[..1].to_vec(), 1));
    // Our answer was lost: what was taken back stays away.
    assert_eq!(app.told(now, "1", "push.required", &first).await, 204);
    assert_eq!(shown().await, (both[..1].to_vec(), 1));
    // Whom we do not know, and what we do not use.
    let mut stranger = push("direct", 3, json!("?"), 9);
    stranger["user_id"] = json!("nobody");
    assert_eq!(app.told(now, "4", "push.required", &stranger).await, 204);
    assert_eq!(
        app.told(now, "5", "message.reported", &json!({})).await,
        204
    );
    assert_eq!(shown().await, (both[..1].to_vec(), 1));
    app.refuses(401, "GET", "/v1/notifications", "", Value::Null)
        .await;
}

async fn new_rooms_are_passed_on(app: &Service, map: &mut Chat) {
    let room = json!({"room_id": "r", "kind": "direct", "member_ids": ["a", "b"]});
    map.is(Mood::Busy);
    let status = app.told((SECRET, 0), "room", "room.created", &room).await;
    assert_eq!(status, 503, "the chat is to send it again");
    map.is(Mood::Answers);
    let status = app.told((SECRET, 0), "room", "room.created", &room).await;
    assert_eq!(status, 204);
    for is_answered in [false, true] {
        let passed = map.next_of("room.created").await;
        assert_eq!(
            (passed.id.as_str(), &passed.data, passed.answered),
            ("room", &room, is_answered)
        );
    }
}

async fn the_whole_story(database: &str) {
    let mut chat = Chat::start().await;
    let app = start(database, &chat);
    codes_prove_addresses(&app).await;

    let (ada, ada_id) = sign_up(&app, "Ada", Value::Null).await;
    let created = chat.next().await;
    let wanted = json!({"user_id": ada_id, "version": 1, "name": "Ada", "picture": null});
    assert_eq!(
        (created.kind.as_str(), created.data),
        ("user.created", wanted)
    );
    pushes_are_shown_and_taken_back(&app, (&ada, &ada_id)).await;
    new_rooms_are_passed_on(&app, &mut chat).await;
    tokens_outlive_a_rotation(&app, &ada, &ada_id).await;
    pages_ask_with_the_cookie(&app).await;
    assert_eq!(chat.next_of("session.revoked").await.data["version"], 2);

    let change = json!({"name": " Ada L. ", "picture": "https://example.org/ada.png", "preferences": {"language": "de"}});
    let me = app.get("PATCH", "/v1/me", &ada, change).await;
    assert_eq!(
        (&me["name"], &me["version"], &me["preferences"]),
        (&json!("Ada L."), &json!(3), &json!({"language": "de"}))
    );
    let updated = chat.next_of("user.updated").await.data;
    assert_eq!(
        (&updated["name"], &updated["version"]),
        (&json!("Ada L."), &json!(3))
    );
    for bad in [
        json!({"name": ""}),
        json!({"picture": "javascript:alert(1)"}),
        json!({"preferences": {"": "x"}}),
    ] {
        app.refuses(400, "PATCH", "/v1/me", &ada, bad).await;
    }
    assert_eq!(
        app.get("GET", "/v1/me", &ada, Value::Null).await,
        me,
        "what is refused changes nothing"
    );

    let invitation = app.get("POST", "/v1/invitations", &ada, json!({})).await["code"].clone();
    let (bob, bob_id) = sign_up(&app, "Bob", json!({"invitation": invitation})).await;
    let again = json!({"email": "cleo@example.org", "name": "Cleo", "invitation": invitation});
    app.refuses(400, "POST", "/v1/signup", "", again).await;

    // A lost phone: another session of hers ends, not one of somebody else.
    let sent = app
        .get("POST", "/v1/login", "", json!({"email": "ada@example.org"}))
        .await;
    let phone = json!({"challenge": sent["challenge"], "code": sent["code"], "bearer": true});
    let phone = app.get("POST", "/v1/verify", "", phone).await;
    let path = format!("/v1/sessions/{}", text(&phone["session_id"]));
    app.refuses(404, "DELETE", &path, &bob, Value::Null).await;
    let token = text(
        &app.get("POST", "/v1/token", &text(&phone["session"]), json!({}))
            .await["token"],
    );
    app.get("DELETE", &path, &ada, Value::Null).await;
    let revoked = chat.next_of("session.revoked").await.data;
    assert_eq!(
        (&revoked["sid"], text(&revoked["user_id"])),
        (&phone["session_id"], ada_id)
    );
    assert_eq!(
        introspect(&app, "introspection", &token).await.json(),
        json!({"active": false})
    );
    app.refuses(
        401,
        "POST",
        "/v1/token",
        &text(&phone["session"]),
        json!({}),
    )
    .await;
    app.get("POST", "/v1/token", &ada, json!({})).await;

    app.refuses(
        401,
        "POST",
        &format!("/admin/users/{bob_id}/suspend"),
        "guess",
        json!({}),
    )
    .await;
    app.get(
        "POST",
        &format!("/admin/users/{bob_id}/suspend"),
        "operator",
        json!({}),
    )
    .await;
    assert_eq!(
        text(&chat.next_of("user.suspended").await.data["user_id"]),
        bob_id
    );
    app.refuses(401, "GET", "/v1/me", &bob, Value::Null).await;
    let sent = app
        .get("POST", "/v1/login", "", json!({"email": "bob@example.org"}))
        .await;
    let proof = json!({"challenge": sent["challenge"], "code": sent["code"]});
    app.refuses(403, "POST", "/v1/verify", "", proof).await;
    let restore = format!("/admin/users/{bob_id}/restore");
    app.get("POST", &restore, "operator", json!({})).await;
    assert_eq!(
        chat.next_of("user.updated").await.data["suspended"],
        json!(false)
    );
    let bob = app
        .get("POST", "/v1/login", "", json!({"email": "bob@example.org"}))
        .await;
    let bob = json!({"challenge": bob["challenge"], "code": bob["code"]});
    app.get("POST", "/v1/verify", "", bob).await;
    app.get(
        "DELETE",
        &format!("/admin/users/{bob_id}"),
        "operator",
        Value::Null,
    )
    .await;
    let deleted = chat.next_of("user.deleted").await.data;
    assert_eq!(
        (&deleted["name"], &deleted["picture"]),
        (&json!("Deleted user"), &Value::Null)
    );
    app.refuses(
        404,
        "DELETE",
        &format!("/admin/users/{bob_id}"),
        "operator",
        Value::Null,
    )
    .await;
    // The address is free again.
    let (_, other) = sign_up(&app, "Bob", Value::Null).await;
    assert_ne!(other, bob_id);
}

async fn events_outlive_a_kill(database: &str) {
    let mut chat = Chat::start().await;
    let app = start(database, &chat);
    let (ada, _) = sign_up(&app, "Ada", Value::Null).await;
    assert_eq!(chat.next().await.kind, "user.created");
    // One is taken, and the answer lost; the others have not been sent, or were refused for now.
    chat.is(Mood::Silent);
    app.get("PATCH", "/v1/me", &ada, json!({"name": "Ada 2"}))
        .await;
    let taken = chat.next().await;
    chat.is(Mood::Busy);
    for version in 3..=20 {
        app.get(
            "PATCH",
            "/v1/me",
            &ada,
            json!({"name": format!("Ada {version}")}),
        )
        .await;
    }
    app.kill();
    chat.is(Mood::Answers);
    let app = start(database, &chat);
    let mut missing: BTreeSet<i64> = (2..=20).collect();
    while !missing.is_empty() {
        let event = chat.next().await;
        let version = event.data["version"].as_i64().expect("a version");
        assert_eq!(event.data["name"], format!("Ada {version}"));
        assert_eq!(
            event.id == taken.id,
            version == 2,
            "one event, one id, whatever is tried"
        );
        // What was refused before the kill is heard here, too.
        if event.answered {
            missing.remove(&version);
        }
    }
    assert_eq!(
        app.get("GET", "/v1/me", &ada, Value::Null).await["version"],
        20
    );
}

#[tokio::test]
async fn the_story_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    the_whole_story(&format!(
        "sqlite:{}",
        folder.path().join("app.db").display()
    ))
    .await;
}

#[tokio::test]
async fn the_story_on_postgresql() {
    let server = postgres::shared();
    the_whole_story(&server.url(&server.database())).await;
}

#[tokio::test]
async fn no_event_is_lost_by_a_kill_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    events_outlive_a_kill(&format!(
        "sqlite:{}",
        folder.path().join("app.db").display()
    ))
    .await;
}

#[tokio::test]
async fn no_event_is_lost_by_a_kill_on_postgresql() {
    let server = postgres::shared();
    events_outlive_a_kill(&server.url(&server.database())).await;
}
