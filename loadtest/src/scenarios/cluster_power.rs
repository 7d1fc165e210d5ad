//! Power cuts of the database's machine under the load of several nodes, which live on: what was
//! acknowledged before the cut must be on the disk.
//!
//! The model of a cut: first the lines to PostgreSQL carry nothing any more, so that no node hears of
//! a commit after the instant; then the disk is copied in mid-write, PostgreSQL is killed, the copy
//! takes the disk's place, and it starts again on that. Nothing that a node or a client learned is
//! void, so the witness needs no rewinding, unlike in `power`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, settings, settle};
use crate::cluster::{Cluster, ClusterArgs};
use crate::disk::{Disk, FileSystem};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::proxy::Mode;
use crate::random::Random;
use crate::report::{Report, median};
use crate::world::{SetupError, World};

#[derive(Args, Clone, Debug)]
pub struct ClusterPowerArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Shards of each node, one number a node.
    #[arg(long, value_delimiter = ',', default_value = "1,2")]
    pub shards: Vec<u32>,
    /// NAME=VALUE for the private PostgreSQL; may be repeated.
    #[arg(long = "postgres-setting", value_name = "NAME=VALUE")]
    pub postgres_settings: Vec<String>,
    /// Keep the logs of all programs here, instead of throwing them away in the end.
    #[arg(long)]
    pub logs: Option<PathBuf>,
    #[arg(long, default_value_t = 20)]
    pub cuts: u32,
    #[arg(long, default_value_t = 200)]
    pub clients: usize,
    /// Every client is in one room of each size.
    #[arg(long, value_delimiter = ',', default_value = "2,4,50")]
    pub rooms_of: Vec<usize>,
    /// Messages a second, over all rooms.
    #[arg(long, default_value_t = 300.0)]
    pub rate: f64,
    /// The file system under PostgreSQL.
    #[arg(long, value_enum, default_value_t = FileSystem::Ext4)]
    pub file_system: FileSystem,
    /// Something is broken on purpose: succeed only if the checker finds one of these, by name.
    #[arg(long, value_name = "FINDING", num_args = 1.., value_delimiter = ',')]
    pub expect_red: Vec<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Until sends are acknowledged again after a cut.
const RECOVERY_LIMIT: Duration = Duration::from_secs(60);

struct Power {
    disk: Disk,
    cluster: Cluster,
    world: World,
    workshop: Workshop,
    copy_ms_max: f64,
    resumed_s: Vec<f64>,
}

