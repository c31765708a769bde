//! What commands about existing partitions do: their in-sync sets, leaders and replicas change.

use super::apply::{Decision, has_duplicates};
use super::election::{Draft, Rules, revise};
use super::{ApplyOutcome, MetadataChange, MetadataImage, Partition, Rejection, Topic};
use crate::format::metadata_command::{
    ChangePartition, ElectLeaders, Election, LedPartition, ReassignPartition,
};
use crate::model::{NodeId, PartitionIndex, ReplicaKey};

impl MetadataImage {
    pub(super) fn change_partition(&mut self, command: &ChangePartition) -> Decision {
        let key = command.key;
        let current = self.partition(key).ok_or(Rejection::UnknownPartition(key))?;
        if current.leader_epoch != command.leader_epoch {
            return Err(Rejection::FencedLeaderEpoch {
                key,
                current: current.leader_epoch,
                proposed: command.leader_epoch,
            });
        }
        if current.partition_epoch != command.partition_epoch {
            return Err(Rejection::StalePartitionEpoch {
                key,
                current: current.partition_epoch,
                proposed: command.partition_epoch,
            });
        }
        self.check_replicas(key.partition, &command.replicas)?;
        let isr = self.check_isr(command, current)?;
        let partition = self.revise(key, |draft| {
            draft.replicas.clone_from(&command.replicas);
            draft.adding.retain(|node| command.replicas.contains(node));
            draft.removing.retain(|node| command.replicas.contains(node));
            draft.isr = isr;
            draft.leader = command.leader;
        });
        let (partition, changed) = partition.expect("looked up above");
        Ok(partition_changed(key, partition, changed))
    }

    /// The proposed in-sync set, if every member may be in it.
    fn check_isr(
        &self,
        command: &ChangePartition,
        current: &Partition,
    ) -> Result<Vec<NodeId>, Rejection> {
        let key = command.key;
        let ineligible = |reason: String| Rejection::IneligibleReplica { key, reason };
        for member in &command.isr {
            self.check_broker(member.node_id, member.broker_epoch)?;
            let node = member.node_id;
            let broker = self.brokers.get(&node).expect("checked above");
            if broker.fenced {
                return Err(ineligible(format!("node {node} is fenced")));
            }
            // Who is about to stop stays where it is in sync, and does not come in anew.
            if broker.draining && !current.isr.contains(&node) {
                return Err(ineligible(format!("node {node} is about to stop")));
            }
        }
        let isr: Vec<NodeId> = command.isr.iter().map(|member| member.node_id).collect();
        if isr.is_empty() {
            return Err(ineligible("an in-sync set has a member".to_owned()));
        }
        if has_duplicates(&isr) || !isr.iter().all(|node| command.replicas.contains(node)) {
            let reason = "the in-sync set is not a subset of the replicas";
            return Err(ineligible(reason.to_owned()));
        }
        if let Some(leader) = command.leader {
            if !isr.contains(&leader) {
                return Err(ineligible("the leader is not in the in-sync set".to_owned()));
            }
            if !current.isr.contains(&leader) && !current.elr.contains(&leader) {
                let reason = format!("node {leader} was not in sync before it was to lead");
                return Err(ineligible(reason));
            }
        }
        // Without a leader there is nobody who could have seen others catch up.
        let was_eligible = |node| current.isr.contains(node) || current.elr.contains(node);
        if current.leader.is_none() && !isr.iter().all(was_eligible) {
            return Err(ineligible("the in-sync set grows without a leader".to_owned()));
        }
        Ok(isr)
    }

    pub(super) fn elect_leaders(&mut self, command: &ElectLeaders) -> Decision {
        let mut elected = Vec::new();
        for LedPartition { key, leader_epoch } in &command.partitions {
            let Some(current) = self.partition(*key) else { continue };
            if current.leader_epoch != *leader_epoch || !self.may_elect(*key, command.election) {
                continue;
            }
            let preferred = current.replicas.first().copied();
            let changed = self.revise_under(*key, command.election, |draft| {
                if command.election == Election::Preferred {
                    draft.leader = preferred;
                }
            });
            if changed {
                elected.push(*key);
            }
        }
        let changes =
            elected.iter().map(|key| MetadataChange::PartitionChanged { key: *key }).collect();
        Ok((ApplyOutcome::LeadersElected { elected }, changes))
    }

    /// Whether an election of that kind would find a leader, or another one.
    #[must_use]
    pub fn may_elect(&self, key: ReplicaKey, election: Election) -> bool {
        let Some(topic) = self.topic(key.topic_id) else { return false };
        let Some(partition) = topic.partition(key.partition) else { return false };
        let there = |node: &NodeId| self.brokers.get(node).is_some_and(|it| !it.fenced);
        match election {
            Election::Preferred => partition.replicas.first().is_some_and(|preferred| {
                partition.leader.is_some_and(|leader| leader != *preferred)
                    && partition.isr.contains(preferred)
                    && self.brokers.get(preferred).is_some_and(|it| !it.draining)
            }),
            Election::Unclean => partition.leader.is_none() && partition.replicas.iter().any(there),
        }
    }

