//! A short real run against a server that it starts and ends itself: for every commit.

use std::time::Duration;

use clap::Args;

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, settings};
use super::mixed::MixArgs;
use super::run::{LoadArgs, finish, measure};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::report::Report;
use crate::world::{SetupError, World};

#[derive(Args, Clone, Debug)]
pub struct SmokeArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub mix: MixArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// # Errors
/// When the server does not start or the run cannot be set up.
pub fn run(args: &SmokeArgs, progress: Progress) -> Result<Ending, SetupError> {
    let mut workshop = Workshop::new("smoke")?;
    let mut plan = args.server.plan(&workshop.folder)?;
    // First, so that the command line wins.
    plan.env
        .insert(0, ("CAFFIS_DRAIN_MS".to_owned(), "1000".to_owned()));
    let mut server = plan.start(&mut workshop.janitor)?;
    server.wait_ready(Duration::from_secs(10))?;
    let load = LoadArgs {
        connections: 200,
        room_size: 4,
        rate: if args.mix.mix { 600.0 } else { 200.0 },
        duration: if args.mix.mix { 10.0 } else { 4.0 },
        payload: 150,
        warmup: 1.0,
        idle: 0.0,
        rooms_per_user: 1,
        probe_every: 50,
        drain: 5.0,
        mix: args.mix.clone(),
    };
    let layout = Layout::grid(load.connections, load.room_size, load.rooms_per_user);
    let mut settings = settings(args.output.seed());
    settings.payload_bytes = load.payload;
    settings.probe_every = load.probe_every;
    settings.mix = load.mix.shares();
    let mut world = World::new(plan.listen, "/v1/ws", &layout, settings, progress)?;
    let mut report = Report::default();
    measure(&mut world, &load, Some(server.pid()), &mut report)?;
    let mut ending = finish(&mut world, &load, report)?;
    server.check_alive()?;
    // With all clients still connected: the server has to say goodbye to them.
    world.progress.stage("asking it to end");
    server.signal("TERM")?;
    world.let_go();
    let is_empty = world.run_until(Duration::from_secs(10), |state| state.ready == 0)?;
    if !is_empty {
        let left = world.state.ready;
        ending
            .failures
            .push(format!("{left} clients were not let go"));
    }
    let goodbyes = &world.state.stats.closes;
    ending.report.section("after SIGTERM");
    ending.report.map("closes", &serde_json::json!(goodbyes));
    let status = server.wait_ended(&mut workshop.janitor, Duration::from_secs(5))?;
    if !status.success() {
        ending
            .failures
            .push(format!("after SIGTERM the server ended with {status}"));
    }
    Ok(ending)
}
