//! The join phase: how it begins, how long it may take, and the generation that comes out of it.

use super::{ClassicGroup, ClassicState, InitialPhase, Waiting, refuse};
use crate::machine::group::request::{GroupError, GroupResponse};
use crate::machine::group::turn::Turn;

impl ClassicGroup {
    /// Has everybody join again, unless that is under way, and ends the phase when nobody is missing.
    pub(super) fn rebalance(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            ClassicState::PreparingRebalance => {}
            ClassicState::Empty => {
                // The first of a new group: others are likely to come in the next moments.
                let delay_ms = turn.settings.initial_rebalance_delay_ms.max(0);
                let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
                self.initial = Some(InitialPhase { delay_ms, remaining_ms, member_added: false });
                self.enter(turn, ClassicState::PreparingRebalance);
                turn.arm(self.join_timer(), delay_ms);
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                self.stop_waiting_for_syncs(turn);
                self.enter(turn, ClassicState::PreparingRebalance);
            }
        }
        self.try_complete_join(turn);
    }

    fn stop_waiting_for_syncs(&mut self, turn: &mut Turn<'_>) {
        self.pending_syncs.clear();
        turn.timers.disarm(&self.sync_timer());
        let mut told = Vec::new();
        for (member_id, member) in &mut self.members {
            if let Waiting::Sync(_) = member.waiting {
                refuse(turn, member.waiting, &GroupError::RebalanceInProgress);
                member.waiting = Waiting::Nothing;
                told.push(member_id.clone());
            }
        }
        for member_id in told {
            self.heard(turn, &member_id);
        }
    }

    /// Ends the join phase if nobody is missing. An initial phase is held open for its time.
    pub(super) fn try_complete_join(&mut self, turn: &mut Turn<'_>) {
        if self.state != ClassicState::PreparingRebalance || self.initial.is_some() {
            return;
        }
        if self.have_all_joined() {
            self.complete_join(turn);
        } else if !turn.timers.is_armed(&self.join_timer()) {
            turn.arm(self.join_timer(), self.rebalance_timeout_ms());
        }
    }

    /// Goes on after members have left.
    pub(super) fn go_on_without_members(&mut self, turn: &mut Turn<'_>) {
        match self.state {
            ClassicState::Stable | ClassicState::CompletingRebalance => self.rebalance(turn),
            ClassicState::PreparingRebalance => self.try_complete_join(turn),
            ClassicState::Empty => {}
        }
    }

    /// The time of the join phase is up.
    pub(in crate::machine::group) fn join_time_is_up(&mut self, turn: &mut Turn<'_>) {
        if self.state != ClassicState::PreparingRebalance {
            return;
        }
        if let Some(initial) = &mut self.initial
            && initial.member_added
            && initial.remaining_ms > 0
        {
            let delay_ms =
                turn.settings.initial_rebalance_delay_ms.min(initial.remaining_ms).max(0);
            let remaining_ms = (initial.remaining_ms - initial.delay_ms).max(0);
            *initial = InitialPhase { delay_ms, remaining_ms, member_added: false };
            turn.arm(self.join_timer(), delay_ms);
            return;
        }
        self.complete_join(turn);
    }

    /// Begins the next generation with whoever has joined.
    fn complete_join(&mut self, turn: &mut Turn<'_>) {
        turn.timers.disarm(&self.join_timer());
        self.initial = None;
        let is_missing =
            |member: &super::Member| !member.is_joining() && member.instance_id.is_none();
        let members = self.members.iter();
        let missing: Vec<String> =
            members.filter(|(_, member)| is_missing(member)).map(|(id, _)| id.clone()).collect();
        for member_id in missing {
            self.dismiss(turn, &member_id, &GroupError::UnknownMemberId);
        }
        if !self.elect_leader() && !self.members.is_empty() {
            // Static members keep their part until their sessions end, and nobody is here to assign it.
            turn.arm(self.join_timer(), self.rebalance_timeout_ms().max(1));
            return;
        }
        self.generation = self.generation.wrapping_add(1).max(0);
        self.pending_syncs.clear();
        self.protocol = self.select_protocol();
        self.subscribed_topics = self.subscriptions();
        if self.members.is_empty() {
            self.enter(turn, ClassicState::Empty);
            turn.record(self.record());
            return;
        }
        self.enter(turn, ClassicState::CompletingRebalance);
        self.tell_generation(turn);
        turn.arm(self.sync_timer(), self.rebalance_timeout_ms());
    }

    fn tell_generation(&mut self, turn: &mut Turn<'_>) {
        let member_ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in member_ids {
            let joined = self.joined_as(&member_id);
            let Some(member) = self.members.get_mut(&member_id) else { continue };
            member.is_new = false;
            if let Waiting::Join(ticket) = member.waiting {
                member.waiting = Waiting::Nothing;
                turn.reply(ticket, GroupResponse::Join(Ok(joined)));
            }
            self.heard(turn, &member_id);
            self.pending_syncs.insert(member_id);
        }
    }

    /// Has a member lead that has joined; whether there is one.
    fn elect_leader(&mut self) -> bool {
        let leader = self.leader.as_ref().and_then(|leader| self.members.get(leader));
        if leader.is_some_and(super::Member::is_joining) {
            return true;
        }
        let joined = self.members.iter().find(|(_, member)| member.is_joining());
        let Some((member_id, _)) = joined else { return false };
        self.leader = Some(member_id.clone());
        true
    }

    /// A member was not heard of for its session time-out, or did not join with the id that it was given.
    pub(in crate::machine::group) fn session_is_over(
        &mut self,
        turn: &mut Turn<'_>,
        member_id: &str,
    ) {
        if self.pending_joins.remove(member_id) {
            self.try_complete_join(turn);
            return;
        }
        let Some(member) = self.members.get(member_id) else { return };
        // Whoever waits for an answer is not expected to be heard; its session begins anew with the answer.
        if member.is_new || member.waiting == Waiting::Nothing {
            self.dismiss(turn, member_id, &GroupError::UnknownMemberId);
            self.go_on_without_members(turn);
        }
    }

    /// Members did not ask for their part in time: the others share it.
    pub(in crate::machine::group) fn sync_time_is_up(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.state, ClassicState::CompletingRebalance | ClassicState::Stable) {
            return;
        }
        let silent = std::mem::take(&mut self.pending_syncs);
        if silent.is_empty() {
            return;
        }
        for member_id in &silent {
            self.dismiss(turn, member_id, &GroupError::UnknownMemberId);
        }
        self.rebalance(turn);
    }
}
