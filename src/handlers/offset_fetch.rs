//! OffsetFetch: the offsets that groups have committed. Source: KIP-709 (several groups), KIP-848 (member epochs, topics
//! by id).
//!
//! Without transactions every offset is stable, so `RequireStable` makes no difference.

use std::rc::Rc;

use chronik_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use chronik_protocol::messages::offset_fetch_response::{
    OffsetFetchResponse, OffsetFetchResponseGroup, OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use chronik_protocol::{ErrorCode, KafkaString, Uuid};
use chronik_shards::machine::group::{FetchOffsets, FetchedOffset, GroupRequest, GroupResponse};
use chronik_shards::model::{PartitionIndex, TopicId};

use super::{Handlers, concurrent, groups};

/// Answers an OffsetFetch request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version >= 8 {
        let asked = request.groups.into_iter().map(|group| one(handlers, group, version));
        let groups = concurrent::all(asked).await;
        return OffsetFetchResponse { groups, ..OffsetFetchResponse::default() };
    }
    let topics = request.topics.map(|topics| {
        let named =
            |topic: chronik_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic| {
                OffsetFetchRequestTopics {
                    name: topic.name,
                    partition_indexes: topic.partition_indexes,
                    ..OffsetFetchRequestTopics::default()
                }
            };
        topics.into_iter().map(named).collect::<Vec<_>>()
    });
    let group = OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics: topics.clone(),
        member_epoch: -1,
        ..OffsetFetchRequestGroup::default()
    };
    let mut found = one(handlers, group, version).await;
    if version < 2 && found.error_code != 0 {
        // Without a place for the group's error every partition has it.
        let code = found.error_code;
        found.topics =
            topics.into_iter().flatten().map(|topic| without_offsets(topic, code)).collect();
    }
    OffsetFetchResponse {
        error_code: found.error_code,
        topics: found.topics.into_iter().map(of_one_group).collect(),
        ..OffsetFetchResponse::default()
    }
}

async fn one(
    handlers: &Handlers,
    group: OffsetFetchRequestGroup,
    version: i16,
) -> OffsetFetchResponseGroup {
    let mut response = OffsetFetchResponseGroup {
        group_id: group.group_id.clone(),
        ..OffsetFetchResponseGroup::default()
    };
    let (known, unknown) = match group.topics {
        None => (None, Vec::new()),
        Some(topics) => {
            let (known, unknown) = resolved(handlers, topics, version);
            (Some(known), unknown)
        }
    };
    let named = known.as_ref().map(|topics| {
        let indexes = |topic: &OffsetFetchRequestTopics| {
            topic.partition_indexes.iter().map(|index| PartitionIndex(*index)).collect()
        };
        topics.iter().map(|topic| (topic.name.to_string(), indexes(topic))).collect()
    });
    let member = group.member_id.filter(|_| version >= 9 && group.member_epoch >= 0);
    let asked = FetchOffsets {
        group_id: group.group_id.to_string(),
        member: member.map(|member_id| (member_id.to_string(), group.member_epoch)),
        topics: named,
    };
    let fetched =
        match groups::ask(handlers, &group.group_id, GroupRequest::FetchOffsets(asked)).await {
            GroupResponse::FetchOffsets(Ok(fetched)) => fetched,
            GroupResponse::FetchOffsets(Err(error)) => {
                response.error_code = groups::code(&error).code();
                return response;
            }
            other => unreachable!("a fetch of offsets is answered with {other:?}"),
        };
    response.topics = match known {
        Some(topics) => in_request_order(topics, fetched),
        None => all(handlers, fetched, version),
    };
    let code = ErrorCode::UnknownTopicId.code();
    response.topics.extend(unknown.into_iter().map(|topic| without_offsets(topic, code)));
    response
}

/// Topics by name; those of ids that nobody knows apart.
fn resolved(
    handlers: &Handlers,
    topics: Vec<OffsetFetchRequestTopics>,
    version: i16,
) -> (Vec<OffsetFetchRequestTopics>, Vec<OffsetFetchRequestTopics>) {
    if version < 10 {
        return (topics, Vec::new());
    }
    let view = handlers.metadata.borrow();
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    for mut topic in topics {
        match view.image().topic(TopicId(topic.topic_id.0)) {
            Some(found) => {
                topic.name = KafkaString::from(found.name.as_str());
                known.push(topic);
            }
            None => unknown.push(topic),
        }
    }
    (known, unknown)
}

fn in_request_order(
    topics: Vec<OffsetFetchRequestTopics>,
    fetched: Vec<FetchedOffset>,
) -> Vec<OffsetFetchResponseTopics> {
    let mut fetched = fetched.into_iter();
    let topics = topics.into_iter().map(|topic| OffsetFetchResponseTopics {
        partitions: fetched.by_ref().take(topic.partition_indexes.len()).map(told).collect(),
        name: topic.name,
        topic_id: topic.topic_id,
        ..OffsetFetchResponseTopics::default()
    });
    topics.collect()
}

/// Everything that the group has. Where topics are named by id, only those that there are.
fn all(
    handlers: &Handlers,
    fetched: Vec<FetchedOffset>,
    version: i16,
) -> Vec<OffsetFetchResponseTopics> {
    let view = handlers.metadata.borrow();
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    for offset in fetched {
        let topic_id = view.image().topic_named(&offset.topic).map(|topic| topic.id);
        if version >= 10 && topic_id.is_none() {
            continue;
        }
        if topics.last().is_none_or(|topic| *topic.name != *offset.topic) {
            topics.push(OffsetFetchResponseTopics {
                name: KafkaString::from(offset.topic.as_str()),
                topic_id: topic_id.map_or(Uuid::ZERO, |id| Uuid(id.0)),
                ..OffsetFetchResponseTopics::default()
            });
        }
        if let Some(topic) = topics.last_mut() {
            topic.partitions.push(told(offset));
        }
    }
    topics
}

fn told(fetched: FetchedOffset) -> OffsetFetchResponsePartitions {
    let nothing = without_offset(fetched.partition.get(), 0);
    let Some((offset, leader_epoch, metadata)) = fetched.committed else { return nothing };
    OffsetFetchResponsePartitions {
        committed_offset: offset.get(),
        committed_leader_epoch: leader_epoch.unwrap_or(-1),
        metadata: Some(metadata.into()),
        ..nothing
    }
}

fn without_offset(partition_index: i32, error_code: i16) -> OffsetFetchResponsePartitions {
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(KafkaString::default()),
        error_code,
        ..OffsetFetchResponsePartitions::default()
    }
}

fn without_offsets(topic: OffsetFetchRequestTopics, code: i16) -> OffsetFetchResponseTopics {
    let indexes = topic.partition_indexes.into_iter();
    OffsetFetchResponseTopics {
        name: topic.name,
        topic_id: topic.topic_id,
        partitions: indexes.map(|index| without_offset(index, code)).collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

fn of_one_group(topic: OffsetFetchResponseTopics) -> OffsetFetchResponseTopic {
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
        ..OffsetFetchResponsePartition::default()
    };
    OffsetFetchResponseTopic {
        name: topic.name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
        ..OffsetFetchResponseTopic::default()
    }
}
