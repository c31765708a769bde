//! End to end: records that are read while they are written. How many, and how long each took.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::produce_cell::{TopicGuard, durability};
use super::{Measured, ROUND_OVERHEAD, Run, acks};
use crate::cli::{Defaults, TailOptions};
use crate::engine::{Outcome, Schedule, Window};
use crate::error::BenchError;
use crate::fetch::{Fetch, FetchShape, SendTimeTable};
use crate::load::{FetchPlan, ProducePlan};
use crate::measure::{RunningLoads, Timing, round, unless_stopped, watch};
use crate::produce::Produce;
use crate::progress::Progress;
use crate::report::{Cell, Report, Round};
use crate::rounds::interleaved;
use crate::settings::Settings;
use crate::target::Target;

const ACKS: i16 = 1;
/// The share of the load found, at which latency is measured.
const SHARE: f64 = 0.5;
/// How long consumers may take to have what was acknowledged before.
const BEHIND_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// One target under one load.
struct TailCell {
    target: usize,
    load: String,
    produce: ProducePlan,
    fetch: FetchPlan,
}

pub(super) fn run(run: &Run<'_>, options: TailOptions) -> Result<Report, BenchError> {
    let settings = Settings::resolve(options.common.load, &Defaults::TAIL)?;
    if options.consumers == 0 {
        return Err(BenchError::Options("--consumers: at least 1 is due".to_owned()));
    }
    if options.common.targets.sink {
        let what = "--sink: a server that keeps nothing has nothing to read";
        return Err(BenchError::Options(what.to_owned()));
    }
    let targets = Target::open(&options.common.targets, run.program)?;
    let cells = |rate: &dyn Fn(usize) -> Option<f64>, load: &dyn Fn(usize) -> String| {
        let cell = |target| TailCell {
            target,
            load: load(target),
            produce: ProducePlan { rate: rate(target), ..acks::plan(&settings, ACKS) },
            fetch: FetchPlan {
                shape: FetchShape {
                    bytes_max: options.fetch_bytes,
                    partition_bytes_max: options.partition_fetch_bytes,
                    wait_ms: options.fetch_wait_ms,
                    record_bytes: settings.record_bytes,
                },
                consumers: options.consumers,
                connections: settings.partitions,
                until: None,
            },
        };
        (0..targets.len()).map(cell).collect::<Vec<_>>()
    };
    let mut measured;
    if let Some(rate) = settings.rate {
        measured = measure_cells(
            run,
            &targets,
            &settings,
            &cells(&|_| Some(rate), &|_| format!("{rate}/s")),
        )?;
    } else {
        let most = cells(&|_| None, &|_| "most".to_owned());
        measured = measure_cells(run, &targets, &settings, &most)?;
        // Producers' cells come first of each pair.
        let rates: Vec<f64> = measured.cells.iter().step_by(2).map(share_of).collect();
        let half =
            cells(&|target| Some(rates[target]), &|target| format!("half: {:.0}/s", rates[target]));
        measured.add(measure_cells(run, &targets, &settings, &half)?);
    }
    measured.notes.push(format!(
        "consumers: {}, each reads everything; latency is from when a batch was due to when a consumer had it, over \
         batches; the server's cost is that of both sides",
        options.consumers
    ));
    measured.setting("consumers", options.consumers);
    measured.setting("fetch-bytes", options.fetch_bytes);
    measured.setting("partition-fetch-bytes", options.partition_fetch_bytes);
    measured.setting("fetch-wait-ms", options.fetch_wait_ms);
    measured.report("tail", &targets, &settings)
}

fn share_of(cell: &Cell) -> f64 {
    let spread = cell.over_rounds(|round| Some(round.records_per_second()));
    (spread.map_or(0.0, |spread| spread.median) * SHARE).max(1.0)
}

