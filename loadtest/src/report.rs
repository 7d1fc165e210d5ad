//! What a run tells: a table for people, JSON for programs, from the same rows.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::checker::Findings;
use crate::stats::{LatencySummary, Stats};

#[derive(Default)]
pub struct Report {
    sections: Vec<Section>,
}

struct Section {
    name: String,
    rows: Vec<(String, String)>,
    json: Map<String, Value>,
}

impl Report {
    /// Begins a section; rows go to the last one.
    pub fn section(&mut self, name: &str) {
        self.sections.push(Section {
            name: name.to_owned(),
            rows: Vec::new(),
            json: Map::new(),
        });
    }

    pub fn row(&mut self, key: &str, shown: impl Into<String>, value: impl Into<Value>) {
        if self.sections.is_empty() {
            self.section("run");
        }
        if let Some(section) = self.sections.last_mut() {
            section.rows.push((key.replace('_', " "), shown.into()));
            section.json.insert(key.to_owned(), value.into());
        }
    }

    pub fn count(&mut self, key: &str, count: u64) {
        self.row(key, grouped(count), count);
    }

    pub fn number(&mut self, key: &str, number: f64, unit: &str) {
        self.row(key, format!("{number:.2} {unit}"), round(number));
    }

    pub fn latency(&mut self, key: &str, latency: &LatencySummary) {
        let shown = format!(
            "p50 {:.2}  p90 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2} ms  (n {})",
            latency.p50_ms,
            latency.p90_ms,
            latency.p99_ms,
            latency.p999_ms,
            latency.max_ms,
            grouped(latency.count)
        );
        self.row(key, shown, json!(latency));
    }

    /// What the clients counted, whatever the scenario.
    pub fn stats(&mut self, stats: &Stats) {
        self.section("clients");
        self.count("sends", stats.sends);
        self.count("not_sent", stats.not_sent);
        self.count("acks", stats.acks);
        self.count("acks_duplicate", stats.acks_duplicate);
        self.count("retries", stats.retries);
        self.count("probes", stats.probes);
        self.count("deliveries", stats.deliveries);
        self.count("events_known_already", stats.events_known);
        self.count("history_pages", stats.history_pages);
        self.count("rooms_recovered", stats.rooms_recovered);
        self.map("rooms_not_recovered", &json!(stats.rooms_not_recovered));
        self.count("gaps_told", stats.gaps_told);
        self.count("connects", stats.connects);
        self.latency("connect_to_ready", &stats.connect.summary());
        self.map("errors", &json!(stats.errors));
        self.map("closes", &json!(stats.closes));
    }

    pub fn map(&mut self, key: &str, value: &Value) {
        let shown = match value {
            Value::Object(map) if map.is_empty() => "none".to_owned(),
            Value::Object(map) => map
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect::<Vec<_>>()
                .join(", "),
            other => other.to_string(),
        };
        self.row(key, shown, value.clone());
    }

    pub fn findings(&mut self, findings: &Findings) {
        self.section("checker");
        self.count("findings", findings.total());
        self.map("by_kind", &json!(findings.by_name()));
        let examples = findings.examples();
        if !examples.is_empty() {
            self.row(
                "examples",
                format!("\n      {}", examples.join("\n      ")),
                json!(examples),
            );
        }
    }

    pub fn to_json(&self) -> Value {
        let sections = self
            .sections
            .iter()
            .map(|section| (section.name.clone(), Value::Object(section.json.clone())));
        Value::Object(sections.collect())
    }

    /// The table, on standard output.
    pub fn print(&self) {
        for section in &self.sections {
            println!("\n{}", section.name);
            let width = section
                .rows
                .iter()
                .map(|(key, _)| key.chars().count())
                .max()
                .unwrap_or(0);
            for (key, shown) in &section.rows {
                println!("  {key:width$}  {shown}");
            }
        }
        println!();
    }

    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(&self.to_json())?;
        text.push('\n');
        std::fs::write(path, text)
    }
}

fn round(number: f64) -> Value {
    json!((number * 1000.0).round() / 1000.0)
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The middle value; of an even number the lower of the two.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .get(sorted.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, shown) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), shown);
        }
    }

    #[test]
    fn the_median_is_robust() {
        assert!((median(&[3.0, 1.0, 100.0]) - 3.0).abs() < f64::EPSILON);
        assert!(median(&[]).abs() < f64::EPSILON);
    }

    #[test]
    fn rows_stand_in_both_forms() {
        let mut report = Report::default();
        report.section("a");
        report.count("some_count", 5);
        report.number("share", 0.123_456, "%");
        assert_eq!(
            report.to_json(),
            json!({"a": {"some_count": 5, "share": 0.123}})
        );
    }
}
