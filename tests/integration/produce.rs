//! What is produced comes back as it was, at every acks level and in every version.

use chronik_protocol::messages::produce_request::ProduceRequest;
use chronik_protocol::{ErrorCode, KafkaString};

use crate::support::batch::{Batch, Record, now_ms};
use crate::support::client::Client;
use crate::support::requests::{
    PRODUCE_BY_NAME, create_topic, create_topic_with, expect_error, fetch, high_watermark, produce,
    produce_bytes, produce_request, produced, read, read_batches, topic_id,
};
use crate::support::server::{Options, Server};
use crate::support::{unique, wait_for};

/// Everything that a record can have.
fn rich_batch() -> Batch {
    let now = now_ms();
    Batch::of_records(vec![
        Record {
            timestamp: now,
            key: Some("key".into()),
            value: Some("value".into()),
            headers: vec![("a".to_owned(), Some("1".into())), ("b".to_owned(), None)],
        },
        Record { timestamp: now - 5, key: None, value: None, headers: Vec::new() },
        Record {
            timestamp: now + 7,
            key: Some("".into()),
            value: Some("".into()),
            headers: vec![],
        },
    ])
}

fn in_version(client: &mut Client, topic: &str, version: i16) -> ProduceRequest {
    let mut request = produce_request(topic, 0, -1, rich_batch().encode());
    if version > PRODUCE_BY_NAME {
        request.topic_data[0].topic_id = topic_id(client, topic);
        request.topic_data[0].name = KafkaString::default();
    }
    request
}

#[test]
fn every_version_stores_the_bytes_that_were_sent() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("versions");
    create_topic(&mut client, &topic, 1);
    for version in 3..=13 {
        let request = in_version(&mut client, &topic, version);
        let sent = request.topic_data[0].partition_data[0].records.clone().unwrap().into_bytes();
        let response = produced(client.call(version, &request));
        expect_error(response.error_code, ErrorCode::None, &format!("version {version}"));
        let base = i64::from(version - 3) * 3;
        assert_eq!(response.base_offset, base, "version {version}");
        assert_eq!(response.log_append_time_ms, -1, "version {version}");
        if version >= 5 {
            assert_eq!(response.log_start_offset, 0, "version {version}");
        }
        let stored = read_batches(&mut client, &topic, 0, base);
        assert_eq!(stored.len(), 1, "version {version}");
        assert_eq!(stored[0].base_offset, base);
        assert!(stored[0].is_as_sent(&sent), "version {version}: {:?}", stored[0].bytes);
    }
}

#[test]
fn every_acks_level_stores_the_bytes_that_were_sent() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("acks");
    create_topic(&mut client, &topic, 1);
    let sent = rich_batch().encode();
    for (acks, base) in [(1, 0), (-1, 3)] {
        let response = produce_bytes(&mut client, &topic, 0, acks, sent.clone());
        expect_error(response.error_code, ErrorCode::None, &format!("acks {acks}"));
        assert_eq!(response.base_offset, base);
    }
    client.send_unanswered(PRODUCE_BY_NAME, &produce_request(&topic, 0, 0, sent.clone()));
    wait_for("the record that nobody acknowledges", || {
        (high_watermark(&mut client, &topic, 0) == 9).then_some(())
    });
    let stored = read_batches(&mut client, &topic, 0, 0);
    assert_eq!(stored.iter().map(|batch| batch.base_offset).collect::<Vec<_>>(), [0, 3, 6]);
    assert!(stored.iter().all(|batch| batch.is_as_sent(&sent)));
    let records = read(&mut client, &topic, 0, 0);
    assert_eq!(records.len(), 9);
    assert_eq!(records[4].1, rich_records_of(&sent)[1], "a tombstone stays one");
}

fn rich_records_of(sent: &bytes::Bytes) -> Vec<Record> {
    let batches = crate::support::batch::parse(sent);
    batches[0].records().into_iter().map(|(_, record)| record).collect()
}

#[test]
fn acks_0_is_not_answered_and_the_next_request_gets_its_own_answer() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("acks0");
    create_topic(&mut client, &topic, 1);
    for _ in 0..10 {
        let request = produce_request(&topic, 0, 0, Batch::of(["x"]).encode());
        client.send_unanswered(PRODUCE_BY_NAME, &request);
    }
    // The client checks the correlation id of whatever comes next.
    let response = produce_bytes(&mut client, &topic, 0, 1, Batch::of(["y"]).encode());
    expect_error(response.error_code, ErrorCode::None, "acks 1");
    assert_eq!(response.base_offset, 10, "it came after the ten");
}