    pub(super) fn reassign_partition(&mut self, command: &ReassignPartition) -> Decision {
        let key = command.key;
        let current = self.partition(key).ok_or(Rejection::UnknownPartition(key))?;
        let original: Vec<NodeId> = current
            .replicas
            .iter()
            .filter(|node| !current.adding.contains(node))
            .copied()
            .collect();
        let target = match &command.target {
            None if current.adding.is_empty() && current.removing.is_empty() => {
                return Err(Rejection::NoReassignment(key));
            }
            None => original.clone(),
            Some(target) => {
                self.check_replicas(key.partition, &target.replicas)?;
                target.replicas.clone()
            }
        };
        let without = |nodes: &[NodeId], others: &[NodeId]| -> Vec<NodeId> {
            nodes.iter().filter(|node| !others.contains(node)).copied().collect()
        };
        let (adding, removing) = (without(&target, &original), without(&original, &target));
        // Taking those back that a reassignment added must leave somebody who has the records.
        let goes = |node: &NodeId| !target.contains(node) && !removing.contains(node);
        let (isr, elr) = (&current.isr, &current.elr);
        if isr.iter().chain(elr).all(goes) {
            let reason = "nobody would be left who has the records".to_owned();
            return Err(Rejection::IneligibleReplica { key, reason });
        }
        let partition = self.revise(key, |draft| {
            draft.replicas = target.iter().chain(&removing).copied().collect();
            (draft.adding, draft.removing) = (adding, removing);
        });
        let (partition, changed) = partition.expect("looked up above");
        Ok(partition_changed(key, partition, changed))
    }

    /// Has every partition of the topics in question follow the rules as they are now. Where fewer members
    /// are needed from now on, something may be acknowledged that eligible replicas do not have: they
    /// cease to be. Where unclean elections are allowed from now on, they take place.
    pub(super) fn follow_rules(&mut self, of: impl Fn(&Topic) -> bool) -> Vec<MetadataChange> {
        self.revise_where(of, |_| true, |_| {})
    }

    /// Has `change` applied to all partitions in question.
    pub(super) fn revise_where(
        &mut self,
        of: impl Fn(&Topic) -> bool,
        which: impl Fn(&Partition) -> bool,
        change: impl Fn(&mut Draft),
    ) -> Vec<MetadataChange> {
        let mut changes = Vec::new();
        for topic in self.topics.values_mut().filter(|topic| of(topic)) {
            let topic_id = topic.id;
            let rules = Rules::of(topic, &self.cluster_configs);
            for (partition, number) in topic.partitions.iter_mut().zip(0..) {
                if which(partition) && revise(partition, &self.brokers, rules, &change) {
                    let key = ReplicaKey { topic_id, partition: PartitionIndex(number) };
                    changes.push(MetadataChange::PartitionChanged { key });
                }
            }
        }
        changes
    }

    /// The partition after `change`, and whether it is another one than before.
    fn revise(
        &mut self,
        key: ReplicaKey,
        change: impl FnOnce(&mut Draft),
    ) -> Option<(&Partition, bool)> {
        let topic = self.topics.get_mut(&key.topic_id)?;
        let rules = Rules::of(topic, &self.cluster_configs);
        let partition = topic.partitions.get_mut(usize::try_from(key.partition.get()).ok()?)?;
        let changed = revise(partition, &self.brokers, rules, change);
        Some((partition, changed))
    }

    fn revise_under(
        &mut self,
        key: ReplicaKey,
        election: Election,
        change: impl FnOnce(&mut Draft),
    ) -> bool {
        let Some(topic) = self.topics.get_mut(&key.topic_id) else { return false };
        let mut rules = Rules::of(topic, &self.cluster_configs);
        rules.unclean |= election == Election::Unclean;
        let Ok(number) = usize::try_from(key.partition.get()) else { return false };
        let Some(partition) = topic.partitions.get_mut(number) else { return false };
        revise(partition, &self.brokers, rules, change)
    }
}

/// What a command came to that was about one partition.
fn partition_changed(
    key: ReplicaKey,
    partition: &Partition,
    changed: bool,
) -> (ApplyOutcome, Vec<MetadataChange>) {
    let outcome = ApplyOutcome::PartitionChanged {
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
    };
    let changes = changed.then_some(MetadataChange::PartitionChanged { key });
    (outcome, changes.into_iter().collect())
}
