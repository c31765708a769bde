//! Compaction, as clients see it: of every key the newest record stays, at its offset.
//!
//! Against Apache Kafka (`CHRONIK_TEST_REFERENCE`) the same must come out, on a broker that looks for dirty logs often
//! (`log.cleaner.backoff.ms`).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use chronik_protocol::ErrorCode;
use chronik_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};

use crate::support::batch::{Batch, Record, now_ms};
use crate::support::client::Client;
use crate::support::requests::{
    FETCH_BY_NAME, FetchBounds, batches, create_topic_with, error, expect_error, fetch_request,
    fetched, high_watermark, init_producer, list_offset, log_start, produce, produce_bytes, read,
    read_batches, try_create_topic,
};
use crate::support::server::{Options, Server, is_reference};
use crate::support::{unique, wait_within};

const PATIENCE: Duration = Duration::from_secs(90);

/// The default period is longer than a test wants to wait.
fn looking_often() -> Options {
    Options::default().kafka("log.cleaner.backoff.ms", "100")
}

fn keyed(key: impl AsRef<[u8]>, value: Option<&[u8]>) -> Record {
    Record {
        timestamp: now_ms(),
        key: Some(Bytes::copy_from_slice(key.as_ref())),
        value: value.map(Bytes::copy_from_slice),
        headers: Vec::new(),
    }
}

fn create(client: &mut Client, topic: &str, more: &[(&str, &str)]) {
    let segment_bytes = segment_bytes().to_string();
    let mut configs = vec![
        ("cleanup.policy", "compact"),
        ("segment.bytes", segment_bytes.as_str()),
        ("min.cleanable.dirty.ratio", "0.01"),
    ];
    configs.retain(|(key, _)| !more.iter().any(|(other, _)| key == other));
    configs.extend_from_slice(more);
    create_topic_with(client, topic, 1, &configs);
}

/// Small, so that a test soon has several; Kafka has a least size.
fn segment_bytes() -> usize {
    if is_reference() { 1 << 20 } else { 16 << 10 }
}

/// Offsets and keys that there are.
fn lines(client: &mut Client, topic: &str) -> Vec<(i64, Vec<u8>)> {
    let line = |(offset, record): (i64, Record)| (offset, record.key.expect("a key").to_vec());
    read(client, topic, 0, 0).into_iter().map(line).collect()
}

/// Twenty keys over and over, in batches of five, then enough of others to close the segment.
fn fill(client: &mut Client, topic: &str, rounds: usize) -> BTreeMap<Vec<u8>, i64> {
    let mut newest = BTreeMap::new();
    for round in 0..rounds {
        let records: Vec<Record> = (0..5)
            .map(|at| {
                let key = format!("key-{}", (round * 5 + at) % 20);
                keyed(key, Some(&vec![round as u8; 300]))
            })
            .collect();
        let base = produce(client, topic, 0, &Batch::of_records(records.clone()));
        for (offset, record) in (base..).zip(records) {
            newest.insert(record.key.expect("a key").to_vec(), offset);
        }
    }
    newest
}

/// Closes the segment that is written, so that what is before may be compacted.
fn close_segment(client: &mut Client, topic: &str) {
    for part in 0..2 {
        let value = vec![0; segment_bytes() * 9 / 10];
        let record = keyed(format!("filler-{part}"), Some(&value));
        produce(client, topic, 0, &Batch::of_records(vec![record]));
    }
}

#[test]
fn only_the_newest_record_of_every_key_stays_at_its_offset() {
    let mut server = looking_often().start();
    let mut client = server.client();
    let topic = unique("newest");
    create(&mut client, &topic, &[]);
    let mut newest = fill(&mut client, &topic, 100);
    let end = newest.values().max().expect("some") + 1;
    close_segment(&mut client, &topic);
    newest.retain(|_, offset| *offset < end);
    let expected: BTreeMap<i64, Vec<u8>> = newest.into_iter().map(|(key, at)| (at, key)).collect();
    wait_within(PATIENCE, "one record of every key", || {
        let found = lines(&mut client, &topic);
        let below: BTreeMap<i64, Vec<u8>> = found.into_iter().filter(|it| it.0 < end).collect();
        (below == expected).then_some(())
    });
    assert_eq!(log_start(&mut client, &topic, 0), 0, "the log begins where it did");
    let hw = high_watermark(&mut client, &topic, 0);

    // In a hole the next record there is comes first.
    let first = *expected.keys().next().expect("some");
    assert!(first > 100, "the beginning is a hole");
    for offset in [0, 1, first / 2, first - 1] {
        let found = read(&mut client, &topic, 0, offset);
        assert_eq!(found.first().map(|it| it.0), Some(first), "from {offset}");
        let bounds = FetchBounds { partition_max_bytes: 1, ..FetchBounds::default() };
        let request = fetch_request(&topic, 0, offset, bounds);
        let data = fetched(client.call(FETCH_BY_NAME, &request));
        assert!(!batches(&data).is_empty(), "one batch whatever the bound, from {offset}");
    }
    // By time the same.
    assert_eq!(list_offset(&mut client, &topic, 0, 0).offset, first);

    if is_reference() {
        return;
    }
    let before = lines(&mut client, &topic);
    server.kill9();
    server.restart();
    let mut client = server.client();
    assert_eq!(lines(&mut client, &topic), before);
    assert_eq!(high_watermark(&mut client, &topic, 0), hw);
    assert_eq!(produce(&mut client, &topic, 0, &Batch::of_records(vec![keyed("k", None)])), hw);
}

