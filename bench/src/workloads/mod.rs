//! One file a subcommand, and what they share: cells of producers, measured in interleaved rounds.

mod acks;
mod catchup;
mod floor;
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

use crate::cli::{CommandLine, FloorOptions, TargetOptions, Workload};
use crate::engine::StopFlag;
use crate::error::BenchError;
use crate::floor::{FloorCell, FloorServer, FloorServerOptions, Service};
use crate::host;
use crate::load::ProducePlan;
use crate::measure::{Timing, unless_stopped};
use crate::progress::Progress;
use crate::report::{Cell, Report, Round, write_percentiles};
use crate::rounds::interleaved;
use crate::settings::Settings;
use crate::target::Target;
use produce_cell::ProduceCell;

/// What creating and deleting topics, connecting and draining take of a round, roughly: for the time that is shown as left.
const ROUND_OVERHEAD: Duration = Duration::from_millis(500);

/// What the last column stands for.
const FLOOR_NOTE: &str = "of floor: MB/s over those of a bare server on the same cores, which gets the same requests, \
     writes them to the disk in groups and answers, and does nothing else";

/// Runs what the command line says. `program` is this program's executable, for the embedded node.
///
/// # Errors
/// [`BenchError`].
pub fn run(command: CommandLine, program: &Path, stop: &StopFlag) -> Result<Report, BenchError> {
    let floor = match command.workload.compared() {
        Some((targets, floor)) => start_floor(targets, floor, program)?,
        None => None,
    };
    let run = Run { program, stop, floor };
    match command.workload {
        Workload::Acks(options) => acks::run(&run, options),
        Workload::Requests(options) => requests::run(&run, options.common),
        Workload::ManyPartitions(options) => many_partitions::run(&run, options),
        Workload::Floor(options) => floor::run(&run, options),
        Workload::ManyConnections(options) => many_connections::run(&run, options.common),
        Workload::Tail(options) => tail::run(&run, options),
        Workload::Catchup(options) => catchup::run(&run, options),
    }
}

/// The bare server that a workload is compared with, unless it is told not to.
fn start_floor(
    targets: &TargetOptions,
    floor: &FloorOptions,
    program: &Path,
) -> Result<Option<FloorServer>, BenchError> {
    let FloorOptions { no_floor, floor_dir, mut server } = floor.clone();
    if no_floor {
        if floor_dir.is_some() || server != FloorServerOptions::default() {
            let what = "--no-floor: without a floor the other --floor options have no effect";
            return Err(BenchError::Options(what.to_owned()));
        }
        return Ok(None);
    }
    server.follow_node(&targets.node_flag);
    let parent = floor_dir.or_else(|| targets.data_dir.clone());
    let parent = parent.unwrap_or_else(std::env::temp_dir);
    Ok(Some(FloorServer::start(program, &parent, &server)?))
}

/// What every workload needs.
struct Run<'a> {
    program: &'a Path,
    stop: &'a StopFlag,
    floor: Option<FloorServer>,
}

/// What is measured in turn.
enum AnyCell {
    Broker(ProduceCell),
    Floor(FloorCell),
}

