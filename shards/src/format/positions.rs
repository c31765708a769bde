//! Where a partition stands: what a checkpoint remembers of it, before it is bytes. See
//! [`super::checkpoint`] for the layout.

use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, ReplicaKey, TimestampMs};

/// A partition's line in the checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionCheckpoint {
    /// Identity.
    pub key: ReplicaKey,
    /// First offset there is.
    pub log_start_offset: Offset,
    /// First offset not readable.
    pub high_watermark: Offset,
    /// The log's end in segments: everything below is synced.
    pub flushed_end: Offset,
    /// The epoch under which this node led it.
    pub leader_epoch: LeaderEpoch,
    /// Leader epochs and where each begins, oldest first. Source: KIP-101.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// Idempotent producers as of `flushed_end`.
    pub producers: Vec<ProducerCheckpoint>,
}

/// An idempotent producer's state on a partition. Source: KIP-98.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerCheckpoint {
    /// Identity.
    pub producer_id: ProducerId,
    /// Incarnation.
    pub producer_epoch: ProducerEpoch,
    /// When it last wrote; idle producers expire.
    pub last_timestamp: TimestampMs,
    /// Its last batches, oldest first, at most five.
    pub batches: Vec<ProducerBatch>,
}

/// One remembered batch of an idempotent producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerBatch {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Offset of its last record.
    pub last_offset: Offset,
    /// Its largest timestamp.
    pub timestamp: TimestampMs,
}
