//! Sends with files: what waits behind them, in which order it goes on, and what is told when nobody answers.

use super::port::files::{FilesAnswer, FilesAsk, FilesAskId, FilesRefusal, FilesTold};
use super::port::{
    Identity, Op, OpDone, OpKind, OpReply, SignedIn, StoreAnswer, StoreCall, StoreReply, Ticket,
};
use super::{ConnId, CoreConfig, Effect, Input, Now, ShardCore, TICK_MS};
use crate::limits;
use crate::protocol::reply::Sent;
use crate::protocol::{Epoch, ErrorCode, RoomId, UnixMs, UserId, websocket};
use uuid::Uuid;

const EPOCH: Epoch = Epoch(1);
const ADA: UserId = UserId(Uuid::from_u128(1));
const CONN: ConnId = ConnId {
    index: 0,
    generation: 0,
};

/// A node of one shard whose store answers at once and whose files are looked at when the test says so.
struct Node {
    core: ShardCore,
    now_ms: u64,
    asked: Vec<(FilesAskId, FilesAsk)>,
    /// Messages in the order in which they came to the store: room and number.
    stored: Vec<(u128, u128)>,
}

fn room(n: u128) -> RoomId {
    RoomId(Uuid::from_u128(n))
}

impl Node {
    /// With one connection, which is ready.
    fn new() -> Node {
        let mut config = CoreConfig::new("test", 1, EPOCH);
        config.commands_per_10s = 100_000;
        config.sends_per_10s = 100_000;
        let mut node = Node {
            core: ShardCore::new(config, 0, 1),
            now_ms: 1_000,
            asked: Vec::new(),
            stored: Vec::new(),
        };
        node.step(Input::Opened(CONN));
        node.text(r#"{"id":1,"type":"auth","data":{"token":"t"}}"#);
        assert!(node.told().contains("\"ready\""));
        node
    }

    fn step(&mut self, input: Input<'_>) {
        let now = Now {
            mono_us: self.now_ms * 1_000,
            unix: UnixMs(1_700_000_000_000 + self.now_ms),
        };
        let mut effects = Vec::new();
        self.core.step(now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Verify(conn, _) => {
                    let identity = Identity {
                        user: ADA,
                        expires_at: UnixMs(u64::MAX),
                        name: None,
                        picture: None,
                        issued_at: None,
                        sid: None,
                    };
                    self.step(Input::Verified(conn, Ok(identity)));
                }
                Effect::Store(ticket, call) => self.store(ticket, call),
                Effect::Files(id, ask) => self.asked.push((id, ask)),
                Effect::Flush(_) => (),
                other => panic!("{other:?}"),
            }
        }
    }

    fn store(&mut self, ticket: Ticket, call: StoreCall) {
        let answer = match call {
            StoreCall::SignIn(users) => StoreAnswer::SignIn(vec![
                Some(SignedIn {
                    version: 1,
                    block_version: 0,
                    ends: Vec::new(),
                    rooms: Vec::new(),
                });
                users.len()
            ]),
            StoreCall::TryCommit(ops) => {
                StoreAnswer::Commit(ops.iter().map(|op| Ok(self.sent(op))).collect())
            }
            StoreCall::Heads { users, .. } => StoreAnswer::Heads {
                floors: Vec::new(),
                rooms: Vec::new(),
                users: users.into_iter().map(|user| (user, 1)).collect(),
                severed: Vec::new(),
            },
            other => panic!("{other:?}"),
        };
        let reply = StoreReply {
            ticket,
            epoch: EPOCH,
            result: Ok(answer),
        };
        self.step(Input::Store(reply));
    }

    fn sent(&mut self, op: &Op) -> OpDone {
        let OpKind::Send { client_msg_id, .. } = op.kind else {
            panic!("{op:?}");
        };
        self.stored
            .push((op.room.0.as_u128(), client_msg_id.0.as_u128()));
        OpDone {
            reply: OpReply::Sent(Sent {
                client_msg_id,
                room_id: op.room,
                seq: self.stored.len() as u64,
                ts: UnixMs(0),
                duplicate: false,
            }),
            events: Vec::new(),
        }
    }

