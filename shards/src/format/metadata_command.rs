//! Commands of the control plane as entries of the replicated log.
//!
//! Every command is its own rkyv root in a [frame](super::metadata_frame) whose kind and version say
//! which: a new command is a new kind, a changed one a new version, and the others keep their bytes.
//! Decoding checks the frame's CRC-32C and then validates the body; allocation is bounded by the
//! input's own length.

use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::with::Map;
use rkyv::{Archive, Deserialize, Serialize};

use super::metadata_frame::{MetadataFormatError, open, seal};
use crate::model::{BrokerEpoch, LeaderEpoch, NodeId, PartitionIndex, ReplicaKey, TopicId};

/// First four bytes of a command: "CHMC".
pub const COMMAND_MAGIC: u32 = u32::from_le_bytes(*b"CHMC");

/// One change to the cluster's metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetadataCommand {
    /// A node is here, in a new incarnation.
    RegisterBroker(RegisterBroker),
    /// A topic with all of its partitions.
    CreateTopic(CreateTopic),
    /// A topic is gone.
    DeleteTopic(DeleteTopic),
    /// A topic grows.
    CreatePartitions(CreatePartitions),
    /// A partition's leader, in-sync set or replicas change.
    ChangePartition(ChangePartition),
    /// A topic's configuration changes.
    SetTopicConfig(SetTopicConfig),
    /// A node takes a block of producer ids.
    AllocateProducerIds(AllocateProducerIds),
    /// A node is gone or silent: it leads nothing and is in sync with nothing.
    FenceBroker(BrokerIncarnation),
    /// A node that was fenced may lead again.
    UnfenceBroker(BrokerIncarnation),
    /// A node is about to stop: it gives up what others can lead.
    DrainBroker(BrokerIncarnation),
    /// A node will not come back.
    UnregisterBroker(UnregisterBroker),
    /// Partitions get leaders.
    ElectLeaders(ElectLeaders),
    /// A partition moves to other nodes, or stops doing so.
    ReassignPartition(ReassignPartition),
    /// Settings of the whole cluster change.
    SetClusterConfig(SetClusterConfig),
    /// What a group has of its own changes.
    SetGroupConfig(SetGroupConfig),
    /// The cluster gets its identity, once.
    FoundCluster(FoundCluster),
    /// A node may come to the cluster.
    JoinNode(JoinNode),
    /// A node is to go from the cluster, for good.
    LeaveNode(NodeNamed),
    /// A node that was to go has gone.
    NodeLeft(NodeNamed),
}

/// See [`MetadataCommand::RegisterBroker`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct RegisterBroker {
    /// The node.
    #[rkyv(with = NodeIdBytes)]
    pub node_id: NodeId,
    /// Random, one a process: a registration that is proposed twice counts once.
    pub incarnation: [u8; 16],
    /// How many shards it runs: peers compute from it which one owns a replica.
    pub shards: u16,
    /// Where clients reach it.
    pub host: String,
    /// Where clients reach it.
    pub port: u16,
    /// Identity of its data directory, all zeroes when the proposer knew none: whoever comes back
    /// with another one has lost its records.
    pub directory_id: [u8; 16],
    /// Where it stands: replicas are spread over racks.
    pub rack: Option<String>,
    /// Whether it leads nothing until it is unfenced. A node that is alone is not fenced.
    pub fenced: bool,
    /// Where shards of its peers connect to replicate from and to it; a node that is alone has none.
    pub replication: Option<BrokerEndpoint>,
    /// Where control planes of its peers connect; a node that is alone has none.
    pub control: Option<BrokerEndpoint>,
}

/// A host and a port that others dial.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct BrokerEndpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// See [`MetadataCommand::CreateTopic`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct CreateTopic {
    /// Its name.
    pub name: String,
    /// Random, chosen by the proposer: a creation that is proposed twice counts once.
    #[rkyv(with = TopicIdBytes)]
    pub topic_id: TopicId,
    /// From partition 0.
    pub partitions: Vec<Assignment>,
    /// Overrides, already validated.
    pub configs: Vec<ConfigEntry>,
}

/// The replicas of one partition; the first leads.
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct Assignment {
    /// Nodes, the preferred leader first.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub replicas: Vec<NodeId>,
}

/// A configuration key and its value as the client wrote it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Archive, Serialize, Deserialize)]
pub struct ConfigEntry {
    /// Kafka's name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// See [`MetadataCommand::DeleteTopic`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct DeleteTopic {
    /// Which.
    #[rkyv(with = TopicIdBytes)]
    pub topic_id: TopicId,
}

