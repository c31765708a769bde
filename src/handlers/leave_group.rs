//! LeaveGroup: members of a classic group leave, or are removed. Source: KIP-345, KIP-571.

use std::rc::Rc;

use chronik_protocol::KafkaString;
use chronik_protocol::messages::leave_group_request::LeaveGroupRequest;
use chronik_protocol::messages::leave_group_response::{LeaveGroupResponse, MemberResponse};
use chronik_shards::machine::group::{GroupRequest, GroupResponse, LeaveGroup, LeftMember};

use super::{Handlers, groups};

/// Answers a LeaveGroup request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    let members = match version {
        ..3 => vec![(request.member_id.to_string(), None)],
        _ => {
            let named = request.members.into_iter();
            let instance = |id: KafkaString| id.to_string();
            named.map(|it| (it.member_id.to_string(), it.group_instance_id.map(instance))).collect()
        }
    };
    let asked = LeaveGroup { group_id: request.group_id.to_string(), members };
    match groups::ask(handlers, &request.group_id, GroupRequest::Leave(asked)).await {
        // Older versions have one member, whose outcome is that of the request.
        GroupResponse::Leave(Ok(left)) if version < 3 => LeaveGroupResponse {
            error_code: left.first().map_or(0, |member| groups::wire_code(&member.outcome)),
            ..LeaveGroupResponse::default()
        },
        GroupResponse::Leave(Ok(left)) => LeaveGroupResponse {
            members: left.into_iter().map(told).collect(),
            ..LeaveGroupResponse::default()
        },
        GroupResponse::Leave(Err(error)) => LeaveGroupResponse {
            error_code: groups::code(&error).code(),
            ..LeaveGroupResponse::default()
        },
        other => unreachable!("a leave is answered with {other:?}"),
    }
}

fn told(member: LeftMember) -> MemberResponse {
    MemberResponse {
        error_code: groups::wire_code(&member.outcome),
        member_id: member.member_id.into(),
        group_instance_id: member.instance_id.map(KafkaString::from),
        ..MemberResponse::default()
    }
}
