//! A private PostgreSQL server: a folder and a port of its own, gone when the test program ends.
//!
//! It runs as it comes, so with `fsync`: what is proved on it holds for a server that nobody tuned.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A server. Dropped, it is stopped and its folder is removed; the same happens when this process ends
/// in whatever way.
pub struct PostgresServer {
    folder: PathBuf,
    bin: PathBuf,
    port: u16,
    options: String,
    /// Waits for the end of its standard input, which is that of this process at the latest.
    guardian: Child,
}

/// The server that the tests of one program share. Each test has databases of its own on it.
pub fn shared() -> &'static PostgresServer {
    static SHARED: OnceLock<PostgresServer> = OnceLock::new();
    SHARED.get_or_init(|| PostgresServer::start(""))
}

/// Programs of the newest version that is installed.
fn bin() -> PathBuf {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            path.join("bin/initdb")
                .exists()
                .then(|| (version, path.join("bin")))
        })
        .collect();
    versions.sort();
    match versions.pop() {
        Some((_, bin)) => bin,
        None => panic!(
            "these tests need PostgreSQL's programs below /usr/lib/postgresql \
             (apt-get install postgresql)"
        ),
    }
}

/// PostgreSQL does not run as root: then it runs as the user that its package made.
fn as_postgres(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").expect("proc(5)").uid() == 0
}

/// Runs a program that must succeed, and returns what it wrote.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?} failed: {told}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl PostgresServer {
    /// A new server with these options of `postgres`, such as `-c fsync=off`.
    pub fn start(options: &str) -> PostgresServer {
        let bin = bin();
        let folder = tempfile::Builder::new()
            .prefix("caffis-postgres-")
            .tempdir();
        let folder = folder.expect("a folder").keep();
        if is_root() {
            run(Command::new("chown").arg("postgres:").arg(&folder));
        }
        let data = folder.join("data");
        run(as_postgres(&bin.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-U", "caffis", "--auth=trust", "-E", "UTF8", "--locale=C"])
            .args(["--no-sync", "--no-instructions"])
            .current_dir(&folder));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let stop = as_postgres(&bin.join("pg_ctl"));
        let guardian = Command::new("sh")
            .arg("-c")
            .arg("read -r _; cd /; \"$@\" >/dev/null 2>&1; rm -rf \"$0\"")
            .arg(&folder)
            .arg(stop.get_program())
            .args(stop.get_args())
            .arg("-D")
            .arg(&data)
            .args(["-m", "immediate", "-w", "stop"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sh(1)");
        let server = PostgresServer {
            options: format!(
                "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} \
                 -c max_connections=400 -c max_prepared_transactions=0 {options}",
                folder.display()
            ),
            folder,
            bin,
            port,
            guardian,
        };
        server.resume();
        server
    }

    /// Starts it on its data once more.
    pub fn resume(&self) {
        let mut command = as_postgres(&self.bin.join("pg_ctl"));
        command
            .arg("-D")
            .arg(self.folder.join("data"))
            .arg("-l")
            .arg(self.folder.join("log"))
            .args(["-w", "-t", "60", "-o", &self.options, "start"])
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Its output would stay open as long as the server lives, so it is not read.
        let status = command.status().expect("pg_ctl");
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(status.success(), "PostgreSQL does not start: {log}");
    }

    /// Ends it at once, as a crash does.
    pub fn crash(&self) {
        run(as_postgres(&self.bin.join("pg_ctl"))
            .arg("-D")
            .arg(self.folder.join("data"))
            .args(["-m", "immediate", "-w", "stop"])
            .current_dir(&self.folder));
    }

    /// Its folder, which holds `data`.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Gives a file to the user that the server runs as, for that user alone.
    pub fn own(&self, file: &Path) {
        if is_root() {
            run(Command::new("chown").arg("postgres:").arg(file));
        }
        run(Command::new("chmod").arg("600").arg(file));
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://caffis@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs SQL, and returns its rows as text.
    pub fn sql(&self, database: &str, sql: &str) -> String {
        run(Command::new(self.bin.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url(database))
            .arg("-c")
            .arg(sql))
    }

    /// Begins a transaction, runs this in it, and keeps it open.
    pub fn hold(&self, database: &str, sql: &str) -> Held {
        let mut psql = Command::new(self.bin.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url(database))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("psql(1)");
        let input = psql.stdin.as_mut().expect("its input");
        writeln!(input, "BEGIN; {sql}; SELECT 'held';").expect("written");
        input.flush().expect("written");
        let mut output = BufReader::new(psql.stdout.as_mut().expect("its output"));
        let mut line = String::new();
        while line.trim() != "held" {
            line.clear();
            assert!(output.read_line(&mut line).expect("read") > 0, "psql ended");
        }
        Held { psql }
    }

    /// The name of a new database, without anything in it.
    pub fn database(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("db{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The URL of a new schema in the database that every server has: cheaper than a database.
    pub fn schema(&self) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("s{}", NEXT.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE SCHEMA {name}"));
        format!("{}?options=-csearch_path%3D{name}", self.url("postgres"))
    }
}

/// A transaction of somebody else, open in a process of its own.
pub struct Held {
    psql: Child,
}

impl Held {
    /// Ends it, by this statement.
    pub fn end(mut self, how: &str) {
        let mut input = self.psql.stdin.take().expect("its input");
        writeln!(input, "{how};").expect("written");
        drop(input);
        assert!(self.psql.wait().expect("psql(1)").success());
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        drop(self.guardian.stdin.take());
        let _ended = self.guardian.wait();
    }
}
