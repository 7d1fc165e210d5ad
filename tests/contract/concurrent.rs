//! Many callers at once: every call is answered once, and a room's `seq` has no gap.

use crate::harness::*;
use caffis_chat::chat::port::{ReplySink, StoreAnswer, StoreCall, StoreError};
use caffis_chat::protocol::{RoomId, Seq};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_thousand_concurrent_commits_give_each_seq_once_and_each_caller_its_order() {
    for backend in Backend::all() {
        backend.users(4);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, [2, 3, 4]));
        let callers: Vec<_> = (1..=4u128)
            .map(|caller| {
                let store = Arc::clone(backend.store());
                std::thread::spawn(move || {
                    let (sink, replies) = sink();
                    for n in 0..250u128 {
                        let id = caller * 1_000 + n;
                        let call = StoreCall::Commit(vec![send(room, caller, id, "hello")]);
                        store.submit(n as u64, call, &sink);
                    }
                    let mut seqs = vec![0; 250];
                    for _ in 0..250 {
                        let reply = replies.recv_timeout(DEADLINE).expect("an answer");
                        let Ok(StoreAnswer::Commit(outcomes)) = reply.result else {
                            panic!("not the answer to a commit");
                        };
                        let done = outcomes[0].as_ref().expect("stands");
                        seqs[reply.ticket as usize] = sent(done).0;
                    }
                    drop(sink);
                    assert!(replies.recv_timeout(DEADLINE).is_err(), "answered twice");
                    seqs
                })
            })
            .collect();
        let mut all = BTreeSet::new();
        for caller in callers {
            let seqs: Vec<Seq> = caller.join().expect("a caller");
            assert!(seqs.is_sorted(), "in the order of the caller");
            all.extend(seqs);
        }
        assert!(all.into_iter().eq(2..=1_001));
        let events = backend.all_events(room).events;
        assert!(events.iter().map(|event| event.seq).eq(1..=1_001));
    }
}

#[test]
fn of_concurrent_creations_one_opens_the_room() {
    for backend in Backend::all() {
        backend.users(2);
        for round in 1..=10u128 {
            let room = if round == 1 {
                RoomId::direct(user(1), user(2))
            } else {
                group_id(1, round)
            };
            let callers: Vec<_> = (0..8)
                .map(|caller| {
                    let store = Arc::clone(backend.store());
                    std::thread::spawn(move || {
                        let op = match (round, caller % 2) {
                            (1, 0) => create_direct(1, 2),
                            (1, _) => create_direct(2, 1),
                            (_, _) => create_group(1, round, [2]),
                        };
                        let answer = ask(&store, StoreCall::Commit(vec![op]));
                        let Ok(StoreAnswer::Commit(outcomes)) = answer else {
                            panic!("not the answer to a commit");
                        };
                        created(outcomes[0].as_ref().expect("stands")).1
                    })
                })
                .collect();
            let opened = callers
                .into_iter()
                .map(|caller| caller.join().expect("a caller"))
                .filter(|created| *created);
            assert_eq!(opened.count(), 1);
            assert_eq!(backend.last_seq(room), 1);
        }
    }
}

#[test]
fn users_who_sign_in_while_others_write_are_all_answered() {
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        let (sink, replies) = sink();
        for n in 0..200u64 {
            let id = u128::from(n);
            let call = StoreCall::Commit(vec![send(room, 1, id, "hello")]);
            backend.store().submit(n, call, &sink);
            // Half of them new, half of them known or renamed.
            let name = format!("name {}", n % 3);
            let call = StoreCall::SignIn(vec![sign_in(1 + id % 100, Some(&name))]);
            backend.store().submit(1_000 + n, call, &sink);
        }
        drop(sink);
        let mut tickets = BTreeSet::new();
        while let Ok(reply) = replies.recv_timeout(DEADLINE) {
            match reply.result {
                Ok(StoreAnswer::Commit(_)) => assert!(reply.ticket < 1_000),
                Ok(StoreAnswer::SignIn(_)) => assert!(reply.ticket >= 1_000),
                other => panic!("{other:?}"),
            }
            assert!(tickets.insert(reply.ticket), "answered twice");
        }
        assert_eq!(tickets.len(), 400);
    }
}

/// More than any queue holds: what is refused is refused at once and left undone, the rest stands.
#[test]
fn too_many_calls_are_overloaded_and_nothing_is_lost() {
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        let (sink, replies) = sink();
        let (calls, per_call) = (400u64, 256u128);
        for ticket in 0..calls {
            let first = u128::from(ticket) * per_call;
            let ops = (first..first + per_call).map(|id| send(room, 1, id, "hello"));
            let call = StoreCall::Commit(ops.collect());
            backend.store().submit(ticket, call, &sink);
        }
        let (mut stand, mut overloaded) = (0, 0);
        for _ in 0..calls {
            let reply = replies.recv_timeout(DEADLINE).expect("an answer");
            match reply.result {
                Ok(StoreAnswer::Commit(outcomes)) => {
                    stand += outcomes.iter().filter(|outcome| outcome.is_ok()).count() as u64;
                }
                Err(StoreError::Overloaded) => overloaded += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(overloaded > 0, "the queue has a bound");
        assert_eq!(stand, (calls - overloaded) * per_call as u64);
        assert_eq!(backend.last_seq(room), 1 + stand);
        // And then it takes calls again.
        backend.done(send(room, 1, u128::MAX, "after"));
    }
}

/// Ends the store while calls wait in it: each is answered all the same.
#[test]
fn a_store_that_ends_answers_what_it_took() {
    for backend in Backend::all() {
        backend.users(1);
        let room = group_id(1, 1);
        backend.done(create_group(1, 1, []));
        let (sink, replies): (Arc<dyn ReplySink>, _) = sink();
        for n in 0..100u64 {
            let call = StoreCall::Commit(vec![send(room, 1, u128::from(n), "hello")]);
            backend.store().submit(n, call, &sink);
            let call = StoreCall::SignIn(vec![sign_in(500 + u128::from(n), Some("new"))]);
            backend.store().submit(100 + n, call, &sink);
        }
        drop(backend);
        drop(sink);
        assert_eq!(replies.iter().count(), 200);
    }
}
