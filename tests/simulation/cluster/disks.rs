//! What happens to disks: they fill, their syncs fail, they rot, they are replaced; and clocks are set.

use chronik_shards::format::metadata_command::{
    Assignment, ElectLeaders, Election, LedPartition, MetadataCommand, UnregisterBroker,
};
use chronik_shards::store::recovery::RecoveryError;

use super::*;

const MINUTE_MS: i64 = 60_000;

impl World {
    /// A disk has little room left, or room again.
    pub(super) fn fill_disk(&mut self) {
        let seat = self.rng.place(NODES);
        let disk = self.seats[seat].disk.clone();
        if std::mem::take(&mut self.seats[seat].is_full) {
            disk.set_quota(None);
            self.trace(|| format!("the disk of node {} has room again", seat + 1));
            return;
        }
        let used: u64 = disk.files().values().map(|bytes| bytes.len() as u64).sum();
        disk.set_quota(Some(used + self.rng.below(40_000)));
        self.seats[seat].is_full = true;
        self.trace(|| format!("the disk of node {} is full", seat + 1));
        self.note(Event::DiskFull);
    }

    /// The next sync of a node fails: its process ends, and what it had not made durable may be gone.
    pub(super) fn fail_sync(&mut self) {
        let seat = self.rng.place(NODES);
        if self.runs(seat) {
            self.seats[seat].disk.fail_syncs(true);
            self.seats[seat].fails_syncs = true;
        }
    }

    /// Whether an error was asked for; the process has ended with it.
    pub(super) fn ends_by_failed_sync(&mut self, seat: usize) -> bool {
        let is_wanted = std::mem::take(&mut self.seats[seat].fails_syncs);
        if is_wanted {
            self.seats[seat].disk.fail_syncs(false);
            self.stop(seat, true);
            self.note(Event::SyncFailed);
        }
        is_wanted
    }

    /// The wall clock of a node is set, the monotonic one goes on as ever.
    pub(super) fn set_clock(&mut self) {
        let seat = self.rng.place(NODES);
        // Together below the day after which a producer is forgotten.
        let minutes = [-600, -61, -1, 1, 61, 600][self.rng.place(6)];
        self.seats[seat].wall_ahead_ms = minutes * MINUTE_MS;
        self.trace(|| format!("the clock of node {} jumps by {minutes} min", seat + 1));
        self.note(Event::ClockJumped);
    }

    /// Whether every partition outlives the loss of a node's disk.
    fn may_lose_disk(&self, seat: usize) -> bool {
        let has =
            |other: &NodeId| *other != node_id(seat) && !self.seats[seat_of(*other)].is_replaced;
        let image = self.controller.image();
        let is_one_lost = self.seats.iter().any(|seat| seat.is_replaced);
        let mut partitions = image.topics().flat_map(|topic| &topic.partitions);
        !is_one_lost && partitions.all(|it| it.isr.iter().chain(&it.elr).any(&has))
    }

    /// A node comes to rest, goes down, and a bit of its WAL flips: recovery refuses, or nothing is lost.
    pub(super) fn rot(&mut self) -> Result<(), Breach> {
        let seat = self.rng.place(NODES);
        if !self.runs(seat) || self.seats[seat].is_full || self.seats[seat].fails_syncs {
            return Ok(());
        }
        // What was acknowledged last has a seal behind it by then, so that it cannot pass for torn.
        for micros in [1_100_000, 50_000, 50_000] {
            self.finish_io(seat)?;
            self.micros += micros;
            self.tick()?;
        }
        self.finish_io(seat)?;
        let is_quiet = self.seats[seat].node.as_ref().is_some_and(Node::is_quiet);
        if !is_quiet || !self.may_lose_disk(seat) {
            return Ok(());
        }
        let leads = |(_, found): (_, &chronik_shards::machine::metadata::Partition)| {
            found.leader == Some(node_id(seat))
        };
        let mut all = self.controller.image().topics().flat_map(|topic| topic.replicas());
        let event = if all.any(leads) { Event::LeaderRotted } else { Event::FollowerRotted };
        drop(all);
        self.note(event);
        self.stop(seat, false);
        let files = node::wal_paths(&self.seats[seat].disk);
        let (path, bytes) = &files[self.rng.place(files.len())];
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
        let path = path.clone();
        let (position, bit) = (self.rng.below(used), self.rng.below(8) as u32);
        self.trace(|| format!("bit {bit} of {} at {position} flips", path.display()));
        self.seats[seat].backup = Some(self.seats[seat].disk.fork());
        self.seats[seat].disk.flip_bit(&path, position, bit);
        Ok(())
    }

