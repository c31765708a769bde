//! DescribeTopicPartitions: topics in name order, page by page. Source: KIP-966.

use std::collections::BTreeSet;
use std::rc::Rc;

use chronik_protocol::messages::describe_topic_partitions_request::DescribeTopicPartitionsRequest;
use chronik_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponse, DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
};
use chronik_protocol::{ErrorCode, KafkaString, Uuid};
use chronik_shards::machine::metadata::{Topic, check_topic_name};
use chronik_shards::model::{NodeId, PartitionIndex, ReplicaKey};

use super::{Handlers, TOPIC_OPERATIONS, groups, partitions};
use crate::metadata_view::MetadataView;

/// Most partitions of one answer, whatever the client asks for.
const PARTITIONS_MAX: usize = 2000;

/// Answers a DescribeTopicPartitions request.
pub fn handle(
    handlers: &Rc<Handlers>,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let view = handlers.metadata.borrow();
    // No names asks for all topics; either way a cursor says where to go on.
    let names: BTreeSet<&str> = match request.topics.is_empty() {
        true => view.image().topics().map(|topic| topic.name.as_str()).collect(),
        false => request.topics.iter().map(|topic| &*topic.name).collect(),
    };
    let (from_name, from_partition) = match &request.cursor {
        Some(cursor) => match usize::try_from(cursor.partition_index) {
            Ok(partition) => (&*cursor.topic_name, partition),
            Err(_) => {
                let topic = refused(&cursor.topic_name, ErrorCode::InvalidRequest);
                return DescribeTopicPartitionsResponse {
                    topics: vec![topic],
                    ..DescribeTopicPartitionsResponse::default()
                };
            }
        },
        None => ("", 0),
    };
    let mut left =
        usize::try_from(request.response_partition_limit).unwrap_or(0).clamp(1, PARTITIONS_MAX);
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names.range(from_name..) {
        let first = if *name == from_name { from_partition } else { 0 };
        let cursor = |partition: usize| Cursor {
            topic_name: KafkaString::from(*name),
            partition_index: i32::try_from(partition).unwrap_or(i32::MAX),
            ..Cursor::default()
        };
        if left == 0 {
            response.next_cursor = Some(cursor(first));
            break;
        }
        let Some(topic) = view.image().topic_named(name) else {
            response.topics.push(unknown(name));
            continue;
        };
        let end = topic.partitions.len().min(first.saturating_add(left));
        response.topics.push(described(&view, topic, first, end));
        left -= end.saturating_sub(first);
        if end < topic.partitions.len() {
            response.next_cursor = Some(cursor(end));
            break;
        }
    }
    response
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let code = match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    };
    // What a client may do with a topic does not hang on the topic's existence.
    let topic_authorized_operations = TOPIC_OPERATIONS;
    DescribeTopicPartitionsResponseTopic { topic_authorized_operations, ..refused(name, code) }
}

fn refused(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code: code.code(),
        name: Some(name.into()),
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn described(
    view: &MetadataView,
    topic: &Topic,
    first: usize,
    end: usize,
) -> DescribeTopicPartitionsResponseTopic {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.get()).collect::<Vec<_>>();
    let described = (first..end)
        .filter_map(|index| i32::try_from(index).ok())
        .filter_map(|index| {
            let key = ReplicaKey { topic_id: topic.id, partition: PartitionIndex(index) };
            let partition = topic.partition(key.partition)?;
            Some(DescribeTopicPartitionsResponsePartition {
                error_code: match partition.leader {
                    Some(_) => ErrorCode::None.code(),
                    None => ErrorCode::LeaderNotAvailable.code(),
                },
                partition_index: index,
                leader_id: partition.leader.map_or(-1, |leader| leader.get()),
                leader_epoch: partition.leader_epoch.get(),
                replica_nodes: ids(&partition.replicas),
                isr_nodes: ids(&partition.isr),
                // Clients do not expect null here. Whoever led last is not kept beside the others.
                eligible_leader_replicas: Some(ids(&partition.elr)),
                last_known_elr: Some(Vec::new()),
                offline_replicas: ids(&partitions::offline(view, partition)),
                ..DescribeTopicPartitionsResponsePartition::default()
            })
        })
        .collect();
    DescribeTopicPartitionsResponseTopic {
        name: Some(KafkaString::from(topic.name.as_str())),
        topic_id: Uuid(topic.id.0),
        is_internal: groups::is_internal(&topic.name),
        partitions: described,
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}
