//! Blocks: every way to reach somebody, by who blocked whom and whether the other is there; and that
//! nobody is told who did it.

use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::client::{code_of, message, uuid};
use crate::support::server::{self, NO_LIMIT};
use crate::support::wait::DEADLINE;
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use std::time::Instant;
use uuid::Uuid;

/// Who blocked whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Nobody,
    Ada,
    Bob,
    Both,
}

const CASES: [Who; 4] = [Who::Nobody, Who::Ada, Who::Bob, Who::Both];

impl Who {
    fn is_ada(self) -> bool {
        matches!(self, Who::Ada | Who::Both)
    }

    fn is_bob(self) -> bool {
        matches!(self, Who::Bob | Who::Both)
    }
}

fn set_block(client: &mut Client, whom: &User, blocked: bool) {
    let name = if blocked {
        "user.block"
    } else {
        "user.unblock"
    };
    let ack = client.ack(name, &json!({"user_id": whom.id}));
    let expected = json!({"user_id": whom.id, "blocked": blocked, "changed": true});
    assert_eq!(ack, expected);
}

/// Whom the client's user blocks.
fn blocks(client: &mut Client) -> Vec<Uuid> {
    let ack = client.ack("user.blocks", &json!({}));
    let users = ack["users"].as_array().expect("users");
    users.iter().map(|user| uuid(&user["user_id"])).collect()
}

/// What an error says, beside its code.
fn words(reply: &Value) -> (String, String) {
    let message = reply["error"]["message"].as_str().expect("a message");
    (code_of(reply), message.to_owned())
}

/// How this user is told to be seen, by a new question.
fn asked(client: &mut Client, user: &User) -> String {
    let ack = client.ack("presence.subscribe", &json!({"user_ids": [user.id]}));
    ack["users"][0]["state"]
        .as_str()
        .expect("a state")
        .to_owned()
}

/// Waits until this user is told to be seen so.
fn wait_seen(client: &mut Client, user: &User, state: &str) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        assert!(Instant::now() < deadline, "{} is not {state}", user.name);
        let event = client.event_of("presence.updated");
        let users = event["data"]["users"].as_array().expect("users");
        let about = users
            .iter()
            .rfind(|it| it["user_id"] == user.id.to_string());
        if about.is_some_and(|it| it["state"] == state) {
            return;
        }
    }
}

fn watch(client: &mut Client, user: &User) {
    if asked(client, user) != "online" {
        wait_seen(client, user, "online");
    }
}

/// Waits until the client is told that this user types in the room; other rooms' are passed over.
fn wait_typing(client: &mut Client, room: Uuid, user: &User) {
    let id = user.id.to_string();
    loop {
        let event = client.event_of("typing.updated");
        let users = event["data"]["user_ids"].as_array().expect("users");
        if event["room_id"] == room.to_string() && users.iter().any(|it| *it == id) {
            return;
        }
    }
}

/// Three people and the rooms they have, before anybody blocks anybody.
struct Scene<'a> {
    nodes: &'a [Server],
    ada: User,
    bob: User,
    eve: User,
    direct: Uuid,
    /// Eve's, with both.
    group: Uuid,
    /// Messages of Ada and of Bob in the direct room.
    texts: [u64; 2],
}

impl<'a> Scene<'a> {
    /// With Ada's two connections, Bob's, and Eve's.
    fn new(nodes: &'a [Server]) -> (Scene<'a>, [Client; 4]) {
        let [ada, bob, eve] = ["Ada", "Bob", "Eve"].map(User::new);
        let (first, last) = (&nodes[0], &nodes[nodes.len() - 1]);
        let mut bobs = last.connect_on(1, &bob);
        let mut eves = last.connect(&eve);
        let mut adas = first.connect_on(0, &ada);
        let other = last.connect(&ada);
        let direct = adas.direct(&bob);
        let group = eves.group(&[&ada, &bob]);
        for client in [&mut adas, &mut bobs] {
            while !client.positions.contains_key(&group) {
                client.event_of("room.added");
            }
        }
        while !bobs.positions.contains_key(&direct) {
            bobs.event_of("room.added");
        }
        eves.ack(
            "room.role.set",
            &json!({"room_id": group, "user_ids": [ada.id, bob.id], "role": "admin"}),
        );
        let texts = [adas.send(direct, "from Ada"), bobs.send(direct, "from Bob")];
        let scene = Scene {
            nodes,
            ada,
            bob,
            eve,
            direct,
            group,
            texts,
        };
        (scene, [adas, other, bobs, eves])
    }

