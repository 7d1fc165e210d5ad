//! The command line. Exit codes: 0 all well, 1 something was found, 2 the run could not be made.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use loadtest::progress::Progress;
use loadtest::scenarios::common::{Ending, OutputArgs};
use loadtest::scenarios::{
    cluster, cluster_power, cluster_storm, crash, power, reference, run, slow, smoke, stall, storm,
};
use loadtest::world::SetupError;

#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a running server and check every delivery.
    Run(run::RunArgs),
    /// Start a server, load it for some seconds, end it: under 15 s.
    Smoke(smoke::SmokeArgs),
    /// kill -9 the server again and again under load.
    Crash(crash::CrashArgs),
    /// Cut the server's disk off in mid-write, as a power cut does (needs root).
    Power(power::PowerArgs),
    /// Thousands of readers stop reading at once.
    Stall(stall::StallArgs),
    /// One client on a slow line catches up after a long absence.
    Slow(slow::SlowArgs),
    /// All clients drop and come back at once.
    Storm(storm::StormArgs),
    /// Several nodes on PostgreSQL and Redis, and one thing after the other goes wrong.
    Cluster(cluster::ClusterScenarioArgs),
    /// All clients of a cluster drop and come back at once: seconds, and statements of the database.
    ClusterStorm(cluster_storm::ClusterStormArgs),
    /// Cut PostgreSQL's disk off in mid-write under the load of two nodes (needs root).
    ClusterPower(cluster_power::ClusterPowerArgs),
    /// What the bare sends cost, without a server.
    Reference(reference::ReferenceArgs),
    /// The server's cost per delivery beside the bare sends', by turns.
    Compare(reference::CompareArgs),
    /// The process that does the bare sends.
    #[command(hide = true)]
    ReferenceServer(ReferenceServerArgs),
}

#[derive(Args)]
struct ReferenceServerArgs {
    #[arg(long)]
    listen: SocketAddr,
}

fn main() -> ExitCode {
    let progress = Progress::new();
    let (ended, output, expect_red) = match Cli::parse().command {
        Command::Run(args) => (run::run(&args, progress), args.output, Vec::new()),
        Command::Smoke(args) => (smoke::run(&args, progress), args.output, Vec::new()),
        Command::Crash(args) => (crash::run(&args, progress), args.output, args.expect_red),
        Command::Power(args) => (power::run(&args, progress), args.output, args.expect_red),
        Command::Stall(args) => (stall::run(&args, progress), args.output, args.expect_red),
        Command::Slow(args) => (slow::run(&args, progress), args.output, Vec::new()),
        Command::Storm(args) => (storm::run(&args, progress), args.output, Vec::new()),
        Command::Cluster(args) => (cluster::run(&args, progress), args.output, args.expect_red),
        Command::ClusterStorm(args) => {
            let ended = cluster_storm::run(&args, progress);
            (ended, args.output, Vec::new())
        }
        Command::ClusterPower(args) => {
            let ended = cluster_power::run(&args, progress);
            (ended, args.output, args.expect_red)
        }
        Command::Reference(args) => (reference::run(&args, progress), args.output, Vec::new()),
        Command::Compare(args) => (reference::compare(&args, progress), args.output, Vec::new()),
        Command::ReferenceServer(args) => {
            return match loadtest::reference::serve(args.listen) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error.to_string()),
            };
        }
    };
    match ended.and_then(|ending| tell(&ending, &output).map(|()| ending)) {
        Ok(ending) if expect_red.is_empty() => judge(&ending.failures),
        Ok(ending) => judge_red(&ending, &expect_red),
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::from(2)
}

fn tell(ending: &Ending, output: &OutputArgs) -> Result<(), SetupError> {
    ending.report.print();
    if let Some(path) = &output.json {
        ending
            .report
            .write(path)
            .map_err(|error| SetupError(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

fn judge(failures: &[String]) -> ExitCode {
    for failure in failures {
        println!("RED: {failure}");
    }
    if !failures.is_empty() {
        return ExitCode::FAILURE;
    }
    println!("green");
    ExitCode::SUCCESS
}

/// The server was broken on purpose: the proof stands if it saw just that.
fn judge_red(ending: &Ending, expected: &[String]) -> ExitCode {
    for failure in &ending.failures {
        println!("as expected: {failure}");
    }
    let seen = |name: &String| ending.found.contains(&name.as_str());
    if expected.iter().any(seen) {
        return ExitCode::SUCCESS;
    }
    println!("RED: the server was broken on purpose and none of {expected:?} was found");
    ExitCode::FAILURE
}
