//! The program as a process, and what an operator sees of it.

use super::metrics::Metrics;
use super::socket::{self, Answer, Socket};
use super::token::SECRET;
use super::wait::{DEADLINE, wait_for, wait_until};
use super::{Client, User};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use tempfile::TempDir;

/// Shards of every server here.
pub const SHARDS: usize = 2;
/// A rate that no test reaches.
pub const NO_LIMIT: &[(&str, &str)] = &[
    ("CAFFIS_SENDS_PER_10S", "100000000"),
    ("CAFFIS_COMMANDS_PER_10S", "100000000"),
];

/// A running server. Dropping it kills it as a power cut would, and then looks at its log: a line
/// above INFO that was not expected fails the test.
pub struct Server {
    pub address: SocketAddr,
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    log_reader: Option<JoinHandle<()>>,
    expected: Vec<&'static str>,
    /// Of a server that was started without a folder.
    _folder: Option<TempDir>,
}

/// How to start one.
pub struct Start<'a> {
    env: Vec<(&'a str, &'a str)>,
    files_max: Option<usize>,
}

/// How to start a server with these settings beside those of all tests.
pub fn start<'a>(env: &[(&'a str, &'a str)]) -> Start<'a> {
    Start {
        env: env.to_vec(),
        files_max: None,
    }
}

impl Start<'_> {
    /// At most so many open files.
    pub fn files_max(self, files_max: usize) -> Self {
        Start {
            files_max: Some(files_max),
            ..self
        }
    }

    /// Starts it in a folder of its own.
    pub fn anywhere(self) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let mut server = self.within(folder.path());
        server._folder = Some(folder);
        server
    }

    /// Starts it in this folder and waits until it takes users.
    pub fn within(self, folder: &Path) -> Server {
        let program = env!("CARGO_BIN_EXE_caffis-chat");
        let mut command = match self.files_max {
            None => Command::new(program),
            Some(files_max) => {
                // Of util-linux: becomes the program, so it is our child all the same.
                let mut command = Command::new("prlimit");
                command.arg(format!("--nofile={files_max}:{files_max}"));
                command.arg(program);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("CAFFIS_LISTEN", "127.0.0.1:0")
            .env("CAFFIS_DATA_DIR", folder)
            .env("CAFFIS_NODE", "n1")
            .env("CAFFIS_SHARDS", SHARDS.to_string())
            .env("CAFFIS_MODE", "development")
            .env("CAFFIS_JWT_SECRET", SECRET)
            .env("CAFFIS_DRAIN_MS", "200")
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let lines = log.clone();
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let log_reader = thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().expect("not poisoned").push(line);
            }
        });
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let (told, address) = mpsc::channel();
        thread::spawn(move || {
            // Up to the end, so that the program can always write.
            for line in stdout.lines().map_while(Result::ok) {
                if let Some(address) = address_in(&line) {
                    let _given_up = told.send(address);
                }
            }
        });
        let mut server = Server {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            child,
            log,
            log_reader: Some(log_reader),
            expected: Vec::new(),
            _folder: None,
        };
        server.address = address
            .recv_timeout(DEADLINE)
            .expect("it says where it listens");
        wait_until("readiness", || server.get("/readyz").status == 200);
        server
    }
}

/// From "Caffis Chat is ready: http://127.0.0.1:12345/ (…)".
fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    rest.split('/').next()?.parse().ok()
}

impl Server {
    /// A server in a folder of its own with the default limits.
    pub fn new() -> Server {
        start(&[]).anywhere()
    }

    /// One without limits of rate.
    pub fn unlimited() -> Server {
        start(NO_LIMIT).anywhere()
    }

    /// One without limits of rate, in this folder.
    pub fn unlimited_in(folder: &Path) -> Server {
        start(NO_LIMIT).within(folder)
    }

    /// Lines of the log above INFO that contain this are no failure.
    pub fn expect_log(&mut self, part: &'static str) {
        self.expected.push(part);
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("not poisoned").join("\n")
    }

    /// A connection of this user, signed in.
    pub fn connect(&self, user: &User) -> Client {
        Client::sign_in(Socket::open(self.address), user, None)
    }

    /// A connection of this user that lives on this shard. Which one takes a connection is decided
    /// by the kernel, from its addresses.
    pub fn connect_on(&self, shard: usize, user: &User) -> Client {
        let mut connect = || Some(self.connect(user)).filter(|client| client.shard() == shard);
        wait_for("a connection on the shard", &mut connect)
    }

    /// `GET`.
    pub fn get(&self, path: &str) -> Answer {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        socket::http(socket::connect(self.address), &request).expect("an answer")
    }

    /// What it counts.
    pub fn metrics(&self) -> Metrics {
        let answer = self.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.body);
        Metrics::parse(&answer.body)
    }

    /// Waits until what it counts is so. It publishes its counters once a second.
    pub fn wait_for_metrics(&self, what: &str, so: impl Fn(&Metrics) -> bool) -> Metrics {
        wait_for(what, || Some(self.metrics()).filter(&so))
    }

    /// CPU time used so far, s, user and system.
    pub fn cpu_s(&self) -> f64 {
        let stat = self.proc("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("proc(5)");
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = |number: usize| fields[number - 3].parse::<f64>().expect("a number");
        // USER_HZ is 100 on every Linux.
        (ticks(14) + ticks(15)) / 100.0
    }

    /// Open files.
    pub fn files(&self) -> usize {
        let folder = fs::read_dir(self.proc_path("fd")).expect("of our own child");
        folder.count()
    }

    /// Kills it as a power cut would, and looks at its log.
    pub fn kill(mut self) {
        self.child.kill().expect("killed");
        self.ended();
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits until it has ended by itself, and looks at its log.
    pub fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = wait_for("the end", || child.try_wait().expect("it is ours"));
        if let Some(reader) = self.log_reader.take() {
            reader.join().expect("it only reads");
        }
        let unexpected: Vec<String> = (self.log.lock().expect("not poisoned").iter())
            .filter(|line| !is_quiet(line))
            .filter(|line| !self.expected.iter().any(|part| line.contains(part)))
            .cloned()
            .collect();
        assert!(
            unexpected.is_empty(),
            "logged: {unexpected:#?}\nof\n{}",
            self.log()
        );
        status
    }

    fn proc_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.child.id()))
    }

    fn proc(&self, name: &str) -> String {
        fs::read_to_string(self.proc_path(name)).expect("of our own child")
    }
}

/// A line of the log at a level that nobody has to look at. What is no line of the log, such as
/// the message of a panic, is not quiet.
fn is_quiet(line: &str) -> bool {
    let level = line.split_ascii_whitespace().nth(1);
    level.is_some_and(|level| ["INFO", "DEBUG", "TRACE"].contains(&level))
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            // It may have ended already.
            let _gone = self.child.kill();
            let _reaped = self.child.wait();
            eprintln!("--- the server's log ---\n{}", self.log());
        } else if self.log_reader.is_some() {
            // It may have ended already.
            let _gone = self.child.kill();
            self.ended();
        }
    }
}
