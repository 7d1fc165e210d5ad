//! Who watches whom, through one shard: how long, what is told, and what a block or a full outbox does to it.

use crate::chat::outbox::Outbox;
use crate::chat::port::{Identity, SignedIn, StoreAnswer, StoreCall, StoreReply};
use crate::chat::{ConnId, CoreConfig, Effect, Input, MeshMessage, Now, ShardCore, TICK_MS};
use crate::limits;
use crate::protocol::block::BlockChange;
use crate::protocol::{Epoch, UnixMs, UserId};
use uuid::Uuid;

const EPOCH: Epoch = Epoch(1);
const START: u64 = 1_700_000_000_000;

/// A node of one shard, whose store says that everybody shares a room with everybody.
struct Node {
    core: ShardCore,
    now_ms: u64,
    /// What the store says of who shares a room waits here, if it is to wait.
    held: Option<Vec<StoreReply>>,
}

fn conn(index: u32) -> ConnId {
    ConnId {
        index,
        generation: 0,
    }
}

fn user(n: u32) -> UserId {
    UserId(Uuid::from_u128(u128::from(n)))
}

impl Node {
    fn new() -> Node {
        Node::with_outboxes(limits::OUTBOX_NODE_BYTES_MAX)
    }

    fn with_outboxes(bytes_max: usize) -> Node {
        let mut config = CoreConfig::new("test", 1, EPOCH);
        config.commands_per_10s = 1_000;
        config.outbox_shard_bytes_max = bytes_max;
        Node {
            core: ShardCore::new(config, 0, 1),
            now_ms: 1_000,
            held: None,
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let now = Now {
            mono_us: self.now_ms * 1_000,
            unix: UnixMs(START + self.now_ms),
        };
        let mut effects = Vec::new();
        self.core.step(now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Verify(conn, token) => {
                    let identity = Identity {
                        user: user(token.parse().expect("a number")),
                        expires_at: UnixMs(u64::MAX),
                        name: None,
                        picture: None,
                        issued_at: None,
                        sid: None,
                    };
                    self.step(Input::Verified(conn, Ok(identity)));
                }
                Effect::Store(ticket, call) => {
                    let nothing = SignedIn {
                        version: 1,
                        block_version: 0,
                        ends: Vec::new(),
                        rooms: Vec::new(),
                    };
                    let answer = match call {
                        StoreCall::SignIn(users) => {
                            StoreAnswer::SignIn(vec![Some(nothing); users.len()])
                        }
                        StoreCall::WhoShares { others, .. } => StoreAnswer::WhoShares(others),
                        StoreCall::Heads { users, .. } => StoreAnswer::Heads {
                            severed: Vec::new(),
                            floors: Vec::new(),
                            rooms: Vec::new(),
                            users: users.into_iter().map(|user| (user, 1)).collect(),
                        },
                        other => panic!("{other:?}"),
                    };
                    let may_wait = matches!(answer, StoreAnswer::WhoShares(_));
                    let reply = StoreReply {
                        ticket,
                        epoch: EPOCH,
                        result: Ok(answer),
                    };
                    match &mut self.held {
                        Some(held) if may_wait => held.push(reply),
                        _ => self.step(Input::Store(reply)),
                    }
                }
                Effect::Flush(_) => (),
                other => panic!("{other:?}"),
            }
        }
    }

