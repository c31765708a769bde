//! SyncGroup: a member of a classic group gets its part when the leader has brought it. Source: KIP-62, KIP-345, KIP-559.

use std::rc::Rc;

use chronik_protocol::KafkaString;
use chronik_protocol::messages::sync_group_request::SyncGroupRequest;
use chronik_protocol::messages::sync_group_response::SyncGroupResponse;
use chronik_shards::machine::group::{GroupRequest, GroupResponse, SyncGroup};

use super::{Handlers, groups};

/// Answers a SyncGroup request.
pub async fn handle(handlers: &Rc<Handlers>, request: SyncGroupRequest) -> SyncGroupResponse {
    let group_id = request.group_id.to_string();
    let assignments = request.assignments.into_iter();
    let asked = SyncGroup {
        group_id: group_id.clone(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        protocol_type: request.protocol_type.map(|name| name.to_string()),
        protocol: request.protocol_name.map(|name| name.to_string()),
        assignments: assignments.map(|it| (it.member_id.to_string(), it.assignment)).collect(),
    };
    match groups::ask(handlers, &group_id, GroupRequest::Sync(asked)).await {
        GroupResponse::Sync(Ok(synced)) => SyncGroupResponse {
            protocol_type: synced.protocol_type.map(KafkaString::from),
            protocol_name: synced.protocol.map(KafkaString::from),
            assignment: synced.assignment,
            ..SyncGroupResponse::default()
        },
        GroupResponse::Sync(Err(error)) => SyncGroupResponse {
            error_code: groups::code(&error).code(),
            ..SyncGroupResponse::default()
        },
        other => unreachable!("a sync is answered with {other:?}"),
    }
}
