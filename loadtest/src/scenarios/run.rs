//! The load itself: N connections, rooms of S, R messages a second, every delivery checked, what it
//! cost the server.

use std::time::Duration;

use clap::Args;

use super::common::{Ending, OutputArgs, parse_url, pin_self, settle};
use super::mixed::MixArgs;
use crate::layout::Layout;
use crate::measure::{CpuSample, CpuSpent, Memory};
use crate::progress::Progress;
use crate::report::Report;
use crate::world::{Settings, SetupError, World};

#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Where the server listens.
    #[arg(long, default_value = "ws://127.0.0.1:8080")]
    pub url: String,
    #[command(flatten)]
    pub load: LoadArgs,
    /// Of the server, to measure its CPU time and memory.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// Signs the clients' tokens (else the environment's CAFFIS_JWT_SECRET).
    #[arg(long)]
    pub jwt_secret: Option<String>,
    #[arg(long, default_value = "caffis")]
    pub jwt_issuer: String,
    #[arg(long, default_value = "caffis-chat")]
    pub jwt_audience: String,
    /// Keep this process on these cores.
    #[arg(long)]
    pub client_cpus: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    #[arg(long, default_value_t = 1000)]
    pub connections: usize,
    #[arg(long, default_value_t = 4)]
    pub room_size: usize,
    /// Messages a second, over all rooms; with --mix operations a second.
    #[arg(long, default_value_t = 500.0)]
    pub rate: f64,
    /// Seconds of measured load.
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 100)]
    pub payload: u32,
    /// Seconds of load before the measured ones.
    #[arg(long, default_value_t = 2.0)]
    pub warmup: f64,
    /// Seconds without traffic after connecting, to measure what an idle connection holds.
    #[arg(long, default_value_t = 0.0)]
    pub idle: f64,
    /// Rooms of each user.
    #[arg(long, default_value_t = 1)]
    pub rooms_per_user: usize,
    /// Send every so-many-th acked message again, to see that it stays one; 0 for never.
    #[arg(long, default_value_t = 0)]
    pub probe_every: u32,
    /// Seconds until everything must have arrived.
    #[arg(long, default_value_t = 30.0)]
    pub drain: f64,
    #[command(flatten)]
    pub mix: MixArgs,
}

/// What a run measured, for those that compare runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    pub cpu_us_per_delivery: Option<f64>,
    pub cpu_us_per_message: Option<f64>,
    pub deliveries: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// # Errors
/// When the run cannot be set up or its histories not be read.
pub fn run(args: &RunArgs, progress: Progress) -> Result<Ending, SetupError> {
    let (target, path) = parse_url(&args.url)?;
    let secret = args
        .jwt_secret
        .clone()
        .or_else(|| std::env::var("CAFFIS_JWT_SECRET").ok())
        .ok_or_else(|| {
            SetupError("give --jwt-secret, the server's CAFFIS_JWT_SECRET".to_owned())
        })?;
    pin_self(args.client_cpus.as_deref())?;
    let mut settings = Settings::new(&secret, args.output.seed());
    settings.jwt_issuer.clone_from(&args.jwt_issuer);
    settings.jwt_audience.clone_from(&args.jwt_audience);
    settings.payload_bytes = args.load.payload;
    settings.probe_every = args.load.probe_every;
    settings.mix = args.load.mix.shares();
    let load = &args.load;
    let layout = Layout::grid(load.connections, load.room_size, load.rooms_per_user);
    let mut world = World::new(target, &path, &layout, settings, progress)?;
    let mut report = Report::default();
    measure(&mut world, load, args.server_pid, &mut report)?;
    finish(&mut world, load, report)
}

/// Drains, reads the histories and closes the report.
///
/// # Errors
/// When the histories cannot be read.
pub fn finish(
    world: &mut World,
    load: &LoadArgs,
    mut report: Report,
) -> Result<Ending, SetupError> {
    let mut failures = settle(world, Duration::from_secs_f64(load.drain))?;
    failures.extend(load.mix.tell(&mut report, &world.state));
    report.stats(&world.state.stats);
    report.findings(&world.state.checker.findings);
    world.progress.finish();
    Ok(Ending::new(report, &world.state.checker.findings, failures))
}

