//! Folding WAL entries into what each partition's log must look like.

use std::collections::BTreeMap;

use super::Damage;
use crate::format::compacted_batch;
use crate::format::record_batch::StoredBatch;
use crate::format::wal_entry::WalEntry;
use crate::model::{LeaderEpoch, Offset, ReplicaKey};

/// What the WAL says of a partition.
///
/// Batches are contiguous. Where they overlap the segments, they are the truth.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// The topic's name, if the WAL has it.
    pub topic_name: Option<String>,
    /// The largest leader epoch under which it was opened.
    pub leader_epoch: Option<LeaderEpoch>,
    /// The partition was closed at some time: segments from before are void.
    pub wiped: bool,
    /// The partition is closed.
    pub closed: bool,
    /// Segments hold everything below, durably.
    pub flushed: Option<Offset>,
    /// The partition was closed and is another one since: what a checkpoint says is of the one before.
    pub is_reborn: bool,
    /// Segments are void from here on.
    pub cut: Option<Offset>,
    /// The lowest cut there was: what an older checkpoint says of records from here on is void.
    pub lowest_cut: Option<Offset>,
    /// The end of the log, from the first batch that the WAL has.
    pub batches: Vec<StoredBatch>,
    /// The last log start.
    pub log_start: Option<Offset>,
    /// Batches behind a gap, which cannot be kept: the gap's begin, and their end.
    gap: Option<Gap>,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    from: Offset,
    resumed: Offset,
    end: Offset,
}

impl Overlay {
    /// The end of the batches.
    #[must_use]
    pub fn end_offset(&self) -> Option<Offset> {
        self.batches.last().map(StoredBatch::end_offset)
    }

    /// Whether a checkpoint's line is of a partition that is no more.
    #[must_use]
    pub fn voids_checkpoint(&self) -> bool {
        self.wiped || self.is_reborn
    }

    /// Whether what segments hold at `offset` and beyond is known from the WAL or void.
    #[must_use]
    pub fn covers(&self, offset: Offset) -> bool {
        let first = self.batches.first().map(|batch| batch.header.base_offset);
        self.wiped
            || first.or(self.cut).is_some_and(|from| from <= offset)
            || self.cut.is_some_and(|cut| cut <= offset)
    }

    fn apply(&mut self, entry: WalEntry) -> Result<(), String> {
        match entry {
            WalEntry::Opened { topic_name, leader_epoch, .. } => {
                self.topic_name = Some(topic_name);
                self.leader_epoch = self.leader_epoch.max(Some(leader_epoch));
                self.closed = false;
            }
            WalEntry::Batch { batch, .. } => return self.push(batch),
            WalEntry::LogStart { log_start_offset, .. } => {
                self.log_start = self.log_start.max(Some(log_start_offset));
            }
            WalEntry::Truncated { end_offset, .. } => self.truncate(end_offset),
            WalEntry::Flushed { end_offset, .. } => self.flush(end_offset),
            WalEntry::Closed { .. } => {
                let topic_name = self.topic_name.take();
                *self = Self { topic_name, wiped: true, closed: true, ..Self::default() };
            }
        }
        Ok(())
    }

    fn push(&mut self, batch: StoredBatch) -> Result<(), String> {
        let (base, end) = (batch.header.base_offset, batch.end_offset());
        if let Some(gap) = &mut self.gap {
            gap.end = gap.end.max(end);
            return Ok(());
        }
        let Some(expected) = self.end_offset().max(self.flushed) else {
            self.batches.push(batch);
            return Ok(());
        };
        let last_epoch = self.batches.last().map(|last| last.header.leader_epoch);
        if base == expected {
            self.batches.push(batch);
        } else if base > expected {
            self.gap = Some(Gap { from: expected, resumed: base, end });
        } else if self.batches.iter().rev().any(|known| known.header == batch.header) {
            // The same batch again.
        } else if self.batches.is_empty() && end <= expected {
            // Segments have it.
        } else if Some(batch.header.leader_epoch) > last_epoch {
            // A newer leader wrote over what an older one had left.
            self.truncate(base);
            self.batches.push(batch);
        } else {
            return Err(format!("a second batch at {base}, with the log at {expected}"));
        }
        Ok(())
    }

