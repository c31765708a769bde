//! A consumer group out of a classic one, and what a classic one is made of. Source: KIP-848, "Online migration".

use std::collections::{BTreeMap, BTreeSet};

use super::{ConsumerGroup, Current, Member, Owned, Topics, target_record};
use crate::format::group_record::{
    ClassicProtocols, ConsumerGroupMember, ConsumerGroupMetadata, GroupRecord, MemberState,
    TargetAssignmentMetadata,
};
use crate::machine::group::conversion::{ClassicPart, Returning};
use crate::machine::group::embedded::{self, Subscription};
use crate::machine::group::request::JoinGroup;
use crate::model::TimestampMs;

impl ConsumerGroup {
    /// The records of a group whose members are those of a classic group in `generation`, with what they have there.
    ///
    /// # Errors
    /// When what members tell each other cannot be read, or would be lost.
    pub(in crate::machine::group) fn of_classic(
        group_id: &str,
        generation: i32,
        members: &[ClassicPart],
        topics: &Topics,
    ) -> Result<Vec<GroupRecord>, &'static str> {
        let mut group = Self::new(group_id);
        let mut taken = BTreeSet::new();
        for part in members {
            let (member, places) = consumer_of(part, generation, topics)?;
            if !places.iter().all(|place| taken.insert(*place)) {
                return Err("a partition is with two members");
            }
            group.target.insert(part.member_id.clone(), places);
            group.members.insert(part.member_id.clone(), member);
        }
        let names = group.members.values().flat_map(|member| &member.told.topics);
        let metadata_hash = topics.hash(&names.cloned().collect());
        let key = |member_id: &String| group.key(member_id);
        let mut records: Vec<GroupRecord> = Vec::new();
        for (member_id, member) in &group.members {
            let value = Some(member.told.clone());
            records.push(GroupRecord::Member { key: key(member_id), value });
        }
        let value = Some(ConsumerGroupMetadata { epoch: generation, metadata_hash });
        records.push(GroupRecord::ConsumerGroup { group_id: group_id.to_owned(), value });
        for (member_id, target) in &group.target {
            records.push(target_record(key(member_id), target));
        }
        // Its members made the assignment, nobody knows when.
        let assigned_at = TimestampMs(0);
        let value = Some(TargetAssignmentMetadata { epoch: generation, assigned_at });
        records.push(GroupRecord::TargetEpoch { group_id: group_id.to_owned(), value });
        for (member_id, member) in &group.members {
            records.push(member.current.record(key(member_id)));
        }
        Ok(records)
    }

    /// Whether all members speak the classic protocol, those aside that go; there has to be one.
    pub(in crate::machine::group) fn is_classic_without(&self, gone: &BTreeSet<String>) -> bool {
        let mut rest = self.members.iter().filter(|(id, _)| !gone.contains(*id)).peekable();
        rest.peek().is_some() && rest.all(|(_, member)| member.told.classic.is_some())
    }

    /// The static member whose place a classic member takes that joins, if it is the last one of the next-generation
    /// protocol.
    pub(in crate::machine::group) fn last_consumer(&self, request: &JoinGroup) -> Option<String> {
        let current = self.static_members.get(request.instance_id.as_ref()?)?;
        let is_same = request.member_id.is_empty() || request.member_id == *current;
        let mut others = self.members.iter().filter(|(member_id, _)| *member_id != current);
        let is_last = self.members.get(current)?.told.classic.is_none()
            && others.all(|(_, member)| member.told.classic.is_some());
        (is_same && is_last).then(|| current.clone())
    }

    /// Whether a member would have another subscription than it has.
    pub(in crate::machine::group) fn has_other_topics(
        &self,
        member_id: &str,
        subscription: &Subscription,
    ) -> bool {
        let Some(member) = self.members.get(member_id) else { return true };
        let names = |topics: &'_ [String]| topics.iter().cloned().collect::<BTreeSet<String>>();
        member.expression().is_some() || names(&member.told.topics) != names(&subscription.topics)
    }

    /// Whether it has that member.
    pub(in crate::machine::group) fn has_member(&self, member_id: &str) -> bool {
        self.members.contains_key(member_id)
    }

    /// How many members it has.
    pub(in crate::machine::group) fn members_len(&self) -> usize {
        self.members.len()
    }

    /// Its members' ids.
    pub(in crate::machine::group) fn member_ids(&self) -> impl Iterator<Item = &String> {
        self.members.keys()
    }

    /// The generation that it has as a classic group.
    pub(in crate::machine::group) fn generation(&self) -> i32 {
        self.epoch
    }

    /// Whether all members but one have what they shall have, and know it: those of a classic group do not ask again
    /// for what has become free.
    pub(in crate::machine::group) fn is_settled_but_for(&self, member_id: &str) -> bool {
        let mut others = self.members.iter().filter(|(other, _)| *other != member_id);
        self.target_epoch == self.epoch
            && others.all(|(other, Member { current, .. })| {
                let target = self.target.get(other).into_iter().flatten();
                current.state == MemberState::Stable
                    && current.epoch == self.epoch
                    && current.assigned.keys().eq(target)
            })
    }

    /// The members that stay, with their targets, as a classic group has them; of the one that is `returning` what it says
    /// as a classic one.
    pub(in crate::machine::group) fn classic_parts(
        &self,
        gone: &BTreeSet<String>,
        returning: Option<&Returning<'_>>,
        topics: &Topics,
    ) -> Vec<ClassicPart> {
        let stays = self.members.iter().filter(|(member_id, _)| !gone.contains(*member_id));
        let parts = stays.filter_map(|(member_id, member)| {
            let told = &member.told;
            let back = returning.filter(|it| it.member_id == member_id).map(|it| it.request);
            let (session_timeout_ms, protocols) = match (back, &told.classic) {
                (Some(request), _) => (request.session_timeout_ms, request.protocols.clone()),
                (None, Some(classic)) => (classic.session_timeout_ms, classic.protocols.clone()),
                (None, None) => return None,
            };
            let target = self.target.get(member_id).into_iter().flatten();
            let first = protocols.first().and_then(|(_, it)| embedded::subscription(it));
            let version = first.map_or(0, |subscription| subscription.version);
            let assignment = embedded::assignment_bytes(version, &topics.named(target));
            Some(ClassicPart {
                member_id: member_id.clone(),
                instance_id: told.instance_id.clone(),
                client_id: told.client_id.clone(),
                client_host: told.client_host.clone(),
                rebalance_timeout_ms: back
                    .map_or(told.rebalance_timeout_ms, |it| it.rebalance_timeout_ms),
                session_timeout_ms,
                metadata: bytes::Bytes::new(),
                protocols,
                assignment,
            })
        });
        parts.collect()
    }
}

