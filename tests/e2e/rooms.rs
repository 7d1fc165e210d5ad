//! Opening rooms, looking at them, listing them, leaving them.

use crate::support::client::{message, uuid};
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

fn create(kind: &str, members: &[&User], title: Option<&str>, client_room_id: Uuid) -> Value {
    let members: Vec<Uuid> = members.iter().map(|user| user.id).collect();
    let mut data = json!({"kind": kind, "member_ids": members, "client_room_id": client_room_id});
    if let Some(title) = title {
        data["title"] = json!(title);
    }
    data
}

fn roles(room: &Value) -> Vec<(Uuid, String)> {
    let members = room["members"].as_array().expect("members");
    let role = |member: &Value| member["role"].as_str().expect("a role").to_owned();
    members
        .iter()
        .map(|member| (uuid(&member["user_id"]), role(member)))
        .collect()
}

#[test]
fn a_direct_room_is_one_room_whoever_opens_it() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut ada_client = server.connect_on(0, &ada);
    let mut bob_client = server.connect_on(1, &bob);
    let first = ada_client.ack(
        "room.create",
        &create("direct", &[&bob], None, Uuid::new_v4()),
    );
    assert_eq!(first["created"], true);
    let room = &first["room"];
    assert_eq!(
        (&room["kind"], &room["title"]),
        (&json!("direct"), &Value::Null)
    );
    assert_eq!(
        (&room["last_seq"], &room["member_count"]),
        (&json!(1), &json!(2))
    );
    let members: BTreeSet<_> = roles(room).into_iter().collect();
    let both = [(ada.id, "member".to_owned()), (bob.id, "member".to_owned())];
    assert_eq!(members, BTreeSet::from(both));
    // With another client_room_id, and from the other side: the same room, and not again.
    for (client, other) in [(&mut ada_client, &bob), (&mut bob_client, &ada)] {
        let again = client.ack(
            "room.create",
            &create("direct", &[other], None, Uuid::new_v4()),
        );
        assert_eq!(again["created"], false);
        assert_eq!(again["room"], *room);
    }
    for client in [&mut ada_client, &mut bob_client] {
        let added = client.event_of("room.added");
        assert_eq!(added["data"]["room"], *room);
        client.round_trip();
        assert!(client.take_event_of("room.added").is_none(), "told twice");
        let history = client.history_after(uuid(&room["room_id"]), 0);
        assert_eq!(history.len(), 1);
        assert_eq!(history[0]["kind"], "system");
        assert_eq!(
            history[0]["event"],
            json!({"type": "room.created", "actor_id": ada.id})
        );
    }
}

#[test]
fn two_who_open_their_direct_room_at_the_same_time_open_one() {
    let server = Server::unlimited();
    for _ in 0..20 {
        let (ada, bob) = (User::new("Ada"), User::new("Bob"));
        let mut ada_client = server.connect_on(0, &ada);
        let mut bob_client = server.connect_on(1, &bob);
        let create = |other: &User| create("direct", &[other], None, Uuid::new_v4());
        let from_ada = ada_client.tell("room.create", &create(&bob));
        let from_bob = bob_client.tell("room.create", &create(&ada));
        let replies = [ada_client.reply(from_ada), bob_client.reply(from_bob)];
        let created = replies
            .iter()
            .filter(|reply| reply["data"]["created"] == true);
        assert_eq!(created.count(), 1, "{replies:?}");
        let [first, second] = replies;
        assert_eq!(first["data"]["room"], second["data"]["room"]);
    }
}

#[test]
fn a_group_is_opened_once_per_client_room_id() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut client = server.connect(&ada);
    let mut bob_client = server.connect(&bob);
    server.connect(&eve);
    let id = Uuid::new_v4();
    let wanted = create("group", &[&bob], Some("Coffee"), id);
    let first = client.ack("room.create", &wanted);
    assert_eq!(
        (&first["created"], &first["room"]["title"]),
        (&json!(true), &json!("Coffee"))
    );
    let owner_first = [(ada.id, "owner".to_owned()), (bob.id, "member".to_owned())];
    let members: BTreeSet<_> = roles(&first["room"]).into_iter().collect();
    assert_eq!(members, BTreeSet::from(owner_first));

    let again = client.ack("room.create", &wanted);
    assert_eq!(
        (&again["created"], &again["room"]),
        (&json!(false), &first["room"])
    );
    for other in [
        create("group", &[&bob], Some("Tea"), id),
        create("group", &[&bob], None, id),
        create("group", &[&bob, &eve], Some("Coffee"), id),
        create("group", &[], Some("Coffee"), id),
    ] {
        assert_eq!(
            client.refusal("room.create", &other),
            "idempotency_conflict"
        );
    }
    // The id is the creator's own: the same one of somebody else is another room.
    let others = bob_client.ack("room.create", &create("group", &[&ada], Some("Coffee"), id));
    assert_eq!(others["created"], true);
    assert_ne!(others["room"]["room_id"], first["room"]["room_id"]);
}

