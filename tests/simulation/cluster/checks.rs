//! What has to hold at every moment, and at the end.

use super::*;
use crate::model::Seen;
use crate::run::{check_clean, whole};

/// The newest record of every key from `start` on, where the last log begins, is the same everywhere, tombstones aside: those
/// may have gone here and not there.
fn check_newest(key: ReplicaKey, start: Offset, logs: &[(usize, Vec<Seen>)]) -> Result<(), Breach> {
    let newest = |log: &[Seen]| -> BTreeMap<u8, (Offset, bool)> {
        let keyed = log.iter().flat_map(|seen| &seen.keyed);
        keyed.map(|(offset, name, is_tombstone)| (*name, (*offset, *is_tombstone))).collect()
    };
    let all: Vec<_> = logs.iter().map(|(seat, log)| (seat, newest(log))).collect();
    for (seat, own) in &all {
        let counts = |(offset, is_tombstone): (Offset, bool)| offset >= start && !is_tombstone;
        for (name, (offset, is_tombstone)) in own.iter().filter(|(_, found)| counts(**found)) {
            for (other, theirs) in &all {
                if theirs.get(name) != Some(&(*offset, *is_tombstone)) {
                    return Err(format!(
                        "{key}: key {name} is newest at {offset} on node {}, and {:?} on node {}",
                        *seat + 1,
                        theirs.get(name),
                        *other + 1
                    ));
                }
            }
        }
    }
    Ok(())
}

impl World {
    /// After every input to a node.
    pub(super) fn check_node(&mut self, seat: usize) -> Result<(), Breach> {
        let Some(node) = &self.seats[seat].node else { return Ok(()) };
        for shard in &node.shards {
            shard.machine.check_invariants();
        }
        let did = node.did;
        let before = std::mem::replace(&mut self.seats[seat].did, did);
        for (event, before, now) in [
            (Event::SegmentsCut, before.cuts, did.cuts),
            (Event::LedRunInSegments, before.led_runs, did.led_runs),
            (Event::FollowedRunInSegments, before.followed_runs, did.followed_runs),
            (Event::SegmentsSwapped, before.swaps, did.swaps),
        ] {
            (before..now).for_each(|_| self.note(event));
        }
        for key in self.all_keys() {
            let Some(node) = &self.seats[seat].node else { return Ok(()) };
            let machine = &node.shards[node.owner(key)].machine;
            let Some(standing) = machine.replica_standing(key) else { continue };
            if standing.leads {
                let epoch = (key, standing.leader_epoch);
                let first = *self.leaders.entry(epoch).or_insert(seat);
                if first != seat {
                    let epoch = standing.leader_epoch;
                    return Err(format!(
                        "{key}: nodes {} and {} lead in {epoch:?}",
                        first + 1,
                        seat + 1
                    ));
                }
                self.check_watermark(seat, key, standing.leader_epoch, standing.high_watermark)?;
            }
        }
        Ok(())
    }

    /// Nothing is readable that a member of the in-sync set has not durably.
    fn check_watermark(
        &self,
        seat: usize,
        key: ReplicaKey,
        epoch: LeaderEpoch,
        high_watermark: Offset,
    ) -> Result<(), Breach> {
        let partition = self.controller.image().partition(key).expect("it is known");
        if partition.leader_epoch != epoch {
            return Ok(());
        }
        for member in &partition.isr {
            let Some(node) = &self.seats[seat_of(*member)].node else { continue };
            let machine = &node.shards[node.owner(key)].machine;
            let Some(standing) = machine.replica_standing(key) else { continue };
            let position = match self.counts_early(key) {
                true => standing.log_end_offset,
                false => standing.durable_end,
            };
            if position < high_watermark {
                return Err(format!(
                    "{key}: node {} lets read up to {high_watermark}, node {member} of the in-sync \
                     set has {}",
                    seat + 1,
                    position
                ));
            }
        }
        Ok(())
    }

    /// What was readable once is the same on every node.
    pub(super) fn check_written(
        &mut self,
        key: ReplicaKey,
        base: Offset,
        id: BatchId,
        epoch: LeaderEpoch,
    ) -> Result<(), Breach> {
        match self.written.insert((key, base), (id, epoch)) {
            Some(other) if other != (id, epoch) && !self.model.is_excused(key, base) => {
                Err(format!("{key}: {base} was {other:?} and is {:?} now", (id, epoch)))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Whether all is replicated and acknowledged, and nothing is under way that matters.
    pub(super) fn is_at_rest(&self) -> bool {
        self.unrest().is_empty()
    }

    /// What keeps the cluster from resting.
    pub(super) fn unrest(&self) -> String {
        let controller = self.controller.unrest();
        if !controller.is_empty() {
            return format!("the controller has something to do: {controller}");
        }
        if !self.network.is_quiet() {
            return "something is read or lost".to_owned();
        }
        if self.has_unacked() {
            return "a batch is not acknowledged".to_owned();
        }
        for key in self.all_keys() {
            let partition = self.controller.image().partition(key).expect("it is known");
            if partition.isr.len() < partition.replicas.len() || !partition.adding.is_empty() {
                return format!("{key}: {partition:?}");
            }
            let standing = |node: NodeId| {
                let node = self.seats[seat_of(node)].node.as_ref()?;
                node.shards[node.owner(key)].machine.replica_standing(key)
            };
            let ends: Vec<_> = partition
                .replicas
                .iter()
                .map(|node| standing(*node).map(|s| (s.durable_end, s.high_watermark)))
                .collect();
            if ends.iter().any(|end| *end != ends[0] || end.is_none_or(|end| end.0 != end.1)) {
                return format!("{key}: durable ends and high watermarks are {ends:?}");
            }
            let is_left = |seat: &usize| {
                !partition.replicas.contains(&node_id(*seat)) && self.holds(*seat, key)
            };
            if let Some(seat) = (0..NODES).find(is_left) {
                return format!("{key}: node {} still has it", seat + 1);
            }
        }
        self.unrest_of_groups()
    }

    /// Every replica has every acknowledged record, and all have the same.
    pub(super) fn check_everything(&mut self) -> Result<(), Breach> {
        for key in self.keys() {
            let mut logs: Vec<(usize, Vec<Seen>)> = Vec::new();
            let mut start = Offset::ZERO;
            let partition = self.controller.image().partition(key).expect("it is known");
            for seat in partition.replicas.clone().into_iter().map(seat_of) {
                let node = self.seats[seat].node.as_mut().expect("all run");
                let (log_start, high_watermark, log) =
                    whole(node, key).map_err(|error| format!("node {}: {error}", seat + 1))?;
                self.model
                    .replica(key, log_start, high_watermark, &log)
                    .map_err(|error| format!("node {}: {error}", seat + 1))?;
                start = start.max(log_start);
                let view = node.shards[node.owner(key)].machine.log_view(key).unwrap_or_default();
                check_clean(key, view.first_dirty_offset, &log)
                    .map_err(|error| format!("node {}: {error}", seat + 1))?;
                logs.push((seat, log));
            }
            if self.is_compacted(key) {
                // Each node compacts on its own: they agree on the newest of every key.
                check_newest(key, start, &logs)?;
                continue;
            }
            let longest = logs.iter().map(|(_, log)| log.len()).max().unwrap_or(0);
            let (_, reference) =
                logs.iter().find(|(_, log)| log.len() == longest).expect("one is the longest");
            for (seat, log) in &logs {
                if !reference.ends_with(log) {
                    return Err(format!("{key}: node {} has another log", seat + 1));
                }
            }
        }
        self.check_groups()
    }
}
