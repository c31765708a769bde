//! What tests ask for most, each in one fixed version that all brokers under test serve.

use std::time::Instant;

use bytes::Bytes;
use chronik_protocol::messages::create_topics_request::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use chronik_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use chronik_protocol::messages::fetch_request::{FetchPartition, FetchRequest, FetchTopic};
use chronik_protocol::messages::fetch_response::{FetchResponse, PartitionData};
use chronik_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use chronik_protocol::messages::init_producer_id_request::InitProducerIdRequest;
use chronik_protocol::messages::list_offsets_request::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use chronik_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use chronik_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use chronik_protocol::messages::metadata_response::MetadataResponseTopic;
use chronik_protocol::messages::produce_request::{
    PartitionProduceData, ProduceRequest, TopicProduceData,
};
use chronik_protocol::messages::produce_response::PartitionProduceResponse;
use chronik_protocol::{ErrorCode, KafkaString, Records, Uuid};

use super::batch::{self, Batch, Record, Stored};
use super::client::Client;
use super::server::is_reference;
use super::{PATIENCE, poll_pause, wait_for};

pub const LATEST: i64 = -1;
pub const EARLIEST: i64 = -2;
pub const MAX_TIMESTAMP: i64 = -3;

/// The highest versions that name topics by name.
pub const PRODUCE_BY_NAME: i16 = 12;
pub const FETCH_BY_NAME: i16 = 12;

const TIMEOUT_MS: i32 = 30_000;

/// The name of an error code; a number that is none fails.
pub fn error(code: i16) -> ErrorCode {
    ErrorCode::from_i16(code).unwrap_or_else(|| panic!("{code} is no error code"))
}

#[track_caller]
pub fn expect_error(code: i16, expected: ErrorCode, of: &str) {
    assert_eq!(error(code), expected, "{of}");
}

pub fn create_topic(client: &mut Client, name: &str, partitions: i32) {
    create_topic_with(client, name, partitions, &[]);
}

pub fn create_topic_with(
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) {
    let code = try_create_topic(client, name, partitions, configs);
    assert_eq!(code, ErrorCode::None, "creation of {name}");
    await_leaders(client, name, partitions);
}

/// Waits until every partition is led.
pub fn await_leaders(client: &mut Client, name: &str, partitions: i32) {
    wait_for("partitions with leaders", || {
        let topic = describe_topic(client, name);
        let led = topic.partitions.iter().filter(|p| p.error_code == 0 && p.leader_id >= 0).count();
        (topic.error_code == 0 && led as i32 == partitions).then_some(())
    });
    // Apache Kafka tells of a leader before that leader serves; ours must not.
    if is_reference() {
        wait_for("leaders that serve", || {
            let serves = |p| list_offset(client, name, p, LATEST).error_code == 0;
            (0..partitions).all(serves).then_some(())
        });
    }
}

pub fn try_create_topic(
    client: &mut Client,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> ErrorCode {
    let configs = configs.iter().map(|(key, value)| CreatableTopicConfig {
        name: KafkaString::from(*key),
        value: Some(KafkaString::from(*value)),
        ..CreatableTopicConfig::default()
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: configs.collect(),
            ..CreatableTopic::default()
        }],
        timeout_ms: TIMEOUT_MS,
        ..CreateTopicsRequest::default()
    };
    let response = client.call(5, &request);
    assert_eq!(response.topics.len(), 1, "one topic was asked for");
    assert_eq!(response.topics[0].name, name);
    error(response.topics[0].error_code)
}

pub fn delete_topic(client: &mut Client, name: &str) -> ErrorCode {
    let request = DeleteTopicsRequest {
        topic_names: vec![name.into()],
        timeout_ms: TIMEOUT_MS,
        ..DeleteTopicsRequest::default()
    };
    error(client.call(5, &request).responses[0].error_code)
}

/// What Metadata says of one topic, which is not created by asking.
pub fn describe_topic(client: &mut Client, name: &str) -> MetadataResponseTopic {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(name.into()),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    let mut response = client.call(12, &request);
    assert_eq!(response.topics.len(), 1, "one topic was asked for");
    response.topics.remove(0)
}

pub fn topic_id(client: &mut Client, name: &str) -> Uuid {
    let topic = describe_topic(client, name);
    assert_eq!(error(topic.error_code), ErrorCode::None, "{name}");
    assert!(!topic.topic_id.is_zero(), "{name} has an id");
    topic.topic_id
}

