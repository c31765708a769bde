//! A look at the groups that a shard coordinates, a bounded number at a time.

use std::ops::Bound;

use super::loading::Stage;
use crate::machine::group::{GroupCursor, GroupsLook};
use crate::machine::shard::ShardMachine;
use crate::model::ReplicaKey;

/// Where a look at the groups of a shard goes on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupPlace {
    key: ReplicaKey,
    cursor: GroupCursor,
}

impl ShardMachine {
    /// Looks at groups, at first with `None`, until `budget` is used up: 1 a coordinator, 1 a group, and 1 an
    /// offset. Returns where to go on; `None`: that was all.
    #[must_use]
    pub fn look_at_groups(
        &self,
        from: Option<GroupPlace>,
        mut budget: usize,
        look: &mut GroupsLook,
    ) -> Option<GroupPlace> {
        let first = from.as_ref().map_or(Bound::Unbounded, |place| Bound::Included(place.key));
        let mut resumed = from;
        for (key, hosted) in self.coordinators.hosted.range((first, Bound::Unbounded)) {
            let cursor = resumed.take().filter(|place| place.key == *key).map(|it| it.cursor);
            if budget == 0 {
                return Some(GroupPlace { key: *key, cursor: cursor.unwrap_or_default() });
            }
            let is_serving = hosted.stage == Stage::Serving;
            if cursor.is_none() {
                budget -= 1;
                look.coordinators_serving += u64::from(is_serving);
                look.coordinators_unready += u64::from(!is_serving);
            }
            if !is_serving {
                continue;
            }
            let next = hosted.coordinator.look(cursor.unwrap_or_default(), &mut budget, look);
            if let Some(cursor) = next {
                return Some(GroupPlace { key: *key, cursor });
            }
        }
        None
    }
}
