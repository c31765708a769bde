//! Batches that are built once and numbered each time they are sent.
//!
//! The number stands in the batch's timestamps, in milliseconds from [`Numbering::start_ms`]: they lie in the header,
//! outside of what is compressed, so that every codec is numbered alike and the records are shared by all
//! sends. The CRC covers both; that of the records is known, so a send costs that of forty bytes of header and four
//! look-ups.

use chronik_shards::format::batch_builder::BatchBuilder;
use chronik_shards::format::compression::Codec;
use chronik_shards::format::record_batch::HEADER_BYTES;
use chronik_shards::model::TimestampMs;

use bytes::Bytes;

const CRC_AT: usize = 17;
/// The CRC covers everything from here to the end.
const CRC_FROM: usize = 21;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;

/// Characters that values are made of: six bits each, so that no codec finds much.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// What every batch of a load holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchShape {
    /// Size of a record's value.
    pub record_bytes: usize,
    /// Records of a batch.
    pub records: usize,
    /// How they are compressed.
    pub codec: Codec,
    /// Size of a record's key; 0: none.
    pub key_bytes: usize,
}

impl BatchShape {
    /// As many records as fit into `batch_bytes` of values, at least one.
    #[must_use]
    pub fn fitting(record_bytes: usize, batch_bytes: usize, codec: Codec) -> Self {
        let records = (batch_bytes / record_bytes.max(1)).max(1);
        Self { record_bytes, records, codec, key_bytes: 0 }
    }

    /// Bytes of values in a batch.
    #[must_use]
    pub const fn value_bytes(&self) -> u64 {
        (self.record_bytes * self.records) as u64
    }
}

/// A batch without its number.
#[derive(Clone, Debug)]
pub struct BatchTemplate {
    bytes: Bytes,
    records_crc: u32,
    shift: CrcShift,
}

impl BatchTemplate {
    /// Builds a batch; the same seed makes the same bytes.
    #[must_use]
    pub fn build(shape: BatchShape, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut builder = BatchBuilder::new(shape.codec);
        let (mut key, mut value) = (vec![0; shape.key_bytes], vec![0; shape.record_bytes]);
        for _ in 0..shape.records {
            random.fill(&mut key);
            random.fill(&mut value);
            let key = (shape.key_bytes > 0).then_some(key.as_slice());
            builder.push(TimestampMs(0), key, Some(&value), &[]);
        }
        let bytes = builder.build().bytes;
        let records = &bytes[HEADER_BYTES..];
        let (records_crc, shift) = (crc32c::crc32c(records), CrcShift::over(records.len()));
        Self { bytes, records_crc, shift }
    }

    /// The batch with the number 0.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What is needed to number a copy of the header.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        Stamp { records_crc: self.records_crc, shift: self.shift.clone() }
    }
}

/// Numbers the headers of one template's batches.
#[derive(Clone, Debug)]
pub struct Stamp {
    records_crc: u32,
    shift: CrcShift,
}

