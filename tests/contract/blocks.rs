//! Blocks: what they forbid between two, on which side ever the block is, and what they do not.

use crate::harness::*;
use caffis_chat::chat::port::*;
use caffis_chat::limits;
use caffis_chat::protocol::view::{Member, Role};
use caffis_chat::protocol::{ErrorCode, RoomId, Seq};

/// Who blocked whom, of users 1 and 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Nobody,
    First,
    Second,
    Both,
}

const CASES: [Who; 4] = [Who::Nobody, Who::First, Who::Second, Who::Both];

impl Who {
    fn blocks(self) -> Vec<(u128, u128)> {
        match self {
            Who::Nobody => Vec::new(),
            Who::First => vec![(1, 2)],
            Who::Second => vec![(2, 1)],
            Who::Both => vec![(1, 2), (2, 1)],
        }
    }
}

fn blocked_by(backend: &Backend, n: u128) -> Vec<u128> {
    let read = BlocksRead {
        user: user(n),
        cursor: None,
        limit: 100,
    };
    let StoreAnswer::Blocks(page) = backend.call(StoreCall::Blocks(read)) else {
        panic!("not the answer to blocks");
    };
    let page = page.expect("a page");
    assert_eq!(page.next_cursor, None);
    let of = |id| (1..=300).find(|n| user(*n) == id).expect("one of ours");
    let mut found: Vec<u128> = page.users.iter().map(|it| of(it.user_id)).collect();
    for blocked in &page.users {
        assert_eq!(blocked.name, format!("u{}", of(blocked.user_id)));
    }
    found.sort_unstable();
    found
}

fn sees(backend: &Backend, n: u128, other: u128) -> bool {
    let call = StoreCall::WhoShares {
        user: user(n),
        others: vec![user(other)],
    };
    let StoreAnswer::WhoShares(found) = backend.call(call) else {
        panic!("not the answer to who shares");
    };
    !found.is_empty()
}

/// Whether the room is severed: as it is opened, and as it is compared.
fn severed(backend: &Backend, room: RoomId) -> bool {
    let opened = backend.open_room(room).expect("a room").severed;
    let heads = StoreCall::Heads {
        rooms: vec![room],
        users: Vec::new(),
    };
    let StoreAnswer::Heads { severed, .. } = backend.call(heads) else {
        panic!("not the answer to heads");
    };
    assert_eq!(severed.contains(&room), opened);
    opened
}

/// How far this member of the pair's room is, as the other is told in each way in which it is told: by `room.get`, in a
/// page of members, and when they sign in.
fn shown(backend: &Backend, room: RoomId, n: u128, other: u128) -> (Seq, Seq) {
    let of = |members: &[Member]| {
        let member = members.iter().find(|it| it.user_id == user(other));
        member.map(|it| (it.read_seq, it.delivered_seq))
    };
    let got = backend.get_room(room, n).expect("a member").room;
    let marks = of(&got.members).expect("the other one");
    let page = StoreCall::ListMembers(MembersRead {
        room,
        user: user(n),
        cursor: None,
        limit: 10,
    });
    let StoreAnswer::ListMembers(Ok(page)) = backend.call(page) else {
        panic!("not a page of members");
    };
    assert_eq!(of(&page.members), Some(marks));
    let told = backend.sign_in_as(SignIn {
        describe_max: 100,
        ..sign_in(n, None)
    });
    let it = told.rooms.iter().find(|it| it.room == room);
    let watermarks = &it
        .and_then(|it| it.described.as_ref())
        .expect("described")
        .watermarks;
    let own = watermarks
        .iter()
        .find(|it| it.user_id == user(other))
        .expect("the other one");
    assert_eq!((own.read_seq, own.delivered_seq), marks);
    marks
}

fn advance(backend: &Backend, room: RoomId, n: u128, read_seq: Seq, delivered_seq: Seq) {
    let receipt = Receipt {
        room,
        user: user(n),
        read_seq,
        delivered_seq,
    };
    let outcome = backend.receipts(vec![receipt]).remove(0);
    assert!(
        matches!(outcome, ReceiptOutcome::Advanced { .. }),
        "{outcome:?}"
    );
}