/// See [`MetadataCommand::CreatePartitions`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct CreatePartitions {
    /// Which topic.
    #[rkyv(with = TopicIdBytes)]
    pub topic_id: TopicId,
    /// How many partitions the proposer saw; the new ones follow. Another number now refuses.
    pub existing: u32,
    /// The new ones.
    pub partitions: Vec<Assignment>,
}

/// See [`MetadataCommand::ChangePartition`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ChangePartition {
    /// Which partition.
    #[rkyv(with = ReplicaKeyBytes)]
    pub key: ReplicaKey,
    /// The leader epoch that the proposer saw; another one now refuses.
    #[rkyv(with = LeaderEpochBytes)]
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that the proposer saw; another one now refuses.
    pub partition_epoch: i32,
    /// Who leads from now on, or nobody. A change raises the leader epoch.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub leader: Option<NodeId>,
    /// The in-sync set from now on, with the incarnation of each member. Source: KIP-903.
    pub isr: Vec<IsrMember>,
    /// All replicas from now on.
    #[rkyv(with = Map<NodeIdBytes>)]
    pub replicas: Vec<NodeId>,
}

/// A member of a proposed in-sync set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct IsrMember {
    /// The node.
    #[rkyv(with = NodeIdBytes)]
    pub node_id: NodeId,
    /// The incarnation that was seen in sync.
    #[rkyv(with = BrokerEpochBytes)]
    pub broker_epoch: BrokerEpoch,
}

/// See [`MetadataCommand::SetTopicConfig`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct SetTopicConfig {
    /// Which topic.
    #[rkyv(with = TopicIdBytes)]
    pub topic_id: TopicId,
    /// Whether overrides that are not named here go (AlterConfigs) or stay (IncrementalAlterConfigs).
    pub replace: bool,
    /// Overrides to set, already validated.
    pub set: Vec<ConfigEntry>,
    /// Overrides to remove.
    pub remove: Vec<String>,
}

/// See [`MetadataCommand::AllocateProducerIds`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct AllocateProducerIds {
    /// The node that asks.
    #[rkyv(with = NodeIdBytes)]
    pub node_id: NodeId,
    /// Its incarnation; an older one is refused.
    #[rkyv(with = BrokerEpochBytes)]
    pub broker_epoch: BrokerEpoch,
}

/// A node in one of its incarnations; a command about another one is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct BrokerIncarnation {
    /// The node.
    #[rkyv(with = NodeIdBytes)]
    pub node_id: NodeId,
    /// Its incarnation.
    #[rkyv(with = BrokerEpochBytes)]
    pub broker_epoch: BrokerEpoch,
}

/// See [`MetadataCommand::UnregisterBroker`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct UnregisterBroker {
    /// The node.
    #[rkyv(with = NodeIdBytes)]
    pub node_id: NodeId,
}

/// See [`MetadataCommand::ElectLeaders`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ElectLeaders {
    /// Who may be elected.
    pub election: Election,
    /// Which partitions. One whose leader epoch is another one now is left as it is.
    pub partitions: Vec<LedPartition>,
}

/// Who may be elected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub enum Election {
    /// The first replica, if it is in sync.
    Preferred,
    /// Where nobody leads: any replica, though it may have lost acknowledged records.
    Unclean,
}

/// A partition as a proposer saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct LedPartition {
    /// Which.
    #[rkyv(with = ReplicaKeyBytes)]
    pub key: ReplicaKey,
    /// Its leader epoch.
    #[rkyv(with = LeaderEpochBytes)]
    pub leader_epoch: LeaderEpoch,
}

/// See [`MetadataCommand::ReassignPartition`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct ReassignPartition {
    /// Which partition.
    #[rkyv(with = ReplicaKeyBytes)]
    pub key: ReplicaKey,
    /// Who shall hold it; `None` stays with those who held it before.
    pub target: Option<Assignment>,
}

/// See [`MetadataCommand::SetClusterConfig`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct SetClusterConfig {
    /// Settings to set, already validated.
    pub set: Vec<ConfigEntry>,
    /// Settings to remove.
    pub remove: Vec<String>,
}

/// See [`MetadataCommand::SetGroupConfig`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct SetGroupConfig {
    /// Which group, whether there is one or not.
    pub group_id: String,
    /// Settings to set, already validated.
    pub set: Vec<ConfigEntry>,
    /// Settings to remove.
    pub remove: Vec<String>,
}

