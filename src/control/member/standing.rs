//! How the group stands, as its leader sees it; any other node asks that one. And how far everybody has come:
//! that each says of itself.

use std::collections::BTreeSet;
use std::time::Duration;

use chronik_shards::model::{MonotonicMicros, NodeId};
use raft::StateRole;

use super::{Member, MemberLog, Send};
use crate::control::handle::{ControlError, ReplyOnce};
use crate::control::members::node_id;
use crate::control::peer_message::PeerMessage;
use crate::control::quorum::{MemberState, QuorumState};
use crate::control::spread::Question;

impl<L: MemberLog> Member<L> {
    /// Finds out how the group stands, of the leader if that is another node.
    pub(in crate::control) fn ask_quorum(
        &mut self,
        now: MonotonicMicros,
        reply: ReplyOnce<QuorumState>,
    ) {
        if let Some(state) = self.quorum(now) {
            return reply.answer(Ok(state));
        }
        let Some((leader, _)) = self.leader() else {
            return reply.answer(Err(ControlError::TimedOut));
        };
        if let Some(number) = self.questions.begin(now, reply) {
            self.outbox.push((leader, PeerMessage::AskQuorum(number)));
        }
    }

    /// How the group stands, if this node leads it.
    pub(super) fn quorum(&self, now: MonotonicMicros) -> Option<QuorumState> {
        let raft = &self.raft.raft;
        if raft.state != StateRole::Leader {
            return None;
        }
        let member = |(id, progress): (&u64, &raft::Progress)| {
            let node = node_id(*id);
            let (heard_ms, caught_up_ms) = match *id == raft.id {
                true => (Some(0), Some(0)),
                false => self.contacts.since(node, now),
            };
            let is_voter = raft.prs().conf().voters().contains(*id);
            let last_index = progress.matched;
            MemberState { node_id: node, is_voter, last_index, heard_ms, caught_up_ms }
        };
        let mut members: Vec<MemberState> = raft.prs().iter().map(member).collect();
        members.sort_by_key(|member| member.node_id);
        let (leader, term) = (node_id(raft.id), raft.term);
        Some(QuorumState { leader, term, committed: raft.raft_log.committed, members })
    }

    /// Of a leader: notes who has all of its log.
    pub(super) fn note_caught_up(&mut self, now: MonotonicMicros) {
        let raft = &self.raft.raft;
        if raft.state != StateRole::Leader {
            return;
        }
        let last = raft.raft_log.last_index();
        for (id, _) in raft.prs().iter().filter(|(_, progress)| progress.matched >= last) {
            self.contacts.caught_up(node_id(*id), now);
        }
    }

    /// Answers when every node that is there has applied the metadata up to `index`, or when `patience` is at
    /// its end.
    pub(in crate::control) fn await_spread(
        &mut self,
        now: MonotonicMicros,
        index: u64,
        patience: Duration,
        reply: ReplyOnce<()>,
    ) {
        let brokers = self.image().brokers().map(|(node, _)| node);
        let others: BTreeSet<NodeId> = brokers.filter(|node| self.is_awaited(*node)).collect();
        let give_up = now.plus_millis(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        let questions = self.spread.begin(now, index, others, give_up, reply);
        self.ask(questions);
    }

    pub(super) fn ask_again(&mut self, now: MonotonicMicros) {
        let mut spread = std::mem::take(&mut self.spread);
        let questions = spread.tick(now, |node| self.is_awaited(node));
        self.spread = spread;
        self.ask(questions);
    }

    /// Tells the peers that asked that the log is applied here as far as they want it.
    pub(super) fn answer_applied(&mut self, send: Send<'_>) {
        for Question { node, number, .. } in self.spread.reached(self.state.image().applied()) {
            send(node, PeerMessage::Applied(number));
        }
    }

    fn ask(&mut self, questions: Vec<Question>) {
        let message =
            |Question { node, number, index }| (node, PeerMessage::AskApplied { number, index });
        self.outbox.extend(questions.into_iter().map(message));
    }

    /// Whether another node is there that is not about to stop.
    pub(in crate::control) fn has_company(&self) -> bool {
        self.image().brokers().any(|(node, _)| self.is_awaited(node))
    }

    /// Whether that is another node, which is there and not about to stop.
    fn is_awaited(&self, node: NodeId) -> bool {
        let broker = self.image().broker(node);
        node != self.config.registration.node_id
            && broker.is_some_and(|broker| !broker.fenced && !broker.draining)
    }
}