/// Connects, makes the rooms, loads and measures. What is in flight then is left to the caller.
///
/// # Errors
/// When connections or rooms cannot be made.
pub fn measure(
    world: &mut World,
    load: &LoadArgs,
    pid: Option<u32>,
    report: &mut Report,
) -> Result<Measured, SetupError> {
    let memory = |pid: Option<u32>| -> Result<Option<Memory>, SetupError> {
        pid.map(|pid| Memory::of(pid).map_err(SetupError))
            .transpose()
    };
    let before = memory(pid)?;
    world.progress.stage("connecting");
    world.want_all();
    let connect_us = world.connect_wanted(Duration::from_secs(120))?;
    world.progress.stage("making rooms");
    world.make_rooms(Duration::from_secs(300))?;
    world.begin_mix()?;
    world.progress.stage("idle");
    world.run_for(Duration::from_secs_f64(load.idle))?;
    let idle = memory(pid)?;

    world.progress.stage("warming up");
    let (warmup_us, duration_us) = (seconds_us(load.warmup), seconds_us(load.duration));
    let began_us = world.state.clock.now_us();
    let (from_us, to_us) = (began_us + warmup_us, began_us + warmup_us + duration_us);
    world.state.stats.window_us = Some((from_us, to_us));
    let limit = Duration::from_micros(warmup_us + duration_us);
    world.begin_load(load.rate, limit);
    world.run_for(Duration::from_micros(warmup_us))?;
    world.progress.stage("loading");
    let first = Point::now(world, pid)?;
    world.run_for(Duration::from_micros(duration_us))?;
    let last = Point::now(world, pid)?;
    world.end_load();
    let loaded = memory(pid)?;

    report.section("load");
    report.count("connections", world.state.clients.len() as u64);
    report.count("rooms", u64::from(world.rooms()));
    report.count("room_size", load.room_size as u64);
    report.count("payload_bytes", u64::from(load.payload));
    let unit = if load.mix.mix {
        "operations/s"
    } else {
        "messages/s"
    };
    report.number("asked_rate", load.rate, unit);
    let seconds = last.at_us.saturating_sub(first.at_us) as f64 / 1e6;
    let acks = last.acks - first.acks;
    let deliveries = last.deliveries - first.deliveries;
    let operations = last.operations - first.operations;
    report.number("achieved_rate", acks as f64 / seconds, "acks/s");
    report.number("delivery_rate", deliveries as f64 / seconds, "deliveries/s");
    let connects_per_s = world.state.clients.len() as f64 * 1e6 / connect_us.max(1) as f64;
    report.number(
        "connects_per_s",
        connects_per_s,
        "authenticated connections/s",
    );

    report.section("latency from the due time");
    let stats = &world.state.stats;
    let delivery = stats.delivery.summary();
    report.latency("ack", &stats.ack.summary());
    report.latency("delivery", &delivery);
    report.latency("last_delivery", &stats.last_delivery.summary());
    // Late or full, the generator is what was measured, not the server.
    report.latency("generator_lateness", &stats.lateness.summary());
    let own = last.own_cpu.since(&first.own_cpu);
    let own_cores = own.cpu_s / own.wall_s.max(1e-9);
    report.number("generator_cores_used", own_cores, "of 1");

    let mut measured = Measured {
        deliveries,
        p50_ms: delivery.p50_ms,
        p99_ms: delivery.p99_ms,
        ..Measured::default()
    };
    if let (Some(first), Some(last)) = (first.cpu, last.cpu) {
        let spent = last.since(&first);
        measured.cpu_us_per_delivery = Some(spent.cpu_s * 1e6 / deliveries.max(1) as f64);
        measured.cpu_us_per_message = Some(spent.cpu_s * 1e6 / acks.max(1) as f64);
        report_cpu(report, &spent, &measured);
        if world.state.mix.is_some() {
            let each = spent.cpu_s * 1e6 / operations.max(1) as f64;
            report.number("cpu_per_operation_us", each, "µs");
        }
    }
    if let (Some(before), Some(idle), Some(loaded)) = (before, idle, loaded) {
        report_memory(report, world.state.clients.len(), before, idle, loaded);
    }
    Ok(measured)
}

struct Point {
    at_us: u64,
    acks: u64,
    deliveries: u64,
    /// Of the mixed load, asked for.
    operations: u64,
    cpu: Option<CpuSample>,
    own_cpu: CpuSample,
}

impl Point {
    fn now(world: &World, pid: Option<u32>) -> Result<Self, SetupError> {
        Ok(Self {
            at_us: world.state.clock.now_us(),
            acks: world.state.stats.acks,
            deliveries: world.state.stats.deliveries,
            operations: world
                .state
                .mix
                .as_ref()
                .map_or(0, |mix| mix.kinds.values().map(|counts| counts.asked).sum()),
            cpu: pid
                .map(|pid| CpuSample::of(pid).map_err(SetupError))
                .transpose()?,
            own_cpu: CpuSample::of(std::process::id()).map_err(SetupError)?,
        })
    }
}

fn report_cpu(report: &mut Report, spent: &CpuSpent, measured: &Measured) {
    report.section("server cpu");
    let cores = spent.cpu_s / spent.wall_s.max(1e-9);
    report.number("cores_used", cores, "");
    report.number("user", spent.user_s, "s");
    report.number("system", spent.system_s, "s");
    let per_delivery = measured.cpu_us_per_delivery.unwrap_or(0.0);
    let per_message = measured.cpu_us_per_message.unwrap_or(0.0);
    report.number("cpu_per_delivery_us", per_delivery, "µs");
    report.number("cpu_per_message_us", per_message, "µs");
    report.number(
        "machine_softirq_share",
        spent.machine_softirq_share * 100.0,
        "% of all busy time (on loopback mostly inside the senders' system time)",
    );
}

fn report_memory(
    report: &mut Report,
    connections: usize,
    before: Memory,
    idle: Memory,
    loaded: Memory,
) {
    report.section("server memory");
    let mib = |memory: Memory| memory.pss_bytes as f64 / (1 << 20) as f64;
    report.number("pss_before_mib", mib(before), "MiB");
    report.number("pss_idle_mib", mib(idle), "MiB");
    report.number("pss_loaded_mib", mib(loaded), "MiB");
    let grown = idle.pss_bytes.saturating_sub(before.pss_bytes);
    let per_connection = grown as f64 / connections.max(1) as f64;
    report.number("pss_per_idle_connection_bytes", per_connection, "bytes");
}

fn seconds_us(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e6) as u64
}