/// See [`MetadataCommand::FoundCluster`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct FoundCluster {
    /// Random.
    pub cluster_id: [u8; 16],
}

/// See [`MetadataCommand::JoinNode`].
#[derive(Clone, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct JoinNode {
    /// The node.
    #[rkyv(with = NodeIdBytes)]
    pub node_id: NodeId,
    /// Where its control plane listens.
    pub control: BrokerEndpoint,
    /// The data directory with which it must come, all zeroes for whichever it has.
    pub directory_id: [u8; 16],
}

/// A node, whichever incarnation of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Archive, Serialize, Deserialize)]
pub struct NodeNamed {
    /// The node.
    #[rkyv(with = NodeIdBytes)]
    pub node_id: NodeId,
}

/// Kinds in the frame. Never reused.
mod kind {
    pub const REGISTER_BROKER: u16 = 1;
    pub const CREATE_TOPIC: u16 = 2;
    pub const DELETE_TOPIC: u16 = 3;
    pub const CREATE_PARTITIONS: u16 = 4;
    pub const CHANGE_PARTITION: u16 = 5;
    pub const SET_TOPIC_CONFIG: u16 = 6;
    pub const ALLOCATE_PRODUCER_IDS: u16 = 7;
    pub const FENCE_BROKER: u16 = 8;
    pub const UNFENCE_BROKER: u16 = 9;
    pub const DRAIN_BROKER: u16 = 10;
    pub const UNREGISTER_BROKER: u16 = 11;
    pub const ELECT_LEADERS: u16 = 12;
    pub const REASSIGN_PARTITION: u16 = 13;
    pub const SET_CLUSTER_CONFIG: u16 = 14;
    pub const FOUND_CLUSTER: u16 = 15;
    pub const JOIN_NODE: u16 = 16;
    pub const LEAVE_NODE: u16 = 17;
    pub const NODE_LEFT: u16 = 18;
    pub const SET_GROUP_CONFIG: u16 = 19;
}

/// The version in which a kind is written. Older ones are read.
const fn version(kind: u16) -> u16 {
    match kind {
        kind::REGISTER_BROKER => 3,
        _ => 1,
    }
}

impl MetadataCommand {
    /// The command as a log entry.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let frame = |kind, body: AlignedVec| seal(COMMAND_MAGIC, kind, version(kind), &body);
        match self {
            Self::RegisterBroker(body) => frame(kind::REGISTER_BROKER, to_body(body)),
            Self::CreateTopic(body) => frame(kind::CREATE_TOPIC, to_body(body)),
            Self::DeleteTopic(body) => frame(kind::DELETE_TOPIC, to_body(body)),
            Self::CreatePartitions(body) => frame(kind::CREATE_PARTITIONS, to_body(body)),
            Self::ChangePartition(body) => frame(kind::CHANGE_PARTITION, to_body(body)),
            Self::SetTopicConfig(body) => frame(kind::SET_TOPIC_CONFIG, to_body(body)),
            Self::AllocateProducerIds(body) => frame(kind::ALLOCATE_PRODUCER_IDS, to_body(body)),
            Self::FenceBroker(body) => frame(kind::FENCE_BROKER, to_body(body)),
            Self::UnfenceBroker(body) => frame(kind::UNFENCE_BROKER, to_body(body)),
            Self::DrainBroker(body) => frame(kind::DRAIN_BROKER, to_body(body)),
            Self::UnregisterBroker(body) => frame(kind::UNREGISTER_BROKER, to_body(body)),
            Self::ElectLeaders(body) => frame(kind::ELECT_LEADERS, to_body(body)),
            Self::ReassignPartition(body) => frame(kind::REASSIGN_PARTITION, to_body(body)),
            Self::SetClusterConfig(body) => frame(kind::SET_CLUSTER_CONFIG, to_body(body)),
            Self::FoundCluster(body) => frame(kind::FOUND_CLUSTER, to_body(body)),
            Self::JoinNode(body) => frame(kind::JOIN_NODE, to_body(body)),
            Self::LeaveNode(body) => frame(kind::LEAVE_NODE, to_body(body)),
            Self::NodeLeft(body) => frame(kind::NODE_LEFT, to_body(body)),
            Self::SetGroupConfig(body) => frame(kind::SET_GROUP_CONFIG, to_body(body)),
        }
    }

    /// Reads a log entry.
    ///
    /// # Errors
    /// [`MetadataFormatError`] when the bytes are not exactly one command of this release.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetadataFormatError> {
        let frame = open(COMMAND_MAGIC, bytes)?;
        let unknown = MetadataFormatError::Unknown { kind: frame.kind, version: frame.version };
        if frame.version != version(frame.kind) {
            return Err(unknown);
        }
        Ok(match frame.kind {
            kind::REGISTER_BROKER => Self::RegisterBroker(from_body(frame.body)?),
            kind::CREATE_TOPIC => Self::CreateTopic(from_body(frame.body)?),
            kind::DELETE_TOPIC => Self::DeleteTopic(from_body(frame.body)?),
            kind::CREATE_PARTITIONS => Self::CreatePartitions(from_body(frame.body)?),
            kind::CHANGE_PARTITION => Self::ChangePartition(from_body(frame.body)?),
            kind::SET_TOPIC_CONFIG => Self::SetTopicConfig(from_body(frame.body)?),
            kind::ALLOCATE_PRODUCER_IDS => Self::AllocateProducerIds(from_body(frame.body)?),
            kind::FENCE_BROKER => Self::FenceBroker(from_body(frame.body)?),
            kind::UNFENCE_BROKER => Self::UnfenceBroker(from_body(frame.body)?),
            kind::DRAIN_BROKER => Self::DrainBroker(from_body(frame.body)?),
            kind::UNREGISTER_BROKER => Self::UnregisterBroker(from_body(frame.body)?),
            kind::ELECT_LEADERS => Self::ElectLeaders(from_body(frame.body)?),
            kind::REASSIGN_PARTITION => Self::ReassignPartition(from_body(frame.body)?),
            kind::SET_CLUSTER_CONFIG => Self::SetClusterConfig(from_body(frame.body)?),
            kind::FOUND_CLUSTER => Self::FoundCluster(from_body(frame.body)?),
            kind::JOIN_NODE => Self::JoinNode(from_body(frame.body)?),
            kind::LEAVE_NODE => Self::LeaveNode(from_body(frame.body)?),
            kind::NODE_LEFT => Self::NodeLeft(from_body(frame.body)?),
            kind::SET_GROUP_CONFIG => Self::SetGroupConfig(from_body(frame.body)?),
            _ => return Err(unknown),
        })
    }
}

