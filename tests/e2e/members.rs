//! Adding and removing members, and what those concerned hear of it, wherever they are connected.

use crate::support::client::message;
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use uuid::Uuid;

fn members(room: Uuid, users: &[&User]) -> Value {
    let users: Vec<Uuid> = users.iter().map(|user| user.id).collect();
    json!({"room_id": room, "user_ids": users})
}

#[test]
fn whoever_is_added_is_told_on_every_device_and_the_others_hear_it() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut owner = server.connect_on(0, &ada);
    let mut bob_client = server.connect_on(1, &bob);
    let mut devices: Vec<Client> = (0..4).map(|n| server.connect_on(n % 2, &eve)).collect();
    let room = owner.group(&[&bob]);
    let before = owner.send(room, "Before Eve.");

    let added = owner.ack("room.members.add", &members(room, &[&eve]));
    let joined_seq = before + 1;
    assert_eq!(
        added,
        json!({"room_id": room, "changed": true, "seq": joined_seq})
    );
    let joined = json!({
        "user_id": eve.id, "name": eve.name, "role": "member", "actor_id": ada.id,
    });
    for client in [&mut owner, &mut bob_client] {
        let event = client.event_of("member.joined");
        assert_eq!(
            (&event["seq"], &event["data"]),
            (&json!(joined_seq), &joined)
        );
    }
    for device in &mut devices {
        let told = device.event_of("room.added")["data"].clone();
        assert_eq!(told["room"]["room_id"], room.to_string());
        assert_eq!(told["room"]["member_count"], 3);
        assert_eq!(told["last_seq"], joined_seq);
        assert_eq!(told["read_seq"], joined_seq);
    }
    let seq = bob_client.send(room, "Hello Eve.");
    for device in &mut devices {
        assert_eq!(device.message(room)["seq"], seq);
    }
    // The history before is hers too.
    let history = devices[0].history_after(room, 0);
    let texts: Vec<&Value> = history.iter().map(|message| &message["text"]).collect();
    assert_eq!(
        texts,
        [
            &Value::Null,
            &json!("Before Eve."),
            &Value::Null,
            &json!("Hello Eve.")
        ]
    );
    assert_eq!(history[2]["event"]["type"], "member.joined");

    // Those who are members already are not added again.
    let again = owner.ack("room.members.add", &members(room, &[&eve, &bob]));
    assert_eq!(again, json!({"room_id": room, "changed": false}));
}

#[test]
fn whoever_is_removed_hears_that_last_and_then_nothing() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut owner = server.connect_on(0, &ada);
    let mut bob_client = server.connect_on(1, &bob);
    let mut devices: Vec<Client> = (0..4).map(|n| server.connect_on(n % 2, &eve)).collect();
    let room = owner.group(&[&bob, &eve]);
    for device in &mut devices {
        device.event_of("room.added");
    }
    let seq = devices[0].send(room, "I am here.");
    for device in &mut devices {
        assert_eq!(device.message(room)["seq"], seq);
    }
    let removed = owner.ack("room.members.remove", &members(room, &[&eve]));
    assert_eq!(
        removed,
        json!({"room_id": room, "changed": true, "seq": seq + 1})
    );
    let left = json!({"user_id": eve.id, "actor_id": ada.id});
    for client in [&mut owner, &mut bob_client] {
        let event = client.event_of("member.left");
        assert_eq!((&event["seq"], &event["data"]), (&json!(seq + 1), &left));
    }
    let after = bob_client.send(room, "She is gone.");
    owner.wait_for_seq(room, after);
    for device in &mut devices {
        let event = device.event();
        assert_eq!(
            (&event["type"], &event["data"]),
            (&json!("member.left"), &left)
        );
        let event = device.event();
        assert_eq!(event["type"], "room.removed");
        assert_eq!(event["data"], json!({"room_id": room}));
        device.round_trip();
        assert_eq!(device.take_events(), Vec::<Value>::new());
    }
    let eve_client = &mut devices[3];
    let asked = json!({"room_id": room});
    assert_eq!(eve_client.refusal("room.get", &asked), "forbidden");
    assert_eq!(eve_client.refusal("history.get", &asked), "forbidden");
    let text = message(room, Uuid::now_v7(), "Still here?");
    assert_eq!(eve_client.refusal("message.send", &text), "forbidden");

    let again = owner.ack("room.members.remove", &members(room, &[&eve]));
    assert_eq!(again["changed"], false);
}

