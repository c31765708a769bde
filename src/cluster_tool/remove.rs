//! Takes a node off: its partitions move to the others, then it leaves the group.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chronik_protocol::messages::alter_partition_reassignments_request::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use chronik_protocol::messages::metadata_response::MetadataResponse;
use chronik_protocol::messages::remove_raft_voter_request::RemoveRaftVoterRequest;

use super::client::Client;
use super::status::{cluster, quorum, topics};
use super::{ToolError, check};

/// How often it is looked at how far it has come.
const PAUSE: Duration = Duration::from_millis(200);

/// Takes node `id` off; answers with how many partitions were moved away.
pub(super) fn node(client: &mut Client, id: i32, timeout_s: u64) -> Result<usize, ToolError> {
    let deadline = Instant::now() + Duration::from_secs(timeout_s);
    let group = quorum(client)?;
    let mut members = group.current_voters.iter().chain(&group.observers);
    if !members.any(|member| member.replica_id == id) {
        return Err(ToolError::Impossible(format!("node {id} is not of the cluster")));
    }
    let mut moved = 0;
    // Topics that are created meanwhile may lie on the node again.
    loop {
        let moves = plan(client, id)?;
        if moves.is_empty() {
            break;
        }
        moved += moves.values().map(Vec::len).sum::<usize>();
        reassign(client, &moves)?;
        while !held_by(&topics(client)?, id).is_empty() {
            pause(deadline, "its partitions are still moving; ask again to go on waiting")?;
        }
    }
    let request = RemoveRaftVoterRequest {
        cluster_id: None,
        voter_id: id,
        ..RemoveRaftVoterRequest::default()
    };
    let response = client.call(0, &request)?;
    check(response.error_code, response.error_message.as_deref())?;
    loop {
        let is_registered = cluster(client)?.brokers.iter().any(|it| it.broker_id == id);
        // Where the controller itself goes, another one is found in between.
        let is_member = match quorum(client) {
            Ok(group) => {
                let mut members = group.current_voters.iter().chain(&group.observers);
                members.any(|member| member.replica_id == id)
            }
            Err(ToolError::Refused { .. }) => true,
            Err(error) => return Err(error),
        };
        if !is_registered && !is_member {
            return Ok(moved);
        }
        pause(deadline, "it is about to leave; ask for the status to see when it has")?;
    }
}

fn pause(deadline: Instant, what: &str) -> Result<(), ToolError> {
    if Instant::now() >= deadline {
        return Err(ToolError::Impossible(format!("the time is up: {what}")));
    }
    std::thread::sleep(PAUSE);
    Ok(())
}

type Moves = BTreeMap<String, Vec<(i32, Vec<i32>)>>;

/// Topic, partition and replicas of everything that the node holds.
fn held_by(metadata: &MetadataResponse, id: i32) -> Vec<(String, i32, Vec<i32>)> {
    let mut held = Vec::new();
    for topic in &metadata.topics {
        let name = topic.name.as_deref().unwrap_or_default();
        for partition in topic.partitions.iter().filter(|it| it.replica_nodes.contains(&id)) {
            held.push((
                name.to_owned(),
                partition.partition_index,
                partition.replica_nodes.clone(),
            ));
        }
    }
    held
}

/// For every partition on the node, another node in its place: the one that holds the fewest.
fn plan(client: &mut Client, id: i32) -> Result<Moves, ToolError> {
    let metadata = topics(client)?;
    // The answer has no fenced nodes: nothing is moved to them.
    let nodes = metadata.brokers.iter().map(|broker| broker.node_id).filter(|node| *node != id);
    let mut load: BTreeMap<i32, usize> = nodes.map(|node| (node, 0)).collect();
    for partition in metadata.topics.iter().flat_map(|topic| &topic.partitions) {
        for node in &partition.replica_nodes {
            if let Some(count) = load.get_mut(node) {
                *count += 1;
            }
        }
    }
    let mut moves = Moves::new();
    for (topic, partition, replicas) in held_by(&metadata, id) {
        let free = load.iter().filter(|(node, _)| !replicas.contains(node));
        let Some(heir) = free.min_by_key(|(_, count)| **count).map(|(node, _)| *node) else {
            return Err(ToolError::Impossible(format!(
                "partition {partition} of {topic} has {} replicas, and {} other nodes are there: add a \
                 node before, or reassign the topic to fewer",
                replicas.len(),
                load.len()
            )));
        };
        *load.entry(heir).or_default() += 1;
        let target = replicas.iter().map(|node| if *node == id { heir } else { *node }).collect();
        moves.entry(topic).or_default().push((partition, target));
    }
    Ok(moves)
}

fn reassign(client: &mut Client, moves: &Moves) -> Result<(), ToolError> {
    let topic = |(name, partitions): (&String, &Vec<(i32, Vec<i32>)>)| ReassignableTopic {
        name: name.as_str().into(),
        partitions: partitions
            .iter()
            .map(|(index, replicas)| ReassignablePartition {
                partition_index: *index,
                replicas: Some(replicas.clone()),
                ..ReassignablePartition::default()
            })
            .collect(),
        ..ReassignableTopic::default()
    };
    let request = AlterPartitionReassignmentsRequest {
        topics: moves.iter().map(topic).collect(),
        ..AlterPartitionReassignmentsRequest::default()
    };
    let response = client.call(0, &request)?;
    check(response.error_code, response.error_message.as_deref())?;
    for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
        check(partition.error_code, partition.error_message.as_deref())?;
    }
    Ok(())
}
