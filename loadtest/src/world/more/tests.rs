//! Answers to what these clients ask, in the orders in which they may come. No server: frames are handed over.

use std::net::TcpListener;

use super::*;
use crate::engine::ConnectOptions;
use crate::ids::NodeIndex;
use crate::layout::Layout;
use crate::mix::Shares;
use crate::progress::Progress;
use crate::world::mixing::Mix;
use crate::world::{Settings, World};

const ROOM: RoomIndex = RoomIndex(0);
const ID: Uuid = Uuid::from_u128(7);

/// Two clients, or more, in one room, ready, on connections that nobody answers.
fn world(members: usize) -> (World, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = listener.local_addr().unwrap();
    let layout = Layout::grid(members, members, 1);
    let settings = Settings::new("secret", 5);
    let mut world = World::new(to, "/v1/ws", &layout, settings, Progress::quiet()).unwrap();
    let state = &mut world.state;
    state.mix = Some(Box::new(Mix::new(Shares::whole())));
    state.rooms[0].id = Some(ID);
    state.room_by_id.insert(ID, ROOM);
    for index in 0..members as u32 {
        let client = ClientIndex(index);
        world.state.checker.joined(ROOM, Slot(index), 0);
        connect(&mut world, client);
    }
    (world, listener)
}

fn connect(world: &mut World, client: ClientIndex) {
    let options = ConnectOptions::default();
    let id = world
        .engine
        .connect(u64::from(client.0), NodeIndex::default(), options)
        .unwrap();
    let it = &mut world.state.clients[client.index()];
    (it.conn, it.phase) = (Some(id), Phase::Ready);
    world.state.ready += 1;
}

fn leave(world: &mut World, client: ClientIndex) {
    world.state.left(client);
    connect(world, client);
}

/// A message that was due 20 s ago, acknowledged now and seen.
fn message(world: &mut World, slot: u32) -> MessageNumber {
    let state = &mut world.state;
    let due_us = state.clock.now_us() - 20_000_000;
    let number = state.checker.add_message(ROOM, Slot(slot), due_us, 60);
    state.checker.attempted(number, 1);
    let seq = state.checker.known_seq(ROOM) + 1;
    ack(world, number, seq);
    let shown = hit(world, number, seq);
    let message: wire::Message = serde_json::from_value(shown["message"].clone()).unwrap();
    let state = &mut world.state;
    state.checker.hit(ROOM, seq, observed(&message));
    assert!(state.checker.findings.is_clean());
    number
}

fn ack(world: &mut World, number: MessageNumber, seq: u64) {
    let state = &mut world.state;
    let sent = state.checker.message(number).unwrap();
    let client = ClientIndex(sent.slot.0);
    let ack = wire::SendAck {
        client_msg_id: state.ids.id(number, sent.due_us),
        room_id: ID,
        seq,
        duplicate: false,
    };
    state.acked(&mut world.engine, client, number, &ack);
}

fn hit(world: &World, number: MessageNumber, seq: u64) -> serde_json::Value {
    let state = &world.state;
    let sent = state.checker.message(number).unwrap();
    serde_json::json!({"room_id": ID, "message": {
        "seq": seq,
        "sender_id": identity::user_id(ClientIndex(sent.slot.0)),
        "client_msg_id": state.ids.id(number, sent.due_us),
        "kind": "text",
        "text": state.checker.text(number),
    }})
}

fn ask(world: &mut World, client: u32, about: About) -> u32 {
    let kind = match about {
        About::Found(_) => OpKind::Search,
        About::Archived(_) => OpKind::Archive,
        About::Blocked(..) => OpKind::Block,
        _ => OpKind::BlocksList,
    };
    let whose = (ClientIndex(client), kind, ROOM);
    let state = &mut world.state;
    assert!(state.put_ask(&mut world.engine, whose, 0, ("x", ""), about));
    state.mix.as_ref().unwrap().next_ask - 1
}

fn answer(world: &mut World, client: u32, number: u32, data: &serde_json::Value) {
    let frame = serde_json::json!({"type": "ack", "data": data}).to_string();
    let state = &mut world.state;
    let told = state.ask_answered(ClientIndex(client), number, frame.as_bytes());
    assert_eq!(told, Ok(()));
}

fn search(world: &mut World, client: u32, number: MessageNumber, hits: &[serde_json::Value]) {
    let asked = ask(world, client, About::Found(number));
    answer(world, client, asked, &serde_json::json!({ "hits": hits }));
}

/// The first client asks to block the second, or no longer. Returns the ask's number.
fn block(world: &mut World) -> u32 {
    let state = &mut world.state;
    while !state.block(&mut world.engine, ClientIndex(0), ROOM, 0) {}
    state.mix.as_ref().unwrap().next_ask - 1
}

fn block_set(world: &mut World, number: u32) {
    let About::Blocked(user, blocked) = world.state.mix.as_ref().unwrap().asks[&number].about
    else {
        panic!("no block")
    };
    let data = serde_json::json!({"user_id": user, "blocked": blocked});
    answer(world, 0, number, &data);
}

