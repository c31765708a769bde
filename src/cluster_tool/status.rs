//! How a cluster stands, for people and for programs.

use std::fmt;

use chronik_protocol::messages::describe_cluster_request::DescribeClusterRequest;
use chronik_protocol::messages::describe_cluster_response::{
    DescribeClusterBroker, DescribeClusterResponse,
};
use chronik_protocol::messages::describe_quorum_request::{
    DescribeQuorumRequest, PartitionData as AskedPartition, TopicData,
};
use chronik_protocol::messages::describe_quorum_response::PartitionData;
use chronik_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsRequest;
use chronik_protocol::messages::metadata_request::MetadataRequest;
use chronik_protocol::messages::metadata_response::MetadataResponse;
use serde_json::{Value, json};

use super::client::Client;
use super::{ToolError, check};

/// How a cluster stands.
pub(super) struct Status {
    cluster_id: String,
    controller_id: i32,
    term: i32,
    committed: i64,
    nodes: Vec<NodeStatus>,
    topics: usize,
    partitions: usize,
    without_leader: usize,
    under_replicated: usize,
    moving: usize,
}

struct NodeStatus {
    id: i32,
    /// Of a node that has registered.
    broker: Option<DescribeClusterBroker>,
    /// Whether it votes, and through which offset it has the metadata; of a node in the group.
    member: Option<(bool, i64)>,
}

/// Asks for everything.
pub(super) fn of(client: &mut Client) -> Result<Status, ToolError> {
    let cluster = cluster(client)?;
    let quorum = quorum(client)?;
    let metadata = topics(client)?;
    let moves = client.call(0, &ListPartitionReassignmentsRequest::default())?;
    check(moves.error_code, moves.error_message.as_deref())?;
    let voters = quorum.current_voters.iter().map(|it| (it.replica_id, (true, it.log_end_offset)));
    let learners = quorum.observers.iter().map(|it| (it.replica_id, (false, it.log_end_offset)));
    let members: Vec<(i32, (bool, i64))> = voters.chain(learners).collect();
    let brokers = cluster.brokers.iter().map(|broker| broker.broker_id);
    let mut ids: Vec<i32> = brokers.chain(members.iter().map(|(id, _)| *id)).collect();
    ids.sort_unstable();
    ids.dedup();
    let node = |id: i32| NodeStatus {
        id,
        broker: cluster.brokers.iter().find(|broker| broker.broker_id == id).cloned(),
        member: members.iter().find(|(member, _)| *member == id).map(|(_, state)| *state),
    };
    let partitions = || metadata.topics.iter().flat_map(|topic| &topic.partitions);
    Ok(Status {
        cluster_id: cluster.cluster_id.to_string(),
        controller_id: quorum.leader_id,
        term: quorum.leader_epoch,
        committed: quorum.high_watermark,
        nodes: ids.into_iter().map(node).collect(),
        topics: metadata.topics.len(),
        partitions: partitions().count(),
        without_leader: partitions().filter(|it| it.leader_id < 0).count(),
        under_replicated: partitions()
            .filter(|it| it.isr_nodes.len() < it.replica_nodes.len())
            .count(),
        moving: moves.topics.iter().map(|topic| topic.partitions.len()).sum(),
    })
}

/// All nodes that have registered, fenced ones among them.
pub(super) fn cluster(client: &mut Client) -> Result<DescribeClusterResponse, ToolError> {
    let request = DescribeClusterRequest {
        endpoint_type: 1,
        include_fenced_brokers: true,
        ..DescribeClusterRequest::default()
    };
    let response = client.call(2, &request)?;
    check(response.error_code, response.error_message.as_deref())?;
    Ok(response)
}

/// The Raft group.
pub(super) fn quorum(client: &mut Client) -> Result<PartitionData, ToolError> {
    let log = TopicData {
        topic_name: "__cluster_metadata".into(),
        partitions: vec![AskedPartition::default()],
        ..TopicData::default()
    };
    let request = DescribeQuorumRequest { topics: vec![log], ..DescribeQuorumRequest::default() };
    let mut response = client.call(2, &request)?;
    check(response.error_code, response.error_message.as_deref())?;
    let partition = response.topics.pop().and_then(|mut topic| topic.partitions.pop());
    let partition = partition
        .ok_or_else(|| ToolError::Impossible("the answer says nothing of the group".to_owned()))?;
    check(partition.error_code, partition.error_message.as_deref())?;
    Ok(partition)
}

/// All topics.
pub(super) fn topics(client: &mut Client) -> Result<MetadataResponse, ToolError> {
    client.call(12, &MetadataRequest { topics: None, ..MetadataRequest::default() })
}

impl NodeStatus {
    fn state(&self) -> &'static str {
        match &self.broker {
            None => "coming",
            Some(broker) if broker.is_fenced => "fenced",
            Some(_) => "serving",
        }
    }

    fn role(&self) -> &'static str {
        match self.member {
            Some((true, _)) => "voter",
            Some((false, _)) => "learner",
            None => "none",
        }
    }
}

impl Status {
    pub(super) fn to_json(&self) -> Value {
        let node = |node: &NodeStatus| {
            json!({
                "id": node.id,
                "state": node.state(),
                "host": node.broker.as_ref().map(|broker| broker.host.to_string()),
                "port": node.broker.as_ref().map(|broker| broker.port),
                "rack": node.broker.as_ref().and_then(|it| it.rack.as_ref()).map(ToString::to_string),
                "role": node.role(),
                "log_end_offset": node.member.map(|(_, end)| end),
            })
        };
        json!({
            "cluster_id": self.cluster_id,
            "controller": self.controller_id,
            "term": self.term,
            "high_watermark": self.committed,
            "nodes": self.nodes.iter().map(node).collect::<Vec<_>>(),
            "topics": self.topics,
            "partitions": self.partitions,
            "partitions_without_leader": self.without_leader,
            "partitions_under_replicated": self.under_replicated,
            "partitions_moving": self.moving,
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "cluster {}", self.cluster_id)?;
        writeln!(
            f,
            "controller {} in term {}, metadata through {}",
            self.controller_id, self.term, self.committed
        )?;
        for node in &self.nodes {
            let address = match &node.broker {
                Some(broker) => format!("{}:{}", &*broker.host, broker.port),
                None => "not registered".to_owned(),
            };
            let rack = node.broker.as_ref().and_then(|broker| broker.rack.as_deref());
            let rack = rack.map_or_else(String::new, |rack| format!(", rack {rack}"));
            let end = node.member.map_or_else(String::new, |(_, end)| format!(" through {end}"));
            let (id, state, role) = (node.id, node.state(), node.role());
            writeln!(f, "node {id}: {state}, {address}{rack}, {role}{end}")?;
        }
        writeln!(
            f,
            "{} topics, {} partitions: {} without a leader, {} under-replicated, {} moving",
            self.topics, self.partitions, self.without_leader, self.under_replicated, self.moving
        )
    }
}
