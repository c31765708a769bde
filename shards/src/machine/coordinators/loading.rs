//! How a new coordinator comes to know its partition: step by step, since the log may be long.
//!
//! It reads up to where the log ended when it became the leader. Nothing of that is cut while it leads; what of it
//! is not committed yet will be, and answers that rest on it wait for that.

use std::collections::VecDeque;

use super::{Held, Hosted};
use crate::format::group_record::{GroupRecord, GroupRecordError};
use crate::format::record::Records;
use crate::format::record_batch::StoredBatch;
use crate::machine::effect::Effect;
use crate::machine::group::Coordinator;
use crate::machine::partitions::Slot;
use crate::machine::shard::ShardMachine;
use crate::model::{LeaderEpoch, MonotonicMicros, Now, Offset, ReplicaKey};

/// Bytes of the log that one step takes in.
const STEP_BYTES: usize = 256 << 10;
/// What a batch may expand to. The server compresses none of its own.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// How far a coordinator is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It reads.
    Loading {
        /// Everything below is replayed.
        next: Offset,
        /// Where it is done.
        end: Offset,
    },
    /// It answers.
    Serving,
    /// The log cannot be read: whoever asks is told to try again, until another replica leads.
    Failed,
}

/// The next step of a coordinator that reads.
#[derive(Debug)]
pub enum GroupRead {
    /// None: it is done, or is not there any more.
    Done,
    /// The log is being cut: ask again in a moment.
    NotYet,
    /// These batches; hand them back.
    Cached(Vec<StoredBatch>),
    /// Read these from segments.
    InSegments {
        /// First offset wanted.
        offset: Offset,
        /// First offset not wanted.
        end: Offset,
        /// Bound on the bytes, first batch excepted.
        bytes_max: usize,
    },
}

impl ShardMachine {
    /// Makes the coordinator of a partition that this shard leads.
    pub(super) fn begin_coordinator(
        &mut self,
        slot: Slot,
        held: VecDeque<Held>,
        out: &mut Vec<Effect>,
    ) {
        let Some(settings) = self.coordinators.settings.clone() else { return };
        let Some(partition) = self.partitions.get_mut(slot) else { return };
        partition.is_coordinated = true;
        let (key, leader_epoch) = (partition.key, partition.leader_epoch);
        let (next, end) = (partition.log_start_offset, partition.log_end_offset);
        let mut coordinator = Coordinator::new(settings, leader_epoch);
        coordinator.set_overrides(self.coordinators.overrides.clone());
        let hosted = Hosted {
            slot,
            coordinator,
            stage: Stage::Loading { next, end },
            asked_end: end,
            held,
            is_paused: false,
            not_before: MonotonicMicros(0),
            topics_version: -1,
        };
        let before = self.coordinators.hosted.insert(key, hosted);
        assert!(before.is_none(), "{key}: one coordinator a partition");
        out.push(Effect::LoadGroups { key, leader_epoch });
    }

    /// What the coordinator of `leader_epoch` is to read next. Without anything left it serves from now on.
    pub fn next_group_read(
        &mut self,
        now: Now,
        key: ReplicaKey,
        leader_epoch: LeaderEpoch,
        out: &mut Vec<Effect>,
    ) -> GroupRead {
        let Some((next, end)) = self.loading(&key, leader_epoch) else { return GroupRead::Done };
        let Some(partition) = self.partitions.find(&key) else { return GroupRead::Done };
        if partition.awaits_cut {
            return GroupRead::NotYet;
        }
        let offset = next.max(partition.log_start_offset);
        if offset >= end {
            if let Some(hosted) = self.coordinators.hosted.get_mut(&key) {
                hosted.stage = Stage::Serving;
            }
            self.take_turn(now, key, |coordinator| coordinator.loaded(now), out);
            self.coordinators.look_ahead();
            self.pump(now, out);
            return GroupRead::Done;
        }
        let first_cached = partition.tail.first_offset();
        if first_cached.is_none_or(|first| offset < first) {
            let end = end.min(first_cached.unwrap_or(partition.segments_end));
            return GroupRead::InSegments { offset, end, bytes_max: STEP_BYTES };
        }
        let mut bytes = 0;
        let step = partition.tail.from(offset).take_while(|batch| {
            let is_within = bytes < STEP_BYTES && batch.header.base_offset < end;
            bytes += batch.total_bytes();
            is_within
        });
        GroupRead::Cached(step.cloned().collect())
    }

    /// What was asked for with [`next_group_read`](Self::next_group_read). Everything below `end` that is not among
    /// the batches is not there, unless batches end before.
    pub fn group_log_read(
        &mut self,
        key: ReplicaKey,
        leader_epoch: LeaderEpoch,
        end: Offset,
        batches: &[StoredBatch],
        out: &mut Vec<Effect>,
    ) {
        let Some((next, load_end)) = self.loading(&key, leader_epoch) else { return };
        let Some(hosted) = self.coordinators.hosted.get_mut(&key) else { return };
        let reached = batches.last().map_or(end, StoredBatch::end_offset);
        let replayed =
            batches.iter().try_for_each(|batch| replay(&mut hosted.coordinator, batch, next));
        match replayed {
            Ok(()) => hosted.stage = Stage::Loading { next: reached.max(next), end: load_end },
            Err(reason) => self.group_log_failed(key, leader_epoch, reason, out),
        }
    }

    /// The log cannot be read.
    pub fn group_log_failed(
        &mut self,
        key: ReplicaKey,
        leader_epoch: LeaderEpoch,
        reason: String,
        out: &mut Vec<Effect>,
    ) {
        if self.loading(&key, leader_epoch).is_none() {
            return;
        }
        if let Some(hosted) = self.coordinators.hosted.get_mut(&key) {
            hosted.stage = Stage::Failed;
        }
        out.push(Effect::GroupsFailed { key, reason });
    }

    /// How far the coordinator of that epoch is, if it reads.
    fn loading(&self, key: &ReplicaKey, leader_epoch: LeaderEpoch) -> Option<(Offset, Offset)> {
        let hosted = self.coordinators.hosted.get(key)?;
        match hosted.stage {
            Stage::Loading { next, end } if hosted.coordinator.leader_epoch() == leader_epoch => {
                Some((next, end))
            }
            Stage::Loading { .. } | Stage::Serving | Stage::Failed => None,
        }
    }
}

/// Replays the records of a batch from `first` on. Kinds that are not known are passed over.
fn replay(coordinator: &mut Coordinator, batch: &StoredBatch, first: Offset) -> Result<(), String> {
    let at = batch.header.base_offset;
    let told = |error: &dyn std::fmt::Display| format!("the batch at offset {at}: {error}");
    if batch.header.is_control() {
        return Ok(());
    }
    let payload = batch.decompressed(BATCH_BYTES_MAX).map_err(|error| told(&error))?;
    for record in Records::new(&batch.header, &payload) {
        let record = record.map_err(|error| told(&error))?;
        if at.plus(i64::from(record.offset_delta)) < first {
            continue;
        }
        let Some(key) = record.key else { continue };
        match GroupRecord::decode(key, record.value) {
            Ok(record) => coordinator.replay(&record),
            Err(GroupRecordError::UnknownKind(_)) => {}
            Err(error) => return Err(told(&error)),
        }
    }
    Ok(())
}