/// The cells of the bare server that belong to cells of brokers: the same requests, each once. With the
/// number of each broker's.
fn floor_cells(cells: &[ProduceCell]) -> (Vec<FloorCell>, Vec<usize>) {
    let mut floors: Vec<FloorCell> = Vec::new();
    let mut of_cells = Vec::with_capacity(cells.len());
    for cell in cells {
        // A floor that answers fits all acks levels: what it does is what every one of them has done in the end.
        let plan = ProducePlan { acks: 1, ..cell.plan.clone() };
        let known = floors.iter().position(|floor| floor.plan == plan);
        of_cells.push(known.unwrap_or(floors.len()));
        if known.is_none() {
            let load = if cell.load.starts_with("acks=") {
                "commit".to_owned()
            } else {
                format!("commit, {}", cell.load)
            };
            floors.push(FloorCell { service: Service::Commit, load, plan });
        }
    }
    (floors, of_cells)
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
        let (floors, floor_of) = match &self.floor {
            Some(_) => floor_cells(&cells),
            None => (Vec::new(), Vec::new()),
        };
        // At a fixed rate there is nothing to compare but latency, which the floor's row has.
        let has_ratio: Vec<bool> = cells
            .iter()
            .map(|cell| cell.plan.rate.is_none() && !targets[cell.target].is_sink())
            .collect();
        let brokers = cells.len();
        let cells: Vec<AnyCell> = cells
            .into_iter()
            .map(AnyCell::Broker)
            .chain(floors.into_iter().map(AnyCell::Floor))
            .collect();
        let count = u32::try_from(cells.len()).unwrap_or(u32::MAX);
        let rounds = u32::try_from(settings.rounds).unwrap_or(u32::MAX);
        let planned = (warm_up.total() + (timing.total() + ROUND_OVERHEAD) * rounds) * count;
        let mut progress = Progress::new(planned);
        if !settings.warm_up.is_zero() {
            for cell in &cells {
                progress.begin(format!("warm-up, {}", cell.label(targets)));
                // Verified with the rounds, or a warm-up would take longer to read than to write.
                let unverified = Settings { verify: false, ..settings.clone() };
                self.measure(cell, targets, &unverified, warm_up, &mut progress)?;
                progress.end(warm_up.total());
            }
        }
        let mut measured = Measured::default();
        for cell in &cells {
            measured.cells.push(match cell {
                AnyCell::Broker(cell) => cell.empty(targets, settings)?,
                AnyCell::Floor(cell) => cell.empty(),
            });
        }
        for (round, order) in interleaved(cells.len(), settings.rounds).iter().enumerate() {
            for index in order {
                unless_stopped(self.stop)?;
                let cell = &cells[*index];
                let label = cell.label(targets);
                progress.begin(format!("round {} of {}, {label}", round + 1, settings.rounds));
                let (figures, notes) =
                    self.measure(cell, targets, settings, timing, &mut progress)?;
                measured.cells[*index].rounds.push(figures);
                measured.notes.extend(notes);
                progress.end(timing.total() + ROUND_OVERHEAD);
            }
        }
        for (cell, floor) in floor_of.iter().enumerate().filter(|(cell, _)| has_ratio[*cell]) {
            let median = |cell: &Cell| cell.over_rounds(|round| Some(round.bytes_per_second()));
            let floor = median(&measured.cells[brokers + floor]);
            let found = median(&measured.cells[cell]);
            measured.cells[cell].ratio_to_floor = found
                .zip(floor.filter(|floor| floor.median > 0.0))
                .map(|(found, floor)| found.median / floor.median);
        }
        if !floor_of.is_empty() {
            measured.notes.push(FLOOR_NOTE.to_owned());
        }
        Ok(measured)
    }

    fn measure(
        &self,
        cell: &AnyCell,
        targets: &[Target],
        settings: &Settings,
        timing: Timing,
        progress: &mut Progress,
    ) -> Result<(Round, Vec<String>), BenchError> {
        match cell {
            AnyCell::Broker(cell) => cell.measure(targets, settings, timing, self.stop, progress),
            AnyCell::Floor(cell) => {
                let server = self.floor.as_ref().expect("its cells are made where it runs");
                Ok((cell.measure(server, timing, self.stop, progress)?, Vec::new()))
            }
        }
    }
}

impl AnyCell {
    fn label(&self, targets: &[Target]) -> String {
        match self {
            Self::Broker(cell) => cell.label(targets),
            Self::Floor(cell) => cell.label(),
        }
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
        for note in other.notes {
            if !self.notes.contains(&note) {
                self.notes.push(note);
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Defaults;
    use clap::Parser;

    fn cell(load: &str, acks: i16, connections: usize, rate: Option<f64>) -> ProduceCell {
        let command = CommandLine::parse_from(["chronik-bench", "acks"]);
        let Workload::Acks(options) = command.workload else { panic!("{command:?}") };
        let settings = Settings::resolve(options.common.load, &Defaults::ACKS).unwrap();
        let plan = ProducePlan { connections, rate, ..acks::plan(&settings, acks) };
        ProduceCell { target: 0, load: load.to_owned(), plan }
    }

    #[test]
    fn acks_levels_and_targets_share_a_floor_and_other_loads_have_their_own() {
        let cells = [
            cell("acks=0", 0, 16, None),
            cell("acks=1", 1, 16, None),
            ProduceCell { target: 1, ..cell("acks=all", -1, 16, None) },
            cell("many", 1, 1000, None),
            cell("half", 1, 16, Some(10.0)),
        ];
        let (floors, floor_of) = floor_cells(&cells);
        assert_eq!(floor_of, [0, 0, 0, 1, 2]);
        let loads: Vec<_> = floors.iter().map(|floor| floor.load.as_str()).collect();
        assert_eq!(loads, ["commit", "commit, many", "commit, half"]);
        for (cell, floor) in cells.iter().zip(floor_of) {
            assert_eq!(ProducePlan { acks: 1, ..cell.plan.clone() }, floors[floor].plan);
        }
    }
}
