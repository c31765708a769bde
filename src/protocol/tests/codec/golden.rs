//! Bytes of well-known messages, as Kafka 4.4's own client writes them.

use std::fmt::Debug;

use bytes::Bytes;
use chronik_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use chronik_protocol::messages::fetch_response::{
    FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use chronik_protocol::messages::metadata_request::MetadataRequestTopic;
use chronik_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use chronik_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, MetadataRequest,
    ProduceRequest, RequestHeader,
};
use chronik_protocol::{
    ApiKey, ErrorCode, Message, Records, RequestFrame, Uuid, encode_request, encode_response,
};

/// Bytes from hexadecimal digits; blanks separate the fields.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn check<M: Message + Debug>(message: &M, version: i16, golden: &str) {
    let golden = hex(golden);
    assert_eq!(message.to_bytes(version).unwrap(), golden, "encoded");
    assert_eq!(M::decode_exact(golden.clone().into(), version).as_ref(), Ok(message), "decoded");
    assert_eq!(message.encoded_size(version), Ok(golden.len()), "size");
}

fn uuid(high: u64, low: u64) -> Uuid {
    Uuid((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
}

#[test]
fn api_versions_request_v3_with_its_header() {
    let header = RequestHeader {
        request_api_key: 18,
        request_api_version: 3,
        correlation_id: 7,
        client_id: Some("app".into()),
        ..Default::default()
    };
    // The client id keeps its 16-bit length in the flexible header.
    check(&header, 2, "0012 0003 00000007 0003617070 00");
    let body = ApiVersionsRequest {
        client_software_name: "kafka".into(),
        client_software_version: "4.4.0".into(),
        ..Default::default()
    };
    check(&body, 3, "066b61666b61 06342e342e30 00");

    let frame = encode_request(header.clone(), 3, &body).unwrap().concat();
    let expected = "0000001b 0012 0003 00000007 0003617070 00 066b61666b61 06342e342e30 00";
    assert_eq!(frame, hex(expected));
    let parsed = RequestFrame::parse(Bytes::from(frame).slice(4..)).unwrap();
    assert_eq!((parsed.api, &parsed.header), (ApiKey::ApiVersions, &header));
    assert_eq!(parsed.decode::<ApiVersionsRequest>(), Ok(body));
}

#[test]
fn api_versions_answer_to_an_unknown_version_has_the_oldest_header() {
    let frame = hex("0012 0063 00000007 0003617070 00 2a2a2a");
    let parsed = RequestFrame::parse(frame.into()).unwrap();
    assert_eq!((parsed.version(), parsed.header.correlation_id), (99, 7));
    assert!(!parsed.api.valid_versions().contains(parsed.version()));

    let code = ErrorCode::UnsupportedVersion.code();
    let answer = ApiVersionsResponse { error_code: code, ..Default::default() };
    let chunks = encode_response(7, 0, &answer).unwrap();
    assert_eq!(chunks.concat(), hex("00000007 0023 00000000"));
    // The header stays without tagged fields where the body has some.
    let flexible = encode_response(7, 3, &ApiVersionsResponse::default()).unwrap();
    assert_eq!(flexible.concat(), hex("00000007 0000 01 00000000 00"));
}

#[test]
fn metadata_request_v12() {
    let by_name = MetadataRequestTopic {
        topic_id: uuid(1, 2),
        name: Some("orders".into()),
        ..Default::default()
    };
    let by_id = MetadataRequestTopic { topic_id: uuid(3, 4), name: None, ..Default::default() };
    let request = MetadataRequest {
        topics: Some(vec![by_name, by_id]),
        allow_auto_topic_creation: false,
        ..Default::default()
    };
    let golden = "03
        0000000000000001 0000000000000002 076f7264657273 00
        0000000000000003 0000000000000004 00 00
        00 00 00";
    check(&request, 12, golden);
}

#[test]
fn produce_request_v9() {
    let with_records = PartitionProduceData {
        index: 5,
        records: Some(Records::from(Bytes::from_static(&[1, 2, 3]))),
        ..Default::default()
    };
    let without = PartitionProduceData { index: 6, records: None, ..Default::default() };
    let topic = TopicProduceData {
        name: "t".into(),
        partition_data: vec![with_records, without],
        ..Default::default()
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![topic],
        ..Default::default()
    };
    let golden = "00 ffff 00007530
        02 0274 03
            00000005 04010203 00
            00000006 00 00
        00 00";
    check(&request, 9, golden);
}

#[test]
fn fetch_request_v12() {
    let partition = FetchPartition {
        partition: 3,
        current_leader_epoch: 4,
        fetch_offset: 100,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let forgotten =
        ForgottenTopic { topic: "u".into(), partitions: vec![1, 2], ..Default::default() };
    let request = FetchRequest {
        cluster_id: Some("c".into()),
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        isolation_level: 1,
        session_id: 9,
        session_epoch: 2,
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![partition],
            ..Default::default()
        }],
        forgotten_topics_data: vec![forgotten],
        rack_id: "r".into(),
        ..Default::default()
    };
    let golden = "ffffffff 000001f4 00000001 03200000 01 00000009 00000002
        02 0274 02
            00000003 00000004 0000000000000064 ffffffff ffffffffffffffff 00100000 00
        00
        02 0275 03 00000001 00000002 00
        0272
        01 00 02 0263";
    check(&request, 12, golden);
}

#[test]
fn fetch_response_v12_with_records_in_chunks() {
    let partition = PartitionData {
        partition_index: 3,
        high_watermark: 100,
        last_stable_offset: 99,
        log_start_offset: 0,
        aborted_transactions: None,
        current_leader: LeaderIdAndEpoch { leader_id: 2, leader_epoch: 6, ..Default::default() },
        records: Some([&[1, 2][..], &[3]].into_iter().map(Bytes::from_static).collect()),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        topic: "t".into(),
        partitions: vec![partition],
        ..Default::default()
    };
    let response = FetchResponse { session_id: 9, responses: vec![topic], ..Default::default() };
    let golden = "00000000 0000 00000009
        02 0274 02
            00000003 0000 0000000000000064 0000000000000063 0000000000000000 00 ffffffff
            04010203
            01 01 09 00000002 00000006 00
        00
        00";
    check(&response, 12, golden);
}
