//! Receipts, and what rooms are to a user alone: told to others and to one's own devices, on whichever shard
//! and node they are.

use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::server::{self, NO_LIMIT};
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use uuid::Uuid;

fn read(client: &mut Client, room: Uuid, seq: u64) {
    client.tell_only("receipt.read", &json!({"rooms": {room.to_string(): seq}}));
}

fn delivered(client: &mut Client, room: Uuid, seq: u64) {
    client.tell_only(
        "receipt.delivered",
        &json!({"rooms": {room.to_string(): seq}}),
    );
}

/// Waits until the client is told so of this user; what it is told before must be less.
fn told(client: &mut Client, room: Uuid, user: &User, marks: (u64, u64)) {
    loop {
        let event = client.event_of("receipt.updated");
        assert_eq!(event["room_id"], room.to_string());
        assert_eq!(event.get("seq"), None, "it is no durable event");
        assert_eq!(event["data"]["user_id"], user.id.to_string());
        let number = |name: &str| event["data"][name].as_u64().expect("a seq");
        let found = (number("read_seq"), number("delivered_seq"));
        assert!(found.0 <= marks.0 && found.1 <= marks.1, "{event}");
        if found == marks {
            return;
        }
    }
}

/// Waits until a device is told that its user has read so far; what is unread then.
fn unread(client: &mut Client, room: Uuid, read_seq: u64) -> Value {
    loop {
        let event = client.event_of("unread.updated");
        assert_eq!(event["data"]["room_id"], room.to_string());
        if event["data"]["read_seq"] == read_seq {
            return event["data"].clone();
        }
    }
}

fn watermark(ready: &Value, room: Uuid, user: &User) -> (u64, u64) {
    let rooms = ready["rooms"].as_array().expect("rooms");
    let room = rooms.iter().find(|it| it["room_id"] == room.to_string());
    let marks = room.expect("the room")["watermarks"].as_array();
    let mark = marks.expect("watermarks").iter();
    let mut mark = mark.filter(|mark| mark["user_id"] == user.id.to_string());
    let mark = mark.next().expect("the member");
    let number = |name: &str| mark[name].as_u64().expect("a seq");
    (number("read_seq"), number("delivered_seq"))
}

#[test]
fn others_are_told_what_one_has_received_and_read_and_own_devices_what_is_unread() {
    let server = Server::unlimited();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut bobs: Vec<Client> = (0..2).map(|shard| server.connect_on(shard, &bob)).collect();
    let mut adas: Vec<Client> = (0..2).map(|shard| server.connect_on(shard, &ada)).collect();
    let mut eves = server.connect(&eve);
    let room = adas[0].group(&[&bob]);
    for text in ["one", "two", "three"] {
        adas[0].send(room, text);
    }
    for client in &mut bobs {
        client.wait_for_seq(room, 4);
    }
    delivered(&mut bobs[0], room, 4);
    for client in &mut adas {
        told(client, room, &bob, (1, 4));
    }
    read(&mut bobs[0], room, 3);
    for client in &mut adas {
        told(client, room, &bob, (3, 4));
    }
    // The other device of Bob learns it; the one that read knows.
    assert_eq!(unread(&mut bobs[1], room, 3)["unread"], 1);
    // A receipt never goes back, and never beyond the room; a stranger's is passed over.
    read(&mut eves, room, 4);
    read(&mut bobs[1], room, 2);
    read(&mut bobs[1], room, 1 << 50);
    told(&mut adas[1], room, &bob, (4, 4));
    assert_eq!(unread(&mut bobs[0], room, 4)["unread"], 0);
    bobs[0].round_trip();
    for client in &mut bobs {
        assert_eq!(client.take_event_of("receipt.updated"), None, "one's own");
    }
    eves.round_trip();
    assert_eq!(eves.take_event_of("receipt.updated"), None);
    let got = adas[0].ack("room.get", &json!({ "room_id": room }));
    assert_eq!((&got["read_seq"], &got["unread"]), (&json!(4), &json!(0)));
    let mut again = server.connect(&ada);
    assert_eq!(watermark(&again.ready, room, &bob), (4, 4));
    assert_eq!(watermark(&again.ready, room, &ada), (4, 4));
    // Too many rooms: told only to who wants an answer.
    let many: serde_json::Map<String, Value> = (0..=500)
        .map(|n| (Uuid::from_u128(n).to_string(), json!(1)))
        .collect();
    assert_eq!(
        again.refusal("receipt.read", &json!({ "rooms": many })),
        "too_large"
    );
}

