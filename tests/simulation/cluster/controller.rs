//! The controller as an oracle: the real metadata image, one order of commands, told to each node late.

use chronik_shards::format::metadata_command::{
    BrokerIncarnation, ChangePartition, ElectLeaders, Election, IsrMember, LedPartition,
    MetadataCommand, RegisterBroker,
};
use chronik_shards::machine::effect::RecoveredPartition;
use chronik_shards::machine::input::PartitionSpec;
use chronik_shards::machine::metadata::{
    ApplyOutcome, MetadataChange, MetadataImage, Partition, Rejection, Topic,
};
use chronik_shards::machine::replica::{ReplicaAssignment, ReplicaNode};

use super::*;

/// A node that says nothing for so long is fenced.
const SESSION_MICROS: u64 = 900_000;

/// A proposal on its way to the controller.
#[derive(Clone, Debug)]
pub struct Proposal {
    seat: usize,
    shard: usize,
    incarnation: u64,
    change: ChangePartition,
}

/// A refusal on its way back.
#[derive(Clone, Copy, Debug)]
struct Refused {
    seat: usize,
    shard: usize,
    incarnation: u64,
    key: ReplicaKey,
    partition_epoch: i32,
}

/// What a process says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pub incarnation: u64,
    pub shards: u16,
    pub directory: u8,
}

/// All that the control plane knows.
#[derive(Default)]
pub struct Controller {
    image: MetadataImage,
    log: Vec<MetadataCommand>,
    /// What each node has applied.
    views: [MetadataImage; NODES],
    heard_at: [u64; NODES],
    is_cut: [bool; NODES],
    pub proposals: Vec<Proposal>,
    refused: Vec<Refused>,
    /// Leaders that were not in sync when they were elected, but eligible.
    pub elected_from_elr: u64,
}

impl Controller {
    pub fn view(&self, seat: usize) -> &MetadataImage {
        &self.views[seat]
    }

    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    pub fn heal(&mut self) {
        self.is_cut = [false; NODES];
    }

    pub fn cut(&mut self, seat: usize, is_cut: bool) {
        self.is_cut[seat] = is_cut;
    }

    /// What it still has to do; nothing when that is empty.
    pub fn unrest(&self) -> String {
        let told: Vec<u64> = self.views.iter().map(MetadataImage::applied).collect();
        let fenced: Vec<NodeId> =
            self.image.brokers().filter(|(_, it)| it.fenced).map(|(node, _)| node).collect();
        let is_told = told.iter().all(|told| *told == self.image.applied());
        if is_told && fenced.is_empty() && self.proposals.is_empty() && self.refused.is_empty() {
            return String::new();
        }
        let moving: Vec<_> = self
            .image
            .topics()
            .flat_map(|topic| topic.replicas())
            .filter(|(_, found)| found.isr.len() < found.replicas.len())
            .collect();
        let (proposals, refused, applied) = (&self.proposals, &self.refused, self.image.applied());
        format!(
            "{proposals:?}, {refused:?}, fenced {fenced:?}, told {told:?} of {applied}, {moving:?}"
        )
    }

    pub(super) fn apply(&mut self, command: MetadataCommand) -> Result<ApplyOutcome, Rejection> {
        let index = self.log.len() as u64 + 1;
        let leaderless = |(_, found): &(ReplicaKey, &Partition)| found.leader.is_none();
        let before: Vec<(ReplicaKey, Partition)> = (self.image.topics())
            .flat_map(Topic::replicas)
            .filter(leaderless)
            .map(|(key, found)| (key, found.clone()))
            .collect();
        let applied = self.image.apply(index, &command);
        let from_elr = |(key, before): &&(ReplicaKey, Partition)| {
            let leader = self.image.partition(*key).and_then(|found| found.leader);
            leader.is_some_and(|leader| before.elr.contains(&leader))
        };
        self.elected_from_elr += before.iter().filter(from_elr).count() as u64;
        self.log.push(command);
        self.image.check_invariants();
        applied.outcome
    }

