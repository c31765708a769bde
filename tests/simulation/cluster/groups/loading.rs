//! New coordinators read their partitions, a step at a time.

use chronik_shards::format::record_batch::StoredBatch;
use chronik_shards::machine::coordinators::GroupRead;

use super::*;

/// A coordinator that reads.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) seat: usize,
    shard: usize,
    key: ReplicaKey,
    leader_epoch: LeaderEpoch,
    /// What its node knew to be committed when it began.
    high_watermark: Offset,
}

impl World {
    pub(in crate::cluster) fn load_groups(
        &mut self,
        seat: usize,
        shard: usize,
        key: ReplicaKey,
        leader_epoch: LeaderEpoch,
    ) {
        let node = self.seats[seat].node.as_ref().expect("it has just acted");
        let info = node.shards[shard].machine.info(key);
        let high_watermark = info.map_or(Offset::ZERO, |info| info.high_watermark);
        self.groups().loads.push(Load { seat, shard, key, leader_epoch, high_watermark });
    }

    /// Something is wrong with a partition of groups: never that it cannot be read.
    pub(in crate::cluster) fn groups_failed(
        &mut self,
        key: ReplicaKey,
        reason: &str,
    ) -> Result<(), Breach> {
        self.note(Event::GroupsFailed);
        match reason.contains("was not appended") {
            true => Ok(()),
            false => Err(format!("{key}: {reason}")),
        }
    }

    pub(super) fn load_one(&mut self) -> Result<(), Breach> {
        let count = self.groups().loads.len();
        if count == 0 || !self.rng.one_in(3) {
            return Ok(());
        }
        let place = self.rng.place(count);
        let load = self.groups().loads[place];
        if !self.runs(load.seat) || self.seats[load.seat].slow_until > self.micros {
            return Ok(());
        }
        if self.load_step(load)? {
            self.groups().loads.swap_remove(place);
            self.note(Event::GroupsLoaded);
        }
        Ok(())
    }

    /// Whether it has read all.
    fn load_step(&mut self, load: Load) -> Result<bool, Breach> {
        let Load { seat, shard, key, leader_epoch, high_watermark } = load;
        let (now, mut effects) = (self.now(seat), Vec::new());
        let node = self.seats[seat].node.as_mut().expect("it runs");
        let step = node.act(now, shard, &mut effects, |machine, out| {
            machine.next_group_read(now, key, leader_epoch, out)
        });
        let view = node.shards[shard].machine.log_view(key).unwrap_or_default();
        let read = match step {
            GroupRead::Done => None,
            GroupRead::NotYet => Some((Offset::ZERO, Vec::new())),
            GroupRead::Cached(batches) => {
                let end = batches.last().map(StoredBatch::end_offset);
                end.map(|end| (end, batches))
            }
            GroupRead::InSegments { offset, end, .. } => {
                let mut batches = node.read_segments(key, &view, offset, end);
                let wanted = 1 + self.rng.place(4);
                batches.truncate(wanted);
                Some((end, batches))
            }
        };
        self.take(seat, effects)?;
        let Some((end, mut batches)) = read else { return Ok(true) };
        if end == Offset::ZERO {
            return Ok(false);
        }
        let end = batches.last().map_or(end, StoredBatch::end_offset);
        if self.bug == Some(Bug::GroupsLoadStale) {
            batches.retain(|batch| batch.end_offset() <= high_watermark);
            // As if the rest held nothing.
            if batches.last().is_some_and(|last| last.end_offset() < end) {
                batches.clear();
            }
        }
        let (now, mut effects) = (self.now(seat), Vec::new());
        let Some(node) = self.seats[seat].node.as_mut() else { return Ok(true) };
        node.act(now, shard, &mut effects, |machine, out| {
            machine.group_log_read(key, leader_epoch, end, &batches, out);
        });
        self.take(seat, effects)?;
        Ok(false)
    }
}
