//! Reading a segment's log and indexes back: from the last index entry that can be trusted, batch by
//! batch, every CRC checked, until something does not verify.

use std::io;
use std::path::Path;

use crate::format::record_batch::{BatchHeader, HEADER_BYTES, StoredBatch};
use crate::format::segment_index::{
    OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES, TimeEntry, offset_entries, offset_index_is_sound,
    time_entries, time_index_is_sound,
};
use crate::model::{Offset, TimestampMs};
use crate::store::disk::{Disk, OpenMode};
use crate::store::paths::{SegmentFile, segment_file};
use crate::store::segment::Segment;

/// How much of a log is read at once.
const WINDOW_BYTES: u64 = 256 << 10;

/// How much of an index's end is read at first: entries for tens of megabytes of log.
const INDEX_TAIL_BYTES: u64 = 48 << 10;

const _: () = assert!(
    INDEX_TAIL_BYTES.is_multiple_of(OFFSET_ENTRY_BYTES as u64)
        && INDEX_TAIL_BYTES.is_multiple_of(TIME_ENTRY_BYTES as u64)
);

/// A segment's files, as listed.
#[derive(Clone, Copy, Debug)]
pub struct Listed {
    /// Names them.
    pub base_offset: Offset,
    /// Size of the log.
    pub bytes: u64,
    /// Size of the offset index; `None` when there is none.
    pub index_bytes: Option<u64>,
    /// Size of the time index; `None` when there is none.
    pub time_index_bytes: Option<u64>,
}

/// A segment that was read.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// Its state behind `skipped` batches: in front of the first of `kept`.
    pub start: Segment,
    /// Index entries of skipped batches that were read again, behind the trusted ones.
    pub index: Vec<u8>,
    /// Likewise of the time index.
    pub time_index: Vec<u8>,
    /// Trusted bytes of the offset index, in front of `index`.
    pub trusted_index_bytes: u64,
    /// Likewise of the time index.
    pub trusted_time_index_bytes: u64,
    /// The batches that end behind `keep_from`.
    pub kept: Vec<BatchHeader>,
    /// The offset behind the last batch that verifies.
    pub end_offset: Offset,
    /// Where in the log it ends.
    pub end_position: u64,
    /// Why it ends there, if the file goes on.
    pub stop: Option<String>,
    /// What does not verify there was the head of a batch without records, in which a cut was being made.
    pub ends_in_emptiness: bool,
}

/// What to read of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Batches that end at or below this were verified when they were written and synced.
    pub trust_below: Offset,
    /// The headers of batches that end behind are wanted.
    pub keep_from: Offset,
    /// Below it, compaction may have taken offsets out.
    pub holes_end: Offset,
}

/// Reads a segment. `observe` sees every batch that is read, in order.
pub fn scan<D: Disk>(
    disk: &D,
    dir: &Path,
    listed: &Listed,
    wanted: Wanted,
    mut observe: impl FnMut(&BatchHeader),
) -> io::Result<Scanned> {
    let log =
        disk.open(&segment_file(dir, SegmentFile::Log, listed.base_offset), OpenMode::Read)?;
    let trust = Offset(wanted.trust_below.0.min(wanted.keep_from.0));
    let resumed = resume(disk, dir, &log, listed, trust)?;
    let start = match &resumed {
        Some((start, batch)) => {
            observe(batch);
            *start
        }
        None => Segment::new(listed.base_offset, TimestampMs::NONE),
    };
    let mut found = Scanned {
        start,
        index: Vec::new(),
        time_index: Vec::new(),
        trusted_index_bytes: start.index_bytes,
        trusted_time_index_bytes: start.time_index_bytes,
        kept: Vec::new(),
        end_offset: start.end_offset,
        end_position: start.bytes,
        stop: None,
        ends_in_emptiness: false,
    };
    let mut reader = Reader { disk, file: &log, bytes: listed.bytes, window: Vec::new(), at: 0 };
    while found.end_position < listed.bytes {
        let header = match reader.batch(found.end_position)? {
            Ok(header) if header.base_offset == found.end_offset => header,
            Ok(header)
                if header.base_offset > found.end_offset
                    && header.base_offset <= wanted.holes_end =>
            {
                header
            }
            Ok(header) => {
                found.stop = Some(format!(
                    "offset {} where {} was due",
                    header.base_offset, found.end_offset
                ));
                break;
            }
            Err(reason) => {
                found.ends_in_emptiness =
                    reader.is_empty_head(found.end_position, found.end_offset)?;
                found.stop = Some(reason);
                break;
            }
        };
        observe(&header);
        if header.end_offset() <= wanted.keep_from && found.kept.is_empty() {
            found.start.skip_to(header.base_offset);
            let due = found.start.push(&header, TimestampMs::NONE);
            found.index.extend(due.offset.iter().flat_map(|entry| entry.encode()));
            found.time_index.extend(due.time.iter().flat_map(|entry| entry.encode()));
        } else {
            found.kept.push(header);
        }
        found.end_offset = header.end_offset();
        found.end_position += header.total_bytes as u64;
    }
    Ok(found)
}

