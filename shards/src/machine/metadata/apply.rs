//! What each command does to the image. Guards first, then the change: a rejected command leaves
//! the image as it was, apart from the applied index.

use std::collections::BTreeMap;

use super::{
    Applied, ApplyOutcome, GROUP_CONFIGS_MAX, MetadataChange, MetadataImage, PARTITIONS_MAX,
    PRODUCER_ID_BLOCK, Partition, Rejection, TOMBSTONES_MAX, TOPIC_PARTITIONS_MAX, Topic,
    topic_name,
};
use crate::format::metadata_command::{
    AllocateProducerIds, Assignment, CreatePartitions, CreateTopic, DeleteTopic, FoundCluster,
    MetadataCommand, SetClusterConfig, SetGroupConfig, SetTopicConfig,
};
use crate::model::{BrokerEpoch, LeaderEpoch, NodeId, PartitionIndex, ProducerId, TopicId};

/// What a command comes to: the proposer's answer and what the shards act on.
pub(super) type Decision = Result<(ApplyOutcome, Vec<MetadataChange>), Rejection>;

impl MetadataImage {
    /// Applies the command at log index `index`.
    ///
    /// An index that is not above the applied one changes nothing: commands may be delivered again.
    pub fn apply(&mut self, index: u64, command: &MetadataCommand) -> Applied {
        if index <= self.applied {
            let rejection = Rejection::AlreadyApplied { index, applied: self.applied };
            return Applied { outcome: Err(rejection), changes: Vec::new() };
        }
        self.applied = index;
        let decision = match command {
            MetadataCommand::RegisterBroker(command) => self.register_broker(index, command),
            MetadataCommand::CreateTopic(command) => self.create_topic(command),
            MetadataCommand::DeleteTopic(command) => self.delete_topic(command),
            MetadataCommand::CreatePartitions(command) => self.create_partitions(command),
            MetadataCommand::ChangePartition(command) => self.change_partition(command),
            MetadataCommand::SetTopicConfig(command) => self.set_topic_config(command),
            MetadataCommand::AllocateProducerIds(command) => self.allocate_producer_ids(command),
            MetadataCommand::FenceBroker(command) => self.fence_broker(command),
            MetadataCommand::UnfenceBroker(command) => self.unfence_broker(command),
            MetadataCommand::DrainBroker(command) => self.drain_broker(command),
            MetadataCommand::UnregisterBroker(command) => self.unregister_broker(command),
            MetadataCommand::ElectLeaders(command) => self.elect_leaders(command),
            MetadataCommand::ReassignPartition(command) => self.reassign_partition(command),
            MetadataCommand::SetClusterConfig(command) => self.set_cluster_config(command),
            MetadataCommand::SetGroupConfig(command) => self.set_group_config(command),
            MetadataCommand::FoundCluster(command) => self.found_cluster(command),
            MetadataCommand::JoinNode(command) => self.join_node(command),
            MetadataCommand::LeaveNode(command) => self.leave_node(command),
            MetadataCommand::NodeLeft(command) => self.node_left(command),
        };
        match decision {
            Ok((outcome, changes)) => Applied { outcome: Ok(outcome), changes },
            Err(rejection) => Applied { outcome: Err(rejection), changes: Vec::new() },
        }
    }

    /// Notes that log index `index` held nothing to apply.
    pub fn skip(&mut self, index: u64) {
        self.applied = self.applied.max(index);
    }

    fn create_topic(&mut self, command: &CreateTopic) -> Decision {
        let topic_id = command.topic_id;
        if self.topics.get(&topic_id).is_some_and(|topic| topic.name == command.name) {
            // The same proposal once more.
            return Ok((ApplyOutcome::TopicCreated { topic_id }, Vec::new()));
        }
        self.check_new_topic(&command.name)?;
        if topic_id == TopicId::ZERO
            || self.topics.contains_key(&topic_id)
            || self.tombstones.contains(&topic_id)
        {
            return Err(Rejection::TopicIdUsed(topic_id));
        }
        let partitions = self.new_partitions(0, &command.partitions)?;
        let configs: BTreeMap<String, String> =
            command.configs.iter().map(|entry| (entry.name.clone(), entry.value.clone())).collect();
        self.partition_count += partitions.len();
        self.names.insert(command.name.clone(), topic_id);
        self.folded_names.insert(topic_name::fold(&command.name), topic_id);
        let topic = Topic { id: topic_id, name: command.name.clone(), partitions, configs };
        self.topics.insert(topic_id, topic);
        Ok((
            ApplyOutcome::TopicCreated { topic_id },
            vec![MetadataChange::TopicCreated { topic_id }],
        ))
    }

