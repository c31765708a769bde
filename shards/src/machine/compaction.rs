//! Compaction of a shard's partitions: which is next, and how its segments are exchanged.
//!
//! One partition at a time, the dirtiest first, on the storage thread. That rewrites segments beside the old ones and
//! says when a group of them is durable. Only then, and when this shard's readers know that files are about to change under
//! their names, are they exchanged: whoever opens a file in between looks again.
//!
//! A compaction ends early where its partition is closed, fails, is cut, or loses segments; what was exchanged stays, and
//! the next one begins where the last complete one ended. A partition whose records cannot be read is not tried again
//! before its configuration changes or the node starts anew.
//!
//! Leaders and followers compact on their own. Deliberately absent: aborted transactions.

pub mod offset_map;

use super::effect::{CompactionFailure, CompactionReport, Effect, LogView, StoreJob};
use super::partition::compaction::{Cleanable, Cleaning};
use super::partitions::Slot;
use super::shard::{Life, ShardMachine};
use crate::model::{MonotonicMicros, Now, ReplicaKey};

/// The compaction of a shard. Owner: the shard.
#[derive(Debug, Default)]
pub struct Compaction {
    /// When to look for a partition next; `None` when none can be due before something happens.
    next_look: Option<MonotonicMicros>,
    running: Option<Running>,
    last_id: u64,
    totals: CompactionTotals,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    id: u64,
    key: ReplicaKey,
    begun: MonotonicMicros,
}

/// What compaction did since the shard started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CompactionTotals {
    /// Compactions that came to their end.
    pub completed: u64,
    /// Compactions that did not.
    pub failed: u64,
    /// Of the completed: bytes of the segments before.
    pub bytes_before: u64,
    /// Of the completed: bytes of the segments after.
    pub bytes_after: u64,
    /// Of the completed: records that are gone.
    pub records_removed: u64,
    /// How long the last completed one took.
    pub last_millis: u64,
}

impl Compaction {
    /// When the shard has to look for a partition.
    pub fn next_deadline(&self) -> Option<MonotonicMicros> {
        self.next_look.filter(|_| self.running.is_none())
    }

    /// A partition's segments are void or gone: the store does not go on with them. Returns whether it was at work there.
    pub fn forget(&mut self, key: &ReplicaKey) -> bool {
        self.running.take_if(|running| running.key == *key).is_some()
    }

    /// Begins none any more.
    pub fn stop(&mut self) {
        self.next_look = None;
    }
}

impl ShardMachine {
    /// What compaction did so far.
    #[must_use]
    pub fn compaction_totals(&self) -> CompactionTotals {
        self.compaction.totals
    }

    /// Something happened that may have made a partition due.
    pub(super) fn arm_compaction(&mut self, now: MonotonicMicros) {
        let mut partitions = self.partitions.iter();
        let is_armed = self.life != Life::Running || self.compaction.next_look.is_some();
        if !is_armed && partitions.any(|(_, partition)| partition.config.cleanup_compact) {
            let interval_ms = self.limits.compaction_interval_ms;
            self.compaction.next_look = Some(now.plus_millis(interval_ms));
        }
    }

    /// Begins the compaction that is most due.
    pub(super) fn look_for_dirt(&mut self, now: Now, out: &mut Vec<Effect>) {
        if self.compaction.next_deadline().is_none_or(|at| at > now.monotonic) {
            return;
        }
        self.compaction.next_look = None;
        let mut best: Option<(Cleaning, Slot)> = None;
        let mut is_later = false;
        for (slot, partition) in self.partitions.iter() {
            // Behind the removal of a former replica the store does not know it yet.
            if !partition.is_opened || self.removals.awaits(&partition.key) {
                continue;
            }
            match partition.cleanable(now.wall) {
                Cleanable::No => {}
                Cleanable::Later => is_later = true,
                Cleanable::Yes(cleaning) => {
                    best = best.max(Some((cleaning, slot)));
                }
            }
        }
        if let Some((cleaning, slot)) = best {
            let partition = self.partitions.get(slot).expect("it was found just now");
            let (key, end_offset) = (partition.key, cleaning.end_offset);
            self.compaction.last_id += 1;
            let id = self.compaction.last_id;
            self.compaction.running = Some(Running { id, key, begun: now.monotonic });
            out.push(Effect::Store(StoreJob::Compact { key, id, end_offset, now: now.wall }));
        }
        if is_later || best.is_some() {
            self.arm_compaction(now.monotonic);
        }
    }

    /// Rewritten segments are durable: from now on nobody may take a file that is opened for the old one.
    pub(super) fn segments_rewritten(&mut self, key: ReplicaKey, id: u64, out: &mut Vec<Effect>) {
        let is_running = self.compaction.running.is_some_and(|it| (it.id, it.key) == (id, key));
        let found = self.partitions.find_mut(&key).filter(|_| is_running);
        let Some((_, partition)) = found else { return };
        partition.is_swapping = true;
        out.push(Effect::Store(StoreJob::SwapSegments { key, id }));
    }

    /// Segments were exchanged, or will not be.
    pub(super) fn segments_swapped(
        &mut self,
        now: Now,
        key: ReplicaKey,
        view: LogView,
        out: &mut Vec<Effect>,
    ) {
        let Some((_, partition)) = self.partitions.find_mut(&key) else { return };
        partition.is_swapping = false;
        // What memory still has of them would hide that there are holes.
        let dropped = partition.tail.drop_clean_until(view.holes_end);
        self.cache.forgot(dropped, &self.partitions);
        self.take_view(now, key, view, out);
    }

    /// A compaction came to its end.
    pub(super) fn compacted(
        &mut self,
        now: Now,
        key: ReplicaKey,
        id: u64,
        result: Result<CompactionReport, CompactionFailure>,
    ) {
        let Some(running) = self.compaction.running.take_if(|it| (it.id, it.key) == (id, key))
        else {
            return;
        };
        let millis = now.monotonic.since(running.begun) / 1000;
        let totals = &mut self.compaction.totals;
        match result {
            Ok(report) => {
                totals.completed += 1;
                totals.bytes_before += report.bytes_before;
                totals.bytes_after += report.bytes_after;
                totals.records_removed += report.records_before - report.records_after;
                totals.last_millis = millis;
                tracing::info!(partition = %key, millis, %report, "compacted");
                // Another one may be due as well.
                self.compaction.next_look =
                    Some(now.monotonic).filter(|_| self.life == Life::Running);
            }
            Err(failure) => {
                totals.failed += 1;
                match &failure {
                    CompactionFailure::Unreadable(reason) => {
                        if let Some((_, partition)) = self.partitions.find_mut(&key) {
                            partition.is_uncleanable = true;
                        }
                        tracing::error!(
                            partition = %key,
                            reason,
                            "cannot be compacted and grows from now on; restore it from a replica, \
                             or delete its records up to there"
                        );
                    }
                    CompactionFailure::NoSpace | CompactionFailure::Overtaken => {
                        tracing::info!(partition = %key, millis, %failure, "compaction given up");
                    }
                }
                self.arm_compaction(now.monotonic);
            }
        }
    }

    /// As [`Compaction::forget`]; another one may be due.
    pub(super) fn abandon_compaction(&mut self, now: MonotonicMicros, key: &ReplicaKey) {
        if self.compaction.forget(key) {
            self.arm_compaction(now);
        }
    }
}
