//! The Map Service as a process, on both databases, asked over real HTTP by users of a made-up Main App.

#[path = "../../support/mod.rs"]
mod support;

use axum::Json;
use axum::routing::get;
use example_kit::now_ms;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use support::{Chat, Mood, OTHER_SECRET, SECRET, Service, postgres, until};
use uuid::Uuid;

/// A key of RFC 8410's kind: PKCS #8 around 32 bytes, and the public half of it as base64url.
struct Key {
    kid: &'static str,
    pkcs8: [u8; 48],
    x: String,
}

fn key(kid: &'static str, seed: u8) -> Key {
    let mut pkcs8 = [seed; 48];
    pkcs8[..16].copy_from_slice(&[
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ]);
    let key = EncodingKey::from_ed_der(&pkcs8);
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::EdDSA).expect("a key");
    let x = json!(jwk)["x"].as_str().expect("x").to_owned();
    Key { kid, pkcs8, x }
}

/// Who people are, as far as the map asks.
struct MainApp {
    url: String,
    published: Arc<Mutex<Vec<Value>>>,
}

impl MainApp {
    async fn start() -> MainApp {
        let published = Arc::new(Mutex::new(Vec::new()));
        let own = published.clone();
        let jwks = move || {
            let keys = own.lock().expect("not poisoned").clone();
            async move { Json(json!({"keys": keys})) }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let router = axum::Router::new().route("/.well-known/jwks.json", get(jwks));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let app = MainApp { url, published };
        app.publish(&key("first", 1));
        app
    }

    fn publish(&self, key: &Key) {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.kid, "x": key.x});
        self.published.lock().expect("not poisoned").push(jwk);
    }
}

fn token_of(key: &Key, claims: &Value) -> String {
    let header = Header {
        kid: Some(key.kid.to_owned()),
        ..Header::new(Algorithm::EdDSA)
    };
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&key.pkcs8)).expect("signed")
}

fn claims_of(user: Uuid, name: &str) -> Value {
    let exp = now_ms() / 1_000 + 600;
    json!({"sub": user, "name": name, "iss": "caffis", "aud": ["caffis-chat", "caffis-map"], "exp": exp})
}

fn token(user: Uuid, name: &str) -> String {
    token_of(&key("first", 1), &claims_of(user, name))
}

fn start(database: &str, app: &MainApp, chat: &Chat, invite_seconds: &str) -> Service {
    Service::start(
        env!("CARGO_BIN_EXE_map-service"),
        &[
            ("MAP_LISTEN", "127.0.0.1:0"),
            ("MAP_DATABASE_URL", database),
            ("MAP_MAIN_APP_URL", &app.url),
            ("MAP_WEBHOOK_URL", &chat.url),
            ("MAP_WEBHOOK_SECRET", SECRET),
            ("MAP_CHAT_WEBHOOK_SECRET", SECRET),
            ("MAP_INVITE_SECONDS", invite_seconds),
        ],
    )
}

const HERE: &str = "lat=48.2080&lon=16.3694&radius_m=";

async fn tokens_are_checked(map: &Service, app: &MainApp) {
    let path = format!("/v1/places?{HERE}100");
    let (user, first) = (Uuid::new_v4(), key("first", 1));
    let with = |name: &str, value: Value| {
        let mut claims = claims_of(user, "Eve");
        claims[name] = value;
        token_of(&first, &claims)
    };
    let past = now_ms() / 1_000 - 120;
    // What the public key signs as a shared secret is the oldest trick.
    let hmac = Header {
        kid: Some("first".to_owned()),
        ..Header::new(Algorithm::HS256)
    };
    let hmac = jsonwebtoken::encode(
        &hmac,
        &claims_of(user, "Eve"),
        &EncodingKey::from_secret(first.x.as_bytes()),
    );
    for bad in [
        "",
        "x",
        &with("exp", past.into()),
        &with("aud", "caffis-chat".into()),
        &with("iss", "eve".into()),
        &token_of(&key("first", 2), &claims_of(user, "Eve")),
        &token_of(&key("unknown", 1), &claims_of(user, "Eve")),
        &hmac.expect("signed"),
    ] {
        map.refuses(401, "GET", &path, bad, Value::Null).await;
    }
    map.get("GET", &path, &token(user, "Eve"), Value::Null)
        .await;
    // A key that is new is fetched, if a little later.
    let second = key("second", 2);
    app.publish(&second);
    until("the new key is known", async || {
        let answer = map
            .ask(
                "GET",
                &path,
                &token_of(&second, &claims_of(user, "Eve")),
                Value::Null,
            )
            .await;
        (answer.status == 200).then_some(())
    })
    .await;
}

