//! The server under test as a child process: start, readiness, signals, exit.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::janitor::{Duty, Janitor};
use crate::random::Random;
use crate::world::SetupError;

/// The secret of servers that the load test starts itself: on loopback, for minutes, with made-up
/// users.
pub const TEST_SECRET: &str = "only-for-load-tests-on-loopback-0123456789abcdef";

/// How to start a server.
#[derive(Clone, Debug)]
pub struct ServerPlan {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub listen: SocketAddr,
    /// Cores to keep it on, as `taskset` takes them.
    pub cpus: Option<String>,
}

pub struct Server {
    child: Child,
    duty: Duty,
    pub listen: SocketAddr,
    log: PathBuf,
}

impl ServerPlan {
    /// # Errors
    /// When no port is free.
    pub fn new(program: &Path, folder: &Path) -> Result<Self, SetupError> {
        Ok(Self {
            program: program.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            data_dir: folder.join("data"),
            log: folder.join("server.log"),
            listen: free_address()?,
            cpus: None,
        })
    }

    /// Starts the server. It may not listen yet.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(&self, janitor: &mut Janitor) -> Result<Server, SetupError> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .map_err(|error| SetupError(format!("{}: {error}", self.log.display())))?;
        let mut command = match &self.cpus {
            None => Command::new(&self.program),
            Some(cpus) => {
                let mut command = Command::new("taskset");
                command.arg("-c").arg(cpus).arg(&self.program);
                command
            }
        };
        command
            .args(&self.args)
            .env("CAFFIS_LISTEN", self.listen.to_string())
            .env("CAFFIS_DATA_DIR", &self.data_dir)
            .env("CAFFIS_JWT_SECRET", TEST_SECRET)
            .env("CAFFIS_JWT_ISSUER", "caffis")
            .env("CAFFIS_JWT_AUDIENCE", "caffis-chat")
            .env("CAFFIS_SHARDS", "2")
            .env("CAFFIS_DRAIN_MS", "1000")
            .env("CAFFIS_MODE", "development")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().map_err(|error| {
            SetupError(format!("cannot start {}: {error}", self.program.display()))
        })?;
        let duty = janitor.promise(&format!("kill -9 {}; true", child.id()))?;
        Ok(Server {
            child,
            duty,
            listen: self.listen,
            log: self.log.clone(),
        })
    }
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `GET /readyz` answers 200.
    ///
    /// # Errors
    /// When it ends or does not get ready in time, with the end of its log.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<(), SetupError> {
        let began = Instant::now();
        loop {
            if is_ready(self.listen) {
                return Ok(());
            }
            self.check_alive()?;
            if began.elapsed() > limit {
                return Err(self.failure("is not ready"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// # Errors
    /// When the server ended by itself.
    pub fn check_alive(&mut self) -> Result<(), SetupError> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.failure(&format!("ended: {status}"))),
        }
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        self.child.kill()?;
        self.child.wait()?;
        janitor.take_back(self.duty)?;
        Ok(())
    }

    /// # Errors
    /// When there is nobody to send it to.
    pub fn signal(&self, name: &str) -> Result<(), SetupError> {
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(SetupError(format!("kill -{name}: {status}")))
        }
    }

    /// SIGTERM, and waits for the exit.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub fn terminate(
        self,
        janitor: &mut Janitor,
        limit: Duration,
    ) -> Result<ExitStatus, SetupError> {
        self.signal("TERM")?;
        self.wait_ended(janitor, limit)
    }

    /// Waits for the exit of a server that was told to end. A second SIGTERM would end it at once.
    ///
    /// # Errors
    /// When it does not end in time; it is killed then.
    pub fn wait_ended(
        mut self,
        janitor: &mut Janitor,
        limit: Duration,
    ) -> Result<ExitStatus, SetupError> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                janitor.take_back(self.duty)?;
                return Ok(status);
            }
            if began.elapsed() > limit {
                let failure = self.failure("did not end after SIGTERM");
                self.kill(janitor)?;
                return Err(failure);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The server's last words.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(3000)..];
        String::from_utf8_lossy(tail).into_owned()
    }

    fn failure(&self, what: &str) -> SetupError {
        SetupError(format!(
            "the server {what}. Its log ends:\n{}",
            self.log_tail()
        ))
    }
}

fn is_ready(listen: SocketAddr) -> bool {
    let limit = Duration::from_millis(500);
    let Ok(mut stream) = TcpStream::connect_timeout(&listen, limit) else {
        return false;
    };
    let asked = stream
        .set_read_timeout(Some(limit))
        .and_then(|()| stream.set_write_timeout(Some(limit)))
        .and_then(|()| {
            let request =
                format!("GET /readyz HTTP/1.1\r\nHost: {listen}\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes())
        });
    let mut answer = [0; 12];
    asked.is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"HTTP/1.1 200"
}

/// A loopback address whose port lies below the ephemeral range, where no client can take it.
///
/// # Errors
/// When a hundred ports in a row are taken.
pub fn free_address() -> Result<SocketAddr, SetupError> {
    let mut random = Random::new(Random::seed_from_clock());
    for _ in 0..100 {
        let port = random.between(12_000, 30_000) as u16;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    Err(SetupError("no free port on 127.0.0.1".to_owned()))
}
