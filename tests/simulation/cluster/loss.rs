//! What may be lost of topics whose `flush.messages` lets records count before they are on a disk, and what may not.
//!
//! A process that ends takes with it what it had not flushed. While enough others are in sync that is no loss: it
//! comes back into the in-sync set only behind them, and while others are eligible it is not. It is one when nobody else
//! is eligible any more: then what it had not flushed may be gone, and nothing else.

use super::*;

/// What a process took with it.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    seat: usize,
    key: ReplicaKey,
    broker_epoch: BrokerEpoch,
    /// It had flushed up to here.
    from: Offset,
    until: Offset,
}

impl World {
    /// Whether records of a partition count before they are flushed.
    pub(super) fn counts_early(&self, key: ReplicaKey) -> bool {
        let topic = self.controller.image().topic(key.topic_id);
        topic.is_some_and(|topic| topic.configs.contains_key("flush.messages"))
    }

    /// A process is about to end.
    pub(super) fn note_unflushed(&mut self, seat: usize) {
        for key in self.keys() {
            let Some(node) = &self.seats[seat].node else { return };
            let standing = node.shards[node.owner(key)].machine.replica_standing(key);
            if let Some(standing) = standing
                && standing.durable_end < standing.log_end_offset
                && self.counts_early(key)
            {
                let (from, until) = (standing.durable_end, standing.log_end_offset);
                let broker_epoch = self.seats[seat].broker_epoch;
                self.lost.push(Lost { seat, key, broker_epoch, from, until });
                self.note(Event::UnflushedLost);
            }
        }
    }

    /// Takes back what was promised of records that may be gone with a process.
    pub(super) fn excuse(&mut self) {
        for lost in std::mem::take(&mut self.lost) {
            let Lost { seat, key, broker_epoch, from, until } = lost;
            let Some(partition) = self.controller.image().partition(key) else { continue };
            let node = node_id(seat);
            let epoch = self.controller.image().broker(node).map(|broker| broker.epoch);
            if partition.isr.is_empty() && partition.elr == [node] {
                let ends = (0..NODES).filter_map(|seat| {
                    let node = self.seats[seat].node.as_ref()?;
                    let standing = node.shards[node.owner(key)].machine.replica_standing(key)?;
                    Some(standing.log_end_offset)
                });
                let until = ends.fold(until, Offset::max);
                self.trace(|| format!("{key}: {from}..{until} may be lost with node {node}"));
                self.allow_loss(key, from, until);
                self.note(Event::LossAllowed);
            } else if epoch == Some(broker_epoch) || !partition.isr.contains(&node) {
                self.lost.push(lost);
            }
        }
    }

    /// Takes back what was promised of these records.
    pub(super) fn allow_loss(&mut self, key: ReplicaKey, from: Offset, until: Offset) {
        self.model.excuse(key, from, until);
        self.written.retain(|(other, base), _| *other != key || *base < from || *base >= until);
    }
}
