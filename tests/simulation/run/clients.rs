//! What clients do and are told: producers that ask again, consumers that check what they read.

use super::*;

impl World {
    pub(super) fn add_producer(&mut self) {
        let keys: Vec<ReplicaKey> = self.known.keys().copied().collect();
        let key = keys[self.rng.place(keys.len())];
        let id = if self.rng.one_in(3) {
            ProducerId::NONE
        } else {
            self.next_producer += 1;
            ProducerId(self.next_producer)
        };
        self.producers.push(Producer {
            key,
            id,
            next_sequence: 0,
            unacked: None,
            is_waiting: false,
            last: None,
        });
    }

    pub(super) fn produce(&mut self) -> Result<(), Breach> {
        let index = self.rng.place(self.producers.len());
        if self.producers[index].is_waiting {
            return Ok(());
        }
        let repeats = self.producers[index].last.clone().filter(|_| {
            self.producers[index].id != ProducerId::NONE && self.producers[index].unacked.is_none()
        });
        let repeats = repeats.filter(|_| self.rng.one_in(6));
        let (batch, id, expected) = match repeats {
            Some((batch, id, base)) => (batch, id, Some(base)),
            None => {
                let (batch, id) = self.next_of(index);
                (batch, id, None)
            }
        };
        let key = self.producers[index].key;
        let is_idempotent = self.producers[index].id != ProducerId::NONE;
        // An idempotent producer has to know what became of each batch.
        let acks = match self.rng.below(4) {
            0 if !is_idempotent => Acks::None,
            1 => Acks::Leader,
            _ => Acks::All,
        };
        self.trace(|| format!("produce {key} batch {id} {acks:?}"));
        let token = self.token();
        let now = self.now();
        let deadline = now.monotonic.plus_millis(1 + self.rng.below(4000));
        let partitions = [ProducePartition { key, batch }].into();
        let input = ProduceInput { token, acks, deadline, partitions };
        let owner = self.node.owner(key);
        let awaited = match acks {
            Acks::None => Awaited::Acceptance,
            Acks::Leader | Acks::All => {
                self.producers[index].is_waiting = true;
                Awaited::Batch { producer: index, key, id, repeats: expected }
            }
        };
        self.awaited.insert((owner, token), awaited);
        let mut effects = Vec::new();
        self.node.act(now, owner, &mut effects, |machine, out| machine.produce(now, input, out));
        self.take(effects)
    }

    /// The batch to send: the one that is not acknowledged yet, or a new one.
    pub(super) fn next_of(&mut self, index: usize) -> (ProducedBatch, BatchId) {
        let producer = &self.producers[index];
        if let Some(unacked) = &producer.unacked {
            return unacked.clone();
        }
        let (key, producer_id, sequence) = (producer.key, producer.id, producer.next_sequence);
        let id = self.next_batch;
        self.next_batch += 1;
        let count = 1 + self.rng.below(5) as i32;
        let bytes = [10, 200, 2000, 9000][self.rng.place(4)];
        let mut builder = BatchBuilder::new(Codec::None);
        let is_idempotent = producer_id != ProducerId::NONE;
        if is_idempotent {
            builder = builder.idempotent(producer_id, ProducerEpoch(0), sequence);
            self.producers[index].next_sequence += count;
        }
        let time = TimestampMs(self.now().wall.0);
        let is_compacted = self.known.get(&key).is_some_and(|known| known.config.cleanup_compact);
        let keyed = fill(&mut builder, &mut self.rng, (id, count, bytes), time, is_compacted);
        let batch = builder.build();
        if is_compacted {
            self.model.sent_keyed(key, id, keyed);
        }
        self.model.sent(key, id, i64::from(count), is_idempotent);
        if is_idempotent {
            self.producers[index].unacked = Some((batch.clone(), id));
        }
        (batch, id)
    }

    pub(super) fn answered(
        &mut self,
        index: usize,
        key: ReplicaKey,
        id: BatchId,
        repeats: Option<Offset>,
        outcomes: &[ProduceOutcome],
    ) -> Result<(), Breach> {
        let producer = &mut self.producers[index];
        producer.is_waiting = false;
        match &outcomes[0].result {
            Ok(appended) => {
                if let Some(original) = repeats {
                    if original != appended.base_offset {
                        let now = appended.base_offset;
                        return Err(format!("{key}: batch {id} was at {original}, is at {now}"));
                    }
                    self.note(Event::Duplicate);
                    return Ok(());
                }
                if let Some((batch, sent)) = producer.unacked.take() {
                    assert_eq!(sent, id, "one batch at a time");
                    producer.last = Some((batch, id, appended.base_offset));
                }
                self.model.acked(key, appended.base_offset, id)?;
                self.note(Event::Acked);
            }
            Err(ProduceError::TimedOut) => self.note(Event::TimedOut),
            Err(ProduceError::StorageFull) => self.note(Event::StorageFull),
            Err(ProduceError::UnknownPartition(_)) if !self.known.contains_key(&key) => {}
            Err(ProduceError::Stopping) => {}
            Err(error) => return Err(format!("{key}: batch {id}: {error}")),
        }
        Ok(())
    }

