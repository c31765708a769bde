//! AddRaftVoter and RemoveRaftVoter: nodes come to the cluster and go from it. Source: KIP-853.
//!
//! Here every node is of the Raft group. So a node that is added is one that may come: it learns, and votes
//! as soon as there is a vote to be had. And one that is removed is off the cluster: it must hold no
//! replica, and its process ends. Both are answered when the cluster has agreed on it; DescribeQuorum
//! shows how far it has come.

use std::rc::Rc;
use std::time::Duration;

use chronik_protocol::messages::add_raft_voter_request::AddRaftVoterRequest;
use chronik_protocol::messages::add_raft_voter_response::AddRaftVoterResponse;
use chronik_protocol::messages::remove_raft_voter_request::RemoveRaftVoterRequest;
use chronik_protocol::messages::remove_raft_voter_response::RemoveRaftVoterResponse;
use chronik_protocol::{ErrorCode, KafkaString};
use chronik_shards::format::metadata_command::{
    BrokerEndpoint, JoinNode, MetadataCommand, NodeNamed,
};
use chronik_shards::model::NodeId;

use super::error::Refusal;
use super::{Handlers, error};
use crate::control::{MemberState, QuorumState};

/// How long the other voters may take to be heard of: it is many heartbeats. Who was killed a moment before the
/// request is not heard of any more.
const HEARD_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two looks at who was heard of.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// Answers an AddRaftVoter request.
pub async fn add(handlers: &Rc<Handlers>, request: &AddRaftVoterRequest) -> AddRaftVoterResponse {
    let (error_code, error_message) = told(add_one(handlers, request).await);
    AddRaftVoterResponse { error_code, error_message, ..AddRaftVoterResponse::default() }
}

/// Answers a RemoveRaftVoter request.
pub async fn remove(
    handlers: &Rc<Handlers>,
    request: &RemoveRaftVoterRequest,
) -> RemoveRaftVoterResponse {
    let (error_code, error_message) = told(remove_one(handlers, request).await);
    RemoveRaftVoterResponse { error_code, error_message, ..RemoveRaftVoterResponse::default() }
}

fn told(result: Result<(), Refusal>) -> (i16, Option<KafkaString>) {
    match result {
        Ok(()) => (ErrorCode::None.code(), None),
        Err(refusal) => (refusal.code.code(), Some(refusal.message.into())),
    }
}

