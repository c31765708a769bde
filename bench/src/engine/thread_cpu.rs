//! What the calling thread costs.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// CPU time of a thread, and time in which it wanted a CPU and had none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ThreadCost {
    /// User and system time.
    pub cpu: Duration,
    /// Ready to run, and not running; `None` where the kernel does not say.
    pub waiting: Option<Duration>,
}

impl ThreadCost {
    /// Of the calling thread, since it began.
    pub(super) fn now() -> Self {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Self { cpu: Duration::new(seconds, nanos), waiting: run_delay() }
    }

    /// What was added since an earlier look.
    pub(super) fn since(self, earlier: Self) -> Self {
        let waiting = match (self.waiting, earlier.waiting) {
            (Some(now), Some(then)) => Some(now.saturating_sub(then)),
            _ => None,
        };
        Self { cpu: self.cpu.saturating_sub(earlier.cpu), waiting }
    }
}

/// The second number of `schedstat`. Source: the kernel's Documentation/scheduler/sched-stats.rst.
fn run_delay() -> Option<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanos = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
