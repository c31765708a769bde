//! What a shard tells of itself to whoever watches it: counts that its inputs leave behind, and looks at its
//! partitions, a bounded number at a time.
//!
//! Nothing here decides anything, and nothing that decides reads it.

use super::partition::Partition;
use super::partition::role::Role;
use super::shard::ShardMachine;
use crate::model::{Offset, ReplicaKey};

/// What inputs have left behind since the shard started.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Records of clients that were appended here as the leader; duplicates are not appended.
    pub produced_records: u64,
    /// Bytes of their batches.
    pub produced_bytes: u64,
    /// Changes of in-sync sets after which a partition led here had fewer members.
    pub isr_shrinks: u64,
    /// Changes of in-sync sets after which a partition led here had more members.
    pub isr_expands: u64,
}

impl Tally {
    pub(super) fn produced(&mut self, records: i32, bytes: usize) {
        self.produced_records += u64::try_from(records).unwrap_or(0);
        self.produced_bytes += bytes as u64;
    }

    pub(super) fn in_sync_changed(&mut self, before: usize, after: usize) {
        self.isr_shrinks += u64::from(after < before);
        self.isr_expands += u64::from(after > before);
    }
}

/// How much of a shard's write-ahead log is taken.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct WalUse {
    /// Files that no checkpoint has freed, the active one as far as it is written, and what waits.
    pub taken_bytes: u64,
    /// The bound.
    pub bytes_max: u64,
}

/// The partitions of a shard, added up.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Survey {
    /// Replicas here.
    pub partitions: u64,
    /// Of them, those that lead.
    pub led: u64,
    /// Led here, with replicas that are not in sync.
    pub under_replicated: u64,
    /// Led here, with fewer replicas in sync than `min.insync.replicas`.
    pub under_min_isr: u64,
    /// Replicas whose files cannot be used.
    pub failed: u64,
    /// Replicas that compaction has given up, because it cannot read their records.
    pub uncleanable: u64,
    /// Bytes of the logs, in segments and in the WAL.
    pub log_bytes: u64,
    /// Bytes of batches that are not in segments yet.
    pub unflushed_bytes: u64,
}

impl Survey {
    fn add(&mut self, partition: &Partition) {
        let (in_sync, replicas) = (partition.in_sync.count(), partition.in_sync.replica_count());
        let is_led = partition.leads();
        self.partitions += 1;
        self.led += u64::from(is_led);
        self.under_replicated += u64::from(is_led && in_sync < replicas);
        let too_few = in_sync < partition.config.min_insync_replicas;
        self.under_min_isr += u64::from(is_led && too_few);
        self.failed += u64::from(partition.has_failed);
        self.uncleanable += u64::from(partition.is_uncleanable);
        self.unflushed_bytes += partition.tail.dirty_bytes();
        self.log_bytes += partition.segment_bytes + partition.tail.dirty_bytes();
    }
}

impl ShardMachine {
    /// What inputs have left behind.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// How much of the write-ahead log is taken.
    #[must_use]
    pub fn wal_use(&self) -> WalUse {
        WalUse { taken_bytes: self.wal.taken_bytes(), bytes_max: self.wal.bytes_max() }
    }

    /// Adds up to `count` partitions to a survey, from place `first` on. Returns where to go on; `None`: that was
    /// all.
    #[must_use]
    pub fn survey(&self, first: usize, count: usize, survey: &mut Survey) -> Option<usize> {
        self.partitions.within(first, count).for_each(|partition| survey.add(partition));
        let next = first + count;
        (next < self.partitions.place_count()).then_some(next)
    }

    /// Up to where consumers may read a partition, as its leader says or has said; `None` where that is not known
    /// here. A follower hears of it a moment later.
    #[must_use]
    pub fn known_high_watermark(&self, key: ReplicaKey) -> Option<Offset> {
        let partition = self.partitions.find(&key)?;
        let own = partition.high_watermark;
        match partition.role {
            Role::Leader => partition.in_sync.knows_past(own).then_some(own),
            // Zero as well before the leader of this epoch was heard of.
            Role::Follower { high_watermark, .. } => {
                (high_watermark >= own).then_some(high_watermark)
            }
        }
    }
}
