//! Files of messages: brought by a form, sent, seen by others, fetched by a signed address, removed; and each way in
//! which a file may not be used.

use crate::admin::{Service, TOKENS};
use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::support::rest::Rest;
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::wait::{DEADLINE, wait_until};
use crate::support::{Client, User, socket};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// A file of each kind: kind, name, type, bytes.
const FILES: [(&str, &str, &str, &[u8]); 3] = [
    (
        "image",
        "a.png",
        "image/png",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\xff\xfe",
    ),
    (
        "file",
        "Vertrag \"1\".pdf",
        "application/pdf",
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
    ),
    (
        "voice",
        "voice.ogg",
        "audio/ogg",
        b"OggS\0\x02\0\0\0\0\0\0\0\0\xff\xff",
    ),
];
/// A picture.
pub const PNG: &[u8] = FILES[0].3;

/// What a server of files answers.
pub struct Answer {
    pub status: u16,
    head: String,
    body: Vec<u8>,
}

fn exchange(server: &Server, head: &str, body: &[u8]) -> Answer {
    let mut stream = socket::connect(server.address);
    stream.set_read_timeout(Some(DEADLINE)).expect("a time");
    stream.write_all(head.as_bytes()).expect("sent");
    // Who is refused may not be listened to up to the end.
    let _cut = stream.write_all(body);
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer");
    let end = bytes.windows(4).position(|it| it == b"\r\n\r\n");
    let end = end.expect("a head");
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|it| it.parse().ok());
    Answer {
        status: status.expect("a status"),
        head,
        body: bytes[end + 4..].to_vec(),
    }
}

