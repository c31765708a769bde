//! The stream between two shards of different nodes: one connection carries every partition that the
//! connecting shard leads and the other one follows.
//!
//! A frame is a header, a checksum and a payload. Integers are little-endian, except inside record
//! batches, which are Kafka's own bytes.
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 2 | magic: 0x5741 data, 0x414B ACK, 0x4842 heartbeat |
//! | 2 | 2 | version, 1 |
//! | 4 | 4 | length: bytes after this field, at least 4 |
//! | 8 | 4 | CRC-32C of the payload |
//! | 12 | length − 4 | payload |
//!
//! A heartbeat has no payload. An ACK's is one number (8): every append up to this sequence number is as
//! durable here as its topic asks. A data frame's begins with its kind (1):
//!
//! | kind | who sends it | what follows the kind |
//! | ---: | --- | --- |
//! | 1 hello | leader | cluster id (16), node (4), broker epoch (8), shard (2), then node (4) and shard (2) of whom it wants |
//! | 2 welcome | follower | node (4), broker epoch (8), shard (2), bytes that it takes unacknowledged (8) |
//! | 3 refused | follower | reason (1), then a sentence in UTF-8, at most [`REFUSAL_TEXT_BYTES_MAX`] |
//! | 4 open | leader | stream (4), topic id (16), partition (4), leader epoch (4) |
//! | 5 history | follower | stream (4), log start (8), log end (8), count (4), then count times leader epoch (4) and its first offset (8), growing |
//! | 6 start | leader | stream (4), log end from now on (8), log start (8), 1 where the log begins anew there (1); once more where the log start lies within a batch |
//! | 7 ready | follower | stream (4), log end (8): all below is durable, appends go on here |
//! | 8 close | leader | stream (4) |
//! | 9 append | leader | below |
//! | 10 failed | follower | stream (4), reason (1), leader epoch known here (4), offset (8) |
//!
//! An append:
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 1 | kind, 9 |
//! | 1 | 8 | sequence number: the last append's plus one |
//! | 9 | 4 | number of positions |
//! | 13 | 4 | number of batches |
//! | 17 | 20 each | position: stream (4), high watermark (8), log start (8) |
//! | | 8 + n each | batch: stream (4), bytes n (4), one record batch as in a segment; its base offset is its first field |
//!
//! Stream numbers are the leader's choice and are not used twice on a connection, so that what is under
//! way for a closed one is told from what follows.
//!
//! Deliberately absent: what the frames mean for a partition (`machine/replication`), and authentication.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use super::record_batch::{BatchError, StoredBatch};
use crate::model::{BrokerEpoch, LeaderEpoch, NodeId, Offset, ReplicaKey, ShardId};

pub use self::decode::{FrameHeader, decode};

/// Bytes of a frame before its payload.
pub const HEADER_BYTES: usize = 12;

/// Until the handshake is through a peer is a stranger: no frame may be longer.
pub const HANDSHAKE_BYTES_MAX: usize = 1024;

/// Bytes of the sentence in a refusal; a longer one is cut.
pub const REFUSAL_TEXT_BYTES_MAX: usize = 512;

/// Leader epochs in one history. Of a longer one the newest are sent: the follower cuts back to their
/// beginning at the latest, and tells the rest then.
pub const HISTORY_MAX: usize = 4096;

/// Bytes of an append besides its positions and batches.
pub const APPEND_BYTES: usize = 17;

/// Bytes of a position in an append.
pub const POSITION_BYTES: usize = 20;

/// Bytes of a batch in an append, besides the batch.
pub const BATCH_HEAD_BYTES: usize = 8;

const VERSION: u16 = 1;

/// What kind of frame follows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Magic {
    /// Everything but the other two.
    Data,
    /// A cumulative acknowledgement.
    Ack,
    /// A sign of life.
    Heartbeat,
}

impl Magic {
    const fn code(self) -> u16 {
        match self {
            Self::Data => 0x5741,
            Self::Ack => 0x414B,
            Self::Heartbeat => 0x4842,
        }
    }
}

mod kind {
    pub const HELLO: u8 = 1;
    pub const WELCOME: u8 = 2;
    pub const REFUSED: u8 = 3;
    pub const OPEN: u8 = 4;
    pub const HISTORY: u8 = 5;
    pub const START: u8 = 6;
    pub const READY: u8 = 7;
    pub const CLOSE: u8 = 8;
    pub const APPEND: u8 = 9;
    pub const FAILED: u8 = 10;
}

/// Names a partition on a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u32);

/// Identity of a cluster. Nodes of different ones do not talk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClusterId(pub [u8; 16]);

/// A frame.
#[derive(Clone, Debug)]
pub enum PeerFrame {
    /// The first frame of the connecting side, which leads.
    Hello(Hello),
    /// The first frame of the other side: it follows.
    Welcome(Welcome),
    /// The only frame of the other side: the connection ends.
    Refused(Refused),
    /// A partition is going to be replicated here.
    Open(Open),
    /// How the follower's log came to be, for the point where it parts from the leader's.
    History(History),
    /// Where the follower's log goes on.
    Start(Start),
    /// The follower's log goes on there.
    Ready {
        /// Which.
        stream: StreamId,
        /// The log's end. Below it everything is durable.
        end_offset: Offset,
    },
    /// The leader sends no more of this partition.
    Close {
        /// Which.
        stream: StreamId,
    },
    /// Records and positions.
    Append(Append),
    /// The follower cannot go on with a partition; the others are not affected.
    Failed {
        /// Which.
        stream: StreamId,
        /// Why.
        reason: StreamFailure,
    },
    /// Every append up to this one is durable on the follower.
    Ack {
        /// The number.
        sequence: u64,
    },
    /// Nothing else to say.
    Heartbeat,
}