    fn text(&mut self, text: &str) {
        self.step(Input::Text(CONN, text));
    }

    fn send(&mut self, to: u128, n: u128) {
        let (room, id) = (room(to), Uuid::from_u128(n));
        self.text(&format!(
            r#"{{"id":{n},"type":"message.send","data":{{"room_id":"{room}","client_msg_id":"{id}",
               "kind":"text","text":"x"}}}}"#
        ));
    }

    fn send_image(&mut self, to: u128, n: u128) {
        let (room, id) = (room(to), Uuid::from_u128(n));
        self.text(&format!(
            r#"{{"id":{n},"type":"message.send","data":{{"room_id":"{room}","client_msg_id":"{id}",
               "kind":"image","attachments":[{{"upload_id":"{id}"}}]}}}}"#
        ));
    }

    /// What the first question that is open is answered.
    fn answer(&mut self, answer: FilesAnswer) {
        let (id, ask) = self.asked.remove(0);
        assert!(matches!(ask, FilesAsk::Check(_)), "{ask:?}");
        self.step(Input::Files(id, answer));
    }

    fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms = end_ms.min(self.now_ms + TICK_MS);
            self.step(Input::Tick);
        }
    }

    /// What the connection was told since the last time.
    fn told(&mut self) -> String {
        let now = Now {
            mono_us: self.now_ms * 1_000,
            unix: UnixMs(0),
        };
        let mut texts = Vec::new();
        loop {
            let outbox = self.core.outbox(CONN).expect("open");
            if outbox.is_empty() {
                return texts.join("\n");
            }
            let frame = outbox.first().to_vec();
            texts.push(String::from_utf8_lossy(websocket::payload(&frame)).into_owned());
            let mut effects = Vec::new();
            self.core.written(now, CONN, frame.len(), &mut effects);
            for effect in effects {
                assert!(matches!(effect, Effect::Flush(_)), "{effect:?}");
            }
        }
    }
}

fn away() -> FilesAnswer {
    Err(FilesRefusal::new(ErrorCode::Unavailable, "away"))
}

#[test]
fn what_is_sent_behind_a_file_keeps_its_order_and_other_rooms_do_not_wait() {
    let mut node = Node::new();
    node.send(1, 10);
    node.send_image(1, 11);
    node.send(1, 12);
    node.send(2, 20);
    node.send_image(1, 13);
    node.send(1, 14);
    assert_eq!(node.stored, [(1, 10), (2, 20)]);
    // The second is looked at before the first, and waits all the same.
    let first = node.asked.remove(0);
    node.answer(Ok(FilesTold::Checked));
    assert_eq!(node.stored.len(), 2);
    node.asked.push(first);
    node.answer(Ok(FilesTold::Checked));
    assert_eq!(
        node.stored[2..],
        [(1, 11), (1, 12), (1, 13), (1, 14)],
        "in the order sent"
    );
    // Nothing waits any more.
    node.send(1, 15);
    assert_eq!(node.stored.last(), Some(&(1, 15)));
}

#[test]
fn files_that_cannot_be_reached_hold_up_nobody_for_long() {
    let mut node = Node::new();
    node.send_image(1, 11);
    node.send(1, 12);
    node.answer(away());
    assert_eq!(node.stored, [(1, 12)]);
    let told = node.told();
    assert!(told.contains("\"id\":11,\"type\":\"error\""), "{told}");
    assert!(told.contains("unavailable"), "{told}");

    node.send_image(1, 13);
    node.send(1, 14);
    node.pass(limits::FILES_MS_MAX - TICK_MS);
    assert_eq!(node.stored.len(), 1);
    node.pass(2 * TICK_MS);
    assert_eq!(node.stored[1..], [(1, 14)]);
    let told = node.told();
    assert!(told.contains("\"id\":13,\"type\":\"error\""), "{told}");
    // Too late: the client was told already.
    node.answer(Ok(FilesTold::Checked));
    assert_eq!(node.stored.len(), 2);
}

