//! How groups stand, for whoever watches them: a look that changes nothing and goes on where it ended.
//!
//! What is told may not be committed yet: an offset is seen when the coordinator has replayed it. Whoever asks for
//! it in earnest ([`super::FetchOffsets`]) is answered when it is on the disk of every in-sync replica.

use super::Coordinator;
use super::durable::TopicOffsets;
use crate::model::{Offset, PartitionIndex};

/// A group as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStanding {
    /// Its id.
    pub group_id: String,
    /// `classic` or `consumer`.
    pub group_type: &'static str,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// How many members it has.
    pub members: usize,
}

/// What a group has committed of a topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicStanding {
    /// The group.
    pub group_id: String,
    /// The topic's name.
    pub topic: String,
    /// The next record to be read, by partition.
    pub offsets: Vec<(PartitionIndex, Offset)>,
}

/// A look at groups: everything is counted, and so much of it told.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GroupsLook {
    /// Groups that are told, at most.
    pub groups_max: usize,
    /// Committed offsets that are told, at most.
    pub offsets_max: usize,
    /// Coordinators that serve.
    pub coordinators_serving: u64,
    /// Coordinators that read their partition, or cannot.
    pub coordinators_unready: u64,
    /// How many groups there are.
    pub group_count: usize,
    /// How many offsets they have committed, together.
    pub offset_count: usize,
    /// The first of the groups.
    pub groups: Vec<GroupStanding>,
    /// The first of the offsets.
    pub offsets: Vec<TopicStanding>,
    offsets_told: usize,
}

impl GroupsLook {
    /// A look that tells at most so much.
    #[must_use]
    pub fn new(groups_max: usize, offsets_max: usize) -> Self {
        Self { groups_max, offsets_max, ..Self::default() }
    }

    fn group(&mut self, standing: impl FnOnce() -> GroupStanding) {
        self.group_count += 1;
        if self.groups.len() < self.groups_max {
            self.groups.push(standing());
        }
    }

    fn topic(&mut self, group_id: &str, topic: &str, offsets: &TopicOffsets) {
        self.offset_count += offsets.len();
        let told = offsets.len().min(self.offsets_max - self.offsets_told);
        if told == 0 {
            return;
        }
        self.offsets_told += told;
        let committed = offsets.iter().take(told);
        self.offsets.push(TopicStanding {
            group_id: group_id.to_owned(),
            topic: topic.to_owned(),
            offsets: committed.map(|(partition, found)| (*partition, found.offset)).collect(),
        });
    }
}

/// Where a look at the groups of one coordinator goes on.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GroupCursor {
    /// Whether the classic groups are done.
    in_consumer_groups: bool,
    group_id: String,
    /// The topic of the group, once the group itself was looked at.
    topic: Option<String>,
}

impl Coordinator {
    /// Looks at groups from a place on until `budget` is used up: 1 a group, and 1 an offset. A topic's offsets are
    /// looked at together. Returns where to go on; `None`: that was all.
    #[must_use]
    pub fn look(
        &self,
        from: GroupCursor,
        budget: &mut usize,
        look: &mut GroupsLook,
    ) -> Option<GroupCursor> {
        let GroupCursor { in_consumer_groups, group_id, mut topic } = from;
        let mut consumers_from = group_id.as_str();
        if !in_consumer_groups {
            for (id, group) in self.groups.range(group_id.clone()..) {
                // A group that has gone meanwhile took its topics along.
                let topic = topic.take().filter(|_| *id == group_id);
                let next = self.look_at(id, topic, || group.standing(), budget, look);
                if let Some(topic) = next {
                    return Some(GroupCursor { in_consumer_groups, group_id: id.clone(), topic });
                }
            }
            topic = None;
            consumers_from = "";
        }
        for (id, group) in self.durable.consumer_groups_from(consumers_from) {
            let topic = topic.take().filter(|_| *id == group_id);
            let next = self.look_at(id, topic, || group.standing(), budget, look);
            if let Some(topic) = next {
                let group_id = id.clone();
                return Some(GroupCursor { in_consumer_groups: true, group_id, topic });
            }
        }
        None
    }

    /// One group. Returns the topic to go on with if the budget does not suffice, `None` of it for the group itself.
    fn look_at(
        &self,
        group_id: &str,
        from: Option<String>,
        standing: impl FnOnce() -> GroupStanding,
        budget: &mut usize,
        look: &mut GroupsLook,
    ) -> Option<Option<String>> {
        if from.is_none() {
            if *budget == 0 {
                return Some(None);
            }
            *budget -= 1;
            look.group(standing);
        }
        let is_ahead = |topic: &str| from.as_deref().is_none_or(|from| topic >= from);
        for (topic, offsets) in self.durable.offsets(group_id).filter(|(it, _)| is_ahead(it)) {
            if *budget == 0 {
                return Some(Some(topic.clone()));
            }
            *budget = budget.saturating_sub(offsets.len());
            look.topic(group_id, topic, offsets);
        }
        None
    }
}
