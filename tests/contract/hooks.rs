//! What other services are told: causes are written with what they are of, each message is decided once, and what is
//! sent stands there with its id and body until it is known to be delivered.

use crate::harness::*;
use crate::postgres_server::shared;
use caffis_chat::chat::port::hooks::*;
use caffis_chat::chat::port::upkeep::{Upkeep, UpkeepDone};
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::admin::ReportKey;
use caffis_chat::protocol::hooks::HookKind;
use caffis_chat::protocol::{RoomId, Seq, UnixMs};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use uuid::Uuid;

const WORKER: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);
/// Later than every commit of a test, ms.
const LATER_MS: u64 = START_MS + 1_000_000;

impl Backend {
    fn hooks(&self, call: HookCall) -> HookAnswer {
        let StoreAnswer::Hooks(answer) = self.call(StoreCall::Hooks(Box::new(call))) else {
            panic!("not the answer to hooks");
        };
        *answer
    }

    fn lease(&self, holder: Uuid, takes: bool) -> HookLease {
        match self.hooks(HookCall::Lease { holder, takes }) {
            HookAnswer::Lease(lease) => lease,
            other => panic!("{other:?}"),
        }
    }

    fn hook_done(&self, call: HookCall) -> bool {
        match self.hooks(call) {
            HookAnswer::Done(done) => done,
            other => panic!("{other:?}"),
        }
    }

    fn listed(&self, call: HookCall) -> Vec<HookKept> {
        match self.hooks(call) {
            HookAnswer::Hooks(kept) => kept,
            other => panic!("{other:?}"),
        }
    }

    fn due_at(&self, now_ms: u64) -> Vec<HookKept> {
        self.listed(HookCall::Due {
            now: UnixMs(now_ms),
            after: RoomId(Uuid::nil()),
            limit: 100,
        })
    }

    fn due(&self) -> Vec<HookKept> {
        self.due_at(LATER_MS)
    }