    fn delete_topic(&mut self, command: &DeleteTopic) -> Decision {
        let topic_id = command.topic_id;
        let topic = self.topics.remove(&topic_id).ok_or(Rejection::UnknownTopic(topic_id))?;
        self.names.remove(&topic.name);
        self.folded_names.remove(&topic_name::fold(&topic.name));
        self.partition_count -= topic.partitions.len();
        if self.tombstones.len() == TOMBSTONES_MAX {
            self.tombstones.pop_front();
        }
        self.tombstones.push_back(topic_id);
        Ok((ApplyOutcome::TopicDeleted, vec![MetadataChange::TopicDeleted { topic }]))
    }

    fn create_partitions(&mut self, command: &CreatePartitions) -> Decision {
        let topic_id = command.topic_id;
        let topic = self.topics.get(&topic_id).ok_or(Rejection::UnknownTopic(topic_id))?;
        let found = topic.partitions.len();
        let expected = command.existing as usize;
        if found != expected {
            return Err(Rejection::PartitionCountChanged { expected, found });
        }
        let partitions = self.new_partitions(found, &command.partitions)?;
        self.partition_count += partitions.len();
        let topic = self.topics.get_mut(&topic_id).expect("looked up above");
        topic.partitions.extend(partitions);
        let first = PartitionIndex(i32::try_from(found).expect("topics are bounded"));
        Ok((
            ApplyOutcome::PartitionsCreated,
            vec![MetadataChange::PartitionsCreated { topic_id, first }],
        ))
    }

    fn set_topic_config(&mut self, command: &SetTopicConfig) -> Decision {
        let topic_id = command.topic_id;
        let topic = self.topics.get_mut(&topic_id).ok_or(Rejection::UnknownTopic(topic_id))?;
        let mut configs = if command.replace { BTreeMap::new() } else { topic.configs.clone() };
        for name in &command.remove {
            configs.remove(name);
        }
        for entry in &command.set {
            configs.insert(entry.name.clone(), entry.value.clone());
        }
        if topic.configs == configs {
            return Ok((ApplyOutcome::TopicConfigSet, Vec::new()));
        }
        topic.configs = configs;
        let mut changes = vec![MetadataChange::TopicConfigChanged { topic_id }];
        changes.extend(self.follow_rules(|topic| topic.id == topic_id));
        Ok((ApplyOutcome::TopicConfigSet, changes))
    }

    fn set_cluster_config(&mut self, command: &SetClusterConfig) -> Decision {
        let mut configs = self.cluster_configs.clone();
        for name in &command.remove {
            configs.remove(name);
        }
        for entry in &command.set {
            configs.insert(entry.name.clone(), entry.value.clone());
        }
        if self.cluster_configs == configs {
            return Ok((ApplyOutcome::ClusterConfigSet, Vec::new()));
        }
        self.cluster_configs = configs;
        let mut changes = vec![MetadataChange::ClusterConfigChanged];
        changes.extend(self.follow_rules(|_| true));
        Ok((ApplyOutcome::ClusterConfigSet, changes))
    }

    fn set_group_config(&mut self, command: &SetGroupConfig) -> Decision {
        let known = self.group_configs.get(&command.group_id);
        if known.is_none() && self.group_configs.len() >= GROUP_CONFIGS_MAX {
            return Err(Rejection::GroupConfigsFull);
        }
        let mut configs = known.cloned().unwrap_or_default();
        for name in &command.remove {
            configs.remove(name);
        }
        for entry in &command.set {
            configs.insert(entry.name.clone(), entry.value.clone());
        }
        if known.map_or(configs.is_empty(), |known| *known == configs) {
            return Ok((ApplyOutcome::GroupConfigSet, Vec::new()));
        }
        match configs.is_empty() {
            true => drop(self.group_configs.remove(&command.group_id)),
            false => drop(self.group_configs.insert(command.group_id.clone(), configs)),
        }
        Ok((ApplyOutcome::GroupConfigSet, vec![MetadataChange::GroupConfigChanged]))
    }