#[test]
fn under_a_block_nobody_is_shown_how_far_the_other_reads_until_it_is_gone() {
    for backend in Backend::all() {
        for (case, who) in CASES.into_iter().enumerate() {
            // A pair of its own each time, called as the table calls them.
            let [one, two] = [10, 20].map(|n| n + case as u128);
            backend.users(30);
            let room = RoomId::direct(user(one), user(two));
            backend.done(create_direct(one, two));
            let first = sent(&backend.done(send(room, one, 1, "first"))).0;
            let last = sent(&backend.done(send(room, two, 2, "second"))).0;
            let newest = sent(&backend.done(send(room, two, 3, "third"))).0;
            advance(&backend, room, one, 0, last);
            let frozen = [(first, last), (newest, newest)];
            let pair = [(one, two, frozen[1]), (two, one, frozen[0])];
            for (n, other, marks) in pair {
                assert_eq!(shown(&backend, room, n, other), marks);
            }
            let blocks = who.blocks().into_iter().map(|(by, whom)| match (by, whom) {
                (1, _) => (one, two),
                _ => (two, one),
            });
            let blocks: Vec<_> = blocks.collect();
            for (by, whom) in &blocks {
                backend.done(block(*by, *whom));
            }
            // What is read goes on, for whom it is.
            advance(&backend, room, one, newest, newest);
            assert_eq!(
                backend.get_room(room, one).expect("a member").own.read_seq,
                newest
            );
            let now = (newest, newest);
            let told = if blocks.is_empty() { now } else { frozen[0] };
            assert_eq!(shown(&backend, room, two, one), told, "{who:?}");
            assert_eq!(shown(&backend, room, one, two), now);
            for (left, (by, whom)) in blocks.iter().enumerate().rev() {
                backend.done(unblock(*by, *whom));
                let told = if left == 0 { now } else { frozen[0] };
                assert_eq!(shown(&backend, room, two, one), told, "{who:?}");
            }
        }
    }
}

/// The whole of what a refusal tells.
fn words(outcome: OpOutcome) -> Option<(ErrorCode, &'static str)> {
    outcome.err().map(|refusal| (refusal.code, refusal.message))
}

