//! Several nodes behind a balancer, clients in mixed rooms spread over them, load and checker on,
//! and one thing after the other goes wrong: nothing acknowledged may be lost, doubled or out of
//! order, whichever node a client is on.
//!
//! Each fault: load before it, the fault, load after it, everything settles, and every room is read
//! through fresh connections and compared with all acks and deliveries so far.
//!
//! Next: [`faults`], what goes wrong; [`telling`], what is reported.

mod faults;
mod telling;

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, settings, settle};
use super::mixed::MixArgs;
use crate::cluster::{Cluster, ClusterArgs};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::random::Random;
use crate::report::Report;
use crate::world::{SetupError, World};

use telling::Outcome;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Nothing goes wrong.
    Calm,
    /// kill -9 of a node, again and again.
    KillNode,
    /// kill -9 of all of PostgreSQL, and it starts again at once.
    RestartPostgres,
    /// The lines to PostgreSQL carry nothing.
    PostgresAway,
    /// kill -9 of Redis, which comes back later, empty.
    KillRedis,
    /// The lines to Redis carry nothing.
    RedisAway,
    /// SIGSTOP of Redis.
    RedisStalled,
    /// One node's line to Redis carries nothing.
    RedisPartition,
    /// SIGTERM and a new start of one node after the other.
    Rolling,
    /// All of them, in this order, on one cluster.
    All,
}

impl Fault {
    const EACH: [Self; 9] = [
        Self::Calm,
        Self::KillNode,
        Self::RestartPostgres,
        Self::PostgresAway,
        Self::KillRedis,
        Self::RedisAway,
        Self::RedisStalled,
        Self::RedisPartition,
        Self::Rolling,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::KillNode => "kill-node",
            Self::RestartPostgres => "restart-postgres",
            Self::PostgresAway => "postgres-away",
            Self::KillRedis => "kill-redis",
            Self::RedisAway => "redis-away",
            Self::RedisStalled => "redis-stalled",
            Self::RedisPartition => "redis-partition",
            Self::Rolling => "rolling",
            Self::All => "all",
        }
    }

    /// A failing backend is no reason to end a client's connection.
    fn keeps_connections(self) -> bool {
        match self {
            Self::Calm
            | Self::RestartPostgres
            | Self::PostgresAway
            | Self::KillRedis
            | Self::RedisAway
            | Self::RedisStalled
            | Self::RedisPartition => true,
            Self::KillNode | Self::Rolling | Self::All => false,
        }
    }

    /// What is worth a goal: the time until sends are acknowledged again, in seconds.
    fn resume_goal_s(self) -> Option<f64> {
        match self {
            Self::RestartPostgres => Some(2.0),
            Self::PostgresAway => Some(5.0),
            Self::Calm
            | Self::KillNode
            | Self::KillRedis
            | Self::RedisAway
            | Self::RedisStalled
            | Self::RedisPartition
            | Self::Rolling
            | Self::All => None,
        }
    }

    /// The longest that a client may be without a connection, in seconds.
    fn absence_goal_s(self) -> Option<f64> {
        (self == Self::Rolling).then_some(10.0)
    }

    /// How late other nodes may hear of a message, in seconds.
    fn cross_node_goal_s(self) -> Option<f64> {
        match self {
            Self::KillRedis | Self::RedisAway | Self::RedisStalled | Self::RedisPartition => {
                Some(5.0)
            }
            Self::Calm
            | Self::KillNode
            | Self::RestartPostgres
            | Self::PostgresAway
            | Self::Rolling
            | Self::All => None,
        }
    }
}

/// Deadlines that protect users are asserted at so many times their goal.
const GOAL_TIMES: f64 = 3.0;
/// Everybody is back and everything is delivered within this, or that is a finding.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

#[derive(Args, Clone, Debug)]
pub struct ClusterScenarioArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub cluster: ClusterArgs,
    /// What goes wrong; may be repeated.
    #[arg(
        long = "fault",
        value_enum,
        value_delimiter = ',',
        default_value = "all"
    )]
    pub faults: Vec<Fault>,
    #[arg(long, default_value_t = 6000)]
    pub clients: usize,
    /// Every client is in one room of each size.
    #[arg(long, value_delimiter = ',', default_value = "2,4,50")]
    pub rooms_of: Vec<usize>,
    /// Messages a second, over all rooms; with --mix operations a second.
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,
    /// How long a backend is away, stalled or cut off.
    #[arg(long, default_value_t = 60.0)]
    pub seconds_of_fault: f64,
    /// Seconds of load before and after each fault.
    #[arg(long, default_value_t = 5.0)]
    pub seconds_around: f64,
    /// Kills of nodes.
    #[arg(long, default_value_t = 20)]
    pub kills: u32,
    /// Restarts of PostgreSQL, and kills of Redis.
    #[arg(long, default_value_t = 3)]
    pub restarts: u32,
    /// The server is broken on purpose: succeed only if the checker finds one of these, by name.
    #[arg(long, value_name = "FINDING", num_args = 1.., value_delimiter = ',')]
    pub expect_red: Vec<String>,
    #[command(flatten)]
    pub mix: MixArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A run: the cluster, its clients, and what was seen so far.