    /// What lies below `end` is in segments, and no longer the WAL's business.
    fn flush(&mut self, end: Offset) {
        self.batches.retain(|batch| batch.end_offset() > end);
        self.flushed = self.flushed.max(Some(end));
        self.cut = self.cut.filter(|cut| *cut > end);
        // The directory was removed before the partition had another one.
        self.is_reborn |= std::mem::take(&mut self.wiped);
    }

    fn truncate(&mut self, end: Offset) {
        self.flushed = self.flushed.map(|flushed| flushed.min(end));
        // Of one that says that nothing is there, as much stays as lies below.
        let across = self.batches.iter().find(|batch| batch.header.is_empty_across(end));
        let shortened = across.map(|batch| compacted_batch::shortened(&batch.header, end));
        self.batches.retain(|batch| batch.end_offset() <= end);
        self.batches.extend(shortened);
        self.cut = Some(self.cut.map_or(end, |cut| cut.min(end)));
        self.lowest_cut = Some(self.lowest_cut.map_or(end, |cut| cut.min(end)));
        if self.gap.is_some_and(|gap| end <= gap.from) {
            self.gap = None;
        }
    }
}

/// Folds entries, in the order of their writing.
pub fn fold(
    entries: impl Iterator<Item = WalEntry>,
    damages: &mut Vec<Damage>,
) -> BTreeMap<ReplicaKey, Overlay> {
    let mut replay: BTreeMap<ReplicaKey, Overlay> = BTreeMap::new();
    for entry in entries {
        let key = key(&entry);
        if let Err(what) = replay.entry(key).or_default().apply(entry) {
            damages.push(Damage { key: Some(key), topic_name: None, offsets: None, what });
        }
    }
    for (key, overlay) in &replay {
        let Some(gap) = overlay.gap else { continue };
        // A log start beyond the gap makes it a loss of nothing, but what follows it is not
        // contiguous with what there is, and cannot be told from a loss with certainty.
        let what = format!("missing in the WAL up to {}, and unusable behind it", gap.resumed);
        damages.push(Damage {
            key: Some(*key),
            topic_name: None,
            offsets: Some((gap.from, gap.end)),
            what,
        });
    }
    replay
}

