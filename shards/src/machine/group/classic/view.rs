//! A classic group from outside: its record, what it shows, and what it allows to be done with its offsets.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{CONSUMER_PROTOCOL_TYPE, ClassicGroup, ClassicState, Member, Waiting};
use crate::format::group_record::{ClassicMember, GroupMetadata, GroupRecord};
use crate::machine::group::request::{
    CommitOffsets, DescribedGroup, DescribedMember, GroupError, ListedGroup,
};
use crate::machine::group::standing::GroupStanding;
use crate::machine::group::turn::Turn;
use crate::model::TimestampMs;

/// From when the retention of a group's offsets counts. Source: KIP-211.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::machine::group) enum RetentionFrom {
    /// From when the group became empty.
    Since(TimestampMs),
    /// Each from its commit.
    Commit,
    /// None expires.
    Never,
}

impl ClassicGroup {
    /// The group as its record tells it.
    pub(in crate::machine::group) fn loaded(group_id: &str, record: &GroupMetadata) -> Self {
        let mut group = Self::new(group_id);
        let has_members = !record.members.is_empty();
        group.state = if has_members { ClassicState::Stable } else { ClassicState::Empty };
        group.state_at = Some(record.state_at).filter(|at| *at != TimestampMs::NONE);
        group.protocol_type = Some(record.protocol_type.clone()).filter(|name| !name.is_empty());
        group.protocol.clone_from(&record.protocol);
        group.generation = record.generation;
        for member in &record.members {
            group.insert(member.member_id.clone(), loaded_member(record, member));
        }
        if let Some(leader) = &record.leader
            && group.members.contains_key(leader)
        {
            group.leader = Some(leader.clone());
        }
        group.subscribed_topics = group.subscriptions();
        group
    }

    /// The coordinator has loaded: sessions begin.
    ///
    /// `is_unled` says that nobody leads it by its record ([`ClassicGroup::unled_record`]).
    pub(in crate::machine::group) fn begin_sessions(
        &mut self,
        turn: &mut Turn<'_>,
        is_unled: bool,
    ) {
        let member_ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in member_ids {
            self.heard(turn, &member_id);
        }
        let has_unshared = is_unled && self.state == ClassicState::Stable;
        if has_unshared || self.members.len() > turn.settings.members_max {
            self.rebalance(turn);
        }
    }

    /// The group's record.
    pub(in crate::machine::group) fn record(&self) -> GroupRecord {
        let member = |(member_id, member): (&String, &Member)| ClassicMember {
            member_id: member_id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(self.protocol.as_deref()),
            assignment: member.assignment.clone(),
        };
        let value = GroupMetadata {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_at: self.state_at.unwrap_or(TimestampMs::NONE),
            members: self.members.iter().map(member).collect(),
        };
        GroupRecord::Group { group_id: self.group_id.clone(), value: Some(value) }
    }

    /// The record of a group of members that have not shared among them what there is: none of them leads. Another
    /// coordinator would otherwise find them all content, and what nobody has would stay with nobody.
    pub(in crate::machine::group) fn unled_record(&self) -> GroupRecord {
        let mut record = self.record();
        if let GroupRecord::Group { value: Some(value), .. } = &mut record {
            value.leader = None;
        }
        record
    }

    /// The record of a group that begins: no type, no members.
    pub(in crate::machine::group) fn first_record(&self, turn: &Turn<'_>) -> GroupRecord {
        let value = GroupMetadata {
            protocol_type: String::new(),
            generation: 0,
            protocol: None,
            leader: None,
            state_at: turn.now.wall,
            members: Vec::new(),
        };
        GroupRecord::Group { group_id: self.group_id.clone(), value: Some(value) }
    }

