//! What the store on PostgreSQL promises beyond the contract: many nodes on one database, a server that
//! fails and comes back, whom it refuses, whom it trusts.

use crate::harness::*;
use crate::postgres_server::{Held, PostgresServer, shared};
use caffis_chat::chat::port::{
    Op, OpReply, Receipt, ReceiptOutcome, Store, StoreAnswer, StoreCall, StoreError, TypingSample,
};
use caffis_chat::protocol::{ErrorCode, RoomId, Seq, UnixMs, UserId};
use caffis_chat::store::postgres::{OpenError, PostgresOptions, PostgresStore, migrate};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(60);

/// One more node on this database.
fn node(url: &str) -> Arc<dyn Store> {
    let clock = Arc::new(AtomicU64::new(START_MS));
    Arc::new(PostgresStore::open(patient(url, clock)).expect("the store opens"))
}

/// A backend and a second node on its database.
fn two_nodes() -> (Backend, Arc<dyn Store>) {
    let backend = Backend::postgres_alone();
    let second = node(&shared().url(backend.database()));
    (backend, second)
}

/// A transaction of somebody else, which runs this and stays open.
fn hold(database: &str, sql: &str) -> Held {
    shared().hold(database, sql)
}

fn commit(store: &Arc<dyn Store>, ops: Vec<Op>) -> Vec<caffis_chat::chat::port::OpOutcome> {
    match ask(store, StoreCall::Commit(ops)) {
        Ok(StoreAnswer::Commit(outcomes)) => outcomes,
        other => panic!("{other:?}"),
    }
}

/// What the server counts of this database, up to date.
fn deadlocks(database: &str) -> String {
    let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    shared().sql(database, sql)
}

/// Waits until this many statements wait for a lock.
fn wait_for_waiters(database: &str, count: usize) {
    let begun = Instant::now();
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while shared().sql(database, sql) != count.to_string() {
        assert!(begun.elapsed() < DEADLINE, "nobody waits");
    }
}

#[test]
fn one_id_sent_at_once_through_two_nodes_is_one_message() {
    let (backend, second) = two_nodes();
    backend.users(2);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, [2]));
    let rounds = std::env::var("CAFFIS_SAME_ID_ROUNDS").unwrap_or_else(|_| "256".to_owned());
    let rounds: u128 = rounds.parse().expect("a number of rounds");
    // Both send the same now, and something of their own for so long then that no store expects
    // retries any more.
    let is_shared = |round: u128| round % 64 < 24;
    let barrier = Arc::new(Barrier::new(2));
    let senders: Vec<_> = [(1, Arc::clone(backend.store())), (2, second)]
        .into_iter()
        .map(|(node, store)| {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || {
                let mut seqs = Vec::new();
                for round in 0..rounds {
                    barrier.wait();
                    let own = if is_shared(round) { 0 } else { node };
                    let id = |n: u128| (own << 64) + round * 4 + n;
                    let others = (1..4).map(|n| send(room, 2, id(n), "both"));
                    let ops = std::iter::once(send(room, 1, id(0), "hello")).chain(others);
                    for outcome in commit(&store, ops.collect()) {
                        seqs.push(sent(&outcome.expect("no batch failed")));
                    }
                }
                seqs
            })
        })
        .collect();
    let told: Vec<Vec<(Seq, bool)>> = senders
        .into_iter()
        .map(|sender| sender.join().expect("a sender"))
        .collect();
    let mut messages = 0;
    for (place, (a, b)) in told[0].iter().zip(&told[1]).enumerate() {
        if is_shared(place as u128 / 4) {
            assert_eq!(a.0, b.0, "one message has one seq");
            assert!(a.1 != b.1, "one of them was first");
            messages += 1;
        } else {
            assert!(!a.1 && !b.1 && a.0 != b.0, "two messages");
            messages += 2;
        }
    }
    let events = backend.all_events(room).events;
    assert!(
        events
            .iter()
            .map(|event| event.seq)
            .eq(1..=1 + messages as u64)
    );
    assert_eq!(deadlocks(backend.database()), "0");
}

