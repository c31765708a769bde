//! The bare limits of this machine: sockets, the disk, both together, and the client.

use std::path::Path;
use std::time::Duration;

use super::{Measured, ROUND_OVERHEAD, Run, acks};
use crate::cli::{Defaults, FloorWorkloadOptions};
use crate::engine::Tally;
use crate::error::BenchError;
use crate::floor::disk::{WriteLoop, write_for};
use crate::floor::{FLOOR, FloorCell, FloorServer, Service};
use crate::load::ProducePlan;
use crate::measure::{Timing, unless_stopped};
use crate::produce::batch::BatchShape;
use crate::progress::Progress;
use crate::report::{Cell, ClientCost, Durability, Report, Round};
use crate::rounds::interleaved;
use crate::settings::Settings;
use crate::target::Target;

const ACKS: i16 = 1;
/// Frames of the copy through the loopback: large enough that nothing but copying counts.
const COPY_BYTES: usize = 1 << 20;
/// What the disk gets: from a lone record to the largest group.
const WRITE_BYTES: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 256 << 10];
const WRITES_IN_FLIGHT: [usize; 2] = [1, 2];

/// One thing that is measured.
enum Bare {
    Sockets(FloorCell),
    Disk(WriteLoop),
}

impl Bare {
    fn label(&self) -> String {
        match self {
            Self::Sockets(cell) => cell.label(),
            Self::Disk(what) => format!("{FLOOR} {}", name(*what)),
        }
    }

    fn empty(&self) -> Cell {
        match self {
            Self::Sockets(cell) => cell.empty(),
            Self::Disk(what) => Cell {
                target: FLOOR.to_owned(),
                load: name(*what),
                durability: Durability::WaitsForDisk,
                rounds: Vec::new(),
                ratio_to_floor: None,
            },
        }
    }
}

fn name(what: WriteLoop) -> String {
    format!("write {} KiB × {}", what.write_bytes >> 10, what.in_flight)
}

pub(super) fn run(run: &Run<'_>, options: FloorWorkloadOptions) -> Result<Report, BenchError> {
    let load = options.load;
    if load.verify || load.replication_factor != -1 || !load.topic_config.is_empty() {
        let what = "--verify, --replication-factor and --topic-config: the floor has no topics";
        return Err(BenchError::Options(what.to_owned()));
    }
    let settings = Settings::resolve(load, &Defaults::ACKS)?;
    let parent = options.data_dir.unwrap_or_else(std::env::temp_dir);
    let server = FloorServer::start(run.program, &parent, &options.server)?;
    let plan = options.server.plan()?;
    let cells = cells(&settings);
    let timing = Timing { ramp: settings.ramp, window: settings.duration };
    let warm_up = Timing { ramp: Duration::ZERO, window: settings.warm_up };
    let count = u32::try_from(cells.len()).unwrap_or(u32::MAX);
    let rounds = u32::try_from(settings.rounds).unwrap_or(u32::MAX);
    let mut progress =
        Progress::new((warm_up.total() + (timing.total() + ROUND_OVERHEAD) * rounds) * count);
    let measure = |cell: &Bare, timing: Timing, progress: &mut Progress| match cell {
        Bare::Sockets(cell) => cell.measure(&server, timing, run.stop, progress),
        Bare::Disk(what) => writes(&parent, &plan, *what, timing),
    };
    if !settings.warm_up.is_zero() {
        for cell in &cells {
            unless_stopped(run.stop)?;
            progress.begin(format!("warm-up, {}", cell.label()));
            measure(cell, warm_up, &mut progress)?;
            progress.end(warm_up.total());
        }
    }
    let mut measured = Measured::default();
    measured.cells.extend(cells.iter().map(Bare::empty));
    for (round, order) in interleaved(cells.len(), settings.rounds).iter().enumerate() {
        for index in order {
            unless_stopped(run.stop)?;
            let label = cells[*index].label();
            progress.begin(format!("round {} of {}, {label}", round + 1, settings.rounds));
            let figures = measure(&cells[*index], timing, &mut progress)?;
            measured.cells[*index].rounds.push(figures);
            progress.end(timing.total() + ROUND_OVERHEAD);
        }
    }
    drop(progress);
    measured.notes.push(
        "answer: each request answered at once; echo: sent back whole; commit: answered when it is on the disk; sink: \
         dropped unread, which shows what the client can do; copy: 1 MiB frames one way; write: O_DIRECT|O_DSYNC, a \
         record is a write"
            .to_owned(),
    );
    let target = Target::bare(FLOOR, server.addresses(Service::Answer)[0], server.pid());
    measured.report("floor", &[target], &settings)
}

fn cells(settings: &Settings) -> Vec<Bare> {
    let plan = acks::plan(settings, ACKS);
    let cell = |service, load: &str, plan: &ProducePlan| {
        Bare::Sockets(FloorCell { service, load: load.to_owned(), plan: plan.clone() })
    };
    let copy = ProducePlan {
        shape: BatchShape::fitting(COPY_BYTES, COPY_BYTES, settings.codec),
        in_flight: 4,
        rate: None,
        ..plan.clone()
    };
    let mut cells = vec![
        cell(Service::Commit, "commit", &plan),
        cell(Service::Answer, "answer", &plan),
        cell(Service::Echo, "echo", &plan),
        cell(Service::Sink, "sink", &plan),
        cell(Service::Discard, "copy", &copy),
    ];
    for write_bytes in WRITE_BYTES {
        for in_flight in WRITES_IN_FLIGHT {
            cells.push(Bare::Disk(WriteLoop { write_bytes, in_flight }));
        }
    }
    cells
}

fn writes(
    directory: &Path,
    plan: &chronik_tuning::plan::Plan,
    what: WriteLoop,
    timing: Timing,
) -> Result<Round, BenchError> {
    let done = write_for(directory, plan, what, timing.window)?;
    let measured = Tally {
        requests: done.count,
        records: done.count,
        bytes: done.count * what.write_bytes as u64,
    };
    Ok(Round {
        measured,
        done: measured,
        window: done.time,
        latency: done.latency,
        closed_loop_slots: Some(what.in_flight as u64),
        server: None,
        client: ClientCost::default(),
        refused: 0,
        unanswered: 0,
        extra: Vec::new(),
    })
}
