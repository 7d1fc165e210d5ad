//! Guests and budgets on a node of several shards: what is answered, when, once; and what a user may take in
//! all places together.

use super::port::{
    Answer, Ask, AskId, Identity, RoomsPage, SignedIn, StoreAnswer, StoreCall, StoreError,
    StoreReply, Ticket,
};
use super::{ConnId, CoreConfig, Effect, Input, Now, ShardCore, ShardIx, TICK_MS, home_of_user};
use crate::limits;
use crate::protocol::request::Command;
use crate::protocol::{Epoch, UnixMs, UserId, websocket};
use std::collections::VecDeque;
use uuid::Uuid;

const EPOCH: Epoch = Epoch(1);
const SHARDS: ShardIx = 2;
const COMMANDS: u32 = 20;

/// A node whose store knows no rooms and answers at once, unless it holds its answers.
struct Node {
    cores: Vec<ShardCore>,
    now_ms: u64,
    next_ask: AskId,
    answers: Vec<(AskId, Answer)>,
    sign_ins: usize,
    holds: bool,
    held: Vec<(ShardIx, Ticket, StoreCall)>,
    drained: usize,
}

/// A user whose home is this shard.
fn user_of(home: ShardIx, nth: usize) -> UserId {
    (1_u128..)
        .map(|n| UserId(Uuid::from_u128(n)))
        .filter(|user| home_of_user(*user, SHARDS) == home)
        .nth(nth)
        .expect("there are many")
}

fn identity(user: UserId, name: &str) -> Identity {
    Identity {
        user,
        expires_at: UnixMs(u64::MAX),
        name: Some(name.to_owned()),
        picture: None,
        issued_at: None,
        sid: None,
    }
}

fn conn(index: u32) -> ConnId {
    ConnId {
        index,
        generation: 0,
    }
}

impl Node {
    fn new() -> Node {
        let mut config = CoreConfig::new("test", SHARDS, EPOCH);
        config.commands_per_10s = COMMANDS;
        config.sends_per_10s = COMMANDS;
        Node {
            cores: (0..SHARDS)
                .map(|shard| ShardCore::new(config.clone(), shard, 1))
                .collect(),
            now_ms: 1_000,
            next_ask: 0,
            answers: Vec::new(),
            sign_ins: 0,
            holds: false,
            held: Vec::new(),
            drained: 0,
        }
    }

    fn now(&self) -> Now {
        Now {
            mono_us: self.now_ms * 1_000,
            unix: UnixMs(1_700_000_000_000 + self.now_ms),
        }
    }

    fn step(&mut self, shard: ShardIx, input: Input<'_>) {
        let (now, mut effects) = (self.now(), Vec::new());
        self.cores[usize::from(shard)].step(now, input, &mut effects);
        for effect in effects {
            match effect {
                Effect::Verify(conn, token) => {
                    let user = UserId(token.parse().expect("an id"));
                    let identity = identity(user, "Ada");
                    self.step(shard, Input::Verified(conn, Ok(identity)));
                }
                Effect::Store(ticket, call) => match self.holds {
                    true => self.held.push((shard, ticket, call)),
                    false => self.reply(shard, ticket, call),
                },
                Effect::Answer(id, answer) => self.answers.push((id, answer)),
                Effect::Served(id, answer) => panic!("{id}: {answer:?}"),
                Effect::Flush(_) | Effect::Close(..) => (),
                Effect::Drained => self.drained += 1,
                Effect::Relay(call) => panic!("{call:?}"),
                Effect::Files(_, ask) => panic!("{ask:?}"),
            }
        }
        self.move_mesh();
    }

    fn reply(&mut self, shard: ShardIx, ticket: Ticket, call: StoreCall) {
        let answer = match call {
            StoreCall::SignIn(users) => {
                self.sign_ins += users.len();
                let nothing = SignedIn {
                    block_version: 0,
                    ends: Vec::new(),
                    version: 1,
                    rooms: Vec::new(),
                };
                StoreAnswer::SignIn(vec![Some(nothing); users.len()])
            }
            StoreCall::ListRooms(_) => StoreAnswer::ListRooms(Ok(RoomsPage {
                rooms: Vec::new(),
                next_cursor: None,
            })),
            StoreCall::Heads { users, .. } => StoreAnswer::Heads {
                severed: Vec::new(),
                floors: Vec::new(),
                rooms: Vec::new(),
                users: users.into_iter().map(|user| (user, 1)).collect(),
            },
            other => panic!("{other:?}"),
        };
        self.answer_store(shard, ticket, Ok(answer));
    }