    fn noted(&self) -> Vec<(RoomId, Seq)> {
        let call = HookCall::Rooms {
            after: RoomId(Uuid::nil()),
            until: UnixMs(u64::MAX >> 2),
            limit: 100,
        };
        match self.hooks(call) {
            HookAnswer::Rooms(rooms) => rooms,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until a room is noted, which happens behind the commits; how far it is decided.
    fn wait_noted(&self, room: RoomId) -> Seq {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some((_, done)) = self.noted().into_iter().find(|(noted, _)| *noted == room) {
                return done;
            }
            assert!(Instant::now() < until, "the room is not noted");
            std::thread::yield_now();
        }
    }

    fn push_room(&self, room: RoomId, from: Seq, until_ms: u64) -> PushRoom {
        let until = UnixMs(until_ms);
        match self.hooks(HookCall::Room { room, from, until }) {
            HookAnswer::Room(Some(found)) => *found,
            other => panic!("{other:?}"),
        }
    }

    fn decided(&self, room: RoomId, from: Seq, to: Seq, hooks: Vec<NewHook>) -> bool {
        self.hook_done(HookCall::Decided {
            room,
            from,
            to,
            looked_at: UnixMs(START_MS),
            hooks,
        })
    }

    fn attempted(&self, id: Uuid, outcome: Attempted) {
        assert!(self.hook_done(HookCall::Attempted { id, outcome }));
    }

    fn pushed(&self) -> Vec<Pushed> {
        let call = HookCall::Pushed {
            after: None,
            limit: 100,
        };
        match self.hooks(call) {
            HookAnswer::Pushed { over, last } => {
                assert_eq!(last, None);
                over
            }
            other => panic!("{other:?}"),
        }
    }

    fn read_up_to(&self, room: RoomId, n: u128, seq: Seq) {
        self.receipts(vec![Receipt {
            room,
            user: user(n),
            read_seq: seq,
            delivered_seq: seq,
        }]);
    }

    fn unread_of(&self, room: RoomId, n: u128) -> (u32, u32) {
        let call = HookCall::Unread {
            room,
            users: vec![user(n)],
            now: UnixMs(START_MS),
        };
        match self.hooks(call) {
            HookAnswer::Unread(found) => (found[0].unread, found[0].badge),
            other => panic!("{other:?}"),
        }
    }
}

fn push(n: u128, seq: Seq, id: u128) -> NewHook {
    NewHook {
        id: Uuid::from_u128(id),
        kind: HookKind::PushRequired,
        user: user(n),
        seq,
        data: json!({"seq": seq}).to_string(),
    }
}

fn data(hook: &HookKept) -> Value {
    serde_json::from_str(&hook.data).expect("JSON")
}

fn failed(again_ms: Option<u64>) -> Attempted {
    Attempted::Failed {
        status: Some(503),
        error: "it answers 503".to_owned(),
        again_at: again_ms.map(UnixMs),
    }
}

#[test]
fn nothing_is_kept_while_nobody_wants_to_be_told() {
    for backend in Backend::all() {
        backend.users(2);
        backend.done(create_group(1, 1, [2]));
        let room = group_id(1, 1);
        backend.done(send(room, 1, 1, "hello"));
        backend.done(change(room, 2, 2, MessageChange::Report));
        // Who only looks wants nothing.
        let lease = backend.lease(Uuid::nil(), false);
        assert!(!lease.is_held && lease.oldest.is_none());
        assert!(backend.due().is_empty() && backend.noted().is_empty());
        let lease = backend.lease(WORKER, true);
        assert!(lease.is_held);
        assert_eq!(lease.since, lease.now, "what was before is not told");
        assert!(backend.due().is_empty(), "and what was caused neither");

        // For days nobody has the work: then what is caused is not kept any more, and what was kept is not told.
        backend.done(create_group(1, 2, [2]));
        assert_eq!(backend.due().len(), 1);
        backend.set_clock_ms(START_MS + HOOKS_WANTED_MS + 1);
        backend.done(create_group(1, 3, [2]));
        assert_eq!(backend.due_at(u64::MAX >> 2).len(), 1);
        let lease = backend.lease(WORKER, true);
        assert_eq!(lease.since, lease.now);
        assert!(backend.due_at(u64::MAX >> 2).is_empty());
    }
}

#[test]
fn a_cause_is_told_once_with_what_it_is_of() {
    for backend in Backend::all() {
        backend.users(3);
        backend.lease(WORKER, true);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        backend.done(create_group(1, 1, [2]));
        backend.refused(create_group(1, 2, [99]));
        let due = backend.due();
        assert_eq!(due.len(), 1, "{due:?}");
        assert_eq!((due[0].kind, due[0].room), (HookKind::RoomCreated, room));
        assert_eq!(due[0].created_at, UnixMs(START_MS));
        assert_eq!(
            data(&due[0]),
            json!({
                "room_id": room, "kind": "group", "title": "group 1", "created_by": user(1),
                "member_count": 2, "member_ids": users([1, 2]),
            })
        );
        backend.attempted(due[0].id, Attempted::Delivered { status: 200 });
        assert!(backend.due().is_empty());

        backend.done(send(room, 1, 1, "hello"));
        let report = || change(room, 2, 2, MessageChange::Report);
        backend.done(report());
        backend.done(report());
        let due = backend.due();
        assert_eq!(due.len(), 1, "{due:?}");
        let key = ReportKey {
            room,
            message_seq: 2,
            reporter: user(2),
        };
        assert_eq!(due[0].kind, HookKind::MessageReported);
        assert_eq!(
            data(&due[0]),
            json!({
                "report_id": key.to_id(), "room_id": room, "message_seq": 2, "revision": 1,
                "reporter_id": user(2), "sender_id": user(1),
            })
        );
    }
}

#[test]
fn a_message_is_followed_behind_its_commit_and_decided_once() {
    for mut backend in Backend::all() {
        backend.users(3);
        backend.lease(WORKER, true);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3]));
        backend.done(mentioning(room, 1, 1, "hello", [2]));
        backend.set_clock_ms(START_MS + 500);
        backend.done(send(room, 2, 2, "too young"));
        let from = backend.wait_noted(room);
        assert_eq!(from, 0, "nothing of a new room is decided");
        let found = backend.push_room(room, from, START_MS + 499);
        assert_eq!(found.to, 2);
        let seqs: Vec<Seq> = found.messages.iter().map(|message| message.seq).collect();
        assert_eq!(seqs, [1, 2]);
        let message = &found.messages[1];
        assert_eq!((message.sender, &*message.sender_name), (user(1), "u1"));
        assert_eq!(message.text.as_deref(), Some("hello"));
        assert!(caffis_chat::chat::push::names(message, user(2)));
        assert_eq!(found.member_count, 3);
        let members: BTreeSet<_> = found
            .members
            .iter()
            .map(|it| (it.user, it.read_seq))
            .collect();
        assert!(members.contains(&(user(3), 1)), "{members:?}");
        assert!(
            !members.iter().any(|(member, _)| *member == user(1)),
            "who has read all"
        );

        assert!(backend.decided(room, 0, 2, vec![push(2, 2, 7), push(3, 2, 8)]));
        assert!(
            !backend.decided(room, 0, 2, vec![push(2, 2, 9)]),
            "a late worker"
        );
        assert_eq!(backend.wait_noted(room), 2);
        // All is there again after a crash, or with another worker.
        backend.reopen();
        assert_eq!(backend.wait_noted(room), 2);
        let found = backend.push_room(room, 2, LATER_MS);
        assert_eq!((found.to, found.messages.len()), (3, 1));
        assert!(backend.decided(room, 2, 3, Vec::new()));
        assert!(backend.noted().is_empty());
        let waiting = backend.listed(HookCall::Kept {
            state: HookState::Waiting,
            limit: 100,
        });
        let ids: Vec<u128> = waiting.iter().map(|hook| hook.id.as_u128()).collect();
        assert_eq!(&ids[..2], [8, 7], "and before them that there is a room");
    }
}

