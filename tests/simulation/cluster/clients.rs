//! Producers that ask whom they believe to lead, and ask again; consumers that read from any replica.

use chronik_shards::format::batch_builder::BatchBuilder;
use chronik_shards::format::compression::Codec;
use chronik_shards::format::record_batch::ProducedBatch;
use chronik_shards::machine::input::{
    FetchError, ProduceError, ProduceInput, ProduceOutcome, ProducePartition,
};
use chronik_shards::machine::metadata::MetadataImage;
use chronik_shards::model::{Acks, ProducerEpoch, ProducerId};

use super::*;
use crate::run::{fill, seen};

/// What a producer waits for.
#[derive(Clone, Copy)]
struct Waiting {
    id: BatchId,
    acks: Acks,
    /// Where it was acknowledged before.
    repeats: Option<Offset>,
}

/// A client that produces to one partition, one batch at a time.
pub struct Producer {
    key: ReplicaKey,
    id: ProducerId,
    next_sequence: i32,
    /// Sent and not acknowledged: an idempotent producer sends it again.
    unacked: Option<(ProducedBatch, BatchId)>,
    waits_for: Option<Waiting>,
    /// The last acknowledged one, to be sent again on purpose.
    last: Option<(ProducedBatch, BatchId, Offset)>,
}

impl World {
    pub(super) fn add_producer(&mut self) {
        let producer = self.new_producer();
        self.producers.push(producer);
    }

    fn new_producer(&mut self) -> Producer {
        let keys = self.keys();
        let key = keys[self.rng.place(keys.len())];
        // Where records may be lost, a producer that counts them would never go on.
        let id = if self.rng.one_in(4) || self.counts_early(key) {
            ProducerId::NONE
        } else {
            self.next_producer += 1;
            ProducerId(self.next_producer)
        };
        Producer { key, id, next_sequence: 0, unacked: None, waits_for: None, last: None }
    }

    /// Every partition, those of groups among them.
    pub(super) fn all_keys(&self) -> Vec<ReplicaKey> {
        let topics = self.controller.image().topics();
        topics.flat_map(|topic| topic.replicas().map(|(key, _)| key)).collect()
    }

    /// The partitions that clients produce to and consume from.
    pub(super) fn keys(&self) -> Vec<ReplicaKey> {
        self.all_keys().into_iter().filter(|key| !groups::is_of_groups(*key)).collect()
    }

    /// Whom a client takes for the leader: what some node says.
    pub(super) fn leader_by_hearsay(&mut self, key: ReplicaKey) -> Option<usize> {
        let running = self.running();
        let asked = *running.get(self.rng.place(running.len().max(1)))?;
        let partition = self.controller.view(asked).partition(key)?;
        partition.leader.map(seat_of).filter(|seat| self.runs(*seat))
    }

    pub(super) fn produce(&mut self) -> Result<(), Breach> {
        if self.rng.one_in(40) && self.producers.len() < 4 * PRODUCERS {
            self.add_producer();
        }
        let index = self.rng.place(self.producers.len());
        let producer = &self.producers[index];
        let is_over = !self.exists(producer.key) && producer.waits_for.is_none();
        // For a while it goes on to ask for what was deleted.
        if is_over && self.rng.one_in(4) {
            self.producers[index] = self.new_producer();
        }
        self.send_of(index)
    }

    /// Once there are no faults every batch of an idempotent producer gets through.
    pub(super) fn retry_unacked(&mut self) -> Result<(), Breach> {
        let waits = |producer: &Producer| producer.unacked.is_some() && self.exists(producer.key);
        let indexes: Vec<usize> =
            (0..self.producers.len()).filter(|index| waits(&self.producers[*index])).collect();
        if indexes.is_empty() {
            return Ok(());
        }
        let place = self.rng.place(indexes.len());
        self.send_of(indexes[place])
    }

    pub(super) fn has_unacked(&self) -> bool {
        let waits = |producer: &Producer| producer.unacked.is_some() && self.exists(producer.key);
        self.producers.iter().any(waits)
    }

