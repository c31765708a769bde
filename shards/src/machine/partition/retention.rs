//! Which records are too old or too many. Works on one view of the segments; deletes nothing itself.
//!
//! Whole segments go, oldest first, never beyond the high watermark. The active segment goes only
//! when all of it is too old, and is rolled first.

use super::Partition;
use crate::machine::effect::SegmentMeta;
use crate::model::{Offset, TimestampMs};

/// What retention wants of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    /// All of it stays.
    Keep,
    /// The active segment is too old: roll it, then look again.
    Roll,
    /// Records below go.
    LogStart(Offset),
}

impl Partition {
    /// Whether time or size could ever remove something that is there now.
    pub fn has_retention(&self) -> bool {
        let limited = self.config.retention_ms.is_some() || self.config.retention_bytes.is_some();
        self.config.cleanup_delete && limited && self.log_end_offset > self.log_start_offset
    }

    /// What is due at `now`.
    pub fn retention(&self, now: TimestampMs) -> Retention {
        // A follower's log begins where its leader's does.
        if !self.config.cleanup_delete || self.has_failed || !self.leads() {
            return Retention::Keep;
        }
        let removable = |segment: &&SegmentMeta| {
            segment.end_offset > self.queued_log_start && segment.end_offset <= self.high_watermark
        };
        let kept_already = |segment: &&SegmentMeta| segment.end_offset <= self.queued_log_start;
        let mut remaining = self.tail.dirty_bytes()
            + self
                .view
                .iter()
                .filter(|s| !kept_already(s))
                .map(|segment| segment.bytes)
                .sum::<u64>();
        let mut log_start = self.queued_log_start;
        let candidates = self.view.sealed.iter().skip_while(kept_already);
        let mut all_go = true;
        for segment in candidates {
            let surplus = self.config.retention_bytes.is_some_and(|limit| {
                remaining.saturating_sub(limit) >= segment.bytes && remaining > limit
            });
            if !removable(&segment) || !(self.is_expired(segment, now) || surplus) {
                all_go = false;
                break;
            }
            remaining -= segment.bytes;
            log_start = segment.end_offset;
        }
        let active_expired = self.view.active.as_ref().is_some_and(|active| {
            active.bytes > 0 && removable(&active) && self.is_expired(active, now)
        });
        if all_go && active_expired {
            Retention::Roll
        } else if log_start > self.queued_log_start {
            Retention::LogStart(log_start)
        } else {
            Retention::Keep
        }
    }

    fn is_expired(&self, segment: &SegmentMeta, now: TimestampMs) -> bool {
        let newest = match segment.max_timestamp {
            TimestampMs::NONE => segment.created,
            timestamp => timestamp,
        };
        self.config.retention_ms.is_some_and(|limit| now.0.saturating_sub(newest.0) > limit)
    }
}
