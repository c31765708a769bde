//! Cutting a partition's segments where a leader has parted from them.
//!
//! The WAL says durably where the cut is before it is made, so a crash in the middle leaves what
//! recovery cuts again. Idempotent producers are counted anew up to the cut, from the last snapshot before it, which
//! has one batch of each as Kafka's do: where a producer stands is known again, even if all that was
//! remembered of it is cut.

use std::io::{self, IoSlice};
use std::path::Path;

use super::compaction::write_checkpoint;
use super::disk::{Disk, OpenMode, is_no_space, read_file};
use super::open_files::OpenFiles;
use super::partition_log::PartitionLog;
use super::paths::{SegmentFile, segment_file};
use super::producers::ProducerTable;
use super::segment::Segment;
use crate::format::cleaner_checkpoint::{CleanerCheckpoint, FILE_NAME};
use crate::format::record_batch::{BatchHeader, HEADER_BYTES, StoredBatch};
use crate::format::{compacted_batch, producer_snapshot};
use crate::machine::effect::SegmentMeta;
use crate::model::{LeaderEpoch, Offset};

impl PartitionLog {
    /// Makes `end` the end of the segments. It has to be a border between batches.
    ///
    /// # Errors
    /// The disk's, or that there is no border. The partition cannot be used then.
    pub(super) fn truncate<D: Disk>(
        &mut self,
        disk: &D,
        files: &mut OpenFiles<D>,
        end: Offset,
    ) -> io::Result<()> {
        if self.end_offset().is_none_or(|found| found <= end) {
            return Ok(());
        }
        files.close(self.key, None);
        let metas: Vec<SegmentMeta> = self.view().iter().copied().collect();
        let mut sealed: Vec<SegmentMeta> =
            metas.iter().copied().filter(|segment| segment.end_offset <= end).collect();
        // While all of the log can still be read.
        let producers = producers_at(disk, &self.dir, &metas, end)?;
        let cut = metas.iter().find(|s| s.base_offset < end && s.end_offset > end);
        let active = match cut {
            Some(segment) => Some(cut_segment(disk, &self.dir, segment, end, &self.epochs)?),
            None => {
                // An empty segment may be the one that holds the log's end.
                let empty =
                    self.active.filter(|active| active.bytes == 0 && active.end_offset <= end);
                sealed.retain(|segment| empty.is_none_or(|e| e.base_offset != segment.base_offset));
                empty
            }
        };
        let first = metas.first().map_or(end, |segment| segment.base_offset);
        if first > end {
            return Err(io::Error::other(format!("cut at {end}, the log begins at {first}")));
        }
        self.producers = producers;
        self.sealed = sealed.into();
        self.active = active;
        self.cut_back(disk, files)?;
        self.was_cut(end);
        let kept = self.epochs.partition_point(|(_, start)| *start < end);
        self.epochs_changed |= kept < self.epochs.len();
        self.epochs.truncate(kept);
        self.cut_cleaner(disk, end)
    }