/// Brings these bytes with a ticket; the status.
pub fn bring(server: &Server, ticket: &Value, bytes: &[u8]) -> u16 {
    const LINE: &str = "-----------------------------9051914041544843365972754266";
    assert_eq!(ticket["method"], "POST");
    let mut form = Vec::new();
    for (name, value) in ticket["fields"].as_object().expect("fields") {
        let value = value.as_str().expect("text");
        let part = format!(
            "--{LINE}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
        form.extend_from_slice(part.as_bytes());
    }
    let part = format!(
        "--{LINE}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"f\"\r\n\
         content-type: application/octet-stream\r\n\r\n"
    );
    form.extend_from_slice(part.as_bytes());
    form.extend_from_slice(bytes);
    form.extend_from_slice(format!("\r\n--{LINE}--\r\n").as_bytes());
    let (url, length) = (ticket["url"].as_str().expect("a url"), form.len());
    let head = format!(
        "POST {url} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\
         content-type: multipart/form-data; boundary={LINE}\r\n\r\n"
    );
    exchange(server, &head, &form).status
}

pub fn fetch(server: &Server, url: &str) -> Answer {
    let head = format!("GET {url} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    exchange(server, &head, &[])
}

pub fn asked(room: Uuid, kind: &str, content_type: &str, size: usize) -> Value {
    json!({
        "room_id": room, "kind": kind, "name": "a file", "size": size,
        "content_type": content_type,
    })
}

/// A ticket for an image of these bytes.
fn ticket(client: &mut Client, room: Uuid, bytes: &[u8]) -> Value {
    client.ack(
        "upload.create",
        &asked(room, "image", "image/png", bytes.len()),
    )
}

/// An image that was brought.
pub fn brought(server: &Server, client: &mut Client, room: Uuid) -> Value {
    let ticket = ticket(client, room, PNG);
    assert_eq!(bring(server, &ticket, PNG), 204);
    ticket["upload_id"].clone()
}

pub fn image(room: Uuid, id: Uuid, upload: &Value) -> Value {
    json!({
        "room_id": room, "client_msg_id": id, "kind": "image",
        "attachments": [{"upload_id": upload, "width": 1, "height": 1, "placeholder": "L00000fQfQfQ"}],
    })
}

/// Sends an image, which is refused.
fn refused(client: &mut Client, room: Uuid, upload: &Value) -> String {
    client.refusal("message.send", &image(room, Uuid::now_v7(), upload))
}

fn urls(client: &mut Client, room: Uuid, uploads: &[&Value]) -> Value {
    let data = json!({"room_id": room, "upload_ids": uploads});
    client.ack("attachment.urls", &data)
}

/// Files below a folder whose name is a key.
fn objects(folder: &Path) -> usize {
    let mut count = 0;
    let mut folders = vec![folder.join("files")];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.map_while(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            match entry.file_type().is_ok_and(|it| it.is_dir()) {
                true => folders.push(entry.path()),
                false => count += usize::from(name.len() >= 32),
            }
        }
    }
    count
}

fn sent_and_seen(one: &Server, other: &Server) {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = other.connect(&bob);
    let mut adas = one.connect(&ada);
    let room = adas.direct(&bob);
    bobs.event_of("room.added");
    for (kind, name, content_type, bytes) in FILES {
        let mut asked = asked(room, kind, content_type, bytes.len());
        asked["name"] = name.into();
        let ticket = adas.ack("upload.create", &asked);
        assert_eq!(bring(one, &ticket, bytes), 204);
        let upload = ticket["upload_id"].clone();
        let id = Uuid::now_v7();
        let data = json!({
            "room_id": room, "client_msg_id": id, "kind": kind,
            "attachments": [{"upload_id": upload, "duration_ms": 1500}],
        });
        let began = Instant::now();
        let request = adas.tell("message.send", &data);
        let message = bobs.message(room)["data"]["message"].clone();
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(adas.reply(request)["data"]["seq"], message["seq"]);
        assert_eq!(
            (&message["kind"], &message["text"]),
            (&json!(kind), &Value::Null)
        );
        let expected = json!([{
            "upload_id": upload, "name": name, "size": bytes.len(),
            "content_type": content_type, "duration_ms": 1500,
        }]);
        assert_eq!(message["attachments"], expected);
        let history = bobs.history_after(room, message["seq"].as_u64().expect("a seq") - 1);
        assert_eq!(history[0]["attachments"], expected);

        // Whoever reads the message fetches the file, as what it is.
        let told = urls(&mut bobs, room, &[&upload]);
        assert_eq!(told["missing"], json!([]));
        let url = told["urls"][0]["url"].as_str().expect("a url");
        let answer = fetch(one, url);
        assert_eq!((answer.status, answer.body.as_slice()), (200, bytes));
        assert!(
            answer
                .head
                .contains(&format!("content-type: {content_type}")),
            "{}",
            answer.head
        );
        assert!(
            answer.head.contains("x-content-type-options: nosniff"),
            "{}",
            answer.head
        );
        let how = if kind == "file" {
            "attachment"
        } else {
            "inline"
        };
        assert!(
            answer
                .head
                .contains(&format!("content-disposition: {how};")),
            "{}",
            answer.head
        );
        assert_eq!(fetch(one, &url.replace("sig", "gis")).status, 403);
    }
}

#[test]
fn an_image_a_pdf_and_a_voice_note_are_sent_and_seen() {
    let server = server::start(NO_LIMIT).anywhere();
    sent_and_seen(&server, &server);
}

#[test]
fn what_is_brought_to_one_node_is_seen_on_another() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let database = postgres.database();
    let (url, redis) = (postgres.url(&database), redis.url());
    let folder = tempfile::tempdir().expect("a folder");
    let node = |name| {
        let mut settings = NO_LIMIT.to_vec();
        settings.push(("CAFFIS_DATABASE_URL", &url));
        settings.push(("CAFFIS_REDIS_URL", &redis));
        settings.push(("CAFFIS_NODE", name));
        // A folder that both have, as by NFS.
        server::start(&settings).within(folder.path())
    };
    let (one, other) = (node("one"), node("other"));
    sent_and_seen(&one, &other);
}

/// Nodes that share no folder take no bytes for each other, lose none, and say at the start what to do.
#[test]
fn a_node_takes_nothing_for_the_folder_of_another() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let (url, redis) = (postgres.url(&postgres.database()), redis.url());
    let node = |name| {
        let mut settings = NO_LIMIT.to_vec();
        settings.push(("CAFFIS_DATABASE_URL", &*url));
        settings.push(("CAFFIS_REDIS_URL", &*redis));
        settings.push(("CAFFIS_NODE", name));
        server::start(&settings).anywhere()
    };
    let (one, other) = (node("one"), node("other"));
    for node in [&one, &other] {
        let log = node.log();
        assert!(log.contains("files are kept on this node alone"), "{log}");
        assert!(log.contains("CAFFIS_S3_ENDPOINT"), "{log}");
    }
    let ada = User::new("Ada");
    let (mut here, mut there) = (one.connect(&ada), other.connect(&ada));
    let room = here.group(&[]);
    there.event_of("room.added");
    let ticket = ticket(&mut here, room, PNG);
    assert_eq!(bring(&other, &ticket, PNG), 403);
    assert_eq!(refused(&mut there, room, &ticket["upload_id"]), "not_found");
    // Where it belongs it is taken; there nobody finds it, and it is not used up.
    assert_eq!(bring(&one, &ticket, PNG), 204);
    assert_eq!(refused(&mut there, room, &ticket["upload_id"]), "not_found");
    here.ack(
        "message.send",
        &image(room, Uuid::now_v7(), &ticket["upload_id"]),
    );
    let url = urls(&mut there, room, &[&ticket["upload_id"]])["urls"][0]["url"].clone();
    let url = url.as_str().expect("a url");
    assert!([403, 404].contains(&fetch(&one, url).status));
    assert_eq!(fetch(&other, url).status, 404);
}