async fn add_one(handlers: &Handlers, request: &AddRaftVoterRequest) -> Result<(), Refusal> {
    check_cluster(handlers, request.cluster_id.as_deref())?;
    let [listener] = &request.listeners[..] else {
        let message = "one listener is due: where the node's control plane listens";
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    };
    if request.voter_id < 0 || listener.host.is_empty() || listener.port == 0 {
        let message = "a node id from 0, a host and a port are due";
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let state = quorum(handlers).await?;
    let node_id = NodeId(request.voter_id);
    let is_coming = {
        let view = handlers.metadata.borrow();
        view.image().joining().any(|joining| joining.node_id == node_id)
    };
    // Where a node that has not come yet is to be found may still be put right.
    if !is_coming && state.members.iter().any(|member| member.node_id == node_id) {
        let message = format!("node {node_id} is of the cluster already");
        return Err(Refusal::new(ErrorCode::DuplicateVoter, message));
    }
    if handlers.metadata.borrow().image().cluster_id().is_none() {
        let message = "this node is alone: only a cluster that was formed of several can grow";
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let control = BrokerEndpoint { host: listener.host.to_string(), port: listener.port };
    let directory_id = request.voter_directory_id.0;
    let join = JoinNode { node_id, control, directory_id };
    let proposed = handlers.propose(MetadataCommand::JoinNode(join)).await;
    proposed.map(|_| ()).map_err(|failure| error::of_control(&failure))
}

async fn remove_one(handlers: &Handlers, request: &RemoveRaftVoterRequest) -> Result<(), Refusal> {
    check_cluster(handlers, request.cluster_id.as_deref())?;
    let state = quorum(handlers).await?;
    let node_id = NodeId(request.voter_id);
    let directory_id = {
        let view = handlers.metadata.borrow();
        view.image().broker(node_id).map(|broker| broker.directory_id)
    };
    let is_meant = [[0; 16], directory_id.unwrap_or_default()];
    let is_member = state.members.iter().any(|member| member.node_id == node_id);
    if !is_member || !is_meant.contains(&request.voter_directory_id.0) {
        let message = format!("node {node_id} is not of the cluster with that directory");
        return Err(Refusal::new(ErrorCode::VoterNotFound, message));
    }
    await_rest(handlers, node_id).await?;
    let proposed = handlers.propose(MetadataCommand::LeaveNode(NodeNamed { node_id })).await;
    proposed.map(|_| ()).map_err(|failure| error::of_control(&failure))
}

/// Waits until a majority of the voters that are left without `gone` was heard of after this began. Whoever has
/// ended a moment ago is not; before, it would still seem to be there.
async fn await_rest(handlers: &Handlers, gone: NodeId) -> Result<(), Refusal> {
    let patience_ms = u64::try_from(HEARD_PATIENCE.as_millis()).unwrap_or(u64::MAX);
    let begun = handlers.now().monotonic;
    loop {
        // As the leader answers later than it is asked, what it heard within this time came since.
        let since_ms = handlers.now().monotonic.since(begun) / 1000;
        let state = quorum(handlers).await?;
        let fenced: Vec<NodeId> = {
            let view = handlers.metadata.borrow();
            let fenced = view.image().brokers().filter(|(_, broker)| broker.fenced);
            fenced.map(|(node, _)| node).collect()
        };
        // It is pointless to wait for who is silent for long already.
        check_rest(&state, gone, &fenced, patience_ms)?;
        match check_rest(&state, gone, &fenced, since_ms) {
            Ok(()) => return Ok(()),
            Err(refusal) if since_ms >= patience_ms => return Err(refusal),
            Err(_) => glommio::timer::sleep(LOOK_PAUSE).await,
        }
    }
}

/// Whether a majority of the voters is there when `gone` is none of them any more: not fenced, and heard of within
/// `silence_ms`.
fn check_rest(
    state: &QuorumState,
    gone: NodeId,
    fenced: &[NodeId],
    silence_ms: u64,
) -> Result<(), Refusal> {
    let rest = || state.members.iter().filter(|member| member.node_id != gone);
    if rest().count() < 2 {
        let message = "two nodes are the fewest of a cluster";
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let is_there = |member: &&MemberState| {
        let is_heard = member.heard_ms.is_some_and(|ms| ms < silence_ms);
        is_heard && !fenced.contains(&member.node_id)
    };
    let voters = rest().filter(|member| member.is_voter);
    let (count, there) = (voters.clone().count(), voters.filter(is_there).count());
    if 2 * there <= count {
        let message = format!(
            "the cluster would lose its majority: of the {count} voters that are left, {there} are there"
        );
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    Ok(())
}

fn check_cluster(handlers: &Handlers, named: Option<&str>) -> Result<(), Refusal> {
    match named {
        Some(id) if *id != *handlers.cluster_id => {
            let message = format!("this is cluster {}", &*handlers.cluster_id);
            Err(Refusal::new(ErrorCode::InconsistentClusterId, message))
        }
        _ => Ok(()),
    }
}

async fn quorum(handlers: &Handlers) -> Result<QuorumState, Refusal> {
    handlers.quorum().await.map_err(|failure| error::of_control(&failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(voters: &[Option<u64>]) -> QuorumState {
        let member = |(node, heard_ms): (i32, &Option<u64>)| MemberState {
            node_id: NodeId(node),
            is_voter: true,
            last_index: 1,
            heard_ms: *heard_ms,
            caught_up_ms: None,
        };
        let members = (1..).zip(voters).map(member).collect();
        QuorumState { leader: NodeId(1), term: 1, committed: 1, members }
    }

    #[test]
    fn a_node_goes_only_if_a_majority_of_the_rest_is_there() {
        let may_go = |voters: &[Option<u64>], node| {
            check_rest(&state(voters), NodeId(node), &[], 100).is_ok()
        };
        let (here, gone) = (Some(99), Some(100));
        assert!(may_go(&[here, here, here], 3));
        assert!(may_go(&[here, here, gone], 3), "the one that is not there");
        assert!(!may_go(&[here, here, gone], 2), "one of two would be left");
        assert!(!may_go(&[here, here, None], 2));
        assert!(may_go(&[here, here, here, gone], 2));
        assert!(!may_go(&[here, here], 2), "one node is no cluster");
        let fenced = [NodeId(2)];
        assert!(check_rest(&state(&[here, here, here]), NodeId(3), &fenced, 100).is_err());
    }
}
