//! Decisions, and no IO: inputs and `now` go in, effects come out.
//!
//! No clock, no randomness, no files, no sockets, no async. What may be acknowledged is decided here
//! and only here; the simulator runs this same code.

pub mod compaction;
pub mod controller;
pub mod coordinators;
pub mod effect;
pub mod group;
pub mod input;
pub mod limits;
pub mod metadata;
pub mod replica;
pub mod replication;
pub mod shard;
pub mod survey;
pub mod topic_config;

mod acks;
mod fetch_waits;
mod large_runs;
mod log_start;
mod pacing;
mod partition;
mod partitions;
mod produce;
mod queue;
mod reads;
mod removals;
mod rounds;
mod wal;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