fn key(entry: &WalEntry) -> ReplicaKey {
    match entry {
        WalEntry::Opened { key, .. }
        | WalEntry::Batch { key, .. }
        | WalEntry::LogStart { key, .. }
        | WalEntry::Truncated { key, .. }
        | WalEntry::Flushed { key, .. }
        | WalEntry::Closed { key } => *key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::sample_batch::SampleBatch;

    const KEY: ReplicaKey = ReplicaKey {
        topic_id: crate::model::TopicId([1; 16]),
        partition: crate::model::PartitionIndex(0),
    };

    fn batch(base: i64, epoch: i32) -> WalEntry {
        let batch = SampleBatch { records: 2, ..SampleBatch::default() }.at(base, epoch);
        WalEntry::Batch { key: KEY, batch }
    }

    fn truncated(end: i64) -> WalEntry {
        WalEntry::Truncated { key: KEY, end_offset: Offset(end) }
    }

    fn folded(entries: Vec<WalEntry>) -> (Overlay, Vec<(i64, i32)>, Vec<Damage>) {
        let mut damages = Vec::new();
        let overlay = fold(entries.into_iter(), &mut damages).remove(&KEY).unwrap();
        let place = |batch: &StoredBatch| (batch.header.base_offset.0, batch.header.leader_epoch.0);
        let places = overlay.batches.iter().map(place).collect();
        (overlay, places, damages)
    }

    fn flushed(end: i64) -> WalEntry {
        WalEntry::Flushed { key: KEY, end_offset: Offset(end) }
    }

    #[test]
    fn what_is_flushed_is_the_segments_business_and_what_follows_continues_it() {
        let (overlay, places, damages) =
            folded(vec![batch(4, 1), batch(6, 1), flushed(12), batch(12, 1)]);
        assert_eq!((overlay.flushed, places, damages), (Some(Offset(12)), vec![(12, 1)], vec![]));
        let (overlay, places, damages) = folded(vec![flushed(12), truncated(8), batch(8, 2)]);
        assert_eq!((overlay.flushed, places, damages), (Some(Offset(8)), vec![(8, 2)], vec![]));
        let (_, _, damages) = folded(vec![flushed(12), batch(14, 1)]);
        assert_eq!(damages[0].offsets, Some((Offset(12), Offset(16))));
    }

    #[test]
    fn segments_of_a_partition_that_was_closed_and_opened_again_are_its_own_once_flushed() {
        let opened =
            WalEntry::Opened { key: KEY, topic_name: "t".to_owned(), leader_epoch: LeaderEpoch(3) };
        let (overlay, _, _) = folded(vec![WalEntry::Closed { key: KEY }, opened, flushed(4)]);
        assert!(!overlay.wiped && overlay.voids_checkpoint());
    }

    #[test]
    fn batches_before_a_truncation_are_void_and_later_ones_take_their_place() {
        let entries = vec![batch(4, 1), batch(6, 1), batch(8, 1), truncated(6), batch(6, 2)];
        let (overlay, places, damages) = folded(entries);
        assert_eq!(places, [(4, 1), (6, 2)]);
        assert_eq!(overlay.cut, Some(Offset(6)));
        assert_eq!(damages, []);
    }

    #[test]
    fn of_a_batch_without_records_a_truncation_leaves_what_lies_below() {
        let nothing = compacted_batch::filler(Offset(6), Offset(20), LeaderEpoch(1));
        let nothing = WalEntry::Batch { key: KEY, batch: nothing };
        let (overlay, places, damages) =
            folded(vec![batch(4, 1), nothing.clone(), truncated(9), batch(9, 2)]);
        assert_eq!((places, damages), (vec![(4, 1), (6, 1), (9, 2)], vec![]));
        assert_eq!(overlay.batches[1].end_offset(), Offset(9));
        let (_, places, damages) = folded(vec![batch(4, 1), nothing, truncated(6), batch(6, 2)]);
        assert_eq!((places, damages), (vec![(4, 1), (6, 2)], vec![]));
    }

    #[test]
    fn a_batch_of_a_newer_leader_supersedes_and_a_repeated_one_is_the_same() {
        let (_, places, damages) = folded(vec![batch(4, 1), batch(6, 1), batch(4, 1), batch(6, 2)]);
        assert_eq!((places, damages), (vec![(4, 1), (6, 2)], vec![]));
    }

    #[test]
    fn a_gap_is_damage_and_names_everything_that_is_lost() {
        let (_, places, damages) = folded(vec![batch(4, 1), batch(8, 1), batch(10, 1)]);
        assert_eq!(places, [(4, 1)]);
        assert_eq!(damages[0].offsets, Some((Offset(6), Offset(12))));
        let (_, places, damages) =
            folded(vec![batch(4, 1), batch(8, 1), truncated(6), batch(6, 2)]);
        assert_eq!((places, damages), (vec![(4, 1), (6, 2)], vec![]));
    }

    #[test]
    fn two_values_at_one_offset_in_one_epoch_are_damage() {
        let other = SampleBatch { records: 2, value: b"x", ..SampleBatch::default() }.at(4, 1);
        let other = WalEntry::Batch { key: KEY, batch: other };
        let (_, _, damages) = folded(vec![batch(4, 1), batch(6, 1), other]);
        assert_eq!(damages.len(), 1);
    }

    #[test]
    fn closing_voids_all_and_opening_begins_anew() {
        let opened =
            WalEntry::Opened { key: KEY, topic_name: "t".to_owned(), leader_epoch: LeaderEpoch(3) };
        let entries = vec![batch(4, 1), WalEntry::Closed { key: KEY }, opened, batch(0, 3)];
        let (overlay, places, _) = folded(entries);
        assert_eq!(places, [(0, 3)]);
        assert!(overlay.wiped && !overlay.closed);
        assert_eq!(overlay.leader_epoch, Some(LeaderEpoch(3)));
    }
}
