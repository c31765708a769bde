//! What shards are asked by the thread that tells the metrics, and what they answer.

use chronik_shards::machine::group::GroupsLook;
use chronik_shards::machine::survey::Survey;
use chronik_shards::model::{Offset, PartitionIndex, ShardId};
use chronik_shards::shard::ShardReport;
use crossbeam::channel::Sender;

use super::limits::MetricsLimits;
use crate::handlers::request_counts::RequestFigures;
use crate::net::NetStats;

/// A question to one shard. It has one at a time.
#[derive(Debug)]
pub struct Question {
    /// Comes back with the answer, so that one that comes late is known as such.
    pub round: u64,
    /// What to tell; `None`: only that it is there.
    pub limits: Option<MetricsLimits>,
    /// Where the answer goes. There is room for it.
    pub answers: Sender<Answer>,
}

/// A shard's answer.
#[derive(Debug)]
pub struct Answer {
    /// That of the question.
    pub round: u64,
    /// Whose.
    pub shard: ShardId,
    /// How the node stands, as far as the shard knows.
    pub standing: Standing,
    /// If it was asked for.
    pub figures: Option<Box<ShardFigures>>,
}

/// Whether a node can do its part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Whether the cluster takes it for one that is there.
    pub is_unfenced: bool,
    /// Whether it knows a controller.
    pub knows_controller: bool,
    /// Whether it is that itself.
    pub is_controller: bool,
    /// Whether it has begun to stop.
    pub is_stopping: bool,
}

impl Standing {
    /// Whether clients are served.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_unfenced && self.knows_controller && !self.is_stopping
    }
}

/// What a shard tells.
#[derive(Debug)]
pub struct ShardFigures {
    /// What it has done.
    pub report: ShardReport,
    /// Its partitions.
    pub survey: Survey,
    /// Its connections.
    pub net: NetStats,
    /// Their requests.
    pub requests: RequestFigures,
    /// The groups that it coordinates. Their offsets are in `lags`.
    pub groups: GroupsLook,
    /// How far those groups are.
    pub lags: Vec<TopicLag>,
    /// What one shard tells for the node.
    pub node: Option<NodeFigures>,
}

/// How far a group is in a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicLag {
    /// The group.
    pub group_id: String,
    /// The topic.
    pub topic: String,
    /// By partition.
    pub partitions: Vec<PartitionLag>,
}

/// How far a group is in a partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartitionLag {
    /// The partition.
    pub partition: PartitionIndex,
    /// What it has committed: the next record to be read.
    pub committed: Offset,
    /// Offsets from there to the high watermark, where that is known on this node.
    pub lag: Option<i64>,
}

/// The node and the cluster as it sees it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct NodeFigures {
    /// Topics of the cluster.
    pub topics: u64,
    /// Partitions of the cluster.
    pub partitions: u64,
    /// Of them, those that nobody leads.
    pub leaderless: u64,
    /// Nodes of the cluster that are there.
    pub nodes_serving: u64,
    /// Nodes of the cluster that are not.
    pub nodes_fenced: u64,
    /// Partitions that this node leads.
    pub led: usize,
    /// The first of those, by name: topic, partition, high watermark.
    pub high_watermarks: Vec<(String, PartitionIndex, Offset)>,
}
