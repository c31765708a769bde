//! Writes record batches, for whoever is a producer: the benchmark client, the simulator, tests.

use super::compression::{self, Compression};
use super::record_batch::{BatchHeader, ProducedBatch, seal};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Gathers records and makes a batch of them.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    compression: Compression,
    attributes: i16,
    producer: (ProducerId, ProducerEpoch, i32),
    records: Vec<u8>,
    scratch: Vec<u8>,
    record_count: i32,
    base_timestamp: TimestampMs,
    max_timestamp: TimestampMs,
}

impl BatchBuilder {
    /// A batch without records, without an idempotent producer. A
    /// [`Codec`](super::compression::Codec) stands for its usual level.
    #[must_use]
    pub fn new(compression: impl Into<Compression>) -> Self {
        Self {
            compression: compression.into(),
            attributes: 0,
            producer: (ProducerId::NONE, ProducerEpoch(-1), -1),
            records: Vec::new(),
            scratch: Vec::new(),
            record_count: 0,
            base_timestamp: TimestampMs::NONE,
            max_timestamp: TimestampMs::NONE,
        }
    }

    /// From an idempotent producer, the first record having this sequence number.
    #[must_use]
    pub const fn idempotent(
        mut self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        base_sequence: i32,
    ) -> Self {
        self.producer = (producer_id, producer_epoch, base_sequence);
        self
    }

    /// As part of a transaction.
    #[must_use]
    pub const fn transactional(mut self) -> Self {
        self.attributes |= BatchHeader::TRANSACTIONAL_BIT;
        self
    }

    /// As a transaction marker.
    #[must_use]
    pub const fn control(mut self) -> Self {
        self.attributes |= BatchHeader::CONTROL_BIT;
        self
    }

    /// Adds a record without headers.
    #[must_use]
    pub fn record(self, timestamp: TimestampMs, key: Option<&[u8]>, value: Option<&[u8]>) -> Self {
        self.record_with_headers(timestamp, key, value, &[])
    }

    /// Adds a record.
    #[must_use]
    pub fn record_with_headers(
        mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Self {
        self.push(timestamp, key, value, headers);
        self
    }

    /// Adds a record in place, for loops.
    ///
    /// # Panics
    /// Beyond 2 GiB or `i32::MAX` records, which no batch can hold.
    pub fn push(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        if self.record_count == 0 {
            self.base_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let body = &mut self.scratch;
        body.clear();
        body.push(0);
        put_varint(body, timestamp.0.wrapping_sub(self.base_timestamp.0));
        put_varint(body, self.record_count.into());
        put_nullable(body, key);
        put_nullable(body, value);
        put_length(body, headers.len());
        for (key, value) in headers {
            put_nullable(body, Some(key.as_bytes()));
            put_nullable(body, *value);
        }
        put_length(&mut self.records, body.len());
        self.records.extend_from_slice(body);
        self.record_count = self.record_count.checked_add(1).expect("a batch of i32 records");
    }

    /// Records so far.
    #[must_use]
    pub const fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Bytes of the records so far, before compression.
    #[must_use]
    pub const fn record_bytes(&self) -> usize {
        self.records.len()
    }

    /// The batch.
    ///
    /// # Panics
    /// Without records, and beyond 2 GiB.
    #[must_use]
    pub fn build(&self) -> ProducedBatch {
        assert!(self.record_count > 0, "a batch has at least one record");
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let header = BatchHeader {
            base_offset: Offset::ZERO,
            total_bytes: 0,
            leader_epoch: LeaderEpoch::NONE,
            crc: 0,
            attributes: self.attributes | self.compression.codec().id(),
            last_offset_delta: self.record_count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.record_count,
        };
        if self.compression == Compression::None {
            return seal(header, &self.records).expect("a batch is below 2 GiB");
        }
        let payload = compression::compress(self.compression, &self.records);
        seal(header, &payload).expect("a batch is below 2 GiB")
    }
}

pub(super) fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}

pub(super) fn put_length(out: &mut Vec<u8>, length: usize) {
    put_varint(out, i32::try_from(length).expect("a record is below 2 GiB").into());
}

pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut bits = (value << 1 ^ value >> 63) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}
