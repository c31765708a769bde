//! Flush rounds: durable batches go to segments, then a checkpoint frees the WAL behind them.
//!
//! A round cuts at the durable LSN: it appends what every dirty partition has durable there, and only
//! when the store has answered for each of them asks for the checkpoint, so that a checkpoint never
//! speaks of an append that failed for want of space. One round at a time; what does not fit the disk
//! is given again every second.
//!
//! A partition whose files fail is fenced and leaves the round. If it has acknowledged records that are in
//! the WAL only, the WAL is held: later rounds still bring the other partitions to segments, but
//! their checkpoints free nothing, until the partition is deleted or a restart has brought its records
//! home. At the WAL's bound that means back-pressure, never the loss of what was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::{CheckpointJob, Effect, StoreJob};
use super::partitions::{Partitions, Slot};
use super::wal::NO_SPACE_RETRY_MS;
use crate::model::{Lsn, MonotonicMicros, Now, ReplicaKey};

/// When a round begins.
#[derive(Clone, Copy, Debug)]
pub struct RoundLimits {
    /// Bytes of commits since the last cut.
    pub dirty_bytes: u64,
    /// Age of the oldest commit since the last cut.
    pub age_ms: u64,
    /// Bytes that went straight to segments since the last cut: a start reads them again.
    pub run_bytes: u64,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Appending {
        lsn: Lsn,
        /// Partitions that have not reached their target.
        outstanding: usize,
        /// Those of them whose append found no space.
        refused: Vec<Slot>,
    },
    Checkpointing {
        lsn: Lsn,
        /// Whether it covers all that was durable at the cut.
        covers_cut: bool,
        /// Whether it found no space, so that it is not with the store.
        is_refused: bool,
    },
}

/// The round under way and what gathers for the next. Owner: the shard.
#[derive(Debug)]
pub struct Rounds {
    limits: RoundLimits,
    phase: Phase,
    /// Partitions with durable batches that no round took yet, each once.
    dirty: Vec<Slot>,
    bytes_since_cut: u64,
    run_bytes_since_cut: u64,
    oldest_since_cut: Option<MonotonicMicros>,
    /// Partitions whose directory found no space.
    unopened: Vec<ReplicaKey>,
    /// When to give again what found no space.
    retry_at: Option<MonotonicMicros>,
    /// Since something found no space until a checkpoint is through.
    lacks_space: bool,
    /// Number of the last checkpoint.
    checkpointed: Lsn,
    /// Failed partitions with records in the WAL only, and the checkpoint that must not be passed.
    held: BTreeMap<ReplicaKey, Lsn>,
    /// Recovered partitions that are not open yet. A checkpoint would not speak of them, but free the
    /// WAL that does: until they are open there is no round.
    unopened_yet: BTreeSet<ReplicaKey>,
}

impl Rounds {
    /// No round; everything up to `checkpointed` is in segments, durably, and `uncovered_bytes` of
    /// commits behind it are there as well, but not durably. No round begins before the `recovered`
    /// partitions are open.
    pub fn new(
        limits: RoundLimits,
        checkpointed: Lsn,
        uncovered_bytes: u64,
        recovered: BTreeSet<ReplicaKey>,
    ) -> Self {
        Self {
            limits,
            checkpointed,
            held: BTreeMap::new(),
            unopened_yet: recovered,
            phase: Phase::Idle,
            dirty: Vec::new(),
            bytes_since_cut: uncovered_bytes,
            run_bytes_since_cut: 0,
            oldest_since_cut: (uncovered_bytes > 0).then_some(MonotonicMicros(0)),
            unopened: Vec::new(),
            retry_at: None,
            lacks_space: false,
        }
    }

    /// A commit of so many bytes became durable.
    pub fn commit_durable(&mut self, now: MonotonicMicros, bytes: u64) {
        if bytes > 0 {
            self.bytes_since_cut += bytes;
            self.oldest_since_cut.get_or_insert(now);
        }
    }

    /// So many bytes are in segments that no checkpoint speaks of.
    pub fn run_flushed(&mut self, bytes: u64) {
        self.run_bytes_since_cut += bytes;
    }

    /// A partition has durable batches that are not in segments.
    pub fn mark_dirty(&mut self, slot: Slot) {
        self.dirty.push(slot);
    }

