//! What the metadata says of a partition's replicas, as a shard is told it.

use super::input::PartitionSpec;
use crate::model::{BrokerEpoch, LeaderEpoch, NodeId, Offset, ShardId};

/// Who this shard is to its peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NodeIdentity {
    /// The node.
    pub node_id: NodeId,
    /// Its incarnation, as the controller registered it.
    pub broker_epoch: BrokerEpoch,
}

/// A node that has a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaNode {
    /// The node.
    pub node_id: NodeId,
    /// Its incarnation by the metadata.
    pub broker_epoch: BrokerEpoch,
    /// The shard that owns the replica there.
    pub shard: ShardId,
}

/// A partition with a replica on this shard, as of a log index of the metadata.
#[derive(Clone, Debug)]
pub struct ReplicaAssignment {
    /// Identity, configuration, leader epoch.
    pub spec: PartitionSpec,
    /// Index of the metadata's log as of which this holds: what is older is ignored.
    pub metadata_index: u64,
    /// Grows with every change of the partition; guards proposals.
    pub partition_epoch: i32,
    /// Who leads; `None` while nobody may.
    pub leader: Option<NodeId>,
    /// All replicas, this node's among them, the preferred leader first.
    pub replicas: Vec<ReplicaNode>,
    /// Those that are in sync.
    pub isr: Vec<NodeId>,
}

/// How far a replica is, and what it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReplicaStanding {
    /// Whether it takes records from producers.
    pub leads: bool,
    /// The newest leader epoch known here.
    pub leader_epoch: LeaderEpoch,
    /// First offset a consumer may not read here.
    pub high_watermark: Offset,
    /// Below it, everything is durable here.
    pub durable_end: Offset,
    /// The next record's offset.
    pub log_end_offset: Offset,
}
