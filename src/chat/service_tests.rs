//! Ends of sessions on a node of two shards: told, relayed, found by comparing, and told while one signs in.

use super::port::{
    AskId, ConnectionsRead, Identity, RelayCall, ServiceAnswer, ServiceAsk, SignedIn, StoreAnswer,
    StoreCall, StoreReply, Ticket,
};
use super::{ConnId, CoreConfig, Effect, Input, Now, Peers, ShardCore, ShardIx, TICK_MS};
use crate::chat::port::RelayNews;
use crate::limits;
use crate::protocol::ending::{EndsWhich, SessionsEnd};
use crate::protocol::relay::{self, RelayMessage};
use crate::protocol::{CloseCode, Epoch, UnixMs, UserId};
use std::collections::BTreeMap;
use uuid::Uuid;

const EPOCH: Epoch = Epoch(1);
const SHARDS: ShardIx = 2;
const NODE_RUN: u64 = 7;

/// A node, and the versions that its store has.
struct Node {
    cores: Vec<ShardCore>,
    now_ms: u64,
    versions: BTreeMap<UserId, u64>,
    ends: Vec<SessionsEnd>,
    /// Sign-ins are read now and told later.
    holds: bool,
    held: Vec<(ShardIx, Ticket, StoreAnswer)>,
    closed: Vec<(ShardIx, ConnId, CloseCode)>,
    served: Vec<(AskId, ServiceAnswer)>,
    published: Vec<RelayMessage>,
}

fn user(n: u128) -> UserId {
    UserId(Uuid::from_u128(n))
}

fn conn(index: u32) -> ConnId {
    ConnId {
        index,
        generation: 0,
    }
}

fn end(n: u128, version: u64, code: CloseCode) -> SessionsEnd {
    SessionsEnd {
        user: user(n),
        version,
        code,
        which: EndsWhich::BeganBefore,
    }
}

impl Node {
    fn new() -> Node {
        let mut config = CoreConfig::new("test", SHARDS, EPOCH);
        config.peers = Peers::Relay;
        config.run = NODE_RUN;
        Node {
            cores: (0..SHARDS)
                .map(|shard| ShardCore::new(config.clone(), shard, 1))
                .collect(),
            now_ms: 1_000,
            versions: BTreeMap::new(),
            ends: Vec::new(),
            holds: false,
            held: Vec::new(),
            closed: Vec::new(),
            served: Vec::new(),
            published: Vec::new(),
        }
    }

    fn step(&mut self, shard: ShardIx, input: Input<'_>) {
        let now = Now {
            mono_us: self.now_ms * 1_000,
            unix: UnixMs(1_700_000_000_000 + self.now_ms),
        };
        let mut effects = Vec::new();
        self.cores[usize::from(shard)].step(now, input, &mut effects);
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
                    self.step(shard, Input::Verified(conn, Ok(identity)));
                }
                Effect::Store(ticket, call) => self.asked(shard, ticket, call),
                Effect::Close(conn, code) => self.closed.push((shard, conn, code)),
                Effect::Served(id, answer) => self.served.push((id, answer)),
                Effect::Relay(RelayCall::Publish(bucket, bytes)) => {
                    let relayed = relay::decode(&bytes).expect("a message");
                    if let RelayMessage::Ended(_)
                    | RelayMessage::ConnectedAsked(_)
                    | RelayMessage::Connected(_) = relayed.message
                    {
                        assert_eq!(bucket, limits::USERS_BUCKET);
                        self.published.push(relayed.message);
                    }
                }
                Effect::Flush(_) | Effect::Relay(_) => (),
                other => panic!("{other:?}"),
            }
        }
        self.move_mesh();
    }

    fn move_mesh(&mut self) {
        for from in 0..SHARDS {
            for to in 0..SHARDS {
                while let Some(message) = self.cores[usize::from(from)].mesh_out(to).pop_front() {
                    self.step(to, Input::Mesh(from, message));
                }
            }
        }
    }

    fn asked(&mut self, shard: ShardIx, ticket: Ticket, call: StoreCall) {
        let version = |user: &UserId| self.versions.get(user).copied().unwrap_or(1);
        let (is_sign_in, answer) = match call {
            StoreCall::SignIn(users) => {
                let signed_in = users.iter().map(|sign_in| {
                    Some(SignedIn {
                        version: version(&sign_in.user),
                        block_version: 0,
                        ends: (self.ends.iter())
                            .filter(|end| end.user == sign_in.user)
                            .copied()
                            .collect(),
                        rooms: Vec::new(),
                    })
                });
                (true, StoreAnswer::SignIn(signed_in.collect()))
            }
            StoreCall::Heads { users, .. } => {
                let users = users.iter().map(|user| (*user, version(user)));
                let heads = StoreAnswer::Heads {
                    rooms: Vec::new(),
                    users: users.collect(),
                    severed: Vec::new(),
                    floors: Vec::new(),
                };
                (false, heads)
            }
            other => panic!("{other:?}"),
        };
        match self.holds && is_sign_in {
            true => self.held.push((shard, ticket, answer)),
            false => self.answered(shard, ticket, answer),
        }
    }

    fn answered(&mut self, shard: ShardIx, ticket: Ticket, answer: StoreAnswer) {
        let reply = StoreReply {
            ticket,
            epoch: EPOCH,
            result: Ok(answer),
        };
        self.step(shard, Input::Store(reply));
    }

    /// A connection of this user begins to sign in.
    fn connect(&mut self, shard: ShardIx, index: u32, n: u128) {
        self.step(shard, Input::Opened(conn(index)));
        let auth = format!(r#"{{"id":1,"type":"auth","data":{{"token":"{n}"}}}}"#);
        self.step(shard, Input::Text(conn(index), &auth));
    }

    /// What the store does when sessions end.
    fn commit(&mut self, end: SessionsEnd) {
        self.versions.insert(end.user, end.version);
        self.ends.retain(|other| other.user != end.user);
        self.ends.push(end);
    }

    fn serve(&mut self, shard: ShardIx, ask: ServiceAsk) -> ServiceAnswer {
        self.step(shard, Input::Serve(9, Box::new(ask)));
        let (id, answer) = self.served.pop().expect("an answer");
        assert_eq!(id, 9);
        answer
    }

    /// Names of the connections of a shard, by place.
    fn connections(&mut self, shard: ShardIx, user: Option<UserId>) -> Vec<(u32, String)> {
        let read = ConnectionsRead {
            user,
            from: 0,
            limit: 100,
        };
        let answer = self.serve(shard, ServiceAsk::Connections(read));
        let ServiceAnswer::Connections(page) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(page.next, None);
        let named = |seen: super::port::ConnectionSeen| (seen.conn.index, seen.name);
        page.connections.into_iter().map(named).collect()
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(TICK_MS) {
            self.now_ms += TICK_MS;
            for shard in 0..SHARDS {
                self.step(shard, Input::Tick);
            }
        }
    }
}

