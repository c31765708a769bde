mod failover;
mod membership;
mod proposals;
mod racks;
mod reassignment;
mod sequences;
mod snapshots;

use super::*;
use crate::format::metadata_command::{
    AllocateProducerIds, Assignment, BrokerIncarnation, ChangePartition, ConfigEntry,
    CreatePartitions, CreateTopic, DeleteTopic, ElectLeaders, Election, FoundCluster, IsrMember,
    LedPartition, MetadataCommand, NodeNamed, ReassignPartition, RegisterBroker, SetClusterConfig,
    SetGroupConfig, SetTopicConfig, UnregisterBroker,
};

/// An image with its log: commands get consecutive indexes.
#[derive(Default)]
struct Cluster {
    image: MetadataImage,
}

impl Cluster {
    fn with_brokers(nodes: i32) -> Self {
        let mut cluster = Self::default();
        for node in 1..=nodes {
            cluster.apply(register(node, node as u8)).outcome.unwrap();
        }
        cluster
    }

    fn apply(&mut self, command: MetadataCommand) -> Applied {
        let applied = self.image.apply(self.image.applied() + 1, &command);
        self.image.check_invariants();
        applied
    }

    fn create(&mut self, name: &str, id: u8, partitions: usize) -> Applied {
        let brokers = self.image.broker_ids();
        let factor = brokers.len().min(2);
        self.apply(create(name, id, assign(0, partitions, factor, &brokers).unwrap()))
    }
}

fn topic_id(id: u8) -> TopicId {
    TopicId([id; 16])
}

fn key(id: u8, partition: i32) -> ReplicaKey {
    ReplicaKey { topic_id: topic_id(id), partition: PartitionIndex(partition) }
}

fn register(node: i32, incarnation: u8) -> MetadataCommand {
    MetadataCommand::RegisterBroker(RegisterBroker {
        node_id: NodeId(node),
        incarnation: [incarnation; 16],
        shards: 2,
        host: "localhost".to_owned(),
        port: 9092,
        directory_id: [node as u8; 16],
        rack: None,
        fenced: false,
        replication: None,
        control: None,
    })
}

fn create(name: &str, id: u8, partitions: Vec<Assignment>) -> MetadataCommand {
    let configs = vec![ConfigEntry { name: "retention.ms".into(), value: "5".into() }];
    MetadataCommand::CreateTopic(CreateTopic {
        name: name.to_owned(),
        topic_id: topic_id(id),
        partitions,
        configs,
    })
}

fn delete(id: u8) -> MetadataCommand {
    MetadataCommand::DeleteTopic(DeleteTopic { topic_id: topic_id(id) })
}

fn fence(node: i32, broker_epoch: BrokerEpoch) -> MetadataCommand {
    MetadataCommand::FenceBroker(BrokerIncarnation { node_id: NodeId(node), broker_epoch })
}

fn allocate(node: i32, epoch: BrokerEpoch) -> MetadataCommand {
    let node_id = NodeId(node);
    MetadataCommand::AllocateProducerIds(AllocateProducerIds { node_id, broker_epoch: epoch })
}

