//! A private PostgreSQL, durable as delivered (`fsync` on), that counts its statements.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Process, probe, program};
use crate::janitor::Janitor;
use crate::limits::{BACKEND_CONNECTIONS_MAX, BACKEND_START_LIMIT};
use crate::server::free_address;
use crate::world::SetupError;

/// The account that runs it when this process is root, made by Debian's package.
const ACCOUNT: &str = "postgres";
/// The database of the server under test.
const DATABASE: &str = "caffis";
/// Connecting with the protocol's version 3.0 to a database that always exists.
const STARTUP: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";
const _: () = assert!(STARTUP.len() == STARTUP[3] as usize);

#[derive(Clone, Debug)]
pub struct PostgresPlan {
    /// Of the data; made by initdb.
    pub data_dir: PathBuf,
    pub log: PathBuf,
    /// NAME=VALUE for the server's configuration, after our own.
    pub settings: Vec<String>,
}

/// What `pg_stat_statements` says of one kind of statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub calls: u64,
    /// The first line of its text.
    pub text: String,
}

pub struct Postgres {
    plan: PostgresPlan,
    programs: PathBuf,
    psql: PathBuf,
    pub address: SocketAddr,
    process: Option<Process>,
    /// Seen before statistics were lost by a kill.
    deadlocks_before: u64,
}

impl Postgres {
    /// Makes the data folder and an empty database, starts the server and waits until it answers.
    ///
    /// # Errors
    /// When a program is missing, with what to install, or does not do its work.
    pub fn start(plan: PostgresPlan, janitor: &mut Janitor) -> Result<Self, SetupError> {
        let initdb = program("initdb", "postgresql", &debian_folders())?;
        let psql = program("psql", "postgresql-client", &debian_folders())?;
        let programs = initdb.parent().unwrap_or(Path::new("/")).to_owned();
        std::fs::create_dir_all(&plan.data_dir)?;
        if is_root()? {
            let owner = format!("{ACCOUNT}:{ACCOUNT}");
            finish(Command::new("chown").arg(&owner).arg(&plan.data_dir))?;
        }
        let mut command = as_account(&initdb)?;
        command.arg("-D").arg(&plan.data_dir);
        finish(command.args(["-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C"]))?;
        let mut postgres = Self {
            plan,
            programs,
            psql,
            address: free_address()?,
            process: None,
            deadlocks_before: 0,
        };
        postgres.launch(janitor)?;
        postgres.wait_accepting()?;
        postgres.ask("postgres", &format!("CREATE DATABASE {DATABASE}"))?;
        postgres
            .ask("postgres", "CREATE EXTENSION pg_stat_statements")
            .map_err(|error| {
                SetupError(format!(
                    "{error}: apt-get install postgresql (with postgresql-contrib)"
                ))
            })?;
        Ok(postgres)
    }

    /// As the server under test is told of it, with another address in between or not.
    pub fn url(&self, address: SocketAddr) -> String {
        format!("postgres://postgres@{address}/{DATABASE}")
    }

    /// Starts it (again) on its data and does not wait: after a kill it recovers first.
    ///
    /// # Errors
    /// When it runs already, or the program does not start.
    pub fn launch(&mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        if self.process.is_some() {
            return Err(SetupError("PostgreSQL runs already".to_owned()));
        }
        // Its lock file names a process that is gone, but the number may be another's by now.
        let _ = std::fs::remove_file(self.plan.data_dir.join("postmaster.pid"));
        let mut command = as_account(&self.programs.join("postgres"))?;
        command
            .arg("-D")
            .arg(&self.plan.data_dir)
            .arg("-p")
            .arg(self.address.port().to_string());
        let own = [
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            "shared_preload_libraries=pg_stat_statements".to_owned(),
            "pg_stat_statements.max=10000".to_owned(),
            format!("max_connections={BACKEND_CONNECTIONS_MAX}"),
            "fsync=on".to_owned(),
            "shared_buffers=128MB".to_owned(),
            "max_wal_size=256MB".to_owned(),
            // A deadlock must be counted, not waited for.
            "deadlock_timeout=200ms".to_owned(),
            "log_lock_waits=off".to_owned(),
        ];
        for setting in own.iter().chain(&self.plan.settings) {
            command.arg("-c").arg(setting);
        }
        self.process = Some(Process::start(command, &self.plan.log, janitor)?);
        Ok(())
    }

    /// Whether it takes connections: not while it recovers.
    pub fn is_accepting(&self) -> bool {
        probe(self.address, STARTUP) == Some(*b"R")
    }

    /// # Errors
    /// When it ended by itself, or is not running.
    pub fn check_alive(&mut self) -> Result<(), SetupError> {
        match &mut self.process {
            Some(process) => process.check_alive("PostgreSQL"),
            None => Err(SetupError("PostgreSQL is not running".to_owned())),
        }
    }