    /// A node is here, in a new incarnation: it gets everything up to its own registration at once.
    pub fn register(&mut self, node_id: NodeId, process: Process, micros: u64) -> BrokerEpoch {
        let Process { incarnation, shards, directory } = process;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&incarnation.to_be_bytes());
        id[8..12].copy_from_slice(&node_id.0.to_be_bytes());
        let register = RegisterBroker {
            node_id,
            incarnation: id,
            shards,
            host: "sim".to_owned(),
            port: 1,
            directory_id: [1 + directory; 16],
            rack: None,
            control: None,
            replication: None,
            fenced: true,
        };
        let outcome = self.apply(MetadataCommand::RegisterBroker(register));
        let Ok(ApplyOutcome::BrokerRegistered { broker_epoch }) = outcome else {
            panic!("a registration comes through: {outcome:?}")
        };
        let seat = seat_of(node_id);
        self.heard_at[seat] = micros;
        while self.next_changes(seat).is_some() {}
        broker_epoch
    }

    /// Tells a node the next command; `None` when it knows all.
    fn next_changes(&mut self, seat: usize) -> Option<Vec<MetadataChange>> {
        let view = &mut self.views[seat];
        let index = view.applied();
        let command = self.log.get(index as usize)?;
        Some(view.apply(index + 1, command).changes)
    }

    fn members(&self, nodes: impl Iterator<Item = NodeId>) -> Vec<IsrMember> {
        let member = |node_id| {
            let broker_epoch = self.image.broker(node_id).expect("a replica is registered").epoch;
            IsrMember { node_id, broker_epoch }
        };
        nodes.map(member).collect()
    }

    fn keys(&self) -> Vec<ReplicaKey> {
        let replicas = |topic: &chronik_shards::machine::metadata::Topic| {
            topic.replicas().map(|(key, _)| key).collect::<Vec<_>>()
        };
        self.image.topics().flat_map(replicas).collect()
    }

    /// Gives a partition a leader and an in-sync set.
    fn change(&mut self, key: ReplicaKey, leader: Option<NodeId>, isr: &[NodeId]) {
        let current = self.image.partition(key).expect("a known partition").clone();
        let change = ChangePartition {
            key,
            leader_epoch: current.leader_epoch,
            partition_epoch: current.partition_epoch,
            leader,
            isr: self.members(isr.iter().copied()),
            replicas: current.replicas,
        };
        self.apply(MetadataCommand::ChangePartition(change)).expect("the oracle keeps the guards");
    }

    fn is_fenced(&self, seat: usize) -> bool {
        self.image.broker(node_id(seat)).is_none_or(|broker| broker.fenced)
    }

    fn incarnation(&self, seat: usize) -> Option<BrokerIncarnation> {
        let node_id = node_id(seat);
        let broker_epoch = self.image.broker(node_id)?.epoch;
        Some(BrokerIncarnation { node_id, broker_epoch })
    }

    /// Others lead what a silent node led.
    pub(super) fn fence(&mut self, seat: usize) {
        if let Some(incarnation) = self.incarnation(seat) {
            let fenced = self.apply(MetadataCommand::FenceBroker(incarnation));
            fenced.expect("it is the current incarnation");
        }
    }

    pub(super) fn unfence(&mut self, seat: usize) {
        if let Some(incarnation) = self.incarnation(seat) {
            let unfenced = self.apply(MetadataCommand::UnfenceBroker(incarnation));
            unfenced.expect("it is the current incarnation");
        }
    }

    /// Who joins an in-sync set by a proposal that is under way.
    pub(super) fn joining(&self) -> Option<NodeId> {
        self.proposals.iter().find_map(|proposal| {
            let current = self.image.partition(proposal.change.key)?;
            let mut members = proposal.change.isr.iter().map(|member| member.node_id);
            members.find(|node| !current.isr.contains(node))
        })
    }

    pub(super) fn drain(&mut self, seat: usize) {
        if let Some(incarnation) = self.incarnation(seat) {
            let drained = self.apply(MetadataCommand::DrainBroker(incarnation));
            drained.expect("it is the current incarnation");
        }
    }

    /// Where nobody may lead: nobody does, or, which is the bug, anybody.
    fn elect(&mut self, bug: Option<Bug>) {
        if bug != Some(Bug::ElectionOutsideIsr) {
            return;
        }
        let led = |key: ReplicaKey| {
            let leader_epoch = self.image.partition(key).expect("a known partition").leader_epoch;
            self.image
                .may_elect(key, Election::Unclean)
                .then_some(LedPartition { key, leader_epoch })
        };
        let partitions: Vec<LedPartition> = self.keys().into_iter().filter_map(led).collect();
        if !partitions.is_empty() {
            let election = Election::Unclean;
            let elect = MetadataCommand::ElectLeaders(ElectLeaders { election, partitions });
            self.apply(elect).expect("an election is never refused");
        }
    }

    fn decide(&mut self, proposal: &Proposal, bug: Option<Bug>) -> Result<(), Rejection> {
        let mut change = proposal.change.clone();
        if bug == Some(Bug::RejoinsWithoutEpoch) {
            // As if a proposal named nodes and not their incarnations.
            change.isr = self.members(change.isr.iter().map(|member| member.node_id));
        }
        self.apply(MetadataCommand::ChangePartition(change)).map(drop)
    }
}

impl World {
    /// Something reaches the controller, or a node hears of it.
    pub(super) fn controller_step(&mut self) -> Result<(), Breach> {
        match self.rng.below(10) {
            0..6 => {
                let seat = self.rng.place(NODES);
                self.tell(seat)
            }
            6..9 => self.decide_one(),
            _ => self.move_leader(),
        }
    }

