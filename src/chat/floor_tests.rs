//! A node that was without the store for longer than a room keeps its messages: who listens comes again and is told
//! what to reload.

use super::port::{
    Archived, EventsPage, Identity, OpenedRoom, RoomDescription, RoomForSignIn, SignedIn,
    StoreAnswer, StoreCall, StoreReply, Ticket,
};
use super::{ConnId, CoreConfig, Effect, Input, Now, ShardCore, TICK_MS};
use crate::protocol::event::{RoomEvent, RoomEventBody};
use crate::protocol::view::{Message, MessageKind, Role, RoomKind};
use crate::protocol::{CloseCode, Epoch, RoomId, Seq, UnixMs, UserId};
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

fn created(seq: Seq) -> RoomEvent {
    let message = Message {
        seq,
        sender_id: USER,
        client_msg_id: None,
        kind: MessageKind::Text,
        text: Some(format!("m{seq}")),
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
    closed: Vec<(ConnId, CloseCode)>,
}

impl Node {
    fn new(last_seq: Seq) -> Node {
        Node {
            core: ShardCore::new(CoreConfig::new("test", 1, EPOCH), 0, 1),
            now_ms: 1_000,
            last_seq,
            floor: 0,
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
                    events: (first..=self.last_seq.min(read.to)).map(created).collect(),
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
