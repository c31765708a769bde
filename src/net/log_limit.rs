//! Log lines that strangers can cause, limited per kind.

use std::time::{Duration, Instant};

/// One line of a kind is written in this time; the others are counted.
const INTERVAL: Duration = Duration::from_secs(10);

/// Limits lines of `KINDS` kinds. Owner: one shard.
#[derive(Debug)]
pub(super) struct LogLimit<const KINDS: usize> {
    kinds: [Kind; KINDS],
}

#[derive(Clone, Copy, Debug)]
struct Kind {
    last: Option<Instant>,
    suppressed: u64,
}

impl<const KINDS: usize> LogLimit<KINDS> {
    pub(super) fn new() -> Self {
        Self { kinds: [Kind { last: None, suppressed: 0 }; KINDS] }
    }

    /// Whether a line of this kind is written now: then the number of those that were not since the
    /// last one.
    pub(super) fn admit(&mut self, kind: usize, now: Instant) -> Option<u64> {
        let kind = &mut self.kinds[kind];
        if kind.last.is_some_and(|last| now.saturating_duration_since(last) < INTERVAL) {
            kind.suppressed += 1;
            return None;
        }
        kind.last = Some(now);
        Some(std::mem::take(&mut kind.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_kind_and_interval_and_the_rest_is_counted() {
        let (mut limit, start) = (LogLimit::<2>::new(), Instant::now());
        assert_eq!(limit.admit(0, start), Some(0));
        assert_eq!(limit.admit(0, start), None);
        assert_eq!(limit.admit(0, start + INTERVAL / 2), None);
        assert_eq!(limit.admit(1, start), Some(0));
        assert_eq!(limit.admit(0, start + INTERVAL), Some(2));
    }
}
