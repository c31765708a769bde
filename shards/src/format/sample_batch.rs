//! Well-formed record batches for tests and simulations, as an idempotent producer would send them.

use bytes::Bytes;

use super::batch_builder::BatchBuilder;
use super::compression::Codec;
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
        let mut builder = BatchBuilder::new(Codec::None).idempotent(
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
        );
        for _ in 0..self.records {
            builder.push(self.timestamp, None, Some(self.value), &[]);
        }
        builder.build().bytes
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
