//! How the group stands, as its leader sees it; any other node asks that one.

use chronik_shards::model::MonotonicMicros;
use raft::StateRole;

use super::{Member, MemberLog};
use crate::control::handle::{ControlError, ReplyOnce};
use crate::control::members::node_id;
use crate::control::peer_message::PeerMessage;
use crate::control::quorum::{MemberState, QuorumState};

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
}