#[test]
fn each_file_that_may_not_be_used_is_refused_rightly() {
    let server = server::start(NO_LIMIT).anywhere();
    let (ada, bob, eve) = (User::new("Ada"), User::new("Bob"), User::new("Eve"));
    let (mut bobs, mut eves) = (server.connect(&bob), server.connect(&eve));
    let mut adas = server.connect(&ada);
    let room = adas.direct(&bob);
    let other = adas.direct(&eve);

    // Never brought, or not as was said: there is nothing.
    let nothing = ticket(&mut adas, room, PNG);
    assert_eq!(refused(&mut adas, room, &nothing["upload_id"]), "not_found");
    let longer = [PNG, b"x"].concat();
    for bytes in [&longer[..], &PNG[1..]] {
        let status = bring(&server, &nothing, bytes);
        assert!((400..500).contains(&status), "{status}");
        assert_eq!(refused(&mut adas, room, &nothing["upload_id"]), "not_found");
    }
    // A ticket that was changed.
    let fields = nothing["fields"].as_object().expect("fields");
    for name in fields.keys() {
        let mut forged = nothing.clone();
        let value = forged["fields"][name].as_str().expect("text").to_owned();
        let last = if value.ends_with('0') { "1" } else { "0" };
        forged["fields"][name] = format!("{}{last}", &value[..value.len() - 1]).into();
        let status = bring(&server, &forged, PNG);
        assert!((400..500).contains(&status), "{name}: {status}");
    }
    assert_eq!(refused(&mut adas, room, &nothing["upload_id"]), "not_found");
    // Something else of the same length.
    let page = b"<script>alert(1)</script>";
    let page = &page[..PNG.len().min(page.len())];
    let wrong = ticket(&mut adas, room, page);
    assert_eq!(bring(&server, &wrong, page), 204);
    for _ in 0..2 {
        assert_eq!(
            refused(&mut adas, room, &wrong["upload_id"]),
            "unsupported_media"
        );
    }
    // Of another user, for another room, of another kind, of nobody.
    let good = brought(&server, &mut adas, room);
    assert_eq!(refused(&mut bobs, room, &good), "not_found");
    assert_eq!(refused(&mut adas, other, &good), "not_found");
    let mut as_file = image(room, Uuid::now_v7(), &good);
    as_file["kind"] = "file".into();
    assert_eq!(adas.refusal("message.send", &as_file), "bad_request");
    assert_eq!(
        refused(&mut adas, room, &json!(Uuid::new_v4())),
        "not_found"
    );
    // Used, but for the message that used it.
    let id = Uuid::now_v7();
    let first = adas.ack("message.send", &image(room, id, &good));
    let again = adas.ack("message.send", &image(room, id, &good));
    assert_eq!(
        (&again["seq"], &again["duplicate"]),
        (&first["seq"], &json!(true))
    );
    assert_eq!(refused(&mut adas, room, &good), "gone");
    // Nor is it brought a second time.
    assert_eq!(urls(&mut bobs, room, &[&good])["missing"], json!([]));
    let nobody = json!({"room_id": room, "upload_ids": [good]});
    assert_eq!(eves.refusal("attachment.urls", &nobody), "forbidden");
    let data = asked(room, "image", "image/png", 1);
    assert_eq!(eves.refusal("upload.create", &data), "forbidden");
    // What is in another room, or in no message, is not there.
    let unused = brought(&server, &mut adas, room);
    let told = urls(&mut adas, other, &[&good]);
    assert_eq!(told, json!({"urls": [], "missing": [good]}));
    assert_eq!(
        urls(&mut adas, room, &[&unused])["missing"],
        json!([unused])
    );
    // A blocked one neither brings nor sends.
    bobs.ack("user.block", &json!({"user_id": ada.id}));
    assert_eq!(refused(&mut adas, room, &unused), "forbidden");
    assert_eq!(
        adas.refusal("upload.create", &asked(room, "image", "image/png", 1)),
        "forbidden"
    );
}