    /// Every way from this client's user to the other: each is done, or refused in the words that a stranger
    /// hears, or one without the right.
    fn ways(&self, client: &mut Client, other: &User, is_severed: bool) {
        let own = usize::from(client.user.id == self.bob.id);
        let (direct, group, eve) = (self.direct, self.group, self.eve.id);
        let mut stranger = self.nodes[0].connect(&User::new("Stranger"));
        let mine = client.group(&[&self.eve]);
        let mut by_stranger =
            |room| words(&stranger.ask("message.send", &message(room, Uuid::now_v7(), "?")));
        let no_member = by_stranger(direct);
        let other_room = by_stranger(group);
        assert_eq!(no_member, other_room);
        let system = json!({"room_id": direct, "message_seq": 1, "text": "?"});
        let not_with_it = words(&client.ask("message.edit", &system));
        let target = json!({"room_id": direct, "user_ids": [eve]});
        let not_in_room = words(&client.ask("room.members.add", &target));
        let named = |room, mentions: Value| {
            let mut data = message(room, Uuid::now_v7(), "hey");
            data["mentions"] = mentions;
            data
        };
        let of = |seq: u64| json!({"room_id": direct, "message_seq": seq});
        let with = |seq: u64, key: &str, value: &str| {
            let mut data = of(seq);
            data[key] = json!(value);
            data
        };
        let text = format!("news of {}", client.user.id);
        let together = json!({
            "kind": "group", "member_ids": [eve, other.id], "title": "Together",
            "client_room_id": Uuid::new_v4(),
        });
        let added = json!({"room_id": mine, "user_ids": [other.id]});
        let table: Vec<(&str, Value, &(String, String))> = vec![
            (
                "message.send",
                message(direct, Uuid::now_v7(), "hello"),
                &no_member,
            ),
            ("message.send", named(direct, json!([other.id])), &no_member),
            (
                "message.send",
                named(group, json!([eve, other.id])),
                &no_member,
            ),
            (
                "message.edit",
                with(self.texts[own], "text", &text),
                &not_with_it,
            ),
            (
                "reaction.add",
                with(self.texts[1 - own], "emoji", "👍"),
                &not_with_it,
            ),
            ("message.pin", of(self.texts[own]), &not_with_it),
            ("room.create", together, &not_in_room),
            ("room.members.add", added, &not_in_room),
        ];
        for (name, data, like) in table {
            let reply = client.ask(name, &data);
            match is_severed {
                false => assert_eq!(reply["type"], "ack", "{name} {data}: {reply}"),
                true => {
                    let found = words(&reply);
                    assert_eq!(found, *like, "{name} {data}");
                    assert_eq!(found.0, "forbidden", "{name} {data}");
                }
            }
        }
        // To everybody in a group one still may speak, and events of it miss nobody.
        client.send(group, "to all");
        client.ack("message.send", &named(group, json!(["all"])));
        // What there was is still there.
        client.ack("history.get", &json!({"room_id": direct}));
        client.ack("room.get", &json!({"room_id": direct}));
    }
}

/// A pair that has no room yet.
fn no_room_for_strangers(nodes: &[Server], who: Who) {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut adas = nodes[0].connect(&ada);
    let mut bobs = nodes[nodes.len() - 1].connect(&bob);
    if who.is_ada() {
        set_block(&mut adas, &bob, true);
    }
    if who.is_bob() {
        set_block(&mut bobs, &ada, true);
    }
    for (client, other) in [(&mut adas, &bob), (&mut bobs, &ada)] {
        let data = json!({
            "kind": "direct", "member_ids": [other.id], "client_room_id": Uuid::new_v4(),
        });
        let reply = client.ask("room.create", &data);
        match who {
            Who::Nobody => assert_eq!(reply["type"], "ack"),
            _ => assert_eq!(code_of(&reply), "forbidden"),
        }
    }
}

fn case(nodes: &[Server], who: Who, is_online: bool) {
    let is_severed = who != Who::Nobody;
    let (scene, [mut adas, mut other, mut bobs, mut eves]) = Scene::new(nodes);
    let (ada, bob) = (scene.ada.clone(), scene.bob.clone());
    // Both watch each other while it begins.
    watch(&mut adas, &bob);
    watch(&mut bobs, &ada);
    watch(&mut eves, &bob);
    if who.is_ada() {
        set_block(&mut adas, &bob, true);
    }
    if who.is_bob() {
        set_block(&mut bobs, &ada, true);
    }
    // Who did it is told on every device, wherever it is; who it is against, nowhere.
    if who.is_ada() {
        for client in [&mut adas, &mut other] {
            let event = client.event_of("user.blocks.updated");
            assert_eq!(event["data"], json!({"user_id": bob.id, "blocked": true}));
        }
    }
    assert_eq!(blocks(&mut other).len(), usize::from(who.is_ada()));
    assert_eq!(blocks(&mut bobs).len(), usize::from(who.is_bob()));
    if is_severed {
        wait_seen(&mut adas, &bob, "offline");
        wait_seen(&mut bobs, &ada, "offline");
    }
    let seen = if is_severed { "offline" } else { "online" };
    assert_eq!(asked(&mut adas, &bob), seen, "{who:?}");
    assert_eq!(asked(&mut bobs, &ada), seen, "{who:?}");
    assert_eq!(asked(&mut eves, &bob), "online");
    // Typing in the direct room, and in the group, where it is told to all.
    typing(&mut adas, &mut bobs, &scene, is_severed);
    typing(&mut bobs, &mut adas, &scene, is_severed);
    if is_online {
        scene.ways(&mut bobs, &ada, is_severed);
        bobs.round_trip();
        let told = bobs.take_event_of("user.blocks.updated");
        assert_eq!(told.is_some(), who.is_bob(), "{told:?}");
    } else {
        drop(bobs);
    }
    scene.ways(&mut adas, &bob, is_severed);
    adas.round_trip();
    assert_eq!(adas.take_event_of("user.blocks.updated"), None);
    // When it is over, it is over at once.
    if who.is_ada() {
        set_block(&mut adas, &bob, false);
    }
    let mut bobs = nodes[nodes.len() - 1].connect(&bob);
    if who.is_bob() {
        let refused = adas.ask(
            "message.send",
            &message(scene.direct, Uuid::now_v7(), "not yet"),
        );
        assert_eq!(code_of(&refused), "forbidden");
        set_block(&mut bobs, &ada, false);
    }
    let seq = adas.send(scene.direct, "again");
    bobs.wait_for_seq(scene.direct, seq);
    bobs.send(scene.direct, "at last");
    watch(&mut adas, &bob);
}

