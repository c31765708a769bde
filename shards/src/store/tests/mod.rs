//! Whole stores on the simulated disk: what was durable in the WAL is there after any crash.

mod compacted_cuts;
mod compaction;
mod crash;
mod damage;
mod store;
mod truncate;
mod world;
