//! Defaults, version gates, null, tagged fields and shared bytes.

use bytes::Bytes;
use chronik_protocol::messages::fetch_request::ReplicaState;
use chronik_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use chronik_protocol::messages::metadata_request::MetadataRequestTopic;
use chronik_protocol::messages::{
    FetchRequest, FetchResponse, FetchSnapshotRequest, MetadataRequest, RequestHeader,
};
use chronik_protocol::{
    AnyRequest, AnyResponse, ApiKey, DecodeErrorKind, EncodeBuf, EncodeError, ErrorCode, Message,
    Records, RequestFrame, SHARE_BYTES_MIN, encode_and_count, encode_response,
};

#[test]
fn defaults_encode_in_every_version_and_decode_to_themselves() {
    for api in ApiKey::ALL.iter().copied() {
        for version in api.valid_versions().iter() {
            let request = AnyRequest::default_of(api);
            let response = AnyResponse::default_of(api);
            let (mut asked, mut answered) = (EncodeBuf::new(), EncodeBuf::new());
            request.encode(&mut asked, version).unwrap();
            response.encode(&mut answered, version).unwrap();
            let mut asked = asked.into_bytes().into();
            let mut answered = answered.into_bytes().into();
            assert_eq!(AnyRequest::decode(&mut asked, api, version), Ok(request));
            assert_eq!(AnyResponse::decode(&mut answered, api, version), Ok(response));
        }
    }
}

#[test]
fn defaults_are_kafkas() {
    let fetch = FetchRequest::default();
    assert_eq!((fetch.replica_id, fetch.max_bytes, fetch.session_epoch), (-1, i32::MAX, -1));
    assert_eq!((fetch.cluster_id, fetch.topics.len()), (None, 0));
    let state = fetch.replica_state;
    assert_eq!((state.replica_id, state.replica_epoch), (-1, -1));
    let metadata = MetadataRequest::default();
    assert_eq!((metadata.topics, metadata.allow_auto_topic_creation), (Some(Vec::new()), true));
    assert_eq!(PartitionData::default().records, None);
}

#[test]
fn field_that_a_version_lacks_is_refused_unless_it_may_be_dropped() {
    let request = FetchRequest { replica_id: 3, ..Default::default() };
    assert!(request.to_bytes(14).is_ok());
    let absent = |field, version| Err(EncodeError::AbsentField { field, version });
    assert_eq!(request.to_bytes(15), absent("FetchRequest.ReplicaId", 15));

    let replica_state = ReplicaState { replica_id: 3, ..Default::default() };
    let request = FetchRequest { replica_state, ..Default::default() };
    assert!(request.to_bytes(15).is_ok());
    assert_eq!(request.to_bytes(14), absent("FetchRequest.ReplicaState", 14));

    // May be dropped: decodes to the default.
    let request = FetchRequest { rack_id: "r".into(), ..Default::default() };
    let old = FetchRequest::decode_exact(request.to_bytes(10).unwrap(), 10).unwrap();
    assert_eq!(old, FetchRequest::default());
}

#[test]
fn version_outside_the_valid_ones_is_refused_both_ways() {
    for version in [-1, 3, 19, i16::MAX] {
        let error = FetchRequest::default().to_bytes(version);
        assert_eq!(
            error,
            Err(EncodeError::UnsupportedVersion { message: "FetchRequest", version })
        );
        let error = FetchRequest::decode_exact(Bytes::from_static(&[0; 64]), version).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::UnsupportedVersion(version));
    }
}

#[test]
fn null_is_refused_in_versions_that_know_none() {
    let request = MetadataRequest { topics: None, ..Default::default() };
    assert!(request.to_bytes(1).is_ok());
    let field = "MetadataRequest.Topics";
    assert_eq!(request.to_bytes(0), Err(EncodeError::NullField { field }));
    let error = MetadataRequest::decode_exact(Bytes::from_static(&[0xff; 4]), 0).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::UnexpectedNull);
}

#[test]
fn strings_are_limited_to_sixteen_bits_even_in_compact_form() {
    let longest = "x".repeat(i16::MAX as usize);
    let topic = |name: &str| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic { name: Some(name.into()), ..Default::default() }]),
        ..Default::default()
    };
    let bytes = topic(&longest).to_bytes(12).unwrap();
    assert_eq!(MetadataRequest::decode_exact(bytes, 12), Ok(topic(&longest)));
    let field = "MetadataRequest.MetadataRequestTopic.Name";
    let error = topic(&(longest + "x")).to_bytes(12);
    assert_eq!(error, Err(EncodeError::TooLong { field, length: 1 << 15 }));
    // 32768 + 1 as a varint, where the name begins.
    let mut bytes = vec![2];
    bytes.extend([0; 16]);
    bytes.extend([0x81, 0x80, 0x02]);
    bytes.extend([b'x'; 1 << 15]);
    bytes.extend([0; 8]);
    let error = MetadataRequest::decode_exact(bytes.into(), 12).unwrap_err();
    assert_eq!(error.kind, DecodeErrorKind::StringTooLong(1 << 15));
}

