//! Layout of snapshots in version 2: where peers connect is not in it. Read, and no longer written.

use rkyv::with::Map;
use rkyv::{Archive, Deserialize, Serialize};

use super::{BrokerRecord, MetadataSnapshot, ProposerRecord, TopicRecord};
use crate::format::metadata_command::{BrokerEpochBytes, ConfigEntry, NodeIdBytes, TopicIdBytes};
use crate::model::{BrokerEpoch, NodeId, TopicId};

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Snapshot {
    applied: u64,
    next_producer_id: i64,
    brokers: Vec<Broker>,
    topics: Vec<TopicRecord>,
    #[rkyv(with = Map<TopicIdBytes>)]
    tombstones: Vec<TopicId>,
    cluster_id: Option<[u8; 16]>,
    cluster_configs: Vec<ConfigEntry>,
    proposers: Vec<ProposerRecord>,
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
    directory_id: [u8; 16],
    rack: Option<String>,
    fenced: bool,
    draining: bool,
}

impl From<Snapshot> for MetadataSnapshot {
    fn from(old: Snapshot) -> Self {
        Self {
            applied: old.applied,
            next_producer_id: old.next_producer_id,
            brokers: old.brokers.into_iter().map(BrokerRecord::from).collect(),
            topics: old.topics,
            tombstones: old.tombstones,
            cluster_id: old.cluster_id,
            cluster_configs: old.cluster_configs,
            proposers: old.proposers,
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
            directory_id: old.directory_id,
            rack: old.rack,
            fenced: old.fenced,
            draining: old.draining,
            replication: None,
            control: None,
        }
    }
}
