use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::format::batch_builder::BatchBuilder;
use crate::format::compression::{Codec, CompressionError};

const LIMIT: usize = 1 << 20;

/// The place after a payload that came in pieces of these sizes.
fn walk(header: &BatchHeader, payload: &[u8], mut sizes: impl Iterator<Item = usize>) -> Outcome {
    let mut place = Place::first(header);
    let mut rest = payload;
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(usize::MAX).min(rest.len());
        let (piece, after) = rest.split_at(size);
        place.walk(piece)?;
        rest = after;
    }
    place.end()
}

type Outcome = Result<TimestampMs, BatchError>;

fn batch_of(values: &[Vec<u8>], codec: Codec) -> ProducedBatch {
    let mut builder = BatchBuilder::new(codec);
    for (at, value) in (0..).zip(values) {
        let headers = [("header", Some(&value[..value.len() / 2])), ("", None)];
        let headers = &headers[..value.len() % 3];
        let key = (at % 2 == 0).then_some(&value[..value.len() / 3]);
        builder.push(TimestampMs(1_000_000 + at * 3000 % 7000), key, Some(value), headers);
    }
    builder.build()
}

#[test]
fn the_latest_time_is_that_of_the_records_whatever_the_header_says() {
    let batch = BatchBuilder::new(Codec::Lz4)
        .record(TimestampMs(5), None, None)
        .record(TimestampMs(9), None, None)
        .record(TimestampMs(7), None, None)
        .build();
    assert_eq!(batch.check_records(LIMIT), Ok(TimestampMs(9)));
    let lying = batch.clone().with_max_timestamp(TimestampMs(1 << 40));
    assert_eq!(lying.header.max_timestamp, TimestampMs(1 << 40));
    let lying = ProducedBatch::check(lying.bytes).expect("sealed anew");
    assert_eq!(lying.check_records(LIMIT), Ok(TimestampMs(9)));
    let right = lying.with_max_timestamp(TimestampMs(9));
    assert_eq!(right.bytes, batch.bytes);
    let bytes = Bytes::clone(&right.bytes);
    assert_eq!(right.with_max_timestamp(TimestampMs(9)).bytes.as_ptr(), bytes.as_ptr());
}

#[test]
fn a_record_without_a_key_is_refused_where_keys_are_required() {
    let batch = |codec, keyless: usize| {
        let mut builder = BatchBuilder::new(codec);
        for at in 0..200usize {
            let key = (at != keyless).then_some(&b"k"[..]);
            builder.push(TimestampMs(5), key, Some(&[b'v'; 999]), &[]);
        }
        builder.build()
    };
    for codec in Codec::ALL {
        // The last is never an ordinary one, and pieces cut through some of the others.
        for keyless in [0, 65, 131, 199] {
            let batch = batch(codec, keyless);
            let check = || batch.record_check(LIMIT).unwrap();
            let fault = BatchError::Record { index: keyless as i32, fault: RecordFault::NoKey };
            assert_eq!(check().requires_keys(true).finish(), Err(fault), "{codec}");
            assert_eq!(check().finish(), Ok(TimestampMs(5)), "{codec}");
        }
        let keyed = batch(codec, usize::MAX);
        let check = keyed.record_check(LIMIT).unwrap().requires_keys(true);
        assert_eq!(check.finish(), Ok(TimestampMs(5)), "{codec}");
    }
}

#[test]
fn records_are_mostly_ordinary() {
    let batch = batch_of(&vec![vec![b'v'; 99]; 20_000], Codec::None);
    let mut rest = batch.payload();
    let mut ordinary = 0;
    while let Some(record) = Ordinary::at(rest) {
        rest = &rest[record.bytes..];
        ordinary += 1;
    }
    assert!(ordinary >= 19_990, "{ordinary}");
}

#[test]
fn a_long_batch_is_walked_in_steps() {
    for codec in Codec::ALL.into_iter().skip(1) {
        let batch = batch_of(&vec![vec![b'v'; 1000]; 2000], codec);
        let mut check = batch.record_check(4 << 20).unwrap();
        let (mut steps, mut before) = (0, 0);
        while check.advance(100_000).unwrap().is_none() {
            steps += 1;
            // One piece more than was asked for at the most, and those here are small.
            assert!(check.walked() - before <= 100_000 + (64 << 10), "{codec}");
            before = check.walked();
        }
        assert!(steps >= 10, "{codec}: {steps} steps");
    }
}