#[test]
fn acks_0_is_held_up_and_not_dropped_when_the_wal_is_full() {
    const REQUESTS: i64 = 30_000;
    // A WAL that takes a few megabytes and then waits for the segments.
    let profile = tempfile::NamedTempFile::new().unwrap();
    let changes = "[profile]\nwal_file_bytes = \"4 MiB\"\nwal_files_max = 2\ncommit_bytes_max = \"1 MiB\"\n\
                   flush_round_bytes = \"1 MiB\"\ncommit_linger_us = 20000\n";
    std::fs::write(profile.path(), changes).unwrap();
    let server = Server::start_with(
        Options::shards(2).flag(&format!("--config={}", profile.path().display())),
    );
    let mut client = server.client();
    let topic = unique("flood");
    create_topic(&mut client, &topic, 2);
    let value = "x".repeat(1000);
    let batch = Batch::of([value.as_str()]).encode();
    for number in 0..REQUESTS {
        let request = produce_request(&topic, (number % 2) as i32, 0, batch.clone());
        client.send_unanswered(PRODUCE_BY_NAME, &request);
    }
    for partition in 0..2 {
        let end = produce(&mut client, &topic, partition, &Batch::of(["last"]));
        assert_eq!(end, REQUESTS / 2, "partition {partition}");
    }
}

#[test]
fn acks_that_do_not_exist_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("acks");
    create_topic(&mut client, &topic, 1);
    for acks in [2, -2, i16::MAX] {
        let response = produce_bytes(&mut client, &topic, 0, acks, Batch::of(["x"]).encode());
        expect_error(response.error_code, ErrorCode::InvalidRequiredAcks, &format!("acks {acks}"));
    }
    assert_eq!(high_watermark(&mut client, &topic, 0), 0);
}

#[test]
fn each_partition_of_a_request_has_its_own_answer() {
    let server = Server::start_with(Options::shards(3));
    let mut client = server.client();
    let topic = unique("many");
    create_topic(&mut client, &topic, 8);
    let mut request = produce_request(&topic, 0, -1, Batch::of(["0"]).encode());
    for partition in 1..9 {
        let one =
            produce_request(&topic, partition, -1, Batch::of([partition.to_string()]).encode());
        request.topic_data[0].partition_data.extend(one.topic_data[0].partition_data.clone());
    }
    let response = client.call(PRODUCE_BY_NAME, &request);
    let answers = &response.responses[0].partition_responses;
    assert_eq!(answers.len(), 9);
    for answer in answers {
        let expected = match answer.index {
            8 => ErrorCode::UnknownTopicOrPartition,
            _ => ErrorCode::None,
        };
        expect_error(answer.error_code, expected, &format!("partition {}", answer.index));
    }
    for partition in 0..8 {
        let values = crate::support::requests::read_values(&mut client, &topic, partition, 0);
        assert_eq!(values, [partition.to_string()]);
    }
}

#[test]
fn unknown_topic_and_topic_id_are_told_apart() {
    let server = Server::start_with(Options::default().kafka("auto.create.topics.enable", "false"));
    let mut client = server.client();
    let batch = Batch::of(["x"]).encode();
    let response = produce_bytes(&mut client, &unique("none"), 0, -1, batch.clone());
    expect_error(response.error_code, ErrorCode::UnknownTopicOrPartition, "a name nobody has");
    let mut request = produce_request("", 0, -1, batch);
    request.topic_data[0].topic_id = chronik_protocol::Uuid([7; 16]);
    let response = produced(client.call(13, &request));
    expect_error(response.error_code, ErrorCode::UnknownTopicId, "an id nobody has");
}

#[test]
fn log_append_time_stamps_the_batch_and_the_answer() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("append-time");
    let config = [("message.timestamp.type", "LogAppendTime")];
    create_topic_with(&mut client, &topic, 1, &config);
    let batch = Batch::of_records(vec![Record::of("old").at(1000), Record::of("older").at(500)]);
    let before = now_ms();
    let response = produce_bytes(&mut client, &topic, 0, -1, batch.encode());
    let after = now_ms();
    expect_error(response.error_code, ErrorCode::None, "LogAppendTime");
    let stamp = response.log_append_time_ms;
    assert!((before..=after).contains(&stamp), "{before} <= {stamp} <= {after}");
    // `parse` verifies the CRC, which covers both fields.
    let stored = read_batches(&mut client, &topic, 0, 0);
    assert_eq!(stored[0].attributes, 1 << 3, "timestamp type");
    assert_eq!(stored[0].max_timestamp, stamp);
    let values: Vec<_> = stored[0].records().into_iter().map(|(_, r)| r.value.unwrap()).collect();
    assert_eq!(values, ["old", "older"]);
}

