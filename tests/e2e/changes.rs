//! Changing what was said: edits, deletions, reactions, pins, mentions, reports, roles. Who may do what
//! is asked of the stores in tests/contract/matrix.rs; here it comes through the socket.

use crate::support::client::{message, uuid};
use crate::support::socket::Socket;
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use uuid::Uuid;

/// What names a message.
fn named(room: Uuid, seq: u64) -> Value {
    json!({"room_id": room, "message_seq": seq})
}

fn with(mut data: Value, key: &str, value: impl Into<Value>) -> Value {
    data[key] = value.into();
    data
}

/// Two who are connected, on different shards where there are two, and their direct room.
fn two(server: &Server) -> (Client, Client, Uuid) {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bob_client = server.connect_on(1, &bob);
    let mut ada_client = server.connect_on(0, &ada);
    let room = ada_client.direct(&bob);
    bob_client.wait_for_seq(room, 1);
    (ada_client, bob_client, room)
}

#[test]
fn an_edit_reaches_everybody_and_is_what_the_history_shows() {
    let server = Server::new();
    let (mut ada, mut bob, room) = two(&server);
    let seq = ada.send(room, "Coffe?");
    let edit = with(named(room, seq), "text", "Coffee? ☕");
    let first = with(edit.clone(), "expected_revision", 1);
    let edited = ada.ack("message.edit", &first);
    let expected = json!({
        "room_id": room, "message_seq": seq, "changed": true, "seq": seq + 1, "revision": 2,
    });
    assert_eq!(edited, expected);
    let event = bob.event_of("message.updated");
    assert_eq!(
        (&event["seq"], &event["data"]["message_seq"]),
        (&json!(seq + 1), &json!(seq))
    );
    let told = &event["data"]["message"];
    assert_eq!(told["text"], "Coffee? ☕");
    assert_eq!(
        (&told["revision"], &told["changed_seq"], &told["edited_at"]),
        (&json!(2), &json!(seq + 1), &event["ts"])
    );
    assert_eq!(ada.event_of("message.updated"), event, "to the letter");
    assert_eq!(bob.history_after(room, seq), std::slice::from_ref(told));

    // Its ack was lost, so it is sent again.
    let again = ada.ack("message.edit", &first);
    assert_eq!(again["changed"], false);
    assert_eq!(
        (&again["seq"], &again["revision"]),
        (&json!(seq + 1), &json!(2))
    );
    let late = with(with(edit.clone(), "text", "Tea?"), "expected_revision", 1);
    assert_eq!(ada.refusal("message.edit", &late), "revision_conflict");
    assert_eq!(bob.refusal("message.edit", &edit), "forbidden");
    assert_eq!(
        ada.refusal("message.edit", &with(edit.clone(), "message_seq", 99)),
        "not_found"
    );
    for (text, code) in [
        (String::new(), "bad_request"),
        (" \n".to_owned(), "bad_request"),
    ] {
        let empty = with(edit.clone(), "text", text);
        assert_eq!(ada.refusal("message.edit", &empty), code);
    }
    // Limits count characters, not bytes.
    let longest = with(edit.clone(), "text", "👍".repeat(4_000));
    assert_eq!(ada.ack("message.edit", &longest)["revision"], 3);
    let longer = with(edit.clone(), "text", "👍".repeat(4_001));
    assert_eq!(ada.refusal("message.edit", &longer), "too_large");
    ada.round_trip();
    bob.wait_for_seq(room, seq + 2);
}

#[test]
fn a_deleted_message_is_a_tombstone_and_its_retry_a_duplicate() {
    let server = Server::new();
    let (mut ada, mut bob, room) = two(&server);
    let id = Uuid::now_v7();
    let sent = ada.ack("message.send", &message(room, id, "A secret."));
    let seq = sent["seq"].as_u64().expect("a seq");
    assert_eq!(
        bob.refusal("message.delete", &named(room, seq)),
        "forbidden"
    );
    let deleted = ada.ack("message.delete", &named(room, seq));
    assert_eq!(
        (&deleted["changed"], &deleted["seq"]),
        (&json!(true), &json!(seq + 1))
    );
    let event = bob.event_of("message.deleted");
    let expected = json!({"message_seq": seq, "actor_id": ada.user.id, "deleted_at": event["ts"]});
    assert_eq!(event["data"], expected);
    let history = bob.history_after(room, 1);
    assert_eq!(history.len(), 1);
    assert_eq!(
        (&history[0]["text"], &history[0]["deleted_at"]),
        (&Value::Null, &event["ts"])
    );
    let again = ada.ack("message.delete", &named(room, seq));
    assert_eq!(
        (&again["changed"], &again["seq"]),
        (&json!(false), &json!(seq + 1))
    );
    let retried = ada.ack("message.send", &message(room, id, "A secret."));
    assert_eq!(
        (&retried["duplicate"], &retried["seq"]),
        (&json!(true), &json!(seq))
    );
    let gone = with(named(room, seq), "text", "Back.");
    assert_eq!(ada.refusal("message.edit", &gone), "gone");
    let like = with(named(room, seq), "emoji", "👍");
    assert_eq!(bob.refusal("reaction.add", &like), "gone");
}

