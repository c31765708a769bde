//! Group commit with nothing around it: what comes from all connections of a core goes into one buffer, and that to
//! the disk.
//!
//! Connections read from their sockets straight into the buffer that gathers, so no byte is copied within the
//! process. While fewer commits are in flight than may be, the buffer leaves as soon as something is in it; as in the
//! broker no timer is involved. An answer is due when the commit that holds the frame's last byte and all commits before
//! it are on the disk.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::task::{Context, Waker};

use chronik_shards::format::wal::file_name;
use chronik_shards::io::local::Signal;
use chronik_shards::io::wal_files::{Wanted, prepare};
use chronik_shards::model::{ShardId, WalFileSeq};
use glommio::io::{DmaBuffer, DmaFile, OpenOptions};

use super::connection::Answers;
use super::frames::CorrelationId;

/// What a write's size and place are multiples of.
const BLOCK_BYTES: usize = 4096;
/// Linux's, on every architecture that io_uring runs on with this value.
const O_DSYNC: i32 = rustix::fs::OFlags::DSYNC.bits() as i32;

/// How commits are made.
#[derive(Clone, Copy, Debug)]
pub struct GroupOptions {
    /// Largest commit.
    pub group_bytes: usize,
    /// Commits that may be written at once.
    pub in_flight_max: usize,
    /// Size of the zero-filled file that they go round in.
    pub file_bytes: u64,
}

/// An answer that waits for a commit.
struct Due {
    answers: Rc<Answers>,
    id: CorrelationId,
}

/// A commit that is written.
struct InFlight {
    number: u64,
    is_written: bool,
    due: Vec<Due>,
}

/// The buffer that connections read into.
pub(super) struct Gathering {
    buffer: DmaBuffer,
    filled: usize,
    due: Vec<Due>,
}

impl Gathering {
    /// Where the next bytes go; nothing when it is full.
    pub(super) fn space(&mut self, bytes_max: usize) -> &mut [u8] {
        let end = (self.filled + bytes_max).min(self.buffer.len());
        &mut self.buffer.as_bytes_mut()[self.filled..end]
    }

    /// Takes the next bytes in, which are there; answers with them.
    pub(super) fn take_in(&mut self, bytes: usize) -> &[u8] {
        let from = self.filled;
        self.filled += bytes;
        &self.buffer.as_bytes()[from..self.filled]
    }
}

/// The log of one core.
pub(super) struct GroupCommit {
    file: DmaFile,
    options: GroupOptions,
    pub(super) gathering: RefCell<Gathering>,
    in_flight: RefCell<VecDeque<InFlight>>,
    next: Cell<u64>,
    position: Cell<u64>,
    kick: Signal,
    /// Connections that found no space.
    waiting: RefCell<Vec<Waker>>,
}

impl GroupCommit {
    /// Makes the file, which has no name once it is open: nothing is left behind.
    pub(super) async fn open(directory: &Path, options: GroupOptions) -> io::Result<Rc<Self>> {
        assert!(options.group_bytes.is_multiple_of(BLOCK_BYTES), "commits are whole blocks");
        assert!(options.in_flight_max > 0, "a commit has to go out");
        let room = options.group_bytes as u64 * (options.in_flight_max as u64 + 1);
        assert!(options.file_bytes >= room, "commits in flight do not overlap");
        let file = open_zeroes(directory, options.file_bytes).await?;
        let buffer = file.alloc_dma_buffer(options.group_bytes);
        Ok(Rc::new(Self {
            file,
            options,
            gathering: RefCell::new(Gathering { buffer, filled: 0, due: Vec::new() }),
            in_flight: RefCell::default(),
            next: Cell::new(0),
            position: Cell::new(0),
            kick: Signal::default(),
            waiting: RefCell::default(),
        }))
    }

    /// Bytes were taken in. `due` are the frames that they completed.
    pub(super) fn gathered(
        &self,
        gathering: &mut Gathering,
        answers: &Rc<Answers>,
        due: impl Iterator<Item = CorrelationId>,
    ) {
        gathering.due.extend(due.map(|id| Due { answers: Rc::clone(answers), id }));
        self.kick.raise();
    }

    /// Wakes the caller once there is space again.
    pub(super) fn await_space(&self, context: &Context<'_>) {
        self.waiting.borrow_mut().push(context.waker().clone());
        self.kick.raise();
    }

    /// Writes what gathers, for ever.
    pub(super) async fn run(self: Rc<Self>) {
        loop {
            self.kick.wait().await;
            // What is ready to run may add to the group.
            glommio::executor().yield_task_queue_now().await;
            while let Some((number, buffer, position)) = self.next_commit() {
                let this = Rc::clone(&self);
                glommio::spawn_local(async move {
                    let expected = buffer.len();
                    let written = this.file.write_at(buffer, position).await;
                    match written {
                        Ok(bytes) if bytes == expected => this.written(number),
                        other => super::server::give_up(&format!("a commit failed: {other:?}")),
                    }
                })
                .detach();
            }
        }
    }

