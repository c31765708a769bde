//! One member of the Raft group: proposals, messages and ticks in; entries on the disk, committed
//! commands, messages and answers out.
//!
//! Order, for every entry: on disk, then applied to the state, then handed to every sink, then the
//! proposer's answer. So a client that has its answer finds its topic queued on every shard. Messages
//! that promise something leave only when what they promise is on the disk.
//!
//! Nothing here reads a clock, opens a socket or starts a thread: the control thread does, and the
//! simulation of several members does it in its own way.

mod membership;
mod standing;

use std::collections::BTreeSet;
use std::sync::Arc;

use chronik_shards::format::metadata_command::{MetadataCommand, RegisterBroker};
use chronik_shards::format::metadata_frame::MetadataFormatError;
use chronik_shards::machine::controller::{BrokerHeartbeat, Controller, ControllerSettings};
use chronik_shards::machine::metadata::{MetadataImage, ProposalId, Rejection, ReplicatedState};
use chronik_shards::model::{BrokerEpoch, MonotonicMicros, NodeId};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot};
use raft::{RawNode, SnapshotStatus, StateRole, Storage};

use super::handle::{CommittedCommand, ControlError, MetadataSink, MetadataUpdate, ReplyOnce};
use super::identity::IdentityError;
use super::log::LogError;
use super::members::{Members, node_id, raft_id};
use super::own_proposals::OwnProposals;
use super::peer_message::{Delivery, PeerMessage};
use super::quorum::{Contacts, Questions};
use super::spread::{Question, Spread};
use super::{COMMAND_BYTES_MAX, CompactionPolicy, log_bridge};

/// Ticks between heartbeats of the leader, and of a node to the controller.
pub(super) const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a leader after which the first member stands for election.
const ELECTION_TICKS: usize = 10;
/// Ticks that the next member waits longer: two that stand at once split the votes.
const ELECTION_STAGGER_TICKS: usize = 3;
/// Entries that a leader takes in without having them committed.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Messages with entries on the way to one peer.
const INFLIGHT_MESSAGES_MAX: usize = 64;
/// Entries of one message, beyond its first.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;

/// What a member keeps its log in.
pub(super) trait MemberLog: Storage {
    /// Makes entries and hard state durable. Entries replace those of the same or higher index.
    fn persist(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        sync: bool,
    ) -> Result<(), LogError>;
    /// Replaces everything by a snapshot from the leader.
    fn install(
        &mut self,
        snapshot: &Snapshot,
        hard_state: Option<&HardState>,
    ) -> Result<(), LogError>;
    /// Notes what is committed, durably.
    fn commit_to(&mut self, index: u64) -> Result<(), LogError>;
    /// Replaces everything through `index` by a snapshot with `data`, of a group that had `members` then;
    /// the last `kept` entries stay.
    fn compact(
        &mut self,
        index: u64,
        data: Vec<u8>,
        members: ConfState,
        kept: usize,
    ) -> Result<(), LogError>;
    /// Entries and bytes above the snapshot.
    fn since_snapshot(&self) -> (u64, usize);
    /// Index and bytes of the snapshot; the bytes are empty for a new log.
    fn last_snapshot(&self) -> (u64, &[u8]);
    /// Entries `after + 1 ..= through`, or `None` when some are compacted away.
    fn entries_between(&self, after: u64, through: u64) -> Option<Vec<Entry>>;
}

/// What a member is told at its start.
pub(super) struct MemberConfig {
    /// As configured. Who is in the group its log says.
    pub(super) members: Members,
    pub(super) registration: RegisterBroker,
    pub(super) compaction: CompactionPolicy,
    pub(super) controller: ControllerSettings,
}

/// See the module's head.
pub(super) struct Member<L: MemberLog> {
    raft: RawNode<L>,
    state: ReplicatedState,
    sinks: Vec<MetadataSink>,
    own: OwnProposals,
    config: MemberConfig,
    /// While this node is the controller.
    controller: Option<Controller>,
    /// The leader that the sinks were told of.
    told_leader: Option<NodeId>,
    /// The leader that this node followed last, and when it heard of it.
    followed: Option<(NodeId, MonotonicMicros)>,
    ready: bool,
    ticks: usize,
    /// Questions and answers that leave with what raft sends next.
    outbox: Vec<(NodeId, PeerMessage)>,
    /// While this node leads.
    contacts: Contacts,
    questions: Questions,
    spread: Spread,
    /// The group is another one than that of the last snapshot.
    snapshot_due: bool,
    /// Entries of the log in memory that changed nothing: repeated ones, and those of earlier processes.
    void: BTreeSet<u64>,
}