#[test]
fn an_end_closes_what_began_before_on_all_shards_and_tells_other_nodes() {
    let mut node = Node::new();
    node.connect(0, 0, 1);
    node.connect(1, 0, 1);
    node.connect(1, 1, 2);
    let ends = end(1, 2, CloseCode::Forbidden);
    node.commit(ends);
    node.connect(0, 1, 1);
    // Asked of either shard.
    let answer = node.serve(1, ServiceAsk::End(ends));
    assert!(matches!(answer, ServiceAnswer::Told));
    let code = CloseCode::Forbidden;
    let mut closed = std::mem::take(&mut node.closed);
    closed.sort_by_key(|it| (it.0, it.1));
    assert_eq!(closed, [(0, conn(0), code), (1, conn(0), code)]);
    assert_eq!(node.published, [RelayMessage::Ended(ends)]);
    // Who came after it, and others, stay: also when all are compared with the store.
    node.serve(0, ServiceAsk::End(ends));
    node.pass(3 * limits::HEADS_POLL_MS);
    assert!(node.closed.is_empty());
}

#[test]
fn an_end_that_another_node_tells_is_an_end_here() {
    let mut node = Node::new();
    node.connect(0, 0, 1);
    node.connect(1, 0, 1);
    let ends = end(1, 2, CloseCode::UserDeleted);
    node.commit(ends);
    let told = relay::encode(NODE_RUN + 1, EPOCH, &RelayMessage::Ended(ends));
    let home = limits::USERS_BUCKET % SHARDS;
    node.step(home, Input::Relay(RelayNews::Message(told)));
    assert_eq!(node.closed.len(), 2);
    assert!(node.closed.iter().all(|it| it.2 == CloseCode::UserDeleted));
    assert!(node.published.is_empty(), "told once is enough");
}

#[test]
fn an_end_that_nobody_told_is_found_by_comparing_with_the_store() {
    let mut node = Node::new();
    node.connect(0, 0, 1);
    node.connect(1, 0, 2);
    node.commit(end(1, 5, CloseCode::Unauthenticated));
    // Something else changed of another user.
    node.versions.insert(user(2), 5);
    node.pass(2 * limits::HEADS_POLL_MS);
    let code = CloseCode::Unauthenticated;
    assert_eq!(node.closed, [(0, conn(0), code)]);
}

#[test]
fn an_end_that_is_told_while_one_signs_in_is_of_what_was_read_before_it() {
    for read_before in [true, false] {
        let mut node = Node::new();
        let ends = end(1, 2, CloseCode::Draining);
        if !read_before {
            node.commit(ends);
        }
        node.holds = true;
        node.connect(0, 0, 1);
        node.holds = false;
        node.commit(ends);
        node.serve(1, ServiceAsk::End(ends));
        assert!(node.closed.is_empty(), "it is not known yet");
        let (shard, ticket, answer) = node.held.pop().expect("a sign-in");
        node.answered(shard, ticket, answer);
        let is_closed = node.closed == [(0, conn(0), CloseCode::Draining)];
        assert_eq!(is_closed, read_before);
        assert_eq!(node.connections(0, None).is_empty(), read_before);
        node.closed.clear();
        node.pass(2 * limits::HEADS_POLL_MS);
        assert!(node.closed.is_empty());
    }
}

