use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Three records from an idempotent producer, as kafka-python 3.0 writes them.
const IDEMPOTENT: &str = "\
    0000000000000000 00000065 00000000 02 dcc891d0 0000 00000002 0000018bcfe56800 0000018bcfe56807 \
    0000000000001092 0003 00000011 00000003 \
    1a000000046b310a666972737400 \
    38000e02010c7365636f6e64040a74726163650401020a656d70747901 \
    10000604046b330100";

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap() as u8;
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn golden() -> Bytes {
    Bytes::from(hex(IDEMPOTENT))
}

/// The golden batch with other bytes at a place and a CRC that matches them.
fn altered(at: usize, bytes: &[u8]) -> Bytes {
    let mut batch = golden().to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

fn refusal(bytes: impl Into<Bytes>) -> BatchError {
    ProducedBatch::check(bytes.into()).unwrap_err()
}

#[test]
fn a_clients_batch_is_read_field_by_field() {
    let batch = ProducedBatch::check(golden()).unwrap();
    let expected = BatchHeader {
        base_offset: Offset(0),
        total_bytes: 113,
        leader_epoch: LeaderEpoch(0),
        crc: 0xdcc8_91d0,
        attributes: 0,
        last_offset_delta: 2,
        base_timestamp: TimestampMs(1_700_000_000_000),
        max_timestamp: TimestampMs(1_700_000_000_007),
        producer_id: ProducerId(4242),
        producer_epoch: ProducerEpoch(3),
        base_sequence: 17,
        record_count: 3,
    };
    assert_eq!(batch.header, expected);
    assert_eq!(batch.header.encode(), golden()[..HEADER_BYTES]);
    assert_eq!(batch.header.codec(), Ok(Codec::None));
    assert!(!batch.header.is_transactional());
    assert!(!batch.header.is_control());
    assert!(!batch.header.is_log_append_time());
    let idempotence = Idempotence {
        producer_id: ProducerId(4242),
        producer_epoch: ProducerEpoch(3),
        base_sequence: 17,
        last_sequence: 19,
    };
    assert_eq!(batch.header.idempotence(), Some(idempotence));
}

#[test]
fn sequence_numbers_wrap_to_zero() {
    let batch = ProducedBatch::check(altered(53, &(i32::MAX - 1).to_be_bytes())).unwrap();
    assert_eq!(batch.header.idempotence().unwrap().last_sequence, 0);
    let batch = ProducedBatch::check(altered(53, &(i32::MAX - 2).to_be_bytes())).unwrap();
    assert_eq!(batch.header.idempotence().unwrap().last_sequence, i32::MAX);
}

#[test]
fn stamping_changes_offset_and_epoch_and_nothing_else() {
    let batch = ProducedBatch::check(golden()).unwrap();
    let stored = StoredBatch::place(batch, Offset(0x0102_0304_0506), LeaderEpoch(7));
    assert_eq!(stored.end_offset(), Offset(0x0102_0304_0509));
    assert_eq!(stored.header.last_offset(), Offset(0x0102_0304_0508));
    assert_eq!(stored.total_bytes(), 113);
    assert_eq!(stored.stamp().to_vec(), hex("0000010203040506 00000065 00000007"));
    assert_eq!(stored.tail(), &golden()[STAMPED_BYTES..]);
    assert_eq!(stored.tail_bytes(), stored.tail());
    assert_eq!(stored.tail_bytes().as_ptr(), stored.bytes[STAMPED_BYTES..].as_ptr());

    let read = StoredBatch::from_log(stored.to_log()).unwrap();
    assert_eq!(read.header, stored.header);
}

#[test]
#[should_panic(expected = "a batch of 3 offsets")]
fn a_batch_is_never_placed_beyond_the_last_offset() {
    let batch = ProducedBatch::check(golden()).unwrap();
    let _ = StoredBatch::place(batch, Offset(i64::MAX - 2), LeaderEpoch(0));
}

#[test]
fn log_append_time_marks_the_batch_and_keeps_the_records() {
    let batch = ProducedBatch::check(golden()).unwrap().with_log_append_time(TimestampMs(99));
    assert!(batch.header.is_log_append_time());
    assert_eq!(batch.header.max_timestamp, TimestampMs(99));
    assert_eq!(batch.payload(), &golden()[HEADER_BYTES..]);
    let read = StoredBatch::from_log(batch.bytes.clone()).unwrap();
    assert_eq!(read.header, batch.header);
    assert_eq!(refusal(batch.bytes), BatchError::TimestampType);
}

#[test]
fn other_message_formats_are_named_whatever_their_size() {
    for magic in [-1, 0, 1, 3] {
        assert_eq!(refusal(altered(16, &[magic as u8])), BatchError::Magic { found: magic });
    }
    // A magic-1 message of 34 bytes: shorter than a header of magic 2.
    let message =
        hex("0000000000000000 00000016 11223344 01 00 0000018bcfe56800 ffffffff ffffffff");
    assert_eq!(refusal(message), BatchError::Magic { found: 1 });
}

#[test]
fn every_shorter_piece_is_truncated() {
    let whole = golden();
    assert_eq!(refusal(Bytes::new()), BatchError::NoBatch);
    for length in 1..whole.len() {
        let needed = if length < HEADER_BYTES { HEADER_BYTES } else { whole.len() };
        let expected = BatchError::Truncated { found: length, needed };
        assert_eq!(refusal(whole.slice(..length)), expected);
    }
}

#[test]
fn every_flipped_bit_under_the_crc_is_seen() {
    let whole = golden().to_vec();
    for bit in CRC_AT * 8..whole.len() * 8 {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let produced = refusal(damaged.clone());
        // The offsets are parsed before the CRC is computed; both are damage in a log.
        let seen = matches!(produced, BatchError::Crc { .. } | BatchError::Offsets { .. });
        assert!(seen, "bit {bit}: {produced:?}");
        assert_eq!(StoredBatch::from_log(damaged.into()).unwrap_err(), produced);
    }
}

#[test]
fn exactly_one_batch_is_accepted() {
    let one = golden();
    let two = [&one[..], &one[..]].concat();
    assert_eq!(refusal(two.clone()), BatchError::MoreThanOneBatch { bytes: 113 });
    assert_eq!(refusal(two[..114].to_vec()), BatchError::TrailingBytes { bytes: 1 });
    let zeroes = [&one[..], &[0; 100]].concat();
    assert_eq!(refusal(zeroes), BatchError::TrailingBytes { bytes: 100 });
}

#[test]
fn a_length_below_a_header_is_refused() {
    for length in [i32::MIN, -1, 0, 48] {
        assert_eq!(refusal(altered(8, &length.to_be_bytes())), BatchError::Length { length });
    }
    let needed = i32::MAX as usize + 12;
    let expected = BatchError::Truncated { found: 113, needed };
    assert_eq!(refusal(altered(8, &i32::MAX.to_be_bytes())), expected);
}

#[test]
fn count_must_agree_with_offsets_and_with_size() {
    let count = |record_count, last_offset_delta| BatchError::Count {
        record_count,
        last_offset_delta,
        record_bytes: 52,
    };
    for record_count in [i32::MIN, -1, 0, 2, 4, i32::MAX] {
        let bytes = altered(57, &record_count.to_be_bytes());
        assert_eq!(refusal(bytes.clone()), count(record_count, 2));
        // After compaction a log may hold it.
        StoredBatch::from_log(bytes).unwrap();
    }
    // Eight records do not fit 52 bytes, even where the offsets agree.
    let mut batch = altered(57, &8i32.to_be_bytes()).to_vec();
    batch[23..27].copy_from_slice(&7i32.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CRC_FROM..]);
    batch[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(refusal(batch), count(8, 7));
}

#[test]
fn offsets_that_cannot_be_are_refused() {
    for (base_offset, at, bytes) in [
        (-1i64, 0, (-1i64).to_be_bytes().to_vec()),
        (i64::MAX - 2, 0, (i64::MAX - 2).to_be_bytes().to_vec()),
    ] {
        let expected = BatchError::Offsets { base_offset, last_offset_delta: 2 };
        assert_eq!(refusal(altered(at, &bytes)), expected);
    }
    let expected = BatchError::Offsets { base_offset: 0, last_offset_delta: -1 };
    assert_eq!(refusal(altered(23, &(-1i32).to_be_bytes())), expected);
}

#[test]
fn attributes_with_no_meaning_from_a_producer_are_refused() {
    let attributes = |bits: i16| altered(21, &bits.to_be_bytes());
    for id in 5..8 {
        assert_eq!(refusal(attributes(id)), BatchError::Codec { id });
    }
    assert_eq!(refusal(attributes(8)), BatchError::TimestampType);
    for bit in 6..16 {
        let bits = (1u16 << bit) as i16;
        assert_eq!(refusal(attributes(bits)), BatchError::Attributes { attributes: bits });
    }
    assert!(ProducedBatch::check(attributes(0x10)).unwrap().header.is_transactional());
    assert!(ProducedBatch::check(attributes(0x20)).unwrap().header.is_control());
    for codec in Codec::ALL {
        let batch = ProducedBatch::check(attributes(codec.id())).unwrap();
        assert_eq!(batch.header.codec(), Ok(codec));
    }
}

#[test]
fn a_producer_sends_all_of_its_numbers_or_none() {
    let none = altered(43, &[0xff; 14]);
    assert_eq!(ProducedBatch::check(none.clone()).unwrap().header.idempotence(), None);
    let producer = |id, epoch, base_sequence| BatchError::Producer {
        producer_id: ProducerId(id),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence,
    };
    assert_eq!(refusal(altered(43, &(-2i64).to_be_bytes())), producer(-2, 3, 17));
    assert_eq!(refusal(altered(51, &(-1i16).to_be_bytes())), producer(4242, -1, 17));
    assert_eq!(refusal(altered(53, &(-1i32).to_be_bytes())), producer(4242, 3, -1));
    let mut transactional = none.to_vec();
    transactional[22] = 0x10;
    let crc = crc32c::crc32c(&transactional[CRC_FROM..]);
    transactional[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(refusal(transactional), producer(-1, -1, -1));
}

#[test]
fn batches_end_at_an_incomplete_one_and_fail_on_garbage() {
    let one = golden();
    let two = [&one[..], &one[..]].concat();
    for cut in 0..=two.len() {
        let mut batches = Batches::new(&two[..cut]);
        let starts: Vec<usize> = batches.by_ref().map(|found| found.unwrap().0).collect();
        assert_eq!(starts, [0, 113][..cut / 113]);
        assert_eq!(batches.consumed(), cut / 113 * 113);
    }
    let garbage = [&one[..], &[0; 61]].concat();
    let mut batches = Batches::new(&garbage);
    assert_eq!(batches.next().unwrap().unwrap().0, 0);
    assert_eq!(batches.next(), Some(Err(BatchError::Magic { found: 0 })));
    assert_eq!(batches.next(), None);
    assert_eq!(batches.consumed(), 113);
}

prop_compose! {
    fn any_header()(
        offsets in (0..i64::MAX / 2, 0..i32::MAX),
        leader_epoch in any::<i32>(),
        attributes in any::<i16>(),
        times in any::<(i64, i64)>(),
        producer in any::<(i64, i16, i32)>(),
        record_count in any::<i32>(),
    ) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(offsets.0),
            total_bytes: 0,
            leader_epoch: LeaderEpoch(leader_epoch),
            crc: 0,
            attributes,
            last_offset_delta: offsets.1,
            base_timestamp: TimestampMs(times.0),
            max_timestamp: TimestampMs(times.1),
            producer_id: ProducerId(producer.0),
            producer_epoch: ProducerEpoch(producer.1),
            base_sequence: producer.2,
            record_count,
        }
    }
}

