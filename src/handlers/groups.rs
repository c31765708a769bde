//! The way from a group to its coordinator, and what requests to coordinators have in common.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use chronik_protocol::{ErrorCode, KafkaString};
use chronik_shards::machine::coordinators::GROUPS_TOPIC;
use chronik_shards::machine::group::{Client, GroupError, GroupRequest, GroupResponse, refused};
use chronik_shards::machine::metadata::Partition;
use chronik_shards::model::{NodeId, ReplicaKey};

use super::create_topics::{self, NewTopic};
use super::error::Refusal;
use super::{Handlers, concurrent, partitions};
use crate::metadata_view::MetadataView;
use crate::net::ConnectionContext;

/// Bits of every operation on a group that a client without an authorizer may do: read, delete, describe, describe
/// configs, alter configs.
pub const GROUP_OPERATIONS: i32 = 0b1101_0100_1000;

/// Topics that the server keeps for itself: clients read them, and write to them through requests of other kinds.
pub fn is_internal(topic: &str) -> bool {
    topic == GROUPS_TOPIC
}

/// Who sent a request.
pub fn client(client_id: Option<&KafkaString>, connection: &ConnectionContext) -> Client {
    Client {
        id: client_id.map(ToString::to_string).unwrap_or_default(),
        // As Java prints an address.
        host: format!("/{}", connection.peer().ip()),
    }
}

/// The partition of a group: Java's hash of its id, so that every tool and every broker finds the same.
fn partition_of(group_id: &str, partitions: usize) -> i32 {
    let hash = group_id
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // The smallest number has no positive twin.
    let hash = hash.checked_abs().unwrap_or(0);
    hash % i32::try_from(partitions.max(1)).unwrap_or(i32::MAX)
}

/// Where a group is coordinated; `None` while there is no topic for it.
fn place<'v>(view: &'v MetadataView, group_id: &str) -> Option<(ReplicaKey, &'v Partition)> {
    let topic = view.image().topic_named(GROUPS_TOPIC)?;
    partitions::find(topic, partition_of(group_id, topic.partitions.len()))
}

/// The node that coordinates a group. The first who asks has the topic created.
pub async fn coordinator(
    handlers: &std::rc::Rc<Handlers>,
    group_id: &str,
) -> Result<NodeId, Refusal> {
    let is_missing = handlers.metadata.borrow().image().topic_named(GROUPS_TOPIC).is_none();
    if is_missing {
        let new = NewTopic::of_groups(handlers.settings.groups_topic);
        match create_topics::create(handlers, new).await {
            Ok(_) => {}
            // Somebody else was faster.
            Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => {}
            Err(refusal) => {
                tracing::warn!(reason = refusal.message, "{GROUPS_TOPIC} cannot be created");
                let message = format!("{GROUPS_TOPIC} cannot be created: {}", refusal.message);
                return Err(Refusal::new(ErrorCode::CoordinatorNotAvailable, message));
            }
        }
    }
    let view = handlers.metadata.borrow();
    let leader = place(&view, group_id).and_then(|(_, partition)| partition.leader);
    let is_there = |node: &NodeId| view.image().broker(*node).is_some_and(|it| !it.fenced);
    leader.filter(is_there).ok_or_else(|| {
        Refusal::new(ErrorCode::CoordinatorNotAvailable, "nobody leads the group's partition")
    })
}

/// Asks the coordinator of a group, if it is on this node.
pub async fn ask(handlers: &Handlers, group_id: &str, request: GroupRequest) -> GroupResponse {
    let key = {
        let view = handlers.metadata.borrow();
        place(&view, group_id)
            .filter(|(_, partition)| partition.leader == Some(view.node_id()))
            .map(|(key, _)| key)
    };
    match key {
        Some(key) => ask_partition(handlers, key, request).await,
        None => refused(request, &GroupError::NotCoordinator),
    }
}

/// Asks about several groups, each at its coordinator. Groups of one partition are asked about together.
pub async fn ask_each<T>(
    handlers: &Handlers,
    group_ids: Vec<String>,
    request: impl Fn(Vec<String>) -> GroupRequest,
    lines: impl Fn(GroupResponse) -> Vec<(String, Result<T, GroupError>)>,
) -> Vec<(String, Result<T, GroupError>)> {
    let mut by_partition: BTreeMap<Option<ReplicaKey>, Vec<String>> = BTreeMap::new();
    {
        let view = handlers.metadata.borrow();
        for group_id in &group_ids {
            let key = place(&view, group_id).map(|(key, _)| key);
            by_partition.entry(key).or_default().push(group_id.clone());
        }
    }
    let asked = by_partition.into_values().map(|named| {
        let first = named[0].clone();
        let request = request(named);
        async move { ask(handlers, &first, request).await }
    });
    let answers = concurrent::all(asked).await;
    let mut found: Vec<Option<(String, Result<T, GroupError>)>> = Vec::new();
    found.extend(answers.into_iter().flat_map(lines).map(Some));
    // As they were named, also where one is named twice.
    let mut take = |group_id: &String| {
        let is_it = |line: &&mut Option<(String, Result<T, GroupError>)>| {
            line.as_ref().is_some_and(|(id, _)| id == group_id)
        };
        found.iter_mut().find(is_it).and_then(Option::take)
    };
    group_ids.iter().filter_map(&mut take).collect()
}

