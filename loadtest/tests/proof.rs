//! The whole load test, clients, framing and checker, against a server that misbehaves once: every
//! anomaly is found under its name, and a server that only has bad luck (cut connections, refusals
//! that say so, openly told gaps) is found clean.

#[allow(dead_code)]
mod fake;

use std::time::Duration;

use fake::{FakeServer, Fault, SECRET};
use loadtest::checker::{Findings, Kind};
use loadtest::layout::Layout;
use loadtest::mix::{OpKind, Shares};
use loadtest::progress::Progress;
use loadtest::report::Report;
use loadtest::scenarios::mixed::MixArgs;
use loadtest::world::{Settings, World};

const MESSAGES: u64 = 160;

struct Outcome {
    findings: Findings,
    reached: u64,
    recovered: u64,
    not_recovered: u64,
    gaps_told: u64,
    refusals: u64,
}

/// The same clients with the mixed load: every kind often, one fault at its `at`-th occasion.
fn exercise_mixed(fault: Fault, at: u64, sends: u64) -> (Findings, World, u64) {
    let server = FakeServer::start(fault, at);
    let mut settings = Settings::new(SECRET, 12);
    settings.backoff_first = Duration::from_millis(20);
    settings.backoff_cap = Duration::from_millis(100);
    let shares = "edit=10,delete=2,reaction_add=14,reaction_remove=6,connect=2";
    let mut shares: Shares = shares.parse().unwrap();
    // The fake one has sockets only, and on them what the checker has a rule for.
    shares.leave_out(OpKind::MORE);
    settings.mix = Some(shares);
    let layout = Layout::grid(16, 4, 2);
    let quiet = Progress::quiet();
    let mut world = World::new(server.address, "/v1/ws", &layout, settings, quiet).unwrap();
    world.want_all();
    world.connect_wanted(Duration::from_secs(20)).unwrap();
    world.make_rooms(Duration::from_secs(20)).unwrap();
    world.begin_mix().unwrap();
    world.begin_load(800.0, Duration::from_secs(60));
    let is_sent = world
        .run_until(Duration::from_secs(30), |state| state.stats.sends >= sends)
        .unwrap();
    assert!(is_sent, "{fault:?}: the load did not get through");
    world.drain(Duration::from_millis(3000)).unwrap();
    world.inspect().unwrap();
    let histories = world.read_histories(Duration::from_secs(20)).unwrap();
    world.state.checker.finish(&histories);
    (
        world.state.checker.findings.clone(),
        world,
        server.strikes(),
    )
}

fn is_found_mixed(fault: Fault, kinds: &[Kind]) {
    for at in [2, 6] {
        let (findings, _, strikes) = exercise_mixed(fault, at, 400);
        assert!(
            strikes >= at || fault == Fault::UnreadOffByOne,
            "{fault:?}: only {strikes} occasions"
        );
        assert!(
            kinds.iter().any(|kind| findings.count(*kind) > 0),
            "{fault:?} at {at}: none of {kinds:?}, only {:#?}",
            findings.examples()
        );
    }
}

#[test]
fn a_mixed_load_on_a_good_server_is_clean_and_exercises_every_kind() {
    let (findings, world, _) = exercise_mixed(Fault::None, 0, 800);
    assert!(findings.is_clean(), "{:#?}", findings.examples());
    let mix = world.state.mix.as_ref().unwrap();
    for kind in OpKind::EACH
        .iter()
        .filter(|kind| !OpKind::MORE.contains(kind))
    {
        let counts = &mix.kinds[kind];
        assert!(counts.asked > 0, "{kind:?} was never asked for");
        let is_heard = mix.events.contains_key(kind.event());
        assert!(counts.acked > 0 || is_heard, "nothing came of {kind:?}");
    }
    for code in ["revision_conflict", "forbidden", "gone"] {
        let refused = |kind| mix.kinds[&kind].refused.get(code).copied().unwrap_or(0);
        assert!(
            refused(OpKind::Edit) + refused(OpKind::ReactionAdd) > 0,
            "no {code}"
        );
    }
    assert!(world.state.checker.unread_compared() > 16);
    assert_eq!(world.state.checker.rooms_with_unseen_events(), 0);
}

