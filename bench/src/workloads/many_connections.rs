//! Many connections with a producer each, against few: what a connection costs.

use std::time::Duration;

use chronik_shards::format::compression::Codec;

use super::produce_cell::{ProduceCell, TopicGuard};
use super::{Run, acks};
use crate::cli::{Defaults, WorkloadOptions};
use crate::engine::Outcome;
use crate::error::BenchError;
use crate::load::{ProducePlan, Producers};
use crate::measure::{Timing, unless_stopped};
use crate::produce::Produce;
use crate::produce::batch::BatchShape;
use crate::report::Report;
use crate::settings::Settings;
use crate::target::Target;

const ACKS: i16 = 1;
/// What the many are compared with.
const FEW: usize = 16;
/// How long connections idle before the server's memory is looked at.
const IDLE: Duration = Duration::from_secs(1);
/// How long one request on each connection may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(run: &Run<'_>, options: WorkloadOptions) -> Result<Report, BenchError> {
    let settings = Settings::resolve(options.load, &Defaults::MANY_CONNECTIONS)?;
    if settings.connections <= FEW {
        let what =
            format!("--connections: more than the {FEW} that they are compared with are due");
        return Err(BenchError::Options(what));
    }
    let targets = Target::open(&options.targets, run.program)?;
    let many = acks::plan(&settings, ACKS);
    let mut notes = Vec::new();
    for target in &targets {
        notes.push(idle_memory(run, target, &settings, &many)?);
    }
    // As many requests under way over all connections, as far as that divides.
    let in_flight = (settings.connections * settings.in_flight).div_ceil(FEW);
    let few = ProducePlan {
        connections: FEW,
        in_flight,
        threads: settings.client_threads.min(FEW),
        ..many.clone()
    };
    let mut cells = Vec::new();
    for plan in [few, many] {
        for target in 0..targets.len() {
            let load = format!("{} × {} in flight", plan.connections, plan.in_flight);
            cells.push(ProduceCell { target, load, plan: plan.clone() });
        }
    }
    let mut measured = run.produce_cells(&targets, &settings, cells)?;
    measured.notes.extend(notes);
    measured.report("many-connections", &targets, &settings)
}

/// What a connection costs the server that was used once and is open: the growth of its resident memory.
///
/// Before anything else is measured: memory that a server has had once, it need not ask for again.
fn idle_memory(
    run: &Run<'_>,
    target: &Target,
    settings: &Settings,
    many: &ProducePlan,
) -> Result<String, BenchError> {
    let shape = BatchShape { record_bytes: 1, records: 1, codec: Codec::None, key_bytes: 0 };
    let plan = |connections: usize| ProducePlan {
        shape,
        connections,
        in_flight: 1,
        threads: 1,
        requests_max: Some(connections as u64),
        ..many.clone()
    };
    let guard = TopicGuard::create(target, many.partitions, settings)?;
    // Each producer's first batch needs memory of the partition's; that is not the connections' either.
    use_once(run, guard.producers(&plan(FEW))?)?;
    let before = target.usage();
    let outcomes = use_once(run, guard.producers(&plan(many.connections))?)?;
    std::thread::sleep(IDLE);
    let after = target.usage();
    drop(outcomes);
    let name = &target.name;
    Ok(match (before, after) {
        (Some(before), Some(after)) => {
            let grown = after.resident_bytes.saturating_sub(before.resident_bytes) as f64;
            let each = grown / 1024.0 / many.connections as f64;
            format!(
                "{name}: an idle connection that was used once takes {each:.1} KiB of the server's memory"
            )
        }
        _ => format!(
            "{name}: the memory of an idle connection is unknown, the process is not to be seen"
        ),
    })
}

/// Opens the connections and sends one request on each.
fn use_once(run: &Run<'_>, producers: Producers) -> Result<Vec<Outcome<Produce>>, BenchError> {
    let timing = Timing { ramp: Duration::ZERO, window: PATIENCE };
    let mut outcomes = Vec::new();
    for load in producers.loads() {
        let running = load.connect()?.spawn(&timing.schedule(run.stop))?;
        outcomes.push(running.join()?);
        unless_stopped(run.stop)?;
    }
    Ok(outcomes)
}