#[test]
fn what_decides_is_told_of_each_member() {
    for backend in Backend::all() {
        backend.users(6);
        backend.lease(WORKER, true);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3, 4, 5]));
        let muted = SetOwn {
            user: user(2),
            room,
            change: OwnChange::Mute(Some(UnixMs(START_MS + 10))),
            now: UnixMs(START_MS),
        };
        backend.call(StoreCall::SetOwn(muted));
        backend.done(send(room, 1, 1, "one"));
        backend.read_up_to(room, 3, 2);
        backend.done(Op {
            actor: user(4),
            room: RoomId::direct(user(1), user(4)),
            kind: OpKind::SetBlock {
                user: user(1),
                blocked: true,
            },
        });
        backend.done(Op {
            actor: user(5),
            room,
            kind: OpKind::Leave,
        });
        let added = OpKind::AddMembers {
            users: vec![user(6)],
        };
        backend.done(Op {
            actor: user(1),
            room,
            kind: added,
        });
        backend.wait_noted(room);
        let found = backend.push_room(room, 1, LATER_MS);
        let member = |n| found.members.iter().find(|member| member.user == user(n));
        let muted = member(2).expect("a member");
        assert_eq!(muted.muted_until, Some(UnixMs(START_MS + 10)));
        assert_eq!(member(3).expect("a member").read_seq, 2);
        assert!(member(5).is_none(), "who left");
        assert!(member(6).is_none_or(|it| it.joined_seq > 2));
        assert_eq!(found.blocks, [(user(4), user(1))]);
    }
}

#[test]
fn in_a_large_room_only_those_who_are_named_are_looked_at() {
    for backend in Backend::all() {
        let count = limits::PUSH_MEMBERS_MAX as u128 + 1;
        backend.users(count);
        backend.lease(WORKER, true);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, 2..=count));
        backend.done(mentioning(room, 1, 1, "all", [0]));
        backend.done(mentioning(room, 1, 2, "one", [7]));
        backend.wait_noted(room);
        let found = backend.push_room(room, 0, LATER_MS);
        let members: Vec<_> = found.members.iter().map(|member| member.user).collect();
        assert_eq!(members, [user(7)]);
        assert_eq!(u128::from(found.member_count), count);
    }
}

