//! A private Redis that keeps nothing: it is a hint, and must be worth no more than that.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::{Process, probe, program};
use crate::janitor::Janitor;
use crate::limits::BACKEND_START_LIMIT;
use crate::server::free_address;
use crate::world::SetupError;

pub struct Redis {
    program: PathBuf,
    folder: PathBuf,
    log: PathBuf,
    pub address: SocketAddr,
    process: Option<Process>,
}

impl Redis {
    /// Starts it and waits until it answers. Its log goes to `logs`.
    ///
    /// # Errors
    /// When the program is missing, with what to install, or does not start.
    pub fn start(folder: &Path, logs: &Path, janitor: &mut Janitor) -> Result<Self, SetupError> {
        let mut redis = Self {
            program: program("redis-server", "redis-server", &[])?,
            folder: folder.to_owned(),
            log: logs.join("redis.log"),
            address: free_address()?,
            process: None,
        };
        redis.launch(janitor)?;
        let began = Instant::now();
        while !redis.is_accepting() {
            redis.check_alive()?;
            if began.elapsed() > BACKEND_START_LIMIT {
                return Err(SetupError("Redis does not answer".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(redis)
    }

    /// Starts it (again), empty, and does not wait.
    ///
    /// # Errors
    /// When it runs already, or the program does not start.
    pub fn launch(&mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        if self.process.is_some() {
            return Err(SetupError("Redis runs already".to_owned()));
        }
        let mut command = Command::new(&self.program);
        command
            .args(["--bind", "127.0.0.1", "--port"])
            .arg(self.address.port().to_string())
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .arg("--dir")
            .arg(&self.folder);
        self.process = Some(Process::start(command, &self.log, janitor)?);
        Ok(())
    }

    pub fn is_accepting(&self) -> bool {
        probe(self.address, b"PING\r\n") == Some(*b"+PONG")
    }

    /// # Errors
    /// When it ended by itself, or is not running.
    pub fn check_alive(&mut self) -> Result<(), SetupError> {
        match &mut self.process {
            Some(process) => process.check_alive("Redis"),
            None => Err(SetupError("Redis is not running".to_owned())),
        }
    }

    /// kill -9: all it held is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        self.process
            .take()
            .map_or(Ok(()), |process| process.kill(janitor))
    }

    /// SIGSTOP: connections stay and nothing is answered.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn stop(&self) -> Result<(), SetupError> {
        self.signal("STOP")
    }

    /// SIGCONT after [`Redis::stop`].
    ///
    /// # Errors
    /// When the system refuses.
    pub fn go_on(&self) -> Result<(), SetupError> {
        self.signal("CONT")
    }

    fn signal(&self, name: &str) -> Result<(), SetupError> {
        self.process
            .as_ref()
            .map_or(Ok(()), |process| process.signal(name))
    }
}