    fn send_of(&mut self, index: usize) -> Result<(), Breach> {
        let key = self.producers[index].key;
        if self.producers[index].waits_for.is_some() {
            return Ok(());
        }
        let Some(seat) = self.leader_by_hearsay(key) else { return Ok(()) };
        let repeats = self.producers[index].last.clone();
        let may_repeat = self.producers[index].unacked.is_none() && !self.is_calm;
        let (batch, id, repeats) = match repeats.filter(|_| may_repeat && self.rng.one_in(6)) {
            Some((batch, id, base)) => (batch, id, Some(base)),
            None => {
                let (batch, id) = self.next_of(index);
                (batch, id, None)
            }
        };
        let is_idempotent = self.producers[index].id != ProducerId::NONE;
        let acks = match is_idempotent {
            true => Acks::All,
            false => [Acks::All, Acks::Leader][self.rng.place(2)],
        };
        self.trace(|| format!("produce {key} batch {id} to node {} {acks:?}", seat + 1));
        self.next_token += 1;
        let (token, now) = (Token(self.next_token), self.now(seat));
        let deadline = now.monotonic.plus_millis(20 + self.rng.below(800));
        let partitions = [ProducePartition { key, batch }].into();
        let input = ProduceInput { token, acks, deadline, partitions };
        let node = self.seats[seat].node.as_mut().expect("it runs");
        let owner = node.owner(key);
        self.producers[index].waits_for = Some(Waiting { id, acks, repeats });
        self.awaited.insert((seat, owner, token), index);
        let mut effects = Vec::new();
        node.act(now, owner, &mut effects, |machine, out| machine.produce(now, input, out));
        self.take(seat, effects)
    }

    fn next_of(&mut self, index: usize) -> (ProducedBatch, BatchId) {
        let producer = &self.producers[index];
        if let Some(unacked) = &producer.unacked {
            return unacked.clone();
        }
        let (key, producer_id, sequence) = (producer.key, producer.id, producer.next_sequence);
        let id = self.next_batch;
        self.next_batch += 1;
        let count = 1 + self.rng.below(5) as i32;
        let bytes = [10, 200, 2000, 7000][self.rng.place(4)];
        let mut builder = BatchBuilder::new(Codec::None);
        let is_idempotent = producer_id != ProducerId::NONE;
        if is_idempotent {
            builder = builder.idempotent(producer_id, ProducerEpoch(0), sequence);
            self.producers[index].next_sequence += count;
        }
        let time = moment(self.micros).wall;
        let is_compacted = self.is_compacted(key);
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
        seat: usize,
        index: usize,
        outcomes: &[ProduceOutcome],
    ) -> Result<(), Breach> {
        let producer = &mut self.producers[index];
        let key = producer.key;
        let Some(Waiting { id, acks, repeats }) = producer.waits_for.take() else {
            return Err(format!("{key}: an answer that nobody waits for"));
        };
        if self.controller.image().partition(key).is_none() {
            // It was deleted meanwhile: whatever became of the batch.
            return Ok(());
        }
        match &outcomes[0].result {
            // A leader alone may lose it with its leadership.
            Ok(_) if acks == Acks::Leader => {}
            Ok(appended) => {
                let base = appended.base_offset;
                if let Some((batch, _)) = producer.unacked.take_if(|_| repeats.is_none()) {
                    producer.last = Some((batch, id, base));
                }
                // A replica that began where the log starts does not know who wrote below alone.
                let is_forgotten = |original: &Offset| *original < appended.log_start_offset;
                if let Some((_, _, original)) = &mut producer.last
                    && repeats.as_ref().is_some_and(is_forgotten)
                {
                    *original = base;
                } else if repeats.is_some_and(|original| original != base) {
                    return Err(format!("{key}: batch {id} was at {repeats:?}, is at {base}"));
                }
                self.trace(|| format!("{key}: batch {id} is acknowledged at {base}"));
                self.model.acked(key, base, id)?;
                self.note(Event::Acked);
                if repeats.is_some() {
                    self.note(Event::Duplicate);
                }
            }
            Err(ProduceError::TimedOut) => self.note(Event::TimedOut),
            Err(ProduceError::NotLeader { .. }) => self.note(Event::NotLeader),
            Err(
                ProduceError::UnknownPartition(_)
                | ProduceError::StorageFull
                | ProduceError::Stopping,
            ) => {}
            // By its own clock it is from the past or the future.
            Err(ProduceError::TimestampOutOfWindow { .. }) => self.note(Event::OutOfWindow),
            // A deposed leader that has not heard of it does not know what came later.
            Err(ProduceError::OutOfOrderSequence { .. }) if self.is_deposed(seat, key) => {
                self.note(Event::DeposedLeaderAnswered);
            }
            Err(ProduceError::NotEnoughReplicas { .. }) => self.note(Event::NotEnoughReplicas),
            Err(ProduceError::NotEnoughReplicasAfterAppend { .. }) => {
                self.note(Event::NotEnoughReplicasAfterAppend);
            }
            Err(error) => return Err(format!("{key}: batch {id}: {error}")),
        }
        Ok(())
    }