#[test]
fn of_a_room_the_first_is_told_and_the_next_waits_for_it() {
    for backend in Backend::all() {
        backend.users(2);
        backend.lease(WORKER, true);
        let (one, two) = (group_id(1, 1), group_id(1, 2));
        for name in [1, 2] {
            backend.done(create_group(1, name, [2]));
        }
        for hook in backend.due() {
            backend.attempted(hook.id, Attempted::Delivered { status: 204 });
        }
        for (room, id) in [(one, 10), (two, 20)] {
            for n in 0..3 {
                backend.done(send(room, 1, id + n, "hello"));
            }
            backend.wait_noted(room);
            let hooks = (0..3).map(|n| push(2, 2 + n as Seq, id + n)).collect();
            assert!(backend.decided(room, 0, 4, hooks));
        }
        let ids = |now_ms| -> BTreeSet<u128> {
            let due = backend.due_at(now_ms);
            due.iter().map(|hook| hook.id.as_u128()).collect()
        };
        assert_eq!(ids(LATER_MS), BTreeSet::from([10, 20]));
        // One that failed holds up its room until its time comes, and no other.
        backend.attempted(Uuid::from_u128(10), failed(Some(LATER_MS + 10)));
        assert_eq!(ids(LATER_MS), BTreeSet::from([20]));
        backend.attempted(Uuid::from_u128(20), Attempted::Delivered { status: 200 });
        assert_eq!(ids(LATER_MS), BTreeSet::from([21]));
        assert_eq!(ids(LATER_MS + 10), BTreeSet::from([10, 21]));
        let due = backend.due_at(LATER_MS + 10);
        let again = due
            .iter()
            .find(|hook| hook.id.as_u128() == 10)
            .expect("due");
        assert_eq!((again.attempts, again.status), (1, Some(503)));
        assert_eq!(data(again), json!({"seq": 2}), "the same body");
        // Given up: it is shown, the next one's turn has come, and an operator may have it sent again.
        backend.attempted(again.id, failed(None));
        assert_eq!(ids(LATER_MS), BTreeSet::from([11, 21]));
        let given_up = HookCall::Kept {
            state: HookState::GivenUp,
            limit: 10,
        };
        let kept = backend.listed(given_up);
        assert_eq!(kept.len(), 1);
        assert_eq!(
            (kept[0].attempts, kept[0].error.as_deref()),
            (2, Some("it answers 503"))
        );
        assert!(backend.hook_done(HookCall::Replay(kept[0].id)));
        assert!(!backend.hook_done(HookCall::Replay(kept[0].id)), "it waits");
        assert_eq!(ids(LATER_MS), BTreeSet::from([10, 21]));
        assert!(!backend.hook_done(HookCall::Replay(Uuid::from_u128(99))));
    }
}

#[test]
fn a_push_that_is_read_is_not_made_or_is_taken_back() {
    for backend in Backend::all() {
        backend.users(3);
        backend.lease(WORKER, true);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3]));
        let created = backend.due()[0].id;
        backend.attempted(created, Attempted::Delivered { status: 200 });
        for n in 1..=3 {
            backend.done(send(room, 1, n, "hello"));
        }
        backend.wait_noted(room);
        let hooks = vec![
            push(2, 2, 12),
            push(2, 3, 13),
            push(2, 4, 14),
            push(3, 4, 24),
        ];
        assert!(backend.decided(room, 0, 4, hooks));
        let first = || backend.due().remove(0);
        let next = |outcome: Attempted| {
            let hook = first();
            backend.attempted(hook.id, outcome);
            hook
        };
        let taken = || Attempted::Delivered { status: 200 };
        assert!(next(taken()).is_wanted);
        assert!(backend.pushed().is_empty(), "it is not read");
        // Read before it was made: never made. Where that is not known, it is taken back too.
        backend.read_up_to(room, 2, 3);
        let second = first();
        assert_eq!((second.id.as_u128(), second.is_wanted), (13, false));
        let pushed = Pushed {
            room,
            user: user(2),
            seq: 2,
        };
        assert_eq!(backend.pushed(), [pushed]);
        backend.attempted(second.id, failed(Some(START_MS)));
        next(Attempted::NotWanted);
        let pushed = Pushed { seq: 3, ..pushed };
        assert_eq!(backend.pushed(), [pushed]);
        assert!(next(taken()).is_wanted);
        assert!(backend.pushed().is_empty(), "a newer one is shown");
        assert!(next(taken()).is_wanted);
        backend.done(change(
            room,
            1,
            4,
            MessageChange::Delete {
                expected_revision: None,
            },
        ));
        let over = backend.pushed();
        let pushed = Pushed { seq: 4, ..pushed };
        assert!(over.contains(&pushed), "{over:?}");
        assert_eq!(over.len(), 1, "u3 has not read the others");
        let take_back = || HookCall::TakeBack {
            pushed,
            hook: NewHook {
                kind: HookKind::PushCancelled,
                ..push(2, 4, 30)
            },
        };
        assert!(backend.hook_done(take_back()));
        assert!(!backend.hook_done(take_back()), "once");
        assert!(backend.pushed().is_empty());
        assert_eq!(first().kind, HookKind::PushCancelled);
        assert!(next(taken()).is_wanted);
        backend.done(Op {
            actor: user(3),
            room,
            kind: OpKind::Leave,
        });
        assert_eq!(backend.pushed().len(), 1, "who left is shown nothing of it");
    }
}

