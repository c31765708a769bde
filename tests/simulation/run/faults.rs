//! Administration, and what goes wrong: crashes, power loss, full disks, rot, and bugs put in on purpose.

use std::path::PathBuf;

use super::*;

impl World {
    pub(super) fn config(&mut self, is_compacted: bool) -> PartitionConfig {
        let config = self.any_config();
        if !is_compacted {
            return config;
        }
        PartitionConfig {
            cleanup_compact: true,
            cleanup_delete: self.rng.one_in(3),
            segment_bytes: 2000 + self.rng.below(20_000),
            min_cleanable_dirty_ppm: [0, 300_000, 600_000][self.rng.place(3)],
            min_compaction_lag_ms: [0, 0, 3000][self.rng.place(3)],
            max_compaction_lag_ms: self.rng.one_in(3).then_some(5000),
            delete_retention_ms: [0, 4000, 86_400_000][self.rng.place(3)],
            ..config
        }
    }

    fn any_config(&mut self) -> PartitionConfig {
        PartitionConfig {
            segment_bytes: 4000 + self.rng.below(60_000),
            retention_ms: None,
            retention_bytes: self.rng.one_in(3).then(|| 20_000 + self.rng.below(100_000)),
            ..PartitionConfig::default()
        }
    }

    pub(super) fn create_topic(&mut self) {
        if self.known.len() > 12 || self.next_topic == u8::MAX {
            return;
        }
        let topic_id = TopicId([self.next_topic; 16]);
        self.next_topic += 1;
        let is_compacted = self.rng.one_in(2);
        let config = self.config(is_compacted);
        for partition in 0..1 + self.rng.below(3) as i32 {
            let key = ReplicaKey { topic_id, partition: PartitionIndex(partition) };
            let known = Known { topic_name: topic_name(key), config: config.clone() };
            let (now, epoch) = (self.now(), LeaderEpoch(self.epoch));
            let mut effects = Vec::new();
            self.node.open(now, key, &known, epoch, None, &mut effects);
            assert!(effects.is_empty(), "opening asks nobody");
            self.known.insert(key, known);
            self.model.open(key);
        }
    }

    pub(super) fn delete_topic(&mut self) -> Result<(), Breach> {
        let key = self.any_key();
        let topic: Vec<ReplicaKey> =
            self.known.keys().copied().filter(|other| other.topic_id == key.topic_id).collect();
        if topic.len() == self.known.len() {
            return Ok(());
        }
        self.trace(|| format!("delete topic {}", key.topic_id));
        self.gone.topics.insert(key.topic_id);
        self.node.deleted.note(key.topic_id);
        let now = self.now();
        for key in topic {
            self.known.remove(&key);
            self.model.close(key);
            let owner = self.node.owner(key);
            let mut effects = Vec::new();
            self.node.act(now, owner, &mut effects, |machine, out| {
                machine.close_partition(now, key, out)
            });
            self.take(effects)?;
        }
        self.note(Event::TopicDeleted);
        self.replace_producers();
        Ok(())
    }

    /// Producers of deleted partitions go elsewhere, as new ones.
    pub(super) fn replace_producers(&mut self) {
        for index in 0..self.producers.len() {
            let producer = &self.producers[index];
            if !self.known.contains_key(&producer.key) && !producer.is_waiting {
                self.add_producer();
                let last = self.producers.len() - 1;
                self.producers.swap_remove(index);
                debug_assert!(index < last);
            }
        }
    }

    pub(super) fn change_config(&mut self) -> Result<(), Breach> {
        let key = self.any_key();
        let config = self.config(self.known[&key].config.cleanup_compact);
        self.known.get_mut(&key).expect("it is known").config = config.clone();
        let owner = self.node.owner(key);
        let mut effects = Vec::new();
        let now = self.now();
        self.node.act(now, owner, &mut effects, |machine, out| {
            machine.configure_partition(key, config, out);
        });
        self.take(effects)
    }

    // -- Faults -----------------------------------------------------------------------------------

    pub(super) fn fill_disk(&mut self, is_full: bool) {
        self.is_full = is_full;
        let used: u64 = self.disk.files().values().map(|bytes| bytes.len() as u64).sum();
        let room = self.rng.below(60_000);
        self.disk.set_quota(is_full.then_some(used + room));
        if is_full {
            self.note(Event::DiskFull);
        }
    }

    /// The process dies; what it wrote is in the page cache, and some of its writes are still done.
    pub(super) fn kill(&mut self) -> Result<(), Breach> {
        self.trace(|| "kill".to_owned());
        self.note(Event::Killed);
        self.restart(false)
    }

    pub(super) fn lose_power(&mut self) -> Result<(), Breach> {
        self.die_in_a_job();
        self.trace(|| "power is lost".to_owned());
        self.note(Event::PowerLost);
        self.restart(true)
    }