#[test]
fn receipts_that_are_overtaken_cost_no_send() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = server.connect(&bob);
    let mut adas = server.connect(&ada);
    let room = adas.group(&[&bob]);
    let mut last = 0;
    for n in 0..200 {
        last = adas.send(room, &format!("message {n}"));
    }
    bobs.wait_for_seq(room, last);
    for seq in 1..=last {
        delivered(&mut bobs, room, seq);
        read(&mut bobs, room, seq);
    }
    told(&mut adas, room, &bob, (last, last));
    let metrics = server.wait_for_metrics("all receipts were taken", |metrics| {
        metrics.sum("caffis_receipts_taken_total") >= 2.0 * last as f64 - 0.5
    });
    assert!(metrics.sum("caffis_receipts_written_total") <= 20.0);
    assert!(metrics.sum("caffis_receipts_told_total") <= 20.0);
}

#[test]
fn in_large_rooms_receipts_are_kept_and_not_told() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut others: Vec<User> = (0..99).map(|n| User::new(&format!("Other {n}"))).collect();
    for other in &others {
        server.connect(other);
    }
    let mut bobs: Vec<Client> = (0..2).map(|shard| server.connect_on(shard, &bob)).collect();
    let mut adas = server.connect(&ada);
    others.push(bob.clone());
    let all: Vec<&User> = others.iter().collect();
    let room = adas.group(&all);
    let seq = adas.send(room, "Hello, everybody.");
    bobs[0].wait_for_seq(room, seq);
    read(&mut bobs[0], room, seq);
    // The own device is told after it is written.
    assert_eq!(unread(&mut bobs[1], room, seq)["unread"], 0);
    adas.round_trip();
    assert_eq!(adas.take_event_of("receipt.updated"), None);
    let (mut cursor, mut found, mut pages) = (Value::Null, Vec::new(), 0);
    loop {
        let asked = json!({"room_id": room, "cursor": cursor, "limit": 40});
        let page = adas.ack("room.members.list", &asked);
        found.extend(page["members"].as_array().expect("members").clone());
        pages += 1;
        match page.get("next_cursor") {
            Some(next) => cursor = next.clone(),
            None => break,
        }
    }
    assert_eq!((pages, found.len()), (3, 101));
    let own = found.iter().find(|it| it["user_id"] == bob.id.to_string());
    let own = own.expect("Bob");
    assert_eq!(
        (&own["read_seq"], &own["name"]),
        (&json!(seq), &json!(bob.name))
    );
    let mut stranger = server.connect(&User::new("Eve"));
    let asked = json!({ "room_id": room });
    assert_eq!(stranger.refusal("room.members.list", &asked), "forbidden");
}

