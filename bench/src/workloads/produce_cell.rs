//! One cell of producers: a topic of its own in each round, which is deleted after it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::engine::{Outcome, StopFlag};
use crate::error::BenchError;
use crate::load::{ProducePlan, Producers, topic_spec};
use crate::measure::{RunningLoads, Timing, first_refusal, round, unless_stopped, watch};
use crate::produce::Produce;
use crate::progress::Progress;
use crate::report::{Cell, Durability, Round};
use crate::settings::Settings;
use crate::target::Target;
use crate::topic::Topic;
use crate::verify::{Found, Holes, read_back};
use crate::wire::Wire;

/// How long records without an answer may take to be in the log after the last was sent, while none arrives.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(20);
/// The same for acknowledged ones, whose place in the log followers may not know of yet.
const ACKNOWLEDGED_PATIENCE: Duration = Duration::from_secs(1);
const ARRIVAL_LOOK_EVERY: Duration = Duration::from_millis(20);

/// What is measured.
#[derive(Clone, Debug)]
pub(super) struct ProduceCell {
    /// Which of the targets.
    pub(super) target: usize,
    /// In the table.
    pub(super) load: String,
    /// What the producers do.
    pub(super) plan: ProducePlan,
}

/// Deletes a topic when it goes out of scope, whatever happened.
pub(super) struct TopicGuard {
    wire: Wire,
    pub(super) topic: Topic,
}

impl TopicGuard {
    pub(super) fn create(
        target: &Target,
        partitions: usize,
        settings: &Settings,
    ) -> Result<Self, BenchError> {
        let mut wire = Wire::connect(target.address)?;
        let spec = topic_spec(
            unique_name(),
            partitions,
            settings.replication_factor,
            &settings.topic_configs,
        );
        let topic = Topic::create(&mut wire, &spec)?;
        Ok(Self { wire, topic })
    }

    /// For its versions.
    pub(super) const fn wire_ref(&self) -> &Wire {
        &self.wire
    }

    /// Producers that write to the topic.
    pub(super) fn producers(&self, plan: &ProducePlan) -> Result<Producers, BenchError> {
        Producers::prepare(&self.wire, self.topic.clone(), plan.clone())
    }
}

impl Drop for TopicGuard {
    fn drop(&mut self) {
        if let Err(error) = self.topic.delete(&mut self.wire) {
            // A server that broke in the run cannot delete anything either; the run's own error says so.
            tracing::debug!(%error, "a topic stays");
        }
    }
}

/// Asks the server what an acknowledgement stands for, of a topic as the settings make them.
pub(super) fn durability(
    target: &Target,
    settings: &Settings,
    acks: i16,
) -> Result<Durability, BenchError> {
    if target.is_sink() {
        return Ok(Durability::NoLog);
    }
    let mut guard = TopicGuard::create(target, 1, settings)?;
    let topic = guard.topic.clone();
    Ok(topic.durability(&mut guard.wire, acks)?)
}

fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    format!("chronik-bench-{seconds}-{}-{number}", std::process::id())
}

impl ProduceCell {
    pub(super) fn label(&self, targets: &[Target]) -> String {
        format!("{} {}", targets[self.target].name, self.load)
    }

    /// The cell without rounds; asks the server what its acknowledgements stand for.
    pub(super) fn empty(
        &self,
        targets: &[Target],
        settings: &Settings,
    ) -> Result<Cell, BenchError> {
        let target = &targets[self.target];
        let durability = durability(target, settings, self.plan.acks)?;
        Ok(Cell {
            target: target.name.clone(),
            load: self.load.clone(),
            durability,
            rounds: Vec::new(),
            ratio_to_floor: None,
        })
    }

    /// Measures once; also what a reader must know of it.
    pub(super) fn measure(
        &self,
        targets: &[Target],
        settings: &Settings,
        timing: Timing,
        stop: &StopFlag,
        progress: &mut Progress,
    ) -> Result<(Round, Vec<String>), BenchError> {
        let target = &targets[self.target];
        let guard = TopicGuard::create(target, self.plan.partitions, settings)?;
        let producers = guard.producers(&self.plan)?;
        let mut connected = Vec::new();
        for load in producers.loads() {
            connected.push(load.connect()?);
        }
        let schedule = timing.schedule(stop);
        let running = RunningLoads::start(connected, &schedule)?;
        let ended = || running.any_finished();
        let mut arrivals = Arrivals::new(&guard.topic, self.plan.acks == 0 && !target.is_sink());
        let records = || running.records();
        let watched = watch(target, &schedule, progress, records, ended, || arrivals.look());
        let outcomes = running.join()?;
        unless_stopped(stop)?;
        let mut figures = round(&outcomes, self.plan.closed_loop_slots(), watched.cost());
        if let Some(rate) = arrivals.records_per_second() {
            figures.extra.push(("in log/s".to_owned(), rate));
        }
        let mut notes = Vec::new();
        if let Some(words) = first_refusal(&outcomes) {
            notes.push(format!("{}: the first refusal: {words}", self.label(targets)));
        }
        notes.extend(self.check_arrival(target, &producers, &outcomes, settings.verify)?);
        Ok((figures, notes))
    }