#[test]
fn a_retry_waits_for_the_first_try_that_is_not_committed_yet() {
    let (backend, second) = two_nodes();
    backend.users(1);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, []));
    // The first try has the room's lock and is held before its end.
    let held = hold(
        backend.database(),
        &format!("SELECT FROM chat_rooms WHERE room_id = '{room}' FOR NO KEY UPDATE"),
    );
    let tries: Vec<_> = [Arc::clone(backend.store()), second]
        .into_iter()
        .map(|store| {
            std::thread::spawn(move || {
                let outcomes = commit(&store, vec![send(room, 1, 9, "hello")]);
                sent(outcomes[0].as_ref().expect("stands"))
            })
        })
        .collect();
    wait_for_waiters(backend.database(), 2);
    held.end("COMMIT");
    let mut told: Vec<_> = tries
        .into_iter()
        .map(|one| one.join().expect("a try"))
        .collect();
    told.sort_unstable();
    assert_eq!(told, [(2, false), (2, true)]);
    assert_eq!(backend.last_seq(room), 2);
}

#[test]
fn a_member_removed_while_his_send_waits_sends_nothing() {
    let (backend, second) = two_nodes();
    backend.users(2);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, [2]));
    let held = hold(
        backend.database(),
        &format!("SELECT FROM chat_rooms WHERE room_id = '{room}' FOR NO KEY UPDATE"),
    );
    let removal = {
        let store = Arc::clone(backend.store());
        std::thread::spawn(move || commit(&store, vec![remove(room, 1, [2])]))
    };
    wait_for_waiters(backend.database(), 1);
    let sending = std::thread::spawn(move || commit(&second, vec![send(room, 2, 9, "too late")]));
    wait_for_waiters(backend.database(), 2);
    held.end("ROLLBACK");
    let removed = removal.join().expect("a removal").remove(0);
    assert_eq!(changed(&removed.expect("stands")), Some(2));
    let refusal = sending.join().expect("a send").remove(0);
    assert_eq!(refusal.expect_err("refused").code, ErrorCode::Forbidden);
    assert_eq!(backend.last_seq(room), 2);
}

#[test]
fn a_batch_that_tries_waits_for_no_room_that_others_hold() {
    let (backend, _) = two_nodes();
    backend.users(2);
    let (hot, cold) = (group_id(1, 1), group_id(1, 2));
    backend.done(create_group(1, 1, [2]));
    backend.done(create_group(1, 2, [2]));
    let held = hold(
        backend.database(),
        &format!("SELECT FROM chat_rooms WHERE room_id = '{hot}' FOR NO KEY UPDATE"),
    );
    let StoreAnswer::Commit(outcomes) = backend.call(StoreCall::TryCommit(vec![
        send(cold, 1, 1, "one"),
        send(hot, 1, 2, "two"),
        send(cold, 9, 3, "of a stranger"),
        send(hot, 2, 4, "four"),
        send(cold, 2, 5, "five"),
        send(group_id(1, 3), 1, 6, "nowhere"),
    ])) else {
        panic!("a commit is answered with outcomes");
    };
    let told: Vec<_> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(done) if matches!(done.reply, OpReply::Held) => "held".to_owned(),
            Ok(_) => format!("{:?}", sent(outcome.as_ref().expect("stands"))),
            Err(refusal) => refusal.code.name().to_owned(),
        })
        .collect();
    let expected = [
        "(2, false)",
        "held",
        "forbidden",
        "held",
        "(3, false)",
        "forbidden",
    ];
    assert_eq!(told, expected);
    held.end("COMMIT");
    assert_eq!(backend.last_seq(hot), 1, "nothing of what is held was done");
    backend.done(send(hot, 1, 2, "two"));
    assert_eq!(backend.last_seq(hot), 2);
}