#[test]
fn a_room_is_muted_and_archived_on_all_devices() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = server.connect(&bob);
    let mut adas: Vec<Client> = (0..2).map(|shard| server.connect_on(shard, &ada)).collect();
    let room = adas[0].direct(&bob);
    bobs.event_of("room.added");
    adas[1].event_of("room.added");
    let asked = |more: Value| {
        let mut data = json!({ "room_id": room });
        let more = more.as_object().expect("an object").clone();
        data.as_object_mut().expect("an object").extend(more);
        data
    };
    let for_good = "9999-12-31T23:59:59.999Z";
    let done = adas[0].ack("room.mute", &asked(json!({})));
    assert_eq!(done, json!({"room_id": room, "changed": true}));
    assert_eq!(
        adas[0].ack("room.mute", &asked(json!({})))["changed"],
        false
    );
    let told = adas[1].event_of("unread.updated");
    assert_eq!(told["data"]["muted_until"], for_good);
    adas[0].ack("room.archive", &asked(json!({})));
    assert_eq!(adas[1].event_of("unread.updated")["data"]["archived"], true);
    let list = |client: &mut Client, archived: bool| {
        let listed = client.ack("rooms.list", &json!({ "archived": archived }));
        listed["rooms"].as_array().expect("rooms").clone()
    };
    // It stays there while it is muted, and comes back with what is said then.
    let seq = bobs.send(room, "Are you there?");
    adas[0].wait_for_seq(room, seq);
    assert_eq!(list(&mut adas[0], false), Vec::<Value>::new());
    let listed = list(&mut adas[0], true);
    assert_eq!(listed[0]["muted_until"], for_good);
    assert_eq!(
        (&listed[0]["archived"], &listed[0]["unread"]),
        (&json!(true), &json!(1))
    );
    let again = server.connect(&ada);
    assert_eq!(again.ready["rooms"][0]["archived"], true);
    assert_eq!(again.ready["rooms"][0]["muted_until"], for_good);
    adas[0].ack("room.mute", &asked(json!({ "until": null })));
    let told = adas[1].event_of("unread.updated");
    assert_eq!(told["data"].get("muted_until"), None);
    assert_eq!(told["data"].get("archived"), None, "it came back");
    assert_eq!(list(&mut adas[1], false).len(), 1);
    adas[0].ack("room.archive", &asked(json!({})));
    let back = asked(json!({ "archived": false }));
    assert_eq!(adas[1].ack("room.archive", &back)["changed"], true);
    assert_eq!(adas[1].ack("room.archive", &back)["changed"], false);
    let past = asked(json!({ "until": "2020-01-01T00:00:00.000Z" }));
    assert_eq!(adas[0].ack("room.mute", &past)["changed"], false);
    // To Bob it is what it was; a stranger may not.
    assert_eq!(bobs.take_event_of("unread.updated"), None);
    assert_eq!(list(&mut bobs, false)[0].get("muted_until"), None);
    let mut eves = server.connect(&User::new("Eve"));
    assert_eq!(eves.refusal("room.mute", &asked(json!({}))), "forbidden");
    assert_eq!(eves.refusal("room.archive", &asked(json!({}))), "forbidden");
    let refused = adas[0].refusal("room.leave", &asked(json!({})));
    assert_eq!(refused, "forbidden", "a direct room can only be archived");
}

#[test]
fn receipts_are_told_across_nodes_and_written_before_a_node_ends() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let url = postgres.url(&postgres.database());
    let redis_url = redis.url();
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_DATABASE_URL", &url));
    settings.push(("CAFFIS_REDIS_URL", &redis_url));
    let nodes: Vec<Server> = (0..2)
        .map(|_| server::start(&settings).anywhere())
        .collect();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs: Vec<Client> = nodes.iter().map(|node| node.connect(&bob)).collect();
    let mut adas: Vec<Client> = nodes.iter().map(|node| node.connect(&ada)).collect();
    let room = adas[0].direct(&bob);
    adas[0].send(room, "Are you there?");
    let seq = adas[0].send(room, "You are.");
    for client in bobs.iter_mut().chain(&mut adas) {
        client.wait_for_seq(room, seq);
    }
    delivered(&mut bobs[1], room, seq);
    for client in &mut adas {
        told(client, room, &bob, (1, seq));
    }
    read(&mut bobs[1], room, seq - 1);
    for client in &mut adas {
        told(client, room, &bob, (seq - 1, seq));
    }
    assert_eq!(unread(&mut bobs[0], room, seq - 1)["unread"], 1);
    // One's own choice crosses as well.
    bobs[0].ack("room.archive", &json!({ "room_id": room }));
    let told = bobs[1].event_of("unread.updated");
    assert_eq!(told["data"]["archived"], true);
    // A node that ends writes what it has taken.
    read(&mut bobs[1], room, seq);
    bobs[1].round_trip();
    let mut nodes = nodes.into_iter();
    let first = nodes.next().expect("the first");
    let mut second = nodes.next().expect("the second");
    second.terminate();
    assert!(second.ended().success());
    let again = first.connect(&bob);
    assert_eq!(watermark(&again.ready, room, &bob), (seq, seq));
    assert_eq!(again.ready["rooms"][0]["unread"], 0);
}
