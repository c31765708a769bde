//! Replication between shards of different nodes: who sends what to whom, and what it proves.
//!
//! A shard that leads partitions holds one [`link`] to every shard that follows one of them; a shard that
//! follows has an [`inbound`] for every shard that leads. Both are told of connections and frames, and
//! are asked for the next frame; nothing here knows a socket.
//!
//! Invariants:
//! - A position counts only in the leader epoch and on the connection that it was told in.
//! - What a follower acknowledges is durable there (or counts by the topic's `flush.messages`), and was
//!   appended behind a log that was compared with the leader's.
//! - A stream that fails is told before any later acknowledgement, so that none speaks of what is void.
//! - Bytes that are not acknowledged are bounded by the window of each link; who is beyond it is served
//!   from the log.
//!
//! Deliberately absent: sockets, files, and what decides who leads.

pub mod divergence;
mod following;
mod holes;
pub mod inbound;
pub mod link;
mod shard;
mod slowness;
mod streams;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::inbound::Inbound;
use self::link::Link;
use super::partitions::Slot;
use super::replica::NodeIdentity;
use crate::format::metadata_command::ChangePartition;
use crate::format::peer_frame::{ClusterId, Open, StreamId};
use crate::model::{BrokerEpoch, MonotonicMicros, NodeId, Offset, ReplicaKey, ShardId};

/// Names a connection to or from a peer. Never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// Bounds and times of replication. Source: the tuning profile, and Kafka's keys where named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerLimits {
    /// Bytes that may be sent without being acknowledged, each link; and that are taken without being
    /// acknowledged, each inbound.
    pub window_bytes: u64,
    /// Largest append frame; a single larger batch goes alone.
    pub frame_bytes_max: usize,
    /// Appends that may be unacknowledged.
    pub frames_in_flight_max: usize,
    /// A link that said nothing for so long says that it is alive.
    pub heartbeat_ms: u64,
    /// A peer that said nothing for so long is gone.
    pub peer_timeout_ms: u64,
    /// Longest pause between attempts to connect.
    pub reconnect_ms_max: u64,
    /// How long watermarks wait for records to ride with.
    pub positions_delay_ms: u64,
    /// Opens that may wait for their metadata.
    pub waiting_opens_max: usize,
    /// `replica.lag.time.max.ms`.
    pub lag_time_max_ms: u64,
    /// Acknowledgements that take longer than so many times those of the fastest peer are slow.
    pub slow_factor: u64,
    /// Acknowledgements that take less make nobody slow; 0 turns the rule off.
    pub slow_ms_min: u64,
    /// How long a peer is slow before it leaves in-sync sets, and fast before it may come back.
    pub slow_after_ms: u64,
    /// Whether every acknowledgement is told of by [`PeerEffect::Acknowledged`].
    pub tells_acks: bool,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            window_bytes: 16 << 20,
            frame_bytes_max: 1 << 20,
            frames_in_flight_max: 1024,
            heartbeat_ms: 200,
            peer_timeout_ms: 2000,
            reconnect_ms_max: 1000,
            positions_delay_ms: 5,
            waiting_opens_max: 65_536,
            lag_time_max_ms: 30_000,
            slow_factor: 5,
            slow_ms_min: 20,
            slow_after_ms: 2000,
            tells_acks: false,
        }
    }
}

/// Something to do for replication. Pulled, like commits; single nodes never have any.
#[derive(Clone, Debug)]
pub enum PeerEffect {
    /// Connect to a shard of another node, then call `peer_connected` or `peer_lost`.
    Connect {
        /// Its name.
        connection: ConnectionId,
        /// The node.
        node_id: NodeId,
        /// The shard.
        shard: ShardId,
    },
    /// End a connection; nothing is said of it any more.
    Disconnect {
        /// Which.
        connection: ConnectionId,
        /// For the log line.
        reason: &'static str,
    },
    /// A connection has frames to send: pull them.
    FramesReady {
        /// Which.
        connection: ConnectionId,
    },
    /// Read batches of a partition's segments for a follower, then call `log_read`.
    ReadLog(LogRead),
    /// A follower has acknowledged. Nothing is to be done; somebody may want to know.
    Acknowledged {
        /// Who.
        node_id: NodeId,
        /// The partition.
        key: ReplicaKey,
        /// Everything below.
        end_offset: Offset,
    },
    /// Propose an in-sync set to the controller. It is lost or committed; a definite refusal is told by
    /// `isr_change_refused`.
    ProposeIsr(ChangePartition),
}

/// See [`PeerEffect::ReadLog`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRead {
    /// For whom.
    pub connection: ConnectionId,
    /// For which stream.
    pub stream: StreamId,
    /// The partition.
    pub key: ReplicaKey,
    /// First offset wanted: the border of a batch.
    pub offset: Offset,
    /// First offset not wanted.
    pub end: Offset,
    /// Bound on the bytes, first batch excepted.
    pub bytes_max: usize,
}

/// Replication of one shard. Owner: the shard.
#[derive(Debug)]
pub struct Replication {
    pub(super) cluster_id: ClusterId,
    pub(super) me: NodeIdentity,
    pub(super) limits: PeerLimits,
    pub(super) links: Vec<Link>,
    pub(super) inbound: BTreeMap<ConnectionId, Inbound>,
    /// Newest incarnation of other nodes, by the metadata.
    pub(super) nodes: BTreeMap<NodeId, BrokerEpoch>,
    /// Streams that leaders opened before the metadata came here.
    pub(super) waiting_opens: BTreeMap<ReplicaKey, (ConnectionId, Open)>,
    /// Replicas whose logs are to be cut once they are settled.
    pub(super) truncating: Vec<Slot>,
    /// Replicas whose segments the store is cutting: their leaders wait for that.
    pub(super) cuts: BTreeSet<ReplicaKey>,
    pub(super) effects: VecDeque<PeerEffect>,
    pub(super) next_connection: u64,
    /// When in-sync sets are looked at next; `None` while no partition with followers is led.
    pub(super) next_isr_check: Option<MonotonicMicros>,
}

impl Replication {
    /// A shard that has peers.
    pub fn new(cluster_id: ClusterId, me: NodeIdentity, limits: PeerLimits) -> Self {
        Self {
            cluster_id,
            me,
            limits,
            links: Vec::new(),
            inbound: BTreeMap::new(),
            nodes: BTreeMap::new(),
            waiting_opens: BTreeMap::new(),
            truncating: Vec::new(),
            cuts: BTreeSet::new(),
            effects: VecDeque::new(),
            next_connection: 1,
            next_isr_check: None,
        }
    }

    pub(super) fn connection(&mut self) -> ConnectionId {
        let connection = ConnectionId(self.next_connection);
        self.next_connection += 1;
        connection
    }

    /// How often in-sync sets are looked at.
    pub(super) fn isr_check_ms(&self) -> u64 {
        (self.limits.lag_time_max_ms / 2).clamp(1, 500)
    }

    /// When something is due.
    pub(super) fn next_deadline(&self) -> Option<MonotonicMicros> {
        let links = self.links.iter().filter_map(|link| link.next_deadline(&self.limits));
        let inbound = self.inbound.values().map(|inbound| inbound.next_deadline(&self.limits));
        links.chain(inbound).chain(self.next_isr_check).min()
    }
}