#[test]
fn a_reaction_is_counted_for_all_and_marked_for_its_user() {
    let server = Server::new();
    let (mut ada, mut bob, room) = two(&server);
    let seq = ada.send(room, "Coffee?");
    // A heart without its variation selector is the same heart.
    for (client, emoji, count) in [(&mut ada, "❤", 1), (&mut bob, "❤️", 2)] {
        let added = client.ack("reaction.add", &with(named(room, seq), "emoji", emoji));
        assert_eq!(added["changed"], true);
        let event = added["seq"].as_u64().expect("a seq");
        client.wait_for_seq(room, event);
        let told = client.take_events();
        let told = told.iter().rev().find(|told| told["seq"] == event);
        let expected = json!({
            "message_seq": seq, "user_id": client.user.id, "emoji": "❤️", "added": true,
            "count": count,
        });
        assert_eq!(told.expect("its event")["data"], expected);
    }
    let family = with(named(room, seq), "emoji", "👨‍👩‍👧‍👦");
    bob.ack("reaction.add", &family);
    let again = bob.ack("reaction.add", &family);
    assert_eq!(again["changed"], false);
    let shown = |client: &mut Client| client.history_after(room, seq - 1)[0]["reactions"].clone();
    let both = json!({
        "❤️": {"count": 2, "mine": true}, "👨‍👩‍👧‍👦": {"count": 1, "mine": false},
    });
    assert_eq!(shown(&mut ada), both);
    let heart = with(named(room, seq), "emoji", "❤️");
    assert_eq!(ada.ack("reaction.remove", &heart)["changed"], true);
    assert_eq!(ada.ack("reaction.remove", &heart)["changed"], false);
    let left = json!({
        "❤️": {"count": 1, "mine": true}, "👨‍👩‍👧‍👦": {"count": 1, "mine": true},
    });
    assert_eq!(shown(&mut bob), left);
    for emoji in ["", "a", "👍👍", "👍 ", "e\u{301}", "\u{1F1E6}", "<b>", "1"] {
        let bad = with(named(room, seq), "emoji", emoji);
        assert_eq!(
            bob.refusal("reaction.add", &bad),
            "bad_request",
            "{emoji:?}"
        );
    }
    for emoji in ["👍🏽", "🇩🇪", "1️⃣", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "👩🏽‍🚀"]
    {
        let good = with(named(room, seq), "emoji", emoji);
        assert_eq!(bob.ack("reaction.add", &good)["changed"], true, "{emoji:?}");
    }
}

#[test]
fn pins_stand_with_the_room() {
    let server = Server::new();
    let (mut ada, mut bob, room) = two(&server);
    let seq = ada.send(room, "Our place: 52.52, 13.40");
    let pinned = bob.ack("message.pin", &named(room, seq));
    assert_eq!(pinned["changed"], true);
    let event = ada.event_of("message.pinned");
    assert_eq!(
        event["data"],
        json!({"message_seq": seq, "actor_id": bob.user.id})
    );
    let got = ada.ack("room.get", &json!({"room_id": room}));
    let expected = json!([
        {"message_seq": seq, "pinned_by": bob.user.id, "pinned_at": event["ts"]},
    ]);
    assert_eq!(got["room"]["pins"], expected);
    assert_eq!(bob.ack("message.pin", &named(room, seq))["changed"], false);
    assert_eq!(ada.ack("message.unpin", &named(room, seq))["changed"], true);
    assert_eq!(
        ada.ack("message.unpin", &named(room, seq))["changed"],
        false
    );
    let event = bob.event_of("message.unpinned");
    assert_eq!(event["data"]["actor_id"], json!(ada.user.id));
    let got = ada.ack("room.get", &json!({"room_id": room}));
    assert_eq!(got["room"]["pins"], json!([]));
}