/// Serialises a body in memory.
pub(super) fn to_body<T>(body: &T) -> AlignedVec
where
    T: for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, RkyvError>>,
{
    rkyv::to_bytes::<RkyvError>(body).expect("serialising into memory cannot fail")
}

/// Validates and reads a body.
pub(super) fn from_body<T>(bytes: &[u8]) -> Result<T, MetadataFormatError>
where
    T: Archive,
    T::Archived: for<'a> CheckBytes<HighValidator<'a, RkyvError>>
        + Deserialize<T, HighDeserializer<RkyvError>>,
{
    rkyv::from_bytes::<T, RkyvError>(bytes)
        .map_err(|error| MetadataFormatError::Body(error.to_string()))
}

/// Declares how a newtype of the model lies in a body; the model itself knows no layout.
macro_rules! layout {
    ($(#[$doc:meta])* $layout:ident($raw:ty) for $model:ident) => {
        $(#[$doc])*
        #[derive(Archive, Serialize, Deserialize)]
        #[rkyv(remote = $model)]
        pub struct $layout(pub $raw);

        impl From<$layout> for $model {
            fn from(layout: $layout) -> Self {
                Self(layout.0)
            }
        }
    };
}

layout! {
    /// A node id: 4 bytes.
    NodeIdBytes(i32) for NodeId
}
layout! {
    /// A topic id: 16 bytes.
    TopicIdBytes([u8; 16]) for TopicId
}
layout! {
    /// A leader epoch: 4 bytes.
    LeaderEpochBytes(i32) for LeaderEpoch
}
layout! {
    /// A broker epoch: 8 bytes.
    BrokerEpochBytes(i64) for BrokerEpoch
}
layout! {
    /// A partition index: 4 bytes.
    PartitionIndexBytes(i32) for PartitionIndex
}

/// A replica key: topic id, then partition.
#[derive(Archive, Serialize, Deserialize)]
#[rkyv(remote = ReplicaKey)]
pub struct ReplicaKeyBytes {
    /// The topic.
    #[rkyv(with = TopicIdBytes)]
    pub topic_id: TopicId,
    /// The partition.
    #[rkyv(with = PartitionIndexBytes)]
    pub partition: PartitionIndex,
}

impl From<ReplicaKeyBytes> for ReplicaKey {
    fn from(layout: ReplicaKeyBytes) -> Self {
        Self { topic_id: layout.topic_id, partition: layout.partition }
    }
}

#[cfg(test)]
mod tests;
