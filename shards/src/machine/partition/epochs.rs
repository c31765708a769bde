//! Leader epochs of a log and where each begins. Source: KIP-101, KIP-279.
//!
//! Invariant: epochs and their start offsets both grow strictly. An epoch enters with its first
//! batch, so an epoch under which nothing was written is not here; the partition's current epoch is
//! passed in where it matters.

use crate::machine::input::EpochEnd;
use crate::model::{LeaderEpoch, Offset};

/// Epochs of one log, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Epochs {
    starts: Vec<(LeaderEpoch, Offset)>,
}

impl Epochs {
    /// Takes over what a checkpoint or a recovery says.
    pub fn new(starts: Vec<(LeaderEpoch, Offset)>) -> Self {
        Self { starts }
    }

    /// Remembers that `epoch` begins at `offset`, unless it began before.
    ///
    /// # Panics
    /// When `epoch` is older than the newest known: a leader's epoch only grows.
    pub fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) {
        let Some((newest, start)) = self.starts.last().copied() else {
            self.starts.push((epoch, offset));
            return;
        };
        assert!(newest <= epoch, "{epoch:?} after {newest:?}");
        if newest < epoch {
            // Truncation or a lost tail may leave an epoch without records at the same offset.
            if start >= offset {
                self.starts.pop();
            }
            self.starts.push((epoch, offset));
        }
    }

    /// Forgets what lies wholly below `log_start_offset`.
    pub fn advance_start(&mut self, log_start_offset: Offset) {
        let gone = self.starts.partition_point(|(_, start)| *start <= log_start_offset);
        if gone > 0 {
            self.starts.drain(..gone - 1);
            self.starts[0].1 = log_start_offset;
        }
    }

    /// The epochs that have a record below `end_offset`.
    pub fn below(&self, end_offset: Offset) -> Vec<(LeaderEpoch, Offset)> {
        self.starts.iter().copied().filter(|(_, start)| *start < end_offset).collect()
    }

    /// Forgets the epochs that begin at `end_offset` or behind: the log was cut there.
    pub fn truncate(&mut self, end_offset: Offset) {
        let kept = self.starts.partition_point(|(_, start)| *start < end_offset);
        self.starts.truncate(kept);
    }

    /// The newest epoch that has a record.
    pub fn last(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|(epoch, _)| *epoch)
    }

    /// All of them, oldest first.
    pub fn starts(&self) -> &[(LeaderEpoch, Offset)] {
        &self.starts
    }

    /// The oldest epoch that has a record.
    pub fn first(&self) -> Option<LeaderEpoch> {
        self.starts.first().map(|(epoch, _)| *epoch)
    }

    /// Where `asked` ended: the largest epoch not above it, and the start of the next or the log's
    /// end. `None` when `asked` is newer than `current` or nothing is known of it.
    ///
    /// An epoch older than all that is known is answered with itself and the oldest start, as Kafka
    /// does: nothing of it is left.
    pub fn end_of(
        &self,
        asked: LeaderEpoch,
        current: LeaderEpoch,
        log_end_offset: Offset,
    ) -> Option<EpochEnd> {
        if asked > current || asked < LeaderEpoch(0) {
            return None;
        }
        if asked == current {
            return Some(EpochEnd { epoch: asked, end_offset: log_end_offset });
        }
        let next = self.starts.partition_point(|(epoch, _)| *epoch <= asked);
        let end_offset = self.starts.get(next).map_or(log_end_offset, |(_, start)| *start);
        let epoch = match next.checked_sub(1) {
            Some(floor) => self.starts[floor].0,
            None => asked,
        };
        Some(EpochEnd { epoch, end_offset })
    }

    /// Panics where the invariant does not hold.
    pub fn check_invariants(&self) {
        for pair in self.starts.windows(2) {
            assert!(pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1, "epochs grow: {pair:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs() -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start) in [(1, 0), (1, 5), (3, 10), (4, 20)] {
            epochs.assign(LeaderEpoch(epoch), Offset(start));
        }
        epochs
    }

    fn end(asked: i32) -> Option<(i32, i64)> {
        let found = epochs().end_of(LeaderEpoch(asked), LeaderEpoch(6), Offset(30));
        found.map(|end| (end.epoch.0, end.end_offset.0))
    }

    #[test]
    fn an_epoch_ends_where_the_next_known_one_begins() {
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(end(3), Some((3, 20)));
    }

    #[test]
    fn an_epoch_without_records_is_answered_with_the_largest_one_below() {
        assert_eq!(end(2), Some((1, 10)));
        assert_eq!(end(5), Some((4, 30)));
    }

    #[test]
    fn the_current_epoch_ends_at_the_log_end_and_a_newer_one_is_unknown() {
        assert_eq!(end(6), Some((6, 30)));
        assert_eq!(end(7), None);
        assert_eq!(end(-1), None);
    }

    #[test]
    fn an_epoch_older_than_the_log_ends_at_its_beginning() {
        assert_eq!(end(0), Some((0, 0)));
    }

    #[test]
    fn a_cut_forgets_epochs_that_begin_there_or_behind() {
        let mut epochs = epochs();
        epochs.truncate(Offset(20));
        assert_eq!(epochs.last(), Some(LeaderEpoch(3)));
        epochs.truncate(Offset(11));
        assert_eq!(epochs.last(), Some(LeaderEpoch(3)), "it has a record at 10");
        epochs.truncate(Offset::ZERO);
        assert_eq!(epochs.starts(), []);
    }

    #[test]
    fn log_start_forgets_epochs_wholly_below_it() {
        let mut epochs = epochs();
        epochs.advance_start(Offset(10));
        assert_eq!(
            epochs.below(Offset(99)),
            [(LeaderEpoch(3), Offset(10)), (LeaderEpoch(4), Offset(20))]
        );
        epochs.advance_start(Offset(15));
        assert_eq!(epochs.below(Offset(20)), [(LeaderEpoch(3), Offset(15))]);
        assert_eq!(epochs.first(), Some(LeaderEpoch(3)));
    }
}
