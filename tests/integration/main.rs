//! A real server process on loopback, and what its clients see of it.
//!
//! One module a topic, one test a rule. `CHRONIK_TEST_REFERENCE=127.0.0.1:<port>` aims those that need
//! nothing but a broker at another one, which is how the client of these tests is itself tested.

#![allow(clippy::unwrap_used, reason = "a test target")]

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod cluster_data;
mod cluster_membership;
mod cluster_processes;
mod compaction;
mod damage;
mod disk_full;
mod fetch;
mod fetch_sessions;
mod groups;
mod hostile;
mod idempotence;
mod log_bounds;
mod metrics;
mod offsets;
mod order;
mod produce;
mod records;
mod repeats;
mod restart;
mod start;
mod topics;
mod versions;