#[test]
fn a_bomb_is_refused_at_the_limit_and_takes_no_memory() {
    for codec in Codec::ALL.into_iter().skip(1) {
        let batch = batch_of(&[vec![0; 64 << 20]], codec);
        let expected = BatchError::Compression(CompressionError::TooLarge { codec, limit: LIMIT });
        let error = match batch.record_check(LIMIT) {
            // zstd says at once what it will come to.
            Err(error) => error,
            Ok(mut check) => loop {
                match check.advance(1) {
                    Ok(None) => assert!(check.walked() <= LIMIT + (4 << 20)),
                    Ok(Some(_)) => panic!("{codec}: was walked to its end"),
                    Err(error) => break error,
                }
            },
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn many_empty_blocks_count_as_work() {
    // An LZ4 frame of a hundred thousand stored blocks without a byte in them.
    let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
    for _ in 0..100_000 {
        frame.extend((1u32 << 31).to_le_bytes());
    }
    frame.extend([0; 4]);
    let header = batch_of(&[vec![0]], Codec::Lz4).header;
    let batch = crate::format::record_batch::seal(header, &frame).unwrap();
    let mut check = batch.record_check(LIMIT).unwrap();
    assert_eq!(check.advance(1 << 20), Ok(None));
    assert!(check.walked() >= 1 << 20);
    let cut = BatchError::Record { index: 0, fault: RecordFault::Truncated };
    assert_eq!(batch.check_records(LIMIT), Err(cut));
}

proptest! {
    #[test]
    fn where_pieces_end_makes_no_difference(
        values in vec(vec(any::<u8>(), 0..300), 1..20),
        sizes in vec(1..40usize, 1..20),
    ) {
        let batch = batch_of(&values, Codec::None);
        let whole = batch.check_records(LIMIT);
        prop_assert_eq!(whole.clone(), Ok(batch.header.max_timestamp));
        let pieces = walk(&batch.header, batch.payload(), sizes.into_iter().cycle());
        prop_assert_eq!(pieces, whole);
    }

    #[test]
    fn an_ordinary_record_is_what_the_reader_says(
        values in vec(vec(any::<u8>(), 0..300), 2..6),
        damage in vec((0..20usize, any::<u8>()), 0..3),
    ) {
        let batch = batch_of(&values, Codec::None);
        let mut payload = batch.payload().to_vec();
        for (at, byte) in damage {
            let at = at % payload.len();
            payload[at] = byte;
        }
        if let Some(ordinary) = Ordinary::at(&payload) {
            let mut reader = Reader(&payload);
            let record = reader.record();
            prop_assert!(record.is_ok(), "{:?}", record);
            let record = record.unwrap();
            prop_assert_eq!(ordinary.offset_delta, record.offset_delta);
            prop_assert_eq!(ordinary.timestamp_delta, record.timestamp_delta);
            prop_assert_eq!(ordinary.bytes, payload.len() - reader.0.len());
            prop_assert!(record.headers.is_empty());
        }
    }

    #[test]
    fn damage_is_refused_wherever_pieces_end(
        values in vec(vec(any::<u8>(), 0..20), 1..6),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        sizes in vec(1..20usize, 1..20),
    ) {
        let batch = batch_of(&values, Codec::None);
        let mut payload = batch.payload().to_vec();
        for (at, byte) in damage {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        let whole = walk(&batch.header, &payload, std::iter::empty());
        let pieces = walk(&batch.header, &payload, sizes.into_iter().cycle());
        // Which fault is seen first may differ, whether there is one may not.
        prop_assert_eq!(whole.ok(), pieces.ok());
    }

    #[test]
    fn every_codec_gives_the_same_verdict(
        values in vec(vec(0..3u8, 0..3000), 1..80),
        count in -1..2i32,
    ) {
        for codec in Codec::ALL {
            let mut batch = batch_of(&values, codec);
            let expected = count == 0;
            batch.header.record_count += count;
            prop_assert_eq!(batch.check_records(LIMIT).is_ok(), expected, "{}", codec);
        }
    }
}
