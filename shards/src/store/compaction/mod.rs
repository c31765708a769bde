//! Compacting one partition's log, in steps that leave room for other jobs.
//!
//! 1. The part that is dirty is read, and the newest offset of every key noted, as far as memory allows.
//! 2. From the log's beginning on, segments are read in groups that fit one segment together, and what stays of a group is
//!    written to files beside them, which are made durable.
//! 3. When the machine says so, a group's files take the place of the old ones: see `swap`. Then the next group follows.
//!
//! Groups go in the order of their offsets, so an older record of a key is gone before a newer one that replaces it
//! may be: what a crash leaves is a log that was compacted up to some place.
//!
//! Kept without records are the last batch of every producer that is known, since it says where that stands, and the last
//! batch of the compacted part, since it says where the log goes on.
//!
//! Deliberately absent: clocks, a pace (the thread's that runs it), and the choice of a partition (the machine's).

mod rewrite;
mod source;
mod swap;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use self::rewrite::Output;
use self::source::Source;
pub use self::swap::{abandon, complete, read_checkpoint, write_checkpoint};
use super::disk::{Disk, is_no_space};
use super::partition_log::PartitionLog;
use super::segment::WIDTH_MAX;
use crate::format::cleaner_checkpoint::{CleanerCheckpoint, SegmentSwap};
use crate::format::compacted_batch::{
    Compacted, CompactionRules, RecordCounts, compact, is_kept_whole,
};
use crate::format::record::Records;
use crate::format::record_batch::StoredBatch;
use crate::machine::compaction::offset_map::OffsetMap;
use crate::machine::effect::{CompactionFailure, CompactionReport, SegmentMeta};
use crate::model::{Offset, ProducerId, ReplicaKey, TimestampMs};

/// How much is read in a step, since a commit waits behind it; a batch beyond it is read whole.
const STEP_BYTES: u64 = 64 << 10;

/// What the records of a batch may take without compression, in multiples of the largest batch, as where they are produced.
const EXPANSION_MAX: usize = 64;
/// The same at least: the largest batch may have been a larger one once.
const EXPANDED_BYTES_MIN: usize = 64 << 20;

/// What a step came to.
pub enum Step {
    /// There is more to do. So many bytes were read and written.
    Worked(u64),
    /// A group is durable and waits to be exchanged.
    Rewritten,
    /// All is done.
    Finished(CompactionReport),
}

/// Why it does not go on.
#[derive(Debug)]
pub enum Stop {
    /// Nothing happened to the log.
    GivenUp(CompactionFailure),
    /// Nobody knows what is durable.
    Sync(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        if is_no_space(&error) {
            return Self::GivenUp(CompactionFailure::NoSpace);
        }
        Self::GivenUp(CompactionFailure::Unreadable(error.to_string()))
    }
}

/// A file that has to be durable and is not: nobody knows which of its contents a crash leaves.
fn unless_full(error: io::Error) -> Stop {
    if is_no_space(&error) { Stop::from(error) } else { Stop::Sync(error) }
}

fn save<D: Disk>(disk: &D, dir: &Path, checkpoint: CleanerCheckpoint) -> Result<(), Stop> {
    write_checkpoint(disk, dir, checkpoint).map_err(unless_full)
}

fn unreadable(segment: Offset, position: u64, what: impl std::fmt::Display) -> Stop {
    let reason = format!("segment {segment} at byte {position}: {what}");
    Stop::GivenUp(CompactionFailure::Unreadable(reason))
}

/// A log that is being compacted.
pub struct Compaction<D: Disk> {
    /// Whose.
    pub key: ReplicaKey,
    /// Which one.
    pub id: u64,
    dir: PathBuf,
    now: TimestampMs,
    delete_retention_ms: i64,
    segment_bytes: u64,
    expanded_bytes_max: usize,
    first_dirty_offset: Offset,
    /// Where the compacted part ends, at most.
    end_offset: Offset,
    /// Of that part, in the log's order.
    segments: Vec<SegmentMeta>,
    /// The last batch of every producer that is known ends with this.
    last_of_producer: BTreeMap<ProducerId, Offset>,
    map: OffsetMap,
    phase: Phase<D>,
    report: CompactionReport,
    counts: RecordCounts,
}