pub fn produce_request(
    topic: &str,
    partition: i32,
    acks: i16,
    records: impl Into<Bytes>,
) -> ProduceRequest {
    ProduceRequest {
        acks,
        timeout_ms: TIMEOUT_MS,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData {
                index: partition,
                records: Some(Records::from(records.into())),
                ..PartitionProduceData::default()
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// The answer for the one partition of a request.
pub fn produced(
    mut response: chronik_protocol::messages::produce_response::ProduceResponse,
) -> PartitionProduceResponse {
    assert_eq!(response.responses.len(), 1, "topics of {response:?}");
    assert_eq!(response.responses[0].partition_responses.len(), 1, "partitions of {response:?}");
    response.responses.remove(0).partition_responses.remove(0)
}

pub fn produce_bytes(
    client: &mut Client,
    topic: &str,
    partition: i32,
    acks: i16,
    records: impl Into<Bytes>,
) -> PartitionProduceResponse {
    let request = produce_request(topic, partition, acks, records);
    let response = produced(client.call(PRODUCE_BY_NAME, &request));
    assert_eq!(response.index, partition);
    response
}

/// Produces with acks=all, which must succeed; the base offset.
pub fn produce(client: &mut Client, topic: &str, partition: i32, batch: &Batch) -> i64 {
    let response = produce_bytes(client, topic, partition, -1, batch.encode());
    expect_error(response.error_code, ErrorCode::None, &format!("{:?}", response.error_message));
    response.base_offset
}

/// How a single partition is fetched.
#[derive(Clone, Copy, Debug)]
pub struct FetchBounds {
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    pub partition_max_bytes: i32,
}

impl Default for FetchBounds {
    fn default() -> Self {
        Self { max_wait_ms: 0, min_bytes: 0, max_bytes: 50 << 20, partition_max_bytes: 10 << 20 }
    }
}

pub fn fetch_request(
    topic: &str,
    partition: i32,
    offset: i64,
    bounds: FetchBounds,
) -> FetchRequest {
    FetchRequest {
        max_wait_ms: bounds.max_wait_ms,
        min_bytes: bounds.min_bytes,
        max_bytes: bounds.max_bytes,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![FetchPartition {
                partition,
                fetch_offset: offset,
                partition_max_bytes: bounds.partition_max_bytes,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// The answer for the one partition of a request without a session.
pub fn fetched(mut response: FetchResponse) -> PartitionData {
    assert_eq!(error(response.error_code), ErrorCode::None, "{response:?}");
    assert_eq!(response.responses.len(), 1, "topics of {response:?}");
    assert_eq!(response.responses[0].partitions.len(), 1, "partitions of {response:?}");
    response.responses.remove(0).partitions.remove(0)
}

/// The batches of a partition's answer.
pub fn batches(data: &PartitionData) -> Vec<Stored> {
    batch::parse(&data.records.clone().unwrap_or_default().into_bytes())
}

pub fn fetch(client: &mut Client, topic: &str, partition: i32, offset: i64) -> PartitionData {
    let request = fetch_request(topic, partition, offset, FetchBounds::default());
    fetched(client.call(FETCH_BY_NAME, &request))
}

/// Everything from `offset` to the high watermark, as batches.
pub fn read_batches(client: &mut Client, topic: &str, partition: i32, from: i64) -> Vec<Stored> {
    let mut next = from;
    let mut all = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let data = fetch(client, topic, partition, next);
        expect_error(data.error_code, ErrorCode::None, &format!("{topic}-{partition} at {next}"));
        for batch in batches(&data) {
            assert!(batch.last_offset() >= next, "a batch that ends before {next}");
            assert!(batch.last_offset() < data.high_watermark, "beyond the high watermark");
            next = batch.last_offset() + 1;
            all.push(batch);
        }
        if next >= data.high_watermark {
            return all;
        }
        assert!(Instant::now() < deadline, "{topic}-{partition}: no end in sight at {next}");
    }
}

/// Offset and record of everything from `from` to the high watermark.
pub fn read(client: &mut Client, topic: &str, partition: i32, from: i64) -> Vec<(i64, Record)> {
    let batches = read_batches(client, topic, partition, from);
    let records = batches.iter().flat_map(Stored::records);
    records.filter(|(offset, _)| *offset >= from).collect()
}

/// Values of everything from `from` to the high watermark.
pub fn read_values(client: &mut Client, topic: &str, partition: i32, from: i64) -> Vec<String> {
    let value = |record: Record| {
        let value = record.value.expect("a value");
        String::from_utf8(value.to_vec()).expect("UTF-8")
    };
    read(client, topic, partition, from).into_iter().map(|(_, record)| value(record)).collect()
}

pub fn list_offset(
    client: &mut Client,
    topic: &str,
    partition: i32,
    timestamp: i64,
) -> ListOffsetsPartitionResponse {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![ListOffsetsPartition {
                partition_index: partition,
                current_leader_epoch: -1,
                timestamp,
                ..ListOffsetsPartition::default()
            }],
            ..ListOffsetsTopic::default()
        }],
        ..ListOffsetsRequest::default()
    };
    let mut response = client.call(7, &request);
    assert_eq!(response.topics.len(), 1, "one topic was asked for");
    assert_eq!(response.topics[0].partitions.len(), 1, "one partition was asked for");
    response.topics.remove(0).partitions.remove(0)
}

pub fn high_watermark(client: &mut Client, topic: &str, partition: i32) -> i64 {
    let found = list_offset(client, topic, partition, LATEST);
    expect_error(found.error_code, ErrorCode::None, "latest offset");
    found.offset
}

pub fn log_start(client: &mut Client, topic: &str, partition: i32) -> i64 {
    let found = list_offset(client, topic, partition, EARLIEST);
    expect_error(found.error_code, ErrorCode::None, "earliest offset");
    found.offset
}

/// A new producer id and its epoch. A broker that has just started may ask to come again.
pub fn init_producer(client: &mut Client) -> (i64, i16) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let request = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 60_000,
            ..InitProducerIdRequest::default()
        };
        let response = client.call(4, &request);
        let code = error(response.error_code);
        if code == ErrorCode::None {
            return (response.producer_id, response.producer_epoch);
        }
        assert!(code.is_retriable() && Instant::now() < deadline, "InitProducerId: {code:?}");
        poll_pause();
    }
}

const TOPIC_RESOURCE: i8 = 2;
const SET_CONFIG: i8 = 0;
const DELETE_CONFIG: i8 = 1;

/// Sets a key of a topic, or removes it.
pub fn set_config(client: &mut Client, topic: &str, key: &str, value: Option<&str>) -> ErrorCode {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: TOPIC_RESOURCE,
            resource_name: topic.into(),
            configs: vec![AlterableConfig {
                name: key.into(),
                config_operation: if value.is_some() { SET_CONFIG } else { DELETE_CONFIG },
                value: value.map(KafkaString::from),
                ..AlterableConfig::default()
            }],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    error(client.call(1, &request).responses[0].error_code)
}
