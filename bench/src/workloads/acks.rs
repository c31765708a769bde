//! Producers with acks 0, 1 and all: what waiting costs.

use super::Run;
use super::produce_cell::ProduceCell;
use crate::cli::{AcksLevel, AcksOptions, Defaults};
use crate::error::BenchError;
use crate::load::{ProducePlan, acks_name};
use crate::produce::batch::BatchShape;
use crate::report::Report;
use crate::settings::Settings;
use crate::target::Target;

pub(super) fn run(run: &Run<'_>, options: AcksOptions) -> Result<Report, BenchError> {
    let settings = Settings::resolve(options.common.load, &Defaults::ACKS)?;
    let targets = Target::open(&options.common.targets, run.program)?;
    let mut cells = Vec::new();
    let mut levels = options.acks;
    levels.sort_by_key(|level| *level as u8);
    levels.dedup();
    for acks in levels.iter().map(|level| level.number()) {
        for target in 0..targets.len() {
            let plan = plan(&settings, acks);
            let load = acks_name(acks).to_owned();
            cells.push(ProduceCell { target, load, plan });
        }
    }
    let mut measured = run.produce_cells(&targets, &settings, cells)?;
    if levels.contains(&AcksLevel::None) {
        measured.notes.push(
            "acks=0 has no answer: a request counts when the socket has taken it, which is also its latency; in log/s is how fast the log grew"
                .to_owned(),
        );
    }
    measured.report("acks", &targets, &settings)
}

/// Producers as the settings have them.
pub(super) fn plan(settings: &Settings, acks: i16) -> ProducePlan {
    ProducePlan {
        acks,
        shape: BatchShape::fitting(settings.record_bytes, settings.batch_bytes, settings.codec),
        partitions: settings.partitions,
        batches_per_request: 1,
        connections: settings.connections,
        in_flight: settings.in_flight,
        rate: settings.rate,
        threads: settings.client_threads,
        requests_max: None,
    }
}
