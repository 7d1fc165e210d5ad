//! `GET /metrics`: what the node counts, as Prometheus reads it (text format 0.0.4).

use super::NodeView;
use super::files::{Files, Sum};
use super::hooks::HookCounts;
use super::upload_counts::UploadCounts;
use crate::chat::stats::{LATENCY_BOUNDS_US, Latency};
use crate::protocol::ErrorCode;
use axum::http::StatusCode;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The kernel counts CPU time in these (USER_HZ, the same on every architecture that we build
/// for), per second.
const TICKS_PER_S: f64 = 100.0;
/// Bytes of a page in /proc/self/statm.
const PAGE_BYTES: u64 = 4096;

/// Answers by route and class of status, and problems by code. Routes are our own names, so there are few.
#[derive(Default)]
pub struct HttpCounts(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    answers: BTreeMap<(String, u16), u64>,
    problems: BTreeMap<&'static str, u64>,
}

impl HttpCounts {
    /// Counts one answer.
    pub fn count(&self, route: &str, status: StatusCode, code: Option<ErrorCode>) {
        let class = status.as_u16() / 100;
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.answers.entry((route.to_owned(), class)).or_default() += 1;
        if let Some(code) = code {
            *counts.problems.entry(code.name()).or_default() += 1;
        }
    }
}

/// The whole text.
pub(super) fn text(
    node: &dyn NodeView,
    http: &HttpCounts,
    hooks: &HookCounts,
    (uploads, files): (&UploadCounts, Option<&Files>),
) -> String {
    let mut page = Page(String::with_capacity(32 << 10));
    let build = format!(
        "node=\"{}\",version=\"{}\"",
        escaped(node.name()),
        env!("CARGO_PKG_VERSION")
    );
    page.family("build_info", "Always 1; tells the version.", "gauge");
    page.sample("build_info", &build, 1);
    shards(&mut page, node);
    let logs = node.log_counts();
    page.family("log_lines_total", "Lines logged, by level.", "counter");
    page.sample("log_lines_total", "level=\"warn\"", logs.warnings);
    page.sample("log_lines_total", "level=\"error\"", logs.errors);
    page.family(
        "log_lines_lost_total",
        "Lines that standard error did not take in time.",
        "counter",
    );
    page.sample("log_lines_lost_total", "", logs.lost);
    page.family(
        "http_responses_total",
        "Answers of the control plane, by route and class of status.",
        "counter",
    );
    let counts = http.0.lock().unwrap_or_else(PoisonError::into_inner);
    for ((route, class), count) in &counts.answers {
        let labels = format!("route=\"{}\",status=\"{class}xx\"", escaped(route));
        page.sample("http_responses_total", &labels, *count);
    }
    page.family(
        "http_problems_total",
        "Answers of the control plane that are errors, by code.",
        "counter",
    );
    for (code, count) in &counts.problems {
        page.sample("http_problems_total", &format!("code=\"{code}\""), *count);
    }
    drop(counts);
    uploads.write(&mut page);
    transfers(&mut page, files);
    for (name, help, kind, value) in hooks.rows() {
        let name = format!("webhooks_out_{name}");
        page.family(&name, help, kind);
        page.sample(&name, "", value);
    }
    process(&mut page);
    page.0
}

fn shards(page: &mut Page, node: &dyn NodeView) {
    let shards = node.shards();
    page.family("shards", "Shards of the node.", "gauge");
    page.sample("shards", "", shards.len() as u64);
    // One family after the other, each with all its shards, as the format wants it.
    let mut scalars = |prefix: &str, suffix: &str, kind: &str, of: &dyn Fn(usize) -> Rows| {
        let all: Vec<Rows> = (0..shards.len()).map(of).collect();
        let Some(first) = all.first() else { return };
        for (place, (name, help, _)) in first.iter().enumerate() {
            let name = format!("{prefix}{name}{suffix}");
            page.family(&name, help, kind);
            for (shard, rows) in all.iter().enumerate() {
                if let Some((_, _, value)) = rows.get(place) {
                    page.sample(&name, &format!("shard=\"{shard}\""), *value);
                }
            }
        }
    };
    scalars("", "_total", "counter", &|shard| {
        shards[shard].chat.counters()
    });
    scalars("", "", "gauge", &|shard| shards[shard].chat.gauges());
    scalars("driver_", "_total", "counter", &|shard| {
        shards[shard].counters.clone()
    });
    scalars("driver_", "", "gauge", &|shard| {
        shards[shard].gauges.clone()
    });
    let Some(first) = shards.first() else { return };
    for (place, (name, help, _)) in first.chat.latencies().iter().enumerate() {
        let name = format!("{name}_seconds");
        page.family(&name, help, "histogram");
        for (shard, view) in shards.iter().enumerate() {
            if let Some((_, _, latency)) = view.chat.latencies().get(place) {
                page.histogram(&name, shard, latency);
            }
        }
    }
}

/// With an object store there are none: they do not come by here.
fn transfers(page: &mut Page, files: Option<&Files>) {
    let rows = files.map_or_else(Vec::new, |files| files.counts().rows());
    for (name, help, of) in [
        (
            "file_transfers_total",
            "Files that this node took or gave out of its own folder, by direction and result.",
            (|sum| sum.0) as fn(Sum) -> u64,
        ),
        (
            "file_bytes_total",
            "Bytes of these files, by direction and result.",
            |sum| sum.1,
        ),
    ] {
        page.family(name, help, "counter");
        for ((direction, result), sum) in &rows {
            let labels = format!("direction=\"{direction}\",result=\"{result}\"");
            page.sample(name, &labels, of(*sum));
        }
    }
}

type Rows = Vec<(&'static str, &'static str, u64)>;

/// What the operating system says of the process. What cannot be read is left out.
fn process(page: &mut Page) {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}"));
    if let Ok(stat) = read("stat")
        && let Some((_, fields)) = stat.rsplit_once(") ")
    {
        // proc(5): the first field here is number 3; utime is 14, stime 15, threads 20.
        let fields: Vec<_> = fields.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        if let (Some(user), Some(system)) = (field(14), field(15)) {
            let name = "process_cpu_seconds_total";
            page.bare_family(name, "CPU time, of user and system together.", "counter");
            let _ = writeln!(page.0, "{name} {}", (user + system) as f64 / TICKS_PER_S);
        }
        if let Some(threads) = field(20) {
            page.bare_family("process_threads", "Threads.", "gauge");
            let _ = writeln!(page.0, "process_threads {threads}");
        }
    }
    if let Ok(statm) = read("statm")
        && let Some(pages) = statm.split_ascii_whitespace().nth(1)
        && let Ok(pages) = pages.parse::<u64>()
    {
        let name = "process_resident_memory_bytes";
        page.bare_family(name, "Memory in use.", "gauge");
        let _ = writeln!(page.0, "{name} {}", pages * PAGE_BYTES);
    }
    if let Ok(limits) = read("limits")
        && let Some(line) = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
        && let Some(soft) = line.split_ascii_whitespace().nth(3)
        && let Ok(soft) = soft.parse::<u64>()
    {
        page.bare_family("process_max_fds", "Files that may be open.", "gauge");
        let _ = writeln!(page.0, "process_max_fds {soft}");
    }
}

