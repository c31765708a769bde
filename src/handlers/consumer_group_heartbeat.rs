//! ConsumerGroupHeartbeat: a member of a consumer group joins, is there, or leaves. Source: KIP-848, KIP-1082.

use std::rc::Rc;

use chronik_protocol::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions as Named,
};
use chronik_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, ConsumerGroupHeartbeatResponse, TopicPartitions,
};
use chronik_protocol::{KafkaString, Uuid};
use chronik_shards::format::group_record;
use chronik_shards::machine::group::{
    Client, ConsumerBeat, ConsumerHeartbeat, GroupRequest, GroupResponse,
};
use chronik_shards::model::{PartitionIndex, TopicId};

use super::{Handlers, groups};

/// The epoch by which a member joins.
const JOIN_EPOCH: i32 = 0;

/// Answers a ConsumerGroupHeartbeat request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    client: Client,
    request: ConsumerGroupHeartbeatRequest,
    version: i16,
) -> ConsumerGroupHeartbeatResponse {
    let text = |text: KafkaString| text.to_string();
    let mut member_id = request.member_id.to_string();
    // Members choose their id themselves since version 1.
    if version == 0 && member_id.is_empty() && request.member_epoch == JOIN_EPOCH {
        member_id = handlers.fresh_topic_id().to_string();
    }
    let asked = ConsumerHeartbeat {
        group_id: request.group_id.to_string(),
        client,
        member_id,
        member_epoch: request.member_epoch,
        instance_id: request.instance_id.map(text),
        rack_id: request.rack_id.map(text),
        rebalance_timeout_ms: (request.rebalance_timeout_ms != -1)
            .then_some(request.rebalance_timeout_ms),
        topics: request.subscribed_topic_names.map(|names| names.into_iter().map(text).collect()),
        expression: request.subscribed_topic_regex.map(text),
        server_assignor: request.server_assignor.map(text),
        owned: request.topic_partitions.map(|topics| topics.into_iter().map(owned).collect()),
    };
    let asked = GroupRequest::ConsumerHeartbeat(asked);
    match groups::ask(handlers, &request.group_id, asked).await {
        GroupResponse::ConsumerHeartbeat(Ok(beat)) => told(beat),
        GroupResponse::ConsumerHeartbeat(Err(error)) => ConsumerGroupHeartbeatResponse {
            error_code: groups::code(&error).code(),
            error_message: Some(error.to_string().into()),
            ..ConsumerGroupHeartbeatResponse::default()
        },
        other => unreachable!("a heartbeat is answered with {other:?}"),
    }
}

fn owned(topic: Named) -> group_record::TopicPartitions {
    group_record::TopicPartitions {
        topic_id: TopicId(topic.topic_id.0),
        partitions: topic.partitions.into_iter().map(PartitionIndex).collect(),
    }
}

fn told(beat: ConsumerBeat) -> ConsumerGroupHeartbeatResponse {
    let assigned = |topic: group_record::TopicPartitions| TopicPartitions {
        topic_id: Uuid(topic.topic_id.0),
        partitions: topic.partitions.into_iter().map(PartitionIndex::get).collect(),
        ..TopicPartitions::default()
    };
    let assignment = beat.assignment.map(|topics| Assignment {
        topic_partitions: topics.into_iter().map(assigned).collect(),
        ..Assignment::default()
    });
    ConsumerGroupHeartbeatResponse {
        member_id: Some(beat.member_id.into()),
        member_epoch: beat.member_epoch,
        heartbeat_interval_ms: beat.heartbeat_interval_ms,
        assignment,
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
