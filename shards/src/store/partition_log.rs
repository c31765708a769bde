//! The segments of one partition: appending, rolling, deleting.
//!
//! Invariants: sealed segments and the active one are contiguous; what the state says was written
//! before it says so. A change that fails leaves the state as it was and cuts the files back to it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, OpenMode};
use super::open_files::OpenFiles;
use super::paths::{SegmentFile, segment_file};
use super::producers::ProducerTable;
use super::segment::Segment;
use crate::format::cleaner_checkpoint::CleanerCheckpoint;
use crate::format::record_batch::{STAMPED_BYTES, StoredBatch};
use crate::format::{epoch_checkpoint, partition_metadata, producer_snapshot};
use crate::machine::effect::{LogView, SegmentMeta};
use crate::machine::input::PartitionConfig;
use crate::model::{LeaderEpoch, Offset, ReplicaKey, TimestampMs};

/// A partition's files as they stand.
#[derive(Clone, Debug)]
pub struct PartitionLog {
    /// Identity.
    pub key: ReplicaKey,
    /// For directories and log lines.
    pub topic_name: String,
    /// Where the files are.
    pub dir: PathBuf,
    /// When to roll.
    pub config: PartitionConfig,
    pub(super) sealed: Arc<[SegmentMeta]>,
    pub(super) active: Option<Segment>,
    /// As of the end of the segments.
    pub(super) producers: ProducerTable,
    /// As of the end of the segments.
    pub(super) epochs: Vec<(LeaderEpoch, Offset)>,
    pub(super) epochs_changed: bool,
    /// As of the last checkpoint that speaks of it. What lies beyond is read again by a recovery, for its
    /// producers, and must be there even if nobody may read it any more.
    pub(super) checkpointed_end: Offset,
    /// Where the log starts: segments below go once a checkpoint covers them.
    pub(super) log_start_offset: Offset,
    /// How far it is compacted.
    pub(super) cleaner: CleanerCheckpoint,
    /// How often segments were exchanged since the process began.
    pub(super) generation: u32,
    unsynced: Unsynced,
}

/// What no sync has covered yet.
#[derive(Clone, Debug)]
struct Unsynced {
    /// Segments with appended batches, oldest first.
    segments: Vec<Offset>,
    /// Names of files in the directory, and of the directory itself.
    has_names: bool,
}

/// What has to be written to one segment.
#[derive(Default)]
struct Run<'a> {
    batches: &'a [StoredBatch],
    index: Vec<u8>,
    time_index: Vec<u8>,
}

impl PartitionLog {
    /// A partition without segments.
    #[must_use]
    pub fn new(key: ReplicaKey, topic_name: String, dir: PathBuf, config: PartitionConfig) -> Self {
        Self {
            key,
            topic_name,
            dir,
            config,
            sealed: Arc::default(),
            active: None,
            producers: ProducerTable::default(),
            epochs: Vec::new(),
            epochs_changed: false,
            // The directory may have been made a moment ago.
            unsynced: Unsynced { segments: Vec::new(), has_names: true },
            checkpointed_end: Offset::ZERO,
            log_start_offset: Offset::ZERO,
            cleaner: CleanerCheckpoint::default(),
            generation: 0,
        }
    }

    /// The segments as others see them.
    #[must_use]
    pub fn view(&self) -> LogView {
        LogView {
            sealed: Arc::clone(&self.sealed),
            active: self.active.as_ref().map(Segment::meta),
            first_dirty_offset: self.cleaner.first_dirty_offset,
            holes_end: self.cleaner.holes_end,
            generation: self.generation,
        }
    }

    /// The log's end in segments, or `None` when there is no segment.
    #[must_use]
    pub fn end_offset(&self) -> Option<Offset> {
        let sealed = self.sealed.last().map(|segment| segment.end_offset);
        self.active.as_ref().map(|segment| segment.end_offset).or(sealed)
    }

    /// Appends batches that continue the log; rolls where the configuration says so. An append that is
    /// given again although it was done, because an answer about space crossed it, changes nothing.
    ///
    /// # Errors
    /// The disk's. Nothing of the batches is kept then.
    pub(super) fn append<D: Disk>(
        &mut self,
        disk: &D,
        files: &mut OpenFiles<D>,
        batches: &[StoredBatch],
        now: TimestampMs,
    ) -> io::Result<()> {
        let there = self
            .end_offset()
            .map_or(0, |end| batches.iter().take_while(|batch| batch.end_offset() <= end).count());
        let batches = &batches[there..];
        let Some(first) = batches.first() else { return Ok(()) };
        let end = self.end_offset().unwrap_or(first.header.base_offset);
        if first.header.base_offset != end {
            let found = first.header.base_offset;
            return Err(io::Error::other(format!("append at {found}, the log ends at {end}")));
        }
        let before = (Arc::clone(&self.sealed), self.active);
        let result = self.append_runs(disk, files, batches, now);
        if let Err(error) = result {
            (self.sealed, self.active) = before;
            self.cut_back(disk, files)?;
            return Err(error);
        }
        for batch in batches {
            let header = &batch.header;
            self.producers.observe(header);
            if self.epochs.last().is_none_or(|(epoch, _)| *epoch < header.leader_epoch) {
                self.epochs.push((header.leader_epoch, header.base_offset));
                self.epochs_changed = true;
            }
        }
        Ok(())
    }

