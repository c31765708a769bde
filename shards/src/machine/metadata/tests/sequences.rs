//! Random sequences of commands.

use proptest::prelude::*;

use super::*;

/// Any command, over few enough topics and nodes that they meet.
fn any_command() -> impl Strategy<Value = MetadataCommand> {
    let node = || (1i32..4).prop_map(NodeId);
    let replicas = || prop::collection::vec(node(), 0..4);
    let partitions =
        || prop::collection::vec(replicas().prop_map(|replicas| Assignment { replicas }), 0..4);
    let epoch = || (0i64..20).prop_map(BrokerEpoch);
    let name = prop::sample::select(vec!["a.b", "a_b", "c", "", "d e"]);
    let entry = || ("[ab]", "[12]").prop_map(|(name, value)| ConfigEntry { name, value });
    let member =
        (node(), epoch()).prop_map(|(node_id, broker_epoch)| IsrMember { node_id, broker_epoch });
    prop_oneof![
        (1i32..4, 0u8..9).prop_map(|(node, incarnation)| register(node, incarnation)),
        (name, 0u8..5, partitions()).prop_map(|(name, id, all)| create(name, id, all)),
        (0u8..5).prop_map(delete),
        (0u8..5, 0u32..6, partitions()).prop_map(|(id, existing, partitions)| {
            let topic_id = topic_id(id);
            MetadataCommand::CreatePartitions(CreatePartitions { topic_id, existing, partitions })
        }),
        (
            (0u8..5, 0i32..3),
            (0i32..3, 0i32..3),
            prop::option::of(node()),
            prop::collection::vec(member, 0..3),
            replicas()
        )
            .prop_map(
                |((id, partition), (leader_epoch, partition_epoch), leader, isr, replicas)| {
                    MetadataCommand::ChangePartition(ChangePartition {
                        key: key(id, partition),
                        leader_epoch: LeaderEpoch(leader_epoch),
                        partition_epoch,
                        leader,
                        isr,
                        replicas,
                    })
                }
            ),
        (0u8..5, any::<bool>(), prop::collection::vec(entry(), 0..3)).prop_map(
            |(id, replace, set)| {
                let (topic_id, remove) = (topic_id(id), vec!["a".to_owned()]);
                let command = SetTopicConfig { topic_id, replace, set, remove };
                MetadataCommand::SetTopicConfig(command)
            }
        ),
        (1i32..4, epoch()).prop_map(|(node, epoch)| allocate(node, epoch)),
        any_failover(),
    ]
}

/// Commands about nodes that come and go, and what follows from them.
fn any_failover() -> impl Strategy<Value = MetadataCommand> {
    let incarnation = || {
        (1i32..4, 0i64..20).prop_map(|(node, epoch)| BrokerIncarnation {
            node_id: NodeId(node),
            broker_epoch: BrokerEpoch(epoch),
        })
    };
    let led = (0u8..5, 0i32..3, 0i32..6).prop_map(|(id, partition, epoch)| LedPartition {
        key: key(id, partition),
        leader_epoch: LeaderEpoch(epoch),
    });
    let election = prop::sample::select(vec![Election::Preferred, Election::Unclean]);
    let target = prop::collection::vec((1i32..4).prop_map(NodeId), 0..4);
    let min = ("[123]", any::<bool>()).prop_map(|(value, set)| {
        let entry = ConfigEntry { name: "min.insync.replicas".into(), value };
        let remove = if set { vec![] } else { vec![entry.name.clone()] };
        let set = if set { vec![entry] } else { vec![] };
        MetadataCommand::SetClusterConfig(SetClusterConfig { set, remove })
    });
    prop_oneof![
        incarnation().prop_map(MetadataCommand::FenceBroker),
        incarnation().prop_map(MetadataCommand::UnfenceBroker),
        incarnation().prop_map(MetadataCommand::DrainBroker),
        (1i32..4).prop_map(|node| {
            MetadataCommand::UnregisterBroker(UnregisterBroker { node_id: NodeId(node) })
        }),
        (election, prop::collection::vec(led, 0..4)).prop_map(|(election, partitions)| {
            MetadataCommand::ElectLeaders(ElectLeaders { election, partitions })
        }),
        (0u8..5, 0i32..3, prop::option::of(target)).prop_map(|(id, partition, target)| {
            let target = target.map(|replicas| Assignment { replicas });
            let key = key(id, partition);
            MetadataCommand::ReassignPartition(ReassignPartition { key, target })
        }),
        min,
        (0u8..2).prop_map(|id| {
            MetadataCommand::FoundCluster(FoundCluster { cluster_id: [id; 16] })
        }),
        (1i32..4, 0u8..9, 0u8..3).prop_map(|(node, process, directory)| {
            let MetadataCommand::RegisterBroker(mut command) = register(node, process) else {
                unreachable!()
            };
            command.directory_id = [directory; 16];
            command.fenced = true;
            MetadataCommand::RegisterBroker(command)
        }),
    ]
}

