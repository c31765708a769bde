//! Idempotent producers of a partition: duplicates, gaps and fencing. Source: KIP-98.
//!
//! Two states live side by side. *Live* is as of the log's end and judges what comes in. *Flushed*
//! is as of the log's end in segments and goes into checkpoints: recovery replays onto it the batches
//! beyond, so it must not know them. Both grow by the same step, [`ProducerState::record`], which is
//! also all that recovery needs.
//!
//! Of batches older than those that are remembered it is known that they are in the log if nothing was missing
//! since: a producer that was answered by a deposed leader after it had gone on with a new one sends such
//! again. Kafka calls that out of order, and clients give up records that are stored.
//!
//! Bounded: beyond [`PRODUCERS_MAX`] the quarter that wrote longest ago is forgotten. A forgotten
//! producer may go on at any sequence, as in Kafka.

#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::format::positions::{ProducerBatch, ProducerCheckpoint};
use crate::format::record_batch::{BatchHeader, Idempotence, StoredBatch};
use crate::machine::input::ProduceError;
use crate::machine::partitions::FixedHash;
use crate::model::{Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Batches remembered per producer: a client may have that many in flight. Source: KIP-98.
const BATCHES_MAX: usize = 5;

/// Producers remembered per partition.
pub const PRODUCERS_MAX: usize = 16_384;

/// A producer that did not write for so long is forgotten: `producer.id.expiration.ms`.
pub const PRODUCER_EXPIRY_MS: i64 = 24 * 3600 * 1000;

/// What is known of one producer. Owner: its partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProducerState {
    epoch: ProducerEpoch,
    last_timestamp: TimestampMs,
    /// Without batches: the lowest sequence that was refused. None above may come before it.
    awaited: Option<i32>,
    /// Of the batches in the log that follow each other without a gap up to the last one remembered: the first
    /// sequence, as far as this replica has seen them itself. None is missing from there on.
    run_start: i32,
    /// Oldest first; only the first `count` mean something.
    batches: [ProducerBatch; BATCHES_MAX],
    count: u8,
}

const NO_BATCH: ProducerBatch = ProducerBatch {
    first_sequence: -1,
    last_sequence: -1,
    base_offset: Offset(-1),
    last_offset: Offset(-1),
    timestamp: TimestampMs::NONE,
};

impl ProducerState {
    fn new(epoch: ProducerEpoch) -> Self {
        let last_timestamp = TimestampMs::NONE;
        let batches = [NO_BATCH; BATCHES_MAX];
        Self { epoch, last_timestamp, awaited: None, run_start: 0, batches, count: 0 }
    }

    fn batches(&self) -> &[ProducerBatch] {
        &self.batches[..usize::from(self.count)]
    }

    /// Takes a batch that is in the log. A new epoch forgets the batches of the old one.
    fn record(&mut self, epoch: ProducerEpoch, batch: ProducerBatch, now: TimestampMs) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.count = 0;
        }
        let continues = |last: &ProducerBatch| {
            batch.first_sequence > self.run_start
                && batch.first_sequence == next(last.last_sequence)
        };
        if !self.batches().last().is_some_and(continues) {
            self.run_start = batch.first_sequence;
        }
        if usize::from(self.count) == BATCHES_MAX {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        self.batches[usize::from(self.count)] = batch;
        self.count += 1;
        self.last_timestamp = self.last_timestamp.max(now);
    }

    /// Forgets batches that do not lie wholly below `end_offset`.
    fn cut(&mut self, end_offset: Offset) {
        let kept = self.batches().iter().take_while(|batch| batch.last_offset < end_offset);
        self.count = kept.count() as u8;
    }

    fn judge(&self, found: &Idempotence) -> Result<Verdict, ProduceError> {
        let Idempotence { producer_id, producer_epoch, base_sequence, last_sequence } = *found;
        let gap = |expected| ProduceError::OutOfOrderSequence {
            producer_id,
            expected,
            found: base_sequence,
        };
        if producer_epoch < self.epoch {
            return Err(ProduceError::InvalidProducerEpoch {
                producer_id,
                current: self.epoch,
                found: producer_epoch,
            });
        }
        if producer_epoch > self.epoch {
            return if base_sequence == 0 { Ok(Verdict::Fresh) } else { Err(gap(0)) };
        }
        let same = |known: &&ProducerBatch| {
            known.first_sequence == base_sequence && known.last_sequence == last_sequence
        };
        if let Some(original) = self.batches().iter().find(same) {
            return Ok(Verdict::Duplicate(*original));
        }
        let expected = match (self.batches().last(), self.awaited) {
            (Some(last), _) => next(last.last_sequence),
            (None, Some(awaited)) => awaited.min(base_sequence),
            (None, None) => base_sequence,
        };
        if base_sequence == expected {
            return Ok(Verdict::Fresh);
        }
        if let [oldest, .., newest] = self.batches()
            // Where the numbers wrap among them, nothing is older by its number.
            && oldest.first_sequence < newest.first_sequence
            && self.run_start <= base_sequence
            && base_sequence <= last_sequence
            && last_sequence < oldest.first_sequence
        {
            return Ok(Verdict::Older { before: oldest.base_offset });
        }
        Err(gap(expected))
    }
}

/// The sequence after this one.
const fn next(sequence: i32) -> i32 {
    if sequence == i32::MAX { 0 } else { sequence + 1 }
}

/// What a batch is, by its producer's numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// To be appended.
    Fresh,
    /// In the log already, there.
    Duplicate(ProducerBatch),
    /// In the log already, somewhere below the offset.
    Older {
        /// Of the oldest batch that is remembered.
        before: Offset,
    },
}

type States = HashMap<ProducerId, ProducerState, FixedHash>;

