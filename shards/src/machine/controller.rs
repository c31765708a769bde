//! The duties of the controller: which node is there, who leads, what follows from it.
//!
//! One node, the leader of the Raft group, has these duties. It hears the heartbeats of all nodes and
//! proposes commands; what they do is decided when they are applied, on every node alike
//! (`machine::metadata`). So nothing here needs to be remembered by the next controller: it starts
//! from the image, and gives every node a session's time to be heard.
//!
//! Every command names what it was decided upon (broker epoch, leader epoch): should the metadata have
//! changed meanwhile, it changes nothing. A command that seems to be without effect is proposed again
//! after [`ControllerSettings::retry_ms`].
//!
//! Deliberately absent: elections after a failure (the command that fences a node carries them out, for
//! all of its partitions), in-sync sets (leaders propose them), and any clock.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::metadata::{Broker, MetadataImage, Partition};
use crate::format::metadata_command::{
    BrokerIncarnation, ConfigEntry, ElectLeaders, Election, FoundCluster, LedPartition,
    MetadataCommand, SetClusterConfig, UnregisterBroker,
};
use crate::model::{BrokerEpoch, MonotonicMicros, NodeId, ReplicaKey};

/// Partitions of one election command: what is left has its turn with the next.
pub const ELECTION_PARTITIONS_MAX: usize = 10_000;

/// How the controller goes about its duties.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControllerSettings {
    /// A node that is not heard of for so long is fenced.
    pub session_ms: u64,
    /// After so long a command that seems to be without effect is proposed again.
    pub retry_ms: u64,
    /// How often preferred leaders are looked after.
    pub balance_interval_ms: u64,
    /// Settings of the whole cluster, as this node was configured with them.
    pub cluster_configs: BTreeMap<String, String>,
    /// What the cluster is to be called if it has no name yet.
    pub cluster_id: [u8; 16],
}

/// What a node says of itself, several times a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrokerHeartbeat {
    /// Who.
    pub node_id: NodeId,
    /// In which incarnation.
    pub broker_epoch: BrokerEpoch,
    /// How far it has applied the log.
    pub applied: u64,
    /// Whether its partitions are open and it can serve.
    pub ready: bool,
}

/// A node as it was last heard of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Session {
    heard: MonotonicMicros,
    /// What it said in its current incarnation, if anything.
    last: Option<BrokerHeartbeat>,
}

/// Something that was proposed and whose effect is awaited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Awaited {
    Found,
    Configs,
    Fence(NodeId, BrokerEpoch),
    Unregister(NodeId),
    Unfence(NodeId, BrokerEpoch),
}

/// The controller, while this node is it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Controller {
    settings: ControllerSettings,
    sessions: BTreeMap<NodeId, Session>,
    awaited: BTreeMap<Awaited, MonotonicMicros>,
    next_balance: MonotonicMicros,
    /// When the last tick was.
    ticked: MonotonicMicros,
}

impl Controller {
    /// Begins the duties on an image that has everything earlier controllers did.
    ///
    /// `followed` is the controller before, if this node knows it, and when it was last heard of: most
    /// likely that one is gone. Everybody else has a session's time from now on.
    #[must_use]
    pub fn new(
        settings: ControllerSettings,
        image: &MetadataImage,
        followed: Option<(NodeId, MonotonicMicros)>,
        now: MonotonicMicros,
    ) -> Self {
        let session = |(node, _): (NodeId, &Broker)| {
            let heard = followed.filter(|(leader, _)| *leader == node).map_or(now, |(_, at)| at);
            (node, Session { heard, last: None })
        };
        let next_balance = now.plus_millis(settings.balance_interval_ms);
        let sessions = image.brokers().map(session).collect();
        Self { settings, sessions, awaited: BTreeMap::new(), next_balance, ticked: now }
    }

    /// Takes note of a heartbeat. One of an incarnation that is not the registered one says nothing.
    pub fn heartbeat(
        &mut self,
        now: MonotonicMicros,
        image: &MetadataImage,
        heartbeat: BrokerHeartbeat,
    ) {
        let known = image.broker(heartbeat.node_id);
        if known.is_some_and(|broker| broker.epoch == heartbeat.broker_epoch) {
            let session = Session { heard: now, last: Some(heartbeat) };
            self.sessions.insert(heartbeat.node_id, session);
        }
    }

