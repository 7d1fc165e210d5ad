//! Sending: the ack, the event, retries, order, and what is refused.

use crate::support::client::{code_of, message, uuid};
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use std::thread;
use uuid::Uuid;

#[test]
fn a_message_is_acknowledged_and_reaches_everybody_the_senders_own_connections_too() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut sender = server.connect_on(0, &ada);
    let mut others: Vec<Client> = Vec::new();
    for shard in [0, 1] {
        others.push(server.connect_on(shard, &ada));
        others.push(server.connect_on(shard, &bob));
    }
    let room = sender.direct(&bob);
    for client in &mut others {
        client.wait_for_seq(room, 1);
    }
    let id = Uuid::now_v7();
    let sent = sender.ack("message.send", &message(room, id, "Coffee? ☕"));
    let expected = json!({
        "client_msg_id": id, "room_id": room, "seq": 2, "ts": sent["ts"], "duplicate": false,
    });
    assert_eq!(sent, expected);
    let event = sender.message(room);
    let expected = json!({
        "type": "message.created", "room_id": room, "seq": 2, "ts": sent["ts"],
        "data": {"message_seq": 2, "message": {
            "seq": 2, "sender_id": ada.id, "client_msg_id": id, "kind": "text",
            "text": "Coffee? ☕", "attachments": [], "reply_to_seq": null, "mentions": [],
            "reactions": {}, "changed_seq": 2, "revision": 1, "edited_at": null,
            "deleted_at": null, "created_at": sent["ts"],
        }},
    });
    assert_eq!(event, expected);
    // The same for everybody, to the letter.
    for client in &mut others {
        assert_eq!(client.message(room), event);
    }
    let history = others[1].history_after(room, 1);
    assert_eq!(history, [event["data"]["message"].clone()]);
}

#[test]
fn a_retry_is_one_message_from_whichever_connection() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut clients: Vec<Client> = (0..4).map(|n| server.connect_on(n % 2, &ada)).collect();
    let mut bob_client = server.connect(&bob);
    let room = clients[0].direct(&bob);
    let id = Uuid::now_v7();
    let data = message(room, id, "Once.");
    let first = clients[0].ack("message.send", &data);
    for client in &mut clients {
        let mut again = client.ack("message.send", &data);
        assert_eq!(again["duplicate"].take(), json!(true));
        again["duplicate"] = json!(false);
        assert_eq!(again, first);
    }
    // Another body by the same name is another message, and is refused.
    for mut other in [message(room, id, "Once!"), data.clone()] {
        if other == data {
            other["reply_to_seq"] = json!(1);
        }
        assert_eq!(
            clients[0].refusal("message.send", &other),
            "idempotency_conflict"
        );
    }
    // The name is the sender's own, and the room's.
    let others = bob_client.ack("message.send", &data);
    assert_eq!(
        (&others["duplicate"], &others["seq"]),
        (&json!(false), &json!(3))
    );
    let elsewhere = clients[0].group(&[]);
    let there = clients[0].ack("message.send", &message(elsewhere, id, "Once."));
    assert_eq!(
        (&there["duplicate"], &there["seq"]),
        (&json!(false), &json!(2))
    );
    let history = bob_client.history_after(room, 1);
    assert_eq!(history.len(), 2, "{history:?}");
}

#[test]
fn retries_at_the_same_time_are_one_message() {
    let server = Server::unlimited();
    let ada = User::new("Ada");
    let mut clients: Vec<Client> = (0..4).map(|n| server.connect_on(n % 2, &ada)).collect();
    let room = clients[0].group(&[]);
    for round in 0..50 {
        let data = message(room, Uuid::now_v7(), &format!("Round {round}"));
        let asked: Vec<u64> = (clients.iter_mut())
            .flat_map(|client| {
                [
                    client.tell("message.send", &data),
                    client.tell("message.send", &data),
                ]
            })
            .collect();
        let mut first = 0;
        for (client, ids) in clients.iter_mut().zip(asked.chunks(2)) {
            for id in ids {
                let reply = client.reply(*id);
                assert_eq!(reply["data"]["seq"], round + 2, "{reply}");
                first += usize::from(reply["data"]["duplicate"] == false);
            }
        }
        assert_eq!(first, 1, "one of them was the first");
    }
}

#[test]
fn messages_of_one_connection_stand_in_the_order_they_were_sent() {
    let server = Server::unlimited();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut sender = server.connect_on(0, &ada);
    let mut reader = server.connect_on(1, &bob);
    // Rooms of either home.
    let rooms: Vec<Uuid> = (0..4).map(|_| sender.group(&[&bob])).collect();
    for room in &rooms {
        reader.wait_for_seq(*room, 1);
    }
    let mut asked = Vec::new();
    for number in 0..100 {
        for room in &rooms {
            let data = message(*room, Uuid::now_v7(), &number.to_string());
            asked.push((sender.tell("message.send", &data), number + 2));
        }
    }
    for (id, seq) in asked {
        assert_eq!(sender.reply(id)["data"]["seq"], seq);
    }
    for room in rooms {
        for number in 0..100 {
            let text = reader.message(room)["data"]["message"]["text"].clone();
            assert_eq!(text, number.to_string());
        }
    }
}

