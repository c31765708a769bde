//! The one place that decides which nodes hold a partition.

use std::collections::{BTreeMap, VecDeque};

use crate::format::metadata_command::Assignment;
use crate::model::NodeId;

/// A replication factor that the brokers cannot give.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("replication factor {replication_factor} with {brokers} brokers")]
pub struct AssignError {
    /// What was asked for.
    pub replication_factor: usize,
    /// How many brokers there are.
    pub brokers: usize,
}

/// Spreads partitions `first .. first + count` over `brokers`, round-robin, the first replica leading.
///
/// Partition p starts at broker p modulo the number of brokers, so that with brokers 1, 2, 3 the
/// partitions lie on `[1,2,3]`, `[2,3,1]`, `[3,1,2]`, and growing a topic goes on where it stopped.
///
/// # Errors
/// When the factor is 0 or above the number of brokers.
pub fn assign(
    first: usize,
    count: usize,
    replication_factor: usize,
    brokers: &[NodeId],
) -> Result<Vec<Assignment>, AssignError> {
    let brokers: Vec<(NodeId, Option<&str>)> = brokers.iter().map(|node| (*node, None)).collect();
    assign_over_racks(first, count, replication_factor, &brokers)
}

/// Spreads partitions as [`assign`] does, with the replicas of each on as many racks as there are.
/// Brokers that name no rack stand on one rack together.
///
/// # Errors
/// When the factor is 0 or above the number of brokers.
pub fn assign_over_racks(
    first: usize,
    count: usize,
    replication_factor: usize,
    brokers: &[(NodeId, Option<&str>)],
) -> Result<Vec<Assignment>, AssignError> {
    if replication_factor == 0 || replication_factor > brokers.len() {
        return Err(AssignError { replication_factor, brokers: brokers.len() });
    }
    let brokers = alternate(brokers);
    let replicas = |partition: usize| {
        let mut left: Vec<(NodeId, Option<&str>)> = brokers.clone();
        left.rotate_left(partition % brokers.len());
        let mut chosen = Vec::with_capacity(replication_factor);
        let mut racks: Vec<Option<&str>> = Vec::new();
        while chosen.len() < replication_factor {
            // On a rack that this round has not visited; when all have been, a round begins anew.
            let Some(at) = left.iter().position(|(_, rack)| !racks.contains(rack)) else {
                racks.clear();
                continue;
            };
            let (node, rack) = left.remove(at);
            chosen.push(node);
            racks.push(rack);
        }
        Assignment { replicas: chosen }
    };
    Ok((first..first + count).map(replicas).collect())
}

/// Brokers in an order in which racks take turns, as long as they have any left.
fn alternate<'a>(brokers: &[(NodeId, Option<&'a str>)]) -> Vec<(NodeId, Option<&'a str>)> {
    let mut by_rack: BTreeMap<Option<&str>, VecDeque<NodeId>> = BTreeMap::new();
    for (node, rack) in brokers {
        by_rack.entry(*rack).or_default().push_back(*node);
    }
    let mut order = Vec::with_capacity(brokers.len());
    while order.len() < brokers.len() {
        for (rack, nodes) in &mut by_rack {
            order.extend(nodes.pop_front().map(|node| (node, *rack)));
        }
    }
    order
}
