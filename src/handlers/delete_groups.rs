//! DeleteGroups: groups without members are forgotten, with their offsets. Source: KIP-229.

use std::collections::BTreeSet;
use std::rc::Rc;

use chronik_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use chronik_protocol::messages::delete_groups_response::{
    DeletableGroupResult, DeleteGroupsResponse,
};
use chronik_shards::machine::group::{GroupRequest, GroupResponse};

use super::{Handlers, groups};

/// Answers a DeleteGroups request. A group that is named twice is deleted once.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: DeleteGroupsRequest,
    version: i16,
) -> DeleteGroupsResponse {
    let mut seen = BTreeSet::new();
    let named = request.groups_names.iter().map(ToString::to_string);
    let group_ids = named.filter(|group_id| seen.insert(group_id.clone())).collect();
    let lines = |response| match response {
        GroupResponse::DeleteGroups(lines) => lines,
        other => unreachable!("a deletion of groups is answered with {other:?}"),
    };
    let deleted = groups::ask_each(handlers, group_ids, GroupRequest::DeleteGroups, lines).await;
    let results = deleted.into_iter().map(|(group_id, outcome)| DeletableGroupResult {
        group_id: group_id.into(),
        error_code: groups::wire_code(&outcome),
        error_message: outcome.err().filter(|_| version >= 3).map(|it| it.to_string().into()),
        ..DeletableGroupResult::default()
    });
    DeleteGroupsResponse { results: results.collect(), ..DeleteGroupsResponse::default() }
}
