//! Well-formed record batches for tests and simulations, as an idempotent producer would send them.

use bytes::Bytes;

use super::record_batch::{ProducedBatch, StoredBatch};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// A batch to be made. Every record has the same value and no key.
#[derive(Clone, Copy, Debug)]
pub struct SampleBatch<'a> {
    /// Number of records, at least 1.
    pub records: i32,
    /// Value of every record.
    pub value: &'a [u8],
    /// Time of every record.
    pub timestamp: TimestampMs,
    /// The producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// Its incarnation.
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record.
    pub base_sequence: i32,
}

impl Default for SampleBatch<'_> {
    /// One empty record of no producer at time 1,000.
    fn default() -> Self {
        Self {
            records: 1,
            value: b"",
            timestamp: TimestampMs(1000),
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch(-1),
            base_sequence: -1,
        }
    }
}

impl SampleBatch<'_> {
    /// The batch's bytes as a producer sends them.
    ///
    /// # Panics
    /// When there are no records, or more bytes than a batch may have.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        assert!(self.records > 0, "a batch has records");
        let mut out = vec![0; 8 + 4];
        out.extend((-1i32).to_be_bytes());
        out.push(2);
        out.extend([0; 4]);
        out.extend(0i16.to_be_bytes());
        out.extend((self.records - 1).to_be_bytes());
        out.extend(self.timestamp.0.to_be_bytes());
        out.extend(self.timestamp.0.to_be_bytes());
        out.extend(self.producer_id.0.to_be_bytes());
        out.extend(self.producer_epoch.0.to_be_bytes());
        out.extend(self.base_sequence.to_be_bytes());
        out.extend(self.records.to_be_bytes());
        for delta in 0..self.records {
            let mut record = vec![0, 0];
            put_varint(&mut record, delta);
            put_varint(&mut record, -1);
            put_varint(&mut record, self.value.len() as i32);
            record.extend(self.value);
            record.push(0);
            put_varint(&mut out, record.len() as i32);
            out.extend(record);
        }
        let length = i32::try_from(out.len() - 12).expect("a sample batch is small");
        out[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&out[21..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out.into()
    }

    /// The batch, checked.
    #[must_use]
    pub fn produced(&self) -> ProducedBatch {
        ProducedBatch::check(self.encode()).expect("a sample batch is well formed")
    }

    /// The batch at a place in a log.
    #[must_use]
    pub fn at(&self, base_offset: i64, leader_epoch: i32) -> StoredBatch {
        StoredBatch::place(self.produced(), Offset(base_offset), LeaderEpoch(leader_epoch))
    }
}

fn put_varint(out: &mut Vec<u8>, value: i32) {
    let mut zigzag = ((value << 1) ^ (value >> 31)) as u32;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}
