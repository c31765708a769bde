//! The storage thread of a shard: file work that blocks, one job after the other, and compaction between them.
//!
//! The shard never waits for it. Jobs that find the channel full stay in a queue on the shard until
//! replies make room. That queue is bounded by what the machine has outstanding: one round, which is
//! an append per partition and a checkpoint, one group of large runs, and per partition at most one each of open, configure,
//! roll, delete and remove, since each waits for its reply before the machine gives it again.
//!
//! Compaction goes in short steps with rests that are longer than the steps. A job that comes meanwhile waits for no
//! more than one step.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use super::inbox::InboxSender;
use super::process::{ProcessMask, THREAD_PREFIX, stand_back, stop_process};
use crate::machine::effect::{StoreJob, StoreReply};
use crate::model::ShardId;
use crate::store::SegmentStore;
use crate::store::cleaner::CompactionStep;
use crate::store::disk::Disk;

/// Jobs handed over and not begun.
const JOBS_HANDED_OVER: usize = 256;

/// An error after which the process must stop.
pub type StorageError = Box<dyn std::error::Error + Send + Sync>;

/// What does the jobs of one shard.
pub trait Storage: Send {
    /// Does one job.
    ///
    /// # Errors
    /// Only such after which the process must stop; it does.
    fn execute(&mut self, job: StoreJob) -> Result<Vec<StoreReply>, StorageError>;

    /// Whether [`Storage::compact`] has something to do.
    fn is_compacting(&self) -> bool {
        false
    }

    /// Goes on with the compaction under way, for a moment.
    ///
    /// # Errors
    /// As [`Storage::execute`].
    fn compact(&mut self) -> Result<CompactionStep, StorageError> {
        Ok(CompactionStep::default())
    }

    /// How long compaction rests after a step that took so long and moved so many bytes.
    fn compaction_rest(&self, worked: Duration, _bytes: u64) -> Duration {
        worked
    }

    /// Ends in order, after the last job.
    ///
    /// # Errors
    /// As [`Storage::execute`].
    fn finish(self: Box<Self>) -> Result<(), StorageError>;
}

impl<D: Disk + Send> Storage for SegmentStore<D>
where
    D::File: Send,
{
    fn execute(&mut self, job: StoreJob) -> Result<Vec<StoreReply>, StorageError> {
        Ok(SegmentStore::execute(self, job)?)
    }

    fn is_compacting(&self) -> bool {
        SegmentStore::is_compacting(self)
    }

    fn compact(&mut self) -> Result<CompactionStep, StorageError> {
        Ok(SegmentStore::compact(self)?)
    }

    fn compaction_rest(&self, worked: Duration, bytes: u64) -> Duration {
        self.cleaner_limits().rest_after(worked, bytes)
    }

    fn finish(self: Box<Self>) -> Result<(), StorageError> {
        Ok(SegmentStore::finish(*self)?)
    }
}

/// The shard's end.
#[derive(Debug)]
pub struct StoreQueue {
    /// Gone once the queue is closed.
    jobs: RefCell<Option<Sender<StoreJob>>>,
    waiting: RefCell<VecDeque<StoreJob>>,
}

/// Starts the thread, which gives the jobs to `storage`, in order, and its replies to `replies`. It
/// ends when the queue is closed and what was in it is done.
pub fn start(
    shard: ShardId,
    mask: ProcessMask,
    replies: InboxSender<StoreReply>,
    storage: Box<dyn Storage>,
) -> io::Result<(StoreQueue, JoinHandle<()>)> {
    let (jobs, queue) = bounded(JOBS_HANDED_OVER);
    let thread = std::thread::Builder::new().name(format!("{THREAD_PREFIX}store-{shard}")).spawn(
        move || {
            mask.apply();
            stand_back();
            if let Err(error) = run(&queue, &replies, storage) {
                stop_process(format_args!("storage of shard {shard}: {error}"));
            }
        },
    )?;
    Ok((StoreQueue { jobs: RefCell::new(Some(jobs)), waiting: RefCell::default() }, thread))
}

