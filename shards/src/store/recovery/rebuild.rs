//! Making a partition's files what an inspection decided.
//!
//! Every step leaves files from which another inspection decides the same.

use std::collections::BTreeSet;
use std::io::{self, IoSlice};
use std::path::Path;

use super::partition::{Inspection, Subject};
use super::replay::Overlay;
use super::scan::{self, Listed, Scanned};
use crate::format::cleaner_checkpoint::{self, CleanerCheckpoint};
use crate::format::compacted_batch;
use crate::format::positions::PartitionCheckpoint;
use crate::format::record_batch::{BatchHeader, StoredBatch};
use crate::model::{LeaderEpoch, Offset, TimestampMs};
use crate::store::compaction::write_checkpoint;
use crate::store::disk::{Disk, OpenMode, replace_file};
use crate::store::open_files::OpenFiles;
use crate::store::partition_log::{PartitionLog, create_dir};
use crate::store::paths::{self, Aside, CLEANED_SUFFIX, SegmentFile, segment_file};
use crate::store::segment::Segment;
use crate::store::truncate::{border_from, epoch_at, write_filler};
use crate::store::{owner, put_aside};

/// Files that one partition's recovery keeps open.
pub const OPEN_FILES_MAX: usize = 8;

/// Makes the files what was decided, and returns the partition as it is then.
pub fn apply<D: Disk>(
    disk: &D,
    data: &Path,
    mut inspection: Inspection,
    now: TimestampMs,
    report: &mut Vec<String>,
) -> io::Result<(PartitionLog, PartitionCheckpoint)> {
    place(disk, data, &mut inspection.subject)?;
    let Inspection { subject, names, sealed, scanned, keep_end, restart, append_from, .. } =
        inspection;
    let (mut history, cleaner) = (inspection.history, inspection.cleaner);
    let checkpointed_end = subject.checkpointed_end();
    let Subject { key, topic_name, config, dir, checkpoint, overlay, .. } = subject;
    let label = dir.file_name().and_then(|name| name.to_str()).unwrap_or("?").to_owned();
    let mut log = PartitionLog::new(key, topic_name, dir.clone(), config);

    let mut metas = sealed;
    metas.retain(|sealed| sealed.end_offset <= keep_end);
    let retained: Vec<_> =
        scanned.iter().filter(|(listed, _)| listed.base_offset <= keep_end).collect();
    history.cut(keep_end);
    let last_sealed = metas.last().map(|sealed| sealed.base_offset);
    let last = retained.last().map(|(listed, _)| listed.base_offset).max(last_sealed);
    for (listed, scanned) in retained {
        let is_last = Some(listed.base_offset) == last;
        let kept = scanned.kept.iter().take_while(|header| header.end_offset() <= keep_end);
        let filler = is_last.then(|| filler_behind(scanned, keep_end, &history.epochs)).flatten();
        if let Some((position, filler)) = &filler {
            write_filler(disk, &dir, listed.base_offset, *position, filler)?;
        }
        let kept = kept.chain(filler.as_ref().map(|(_, filler)| &filler.header));
        kept.clone().for_each(|header| history.observe(header));
        let mut segment =
            write_segment(disk, &dir, listed, scanned, kept, is_last, &label, report)?;
        if !is_last {
            // Compaction may have left nothing at its end.
            segment.skip_to(scanned.end_offset);
        }
        if is_last {
            let first = scan::first_timestamp(disk, &dir, listed.base_offset)?;
            let known = first > TimestampMs::NONE && first < now;
            segment.created = if known { first } else { now };
            log.active = Some(segment);
        } else {
            segment.created = segment.meta().max_timestamp;
            metas.push(segment.meta());
        }
    }
    metas.sort_by_key(|sealed| sealed.base_offset);
    log.sealed = metas.into();
    // What was read was in doubt: a process that was killed leaves it in the page cache.
    log.mark_unsynced(scanned.iter().map(|(listed, _)| listed.base_offset));
    remove_void(disk, &log, &names, restart, keep_end)?;
    log.producers = history.producers;
    log.epochs = history.epochs;
    log.checkpointed_end = checkpointed_end.unwrap_or_default();
    // The file follows the checkpoint's epochs, so it is as old as they are.
    log.epochs_changed = checkpoint.as_ref().is_none_or(|known| known.epochs != log.epochs);

    let mut files = OpenFiles::new(OPEN_FILES_MAX);
    log.cleaner = if restart { CleanerCheckpoint::default() } else { cleaner.cut(keep_end) };
    if log.cleaner != cleaner && !restart {
        write_checkpoint(disk, &dir, log.cleaner)?;
    }
    let rest = &overlay.batches[append_from..];
    if !rest.is_empty() {
        let bytes: usize = rest.iter().map(|batch| batch.total_bytes()).sum();
        report.push(format!("{label}: {} batches, {bytes} bytes from the WAL", rest.len()));
        log.append(disk, &mut files, rest, now)?;
    }
    let end = log.end_offset().unwrap_or(keep_end);
    let log_start = inspection.log_start.min(end);
    log.delete_below(disk, &mut files, log_start)?;
    log.write_epochs(disk)?;
    let mut state = state(&log, checkpoint, &overlay, log_start, end);
    // The log start never passes the high watermark, and that lies between batches.
    if state.high_watermark == log_start {
        state.high_watermark = border_from(disk, &log, log_start)?;
    }
    Ok((log, state))
}

