//! Pages of history: the four ways to ask, their limits, and their ends.

use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use uuid::Uuid;

/// A room of messages 2 to 251, after the event that opened it.
fn room_of_250(server: &Server) -> (Client, Uuid) {
    let mut client = server.connect(&User::new("Ada"));
    let room = client.group(&[]);
    let asked: Vec<u64> = (2..=251)
        .map(|seq: u64| {
            let text = format!("Message {seq}");
            let data = crate::support::client::message(room, Uuid::now_v7(), &text);
            client.tell("message.send", &data)
        })
        .collect();
    for (id, seq) in asked.into_iter().zip(2..) {
        assert_eq!(client.reply(id)["data"]["seq"], seq as u64);
    }
    (client, room)
}

/// A page: its `seq`s, whether there is more, and `next_after_seq`.
fn page(client: &mut Client, room: Uuid, how: Value) -> (Vec<u64>, bool, Option<u64>) {
    let mut data = how;
    data["room_id"] = json!(room);
    let page = client.ack("history.get", &data);
    assert_eq!(page["last_seq"], 251, "{data}");
    let messages = page["messages"].as_array().expect("messages");
    for message in messages {
        let seq = message["seq"].as_u64().expect("a seq");
        assert_eq!(message["changed_seq"], seq);
        match seq {
            1 => assert_eq!(message["event"]["type"], "room.created"),
            _ => assert_eq!(message["text"], format!("Message {seq}")),
        }
    }
    let seqs = messages
        .iter()
        .map(|message| message["seq"].as_u64().expect("a seq"));
    let has_more = page["has_more"].as_bool().expect("has_more");
    let next = page
        .get("next_after_seq")
        .map(|next| next.as_u64().expect("a seq"));
    (seqs.collect(), has_more, next)
}

fn seqs(from: u64, to: u64) -> Vec<u64> {
    (from..=to).collect()
}

#[test]
fn the_newest_page_and_those_before_it() {
    let server = Server::unlimited();
    let (mut client, room) = room_of_250(&server);
    let mut ask = |how: Value| page(&mut client, room, how);
    assert_eq!(ask(json!({})), (seqs(152, 251), true, None));
    assert_eq!(ask(json!({"limit": 10})), (seqs(242, 251), true, None));
    assert_eq!(ask(json!({"limit": 100_000})), (seqs(152, 251), true, None));
    assert_eq!(ask(json!({"before_seq": 152})), (seqs(52, 151), true, None));
    assert_eq!(ask(json!({"before_seq": 52})), (seqs(1, 51), false, None));
    assert_eq!(
        ask(json!({"before_seq": 11, "limit": 10})),
        (seqs(1, 10), false, None)
    );
    assert_eq!(
        ask(json!({"before_seq": 12, "limit": 10})),
        (seqs(2, 11), true, None)
    );
    assert_eq!(ask(json!({"before_seq": 1})), (vec![], false, None));
    assert_eq!(ask(json!({"before_seq": 0})), (vec![], false, None));
    assert_eq!(
        ask(json!({"before_seq": 9_000, "limit": 2})),
        (seqs(250, 251), true, None)
    );
}

#[test]
fn pages_after_a_position_lead_to_the_end() {
    let server = Server::unlimited();
    let (mut client, room) = room_of_250(&server);
    let mut ask = |how: Value| page(&mut client, room, how);
    assert_eq!(
        ask(json!({"after_seq": 0})),
        (seqs(1, 100), true, Some(100))
    );
    assert_eq!(
        ask(json!({"after_seq": 100})),
        (seqs(101, 200), true, Some(200))
    );
    assert_eq!(
        ask(json!({"after_seq": 200})),
        (seqs(201, 251), false, Some(251))
    );
    assert_eq!(
        ask(json!({"after_seq": 151})),
        (seqs(152, 251), false, Some(251))
    );
    assert_eq!(ask(json!({"after_seq": 251})), (vec![], false, Some(251)));
    // Ahead of the server: its end is told.
    assert_eq!(ask(json!({"after_seq": 9_000})), (vec![], false, Some(251)));
    assert_eq!(
        ask(json!({"after_seq": 7, "limit": 1})),
        (vec![8], true, Some(8))
    );
}

#[test]
fn a_page_around_a_message_has_both_sides_of_it() {
    let server = Server::unlimited();
    let (mut client, room) = room_of_250(&server);
    for (around, limit) in [
        (100, 11),
        (100, 10),
        (100, 1),
        (1, 10),
        (251, 10),
        (0, 5),
        (900, 5),
    ] {
        let how = json!({"around_seq": around, "limit": limit});
        let (found, has_more, next) = page(&mut client, room, how);
        assert_eq!(found.len(), limit, "around {around}");
        assert!(
            found.windows(2).all(|pair| pair[1] == pair[0] + 1),
            "{found:?}"
        );
        assert!(
            (1..=251).contains(&around) == found.contains(&around),
            "{found:?}"
        );
        if around == 100 && limit > 1 {
            let middle = found[limit / 2].abs_diff(around);
            assert!(middle <= 1, "{found:?}");
        }
        assert_eq!((has_more, next), (true, None));
    }
    let (found, has_more, _) = page(&mut client, room, json!({"around_seq": 251}));
    assert_eq!((found, has_more), (seqs(152, 251), true));
}

#[test]
fn two_positions_at_once_are_refused() {
    let server = Server::new();
    let mut client = server.connect(&User::new("Ada"));
    let room = client.group(&[]);
    for how in [
        json!({"before_seq": 1, "after_seq": 1}),
        json!({"after_seq": 1, "around_seq": 1}),
        json!({"before_seq": 1, "around_seq": 1}),
    ] {
        let mut data = how;
        data["room_id"] = json!(room);
        assert_eq!(client.refusal("history.get", &data), "bad_request");
    }
}

#[test]
fn a_page_of_long_messages_ends_early_and_leads_on() {
    let server = Server::unlimited();
    let mut client = server.connect(&User::new("Ada"));
    let room = client.group(&[]);
    // 16 KB each; a page has room for 128 KiB of text.
    let text = "😀".repeat(4_000);
    for _ in 0..20 {
        client.send(room, &text);
    }
    let first = client.ack("history.get", &json!({"room_id": room, "after_seq": 0}));
    assert_eq!(first["has_more"], true);
    let count = first["messages"].as_array().expect("messages").len();
    assert!((2..21).contains(&count), "{count}");
    assert_eq!(first["next_after_seq"], count);
    let history = client.history_after(room, 0);
    let found: Vec<u64> = history
        .iter()
        .map(|m| m["seq"].as_u64().expect("a seq"))
        .collect();
    assert_eq!(found, seqs(1, 21));
}

#[test]
fn many_pages_asked_at_once_are_answered_one_after_the_other() {
    let server = Server::unlimited();
    let (mut client, room) = room_of_250(&server);
    let asked: Vec<(u64, u64)> = (0..60)
        .map(|n| {
            let data = json!({"room_id": room, "after_seq": n, "limit": 100});
            (n, client.tell("history.get", &data))
        })
        .collect();
    for (after, id) in asked {
        let reply = client.reply(id);
        assert_eq!(reply["data"]["messages"][0]["seq"], after + 1);
    }
}
