//! Exchanging segments so that a crash leaves the old ones or the new one.
//!
//! The files of the new segment are durable under names of their own. Then a small file says what is to be exchanged: from
//! the moment that this is durable the new segment counts. Everything behind it can be done again: its files get their names,
//! the old ones that have no successor go, and when all that is durable the small file goes.
//!
//! While the small file is there nothing else may happen to the partition. So whoever finds it completes the exchange first.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::cleaner_checkpoint::{
    self, CleanerCheckpoint, FILE_NAME, SWAP_FILE_NAME, SegmentSwap,
};
use crate::model::Offset;
use crate::store::disk::{Disk, replace_file};
use crate::store::paths::{CLEANED_SUFFIX, SegmentFile};

/// A rewritten segment's file before it has its name.
pub fn cleaned_file(dir: &Path, kind: SegmentFile, base_offset: Offset) -> PathBuf {
    dir.join(format!("{}{CLEANED_SUFFIX}", kind.name(base_offset)))
}

/// Decides an exchange; durable on return.
pub fn decide<D: Disk>(disk: &D, dir: &Path, swap: SegmentSwap) -> io::Result<()> {
    let content = cleaner_checkpoint::encode_swap(swap);
    replace_file(disk, &dir.join(SWAP_FILE_NAME), content.as_bytes())
}

/// Carries out what was decided, or what is left of it. Durable on return.
///
/// # Errors
/// The disk's; it is to be done again then.
pub fn complete<D: Disk>(disk: &D, dir: &Path, swap: SegmentSwap) -> io::Result<()> {
    for kind in [SegmentFile::Log, SegmentFile::Index, SegmentFile::TimeIndex] {
        let path = dir.join(kind.name(swap.base_offset));
        match disk.rename(&cleaned_file(dir, kind, swap.base_offset), &path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    for entry in disk.list(dir)? {
        let Some((_, base)) = SegmentFile::parse(&entry.name) else { continue };
        if base > swap.base_offset && base < swap.end_offset {
            disk.remove_file(&dir.join(&entry.name))?;
        }
    }
    disk.sync_dir(dir)?;
    disk.remove_file(&dir.join(SWAP_FILE_NAME))?;
    disk.sync_dir(dir)
}

/// Removes rewritten files that nothing was decided of.
///
/// # Errors
/// The disk's.
pub fn abandon<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    for entry in disk.list(dir)? {
        if entry.name.ends_with(CLEANED_SUFFIX) {
            disk.remove_file(&dir.join(&entry.name))?;
        }
    }
    Ok(())
}

/// How far a log is compacted. A checkpoint that cannot be read says nothing.
///
/// # Errors
/// The disk's.
pub fn read_checkpoint<D: Disk>(disk: &D, dir: &Path) -> io::Result<CleanerCheckpoint> {
    let content = crate::store::disk::read_file(disk, &dir.join(FILE_NAME))?;
    let text = str::from_utf8(&content).ok();
    Ok(text.and_then(cleaner_checkpoint::decode).unwrap_or(CleanerCheckpoint::UNKNOWN))
}

/// Says how far a log is compacted; durable on return.
///
/// # Errors
/// The disk's; the old one stays.
pub fn write_checkpoint<D: Disk>(
    disk: &D,
    dir: &Path,
    checkpoint: CleanerCheckpoint,
) -> io::Result<()> {
    replace_file(disk, &dir.join(FILE_NAME), cleaner_checkpoint::encode(checkpoint).as_bytes())
}
