//! Prepares WAL files on a thread of its own, so that neither the shard nor the storage thread waits.
//!
//! A new file is written full of zeroes around the page cache and synced under another name, then
//! renamed; a recycled one is only renamed, after a short one (a shard's first) was brought to size. Either
//! way its first block says that it holds nothing yet, and the directory is synced before the file
//! counts, so that a file that holds an acknowledged commit can be found after a crash.

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, unbounded};
use rustix::fs::FlockOperation;

use super::inbox::InboxSender;
use super::process::{ProcessMask, THREAD_PREFIX, stop_process};
use crate::format::wal::{BLOCK_BYTES, file_name, unused_block};
use crate::model::{ShardId, WalFileSeq};

/// Bytes written at once: large enough to keep a disk busy, small enough to let commits through.
const FILL_BYTES: usize = 1 << 20;

/// A file wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Its number.
    pub seq: WalFileSeq,
    /// A file to be renamed to it.
    pub recycle: Option<WalFileSeq>,
}

/// A file that is there, or for which there is no space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Prepared {
    /// What was asked for.
    pub wanted: Wanted,
    /// Whether the file is there; otherwise the disk is full and nothing of it was kept.
    pub has_space: bool,
}

/// The shard's end. Unbounded by itself: the machine wants one file at a time.
#[derive(Debug)]
pub struct WalFilePreparer {
    /// Gone once the preparer is closed.
    wanted: RefCell<Option<Sender<Wanted>>>,
}

impl WalFilePreparer {
    /// Starts the thread for the WAL directory of `shard`. It ends when the preparer is closed.
    pub fn start(
        shard: ShardId,
        mask: ProcessMask,
        directory: PathBuf,
        file_bytes: u64,
        prepared: InboxSender<Prepared>,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (wanted, queue) = unbounded();
        let thread = std::thread::Builder::new()
            .name(format!("{THREAD_PREFIX}walfile-{shard}"))
            .spawn(move || {
                mask.apply();
                run(&queue, shard, &directory, file_bytes, &prepared);
            })?;
        Ok((Self { wanted: RefCell::new(Some(wanted)) }, thread))
    }

    /// Asks for a file.
    pub fn prepare(&self, wanted: Wanted) {
        if let Some(queue) = &*self.wanted.borrow() {
            let sent = queue.send(wanted);
            assert!(sent.is_ok(), "the thread ends after its preparer");
        }
    }

    /// Lets the thread end once it has done what it was asked for.
    pub fn close(&self) {
        self.wanted.take();
    }
}

fn run(
    queue: &Receiver<Wanted>,
    shard: ShardId,
    directory: &Path,
    file_bytes: u64,
    prepared: &InboxSender<Prepared>,
) {
    while let Ok(wanted) = queue.recv() {
        let has_space = match prepare(shard, directory, file_bytes, wanted) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => false,
            Err(error) if error.kind() == io::ErrorKind::QuotaExceeded => false,
            Err(error) => stop_process(format_args!(
                "cannot prepare WAL file {} in {}: {error}",
                file_name(wanted.seq),
                directory.display()
            )),
        };
        if prepared.send(Prepared { wanted, has_space }).is_err() {
            return;
        }
    }
}

/// How long a write of a killed process may still be under way.
const WRITERS_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until nobody writes to any WAL file below `shards_dir`.
///
/// The kernel may finish a write of io_uring after the process that began it is gone. Whoever would read the
/// file before, or give it another use, could find that write where it does not belong. A WAL file is
/// locked through the descriptor that is written to, and that lock lasts until the last write is done.
///
/// # Errors
/// When a file stays locked, or cannot be opened.
pub fn await_writers(shards_dir: &Path) -> io::Result<()> {
    let begun = Instant::now();
    for shard in children(shards_dir)? {
        for path in children(&shard.join("wal"))? {
            let file = File::open(&path)?;
            while let Err(error) =
                rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
            {
                if error != rustix::io::Errno::WOULDBLOCK || begun.elapsed() > WRITERS_MAX {
                    let path = path.display();
                    return Err(io::Error::other(format!("{path} is still written to: {error}")));
                }
                std::thread::sleep(PAUSE);
            }
        }
    }
    Ok(())
}

