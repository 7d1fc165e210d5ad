//! All clients of a cluster drop and come back at once, each resuming where it was: how long until
//! the last has everything, and how many statements that costs the database.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, settings, settle};
use super::storm::{forgotten, storm};
use crate::backends::Statement;
use crate::cluster::{Cluster, ClusterArgs};
use crate::layout::Layout;
use crate::measure::listen_overflows;
use crate::progress::Progress;
use crate::report::{Report, median};
use crate::world::{DropBy, SetupError, World};

#[derive(Args, Clone, Debug)]
pub struct ClusterStormArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[arg(long, default_value_t = 10_000)]
    pub clients: usize,
    /// Every client is in one room of each size.
    #[arg(long, value_delimiter = ',', default_value = "4")]
    pub rooms_of: Vec<usize>,
    /// Events of each room that every client missed and gets replayed.
    #[arg(long, default_value_t = 3)]
    pub missed: u32,
    #[arg(long, value_enum, default_value_t = DropBy::Reset)]
    pub drop_by: DropBy,
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Red if a round takes longer: seconds, three times the goal of 5.
    #[arg(long, default_value_t = 15.0)]
    pub limit: f64,
    /// Red if a round costs the database more statements.
    #[arg(long, default_value_t = 200)]
    pub statements_max: u64,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Without traffic, to count what the nodes ask by themselves.
const IDLE: Duration = Duration::from_secs(5);

/// # Errors
/// When the cluster does not start or the first connections fail.
pub fn run(args: &ClusterStormArgs, progress: Progress) -> Result<Ending, SetupError> {
    let mut workshop = Workshop::new("cluster-storm")?;
    let mut cluster = Cluster::start(&args.server, &args.cluster, None, &mut workshop)?;
    let layout = Layout::mixed(args.clients, &args.rooms_of);
    let settings = settings(args.output.seed());
    let mut world = World::over(&cluster.targets(), "/v1/ws", &layout, settings, progress)?;
    world.progress.stage("connecting");
    world.want_all();
    let first_us = world.connect_wanted(Duration::from_secs(120))?;
    world.progress.stage("making rooms");
    world.make_rooms(Duration::from_secs(300))?;
    world.progress.stage("writing what will be missed");
    let messages = u64::from(world.rooms()) * u64::from(args.missed);
    world.begin_load(1_000.0, Duration::from_secs(3600));
    world.run_until(Duration::from_secs(600), |state| {
        state.stats.sends >= messages
    })?;
    world.drain(Duration::from_secs(60))?;

    // What the nodes ask without being asked anything: it is part of every round's count.
    world.progress.stage("idle");
    cluster.postgres.forget_statements()?;
    world.run_for(IDLE)?;
    let idle_calls = cluster.postgres.statement_calls()?;

    let mut rounds = Vec::new();
    let mut statements = Vec::new();
    let mut most: Vec<Statement> = Vec::new();
    let mut failures = Vec::new();
    let overflows = listen_overflows();
    for round in 1..=args.rounds {
        let stage = format!("storm {round} of {}", args.rounds);
        world.progress.stage(&stage);
        cluster.postgres.forget_statements()?;
        let seconds = storm(&mut world, args.drop_by, args.missed, args.limit)?;
        let calls = cluster.postgres.statement_calls()?;
        most = cluster.postgres.statements(8)?;
        cluster.check_alive()?;
        let line = format!(
            "storm {round}: all resumed after {seconds:.2} s, {calls} statements, by node {:?}; {}",
            world.state.ready_by_node(),
            world.state.line()
        );
        world.progress.line(&line);
        if seconds > args.limit {
            failures.push(format!("storm {round} took {seconds:.2} s"));
        }
        if calls > args.statements_max {
            failures.push(format!(
                "storm {round} cost {calls} statements, allowed are {}: {most:?}",
                args.statements_max
            ));
        }
        failures.extend(forgotten(&mut world)?);
        rounds.push(seconds);
        statements.push(calls);
    }
    let overflows = listen_overflows() - overflows;
    failures.extend(settle(&mut world, Duration::from_secs(60))?);
    let deadlocks = cluster.postgres.deadlocks()?;
    if deadlocks > 0 {
        failures.push(format!("{deadlocks} deadlocks"));
    }

    let mut report = Report::default();
    report.section("cluster storm");
    report.count("nodes", cluster.nodes.len() as u64);
    report.count("clients", args.clients as u64);
    report.count("missed_events_per_room", u64::from(args.missed));
    report.number("first_connect_of_all", first_us as f64 / 1e6, "s");
    let shown: Vec<String> = rounds.iter().map(|round| format!("{round:.2}")).collect();
    report.row("rounds_s", shown.join(", "), rounds.clone());
    report.number(
        "median",
        median(&rounds),
        "s until all were resumed (goal 5)",
    );
    report.row(
        "statements",
        format!("{statements:?} (goal {})", args.statements_max),
        json!(statements),
    );
    let idle_per_s = idle_calls as f64 / IDLE.as_secs_f64();
    report.number("idle_statements_per_s", idle_per_s, "");
    let shown: Vec<String> = most
        .iter()
        .map(|statement| format!("{} × {}", statement.calls, statement.text))
        .collect();
    report.row(
        "most_frequent_of_the_last_round",
        format!("\n      {}", shown.join("\n      ")),
        json!(shown),
    );
    report.count("listen_overflows", overflows);
    report.count("deadlocks", deadlocks);
    report.stats(&world.state.stats);
    report.findings(&world.state.checker.findings);
    world.progress.finish();
    Ok(Ending::new(report, &world.state.checker.findings, failures))
}
