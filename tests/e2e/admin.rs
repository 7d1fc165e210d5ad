//! The Admin API: what those who run the service see and do, that others may not, and that it is noted.

use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::client::uuid;
use crate::support::rest::{Rest, Told};
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::socket::{Socket, connect, upgrade_request};
use crate::support::wait::{wait_for, wait_until};
use crate::support::{Client, User};
use serde_json::{Value, json};
use uuid::Uuid;

/// Two tokens, as during a rotation.
pub const TOKENS: &str =
    "the-old-token-of-41-characters-0123456789,the-new-token-of-41-characters-9876543210";

fn token(which: usize) -> &'static str {
    TOKENS.split(',').nth(which).expect("two of them")
}

/// Who runs the service.
pub struct Service {
    rest: Rest,
    authorization: String,
}

impl Service {
    pub fn new(server: &Server) -> Service {
        Service::with(server, token(0))
    }

    fn with(server: &Server, token: &str) -> Service {
        Service {
            rest: Rest::new(server.address, &User::new("nobody")),
            authorization: format!("authorization: Bearer {token}"),
        }
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Told {
        let target = format!("/v1/admin/{path}");
        self.rest
            .ask_bare("GET", &target, &[&self.authorization], "")
    }

    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Told {
        let target = format!("/v1/admin/{path}");
        let lines = [&*self.authorization, "content-type: application/json"];
        self.rest
            .ask_bare("POST", &target, &lines, &body.to_string())
    }

    #[track_caller]
    pub fn put(&self, path: &str, body: &Value) -> Told {
        let target = format!("/v1/admin/{path}");
        let lines = [&*self.authorization, "content-type: application/json"];
        self.rest
            .ask_bare("PUT", &target, &lines, &body.to_string())
    }

    /// What was done, newest first: the operation and the outcome.
    fn audit(&self) -> Vec<(String, String)> {
        let audit = self.get("audit").is(200);
        let acts = audit["acts"].as_array().expect("acts");
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        acts.iter()
            .map(|act| (text(&act["act"]), text(&act["outcome"])))
            .collect()
    }
}

fn with_tokens<'a>(more: &[(&'a str, &'a str)]) -> server::Start<'a> {
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_ADMIN_TOKEN", TOKENS));
    settings.extend_from_slice(more);
    server::start(&settings)
}

/// Reads up to the end: told first that it ends, and when to come back.
fn disconnected(client: &mut Client) {
    let closing = client.event_of("server.closing");
    assert_eq!(closing["data"]["code"], 4102);
    assert!(closing["data"]["retry_after_ms"].as_u64() >= Some(1_000));
    client.closed_with(4102);
}

#[test]
fn without_a_token_in_the_settings_there_is_no_admin_api() {
    let server = Server::new();
    let service = Service::new(&server);
    service.get("users").is_problem(404, "not_found");
    service
        .post("drain", &json!({}))
        .is_problem(404, "not_found");
}

#[test]
fn who_has_no_service_token_learns_nothing() {
    let mut server = with_tokens(&[]).anywhere();
    server.expect_log("a wrong service token");
    let user = User::new("Ada");
    let rest = Rest::new(server.address, &user);
    let nobody = rest.ask_bare("GET", "/v1/admin/users", &[], "");
    nobody.is_problem(401, "unauthenticated");
    assert!(nobody.header("www-authenticate").is_some());
    // A user's token is no service token, nor is a service token a user's.
    rest.get("/v1/admin/users")
        .is_problem(401, "unauthenticated");
    let as_user = format!("authorization: Bearer {}", token(0));
    rest.ask_bare("GET", "/v1/rooms", &[&as_user], "")
        .is_problem(401, "unauthenticated");
    let twice = [&*as_user, &*as_user];
    rest.ask_bare("GET", "/v1/admin/users", &twice, "")
        .is_problem(401, "unauthenticated");
    // Both tokens of a rotation are good, and are told apart in the audit trail.
    for which in [0, 1] {
        let service = Service::with(&server, token(which));
        let target = format!("rooms/{}/messages", Uuid::new_v4());
        service.get(&target).is_problem(404, "not_found");
    }
    let audit = Service::new(&server).get("audit").is(200);
    assert_eq!(audit["acts"].as_array().map(Vec::len), Some(2));
    assert_ne!(audit["acts"][0]["who"], audit["acts"][1]["who"]);
    // Guessing ends soon, whatever comes then; what was not the token's fault is not counted.
    let refused = wait_for("the end of guessing", || {
        let told = Service::with(&server, "not-a-token-of-this-server-0123456789").get("users");
        (told.status == 429).then_some(told)
    });
    refused.is_problem(429, "rate_limited");
    let good = Service::new(&server).get("users");
    good.is_problem(429, "rate_limited");
    wait_until("a line of the log for each", || {
        server.log().matches("a wrong service token").count() == 10
    });
    let log = server.log();
    for secret in [token(0), token(1), "not-a-token", &user.token()] {
        assert!(!log.contains(secret), "a token in the log");
    }
}

#[test]
fn a_token_that_is_short_is_refused_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_caffis-chat"))
        .env_clear()
        .env("CAFFIS_DATA_DIR", folder.path())
        .env("CAFFIS_ADMIN_TOKEN", "thirty-one-characters-is-little")
        .output()
        .expect("it ends");
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("admin_token"), "{told}");
    assert!(!told.contains("thirty-one"), "{told}");
}

