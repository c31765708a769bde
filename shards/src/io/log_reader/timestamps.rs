//! Look-ups by time: the segment by its largest timestamp, the place in it by the time index, then
//! batch headers, then the records of one batch.

use super::{LogReader, ReadError, Scan, Source, WINDOW_BYTES_MAX};
use crate::format::record::{find_timestamp, max_timestamp_record};
use crate::format::record_batch::{BatchError, BatchHeader, Batches, StoredBatch};
use crate::format::segment_index::offset_for_timestamp;
use crate::machine::effect::SegmentMeta;
use crate::model::{LeaderEpoch, Offset, TimestampMs};
use crate::store::paths::SegmentFile;

/// Headers are looked through so many bytes at a time.
const SCAN_BYTES: usize = WINDOW_BYTES_MAX / 16;

/// A record found by its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found {
    /// Its offset.
    pub offset: Offset,
    /// Its time.
    pub timestamp: TimestampMs,
    /// The epoch it was written in.
    pub leader_epoch: LeaderEpoch,
}

/// What is looked for within a batch.
type Search = fn(&StoredBatch, TimestampMs) -> Result<Option<(Offset, TimestampMs)>, BatchError>;

/// The first record of a batch in memory at or after a time.
pub fn find_in_batch(
    batch: &StoredBatch,
    target: TimestampMs,
) -> Result<Option<Found>, BatchError> {
    found(batch, find_timestamp(batch, target))
}

/// The first record with the largest time of a batch in memory.
pub fn latest_in_batch(batch: &StoredBatch) -> Result<Option<Found>, BatchError> {
    found(batch, max_timestamp_record(batch))
}

fn found(
    batch: &StoredBatch,
    result: Result<Option<(Offset, TimestampMs)>, BatchError>,
) -> Result<Option<Found>, BatchError> {
    let leader_epoch = batch.header.leader_epoch;
    Ok(result?.map(|(offset, timestamp)| Found { offset, timestamp, leader_epoch }))
}

impl LogReader {
    /// The first record at or after `target` in time, of those from `from` on.
    pub async fn first_at_or_after(
        &self,
        source: Source<'_>,
        target: TimestampMs,
        from: Offset,
    ) -> Result<Option<Found>, ReadError> {
        let search: Search = find_timestamp;
        for segment in source.view.iter() {
            if segment.end_offset > from && segment.max_timestamp >= target {
                let found = self.search(source, segment, target, from, search).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
        }
        Ok(None)
    }

    /// The first record with the largest time of those from `from` on.
    pub async fn latest_timestamp(
        &self,
        source: Source<'_>,
        from: Offset,
    ) -> Result<Option<Found>, ReadError> {
        let segments = || source.view.iter().filter(|segment| segment.end_offset > from);
        let Some(target) = segments().map(|segment| segment.max_timestamp).max() else {
            return Ok(None);
        };
        let search: Search = |batch, _| max_timestamp_record(batch);
        for segment in segments().filter(|segment| segment.max_timestamp == target) {
            let found = self.search(source, segment, target, from, search).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    async fn search(
        &self,
        source: Source<'_>,
        segment: &SegmentMeta,
        target: TimestampMs,
        from: Offset,
        search: Search,
    ) -> Result<Option<Found>, ReadError> {
        let index = self.index(source, segment, SegmentFile::TimeIndex).await?;
        // The entry with the target's own time may stand for a later batch than the first one that
        // has it, if the index is coarse: begin at the entry before.
        let before = TimestampMs(target.0.saturating_sub(1));
        let begin = offset_for_timestamp(&index, segment.base_offset, before).max(from);
        let file = self.log_file(source, segment).await?;
        let mut scan = self.scan_from(source, segment, file, begin).await?;
        while let Some(piece) = scan.next_piece(&self.files, source, SCAN_BYTES).await? {
            for batch in Batches::new(&piece.bytes) {
                let (at, header) = batch.map_err(|error| {
                    scan.damage(piece.position + piece.bytes.len() as u64, error.to_string())
                })?;
                let position = piece.position + at as u64;
                scan.check(position, &header)?;
                if header.end_offset() <= begin || header.max_timestamp < target {
                    continue;
                }
                let bytes = piece.bytes.slice(at..at + header.total_bytes);
                let result = StoredBatch::from_log(bytes).and_then(|batch| search(&batch, target));
                if let Some(found) = settle(&scan, position, &header, from, result)? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }
}

fn settle(
    scan: &Scan,
    position: u64,
    header: &BatchHeader,
    from: Offset,
    result: Result<Option<(Offset, TimestampMs)>, BatchError>,
) -> Result<Option<Found>, ReadError> {
    match result {
        Ok(Some((offset, timestamp))) if offset >= from => {
            Ok(Some(Found { offset, timestamp, leader_epoch: header.leader_epoch }))
        }
        Ok(_) => Ok(None),
        Err(error) => Err(scan.damage(position, error.to_string())),
    }
}
