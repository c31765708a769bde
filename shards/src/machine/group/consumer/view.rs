//! A consumer group from outside: what it shows, and what it allows to be done with its offsets.

use super::assignor::Assignor;
use super::{ConsumerGroup, JOIN_EPOCH, Member, STATIC_LEAVE_EPOCH, Topics, listed};
use crate::format::group_record::{GroupRecord, MemberState};
use crate::machine::group::request::{
    CommitOffsets, ConsumerHeartbeat, DescribedConsumer, DescribedConsumerGroup, FetchOffsets,
    GroupError, ListedGroup,
};
use crate::machine::group::standing::GroupStanding;

impl ConsumerGroup {
    fn state(&self) -> &'static str {
        let is_there = |member: &Member| {
            member.current.state == MemberState::Stable && member.current.epoch == self.target_epoch
        };
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(is_there) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    pub(in crate::machine::group) fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.group_id.clone(),
            protocol_type: "consumer".to_owned(),
            state: self.state(),
            group_type: "consumer",
        }
    }

    pub(in crate::machine::group) fn standing(&self) -> GroupStanding {
        GroupStanding {
            group_id: self.group_id.clone(),
            group_type: "consumer",
            state: self.state(),
            members: self.members.len(),
        }
    }

    pub(in crate::machine::group) fn described(&self) -> DescribedConsumerGroup {
        let member = |(member_id, member): (&String, &Member)| DescribedConsumer {
            member_id: member_id.clone(),
            member_epoch: member.current.epoch,
            told: member.told.clone(),
            assigned: listed(member.current.assigned.keys()),
            target: self.target.get(member_id).map_or_else(Vec::new, listed),
        };
        let mut asked: Vec<&str> = Vec::new();
        asked.extend(self.members.values().filter_map(|it| it.told.server_assignor.as_deref()));
        DescribedConsumerGroup {
            state: self.state(),
            epoch: self.epoch,
            target_epoch: self.target_epoch,
            assignor: most_common(&asked).unwrap_or(Assignor::DEFAULT.name()).to_owned(),
            members: self.members.iter().map(member).collect(),
        }
    }

    /// Whether whoever asks may commit offsets.
    ///
    /// # Errors
    /// When it is no member, or not in an epoch in which it had the partitions.
    pub(in crate::machine::group) fn may_commit(
        &self,
        topics: &Topics,
        request: &CommitOffsets,
    ) -> Result<(), GroupError> {
        let epoch = request.generation_or_epoch;
        if epoch < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(&request.member_id).ok_or(GroupError::UnknownMemberId)?;
        let is_classic = member.told.classic.is_some();
        if !request.knows_epochs && !is_classic {
            return Err(GroupError::UnsupportedVersion);
        }
        let current = &member.current;
        if epoch == current.epoch {
            return Ok(());
        }
        // An answer with a later epoch is on its way. Until it knows, it commits in the epoch before.
        let had = |topic: &str, partition| {
            let topic_id = topics.by_name.get(topic).map(|topic| topic.topic_id);
            let place = topic_id.map(|topic_id| (topic_id, partition));
            let given =
                place.and_then(|it| current.assigned.get(&it).or(current.revoking.get(&it)));
            given.is_some_and(|given| epoch >= *given)
        };
        let had_all = request.offsets.iter().all(|it| had(&it.topic, it.partition));
        let is_earlier = epoch > 0 && epoch < current.epoch;
        match is_earlier && had_all {
            true => Ok(()),
            false if is_classic => Err(GroupError::IllegalGeneration),
            false => Err(GroupError::StaleMemberEpoch),
        }
    }

    /// Whether whoever asks may fetch offsets.
    ///
    /// # Errors
    /// When it says that it is a member and is not, or is in another epoch.
    pub(in crate::machine::group) fn may_fetch(
        &self,
        request: &FetchOffsets,
    ) -> Result<(), GroupError> {
        let Some((member_id, epoch)) = &request.member else { return Ok(()) };
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        if *epoch == member.current.epoch { Ok(()) } else { Err(GroupError::StaleMemberEpoch) }
    }

    /// Whether members subscribe to `topic`.
    pub(in crate::machine::group) fn subscribes_to(&self, topic: &str) -> bool {
        let matches = |text: &str| {
            self.expressions
                .get(text)
                .is_some_and(|found| found.topics.iter().any(|it| it == topic))
        };
        self.members.values().any(|member| {
            member.told.topics.iter().any(|it| it == topic)
                || member.expression().is_some_and(matches)
        })
    }

    /// The records after which the group is not there.
    pub(in crate::machine::group) fn tombstones(&self) -> Vec<GroupRecord> {
        let group_id = || self.group_id.clone();
        let mut records = Vec::new();
        for member_id in self.members.keys() {
            records.push(GroupRecord::Current { key: self.key(member_id), value: None });
        }
        for member_id in self.target.keys() {
            records.push(GroupRecord::Target { key: self.key(member_id), value: None });
        }
        records.push(GroupRecord::TargetEpoch { group_id: group_id(), value: None });
        for member_id in self.members.keys() {
            records.push(GroupRecord::Member { key: self.key(member_id), value: None });
        }
        for expression in self.expressions.keys().cloned() {
            let group_id = group_id();
            records.push(GroupRecord::RegularExpression { group_id, expression, value: None });
        }
        // Kafka removes the retired record with the group, in case an older release left one.
        let group_and_all =
            GroupRecord::ConsumerGroupPartitions { group_id: group_id(), deleted: true };
        records.push(group_and_all);
        records.push(GroupRecord::ConsumerGroup { group_id: group_id(), value: None });
        records
    }
}

fn most_common<'a>(names: &[&'a str]) -> Option<&'a str> {
    let count = |name: &str| names.iter().filter(|other| **other == name).count();
    names.iter().max_by_key(|name| (count(name), std::cmp::Reverse(**name))).copied()
}

/// What can be said of a heartbeat without knowing its group.
///
/// # Errors
/// [`GroupError::InvalidRequest`], [`GroupError::UnsupportedAssignor`].
pub(in crate::machine::group) fn check_heartbeat(
    request: &ConsumerHeartbeat,
) -> Result<(), GroupError> {
    let refuse = |reason| Err(GroupError::InvalidRequest(reason));
    let is_blank = |text: &Option<String>| text.as_ref().is_some_and(|text| text.trim().is_empty());
    if request.group_id.trim().is_empty() {
        return refuse("the group id is empty");
    }
    if request.member_id.trim().is_empty() {
        return refuse("the member id is empty");
    }
    if is_blank(&request.instance_id) {
        return refuse("the instance id is empty");
    }
    if is_blank(&request.rack_id) {
        return refuse("the rack id is empty");
    }
    match request.member_epoch {
        JOIN_EPOCH => {
            if request.rebalance_timeout_ms.is_none() {
                return refuse("a member that joins has a rebalance time-out");
            }
            if request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
                return refuse("a member that joins has an empty list of partitions");
            }
            if request.topics.is_none() && request.expression.is_none() {
                return refuse("a member that joins subscribes to topics");
            }
        }
        STATIC_LEAVE_EPOCH if request.instance_id.is_none() => {
            return refuse("only a member with an instance id leaves for a while");
        }
        epoch if epoch < STATIC_LEAVE_EPOCH => return refuse("a member epoch is at least -2"),
        _ => {}
    }
    match &request.server_assignor {
        Some(name) if Assignor::named(name).is_none() => {
            Err(GroupError::UnsupportedAssignor(name.clone()))
        }
        _ => Ok(()),
    }
}
