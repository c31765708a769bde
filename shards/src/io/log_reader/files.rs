//! Open segment files, and reading from them: the page cache at once, the disk in its own queue.
//!
//! What is asked of the disk is small and one thing at a time, and the system is told to read nothing ahead. A commit waits
//! behind whatever the disk has been asked for before it: a reader of old data that is given its megabytes at once
//! would hold up every producer of the node for as long as it reads.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::TaskQueueHandle;
use glommio::io::BufferedFile;
use rustix::fs::Advice;

use super::ReadFor;
use crate::io::local::Permits;
use crate::io::lru::Lru;
use crate::io::turn::give_way;
use crate::model::{Offset, ReplicaKey};
use crate::store::paths::{SegmentFile, segment_file};

/// Reads of the disk that a shard has under way at most of each kind; further ones wait in line.
const COLD_READS_MAX: usize = 1;

/// Most bytes of such a read. Whoever wants more takes turns with the others.
const COLD_READ_BYTES_MAX: usize = 128 << 10;

/// However long a read took, the next one waits no longer than this.
const COLD_REST_MAX: Duration = Duration::from_millis(10);

/// Most bytes that are copied from the page cache before the shard looks at the rest of the world.
const HOT_READ_BYTES_MAX: usize = 256 << 10;

/// How many reads were answered how.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ReadCounts {
    /// Wholly from the page cache.
    pub hot: u64,
    /// With help of the disk.
    pub cold: u64,
}

/// Segment files of one shard.
#[derive(Debug)]
pub struct SegmentFiles {
    open: RefCell<Lru<(ReplicaKey, Offset, u32), Rc<BufferedFile>>>,
    for_clients: Line,
    for_node: Line,
    cold_queue: TaskQueueHandle,
    counts: Cell<ReadCounts>,
}

impl SegmentFiles {
    /// Keeps at most `open_max` log files open.
    pub fn new(open_max: usize, cold_queue: TaskQueueHandle) -> Self {
        Self {
            open: RefCell::new(Lru::new(open_max.max(1))),
            for_clients: Line::default(),
            for_node: Line::default(),
            cold_queue,
            counts: Cell::default(),
        }
    }

    /// How reads were answered so far.
    pub fn counts(&self) -> ReadCounts {
        self.counts.get()
    }

    /// Closes what belongs to a partition.
    pub fn forget(&self, key: ReplicaKey) {
        self.open.borrow_mut().retain(|(known, ..)| *known != key);
    }

    /// Number of open log files.
    pub fn open_count(&self) -> usize {
        self.open.borrow().len()
    }

    /// The log file of a segment, opened if need be. `is_current` is asked after an open: a
    /// directory may by then belong to a later partition of the same name, and a file's name to another file.
    pub async fn log(
        &self,
        (key, base, generation): (ReplicaKey, Offset, u32),
        directory: &Path,
        is_current: &dyn Fn() -> bool,
    ) -> io::Result<Rc<BufferedFile>> {
        if let Some(file) = self.open.borrow_mut().get(&(key, base, generation)) {
            return Ok(Rc::clone(file));
        }
        let file = Rc::new(open(directory, base, SegmentFile::Log).await?);
        if !is_current() {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.open.borrow_mut().insert((key, base, generation), Rc::clone(&file), 1);
        Ok(file)
    }

    /// All of an index file, at most `bytes_max` of it. Otherwise as [`read`](Self::read).
    pub async fn whole(
        &self,
        (directory, base, kind): (&Path, Offset, SegmentFile),
        bytes_max: u64,
        whom: ReadFor<'_>,
    ) -> io::Result<Vec<u8>> {
        let file = Rc::new(open(directory, base, kind).await?);
        let bytes = file.file_size().await.map_err(io::Error::from)?.min(bytes_max);
        self.read(&file, 0, bytes as usize, whom).await
    }

    /// Reads exactly `length` bytes.
    pub async fn read(
        &self,
        file: &Rc<BufferedFile>,
        position: u64,
        length: usize,
        whom: ReadFor<'_>,
    ) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(length);
        while read_cached(file, position, length.min(out.len() + HOT_READ_BYTES_MAX), &mut out)?
            && out.len() < length
        {
            give_way().await;
        }
        let mut counts = self.counts.get();
        if out.len() == length {
            counts.hot += 1;
            self.counts.set(counts);
            return Ok(out);
        }
        counts.cold += 1;
        self.counts.set(counts);
        self.read_cold(file, position, length, out, whom).await
    }