#[test]
fn a_server_that_knows_no_receipts_is_clean_and_they_are_said_to_be_left_out() {
    let (findings, world, _) = exercise_mixed(Fault::NoReceipts, 0, 300);
    assert!(findings.is_clean(), "{:#?}", findings.examples());
    let args = MixArgs {
        mix_all: true,
        ..MixArgs::default()
    };
    let red = args.tell(&mut Report::default(), &world.state).join("\n");
    assert!(red.contains("delivered, read"), "{red}");
}

#[test]
fn lost_and_doubled_edits_are_found() {
    let lost = [
        Kind::ChangeLost,
        Kind::DeliveredNotStored,
        Kind::LostDelivery,
    ];
    is_found_mixed(Fault::LoseEdit, &lost);
    is_found_mixed(Fault::EditNotStored, &[Kind::WrongState, Kind::HistoryGap]);
    is_found_mixed(Fault::EditTwice, &[Kind::InventedChange]);
}

#[test]
fn miscounted_reactions_are_found() {
    is_found_mixed(Fault::MiscountEvent, &[Kind::Miscounted]);
    is_found_mixed(Fault::MiscountStored, &[Kind::WrongState]);
}

#[test]
fn a_deleted_text_that_comes_back_is_found() {
    is_found_mixed(Fault::DeletedTextBack, &[Kind::AlteredMessage]);
}

#[test]
fn wrong_unread_and_watermarks_are_found() {
    is_found_mixed(Fault::UnreadOffByOne, &[Kind::WrongUnread]);
    is_found_mixed(Fault::WatermarkBack, &[Kind::WatermarkBack]);
    is_found_mixed(Fault::LoseReceipts, &[Kind::WatermarkLost]);
}

#[test]
fn wrong_typing_and_presence_are_found() {
    is_found_mixed(Fault::StrangerTypes, &[Kind::WrongTyping]);
    is_found_mixed(Fault::PresenceForAll, &[Kind::WrongPresence]);
}

/// Sixteen clients in rooms of four, 160 messages, one fault.
fn exercise(fault: Fault, at: u64) -> Outcome {
    let server = FakeServer::start(fault, at);
    let mut settings = Settings::new(SECRET, 11);
    settings.backoff_first = Duration::from_millis(20);
    settings.backoff_cap = Duration::from_millis(100);
    settings.probe_every = 10;
    let layout = Layout::grid(16, 4, 1);
    let mut world = World::new(
        server.address,
        "/v1/ws",
        &layout,
        settings,
        Progress::quiet(),
    )
    .unwrap();
    world.want_all();
    world.connect_wanted(Duration::from_secs(20)).unwrap();
    world.make_rooms(Duration::from_secs(20)).unwrap();
    world.begin_load(400.0, Duration::from_secs(60));
    let is_sent = world
        .run_until(Duration::from_secs(30), |state| {
            state.stats.sends >= MESSAGES
        })
        .unwrap();
    assert!(is_sent, "{fault:?}: the load did not get through");
    world.drain(Duration::from_millis(1500)).unwrap();
    let histories = world.read_histories(Duration::from_secs(20)).unwrap();
    world.state.checker.finish(&histories);
    let stats = &world.state.stats;
    Outcome {
        findings: world.state.checker.findings.clone(),
        reached: server.messages(),
        recovered: stats.rooms_recovered,
        not_recovered: stats.rooms_not_recovered.values().sum(),
        gaps_told: stats.gaps_told,
        refusals: stats.errors.values().sum(),
    }
}