    pub(super) fn finish_io(&mut self, seat: usize) -> Result<(), Breach> {
        for _ in 0..2000 {
            let pending = self.seats[seat].node.as_ref().map(Node::pending).unwrap_or_default();
            let Some(next) = pending.first().copied().filter(|_| self.runs(seat)) else { break };
            self.perform(seat, next)?;
        }
        Ok(())
    }

    /// A recovery that refuses is what rot has to come to: the node gets another disk, or a copy.
    pub(super) fn did_not_start(
        &mut self,
        seat: usize,
        error: &RecoveryError,
    ) -> Result<(), Breach> {
        match (error, self.seats[seat].backup.take()) {
            (RecoveryError::Damaged(_), Some(backup)) => {
                self.note(Event::DamageRefused);
                if self.may_lose_disk(seat) {
                    self.replace_disk(seat);
                } else {
                    // It has what nobody else is sure to have: it comes from a copy.
                    self.seats[seat].disk = backup;
                }
                Ok(())
            }
            (error, _) => Err(format!("node {} does not start: {error}", seat + 1)),
        }
    }

    /// A node loses its disk for good.
    pub(super) fn wipe(&mut self) {
        let seat = self.rng.place(NODES);
        if self.may_lose_disk(seat) {
            if self.seats[seat].node.is_some() {
                self.stop(seat, true);
            }
            self.replace_disk(seat);
            self.note(Event::DiskWiped);
        }
    }

    fn replace_disk(&mut self, seat: usize) {
        self.trace(|| format!("node {} gets an empty disk", seat + 1));
        let disk = SimDisk::new();
        node::format(&disk);
        self.seats[seat].disk = disk;
        self.seats[seat].is_full = false;
        self.seats[seat].backup = None;
        self.seats[seat].is_replaced = true;
        // Nobody replaces a disk before the cluster goes on without the node.
        self.controller.fence(seat);
        self.seats[seat].directory += 1;
    }

    /// A node on another disk is refused as long as its former self is a member. So the operator moves its
    /// replicas to the others and takes it off the list; then it may come as a new one.
    pub(super) fn give_up_replaced(&mut self) {
        let Some(seat) = self.seats.iter().position(|seat| seat.is_replaced) else { return };
        let gone = node_id(seat);
        let others: Vec<NodeId> =
            self.controller.image().broker_ids().into_iter().filter(|it| *it != gone).collect();
        let holds = |key: &ReplicaKey| {
            let found = self.controller.image().partition(*key).expect("it is known");
            found.replicas.contains(&gone) && !found.removing.contains(&gone)
        };
        let held: Vec<ReplicaKey> = self.all_keys().into_iter().filter(holds).collect();
        for key in self.all_keys() {
            self.elect_instead_of(gone, key);
        }
        for key in held {
            self.reassign_to(key, Some(Assignment { replicas: others.clone() }));
        }
        let image = self.controller.image();
        let is_free = image
            .topics()
            .flat_map(|topic| &topic.partitions)
            .all(|found| !found.replicas.contains(&gone));
        let Some(broker) = image.broker(gone) else {
            // It was taken off before, and has not come back since.
            self.seats[seat].is_replaced = false;
            return;
        };
        if !is_free || !broker.fenced {
            return;
        }
        let unregister = MetadataCommand::UnregisterBroker(UnregisterBroker { node_id: gone });
        self.controller.apply(unregister).expect("it is fenced and has nothing");
        self.trace(|| format!("node {gone} is taken off the list"));
        self.seats[seat].is_replaced = false;
        self.note(Event::Unregistered);
    }

    /// Where records count before they are flushed, whoever restarted is no longer eligible while others are, and the last one
    /// that is may be the one whose disk is gone. The operator then has to choose among the others, whatever that costs.
    fn elect_instead_of(&mut self, gone: NodeId, key: ReplicaKey) {
        let found = self.controller.image().partition(key).expect("it is known").clone();
        if !self.counts_early(key) || !found.isr.is_empty() || found.elr != [gone] {
            return;
        }
        let partitions = vec![LedPartition { key, leader_epoch: found.leader_epoch }];
        let elect = ElectLeaders { election: Election::Unclean, partitions };
        self.controller.apply(MetadataCommand::ElectLeaders(elect)).expect("it is never refused");
        if self.controller.image().partition(key).is_some_and(|found| found.leader.is_some()) {
            self.trace(|| format!("{key}: the operator has another than node {gone} elected"));
            self.allow_loss(key, Offset::ZERO, Offset(i64::MAX));
            self.note(Event::ElectedUncleanly);
        }
    }
}
