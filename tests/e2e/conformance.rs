//! The contract as one table: each request, asked through a socket and over HTTP, what it is answered, what others
//! are told of it on another node, and what who may not, or does not ask rightly, is told instead.
//!
//! A request, an endpoint or an event that the documents have and no row shows makes the test red.

use crate::admin::{Service, TOKENS};
use crate::openapi;
use crate::postgres::PostgresServer;
use crate::redis::Redis;
use crate::schema;
use crate::support::client::{code_of, message, uuid};
use crate::support::rest::Rest;
use crate::support::server::{self, NO_LIMIT, Server};
use crate::support::socket::Socket;
use crate::support::wait::{wait_for, wait_until};
use crate::support::webhooks::{self, Webhook};
use crate::support::{Client, User};
use crate::uploads::{self, PNG};
use caffis_chat::protocol::http::{self, ENDPOINTS, Endpoint};
use caffis_chat::protocol::request::Command;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use uuid::Uuid;

/// Events that no row shows, and why.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("ping", "after 25 s of silence: `session` waits for it"),
    (
        "room.gap",
        "a replay that a drop overtakes: `retention` brings it about",
    ),
];

/// How the one who acts asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Socket,
    Http,
}

/// Who is told, all of them on the other node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    /// A member of the room.
    Bob,
    /// One who becomes a member, and is one no more.
    Eve,
    /// Another device of the one who acts.
    Own,
}

/// What is said in one scene, on one pair of nodes, in one way.
struct Scene<'a> {
    nodes: [&'a Server; 2],
    way: Way,
    /// Acts, on the first node.
    ada: Client,
    rest: Rest,
    bob: Client,
    eve: Client,
    own: Client,
    /// No member of anything.
    mallory: Client,
    mallory_rest: Rest,
    room: Uuid,
    /// The message that the rows are about.
    seq: u64,
    upload: Value,
    next_id: u64,
}

/// What a row made known: which request in which way, and which event.
#[derive(Default)]
struct Shown {
    requests: BTreeSet<(String, bool)>,
    events: BTreeSet<String>,
}