fn run(
    queue: &Receiver<StoreJob>,
    replies: &InboxSender<StoreReply>,
    mut storage: Box<dyn Storage>,
) -> Result<(), StorageError> {
    let send = |all: Vec<StoreReply>| {
        for reply in all {
            // The shard ends first only when it is cut off; what is stored stays stored.
            let _ = replies.send(reply);
        }
    };
    let mut compact_at = Instant::now();
    loop {
        let job = match storage.is_compacting() {
            // A short step is due: it is short, and jobs without end must not hold it up for ever.
            true if compact_at <= Instant::now() => Err(RecvTimeoutError::Timeout),
            true => queue.recv_deadline(compact_at),
            false => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match job {
            Ok(job) => send(storage.execute(job)?),
            Err(RecvTimeoutError::Timeout) => {
                let begun = Instant::now();
                let step = storage.compact()?;
                send(step.replies);
                compact_at = Instant::now() + storage.compaction_rest(begun.elapsed(), step.bytes);
            }
            Err(RecvTimeoutError::Disconnected) => return storage.finish(),
        }
    }
}

impl StoreQueue {
    /// Hands a job over, behind those that wait. Never blocks.
    pub fn push(&self, job: StoreJob) {
        self.waiting.borrow_mut().push_back(job);
        self.flush();
    }

    /// Hands over what waits, as far as there is room. Call it after replies were taken.
    pub fn flush(&self) {
        let jobs = self.jobs.borrow();
        let Some(jobs) = &*jobs else { return };
        let mut waiting = self.waiting.borrow_mut();
        while let Some(job) = waiting.pop_front() {
            match jobs.try_send(job) {
                Ok(()) => {}
                Err(TrySendError::Full(job)) => {
                    waiting.push_front(job);
                    return;
                }
                Err(TrySendError::Disconnected(job)) => {
                    // The thread ends only after this queue; a panic there ends the process.
                    unreachable!("the storage thread left before {job:?}")
                }
            }
        }
    }

    /// Lets the thread end once it has done what it was handed.
    pub fn close(&self) {
        self.jobs.take();
    }

    /// Jobs that found no room yet.
    pub fn waiting(&self) -> usize {
        self.waiting.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::inbox::{Bell, Inbox};
    use crate::model::{Lsn, ReplicaKey};

    /// Waits for `gate` once, then counts.
    struct Counting {
        gate: Option<Receiver<()>>,
        next: i32,
    }

    impl Storage for Counting {
        fn execute(&mut self, job: StoreJob) -> Result<Vec<StoreReply>, StorageError> {
            if let Some(gate) = self.gate.take() {
                let _ = gate.recv();
            }
            assert!(matches!(job, StoreJob::Roll { key } if key.partition.0 == self.next));
            self.next += 1;
            Ok(vec![StoreReply::Checkpointed { lsn: Lsn(self.next as u64) }])
        }

        fn finish(self: Box<Self>) -> Result<(), StorageError> {
            Ok(())
        }
    }

    #[test]
    fn shard_never_waits_for_room_and_jobs_keep_their_order() {
        let (sender, inbox) = Inbox::new(4, Bell::new().unwrap().0);
        let (go, gate) = bounded::<()>(0);
        let mask = ProcessMask::current().unwrap();
        let storage = Box::new(Counting { gate: Some(gate), next: 0 });
        let (queue, thread) = start(ShardId(0), mask, sender, storage).unwrap();
        let jobs = 3 * JOBS_HANDED_OVER as i32;
        for partition in 0..jobs {
            let partition = crate::model::PartitionIndex(partition);
            queue.push(StoreJob::Roll { key: ReplicaKey { partition, ..Default::default() } });
        }
        assert!(queue.waiting() > JOBS_HANDED_OVER);
        drop(go);
        let mut replies = 0;
        while replies < jobs {
            match inbox.try_take() {
                Some(StoreReply::Checkpointed { .. }) => replies += 1,
                Some(other) => panic!("{other:?}"),
                None => std::thread::yield_now(),
            }
            queue.flush();
        }
        queue.close();
        thread.join().unwrap();
    }
}