struct Run<'a> {
    args: &'a ClusterScenarioArgs,
    cluster: Cluster,
    world: World,
    workshop: Workshop,
    random: Random,
    outcomes: Vec<Outcome>,
    failures: Vec<String>,
}

/// # Errors
/// When the cluster does not start or the first connections fail.
pub fn run(args: &ClusterScenarioArgs, progress: Progress) -> Result<Ending, SetupError> {
    let seed = args.output.seed();
    let mut workshop = Workshop::new("cluster")?;
    progress.line(&format!("seed {seed}"));
    let cluster = Cluster::start(&args.server, &args.cluster, None, &mut workshop)?;
    let layout = Layout::mixed(args.clients, &args.rooms_of);
    let mut settings = settings(seed);
    settings.probe_every = 100;
    settings.mix = args.mix.shares();
    let world = World::over(&cluster.targets(), "/v1/ws", &layout, settings, progress)?;
    let mut run = Run {
        args,
        cluster,
        world,
        workshop,
        random: Random::new(seed),
        outcomes: Vec::new(),
        failures: Vec::new(),
    };
    run.world.progress.stage("connecting");
    run.world.want_all();
    let connect_us = run.world.connect_wanted(Duration::from_secs(120))?;
    run.world.progress.stage("making rooms");
    run.world.make_rooms(Duration::from_secs(300))?;
    run.world.begin_mix()?;
    let mut faults: Vec<Fault> = args.faults.clone();
    if faults.contains(&Fault::All) {
        faults = Fault::EACH.to_vec();
    }
    for fault in faults {
        run.fault(fault)?;
        if !run.failures.is_empty() || !run.world.state.checker.findings.is_clean() {
            run.world.progress.line("red: no further faults");
            break;
        }
    }
    let mut report = Report::default();
    report.section("cluster");
    report.count("seed", seed);
    report.count("nodes", run.cluster.nodes.len() as u64);
    report.count("clients", args.clients as u64);
    report.count("rooms", u64::from(run.world.rooms()));
    report.number("asked_rate", args.rate, "messages/s");
    report.number("first_connect_of_all", connect_us as f64 / 1e6, "s");
    for outcome in &run.outcomes {
        outcome.tell(&mut report);
    }
    let state = &run.world.state;
    let failures = args.mix.tell(&mut report, state);
    run.failures.extend(failures);
    report.stats(&state.stats);
    report.findings(&state.checker.findings);
    run.world.progress.finish();
    Ok(Ending::new(report, &state.checker.findings, run.failures))
}

impl Run<'_> {
    fn fault(&mut self, fault: Fault) -> Result<(), SetupError> {
        let name = fault.name();
        self.world.rebalance();
        self.world.connect_wanted(SETTLE_LIMIT)?;
        let mut outcome = Outcome::begin(fault, &self.world.state);
        let around = Duration::from_secs_f64(self.args.seconds_around);
        let week = Duration::from_secs(7 * 24 * 3600);
        self.world.progress.stage(&format!("{name}: before"));
        self.begin_phase(name, "before");
        self.world.begin_load(self.args.rate, week);
        self.world.run_for(around)?;
        self.world.progress.stage(name);
        self.begin_phase(name, "fault");
        self.world.disturb(fault != Fault::Calm);
        let happened = self.happen(fault, &mut outcome);
        if let Err(error) = happened {
            // What does not come back from a fault is a finding, not a bad setting.
            self.failures.push(format!("{name}: {error}"));
        }
        self.world.progress.stage(&format!("{name}: after"));
        self.begin_phase(name, "after");
        if self.failures.is_empty() {
            self.world.run_for(around)?;
            if let Err(error) = self.cluster.check_alive() {
                self.failures.push(format!("{name}: {error}"));
            }
        }
        outcome.end(&self.world.state);
        if self.failures.is_empty() {
            self.failures.extend(settle(&mut self.world, SETTLE_LIMIT)?);
            self.world.disturb(false);
            match self.cluster.postgres.deadlocks() {
                Ok(deadlocks) => outcome.deadlocks = deadlocks,
                Err(error) => self.failures.push(format!("{name}: {error}")),
            }
        }
        self.world.end_load();
        outcome.take_phases(&self.world.state.stats, self.outcomes.len());
        self.failures.extend(outcome.failures());
        self.world.progress.line(&outcome.line());
        self.outcomes.push(outcome);
        Ok(())
    }

    fn begin_phase(&mut self, fault: &str, part: &str) {
        let state = &mut self.world.state;
        let now_us = state.clock.now_us();
        state.stats.begin_phase(&format!("{fault} {part}"), now_us);
    }
}
