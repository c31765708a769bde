//! Members of a consumer group that speak the classic protocol. Source: KIP-848, "Online migration".
//!
//! JoinGroup tells what they subscribe to and what they have, SyncGroup tells them what they get, Heartbeat that they are
//! to join again: because there is a new target, they have to give something up, or what they wait for is free. The
//! coordinator assigns; none of them leads.

use std::collections::BTreeSet;

use super::heartbeat::{Change, returned};
use super::{ConsumerGroup, Member, Surroundings, Topics};
use crate::format::group_record::{ClassicProtocols, MemberState};
use crate::machine::group::classic::{CONSUMER_PROTOCOL_TYPE, uuid};
use crate::machine::group::embedded::{self, Subscription};
use crate::machine::group::request::{
    GroupError, Heartbeat, JoinGroup, Joined, LeaveGroup, LeftMember, SyncGroup, Synced,
};
use crate::machine::group::turn::Turn;

impl ConsumerGroup {
    /// A classic member joins, or joins again.
    ///
    /// # Errors
    /// When it is another one than it says, or cannot be a member of this group.
    pub(in crate::machine::group) fn join_classic(
        &self,
        turn: &mut Turn<'_>,
        around: &Surroundings<'_>,
        request: &JoinGroup,
    ) -> Result<Joined, GroupError> {
        let limit = turn.settings.consumer_members_max;
        if self.members.len() >= limit && !self.members.contains_key(&request.member_id) {
            return Err(GroupError::GroupMaxSizeReached { limit });
        }
        let bytes = request.protocols.iter().map(|(name, metadata)| name.len() + metadata.len());
        let (bytes, limit) = (bytes.sum(), turn.settings.group_record_bytes_max);
        if bytes > limit {
            return Err(GroupError::GroupTooLarge { bytes, limit });
        }
        let subscription = self.subscription(request)?;
        let is_new = request.member_id.is_empty();
        let member_id = if is_new { uuid(request.fresh_id) } else { request.member_id.clone() };
        if is_new && request.instance_id.is_none() && request.knows_member_id_required {
            return Err(GroupError::MemberIdRequired { member_id });
        }
        let (before, replaced) = self.locate_classic(request, &member_id)?;
        let mut member = before.clone();
        tell_classic(&mut member, request, &subscription);
        let owned = around.topics.places(&subscription.owned);
        let change = Change {
            member_id: &member_id,
            before: &before,
            member,
            replaced,
            owned: Some(&owned),
        };
        let member = self.advance(turn, around, change)?;
        self.disarm(turn, &member_id);
        turn.arm(self.session(&member_id), request.session_timeout_ms);
        turn.arm(self.member_sync(&member_id), request.rebalance_timeout_ms);
        Ok(Joined {
            member_id,
            generation: member.current.epoch,
            protocol_type: Some(CONSUMER_PROTOCOL_TYPE.to_owned()),
            protocol: first_protocol(&member).map(str::to_owned),
            leader: String::new(),
            skip_assignment: false,
            members: Vec::new(),
        })
    }

    /// What a member subscribes to, if the classic members of the group can agree with it on a protocol.
    pub(in crate::machine::group) fn subscription(
        &self,
        request: &JoinGroup,
    ) -> Result<Subscription, GroupError> {
        let has = |name: &str| {
            let mut classic = self.members.values().filter_map(|it| it.told.classic.as_ref());
            classic.all(|it| it.protocols.iter().any(|(known, _)| known == name))
        };
        let agrees = request.protocol_type == CONSUMER_PROTOCOL_TYPE
            && request.protocols.iter().any(|(name, _)| has(name));
        let first = request.protocols.first().filter(|_| agrees);
        let subscription = first.and_then(|(_, metadata)| embedded::subscription(metadata));
        subscription.ok_or(GroupError::InconsistentGroupProtocol)
    }

    /// The member as it is now, and the id of the static member whose place it takes.
    fn locate_classic(
        &self,
        request: &JoinGroup,
        member_id: &str,
    ) -> Result<(Member, Option<String>), GroupError> {
        let known = |member_id: &str| self.members.get(member_id).cloned().unwrap_or_default();
        let Some(instance_id) = &request.instance_id else { return Ok((known(member_id), None)) };
        let is_new = request.member_id.is_empty();
        match self.static_members.get(instance_id) {
            None if is_new => Ok((Member::default(), None)),
            None => Err(GroupError::UnknownMemberId),
            Some(current) if current == member_id => Ok((known(member_id), None)),
            Some(current) if is_new => Ok((returned(&known(current)), Some(current.clone()))),
            Some(_) => Err(GroupError::FencedInstanceId),
        }
    }

