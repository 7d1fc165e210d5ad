//! Webhooks: of the Map Service, by which two people get a room, and of the Main App, which says what becomes of accounts.

use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::client::uuid;
use crate::support::rest::Rest;
use crate::support::server::{self, NO_LIMIT};
use crate::support::socket::{End, Socket};
use crate::support::token::{SECRET, now_s, signed};
use crate::support::wait::{DEADLINE, wait_until};
use crate::support::webhooks::{MAP, SECRETS, Webhook, sign};
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};
use uuid::Uuid;

fn one_node() -> Server {
    server::start(&[NO_LIMIT, SECRETS].concat()).anywhere()
}

/// Two nodes on one database, with what they need alive.
struct Two {
    nodes: [Server; 2],
    postgres: PostgresServer,
    database: String,
    _redis: Redis,
}

fn two_nodes() -> Two {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let database = postgres.database();
    let (url, redis_url) = (postgres.url(&database), redis.url());
    let nodes = ["a", "b"].map(|name| {
        let mut settings = [NO_LIMIT, SECRETS].concat();
        settings.push(("CAFFIS_DATABASE_URL", &*url));
        settings.push(("CAFFIS_REDIS_URL", &*redis_url));
        settings.push(("CAFFIS_NODE", name));
        server::start(&settings).anywhere()
    });
    Two {
        nodes,
        postgres,
        database,
        _redis: redis,
    }
}

fn room_in(added: &Value) -> Uuid {
    uuid(&added["data"]["room"]["room_id"])
}

#[test]
fn an_invite_makes_one_room_and_tells_both() {
    let server = one_node();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut adas = server.connect(&ada);
    let began = Instant::now();
    let webhook = Webhook::invite("i1", ada.id, bob.id);
    let body = webhook.taken(server.address);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(body["created"], true);
    let room = uuid(&body["room_id"]);
    let added = adas.event_of("room.added");
    assert_eq!(room_in(&added), room);
    assert_eq!(
        added["data"]["last_seq"], 1,
        "room.created is event number 1"
    );
    let view = &added["data"]["room"];
    assert_eq!(
        (&view["kind"], &view["title"]),
        (&json!("group"), &json!("Coffee"))
    );
    let members = view["members"].as_array().expect("members");
    let names: BTreeMap<Uuid, &str> = members
        .iter()
        .map(|member| {
            (
                uuid(&member["user_id"]),
                member["name"].as_str().expect("a name"),
            )
        })
        .collect();
    assert_eq!(names, BTreeMap::from([(ada.id, &*ada.name), (bob.id, "")]));

    // The same webhook, and the same invite by others: the same room, and nobody is told again.
    assert_eq!(webhook.taken(server.address), body);
    let again = Webhook::invite("i1", ada.id, bob.id).taken(server.address);
    assert_eq!(again, json!({"room_id": room, "created": false}));
    let renamed = json!({
        "invite_id": "i1", "inviter_id": ada.id, "invitee_id": bob.id, "title": "Tea",
    });
    let renamed = Webhook::map("meetup.invite.accepted", &renamed).taken(server.address);
    assert_eq!(renamed, json!({"room_id": room, "created": false}));
    let other = Webhook::invite("i2", ada.id, bob.id).taken(server.address);
    assert_eq!(other["created"], true);
    assert_eq!(
        room_in(&adas.event_of("room.added")),
        uuid(&other["room_id"])
    );
    adas.round_trip();
    assert_eq!(adas.take_event_of("room.added"), None);

    // Who was known by their id alone comes, with a name, and finds it.
    let mut bobs = server.connect(&bob);
    let got = bobs.ack("room.get", &json!({"room_id": room}));
    let members = got["room"]["members"].as_array().expect("members");
    assert!(
        members.iter().any(|member| member["name"] == bob.name),
        "{got}"
    );
    let seq = adas.send(room, "Where are you?");
    bobs.wait_for_seq(room, seq);
}