/// Stop: the log cannot be written, or holds something that this release cannot apply.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlFailure {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("entry {index} of the metadata log: {error}")]
    Unreadable { index: u64, error: MetadataFormatError },
    #[error("the snapshot at {index} of the metadata log: {reason}")]
    Snapshot { index: u64, reason: String },
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The node has nothing to do with the cluster any more.
    #[error("this node was taken off the cluster")]
    TakenOff,
}

/// Where a member's messages go.
pub(super) type Send<'a> = &'a mut dyn FnMut(NodeId, PeerMessage);

impl<L: MemberLog> Member<L> {
    /// A member on its log. It does nothing before it is driven.
    pub(super) fn open(config: MemberConfig, log: L) -> Result<Self, ControlFailure> {
        let (index, data) = log.last_snapshot();
        let state = read_state(index, data)?;
        let node = config.registration.node_id;
        let mut raft_config = raft::Config {
            id: raft_id(node),
            applied: state.image().applied(),
            max_size_per_msg: MESSAGE_BYTES_MAX,
            ..raft::Config::default()
        };
        if !config.members.is_lone() {
            let waits = ELECTION_TICKS + ELECTION_STAGGER_TICKS * config.members.place(node);
            raft_config.heartbeat_tick = HEARTBEAT_TICKS;
            raft_config.election_tick = ELECTION_TICKS;
            // raft draws from between the two; there is nothing to draw.
            raft_config.min_election_tick = waits;
            raft_config.max_election_tick = waits + 1;
            raft_config.check_quorum = true;
            raft_config.pre_vote = true;
            raft_config.max_inflight_msgs = INFLIGHT_MESSAGES_MAX;
            raft_config.max_uncommitted_size = UNCOMMITTED_BYTES_MAX;
        }
        let raft = RawNode::new(&raft_config, log, &log_bridge::logger())?;
        let own = OwnProposals::new(node, config.registration.incarnation);
        Ok(Self {
            raft,
            state,
            sinks: Vec::new(),
            own,
            config,
            controller: None,
            told_leader: None,
            followed: None,
            ready: false,
            ticks: 0,
            outbox: Vec::new(),
            contacts: Contacts::default(),
            questions: Questions::default(),
            spread: Spread::default(),
            snapshot_due: false,
            void: BTreeSet::new(),
        })
    }

    /// Applies what its log knows to be committed.
    pub(super) fn replay(&mut self) -> Result<(), ControlFailure> {
        self.drive(MonotonicMicros(0), &mut |_, _| unreachable!("nobody was heard of yet"))
    }

    /// Alone there is nobody to wait for: the only voter elects itself at once.
    pub(super) fn lead_alone(&mut self) -> Result<(), ControlFailure> {
        assert!(self.config.members.is_lone(), "others have a say");
        self.raft.campaign()?;
        self.drive(MonotonicMicros(0), &mut |_, _| unreachable!("there is nobody to write to"))?;
        assert_eq!(self.raft.raft.state, StateRole::Leader, "the only voter leads");
        Ok(())
    }

    pub(super) fn image(&self) -> &MetadataImage {
        self.state.image()
    }

    /// This incarnation's number, once it is registered.
    pub(super) fn broker_epoch(&self) -> Option<BrokerEpoch> {
        let broker = self.image().broker(self.config.registration.node_id)?;
        (broker.incarnation == self.own.incarnation()).then_some(broker.epoch)
    }

    /// Whether this node, which is in the group as far as it knows, was taken off by a later entry: somebody who has
    /// applied the log up to `applied` does not know it any more.
    pub(super) fn is_gone_at(&self, applied: u64) -> bool {
        let own = self.config.registration.node_id;
        self.members().contains(own) && applied > self.image().applied()
    }

    /// The node that leads the group, as far as this one knows, and its term.
    pub(super) fn leader(&self) -> Option<(NodeId, u64)> {
        let raft = &self.raft.raft;
        (raft.leader_id != 0).then(|| (node_id(raft.leader_id), raft.term))
    }

