//! How long commits take, from when the writer takes one until it is on the disk.

use std::cell::RefCell;

use crate::model::{Lsn, MonotonicMicros};

/// Upper bounds of the classes that commits are counted in, in microseconds; one more class has those beyond.
pub const COMMIT_MICROS_BOUNDS: [u64; 16] = [
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000,
];

/// Commits by how long they took.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CommitTimes {
    /// How many took no longer than the bound of their class, and longer than the one before.
    pub counts: [u64; COMMIT_MICROS_BOUNDS.len() + 1],
    /// How long all of them took together.
    pub sum_micros: u64,
}

impl CommitTimes {
    pub(super) fn add(&mut self, micros: u64) {
        self.counts[COMMIT_MICROS_BOUNDS.partition_point(|bound| *bound < micros)] += 1;
        self.sum_micros += micros;
    }
}

/// When the commits that are being written were begun. As many as the writer has out at once: a handful.
#[derive(Debug, Default)]
pub(super) struct CommitsBegun(RefCell<Vec<(Lsn, MonotonicMicros)>>);

impl CommitsBegun {
    pub(super) fn begin(&self, lsn: Lsn, now: MonotonicMicros) {
        self.0.borrow_mut().push((lsn, now));
    }

    /// How long the commit took, in microseconds.
    pub(super) fn end(&self, lsn: Lsn, now: MonotonicMicros) -> u64 {
        let mut begun = self.0.borrow_mut();
        let place = begun.iter().position(|(of, _)| *of == lsn);
        place.map_or(0, |place| now.since(begun.swap_remove(place).1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_in_the_first_class_whose_bound_it_keeps() {
        let mut times = CommitTimes::default();
        for micros in [0, 50, 51, 100, 5_000_000, 5_000_001] {
            times.add(micros);
        }
        let mut expected = [0; 17];
        (expected[0], expected[1], expected[15], expected[16]) = (2, 2, 1, 1);
        assert_eq!(times.counts, expected);
        assert_eq!(times.sum_micros, 10_000_202);
    }

    #[test]
    fn commits_end_in_any_order() {
        let begun = CommitsBegun::default();
        begun.begin(Lsn(1), MonotonicMicros(10));
        begun.begin(Lsn(2), MonotonicMicros(15));
        assert_eq!(begun.end(Lsn(2), MonotonicMicros(20)), 5);
        assert_eq!(begun.end(Lsn(1), MonotonicMicros(40)), 30);
        assert!(begun.0.borrow().is_empty());
    }
}