    /// Goes on where the page cache ended.
    async fn read_cold(
        &self,
        file: &Rc<BufferedFile>,
        position: u64,
        length: usize,
        mut out: Vec<u8>,
        whom: ReadFor<'_>,
    ) -> io::Result<Vec<u8>> {
        let line = match whom {
            ReadFor::Clients(_) => &self.for_clients,
            ReadFor::Node => &self.for_node,
        };
        while out.len() < length {
            let at = position + out.len() as u64;
            let _turn = line.turn().await;
            let begun = Instant::now();
            let file = Rc::clone(file);
            let task = async move { file.read_at(at, cold_read_bytes(at)).await };
            let read = glommio::spawn_local_into(task, self.cold_queue).map_err(io::Error::from)?;
            let read = read.await.map_err(io::Error::from)?;
            if read.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            out.extend_from_slice(&read[..read.len().min(length - out.len())]);
            if let ReadFor::Clients(rest_percent) = whom {
                line.rest((begun.elapsed() * rest_percent() / 100).min(COLD_REST_MAX));
            }
        }
        Ok(out)
    }
}

/// How much is asked of the disk at `position`: all up to the next boundary, whatever is wanted. Who reads on in small steps
/// finds the rest in the page cache.
const fn cold_read_bytes(position: u64) -> usize {
    COLD_READ_BYTES_MAX - (position % COLD_READ_BYTES_MAX as u64) as usize
}

/// Who waits for the disk, first come first served.
#[derive(Debug)]
struct Line {
    permits: Permits,
    /// Until when nobody's turn comes.
    rests_until: Cell<Option<Instant>>,
}

impl Default for Line {
    fn default() -> Self {
        Self { permits: Permits::new(COLD_READS_MAX), rests_until: Cell::default() }
    }
}

impl Line {
    /// Waits for a turn, which lasts as long as what is returned.
    async fn turn(&self) -> Released<'_> {
        self.permits.acquire().await;
        let turn = Released(&self.permits);
        let rest = self.rests_until.take().map(|end| end.saturating_duration_since(Instant::now()));
        if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            glommio::timer::sleep(rest).await;
        }
        turn
    }

    /// Has the next turn wait. Whoever has what they wanted does not.
    fn rest(&self, rest: Duration) {
        self.rests_until.set(Instant::now().checked_add(rest));
    }
}

/// Gives a permit back, also when the read is dropped half-way.
struct Released<'a>(&'a Permits);

impl Drop for Released<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

async fn open(directory: &Path, base: Offset, kind: SegmentFile) -> io::Result<BufferedFile> {
    let file = BufferedFile::open(segment_file(directory, kind, base)).await?;
    // SAFETY: the file is open and outlives the call.
    let descriptor = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    // A filesystem that takes no advice reads ahead as it likes.
    let _ = rustix::fs::fadvise(descriptor, 0, None, Advice::Random);
    Ok(file)
}

/// Appends to `out` what the page cache has from `position` on, until it is of `length`, without waiting. False where the disk
/// would have to be asked, or the file ends.
fn read_cached(
    file: &BufferedFile,
    position: u64,
    length: usize,
    out: &mut Vec<u8>,
) -> io::Result<bool> {
    while out.len() < length {
        let missing = length - out.len();
        let spare = out.spare_capacity_mut();
        let room =
            libc::iovec { iov_base: spare.as_mut_ptr().cast(), iov_len: spare.len().min(missing) };
        let at = position + (out.len() as u64);
        // SAFETY: the descriptor is open as long as `file` is borrowed; `room` points to spare
        // capacity of `out` of at least `iov_len` bytes, which nothing else refers to during the
        // call, and which the kernel only writes to.
        let read = unsafe {
            libc::preadv2(file.as_raw_fd(), &room, 1, at as libc::off_t, libc::RWF_NOWAIT)
        };
        match read {
            0 => return Ok(false),
            // SAFETY: the kernel has initialised the first `read` bytes of the spare capacity,
            // which has room for them.
            1.. => unsafe { out.set_len(out.len() + read as usize) },
            _ => {
                let error = io::Error::last_os_error();
                match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // Not in the cache; or a filesystem that cannot tell.
                    Some(libc::EAGAIN | libc::EOPNOTSUPP) => return Ok(false),
                    _ => return Err(error),
                }
            }
        }
    }
    Ok(true)
}