#[test]
fn partitions_start_at_consecutive_brokers() {
    let brokers = [NodeId(1), NodeId(2), NodeId(3)];
    let replicas = |first, count| -> Vec<Vec<i32>> {
        let assigned = assign(first, count, 3, &brokers).unwrap();
        assigned.iter().map(|one| one.replicas.iter().map(|node| node.0).collect()).collect()
    };
    assert_eq!(replicas(0, 4), [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
    assert_eq!(replicas(4, 1), [[2, 3, 1]], "growth goes on where creation stopped");
}

#[test]
fn replication_factor_is_between_one_and_the_number_of_brokers() {
    for factor in [0, 3] {
        let refused = assign(0, 1, factor, &[NodeId(1), NodeId(2)]);
        assert_eq!(refused, Err(AssignError { replication_factor: factor, brokers: 2 }));
    }
}

#[test]
fn a_topic_comes_with_all_partitions_led_by_their_first_replica() {
    let mut cluster = Cluster::with_brokers(3);
    let applied = cluster.create("orders", 1, 4);
    let topic_id = topic_id(1);
    assert_eq!(applied.outcome, Ok(ApplyOutcome::TopicCreated { topic_id }));
    assert_eq!(applied.changes, [MetadataChange::TopicCreated { topic_id }]);
    let topic = cluster.image.topic_named("orders").unwrap();
    assert_eq!(topic.partitions.len(), 4);
    for (_, partition) in topic.replicas() {
        assert_eq!(partition.leader, partition.replicas.first().copied());
        assert_eq!(partition.isr, partition.replicas);
        assert_eq!(partition.leader_epoch, LeaderEpoch(0));
    }
    assert_eq!(cluster.image.partition_count(), 4);
}

#[test]
fn creating_an_existing_topic_changes_nothing_and_says_so() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create("orders", 1, 4);
    let before = cluster.image.topic_named("orders").cloned();
    let applied = cluster.create("orders", 2, 9);
    let exists = Rejection::TopicExists { name: "orders".into(), topic_id: topic_id(1) };
    assert_eq!(applied, Applied { outcome: Err(exists), changes: vec![] });
    assert_eq!(cluster.image.topic_named("orders").cloned(), before);
    assert_eq!(cluster.image.topic(topic_id(2)), None);
}

#[test]
fn a_creation_that_is_proposed_twice_counts_once() {
    let mut cluster = Cluster::with_brokers(1);
    let first = cluster.create("orders", 1, 4);
    let second = cluster.create("orders", 1, 4);
    assert_eq!(second.outcome, first.outcome);
    assert!(second.changes.is_empty());
    assert_eq!(cluster.image.partition_count(), 4);
}

#[test]
fn names_that_differ_in_dot_and_underscore_only_collide() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create("a.b_c", 1, 1);
    let refused = cluster.create("a_b.c", 2, 1).outcome;
    assert!(matches!(refused, Err(Rejection::TopicNameCollides { other, .. }) if other == "a.b_c"));
    cluster.apply(delete(1)).outcome.unwrap();
    cluster.create("a_b.c", 3, 1).outcome.unwrap();
}

#[test]
fn topic_names_follow_kafkas_rules() {
    for good in ["a", "A.b_c-9", "...", "__consumer_offsets", &"x".repeat(249)] {
        assert_eq!(check_topic_name(good), Ok(()), "{good}");
    }
    assert_eq!(check_topic_name(""), Err(TopicNameError::Empty));
    assert_eq!(check_topic_name("."), Err(TopicNameError::Reserved(".".into())));
    assert_eq!(check_topic_name(".."), Err(TopicNameError::Reserved("..".into())));
    assert_eq!(check_topic_name(&"x".repeat(250)), Err(TopicNameError::TooLong(250)));
    for (bad, found) in [("a/b", '/'), ("a b", ' '), ("é", 'é'), ("a\0", '\0'), ("a\n", '\n')] {
        let name = bad.to_owned();
        assert_eq!(check_topic_name(bad), Err(TopicNameError::Character { name, found }));
    }
}

#[test]
fn assignments_to_nobody_to_strangers_or_twice_to_one_are_refused() {
    let mut cluster = Cluster::with_brokers(2);
    for replicas in [vec![], vec![NodeId(9)], vec![NodeId(1), NodeId(1)]] {
        let good = Assignment { replicas: vec![NodeId(1)] };
        let applied = cluster.apply(create("t", 1, vec![good, Assignment { replicas }]));
        assert!(matches!(
            applied.outcome,
            Err(Rejection::Assignment { partition: PartitionIndex(1), .. })
        ));
        assert_eq!(cluster.image.topic_count(), 0, "a refused command changes nothing");
    }
}

#[test]
fn partition_counts_are_bounded() {
    let mut cluster = Cluster::with_brokers(1);
    for count in [0, TOPIC_PARTITIONS_MAX + 1] {
        let partitions = assign(0, count, 1, &[NodeId(1)]).unwrap();
        let refused = cluster.apply(create("t", 1, partitions)).outcome;
        assert_eq!(refused, Err(Rejection::PartitionCount { count }));
    }
    cluster.create("t", 1, TOPIC_PARTITIONS_MAX).outcome.unwrap();
}

