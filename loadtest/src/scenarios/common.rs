//! What scenarios share: arguments, the end of every run, private folders.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::checker::Findings;
use crate::janitor::Janitor;
use crate::report::Report;
use crate::server::{ServerPlan, TEST_SECRET};
use crate::world::{Settings, SetupError, World};

/// How a scenario ended.
pub struct Ending {
    pub report: Report,
    /// In a sentence each; empty when all was well.
    pub failures: Vec<String>,
    /// Names of what the checker found.
    pub found: Vec<&'static str>,
}

impl Ending {
    /// `failures` beside what the checker found.
    pub fn new(report: Report, findings: &Findings, mut failures: Vec<String>) -> Self {
        let by_name = findings.by_name();
        if !findings.is_clean() {
            failures.push(format!("the checker found {by_name:?}"));
        }
        let found = by_name.into_keys().collect();
        Self {
            report,
            failures,
            found,
        }
    }
}

#[derive(Args, Clone, Debug)]
pub struct ServerArgs {
    /// The server program.
    #[arg(long)]
    pub server: PathBuf,
    /// KEY=VALUE for the server's environment; may be repeated.
    #[arg(long = "server-env", value_name = "KEY=VALUE", value_parser = key_value)]
    pub server_env: Vec<(String, String)>,
    /// An argument for the server; may be repeated.
    #[arg(long = "server-arg", allow_hyphen_values = true)]
    pub server_arg: Vec<String>,
    /// Keep the server on these cores and the clients off them, as `taskset` takes them.
    #[arg(long)]
    pub server_cpus: Option<String>,
    /// Keep this process on these cores.
    #[arg(long)]
    pub client_cpus: Option<String>,
}

impl ServerArgs {
    /// # Errors
    /// When the program is not there.
    pub fn plan(&self, folder: &Path) -> Result<ServerPlan, SetupError> {
        if !self.server.is_file() {
            return Err(SetupError(format!(
                "no server program at {}",
                self.server.display()
            )));
        }
        pin_self(self.client_cpus.as_deref())?;
        let program = self.server.canonicalize()?;
        let mut plan = ServerPlan::new(&program, folder)?;
        plan.args.clone_from(&self.server_arg);
        plan.env.clone_from(&self.server_env);
        plan.cpus.clone_from(&self.server_cpus);
        Ok(plan)
    }
}

#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// Write the report as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Repeats a run's random choices.
    #[arg(long)]
    pub seed: Option<u64>,
}

impl OutputArgs {
    pub fn seed(&self) -> u64 {
        self.seed
            .unwrap_or_else(crate::random::Random::seed_from_clock)
    }
}

fn key_value(argument: &str) -> Result<(String, String), String> {
    argument
        .split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "expected KEY=VALUE".to_owned())
}

/// `ws://host:port[/path]` as an address and a path.
///
/// # Errors
/// When it is not of that form or the host is unknown.
pub fn parse_url(url: &str) -> Result<(SocketAddr, String), SetupError> {
    let rest = url.strip_prefix("ws://").ok_or_else(|| {
        SetupError(format!(
            "{url}: expected ws://host:port (TLS is not measured)"
        ))
    })?;
    let (host, path) = match rest.split_once('/') {
        Some((host, path)) if !path.is_empty() => (host, format!("/{path}")),
        Some((host, _)) => (host, "/v1/ws".to_owned()),
        None => (rest, "/v1/ws".to_owned()),
    };
    let address = host
        .to_socket_addrs()
        .map_err(|error| SetupError(format!("{host}: {error}")))?
        .find(SocketAddr::is_ipv4)
        .ok_or_else(|| SetupError(format!("{host}: no IPv4 address")))?;
    Ok((address, path))
}

/// A folder of its own that goes away in the end, whatever happens.
pub struct Workshop {
    pub folder: PathBuf,
    pub janitor: Janitor,
}

impl Workshop {
    /// # Errors
    /// When no folder can be made or no shell started.
    pub fn new(name: &str) -> Result<Self, SetupError> {
        let mut janitor = Janitor::start()?;
        let seed = crate::random::Random::seed_from_clock();
        let folder = std::env::temp_dir().join(format!("loadtest-{name}-{seed}"));
        std::fs::create_dir(&folder)?;
        std::fs::create_dir(folder.join("data"))?;
        janitor.promise(&format!("rm -rf '{}'", folder.display()))?;
        Ok(Self { folder, janitor })
    }
}

/// Settings for a server that this process started.
pub fn settings(seed: u64) -> Settings {
    let mut settings = Settings::new(TEST_SECRET, seed);
    // A server that is back shall be found at once; a herd of this size is no danger to it.
    settings.backoff_first = Duration::from_millis(200);
    settings.backoff_cap = Duration::from_secs(1);
    settings
}

/// Everybody receives everything, then fresh readers compare. Returns what failed: a server that
/// cannot tell what it holds is as red as one that holds the wrong thing.
///
/// # Errors
/// When this process cannot go on.
pub fn settle(world: &mut World, drain: Duration) -> Result<Vec<String>, SetupError> {
    world.progress.stage("draining");
    let is_settled = world.drain(drain)?;
    if !is_settled {
        let line = format!(
            "not settled after {} s: {} open, {} behind",
            drain.as_secs(),
            world.state.unacked,
            world.state.behind()
        );
        world.progress.line(&line);
    }
    world.inspect()?;
    world.progress.stage("reading the histories");
    // A reader gets 20 pages a second, and there are many of them.
    let events = world.state.stats.sends + world.state.checker.changes().len() as u64;
    let limit = Duration::from_secs(20 + events / 500);
    match world.read_histories(limit) {
        Ok(histories) => {
            world.state.checker.finish(&histories);
            Ok(Vec::new())
        }
        Err(error) => Ok(vec![error.to_string()]),
    }
}

/// # Errors
/// When `taskset` refuses.
pub fn pin_self(cpus: Option<&str>) -> Result<(), SetupError> {
    let Some(cpus) = cpus else { return Ok(()) };
    let status = std::process::Command::new("taskset")
        .args(["-a", "-c", "-p", cpus])
        .arg(std::process::id().to_string())
        .stdout(std::process::Stdio::null())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(SetupError(format!("taskset -c {cpus}: {status}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_default_path() {
        let (address, path) = parse_url("ws://127.0.0.1:8080").unwrap();
        assert_eq!((address.port(), path.as_str()), (8080, "/v1/ws"));
        assert_eq!(parse_url("ws://127.0.0.1:1/x").unwrap().1, "/x");
        assert!(parse_url("http://127.0.0.1:1").is_err());
    }
}
