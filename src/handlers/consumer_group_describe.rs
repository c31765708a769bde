//! ConsumerGroupDescribe: what consumer groups are like. Source: KIP-848, KIP-1099 (types of members).

use std::rc::Rc;

use chronik_protocol::messages::consumer_group_describe_request::ConsumerGroupDescribeRequest;
use chronik_protocol::messages::consumer_group_describe_response::{
    Assignment, ConsumerGroupDescribeResponse, DescribedGroup, Member, TopicPartitions,
};
use chronik_protocol::{KafkaString, Uuid};
use chronik_shards::format::group_record;
use chronik_shards::machine::group::{
    DescribedConsumer, DescribedConsumerGroup, GroupRequest, GroupResponse,
};
use chronik_shards::model::PartitionIndex;

use super::{Handlers, groups};
use crate::metadata_view::MetadataView;

/// Wire numbers of the protocol that a member speaks.
mod member_type {
    pub const CLASSIC: i8 = 0;
    pub const CONSUMER: i8 = 1;
}

/// Answers a ConsumerGroupDescribe request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: ConsumerGroupDescribeRequest,
) -> ConsumerGroupDescribeResponse {
    let group_ids = request.group_ids.iter().map(ToString::to_string).collect();
    let lines = |response| match response {
        GroupResponse::DescribeConsumerGroups(lines) => lines,
        other => unreachable!("a description of groups is answered with {other:?}"),
    };
    let described =
        groups::ask_each(handlers, group_ids, GroupRequest::DescribeConsumerGroups, lines).await;
    let view = handlers.metadata.borrow();
    let groups = described.into_iter().map(|(group_id, found)| {
        let mut group = match found {
            Ok(found) => told(&view, found),
            Err(error) => DescribedGroup {
                error_code: groups::code(&error).code(),
                error_message: Some(error.to_string().into()),
                ..DescribedGroup::default()
            },
        };
        group.group_id = group_id.into();
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = groups::GROUP_OPERATIONS;
        }
        group
    });
    let groups = groups.collect();
    ConsumerGroupDescribeResponse { groups, ..ConsumerGroupDescribeResponse::default() }
}

fn told(view: &MetadataView, found: DescribedConsumerGroup) -> DescribedGroup {
    DescribedGroup {
        group_state: KafkaString::from_static(found.state),
        group_epoch: found.epoch,
        assignment_epoch: found.target_epoch,
        assignor_name: found.assignor.into(),
        members: found.members.into_iter().map(|it| member(view, it)).collect(),
        ..DescribedGroup::default()
    }
}

fn member(view: &MetadataView, found: DescribedConsumer) -> Member {
    let told = found.told;
    Member {
        member_id: found.member_id.into(),
        instance_id: told.instance_id.map(KafkaString::from),
        rack_id: told.rack_id.map(KafkaString::from),
        member_epoch: found.member_epoch,
        client_id: told.client_id.into(),
        client_host: told.client_host.into(),
        subscribed_topic_names: told.topics.into_iter().map(KafkaString::from).collect(),
        subscribed_topic_regex: told.expression.map(KafkaString::from),
        assignment: assignment(view, found.assigned),
        target_assignment: assignment(view, found.target),
        member_type: match told.classic {
            Some(_) => member_type::CLASSIC,
            None => member_type::CONSUMER,
        },
        ..Member::default()
    }
}

/// Topics that are gone have no name, and are left out.
fn assignment(view: &MetadataView, topics: Vec<group_record::TopicPartitions>) -> Assignment {
    let named = topics.into_iter().filter_map(|topic| {
        let name = view.image().topic(topic.topic_id)?.name.as_str();
        Some(TopicPartitions {
            topic_id: Uuid(topic.topic_id.0),
            topic_name: KafkaString::from(name),
            partitions: topic.partitions.into_iter().map(PartitionIndex::get).collect(),
            ..TopicPartitions::default()
        })
    });
    Assignment { topic_partitions: named.collect(), ..Assignment::default() }
}