#[test]
fn what_a_block_forbids_it_forbids_both_ways_and_tells_nobody_whose_it_is() {
    for backend in Backend::all() {
        for (case, who) in CASES.into_iter().enumerate() {
            let name = |n: u128| 100 * case as u128 + n;
            backend.users(5);
            // A room of the two from before, one where they are among others, and one of each.
            let direct = RoomId::direct(user(1), user(2));
            backend.done(create_direct(1, 2));
            let old = sent(&backend.done(send(direct, 1, name(1), "before"))).0;
            let theirs = sent(&backend.done(send(direct, 2, name(2), "before"))).0;
            backend.done(react(direct, 1, theirs, "👍"));
            let group = group_id(3, name(1));
            backend.done(create_group(3, name(1), [1, 2, 4]));
            backend.done(set_role(group, 3, [1, 2], Role::Admin));
            let own = group_id(1, name(2));
            backend.done(create_group(1, name(2), [3]));

            for (by, whom) in who.blocks() {
                let (block, changed) = block_of(&backend.done(block(by, whom)));
                assert!(changed && block.blocked && block.severed);
            }
            let forbidden = who != Who::Nobody;
            let expect = |what: &str, outcome: OpOutcome, like: OpOutcome| {
                match (words(outcome), forbidden) {
                    (None, false) => (),
                    // In the words of a refusal that has nothing to do with blocks.
                    (Some(found), true) => {
                        assert_eq!(found.0, ErrorCode::Forbidden, "{what}, {who:?}");
                        assert_eq!(Some(found), words(like), "{what}, {who:?}");
                    }
                    (found, _) => panic!("{what}, {who:?}: {found:?}"),
                }
            };
            assert_eq!(severed(&backend, direct), forbidden);
            assert!(!severed(&backend, group));
            for n in [1, 2] {
                let other = 3 - n;
                let id = |of: u128| name(10 * n + of);
                let stranger = |op: Op| {
                    backend.one(Op {
                        actor: user(5),
                        ..op
                    })
                };
                let like = || stranger(send(direct, 5, id(9), "a stranger"));
                let told = |op: Op| backend.one(op);
                expect("send", told(send(direct, n, id(1), "hello")), like());
                expect("reply", told(reply_to(direct, n, id(2), old)), like());
                let named = mentioning(direct, n, id(3), "you", [other]);
                expect("mention", told(named), like());
                let mine = if n == 1 { old } else { theirs };
                let like = || backend.one(edit(direct, n, 1, "a system message"));
                expect("edit", told(edit(direct, n, mine, "news")), like());
                expect("react", told(react(direct, n, old, "❤️")), like());
                expect("pin", told(pin(direct, n, mine)), like());
                // In a group: naming, and adding.
                let like = || stranger(send(group, 5, id(9), "a stranger"));
                let named = mentioning(group, n, id(4), "you", [3, other]);
                expect("mention in a group", told(named), like());
                let text = sent(&backend.done(send(group, n, id(5), "for all"))).0;
                backend.done(mentioning(group, n, id(6), "all", [0]));
                backend.done(react(group, other, text, "👍"));
                let like = || backend.one(add(own, 3, [4]));
                let together = create_group(n, id(7), [3, other]);
                expect("a new group", told(together), like());
                assert_eq!(sees(&backend, n, other), !forbidden, "{who:?}");
                assert!(sees(&backend, n, 3));
            }
            let like = backend.one(add(own, 3, [4]));
            expect("adding", backend.one(add(own, 1, [2, 4])), like);
            // By one between whom and them there is nothing.
            backend.done(add(group_id(3, name(1)), 3, [5]));
            backend.done(create_group(3, name(9), [1, 2]));

            // What was, and what takes back, is as before.
            assert!(sent(&backend.done(send(direct, 1, name(1), "before"))).1);
            let conflict = backend.refused(send(direct, 1, name(1), "another"));
            assert_eq!(conflict, ErrorCode::IdempotencyConflict);
            let (_, is_new) = created(&backend.done(create_direct(2, 1)));
            assert!(!is_new);
            assert!(backend.get_room(direct, 2).is_ok());
            backend.history(direct, 1, HistoryPage::Newest);
            assert!(message_changed(&backend.done(unreact(direct, 1, theirs, "👍"))).0);
            let report = change(direct, 2, old, MessageChange::Report);
            assert!(message_changed(&backend.done(report)).0);
            assert!(message_changed(&backend.done(delete(direct, 1, old))).0);

            // Until the last block is gone.
            for (left, (by, whom)) in who.blocks().into_iter().enumerate().rev() {
                let refused = backend.refused(send(direct, 1, name(50), "a"));
                assert_eq!(refused, ErrorCode::Forbidden);
                let (block, changed) = block_of(&backend.done(unblock(by, whom)));
                assert!(changed && !block.blocked);
                assert_eq!(block.severed, left > 0);
            }
            backend.done(send(direct, 1, name(51), "again"));
            backend.done(send(direct, 2, name(52), "again"));
            assert!(sees(&backend, 1, 2) && !severed(&backend, direct));
            for room in [group, own] {
                backend.done(leave(room, 1));
            }
        }
    }
}