    fn tell(&mut self, seat: usize) -> Result<(), Breach> {
        if !self.runs(seat) || self.controller.is_cut[seat] {
            return Ok(());
        }
        let Some(changes) = self.controller.next_changes(seat) else { return Ok(()) };
        self.trace(|| format!("node {} hears of {changes:?}", seat + 1));
        for change in changes {
            self.follow(seat, change)?;
        }
        Ok(())
    }

    /// Brings a node's partitions in line with a change of the metadata, as its front does.
    fn follow(&mut self, seat: usize, change: MetadataChange) -> Result<(), Breach> {
        let view = &self.controller.views[seat];
        let of_topic = |topic_id| {
            let topic = view.topic(topic_id).expect("the change names its topic");
            topic.replicas().map(|(key, _)| key).collect::<Vec<_>>()
        };
        let keys: Vec<ReplicaKey> = match change {
            MetadataChange::PartitionChanged { key } => vec![key],
            MetadataChange::TopicCreated { topic_id } => of_topic(topic_id),
            MetadataChange::PartitionsCreated { topic_id, first } => {
                of_topic(topic_id).into_iter().filter(|key| key.partition >= first).collect()
            }
            MetadataChange::BrokerRegistered { node_id } => {
                let all = view.topics().flat_map(Topic::replicas);
                all.filter(|(_, found)| found.replicas.contains(&node_id))
                    .map(|(key, _)| key)
                    .collect()
            }
            MetadataChange::TopicConfigChanged { topic_id } => {
                return self.configure(seat, topic_id);
            }
            MetadataChange::TopicDeleted { topic } => {
                if let Some(node) = &self.seats[seat].node {
                    node.deleted.note(topic.id);
                }
                for (key, _) in topic.replicas() {
                    self.close(seat, key)?;
                }
                return Ok(());
            }
            MetadataChange::BrokerChanged { .. }
            | MetadataChange::BrokerUnregistered { .. }
            | MetadataChange::ClusterFounded
            | MetadataChange::GroupConfigChanged
            | MetadataChange::ClusterConfigChanged => return Ok(()),
        };
        for key in keys {
            self.assign(seat, key, None)?;
        }
        Ok(())
    }

    fn configure(&mut self, seat: usize, topic_id: TopicId) -> Result<(), Breach> {
        let topic = self.controller.views[seat].topic(topic_id).expect("it is known").clone();
        let (now, mut effects) = (self.now(seat), Vec::new());
        for (key, partition) in topic.replicas() {
            let config = admin::config(&topic, partition.replicas.len());
            let node = self.seats[seat].node.as_mut().expect("it runs");
            let owner = node.owner(key);
            node.act(now, owner, &mut effects, |machine, out| {
                machine.configure_partition(key, config, out);
            });
        }
        self.take(seat, effects)
    }

    fn close(&mut self, seat: usize, key: ReplicaKey) -> Result<(), Breach> {
        let (now, mut effects) = (self.now(seat), Vec::new());
        let node = self.seats[seat].node.as_mut().expect("it runs");
        let owner = node.owner(key);
        if node.shards[owner].machine.info(key).is_some() {
            node.act(now, owner, &mut effects, |machine, out| {
                machine.close_partition(now, key, out);
            });
        }
        self.take(seat, effects)
    }

    /// Tells the shard that owns it what the node knows of a partition.
    pub(super) fn assign(
        &mut self,
        seat: usize,
        key: ReplicaKey,
        recovered: Option<RecoveredPartition>,
    ) -> Result<(), Breach> {
        let view = &self.controller.views[seat];
        let topic = view.topic(key.topic_id).expect("the view has it");
        let partition = topic.partition(key.partition).expect("the view has it");
        if !partition.replicas.contains(&node_id(seat)) {
            if self.holds(seat, key) {
                self.note(Event::ReplicaLeft);
            }
            return self.close(seat, key);
        }
        let replica = |node_id: &NodeId| {
            let broker = view.broker(*node_id).expect("a replica is registered");
            ReplicaNode {
                node_id: *node_id,
                broker_epoch: broker.epoch,
                shard: key.shard(broker.shards),
            }
        };
        let assignment = ReplicaAssignment {
            spec: PartitionSpec {
                key,
                topic_name: topic.name.clone(),
                leader_epoch: partition.leader_epoch,
                config: admin::config(topic, partition.replicas.len()),
            },
            metadata_index: view.applied(),
            partition_epoch: partition.partition_epoch,
            leader: partition.leader,
            replicas: partition.replicas.iter().map(replica).collect(),
            isr: partition.isr.clone(),
        };
        let (now, mut effects) = (self.now(seat), Vec::new());
        let node = self.seats[seat].node.as_mut().expect("it runs");
        let owner = node.owner(key);
        node.act(now, owner, &mut effects, |machine, out| {
            machine.assign_replica(now, &assignment, recovered, out);
        });
        self.take(seat, effects)
    }

