//! How long storage may rest: nobody waits for segments unless the log is about to be full.
//!
//! With much room left the store rests for most of the time between small writes. The fuller the log, the shorter the
//! rests, down to none with room enough left for what arrives until the round's end. So the pace settles
//! where segments keep up with what producers bring.
//!
//! Whoever reads what only the disk has rests as well, while there are producers: each commit waits behind the reads that
//! came before it.

use super::shard::{Life, ShardMachine};
use crate::model::MonotonicMicros;

/// The longest rests, in percent of the work before them.
const REST_PERCENT_MAX: u32 = 800;
/// Up to here they last, in percent of the log's bound.
const TAKEN_PERCENT_LEISURE: u32 = 25;
/// From here on there are none.
const TAKEN_PERCENT_HURRY: u32 = 60;

/// Rests after reads of the disk, in percent of the read before them.
const COLD_REST_PERCENT: u32 = 300;
/// So long after a commit there are producers.
const PRODUCERS_FOR_MICROS: u64 = 100_000;

impl ShardMachine {
    /// How long storage may rest after all work, in percent of what that took.
    ///
    /// Never while somebody waits for it: for a run that goes straight to segments, for a cut, or for a stop.
    #[must_use]
    pub fn storage_rest_percent(&self) -> u32 {
        if self.life != Life::Running || !self.runs.is_idle() || self.is_cutting() {
            return 0;
        }
        rest_percent(self.wal.taken_percent())
    }

    /// How long reads of the disk rest, in percent of what each took. Not at all where nobody writes.
    #[must_use]
    pub fn cold_rest_percent(&self, now: MonotonicMicros) -> u32 {
        let since = self.last_commit.map(|last| now.since(last));
        if since.is_some_and(|micros| micros < PRODUCERS_FOR_MICROS) {
            COLD_REST_PERCENT
        } else {
            0
        }
    }
}

const fn rest_percent(taken_percent: u32) -> u32 {
    let taken =
        if taken_percent < TAKEN_PERCENT_LEISURE { TAKEN_PERCENT_LEISURE } else { taken_percent };
    let span = TAKEN_PERCENT_HURRY - TAKEN_PERCENT_LEISURE;
    REST_PERCENT_MAX * TAKEN_PERCENT_HURRY.saturating_sub(taken) / span
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_shrink_as_the_log_fills_and_end_before_it_is_full() {
        assert_eq!(rest_percent(0), REST_PERCENT_MAX);
        assert_eq!(rest_percent(TAKEN_PERCENT_LEISURE), REST_PERCENT_MAX);
        assert_eq!(rest_percent(TAKEN_PERCENT_HURRY), 0);
        assert_eq!(rest_percent(100), 0);
        let all: Vec<u32> = (0..=100).map(rest_percent).collect();
        assert!(all.is_sorted_by(|one, next| one >= next), "{all:?}");
    }
}
