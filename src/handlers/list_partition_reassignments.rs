//! ListPartitionReassignments: which partitions are moving. Source: KIP-455.

use std::rc::Rc;

use chronik_protocol::KafkaString;
use chronik_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use chronik_protocol::messages::list_partition_reassignments_response::{
    ListPartitionReassignmentsResponse, OngoingPartitionReassignment, OngoingTopicReassignment,
};
use chronik_shards::machine::metadata::{Partition, Topic};
use chronik_shards::model::NodeId;

use super::{Handlers, partitions};

/// Answers a ListPartitionReassignments request. What is asked for and does not move, or does not exist, is
/// left out, as Kafka does.
pub fn handle(
    handlers: &Rc<Handlers>,
    request: &ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let view = handlers.metadata.borrow();
    let topics: Vec<OngoingTopicReassignment> = match &request.topics {
        None => view
            .image()
            .topics()
            .filter_map(|topic| {
                let all = topic.replicas();
                moving(topic, all.map(|(key, partition)| (key.partition.get(), partition)))
            })
            .collect(),
        Some(asked) => asked
            .iter()
            .filter_map(|asked| {
                let topic = view.image().topic_named(&asked.name)?;
                let find = |index: &i32| Some((*index, partitions::find(topic, *index)?.1));
                moving(topic, asked.partition_indexes.iter().filter_map(find))
            })
            .collect(),
    };
    ListPartitionReassignmentsResponse { topics, ..ListPartitionReassignmentsResponse::default() }
}

fn moving<'p>(
    topic: &Topic,
    partitions: impl Iterator<Item = (i32, &'p Partition)>,
) -> Option<OngoingTopicReassignment> {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.get()).collect::<Vec<_>>();
    let partitions: Vec<OngoingPartitionReassignment> = partitions
        .filter(|(_, partition)| !partition.adding.is_empty() || !partition.removing.is_empty())
        .map(|(index, partition)| OngoingPartitionReassignment {
            partition_index: index,
            replicas: ids(&partition.replicas),
            adding_replicas: ids(&partition.adding),
            removing_replicas: ids(&partition.removing),
            ..OngoingPartitionReassignment::default()
        })
        .collect();
    (!partitions.is_empty()).then(|| OngoingTopicReassignment {
        name: KafkaString::from(topic.name.as_str()),
        partitions,
        ..OngoingTopicReassignment::default()
    })
}
