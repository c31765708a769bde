//! DescribeGroups: what classic groups are like. Source: KIP-345; since KIP-1043 a group that is not there is an error.

use std::rc::Rc;

use chronik_protocol::KafkaString;
use chronik_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use chronik_protocol::messages::describe_groups_response::{
    DescribeGroupsResponse, DescribedGroup, DescribedGroupMember,
};
use chronik_shards::machine::group::{
    DescribedGroup as Found, DescribedMember, GroupError, GroupRequest, GroupResponse,
};

use super::{Handlers, groups};

/// The state of a group that is not there.
const DEAD: &str = "Dead";

/// Answers a DescribeGroups request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let group_ids = request.groups.iter().map(ToString::to_string).collect();
    let lines = |response| match response {
        GroupResponse::DescribeGroups(lines) => lines,
        other => unreachable!("a description of groups is answered with {other:?}"),
    };
    let described =
        groups::ask_each(handlers, group_ids, GroupRequest::DescribeGroups, lines).await;
    let groups = described.into_iter().map(|(group_id, found)| {
        let mut group = match found {
            Ok(found) => told(found),
            Err(error) => refused(&error, version),
        };
        group.group_id = group_id.into();
        if request.include_authorized_operations && group.error_code == 0 {
            group.authorized_operations = groups::GROUP_OPERATIONS;
        }
        group
    });
    DescribeGroupsResponse { groups: groups.collect(), ..DescribeGroupsResponse::default() }
}

fn told(found: Found) -> DescribedGroup {
    let member = |member: DescribedMember| DescribedGroupMember {
        member_id: member.member_id.into(),
        group_instance_id: member.instance_id.map(KafkaString::from),
        client_id: member.client_id.into(),
        client_host: member.client_host.into(),
        member_metadata: member.metadata,
        member_assignment: member.assignment,
        ..DescribedGroupMember::default()
    };
    DescribedGroup {
        group_state: KafkaString::from_static(found.state),
        protocol_type: found.protocol_type.into(),
        protocol_data: found.protocol.into(),
        members: found.members.into_iter().map(member).collect(),
        ..DescribedGroup::default()
    }
}

fn refused(error: &GroupError, version: i16) -> DescribedGroup {
    match error {
        // Older clients know a group that is not there by its state.
        GroupError::GroupIdNotFound(_) if version < 6 => DescribedGroup {
            group_state: KafkaString::from_static(DEAD),
            ..DescribedGroup::default()
        },
        GroupError::GroupIdNotFound(_) => DescribedGroup {
            error_code: groups::code(error).code(),
            error_message: Some(error.to_string().into()),
            group_state: KafkaString::from_static(DEAD),
            ..DescribedGroup::default()
        },
        other => DescribedGroup {
            error_code: groups::code(other).code(),
            error_message: (version >= 6).then(|| other.to_string().into()),
            ..DescribedGroup::default()
        },
    }
}
