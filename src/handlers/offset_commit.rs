//! OffsetCommit: offsets of a group are remembered. Source: KIP-211, KIP-320, KIP-848; topics by id: KIP-848.

use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::offset_commit_response::{
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use chronik_shards::machine::group::{CommitOffsets, GroupRequest, GroupResponse, OffsetToCommit};
use chronik_shards::machine::metadata::Topic;
use chronik_shards::model::{Offset, PartitionIndex};

use super::partitions::{self, TopicNamed};
use super::{Handlers, groups};
use crate::metadata_view::MetadataView;

/// Answers an OffsetCommit request. Offsets of partitions that do not exist are refused, the others remembered.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: OffsetCommitRequest,
    version: i16,
) -> OffsetCommitResponse {
    let mut offsets = Vec::new();
    // One a partition, in the request's order: refused here, or decided by the coordinator.
    let mut codes: Vec<Option<ErrorCode>> = Vec::new();
    {
        let view = handlers.metadata.borrow();
        for topic in &request.topics {
            let found = find(&view, topic, version);
            for partition in &topic.partitions {
                let offset = found.and_then(|found| offset(found, partition));
                codes.push(offset.as_ref().err().copied());
                offsets.extend(offset);
            }
        }
    }
    let mut decided = Vec::new();
    if !offsets.is_empty() || codes.is_empty() {
        let count = offsets.len();
        let asked = CommitOffsets {
            group_id: request.group_id.to_string(),
            generation_or_epoch: request.generation_id_or_member_epoch,
            member_id: request.member_id.to_string(),
            instance_id: request.group_instance_id.map(|id| id.to_string()),
            retention_ms: (version <= 4).then_some(request.retention_time_ms),
            knows_epochs: version >= 9,
            offsets,
        };
        let asked = GroupRequest::CommitOffsets(asked);
        decided = match groups::ask(handlers, &request.group_id, asked).await {
            GroupResponse::CommitOffsets(Ok(outcomes)) => {
                outcomes.iter().map(|it| groups::wire_code(&it.outcome)).collect()
            }
            GroupResponse::CommitOffsets(Err(error)) => vec![groups::code(&error).code(); count],
            other => unreachable!("a commit is answered with {other:?}"),
        };
    }
    let mut decided = decided.into_iter();
    let mut codes = codes.into_iter();
    let mut code = || match codes.next().flatten() {
        Some(refused) => refused.code(),
        None => decided.next().expect("every offset has its outcome"),
    };
    let topics = request.topics.into_iter().map(|topic| OffsetCommitResponseTopic {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: code(),
                ..OffsetCommitResponsePartition::default()
            })
            .collect(),
        ..OffsetCommitResponseTopic::default()
    });
    OffsetCommitResponse { topics: topics.collect(), ..OffsetCommitResponse::default() }
}

fn find<'v>(
    view: &'v MetadataView,
    topic: &OffsetCommitRequestTopic,
    version: i16,
) -> Result<&'v Topic, ErrorCode> {
    let named = match version {
        10.. => TopicNamed::Id(topic.topic_id),
        _ => TopicNamed::Name(&topic.name),
    };
    partitions::topic(view, named)
}

fn offset(
    topic: &Topic,
    partition: &OffsetCommitRequestPartition,
) -> Result<OffsetToCommit, ErrorCode> {
    let index = PartitionIndex(partition.partition_index);
    topic.partition(index).ok_or(ErrorCode::UnknownTopicOrPartition)?;
    let epoch = partition.committed_leader_epoch;
    Ok(OffsetToCommit {
        topic: topic.name.clone(),
        topic_id: topic.id,
        partition: index,
        offset: Offset(partition.committed_offset),
        leader_epoch: (epoch >= 0).then_some(epoch),
        metadata: partition
            .committed_metadata
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    })
}
