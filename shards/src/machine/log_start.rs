//! What moves the log start: a client that deletes records, retention, a leader that tells its followers.
//!
//! Invariants: a log start only grows, counts once the WAL has it, and never passes the high watermark. Segments go
//! after that, with the store.

use super::effect::{Effect, StoreJob};
use super::input::{FetchError, Token};
use super::partition::retention::Retention;
use super::partitions::Slot;
use super::shard::{Life, ShardMachine};
use super::wal::Note;
use crate::format::wal_entry::WalEntry;
use crate::model::{MonotonicMicros, Now, Offset, ReplicaKey};

impl ShardMachine {
    /// Moves the log start up to `before`, `None` for the high watermark. Answered by
    /// [`Effect::RecordsDeleted`] once that is durable.
    ///
    /// # Errors
    /// [`FetchError::UnknownPartition`], [`FetchError::StorageFailed`], and
    /// [`FetchError::OutOfRange`] beyond the high watermark.
    pub fn delete_records(
        &mut self,
        now: Now,
        token: Token,
        key: ReplicaKey,
        before: Option<Offset>,
        out: &mut Vec<Effect>,
    ) -> Result<(), FetchError> {
        let running = self.life == Life::Running;
        let slot = self.partitions.slot(&key).filter(|_| running);
        let slot = slot.ok_or(FetchError::UnknownPartition(key))?;
        let partition = self.partitions.get(slot).expect("a key names an open slot");
        if partition.has_failed {
            return Err(FetchError::StorageFailed);
        }
        if !partition.leads() {
            let (leader, leader_epoch) = (partition.placement.leader, partition.leader_epoch);
            return Err(FetchError::NotLeader { key, leader, leader_epoch });
        }
        let wanted = before.unwrap_or(partition.high_watermark);
        let log_start_offset = partition.log_start_offset;
        // Below the log start there is nothing left to delete, which is what was asked.
        partition.check_range(wanted.max(log_start_offset))?;
        if wanted <= log_start_offset {
            out.push(Effect::RecordsDeleted { token, log_start_offset });
        } else {
            self.move_log_start(slot, wanted, Some(token));
            self.pump(now, out);
        }
        Ok(())
    }

    pub(super) fn move_log_start(&mut self, slot: Slot, wanted: Offset, token: Option<Token>) {
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        let key = partition.key;
        partition.queued_log_start = partition.queued_log_start.max(wanted);
        let log_start_offset = partition.queued_log_start;
        let note = Note::LogStart { slot, key, log_start_offset, token };
        self.wal.push(WalEntry::LogStart { key, log_start_offset }, note);
    }

    pub(super) fn arm_retention(&mut self, now: MonotonicMicros) {
        if self.life == Life::Running && self.next_retention.is_none() {
            self.next_retention = Some(now.plus_millis(self.limits.retention_interval_ms));
        }
    }

    pub(super) fn run_retention(&mut self, now: Now, out: &mut Vec<Effect>) {
        self.next_retention = None;
        let mut slots = Vec::new();
        let mut needs_next = false;
        for (slot, partition) in self.partitions.iter_mut() {
            partition.producers.expire(now.wall);
            partition.awaits_roll = false;
            if partition.has_retention() {
                slots.push(slot);
            }
            needs_next |= partition.has_retention() || !partition.producers.is_empty();
        }
        for slot in slots {
            self.retain(now, slot, out);
        }
        if needs_next {
            self.arm_retention(now.monotonic);
        }
    }

    pub(super) fn retain(&mut self, now: Now, slot: Slot, out: &mut Vec<Effect>) {
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        let key = partition.key;
        match partition.retention(now.wall) {
            // The answer to a roll comes after those to the appends before it.
            Retention::Roll if partition.awaits_roll => {}
            Retention::Roll => {
                partition.awaits_roll = true;
                out.push(Effect::Store(StoreJob::Roll { key }));
            }
            Retention::LogStart(offset) => {
                partition.awaits_roll = false;
                self.move_log_start(slot, offset, None);
            }
            Retention::Keep => partition.awaits_roll = false,
        }
    }
}