#[test]
fn unknown_tagged_fields_survive_in_ascending_order() {
    let tag = |n, content: &'static [u8]| (n, Bytes::from_static(content));
    let request = FetchSnapshotRequest {
        cluster_id: Some("c".into()),
        unknown_tagged_fields: vec![tag(1, b"ab"), tag(u32::MAX, b"")],
        ..Default::default()
    };
    let bytes = request.to_bytes(0).unwrap();
    assert_eq!(&bytes[9..], b"\x03\x00\x02\x02c\x01\x02ab\xff\xff\xff\xff\x0f\x00");
    assert_eq!(FetchSnapshotRequest::decode_exact(bytes, 0), Ok(request.clone()));

    for tags in [vec![tag(0, b"x")], vec![tag(3, b""), tag(2, b"")], vec![tag(2, b""); 2]] {
        let bad = FetchSnapshotRequest { unknown_tagged_fields: tags, ..request.clone() };
        let error = bad.to_bytes(0).unwrap_err();
        assert!(matches!(error, EncodeError::TagOrder { .. }), "{error}");
    }
    let request = FetchRequest { unknown_tagged_fields: vec![tag(9, b"")], ..Default::default() };
    assert!(matches!(request.to_bytes(11), Err(EncodeError::AbsentField { .. })));
}

#[test]
fn tagged_fields_in_any_order_are_read_and_ambiguous_ones_refused() {
    let header = |tags: &[u8]| {
        let mut bytes = b"\x00\x03\x00\x0c\x00\x00\x00\x01\xff\xff".to_vec();
        bytes.extend(tags);
        RequestHeader::decode_exact(bytes.into(), 2)
    };
    let read = header(&[2, 9, 1, b'b', 4, 1, b'a']).unwrap().unknown_tagged_fields;
    assert_eq!(read, vec![(4, Bytes::from_static(b"a")), (9, Bytes::from_static(b"b"))]);
    let kind = |tags| header(tags).unwrap_err().kind;
    assert_eq!(kind(&[2, 4, 0, 4, 0]), DecodeErrorKind::DuplicateTag(4));
    assert_eq!(kind(&[1, 4, 9, 0]), DecodeErrorKind::Truncated { needed: 9, left: 1 });
    assert_eq!(kind(&[0xff, 0xff, 0xff, 0xff, 0x1f]), DecodeErrorKind::VarintTooLong);
    // A known field that ends before, or reads past, its announced size.
    let fetch = |tags: &[u8]| {
        let mut bytes = FetchRequest::default().to_bytes(12).unwrap().to_vec();
        bytes.pop();
        bytes.extend(tags);
        FetchRequest::decode_exact(bytes.into(), 12)
    };
    assert_eq!(fetch(&[1, 0, 2, 2, b'c']).unwrap().cluster_id, Some("c".into()));
    let kind = |tags| fetch(tags).unwrap_err().kind;
    assert_eq!(kind(&[1, 0, 3, 2, b'c', 0]), DecodeErrorKind::TaggedFieldSize);
    assert_eq!(kind(&[1, 0, 1, 2, b'c']), DecodeErrorKind::Truncated { needed: 1, left: 0 });
}

#[test]
fn known_tagged_field_longer_than_127_bytes_gets_a_longer_size() {
    for length in [1, 120, 127, 128, 300, 20_000] {
        let cluster_id = Some("x".repeat(length).as_str().into());
        let request = FetchRequest { cluster_id, ..Default::default() };
        let bytes = request.to_bytes(12).unwrap();
        assert_eq!(FetchRequest::decode_exact(bytes, 12), Ok(request), "{length}");
    }
    // Shared chunks behind the size move with the bytes around them.
    let long = Bytes::from(vec![7; SHARE_BYTES_MIN]);
    let request = FetchRequest {
        cluster_id: Some("x".repeat(200).as_str().into()),
        unknown_tagged_fields: vec![(3, long.clone()), (5, Bytes::from_static(b"z")), (6, long)],
        ..Default::default()
    };
    let bytes = request.to_bytes(12).unwrap();
    assert_eq!(FetchRequest::decode_exact(bytes, 12), Ok(request));
}