#[test]
fn rooms_that_make_no_sense_are_refused_and_leave_nothing() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut client = server.connect(&ada);
    server.connect(&bob);
    let stranger = User::new("Nobody");
    let long = "x".repeat(201);
    let new = Uuid::new_v4;
    for (data, code) in [
        (create("direct", &[], None, new()), "bad_request"),
        (create("direct", &[&ada], None, new()), "bad_request"),
        (
            create("direct", &[&bob, &stranger], None, new()),
            "bad_request",
        ),
        (
            create("direct", &[&bob], Some("A title"), new()),
            "bad_request",
        ),
        (create("direct", &[&stranger], None, new()), "not_found"),
        (
            create("group", &[&bob, &stranger], None, new()),
            "not_found",
        ),
        (create("group", &[&bob], Some(&long), new()), "too_large"),
    ] {
        assert_eq!(client.refusal("room.create", &data), code, "{data}");
    }
    let many: Vec<Uuid> = (0..201).map(|_| Uuid::new_v4()).collect();
    let data = json!({"kind": "group", "member_ids": many, "client_room_id": Uuid::new_v4()});
    assert_eq!(client.refusal("room.create", &data), "too_large");
    let listed = client.ack("rooms.list", &json!({}));
    assert_eq!(listed["rooms"], json!([]));
}

#[test]
fn a_new_room_is_told_to_every_device_of_every_member() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut creator = server.connect_on(0, &ada);
    let mut others: Vec<Client> = Vec::new();
    for shard in [0, 1] {
        for user in [&ada, &bob, &eve] {
            others.push(server.connect_on(shard, user));
        }
    }
    let room = creator.group(&[&bob, &eve]);
    for client in others.iter_mut().chain([&mut creator]) {
        let added = client.event_of("room.added");
        let told = &added["data"]["room"];
        assert_eq!(told["room_id"], room.to_string());
        assert_eq!(
            (&told["kind"], &told["member_count"]),
            (&json!("group"), &json!(3))
        );
    }
    let seq = creator.send(room, "Welcome.");
    for client in &mut others {
        assert_eq!(client.message(room)["seq"], seq);
    }
}

#[test]
fn a_room_is_shown_to_its_members_only() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut client = server.connect(&ada);
    let mut bob_client = server.connect(&bob);
    let mut stranger = server.connect(&eve);
    let room = client.group(&[&bob]);
    let seq = client.send(room, "Hello.");
    let got = bob_client.ack("room.get", &json!({"room_id": room}));
    let got = &got["room"];
    assert_eq!(
        (&got["last_seq"], &got["member_count"]),
        (&json!(seq), &json!(2))
    );
    let member = |id: Uuid| {
        let members = got["members"].as_array().expect("members");
        let is_it = |member: &&Value| member["user_id"] == id.to_string();
        members.iter().find(is_it).expect("a member")
    };
    // One's own message is read by its sender, and by nobody else.
    assert_eq!(member(ada.id)["read_seq"], seq);
    assert_eq!(member(bob.id)["read_seq"], 1);
    assert_eq!(member(ada.id)["name"], ada.name);

    // What is not one's own looks like what is not there.
    let not_there = Uuid::new_v4();
    for id in [room, not_there] {
        let asked = json!({"room_id": id});
        assert_eq!(stranger.refusal("room.get", &asked), "forbidden");
        assert_eq!(stranger.refusal("history.get", &asked), "forbidden");
        assert_eq!(stranger.refusal("room.leave", &asked), "forbidden");
        let told = stranger.ask("room.get", &asked)["error"]["message"].clone();
        let other = stranger.ask("room.get", &json!({"room_id": not_there}));
        assert_eq!(
            told, other["error"]["message"],
            "nothing tells whether there is such a room"
        );
    }
}

#[test]
fn rooms_are_listed_by_activity_page_by_page() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut client = server.connect(&ada);
    let mut bob_client = server.connect(&bob);
    let mut rooms: Vec<Uuid> = (0..7).map(|_| client.group(&[&bob])).collect();
    // The times of commits are in ms, so what is to stand in order is done in order.
    for (number, room) in rooms.iter().enumerate() {
        bob_client.wait_for_seq(*room, 1);
        let mut last_seq = 0;
        for _ in 0..=number {
            last_seq = bob_client.send(*room, &format!("Message of room {number}"));
        }
        client.wait_for_seq(*room, last_seq);
    }
    rooms.reverse();
    let mut listed: Vec<Value> = Vec::new();
    let mut asked = json!({"limit": 3});
    let mut pages = Vec::new();
    loop {
        let page = client.ack("rooms.list", &asked);
        let rooms = page["rooms"].as_array().expect("rooms");
        pages.push(rooms.len());
        listed.extend(rooms.iter().cloned());
        match page.get("next_cursor") {
            Some(cursor) => asked["cursor"] = cursor.clone(),
            None => break,
        }
    }
    assert_eq!(pages, [3, 3, 1]);
    let ids: Vec<Uuid> = listed.iter().map(|room| uuid(&room["room_id"])).collect();
    assert_eq!(ids, rooms);
    for (number, room) in listed.iter().rev().enumerate() {
        assert_eq!(room["unread"], number + 1);
        assert_eq!(room["read_seq"], 1);
        assert_eq!(room["last_seq"], number + 2);
        let text = &room["last_message"]["text"];
        assert_eq!(*text, format!("Message of room {number}"));
        assert_eq!(room["last_message"]["seq"], number + 2);
        assert_eq!(roles(room).len(), 2);
    }
    // One's own messages are read.
    let own = bob_client.ack("rooms.list", &json!({}));
    let own = own["rooms"].as_array().expect("rooms");
    assert!(own.iter().all(|room| room["unread"] == 0), "{own:?}");
    // A client that connects now is told the same.
    let again = server.connect(&ada);
    let ready: Vec<Uuid> = (again.ready["rooms"].as_array().expect("rooms").iter())
        .map(|room| uuid(&room["room_id"]))
        .collect();
    assert_eq!(ready, rooms);
}

