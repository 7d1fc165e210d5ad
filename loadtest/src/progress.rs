//! What people see while a run goes on: a line that rewrites itself on a terminal, else a plain line
//! every few seconds.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const PLAIN_EVERY: Duration = Duration::from_secs(10);
const BAR_EVERY: Duration = Duration::from_millis(100);

pub struct Progress {
    bar: Option<ProgressBar>,
    is_quiet: bool,
    stage: String,
    began: Instant,
    next: Instant,
}

impl Progress {
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed_precise} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            is_quiet: false,
            stage: String::new(),
            began: Instant::now(),
            next: Instant::now(),
        }
    }

    /// For tests.
    pub fn quiet() -> Self {
        Self {
            bar: None,
            is_quiet: true,
            stage: String::new(),
            began: Instant::now(),
            next: Instant::now(),
        }
    }

    /// A new stage of the run.
    pub fn stage(&mut self, stage: &str) {
        stage.clone_into(&mut self.stage);
        self.next = Instant::now();
        if self.bar.is_none() {
            self.line(stage);
            self.next += PLAIN_EVERY;
        }
    }

    /// Shows a line that stays.
    pub fn line(&self, line: &str) {
        if self.is_quiet {
            return;
        }
        let line = format!("{:7.1} s  {line}", self.began.elapsed().as_secs_f64());
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    /// Called often; shows what `words` says now and then.
    pub fn tick(&mut self, words: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.is_quiet || now < self.next {
            return;
        }
        let line = format!("{}: {}", self.stage, words());
        match &self.bar {
            Some(bar) => {
                self.next = now + BAR_EVERY;
                bar.set_message(line);
                bar.tick();
            }
            None => {
                self.next = now + PLAIN_EVERY;
                self.line(&line);
            }
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