    fn append_runs<D: Disk>(
        &mut self,
        disk: &D,
        files: &mut OpenFiles<D>,
        batches: &[StoredBatch],
        now: TimestampMs,
    ) -> io::Result<()> {
        let mut producers = None;
        let mut rest = batches;
        while let Some(first) = rest.first() {
            let mut segment = match self.active {
                Some(active) if !active.should_roll(&first.header, &self.config, now) => active,
                Some(_) => {
                    // The snapshot at a roll within the append includes what came before it.
                    let done = batches.len() - rest.len();
                    let table = producers.get_or_insert_with(|| (0, self.producers.clone()));
                    batches[table.0..done].iter().for_each(|batch| table.1.observe(&batch.header));
                    table.0 = done;
                    let snapshot = table.1.clone();
                    self.seal(disk, files, &snapshot)?;
                    self.begin(disk, files, first.header.base_offset, now)?
                }
                None => self.begin(disk, files, first.header.base_offset, now)?,
            };
            let run = fill(&mut segment, rest, &self.config, now);
            if !self.unsynced.segments.contains(&segment.base_offset) {
                self.unsynced.segments.push(segment.base_offset);
            }
            self.write_run(disk, files, &run)?;
            rest = &rest[run.batches.len()..];
            self.active = Some(segment);
        }
        Ok(())
    }

    /// Makes durable what was appended, with the names that lead to it. Indexes are left out: they can be
    /// made again.
    ///
    /// # Errors
    /// The disk's. Nobody knows then what is durable.
    pub(super) fn sync<D: Disk>(&mut self, disk: &D, files: &mut OpenFiles<D>) -> io::Result<()> {
        for base in &self.unsynced.segments {
            let is_active = self.active.is_some_and(|active| active.base_offset == *base);
            let is_sealed =
                || self.sealed.binary_search_by_key(base, |sealed| sealed.base_offset).is_ok();
            // One that was removed since is not made again.
            if is_active || is_sealed() {
                disk.sync(files.get(disk, &self.dir, (self.key, SegmentFile::Log, *base))?)?;
            }
        }
        if self.unsynced.has_names {
            let metadata = self.dir.join(partition_metadata::FILE_NAME);
            disk.sync(&disk.open(&metadata, OpenMode::Read)?)?;
            if let Some(topics) = self.dir.parent() {
                disk.sync_dir(topics)?;
            }
            disk.sync_dir(&self.dir)?;
        }
        self.synced();
        Ok(())
    }

    /// These segments may hold what is not durable.
    pub(super) fn mark_unsynced(&mut self, segments: impl Iterator<Item = Offset>) {
        self.unsynced.segments.extend(segments);
    }

    /// The segments end at `end` since a moment ago. What the last checkpoint says beyond is void, and no sync
    /// covers that files are shorter or gone: without it, what is appended durably could be followed by what was cut.
    pub(super) fn was_cut(&mut self, end: Offset) {
        self.checkpointed_end = self.checkpointed_end.min(end);
        let view = self.view();
        let exists = |base: &Offset| view.iter().any(|segment| segment.base_offset == *base);
        self.unsynced.segments.retain(exists);
        if let Some(active) = &self.active
            && !self.unsynced.segments.contains(&active.base_offset)
        {
            self.unsynced.segments.push(active.base_offset);
        }
        self.unsynced.has_names = true;
    }

    /// The file system was synced.
    pub(super) fn synced(&mut self) {
        self.unsynced.segments.clear();
        self.unsynced.has_names = false;
    }

    /// Closes the active segment unless it is empty. The next one begins with the next batch.
    pub(super) fn roll<D: Disk>(&mut self, disk: &D, files: &mut OpenFiles<D>) -> io::Result<()> {
        if self.active.is_none_or(|active| active.bytes == 0) {
            return Ok(());
        }
        let snapshot = self.producers.clone();
        self.seal(disk, files, &snapshot)
    }