#[test]
fn what_is_not_signed_changes_nothing() {
    let server = one_node();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut adas = server.connect(&ada);
    let good = Webhook::invite("i1", ada.id, bob.id);
    let old = |by_s| {
        let body: Value = serde_json::from_str(&good.body).expect("JSON");
        Webhook::at(good.path, MAP, &body, now_s() + by_s)
    };
    let other_body = good.body.replace("i1", "i2");
    for (what, forged) in [
        (
            "another body",
            Webhook {
                body: other_body,
                ..good.clone()
            },
        ),
        (
            "another id",
            Webhook {
                id: "msg_1".to_owned(),
                ..good.clone()
            },
        ),
        (
            "another time",
            Webhook {
                timestamp: (now_s() - 1).to_string(),
                ..good.clone()
            },
        ),
        (
            "no signature",
            Webhook {
                signature: String::new(),
                ..good.clone()
            },
        ),
        ("old", old(-310)),
        ("from the future", old(310)),
        (
            "of the other sender",
            Webhook {
                path: "/v1/webhooks/main-app",
                ..good.clone()
            },
        ),
    ] {
        let (status, body) = forged.send(server.address);
        assert_eq!(
            (status, &body["code"]),
            (401, &json!("unauthenticated")),
            "{what}: {body}"
        );
    }
    adas.round_trip();
    assert_eq!(adas.take_event_of("room.added"), None);
    assert_eq!(good.taken(server.address)["created"], true);
    // An id means one body.
    let other = json!({"type": "meetup.invite.accepted", "data": {}}).to_string();
    let again = Webhook {
        signature: sign(MAP, &good.id, &good.timestamp, &other),
        body: other,
        ..good.clone()
    };
    assert_eq!(again.send(server.address).0, 409);

    // Signed, and no event of ours.
    for data in [
        json!({}),
        json!({"invite_id": "i", "inviter_id": ada.id, "invitee_id": ada.id}),
    ] {
        let (status, body) = Webhook::map("meetup.invite.accepted", &data).send(server.address);
        assert_eq!((status, &body["code"]), (400, &json!("bad_request")));
    }
    let unknown = Webhook::map("meetup.cancelled", &json!({"invite_id": "i1"}));
    let nothing = json!({"room_id": null, "created": false});
    assert_eq!(unknown.taken(server.address), nothing);
    let unknown = Webhook::main_app("user.exploded", &json!({}));
    assert_eq!(unknown.taken(server.address), json!({"applied": false}));

    // Two of whom one blocks the other get none, and the sender need not ask again.
    adas.ack("user.block", &json!({"user_id": bob.id}));
    let blocked = Webhook::invite("i3", bob.id, ada.id).taken(server.address);
    assert_eq!(blocked, nothing);

    let deaf = Server::new();
    assert_eq!(
        Webhook::invite("i1", ada.id, bob.id).send(deaf.address).0,
        401
    );
}

fn profile(user: &User, version: u64, name: &str) -> Webhook {
    let data = json!({"user_id": user.id, "version": version, "name": name, "picture": null});
    Webhook::main_app("user.updated", &data)
}

/// Waits until this client was told that a user is called so.
fn wait_called(client: &mut Client, user: &User, name: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(
            Instant::now() < deadline,
            "{} is not called {name}",
            user.name
        );
        let event = client.event_of("user.updated");
        let data = &event["data"];
        if data["user_id"] == user.id.to_string() && data["name"] == name {
            return;
        }
    }
}

