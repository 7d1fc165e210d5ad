//! Receipts, and what rooms are to their members alone. The random run compares, after every step, what each
//! user is told in every way with the model.

use crate::harness::*;
use crate::model::{self, Model};
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::{ErrorCode, RoomId, Seq, UnixMs};
use std::sync::Arc;

const NOW: UnixMs = UnixMs(START_MS);

fn receipt(room: RoomId, n: u128, read_seq: Seq, delivered_seq: Seq) -> Receipt {
    Receipt {
        room,
        user: user(n),
        read_seq,
        delivered_seq,
    }
}

fn read(room: RoomId, n: u128, seq: Seq) -> Receipt {
    receipt(room, n, seq, seq)
}

fn advanced(read_seq: Seq, delivered_seq: Seq, is_read: bool) -> ReceiptOutcome {
    ReceiptOutcome::Advanced {
        read_seq,
        delivered_seq,
        is_read,
    }
}

/// Read and delivered, as any member is shown them.
fn marks(backend: &Backend, room: RoomId, n: u128) -> (Seq, Seq) {
    let members = backend.get_room(room, n).expect("a member").room.members;
    let own = members.iter().find(|member| member.user_id == user(n));
    let own = own.expect("a member");
    (own.read_seq, own.delivered_seq)
}

fn own(backend: &Backend, room: RoomId, n: u128) -> Option<OwnState> {
    let call = StoreCall::OwnStates(vec![(room, user(n))]);
    let StoreAnswer::OwnStates(mut states) = backend.call(call) else {
        panic!("not the answer to own states");
    };
    states.remove(0)
}

fn set(backend: &Backend, room: RoomId, n: u128, change: OwnChange) -> Result<bool, ErrorCode> {
    let set = SetOwn {
        user: user(n),
        room,
        change,
        now: NOW,
    };
    let StoreAnswer::SetOwn(outcome) = backend.call(StoreCall::SetOwn(set)) else {
        panic!("not the answer to a change");
    };
    outcome.map_err(|refusal| refusal.code)
}

