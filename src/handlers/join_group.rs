//! JoinGroup: a member of a classic group joins, and is answered when the others have. Source: KIP-62, KIP-345,
//! KIP-394, KIP-814.

use std::rc::Rc;

use chronik_protocol::KafkaString;
use chronik_protocol::messages::join_group_request::JoinGroupRequest;
use chronik_protocol::messages::join_group_response::{JoinGroupResponse, JoinGroupResponseMember};
use chronik_shards::machine::group::{
    Client, GroupError, GroupRequest, GroupResponse, JoinGroup, Joined,
};

use super::{Handlers, groups};

/// Answers a JoinGroup request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    client: Client,
    request: JoinGroupRequest,
    version: i16,
) -> JoinGroupResponse {
    let group_id = request.group_id.to_string();
    let rebalance_timeout_ms = match version {
        0 => request.session_timeout_ms,
        _ => request.rebalance_timeout_ms,
    };
    let protocols = request.protocols.into_iter();
    let asked = JoinGroup {
        group_id: group_id.clone(),
        client,
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.map(|it| (it.name.to_string(), it.metadata)).collect(),
        fresh_id: handlers.fresh_bytes(),
        knows_member_id_required: version >= 4,
        knows_skip_assignment: version >= 9,
    };
    match groups::ask(handlers, &group_id, GroupRequest::Join(asked)).await {
        GroupResponse::Join(Ok(joined)) => told(joined, version),
        GroupResponse::Join(Err(error)) => refused(&error, request.member_id, version),
        other => unreachable!("a join is answered with {other:?}"),
    }
}

fn told(joined: Joined, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| JoinGroupResponseMember {
        member_id: member.member_id.into(),
        group_instance_id: member.instance_id.map(KafkaString::from),
        metadata: member.metadata,
        ..JoinGroupResponseMember::default()
    });
    JoinGroupResponse {
        generation_id: joined.generation,
        protocol_type: joined.protocol_type.map(KafkaString::from),
        protocol_name: named(joined.protocol, version),
        leader: joined.leader.into(),
        skip_assignment: joined.skip_assignment,
        member_id: joined.member_id.into(),
        members: members.collect(),
        ..JoinGroupResponse::default()
    }
}

fn refused(error: &GroupError, member_id: KafkaString, version: i16) -> JoinGroupResponse {
    let member_id = match error {
        GroupError::MemberIdRequired { member_id } => KafkaString::from(member_id.as_str()),
        _ => member_id,
    };
    JoinGroupResponse {
        error_code: groups::code(error).code(),
        generation_id: -1,
        protocol_name: named(None, version),
        member_id,
        ..JoinGroupResponse::default()
    }
}

/// Before version 7 a name cannot be null.
fn named(protocol: Option<String>, version: i16) -> Option<KafkaString> {
    let named = protocol.map(KafkaString::from);
    if version >= 7 { named } else { Some(named.unwrap_or_default()) }
}
