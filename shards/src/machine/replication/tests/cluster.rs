//! Shards of three nodes on benches, joined by frames that are carried by hand.

use std::collections::{BTreeMap, VecDeque};

use crate::format::metadata_command::ChangePartition;
use crate::format::peer_frame::{ClusterId, PeerFrame};
use crate::machine::input::{PartitionConfig, PartitionSpec, ProduceError, Token};
use crate::machine::limits::ShardLimits;
use crate::machine::replica::{NodeIdentity, ReplicaAssignment, ReplicaNode, ReplicaStanding};
use crate::machine::replication::{ConnectionId, LogRead, PeerEffect, PeerLimits};
use crate::machine::testing::{Bench, batch, key};
use crate::model::{Acks, BrokerEpoch, LeaderEpoch, NodeId, ShardId};

pub const CLUSTER: ClusterId = ClusterId([3; 16]);

pub const LIMITS: PeerLimits = PeerLimits {
    window_bytes: 2000,
    frame_bytes_max: 500,
    frames_in_flight_max: 8,
    heartbeat_ms: 100,
    peer_timeout_ms: 700,
    reconnect_ms_max: 200,
    positions_delay_ms: 2,
    waiting_opens_max: 4,
    lag_time_max_ms: 400,
    slow_factor: 5,
    slow_ms_min: 20,
    slow_after_ms: 1000,
    tells_acks: true,
};

/// One end of a connection.
pub type End = (usize, ConnectionId);

pub struct Cluster {
    pub nodes: Vec<Bench>,
    /// From the leader's end to the follower's, and back.
    pub peers: BTreeMap<End, End>,
    /// Frames on their way: to whom, and what.
    pub frames: VecDeque<(End, PeerFrame)>,
    pub proposals: Vec<(usize, ChangePartition)>,
    pub reads: Vec<(usize, LogRead)>,
    /// Attempts to connect: who tried, and to whom.
    pub dialled: Vec<(usize, usize)>,
    /// Nodes that nothing reaches.
    pub cut: Vec<usize>,
    pub metadata_index: u64,
    pub config: PartitionConfig,
}

pub fn id(node: usize) -> NodeId {
    NodeId(node as i32)
}

impl Cluster {
    /// Nodes 0, 1 and 2, in a cluster, without partitions.
    pub fn new() -> Self {
        let mut nodes: Vec<Bench> = (0..3).map(|_| Bench::new(ShardLimits::default())).collect();
        for (node, bench) in nodes.iter_mut().enumerate() {
            let broker_epoch = BrokerEpoch(10 + node as i64);
            let me = NodeIdentity { node_id: id(node), broker_epoch };
            bench.machine.join_cluster(CLUSTER, me, LIMITS);
        }
        Self {
            nodes,
            peers: BTreeMap::new(),
            frames: VecDeque::new(),
            proposals: Vec::new(),
            reads: Vec::new(),
            dialled: Vec::new(),
            cut: Vec::new(),
            metadata_index: 1,
            config: PartitionConfig { min_insync_replicas: 2, ..PartitionConfig::default() },
        }
    }

    /// Partition 0 led by node 0, everyone in sync, streams open.
    pub fn led_by_0() -> Self {
        let mut cluster = Self::new();
        cluster.assign_all(0, 1, 1, &[0, 1, 2]);
        cluster.carry();
        cluster
    }

    pub fn assignment(
        &self,
        leader: usize,
        epoch: i32,
        change: i32,
        isr: &[usize],
    ) -> ReplicaAssignment {
        let replica = |node: usize| ReplicaNode {
            node_id: id(node),
            broker_epoch: BrokerEpoch(10 + node as i64),
            shard: ShardId(0),
        };
        ReplicaAssignment {
            spec: PartitionSpec {
                key: key(0),
                topic_name: "topic".into(),
                leader_epoch: LeaderEpoch(epoch),
                config: self.config.clone(),
            },
            metadata_index: self.metadata_index,
            partition_epoch: change,
            leader: Some(id(leader)),
            replicas: (0..3).map(replica).collect(),
            isr: isr.iter().map(|node| id(*node)).collect(),
        }
    }

    pub fn tell(&mut self, node: usize, assignment: &ReplicaAssignment) {
        self.nodes[node]
            .act(|machine, now, out| machine.assign_replica(now, assignment, None, out));
    }

    pub fn assign_all(&mut self, leader: usize, epoch: i32, change: i32, isr: &[usize]) {
        self.metadata_index += 1;
        let assignment = self.assignment(leader, epoch, change, isr);
        for node in 0..3 {
            self.tell(node, &assignment);
        }
    }

