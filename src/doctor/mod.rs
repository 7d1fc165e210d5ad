//! `caffis-chat doctor`: what this host lacks for the node that the settings describe, and how to
//! mend it; and `caffis-chat health`, which asks a running node whether it can take users.
//!
//! Invariants: nothing is changed and nothing is left behind; what cannot be read is said to be
//! unknown, never taken for good; a failure means that the node will not start or cannot keep its
//! word, a warning that it will do less than it could.
//!
//! Next: [`read`] asks the host, [`judge`] compares its answers with what the node needs.

pub mod judge;
pub mod probe;
pub mod read;

use serde::Serialize;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What the node needs of its host.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Folder of the embedded store and of files.
    pub data_dir: PathBuf,
    /// There is an embedded store in it.
    pub embedded_store: bool,
    /// Its shards.
    pub shards: u16,
    /// Connections that it is to take; `None`: as many as open files allow.
    pub connections_max: Option<usize>,
    /// A node of fewer connections than this does not start.
    pub connections_min: usize,
    /// Descriptors that are no connections.
    pub descriptors_reserved: usize,
    /// Memory that one shard locks, bytes, at most.
    pub locked_bytes_per_shard: u64,
    /// Connections of a shard that may wait to be accepted.
    pub backlog: u64,
    /// Bytes that may wait for all clients together.
    pub outbox_bytes: u64,
    /// Connections that one address may have; 0: no limit.
    pub connections_per_ip: u32,
    /// Proxies on other hosts are named.
    pub trusts_other_hosts: bool,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The node runs, and does less than it could.
    Warn,
    /// The node does not start, or cannot keep its word.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it; none if nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

/// Looks at the host.
pub fn examine(needs: &Needs) -> Vec<Finding> {
    judge::judge(needs, &read::host(needs))
}

/// Whether nothing failed.
pub fn is_well(findings: &[Finding]) -> bool {
    findings
        .iter()
        .all(|finding| finding.verdict < Verdict::Fail)
}

/// The findings as a table for people.
pub fn table(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    let mut counts = [0; 3];
    for finding in findings {
        let verdict = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        counts[finding.verdict as usize] += 1;
        let (check, found) = (finding.check, &finding.found);
        let _ = writeln!(text, "{verdict:<5} {check:<width$}  {found}");
        if let Some(mend) = &finding.mend {
            let _ = writeln!(text, "{:<5} {:<width$}  -> {mend}", "", "");
        }
    }
    let [ok, warn, fail] = counts;
    let _ = writeln!(text, "\n{ok} ok, {warn} to improve, {fail} failed");
    text
}

/// The findings as one JSON object.
pub fn json(findings: &[Finding]) -> String {
    #[derive(Serialize)]
    struct Report<'a> {
        ok: bool,
        checks: &'a [Finding],
    }
    let report = Report {
        ok: is_well(findings),
        checks: findings,
    };
    serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
}
