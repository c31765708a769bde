//! Layout of snapshots in version 3: nodes that come and go are not in it. Read, and no longer written.

use rkyv::with::Map;
use rkyv::{Archive, Deserialize, Serialize};

use super::{BrokerRecord, MetadataSnapshot, ProposerRecord, TopicRecord};
use crate::format::metadata_command::{ConfigEntry, TopicIdBytes};
use crate::model::TopicId;

#[derive(Archive, Serialize, Deserialize)]
pub(super) struct Snapshot {
    applied: u64,
    next_producer_id: i64,
    brokers: Vec<BrokerRecord>,
    topics: Vec<TopicRecord>,
    #[rkyv(with = Map<TopicIdBytes>)]
    tombstones: Vec<TopicId>,
    cluster_id: Option<[u8; 16]>,
    cluster_configs: Vec<ConfigEntry>,
    proposers: Vec<ProposerRecord>,
}

impl From<Snapshot> for MetadataSnapshot {
    fn from(old: Snapshot) -> Self {
        Self {
            applied: old.applied,
            next_producer_id: old.next_producer_id,
            brokers: old.brokers,
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