fn list(world: &mut World, number: u32, users: &[u32]) {
    let users = users.iter().map(|user| {
        let user_id = identity::user_id(ClientIndex(*user));
        serde_json::json!({"user_id": user_id})
    });
    let users: Vec<_> = users.collect();
    answer(world, 0, number, &serde_json::json!({ "users": users }));
}

fn kinds(world: &World) -> Vec<Kind> {
    world.state.checker.findings.kinds()
}

/// It was acknowledged long ago.
fn age(world: &mut World, number: MessageNumber) {
    let state = &mut world.state;
    let long_ago_us = state.clock.now_us() - 10_000_000;
    state.checker.acked_at(number, long_ago_us);
}

fn asked_list(world: &mut World) -> u32 {
    let state = &mut world.state;
    assert!(state.ask_more(&mut world.engine, OpKind::BlocksList, ROOM, 0));
    let mix = state.mix.as_mut().unwrap();
    let number = mix.next_ask - 1;
    mix.asks.get_mut(&number).unwrap().client = ClientIndex(0);
    number
}

#[test]
fn who_perhaps_blocks_the_author_need_not_find() {
    let (mut world, _listener) = world(2);
    let number = message(&mut world, 1);
    age(&mut world, number);
    block(&mut world);
    // Its answer is lost, it may be done.
    leave(&mut world, ClientIndex(0));
    search(&mut world, 0, number, &[]);
    assert_eq!(kinds(&world), []);
}

#[test]
fn who_blocks_somebody_else_must_find() {
    let (mut world, _listener) = world(3);
    let block = block(&mut world);
    let About::Blocked(user, _) = world.state.mix.as_ref().unwrap().asks[&block].about else {
        panic!("no block")
    };
    block_set(&mut world, block);
    let other = (1..3).find(|other| identity::user_id(ClientIndex(*other)) != user);
    let number = message(&mut world, other.unwrap());
    age(&mut world, number);
    search(&mut world, 0, number, &[]);
    assert_eq!(kinds(&world), [Kind::WrongSearch]);
}

#[test]
fn a_list_of_blocks_that_was_asked_beside_a_block_is_not_compared() {
    let (mut world, _listener) = world(2);
    // Asked before, answered after.
    let listing = asked_list(&mut world);
    let blocking = block(&mut world);
    block_set(&mut world, blocking);
    list(&mut world, listing, &[]);
    assert_eq!(kinds(&world), []);
    // Asked while it was under way.
    let unblocking = block(&mut world);
    let listing = asked_list(&mut world);
    block_set(&mut world, unblocking);
    list(&mut world, listing, &[1]);
    assert_eq!(kinds(&world), []);
    // Beside nothing.
    let listing = asked_list(&mut world);
    list(&mut world, listing, &[1]);
    assert_eq!(kinds(&world), [Kind::WrongBlocks]);
}

#[test]
fn an_older_answer_does_not_forget_that_a_room_is_archived() {
    let (mut world, _listener) = world(2);
    let archived = |world: &World| world.state.mix.as_ref().unwrap().more.archived.len();
    let mut asked = Vec::new();
    for is_archived in [true, false, true] {
        loop {
            let state = &mut world.state;
            assert!(state.ask_more(&mut world.engine, OpKind::Archive, ROOM, 0));
            let mix = state.mix.as_mut().unwrap();
            let number = mix.next_ask - 1;
            let ask = mix.asks.get_mut(&number).unwrap();
            if matches!(ask.about, About::Archived(is_so) if is_so == is_archived) {
                mix.more.archived.remove(&(ask.client, ROOM));
                ask.client = ClientIndex(0);
                if is_archived {
                    mix.more.archived.insert((ClientIndex(0), ROOM));
                }
                asked.push(number);
                break;
            }
            let ask = mix.asks.remove(&number).unwrap();
            mix.more.archived.remove(&(ask.client, ROOM));
        }
    }
    for number in asked {
        answer(&mut world, 0, number, &serde_json::json!({}));
    }
    assert_eq!(archived(&world), 1);
}

#[test]
fn nothing_is_said_before_ready() {
    let (mut world, _listener) = world(2);
    world.state.clients[0].phase = Phase::Authenticating;
    let mark = Mark {
        read: 1,
        delivered: 0,
    };
    let state = &mut world.state;
    let is_said = state.send_mark(&mut world.engine, ClientIndex(0), ROOM, Slot(0), mark);
    assert!(!is_said);
}

#[test]
fn what_was_acknowledged_a_moment_ago_need_not_be_found() {
    let (mut world, _listener) = world(2);
    let number = message(&mut world, 1);
    search(&mut world, 0, number, &[]);
    assert_eq!(kinds(&world), []);
    age(&mut world, number);
    search(&mut world, 0, number, &[]);
    assert_eq!(kinds(&world), [Kind::WrongSearch]);
}