#[test]
fn how_large_files_are_and_how_many_a_user_brings_is_limited() {
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_UPLOAD_IMAGE_BYTES", "100"));
    settings.push(("CAFFIS_UPLOAD_VOICE_BYTES", "50"));
    settings.push(("CAFFIS_UPLOADS_PER_DAY", "3"));
    settings.push(("CAFFIS_UPLOAD_BYTES_PER_DAY", "250"));
    let server = server::start(&settings).anywhere();
    let mut adas = server.connect(&User::new("Ada"));
    let room = adas.group(&[]);
    let image = |size| asked(room, "image", "image/png", size);
    assert_eq!(adas.refusal("upload.create", &image(101)), "too_large");
    let voice = asked(room, "voice", "audio/ogg", 51);
    assert_eq!(adas.refusal("upload.create", &voice), "too_large");
    let page = asked(room, "file", "text/html", 51);
    assert_eq!(adas.refusal("upload.create", &page), "unsupported_media");
    adas.ack("upload.create", &image(100));
    adas.ack("upload.create", &image(100));
    let reply = adas.ask("upload.create", &image(51));
    assert_eq!(reply["error"]["code"], "rate_limited");
    let wait = reply["error"]["retry_after_ms"].as_u64().expect("a time");
    assert!((86_000_000..=86_400_000).contains(&wait), "{wait}");
    adas.ack("upload.create", &image(50));
    assert_eq!(adas.refusal("upload.create", &image(1)), "rate_limited");
}

#[test]
fn a_client_without_a_socket_sends_files_too() {
    without_a_socket(&server::start(NO_LIMIT).anywhere());
}

/// All that is asked of files over HTTP.
pub fn without_a_socket(server: &Server) {
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = server.connect(&bob);
    let mut adas = server.connect(&ada);
    let room = adas.direct(&bob);
    bobs.event_of("room.added");
    let rest = Rest::new(server.address, &ada);
    let ticket = rest
        .send(
            "POST",
            "/v1/uploads",
            &asked(room, "image", "image/png", PNG.len()),
        )
        .is(200);
    assert_eq!(bring(server, &ticket, PNG), 204);
    let messages = format!("/v1/rooms/{room}/messages");
    let mut data = image(room, Uuid::now_v7(), &ticket["upload_id"]);
    for name in ["room_id", "client_msg_id"] {
        data.as_object_mut().expect("an object").remove(name);
    }
    let sent = rest.send_keyed("POST", &messages, "k1", &data).is(201);
    let again = rest.send_keyed("POST", &messages, "k1", &data).is(200);
    assert_eq!(again["seq"], sent["seq"]);
    assert_eq!(
        bobs.message(room)["data"]["message"]["attachments"][0]["upload_id"],
        ticket["upload_id"]
    );
    rest.send_keyed("POST", &messages, "k2", &data)
        .is_problem(410, "gone");
    let path = format!("/v1/rooms/{room}/attachments/urls");
    let data = json!({"upload_ids": [ticket["upload_id"]]});
    let told = Rest::new(server.address, &bob)
        .send("POST", &path, &data)
        .is(200);
    let url = told["urls"][0]["url"].as_str().expect("a url");
    assert_eq!(fetch(server, url).body, PNG);
    Rest::new(server.address, &User::new("Eve"))
        .send("POST", &path, &data)
        .is_problem(403, "forbidden");
}

#[test]
fn what_is_sent_behind_an_image_comes_behind_it() {
    let server = server::start(NO_LIMIT).anywhere();
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = server.connect(&bob);
    let mut adas = server.connect(&ada);
    let room = adas.direct(&bob);
    bobs.event_of("room.added");
    for round in 0..5 {
        let uploads: Vec<Value> = (0..2).map(|_| brought(&server, &mut adas, room)).collect();
        let mut requests = Vec::new();
        for upload in &uploads {
            let data = image(room, Uuid::now_v7(), upload);
            requests.push(adas.tell("message.send", &data));
            for n in 0..3 {
                let text = format!("{round} {n}");
                let data = crate::support::client::message(room, Uuid::now_v7(), &text);
                requests.push(adas.tell("message.send", &data));
            }
        }
        let seqs: Vec<u64> = requests
            .iter()
            .map(|id| adas.reply(*id)["data"]["seq"].as_u64().expect("a seq"))
            .collect();
        assert!(seqs.is_sorted(), "{seqs:?}");
    }
}