    /// The storage thread of some shard is in the middle of something when the end comes.
    fn die_in_a_job(&mut self) {
        let is_stored =
            |pending: &Pending| matches!(pending, Pending::Job(_) | Pending::Compact(_));
        let pending: Vec<Pending> = self.node.pending().into_iter().filter(is_stored).collect();
        if pending.is_empty() || self.rng.one_in(2) {
            return;
        }
        let pending = pending[self.rng.place(pending.len())];
        let changes = self.rng.below(16);
        self.trace(|| format!("{pending:?} ends after {changes} changes"));
        self.disk.fail_after(Some(changes));
        let (now, mut effects) = (self.now(), Vec::new());
        // What it would have answered nobody hears any more.
        if self.node.perform(now, pending, &mut effects).is_err() {
            self.note(Event::CrashedInJob);
        }
        self.disk.fail_after(None);
    }

    pub(super) fn restart(&mut self, loses_power: bool) -> Result<(), Breach> {
        self.forget_clients();
        let seed = self.rng.next();
        if loses_power {
            self.disk.crash(seed);
        } else {
            self.disk.end_process(seed);
        }
        if self.bug == Some(Bug::LastCommitIgnored) {
            hide_last_commit(&self.disk);
        }
        // A machine that stays full does not start; somebody makes room.
        self.fill_disk(false);
        for _ in 0..3 {
            if self.rng.one_in(2) {
                self.crash_a_start();
            }
        }
        let shards = self.shard_count();
        let node = self.start(shards).map_err(|error| format!("recovery: {error}"))?;
        if node.shards.len() != self.node.shards.len() {
            self.note(Event::OtherShardCount);
        }
        self.note_how_it_started(&node);
        self.node = node;
        self.trace(|| format!("started with {shards} shards"));
        self.read_everything()
    }

    /// A start that does not live long: it ends within recovery, or while it does its first work.
    fn crash_a_start(&mut self) {
        self.disk.fail_after(Some(self.rng.below(90)));
        let shards = self.shard_count();
        match self.start(shards) {
            Ok(mut node) => {
                self.note_how_it_started(&node);
                let steps = self.rng.below(30);
                for _ in 0..steps {
                    let pending = node.pending();
                    let Some(pending) = pending.get(self.rng.place(pending.len().max(1))) else {
                        break;
                    };
                    let (now, mut effects) = (self.now(), Vec::new());
                    if node.perform(now, *pending, &mut effects).is_err() {
                        break;
                    }
                }
                let seed = self.rng.next();
                if self.rng.one_in(2) {
                    self.trace(|| format!("kill {steps} steps after a start"));
                    self.disk.end_process(seed);
                } else {
                    self.trace(|| format!("power is lost {steps} steps after a start"));
                    self.disk.crash(seed);
                }
                self.note(Event::CrashedAfterStart);
            }
            Err(error) => {
                self.trace(|| format!("crash in recovery: {error}"));
                self.note(Event::CrashedInRecovery);
                let seed = self.rng.next();
                self.disk.crash(seed);
            }
        }
        self.disk.fail_after(None);
    }

    fn note_how_it_started(&mut self, node: &Node) {
        for line in &node.report {
            self.trace(|| format!("recovery: {line}"));
        }
        if node.has_gone_on {
            self.note(Event::WentOn);
        }
        if node.has_uncovered {
            self.note(Event::WentOnUncovered);
        }
    }

    /// Mostly the same as before: only then are WALs gone on with.
    pub(super) fn shard_count(&mut self) -> u16 {
        if self.rng.one_in(4) {
            self.shards = 1 + self.rng.below(4) as u16;
        }
        self.shards
    }

    pub(super) fn start(&mut self, shards: u16) -> Result<Node, RecoveryError> {
        self.epoch += 1;
        let (now, epoch) = (self.now(), LeaderEpoch(self.epoch));
        let mut effects = Vec::new();
        let (known, gone) = (&self.known, &self.gone);
        let before = node::wal_paths(&self.disk);
        if self.has_trace {
            node::wal_lines(&self.disk).iter().for_each(|line| println!("{line}"));
        }
        self.disk.lie_about_file_syncs(self.bug == Some(Bug::CacheTrusted));
        self.disk.lie_about_dir_syncs(self.bug == Some(Bug::NamesTrusted));
        let node = Node::start(&self.disk, shards, known, gone, epoch, now, &mut effects);
        self.disk.lie_about_file_syncs(false);
        self.disk.lie_about_dir_syncs(false);
        if self.bug == Some(Bug::TornTailKept) {
            bring_back(&self.disk, &before);
        }
        let node = node?;
        assert!(effects.is_empty(), "nobody has asked a new node");
        Ok(node)
    }

    /// Connections are gone: whoever waits will never know.
    pub(super) fn forget_clients(&mut self) {
        self.awaited.clear();
        for producer in &mut self.producers {
            producer.is_waiting = false;
        }
        self.replace_producers();
    }

