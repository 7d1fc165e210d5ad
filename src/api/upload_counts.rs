//! What is counted of uploads: the same wherever their bytes are.

use super::metrics::Page;
use crate::chat::port::files::UploadState;
use crate::protocol::ErrorCode;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What is counted, since the start.
#[derive(Debug, Default)]
pub struct UploadCounts(Mutex<Counts>);

/// By result; the names of results are our own, so there are few.
#[derive(Debug, Default)]
struct Counts {
    tickets: BTreeMap<&'static str, u64>,
    bytes: u64,
    looks: BTreeMap<&'static str, u64>,
    removed: u64,
    not_removed_since: Option<Instant>,
}

impl UploadCounts {
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// A ticket was given for so many bytes.
    pub(super) fn ticket(&self, bytes: u64) {
        self.change(|counts| {
            *counts.tickets.entry("ok").or_default() += 1;
            counts.bytes = counts.bytes.saturating_add(bytes);
        });
    }

    /// A ticket was refused.
    pub(super) fn no_ticket(&self, code: ErrorCode) {
        self.change(|counts| *counts.tickets.entry(code.name()).or_default() += 1);
    }

    /// A file was looked at; `None`: it was not there yet.
    pub(super) fn look(&self, seen: Option<UploadState>) {
        let seen = seen.map_or("missing", UploadState::name);
        self.change(|counts| *counts.looks.entry(seen).or_default() += 1);
    }

    /// A file could not be looked at: wherever it is does not answer.
    pub(super) fn no_look(&self) {
        self.change(|counts| *counts.looks.entry("unavailable").or_default() += 1);
    }

    /// So many files that nobody uses were removed, and whether that came to its end.
    pub(super) fn removed(&self, count: usize, is_done: bool) {
        self.change(|counts| {
            counts.removed += count as u64;
            counts.not_removed_since = match is_done {
                true => None,
                false => counts.not_removed_since.or_else(|| Some(Instant::now())),
            };
        });
    }

    /// As Prometheus reads it.
    pub(super) fn write(&self, page: &mut Page) {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "upload_tickets_total";
        page.family(
            name,
            "Tickets to bring a file that were asked for, by result: ok, or why not.",
            "counter",
        );
        for (result, count) in &counts.tickets {
            page.sample(name, &format!("result=\"{result}\""), *count);
        }
        let name = "upload_bytes_declared_total";
        page.family(
            name,
            "Bytes of the files that tickets were given for.",
            "counter",
        );
        page.sample(name, "", counts.bytes);
        let name = "upload_looks_total";
        page.family(
            name,
            "Files that were looked at before a message uses them, by what was seen.",
            "counter",
        );
        for (result, count) in &counts.looks {
            page.sample(name, &format!("result=\"{result}\""), *count);
        }
        let name = "uploads_removed_total";
        page.family(name, "Files that nobody used, removed.", "counter");
        page.sample(name, "", counts.removed);
        let name = "uploads_not_removed_seconds";
        page.family(
            name,
            "For how long files that nobody uses could not be removed.",
            "gauge",
        );
        let since = counts.not_removed_since.map(|since| since.elapsed());
        page.sample(name, "", since.unwrap_or_default().as_secs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removing_that_fails_is_seen_until_it_works_again() {
        let counts = UploadCounts::default();
        let since = || counts.0.lock().expect("not poisoned").not_removed_since;
        counts.removed(3, false);
        let first = since();
        assert!(first.is_some());
        counts.removed(0, false);
        assert_eq!(since(), first, "since the first that failed");
        counts.removed(2, true);
        assert_eq!(since(), None);
        assert_eq!(counts.0.lock().expect("not poisoned").removed, 5);
    }
}
