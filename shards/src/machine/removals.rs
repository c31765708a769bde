//! Partitions that were closed and whose files are not gone yet.
//!
//! Files go once the log says so durably. A replica that comes back before that is another one, under the same
//! key: its files are begun when those of the former are gone, and what the store says of the former is not
//! taken for it. Where removing fails, the files are in nobody's way, and it is tried again at a pace that
//! slows down.

use std::collections::BTreeMap;

use super::effect::{Effect, StoreJob};
use super::shard::ShardMachine;
use crate::model::{MonotonicMicros, ReplicaKey};

/// First pause before leftovers are removed again; it doubles.
const RETRY_MS_MIN: u64 = 1000;
/// The longest.
const RETRY_MS_MAX: u64 = 300_000;

#[derive(Clone, Copy, Default, Debug)]
struct Removal {
    /// Closed, and the log does not say so durably.
    undurable: u32,
    /// Closed, and the store has not answered.
    unanswered: u32,
}

/// Removals under way. Owner: the shard.
#[derive(Debug, Default)]
pub struct Removals {
    by_key: BTreeMap<ReplicaKey, Removal>,
    /// When leftovers are removed again; `None` while there are none, or the store is at it.
    retry_at: Option<MonotonicMicros>,
    pause_ms: u64,
}

impl Removals {
    /// A partition is closed.
    pub fn begin(&mut self, key: ReplicaKey) {
        let removal = self.by_key.entry(key).or_default();
        removal.undurable += 1;
        removal.unanswered += 1;
    }

    /// The log says so durably: the store is asked next.
    pub fn durable(&mut self, key: &ReplicaKey) {
        if let Some(removal) = self.by_key.get_mut(key) {
            removal.undurable -= 1;
        }
    }

    /// The store is done.
    pub fn done(&mut self, key: &ReplicaKey) {
        let Some(removal) = self.by_key.get_mut(key) else { return };
        removal.unanswered -= 1;
        if removal.unanswered == 0 {
            self.by_key.remove(key);
        }
    }

    /// Whether files of a former replica are still there.
    pub fn awaits(&self, key: &ReplicaKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// So many directories are left over.
    pub fn left_over(&mut self, now: MonotonicMicros, count: usize) {
        if count == 0 {
            (self.retry_at, self.pause_ms) = (None, 0);
        } else if self.retry_at.is_none() {
            self.pause_ms = (self.pause_ms * 2).clamp(RETRY_MS_MIN, RETRY_MS_MAX);
            self.retry_at = Some(now.plus_millis(self.pause_ms));
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<MonotonicMicros> {
        self.retry_at
    }

    /// Has leftovers removed again once it is time.
    pub fn tick(&mut self, now: MonotonicMicros, out: &mut Vec<Effect>) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            out.push(Effect::Store(StoreJob::RemoveLeftovers));
        }
    }

    /// Whether the store was asked to remove every former one.
    pub fn may_open(&self, key: &ReplicaKey) -> bool {
        self.by_key.get(key).is_none_or(|removal| removal.undurable == 0)
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
