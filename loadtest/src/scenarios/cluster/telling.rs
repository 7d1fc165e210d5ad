//! What a fault did, in numbers beside their goals, and what of it is red.

use std::collections::BTreeMap;

use serde_json::json;

use super::{Fault, GOAL_TIMES};
use crate::report::Report;
use crate::stats::{LatencySummary, PhaseStats, Stats};
use crate::world::State;

/// Parts of each fault: before, during, after.
const PHASES_PER_FAULT: usize = 3;

pub(super) struct Outcome {
    fault: Fault,
    /// Counted at the beginning; then what was added.
    closes: BTreeMap<String, u64>,
    /// Of these, connections that had been ready.
    broken: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
    sends: u64,
    acks: u64,
    deliveries: u64,
    pub deadlocks: u64,
    /// Seconds from PostgreSQL's kill until it takes connections again: its own, not ours.
    pub restarted_s: Vec<f64>,
    /// Seconds from the backend's return until every node acknowledged a send.
    pub resumed_s: Vec<f64>,
    /// The same until all that was due before it was acknowledged.
    pub caught_up_s: Vec<f64>,
    /// Seconds from a node's end until every client is ready somewhere.
    pub back_s: Vec<f64>,
    phases: Vec<Phase>,
}

struct Phase {
    name: String,
    ack: LatencySummary,
    same_node: LatencySummary,
    cross_node: LatencySummary,
    absence: LatencySummary,
}

impl Phase {
    fn of(phase: &PhaseStats) -> Self {
        Self {
            name: phase.name.clone(),
            ack: phase.ack.summary(),
            same_node: phase.same_node.summary(),
            cross_node: phase.cross_node.summary(),
            absence: phase.absence.summary(),
        }
    }
}

fn added(now: &BTreeMap<String, u64>, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let since = |(name, count): (&String, &u64)| {
        let count = count - before.get(name).copied().unwrap_or(0);
        (count > 0).then(|| (name.clone(), count))
    };
    now.iter().filter_map(since).collect()
}

fn longest(seconds: &[f64]) -> f64 {
    seconds.iter().copied().fold(0.0, f64::max)
}

impl Outcome {
    pub fn begin(fault: Fault, state: &State) -> Self {
        let stats = &state.stats;
        Self {
            fault,
            closes: stats.closes.clone(),
            broken: stats.broken.clone(),
            errors: stats.errors.clone(),
            sends: stats.sends,
            acks: stats.acks,
            deliveries: stats.deliveries,
            deadlocks: 0,
            restarted_s: Vec::new(),
            resumed_s: Vec::new(),
            caught_up_s: Vec::new(),
            back_s: Vec::new(),
            phases: Vec::new(),
        }
    }

    /// The load after the fault is over.
    pub fn end(&mut self, state: &State) {
        let stats = &state.stats;
        self.closes = added(&stats.closes, &self.closes);
        self.broken = added(&stats.broken, &self.broken);
        self.errors = added(&stats.errors, &self.errors);
    }

    /// Everything has settled: what came late is in its phase by now.
    pub fn take_phases(&mut self, stats: &Stats, faults_before: usize) {
        let from = faults_before * PHASES_PER_FAULT;
        self.phases = stats.phases.iter().skip(from).map(Phase::of).collect();
        self.sends = stats.sends - self.sends;
        self.acks = stats.acks - self.acks;
        self.deliveries = stats.deliveries - self.deliveries;
    }

    fn cross_node_max_s(&self) -> f64 {
        let max_ms = |phase: &Phase| phase.cross_node.max_ms;
        self.phases.iter().map(max_ms).fold(0.0, f64::max) / 1e3
    }

    fn absence_max_s(&self) -> f64 {
        let max_ms = |phase: &Phase| phase.absence.max_ms;
        self.phases.iter().map(max_ms).fold(0.0, f64::max) / 1e3
    }

    /// What is red beside the checker's findings.
    pub fn failures(&self) -> Vec<String> {
        let name = self.fault.name();
        let mut failures = Vec::new();
        let mut deadline = |what: &str, seconds: f64, goal_s: Option<f64>| {
            if let Some(goal_s) = goal_s
                && seconds > goal_s * GOAL_TIMES
            {
                failures.push(format!(
                    "{name}: {what} {seconds:.1} s, the goal is {goal_s} s"
                ));
            }
        };
        deadline(
            "sends were acknowledged again after",
            longest(&self.resumed_s),
            self.fault.resume_goal_s(),
        );
        deadline(
            "a client was away for",
            self.absence_max_s(),
            self.fault.absence_goal_s(),
        );
        deadline(
            "another node delivered after",
            self.cross_node_max_s(),
            self.fault.cross_node_goal_s(),
        );
        // Who only just signs in while the store is away may be sent away; who is there stays.
        let ended = match self.fault {
            Fault::Calm => &self.closes,
            _ => &self.broken,
        };
        if self.fault.keeps_connections() && !ended.is_empty() {
            failures.push(format!("{name}: connections ended: {ended:?}"));
        }
        if self.deadlocks > 0 {
            failures.push(format!("{name}: {} deadlocks", self.deadlocks));
        }
        failures
    }

