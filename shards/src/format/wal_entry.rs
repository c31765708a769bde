//! What the write-ahead log remembers, before it is bytes: see [`super::wal`] for the layout.

use super::record_batch::StoredBatch;
use crate::model::{LeaderEpoch, Lsn, Offset, ReplicaKey, WalFileSeq};

/// A group of WAL entries on its way to the disk: one write.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its number.
    pub lsn: Lsn,
    /// The file.
    pub file: WalFileSeq,
    /// Position in the file: a multiple of [`super::wal::BLOCK_BYTES`].
    pub position: u64,
    /// Every commit up to this one was durable when this one was built.
    pub durable: Lsn,
    /// What it holds; empty for a seal.
    pub entries: Vec<WalEntry>,
}

/// What the WAL remembers.
#[derive(Clone, Debug)]
pub enum WalEntry {
    /// A partition is here from now on; names it, so that the WAL explains itself.
    Opened {
        /// Identity.
        key: ReplicaKey,
        /// The topic's name.
        topic_name: String,
        /// The leader epoch from now on.
        leader_epoch: LeaderEpoch,
    },
    /// Records.
    Batch {
        /// Whose.
        key: ReplicaKey,
        /// At their place, stamped.
        batch: StoredBatch,
    },
    /// Records below are gone (retention, DeleteRecords).
    LogStart {
        /// Whose.
        key: ReplicaKey,
        /// First offset there is.
        log_start_offset: Offset,
    },
    /// Records from here on are void (replication).
    Truncated {
        /// Whose.
        key: ReplicaKey,
        /// The log's end now.
        end_offset: Offset,
    },
    /// Segments hold the records below, durably: they were appended there and are not in the WAL.
    Flushed {
        /// Whose.
        key: ReplicaKey,
        /// The offset after the last of them.
        end_offset: Offset,
    },
    /// The partition is deleted.
    Closed {
        /// Whose.
        key: ReplicaKey,
    },
}