    /// Whether this node leads the group.
    pub(super) fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Has the voter that has most of the log take over the group. False when there is nothing to hand
    /// over.
    pub(super) fn hand_over(&mut self) -> bool {
        if !self.leads() {
            return false;
        }
        let raft = &self.raft.raft;
        let members = self.members();
        let voters = members.voters.iter().map(|node| raft_id(*node));
        let matched = |id: u64| {
            let progress = raft.prs().get(id).filter(|progress| progress.recent_active)?;
            Some((progress.matched, id))
        };
        let heir = voters.filter(|id| *id != raft.id).filter_map(matched).max();
        match heir {
            Some((_, heir)) => self.raft.transfer_leader(heir),
            None => return false,
        }
        true
    }

    /// Whether this node has the controller's duties.
    #[cfg(test)]
    pub(super) fn is_controller(&self) -> bool {
        self.controller.is_some()
    }

    /// From now on the node can serve.
    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Proposes this node's registration, until it is committed.
    pub(super) fn register(&mut self, now: MonotonicMicros, reply: ReplyOnce) {
        let command = MetadataCommand::RegisterBroker(self.config.registration.clone());
        self.propose_as(now, command.encode(), reply, true);
    }

    /// Proposes a command.
    pub(super) fn propose(&mut self, now: MonotonicMicros, command: Vec<u8>, reply: ReplyOnce) {
        self.propose_as(now, command, reply, false);
    }

    fn propose_as(
        &mut self,
        now: MonotonicMicros,
        command: Vec<u8>,
        reply: ReplyOnce,
        vital: bool,
    ) {
        match self.own.begin(now, command, reply, vital) {
            Ok(number) => self.attempt(now, number),
            Err(reply) => reply.answer(Err(ControlError::Busy)),
        }
    }

    fn attempt(&mut self, now: MonotonicMicros, number: u64) {
        let Some(attempt) = self.own.attempt(number) else { return };
        let asked = self.asked();
        // Refused without a leader, or by one that has taken in too much: it has its turn again.
        let proposed = self.raft.propose(attempt.context, attempt.command).is_ok();
        self.own.asked(attempt.number, now, proposed.then_some(asked));
    }

    fn asked(&self) -> (u64, u64) {
        (self.raft.raft.leader_id, self.raft.raft.term)
    }

    /// Hands `sink` everything after index `after`, now and from now on.
    pub(super) fn subscribe(&mut self, after: u64, sink: MetadataSink) {
        let applied = self.image().applied();
        match self.raft.store().entries_between(after, applied) {
            Some(missed) => {
                let had_effect =
                    |entry: &&Entry| is_command(entry) && !self.void.contains(&entry.index);
                for entry in missed.iter().filter(had_effect) {
                    let command = MetadataCommand::decode(&entry.data)
                        .expect("an applied entry decoded when it was applied");
                    let committed = CommittedCommand { index: entry.index, command };
                    sink(MetadataUpdate::Command(Arc::new(committed)));
                }
            }
            None => sink(MetadataUpdate::Image(Arc::new(self.image().clone()))),
        }
        sink(MetadataUpdate::Controller(self.told_leader));
        self.sinks.push(sink);
    }

    /// Takes a message of an authenticated peer.
    pub(super) fn step(&mut self, now: MonotonicMicros, from: NodeId, message: PeerMessage) {
        self.contacts.heard(from, now);
        if self.leader().is_some_and(|(leader, _)| leader == from) {
            self.followed = Some((from, now));
        }
        match message {
            PeerMessage::Heartbeat(heartbeat) => {
                if let Some(controller) = &mut self.controller
                    && heartbeat.node_id == from
                {
                    controller.heartbeat(now, self.state.image(), heartbeat);
                }
            }
            PeerMessage::AskQuorum(number) => {
                // Who does not lead does not know: the one that asks asks again.
                if let Some(state) = self.quorum(now) {
                    self.outbox.push((from, PeerMessage::Quorum(number, state)));
                }
            }
            PeerMessage::Quorum(number, state) => self.questions.answer(number, state),
            PeerMessage::AskApplied { number, index } => {
                self.spread.note(Question { node: from, number, index });
            }
            PeerMessage::Applied(number) => self.spread.applied(from, number),
            PeerMessage::Raft(message) => {
                let is_proposal = message.get_msg_type() == MessageType::MsgPropose;
                if message.from != raft_id(from)
                    || message.to != self.raft.raft.id
                    || (is_proposal && !self.may_take(&message))
                {
                    return;
                }
                if let Err(error) = self.raft.step(*message) {
                    tracing::debug!(%from, %error, "a message between control planes is dropped");
                }
            }
        }
    }

