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
    ]
}

proptest! {
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