    /// Everything that is under way arrives, until nothing is.
    pub fn carry(&mut self) {
        while self.carry_one() {}
    }

    pub fn carry_one(&mut self) -> bool {
        for node in 0..3 {
            while let Some(effect) = self.nodes[node].machine.next_peer_effect() {
                self.perform(node, effect);
            }
        }
        let reaches = |(end, _): &(End, PeerFrame)| !self.cut.contains(&end.0);
        let Some(place) = self.frames.iter().position(reaches) else { return false };
        let (to, frame) = self.frames.remove(place).expect("it is there");
        self.deliver(to, frame);
        true
    }

    pub fn deliver(&mut self, to: End, frame: PeerFrame) {
        let (node, connection) = to;
        self.nodes[node].act(|machine, now, out| machine.peer_frame(now, connection, frame, out));
    }

    pub fn perform(&mut self, node: usize, effect: PeerEffect) {
        match effect {
            PeerEffect::Connect { connection, node_id, .. } => {
                let other = node_id.0 as usize;
                self.dialled.push((node, other));
                if self.cut.contains(&other) || self.cut.contains(&node) {
                    return self.nodes[node]
                        .act(|machine, now, out| machine.peer_lost(now, connection, out));
                }
                self.nodes[node]
                    .act(|machine, now, out| machine.peer_connected(now, connection, out));
                let now = self.nodes[node].now;
                let hello = self.nodes[node].machine.next_peer_frame(now, connection);
                let Some(PeerFrame::Hello(hello)) = hello else { panic!("{hello:?}") };
                let mut accepted = None;
                self.nodes[other].act(|machine, now, out| {
                    accepted = Some(machine.peer_accepted(now, &hello, out));
                });
                let inbound = accepted.expect("asked").expect("it is of the cluster");
                self.peers.insert((node, connection), (other, inbound));
                self.peers.insert((other, inbound), (node, connection));
            }
            PeerEffect::Disconnect { connection, .. } => {
                if let Some(other) = self.peers.remove(&(node, connection)) {
                    self.peers.remove(&other);
                    let (node, connection) = other;
                    self.nodes[node]
                        .act(|machine, now, out| machine.peer_lost(now, connection, out));
                }
            }
            PeerEffect::Acknowledged { .. } => {}
            PeerEffect::FramesReady { connection } => {
                let now = self.nodes[node].now;
                while let Some(frame) = self.nodes[node].machine.next_peer_frame(now, connection) {
                    if let Some(to) = self.peers.get(&(node, connection)) {
                        self.frames.push_back((*to, frame));
                    }
                }
            }
            PeerEffect::ReadLog(read) => self.reads.push((node, read)),
            PeerEffect::ProposeIsr(change) => self.proposals.push((node, change)),
        }
    }

    /// Time passes everywhere, a little at a time.
    pub fn pass_millis(&mut self, millis: u64) {
        for _ in 0..millis {
            for node in 0..3 {
                self.nodes[node].pass_millis(1);
            }
            self.carry();
        }
    }

    pub fn send(&mut self, node: usize, acks: Acks) -> Token {
        let token = self.nodes[node].send(acks, 0, batch(2, 100));
        self.carry();
        token
    }

    pub fn outcome(&self, node: usize, token: Token) -> Option<Result<i64, ProduceError>> {
        self.nodes[node].outcome(token).map(|outcomes| outcomes[0].clone())
    }

    pub fn standing(&self, node: usize) -> ReplicaStanding {
        self.nodes[node].machine.replica_standing(key(0)).expect("it has a replica")
    }

    pub fn ends(&self) -> [i64; 3] {
        [0, 1, 2].map(|node| self.standing(node).log_end_offset.0)
    }

    pub fn high_watermarks(&self) -> [i64; 3] {
        [0, 1, 2].map(|node| self.standing(node).high_watermark.0)
    }

    /// The follower's end of the leader's connection to it.
    pub fn inbound_of(&self, node: usize) -> End {
        let of_it = |(_, to): &(&End, &End)| to.0 == node;
        let found = self.peers.iter().filter(|(from, _)| from.0 == 0).find(of_it);
        *found.expect("they are connected").1
    }

    pub fn members(&self) -> Vec<Vec<i32>> {
        let ids = |(_, change): &(usize, ChangePartition)| {
            change.isr.iter().map(|member| member.node_id.0).collect()
        };
        self.proposals.iter().map(ids).collect()
    }
}
