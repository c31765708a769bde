//! Keyed producers: the same records in requests of the same size, once over few partitions and once over many.
//!
//! A producer that spreads keyed records gathers a batch for each partition that it has records for, and sends all of a
//! broker's in one request. Over many partitions the batches are small; the bytes are the same.

use super::produce_cell::ProduceCell;
use super::{Run, acks};
use crate::cli::{Defaults, ManyPartitionsOptions};
use crate::error::BenchError;
use crate::load::ProducePlan;
use crate::produce::batch::BatchShape;
use crate::report::Report;
use crate::settings::Settings;
use crate::target::Target;

const ACKS: i16 = 1;
/// Size of a record's key.
const KEY_BYTES: usize = 8;

pub(super) fn run(run: &Run<'_>, options: ManyPartitionsOptions) -> Result<Report, BenchError> {
    let settings = Settings::resolve(options.common.load, &Defaults::MANY_PARTITIONS)?;
    if options.few_partitions == 0 || options.request_bytes == 0 {
        let what = "--few-partitions and --request-bytes: at least 1 is due";
        return Err(BenchError::Options(what.to_owned()));
    }
    let targets = Target::open(&options.common.targets, run.program)?;
    let mut cells = Vec::new();
    for partitions in [options.few_partitions, settings.partitions] {
        for target in 0..targets.len() {
            let plan = plan(&settings, partitions, options.request_bytes);
            let records = plan.shape.records;
            let load = format!("{partitions} partitions, {records} a batch");
            cells.push(ProduceCell { target, load, plan });
        }
    }
    let mut measured = run.produce_cells(&targets, &settings, cells)?;
    measured.notes.push(format!("requests of {} bytes of values", options.request_bytes));
    measured.setting("few-partitions", options.few_partitions);
    measured.setting("request-bytes", options.request_bytes);
    measured.report("many-partitions", &targets, &settings)
}

/// A request's records spread over as many partitions as there are records for, at most all.
fn plan(settings: &Settings, partitions: usize, request_bytes: usize) -> ProducePlan {
    let records = (request_bytes / settings.record_bytes).max(1);
    let batches = records.min(partitions);
    ProducePlan {
        shape: BatchShape {
            record_bytes: settings.record_bytes,
            records: records / batches,
            codec: settings.codec,
            key_bytes: KEY_BYTES,
        },
        partitions,
        batches_per_request: batches,
        ..acks::plan(settings, ACKS)
    }
}
