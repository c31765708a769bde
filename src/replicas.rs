//! What the metadata says of a partition, as the shard that has a replica of it is told.

use chronik_shards::machine::input::{PartitionConfig, PartitionSpec};
use chronik_shards::machine::metadata::Partition;
use chronik_shards::machine::replica::{ReplicaAssignment, ReplicaNode};
use chronik_shards::machine::topic_config::TopicSettings;
use chronik_shards::model::{NodeId, ReplicaKey};

use crate::metadata_view::MetadataView;

/// What this node's replica of a partition is told; `None` where it has none.
#[must_use]
pub fn assignment(view: &MetadataView, key: ReplicaKey) -> Option<ReplicaAssignment> {
    let image = view.image();
    let topic = image.topic(key.topic_id)?;
    let partition = topic.partition(key.partition)?;
    if !partition.replicas.contains(&view.node_id()) {
        return None;
    }
    let settings = view.settings(key.topic_id).expect("every topic has settings");
    let node = |node_id: &NodeId| {
        let broker = image.broker(*node_id).expect("a replica is on a registered node");
        ReplicaNode {
            node_id: *node_id,
            broker_epoch: broker.epoch,
            shard: key.shard(broker.shards),
        }
    };
    Some(ReplicaAssignment {
        spec: PartitionSpec {
            key,
            topic_name: topic.name.clone(),
            leader_epoch: partition.leader_epoch,
            config: config(settings, partition),
        },
        metadata_index: image.applied(),
        partition_epoch: partition.partition_epoch,
        leader: partition.leader,
        replicas: partition.replicas.iter().map(node).collect(),
        isr: partition.isr.clone(),
    })
}

/// A topic's configuration as one of its partitions follows it. As in Kafka, no more replicas have to be in
/// sync than there are.
#[must_use]
pub fn config(settings: &TopicSettings, partition: &Partition) -> PartitionConfig {
    let min_insync_replicas = settings.partition.min_insync_replicas.min(partition.replicas.len());
    PartitionConfig { min_insync_replicas, ..settings.partition.clone() }
}
