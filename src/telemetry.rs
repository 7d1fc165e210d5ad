//! Logs: for people in development, as JSON in production, always on standard error; and how many
//! of them were warnings and errors.
//!
//! Invariants: writing a log line never waits. A full pipe behind standard error would otherwise
//! stop a shard; lines that find no room are counted instead.

use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use tracing::{Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// Lines that may wait to be written.
const LINES_MAX: usize = 4_096;

static WARNINGS: AtomicU64 = AtomicU64::new(0);
static ERRORS: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);

/// What was logged since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogCounts {
    /// Warnings.
    pub warnings: u64,
    /// Errors: each of them is for a person to look at.
    pub errors: u64,
    /// Lines that were not written because standard error did not take them.
    pub lost: u64,
}

/// What was logged since the start.
pub fn counts() -> LogCounts {
    LogCounts {
        warnings: WARNINGS.load(Ordering::Relaxed),
        errors: ERRORS.load(Ordering::Relaxed),
        lost: LOST.load(Ordering::Relaxed),
    }
}

/// How lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Writes what is left when it is dropped, which is last of all.
pub struct Telemetry {
    writer: Option<JoinHandle<()>>,
    end: Sender<Line>,
}

enum Line {
    Text(Vec<u8>),
    End,
}

/// Starts logging.
///
/// # Errors
/// The filter is wrong, logging was started before, or no thread can be made.
pub fn start(style: Style, filter: &str) -> io::Result<Telemetry> {
    let (lines, waiting) = crossbeam_channel::bounded(LINES_MAX);
    let filter = EnvFilter::try_new(filter).map_err(io::Error::other)?;
    let sink = lines.clone();
    let layer = fmt::layer().with_writer(move || LineWriter::new(sink.clone()));
    let layer = match style {
        Style::Human => {
            let colours = io::stderr().is_terminal();
            layer.with_target(false).with_ansi(colours).boxed()
        }
        // The innermost span is enough: an HTTP request, with its id.
        Style::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    };
    let writer = std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&waiting))?;
    tracing_subscriber::registry()
        .with(filter)
        .with(Counting)
        .with(layer)
        .try_init()
        .map_err(io::Error::other)?;
    Ok(Telemetry {
        writer: Some(writer),
        end: lines,
    })
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        // It cannot fail while the writer lives, which it does until it reads this.
        let _ended = self.end.send(Line::End);
        if let Some(writer) = self.writer.take() {
            let _joined = writer.join();
        }
    }
}

fn write_lines(waiting: &Receiver<Line>) {
    let mut out = io::stderr().lock();
    while let Ok(Line::Text(text)) = waiting.recv() {
        // Nobody is left to tell if standard error itself is broken.
        if out.write_all(&text).is_err() {
            LOST.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Collects one line, and hands it over when dropped.
struct LineWriter {
    line: Vec<u8>,
    lines: Sender<Line>,
}

impl LineWriter {
    fn new(lines: Sender<Line>) -> LineWriter {
        let line = Vec::with_capacity(256);
        LineWriter { line, lines }
    }
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter {
    fn drop(&mut self) {
        let line = Line::Text(std::mem::take(&mut self.line));
        match self.lines.try_send(line) {
            Ok(()) => (),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                LOST.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

struct Counting;

impl<S: Subscriber> Layer<S> for Counting {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            ERRORS.fetch_add(1, Ordering::Relaxed);
        } else if *event.metadata().level() == Level::WARN {
            WARNINGS.fetch_add(1, Ordering::Relaxed);
        }
    }
}
