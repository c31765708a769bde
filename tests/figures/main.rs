//! What an idle server costs, and how long a start takes, at a thousand partitions; the same of three nodes, and how
//! soon one of them takes over or does without another; what groups cost; and how fast a topic is compacted.
//!
//! `CHRONIK_FIGURES=1 cargo test --release --test figures -- --nocapture` measures and prints a table;
//! what depends on the clock of a machine is printed beside its aim and not asserted. Without the variable a
//! small variant runs, which asserts only what holds on any machine: no wake-ups, memory, nothing lost.

#![allow(clippy::unwrap_used, reason = "a test target")]

#[path = "../support/mod.rs"]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};

mod cluster;
mod compaction;
mod groups;
mod idle;
mod load;
mod process;
mod restart;
mod slow_disk;
mod table;

/// How much there is of everything.
#[derive(Clone, Copy, Debug)]
struct Size {
    topics: i32,
    partitions: i32,
    connections: usize,
    /// What is written, and gone, before the second look at an idle server.
    traffic_bytes: u64,
    /// What the hot topic gets before the server is killed.
    hot_bytes: u64,
    window_seconds: u64,
    /// Restarts of a kind that are measured.
    restarts: usize,
}

impl Size {
    fn asked_for() -> Self {
        if is_full() {
            return Self {
                topics: 10,
                partitions: 100,
                connections: 100,
                traffic_bytes: 1 << 30,
                hot_bytes: 512 << 20,
                window_seconds: 20,
                restarts: 5,
            };
        }
        Self {
            topics: 2,
            partitions: 20,
            connections: 10,
            traffic_bytes: 8 << 20,
            hot_bytes: 4 << 20,
            window_seconds: 1,
            restarts: 2,
        }
    }

    fn topic_names(self) -> impl Iterator<Item = String> {
        (0..self.topics).map(|number| format!("figures-{number}"))
    }
}

/// One measurement at a time: they would disturb each other.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // A measurement that failed leaves nothing behind that the next could trip over.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether to measure, on a machine that does nothing else.
fn is_full() -> bool {
    std::env::var_os("CHRONIK_FIGURES").is_some()
}
