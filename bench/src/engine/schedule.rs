//! The times of a run, shared by its threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Nanoseconds since the run began.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that shows 0 now.
    #[must_use]
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// What it shows now.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        // 584 years fit.
        self.origin.elapsed().as_nanos() as u64
    }
}

/// A wish that everything ends, from a signal.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Wishes it.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it is wished.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// From when to when it counts.
#[derive(Debug)]
pub struct Window {
    from_ns: u64,
    to_ns: AtomicU64,
}

impl Window {
    /// A window on the run's clock.
    #[must_use]
    pub const fn new(from_ns: u64, to_ns: u64) -> Self {
        Self { from_ns, to_ns: AtomicU64::new(to_ns) }
    }

    /// Its begin.
    #[must_use]
    pub const fn from_ns(&self) -> u64 {
        self.from_ns
    }

    /// Its end.
    #[must_use]
    pub fn to_ns(&self) -> u64 {
        self.to_ns.load(Ordering::Relaxed)
    }

    /// Ends it at `now_ns` if it would last longer.
    pub fn end_at(&self, now_ns: u64) {
        self.to_ns.fetch_min(now_ns.max(self.from_ns + 1), Ordering::Relaxed);
    }
}

/// When a load sends, counts and stops.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// The clock of all times.
    pub clock: Clock,
    /// When the first request is due.
    pub start_ns: u64,
    /// What counts. Nothing is sent after its end.
    pub window: Arc<Window>,
    /// How long answers are awaited after the window.
    pub drain_max: Duration,
    /// Ends the window, and the drain.
    pub stop: StopFlag,
}

impl Schedule {
    /// Begins now: a ramp that does not count, then a window that does.
    #[must_use]
    pub fn begin(ramp: Duration, measure: Duration, drain_max: Duration, stop: StopFlag) -> Self {
        let clock = Clock::start();
        let start_ns = clock.now_ns();
        let from_ns = start_ns + ramp.as_nanos() as u64;
        let window = Arc::new(Window::new(from_ns, from_ns + measure.as_nanos() as u64));
        Self { clock, start_ns, window, drain_max, stop }
    }
}

/// What a load has done so far, for showing it.
#[derive(Debug, Default)]
pub struct Live {
    records: AtomicU64,
}

impl Live {
    pub(super) fn set_records(&self, records: u64) {
        self.records.store(records, Ordering::Relaxed);
    }

    /// Records that were done, ramp included.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }
}