#[test]
fn a_member_who_comes_back_hears_everything_from_then_on() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut owner = server.connect_on(0, &ada);
    let mut devices = [server.connect_on(0, &bob), server.connect_on(1, &bob)];
    let room = owner.group(&[]);
    for round in 0..20 {
        owner.ack("room.members.add", &members(room, &[&bob]));
        let seq = owner.send(room, &format!("Round {round}"));
        // Their own rules say that an event comes once, and none that is not theirs.
        for device in &mut devices {
            device.wait_for_seq(room, seq);
            assert_eq!(device.message(room)["seq"], seq);
        }
        owner.ack("room.members.remove", &members(room, &[&bob]));
        owner.send(room, "Not for Bob.");
        for device in &mut devices {
            device.event_of("room.removed");
            device.take_events();
        }
    }
}

#[test]
fn additions_and_removals_in_quick_succession_end_where_the_last_one_says() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut owner = server.connect_on(0, &ada);
    let mut devices = [server.connect_on(0, &bob), server.connect_on(1, &bob)];
    let room = owner.group(&[]);
    for round in 0..25 {
        let requests = [
            "room.members.add",
            "room.members.remove",
            "room.members.add",
        ];
        let ids = requests.map(|request| owner.tell(request, &members(room, &[&bob])));
        for id in ids {
            assert_eq!(owner.reply(id)["data"]["changed"], true);
        }
        let seq = owner.send(room, &format!("Round {round}"));
        for device in &mut devices {
            device.wait_for_seq(room, seq);
            device.take_events();
        }
        owner.ack("room.members.remove", &members(room, &[&bob]));
        for device in &mut devices {
            while device.positions.contains_key(&room) {
                device.event();
            }
        }
    }
}

#[test]
fn only_owners_and_admins_add_and_remove() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut owner = server.connect(&ada);
    let mut member = server.connect(&bob);
    let mut stranger = server.connect(&eve);
    let room = owner.group(&[&bob]);
    let nobody = User::new("Nobody");
    for client in [&mut member, &mut stranger] {
        assert_eq!(
            client.refusal("room.members.add", &members(room, &[&eve])),
            "forbidden"
        );
        assert_eq!(
            client.refusal("room.members.remove", &members(room, &[&ada])),
            "forbidden"
        );
    }
    for (users, code) in [(vec![&nobody], "not_found"), (vec![], "bad_request")] {
        assert_eq!(
            owner.refusal("room.members.add", &members(room, &users)),
            code
        );
    }
    // All or none: one unknown user, and nobody is added.
    let refused = owner.refusal("room.members.add", &members(room, &[&eve, &nobody]));
    assert_eq!(refused, "not_found");
    assert_eq!(
        stranger.refusal("room.get", &json!({"room_id": room})),
        "forbidden"
    );
    let many: Vec<Uuid> = (0..201).map(|_| Uuid::new_v4()).collect();
    let many = json!({"room_id": room, "user_ids": many});
    assert_eq!(owner.refusal("room.members.add", &many), "too_large");

    // To remove oneself is to leave.
    let left = member.ack("room.members.remove", &members(room, &[&bob]));
    assert_eq!(left["changed"], true);
    member.event_of("room.removed");
    let got = owner.ack("room.get", &json!({"room_id": room}));
    assert_eq!(got["room"]["member_count"], 1);
}

#[test]
fn an_owner_who_removes_everybody_and_themselves_goes_last() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut owner = server.connect_on(0, &ada);
    let mut bob_client = server.connect_on(1, &bob);
    let mut eve_client = server.connect_on(0, &eve);
    let room = owner.group(&[&bob, &eve]);
    let removed = owner.ack("room.members.remove", &members(room, &[&ada, &bob]));
    assert_eq!(removed["changed"], true);
    bob_client.event_of("room.removed");
    owner.event_of("room.removed");
    let change = eve_client.event_of("member.role_changed");
    assert_eq!(change["data"]["user_id"], eve.id.to_string());
    let got = eve_client.ack("room.get", &json!({"room_id": room}));
    assert_eq!(got["room"]["member_count"], 1);
    assert_eq!(got["room"]["members"][0]["role"], "owner");
}
