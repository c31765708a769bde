//! Who is in sync, who may lead, who does: the rules by which every change of a partition ends.
//!
//! Eligible are the in-sync replicas and, beside them, the eligible leader replicas (ELR): those that
//! left the in-sync set when it fell below `min.insync.replicas`. From that moment nothing could be
//! acknowledged, so they have every acknowledged record, unless `flush.messages` let some count before
//! they were on the disk and their process ended since: then others are preferred. Source: KIP-966.
//!
//! Every change goes through [`revise`]. Therefore, at every log index: a partition with an eligible
//! replica that is not fenced has a leader · fenced nodes lead nothing and are in sync with nothing ·
//! a reassignment whose new replicas are all in sync is over.

use std::collections::BTreeMap;

use super::{Broker, Partition, Topic};
use crate::model::{LeaderEpoch, NodeId};

/// Kafka's key for the members that an acknowledgement needs.
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Kafka's keys, of topics and of brokers, for records that count before they are on the disk.
const FLUSH_MESSAGES: &str = "flush.messages";
const LOG_FLUSH_INTERVAL_MESSAGES: &str = "log.flush.interval.messages";
/// Kafka's key for electing replicas that may have lost records.
const UNCLEAN_ELECTION: &str = "unclean.leader.election.enable";

/// What a topic says about its partitions' elections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rules {
    /// Members of the in-sync set without which nothing is acknowledged.
    pub(super) min_insync_replicas: usize,
    /// Whether a replica may lead that lost acknowledged records.
    pub(super) unclean: bool,
    /// Whether records count before they are on the disk, so that a process takes some with it when it ends.
    pub(super) counts_early: bool,
}

impl Rules {
    /// The topic's own, else the cluster's, else Kafka's defaults.
    pub(super) fn of(topic: &Topic, cluster: &BTreeMap<String, String>) -> Self {
        let value = |key| topic.configs.get(key).or_else(|| cluster.get(key)).map(|it| it.trim());
        let min = value(MIN_INSYNC_REPLICAS).and_then(|text| text.parse().ok());
        let unflushed = topic
            .configs
            .get(FLUSH_MESSAGES)
            .or_else(|| cluster.get(LOG_FLUSH_INTERVAL_MESSAGES))
            .and_then(|text| text.trim().parse::<u64>().ok());
        Self {
            min_insync_replicas: min.unwrap_or(1),
            unclean: value(UNCLEAN_ELECTION) == Some("true"),
            counts_early: unflushed.is_some_and(|records| records > 1),
        }
    }
}

/// The part of a partition that a command changes.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) leader: Option<NodeId>,
    pub(super) isr: Vec<NodeId>,
    pub(super) elr: Vec<NodeId>,
    pub(super) replicas: Vec<NodeId>,
    pub(super) adding: Vec<NodeId>,
    pub(super) removing: Vec<NodeId>,
    /// See [`Rules::counts_early`].
    counts_early: bool,
    /// Whether the leader, though the same node, leads anew.
    elected: bool,
}

impl Draft {
    /// `node` is no longer in sync. What it had it still has.
    pub(super) fn leave_isr(&mut self, node: NodeId) {
        self.isr.retain(|member| *member != node);
    }

    /// The process of `node` is another one. What the former had on its disk it still has; what counted without being there may be
    /// gone, so such a partition is left to the others who are eligible, if there are any. Source: KIP-966, unclean shutdown.
    pub(super) fn restart(&mut self, node: NodeId) {
        self.leave_isr(node);
        if self.counts_early && self.elr.iter().any(|other| *other != node) {
            self.lose(node);
        }
    }

    /// `node` has lost its records.
    pub(super) fn lose(&mut self, node: NodeId) {
        self.isr.retain(|member| *member != node);
        self.elr.retain(|member| *member != node);
    }

    /// Ends a reassignment as soon as every new replica is in sync, and one that nothing is left of.
    fn finish_reassignment(&mut self) {
        let is_over = self.adding.iter().all(|node| self.isr.contains(node));
        let stays = |node: &NodeId| !self.removing.contains(node);
        if is_over && (self.removing.is_empty() || self.isr.iter().any(stays)) {
            let removing = std::mem::take(&mut self.removing);
            self.replicas.retain(|node| !removing.contains(node));
            self.adding.clear();
        }
    }

