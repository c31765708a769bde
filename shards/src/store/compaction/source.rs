//! Reading a segment that is not written any more, batch by batch, every CRC checked.

use std::io;
use std::path::Path;

use bytes::Bytes;

use super::{Stop, unreadable};
use crate::format::partition_metadata;
use crate::format::record_batch::{BatchHeader, Batches, HEADER_BYTES, StoredBatch};
use crate::machine::effect::SegmentMeta;
use crate::model::{Offset, ReplicaKey};
use crate::store::disk::{Disk, OpenMode};
use crate::store::owner;
use crate::store::paths::{SegmentFile, segment_file};

/// A segment's log and how far it is read.
pub struct Source<D: Disk> {
    file: D::File,
    base_offset: Offset,
    bytes: u64,
    position: u64,
    next_offset: Offset,
}

impl<D: Disk> Source<D> {
    /// From its beginning.
    pub fn open(
        disk: &D,
        dir: &Path,
        key: ReplicaKey,
        segment: &SegmentMeta,
    ) -> Result<Self, Stop> {
        let base_offset = segment.base_offset;
        let path = segment_file(dir, SegmentFile::Log, base_offset);
        let file = disk.open(&path, OpenMode::Read)?;
        check_owner(disk, dir, key)?;
        // The system would read megabytes ahead at once, and commits wait behind them.
        disk.reads_in_steps(&file);
        let bytes = segment.bytes;
        Ok(Self { file, base_offset, bytes, position: 0, next_offset: base_offset })
    }

    /// The next whole batches, of `bytes_max` or little more, and where the first begins. None at the end.
    pub fn next(&mut self, disk: &D, bytes_max: u64) -> Result<(u64, Vec<StoredBatch>), Stop> {
        let begin = self.position;
        let left = self.bytes - begin;
        let mut wanted = left.min(bytes_max.max(HEADER_BYTES as u64));
        let mut batches = Vec::new();
        while batches.is_empty() && wanted > 0 {
            let bytes = self.read(disk, wanted)?;
            for found in Batches::new(&bytes) {
                let (at, header) =
                    found.map_err(|error| unreadable(self.base_offset, self.position, error))?;
                let place = begin + at as u64;
                let stored = StoredBatch::from_log(bytes.slice(at..at + header.total_bytes));
                let batch = stored.map_err(|error| unreadable(self.base_offset, place, error))?;
                if header.base_offset < self.next_offset {
                    let what = format!(
                        "offset {} where at least {} was due",
                        header.base_offset, self.next_offset
                    );
                    return Err(unreadable(self.base_offset, place, what));
                }
                self.next_offset = header.end_offset();
                self.position = place + header.total_bytes as u64;
                batches.push(batch);
            }
            if batches.is_empty() {
                let header = BatchHeader::parse(&bytes)
                    .map_err(|error| unreadable(self.base_offset, begin, error))?;
                let whole = header.total_bytes as u64;
                if whole > left || whole <= wanted {
                    let what = format!("a batch of {whole} bytes in {left}");
                    return Err(unreadable(self.base_offset, begin, what));
                }
                wanted = whole;
            }
        }
        Ok((begin, batches))
    }

    /// What was read so far is not needed again, here or anywhere.
    pub fn is_done_so_far(&self, disk: &D) {
        disk.was_read(&self.file, self.position);
    }

    fn read(&self, disk: &D, count: u64) -> Result<Bytes, Stop> {
        let mut bytes = vec![0; count as usize];
        let read = disk.read_at(&self.file, self.position, &mut bytes)?;
        if (read as u64) < count {
            let what = format!("the file ends after {} bytes", self.position + read as u64);
            return Err(unreadable(self.base_offset, self.position, what));
        }
        Ok(Bytes::from(bytes))
    }
}

/// Whether a directory is still the partition's: a newer topic of the same name may have taken its name a moment ago. Asked
/// after a file was opened, not before.
pub fn check_owner<D: Disk>(disk: &D, dir: &Path, key: ReplicaKey) -> io::Result<()> {
    if owner(disk, dir)? == Some(key.topic_id) {
        return Ok(());
    }
    let file = partition_metadata::FILE_NAME;
    Err(io::Error::other(format!("{} in {} is not of {key}", file, dir.display())))
}
