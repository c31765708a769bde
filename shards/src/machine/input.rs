//! What a shard's machine is asked, and what it answers.

use smallvec::SmallVec;

use crate::format::record_batch::{ProducedBatch, StoredBatch};
use crate::model::{
    Acks, LeaderEpoch, MonotonicMicros, NodeId, Offset, ProducerEpoch, ProducerId, ReplicaKey,
    TimestampMs,
};

/// Names a parked request. Chosen by the caller, unique on the shard while it is parked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// The configuration of a topic as its partitions need it: numbers, already validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionConfig {
    /// `max.message.bytes`: largest batch, header included.
    pub max_message_bytes: usize,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `retention.ms`; `None` keeps records for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// Whether `cleanup.policy` contains `delete`.
    pub cleanup_delete: bool,
    /// Whether `cleanup.policy` contains `compact`.
    pub cleanup_compact: bool,
    /// `delete.retention.ms`: how long compaction keeps a tombstone.
    pub delete_retention_ms: i64,
    /// `min.cleanable.dirty.ratio`, in millionths.
    pub min_cleanable_dirty_ppm: u32,
    /// `min.compaction.lag.ms`: younger records are not compacted.
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`: older records are, however few they are; `None` is no limit.
    pub max_compaction_lag_ms: Option<i64>,
    /// Whether `message.timestamp.type` is `LogAppendTime`.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`; `None` is no limit.
    pub timestamp_before_max_ms: Option<i64>,
    /// `message.timestamp.after.max.ms`; `None` is no limit.
    pub timestamp_after_max_ms: Option<i64>,
    /// `flush.messages`: 1 acknowledges only what is on the disk.
    pub flush_messages: u64,
    /// `flush.ms`.
    pub flush_ms: u64,
}

impl Default for PartitionConfig {
    /// Kafka's defaults, and `flush.messages=1`.
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            min_insync_replicas: 1,
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            retention_ms: Some(7 * 24 * 3600 * 1000),
            retention_bytes: None,
            cleanup_delete: true,
            cleanup_compact: false,
            delete_retention_ms: 24 * 3600 * 1000,
            min_cleanable_dirty_ppm: 500_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: None,
            log_append_time: false,
            timestamp_before_max_ms: None,
            timestamp_after_max_ms: Some(3_600_000),
            flush_messages: 1,
            flush_ms: u64::MAX,
        }
    }
}

/// A partition that this shard shall own and lead.
#[derive(Clone, Debug)]
pub struct PartitionSpec {
    /// Identity.
    pub key: ReplicaKey,
    /// For directories and log lines.
    pub topic_name: String,
    /// The epoch under which this node leads it.
    pub leader_epoch: LeaderEpoch,
    /// The topic's configuration.
    pub config: PartitionConfig,
}

/// Batches for one shard, one a partition. Most requests have one: it travels without memory of its own, which one thread
/// would allocate and another free.
pub type ProducePartitions = SmallVec<[ProducePartition; 1]>;
/// What became of them, in the same order.
pub type ProduceOutcomes = SmallVec<[ProduceOutcome; 1]>;

/// A produce request's share for one shard.
#[derive(Clone, Debug)]
pub struct ProduceInput {
    /// Under which [`super::effect::Effect::ProduceDone`] will answer.
    pub token: Token,
    /// What the producer waits for.
    pub acks: Acks,
    /// When to give up waiting.
    pub deadline: MonotonicMicros,
    /// One batch a partition, in request order.
    pub partitions: ProducePartitions,
}

/// One batch for one partition.
#[derive(Clone, Debug)]
pub struct ProducePartition {
    /// Where it goes.
    pub key: ReplicaKey,
    /// What goes there.
    pub batch: ProducedBatch,
}

/// The answer to a [`ProducePartition`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceOutcome {
    /// The partition.
    pub key: ReplicaKey,
    /// Where the batch is, or why it is not there.
    pub result: Result<Appended, ProduceError>,
}

/// A batch that is in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Offset of its first record; for a duplicate, that of the original.
    pub base_offset: Offset,
    /// The time stamped by the broker, under `LogAppendTime`.
    pub log_append_time: Option<TimestampMs>,
    /// The partition's log start.
    pub log_start_offset: Offset,
}

