//! Requests that may have to read segments: fetches, and offsets by time.

use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::core::{Core, Origin};
use super::request::{Fetched, FetchedPartition, ListOffset, ListPosition, ListedOffset, Reply};
use crate::format::record_batch::{STAMPED_BYTES, StoredBatch, record_count};
use crate::io::log_reader::{Range, ReadError, ReadFor, Source};
use crate::machine::effect::LogView;
use crate::machine::input::{FetchData, FetchError, FetchInput, FetchPlan};
use crate::model::{Offset, ReplicaKey, TimestampMs};

/// How often the segments may change under a read before it is given up.
const READ_ATTEMPTS: usize = 3;

/// How often a read looks whether an exchange of segments is through.
const SWAP_PATIENCE: Duration = Duration::from_millis(1);

impl Core {
    pub(super) fn fetch(self: &Rc<Self>, origin: Origin, input: &FetchInput) {
        let plans = self.drive(|machine, _, _| machine.fetch(input));
        let reads = |plan: &FetchPlan| matches!(&plan.result, Ok(slice) if matches!(slice.data, FetchData::InSegments { .. }));
        if plans.iter().any(reads) {
            let core = Rc::clone(self);
            glommio::spawn_local(async move {
                let mut fetched = Vec::with_capacity(plans.len());
                for plan in plans {
                    fetched.push(core.fetched(plan).await);
                }
                core.answer(origin, Reply::Fetched(fetched));
            })
            .detach();
        } else {
            let fetched = plans.into_iter().map(|plan| from_memory(plan).0).collect();
            self.answer(origin, Reply::Fetched(fetched));
        }
    }

    async fn fetched(&self, plan: FetchPlan) -> FetchedPartition {
        let (mut partition, range) = from_memory(plan);
        if let (Ok(fetched), Some(range)) = (&mut partition.result, range) {
            match self
                .read(partition.key, range, ReadFor::Clients(&|| self.cold_rest_percent()))
                .await
            {
                Ok(bytes) => {
                    fetched.bytes = bytes.len();
                    fetched.record_count = record_count(&bytes);
                    fetched.records = if bytes.is_empty() { Vec::new() } else { vec![bytes] };
                }
                Err(error) => partition.result = Err(error),
            }
        }
        partition
    }

    /// Whole batches out of the segments.
    pub(super) async fn read(
        &self,
        key: ReplicaKey,
        range: Range,
        whom: ReadFor<'_>,
    ) -> Result<Bytes, FetchError> {
        let still_here = || self.look(|machine| machine.info(key).is_some());
        let mut attempts = 0;
        while attempts < READ_ATTEMPTS {
            let view = self.look(|machine| machine.log_view(key));
            let (Some(view), Some(directory)) = (view, self.directory(key)) else {
                return Err(FetchError::UnknownPartition(key));
            };
            let is_current = || self.look(|machine| machine.is_view_current(key, view.generation));
            let source =
                Source { key, directory: &directory, view: &view, is_current: &is_current, whom };
            match self.reader.read(source, range).await {
                Ok(_) if !still_here() => return Err(FetchError::UnknownPartition(key)),
                Ok(bytes) => return Ok(bytes),
                Err(error) => self.explain(key, range.offset, &view, &error)?,
            }
            attempts += self.await_swap(key, view.generation).await;
        }
        Err(FetchError::StorageFailed)
    }

    fn cold_rest_percent(&self) -> u32 {
        let now = self.clock.now().monotonic;
        self.look(|machine| machine.cold_rest_percent(now))
    }

    /// Waits while files of a partition are being exchanged or cut, which is not for long. Returns how many attempts of a read
    /// that met the segments of `generation` this was: one that an exchange got in the way of is none.
    async fn await_swap(&self, key: ReplicaKey, generation: u32) -> usize {
        while self.look(|machine| machine.is_swapping(key)) {
            glommio::timer::sleep(SWAP_PATIENCE).await;
        }
        usize::from(self.look(|machine| machine.is_view_current(key, generation)))
    }