pub(super) struct Page(String);

impl Page {
    /// Begins what is called `caffis_NAME`.
    pub(super) fn family(&mut self, name: &str, help: &str, kind: &str) {
        self.bare_family(&format!("caffis_{name}"), help, kind);
    }

    fn bare_family(&mut self, name: &str, help: &str, kind: &str) {
        let help = help.trim().replace('\\', "\\\\").replace('\n', " ");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One number of it.
    pub(super) fn sample(&mut self, name: &str, labels: &str, value: u64) {
        let _ = if labels.is_empty() {
            writeln!(self.0, "caffis_{name} {value}")
        } else {
            writeln!(self.0, "caffis_{name}{{{labels}}} {value}")
        };
    }

    fn histogram(&mut self, name: &str, shard: usize, latency: &Latency) {
        let mut below = 0;
        for (bound, count) in LATENCY_BOUNDS_US.iter().zip(&latency.counts) {
            below += count;
            let labels = format!("shard=\"{shard}\",le=\"{}\"", seconds(*bound));
            self.sample(&format!("{name}_bucket"), &labels, below);
        }
        let labels = format!("shard=\"{shard}\",le=\"+Inf\"");
        self.sample(&format!("{name}_bucket"), &labels, latency.count());
        let sum = seconds(latency.sum_us);
        let _ = writeln!(self.0, "caffis_{name}_sum{{shard=\"{shard}\"}} {sum}");
        let labels = format!("shard=\"{shard}\"");
        self.sample(&format!("{name}_count"), &labels, latency.count());
    }
}

/// µs as seconds, exactly.
fn seconds(us: u64) -> String {
    let (whole, part) = (us / 1_000_000, us % 1_000_000);
    if part == 0 {
        return whole.to_string();
    }
    let text = format!("{whole}.{part:06}");
    text.trim_end_matches('0').to_owned()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