#[test]
fn receipts_wait_for_nobody_neither_a_rooms_lock_nor_a_send_of_the_member() {
    let (backend, _) = two_nodes();
    backend.users(3);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, [2, 3]));
    backend.done(send(room, 1, 1, "hello"));
    let sql = format!(
        "SELECT FROM chat_rooms WHERE room_id = '{room}' FOR NO KEY UPDATE;
         UPDATE message_read_status SET read_seq = 2 WHERE room_id = '{room}' AND user_id = '{}'",
        user(2)
    );
    let held = hold(backend.database(), &sql);
    let given: Vec<Receipt> = [2, 3]
        .map(|n| Receipt {
            room,
            user: user(n),
            read_seq: 2,
            delivered_seq: 2,
        })
        .to_vec();
    let advanced = |is_read| ReceiptOutcome::Advanced {
        read_seq: 2,
        delivered_seq: 2,
        is_read,
    };
    let outcomes = backend.receipts(given.clone());
    assert_eq!(outcomes, [ReceiptOutcome::Busy, advanced(true)]);
    held.end("COMMIT");
    // Only what was delivered is new by now.
    let outcomes = backend.receipts(given);
    assert_eq!(outcomes, [advanced(false), ReceiptOutcome::Known]);
    assert_eq!(deadlocks(backend.database()), "0");
}

#[test]
fn two_nodes_in_one_hot_room_make_one_order_without_a_gap_or_a_deadlock() {
    let (backend, second) = two_nodes();
    backend.users(6);
    let rooms: Vec<RoomId> = (1..=5).map(|name| group_id(1, name)).collect();
    for name in 1..=5 {
        backend.done(create_group(1, name, [2, 3]));
    }
    let nodes: Vec<_> = [Arc::clone(backend.store()), second]
        .into_iter()
        .zip([1u128, 2])
        .map(|(store, node)| {
            let rooms = rooms.clone();
            std::thread::spawn(move || {
                let mut random = Random(node as u64);
                for round in 0..120u128 {
                    let mut ops = Vec::new();
                    for n in 0..6u128 {
                        // Half of them into the hot room, in orders unlike the other node's.
                        let room = rooms[random.below(10).saturating_sub(5) as usize];
                        let id = node * 1_000_000 + round * 100 + n;
                        ops.push(send(room, node, id, "hello"));
                    }
                    // Members come and go, and both nodes open the same rooms.
                    let room = rooms[random.below(5) as usize];
                    ops.push(add(room, 1, [4, 5, 6]));
                    ops.push(remove(room, 1, [6, 4]));
                    let name = 100 + random.below(20) as u128;
                    ops.push(create_group(1, name, [5, 6]));
                    ops.push(send(group_id(1, name), 1, round * 10 + node, "new"));
                    for outcome in commit(&store, ops) {
                        // An add of those who came meanwhile changes nothing; nothing fails.
                        outcome.expect("stands");
                    }
                }
            })
        })
        .collect();
    for node in nodes {
        node.join().expect("a node");
    }
    for room in rooms
        .into_iter()
        .chain((100..120).map(|name| group_id(1, name)))
    {
        let page = backend.all_events(room);
        assert!(
            page.events
                .iter()
                .map(|event| event.seq)
                .eq(1..=page.last_seq)
        );
        assert!(page.events.is_sorted_by_key(|event| event.ts));
    }
    assert_eq!(deadlocks(backend.database()), "0");
}

#[test]
fn a_write_that_fails_alone_takes_no_other_with_it() {
    let backend = Backend::postgres_alone();
    backend.users(1);
    let room = group_id(1, 1);
    backend.done(create_group(1, 1, []));
    shared().sql(
        backend.database(),
        "ALTER TABLE messages ADD CONSTRAINT poison CHECK (text IS DISTINCT FROM 'poison')",
    );
    let ops: Vec<Op> = (0..100)
        .map(|id| {
            let text = if id % 37 == 5 { "poison" } else { "hello" };
            send(room, 1, id, text)
        })
        .collect();
    let mut next = 2;
    for (id, outcome) in backend.commit(ops).into_iter().enumerate() {
        if id % 37 == 5 {
            let refusal = outcome.expect_err("refused");
            assert_eq!(refusal.code, ErrorCode::Internal);
        } else {
            assert_eq!(sent(&outcome.expect("stands")), (next, false));
            next += 1;
        }
    }
    assert_eq!(backend.last_seq(room), next - 1);
}