    /// Whether a peer's proposal goes into the log. Only a leader takes it: one that passed it on could
    /// bring back, late, what its proposer has long proposed again. And only what can be applied: an
    /// entry that does not decode would stop every node.
    fn may_take(&self, message: &Message) -> bool {
        let fits = |entry: &Entry| {
            entry.get_entry_type() == EntryType::EntryNormal
                && entry.data.len() <= COMMAND_BYTES_MAX
                && ProposalId::decode(&entry.context).is_some()
                && MetadataCommand::decode(&entry.data).is_ok()
        };
        self.raft.raft.state == StateRole::Leader && message.entries.iter().all(fits)
    }

    /// Takes note of what became of messages.
    pub(super) fn report(&mut self, to: NodeId, delivery: Delivery) {
        let to = raft_id(to);
        match delivery {
            Delivery::Lost => self.raft.report_unreachable(to),
            Delivery::SnapshotSent => self.raft.report_snapshot(to, SnapshotStatus::Finish),
            Delivery::SnapshotLost => self.raft.report_snapshot(to, SnapshotStatus::Failure),
        }
    }

    /// A tick has passed: elections, heartbeats, proposals again, the controller's duties.
    pub(super) fn tick(&mut self, now: MonotonicMicros, send: Send<'_>) {
        self.raft.tick();
        self.ticks += 1;
        self.note_caught_up(now);
        self.questions.give_up(now);
        self.ask_again(now);
        for reply in self.own.overdue(now) {
            reply.answer(Err(ControlError::TimedOut));
        }
        if let Some((leader, _)) = self.leader() {
            let is_self = leader == self.config.registration.node_id;
            for number in self.own.due(now, self.asked(), is_self) {
                self.attempt(now, number);
            }
            if self.ticks.is_multiple_of(HEARTBEAT_TICKS) {
                self.heartbeat(now, leader, send);
            }
        }
        self.look_after_members(now);
        let Some(controller) = &mut self.controller else { return };
        for command in controller.tick(now, self.state.image()) {
            // A process that is unregistered ends: the group must be able to do without.
            if let MetadataCommand::UnregisterBroker(gone) = &command
                && !self.can_do_without(now, gone.node_id)
            {
                continue;
            }
            // Its effect is what the controller looks at.
            self.propose(now, command.encode(), ReplyOnce::new(Box::new(|_| {})));
        }
    }

    fn heartbeat(&mut self, now: MonotonicMicros, leader: NodeId, send: Send<'_>) {
        let Some(broker_epoch) = self.broker_epoch() else { return };
        let node_id = self.config.registration.node_id;
        let applied = self.image().applied();
        let heartbeat = BrokerHeartbeat { node_id, broker_epoch, applied, ready: self.ready };
        if leader != node_id {
            send(leader, PeerMessage::Heartbeat(heartbeat));
        } else if let Some(controller) = &mut self.controller {
            controller.heartbeat(now, self.state.image(), heartbeat);
        }
    }

    /// Performs what raft wants done until it wants nothing.
    pub(super) fn drive(
        &mut self,
        now: MonotonicMicros,
        send: Send<'_>,
    ) -> Result<(), ControlFailure> {
        for (to, message) in self.outbox.drain(..) {
            send(to, message);
        }
        while self.raft.has_ready() {
            let mut ready = self.raft.ready();
            send_all(ready.take_messages(), send);
            if !ready.snapshot().is_empty() {
                self.install(ready.snapshot(), ready.hs())?;
            }
            let sync = ready.must_sync();
            self.raft.mut_store().persist(ready.entries(), ready.hs(), sync)?;
            send_all(ready.take_persisted_messages(), send);
            self.apply(&ready.take_committed_entries())?;

            let mut light = self.raft.advance(ready);
            send_all(light.take_messages(), send);
            self.apply(&light.take_committed_entries())?;
            self.raft.advance_apply();
        }
        self.begin_or_end_duties(now);
        self.tell_leader();
        self.answer_applied(send);
        self.compact_if_due()
    }

    fn install(
        &mut self,
        snapshot: &Snapshot,
        hard_state: Option<&HardState>,
    ) -> Result<(), ControlFailure> {
        let index = snapshot.get_metadata().index;
        let state = read_state(index, snapshot.get_data())?;
        self.raft.mut_store().install(snapshot, hard_state)?;
        self.raft.mut_store().commit_to(index)?;
        self.state = state;
        self.void.clear();
        let image = Arc::new(self.image().clone());
        for sink in &self.sinks {
            sink(MetadataUpdate::Image(Arc::clone(&image)));
        }
        let (node, incarnation) = (self.config.registration.node_id, self.own.incarnation());
        let state = &self.state;
        for reply in self.own.take_where(|number| state.contains(node, incarnation, number)) {
            reply.answer(Err(ControlError::OutcomeUnknown));
        }
        Ok(())
    }