#[test]
fn a_node_that_returns_alone_leads_under_new_leader_epochs() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create("t", 1, 2);
    let applied = cluster.apply(register(1, 77));
    let epoch = BrokerEpoch(cluster.image.applied() as i64);
    assert_eq!(applied.outcome, Ok(ApplyOutcome::BrokerRegistered { broker_epoch: epoch }));
    assert_eq!(
        applied.changes,
        [
            MetadataChange::BrokerRegistered { node_id: NodeId(1) },
            MetadataChange::PartitionChanged { key: key(1, 0) },
            MetadataChange::PartitionChanged { key: key(1, 1) }
        ]
    );
    for partition in &cluster.image.topic_named("t").unwrap().partitions {
        assert_eq!((partition.leader, partition.leader_epoch), (Some(NodeId(1)), LeaderEpoch(1)));
        assert_eq!((&partition.isr[..], partition.partition_epoch), (&[NodeId(1)][..], 1));
    }
}

#[test]
fn a_registration_that_is_proposed_twice_counts_once() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create("t", 1, 1);
    let first = cluster.apply(register(1, 77)).outcome;
    let second = cluster.apply(register(1, 77));
    assert_eq!(second, Applied { outcome: first, changes: vec![] });
    assert_eq!(cluster.image.partition(key(1, 0)).unwrap().leader_epoch, LeaderEpoch(1));
}

#[test]
fn a_node_without_shards_is_refused() {
    let mut image = MetadataImage::default();
    let MetadataCommand::RegisterBroker(mut command) = register(1, 1) else { unreachable!() };
    command.shards = 0;
    let refused = image.apply(1, &MetadataCommand::RegisterBroker(command)).outcome;
    assert_eq!(refused, Err(Rejection::NoShards(NodeId(1))));
}

#[test]
fn a_deleted_topic_leaves_a_tombstone_and_frees_its_name_but_not_its_id() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create("t", 1, 3);
    let topic = cluster.image.topic_named("t").unwrap().clone();
    let applied = cluster.apply(delete(1));
    assert_eq!(applied.outcome, Ok(ApplyOutcome::TopicDeleted));
    assert_eq!(applied.changes, [MetadataChange::TopicDeleted { topic }]);
    assert_eq!(cluster.image.deleted_topics().collect::<Vec<_>>(), [topic_id(1)]);
    assert_eq!(cluster.image.partition_count(), 0);
    assert_eq!(cluster.apply(delete(1)).outcome, Err(Rejection::UnknownTopic(topic_id(1))));
    assert_eq!(cluster.create("t", 1, 1).outcome, Err(Rejection::TopicIdUsed(topic_id(1))));
    cluster.create("t", 2, 1).outcome.unwrap();
}

#[test]
fn the_oldest_tombstone_leaves_when_there_are_too_many() {
    let mut cluster = Cluster::with_brokers(1);
    let id = |number: usize| {
        let mut id = [1; 16];
        id[..8].copy_from_slice(&(number as u64).to_le_bytes());
        TopicId(id)
    };
    for number in 0..=TOMBSTONES_MAX {
        let topic_id = id(number);
        let partitions = vec![Assignment { replicas: vec![NodeId(1)] }];
        let command = CreateTopic { name: "t".into(), topic_id, partitions, configs: vec![] };
        let next = cluster.image.applied() + 1;
        cluster.image.apply(next, &MetadataCommand::CreateTopic(command));
        cluster
            .image
            .apply(next + 1, &MetadataCommand::DeleteTopic(DeleteTopic { topic_id }))
            .outcome
            .unwrap();
    }
    cluster.image.check_invariants();
    assert_eq!(cluster.image.deleted_topics().next(), Some(id(1)));
    assert_eq!(cluster.image.deleted_topics().count(), TOMBSTONES_MAX);
}

