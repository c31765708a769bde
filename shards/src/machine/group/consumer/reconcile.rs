//! From what a member has to what it shall have: it gives up first, and gets what others have given up.

use std::collections::BTreeSet;

use super::{Current, Owned, Partitions, Place};
use crate::format::group_record::MemberState;
use crate::model::TopicId;

/// Where a member is to go, and what is known of it.
pub(super) struct Way<'a> {
    pub(super) target_epoch: i32,
    pub(super) target: &'a Partitions,
    /// Topics that it subscribes to: nothing else is given to it, whatever the target says.
    pub(super) topics: &'a BTreeSet<TopicId>,
    /// Whether it has just changed what it subscribes to.
    pub(super) has_new_topics: bool,
    /// What it says that it has, if it says so.
    pub(super) owned: Option<&'a Partitions>,
}

impl Current {
    /// The next step. `is_taken` says whether somebody else has a partition.
    pub(super) fn next(&self, way: &Way<'_>, is_taken: impl Fn(&Place) -> bool) -> Self {
        match self.state {
            MemberState::Stable if self.epoch == way.target_epoch => self.without_lost_topics(way),
            MemberState::UnrevokedPartitions if still_has(way, &self.revoking) => {
                self.without_lost_topics(way)
            }
            MemberState::Stable
            | MemberState::UnrevokedPartitions
            | MemberState::UnreleasedPartitions
            | MemberState::Unknown => self.towards(way, is_taken),
        }
    }

    fn in_epoch(&self, epoch: i32, state: MemberState, assigned: Owned, revoking: Owned) -> Self {
        Self { epoch, previous_epoch: self.epoch, state, assigned, revoking }
    }

    /// Gives up what it does not subscribe to any more, ahead of the next target.
    fn without_lost_topics(&self, way: &Way<'_>) -> Self {
        let is_wanted = |place: &Place| way.topics.contains(&place.0);
        if !way.has_new_topics || self.assigned.keys().all(is_wanted) {
            return self.clone();
        }
        let (assigned, lost): (Owned, Owned) = self
            .assigned
            .iter()
            .map(|(place, epoch)| (*place, *epoch))
            .partition(|(place, _)| is_wanted(place));
        let mut revoking = self.revoking.clone();
        revoking.extend(lost);
        if still_has(way, &revoking) {
            return self.in_epoch(self.epoch, MemberState::UnrevokedPartitions, assigned, revoking);
        }
        self.in_epoch(self.epoch, self.state, assigned, self.revoking.clone())
    }

    fn towards(&self, way: &Way<'_>, is_taken: impl Fn(&Place) -> bool) -> Self {
        let is_target = |place: &Place| way.target.contains(place) && way.topics.contains(&place.0);
        let (mut assigned, revoking): (Owned, Owned) = self
            .assigned
            .iter()
            .map(|(place, epoch)| (*place, *epoch))
            .partition(|(place, _)| is_target(place));
        if still_has(way, &revoking) {
            // In its epoch still: until it has given up, its commits of these partitions are good.
            return self.in_epoch(self.epoch, MemberState::UnrevokedPartitions, assigned, revoking);
        }
        let mut waits = false;
        for place in way.target.iter().filter(|place| is_target(place)) {
            if assigned.contains_key(place) {
                continue;
            }
            if is_taken(place) {
                waits = true;
            } else {
                assigned.insert(*place, way.target_epoch);
            }
        }
        let state = if waits { MemberState::UnreleasedPartitions } else { MemberState::Stable };
        self.in_epoch(way.target_epoch, state, assigned, Owned::new())
    }
}

/// Whether a member has, or may have, any of what it shall give up.
fn still_has(way: &Way<'_>, revoking: &Owned) -> bool {
    if revoking.is_empty() {
        return false;
    }
    way.owned.is_none_or(|owned| owned.iter().any(|place| revoking.contains_key(place)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PartitionIndex;

    const TOPIC: TopicId = TopicId([1; 16]);

    fn places(indexes: &[i32]) -> Partitions {
        indexes.iter().map(|index| (TOPIC, PartitionIndex(*index))).collect()
    }

    fn owned(indexes: &[i32], epoch: i32) -> Owned {
        places(indexes).into_iter().map(|place| (place, epoch)).collect()
    }

    /// One step; topic and owned partitions as given, none of the others' partitions free but `free`.
    fn step(current: &Current, target: &[i32], reported: Option<&[i32]>, taken: &[i32]) -> Current {
        let topics = BTreeSet::from([TOPIC]);
        let (target, reported) = (places(target), reported.map(places));
        let taken = places(taken);
        let way = Way {
            target_epoch: 7,
            target: &target,
            topics: &topics,
            has_new_topics: false,
            owned: reported.as_ref(),
        };
        current.next(&way, |place| taken.contains(place))
    }

    fn stable(indexes: &[i32]) -> Current {
        Current { epoch: 6, previous_epoch: 5, assigned: owned(indexes, 6), ..Current::default() }
    }

    #[test]
    fn it_gives_up_before_it_gets() {
        let first = step(&stable(&[1, 2]), &[2, 3], None, &[]);
        assert_eq!((first.epoch, first.state), (6, MemberState::UnrevokedPartitions));
        assert_eq!((&first.assigned, &first.revoking), (&owned(&[2], 6), &owned(&[1], 6)));
        assert_eq!(step(&first, &[2, 3], None, &[]), first, "it has not said that it did");
        assert_eq!(step(&first, &[2, 3], Some(&[1, 2]), &[]), first, "it says that it has not");
        let next = step(&first, &[2, 3], Some(&[2]), &[]);
        assert_eq!((next.epoch, next.previous_epoch, next.state), (7, 6, MemberState::Stable));
        let expected: Owned = owned(&[2], 6).into_iter().chain(owned(&[3], 7)).collect();
        assert_eq!((next.assigned, next.revoking), (expected, Owned::new()));
    }

    #[test]
    fn it_waits_for_what_others_have() {
        let first = step(&stable(&[1]), &[1, 2, 3], None, &[2]);
        assert_eq!((first.epoch, first.state), (7, MemberState::UnreleasedPartitions));
        let keys: Partitions = first.assigned.keys().copied().collect();
        assert_eq!(keys, places(&[1, 3]));
        let next = step(&first, &[1, 2, 3], None, &[]);
        assert_eq!((next.state, next.assigned.len()), (MemberState::Stable, 3));
    }

    #[test]
    fn at_its_target_it_stays_as_it_is() {
        let there = Current { epoch: 7, ..stable(&[1]) };
        assert_eq!(step(&there, &[1, 2], None, &[]), there);
    }

    #[test]
    fn a_topic_that_it_does_not_want_any_more_is_given_up_at_once() {
        let there = Current { epoch: 7, ..stable(&[1]) };
        let (target, none) = (places(&[1]), BTreeSet::new());
        let mut way = Way {
            target_epoch: 7,
            target: &target,
            topics: &none,
            has_new_topics: true,
            owned: None,
        };
        let told = there.next(&way, |_| false);
        assert_eq!((told.state, told.revoking.len()), (MemberState::UnrevokedPartitions, 1));
        let nothing = Partitions::new();
        way.owned = Some(&nothing);
        let gone = there.next(&way, |_| false);
        assert_eq!((gone.state, gone.assigned.len()), (MemberState::Stable, 0));
    }
}
