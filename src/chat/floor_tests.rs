//! What is dropped while it is owed: a replay that is overtaken says so and goes on above; who listens at a node that
//! was without the store for longer than a room keeps its messages comes again and is told what to reload.

use super::port::{
    Archived, EventsPage, Identity, OpenedRoom, RoomDescription, RoomForSignIn, SignedIn,
    StoreAnswer, StoreCall, StoreReply, Ticket,
};
use super::{ConnId, CoreConfig, Effect, Input, Now, ShardCore, TICK_MS};
use crate::protocol::event::{RoomEvent, RoomEventBody};
use crate::protocol::view::{Message, MessageKind, Role, RoomKind};
use crate::protocol::websocket;
use crate::protocol::{CloseCode, Epoch, RoomId, Seq, UnixMs, UserId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

const EPOCH: Epoch = Epoch(1);
const ROOM: RoomId = RoomId(Uuid::from_u128(7));
const USER: UserId = UserId(Uuid::from_u128(1));

fn conn(index: u32) -> ConnId {
    ConnId {
        index,
        generation: 0,
    }
}

fn created(seq: Seq, text: &str) -> RoomEvent {
    let message = Message {
        seq,
        sender_id: USER,
        client_msg_id: None,
        kind: MessageKind::Text,
        text: Some(text.to_owned()),
        event: None,
        attachments: Vec::new(),
        reply_to_seq: None,
        mentions: Vec::new(),
        reactions: BTreeMap::new(),
        changed_seq: seq,
        revision: 1,
        edited_at: None,
        deleted_at: None,
        created_at: UnixMs(1),
    };
    RoomEvent {
        room_id: ROOM,
        seq,
        ts: UnixMs(1),
        body: RoomEventBody::MessageCreated {
            message_seq: seq,
            message: Box::new(message),
        },
    }
}

/// A shard alone, and what its store has.
struct Node {
    core: ShardCore,
    now_ms: u64,
    last_seq: Seq,
    floor: Seq,
    text: String,
    closed: Vec<(ConnId, CloseCode)>,
}

impl Node {
    fn new(last_seq: Seq) -> Node {
        let mut config = CoreConfig::new("test", 1, EPOCH);
        // Some events of a replay fill it.
        config.outbox_bytes_max = 64 << 10;
        Node {
            core: ShardCore::new(config, 0, 1),
            now_ms: 1_000,
            last_seq,
            floor: 0,
            text: String::new(),
            closed: Vec::new(),
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let now = Now {
            mono_us: self.now_ms * 1_000,
            unix: UnixMs(1_700_000_000_000 + self.now_ms),
        };
        let mut effects = Vec::new();
        self.core.step(now, input, &mut effects);
        self.done(effects);
    }

    fn done(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Verify(conn, _) => {
                    let identity = Identity {
                        user: USER,
                        expires_at: UnixMs(u64::MAX),
                        name: None,
                        picture: None,
                        issued_at: None,
                        sid: None,
                    };
                    self.step(Input::Verified(conn, Ok(identity)));
                }
                Effect::Store(ticket, call) => self.asked(ticket, &call),
                Effect::Close(conn, code) => self.closed.push((conn, code)),
                Effect::Flush(_) => (),
                other => panic!("{other:?}"),
            }
        }
    }

    fn asked(&mut self, ticket: Ticket, call: &StoreCall) {
        let answer = match call {
            StoreCall::SignIn(users) => {
                let room = RoomForSignIn {
                    room: ROOM,
                    kind: RoomKind::Group,
                    last_seq: self.last_seq,
                    read_seq: 0,
                    described: Some(RoomDescription {
                        unread: 0,
                        muted_until: None,
                        archived: Archived::No,
                        watermarks: Vec::new(),
                    }),
                };
                let signed_in = SignedIn {
                    version: 1,
                    block_version: 0,
                    ends: Vec::new(),
                    rooms: vec![room],
                };
                StoreAnswer::SignIn(users.iter().map(|_| Some(signed_in.clone())).collect())
            }
            StoreCall::OpenRooms(rooms) => {
                let opened = OpenedRoom {
                    last_seq: self.last_seq,
                    kind: RoomKind::Group,
                    members: vec![(USER, Role::Owner)],
                    severed: false,
                    floor: self.floor,
                };
                StoreAnswer::OpenRooms(rooms.iter().map(|_| Some(opened.clone())).collect())
            }
            StoreCall::Heads { rooms, users } => StoreAnswer::Heads {
                rooms: rooms.iter().map(|room| (*room, self.last_seq)).collect(),
                users: users.iter().map(|user| (*user, 1)).collect(),
                severed: Vec::new(),
                floors: rooms.iter().map(|room| (*room, self.floor)).collect(),
            },
            StoreCall::Events(read) => {
                let first = read.after.max(self.floor) + 1;
                StoreAnswer::Events(EventsPage {
                    events: (first..=self.last_seq.min(read.to))
                        .map(|seq| created(seq, &self.text))
                        .collect(),
                    last_seq: self.last_seq,
                    floor: self.floor,
                })
            }
            other => panic!("{other:?}"),
        };
        let reply = StoreReply {
            ticket,
            epoch: EPOCH,
            result: Ok(answer),
        };
        self.step(Input::Store(reply));
    }

    /// What the connection is told, as far as its outbox has it.
    fn read(&mut self, conn: ConnId) -> Vec<Value> {
        let mut buffer = Vec::new();
        if let Some(outbox) = self.core.outbox(conn) {
            outbox.fill(&mut buffer, usize::MAX);
        }
        let mut effects = Vec::new();
        let now = Now {
            mono_us: self.now_ms * 1_000,
            unix: UnixMs(1_700_000_000_000 + self.now_ms),
        };
        self.core.written(now, conn, buffer.len(), &mut effects);
        let mut frames = Vec::new();
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let payload = websocket::payload(rest);
            let header = rest.len() - payload.len();
            let end = match rest[1] {
                126 => usize::from(u16::from_be_bytes([rest[2], rest[3]])),
                short => usize::from(short),
            };
            frames.push(serde_json::from_slice(&payload[..end]).expect("a frame"));
            rest = &rest[header + end..];
        }
        self.done(effects);
        frames
    }

    fn connect(&mut self, index: u32) {
        self.step(Input::Opened(conn(index)));
        let auth = r#"{"id":1,"type":"auth","data":{"token":"t"}}"#;
        self.step(Input::Text(conn(index), auth));
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(TICK_MS) {
            self.now_ms += TICK_MS;
            self.step(Input::Tick);
        }
    }
}

