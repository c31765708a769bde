//! Reads segments for fetches and for look-ups by time.
//!
//! Finds the segment in the partition's [`LogView`], a position at or before the offset wanted, and
//! from there the batch; returns the bytes of whole batches as they lie in the file. A reader that
//! goes on where it ended finds its position remembered and needs no index. Headers are checked for
//! sense and for belonging where they are; CRCs of what is only passed on are the client's to check.
//!
//! What is read ahead is bounded by the fetch: no more than its bytes, or one batch. Nothing is read
//! beyond the bytes that the view calls valid, whatever the file holds.
//!
//! Damage is an error of the one partition. A segment that vanished is [`ReadError::Gone`]: the
//! caller looks at the partition anew.

pub mod files;
pub mod timestamps;

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use glommio::TaskQueueHandle;
use glommio::io::BufferedFile;

use self::files::{ReadCounts, SegmentFiles};
use super::lru::Lru;
use crate::format::record_batch::{BatchHeader, Batches};
use crate::format::segment_index::{INDEX_INTERVAL_BYTES, position_for_offset};
use crate::machine::effect::{LogView, SegmentMeta};
use crate::model::{Offset, ReplicaKey};
use crate::store::paths::SegmentFile;

/// Read at least so much while looking for a batch.
const WINDOW_BYTES_MIN: usize = 16 << 10;

/// Read at most so much at once, a single larger batch excepted.
const WINDOW_BYTES_MAX: usize = 4 << 20;

/// Positions remembered, one for each reader that goes on.
const POSITIONS_MAX: usize = 8192;

/// A cached index is read anew when its log has grown by more than this.
const INDEX_STALE_BYTES: u64 = 64 << 10;

/// Bounds of a reader.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReaderLimits {
    /// Log files kept open.
    pub open_files_max: usize,
    /// Bytes of indexes kept in memory.
    pub index_cache_bytes: usize,
}

/// A partition as the reader needs it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// Identity.
    pub key: ReplicaKey,
    /// Where its files are.
    pub directory: &'a Path,
    /// Its segments when the read was decided.
    pub view: &'a LogView,
    /// Whether the shard still has the partition, with the segments of `view` in the files of their names.
    pub is_current: &'a dyn Fn() -> bool,
    /// Whom it is read for.
    pub whom: ReadFor<'a>,
}

/// Whom segments are read for. Each kind has a line of its own for the disk.
#[derive(Clone, Copy)]
pub enum ReadFor<'a> {
    /// Consumers. Producers come first: after a read of the disk the next one waits, in percent of what it took, for as long as
    /// this says.
    Clients(&'a dyn Fn() -> u32),
    /// A replica that catches up, or a coordinator that loads: the sooner they are done, the better for producers.
    Node,
}

/// Which records.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// First offset wanted.
    pub offset: Offset,
    /// First offset not wanted.
    pub end: Offset,
    /// Bound on the bytes; the first batch is whole whatever its size.
    pub max_bytes: usize,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The segments have changed, or the partition is gone: look again.
    #[error("the segment is gone")]
    Gone,
    /// What is there makes no sense.
    #[error("segment {base} is damaged at byte {position}: {detail}")]
    Damaged {
        /// The segment.
        base: Offset,
        /// Where.
        position: u64,
        /// What.
        detail: String,
    },
    /// The system could not read.
    #[error("segment {base} cannot be read: {error}")]
    Io {
        /// The segment.
        base: Offset,
        /// Why.
        error: io::Error,
    },
}

#[derive(Clone, Copy, Debug)]
struct Position {
    base: Offset,
    generation: u32,
    position: u64,
}

#[derive(Debug)]
struct CachedIndex {
    bytes: Rc<[u8]>,
    log_bytes: u64,
}

/// The reader of one shard.
#[derive(Debug)]
pub struct LogReader {
    files: SegmentFiles,
    /// By partition and next offset.
    positions: RefCell<Lru<(ReplicaKey, Offset), Position>>,
    indexes: RefCell<Lru<(ReplicaKey, Offset, SegmentFile, u32), CachedIndex>>,
}