/// The producers of one partition.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    live: States,
    flushed: States,
}

impl Producers {
    /// As recovered: everything in the log is in segments.
    pub fn recovered(checkpoint: &[ProducerCheckpoint]) -> Self {
        let mut live = States::default();
        for producer in checkpoint {
            let mut state = ProducerState::new(producer.producer_epoch);
            for batch in &producer.batches {
                state.record(producer.producer_epoch, *batch, producer.last_timestamp);
            }
            state.last_timestamp = producer.last_timestamp;
            live.insert(producer.producer_id, state);
        }
        Self { flushed: live.clone(), live }
    }

    /// Whether nobody is remembered.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// Judges a batch before it is appended.
    ///
    /// A producer that is not known may begin anywhere: its state may have expired.
    ///
    /// # Errors
    /// [`ProduceError::InvalidProducerEpoch`], [`ProduceError::OutOfOrderSequence`].
    pub fn judge(&self, header: &BatchHeader) -> Result<Verdict, ProduceError> {
        let Some(found) = header.idempotence() else { return Ok(Verdict::Fresh) };
        match self.live.get(&found.producer_id) {
            Some(state) => state.judge(&found),
            None => Ok(Verdict::Fresh),
        }
    }

    /// Takes a batch that was appended at `now`.
    pub fn appended(&mut self, header: &BatchHeader, now: TimestampMs) {
        record(&mut self.live, header, now);
        self.bound();
    }

    /// Remembers that a batch was refused that may be sent again. Of a producer that is not known
    /// the next one in flight would otherwise be taken for its first, and the refused one never.
    pub fn refused(&mut self, header: &BatchHeader, now: TimestampMs) {
        let Some(found) = header.idempotence() else { return };
        let state = self.live.entry(found.producer_id).or_insert_with(|| ProducerState {
            last_timestamp: now,
            awaited: Some(found.base_sequence),
            ..ProducerState::new(found.producer_epoch)
        });
        if state.epoch == found.producer_epoch {
            state.awaited = state.awaited.map(|awaited| awaited.min(found.base_sequence));
        }
        self.bound();
    }

    /// Takes batches that are in segments now, in offset order.
    pub fn flushed<'a>(&mut self, batches: impl Iterator<Item = &'a StoredBatch>) {
        for batch in batches {
            record(&mut self.flushed, &batch.header, batch.header.max_timestamp);
        }
    }

    /// The log was cut at `end_offset`, and segments hold more: batches from there on are forgotten. What
    /// they had pushed out comes back with [`Self::restore`].
    pub fn cut(&mut self, end_offset: Offset) {
        for states in [&mut self.live, &mut self.flushed] {
            states.values_mut().for_each(|state| state.cut(end_offset));
            states.retain(|_, state| state.count > 0);
        }
    }

    /// The log was cut behind the end of the segments: `unflushed` are the batches left there.
    pub fn replay<'a>(&mut self, unflushed: impl Iterator<Item = &'a StoredBatch>) {
        self.live = self.flushed.clone();
        for batch in unflushed {
            record(&mut self.live, &batch.header, batch.header.max_timestamp);
        }
    }

    /// Takes the producers as of the end of the segments, and the batches behind it.
    pub fn restore<'a>(
        &mut self,
        checkpoint: &[ProducerCheckpoint],
        unflushed: impl Iterator<Item = &'a StoredBatch>,
    ) {
        let before = std::mem::replace(self, Self::recovered(checkpoint));
        for (id, state) in before.flushed {
            // More is remembered here than snapshots have, unless it was all cut.
            let told = self.flushed.get(&id).map_or(0, |told| told.count);
            if state.count > told {
                self.flushed.insert(id, state);
            }
        }
        self.replay(unflushed);
    }

    /// Forgets producers that did not write since `now` less [`PRODUCER_EXPIRY_MS`].
    pub fn expire(&mut self, now: TimestampMs) {
        let kept = |state: &ProducerState| now.0 - state.last_timestamp.0 < PRODUCER_EXPIRY_MS;
        self.live.retain(|_, state| kept(state));
        let live = &self.live;
        self.flushed.retain(|id, _| live.contains_key(id));
    }

    /// The flushed state, by producer id.
    pub fn checkpoint(&self) -> Vec<ProducerCheckpoint> {
        let line = |(id, state): (&ProducerId, &ProducerState)| {
            let last_write = self.live.get(id).unwrap_or(state).last_timestamp;
            ProducerCheckpoint {
                producer_id: *id,
                producer_epoch: state.epoch,
                last_timestamp: last_write,
                batches: state.batches().to_vec(),
            }
        };
        let mut producers: Vec<_> = self.flushed.iter().map(line).collect();
        producers.sort_unstable_by_key(|producer| producer.producer_id);
        producers
    }

    fn bound(&mut self) {
        if self.live.len() > PRODUCERS_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let mut ages: Vec<_> =
            self.live.iter().map(|(id, state)| (state.last_timestamp, *id)).collect();
        ages.sort_unstable();
        for (_, id) in ages.drain(..PRODUCERS_MAX / 4) {
            self.live.remove(&id);
            self.flushed.remove(&id);
        }
    }
}

fn record(states: &mut States, header: &BatchHeader, now: TimestampMs) {
    let Some(found) = header.idempotence() else { return };
    let batch = ProducerBatch {
        first_sequence: found.base_sequence,
        last_sequence: found.last_sequence,
        base_offset: header.base_offset,
        last_offset: header.last_offset(),
        timestamp: header.max_timestamp,
    };
    states
        .entry(found.producer_id)
        .or_insert_with(|| ProducerState::new(found.producer_epoch))
        .record(found.producer_epoch, batch, now);
}