    /// The member of that id, and instance id if it names one.
    fn named_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<&Member, GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        self.members.get(member_id).ok_or(GroupError::UnknownMemberId)
    }

    /// The classic member of that id, and instance id if it names one.
    fn classic_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(&Member, &ClassicProtocols), GroupError> {
        let member = self.named_member(member_id, instance_id)?;
        let classic = member.told.classic.as_ref().ok_or(GroupError::UnknownMemberId)?;
        Ok((member, classic))
    }

    /// A classic member asks for its part.
    ///
    /// # Errors
    /// When it is no member of this epoch, or is to join again.
    pub(in crate::machine::group) fn sync_classic(
        &self,
        turn: &mut Turn<'_>,
        topics: &Topics,
        request: &SyncGroup,
    ) -> Result<Synced, GroupError> {
        let member_id = request.member_id.as_str();
        let (member, classic) = self.classic_member(member_id, request.instance_id.as_deref())?;
        if request.generation != member.current.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |told: &Option<String>, is: Option<&str>| {
            told.is_some() && is.is_some() && told.as_deref() != is
        };
        if differs(&request.protocol_type, Some(CONSUMER_PROTOCOL_TYPE))
            || differs(&request.protocol, first_protocol(member))
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let is_revoking = member.current.state == MemberState::UnrevokedPartitions;
        if self.target_epoch > member.current.epoch && !is_revoking {
            self.expect_join(turn, member_id, member);
            return Err(GroupError::RebalanceInProgress);
        }
        turn.timers.disarm(&self.member_sync(member_id));
        turn.arm(self.session(member_id), classic.session_timeout_ms);
        let places = topics.named(member.current.assigned.keys());
        Ok(Synced {
            protocol_type: request.protocol_type.clone(),
            protocol: request.protocol.clone(),
            assignment: embedded::assignment_bytes(version(classic), &places),
        })
    }

    /// A classic member is there.
    ///
    /// # Errors
    /// When it is no member of this epoch, or is to join again.
    pub(in crate::machine::group) fn heartbeat_classic(
        &self,
        turn: &mut Turn<'_>,
        request: &Heartbeat,
    ) -> Result<(), GroupError> {
        let member_id = request.member_id.as_str();
        let (member, classic) = self.classic_member(member_id, request.instance_id.as_deref())?;
        let current = &member.current;
        if request.generation != current.epoch {
            return Err(GroupError::IllegalGeneration);
        }
        turn.arm(self.session(member_id), classic.session_timeout_ms);
        let must_join = match current.state {
            // Whoever joins next makes the target of the group's epoch: it may be the only one to ask.
            _ if current.epoch < self.epoch => true,
            MemberState::UnrevokedPartitions => true,
            MemberState::UnreleasedPartitions => !self.waits_for_others(member_id, member),
            MemberState::Stable | MemberState::Unknown => false,
        };
        if must_join {
            self.expect_join(turn, member_id, member);
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    /// From when it is told on, a member has its rebalance time-out to join again.
    fn expect_join(&self, turn: &mut Turn<'_>, member_id: &str, member: &Member) {
        let timer = self.member_join(member_id);
        if !turn.timers.is_armed(&timer) {
            turn.arm(timer, member.told.rebalance_timeout_ms);
        }
    }

    fn waits_for_others(&self, member_id: &str, member: &Member) -> bool {
        let target = self.target.get(member_id);
        let is_held = |place: &_| {
            !member.current.assigned.contains_key(place) && self.owners.contains_key(place)
        };
        target.is_some_and(|target| target.iter().any(is_held))
    }

    /// Members leave, or are removed by their operator, whatever they speak: what becomes of each, and who is to go.
    pub(in crate::machine::group) fn leavers_classic(
        &self,
        request: LeaveGroup,
    ) -> (Vec<LeftMember>, BTreeSet<String>) {
        let mut gone = BTreeSet::new();
        let left = request.members.into_iter().map(|(member_id, instance_id)| {
            let found = match &instance_id {
                // An operator knows instances, not members.
                Some(instance_id) if member_id.is_empty() => {
                    let current = self.static_members.get(instance_id).cloned();
                    current.ok_or(GroupError::UnknownMemberId)
                }
                _ => {
                    self.named_member(&member_id, instance_id.as_deref()).map(|_| member_id.clone())
                }
            };
            let outcome = found.map(|found| {
                gone.insert(found);
            });
            LeftMember { member_id, instance_id, outcome }
        });
        (left.collect(), gone)
    }
}

/// The protocol that a classic member likes best: the one that it is told.
fn first_protocol(member: &Member) -> Option<&str> {
    let classic = member.told.classic.as_ref()?;
    classic.protocols.first().map(|(name, _)| name.as_str())
}

/// The version in which a classic member tells and is told.
fn version(classic: &ClassicProtocols) -> i16 {
    let first = classic.protocols.first();
    first.and_then(|(_, metadata)| embedded::subscription(metadata)).map_or(0, |it| it.version)
}

/// What a classic member says of itself when it joins.
fn tell_classic(member: &mut Member, request: &JoinGroup, subscription: &Subscription) {
    let told = &mut member.told;
    told.client_id.clone_from(&request.client.id);
    told.client_host.clone_from(&request.client.host);
    if request.instance_id.is_some() {
        told.instance_id.clone_from(&request.instance_id);
    }
    if subscription.rack_id.is_some() {
        told.rack_id.clone_from(&subscription.rack_id);
    }
    told.rebalance_timeout_ms = request.rebalance_timeout_ms;
    let topics: BTreeSet<&String> = subscription.topics.iter().collect();
    told.topics = topics.into_iter().cloned().collect();
    told.expression = Some(String::new());
    told.classic = Some(ClassicProtocols {
        session_timeout_ms: request.session_timeout_ms,
        protocols: request.protocols.clone(),
    });
}