/// What there is is found, page by page, and shown with all that belongs to it.
fn looks(server: &Server, service: &Service) {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut clients = [server.connect_on(0, &ada), server.connect_on(1, &ada)];
    let mut bobs = server.connect(&bob);
    let room = clients[0].group(&[&bob]);
    clients[0].send(room, "Hello.");
    let seq = clients[0].send(room, "Goodbye.");
    bobs.wait_for_seq(room, seq);
    bobs.ack("user.block", &json!({"user_id": ada.id}));

    let retention = format!("rooms/{room}/retention");
    let kept = service.put(&retention, &json!({"days": 3_650})).is(200);
    assert_eq!(kept["days"], 3_650);
    let path = format!(
        "users?query={}",
        ada.name.to_uppercase().replace(' ', "%20")
    );
    let users = service.get(&path).is(200);
    assert_eq!(users["users"][0]["name"], ada.name, "{users}");
    let first = service.get("users?limit=1").is(200);
    assert_eq!(first["users"].as_array().map(Vec::len), Some(1));
    let cursor = first["next_cursor"].as_str().expect("more");
    let path = format!("users?limit=1&cursor={cursor}");
    assert_ne!(service.get(&path).is(200)["users"], first["users"]);
    for bad in [
        "users?cursor=x",
        "users?limit=0",
        "users?limit=x",
        "users?limit=1&limit=2",
    ] {
        service.get(bad).is_problem(400, "bad_request");
    }

    let one = service.get(&format!("users/{}", ada.id)).is(200);
    assert_eq!(one["name"], ada.name);
    assert_eq!(one["node"], "n1");
    assert_eq!(one["rooms"][0]["room_id"], json!(room));
    assert_eq!(one["rooms"][0]["role"], "owner");
    let shown = one["connections"].as_array().expect("connections");
    let mut ids: Vec<&Value> = shown.iter().map(|it| &it["connection_id"]).collect();
    ids.sort_by_key(|id| id.to_string());
    let mut own: Vec<&Value> = (clients.iter())
        .map(|client| &client.ready["connection_id"])
        .collect();
    own.sort_by_key(|id| id.to_string());
    assert_eq!(ids, own);
    assert_eq!(shown[0]["client"], "end-to-end 1.0.0");
    assert_eq!(shown[0]["address"], "127.0.0.1");
    let other = service.get(&format!("users/{}", bob.id)).is(200);
    assert_eq!(other["blocks"], json!([ada.id]));
    let nobody = format!("users/{}", Uuid::new_v4());
    service.get(&nobody).is_problem(404, "not_found");
    service.get("users/x").is_problem(400, "bad_request");

    let rooms = service.get(&format!("rooms?query={room}")).is(200);
    assert_eq!(rooms["rooms"][0]["member_count"], 2, "{rooms}");
    let shown = service.get(&format!("rooms/{room}")).is(200);
    assert_eq!(
        (&shown["messages"], &shown["last_seq"]),
        (&json!(2), &json!(seq))
    );
    assert_eq!(shown["members"].as_array().map(Vec::len), Some(2));
    let nowhere = format!("rooms/{}", Uuid::new_v4());
    service.get(&nowhere).is_problem(404, "not_found");
    let told = service
        .get(&format!("rooms/{room}/messages?limit=1"))
        .is(200);
    assert_eq!(told["messages"][0]["text"], "Goodbye.");
    let both = format!("rooms/{room}/messages?before_seq=1&after_seq=1");
    service.get(&both).is_problem(400, "bad_request");
    let (act, outcome) = &service.audit()[0];
    assert_eq!((&**act, &**outcome), ("admin.rooms.messages", "begun"));

    // Connections page by page, over both shards.
    let mut found = Vec::new();
    let mut path = "connections?limit=1".to_owned();
    loop {
        let page = service.get(&path).is(200);
        assert_eq!(page["node"], "n1");
        found.extend(page["connections"].as_array().expect("a page").clone());
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("connections?limit=1&cursor={cursor}");
    }
    for client in clients.iter().chain([&bobs]) {
        let id = &client.ready["connection_id"];
        let seen = found.iter().find(|it| it["connection_id"] == *id);
        let seen = seen.expect("it is there");
        assert_eq!(seen["user_id"], json!(client.user.id));
        assert_eq!(seen["shard"], json!(client.shard()));
    }
    let own = service
        .get(&format!("connections?user_id={}", bob.id))
        .is(200);
    assert_eq!(own["connections"].as_array().map(Vec::len), Some(1));
    service
        .get("connections?cursor=x")
        .is_problem(400, "bad_request");
}

