//! Who a peer must be to be listened to.
//!
//! Before anything else the two ends of a connection introduce themselves, and each judges the other:
//! it must be the node that was meant, one of the peers, of the same cluster, and on the data directory
//! with which that node joined. A node that lost its directory has lost its votes and its log, and would
//! break promises that it does not know of; it is refused until it is taken off the list. Clusters that
//! have no name yet are told apart by their lists of peers.
//!
//! Layout of an introduction, in the body of a frame:
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 16 | cluster id, zeroes when there is none yet |
//! | 16 | 16 | directory id |
//! | 32 | 16 | incarnation |
//! | 48 | 4 | node |
//! | 52 | 4 | node that is meant |
//! | 56 | 8 | fingerprint of the list of peers |
//!
//! All numbers are little-endian.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chronik_shards::model::{NodeId, TopicId};

use super::members::Members;

/// Bytes of an introduction.
pub(super) const INTRODUCTION_BYTES: usize = 64;

/// What one end says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Introduction {
    pub(super) cluster_id: Option<[u8; 16]>,
    pub(super) directory_id: [u8; 16],
    pub(super) incarnation: [u8; 16],
    pub(super) node_id: NodeId,
    pub(super) to: NodeId,
    pub(super) peers: u64,
}

impl Introduction {
    pub(super) fn encode(&self) -> [u8; INTRODUCTION_BYTES] {
        let mut bytes = [0; INTRODUCTION_BYTES];
        bytes[..16].copy_from_slice(&self.cluster_id.unwrap_or_default());
        bytes[16..32].copy_from_slice(&self.directory_id);
        bytes[32..48].copy_from_slice(&self.incarnation);
        bytes[48..52].copy_from_slice(&self.node_id.get().to_le_bytes());
        bytes[52..56].copy_from_slice(&self.to.get().to_le_bytes());
        bytes[56..].copy_from_slice(&self.peers.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; INTRODUCTION_BYTES] = bytes.try_into().ok()?;
        let id = |at: usize| <[u8; 16]>::try_from(&bytes[at..at + 16]).ok();
        let node = |at: usize| Some(NodeId(i32::from_le_bytes(bytes[at..at + 4].try_into().ok()?)));
        Some(Self {
            cluster_id: id(0).filter(|id| *id != [0; 16]),
            directory_id: id(16)?,
            incarnation: id(32)?,
            node_id: node(48)?,
            to: node(52)?,
            peers: u64::from_le_bytes(bytes[56..].try_into().ok()?),
        })
    }
}

/// Why a peer is not listened to.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Stranger {
    #[error("this is node {this}, not node {meant}")]
    NotMe { this: NodeId, meant: NodeId },
    #[error("node {0} is not one of the peers")]
    NotAPeer(NodeId),
    /// It says that it is of this cluster, and the cluster has no such node by its metadata at that log index.
    #[error("node {node} is not of the cluster any more")]
    Gone { node: NodeId, applied: u64 },
    #[error("node {node} is of cluster {theirs}, and this is cluster {ours}")]
    OtherCluster { node: NodeId, theirs: TopicId, ours: TopicId },
    #[error("node {0} has another list of peers")]
    OtherPeers(NodeId),
    #[error(
        "node {0} joined with another data directory: bring that back, or take the node off the cluster \
         before it joins anew"
    )]
    OtherDirectory(NodeId),
}

/// This node, and what it knows of the others. Shared by the threads of the connections.
pub(super) struct Acquaintance {
    node_id: NodeId,
    directory_id: [u8; 16],
    incarnation: [u8; 16],
    members: Members,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    cluster_id: Option<[u8; 16]>,
    /// The other nodes of the group.
    peers: BTreeSet<NodeId>,
    /// Nodes that may come: they know of no cluster yet, and of other peers.
    joining: BTreeSet<NodeId>,
    /// The log index of the metadata that say so.
    applied: u64,
    /// Whether this node comes itself, and knows of no group yet.
    is_new: bool,
    /// With which directory each node joined.
    directories: BTreeMap<NodeId, [u8; 16]>,
}

