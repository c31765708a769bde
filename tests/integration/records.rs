//! The records inside a batch: what does not parse, or is not where it must be, enters no log.

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::produce_response::ProduceResponse;
use chronik_shards::format::compression::{Codec, compress};

use crate::support::batch::{Batch, HEADER_BYTES, Record, now_ms, seal};
use crate::support::client::Client;
use crate::support::requests::{
    PRODUCE_BY_NAME, batches, create_topic, create_topic_with, expect_error, fetch, high_watermark,
    list_offset, produce, produce_bytes, produce_request, read_values,
};
use crate::support::server::{Options, Server};
use crate::support::unique;

const MIB: usize = 1 << 20;

/// Batches that take long, and their records of two megabytes.
const LONG_BATCHES: usize = 3;
const LONG_RECORDS: usize = 12;

/// `value` as a record of one byte each for its lengths: attributes, two deltas, no key, no headers.
fn record(offset_delta: u8, value: &[u8]) -> Vec<u8> {
    let body = [&[0, 0, offset_delta << 1, 1, (value.len() as u8) << 1][..], value, &[0]].concat();
    [&[(body.len() as u8) << 1][..], &body].concat()
}

/// A sealed batch with this payload, compressed or not, that claims `count` records.
fn batch_of(count: i32, codec: Codec, payload: &[u8]) -> Vec<u8> {
    sealed(count, codec, &compress(codec, payload))
}

/// As [`batch_of`], for what is compressed already.
fn sealed(count: i32, codec: Codec, body: &[u8]) -> Vec<u8> {
    let mut batch = Batch::of(["x"]).encode_vec();
    batch.truncate(HEADER_BYTES);
    batch.extend(body);
    batch[21..23].copy_from_slice(&codec.id().to_be_bytes());
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    seal(&mut batch);
    batch
}

/// Payloads that are no records, with the count that goes with them.
fn malformed() -> Vec<(&'static str, i32, Vec<u8>)> {
    let one = record(0, b"x");
    let two = [record(0, b"x"), record(1, b"y")].concat();
    let with = |at: usize, byte: u8| {
        let mut changed = one.clone();
        changed[at] = byte;
        changed
    };
    vec![
        ("one more than counted", 1, two.clone()),
        ("one less than counted", 3, two.clone()),
        ("cut short", 2, two[..two.len() - 1].to_vec()),
        ("bytes behind the last", 2, [&two[..], &[0]].concat()),
        ("offset deltas from 1", 1, record(1, b"x")),
        ("the same offset delta twice", 2, [&one[..], &one].concat()),
        ("a hole between offset deltas", 2, [record(0, b"x"), record(2, b"y")].concat()),
        ("a length that does not end", 1, vec![0xff; 16]),
        ("zeroes", 1, vec![0; 16]),
        ("a negative length", 1, with(0, 1)),
        ("a length that is too short", 1, with(0, 12)),
        ("a length that is too long", 1, with(0, 16)),
        ("a key length of -2", 1, with(4, 3)),
        ("a value that is longer than its record", 1, with(5, 100)),
        ("a header that is not there", 1, with(7, 2)),
        ("a negative number of headers", 1, with(7, 1)),
    ]
}

fn expect_refused(client: &mut Client, topic: &str, batch: Vec<u8>, code: ErrorCode, why: &str) {
    let response = produce_bytes(client, topic, 0, -1, batch);
    expect_error(response.error_code, code, why);
    assert_eq!(response.base_offset, -1, "{why}");
    assert!(response.error_message.is_some_and(|message| !message.is_empty()), "{why}");
}

#[test]
fn records_that_are_none_are_refused_in_every_codec_and_the_connection_goes_on() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("malformed");
    create_topic(&mut client, &topic, 1);
    for codec in Codec::ALL {
        for (what, count, payload) in malformed() {
            let why = format!("{codec}: {what}");
            let batch = batch_of(count, codec, &payload);
            expect_refused(&mut client, &topic, batch, ErrorCode::InvalidRecord, &why);
        }
    }
    assert_eq!(high_watermark(&mut client, &topic, 0), 0);
    assert_eq!(produce(&mut client, &topic, 0, &Batch::of(["good"])), 0);
    assert_eq!(read_values(&mut client, &topic, 0, 0), ["good"]);
}