#[test]
fn a_pair_that_is_severed_gets_no_room_and_nothing_is_left_of_the_attempt() {
    for backend in Backend::all() {
        backend.users(3);
        backend.done(block(1, 2));
        let direct = RoomId::direct(user(1), user(2));
        assert!(backend.open_room(direct).is_none(), "a block makes no room");
        for (n, other) in [(1, 2), (2, 1)] {
            let refused = backend.refused(create_direct(n, other));
            assert_eq!(refused, ErrorCode::Forbidden);
        }
        assert!(backend.open_room(direct).is_none());
        assert_eq!(
            backend.refused(send(direct, 1, 1, "a")),
            ErrorCode::Forbidden
        );
        // In one batch, each after what stands before it.
        let outcomes = backend.commit(vec![
            unblock(1, 2),
            create_direct(2, 1),
            send(direct, 2, 1, "between"),
            block(2, 1),
            send(direct, 1, 2, "too late"),
            send(direct, 2, 1, "between"),
            block(2, 3),
            create_group(3, 1, [2]),
            unblock(2, 1),
            send(direct, 1, 3, "again"),
        ]);
        let codes: Vec<Option<ErrorCode>> = outcomes
            .iter()
            .map(|outcome| outcome.as_ref().err().map(|refusal| refusal.code))
            .collect();
        let (no, forbidden) = (None, Some(ErrorCode::Forbidden));
        assert_eq!(
            codes,
            [no, no, no, no, forbidden, no, no, forbidden, no, no]
        );
        let again = outcomes[5].as_ref().expect("a duplicate");
        assert_eq!(sent(again), (2, true));
        assert_eq!(backend.last_seq(direct), 3);
    }
}

#[test]
fn a_block_is_made_once_listed_and_taken_back() {
    for mut backend in Backend::all() {
        backend.users(3);
        let before = (backend.sign_in(1), backend.sign_in(2), backend.version(3));
        let (made, changed) = block_of(&backend.done(block(1, 2)));
        assert!(changed);
        assert_eq!((made.by, made.user), (user(1), user(2)));
        assert_eq!(made.version, before.0.block_version + 1);
        let after = (backend.sign_in(1), backend.sign_in(2));
        assert_eq!(after.0.version, before.0.version + 1);
        assert_eq!(after.0.block_version, before.0.block_version + 1);
        // The other one's rises too, so that every node looks whom they may see.
        assert_eq!(after.1.version, before.1.version + 1);
        assert_eq!(after.1.block_version, before.1.block_version);
        assert_eq!(backend.version(3), before.2);
        // Once more changes nothing.
        let (again, changed) = block_of(&backend.done(block(1, 2)));
        assert!(!changed);
        assert_eq!(again, made);
        assert_eq!(backend.version(1), after.0.version);
        assert_eq!(blocked_by(&backend, 1), [2]);
        assert_eq!(blocked_by(&backend, 2), [0; 0]);
        backend.done(block(1, 3));
        backend.reopen();
        assert_eq!(blocked_by(&backend, 1), [2, 3]);
        let (_, changed) = block_of(&backend.done(unblock(1, 2)));
        assert!(changed);
        assert!(!block_of(&backend.done(unblock(1, 2))).1);
        assert_eq!(blocked_by(&backend, 1), [3]);
        // Nobody unknown, not oneself, and by no other room.
        assert_eq!(backend.refused(block(1, 9)), ErrorCode::NotFound);
        assert_eq!(backend.refused(unblock(1, 9)), ErrorCode::NotFound);
        assert_eq!(backend.refused(block(1, 1)), ErrorCode::BadRequest);
        let mut astray = block(1, 2);
        astray.room = RoomId::direct(user(1), user(3));
        assert_eq!(backend.refused(astray), ErrorCode::BadRequest);
        assert_eq!(blocked_by(&backend, 1), [3]);
    }
}