async fn the_whole_story(database: &str) {
    let (mut chat, app) = (Chat::start().await, MainApp::start().await);
    let map = start(database, &app, &chat, "3600");
    tokens_are_checked(&map, &app).await;
    let (ada_id, bob_id, cleo_id) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let (ada, bob, cleo) = (
        token(ada_id, "Ada"),
        token(bob_id, "Bob"),
        token(cleo_id, "Cleo"),
    );

    let near = map
        .get("GET", &format!("/v1/places?{HERE}250"), &ada, Value::Null)
        .await;
    let near = near["places"].as_array().expect("places").clone();
    assert_eq!(near[0]["name"], "Café Hawelka");
    let distances: Vec<f64> = near
        .iter()
        .map(|place| place["distance_m"].as_f64().expect("m"))
        .collect();
    assert!(
        near.len() > 1 && distances.is_sorted() && distances.iter().all(|m| *m <= 250.0),
        "{distances:?}"
    );
    let far = map
        .get("GET", &format!("/v1/places?{HERE}10000"), &ada, Value::Null)
        .await;
    assert!(far["places"].as_array().expect("places").len() >= 25);
    map.refuses(400, "GET", "/v1/places?lat=91&lon=0", &ada, Value::Null)
        .await;
    map.refuses(
        400,
        "GET",
        &format!("/v1/places?{HERE}60000"),
        &ada,
        Value::Null,
    )
    .await;

    let place = near[0]["place_id"].as_str().expect("an id").to_owned();
    let favorite = format!("/v1/me/favorites/{place}");
    for (method, is) in [("PUT", true), ("PUT", true), ("DELETE", false)] {
        map.get(method, &favorite, &ada, Value::Null).await;
        let near = map
            .get("GET", &format!("/v1/places?{HERE}10"), &ada, Value::Null)
            .await;
        assert_eq!(near["places"][0]["favorite"], is);
    }
    map.refuses(404, "PUT", "/v1/me/favorites/nowhere", &ada, Value::Null)
        .await;

    map.get(
        "PUT",
        "/v1/me/location",
        &bob,
        json!({"lat": 48.2093, "lon": 16.3700}),
    )
    .await;
    map.get(
        "PUT",
        "/v1/me/location",
        &ada,
        json!({"lat": 48.2080, "lon": 16.3694}),
    )
    .await;
    let people = map
        .get("GET", &format!("/v1/people?{HERE}500"), &ada, Value::Null)
        .await;
    assert_eq!(
        people["people"],
        json!([{"user_id": bob_id, "name": "Bob", "distance_m": 200.0, "room_id": null}])
    );
    let leads_to = async || {
        let path = format!("/v1/people?{HERE}500");
        let people = map.get("GET", &path, &ada, Value::Null).await;
        people["people"][0]["room_id"].clone()
    };
    let room = |id: &str, kind: &str| json!({"room_id": id, "kind": kind, "title": null, "created_by": bob_id, "member_count": 2, "member_ids": [ada_id, bob_id]});
    let (direct, group) = (room("a", "direct"), room("b", "group"));
    let mut of_three = room("0", "group");
    of_three["member_ids"] = json!([ada_id, bob_id, cleo_id]);
    for wrong in [(OTHER_SECRET, 0), (SECRET, 400)] {
        assert_eq!(map.told(wrong, "1", "room.created", &group).await, 401);
    }
    assert_eq!(leads_to().await, Value::Null);
    let of_three_leads = map.told((SECRET, 0), "3", "room.created", &of_three).await;
    assert_eq!((of_three_leads, leads_to().await), (204, Value::Null));
    for (told, leads) in [(&group, "b"), (&group, "b"), (&direct, "a"), (&group, "a")] {
        assert_eq!(map.told((SECRET, 0), "2", "room.created", told).await, 204);
        assert_eq!(leads_to().await, leads, "the direct room, if there is one");
    }

    let invite_id = Uuid::new_v4();
    let asked = json!({"invitee_id": bob_id, "place_id": place, "invite_id": invite_id});
    for _ in 0..2 {
        let told = map.get("POST", "/v1/invites", &ada, asked.clone()).await;
        assert_eq!(told["invite_id"], json!(invite_id));
    }
    map.refuses(409, "POST", "/v1/invites", &cleo, asked).await;
    map.refuses(
        400,
        "POST",
        "/v1/invites",
        &ada,
        json!({"invitee_id": ada_id, "place_id": place}),
    )
    .await;
    map.refuses(
        404,
        "POST",
        "/v1/invites",
        &ada,
        json!({"invitee_id": bob_id, "place_id": "nowhere"}),
    )
    .await;
    let accept = format!("/v1/invites/{invite_id}/accept");
    for other in [&ada, &cleo] {
        map.refuses(404, "POST", &accept, other, json!({})).await;
    }
    for changed in [true, false] {
        let told = map.get("POST", &accept, &bob, json!({})).await;
        assert_eq!(told, json!({"status": "accepted", "changed": changed}));
    }
    map.refuses(
        409,
        "POST",
        &format!("/v1/invites/{invite_id}/decline"),
        &bob,
        json!({}),
    )
    .await;
    let event = chat.next().await;
    assert_eq!(event.kind, "meetup.invite.accepted");
    let place = json!({"place_id": place, "name": "Café Hawelka", "lat": 48.2080, "lon": 16.3694});
    let wanted = json!({"invite_id": invite_id, "inviter_id": ada_id, "invitee_id": bob_id, "title": "Coffee at Café Hawelka", "place": place});
    assert_eq!(event.data, wanted);
    for who in [&ada, &bob] {
        let invite = until("the room is known", async || {
            let all = map.get("GET", "/v1/invites", who, Value::Null).await;
            (all["invites"][0]["room_id"] == "the room").then(|| all["invites"][0].clone())
        })
        .await;
        assert_eq!(
            (&invite["status"], &invite["inviter"], &invite["invitee"]),
            (&json!("accepted"), &json!("Ada"), &json!("Bob"))
        );
    }
    assert_eq!(
        map.get("GET", "/v1/invites", &cleo, Value::Null).await["invites"],
        json!([])
    );

    let other = json!({"invitee_id": bob_id, "place_id": place["place_id"], "title": "Once more"});
    let declined = map.get("POST", "/v1/invites", &ada, other.clone()).await["invite_id"].clone();
    let path = |what: &str| format!("/v1/invites/{}/{what}", declined.as_str().expect("an id"));
    map.get("POST", &path("decline"), &bob, json!({})).await;
    map.refuses(409, "POST", &path("accept"), &bob, json!({}))
        .await;
    map.kill();

    // Invites that are over at once.
    let map = start(database, &app, &chat, "0");
    let over = map.get("POST", "/v1/invites", &ada, other.clone()).await["invite_id"].clone();
    map.refuses(
        409,
        "POST",
        &format!("/v1/invites/{}/accept", over.as_str().expect("an id")),
        &bob,
        json!({}),
    )
    .await;
    let all = map.get("GET", "/v1/invites", &bob, Value::Null).await;
    let states: Vec<&str> = all["invites"]
        .as_array()
        .expect("all")
        .iter()
        .filter_map(|one| one["status"].as_str())
        .collect();
    assert_eq!(states, ["expired", "declined", "accepted"]);
}

