//! What each command does to the image. Guards first, then the change: a rejected command leaves
//! the image as it was, apart from the applied index.

use std::collections::BTreeMap;

use super::{
    Applied, ApplyOutcome, Broker, MetadataChange, MetadataImage, PARTITIONS_MAX,
    PRODUCER_ID_BLOCK, Partition, Rejection, TOMBSTONES_MAX, TOPIC_PARTITIONS_MAX, Topic,
    topic_name,
};
use crate::format::metadata_command::{
    AllocateProducerIds, Assignment, ChangePartition, CreatePartitions, CreateTopic, DeleteTopic,
    MetadataCommand, RegisterBroker, SetTopicConfig,
};
use crate::model::{
    BrokerEpoch, LeaderEpoch, NodeId, PartitionIndex, ProducerId, ReplicaKey, TopicId,
};

type Decision = Result<(ApplyOutcome, Vec<MetadataChange>), Rejection>;

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

    fn register_broker(&mut self, index: u64, command: &RegisterBroker) -> Decision {
        let node_id = command.node_id;
        if command.shards == 0 {
            return Err(Rejection::NoShards(node_id));
        }
        if let Some(known) = self.brokers.get(&node_id)
            && known.incarnation == command.incarnation
        {
            return Ok((ApplyOutcome::BrokerRegistered { broker_epoch: known.epoch }, Vec::new()));
        }
        // The log index: grows with every registration, and every image computes the same.
        let epoch = BrokerEpoch(i64::try_from(index).expect("log indexes fit 63 bits"));
        let broker = Broker {
            epoch,
            incarnation: command.incarnation,
            shards: command.shards,
            host: command.host.clone(),
            port: command.port,
        };
        self.brokers.insert(node_id, broker);
        let mut changes = vec![MetadataChange::BrokerRegistered { node_id }];
        // The new incarnation may have lost a tail that others still hold; under a new epoch it
        // cannot write other records at those offsets unnoticed.
        for topic in self.topics.values_mut() {
            let topic_id = topic.id;
            for (partition, number) in topic.partitions.iter_mut().zip(0..) {
                if partition.leader == Some(node_id) {
                    partition.lead(Some(node_id));
                    let key = ReplicaKey { topic_id, partition: PartitionIndex(number) };
                    changes.push(MetadataChange::PartitionChanged { key });
                }
            }
        }
        Ok((ApplyOutcome::BrokerRegistered { broker_epoch: epoch }, changes))
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

    fn change_partition(&mut self, command: &ChangePartition) -> Decision {
        let key = command.key;
        let current = self.partition(key).ok_or(Rejection::UnknownPartition(key))?;
        if current.leader_epoch != command.leader_epoch {
            return Err(Rejection::FencedLeaderEpoch {
                key,
                current: current.leader_epoch,
                proposed: command.leader_epoch,
            });
        }
        if current.partition_epoch != command.partition_epoch {
            return Err(Rejection::StalePartitionEpoch {
                key,
                current: current.partition_epoch,
                proposed: command.partition_epoch,
            });
        }
        self.check_replicas(key.partition, &command.replicas)?;
        for member in &command.isr {
            self.check_broker(member.node_id, member.broker_epoch)?;
        }
        let isr: Vec<NodeId> = command.isr.iter().map(|member| member.node_id).collect();
        let ineligible = |reason: &str| Rejection::IneligibleReplica { key, reason: reason.into() };
        if isr.is_empty() {
            return Err(ineligible("an in-sync set has a member"));
        }
        if has_duplicates(&isr) || !isr.iter().all(|node| command.replicas.contains(node)) {
            return Err(ineligible("the in-sync set is not a subset of the replicas"));
        }
        if command.leader.is_some_and(|leader| !isr.contains(&leader)) {
            return Err(ineligible("the leader is not in the in-sync set"));
        }
        let topic = self.topics.get_mut(&key.topic_id).expect("looked up above");
        let partition = &mut topic.partitions[key.partition.0 as usize];
        partition.replicas.clone_from(&command.replicas);
        partition.isr = isr;
        if partition.leader == command.leader {
            partition.partition_epoch += 1;
        } else {
            partition.lead(command.leader);
        }
        Ok((
            ApplyOutcome::PartitionChanged {
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
            },
            vec![MetadataChange::PartitionChanged { key }],
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
        let changes = vec![MetadataChange::TopicConfigChanged { topic_id }];
        Ok((ApplyOutcome::TopicConfigSet, changes))
    }

    fn allocate_producer_ids(&mut self, command: &AllocateProducerIds) -> Decision {
        self.check_broker(command.node_id, command.broker_epoch)?;
        let first = self.next_producer_id;
        let next = first.0.checked_add(PRODUCER_ID_BLOCK).ok_or(Rejection::ProducerIdsExhausted)?;
        self.next_producer_id = ProducerId(next);
        Ok((ApplyOutcome::ProducerIds { first, count: PRODUCER_ID_BLOCK }, Vec::new()))
    }

    /// Partitions `first..`, led by their first replica, everyone in sync: they are empty.
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
            partitions.push(Partition {
                leader: assignment.replicas.first().copied(),
                leader_epoch: LeaderEpoch(0),
                partition_epoch: 0,
                replicas: assignment.replicas.clone(),
                isr: assignment.replicas.clone(),
            });
        }
        Ok(partitions)
    }

    fn check_replicas(
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
        } else {
            return Ok(());
        };
        Err(Rejection::Assignment { partition, reason })
    }

    fn check_broker(&self, node_id: NodeId, broker_epoch: BrokerEpoch) -> Result<(), Rejection> {
        match self.brokers.get(&node_id) {
            Some(broker) if broker.epoch == broker_epoch => Ok(()),
            _ => Err(Rejection::StaleBrokerEpoch { node_id, broker_epoch }),
        }
    }
}

impl Partition {
    /// A new leader, or the same one in a new incarnation.
    fn lead(&mut self, leader: Option<NodeId>) {
        self.leader = leader;
        self.leader_epoch =
            LeaderEpoch(self.leader_epoch.0.checked_add(1).expect("leader epochs do not run out"));
        self.partition_epoch += 1;
    }
}

fn has_duplicates(nodes: &[NodeId]) -> bool {
    nodes.iter().enumerate().any(|(place, node)| nodes[..place].contains(node))
}
