//! What commands about the cluster's members do: nodes may come, are to go, have gone.
//!
//! The metadata say what is wanted; who is in the Raft group follows from that, step by step, by its
//! leader. A node that is to go holds no replica, and gets none: moving them away comes first.

use super::apply::Decision;
use super::{ApplyOutcome, MetadataImage, Rejection};
use crate::format::metadata_command::{JoinNode, NodeNamed, RegisterBroker};
use crate::model::NodeId;

impl MetadataImage {
    /// Nodes that may come and have not registered yet.
    pub fn joining(&self) -> impl Iterator<Item = &JoinNode> {
        self.joining.values()
    }

    /// Nodes that are to go.
    pub fn leaving(&self) -> impl Iterator<Item = NodeId> {
        self.leaving.iter().copied()
    }

    /// Whether the node is to go.
    #[must_use]
    pub fn is_leaving(&self, node: NodeId) -> bool {
        self.leaving.contains(&node)
    }

    /// Whether the node holds a replica of any partition.
    #[must_use]
    pub fn holds_replicas(&self, node: NodeId) -> bool {
        let mut partitions = self.topics.values().flat_map(|topic| &topic.partitions);
        partitions.any(|partition| partition.replicas.contains(&node))
    }

    pub(super) fn join_node(&mut self, command: &JoinNode) -> Decision {
        let node_id = command.node_id;
        if self.leaving.contains(&node_id) {
            return Err(Rejection::NodeLeaving(node_id));
        }
        if self.brokers.contains_key(&node_id) {
            return Err(Rejection::NodeExists(node_id));
        }
        self.joining.insert(node_id, command.clone());
        Ok((ApplyOutcome::MembershipChanged, Vec::new()))
    }

    pub(super) fn leave_node(&mut self, command: &NodeNamed) -> Decision {
        let node_id = command.node_id;
        if self.holds_replicas(node_id) {
            return Err(Rejection::BrokerInUse(node_id));
        }
        self.joining.remove(&node_id);
        self.leaving.insert(node_id);
        Ok((ApplyOutcome::MembershipChanged, Vec::new()))
    }

    pub(super) fn node_left(&mut self, command: &NodeNamed) -> Decision {
        let node_id = command.node_id;
        if self.brokers.contains_key(&node_id) {
            return Err(Rejection::BrokerInUse(node_id));
        }
        self.leaving.remove(&node_id);
        Ok((ApplyOutcome::MembershipChanged, Vec::new()))
    }

    /// Whether a node may register; one that was to come has come with that.
    pub(super) fn admit(&mut self, command: &RegisterBroker) -> Result<(), Rejection> {
        let node_id = command.node_id;
        if self.leaving.contains(&node_id) {
            return Err(Rejection::NodeLeaving(node_id));
        }
        let expected = self.joining.get(&node_id).map(|node| node.directory_id);
        if expected.is_some_and(|id| id != [0; 16] && id != command.directory_id) {
            return Err(Rejection::OtherDirectory(node_id));
        }
        self.joining.remove(&node_id);
        Ok(())
    }
}
