//! One replica of a partition: positions, history, memory. Decides; the shard carries out.
//!
//! Positions, in order: log start ≤ high watermark ≤ log end, durable end ≤ log end, segments end ≤ log end.
//! Segments are ahead of the durable end when a run of large batches is in them and the WAL does not say so yet.
//! The high watermark is at most the durable end, unless `flush.messages` says that appended counts.

pub mod compaction;
pub mod epochs;
pub mod follower;
mod gather;
pub mod in_sync;
pub mod leader;
pub mod producers;
pub mod reader;
pub mod retention;
pub mod role;
pub mod tail_cache;

use self::epochs::Epochs;
use self::follower::Truncation;
use self::in_sync::InSyncSet;
use self::producers::Producers;
use self::role::{Placement, Role};
use self::tail_cache::{CachedTail, Dropped};
use super::acks::AckWaiters;
use super::effect::{LogView, RecoveredPartition};
use super::fetch_waits::WaitId;
use super::input::{PartitionConfig, PartitionInfo, PartitionSpec};
use crate::format::positions::PartitionCheckpoint;
use crate::model::{LeaderEpoch, Offset, ReplicaKey};

/// A partition that this shard has a replica of. Owner: the shard.
#[derive(Debug)]
pub struct Partition {
    /// Identity.
    pub key: ReplicaKey,
    /// For directories.
    pub topic_name: String,
    /// The topic's configuration.
    pub config: PartitionConfig,
    /// The newest leader epoch known.
    pub leader_epoch: LeaderEpoch,
    /// First offset a consumer may read. Moves once that is durable.
    pub log_start_offset: Offset,
    /// Where the log start will be once the WAL has it.
    pub queued_log_start: Offset,
    /// First offset a consumer may not read. Never falls.
    pub high_watermark: Offset,
    /// Below it, everything is in the WAL's durable part or in segments.
    pub durable_end: Offset,
    /// The next record's offset.
    pub log_end_offset: Offset,
    /// Up to where `flush.messages` let records count before they were durable.
    pub counted_early_end: Offset,
    /// Below it, everything is in segments.
    pub segments_end: Offset,
    /// The replicas whose positions make the high watermark.
    pub in_sync: InSyncSet,
    /// Leader epochs and where they begin.
    pub epochs: Epochs,
    /// Idempotent producers.
    pub producers: Producers,
    /// Recent batches.
    pub tail: CachedTail,
    /// The segments.
    pub view: LogView,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Produces that wait for a position.
    pub ack_waiters: AckWaiters,
    /// Fetches that wait for more.
    pub fetch_waits: Vec<WaitId>,
    /// Where the round under way leaves the segments' end.
    pub append_target: Option<Offset>,
    /// Whether it stands in the list of what the next round appends.
    pub is_dirty: bool,
    /// Whether the store has answered for its directory.
    pub is_opened: bool,
    /// Whether its files cannot be used: nothing is read or appended any more.
    pub has_failed: bool,
    /// Whether retention waits for the active segment to be rolled.
    pub awaits_roll: bool,
    /// Whether this replica leads.
    pub role: Role,
    /// The partition by the metadata.
    pub placement: Placement,
    /// Where the log will be cut once it is settled.
    pub truncation: Option<Truncation>,
    /// Whether segments hold what is void, until the store has answered.
    pub awaits_cut: bool,
    /// Below it, a recovery reads nothing from the WAL: a checkpoint covers it.
    pub covered_end: Offset,
    /// The same once the checkpoint under way is durable.
    pub covering_end: Offset,
    /// Whether files are about to be exchanged: one that is opened now may be either.
    pub is_swapping: bool,
    /// Whether compaction has met records that it cannot read.
    pub is_uncleanable: bool,
    /// Whether a coordinator of groups waits for its high watermark.
    pub is_coordinated: bool,
}

impl Partition {
    /// A partition as recovery left it, or an empty one.
    pub fn new(spec: PartitionSpec, recovered: Option<RecoveredPartition>) -> Self {
        let PartitionSpec { key, topic_name, leader_epoch, config } = spec;
        let (epochs, producers, view, start, end) = match recovered {
            Some(RecoveredPartition { state, view, is_ahead: _ }) => (
                Epochs::new(state.epochs),
                Producers::recovered(&state.producers),
                view,
                state.log_start_offset,
                state.flushed_end,
            ),
            None => (
                Epochs::default(),
                Producers::default(),
                LogView::default(),
                Offset::ZERO,
                Offset::ZERO,
            ),
        };
        assert!(start <= end, "{key}: recovered with log start {start} beyond its end {end}");
        Self {
            key,
            topic_name,
            config,
            leader_epoch,
            log_start_offset: start,
            queued_log_start: start,
            high_watermark: end,
            durable_end: end,
            log_end_offset: end,
            counted_early_end: Offset::ZERO,
            segments_end: end,
            in_sync: InSyncSet::alone(end),
            epochs,
            producers,
            tail: CachedTail::default(),
            segment_bytes: view.total_bytes(),
            view,
            ack_waiters: AckWaiters::default(),
            fetch_waits: Vec::new(),
            append_target: None,
            is_dirty: false,
            is_opened: false,
            has_failed: false,
            awaits_roll: false,
            role: Role::Leader,
            placement: Placement::default(),
            truncation: None,
            awaits_cut: false,
            covered_end: Offset::ZERO,
            covering_end: Offset::ZERO,
            is_swapping: false,
            is_uncleanable: false,
            is_coordinated: false,
        }
    }