fn is_clean(fault: Fault) -> Outcome {
    let outcome = exercise(fault, 60);
    assert!(
        outcome.findings.is_clean(),
        "{fault:?}: {:#?}",
        outcome.findings.examples()
    );
    assert!(outcome.reached >= MESSAGES);
    outcome
}

fn is_found(fault: Fault, kinds: &[Kind]) {
    for at in [30, 97] {
        let outcome = exercise(fault, at);
        assert!(
            outcome.reached >= at,
            "{fault:?}: never got to message {at}"
        );
        for kind in kinds {
            assert!(
                outcome.findings.count(*kind) > 0,
                "{fault:?} at {at}: no {}, only {:#?}",
                kind.name(),
                outcome.findings.examples()
            );
        }
    }
}

#[test]
fn a_good_server_is_clean() {
    is_clean(Fault::None);
}

#[test]
fn a_good_server_whose_connections_break_is_clean() {
    assert!(is_clean(Fault::CutAll).recovered >= 16);
}

#[test]
fn catching_up_by_the_history_is_clean() {
    assert!(is_clean(Fault::CutAllTooMuch).not_recovered > 0);
}

#[test]
fn refusals_that_say_so_are_clean() {
    assert!(is_clean(Fault::RateLimitOnce).refusals >= 2);
}

#[test]
fn a_gap_told_openly_is_clean() {
    assert!(is_clean(Fault::TellGap).gaps_told >= 1);
}

#[test]
fn lost_deliveries_are_found() {
    is_found(Fault::LoseDelivery, &[Kind::Gap, Kind::LostDelivery]);
    is_found(Fault::LoseTail, &[Kind::LostDelivery]);
}

#[test]
fn doubled_and_disordered_deliveries_are_found() {
    is_found(Fault::DoubleDelivery, &[Kind::DoubledDelivery]);
    is_found(Fault::SwapDeliveries, &[Kind::OutOfOrder]);
}

#[test]
fn a_skipped_seq_is_found() {
    is_found(Fault::SkipSeq, &[Kind::Gap, Kind::HistoryGap]);
}

#[test]
fn lying_acks_are_found() {
    is_found(Fault::AckWithoutStoring, &[Kind::AckLied]);
    is_found(Fault::AckOfAnotherSeq, &[Kind::AckLied]);
    is_found(Fault::NeverAck, &[Kind::Unanswered]);
}

#[test]
fn wrong_duplicates_are_found() {
    is_found(Fault::AckAsDuplicate, &[Kind::WrongDuplicateFlag]);
    is_found(
        Fault::ForgetIds,
        &[Kind::DoubledMessage, Kind::WrongDuplicateFlag],
    );
}

#[test]
fn altered_content_is_found() {
    is_found(Fault::AlterText, &[Kind::AlteredMessage]);
    is_found(Fault::AlterForOne, &[Kind::AlteredMessage]);
}

#[test]
fn what_the_store_lost_is_found() {
    is_found(
        Fault::LoseFromHistory,
        &[Kind::AckedLost, Kind::DeliveredNotStored],
    );
    is_found(Fault::CrashAndForget, &[Kind::AheadOfServer]);
}

#[test]
fn bad_resumes_are_found() {
    is_found(Fault::LameReplay, &[Kind::Gap]);
    is_found(Fault::ChangeEpoch, &[Kind::EpochChanged]);
}

#[test]
fn refusals_without_a_reason_are_found() {
    is_found(Fault::Refuse, &[Kind::UnexpectedRefusal]);
    is_found(Fault::StopClient, &[Kind::ClientStopped]);
}

#[test]
fn events_for_strangers_and_garbage_are_found() {
    is_found(Fault::DeliverToStranger, &[Kind::NotAMember]);
    is_found(Fault::GarbageFrame, &[Kind::BadFrame]);
}

#[test]
fn disorder_in_time_and_sending_is_found() {
    is_found(Fault::TimeBack, &[Kind::TimeWentBack]);
    is_found(Fault::SwapSends, &[Kind::SenderOrder]);
}
