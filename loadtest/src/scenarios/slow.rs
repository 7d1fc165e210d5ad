//! One client on a slow line comes back after a long absence from many rooms: it must get
//! everything, however long that takes, and must not be taken for a client that does not read.

use std::time::Duration;

use clap::Args;

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, settings, settle};
use crate::engine::ConnectOptions;
use crate::ids::ClientIndex;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::report::Report;
use crate::world::{DropBy, Phase, SetupError, World};

#[derive(Args, Clone, Debug)]
pub struct SlowArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[arg(long, default_value_t = 200)]
    pub rooms: usize,
    /// Missed messages in each room.
    #[arg(long, default_value_t = 300)]
    pub messages: u64,
    /// Bytes of each message's text.
    #[arg(long, default_value_t = 4000)]
    pub payload: u32,
    /// The line's speed in bit/s.
    #[arg(long, default_value_t = 1_000_000)]
    pub bits_per_s: u64,
    /// Messages a second of each writer (the server allows 5).
    #[arg(long, default_value_t = 4.0)]
    pub rate_per_writer: f64,
    #[command(flatten)]
    pub output: OutputArgs,
}

const SLOW: ClientIndex = ClientIndex(0);

/// # Errors
/// When the server does not start or the messages cannot be written.
pub fn run(args: &SlowArgs, progress: Progress) -> Result<Ending, SetupError> {
    let mut workshop = Workshop::new("slow")?;
    let plan = args.server.plan(&workshop.folder)?;
    let mut server = plan.start(&mut workshop.janitor)?;
    server.wait_ready(Duration::from_secs(15))?;
    let layout = Layout::star(args.rooms);
    let mut settings = settings(args.output.seed());
    settings.payload_bytes = args.payload;
    let mut world = World::new(plan.listen, "/v1/ws", &layout, settings, progress)?;
    world.progress.stage("connecting");
    world.want_all();
    world.connect_wanted(Duration::from_secs(60))?;
    world.progress.stage("making rooms");
    world.make_rooms(Duration::from_secs(60))?;
    world.drop_clients(std::iter::once(SLOW), DropBy::Fin);
    world.progress.stage("writing what is missed");
    let messages = args.messages * args.rooms as u64;
    let rate = args.rate_per_writer * args.rooms as f64;
    world.begin_load(rate, Duration::from_secs(24 * 3600));
    let write_limit = Duration::from_secs_f64(messages as f64 / rate * 2.0 + 60.0);
    let is_written = world.run_until(write_limit, |state| state.stats.sends >= messages)?;
    let is_drained = world.drain(Duration::from_secs(60))?;
    if !is_written || !is_drained {
        return Err(SetupError(format!(
            "only {} of {messages} messages were written",
            world.state.stats.acks
        )));
    }

    world.progress.stage("reading slowly");
    let closes_before: u64 = world.state.stats.closes.values().sum();
    let bytes_before = world.engine.counts.bytes_received;
    world.set_options(
        SLOW,
        ConnectOptions {
            receive_buffer_bytes: Some(16 << 10),
            read_bytes_per_s: Some(args.bits_per_s / 8),
        },
    );
    let began_us = world.state.clock.now_us();
    world.want(std::iter::once(SLOW));
    // Three times what the bytes alone need.
    let bytes = messages * u64::from(args.payload + 500);
    let limit_s = bytes as f64 * 8.0 / args.bits_per_s as f64 * 3.0 + 60.0;
    let mut next_look_us = 0;
    let has_all = world.run_until(Duration::from_secs_f64(limit_s), |state| {
        let now_us = state.clock.now_us();
        if now_us < next_look_us {
            return false;
        }
        next_look_us = now_us + 100_000;
        state.clients[SLOW.index()].phase == Phase::Ready && state.behind() == 0
    })?;
    let seconds = (world.state.clock.now_us() - began_us) as f64 / 1e6;
    let closes = world.state.stats.closes.values().sum::<u64>() - closes_before;
    let received = world.engine.counts.bytes_received - bytes_before;
    server.check_alive()?;
    let failures = settle(&mut world, Duration::from_secs(10))?;

    let mut report = Report::default();
    report.section("slow");
    report.count("rooms", args.rooms as u64);
    report.count("missed_messages", messages);
    report.number("time_until_it_had_everything", seconds, "s");
    report.count("closes_meanwhile", closes);
    report.number("received_mib", received as f64 / f64::from(1 << 20), "MiB");
    let kbit = received as f64 * 8.0 / seconds.max(1e-9) / 1000.0;
    report.number("line_use_kbit_per_s", kbit, "kbit/s");
    report.stats(&world.state.stats);
    report.findings(&world.state.checker.findings);
    world.progress.finish();
    let mut ending = Ending::new(report, &world.state.checker.findings, failures);
    if !has_all {
        ending
            .failures
            .push(format!("after {seconds:.0} s it still lacked something"));
    }
    if closes > 0 {
        ending
            .failures
            .push(format!("it was closed {closes} times while it was reading"));
    }
    Ok(ending)
}