#[test]
fn odd_questions_for_rooms_are_answered_or_refused() {
    let server = Server::new();
    let mut client = server.connect(&User::new("Ada"));
    client.group(&[]);
    let none = client.ack("rooms.list", &json!({"archived": true}));
    assert_eq!(none["rooms"], json!([]));
    for limit in [0, 1, 100, 4_000_000_000_u64] {
        let page = client.ack("rooms.list", &json!({"limit": limit}));
        assert_eq!(
            page["rooms"].as_array().expect("rooms").len(),
            1,
            "limit {limit}"
        );
    }
    for cursor in ["", "x", "zz-zz", "1-1", "'; drop table chat_rooms"] {
        assert_eq!(
            client.refusal("rooms.list", &json!({"cursor": cursor})),
            "bad_request"
        );
    }
}

#[test]
fn when_the_owner_leaves_the_longest_serving_member_becomes_owner() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut ada_client = server.connect(&ada);
    let mut bob_client = server.connect_on(0, &bob);
    let mut eve_client = server.connect_on(1, &eve);
    // Eve has been there for longer than Bob.
    let room = ada_client.group(&[&eve]);
    let add = json!({"room_id": room, "user_ids": [bob.id]});
    ada_client.ack("room.members.add", &add);
    bob_client.event_of("room.added");

    let left = ada_client.ack("room.leave", &json!({"room_id": room}));
    assert_eq!((&left["changed"], &left["seq"]), (&json!(true), &json!(4)));
    // The one who leaves is told so by the last event, and then hears nothing more.
    let event = ada_client.event_of("member.left");
    assert_eq!(
        event["data"],
        json!({"user_id": ada.id, "actor_id": ada.id})
    );
    let removed = ada_client.event_of("room.removed");
    assert_eq!(removed["data"]["room_id"], room.to_string());
    for client in [&mut bob_client, &mut eve_client] {
        assert_eq!(client.event_of("member.left")["seq"], 3);
        let event = client.event_of("member.role_changed");
        assert_eq!(event["seq"], 4);
        let heir = json!({"user_id": eve.id, "role": "owner", "actor_id": ada.id});
        assert_eq!(event["data"], heir);
    }
    let got = bob_client.ack("room.get", &json!({"room_id": room}));
    let members = [(eve.id, "owner".to_owned()), (bob.id, "member".to_owned())];
    assert_eq!(roles(&got["room"]), members);

    // A second time nothing happens.
    let again = ada_client.ack("room.leave", &json!({"room_id": room}));
    assert_eq!(again["changed"], false);
    assert_eq!(
        ada_client.refusal("room.get", &json!({"room_id": room})),
        "forbidden"
    );
    let refused = ada_client.refusal("message.send", &message(room, Uuid::now_v7(), "Hello?"));
    assert_eq!(refused, "forbidden");
    eve_client.send(room, "I own it now.");
    bob_client.message(room);
    ada_client.round_trip();
    assert!(ada_client.take_event_of("message.created").is_none());
}

#[test]
fn a_direct_room_cannot_be_left_or_changed() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut client = server.connect(&ada);
    server.connect(&bob);
    server.connect(&eve);
    let room = client.direct(&bob);
    assert_eq!(
        client.refusal("room.leave", &json!({"room_id": room})),
        "forbidden"
    );
    for (request, user) in [
        ("room.members.add", &eve),
        ("room.members.remove", &bob),
        ("room.members.remove", &ada),
    ] {
        let data = json!({"room_id": room, "user_ids": [user.id]});
        assert_eq!(client.refusal(request, &data), "forbidden", "{request}");
    }
    assert_eq!(client.send(room, "Still here."), 2);
}

#[test]
fn the_last_one_to_leave_leaves_nothing_that_breaks() {
    let server = Server::new();
    let mut client = server.connect(&User::new("Ada"));
    let room = client.group(&[]);
    client.ack("room.leave", &json!({"room_id": room}));
    client.event_of("room.removed");
    assert_eq!(client.ack("rooms.list", &json!({}))["rooms"], json!([]));
    assert_eq!(
        client.refusal("room.get", &json!({"room_id": room})),
        "forbidden"
    );
}