    /// What was compacted behind a cut is gone, and what comes there is not. The next compaction says so on a disk that
    /// has no room now.
    fn cut_cleaner<D: Disk>(&mut self, disk: &D, end: Offset) -> io::Result<()> {
        let cleaner = self.cleaner.cut(end);
        if cleaner == self.cleaner {
            return Ok(());
        }
        self.cleaner = cleaner;
        let result = match cleaner == CleanerCheckpoint::default() {
            true => disk.remove_file(&self.dir.join(FILE_NAME)),
            false => write_checkpoint(disk, &self.dir, cleaner),
        };
        match result {
            Err(error) if !is_no_space(&error) && error.kind() != io::ErrorKind::NotFound => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Removes all segments: the log begins anew with the next batch.
    ///
    /// # Errors
    /// The disk's. The partition cannot be used then.
    pub(super) fn clear<D: Disk>(&mut self, disk: &D, files: &mut OpenFiles<D>) -> io::Result<()> {
        files.close(self.key, None);
        self.sealed = [].into();
        self.active = None;
        self.producers = ProducerTable::default();
        self.epochs.clear();
        self.epochs_changed = true;
        self.log_start_offset = Offset::ZERO;
        self.cut_back(disk, files)?;
        self.was_cut(Offset::ZERO);
        self.cut_cleaner(disk, Offset::ZERO)
    }
}

/// The segment up to `end`, with as much of its indexes as speaks of that.
fn cut_segment<D: Disk>(
    disk: &D,
    dir: &Path,
    meta: &SegmentMeta,
    end: Offset,
    epochs: &[(LeaderEpoch, Offset)],
) -> io::Result<Segment> {
    let mut segment = Segment::new(meta.base_offset, meta.created);
    let (mut index, mut time_index) = (Vec::new(), Vec::new());
    let cross = for_each_header(disk, dir, meta, end, |header| {
        segment.skip_to(header.base_offset.max(segment.end_offset));
        let due = segment.push(header, meta.created);
        index.extend(due.offset.iter().flat_map(|entry| entry.encode()));
        time_index.extend(due.time.iter().flat_map(|entry| entry.encode()));
    })?;
    let kept_end = segment.end_offset;
    if kept_end < end && cross != Cross::Records {
        // The cut lies where compaction has left nothing: the log says so up to there, so that its end can be found again. In
        // the place of a batch that says so up to another offset, and never without either: a crash leaves one of them,
        // or what cannot be taken for anything else.
        let filler = match cross {
            Cross::Emptiness(header) => compacted_batch::shortened(&header, end),
            _ => compacted_batch::filler(kept_end, end, epoch_at(epochs, kept_end)),
        };
        write_filler(disk, dir, meta.base_offset, segment.bytes, &filler)?;
        segment.skip_to(filler.header.base_offset);
        let due = segment.push(&filler.header, meta.created);
        index.extend(due.offset.iter().flat_map(|entry| entry.encode()));
        time_index.extend(due.time.iter().flat_map(|entry| entry.encode()));
    } else if kept_end != end {
        return Err(io::Error::other(format!("cut at {end}, a batch reaches from {kept_end} on")));
    }
    // The caller cuts the files to the lengths given here. Nothing is written: a cut must succeed on a full disk and needs no sync
    // of its own, and entries that are not there cost time only.
    let begins_with = |kind, entries: &[u8]| {
        let content = read_file(disk, &segment_file(dir, kind, meta.base_offset));
        content.is_ok_and(|content| content.starts_with(entries))
    };
    if !begins_with(SegmentFile::Index, &index) || !begins_with(SegmentFile::TimeIndex, &time_index)
    {
        segment.forget_entries();
    }
    Ok(segment)
}

/// Writes a batch without records at `position` of a segment's log.
pub(super) fn write_filler<D: Disk>(
    disk: &D,
    dir: &Path,
    base_offset: Offset,
    position: u64,
    filler: &StoredBatch,
) -> io::Result<()> {
    let path = segment_file(dir, SegmentFile::Log, base_offset);
    let file = disk.open(&path, OpenMode::Write)?;
    disk.write_at(&file, position, &[IoSlice::new(&filler.to_log())])
}

/// The leader epoch of an offset: that of the last one that begins at or below.
pub(super) fn epoch_at(epochs: &[(LeaderEpoch, Offset)], offset: Offset) -> LeaderEpoch {
    let later = epochs.partition_point(|(_, start)| *start <= offset);
    epochs.get(later.saturating_sub(1)).map_or(LeaderEpoch(0), |(epoch, _)| *epoch)
}

/// The border between batches at `offset` or next behind it.
pub(super) fn border_from<D: Disk>(
    disk: &D,
    log: &PartitionLog,
    offset: Offset,
) -> io::Result<Offset> {
    let view = log.view();
    let holds = |s: &&SegmentMeta| s.base_offset < offset && s.end_offset > offset;
    let Some(segment) = view.iter().find(holds) else { return Ok(offset) };
    let mut border = offset;
    for_each_header(disk, &log.dir, segment, segment.end_offset, |header| {
        if header.base_offset < offset && header.end_offset() > offset {
            border = header.end_offset();
        }
    })?;
    Ok(border)
}

/// What lies across a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cross {
    /// Nothing: the next batch begins there or behind, or there is none.
    Nothing,
    /// A batch without records.
    Emptiness(BatchHeader),
    /// Records, as far as its header tells.
    Records,
}

/// Calls for every batch of a segment that ends at or below `end`; says what lies across that.
fn for_each_header<D: Disk>(
    disk: &D,
    dir: &Path,
    meta: &SegmentMeta,
    end: Offset,
    mut act: impl FnMut(&BatchHeader),
) -> io::Result<Cross> {
    let path = segment_file(dir, SegmentFile::Log, meta.base_offset);
    let file = disk.open(&path, OpenMode::Read)?;
    let mut position = 0;
    let mut head = [0; HEADER_BYTES];
    while position < meta.bytes {
        let read = disk.read_at(&file, position, &mut head)?;
        let header = BatchHeader::parse(&head[..read]).map_err(io::Error::other)?;
        if header.end_offset() > end {
            return Ok(match header.is_empty_across(end) {
                _ if header.base_offset >= end => Cross::Nothing,
                true => Cross::Emptiness(header),
                false => Cross::Records,
            });
        }
        act(&header);
        position += header.total_bytes as u64;
    }
    Ok(Cross::Nothing)
}

/// Who wrote what lies below `end`: the newest snapshot before it, and what follows it.
fn producers_at<D: Disk>(
    disk: &D,
    dir: &Path,
    segments: &[SegmentMeta],
    end: Offset,
) -> io::Result<ProducerTable> {
    let before: Vec<&SegmentMeta> = segments.iter().filter(|s| s.base_offset < end).collect();
    let mut table = ProducerTable::default();
    let mut from = 0;
    for (place, segment) in before.iter().enumerate().rev() {
        let path = segment_file(dir, SegmentFile::Snapshot, segment.base_offset);
        if let Ok(content) = read_file(disk, &path)
            && let Ok(producers) = producer_snapshot::decode(&content)
        {
            table = ProducerTable::from_checkpoint(&producers);
            from = place;
            break;
        }
    }
    for segment in &before[from..] {
        for_each_header(disk, dir, segment, end, |header| table.observe(header))?;
    }
    Ok(table)
}