    fn answer_store(
        &mut self,
        shard: ShardIx,
        ticket: Ticket,
        result: Result<StoreAnswer, StoreError>,
    ) {
        let reply = StoreReply {
            ticket,
            epoch: EPOCH,
            result,
        };
        self.step(shard, Input::Store(reply));
    }

    /// The store answers what it held.
    fn release(&mut self) {
        self.holds = false;
        for (shard, ticket, call) in std::mem::take(&mut self.held) {
            self.reply(shard, ticket, call);
        }
    }

    fn move_mesh(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            let messages: VecDeque<_> = std::mem::take(self.cores[from].mesh_out(to as ShardIx));
            for message in messages {
                self.step(to as ShardIx, Input::Mesh(from as ShardIx, message));
            }
        }
    }

    /// Lets this much time pass, tick by tick.
    fn pass(&mut self, ms: u64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.now_ms = end_ms.min(self.now_ms + TICK_MS);
            for shard in 0..SHARDS {
                self.step(shard, Input::Tick);
            }
        }
    }

    fn ask_as(&mut self, identity: Identity, name: &str, data: &str) -> AskId {
        let id = self.next_ask;
        self.next_ask += 1;
        let home = home_of_user(identity.user, SHARDS);
        let ask = Ask {
            id,
            identity,
            command: Command::read(name, data),
        };
        self.step(home, Input::Ask(Box::new(ask)));
        id
    }

    fn ask(&mut self, user: UserId, name: &str, data: &str) -> AskId {
        self.ask_as(identity(user, "Ada"), name, data)
    }

    /// The one answer to an ask.
    fn answer(&mut self, id: AskId) -> Answer {
        let mut found = self.answers.iter().filter(|(own, _)| *own == id);
        let (first, second) = (found.next().cloned(), found.next());
        assert!(second.is_none(), "answered twice");
        first.expect("answered").1
    }

    fn list(&mut self, user: UserId) -> Answer {
        let id = self.ask(user, "rooms.list", "{}");
        self.answer(id)
    }

    fn connect(&mut self, shard: ShardIx, index: u32, user: UserId) {
        self.step(shard, Input::Opened(conn(index)));
        let auth = format!(r#"{{"id":1,"type":"auth","data":{{"token":"{user}"}}}}"#);
        self.step(shard, Input::Text(conn(index), &auth));
        assert!(self.read(shard, index).contains("ready"));
    }

    /// Gives a command on a connection; whether it was taken.
    fn command(&mut self, shard: ShardIx, index: u32) -> bool {
        let list = r#"{"id":2,"type":"rooms.list","data":{}}"#;
        self.step(shard, Input::Text(conn(index), list));
        let told = self.read(shard, index);
        assert!(
            told.contains("ack") != told.contains("rate_limited"),
            "{told}"
        );
        told.contains("ack")
    }

    fn read(&mut self, shard: ShardIx, index: u32) -> String {
        let mut bytes = Vec::new();
        let core = &mut self.cores[usize::from(shard)];
        let outbox = core.outbox(conn(index)).expect("open");
        outbox.fill(&mut bytes, usize::MAX);
        let now = self.now();
        let core = &mut self.cores[usize::from(shard)];
        core.written(now, conn(index), bytes.len(), &mut Vec::new());
        String::from_utf8_lossy(websocket::payload(&bytes)).into_owned()
    }
}

fn is(answer: &Answer, part: &str) {
    assert!(answer.reply.contains(part), "{}", answer.reply);
}