#[test]
fn a_new_profile_is_told_to_who_shares_a_room_and_an_older_one_is_not() {
    let server = one_node();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let (mut bobs, mut eves) = (server.connect(&bob), server.connect(&eve));
    let mut adas = server.connect(&ada);
    let room = adas.direct(&bob);
    adas.group(&[&bob]);
    let applied = |webhook: Webhook| webhook.taken(server.address)["applied"] == true;
    assert!(applied(profile(&ada, 5, "Augusta")));
    wait_called(&mut bobs, &ada, "Augusta");
    wait_called(&mut adas, &ada, "Augusta");
    assert!(!applied(profile(&ada, 4, "Byron")));
    assert!(!applied(profile(&ada, 5, "Byron")));
    assert!(applied(profile(&ada, 6, "King")));
    wait_called(&mut bobs, &ada, "King");
    bobs.round_trip();
    assert_eq!(
        bobs.take_event_of("user.updated"),
        None,
        "once for all rooms"
    );
    eves.round_trip();
    assert_eq!(eves.take_event_of("user.updated"), None, "shares no room");
    // What her token says is older.
    let mut again = server.connect(&ada);
    let got = again.ack("room.get", &json!({"room_id": room}));
    let members = got["room"]["members"].as_array().expect("members");
    assert!(
        members.iter().any(|member| member["name"] == "King"),
        "{got}"
    );
}

/// A token of this session.
fn token_of(user: &User, sid: Option<&str>, iat_s: Option<i64>) -> String {
    let mut claims = user.claims(now_s() + 600);
    if let Some(sid) = sid {
        claims["sid"] = json!(sid);
    }
    if let Some(iat) = iat_s {
        claims["iat"] = json!(iat);
    }
    signed(&claims, SECRET)
}

fn ready_with(server: &Server, user: &User, token: &str) -> Client {
    let mut client = Client::new(Socket::open(server.address), user);
    let id = client.tell_auth(token, None);
    let reply = client.reply(id);
    assert_eq!(reply["type"], "ready", "{reply}");
    client
}

/// How a sign-in with this token is closed; `None`: it is not.
fn closed_at_once(server: &Server, user: &User, token: &str) -> Option<u16> {
    let mut client = Client::new(Socket::open(server.address), user);
    let id = client.tell_auth(token, None);
    if client
        .reply_or_end(id)
        .is_ok_and(|reply| reply["type"] == "ready")
    {
        return None;
    }
    match client.end() {
        End::Close(code, _) => code,
        other => panic!("{other:?}"),
    }
}

