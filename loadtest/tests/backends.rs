//! The private backends: they start, count, are killed, stopped and started again.

use std::path::Path;
use std::time::{Duration, Instant};

use loadtest::backends::{Postgres, PostgresPlan, Redis};
use loadtest::scenarios::common::Workshop;

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

fn postgres(folder: &Path) -> PostgresPlan {
    PostgresPlan {
        data_dir: folder.join("postgres"),
        log: folder.join("postgres.log"),
        settings: Vec::new(),
    }
}

#[test]
fn what_postgres_committed_survives_a_kill() {
    let mut workshop = Workshop::new("test-postgres").unwrap();
    let plan = postgres(&workshop.folder);
    let mut postgres = Postgres::start(plan, &mut workshop.janitor).unwrap();
    postgres.ask("caffis", "CREATE TABLE kept (n int)").unwrap();
    for n in 0..20 {
        let insert = format!("INSERT INTO kept VALUES ({n})");
        postgres.ask("caffis", &insert).unwrap();
    }
    postgres.kill(&mut workshop.janitor).unwrap();
    assert!(!postgres.is_accepting());
    assert!(postgres.ask("caffis", "SELECT 1").is_err());
    postgres.launch(&mut workshop.janitor).unwrap();
    postgres.wait_accepting().unwrap();
    let kept = postgres.ask("caffis", "SELECT count(*) FROM kept").unwrap();
    assert_eq!(kept.trim(), "20");
}

#[test]
fn postgres_counts_statements_and_deadlocks() {
    let mut workshop = Workshop::new("test-statements").unwrap();
    let plan = postgres(&workshop.folder);
    let mut postgres = Postgres::start(plan, &mut workshop.janitor).unwrap();
    postgres
        .ask("caffis", "CREATE TABLE pairs (n int)")
        .unwrap();
    postgres
        .ask("caffis", "INSERT INTO pairs VALUES (1), (2)")
        .unwrap();
    postgres.forget_statements().unwrap();
    for _ in 0..7 {
        postgres.ask("caffis", "SELECT n FROM pairs").unwrap();
    }
    assert_eq!(postgres.statement_calls().unwrap(), 7);
    let statements = postgres.statements(1).unwrap();
    assert_eq!(statements[0].calls, 7);
    assert!(statements[0].text.contains("FROM pairs"));
    assert_eq!(postgres.deadlocks().unwrap(), 0);

    // Two transactions that take the same two locks in opposite order.
    let crossed = |first: u32, second: u32| {
        format!(
            "BEGIN; SELECT pg_advisory_xact_lock({first}); SELECT pg_sleep(1);
             SELECT pg_advisory_xact_lock({second}); COMMIT"
        )
    };
    std::thread::scope(|scope| {
        let one = scope.spawn(|| postgres.ask("caffis", &crossed(1, 2)));
        let other = postgres.ask("caffis", &crossed(2, 1));
        assert!(one.join().unwrap().is_err() != other.is_err());
    });
    until("a deadlock is counted", || {
        postgres.deadlocks().unwrap() == 1
    });
    // The statistics are lost by a kill, the count is not.
    postgres.kill(&mut workshop.janitor).unwrap();
    postgres.launch(&mut workshop.janitor).unwrap();
    postgres.wait_accepting().unwrap();
    assert_eq!(postgres.deadlocks().unwrap(), 1);
}

#[test]
fn a_stopped_backend_answers_again_when_it_goes_on() {
    let mut workshop = Workshop::new("test-stopped").unwrap();
    let plan = postgres(&workshop.folder);
    let postgres = Postgres::start(plan, &mut workshop.janitor).unwrap();
    let redis = Redis::start(&workshop.folder, &workshop.folder, &mut workshop.janitor).unwrap();
    postgres.stop().unwrap();
    redis.stop().unwrap();
    until("both are silent", || {
        !postgres.is_accepting() && !redis.is_accepting()
    });
    postgres.go_on().unwrap();
    redis.go_on().unwrap();
    until("both answer", || {
        postgres.is_accepting() && redis.is_accepting()
    });
}

#[test]
fn redis_is_killed_and_started_again_in_its_place() {
    let mut workshop = Workshop::new("test-redis").unwrap();
    let mut redis =
        Redis::start(&workshop.folder, &workshop.folder, &mut workshop.janitor).unwrap();
    let address = redis.address;
    redis.kill(&mut workshop.janitor).unwrap();
    assert!(!redis.is_accepting());
    redis.launch(&mut workshop.janitor).unwrap();
    until("it answers again", || redis.is_accepting());
    assert_eq!(redis.address, address);
    redis.check_alive().unwrap();
}