impl LogReader {
    /// A reader whose disk reads run in `cold_queue`.
    pub fn new(limits: ReaderLimits, cold_queue: TaskQueueHandle) -> Self {
        Self {
            files: SegmentFiles::new(limits.open_files_max, cold_queue),
            positions: RefCell::new(Lru::new(POSITIONS_MAX)),
            indexes: RefCell::new(Lru::new(limits.index_cache_bytes)),
        }
    }

    /// Closes and forgets what belongs to a partition.
    pub fn forget(&self, key: ReplicaKey) {
        self.files.forget(key);
        self.positions.borrow_mut().retain(|(known, _)| *known != key);
        self.indexes.borrow_mut().retain(|(known, ..)| *known != key);
    }

    /// How reads were answered so far.
    pub fn counts(&self) -> ReadCounts {
        self.files.counts()
    }

    /// Whole batches from the one that holds `range.offset` on, out of one segment. Empty only when
    /// that batch does not end before `range.end`.
    pub async fn read(&self, source: Source<'_>, range: Range) -> Result<Bytes, ReadError> {
        let mut offset = range.offset;
        for segment in source.view.iter().filter(|segment| segment.end_offset > range.offset) {
            if segment.base_offset >= range.end {
                break;
            }
            if segment.base_offset > offset && source.view.iter().next() == Some(segment) {
                return Err(ReadError::Gone);
            }
            // Holes, which compaction leaves, belong to nobody: go on with the next batch there is.
            offset = offset.max(segment.base_offset);
            if let Some(bytes) =
                self.read_segment(source, segment, Range { offset, ..range }).await?
            {
                return Ok(bytes);
            }
        }
        if source.view.end_offset().is_none_or(|end| end <= range.offset) {
            return Err(ReadError::Gone);
        }
        Ok(Bytes::new())
    }

    /// As [`LogReader::read`] within one segment; `None` when it has nothing from the offset on.
    async fn read_segment(
        &self,
        source: Source<'_>,
        segment: &SegmentMeta,
        range: Range,
    ) -> Result<Option<Bytes>, ReadError> {
        let file = self.log_file(source, segment).await?;
        let mut scan = self.scan_from(source, segment, file, range.offset).await?;
        let window = range.max_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        while let Some(piece) = scan.next_piece(&self.files, source, window).await? {
            let mut first = None;
            let mut stop = 0;
            let mut next = range.offset;
            for batch in Batches::new(&piece.bytes) {
                let (at, header) =
                    batch.map_err(|error| scan.damage(piece.position, error.to_string()))?;
                scan.check(piece.position + at as u64, &header)?;
                if header.end_offset() <= range.offset {
                    continue;
                }
                let start = *first.get_or_insert(at);
                let fits = start == at || at + header.total_bytes - start <= range.max_bytes;
                if header.end_offset() > range.end || !fits {
                    break;
                }
                stop = at + header.total_bytes;
                next = header.end_offset();
            }
            let Some(start) = first else { continue };
            if stop == 0 {
                return Ok(Some(Bytes::new()));
            }
            let position = piece.position + stop as u64;
            let (base, generation) = (segment.base_offset, source.view.generation);
            let reached = Position { base, generation, position };
            self.positions.borrow_mut().insert((source.key, next), reached, 1);
            return Ok(Some(piece.bytes.slice(start..stop)));
        }
        Ok(None)
    }

    async fn log_file(
        &self,
        source: Source<'_>,
        segment: &SegmentMeta,
    ) -> Result<Rc<BufferedFile>, ReadError> {
        let base = segment.base_offset;
        let name = (source.key, base, source.view.generation);
        let opened = self.files.log(name, source.directory, source.is_current).await;
        opened.map_err(|error| read_error(base, error))
    }

    /// A scan of headers that begins at or before `offset`.
    async fn scan_from(
        &self,
        source: Source<'_>,
        segment: &SegmentMeta,
        file: Rc<BufferedFile>,
        offset: Offset,
    ) -> Result<Scan, ReadError> {
        let base = segment.base_offset;
        let known = self.positions.borrow_mut().get(&(source.key, offset)).copied();
        let position = match known {
            Some(known) if known.base == base && known.generation == source.view.generation => {
                known.position
            }
            _ if segment.bytes <= INDEX_INTERVAL_BYTES || offset == base => 0,
            _ => {
                let index = self.index(source, segment, SegmentFile::Index).await?;
                u64::from(position_for_offset(&index, base, offset))
            }
        };
        // An index may be ahead of the view, or damaged: the beginning is always right.
        let position = if position < segment.bytes { position } else { 0 };
        Ok(Scan { file, base, position, limit: segment.bytes, expected: None })
    }

