//! One file a subcommand, and what they share: cells of producers, measured in interleaved rounds.

mod acks;
mod catchup;
mod many_connections;
mod many_partitions;
mod produce_cell;
mod requests;
mod tail;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::cli::{CommandLine, Workload};
use crate::engine::StopFlag;
use crate::error::BenchError;
use crate::host;
use crate::measure::{Timing, unless_stopped};
use crate::progress::Progress;
use crate::report::{Cell, Report, write_percentiles};
use crate::rounds::interleaved;
use crate::settings::Settings;
use crate::target::Target;
use produce_cell::ProduceCell;

/// What creating and deleting topics, connecting and draining take of a round, roughly: for the time that is shown as left.
const ROUND_OVERHEAD: Duration = Duration::from_millis(500);

/// Runs what the command line says. `program` is this program's executable, for the embedded node.
///
/// # Errors
/// [`BenchError`].
pub fn run(command: CommandLine, program: &Path, stop: &StopFlag) -> Result<Report, BenchError> {
    let run = Run { program, stop };
    match command.workload {
        Workload::Acks(options) => acks::run(&run, options),
        Workload::Requests(options) => requests::run(&run, options),
        Workload::ManyPartitions(options) => many_partitions::run(&run, options),
        Workload::ManyConnections(options) => many_connections::run(&run, options),
        Workload::Tail(options) => tail::run(&run, options),
        Workload::Catchup(options) => catchup::run(&run, options),
    }
}

/// What every workload needs.
struct Run<'a> {
    program: &'a Path,
    stop: &'a StopFlag,
}

impl Run<'_> {
    /// Measures cells of producers in interleaved rounds, after a warm-up of each.
    fn produce_cells(
        &self,
        targets: &[Target],
        settings: &Settings,
        cells: Vec<ProduceCell>,
    ) -> Result<Measured, BenchError> {
        let warm_up = Timing { ramp: Duration::ZERO, window: settings.warm_up };
        let timing = Timing { ramp: settings.ramp, window: settings.duration };
        let count = u32::try_from(cells.len()).unwrap_or(u32::MAX);
        let rounds = u32::try_from(settings.rounds).unwrap_or(u32::MAX);
        let planned = (warm_up.total() + (timing.total() + ROUND_OVERHEAD) * rounds) * count;
        let mut progress = Progress::new(planned);
        if !settings.warm_up.is_zero() {
            for cell in &cells {
                progress.begin(format!("warm-up, {}", cell.label(targets)));
                // Verified with the rounds, or a warm-up would take longer to read than to write.
                let unverified = Settings { verify: false, ..settings.clone() };
                cell.measure(targets, &unverified, warm_up, self.stop, &mut progress)?;
                progress.end(warm_up.total());
            }
        }
        let mut measured = Measured::default();
        for cell in &cells {
            measured.cells.push(cell.empty(targets, settings)?);
        }
        for (round, order) in interleaved(cells.len(), settings.rounds).iter().enumerate() {
            for index in order {
                unless_stopped(self.stop)?;
                let cell = &cells[*index];
                let label = cell.label(targets);
                progress.begin(format!("round {} of {}, {label}", round + 1, settings.rounds));
                let (figures, notes) =
                    cell.measure(targets, settings, timing, self.stop, &mut progress)?;
                measured.cells[*index].rounds.push(figures);
                measured.notes.extend(notes);
                progress.end(timing.total() + ROUND_OVERHEAD);
            }
        }
        Ok(measured)
    }
}

/// Cells with their rounds.
#[derive(Default)]
struct Measured {
    cells: Vec<Cell>,
    notes: Vec<String>,
    /// Settings that only this workload has.
    settings: Vec<(String, Value)>,
}

impl Measured {
    fn add(&mut self, other: Self) {
        self.cells.extend(other.cells);
        self.notes.extend(other.notes);
        self.settings.extend(other.settings);
    }

    fn setting(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.push((name.to_owned(), value.into()));
    }

    /// The report, also written to the files that were asked for.
    fn report(
        self,
        workload: &str,
        targets: &[Target],
        settings: &Settings,
    ) -> Result<Report, BenchError> {
        let mut notes = self.notes;
        if settings.verify {
            notes.push(
                "everything in the logs was read back: counts, order and CRCs were right"
                    .to_owned(),
            );
        }
        notes.push(describe_load(settings));
        let report = Report {
            workload: workload.to_owned(),
            settings: settings.to_pairs().into_iter().chain(self.settings).collect(),
            host: host::facts(),
            targets: targets.iter().map(Target::facts).collect(),
            cells: self.cells,
            notes,
        };
        write_files(&report, settings)?;
        Ok(report)
    }
}

fn describe_load(settings: &Settings) -> String {
    let pace = settings.rate.map_or_else(
        || "closed loop, latency from sending".to_owned(),
        |rate| format!("{rate} records/s, latency from when each was due"),
    );
    format!(
        "records of {} bytes, batches of {} bytes, {} partitions, {} connections × {} in flight, {pace}, {}",
        settings.record_bytes,
        settings.batch_bytes,
        settings.partitions,
        settings.connections,
        settings.in_flight,
        if settings.codec.id() == 0 {
            "not compressed".to_owned()
        } else {
            settings.codec.to_string()
        },
    )
}

/// Writes the JSON and the percentile files.
fn write_files(report: &Report, settings: &Settings) -> Result<(), BenchError> {
    if let Some(path) = &settings.json {
        let mut text = format!("{:#}", report.to_json());
        text.push('\n');
        fs::write(path, text).map_err(BenchError::system(path.display().to_string()))?;
    }
    if let Some(folder) = &settings.hgrm {
        fs::create_dir_all(folder).map_err(BenchError::system(folder.display().to_string()))?;
        for cell in &report.cells {
            let name = format!("{}-{}-{}", report.workload, cell.target, cell.load);
            let name: String = name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || "-=.".contains(c) { c } else { '_' })
                .collect();
            let path = folder.join(format!("{name}.hgrm"));
            let failed = || BenchError::system(path.display().to_string());
            let mut file = BufWriter::new(File::create(&path).map_err(failed())?);
            write_percentiles(&mut file, &cell.merged_latency()).map_err(failed())?;
            file.flush().map_err(failed())?;
        }
    }
    Ok(())
}
