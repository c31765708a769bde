//! What the store needs of a file system, and the real one.
//!
//! The trait is small on purpose: everything that may be lost in a crash goes through it, so that a
//! simulated disk can lose it. All calls block.

use std::fs;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Instant;

use super::direct_write;
use super::freeing::{Freeing, open_large};
use super::pace::Pace;

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Its name there.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// Its size; of a directory, 0.
    pub bytes: u64,
}

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// For reading; it must exist.
    Read,
    /// For reading and writing; created if it does not exist.
    Write,
}

/// Blocking file operations.
///
/// Nothing is durable before a `sync` call has returned: content by [`Disk::sync`], names by
/// [`Disk::sync_dir`] of their directory, both by [`Disk::sync_filesystem`].
pub trait Disk {
    /// An open file.
    type File;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;
    /// The file's size.
    fn bytes(&self, file: &Self::File) -> io::Result<u64>;
    /// Reads at `position` until the buffer or the file ends; says how much.
    fn read_at(&self, file: &Self::File, position: u64, out: &mut [u8]) -> io::Result<usize>;
    /// Says that the file's first `bytes` bytes are going to be read soon. A hint.
    fn will_read(&self, _file: &Self::File, _bytes: u64) {}
    /// Says that the file is read in steps of the reader's own: the device is asked for nothing beyond them. A hint.
    fn reads_in_steps(&self, _file: &Self::File) {}
    /// Says that nobody is going to read the file's first `bytes` bytes any more. A hint.
    fn was_read(&self, _file: &Self::File, _bytes: u64) {}
    /// Writes all of the slices, one behind the other, at `position`.
    ///
    /// After an error any part of them may have been written.
    fn write_at(&self, file: &Self::File, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()>;
    /// Cuts or extends the file.
    fn truncate(&self, file: &Self::File, bytes: u64) -> io::Result<()>;
    /// Makes the file's content durable.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Begins to write a range back, without waiting and without any promise.
    fn start_writeback(&self, file: &Self::File, position: u64, bytes: u64) -> io::Result<()>;
    /// Makes everything on the file system of `dir` durable.
    fn sync_filesystem(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Creates a directory; fine if there is one.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Gives a file or directory another name; a file there is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;
    /// The entries of a directory, by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>>;
    /// Does `work` for every item, several at once where the disk can; the results in the items' order.
    fn map_all<T, R, F>(&self, items: Vec<T>, work: F) -> Vec<R>
    where
        Self: Sized,
        T: Send,
        R: Send,
        F: Fn(&Self, T) -> R + Sync,
    {
        items.into_iter().map(|item| work(self, item)).collect()
    }
}

/// The operating system's files.
#[derive(Clone, Debug, Default)]
pub struct StdDisk {
    pace: Option<Pace>,
    freeing: Option<Freeing>,
}

/// How much is read ahead by one call.
const AHEAD_BYTES: i64 = 1 << 20;

/// Threads that work on one file system at once; more would only wait for the device.
const THREADS_MAX: usize = 16;

/// The most slices one `writev` takes on Linux.
const SLICES_MAX: usize = 1024;

impl StdDisk {
    /// Writes at this pace, and frees what is removed at one of its own.
    #[must_use]
    pub fn paced(pace: Pace) -> Self {
        Self { pace: Some(pace), freeing: Some(Freeing::default()) }
    }

    /// Does what takes the name `path` from a file, if there is one.
    fn unname(&self, path: &Path, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let Some(freeing) = &self.freeing else { return work() };
        let large = open_large(path);
        work()?;
        if let Some(file) = large {
            freeing.free(file);
        }
        Ok(())
    }

    /// How many files a store may keep open when `stores` of them share the process: a quarter of
    /// what the process may open, sockets have the rest.
    #[must_use]
    pub fn open_files_max(stores: usize) -> usize {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `limit` is a valid place for the call to write to, and outlives it.
        let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
        let soft = if result == 0 { limit.rlim_cur.min(1 << 20) as usize } else { 1024 };
        (soft / (4 * stores.max(1))).clamp(8, 4096)
    }
}

impl Disk for StdDisk {
    type File = fs::File;

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<fs::File> {
        match mode {
            OpenMode::Read => fs::File::open(path),
            OpenMode::Write => {
                let mut options = fs::File::options();
                options.read(true).write(true).create(true).truncate(false).open(path)
            }
        }
    }

    fn bytes(&self, file: &fs::File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read_at(&self, file: &fs::File, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match file.read_at(&mut out[done..], position + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn will_read(&self, file: &fs::File, bytes: u64) {
        // One call begins to read a few megabytes at most, whatever it is asked for.
        for position in (0..bytes).step_by(AHEAD_BYTES as usize) {
            let Ok(position) = libc::off64_t::try_from(position) else { return };
            advise(file, position, AHEAD_BYTES, libc::POSIX_FADV_WILLNEED);
        }
    }

    fn reads_in_steps(&self, file: &fs::File) {
        advise(file, 0, 0, libc::POSIX_FADV_RANDOM);
    }

    fn was_read(&self, file: &fs::File, bytes: u64) {
        // A length of 0 would be all of the file.
        if let Ok(bytes @ 1..) = libc::off64_t::try_from(bytes) {
            advise(file, 0, bytes, libc::POSIX_FADV_DONTNEED);
        }
    }

    fn write_at(&self, file: &fs::File, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let bytes = slices.iter().map(|slice| slice.len() as u64).sum();
        if let Some(range) = direct_write::direct_range(position, bytes) {
            let (head, middle) = (range.start - position, range.end - range.start);
            let (head, middle) = (head as usize, middle as usize);
            write_part(file, position, slices, 0..head)?;
            if direct_write::write(file, range.clone(), slices, head, self.pace.as_ref())? {
                return write_part(file, range.end, slices, head + middle..bytes as usize);
            }
        }
        let begun = Instant::now();
        write_part(file, position, slices, 0..bytes as usize)?;
        if let Some(pace) = &self.pace {
            pace.rest_after(begun);
        }
        Ok(())
    }

    fn truncate(&self, file: &fs::File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn sync(&self, file: &fs::File) -> io::Result<()> {
        file.sync_data()
    }

    fn start_writeback(&self, file: &fs::File, position: u64, bytes: u64) -> io::Result<()> {
        let range = (libc::off64_t::try_from(position), libc::off64_t::try_from(bytes));
        let (Ok(position), Ok(bytes)) = range else { return Ok(()) };
        // SAFETY: no memory is passed; the descriptor is open for as long as `file` is borrowed.
        let result = unsafe {
            libc::sync_file_range(file.as_raw_fd(), position, bytes, libc::SYNC_FILE_RANGE_WRITE)
        };
        match result {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                // Some file systems have no such call. It is a hint.
                error if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
                error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                error => Err(error),
            },
        }
    }

    fn sync_filesystem(&self, dir: &Path) -> io::Result<()> {
        let dir = fs::File::open(dir)?;
        // SAFETY: no memory is passed; the descriptor is open until `dir` is dropped.
        match unsafe { libc::syncfs(dir.as_raw_fd()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        match fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            result => result,
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.unname(to, || fs::rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.unname(path, || fs::remove_file(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // Names that are not UTF-8 are none of ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = entry.metadata()?;
            let is_dir = metadata.is_dir();
            entries.push(DirEntry { name, is_dir, bytes: if is_dir { 0 } else { metadata.len() } });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn map_all<T, R, F>(&self, items: Vec<T>, work: F) -> Vec<R>
    where
        T: Send,
        R: Send,
        F: Fn(&Self, T) -> R + Sync,
    {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let count = cpus.min(THREADS_MAX).min(items.len()).max(1);
        // Dealt out like cards: neighbours are alike, so that each thread gets its share of the large ones.
        let mut hands: Vec<Vec<T>> = (0..count).map(|_| Vec::new()).collect();
        for (place, item) in items.into_iter().enumerate() {
            hands[place % count].push(item);
        }
        let play = |hand: Vec<T>| hand.into_iter().map(|item| work(self, item)).collect();
        let mut played: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> =
                hands.into_iter().map(|hand| scope.spawn(|| play(hand))).collect();
            let join = |thread: thread::ScopedJoinHandle<'_, Vec<R>>| match thread.join() {
                Ok(results) => results.into_iter(),
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect()
        });
        let mut results = Vec::new();
        while let Some(result) = played[results.len() % count].next() {
            results.push(result);
        }
        results
    }
}

/// Tells the system how a range of a file is used; it may do as it likes.
fn advise(file: &fs::File, position: libc::off64_t, bytes: libc::off64_t, advice: libc::c_int) {
    // SAFETY: no memory is passed; the descriptor is open for as long as `file` is borrowed.
    unsafe {
        libc::posix_fadvise64(file.as_raw_fd(), position, bytes, advice);
    }
}

/// Writes that part of the slices' bytes through the page cache.
fn write_part(
    file: &fs::File,
    mut position: u64,
    slices: &[IoSlice<'_>],
    part: Range<usize>,
) -> io::Result<()> {
    let (mut skipped, mut left) = (part.start, part.end - part.start);
    let mut cut: Vec<IoSlice<'_>> = Vec::with_capacity(slices.len().min(SLICES_MAX));
    for slice in slices {
        let from = skipped.min(slice.len());
        let taken = left.min(slice.len() - from);
        (skipped, left) = (skipped - from, left - taken);
        if taken > 0 {
            cut.push(IoSlice::new(&slice[from..from + taken]));
        }
    }
    for group in cut.chunks_mut(SLICES_MAX) {
        let mut rest = group;
        while !rest.is_empty() {
            let written = write_vectored_at(file, rest, position)?;
            position += written as u64;
            IoSlice::advance_slices(&mut rest, written);
        }
    }
    Ok(())
}

fn write_vectored_at(file: &fs::File, slices: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
    let position = libc::off64_t::try_from(position)
        .map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    loop {
        // SAFETY: an `IoSlice` has the layout of an `iovec`; the slices outlive the call, and their
        // number, at most `SLICES_MAX`, fits a C int.
        let written = unsafe {
            libc::pwritev(
                file.as_raw_fd(),
                slices.as_ptr().cast(),
                slices.len() as libc::c_int,
                position,
            )
        };
        match usize::try_from(written) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => return Ok(written),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

/// Whether an error says that there is no room, now, for what was to be written.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The whole content of a file.
///
/// # Errors
/// As reading does.
pub fn read_file<D: Disk>(disk: &D, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path, OpenMode::Read)?;
    let bytes = disk.bytes(&file)?;
    let mut content = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
    let read = disk.read_at(&file, 0, &mut content)?;
    content.truncate(read);
    Ok(content)
}

/// Replaces a file's content so that a crash leaves the old or the new one. Durable on return.
///
/// # Errors
/// As writing does; the file is then as it was.
pub fn replace_file<D: Disk>(disk: &D, path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let temporary = dir.join(format!("{name}.tmp"));
    let written = disk.open(&temporary, OpenMode::Write).and_then(|file| {
        disk.truncate(&file, 0)?;
        disk.write_at(&file, 0, &[IoSlice::new(content)])?;
        disk.sync(&file)
    });
    if let Err(error) = written {
        // A disk that is full needs the space; one that does not even remove a file has said the more important thing already.
        let _ = disk.remove_file(&temporary);
        return Err(error);
    }
    disk.rename(&temporary, path)?;
    disk.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vectored_write_of_more_slices_than_the_kernel_takes_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = StdDisk::default().open(&dir.path().join("f"), OpenMode::Write).unwrap();
        let pieces: Vec<[u8; 3]> = (0..3000u32).map(|i| [i as u8, (i >> 8) as u8, 7]).collect();
        let mut slices: Vec<_> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        slices.insert(0, IoSlice::new(&[]));
        StdDisk::default().write_at(&file, 5, &slices).unwrap();
        let content = read_file(&StdDisk::default(), &dir.path().join("f")).unwrap();
        assert_eq!(content[..5], [0; 5]);
        assert_eq!(content[5..], pieces.concat());
    }

    #[test]
    fn results_of_many_threads_have_the_order_of_their_items() {
        for count in [0, 1, 2, 3, 100] {
            let found = StdDisk::default().map_all((0..count).collect(), |_, item: i32| item * 2);
            assert_eq!(found, (0..count).map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn replacing_a_file_leaves_only_the_new_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        replace_file(&StdDisk::default(), &path, b"longer content").unwrap();
        replace_file(&StdDisk::default(), &path, b"short").unwrap();
        assert_eq!(read_file(&StdDisk::default(), &path).unwrap(), b"short");
        assert_eq!(StdDisk::default().list(dir.path()).unwrap().len(), 1);
        StdDisk::default().sync_filesystem(dir.path()).unwrap();
    }
}
