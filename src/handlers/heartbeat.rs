//! Heartbeat: a member of a classic group is there.

use std::rc::Rc;

use chronik_protocol::messages::heartbeat_request::HeartbeatRequest;
use chronik_protocol::messages::heartbeat_response::HeartbeatResponse;
use chronik_shards::machine::group::{GroupRequest, GroupResponse, Heartbeat};

use super::{Handlers, groups};

/// Answers a Heartbeat request.
pub async fn handle(handlers: &Rc<Handlers>, request: HeartbeatRequest) -> HeartbeatResponse {
    let asked = Heartbeat {
        group_id: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
    };
    match groups::ask(handlers, &request.group_id, GroupRequest::Heartbeat(asked)).await {
        GroupResponse::Heartbeat(outcome) => HeartbeatResponse {
            error_code: groups::wire_code(&outcome),
            ..HeartbeatResponse::default()
        },
        other => unreachable!("a heartbeat is answered with {other:?}"),
    }
}
