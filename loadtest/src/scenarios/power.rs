//! Power cuts under load: what was acknowledged before the cut must be on the disk.
//!
//! The model of a cut: the clients' knowledge is frozen before the copy of the disk begins. Acks and
//! events that arrive while it is taken are void, since on a real cut nothing arrives after it; a
//! message first sent then may exist or not. Then the server is killed, the copy takes the disk's
//! place, and the clients go on from what they knew before the cut.

use std::time::Duration;

use clap::Args;

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, settings, settle};
use crate::disk::{Disk, FileSystem};
use crate::ids::ClientIndex;
use crate::layout::Layout;
use crate::progress::Progress;
use crate::random::Random;
use crate::report::Report;
use crate::server::{Server, ServerPlan};
use crate::world::{DropBy, SetupError, World};

#[derive(Args, Clone, Debug)]
pub struct PowerArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[arg(long, default_value_t = 10)]
    pub cuts: u32,
    #[arg(long, default_value_t = 100)]
    pub connections: usize,
    #[arg(long, default_value_t = 4)]
    pub room_size: usize,
    /// Messages a second, over all rooms.
    #[arg(long, default_value_t = 300.0)]
    pub rate: f64,
    /// The file system under the server.
    #[arg(long, value_enum, default_value_t = FileSystem::Ext4)]
    pub file_system: FileSystem,
    /// The server is broken on purpose: succeed only if the checker finds one of these, by name.
    #[arg(long, value_name = "FINDING", num_args = 1.., value_delimiter = ',')]
    pub expect_red: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// # Errors
/// When the disks cannot be made, the server does not start (again), or the clients do not come back.
pub fn run(args: &PowerArgs, progress: Progress) -> Result<Ending, SetupError> {
    let seed = args.output.seed();
    let mut random = Random::new(seed);
    let mut workshop = Workshop::new("power")?;
    let mut disk = Disk::new(&workshop.folder, args.file_system, &mut workshop.janitor)?;
    disk.attach(&mut workshop.janitor)?;
    let mut plan = args.server.plan(&workshop.folder)?;
    plan.data_dir = disk.mount.join("data");
    std::fs::create_dir(&plan.data_dir)?;
    let mut server = start(&plan, &mut workshop)?;
    let layout = Layout::grid(args.connections, args.room_size, 1);
    let mut world = World::new(plan.listen, "/v1/ws", &layout, settings(seed), progress)?;
    world.progress.line(&format!("seed {seed}"));
    world.progress.stage("connecting");
    world.want_all();
    world.connect_wanted(Duration::from_secs(60))?;
    world.progress.stage("making rooms");
    world.make_rooms(Duration::from_secs(60))?;

    let mut cuts_done = 0;
    let mut failures = Vec::new();
    let mut void_acks = 0;
    let mut copy_ms_max = 0.0_f64;
    for cut in 1..=args.cuts {
        world.progress.stage(&format!("cut {cut} of {}", args.cuts));
        world.begin_load(args.rate, Duration::from_secs(3600));
        let wait_ms = random.between(300, 2000);
        world.run_for(Duration::from_millis(wait_ms))?;
        server.check_alive()?;

        let snapshot = world.state.checker.clone();
        let acks_before = world.state.stats.acks;
        let began_us = world.state.clock.now_us();
        let mut copy = disk.begin_cut()?;
        let status = loop {
            world.turn()?;
            if let Some(status) = copy.try_wait()? {
                break status;
            }
        };
        let copy_ms = (world.state.clock.now_us() - began_us) as f64 / 1e3;
        copy_ms_max = copy_ms_max.max(copy_ms);
        if !status.success() {
            return Err(SetupError(format!("cp --reflink: {status}")));
        }
        let void = world.state.stats.acks - acks_before;
        void_acks += void;
        server.kill(&mut workshop.janitor)?;
        world.end_load();
        let all = || (0..args.connections as u32).map(ClientIndex);
        world.drop_clients(all(), DropBy::Reset);
        disk.finish_cut(&mut workshop.janitor)?;
        cuts_done = cut;
        world.restore(snapshot);
        world.want_all();
        // A server that cannot start on what the disk held is a finding, not a bad setting.
        server = match start(&plan, &mut workshop) {
            Ok(server) => server,
            Err(error) => {
                failures.push(format!("after cut {cut}: {error}"));
                break;
            }
        };
        if let Err(error) = world.connect_wanted(Duration::from_secs(30)) {
            failures.push(format!("after cut {cut}: {error}"));
            break;
        }
        let line = format!(
            "cut {cut}/{} after {wait_ms} ms, copied in {copy_ms:.1} ms, {void} acks void; {}",
            args.cuts,
            world.state.line()
        );
        world.progress.line(&line);
        if !world.state.checker.findings.is_clean() {
            world.progress.line("red: no further cuts");
            break;
        }
    }
    if failures.is_empty() {
        world.begin_load(args.rate, Duration::from_millis(500));
        world.run_for(Duration::from_millis(500))?;
        failures.extend(settle(&mut world, Duration::from_secs(20))?);
    }

    let mut report = Report::default();
    report.section("power");
    report.count("seed", seed);
    report.count("cuts", u64::from(cuts_done));
    report.count("void_acks", void_acks);
    report.number("longest_copy_ms", copy_ms_max, "ms");
    report.stats(&world.state.stats);
    report.findings(&world.state.checker.findings);
    world.progress.finish();
    Ok(Ending::new(report, &world.state.checker.findings, failures))
}

fn start(plan: &ServerPlan, workshop: &mut Workshop) -> Result<Server, SetupError> {
    let mut server = plan.start(&mut workshop.janitor)?;
    server.wait_ready(Duration::from_secs(20))?;
    Ok(server)
}