#[test]
fn a_body_that_does_not_decompress_is_an_invalid_record() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("garbage");
    create_topic(&mut client, &topic, 1);
    for codec in Codec::ALL.into_iter().skip(1) {
        let good = compress(codec, &record(0, b"x"));
        let bodies = [
            ("not compressed", record(0, b"x")),
            ("cut short", good[..good.len() - 3].to_vec()),
            ("only begun", good[..3].to_vec()),
            ("nothing", Vec::new()),
        ];
        for (what, body) in bodies {
            let why = format!("{codec}: {what}");
            let batch = sealed(1, codec, &body);
            expect_refused(&mut client, &topic, batch, ErrorCode::InvalidRecord, &why);
        }
        let base = produce_bytes(&mut client, &topic, 0, -1, sealed(1, codec, &good)).base_offset;
        assert_eq!(base, i64::from(codec.id()) - 1, "{codec}");
    }
}

#[test]
fn other_partitions_of_the_request_are_accepted() {
    let server = Server::start_with(Options::shards(2));
    let mut client = server.client();
    let topic = unique("mixed");
    create_topic(&mut client, &topic, 6);
    let mut request = produce_request(&topic, 0, -1, Batch::of(["0"]).encode());
    for partition in 1..6 {
        let records = match partition % 3 {
            1 => batch_of(1, Codec::Gzip, &[0; 16]).into(),
            2 => batch_of(1, Codec::Lz4, &record(0, &[b'0' + partition as u8])).into(),
            _ => Batch::of([partition.to_string()]).encode(),
        };
        let one = produce_request(&topic, partition, -1, records);
        request.topic_data[0].partition_data.extend(one.topic_data[0].partition_data.clone());
    }
    let response = client.call(PRODUCE_BY_NAME, &request);
    for answer in &response.responses[0].partition_responses {
        let (code, end) = match answer.index % 3 {
            1 => (ErrorCode::InvalidRecord, 0),
            _ => (ErrorCode::None, 1),
        };
        expect_error(answer.error_code, code, &format!("partition {}", answer.index));
        assert_eq!(high_watermark(&mut client, &topic, answer.index), end);
    }
}

#[test]
fn a_header_name_may_be_any_bytes() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("header");
    create_topic(&mut client, &topic, 1);
    // One header: a key of the byte 0xff, no value.
    let mut payload = record(0, b"x");
    payload.truncate(payload.len() - 1);
    payload.extend([2, 2, 0xff, 1]);
    payload[0] = (payload.len() as u8 - 1) << 1;
    let response = produce_bytes(&mut client, &topic, 0, -1, batch_of(1, Codec::None, &payload));
    expect_error(response.error_code, ErrorCode::None, "a name that is not UTF-8");
}

#[test]
fn a_batch_that_expands_beyond_bounds_is_too_large_and_takes_no_memory() {
    let mut server = Server::start();
    let mut client = server.client();
    let topic = unique("bomb");
    create_topic(&mut client, &topic, 1);
    // The beginning of a record of two gigabytes, nearly all of which is its value.
    let head = [0xfe, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 1, 0xe0, 0xff, 0xff, 0xff, 0x0f];
    let gzip = compress(Codec::Gzip, &[&head[..], &vec![0; 128 * MIB]].concat());
    // A block of zstd that repeats one byte 128 KiB long takes four bytes: these come to 30 GiB.
    let mut zstd = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0x58];
    zstd.extend([(head.len() as u8) << 3, 0, 0]);
    zstd.extend(head);
    for _ in 0..250_000 {
        zstd.extend([0x02, 0x00, 0x10, 0]);
    }
    let before = server.resident_bytes();
    for (codec, body) in [(Codec::Gzip, gzip), (Codec::Zstd, zstd)] {
        let batch = sealed(1, codec, &body);
        assert!(batch.len() < MIB, "{codec}: the batch itself is within bounds");
        let why = format!("{codec}: more than its bounds");
        expect_refused(&mut client, &topic, batch, ErrorCode::MessageTooLarge, &why);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 32 * MIB as u64, "grew by {grown} bytes");
    server.assert_alive();
    assert_eq!(produce(&mut client, &topic, 0, &Batch::of(["good"])), 0);
}

