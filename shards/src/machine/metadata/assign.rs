//! The one place that decides which nodes hold a partition.

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
    if replication_factor == 0 || replication_factor > brokers.len() {
        return Err(AssignError { replication_factor, brokers: brokers.len() });
    }
    let replica = |partition: usize, place: usize| brokers[(partition + place) % brokers.len()];
    Ok((first..first + count)
        .map(|partition| Assignment {
            replicas: (0..replication_factor).map(|place| replica(partition, place)).collect(),
        })
        .collect())
}