#[test]
fn growth_is_refused_when_the_topic_grew_meanwhile() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create("t", 1, 2);
    let grow = |existing, count| {
        MetadataCommand::CreatePartitions(CreatePartitions {
            topic_id: topic_id(1),
            existing,
            partitions: assign(existing as usize, count, 1, &[NodeId(1)]).unwrap(),
        })
    };
    let applied = cluster.apply(grow(2, 3));
    assert_eq!(applied.outcome, Ok(ApplyOutcome::PartitionsCreated));
    let first = PartitionIndex(2);
    assert_eq!(
        applied.changes,
        [MetadataChange::PartitionsCreated { topic_id: topic_id(1), first }]
    );
    assert_eq!(cluster.image.topic_named("t").unwrap().partitions.len(), 5);
    let refused = cluster.apply(grow(2, 3)).outcome;
    assert_eq!(refused, Err(Rejection::PartitionCountChanged { expected: 2, found: 5 }));
    assert_eq!(cluster.apply(grow(5, 0)).outcome, Err(Rejection::PartitionCount { count: 5 }));
}

/// A change of partition 0 of topic 1, as a proposer that knows the current state would make it.
fn change(image: &MetadataImage, leader: Option<i32>, isr: &[i32]) -> ChangePartition {
    let partition = image.partition(key(1, 0)).unwrap();
    let member = |node: &i32| IsrMember {
        node_id: NodeId(*node),
        broker_epoch: image.broker(NodeId(*node)).map_or(BrokerEpoch(0), |broker| broker.epoch),
    };
    ChangePartition {
        key: key(1, 0),
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        leader: leader.map(NodeId),
        isr: isr.iter().map(member).collect(),
        replicas: partition.replicas.clone(),
    }
}

#[test]
fn a_change_of_leader_raises_both_epochs_and_one_of_the_isr_only_the_partitions() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create("t", 1, 1);
    for (isr, partition_epoch) in [(&[1][..], 1), (&[1, 2], 2)] {
        let resize = change(&cluster.image, Some(1), isr);
        let applied = cluster.apply(MetadataCommand::ChangePartition(resize));
        let leader_epoch = LeaderEpoch(0);
        assert_eq!(
            applied.outcome,
            Ok(ApplyOutcome::PartitionChanged { leader_epoch, partition_epoch })
        );
        assert_eq!(applied.changes, [MetadataChange::PartitionChanged { key: key(1, 0) }]);
    }
    let elect = change(&cluster.image, Some(2), &[1, 2]);
    assert_eq!(
        cluster.apply(MetadataCommand::ChangePartition(elect)).outcome,
        Ok(ApplyOutcome::PartitionChanged { leader_epoch: LeaderEpoch(1), partition_epoch: 3 })
    );
}

#[test]
fn a_change_proposed_under_old_epochs_is_fenced() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create("t", 1, 1);
    let stale = change(&cluster.image, Some(1), &[1]);
    cluster.apply(MetadataCommand::ChangePartition(stale.clone())).outcome.unwrap();
    let again = cluster.apply(MetadataCommand::ChangePartition(stale.clone())).outcome;
    assert_eq!(
        again,
        Err(Rejection::StalePartitionEpoch { key: key(1, 0), current: 1, proposed: 0 })
    );
    cluster.apply(register(1, 99)).outcome.unwrap();
    let fenced = cluster.apply(MetadataCommand::ChangePartition(stale)).outcome;
    let (current, proposed) = (LeaderEpoch(1), LeaderEpoch(0));
    assert_eq!(fenced, Err(Rejection::FencedLeaderEpoch { key: key(1, 0), current, proposed }));
}

#[test]
fn a_rebooted_node_cannot_be_put_in_sync_under_its_old_incarnation() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create("t", 1, 1);
    let seen = change(&cluster.image, Some(1), &[1, 2]);
    let broker_epoch = cluster.image.broker(NodeId(2)).unwrap().epoch;
    cluster.apply(register(2, 99)).outcome.unwrap();
    let partition = cluster.image.partition(key(1, 0)).unwrap();
    assert_eq!(partition.isr, [NodeId(1)], "it is out of sync until somebody saw it catch up");
    let seen = ChangePartition { partition_epoch: partition.partition_epoch, ..seen };
    let refused = cluster.apply(MetadataCommand::ChangePartition(seen)).outcome;
    assert_eq!(refused, Err(Rejection::StaleBrokerEpoch { node_id: NodeId(2), broker_epoch }));
}

