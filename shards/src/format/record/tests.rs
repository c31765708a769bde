use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::format::batch_builder::BatchBuilder;
use crate::format::compression::Codec;
use crate::model::{LeaderEpoch, ProducerEpoch, ProducerId};

const START: i64 = 1_700_000_000_000;
const LIMIT: usize = 1 << 20;

/// Three records with and without key, value and headers, as kafka-python 3.0 writes them.
const PLAIN: &str = "\
    0000000000000000 00000065 00000000 02 3001d9cc 0000 00000002 0000018bcfe56800 0000018bcfe56807 \
    ffffffffffffffff ffff ffffffff 00000003 \
    1a000000046b310a666972737400 \
    38000e02010c7365636f6e64040a74726163650401020a656d70747901 \
    10000604046b330100";

/// `keyN`, three times `the quick brown fox `, a millisecond apart: four records, by kafka-python
/// 3.0 with the compressors of gzip, python-snappy 0.7, lz4 4.4 and zstandard 0.25.
const COMPRESSED: [(Codec, &str); 4] = [
    (
        Codec::Gzip,
        "000000000000000000000081000000000241d9f0020001000000030000018bcfe568000000018bcfe56803ff \
         ffffffffffffffffffffffffff000000041f8b0800953a016b02ffeb61646060e0c84ead34a828c94855282c \
         cd4cce56482aca2fcf5348cbaf5020568ca18791818909648e21c5e6b0b080cc31a2d81c36369039c6949903 \
         00e08f79a620010000",
    ),
    (
        Codec::Snappy,
        "00000000000000000000009000000000028a2a90520002000000030000018bcfe568000000018bcfe56803ff \
         ffffffffffffffffffffffffff0000000482534e415050590000000001000000010000004ba002788c010000 \
         00086b6579307874686520717569636b2062726f776e20666f78209e140014008c0100020201480031ee4800 \
         054804040401480032ee4800054804060601480033f64800",
    ),
    (
        Codec::Lz4,
        "0000000000000000000000940000000002d3a01dbd0003000000030000018bcfe568000000018bcfe56803ff \
         ffffffffffffffffffffffffff0000000404224d1868402001000000000000c74c000000ff108c0100000008 \
         6b6579307874686520717569636b2062726f776e20666f782014001560008c0100020248001f3148002e2004 \
         0448001f3248002e20060648001f3348002650666f78200000000000",
    ),
    (
        Codec::Zstd,
        "00000000000000000000007b00000000027da61d720004000000030000018bcfe568000000018bcfe56803ff \
         ffffffffffffffffffffffffff0000000428b52ffd602000050200c4028c01000000086b6579307874686520 \
         717569636b2062726f776e20666f7820008c010002023104043206063307000322808506c280d50c22966095 \
         5f399d",
    ),
];

fn golden(text: &str) -> ProducedBatch {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    let bytes: Vec<u8> =
        digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect();
    ProducedBatch::check(bytes.into()).unwrap()
}

fn plain() -> BatchBuilder {
    let headers = [("trace", Some(&[1, 2][..])), ("empty", None)];
    BatchBuilder::new(Codec::None)
        .record(TimestampMs(START), Some(b"k1"), Some(b"first"))
        .record_with_headers(TimestampMs(START + 7), None, Some(b"second"), &headers)
        .record(TimestampMs(START + 3), Some(b"k3"), None)
}

fn foxes(codec: Codec) -> BatchBuilder {
    (0..4).fold(BatchBuilder::new(codec), |builder, i| {
        let key = format!("key{i}");
        let value = b"the quick brown fox ".repeat(3);
        builder.record(TimestampMs(START + i), Some(key.as_bytes()), Some(&value))
    })
}

fn stored(builder: &BatchBuilder) -> StoredBatch {
    StoredBatch::place(builder.build(), Offset(100), LeaderEpoch(1))
}

/// A batch with this payload, whatever it is.
fn of_payload(record_count: i32, payload: &[u8]) -> ProducedBatch {
    let mut header = plain().build().header;
    header.record_count = record_count;
    header.last_offset_delta = record_count - 1;
    seal(header, payload).unwrap()
}

