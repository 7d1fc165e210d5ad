//! All clients drop at once and come back at once, each resuming where it was: how long until the
//! last has everything.

use std::time::Duration;

use clap::Args;

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, settings, settle};
use crate::ids::ClientIndex;
use crate::layout::Layout;
use crate::measure::{CpuSample, Memory, listen_overflows};
use crate::progress::Progress;
use crate::report::{Report, median};
use crate::world::{DropBy, SetupError, World};

#[derive(Args, Clone, Debug)]
pub struct StormArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[arg(long, default_value_t = 10_000)]
    pub connections: usize,
    #[arg(long, default_value_t = 4)]
    pub room_size: usize,
    /// Events of each room that every client missed and gets replayed.
    #[arg(long, default_value_t = 3)]
    pub missed: u32,
    #[arg(long, value_enum, default_value_t = DropBy::Reset)]
    pub drop_by: DropBy,
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// Red if a round takes longer: seconds.
    #[arg(long, default_value_t = 60.0)]
    pub limit: f64,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// # Errors
/// When the server does not start or the first connections fail.
pub fn run(args: &StormArgs, progress: Progress) -> Result<Ending, SetupError> {
    let mut workshop = Workshop::new("storm")?;
    let plan = args.server.plan(&workshop.folder)?;
    let mut server = plan.start(&mut workshop.janitor)?;
    server.wait_ready(Duration::from_secs(15))?;
    let layout = Layout::grid(args.connections, args.room_size, 1);
    let mut world = World::new(
        plan.listen,
        "/v1/ws",
        &layout,
        settings(args.output.seed()),
        progress,
    )?;
    world.progress.stage("connecting");
    world.want_all();
    let first_us = world.connect_wanted(Duration::from_secs(120))?;
    world.progress.stage("making rooms");
    world.make_rooms(Duration::from_secs(300))?;
    world.progress.stage("writing what will be missed");
    let messages = u64::from(world.rooms()) * u64::from(args.missed);
    world.begin_load(2_000.0, Duration::from_secs(3600));
    world.run_until(Duration::from_secs(600), |state| {
        state.stats.sends >= messages
    })?;
    world.drain(Duration::from_secs(30))?;

    let mut rounds = Vec::new();
    let mut failures = Vec::new();
    let overflows = listen_overflows();
    let cpu = CpuSample::of(server.pid()).map_err(SetupError)?;
    for round in 1..=args.rounds {
        world
            .progress
            .stage(&format!("storm {round} of {}", args.rounds));
        let seconds = storm(&mut world, args.drop_by, args.missed, args.limit)?;
        server.check_alive()?;
        rounds.push(seconds);
        world.progress.line(&format!(
            "storm {round}: all resumed after {seconds:.2} s; {}",
            world.state.line()
        ));
        if seconds > args.limit {
            failures.push(format!("storm {round} took {seconds:.2} s"));
        }
        failures.extend(forgotten(&mut world)?);
    }
    let spent = CpuSample::of(server.pid()).map_err(SetupError)?.since(&cpu);
    let memory = Memory::of(server.pid()).map_err(SetupError)?;
    let overflows = listen_overflows() - overflows;
    failures.extend(settle(&mut world, Duration::from_secs(30))?);

    let mut report = Report::default();
    report.section("storm");
    report.count("connections", args.connections as u64);
    report.count("missed_events_per_room", u64::from(args.missed));
    report.number("first_connect_of_all", first_us as f64 / 1e6, "s");
    let shown: Vec<String> = rounds.iter().map(|round| format!("{round:.2}")).collect();
    report.row("rounds_s", shown.join(", "), rounds.clone());
    report.number("median", median(&rounds), "s until all were resumed");
    report.count("listen_overflows", overflows);
    let per_resume = spent.cpu_s * 1e6 / (rounds.len().max(1) * args.connections) as f64;
    report.number("server_cpu_per_resume_us", per_resume, "µs");
    let pss_mib = memory.pss_bytes as f64 / (1 << 20) as f64;
    report.number("server_pss_after_mib", pss_mib, "MiB");
    report.stats(&world.state.stats);
    report.findings(&world.state.checker.findings);
    world.progress.finish();
    Ok(Ending::new(report, &world.state.checker.findings, failures))
}

/// Half-open connections have to be ended in this time, by the protocol.
const HALF_OPEN_MAX: Duration = Duration::from_secs(35);

/// Waits until the server has ended what clients left without a word; says so if it does not.
pub(super) fn forgotten(world: &mut World) -> Result<Option<String>, SetupError> {
    let left = world.abandoned();
    if left == 0 {
        return Ok(None);
    }
    let began_us = world.state.clock.now_us();
    // Not earlier, because the storm itself took a while; and some room for a busy machine.
    let limit = HALF_OPEN_MAX + Duration::from_secs(10);
    while world.abandoned() > 0 {
        let waited_us = world.state.clock.now_us() - began_us;
        if Duration::from_micros(waited_us) > limit {
            let left = world.abandoned();
            return Ok(Some(format!("{left} half-open connections were kept")));
        }
        world.run_for(Duration::from_millis(200))?;
    }
    let seconds = (world.state.clock.now_us() - began_us) as f64 / 1e6;
    let line = format!("{left} half-open connections were ended {seconds:.1} s after the storm");
    world.progress.line(&line);
    Ok(None)
}

/// One storm. Returns the seconds from the first `connect` until nobody lacks anything.
pub(super) fn storm(
    world: &mut World,
    drop_by: DropBy,
    missed: u32,
    limit_s: f64,
) -> Result<f64, SetupError> {
    let clients = world.state.clients.len() as u32;
    let all = || (0..clients).map(ClientIndex);
    world.drop_clients(all(), drop_by);
    world.forget_newest(u64::from(missed));
    world.state.settings.connects_in_flight_max = usize::MAX;
    let began_us = world.state.clock.now_us();
    world.want(all());
    let mut next_look_us = 0;
    let limit = Duration::from_secs_f64(limit_s.max(1.0) * 2.0);
    world.run_until(limit, |state| {
        let now_us = state.clock.now_us();
        if state.ready + state.stopped() < state.clients.len() || now_us < next_look_us {
            return false;
        }
        next_look_us = now_us + 20_000;
        state.behind() == 0
    })?;
    Ok((world.state.clock.now_us() - began_us) as f64 / 1e6)
}