fn listed(backend: &Backend, n: u128, archived: bool, now: UnixMs) -> Vec<RoomId> {
    let (mut rooms, mut cursor) = (Vec::new(), None);
    loop {
        let read = ListRead {
            user: user(n),
            cursor,
            limit: 2,
            archived,
            now,
        };
        let StoreAnswer::ListRooms(Ok(page)) = backend.call(StoreCall::ListRooms(read)) else {
            panic!("not a list");
        };
        assert!(page.rooms.iter().all(|room| room.own.archived == archived));
        rooms.extend(page.rooms.iter().map(|room| room.room.room_id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            return rooms;
        }
    }
}

#[test]
fn watermarks_only_advance_and_never_pass_the_newest_event() {
    for mut backend in Backend::all() {
        backend.users(4);
        let (room, other) = (group_id(1, 1), group_id(2, 1));
        backend.done(create_group(1, 1, [2, 3]));
        backend.done(create_group(2, 1, [1]));
        for id in 2..=9 {
            backend.done(send(room, 1, id, "hello"));
        }
        let outcomes = backend.receipts(vec![
            receipt(room, 2, 0, 5),
            read(room, 3, 4),
            read(room, 4, 4),
            read(other, 1, 1_000),
            read(group_id(3, 9), 3, 1),
        ]);
        let stranger = ReceiptOutcome::NotAMember;
        let expected = [advanced(1, 5, false), advanced(4, 4, true), stranger];
        assert_eq!(outcomes[..3], expected);
        assert_eq!(outcomes[3..], [ReceiptOutcome::Known, stranger]);
        for (given, outcome) in [
            (receipt(room, 2, 0, 4), ReceiptOutcome::Known),
            (read(room, 2, 3), advanced(3, 5, true)),
            (read(room, 2, 1), ReceiptOutcome::Known),
            (receipt(room, 2, 7, 0), advanced(7, 7, true)),
            (read(room, 2, Seq::MAX), advanced(9, 9, true)),
            (read(room, 2, 9), ReceiptOutcome::Known),
            // What one sends one has read.
            (read(room, 1, 8), ReceiptOutcome::Known),
        ] {
            assert_eq!(backend.receipts(vec![given]), [outcome], "{given:?}");
        }
        backend.reopen();
        assert_eq!(marks(&backend, room, 2), (9, 9));
        assert_eq!(marks(&backend, room, 3), (4, 4));
        assert_eq!(
            own(&backend, room, 3).map(|own| (own.read_seq, own.unread)),
            Some((4, 5))
        );
        assert_eq!(own(&backend, room, 4), None);
        assert_eq!(backend.last_seq(room), 9, "no event");
    }
}

#[test]
fn who_left_is_passed_over_and_who_comes_back_begins_there() {
    for backend in Backend::all() {
        backend.users(2);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        backend.done(send(room, 1, 1, "hello"));
        backend.done(leave(room, 2));
        let given = vec![read(room, 2, 2)];
        assert_eq!(backend.receipts(given), [ReceiptOutcome::NotAMember]);
        backend.done(send(room, 1, 2, "are you there?"));
        backend.done(add(room, 1, [2]));
        assert_eq!(marks(&backend, room, 2), (5, 5));
        backend.done(send(room, 1, 3, "you are"));
        assert_eq!(own(&backend, room, 2).map(|own| own.unread), Some(1));
        let outcome = backend.receipts(vec![receipt(room, 2, 0, 6)]);
        assert_eq!(outcome, [advanced(5, 6, false)]);
        assert_eq!(marks(&backend, room, 2), (5, 6));
    }
}

#[test]
fn receipts_and_sends_of_many_at_once_hold_nobody_up() {
    for backend in Backend::all() {
        backend.users(8);
        let rooms: Vec<RoomId> = (1..=6).map(|name| group_id(1, name)).collect();
        for name in 1..=6 {
            backend.done(create_group(1, name, 2..=8));
        }
        let senders = (1..=4u128).map(|n| {
            let (store, rooms) = (Arc::clone(backend.store()), rooms.clone());
            std::thread::spawn(move || {
                for round in 0..40u128 {
                    // Everybody sends to all rooms in a batch, each time in another order.
                    let mut ops: Vec<Op> = rooms
                        .iter()
                        .flat_map(|room| (1..=8).map(move |who| (*room, who)))
                        .map(|(room, who)| send(room, who, n * 1_000 + round, "hello"))
                        .collect();
                    ops.rotate_left((n * 7 + round) as usize % 48);
                    let answer = ask(&store, StoreCall::Commit(ops)).expect("an answer");
                    let StoreAnswer::Commit(outcomes) = answer else {
                        panic!("not the answer to a commit");
                    };
                    assert!(outcomes.iter().all(Result::is_ok));
                }
            })
        });
        let readers = (0..4u64).map(|n| {
            let (store, rooms) = (Arc::clone(backend.store()), rooms.clone());
            std::thread::spawn(move || {
                let mut told = std::collections::BTreeMap::new();
                for round in 0..120u64 {
                    let mut given: Vec<Receipt> = rooms
                        .iter()
                        .flat_map(|room| (1..=8).map(|who| read(*room, who, round * 8 + n)))
                        .collect();
                    given.sort_unstable_by_key(|receipt| (receipt.room, receipt.user));
                    let call = StoreCall::WriteReceipts(given.clone());
                    let answer = ask(&store, call).expect("an answer");
                    let StoreAnswer::WriteReceipts(outcomes) = answer else {
                        panic!("not the answer to receipts");
                    };
                    for (given, outcome) in given.iter().zip(outcomes) {
                        if let ReceiptOutcome::Advanced { read_seq, .. } = outcome {
                            let before = told.insert((given.room, given.user), read_seq);
                            assert!(before < Some(read_seq), "back from {before:?}");
                        }
                    }
                }
            })
        });
        let all: Vec<_> = senders.chain(readers).collect();
        for one in all {
            one.join().expect("nobody waits in a circle");
        }
        for room in rooms {
            let last_seq = backend.last_seq(room);
            assert_eq!(last_seq, 1 + 4 * 40 * 8);
            let given = (1..=8).map(|who| read(room, who, last_seq)).collect();
            for outcome in backend.receipts(given) {
                let done = [ReceiptOutcome::Known, advanced(last_seq, last_seq, true)];
                assert!(done.contains(&outcome), "{outcome:?}");
            }
        }
    }
}

#[test]
fn a_room_is_muted_until_a_time_and_only_for_its_member() {
    for mut backend in Backend::all() {
        backend.users(3);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let until = Some(UnixMs(START_MS + 5_000));
        for (change, changed) in [
            (OwnChange::Mute(None), false),
            (OwnChange::Mute(until), true),
            (OwnChange::Mute(until), false),
            (OwnChange::Mute(Some(UnixMs::FOR_GOOD)), true),
            (OwnChange::Mute(None), true),
            (OwnChange::Mute(until), true),
        ] {
            assert_eq!(set(&backend, room, 2, change), Ok(changed), "{change:?}");
        }
        assert_eq!(
            set(&backend, room, 3, OwnChange::Mute(until)),
            Err(ErrorCode::Forbidden)
        );
        let nowhere = set(&backend, group_id(1, 9), 1, OwnChange::Mute(until));
        assert_eq!(nowhere, Err(ErrorCode::Forbidden));
        backend.reopen();
        let muted = |n| own(&backend, room, n).expect("a member").muted_until;
        assert_eq!((muted(1), muted(2)), (None, until));
        let shown = own(&backend, room, 2).expect("a member");
        assert_eq!(shown.view(NOW).muted_until, until);
        assert_eq!(shown.view(UnixMs(START_MS + 5_000)).muted_until, None);
        let described = backend.sign_in(2).rooms.remove(0).described;
        assert_eq!(described.expect("described").muted_until, until);
    }
}

#[test]
fn an_archived_room_comes_back_with_the_next_message_unless_it_is_muted() {
    for backend in Backend::all() {
        backend.users(3);
        let rooms: Vec<RoomId> = (1..=5).map(|name| group_id(1, name)).collect();
        for name in 1..=5 {
            backend.set_clock_ms(START_MS - name as u64);
            backend.done(create_group(1, name, [2, 3]));
        }
        backend.set_clock_ms(START_MS);
        let archive = OwnChange::Archive(true);
        for room in &rooms[1..] {
            assert_eq!(set(&backend, *room, 2, archive), Ok(true));
            assert_eq!(set(&backend, *room, 2, archive), Ok(false));
        }
        assert_eq!(listed(&backend, 2, true, NOW), rooms[1..]);
        assert_eq!(listed(&backend, 2, false, NOW), rooms[..1]);
        assert_eq!(listed(&backend, 1, true, NOW), []);
        // Neither a change of the room nor of who is in it is a message.
        backend.done(set_title(rooms[2], 1, Some("Tea")));
        backend.done(remove(rooms[2], 1, [3]));
        backend.done(send(rooms[3], 3, 1, "hello"));
        let until = UnixMs(START_MS + 5_000);
        assert_eq!(
            set(&backend, rooms[4], 2, OwnChange::Mute(Some(until))),
            Ok(true)
        );
        backend.done(send(rooms[4], 3, 2, "hello"));
        let state = |room| own(&backend, room, 2).expect("a member");
        let archived = rooms.iter().map(|room| state(*room).archived);
        let (no, yes) = (Archived::No, Archived::Yes);
        let muted = Archived::WhileMuted;
        assert!(archived.eq([no, yes, yes, muted, muted]));
        let sorted = |mut rooms: Vec<RoomId>| {
            rooms.sort_unstable();
            rooms
        };
        let of = |places: &[usize]| sorted(places.iter().map(|place| rooms[*place]).collect());
        assert_eq!(sorted(listed(&backend, 2, true, NOW)), of(&[1, 2, 4]));
        assert_eq!(sorted(listed(&backend, 2, false, NOW)), of(&[0, 3]));
        assert_eq!(sorted(listed(&backend, 2, true, until)), of(&[1, 2]));
        let signed_in = backend.sign_in(2).rooms;
        for room in &signed_in {
            let described = room.described.as_ref().expect("described");
            assert_eq!(described.archived, state(room.room).archived);
        }
        // What came back does not go again by being muted, but it can be archived anew.
        assert_eq!(
            set(&backend, rooms[3], 2, OwnChange::Mute(Some(until))),
            Ok(true)
        );
        assert_eq!(state(rooms[3]).archived, no);
        assert_eq!(set(&backend, rooms[3], 2, archive), Ok(true));
        assert_eq!(state(rooms[3]).archived, yes);
        assert_eq!(
            set(&backend, rooms[4], 2, OwnChange::Archive(false)),
            Ok(true)
        );
        assert_eq!(
            set(&backend, rooms[0], 2, OwnChange::Archive(false)),
            Ok(false)
        );
        assert_eq!(
            set(&backend, rooms[2], 3, archive),
            Err(ErrorCode::Forbidden)
        );
        // A direct room cannot be left, but archived.
        let direct = RoomId::direct(user(1), user(2));
        backend.done(create_direct(1, 2));
        assert_eq!(set(&backend, direct, 1, archive), Ok(true));
        assert_eq!(listed(&backend, 1, true, NOW), [direct]);
    }
}

#[test]
fn members_are_listed_page_by_page_the_longest_serving_first() {
    for backend in Backend::all() {
        backend.users(40);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, 2..=20));
        for n in 21..=35 {
            backend.done(add(room, 1, [n]));
        }
        backend.done(leave(room, 5));
        backend.done(add(room, 1, [5]));
        backend.receipts(vec![receipt(room, 22, 17, 18)]);
        let list = |n: u128, cursor: Option<&str>, limit| {
            let read = MembersRead {
                room,
                user: user(n),
                cursor: cursor.map(str::to_owned),
                limit,
            };
            match backend.call(StoreCall::ListMembers(read)) {
                StoreAnswer::ListMembers(page) => page.map_err(|refusal| refusal.code),
                _ => panic!("not the answer to a list of members"),
            }
        };
        let (mut found, mut cursor, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let page = list(2, cursor.as_deref(), 7).expect("a page");
            pages += 1;
            found.extend(page.members);
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!((pages, found.len()), (5, 35));
        assert_eq!(
            found,
            backend.get_room(room, 1).expect("a member").room.members
        );
        assert_eq!(found.last().map(|member| member.user_id), Some(user(5)));
        let marks = |n: u128| {
            let one = found.iter().find(|member| member.user_id == user(n));
            one.map(|member| (member.read_seq, member.delivered_seq))
        };
        assert_eq!(marks(22), Some((17, 18)));
        // As many as there are: no page follows.
        assert_eq!(list(1, None, 35).expect("a page").next_cursor, None);
        let last = format!("ffffff-{}", user(5).0.simple());
        let after = list(1, Some(&last), 7).expect("a page");
        assert_eq!((after.members, after.next_cursor), (vec![], None));
        assert_eq!(
            list(36, None, 7).expect_err("no member"),
            ErrorCode::Forbidden
        );
        for cursor in ["", "-", "x", "1-2", "\u{0}", "1-é"] {
            let refused = list(1, Some(cursor), 7).expect_err("refused");
            assert_eq!(refused, ErrorCode::BadRequest, "{cursor}");
        }
    }
}

