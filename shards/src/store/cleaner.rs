//! The compaction that a store has under way: one at a time, a step whenever nothing else is to be done.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::compaction::{Compaction, Step, Stop};
use super::disk::Disk;
use super::{SegmentStore, StoreError};
use crate::machine::compaction::offset_map::MAP_BYTES_MIN;
use crate::machine::effect::{CompactionFailure, StoreReply};
use crate::model::{Offset, ReplicaKey, TimestampMs};

/// Bounds of a store's compaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanerLimits {
    /// Memory for the keys of one compaction. Source: this store's share of `log.cleaner.dedupe.buffer.size`.
    pub map_bytes_max: usize,
    /// Bytes read and written in a second at most; `None` is no limit. Source: this store's share of
    /// `log.cleaner.io.max.bytes.per.second`.
    pub io_bytes_per_second_max: Option<u64>,
}

impl Default for CleanerLimits {
    /// Kafka's defaults.
    fn default() -> Self {
        Self { map_bytes_max: 128 << 20, io_bytes_per_second_max: None }
    }
}

/// Rests that follow the work of compaction, in percent of it, whatever limit is set: nobody waits for it, and everybody
/// for the processor and the disk.
const REST_PERCENT: u32 = 600;

/// However long a step took, what is left of its rest is not waited for. Steps are short: one that took long waited for a
/// processor or a disk that others had.
const REST_MAX: Duration = Duration::from_millis(100);

impl CleanerLimits {
    /// How long to rest after a step that took so long and moved so many bytes.
    #[must_use]
    pub fn rest_after(&self, worked: Duration, bytes: u64) -> Duration {
        let paced = (worked * REST_PERCENT / 100).min(REST_MAX);
        let limited = self.io_bytes_per_second_max.map_or(Duration::ZERO, |limit| {
            let micros = bytes.saturating_mul(1_000_000) / limit.max(1);
            Duration::from_micros(micros).saturating_sub(worked)
        });
        paced.max(limited)
    }
}

/// What a step of compaction brought.
#[derive(Debug, Default)]
pub struct CompactionStep {
    /// For the machine.
    pub replies: Vec<StoreReply>,
    /// Bytes read and written.
    pub bytes: u64,
}

/// The compaction under way. Owner: the store.
pub(super) struct Cleaner<D: Disk> {
    limits: CleanerLimits,
    seed: u64,
    under_way: Option<Compaction<D>>,
}

impl<D: Disk> Cleaner<D> {
    /// None is.
    pub(super) fn new(limits: CleanerLimits) -> Self {
        let map_bytes_max = limits.map_bytes_max.max(MAP_BYTES_MIN);
        // Which bucket a key is in shows nowhere, so nothing has to be the same in the next run.
        let seed = RandomState::new().hash_one(0);
        Self { limits: CleanerLimits { map_bytes_max, ..limits }, seed, under_way: None }
    }

    /// Gives it up, if there is one.
    pub(super) fn abandon(&mut self, disk: &D) {
        if let Some(compaction) = self.under_way.take() {
            compaction.abandon(disk);
        }
    }
}

impl<D: Disk> SegmentStore<D> {
    /// Bounds of its compaction.
    #[must_use]
    pub fn cleaner_limits(&self) -> CleanerLimits {
        self.cleaner.limits
    }

    /// Whether [`compact`](Self::compact) has something to do.
    #[must_use]
    pub fn is_compacting(&self) -> bool {
        self.cleaner.under_way.as_ref().is_some_and(|compaction| !compaction.awaits_swap())
    }

    /// Goes on with the compaction under way, for a moment.
    ///
    /// # Errors
    /// Only those after which the process must stop.
    pub fn compact(&mut self) -> Result<CompactionStep, StoreError> {
        let Some(compaction) = self.cleaner.under_way.as_mut() else {
            return Ok(CompactionStep::default());
        };
        let (key, id) = (compaction.key, compaction.id);
        let Some(log) = self.logs.get_mut(&key) else {
            self.cleaner.abandon(&self.disk);
            return Ok(CompactionStep::default());
        };
        let mut step = CompactionStep::default();
        match compaction.step(&self.disk, log) {
            Ok(Step::Worked(bytes)) => step.bytes = bytes,
            Ok(Step::Rewritten) => step.replies.push(StoreReply::SegmentsRewritten { key, id }),
            Ok(Step::Finished(report)) => {
                self.cleaner.under_way = None;
                let view = log.view();
                step.replies.push(StoreReply::Compacted { key, id, view, result: Ok(report) });
            }
            Err(stop) => step.replies.push(self.give_up(stop)?),
        }
        Ok(step)
    }

