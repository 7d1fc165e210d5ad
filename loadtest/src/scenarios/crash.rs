//! kill -9 under load, again and again, on one data folder: nothing acknowledged may be lost,
//! doubled or out of order.

use std::time::Duration;

use clap::Args;

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, settings, settle};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::random::Random;
use crate::report::Report;
use crate::world::{SetupError, World};

#[derive(Args, Clone, Debug)]
pub struct CrashArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[arg(long, default_value_t = 20)]
    pub kills: u32,
    #[arg(long, default_value_t = 200)]
    pub connections: usize,
    #[arg(long, default_value_t = 4)]
    pub room_size: usize,
    /// Messages a second, over all rooms.
    #[arg(long, default_value_t = 300.0)]
    pub rate: f64,
    /// The server is broken on purpose: succeed only if the checker finds one of these, by name.
    #[arg(long, value_name = "FINDING", num_args = 1.., value_delimiter = ',')]
    pub expect_red: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// # Errors
/// When the server does not start (again) or the clients do not come back.
pub fn run(args: &CrashArgs, progress: Progress) -> Result<Ending, SetupError> {
    let seed = args.output.seed();
    let mut random = Random::new(seed);
    let mut workshop = Workshop::new("crash")?;
    let plan = args.server.plan(&workshop.folder)?;
    let mut server = plan.start(&mut workshop.janitor)?;
    server.wait_ready(Duration::from_secs(15))?;
    let layout = Layout::grid(args.connections, args.room_size, 1);
    let mut settings = settings(seed);
    settings.probe_every = 100;
    let mut world = World::new(plan.listen, "/v1/ws", &layout, settings, progress)?;
    world.progress.line(&format!("seed {seed}"));
    world.progress.stage("connecting");
    world.want_all();
    world.connect_wanted(Duration::from_secs(60))?;
    world.progress.stage("making rooms");
    world.make_rooms(Duration::from_secs(60))?;
    world.begin_load(args.rate, Duration::from_secs(7 * 24 * 3600));

    let mut back_us_max = 0;
    let mut kills_done = 0;
    let mut failures = Vec::new();
    for kill in 1..=args.kills {
        world
            .progress
            .stage(&format!("kill {kill} of {}", args.kills));
        let wait_ms = random.between(300, 2000);
        world.run_for(Duration::from_millis(wait_ms))?;
        server.check_alive()?;
        server.kill(&mut workshop.janitor)?;
        let killed_us = world.state.clock.now_us();
        // Everybody has to notice, or nobody would have to come back.
        world.run_until(Duration::from_secs(5), |state| state.ready == 0)?;
        server = plan.start(&mut workshop.janitor)?;
        let is_back = world.run_until(Duration::from_secs(30), |state| {
            state.ready + state.stopped() >= state.wanted()
        })?;
        kills_done = kill;
        // A server that does not come back from a kill is a finding, not a bad setting.
        if let Err(error) = server.check_alive() {
            failures.push(format!("after kill {kill}: {error}"));
            break;
        }
        if !is_back {
            failures.push(format!(
                "kill {kill}: after 30 s only {} clients are back; closes {:?}",
                world.state.ready, world.state.stats.closes
            ));
            break;
        }
        let back_us = world.state.clock.now_us() - killed_us;
        back_us_max = back_us.max(back_us_max);
        let line = format!(
            "kill {kill}/{} after {wait_ms} ms: all back in {:.2} s; {}",
            args.kills,
            back_us as f64 / 1e6,
            world.state.line()
        );
        world.progress.line(&line);
        if !world.state.checker.findings.is_clean() {
            world.progress.line("red: no further kills");
            break;
        }
    }
    if failures.is_empty() {
        world.run_for(Duration::from_millis(500))?;
        failures.extend(settle(&mut world, Duration::from_secs(20))?);
    }

    let mut report = Report::default();
    report.section("crash");
    report.count("seed", seed);
    report.count("kills", u64::from(kills_done));
    report.number("slowest_return", back_us_max as f64 / 1e6, "s");
    report.stats(&world.state.stats);
    report.findings(&world.state.checker.findings);
    world.progress.finish();
    Ok(Ending::new(report, &world.state.checker.findings, failures))
}