/// What says that nothing is between the last batch that is kept and the log's end, where that was cut in a hole, and its
/// place. As a cut makes it while the partition is in use: in the place of one that says so up to another offset.
fn filler_behind(
    scanned: &Scanned,
    keep_end: Offset,
    epochs: &[(LeaderEpoch, Offset)],
) -> Option<(u64, StoredBatch)> {
    let (mut position, mut end) = (scanned.start.bytes, scanned.start.end_offset);
    for header in &scanned.kept {
        if header.end_offset() > keep_end {
            if header.is_empty_across(keep_end) {
                return Some((position, compacted_batch::shortened(header, keep_end)));
            }
            break;
        }
        position += header.total_bytes as u64;
        end = header.end_offset();
    }
    let filler = || compacted_batch::filler(end, keep_end, epoch_at(epochs, end));
    (end < keep_end).then(|| (position, filler()))
}

fn state(
    log: &PartitionLog,
    checkpoint: Option<PartitionCheckpoint>,
    overlay: &Overlay,
    log_start: Offset,
    end: Offset,
) -> PartitionCheckpoint {
    let own = checkpoint.as_ref().map(|checkpoint| checkpoint.leader_epoch);
    let last = log.epochs.last().map(|(epoch, _)| *epoch);
    let high_watermark = checkpoint.map_or(log_start, |checkpoint| checkpoint.high_watermark);
    let high_watermark = overlay.lowest_cut.map_or(high_watermark, |cut| cut.min(high_watermark));
    PartitionCheckpoint {
        key: log.key,
        log_start_offset: log_start,
        high_watermark: high_watermark.clamp(log_start, end),
        flushed_end: end,
        leader_epoch: own.max(overlay.leader_epoch).max(last).unwrap_or_default(),
        epochs: log.epochs.clone(),
        producers: log.producers.to_checkpoint(),
    }
}

/// Gives the partition its directory under its plain name.
fn place<D: Disk>(disk: &D, data: &Path, subject: &mut Subject) -> io::Result<()> {
    let key = subject.key;
    if !subject.known {
        if !subject.found {
            let temporary = Aside::New.path(data, &subject.topic_name, key);
            create_dir(disk, &temporary, &subject.dir, key)?;
        }
        return Ok(());
    }
    let plain = paths::partition_dir(data, &subject.topic_name, key.partition);
    if subject.found && subject.dir == plain {
        return Ok(());
    }
    let other = owner(disk, &plain)?;
    put_aside(disk, data, &subject.topic_name, key.partition, other)?;
    if subject.found {
        disk.rename(&subject.dir, &plain)?;
        disk.sync_dir(&paths::topics_dir(data))?;
    } else {
        let temporary = Aside::New.path(data, &subject.topic_name, key);
        create_dir(disk, &temporary, &plain, key)?;
    }
    subject.dir = plain;
    Ok(())
}

