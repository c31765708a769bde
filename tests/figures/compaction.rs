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
use super::{alone, is_full, load, process};

const DIRTY: &str = "figures-compacted";
const BESIDE: &str = "figures-beside";

const RECORD_BYTES: usize = 1000;
const BATCH_RECORDS: usize = 64;
/// One key in so many records.
const RECORDS_PER_KEY: u64 = 10;

/// Requests a second of the producer that is watched.
const RATE: u64 = 500;

/// What is measured.
struct Size {
    /// Times the producer is watched alone, and as often while one of as many topics is compacted. Many short times: what
    /// drifts hits both alike, and what the disk does once in a while does not decide.
    rounds: usize,
    /// How much there is to be compacted, in all topics together.
    bytes: u64,
    segment_bytes: u64,
    /// How long the producer is watched alone each time.
    window: Duration,
}

impl Size {
    fn here() -> Self {
        if is_full() {
            let window = Duration::from_secs(4);
            return Self { rounds: 15, bytes: 1 << 30, segment_bytes: 32 << 20, window };
        }
        let window = Duration::from_millis(300);
        Self { rounds: 3, bytes: 8 << 20, segment_bytes: 1 << 20, window }
    }
}

#[test]
fn a_topic_is_compacted_beside_a_producer() {
    let _alone = alone();
    let Size { rounds, bytes, segment_bytes, window } = Size::here();
    let server = Options::shards(1).kafka("log.cleaner.backoff.ms", "100").start();
    let mut client = server.client();
    create_topic(&mut client, BESIDE, 1);
    let segment_text = segment_bytes.to_string();
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", segment_text.as_str()),
        // Not before it is asked to.
        ("min.cleanable.dirty.ratio", "1"),
    ];
    let topics: Vec<String> = (0..rounds).map(|round| format!("{DIRTY}-{round}")).collect();
    let mut records = 0;
    for topic in &topics {
        create_topic_with(&mut client, topic, 1, &configs);
        records += fill(&server, topic, bytes / rounds as u64);
        close_segment(&mut client, topic, segment_bytes);
    }
    settle(&server);

    let (mut alone, mut beside, mut took) = (Vec::new(), Vec::new(), Duration::ZERO);
    for (round, topic) in topics.iter().enumerate() {
        alone.push(watch(&mut client, |begun| begun.elapsed() < window));
        // Without an end of its own: until the server says that it is done.
        let asked = Instant::now();
        let code = set_config(&mut client, topic, "min.cleanable.dirty.ratio", Some("0.01"));
        assert_eq!(code, ErrorCode::None);
        beside.push(watch(&mut client, |begun| {
            assert!(begun.elapsed() < Duration::from_secs(300), "minutes are enough");
            done_lines(&server).len() <= round
        }));
        took += asked.elapsed();
        settle(&server);
    }

    let count = |topic: &String| -> u64 {
        let batches = read_batches(&mut server.client(), topic, 0, 0);
        batches.iter().map(|batch| batch.records().len() as u64).sum()
    };
    let left: u64 = topics.iter().map(count).sum();
    let keys = records / RECORDS_PER_KEY;
    // The last segment may be left as it was, and a few keys close it.
    let last_segments = rounds as u64 * (segment_bytes / RECORD_BYTES as u64 + 10);
    assert!((keys / 2..=keys + last_segments).contains(&left), "{left} records of {keys} keys");

    let mut table = Table::new(&format!(
        "compaction of {} MiB, {records} records of {keys} keys, one shard",
        bytes >> 20
    ));
    table.row("took", format!("{:.1} s", took.as_secs_f64()), "minutes");
    let rate = bytes as f64 / took.as_secs_f64() / f64::from(1 << 20);
    table.row("of the logs compacted", format!("{rate:.0} MiB/s"), "");
    for (what, rounds) in [("alone", &alone), ("meanwhile", &beside)] {
        let (p50, p99) = (median(rounds, Latencies::p50), median(rounds, Latencies::p99));
        table.row(format!("producer {what}, p50"), format!("{p50} µs"), "");
        table.row(format!("producer {what}, p99"), format!("{p99} µs"), "");
        table.row("", format!("{:?}", each(rounds, Latencies::p99)), "");
    }
    let rise = |before: u64, during: u64| {
        format!("{:.0} %", 100.0 * (during as f64 / before as f64 - 1.0))
    };
    let (before, during) = (median(&alone, Latencies::p99), median(&beside, Latencies::p99));
    table.row("p99 rises by, medians", rise(before, during), "below 20 %");
    let (before, during) = (Latencies::of_all(&alone).p99(), Latencies::of_all(&beside).p99());
    table.row("p99 of all, alone", format!("{before} µs"), "");
    table.row("p99 of all rises by", rise(before, during), "");
    table.row("resident after it", format!("{} MiB", server.resident_bytes() >> 20), "");
    table.print();
    for line in done_lines(&server) {
        println!("  {line}");
    }
}