/// Users of the random run, each with several devices: their receipts come late and more than once.
const USERS: u64 = 5;
const ROUNDS: u64 = 4;
const STEPS: usize = 60;

/// `CAFFIS_UNREAD_ROUNDS=60` is the full form.
#[test]
fn watermarks_and_unread_are_those_of_the_model_after_every_step() {
    let rounds = std::env::var("CAFFIS_UNREAD_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("a number"));
    let from = std::env::var("CONTRACT_SEED").ok();
    let from = from.map_or(0, |seed| seed.parse().expect("a number"));
    let mut unread = 0;
    for backend in [Backend::sqlite, Backend::postgres] {
        for seed in from..from + rounds {
            let _repeat = Repeat(seed);
            unread += run(seed, backend());
        }
    }
    assert!(
        unread > 100 * rounds,
        "a run in which too little was unread"
    );
}

fn run(seed: u64, mut backend: Backend) -> u64 {
    let mut random = Random(seed);
    let mut model = model::with_users(u128::from(USERS));
    backend.users(u128::from(USERS));
    let mut now = NOW;
    let rooms = [
        group_id(1, 1),
        group_id(2, 1),
        RoomId::direct(user(1), user(2)),
    ];
    let first = [
        create_group(1, 1, 2..=4),
        create_group(2, 1, [1]),
        create_direct(1, 2),
    ];
    for op in first {
        write(&backend, &mut model, now, op);
    }
    let (mut given, mut unread) = (Vec::new(), 0);
    for _ in 0..STEPS {
        now = UnixMs(now.0 + random.below(400));
        backend.set_clock_ms(now.0);
        step(&backend, &mut model, &mut random, now, &rooms, &mut given);
        if random.chance(3) {
            backend.reopen();
        }
        for n in 1..=u128::from(USERS) {
            unread += compare(&backend, &model, n, now);
        }
    }
    unread
}

fn write(backend: &Backend, model: &mut Model, now: UnixMs, op: Op) {
    let expected = model.apply(now, &op).map(|_| ());
    let found = backend.one(op.clone()).map(|_| ());
    assert_eq!(found.map_err(|refusal| refusal.code), expected, "{op:?}");
}

fn step(
    backend: &Backend,
    model: &mut Model,
    random: &mut Random,
    now: UnixMs,
    rooms: &[RoomId],
    given: &mut Vec<Receipt>,
) {
    let (room, n) = (random.pick(rooms), 1 + u128::from(random.below(USERS)));
    let last_seq = model.rooms[&room].events.len() as Seq;
    let near = last_seq.saturating_sub(random.below(6));
    match random.below(20) {
        0..6 => {
            let id = u128::from(random.below(1 << 40));
            write(backend, model, now, send(room, n, id, "hello"));
        }
        6 => write(backend, model, now, edit(room, n, near, "edited")),
        7..9 => write(backend, model, now, delete(room, n, near)),
        9 => write(backend, model, now, react(room, n, near, "👍")),
        10 => write(backend, model, now, leave(room, n)),
        11..13 => {
            let whom = 1 + u128::from(random.below(USERS));
            write(backend, model, now, add(room, n, [whom]));
        }
        13 => {
            let until = match random.below(3) {
                0 => None,
                1 => Some(UnixMs::FOR_GOOD),
                _ => Some(UnixMs(now.0 + 1 + random.below(4_000))),
            };
            choose(backend, model, room, n, now, OwnChange::Mute(until));
        }
        14 => {
            let archive = random.chance(70);
            choose(backend, model, room, n, now, OwnChange::Archive(archive));
        }
        _ => {
            let mut batch = std::collections::BTreeMap::new();
            for _ in 0..1 + random.below(4) {
                let (room, n) = (random.pick(rooms), 1 + u128::from(random.below(USERS)));
                let last_seq = model.rooms[&room].events.len() as Seq;
                let seq = (last_seq + 2).saturating_sub(random.below(8));
                let receipt = match random.below(5) {
                    0 if !given.is_empty() => random.pick(given),
                    0..3 => read(room, n, seq),
                    3 => receipt(room, n, 0, seq),
                    _ => receipt(room, n, seq.saturating_sub(2), seq),
                };
                given.push(receipt);
                batch.insert((receipt.room, receipt.user), receipt);
            }
            let batch: Vec<Receipt> = batch.into_values().collect();
            let expected: Vec<_> = batch.iter().map(|it| model.receipt(it)).collect();
            assert_eq!(backend.receipts(batch.clone()), expected, "{batch:?}");
        }
    }
}

fn choose(
    backend: &Backend,
    model: &mut Model,
    room: RoomId,
    n: u128,
    now: UnixMs,
    change: OwnChange,
) {
    let user = user(n);
    let set = SetOwn {
        user,
        room,
        change,
        now,
    };
    let StoreAnswer::SetOwn(found) = backend.call(StoreCall::SetOwn(set)) else {
        panic!("not the answer to a change");
    };
    let found = found.map_err(|refusal| refusal.code);
    assert_eq!(found, model.set_own(&set), "{set:?}");
}

/// Everything that a user is told of it, in every way; and how much is unread.
fn compare(backend: &Backend, model: &Model, n: u128, now: UnixMs) -> u64 {
    let who = user(n);
    let mut all_unread = 0;
    let signed_in = backend.sign_in(n);
    let of = |room: RoomId| model.own_view(room, who, now);
    for found in &signed_in.rooms {
        let described = found.described.as_ref().expect("described");
        let own = OwnState {
            read_seq: found.read_seq,
            unread: described.unread,
            muted_until: described.muted_until,
            archived: described.archived,
        };
        assert_eq!(Some(own.view(now)), of(found.room));
        all_unread += u64::from(own.unread);
        let marks = described.watermarks.iter();
        let marks = marks.map(|mark| (mark.user_id, mark.read_seq, mark.delivered_seq));
        let members = model
            .view(found.room, limits::ROOM_MEMBERS_SHOWN_MAX)
            .members;
        let members = members.iter();
        let members = members.map(|member| (member.user_id, member.read_seq, member.delivered_seq));
        assert!(marks.eq(members));
    }
    let expected = model.rooms_of(who);
    assert!(
        signed_in
            .rooms
            .iter()
            .map(|room| room.room)
            .eq(expected.iter().copied())
    );
    for archived in [false, true] {
        let mut expected = expected.clone();
        expected.retain(|room| of(*room).is_some_and(|own| own.archived == archived));
        assert_eq!(listed(backend, n, archived, now), expected);
    }
    for room in model.rooms.keys() {
        let found = backend.get_room(*room, n).ok();
        assert_eq!(found.as_ref().map(|found| found.own.view(now)), of(*room));
        if let Some(found) = found {
            let view = model.view(*room, limits::ROOM_MEMBERS_SHOWN_MAX);
            assert_eq!(found.room.members, view.members);
        }
        assert_eq!(own(backend, *room, n).map(|own| own.view(now)), of(*room));
    }
    all_unread
}
