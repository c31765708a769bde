//! Figures as Prometheus reads them: one family after the other, each with what it means.

use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder, TextEncoder};

/// The format of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Names and values of a sample's labels.
pub type Labels<'a> = [(&'static str, &'a str)];

/// A text that grows family by family.
#[derive(Debug, Default)]
pub struct Text {
    bytes: Vec<u8>,
}

/// The samples of one family.
pub struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    metrics: Vec<Metric>,
}

/// What a histogram has counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Upper bounds.
    pub bounds: &'a [f64],
    /// How many are within each bound and beyond the one before, and one more for those beyond the last.
    pub counts: &'a [u64],
    /// All values added up.
    pub sum: f64,
}

impl Text {
    /// Adds a family; one without samples is left out.
    pub fn add(&mut self, family: Family) {
        let Family { name, help, kind, metrics } = family;
        if metrics.is_empty() {
            return;
        }
        let mut of_library = MetricFamily::default();
        of_library.set_name(name.to_owned());
        of_library.set_help(help.to_owned());
        of_library.set_field_type(kind);
        of_library.set_metric(metrics.into());
        let encoded = TextEncoder::new().encode(&[of_library], &mut self.bytes);
        encoded.expect("a family with a name and samples goes into memory");
    }

    /// Adds a family of one sample.
    pub fn add_one(&mut self, mut family: Family, value: f64) {
        family.sample(&[], value);
        self.add(family);
    }

    /// All of it.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Family {
    /// What may rise and fall.
    #[must_use]
    pub fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::GAUGE, metrics: Vec::new() }
    }

    /// What only rises, and begins anew with the process.
    #[must_use]
    pub fn counter(name: &'static str, help: &'static str) -> Self {
        debug_assert!(name.ends_with("_total"), "{name} is a counter");
        Self { name, help, kind: MetricType::COUNTER, metrics: Vec::new() }
    }

    /// How often a value was how large.
    #[must_use]
    pub fn histogram(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: MetricType::HISTOGRAM, metrics: Vec::new() }
    }

    /// Adds a sample of a gauge or a counter.
    pub fn sample(&mut self, labels: &Labels<'_>, value: f64) {
        let mut metric = labelled(labels);
        match self.kind {
            MetricType::COUNTER => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            _ => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
        }
        self.metrics.push(metric);
    }

    /// Adds a sample of a histogram.
    pub fn counted(&mut self, labels: &Labels<'_>, counted: Counted<'_>) {
        let mut total = 0;
        let mut buckets = Vec::with_capacity(counted.bounds.len());
        for (bound, count) in counted.bounds.iter().zip(counted.counts) {
            total += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_sample_count(counted.counts.iter().sum());
        histogram.set_sample_sum(counted.sum);
        histogram.set_bucket(buckets.into());
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.metrics.push(metric);
    }
}

fn labelled(labels: &Labels<'_>) -> Metric {
    let pair = |(name, value): &(&'static str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    let mut metric = Metric::default();
    metric.set_label(labels.iter().map(pair).collect::<Vec<_>>().into());
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: Text) -> String {
        String::from_utf8(text.into_bytes()).unwrap()
    }

    #[test]
    fn a_family_has_its_meaning_its_type_and_its_samples() {
        let mut text = Text::default();
        let mut family = Family::counter("pears_total", "Pears that\nwere picked.");
        family.sample(&[("tree", "1"), ("who", "a \"b\" \\ c\nd")], 3.0);
        family.sample(&[("tree", "2")], 0.0);
        text.add(family);
        text.add(Family::gauge("plums", "None at all."));
        text.add_one(Family::gauge("apples_bytes", "Apples."), 1.5);
        let expected = "# HELP pears_total Pears that\\nwere picked.\n\
                        # TYPE pears_total counter\n\
                        pears_total{tree=\"1\",who=\"a \\\"b\\\" \\\\ c\\nd\"} 3\n\
                        pears_total{tree=\"2\"} 0\n\
                        # HELP apples_bytes Apples.\n\
                        # TYPE apples_bytes gauge\n\
                        apples_bytes 1.5\n";
        assert_eq!(shown(text), expected);
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_all() {
        let mut text = Text::default();
        let mut family = Family::histogram("falls_seconds", "How long pears fall.");
        let counted = Counted { bounds: &[0.0001, 0.5], counts: &[2, 0, 1], sum: 1.25 };
        family.counted(&[("tree", "1")], counted);
        text.add(family);
        let expected = "# HELP falls_seconds How long pears fall.\n\
                        # TYPE falls_seconds histogram\n\
                        falls_seconds_bucket{tree=\"1\",le=\"0.0001\"} 2\n\
                        falls_seconds_bucket{tree=\"1\",le=\"0.5\"} 2\n\
                        falls_seconds_bucket{tree=\"1\",le=\"+Inf\"} 3\n\
                        falls_seconds_sum{tree=\"1\"} 1.25\n\
                        falls_seconds_count{tree=\"1\"} 3\n";
        assert_eq!(shown(text), expected);
    }

    #[test]
    fn large_counts_are_whole_numbers() {
        let mut text = Text::default();
        text.add_one(Family::gauge("bytes", "Bytes."), 9_007_199_254_740_991.0);
        assert!(shown(text).ends_with("bytes 9007199254740991\n"));
    }
}
