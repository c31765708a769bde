//! Who is in the Raft group, and how that follows what the metadata want.
//!
//! The leader changes the group one node at a time: a node that may come learns first, and votes when it is
//! there, has the log, and there is a vote to be had; a node that is to go leaves the group when the
//! metadata have forgotten it. No change is made after which the voters that are there were no majority.

use chronik_shards::format::metadata_command::{MetadataCommand, NodeNamed};
use chronik_shards::format::metadata_frame::MetadataFormatError;
use chronik_shards::model::{MonotonicMicros, NodeId};
use protobuf::Message as _;
use raft::eraftpb::{ConfChange, ConfChangeType, Entry, EntryType};

use super::{ControlFailure, Member, MemberLog};
use crate::control::handle::ReplyOnce;
use crate::control::members::{Members, VOTERS_MAX, raft_id};

/// Entries that a learner may lack when it becomes a voter.
const PROMOTION_LAG: u64 = 100;
/// Ticks between two looks at the members: what one has proposed is known at the next.
const LOOK_TICKS: usize = 5;

impl<L: MemberLog> Member<L> {
    /// The members of the group, as far as this node has applied its log.
    pub(in crate::control) fn members(&self) -> Members {
        Members::of(&self.raft.raft.prs().conf().to_conf_state())
    }

    /// Follows a change of the group.
    pub(super) fn apply_membership(&mut self, entry: &Entry) -> Result<(), ControlFailure> {
        let unreadable = |reason: String| {
            let error = MetadataFormatError::Body(reason);
            ControlFailure::Unreadable { index: entry.index, error }
        };
        if entry.get_entry_type() != EntryType::EntryConfChange {
            return Err(unreadable("a change of several members at once".to_owned()));
        }
        let change = ConfChange::parse_from_bytes(&entry.data)
            .map_err(|error| unreadable(error.to_string()))?;
        self.state.skip(entry.index);
        // Every node comes to the same: what one refuses all refuse.
        match self.raft.apply_conf_change(&change) {
            Ok(_) => tracing::info!(members = %self.members(), "the Raft group has other members"),
            Err(error) => tracing::warn!(%error, "a change of the Raft group is void"),
        }
        self.snapshot_due = true;
        Ok(())
    }

    /// Brings the group closer to what the metadata want, if this node is the one to do so.
    pub(super) fn look_after_members(&mut self, now: MonotonicMicros) {
        if !self.ticks.is_multiple_of(LOOK_TICKS) || !self.leads() {
            return;
        }
        let own = self.config.registration.node_id;
        if self.image().is_leaving(own) {
            // Whoever goes does not decide about itself.
            self.hand_over();
            return;
        }
        if self.controller.is_none() || self.raft.raft.has_pending_conf() {
            return;
        }
        let members = self.members();
        let has_gone =
            |node: &NodeId| !members.contains(*node) && self.image().broker(*node).is_none();
        let gone = self.image().leaving().find(has_gone);
        if let Some(node_id) = gone {
            let left = MetadataCommand::NodeLeft(NodeNamed { node_id });
            self.propose(now, left.encode(), ReplyOnce::new(Box::new(|_| {})));
            return;
        }
        let Some((kind, node)) = self.next_change(now, &members) else { return };
        let mut change = ConfChange::default();
        change.set_change_type(kind);
        change.node_id = raft_id(node);
        match self.raft.propose_conf_change(Vec::new(), change) {
            Ok(()) => tracing::info!(%node, ?kind, "a change of the Raft group is proposed"),
            Err(error) => tracing::debug!(%node, %error, "a change of the Raft group has to wait"),
        }
    }

    /// What is to be done next, if anything can be.
    fn next_change(
        &self,
        now: MonotonicMicros,
        members: &Members,
    ) -> Option<(ConfChangeType, NodeId)> {
        let image = self.image();
        let may_go = |node: &NodeId| {
            members.contains(*node)
                && image.broker(*node).is_none()
                && self.can_do_without(now, *node)
        };
        if let Some(node) = image.leaving().find(may_go) {
            return Some((ConfChangeType::RemoveNode, node));
        }
        let comes = |node: &NodeId| !members.contains(*node);
        if let Some(node) = image.joining().map(|joining| joining.node_id).find(comes) {
            return Some((ConfChangeType::AddLearnerNode, node));
        }
        if members.voters.len() >= VOTERS_MAX {
            return None;
        }
        let may_vote = |node: &&NodeId| {
            let registered = image.broker(**node).is_some_and(|broker| !broker.fenced);
            registered
                && !image.is_leaving(**node)
                && self.has_the_log(**node)
                && self.is_there(now, **node)
                && self.is_majority_there(now, members.voters.iter().chain([*node]))
        };
        members.learners.iter().find(may_vote).map(|node| (ConfChangeType::AddNode, *node))
    }

    /// Whether a majority of the voters is there when `gone` is none of them.
    pub(super) fn can_do_without(&self, now: MonotonicMicros, gone: NodeId) -> bool {
        let members = self.members();
        let stays = |other: &&NodeId| **other != gone;
        self.is_majority_there(now, members.voters.iter().filter(stays))
    }

    fn has_the_log(&self, node: NodeId) -> bool {
        let raft = &self.raft.raft;
        let progress = raft.prs().get(raft_id(node));
        progress.is_some_and(|it| it.matched + PROMOTION_LAG >= raft.raft_log.last_index())
    }

    /// Whether the node was heard of lately.
    fn is_there(&self, now: MonotonicMicros, node: NodeId) -> bool {
        let (heard_ms, _) = self.contacts.since(node, now);
        node == self.config.registration.node_id
            || heard_ms.is_some_and(|ms| ms < self.config.controller.session_ms)
    }

    fn is_majority_there<'n>(
        &self,
        now: MonotonicMicros,
        voters: impl Iterator<Item = &'n NodeId> + Clone,
    ) -> bool {
        let there = voters.clone().filter(|node| self.is_there(now, **node)).count();
        2 * there > voters.count()
    }
}
