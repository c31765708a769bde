//! Where logs begin and end, where times and epochs are, and what DeleteRecords does to it.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use chronik_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use chronik_protocol::messages::offset_for_leader_epoch_response::EpochEndOffset;

use crate::support::batch::{Batch, Record};
use crate::support::client::Client;
use crate::support::requests::{
    EARLIEST, LATEST, MAX_TIMESTAMP, create_topic, describe_topic, error, expect_error, fetch,
    high_watermark, list_offset, log_start, produce, read_values,
};
use crate::support::server::{Options, Server};
use crate::support::unique;

const EARLIEST_LOCAL: i64 = -4;

fn delete_records(client: &mut Client, topic: &str, before: i64) -> Result<i64, ErrorCode> {
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: topic.into(),
            partitions: vec![DeleteRecordsPartition {
                partition_index: 0,
                offset: before,
                ..DeleteRecordsPartition::default()
            }],
            ..DeleteRecordsTopic::default()
        }],
        timeout_ms: 30_000,
        ..DeleteRecordsRequest::default()
    };
    let response = client.call(2, &request);
    let answer = &response.topics[0].partitions[0];
    match error(answer.error_code) {
        ErrorCode::None => Ok(answer.low_watermark),
        code => Err(code),
    }
}

fn epoch_end(client: &mut Client, topic: &str, current: i32, asked: i32) -> EpochEndOffset {
    let request = OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic {
            topic: topic.into(),
            partitions: vec![OffsetForLeaderPartition {
                partition: 0,
                current_leader_epoch: current,
                leader_epoch: asked,
                ..OffsetForLeaderPartition::default()
            }],
            ..OffsetForLeaderTopic::default()
        }],
        ..OffsetForLeaderEpochRequest::default()
    };
    client.call(4, &request).topics.remove(0).partitions.remove(0)
}

#[test]
fn ends_of_an_empty_log_are_zero() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("empty");
    create_topic(&mut client, &topic, 1);
    for timestamp in [EARLIEST, LATEST, EARLIEST_LOCAL] {
        let found = list_offset_of_version(&mut client, &topic, timestamp, 9);
        assert_eq!(found, (ErrorCode::None, 0, -1), "timestamp {timestamp}");
    }
    for timestamp in [MAX_TIMESTAMP, 0, 1_000_000] {
        let found = list_offset_of_version(&mut client, &topic, timestamp, 9);
        assert_eq!(found, (ErrorCode::None, -1, -1), "timestamp {timestamp}");
    }
}

fn list_offset_of_version(
    client: &mut Client,
    topic: &str,
    timestamp: i64,
    version: i16,
) -> (ErrorCode, i64, i64) {
    use chronik_protocol::messages::list_offsets_request::{
        ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![ListOffsetsPartition {
                partition_index: 0,
                current_leader_epoch: -1,
                timestamp,
                ..ListOffsetsPartition::default()
            }],
            ..ListOffsetsTopic::default()
        }],
        ..ListOffsetsRequest::default()
    };
    let response = client.call(version, &request);
    let answer = &response.topics[0].partitions[0];
    (error(answer.error_code), answer.offset, answer.timestamp)
}

#[test]
fn every_version_lists_the_ends() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("versions");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["a", "b", "c"]));
    for version in 1..=11 {
        let latest = list_offset_of_version(&mut client, &topic, LATEST, version);
        assert_eq!(latest, (ErrorCode::None, 3, -1), "version {version}");
        let earliest = list_offset_of_version(&mut client, &topic, EARLIEST, version);
        assert_eq!(earliest, (ErrorCode::None, 0, -1), "version {version}");
    }
}

/// Records of times that do not grow: two batches.
fn timed(client: &mut Client, topic: &str) {
    let at = |time: i64| Record::of(time.to_string()).at(time);
    produce(client, topic, 0, &Batch::of_records(vec![at(1000), at(3000), at(2000)]));
    produce(client, topic, 0, &Batch::of_records(vec![at(2500), at(9000), at(8000)]));
}

fn check_times(client: &mut Client, topic: &str) {
    for (asked, offset, timestamp) in [
        (0, 0, 1000),
        (1000, 0, 1000),
        (1001, 1, 3000),
        (3000, 1, 3000),
        (3001, 4, 9000),
        (9000, 4, 9000),
        (MAX_TIMESTAMP, 4, 9000),
        (9001, -1, -1),
    ] {
        let found = list_offset(client, topic, 0, asked);
        expect_error(found.error_code, ErrorCode::None, &format!("time {asked}"));
        assert_eq!((found.offset, found.timestamp), (offset, timestamp), "time {asked}");
        if offset >= 0 {
            assert!(found.leader_epoch >= 0, "time {asked}: {}", found.leader_epoch);
        }
    }
}

