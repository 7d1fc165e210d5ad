//! Thousands of readers stop reading at once while the writers go on: the server's memory stays
//! bounded, the others notice nothing, and the stalled ones converge when they read again.

use std::time::Duration;

use clap::Args;

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, settings, settle};
use crate::engine::ConnectOptions;
use crate::ids::{ClientIndex, RoomIndex};
use crate::layout::Layout;
use crate::measure::{Memory, descriptors, tcp_memory_bytes};
use crate::progress::Progress;
use crate::report::Report;
use crate::world::{SetupError, World};

#[derive(Args, Clone, Debug)]
pub struct StallArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Readers that stop.
    #[arg(long, default_value_t = 2000)]
    pub stalled: usize,
    /// Stalled readers in each room.
    #[arg(long, default_value_t = 50)]
    pub stalled_per_room: usize,
    /// Members of each room that write and go on reading.
    #[arg(long, default_value_t = 4)]
    pub active_per_room: usize,
    /// Messages a second of each active member (the server allows 5).
    #[arg(long, default_value_t = 4.0)]
    pub rate_per_active: f64,
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 3500)]
    pub payload: u32,
    /// Seconds of stall at most; it ends early when all stalled connections are closed.
    #[arg(long, default_value_t = 90.0)]
    pub seconds: f64,
    /// Red if the server's memory grows by more.
    #[arg(long, default_value_t = 512.0)]
    pub pss_growth_max_mib: f64,
    /// The server is broken on purpose: succeed only if the checker finds one of these, by name.
    #[arg(long, value_name = "FINDING", num_args = 1.., value_delimiter = ',')]
    pub expect_red: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// # Errors
/// When the server does not start or the connections fail.
pub fn run(args: &StallArgs, progress: Progress) -> Result<Ending, SetupError> {
    let mut workshop = Workshop::new("stall")?;
    let plan = args.server.plan(&workshop.folder)?;
    let mut server = plan.start(&mut workshop.janitor)?;
    server.wait_ready(Duration::from_secs(15))?;
    let pid = server.pid();
    let rooms = args.stalled.div_ceil(args.stalled_per_room.max(1));
    let room_size = args.stalled_per_room + args.active_per_room;
    let layout = Layout::audience(rooms * room_size, room_size, args.active_per_room);
    let mut settings = settings(args.output.seed());
    settings.payload_bytes = args.payload;
    let mut world = World::new(plan.listen, "/v1/ws", &layout, settings, progress)?;
    let mut stalled: Vec<ClientIndex> = Vec::new();
    for room in 0..world.rooms() {
        stalled.extend_from_slice(&world.members(RoomIndex(room))[args.active_per_room..]);
    }
    stalled.truncate(args.stalled);
    for client in &stalled {
        // As little as possible in this machine's buffers, so that the server feels it soon.
        let options = ConnectOptions {
            receive_buffer_bytes: Some(8 << 10),
            ..ConnectOptions::default()
        };
        world.set_options(*client, options);
    }
    world.progress.stage("connecting");
    world.want_all();
    world.connect_wanted(Duration::from_secs(120))?;
    world.progress.stage("making rooms");
    world.make_rooms(Duration::from_secs(120))?;
    let rate = args.rate_per_active * (rooms * args.active_per_room) as f64;
    world.begin_load(rate, Duration::from_secs(24 * 3600));
    world.progress.stage("before the stall");
    let calm = window(&mut world, Duration::from_secs(4))?;
    let memory_before = Memory::of(pid).map_err(SetupError)?;
    let descriptors_before = descriptors(pid);

    let closes_before = world.state.stats.closes.clone();
    world.progress.stage("stalled");
    world.stall(stalled.iter().copied(), true);
    let rounds = args.seconds.max(1.0) as u32;
    let mut samples: Vec<(u32, f64, f64, usize)> = Vec::new();
    let mut stormy = calm;
    for second in 1..=rounds {
        stormy = window(&mut world, Duration::from_secs(1))?.max(stormy);
        server.check_alive()?;
        let memory = Memory::of(pid).map_err(SetupError)?;
        let open = descriptors(pid);
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        samples.push((second, mib(memory.pss_bytes), mib(tcp_memory_bytes()), open));
        if descriptors_before.saturating_sub(open) >= stalled.len() {
            break;
        }
    }
    let descriptors_after = descriptors(pid);
    world.end_load();
    let before_reading = world.state.line();
    world.progress.stage("reading again");
    world.progress.line(&before_reading);
    world.stall(stalled.iter().copied(), false);
    let failures = settle(&mut world, Duration::from_secs(120))?;

    let mut closes = world.state.stats.closes.clone();
    for (name, count) in &mut closes {
        *count -= closes_before.get(name).copied().unwrap_or(0);
    }
    closes.retain(|_, count| *count > 0);
    let still_open = stalled.len()
        - stalled
            .len()
            .min(descriptors_before.saturating_sub(descriptors_after));
    let pss_before = memory_before.pss_bytes as f64 / f64::from(1 << 20);
    let peak = samples.iter().map(|sample| sample.1).fold(0.0, f64::max);
    let growth = peak - pss_before;

    let mut report = Report::default();
    report.section("stall");
    report.count("stalled", stalled.len() as u64);
    report.count("still_open_when_they_read_again", still_open as u64);
    report.row("closes", format!("{closes:?}"), serde_json::json!(closes));
    report.number("pss_before_mib", pss_before, "MiB");
    report.number("pss_peak_mib", peak, "MiB");
    report.number("pss_growth_mib", growth, "MiB");
    let per_stalled = growth * 1024.0 / stalled.len().max(1) as f64;
    report.number("pss_growth_per_stalled_kib", per_stalled, "KiB");
    report.number("p99_of_the_others_before_ms", calm, "ms");
    report.number("worst_p99_of_the_others_in_a_second_ms", stormy, "ms");
    let shown: Vec<String> = samples
        .iter()
        .map(|(second, pss, tcp, open)| format!("{second} s: {pss:.0}/{tcp:.0} MiB, {open} fds"))
        .collect();
    report.row(
        "pss_and_kernel_tcp_memory",
        format!("\n      {}", shown.join("\n      ")),
        serde_json::json!(samples),
    );
    report.stats(&world.state.stats);
    report.findings(&world.state.checker.findings);
    world.progress.finish();
    let mut ending = Ending::new(report, &world.state.checker.findings, failures);
    if growth > args.pss_growth_max_mib {
        ending.failures.push(format!(
            "the server grew by {growth:.0} MiB, allowed are {:.0}",
            args.pss_growth_max_mib
        ));
    }
    if still_open > 0 {
        ending.failures.push(format!(
            "{still_open} stalled connections were still open after {rounds} s"
        ));
    }
    Ok(ending)
}

/// Runs for a while. Returns the p99 of deliveries due in it, in ms.
fn window(world: &mut World, time: Duration) -> Result<f64, SetupError> {
    let now_us = world.state.clock.now_us();
    world.state.stats.clear_latencies();
    world.state.stats.window_us = Some((now_us, now_us + crate::clock::us(time)));
    world.run_for(time)?;
    Ok(world.state.stats.delivery.summary().p99_ms)
}