    fn found_cluster(&mut self, command: &FoundCluster) -> Decision {
        match self.cluster_id {
            Some(known) if known == command.cluster_id => {
                Ok((ApplyOutcome::ClusterFounded, Vec::new()))
            }
            Some(_) => Err(Rejection::ClusterFounded),
            None => {
                self.cluster_id = Some(command.cluster_id);
                Ok((ApplyOutcome::ClusterFounded, vec![MetadataChange::ClusterFounded]))
            }
        }
    }

    fn allocate_producer_ids(&mut self, command: &AllocateProducerIds) -> Decision {
        self.check_broker(command.node_id, command.broker_epoch)?;
        let first = self.next_producer_id;
        let next = first.0.checked_add(PRODUCER_ID_BLOCK).ok_or(Rejection::ProducerIdsExhausted)?;
        self.next_producer_id = ProducerId(next);
        Ok((ApplyOutcome::ProducerIds { first, count: PRODUCER_ID_BLOCK }, Vec::new()))
    }

    /// Partitions `first..`, led by their first replica that is there, everyone there in sync: they
    /// are empty.
    fn new_partitions(
        &self,
        first: usize,
        assignments: &[Assignment],
    ) -> Result<Vec<Partition>, Rejection> {
        let count = first + assignments.len();
        if assignments.is_empty()
            || count > TOPIC_PARTITIONS_MAX
            || self.partition_count + assignments.len() > PARTITIONS_MAX
        {
            return Err(Rejection::PartitionCount { count });
        }
        let mut partitions = Vec::with_capacity(assignments.len());
        for (assignment, number) in assignments.iter().zip(first..) {
            let index = PartitionIndex(i32::try_from(number).expect("topics are bounded"));
            self.check_replicas(index, &assignment.replicas)?;
            // Whoever is fenced would not take part: it catches up when it is back.
            let here = |node: &&NodeId| self.brokers.get(node).is_some_and(|it| !it.fenced);
            let isr: Vec<NodeId> = assignment.replicas.iter().filter(here).copied().collect();
            if isr.is_empty() {
                let reason = format!("none of {:?} is there", assignment.replicas);
                return Err(Rejection::Assignment { partition: index, reason });
            }
            partitions.push(Partition {
                leader: isr.first().copied(),
                leader_epoch: LeaderEpoch(0),
                partition_epoch: 0,
                replicas: assignment.replicas.clone(),
                isr,
                elr: Vec::new(),
                adding: Vec::new(),
                removing: Vec::new(),
            });
        }
        Ok(partitions)
    }

    pub(super) fn check_replicas(
        &self,
        partition: PartitionIndex,
        replicas: &[NodeId],
    ) -> Result<(), Rejection> {
        let reason = if replicas.is_empty() {
            "no replicas".to_owned()
        } else if has_duplicates(replicas) {
            format!("a replica is named twice: {replicas:?}")
        } else if let Some(node) = replicas.iter().find(|node| !self.brokers.contains_key(node)) {
            format!("node {node} is not registered")
        } else if let Some(node) = replicas.iter().find(|node| self.leaving.contains(node)) {
            format!("node {node} is being taken off the cluster")
        } else {
            return Ok(());
        };
        Err(Rejection::Assignment { partition, reason })
    }

    pub(super) fn check_broker(
        &self,
        node_id: NodeId,
        broker_epoch: BrokerEpoch,
    ) -> Result<(), Rejection> {
        match self.brokers.get(&node_id) {
            Some(broker) if broker.epoch == broker_epoch => Ok(()),
            _ => Err(Rejection::StaleBrokerEpoch { node_id, broker_epoch }),
        }
    }
}

pub(super) fn has_duplicates(nodes: &[NodeId]) -> bool {
    nodes.iter().enumerate().any(|(place, node)| nodes[..place].contains(node))
}
