//! A consumer that reads a long backlog while producers write: what that does to the producers.
//!
//! Producers run at a fixed rate, in turn alone and beside the reader. Before each reading the backlog's pages are
//! taken out of the page cache where the server's files are known; how much then came from the disk is measured.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Advice, fadvise};

use super::produce_cell::{TopicGuard, durability};
use super::{Measured, ROUND_OVERHEAD, Run, acks};
use crate::cli::{CatchupOptions, Defaults};
use crate::engine::Outcome;
use crate::error::BenchError;
use crate::fetch::{Fetch, FetchShape};
use crate::load::{FetchPlan, ProducePlan};
use crate::measure::{RunningLoads, Timing, Watched, round, unless_stopped, watch};
use crate::produce::Produce;
use crate::produce::batch::BatchShape;
use crate::progress::Progress;
use crate::report::{Cell, Durability, Report, Round};
use crate::rounds::interleaved;
use crate::settings::Settings;
use crate::target::Target;

const ACKS: i16 = 1;
/// How the backlog is written: it is not what is measured.
const BACKLOG_BATCH_BYTES: usize = 256 << 10;
const BACKLOG_IN_FLIGHT: usize = 4;
const BACKLOG_TIME_MAX: Duration = Duration::from_secs(3600);
const RECORDS_BY: &str = "read from disk MB/s";

/// The topic that is read, of one target.
struct Backlog {
    guard: TopicGuard,
    ends: Vec<i64>,
}

pub(super) fn run(run: &Run<'_>, options: CatchupOptions) -> Result<Report, BenchError> {
    let settings = Settings::resolve(options.common.load, &Defaults::CATCHUP)?;
    if options.common.targets.sink {
        let what = "--sink: a server that keeps nothing has nothing to read";
        return Err(BenchError::Options(what.to_owned()));
    }
    let targets = Target::open(&options.common.targets, run.program)?;
    let timing = Timing { ramp: settings.ramp, window: settings.duration };
    let rounds = u32::try_from(settings.rounds).unwrap_or(u32::MAX);
    let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
    let mut progress = Progress::new((timing.total() + ROUND_OVERHEAD) * rounds * count * 2);
    let shape = FetchShape {
        bytes_max: options.fetch_bytes,
        partition_bytes_max: options.partition_fetch_bytes,
        wait_ms: 500,
        record_bytes: settings.record_bytes,
    };
    let mut backlogs = Vec::new();
    let mut measured = Measured::default();
    for target in &targets {
        progress.begin(format!("{}: writing the backlog", target.name));
        backlogs.push(write_backlog(run, target, &settings, options.backlog, &mut progress)?);
        let produced = durability(target, &settings, ACKS)?;
        let cells = [
            ("alone", produced.clone()),
            ("beside a reader", produced),
            ("the reader", Durability::ReadsOnly),
        ];
        for (load, durability) in cells {
            measured.cells.push(Cell {
                target: target.name.clone(),
                load: load.to_owned(),
                durability,
                rounds: Vec::new(),
                ratio_to_floor: None,
            });
        }
    }
    let mut notes = Vec::new();
    for (number, order) in interleaved(targets.len() * 2, settings.rounds).iter().enumerate() {
        for index in order {
            unless_stopped(run.stop)?;
            let (target, beside) = (&targets[index / 2], index % 2 == 1);
            let with = if beside { "beside a reader" } else { "alone" };
            progress.begin(format!(
                "round {} of {}, {} {with}",
                number + 1,
                settings.rounds,
                target.name
            ));
            let backlog = &backlogs[index / 2];
            let reader = beside.then(|| FetchPlan {
                shape,
                consumers: 1,
                connections: settings.partitions,
                until: Some(backlog.ends.clone()),
            });
            if beside {
                note_once(&mut notes, make_cold(target)?);
            }
            let figures = measure(run, target, &settings, backlog, reader.as_ref(), &mut progress)?;
            let first = index / 2 * 3;
            measured.cells[first + usize::from(beside)].rounds.push(figures.produced);
            if let Some(read) = figures.read {
                measured.cells[first + 2].rounds.push(read);
            }
            if let Some(note) = figures.note {
                note_once(&mut notes, note);
            }
            progress.end(timing.total() + ROUND_OVERHEAD);
        }
    }
    measured.notes.append(&mut notes);
    measured.setting("backlog", options.backlog);
    measured.setting("fetch-bytes", options.fetch_bytes);
    measured.setting("partition-fetch-bytes", options.partition_fetch_bytes);
    measured.report("catchup", &targets, &settings)
}

fn note_once(notes: &mut Vec<String>, note: String) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