/// A member as a consumer group has it, and the partitions that it has.
fn consumer_of(
    part: &ClassicPart,
    generation: i32,
    topics: &Topics,
) -> Result<(Member, super::Partitions), &'static str> {
    let assignment = embedded::assignment(&part.assignment).ok_or("an assignment is malformed")?;
    if assignment.has_user_data {
        return Err("what a custom assignor tells its members would be lost");
    }
    let subscription =
        embedded::subscription(&part.metadata).ok_or("a subscription is malformed")?;
    let places = topics.places(&assignment.topics);
    let assigned: Owned = places.iter().map(|place| (*place, generation)).collect();
    let names: BTreeSet<String> = subscription.topics.into_iter().collect();
    let told = ConsumerGroupMember {
        instance_id: part.instance_id.clone(),
        rack_id: subscription.rack_id,
        client_id: part.client_id.clone(),
        client_host: part.client_host.clone(),
        topics: names.into_iter().collect(),
        rebalance_timeout_ms: part.rebalance_timeout_ms,
        classic: Some(ClassicProtocols {
            session_timeout_ms: part.session_timeout_ms,
            protocols: part.protocols.clone(),
        }),
        ..Member::default().told
    };
    let current = Current {
        epoch: generation,
        previous_epoch: generation,
        state: MemberState::Stable,
        assigned,
        revoking: BTreeMap::new(),
    };
    Ok((Member { told, current }, places))
}