    fn seal<D: Disk>(
        &mut self,
        disk: &D,
        files: &mut OpenFiles<D>,
        producers: &ProducerTable,
    ) -> io::Result<()> {
        let Some(active) = self.active else { return Ok(()) };
        let sealed = self.seal_time_index(disk, files, active)?;
        write_snapshot(disk, &self.dir, sealed.end_offset, producers)?;
        let metas = self.sealed.iter().copied().chain([sealed.meta()]);
        self.sealed = metas.collect();
        self.active = None;
        Ok(())
    }

    fn seal_time_index<D: Disk>(
        &self,
        disk: &D,
        files: &mut OpenFiles<D>,
        mut segment: Segment,
    ) -> io::Result<Segment> {
        let position = segment.time_index_bytes;
        if let Some(entry) = segment.seal() {
            let name = (self.key, SegmentFile::TimeIndex, segment.base_offset);
            let file = files.get(disk, &self.dir, name)?;
            disk.write_at(file, position, &[IoSlice::new(&entry.encode())])?;
        }
        Ok(segment)
    }

    /// Creates the files of a segment, so that they exist even while the indexes are empty.
    fn begin<D: Disk>(
        &mut self,
        disk: &D,
        files: &mut OpenFiles<D>,
        base_offset: Offset,
        now: TimestampMs,
    ) -> io::Result<Segment> {
        let segment = Segment::new(base_offset, now);
        self.active = Some(segment);
        self.unsynced.has_names = true;
        for kind in [SegmentFile::Log, SegmentFile::Index, SegmentFile::TimeIndex] {
            let file = files.get(disk, &self.dir, (self.key, kind, base_offset))?;
            disk.truncate(file, 0)?;
        }
        Ok(segment)
    }

    fn write_run<D: Disk>(
        &self,
        disk: &D,
        files: &mut OpenFiles<D>,
        run: &Run<'_>,
    ) -> io::Result<()> {
        let Some(active) = &self.active else { return Ok(()) };
        let stamps: Vec<[u8; STAMPED_BYTES]> = run.batches.iter().map(StoredBatch::stamp).collect();
        let slices: Vec<IoSlice<'_>> = run
            .batches
            .iter()
            .zip(&stamps)
            .flat_map(|(batch, stamp)| [IoSlice::new(stamp), IoSlice::new(batch.tail())])
            .collect();
        let bytes = slices.iter().map(|slice| slice.len() as u64).sum();
        let base = active.base_offset;
        let log = files.get(disk, &self.dir, (self.key, SegmentFile::Log, base))?;
        disk.write_at(log, active.bytes, &slices)?;
        disk.start_writeback(log, active.bytes, bytes)?;
        for (kind, position, entries) in [
            (SegmentFile::Index, active.index_bytes, &run.index),
            (SegmentFile::TimeIndex, active.time_index_bytes, &run.time_index),
        ] {
            if !entries.is_empty() {
                let file = files.get(disk, &self.dir, (self.key, kind, base))?;
                disk.write_at(file, position, &[IoSlice::new(entries)])?;
            }
        }
        Ok(())
    }

    /// Makes the files what the state says: no segment beyond it, none longer than it.
    pub(super) fn cut_back<D: Disk>(&self, disk: &D, files: &mut OpenFiles<D>) -> io::Result<()> {
        let end = self.end_offset();
        let last = self.active.as_ref().map(|segment| segment.base_offset);
        files.close(self.key, None);
        for entry in disk.list(&self.dir)? {
            let Some((kind, base)) = SegmentFile::parse(&entry.name) else { continue };
            let beyond = match kind {
                SegmentFile::Snapshot => end.is_none_or(|end| base > end),
                _ => last.map_or(end.is_none_or(|end| base >= end), |last| base > last),
            };
            if beyond {
                disk.remove_file(&self.dir.join(&entry.name))?;
            }
        }
        let Some(active) = &self.active else { return Ok(()) };
        for (kind, bytes) in [
            (SegmentFile::Log, active.bytes),
            (SegmentFile::Index, active.index_bytes),
            (SegmentFile::TimeIndex, active.time_index_bytes),
        ] {
            let path = segment_file(&self.dir, kind, active.base_offset);
            disk.truncate(&disk.open(&path, OpenMode::Write)?, bytes)?;
        }
        Ok(())
    }

    /// A checkpoint speaks of what ends at `end`. Says whether that lets segments go.
    pub(super) fn checkpointed(&mut self, end: Offset) -> bool {
        self.checkpointed_end = end;
        let start = self.log_start_offset.min(end);
        self.sealed.first().is_some_and(|segment| segment.end_offset <= start)
    }