    /// What a failed read means: an error for the client, or another attempt.
    fn explain(
        &self,
        key: ReplicaKey,
        offset: Offset,
        view: &LogView,
        error: &ReadError,
    ) -> Result<(), FetchError> {
        let Some(info) = self.look(|machine| machine.info(key)) else {
            return Err(FetchError::UnknownPartition(key));
        };
        // A file that was cut while it was read ends too early, and the next attempt knows.
        if self.look(|machine| machine.has_changed_since(key, view.end_offset())) {
            if !matches!(error, ReadError::Gone) {
                tracing::warn!(partition = %key, %error, "a segment changed while it was read");
            }
            return Ok(());
        }
        if !matches!(error, ReadError::Gone) {
            tracing::error!(partition = %key, %error, "cannot read a segment");
            return Err(FetchError::StorageFailed);
        }
        if offset < info.log_start_offset {
            return Err(FetchError::OutOfRange {
                offset,
                log_start: info.log_start_offset,
                high_watermark: info.high_watermark,
            });
        }
        Ok(())
    }

    pub(super) fn list_offsets(self: &Rc<Self>, origin: Origin, questions: Vec<ListOffset>) {
        let ends = |position| matches!(position, ListPosition::Earliest | ListPosition::Latest);
        if questions.iter().all(|question| ends(question.position)) {
            let listed = questions.iter().map(|question| self.log_end(*question)).collect();
            self.answer(origin, Reply::Listed(listed));
            return;
        }
        let core = Rc::clone(self);
        glommio::spawn_local(async move {
            let mut listed = Vec::with_capacity(questions.len());
            for question in questions {
                listed.push(match question.position {
                    ListPosition::Earliest | ListPosition::Latest => core.log_end(question),
                    ListPosition::MaxTimestamp => core.find_time(question, None).await,
                    ListPosition::Timestamp(time) => core.find_time(question, Some(time)).await,
                });
            }
            core.answer(origin, Reply::Listed(listed));
        })
        .detach();
    }

    fn log_end(&self, question: ListOffset) -> Result<Option<ListedOffset>, FetchError> {
        let ListOffset { key, current_leader_epoch, position } = question;
        self.look(|machine| {
            match position {
                ListPosition::Earliest => machine.check_leads(key, current_leader_epoch)?,
                _ => machine.check_knows_end(key, current_leader_epoch)?,
            }
            let info = machine.info(key).ok_or(FetchError::UnknownPartition(key))?;
            let (offset, leader_epoch) = match position {
                ListPosition::Earliest => (info.log_start_offset, Some(info.first_epoch)),
                _ => (info.high_watermark, Some(info.leader_epoch)),
            };
            Ok(Some(ListedOffset { offset, timestamp: TimestampMs::NONE, leader_epoch }))
        })
    }