#[test]
fn a_mention_names_members_and_all_only_by_who_leads() {
    let server = Server::new();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let mut owner = server.connect_on(0, &ada);
    let mut bob_client = server.connect_on(1, &bob);
    server.connect(&eve);
    let room = owner.group(&[&bob]);
    bob_client.wait_for_seq(room, 1);
    let id = Uuid::now_v7();
    let mentions = json!([bob.id, "all", bob.id]);
    let data = with(message(room, id, "Hear, hear"), "mentions", mentions);
    let sent = owner.ack("message.send", &data);
    let event = bob_client.message(room);
    let expected = json!(["all", bob.id]);
    assert_eq!(event["data"]["message"]["mentions"], expected);
    let again = with(data.clone(), "mentions", json!(["all", bob.id]));
    let again = owner.ack("message.send", &again);
    assert_eq!(
        (&again["duplicate"], &again["seq"]),
        (&json!(true), &sent["seq"])
    );
    let other = with(data.clone(), "mentions", json!([bob.id]));
    assert_eq!(
        owner.refusal("message.send", &other),
        "idempotency_conflict"
    );
    let new = |mentions: Value| with(message(room, Uuid::now_v7(), "Hear"), "mentions", mentions);
    assert_eq!(
        owner.refusal("message.send", &new(json!([eve.id]))),
        "not_found"
    );
    let all = new(json!(["all"]));
    assert_eq!(bob_client.refusal("message.send", &all), "forbidden");
    let many: Vec<Uuid> = (0..51).map(|_| Uuid::new_v4()).collect();
    assert_eq!(
        owner.refusal("message.send", &new(json!(many))),
        "too_large"
    );

    // Who is given the role may.
    let role =
        |user: &User, role: &str| json!({"room_id": room, "user_ids": [user.id], "role": role});
    assert_eq!(
        bob_client.refusal("room.role.set", &role(&bob, "admin")),
        "forbidden"
    );
    assert_eq!(
        owner.ack("room.role.set", &role(&bob, "admin"))["changed"],
        true
    );
    let event = bob_client.event_of("member.role_changed");
    let expected = json!({"user_id": bob.id, "role": "admin", "actor_id": ada.id});
    assert_eq!(event["data"], expected);
    bob_client.ack("message.send", &all);
    assert_eq!(
        owner.ack("room.role.set", &role(&bob, "owner"))["changed"],
        true
    );
    let got = owner.ack("room.get", &json!({"room_id": room}));
    let roles: Vec<(Uuid, &str)> = (got["room"]["members"].as_array().expect("members").iter())
        .map(|member| {
            (
                uuid(&member["user_id"]),
                member["role"].as_str().expect("a role"),
            )
        })
        .collect();
    assert!(roles.contains(&(bob.id, "owner")) && roles.contains(&(ada.id, "admin")));
}

#[test]
fn a_report_is_told_to_nobody() {
    let server = Server::new();
    let (mut ada, mut bob, room) = two(&server);
    let seq = ada.send(room, "Something bad");
    for changed in [true, false] {
        let reported = bob.ack("message.report", &named(room, seq));
        let expected = json!({
            "room_id": room, "message_seq": seq, "changed": changed, "seq": seq, "revision": 1,
        });
        assert_eq!(reported, expected);
    }
    let next = ada.send(room, "Something else");
    assert_eq!(next, seq + 1, "no event lies between");
}

#[test]
fn who_comes_back_misses_no_change_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Server::unlimited_in(folder.path());
    let (mut ada, mut bob, room) = two(&server);
    let first = ada.send(room, "One");
    let second = ada.send(room, "Two");
    bob.wait_for_seq(room, second);
    let (bob_user, epoch) = (bob.user.clone(), bob.ready["epoch"].clone());
    drop(bob);
    let edit = |seq, text: &str| with(named(room, seq), "text", text);
    ada.ack("message.edit", &edit(first, "One!"));
    ada.ack("message.edit", &edit(first, "One!!"));
    ada.ack("reaction.add", &with(named(room, second), "emoji", "👍"));
    ada.ack("message.pin", &named(room, second));
    ada.ack("message.edit", &edit(second, "A secret"));
    ada.ack("message.delete", &named(room, second));
    let last = ada.send(room, "Three");
    ada.wait_for_seq(room, last);
    drop(ada);
    for restarted in [false, true] {
        if restarted {
            server.kill();
            server = Server::unlimited_in(folder.path());
        }
        let resume = json!({"epoch": epoch, "rooms": {room.to_string(): second}});
        let mut back = Client::sign_in(Socket::open(server.address), &bob_user, Some(resume));
        assert_eq!(back.ready["rooms"][0]["recovered"], true, "{}", back.ready);
        back.wait_for_seq(room, last);
        let told: Vec<Value> = back.take_events();
        let kinds: Vec<&str> = told
            .iter()
            .filter_map(|event| event["type"].as_str())
            .collect();
        let expected = [
            "message.updated",
            "message.updated",
            "reaction.updated",
            "message.pinned",
            "message.updated",
            "message.deleted",
            "message.created",
        ];
        assert_eq!(kinds, expected);
        assert!(
            told.iter()
                .map(|event| event["seq"].as_u64())
                .eq((second + 1..=last).map(Some))
        );
        if restarted {
            // From the store, where nothing is left of it.
            assert!(!json!(told).to_string().contains("secret"));
        }
        // One page, in the current state, by what changed last.
        let history = back.history_after(room, second);
        let seqs: Vec<(u64, u64)> = history
            .iter()
            .map(|message| (message["seq"].as_u64(), message["changed_seq"].as_u64()))
            .map(|(seq, changed)| (seq.expect("a seq"), changed.expect("a seq")))
            .collect();
        assert_eq!(
            seqs,
            [(first, second + 2), (second, last - 1), (last, last)]
        );
        assert_eq!(history[0]["text"], "One!!");
        assert_eq!(
            (&history[1]["text"], &history[1]["reactions"]),
            (&Value::Null, &json!({}))
        );
    }
}