    fn next_commit(&self) -> Option<(u64, DmaBuffer, u64)> {
        let mut in_flight = self.in_flight.borrow_mut();
        let mut gathering = self.gathering.borrow_mut();
        if gathering.filled == 0 || in_flight.len() >= self.options.in_flight_max {
            return None;
        }
        let bytes = gathering.filled.next_multiple_of(BLOCK_BYTES);
        let next = self.file.alloc_dma_buffer(self.options.group_bytes);
        let mut buffer = std::mem::replace(&mut gathering.buffer, next);
        buffer.as_bytes_mut()[gathering.filled..bytes].fill(0);
        buffer.trim_to_size(bytes);
        gathering.filled = 0;
        let number = self.next.replace(self.next.get() + 1);
        let due = std::mem::take(&mut gathering.due);
        in_flight.push_back(InFlight { number, is_written: false, due });
        let mut position = self.position.get();
        if position + bytes as u64 > self.options.file_bytes {
            position = 0;
        }
        self.position.set(position + bytes as u64);
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
        Some((number, buffer, position))
    }

    /// A commit is on the disk: answers leave in the order of commits.
    fn written(&self, number: u64) {
        let mut in_flight = self.in_flight.borrow_mut();
        let commit = in_flight.iter_mut().find(|commit| commit.number == number);
        commit.expect("it was in flight").is_written = true;
        while in_flight.front().is_some_and(|commit| commit.is_written) {
            let commit = in_flight.pop_front().expect("it was just looked at");
            for due in &commit.due {
                due.answers.push(due.id);
            }
            for due in &commit.due {
                due.answers.wake();
            }
        }
        self.kick.raise();
    }
}

/// A zero-filled file without a name, for durable writes around the page cache.
pub(super) async fn open_zeroes(directory: &Path, bytes: u64) -> io::Result<DmaFile> {
    let (seq, place) = (WalFileSeq(1), directory.display());
    let named = |error: &dyn std::fmt::Display| io::Error::other(format!("{place}: {error}"));
    let wanted = Wanted { seq, recycle: None };
    prepare(ShardId(0), directory, bytes, wanted).map_err(|error| named(&error))?;
    let path = directory.join(file_name(seq));
    // For writing only: see `chronik_shards::io::wal_writer`.
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(O_DSYNC);
    let opened = options.dma_open(&path).await;
    std::fs::remove_file(&path)?;
    opened.map_err(|error| named(&error))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    use chronik_shards::io::runtime::{self, ExecutorPlan, ShardCpus};

    use super::*;

    #[test]
    fn an_answer_waits_for_the_disk_and_the_disk_has_every_byte_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let executor = ExecutorPlan {
            cpus: ShardCpus::Inherited,
            spin_before_park: std::time::Duration::ZERO,
            ring_buffer_bytes: 64 << 10,
        };
        let options = GroupOptions {
            group_bytes: 2 * BLOCK_BYTES,
            in_flight_max: 2,
            file_bytes: 64 * BLOCK_BYTES as u64,
        };
        let thread = runtime::start(ShardId(0), executor, move || async move {
            let log = GroupCommit::open(&path, options).await.unwrap();
            let answers: Rc<Answers> = Rc::default();
            let mut expected = Vec::new();
            glommio::spawn_local(Rc::clone(&log).run()).detach();
            for number in 1..=20u8 {
                let bytes = usize::from(number) * 300;
                {
                    let mut gathering = log.gathering.borrow_mut();
                    let space = gathering.space(bytes);
                    assert_eq!(space.len(), bytes, "what is committed makes room");
                    space.fill(number);
                    gathering.take_in(bytes);
                    let due = std::iter::once([0, 0, 0, number]);
                    log.gathered(&mut gathering, &answers, due);
                }
                let before = answers.pending_bytes();
                assert_eq!(before, (usize::from(number) - 1) * 8, "not before it is written");
                while answers.pending_bytes() == before {
                    glommio::timer::sleep(std::time::Duration::from_micros(50)).await;
                }
                expected.resize(expected.len().next_multiple_of(BLOCK_BYTES), 0);
                expected.extend(vec![number; bytes]);
            }
            let descriptor = format!("/proc/self/fd/{}", log.file.as_raw_fd());
            let mut found = vec![0; expected.len()];
            File::open(descriptor).unwrap().read_exact_at(&mut found, 0).unwrap();
            assert!(found == expected, "the disk has other bytes");
        });
        thread.unwrap().join().unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
