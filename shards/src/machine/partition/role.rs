//! Leader or follower, by the metadata.

use super::Partition;
use crate::machine::replica::{NodeIdentity, ReplicaAssignment, ReplicaNode};
use crate::model::{MonotonicMicros, NodeId, Offset};

/// What this replica is to its partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It takes records from producers.
    Leader,
    /// It takes records from the leader only.
    Follower {
        /// What the leader said of its high watermark in this epoch.
        high_watermark: Offset,
        /// What the leader said of its log start.
        log_start_offset: Offset,
    },
}

/// The partition by the metadata.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    /// As of this index of the metadata's log.
    pub metadata_index: u64,
    /// Guards proposals.
    pub partition_epoch: i32,
    /// Who leads.
    pub leader: Option<NodeId>,
    /// All replicas.
    pub replicas: Vec<ReplicaNode>,
}

/// What an assignment changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RoleChange {
    /// An older index of the metadata's log: nothing.
    Stale,
    /// The same leader in the same epoch; its replicas or its in-sync set may be others.
    Same,
    /// A new leader epoch, led from here.
    Leads,
    /// A new leader epoch, led from elsewhere or by nobody.
    Follows,
}

impl Partition {
    /// Whether this replica takes records from producers.
    pub fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Takes what the metadata says. Epochs only grow: what is older changes nothing.
    pub fn assign(
        &mut self,
        now: MonotonicMicros,
        me: NodeIdentity,
        assignment: &ReplicaAssignment,
        is_new: bool,
    ) -> RoleChange {
        let epoch = assignment.spec.leader_epoch;
        let is_older = assignment.metadata_index <= self.placement.metadata_index
            || epoch < self.leader_epoch
            || assignment.partition_epoch < self.placement.partition_epoch;
        if is_older && !is_new {
            return RoleChange::Stale;
        }
        self.placement = Placement {
            metadata_index: assignment.metadata_index,
            partition_epoch: assignment.partition_epoch,
            leader: assignment.leader,
            replicas: assignment.replicas.clone(),
        };
        let leads = assignment.leader == Some(me.node_id);
        let change = match (is_new || epoch > self.leader_epoch, leads) {
            (false, _) => RoleChange::Same,
            (true, true) => RoleChange::Leads,
            (true, false) => RoleChange::Follows,
        };
        self.leader_epoch = epoch;
        match change {
            RoleChange::Leads => {
                self.role = Role::Leader;
                // What was not cut off yet is uncommitted, and this replica's word counts now.
                self.truncation = None;
                self.in_sync.lead(self.log_end_offset);
            }
            RoleChange::Follows => {
                self.role = Role::Follower {
                    high_watermark: Offset::ZERO,
                    log_start_offset: self.log_start_offset,
                };
                self.truncation = None;
                self.in_sync.follow();
            }
            RoleChange::Same | RoleChange::Stale => {}
        }
        if self.leads() {
            let others = assignment.replicas.iter().filter(|node| node.node_id != me.node_id);
            let epoch = assignment.partition_epoch;
            self.in_sync.commit(now, epoch, others.copied(), &assignment.isr);
        }
        change
    }
}