#[test]
fn a_kill_between_the_upload_and_the_message_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let server = Server::unlimited_in(folder.path());
    drop(server.connect(&bob));
    let mut adas = server.connect(&ada);
    let room = adas.direct(&bob);
    let upload = brought(&server, &mut adas, room);
    drop(adas);
    server.kill();

    let server = Server::unlimited_in(folder.path());
    let mut adas = server.connect(&ada);
    let id = Uuid::now_v7();
    let sent = adas.ack("message.send", &image(room, id, &upload));
    assert_eq!(sent["duplicate"], false);
    drop(adas);
    server.kill();

    let server = Server::unlimited_in(folder.path());
    let mut adas = server.connect(&ada);
    let again = adas.ack("message.send", &image(room, id, &upload));
    assert_eq!(
        (&again["seq"], &again["duplicate"]),
        (&sent["seq"], &json!(true))
    );
    let mut bobs = server.connect(&bob);
    let told = urls(&mut bobs, room, &[&upload]);
    let url = told["urls"][0]["url"].as_str().expect("a url");
    assert_eq!(fetch(&server, url).body, PNG);
}

#[test]
fn of_deleted_messages_and_erased_users_no_file_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_ADMIN_TOKEN", TOKENS));
    let server = server::start(&settings).within(folder.path());
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = server.connect(&bob);
    let mut adas = server.connect(&ada);
    let room = adas.group(&[&bob]);
    bobs.event_of("room.added");
    let uploads: Vec<Value> = (0..3).map(|_| brought(&server, &mut adas, room)).collect();
    let kept = brought(&server, &mut bobs, room);
    bobs.ack("message.send", &image(room, Uuid::now_v7(), &kept));
    let seqs: Vec<Value> = uploads[..2]
        .iter()
        .map(|upload| adas.ack("message.send", &image(room, Uuid::now_v7(), upload))["seq"].clone())
        .collect();
    assert_eq!(objects(folder.path()), 4);
    let told = urls(&mut bobs, room, &[&uploads[0]]);
    let url = told["urls"][0]["url"].as_str().expect("a url").to_owned();
    assert_eq!(fetch(&server, &url).status, 200);
    adas.ack(
        "message.delete",
        &json!({"room_id": room, "message_seq": seqs[0]}),
    );
    assert_eq!(
        urls(&mut bobs, room, &[&uploads[0]])["missing"],
        json!([uploads[0]])
    );
    wait_until("its file is removed", || objects(folder.path()) == 3);
    assert_eq!(fetch(&server, &url).status, 404);

    // The other message's, and the one that no message used.
    let service = Service::new(&server);
    let path = format!("users/{}/erase", ada.id);
    service.post(&path, &json!({})).is(200);
    wait_until("nothing is left", || {
        service.get(&path).is(200)["state"] == "done"
    });
    assert_eq!(objects(folder.path()), 1);
    assert_eq!(
        urls(&mut bobs, room, &[&uploads[1], &kept])["missing"],
        json!([uploads[1]])
    );
}

#[test]
fn an_object_store_that_does_not_answer_delays_nobody_else() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", silent.local_addr().expect("an address"));
    let mut settings = NO_LIMIT.to_vec();
    settings.push(("CAFFIS_S3_ENDPOINT", &endpoint));
    settings.push(("CAFFIS_S3_ACCESS_KEY", "key-of-a-test"));
    settings.push(("CAFFIS_S3_SECRET_KEY", "secret-of-a-test"));
    let mut server = server::start(&settings).anywhere();
    server.expect_log("files cannot be reached");
    let (ada, bob) = (User::new("Ada"), User::new("Bob"));
    let mut bobs = server.connect(&bob);
    let mut adas = server.connect(&ada);
    let (room, other) = (adas.direct(&bob), adas.group(&[&bob]));
    let ticket = ticket(&mut adas, room, PNG);
    let began = Instant::now();
    let waits = adas.tell(
        "message.send",
        &image(room, Uuid::now_v7(), &ticket["upload_id"]),
    );
    let behind = crate::support::client::message(room, Uuid::now_v7(), "behind it");
    let behind = adas.tell("message.send", &behind);
    adas.send(other, "elsewhere");
    bobs.send(room, "somebody else");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(!adas.is_replied(behind), "it keeps its place");
    assert_eq!(adas.reply(waits)["error"]["code"], "unavailable");
    assert!(
        began.elapsed() < Duration::from_secs(6),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(adas.reply(behind)["type"], "ack");
}
