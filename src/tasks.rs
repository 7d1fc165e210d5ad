//! What the program does instead of running a node: look at the host, ask a running node, copy the
//! store and put it back. One line of result, one of error, an exit code.

use crate::chat::port::{ReplySink, StoreAnswer, StoreCall, StoreReply};
use crate::config::Config;
use crate::config::settings::Task;
use crate::{doctor, node};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// Longest wait for the store.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Does it. Exit codes: 0 done, or all is well; 1 not.
pub fn perform(config: &Config, task: &Task) -> ExitCode {
    let (done, text) = match task {
        Task::Doctor { json } => {
            let mut findings = doctor::examine(&node::needs(config));
            findings.push(node::files_finding(config));
            let text = match json {
                true => doctor::json(&findings),
                false => doctor::table(&findings),
            };
            (doctor::is_well(&findings), text)
        }
        Task::Health => told(doctor::probe::ready(config.listen)),
        Task::Migrate => told(migrate(config)),
        Task::Backup(file) => told(backup(config, file)),
        Task::Restore(file) => told(restore(config, file)),
        Task::StorageInit => told(node::storage_init(config)),
        Task::RenewEpoch => told(renew_epoch(config)),
    };
    // What was found is the result; why something was not done is an error.
    let to_errors = !done && !matches!(task, Task::Doctor { .. });
    let written = match to_errors {
        true => io::stderr().write_all(text.as_bytes()),
        false => io::stdout().write_all(text.as_bytes()),
    };
    match done && written.is_ok() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn told(result: Result<String, String>) -> (bool, String) {
    match result {
        Ok(text) => (true, text + "\n"),
        Err(text) => (false, text + "\n"),
    }
}

fn migrate(config: &Config) -> Result<String, String> {
    node::migrate(config)
        .map_err(|error| format!("the schema was not changed: {error}"))
        .map(|()| "the store has the newest schema".to_owned())
}

fn backup(config: &Config, file: &Path) -> Result<String, String> {
    node::backup(config, file)
        .map_err(|error| format!("no backup was made: {error}"))
        .map(|()| format!("{} holds all that was acknowledged before", file.display()))
}

fn restore(config: &Config, file: &Path) -> Result<String, String> {
    node::restore(config, file)
        .map_err(|error| format!("nothing was restored: {error}"))
        .map(|epoch| format!("restored, with the new epoch {epoch}"))
}

/// Through the store itself, so it is the same on every backend.
fn renew_epoch(config: &Config) -> Result<String, String> {
    let store = node::open_store(config).map_err(|error| error.to_string())?;
    let before = store.epoch();
    let (sink, answers) = Waiting::channel();
    store.submit(0, StoreCall::RenewEpoch(before), &sink);
    let answer = answers.recv_timeout(ANSWER_MAX);
    match answer.map(|reply| (reply.epoch, reply.result)) {
        Ok((epoch, Ok(StoreAnswer::RenewEpoch))) => Ok(format!("the epoch is now {epoch}")),
        Ok((_, Ok(_))) => Err("the store answered another question".to_owned()),
        Ok((_, Err(error))) => Err(format!("the epoch may be the old one: {error:?}")),
        Err(_) => Err("the store did not answer; the epoch may be the old one".to_owned()),
    }
}

/// Takes the one answer.
struct Waiting(mpsc::Sender<StoreReply>);

impl Waiting {
    fn channel() -> (Arc<dyn ReplySink>, mpsc::Receiver<StoreReply>) {
        let (sender, receiver) = mpsc::channel();
        (Arc::new(Waiting(sender)), receiver)
    }
}

impl ReplySink for Waiting {
    fn reply(&self, reply: StoreReply) {
        // Nobody waits any more.
        let _late = self.0.send(reply);
    }
}
