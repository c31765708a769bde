//! Writing what stays of a group of segments to files beside them.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use super::Stop;
use super::source::check_owner;
use super::swap::cleaned_file;
use crate::format::record_batch::{STAMPED_BYTES, StoredBatch};
use crate::machine::effect::SegmentMeta;
use crate::model::{Offset, ReplicaKey, TimestampMs};
use crate::store::disk::{Disk, OpenMode};
use crate::store::paths::SegmentFile;
use crate::store::segment::Segment;

/// Batches are written when there are so many bytes of them.
const WRITE_BYTES: u64 = 512 << 10;

/// The segment that replaces a group.
pub struct Output<D: Disk> {
    dir: PathBuf,
    log: D::File,
    segment: Segment,
    index: Vec<u8>,
    time_index: Vec<u8>,
    /// Not written yet.
    batches: Vec<StoredBatch>,
    bytes_written: u64,
    is_changed: bool,
}

impl<D: Disk> Output<D> {
    /// An empty one.
    pub fn create(
        disk: &D,
        dir: &Path,
        key: ReplicaKey,
        base_offset: Offset,
    ) -> Result<Self, Stop> {
        check_owner(disk, dir, key)?;
        let log = disk.open(&cleaned_file(dir, SegmentFile::Log, base_offset), OpenMode::Write)?;
        disk.truncate(&log, 0)?;
        Ok(Self {
            dir: dir.to_owned(),
            log,
            segment: Segment::new(base_offset, TimestampMs::NONE),
            index: Vec::new(),
            time_index: Vec::new(),
            batches: Vec::new(),
            bytes_written: 0,
            is_changed: false,
        })
    }

    /// Takes a batch, which is another than it was or the same.
    pub fn push(&mut self, batch: StoredBatch, is_changed: bool) {
        self.segment.skip_to(batch.header.base_offset);
        let due = self.segment.push(&batch.header, TimestampMs::NONE);
        self.index.extend(due.offset.iter().flat_map(|entry| entry.encode()));
        self.time_index.extend(due.time.iter().flat_map(|entry| entry.encode()));
        self.is_changed |= is_changed;
        self.batches.push(batch);
    }

    /// A batch has gone.
    pub fn drop_batch(&mut self) {
        self.is_changed = true;
    }

    /// Whether it is another segment than the one that was read.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// Bytes of the log that are written.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// Writes what has gathered, if it is much or `all` is wanted.
    pub fn write(&mut self, disk: &D, all: bool) -> Result<(), Stop> {
        let bytes = self.segment.bytes - self.bytes_written;
        if bytes == 0 || bytes < WRITE_BYTES && !all {
            return Ok(());
        }
        let stamps: Vec<[u8; STAMPED_BYTES]> =
            self.batches.iter().map(StoredBatch::stamp).collect();
        let slices: Vec<IoSlice<'_>> = self
            .batches
            .iter()
            .zip(&stamps)
            .flat_map(|(batch, stamp)| [IoSlice::new(stamp), IoSlice::new(batch.tail())])
            .collect();
        disk.write_at(&self.log, self.bytes_written, &slices)?;
        disk.start_writeback(&self.log, self.bytes_written, bytes)?;
        self.bytes_written += bytes;
        self.batches.clear();
        Ok(())
    }

    /// Makes it durable, with its indexes. It ends at `end_offset`, whatever of its records are left there.
    pub fn finish(
        mut self,
        disk: &D,
        dir: &Path,
        end_offset: Offset,
        created: TimestampMs,
    ) -> Result<SegmentMeta, Stop> {
        self.write(disk, true)?;
        self.time_index.extend(self.segment.seal().iter().flat_map(|entry| entry.encode()));
        disk.sync(&self.log).map_err(Stop::Sync)?;
        let base_offset = self.segment.base_offset;
        for (kind, entries) in
            [(SegmentFile::Index, &self.index), (SegmentFile::TimeIndex, &self.time_index)]
        {
            let file = disk.open(&cleaned_file(dir, kind, base_offset), OpenMode::Write)?;
            disk.truncate(&file, 0)?;
            disk.write_at(&file, 0, &[IoSlice::new(entries)])?;
            disk.sync(&file).map_err(Stop::Sync)?;
        }
        disk.sync_dir(dir).map_err(Stop::Sync)?;
        Ok(SegmentMeta { end_offset, created, ..self.segment.meta() })
    }

    /// Removes it.
    pub fn discard(self, disk: &D) -> Result<(), Stop> {
        Ok(disk.remove_file(&cleaned_file(
            &self.dir,
            SegmentFile::Log,
            self.segment.base_offset,
        ))?)
    }
}
