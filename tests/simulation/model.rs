//! What clients were told, and whether what they read agrees with it.

use std::collections::{BTreeMap, BTreeSet};

use chronik_shards::model::{Offset, ReplicaKey};

/// Identity of a batch: its records carry it.
pub type BatchId = u64;

/// A batch as a client sees it in a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// Which batch.
    pub id: BatchId,
    /// How many records.
    pub count: i64,
    /// The offset behind its last, whatever of its records compaction has left.
    pub end: Offset,
    /// Those of its records that have a key: offset, key, and whether it is a tombstone.
    pub keyed: Vec<(Offset, u8, bool)>,
}

/// What the model knows of a partition.
#[derive(Debug, Default)]
pub struct Partition {
    /// Acknowledged, by base offset.
    acked: BTreeMap<Offset, (BatchId, i64)>,
    /// Read by a consumer or acknowledged, by base offset: never another batch from then on.
    fixed: BTreeMap<Offset, BatchId>,
    /// Batches of idempotent producers.
    idempotent: BTreeSet<BatchId>,
    /// Everything ever sent, with its number of records.
    sent: BTreeMap<BatchId, i64>,
    /// Of the batches of a compacted topic: key of each record, and whether it is a tombstone.
    keyed: BTreeMap<BatchId, Vec<(u8, bool)>>,
    /// What was promised of offsets in between was taken back once.
    excused: Option<(Offset, Offset)>,
    /// Highest log start that anybody may have caused or seen.
    log_start: Offset,
    /// Highest high watermark that a client was told since the last crash.
    high_watermark: Offset,
}

/// What clients were told of all partitions.
#[derive(Debug, Default)]
pub struct Model {
    partitions: BTreeMap<ReplicaKey, Partition>,
}

/// A promise that was broken.
pub type Breach = String;

impl Model {
    /// A new partition.
    pub fn open(&mut self, key: ReplicaKey) {
        self.partitions.entry(key).or_default();
    }

    /// The partition is deleted.
    pub fn close(&mut self, key: ReplicaKey) {
        self.partitions.remove(&key);
    }

    /// Records in between may be lost from now on, whatever clients were told of them.
    pub fn excuse(&mut self, key: ReplicaKey, from: Offset, until: Offset) {
        let Some(partition) = self.partitions.get_mut(&key) else { return };
        partition.acked.retain(|base, _| *base < from || *base >= until);
        partition.fixed.retain(|base, _| *base < from || *base >= until);
        let (first, end) = partition.excused.unwrap_or((from, until));
        partition.excused = Some((first.min(from), end.max(until)));
    }

    /// Whether clients may have read something else at an offset.
    pub fn is_excused(&self, key: ReplicaKey, base: Offset) -> bool {
        self.partitions.get(&key).is_some_and(|partition| is_excused(partition, base))
    }

    /// A batch is on its way.
    pub fn sent(&mut self, key: ReplicaKey, id: BatchId, count: i64, is_idempotent: bool) {
        let Some(partition) = self.partitions.get_mut(&key) else { return };
        partition.sent.insert(id, count);
        if is_idempotent {
            partition.idempotent.insert(id);
        }
    }

    /// A batch of a compacted topic is on its way.
    pub fn sent_keyed(&mut self, key: ReplicaKey, id: BatchId, records: Vec<(u8, bool)>) {
        let Some(partition) = self.partitions.get_mut(&key) else { return };
        partition.keyed.insert(id, records);
    }

    /// A batch was acknowledged.
    pub fn acked(&mut self, key: ReplicaKey, base: Offset, id: BatchId) -> Result<(), Breach> {
        let Some(partition) = self.partitions.get_mut(&key) else { return Ok(()) };
        let count = partition.sent[&id];
        if let Some((other, _)) = partition.acked.insert(base, (id, count))
            && other != id
            && !is_excused(partition, base)
        {
            return Err(format!("{key}: {base} acknowledged for batch {other} and for {id}"));
        }
        fix(partition, key, base, id)
    }

    /// A client was told where the log starts: records below may be gone.
    pub fn log_start(&mut self, key: ReplicaKey, log_start: Offset) -> Result<(), Breach> {
        let Some(partition) = self.partitions.get_mut(&key) else { return Ok(()) };
        if log_start < partition.log_start {
            return Err(format!(
                "{key}: log start fell from {} to {log_start}",
                partition.log_start
            ));
        }
        partition.log_start = log_start;
        Ok(())
    }

    /// A client was told the high watermark.
    pub fn high_watermark(&mut self, key: ReplicaKey, told: Offset) -> Result<(), Breach> {
        let Some(partition) = self.partitions.get_mut(&key) else { return Ok(()) };
        if told < partition.high_watermark {
            let before = partition.high_watermark;
            return Err(format!("{key}: high watermark fell from {before} to {told}"));
        }
        partition.high_watermark = told;
        Ok(())
    }

    /// A client read a batch.
    pub fn read(&mut self, key: ReplicaKey, seen: &Seen) -> Result<(), Breach> {
        let Some(partition) = self.partitions.get_mut(&key) else { return Ok(()) };
        if seen.count == 0 {
            return match partition.keyed.is_empty() {
                true => Err(format!("{key}: {seen:?} is empty")),
                false => Ok(()),
            };
        }
        match partition.sent.get(&seen.id) {
            Some(count) if *count == seen.count => {}
            Some(_) if partition.keyed.contains_key(&seen.id) => {
                check_records(partition, key, seen)?;
            }
            other => return Err(format!("{key}: {seen:?} was sent as {other:?}")),
        }
        fix(partition, key, seen.base_offset, seen.id)
    }