/// Ends of sessions by the Main App, told to the first of these nodes.
fn ends(nodes: &[Server]) {
    let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
    let ada = User::new("Ada");
    let account = |name: &str, version: u64, more: Value| {
        let mut data = json!({"user_id": ada.id, "version": version});
        for (name, value) in more.as_object().expect("an object") {
            data[name] = value.clone();
        }
        Webhook::main_app(name, &data).taken(first.address)["applied"] == true
    };
    let phone = token_of(&ada, Some("phone"), Some(now_s()));
    let laptop = token_of(&ada, Some("laptop"), Some(now_s()));
    // One session of two, on every node.
    let mut phones: Vec<Client> = nodes
        .iter()
        .map(|it| ready_with(it, &ada, &phone))
        .collect();
    let mut laptops: Vec<Client> = nodes
        .iter()
        .map(|it| ready_with(it, &ada, &laptop))
        .collect();
    let began = Instant::now();
    assert!(account("session.revoked", 3, phones_end()));
    for client in &mut phones {
        client.closed_with(4001);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    for client in &mut laptops {
        client.round_trip();
        let refused = client.refusal("auth.refresh", &json!({"token": phone}));
        assert_eq!(refused, "unauthenticated");
    }
    for node in nodes {
        assert_eq!(closed_at_once(node, &ada, &phone), Some(4001));
        let rest = rest_status(node, &phone);
        assert_eq!(rest, 401);
        assert_eq!(rest_status(node, &laptop), 200);
    }
    assert!(!account("session.revoked", 3, phones_end()), "twice");

    // Suspended, and back: what comes late changes nothing.
    assert!(account("user.suspended", 10, json!({})));
    for client in &mut laptops {
        client.closed_with(4003);
    }
    for node in nodes {
        assert_eq!(closed_at_once(node, &ada, &laptop), Some(4003));
        assert_eq!(rest_status(node, &laptop), 403);
    }
    assert!(account(
        "user.updated",
        12,
        json!({"name": "Ada", "suspended": false})
    ));
    assert!(!account("user.suspended", 11, json!({})));
    wait_until("she is back", || {
        closed_at_once(last, &ada, &laptop).is_none()
    });
    wait_until("over HTTP too", || rest_status(last, &laptop) == 200);

    // All that began so far.
    let mut client = ready_with(last, &ada, &laptop);
    assert!(account("session.revoked", 13, json!({})));
    client.closed_with(4001);
    assert_eq!(closed_at_once(last, &ada, &laptop), Some(4001));
    let later = token_of(&ada, Some("laptop"), Some(now_s() + 5));
    let mut client = ready_with(last, &ada, &later);

    assert!(account("user.deleted", 14, json!({})));
    client.closed_with(4011);
    for node in nodes {
        assert_eq!(closed_at_once(node, &ada, &later), Some(4011));
    }
    assert!(!account(
        "user.updated",
        20,
        json!({"name": "Ada", "suspended": false})
    ));
}

/// Of one session, with the time until which its tokens count: without it, that depends on when it is told.
fn phones_end() -> Value {
    json!({"sid": "phone", "expires_at": "2040-01-01T00:00:00.000Z"})
}

fn rest_status(server: &Server, token: &str) -> u16 {
    let status = |path: &str| {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        let stream = crate::support::socket::connect(server.address);
        let answer = crate::support::socket::http(stream, &request);
        answer.expect("an answer").status
    };
    // Whoever is refused is refused in everything. First what looks into no room: it must not be told by the other.
    let me = status("/v1/users/me");
    match (me, status("/v1/rooms")) {
        (me, rooms) if me == rooms => rooms,
        // What changes between the two is no refusal of one alone.
        (_, rooms) => {
            assert_eq!(status("/v1/users/me"), rooms);
            rooms
        }
    }
}

#[test]
fn the_main_app_ends_sessions() {
    ends(&[one_node()]);
}

#[test]
fn the_main_app_ends_sessions_on_every_node() {
    let two = two_nodes();
    ends(&two.nodes);
}

/// A generator whose numbers are the same each time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.next() as usize % (at + 1));
        }
    }
}

