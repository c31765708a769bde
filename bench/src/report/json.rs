//! The report as JSON: every setting, every round.

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use super::{Cell, Report, Round, Spread, latency_ms};

const QUANTILES: [(&str, f64); 6] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999), ("p99_99", 0.9999), ("max", 1.0)];

fn latency(histogram: &Histogram<u64>) -> Value {
    let mut out = Map::new();
    out.insert("count".to_owned(), histogram.len().into());
    for (name, quantile) in QUANTILES {
        out.insert(name.to_owned(), json!(latency_ms(histogram, quantile)));
    }
    Value::Object(out)
}

fn spread(spread: Option<Spread>) -> Value {
    spread.map_or(Value::Null, |s| json!({ "median": s.median, "min": s.min, "max": s.max }))
}

fn round(round: &Round) -> Value {
    let extra: Map<String, Value> =
        round.extra.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    json!({
        "seconds": round.window.as_secs_f64(),
        "requests": round.measured.requests,
        "records": round.measured.records,
        "value_bytes": round.measured.bytes,
        "records_with_ramp_and_drain": round.done.records,
        "latency_ms": latency(&round.latency),
        "latency_corrected_ms": round.corrected().map(|corrected| latency(&corrected)),
        "server": round.server.map(|server| json!({
            "cpu_seconds": server.cpu.as_secs_f64(),
            "resident_bytes": server.resident_bytes,
        })),
        "client": {
            "cpu_seconds": round.client.cpu.as_secs_f64(),
            "busiest_thread": round.client.busiest,
            "busiest_thread_busy_or_waiting": round.client.busiest_or_waiting,
        },
        "refused": round.refused,
        "unanswered": round.unanswered,
        "extra": extra,
    })
}

fn cell(cell: &Cell) -> Value {
    let quantile = |q: f64| spread(cell.over_rounds(move |round| round.latency_ms(q)));
    json!({
        "target": cell.target,
        "load": cell.load,
        "durability": cell.durability.as_str(),
        "requests_per_second": spread(cell.over_rounds(|round| Some(round.requests_per_second()))),
        "records_per_second": spread(cell.over_rounds(|round| Some(round.records_per_second()))),
        "bytes_per_second": spread(cell.over_rounds(|round| Some(round.bytes_per_second()))),
        "latency_ms_over_rounds": {
            "p50": quantile(0.5),
            "p99": quantile(0.99),
            "p99_9": quantile(0.999),
            "max": quantile(1.0),
        },
        "latency_ms_merged": latency(&cell.merged_latency()),
        "ratio_to_floor": cell.ratio_to_floor,
        "client_was_limit": cell.client_was_limit(),
        "rounds": cell.rounds.iter().map(round).collect::<Vec<_>>(),
    })
}

fn object(pairs: impl IntoIterator<Item = (String, Value)>) -> Value {
    Value::Object(pairs.into_iter().collect())
}

impl Report {
    /// Everything that is known.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let text = |pairs: &[(String, String)]| {
            object(pairs.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))))
        };
        let targets: Vec<Value> = self
            .targets
            .iter()
            .map(|target| json!({ "name": target.name, "facts": text(&target.facts) }))
            .collect();
        json!({
            "workload": self.workload,
            "settings": object(self.settings.clone()),
            "host": text(&self.host),
            "targets": targets,
            "cells": self.cells.iter().map(cell).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}