    /// Removes segments that end at or below the log start and the last checkpoint, oldest first. The log's
    /// end is kept: when nothing else would be left, an empty segment begins there.
    pub(super) fn delete_below<D: Disk>(
        &mut self,
        disk: &D,
        files: &mut OpenFiles<D>,
        log_start_offset: Offset,
    ) -> io::Result<()> {
        self.log_start_offset = self.log_start_offset.max(log_start_offset);
        let log_start_offset = self.log_start_offset.min(self.checkpointed_end);
        let gone = self.sealed.partition_point(|sealed| sealed.end_offset <= log_start_offset);
        if gone == self.sealed.len()
            && self.active.is_none()
            && let Some(end) = self.end_offset()
            && let Err(error) = self.begin(disk, files, end, TimestampMs::NONE)
        {
            self.active = None;
            self.cut_back(disk, files)?;
            return Err(error);
        }
        let sealed = Arc::clone(&self.sealed);
        for (index, segment) in sealed[..gone].iter().enumerate() {
            for kind in SegmentFile::ALL {
                let path = segment_file(&self.dir, kind, segment.base_offset);
                match disk.remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            self.sealed = sealed[index + 1..].into();
        }
        if gone > 0 {
            let first = self.sealed.first().map(|segment| segment.base_offset);
            let first = first.or(self.active.as_ref().map(|segment| segment.base_offset));
            files.close(self.key, None);
            debug_assert!(first.is_some(), "a segment is left");
        }
        Ok(())
    }

    /// Writes the leader epochs if they changed. Durable with the next sync of the file system.
    pub(super) fn write_epochs<D: Disk>(&mut self, disk: &D) -> io::Result<()> {
        if self.epochs_changed {
            write_epochs(disk, &self.dir, &self.epochs)?;
            self.epochs_changed = false;
        }
        Ok(())
    }

    /// At an orderly end: completes the time index and leaves a snapshot of the producers, as Kafka
    /// does, so that either can go on from the directory.
    pub(super) fn finish<D: Disk>(&mut self, disk: &D, files: &mut OpenFiles<D>) -> io::Result<()> {
        self.write_epochs(disk)?;
        let Some(end) = self.end_offset() else { return Ok(()) };
        if let Some(active) = self.active {
            self.active = Some(self.seal_time_index(disk, files, active)?);
        }
        write_snapshot(disk, &self.dir, end, &self.producers)
    }
}

/// Takes as many batches as belong to the segment.
fn fill<'a>(
    segment: &mut Segment,
    batches: &'a [StoredBatch],
    config: &PartitionConfig,
    now: TimestampMs,
) -> Run<'a> {
    let mut run = Run::default();
    let mut count = 0;
    for batch in batches {
        if segment.should_roll(&batch.header, config, now) {
            break;
        }
        let due = segment.push(&batch.header, now);
        run.index.extend(due.offset.iter().flat_map(|entry| entry.encode()));
        run.time_index.extend(due.time.iter().flat_map(|entry| entry.encode()));
        count += 1;
    }
    run.batches = &batches[..count];
    run
}

/// Writes `<end>.snapshot`, even of nobody: the newest one is what counts.
fn write_snapshot<D: Disk>(
    disk: &D,
    dir: &Path,
    end: Offset,
    producers: &ProducerTable,
) -> io::Result<()> {
    let path = segment_file(dir, SegmentFile::Snapshot, end);
    let content = producer_snapshot::encode(&producers.to_checkpoint());
    write_plain(disk, &path, &content)
}

/// Writes the leader epochs.
pub(super) fn write_epochs<D: Disk>(
    disk: &D,
    dir: &Path,
    epochs: &[(LeaderEpoch, Offset)],
) -> io::Result<()> {
    let path = dir.join(epoch_checkpoint::FILE_NAME);
    let temporary = dir.join("leader-epoch-checkpoint.tmp");
    write_plain(disk, &temporary, epoch_checkpoint::encode(epochs).as_bytes())?;
    disk.rename(&temporary, &path)
}

/// Writes a file that counts only after the next sync of the file system; it proves itself by a CRC
/// or is backed by the checkpoint.
fn write_plain<D: Disk>(disk: &D, path: &Path, content: &[u8]) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Write)?;
    disk.truncate(&file, 0)?;
    disk.write_at(&file, 0, &[IoSlice::new(content)])
}

/// Creates a partition's directory, at once with its metadata. Durable with the next sync of the
/// file system, as all that will be in it.
pub(super) fn create_dir<D: Disk>(
    disk: &D,
    temporary: &Path,
    dir: &Path,
    key: ReplicaKey,
) -> io::Result<()> {
    disk.create_dir(temporary)?;
    let content = partition_metadata::encode(key.topic_id);
    write_plain(disk, &temporary.join(partition_metadata::FILE_NAME), content.as_bytes())?;
    disk.rename(temporary, dir)
}
