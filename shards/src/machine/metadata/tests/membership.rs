//! Nodes that come and go.

use super::*;

fn join(node: i32, directory: u8) -> MetadataCommand {
    MetadataCommand::JoinNode(JoinNode {
        node_id: NodeId(node),
        control: BrokerEndpoint { host: "there".to_owned(), port: 5004 },
        directory_id: [directory; 16],
    })
}

fn leave(node: i32) -> MetadataCommand {
    MetadataCommand::LeaveNode(NodeNamed { node_id: NodeId(node) })
}

fn left(node: i32) -> MetadataCommand {
    MetadataCommand::NodeLeft(NodeNamed { node_id: NodeId(node) })
}

#[test]
fn a_node_that_may_come_has_come_when_it_registers_with_its_directory() {
    let mut cluster = Cluster::with_brokers(3);
    assert_eq!(cluster.apply(join(3, 0)).outcome, Err(Rejection::NodeExists(NodeId(3))));
    cluster.apply(join(4, 9)).outcome.unwrap();
    // The registration's directory is the node's number.
    let other = cluster.apply(register(4, 1)).outcome;
    assert_eq!(other, Err(Rejection::OtherDirectory(NodeId(4))));
    cluster.apply(join(4, 4)).outcome.unwrap();
    assert_eq!(cluster.image.joining().count(), 1, "the later one counts");
    cluster.apply(register(4, 1)).outcome.unwrap();
    assert_eq!(cluster.image.joining().count(), 0);
    cluster.apply(join(5, 0)).outcome.unwrap();
    cluster.apply(register(5, 1)).outcome.unwrap();
}

#[test]
fn a_node_that_is_to_go_holds_nothing_and_gets_nothing() {
    let mut cluster = Cluster::with_brokers(3);
    cluster.create("t", 1, 3);
    assert_eq!(cluster.apply(leave(3)).outcome, Err(Rejection::BrokerInUse(NodeId(3))));
    cluster.apply(delete(1)).outcome.unwrap();
    cluster.apply(leave(3)).outcome.unwrap();
    assert!(cluster.image.is_leaving(NodeId(3)));
    assert!(cluster.image.assign(0, 1, 3).is_err(), "two nodes are left");
    let elsewhere = cluster.image.assign(0, 3, 2).unwrap();
    assert!(elsewhere.iter().all(|partition| !partition.replicas.contains(&NodeId(3))));
    let there = vec![Assignment { replicas: vec![NodeId(3)] }];
    let refused = cluster.apply(create("u", 2, there)).outcome;
    assert!(matches!(refused, Err(Rejection::Assignment { .. })), "{refused:?}");
    let again = cluster.apply(register(3, 2)).outcome;
    assert_eq!(again, Err(Rejection::NodeLeaving(NodeId(3))));
    assert_eq!(cluster.apply(join(3, 0)).outcome, Err(Rejection::NodeLeaving(NodeId(3))));
    assert_eq!(cluster.apply(left(3)).outcome, Err(Rejection::BrokerInUse(NodeId(3))));
    let epoch = cluster.image.broker(NodeId(3)).unwrap().epoch;
    cluster.apply(fence(3, epoch)).outcome.unwrap();
    let gone = MetadataCommand::UnregisterBroker(UnregisterBroker { node_id: NodeId(3) });
    cluster.apply(gone).outcome.unwrap();
    cluster.apply(left(3)).outcome.unwrap();
    assert_eq!(cluster.image.leaving().count(), 0);
    cluster.apply(join(3, 0)).outcome.unwrap();
}
