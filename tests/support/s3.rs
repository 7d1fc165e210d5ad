//! An object store of a test's own: a real SeaweedFS.

#![allow(dead_code, reason = "each test binary uses its part")]

use super::server::DEADLINE;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Who we are to it.
pub const ACCESS_KEY: &str = "the-tests";
/// The secret that goes with it.
pub const SECRET_KEY: &str = "of-the-tests-and-nobody-else";

/// A store on ports of its own, empty. Killed when dropped.
pub struct ObjectStore {
    port: u16,
    process: Child,
    _folder: tempfile::TempDir,
}

impl ObjectStore {
    /// Starts one; fails where the `tests` step of ./check has not installed it.
    pub fn start() -> ObjectStore {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join(".check")
            .join("seaweedfs-venv/bin/weed");
        assert!(
            program.exists(),
            "no SeaweedFS; `./check tests` installs it below .check"
        );
        let folder = tempfile::tempdir().expect("a folder");
        let config = folder.path().join("s3.json");
        let identity = serde_json::json!({"identities": [{
            "name": "chat",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        fs::write(&config, identity.to_string()).expect("written");
        // Its parts speak to each other on ports that are 10,000 above these as well.
        let mut free = Vec::new();
        while free.len() < 6 {
            let low = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = low.local_addr().expect("its address").port();
            if let Some(above) = port.checked_add(10_000)
                && let Ok(high) = TcpListener::bind(("127.0.0.1", above))
            {
                free.push((port, low, high));
            }
        }
        let ports: Vec<u16> = free.iter().map(|(port, ..)| *port).collect();
        drop(free);
        let data = folder.path().join("data");
        fs::create_dir(&data).expect("made");
        let log = File::create(folder.path().join("log")).expect("made");
        let process = Command::new(program)
            .arg("mini")
            .arg(format!("-dir={}", data.display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .arg(format!("-s3.port={}", ports[0]))
            .arg(format!("-s3.config={}", config.display()))
            .arg(format!("-master.port={}", ports[1]))
            .arg(format!("-volume.port={}", ports[2]))
            .arg(format!("-filer.port={}", ports[3]))
            .arg(format!("-admin.port={}", ports[4]))
            .args([
                "-master.telemetry=false",
                "-webdav=false",
                "-admin.ui=false",
            ])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .args(["-s3.allowedOrigins=", "-filer.allowedOrigins="])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second one"))
            .stderr(log)
            .spawn()
            .expect("started");
        let mut store = ObjectStore {
            port: ports[0],
            process,
            _folder: folder,
        };
        let began = Instant::now();
        while !store.answers() {
            let ended = store.process.try_wait().expect("asked");
            if ended.is_some() || began.elapsed() > DEADLINE {
                let log = fs::read_to_string(store._folder.path().join("log"));
                panic!("SeaweedFS is not there ({ended:?}): {log:?}");
            }
            std::thread::yield_now();
        }
        store
    }

    /// Where it is.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }

    fn answers(&self) -> bool {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        let mut answer = String::new();
        let asked = b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        socket.set_read_timeout(Some(DEADLINE)).expect("set");
        socket.write_all(asked).is_ok()
            && socket.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.kill();
    }
}