/// For each cell one of its producers and one of its consumers.
fn measure_cells(
    run: &Run<'_>,
    targets: &[Target],
    settings: &Settings,
    cells: &[TailCell],
) -> Result<Measured, BenchError> {
    let warm_up = Timing { ramp: Duration::ZERO, window: settings.warm_up };
    let timing = Timing { ramp: settings.ramp, window: settings.duration };
    let each = timing.total() + ROUND_OVERHEAD;
    let rounds = u32::try_from(settings.rounds).unwrap_or(u32::MAX);
    let count = u32::try_from(cells.len()).unwrap_or(u32::MAX);
    let mut progress = Progress::new((warm_up.total() + each * rounds) * count);
    let mut measured = Measured::default();
    for cell in cells {
        let target = &targets[cell.target];
        let label = format!("{} {}", target.name, cell.load);
        if !warm_up.window.is_zero() {
            progress.begin(format!("warm-up, {label}"));
            measure(run, target, settings, cell, warm_up, &mut progress)?;
            progress.end(warm_up.total());
        }
        let durability = durability(target, settings, ACKS)?;
        for side in ["produce", "consume"] {
            measured.cells.push(Cell {
                target: target.name.clone(),
                load: format!("{}, {side}", cell.load),
                durability: durability.clone(),
                rounds: Vec::new(),
                ratio_to_floor: None,
            });
        }
    }
    for (number, order) in interleaved(cells.len(), settings.rounds).iter().enumerate() {
        for index in order {
            let cell = &cells[*index];
            let target = &targets[cell.target];
            let label = format!("{} {}", target.name, cell.load);
            progress.begin(format!("round {} of {}, {label}", number + 1, settings.rounds));
            let (produced, consumed) = measure(run, target, settings, cell, timing, &mut progress)?;
            measured.cells[index * 2].rounds.push(produced);
            measured.cells[index * 2 + 1].rounds.push(consumed);
            progress.end(each);
        }
    }
    Ok(measured)
}

fn measure(
    run: &Run<'_>,
    target: &Target,
    settings: &Settings,
    cell: &TailCell,
    timing: Timing,
    progress: &mut Progress,
) -> Result<(Round, Round), BenchError> {
    let guard = TopicGuard::create(target, cell.produce.partitions, settings)?;
    let times = Arc::new(SendTimeTable::new(cell.produce.partitions));
    let producers = guard.producers(&cell.produce)?.noting(Arc::clone(&times));
    let schedule = timing.schedule(run.stop);
    let window = Arc::clone(&schedule.window);
    let consumers = cell
        .fetch
        .load(guard.wire_ref(), &guard.topic, |fetch| fetch.tailing(times, Arc::clone(&window)))?;
    // Consumers go on behind the window, until they have all that was produced in it.
    let to_ns = window.to_ns() + BEHIND_MAX.as_nanos() as u64;
    let longer =
        Schedule { window: Arc::new(Window::new(window.from_ns(), to_ns)), ..schedule.clone() };
    let consumers = RunningLoads::start(vec![consumers.connect()?], &longer)?;
    let mut connected = Vec::new();
    for load in producers.loads() {
        connected.push(load.connect()?);
    }
    let running = RunningLoads::start(connected, &schedule)?;
    let ended = || running.any_finished() || consumers.any_finished();
    let watched = watch(target, &schedule, progress, || running.records(), ended, || {});
    let produced = running.join()?;
    let done: u64 = produced.iter().map(|outcome: &Outcome<Produce>| outcome.done.records).sum();
    let due = done * cell.fetch.consumers as u64;
    let deadline = Instant::now() + BEHIND_MAX;
    while consumers.records() < due && Instant::now() < deadline && !consumers.any_finished() {
        std::thread::sleep(LOOK_EVERY);
    }
    longer.window.end_at(longer.clock.now_ns());
    let consumed = consumers.join()?;
    unless_stopped(run.stop)?;
    let read: u64 = consumed.iter().map(|outcome: &Outcome<Fetch>| outcome.done.records).sum();
    if read < due {
        return Err(BenchError::Untrue {
            target: target.name.clone(),
            what: format!("{due} records were to be read within {BEHIND_MAX:?}, {read} were"),
        });
    }
    let produce_round = round(&produced, cell.produce.closed_loop_slots(), watched.cost());
    let mut consume_round = round(&consumed, None, watched.cost());
    let figures = consumed[0].traffic.tail_figures().expect("it was told to measure the tail");
    consume_round.client.cpu = scaled(&consumed[0], produce_round.window);
    consume_round.window = produce_round.window;
    consume_round.measured = figures.measured;
    consume_round.latency = figures.latency.clone();
    if figures.unknown > 0 {
        consume_round.extra.push(("untimed".to_owned(), figures.unknown as f64));
    }
    Ok((produce_round, consume_round))
}

/// The consumers' CPU time of the window, out of their own longer one.
fn scaled(outcome: &Outcome<Fetch>, window: Duration) -> Duration {
    let share = window.as_secs_f64() / outcome.window.as_secs_f64().max(1e-9);
    outcome.cost.cpu.mul_f64(share.clamp(0.0, 1.0))
}
