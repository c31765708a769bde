//! What a consumer may see of a partition, and where it is: memory or segments.

use super::Partition;
use super::role::Role;
use crate::format::record_batch::StoredBatch;
use crate::machine::effect::LogView;
use crate::machine::input::{EpochEnd, FetchData, FetchError, FetchPartition, FetchSlice};
use crate::model::{LeaderEpoch, Offset};

impl Partition {
    /// Answers a fetch with at most `bytes_max`, the first batch excepted; with nothing when that is
    /// 0. Returns the bytes that the answer may take.
    ///
    /// # Errors
    /// Why the partition cannot be read there.
    pub fn plan_fetch(
        &self,
        wanted: &FetchPartition,
        bytes_max: usize,
    ) -> Result<(FetchSlice, usize), FetchError> {
        self.check_epoch(wanted.current_leader_epoch)?;
        if self.has_failed {
            return Err(FetchError::StorageFailed);
        }
        self.check_range(wanted.offset)?;
        let diverging = match wanted.last_fetched_epoch {
            Some(epoch) => self.diverging(epoch, wanted.offset)?,
            None => None,
        };
        let (data, bytes) = if diverging.is_some() || bytes_max == 0 {
            (FetchData::Nothing, 0)
        } else {
            self.read(wanted.offset, bytes_max)
        };
        let slice = FetchSlice {
            high_watermark: self.high_watermark,
            last_stable_offset: self.high_watermark,
            log_start_offset: self.log_start_offset,
            diverging,
            data,
        };
        Ok((slice, bytes))
    }

    /// # Errors
    /// [`FetchError::OutOfRange`].
    pub fn check_range(&self, offset: Offset) -> Result<(), FetchError> {
        let (log_start, high_watermark) = (self.log_start_offset, self.high_watermark);
        if offset < log_start || offset > high_watermark {
            // What a client learned elsewhere may be more than is known here yet.
            return Err(match offset > high_watermark && self.may_lag(offset) {
                true => FetchError::OffsetNotAvailable { offset, high_watermark },
                false => FetchError::OutOfRange { offset, log_start, high_watermark },
            });
        }
        Ok(())
    }

    /// Whether `offset` may be readable elsewhere: a follower lags behind its leader, and a new leader's
    /// high watermark behind that of the one before.
    fn may_lag(&self, offset: Offset) -> bool {
        match self.role {
            Role::Follower { .. } => true,
            Role::Leader => {
                !self.in_sync.knows_past(self.high_watermark)
                    && offset <= self.in_sync.epoch_start()
            }
        }
    }

    /// Where a client's history that ends with `epoch` before `offset` parts from this log.
    ///
    /// # Errors
    /// [`FetchError::OutOfRange`] when nothing is known of the epoch, as in Kafka.
    fn diverging(
        &self,
        epoch: LeaderEpoch,
        offset: Offset,
    ) -> Result<Option<EpochEnd>, FetchError> {
        let Some(end) = self.epochs.end_of(epoch, self.leader_epoch, self.log_end_offset) else {
            let (log_start, high_watermark) = (self.log_start_offset, self.high_watermark);
            return Err(FetchError::OutOfRange { offset, log_start, high_watermark });
        };
        Ok((end.epoch < epoch || end.end_offset < offset).then_some(end))
    }

    fn read(&self, offset: Offset, bytes_max: usize) -> (FetchData, usize) {
        if offset == self.high_watermark {
            return (FetchData::Nothing, 0);
        }
        let first_cached = self.tail.first_offset();
        if first_cached.is_none_or(|first| offset < first) {
            let end = self.high_watermark.min(first_cached.unwrap_or(self.segments_end));
            let bytes = self.segment_bytes.min(bytes_max as u64) as usize;
            return (FetchData::InSegments { offset, end, max_bytes: bytes_max }, bytes);
        }
        let mut bytes = 0;
        let mut batches = Vec::new();
        for batch in self.readable_from(offset) {
            if !batches.is_empty() && bytes + batch.total_bytes() > bytes_max {
                break;
            }
            bytes += batch.total_bytes();
            batches.push(batch.clone());
        }
        match batches.is_empty() {
            true => (FetchData::Nothing, 0),
            false => (FetchData::Cached(batches), bytes),
        }
    }

    fn readable_from(&self, offset: Offset) -> impl Iterator<Item = &StoredBatch> {
        self.tail.from(offset).take_while(|batch| batch.end_offset() <= self.high_watermark)
    }

    /// Readable batches at or after `offset` that are not in segments.
    pub fn unflushed_from(&self, offset: Offset) -> Vec<StoredBatch> {
        self.readable_from(offset.max(self.segments_end)).cloned().collect()
    }

    /// Bytes that a fetch from `offset` finds: counted in memory, estimated in segments.
    pub fn readable_bytes(&self, offset: Offset) -> u64 {
        let cached_from = self.tail.first_offset().unwrap_or(self.segments_end);
        let in_segments = segment_bytes_between(&self.view, offset, cached_from);
        in_segments + self.tail.bytes_between(offset.max(cached_from), self.high_watermark)
    }
}

/// Bytes of `from..to` in segments, as if the records of a segment were of one size.
fn segment_bytes_between(view: &LogView, from: Offset, to: Offset) -> u64 {
    if from >= to {
        return 0;
    }
    let mut bytes = 0;
    for segment in view.iter() {
        let all = segment.end_offset.since(segment.base_offset).max(1) as u128;
        let (first, end) = (segment.base_offset.max(from), segment.end_offset.min(to));
        let wanted = end.since(first).max(0) as u128;
        bytes += (u128::from(segment.bytes) * wanted / all) as u64;
    }
    bytes
}
