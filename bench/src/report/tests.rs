use std::time::Duration;

use super::*;
use crate::engine::latency_histogram;

fn round(records: u64, latencies_ms: &[u64]) -> Round {
    let mut latency = latency_histogram();
    for ms in latencies_ms {
        latency.record(ms * 1_000_000).unwrap();
    }
    Round {
        measured: Tally { requests: records / 10, records, bytes: records * 1000 },
        done: Tally { requests: records / 5, records: records * 2, bytes: records * 2000 },
        window: Duration::from_secs(2),
        latency,
        closed_loop_slots: Some(4),
        server: Some(ServerCost { cpu: Duration::from_secs(1), resident_bytes: 64 << 20 }),
        client: ClientCost {
            cpu: Duration::from_millis(500),
            busiest: 0.25,
            busiest_or_waiting: Some(0.3),
        },
        refused: 0,
        unanswered: 0,
        extra: Vec::new(),
    }
}

fn report() -> Report {
    let cell = |load: &str, durability, rounds| Cell {
        target: "chronik".to_owned(),
        load: load.to_owned(),
        durability,
        rounds,
        ratio_to_floor: None,
    };
    let three = vec![
        round(2_000_000, &[1, 1, 2, 9]),
        round(1_000_000, &[2, 2, 3, 4]),
        round(3_000_000, &[1, 2, 3, 30]),
    ];
    let mut busy = round(10, &[1]);
    busy.client.busiest = 0.95;
    busy.server = None;
    busy.closed_loop_slots = None;
    busy.refused = 3;
    Report {
        workload: "acks".to_owned(),
        settings: vec![("record-bytes".to_owned(), 1000.into())],
        host: vec![("cores".to_owned(), "2".to_owned())],
        targets: vec![TargetFacts {
            name: "chronik".to_owned(),
            facts: vec![
                ("at".to_owned(), "127.0.0.1:9092".to_owned()),
                ("pid".to_owned(), "1".to_owned()),
            ],
        }],
        cells: vec![
            cell("acks=1", Durability::WaitsForDisk, three),
            cell("acks=0", Durability::NotAcknowledged, vec![busy]),
        ],
        notes: vec!["a note".to_owned()],
    }
}

const GOLDEN: &str = "\
chronik-bench acks, 3 rounds
  cores: 2
  target chronik: at 127.0.0.1:9092, pid 1

target   load    acknowledged    records/s            min–max   MB/s  p50 ms  p99 ms  p99.9 ms  max ms  p99 corr  server s/GB  client s/GB  client busy  server MiB
chronik  acks=1  waits for disk  1,000,000  500,000–1,500,000   1000    2.00    9.00      9.00    30.0      8.89        0.500        0.250         25 %          64
chronik  acks=0  no answer               5                5–5  0.005    1.00    1.00      1.00    1.00         –            –       50,000         95 %           –

Medians over the rounds; percentiles are those of each round. MB/s: values of records, 10^6 bytes. s/GB: CPU seconds
for 10^9 such bytes. p99 corr: closed loop, corrected for what it did not send while it waited.
- chronik acks=0: the client was the limit (its thread was busy 90 % and more); the server may do better
- chronik acks=0: 3 requests were refused and do not count
- a note
";

#[test]
fn the_report_is_printed_as_it_always_was() {
    let printed = report().to_string();
    assert_eq!(printed, GOLDEN, "\n{printed}");
}

#[test]
fn json_has_the_settings_and_every_round() {
    let json = report().to_json();
    assert_eq!(json["settings"]["record-bytes"], 1000);
    assert_eq!(json["cells"][0]["rounds"].as_array().unwrap().len(), 3);
    assert_eq!(json["cells"][0]["records_per_second"]["median"], 1_000_000.0);
    assert_eq!(json["cells"][0]["records_per_second"]["max"], 1_500_000.0);
    assert_eq!(json["cells"][0]["latency_ms_merged"]["count"], 12);
    assert_eq!(json["cells"][0]["rounds"][1]["requests"], 100_000);
    assert_eq!(json["cells"][1]["client_was_limit"], true);
    assert!(json["cells"][1]["rounds"][0]["latency_corrected_ms"].is_null());
    assert!(json["cells"][1]["rounds"][0]["server"].is_null());
}

#[test]
fn correction_adds_the_requests_that_a_stalled_slot_did_not_send() {
    let mut latency = latency_histogram();
    for _ in 0..99 {
        latency.record(10_000_000).unwrap();
    }
    latency.record(1_010_000_000).unwrap();
    let round = Round {
        measured: Tally { requests: 100, records: 100, bytes: 100 },
        window: Duration::from_secs(1),
        latency,
        closed_loop_slots: Some(1),
        ..round(10, &[1])
    };
    // One slot, a request every 10 ms: a hundred would have been sent while it waited for a second.
    let corrected = round.corrected().unwrap();
    assert_eq!(corrected.len(), 200);
    assert!(round.latency_ms(0.98).unwrap() < 11.0);
    assert!(latency_ms(&corrected, 0.98).unwrap() > 900.0);
    assert!(Round { closed_loop_slots: None, ..round }.corrected().is_none());
}

#[test]
fn percentile_files_have_the_form_that_plotters_read() {
    let mut histogram = latency_histogram();
    for micros in 1..=1000 {
        histogram.record(micros * 1000).unwrap();
    }
    let mut file = Vec::new();
    write_percentiles(&mut file, &histogram).unwrap();
    let text = String::from_utf8(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    );
    assert!(
        lines.iter().any(|line| line.trim_start().starts_with("0.5") && line.contains(" 0.5000"))
    );
    let counted: Vec<u64> = lines[2..]
        .iter()
        .take_while(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().nth(2).unwrap().parse().unwrap())
        .collect();
    assert!(counted.is_sorted() && counted.last() == Some(&1000), "{counted:?}");
    assert!(text.contains("Total count    =         1000]"), "{text}");
}
