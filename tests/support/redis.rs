//! A Redis of a test's own.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server on a port of its own, which keeps nothing. Killed when dropped.
pub struct Redis {
    port: u16,
    process: Option<Child>,
}

impl Redis {
    /// Starts one; fails where Debian's `redis-server` is not installed.
    pub fn start() -> Redis {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let mut redis = Redis {
            port,
            process: None,
        };
        redis.restart();
        redis
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it again after a kill.
    pub fn restart(&mut self) {
        let port = self.port.to_string();
        let process = Command::new("redis-server")
            .args(["--port", &port, "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir", "/"])
            // What is looked for in a dump stands there as it is.
            .args(["--rdbcompression", "no"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server; install Debian's redis-server");
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.answers() {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::yield_now();
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let mut answer = [0; 5];
        socket.write_all(b"PING\r\n").is_ok()
            && socket.read_exact(&mut answer).is_ok()
            && answer == *b"+PONG"
    }

    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("killed");
            process.wait().expect("gone");
        }
    }

    /// What it answers to a command, as it is.
    pub fn command(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "--raw"])
            .args(arguments)
            .output()
            .expect("redis-cli; install Debian's redis-tools");
        assert!(output.status.success(), "{arguments:?}");
        output.stdout
    }

    /// Keys, in all its databases, that hold one of these in their name or in what is kept under it, of whatever kind.
    pub fn keys_with(&self, needles: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        for database in 0..16 {
            let database = database.to_string();
            let keys = self.command(&["-n", &database, "--scan"]);
            for key in String::from_utf8_lossy(&keys).lines() {
                // As it is written to disk: every field and entry of it.
                let mut bytes = self.command(&["-n", &database, "DUMP", key]);
                bytes.extend_from_slice(key.as_bytes());
                let holds = |needle: &&[u8]| bytes.windows(needle.len()).any(|it| it == *needle);
                if needles.iter().any(holds) {
                    found.push(key.to_owned());
                }
            }
        }
        found
    }

    /// Stops it without an end (`STOP`), or lets it go on (`CONT`).
    pub fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("running");
        let status = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(process.id().to_string())
            .status();
        assert!(status.expect("kill(1)").success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