/// See [`PeerFrame::Hello`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// Whose cluster.
    pub cluster_id: ClusterId,
    /// Who connects.
    pub node_id: NodeId,
    /// In which incarnation.
    pub broker_epoch: BrokerEpoch,
    /// Which of its shards.
    pub shard: ShardId,
    /// Whom it wants.
    pub target_node_id: NodeId,
    /// Which of its shards.
    pub target_shard: ShardId,
}

/// See [`PeerFrame::Welcome`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// Who answers.
    pub node_id: NodeId,
    /// In which incarnation: what a proposal of an in-sync set names. Source: KIP-903.
    pub broker_epoch: BrokerEpoch,
    /// Which of its shards.
    pub shard: ShardId,
    /// Bytes of appends that it takes without having acknowledged them.
    pub window_bytes: u64,
}

/// See [`PeerFrame::Refused`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// For people.
    pub text: String,
}

/// Why a shard does not talk to another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// Of another cluster.
    Cluster,
    /// Another node was wanted.
    Node,
    /// Another shard was wanted.
    Shard,
    /// The node is not one of the cluster, or not yet known here.
    UnknownNode,
    /// A newer incarnation of the node is known here.
    StaleBrokerEpoch,
    /// The node is going down.
    Stopping,
}

impl Refusal {
    const ALL: [Self; 6] = [
        Self::Cluster,
        Self::Node,
        Self::Shard,
        Self::UnknownNode,
        Self::StaleBrokerEpoch,
        Self::Stopping,
    ];

    const fn code(self) -> u8 {
        match self {
            Self::Cluster => 1,
            Self::Node => 2,
            Self::Shard => 3,
            Self::UnknownNode => 4,
            Self::StaleBrokerEpoch => 5,
            Self::Stopping => 6,
        }
    }
}

/// See [`PeerFrame::Open`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open {
    /// Its name from now on.
    pub stream: StreamId,
    /// The partition.
    pub key: ReplicaKey,
    /// The epoch under which the sender leads it.
    pub leader_epoch: LeaderEpoch,
}

/// See [`PeerFrame::History`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// Which partition.
    pub stream: StreamId,
    /// The first offset there is.
    pub log_start_offset: Offset,
    /// The next record's offset.
    pub log_end_offset: Offset,
    /// Leader epochs and where each begins, both growing; the newest [`HISTORY_MAX`]. Source: KIP-101.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

/// See [`PeerFrame::Start`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Which partition.
    pub stream: StreamId,
    /// What the follower has from here on is void.
    pub end_offset: Offset,
    /// First offset there is.
    pub log_start_offset: Offset,
    /// Whether everything that the follower has is void and its log begins at `end_offset`: what lies
    /// between is gone from the leader.
    pub begins_anew: bool,
}

/// See [`PeerFrame::Append`].
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// One more than the last append's on this connection; the first is 1.
    pub sequence: u64,
    /// Watermarks that moved.
    pub positions: Vec<StreamPosition>,
    /// Record batches; those of one stream are contiguous.
    pub batches: Vec<(StreamId, StoredBatch)>,
}

/// What a follower learns besides records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StreamPosition {
    /// Which partition.
    pub stream: StreamId,
    /// The leader's high watermark.
    pub high_watermark: Offset,
    /// The leader's log start.
    pub log_start_offset: Offset,
}

/// Why a follower closed a partition's stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamFailure {
    /// A newer leader epoch is known here. Source: KIP-320.
    StaleEpoch {
        /// It.
        known: LeaderEpoch,
    },
    /// The epoch of the leader is not known here yet: to be tried again.
    UnknownEpoch {
        /// The newest known.
        known: LeaderEpoch,
    },
    /// The partition is not here (yet): to be tried again.
    UnknownPartition,
    /// A batch does not continue the log.
    Gap {
        /// What would have.
        expected: Offset,
    },
    /// The partition's files cannot be used.
    Storage,
}

/// Why bytes are not a frame.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// Something else talks on this port.
    #[error("not a peer frame: magic {0:#06x}")]
    Magic(u16),
    /// Another release.
    #[error(
        "peer frames of version {0} are not read by this release, which speaks version {VERSION}"
    )]
    Version(u16),
    /// Longer than what may come, or shorter than its fixed part.
    #[error("a peer frame of {bytes} bytes where at most {limit} may come")]
    Length {
        /// What it claims.
        bytes: usize,
        /// What may come.
        limit: usize,
    },
    /// Damaged on its way.
    #[error("a peer frame's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// In the frame.
        found: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// The payload ends before its fields do.
    #[error("a peer frame of kind {kind} ends within its fields")]
    Truncated {
        /// The kind, 0 for an ACK.
        kind: u8,
    },
    /// Bytes follow the last field.
    #[error("{bytes} bytes follow a peer frame of kind {kind}")]
    Trailing {
        /// The kind, 0 for an ACK or a heartbeat.
        kind: u8,
        /// How many.
        bytes: usize,
    },
    /// A data frame of an unknown kind.
    #[error("unknown kind of peer frame {0}")]
    Kind(u8),
    /// A code that names nothing.
    #[error("unknown code {code} in a peer frame of kind {kind}")]
    Code {
        /// The kind.
        kind: u8,
        /// The code.
        code: u8,
    },
    /// A negative offset, or epochs and offsets that do not grow.
    #[error("offsets or epochs of {0:?} that cannot be")]
    Offsets(StreamId),
    /// The text of a refusal is not UTF-8.
    #[error("a refusal's text is not UTF-8")]
    Text,
    /// A record batch does not verify.
    #[error("a record batch of {stream:?}: {error}")]
    Batch {
        /// Whose.
        stream: StreamId,
        /// What is wrong with it.
        error: BatchError,
    },
}