/// What is in a directory; nothing if there is none.
fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Prepares one file. On an error nothing of it is left, and one to be recycled can still be.
pub fn prepare(
    shard: ShardId,
    directory: &Path,
    file_bytes: u64,
    wanted: Wanted,
) -> io::Result<()> {
    let target = directory.join(file_name(wanted.seq));
    if let Some(recycle) = wanted.recycle {
        let old = directory.join(file_name(recycle));
        extend(&old, file_bytes)?;
        mark_unused(&old, shard, wanted.seq)?;
        fs::rename(old, target)?;
    } else {
        let unfinished = directory.join("next.tmp");
        let filled = fill(&unfinished, file_bytes)
            .and_then(|()| mark_unused(&unfinished, shard, wanted.seq))
            .and_then(|()| fs::rename(&unfinished, target));
        if let Err(error) = filled {
            // The first error is the one to tell; a leftover is overwritten next time.
            let _ = fs::remove_file(&unfinished);
            return Err(error);
        }
    }
    File::open(directory)?.sync_all()
}

/// Makes the first block say that the file holds nothing of its life as `seq`, durably.
fn mark_unused(path: &Path, shard: ShardId, seq: WalFileSeq) -> io::Result<()> {
    let file = open(OpenOptions::new().write(true), path)?;
    let (mut buffer, start) = aligned_zeroes(BLOCK_BYTES as usize);
    let block = &mut buffer[start..start + BLOCK_BYTES as usize];
    block.copy_from_slice(&unused_block(shard, seq));
    file.write_all_at(block, 0)?;
    file.sync_data()
}

/// A buffer with `bytes` zeroes that begin at a block boundary in memory, and where that is.
fn aligned_zeroes(bytes: usize) -> (Vec<u8>, usize) {
    let buffer = vec![0u8; bytes + BLOCK_BYTES as usize];
    let start = buffer.as_ptr().align_offset(BLOCK_BYTES as usize);
    (buffer, start)
}

/// Brings a file that is too short to size.
fn extend(path: &Path, bytes: u64) -> io::Result<()> {
    let found = fs::metadata(path)?.len();
    if found >= bytes {
        return Ok(());
    }
    let file = open(OpenOptions::new().write(true), path)?;
    write_zeroes(&file, found, bytes).inspect_err(|_| {
        // The first error is the one to tell; a file of any length can be recycled.
        let _ = file.set_len(found);
    })
}

fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    write_zeroes(&open(OpenOptions::new().write(true).create(true).truncate(true), path)?, 0, bytes)
}

/// Writes zeroes from the block at `position` to `bytes`, durably.
fn write_zeroes(file: &File, mut position: u64, bytes: u64) -> io::Result<()> {
    let (buffer, start) = aligned_zeroes(FILL_BYTES);
    let zeroes = &buffer[start..start + FILL_BYTES];

    while position < bytes {
        let length = (bytes - position).min(FILL_BYTES as u64);
        file.write_all_at(&zeroes[..length as usize], position)?;
        position += length;
    }
    file.sync_all()
}

/// Opens a file around the page cache, or through it where the filesystem knows no other way.
fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    match options.clone().custom_flags(libc::O_DIRECT).open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => options.open(path),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::wal::is_unused;
    use crate::io::inbox::{Bell, Inbox};

    #[test]
    fn new_file_is_zeroes_behind_its_mark_and_a_recycled_one_keeps_its_bytes_behind_a_new_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = |seq| directory.path().join(file_name(WalFileSeq(seq)));
        let bytes = FILL_BYTES as u64 + 3 * BLOCK_BYTES;
        let (sender, inbox) = Inbox::new(4, Bell::new().unwrap().0);
        let (preparer, thread) = WalFilePreparer::start(
            ShardId(0),
            ProcessMask::current().unwrap(),
            directory.path().to_owned(),
            bytes,
            sender,
        )
        .unwrap();
        let first = Wanted { seq: WalFileSeq(1), recycle: None };
        let second = Wanted { seq: WalFileSeq(2), recycle: Some(WalFileSeq(1)) };
        preparer.prepare(first);
        preparer.prepare(second);
        preparer.close();
        thread.join().unwrap();
        assert_eq!(inbox.try_take(), Some(Prepared { wanted: first, has_space: true }));
        assert_eq!(inbox.try_take(), Some(Prepared { wanted: second, has_space: true }));
        assert!(!path(1).exists());
        let content = fs::read(path(2)).unwrap();
        assert_eq!(content.len() as u64, bytes);
        let (mark, rest) = content.split_at(BLOCK_BYTES as usize);
        assert!(is_unused(mark, ShardId(0), WalFileSeq(2)));
        assert!(rest.iter().all(|byte| *byte == 0));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
