//! What is going on, on standard error: a line that is written over on a terminal, otherwise one every few seconds.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

const EVERY_ON_TERMINAL: Duration = Duration::from_millis(250);
const EVERY_OTHERWISE: Duration = Duration::from_secs(10);

/// Shows how far a run is.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    /// Time that all loads of the run take by plan, and that of those that are over.
    planned: Duration,
    passed: Duration,
    label: String,
    shown: Instant,
    width: usize,
}

impl Progress {
    /// For loads that take so long altogether.
    #[must_use]
    pub fn new(planned: Duration) -> Self {
        Self {
            terminal: io::stderr().is_terminal(),
            planned,
            passed: Duration::ZERO,
            label: String::new(),
            shown: Instant::now(),
            width: 0,
        }
    }

    /// A load begins.
    pub fn begin(&mut self, label: String) {
        self.label = label;
    }

    /// It runs for `elapsed` now, and has moved so many records.
    pub fn show(&mut self, elapsed: Duration, records: u64) {
        let every = if self.terminal { EVERY_ON_TERMINAL } else { EVERY_OTHERWISE };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let rate = records as f64 / elapsed.as_secs_f64().max(1e-3);
        let left = self.planned.saturating_sub(self.passed + elapsed);
        let line = format!("{}: {rate:.0} records/s, {} s left", self.label, left.as_secs());
        self.write(&line);
    }

    /// A load that was to take `planned` is over.
    pub fn end(&mut self, planned: Duration) {
        self.passed += planned;
    }

    fn write(&mut self, line: &str) {
        let text = if self.terminal {
            let width = self.width;
            self.width = line.chars().count();
            format!("\r{line:<width$}")
        } else {
            format!("{line}\n")
        };
        // There is nowhere to complain about standard error.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

impl Drop for Progress {
    /// Leaves the terminal's line as it was found.
    fn drop(&mut self) {
        if self.terminal {
            self.write("");
            let _ = io::stderr().write_all(b"\r");
        }
    }
}
