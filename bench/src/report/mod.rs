//! What was measured, and how it is shown: a table for people, JSON and percentile files for programs.
//!
//! A report has cells: one combination of what is compared (a target, an acks level), measured in several rounds.
//! What is printed of a cell is the median over its rounds with the lowest and the highest; percentiles are taken
//! of each round, and then their median. The rounds' histograms added up are in the JSON and in the percentile files.

mod json;
mod percentiles;
mod spread;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::Value;

use crate::engine::{LATENCY_MAX, Tally};

pub use percentiles::write_percentiles;
pub use spread::{Spread, spread};
pub use table::render_table;

/// Share of one CPU from which a client's thread is taken to be the limit.
pub const BUSY_LIMIT: f64 = 0.9;

/// What an acknowledgement stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The record is on the disk when it is acknowledged.
    WaitsForDisk,
    /// The record is in the server's memory when it is acknowledged.
    DoesNotWait,
    /// Nothing is acknowledged.
    NotAcknowledged,
    /// There is no log behind it.
    NoLog,
    /// Nothing is written.
    ReadsOnly,
    /// The server does not say.
    Unknown,
}

impl Durability {
    /// For a column.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::WaitsForDisk => "waits for disk",
            Self::DoesNotWait => "does not wait",
            Self::NotAcknowledged => "no answer",
            Self::NoLog => "no log",
            Self::ReadsOnly => "reads",
            Self::Unknown => "unknown",
        }
    }
}

/// What the server's process cost in a round.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ServerCost {
    /// User and system time of all threads within the window.
    pub cpu: Duration,
    /// Resident memory at the end of the window.
    pub resident_bytes: u64,
}

/// What the client cost in a round.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct ClientCost {
    /// Of all its threads within the window.
    pub cpu: Duration,
    /// CPU time over the window's length of the thread that has the most.
    pub busiest: f64,
    /// The same with the time in which that thread waited for a CPU; `None` where the kernel does not say.
    pub busiest_or_waiting: Option<f64>,
}

/// One measurement of a cell.
#[derive(Clone, Debug)]
pub struct Round {
    /// Done within the window.
    pub measured: Tally,
    /// Done at any time, ramp and drain included.
    pub done: Tally,
    /// The window's length.
    pub window: Duration,
    /// Latency in nanoseconds.
    pub latency: Histogram<u64>,
    /// Requests under way at a time, if sent in a closed loop: what the correction needs to know.
    pub closed_loop_slots: Option<u64>,
    /// The server's process, where it can be seen.
    pub server: Option<ServerCost>,
    /// The client.
    pub client: ClientCost,
    /// Requests that the server refused.
    pub refused: u64,
    /// Requests that were never answered.
    pub unanswered: u64,
    /// Further figures of the workload, by name.
    pub extra: Vec<(String, f64)>,
}

impl Round {
    /// Records a second.
    #[must_use]
    pub fn records_per_second(&self) -> f64 {
        self.measured.records as f64 / self.window.as_secs_f64()
    }

    /// Requests a second.
    #[must_use]
    pub fn requests_per_second(&self) -> f64 {
        self.measured.requests as f64 / self.window.as_secs_f64()
    }

    /// Bytes of values a second.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.measured.bytes as f64 / self.window.as_secs_f64()
    }

    /// Latency at a quantile from 0 to 1, in milliseconds; `None` where nothing was measured.
    #[must_use]
    pub fn latency_ms(&self, quantile: f64) -> Option<f64> {
        latency_ms(&self.latency, quantile)
    }

    /// A closed loop's latency with the requests added that it did not send while it waited: each slot would
    /// have sent one every mean interval. `None` at a fixed rate, whose latency counts from the due time already.
    #[must_use]
    pub fn corrected(&self) -> Option<Histogram<u64>> {
        let slots = self.closed_loop_slots?;
        let mean = self.window.as_nanos() as u64 * slots / self.measured.requests.max(1);
        Some(self.latency.clone_correct(mean.clamp(1, LATENCY_MAX.as_nanos() as u64)))
    }

    fn cpu_seconds_per_gb(&self, cpu: Duration) -> Option<f64> {
        let gigabytes = self.measured.bytes as f64 / 1e9;
        (gigabytes > 0.0).then(|| cpu.as_secs_f64() / gigabytes)
    }
}

/// A histogram's quantile in milliseconds; `None` where it is empty.
#[must_use]
pub fn latency_ms(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!histogram.is_empty()).then(|| histogram.value_at_quantile(quantile) as f64 / 1e6)
}

/// One combination of what is compared.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Which server.
    pub target: String,
    /// Which load, such as `acks=1`.
    pub load: String,
    /// What its acknowledgements stand for.
    pub durability: Durability,
    /// The measurements, in order.
    pub rounds: Vec<Round>,
    /// Its throughput over that of the bare limit in the same terms.
    pub ratio_to_floor: Option<f64>,
}

impl Cell {
    /// The spread of a figure over the rounds; `None` where no round has it.
    #[must_use]
    pub fn over_rounds(&self, figure: impl Fn(&Round) -> Option<f64>) -> Option<Spread> {
        spread(self.rounds.iter().filter_map(figure))
    }

    /// All rounds' latencies.
    #[must_use]
    pub fn merged_latency(&self) -> Histogram<u64> {
        let mut merged = crate::engine::latency_histogram();
        for round in &self.rounds {
            merged.add(&round.latency).expect("all have the same bounds");
        }
        merged
    }

    /// Whether the client's thread was so busy that the figure may be its own.
    #[must_use]
    pub fn client_was_limit(&self) -> bool {
        self.over_rounds(|round| Some(round.client.busiest))
            .is_some_and(|busiest| busiest.median >= BUSY_LIMIT)
    }
}

/// A server that was measured.
#[derive(Clone, PartialEq, Debug)]
pub struct TargetFacts {
    /// The name in the table.
    pub name: String,
    /// What is known of it, in the order of printing.
    pub facts: Vec<(String, String)>,
}

/// Everything that one run found out.
#[derive(Clone, Debug)]
pub struct Report {
    /// The subcommand.
    pub workload: String,
    /// How it was set, by option.
    pub settings: Vec<(String, Value)>,
    /// The machine.
    pub host: Vec<(String, String)>,
    /// The servers.
    pub targets: Vec<TargetFacts>,
    /// The figures.
    pub cells: Vec<Cell>,
    /// What a reader of the figures must know.
    pub notes: Vec<String>,
}

impl Report {
    /// The first cell of a target and a load.
    #[must_use]
    pub fn cell(&self, target: &str, load: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.target == target && cell.load == load)
    }
}
