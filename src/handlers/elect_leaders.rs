//! ElectLeaders: preferred leaders, or any where there is none. Source: KIP-183, KIP-460.

use std::collections::BTreeMap;
use std::rc::Rc;

use chronik_protocol::messages::elect_leaders_request::ElectLeadersRequest;
use chronik_protocol::messages::elect_leaders_response::{
    ElectLeadersResponse, PartitionResult, ReplicaElectionResult,
};
use chronik_protocol::{ErrorCode, KafkaString};
use chronik_shards::format::metadata_command::{
    ElectLeaders, Election, LedPartition, MetadataCommand,
};
use chronik_shards::machine::controller::ELECTION_PARTITIONS_MAX;
use chronik_shards::machine::metadata::{ApplyOutcome, Partition, Topic};
use chronik_shards::model::ReplicaKey;

use super::error::Refusal;
use super::{Handlers, error, partitions};
use crate::metadata_view::MetadataView;

/// Wire number: the first replica shall lead.
const PREFERRED: i8 = 0;
/// Wire number: any replica shall lead where none does.
const UNCLEAN: i8 = 1;

/// What becomes of a partition: an answer already, or an election.
type Step = Result<LedPartition, Refusal>;

/// Answers an ElectLeaders request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: ElectLeadersRequest,
    version: i16,
) -> ElectLeadersResponse {
    let election = match request.election_type {
        // Version 0 knows no other.
        _ if version == 0 => Election::Preferred,
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        _ => return unknown_kind(&request),
    };
    let steps = steps(&handlers.metadata.borrow(), &request, election);
    let due: Vec<LedPartition> =
        steps.iter().filter_map(|(_, _, step)| step.as_ref().ok().copied()).collect();
    let mut elected = Vec::new();
    for partitions in due.chunks(ELECTION_PARTITIONS_MAX) {
        let command = ElectLeaders { election, partitions: partitions.to_vec() };
        match handlers.propose(MetadataCommand::ElectLeaders(command)).await {
            Ok(ApplyOutcome::LeadersElected { elected: now }) => elected.extend(now),
            Ok(other) => unreachable!("an election is answered with leaders, not {other:?}"),
            Err(failure) => {
                let error_code = error::of_control(&failure).code.code();
                return ElectLeadersResponse { error_code, ..ElectLeadersResponse::default() };
            }
        }
    }
    elected.sort_unstable();
    let mut by_topic: BTreeMap<KafkaString, Vec<PartitionResult>> = match &request.topic_partitions
    {
        Some(asked) => asked.iter().map(|topic| (topic.topic.clone(), Vec::new())).collect(),
        None => BTreeMap::new(),
    };
    for (topic, partition_id, step) in steps {
        let refusal = match step {
            Err(refusal) => Some(refusal),
            Ok(led) if elected.binary_search(&led.key).is_ok() => None,
            Ok(_) => Some(not_eligible(election)),
        };
        let results = by_topic.entry(topic).or_default();
        // Who asks for all partitions is told of those alone that an election could be about.
        let not_needed = refusal.as_ref().is_some_and(|it| it.code == ErrorCode::ElectionNotNeeded);
        if request.topic_partitions.is_none() && not_needed {
            continue;
        }
        let mut result = PartitionResult { partition_id, ..PartitionResult::default() };
        if let Some(refusal) = refusal {
            result.error_code = refusal.code.code();
            result.error_message = Some(refusal.message.into());
        }
        results.push(result);
    }
    ElectLeadersResponse {
        replica_election_results: by_topic.into_iter().map(told).collect(),
        ..ElectLeadersResponse::default()
    }
}

/// A kind of election that there is not is refused for every partition, and where none is named there is nothing
/// to refuse.
fn unknown_kind(request: &ElectLeadersRequest) -> ElectLeadersResponse {
    let code = match &request.topic_partitions {
        Some(asked) if asked.is_empty() => ErrorCode::None,
        Some(_) | None => ErrorCode::InvalidRequest,
    };
    let refused = |partition_id: &i32| PartitionResult {
        partition_id: *partition_id,
        error_code: code.code(),
        ..PartitionResult::default()
    };
    let asked = request.topic_partitions.iter().flatten();
    let topics = asked
        .map(|topic| told((topic.topic.clone(), topic.partitions.iter().map(refused).collect())));
    ElectLeadersResponse {
        error_code: code.code(),
        replica_election_results: topics.collect(),
        ..ElectLeadersResponse::default()
    }
}

fn told((topic, partition_result): (KafkaString, Vec<PartitionResult>)) -> ReplicaElectionResult {
    ReplicaElectionResult { topic, partition_result, ..ReplicaElectionResult::default() }
}

fn steps(
    view: &MetadataView,
    request: &ElectLeadersRequest,
    election: Election,
) -> Vec<(KafkaString, i32, Step)> {
    let image = view.image();
    let Some(asked) = &request.topic_partitions else {
        let of = |topic: &Topic| {
            let name = KafkaString::from(topic.name.as_str());
            let step = |(key, partition): (ReplicaKey, &Partition)| {
                (name.clone(), key.partition.get(), step(view, key, partition, election))
            };
            topic.replicas().map(step).collect::<Vec<_>>()
        };
        return image.topics().flat_map(of).collect();
    };
    let mut steps = Vec::new();
    for topic in asked {
        for index in &topic.partitions {
            let found = image.topic_named(&topic.topic);
            let step = match found.and_then(|topic| partitions::find(topic, *index)) {
                Some((key, partition)) => step(view, key, partition, election),
                None => Err(Refusal::new(
                    ErrorCode::UnknownTopicOrPartition,
                    format!("there is no partition {index} of topic {:?}", &*topic.topic),
                )),
            };
            steps.push((topic.topic.clone(), *index, step));
        }
    }
    steps
}

fn step(view: &MetadataView, key: ReplicaKey, partition: &Partition, election: Election) -> Step {
    let is_needed = match election {
        Election::Preferred => partition.leader != partition.replicas.first().copied(),
        Election::Unclean => partition.leader.is_none(),
    };
    if !is_needed {
        let message = "the partition is led as it should be";
        return Err(Refusal::new(ErrorCode::ElectionNotNeeded, message));
    }
    if !view.image().may_elect(key, election) {
        return Err(not_eligible(election));
    }
    Ok(LedPartition { key, leader_epoch: partition.leader_epoch })
}

fn not_eligible(election: Election) -> Refusal {
    match election {
        Election::Preferred => Refusal::new(
            ErrorCode::PreferredLeaderNotAvailable,
            "the preferred replica is not in sync, or its node is not there",
        ),
        Election::Unclean => Refusal::new(
            ErrorCode::EligibleLeadersNotAvailable,
            "no node that holds the partition is there",
        ),
    }
}
