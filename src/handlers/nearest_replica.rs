//! Which replica a consumer reads from: the leader, unless another one that is in sync stands in the consumer's
//! rack. Source: KIP-392 and its rack-aware selector.

use chronik_protocol::KafkaString;
use chronik_protocol::messages::fetch_request::FetchRequest;
use chronik_shards::machine::metadata::{MetadataImage, Partition};
use chronik_shards::model::{NodeId, ReplicaKey};

use super::Handlers;

/// The first version in which a consumer can be sent to a follower.
const FOLLOWER_VERSION: i16 = 11;

/// Who fetches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reader {
    /// Whether it may read from a follower.
    pub reads_followers: bool,
    /// Where it stands, if it is to be sent to what is near.
    rack: Option<KafkaString>,
}

impl Reader {
    /// Who sent a request.
    #[must_use]
    pub fn of(handlers: &Handlers, request: &FetchRequest, version: i16) -> Self {
        let reads_followers = version >= FOLLOWER_VERSION;
        let is_sent = || {
            let view = handlers.metadata.borrow();
            view.broker_config().settings().selects_replicas_by_rack
        };
        let has_rack = reads_followers && !request.rack_id.is_empty() && is_sent();
        Self { reads_followers, rack: has_rack.then(|| request.rack_id.clone()) }
    }

    /// The replica that this reader of a partition led here should ask instead.
    #[must_use]
    pub fn nearer_than_here(&self, handlers: &Handlers, key: ReplicaKey) -> Option<NodeId> {
        let rack = self.rack.as_deref()?;
        let view = handlers.metadata.borrow();
        let partition = view.image().partition(key)?;
        if partition.leader != Some(view.node_id()) {
            return None;
        }
        nearest(view.image(), partition, rack).filter(|node| *node != view.node_id())
    }
}

/// The leader if it stands in `rack`, else the first in sync that does.
fn nearest(image: &MetadataImage, partition: &Partition, rack: &str) -> Option<NodeId> {
    let stands_there = |node: &&NodeId| {
        image.broker(**node).is_some_and(|broker| broker.rack.as_deref() == Some(rack))
    };
    let leader = partition.leader.iter().find(stands_there);
    leader.or_else(|| partition.isr.iter().find(stands_there)).copied()
}
