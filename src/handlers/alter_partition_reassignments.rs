//! AlterPartitionReassignments: partitions move to other nodes, or stop doing so. Source: KIP-455, KIP-860.

use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition,
};
use chronik_protocol::messages::alter_partition_reassignments_response::{
    AlterPartitionReassignmentsResponse, ReassignablePartitionResponse, ReassignableTopicResponse,
};
use chronik_shards::format::metadata_command::{Assignment, MetadataCommand, ReassignPartition};
use chronik_shards::model::NodeId;

use super::error::Refusal;
use super::{Handlers, concurrent, error, partitions};

/// Moves that are proposed at a time: what they wait for is one write of the log.
const PROPOSED_MAX: usize = 128;

/// Answers an AlterPartitionReassignments request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let may_change_factor = request.allow_replication_factor_change;
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut told = Vec::with_capacity(topic.partitions.len());
        for chunk in topic.partitions.chunks(PROPOSED_MAX) {
            let moves = chunk.iter().map(|asked| {
                let name = &topic.name;
                async move { reassign(handlers, name, asked, may_change_factor).await }
            });
            let results = concurrent::all(moves).await;
            told.extend(chunk.iter().zip(results).map(|(asked, result)| {
                let mut response = ReassignablePartitionResponse {
                    partition_index: asked.partition_index,
                    ..ReassignablePartitionResponse::default()
                };
                if let Err(refusal) = result {
                    response.error_code = refusal.code.code();
                    response.error_message = Some(refusal.message.into());
                }
                response
            }));
        }
        responses.push(ReassignableTopicResponse {
            name: topic.name.clone(),
            partitions: told,
            ..ReassignableTopicResponse::default()
        });
    }
    AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: may_change_factor,
        responses,
        ..AlterPartitionReassignmentsResponse::default()
    }
}

async fn reassign(
    handlers: &Handlers,
    topic: &str,
    asked: &ReassignablePartition,
    may_change_factor: bool,
) -> Result<(), Refusal> {
    let command = command(handlers, topic, asked, may_change_factor)?;
    let proposed = handlers.propose(MetadataCommand::ReassignPartition(command)).await;
    proposed.map(|_| ()).map_err(|failure| error::of_control(&failure))
}

fn command(
    handlers: &Handlers,
    topic: &str,
    asked: &ReassignablePartition,
    may_change_factor: bool,
) -> Result<ReassignPartition, Refusal> {
    let view = handlers.metadata.borrow();
    let index = asked.partition_index;
    let found = view.image().topic_named(topic).and_then(|topic| partitions::find(topic, index));
    let (key, partition) = found.ok_or_else(|| {
        let message = format!("there is no partition {index} of topic {topic:?}");
        Refusal::new(ErrorCode::UnknownTopicOrPartition, message)
    })?;
    let target = asked
        .replicas
        .as_ref()
        .map(|nodes| Assignment { replicas: nodes.iter().map(|node| NodeId(*node)).collect() });
    if let (Some(target), false) = (&target, may_change_factor) {
        // What a move under way comes to is the number that must stay.
        let now = partition.replicas.len() - partition.removing.len();
        if target.replicas.len() != now {
            let message = format!("{} replicas in the place of {now}", target.replicas.len());
            return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message));
        }
    }
    Ok(ReassignPartition { key, target })
}