#[test]
fn everybody_sees_the_same_order_of_many_senders() {
    const SENDERS: usize = 6;
    const MESSAGES: usize = 100;
    let server = Server::unlimited();
    let users: Vec<User> = (0..SENDERS).map(|_| User::new("Sender")).collect();
    let mut clients: Vec<Client> = (users.iter().enumerate())
        .map(|(number, user)| server.connect_on(number % 2, user))
        .collect();
    let others: Vec<&User> = users[1..].iter().collect();
    let room = clients[0].group(&others);
    for client in &mut clients {
        client.wait_for_seq(room, 1);
    }
    let last_seq = (SENDERS * MESSAGES) as u64 + 1;
    let threads: Vec<_> = (clients.into_iter())
        .map(|mut client| {
            thread::spawn(move || {
                let mut asked = Vec::new();
                for number in 0..MESSAGES {
                    let data = message(room, Uuid::now_v7(), &number.to_string());
                    asked.push(client.tell("message.send", &data));
                }
                let acked: Vec<u64> = (asked.into_iter())
                    .map(|id| client.reply(id)["data"]["seq"].as_u64().expect("a seq"))
                    .collect();
                client.wait_for_seq(room, last_seq);
                let mut events = client.take_events();
                events.retain(|event| event["type"] == "message.created");
                (client.user.id, acked, events)
            })
        })
        .collect();
    let seen: Vec<(Uuid, Vec<u64>, Vec<Value>)> = (threads.into_iter())
        .map(|thread| thread.join().expect("a sender"))
        .collect();
    let (_, _, everything) = &seen[0];
    assert_eq!(everything.len(), SENDERS * MESSAGES);
    for (user, acked, events) in &seen {
        assert_eq!(events, everything);
        let own: Vec<u64> = (events.iter())
            .filter(|event| event["data"]["message"]["sender_id"] == user.to_string())
            .map(|event| event["seq"].as_u64().expect("a seq"))
            .collect();
        assert_eq!(own, *acked, "the acks say what the events say");
    }
    let times: Vec<&str> = everything
        .iter()
        .map(|event| event["ts"].as_str().expect("a time"))
        .collect();
    assert!(times.is_sorted(), "times never decrease");
}

#[test]
fn an_answer_names_a_message_of_its_room() {
    let server = Server::new();
    let mut client = server.connect(&User::new("Ada"));
    let room = client.group(&[]);
    let seq = client.send(room, "A question?");
    let mut data = message(room, Uuid::now_v7(), "An answer.");
    data["reply_to_seq"] = json!(seq);
    client.ack("message.send", &data);
    client.message(room);
    assert_eq!(client.message(room)["data"]["message"]["reply_to_seq"], seq);
    for nothing in [0, 99] {
        let mut data = message(room, Uuid::now_v7(), "An answer.");
        data["reply_to_seq"] = json!(nothing);
        assert_eq!(client.refusal("message.send", &data), "not_found");
    }
}

#[test]
fn four_thousand_characters_of_any_kind_are_taken_and_one_more_is_not() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut sender = server.connect_on(0, &ada);
    let mut reader = server.connect_on(1, &bob);
    let room = sender.direct(&bob);
    reader.wait_for_seq(room, 1);
    for character in [
        "a",
        "é",
        "☕",
        "😀",
        "\"",
        "\\",
        "\n",
        "\u{1}",
        "\u{2028}",
        "\u{10ffff}",
    ] {
        let text = character.repeat(4_000);
        // White space alone is no text.
        let text = format!("{}.", &text[..text.len() - character.len()]);
        let seq = sender.send(room, &text);
        let event = reader.message(room);
        assert_eq!(event["seq"], seq);
        assert_eq!(event["data"]["message"]["text"], text);
        let longer = format!("{text}{character}");
        let refused = sender.refusal("message.send", &message(room, Uuid::now_v7(), &longer));
        assert_eq!(refused, "too_large");
    }
    let history = reader.history_after(room, 1);
    assert_eq!(history.len(), 10);
}

#[test]
fn what_cannot_be_sent_is_refused_and_not_stored() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut client = server.connect(&ada);
    let mut stranger = server.connect(&bob);
    let room = client.group(&[]);
    for text in ["", " ", "\n\t\u{3000}"] {
        let refused = client.refusal("message.send", &message(room, Uuid::now_v7(), text));
        assert_eq!(refused, "bad_request", "{text:?}");
    }
    let without = json!({"room_id": room, "client_msg_id": Uuid::now_v7(), "kind": "text"});
    assert_eq!(client.refusal("message.send", &without), "bad_request");
    // Not yet spoken, so not in the document.
    let picture = json!({"id": 900, "type": "message.send", "data": {
        "room_id": room, "client_msg_id": Uuid::now_v7(), "kind": "image",
    }});
    client.tell_text(900, "message.send", &picture.to_string());
    assert_eq!(code_of(&client.reply(900)), "bad_request");
    for room in [room, Uuid::new_v4()] {
        let refused = stranger.refusal("message.send", &message(room, Uuid::now_v7(), "Hello."));
        assert_eq!(refused, "forbidden");
    }
    assert_eq!(client.history_after(room, 1), Vec::<Value>::new());
    assert_eq!(client.send(room, "This one is good."), 2);
}

#[test]
fn a_retry_is_recognised_after_its_sender_was_removed() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut owner = server.connect(&ada);
    let mut member = server.connect(&bob);
    let room = owner.group(&[&bob]);
    let data = message(room, Uuid::now_v7(), "Before I go.");
    member.wait_for_seq(room, 1);
    let first = member.ack("message.send", &data);
    let remove = json!({"room_id": room, "user_ids": [bob.id]});
    owner.ack("room.members.remove", &remove);
    member.event_of("room.removed");
    let again = member.ack("message.send", &data);
    assert_eq!(
        (&again["seq"], &again["duplicate"]),
        (&first["seq"], &json!(true))
    );
    assert_eq!(uuid(&again["room_id"]), room);
}
