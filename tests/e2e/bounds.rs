//! What is announced and documented as a limit: as much is taken, one more is not, on a socket and over HTTP.

use crate::conformance::{as_http, endpoint_of};
use crate::support::client::{code_of, message};
use crate::support::rest::Rest;
use crate::support::{Client, Server, User};
use serde_json::{Value, json};
use uuid::Uuid;

/// What a request of so much is.
type Data = fn(Uuid, usize) -> Value;

fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::new_v4()).collect()
}

fn upload(room: Uuid) -> Value {
    json!({
        "room_id": room, "kind": "image", "name": "a.png", "size": 1,
        "content_type": "image/png",
    })
}

fn with(mut data: Value, field: &str, value: Value) -> Value {
    data[field] = value;
    data
}

fn picture(room: Uuid, attachments: Value) -> Value {
    json!({
        "room_id": room, "client_msg_id": Uuid::now_v7(), "kind": "image",
        "attachments": attachments,
    })
}

/// What is limited, how it is asked for, how much of it there may be, and what that much is answered.
const TABLE: &[(&str, &str, Data, usize, &str)] = &[
    (
        "characters of a text, whatever they take in bytes",
        "message.send",
        |room, n| message(room, Uuid::now_v7(), &"😀".repeat(n)),
        4_000,
        "ack",
    ),
    (
        "a mark is a character of its own",
        "message.send",
        |room, n| {
            message(
                room,
                Uuid::now_v7(),
                &format!("e{}", "\u{301}".repeat(n - 1)),
            )
        },
        4_000,
        "ack",
    ),
    (
        "characters of an edited text",
        "message.edit",
        |room, n| json!({"room_id": room, "message_seq": 2, "text": "ש".repeat(n)}),
        4_000,
        "ack",
    ),
    (
        "mentions",
        "message.send",
        |room, n| {
            with(
                message(room, Uuid::now_v7(), "You!"),
                "mentions",
                json!(ids(n)),
            )
        },
        50,
        "not_found",
    ),
    (
        "files",
        "message.send",
        |room, n| {
            let files = ids(n).into_iter().map(|id| json!({"upload_id": id}));
            picture(room, files.collect())
        },
        10,
        "not_found",
    ),
    (
        "bytes of a placeholder",
        "message.send",
        |room, n| {
            picture(
                room,
                json!([{"upload_id": Uuid::nil(), "placeholder": "L".repeat(n)}]),
            )
        },
        200,
        "not_found",
    ),
    (
        "characters of a title",
        "room.update",
        |room, n| json!({"room_id": room, "title": "🍵".repeat(n)}),
        200,
        "ack",
    ),
    (
        "bytes of a room's picture",
        "room.update",
        |room, n| json!({"room_id": room, "picture": format!("https://a/{}", "x".repeat(n - 10))}),
        2_048,
        "ack",
    ),
    (
        "characters of a new room's title",
        "room.create",
        |_, n| {
            json!({
                "kind": "group", "member_ids": [], "title": "🍵".repeat(n),
                "client_room_id": Uuid::new_v4(),
            })
        },
        200,
        "ack",
    ),
    (
        "members of a new room",
        "room.create",
        |_, n| json!({"kind": "group", "member_ids": ids(n), "client_room_id": Uuid::new_v4()}),
        200,
        "not_found",
    ),
    (
        "users added at once",
        "room.members.add",
        |room, n| json!({"room_id": room, "user_ids": ids(n)}),
        200,
        "not_found",
    ),
    (
        "users watched at once",
        "presence.subscribe",
        |_, n| json!({"user_ids": ids(n)}),
        200,
        "ack",
    ),
    (
        "characters of a search",
        "search",
        |_, n| json!({"query": "é".repeat(n)}),
        200,
        "ack",
    ),
    (
        "words of a search",
        "search",
        |_, n| {
            let words: Vec<String> = (0..n).map(|n| format!("word{n}")).collect();
            json!({"query": words.join(" ")})
        },
        16,
        "ack",
    ),
    (
        "characters of a file's name",
        "upload.create",
        |room, n| with(upload(room), "name", json!("ñ".repeat(n))),
        200,
        "ack",
    ),
    (
        "bytes of an image",
        "upload.create",
        |room, n| with(upload(room), "size", json!(n)),
        10 << 20,
        "ack",
    ),
    (
        "files fetched at once",
        "attachment.urls",
        |room, n| json!({"room_id": room, "upload_ids": ids(n)}),
        100,
        "ack",
    ),
];

/// Asks; what it is answered in a word.
fn asked(client: &mut Client, request: &str, data: &Value) -> String {
    let reply = client.ask(request, data);
    match reply["type"] == "ack" {
        true => "ack".to_owned(),
        false => code_of(&reply),
    }
}