    /// An index of a segment, or an empty one when it is missing: indexes only save time.
    async fn index(
        &self,
        source: Source<'_>,
        segment: &SegmentMeta,
        kind: SegmentFile,
    ) -> Result<Rc<[u8]>, ReadError> {
        let base = segment.base_offset;
        let name = (source.key, base, kind, source.view.generation);
        if let Some(cached) = self.indexes.borrow_mut().get(&name)
            && segment.bytes.saturating_sub(cached.log_bytes) <= INDEX_STALE_BYTES
        {
            return Ok(Rc::clone(&cached.bytes));
        }
        // An index holds less than one byte in a hundred of its log.
        let bytes_max = segment.bytes / 64 + 4096;
        let bytes =
            match self.files.whole((source.directory, base, kind), bytes_max, source.whom).await {
                Ok(bytes) => Rc::<[u8]>::from(bytes),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Rc::default(),
                Err(error) => return Err(read_error(base, error)),
            };
        if !(source.is_current)() {
            return Err(ReadError::Gone);
        }
        let cached = CachedIndex { bytes: Rc::clone(&bytes), log_bytes: segment.bytes };
        self.indexes.borrow_mut().insert(name, cached, bytes.len().max(64));
        Ok(bytes)
    }
}

/// Goes through a segment's batches, a piece at a time.
#[derive(Debug)]
struct Scan {
    file: Rc<BufferedFile>,
    base: Offset,
    position: u64,
    limit: u64,
    expected: Option<Offset>,
}

/// At least one whole batch, and where it lies in the file.
struct Piece {
    position: u64,
    bytes: Bytes,
}

impl Scan {
    /// The next whole batches, `window` bytes of them or one; `None` at the segment's end.
    async fn next_piece(
        &mut self,
        files: &SegmentFiles,
        source: Source<'_>,
        window: usize,
    ) -> Result<Option<Piece>, ReadError> {
        let mut wanted = window;
        loop {
            let left = self.limit - self.position;
            if left == 0 {
                return Ok(None);
            }
            let length = (wanted as u64).min(left) as usize;
            let read = files.read(&self.file, self.position, length, source.whom).await;
            let bytes = Bytes::from(read.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => self.damage(self.position, "the file ends".into()),
                _ => read_error(self.base, error),
            })?);
            let mut batches = Batches::new(&bytes);
            while let Some(Ok(_)) = batches.next() {}
            let consumed = batches.consumed();
            if consumed > 0 {
                let position = self.position;
                self.position += consumed as u64;
                return Ok(Some(Piece { position, bytes: bytes.slice(..consumed) }));
            }
            let header = BatchHeader::parse(&bytes)
                .map_err(|error| self.damage(self.position, error.to_string()))?;
            if header.total_bytes as u64 > left {
                return Err(self.damage(self.position, "a batch ends beyond the segment".into()));
            }
            assert!(header.total_bytes > length, "a batch that is all there is yielded");
            wanted = header.total_bytes;
        }
    }

    /// Batches lie one behind the other and do not overlap.
    fn check(&mut self, position: u64, header: &BatchHeader) -> Result<(), ReadError> {
        let least = self.expected.unwrap_or(self.base);
        if header.base_offset < least {
            let detail = format!("offset {} where at least {least} was due", header.base_offset);
            return Err(self.damage(position, detail));
        }
        self.expected = Some(header.end_offset());
        Ok(())
    }

    fn damage(&self, position: u64, detail: String) -> ReadError {
        ReadError::Damaged { base: self.base, position, detail }
    }
}

fn read_error(base: Offset, error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::NotFound => ReadError::Gone,
        _ => ReadError::Io { base, error },
    }
}

#[cfg(test)]
mod tests;