#[test]
fn a_replay_that_is_overtaken_by_a_floor_says_so_and_goes_on_above_it() {
    let mut node = Node::new(40);
    node.text = "x".repeat(8 << 10);
    node.step(Input::Opened(conn(0)));
    let auth = format!(
        r#"{{"id":1,"type":"auth","data":{{"token":"t","resume":{{"epoch":"{EPOCH}","rooms":{{"{ROOM}":10}}}}}}}}"#
    );
    node.step(Input::Text(conn(0), &auth));
    let before = node.read(conn(0));
    let ready = &before[0]["data"]["rooms"][0];
    assert_eq!(
        (&ready["recovered"], &ready["to_seq"]),
        (&json!(true), &json!(40))
    );
    let replayed = before.last().map(|frame| frame["seq"].clone());
    assert_eq!(replayed, Some(json!(9 + before.len())));
    assert!(before.len() < 20, "a stretch, not all: {}", before.len());
    // What was read makes room for the next stretch, which is dropped by then.
    node.floor = 35;
    node.pass(20_000);
    let mut after = Vec::new();
    loop {
        let read = node.read(conn(0));
        if read.is_empty() {
            break;
        }
        after.extend(read);
    }
    let gap = after.iter().position(|frame| frame["type"] == "room.gap");
    let gap = gap.expect("a gap is told");
    assert_eq!(
        after[gap],
        json!({
            "type": "room.gap", "room_id": ROOM,
            "data": {"last_seq": 35, "reason": "position_expired"},
        })
    );
    let seqs: Vec<u64> = after[gap + 1..]
        .iter()
        .filter_map(|frame| frame["seq"].as_u64())
        .collect();
    assert_eq!(seqs, [36, 37, 38, 39, 40]);
    assert_eq!(node.closed, []);
    // And it is live.
    node.last_seq = 41;
    node.pass(20_000);
    let live = node.read(conn(0));
    assert_eq!(live.first().map(|frame| &frame["seq"]), Some(&json!(41)));
}

#[test]
fn who_listens_where_what_they_are_owed_is_dropped_comes_again() {
    let mut node = Node::new(10);
    node.connect(0);
    node.connect(1);
    // The floor rises below what they have: nobody notices.
    node.floor = 9;
    node.last_seq = 12;
    node.pass(20_000);
    assert_eq!(node.closed, []);
    // It rises above: what comes between is no longer there.
    (node.floor, node.last_seq) = (20, 30);
    node.pass(20_000);
    let closed = std::mem::take(&mut node.closed);
    let slow = CloseCode::SlowConsumer;
    assert_eq!(closed, [(conn(0), slow), (conn(1), slow)]);
    // Who comes again goes on with the newest.
    node.step(Input::Closed(conn(0)));
    node.step(Input::Closed(conn(1)));
    node.connect(2);
    node.last_seq = 31;
    node.pass(20_000);
    assert_eq!(node.closed, []);
}