/// Why a batch was not acknowledged.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProduceError {
    /// This shard does not own the partition (any more). The client refreshes its metadata.
    #[error("partition {0} is not here")]
    UnknownPartition(ReplicaKey),
    /// Larger than `max.message.bytes`.
    #[error("a batch of {bytes} bytes exceeds max.message.bytes={limit}")]
    TooLarge {
        /// The batch.
        bytes: usize,
        /// The topic's limit.
        limit: usize,
    },
    /// A record's time is outside the topic's window.
    #[error("timestamp {timestamp} is outside the window of the topic")]
    TimestampOutOfWindow {
        /// The offending time.
        timestamp: TimestampMs,
    },
    /// A gap in an idempotent producer's numbers.
    #[error("producer {producer_id}: sequence {found} where {expected} was due")]
    OutOfOrderSequence {
        /// The producer.
        producer_id: ProducerId,
        /// What would have continued the sequence.
        expected: i32,
        /// What came.
        found: i32,
    },
    /// The batch is in the log, as far as the producer's acks ask for, and its offset is not remembered.
    #[error("the batch is in the log already, older than those whose offsets are remembered")]
    DuplicateSequence,
    /// A newer incarnation of the producer is known.
    #[error("producer {producer_id}: epoch {found} is older than {current}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: ProducerId,
        /// The newest known.
        current: ProducerEpoch,
        /// What came.
        found: ProducerEpoch,
    },
    /// A transactional batch; transactions are not served.
    #[error("transactional batches are not served")]
    Transactional,
    /// A control batch, which only coordinators write.
    #[error("control batches do not come from clients")]
    ControlBatch,
    /// Fewer in-sync replicas than `min.insync.replicas`; nothing was appended.
    #[error("{in_sync} replicas in sync, {required} required")]
    NotEnoughReplicas {
        /// How many there are.
        in_sync: usize,
        /// `min.insync.replicas`.
        required: usize,
    },
    /// The in-sync set fell below `min.insync.replicas` after the append. The batch may still count later.
    #[error("{in_sync} replicas in sync after the append, {required} required")]
    NotEnoughReplicasAfterAppend {
        /// How many there are.
        in_sync: usize,
        /// `min.insync.replicas`.
        required: usize,
    },
    /// Another node leads the partition, or nobody. What was appended here may be cut off.
    #[error("partition {key} is led by {leader:?} in epoch {leader_epoch}")]
    NotLeader {
        /// The partition.
        key: ReplicaKey,
        /// Who leads it.
        leader: Option<NodeId>,
        /// Since when.
        leader_epoch: LeaderEpoch,
    },
    /// The deadline passed. The batch may or may not be in the log later.
    #[error("not acknowledged in time")]
    TimedOut,
    /// No space for segments and the WAL is at its bound. Nothing was appended.
    #[error("the disk is full")]
    StorageFull,
    /// This partition's files are damaged or cannot be written. Nothing was appended.
    #[error("the partition's storage failed")]
    StorageFailed,
    /// The server is stopping. Nothing was appended.
    #[error("the server is stopping")]
    Stopping,
}

/// A fetch's share for one shard.
#[derive(Clone, Debug)]
pub struct FetchInput {
    /// Stop adding records past this many bytes; the first batch is always whole (KIP-74).
    pub max_bytes: usize,
    /// In request order.
    pub partitions: Vec<FetchPartition>,
}

/// Where one partition's fetch begins.
#[derive(Clone, Copy, Debug)]
pub struct FetchPartition {
    /// The partition.
    pub key: ReplicaKey,
    /// First offset wanted.
    pub offset: Offset,
    /// The leader epoch the client knows, to be fenced by (KIP-320).
    pub current_leader_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record the client has, for truncation detection (KIP-595).
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// At most this much of it, first batch excepted.
    pub max_bytes: usize,
}

/// A partition's answer to a fetch, before disks are read.
#[derive(Clone, Debug)]
pub struct FetchPlan {
    /// The partition.
    pub key: ReplicaKey,
    /// What to send, or why nothing.
    pub result: Result<FetchSlice, FetchError>,
}