    /// The first record at or after a time; without one, the record with the largest time. First in
    /// the segments, then in what is not in segments yet.
    async fn find_time(
        &self,
        question: ListOffset,
        target: Option<TimestampMs>,
    ) -> Result<Option<ListedOffset>, FetchError> {
        let key = question.key;
        let still_here = || self.look(|machine| machine.info(key).is_some());
        let mut attempts = 0;
        while attempts < READ_ATTEMPTS {
            let (info, view, tail) = self.look(|machine| {
                machine.check_knows_end(key, question.current_leader_epoch)?;
                let unknown = FetchError::UnknownPartition(key);
                let info = machine.info(key).ok_or(unknown)?;
                let view = machine.log_view(key).unwrap_or_default();
                let flushed = view.end_offset().unwrap_or(info.log_start_offset);
                let tail = machine.cached_from(key, flushed.max(info.log_start_offset));
                Ok::<_, FetchError>((info, view, tail))
            })?;
            let directory = self.directory(key).ok_or(FetchError::UnknownPartition(key))?;
            let is_current = || self.look(|machine| machine.is_view_current(key, view.generation));
            let source = Source {
                key,
                directory: &directory,
                view: &view,
                is_current: &is_current,
                whom: ReadFor::Clients(&|| self.cold_rest_percent()),
            };
            let from = info.log_start_offset;
            let found = match target {
                Some(target) => self.reader.first_at_or_after(source, target, from).await,
                None => self.reader.latest_timestamp(source, from).await,
            };
            let in_segments = match found {
                Ok(_) if !still_here() => return Err(FetchError::UnknownPartition(key)),
                Ok(found) => found,
                Err(error) => {
                    self.explain(key, from, &view, &error)?;
                    attempts += self.await_swap(key, view.generation).await;
                    continue;
                }
            };
            let found = match target {
                Some(_) if in_segments.is_some() => in_segments,
                Some(target) => first_in_tail(&tail, target)?,
                None => latest_of(in_segments, &tail)?,
            };
            // What is above the high watermark is not there for a consumer.
            let found = found.filter(|found| found.offset < info.high_watermark);
            return Ok(found.map(|found| ListedOffset {
                offset: found.offset,
                timestamp: found.timestamp,
                leader_epoch: Some(found.leader_epoch),
            }));
        }
        Err(FetchError::StorageFailed)
    }
}

use crate::io::log_reader::timestamps::{Found, find_in_batch, latest_in_batch};

fn first_in_tail(tail: &[StoredBatch], target: TimestampMs) -> Result<Option<Found>, FetchError> {
    for batch in tail {
        let found = find_in_batch(batch, target).map_err(|_| FetchError::StorageFailed)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn latest_of(
    in_segments: Option<Found>,
    tail: &[StoredBatch],
) -> Result<Option<Found>, FetchError> {
    let mut latest = in_segments;
    for batch in tail {
        let known = latest.map_or(TimestampMs::NONE, |found| found.timestamp);
        if batch.header.max_timestamp > known {
            let found = latest_in_batch(batch).map_err(|_| FetchError::StorageFailed)?;
            latest = found.filter(|found| found.timestamp > known).or(latest);
        }
    }
    Ok(latest)
}

/// What needs no disk, and what is to be read for the rest.
fn from_memory(plan: FetchPlan) -> (FetchedPartition, Option<Range>) {
    let mut range = None;
    let result = plan.result.map(|slice| {
        let mut record_count = 0;
        let records = match slice.data {
            FetchData::Nothing => Vec::new(),
            FetchData::Cached(batches) => {
                let counts = batches.iter().map(|batch| batch.header.record_count);
                record_count = counts.map(|count| u64::try_from(count).unwrap_or(0)).sum();
                with_stamps(&batches)
            }
            FetchData::InSegments { offset, end, max_bytes } => {
                range = Some(Range { offset, end, max_bytes });
                Vec::new()
            }
        };
        Fetched {
            high_watermark: slice.high_watermark,
            last_stable_offset: slice.last_stable_offset,
            log_start_offset: slice.log_start_offset,
            diverging: slice.diverging,
            bytes: records.iter().map(Bytes::len).sum(),
            records,
            record_count,
        }
    });
    (FetchedPartition { key: plan.key, result }, range)
}

/// The batches' bytes by reference, each behind its own stamped head. One allocation for all heads.
fn with_stamps(batches: &[StoredBatch]) -> Vec<Bytes> {
    let mut stamps = BytesMut::with_capacity(batches.len() * STAMPED_BYTES);
    for batch in batches {
        stamps.extend_from_slice(&batch.stamp());
    }
    let mut stamps = stamps.freeze();
    let mut records = Vec::with_capacity(2 * batches.len());
    for batch in batches {
        records.push(stamps.split_to(STAMPED_BYTES));
        records.push(batch.tail_bytes());
    }
    records
}
