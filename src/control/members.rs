//! Who is in the Raft group, and under which name.

use std::collections::BTreeSet;
use std::fmt;

use chronik_shards::model::NodeId;
use raft::eraftpb::ConfState;

/// Nodes that vote; further ones learn. Consensus waits for a majority of these, so that it does not get
/// slower as a cluster grows.
pub const VOTERS_MAX: usize = 5;

/// The members of the group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Members {
    pub(super) voters: BTreeSet<NodeId>,
    pub(super) learners: BTreeSet<NodeId>,
}

impl Members {
    /// The nodes of a new group. The lowest ids vote, whatever the order in which the nodes are named:
    /// every node must come to the same.
    pub(super) fn founding(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let mut nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
        let learners = match nodes.iter().nth(VOTERS_MAX).copied() {
            Some(first) => nodes.split_off(&first),
            None => BTreeSet::new(),
        };
        Self { voters: nodes, learners }
    }

    /// Of a node that comes to a group: it knows nobody before the group's leader has told it.
    pub(super) fn nobody() -> Self {
        Self { voters: BTreeSet::new(), learners: BTreeSet::new() }
    }

    /// All of them.
    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.voters.iter().chain(&self.learners).copied()
    }

    pub(super) fn of(state: &ConfState) -> Self {
        let nodes = |ids: &[u64]| ids.iter().map(|id| node_id(*id)).collect();
        Self { voters: nodes(&state.voters), learners: nodes(&state.learners) }
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.learners.contains(&node)
    }

    /// Whether there is nobody else.
    pub(super) fn is_lone(&self) -> bool {
        self.voters.len() + self.learners.len() == 1
    }

    /// The node's place among the members: no two have the same.
    pub(super) fn place(&self, node: NodeId) -> usize {
        self.voters.iter().chain(&self.learners).take_while(|member| **member != node).count()
    }

    /// FNV-1a over the ids: nodes that found a cluster must agree on it.
    pub(super) fn fingerprint(&self) -> u64 {
        let ids =
            self.voters.iter().chain(&self.learners).flat_map(|node| node.get().to_le_bytes());
        ids.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for node in self.voters.iter().chain(&self.learners) {
            write!(f, "{separator}{node}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// raft's name for a node. Zero means nobody there, so ids are shifted by one.
pub(super) fn raft_id(node_id: NodeId) -> u64 {
    u64::try_from(node_id.get()).expect("node ids are not negative") + 1
}

/// The node that raft calls so. A name that is none becomes a node that nobody has.
pub(super) fn node_id(raft_id: u64) -> NodeId {
    NodeId(raft_id.checked_sub(1).and_then(|id| i32::try_from(id).ok()).unwrap_or(-1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_five_vote_in_whatever_order_they_are_named() {
        let forth = Members::founding((1..8).map(NodeId));
        let back = Members::founding((1..8).rev().map(NodeId));
        assert_eq!(forth, back);
        assert_eq!(forth.voters, (1..6).map(NodeId).collect());
        assert_eq!(forth.learners, (6..8).map(NodeId).collect());
        assert_eq!((forth.place(NodeId(1)), forth.place(NodeId(7))), (0, 6));
        assert_eq!(forth.to_string(), "1, 2, 3, 4, 5, 6, 7");
        assert_ne!(forth.fingerprint(), Members::founding((1..7).map(NodeId)).fingerprint());
        assert!(Members::founding([NodeId(0)]).is_lone() && !forth.is_lone());
    }

    #[test]
    fn raft_calls_no_node_zero() {
        for node in [0, 1, i32::MAX] {
            assert_ne!(raft_id(NodeId(node)), 0);
            assert_eq!(node_id(raft_id(NodeId(node))), NodeId(node));
        }
        assert_eq!((node_id(0), node_id(u64::MAX)), (NodeId(-1), NodeId(-1)));
    }
}
