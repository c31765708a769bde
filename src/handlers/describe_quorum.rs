//! DescribeQuorum: how the Raft group of the metadata stands. Source: KIP-595, KIP-836, KIP-853.

use std::rc::Rc;

use chronik_protocol::messages::describe_quorum_request::DescribeQuorumRequest;
use chronik_protocol::messages::describe_quorum_response::{
    DescribeQuorumResponse, Listener, Node, PartitionData, ReplicaState, TopicData,
};
use chronik_protocol::{ErrorCode, KafkaString, Uuid};

use super::{Handlers, error};
use crate::control::{MemberState, QuorumState};
use crate::metadata_view::MetadataView;

/// Kafka's name for the metadata log.
const TOPIC: &str = "__cluster_metadata";
/// Kafka's name for the listener of controllers.
const LISTENER: &str = "CONTROLLER";

/// Answers a DescribeQuorum request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: &DescribeQuorumRequest,
    version: i16,
) -> DescribeQuorumResponse {
    let is_the_log = match &request.topics[..] {
        [topic] => match &topic.partitions[..] {
            [partition] => &*topic.topic_name == TOPIC && partition.partition_index == 0,
            _ => false,
        },
        _ => false,
    };
    if !is_the_log {
        return unknown(request);
    }
    let state = match handlers.quorum().await {
        Ok(state) => state,
        Err(failure) => {
            let refusal = error::of_control(&failure);
            return DescribeQuorumResponse {
                error_code: refusal.code.code(),
                error_message: Some(refusal.message.into()),
                ..DescribeQuorumResponse::default()
            };
        }
    };
    let view = handlers.metadata.borrow();
    let partition = described(&view, &state, version, handlers.now().wall.0);
    let nodes = if version >= 2 { nodes(&view, &state) } else { Vec::new() };
    DescribeQuorumResponse {
        topics: vec![TopicData {
            topic_name: KafkaString::from_static(TOPIC),
            partitions: vec![partition],
            ..TopicData::default()
        }],
        nodes,
        ..DescribeQuorumResponse::default()
    }
}

/// There is one log alone that a group stands behind.
fn unknown(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.iter().map(|topic| TopicData {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| PartitionData {
                partition_index: partition.partition_index,
                error_code: ErrorCode::UnknownTopicOrPartition.code(),
                ..PartitionData::default()
            })
            .collect(),
        ..TopicData::default()
    });
    DescribeQuorumResponse { topics: topics.collect(), ..DescribeQuorumResponse::default() }
}

fn described(view: &MetadataView, state: &QuorumState, version: i16, now_ms: i64) -> PartitionData {
    let replica = |member: &MemberState| {
        let ago = |ms: Option<u64>| {
            let ms = ms.and_then(|ms| i64::try_from(ms).ok());
            ms.map_or(-1, |ms| now_ms.saturating_sub(ms))
        };
        let broker = view.image().broker(member.node_id);
        ReplicaState {
            replica_id: member.node_id.get(),
            // Before version 2 there is no place for it.
            replica_directory_id: broker
                .filter(|_| version >= 2)
                .map_or(Uuid::ZERO, |broker| Uuid(broker.directory_id)),
            // Kafka counts from the entry after the last one.
            log_end_offset: offset(member.last_index + 1),
            last_fetch_timestamp: ago(member.heard_ms),
            last_caught_up_timestamp: ago(member.caught_up_ms),
            ..ReplicaState::default()
        }
    };
    let those = |voters: bool| {
        let members = state.members.iter().filter(move |member| member.is_voter == voters);
        members.map(replica).collect::<Vec<_>>()
    };
    PartitionData {
        partition_index: 0,
        leader_id: state.leader.get(),
        leader_epoch: i32::try_from(state.term).unwrap_or(i32::MAX),
        high_watermark: offset(state.committed + 1),
        current_voters: those(true),
        observers: those(false),
        ..PartitionData::default()
    }
}

fn nodes(view: &MetadataView, state: &QuorumState) -> Vec<Node> {
    let node = |member: &MemberState| {
        let control = view.image().broker(member.node_id)?.control.as_ref()?;
        let listener = Listener {
            name: KafkaString::from_static(LISTENER),
            host: KafkaString::from(control.host.as_str()),
            port: control.port,
            ..Listener::default()
        };
        let (node_id, listeners) = (member.node_id.get(), vec![listener]);
        Some(Node { node_id, listeners, ..Node::default() })
    };
    state.members.iter().filter(|member| member.is_voter).filter_map(node).collect()
}

fn offset(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}