/// The state at the last index entry below `trust`, if the indexes agree with the log there.
fn resume<D: Disk>(
    disk: &D,
    dir: &Path,
    log: &D::File,
    listed: &Listed,
    trust: Offset,
) -> io::Result<Option<(Segment, BatchHeader)>> {
    let base = listed.base_offset;
    let (Some(index_bytes), Some(time_index_bytes)) = (listed.index_bytes, listed.time_index_bytes)
    else {
        return Ok(None);
    };
    let open = |kind| disk.open(&segment_file(dir, kind, base), OpenMode::Read);
    let index_file = open(SegmentFile::Index)?;
    let below = |relative: u32| base.plus(i64::from(relative) + 1) <= trust;
    let mut entry = None;
    let mut index_end = 0;
    for piece in tails(disk, &index_file, index_bytes, OFFSET_ENTRY_BYTES) {
        let (from, index) = piece?;
        // Behind the trusted part may be anything; zeroes are an entry that a crash has lost, since
        // no segment indexes its first batch.
        let count = offset_entries(&index)
            .take_while(|entry| entry.position > 0 && below(entry.relative_offset))
            .count();
        let trusted = &index[..count * OFFSET_ENTRY_BYTES];
        if !offset_index_is_sound(trusted, listed.bytes) {
            return Ok(None);
        }
        if let Some(last) = offset_entries(trusted).next_back() {
            entry = Some(last);
            index_end = from + trusted.len() as u64;
            break;
        }
    }
    let Some(entry) = entry else { return Ok(None) };
    let time_file = open(SegmentFile::TimeIndex)?;
    let lost = TimeEntry { timestamp: TimestampMs(0), relative_offset: 0 };
    let mut time = None;
    let mut time_end = 0;
    for piece in tails(disk, &time_file, time_index_bytes, TIME_ENTRY_BYTES) {
        let (from, index) = piece?;
        let count = time_entries(&index)
            .take_while(|time| time.relative_offset <= entry.relative_offset && *time != lost)
            .count();
        let trusted = &index[..count * TIME_ENTRY_BYTES];
        if !time_index_is_sound(trusted, i64::from(entry.relative_offset) + 1) {
            return Ok(None);
        }
        if let Some(last) = time_entries(trusted).next_back() {
            time = Some(last);
            time_end = from + trusted.len() as u64;
            break;
        }
    }
    let mut reader = Reader { disk, file: log, bytes: listed.bytes, window: Vec::new(), at: 0 };
    match reader.batch(u64::from(entry.position))? {
        Ok(batch) if batch.last_offset() == base.plus(i64::from(entry.relative_offset)) => {
            // Every time but "none" is indexed with the first offset entry at the latest.
            if time.is_none() && batch.newest_record() > TimestampMs::NONE {
                return Ok(None);
            }
            let state = Segment::resume(base, &batch, entry, time, index_end, time_end);
            Ok(Some((state, batch)))
        }
        _ => Ok(None),
    }
}

/// The end of an index, then, if asked on, all of it; each with the position where it begins.
fn tails<'a, D: Disk>(
    disk: &'a D,
    file: &'a D::File,
    bytes: u64,
    entry_bytes: usize,
) -> impl Iterator<Item = io::Result<(u64, Vec<u8>)>> + 'a {
    let whole = bytes - bytes % entry_bytes as u64;
    let tail = whole.saturating_sub(INDEX_TAIL_BYTES);
    let all = (tail > 0).then_some(0);
    [Some(tail), all].into_iter().flatten().map(move |start| {
        let mut piece = vec![0; (whole - start) as usize];
        let read = disk.read_at(file, start, &mut piece)?;
        piece.truncate(read);
        Ok((start, piece))
    })
}

/// Reads batches through a window.
struct Reader<'a, D: Disk> {
    disk: &'a D,
    file: &'a D::File,
    bytes: u64,
    window: Vec<u8>,
    at: u64,
}