enum Phase<D: Disk> {
    /// Notes keys.
    Mapping(Reading<D>),
    /// Writes what stays of `segments[from..until]`.
    Rewriting { from: usize, until: usize, reading: Reading<D>, output: Output<D> },
    /// `segments[from..until]` are to be replaced by `written`.
    Rewritten { from: usize, until: usize, written: SegmentMeta },
    /// The next group begins there.
    Between { from: usize },
}

/// A place in the segments.
struct Reading<D: Disk> {
    segment: usize,
    /// Open once it is needed.
    source: Option<Source<D>>,
}

impl<D: Disk> Compaction<D> {
    /// Begins: segments of `log` that end at or below `end_offset` are compacted, with `map_bytes_max` of memory.
    ///
    /// # Errors
    /// When the checkpoint that announces it cannot be written.
    pub fn begin(
        disk: &D,
        log: &mut PartitionLog,
        job: (u64, Offset, TimestampMs),
        map_bytes_max: usize,
        seed: u64,
    ) -> Result<Self, Stop> {
        let (id, end_offset, now) = job;
        let segments: Vec<SegmentMeta> =
            log.sealed.iter().take_while(|s| s.end_offset <= end_offset).copied().collect();
        let Some(last) = segments.last() else {
            return Err(Stop::GivenUp(CompactionFailure::Overtaken));
        };
        let end_offset = last.end_offset;
        let first = segments.first().map_or(end_offset, |first| first.base_offset);
        let first_dirty_offset = log.cleaner.first_dirty_offset.clamp(first, end_offset);
        if log.cleaner.holes_end < end_offset {
            // Before there can be a hole.
            let announced = CleanerCheckpoint { holes_end: end_offset, ..log.cleaner };
            save(disk, &log.dir, announced)?;
            log.cleaner = announced;
        }
        let last_batches = log.producers.last_offsets();
        let records_max = end_offset.since(first_dirty_offset).unsigned_abs();
        let dirty = segments.partition_point(|s| s.end_offset <= first_dirty_offset);
        let bytes_before = segments.iter().map(|segment| segment.bytes).sum();
        Ok(Self {
            key: log.key,
            id,
            dir: log.dir.clone(),
            now,
            delete_retention_ms: log.config.delete_retention_ms,
            segment_bytes: log.config.segment_bytes,
            expanded_bytes_max: log
                .config
                .max_message_bytes
                .saturating_mul(EXPANSION_MAX)
                .max(EXPANDED_BYTES_MIN),
            first_dirty_offset,
            end_offset,
            last_of_producer: last_batches,
            map: OffsetMap::new(first_dirty_offset, records_max, map_bytes_max, seed),
            phase: Phase::Mapping(Reading { segment: dirty, source: None }),
            report: CompactionReport {
                bytes_before,
                segments_before: segments.len() as u64,
                ..CompactionReport::default()
            },
            counts: RecordCounts::default(),
            segments,
        })
    }

    /// Whether the next step waits for [`Self::swap`].
    pub fn awaits_swap(&self) -> bool {
        matches!(self.phase, Phase::Rewritten { .. })
    }

    /// Does a little more.
    ///
    /// # Errors
    /// Why it cannot go on; it is over then.
    pub fn step(&mut self, disk: &D, log: &mut PartitionLog) -> Result<Step, Stop> {
        self.check_segments(log)?;
        match &self.phase {
            Phase::Mapping(_) => self.map_more(disk, log.key),
            Phase::Rewriting { .. } => self.rewrite_more(disk, log.key),
            Phase::Rewritten { .. } => Ok(Step::Rewritten),
            Phase::Between { from } => {
                let from = *from;
                if self.segments.get(from).is_some_and(|s| s.base_offset < self.map.reached()) {
                    self.begin_group(disk, log.key, from)?;
                    return Ok(Step::Worked(0));
                }
                self.finish(disk, log).map(Step::Finished)
            }
        }
    }

    /// Segments that are not there any more were deleted; what is left of the work would be for nothing.
    fn check_segments(&self, log: &PartitionLog) -> Result<(), Stop> {
        let next = match &self.phase {
            Phase::Mapping(reading) => reading.segment,
            Phase::Rewriting { from, .. }
            | Phase::Rewritten { from, .. }
            | Phase::Between { from } => *from,
        };
        let left = &self.segments[next.min(self.segments.len())..];
        let Some(first) = left.first() else { return Ok(()) };
        let at = log.sealed.partition_point(|s| s.base_offset < first.base_offset);
        if log.sealed[at..].starts_with(left) {
            return Ok(());
        }
        Err(Stop::GivenUp(CompactionFailure::Overtaken))
    }

