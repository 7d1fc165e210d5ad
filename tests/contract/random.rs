//! Random writes and reads, compared with the model: every outcome, every event, every page.

use crate::harness::*;
use crate::model::{self, Model};
use caffis_chat::chat::port::admin::AuditEntry;
use caffis_chat::chat::port::upkeep::{DAY_MS, Upkeep, UpkeepDone};
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::view::Role;
use caffis_chat::protocol::{RoomId, UnixMs, UserId};
use std::sync::atomic::{AtomicUsize, Ordering};
use uuid::Uuid;

/// Users who exist; 7 and 8 never signed in.
const USERS: u64 = 6;
const SEEDS: u64 = 16;
const BATCHES: u64 = 60;
const RUNS_AT_ONCE: usize = 4;

#[test]
fn random_writes_and_reads_are_those_of_the_model() {
    let seeds = match std::env::var("CONTRACT_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..SEEDS,
    };
    // A run waits for a disk most of the time, so several go on at once.
    let seeds: Vec<u64> = seeds.collect();
    let dropped = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for some in seeds.chunks(seeds.len().div_ceil(RUNS_AT_ONCE)) {
            let dropped = &dropped;
            scope.spawn(move || {
                for seed in some {
                    for backend in Backend::all() {
                        let _repeat = Repeat(*seed);
                        dropped.fetch_add(run(*seed, backend), Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let dropped = dropped.into_inner();
    assert!(
        dropped >= seeds.len(),
        "runs in which too little was dropped: {dropped}"
    );
}

/// Returns in how many rooms something was dropped.
fn run(seed: u64, mut backend: Backend) -> usize {
    let mut random = Random(seed);
    let mut model = model::with_users(u128::from(USERS));
    backend.users(u128::from(USERS));
    let mut now = UnixMs(START_MS);
    for _ in 0..BATCHES {
        // The clock goes back now and then.
        now = UnixMs(now.0 + random.below(40) - random.below(2) * random.below(30));
        backend.set_clock_ms(now.0);
        let count = 1 + random.below(8);
        let ops: Vec<Op> = (0..count).map(|_| op(&mut random, &model)).collect();
        for (op, outcome) in ops.iter().zip(backend.commit(ops.clone())) {
            match (outcome, model.apply(now, op)) {
                (Ok(done), Ok((reply, events))) => {
                    assert_eq!(format!("{:?}", done.reply), format!("{reply:?}"), "{op:?}");
                    assert_eq!(done.events, events, "{op:?}");
                }
                (Err(refusal), Err(code)) => assert_eq!(refusal.code, code, "{op:?}"),
                (found, expected) => panic!("{op:?}: {found:?}, not {expected:?}"),
            }
        }
        if random.chance(4) {
            backend.reopen();
        }
        if random.chance(15) {
            // Some of what is there is older than a day then, and some is not.
            now.0 += DAY_MS / 3;
            backend.set_clock_ms(now.0);
            let room = any_room(&mut random, &model);
            let step = StoreCall::Upkeep(Upkeep::Retain { room, days: 1 });
            assert!(matches!(
                backend.call(step),
                StoreAnswer::Upkeep(UpkeepDone::Retained(true))
            ));
            model.retain(now, room, 1);
        }
        for _ in 0..6 {
            compare_pages(&backend, &model, &mut random);
        }
        let n = any_user(&mut random);
        if n <= u128::from(USERS) {
            compare_rooms(&backend, &model, n, &mut random);
        }
    }
    for (room, expected) in &model.rooms {
        let is_severed = backend.open_room(*room).expect("a room").severed;
        assert_eq!(is_severed, model.is_severed(*room));
        let all = EventsRead {
            room: *room,
            after: 0,
            to: u64::MAX,
            events_max: usize::MAX,
            bytes_max: usize::MAX,
            newest: false,
        };
        let found = backend.events(all).events;
        assert_eq!(found, model.events(&all));
        assert_eq!(found.len(), expected.events.len() - expected.floor as usize);
        let mut members = backend.open_room(*room).expect("a room").members;
        members.sort_unstable();
        assert_eq!(members, model.roles(*room));
    }
    assert!(model.rooms.len() > 3, "a run in which too little happened");
    model.rooms.values().filter(|room| room.floor > 0).count()
}

fn any_user(random: &mut Random) -> u128 {
    // Mostly those who exist.
    let bound = if random.chance(5) { USERS + 2 } else { USERS };
    1 + u128::from(random.below(bound))
}

fn known_user(random: &mut Random) -> u128 {
    1 + u128::from(random.below(USERS))
}

fn some_users(random: &mut Random) -> Vec<u128> {
    let count = random.below(4);
    (0..count).map(|_| any_user(random)).collect()
}

fn any_room(random: &mut Random, model: &Model) -> RoomId {
    let rooms: Vec<RoomId> = model.rooms.keys().copied().collect();
    if rooms.is_empty() || random.chance(3) {
        return group_id(known_user(random), 99);
    }
    random.pick(&rooms)
}

fn op(random: &mut Random, model: &Model) -> Op {
    let actor = known_user(random);
    let room = any_room(random, model);
    match random.below(100) {
        0..8 => {
            let name = u128::from(random.below(2));
            let mut others = some_users(random);
            others.retain(|n| *n != actor);
            create_group(actor, name, others)
        }
        8..12 => match any_user(random) {
            other if other == actor => leave(room, actor),
            other => create_direct(actor, other),
        },
        12..22 => add(room, actor, some_users(random)),
        22..28 => remove(room, actor, some_users(random)),
        28..31 => leave(room, actor),
        31 => {
            let title = random.pick(&[None, Some("Tea"), Some("Coffee")]);
            let picture = random.pick(&[None, Some("https://a/b"), Some("https://c/d")]);
            match random.below(3) {
                0 => set_picture(room, actor, picture),
                _ => set_title(room, actor, title),
            }
        }
        32 => {
            let role = random.pick(&[Role::Admin, Role::Admin, Role::Member, Role::Owner]);
            let mut whom = some_users(random);
            whom.push(known_user(random));
            whom.truncate(if role == Role::Owner { 1 } else { 4 });
            set_role(room, actor, whom, role)
        }
        // Few ids and few texts, so that retries and conflicts are met.
        33..40 => {
            let id = u128::from(random.below(8));
            send(room, actor, id, random.pick(&["same", "same", "other"]))
        }
        40..50 => {
            let seq = random.below(12);
            reply_to(room, actor, u128::from(random.below(1 << 40)), seq)
        }
        50..78 => {
            let last_seq = model.rooms.get(&room).map_or(0, |room| room.events.len());
            // Often the newest, of which something was changed already.
            let seq = match random.chance(50) {
                true => random.below(last_seq as u64 + 2),
                false => (last_seq as u64).saturating_sub(random.below(4)),
            };
            change(room, actor, seq, some_change(random))
        }
        78..83 => {
            let mut named = some_users(random);
            if random.chance(20) {
                named.push(0);
            }
            let id = u128::from(random.below(1 << 40));
            mentioning(room, actor, id, "named", named)
        }
        // Mostly taken back, so that not everybody is blocked in the end.
        83..88 => match any_user(random) {
            other if other == actor => leave(room, actor),
            other if random.chance(40) => block(actor, other),
            other => unblock(actor, other),
        },
        _ => {
            let text = "x".repeat(random.below(40) as usize);
            send(room, actor, u128::from(random.below(1 << 40)), &text)
        }
    }
}

fn some_change(random: &mut Random) -> MessageChange {
    let expected_revision = random.chance(30).then(|| 1 + random.below(2) as u32);
    let emoji = random.pick(&["👍", "❤️", "👨‍👩‍👧‍👦"]).to_owned();
    match random.below(17) {
        0..5 => MessageChange::Edit {
            text: random.pick(&["", "edited", "edited again"]).to_owned(),
            expected_revision,
        },
        5 => MessageChange::Delete { expected_revision },
        6..10 => MessageChange::AddReaction { emoji },
        10..12 => MessageChange::RemoveReaction { emoji },
        12..14 => MessageChange::Pin,
        14 => MessageChange::Unpin,
        15 => MessageChange::Moderate(Box::new(AuditEntry {
            id: Uuid::from_u128(random.below(u64::MAX).into()),
            who: "somebody".to_owned(),
            node: "n1".to_owned(),
            request_id: "1".to_owned(),
            act: "moderate",
            target: None,
            detail: None,
        })),
        _ => MessageChange::Report,
    }
}

fn compare_pages(backend: &Backend, model: &Model, random: &mut Random) {
    let room = any_room(random, model);
    let last_seq = model
        .rooms
        .get(&room)
        .map_or(0, |room| room.events.len() as u64);
    let seq = random.below(last_seq + 3);
    let bytes_max = random.pick(&[0, 1, 30, 100, 1 << 20]);
    let limit = 1 + random.below(12) as usize;
    let read = EventsRead {
        room,
        after: seq,
        to: seq + random.below(20),
        events_max: limit,
        bytes_max,
        newest: random.chance(50),
    };
    let page = backend.events(read);
    assert_eq!(page.events, model.events(&read), "{read:?}");
    assert_eq!(page.last_seq, last_seq);

    let read = HistoryRead {
        room,
        user: user(known_user(random)),
        page: random.pick(&[
            HistoryPage::Newest,
            HistoryPage::Before(seq),
            HistoryPage::After(seq),
            HistoryPage::Around(seq),
        ]),
        limit,
        bytes_max,
    };
    let StoreAnswer::History(found) = backend.call(StoreCall::History(read)) else {
        panic!("not the answer to a history");
    };
    match (found, model.history(&read)) {
        (Ok(found), Ok(expected)) => {
            assert_eq!(found.messages, expected.messages, "{read:?}");
            assert_eq!(
                (
                    found.has_more,
                    found.last_seq,
                    found.next_after_seq,
                    found.floor_seq
                ),
                (
                    expected.has_more,
                    expected.last_seq,
                    expected.next_after_seq,
                    expected.floor_seq
                ),
                "{read:?}"
            );
        }
        (Err(refusal), Err(code)) => assert_eq!(refusal.code, code),
        (found, expected) => panic!("{read:?}: {found:?}, not {expected:?}"),
    }
}

fn compare_rooms(backend: &Backend, model: &Model, n: u128, random: &mut Random) {
    let user: UserId = user(n);
    let expected = model.rooms_of(user);
    let signed_in = backend.sign_in(n);
    let rooms: Vec<RoomId> = signed_in.rooms.iter().map(|room| room.room).collect();
    assert_eq!(rooms, expected);
    for found in &signed_in.rooms {
        let described = found.described.as_ref().expect("described");
        assert_eq!(described.unread, model.unread(found.room, user));
        assert_eq!(Some(found.read_seq), model.read_seq(found.room, user));
        let view = model.view(found.room, limits::READY_WATERMARK_MEMBERS_MAX);
        assert_eq!((found.kind, found.last_seq), (view.kind, view.last_seq));
        let marks = described.watermarks.iter();
        let marks = marks.map(|mark| (mark.user_id, mark.read_seq, mark.delivered_seq));
        let members = view.members.iter();
        let members = members.map(|member| (member.user_id, member.read_seq, member.delivered_seq));
        assert!(marks.eq(members));
    }

    let limit = 1 + random.below(5) as usize;
    let (mut listed, mut cursor) = (Vec::new(), None);
    loop {
        let read = ListRead {
            user,
            cursor,
            limit,
            archived: false,
            now: UnixMs(START_MS),
        };
        let StoreAnswer::ListRooms(page) = backend.call(StoreCall::ListRooms(read)) else {
            panic!("not the answer to a list");
        };
        let page = page.expect("a page");
        assert!(page.rooms.len() <= limit);
        listed.extend(page.rooms);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert!(listed.iter().map(|listed| listed.room.room_id).eq(expected));
    for listed in listed {
        let room = listed.room.room_id;
        let mut expected = model.view(room, 8);
        expected.pins = None;
        assert_eq!(listed.room, expected);
        assert_eq!(
            Some(listed.own),
            model.own_view(room, user, UnixMs(START_MS))
        );
        assert_eq!(listed.last_message, model.last_message(room, user));
    }

    let room = any_room(random, model);
    match (backend.get_room(room, n), model.read_seq(room, user)) {
        (Ok(found), Some(read_seq)) => {
            assert_eq!(found.room, model.view(room, limits::ROOM_MEMBERS_SHOWN_MAX));
            assert_eq!(found.own.read_seq, read_seq);
            assert_eq!(found.own.unread, model.unread(room, user));
        }
        (Err(_), None) => (),
        (found, expected) => panic!("{found:?}, not {expected:?}"),
    }
}