    pub(super) fn stop_in_order(&mut self) -> Result<(), Breach> {
        self.trace(|| "orderly stop".to_owned());
        self.fill_disk(false);
        let (now, mut effects) = (self.now(), Vec::new());
        for shard in 0..self.node.shards.len() {
            self.node.act(now, shard, &mut effects, |machine, out| machine.stop(now, out));
        }
        self.take(effects)?;
        self.settle()?;
        for awaited in self.awaited.values() {
            match awaited {
                Awaited::Batch { id, .. } => return Err(format!("batch {id} has no answer")),
                Awaited::Acceptance => return Err("an acks=0 is not settled".to_owned()),
                Awaited::Wait => return Err("a fetch has no answer".to_owned()),
                // With a full disk the WAL does not take it any more; the connection just ends.
                Awaited::Deletion { .. } => {}
            }
        }
        self.note(Event::StoppedInOrder);
        self.restart(false)
    }

    /// A bit of a WAL flips while the node is down, after it came to rest. Either recovery refuses, or
    /// nothing is lost.
    pub(super) fn rot(&mut self) -> Result<(), Breach> {
        self.fill_disk(false);
        // Everything that was acknowledged is followed by a seal, and most of it is in the WAL only. A WAL
        // that had found no room asks for its next file a second later, and seals then.
        for micros in [1_100_000, 50_000, 50_000] {
            while !self.node.is_quiet() {
                self.perform_one()?;
            }
            self.micros += micros;
            self.tick()?;
        }
        while !self.node.is_quiet() {
            self.perform_one()?;
        }
        let whole_disk = std::mem::replace(&mut self.disk, SimDisk::new());
        self.disk = whole_disk.fork();
        let files = node::wal_paths(&self.disk);
        let (path, bytes) = &files[self.rng.place(files.len())];
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64 + 1;
        let (position, bit) = (self.rng.below(used), self.rng.below(8) as u32);
        self.trace(|| format!("bit {bit} of {} at {position} flips", path.display()));
        self.disk.flip_bit(path, position, bit);
        let shards = self.shard_count();
        match self.start(shards) {
            Err(RecoveryError::Damaged(_)) => self.note(Event::DamageRefused),
            Err(error) => return Err(format!("a flipped bit: {error}")),
            Ok(mut node) => {
                self.note(Event::DamageHarmless);
                for key in self.known.keys().copied().collect::<Vec<_>>() {
                    let (log_start, high_watermark, log) = whole(&mut node, key)?;
                    self.model.read_all(key, log_start, high_watermark, &log)?;
                }
            }
        }
        // The damage was on a copy: the node itself goes on after a power loss.
        self.disk = whole_disk;
        self.lose_power()
    }

    /// Where a deliberate bug acts.
    pub(super) fn misbehave(&mut self) -> Result<(), Breach> {
        let Some(bug) = self.bug else { return Ok(()) };
        let (now, mut effects) = (self.now(), Vec::new());
        for shard in 0..self.node.shards.len() {
            let acted = match bug {
                Bug::AckBeforeFlush => self.node.claim_write(now, shard, &mut effects),
                Bug::AckPastHole => self.node.claim_past_hole(now, shard, &mut effects),
                Bug::CheckpointUnsynced => self.node.claim_checkpoint(now, shard, &mut effects),
                Bug::LastCommitIgnored
                | Bug::CacheTrusted
                | Bug::NamesTrusted
                | Bug::TornTailKept
                | Bug::SwapUnsynced => false,
            };
            if acted {
                self.take(effects)?;
                return self.lose_power();
            }
        }
        self.take(effects)
    }
}

/// For a deliberate bug: what a recovery erased of WAL files is there again.
fn bring_back(disk: &SimDisk, before: &[(PathBuf, Vec<u8>)]) {
    const BLOCK: usize = 4096;
    let after: BTreeMap<PathBuf, Vec<u8>> = node::wal_paths(disk).into_iter().collect();
    for (path, old) in before {
        let Some(new) = after.get(path) else { continue };
        for (block, (old, new)) in old.chunks(BLOCK).zip(new.chunks(BLOCK)).enumerate() {
            if old != new && new.iter().all(|byte| *byte == 0) {
                node::write_durably(disk, path, (block * BLOCK) as u64, old);
            }
        }
    }
}

/// For a deliberate bug: the newest commit of each WAL file becomes unreadable.
fn hide_last_commit(disk: &SimDisk) {
    const BLOCK: usize = 4096;
    for (path, bytes) in node::wal_paths(disk) {
        let begins = |block: &usize| bytes[block * BLOCK..].starts_with(b"CHWL");
        if let Some(block) = (0..bytes.len() / BLOCK).rev().find(begins) {
            disk.flip_bit(&path, (block * BLOCK) as u64, 0);
        }
    }
}