#[test]
fn rooms_where_nobody_is_told_are_passed_together() {
    for backend in Backend::all() {
        backend.users(2);
        backend.lease(WORKER, true);
        let rooms: Vec<RoomId> = (1..=3).map(|name| group_id(1, name)).collect();
        for (name, room) in (1..).zip(&rooms) {
            backend.done(create_group(1, name, [2]));
            backend.done(send(*room, 1, name, "hello"));
            backend.wait_noted(*room);
        }
        let passed = vec![(rooms[0], 0, 2), (rooms[1], 1, 2), (rooms[2], 0, 2)];
        let passed = HookCall::Passed {
            rooms: passed,
            looked_at: UnixMs(START_MS),
        };
        assert!(backend.hook_done(passed));
        assert_eq!(backend.noted(), [(rooms[1], 0)], "where somebody else was");
        // What was only looked at is not looked at again at once.
        let looked = HookCall::Passed {
            rooms: vec![(rooms[1], 0, 0)],
            looked_at: UnixMs(START_MS + 10),
        };
        assert!(backend.hook_done(looked));
        for (until_ms, count) in [(START_MS + 9, 0), (START_MS + 10, 1)] {
            let call = HookCall::Rooms {
                after: RoomId(Uuid::nil()),
                until: UnixMs(until_ms),
                limit: 10,
            };
            let HookAnswer::Rooms(found) = backend.hooks(call) else {
                panic!("not the answer");
            };
            assert_eq!(found.len(), count);
        }
    }
}

#[test]
fn nothing_of_an_erased_user_is_kept_but_what_is_still_to_be_told() {
    for backend in Backend::all() {
        backend.users(2);
        backend.lease(WORKER, true);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2]));
        let data =
            |n| json!({"user_id": user(2), "sender_id": user(n), "preview": "x"}).to_string();
        backend.done(send(room, 1, 1, "hello"));
        backend.wait_noted(room);
        let hooks = [(2, 7), (1, 8)].map(|(sender, id)| NewHook {
            data: data(sender),
            ..push(2, 2, id)
        });
        assert!(backend.decided(room, 0, 2, hooks.to_vec()));
        backend.call(StoreCall::Upkeep(Upkeep::EraseBegin(user(1))));
        backend.done(Op {
            actor: user(1),
            room,
            kind: OpKind::Erase {
                requested_at: UnixMs(START_MS),
            },
        });
        let ended = backend.call(StoreCall::Upkeep(Upkeep::EraseEnd(user(1))));
        assert!(
            matches!(ended, StoreAnswer::Upkeep(UpkeepDone::EraseEnd(true))),
            "{ended:?}"
        );
        let waiting = backend.listed(HookCall::Kept {
            state: HookState::Waiting,
            limit: 10,
        });
        let ids: Vec<u128> = waiting.iter().map(|hook| hook.id.as_u128()).collect();
        assert!(ids.contains(&7) && !ids.contains(&8), "{ids:?}");
        assert_eq!(ids.len(), 2, "and that there is a room");
    }
}

