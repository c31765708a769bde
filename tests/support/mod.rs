//! What the test targets share: a server process, a wire client, record batches, waiting.
//!
//! Nothing here sleeps for a fixed time: everything waits for a condition, with a deadline. A server
//! is found by the identity in its own data directory, never by its port alone.

#![allow(dead_code, reason = "every test target uses a part of it")]

pub mod batch;
pub mod client;
pub mod cluster;
pub mod groups;
pub mod links;
pub mod metrics;
pub mod random;
pub mod replicated;
pub mod requests;
pub mod server;
pub mod wal;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take to come true on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again and again until there is an answer; panics with `what` when there is none in time.
pub fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, condition)
}

/// Like [`wait_for`], with another patience.
pub fn wait_within<T>(
    patience: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} in vain: {what}");
        poll_pause();
    }
}

/// Between two looks at a condition.
pub fn poll_pause() {
    std::thread::sleep(Duration::from_millis(2));
}

/// A topic name that no other test uses, in this process or another.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