    /// Takes the segments as they are now. What reached them becomes clean, and its producers are
    /// remembered as of there. Returns whether a segment was sealed that lies below the log start.
    pub fn set_view(&mut self, view: LogView) -> bool {
        let sealed_end = |view: &LogView| view.sealed.last().map(|segment| segment.end_offset);
        let has_sealed = sealed_end(&view) > sealed_end(&self.view);
        self.is_opened = true;
        self.segment_bytes = view.total_bytes();
        if let Some(end) = view.end_offset()
            && end > self.segments_end
            && !self.has_failed
        {
            assert!(end <= self.log_end_offset, "{}: segments end within the log", self.key);
            self.producers.flushed(self.tail.dirty_until(end));
            self.tail.clean_until(end);
            self.segments_end = end;
        }
        self.view = view;
        if self.append_target.is_some_and(|target| target <= self.segments_end) {
            self.append_target = None;
        }
        has_sealed && self.has_useless_segment()
    }

    /// Whether the oldest segment holds nothing that may be read.
    pub fn has_useless_segment(&self) -> bool {
        let oldest = self.view.sealed.first();
        oldest.is_some_and(|segment| segment.end_offset <= self.log_start_offset)
    }

    /// Gives the partition up: its files cannot be used.
    pub fn fail(&mut self) -> Dropped {
        self.has_failed = true;
        self.append_target = None;
        self.awaits_roll = false;
        self.tail.clear()
    }

    /// The log start is durable at `offset`. Returns whether that frees a segment.
    pub fn advance_log_start(&mut self, offset: Offset) -> bool {
        if offset <= self.log_start_offset {
            return false;
        }
        self.log_start_offset = offset;
        self.epochs.advance_start(offset);
        self.has_useless_segment()
    }

    /// Positions and size.
    pub fn info(&self) -> PartitionInfo {
        PartitionInfo {
            leader_epoch: self.leader_epoch,
            first_epoch: self.epochs.first().unwrap_or(self.leader_epoch),
            log_start_offset: self.log_start_offset,
            high_watermark: self.high_watermark,
            log_end_offset: self.log_end_offset,
            log_bytes: self.segment_bytes + self.tail.dirty_bytes(),
        }
    }

    /// Its line in a checkpoint: everything as of the end in segments. Recovery replays the batches
    /// beyond, and with them their epochs and producers.
    pub fn checkpoint(&self) -> PartitionCheckpoint {
        PartitionCheckpoint {
            key: self.key,
            log_start_offset: self.log_start_offset,
            high_watermark: self.high_watermark.min(self.durable_end),
            flushed_end: self.segments_end,
            leader_epoch: self.leader_epoch,
            epochs: self.epochs.below(self.segments_end),
            producers: self.producers.checkpoint(),
        }
    }

    /// Panics where an invariant does not hold.
    pub fn check_invariants(&self) {
        let key = self.key;
        let counted = self.durable_end.max(self.counted_early_end);
        assert!(self.log_start_offset <= self.high_watermark, "{key}: log start beyond readable");
        assert!(self.queued_log_start >= self.log_start_offset, "{key}: log start queued");
        assert!(self.queued_log_start <= self.high_watermark, "{key}: log start queued too far");
        assert!(self.high_watermark <= counted, "{key}: readable before it counts");
        assert!(self.durable_end <= self.log_end_offset, "{key}: durable beyond the log");
        assert!(self.segments_end <= self.log_end_offset, "{key}: flushed beyond the log");
        assert!(self.high_watermark <= self.in_sync.own(), "{key}: beyond the own position");
        assert!(self.covered_end <= self.segments_end, "{key}: covered beyond the segments");
        let (first_dirty, holes_end) = (self.view.first_dirty_offset, self.view.holes_end);
        assert!(first_dirty <= holes_end, "{key}: clean where it was compacted");
        assert!(self.awaits_cut || holes_end <= self.segments_end, "{key}: compacted too far");
        self.in_sync.check_invariants();
        let settled = self.truncation.is_none() || !self.leads();
        assert!(settled, "{key}: a leader's log is not cut");
        let target = self.append_target;
        assert!(target.is_none_or(|target| target > self.segments_end), "{key}: target reached");
        self.epochs.check_invariants();
        if !self.has_failed {
            self.tail.check_invariants(self.segments_end, self.log_end_offset);
            self.ack_waiters.check_invariants(self.in_sync.own(), self.high_watermark);
        }
        assert_eq!(self.segment_bytes, self.view.total_bytes(), "{key}: segment bytes counted");
    }
}
