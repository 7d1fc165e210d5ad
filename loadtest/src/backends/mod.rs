//! Private backends of a cluster under test: a real PostgreSQL and a real Redis, each on a port and in
//! a folder of its own, to be killed, stopped, restarted and looked into.
//!
//! Invariants: whatever is started is promised to the janitor first; a kill takes the whole program,
//! its children included, before it returns.

mod postgres;
mod redis;

pub use postgres::{Postgres, PostgresPlan, Statement};
pub use redis::Redis;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::janitor::{Duty, Janitor};
use crate::limits::{BACKEND_PROBE_LIMIT, BACKEND_START_LIMIT};
use crate::world::SetupError;

/// A running program and the processes it started.
struct Process {
    child: Child,
    duty: Duty,
    log: PathBuf,
}

impl Process {
    fn start(
        mut command: Command,
        log_path: &Path,
        janitor: &mut Janitor,
    ) -> Result<Self, SetupError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(log_path)
            .map_err(|error| SetupError(format!("{}: {error}", log_path.display())))?;
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|error| SetupError(format!("cannot start {name}: {error}")))?;
        // The children first: they notice their parent's end, but only when they look.
        let pid = child.id();
        let duty = janitor.promise(&format!(
            "all=\"{pid} $(cat /proc/{pid}/task/{pid}/children)\"; kill -9 $all; true"
        ))?;
        Ok(Self {
            child,
            duty,
            log: log_path.to_owned(),
        })
    }

    fn pids(&self) -> Vec<u32> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace();
        std::iter::once(pid)
            .chain(children.filter_map(|child| child.parse().ok()))
            .collect()
    }

    /// Sends a signal to the program and all its children, the program first.
    fn signal(&self, name: &str) -> Result<(), SetupError> {
        let mut command = Command::new("kill");
        command.arg(format!("-{name}"));
        command.args(self.pids().iter().map(u32::to_string));
        // A child that ended meanwhile is no failure.
        command.stderr(Stdio::null()).status()?;
        Ok(())
    }

    /// kill -9 to all, and waits until none is left.
    fn kill(mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        let pids = self.pids();
        self.signal("KILL")?;
        self.child.wait()?;
        let began = Instant::now();
        while pids.iter().any(|pid| is_running(*pid)) {
            if began.elapsed() > BACKEND_START_LIMIT {
                return Err(SetupError(format!(
                    "some of {pids:?} survived kill -9. The log ends:\n{}",
                    self.log_tail()
                )));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        janitor.take_back(self.duty)?;
        Ok(())
    }

    fn check_alive(&mut self, name: &str) -> Result<(), SetupError> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(SetupError(format!(
                "{name} ended: {status}. Its log ends:\n{}",
                self.log_tail()
            ))),
        }
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(2000)..];
        String::from_utf8_lossy(tail).into_owned()
    }
}

/// Not gone and not a zombie, which holds nothing any more: whoever inherited it may never ask.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; the state follows it.
    let state = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest.trim_start());
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// Asks a question that a living backend answers at once. Returns the first bytes of the answer.
fn probe<const N: usize>(address: SocketAddr, question: &[u8]) -> Option<[u8; N]> {
    let mut stream = TcpStream::connect_timeout(&address, BACKEND_PROBE_LIMIT).ok()?;
    stream.set_read_timeout(Some(BACKEND_PROBE_LIMIT)).ok()?;
    stream.set_write_timeout(Some(BACKEND_PROBE_LIMIT)).ok()?;
    stream.write_all(question).ok()?;
    let mut answer = [0; N];
    stream.read_exact(&mut answer).ok()?;
    Some(answer)
}

/// A program of a Debian package: on the path, or in one of `folders`.
fn program(name: &str, package: &str, folders: &[PathBuf]) -> Result<PathBuf, SetupError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let usual = ["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from);
    folders
        .iter()
        .chain(&path)
        .chain(&usual)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| SetupError(format!("{name} is missing: apt-get install {package}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let error = program("no-such-program", "some-package", &[]).unwrap_err();
        assert!(error.0.contains("apt-get install some-package"), "{error}");
    }

    #[test]
    fn a_kill_takes_the_children_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut janitor = Janitor::start().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 1000 & sleep 1000 & wait"]);
        let log = folder.path().join("log");
        let process = Process::start(command, &log, &mut janitor).unwrap();
        let began = Instant::now();
        while process.pids().len() < 3 {
            assert!(began.elapsed() < BACKEND_START_LIMIT);
            std::thread::yield_now();
        }
        let pids = process.pids();
        process.kill(&mut janitor).unwrap();
        assert!(!pids.iter().any(|pid| is_running(*pid)));
        assert!(is_running(std::process::id()));
    }
}