#[test]
fn a_connection_is_closed_by_its_whole_name_only() {
    let mut node = Node::new();
    for index in 0..3 {
        node.connect(1, index, u128::from(index) + 1);
    }
    // Upgraded, and silent so far.
    node.step(1, Input::Opened(conn(3)));
    let own = node.connections(1, Some(user(2)));
    let [(1, name)] = &own[..] else {
        panic!("{own:?}");
    };
    assert!(node.connections(0, Some(user(2))).is_empty());
    let close = |connection: &str| ServiceAsk::Close {
        connection: connection.to_owned(),
        code: CloseCode::Draining,
    };
    let guessed = name.rsplit_once('-').expect("parts").0.to_owned() + "-00000000";
    for wrong in [&guessed, "1-3-0-00000000", "1-900-0-00000000", "", "1"] {
        let answer = node.serve(1, close(wrong));
        assert!(matches!(answer, ServiceAnswer::Closed(false)), "{wrong}");
    }
    let answer = node.serve(1, close(name));
    assert!(matches!(answer, ServiceAnswer::Closed(true)));
    assert_eq!(node.closed, [(1, conn(1), CloseCode::Draining)]);
    let answer = node.serve(1, close(name));
    assert!(
        matches!(answer, ServiceAnswer::Closed(false)),
        "a second time"
    );
    assert_eq!(node.connections(1, None).len(), 2);
}

#[test]
fn who_is_connected_is_told_of_this_node_and_asked_of_others() {
    let mut node = Node::new();
    node.connect(0, 0, 1);
    node.connect(1, 0, 2);
    node.holds = true;
    node.connect(0, 1, 3);
    let asked = || (1..=4).map(user).collect::<Vec<_>>();
    let connected = |node: &mut Node, shard| {
        let answer = node.serve(shard, ServiceAsk::Connected(asked()));
        let ServiceAnswer::Connected(users) = answer else {
            panic!("{answer:?}");
        };
        users
    };
    assert_eq!(
        connected(&mut node, 0),
        [user(1)],
        "who signs in is not there yet"
    );
    assert_eq!(connected(&mut node, 1), [user(2)]);

    // Another node asks: it hears of those of all shards, and nothing where there is nobody.
    let home = limits::USERS_BUCKET % SHARDS;
    let hear = |node: &mut Node, message: RelayMessage| {
        let told = relay::encode(NODE_RUN + 1, EPOCH, &message);
        node.step(home, Input::Relay(RelayNews::Message(told)));
    };
    hear(&mut node, RelayMessage::ConnectedAsked(asked()));
    let told = std::mem::take(&mut node.published).into_iter();
    let mut told: Vec<UserId> = told
        .flat_map(|message| match message {
            RelayMessage::Connected(users) => users,
            other => panic!("{other:?}"),
        })
        .collect();
    told.sort_unstable();
    assert_eq!(told, [user(1), user(2)]);
    hear(&mut node, RelayMessage::ConnectedAsked(vec![user(4)]));
    assert!(node.published.is_empty());

    // This one asks. Without the relay nobody can be asked, and what nobody asked for is not believed.
    let ask = || ServiceAsk::AskElsewhere(vec![user(4)]);
    assert!(matches!(node.serve(home, ask()), ServiceAnswer::Told));
    hear(&mut node, RelayMessage::Connected(vec![user(4)]));
    assert!(!connected(&mut node, home).contains(&user(4)));
    node.step(home, Input::Relay(RelayNews::Up));
    assert!(matches!(node.serve(home, ask()), ServiceAnswer::Asked));
    assert_eq!(
        node.published,
        [RelayMessage::ConnectedAsked(vec![user(4)])]
    );
    hear(&mut node, RelayMessage::Connected(vec![user(4)]));
    assert!(connected(&mut node, home).contains(&user(4)));
    node.now_ms += limits::CONNECTED_MS;
    assert!(
        !connected(&mut node, home).contains(&user(4)),
        "it was a while ago"
    );
}

#[test]
fn connections_are_shown_page_by_page() {
    let mut node = Node::new();
    for index in 0..5 {
        node.connect(0, index, 1);
    }
    for user in [None, Some(user(1))] {
        let (mut found, mut from, mut pages) = (Vec::new(), 0, 0);
        loop {
            let read = ConnectionsRead {
                user,
                from,
                limit: 2,
            };
            let answer = node.serve(0, ServiceAsk::Connections(read));
            let ServiceAnswer::Connections(page) = answer else {
                panic!("{answer:?}");
            };
            found.extend(page.connections.iter().map(|seen| seen.conn.index));
            pages += 1;
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!((found, pages), (vec![0, 1, 2, 3, 4], 3));
    }
}
