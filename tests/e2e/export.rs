//! The export of a user's data: the archive is opened and compared with what the user did.

use crate::admin::{Service, TOKENS};
use crate::support::client::{message, uuid};
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::socket::connect;
use crate::support::wait::wait_until;
use crate::support::{Client, User};
use crate::uploads::{PNG, asked, bring, brought, image};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Cursor, Read, Write};
use uuid::Uuid;
use zip::ZipArchive;

fn with_tokens() -> Server {
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_ADMIN_TOKEN", TOKENS));
    server::start(&settings).anywhere()
}

/// The head and the body of an answer. By HTTP/1.0, so that the body is as it is.
pub fn fetch(server: &Server, user: &str) -> (String, Vec<u8>) {
    let token = TOKENS.split(',').next().expect("a token");
    let mut stream = connect(server.address);
    write!(
        stream,
        "GET /v1/admin/users/{user}/export HTTP/1.0\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\r\n"
    )
    .expect("it is asked");
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let end = bytes
        .windows(4)
        .position(|it| it == b"\r\n\r\n")
        .expect("a head");
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head");
    (head.to_ascii_lowercase(), bytes.split_off(end + 4))
}

/// The files of the archive that are text.
fn export(server: &Server, user: &User) -> BTreeMap<String, String> {
    let text = |(name, bytes)| (name, String::from_utf8(bytes).expect("text"));
    archive(server, user).into_iter().map(text).collect()
}

