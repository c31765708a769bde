//! Partitions that were closed and whose files are not gone yet.
//!
//! Files go once the log says so durably. A replica that comes back before that is another one, under the same
//! key: its files are begun when those of the former are gone, and what the store says of the former is not
//! taken for it.

use std::collections::BTreeMap;

use super::effect::{Effect, StoreJob};
use super::shard::ShardMachine;
use crate::model::ReplicaKey;

#[derive(Clone, Copy, Default, Debug)]
struct Removal {
    /// Closed, and the log does not say so durably.
    undurable: u32,
    /// Closed, and the store has not answered.
    unanswered: u32,
}

/// Removals under way. Owner: the shard.
#[derive(Debug, Default)]
pub struct Removals(BTreeMap<ReplicaKey, Removal>);

impl Removals {
    /// A partition is closed.
    pub fn begin(&mut self, key: ReplicaKey) {
        let removal = self.0.entry(key).or_default();
        removal.undurable += 1;
        removal.unanswered += 1;
    }

    /// The log says so durably: the store is asked next.
    pub fn durable(&mut self, key: &ReplicaKey) {
        if let Some(removal) = self.0.get_mut(key) {
            removal.undurable -= 1;
        }
    }

    /// The store is done.
    pub fn done(&mut self, key: &ReplicaKey) {
        let Some(removal) = self.0.get_mut(key) else { return };
        removal.unanswered -= 1;
        if removal.unanswered == 0 {
            self.0.remove(key);
        }
    }

    /// Whether files of a former replica are still there.
    pub fn awaits(&self, key: &ReplicaKey) -> bool {
        self.0.contains_key(key)
    }

    /// Whether the store was asked to remove every former one.
    pub fn may_open(&self, key: &ReplicaKey) -> bool {
        self.0.get(key).is_none_or(|removal| removal.undurable == 0)
    }
}

impl ShardMachine {
    /// The log says durably that a partition is closed: its files go, and those of its successor begin.
    pub(super) fn closed_durably(&mut self, key: ReplicaKey, out: &mut Vec<Effect>) {
        out.push(Effect::Store(StoreJob::Remove { key }));
        self.removals.durable(&key);
        if self.removals.may_open(&key)
            && let Some(partition) = self.partitions.find(&key)
        {
            let (topic_name, config) = (partition.topic_name.clone(), partition.config.clone());
            out.push(Effect::Store(StoreJob::Open { key, topic_name, config }));
        }
    }
}
