//! Produces on their way in: admitted, parked or refused.
//!
//! While the write-ahead log has room a request is appended at once. Without room it is parked, and
//! all that come later park behind it, so that a connection's order holds. Parked requests are
//! bounded by count and by their deadlines; nothing of them is appended yet. With a full disk as the
//! reason they are refused instead: waiting would not help.

use std::collections::VecDeque;

use super::acks::AckWaiter;
use super::effect::Effect;
use super::input::{Appended, ProduceError, ProduceInput, ProduceOutcome, ProducePartition};
use super::partition::leader::Accepted;
use super::partitions::Slot;
use super::shard::{Life, ShardMachine};
use crate::format::wal::ENTRY_HEADER_BYTES;
use crate::model::{Acks, MonotonicMicros, Now, Offset};

/// Bytes of a WAL batch entry beyond the batch, at most.
const ENTRY_OVERHEAD_BYTES: usize = ENTRY_HEADER_BYTES + 64;

/// Produces that wait for room in the write-ahead log, in order of arrival.
#[derive(Debug, Default)]
pub struct Parked {
    queue: VecDeque<ProduceInput>,
    /// No deadline is earlier.
    earliest_deadline: Option<MonotonicMicros>,
}

impl Parked {
    /// The earliest deadline, or a time before it.
    pub fn next_deadline(&self) -> Option<MonotonicMicros> {
        self.earliest_deadline
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn push(&mut self, input: ProduceInput) {
        let deadline = input.deadline;
        self.earliest_deadline =
            Some(self.earliest_deadline.map_or(deadline, |earliest| earliest.min(deadline)));
        self.queue.push_back(input);
    }

    fn pop(&mut self) -> Option<ProduceInput> {
        let input = self.queue.pop_front();
        if self.queue.is_empty() {
            self.earliest_deadline = None;
        }
        input
    }

    /// Takes out those whose time is up.
    fn expired(&mut self, now: MonotonicMicros) -> VecDeque<ProduceInput> {
        if self.earliest_deadline.is_none_or(|earliest| earliest > now) {
            return VecDeque::new();
        }
        let queue = std::mem::take(&mut self.queue);
        let (expired, kept): (VecDeque<_>, VecDeque<_>) =
            queue.into_iter().partition(|input| input.deadline <= now);
        self.earliest_deadline = kept.iter().map(|input| input.deadline).min();
        self.queue = kept;
        expired
    }
}

impl ShardMachine {
    /// Takes a produce. Answered by [`Effect::ProduceDone`]: with `acks=0` when it is in the log, on its way to the
    /// disk, so that whoever brings more than the log takes can be held up.
    pub fn produce(&mut self, now: Now, input: ProduceInput, out: &mut Vec<Effect>) {
        if !self.is_serving() {
            self.refuse(now, &input, &ProduceError::Stopping, out);
            return;
        }
        if self.parked.is_empty() && self.admits() {
            self.append_request(now, input, out);
        } else if self.is_out_of_space() {
            self.refuse(now, &input, &ProduceError::StorageFull, out);
        } else if self.parked.len() >= self.limits.parked_produces_max {
            self.refuse(now, &input, &ProduceError::TimedOut, out);
        } else {
            self.parked.push(input);
        }
        self.pump(now, out);
    }

    /// Appends what was parked, as far as there is room.
    pub(super) fn resume_parked(&mut self, now: Now, out: &mut Vec<Effect>) {
        while !self.parked.is_empty() && self.admits() {
            if let Some(input) = self.parked.pop() {
                self.append_request(now, input, out);
            }
        }
        if !self.parked.is_empty() && self.is_out_of_space() {
            self.refuse_parked(now, &ProduceError::StorageFull, out);
        }
    }

    /// Answers those whose time is up; nothing of them was appended.
    pub(super) fn expire_parked(&mut self, now: Now, out: &mut Vec<Effect>) {
        for input in self.parked.expired(now.monotonic) {
            self.refuse(now, &input, &ProduceError::TimedOut, out);
        }
    }

    /// Answers all that is parked.
    pub(super) fn refuse_parked(&mut self, now: Now, error: &ProduceError, out: &mut Vec<Effect>) {
        while let Some(input) = self.parked.pop() {
            self.refuse(now, &input, error, out);
        }
    }

    /// Answers a request of which nothing was appended.
    fn refuse(
        &mut self,
        now: Now,
        input: &ProduceInput,
        error: &ProduceError,
        out: &mut Vec<Effect>,
    ) {
        for ProducePartition { key, batch } in &input.partitions {
            if let Some(slot) = self.partitions.slot(key)
                && let Some(partition) = self.partitions.get_mut(slot)
            {
                partition.producers.refused(&batch.header, now.wall);
            }
        }
        let outcome = |partition: &ProducePartition| ProduceOutcome {
            key: partition.key,
            result: Err(error.clone()),
        };
        let outcomes = input.partitions.iter().map(outcome).collect();
        out.push(Effect::ProduceDone { token: input.token, outcomes });
    }

