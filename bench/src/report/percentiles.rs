//! Percentile files in the text format of HdrHistogram, which its plotters read.

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Steps between a percentile and the next that halves the distance to 100 %.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
const NANOS_PER_MILLI: f64 = 1e6;

/// Writes a histogram of nanoseconds as a table of milliseconds.
///
/// # Errors
/// The writer's.
pub fn write_percentiles(out: &mut impl Write, histogram: &Histogram<u64>) -> io::Result<()> {
    writeln!(
        out,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += step.count_since_last_iteration();
        let (value, quantile) =
            (step.value_iterated_to() as f64 / NANOS_PER_MILLI, step.quantile_iterated_to());
        if quantile < 1.0 {
            writeln!(
                out,
                "{value:12.6} {quantile:2.12} {total:10} {:14.2}",
                1.0 / (1.0 - quantile)
            )?;
        } else {
            writeln!(out, "{value:12.6} {quantile:2.12} {total:10} {:>14}", "inf")?;
        }
    }
    let (mean, deviation) =
        (histogram.mean() / NANOS_PER_MILLI, histogram.stdev() / NANOS_PER_MILLI);
    writeln!(out, "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]")?;
    let (max, count) = (histogram.max() as f64 / NANOS_PER_MILLI, histogram.len());
    writeln!(out, "#[Max     = {max:12.6}, Total count    = {count:12}]")?;
    let (buckets, sub) = (histogram.distinct_values(), histogram.sigfig());
    writeln!(out, "#[Distinct values = {buckets}, Significant digits = {sub}]")
}
