//! What commands about nodes do: they come, fall silent, drain, and leave.

use super::apply::Decision;
use super::election::Draft;
use super::{ApplyOutcome, Broker, MetadataChange, MetadataImage, Rejection};
use crate::format::metadata_command::{BrokerIncarnation, RegisterBroker, UnregisterBroker};
use crate::model::{BrokerEpoch, NodeId};

impl MetadataImage {
    pub(super) fn register_broker(&mut self, index: u64, command: &RegisterBroker) -> Decision {
        let node_id = command.node_id;
        if command.shards == 0 {
            return Err(Rejection::NoShards(node_id));
        }
        let known = self.brokers.get(&node_id);
        if let Some(known) = known
            && known.incarnation == command.incarnation
        {
            return Ok((ApplyOutcome::BrokerRegistered { broker_epoch: known.epoch }, Vec::new()));
        }
        self.admit(command)?;
        let known = self.brokers.get(&node_id);
        let unknown = [0; 16];
        let is_other_directory = known.is_some_and(|known| {
            let directories = [known.directory_id, command.directory_id];
            directories[0] != directories[1] && !directories.contains(&unknown)
        });
        // The log index: grows with every registration, and every image computes the same.
        let epoch = BrokerEpoch(i64::try_from(index).expect("log indexes fit 63 bits"));
        let broker = Broker {
            epoch,
            incarnation: command.incarnation,
            shards: command.shards,
            host: command.host.clone(),
            port: command.port,
            directory_id: command.directory_id,
            rack: command.rack.clone(),
            fenced: command.fenced,
            draining: false,
            replication: command.replication.clone(),
            control: command.control.clone(),
        };
        self.brokers.insert(node_id, broker);
        let mut changes = vec![MetadataChange::BrokerRegistered { node_id }];
        // The new incarnation may have lost a tail that others still hold. It leads nothing under
        // an old epoch, and in sync it is only when a leader has seen this incarnation catch up.
        changes.extend(self.revise_replicas_of(node_id, |draft| {
            if is_other_directory {
                draft.lose(node_id);
            } else {
                draft.restart(node_id);
            }
        }));
        Ok((ApplyOutcome::BrokerRegistered { broker_epoch: epoch }, changes))
    }

    pub(super) fn fence_broker(&mut self, command: &BrokerIncarnation) -> Decision {
        let node_id = command.node_id;
        let broker = self.incarnation(command)?;
        if broker.fenced {
            return Ok((ApplyOutcome::BrokerChanged, Vec::new()));
        }
        broker.fenced = true;
        let mut changes = vec![MetadataChange::BrokerChanged { node_id }];
        changes.extend(self.revise_replicas_of(node_id, |draft| draft.leave_isr(node_id)));
        Ok((ApplyOutcome::BrokerChanged, changes))
    }

    pub(super) fn unfence_broker(&mut self, command: &BrokerIncarnation) -> Decision {
        let node_id = command.node_id;
        let broker = self.incarnation(command)?;
        if !broker.fenced {
            return Ok((ApplyOutcome::BrokerChanged, Vec::new()));
        }
        broker.fenced = false;
        let mut changes = vec![MetadataChange::BrokerChanged { node_id }];
        changes.extend(self.revise_replicas_of(node_id, |_| {}));
        Ok((ApplyOutcome::BrokerChanged, changes))
    }

    pub(super) fn drain_broker(&mut self, command: &BrokerIncarnation) -> Decision {
        let node_id = command.node_id;
        let broker = self.incarnation(command)?;
        if broker.draining {
            return Ok((ApplyOutcome::BrokerChanged, Vec::new()));
        }
        broker.draining = true;
        let brokers = self.brokers.clone();
        let mut changes = vec![MetadataChange::BrokerChanged { node_id }];
        changes.extend(self.revise_replicas_of(node_id, |draft| {
            let takes_over = |member: &NodeId| {
                *member != node_id && brokers.get(member).is_some_and(|other| !other.draining)
            };
            if draft.isr.iter().any(takes_over) {
                draft.leave_isr(node_id);
            }
        }));
        Ok((ApplyOutcome::BrokerChanged, changes))
    }

    pub(super) fn unregister_broker(&mut self, command: &UnregisterBroker) -> Decision {
        let node_id = command.node_id;
        let broker = self.brokers.get(&node_id).ok_or(Rejection::UnknownBroker(node_id))?;
        if !broker.fenced || self.holds_replicas(node_id) {
            return Err(Rejection::BrokerInUse(node_id));
        }
        self.brokers.remove(&node_id);
        Ok((ApplyOutcome::BrokerChanged, vec![MetadataChange::BrokerUnregistered { node_id }]))
    }

    /// Has `change` applied to every partition that `node` holds.
    fn revise_replicas_of(
        &mut self,
        node: NodeId,
        change: impl Fn(&mut Draft),
    ) -> Vec<MetadataChange> {
        self.revise_where(|_| true, |partition| partition.replicas.contains(&node), change)
    }

    fn incarnation(&mut self, named: &BrokerIncarnation) -> Result<&mut Broker, Rejection> {
        let BrokerIncarnation { node_id, broker_epoch } = *named;
        self.check_broker(node_id, broker_epoch)?;
        Ok(self.brokers.get_mut(&node_id).expect("checked above"))
    }
}
