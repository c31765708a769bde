//! The cluster's metadata: brokers, topics, partitions, configuration, producer ids.
//!
//! A [`MetadataImage`] is what the replicated log of commands adds up to. Every shard of every node
//! keeps one and applies the same commands in the same order; nothing else changes it. Given the
//! same commands, all images are equal: no clock, no randomness, ordered maps.
//!
//! Invariants (see [`MetadataImage::check_invariants`]): the applied index only grows · a name and an
//! id lead to the same topic · an in-sync set is a subset of the replicas, and nobody in it is fenced ·
//! a leader is in sync · a partition with an eligible replica that is there is led · leader and
//! partition epochs only grow · producer ids are given out once.
//!
//! Deliberately absent: who is the Raft leader (partition leadership is its own thing), who is alive
//! (`machine::controller` finds out and fences), and anything about offsets.

mod apply;
mod assign;
mod brokers;
mod difference;
mod election;
mod membership;
mod partitions;
mod proposals;
mod snapshot;
#[cfg(test)]
mod tests;
mod topic_name;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

pub use assign::{AssignError, assign, assign_over_racks};
pub use proposals::{PROPOSAL_WINDOW, ProposalId, ReplicatedState};
pub use topic_name::{TopicNameError, check_topic_name};

use crate::format::metadata_command::{Assignment, BrokerEndpoint, JoinNode};
use crate::model::{BrokerEpoch, LeaderEpoch, NodeId, PartitionIndex, ProducerId, ReplicaKey};
use crate::model::{ShardId, TopicId};

/// Producer ids of one block.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// Most partitions of one topic.
pub const TOPIC_PARTITIONS_MAX: usize = 10_000;

/// Most partitions of all topics together.
pub const PARTITIONS_MAX: usize = 200_000;

/// Most groups that may have settings of their own.
pub const GROUP_CONFIGS_MAX: usize = 10_000;

/// How many deleted topics are remembered. Older ones are forgotten: their directories, should they
/// still exist, are then unknown rather than deleted.
pub const TOMBSTONES_MAX: usize = 16_384;

/// Metadata as of a log index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetadataImage {
    applied: u64,
    brokers: BTreeMap<NodeId, Broker>,
    topics: BTreeMap<TopicId, Topic>,
    names: BTreeMap<String, TopicId>,
    /// Names with `.` as `_`: two topics may not share one, their metrics would.
    folded_names: BTreeMap<String, TopicId>,
    /// Oldest first.
    tombstones: VecDeque<TopicId>,
    next_producer_id: ProducerId,
    partition_count: usize,
    cluster_id: Option<[u8; 16]>,
    /// Settings of the whole cluster; topics override them.
    cluster_configs: BTreeMap<String, String>,
    /// Nodes that may come and have not registered yet.
    joining: BTreeMap<NodeId, JoinNode>,
    /// Nodes that are to go: they get no replicas and, once gone, are not taken back.
    leaving: BTreeSet<NodeId>,
    /// What groups have of their own, by group and key; no group is empty.
    group_configs: BTreeMap<String, BTreeMap<String, String>>,
}

/// A registered node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Broker {
    /// Its current incarnation: the log index of its registration.
    pub epoch: BrokerEpoch,
    /// The process's own random number.
    pub incarnation: [u8; 16],
    /// How many shards it runs.
    pub shards: u16,
    /// Where clients reach it.
    pub host: String,
    /// Where clients reach it.
    pub port: u16,
    /// Identity of its data directory, all zeroes when it is not known.
    pub directory_id: [u8; 16],
    /// Where it stands.
    pub rack: Option<String>,
    /// Whether it is silent: it leads nothing and is in sync with nothing.
    pub fenced: bool,
    /// Whether it is about to stop: it leads only what nobody else can.
    pub draining: bool,
    /// Where shards of its peers connect to replicate; a node that was alone has none.
    pub replication: Option<BrokerEndpoint>,
    /// Where control planes of its peers connect; a node that was alone has none.
    pub control: Option<BrokerEndpoint>,
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Identity.
    pub id: TopicId,
    /// Name.
    pub name: String,
    /// By index.
    pub partitions: Vec<Partition>,
    /// Overrides by key. Everything else follows the broker.
    pub configs: BTreeMap<String, String>,
}

impl Topic {
    /// The partition at `index`.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&Partition> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }

    /// Every partition with its identity, in order.
    pub fn replicas(&self) -> impl Iterator<Item = (ReplicaKey, &Partition)> {
        self.partitions.iter().zip(0..).map(|(partition, index)| {
            (ReplicaKey { topic_id: self.id, partition: PartitionIndex(index) }, partition)
        })
    }
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Partition {
    /// Who leads; `None` while nobody may.
    pub leader: Option<NodeId>,
    /// Grows with every change of the leader or of its incarnation.
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of any kind.
    pub partition_epoch: i32,
    /// Who holds a copy; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Who is in sync. Empty only while nobody leads.
    pub isr: Vec<NodeId>,
    /// Who is not in sync and has every acknowledged record nevertheless. Source: KIP-966.
    pub elr: Vec<NodeId>,
    /// Replicas that came by a reassignment under way. Source: KIP-455.
    pub adding: Vec<NodeId>,
    /// Replicas that will leave with it.
    pub removing: Vec<NodeId>,
}

/// What a command changed, in words that a shard acts on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MetadataChange {
    /// A node came or came back.
    BrokerRegistered {
        /// Which.
        node_id: NodeId,
    },
    /// A node was fenced or unfenced, or is about to stop.
    BrokerChanged {
        /// Which.
        node_id: NodeId,
    },
    /// A node will not come back.
    BrokerUnregistered {
        /// Which.
        node_id: NodeId,
    },
    /// The cluster has its identity.
    ClusterFounded,
    /// Settings of the whole cluster changed.
    ClusterConfigChanged,
    /// What a group has of its own changed.
    GroupConfigChanged,
    /// A topic and all of its partitions are new.
    TopicCreated {
        /// Which.
        topic_id: TopicId,
    },
    /// A topic and all of its partitions are gone from the image.
    TopicDeleted {
        /// As it was.
        topic: Topic,
    },
    /// A topic has more partitions.
    PartitionsCreated {
        /// Which topic.
        topic_id: TopicId,
        /// The first new one; all from here on are new.
        first: PartitionIndex,
    },
    /// A partition has another leader, leader epoch, in-sync set or other replicas.
    PartitionChanged {
        /// Which.
        key: ReplicaKey,
    },
    /// A topic's overrides changed.
    TopicConfigChanged {
        /// Which.
        topic_id: TopicId,
    },
}

/// What a proposer learns of its command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ApplyOutcome {
    /// The node's incarnation.
    BrokerRegistered {
        /// Its number.
        broker_epoch: BrokerEpoch,
    },
    /// The node is as proposed.
    BrokerChanged,
    /// The node may come, is to go, or has gone.
    MembershipChanged,
    /// Leaders were looked for.
    LeadersElected {
        /// Where one was found.
        elected: Vec<ReplicaKey>,
    },
    /// The cluster has that identity.
    ClusterFounded,
    /// The settings of the cluster are as proposed.
    ClusterConfigSet,
    /// The topic exists now.
    TopicCreated {
        /// Identity.
        topic_id: TopicId,
    },
    /// The topic is gone now.
    TopicDeleted,
    /// The partitions exist now.
    PartitionsCreated,
    /// The partition is as proposed.
    PartitionChanged {
        /// Its leader epoch now.
        leader_epoch: LeaderEpoch,
        /// Its partition epoch now.
        partition_epoch: i32,
    },
    /// The overrides are as proposed.
    TopicConfigSet,
    /// What the group has of its own is as proposed.
    GroupConfigSet,
    /// `first .. first + count` belong to the proposer.
    ProducerIds {
        /// The lowest.
        first: ProducerId,
        /// How many.
        count: i64,
    },
}