    pub(in crate::machine::group) fn described(&self) -> DescribedGroup {
        let is_stable = self.state == ClassicState::Stable;
        let member = |(member_id, member): (&String, &Member)| DescribedMember {
            member_id: member_id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: match is_stable {
                true => member.metadata(self.protocol.as_deref()),
                false => Bytes::new(),
            },
            assignment: if is_stable { member.assignment.clone() } else { Bytes::new() },
        };
        let protocol = self.protocol.clone().filter(|_| is_stable);
        DescribedGroup {
            state: self.state.name(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: protocol.unwrap_or_default(),
            members: self.members.iter().map(member).collect(),
        }
    }

    pub(in crate::machine::group) fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.group_id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.state.name(),
            group_type: "classic",
        }
    }

    pub(in crate::machine::group) fn standing(&self) -> GroupStanding {
        GroupStanding {
            group_id: self.group_id.clone(),
            group_type: "classic",
            state: self.state.name(),
            members: self.members.len(),
        }
    }

    /// Whether whoever asks may commit offsets. A commit is a sign of life.
    ///
    /// # Errors
    /// When it is no member of this generation, or is none and the group has some.
    pub(in crate::machine::group) fn may_commit(
        &self,
        turn: &mut Turn<'_>,
        request: &CommitOffsets,
    ) -> Result<(), GroupError> {
        let generation = request.generation_or_epoch;
        if generation < 0 && self.state == ClassicState::Empty {
            return Ok(());
        }
        let names_member =
            generation >= 0 || !request.member_id.is_empty() || request.instance_id.is_some();
        if names_member {
            self.validate(&request.member_id, request.instance_id.as_deref())?;
            if generation != self.generation {
                return Err(GroupError::IllegalGeneration);
            }
        } else if self.state != ClassicState::Empty {
            return Err(GroupError::UnknownMemberId);
        }
        if self.state == ClassicState::CompletingRebalance {
            // It has heard of the new generation but not of its part in it.
            return Err(GroupError::RebalanceInProgress);
        }
        self.heard(turn, &request.member_id);
        Ok(())
    }

    /// Whether offsets may be deleted, other than those of topics that members subscribe to.
    ///
    /// # Errors
    /// When it has members and what they subscribe to cannot be known.
    pub(in crate::machine::group) fn may_delete_offsets(&self) -> Result<(), GroupError> {
        let is_read = self.state == ClassicState::Empty || self.is_of_consumers();
        if is_read { Ok(()) } else { Err(GroupError::NonEmptyGroup) }
    }

    /// Whether its members are consumers: a coordinator can read what they tell each other.
    pub(in crate::machine::group) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether members subscribe to `topic`, or might.
    pub(in crate::machine::group) fn subscribes_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.is_of_consumers(),
        }
    }

    /// From when the retention of its offsets counts.
    pub(in crate::machine::group) fn retention_from(&self) -> RetentionFrom {
        match (&self.protocol_type, self.state) {
            (None, _) => RetentionFrom::Commit,
            (Some(_), ClassicState::Empty) => {
                self.state_at.map_or(RetentionFrom::Commit, RetentionFrom::Since)
            }
            (Some(_), ClassicState::Stable)
                if self.is_of_consumers() && self.subscribed_topics.is_some() =>
            {
                RetentionFrom::Commit
            }
            (Some(_), _) => RetentionFrom::Never,
        }
    }

    /// The topics that members subscribe to. None when that cannot be known.
    pub(super) fn subscriptions(&self) -> Option<BTreeSet<String>> {
        if !self.is_of_consumers() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(Some(protocol)))?);
        }
        Some(topics)
    }
}

fn loaded_member(record: &GroupMetadata, member: &ClassicMember) -> Member {
    Member {
        instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        session_timeout_ms: member.session_timeout_ms,
        protocols: vec![(record.protocol.clone().unwrap_or_default(), member.subscription.clone())],
        assignment: member.assignment.clone(),
        is_new: false,
        waiting: Waiting::Nothing,
    }
}

/// The topics of a consumer's subscription: a version of 16 bits and an array of strings, in every version.
fn subscribed_topics(mut metadata: &[u8]) -> Option<Vec<String>> {
    let mut take = |length: usize| -> Option<&[u8]> {
        let (taken, rest) = metadata.split_at_checked(length)?;
        metadata = rest;
        Some(taken)
    };
    take(2)?;
    let count = i32::from_be_bytes(take(4)?.try_into().ok()?);
    let mut topics = Vec::new();
    for _ in 0..usize::try_from(count).ok()? {
        let length = i16::from_be_bytes(take(2)?.try_into().ok()?);
        let name = take(usize::try_from(length).ok()?)?;
        topics.push(std::str::from_utf8(name).ok()?.to_owned());
    }
    Some(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_read_as_far_as_every_version_has_it() {
        let metadata = b"\0\x03\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff";
        assert_eq!(subscribed_topics(metadata), Some(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(subscribed_topics(&metadata[..10]), None);
        assert_eq!(subscribed_topics(b"\0\x03\x7f\xff\xff\xff"), None);
        assert_eq!(subscribed_topics(b"\0\x03\xff\xff\xff\xff"), None);
    }
}
