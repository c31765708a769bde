//! Writes commits: one aligned write each, durable when it returns, up to what the source allows at
//! once.
//!
//! The writer decides nothing. After each turn of inputs it is kicked once, lets the other tasks of
//! the shard run once so that a group gathers without a timer, and then pulls commits until the
//! source has none. An operator who wants fewer and larger writes may have it linger before it pulls. A write that fails or comes up short ends the process: the kernel may have
//! dropped the pages, so that trying again would prove nothing.
//!
//! Files are opened for writing only, and the first open happens before any other file of the
//! executor is opened for direct IO: the runtime probes the first file it opens with a read, and
//! would take the device for one that can be polled if that read hit an empty file. On a write-only
//! file the probe fails and settles the matter.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glommio::TaskQueueHandle;
use glommio::io::{DmaFile, OpenOptions};
use rustix::fs::FlockOperation;

use super::local::Signal;
use super::process::stop_process;
use super::wal_files::Wanted;
use crate::format::wal::{encode, encoded_bytes, file_name};
use crate::format::wal_entry::Commit;
use crate::model::{Lsn, ShardId, WalFileSeq};

/// Where commits come from and where their ends are reported.
pub trait CommitSource {
    /// The next commit to write, or `None` until the next kick.
    fn next_commit(&self) -> Option<Commit>;

    /// A commit is on the disk.
    fn commit_written(&self, lsn: Lsn, bytes: usize);
}

/// What a test wants to happen to a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteFault {
    /// Nothing.
    None,
    /// It begins so much later.
    Delay(Duration),
    /// It fails with this error number instead of being done.
    Fail(i32),
}

/// Asked before each write; for tests of slow and failing disks.
#[derive(Clone)]
pub struct WriteHook(pub Arc<dyn Fn(ShardId, Lsn) -> WriteFault + Send + Sync>);

impl fmt::Debug for WriteHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WriteHook")
    }
}

/// What may slow a writer down.
#[derive(Clone, Debug, Default)]
pub struct WriterOptions {
    /// How long a commit that could go out waits for more entries.
    pub linger: Duration,
    /// Asked before each write.
    pub hook: Option<WriteHook>,
}

/// The WAL of one shard.
#[derive(Debug)]
pub struct WalWriter {
    shard: ShardId,
    directory: PathBuf,
    options: WriterOptions,
    files: RefCell<BTreeMap<WalFileSeq, Rc<DmaFile>>>,
    kick: Signal,
}

impl WalWriter {
    /// Opens the WAL of `shard` at the file `first`, which is prepared.
    pub async fn open(
        shard: ShardId,
        directory: PathBuf,
        first: WalFileSeq,
        options: WriterOptions,
    ) -> io::Result<Self> {
        let writer =
            Self { shard, directory, options, files: RefCell::default(), kick: Signal::default() };
        let file = writer.open_file(first).await?;
        writer.files.borrow_mut().insert(first, file);
        Ok(writer)
    }

    async fn open_file(&self, seq: WalFileSeq) -> io::Result<Rc<DmaFile>> {
        let path = self.directory.join(file_name(seq));
        let file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_DSYNC)
            .dma_open(&path)
            .await
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        // Held as long as any write to the file is under way, even that of a process that was killed:
        // see `wal_files::await_writers`.
        // SAFETY: the file is open and outlives the call.
        let descriptor = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
        rustix::fs::flock(descriptor, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        Ok(Rc::new(file))
    }

    /// Closes every file, and so gives its lock back, once nothing is written any more.
    pub async fn close(&self) {
        let files = std::mem::take(&mut *self.files.borrow_mut());
        for file in files.into_values().filter_map(Rc::into_inner) {
            if let Err(error) = file.close().await {
                tracing::warn!(shard = %self.shard, %error, "a WAL file was not closed");
            }
        }
    }

    /// A file was prepared: commits may go there once this returns.
    pub async fn file_prepared(&self, wanted: Wanted) {
        // A recycled file is the same file under another name.
        let known = wanted.recycle.and_then(|old| self.files.borrow_mut().remove(&old));
        let file = match known {
            Some(file) => file,
            None => match self.open_file(wanted.seq).await {
                Ok(file) => file,
                Err(error) => stop_process(format_args!("cannot open a WAL file: {error}")),
            },
        };
        self.files.borrow_mut().insert(wanted.seq, file);
    }

    /// Commits may be waiting.
    pub fn kick(&self) {
        self.kick.raise();
    }

