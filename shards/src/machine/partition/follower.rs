//! A follower's log: it takes what the leader has, at the leader's offsets, and cuts off what the leader has not.

use super::Partition;
use super::role::Role;
use super::tail_cache::Dropped;
use crate::format::positions::ProducerCheckpoint;
use crate::format::record_batch::StoredBatch;
use crate::machine::effect::LogView;
use crate::model::{Now, Offset};

/// Why a follower does not take a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FollowError {
    /// It does not continue the log, or its leader epoch is older than the log's last or newer than the leader's.
    Gap {
        /// What would have.
        expected: Offset,
    },
    /// The files cannot be used.
    Storage,
}

/// Where a follower's log is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Truncation {
    /// The log's end from then on.
    pub end_offset: Offset,
    /// Whether nothing is kept, and the log begins there.
    pub begins_anew: bool,
}

/// What a cut changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// Of the cache.
    pub dropped: Dropped,
    /// Whether segments hold what is void now.
    pub reaches_segments: bool,
}

impl Partition {
    /// Takes a batch of the leader, and returns it where it is in memory now.
    ///
    /// # Errors
    /// Why nothing was appended.
    pub fn append_replica(
        &mut self,
        now: Now,
        batch: StoredBatch,
    ) -> Result<StoredBatch, FollowError> {
        if self.has_failed {
            return Err(FollowError::Storage);
        }
        let (header, expected) = (&batch.header, self.log_end_offset);
        let epoch = header.leader_epoch;
        let is_old = self.epochs.last().is_some_and(|last| epoch < last) || epoch.0 < 0;
        if header.base_offset != expected || is_old || epoch > self.leader_epoch {
            return Err(FollowError::Gap { expected });
        }
        self.epochs.assign(epoch, expected);
        self.producers.appended(header, now.wall);
        self.log_end_offset = batch.end_offset();
        Ok(self.tail.push(batch))
    }

    /// Takes what the leader says of its positions. Returns the log start to move to, if it is another.
    pub fn learn_positions(&mut self, high_watermark: Offset, log_start: Offset) {
        if let Role::Follower { high_watermark: known, log_start_offset } = &mut self.role {
            *known = (*known).max(high_watermark);
            *log_start_offset = (*log_start_offset).max(log_start);
        }
    }

    /// The log start that the leader has and this replica may move to, if it is not there yet.
    pub fn due_log_start(&self) -> Option<Offset> {
        let Role::Follower { log_start_offset, .. } = self.role else { return None };
        let due = log_start_offset.min(self.high_watermark);
        (due > self.queued_log_start).then_some(due)
    }

    /// Whether nothing of this partition is on its way to the WAL or to segments.
    ///
    /// A run counts as on its way until the WAL says durably that segments have it. A cut waits for that: afterwards no answer that is under way speaks of what is void.
    pub fn is_settled(&self) -> bool {
        self.durable_end == self.log_end_offset
            && self.append_target.is_none()
            && !self.awaits_cut
            && self.queued_log_start == self.log_start_offset
    }

    /// Cuts the log. `None`: it has no border of batches there.
    ///
    /// # Panics
    /// When it is not settled.
    pub fn cut(&mut self, truncation: Truncation) -> Option<Cut> {
        assert!(self.is_settled(), "{}: cut while something is under way", self.key);
        let Truncation { end_offset: end, begins_anew } = truncation;
        if begins_anew {
            return Some(self.begin_anew(end));
        }
        if end < self.log_start_offset || end > self.log_end_offset || !self.tail.has_border(end) {
            return None;
        }
        let reaches_segments = end < self.segments_end;
        let dropped = self.tail.truncate(end);
        self.log_end_offset = end;
        self.durable_end = end;
        self.counted_early_end = self.counted_early_end.min(end);
        self.in_sync.cut_own(end);
        self.covered_end = self.covered_end.min(end);
        self.covering_end = self.covering_end.min(end);
        // Only an unclean election makes a leader that lacks what was readable.
        self.high_watermark = self.high_watermark.min(end);
        self.epochs.truncate(end);
        if reaches_segments {
            self.segments_end = end;
            self.awaits_cut = true;
            self.producers.cut(end);
        } else {
            self.producers.replay(self.tail.dirty_until(end));
        }
        Some(Cut { dropped, reaches_segments })
    }

    fn begin_anew(&mut self, start: Offset) -> Cut {
        let dropped = self.tail.clear();
        for position in [
            &mut self.log_start_offset,
            &mut self.queued_log_start,
            &mut self.high_watermark,
            &mut self.durable_end,
            &mut self.log_end_offset,
            &mut self.segments_end,
        ] {
            *position = start;
        }
        self.counted_early_end = Offset::ZERO;
        self.covered_end = Offset::ZERO;
        self.covering_end = Offset::ZERO;
        self.in_sync.restart_own(start);
        self.epochs.truncate(Offset::ZERO);
        self.producers.cut(Offset::ZERO);
        self.awaits_cut = true;
        Cut { dropped, reaches_segments: true }
    }

    /// The segments are cut: `view` is what is left of them, `producers` who wrote it.
    pub fn segments_cut(&mut self, view: LogView, producers: &[ProducerCheckpoint]) {
        self.awaits_cut = false;
        self.is_swapping = false;
        self.segment_bytes = view.total_bytes();
        self.view = view;
        self.producers.restore(producers, self.tail.dirty_until(self.log_end_offset));
    }
}
