//! Runs of large batches: they go straight to segments.
//!
//! What goes through the write-ahead log is written twice. That is the price of one write for all partitions, and
//! worth it while a partition's share of the write is small. A partition that has gathered a large share by the time of
//! a commit takes another way: the store appends its batches to the segments and makes them durable
//! there, and the log gets a line that says so. That line stands for the batches in the log's order: they count
//! once it is durable, like any other entry.
//!
//! Invariants: from the first batch of a run until its line is in the log's queue, later batches of the
//! partition gather behind it, so that its records become durable in order. One group of runs is with the
//! store at a time; what comes meanwhile is the next. Followers get a run when the store does. A log is not cut while
//! it has a run, and has none while its segments are being cut. What waits counts against the log's room, as if it
//! were to be written there: it may have to be, when segments find no space.

use std::collections::BTreeMap;

use super::effect::{Effect, StoreJob};
use super::partitions::Slot;
use super::shard::ShardMachine;
use super::wal::{Note, WalQueue};
use crate::format::record_batch::StoredBatch;
use crate::format::wal_entry::WalEntry;
use crate::model::{Now, Offset, ReplicaKey};

/// Batches of one partition that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The first record.
    pub base_offset: Offset,
    /// The offset after the last record.
    pub end_offset: Offset,
    /// What the batches take in a segment.
    pub bytes: u64,
}

/// The runs of a shard. Owner: the shard.
#[derive(Debug, Default)]
pub struct LargeRuns {
    gathering: BTreeMap<Slot, Run>,
    /// With the store.
    group: BTreeMap<Slot, Run>,
    /// Of both.
    bytes: u64,
}

impl LargeRuns {
    /// Whether a partition's next batch has to gather.
    pub fn holds(&self, slot: Slot) -> bool {
        self.gathering.contains_key(&slot) || self.group.contains_key(&slot)
    }

    /// Takes batches that follow what is held of the partition.
    pub fn gather(&mut self, slot: Slot, run: Run) {
        self.bytes += run.bytes;
        let held = self.gathering.entry(slot).or_insert(Run {
            end_offset: run.base_offset,
            bytes: 0,
            ..run
        });
        assert_eq!(held.end_offset, run.base_offset, "batches of a run follow each other");
        held.end_offset = run.end_offset;
        held.bytes += run.bytes;
    }

    /// Gives a partition's next batch to the log, or lets it gather.
    pub fn enqueue(&mut self, wal: &mut WalQueue, slot: Slot, key: ReplicaKey, batch: StoredBatch) {
        let (base_offset, end_offset) = (batch.header.base_offset, batch.end_offset());
        if self.holds(slot) {
            let bytes = batch.total_bytes() as u64;
            self.gather(slot, Run { base_offset, end_offset, bytes });
        } else {
            wal.push(WalEntry::Batch { key, batch }, Note::Batch { slot, end_offset });
        }
    }

    /// Bytes that gather or are with the store.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing gathers and nothing is with the store.
    pub fn is_idle(&self) -> bool {
        self.gathering.is_empty() && self.group.is_empty()
    }

    /// What has gathered, unless a group is with the store.
    fn take_gathered(&mut self) -> BTreeMap<Slot, Run> {
        if !self.group.is_empty() {
            return BTreeMap::new();
        }
        let gathered = std::mem::take(&mut self.gathering);
        self.bytes -= bytes_of(&gathered);
        gathered
    }

    fn begin(&mut self, group: BTreeMap<Slot, Run>) {
        assert!(self.group.is_empty(), "one group at a time");
        self.bytes += bytes_of(&group);
        self.group = group;
    }

    fn finish(&mut self) -> BTreeMap<Slot, Run> {
        let group = std::mem::take(&mut self.group);
        self.bytes -= bytes_of(&group);
        group
    }

    /// Drops what gathers of a partition that is closed or fenced.
    pub fn forget(&mut self, slot: Slot) {
        if let Some(run) = self.gathering.remove(&slot) {
            self.bytes -= run.bytes;
        }
    }

    /// Panics where the bytes are not counted.
    pub fn check_invariants(&self) {
        let bytes = bytes_of(&self.gathering) + bytes_of(&self.group);
        assert_eq!(bytes, self.bytes, "bytes of runs are counted");
    }
}

fn bytes_of(runs: &BTreeMap<Slot, Run>) -> u64 {
    runs.values().map(|run| run.bytes).sum()
}

impl ShardMachine {
    /// Takes large runs out of what the next commit would hold.
    pub(super) fn divert_large_runs(&mut self, now: Now, out: &mut Vec<Effect>) {
        // In the log there is room for all that was let in.
        if self.rounds.lacks_space() {
            return;
        }
        // Where segments still hold what was cut, a run would be taken for what is void there.
        let (partitions, removals) = (&self.partitions, &self.removals);
        let may_leave = |slot| {
            let found = partitions.get(slot);
            found.is_some_and(|found| !found.awaits_cut && !removals.awaits(&found.key))
        };
        for (slot, run) in self.wal.divert(self.limits.run_bytes_min, may_leave) {
            self.runs.gather(slot, run);
        }
        self.begin_large_runs(now, out);
    }

    /// Gives the store what has gathered, if it has nothing of the kind. What is not large any more goes
    /// to the log, as does everything while segments find no space.
    pub(super) fn begin_large_runs(&mut self, now: Now, out: &mut Vec<Effect>) {
        let gathered = self.runs.take_gathered();
        if gathered.is_empty() {
            return;
        }
        let lacks_space = self.rounds.lacks_space();
        let (mut group, mut runs) = (BTreeMap::new(), Vec::new());
        for (slot, run) in gathered {
            if lacks_space || run.bytes < self.limits.run_bytes_min {
                self.log_run(slot, run);
            } else if let Some(partition) = self.partitions.get(slot) {
                let batches = partition.tail.dirty_until(run.end_offset).cloned().collect();
                runs.push((partition.key, batches));
                group.insert(slot, run);
            }
        }
        self.runs.begin(group);
        if !runs.is_empty() {
            // What is before a run in its batches was sent with a commit, and is not sent again.
            let batches =
                runs.iter().flat_map(|(key, batches): &(ReplicaKey, Vec<StoredBatch>)| {
                    batches.iter().map(move |batch| (key, batch))
                });
            self.replicate(batches);
            out.push(Effect::Store(StoreJob::AppendRuns { runs, now: now.wall }));
        }
    }

    /// The store is done with the group: what it has made durable counts with the next commit.
    pub(super) fn large_runs_done(&mut self) {
        for (slot, run) in self.runs.finish() {
            let Some(partition) = self.partitions.get(slot) else { continue };
            if partition.has_failed {
                continue;
            }
            let (key, end_offset) = (partition.key, run.end_offset);
            if partition.segments_end >= end_offset {
                self.rounds.run_flushed(run.bytes);
                let note = Note::Batch { slot, end_offset };
                self.wal.push(WalEntry::Flushed { key, end_offset }, note);
            } else {
                self.log_run(slot, run);
            }
        }
    }

    /// Gives the batches of a run to the log after all.
    fn log_run(&mut self, slot: Slot, run: Run) {
        let Some(partition) = self.partitions.get(slot) else { return };
        let key = partition.key;
        let of_run = partition.tail.from(run.base_offset);
        for batch in of_run.take_while(|batch| batch.end_offset() <= run.end_offset) {
            let end_offset = batch.end_offset();
            let note = Note::Batch { slot, end_offset };
            self.wal.push(WalEntry::Batch { key, batch: batch.clone() }, note);
        }
    }
}