/// The files of the archive.
fn archive(server: &Server, user: &User) -> BTreeMap<String, Vec<u8>> {
    let (head, body) = fetch(server, &user.id.to_string());
    assert!(head.starts_with("http/1.0 200"), "{head}");
    assert!(head.contains("content-type: application/zip"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(
        head.contains(&format!("filename=\"caffis-chat-{}.zip\"", user.id)),
        "{head}"
    );
    let mut archive = ZipArchive::new(Cursor::new(body)).expect("an archive");
    let mut files = BTreeMap::new();
    for at in 0..archive.len() {
        let mut file = archive.by_index(at).expect("a file");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("whole");
        let before = files.insert(file.name().expect("a name").to_string(), bytes);
        assert_eq!(before, None, "one file of a name");
    }
    files
}

fn list(files: &BTreeMap<String, String>, name: &str) -> Vec<Value> {
    serde_json::from_str(&files[name]).expect("a list")
}

#[test]
fn a_users_archive_is_what_they_did_and_nothing_of_others() {
    let server = with_tokens();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Evelyn"));
    let mut adas = server.connect(&ada);
    let mut bobs = server.connect(&bob);
    drop(server.connect(&eve));
    let room = adas.group(&[&bob, &eve]);
    let direct = bobs.direct(&ada);
    let first_id = Uuid::now_v7();
    let sent = bobs.ack(
        "message.send",
        &message(room, first_id, "Bob's words, \"quoted\""),
    );
    let first = sent["seq"].as_u64().expect("a seq");
    let second = bobs.send(room, "before");
    bobs.ack(
        "message.edit",
        &json!({"room_id": room, "message_seq": second, "text": "after"}),
    );
    let private = bobs.send(direct, "for Ada alone");
    let mut named = message(room, Uuid::now_v7(), "geheimnis of Ada");
    named["mentions"] = json!([bob.id]);
    let theirs = adas.ack("message.send", &named)["seq"].clone();
    bobs.wait_for_seq(room, theirs.as_u64().expect("a seq"));
    let on = json!({"room_id": room, "message_seq": theirs});
    bobs.ack("message.report", &on);
    let mut like = on.clone();
    like["emoji"] = json!("👍");
    bobs.ack("reaction.add", &like);
    adas.ack(
        "reaction.add",
        &json!({"room_id": room, "message_seq": first, "emoji": "🎉"}),
    );
    bobs.ack("user.block", &json!({"user_id": eve.id}));
    bobs.tell_only(
        "receipt.read",
        &json!({"rooms": {room.to_string(): theirs}}),
    );
    let read =
        |bobs: &mut Client| bobs.ack("room.get", &json!({"room_id": room}))["read_seq"].clone();
    wait_until("what was read is known", || read(&mut bobs) == theirs);

    let files = export(&server, &bob);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "README.md",
            "blocks.json",
            "files.json",
            "mentions.json",
            "messages.json",
            "profile.json",
            "reactions.json",
            "reports.json",
            "rooms.json",
            "sessions.json"
        ]
    );
    for name in &names[1..] {
        assert!(files["README.md"].contains(name), "{name} is described");
    }
    let profile: Value = serde_json::from_str(&files["profile.json"]).expect("an object");
    assert_eq!(
        (&profile["user_id"], &profile["name"]),
        (&json!(bob.id), &json!(bob.name))
    );
    let sessions: Value = serde_json::from_str(&files["sessions.json"]).expect("an object");
    assert_eq!(sessions["connections"].as_array().map(Vec::len), Some(1));
    assert_eq!(sessions["connections"][0]["user_id"], json!(bob.id));

    let rooms = list(&files, "rooms.json");
    assert_eq!(rooms.len(), 2);
    let of = |id: Uuid| {
        rooms
            .iter()
            .find(|it| it["room_id"] == json!(id))
            .expect("it")
    };
    assert_eq!(
        (&of(room)["role"], &of(room)["read_seq"]),
        (&json!("member"), &theirs)
    );
    assert_eq!(of(direct)["with"], json!(ada.id));

    let mut messages = list(&files, "messages.json");
    messages.sort_by_key(|it| (it["room_id"] != json!(room), it["seq"].as_u64()));
    let shown: Vec<_> = messages
        .iter()
        .map(|it| {
            (
                uuid(&it["room_id"]),
                it["seq"].as_u64(),
                it["text"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (room, Some(first), Some("Bob's words, \"quoted\"")),
            (room, Some(second), Some("after")),
            (direct, Some(private), Some("for Ada alone")),
        ]
    );
    assert_eq!(messages[0]["client_msg_id"], json!(first_id));
    assert_eq!(messages[1]["revision"], 2);
    assert_eq!(
        list(&files, "reactions.json"),
        [json!({"room_id": room, "message_seq": theirs, "emoji": "👍"})]
    );
    let mentions = list(&files, "mentions.json");
    assert_eq!(mentions.len(), 1);
    assert_eq!(
        (&mentions[0]["room_id"], &mentions[0]["message_seq"]),
        (&json!(room), &theirs)
    );
    assert_eq!(list(&files, "blocks.json")[0]["user_id"], json!(eve.id));
    let reports = list(&files, "reports.json");
    assert_eq!((reports.len(), &reports[0]["message_seq"]), (1, &theirs));
    for (name, text) in &files {
        assert!(
            !text.contains("geheimnis") && !text.contains("🎉"),
            "{name}: {text}"
        );
        assert!(!text.contains(&ada.name), "{name}: {text}");
    }
    // Eve did nothing here, and is told nothing of what the others did.
    let eves = export(&server, &eve);
    for name in [
        "messages.json",
        "reactions.json",
        "mentions.json",
        "blocks.json",
        "reports.json",
    ] {
        assert!(list(&eves, name).is_empty(), "{name}: {}", eves[name]);
    }
    let audit = Service::new(&server).get("audit").is(200);
    let acts = audit["acts"].as_array().expect("acts");
    let exports = acts.iter().filter(|act| act["act"] == "admin.users.export");
    let targets: Vec<&Value> = exports.map(|act| &act["target"]).collect();
    assert_eq!(targets, [&json!(eve.id), &json!(bob.id)]);
}

#[test]
fn a_large_archive_is_whole() {
    const MESSAGES: usize = 3_000;
    let server = with_tokens();
    let ada = User::new("Ada");
    let mut adas = server.connect(&ada);
    let room = adas.group(&[]);
    let text = |n: usize| format!("{n}: {}", "lorem ipsum ".repeat(100));
    for ns in (0..MESSAGES).collect::<Vec<_>>().chunks(250) {
        let asked: Vec<u64> = ns
            .iter()
            .map(|n| adas.tell("message.send", &message(room, Uuid::now_v7(), &text(*n))))
            .collect();
        for id in asked {
            assert_eq!(adas.reply(id)["type"], "ack");
        }
        adas.take_events();
    }
    let messages = list(&export(&server, &ada), "messages.json");
    assert_eq!(messages.len(), MESSAGES);
    for (n, message) in messages.iter().enumerate() {
        assert_eq!(message["text"], json!(text(n)));
    }
}

#[test]
fn there_is_no_archive_of_one_who_is_not_known_or_was_erased() {
    let server = with_tokens();
    let bob = User::new("Bob");
    drop(server.connect(&bob));
    let service = Service::new(&server);
    let path = format!("users/{}/export", Uuid::new_v4());
    service.get(&path).is_problem(404, "not_found");
    service
        .get("users/nobody/export")
        .is_problem(400, "bad_request");
    assert!(!export(&server, &bob).is_empty());
    service
        .post(&format!("users/{}/erase", bob.id), &json!({}))
        .is(200);
    let path = format!("users/{}/export", bob.id);
    service.get(&path).is_problem(404, "not_found");
    let (head, _) = fetch(&server, &bob.id.to_string());
    assert!(head.starts_with("http/1.0 404"), "{head}");
}

#[test]
fn the_files_of_a_user_are_in_their_archive_byte_by_byte() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_ADMIN_TOKEN", TOKENS));
    let mut server = server::start(&settings).within(folder.path());
    server.expect_log("files of an export could not be read");
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut adas = server.connect(&ada);
    let mut bobs = server.connect(&bob);
    let room = bobs.group(&[&ada]);
    adas.event_of("room.added");
    // Sent, of several pieces, under a name that is a path; whose bytes are gone; whose bytes cannot be read; brought and
    // not sent; never brought; deleted; and of another.
    let large: Vec<u8> = b"%PDF-1.7\n"
        .iter()
        .copied()
        .chain((0..700_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8))
        .collect();
    let mut wanted = asked(room, "file", "application/pdf", large.len());
    wanted["name"] = json!("../../etc/pass\\wd");
    let ticket = bobs.ack("upload.create", &wanted);
    assert_eq!(bring(&server, &ticket, &large), 204);
    let sent = ticket["upload_id"].clone();
    let mut message = image(room, Uuid::now_v7(), &sent);
    message["kind"] = json!("file");
    let seq = bobs.ack("message.send", &message)["seq"].clone();
    let [gone, torn, unsent, deleted] = [(); 4].map(|()| brought(&server, &mut bobs, room));
    for upload in [&gone, &torn] {
        bobs.ack("message.send", &image(room, Uuid::now_v7(), upload));
    }
    let never =
        bobs.ack("upload.create", &asked(room, "image", "image/png", 5))["upload_id"].clone();
    let told = bobs.ack("message.send", &image(room, Uuid::now_v7(), &deleted));
    bobs.ack(
        "message.delete",
        &json!({"room_id": room, "message_seq": told["seq"]}),
    );
    let theirs = brought(&server, &mut adas, room);
    adas.ack("message.send", &image(room, Uuid::now_v7(), &theirs));
    let store = Connection::open(folder.path().join("chat.db")).expect("the store");
    let object = |upload: &Value| {
        let sql = "SELECT object_key FROM uploads WHERE upload_id = ?1";
        let id = uuid(upload);
        let key = store.query_row(sql, [id.as_bytes()], |row| row.get::<_, String>(0));
        folder
            .path()
            .join("files/chat-images")
            .join(key.expect("where it is"))
    };
    std::fs::remove_file(object(&gone)).expect("it is there");
    let torn_file = OpenOptions::new().write(true).open(object(&torn));
    (torn_file.and_then(|file| file.set_len(3))).expect("it is there");

    let files = archive(&server, &bob);
    let path =
        |upload: &Value, name: &str| format!("files/{}/{name}", upload.as_str().expect("an id"));
    let in_folder: BTreeMap<&str, &[u8]> = files
        .iter()
        .filter(|(name, _)| name.starts_with("files/"))
        .map(|(name, bytes)| (&**name, &**bytes))
        .collect();
    let expected = [
        (path(&sent, "_.._etc_pass_wd"), &*large),
        (path(&unsent, "a file"), PNG),
    ];
    let expected = expected
        .iter()
        .map(|(name, bytes)| (&**name, *bytes))
        .collect();
    assert!(in_folder == expected, "{:?}", in_folder.keys());

    let listed: Vec<Value> = serde_json::from_slice(&files["files.json"]).expect("a list");
    let mut shown: Vec<(&str, Option<&str>, Option<&str>)> = listed
        .iter()
        .map(|it| {
            (
                it["upload_id"].as_str().expect("an id"),
                it["path"].as_str(),
                it["missing"].as_str(),
            )
        })
        .collect();
    shown.sort_unstable();
    let (sent_path, unsent_path) = (path(&sent, "_.._etc_pass_wd"), path(&unsent, "a file"));
    let mut expected = [
        (&sent, Some(&*sent_path), None),
        (&gone, None, Some("not_found")),
        (&torn, None, Some("unreadable")),
        (&unsent, Some(&*unsent_path), None),
        (&never, None, Some("not_found")),
    ]
    .map(|(upload, path, missing)| (upload.as_str().expect("an id"), path, missing));
    expected.sort_unstable();
    assert_eq!(shown, expected);
    let of_it = listed.iter().find(|it| it["upload_id"] == sent);
    let of_it = of_it.expect("it");
    assert_eq!(
        (&of_it["message_seq"], &of_it["room_id"]),
        (&seq, &json!(room))
    );
    assert_eq!(
        (&of_it["size"], &of_it["name"]),
        (&json!(large.len()), &wanted["name"])
    );
    let messages: Vec<Value> = serde_json::from_slice(&files["messages.json"]).expect("a list");
    assert_eq!(messages[0]["attachments"][0]["upload_id"], sent);
    assert_eq!(messages[0]["attachments"][0]["name"], wanted["name"]);
    assert_eq!(messages[3]["attachments"], json!([]), "deleted");
}
