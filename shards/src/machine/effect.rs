//! What a shard's machine wants done. The loop performs effects in order and feeds results back.

use std::fmt;
use std::sync::Arc;

use super::group::GroupResponse;
use super::input::{PartitionConfig, ProduceOutcomes, Token};
use crate::format::positions::{PartitionCheckpoint, ProducerCheckpoint};
use crate::format::record_batch::StoredBatch;
use crate::model::{LeaderEpoch, Lsn, Offset, ReplicaKey, TimestampMs, WalFileSeq};

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Answer a produce. With `acks=0` it says that the batches are in the log, not yet on the disk.
    ProduceDone {
        /// Whose.
        token: Token,
        /// One a partition, in request order.
        outcomes: ProduceOutcomes,
    },
    /// A parked fetch has enough, or its time is up: read again and answer.
    FetchReady {
        /// Whose.
        token: Token,
    },
    /// A DeleteRecords is durable.
    RecordsDeleted {
        /// Whose.
        token: Token,
        /// The log start now.
        log_start_offset: Offset,
    },
    /// A request to a coordinator of groups is answered.
    GroupAnswered {
        /// Whose.
        token: Token,
        /// The answer.
        response: Box<GroupResponse>,
    },
    /// A coordinator has to read its partition: ask `next_group_read` what, until it is done.
    LoadGroups {
        /// The partition.
        key: ReplicaKey,
        /// Which coordinator.
        leader_epoch: LeaderEpoch,
    },
    /// Something is wrong with a partition of groups: tell the operator.
    GroupsFailed {
        /// The partition.
        key: ReplicaKey,
        /// For the log line.
        reason: String,
    },
    /// Entries wait for a commit: have the WAL writer call `next_commit`.
    CommitPending,
    /// Prepare the WAL file `seq`: rename `recycle` if given, else write zeroes; sync the directory.
    PrepareWalFile {
        /// The file wanted.
        seq: WalFileSeq,
        /// A file none of whose entries is needed any more.
        recycle: Option<WalFileSeq>,
    },
    /// Hand a job to the storage thread. Jobs run in order.
    Store(StoreJob),
    /// The orderly stop is complete: everything is in segments and the checkpoint is written. On a
    /// full disk the segments lack what only the WAL has, as after a crash.
    Stopped,
}

/// The disk had no room for a WAL file; it is asked for again later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoSpace;

/// Work for the storage thread, which owns segment files, checkpoints and directories.
#[derive(Clone, Debug)]
pub enum StoreJob {
    /// Create the directory and its metadata if they do not exist.
    Open {
        /// Identity.
        key: ReplicaKey,
        /// Names the directory, with the partition.
        topic_name: String,
        /// When to roll.
        config: PartitionConfig,
    },
    /// The topic's configuration changed.
    Configure {
        /// Whose.
        key: ReplicaKey,
        /// When to roll from now on.
        config: PartitionConfig,
    },
    /// Append to the segments; rolls where the configuration says so. Starts writeback, no sync.
    Append {
        /// Whose.
        key: ReplicaKey,
        /// Contiguous, the first at the log's end in segments.
        batches: Vec<StoredBatch>,
        /// For rolling by age.
        now: TimestampMs,
    },
    /// Append as [`StoreJob::Append`] does, for several partitions, and make the segments durable up to there.
    AppendRuns {
        /// Whose, and contiguous batches of which the first may be in segments already.
        runs: Vec<(ReplicaKey, Vec<StoredBatch>)>,
        /// For rolling by age.
        now: TimestampMs,
    },
    /// Close the active segment and begin a new one at the log's end, unless it is empty.
    Roll {
        /// Whose.
        key: ReplicaKey,
    },
    /// Make everything appended so far durable, then write the checkpoint.
    Checkpoint(Box<CheckpointJob>),
    /// Remove segments that lie wholly below the log start.
    DeleteSegments {
        /// Whose.
        key: ReplicaKey,
        /// Segments that end at or below go; never the active one.
        log_start_offset: Offset,
    },
    /// Compact the log: of every key only the newest record stays, at its offset. Done in small steps between other jobs;
    /// one at a time. Answered by [`StoreReply::SegmentsRewritten`], once or several times, and at the end by
    /// [`StoreReply::Compacted`], unless the partition is cut, removed or fenced before.
    Compact {
        /// Whose.
        key: ReplicaKey,
        /// Names this compaction.
        id: u64,
        /// Segments that end at or below are compacted.
        end_offset: Offset,
        /// For tombstones.
        now: TimestampMs,
    },
    /// Put the rewritten segments in the place of the old ones. Answered by [`StoreReply::Swapped`].
    SwapSegments {
        /// Whose.
        key: ReplicaKey,
        /// Of which compaction.
        id: u64,
    },
    /// What lies at `end_offset` and behind is void: cut the segments there.
    Truncate {
        /// Whose.
        key: ReplicaKey,
        /// A border between batches; the log's end from now on.
        end_offset: Offset,
        /// Whether nothing is kept, so that the log begins at `end_offset`.
        begins_anew: bool,
    },
    /// The partition was deleted: rename its directory away, then remove it.
    Remove {
        /// Whose.
        key: ReplicaKey,
    },
    /// Try again to remove what could not be removed.
    RemoveLeftovers,
}