#[test]
fn a_tombstone_takes_its_key_away_and_goes_in_the_end() {
    let server = looking_often().start();
    let mut client = server.client();
    let topic = unique("tombstones");
    create(&mut client, &topic, &[("delete.retention.ms", "100")]);
    fill(&mut client, &topic, 20);
    let batch = Batch::of_records(vec![keyed("key-7", None)]);
    let tombstone = produce(&mut client, &topic, 0, &batch);
    close_segment(&mut client, &topic);
    let of_key = |client: &mut Client| -> Vec<i64> {
        let all = read(client, &topic, 0, 0);
        let own = all.into_iter().filter(|(_, it)| it.key.as_deref() == Some(b"key-7"));
        own.map(|(offset, _)| offset).collect()
    };
    wait_within(PATIENCE, "the tombstone alone", || {
        (of_key(&mut client) == [tombstone]).then_some(())
    });
    // It goes with a compaction after its time, and that takes something new.
    wait_within(PATIENCE, "no trace of the key", || {
        close_segment(&mut client, &topic);
        let left = of_key(&mut client);
        assert!(left.is_empty() || left == [tombstone], "nothing older comes back: {left:?}");
        left.is_empty().then_some(())
    });
}

#[test]
fn records_without_a_key_are_refused() {
    let server = looking_often().start();
    let mut client = server.client();
    let topic = unique("keyless");
    create(&mut client, &topic, &[]);
    let batch = Batch::of_records(vec![keyed("a", Some(b"x")), Record::of("no key")]);
    let refused = produce_bytes(&mut client, &topic, 0, -1, batch.encode());
    expect_error(refused.error_code, ErrorCode::InvalidRecord, "a record without a key");
    assert_eq!(high_watermark(&mut client, &topic, 0), 0, "nothing of the batch is there");
    let batch = Batch::of_records(vec![keyed("", Some(b"x"))]);
    assert_eq!(produce(&mut client, &topic, 0, &batch), 0, "an empty key is a key");
}

#[test]
fn an_idempotent_producer_goes_on_after_all_its_records_are_gone() {
    let mut server = looking_often().start();
    let mut client = server.client();
    let topic = unique("producer");
    create(&mut client, &topic, &[]);
    let (id, epoch) = init_producer(&mut client);
    let own = |sequence: i32| {
        Batch::of_records(vec![keyed("key-1", Some(b"of the producer"))])
            .idempotent(id, epoch, sequence)
    };
    produce(&mut client, &topic, 0, &own(0));
    let last = produce(&mut client, &topic, 0, &own(1));
    fill(&mut client, &topic, 30);
    close_segment(&mut client, &topic);
    wait_within(PATIENCE, "its records to go", || {
        (!lines(&mut client, &topic).iter().any(|it| it.0 <= last)).then_some(())
    });
    let kept = read_batches(&mut client, &topic, 0, 0);
    let kept = kept.iter().find(|batch| batch.last_offset() == last).expect("its last batch");
    assert_eq!((kept.records().len(), kept.base_sequence), (0, 1));
    if !is_reference() {
        server.kill9();
        server.restart();
    }
    let mut client = server.client();
    let gap = produce_bytes(&mut client, &topic, 0, -1, own(3).encode());
    expect_error(gap.error_code, ErrorCode::OutOfOrderSequenceNumber, "a gap");
    let repeated = produce_bytes(&mut client, &topic, 0, -1, own(1).encode());
    expect_error(repeated.error_code, ErrorCode::None, "a repeated batch");
    assert_eq!(repeated.base_offset, last);
    assert!(produce(&mut client, &topic, 0, &own(2)) > last);
}

#[test]
fn records_of_a_compacted_topic_are_not_deleted_by_clients() {
    let server = looking_often().start();
    let mut client = server.client();
    let (compacted, both) = (unique("compacted"), unique("both"));
    create(&mut client, &compacted, &[]);
    create(&mut client, &both, &[("cleanup.policy", "compact,delete")]);
    let mut delete = |topic: &str| {
        produce(&mut client, topic, 0, &Batch::of_records(vec![keyed("a", Some(b"x"))]));
        let partition = DeleteRecordsPartition {
            partition_index: 0,
            offset: 1,
            ..DeleteRecordsPartition::default()
        };
        let request = DeleteRecordsRequest {
            topics: vec![DeleteRecordsTopic {
                name: topic.into(),
                partitions: vec![partition],
                ..DeleteRecordsTopic::default()
            }],
            timeout_ms: 30_000,
            ..DeleteRecordsRequest::default()
        };
        error(client.call(2, &request).topics[0].partitions[0].error_code)
    };
    assert_eq!(delete(&compacted), ErrorCode::PolicyViolation);
    assert_eq!(delete(&both), ErrorCode::None);
}

#[test]
fn lags_that_contradict_each_other_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    let configs = [("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")];
    let refused = try_create_topic(&mut client, &unique("lags"), 1, &configs);
    assert_eq!(refused, ErrorCode::InvalidConfig);
}