async fn accepted_invites_outlive_a_kill(database: &str) {
    let (mut chat, app) = (Chat::start().await, MainApp::start().await);
    let map = start(database, &app, &chat, "3600");
    let (ada_id, bob_id) = (Uuid::new_v4(), Uuid::new_v4());
    let (ada, bob) = (token(ada_id, "Ada"), token(bob_id, "Bob"));
    let near = map
        .get("GET", &format!("/v1/places?{HERE}100"), &ada, Value::Null)
        .await;
    let place = near["places"][0]["place_id"].clone();
    let mut missing = std::collections::BTreeSet::new();
    chat.is(Mood::Silent);
    for number in 0..10 {
        let asked =
            json!({"invitee_id": bob_id, "place_id": place, "title": format!("Coffee {number}")});
        let id = map.get("POST", "/v1/invites", &ada, asked).await["invite_id"]
            .as_str()
            .expect("an id")
            .to_owned();
        map.get("POST", &format!("/v1/invites/{id}/accept"), &bob, json!({}))
            .await;
        missing.insert(id);
    }
    // One at least was taken without an answer; most were not even sent.
    let taken = chat.next().await;
    map.kill();
    chat.is(Mood::Answers);
    let map = start(database, &app, &chat, "3600");
    while !missing.is_empty() {
        let event = chat.next().await;
        if event.answered {
            missing.remove(event.data["invite_id"].as_str().expect("an id"));
            let is_same = event.data["invite_id"] == taken.data["invite_id"];
            assert_eq!(event.id == taken.id, is_same, "one event, one id");
        }
    }
    until("every invite has its room", async || {
        let all = map.get("GET", "/v1/invites", &ada, Value::Null).await;
        let invites = all["invites"].as_array().expect("all");
        (invites.len() == 10 && invites.iter().all(|one| one["room_id"] == "the room"))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_story_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    the_whole_story(&format!(
        "sqlite:{}",
        folder.path().join("map.db").display()
    ))
    .await;
}

#[tokio::test]
async fn the_story_on_postgresql() {
    let server = postgres::shared();
    the_whole_story(&server.url(&server.database())).await;
}

#[tokio::test]
async fn no_accepted_invite_is_lost_by_a_kill_on_sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    accepted_invites_outlive_a_kill(&format!(
        "sqlite:{}",
        folder.path().join("map.db").display()
    ))
    .await;
}

#[tokio::test]
async fn no_accepted_invite_is_lost_by_a_kill_on_postgresql() {
    let server = postgres::shared();
    accepted_invites_outlive_a_kill(&server.url(&server.database())).await;
}