/// A round's end: what is known to be in segments.
#[derive(Clone, Debug)]
pub struct CheckpointJob {
    /// Every commit of this shard up to this one is in segments once the job is done.
    pub lsn: Lsn,
    /// Every partition of the shard.
    pub partitions: Vec<PartitionCheckpoint>,
}

/// What a [`StoreJob`] came to, in job order.
#[derive(Clone, Debug)]
pub enum StoreReply {
    /// The segments of a partition changed (open, append, roll, delete).
    Segments {
        /// Whose.
        key: ReplicaKey,
        /// How they are now.
        view: LogView,
    },
    /// [`StoreJob::AppendRuns`] is done. What was said of its partitions since the job before says
    /// what became of them: segments that end behind the run are durable up to there.
    RunsDone,
    /// The segments are cut.
    Truncated {
        /// Whose.
        key: ReplicaKey,
        /// How they are now.
        view: LogView,
        /// Idempotent producers as of their end.
        producers: Vec<ProducerCheckpoint>,
    },
    /// Rewritten segments are durable beside the old ones: exchange them.
    SegmentsRewritten {
        /// Whose.
        key: ReplicaKey,
        /// Of which compaction.
        id: u64,
    },
    /// The answer to [`StoreJob::SwapSegments`]: they were exchanged, or the compaction was over before.
    Swapped {
        /// Whose.
        key: ReplicaKey,
        /// How they are now.
        view: LogView,
    },
    /// A compaction came to its end.
    Compacted {
        /// Whose.
        key: ReplicaKey,
        /// Which one.
        id: u64,
        /// How the segments are now.
        view: LogView,
        /// What it came to.
        result: Result<CompactionReport, CompactionFailure>,
    },
    /// A checkpoint is durable.
    Checkpointed {
        /// Its number: WAL files that end at or below are free.
        lsn: Lsn,
    },
    /// The directory is gone, or left over: it is in nobody's way.
    Removed {
        /// Whose.
        key: ReplicaKey,
    },
    /// So many directories could not be removed: [`StoreJob::RemoveLeftovers`] is wanted later.
    Leftovers {
        /// How many there are.
        count: usize,
    },
    /// No space. Nothing of the job was kept; the machine gives it again later.
    NoSpace {
        /// Whose append it was; `None` for a checkpoint.
        key: Option<ReplicaKey>,
    },
    /// The partition's files cannot be used: fence it, not the node.
    Failed {
        /// Whose.
        key: ReplicaKey,
        /// For the log line.
        reason: String,
    },
}

impl StoreReply {
    /// Whose it is, if it is about one partition.
    #[must_use]
    pub fn key(&self) -> Option<ReplicaKey> {
        match self {
            Self::Segments { key, .. }
            | Self::Truncated { key, .. }
            | Self::SegmentsRewritten { key, .. }
            | Self::Swapped { key, .. }
            | Self::Compacted { key, .. }
            | Self::Removed { key }
            | Self::Failed { key, .. } => Some(*key),
            Self::NoSpace { key } => *key,
            Self::RunsDone | Self::Checkpointed { .. } | Self::Leftovers { .. } => None,
        }
    }
}