#[test]
fn what_is_unread_is_counted_in_the_room_and_over_all() {
    for backend in Backend::all() {
        backend.users(2);
        let (one, two, muted) = (group_id(1, 1), group_id(1, 2), group_id(1, 3));
        for name in [1, 2, 3] {
            backend.done(create_group(1, name, [2]));
        }
        let set = SetOwn {
            user: user(2),
            room: muted,
            change: OwnChange::Mute(Some(UnixMs::FOR_GOOD)),
            now: UnixMs(START_MS),
        };
        backend.call(StoreCall::SetOwn(set));
        for (n, room) in [one, one, two, muted].into_iter().enumerate() {
            backend.done(send(room, 1, n as u128, "hello"));
        }
        assert_eq!(backend.unread_of(one, 2), (2, 3));
        assert_eq!(backend.unread_of(muted, 2), (1, 3));
        assert_eq!(backend.unread_of(one, 1), (0, 0), "one's own");
        backend.read_up_to(one, 2, 3);
        assert_eq!(backend.unread_of(one, 2), (0, 1));
        for n in 0..u128::from(limits::UNREAD_MAX) + 5 {
            backend.done(send(two, 1, 100 + n, "hello"));
        }
        assert_eq!(
            backend.unread_of(two, 2),
            (limits::UNREAD_MAX, limits::UNREAD_MAX)
        );
    }
}

#[test]
fn the_work_is_one_workers_until_it_is_late() {
    let backend = Backend::postgres();
    assert!(backend.lease(WORKER, true).is_held);
    assert!(!backend.lease(OTHER, true).is_held);
    backend.set_clock_ms(START_MS + HOOK_LEASE_MS);
    assert!(backend.lease(WORKER, true).is_held, "kept");
    backend.set_clock_ms(START_MS + 2 * HOOK_LEASE_MS);
    assert!(!backend.lease(OTHER, true).is_held);
    backend.set_clock_ms(START_MS + 2 * HOOK_LEASE_MS + 1);
    let lease = backend.lease(OTHER, true);
    assert!(lease.is_held && lease.is_taken_over, "the first has died");
    assert!(!backend.lease(OTHER, true).is_taken_over);
    assert!(!backend.lease(WORKER, true).is_held);
    // Given back.
    assert!(!backend.lease(OTHER, false).is_held);
    let lease = backend.lease(WORKER, true);
    assert!(lease.is_held && !lease.is_taken_over);
}

#[test]
fn a_receiver_that_is_gone_is_told_nothing_until_it_is_enabled() {
    for mut backend in Backend::all() {
        backend.lease(WORKER, true);
        assert!(backend.hook_done(HookCall::Disable(true)));
        assert!(!backend.hook_done(HookCall::Disable(true)));
        backend.set_clock_ms(START_MS + 5);
        backend.reopen();
        assert_eq!(
            backend.lease(WORKER, true).disabled_at,
            Some(UnixMs(START_MS))
        );
        assert!(backend.hook_done(HookCall::Disable(false)));
        assert!(!backend.hook_done(HookCall::Disable(false)));
        let lease = backend.lease(WORKER, true);
        assert_eq!(
            (lease.disabled_at, lease.since),
            (None, UnixMs(START_MS + 5))
        );
    }
}

#[test]
fn a_send_writes_nothing_for_those_who_are_told() {
    let backend = Backend::postgres_alone();
    backend.users(2);
    backend.lease(WORKER, true);
    backend.done(create_group(1, 1, [2]));
    let room = group_id(1, 1);
    let before = backend.due().len();
    for n in 0..50 {
        backend.done(send(room, 1, n, "hello"));
    }
    backend.wait_noted(room);
    let own = shared().sql(
        backend.database(),
        "SELECT count(*) FROM messages m
         WHERE EXISTS (SELECT FROM hook_rooms h WHERE h.xmin = m.xmin)
             OR EXISTS (SELECT FROM hook_outbox o WHERE o.xmin = m.xmin AND m.kind <> 'system')",
    );
    assert_eq!(own, "0", "by the transaction of a send");
    let told = shared().sql(
        backend.database(),
        "SELECT count(*) FROM pg_proc WHERE proname IN ('chat_send', 'chat_mention', 'chat_commit')
             AND prosrc LIKE '%hook%'",
    );
    assert_eq!(told, "0");
    assert_eq!(backend.due().len(), before);
}
