//! SyncGroup, Heartbeat and LeaveGroup.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{ClassicGroup, ClassicState, Waiting, refuse};
use crate::format::group_record::GroupRecord;
use crate::machine::group::request::{
    GroupError, GroupResponse, Heartbeat, LeaveGroup, LeftMember, SyncGroup, Ticket,
};
use crate::machine::group::turn::Turn;

impl ClassicGroup {
    /// A member asks for its part; it is answered when the leader has brought it and it is committed.
    pub(in crate::machine::group) fn sync(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        request: SyncGroup,
    ) {
        if let Err(error) = self.try_sync(turn, ticket, request) {
            turn.reply(ticket, GroupResponse::Sync(Err(error)));
        }
    }

    fn try_sync(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        request: SyncGroup,
    ) -> Result<(), GroupError> {
        let member_id = request.member_id.as_str();
        if self.state == ClassicState::Empty {
            return Err(GroupError::UnknownMemberId);
        }
        self.validate(member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |told: &Option<String>, is: &Option<String>| {
            told.is_some() && is.is_some() && told != is
        };
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        match self.state {
            ClassicState::Empty => return Err(GroupError::UnknownMemberId),
            ClassicState::PreparingRebalance => return Err(GroupError::RebalanceInProgress),
            ClassicState::CompletingRebalance => {
                self.has_synced(turn, member_id);
                if self.leader.as_deref() == Some(member_id) {
                    self.wait_for_sync(turn, ticket, member_id);
                    return self.assign(turn, ticket, request.assignments);
                }
                self.wait_for_sync(turn, ticket, member_id);
            }
            ClassicState::Stable => {
                self.has_synced(turn, member_id);
                let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
                let synced = self.synced(member);
                turn.reply_after_records(ticket, GroupResponse::Sync(Ok(synced)));
            }
        }
        Ok(())
    }

    fn has_synced(&mut self, turn: &mut Turn<'_>, member_id: &str) {
        self.pending_syncs.remove(member_id);
        if self.pending_syncs.is_empty() {
            turn.timers.disarm(&self.sync_timer());
        }
    }

    fn wait_for_sync(&mut self, turn: &mut Turn<'_>, ticket: Ticket, member_id: &str) {
        let Some(member) = self.members.get_mut(member_id) else { return };
        let earlier = std::mem::replace(&mut member.waiting, Waiting::Sync(ticket));
        refuse(turn, earlier, &GroupError::RebalanceInProgress);
    }

    /// The leader's assignment: it is recorded, and everybody who waits gets its part.
    fn assign(
        &mut self,
        turn: &mut Turn<'_>,
        ticket: Ticket,
        assignments: Vec<(String, Bytes)>,
    ) -> Result<(), GroupError> {
        let mut assignments: BTreeMap<String, Bytes> = assignments.into_iter().collect();
        let member_ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in &member_ids {
            // What stays must not keep the request's memory.
            let assignment = assignments.remove(member_id).unwrap_or_default();
            self.set_assignment(member_id, Bytes::copy_from_slice(&assignment));
        }
        let record = self.record();
        let limit = turn.settings.group_record_bytes_max;
        let bytes = record_bytes(&record);
        if bytes > limit {
            for member_id in &member_ids {
                self.set_assignment(member_id, Bytes::new());
            }
            // The leader learns why, the others that they are to join again; so it is to, next time.
            if let Some(member) = self.leader.as_ref().and_then(|id| self.members.get_mut(id)) {
                assert_eq!(member.waiting, Waiting::Sync(ticket), "the leader asks");
                member.waiting = Waiting::Nothing;
            }
            self.rebalance(turn);
            return Err(GroupError::GroupTooLarge { bytes, limit });
        }
        turn.record(record);
        self.enter(turn, ClassicState::Stable);
        for member_id in member_ids {
            let Some(member) = self.members.get(&member_id) else { continue };
            let Waiting::Sync(waiting) = member.waiting else { continue };
            let synced = self.synced(member);
            turn.reply_after_records(waiting, GroupResponse::Sync(Ok(synced)));
            self.heard(turn, &member_id);
            if let Some(member) = self.members.get_mut(&member_id) {
                member.waiting = Waiting::Nothing;
            }
        }
        Ok(())
    }

    /// A member is there.
    ///
    /// # Errors
    /// When it is not of this generation, or is to join again.
    pub(in crate::machine::group) fn heartbeat(
        &mut self,
        turn: &mut Turn<'_>,
        request: &Heartbeat,
    ) -> Result<(), GroupError> {
        self.validate(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        self.heard(turn, &request.member_id);
        match self.state {
            ClassicState::Empty => Err(GroupError::UnknownMemberId),
            ClassicState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            ClassicState::CompletingRebalance | ClassicState::Stable => Ok(()),
        }
    }

    /// Members leave, or are removed by their operator.
    pub(in crate::machine::group) fn leave(
        &mut self,
        turn: &mut Turn<'_>,
        request: LeaveGroup,
    ) -> Vec<LeftMember> {
        let mut left = Vec::with_capacity(request.members.len());
        for (member_id, instance_id) in request.members {
            let outcome = self.leave_one(turn, &member_id, instance_id.as_deref());
            left.push(LeftMember { member_id, instance_id, outcome });
        }
        if left.iter().any(|member| member.outcome.is_ok()) {
            self.go_on_without_members(turn);
        }
        left
    }

    fn leave_one(
        &mut self,
        turn: &mut Turn<'_>,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        let member_id = match instance_id {
            // An operator knows instances, not members.
            Some(instance_id) if member_id.is_empty() => {
                let current = self.static_members.get(instance_id).cloned();
                current.ok_or(GroupError::UnknownMemberId)?
            }
            _ => member_id.to_owned(),
        };
        if !self.pending_joins.contains(&member_id) {
            self.validate(&member_id, instance_id)?;
        }
        self.dismiss(turn, &member_id, &GroupError::UnknownMemberId);
        Ok(())
    }
}

/// What the value of a record takes.
fn record_bytes(record: &GroupRecord) -> usize {
    record.encode().1.map_or(0, |value| value.len())
}
