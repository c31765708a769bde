//! What a shard can be asked, and what it answers. Travels over the mesh as it is.

use bytes::Bytes;

use super::commit_times::CommitTimes;
use crate::io::log_reader::files::ReadCounts;
use crate::machine::compaction::CompactionTotals;
use crate::machine::group::{GroupRequest, GroupResponse};
use crate::machine::input::{
    EpochEnd, FetchError, FetchInput, PartitionInfo, ProduceOutcomes, ProducePartitions,
};
use crate::machine::survey::{Tally, WalUse};
use crate::model::{Acks, LeaderEpoch, MonotonicMicros, Offset, ReplicaKey, ShardId, TimestampMs};

/// A produce request's share for one shard.
#[derive(Clone, Debug)]
pub struct ProduceRequestPart {
    /// What the producer waits for.
    pub acks: Acks,
    /// When to give up waiting.
    pub deadline: MonotonicMicros,
    /// One batch a partition, in request order.
    pub partitions: ProducePartitions,
}

/// A partition's answer to a fetch, segments read.
#[derive(Clone, Debug)]
pub struct FetchedPartition {
    /// The partition.
    pub key: ReplicaKey,
    /// The records, or why there are none.
    pub result: Result<Fetched, FetchError>,
}

/// What a consumer gets of a partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// First offset a consumer may not read.
    pub high_watermark: Offset,
    /// First offset a read_committed consumer may not read.
    pub last_stable_offset: Offset,
    /// First offset there is.
    pub log_start_offset: Offset,
    /// Set when the client's history parts from ours: it truncates and asks again.
    pub diverging: Option<EpochEnd>,
    /// Whole batches, in order, to be sent one behind the other.
    pub records: Vec<Bytes>,
    /// Bytes of `records`.
    pub bytes: usize,
    /// Records of the batches, by their headers.
    pub record_count: u64,
}

/// A question for an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListOffset {
    /// The partition.
    pub key: ReplicaKey,
    /// The leader epoch the client knows, to be fenced by (KIP-320).
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Which offset.
    pub position: ListPosition,
}

/// Which offset of a partition. Source: ListOffsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ListPosition {
    /// The log start.
    Earliest,
    /// The high watermark.
    Latest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record at or after a time.
    Timestamp(TimestampMs),
}

/// An offset that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListedOffset {
    /// The offset.
    pub offset: Offset,
    /// The record's time; none for the log's ends.
    pub timestamp: TimestampMs,
    /// The epoch of the record, or of the leader for the log's end.
    pub leader_epoch: Option<LeaderEpoch>,
}

/// Where did an epoch end?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochQuestion {
    /// The partition.
    pub key: ReplicaKey,
    /// The leader epoch the client knows, to be fenced by.
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// The epoch asked for.
    pub asked: LeaderEpoch,
}

/// What a shard has done since it started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ShardReport {
    /// Whose.
    pub shard: ShardId,
    /// WAL commits on the disk.
    pub commits: u64,
    /// Their bytes, padding included.
    pub commit_bytes: u64,
    /// Times that other threads woke the shard.
    pub wakeups: u64,
    /// Messages taken from other threads.
    pub messages: u64,
    /// Requests from its own thread.
    pub own_requests: u64,
    /// Reads of segments.
    pub reads: ReadCounts,
    /// Storage jobs that wait for room.
    pub store_jobs_waiting: usize,
    /// Requests parked under a token.
    pub parked: usize,
    /// What compaction did.
    pub compaction: CompactionTotals,
    /// How long commits took.
    pub commit_times: CommitTimes,
    /// What inputs have left behind.
    pub tally: Tally,
    /// How much of its write-ahead log is taken.
    pub wal: WalUse,
}

#[derive(Debug)]
pub(super) enum Request {
    Produce(ProduceRequestPart),
    Fetch(FetchInput),
    WaitFetch {
        partitions: Vec<(ReplicaKey, Offset)>,
        min_bytes: usize,
        deadline: MonotonicMicros,
    },
    ListOffsets(Vec<ListOffset>),
    DeleteRecords {
        key: ReplicaKey,
        before: Option<Offset>,
    },
    EpochEnds(Vec<EpochQuestion>),
    Infos(Vec<ReplicaKey>),
    HighWatermarks(Vec<ReplicaKey>),
    /// To the coordinator of a partition. With a number the answer comes as a request of its own.
    Group {
        key: ReplicaKey,
        request: Box<GroupRequest>,
        answer_to: Option<u64>,
    },
    /// The answer to a request that had that number.
    GroupAnswer {
        answer_to: u64,
        response: Box<GroupResponse>,
    },
    Report,
}

#[derive(Debug)]
pub(super) enum Reply {
    Produced(ProduceOutcomes),
    Fetched(Vec<FetchedPartition>),
    Ready,
    Listed(Vec<Result<Option<ListedOffset>, FetchError>>),
    Deleted(Result<Offset, FetchError>),
    EpochEnds(Vec<Result<Option<EpochEnd>, FetchError>>),
    Infos(Vec<Option<PartitionInfo>>),
    HighWatermarks(Vec<Option<Offset>>),
    Group(Box<GroupResponse>),
    /// It is taken.
    Taken,
    Report(Box<ShardReport>),
}