/// What a compaction did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CompactionReport {
    /// Bytes of the segments before.
    pub bytes_before: u64,
    /// Bytes of the segments after.
    pub bytes_after: u64,
    /// Records before.
    pub records_before: u64,
    /// Records after.
    pub records_after: u64,
    /// Segments before.
    pub segments_before: u64,
    /// Segments after.
    pub segments_after: u64,
    /// Keys in the part that was dirty.
    pub keys: u64,
    /// Up to here the log is compacted now.
    pub end_offset: Offset,
    /// Whether there was more, for which the table of keys had no room.
    pub was_map_full: bool,
}

impl fmt::Display for CompactionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "up to {}: {} bytes of {} in {} segments of {}, {} records of {}, {} keys{}",
            self.end_offset,
            self.bytes_after,
            self.bytes_before,
            self.segments_after,
            self.segments_before,
            self.records_after,
            self.records_before,
            self.keys,
            if self.was_map_full { ", all that log.cleaner.dedupe.buffer.size holds" } else { "" }
        )
    }
}

/// Why a compaction ended early.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompactionFailure {
    /// The disk had no room for the rewritten segments.
    #[error("the disk has no room")]
    NoSpace,
    /// The segments that it worked on are no more.
    #[error("its segments have changed")]
    Overtaken,
    /// Records could not be read, or files could not be written.
    #[error("{0}")]
    Unreadable(String),
}

/// The segments of a partition, oldest first.
#[derive(Clone, Debug, Default)]
pub struct LogView {
    /// Never written again. Shared: changes only on roll and deletion.
    pub sealed: Arc<[SegmentMeta]>,
    /// Being written; `None` before the first append.
    pub active: Option<SegmentMeta>,
    /// Below it, every key is there once at most.
    pub first_dirty_offset: Offset,
    /// Below it, compaction may have taken offsets out.
    pub holes_end: Offset,
    /// Grows whenever other files get the names of these.
    pub generation: u32,
}

impl LogView {
    /// The log's end in segments, or `None` when there is no segment.
    #[must_use]
    pub fn end_offset(&self) -> Option<Offset> {
        self.active.or_else(|| self.sealed.last().copied()).map(|segment| segment.end_offset)
    }

    /// All segments, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &SegmentMeta> {
        self.sealed.iter().chain(self.active.iter())
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.iter().map(|segment| segment.bytes).sum()
    }
}

/// One segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentMeta {
    /// Names the files; offset of the first record.
    pub base_offset: Offset,
    /// The offset after the last record.
    pub end_offset: Offset,
    /// Bytes of the log file that are valid.
    pub bytes: u64,
    /// Largest timestamp of its records, or [`TimestampMs::NONE`].
    pub max_timestamp: TimestampMs,
    /// When its first batch was appended: age for `segment.ms`.
    pub created: TimestampMs,
}

/// What recovery found of a partition; the machine starts from it.
#[derive(Clone, Debug)]
pub struct RecoveredPartition {
    /// Positions, epochs and producers as of the log's end (`flushed_end` is the log end offset).
    pub state: PartitionCheckpoint,
    /// Its segments.
    pub view: LogView,
    /// Segments go on beyond what WAL and checkpoint know of, durably.
    pub is_ahead: bool,
}

/// Where a shard's WAL goes on after recovery.
///
/// A shard whose WAL holds commits that no checkpoint covers keeps those files: its first checkpoint frees
/// them, as it would have in the process before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WalStart {
    /// Number of the next commit. All before it are durable.
    pub next_lsn: Lsn,
    /// The file it goes to.
    pub file: WalFileSeq,
    /// Size of that file, a multiple of the block size.
    pub file_bytes: u64,
    /// Where in that file it goes, a multiple of the block size.
    pub position: u64,
    /// The checkpoint covers every commit up to this one.
    pub checkpointed: Lsn,
    /// Bytes of the commits that it does not cover.
    pub uncovered_bytes: u64,
    /// Files before `file` that hold such commits, oldest first, and the last commit of each.
    pub full: Vec<(WalFileSeq, Lsn)>,
    /// Files that may be recycled.
    pub free: Vec<WalFileSeq>,
}

impl WalStart {
    /// A WAL that begins with an empty file, everything before it being in segments.
    #[must_use]
    pub fn empty(next_lsn: Lsn, file: WalFileSeq, file_bytes: u64) -> Self {
        Self {
            next_lsn,
            file,
            file_bytes,
            position: 0,
            checkpointed: Lsn(next_lsn.0.saturating_sub(1)),
            uncovered_bytes: 0,
            full: Vec::new(),
            free: Vec::new(),
        }
    }
}