/// Crashes the server under load, again and again: what was acknowledged is there, each with its seq,
/// and nobody has to start anything again but the server.
#[test]
fn a_server_that_crashes_and_returns_is_used_again_and_nothing_is_lost() {
    let server = PostgresServer::start("");
    let database = server.database();
    let store: Arc<dyn Store> = {
        let options = PostgresOptions::new(server.url(&database));
        Arc::new(PostgresStore::open(options).expect("the store opens"))
    };
    let room = group_id(1, 1);
    ask(&store, StoreCall::SignIn(vec![sign_in(1, Some("Ada"))])).expect("signed in");
    ask(&store, StoreCall::Commit(vec![create_group(1, 1, [])])).expect("created");
    let epoch = store.epoch();
    let mut acknowledged = Vec::new();
    let mut id = 0;
    for _ in 0..3 {
        for _ in 0..50 {
            id += 1;
            let outcome = commit(&store, vec![send(room, 1, id, "hello")]).remove(0);
            acknowledged.push((id, sent(&outcome.expect("stands")).0));
        }
        server.crash();
        // Away: answered in time, and plainly.
        let begun = Instant::now();
        let away = ask(
            &store,
            StoreCall::Commit(vec![send(room, 1, id + 1, "away")]),
        );
        assert!(matches!(away, Err(StoreError::Unavailable(_))), "{away:?}");
        assert!(begun.elapsed() < 3 * Duration::from_secs(4));
        server.resume();
        let begun = Instant::now();
        loop {
            let back = ask(
                &store,
                StoreCall::Commit(vec![send(room, 1, id + 1, "away")]),
            );
            if let Ok(StoreAnswer::Commit(outcomes)) = back {
                let (seq, _) = sent(outcomes[0].as_ref().expect("stands"));
                id += 1;
                acknowledged.push((id, seq));
                break;
            }
            assert!(begun.elapsed() < 3 * Duration::from_secs(5), "not back");
        }
    }
    for (id, seq) in &acknowledged {
        let text = if id % 51 == 0 { "away" } else { "hello" };
        let outcome = commit(&store, vec![send(room, 1, *id, text)]).remove(0);
        assert_eq!(sent(&outcome.expect("stands")), (*seq, true));
    }
    assert_eq!(store.epoch(), epoch, "a crash is no other history");
}

#[test]
fn a_server_that_may_forget_is_relaxed_and_refused_where_it_must_not() {
    for setting in ["fsync", "full_page_writes", "synchronous_commit"] {
        let server = PostgresServer::start(&format!("-c {setting}=off"));
        let url = server.url(&server.database());
        let store = PostgresStore::open(PostgresOptions::new(&url)).expect("the store opens");
        assert_eq!(store.durability(), "relaxed");
        drop(store);
        let refused = PostgresStore::open(PostgresOptions {
            must_be_durable: true,
            ..PostgresOptions::new(&url)
        });
        let refused = refused.expect_err("refused").to_string();
        assert!(refused.contains(&format!("{setting}=off")), "{refused}");
    }
}

