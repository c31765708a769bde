//! What a follower gets where compaction has taken offsets out of the leader's log.
//!
//! A follower takes nothing that does not continue its log, so that nothing can be lost on the way. So holes are named: a
//! batch without records stands for them. It goes when the follower compacts its own log. Each is of the leader epoch
//! under which its offsets were written, so that leader and follower agree on where epochs begin.

use crate::format::compacted_batch::filler;
use crate::format::record_batch::StoredBatch;
use crate::model::{LeaderEpoch, Offset};

/// Where a leader's log may have holes.
#[derive(Clone, Copy, Debug)]
pub struct Holes<'a> {
    /// Below it only.
    pub end: Offset,
    /// The log's epochs and where each begins, oldest first.
    pub epochs: &'a [(LeaderEpoch, Offset)],
}

impl Holes<'_> {
    /// `batches` without holes from `next_offset` on, as far as compaction has made them.
    #[must_use]
    pub fn filled(&self, mut next_offset: Offset, batches: Vec<StoredBatch>) -> Vec<StoredBatch> {
        let mut filled = Vec::with_capacity(batches.len());
        for batch in batches {
            let (base, end) = (batch.header.base_offset, batch.end_offset());
            let is_empty = batch.header.record_count == 0;
            if base > next_offset && base <= self.end {
                self.fill(next_offset, base, batch.header.leader_epoch, &mut filled);
            }
            if base < next_offset && end > next_offset && is_empty {
                // Another leader had more there, and the follower has it.
                self.fill(next_offset, end, batch.header.leader_epoch, &mut filled);
            } else {
                filled.push(batch);
            }
            next_offset = next_offset.max(end);
        }
        filled
    }

    /// Names `from..end`; `epoch` is that of offsets of which nothing else is known.
    fn fill(&self, mut from: Offset, end: Offset, epoch: LeaderEpoch, out: &mut Vec<StoredBatch>) {
        while from < end {
            let later = self.epochs.partition_point(|(_, start)| *start <= from);
            let epoch = later.checked_sub(1).map_or(epoch, |place| self.epochs[place].0);
            let next = self.epochs.get(later).map_or(end, |(_, start)| end.min(*start));
            let until = next.min(from.plus(i64::from(i32::MAX)));
            out.push(filler(from, until, epoch));
            from = until;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::sample_batch::SampleBatch;

    const EPOCHS: &[(LeaderEpoch, Offset)] =
        &[(LeaderEpoch(1), Offset(0)), (LeaderEpoch(4), Offset(20))];

    fn batch(base: i64, records: i32, epoch: i32) -> StoredBatch {
        SampleBatch { records, ..SampleBatch::default() }.at(base, epoch)
    }

    /// First offset, end, epoch and number of records of each.
    fn lines(batches: &[StoredBatch]) -> Vec<(i64, i64, i32, i32)> {
        let line = |batch: &StoredBatch| {
            let header = &batch.header;
            let (base, end) = (header.base_offset.0, batch.end_offset().0);
            (base, end, header.leader_epoch.0, header.record_count)
        };
        batches.iter().map(line).collect()
    }

    #[test]
    fn holes_are_named_up_to_where_each_epoch_ends() {
        let holes = Holes { end: Offset(40), epochs: EPOCHS };
        let filled =
            holes.filled(Offset(5), vec![batch(8, 2, 1), batch(30, 3, 4), batch(33, 1, 4)]);
        assert_eq!(
            lines(&filled),
            [
                (5, 8, 1, 0),
                (8, 10, 1, 2),
                (10, 20, 1, 0),
                (20, 30, 4, 0),
                (30, 33, 4, 3),
                (33, 34, 4, 1)
            ]
        );
    }

    #[test]
    fn what_compaction_has_not_made_stays_a_gap() {
        let holes = Holes { end: Offset(7), epochs: EPOCHS };
        let filled = holes.filled(Offset(5), vec![batch(8, 2, 1), batch(12, 1, 1)]);
        assert_eq!(lines(&filled), [(8, 10, 1, 2), (12, 13, 1, 1)]);
    }

    #[test]
    fn a_batch_without_records_is_cut_to_what_the_follower_lacks() {
        let holes = Holes { end: Offset(40), epochs: EPOCHS };
        let empty = filler(Offset(2), Offset(9), LeaderEpoch(1));
        let filled = holes.filled(Offset(5), vec![empty, batch(9, 1, 1)]);
        assert_eq!(lines(&filled), [(5, 9, 1, 0), (9, 10, 1, 1)]);
        let filled = holes.filled(Offset(5), vec![batch(2, 7, 1)]);
        assert_eq!(lines(&filled), [(2, 9, 1, 7)], "records are not");
    }

    #[test]
    fn a_hole_beyond_what_one_batch_names_takes_several() {
        let far = Offset(5_000_000_000);
        let holes = Holes { end: far, epochs: &[] };
        let filled = holes.filled(Offset(0), vec![batch(far.0, 1, 3)]);
        let lines = lines(&filled);
        assert_eq!(lines.len(), 4);
        assert!(lines.windows(2).all(|pair| pair[0].1 == pair[1].0), "{lines:?}");
        assert!(lines.iter().all(|line| line.2 == 3));
    }
}