/// One types in both rooms: in the direct room only one who is not severed hears it.
fn typing(from: &mut Client, to: &mut Client, scene: &Scene<'_>, is_severed: bool) {
    let user = from.user.clone();
    from.tell_only("typing.start", &json!({"room_id": scene.direct}));
    if !is_severed {
        wait_typing(to, scene.direct, &user);
    }
    from.tell_only("typing.start", &json!({"room_id": scene.group}));
    let group = scene.group;
    loop {
        let event = to.event_of("typing.updated");
        let users = event["data"]["user_ids"].as_array().expect("users");
        let has = users.iter().any(|it| *it == user.id.to_string());
        if event["room_id"] == group.to_string() && has {
            break;
        }
        assert!(!is_severed || !has, "{event}");
    }
    for room in [scene.direct, group] {
        from.tell_only("typing.stop", &json!({"room_id": room}));
    }
}

fn table(nodes: &[Server]) {
    for who in CASES {
        for is_online in [true, false] {
            case(nodes, who, is_online);
        }
        no_room_for_strangers(nodes, who);
    }
}

#[test]
fn every_way_to_the_other_is_closed_by_a_block_of_either() {
    table(&[Server::unlimited()]);
}

#[test]
fn every_way_to_the_other_is_closed_across_nodes() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let (url, redis_url) = (postgres.url(&postgres.database()), redis.url());
    let nodes = ["a", "b"].map(|name| {
        let mut settings = NO_LIMIT.to_vec();
        settings.push(("CAFFIS_DATABASE_URL", &*url));
        settings.push(("CAFFIS_REDIS_URL", &*redis_url));
        settings.push(("CAFFIS_NODE", name));
        server::start(&settings).anywhere()
    });
    table(&nodes);
}

/// What no message between nodes told is found by comparing with the database.
#[test]
fn a_block_is_noticed_on_another_node_without_a_relay() {
    let postgres = PostgresServer::start("");
    let url = postgres.url(&postgres.database());
    let node = |name| {
        let mut settings = NO_LIMIT.to_vec();
        settings.push(("CAFFIS_DATABASE_URL", &*url));
        settings.push(("CAFFIS_NODE", name));
        server::start(&settings).anywhere()
    };
    let (a, b) = (node("a"), node("b"));
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    // Bob, and a second device of Ada, where nothing is told of what the first one does.
    let mut here = a.connect(&ada);
    let mut there = b.connect(&ada);
    let mut bobs = b.connect(&bob);
    let room = bobs.direct(&ada);
    watch(&mut bobs, &ada);
    watch(&mut there, &bob);
    set_block(&mut here, &bob, true);
    let event = there.event_of("user.blocks.updated");
    assert_eq!(event["data"], json!({}), "any of them");
    assert_eq!(blocks(&mut there), [bob.id]);
    wait_seen(&mut bobs, &ada, "offline");
    wait_seen(&mut there, &bob, "offline");
    let refused = bobs.refusal("message.send", &message(room, Uuid::now_v7(), "?"));
    assert_eq!(refused, "forbidden");
    bobs.round_trip();
    assert_eq!(bobs.take_event_of("user.blocks.updated"), None);
}

#[test]
fn what_is_no_block_is_refused() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut adas = server.connect(&ada);
    let mut of = |name: &str, id: Uuid| adas.ask(name, &json!({"user_id": id}));
    for name in ["user.block", "user.unblock"] {
        assert_eq!(code_of(&of(name, ada.id)), "bad_request");
        assert_eq!(code_of(&of(name, bob.id)), "not_found", "never seen");
    }
    drop(server.connect(&bob));
    let again = of("user.unblock", bob.id);
    let unchanged = json!({"user_id": bob.id, "blocked": false, "changed": false});
    assert_eq!(again["data"], unchanged);
    for changed in [true, false] {
        let ack = of("user.block", bob.id);
        let expected = json!({"user_id": bob.id, "blocked": true, "changed": changed});
        assert_eq!(ack["data"], expected);
    }
    assert_eq!(blocks(&mut adas), [bob.id]);
    let refused = adas.refusal("user.blocks", &json!({"cursor": "nonsense"}));
    assert_eq!(refused, "bad_request");
}