impl<D: Disk> Reader<'_, D> {
    /// The batch at `position`, or why there is none. The CRC is checked.
    fn batch(&mut self, position: u64) -> io::Result<Result<BatchHeader, String>> {
        let rest = self.bytes.saturating_sub(position);
        if rest < HEADER_BYTES as u64 {
            return Ok(Err(format!("{rest} bytes are no batch")));
        }
        let head = self.piece(position, HEADER_BYTES as u64)?;
        let header = match BatchHeader::parse(head) {
            Ok(header) if header.total_bytes as u64 <= rest => header,
            Ok(header) => {
                return Ok(Err(format!("a batch of {} bytes in {rest}", header.total_bytes)));
            }
            Err(error) => return Ok(Err(error.to_string())),
        };
        let batch = self.piece(position, header.total_bytes as u64)?;
        let batch = bytes::Bytes::copy_from_slice(batch);
        Ok(StoredBatch::from_log(batch)
            .map(|batch| batch.header)
            .map_err(|error| error.to_string()))
    }

    /// Whether what lies at `position` looks like the head of a batch without records at `due`. The CRC is not checked.
    fn is_empty_head(&mut self, position: u64, due: Offset) -> io::Result<bool> {
        if self.bytes.saturating_sub(position) < HEADER_BYTES as u64 {
            return Ok(false);
        }
        let head = self.piece(position, HEADER_BYTES as u64)?;
        Ok(BatchHeader::parse(head).is_ok_and(|header| {
            let is_empty = header.record_count == 0 && header.total_bytes == HEADER_BYTES;
            is_empty && header.base_offset == due
        }))
    }

    /// `count` bytes at `position`; they are within the file as it was listed.
    fn piece(&mut self, position: u64, count: u64) -> io::Result<&[u8]> {
        let end = self.at + self.window.len() as u64;
        if position < self.at || position + count > end {
            let wanted = count.max(WINDOW_BYTES).min(self.bytes - position);
            self.window.resize(wanted as usize, 0);
            self.at = position;
            let read = self.disk.read_at(self.file, position, &mut self.window)?;
            if (read as u64) < count {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.window.truncate(read);
        }
        let from = (position - self.at) as usize;
        Ok(&self.window[from..from + count as usize])
    }
}

/// A sealed segment below everything in doubt, from its size and the ends of its indexes alone.
/// `None`: the indexes are not whole.
pub fn sealed_max_timestamp<D: Disk>(
    disk: &D,
    dir: &Path,
    listed: &Listed,
    end_offset: Offset,
) -> io::Result<Option<TimestampMs>> {
    let (Some(index_bytes), Some(time_index_bytes)) = (listed.index_bytes, listed.time_index_bytes)
    else {
        return Ok(None);
    };
    let whole = index_bytes.is_multiple_of(OFFSET_ENTRY_BYTES as u64)
        && time_index_bytes.is_multiple_of(TIME_ENTRY_BYTES as u64);
    if !whole {
        return Ok(None);
    }
    let last = |kind, bytes: u64, entry: usize| -> io::Result<Vec<u8>> {
        let mut last = vec![0; entry.min(bytes as usize)];
        if !last.is_empty() {
            let path = segment_file(dir, kind, listed.base_offset);
            let file = disk.open(&path, OpenMode::Read)?;
            disk.read_at(&file, bytes - last.len() as u64, &mut last)?;
        }
        Ok(last)
    };
    let offsets = last(SegmentFile::Index, index_bytes, OFFSET_ENTRY_BYTES)?;
    let times = last(SegmentFile::TimeIndex, time_index_bytes, TIME_ENTRY_BYTES)?;
    let span = end_offset.since(listed.base_offset);
    let sound = offset_index_is_sound(&offsets, listed.bytes)
        && offset_entries(&offsets).all(|entry| i64::from(entry.relative_offset) < span)
        && time_index_is_sound(&times, span);
    let last = time_entries(&times).next_back();
    Ok(sound.then(|| last.map_or(TimestampMs::NONE, |entry| entry.timestamp)))
}

/// The largest timestamp of a segment's first batch, as far as it can be read.
pub fn first_timestamp<D: Disk>(disk: &D, dir: &Path, base: Offset) -> io::Result<TimestampMs> {
    let log = disk.open(&segment_file(dir, SegmentFile::Log, base), OpenMode::Read)?;
    let mut head = [0; HEADER_BYTES];
    let read = disk.read_at(&log, 0, &mut head)?;
    let header = BatchHeader::parse(&head[..read]);
    Ok(header.map_or(TimestampMs::NONE, |header| header.max_timestamp))
}