/// A restored backup has an epoch of its own when the tool that restores it says so; a node that asks
/// for `last_seq` notices, and so does one whose connections are new.
#[test]
fn an_epoch_that_was_changed_in_the_database_is_noticed() {
    let (backend, second) = two_nodes();
    let first = backend.store().epoch();
    assert_eq!(second.epoch(), first, "one history, one epoch");
    shared().sql(backend.database(), "UPDATE meta SET epoch = epoch + 1");
    assert_eq!(backend.last_seq(group_id(1, 1)), 0);
    let changed = backend.store().epoch();
    assert_ne!(changed, first);
    // The other node asks nothing, but has to connect again.
    let database = backend.database();
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                     WHERE datname = current_database() AND pid <> pg_backend_pid()";
    shared().sql(database, terminate);
    let begun = Instant::now();
    while second.epoch() != changed {
        assert!(begun.elapsed() < DEADLINE, "not noticed");
        std::thread::yield_now();
    }
    // Asked for by a node that saw it first. Some of its connections may still notice their end.
    while ask(&second, StoreCall::RenewEpoch(changed)).is_err() {
        assert!(begun.elapsed() < DEADLINE, "not renewed");
    }
    let renewed = second.epoch();
    assert_ne!(renewed, changed);
    let heads = || StoreCall::Heads {
        rooms: Vec::new(),
        users: Vec::new(),
    };
    while backend.try_call(heads()).is_err() {
        assert!(begun.elapsed() < DEADLINE, "not noticed by the first");
    }
    assert_eq!(backend.store().epoch(), renewed);
}

/// What a connection reads while it is made may be of the history before.
#[test]
fn an_epoch_that_was_left_never_comes_back() {
    let (backend, _) = two_nodes();
    let mut left = Vec::new();
    for _ in 0..10 {
        // Its other connections are still being made when the first of them renews.
        let store = node(&shared().url(backend.database()));
        let last = store.epoch();
        ask(&store, StoreCall::RenewEpoch(last)).expect("renewed");
        left.push(last);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            let now = store.epoch();
            assert!(!left.contains(&now), "{now} came back");
            std::thread::yield_now();
        }
    }
}

#[test]
fn nodes_that_start_together_migrate_once() {
    let server = shared();
    for _ in 0..3 {
        let database = server.database();
        let url = server.url(&database);
        let barrier = Arc::new(Barrier::new(4));
        let nodes: Vec<_> = (0..4)
            .map(|node| {
                let (url, barrier) = (url.clone(), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    let options = PostgresOptions::new(&url);
                    if node == 0 {
                        migrate(&options).expect("migrated");
                        None
                    } else {
                        Some(PostgresStore::open(options).expect("opens").epoch())
                    }
                })
            })
            .collect();
        let epochs = nodes
            .into_iter()
            .filter_map(|node| node.join().expect("a node"));
        let epochs: Vec<_> = epochs.collect();
        assert!(epochs.iter().all(|epoch| *epoch == epochs[0]));
        let versions = server.sql(&database, "SELECT count(*) FROM schema_migrations");
        assert_eq!(versions, "15");
    }
}

#[test]
fn a_database_of_a_newer_version_or_of_another_history_is_refused() {
    let backend = Backend::postgres_alone();
    let (server, database) = (shared(), backend.database());
    let open = || PostgresStore::open(PostgresOptions::new(server.url(database)));
    // One that only adds is worked on: a node of this version must be able to start beside newer ones.
    server.sql(
        database,
        "INSERT INTO schema_migrations (version, checksum, needs) VALUES (99, '', 3)",
    );
    drop(open().expect("a newer schema that needs nothing newer"));
    server.sql(
        database,
        "UPDATE schema_migrations SET needs = 99 WHERE version = 99",
    );
    let refused = open().expect_err("refused");
    assert!(
        matches!(refused, OpenError::Newer { found: 99, .. }),
        "{refused}"
    );
    server.sql(
        database,
        "DELETE FROM schema_migrations WHERE version = 99;
         UPDATE schema_migrations SET checksum = '' WHERE version = 1",
    );
    let refused = open().expect_err("refused");
    assert!(
        matches!(refused, OpenError::MigrationDiffers(1)),
        "{refused}"
    );
    let nowhere = PostgresStore::open(PostgresOptions::new(server.url("nowhere")));
    let refused = nowhere.expect_err("refused");
    assert!(matches!(refused, OpenError::Unreachable(_)), "{refused}");
}