    fn map_more(&mut self, disk: &D, key: ReplicaKey) -> Result<Step, Stop> {
        let Phase::Mapping(reading) = &mut self.phase else { return Ok(Step::Worked(0)) };
        let Some(segment) = self.segments.get(reading.segment) else {
            self.map.pass_to(self.end_offset);
            self.phase = Phase::Between { from: 0 };
            return Ok(Step::Worked(0));
        };
        let source = reading.open(disk, &self.dir, key, segment)?;
        let (position, batches) = source.next(disk, STEP_BYTES)?;
        let bytes = batches.iter().map(|batch| batch.total_bytes() as u64).sum();
        if batches.is_empty() {
            reading.segment += 1;
            reading.source = None;
        }
        for batch in batches {
            let noted =
                note_keys(&mut self.map, &batch, self.first_dirty_offset, self.expanded_bytes_max);
            if !noted.map_err(|error| unreadable(segment.base_offset, position, error))? {
                self.report.was_map_full = true;
                self.phase = Phase::Between { from: 0 };
                return Ok(Step::Worked(bytes));
            }
        }
        Ok(Step::Worked(bytes))
    }

    /// As many segments as one of the usual size holds, if nothing of them goes.
    fn begin_group(&mut self, disk: &D, key: ReplicaKey, from: usize) -> Result<(), Stop> {
        let base = self.segments[from].base_offset;
        let mut bytes = 0;
        let belong = |segment: &&SegmentMeta| {
            bytes += segment.bytes;
            bytes <= self.segment_bytes.min(WIDTH_MAX)
                && segment.end_offset.since(base) as u64 <= WIDTH_MAX
                && segment.base_offset < self.map.reached()
        };
        let count = self.segments[from..].iter().take_while(belong).count().max(1);
        let output = Output::create(disk, &self.dir, key, base)?;
        let reading = Reading { segment: from, source: None };
        self.phase = Phase::Rewriting { from, until: from + count, reading, output };
        Ok(())
    }

    fn rewrite_more(&mut self, disk: &D, key: ReplicaKey) -> Result<Step, Stop> {
        let Phase::Rewriting { from, until, reading, output } = &mut self.phase else {
            return Ok(Step::Worked(0));
        };
        let (from, until) = (*from, *until);
        if reading.segment == until {
            return self.finish_group(disk, from, until);
        }
        let segment = &self.segments[reading.segment];
        let source = reading.open(disk, &self.dir, key, segment)?;
        let (position, batches) = source.next(disk, STEP_BYTES)?;
        // Most likely this segment is about to go. To give all of its pages back then, at once, is a pause that others notice.
        source.is_done_so_far(disk);
        let mut bytes = 0;
        if batches.is_empty() {
            reading.segment += 1;
            reading.source = None;
        }
        for batch in batches {
            bytes += batch.total_bytes() as u64;
            let header = &batch.header;
            let last = self.last_of_producer.get(&header.producer_id);
            let rules = CompactionRules {
                now: self.now,
                delete_retention_ms: self.delete_retention_ms,
                keeps_emptied: header.end_offset() == self.end_offset
                    || last.is_some_and(|last| *last == header.last_offset()),
                expanded_bytes_max: self.expanded_bytes_max,
            };
            let (map, horizon) = (&self.map, header.delete_horizon());
            let compacted = compact(&batch, rules, &mut self.counts, |offset, record| {
                map.keeps(offset, record.key, record.value.is_some(), horizon, rules.now)
            });
            match compacted.map_err(|error| unreadable(segment.base_offset, position, error))? {
                Compacted::Unchanged => output.push(batch, false),
                Compacted::Rewritten(batch) => output.push(batch, true),
                Compacted::Dropped => output.drop_batch(),
            }
        }
        let before = output.bytes_written();
        output.write(disk, false)?;
        Ok(Step::Worked(bytes + output.bytes_written() - before))
    }

