//! What compaction makes of a batch: the same batch with fewer records.
//!
//! Offsets never change: what is kept keeps its own, and the batch keeps its first and its last, whatever of the records
//! between them is left. A batch that loses nothing keeps its bytes. One that has tombstones is told, the first time it
//! is met, when those may go: the delete horizon takes the place of the base timestamp, and an attribute bit says so.
//!
//! Deliberately absent: which records are kept (that is the machine's to say), and batches of transactions, which are
//! kept as they are.
//!
//! Source: KIP-98, KIP-534.

use super::compression::{self, Codec, CompressionError};
use super::record::{Record, Records};
use super::record_batch::{BatchError, BatchHeader, StoredBatch, seal_stored};
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// What became of a batch.
#[derive(Clone, Debug)]
pub enum Compacted {
    /// It loses nothing and stays as it is.
    Unchanged,
    /// It stays with fewer records, with another base timestamp, or with none of its records.
    Rewritten(StoredBatch),
    /// Nothing of it stays.
    Dropped,
}

/// What a batch is compacted by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactionRules {
    /// The time of this compaction.
    pub now: TimestampMs,
    /// `delete.retention.ms`: how long a tombstone stays from the first compaction on that meets it.
    pub delete_retention_ms: i64,
    /// The batch stays even without records: it says where its producer stands, or where the log goes on.
    pub keeps_emptied: bool,
    /// Bound on the records without compression.
    pub expanded_bytes_max: usize,
}

/// What compaction found in batches.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RecordCounts {
    /// Records there were.
    pub read: u64,
    /// Records that stay.
    pub kept: u64,
}

/// Whether compaction leaves a batch alone, keys and all.
#[must_use]
pub const fn is_kept_whole(header: &BatchHeader) -> bool {
    header.is_control() || header.is_transactional()
}

/// Keeps the records of `batch` that `keeps` wants.
///
/// # Errors
/// [`BatchError::Compression`], [`BatchError::Codec`], [`BatchError::Record`]: the batch cannot be read.
pub fn compact(
    batch: &StoredBatch,
    rules: CompactionRules,
    counts: &mut RecordCounts,
    mut keeps: impl FnMut(Offset, &Record<'_>) -> bool,
) -> Result<Compacted, BatchError> {
    let header = &batch.header;
    if is_kept_whole(header) {
        let records = u64::try_from(header.record_count).unwrap_or(0);
        counts.read += records;
        counts.kept += records;
        return Ok(Compacted::Unchanged);
    }
    let payload = batch.decompressed(rules.expanded_bytes_max)?;
    let (mut kept, mut has_tombstone) = (Vec::new(), false);
    for record in Records::new(header, &payload) {
        let record = record?;
        counts.read += 1;
        if keeps(header.base_offset.plus(i64::from(record.offset_delta)), &record) {
            has_tombstone |= record.value.is_none();
            kept.push(record);
        }
    }
    counts.kept += kept.len() as u64;
    if kept.is_empty() {
        return match (rules.keeps_emptied, header.record_count) {
            (true, 0) => Ok(Compacted::Unchanged),
            (true, _) => Ok(Compacted::Rewritten(emptied(header))),
            (false, _) => Ok(Compacted::Dropped),
        };
    }
    let due_horizon = (has_tombstone && header.delete_horizon().is_none())
        .then(|| TimestampMs(rules.now.0.saturating_add(rules.delete_retention_ms)));
    if due_horizon.is_none() && i64::from(header.record_count) == kept.len() as i64 {
        return Ok(Compacted::Unchanged);
    }
    rewritten(header, &kept, due_horizon).map(Compacted::Rewritten)
}

/// A batch that says that its offsets are nobody's, for logs in which nothing may be missing.
///
/// # Panics
/// When it has no offset, or more than one batch can name.
#[must_use]
pub fn filler(base_offset: Offset, end_offset: Offset, leader_epoch: LeaderEpoch) -> StoredBatch {
    let last_offset_delta = i32::try_from(end_offset.since(base_offset) - 1);
    let header = BatchHeader {
        base_offset,
        total_bytes: 0,
        leader_epoch,
        crc: 0,
        attributes: Codec::None.id(),
        last_offset_delta: last_offset_delta.expect("the caller splits what one batch cannot name"),
        base_timestamp: TimestampMs::NONE,
        max_timestamp: TimestampMs::NONE,
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        record_count: 0,
    };
    assert!(header.last_offset_delta >= 0, "a batch has an offset: {base_offset}..{end_offset}");
    seal_stored(header, &[]).expect("a header fits")
}

/// A batch without records that says less: the same up to `end_offset`.
///
/// # Panics
/// When it has records, or does not reach across that offset.
#[must_use]
pub fn shortened(header: &BatchHeader, end_offset: Offset) -> StoredBatch {
    assert!(header.record_count == 0, "records are not cut");
    assert!(end_offset < header.end_offset(), "it reaches beyond {end_offset}");
    filler(header.base_offset, end_offset, header.leader_epoch)
}

fn emptied(header: &BatchHeader) -> StoredBatch {
    seal_stored(header.emptied(), &[]).expect("a header fits")
}

fn rewritten(
    header: &BatchHeader,
    kept: &[Record<'_>],
    due_horizon: Option<TimestampMs>,
) -> Result<StoredBatch, BatchError> {
    let first = kept.first().map_or(header.base_timestamp, |first| header.timestamp_of(first));
    let mut changed = match due_horizon.or(header.delete_horizon()) {
        Some(horizon) => header.with_delete_horizon(horizon),
        None => BatchHeader { base_timestamp: first, ..*header },
    };
    changed.record_count = i32::try_from(kept.len()).expect("no more than there were");
    if !header.is_log_append_time() {
        let times = kept.iter().map(|record| header.timestamp_of(record));
        changed.max_timestamp = times.max().unwrap_or(header.max_timestamp);
    }
    let (mut body, mut records) = (Vec::new(), Vec::new());
    for record in kept {
        let timestamp = header.timestamp_of(record);
        // Wrapping, as a reader adds: the producer's times may be anything.
        let delta = timestamp.0.wrapping_sub(changed.base_timestamp.0);
        record.encode(delta, &mut body, &mut records);
        if i32::try_from(records.len()).is_err() {
            let codec = header.codec()?;
            return Err(CompressionError::TooLarge { codec, limit: i32::MAX as usize }.into());
        }
    }
    match header.codec()? {
        Codec::None => seal_stored(changed, &records),
        codec => seal_stored(changed, &compression::compress(codec, &records)),
    }
}

#[cfg(test)]
mod tests;