/// Every plan finds its rows by an index, also one that was made when the tables were empty.
#[test]
fn the_named_tables_are_there_as_they_were_asked_for() {
    let backend = Backend::postgres_alone();
    let sql = |sql: &str| shared().sql(backend.database(), sql);
    for table in [
        "chat_users",
        "chat_rooms",
        "messages",
        "room_participants",
        "message_read_status",
        "user_relationships",
        "typing_indicators",
    ] {
        let found = sql(&format!("SELECT to_regclass('{table}') IS NOT NULL"));
        assert_eq!(found, "t", "{table}");
    }
    let partitions = "SELECT count(*), pg_get_partkeydef('messages'::regclass) FROM pg_inherits
                      WHERE inhparent = 'messages'::regclass";
    assert_eq!(sql(partitions), "16|HASH (room_id)");
    let unlogged = "SELECT relpersistence FROM pg_class WHERE relname = 'typing_indicators'";
    assert_eq!(sql(unlogged), "u");
}

/// A key and a certificate that it signed itself, for this name.
fn certificate(folder: &std::path::Path, name: &str) -> (PathBuf, PathBuf) {
    let (key, cert) = (
        folder.join(format!("{name}.key")),
        folder.join(format!("{name}.crt")),
    );
    let made = Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
        ])
        .args(["-subj", &format!("/CN={name}")])
        .args(["-addext", &format!("subjectAltName=DNS:{name}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .stderr(Stdio::null())
        .status();
    assert!(made.expect("openssl(1)").success());
    (key, cert)
}

#[test]
fn tls_hides_or_proves_as_sslmode_says() {
    let made = tempfile::tempdir().expect("a folder");
    let (key, cert) = certificate(made.path(), "localhost");
    let (_, other) = certificate(made.path(), "other.example");
    let server = PostgresServer::start("");
    for (from, to) in [(&key, "server.key"), (&cert, "server.crt")] {
        let to = server.folder().join("data").join(to);
        std::fs::copy(from, &to).expect("copied");
        server.own(&to);
    }
    server.sql("postgres", "ALTER SYSTEM SET ssl = on");
    server.crash();
    server.resume();
    let database = server.database();
    let open = |host: &str, query: &str| {
        let port = server.port();
        let url = format!("postgres://caffis@{host}:{port}/{database}?{query}");
        PostgresStore::open(PostgresOptions::new(url))
    };
    let encrypted = || {
        let sql = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                   WHERE application_name = 'caffis-chat'";
        server.sql("postgres", sql)
    };
    let (cert, other) = (cert.display(), other.display());
    for (host, query, takes) in [
        ("127.0.0.1", "sslmode=require".to_owned(), true),
        ("127.0.0.1", "sslmode=prefer".to_owned(), true),
        (
            "127.0.0.1",
            format!("sslmode=require&sslrootcert={other}"),
            false,
        ),
        (
            "127.0.0.1",
            format!("sslmode=verify-ca&sslrootcert={cert}"),
            true,
        ),
        (
            "127.0.0.1",
            format!("sslmode=verify-ca&sslrootcert={other}"),
            false,
        ),
        (
            "127.0.0.1",
            format!("sslmode=verify-full&sslrootcert={cert}"),
            false,
        ),
        (
            "localhost",
            format!("sslmode=verify-full&sslrootcert={cert}"),
            true,
        ),
        ("localhost", "sslmode=verify-full".to_owned(), false),
        ("localhost", "sslmode=maybe".to_owned(), false),
    ] {
        match open(host, &query) {
            Ok(store) => {
                assert!(takes, "{query}");
                let store: Arc<dyn Store> = Arc::new(store);
                ask(&store, StoreCall::SignIn(vec![sign_in(1, Some("Ada"))])).expect("signed in");
                assert_eq!(encrypted(), "t", "{query}");
            }
            Err(error) => assert!(!takes, "{query}: {error}"),
        }
    }
    // A server without TLS is not spoken to in clear where it was not allowed.
    let plain = format!("{}?sslmode=require", shared().url("postgres"));
    let refused = PostgresStore::open(PostgresOptions::new(plain));
    assert!(matches!(refused, Err(OpenError::Unreachable(_))));
}

/// Ten thousand users who come back at once cost a statement for each call of 256.
#[test]
fn a_storm_of_known_users_is_one_statement_a_call() {
    let server = PostgresServer::start("-c log_min_duration_statement=0");
    let store = node(&server.url("postgres"));
    let storm = |calls: u128| {
        for call in 0..calls {
            let users = (0..256).map(|n| 1 + (call * 256 + n) % 1_024);
            let users = users.map(|n| sign_in(n, Some(&format!("u{n}"))));
            match ask(&store, StoreCall::SignIn(users.collect())) {
                Ok(StoreAnswer::SignIn(users)) => assert_eq!(users.len(), 256),
                other => panic!("{other:?}"),
            }
        }
    };
    storm(4);
    for name in 1..=4u128 {
        let op = create_group(1, name, name * 200..name * 200 + 199);
        commit(&store, vec![op]).remove(0).expect("stands");
    }
    // The server writes what it executed before it answers.
    let executed = |of: &str| {
        let log = std::fs::read_to_string(server.folder().join("log")).expect("a log");
        let lines = log.lines().filter(|line| line.contains("  execute "));
        lines.filter(|line| line.contains(of)).count()
    };
    let before = (executed(""), executed("WITH resume"));
    let calls = 40;
    storm(calls);
    assert_eq!(executed("WITH resume") - before.1, calls as usize);
    // Connections that were made ready meanwhile, and nothing else.
    assert!(executed("") - before.0 <= 200);
}

#[test]
fn of_a_block_and_a_send_that_wait_for_each_other_the_first_to_get_the_room_decides() {
    let (backend, second) = two_nodes();
    backend.users(2);
    backend.done(create_direct(1, 2));
    let room = RoomId::direct(user(1), user(2));
    let lock = format!("SELECT FROM chat_rooms WHERE room_id = '{room}' FOR NO KEY UPDATE");
    let waiting = |store: &Arc<dyn Store>, op: Op, waiters: usize| {
        let store = Arc::clone(store);
        let caller = std::thread::spawn(move || commit(&store, vec![op]).remove(0));
        wait_for_waiters(backend.database(), waiters);
        caller
    };
    let (first, mut id) = (Arc::clone(backend.store()), 0);
    for mentions in [false, true] {
        let mut op = || {
            id += 1;
            match mentions {
                false => send(room, 2, id, "now"),
                true => mentioning(room, 2, id, "now", [1]),
            }
        };
        let held = hold(backend.database(), &lock);
        let blocking = waiting(&second, block(1, 2), 1);
        let sending = waiting(&first, op(), 2);
        held.end("COMMIT");
        assert!(blocking.join().expect("a block").is_ok());
        let refusal = sending.join().expect("a send").expect_err("refused");
        assert_eq!(refusal.code, ErrorCode::Forbidden);
        let held = hold(backend.database(), &lock);
        let unblocking = waiting(&second, unblock(1, 2), 1);
        let sending = waiting(&first, op(), 2);
        let blocking = waiting(&second, block(2, 1), 3);
        held.end("COMMIT");
        assert!(unblocking.join().expect("a block").is_ok());
        assert!(sending.join().expect("a send").is_ok());
        assert!(blocking.join().expect("a block").is_ok());
        backend.done(unblock(2, 1));
    }
}

#[test]
fn a_pair_has_one_room_or_a_block_whatever_two_nodes_do_at_once() {
    let (backend, second) = two_nodes();
    let rounds = 40u128;
    backend.users(2 * rounds);
    let (mut opened, mut refused) = (0, 0);
    for round in 0..rounds {
        let (a, b) = (2 * round + 1, 2 * round + 2);
        let room = RoomId::direct(user(a), user(b));
        let with_block = round % 2 == 1;
        let mut ops = vec![create_direct(a, b), create_direct(b, a)];
        if with_block {
            ops.push(block(b, a));
            // Where the locks of the users are met the other way round.
            ops.push(block(a, b));
        }
        let barrier = Arc::new(Barrier::new(ops.len()));
        let callers: Vec<_> = ops
            .into_iter()
            .enumerate()
            .map(|(n, op)| {
                let store = [backend.store(), &second][n % 2];
                let (store, barrier) = (Arc::clone(store), Arc::clone(&barrier));
                std::thread::spawn(move || {
                    barrier.wait();
                    commit(&store, vec![op]).remove(0)
                })
            })
            .collect();
        let mut made = 0;
        for (n, caller) in callers.into_iter().enumerate() {
            match caller.join().expect("a caller") {
                Ok(done) if n < 2 => made += usize::from(created(&done).1),
                Ok(done) => assert!(block_of(&done).1),
                Err(refusal) => {
                    assert_eq!(refusal.code, ErrorCode::Forbidden);
                    assert!(with_block && n < 2);
                    refused += 1;
                }
            }
        }
        let found = backend.open_room(room);
        assert_eq!(found.is_some(), made == 1);
        assert!(made == 1 || with_block && made == 0);
        assert!(found.is_none_or(|found| found.severed == with_block));
        opened += made;
    }
    assert!(opened >= rounds as usize / 2, "{opened} and {refused}");
    assert_eq!(deadlocks(backend.database()), "0");
}

/// Nothing reads it but people who look; two nodes may write the same at once.
#[test]
fn who_is_typing_is_noted_for_operators_and_forgotten() {
    let (backend, second) = two_nodes();
    let (server, database) = (shared(), backend.database());
    let first = node(&server.url(database));
    let sample = |n: u128, user: u128, expires_at: u64| TypingSample {
        room: RoomId(Uuid::from_u128(n)),
        user: UserId(Uuid::from_u128(user)),
        expires_at: UnixMs(expires_at),
    };
    let note = |store: &Arc<dyn Store>, sample: Vec<TypingSample>| {
        let answer = ask(store, StoreCall::SampleTyping(sample));
        assert!(
            matches!(answer, Ok(StoreAnswer::SampleTyping)),
            "{answer:?}"
        );
    };
    let noted = || {
        server.sql(
            database,
            "SELECT string_agg(right(room_id::text, 1) || right(user_id::text, 1) || ' '
                || expires_at, ', ' ORDER BY room_id, user_id) FROM typing_indicators",
        )
    };
    note(&first, vec![sample(1, 1, 100_000), sample(2, 1, 100_005)]);
    note(&second, vec![sample(1, 1, 100_002), sample(1, 2, 100_001)]);
    note(&first, vec![sample(1, 1, 99_000)]);
    assert_eq!(noted(), "11 100002, 12 100001, 21 100005");
    // Those that ended are taken away by whoever notes next.
    note(&second, vec![sample(3, 1, 200_000)]);
    assert_eq!(noted(), "31 200000");
    let (first, second) = (&first, &second);
    std::thread::scope(|scope| {
        for store in [first, second, first, second] {
            scope.spawn(move || {
                for turn in 0..50_u64 {
                    let all = (0..20).map(|n| sample(n % 5, n, 300_000 + turn)).collect();
                    let mut all: Vec<TypingSample> = all;
                    all.sort_unstable_by_key(|one| (one.room, one.user));
                    note(store, all);
                }
            });
        }
    });
    assert_eq!(deadlocks(database), "0");
    let kind = "SELECT relpersistence FROM pg_class WHERE relname = 'typing_indicators'";
    assert_eq!(server.sql(database, kind), "u", "unlogged");
}