/// Why a committed command changed nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Rejection {
    /// There is a topic of that name.
    #[error("topic {name:?} exists with id {topic_id}")]
    TopicExists {
        /// Its name.
        name: String,
        /// Its id.
        topic_id: TopicId,
    },
    /// The name is not one that a topic may have.
    #[error("{0}")]
    TopicName(#[from] TopicNameError),
    /// The name differs from another topic's in `.` and `_` only.
    #[error("topic {name:?} collides with {other:?}: they differ in '.' and '_' only")]
    TopicNameCollides {
        /// The proposed name.
        name: String,
        /// The existing one.
        other: String,
    },
    /// The topic id is in use or was deleted.
    #[error("topic id {0} was used before")]
    TopicIdUsed(TopicId),
    /// There is no such topic.
    #[error("there is no topic with id {0}")]
    UnknownTopic(TopicId),
    /// There is no such partition.
    #[error("there is no partition {0}")]
    UnknownPartition(ReplicaKey),
    /// A replica is not a registered node, is named twice, or there is none.
    #[error("partition {partition}: {reason}")]
    Assignment {
        /// Which.
        partition: PartitionIndex,
        /// What is wrong with its replicas.
        reason: String,
    },
    /// The topic's partition count is not the one that the proposer saw.
    #[error("the topic has {found} partitions, not {expected}")]
    PartitionCountChanged {
        /// What the proposer saw.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// None, or more than the bound for a topic or for all topics together.
    #[error(
        "{count} partitions: a topic may have 1 to {TOPIC_PARTITIONS_MAX}, all together {PARTITIONS_MAX}"
    )]
    PartitionCount {
        /// What was asked for.
        count: usize,
    },
    /// The proposer saw an older leader epoch.
    #[error("{key} is in leader epoch {current}, not {proposed}")]
    FencedLeaderEpoch {
        /// The partition.
        key: ReplicaKey,
        /// Now.
        current: LeaderEpoch,
        /// Proposed.
        proposed: LeaderEpoch,
    },
    /// The proposer saw an older state of the partition.
    #[error("{key} is in partition epoch {current}, not {proposed}")]
    StalePartitionEpoch {
        /// The partition.
        key: ReplicaKey,
        /// Now.
        current: i32,
        /// Proposed.
        proposed: i32,
    },
    /// A leader outside of the in-sync set, or an in-sync set outside of the replicas.
    #[error("{key}: {reason}")]
    IneligibleReplica {
        /// The partition.
        key: ReplicaKey,
        /// Which rule is broken.
        reason: String,
    },
    /// There is no such node.
    #[error("node {0} is not registered")]
    UnknownBroker(NodeId),
    /// There is such a node already.
    #[error("node {0} is of the cluster already")]
    NodeExists(NodeId),
    /// The node is on its way out.
    #[error("node {0} is being taken off the cluster")]
    NodeLeaving(NodeId),
    /// The node was to come with another data directory.
    #[error("node {0} was to join with another data directory")]
    OtherDirectory(NodeId),
    /// A node that is there, or that holds replicas, cannot be taken off the list.
    #[error("node {0} is running or holds replicas: stop it and move its partitions first")]
    BrokerInUse(NodeId),
    /// The partition is not moving.
    #[error("{0} is not being reassigned")]
    NoReassignment(ReplicaKey),
    /// The cluster has another identity.
    #[error("the cluster has an identity already")]
    ClusterFounded,
    /// The proposer is not the node's current incarnation.
    #[error("node {0} has started again since this was proposed")]
    StaleProposer(NodeId),
    /// A node without shards could not own a partition.
    #[error("node {0} has no shards")]
    NoShards(NodeId),
    /// The node is not registered in that incarnation.
    #[error("node {node_id} is not registered with broker epoch {broker_epoch}")]
    StaleBrokerEpoch {
        /// The node.
        node_id: NodeId,
        /// The proposed incarnation.
        broker_epoch: BrokerEpoch,
    },
    /// As many groups as may have settings of their own.
    #[error("{GROUP_CONFIGS_MAX} groups have settings of their own, and no more may: remove some")]
    GroupConfigsFull,
    /// All producer ids are given out.
    #[error("there are no producer ids left")]
    ProducerIdsExhausted,
    /// The image already contains this log index: nothing was looked at.
    #[error("log index {index} is not above the applied index {applied}")]
    AlreadyApplied {
        /// Of the command.
        index: u64,
        /// Of the image.
        applied: u64,
    },
}

/// The result of applying one command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// For the proposer.
    pub outcome: Result<ApplyOutcome, Rejection>,
    /// For the shards; empty when the outcome is a rejection.
    pub changes: Vec<MetadataChange>,
}

impl MetadataImage {
    /// Index of the last applied log entry, 0 before the first.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// All registered nodes, by id.
    pub fn brokers(&self) -> impl Iterator<Item = (NodeId, &Broker)> {
        self.brokers.iter().map(|(node_id, broker)| (*node_id, broker))
    }

    /// A registered node.
    #[must_use]
    pub fn broker(&self, node_id: NodeId) -> Option<&Broker> {
        self.brokers.get(&node_id)
    }

    /// The ids of all registered nodes, ascending: what [`assign`] takes.
    #[must_use]
    pub fn broker_ids(&self) -> Vec<NodeId> {
        self.brokers.keys().copied().collect()
    }

    /// Identity of the cluster, once it has one.
    #[must_use]
    pub fn cluster_id(&self) -> Option<[u8; 16]> {
        self.cluster_id
    }

    /// Settings of the whole cluster, by key.
    #[must_use]
    pub fn cluster_configs(&self) -> &BTreeMap<String, String> {
        &self.cluster_configs
    }

    /// What groups have of their own, by group and key.
    #[must_use]
    pub fn group_configs(&self) -> &BTreeMap<String, BTreeMap<String, String>> {
        &self.group_configs
    }

    /// Lays out partitions `first .. first + count` of a topic over the nodes that are there, and over
    /// all nodes when those are too few.
    ///
    /// # Errors
    /// When there are not as many nodes as replicas.
    pub fn assign(
        &self,
        first: usize,
        count: usize,
        replication_factor: usize,
    ) -> Result<Vec<Assignment>, AssignError> {
        let there = |broker: &Broker| !broker.fenced && !broker.draining;
        let racks = |among: &dyn Fn(&Broker) -> bool| -> Vec<(NodeId, Option<&str>)> {
            let stays = |node: &NodeId| !self.leaving.contains(node);
            let brokers = self.brokers.iter().filter(|(node, it)| stays(node) && among(it));
            brokers.map(|(node, broker)| (*node, broker.rack.as_deref())).collect()
        };
        let mut nodes = racks(&there);
        if nodes.len() < replication_factor {
            nodes = racks(&|_| true);
        }
        assign_over_racks(first, count, replication_factor, &nodes)
    }

