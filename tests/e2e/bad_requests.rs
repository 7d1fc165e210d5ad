//! Text that is no request, or one that makes no sense: it gets an error, with its `id` where that
//! could be read, and the connection goes on as if nothing had been.

use crate::support::client::code_of;
use crate::support::pair::Pair;
use crate::support::socket::Socket;
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use uuid::Uuid;

/// Sends these texts as one who is signed in; each gets this code.
fn refused(client: &mut Client, texts: &[&str], code: &str) {
    for text in texts {
        let id = serde_json::from_str::<Value>(text).ok();
        let id = id.and_then(|request| request["id"].as_u64()).unwrap_or(0);
        match id {
            0 => client.socket.send_text(text),
            id => client.tell_text(id, "", text),
        }
        let shown: String = text.chars().take(100).collect();
        assert_eq!(code_of(&client.reply(id)), code, "{shown}");
    }
    client.round_trip();
}

/// Does something bad as one who is signed in, while two people talk, who must be able to go on.
fn while_two_talk(bad: impl FnOnce(&mut Client)) {
    let server = Server::new();
    let pair = Pair::start(&server);
    bad(&mut server.connect(&User::new("Eve")));
    pair.stop();
}

#[test]
fn what_is_no_json_object_is_bad_request() {
    while_two_talk(|client| {
        let texts = [
            "",
            " ",
            "hello",
            "{",
            "}",
            "{}",
            "[]",
            "[1,2]",
            "null",
            "true",
            "1",
            "\"auth\"",
            "{\"id\":}",
            "{\"id\":1",
            "{\"data\":{}}",
            "{\"type\":1}",
            "{\"type\":null}",
            "{\"type\":\"pong\"} x",
            "{\"type\":\"pong\"}{\"type\":\"pong\"}",
            "{\"type\":\"rooms.list\",\"type\":}",
            "{'type':'pong'}",
            "{\"type\":\"\\ud800\"}",
            "{\"type\":\"rooms.list\",\"data\":{}",
        ];
        refused(client, &texts, "bad_request");
        // A control character as it stands is no JSON.
        refused(
            client,
            &["{\"type\":\"rooms.list\",\"x\":\"\u{0}\"}"],
            "bad_request",
        );
    });
}

#[test]
fn ids_are_integers_below_two_to_the_53rd() {
    while_two_talk(|client| {
        for id in [
            "-1",
            "1.5",
            "\"7\"",
            "1e3",
            "9007199254740993",
            "1e400",
            "[1]",
            "{}",
            "true",
        ] {
            let text = format!("{{\"id\":{id},\"type\":\"rooms.list\",\"data\":{{}}}}");
            client.socket.send_text(&text);
            assert_eq!(code_of(&client.reply(0)), "bad_request", "{id}");
        }
        for id in [1 << 53, (1 << 53) - 1] {
            let text = format!("{{\"id\":{id},\"type\":\"rooms.list\",\"data\":{{}}}}");
            client.tell_text(id, "rooms.list", &text);
            assert_eq!(client.reply(id)["type"], "ack");
        }
    });
}

#[test]
fn unknown_types_are_told_so_with_their_id() {
    while_two_talk(|client| {
        let long = format!("{{\"id\":502,\"type\":\"{}\"}}", "☕".repeat(5_000));
        let texts = [
            "{\"id\":500,\"type\":\"message.sing\",\"data\":{}}",
            "{\"id\":501,\"type\":\"\"}",
            &long,
            "{\"id\":503,\"type\":\"ready\",\"data\":{}}",
            "{\"id\":504,\"type\":\"ping\"}",
            "{\"id\":505,\"type\":\"AUTH\",\"data\":{}}",
        ];
        refused(client, &texts, "unknown_type");
    });
}