/// Everything that a follower of the metadata acts on, as the changes name it.
fn touched(changes: &[MetadataChange]) -> std::collections::BTreeSet<String> {
    changes.iter().map(|change| format!("{change:?}")).collect()
}

proptest! {
    #[test]
    fn the_difference_of_two_images_names_what_the_commands_between_them_changed(
        commands in prop::collection::vec(any_command(), 0..40),
        at in any::<prop::sample::Index>(),
    ) {
        let mut cluster = Cluster::default();
        let middle = at.index(commands.len() + 1);
        for command in &commands[..middle] {
            cluster.apply(command.clone());
        }
        let before = cluster.image.clone();
        prop_assert_eq!(before.changes_to(&before), vec![]);
        for command in &commands[middle..] {
            cluster.apply(command.clone());
        }
        let changes = before.changes_to(&cluster.image);
        // One command at most: then both ways must say the same.
        if commands.len() - middle == 1 {
            let mut replayed = before.clone();
            let applied = replayed.apply(replayed.applied() + 1, &commands[middle]);
            prop_assert_eq!(touched(&changes), touched(&applied.changes));
        }
        for topic in cluster.image.topics.values().filter(|it| before.topic(it.id) != Some(*it)) {
            let named = changes.iter().any(|change| match change {
                MetadataChange::TopicCreated { topic_id }
                | MetadataChange::PartitionsCreated { topic_id, .. }
                | MetadataChange::TopicConfigChanged { topic_id } => *topic_id == topic.id,
                MetadataChange::PartitionChanged { key } => key.topic_id == topic.id,
                _ => false,
            });
            prop_assert!(named, "{} changed and is not named", topic.name);
        }
    }

    #[test]
    fn any_sequence_keeps_the_invariants_and_a_snapshot_reads_back(
        commands in prop::collection::vec(any_command(), 0..60)
    ) {
        let mut cluster = Cluster::default();
        for command in commands {
            let before = cluster.image.clone();
            let applied = cluster.apply(command);
            if applied.outcome.is_err() {
                let mut unchanged = before.clone();
                unchanged.skip(cluster.image.applied());
                prop_assert_eq!(&cluster.image, &unchanged);
                prop_assert!(applied.changes.is_empty());
            }
            for (id, topic) in &before.topics {
                let Some(now) = cluster.image.topic(*id) else { continue };
                for (old, new) in topic.partitions.iter().zip(&now.partitions) {
                    prop_assert!(new.leader_epoch >= old.leader_epoch);
                    prop_assert!(new.partition_epoch >= old.partition_epoch);
                    prop_assert!(new.leader == old.leader || new.leader_epoch > old.leader_epoch);
                }
            }
        }
        prop_assert_eq!(MetadataImage::decode(&cluster.image.encode()), Ok(cluster.image));
    }

    #[test]
    fn arbitrary_snapshots_never_panic(body in prop::collection::vec(any::<u8>(), 0..400)) {
        use crate::format::{metadata_frame::seal, metadata_snapshot::SNAPSHOT_MAGIC};
        let _ = MetadataImage::decode(&seal(SNAPSHOT_MAGIC, 1, 1, &body));
        let _ = MetadataImage::decode(&body);
    }
}