    pub fn line(&self) -> String {
        let during = self.phases.get(1);
        let cross_node = during.map(|phase| phase.cross_node).unwrap_or_default();
        format!(
            "{}: {} acks, {} deliveries, across nodes p50 {:.1} ms, p99 {:.1} ms, max {:.0} ms",
            self.fault.name(),
            self.acks,
            self.deliveries,
            cross_node.p50_ms,
            cross_node.p99_ms,
            cross_node.max_ms,
        )
    }

    pub fn tell(&self, report: &mut Report) {
        report.section(self.fault.name());
        report.count("sends", self.sends);
        report.count("acks", self.acks);
        report.count("deliveries", self.deliveries);
        for phase in &self.phases {
            let part = phase.name.rsplit(' ').next().unwrap_or_default();
            report.latency(&format!("{part}_ack"), &phase.ack);
            report.latency(&format!("{part}_same_node"), &phase.same_node);
            if phase.cross_node.count > 0 {
                report.latency(&format!("{part}_cross_node"), &phase.cross_node);
            }
            if phase.absence.count > 0 {
                report.latency(&format!("{part}_client_away"), &phase.absence);
            }
        }
        let mut times = |key: &str, seconds: &[f64], goal_s: Option<f64>| {
            if seconds.is_empty() {
                return;
            }
            let shown: Vec<String> = seconds.iter().map(|time| format!("{time:.2}")).collect();
            let goal = goal_s.map_or_else(String::new, |goal_s| format!(" (goal {goal_s})"));
            let shown = format!("{} s{goal}", shown.join(", "));
            report.row(key, shown, json!(seconds));
        };
        times("postgres_back_after", &self.restarted_s, None);
        times(
            "sends_resumed_after",
            &self.resumed_s,
            self.fault.resume_goal_s(),
        );
        times("backlog_acknowledged_after", &self.caught_up_s, None);
        times("all_clients_back_after", &self.back_s, None);
        if self.absence_max_s() > 0.0 {
            let goal_s = self.fault.absence_goal_s();
            times("longest_absence", &[self.absence_max_s()], goal_s);
        }
        let goal_s = self.fault.cross_node_goal_s();
        times("slowest_cross_node", &[self.cross_node_max_s()], goal_s);
        report.count("deadlocks", self.deadlocks);
        report.map("errors", &json!(self.errors));
        report.map("closes", &json!(self.closes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(fault: Fault) -> Outcome {
        Outcome {
            fault,
            closes: BTreeMap::new(),
            broken: BTreeMap::new(),
            errors: BTreeMap::new(),
            sends: 0,
            acks: 0,
            deliveries: 0,
            deadlocks: 0,
            restarted_s: Vec::new(),
            resumed_s: Vec::new(),
            caught_up_s: Vec::new(),
            back_s: Vec::new(),
            phases: Vec::new(),
        }
    }

    #[test]
    fn a_calm_outcome_is_green_for_every_fault() {
        for fault in Fault::EACH {
            assert_eq!(outcome(fault).failures(), Vec::<String>::new());
        }
    }

    #[test]
    fn a_connection_that_ends_while_a_backend_is_away_is_red() {
        for fault in Fault::EACH {
            let mut outcome = outcome(fault);
            outcome.closes.insert("4100".to_owned(), 1);
            outcome.broken.insert("4100".to_owned(), 1);
            let is_red = !outcome.failures().is_empty();
            assert_eq!(is_red, fault.keeps_connections(), "{fault:?}");
        }
    }

    #[test]
    fn who_is_sent_away_while_signing_in_is_red_only_when_all_is_calm() {
        for fault in [Fault::Calm, Fault::RestartPostgres, Fault::PostgresAway] {
            let mut outcome = outcome(fault);
            outcome.closes.insert("4100".to_owned(), 1);
            assert_eq!(!outcome.failures().is_empty(), fault == Fault::Calm);
        }
    }

    #[test]
    fn three_times_a_goal_is_red_and_less_is_not() {
        let mut outcome = outcome(Fault::RestartPostgres);
        outcome.resumed_s = vec![0.1, 5.9];
        assert!(outcome.failures().is_empty());
        outcome.resumed_s.push(6.1);
        assert_eq!(outcome.failures().len(), 1);
    }

    #[test]
    fn late_on_another_node_is_red_when_only_redis_is_away() {
        let late = |fault| {
            let mut outcome = outcome(fault);
            let mut stats = Stats::default();
            stats.begin_phase("fault", 1);
            stats.delivered(2, 15_100_000, false);
            outcome.take_phases(&stats, 0);
            outcome.failures().len()
        };
        assert_eq!(late(Fault::RedisAway), 1);
        assert_eq!(late(Fault::RedisPartition), 1);
        assert_eq!(late(Fault::PostgresAway), 0);
    }

    #[test]
    fn a_deadlock_is_red() {
        let mut outcome = outcome(Fault::Calm);
        outcome.deadlocks = 1;
        assert_eq!(outcome.failures().len(), 1);
    }
}
