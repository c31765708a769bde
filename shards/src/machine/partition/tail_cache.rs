//! Recent batches in memory: what tailing consumers read, and what is not yet in segments.
//!
//! A partition's part is [`CachedTail`]: contiguous batches that end at the log's end. First come the
//! *clean* ones, which are in segments too and may go at any time, then the *dirty* ones, which may
//! not. The shard's part is [`CacheOrder`]: all batches of all partitions in the order they came,
//! which is the order in which they go. Memory is bounded by the larger of the limit and what is
//! dirty; that in turn is bounded by the write-ahead log's size.
//!
//! Nothing is kept for readers that do not come: once no batch was cached for some time, the clean ones go.
//! The page cache still has what was read or written lately, and gives it up where memory is short.
//!
//! An entry of the order whose batch is gone (its partition was closed or fenced) is skipped when it
//! is reached.

use std::collections::VecDeque;

use super::gather::Gather;
use crate::format::compacted_batch;
use crate::format::record_batch::StoredBatch;
use crate::machine::partitions::{Partitions, Slot};
use crate::model::{MonotonicMicros, Offset};

/// What a cached batch costs beyond its bytes.
const BATCH_OVERHEAD_BYTES: usize = size_of::<StoredBatch>() + size_of::<(Slot, Offset, usize)>();

fn cost(batch: &StoredBatch) -> usize {
    batch.total_bytes() + BATCH_OVERHEAD_BYTES
}

/// The cached end of one log.
#[derive(Debug, Default)]
pub struct CachedTail {
    batches: VecDeque<StoredBatch>,
    /// How many at the front are in segments.
    clean: usize,
    /// Bytes of the batches that are not.
    dirty_bytes: u64,
    /// Where the small ones are.
    gather: Gather,
}

impl CachedTail {
    /// Offset of the first cached batch.
    pub fn first_offset(&self) -> Option<Offset> {
        self.batches.front().map(|batch| batch.header.base_offset)
    }

    /// Bytes of the batches that are not in segments.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    /// Takes the log's newest batch, and returns it where it is in memory now.
    pub fn push(&mut self, mut batch: StoredBatch) -> StoredBatch {
        debug_assert!(
            self.batches.back().is_none_or(|last| last.end_offset() == batch.header.base_offset),
            "cached batches are contiguous"
        );
        self.dirty_bytes += batch.total_bytes() as u64;
        batch.bytes = self.gather.take_in(batch.bytes);
        self.batches.push_back(batch.clone());
        batch
    }

    /// The batches that hold or follow `offset`, oldest first.
    pub fn from(&self, offset: Offset) -> impl Iterator<Item = &StoredBatch> {
        let first = self.batches.partition_point(|batch| batch.end_offset() <= offset);
        self.batches.range(first..)
    }

    /// Bytes of the batches that begin in `from..to`.
    pub fn bytes_between(&self, from: Offset, to: Offset) -> u64 {
        let begins = |batch: &&StoredBatch| batch.header.base_offset < to;
        self.from(from).take_while(begins).map(|batch| batch.total_bytes() as u64).sum()
    }

    /// The batches that are not in segments and end at or below `end`.
    pub fn dirty_until(&self, end: Offset) -> impl Iterator<Item = &StoredBatch> {
        self.batches.range(self.clean..).take_while(move |batch| batch.end_offset() <= end)
    }

    /// Everything below `end` is in segments now.
    pub fn clean_until(&mut self, end: Offset) {
        while let Some(batch) = self.batches.get(self.clean) {
            if batch.end_offset() > end {
                break;
            }
            self.dirty_bytes -= batch.total_bytes() as u64;
            self.clean += 1;
        }
    }

    /// Drops everything, dirty or not, and says what it was.
    pub fn clear(&mut self) -> Dropped {
        let dropped = Dropped { batches: self.batches.len(), cost: self.cost() };
        *self = Self::default();
        dropped
    }

    /// Drops what lies below `end` and is in segments, and says what it was.
    pub fn drop_clean_until(&mut self, end: Offset) -> Dropped {
        let below = self.batches.partition_point(|batch| batch.end_offset() <= end);
        let count = below.min(self.clean);
        let cost = self.batches.drain(..count).map(|batch| cost(&batch)).sum();
        self.clean -= count;
        Dropped { batches: count, cost }
    }

    /// Whether no cached batch has records on both sides of `offset`.
    pub fn has_border(&self, offset: Offset) -> bool {
        self.from(offset).next().is_none_or(|batch| {
            batch.header.base_offset >= offset || batch.header.is_empty_across(offset)
        })
    }

    /// Drops what lies at `end` and behind, dirty or not, and says what it was. Of a batch without records across it stays
    /// what lies below.
    pub fn truncate(&mut self, end: Offset) -> Dropped {
        let mut kept = self.batches.partition_point(|batch| batch.end_offset() <= end);
        if let Some(across) = self.batches.get_mut(kept)
            && across.header.is_empty_across(end)
        {
            // As long as before, so that nothing that is counted changes.
            *across = compacted_batch::shortened(&across.header, end);
            kept += 1;
        }
        let mut dropped = Dropped { batches: 0, cost: 0 };
        for (place, batch) in self.batches.drain(kept..).enumerate() {
            dropped.batches += 1;
            dropped.cost += cost(&batch);
            if kept + place >= self.clean {
                self.dirty_bytes -= batch.total_bytes() as u64;
            }
        }
        self.clean = self.clean.min(kept);
        dropped
    }

