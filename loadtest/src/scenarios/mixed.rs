//! The mixed load on the command line, and what is told of it.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::mix::{OpKind, Shares};
use crate::report::Report;
use crate::world::{Receipts, State};

#[derive(Args, Clone, Debug, Default)]
pub struct MixArgs {
    /// Everything that clients do instead of sends only: the rate counts operations.
    #[arg(long)]
    pub mix: bool,
    /// Shares of the kinds of operation, `name=weight,…`; kinds that are not named keep theirs.
    #[arg(long, value_name = "NAME=WEIGHT,…", requires = "mix")]
    pub mix_shares: Option<Shares>,
    /// Red if a kind was not exercised, be it that the server does not know it.
    #[arg(long, requires = "mix")]
    pub mix_all: bool,
}

impl MixArgs {
    pub fn shares(&self) -> Option<Shares> {
        self.mix
            .then(|| self.mix_shares.clone().unwrap_or_else(Shares::whole))
    }

    /// Tells what was asked, answered and seen of each kind. Returns what is red beside the findings.
    pub fn tell(&self, report: &mut Report, state: &State) -> Vec<String> {
        let Some(mix) = &state.mix else {
            return Vec::new();
        };
        report.section("mix");
        let mut missing = Vec::new();
        for kind in OpKind::EACH {
            let weight = mix.shares.weight(*kind);
            let Some(counts) = mix.kinds.get(kind) else {
                if weight > 0 {
                    missing.push(kind.name());
                }
                continue;
            };
            let events = mix.events.get(kind.event()).copied();
            let is_seen = if kind.is_silent() {
                counts.asked > 0 && events.unwrap_or(0) > 0
            } else {
                counts.acked > 0
            };
            if !is_seen && weight > 0 {
                missing.push(kind.name());
            }
            let latency = counts.latency.summary();
            let mut json = Map::new();
            let mut shown = Vec::new();
            let mut tell = |name: &str, count: u64| {
                json.insert(name.to_owned(), json!(count));
                if count > 0 {
                    shown.push(format!("{name} {count}"));
                }
            };
            tell("asked", counts.asked);
            tell("acked", counts.acked);
            tell("unchanged", counts.unchanged);
            tell("not_asked", counts.not_asked);
            tell("unanswered", counts.unanswered);
            if let Some(events) = events {
                tell("events", events);
            }
            if !counts.refused.is_empty() {
                shown.push(format!("refused {:?}", counts.refused));
            }
            json.insert("refused".to_owned(), json!(counts.refused));
            if latency.count > 0 {
                shown.push(format!(
                    "p50 {:.1} p99 {:.1} max {:.0} ms",
                    latency.p50_ms, latency.p99_ms, latency.max_ms
                ));
                json.insert("latency".to_owned(), json!(latency));
            }
            report.row(kind.name(), shown.join(", "), Value::Object(json));
        }
        report.map("events", &json!(mix.events));
        report.count("unread_compared", state.checker.unread_compared());
        report.count("searches_judged", mix.searches_judged);
        report.count(
            "rooms_not_judged_by_states",
            state.checker.rooms_with_unseen_events(),
        );
        let shown = match missing.is_empty() {
            true => "nothing".to_owned(),
            false => missing.join(", "),
        };
        let why = match mix.receipts {
            Receipts::Refused => " (the server does not know receipts)",
            Receipts::Unknown | Receipts::Taken => "",
        };
        report.row("not_exercised", format!("{shown}{why}"), json!(missing));
        let mut red = Vec::new();
        if self.mix_all && !missing.is_empty() {
            red.push(format!("not exercised: {shown}{why}"));
        }
        if self.mix_all && mix.shares.weight(OpKind::Search) > 0 && mix.searches_judged == 0 {
            red.push("no search had to find anything".to_owned());
        }
        red
    }
}