#[test]
fn an_account_is_looked_for_once_until_its_token_says_something_else() {
    let mut node = Node::new();
    let user = user_of(0, 0);
    for _ in 0..3 {
        is(&node.list(user), r#""type":"ack""#);
    }
    assert_eq!(node.sign_ins, 1);
    let id = node.ask_as(identity(user, "Ada L."), "rooms.list", "{}");
    is(&node.answer(id), "ack");
    assert_eq!(node.sign_ins, 2);
    // Who asks twice before the account is there is looked for once.
    node.holds = true;
    let other = user_of(0, 1);
    let ids: Vec<AskId> = (0..5)
        .map(|_| node.ask(other, "rooms.list", "{}"))
        .collect();
    node.release();
    for id in ids {
        is(&node.answer(id), "ack");
    }
    assert!(
        node.sign_ins <= 4,
        "two calls for the new one: {}",
        node.sign_ins
    );
}

#[test]
fn what_needs_a_connection_or_is_no_request_is_refused() {
    let mut node = Node::new();
    let user = user_of(1, 0);
    for (name, data, code) in [
        ("auth", r#"{"token":"x"}"#, "bad_request"),
        ("presence.subscribe", r#"{"user_ids":[]}"#, "bad_request"),
        ("room.get", r#"{"room_id":"x"}"#, "bad_request"),
        ("no.such", "{}", "unknown_type"),
    ] {
        let id = node.ask(user, name, data);
        is(&node.answer(id), code);
    }
    assert_eq!(node.sign_ins, 0, "nobody was looked for");
}

#[test]
fn a_guest_is_answered_in_time_and_a_late_reply_reaches_nobody_else() {
    let mut node = Node::new();
    let user = user_of(0, 0);
    is(&node.list(user), "ack");
    node.holds = true;
    let first = node.ask(user, "rooms.list", "{}");
    node.pass(limits::ASK_MS_MAX + TICK_MS);
    is(&node.answer(first), "unavailable");
    // The next one has the same place.
    let held = std::mem::take(&mut node.held);
    let second = node.ask(user, "rooms.list", "{}");
    for (shard, ticket, call) in held {
        node.reply(shard, ticket, call);
    }
    assert!(node.answers.iter().all(|(id, _)| *id != second));
    node.release();
    is(&node.answer(second), "ack");
}

#[test]
fn no_more_than_so_many_are_under_way() {
    let mut node = Node::new();
    node.holds = true;
    for n in 0..limits::ASKS_MAX {
        node.ask(user_of(0, n % 50), "rooms.list", "{}");
    }
    let one_more = node.list(user_of(0, 51));
    is(&one_more, "overloaded");
    assert_eq!(one_more.left, None);
    let elsewhere = node.ask(user_of(1, 0), "rooms.list", "{}");
    node.release();
    is(&node.answer(elsewhere), "ack");
    assert_eq!(node.answers.len(), limits::ASKS_MAX + 2);
    is(&node.list(user_of(0, 51)), "ack");
}

#[test]
fn who_asks_a_store_that_fails_is_told_so() {
    let mut node = Node::new();
    node.holds = true;
    let user = user_of(0, 0);
    let id = node.ask(user, "rooms.list", "{}");
    let (shard, ticket, _) = node.held.pop().expect("a sign-in");
    let away = StoreError::Unavailable("away".to_owned());
    node.answer_store(shard, ticket, Err(away));
    is(&node.answer(id), "unavailable");
    node.holds = false;
    is(&node.list(user), "ack");
}

#[test]
fn a_node_that_stops_answers_those_who_wait_and_takes_nobody() {
    let mut node = Node::new();
    let user = user_of(0, 0);
    is(&node.list(user), "ack");
    node.holds = true;
    let waits = node.ask(user, "rooms.list", "{}");
    node.step(0, Input::Drain { spread_ms: 0 });
    is(&node.list(user), "unavailable");
    assert_eq!(node.drained, 0, "somebody waits");
    node.release();
    is(&node.answer(waits), "ack");
    assert_eq!(node.drained, 1);
}

#[test]
fn a_replaced_history_dismisses_those_who_wait() {
    let mut node = Node::new();
    let user = user_of(0, 0);
    is(&node.list(user), "ack");
    node.holds = true;
    let waits = node.ask(user, "rooms.list", "{}");
    let epoch = super::MeshMessage::Epoch(Epoch(2));
    node.step(0, Input::Mesh(1, epoch));
    is(&node.answer(waits), "unavailable");
    assert_eq!(node.answers.len(), 2);
}

#[test]
fn http_alone_has_the_whole_budget_and_says_what_is_left() {
    let mut node = Node::new();
    let user = user_of(0, 0);
    for n in 1..=COMMANDS {
        let answer = node.list(user);
        is(&answer, "ack");
        assert_eq!(answer.left.map(|left| left.remaining), Some(COMMANDS - n));
    }
    let refused = node.list(user);
    is(&refused, "rate_limited");
    is(&refused, r#""retry_after_ms":500"#);
    let left = refused.left.expect("counted");
    assert_eq!(
        (left.limit, left.remaining, left.full_in_ms),
        (COMMANDS, 0, 10_000)
    );
    is(&node.list(user_of(0, 1)), "ack");
    node.pass(500);
    is(&node.list(user), "ack");
    is(&node.list(user), "rate_limited");
}

/// Takes a command wherever there is one, tick by tick; how many were taken.
fn take_everywhere(node: &mut Node, user: UserId, places: &[(ShardIx, u32)], ms: u64) -> u32 {
    let mut taken = 0;
    let end_ms = node.now_ms + ms;
    while node.now_ms < end_ms {
        for (shard, index) in places {
            taken += u32::from(node.command(*shard, *index));
        }
        taken += u32::from(node.list(user).reply.contains("ack"));
        node.pass(TICK_MS);
    }
    taken
}

#[test]
fn a_user_with_many_places_has_one_budget() {
    for home in 0..SHARDS {
        let mut node = Node::new();
        let user = user_of(home, 0);
        let places = [(0, 0), (0, 1), (1, 0), (1, 1)];
        for (shard, index) in places {
            node.connect(shard, index, user);
        }
        // At once, what each place has: that is what may be taken too much. Then it is owed.
        let ms = 60_000;
        let taken = take_everywhere(&mut node, user, &places, ms);
        let allowed = COMMANDS + COMMANDS * (ms / 10_000) as u32;
        assert!(
            taken <= allowed + places.len() as u32,
            "{taken} of {allowed}"
        );
        assert!(taken >= allowed / 2, "{taken} of {allowed}");
        // Another user on the same shards has their own.
        let other = user_of(home, 1);
        node.connect(0, 2, other);
        assert!((0..COMMANDS).all(|_| node.command(0, 2)));
    }
}

#[test]
fn a_new_place_begins_with_what_was_taken_elsewhere() {
    let mut node = Node::new();
    let user = user_of(1, 0);
    node.connect(0, 0, user);
    for _ in 0..COMMANDS {
        assert!(node.command(0, 0));
    }
    // A second connection: the first one tells what it took when it learns of it.
    node.connect(0, 1, user);
    node.pass(TICK_MS);
    assert!(!node.command(0, 1));
    assert!(!node.command(0, 0));
    // HTTP knows too, and so does a connection after all others have gone.
    is(&node.list(user), "rate_limited");
    for index in 0..2 {
        node.step(0, Input::Closed(conn(index)));
    }
    node.connect(1, 5, user);
    assert!(!node.command(1, 5));
    // Whoever waits has it all again, and then nothing is remembered.
    node.pass(30_000);
    assert!((0..COMMANDS).all(|_| node.command(1, 5)));
}

#[test]
fn a_connection_that_is_alone_again_is_not_asked_any_more() {
    let mut node = Node::new();
    let user = user_of(0, 0);
    node.connect(1, 0, user);
    is(&node.list(user), "ack");
    assert!(node.command(1, 0));
    node.pass(11_000);
    // Nobody else, so nothing is told: the ledger knows nothing of these.
    for _ in 0..COMMANDS / 2 {
        assert!(node.command(1, 0));
    }
    node.pass(TICK_MS);
    let first = node.list(user);
    let left = first.left.expect("counted");
    assert_eq!(left.remaining, COMMANDS - 1, "not told yet");
    // With that it is no longer alone, and tells.
    node.pass(TICK_MS);
    let second = node.list(user).left.expect("counted");
    assert!(second.remaining <= COMMANDS / 2, "{second:?}");
}