/// All connections of a user end, those that come afterwards stay, and so do those of others.
fn disconnects(server: &Server, service: &Service) {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut clients = [server.connect_on(0, &ada), server.connect_on(1, &ada)];
    let mut bobs = server.connect(&bob);
    let path = format!("users/{}/disconnect", ada.id);
    let done = service
        .post(&path, &json!({"reason": "a stolen phone"}))
        .is(200);
    assert_eq!(
        (&done["user_id"], &done["code"]),
        (&json!(ada.id), &json!(4102))
    );
    for client in &mut clients {
        disconnected(client);
    }
    let mut back = [server.connect_on(0, &ada), server.connect_on(1, &ada)];
    bobs.round_trip();
    // Whatever is compared with the store finds them as new as they are.
    let shown = service.get(&format!("users/{}", ada.id)).is(200);
    assert_eq!(shown["version"], done["version"]);
    assert!(shown["sessions_ended_at"].is_string());
    back[0].direct(&bob);
    bobs.event_of("room.added");
    for client in &mut back {
        client.round_trip();
    }
    let audit = service.get("audit?limit=1").is(200);
    let act = &audit["acts"][0];
    assert_eq!(act["act"], "admin.users.disconnect");
    assert_eq!(act["target"], json!(ada.id));
    assert_eq!(act["detail"], "a stolen phone");
    assert_eq!(act["outcome"], "done");
    let nobody = format!("users/{}/disconnect", Uuid::new_v4());
    service
        .post(&nobody, &json!({}))
        .is_problem(404, "not_found");
    let long = json!({"reason": "x".repeat(1_001)});
    service.post(&path, &long).is_problem(413, "too_large");

    // One connection alone, by its whole name.
    let id = back[0].ready["connection_id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let wrong = format!("{}0", &id[..id.len() - 1]);
    let wrong = if wrong == id {
        format!("{}1", &id[..id.len() - 1])
    } else {
        wrong
    };
    for wrong in [&wrong, "9-0-0-00000000", "x", "0-4000000000-0-00000000"] {
        service
            .post(&format!("connections/{wrong}/disconnect"), &json!({}))
            .is_problem(404, "not_found");
    }
    let path = format!("connections/{id}/disconnect");
    assert_eq!(
        service.post(&path, &json!({})).is(200)["connection_id"],
        json!(id)
    );
    disconnected(&mut back[0]);
    back[1].round_trip();
    wait_until("it is gone", || {
        service.post(&path, &json!({})).status == 404
    });
}

/// What is reported is seen, judged and deleted for everybody.
fn reports(server: &Server, service: &Service) {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = [server.connect_on(0, &bob), server.connect_on(1, &bob)];
    let mut adas = server.connect(&ada);
    let room = adas.direct(&bob);
    let (good, bad) = (adas.send(room, "Hello."), adas.send(room, "An insult."));
    for seq in [good, bad] {
        bobs[0].ack(
            "message.report",
            &json!({"room_id": room, "message_seq": seq}),
        );
    }
    let open = || {
        let open = service.get("reports").is(200);
        let reports = open["reports"].as_array().expect("reports").clone();
        let own = reports
            .into_iter()
            .filter(|it| it["room_id"] == json!(room));
        own.collect::<Vec<Value>>()
    };
    let waiting = open();
    assert_eq!(waiting.len(), 2);
    assert_eq!(waiting[0]["sender_id"], json!(ada.id));
    assert_eq!(waiting[0]["reporter_id"], json!(bob.id));
    let resolve = |report: &Value, body: &Value| {
        let id = report["report_id"].as_str().expect("an id");
        service.post(&format!("reports/{id}/resolve"), body)
    };
    let dismissed = resolve(&waiting[0], &json!({"action": "dismiss"})).is(200);
    assert_eq!(dismissed["changed"], true);
    assert_eq!(dismissed["report"]["state"], "dismissed");
    let again = resolve(&waiting[0], &json!({"action": "dismiss"})).is(200);
    assert_eq!(again["changed"], false);

    let delete = json!({"action": "delete_message", "note": "insulting"});
    let deleted = resolve(&waiting[1], &delete).is(200);
    assert_eq!(deleted["changed"], true);
    assert_eq!(deleted["report"]["state"], "deleted");
    assert_eq!(deleted["report"]["note"], "insulting");
    // The room's next event, told to both and on all their connections.
    for client in bobs.iter_mut().chain([&mut adas]) {
        let told = client.event_of("message.deleted");
        assert_eq!(told["data"]["message_seq"], bad);
        assert_eq!(told["data"]["actor_id"], json!(Uuid::nil()));
        assert_eq!(told["seq"], bad + 1);
    }
    let next = adas.send(room, "Sorry.");
    assert_eq!(next, bad + 2);
    bobs[1].wait_for_seq(room, next);
    let history = bobs[1].history_after(room, 0);
    let tombstone = history.iter().find(|it| it["seq"] == bad).expect("it");
    assert!(tombstone["deleted_at"].is_string(), "{tombstone}");
    assert_eq!(tombstone["text"], Value::Null);
    assert_eq!(resolve(&waiting[1], &delete).is(200)["changed"], false);
    assert!(open().is_empty());
    let resolved = service.get("reports?state=resolved&limit=200").is(200);
    assert!(resolved["reports"].as_array().map(Vec::len) >= Some(2));
    let by = service.get(&format!("users/{}", bob.id)).is(200);
    assert_eq!(by["reports_by"].as_array().map(Vec::len), Some(2));
    let about = service.get(&format!("users/{}", ada.id)).is(200);
    assert_eq!(about["reports_about"].as_array().map(Vec::len), Some(2));
    // What there is no report of is not deleted this way.
    for id in [
        "x".to_owned(),
        format!("{}-1-{}", room.simple(), bob.id.simple()),
    ] {
        service
            .post(&format!("reports/{id}/resolve"), &delete)
            .is_problem(404, "not_found");
    }
    resolve(&waiting[0], &json!({"action": "burn"})).is_problem(400, "bad_request");
    let acts = service.audit();
    let outcomes: Vec<&str> = acts[..4].iter().map(|(_, outcome)| &**outcome).collect();
    assert_eq!(outcomes, ["unchanged", "done", "unchanged", "done"]);
}

/// It stops as when it is told to by a signal.
fn drains(service: &Service, server: Server) {
    let mut server = server;
    let user = User::new("Ada");
    let mut client = server.connect(&user);
    let told = service
        .post("drain", &json!({"reason": "a new kernel"}))
        .is(200);
    assert_eq!(
        (&told["node"], &told["drain_ms"]),
        (&json!("n1"), &json!(200))
    );
    client.event_of("server.draining");
    disconnected(&mut client);
    assert_eq!(server.ended().code(), Some(0));
}

/// Every operation.
pub fn everything() {
    let server = with_tokens(&[]).anywhere();
    let service = Service::new(&server);
    looks(&server, &service);
    disconnects(&server, &service);
    reports(&server, &service);
    drains(&service, server);
}

#[test]
fn those_who_run_it_look_disconnect_moderate_and_drain() {
    everything();
}

#[test]
fn those_who_run_it_look_disconnect_moderate_and_drain_on_postgres() {
    let postgres = PostgresServer::start("");
    let url = postgres.url(&postgres.database());
    let server = with_tokens(&[("CAFFIS_DATABASE_URL", &url)]).anywhere();
    let service = Service::new(&server);
    looks(&server, &service);
    disconnects(&server, &service);
    reports(&server, &service);
    drains(&service, server);
}

#[test]
fn a_client_behind_a_proxy_is_shown_with_its_own_address() {
    let server = with_tokens(&[("CAFFIS_TRUSTED_PROXIES", "127.0.0.0/8")]).anywhere();
    let service = Service::new(&server);
    let user = User::new("Ada");
    let request = upgrade_request(&["X-Forwarded-For: 198.51.100.1, 203.0.113.9"]);
    let socket = Socket::upgrade(connect(server.address), &request).expect("upgraded");
    let _client = Client::sign_in(socket, &user, None);
    let path = format!("connections?user_id={}", user.id);
    let shown = service.get(&path).is(200);
    assert_eq!(shown["connections"][0]["address"], "203.0.113.9");
}

#[test]
fn a_user_is_disconnected_on_all_nodes_with_redis_and_without() {
    let (postgres, mut redis) = (PostgresServer::start(""), Redis::start());
    let url = postgres.url(&postgres.database());
    let redis_url = redis.url();
    let settings = [
        ("CAFFIS_DATABASE_URL", &*url),
        ("CAFFIS_REDIS_URL", &*redis_url),
    ];
    let mut nodes: Vec<Server> = (0..2).map(|_| with_tokens(&settings).anywhere()).collect();
    for node in &mut nodes {
        // The relay says so when Redis is away.
        node.expect_log("relay");
    }
    let relay_is = |nodes: &[Server], up: f64| {
        for node in nodes {
            node.wait_for_metrics("the relay", |metrics| {
                metrics.sum("caffis_relay_up") == up * server::SHARDS as f64
            });
        }
    };
    relay_is(&nodes, 1.0);
    let service = Service::new(&nodes[0]);
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = nodes[1].connect(&bob);
    for redis_is_there in [true, false] {
        if !redis_is_there {
            redis.kill();
            relay_is(&nodes, 0.0);
        }
        let mut clients: Vec<Client> = nodes
            .iter()
            .flat_map(|node| [node.connect_on(0, &ada), node.connect_on(1, &ada)])
            .collect();
        let done = service.post(&format!("users/{}/disconnect", ada.id), &json!({}));
        done.is(200);
        for client in &mut clients {
            disconnected(client);
        }
        // Who comes back stays, on any node, also after all were compared with the store.
        let mut back: Vec<Client> = nodes.iter().map(|node| node.connect(&ada)).collect();
        let room = back[0].group(&[&bob]);
        bobs.event_of("room.added");
        let seq = back[0].send(room, "I am back.");
        if !back[1].positions.contains_key(&room) {
            back[1].event_of("room.added");
        }
        back[1].wait_for_seq(room, seq);
        for client in &mut back {
            client.round_trip();
        }
    }
    bobs.round_trip();
    // What the other node did stands in the one audit trail.
    assert_eq!(Service::new(&nodes[1]).audit().len(), 2);
}

#[test]
fn a_moderator_on_one_node_deletes_what_is_seen_on_another() {
    let postgres = PostgresServer::start("");
    let url = postgres.url(&postgres.database());
    let settings = [("CAFFIS_DATABASE_URL", &*url)];
    let nodes: Vec<Server> = (0..2).map(|_| with_tokens(&settings).anywhere()).collect();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = nodes[1].connect(&bob);
    let mut adas = nodes[1].connect(&ada);
    let room = adas.direct(&bob);
    let seq = adas.send(room, "An insult.");
    bobs.ack(
        "message.report",
        &json!({"room_id": room, "message_seq": seq}),
    );
    // The first node never held this room.
    let service = Service::new(&nodes[0]);
    let id = service.get("reports").is(200)["reports"][0]["report_id"].clone();
    let path = format!("reports/{}/resolve", id.as_str().expect("an id"));
    service
        .post(&path, &json!({"action": "delete_message"}))
        .is(200);
    for client in [&mut adas, &mut bobs] {
        let told = client.event_of("message.deleted");
        assert_eq!(told["data"]["message_seq"], seq);
        assert_eq!(uuid(&told["data"]["actor_id"]), Uuid::nil());
    }
}

#[test]
fn the_audit_trail_cannot_be_changed_by_statements() {
    let postgres = PostgresServer::start("");
    let database = postgres.database();
    let url = postgres.url(&database);
    let server = with_tokens(&[("CAFFIS_DATABASE_URL", &url)]).anywhere();
    let service = Service::new(&server);
    let path = format!("rooms/{}/messages", Uuid::new_v4());
    service.get(&path).is_problem(404, "not_found");
    for statement in [
        "UPDATE admin_audit SET who = 'nobody'",
        "DELETE FROM admin_audit",
        "TRUNCATE admin_audit",
    ] {
        let told = postgres.sql(
            &database,
            &format!(
                "DO $$ BEGIN {statement}; EXCEPTION WHEN raise_exception THEN
                     CREATE TEMP TABLE refused (); END $$;
                 SELECT count(*) FROM pg_class WHERE relname = 'refused'"
            ),
        );
        assert!(told.ends_with('1'), "{statement}: {told}");
    }
    assert_eq!(service.audit().len(), 1);
}

/// Every operation of the document that changes something, or reads what only its user may otherwise, leaves one entry
/// of its own name, whatever comes of it; and no other leaves any.
#[test]
fn every_act_leaves_one_entry_and_looking_leaves_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = with_tokens(&[]).within(folder.path());
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut adas = server.connect(&ada);
    let mut bobs = server.connect(&bob);
    let room = adas.group(&[&bob]);
    bobs.event_of("room.added");
    let mut reports = Vec::new();
    let service = Service::new(&server);
    for text in ["one", "two"] {
        let seq = adas.send(room, text);
        bobs.wait_for_seq(room, seq);
        bobs.ack(
            "message.report",
            &json!({"room_id": room, "message_seq": seq}),
        );
        let found = service.get("reports").is(200)["reports"].clone();
        reports = found.as_array().expect("reports").clone();
    }
    assert_eq!(reports.len(), 2);
    let report = |at: usize| reports[at]["report_id"].as_str().expect("an id").to_owned();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let connection = text(&adas.ready["connection_id"]);
    let hook = format!("msg_{}", Uuid::now_v7());
    // Operation, what its path names, its body, the answer, what the entry says of it. The last one, and draining, end what the
    // others need.
    let cases: Vec<(&str, Vec<String>, Value, u16, String)> = vec![
        (
            "admin_rooms_messages",
            vec![room.to_string()],
            Value::Null,
            200,
            room.to_string(),
        ),
        (
            "admin_users_export",
            vec![ada.id.to_string()],
            Value::Null,
            200,
            ada.id.to_string(),
        ),
        (
            "admin_rooms_retention",
            vec![room.to_string()],
            json!({"days": 3}),
            200,
            room.to_string(),
        ),
        (
            "admin_reports_resolve",
            vec![report(0)],
            json!({"action": "dismiss"}),
            200,
            report(0),
        ),
        (
            "admin_reports_resolve",
            vec![report(1)],
            json!({"action": "delete_message"}),
            200,
            report(1),
        ),
        (
            "admin_connections_disconnect",
            vec![connection.clone()],
            json!({}),
            200,
            connection,
        ),
        (
            "admin_users_disconnect",
            vec![bob.id.to_string()],
            json!({}),
            200,
            bob.id.to_string(),
        ),
        (
            "admin_webhooks_replay",
            vec!["map".to_owned(), "m1".to_owned()],
            json!({}),
            404,
            "map/m1".to_owned(),
        ),
        (
            "admin_webhooks_out_replay",
            vec![hook.clone()],
            json!({}),
            200,
            hook,
        ),
        (
            "admin_webhooks_out_enable",
            vec![],
            json!({}),
            200,
            String::new(),
        ),
        (
            "admin_users_erase",
            vec![bob.id.to_string()],
            json!({}),
            200,
            bob.id.to_string(),
        ),
    ];
    let drain = "admin_drain";
    let entries = |service: &Service| {
        let audit = service.get("audit?limit=200").is(200);
        audit["acts"].as_array().expect("acts").clone()
    };
    let document: Value =
        serde_json::from_str(include_str!("../../docs/openapi.json")).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let mut operations = std::collections::BTreeMap::new();
    for (path, methods) in paths
        .iter()
        .filter(|(path, _)| path.starts_with("/v1/admin/"))
    {
        for (method, operation) in methods.as_object().expect("methods") {
            operations.insert(
                text(&operation["operationId"]),
                (path, method.to_uppercase()),
            );
        }
    }
    let named = |path: &str, names: &[String]| {
        let mut names = names.iter();
        let filled = path.split('/').map(|part| match part.starts_with('{') {
            true => names.next().expect("a name for each").as_str(),
            false => part,
        });
        filled.collect::<Vec<_>>().join("/")
    };
    let ask = |method: &str, target: &str, body: &Value| {
        let lines = [&*service.authorization, "content-type: application/json"];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        service.rest.ask_bare(method, target, &lines, &body)
    };
    // Of whom there is an erasure to look at.
    let eve = User::new("Eve");
    drop(server.connect(&eve));
    service
        .post(&format!("users/{}/erase", eve.id), &json!({}))
        .is(200);
    for (id, (path, method)) in &operations {
        if id == drain || cases.iter().any(|(of, ..)| of == id) {
            continue;
        }
        assert_eq!(method, "GET", "{id} has no case here");
        let before = entries(&service);
        let names = [if path.contains("room_id") {
            room.to_string()
        } else if id == "admin_users_erasure" {
            eve.id.to_string()
        } else {
            ada.id.to_string()
        }];
        let told = ask(method, &named(path, &names), &Value::Null);
        assert_eq!(told.status, 200, "{id}: {}", told.body);
        assert_eq!(entries(&service), before, "{id} only looks");
    }
    for (id, names, body, status, target) in cases {
        let (path, method) = &operations[id];
        let before = entries(&service).len();
        // The archive is no JSON, and what is read of it here is its head.
        if id == "admin_users_export" {
            assert!(
                crate::export::fetch(&server, &names[0])
                    .0
                    .starts_with("http/1.0 200")
            );
        } else {
            let told = ask(method, &named(path, &names), &body);
            assert_eq!(told.status, status, "{id}");
        }
        let after = entries(&service);
        assert_eq!(after.len(), before + 1, "{id}: {after:?}");
        assert_eq!(text(&after[0]["act"]).replace('.', "_"), id);
        assert_eq!(
            after[0]["target"].as_str().unwrap_or_default(),
            target,
            "{id}"
        );
        assert!(!text(&after[0]["who"]).is_empty() && !text(&after[0]["at"]).is_empty());
    }
    // The one after which nobody can be asked any more.
    let before = entries(&service).len();
    assert!(operations.contains_key(drain));
    service.post("drain", &json!({})).is(200);
    assert_eq!(server.ended().code(), Some(0));
    let server = with_tokens(&[]).within(folder.path());
    let after = entries(&Service::new(&server));
    assert_eq!(after.len(), before + 1, "{after:?}");
    assert_eq!(
        (&after[0]["act"], &after[0]["target"]),
        (&json!("admin.drain"), &json!("n1"))
    );
}