    /// Pulls and writes, for ever. Each write runs as a task of `queue`.
    pub async fn run<S: CommitSource + 'static>(
        self: Rc<Self>,
        source: Rc<S>,
        queue: TaskQueueHandle,
    ) {
        loop {
            self.kick.wait().await;
            // What is ready to run may add to the group.
            glommio::executor().yield_task_queue_now().await;
            if !self.options.linger.is_zero() {
                glommio::timer::sleep(self.options.linger).await;
            }
            while let Some(commit) = source.next_commit() {
                let (writer, source) = (Rc::clone(&self), Rc::clone(&source));
                let task = async move {
                    let bytes = writer.write(&commit).await;
                    source.commit_written(commit.lsn, bytes);
                    writer.kick();
                };
                match glommio::spawn_local_into(task, queue) {
                    Ok(task) => task.detach(),
                    Err(error) => stop_process(format_args!("the WAL's queue is gone: {error}")),
                };
            }
        }
    }

    /// Writes one commit. Returns when it is on the disk, with its length.
    async fn write(&self, commit: &Commit) -> usize {
        let file = self.files.borrow().get(&commit.file).map(Rc::clone);
        let file = file.expect("the source uses files after they were prepared");
        let bytes = encoded_bytes(&commit.entries);
        let mut buffer = file.alloc_dma_buffer(bytes);
        encode(self.shard, commit, &mut buffer.as_bytes_mut()[..bytes]);
        debug_assert_eq!(buffer.len(), bytes);

        let hook = self.options.hook.as_ref();
        let fault = hook.map_or(WriteFault::None, |hook| (hook.0)(self.shard, commit.lsn));
        if let WriteFault::Delay(delay) = fault {
            glommio::timer::sleep(delay).await;
        }
        let written = match fault {
            WriteFault::Fail(number) => Err(io::Error::from_raw_os_error(number).to_string()),
            WriteFault::None | WriteFault::Delay(_) => {
                file.write_at(buffer, commit.position).await.map_err(|error| error.to_string())
            }
        };
        match written {
            Ok(written) if written == bytes => bytes,
            Ok(written) => stop_process(format_args!(
                "WAL of shard {}: {} of {bytes} bytes of commit {} were written",
                self.shard, written, commit.lsn
            )),
            Err(error) => stop_process(format_args!(
                "WAL of shard {}: commit {} failed: {error}",
                self.shard, commit.lsn
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::process::Command;
    use std::sync::Mutex;
    use std::time::Instant;

    use glommio::{LocalExecutorBuilder, Placement};

    use super::*;
    use crate::format::wal::{BLOCK_BYTES, Scanned, Scanner, decode_entries};
    use crate::format::wal_entry::WalEntry;
    use crate::io::runtime::TaskQueues;
    use crate::io::wal_files::prepare;
    use crate::model::{Offset, ReplicaKey};

    const FILE_BYTES: u64 = 64 * BLOCK_BYTES;

    /// Commits made beforehand, at most two out at a time.
    #[derive(Default)]
    struct Prepared {
        commits: RefCell<VecDeque<Commit>>,
        out: Cell<usize>,
        most_out: Cell<usize>,
        written: RefCell<Vec<Lsn>>,
        left: Cell<usize>,
        done: Signal,
    }

    impl CommitSource for Prepared {
        fn next_commit(&self) -> Option<Commit> {
            if self.out.get() == 2 {
                return None;
            }
            let commit = self.commits.borrow_mut().pop_front()?;
            self.out.set(self.out.get() + 1);
            self.most_out.set(self.most_out.get().max(self.out.get()));
            Some(commit)
        }

        fn commit_written(&self, lsn: Lsn, _bytes: usize) {
            self.out.set(self.out.get() - 1);
            self.written.borrow_mut().push(lsn);
            self.left.set(self.left.get() - 1);
            if self.left.get() == 0 {
                self.done.raise();
            }
        }
    }

    fn commits(count: u64) -> VecDeque<Commit> {
        let mut place = (WalFileSeq(1), 0);
        (1..=count)
            .map(|lsn| {
                let entries: Vec<_> = (0..=lsn * 40 % 700)
                    .map(|offset| WalEntry::LogStart {
                        key: ReplicaKey::default(),
                        log_start_offset: Offset(offset as i64),
                    })
                    .collect();
                let bytes = encoded_bytes(&entries) as u64;
                if place.1 + bytes > FILE_BYTES {
                    place = (place.0.next(), 0);
                }
                let position = place.1;
                place.1 += bytes;
                let durable = Lsn(lsn.saturating_sub(3));
                Commit { lsn: Lsn(lsn), file: place.0, position, durable, entries }
            })
            .collect()
    }

    fn write_all(directory: PathBuf, count: u64, hook: Option<WriteHook>) -> (Vec<Lsn>, usize) {
        write_lingering(directory, count, hook, Duration::ZERO)
    }

    fn write_lingering(
        directory: PathBuf,
        count: u64,
        hook: Option<WriteHook>,
        linger: Duration,
    ) -> (Vec<Lsn>, usize) {
        LocalExecutorBuilder::new(Placement::Unbound)
            .io_memory(1 << 20)
            .spawn(move || async move {
                let source = Rc::new(Prepared::default());
                *source.commits.borrow_mut() = commits(count);
                source.left.set(count as usize);
                let queues = TaskQueues::create();
                let options = WriterOptions { linger, hook };
                let writer = WalWriter::open(ShardId(3), directory, WalFileSeq(1), options);
                let writer = Rc::new(writer.await.unwrap());
                writer.file_prepared(Wanted { seq: WalFileSeq(2), recycle: None }).await;
                glommio::spawn_local(Rc::clone(&writer).run(Rc::clone(&source), queues.urgent))
                    .detach();
                writer.kick();
                source.done.wait().await;
                (source.written.take(), source.most_out.get())
            })
            .unwrap()
            .join()
            .unwrap()
    }

    fn prepared_directory() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for seq in 1..=2 {
            let wanted = Wanted { seq: WalFileSeq(seq), recycle: None };
            prepare(ShardId(0), directory.path(), FILE_BYTES, wanted).unwrap();
        }
        directory
    }

    #[test]
    fn commits_read_back_from_both_files_and_two_are_out_at_once() {
        let directory = prepared_directory();
        let (mut written, most_out) = write_all(directory.path().to_owned(), 30, None);
        written.sort();
        assert_eq!(written, (1..=30).map(Lsn).collect::<Vec<_>>());
        assert_eq!(most_out, 2);

        let mut expected = commits(30).into_iter();
        for seq in [WalFileSeq(1), WalFileSeq(2)] {
            let file = File::open(directory.path().join(file_name(seq))).unwrap();
            assert_eq!(file.metadata().unwrap().len(), FILE_BYTES, "files do not grow");
            let read = |at: u64, out: &mut [u8]| file.read_exact_at(out, at);
            let mut scanner = Scanner::new(ShardId(3), seq, FILE_BYTES, read);
            while let Some(scanned) = scanner.next_commit().unwrap() {
                let Scanned::Commit { header, payload } = scanned else { panic!("damaged") };
                let expected = expected.next().unwrap();
                assert_eq!((header.lsn, header.position), (expected.lsn, expected.position));
                let entries = decode_entries(&payload, header.entry_count).unwrap();
                assert_eq!(format!("{entries:?}"), format!("{:?}", expected.entries));
            }
        }
        assert!(expected.next().is_none());
    }

    #[test]
    fn delayed_write_is_overtaken_by_the_one_behind_it() {
        let directory = prepared_directory();
        let hook = WriteHook(Arc::new(|_, lsn| match lsn {
            Lsn(1) => WriteFault::Delay(Duration::from_millis(20)),
            _ => WriteFault::None,
        }));
        let (written, most_out) = write_all(directory.path().to_owned(), 6, Some(hook));
        assert_ne!(written.first(), Some(&Lsn(1)));
        assert_eq!((written.len(), most_out), (6, 2));
    }

    #[test]
    fn a_lingering_writer_begins_no_earlier_and_writes_everything() {
        let directory = prepared_directory();
        let first = Arc::new(Mutex::new(None));
        let hook = WriteHook({
            let first = Arc::clone(&first);
            Arc::new(move |_, _| {
                first.lock().unwrap().get_or_insert_with(Instant::now);
                WriteFault::None
            })
        });
        let (linger, begun) = (Duration::from_millis(5), Instant::now());
        let path = directory.path().to_owned();
        let (written, _) = write_lingering(path, 6, Some(hook), linger);
        assert_eq!(written.len(), 6);
        assert!(first.lock().unwrap().unwrap().duration_since(begun) >= linger);
    }

    const CHILD: &str = "CHRONIK_TEST_FAILING_WAL";

    #[test]
    fn failing_write_ends_the_process_and_says_which() {
        if let Ok(directory) = std::env::var(CHILD) {
            let seen = Mutex::new(0);
            let hook = WriteHook(Arc::new(move |_, lsn| {
                *seen.lock().unwrap() += 1;
                if lsn == Lsn(2) { WriteFault::Fail(libc::EIO) } else { WriteFault::None }
            }));
            write_all(directory.into(), 6, Some(hook));
            unreachable!("the second commit fails");
        }
        let directory = prepared_directory();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("io::wal_writer::tests::failing_write_ends_the_process_and_says_which")
            .env(CHILD, directory.path())
            .output()
            .unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("WAL of shard 3: commit 2 failed"), "{text}");
    }
}