    /// The whole of a partition was read from its log start to its high watermark.
    pub fn read_all(
        &mut self,
        key: ReplicaKey,
        log_start: Offset,
        high_watermark: Offset,
        log: &[Seen],
    ) -> Result<(), Breach> {
        self.log_start(key, log_start)?;
        self.high_watermark(key, high_watermark)?;
        self.log(key, log_start, high_watermark, log, true)
    }

    /// The whole of one replica was read. Another one may begin earlier, or let read less.
    pub fn replica(
        &mut self,
        key: ReplicaKey,
        log_start: Offset,
        high_watermark: Offset,
        log: &[Seen],
    ) -> Result<(), Breach> {
        self.log(key, log_start, high_watermark, log, false)
    }

    fn log(
        &mut self,
        key: ReplicaKey,
        log_start: Offset,
        high_watermark: Offset,
        log: &[Seen],
        is_alone: bool,
    ) -> Result<(), Breach> {
        for seen in log {
            self.read(key, seen)?;
        }
        let Some(partition) = self.partitions.get(&key) else { return Ok(()) };
        let mut due = log.first().map_or(high_watermark, |seen| seen.base_offset.min(log_start));
        let is_compacted = !partition.keyed.is_empty();
        for seen in log {
            let follows = seen.base_offset == due || is_compacted && seen.base_offset > due;
            if !follows && due >= log_start {
                return Err(format!("{key}: {seen:?} follows {due}"));
            }
            due = seen.end;
        }
        if due != high_watermark && !log.is_empty() {
            return Err(format!("{key}: ends at {due} below its high watermark {high_watermark}"));
        }
        if is_compacted {
            check_keys(partition, key, log_start, log, is_alone)?;
            return Ok(());
        }
        let by_offset: BTreeMap<Offset, BatchId> =
            log.iter().map(|seen| (seen.base_offset, seen.id)).collect();
        for (base, (id, count)) in &partition.acked {
            let is_deleted = base.plus(*count) <= log_start;
            if !is_deleted && by_offset.get(base) != Some(id) {
                let found = by_offset.get(base);
                return Err(format!("{key}: acknowledged batch {id} at {base} is {found:?}"));
            }
        }
        let mut ids = BTreeSet::new();
        for seen in log.iter().filter(|seen| partition.idempotent.contains(&seen.id)) {
            if !ids.insert(seen.id) {
                return Err(format!("{key}: idempotent batch {} is there twice", seen.id));
            }
        }
        Ok(())
    }
}

/// What is left of a batch are records that were sent in it, each at its place.
fn check_records(partition: &Partition, key: ReplicaKey, seen: &Seen) -> Result<(), Breach> {
    let sent = &partition.keyed[&seen.id];
    for (offset, name, is_tombstone) in &seen.keyed {
        let place = offset.since(seen.base_offset) as usize;
        if sent.get(place) != Some(&(*name, *is_tombstone)) {
            return Err(format!("{key}: {seen:?} was sent as {sent:?}"));
        }
    }
    Ok(())
}

/// Of every key the newest acknowledged record is there, or one that is newer, or it was a tombstone; and where one is
/// gone, so is every older one. A follower may have taken older ones before its leader compacted what lies between: there
/// a newer one has to be.
fn check_keys(
    partition: &Partition,
    key: ReplicaKey,
    log_start: Offset,
    log: &[Seen],
    is_alone: bool,
) -> Result<(), Breach> {
    let mut there: BTreeMap<u8, BTreeSet<Offset>> = BTreeMap::new();
    for (offset, name, _) in log.iter().flat_map(|seen| &seen.keyed) {
        there.entry(*name).or_default().insert(*offset);
    }
    let mut acked: BTreeMap<u8, BTreeMap<Offset, bool>> = BTreeMap::new();
    let mut acked_ids = BTreeSet::new();
    for (base, (id, _)) in &partition.acked {
        acked_ids.insert(*id);
        for (place, (name, is_tombstone)) in (0..).zip(&partition.keyed[id]) {
            let offset = base.plus(place);
            if offset >= log_start {
                acked.entry(*name).or_default().insert(offset, *is_tombstone);
            }
        }
    }
    // One that nobody was told of may have been written all the same, and have gone again with all before it.
    let unsure: BTreeSet<u8> = partition
        .keyed
        .iter()
        .filter(|(id, _)| !acked_ids.contains(id))
        .flat_map(|(_, records)| records.iter().filter(|record| record.1).map(|record| record.0))
        .collect();
    for (name, acked) in &acked {
        let there = there.remove(name).unwrap_or_default();
        let Some((newest, is_tombstone)) = acked.last_key_value() else { continue };
        let is_superseded = there.last().is_some_and(|last| last >= newest);
        if !is_superseded && !is_tombstone && !unsure.contains(name) {
            return Err(format!("{key}: of key {name} the newest at {newest} is lost: {there:?}"));
        }
        for gone in acked.keys().filter(|offset| !there.contains(offset)) {
            let has_newer = there.last().is_some_and(|last| last > gone);
            if let Some(older) = there.range(log_start..*gone).next()
                && (is_alone || !has_newer)
            {
                return Err(format!("{key}: of key {name} {gone} is gone and {older} is there"));
            }
        }
    }
    Ok(())
}

/// From now on the offset holds this batch.
fn fix(
    partition: &mut Partition,
    key: ReplicaKey,
    base: Offset,
    id: BatchId,
) -> Result<(), Breach> {
    match partition.fixed.insert(base, id) {
        Some(other) if other != id && !is_excused(partition, base) => {
            Err(format!("{key}: {base} held batch {other} and holds {id} now"))
        }
        Some(_) | None => Ok(()),
    }
}

fn is_excused(partition: &Partition, base: Offset) -> bool {
    partition.excused.is_some_and(|(from, until)| base >= from && base < until)
}
