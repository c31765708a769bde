//! Replicas over racks.

use super::*;

fn lay_out(brokers: &[(i32, Option<&str>)], count: usize, factor: usize) -> Vec<Vec<i32>> {
    let brokers: Vec<(NodeId, Option<&str>)> =
        brokers.iter().map(|(node, rack)| (NodeId(*node), *rack)).collect();
    let assigned = assign_over_racks(0, count, factor, &brokers).unwrap();
    assigned.iter().map(|one| one.replicas.iter().map(|node| node.get()).collect()).collect()
}

#[test]
fn replicas_of_a_partition_are_on_different_racks_while_there_are_any() {
    let racks = [(1, Some("a")), (2, Some("a")), (3, Some("b")), (4, Some("b")), (5, Some("c"))];
    let rack = |node: &i32| racks.iter().find(|(id, _)| id == node).unwrap().1;
    for replicas in lay_out(&racks, 20, 3) {
        let mut used: Vec<_> = replicas.iter().map(rack).collect();
        used.sort();
        assert_eq!(used, [Some("a"), Some("b"), Some("c")], "{replicas:?}");
    }
    for replicas in lay_out(&racks, 20, 5) {
        let mut nodes = replicas.clone();
        nodes.sort();
        assert_eq!(nodes, [1, 2, 3, 4, 5], "{replicas:?}");
        assert_eq!(
            replicas[..3].iter().map(rack).collect::<std::collections::BTreeSet<_>>().len(),
            3
        );
    }
}

#[test]
fn every_node_leads_equally_many_partitions() {
    let racks = [(1, Some("a")), (2, Some("a")), (3, Some("b")), (4, None)];
    let mut led = std::collections::BTreeMap::new();
    for replicas in lay_out(&racks, 40, 2) {
        *led.entry(replicas[0]).or_insert(0) += 1;
    }
    assert_eq!(led.into_values().collect::<Vec<_>>(), [10; 4]);
}

#[test]
fn without_racks_partitions_lie_as_they_always_did() {
    let nodes = [(1, None), (2, None), (3, None)];
    assert_eq!(lay_out(&nodes, 4, 3), [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
}