type Data = fn(&Scene<'_>) -> Value;
/// Whether an event is that of this answer.
type Is = fn(&Scene<'_>, &Value, &Value) -> bool;

/// A line of the table.
struct Row {
    request: &'static str,
    data: Data,
    /// Done before.
    first: fn(&mut Scene<'_>),
    /// It is asked until the answer is so.
    until: fn(&Scene<'_>, &Value) -> bool,
    told: Vec<(Who, &'static str, Is)>,
    learn: fn(&mut Scene<'_>, &Value),
}

fn row(request: &'static str, data: Data) -> Row {
    Row {
        request,
        data,
        first: |_| (),
        until: |_, _| true,
        told: Vec::new(),
        learn: |_, _| (),
    }
}

impl Row {
    fn first(self, first: fn(&mut Scene<'_>)) -> Row {
        Row { first, ..self }
    }

    fn until(self, until: fn(&Scene<'_>, &Value) -> bool) -> Row {
        Row { until, ..self }
    }

    /// Told to this one: an event of the room has the `seq` that the answer says.
    fn told(self, who: Who, kind: &'static str) -> Row {
        self.told_so(who, kind, |_, reply, event| {
            reply
                .get("seq")
                .is_none_or(|seq| event.get("seq").is_none_or(|own| own == seq))
        })
    }

    fn told_so(mut self, who: Who, kind: &'static str, is: Is) -> Row {
        self.told.push((who, kind, is));
        self
    }

    /// A durable event: to others and to one's own other devices.
    fn told_all(self, kind: &'static str) -> Row {
        self.told(Who::Bob, kind).told(Who::Own, kind)
    }

    fn learn(self, learn: fn(&mut Scene<'_>, &Value)) -> Row {
        Row { learn, ..self }
    }
}

/// The table, in the order in which it is played.
fn rows() -> Vec<Row> {
    let on_message = |scene: &Scene<'_>| json!({"room_id": scene.room, "message_seq": scene.seq});
    let on_room = |scene: &Scene<'_>| json!({"room_id": scene.room});
    let with_emoji =
        |scene: &Scene<'_>| json!({"room_id": scene.room, "message_seq": scene.seq, "emoji": "👍"});
    let on_eve = |scene: &Scene<'_>| json!({"user_id": scene.eve.user.id});
    let eve_in_room =
        |scene: &Scene<'_>| json!({"room_id": scene.room, "user_ids": [scene.eve.user.id]});
    let marks = |scene: &Scene<'_>| json!({"rooms": {scene.room.to_string(): scene.seq}});
    let of_message: Is = |scene, reply, event| {
        event["seq"] == reply["seq"] && event["data"]["message_seq"] == scene.seq
    };
    vec![
        row("rooms.list", |_| json!({"limit": 1, "archived": false})),
        row("room.create", |scene| {
            json!({
                "kind": "group", "member_ids": [scene.bob.user.id], "title": "Kaffee",
                "client_room_id": scene.ada.user.id,
            })
        })
        .told_so(Who::Bob, "room.added", is_of_room)
        .told_so(Who::Own, "room.added", is_of_room)
        .learn(|scene, reply| {
            assert_eq!(reply["created"], true);
            scene.room = uuid(&reply["room"]["room_id"]);
            scene.ada.wait_for_seq(scene.room, 1);
        }),
        row("auth.refresh", |scene| json!({"token": scene.ada.user.token()})),
        row("pong", |_| json!({})),
        row("room.get", on_room),
        row("room.update", |scene| json!({"room_id": scene.room, "title": "Tee", "picture": "https://caffis.example/tea"}))
            .told_all("room.updated"),
        row("room.members.add", eve_in_room)
            .told_all("member.joined")
            .told_so(Who::Eve, "room.added", is_of_room),
        row("room.members.list", |scene| json!({"room_id": scene.room, "limit": 2}))
            .learn(|_, reply| assert_eq!(reply["members"].as_array().map(Vec::len), Some(2))),
        row("room.role.set", |scene| {
            json!({"room_id": scene.room, "user_ids": [scene.eve.user.id], "role": "admin"})
        })
        .told_all("member.role_changed"),
        row("message.send", |scene| {
            let id = Uuid::new_v5(&scene.room, b"text");
            let mut data = message(scene.room, id, "Kaffee um vier? ☕");
            data["mentions"] = json!([scene.bob.user.id]);
            data["reply_to_seq"] = json!(1);
            data
        })
        .told_all("message.created")
        .learn(|scene, reply| scene.seq = reply["seq"].as_u64().expect("a seq")),
        row("message.edit", |scene| {
            json!({
                "room_id": scene.room, "message_seq": scene.seq, "text": "Kaffee um fünf?",
                "expected_revision": 1,
            })
        })
        .told_so(Who::Bob, "message.updated", of_message)
        .told_so(Who::Own, "message.updated", of_message),
        row("reaction.add", with_emoji)
            .told_so(Who::Bob, "reaction.updated", of_message)
            .told_so(Who::Own, "reaction.updated", of_message),
        row("reaction.remove", with_emoji)
            .told_so(Who::Bob, "reaction.updated", of_message)
            .told_so(Who::Own, "reaction.updated", of_message),
        row("message.pin", on_message)
            .told_so(Who::Bob, "message.pinned", of_message)
            .told_so(Who::Own, "message.pinned", of_message),
        row("message.unpin", on_message)
            .told_so(Who::Bob, "message.unpinned", of_message)
            .told_so(Who::Own, "message.unpinned", of_message),
        row("message.report", on_message)
            .learn(|_, reply| assert_eq!(reply["changed"], true)),
        row("history.get", |scene| json!({"room_id": scene.room, "after_seq": 0, "limit": 100}))
            .learn(|scene, reply| {
                let messages = reply["messages"].as_array().expect("a page");
                let last = messages.last().expect("messages");
                assert_eq!((&last["seq"], &last["revision"]), (&json!(scene.seq), &json!(2)));
                assert_eq!(reply["next_after_seq"], reply["last_seq"]);
            }),
        // What is searched follows what is said by a moment.
        row("search", |scene| json!({"room_id": scene.room, "query": "fünf", "limit": 5}))
            .until(|scene, reply| reply["hits"][0]["message"]["seq"] == scene.seq),
        row("message.delete", |scene| {
            json!({"room_id": scene.room, "message_seq": scene.seq, "expected_revision": 2})
        })
        .told_so(Who::Bob, "message.deleted", of_message)
        .told_so(Who::Own, "message.deleted", of_message),
        row("upload.create", |scene| {
            json!({
                "room_id": scene.room, "kind": "image", "name": "a.png", "size": PNG.len(),
                "content_type": "image/png",
            })
        })
        .learn(|scene, reply| {
            assert_eq!(uploads::bring(scene.nodes[0], reply, PNG), 204);
            scene.upload = reply["upload_id"].clone();
        }),
        row("message.send", |scene| {
            uploads::image(scene.room, Uuid::new_v5(&scene.room, b"image"), &scene.upload)
        })
        .told_so(Who::Bob, "message.created", |scene, reply, event| {
            let file = &event["data"]["message"]["attachments"][0];
            event["seq"] == reply["seq"] && file["upload_id"] == scene.upload
        }),
        row("attachment.urls", |scene| {
            json!({"room_id": scene.room, "upload_ids": [scene.upload]})
        })
        .learn(|scene, reply| {
            let url = reply["urls"][0]["url"].as_str().expect("a url");
            assert_eq!(uploads::fetch(scene.nodes[1], url).status, 200, "{url}");
        }),
        row("receipt.delivered", marks)
            .first(|scene| {
                // What one has sent one has read: so Bob sends.
                scene.seq = scene.bob.send(scene.room, "Um sechs.");
                scene.ada.wait_for_seq(scene.room, scene.seq);
                scene.own.wait_for_seq(scene.room, scene.seq);
            })
            .told_so(Who::Bob, "receipt.updated", |scene, _, event| {
                is_of_ada(scene, event) && event["data"]["delivered_seq"] == scene.seq
            }),
        row("receipt.read", marks)
            .told_so(Who::Bob, "receipt.updated", |scene, _, event| {
                is_of_ada(scene, event) && event["data"]["read_seq"] == scene.seq
            })
            .told_so(Who::Own, "unread.updated", |scene, _, event| {
                event["data"]["read_seq"] == scene.seq && event["data"]["unread"] == 0
            }),
        row("typing.start", on_room).told_so(Who::Bob, "typing.updated", |scene, _, event| {
            event["data"]["user_ids"] == json!([scene.ada.user.id])
        }),
        row("typing.stop", on_room).told_so(Who::Bob, "typing.updated", |_, _, event| {
            event["data"]["user_ids"] == json!([])
        }),
        row("presence.subscribe", |scene| json!({"user_ids": [scene.bob.user.id]}))
            .until(|_, reply| reply["users"][0]["state"] == "online"),
        row("presence.set", |_| json!({"state": "away"}))
            .first(|scene| {
                scene.own.ack("presence.set", &json!({"state": "invisible"}));
                let users = json!({"user_ids": [scene.ada.user.id]});
                scene.bob.ack("presence.subscribe", &users);
            })
            .told_so(Who::Bob, "presence.updated", |scene, _, event| {
                let users = event["data"]["users"].as_array().expect("users");
                users.iter().any(|user| {
                    user["user_id"] == json!(scene.ada.user.id) && user["state"] == "away"
                })
            }),
        row("room.mute", |scene| {
            json!({"room_id": scene.room, "until": "2999-01-01T00:00:00.000Z"})
        })
        .told_so(Who::Own, "unread.updated", |_, _, event| {
            event["data"].get("muted_until").is_some()
        }),
        row("room.archive", |scene| json!({"room_id": scene.room, "archived": true}))
            .told_so(Who::Own, "unread.updated", |_, _, event| {
                event["data"]["archived"] == true
            }),
        row("user.block", on_eve).told_so(Who::Own, "user.blocks.updated", |_, _, event| {
            event["data"]["blocked"] == true
        }),
        row("user.blocks", |_| json!({"limit": 1})).learn(|scene, reply| {
            assert_eq!(reply["users"][0]["user_id"], json!(scene.eve.user.id));
        }),
        row("user.unblock", on_eve).told_so(Who::Own, "user.blocks.updated", |_, _, event| {
            event["data"]["blocked"] == false
        }),
        row("room.members.remove", eve_in_room)
            .told_all("member.left")
            .told(Who::Eve, "member.left")
            .told(Who::Eve, "room.removed"),
        // The owner: somebody else becomes that.
        row("room.leave", on_room)
            .told_so(Who::Bob, "member.left", |scene, _, event| is_of_ada(scene, event))
            .told_so(Who::Own, "member.left", |scene, _, event| is_of_ada(scene, event))
            .told_so(Who::Bob, "member.role_changed", |scene, _, event| {
                event["data"]["user_id"] == json!(scene.bob.user.id)
                    && event["data"]["role"] == "owner"
            })
            .told(Who::Own, "room.removed"),
    ]
}

fn is_of_room(_: &Scene<'_>, reply: &Value, event: &Value) -> bool {
    // The one answer shows the room, the other names it.
    let room = reply["room"].get("room_id").unwrap_or(&reply["room_id"]);
    event["data"]["room"]["room_id"] == *room
}

fn is_of_ada(scene: &Scene<'_>, event: &Value) -> bool {
    event["data"]["user_id"] == json!(scene.ada.user.id)
}

fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// The request as HTTP has it: target and body.
pub fn as_http(endpoint: &Endpoint, data: &Value) -> (String, Value) {
    let mut fields: Map<String, Value> = data.as_object().expect("an object").clone();
    let mut path = endpoint.path.to_owned();
    for name in http::path_names(endpoint.path) {
        let value = match fields.remove(name) {
            Some(value) => value,
            None => fields.remove("user_ids").expect("one of them")[0].take(),
        };
        path = path.replace(&format!("{{{name}}}"), &encoded(&text_of(&value)));
    }
    if endpoint.method.has_body() {
        return (path, Value::Object(fields));
    }
    let query: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(&text_of(value))))
        .collect();
    match query.is_empty() {
        true => (path, Value::Null),
        false => (format!("{path}?{}", query.join("&")), Value::Null),
    }
}

pub fn endpoint_of(request: &str) -> Option<&'static Endpoint> {
    ENDPOINTS
        .iter()
        .find(|endpoint| endpoint.request == request)
}

fn reply_of(request: &str) -> &'static str {
    let names = Command::NAMES.iter().find(|(name, _)| *name == request);
    names.expect("a request").1
}

fn send(rest: &Rest, endpoint: &Endpoint, data: &Value) -> crate::support::rest::Told {
    let (target, body) = as_http(endpoint, data);
    match body {
        Value::Null => rest.ask(endpoint.method.name(), &target, &[], ""),
        body => rest.send(endpoint.method.name(), &target, &body),
    }
}

impl<'a> Scene<'a> {
    fn new(nodes: [&'a Server; 2], way: Way) -> Scene<'a> {
        let [here, there] = nodes;
        let (ada, mallory) = (User::new("Ada"), User::new("Mallory"));
        Scene {
            nodes,
            way,
            bob: there.connect(&User::new("Bob")),
            eve: there.connect(&User::new("Eve")),
            own: there.connect(&ada),
            mallory: here.connect(&mallory),
            mallory_rest: Rest::new(here.address, &mallory),
            rest: Rest::new(here.address, &ada),
            ada: here.connect(&ada),
            room: Uuid::nil(),
            seq: 0,
            upload: Value::Null,
            next_id: 1_000_000,
        }
    }

    fn of(&mut self, who: Who) -> &mut Client {
        match who {
            Who::Bob => &mut self.bob,
            Who::Eve => &mut self.eve,
            Who::Own => &mut self.own,
        }
    }

    /// The way in which this request is asked here.
    fn way_of(&self, request: &str) -> Option<&'static Endpoint> {
        endpoint_of(request).filter(|_| self.way == Way::Http)
    }

    /// Asks; the data of the answer, which is null if there is none.
    fn ask(&mut self, request: &'static str, data: &Value) -> Value {
        let has_reply = !reply_of(request).is_empty();
        match self.way_of(request) {
            None if has_reply => self.ada.ack(request, data),
            None => {
                self.ada.tell_only(request, data);
                Value::Null
            }
            Some(endpoint) => {
                let told = send(&self.rest, endpoint, data);
                assert!(
                    (200..300).contains(&told.status),
                    "{request}: {}",
                    told.body
                );
                assert_eq!(told.status == 202, !has_reply, "{request}");
                if has_reply {
                    // What is answered over HTTP is what is answered on a socket.
                    let frame = json!({"id": 1, "type": "ack", "data": told.body});
                    schema::validate_reply(request, &frame.to_string()).expect("its reply");
                }
                told.body
            }
        }
    }

    /// One who is no member of the room is told so, and nothing more.
    fn stranger(&mut self, request: &'static str, data: &Value) {
        if data.get("room_id").is_none() || reply_of(request).is_empty() {
            return;
        }
        let mut elsewhere = data.clone();
        elsewhere["room_id"] = json!(Uuid::new_v4());
        let mut said = Vec::new();
        for data in [data, &elsewhere] {
            match self.way_of(request) {
                None => {
                    let reply = self.mallory.ask(request, data);
                    assert_eq!(code_of(&reply), "forbidden", "{request}");
                    said.push(reply["error"]["message"].clone());
                }
                Some(endpoint) => {
                    let told = send(&self.mallory_rest, endpoint, data);
                    told.is_problem(403, "forbidden");
                    said.push(told.body["detail"].clone());
                }
            }
        }
        assert_eq!(
            said[0], said[1],
            "{request}: a room that there is not is told apart"
        );
    }

    /// Asks in a way that is none: `bad_request`, and nothing is done.
    fn malformed(&mut self, request: &'static str, data: &Value) {
        match self.way_of(request) {
            None => {
                self.next_id += 1;
                let frame = json!({"id": self.next_id, "type": request, "data": data});
                self.ada.tell_text(self.next_id, "", &frame.to_string());
                let reply = self.ada.reply(self.next_id);
                assert_eq!(code_of(&reply), "bad_request", "{request} {data}");
            }
            Some(endpoint) => {
                send(&self.rest, endpoint, data).is_problem(400, "bad_request");
            }
        }
    }

    /// Each field missing or of another type.
    fn every_field_malformed(&mut self, request: &'static str, data: &Value) {
        let (fields, _) = http::fields();
        let fields = &fields[request];
        let endpoint = self.way_of(request);
        let is_in_path = |name: &str| {
            endpoint.is_some_and(|endpoint| {
                http::path_names(endpoint.path)
                    .any(|own| own == name || (own == "user_id" && name == "user_ids"))
            })
        };
        for name in &fields.required {
            // Made of the header, or here, where it is not given.
            let is_key = endpoint.is_some_and(|endpoint| endpoint.key == Some(name));
            if is_in_path(name) || is_key {
                continue;
            }
            let mut without = data.clone();
            without.as_object_mut().expect("an object").remove(name);
            self.malformed(request, &without);
        }
        for (name, schema) in &fields.schemas {
            let schema = schema.to_string();
            let is_any_text = !["integer", "boolean", "Seq", "Id"]
                .iter()
                .any(|kind| schema.contains(kind));
            // In a query all is text.
            let is_in_query = endpoint.is_some_and(|endpoint| !endpoint.method.has_body());
            if is_in_path(name) || is_in_query && is_any_text {
                continue;
            }
            let mut other = data.clone();
            other[name] = json!({"no": [true]});
            self.malformed(request, &other);
        }
    }

    fn play(&mut self, row: &Row, shown: &mut Shown) {
        (row.first)(self);
        let data = (row.data)(self);
        let what = row.request;
        self.stranger(what, &data);
        self.every_field_malformed(what, &data);
        let reply = wait_for(what, || {
            let reply = self.ask(what, &data);
            (row.until)(self, &reply).then_some(reply)
        });
        shown
            .requests
            .insert((what.to_owned(), self.way_of(what).is_some()));
        for (who, kind, is) in &row.told {
            loop {
                let event = self.of(*who).event_of(kind);
                if is(self, &reply, &event) {
                    break;
                }
            }
            shown.events.insert((*kind).to_owned());
        }
        (row.learn)(self, &reply);
    }
}

/// Who was a member and is none any more is told as much as who never was; but leaving again, by either request, is
/// no fault.
fn former_member(scene: &mut Scene<'_>, rows: &[Row]) {
    for row in rows {
        let data = (row.data)(scene);
        let is_of_room = data.get("room_id").is_some() && !reply_of(row.request).is_empty();
        let leaves = ["room.leave", "room.members.remove"].contains(&row.request);
        if is_of_room && !leaves {
            let refused = scene.eve.refusal(row.request, &data);
            assert_eq!(refused, "forbidden", "{}", row.request);
        }
    }
}

/// What is no request's: a sign-in with a position, and what other services cause.
fn beside_the_rows(scene: &mut Scene<'_>, shown: &mut Shown) {
    let [here, there] = scene.nodes;
    let epoch = scene.ada.ready["epoch"].clone();
    let resume = json!({"epoch": epoch, "rooms": {scene.room.to_string(): 0}});
    let mut again = Client::sign_in(Socket::open(there.address), &scene.bob.user, Some(resume));
    assert_eq!(again.ready["rooms"][0]["recovered"], true);
    assert_eq!(again.event_of("room.created")["seq"], 1);
    shown.requests.insert(("auth".to_owned(), false));
    shown.events.insert("room.created".to_owned());

    let data = json!({"user_id": scene.ada.user.id, "version": 7, "name": "Augusta"});
    Webhook::main_app("user.updated", &data).taken(here.address);
    let event = scene.bob.event_of("user.updated");
    assert_eq!(event["data"]["name"], "Augusta");
    shown.events.insert("user.updated".to_owned());

    let zoe = User::new("Zoe");
    let mut zoes = here.connect(&zoe);
    let data = json!({"room_id": scene.room, "user_ids": [zoe.id]});
    scene.ada.ack("room.members.add", &data);
    zoes.event_of("room.added");
    let service = Service::new(here);
    let path = format!("users/{}/erase", zoe.id);
    service.post(&path, &json!({})).is(200);
    wait_until("nothing is left", || {
        service.get(&path).is(200)["state"] == "done"
    });
    let event = scene.bob.event_of("user.erased");
    assert_eq!(event["data"]["user_id"], json!(zoe.id));
    shown.events.insert("user.erased".to_owned());
    zoes.closed_with(4011);
    let frame = "{\"id\":9,\"type\":\"room.sing\",\"data\":{}}";
    scene
        .ada
        .tell_text(9_999_999, "", &frame.replace('9', "9999999"));
    assert_eq!(code_of(&scene.ada.reply(9_999_999)), "unknown_type");
}

fn all_of_it(nodes: [&Server; 2]) {
    let mut shown = Shown::default();
    let mut last = None;
    for way in [Way::Socket, Way::Http] {
        let mut scene = Scene::new(nodes, way);
        let rows = rows();
        // What has no endpoint was shown on a socket.
        let is_asked = |row: &&Row| way == Way::Socket || endpoint_of(row.request).is_some();
        for row in rows.iter().filter(is_asked) {
            // Where all are there, and the room is not left yet.
            if row.request == "room.leave" {
                beside_the_rows(&mut scene, &mut shown);
                former_member(&mut scene, &rows);
            }
            scene.play(row, &mut shown);
        }
        last = Some(scene.ada);
    }
    nodes[0].terminate();
    let mut ada = last.expect("a client");
    for kind in ["server.draining", "server.closing"] {
        ada.event_of(kind);
        shown.events.insert(kind.to_owned());
    }
    ada.closed_with(4102);

    let on_sockets = Command::NAMES
        .iter()
        .map(|(name, _)| ((*name).to_owned(), false));
    let over_http = ENDPOINTS.iter().map(|it| (it.request.to_owned(), true));
    let all: BTreeSet<_> = on_sockets.chain(over_http).collect();
    let missing: Vec<_> = all.difference(&shown.requests).collect();
    assert!(
        missing.is_empty(),
        "no row asks {missing:?} (true: over HTTP)"
    );
    let all: BTreeSet<String> = schema::all_keys()
        .into_iter()
        .filter_map(|key| key.strip_prefix("event."))
        .filter(|kind| !NOT_SHOWN.iter().any(|(own, _)| own == kind))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        shown.events, all,
        "the events of the document, and those that were told"
    );
    for endpoint in ENDPOINTS.iter().filter(|it| it.path.contains("{room_id}")) {
        let seen = openapi::seen(&endpoint.method.name().to_lowercase(), endpoint.path);
        assert!(seen.contains(&403), "{}: {seen:?}", endpoint.request);
    }
}

fn settings<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut settings = NO_LIMIT.to_vec();
    settings.extend_from_slice(webhooks::SECRETS);
    settings.push(("CAFFIS_ADMIN_TOKEN", TOKENS));
    settings.extend_from_slice(more);
    settings
}

#[test]
fn every_request_is_answered_and_told_on_one_node() {
    let server = server::start(&settings(&[])).anywhere();
    all_of_it([&server, &server]);
}

#[test]
fn every_request_is_answered_and_told_on_two_nodes() {
    let (postgres, redis) = (PostgresServer::start(""), Redis::start());
    let (url, redis_url) = (postgres.url(&postgres.database()), redis.url());
    // Which both have, as by NFS.
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = ["one", "other"].map(|name| {
        let more = [
            ("CAFFIS_DATABASE_URL", &*url),
            ("CAFFIS_REDIS_URL", &*redis_url),
            ("CAFFIS_NODE", name),
        ];
        server::start(&settings(&more)).within(folder.path())
    });
    all_of_it([&nodes[0], &nodes[1]]);
}