    /// Whether there is room for more than what waits already.
    pub(super) fn admits(&self) -> bool {
        self.wal.admits(self.runs.bytes())
    }

    /// Whether waiting for room is pointless until somebody frees the disk.
    pub(super) fn is_out_of_space(&self) -> bool {
        !self.admits() && (self.rounds.lacks_space() || self.wal.lacks_space())
    }

    fn append_request(&mut self, now: Now, input: ProduceInput, out: &mut Vec<Effect>) {
        let ProduceInput { token, acks, deadline, partitions } = input;
        let keys = partitions.iter().map(|partition| partition.key);
        let request = self.requests.begin(token, deadline, keys);
        let mut counted_early = Vec::new();
        for (index, partition) in partitions.into_iter().enumerate() {
            let index = index as u32;
            let header = &partition.batch.header;
            let (records, bytes) = (header.record_count, header.total_bytes);
            match self.append_batch(now, acks, partition) {
                Ok(Waiting { slot, end_offset, appended, counts_early, is_fresh }) => {
                    if is_fresh {
                        self.tally.produced(records, bytes);
                    }
                    if acks == Acks::None {
                        self.requests.decide(request, index, Ok(appended), out);
                    } else if let Some(partition) = self.partitions.get_mut(slot) {
                        let waiter = AckWaiter { end_offset, request, index, appended };
                        partition.ack_waiters.push(acks, waiter);
                    }
                    if counts_early {
                        counted_early.push(slot);
                    }
                }
                Err(error) => self.requests.decide(request, index, Err(error), out),
            }
        }
        self.requests.finish_if_empty(request, out);
        for slot in counted_early {
            self.advance(slot, out);
        }
        self.cache.trim(self.limits.tail_cache_bytes, &mut self.partitions);
    }

    /// Appends a batch of the server's own, as one with `acks=all`. Returns the offset after its last record.
    ///
    /// # Errors
    /// Why nothing was appended.
    pub(super) fn append_own(
        &mut self,
        now: Now,
        input: ProducePartition,
        out: &mut Vec<Effect>,
    ) -> Result<Offset, ProduceError> {
        let waiting = self.append_batch(now, Acks::All, input)?;
        if waiting.counts_early {
            self.advance(waiting.slot, out);
        }
        self.cache.trim(self.limits.tail_cache_bytes, &mut self.partitions);
        Ok(waiting.end_offset)
    }

    fn append_batch(
        &mut self,
        now: Now,
        acks: Acks,
        input: ProducePartition,
    ) -> Result<Waiting, ProduceError> {
        let ProducePartition { key, batch } = input;
        let bytes = batch.header.total_bytes;
        if !self.wal.fits_a_file(bytes + ENTRY_OVERHEAD_BYTES) {
            let limit = self.limits.wal_file_bytes as usize;
            return Err(ProduceError::TooLarge { bytes, limit });
        }
        let slot = self.partitions.slot(&key).ok_or(ProduceError::UnknownPartition(key))?;
        let partition = self.partitions.get_mut(slot).expect("a key names an open slot");
        if self.life == Life::WindingDown && acks == Acks::All && partition.waits_for_others() {
            partition.producers.refused(&batch.header, now.wall);
            return Err(ProduceError::Stopping);
        }
        let accepted = partition.append(now, acks, batch)?;
        let is_fresh = matches!(accepted, Accepted::Appended(_));
        let (base_offset, end_offset, timestamp) = match accepted {
            Accepted::Appended(batch) => {
                let (base_offset, end_offset) = (batch.header.base_offset, batch.end_offset());
                let timestamp = batch.header.max_timestamp;
                self.cache.pushed(now.monotonic, slot, &batch);
                self.runs.enqueue(&mut self.wal, slot, key, batch);
                (base_offset, end_offset, timestamp)
            }
            // Its original may still be on its way to the disk: it waits like a fresh one.
            Accepted::Duplicate(original) => {
                (original.base_offset, original.last_offset.plus(1), original.timestamp)
            }
        };
        let appended = Appended {
            base_offset,
            log_append_time: partition.config.log_append_time.then_some(timestamp),
            log_start_offset: partition.log_start_offset,
        };
        let counts_early =
            partition.config.flush_messages > 1 || end_offset <= partition.in_sync.own();
        Ok(Waiting { slot, end_offset, appended, counts_early, is_fresh })
    }
}

/// A batch that is in the log and may not count yet.
struct Waiting {
    slot: Slot,
    end_offset: Offset,
    appended: Appended,
    /// Its position may be reached already: an old duplicate, or `flush.messages` above 1.
    counts_early: bool,
    /// It was not in the log before.
    is_fresh: bool,
}
