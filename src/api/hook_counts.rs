//! What the webhooks of ours count.

use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted. All since the start, but for those that say how things are.
#[derive(Debug, Default)]
pub struct HookCounts {
    /// Webhooks that were taken.
    pub delivered: AtomicU64,
    /// Attempts that failed.
    pub failed: AtomicU64,
    /// Webhooks that were given up.
    pub given_up: AtomicU64,
    /// Pushes that nobody wanted any more when they were to be made.
    pub not_wanted: AtomicU64,
    /// Pushes that were decided.
    pub pushes: AtomicU64,
    /// Messages and members that came to nothing because the member was connected.
    pub connected: AtomicU64,
    /// Whether this node has the work.
    pub holds: AtomicU64,
    /// Whether the receiver is gone.
    pub disabled: AtomicU64,
    /// For how long the oldest waits, ms.
    pub lag_ms: AtomicU64,
    /// For how long the oldest message waited to be decided, beyond the grace, ms.
    pub behind_ms: AtomicU64,
}

impl HookCounts {
    pub(super) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Name, help, kind and value of each.
    pub fn rows(&self) -> [(&'static str, &'static str, &'static str, u64); 10] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counter = "counter";
        [
            (
                "delivered_total",
                "Webhooks of ours that were taken.",
                counter,
                get(&self.delivered),
            ),
            (
                "failed_total",
                "Attempts that failed.",
                counter,
                get(&self.failed),
            ),
            (
                "given_up_total",
                "Webhooks of ours that were given up.",
                counter,
                get(&self.given_up),
            ),
            (
                "not_wanted_total",
                "Pushes read before they were made.",
                counter,
                get(&self.not_wanted),
            ),
            (
                "pushes_total",
                "Pushes that were decided.",
                counter,
                get(&self.pushes),
            ),
            (
                "connected_total",
                "Recipients of messages who had a connection.",
                counter,
                get(&self.connected),
            ),
            (
                "holds",
                "Whether this node does the work.",
                "gauge",
                get(&self.holds),
            ),
            (
                "disabled",
                "Whether the receiver answered 410.",
                "gauge",
                get(&self.disabled),
            ),
            (
                "lag_seconds",
                "For how long the oldest waits.",
                "gauge",
                get(&self.lag_ms) / 1_000,
            ),
            (
                "behind_seconds",
                "For how long the oldest message waited to be decided, beyond the grace.",
                "gauge",
                get(&self.behind_ms) / 1_000,
            ),
        ]
    }
}
