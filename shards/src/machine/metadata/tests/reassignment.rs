//! Partitions that move to other nodes.

use super::*;

fn reassign(target: Option<&[i32]>) -> MetadataCommand {
    let nodes = |ids: &[i32]| Assignment { replicas: ids.iter().map(|id| NodeId(*id)).collect() };
    MetadataCommand::ReassignPartition(ReassignPartition {
        key: key(1, 0),
        target: target.map(nodes),
    })
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::with_brokers(5);
    let replicas = vec![NodeId(1), NodeId(2), NodeId(3)];
    cluster.apply(create("t", 1, vec![Assignment { replicas }])).outcome.unwrap();
    cluster
}

fn ids(nodes: &[NodeId]) -> Vec<i32> {
    nodes.iter().map(|node| node.get()).collect()
}

impl Cluster {
    fn grow_isr(&mut self, leader: i32, isr: &[i32]) {
        let command = change(&self.image, Some(leader), isr);
        self.apply(MetadataCommand::ChangePartition(command)).outcome.unwrap();
    }

    fn moving(&self) -> &Partition {
        self.image.partition(key(1, 0)).unwrap()
    }
}

#[test]
fn a_partition_has_moved_when_every_new_replica_is_in_sync() {
    let mut cluster = cluster();
    cluster.apply(reassign(Some(&[4, 5, 3]))).outcome.unwrap();
    let moving = cluster.moving();
    assert_eq!(ids(&moving.replicas), [4, 5, 3, 1, 2]);
    assert_eq!((ids(&moving.adding), ids(&moving.removing)), (vec![4, 5], vec![1, 2]));
    assert_eq!((moving.leader, ids(&moving.isr)), (Some(NodeId(1)), vec![1, 2, 3]));
    cluster.grow_isr(1, &[1, 2, 3, 4]);
    assert_eq!(ids(&cluster.moving().replicas), [4, 5, 3, 1, 2], "5 is missing");
    let before = cluster.moving().leader_epoch;
    cluster.grow_isr(1, &[1, 2, 3, 4, 5]);
    let moved = cluster.moving();
    assert_eq!((ids(&moved.replicas), ids(&moved.isr)), (vec![4, 5, 3], vec![3, 4, 5]));
    assert!(moved.adding.is_empty() && moved.removing.is_empty());
    assert_eq!(moved.leader, Some(NodeId(4)), "the old leader is gone");
    assert!(moved.leader_epoch > before);
}

#[test]
fn a_move_that_is_given_up_takes_the_new_replicas_back() {
    let mut cluster = cluster();
    let none = cluster.apply(reassign(None)).outcome;
    assert_eq!(none, Err(Rejection::NoReassignment(key(1, 0))));
    cluster.apply(reassign(Some(&[4, 1]))).outcome.unwrap();
    cluster.apply(reassign(None)).outcome.unwrap();
    let partition = cluster.moving();
    let mut replicas = ids(&partition.replicas);
    replicas.sort();
    assert_eq!((replicas, ids(&partition.isr)), (vec![1, 2, 3], vec![1, 2, 3]));
    assert!(partition.adding.is_empty() && partition.removing.is_empty());
}

#[test]
fn a_second_target_replaces_the_first() {
    let mut cluster = cluster();
    cluster.apply(reassign(Some(&[4, 1]))).outcome.unwrap();
    cluster.apply(reassign(Some(&[5, 1]))).outcome.unwrap();
    let partition = cluster.moving();
    assert_eq!((ids(&partition.adding), ids(&partition.removing)), (vec![5], vec![2, 3]));
    assert!(!partition.replicas.contains(&NodeId(4)));
}

#[test]
fn fewer_replicas_take_effect_at_once_and_order_makes_another_preferred_leader() {
    let mut cluster = cluster();
    cluster.apply(reassign(Some(&[3, 2]))).outcome.unwrap();
    let partition = cluster.moving();
    assert_eq!((ids(&partition.replicas), ids(&partition.isr)), (vec![3, 2], vec![2, 3]));
    assert_eq!(partition.leader, Some(NodeId(3)));
}

#[test]
fn the_last_who_has_the_records_is_not_taken_back() {
    let mut cluster = cluster();
    cluster.apply(reassign(Some(&[4, 5]))).outcome.unwrap();
    cluster.grow_isr(1, &[1, 4]);
    let elect = change(&cluster.image, Some(4), &[4]);
    cluster.apply(MetadataCommand::ChangePartition(elect)).outcome.unwrap();
    let refused = cluster.apply(reassign(None)).outcome;
    assert!(matches!(refused, Err(Rejection::IneligibleReplica { .. })), "{refused:?}");
}

#[test]
fn a_target_of_strangers_is_refused() {
    let refused = cluster().apply(reassign(Some(&[9]))).outcome;
    assert!(matches!(refused, Err(Rejection::Assignment { .. })));
}

#[test]
fn a_replica_that_leaves_raises_the_leader_epoch() {
    let mut cluster = cluster();
    cluster.apply(reassign(Some(&[1, 2, 3, 4]))).outcome.unwrap();
    let before = cluster.moving().leader_epoch;
    cluster.apply(reassign(None)).outcome.unwrap();
    let after = cluster.moving();
    assert_eq!((after.leader, ids(&after.replicas)), (Some(NodeId(1)), vec![1, 2, 3]));
    assert!(after.leader_epoch > before, "node 4 may be added again before it has heard of this");
}