impl Acquaintance {
    pub(super) fn new(
        node_id: NodeId,
        directory_id: [u8; 16],
        incarnation: [u8; 16],
        members: Members,
        cluster_id: Option<[u8; 16]>,
    ) -> Self {
        let peers = members.nodes().filter(|node| *node != node_id).collect();
        let known = Mutex::new(Known { cluster_id, peers, ..Known::default() });
        Self { node_id, directory_id, incarnation, members, known }
    }

    /// What this node says to `to`.
    pub(super) fn introduce(&self, to: NodeId) -> Introduction {
        Introduction {
            cluster_id: self.known().cluster_id,
            directory_id: self.directory_id,
            incarnation: self.incarnation,
            node_id: self.node_id,
            to,
            peers: self.members.fingerprint(),
        }
    }

    /// Whether whoever introduces itself so is listened to.
    pub(super) fn judge(&self, them: &Introduction) -> Result<(), Stranger> {
        let node = them.node_id;
        if them.to != self.node_id {
            return Err(Stranger::NotMe { this: self.node_id, meant: them.to });
        }
        let mut known = self.known();
        let joins = known.joining.contains(&node);
        if node == self.node_id {
            return Err(Stranger::NotAPeer(node));
        }
        if !(joins || known.peers.contains(&node)) {
            let is_namesake = known.cluster_id.is_some() && known.cluster_id == them.cluster_id;
            return Err(match is_namesake && !known.is_new {
                true => Stranger::Gone { node, applied: known.applied },
                false => Stranger::NotAPeer(node),
            });
        }
        let may_differ = joins || known.is_new;
        match (known.cluster_id, them.cluster_id) {
            (Some(ours), Some(theirs)) if ours != theirs => {
                let (theirs, ours) = (TopicId(theirs), TopicId(ours));
                return Err(Stranger::OtherCluster { node, theirs, ours });
            }
            (Some(_), Some(_)) => {}
            (None, _) | (_, None) if !may_differ && them.peers != self.members.fingerprint() => {
                return Err(Stranger::OtherPeers(node));
            }
            (None, _) | (_, None) => {}
        }
        let directory = *known.directories.entry(node).or_insert(them.directory_id);
        if directory != them.directory_id {
            return Err(Stranger::OtherDirectory(node));
        }
        Ok(())
    }

    /// Whether a node is listened to at all.
    pub(super) fn is_peer(&self, node: NodeId) -> bool {
        let known = self.known();
        known.peers.contains(&node) || known.joining.contains(&node)
    }

    /// The group has these other nodes now, and those may come, by the metadata at log index `applied`. `is_new`:
    /// this node knows of no group yet.
    pub(super) fn meet(
        &self,
        applied: u64,
        peers: &BTreeSet<NodeId>,
        joining: BTreeSet<NodeId>,
        is_new: bool,
    ) {
        let mut known = self.known();
        known.peers.clone_from(peers);
        (known.applied, known.joining, known.is_new) = (applied, joining, is_new);
    }

    /// The cluster has this id.
    pub(super) fn joined(&self, cluster_id: [u8; 16]) {
        self.known().cluster_id = Some(cluster_id);
    }

    /// What the metadata say of the nodes' directories. A node that is not among them keeps the one with
    /// which it was met.
    pub(super) fn learn(&self, directories: impl Iterator<Item = (NodeId, [u8; 16])>) {
        let mut known = self.known();
        known.directories.extend(directories.filter(|(_, id)| *id != [0; 16]));
    }

    /// A node was taken off the list: it may come with any directory.
    pub(super) fn forget(&self, node: NodeId) {
        self.known().directories.remove(&node);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Nothing in here is half done when a thread ends.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: i32, cluster: Option<u8>, peers: i32) -> Acquaintance {
        let members = Members::founding((1..=peers).map(NodeId));
        let cluster = cluster.map(|id| [id; 16]);
        Acquaintance::new(NodeId(id), [id as u8; 16], [9; 16], members, cluster)
    }

    fn met(one: &Acquaintance, other: &Acquaintance) -> Result<(), Stranger> {
        one.judge(&other.introduce(one.node_id))
    }

