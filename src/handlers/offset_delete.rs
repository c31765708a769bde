//! OffsetDelete: committed offsets of topics that a group does not read any more are forgotten. Source: KIP-496.

use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::offset_delete_request::OffsetDeleteRequest;
use chronik_protocol::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use chronik_shards::machine::group::{DeleteOffsets, GroupRequest, GroupResponse};
use chronik_shards::model::PartitionIndex;

use super::{Handlers, groups};

/// Answers an OffsetDelete request. Partitions that do not exist are refused.
pub async fn handle(handlers: &Rc<Handlers>, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let exists = |topic: &str, partition: i32| {
        let view = handlers.metadata.borrow();
        let found = view.image().topic_named(topic);
        found.is_some_and(|found| found.partition(PartitionIndex(partition)).is_some())
    };
    let named = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |it| (topic.name.to_string(), it.partition_index))
    });
    let there = named.filter(|(topic, partition)| exists(topic, *partition));
    let asked = DeleteOffsets {
        group_id: request.group_id.to_string(),
        partitions: there.map(|(topic, partition)| (topic, PartitionIndex(partition))).collect(),
    };
    let asked = GroupRequest::DeleteOffsets(asked);
    let outcomes = match groups::ask(handlers, &request.group_id, asked).await {
        GroupResponse::DeleteOffsets(Ok(outcomes)) => outcomes,
        GroupResponse::DeleteOffsets(Err(error)) => {
            return OffsetDeleteResponse {
                error_code: groups::code(&error).code(),
                ..OffsetDeleteResponse::default()
            };
        }
        other => unreachable!("a deletion of offsets is answered with {other:?}"),
    };
    let code = |topic: &str, partition: i32| {
        let found = outcomes.iter().find(|it| it.topic == topic && it.partition.get() == partition);
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        found.map_or(unknown, |found| groups::wire_code(&found.outcome))
    };
    let topics = request.topics.iter().map(|topic| OffsetDeleteResponseTopic {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetDeleteResponsePartition {
                partition_index: partition.partition_index,
                error_code: code(&topic.name, partition.partition_index),
            })
            .collect(),
    });
    OffsetDeleteResponse { topics: topics.collect(), ..OffsetDeleteResponse::default() }
}