#[test]
fn data_that_is_no_object_or_of_another_shape_is_bad_request() {
    while_two_talk(|client| {
        let room = Uuid::new_v4();
        let by_position = format!("{{\"id\":601,\"type\":\"room.get\",\"data\":[\"{room}\"]}}");
        let texts = [
            "{\"id\":600,\"type\":\"rooms.list\",\"data\":[]}",
            &by_position,
            "{\"id\":602,\"type\":\"rooms.list\",\"data\":\"{}\"}",
            "{\"id\":603,\"type\":\"rooms.list\",\"data\":7}",
            "{\"id\":604,\"type\":\"room.get\",\"data\":null}",
            "{\"id\":605,\"type\":\"room.get\"}",
            "{\"id\":606,\"type\":\"room.get\",\"data\":{}}",
            "{\"id\":607,\"type\":\"room.get\",\"data\":{\"room_id\":7}}",
            "{\"id\":608,\"type\":\"room.get\",\"data\":{\"room_id\":\"x\"}}",
            "{\"id\":609,\"type\":\"rooms.list\",\"data\":{\"limit\":-1}}",
            "{\"id\":610,\"type\":\"rooms.list\",\"data\":{\"limit\":1.5}}",
            "{\"id\":611,\"type\":\"rooms.list\",\"data\":{\"limit\":99999999999}}",
            "{\"id\":612,\"type\":\"room.create\",\"data\":{\"kind\":\"channel\"}}",
        ];
        refused(client, &texts, "bad_request");
    });
}

#[test]
fn the_character_u0000_is_bad_request_in_every_string() {
    while_two_talk(|client| {
        let room = client.group(&[]);
        let mut texts = Vec::new();
        for (id, kind, data) in [
            (
                700,
                "message.send",
                json!({"room_id": room, "client_msg_id": Uuid::now_v7(),
                "kind": "text", "text": "a\u{0}b"}),
            ),
            (
                701,
                "room.create",
                json!({"kind": "group", "member_ids": [], "title": "\u{0}",
                "client_room_id": Uuid::new_v4()}),
            ),
            (702, "rooms.list", json!({"cursor": "\u{0}"})),
            (703, "auth.refresh", json!({"token": "\u{0}"})),
        ] {
            texts.push(json!({"id": id, "type": kind, "data": data}).to_string());
        }
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        refused(client, &texts, "bad_request");
        assert_eq!(client.history_after(room, 1), Vec::<Value>::new());
    });
}

#[test]
fn json_that_is_nested_without_end_is_refused() {
    let server = Server::new();
    let pair = Pair::start(&server);
    {
        let client = &mut server.connect(&User::new("Eve"));
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let levels = 60_000 / (open.len() + close.len());
            let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            let unclosed = open.repeat(60_000 / open.len());
            let texts = [
                unclosed.clone(),
                deep.clone(),
                format!("{{\"type\":\"rooms.list\",\"data\":{unclosed}"),
                format!("{{\"type\":\"room.get\",\"data\":{{\"room_id\":{deep}}}}}"),
                format!("{{\"type\":\"rooms.list\",\"data\":{{}},\"x\":{deep}}}"),
                format!("{{\"type\":\"rooms.list\",\"data\":{{\"x\":{deep}}}}}"),
            ];
            for text in texts {
                client.socket.send_text(&text);
                assert_eq!(code_of(&client.reply(0)), "bad_request");
                // Nobody has to be known for this.
                let mut stranger = Client::new(Socket::open(server.address), &User::new("Eve"));
                stranger.socket.send_text(&text);
                assert_eq!(code_of(&stranger.reply(0)), "bad_request");
                stranger.closed_with(4001);
            }
        }
        client.round_trip();
    }
    pair.stop();
}

#[test]
fn unknown_fields_are_ignored() {
    while_two_talk(|client| {
        let text = "{\"x\":[{}],\"data\":{\"y\":{\"z\":null}},\"type\":\"rooms.list\",\"id\":900}";
        client.tell_text(900, "rooms.list", text);
        assert_eq!(client.reply(900)["type"], "ack");
    });
}