#[test]
fn others_are_served_while_a_long_batch_is_looked_into() {
    let server = Server::start_with(Options::shards(1));
    let mut client = server.client();
    let (long, short) = (unique("long"), unique("short"));
    create_topic_with(&mut client, &long, 1, &[("max.message.bytes", "8000000")]);
    create_topic(&mut client, &short, 1);
    // Two letters by chance: they compress well enough and take long to decompress.
    let mut random = crate::support::random::Random::new(5);
    let letters: Vec<u8> = (0..2 * MIB).map(|_| b'a' + random.below(2) as u8).collect();
    let plain = Batch::of(vec![letters; LONG_RECORDS]).encode_vec();
    let body = compress(Codec::Gzip, &plain[HEADER_BYTES..]);
    let batch = sealed(LONG_RECORDS as i32, Codec::Gzip, &body);
    let mut busy: Vec<Client> = (0..LONG_BATCHES).map(|_| server.client()).collect();
    for client in &mut busy {
        client.send(PRODUCE_BY_NAME, &produce_request(&long, 0, -1, batch.clone()));
    }
    // Answers to others come in between, not after.
    let end = (LONG_BATCHES * LONG_RECORDS) as i64;
    let mut before = 0;
    while high_watermark(&mut client, &long, 0) < end {
        assert_eq!(high_watermark(&mut client, &short, 0), 0);
        before += 1;
    }
    assert!(before > 2 * LONG_BATCHES, "{before} requests were served meanwhile");
    for client in &mut busy {
        let response = client.receive::<ProduceResponse>();
        let answer = &response.responses[0].partition_responses[0];
        expect_error(answer.error_code, ErrorCode::None, "a long batch");
    }
}

#[test]
fn the_largest_timestamp_is_that_of_the_records_whatever_the_producer_wrote() {
    let server = Server::start();
    let mut client = server.client();
    let topic = unique("latest");
    create_topic(&mut client, &topic, 1);
    let now = now_ms();
    let records =
        vec![Record::of("a").at(now - 10), Record::of("b").at(now), Record::of("c").at(now - 5)];
    let good = Batch::of_records(records).encode_vec();
    for claimed in [now + 1000, now - 9, -1] {
        let mut lying = good.clone();
        lying[35..43].copy_from_slice(&claimed.to_be_bytes());
        seal(&mut lying);
        let response = produce_bytes(&mut client, &topic, 0, -1, lying);
        expect_error(response.error_code, ErrorCode::None, "a wrong largest timestamp");
    }
    let stored = batches(&fetch(&mut client, &topic, 0, 0));
    assert_eq!(stored.iter().map(|batch| batch.max_timestamp).collect::<Vec<_>>(), [now; 3]);
    assert!(stored[0].is_as_sent(&good), "nothing else is changed");
    // A look-up by time finds the record by its own time.
    let found = list_offset(&mut client, &topic, 0, now);
    assert_eq!((found.offset, found.timestamp), (1, now));
}

#[test]
fn a_small_batch_does_not_keep_the_large_frame_that_it_came_in() {
    let mut server = Server::start();
    let mut client = server.client();
    let topic = unique("frame");
    create_topic(&mut client, &topic, 1);
    let before = server.resident_bytes();
    for _ in 0..40 {
        let mut request = produce_request(&topic, 0, -1, Batch::of(["x"]).encode());
        let refused = produce_request(&topic, 7, -1, vec![1; 4 * MIB]);
        request.topic_data[0].partition_data.extend(refused.topic_data[0].partition_data.clone());
        let response = client.call(PRODUCE_BY_NAME, &request);
        let codes = response.responses[0].partition_responses.iter().map(|one| one.error_code);
        let expected = [ErrorCode::None, ErrorCode::UnknownTopicOrPartition].map(ErrorCode::code);
        assert_eq!(codes.collect::<Vec<_>>(), expected);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB as u64, "forty small batches hold {grown} bytes");
    server.assert_alive();
}