#[test]
fn a_time_finds_the_first_record_at_or_after_it() {
    let mut server = Server::start();
    let topic = unique("times");
    let mut client = server.client();
    create_topic(&mut client, &topic, 1);
    timed(&mut client, &topic);
    check_times(&mut client, &topic);
    server.kill9();
    server.restart();
    check_times(&mut server.client(), &topic);
    server.stop();
    server.restart();
    check_times(&mut server.client(), &topic);
}

#[test]
fn offsets_of_unknown_partitions_are_refused() {
    let server = Server::start_with(Options::default().kafka("auto.create.topics.enable", "false"));
    let mut client = server.client();
    let topic = unique("unknown");
    let found = list_offset(&mut client, &topic, 0, LATEST);
    expect_error(found.error_code, ErrorCode::UnknownTopicOrPartition, "no such topic");
    create_topic(&mut client, &topic, 1);
    let found = list_offset(&mut client, &topic, 1, LATEST);
    expect_error(found.error_code, ErrorCode::UnknownTopicOrPartition, "no such partition");
}

#[test]
fn deleted_records_are_gone_and_stay_gone() {
    let mut server = Server::start();
    let topic = unique("delete");
    let mut client = server.client();
    create_topic(&mut client, &topic, 1);
    for value in 0..10 {
        produce(&mut client, &topic, 0, &Batch::of([value.to_string()]));
    }
    assert_eq!(delete_records(&mut client, &topic, 4), Ok(4));
    for round in 0..3 {
        let mut client = server.client();
        assert_eq!(log_start(&mut client, &topic, 0), 4, "round {round}");
        assert_eq!(high_watermark(&mut client, &topic, 0), 10, "round {round}");
        let data = fetch(&mut client, &topic, 0, 3);
        expect_error(data.error_code, ErrorCode::OffsetOutOfRange, "a deleted record");
        assert_eq!(read_values(&mut client, &topic, 0, 4).len(), 6);
        let found = list_offset(&mut client, &topic, 0, 0);
        assert_eq!(found.offset, 4, "a search by time does not find deleted records");
        match round {
            0 => server.kill9(),
            _ => server.stop(),
        }
        server.restart();
    }
}

#[test]
fn delete_records_never_goes_back_nor_beyond_the_end() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("bounds");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["a", "b", "c", "d"]));
    // Inside a batch: the batch stays, its first records do not count any more.
    assert_eq!(delete_records(&mut client, &topic, 2), Ok(2));
    assert_eq!(read_values(&mut client, &topic, 0, 2), ["c", "d"]);
    assert_eq!(delete_records(&mut client, &topic, 1), Ok(2), "the log start never falls");
    let refused = delete_records(&mut client, &topic, 5);
    assert_eq!(refused, Err(ErrorCode::OffsetOutOfRange), "beyond the end");
    let refused = delete_records(&mut client, &topic, -2);
    assert_eq!(refused, Err(ErrorCode::OffsetOutOfRange), "below zero");
    assert_eq!(delete_records(&mut client, &topic, -1), Ok(4), "everything");
    assert_eq!(log_start(&mut client, &topic, 0), 4);
    assert_eq!(produce(&mut client, &topic, 0, &Batch::of(["e"])), 4, "offsets go on");
}

#[test]
fn the_end_of_the_current_epoch_is_the_end_of_the_log() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("epoch");
    create_topic(&mut client, &topic, 1);
    produce(&mut client, &topic, 0, &Batch::of(["a", "b"]));
    let current = describe_topic(&mut client, &topic).partitions[0].leader_epoch;
    let found = epoch_end(&mut client, &topic, current, current);
    expect_error(found.error_code, ErrorCode::None, "the current epoch");
    assert_eq!((found.leader_epoch, found.end_offset), (current, 2));
    let found = epoch_end(&mut client, &topic, current, current + 1);
    expect_error(found.error_code, ErrorCode::None, "an epoch nobody led");
    assert_eq!((found.leader_epoch, found.end_offset), (-1, -1));
    let found = epoch_end(&mut client, &topic, current + 1, current);
    expect_error(found.error_code, ErrorCode::UnknownLeaderEpoch, "the client knows a newer one");
}