    /// A connection of the user of the same number signs in.
    fn connect(&mut self, index: u32) {
        self.step(Input::Opened(conn(index)));
        let auth = format!(r#"{{"id":1,"type":"auth","data":{{"token":"{index}"}}}}"#);
        self.step(Input::Text(conn(index), &auth));
        assert!(self.read(index).contains("ready"));
    }

    fn subscribe(&mut self, index: u32, users: impl IntoIterator<Item = u32>) -> String {
        let ids: Vec<String> = users
            .into_iter()
            .map(|n| format!("{:?}", user(n).0.to_string()))
            .collect();
        let ids = ids.join(",");
        let request =
            format!(r#"{{"id":2,"type":"presence.subscribe","data":{{"user_ids":[{ids}]}}}}"#);
        self.step(Input::Text(conn(index), &request));
        self.read(index)
    }

    fn set(&mut self, index: u32, state: &str) {
        let request = format!(r#"{{"type":"presence.set","data":{{"state":"{state}"}}}}"#);
        self.step(Input::Text(conn(index), &request));
    }

    /// So much waits for a client who does not read.
    fn fill(&mut self, index: u32, bytes: usize) {
        let held = |node: &Node| node.core.outbox(conn(index)).map_or(0, Outbox::bytes);
        while held(self) < bytes {
            let unknown = r#"{"id":3,"type":"nope"}"#;
            self.step(Input::Text(conn(index), unknown));
        }
    }

    /// Everything a client was sent since it last read.
    fn read(&mut self, index: u32) -> String {
        let mut bytes = Vec::new();
        let outbox = self.core.outbox(conn(index)).expect("open");
        outbox.fill(&mut bytes, usize::MAX);
        let now = Now {
            mono_us: self.now_ms * 1_000,
            unix: UnixMs(START + self.now_ms),
        };
        let mut effects = Vec::new();
        (self.core).written(now, conn(index), bytes.len(), &mut effects);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Time passes; everybody answers pings.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(TICK_MS) {
            self.now_ms += TICK_MS;
            for index in 0..3 {
                self.step(Input::Heard(conn(index)));
            }
            self.step(Input::Tick);
        }
    }
}

#[test]
fn a_subscription_ends_after_its_time_unless_it_is_renewed() {
    let mut node = Node::new();
    (0..3).for_each(|index| node.connect(index));
    let snapshot = node.subscribe(0, [1, 2]);
    assert!(snapshot.contains("until"), "{snapshot}");
    node.pass(limits::PRESENCE_WATCH_MS / 2);
    node.subscribe(0, [2]);
    node.pass(limits::PRESENCE_WATCH_MS / 2 + 17_000);
    node.read(0);
    node.set(1, "away");
    node.set(2, "away");
    node.pass(5_000);
    let told = node.read(0);
    assert!(told.contains(&user(2).0.to_string()), "{told}");
    assert!(!told.contains(&user(1).0.to_string()), "{told}");
    node.pass(limits::PRESENCE_WATCH_MS);
    node.read(0);
    node.set(2, "online");
    node.pass(5_000);
    assert!(!node.read(0).contains("presence"));
}

#[test]
fn a_subscription_that_is_renewed_as_it_ends_goes_on() {
    let mut node = Node::new();
    (0..2).for_each(|index| node.connect(index));
    node.subscribe(0, [1]);
    node.pass(limits::PRESENCE_WATCH_MS - 5_000);
    // It ends while the store is asked.
    node.held = Some(Vec::new());
    assert!(!node.subscribe(0, [1]).contains("ack"));
    node.pass(5_000 + 17_000);
    for reply in node.held.take().into_iter().flatten() {
        node.step(Input::Store(reply));
    }
    let snapshot = node.read(0);
    assert!(snapshot.contains("\"online\""), "{snapshot}");
    node.set(1, "away");
    node.pass(5_000);
    assert!(node.read(0).contains("\"away\""));
}

#[test]
fn who_watches_is_looked_at_once_a_round_however_often_it_began() {
    let mut node = Node::new();
    (0..2).for_each(|index| node.connect(index));
    node.pass(2_000);
    let block = |version, blocked| {
        MeshMessage::Block(BlockChange {
            by: user(1),
            user: user(0),
            blocked,
            severed: blocked,
            version,
        })
    };
    for round in 0..10 {
        assert!(node.subscribe(0, [1]).contains("ack"));
        node.step(Input::Mesh(0, block(2 * round + 1, true)));
        node.step(Input::Mesh(0, block(2 * round + 2, false)));
    }
    node.subscribe(0, [1]);
    assert_eq!(node.core.watchers(), 1);
    node.pass(limits::PRESENCE_WATCH_MS + 17_000);
    assert_eq!(node.core.watchers(), 0);
    node.subscribe(0, [1]);
    assert_eq!(node.core.watchers(), 1);
}

#[test]
fn a_block_that_is_known_before_the_answer_of_the_store_holds() {
    let mut node = Node::new();
    (0..2).for_each(|index| node.connect(index));
    node.pass(2_000);
    node.held = Some(Vec::new());
    assert!(!node.subscribe(0, [1]).contains("ack"));
    node.step(Input::Mesh(
        0,
        MeshMessage::Block(BlockChange {
            by: user(1),
            user: user(0),
            blocked: true,
            severed: true,
            version: 1,
        }),
    ));
    // It was read before the block.
    for reply in node.held.take().into_iter().flatten() {
        node.step(Input::Store(reply));
    }
    let snapshot = node.read(0);
    assert!(snapshot.contains("offline"), "{snapshot}");
    node.set(1, "away");
    node.pass(5_000);
    assert!(!node.read(0).contains("presence"));
}

#[test]
fn so_many_users_can_be_watched_and_no_more() {
    let mut node = Node::new();
    node.connect(0);
    let part = limits::USERS_PER_REQUEST_MAX as u32;
    let parts = limits::PRESENCE_WATCHED_MAX as u32 / part;
    for n in 0..parts {
        assert!(node.subscribe(0, n * part..(n + 1) * part).contains("ack"));
    }
    let more = parts * part;
    assert!(node.subscribe(0, [more]).contains("too_large"));
    // Those it has can be renewed, and what was refused is not held against it.
    assert!(node.subscribe(0, [1, 2]).contains("ack"));
    node.pass(limits::PRESENCE_WATCH_MS + 17_000);
    node.read(0);
    assert!(node.subscribe(0, [more]).contains("ack"));
}

#[test]
fn who_does_not_read_is_told_the_newest_once() {
    let mut node = Node::new();
    (0..2).for_each(|index| node.connect(index));
    node.pass(2_000);
    node.subscribe(0, [1]);
    // Something large waits to be written.
    node.fill(0, limits::PRESENCE_OUTBOX_BYTES_MAX + 1);
    for state in ["away", "invisible", "away", "online", "away"] {
        node.set(1, state);
        node.pass(3_000);
    }
    assert!(!node.read(0).contains("presence.updated"));
    node.pass(2_000);
    let told = node.read(0);
    assert_eq!(told.matches("presence.updated").count(), 1, "{told}");
    assert!(told.contains("\"away\""), "{told}");
}

#[test]
fn a_shard_with_too_much_to_do_tells_of_presence_later() {
    let mut node = Node::with_outboxes(16_000);
    (0..3).for_each(|index| node.connect(index));
    node.pass(2_000);
    node.subscribe(0, [1]);
    node.fill(2, 13_000);
    node.set(1, "away");
    node.pass(5_000);
    assert!(!node.read(0).contains("presence.updated"));
    node.read(2);
    node.pass(2_000);
    assert!(node.read(0).contains("presence.updated"));
}