#[test]
fn leaders_are_in_sync_and_in_sync_nodes_are_replicas() {
    let mut cluster = Cluster::with_brokers(3);
    cluster.create("t", 1, 1);
    for (leader, isr) in [(Some(2), &[1][..]), (None, &[]), (Some(1), &[1, 3]), (None, &[1, 1])] {
        let command = change(&cluster.image, leader, isr);
        let refused = cluster.apply(MetadataCommand::ChangePartition(command)).outcome;
        assert!(matches!(refused, Err(Rejection::IneligibleReplica { .. })), "{leader:?} {isr:?}");
    }
}

#[test]
fn overrides_are_merged_or_replaced_as_the_command_says() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create("t", 1, 1);
    let mut set = |replace, set: &[(&str, &str)], remove: &[&str]| {
        let entry = |(name, value): &(&str, &str)| ConfigEntry {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        let applied = cluster.apply(MetadataCommand::SetTopicConfig(SetTopicConfig {
            topic_id: topic_id(1),
            replace,
            set: set.iter().map(entry).collect(),
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        }));
        assert_eq!(applied.outcome, Ok(ApplyOutcome::TopicConfigSet));
        let configs = cluster.image.topic(topic_id(1)).unwrap().configs.clone();
        let configs: Vec<String> = configs.iter().map(|(k, v)| format!("{k}={v}")).collect();
        (configs.join(" "), applied.changes.len())
    };
    assert_eq!(set(false, &[("a", "1")], &[]), ("a=1 retention.ms=5".into(), 1));
    assert_eq!(set(false, &[("a", "1")], &["b"]), ("a=1 retention.ms=5".into(), 0));
    assert_eq!(set(false, &[("a", "2")], &["retention.ms"]), ("a=2".into(), 1));
    assert_eq!(set(true, &[("c", "3")], &[]), ("c=3".into(), 1));
    assert_eq!(set(true, &[], &[]), (String::new(), 1));
}

#[test]
fn producer_ids_are_given_out_once_and_only_to_the_current_incarnation() {
    let mut cluster = Cluster::with_brokers(1);
    let old = cluster.image.broker(NodeId(1)).unwrap().epoch;
    for first in [0, 1000, 2000] {
        let first = ProducerId(first);
        let block = ApplyOutcome::ProducerIds { first, count: PRODUCER_ID_BLOCK };
        assert_eq!(cluster.apply(allocate(1, old)).outcome, Ok(block));
    }
    cluster.apply(register(1, 99)).outcome.unwrap();
    let refused = cluster.apply(allocate(1, old)).outcome;
    assert_eq!(refused, Err(Rejection::StaleBrokerEpoch { node_id: NodeId(1), broker_epoch: old }));
}

#[test]
fn an_index_that_is_not_above_the_applied_one_changes_nothing() {
    let mut image = MetadataImage::default();
    image.apply(5, &register(1, 1)).outcome.unwrap();
    let before = image.clone();
    for index in [0, 4, 5] {
        let applied = image.apply(index, &register(2, 2));
        assert_eq!(applied.outcome, Err(Rejection::AlreadyApplied { index, applied: 5 }));
        assert_eq!(applied.changes, []);
    }
    assert_eq!(image, before);
    image.skip(3);
    assert_eq!(image.applied(), 5, "the applied index never falls");
}

#[test]
fn owning_shard_follows_the_nodes_own_shard_count() {
    let cluster = Cluster::with_brokers(1);
    let shard = |partition| cluster.image.shard_of(key(1, partition), NodeId(1)).unwrap();
    assert_eq!(shard(0), key(1, 0).shard(2));
    assert_ne!(shard(0), shard(1));
    assert_eq!(cluster.image.shard_of(key(1, 0), NodeId(2)), None);
}

#[test]
fn a_snapshot_that_names_a_topic_twice_is_refused() {
    use crate::format::metadata_snapshot::MetadataSnapshot;
    let mut cluster = Cluster::with_brokers(1);
    cluster.create("t", 1, 1);
    let mut snapshot = MetadataSnapshot::decode(&cluster.image.encode()).unwrap();
    snapshot.topics.push(snapshot.topics[0].clone());
    assert!(MetadataImage::decode(&snapshot.encode()).is_err());
}
