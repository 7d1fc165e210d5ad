//! The floor alone, and the server beside it: CPU per delivery in one run, with the same clients.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::common::{Ending, OutputArgs, ServerArgs, Workshop, pin_self, settings, settle};
use super::run::{LoadArgs, Measured, measure};
use crate::ids::ClientIndex;
use crate::janitor::{Duty, Janitor};
use crate::layout::Layout;
use crate::measure::CpuSample;
use crate::progress::Progress;
use crate::report::{Report, median};
use crate::server::free_address;
use crate::world::{SetupError, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Receives each message, then sends it to its room: what a chat server cannot do without.
    Echo,
    /// Only sends, at the asked rate, by itself.
    Pure,
}

#[derive(Args, Clone, Debug)]
pub struct ReferenceArgs {
    #[command(flatten)]
    pub load: LoadArgs,
    #[arg(long, value_enum, default_value_t = Mode::Echo)]
    pub mode: Mode,
    /// Keep the reference process on these cores, as `taskset` takes them.
    #[arg(long)]
    pub server_cpus: Option<String>,
    /// Keep this process on these cores.
    #[arg(long)]
    pub client_cpus: Option<String>,
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    #[command(flatten)]
    pub load: LoadArgs,
    #[arg(long, default_value_t = 10)]
    pub rounds: u32,
    /// Red if the server's median cost per delivery is more than so many times the echo floor's.
    #[arg(long)]
    pub ratio_max: Option<f64>,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The floor process. Dropped on an error, it is left to the janitor.
struct Floor {
    child: Child,
    duty: Duty,
    listen: SocketAddr,
}

impl Floor {
    fn start(cpus: Option<&str>, janitor: &mut Janitor) -> Result<Self, SetupError> {
        let listen = free_address()?;
        let own = std::env::current_exe()?;
        let mut command = match cpus {
            None => Command::new(&own),
            Some(cpus) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(cpus).arg(&own);
                command
            }
        };
        let child = command
            .arg("reference-server")
            .arg("--listen")
            .arg(listen.to_string())
            .stdin(Stdio::null())
            .spawn()?;
        let duty = janitor.promise(&format!("kill -9 {}; true", child.id()))?;
        let began = std::time::Instant::now();
        while std::net::TcpStream::connect(listen).is_err() {
            if began.elapsed() > Duration::from_secs(5) {
                return Err(SetupError("the reference does not listen".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self {
            child,
            duty,
            listen,
        })
    }

    fn stop(mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        self.child.kill()?;
        self.child.wait()?;
        janitor.take_back(self.duty)?;
        Ok(())
    }
}

/// # Errors
/// When the floor cannot be started or reached.
pub fn run(args: &ReferenceArgs, mut progress: Progress) -> Result<Ending, SetupError> {
    if args.load.mix.mix {
        return Err(SetupError("this measures sends only: no --mix".to_owned()));
    }
    pin_self(args.client_cpus.as_deref())?;
    let mut workshop = Workshop::new("reference")?;
    let mut report = Report::default();
    let (_, findings) = floor_round(
        &args.load,
        args.mode,
        args.server_cpus.as_deref(),
        args.output.seed(),
        &mut progress,
        &mut workshop,
        &mut report,
    )?;
    progress.finish();
    report.findings(&findings);
    Ok(Ending::new(report, &findings, Vec::new()))
}

/// Server, echo floor and pure floor by turns, each with its own fresh clients.
///
/// # Errors
/// When a round cannot be set up.
pub fn compare(args: &CompareArgs, mut progress: Progress) -> Result<Ending, SetupError> {
    if args.load.mix.mix {
        return Err(SetupError("this measures sends only: no --mix".to_owned()));
    }
    let cpus = args.server.server_cpus.as_deref();
    let mut costs: [Vec<f64>; 3] = Default::default();
    let mut p99: Vec<f64> = Vec::new();
    let mut failures = Vec::new();
    let mut report = Report::default();
    for round in 1..=args.rounds {
        let seed = args.output.seed() + u64::from(round);
        progress.stage(&format!("round {round} of {}", args.rounds));
        let mut workshop = Workshop::new("compare")?;
        let (measured, findings) = server_round(
            args,
            seed,
            &mut progress,
            &mut workshop,
            &mut Report::default(),
        )?;
        if !findings.is_clean() {
            failures.push(format!("round {round}: {:?}", findings.by_name()));
        }
        costs[0].extend(measured.cpu_us_per_delivery);
        p99.push(measured.p99_ms);
        for (place, mode) in [(1, Mode::Echo), (2, Mode::Pure)] {
            let (measured, _) = floor_round(
                &args.load,
                mode,
                cpus,
                seed,
                &mut progress,
                &mut workshop,
                &mut Report::default(),
            )?;
            costs[place].extend(measured.cpu_us_per_delivery);
        }
        let latest = |place: usize| costs[place].last().copied().unwrap_or(0.0);
        progress.line(&format!(
            "round {round}: server {:.2}, echo floor {:.2}, pure floor {:.2} µs per delivery; \
             server p99 {:.2} ms",
            latest(0),
            latest(1),
            latest(2),
            measured.p99_ms
        ));
    }
    progress.finish();
    let [server, echo, pure] = [0, 1, 2].map(|place: usize| median(&costs[place]));
    report.section("compare: median CPU of the server process per delivery");
    report.count("rounds", u64::from(args.rounds));
    report.count("connections", args.load.connections as u64);
    report.count("room_size", args.load.room_size as u64);
    report.number("rate", args.load.rate, "messages/s");
    report.number("server_us", server, "µs");
    report.number("echo_floor_us", echo, "µs");
    report.number("pure_floor_us", pure, "µs");
    let ratio = server / echo.max(1e-9);
    report.number("server_to_echo_floor", ratio, "times");
    report.number("server_to_pure_floor", server / pure.max(1e-9), "times");
    report.number("server_p99_ms", median(&p99), "ms");
    report.row(
        "all_rounds",
        format!("{costs:.2?}"),
        serde_json::json!(costs),
    );
    if args.ratio_max.is_some_and(|max| ratio > max) {
        failures.push(format!("{ratio:.2} times the floor"));
    }
    Ok(Ending {
        report,
        failures,
        found: Vec::new(),
    })
}

fn server_round(
    args: &CompareArgs,
    seed: u64,
    progress: &mut Progress,
    workshop: &mut Workshop,
    report: &mut Report,
) -> Result<(Measured, crate::checker::Findings), SetupError> {
    let plan = args.server.plan(&workshop.folder)?;
    let mut server = plan.start(&mut workshop.janitor)?;
    server.wait_ready(Duration::from_secs(15))?;
    let mut world = new_world(plan.listen, &args.load, seed, progress)?;
    let measured = measure(&mut world, &args.load, Some(server.pid()), report)?;
    let failures = settle(&mut world, Duration::from_secs_f64(args.load.drain))?;
    if !failures.is_empty() {
        return Err(SetupError(failures.join("; ")));
    }
    server.check_alive()?;
    *progress = std::mem::take(&mut world.progress);
    let findings = world.state.checker.findings.clone();
    drop(world);
    server.kill(&mut workshop.janitor)?;
    Ok((measured, findings))
}

fn floor_round(
    load: &LoadArgs,
    mode: Mode,
    cpus: Option<&str>,
    seed: u64,
    progress: &mut Progress,
    workshop: &mut Workshop,
    report: &mut Report,
) -> Result<(Measured, crate::checker::Findings), SetupError> {
    let floor = Floor::start(cpus, &mut workshop.janitor)?;
    let mut world = new_world(floor.listen, load, seed, progress)?;
    let pid = floor.child.id();
    let measured = match mode {
        Mode::Echo => measure(&mut world, load, Some(pid), report)?,
        Mode::Pure => measure_pure(&mut world, load, pid, report)?,
    };
    // The floor has no history to read: what was delivered in order is all there is.
    world.drain(Duration::from_secs_f64(load.drain))?;
    *progress = std::mem::take(&mut world.progress);
    floor.stop(&mut workshop.janitor)?;
    Ok((measured, world.state.checker.findings.clone()))
}

fn new_world(
    target: SocketAddr,
    load: &LoadArgs,
    seed: u64,
    progress: &mut Progress,
) -> Result<World, SetupError> {
    let layout = Layout::grid(load.connections, load.room_size, load.rooms_per_user);
    let mut settings = settings(seed);
    settings.payload_bytes = load.payload;
    World::new(
        target,
        "/v1/ws",
        &layout,
        settings,
        std::mem::take(progress),
    )
}

fn measure_pure(
    world: &mut World,
    load: &LoadArgs,
    pid: u32,
    report: &mut Report,
) -> Result<Measured, SetupError> {
    world.progress.stage("connecting to the pure floor");
    world.want_all();
    world.connect_wanted(Duration::from_secs(120))?;
    world.make_rooms(Duration::from_secs(300))?;
    let seconds = load.warmup + load.duration + 1.0;
    let go = format!(
        r#"{{"type":"reference.go","data":{{"rate":{:.3},"seconds":{seconds:.3},"payload_bytes":{}}}}}"#,
        load.rate, load.payload
    );
    if let Some(id) = world.state.clients[ClientIndex(0).index()].conn {
        world.engine.send_text(id, go.as_bytes());
    }
    world.run_for(Duration::from_secs_f64(load.warmup))?;
    let cpu = CpuSample::of(pid).map_err(SetupError)?;
    let before = world.state.stats.deliveries;
    world.run_for(Duration::from_secs_f64(load.duration))?;
    let spent = CpuSample::of(pid).map_err(SetupError)?.since(&cpu);
    let deliveries = world.state.stats.deliveries - before;
    let per_delivery = spent.cpu_s * 1e6 / deliveries.max(1) as f64;
    report.section("pure floor");
    report.number(
        "delivery_rate",
        deliveries as f64 / spent.wall_s,
        "deliveries/s",
    );
    report.number("cpu_per_delivery_us", per_delivery, "µs");
    Ok(Measured {
        cpu_us_per_delivery: Some(per_delivery),
        deliveries,
        ..Measured::default()
    })
}