    /// Takes the front batch out if it is clean and begins at `base_offset`.
    fn evict(&mut self, base_offset: Offset) -> Evicted {
        match self.batches.front() {
            Some(front) if front.header.base_offset == base_offset => {
                if self.clean == 0 {
                    return Evicted::Dirty;
                }
                self.clean -= 1;
                let freed = cost(front);
                self.batches.pop_front();
                // A deque keeps its largest size; an idle partition must not.
                if self.batches.is_empty() {
                    self.batches = VecDeque::new();
                    self.gather = Gather::default();
                }
                Evicted::Freed(freed)
            }
            Some(_) | None => Evicted::Gone,
        }
    }

    /// What the batches cost, counted anew.
    pub fn cost(&self) -> usize {
        self.batches.iter().map(cost).sum()
    }

    /// Panics where the batches are not one contiguous run up to `log_end_offset`.
    pub fn check_invariants(&self, segments_end: Offset, log_end_offset: Offset) {
        let dirty = self.batches.range(self.clean..);
        let dirty_bytes: u64 = dirty.map(|batch| batch.total_bytes() as u64).sum();
        assert_eq!(dirty_bytes, self.dirty_bytes, "dirty bytes are counted");
        let mut end = None;
        for (place, batch) in self.batches.iter().enumerate() {
            assert!(end.is_none_or(|end| end == batch.header.base_offset), "no hole in the cache");
            assert_eq!(place < self.clean, batch.end_offset() <= segments_end, "clean in segments");
            end = Some(batch.end_offset());
        }
        assert_eq!(end.unwrap_or(segments_end), log_end_offset, "the cache ends with the log");
    }
}

/// What a partition's cache held when it was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dropped {
    batches: usize,
    cost: usize,
}

enum Evicted {
    Freed(usize),
    Dirty,
    Gone,
}

/// Cached batches of a shard, oldest first, and what they cost together.
#[derive(Debug, Default)]
pub struct CacheOrder {
    order: VecDeque<(Slot, Offset)>,
    bytes: usize,
    /// Entries whose batches were dropped out of order.
    stale: usize,
    /// When the newest batch came, or when dirty ones were last found in the way.
    busy_at: Option<MonotonicMicros>,
}

impl CacheOrder {
    /// A batch was cached.
    pub fn pushed(&mut self, now: MonotonicMicros, slot: Slot, batch: &StoredBatch) {
        self.busy_at = Some(now);
        self.order.push_back((slot, batch.header.base_offset));
        self.bytes += cost(batch);
    }

    /// A partition dropped its batches. Once most entries are stale they are swept out.
    pub fn forgot(&mut self, dropped: Dropped, partitions: &Partitions) {
        self.bytes -= dropped.cost;
        self.stale += dropped.batches;
        if self.stale > self.order.len() / 2 {
            self.order.retain(|(slot, base_offset)| {
                let first = partitions.get(*slot).and_then(|found| found.tail.first_offset());
                first.is_some_and(|first| first <= *base_offset)
            });
            self.stale = 0;
        }
    }

    /// Evicts the oldest until `limit` bytes are left or the oldest is not in segments.
    pub fn trim(&mut self, limit: usize, partitions: &mut Partitions) {
        while self.bytes > limit {
            let Some((slot, base_offset)) = self.order.front().copied() else { break };
            let evicted = match partitions.get_mut(slot) {
                Some(partition) => partition.tail.evict(base_offset),
                None => Evicted::Gone,
            };
            match evicted {
                Evicted::Freed(freed) => self.bytes -= freed,
                Evicted::Dirty => break,
                Evicted::Gone => self.stale = self.stale.saturating_sub(1),
            }
            self.order.pop_front();
        }
    }

    /// When [`Self::trim_idle`] has something to do.
    pub fn idle_deadline(&self, idle_ms: u64) -> Option<MonotonicMicros> {
        self.busy_at.map(|at| at.plus_millis(idle_ms))
    }

    /// Evicts what is in segments when no batch came for `idle_ms`.
    pub fn trim_idle(&mut self, now: MonotonicMicros, idle_ms: u64, partitions: &mut Partitions) {
        if self.idle_deadline(idle_ms).is_none_or(|at| at > now) {
            return;
        }
        self.trim(0, partitions);
        // What is left is dirty: it waits for a disk that is full.
        self.busy_at = (self.bytes > 0).then_some(now);
        if self.order.is_empty() {
            self.order = VecDeque::new();
        }
    }

    /// What is cached, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::sample_batch::SampleBatch;
    use crate::model::LeaderEpoch;

    /// Two records, nothing up to 10, two records.
    fn tail() -> CachedTail {
        let records = |base| SampleBatch { records: 2, ..SampleBatch::default() }.at(base, 1);
        let nothing = compacted_batch::filler(Offset(2), Offset(10), LeaderEpoch(1));
        let mut tail = CachedTail::default();
        for batch in [records(0), nothing, records(10)] {
            tail.push(batch);
        }
        tail
    }

    #[test]
    fn a_cut_leaves_of_a_batch_without_records_what_lies_below() {
        for (clean, clean_then) in [(0, 0), (2, 2), (10, 5), (12, 5)] {
            let mut tail = tail();
            tail.clean_until(Offset(clean));
            let before = tail.cost();
            assert!(tail.has_border(Offset(5)));
            let dropped = tail.truncate(Offset(5));
            assert_eq!((dropped.batches, dropped.cost), (1, before - tail.cost()));
            assert_eq!(tail.from(Offset(2)).next().map(StoredBatch::end_offset), Some(Offset(5)));
            // Its place in segments is what it was: the store cuts what it has of it.
            tail.check_invariants(Offset(clean_then), Offset(5));
        }
    }

    #[test]
    fn a_batch_with_records_is_not_cut() {
        let tail = tail();
        assert!(!tail.has_border(Offset(1)) && !tail.has_border(Offset(11)));
        assert!([0, 2, 10, 12].into_iter().all(|border| tail.has_border(Offset(border))));
    }
}