    /// Finds a leader where there is none.
    fn elect(&mut self, brokers: &BTreeMap<NodeId, Broker>, unclean: bool) {
        // Somebody who is about to stop leads only where nobody else can.
        let find = |among: &[NodeId], draining: bool| {
            let may = |node: &NodeId| {
                brokers.get(node).is_some_and(|it| !it.fenced && (draining || !it.draining))
            };
            self.replicas.iter().copied().find(|node| among.contains(node) && may(node))
        };
        let (isr, elr) = (&self.isr[..], &self.elr[..]);
        let in_sync = find(isr, false).or_else(|| find(elr, false)).or_else(|| find(isr, true));
        let eligible = in_sync.or_else(|| find(elr, true));
        let leader = match eligible {
            None if unclean => {
                let any = find(&self.replicas, false).or_else(|| find(&self.replicas, true));
                if any.is_some() {
                    // Whatever the others have in common, this one decides from now on.
                    self.elr.clear();
                    self.isr.clear();
                }
                any
            }
            eligible => eligible,
        };
        let Some(leader) = leader else { return };
        if !self.isr.contains(&leader) {
            // It has everything that was acknowledged; who else keeps up is for it to find out.
            self.isr = vec![leader];
        }
        self.leader = Some(leader);
        self.elected = true;
    }
}

/// Changes a partition, finds a leader if it needs one, and raises the epochs. Whether it changed.
pub(super) fn revise(
    partition: &mut Partition,
    brokers: &BTreeMap<NodeId, Broker>,
    rules: Rules,
    change: impl FnOnce(&mut Draft),
) -> bool {
    let mut draft = Draft {
        leader: partition.leader,
        isr: partition.isr.clone(),
        // Whoever leaves the in-sync set now may turn out to be eligible. The change takes out of
        // both whom it must.
        elr: partition.isr.iter().chain(&partition.elr).copied().collect(),
        replicas: partition.replicas.clone(),
        adding: partition.adding.clone(),
        removing: partition.removing.clone(),
        counts_early: rules.counts_early,
        elected: false,
    };
    change(&mut draft);
    draft.finish_reassignment();
    draft.isr.retain(|node| draft.replicas.contains(node));
    draft.elr.retain(|node| draft.replicas.contains(node));
    let needed = rules.min_insync_replicas.clamp(1, draft.replicas.len().max(1));
    if draft.isr.len() >= needed {
        draft.elr.clear();
    }
    draft.elr.retain(|node| !draft.isr.contains(node));
    if draft.leader.is_some_and(|leader| !draft.isr.contains(&leader)) {
        draft.leader = None;
    }
    if draft.leader.is_none() {
        draft.elect(brokers, rules.unclean);
    }
    if draft.isr.len() >= needed {
        draft.elr.clear();
    }
    let eligible = |node: &&NodeId| draft.elr.contains(node) && !draft.isr.contains(node);
    draft.elr = draft.replicas.iter().filter(eligible).copied().collect();
    write_back(partition, draft)
}

fn write_back(partition: &mut Partition, draft: Draft) -> bool {
    // Whoever left deletes its records when it hears of it. Should it be a replica again by then, its leader must not take it
    // for one that has them: with another epoch it is not compared before it knows that it had left.
    let has_left = partition.replicas.iter().any(|node| !draft.replicas.contains(node));
    let new_leader = draft.elected || draft.leader != partition.leader || has_left;
    let changed = new_leader
        || (&draft.isr, &draft.elr, &draft.replicas)
            != (&partition.isr, &partition.elr, &partition.replicas)
        || (&draft.adding, &draft.removing) != (&partition.adding, &partition.removing);
    if !changed {
        return false;
    }
    if new_leader {
        let next = partition.leader_epoch.get().checked_add(1);
        partition.leader_epoch = LeaderEpoch(next.expect("leader epochs do not run out"));
    }
    partition.partition_epoch += 1;
    partition.leader = draft.leader;
    partition.isr = draft.isr;
    partition.elr = draft.elr;
    partition.replicas = draft.replicas;
    partition.adding = draft.adding;
    partition.removing = draft.removing;
    true
}