/// What a consumer may see of a partition now.
#[derive(Clone, Debug)]
pub struct FetchSlice {
    /// First offset a consumer may not read.
    pub high_watermark: Offset,
    /// First offset a read_committed consumer may not read.
    pub last_stable_offset: Offset,
    /// First offset there is.
    pub log_start_offset: Offset,
    /// Set when the client's history parts from ours: it truncates and asks again.
    pub diverging: Option<EpochEnd>,
    /// The records.
    pub data: FetchData,
}

/// Where the records of a fetch are.
#[derive(Clone, Debug)]
pub enum FetchData {
    /// Nothing to read yet.
    Nothing,
    /// In memory.
    Cached(Vec<StoredBatch>),
    /// In the segments: read from `offset`, stop before `end`, at most `max_bytes`, at least one
    /// batch.
    InSegments {
        /// First offset wanted.
        offset: Offset,
        /// First offset not to be returned.
        end: Offset,
        /// Bound on the bytes, first batch excepted.
        max_bytes: usize,
    },
}

/// End of a leader epoch: the offset after its last record. Source: KIP-101.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochEnd {
    /// The largest known epoch not above the one asked for.
    pub epoch: LeaderEpoch,
    /// Where the next epoch begins, or the log's end.
    pub end_offset: Offset,
}

/// Why a partition cannot be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FetchError {
    /// This shard does not own the partition.
    #[error("partition {0} is not here")]
    UnknownPartition(ReplicaKey),
    /// Outside of log start ..= high watermark.
    #[error("offset {offset} is outside {log_start}..={high_watermark}")]
    OutOfRange {
        /// What was asked.
        offset: Offset,
        /// First offset there is.
        log_start: Offset,
        /// First offset not readable.
        high_watermark: Offset,
    },
    /// The client knows an older leader epoch.
    #[error("epoch {asked} is older than {current}")]
    FencedEpoch {
        /// What the client knows.
        asked: LeaderEpoch,
        /// Ours.
        current: LeaderEpoch,
    },
    /// The client knows a newer leader epoch than this node does.
    #[error("epoch {asked} is newer than {current}")]
    UnknownEpoch {
        /// What the client knows.
        asked: LeaderEpoch,
        /// Ours.
        current: LeaderEpoch,
    },
    /// Above the high watermark that is known here, and maybe below the leader's. The client asks again.
    #[error("offset {offset} is above the high watermark {high_watermark} that is known here")]
    OffsetNotAvailable {
        /// What was asked.
        offset: Offset,
        /// What is known.
        high_watermark: Offset,
    },
    /// Another node leads the partition, or nobody, and only a leader may do that.
    #[error("partition {key} is led by {leader:?} in epoch {leader_epoch}")]
    NotLeader {
        /// The partition.
        key: ReplicaKey,
        /// Who leads it.
        leader: Option<NodeId>,
        /// Since when.
        leader_epoch: LeaderEpoch,
    },
    /// The partition's files are damaged.
    #[error("the partition's storage failed")]
    StorageFailed,
}

/// A fetch that has too little to answer and waits on this shard.
#[derive(Clone, Debug)]
pub struct FetchWait {
    /// Under which [`super::effect::Effect::FetchReady`] will answer.
    pub token: Token,
    /// Answered at the latest then.
    pub deadline: MonotonicMicros,
    /// Answer as soon as this many bytes are readable over all of `partitions`.
    pub min_bytes: usize,
    /// Partition and first offset wanted.
    pub partitions: Vec<(ReplicaKey, Offset)>,
}

/// Positions and size of a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionInfo {
    /// The epoch under which this node leads it.
    pub leader_epoch: LeaderEpoch,
    /// The epoch of the first record there is; of an empty log, of the record to come.
    pub first_epoch: LeaderEpoch,
    /// First offset there is.
    pub log_start_offset: Offset,
    /// First offset not readable.
    pub high_watermark: Offset,
    /// The next record's offset.
    pub log_end_offset: Offset,
    /// Bytes in segments and memory together.
    pub log_bytes: u64,
}