#[test]
fn what_waits_is_bounded_and_ends_with_its_connection() {
    let mut node = Node::new();
    node.send_image(1, 100);
    for n in 1..limits::FILES_BEHIND_MAX as u128 {
        node.send(1, 100 + n);
    }
    assert_eq!(node.told(), "");
    node.send(1, 999);
    node.send_image(1, 998);
    let told = node.told();
    for id in [998, 999] {
        let refused = format!("\"id\":{id},\"type\":\"error\",\"error\":{{\"code\":\"overloaded\"");
        assert!(told.contains(&refused), "{told}");
    }
    assert_eq!(node.asked.len(), 1);
    node.step(Input::Closed(CONN));
    node.answer(Ok(FilesTold::Checked));
    assert_eq!(node.stored, [], "it is retried on another connection");
}

#[test]
fn what_no_message_can_have_is_refused_before_anybody_is_asked() {
    let mut node = Node::new();
    let (room, id) = (room(1), Uuid::from_u128(5));
    let file = format!(r#"{{"upload_id":"{id}"}}"#);
    let many = (0..=limits::ATTACHMENTS_MAX as u128)
        .map(|n| format!(r#"{{"upload_id":"{}"}}"#, Uuid::from_u128(n)))
        .collect::<Vec<_>>()
        .join(",");
    let with = |rest: &str| format!(r#"{{"upload_id":"{id}",{rest}}}"#);
    let long = format!(
        r#""placeholder":"{}""#,
        "x".repeat(limits::PLACEHOLDER_BYTES_MAX + 1)
    );
    for (kind, files, code) in [
        ("text", file.clone(), "bad_request"),
        ("image", String::new(), "bad_request"),
        ("image", format!("{file},{file}"), "bad_request"),
        ("image", many, "too_large"),
        (
            "voice",
            format!(r#"{file},{{"upload_id":"{room}"}}"#),
            "too_large",
        ),
        ("image", with(r#""width":0,"height":1"#), "bad_request"),
        ("image", with(r#""width":1"#), "bad_request"),
        ("image", with(r#""width":70000,"height":1"#), "bad_request"),
        ("voice", with(r#""duration_ms":86400001"#), "bad_request"),
        ("image", with(r#""placeholder":"a b""#), "bad_request"),
        ("image", with(&long), "too_large"),
    ] {
        node.text(&format!(
            r#"{{"id":7,"type":"message.send","data":{{"room_id":"{room}","client_msg_id":"{id}",
               "kind":"{kind}","text":"x","attachments":[{files}]}}}}"#
        ));
        let told = node.told();
        assert!(told.contains(code), "{kind} {files}: {told}");
    }
    let create = |rest: &str| {
        format!(r#"{{"id":8,"type":"upload.create","data":{{"room_id":"{room}",{rest}}}}}"#)
    };
    for (rest, code) in [
        (
            r#""kind":"image","name":"a","size":0,"content_type":"image/png""#,
            "bad_request",
        ),
        (
            r#""kind":"image","name":" ","size":1,"content_type":"image/png""#,
            "bad_request",
        ),
        (
            r#""kind":"image","name":"a","size":1,"content_type":"text/html""#,
            "unsupported_media",
        ),
        (
            r#""kind":"voice","name":"a","size":1,"content_type":"image/png""#,
            "unsupported_media",
        ),
        (
            r#""kind":"image","name":"a","size":1,"content_type":"image/png","sha256":"0f""#,
            "bad_request",
        ),
        (
            r#""kind":"image","name":"a","size":9007199254740992,"content_type":"image/png""#,
            "too_large",
        ),
    ] {
        node.text(&create(rest));
        let told = node.told();
        assert!(told.contains(code), "{rest}: {told}");
    }
    assert!(node.asked.is_empty() && node.stored.is_empty());
    node.text(&create(
        r#""kind":"voice","name":" a ","size":1,"content_type":"audio/webm; codecs=opus""#,
    ));
    let Some((_, FilesAsk::Create(file))) = node.asked.pop() else {
        panic!("nobody was asked");
    };
    assert_eq!((file.name.as_str(), file.content_type), ("a", "audio/webm"));
}