    #[test]
    fn bytes_of_an_introduction_never_change() {
        let said = node(2, Some(5), 3).introduce(NodeId(1));
        let hex: String = said.encode().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "0505050505050505050505050505050502020202020202020202020202020202\
             0909090909090909090909090909090902000000010000009503eb81430f1ffd"
        );
        assert_eq!(Introduction::decode(&said.encode()), Some(said));
        assert_eq!(Introduction::decode(&said.encode()[1..]), None);
    }

    #[test]
    fn peers_of_one_cluster_listen_to_each_other_named_or_not() {
        for (ours, theirs) in [(None, None), (Some(1), None), (None, Some(1)), (Some(1), Some(1))] {
            let (one, other) = (node(1, ours, 3), node(2, theirs, 3));
            assert_eq!((met(&one, &other), met(&other, &one)), (Ok(()), Ok(())));
        }
    }

    #[test]
    fn strangers_are_refused_by_name() {
        let one = node(1, Some(1), 3);
        let meant = one.judge(&node(2, Some(1), 3).introduce(NodeId(3)));
        assert_eq!(meant, Err(Stranger::NotMe { this: NodeId(1), meant: NodeId(3) }));
        assert_eq!(met(&one, &node(4, None, 4)), Err(Stranger::NotAPeer(NodeId(4))));
        assert_eq!(met(&one, &node(4, Some(2), 4)), Err(Stranger::NotAPeer(NodeId(4))));
        assert_eq!(met(&one, &node(1, Some(1), 3)), Err(Stranger::NotAPeer(NodeId(1))));
        let (theirs, ours) = (TopicId([2; 16]), TopicId([1; 16]));
        let other = Stranger::OtherCluster { node: NodeId(2), theirs, ours };
        assert_eq!(met(&one, &node(2, Some(2), 3)), Err(other));
        assert_eq!(met(&one, &node(2, None, 4)), Err(Stranger::OtherPeers(NodeId(2))));
    }

    #[test]
    fn a_node_that_comes_is_listened_to_though_it_knows_of_no_cluster() {
        let (one, newcomer) = (node(1, Some(1), 3), node(4, None, 4));
        assert_eq!(met(&one, &newcomer), Err(Stranger::NotAPeer(NodeId(4))));
        assert_eq!(met(&newcomer, &one), Err(Stranger::OtherPeers(NodeId(1))));
        let peers = |ids: [i32; 2]| ids.map(NodeId).into();
        one.meet(7, &peers([2, 3]), [NodeId(4)].into(), false);
        newcomer.meet(0, &peers([1, 2]), BTreeSet::new(), true);
        assert_eq!((met(&one, &newcomer), met(&newcomer, &one)), (Ok(()), Ok(())));
        assert!(one.is_peer(NodeId(4)) && !one.is_peer(NodeId(1)));
        // One that has gone is a stranger.
        one.meet(8, &peers([2, 3]), BTreeSet::new(), false);
        assert_eq!(met(&one, &newcomer), Err(Stranger::NotAPeer(NodeId(4))));
        // Had it been of the cluster, it would be told since when it is not.
        newcomer.joined([1; 16]);
        assert_eq!(met(&one, &newcomer), Err(Stranger::Gone { node: NodeId(4), applied: 8 }));
        one.meet(0, &peers([2, 3]), BTreeSet::new(), true);
        assert_eq!(met(&one, &newcomer), Err(Stranger::NotAPeer(NodeId(4))), "it does not know");
    }

    #[test]
    fn a_node_is_held_to_the_directory_with_which_it_joined() {
        let (one, two) = (node(1, Some(1), 3), node(2, Some(1), 3));
        let mut elsewhere = node(2, Some(1), 3);
        elsewhere.directory_id = [77; 16];
        let refused = Err(Stranger::OtherDirectory(NodeId(2)));
        one.learn([(NodeId(2), [2; 16])].into_iter());
        assert_eq!((met(&one, &elsewhere), met(&one, &two)), (refused.clone(), Ok(())));
        one.forget(NodeId(2));
        // Whoever comes first is held to as well, before the metadata know the node.
        assert_eq!((met(&one, &elsewhere), met(&one, &two)), (Ok(()), refused));
    }
}
