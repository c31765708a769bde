//! What a leader accepts, where it puts it, and how far it counts.
//!
//! One path for all acks levels: a batch is judged, placed at the log's end and counted once its
//! position is reached. The level only chooses the position that is waited for.

use super::Partition;
use super::producers::Verdict;
use super::role::Role;
use crate::format::positions::ProducerBatch;
use crate::format::record_batch::{BatchHeader, ProducedBatch, StoredBatch};
use crate::machine::input::{FetchError, PartitionConfig, ProduceError};
use crate::model::{Acks, LeaderEpoch, Now, Offset, TimestampMs};

/// What became of an accepted batch.
#[derive(Debug)]
pub enum Accepted {
    /// It is at the log's end now.
    Appended(StoredBatch),
    /// It was there already.
    Duplicate(ProducerBatch),
}

impl Partition {
    /// Judges a batch and appends it.
    ///
    /// # Errors
    /// Why nothing was appended.
    pub fn append(
        &mut self,
        now: Now,
        acks: Acks,
        batch: ProducedBatch,
    ) -> Result<Accepted, ProduceError> {
        self.check_batch(now, acks, &batch.header)?;
        match self.producers.judge(&batch.header)? {
            Verdict::Fresh => {}
            Verdict::Duplicate(original) => return Ok(Accepted::Duplicate(original)),
            Verdict::Older { before } => {
                let reached = match acks {
                    Acks::None | Acks::Leader => self.in_sync.own(),
                    Acks::All => self.high_watermark,
                };
                // As success without an offset, clients take it: so not before it counts.
                return Err(match reached >= before {
                    true => ProduceError::DuplicateSequence,
                    false => ProduceError::TimedOut,
                });
            }
        }
        let batch =
            if self.config.log_append_time { batch.with_log_append_time(now.wall) } else { batch };
        let stored = StoredBatch::place(batch, self.log_end_offset, self.leader_epoch);
        self.epochs.assign(self.leader_epoch, self.log_end_offset);
        self.producers.appended(&stored.header, now.wall);
        self.log_end_offset = stored.end_offset();
        Ok(Accepted::Appended(self.tail.push(stored)))
    }

    /// Whether acks=all waits for replicas on other nodes.
    #[must_use]
    pub fn waits_for_others(&self) -> bool {
        self.leads() && self.in_sync.count() > 1
    }

    /// Moves the high watermark to where it may be; returns where it was if it moved.
    pub fn advance(&mut self) -> Option<Offset> {
        let unflushed = self.log_end_offset.since(self.durable_end).unsigned_abs();
        // With flush.messages=1 nothing unflushed ever counts.
        let position = if unflushed < self.config.flush_messages {
            self.log_end_offset
        } else {
            self.durable_end
        };
        if position > self.durable_end {
            self.counted_early_end = position;
        }
        self.in_sync.advance_own(position);
        let before = self.high_watermark;
        let reached = match self.role {
            Role::Leader => self.replicated_end(),
            // Nothing that this replica has not got counts here, whatever the leader says.
            Role::Follower { high_watermark, .. } => high_watermark.min(self.in_sync.own()),
        };
        self.high_watermark = before.max(reached);
        (self.high_watermark > before).then_some(before)
    }

    /// Up to where enough replicas have it. With fewer in sync than `min.insync.replicas`, though there are
    /// others, nothing more becomes readable. Source: KIP-966.
    fn replicated_end(&self) -> Offset {
        let required = self.config.min_insync_replicas.min(self.in_sync.replica_count());
        if self.in_sync.count() < required {
            return Offset::ZERO;
        }
        self.in_sync.lowest().unwrap_or_default()
    }

    /// Fences a client by the leader epoch it knows. Source: KIP-320.
    ///
    /// # Errors
    /// [`FetchError::FencedEpoch`], [`FetchError::UnknownEpoch`].
    pub fn check_epoch(&self, asked: Option<LeaderEpoch>) -> Result<(), FetchError> {
        let current = self.leader_epoch;
        match asked {
            Some(asked) if asked < current => Err(FetchError::FencedEpoch { asked, current }),
            Some(asked) if asked > current => Err(FetchError::UnknownEpoch { asked, current }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a batch that waits for all replicas would be taken.
    pub fn takes_all(&self) -> bool {
        let has_enough = self.in_sync.count() >= self.config.min_insync_replicas;
        !self.has_failed && self.leads() && !self.awaits_cut && has_enough
    }

    fn check_batch(&self, now: Now, acks: Acks, header: &BatchHeader) -> Result<(), ProduceError> {
        if self.has_failed {
            return Err(ProduceError::StorageFailed);
        }
        // Until its segments are cut a new leader does not know all producers.
        if !self.leads() || self.awaits_cut {
            return Err(ProduceError::NotLeader {
                key: self.key,
                leader: self.placement.leader,
                leader_epoch: self.leader_epoch,
            });
        }
        if header.is_control() {
            return Err(ProduceError::ControlBatch);
        }
        if header.is_transactional() {
            return Err(ProduceError::Transactional);
        }
        let limit = self.config.max_message_bytes;
        if header.total_bytes > limit {
            return Err(ProduceError::TooLarge { bytes: header.total_bytes, limit });
        }
        check_window(&self.config, now.wall, header)?;
        let (in_sync, required) = (self.in_sync.count(), self.config.min_insync_replicas);
        if acks == Acks::All && in_sync < required {
            return Err(ProduceError::NotEnoughReplicas { in_sync, required });
        }
        Ok(())
    }
}

/// The oldest record may be so old and the newest so far ahead, under `CreateTime`. The header's base
/// timestamp is the first record's, which stands for the oldest.
fn check_window(
    config: &PartitionConfig,
    now: TimestampMs,
    header: &BatchHeader,
) -> Result<(), ProduceError> {
    if config.log_append_time {
        return Ok(());
    }
    let age_ms = |timestamp: TimestampMs| now.0.saturating_sub(timestamp.0);
    let exceeds = |age_ms: i64, limit: Option<i64>| limit.is_some_and(|limit| age_ms > limit);
    let (oldest, newest) = (header.base_timestamp, header.max_timestamp);
    if oldest != TimestampMs::NONE && exceeds(age_ms(oldest), config.timestamp_before_max_ms) {
        return Err(ProduceError::TimestampOutOfWindow { timestamp: oldest });
    }
    let ahead_ms = age_ms(newest).saturating_neg();
    if newest != TimestampMs::NONE && exceeds(ahead_ms, config.timestamp_after_max_ms) {
        return Err(ProduceError::TimestampOutOfWindow { timestamp: newest });
    }
    Ok(())
}
