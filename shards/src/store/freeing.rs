//! Frees the space of large files whose names are gone: a piece at a time, on a thread of its own.
//!
//! A file system that is to forget hundreds of megabytes does so at once, and may tell the device of them as well; every
//! commit that comes meanwhile waits. Nobody waits for the space, unless the disk is full, and then there is more of it
//! after each piece.
//!
//! Invariants: the name is gone before the first piece is, so that a crash leaves nothing that the file system does not
//! free by itself. What has another name still, or is open elsewhere, is not cut: a reader goes on with what it has.
//!
//! Bounded: of more than [`WAITING_MAX`] files the next is freed at once, by whoever removes it.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

/// Freed at once: what is no larger goes with its name.
const PIECE_BYTES: u64 = 4 << 20;
/// Between two pieces.
const REST: Duration = Duration::from_millis(10);

/// Files that wait to be freed.
const WAITING_MAX: usize = 256;

/// How often a file that somebody reads is looked at again, and how many times: then whoever closes it last frees it.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
const LOOKS_MAX: usize = 50;

/// Chooses the signal of a lease. Source: fcntl(2), `asm-generic/fcntl.h`.
const F_SETSIG: libc::c_int = 10;

/// Hands files to the thread that frees them. Cloning gives another handle to the same one, which ends with the last.
#[derive(Clone, Debug, Default)]
pub(super) struct Freeing {
    /// `None` inside: there is no such thread to be had.
    thread: Arc<OnceLock<Option<SyncSender<File>>>>,
}

impl Freeing {
    /// Takes a file whose name may be gone by now.
    pub(super) fn free(&self, file: File) {
        if let Some(files) = self.thread.get_or_init(start) {
            // What does not fit is closed here, and so freed.
            let _ = files.try_send(file);
        }
    }
}

/// A file that is worth to be freed in pieces, before its name goes.
pub(super) fn open_large(path: &Path) -> Option<File> {
    let is_large =
        fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && it.len() > PIECE_BYTES);
    let mut options = File::options();
    options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    is_large.then(|| options.open(path).ok()).flatten()
}

/// The thread has the priority of whoever starts it.
fn start() -> Option<SyncSender<File>> {
    let (sender, files) = sync_channel(WAITING_MAX);
    let thread = thread::Builder::new().name("chronik-freeing".to_owned());
    thread.spawn(move || run(&files)).ok().map(|_| sender)
}

fn run(files: &Receiver<File>) {
    for file in files {
        if !is_nameless(&file) {
            continue;
        }
        // Nobody can open it any more. Whoever has it open will be done.
        let mut looks = 1;
        while !is_open_here_only(&file) && looks < LOOKS_MAX {
            looks += 1;
            thread::sleep(LOOK_PAUSE);
        }
        if looks < LOOKS_MAX {
            cut(&file);
        }
    }
}

/// Frees it. What cannot be cut goes when it is closed.
fn cut(file: &File) {
    let mut left = file.metadata().map_or(0, |it| it.len());
    while left > 0 {
        left = left.saturating_sub(PIECE_BYTES);
        if file.set_len(left).is_err() {
            return;
        }
        thread::sleep(REST);
    }
}

fn is_nameless(file: &File) -> bool {
    file.metadata().is_ok_and(|it| it.nlink() == 0)
}

/// The system gives a lease for writing only to who has a file open alone.
fn is_open_here_only(file: &File) -> bool {
    let set = |what: libc::c_int, value: libc::c_int| {
        // SAFETY: no memory is passed; the descriptor is open for as long as `file` is borrowed.
        unsafe { libc::fcntl(file.as_raw_fd(), what, value) == 0 }
    };
    // Whoever opened it during the lease would have a signal sent here: one that is ignored.
    set(F_SETSIG, libc::SIGURG)
        && set(libc::F_SETLEASE, libc::F_WRLCK)
        && set(libc::F_SETLEASE, libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Instant;

    use super::*;
    use crate::store::disk::{Disk, StdDisk};
    use crate::store::pace::Pace;

    const BYTES: usize = 2 * PIECE_BYTES as usize + 5;

    fn large_file(directory: &Path, name: &str) -> PathBuf {
        let path = directory.join(name);
        fs::write(&path, vec![7; BYTES]).unwrap();
        path
    }

    fn is_open(path: &Path) -> bool {
        let descriptors = fs::read_dir("/proc/self/fd").unwrap();
        let targets = descriptors.filter_map(|it| fs::read_link(it.unwrap().path()).ok());
        targets.into_iter().any(|it| it.to_string_lossy().starts_with(&*path.to_string_lossy()))
    }

    fn wait_until_closed(path: &Path) {
        let begun = Instant::now();
        while is_open(path) {
            assert!(begun.elapsed() < Duration::from_secs(60), "{} is open", path.display());
            thread::yield_now();
        }
    }

    #[test]
    fn only_what_has_no_name_and_no_reader_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let path = large_file(directory.path(), "0.log");
        let file = open_large(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert!(!is_nameless(&file));
        fs::remove_file(&path).unwrap();
        assert!(is_nameless(&file));
        assert!(!is_open_here_only(&file));
        drop(reader);
        assert!(is_open_here_only(&file));
        cut(&file);
        assert_eq!(file.metadata().unwrap().len(), 0);
    }

    #[test]
    fn the_thread_cuts_what_has_no_name_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (gone, there) =
            (large_file(directory.path(), "gone"), large_file(directory.path(), "there"));
        let (sender, files) = sync_channel(2);
        // The same open files, which show what becomes of them.
        let seen = [&gone, &there].map(|path| {
            let file = open_large(path).unwrap();
            let seen = file.try_clone().unwrap();
            sender.send(file).unwrap();
            seen
        });
        fs::remove_file(&gone).unwrap();
        drop(sender);
        run(&files);
        assert_eq!(seen.map(|file| file.metadata().unwrap().len()), [0, BYTES as u64]);
    }

    #[test]
    fn small_files_and_what_is_not_there_go_as_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("small");
        fs::write(&path, "content").unwrap();
        assert!(open_large(&path).is_none());
        assert!(open_large(&directory.path().join("missing")).is_none());
        assert!(open_large(directory.path()).is_none());
    }

    #[test]
    fn what_is_removed_or_replaced_loses_its_name_at_once_and_its_space_later() {
        let directory = tempfile::tempdir().unwrap();
        let disk = StdDisk::paced(Pace::default());
        let (removed, replaced) =
            (large_file(directory.path(), "removed"), large_file(directory.path(), "replaced"));
        let kept = directory.path().join("kept");
        fs::hard_link(&removed, &kept).unwrap();
        disk.remove_file(&removed).unwrap();
        let new = directory.path().join("new");
        fs::write(&new, "new").unwrap();
        disk.rename(&new, &replaced).unwrap();
        assert!(!removed.exists() && !new.exists());
        assert_eq!(fs::read(&replaced).unwrap(), b"new");
        wait_until_closed(&removed);
        wait_until_closed(&replaced);
        assert_eq!(fs::read(&kept).unwrap(), vec![7; BYTES], "it has another name");
    }
}