fn asked_over_http(rest: &Rest, request: &str, data: &Value) -> Option<String> {
    let endpoint = endpoint_of(request)?;
    let (target, body) = as_http(endpoint, data);
    let told = match body {
        Value::Null => rest.ask(endpoint.method.name(), &target, &[], ""),
        body => rest.send(endpoint.method.name(), &target, &body),
    };
    Some(match told.status {
        200 | 201 => "ack".to_owned(),
        status => {
            let code = told.body["code"].as_str().expect("a code").to_owned();
            told.is_problem(status, &code);
            code
        }
    })
}

#[test]
fn as_much_as_is_announced_is_taken_and_one_more_is_not() {
    let server = Server::unlimited();
    let ada = User::new("Ada");
    let mut client = server.connect(&ada);
    let rest = Rest::new(server.address, &ada);
    assert_eq!(client.ready["limits"]["text_chars"], 4_000);
    let room = client.group(&[]);
    client.send(room, "The first.");
    for (what, request, data, max, at_most) in TABLE {
        for (count, expected) in [(*max, *at_most), (max + 1, "too_large")] {
            let said = asked(&mut client, request, &data(room, count));
            assert_eq!(said, expected, "{what}: {count}");
            if let Some(said) = asked_over_http(&rest, request, &data(room, count)) {
                assert_eq!(said, expected, "{what} over HTTP: {count}");
            }
        }
    }
    // A page is never longer than announced, whatever is asked for.
    let page_max = client.ready["limits"]["history_page_max"].clone();
    for n in 0..101 {
        client.send(room, &n.to_string());
    }
    for limit in [100, 101, u32::MAX] {
        let page = client.ack("history.get", &json!({"room_id": room, "limit": limit}));
        assert_eq!(json!(page["messages"].as_array().map(Vec::len)), page_max);
        assert_eq!(page["has_more"], true);
    }
}

#[test]
fn bodies_and_keys_have_limits_of_their_own() {
    let server = Server::unlimited();
    let rest = Rest::new(server.address, &User::new("Ada"));
    let group =
        |pad: usize| json!({"kind": "group", "member_ids": [], "x": "x".repeat(pad)}).to_string();
    let json = "content-type: application/json";
    let empty = group(0).len();
    rest.ask("POST", "/v1/rooms", &[json], &group(65_536 - empty))
        .is(201);
    rest.ask("POST", "/v1/rooms", &[json], &group(65_537 - empty))
        .is_problem(413, "too_large");
    for (length, status) in [(1, 201), (255, 201), (256, 400), (0, 400)] {
        let key = format!("idempotency-key: {}", "k".repeat(length));
        let told = rest.ask("POST", "/v1/rooms", &[json, &key], &group(0));
        assert_eq!(told.status, status, "{length}: {}", told.body);
    }
}

#[test]
fn half_a_character_is_no_text() {
    let server = Server::unlimited();
    let ada = User::new("Ada");
    let mut client = server.connect(&ada);
    let rest = Rest::new(server.address, &ada);
    let room = client.group(&[]);
    let path = format!("/v1/rooms/{room}/messages");
    let texts = [
        (r"\ud83d", None),
        (r"\ude00", None),
        (r"\ude00\ud83d", None),
        (r"\ud83dx", None),
        (r"a\u0000b", None),
        (r"\ud83d\ude00", Some("😀")),
        (r"\u0041\u0301", Some("A\u{301}")),
        (r"\ud83d\udc68\u200d\ud83d\udc67", Some("👨\u{200d}👧")),
        (r"\u202eabc\u202c", Some("\u{202e}abc\u{202c}")),
    ];
    for (n, (written, read)) in texts.iter().enumerate() {
        let id = 700 + n as u64;
        let data = format!(
            "{{\"room_id\":\"{room}\",\"client_msg_id\":\"{}\",\"kind\":\"text\",\"text\":\"{written}\"}}",
            Uuid::now_v7()
        );
        let frame = format!("{{\"id\":{id},\"type\":\"message.send\",\"data\":{data}}}");
        client.tell_text(id, "message.send", &frame);
        let reply = client.reply(id);
        let body = format!("{{\"kind\":\"text\",\"text\":\"{written}\"}}");
        let told = rest.ask("POST", &path, &["content-type: application/json"], &body);
        match read {
            None => {
                assert_eq!(code_of(&reply), "bad_request", "{written}");
                told.is_problem(400, "bad_request");
            }
            Some(read) => {
                assert_eq!(reply["type"], "ack", "{written}: {reply}");
                told.is(201);
                for _ in 0..2 {
                    assert_eq!(client.message(room)["data"]["message"]["text"], *read);
                }
            }
        }
    }
}