#[test]
fn create_time_keeps_the_producers_time() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("create-time");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of_records(vec![Record::of("x").at(1000)]));
    let stored = read_batches(&mut client, &topic, 0, 0);
    assert_eq!((stored[0].attributes, stored[0].max_timestamp), (0, 1000));
}

#[test]
fn timestamps_outside_of_the_topics_window_are_refused() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("window");
    let config =
        [("message.timestamp.before.max.ms", "60000"), ("message.timestamp.after.max.ms", "60000")];
    create_topic_with(&mut client, &topic, 1, &config);
    let now = now_ms();
    for (timestamp, expected) in [
        (now - 3_600_000, ErrorCode::InvalidTimestamp),
        (now + 3_600_000, ErrorCode::InvalidTimestamp),
        (now, ErrorCode::None),
    ] {
        let batch = Batch::of_records(vec![Record::of("x").at(timestamp)]);
        let response = produce_bytes(&mut client, &topic, 0, -1, batch.encode());
        expect_error(response.error_code, expected, &format!("{} from now", timestamp - now));
    }
}

#[test]
fn a_topics_codec_is_used_for_batches_that_come_in_another() {
    use chronik_shards::format::compression::{Codec, decompress};
    let server = Server::start();
    let mut client = server.client();
    let codecs = [
        ("gzip", 1, Codec::Gzip),
        ("snappy", 2, Codec::Snappy),
        ("lz4", 3, Codec::Lz4),
        ("zstd", 4, Codec::Zstd),
    ];
    for (name, id, codec) in codecs {
        let topic = unique(name);
        create_topic_with(&mut client, &topic, 1, &[("compression.type", name)]);
        let values: Vec<String> = (0..100).map(|n| format!("value number {n}")).collect();
        produce(&mut client, &topic, 0, &Batch::of(&values));
        let stored = read_batches(&mut client, &topic, 0, 0);
        assert_eq!(stored.len(), 1, "{name}");
        assert_eq!(stored[0].codec(), id, "{name}");
        let payload = decompress(codec, stored[0].payload(), 1 << 20).unwrap();
        let read: Vec<_> =
            stored[0].records_of(&payload).into_iter().map(|(_, r)| r.value.unwrap()).collect();
        assert_eq!(read, values, "{name}");
    }
    // And the other way: what comes compressed is stored plainly.
    let topic = unique("uncompressed");
    create_topic_with(&mut client, &topic, 1, &[("compression.type", "uncompressed")]);
    let plain = Batch::of(["a", "b"]).encode_vec();
    let payload = chronik_shards::format::compression::compress(Codec::Gzip, &plain[61..]);
    let mut gzipped = plain[..61].to_vec();
    gzipped.extend(payload);
    gzipped[22] |= 1;
    crate::support::batch::seal(&mut gzipped);
    let response = produce_bytes(&mut client, &topic, 0, -1, gzipped.clone());
    expect_error(response.error_code, ErrorCode::None, "gzip into uncompressed");
    let stored = read_batches(&mut client, &topic, 0, 0);
    assert_eq!(stored[0].codec(), 0);
    assert_eq!(stored[0].records().len(), 2);
    // Where the topic leaves it to the producer, the compressed bytes stay as they are.
    let topic = unique("producer");
    create_topic(&mut client, &topic, 1);
    produce_bytes(&mut client, &topic, 0, -1, gzipped.clone());
    let data = fetch(&mut client, &topic, 0, 0);
    let stored = crate::support::requests::batches(&data);
    assert!(stored[0].is_as_sent(&gzipped));
}

#[test]
fn more_replicas_in_sync_than_a_partition_has_count_as_all_of_them() {
    // Source: KIP-966. Apache Kafka answers the same.
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("min-isr");
    create_topic_with(&mut client, &topic, 1, &[("min.insync.replicas", "2")]);
    produce(&mut client, &topic, 0, &Batch::of(["x"]));
    assert_eq!(high_watermark(&mut client, &topic, 0), 1);
}

#[test]
fn flush_messages_above_one_still_stores_everything() {
    let mut server = Server::start();
    let topic = unique("flush");
    let mut client = server.client();
    let config = [("flush.messages", "1000"), ("flush.ms", "50")];
    create_topic_with(&mut client, &topic, 1, &config);
    for value in 0..50 {
        produce(&mut client, &topic, 0, &Batch::of([value.to_string()]));
    }
    let values = crate::support::requests::read_values(&mut client, &topic, 0, 0);
    assert_eq!(values, (0..50).map(|n: i32| n.to_string()).collect::<Vec<_>>());
    server.stop();
    server.restart();
    let values = crate::support::requests::read_values(&mut server.client(), &topic, 0, 0);
    assert_eq!(values.len(), 50, "an orderly stop loses nothing");
}
