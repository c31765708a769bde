//! How much a fetch answers with, and when.

use std::time::{Duration, Instant};

use chronik_protocol::{ErrorCode, KafkaString};

use crate::support::batch::Batch;
use crate::support::requests::{
    FETCH_BY_NAME, FetchBounds, batches, create_topic, expect_error, fetch, fetch_request, fetched,
    produce, topic_id,
};
use crate::support::server::{Options, Server};
use crate::support::unique;

/// Longer than a read of the test's connection waits: an answer that only comes when this is over
/// fails the test.
const TOO_LONG_MS: i32 = 120_000;

/// Bytes of a batch with one value of this many bytes, at least.
const KIB: usize = 1024;

#[test]
fn every_version_reads_the_bytes_that_were_sent() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("versions");
    create_topic(&mut client, &topic, 1);
    let sent = Batch::of(["a", "b", "c"]).encode();
    for _ in 0..2 {
        let response =
            crate::support::requests::produce_bytes(&mut client, &topic, 0, -1, sent.clone());
        expect_error(response.error_code, ErrorCode::None, "produce");
    }
    let id = topic_id(&mut client, &topic);
    for version in 4..=18 {
        let mut request = fetch_request(&topic, 0, 3, FetchBounds::default());
        if version > FETCH_BY_NAME {
            request.topics[0].topic_id = id;
            request.topics[0].topic = KafkaString::default();
        }
        let response = client.call(version, &request);
        if version > FETCH_BY_NAME {
            assert_eq!(response.responses[0].topic_id, id, "version {version}");
        } else {
            assert_eq!(response.responses[0].topic, topic.as_str(), "version {version}");
        }
        let data = fetched(response);
        expect_error(data.error_code, ErrorCode::None, &format!("version {version}"));
        assert_eq!(data.high_watermark, 6, "version {version}");
        assert_eq!(data.last_stable_offset, 6, "version {version}");
        if version >= 5 {
            assert_eq!(data.log_start_offset, 0, "version {version}");
        }
        let stored = batches(&data);
        assert_eq!(stored.len(), 1, "version {version}");
        assert_eq!(stored[0].base_offset, 3);
        assert!(stored[0].is_as_sent(&sent), "version {version}");
    }
}

#[test]
fn offset_inside_a_batch_reads_the_whole_batch() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("inside");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["a", "b", "c"]));
    produce(&mut client, &topic, 0, &Batch::of(["d"]));
    let stored = batches(&fetch(&mut client, &topic, 0, 1));
    assert_eq!(stored.iter().map(|batch| batch.base_offset).collect::<Vec<_>>(), [0, 3]);
}

#[test]
fn offsets_beyond_the_ends_are_out_of_range() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("range");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["a"]));
    for offset in [2, -1, i64::MAX] {
        let data = fetch(&mut client, &topic, 0, offset);
        expect_error(data.error_code, ErrorCode::OffsetOutOfRange, &format!("offset {offset}"));
    }
    let data = fetch(&mut client, &topic, 0, 1);
    expect_error(data.error_code, ErrorCode::None, "the end itself");
    assert!(batches(&data).is_empty());
}

#[test]
fn unknown_partition_topic_and_id_are_told_apart() {
    let server = Server::start_with(Options::default().kafka("auto.create.topics.enable", "false"));
    let mut client = server.client();
    let topic = unique("known");
    create_topic(&mut client, &topic, 1);
    let data = fetch(&mut client, &topic, 1, 0);
    expect_error(data.error_code, ErrorCode::UnknownTopicOrPartition, "a partition too many");
    let data = fetch(&mut client, &unique("none"), 0, 0);
    expect_error(data.error_code, ErrorCode::UnknownTopicOrPartition, "a name nobody has");
    let mut request = fetch_request("", 0, 0, FetchBounds::default());
    request.topics[0].topic_id = chronik_protocol::Uuid([7; 16]);
    let data = fetched(client.call(13, &request));
    expect_error(data.error_code, ErrorCode::UnknownTopicId, "an id nobody has");
}

#[test]
fn first_batch_comes_whole_whatever_the_bounds_and_a_second_does_not() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("bounds");
    create_topic(&mut client, &topic, 1);
    let sent: Vec<_> = (0..4).map(|_| Batch::of_size(10 * KIB)).collect();
    for batch in &sent {
        produce(&mut client, &topic, 0, batch);
    }
    for (max_bytes, partition_max_bytes) in [(1, 1), (1, 1 << 20), (1 << 20, 1), (0, 0)] {
        let bounds = FetchBounds { max_bytes, partition_max_bytes, ..FetchBounds::default() };
        let data = fetched(client.call(FETCH_BY_NAME, &fetch_request(&topic, 0, 1, bounds)));
        let stored = batches(&data);
        assert_eq!(stored.len(), 1, "max_bytes {max_bytes}, of a partition {partition_max_bytes}");
        assert_eq!(stored[0].base_offset, 1);
        assert!(stored[0].is_as_sent(&sent[1].encode()));
    }
    let bounds = FetchBounds { partition_max_bytes: (25 * KIB) as i32, ..FetchBounds::default() };
    let data = fetched(client.call(FETCH_BY_NAME, &fetch_request(&topic, 0, 0, bounds)));
    assert_eq!(batches(&data).len(), 2, "two batches fit, a third does not");
    let records = data.records.unwrap_or_default().len();
    assert!(records <= 25 * KIB, "{records} bytes where 25 KiB were allowed");
}

