//! Answers to what these clients ask, in the orders in which they may come. No server: frames are handed over.

use std::net::TcpListener;

use super::*;
use crate::engine::ConnectOptions;
use crate::ids::NodeIndex;
use crate::layout::Layout;
use crate::mix::Shares;
use crate::progress::Progress;
use crate::report::Report;
use crate::scenarios::mixed::MixArgs;
use crate::world::mixing::Mix;
use crate::world::{Phase, Settings, World};

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
    (it.conn, it.phase, it.is_wanted) = (Some(id), Phase::Ready, true);
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
    let ask = Ask {
        about,
        ..Ask::new(ClientIndex(client), kind, ROOM, 0)
    };
    let state = &mut world.state;
    assert!(state.put_ask(&mut world.engine, ask, ("x", "")));
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

#[test]
fn a_hit_says_what_was_asked_for() {
    let (mut world, _listener) = world(2);
    let (first, second) = (message(&mut world, 0), message(&mut world, 1));
    let hits = [hit(&world, first, 1)];
    search(&mut world, 0, first, &hits);
    assert_eq!(kinds(&world), []);
    let hits = [hit(&world, first, 1), hit(&world, second, 2)];
    search(&mut world, 0, second, &hits);
    assert_eq!(kinds(&world), [Kind::WrongSearch]);
}

/// What comes of the request for a file's bytes.
fn fetched(world: &mut World, number: MessageNumber, result: Result<(u16, Vec<u8>), String>) {
    let under_way = UnderWay {
        client: ClientIndex(0),
        room: ROOM,
        kind: OpKind::FileUrls,
        due_us: 0,
        asked: Asked::Fetch(number, b"bytes".to_vec()),
    };
    world
        .state
        .web_answered(&mut world.engine, under_way, result);
}