    /// Whether no round is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    /// Whether a round may begin.
    pub fn may_start(&self) -> bool {
        self.is_idle() && !self.awaits_opening()
    }

    /// Whether recovered partitions are not open yet.
    pub fn awaits_opening(&self) -> bool {
        !self.unopened_yet.is_empty()
    }

    /// A recovered partition is open, or deleted.
    pub fn known(&mut self, key: &ReplicaKey) {
        self.unopened_yet.remove(key);
    }

    /// Whether a checkpoint would say nothing new.
    pub fn is_clean(&self) -> bool {
        self.is_idle() && self.bytes_since_cut == 0
    }

    /// Whether the disk had no room for segments.
    pub fn lacks_space(&self) -> bool {
        self.lacks_space
    }

    /// Whether bytes or age ask for a round and none is under way.
    pub fn is_due(&self, now: MonotonicMicros) -> bool {
        let aged = || self.age_deadline().is_some_and(|deadline| deadline <= now);
        let many = self.bytes_since_cut >= self.limits.dirty_bytes
            || self.run_bytes_since_cut >= self.limits.run_bytes;
        self.may_start() && (many || aged())
    }

    /// Cuts at `lsn`, which is durable, and hands out the appends.
    pub fn start(
        &mut self,
        now: Now,
        lsn: Lsn,
        partitions: &mut Partitions,
        out: &mut Vec<Effect>,
    ) {
        assert!(self.may_start(), "one round at a time, and of all partitions");
        self.bytes_since_cut = 0;
        self.run_bytes_since_cut = 0;
        self.oldest_since_cut = None;
        let mut outstanding = 0;
        for slot in self.dirty.drain(..) {
            let Some(partition) = partitions.get_mut(slot) else { continue };
            partition.is_dirty = false;
            // A run may have brought them home meanwhile, or the log was cut.
            if partition.has_failed || partition.durable_end <= partition.segments_end {
                continue;
            }
            partition.append_target = Some(partition.durable_end);
            outstanding += 1;
            append(now, slot, partitions, out);
        }
        for (_, partition) in partitions.iter_mut() {
            partition.covering_end = partition.durable_end;
        }
        self.phase = Phase::Appending { lsn, outstanding, refused: Vec::new() };
        self.checkpoint_if_appended(partitions, out);
    }

    /// A partition reached its target, or left the round for good.
    pub fn append_done(&mut self, partitions: &Partitions, out: &mut Vec<Effect>) {
        if let Phase::Appending { outstanding, .. } = &mut self.phase {
            *outstanding -= 1;
            self.checkpoint_if_appended(partitions, out);
        }
    }

    /// A failed partition has records that are in the WAL only: keep them there.
    pub fn hold(&mut self, key: ReplicaKey) {
        // What a checkpoint under way speaks of was appended before the failure.
        let kept_from = match self.phase {
            Phase::Checkpointing { lsn, .. } => lsn,
            Phase::Idle | Phase::Appending { .. } => self.checkpointed,
        };
        self.held.insert(key, kept_from);
        tracing::error!(
            partition = %key,
            "the WAL keeps records that could not be brought to segments, and is not recycled; \
             repair the partition's directory and restart, or delete the topic"
        );
    }

    /// Whether checkpoints free nothing.
    pub fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// A partition is deleted: nobody wants its records any more.
    pub fn release(&mut self, key: &ReplicaKey) {
        self.held.remove(key);
    }

    /// No space for an append, a directory (`slot` and `key` given) or the checkpoint.
    pub fn refused(&mut self, now: MonotonicMicros, whose: Option<(Slot, ReplicaKey)>) {
        self.retry_at = Some(now.plus_millis(NO_SPACE_RETRY_MS));
        self.lacks_space = true;
        let Some((slot, key)) = whose else {
            if let Phase::Checkpointing { is_refused, .. } = &mut self.phase {
                *is_refused = true;
            }
            return;
        };
        if let Phase::Appending { refused, .. } = &mut self.phase
            && !refused.contains(&slot)
        {
            refused.push(slot);
        }
        if !self.unopened.contains(&key) {
            self.unopened.push(key);
        }
    }