#[test]
fn many_blocks_come_in_pages() {
    for backend in Backend::all() {
        backend.users(250);
        let blocks = (2..=250).map(|n| block(1, n)).collect();
        assert!(backend.commit(blocks).iter().all(Result::is_ok));
        let (mut found, mut cursor, mut pages) = (Vec::new(), None, 0);
        loop {
            let read = BlocksRead {
                user: user(1),
                cursor,
                limit: limits::BLOCKS_PAGE_MAX,
            };
            let StoreAnswer::Blocks(page) = backend.call(StoreCall::Blocks(read)) else {
                panic!("not the answer to blocks");
            };
            let page = page.expect("a page");
            pages += 1;
            found.extend(page.users.iter().map(|blocked| blocked.user_id));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        assert_eq!(pages, 3);
        assert_eq!(found, users(2..=250));
        let read = BlocksRead {
            user: user(1),
            cursor: Some("nonsense".to_owned()),
            limit: 1,
        };
        let StoreAnswer::Blocks(refused) = backend.call(StoreCall::Blocks(read)) else {
            panic!("not the answer to blocks");
        };
        assert_eq!(refused.expect_err("refused").code, ErrorCode::BadRequest);
    }
}

/// Blocks, sends, creations and retries of many callers at once: whatever the order was, after the block
/// was acknowledged nothing came through, and nobody waited for anybody in a circle.
#[test]
fn a_block_at_the_same_time_as_sends_lets_through_only_what_was_before_it() {
    for backend in Backend::all() {
        backend.users(2);
        let direct = RoomId::direct(user(1), user(2));
        backend.done(create_direct(1, 2));
        for round in 0..40u128 {
            let store = backend.store();
            let callers: Vec<_> = (0..6u128)
                .map(|caller| {
                    let store = std::sync::Arc::clone(store);
                    std::thread::spawn(move || {
                        let id = 1_000 * round + 10 * caller;
                        let ops = match caller {
                            0 => vec![block(1, 2)],
                            1 => vec![create_direct(1, 2)],
                            2 => vec![create_group(2, id, [1])],
                            from => {
                                let of = 1 + from % 2;
                                (0..4).map(|n| send(direct, of, id + n, "x")).collect()
                            }
                        };
                        let Ok(StoreAnswer::Commit(outcomes)) = ask(&store, StoreCall::Commit(ops))
                        else {
                            panic!("not answered");
                        };
                        outcomes
                    })
                })
                .collect();
            let mut sent_seqs = Vec::new();
            for (caller, outcomes) in callers.into_iter().enumerate() {
                for outcome in outcomes.join().expect("a caller") {
                    match (caller, outcome) {
                        (0, outcome) => assert!(block_of(&outcome.expect("made")).1),
                        (1, outcome) => assert!(!created(&outcome.expect("found")).1),
                        (_, Ok(done)) if caller > 2 => sent_seqs.push(sent(&done).0),
                        (_, Ok(_)) => (),
                        (_, Err(refusal)) => assert_eq!(refusal.code, ErrorCode::Forbidden),
                    }
                }
            }
            // What stands is what was acknowledged, and after it there is nothing.
            assert_eq!(
                backend.last_seq(direct),
                sent_seqs
                    .iter()
                    .copied()
                    .max()
                    .unwrap_or(backend.last_seq(direct))
            );
            for n in [1, 2] {
                let late = backend.refused(send(direct, n, 1_000 * round + 900 + n, "late"));
                assert_eq!(late, ErrorCode::Forbidden);
            }
            assert!(severed(&backend, direct));
            backend.done(unblock(1, 2));
        }
    }
}

#[test]
fn so_many_can_be_blocked_and_no_more() {
    const BATCH: usize = 250;
    let most = limits::BLOCKS_MAX as u128;
    let (last, more) = (most + 1, most + 2);
    for backend in Backend::all() {
        backend.users(more);
        // Users 2 to `last`, of whom the last waits.
        let whom: Vec<u128> = (2..last).collect();
        for some in whom.chunks(BATCH) {
            let done = backend.commit(some.iter().map(|n| block(1, *n)).collect());
            assert!(done.iter().all(Result::is_ok), "{done:?}");
        }
        assert!(block_of(&backend.done(block(1, last))).1);
        assert_eq!(backend.refused(block(1, more)), ErrorCode::TooLarge);
        // What holds already is no further one; and who takes one back has room for another.
        assert!(!block_of(&backend.done(block(1, last))).1);
        assert!(block_of(&backend.done(unblock(1, 2))).1);
        assert!(block_of(&backend.done(block(1, more))).1);
        assert_eq!(backend.refused(block(1, 2)), ErrorCode::TooLarge);
        // Of another's blocks nothing is counted here.
        assert!(block_of(&backend.done(block(2, 1))).1);
    }
}