#[test]
fn a_group_gets_another_title_and_a_line_in_its_history() {
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut owner = server.connect_on(0, &ada);
    let mut bob_client = server.connect_on(1, &bob);
    let room = owner.group(&[&bob]);
    bob_client.wait_for_seq(room, 1);
    let title = |title: &str| json!({"room_id": room, "title": title});
    let done = owner.ack("room.update", &title("  Tea 🍵 "));
    let expected = json!({"room_id": room, "changed": true, "seq": 2});
    assert_eq!(done, expected);
    let event = bob_client.event_of("room.updated");
    assert_eq!(
        event["data"],
        json!({"title": "Tea 🍵", "actor_id": ada.id})
    );
    assert_eq!(owner.ack("room.update", &title("Tea 🍵"))["changed"], false);
    assert_eq!(
        bob_client.refusal("room.update", &title("Mine")),
        "forbidden"
    );
    let longer = title(&"🍵".repeat(201));
    assert_eq!(owner.refusal("room.update", &longer), "too_large");
    let nothing = json!({"room_id": room});
    assert_eq!(owner.refusal("room.update", &nothing), "bad_request");
    let line = &bob_client.history_after(room, 1)[0];
    assert_eq!(line["kind"], "system");
    let expected = json!({"type": "room.updated", "title": "Tea 🍵", "actor_id": ada.id});
    assert_eq!(line["event"], expected);
    let got = bob_client.ack("room.get", &json!({"room_id": room}));
    assert_eq!(got["room"]["title"], "Tea 🍵");
}

#[test]
fn a_group_gets_a_picture_and_loses_it_again() {
    const MILL: &str = "https://caffis.example/mill.jpg?v=2";
    let server = Server::new();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = server.connect_on(1, &bob);
    let mut owner = server.connect_on(0, &ada);
    let room = owner.group(&[&bob]);
    let picture = |url: Value| json!({"room_id": room, "picture": url});
    assert_eq!(owner.ack("room.update", &picture(json!(MILL)))["seq"], 2);
    let event = bobs.event_of("room.updated");
    assert_eq!(event["data"], json!({"picture": MILL, "actor_id": ada.id}));
    let again = owner.ack("room.update", &picture(json!(MILL)));
    assert_eq!(again["changed"], false);
    let got = bobs.ack("room.get", &json!({"room_id": room}));
    assert_eq!(
        (&got["room"]["picture"], &got["room"]["title"]),
        (&json!(MILL), &json!("A group"))
    );
    let listed = bobs.ack("rooms.list", &json!({}));
    assert_eq!(listed["rooms"][0]["picture"], MILL);
    for wrong in [
        "javascript:alert(1)",
        "//caffis.example/a",
        "https://",
        "https:///a",
        "https://a b",
        "mill.jpg",
    ] {
        assert_eq!(
            owner.refusal("room.update", &picture(json!(wrong))),
            "bad_request",
            "{wrong}"
        );
    }
    let mine = picture(json!(MILL));
    assert_eq!(bobs.refusal("room.update", &mine), "forbidden");
    for none in [json!(null), json!(MILL), json!(" ")] {
        owner.ack("room.update", &picture(none));
    }
    bobs.wait_for_seq(room, 5);
    let got = bobs.ack("room.get", &json!({"room_id": room}));
    assert_eq!(got["room"]["picture"], json!(null));
    let lines = bobs.history_after(room, 4);
    assert_eq!(
        lines[0]["event"],
        json!({"type": "room.updated", "picture": null, "actor_id": ada.id})
    );
}