    fn finish_group(&mut self, disk: &D, from: usize, until: usize) -> Result<Step, Stop> {
        let phase = std::mem::replace(&mut self.phase, Phase::Between { from: until });
        let Phase::Rewriting { output, .. } = phase else { return Ok(Step::Worked(0)) };
        let group = &self.segments[from..until];
        let (first, last) = (&group[0], &group[group.len() - 1]);
        if group.len() == 1 && !output.is_changed() {
            output.discard(disk)?;
            self.report.bytes_after += first.bytes;
            self.report.segments_after += 1;
            return Ok(Step::Worked(0));
        }
        let written = output.finish(disk, &self.dir, last.end_offset, last.created)?;
        self.report.bytes_after += written.bytes;
        self.report.segments_after += 1;
        self.phase = Phase::Rewritten { from, until, written };
        Ok(Step::Rewritten)
    }

    /// Puts the group that is durable in the place of the old segments.
    ///
    /// # Errors
    /// [`Stop::Sync`] in the middle of it: a recovery completes it.
    pub fn swap(&mut self, disk: &D, log: &mut PartitionLog) -> Result<(), Stop> {
        let Phase::Rewritten { from, until, written } = &self.phase else { return Ok(()) };
        let (from, until, written) = (*from, *until, *written);
        self.check_segments(log)?;
        source::check_owner(disk, &self.dir, self.key)?;
        let swap = SegmentSwap { base_offset: written.base_offset, end_offset: written.end_offset };
        swap::decide(disk, &self.dir, swap).map_err(unless_full)?;
        complete(disk, &self.dir, swap).map_err(Stop::Sync)?;
        let group = &self.segments[from..until];
        let at = log.sealed.partition_point(|s| s.base_offset < written.base_offset);
        let (before, rest) = log.sealed.split_at(at);
        let after = &rest[group.len()..];
        log.sealed = before.iter().copied().chain([written]).chain(after.iter().copied()).collect();
        log.generation += 1;
        self.phase = Phase::Between { from: until };
        Ok(())
    }

    fn finish(&mut self, disk: &D, log: &mut PartitionLog) -> Result<CompactionReport, Stop> {
        let done = CleanerCheckpoint { first_dirty_offset: self.map.reached(), ..log.cleaner };
        save(disk, &self.dir, done)?;
        log.cleaner = done;
        // Segments behind the last key that was noted were not looked at.
        if let Phase::Between { from } = self.phase {
            let rest = &self.segments[from..];
            self.report.segments_after += rest.len() as u64;
            self.report.bytes_after += rest.iter().map(|segment| segment.bytes).sum::<u64>();
        }
        Ok(CompactionReport {
            records_before: self.counts.read,
            records_after: self.counts.kept,
            keys: self.map.len() as u64,
            end_offset: self.map.reached(),
            ..self.report
        })
    }

    /// Removes what it has written beside the log.
    pub fn abandon(self, disk: &D) {
        let dir = self.dir.clone();
        // Files are closed before they are removed.
        drop(self);
        if let Err(error) = abandon(disk, &dir) {
            tracing::warn!(directory = %dir.display(), %error, "rewritten segments not removed");
        }
    }
}

impl<D: Disk> Reading<D> {
    fn open(
        &mut self,
        disk: &D,
        dir: &Path,
        key: ReplicaKey,
        segment: &SegmentMeta,
    ) -> Result<&mut Source<D>, Stop> {
        if self.source.is_none() {
            self.source = Some(Source::open(disk, dir, key, segment)?);
        }
        Ok(self.source.as_mut().expect("opened above"))
    }
}

/// Notes the keys of a batch from `begin` on. `false`: the table is full.
fn note_keys(
    map: &mut OffsetMap,
    batch: &StoredBatch,
    begin: Offset,
    expanded_bytes_max: usize,
) -> Result<bool, crate::format::record_batch::BatchError> {
    let header = &batch.header;
    if header.end_offset() > begin && !is_kept_whole(header) {
        let payload = batch.decompressed(expanded_bytes_max)?;
        for record in Records::new(header, &payload) {
            let record = record?;
            let offset = header.base_offset.plus(i64::from(record.offset_delta));
            let Some(key) = record.key.filter(|_| offset >= begin) else { continue };
            if !map.put(key, offset) {
                return Ok(false);
            }
        }
    }
    map.pass_to(header.end_offset());
    Ok(true)
}
