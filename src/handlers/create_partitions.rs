//! CreatePartitions: a topic grows; it never shrinks. Source: KIP-195.

use std::collections::HashSet;
use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::create_partitions_request::{
    CreatePartitionsRequest, CreatePartitionsTopic,
};
use chronik_protocol::messages::create_partitions_response::{
    CreatePartitionsResponse, CreatePartitionsTopicResult,
};
use chronik_shards::format::metadata_command::{Assignment, CreatePartitions, MetadataCommand};
use chronik_shards::machine::metadata::TOPIC_PARTITIONS_MAX;
use chronik_shards::model::NodeId;

use super::create_topics::check_assignment;
use super::error::Refusal;
use super::{Handlers, error, repeats};
use crate::metadata_view::MetadataView;

/// Answers a CreatePartitions request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut results = Vec::with_capacity(request.topics.len());
    let repeated = repeats::of(request.topics.iter().map(|topic| &*topic.name));
    let mut seen = HashSet::new();
    for topic in &request.topics {
        // A topic that is named more than once is refused once.
        if !seen.insert(&*topic.name) {
            continue;
        }
        let result = if repeated.contains(&*topic.name) {
            Err(Refusal::new(ErrorCode::InvalidRequest, "the topic is named more than once"))
        } else {
            grow(handlers, topic, request.validate_only).await
        };
        let mut told = CreatePartitionsTopicResult {
            name: topic.name.clone(),
            ..CreatePartitionsTopicResult::default()
        };
        if let Err(refusal) = result {
            told.error_code = refusal.code.code();
            told.error_message = Some(refusal.message.into());
        }
        results.push(told);
    }
    if results.iter().any(|topic| topic.error_code == ErrorCode::None.code())
        && !request.validate_only
    {
        handlers.spread(request.timeout_ms).await;
    }
    CreatePartitionsResponse { results, ..CreatePartitionsResponse::default() }
}

async fn grow(
    handlers: &Handlers,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    let command = command(&handlers.metadata.borrow(), topic)?;
    if validate_only {
        return Ok(());
    }
    let proposed = handlers.propose(MetadataCommand::CreatePartitions(command)).await;
    proposed.map(|_| ()).map_err(|error| error::of_control(&error))
}

fn command(
    view: &MetadataView,
    topic: &CreatePartitionsTopic,
) -> Result<CreatePartitions, Refusal> {
    let Some(found) = view.image().topic_named(&topic.name) else {
        return Err(Refusal::new(ErrorCode::UnknownTopicOrPartition, "there is no such topic"));
    };
    let existing = found.partitions.len();
    let wanted = usize::try_from(topic.count).unwrap_or(0);
    if wanted <= existing || wanted > TOPIC_PARTITIONS_MAX {
        let message = format!(
            "the topic has {existing} partitions and may grow to {TOPIC_PARTITIONS_MAX}, not to {}",
            topic.count
        );
        return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
    }
    let factor = found.partitions.first().map_or(1, |partition| partition.replicas.len());
    let partitions: Vec<Assignment> = match &topic.assignments {
        Some(assignments) => {
            if assignments.len() != wanted - existing {
                let message = format!(
                    "{} assignments for {} new partitions",
                    assignments.len(),
                    wanted - existing
                );
                return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
            }
            let nodes = |ids: &[i32]| ids.iter().map(|id| NodeId(*id)).collect();
            assignments
                .iter()
                .map(|assignment| Assignment { replicas: nodes(&assignment.broker_ids) })
                .collect()
        }
        // The round robin goes on where the existing partitions left it.
        None => view.image().assign(existing, wanted - existing, factor).map_err(|error| {
            Refusal::new(ErrorCode::InvalidReplicationFactor, error.to_string())
        })?,
    };
    check_assignment(view, &partitions, factor)?;
    let existing = u32::try_from(existing).expect("bounded by TOPIC_PARTITIONS_MAX");
    Ok(CreatePartitions { topic_id: found.id, existing, partitions })
}
