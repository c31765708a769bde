//! Layout of snapshots in version 1, of nodes that were alone. Read, and no longer written.

use rkyv::with::Map;
use rkyv::{Archive, Deserialize, Serialize};

use super::{BrokerRecord, MetadataSnapshot, PartitionRecord, TopicRecord};
use crate::format::metadata_command::{
    BrokerEpochBytes, ConfigEntry, LeaderEpochBytes, NodeIdBytes, TopicIdBytes,
};
use crate::model::{BrokerEpoch, LeaderEpoch, NodeId, TopicId};

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Snapshot {
    applied: u64,
    next_producer_id: i64,
    brokers: Vec<Broker>,
    topics: Vec<Topic>,
    #[rkyv(with = Map<TopicIdBytes>)]
    tombstones: Vec<TopicId>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Broker {
    #[rkyv(with = NodeIdBytes)]
    node_id: NodeId,
    #[rkyv(with = BrokerEpochBytes)]
    epoch: BrokerEpoch,
    incarnation: [u8; 16],
    shards: u16,
    host: String,
    port: u16,
}

#[derive(Archive, Serialize, Deserialize)]
struct Topic {
    #[rkyv(with = TopicIdBytes)]
    id: TopicId,
    name: String,
    partitions: Vec<Partition>,
    configs: Vec<ConfigEntry>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Partition {
    #[rkyv(with = Map<NodeIdBytes>)]
    leader: Option<NodeId>,
    #[rkyv(with = LeaderEpochBytes)]
    leader_epoch: LeaderEpoch,
    partition_epoch: i32,
    #[rkyv(with = Map<NodeIdBytes>)]
    replicas: Vec<NodeId>,
    #[rkyv(with = Map<NodeIdBytes>)]
    isr: Vec<NodeId>,
}

impl From<Snapshot> for MetadataSnapshot {
    fn from(old: Snapshot) -> Self {
        Self {
            applied: old.applied,
            next_producer_id: old.next_producer_id,
            brokers: old.brokers.into_iter().map(BrokerRecord::from).collect(),
            topics: old.topics.into_iter().map(TopicRecord::from).collect(),
            tombstones: old.tombstones,
            cluster_id: None,
            cluster_configs: Vec::new(),
            proposers: Vec::new(),
            joining: Vec::new(),
            leaving: Vec::new(),
            group_configs: Vec::new(),
        }
    }
}

impl From<Broker> for BrokerRecord {
    fn from(old: Broker) -> Self {
        Self {
            node_id: old.node_id,
            epoch: old.epoch,
            incarnation: old.incarnation,
            shards: old.shards,
            host: old.host,
            port: old.port,
            directory_id: [0; 16],
            rack: None,
            fenced: false,
            draining: false,
            replication: None,
            control: None,
        }
    }
}

impl From<Topic> for TopicRecord {
    fn from(old: Topic) -> Self {
        let partition = |old: Partition| PartitionRecord {
            leader: old.leader,
            leader_epoch: old.leader_epoch,
            partition_epoch: old.partition_epoch,
            replicas: old.replicas,
            isr: old.isr,
            elr: Vec::new(),
            adding: Vec::new(),
            removing: Vec::new(),
        };
        Self {
            id: old.id,
            name: old.name,
            partitions: old.partitions.into_iter().map(partition).collect(),
            configs: old.configs,
        }
    }
}
