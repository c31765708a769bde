//! The image as a snapshot of the log, and back.

use std::collections::BTreeMap;

use super::{Broker, MetadataImage, Partition, TOMBSTONES_MAX, Topic, topic_name};
use crate::format::metadata_command::ConfigEntry;
use crate::format::metadata_frame::MetadataFormatError;
use crate::format::metadata_snapshot::{
    BrokerRecord, GroupConfigRecord, MetadataSnapshot, PartitionRecord, TopicRecord,
};
use crate::model::ProducerId;

impl MetadataImage {
    /// Everything the image holds, as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.to_snapshot().encode()
    }

    /// The image that [`MetadataImage::encode`] wrote.
    ///
    /// # Errors
    /// [`MetadataFormatError`] when the bytes are not a snapshot, or one that contradicts itself.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetadataFormatError> {
        Self::from_snapshot(MetadataSnapshot::decode(bytes)?)
    }

    pub(super) fn to_snapshot(&self) -> MetadataSnapshot {
        let brokers = self.brokers.iter().map(|(node_id, broker)| BrokerRecord {
            node_id: *node_id,
            epoch: broker.epoch,
            incarnation: broker.incarnation,
            shards: broker.shards,
            host: broker.host.clone(),
            port: broker.port,
            directory_id: broker.directory_id,
            rack: broker.rack.clone(),
            fenced: broker.fenced,
            draining: broker.draining,
            replication: broker.replication.clone(),
            control: broker.control.clone(),
        });
        MetadataSnapshot {
            applied: self.applied,
            next_producer_id: self.next_producer_id.0,
            brokers: brokers.collect(),
            topics: self.topics.values().map(topic_record).collect(),
            tombstones: self.tombstones.iter().copied().collect(),
            cluster_id: self.cluster_id,
            cluster_configs: config_entries(&self.cluster_configs),
            proposers: Vec::new(),
            joining: self.joining.values().cloned().collect(),
            leaving: self.leaving.iter().copied().collect(),
            group_configs: self.group_configs.iter().map(group_config_record).collect(),
        }
    }

    pub(super) fn from_snapshot(snapshot: MetadataSnapshot) -> Result<Self, MetadataFormatError> {
        let mut image = Self {
            applied: snapshot.applied,
            next_producer_id: ProducerId(snapshot.next_producer_id),
            cluster_id: snapshot.cluster_id,
            cluster_configs: by_name(snapshot.cluster_configs),
            joining: snapshot.joining.into_iter().map(|node| (node.node_id, node)).collect(),
            leaving: snapshot.leaving.into_iter().collect(),
            group_configs: group_configs(snapshot.group_configs),
            ..Self::default()
        };
        let invalid = |what: String| MetadataFormatError::Body(what);
        if snapshot.tombstones.len() > TOMBSTONES_MAX {
            return Err(invalid(format!("{} deleted topics", snapshot.tombstones.len())));
        }
        image.tombstones = snapshot.tombstones.into();
        for record in snapshot.brokers {
            let broker = Broker {
                epoch: record.epoch,
                incarnation: record.incarnation,
                shards: record.shards,
                host: record.host,
                port: record.port,
                directory_id: record.directory_id,
                rack: record.rack,
                fenced: record.fenced,
                draining: record.draining,
                replication: record.replication,
                control: record.control,
            };
            // A node without shards could own nothing, and owning is computed modulo the number.
            if broker.shards == 0 || image.brokers.insert(record.node_id, broker).is_some() {
                return Err(invalid(format!("node {}", record.node_id)));
            }
        }
        for record in snapshot.topics {
            let topic = topic(record);
            let twice = image.names.insert(topic.name.clone(), topic.id).is_some()
                || image.folded_names.insert(topic_name::fold(&topic.name), topic.id).is_some();
            image.partition_count += topic.partitions.len();
            let (id, name) = (topic.id, topic.name.clone());
            if twice || image.topics.insert(id, topic).is_some() {
                return Err(invalid(format!("topic {name:?} or its id {id} is there twice")));
            }
        }
        Ok(image)
    }
}

fn topic_record(topic: &Topic) -> TopicRecord {
    let partitions = topic.partitions.iter().map(|partition| PartitionRecord {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        isr: partition.isr.clone(),
        elr: partition.elr.clone(),
        adding: partition.adding.clone(),
        removing: partition.removing.clone(),
    });
    TopicRecord {
        id: topic.id,
        name: topic.name.clone(),
        partitions: partitions.collect(),
        configs: config_entries(&topic.configs),
    }
}

fn group_config_record(
    (group_id, configs): (&String, &BTreeMap<String, String>),
) -> GroupConfigRecord {
    GroupConfigRecord { group_id: group_id.clone(), configs: config_entries(configs) }
}

fn group_configs(records: Vec<GroupConfigRecord>) -> BTreeMap<String, BTreeMap<String, String>> {
    let named = records.into_iter().map(|record| (record.group_id, by_name(record.configs)));
    named.filter(|(_, configs)| !configs.is_empty()).collect()
}

fn config_entries(configs: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    let entry = |(name, value): (&String, &String)| ConfigEntry {
        name: name.clone(),
        value: value.clone(),
    };
    configs.iter().map(entry).collect()
}

fn by_name(entries: Vec<ConfigEntry>) -> BTreeMap<String, String> {
    entries.into_iter().map(|entry| (entry.name, entry.value)).collect()
}

fn topic(record: TopicRecord) -> Topic {
    let partitions = record.partitions.into_iter().map(|partition| Partition {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas,
        isr: partition.isr,
        elr: partition.elr,
        adding: partition.adding,
        removing: partition.removing,
    });
    Topic {
        id: record.id,
        name: record.name,
        partitions: partitions.collect(),
        configs: by_name(record.configs),
    }
}
