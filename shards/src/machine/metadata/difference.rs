//! What changed between two images, for whoever was away and got a snapshot instead of commands.

use super::{MetadataChange, MetadataImage, Topic};
use crate::model::{PartitionIndex, ReplicaKey};

impl MetadataImage {
    /// Every change that makes this image `newer`, in the words that commands would have used: what
    /// went first, then what came, so that a name is free before another topic takes it.
    #[must_use]
    pub fn changes_to(&self, newer: &Self) -> Vec<MetadataChange> {
        let mut changes = Vec::new();
        if self.cluster_id != newer.cluster_id {
            changes.push(MetadataChange::ClusterFounded);
        }
        if self.cluster_configs != newer.cluster_configs {
            changes.push(MetadataChange::ClusterConfigChanged);
        }
        if self.group_configs != newer.group_configs {
            changes.push(MetadataChange::GroupConfigChanged);
        }
        for (node_id, broker) in newer.brokers() {
            match self.broker(node_id) {
                Some(known) if known == broker => {}
                Some(known) if known.epoch == broker.epoch => {
                    changes.push(MetadataChange::BrokerChanged { node_id });
                }
                _ => changes.push(MetadataChange::BrokerRegistered { node_id }),
            }
        }
        for (node_id, _) in self.brokers().filter(|(node, _)| newer.broker(*node).is_none()) {
            changes.push(MetadataChange::BrokerUnregistered { node_id });
        }
        for topic in self.topics.values().filter(|topic| newer.topic(topic.id).is_none()) {
            changes.push(MetadataChange::TopicDeleted { topic: topic.clone() });
        }
        for topic in newer.topics.values() {
            match self.topic(topic.id) {
                Some(known) => changes_of(known, topic, &mut changes),
                None => changes.push(MetadataChange::TopicCreated { topic_id: topic.id }),
            }
        }
        changes
    }
}

fn changes_of(known: &Topic, newer: &Topic, changes: &mut Vec<MetadataChange>) {
    let topic_id = newer.id;
    if known.configs != newer.configs {
        changes.push(MetadataChange::TopicConfigChanged { topic_id });
    }
    for ((old, new), number) in known.partitions.iter().zip(&newer.partitions).zip(0..) {
        if old != new {
            let key = ReplicaKey { topic_id, partition: PartitionIndex(number) };
            changes.push(MetadataChange::PartitionChanged { key });
        }
    }
    if newer.partitions.len() > known.partitions.len() {
        let first = i32::try_from(known.partitions.len()).expect("topics are bounded");
        let first = PartitionIndex(first);
        changes.push(MetadataChange::PartitionsCreated { topic_id, first });
    }
}