fn each(rounds: &[Latencies], of: fn(&Latencies) -> u64) -> Vec<u64> {
    rounds.iter().map(of).collect()
}

fn median(rounds: &[Latencies], of: fn(&Latencies) -> u64) -> u64 {
    let mut all = each(rounds, of);
    all.sort_unstable();
    all[all.len() / 2]
}

/// Waits until what was written is where it stays: what is left to be done would be measured with the producer.
fn settle(server: &Server) {
    if !is_full() {
        return;
    }
    let written = || process::disk_mib(server.pid()).1;
    let mut before = written();
    wait_within(Duration::from_secs(120), "a disk that is at rest", || {
        std::thread::sleep(Duration::from_secs(1));
        let (last, now) = (before, written());
        before = now;
        (now == last).then_some(())
    });
}

fn done_lines(server: &Server) -> Vec<String> {
    let stderr = server.stderr();
    stderr.lines().filter(|line| line.contains(" compacted ")).map(str::to_owned).collect()
}

/// Records whose keys come in no order. Returns how many.
fn fill(server: &Server, topic: &str, bytes: u64) -> u64 {
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
    load::pipeline(&mut client, (0..count).map(|_| (topic, 0, batch())));
    count * BATCH_RECORDS as u64
}

/// Lets the last records lie in a segment that is not written any more.
fn close_segment(client: &mut Client, topic: &str, segment_bytes: u64) {
    let end = high_watermark(client, topic, 0);
    let value = vec![b'x'; 900_000];
    for part in 0..segment_bytes / 900_000 + 2 {
        let record = Record {
            timestamp: now_ms(),
            key: Some(Bytes::from(format!("closes-{part}"))),
            value: Some(Bytes::copy_from_slice(&value)),
            headers: Vec::new(),
        };
        produce(client, topic, 0, &Batch::of_records(vec![record]));
    }
    assert!(high_watermark(client, topic, 0) > end);
}

/// How long each request took from when it was due, in microseconds, the shortest first.
struct Latencies(Vec<u64>);

impl Latencies {
    fn of_all(rounds: &[Self]) -> Self {
        let mut all: Vec<u64> = rounds.iter().flat_map(|round| round.0.clone()).collect();
        all.sort_unstable();
        Self(all)
    }

    fn at(&self, percent: usize) -> u64 {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    fn p50(&self) -> u64 {
        self.at(50)
    }

    fn p99(&self) -> u64 {
        self.at(99)
    }
}

/// Produces at a fixed rate as long as `goes_on`, counting from when each request was due.
fn watch(client: &mut Client, mut goes_on: impl FnMut(Instant) -> bool) -> Latencies {
    let batch = Batch::of_size(1000).encode();
    let begun = Instant::now();
    let mut micros = Vec::new();
    for number in 0.. {
        let due = begun + Duration::from_micros(number * 1_000_000 / RATE);
        // To look costs, so it is done for far fewer than one in a hundred.
        if number % RATE == 0 && !goes_on(begun) {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        client.send(PRODUCE_BY_NAME, &produce_request(BESIDE, 0, -1, batch.clone()));
        let answer = produced(client.receive());
        expect_error(answer.error_code, ErrorCode::None, "a produce");
        micros.push(due.elapsed().as_micros() as u64);
    }
    micros.sort_unstable();
    Latencies(micros)
}