/// Writes a backlog of so many bytes of values.
fn write_backlog(
    run: &Run<'_>,
    target: &Target,
    settings: &Settings,
    bytes: u64,
    progress: &mut Progress,
) -> Result<Backlog, BenchError> {
    let guard = TopicGuard::create(target, settings.partitions, settings)?;
    let shape = BatchShape::fitting(settings.record_bytes, BACKLOG_BATCH_BYTES, settings.codec);
    let plan = ProducePlan {
        shape,
        in_flight: BACKLOG_IN_FLIGHT,
        rate: None,
        requests_max: Some(bytes.div_ceil(shape.value_bytes()).max(1)),
        ..acks::plan(settings, ACKS)
    };
    let timing = Timing { ramp: Duration::ZERO, window: BACKLOG_TIME_MAX };
    let mut connected = Vec::new();
    for load in guard.producers(&plan)?.loads() {
        connected.push(load.connect()?);
    }
    let schedule = timing.schedule(run.stop);
    let running = RunningLoads::start(connected, &schedule)?;
    watch(target, &schedule, progress, || running.records(), || running.all_finished(), || {});
    running.join()?;
    unless_stopped(run.stop)?;
    let ends = guard.topic.end_offsets()?;
    Ok(Backlog { guard, ends })
}

/// What one measurement found.
struct Figures {
    produced: Round,
    read: Option<Round>,
    note: Option<String>,
}

fn measure(
    run: &Run<'_>,
    target: &Target,
    settings: &Settings,
    backlog: &Backlog,
    reader: Option<&FetchPlan>,
    progress: &mut Progress,
) -> Result<Figures, BenchError> {
    let plan = acks::plan(settings, ACKS);
    let guard = TopicGuard::create(target, plan.partitions, settings)?;
    let mut connected = Vec::new();
    for load in guard.producers(&plan)?.loads() {
        connected.push(load.connect()?);
    }
    let reading = match reader {
        Some(plan) => {
            let load = plan.load(backlog.guard.wire_ref(), &backlog.guard.topic, |fetch| fetch)?;
            Some(load.connect()?)
        }
        None => None,
    };
    let timing = Timing { ramp: settings.ramp, window: settings.duration };
    let schedule = timing.schedule(run.stop);
    let running = RunningLoads::start(connected, &schedule)?;
    let wait_ns = schedule.window.from_ns().saturating_sub(schedule.clock.now_ns());
    std::thread::sleep(Duration::from_nanos(wait_ns));
    let disk_before = target.disk_read_bytes();
    let reading = match reading {
        Some(connected) => Some(RunningLoads::start(vec![connected], &schedule)?),
        None => None,
    };
    let ended =
        || running.any_finished() || reading.as_ref().is_some_and(RunningLoads::all_finished);
    let watched = watch(target, &schedule, progress, || running.records(), ended, || {});
    // With the reader at its end, what follows is no figure of producers beside it.
    schedule.window.end_at(schedule.clock.now_ns());
    let disk_after = target.disk_read_bytes();
    let produced = running.join()?;
    let read = reading.map(RunningLoads::join).transpose()?;
    unless_stopped(run.stop)?;
    let disk_bytes =
        disk_before.zip(disk_after).map(|(before, after)| after.saturating_sub(before));
    Ok(figures(&plan, backlog, &produced, read.as_deref(), watched, disk_bytes))
}

fn figures(
    plan: &ProducePlan,
    backlog: &Backlog,
    produced: &[Outcome<Produce>],
    read: Option<&[Outcome<Fetch>]>,
    watched: Watched,
    disk_bytes: Option<u64>,
) -> Figures {
    let produced = round(produced, plan.closed_loop_slots(), watched.cost());
    let mut note = None;
    let read = read.map(|read| {
        let mut round = round(read, None, watched.cost());
        if let Some(bytes) = disk_bytes {
            let rate = bytes as f64 / 1e6 / round.window.as_secs_f64().max(1e-9);
            round.extra.push((RECORDS_BY.to_owned(), rate));
        }
        let whole: u64 = backlog.ends.iter().map(|end| u64::try_from(*end).unwrap_or(0)).sum();
        let done: u64 = read.iter().map(|outcome| outcome.done.records).sum();
        if done < whole {
            note = Some("the backlog was not read to its end within --duration".to_owned());
        }
        round
    });
    Figures { produced, read, note }
}

/// Takes the target's files out of the page cache; says how far that was possible.
fn make_cold(target: &Target) -> Result<String, BenchError> {
    let name = &target.name;
    let Some(folder) = target.data_dir() else {
        return Ok(format!(
            "{name}: where it keeps its files is unknown, so the backlog may be read from the page cache; see \
             --target-data"
        ));
    };
    let failed = BenchError::system(format!("dropping pages of {}", folder.display()));
    drop_pages(&folder).map_err(failed)?;
    Ok(format!("{name}: its files were synced and dropped from the page cache before each reading"))
}

/// Files and folders that disappear meanwhile were not the backlog's.
fn drop_pages(folder: &Path) -> io::Result<()> {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Some(entries) = unless_gone(fs::read_dir(folder))? else { continue };
        for entry in entries {
            let Some(entry) = unless_gone(entry)? else { continue };
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                let Some(file) = unless_gone(File::open(&path))? else { continue };
                // Only clean pages can be dropped.
                file.sync_data()?;
                fadvise(&file, 0, None, Advice::DontNeed)?;
            }
        }
    }
    Ok(())
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