proptest! {
    #[test]
    fn what_is_sealed_is_read_back(header in any_header(), records in vec(any::<u8>(), 0..300)) {
        let sealed = seal(header, &records).unwrap();
        prop_assert_eq!(sealed.payload(), &records[..]);
        let read = StoredBatch::from_log(sealed.bytes.clone()).unwrap();
        prop_assert_eq!(read.header, sealed.header);
        prop_assert_eq!(read.to_log(), sealed.bytes);
        prop_assert_eq!(read.header.offset_count(), read.end_offset().since(read.header.base_offset));
    }

    #[test]
    fn a_log_is_cut_where_its_batches_begin(
        sizes in vec(0..200usize, 0..8),
        header in any_header(),
    ) {
        let mut log = Vec::new();
        let mut starts = Vec::new();
        for size in sizes {
            starts.push(log.len());
            log.extend_from_slice(&seal(header, &vec![1; size]).unwrap().bytes);
        }
        let found: Vec<usize> = Batches::new(&log).map(|batch| batch.unwrap().0).collect();
        prop_assert_eq!(found, starts);
    }

    #[test]
    fn random_bytes_never_panic(mut bytes in vec(any::<u8>(), 0..400), magic in any::<bool>()) {
        if magic && bytes.len() > HEADER_BYTES {
            bytes[MAGIC_AT] = 2;
            let length = (bytes.len() - LENGTH_EXCLUDES) as u32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
            bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        }
        for found in Batches::new(&bytes) {
            prop_assert!(found.is_err() || found.unwrap().1.total_bytes <= bytes.len());
        }
        if let Ok(batch) = ProducedBatch::check(bytes.into()) {
            prop_assert!(batch.with_log_append_time(TimestampMs(1)).header.is_log_append_time());
        }
    }
}

#[test]
fn records_of_whole_batches_are_counted_and_nothing_behind_them() {
    let one = golden();
    let two = [&one[..], &one[..]].concat();
    assert_eq!(record_count(&two), 6);
    assert_eq!(record_count(&two[..two.len() - 1]), 3);
    assert_eq!(record_count(&[]), 0);
    // Bytes that are no batch end somewhere, too.
    assert_eq!(record_count(&[0xff; 200]), 0);
}
