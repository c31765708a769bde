//! Bytes and nothing else: layouts on the wire and on the disk, their checks and their errors.
//!
//! Every decoder returns the bytes it consumed, checks every length against the bytes it was given,
//! and never allocates beyond them.

pub mod batch_builder;
pub mod checkpoint;
pub mod cleaner_checkpoint;
pub mod compacted_batch;
pub mod compression;
pub mod epoch_checkpoint;
pub mod group_record;
pub mod metadata_command;
pub mod metadata_frame;
pub mod metadata_snapshot;
pub mod partition_metadata;
pub mod peer_frame;
pub mod positions;
pub mod producer_snapshot;
pub mod record;
pub mod record_batch;
pub mod record_check;
#[cfg(any(test, feature = "simulation"))]
pub mod sample_batch;
pub mod segment_index;
pub mod wal;
pub mod wal_entry;