    /// Compares the log with what was sent; reads it back if asked to.
    fn check_arrival(
        &self,
        target: &Target,
        producers: &Producers,
        outcomes: &[Outcome<Produce>],
        verify: bool,
    ) -> Result<Option<String>, BenchError> {
        let untrue = |what| BenchError::Untrue { target: target.name.clone(), what };
        let done: u64 = outcomes.iter().map(|outcome| outcome.done.records).sum();
        let failed: u64 = outcomes.iter().map(|outcome| outcome.refused + outcome.unanswered).sum();
        let possible = done + failed * self.plan.request_records();
        let patience = if self.plan.acks == 0 { ARRIVAL_PATIENCE } else { ACKNOWLEDGED_PATIENCE };
        let ends = await_arrival(&producers.topic, done, patience)?;
        let arrived = total(&ends);
        if arrived > possible {
            return Err(untrue(format!("{arrived} records in the log, {possible} were sent")));
        }
        let mut note = None;
        if arrived < done {
            if self.plan.acks != 0 {
                let lost = format!("{done} records were acknowledged, {arrived} are in the log");
                return Err(untrue(lost));
            }
            // Nobody was told that they would.
            note = Some(format!(
                "{} {}: of {done} records that the sockets took, {arrived} arrived in the log",
                target.name, self.load
            ));
        }
        if target.is_sink() {
            return Ok(note);
        }
        if verify {
            let holes = if arrived == done && failed == 0 { Holes::None } else { Holes::Allowed };
            self.read_everything_back(target, producers, outcomes, &ends, holes)?;
        }
        Ok(note)
    }

    fn read_everything_back(
        &self,
        target: &Target,
        producers: &Producers,
        outcomes: &[Outcome<Produce>],
        ends: &[i64],
        holes: Holes,
    ) -> Result<(), BenchError> {
        for (partition, end) in ends.iter().enumerate() {
            let topic = &producers.topic;
            let found =
                read_back(&target.name, topic, partition, *end, producers.numbering, holes)?;
            if holes == Holes::Allowed {
                continue;
            }
            let mut sent = Found { records: 0, batches: vec![0; self.plan.connections] };
            for (producer, batches) in outcomes.iter().flat_map(|outcome| outcome.traffic.sent()) {
                let producer = usize::try_from(producer).expect("a connection's number");
                sent.batches[producer] = batches[partition];
                sent.records += batches[partition] * self.plan.shape.records as u64;
            }
            if found != sent {
                return Err(BenchError::Untrue {
                    target: target.name.clone(),
                    what: format!("partition {partition} holds {found:?}, {sent:?} was sent"),
                });
            }
        }
        Ok(())
    }
}

/// How fast records without an answer get into the log: looked up at both ends of the window.
struct Arrivals<'a> {
    topic: Option<&'a Topic>,
    looks: Vec<(Instant, u64)>,
}

impl<'a> Arrivals<'a> {
    fn new(topic: &'a Topic, wanted: bool) -> Self {
        Self { topic: wanted.then_some(topic), looks: Vec::new() }
    }

    fn look(&mut self) {
        let Some(topic) = self.topic else { return };
        let asked = Instant::now();
        // A server that does not say leaves the column empty.
        if let Ok(ends) = topic.end_offsets() {
            self.looks.push((asked + asked.elapsed() / 2, total(&ends)));
        }
    }

    fn records_per_second(&self) -> Option<f64> {
        let [(from, before), (to, after)] = self.looks[..] else {
            return None;
        };
        let seconds = to.duration_since(from).as_secs_f64();
        (seconds > 0.0).then(|| after.saturating_sub(before) as f64 / seconds)
    }
}

fn total(ends: &[i64]) -> u64 {
    ends.iter().map(|end| u64::try_from(*end).unwrap_or(0)).sum()
}

/// The log's ends, once everything has arrived or nothing more does.
fn await_arrival(topic: &Topic, records: u64, patience: Duration) -> Result<Vec<i64>, BenchError> {
    let mut last = (0, Instant::now());
    loop {
        let ends = topic.end_offsets()?;
        let arrived = total(&ends);
        if arrived > last.0 {
            last = (arrived, Instant::now());
        }
        if arrived >= records || last.1.elapsed() >= patience {
            return Ok(ends);
        }
        std::thread::sleep(ARRIVAL_LOOK_EVERY);
    }
}
