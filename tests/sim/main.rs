//! The rules of chat under a seeded scheduler in virtual time: one to three nodes on one store, a
//! relay that loses, delays, doubles and reorders or is away, crashes, drains, a slow and failing
//! store, lost answers, full queues, lost connections, stalled readers, retries.
//!
//! `CAFFIS_SIM_SEEDS=10000 cargo test --release --features sabotage --test sim` is the full form;
//! `CAFFIS_SIM_FROM=N CAFFIS_SIM_SEEDS=1` repeats seed N.

mod client;
mod files;
mod hints;
mod network;
mod node;
mod people;
mod receipts;
mod relay;
mod report;
mod rng;
#[path = "../support/schema.rs"]
mod schema;
mod store;
mod truth;
mod upkeep;
mod verdict;
mod world;

use caffis_chat::chat::sabotage::Sabotaged;
use report::Report;
use std::panic::AssertUnwindSafe;
use world::World;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Runs one seed; an assertion that does not hold is a finding like any other.
fn run(seed: u64, sabotage: Sabotaged) -> Result<Report, String> {
    run_world(|| World::new(seed, sabotage))
}

fn run_world(world: impl FnOnce() -> World) -> Result<Report, String> {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut world = world();
        world.run().map(|()| world.report.clone())
    }));
    match outcome {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            Err(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

#[test]
fn seeds_are_clean() {
    let (from, seeds) = (
        number("CAFFIS_SIM_FROM", 0),
        number("CAFFIS_SIM_SEEDS", 250),
    );
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let started = std::time::Instant::now();
    let total = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    let mut total = Report::default();
                    for seed in (from..from + seeds).filter(|seed| seed % threads == thread) {
                        match run(seed, Sabotaged::default()) {
                            Ok(report) => total.add(&report),
                            Err(finding) => panic!(
                                "seed {seed}: {finding}\nrepeat it with: CAFFIS_SIM_FROM={seed} \
                                 CAFFIS_SIM_SEEDS=1 cargo test --features sabotage --test sim seeds_are_clean"
                            ),
                        }
                    }
                    total
                })
            })
            .collect();
        let mut total = Report::default();
        for worker in workers {
            match worker.join() {
                Ok(report) => total.add(&report),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        total
    });
    let hours = total.simulated_us as f64 / 3.6e9;
    println!(
        "{seeds} seeds, {hours:.1} simulated hours in {:?}: {total:?}",
        started.elapsed()
    );
    // A campaign that does not reach what it is about proves nothing.
    if seeds >= 100 {
        let reached = [
            ("acked", total.acked),
            ("crashes", total.crashes),
            ("drains", total.drains),
            ("cuts", total.cuts),
            ("unknown outcomes", total.unknown_outcomes),
            ("slow closes", total.slow_closes),
            ("replayed", total.replayed),
            ("gate fetches", total.gate_fetches),
            ("duplicates", total.duplicates),
            ("moves", total.moves),
            ("writes held", total.writes_held),
            ("late writes", total.late_writes),
            ("crossed", total.crossed),
            ("receipts told", total.receipts_told),
            ("unread told", total.unread_told),
            ("changed", total.changed),
            ("typing told", total.typing_told),
            ("presence told", total.presence_told),
            ("blocks", total.blocks),
            ("files sent", total.files_sent),
            ("files gone", total.files_gone),
            ("erased", total.erased),
            ("dropped", total.dropped),
            ("expired told", total.expired_told),
            ("added across", total.added_across),
            ("relay sent", total.relay_sent),
            ("relay lost", total.relay_lost),
            ("relay doubled", total.relay_doubled),
            ("relay delayed", total.relay_delayed),
            ("relay overflows", total.relay_overflows),
            ("relay downs", total.relay_downs),
            ("relay stalls", total.relay_stalls),
            ("histories lost", total.histories_lost),
            ("epochs renewed", total.epochs_renewed),
        ];
        for (what, count) in reached {
            assert!(count > 0, "no seed reached: {what}");
        }
    }
}

/// In the other campaign few seeds lose their history, and in few of those anybody can notice.
#[test]
fn a_node_notices_that_the_history_was_lost_and_tells_everybody() {
    let seeds = number("CAFFIS_SIM_LOST_SEEDS", 100);
    let mut total = Report::default();
    for seed in 0..seeds {
        match run_world(|| World::that_loses_history(seed)) {
            Ok(report) => total.add(&report),
            Err(finding) => panic!("seed {seed} with a lost history: {finding}"),
        }
    }
    println!("{seeds} lost histories: {total:?}");
    assert_eq!(total.histories_lost, seeds);
    assert!(total.epochs_renewed > seeds / 10, "{total:?}");
}

/// Each fault that is put in on purpose is found.
#[cfg(feature = "sabotage")]
mod sabotage {
    use super::*;
    use caffis_chat::chat::sabotage::Sabotage;

    fn is_caught(sabotage: Sabotage) {
        let seeds = number("CAFFIS_SIM_SABOTAGE_SEEDS", 200);
        for seed in 0..seeds {
            if let Err(finding) = run(seed, Sabotaged::with(sabotage)) {
                println!("{sabotage:?} is caught by seed {seed}: {finding}");
                return;
            }
        }
        panic!("{sabotage:?} is not caught by {seeds} seeds");
    }

    #[test]
    fn ack_before_commit_is_caught() {
        is_caught(Sabotage::AckBeforeCommit);
    }

    #[test]
    fn gate_skipped_is_caught() {
        is_caught(Sabotage::GateSkipped);
    }

    #[test]
    fn duplicate_not_detected_is_caught() {
        is_caught(Sabotage::DuplicateNotDetected);
    }

    #[test]
    fn seq_reused_after_restart_is_caught() {
        is_caught(Sabotage::SeqReused);
    }

    #[test]
    fn outbox_drop_unnoticed_is_caught() {
        is_caught(Sabotage::OutboxDropUnnoticed);
    }
}