    /// All topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// Topics by name, from one on.
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Topic> {
        let names = self.names.range::<str, _>((Bound::Included(name), Bound::Unbounded));
        names.filter_map(|(_, id)| self.topics.get(id))
    }

    /// How many topics there are.
    #[must_use]
    pub fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// How many partitions all topics have together.
    #[must_use]
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// The topic of that name.
    #[must_use]
    pub fn topic_named(&self, name: &str) -> Option<&Topic> {
        self.topics.get(self.names.get(name)?)
    }

    /// The topic of that id.
    #[must_use]
    pub fn topic(&self, id: TopicId) -> Option<&Topic> {
        self.topics.get(&id)
    }

    /// A partition.
    #[must_use]
    pub fn partition(&self, key: ReplicaKey) -> Option<&Partition> {
        self.topics.get(&key.topic_id)?.partition(key.partition)
    }

    /// The shard of `node` that owns its replica of `key`, when the node is registered.
    #[must_use]
    pub fn shard_of(&self, key: ReplicaKey, node: NodeId) -> Option<ShardId> {
        self.brokers.get(&node).map(|broker| key.shard(broker.shards))
    }

    /// Deleted topics, oldest first, at most [`TOMBSTONES_MAX`].
    pub fn deleted_topics(&self) -> impl Iterator<Item = TopicId> {
        self.tombstones.iter().copied()
    }

    /// Checks a creation before it is proposed: the same checks that applying makes of the name.
    ///
    /// # Errors
    /// A [`Rejection`] about the name.
    pub fn check_new_topic(&self, name: &str) -> Result<(), Rejection> {
        check_topic_name(name)?;
        if let Some(topic_id) = self.names.get(name) {
            return Err(Rejection::TopicExists { name: name.to_owned(), topic_id: *topic_id });
        }
        if let Some(other) =
            self.folded_names.get(&topic_name::fold(name)).and_then(|id| self.topics.get(id))
        {
            return Err(Rejection::TopicNameCollides {
                name: name.to_owned(),
                other: other.name.clone(),
            });
        }
        Ok(())
    }

    /// Scans the whole state.
    ///
    /// # Panics
    /// When an invariant of the module's head does not hold.
    pub fn check_invariants(&self) {
        assert_eq!(self.topics.len(), self.names.len(), "one name per topic");
        assert_eq!(self.topics.len(), self.folded_names.len(), "one folded name per topic");
        let partitions: usize = self.topics.values().map(|topic| topic.partitions.len()).sum();
        assert_eq!(partitions, self.partition_count, "partitions are counted");
        assert!(self.tombstones.len() <= TOMBSTONES_MAX, "tombstones are bounded");
        for (id, topic) in &self.topics {
            assert_eq!(*id, topic.id, "a topic is under its id");
            assert_eq!(self.names.get(&topic.name), Some(id), "a name leads to its topic");
            let goes = |node: &NodeId| self.leaving.contains(node);
            let held = topic.partitions.iter().flat_map(|partition| &partition.replicas);
            assert!(!held.into_iter().any(goes), "{id} is on a node that is to go");
            assert!(!self.tombstones.contains(id), "{id} is deleted and present");
            for (key, partition) in topic.replicas() {
                let replica = |node| partition.replicas.contains(node);
                assert!(partition.isr.iter().all(replica), "{key}: in sync but no replica");
                assert!(partition.elr.iter().all(replica), "{key}: eligible but no replica");
                let in_sync = |node: &NodeId| partition.isr.contains(node);
                assert!(!partition.elr.iter().any(in_sync), "{key}: in sync and eligible beside");
                let there =
                    |node: &NodeId| self.brokers.get(node).is_some_and(|broker| !broker.fenced);
                assert!(partition.isr.iter().all(there), "{key}: in sync but fenced");
                let eligible = partition.isr.iter().chain(&partition.elr);
                match partition.leader {
                    Some(leader) => assert!(in_sync(&leader), "{key}: the leader is not in sync"),
                    None => {
                        let unclean = election::Rules::of(topic, &self.cluster_configs).unclean;
                        let nobody = match unclean {
                            false => !eligible.into_iter().any(there),
                            true => !partition.replicas.iter().any(there),
                        };
                        assert!(nobody, "{key}: nobody leads, and somebody could");
                    }
                }
            }
        }
    }
}
