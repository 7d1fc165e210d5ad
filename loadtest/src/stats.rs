//! What a run counts and times.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Latencies from 1 µs to 10 minutes, three digits.
pub struct Latency {
    histogram: Option<Histogram<u64>>,
}

const LATENCY_US_MAX: u64 = 600_000_000;

impl Latency {
    pub fn record(&mut self, us: u64) {
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(us);
        }
    }

    pub fn summary(&self) -> LatencySummary {
        let Some(histogram) = &self.histogram else {
            return LatencySummary::default();
        };
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        LatencySummary {
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: histogram.max() as f64 / 1000.0,
        }
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            // The bounds are constants that the library accepts.
            histogram: Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).ok(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LatencySummary {
    pub count: u64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// Counted since the beginning, unless it says "window".
#[derive(Default)]
pub struct Stats {
    pub connects: u64,
    pub connect: Latency,
    pub sends: u64,
    /// Due, but the client had too many without an answer already.
    pub not_sent: u64,
    pub retries: u64,
    pub probes: u64,
    pub acks: u64,
    pub acks_duplicate: u64,
    /// Durable events that moved a member's position.
    pub deliveries: u64,
    pub events_known: u64,
    pub ephemeral: u64,
    pub history_pages: u64,
    pub rooms_recovered: u64,
    pub rooms_not_recovered: BTreeMap<String, u64>,
    pub gaps_told: u64,
    pub errors: BTreeMap<String, u64>,
    pub closes: BTreeMap<String, u64>,
    /// Of these, connections that had been ready.
    pub broken: BTreeMap<String, u64>,
    /// Due times of the measured window.
    pub window_us: Option<(u64, u64)>,
    pub ack: Latency,
    pub delivery: Latency,
    pub last_delivery: Latency,
    /// How late the generator itself was.
    pub lateness: Latency,
    /// What each node answered.
    pub nodes: Vec<NodeStats>,
    /// Parts of the run, in order, each with the messages due in it.
    pub phases: Vec<PhaseStats>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct NodeStats {
    /// Messages that it was the first to acknowledge.
    pub acks: u64,
    pub last_ack_us: u64,
}

impl NodeStats {
    pub fn acked(&mut self, now_us: u64) {
        self.acks += 1;
        self.last_ack_us = now_us;
    }
}

/// Latencies of the messages due in a part of the run, however late they came.
#[derive(Default)]
pub struct PhaseStats {
    pub name: String,
    from_us: u64,
    pub ack: Latency,
    /// To members on the node that the message was sent to.
    pub same_node: Latency,
    /// To members on the other nodes.
    pub cross_node: Latency,
    /// From the loss of a connection to the client's next `ready`, by the time of that.
    pub absence: Latency,
}

impl Stats {
    pub fn is_in_window(&self, due_us: u64) -> bool {
        self.window_us
            .is_some_and(|(from, to)| (from..to).contains(&due_us))
    }

    /// Messages due from now on belong to this phase.
    pub fn begin_phase(&mut self, name: &str, now_us: u64) {
        self.phases.push(PhaseStats {
            name: name.to_owned(),
            from_us: now_us,
            ..PhaseStats::default()
        });
    }

    fn phase(&mut self, due_us: u64) -> Option<&mut PhaseStats> {
        self.phases
            .iter_mut()
            .rev()
            .find(|phase| phase.from_us <= due_us)
    }

    pub fn acked(&mut self, due_us: u64, latency_us: u64) {
        if let Some(phase) = self.phase(due_us) {
            phase.ack.record(latency_us);
        }
    }

    pub fn came_back(&mut self, absence_us: u64) {
        if let Some(phase) = self.phases.last_mut() {
            phase.absence.record(absence_us);
        }
    }

    pub fn delivered(&mut self, due_us: u64, latency_us: u64, is_same_node: bool) {
        let Some(phase) = self.phase(due_us) else {
            return;
        };
        if is_same_node {
            phase.same_node.record(latency_us);
        } else {
            phase.cross_node.record(latency_us);
        }
    }

    pub fn count_close(&mut self, name: &str) {
        *self.closes.entry(name.to_owned()).or_default() += 1;
    }

    pub fn count_error(&mut self, code: &str) {
        match self.errors.get_mut(code) {
            Some(count) => *count += 1,
            None => {
                self.errors.insert(code.to_owned(), 1);
            }
        }
    }

    /// Before a new measurement in the same run.
    pub fn clear_latencies(&mut self) {
        self.ack = Latency::default();
        self.delivery = Latency::default();
        self.last_delivery = Latency::default();
        self.lateness = Latency::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_in_milliseconds() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|ms| latency.record(ms * 1000));
        let summary = latency.summary();
        assert_eq!(summary.count, 1000);
        assert!((summary.p50_ms - 500.0).abs() < 1.0, "{summary:?}");
        assert!((summary.p99_ms - 990.0).abs() < 2.0, "{summary:?}");
        assert!((summary.max_ms - 1000.0).abs() < 2.0, "{summary:?}");
    }

    #[test]
    fn a_late_delivery_counts_in_the_phase_its_message_was_due_in() {
        let mut stats = Stats::default();
        stats.delivered(5, 1, true);
        stats.begin_phase("first", 10);
        stats.begin_phase("second", 20);
        stats.delivered(15, 1000, false);
        stats.delivered(25, 1000, true);
        let counts = |phase: &PhaseStats| {
            let (same, cross) = (phase.same_node.summary(), phase.cross_node.summary());
            (same.count, cross.count)
        };
        let counts: Vec<_> = stats.phases.iter().map(counts).collect();
        assert_eq!(counts, [(0, 1), (1, 0)]);
    }

    #[test]
    fn beyond_the_range_counts_as_its_end() {
        let mut latency = Latency::default();
        latency.record(u64::MAX);
        latency.record(0);
        assert_eq!(latency.summary().count, 2);
    }
}
