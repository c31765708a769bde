//! Kafka's producer snapshot: the idempotent producers of a partition as of an offset, which names
//! the file (`<offset>.snapshot`).
//!
//! | offset | size | field, big-endian |
//! | --- | --- | --- |
//! | 0 | 2 | version, 1 |
//! | 2 | 4 | CRC-32C of everything behind it |
//! | 6 | 4 | number of producers |
//! | 10 | 46 each | producer |
//!
//! A producer:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | producer id |
//! | 8 | 2 | producer epoch |
//! | 10 | 4 | last sequence, −1 for none |
//! | 14 | 8 | last offset, −1 for none |
//! | 22 | 4 | offset delta: last offset less first offset of its last batch |
//! | 26 | 8 | timestamp of its last batch |
//! | 34 | 4 | coordinator epoch, −1: no transactions |
//! | 38 | 8 | first offset of its open transaction, −1: none |
//!
//! The format remembers one batch a producer where memory remembers five: after a start from a
//! snapshot alone, only the last batch is known as a duplicate.

use super::positions::{ProducerBatch, ProducerCheckpoint};
use crate::model::{Offset, ProducerEpoch, ProducerId, TimestampMs};

const VERSION: i16 = 1;
const HEADER_BYTES: usize = 10;
const CRC_FROM: usize = 6;
const ENTRY_BYTES: usize = 46;

/// Why a file is not a producer snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The size is not that of a header and its producers.
    #[error("{0} bytes are no producer snapshot")]
    Bytes(usize),
    /// Another version.
    #[error("producer snapshot of version {0}")]
    Version(i16),
    /// The CRC does not match the content.
    #[error("the producer snapshot's CRC does not match")]
    Crc,
}

/// The file's content.
///
/// # Panics
/// When there are more producers than fit a 32-bit count: memory bounds them far below.
#[must_use]
pub fn encode(producers: &[ProducerCheckpoint]) -> Vec<u8> {
    let count = i32::try_from(producers.len()).expect("producers are bounded");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + producers.len() * ENTRY_BYTES);
    bytes.extend(VERSION.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(count.to_be_bytes());
    for producer in producers {
        let last = producer.batches.last();
        let delta = last.map_or(0, |last| last.last_offset.since(last.base_offset));
        bytes.extend(producer.producer_id.0.to_be_bytes());
        bytes.extend(producer.producer_epoch.0.to_be_bytes());
        bytes.extend(last.map_or(-1, |last| last.last_sequence).to_be_bytes());
        bytes.extend(last.map_or(-1, |last| last.last_offset.0).to_be_bytes());
        // A batch's delta is a 32-bit field of its header.
        bytes.extend((delta as i32).to_be_bytes());
        bytes.extend(producer.last_timestamp.0.to_be_bytes());
        bytes.extend((-1i32).to_be_bytes());
        bytes.extend((-1i64).to_be_bytes());
    }
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[2..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// Reads a file's content.
///
/// # Errors
/// When it is not a whole, intact snapshot of this version.
pub fn decode(bytes: &[u8]) -> Result<Vec<ProducerCheckpoint>, SnapshotError> {
    let (header, entries) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or(SnapshotError::Bytes(bytes.len()))?;
    let version = i16::from_be_bytes([header[0], header[1]]);
    if version != VERSION {
        return Err(SnapshotError::Version(version));
    }
    if header[2..6] != crc32c::crc32c(&bytes[CRC_FROM..]).to_be_bytes() {
        return Err(SnapshotError::Crc);
    }
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    let count = i32::from_be_bytes([header[6], header[7], header[8], header[9]]);
    if !rest.is_empty() || usize::try_from(count) != Ok(entries.len()) {
        return Err(SnapshotError::Bytes(bytes.len()));
    }
    Ok(entries.iter().map(decode_producer).collect())
}

fn decode_producer(entry: &[u8; ENTRY_BYTES]) -> ProducerCheckpoint {
    let number = |range: std::ops::Range<usize>| {
        // Sign-extends the first byte, then shifts the others in.
        let first = i64::from(entry[range.start] as i8);
        entry[range.start + 1..range.end]
            .iter()
            .fold(first, |value, byte| value << 8 | i64::from(*byte))
    };
    let last_sequence = number(10..14) as i32;
    let last_offset = Offset(number(14..22));
    let delta = number(22..26) as i32;
    let timestamp = TimestampMs(number(26..34));
    let batch = ProducerBatch {
        first_sequence: first_sequence(last_sequence, delta),
        last_sequence,
        base_offset: Offset(last_offset.0.saturating_sub(i64::from(delta))),
        last_offset,
        timestamp,
    };
    ProducerCheckpoint {
        producer_id: ProducerId(number(0..8)),
        producer_epoch: ProducerEpoch(number(8..10) as i16),
        last_timestamp: timestamp,
        batches: if last_sequence < 0 { Vec::new() } else { vec![batch] },
    }
}

/// Sequence numbers go round from `i32::MAX` to 0.
fn first_sequence(last_sequence: i32, delta: i32) -> i32 {
    (i64::from(last_sequence) - i64::from(delta)).rem_euclid(1 << 31) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn producer(id: i64, first_sequence: i32, last_sequence: i32) -> ProducerCheckpoint {
        ProducerCheckpoint {
            producer_id: ProducerId(id),
            producer_epoch: ProducerEpoch(3),
            last_timestamp: TimestampMs(1_700_000_000_000),
            batches: vec![ProducerBatch {
                first_sequence,
                last_sequence,
                base_offset: Offset(100),
                last_offset: Offset(109),
                timestamp: TimestampMs(1_700_000_000_000),
            }],
        }
    }

    #[test]
    fn golden_bytes_of_one_producer() {
        let bytes = encode(&[producer(258, 10, 19)]);
        let expected = [
            "0001",
            "00000001",
            "0000000000000102",
            "0003",
            "00000013",
            "000000000000006d",
            "00000009",
            "0000018bcfe56800",
            "ffffffff",
            "ffffffffffffffff",
        ];
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex[..4], expected[..1].concat());
        assert_eq!(bytes[2..6], crc32c::crc32c(&bytes[6..]).to_be_bytes());
        assert_eq!(hex[12..], expected[1..].concat());
    }

    #[test]
    fn the_last_batch_reads_back_across_the_end_of_the_sequence_numbers() {
        let producers = vec![producer(1, 0, 9), producer(2, i32::MAX - 3, 5)];
        assert_eq!(decode(&encode(&producers)), Ok(producers));
        let mut silent = producer(3, 0, 0);
        silent.batches.clear();
        assert_eq!(decode(&encode(&[silent.clone()])), Ok(vec![silent]));
    }

    #[test]
    fn damaged_snapshots_are_refused() {
        let bytes = encode(&[producer(1, 0, 9)]);
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 4;
            assert!(decode(&damaged).is_err(), "flip at {place}");
        }
    }
}