    /// What is to be proposed now.
    pub fn tick(&mut self, now: MonotonicMicros, image: &MetadataImage) -> Vec<MetadataCommand> {
        self.sessions.retain(|node, _| image.broker(*node).is_some());
        // Whoever was stopped itself has heard nobody meanwhile, and concludes nothing from that.
        if now.since(self.ticked) >= self.settings.session_ms.saturating_mul(1000) / 2 {
            for session in self.sessions.values_mut() {
                session.heard = now;
            }
        }
        self.ticked = now;
        let retry_us = self.settings.retry_ms.saturating_mul(1000);
        self.awaited.retain(|_, proposed| now.since(*proposed) < retry_us);
        let mut commands = Vec::new();
        self.found(now, image, &mut commands);
        for (node_id, broker) in image.brokers() {
            self.look_after(now, image, (node_id, broker), &mut commands);
        }
        self.balance(now, image, &mut commands);
        commands
    }

    /// The cluster has a name and the settings that this node was started with.
    fn found(
        &mut self,
        now: MonotonicMicros,
        image: &MetadataImage,
        commands: &mut Vec<MetadataCommand>,
    ) {
        if image.cluster_id().is_none() && self.begin(now, Awaited::Found) {
            let cluster_id = self.settings.cluster_id;
            commands.push(MetadataCommand::FoundCluster(FoundCluster { cluster_id }));
        }
        let known = image.cluster_configs();
        let set: Vec<ConfigEntry> = self
            .settings
            .cluster_configs
            .iter()
            .filter(|(name, value)| known.get(*name) != Some(value))
            .map(|(name, value)| ConfigEntry { name: name.clone(), value: value.clone() })
            .collect();
        if !set.is_empty() && self.begin(now, Awaited::Configs) {
            let command = SetClusterConfig { set, remove: Vec::new() };
            commands.push(MetadataCommand::SetClusterConfig(command));
        }
    }

    /// A silent node is fenced; one that is heard, has caught up with its registration and can serve is
    /// not.
    fn look_after(
        &mut self,
        now: MonotonicMicros,
        image: &MetadataImage,
        (node_id, broker): (NodeId, &Broker),
        commands: &mut Vec<MetadataCommand>,
    ) {
        let session = *self.sessions.entry(node_id).or_insert(Session { heard: now, last: None });
        let broker_epoch = broker.epoch;
        let incarnation = BrokerIncarnation { node_id, broker_epoch };
        let is_silent = now.since(session.heard) >= self.settings.session_ms.saturating_mul(1000);
        // Who is to go holds nothing any more: it need not be silent.
        let is_leaving = image.is_leaving(node_id);
        if is_leaving && broker.fenced {
            if self.begin(now, Awaited::Unregister(node_id)) {
                commands.push(MetadataCommand::UnregisterBroker(UnregisterBroker { node_id }));
            }
            return;
        }
        if !broker.fenced {
            let is_silent = is_silent || is_leaving;
            if is_silent && self.begin(now, Awaited::Fence(node_id, broker_epoch)) {
                commands.push(MetadataCommand::FenceBroker(incarnation));
            }
            return;
        }
        // Whoever stops has fenced itself with its last breath, and was heard a moment before that. It comes back as
        // another incarnation.
        if broker.draining {
            return;
        }
        // An epoch is the log index of its registration.
        let registered = u64::try_from(broker_epoch.get()).unwrap_or(u64::MAX);
        let can_serve = |last: BrokerHeartbeat| {
            last.broker_epoch == broker_epoch && last.applied >= registered && last.ready
        };
        if !is_silent
            && session.last.is_some_and(can_serve)
            && self.begin(now, Awaited::Unfence(node_id, broker_epoch))
        {
            commands.push(MetadataCommand::UnfenceBroker(incarnation));
        }
    }

    /// From time to time: leaders that are not the preferred ones, and could be.
    fn balance(
        &mut self,
        now: MonotonicMicros,
        image: &MetadataImage,
        commands: &mut Vec<MetadataCommand>,
    ) {
        if now < self.next_balance {
            return;
        }
        self.next_balance = now.plus_millis(self.settings.balance_interval_ms);
        let election = Election::Preferred;
        let due = |(key, partition): (ReplicaKey, &Partition)| {
            let leader_epoch = partition.leader_epoch;
            image.may_elect(key, election).then_some(LedPartition { key, leader_epoch })
        };
        let partitions: Vec<LedPartition> = image
            .topics()
            .flat_map(super::metadata::Topic::replicas)
            .filter_map(due)
            .take(ELECTION_PARTITIONS_MAX)
            .collect();
        if !partitions.is_empty() {
            commands.push(MetadataCommand::ElectLeaders(ElectLeaders { election, partitions }));
        }
    }

    /// Notes that something is proposed; false while its effect is awaited.
    fn begin(&mut self, now: MonotonicMicros, what: Awaited) -> bool {
        if self.awaited.contains_key(&what) {
            return false;
        }
        self.awaited.insert(what, now);
        true
    }
}