    pub(super) fn any_key(&mut self) -> ReplicaKey {
        let keys: Vec<ReplicaKey> = self.known.keys().copied().collect();
        keys[self.rng.place(keys.len())]
    }

    pub(super) fn fetch(&mut self) -> Result<(), Breach> {
        let key = self.any_key();
        let owner = self.node.owner(key);
        let Some(info) = self.node.shards[owner].machine.info(key) else {
            return Err(format!("{key} is not open"));
        };
        let span = info.high_watermark.since(info.log_start_offset) as u64;
        let offset = info.log_start_offset.plus(self.rng.below(span + 1) as i64);
        let max_bytes = [1, 1000, 20_000][self.rng.place(3)];
        let fetched = self.node.fetch(key, offset, max_bytes);
        let (log_start, high_watermark, batches) =
            fetched.map_err(|error| format!("{key} at {offset}: {error}"))?;
        self.trace(|| format!("fetch {key} {offset}: {} batches", batches.len()));
        self.model.log_start(key, log_start)?;
        self.model.high_watermark(key, high_watermark)?;
        if offset < high_watermark && batches.is_empty() {
            return Err(format!("{key}: nothing at {offset} below {high_watermark}"));
        }
        for batch in &batches {
            if batch.end_offset() > high_watermark {
                return Err(format!("{key}: {:?} is beyond {high_watermark}", batch.header));
            }
            self.model.read(key, &seen(batch)?)?;
        }
        if batches.last().is_some_and(|last| last.end_offset() <= offset) {
            return Err(format!("{key}: nothing at or behind {offset}"));
        }
        self.note(Event::Fetched);
        Ok(())
    }

    pub(super) fn wait(&mut self) -> Result<(), Breach> {
        let key = self.any_key();
        let owner = self.node.owner(key);
        let Some(info) = self.node.shards[owner].machine.info(key) else { return Ok(()) };
        let (token, now) = (self.token(), self.now());
        let wait = FetchWait {
            token,
            deadline: now.monotonic.plus_millis(self.rng.below(2000)),
            min_bytes: 1 + self.rng.below(5000) as usize,
            partitions: vec![(key, info.high_watermark)],
        };
        self.awaited.insert((owner, token), Awaited::Wait);
        let mut effects = Vec::new();
        self.node.act(now, owner, &mut effects, |machine, out| machine.wait_fetch(now, wait, out));
        self.take(effects)
    }

    pub(super) fn delete_records(&mut self) -> Result<(), Breach> {
        let key = self.any_key();
        let owner = self.node.owner(key);
        let Some(info) = self.node.shards[owner].machine.info(key) else { return Ok(()) };
        let span = info.high_watermark.since(info.log_start_offset) as u64;
        let before = info.log_start_offset.plus(self.rng.below(span / 3 + 1) as i64);
        self.trace(|| format!("delete {key} before {before}"));
        let (token, now) = (self.token(), self.now());
        self.awaited.insert((owner, token), Awaited::Deletion { key });
        let mut effects = Vec::new();
        let asked = self.node.act(now, owner, &mut effects, |machine, out| {
            machine.delete_records(now, token, key, Some(before), out)
        });
        asked.map_err(|error| format!("{key} before {before}: {error}"))?;
        self.take(effects)
    }

    /// Reads every partition from its first record to its high watermark.
    pub(super) fn read_everything(&mut self) -> Result<(), Breach> {
        for key in self.known.keys().copied().collect::<Vec<_>>() {
            let (log_start, high_watermark, log) = whole(&mut self.node, key)?;
            self.model.read_all(key, log_start, high_watermark, &log)?;
            let owner = self.node.owner(key);
            if let Some(view) = self.node.shards[owner].machine.log_view(key) {
                if view.first_dirty_offset > Offset::ZERO {
                    self.note(Event::Compacted);
                }
                check_clean(key, view.first_dirty_offset, &log)?;
            }
        }
        Ok(())
    }
}

