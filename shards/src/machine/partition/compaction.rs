//! How far a partition's log may be compacted, and how much it needs it. Works on one view of the segments.
//!
//! Never looked at are: what consumers may not read yet, what a recovery would read again from the write-ahead log, the
//! last segment, records that are younger than `min.compaction.lag.ms`, and everything behind such.

use super::Partition;
use crate::machine::effect::SegmentMeta;
use crate::model::{Offset, TimestampMs};

/// A ratio of 1, in the unit of [`PartitionConfig::min_cleanable_dirty_ppm`](crate::machine::input::PartitionConfig).
pub const PPM: u64 = 1_000_000;

/// Whether a partition is to be compacted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cleanable {
    /// Not before something happens to it.
    No,
    /// Perhaps a little later: time or others are waited for.
    Later,
    /// Now.
    Yes(Cleaning),
}

/// What there is to be compacted. The larger one goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cleaning {
    /// `max.compaction.lag.ms` has passed: how dirty it is does not matter.
    pub is_overdue: bool,
    /// Bytes of segments that were not compacted among all that may be, in millionths.
    pub dirty_ppm: u64,
    /// Segments that end at or below may be compacted.
    pub end_offset: Offset,
}

impl Partition {
    /// Whether and how far compaction is due at `now`.
    pub fn cleanable(&self, now: TimestampMs) -> Cleanable {
        let is_settled = !self.has_failed && !self.awaits_cut && self.truncation.is_none();
        if !self.config.cleanup_compact || self.is_uncleanable || !is_settled {
            return Cleanable::No;
        }
        // Where the last segment ends only its records say.
        let last = usize::from(self.view.active.is_none());
        let sealed = &self.view.sealed[..self.view.sealed.len().saturating_sub(last)];
        let clean = sealed.partition_point(|s| s.end_offset <= self.view.first_dirty_offset);
        let (clean, dirty) = sealed.split_at(clean);
        let limit = self.high_watermark.min(self.covered_end);
        let may_go = |segment: &&SegmentMeta| {
            let is_old = self.age_ms(segment, now) >= self.config.min_compaction_lag_ms;
            segment.end_offset <= limit && (self.config.min_compaction_lag_ms == 0 || is_old)
        };
        let cleanable: Vec<&SegmentMeta> = dirty.iter().take_while(may_go).collect();
        let (Some(first), Some(last)) = (cleanable.first(), cleanable.last()) else {
            return if dirty.is_empty() { Cleanable::No } else { Cleanable::Later };
        };
        let bytes = |segments: &mut dyn Iterator<Item = &SegmentMeta>| {
            segments.map(|segment| segment.bytes).sum::<u64>()
        };
        let dirty_bytes = bytes(&mut cleanable.iter().copied());
        let all = (bytes(&mut clean.iter()) + dirty_bytes).max(1);
        let dirty_ppm = (u128::from(dirty_bytes) * u128::from(PPM) / u128::from(all)) as u64;
        let is_overdue = self.config.max_compaction_lag_ms.is_some_and(|lag_ms| {
            // From its first record on, which is older than its largest time.
            now.0.saturating_sub(first.created.0) > lag_ms
        });
        if is_overdue || dirty_ppm > u64::from(self.config.min_cleanable_dirty_ppm) {
            return Cleanable::Yes(Cleaning { is_overdue, dirty_ppm, end_offset: last.end_offset });
        }
        let waits = self.config.max_compaction_lag_ms.is_some() || cleanable.len() < dirty.len();
        if waits { Cleanable::Later } else { Cleanable::No }
    }

    /// How long ago the newest record of a segment was written.
    fn age_ms(&self, segment: &SegmentMeta, now: TimestampMs) -> i64 {
        let newest = match segment.max_timestamp {
            TimestampMs::NONE => segment.created,
            timestamp => timestamp,
        };
        now.0.saturating_sub(newest.0)
    }
}