    /// Whether a node has a replica open.
    pub(super) fn holds(&self, seat: usize, key: ReplicaKey) -> bool {
        let node = self.seats[seat].node.as_ref();
        node.is_some_and(|node| node.shards[node.owner(key)].machine.info(key).is_some())
    }

    pub(super) fn propose(&mut self, seat: usize, shard: usize, change: ChangePartition) {
        let incarnation = self.seats[seat].incarnation;
        self.controller.proposals.push(Proposal { seat, shard, incarnation, change });
    }

    pub(super) fn decide_one(&mut self) -> Result<(), Breach> {
        if let Some(refused) = self.controller.refused.pop() {
            return self.refuse(refused);
        }
        if self.controller.proposals.is_empty() {
            return Ok(());
        }
        let place = self.rng.place(self.controller.proposals.len());
        let proposal = self.controller.proposals[place].clone();
        if self.controller.is_cut[proposal.seat] && self.rng.one_in(2) {
            // It waits for the cut to end, or got through before.
            return Ok(());
        }
        self.controller.proposals.swap_remove(place);
        let before = self.controller.image.partition(proposal.change.key).map(|p| p.isr.len());
        let decided = self.controller.decide(&proposal, self.bug);
        self.trace(|| format!("{proposal:?}: {decided:?}"));
        let Proposal { seat, shard, incarnation, change } = proposal;
        if decided.is_ok() {
            let grew = before.is_some_and(|before| change.isr.len() > before);
            self.note(if grew { Event::IsrGrew } else { Event::IsrShrank });
            return Ok(());
        }
        self.note(Event::IsrRefused);
        let (key, partition_epoch) = (change.key, change.partition_epoch);
        let refused = Refused { seat, shard, incarnation, key, partition_epoch };
        self.controller.refused.push(refused);
        Ok(())
    }

    fn refuse(&mut self, refused: Refused) -> Result<(), Breach> {
        let Refused { seat, shard, incarnation, key, partition_epoch } = refused;
        if !self.runs(seat) || self.seats[seat].incarnation != incarnation {
            if self.seats[seat].node.is_some() && self.seats[seat].incarnation == incarnation {
                self.controller.refused.insert(0, refused);
            }
            return Ok(());
        }
        let (now, mut effects) = (self.now(seat), Vec::new());
        let node = self.seats[seat].node.as_mut().expect("it runs");
        node.act(now, shard, &mut effects, |machine, out| {
            machine.isr_change_refused(now, key, partition_epoch, out);
        });
        self.take(seat, effects)
    }

    /// Leadership moves within the in-sync set, as balancing would do.
    fn move_leader(&mut self) -> Result<(), Breach> {
        let keys = self.controller.keys();
        if !keys.is_empty() && !self.is_calm && self.rng.one_in(8) {
            let key = keys[self.rng.place(keys.len())];
            self.move_leader_of(key);
        }
        Ok(())
    }

    pub(super) fn move_leader_of(&mut self, key: ReplicaKey) {
        let partition = self.controller.image.partition(key).expect("it is known").clone();
        if partition.isr.is_empty() {
            return;
        }
        let leader = partition.isr[self.rng.place(partition.isr.len())];
        if partition.leader != Some(leader) {
            self.trace(|| format!("{key} moves to {leader}"));
            self.controller.change(key, Some(leader), &partition.isr);
            self.note(Event::LeaderMoved);
        }
    }

    /// Who runs and reaches the controller keeps its session; who does not is fenced.
    pub(super) fn heartbeats(&mut self) -> Result<(), Breach> {
        for seat in 0..NODES {
            if self.runs(seat) && !self.controller.is_cut[seat] {
                self.controller.heard_at[seat] = self.micros;
                // An epoch is the log index of the registration.
                let registered = self.seats[seat].broker_epoch.get() as u64;
                let is_told = self.controller.views[seat].applied() >= registered;
                if self.controller.is_fenced(seat) && is_told {
                    self.controller.unfence(seat);
                    self.trace(|| format!("node {} is unfenced", seat + 1));
                }
            } else if !self.controller.is_fenced(seat)
                && self.micros - self.controller.heard_at[seat] > SESSION_MICROS
            {
                self.trace(|| format!("node {} is fenced", seat + 1));
                self.controller.fence(seat);
                self.note(Event::Fenced);
            }
        }
        self.controller.elect(self.bug);
        for _ in 0..std::mem::take(&mut self.controller.elected_from_elr) {
            self.note(Event::ElectedFromElr);
        }
        Ok(())
    }
}