    /// The checkpoint of the round is durable. Returns its number.
    ///
    /// # Panics
    /// When it was not asked for.
    pub fn checkpointed(&mut self, lsn: Lsn, partitions: &mut Partitions) -> Lsn {
        let Phase::Checkpointing { lsn: asked, covers_cut, .. } = self.phase else {
            panic!("no checkpoint at {lsn:?} was asked for");
        };
        assert_eq!(lsn, asked, "the checkpoint asked for");
        assert!(lsn >= self.checkpointed, "checkpoints only grow");
        self.checkpointed = lsn;
        if covers_cut {
            for (_, partition) in partitions.iter_mut().filter(|(_, found)| !found.has_failed) {
                partition.covered_end = partition.covering_end;
            }
        }
        self.phase = Phase::Idle;
        self.lacks_space = false;
        lsn
    }

    /// When [`tick`](Self::tick) or [`is_due`](Self::is_due) has something to say.
    pub fn next_deadline(&self) -> Option<MonotonicMicros> {
        let age = if self.may_start() { self.age_deadline() } else { None };
        age.into_iter().chain(self.retry_at).min()
    }

    /// Gives again what found no space, once its time has come.
    pub fn tick(&mut self, now: Now, partitions: &Partitions, out: &mut Vec<Effect>) {
        if self.retry_at.is_none_or(|at| at > now.monotonic) {
            return;
        }
        self.retry_at = None;
        for key in self.unopened.drain(..) {
            let Some(partition) = partitions.find(&key) else { continue };
            if !partition.is_opened {
                out.push(Effect::Store(StoreJob::Open {
                    key,
                    topic_name: partition.topic_name.clone(),
                    config: partition.config.clone(),
                }));
            }
        }
        match &mut self.phase {
            Phase::Idle => {}
            Phase::Appending { refused, .. } => {
                for slot in refused.drain(..) {
                    append(now, slot, partitions, out);
                }
            }
            Phase::Checkpointing { lsn, is_refused, .. } => {
                if std::mem::take(is_refused) {
                    checkpoint(*lsn, partitions, out);
                }
            }
        }
    }

    /// Panics where the list of the dirty or the round disagrees with the partitions.
    pub fn check_invariants(&self, partitions: &Partitions) {
        let marked = partitions.iter().filter(|(_, partition)| partition.is_dirty).count();
        let open = self.dirty.iter().filter(|slot| partitions.get(**slot).is_some()).count();
        assert_eq!(marked, open, "dirty partitions are listed once");
        let targets = partitions.iter().filter(|(_, found)| found.append_target.is_some()).count();
        match &self.phase {
            Phase::Appending { outstanding, .. } => assert_eq!(targets, *outstanding, "appends"),
            Phase::Idle | Phase::Checkpointing { .. } => assert_eq!(targets, 0, "no appends"),
        }
        for (_, partition) in partitions.iter().filter(|(_, found)| !found.has_failed) {
            let reached = partition.append_target.unwrap_or(partition.segments_end);
            let listed = partition.is_dirty || partition.durable_end <= reached;
            assert!(listed, "{}: durable batches are listed", partition.key);
        }
    }

    fn age_deadline(&self) -> Option<MonotonicMicros> {
        self.oldest_since_cut.map(|oldest| oldest.plus_millis(self.limits.age_ms))
    }

    fn checkpoint_if_appended(&mut self, partitions: &Partitions, out: &mut Vec<Effect>) {
        if let Phase::Appending { lsn: cut, outstanding: 0, .. } = self.phase {
            let lsn = self.held.values().copied().min().map_or(cut, |held| held.min(cut));
            let covers_cut = lsn == cut;
            self.phase = Phase::Checkpointing { lsn, covers_cut, is_refused: false };
            checkpoint(lsn, partitions, out);
        }
    }
}

fn append(now: Now, slot: Slot, partitions: &Partitions, out: &mut Vec<Effect>) {
    let Some(partition) = partitions.get(slot) else { return };
    let Some(target) = partition.append_target else { return };
    let batches = partition.tail.dirty_until(target).cloned().collect();
    out.push(Effect::Store(StoreJob::Append { key: partition.key, batches, now: now.wall }));
}

fn checkpoint(lsn: Lsn, partitions: &Partitions, out: &mut Vec<Effect>) {
    let partitions = partitions.iter().map(|(_, partition)| partition.checkpoint()).collect();
    out.push(Effect::Store(StoreJob::Checkpoint(Box::new(CheckpointJob { lsn, partitions }))));
}