#[test]
fn a_file_that_is_lost_is_found() {
    let not_found = || Ok((404, br#"{"code":"not_found"}"#.to_vec()));
    let internal = || Ok((500, br#"{"code":"internal"}"#.to_vec()));
    let overloaded = || Ok((503, br#"{"code":"overloaded"}"#.to_vec()));
    let (mut world, _listener) = world(2);
    let number = message(&mut world, 1);
    let mut expected = 0;
    for (result, is_disturbed, is_red) in [
        (not_found(), false, true),
        (not_found(), true, true),
        (internal(), false, true),
        (internal(), true, false),
        (overloaded(), false, false),
        (Err("reset".to_owned()), false, true),
        (Err("reset".to_owned()), true, false),
    ] {
        world.state.mix.as_mut().unwrap().is_disturbed = is_disturbed;
        let words = format!("{result:?} {is_disturbed}");
        fetched(&mut world, number, result);
        expected += u64::from(is_red);
        let count = world.state.checker.findings.count(Kind::WrongFile);
        assert_eq!(count, expected, "{words}");
    }
    assert_eq!(kinds(&world), [Kind::WrongFile]);
    fetched(&mut world, number, Ok((200, b"bytes".to_vec())));
    let count = |world: &World| world.state.checker.findings.count(Kind::WrongFile);
    assert_eq!(count(&world), expected);
    fetched(&mut world, number, Ok((200, b"other".to_vec())));
    assert_eq!(count(&world), expected + 1);
}

#[test]
fn what_is_done_is_counted_by_what_was_asked() {
    let (mut world, _listener) = world(2);
    let number = message(&mut world, 1);
    let sends = acked(&world, OpKind::Send);
    let state = &mut world.state;
    while !state.do_more(&mut world.engine, OpKind::WebEdit, ROOM, 0) {}
    let mix = state.mix.as_mut().unwrap();
    let (_, under_way) = mix.more.under_way.drain().next().unwrap();
    let change = json_ack(2, 2);
    state.web_answered(&mut world.engine, under_way, Ok((200, change)));
    assert_eq!(acked(&world, OpKind::WebEdit), 1);
    assert_eq!(acked(&world, OpKind::Edit), 0);
    let state = &mut world.state;
    assert!(state.do_more(&mut world.engine, OpKind::WebSend, ROOM, 0));
    let mix = state.mix.as_mut().unwrap();
    let (_, under_way) = mix.more.under_way.drain().next().unwrap();
    let Asked::Send(sent) = under_way.asked else {
        panic!("no send")
    };
    let id = state
        .ids
        .id(sent, state.checker.message(sent).unwrap().due_us);
    let reply = serde_json::json!({"client_msg_id": id, "room_id": ID, "seq": 3});
    state.web_answered(
        &mut world.engine,
        under_way,
        Ok((201, reply.to_string().into_bytes())),
    );
    assert_eq!(acked(&world, OpKind::WebSend), 1);
    assert_eq!(acked(&world, OpKind::Send), sends);
    assert!(world.state.checker.message(number).is_some());
}

fn json_ack(seq: u64, revision: u32) -> Vec<u8> {
    let reply = serde_json::json!({"room_id": ID, "message_seq": 1, "changed": true, "seq": seq,
        "revision": revision});
    reply.to_string().into_bytes()
}

#[test]
fn an_error_over_http_has_a_code() {
    let (mut world, _listener) = world(2);
    let under_way = || UnderWay {
        client: ClientIndex(0),
        room: ROOM,
        kind: OpKind::WebHistory,
        due_us: 0,
        asked: Asked::Page(ROOM),
    };
    let state = &mut world.state;
    state.web_answered(&mut world.engine, under_way(), Err("reset".to_owned()));
    assert_eq!(kinds(&world), []);
    let state = &mut world.state;
    let broken = Ok((502, b"<html>".to_vec()));
    state.web_answered(&mut world.engine, under_way(), broken);
    assert_eq!(kinds(&world), [Kind::BadFrame]);
}

#[test]
fn a_file_counts_when_its_message_is_acknowledged() {
    let (mut world, _listener) = world(2);
    let upload = Uuid::from_u128(9);
    let state = &mut world.state;
    let ticket = About::File(b"bytes".to_vec());
    let ask = Ask {
        about: ticket,
        ..Ask::new(ClientIndex(0), OpKind::File, ROOM, 0)
    };
    assert!(!state.is_open());
    assert!(state.put_ask(&mut world.engine, ask, ("upload.create", "")));
    // A message may come of it.
    assert!(state.is_open());
    let asked = state.mix.as_ref().unwrap().next_ask - 1;
    let fields = BTreeMap::<String, String>::new();
    let ticket = serde_json::json!({"upload_id": upload, "url": "/x", "fields": fields});
    answer(&mut world, 0, asked, &ticket);
    assert!(world.state.is_open());
    let mix = world.state.mix.as_mut().unwrap();
    let (_, under_way) = mix.more.under_way.drain().next().unwrap();
    let state = &mut world.state;
    state.web_answered(&mut world.engine, under_way, Ok((204, Vec::new())));
    assert_eq!(
        (acked(&world, OpKind::File), acked(&world, OpKind::Send)),
        (0, 0)
    );
    assert!(world.state.is_open());
    ack(&mut world, MessageNumber(0), 1);
    assert_eq!(
        (acked(&world, OpKind::File), acked(&world, OpKind::Send)),
        (1, 0)
    );
    assert!(!world.state.is_open());
}

#[test]
fn a_run_without_a_judged_search_is_red() {
    let (mut world, _listener) = world(2);
    let args = MixArgs {
        mix: true,
        mix_shares: None,
        mix_all: true,
    };
    let is_told = |world: &World| {
        let red = args.tell(&mut Report::default(), &world.state);
        red.iter().any(|line| line.contains("search had to find"))
    };
    assert!(is_told(&world));
    let number = message(&mut world, 1);
    // Too young, and then not.
    search(&mut world, 0, number, &[]);
    assert!(is_told(&world));
    age(&mut world, number);
    let hits = [hit(&world, number, 1)];
    search(&mut world, 0, number, &hits);
    assert!(!is_told(&world));
    let mix = world.state.mix.as_mut().unwrap();
    mix.searches_judged = 0;
    mix.shares.leave_out(&[OpKind::Search]);
    assert!(!is_told(&world));
}

/// The newest ask and its number.
fn newest(world: &World) -> (u32, Ask) {
    let mix = world.state.mix.as_ref().unwrap();
    let number = mix.next_ask - 1;
    (number, mix.asks[&number].clone())
}

#[test]
fn what_was_written_last_is_searched_for_until_it_is_found() {
    for is_found in [true, false] {
        let (mut world, _listener) = world(2);
        let number = message(&mut world, 1);
        world.state.mix.as_mut().unwrap().is_disturbed = true;
        world.state.plan_searches();
        // The index is behind: once, twice.
        for _ in 0..2 {
            assert_eq!(world.state.search_again(&mut world.engine), 1);
            let (asked, ask) = newest(&world);
            answer(
                &mut world,
                ask.client.0,
                asked,
                &serde_json::json!({"hits": []}),
            );
        }
        assert_eq!(kinds(&world), []);
        if is_found {
            assert_eq!(world.state.search_again(&mut world.engine), 1);
            let (asked, ask) = newest(&world);
            let hits = [hit(&world, number, 1)];
            answer(
                &mut world,
                ask.client.0,
                asked,
                &serde_json::json!({"hits": hits}),
            );
            assert_eq!(world.state.search_again(&mut world.engine), 0);
        }
        world.state.end_searches();
        let expected = if is_found {
            vec![]
        } else {
            vec![Kind::WrongSearch]
        };
        assert_eq!(kinds(&world), expected);
        assert_eq!(world.state.mix.as_ref().unwrap().searches_judged, 1);
    }
}

#[test]
fn every_block_is_undone_at_the_end() {
    let (mut world, _listener) = world(2);
    let blocking = block(&mut world);
    block_set(&mut world, blocking);
    // Acknowledged, but the block may be done once more by a request that was lost.
    let unblocking = block(&mut world);
    block_set(&mut world, unblocking);
    let before = acked(&world, OpKind::Block);
    world.state.mix.as_mut().unwrap().more.is_undoing = true;
    assert_eq!(world.state.undo(&mut world.engine), 1);
    let (asked, ask) = newest(&world);
    assert!(matches!(ask.about, About::Blocked(user, false)
        if user == identity::user_id(ClientIndex(1))));
    block_set(&mut world, asked);
    assert_eq!(world.state.undo(&mut world.engine), 0);
    assert_eq!(acked(&world, OpKind::Block), before);
    assert_eq!(kinds(&world), []);
}

fn acked(world: &World, kind: OpKind) -> u64 {
    let kinds = &world.state.mix.as_ref().unwrap().kinds;
    kinds.get(&kind).map_or(0, |counts| counts.acked)
}