/// # Errors
/// When the disks cannot be made, the cluster does not start, or the first connections fail.
pub fn run(args: &ClusterPowerArgs, progress: Progress) -> Result<Ending, SetupError> {
    let seed = args.output.seed();
    let mut random = Random::new(seed);
    let mut workshop = Workshop::new("cluster-power")?;
    progress.line(&format!("seed {seed}"));
    let mut disk = Disk::new(&workshop.folder, args.file_system, &mut workshop.janitor)?;
    disk.attach(&mut workshop.janitor)?;
    let cluster = Cluster::start(
        &args.server,
        &ClusterArgs {
            shards: args.shards.clone(),
            postgres_settings: args.postgres_settings.clone(),
            upgrade_from: None,
            logs: args.logs.clone(),
        },
        Some(data_dir(&disk)),
        &mut workshop,
    )?;
    let layout = Layout::mixed(args.clients, &args.rooms_of);
    let targets = cluster.targets();
    let world = World::over(&targets, "/v1/ws", &layout, settings(seed), progress)?;
    let mut power = Power {
        disk,
        cluster,
        world,
        workshop,
        copy_ms_max: 0.0,
        resumed_s: Vec::new(),
    };
    let world = &mut power.world;
    world.progress.stage("connecting");
    world.want_all();
    world.connect_wanted(Duration::from_secs(60))?;
    world.progress.stage("making rooms");
    world.make_rooms(Duration::from_secs(120))?;
    world.begin_load(args.rate, Duration::from_secs(24 * 3600));

    let mut cuts_done = 0;
    let mut failures = Vec::new();
    for cut in 1..=args.cuts {
        let stage = format!("cut {cut} of {}", args.cuts);
        power.world.progress.stage(&stage);
        let wait_ms = random.between(500, 2000);
        power.world.run_for(Duration::from_millis(wait_ms))?;
        cuts_done = cut;
        if let Err(error) = power.cut() {
            failures.push(format!("cut {cut}: {error}"));
            break;
        }
        let line = format!(
            "cut {cut}/{} after {wait_ms} ms: acknowledged again {:.2} s after it was back; {}",
            args.cuts,
            power.resumed_s.last().copied().unwrap_or(0.0),
            power.world.state.line()
        );
        power.world.progress.line(&line);
        if !power.world.state.checker.findings.is_clean() {
            power.world.progress.line("red: no further cuts");
            break;
        }
    }
    let Power {
        mut cluster,
        mut world,
        copy_ms_max,
        resumed_s,
        ..
    } = power;
    let mut deadlocks = 0;
    if failures.is_empty() {
        world.run_for(Duration::from_millis(500))?;
        failures.extend(settle(&mut world, Duration::from_secs(30))?);
        deadlocks = cluster.postgres.deadlocks()?;
    }
    if deadlocks > 0 {
        failures.push(format!("{deadlocks} deadlocks"));
    }

    let mut report = Report::default();
    report.section("cluster power");
    report.count("seed", seed);
    report.count("nodes", cluster.nodes.len() as u64);
    report.count("cuts", u64::from(cuts_done));
    report.number("longest_copy_ms", copy_ms_max, "ms");
    report.number(
        "sends_resumed_after_median",
        median(&resumed_s),
        "s (goal 2)",
    );
    let slowest = resumed_s.iter().copied().fold(0.0, f64::max);
    report.number("sends_resumed_after_slowest", slowest, "s");
    report.count("deadlocks", deadlocks);
    report.stats(&world.state.stats);
    report.findings(&world.state.checker.findings);
    world.progress.finish();
    Ok(Ending::new(report, &world.state.checker.findings, failures))
}

fn data_dir(disk: &Disk) -> PathBuf {
    disk.mount.join("postgres")
}

impl Power {
    /// One cut, and the machine's next boot.
    ///
    /// # Errors
    /// When PostgreSQL, the nodes or the sends do not come back.
    fn cut(&mut self) -> Result<(), SetupError> {
        let Self {
            disk,
            cluster,
            world,
            workshop,
            ..
        } = self;
        cluster.check_alive()?;
        cluster.set_postgres_lines(Mode::BlackHole)?;
        let began_us = world.state.clock.now_us();
        let mut copy = disk.begin_cut()?;
        let status = world.aside(|| copy.wait())??;
        let copy_ms = (world.state.clock.now_us() - began_us) as f64 / 1e3;
        self.copy_ms_max = self.copy_ms_max.max(copy_ms);
        if !status.success() {
            return Err(SetupError(format!("cp --reflink: {status}")));
        }
        world.aside(|| cluster.postgres.kill(&mut workshop.janitor))??;
        // What the dead machine had sent and nobody received is lost with it.
        cluster.set_postgres_lines(Mode::Cut)?;
        world.run_for(Duration::from_millis(200))?;
        world.aside(|| {
            disk.finish_cut(&mut workshop.janitor)?;
            cluster.postgres.launch(&mut workshop.janitor)?;
            cluster.postgres.wait_accepting()
        })??;
        cluster.set_postgres_lines(Mode::Pass)?;
        let back_us = world.state.clock.now_us();
        let before = world.state.acks_by_node();
        let is_resumed = world.run_until(RECOVERY_LIMIT, |state| {
            let now = state.acks_by_node();
            now.iter().zip(&before).all(|(now, before)| now > before)
        })?;
        cluster.check_alive()?;
        // Clients that are stopped by what was lost send nothing: that is a finding already.
        if !is_resumed && world.state.checker.findings.is_clean() {
            return Err(SetupError(format!(
                "sends are not acknowledged again: {}, errors {:?}, closes {:?}",
                world.state.line(),
                world.state.stats.errors,
                world.state.stats.closes
            )));
        }
        let seconds = (world.state.clock.now_us() - back_us) as f64 / 1e6;
        self.resumed_s.push(seconds);
        Ok(())
    }
}