#[test]
fn errors_that_a_response_tells_are_counted_wherever_they_stand() {
    let partition = |error_code| PartitionData { error_code, ..Default::default() };
    let topic = FetchableTopicResponse {
        partitions: [6, 0, 1, 6].map(partition).to_vec(),
        ..Default::default()
    };
    let response = FetchResponse { error_code: 70, responses: vec![topic], ..Default::default() };
    let counted = |version| {
        let encoded = encode_and_count(1, version, &response).unwrap();
        assert_eq!(encoded.chunks, encode_response(1, version, &response).unwrap());
        encoded.error_codes
    };
    assert_eq!(counted(12), [(70, 1), (6, 2), (1, 1)]);
    assert_eq!(counted(4), [(6, 2), (1, 1)], "a version without a code of its own");
    let fine = FetchResponse::default();
    assert_eq!(encode_and_count(1, 12, &fine).unwrap().error_codes, []);
}

#[test]
fn fetch_response_sends_record_slices_without_copying_them() {
    let cache = Bytes::from(vec![1; 3 * SHARE_BYTES_MIN]);
    let slices =
        [cache.slice(..SHARE_BYTES_MIN), cache.slice(..10), cache.slice(SHARE_BYTES_MIN..)];
    let partition = |records: &[Bytes]| PartitionData {
        records: Some(records.iter().cloned().collect()),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        topic: "t".into(),
        partitions: vec![partition(&slices), partition(&slices[..1])],
        ..Default::default()
    };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    for version in [4, 12] {
        let chunks = encode_response(1, version, &response).unwrap();
        let shared: Vec<*const u8> =
            chunks.iter().filter(|c| c.len() >= SHARE_BYTES_MIN).map(|c| c.as_ptr()).collect();
        let expected = [&slices[0], &slices[2], &slices[0]].map(|s| s.as_ptr());
        assert_eq!(shared, expected);
        // Header, slice, short slice, slice, header, slice; tagged fields if there are any.
        assert_eq!(chunks.len(), if version == 12 { 7 } else { 6 });
        let frame = Bytes::from(chunks.concat());
        // Correlation id, and the tagged fields of a flexible header.
        let body = frame.slice(if version == 12 { 5 } else { 4 }..);
        let read = FetchResponse::decode_exact(body, version).unwrap();
        assert_eq!(read, response);
    }
}

#[test]
fn decoded_bytes_share_the_frame() {
    let records = Some(Records::from(Bytes::from(vec![5; 40])));
    let topic = FetchableTopicResponse {
        topic: "t".into(),
        partitions: vec![PartitionData { records, ..Default::default() }],
        ..Default::default()
    };
    let response = FetchResponse { responses: vec![topic], ..Default::default() };
    let frame = response.to_bytes(4).unwrap();
    let inside = frame.as_ptr_range();
    let read = FetchResponse::decode_exact(frame.clone(), 4).unwrap();
    let records = read.responses[0].partitions[0].records.as_ref().unwrap();
    assert_eq!(records.chunks().len(), 1);
    assert!(inside.contains(&records.chunks()[0].as_ptr()));
    assert!(inside.contains(&read.responses[0].topic.as_bytes().as_ptr()));
}

#[test]
fn frame_of_an_unknown_or_removed_api_is_refused() {
    for key in [-1i16, 4, 5, 6, 7, 999] {
        let mut frame = key.to_be_bytes().to_vec();
        frame.extend([0; 16]);
        let error = RequestFrame::parse(frame.into()).unwrap_err();
        assert_eq!(error.kind, DecodeErrorKind::UnknownApiKey(key));
    }
}

#[test]
fn headers_follow_the_flexible_versions() {
    let versions = |api: ApiKey, version| {
        (api.request_header_version(version), api.response_header_version(version))
    };
    assert_eq!(versions(ApiKey::Produce, 8), (1, 0));
    assert_eq!(versions(ApiKey::Produce, 9), (2, 1));
    assert_eq!(versions(ApiKey::ApiVersions, 2), (1, 0));
    assert_eq!(versions(ApiKey::ApiVersions, 3), (2, 0));
    assert_eq!(versions(ApiKey::SaslHandshake, 1), (1, 0));
    assert_eq!(versions(ApiKey::InitProducerId, 5), (2, 1));
    assert!(!ApiKey::InitProducerId.valid_versions().contains(6), "6 is unstable");
}

#[test]
fn error_codes_fit_into_response_fields() {
    let response = FetchResponse {
        error_code: ErrorCode::FetchSessionIdNotFound.into(),
        ..Default::default()
    };
    let read = FetchResponse::decode_exact(response.to_bytes(12).unwrap(), 12).unwrap();
    assert_eq!(ErrorCode::from_i16(read.error_code), Some(ErrorCode::FetchSessionIdNotFound));
}