    pub(super) fn begin_compaction(
        &mut self,
        key: ReplicaKey,
        id: u64,
        end_offset: Offset,
        now: TimestampMs,
    ) -> Result<Vec<StoreReply>, StoreError> {
        // The machine has given the one before up.
        self.cleaner.abandon(&self.disk);
        let Some(log) = self.logs.get_mut(&key).filter(|_| !self.failed.contains(&key)) else {
            return Ok(Vec::new());
        };
        let (map_bytes_max, seed) = (self.cleaner.limits.map_bytes_max, self.cleaner.seed);
        let job = (id, end_offset, now);
        match Compaction::begin(&self.disk, log, job, map_bytes_max, seed) {
            Ok(compaction) => {
                self.cleaner.under_way = Some(compaction);
                Ok(Vec::new())
            }
            Err(stop) => Ok(vec![self.stopped(key, id, stop)?]),
        }
    }

    pub(super) fn swap_segments(
        &mut self,
        key: ReplicaKey,
        id: u64,
    ) -> Result<Vec<StoreReply>, StoreError> {
        let mut replies = Vec::new();
        let own = self.cleaner.under_way.as_mut().filter(|it| (it.id, it.key) == (id, key));
        if let (Some(compaction), Some(log)) = (own, self.logs.get_mut(&key)) {
            self.files.close(key, None);
            if let Err(stop) = compaction.swap(&self.disk, log) {
                replies.push(self.give_up(stop)?);
            }
        }
        let view = self.logs.get(&key).map(|log| log.view());
        replies.insert(0, StoreReply::Swapped { key, view: view.unwrap_or_default() });
        Ok(replies)
    }

    /// A partition's segments are void or gone. The machine knows.
    pub(super) fn abandon_compaction(&mut self, key: ReplicaKey) {
        if self.cleaner.under_way.as_ref().is_some_and(|it| it.key == key) {
            self.cleaner.abandon(&self.disk);
        }
    }

    fn give_up(&mut self, stop: Stop) -> Result<StoreReply, StoreError> {
        let compaction = self.cleaner.under_way.take().expect("one is under way");
        let (key, id) = (compaction.key, compaction.id);
        let reply = self.stopped(key, id, stop)?;
        compaction.abandon(&self.disk);
        Ok(reply)
    }

    fn stopped(&self, key: ReplicaKey, id: u64, stop: Stop) -> Result<StoreReply, StoreError> {
        let log = self.logs.get(&key);
        let view = log.map(|log| log.view()).unwrap_or_default();
        let failure: CompactionFailure = match stop {
            Stop::GivenUp(failure) => failure,
            Stop::Sync(error) => {
                let path = log.map(|log| log.dir.clone()).unwrap_or_default();
                return Err(StoreError::Sync { path, error });
            }
        };
        Ok(StoreReply::Compacted { key, id, view, result: Err(failure) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_follow_work_and_a_limit_on_bytes_is_kept_to() {
        let millis = Duration::from_millis;
        let free = CleanerLimits::default();
        assert_eq!(free.rest_after(millis(10), 1 << 30), millis(60));
        assert_eq!(free.rest_after(Duration::from_secs(9), 0), REST_MAX);
        let limited =
            CleanerLimits { io_bytes_per_second_max: Some(1_000_000), ..CleanerLimits::default() };
        assert_eq!(limited.rest_after(millis(10), 100_000), millis(90));
        assert_eq!(limited.rest_after(millis(10), 1000), millis(60), "the pace is slower");
        assert_eq!(limited.rest_after(millis(10), 5_000_000), millis(4990));
    }
}