fn fault(record_count: i32, payload: &[u8]) -> (i32, RecordFault) {
    match of_payload(record_count, payload).check_records(LIMIT) {
        Err(BatchError::Record { index, fault }) => (index, fault),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_clients_records_are_read_field_by_field() {
    let batch = golden(PLAIN);
    batch.check_records(LIMIT).unwrap();
    let payload = batch.decompressed(LIMIT).unwrap();
    assert!(matches!(payload, Cow::Borrowed(_)));
    let records: Vec<_> = Records::new(&batch.header, &payload).map(Result::unwrap).collect();
    let keys: Vec<_> = records.iter().map(|record| record.key).collect();
    assert_eq!(keys, [Some(&b"k1"[..]), None, Some(b"k3")]);
    let values: Vec<_> = records.iter().map(|record| record.value).collect();
    assert_eq!(values, [Some(&b"first"[..]), Some(b"second"), None]);
    let places: Vec<_> = records
        .iter()
        .map(|record| (record.offset_delta, batch.header.timestamp_of(record).0 - START))
        .collect();
    assert_eq!(places, [(0, 0), (1, 7), (2, 3)]);
    assert!(records[0].headers.is_empty());
    assert_eq!(records[1].headers.len(), 2);
    let headers: Vec<_> = records[1].headers.iter().collect();
    assert_eq!(headers, [(&b"trace"[..], Some(&[1u8, 2][..])), (b"empty", None)]);
}

#[test]
fn built_batches_are_what_a_client_sends() {
    // Clients differ in the leader epoch, which is the broker's to stamp.
    assert_eq!(plain().build().bytes[16..], golden(PLAIN).bytes[16..]);
    let idempotent = plain().idempotent(ProducerId(4242), ProducerEpoch(3), 17).build();
    assert_eq!(idempotent.header.crc, 0xdcc8_91d0);
    let numbers = idempotent.header.idempotence().unwrap();
    assert_eq!((numbers.base_sequence, numbers.last_sequence), (17, 19));
    ProducedBatch::check(idempotent.bytes).unwrap();
}

#[test]
fn batches_of_every_client_codec_are_read() {
    let expected = foxes(Codec::None).build();
    for (codec, text) in COMPRESSED {
        let batch = golden(text);
        assert_eq!(batch.header.codec(), Ok(codec));
        batch.check_records(LIMIT).unwrap();
        assert_eq!(batch.decompressed(LIMIT).unwrap(), expected.payload(), "{codec}");
    }
}

#[test]
fn recompression_keeps_records_and_everything_but_the_codec() {
    let plain = plain().idempotent(ProducerId(1), ProducerEpoch(2), 3).build();
    for codec in Codec::ALL {
        let other = recompress(plain.clone(), codec, LIMIT).unwrap();
        let checked = ProducedBatch::check(other.bytes.clone()).unwrap();
        assert_eq!(checked.header, other.header);
        assert_eq!(checked.header.codec(), Ok(codec));
        assert_eq!(checked.header.idempotence(), plain.header.idempotence());
        assert_eq!(checked.header.max_timestamp, plain.header.max_timestamp);
        let back = recompress(other, Codec::None, LIMIT).unwrap();
        assert_eq!(back.bytes, plain.bytes);
    }
}

#[test]
fn recompression_leaves_a_batch_of_that_codec_alone() {
    for (codec, text) in COMPRESSED {
        let batch = golden(text);
        let same = recompress(batch.clone(), codec, 0).unwrap();
        assert_eq!(same.bytes.as_ptr(), batch.bytes.as_ptr());
    }
}

#[test]
fn recompression_refuses_damage_and_excess() {
    let mut damaged = golden(COMPRESSED[0].1).payload().to_vec();
    damaged.truncate(20);
    let header = golden(COMPRESSED[0].1).header;
    let error = recompress(seal(header, &damaged).unwrap(), Codec::None, LIMIT).unwrap_err();
    assert!(matches!(error, BatchError::Compression(CompressionError::Damaged { .. })), "{error}");
    for (codec, text) in COMPRESSED {
        let expected = CompressionError::TooLarge { codec, limit: 100 };
        let error = recompress(golden(text), Codec::None, 100).unwrap_err();
        assert_eq!(error, BatchError::Compression(expected));
    }
}

#[test]
fn a_time_is_found_at_its_first_record_or_a_later_one() {
    for codec in Codec::ALL {
        let batch = stored(&foxes(codec));
        let find = |ms| find_timestamp(&batch, TimestampMs(START + ms)).unwrap();
        assert_eq!(find(-5), Some((Offset(100), TimestampMs(START))));
        assert_eq!(find(2), Some((Offset(102), TimestampMs(START + 2))));
        assert_eq!(find(3), Some((Offset(103), TimestampMs(START + 3))));
        assert_eq!(find(4), None);
    }
    // Not in order of time: the first record that is late enough, not the nearest.
    let batch = stored(&plain());
    let found = find_timestamp(&batch, TimestampMs(START + 2)).unwrap();
    assert_eq!(found, Some((Offset(101), TimestampMs(START + 7))));
}

#[test]
fn the_latest_record_is_the_first_with_that_time() {
    let latest = max_timestamp_record(&stored(&plain())).unwrap();
    assert_eq!(latest, Some((Offset(101), TimestampMs(START + 7))));
    let same = (0..3).fold(BatchBuilder::new(Codec::Zstd), |builder, _| {
        builder.record(TimestampMs(START), None, Some(b"v"))
    });
    let latest = max_timestamp_record(&stored(&same)).unwrap();
    assert_eq!(latest, Some((Offset(100), TimestampMs(START))));
}

#[test]
fn under_log_append_time_every_record_has_the_brokers_time() {
    let batch = plain().build().with_log_append_time(TimestampMs(5));
    let batch = StoredBatch::place(batch, Offset(100), LeaderEpoch(1));
    let first = Some((Offset(100), TimestampMs(5)));
    assert_eq!(find_timestamp(&batch, TimestampMs(5)).unwrap(), first);
    assert_eq!(find_timestamp(&batch, TimestampMs(6)).unwrap(), None);
    assert_eq!(max_timestamp_record(&batch).unwrap(), first);
}

#[test]
fn holes_are_a_logs_but_not_a_producers() {
    let payload = [&[12, 0, 0, 0, 1, 1, 0], &[12, 0, 0, 4, 1, 1, 0][..]].concat();
    let mut header = of_payload(2, &payload).header;
    header.last_offset_delta = 3;
    let batch = seal(header, &payload).unwrap();
    let expected = BatchError::Record { index: 1, fault: RecordFault::OffsetDelta };
    assert_eq!(batch.check_records(LIMIT), Err(expected));
    let deltas: Vec<_> = Records::new(&header, &payload).map(|r| r.unwrap().offset_delta).collect();
    assert_eq!(deltas, [0, 2]);
}

#[test]
fn what_a_header_is_named_is_not_looked_at() {
    of_payload(1, &[18, 0, 0, 0, 1, 1, 2, 2, 0xff, 1]).check_records(LIMIT).unwrap();
}

#[test]
fn each_fault_of_a_record_is_named() {
    use RecordFault::*;
    assert_eq!(fault(1, &[]), (0, Truncated));
    assert_eq!(fault(1, &[12, 0, 0, 0, 1, 1]), (0, Truncated));
    assert_eq!(fault(1, &[10, 0, 0, 0, 1, 1, 0]), (0, Truncated));
    assert_eq!(fault(1, &[14, 0, 0, 0, 1, 1, 0, 9]), (0, Padding));
    assert_eq!(fault(1, &[12, 0, 0, 0, 1, 1, 0, 9]), (0, Trailing));
    assert_eq!(fault(1, &[1, 0]), (0, Length));
    assert_eq!(fault(1, &[12, 0, 0, 0, 3, 1, 0]), (0, Length));
    assert_eq!(fault(1, &[12, 0, 0, 0, 1, 3, 0]), (0, Length));
    assert_eq!(fault(1, &[12, 0, 0, 0, 1, 1, 1]), (0, Length));
    assert_eq!(fault(1, &[12, 0, 0, 0, 1, 1, 2]), (0, Truncated));
    assert_eq!(fault(1, &[16, 0, 0, 0, 1, 1, 2, 1, 1]), (0, Length));
    assert_eq!(fault(1, &[12, 0, 0, 2, 1, 1, 0]), (0, OffsetDelta));
    assert_eq!(fault(1, &[12, 0, 0, 1, 1, 1, 0]), (0, OffsetDelta));
    assert_eq!(fault(2, &[12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 0, 1, 1, 0]), (1, OffsetDelta));
    assert_eq!(fault(2, &[12, 0, 0, 0, 1, 1, 0]), (1, Truncated));
    // A length of 2^32, and one of eleven bytes.
    assert_eq!(fault(1, &[0x80, 0x80, 0x80, 0x80, 0x20, 0]), (0, Number));
    assert_eq!(fault(1, &[0xff; 11]), (0, Number));
    assert_eq!(fault(1, &[0x8c, 0x80, 0x80, 0x80, 0x80, 0, 0, 0, 0, 1, 1, 0]), (0, Number));
    assert_eq!(fault(1, &[0x80; 3]), (0, Truncated));
    // Two billion headers in no bytes.
    assert_eq!(fault(1, &[20, 0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f]), (0, Truncated));
}

type Fields = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn any_records() -> impl Strategy<Value = Vec<Fields>> {
    let bytes = || proptest::option::of(vec(any::<u8>(), 0..80));
    let headers = vec(("[a-zé]{0,4}", bytes()), 0..3);
    vec((-2i64..i64::MAX / 2, bytes(), bytes(), headers), 1..20)
}

fn text(key: &[u8]) -> String {
    String::from_utf8(key.to_vec()).unwrap()
}

fn build(codec: Codec, records: &[Fields]) -> BatchBuilder {
    records.iter().fold(BatchBuilder::new(codec), |builder, (timestamp, key, value, headers)| {
        let headers: Vec<_> = headers.iter().map(|(k, v)| (k.as_str(), v.as_deref())).collect();
        let timestamp = TimestampMs(*timestamp);
        builder.record_with_headers(timestamp, key.as_deref(), value.as_deref(), &headers)
    })
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(records in any_records(), codec in 0..5i16) {
        let batch = build(Codec::from_id(codec).unwrap(), &records).build();
        let batch = ProducedBatch::check(batch.bytes).unwrap();
        prop_assert_eq!(batch.check_records(LIMIT), Ok(batch.header.max_timestamp));
        let payload = batch.decompressed(LIMIT).unwrap();
        let read: Vec<Fields> = Records::new(&batch.header, &payload)
            .map(|record| {
                let record = record.unwrap();
                let headers = record.headers.iter();
                (
                    batch.header.timestamp_of(&record).0,
                    record.key.map(<[u8]>::to_vec),
                    record.value.map(<[u8]>::to_vec),
                    headers.map(|(k, v)| (text(k), v.map(<[u8]>::to_vec))).collect(),
                )
            })
            .collect();
        prop_assert_eq!(read, records);
    }

    #[test]
    fn every_cut_through_records_is_seen(records in any_records(), at in any::<prop::sample::Index>()) {
        let whole = build(Codec::None, &records).build();
        let cut = at.index(whole.payload().len());
        let batch = of_payload(records.len() as i32, &whole.payload()[..cut]);
        prop_assert!(batch.check_records(LIMIT).is_err());
    }

    #[test]
    fn a_search_agrees_with_a_walk(records in any_records(), target in any::<prop::sample::Index>()) {
        let target = TimestampMs(target.get(&records).0);
        let batch = stored(&build(Codec::None, &records));
        let (index, found) = (100i64..)
            .zip(&records)
            .map(|(index, record)| (Offset(index), TimestampMs(record.0)))
            .find(|(_, timestamp)| *timestamp >= target)
            .unwrap();
        prop_assert_eq!(find_timestamp(&batch, target), Ok(Some((index, found))));
        let latest = records.iter().map(|record| record.0).max().unwrap();
        let first = records.iter().position(|record| record.0 == latest).unwrap() as i64;
        let expected = Some((Offset(100 + first), TimestampMs(latest)));
        prop_assert_eq!(max_timestamp_record(&batch), Ok(expected));
    }

    #[test]
    fn random_payloads_never_panic(
        count in 1..50i32,
        codec in 0..5i16,
        payload in vec(prop_oneof![0..4u8, any::<u8>()], 0..200),
    ) {
        let header = of_payload(count, b"").header.with_codec(Codec::from_id(codec).unwrap());
        let sealed = seal(header, &payload).unwrap();
        let _ = sealed.check_records(LIMIT);
        let batch = StoredBatch::from_log(Bytes::clone(&sealed.bytes)).unwrap();
        let _ = find_timestamp(&batch, TimestampMs(START));
        let _ = max_timestamp_record(&batch);
        if let Ok(other) = recompress(sealed, Codec::None, LIMIT) {
            prop_assert_eq!(other.header.record_count, count);
        }
    }
}