/// The partitions whose groups are coordinated on this node.
pub fn led_here(view: &MetadataView) -> Vec<ReplicaKey> {
    let Some(topic) = view.image().topic_named(GROUPS_TOPIC) else { return Vec::new() };
    let here = |partition: &Partition| partition.leader == Some(view.node_id());
    topic.replicas().filter(|(_, partition)| here(partition)).map(|(key, _)| key).collect()
}

/// Asks the coordinator of a partition. Whoever waits for other members learns of it when the node stops.
pub async fn ask_partition(
    handlers: &Handlers,
    key: ReplicaKey,
    request: GroupRequest,
) -> GroupResponse {
    let shard = handlers.shard.shard_of(&key);
    if !request.waits_for_others() {
        return handlers.shard.group(shard, key, request).await;
    }
    let stopped = match &request {
        GroupRequest::Join(_) => GroupResponse::Join(Err(GroupError::NotCoordinator)),
        _ => GroupResponse::Sync(Err(GroupError::NotCoordinator)),
    };
    let answer: Pin<Box<dyn Future<Output = GroupResponse> + '_>> =
        Box::pin(handlers.shard.group(shard, key, request));
    let stop: Pin<Box<dyn Future<Output = GroupResponse> + '_>> = Box::pin(async move {
        handlers.shard.stopping().await;
        stopped
    });
    concurrent::first([answer, stop]).await.expect("there are two to wait for")
}

/// Kafka's code for what a coordinator refuses.
pub fn code(error: &GroupError) -> ErrorCode {
    match error {
        GroupError::NotCoordinator => ErrorCode::NotCoordinator,
        GroupError::LoadInProgress => ErrorCode::CoordinatorLoadInProgress,
        GroupError::NotAvailable | GroupError::CoordinatorFull { .. } => {
            ErrorCode::CoordinatorNotAvailable
        }
        GroupError::UnknownMemberId => ErrorCode::UnknownMemberId,
        GroupError::IllegalGeneration => ErrorCode::IllegalGeneration,
        GroupError::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        GroupError::InconsistentGroupProtocol => ErrorCode::InconsistentGroupProtocol,
        GroupError::InvalidGroupId => ErrorCode::InvalidGroupId,
        GroupError::InvalidSessionTimeout { .. } => ErrorCode::InvalidSessionTimeout,
        GroupError::MemberIdRequired { .. } => ErrorCode::MemberIdRequired,
        GroupError::FencedInstanceId => ErrorCode::FencedInstanceId,
        GroupError::GroupMaxSizeReached { .. } => ErrorCode::GroupMaxSizeReached,
        // As Kafka, which has no code for it.
        GroupError::GroupTooLarge { .. } => ErrorCode::UnknownServerError,
        GroupError::GroupIdNotFound(_) => ErrorCode::GroupIdNotFound,
        GroupError::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        GroupError::GroupSubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        GroupError::OffsetMetadataTooLarge { .. } => ErrorCode::OffsetMetadataTooLarge,
        GroupError::InvalidRequest(_) => ErrorCode::InvalidRequest,
        GroupError::UnsupportedAssignor(_) => ErrorCode::UnsupportedAssignor,
        GroupError::InvalidRegularExpression(_) => ErrorCode::InvalidRegularExpression,
        GroupError::FencedMemberEpoch => ErrorCode::FencedMemberEpoch,
        GroupError::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
        GroupError::UnreleasedInstanceId => ErrorCode::UnreleasedInstanceId,
        GroupError::UnsupportedVersion => ErrorCode::UnsupportedVersion,
    }
}

/// The code on the wire: of an error, or that there is none.
pub fn wire_code<T>(outcome: &Result<T, GroupError>) -> i16 {
    outcome.as_ref().err().map_or(ErrorCode::None, code).code()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_where_java_puts_them() {
        // What `String.hashCode` says, without its sign; of the last one it is the smallest number.
        let hashes = [
            ("", 0),
            ("a", 97),
            ("group", 98_629_247),
            ("Größe", 69_209_585),
            ("polygenelubricants", 0),
        ];
        for (group_id, hash) in hashes {
            assert_eq!(partition_of(group_id, i32::MAX as usize), hash, "{group_id}");
            assert_eq!(partition_of(group_id, 50), hash % 50, "{group_id}");
        }
    }
}