/// Adds records to a batch. Those of a compacted topic have keys, and some of them no value.
pub fn fill(
    builder: &mut BatchBuilder,
    rng: &mut Rng,
    (id, count, bytes): (BatchId, i32, usize),
    time: TimestampMs,
    is_compacted: bool,
) -> Vec<(u8, bool)> {
    let mut keyed = Vec::new();
    for _ in 0..count {
        let mut value = vec![0; 8 + bytes / count as usize];
        value[..8].copy_from_slice(&id.to_be_bytes());
        if is_compacted {
            let (name, is_tombstone) = (rng.below(KEYS) as u8, rng.one_in(5));
            let value = Some(value.as_slice()).filter(|_| !is_tombstone);
            builder.push(time, Some(&[name]), value, &[(ID, Some(&id.to_be_bytes()))]);
            keyed.push((name, is_tombstone));
        } else {
            builder.push(time, None, Some(&value), &[]);
        }
    }
    keyed
}

/// Keys of a compacted topic.
const KEYS: u64 = 9;
/// Name of the header that has a record's batch.
const ID: &str = "batch";

/// What is said to be clean has every key once.
pub fn check_clean(key: ReplicaKey, first_dirty: Offset, log: &[Seen]) -> Result<(), Breach> {
    let mut names = BTreeSet::new();
    let records = log.iter().flat_map(|seen| &seen.keyed);
    for (offset, name, _) in records.filter(|record| record.0 < first_dirty) {
        if !names.insert(*name) {
            return Err(format!("{key}: key {name} is twice below {first_dirty}, at {offset} too"));
        }
    }
    Ok(())
}

/// The whole of a partition as a consumer reads it.
pub fn whole(node: &mut Node, key: ReplicaKey) -> Result<(Offset, Offset, Vec<Seen>), Breach> {
    let (log_start, high_watermark, batches) = whole_batches(node, key)?;
    let log = batches.iter().map(seen).collect::<Result<_, _>>()?;
    Ok((log_start, high_watermark, log))
}

/// The batches of a partition, fetch by fetch.
pub fn whole_batches(
    node: &mut Node,
    key: ReplicaKey,
) -> Result<(Offset, Offset, Vec<StoredBatch>), Breach> {
    let owner = node.owner(key);
    let info = node.shards[owner].machine.info(key);
    let info = info.ok_or_else(|| format!("{key} is not open"))?;
    let mut at = info.log_start_offset;
    let mut log: Vec<StoredBatch> = Vec::new();
    while at < info.high_watermark {
        let fetched = node.fetch(key, at, 10_000);
        let (_, _, batches) =
            fetched.map_err(|error: FetchError| format!("{key} at {at}: {error}"))?;
        if batches.is_empty() {
            return Err(format!("{key}: nothing at {at} below {}", info.high_watermark));
        }
        for batch in batches {
            at = at.max(batch.end_offset());
            let base_offset = batch.header.base_offset;
            if log.last().is_none_or(|last| last.header.base_offset < base_offset) {
                log.push(batch);
            }
        }
    }
    Ok((info.log_start_offset, info.high_watermark, log))
}

/// A batch as a client sees it: CRC checked, records read.
pub fn seen(batch: &StoredBatch) -> Result<Seen, Breach> {
    let stored = StoredBatch::from_log(batch.to_log()).map_err(|error| error.to_string())?;
    let payload = stored.decompressed(1 << 20).map_err(|error| error.to_string())?;
    let mut ids = BTreeSet::new();
    let (mut count, mut keyed) = (0, Vec::new());
    let base_offset = stored.header.base_offset;
    for record in Records::new(&stored.header, &payload) {
        let record = record.map_err(|error| error.to_string())?;
        if let Some(name) = record.key.and_then(|key| key.first()) {
            let offset = base_offset.plus(i64::from(record.offset_delta));
            keyed.push((offset, *name, record.value.is_none()));
        }
        let header = record.headers.iter().next().and_then(|(_, value)| value);
        let id = header.or(record.value).ok_or("a record without its value")?;
        let id = id.first_chunk().ok_or("a record without its batch's number")?;
        ids.insert(u64::from_be_bytes(*id));
        count += 1;
    }
    if ids.len() > 1 {
        return Err(format!("batches {ids:?} are mixed"));
    }
    let id = ids.first().copied().unwrap_or(0);
    Ok(Seen { base_offset, id, count, end: stored.end_offset(), keyed })
}