/// Cuts the log behind `kept` and completes the indexes. Returns the segment's state.
#[expect(clippy::too_many_arguments, reason = "one caller; a struct would only rename them")]
fn write_segment<'a, D: Disk>(
    disk: &D,
    dir: &Path,
    listed: &Listed,
    scanned: &Scanned,
    kept: impl Iterator<Item = &'a BatchHeader>,
    is_last: bool,
    label: &str,
    report: &mut Vec<String>,
) -> io::Result<Segment> {
    let mut segment = scanned.start;
    let (mut index, mut time_index) = (scanned.index.clone(), scanned.time_index.clone());
    for header in kept {
        segment.skip_to(header.base_offset);
        let due = segment.push(header, TimestampMs::NONE);
        index.extend(due.offset.iter().flat_map(|entry| entry.encode()));
        time_index.extend(due.time.iter().flat_map(|entry| entry.encode()));
    }
    if !is_last {
        time_index.extend(segment.seal().iter().flat_map(|entry| entry.encode()));
    }
    let base = listed.base_offset;
    if listed.bytes > segment.bytes {
        let path = segment_file(dir, SegmentFile::Log, base);
        disk.truncate(&disk.open(&path, OpenMode::Write)?, segment.bytes)?;
        let cut = listed.bytes - segment.bytes;
        report.push(format!("{label}: {cut} bytes cut behind offset {}", segment.end_offset));
    }
    let mut rebuilt = false;
    for (kind, size, trusted, entries) in [
        (SegmentFile::Index, listed.index_bytes, scanned.trusted_index_bytes, &index),
        (
            SegmentFile::TimeIndex,
            listed.time_index_bytes,
            scanned.trusted_time_index_bytes,
            &time_index,
        ),
    ] {
        let path = segment_file(dir, kind, base);
        rebuilt |= write_index(disk, &path, size, trusted, entries)?;
    }
    if rebuilt {
        report.push(format!("{label}: indexes of segment {base} rebuilt"));
    }
    Ok(segment)
}

/// Makes an index its trusted part and `entries`; says whether it had to be made anew.
fn write_index<D: Disk>(
    disk: &D,
    path: &Path,
    size: Option<u64>,
    trusted: u64,
    entries: &[u8],
) -> io::Result<bool> {
    let end = trusted + entries.len() as u64;
    if size == Some(end) && entries.is_empty() {
        return Ok(false);
    }
    if let Some(size) = size {
        let file = disk.open(path, OpenMode::Write)?;
        let mut found = vec![0; entries.len()];
        let read = disk.read_at(&file, trusted, &mut found)?;
        if read == entries.len() && found == entries {
            if size > end {
                disk.truncate(&file, end)?;
            }
            return Ok(false);
        }
        if trusted > 0 {
            disk.truncate(&file, trusted)?;
            disk.write_at(&file, trusted, &[IoSlice::new(entries)])?;
            return Ok(false);
        }
    }
    // At once or not at all: were it torn in a crash, its beginning would be trusted next time.
    replace_file(disk, path, entries)?;
    Ok(true)
}

/// Removes the files of segments that are not kept, and snapshots that belong to none. The one at the
/// log's end is what an orderly stop left.
fn remove_void<D: Disk>(
    disk: &D,
    log: &PartitionLog,
    names: &[String],
    restart: bool,
    end: Offset,
) -> io::Result<()> {
    let view = log.view();
    let bases: BTreeSet<Offset> = view.iter().map(|segment| segment.base_offset).collect();
    for name in names {
        let void = match SegmentFile::parse(name) {
            Some((SegmentFile::Snapshot, at)) => restart || at != end && !bases.contains(&at),
            Some((_, base)) => restart || !bases.contains(&base),
            None if name == cleaner_checkpoint::FILE_NAME => restart,
            None => {
                name == cleaner_checkpoint::SWAP_FILE_NAME
                    || name.ends_with(".tmp")
                    || name.ends_with(CLEANED_SUFFIX)
            }
        };
        if !void {
            continue;
        }
        match disk.remove_file(&log.dir.join(name)) {
            // A temporary file may have become what it was meant for.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
