//! One record a request: how many requests a second, and then the latency at half of them.

use super::produce_cell::ProduceCell;
use super::{Run, acks};
use crate::cli::{Defaults, WorkloadOptions};
use crate::error::BenchError;
use crate::load::ProducePlan;
use crate::report::{Cell, Report};
use crate::settings::Settings;
use crate::target::Target;

const ACKS: i16 = 1;
/// The share of the load found, at which latency is measured.
const SHARE: f64 = 0.5;

pub(super) fn run(run: &Run<'_>, options: WorkloadOptions) -> Result<Report, BenchError> {
    let settings = Settings::resolve(options.load, &Defaults::REQUESTS)?;
    let targets = Target::open(&options.targets, run.program)?;
    let plan = acks::plan(&settings, ACKS);
    if let Some(rate) = settings.rate {
        let cells = cells(&targets, &plan, |_| Some(rate), |_| format!("{rate}/s"));
        let measured = run.produce_cells(&targets, &settings, cells)?;
        return measured.report("requests", &targets, &settings);
    }
    let found = cells(&targets, &plan, |_| None, |_| "most".to_owned());
    let mut measured = run.produce_cells(&targets, &settings, found)?;
    let rates: Vec<f64> =
        measured.cells.iter().map(|cell| records_per_second(cell) * SHARE).collect();
    let half = cells(
        &targets,
        &plan,
        |target| Some(rates[target]),
        |target| format!("half: {:.0}/s", rates[target]),
    );
    // The server is warm from what it did before.
    let warm = Settings { warm_up: std::time::Duration::ZERO, ..settings.clone() };
    measured.add(run.produce_cells(&targets, &warm, half)?);
    measured.report("requests", &targets, &settings)
}

fn records_per_second(cell: &Cell) -> f64 {
    let spread = cell.over_rounds(|round| Some(round.records_per_second()));
    // A load that found nothing would be no rate; one record a second shows that too.
    spread.map_or(1.0, |spread| spread.median).max(1.0)
}

fn cells(
    targets: &[Target],
    plan: &ProducePlan,
    rate: impl Fn(usize) -> Option<f64>,
    load: impl Fn(usize) -> String,
) -> Vec<ProduceCell> {
    (0..targets.len())
        .map(|target| ProduceCell {
            target,
            load: load(target),
            plan: ProducePlan { rate: rate(target), ..plan.clone() },
        })
        .collect()
}
