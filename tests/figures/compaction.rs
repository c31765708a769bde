//! How fast a topic is compacted, and what a producer on the same shard feels of it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use chronik_protocol::ErrorCode;

use super::support::batch::{Batch, Record, now_ms};
use super::support::client::Client;
use super::support::random::Random;
use super::support::requests::{
    PRODUCE_BY_NAME, create_topic, create_topic_with, expect_error, high_watermark, produce,
    produce_request, produced, read_batches, set_config,
};
use super::support::server::{Options, Server};
use super::support::wait_within;
use super::table::Table;
use super::{alone, is_full, load};

const DIRTY: &str = "figures-compacted";
const BESIDE: &str = "figures-beside";

const RECORD_BYTES: usize = 1000;
const BATCH_RECORDS: usize = 64;
/// One key in so many records.
const RECORDS_PER_KEY: u64 = 10;

/// Requests a second of the producer that is watched.
const RATE: u64 = 500;

/// How much there is to be compacted, and how long the producer is watched before.
fn size() -> (u64, u64, Duration) {
    if is_full() {
        return (1 << 30, 128 << 20, Duration::from_secs(10));
    }
    (8 << 20, 1 << 20, Duration::from_millis(300))
}

#[test]
fn a_topic_is_compacted_beside_a_producer() {
    let _alone = alone();
    let (bytes, segment_bytes, window) = size();
    let server = Options::shards(1).kafka("log.cleaner.backoff.ms", "100").start();
    let mut client = server.client();
    create_topic(&mut client, BESIDE, 1);
    let segment_bytes = segment_bytes.to_string();
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", segment_bytes.as_str()),
        // Not before it is asked to.
        ("min.cleanable.dirty.ratio", "1"),
    ];
    create_topic_with(&mut client, DIRTY, 1, &configs);
    let records = fill(&server, bytes);
    let keys = records / RECORDS_PER_KEY;
    close_segment(&mut client, segment_bytes.parse().unwrap());

    let before = watch(&mut client, |begun| begun.elapsed() < window);
    // Without an end of its own: until the server says that it is done.
    let asked = Instant::now();
    let code = set_config(&mut client, DIRTY, "min.cleanable.dirty.ratio", Some("0.01"));
    assert_eq!(code, ErrorCode::None);
    let during = watch(&mut client, |begun| {
        assert!(begun.elapsed() < Duration::from_secs(300), "minutes are enough");
        done_line(&server).is_none()
    });
    let took = asked.elapsed();
    let line = wait_within(Duration::from_secs(5), "the line", || done_line(&server));

    let left: u64 = read_batches(&mut server.client(), DIRTY, 0, 0)
        .iter()
        .map(|batch| batch.records().len() as u64)
        .sum();
    // The last segment may be left as it was, and a few keys close it.
    let last_segment = segment_bytes.parse::<u64>().unwrap() / RECORD_BYTES as u64 + 10;
    assert!((keys / 2..=keys + last_segment).contains(&left), "{left} records of {keys} keys");

    let mut table = Table::new(&format!(
        "compaction of {} MiB, {records} records of {keys} keys, one shard",
        bytes >> 20
    ));
    let rise = 100.0 * (during.p99_micros as f64 / before.p99_micros as f64 - 1.0);
    table.row("took", format!("{:.1} s", took.as_secs_f64()), "minutes");
    let rate = bytes as f64 / took.as_secs_f64() / f64::from(1 << 20);
    table.row("of the log compacted", format!("{rate:.0} MiB/s"), "");
    table.row("producer alone, p50", format!("{} µs", before.p50_micros), "");
    table.row("producer alone, p99", format!("{} µs", before.p99_micros), "");
    table.row("producer meanwhile, p50", format!("{} µs", during.p50_micros), "");
    table.row("producer meanwhile, p99", format!("{} µs", during.p99_micros), "");
    table.row("p99 rises by", format!("{rise:.0} %"), "below 20 %");
    table.row("resident after it", format!("{} MiB", server.resident_bytes() >> 20), "");
    table.print();
    println!("  {line}");
}

fn done_line(server: &Server) -> Option<String> {
    let stderr = server.stderr();
    stderr.lines().find(|line| line.contains("compacted")).map(str::to_owned)
}

/// Records whose keys come in no order. Returns how many.
fn fill(server: &Server, bytes: u64) -> u64 {
    let records = bytes / RECORD_BYTES as u64;
    let mut random = Random::new(7);
    let mut client = server.client();
    let mut batch = || -> Bytes {
        let record = |_| {
            let key = random.next() % (records / RECORDS_PER_KEY);
            Record {
                timestamp: now_ms(),
                key: Some(Bytes::copy_from_slice(&key.to_be_bytes())),
                value: Some(Bytes::from(vec![b'x'; RECORD_BYTES - 8])),
                headers: Vec::new(),
            }
        };
        Batch::of_records((0..BATCH_RECORDS).map(record).collect()).encode()
    };
    let count = records / BATCH_RECORDS as u64;
    load::pipeline(&mut client, (0..count).map(|_| (DIRTY, 0, batch())));
    count * BATCH_RECORDS as u64
}

/// Lets the last records lie in a segment that is not written any more.
fn close_segment(client: &mut Client, segment_bytes: u64) {
    let end = high_watermark(client, DIRTY, 0);
    let value = vec![b'x'; 900_000];
    for part in 0..segment_bytes / 900_000 + 2 {
        let record = Record {
            timestamp: now_ms(),
            key: Some(Bytes::from(format!("closes-{part}"))),
            value: Some(Bytes::copy_from_slice(&value)),
            headers: Vec::new(),
        };
        produce(client, DIRTY, 0, &Batch::of_records(vec![record]));
    }
    assert!(high_watermark(client, DIRTY, 0) > end);
}

struct Latencies {
    p50_micros: u64,
    p99_micros: u64,
}

/// Produces at a fixed rate as long as `goes_on`, counting from when each request was due.
fn watch(client: &mut Client, mut goes_on: impl FnMut(Instant) -> bool) -> Latencies {
    let batch = Batch::of_size(1000).encode();
    let begun = Instant::now();
    let mut micros = Vec::new();
    for number in 0.. {
        let due = begun + Duration::from_micros(number * 1_000_000 / RATE);
        // To look costs, so it is not done for each.
        if number % (RATE / 5) == 0 && !goes_on(begun) {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        client.send(PRODUCE_BY_NAME, &produce_request(BESIDE, 0, -1, batch.clone()));
        let answer = produced(client.receive());
        expect_error(answer.error_code, ErrorCode::None, "a produce");
        micros.push(due.elapsed().as_micros() as u64);
    }
    micros.sort_unstable();
    let at = |percent: usize| micros[(micros.len() * percent / 100).min(micros.len() - 1)];
    Latencies { p50_micros: at(50), p99_micros: at(99) }
}
