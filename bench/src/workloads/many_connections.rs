//! Many connections with a producer each, against few: what a connection costs.

use super::produce_cell::ProduceCell;
use super::{Run, acks};
use crate::cli::{Defaults, WorkloadOptions};
use crate::error::BenchError;
use crate::load::ProducePlan;
use crate::report::Report;
use crate::settings::Settings;
use crate::target::Target;

const ACKS: i16 = 1;
/// What the many are compared with.
const FEW: usize = 16;

pub(super) fn run(run: &Run<'_>, options: WorkloadOptions) -> Result<Report, BenchError> {
    let settings = Settings::resolve(options.load, &Defaults::MANY_CONNECTIONS)?;
    if settings.connections <= FEW {
        let what =
            format!("--connections: more than the {FEW} that they are compared with are due");
        return Err(BenchError::Options(what));
    }
    let targets = Target::open(&options.targets, run.program)?;
    let many = acks::plan(&settings, ACKS);
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
            cells.push(ProduceCell { target, load, plan: plan.clone(), connection_memory: true });
        }
    }
    let mut measured = run.produce_cells(&targets, &settings, cells)?;
    measured.notes.push(
        "KiB/conn: what the server's resident memory grew by from before the connections to the end of the window, for \
         each of them; requests under way are in it"
            .to_owned(),
    );
    measured.report("many-connections", &targets, &settings)
}