/// Waits until all of them have ended, while these clients stay.
fn attend_until<T>(senders: &[ScopedJoinHandle<'_, T>], clients: &mut [Client]) {
    while !senders.iter().all(ScopedJoinHandle::is_finished) {
        clients.iter_mut().for_each(Client::attend);
    }
}

/// 2,000 deliveries of 100 invites, repeated, out of order, at the same time on two nodes, every tenth of them forged
/// or stale.
#[test]
fn a_storm_of_invites_makes_each_room_once() {
    const INVITES: usize = 100;
    const DELIVERIES: usize = 2_000;
    let two = two_nodes();
    let hosts: Vec<User> = (0..10).map(|_| User::new("Host")).collect();
    let guests: Vec<User> = (0..10).map(|_| User::new("Guest")).collect();
    let mut clients: Vec<Client> = Vec::new();
    for (n, user) in hosts.iter().chain(&guests).enumerate() {
        clients.push(two.nodes[n % 2].connect(user));
    }
    let invites: Vec<Webhook> = (0..INVITES)
        .map(|n| Webhook::invite(&format!("i{n}"), hosts[n / 10].id, guests[n % 10].id))
        .collect();
    let mut numbers = Numbers(42);
    let mut deliveries: Vec<(usize, bool, Webhook)> = (0..DELIVERIES)
        .map(|n| {
            let invite = n % INVITES;
            let webhook = &invites[invite];
            let body: Value = serde_json::from_str(&webhook.body).expect("JSON");
            let round = n / INVITES;
            // Some are the very same webhook, others another one of the same invite.
            match (round + invite) % 10 {
                3 => (
                    invite,
                    false,
                    Webhook {
                        signature: "v1,AAAA".to_owned(),
                        ..webhook.clone()
                    },
                ),
                7 if round.is_multiple_of(2) => (
                    invite,
                    false,
                    Webhook::at(webhook.path, MAP, &body, now_s() - 400),
                ),
                5 | 7 => (invite, true, Webhook::new(webhook.path, MAP, &body)),
                _ => (invite, true, webhook.clone()),
            }
        })
        .collect();
    numbers.shuffle(&mut deliveries);
    let rooms: Mutex<BTreeMap<usize, BTreeSet<Uuid>>> = Mutex::default();
    let next = Mutex::new(deliveries.into_iter());
    std::thread::scope(|scope| {
        let sender = |sender: usize| {
            let (rooms, next, nodes) = (&rooms, &next, &two.nodes);
            scope.spawn(move || {
                loop {
                    let delivery = next.lock().expect("not poisoned").next();
                    let Some((invite, is_good, webhook)) = delivery else {
                        return;
                    };
                    let (status, body) = webhook.send(nodes[sender % 2].address);
                    if !is_good {
                        assert_eq!(status, 401, "{body}");
                        continue;
                    }
                    assert_eq!(status, 200, "{body}");
                    let room = uuid(&body["room_id"]);
                    rooms
                        .lock()
                        .expect("not poisoned")
                        .entry(invite)
                        .or_default()
                        .insert(room);
                }
            })
        };
        attend_until(&(0..8).map(sender).collect::<Vec<_>>(), &mut clients);
    });
    let rooms = rooms.into_inner().expect("not poisoned");
    assert_eq!(rooms.len(), INVITES);
    assert!(rooms.values().all(|of_invite| of_invite.len() == 1));
    let all: BTreeSet<Uuid> = rooms.into_values().flatten().collect();
    assert_eq!(all.len(), INVITES);
    let count = |table: &str| {
        two.postgres
            .sql(&two.database, &format!("SELECT count(*) FROM {table}"))
    };
    assert_eq!(count("chat_rooms"), INVITES.to_string());
    assert_eq!(count("messages"), INVITES.to_string(), "one event each");
    assert_eq!(count("webhook_inbox WHERE status IS NULL"), "0");
    // Each is told of each of their ten rooms, once.
    for client in &mut clients {
        let told: BTreeSet<Uuid> = (0..10)
            .map(|_| room_in(&client.event_of("room.added")))
            .collect();
        assert_eq!(told.len(), 10);
        client.round_trip();
        assert_eq!(client.take_event_of("room.added"), None, "told twice");
    }
}

/// 1,000 updates out of order and with repeats.
#[test]
fn a_storm_of_profiles_ends_in_the_newest_everywhere() {
    const USERS: u64 = 10;
    const VERSIONS: u64 = 50;
    let two = two_nodes();
    let watcher = User::new("Watcher");
    let users: Vec<User> = (0..USERS).map(|_| User::new("User")).collect();
    for user in &users {
        drop(two.nodes[0].connect(user));
    }
    let mut watchers = [0, 1].map(|node: usize| two.nodes[node].connect(&watcher));
    let all: Vec<&User> = users.iter().collect();
    let room = watchers[0].group(&all);
    watchers[1].wait_for_seq(room, 1);
    let mut updates: Vec<Webhook> = Vec::new();
    for user in &users {
        for version in 1..=VERSIONS {
            let update = profile(user, version, &format!("{} v{version}", user.name));
            updates.extend([update.clone(), update]);
        }
    }
    assert_eq!(updates.len(), 1_000);
    Numbers(7).shuffle(&mut updates);
    let next = Mutex::new(updates.into_iter());
    std::thread::scope(|scope| {
        let sender = |sender: usize| {
            let (next, nodes) = (&next, &two.nodes);
            scope.spawn(move || {
                while let Some(update) = { next.lock().expect("not poisoned").next() } {
                    update.taken(nodes[sender % 2].address);
                }
            })
        };
        let senders: Vec<_> = (0..8).map(sender).collect();
        attend_until(&senders, &mut watchers);
    });
    let names: BTreeMap<Uuid, String> = users
        .iter()
        .map(|user| (user.id, format!("{} v{VERSIONS}", user.name)))
        .collect();
    for client in &mut watchers {
        let mut called: BTreeMap<Uuid, (u64, String)> = BTreeMap::new();
        let deadline = Instant::now() + DEADLINE;
        while called.len() < users.len() || called.values().any(|(version, _)| *version < VERSIONS)
        {
            assert!(Instant::now() < deadline, "{called:?}");
            let event = client.event_of("user.updated");
            let data = &event["data"];
            let version = data["version"].as_u64().expect("a version");
            let name = data["name"].as_str().expect("a name").to_owned();
            let before = called.insert(uuid(&data["user_id"]), (version, name));
            assert!(
                before.is_none_or(|(before, _)| before < version),
                "back to an older one"
            );
        }
        let got = client.ack("room.get", &json!({"room_id": room}));
        for member in got["room"]["members"].as_array().expect("members") {
            let id = uuid(&member["user_id"]);
            let expected = names.get(&id).unwrap_or(&watcher.name);
            assert_eq!(member["name"].as_str(), Some(expected.as_str()));
        }
    }
}

/// Those who run the service see what came, and have it done again.
#[test]
fn a_webhook_that_was_kept_is_done_again() {
    const TOKEN: &str = "a service token of more than 32 characters";
    let token = TOKEN.replace(' ', "-");
    let settings = [NO_LIMIT, SECRETS, &[("CAFFIS_ADMIN_TOKEN", &*token)]].concat();
    let server = server::start(&settings).anywhere();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut adas = server.connect(&ada);
    drop(server.connect(&bob));
    adas.ack("user.block", &json!({"user_id": bob.id}));
    let webhook = Webhook::invite("i1", ada.id, bob.id);
    assert_eq!(webhook.taken(server.address)["room_id"], json!(null));
    // They are friends again, and somebody asks why there is no room.
    adas.ack("user.unblock", &json!({"user_id": bob.id}));
    assert_eq!(
        webhook.taken(server.address)["room_id"],
        json!(null),
        "as it was answered"
    );
    let rest = Rest::new(server.address, &ada);
    let bearer = format!("authorization: Bearer {token}");
    let listed = rest
        .ask_bare("GET", "/v1/admin/webhooks", &[&bearer], "")
        .is(200);
    let kept = &listed["webhooks"][0];
    assert_eq!(kept["webhook_id"], webhook.id);
    assert_eq!(kept["body"], webhook.body);
    assert_eq!(
        (&kept["status"], &kept["replays"]),
        (&json!(200), &json!(0))
    );
    let open = rest
        .ask_bare("GET", "/v1/admin/webhooks?open=true", &[&bearer], "")
        .is(200);
    assert_eq!(open["webhooks"], json!([]));
    let target = format!("/v1/admin/webhooks/map/{}/replay", webhook.id);
    let done = rest.ask_bare("POST", &target, &[&bearer], "").is(200);
    let answer: Value = serde_json::from_str(done["answer"].as_str().expect("text")).expect("JSON");
    assert_eq!(answer["created"], true);
    assert_eq!(
        room_in(&adas.event_of("room.added")),
        uuid(&answer["room_id"])
    );
    assert_eq!(
        webhook.taken(server.address),
        answer,
        "what the sender is told from now on"
    );
    let target = "/v1/admin/webhooks/map/msg_unknown/replay";
    rest.ask_bare("POST", target, &[&bearer], "")
        .is_problem(404, "not_found");
    rest.ask_bare("POST", target, &[], "")
        .is_problem(401, "unauthenticated");
}
