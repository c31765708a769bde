//! Finding the partition that a request names.

use std::collections::BTreeSet;

use chronik_protocol::{ErrorCode, Uuid};
use chronik_shards::machine::metadata::{Broker, Partition, Topic};
use chronik_shards::model::{NodeId, PartitionIndex, ReplicaKey, TopicId};

use crate::metadata_view::MetadataView;

/// How a request names a topic.
#[derive(Clone, Copy, Debug)]
pub enum TopicNamed<'a> {
    /// In older versions.
    Name(&'a str),
    /// In newer ones. Source: KIP-516.
    Id(Uuid),
}

/// Why a partition cannot be asked here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotHere {
    /// There is none, as far as this node knows.
    Unknown(ErrorCode),
    /// Another node leads it, or none.
    LedElsewhere(LeaderOnWire),
}

/// Who leads a partition, as the wire says it. Source: KIP-951.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaderOnWire {
    /// The node, −1 for none.
    pub leader_id: i32,
    /// Its epoch.
    pub leader_epoch: i32,
}

impl LeaderOnWire {
    /// The leader of a partition.
    pub fn of(partition: &Partition) -> Self {
        let leader_id = partition.leader.map_or(-1, |leader| leader.get());
        Self { leader_id, leader_epoch: partition.leader_epoch.get() }
    }
}

impl NotHere {
    /// Kafka's code.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Unknown(code) => code,
            Self::LedElsewhere(_) => ErrorCode::NotLeaderOrFollower,
        }
    }
}

/// The topic that is meant.
pub fn topic<'v>(view: &'v MetadataView, named: TopicNamed<'_>) -> Result<&'v Topic, ErrorCode> {
    match named {
        TopicNamed::Name(name) => {
            view.image().topic_named(name).ok_or(ErrorCode::UnknownTopicOrPartition)
        }
        TopicNamed::Id(id) => view.image().topic(TopicId(id.0)).ok_or(ErrorCode::UnknownTopicId),
    }
}

/// The partition that is meant, if this node leads it.
pub fn led_here(
    view: &MetadataView,
    named: TopicNamed<'_>,
    partition: i32,
) -> Result<ReplicaKey, NotHere> {
    here(view, named, partition, |found| found.leader == Some(view.node_id()))
}

/// The partition that is meant, if this node has a replica of it.
pub fn replica_here(
    view: &MetadataView,
    named: TopicNamed<'_>,
    partition: i32,
) -> Result<ReplicaKey, NotHere> {
    here(view, named, partition, |found| found.replicas.contains(&view.node_id()))
}

fn here(
    view: &MetadataView,
    named: TopicNamed<'_>,
    partition: i32,
    is_here: impl Fn(&Partition) -> bool,
) -> Result<ReplicaKey, NotHere> {
    let topic = topic(view, named).map_err(NotHere::Unknown)?;
    let (key, found) =
        find(topic, partition).ok_or(NotHere::Unknown(ErrorCode::UnknownTopicOrPartition))?;
    if is_here(found) { Ok(key) } else { Err(NotHere::LedElsewhere(LeaderOnWire::of(found))) }
}

/// Where the leaders that an answer names listen, each once. Source: KIP-951.
pub fn endpoints<T>(
    view: &MetadataView,
    leaders: impl Iterator<Item = i32>,
    endpoint: impl Fn(i32, &Broker) -> T,
) -> Vec<T> {
    let leaders: BTreeSet<i32> = leaders.filter(|leader| *leader >= 0).collect();
    let listens = |leader: i32| Some(endpoint(leader, view.image().broker(NodeId(leader))?));
    leaders.into_iter().filter_map(listens).collect()
}

/// Replicas on nodes that nobody hears of.
pub fn offline(view: &MetadataView, partition: &Partition) -> Vec<NodeId> {
    let is_there = |node: &NodeId| view.image().broker(*node).is_some_and(|it| !it.fenced);
    partition.replicas.iter().filter(|node| !is_there(node)).copied().collect()
}

/// A partition of a topic, whoever leads it.
pub fn find(topic: &Topic, partition: i32) -> Option<(ReplicaKey, &Partition)> {
    let key = ReplicaKey { topic_id: topic.id, partition: PartitionIndex(partition) };
    Some((key, topic.partition(key.partition)?))
}
