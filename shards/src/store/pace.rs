//! How fast a storage thread goes: in small steps with rests between them while there is time, as fast as it can
//! when there is none.
//!
//! A disk that is given a round's segments at once has no room for the commits that come meanwhile, and makes each of
//! them wait for all of it. Nobody waits for segments, unless the write-ahead log is about to be full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Shorter rests are put together: a sleep has its own cost.
const REST_MIN: Duration = Duration::from_micros(100);
/// However long something took, the pace is looked at again after this.
const REST_MAX: Duration = Duration::from_millis(10);

/// How much goes to the device at once: a commit waits behind it.
const STEP_BYTES: usize = 128 << 10;
/// The same where nothing but speed counts.
pub const HURRIED_STEP_BYTES: usize = 1 << 20;

/// Set by the shard, kept to by its storage thread. Cloning gives another handle to the same pace.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    rest_percent: AtomicU32,
    owed_micros: AtomicU32,
}

impl Pace {
    /// From now on a rest follows all work, so many percent as long as that took. None is full speed.
    pub fn set_rest_percent(&self, percent: u32) {
        self.shared.rest_percent.store(percent, Ordering::Relaxed);
    }

    /// Largest write to give the device at once.
    #[must_use]
    pub fn step_bytes(&self) -> usize {
        let hurries = self.shared.rest_percent.load(Ordering::Relaxed) == 0;
        if hurries { HURRIED_STEP_BYTES } else { STEP_BYTES }
    }

    /// Rests after work that began at `begun`.
    pub fn rest_after(&self, begun: Instant) {
        let percent = self.shared.rest_percent.load(Ordering::Relaxed);
        if percent == 0 {
            self.shared.owed_micros.store(0, Ordering::Relaxed);
            return;
        }
        let owed = Duration::from_micros(self.shared.owed_micros.load(Ordering::Relaxed).into());
        let (rest, left) = due(owed, begun.elapsed(), percent);
        if !rest.is_zero() {
            thread::sleep(rest);
        }
        let left = u32::try_from(left.as_micros()).unwrap_or(u32::MAX);
        self.shared.owed_micros.store(left, Ordering::Relaxed);
    }
}

/// The rest after work that took so long with what was owed before: what is taken now, and what is owed on.
fn due(owed: Duration, worked: Duration, percent: u32) -> (Duration, Duration) {
    let rest = (owed + worked * percent / 100).min(REST_MAX);
    if rest < REST_MIN { (Duration::ZERO, rest) } else { (rest, Duration::ZERO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_follows_work_in_proportion_and_none_is_owed_at_full_speed() {
        let pace = Pace::default();
        assert_eq!(pace.step_bytes(), HURRIED_STEP_BYTES);
        pace.rest_after(Instant::now());
        assert_eq!(pace.shared.owed_micros.load(Ordering::Relaxed), 0);

        pace.set_rest_percent(800);
        assert_eq!(pace.step_bytes(), STEP_BYTES);
        let worked = Duration::from_micros(500);
        let begun = Instant::now().checked_sub(worked).expect("the machine is up for longer");
        let rested_from = Instant::now();
        pace.rest_after(begun);
        assert!(rested_from.elapsed() >= worked * 8);
    }

    #[test]
    fn short_rests_are_put_together_and_long_ones_are_bounded() {
        let micros = Duration::from_micros;
        assert_eq!(due(micros(0), micros(10), 800), (micros(0), micros(80)));
        assert_eq!(due(micros(80), micros(10), 800), (micros(160), micros(0)));
        assert_eq!(due(micros(0), Duration::from_secs(1), 800), (REST_MAX, micros(0)));
    }
}