    pub(super) fn is_deposed(&self, seat: usize, key: ReplicaKey) -> bool {
        let epoch = |image: &MetadataImage| image.partition(key).map(|found| found.leader_epoch);
        epoch(self.controller.view(seat)) < epoch(self.controller.image())
    }

    /// Whoever waited for a node that is gone will never know.
    pub(super) fn forget_clients(&mut self, seat: usize) {
        let gone: Vec<_> =
            self.awaited.keys().copied().filter(|awaited| awaited.0 == seat).collect();
        for awaited in gone {
            if let Some(producer) = self.awaited.remove(&awaited) {
                self.producers[producer].waits_for = None;
            }
        }
    }

    /// Records below some readable offset are deleted on the leader.
    pub(super) fn delete_records(&mut self) -> Result<(), Breach> {
        let keys = self.keys();
        let key = keys[self.rng.place(keys.len())];
        let Some(seat) = self.leader_by_hearsay(key) else { return Ok(()) };
        let node = self.seats[seat].node.as_mut().expect("it runs");
        let owner = node.owner(key);
        let Some(info) = node.shards[owner].machine.info(key) else { return Ok(()) };
        let span = info.high_watermark.since(info.log_start_offset) as u64;
        let wanted = [span, self.rng.below(span + 1)][self.rng.place(2)];
        let before = info.log_start_offset.plus(wanted as i64);
        self.trace(|| format!("delete {key} before {before} on node {}", seat + 1));
        self.next_token += 1;
        let (token, now, mut effects) = (Token(self.next_token), self.now(seat), Vec::new());
        let node = self.seats[seat].node.as_mut().expect("it runs");
        let asked = node.act(now, owner, &mut effects, |machine, out| {
            machine.delete_records(now, token, key, Some(before), out)
        });
        match asked {
            Ok(()) => self.note(Event::RecordsDeleted),
            Err(FetchError::NotLeader { .. }) => {}
            Err(error) => return Err(format!("{key} before {before}: {error}")),
        }
        self.take(seat, effects)
    }

    pub(super) fn fetch(&mut self) -> Result<(), Breach> {
        let (keys, running) = (self.keys(), self.running());
        if running.is_empty() {
            return Ok(());
        }
        let key = keys[self.rng.place(keys.len())];
        let seat = running[self.rng.place(running.len())];
        let beyond = self.rng.below(3) as i64;
        let node = self.seats[seat].node.as_mut().expect("it runs");
        let owner = node.owner(key);
        let Some(info) = node.shards[owner].machine.info(key) else { return Ok(()) };
        let span = info.high_watermark.since(info.log_start_offset) as u64;
        let offset = info.log_start_offset.plus(self.rng.below(span + 1) as i64 + beyond);
        let max_bytes = [1, 1000, 20_000][self.rng.place(3)];
        let fetched = node.fetch(key, offset, max_bytes);
        let (_, high_watermark, batches) = match fetched {
            Ok(fetched) => fetched,
            Err(FetchError::OffsetNotAvailable { .. }) => {
                self.note(Event::NotAvailableYet);
                return Ok(());
            }
            Err(FetchError::OutOfRange { .. }) if offset > info.high_watermark => return Ok(()),
            Err(error) => return Err(format!("node {} {key} at {offset}: {error}", seat + 1)),
        };
        self.trace(|| format!("fetch {key} {offset} of node {}: {}", seat + 1, batches.len()));
        if offset < high_watermark && batches.is_empty() {
            return Err(format!("{key}: nothing at {offset} below {high_watermark}"));
        }
        for batch in &batches {
            if batch.end_offset() > high_watermark {
                return Err(format!("{key}: {:?} is beyond {high_watermark}", batch.header));
            }
            let seen = seen(batch)?;
            self.model.read(key, &seen)?;
            if seen.count == 0 {
                continue;
            }
            self.check_written(key, seen.base_offset, seen.id, batch.header.leader_epoch)?;
        }
        let leads = self.controller.view(seat).partition(key).and_then(|found| found.leader);
        self.note(match leads == Some(node_id(seat)) {
            true => Event::Fetched,
            false => Event::FetchedFromFollower,
        });
        Ok(())
    }
}
