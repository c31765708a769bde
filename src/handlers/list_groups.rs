//! ListGroups: the groups that this node coordinates. Source: KIP-518 (states), KIP-848 (types).

use std::rc::Rc;

use chronik_protocol::KafkaString;
use chronik_protocol::messages::list_groups_request::ListGroupsRequest;
use chronik_protocol::messages::list_groups_response::{ListGroupsResponse, ListedGroup};
use chronik_shards::machine::group::{GroupError, GroupRequest, GroupResponse, ListGroups};

use super::{Handlers, concurrent, groups};

/// Answers a ListGroups request. While a coordinator loads nobody can tell all of them.
pub async fn handle(handlers: &Rc<Handlers>, request: ListGroupsRequest) -> ListGroupsResponse {
    let words = |filter: &[KafkaString]| filter.iter().map(ToString::to_string).collect();
    let asked =
        ListGroups { states: words(&request.states_filter), types: words(&request.types_filter) };
    let keys = groups::led_here(&handlers.metadata.borrow());
    let answers = keys
        .into_iter()
        .map(|key| groups::ask_partition(handlers, key, GroupRequest::ListGroups(asked.clone())));
    let mut listed = Vec::new();
    for answer in concurrent::all(answers).await {
        match answer {
            GroupResponse::ListGroups(Ok(groups)) => listed.extend(groups),
            // Another node has taken over, and tells.
            GroupResponse::ListGroups(Err(GroupError::NotCoordinator)) => {}
            GroupResponse::ListGroups(Err(error)) => {
                return ListGroupsResponse {
                    error_code: groups::code(&error).code(),
                    ..ListGroupsResponse::default()
                };
            }
            other => unreachable!("a list of groups is answered with {other:?}"),
        }
    }
    let groups = listed.into_iter().map(|group| ListedGroup {
        group_id: group.group_id.into(),
        protocol_type: group.protocol_type.into(),
        group_state: KafkaString::from_static(group.state),
        group_type: KafkaString::from_static(group.group_type),
        ..ListedGroup::default()
    });
    ListGroupsResponse { groups: groups.collect(), ..ListGroupsResponse::default() }
}