#[test]
fn max_bytes_counts_over_all_partitions_and_the_first_with_records_is_served() {
    let server = Server::start_with(Options::shards(2));
    let mut client = server.client();
    let topic = unique("total");
    create_topic(&mut client, &topic, 6);
    // Partition 0 stays empty: it must not use up the right to a first batch.
    for partition in 1..6 {
        produce(&mut client, &topic, partition, &Batch::of_size(10 * KIB));
        produce(&mut client, &topic, partition, &Batch::of_size(10 * KIB));
    }
    let all = |max_bytes| {
        let bounds = FetchBounds { max_bytes, ..FetchBounds::default() };
        let mut request = fetch_request(&topic, 0, 0, bounds);
        for partition in 1..6 {
            let mut other = request.topics[0].partitions[0].clone();
            other.partition = partition;
            request.topics[0].partitions.push(other);
        }
        request
    };
    let sizes = |client: &mut crate::support::client::Client, max_bytes| {
        let response = client.call(FETCH_BY_NAME, &all(max_bytes));
        let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
        partitions
            .map(|data| (data.partition_index, data.records.as_ref().map_or(0, |r| r.len())))
            .collect::<Vec<_>>()
    };
    let small = sizes(&mut client, 1);
    let total: usize = small.iter().map(|(_, bytes)| bytes).sum();
    assert!((10 * KIB..11 * KIB).contains(&total), "one batch: {small:?}");
    let half = sizes(&mut client, (45 * KIB) as i32);
    let total: usize = half.iter().map(|(_, bytes)| bytes).sum();
    assert!((20 * KIB..=45 * KIB).contains(&total), "within the bound, and of use: {half:?}");
    let large = sizes(&mut client, 10 << 20);
    assert!(large.iter().skip(1).all(|(_, bytes)| *bytes > 20 * KIB), "all of it: {large:?}");
}

#[test]
fn parked_fetch_is_answered_when_a_record_arrives() {
    let server = Server::start_with(Options::shards(2));
    let mut consumer = server.client();
    let mut producer = server.client();
    let topic = unique("parked");
    create_topic(&mut producer, &topic, 4);
    for partition in 0..4 {
        let bounds =
            FetchBounds { max_wait_ms: TOO_LONG_MS, min_bytes: 1, ..FetchBounds::default() };
        let mut request = fetch_request(&topic, 0, 0, bounds);
        for other in 1..4 {
            let mut more = request.topics[0].partitions[0].clone();
            more.partition = other;
            request.topics[0].partitions.push(more);
        }
        for asked in &mut request.topics[0].partitions {
            asked.fetch_offset = i64::from(asked.partition < partition);
        }
        consumer.send(FETCH_BY_NAME, &request);
        produce(&mut producer, &topic, partition, &Batch::of(["x"]));
        let response: chronik_protocol::messages::fetch_response::FetchResponse =
            consumer.receive();
        let with_records: Vec<_> = response.responses[0]
            .partitions
            .iter()
            .filter(|data| data.records.as_ref().is_some_and(|records| !records.is_empty()))
            .map(|data| data.partition_index)
            .collect();
        assert_eq!(with_records, [partition]);
    }
}

#[test]
fn parked_fetch_waits_for_min_bytes() {
    let server = Server::start();
    let mut consumer = server.client();
    let mut producer = server.client();
    let topic = unique("min-bytes");
    create_topic(&mut producer, &topic, 1);
    let bounds = FetchBounds {
        max_wait_ms: TOO_LONG_MS,
        min_bytes: (25 * KIB) as i32,
        ..FetchBounds::default()
    };
    consumer.send(FETCH_BY_NAME, &fetch_request(&topic, 0, 0, bounds));
    for _ in 0..3 {
        produce(&mut producer, &topic, 0, &Batch::of_size(10 * KIB));
    }
    // Two were too little: had it been answered for them, the third would be missing.
    assert_eq!(batches(&fetched(consumer.receive())).len(), 3);
}

#[test]
fn fetch_of_no_partition_is_answered_at_once() {
    let server = Server::start();
    let bounds = FetchBounds { max_wait_ms: TOO_LONG_MS, min_bytes: 1, ..FetchBounds::default() };
    let mut request = fetch_request("", 0, 0, bounds);
    request.topics.clear();
    let response = server.client().call(FETCH_BY_NAME, &request);
    expect_error(response.error_code, ErrorCode::None, "no partition");
    assert!(response.responses.is_empty());
}

