//! The metadata image as bytes: what the replicated log is compacted into.
//!
//! One rkyv root in a [frame](super::metadata_frame). The records here are the layout; the machine
//! turns its image into them and back.

use rkyv::with::Map;
use rkyv::{Archive, Deserialize, Serialize};

use super::metadata_command::{
    BrokerEndpoint, BrokerEpochBytes, ConfigEntry, JoinNode, LeaderEpochBytes, NodeIdBytes,
    TopicIdBytes, from_body, to_body,
};
use super::metadata_frame::{MetadataFormatError, open, seal};
use crate::model::{BrokerEpoch, LeaderEpoch, NodeId, TopicId};

/// First four bytes of a snapshot: "CHMS".
pub const SNAPSHOT_MAGIC: u32 = u32::from_le_bytes(*b"CHMS");
const KIND: u16 = 1;
const VERSION: u16 = 5;

/// All of the metadata as of a log index.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct MetadataSnapshot {
    /// Index of the last log entry that is in it.
    pub applied: u64,
    /// The first producer id that was not given out.
    pub next_producer_id: i64,
    /// By node.
    pub brokers: Vec<BrokerRecord>,
    /// By id.
    pub topics: Vec<TopicRecord>,
    /// Deleted topics, oldest first.
    #[rkyv(with = Map<TopicIdBytes>)]
    pub tombstones: Vec<TopicId>,
    /// Identity of the cluster, once it has one.
    pub cluster_id: Option<[u8; 16]>,
    /// Settings of the whole cluster, by key.
    pub cluster_configs: Vec<ConfigEntry>,
    /// What is known of every node's proposals, by node.
    pub proposers: Vec<ProposerRecord>,
    /// Nodes that may come.
    pub joining: Vec<JoinNode>,
    /// Nodes that are to go.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub leaving: Vec<NodeId>,
    /// What groups have of their own, by group.
    pub group_configs: Vec<GroupConfigRecord>,
}

/// What a group has of its own.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct GroupConfigRecord {
    /// The group.
    pub group_id: String,
    /// Settings, by key.
    pub configs: Vec<ConfigEntry>,
}

/// Which proposals of a node's incarnation are in the metadata.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ProposerRecord {
    /// Who.
    #[rkyv(with = NodeIdBytes)]
    pub node_id: NodeId,
    /// Its incarnation.
    pub incarnation: [u8; 16],
    /// Every number below is settled.
    pub floor: u64,
    /// Numbers from the floor on that were applied, ascending.
    pub applied: Vec<u64>,
}

/// A registered node.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct BrokerRecord {
    /// Who.
    #[rkyv(with = NodeIdBytes)]
    pub node_id: NodeId,
    /// Its incarnation.
    #[rkyv(with = BrokerEpochBytes)]
    pub epoch: BrokerEpoch,
    /// The process's own number.
    pub incarnation: [u8; 16],
    /// How many shards it runs.
    pub shards: u16,
    /// Where clients reach it.
    pub host: String,
    /// Where clients reach it.
    pub port: u16,
    /// Identity of its data directory, all zeroes when it is not known.
    pub directory_id: [u8; 16],
    /// Where it stands.
    pub rack: Option<String>,
    /// Whether it may not lead.
    pub fenced: bool,
    /// Whether it is about to stop.
    pub draining: bool,
    /// Where shards of its peers connect.
    pub replication: Option<BrokerEndpoint>,
    /// Where control planes of its peers connect.
    pub control: Option<BrokerEndpoint>,
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct TopicRecord {
    /// Identity.
    #[rkyv(with = TopicIdBytes)]
    pub id: TopicId,
    /// Name.
    pub name: String,
    /// By index.
    pub partitions: Vec<PartitionRecord>,
    /// Overrides, by key.
    pub configs: Vec<ConfigEntry>,
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct PartitionRecord {
    /// Who leads.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub leader: Option<NodeId>,
    /// Under which epoch.
    #[rkyv(with = LeaderEpochBytes)]
    pub leader_epoch: LeaderEpoch,
    /// Counts changes.
    pub partition_epoch: i32,
    /// Who holds a copy.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub replicas: Vec<NodeId>,
    /// Who is in sync.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub isr: Vec<NodeId>,
    /// Who is not in sync and has every acknowledged record nevertheless.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub elr: Vec<NodeId>,
    /// Replicas that came by a reassignment under way.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub adding: Vec<NodeId>,
    /// Replicas that will leave with it.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub removing: Vec<NodeId>,
}

impl MetadataSnapshot {
    /// The snapshot as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        seal(SNAPSHOT_MAGIC, KIND, VERSION, &to_body(self))
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// [`MetadataFormatError`] when the bytes are not exactly one snapshot of this release.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetadataFormatError> {
        let frame = open(SNAPSHOT_MAGIC, bytes)?;
        match (frame.kind, frame.version) {
            (KIND, VERSION) => from_body(frame.body),
            (kind, version) => Err(MetadataFormatError::Unknown { kind, version }),
        }
    }
}