    fn apply(&mut self, entries: &[Entry]) -> Result<(), ControlFailure> {
        if let Some(last) = entries.last() {
            self.raft.mut_store().commit_to(last.index)?;
        }
        for entry in entries {
            if entry.get_entry_type() != EntryType::EntryNormal {
                self.apply_membership(entry)?;
                continue;
            }
            if !is_command(entry) {
                // A new leader's empty entry.
                self.state.skip(entry.index);
                continue;
            }
            let command = MetadataCommand::decode(&entry.data)
                .map_err(|error| ControlFailure::Unreadable { index: entry.index, error })?;
            let proposal = ProposalId::decode(&entry.context);
            let Some(applied) = self.state.apply(entry.index, proposal.as_ref(), &command) else {
                self.void.insert(entry.index);
                continue;
            };
            if matches!(applied.outcome, Err(Rejection::StaleProposer(_))) {
                self.void.insert(entry.index);
            } else {
                let committed = Arc::new(CommittedCommand { index: entry.index, command });
                for sink in &self.sinks {
                    sink(MetadataUpdate::Command(Arc::clone(&committed)));
                }
            }
            if let Some(reply) = proposal.and_then(|id| self.own.settled(&id)) {
                reply.answer(applied.outcome.map_err(ControlError::from));
            }
        }
        Ok(())
    }

    /// The duties begin when everything that earlier controllers did is applied here.
    fn begin_or_end_duties(&mut self, now: MonotonicMicros) {
        let raft = &self.raft.raft;
        let is_due = !self.config.members.is_lone()
            && raft.state == StateRole::Leader
            && raft.apply_to_current_term()
            // Proposals of a node that is not registered are void.
            && self.broker_epoch().is_some();
        if is_due && self.controller.is_none() {
            let settings = self.config.controller.clone();
            let (image, followed) = (self.state.image(), self.followed);
            self.controller = Some(Controller::new(settings, image, followed, now));
            tracing::info!(term = raft.term, "this node is the controller");
        } else if !is_due && self.controller.take().is_some() {
            tracing::info!("this node is no longer the controller");
        }
    }

    fn tell_leader(&mut self) {
        let leader = self.leader().map(|(leader, _)| leader);
        if leader != self.told_leader {
            self.told_leader = leader;
            for sink in &self.sinks {
                sink(MetadataUpdate::Controller(leader));
            }
        }
    }

    fn compact_if_due(&mut self) -> Result<(), ControlFailure> {
        let (entries, bytes) = self.raft.store().since_snapshot();
        let policy = self.config.compaction;
        let index = self.image().applied();
        let (last, _) = self.raft.store().last_snapshot();
        let is_long = entries >= policy.entries as u64 || bytes >= policy.bytes;
        if index == last || !(is_long || self.snapshot_due) {
            return Ok(());
        }
        // From entries alone a node that comes would not learn who was in the group at first. After a change
        // of the members nobody has them from the first any more, and sends a snapshot instead.
        let kept = if self.snapshot_due { 0 } else { policy.kept_entries };
        self.snapshot_due = false;
        let (data, members) = (self.state.encode(), self.raft.raft.prs().conf().to_conf_state());
        self.raft.mut_store().compact(index, data, members, kept)?;
        let first = self.raft.store().first_index()?;
        self.void = self.void.split_off(&first);
        Ok(())
    }
}

fn read_state(index: u64, data: &[u8]) -> Result<ReplicatedState, ControlFailure> {
    let state = match data {
        [] => ReplicatedState::default(),
        data => ReplicatedState::decode(data).map_err(|error| {
            let reason = error.to_string();
            ControlFailure::Snapshot { index, reason }
        })?,
    };
    let applied = state.image().applied();
    if applied != index {
        let reason = format!("it holds an image at {applied}");
        return Err(ControlFailure::Snapshot { index, reason });
    }
    Ok(state)
}

fn send_all(messages: Vec<Message>, send: &mut dyn FnMut(NodeId, PeerMessage)) {
    for message in messages {
        send(node_id(message.to), PeerMessage::Raft(Box::new(message)));
    }
}

fn is_command(entry: &Entry) -> bool {
    entry.get_entry_type() == EntryType::EntryNormal && !entry.data.is_empty()
}
