//! Questions to a shard: what can be read, where, and how far partitions are. Nothing here changes a
//! partition; a fetch that finds too little is parked.

use super::effect::{Effect, LogView};
use super::input::{
    EpochEnd, FetchData, FetchError, FetchInput, FetchPlan, FetchWait, PartitionInfo, Token,
};
use super::partition::Partition;
use super::partitions::Slot;
use super::replica::ReplicaStanding;
use super::shard::{Life, ShardMachine};
use crate::format::record_batch::StoredBatch;
use crate::model::{LeaderEpoch, Now, Offset, ReplicaKey};

impl ShardMachine {
    /// Answers a fetch from memory, or says what to read from segments.
    pub fn fetch(&mut self, input: &FetchInput) -> Vec<FetchPlan> {
        let mut remaining = input.max_bytes;
        let mut is_first = true;
        let mut plans = Vec::with_capacity(input.partitions.len());
        for wanted in &input.partitions {
            // Every partition gets its first batch whole while there is budget, the first one always.
            let bytes_max = match (remaining, is_first) {
                (0, false) => 0,
                (remaining, _) => remaining.min(wanted.max_bytes).max(1),
            };
            let key = wanted.key;
            let plan = match self.partitions.find(&key) {
                Some(partition) => partition.plan_fetch(wanted, bytes_max),
                None => Err(FetchError::UnknownPartition(key)),
            };
            let result = plan.map(|(slice, bytes)| {
                is_first &= matches!(slice.data, FetchData::Nothing);
                remaining = remaining.saturating_sub(bytes);
                slice
            });
            plans.push(FetchPlan { key, result });
        }
        plans
    }

    /// Parks a fetch until enough is readable or its time is up. One that has enough already, names a
    /// partition that cannot be read, or is one too many, is answered at once.
    pub fn wait_fetch(&mut self, now: Now, wait: FetchWait, out: &mut Vec<Effect>) {
        match self.missing_bytes(now, &wait) {
            Some((missing, slots)) => {
                self.waits.park(&wait, missing, slots, &mut self.partitions);
            }
            None => out.push(Effect::FetchReady { token: wait.token }),
        }
    }

    /// Forgets a parked fetch.
    pub fn cancel_wait(&mut self, token: Token) {
        self.waits.cancel(token, &mut self.partitions);
    }

    /// Where a leader epoch ended; `None` when nothing is known of it. Source: KIP-279, KIP-320.
    ///
    /// # Errors
    /// Those of [`check_leads`](Self::check_leads).
    pub fn epoch_end(
        &self,
        key: ReplicaKey,
        current: Option<LeaderEpoch>,
        asked: LeaderEpoch,
    ) -> Result<Option<EpochEnd>, FetchError> {
        let partition = self.led(key, current)?;
        let (leader_epoch, log_end) = (partition.leader_epoch, partition.log_end_offset);
        Ok(partition.epochs.end_of(asked, leader_epoch, log_end))
    }

    /// Fences a client by the leader epoch it knows, and one that asks another than the leader.
    ///
    /// # Errors
    /// [`FetchError::UnknownPartition`], [`FetchError::FencedEpoch`], [`FetchError::UnknownEpoch`],
    /// [`FetchError::NotLeader`].
    pub fn check_leads(
        &self,
        key: ReplicaKey,
        current: Option<LeaderEpoch>,
    ) -> Result<(), FetchError> {
        self.led(key, current).map(|_| ())
    }

    /// As [`check_leads`](Self::check_leads), and that the high watermark has reached what a leader before may have told
    /// of its own. Source: KIP-207.
    ///
    /// # Errors
    /// Those, and [`FetchError::OffsetNotAvailable`].
    pub fn check_knows_end(
        &self,
        key: ReplicaKey,
        current: Option<LeaderEpoch>,
    ) -> Result<(), FetchError> {
        let partition = self.led(key, current)?;
        let high_watermark = partition.high_watermark;
        if partition.in_sync.knows_past(high_watermark) {
            return Ok(());
        }
        let offset = partition.in_sync.epoch_start();
        Err(FetchError::OffsetNotAvailable { offset, high_watermark })
    }

    fn led(&self, key: ReplicaKey, current: Option<LeaderEpoch>) -> Result<&Partition, FetchError> {
        let partition = self.partitions.find(&key).ok_or(FetchError::UnknownPartition(key))?;
        partition.check_epoch(current)?;
        if partition.leads() {
            return Ok(partition);
        }
        let (leader, leader_epoch) = (partition.placement.leader, partition.leader_epoch);
        Err(FetchError::NotLeader { key, leader, leader_epoch })
    }

    /// Positions and size of a partition.
    #[must_use]
    pub fn info(&self, key: ReplicaKey) -> Option<PartitionInfo> {
        self.partitions.find(&key).map(Partition::info)
    }

    /// How far this replica of a partition is.
    #[must_use]
    pub fn replica_standing(&self, key: ReplicaKey) -> Option<ReplicaStanding> {
        self.partitions.find(&key).map(|partition| ReplicaStanding {
            leads: partition.leads(),
            leader_epoch: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            durable_end: partition.durable_end,
            log_end_offset: partition.log_end_offset,
        })
    }

    /// The segments of a partition.
    #[must_use]
    pub fn log_view(&self, key: ReplicaKey) -> Option<LogView> {
        self.partitions.find(&key).map(|partition| partition.view.clone())
    }

    /// Whether a partition is here and its segments are in the files that have their names, as when its view had this
    /// generation.
    #[must_use]
    pub fn is_view_current(&self, key: ReplicaKey, generation: u32) -> bool {
        let found = self.partitions.find(&key);
        found.is_some_and(|found| found.view.generation == generation && !found.is_swapping)
    }

    /// Whether files of a partition are being exchanged or cut at this moment.
    #[must_use]
    pub fn is_swapping(&self, key: ReplicaKey) -> bool {
        self.partitions.find(&key).is_some_and(|found| found.is_swapping || found.awaits_cut)
    }

    /// Whether files of a partition may be others, or shorter, than they were when its segments ended at `end`.
    #[must_use]
    pub fn has_changed_since(&self, key: ReplicaKey, end: Option<Offset>) -> bool {
        self.is_swapping(key)
            || self.partitions.find(&key).is_some_and(|found| found.view.end_offset() != end)
    }

    /// Readable batches at or after `offset` that are not in segments yet.
    #[must_use]
    pub fn cached_from(&self, key: ReplicaKey, offset: Offset) -> Vec<StoredBatch> {
        let found = self.partitions.find(&key);
        found.map(|partition| partition.unflushed_from(offset)).unwrap_or_default()
    }

    /// What a wait misses and where, or `None` when there is no reason to wait.
    fn missing_bytes(&self, now: Now, wait: &FetchWait) -> Option<(u64, Vec<Slot>)> {
        let full = self.waits.len() >= self.limits.fetch_waits_max;
        if full || self.life != Life::Running || wait.deadline <= now.monotonic {
            return None;
        }
        let mut missing = wait.min_bytes as u64;
        let mut slots = Vec::with_capacity(wait.partitions.len());
        for (key, offset) in &wait.partitions {
            let slot = self.partitions.slot(key)?;
            let partition = self.partitions.get(slot)?;
            if partition.has_failed || partition.check_range(*offset).is_err() {
                return None;
            }
            missing = missing.saturating_sub(partition.readable_bytes(*offset));
            slots.push(slot);
        }
        // A partition that is named twice lists the wait once.
        slots.sort_unstable();
        slots.dedup();
        (missing > 0).then_some((missing, slots))
    }
}