impl Stamp {
    /// Writes both timestamps and the CRC into a copy of the batch's header.
    ///
    /// # Panics
    /// When `header` is shorter than a batch's header.
    pub fn write(&self, header: &mut [u8], timestamp_ms: i64) {
        let header = &mut header[..HEADER_BYTES];
        let timestamp = timestamp_ms.to_be_bytes();
        header[BASE_TIMESTAMP_AT..BASE_TIMESTAMP_AT + 8].copy_from_slice(&timestamp);
        header[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&timestamp);
        let crc = self.shift.apply(crc32c::crc32c(&header[CRC_FROM..])) ^ self.records_crc;
        header[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

/// What a CRC becomes when a known number of bytes follows: linear, so a table for each of its bytes.
#[derive(Clone, Debug)]
struct CrcShift(std::sync::Arc<[[u32; 256]; 4]>);

impl CrcShift {
    fn over(bytes: usize) -> Self {
        let bits: Vec<u32> =
            (0..32).map(|bit| crc32c::crc32c_combine(1 << bit, 0, bytes)).collect();
        let mut tables = [[0; 256]; 4];
        for (place, table) in tables.iter_mut().enumerate() {
            for (value, entry) in table.iter_mut().enumerate() {
                let set = (0..8).filter(|bit| value & 1 << bit != 0);
                *entry = set.fold(0, |sum, bit| sum ^ bits[place * 8 + bit]);
            }
        }
        Self(std::sync::Arc::new(tables))
    }

    fn apply(&self, crc: u32) -> u32 {
        let [a, b, c, d] = crc.to_le_bytes().map(usize::from);
        self.0[0][a] ^ self.0[1][b] ^ self.0[2][c] ^ self.0[3][d]
    }
}

/// How batches are numbered: each producer's are apart by the number of producers, so that from a number both can be
/// told, the producer and how many it sent before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbering {
    /// The timestamp of number 0.
    pub start_ms: i64,
    /// How many producers there are.
    pub producers: u64,
}

impl Numbering {
    /// How far before the present numbers begin: timestamps far in the future are refused by Kafka, and this leaves
    /// room for five hundred million batches a partition.
    const BEFORE_NOW_MS: i64 = 6 * 24 * 3600 * 1000;

    /// Numbers for a run that begins at `now_ms` of the wall clock.
    #[must_use]
    pub const fn begin(now_ms: i64, producers: u64) -> Self {
        Self { start_ms: now_ms - Self::BEFORE_NOW_MS, producers }
    }

    /// The timestamp of a producer's batch number `count` in a partition; `None` when there are no more.
    #[must_use]
    pub fn timestamp_ms(&self, producer: u64, count: u64) -> Option<i64> {
        let number =
            i64::try_from(count.checked_mul(self.producers)?.checked_add(producer)?).ok()?;
        (number < Self::BEFORE_NOW_MS).then(|| self.start_ms + number)
    }

    /// Producer and count of a timestamp; `None` when it is not one of this run.
    #[must_use]
    pub fn parse(&self, timestamp_ms: i64) -> Option<(u64, u64)> {
        let number = u64::try_from(timestamp_ms.checked_sub(self.start_ms)?).ok()?;
        Some((number % self.producers, number / self.producers))
    }
}

/// splitmix64: enough for bytes that no codec can shorten by much.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            for (byte, bits) in chunk.iter_mut().zip(self.next().to_le_bytes()) {
                *byte = ALPHABET[usize::from(bits % 64)];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use chronik_shards::format::record_batch::ProducedBatch;

    use super::*;

    #[test]
    fn stamped_batches_are_valid_in_every_codec_and_carry_their_number() {
        for codec in Codec::ALL {
            for records in [1, 64] {
                let shape = BatchShape { record_bytes: 100, records, codec, key_bytes: 8 };
                let template = BatchTemplate::build(shape, 7);
                for number in [0, 1, 1_700_000_000_123] {
                    let mut bytes = template.bytes().to_vec();
                    template.stamp().write(&mut bytes, number);
                    let batch = ProducedBatch::check(bytes.into()).unwrap();
                    batch.check_records(1 << 20).unwrap();
                    assert_eq!(batch.header.base_timestamp, TimestampMs(number));
                    assert_eq!(batch.header.max_timestamp, TimestampMs(number));
                    assert_eq!(batch.header.record_count, records as i32);
                }
            }
        }
    }

    #[test]
    fn values_hardly_shrink_and_depend_on_the_seed_alone() {
        let shape = |codec| BatchShape { record_bytes: 1024, records: 64, codec, key_bytes: 0 };
        let plain = BatchTemplate::build(shape(Codec::None), 1);
        for codec in Codec::ALL {
            let compressed = BatchTemplate::build(shape(codec), 1).bytes().len();
            let share = compressed as f64 / plain.bytes().len() as f64;
            assert!(share > 0.7, "{codec}: {share}");
        }
        assert_eq!(BatchTemplate::build(shape(Codec::None), 1).bytes(), plain.bytes());
        assert_ne!(BatchTemplate::build(shape(Codec::None), 2).bytes(), plain.bytes());
    }

    #[test]
    fn numbers_tell_producer_and_count_and_end_before_the_future() {
        let numbering = Numbering::begin(1_700_000_000_000, 16);
        for (producer, count) in [(0, 0), (15, 0), (3, 1_000_000)] {
            let stamp = numbering.timestamp_ms(producer, count).unwrap();
            assert!(stamp < 1_700_000_000_000);
            assert_eq!(numbering.parse(stamp), Some((producer, count)));
        }
        assert_eq!(numbering.timestamp_ms(0, 1 << 40), None);
        assert_eq!(numbering.parse(0), None);
    }

    #[test]
    fn a_batch_holds_at_least_one_record() {
        assert_eq!(BatchShape::fitting(1024, 65536, Codec::None).records, 64);
        assert_eq!(BatchShape::fitting(1024, 1500, Codec::None).records, 1);
        assert_eq!(BatchShape::fitting(1024, 10, Codec::None).value_bytes(), 1024);
    }
}