#[test]
fn fetch_with_nothing_to_read_is_answered_after_max_wait_and_not_before() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("max-wait");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["x"]));
    let begin = Instant::now();
    let bounds = FetchBounds { max_wait_ms: 200, min_bytes: 1, ..FetchBounds::default() };
    let data = fetched(client.call(FETCH_BY_NAME, &fetch_request(&topic, 0, 1, bounds)));
    // One millisecond is what either side may round.
    assert!(begin.elapsed() >= Duration::from_millis(199), "{:?}", begin.elapsed());
    expect_error(data.error_code, ErrorCode::None, "nothing new");
    assert_eq!(data.high_watermark, 1);
    assert!(batches(&data).is_empty());
}

#[test]
fn fetch_that_has_an_error_to_report_does_not_wait() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("error");
    create_topic(&mut client, &topic, 2);
    let bounds = FetchBounds { max_wait_ms: TOO_LONG_MS, min_bytes: 1, ..FetchBounds::default() };
    let mut request = fetch_request(&topic, 0, 0, bounds);
    let mut beyond = request.topics[0].partitions[0].clone();
    beyond.partition = 1;
    beyond.fetch_offset = 7;
    request.topics[0].partitions.push(beyond);
    let response = client.call(FETCH_BY_NAME, &request);
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    let failed = partitions.find(|data| data.partition_index == 1).unwrap();
    expect_error(failed.error_code, ErrorCode::OffsetOutOfRange, "partition 1");
}

#[test]
fn fetch_that_asks_for_no_bytes_does_not_wait() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("no-bytes");
    create_topic(&mut client, &topic, 1);
    let bounds = FetchBounds { max_wait_ms: TOO_LONG_MS, min_bytes: 0, ..FetchBounds::default() };
    let data = fetched(client.call(FETCH_BY_NAME, &fetch_request(&topic, 0, 0, bounds)));
    expect_error(data.error_code, ErrorCode::None, "an empty partition");
}

#[test]
fn parked_fetch_of_a_client_that_left_harms_nobody() {
    let mut server = Server::start();
    let mut producer = server.client();
    let topic = unique("left");
    create_topic(&mut producer, &topic, 1);
    for _ in 0..50 {
        let mut consumer = server.client();
        let bounds =
            FetchBounds { max_wait_ms: TOO_LONG_MS, min_bytes: 1, ..FetchBounds::default() };
        consumer.send(FETCH_BY_NAME, &fetch_request(&topic, 0, 0, bounds));
    }
    produce(&mut producer, &topic, 0, &Batch::of(["x"]));
    assert_eq!(batches(&fetch(&mut producer, &topic, 0, 0)).len(), 1);
    server.assert_alive();
}

#[test]
fn a_leader_epoch_from_the_future_or_the_past_is_refused() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("epoch");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["x"]));
    let current =
        crate::support::requests::describe_topic(&mut client, &topic).partitions[0].leader_epoch;
    let mut request = fetch_request(&topic, 0, 0, FetchBounds::default());
    request.topics[0].partitions[0].current_leader_epoch = current;
    let data = fetched(client.call(FETCH_BY_NAME, &request));
    expect_error(data.error_code, ErrorCode::None, "the current epoch");
    request.topics[0].partitions[0].current_leader_epoch = current + 1;
    let data = fetched(client.call(FETCH_BY_NAME, &request));
    expect_error(data.error_code, ErrorCode::UnknownLeaderEpoch, "an epoch to come");
    if current > 0 {
        request.topics[0].partitions[0].current_leader_epoch = current - 1;
        let data = fetched(client.call(FETCH_BY_NAME, &request));
        expect_error(data.error_code, ErrorCode::FencedLeaderEpoch, "an epoch gone by");
    }
}

#[test]
fn large_batches_are_read_back_from_segments_and_from_memory() {
    let mut server = Server::start();
    let topic = unique("large");
    let mut client = server.client();
    create_topic(&mut client, &topic, 1);
    let sent: Vec<_> = (0..40).map(|n| Batch::of_size(500 * KIB + n)).collect();
    for batch in &sent {
        produce(&mut client, &topic, 0, batch);
    }
    let check = |client: &mut crate::support::client::Client| {
        let stored = crate::support::requests::read_batches(client, &topic, 0, 0);
        assert_eq!(stored.len(), sent.len());
        for (stored, sent) in stored.iter().zip(&sent) {
            // The time in the header is the one moment it was first encoded: values are compared.
            assert_eq!(stored.records()[0].1.value, sent.records[0].value);
        }
    };
    check(&mut client);
    server.stop();
    server.restart();
    check(&mut server.client());
}
