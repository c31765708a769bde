//! JoinGroup: new members, members that come back, static members under a new id. Source: KIP-345, KIP-394.

use super::{ClassicGroup, ClassicState, Member, Waiting, refuse};
use crate::machine::group::request::{GroupError, GroupResponse, JoinGroup, Joined, Ticket};
use crate::machine::group::turn::Turn;

impl ClassicGroup {
    /// A member joins; it is answered at once or when the join phase ends.
    pub(in crate::machine::group) fn join(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        request: JoinGroup,
    ) {
        match self.try_join(turn, ticket, request) {
            Ok(None) => {}
            Ok(Some(joined)) => turn.reply(ticket, GroupResponse::Join(Ok(joined))),
            Err(error) => turn.reply(ticket, GroupResponse::Join(Err(error))),
        }
    }

    fn try_join(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        request: JoinGroup,
    ) -> Result<Option<Joined>, GroupError> {
        if !self.accepts(turn, &request.member_id) {
            // A member that the group has no room for any more is out, as if its time to join were up.
            if self.state == ClassicState::PreparingRebalance {
                self.dismiss(turn, &request.member_id, &GroupError::UnknownMemberId);
                self.try_complete_join(turn);
            }
            return Err(GroupError::GroupMaxSizeReached { limit: turn.settings.members_max });
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        self.check_bytes(turn, &request)?;
        if request.member_id.is_empty() {
            return self.join_new(turn, ticket, request);
        }
        if self.pending_joins.contains(&request.member_id) {
            let member_id = request.member_id.clone();
            self.add(turn, ticket, request, member_id);
            return Ok(None);
        }
        self.join_known(turn, ticket, request)
    }

    /// Whether there is room. During the join phase those who have joined count, so that a group that is too
    /// large loses whoever comes last.
    fn accepts(&self, turn: &Turn<'_>, member_id: &str) -> bool {
        let members_max = turn.settings.members_max;
        let known = self.members.get(member_id);
        let pending = self.pending_joins.iter().filter(|id| *id != member_id).count();
        match self.state {
            ClassicState::Empty => pending < members_max,
            ClassicState::PreparingRebalance => {
                let joining = self.members.values().filter(|member| member.is_joining()).count();
                known.is_some_and(Member::is_joining) || joining + pending < members_max
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                known.is_some() || self.members.len() + pending < members_max
            }
        }
    }

    fn check_bytes(&self, turn: &Turn<'_>, request: &JoinGroup) -> Result<(), GroupError> {
        let limit = turn.settings.group_record_bytes_max.saturating_mul(4);
        let added = request.protocols.iter().map(|(name, metadata)| name.len() + metadata.len());
        let bytes = self.bytes.saturating_add(added.sum());
        if bytes > limit { Err(GroupError::GroupTooLarge { bytes, limit }) } else { Ok(()) }
    }

    fn join_new(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        request: JoinGroup,
    ) -> Result<Option<Joined>, GroupError> {
        let name = request.instance_id.as_ref().unwrap_or(&request.client.id);
        let member_id = format!("{name}-{}", uuid(request.fresh_id));
        if let Some(instance_id) = &request.instance_id {
            if let Some(old) = self.static_members.get(instance_id).cloned() {
                self.replace(turn, ticket, request, &old, member_id);
            } else {
                self.add(turn, ticket, request, member_id);
            }
            return Ok(None);
        }
        if request.knows_member_id_required {
            turn.arm(self.session(&member_id), request.session_timeout_ms);
            self.pending_joins.insert(member_id.clone());
            return Err(GroupError::MemberIdRequired { member_id });
        }
        self.add(turn, ticket, request, member_id);
        Ok(None)
    }

    fn join_known(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        request: JoinGroup,
    ) -> Result<Option<Joined>, GroupError> {
        let member_id = request.member_id.as_str();
        self.validate(member_id, request.instance_id.as_deref())?;
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        let is_same = member.protocols == request.protocols;
        let is_leader = self.leader.as_deref() == Some(member_id);
        match self.state {
            // The answer to its first request may have been lost.
            ClassicState::CompletingRebalance if is_same => Ok(Some(self.joined_as(member_id))),
            // A leader that joins again knows of a change that the coordinator cannot see.
            ClassicState::Stable if is_same && !is_leader => {
                Ok(Some(self.joined(member_id, Vec::new())))
            }
            ClassicState::PreparingRebalance
            | ClassicState::CompletingRebalance
            | ClassicState::Stable => {
                let member_id = request.member_id.clone();
                self.update(turn, ticket, &request, &member_id);
                self.rebalance(turn);
                Ok(None)
            }
            ClassicState::Empty => Err(GroupError::UnknownMemberId),
        }
    }

    /// A member that was not there.
    fn add(&mut self, turn: &mut Turn<'_>, ticket: Ticket, request: JoinGroup, member_id: String) {
        if let Some(initial) = &mut self.initial {
            initial.member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        let member = Member {
            instance_id: request.instance_id,
            client_id: request.client.id,
            client_host: request.client.host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: bytes::Bytes::new(),
            is_new: true,
            waiting: Waiting::Join(ticket),
        };
        // It knows no id to send heartbeats with, and nobody sees its connection end. So its request is not
        // held for ever; a client that is there asks again.
        turn.arm(self.session(&member_id), turn.settings.new_member_join_timeout_ms);
        self.insert(member_id, member);
        self.rebalance(turn);
    }

    /// What a member says of itself replaces what it said before; it waits for the end of the phase.
    fn update(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        request: &JoinGroup,
        member_id: &str,
    ) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        let before = member.bytes();
        member.protocols.clone_from(&request.protocols);
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        self.bytes = self.bytes - before + member.bytes();
        let earlier = std::mem::replace(&mut member.waiting, Waiting::Join(ticket));
        refuse(turn, earlier, &GroupError::RebalanceInProgress);
    }

    /// A static member has started again: it takes the place, and the part, of its former self.
    fn replace(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        request: JoinGroup,
        old: &str,
        member_id: String,
    ) {
        let old_leader = self.leader.clone().unwrap_or_default();
        let was_leader = old_leader == old;
        turn.timers.disarm(&self.session(old));
        let Some(mut member) = self.remove(old) else { return };
        refuse(turn, member.waiting, &GroupError::FencedInstanceId);
        member.waiting = Waiting::Nothing;
        member.is_new = false;
        member.protocols = request.protocols.clone();
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        self.insert(member_id.clone(), member);
        if was_leader {
            self.leader = Some(member_id.clone());
        }
        self.heard(turn, &member_id);
        let keeps_protocol = self.select_protocol() == self.protocol;
        if self.state == ClassicState::Stable && keeps_protocol {
            // The new id must outlive this coordinator: commits and heartbeats will name it.
            turn.record(self.record());
            let joined = if request.knows_skip_assignment {
                Joined { skip_assignment: was_leader, ..self.joined_as(&member_id) }
            } else {
                // It is not told that it leads, or it would assign anew without a rebalance.
                Joined { leader: old_leader, ..self.joined(&member_id, Vec::new()) }
            };
            turn.reply_after_records(ticket, GroupResponse::Join(Ok(joined)));
            return;
        }
        // In the phase that waits for the leader's assignment it would be made out to the old id.
        self.update(turn, ticket, &request, &member_id);
        self.rebalance(turn);
    }
}

/// As Java prints one of version 4.
pub(in crate::machine::group) fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::with_capacity(36);
    for (place, byte) in bytes.iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        for digit in [byte >> 4, byte & 0x0f] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text
}