    /// # Errors
    /// When it ends, or does not answer in time.
    pub fn wait_accepting(&mut self) -> Result<(), SetupError> {
        let began = Instant::now();
        while !self.is_accepting() {
            self.check_alive()?;
            if began.elapsed() > BACKEND_START_LIMIT {
                return Err(SetupError("PostgreSQL does not answer".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// kill -9 of all its processes, as the out-of-memory killer does: what the operating system
    /// holds survives. The statistics do not, so that [`Postgres::deadlocks`] remembers.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self, janitor: &mut Janitor) -> Result<(), SetupError> {
        self.process
            .take()
            .map_or(Ok(()), |process| process.kill(janitor))
    }

    /// SIGSTOP to all its processes.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn stop(&self) -> Result<(), SetupError> {
        self.signal("STOP")
    }

    /// SIGCONT after [`Postgres::stop`].
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

    /// Deadlocks so far: by the statistics, or by the log, which survives a kill.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn deadlocks(&mut self) -> Result<u64, SetupError> {
        let sql = format!("SELECT deadlocks FROM pg_stat_database WHERE datname = '{DATABASE}'");
        let counted = number(&self.ask("postgres", &sql)?)?;
        let log = std::fs::read(&self.plan.log).unwrap_or_default();
        let logged = String::from_utf8_lossy(&log)
            .matches("ERROR:  deadlock detected")
            .count() as u64;
        self.deadlocks_before = self.deadlocks_before.max(counted).max(logged);
        Ok(self.deadlocks_before)
    }

    /// Statements run in the database under test so far; those of [`Postgres::ask`] in others are
    /// not among them.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn statement_calls(&self) -> Result<u64, SetupError> {
        number(&self.ask(
            "postgres",
            &format!(
                "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
                 JOIN pg_database ON oid = dbid WHERE datname = '{DATABASE}'"
            ),
        )?)
    }

    /// The kinds of statements run most often since [`Postgres::forget_statements`].
    ///
    /// # Errors
    /// When it does not answer.
    pub fn statements(&self, count: usize) -> Result<Vec<Statement>, SetupError> {
        let answer = self.ask(
            "postgres",
            &format!(
                "SELECT calls || ' ' || regexp_replace(left(query, 100), '\\s+', ' ', 'g')
                 FROM pg_stat_statements JOIN pg_database ON oid = dbid
                 WHERE datname = '{DATABASE}' ORDER BY calls DESC LIMIT {count}"
            ),
        )?;
        let statement = |line: &str| {
            let (calls, text) = line.split_once(' ')?;
            Some(Statement {
                calls: calls.parse().ok()?,
                text: text.to_owned(),
            })
        };
        Ok(answer.lines().filter_map(statement).collect())
    }

    /// Counts from zero again.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn forget_statements(&self) -> Result<(), SetupError> {
        self.ask("postgres", "SELECT pg_stat_statements_reset()")
            .map(|_| ())
    }

    /// Runs a statement and returns its rows, one a line.
    ///
    /// # Errors
    /// When it fails or does not answer.
    pub fn ask(&self, database: &str, sql: &str) -> Result<String, SetupError> {
        let mut command = Command::new(&self.psql);
        command
            .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p"])
            .arg(self.address.port().to_string())
            .args(["-U", "postgres", "-d", database, "-c", sql])
            .env("PGCONNECT_TIMEOUT", "10")
            .env("PGOPTIONS", "-c statement_timeout=20000");
        finish(&mut command)
    }
}

fn number(answer: &str) -> Result<u64, SetupError> {
    answer
        .trim()
        .parse()
        .map_err(|_| SetupError(format!("psql: no number: {answer:?}")))
}

/// Debian keeps the server's programs off the path, by version; the newest first.
fn debian_folders() -> Vec<PathBuf> {
    let mut folders: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .collect();
    folders.sort();
    folders
        .into_iter()
        .rev()
        .map(|(_, folder)| folder)
        .collect()
}

fn is_root() -> Result<bool, SetupError> {
    Ok(finish(Command::new("id").arg("-u"))?.trim() == "0")
}

/// PostgreSQL refuses to run as root.
fn as_account(program: &Path) -> Result<Command, SetupError> {
    if !is_root()? {
        return Ok(Command::new(program));
    }
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={ACCOUNT}"))
        .arg(format!("--regid={ACCOUNT}"))
        .arg("--clear-groups")
        .arg("--")
        .arg(program)
        // A folder that the account may not enter would be complained of.
        .current_dir("/");
    Ok(command)
}

/// Runs a command to its end. Returns what it said.
fn finish(command: &mut Command) -> Result<String, SetupError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| SetupError(format!("{name}: {error}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(SetupError(format!(
        "{name}: {}: {}",
        output.status,
        words.trim()
    )))
}
