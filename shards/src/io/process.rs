//! The process that the shards are in: the CPUs of its threads, its memory, its end.
//!
//! Limits of the process are looked at by whoever plans a node, before anything is started.

use std::fmt;
use std::io;
use std::sync::Once;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Names of threads whose panic ends the process.
pub const THREAD_PREFIX: &str = "chronik-";

/// A set of CPUs that threads may run on.
#[derive(Clone, Copy)]
pub struct ProcessMask(CpuSet);

impl fmt::Debug for ProcessMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessMask({} CPUs)", self.0.count())
    }
}

impl ProcessMask {
    /// The calling thread's. Of the thread that starts a node, before it pins any.
    pub fn current() -> io::Result<Self> {
        Ok(Self(sched_getaffinity(None)?))
    }

    /// These CPUs; those beyond what a mask holds are left out.
    #[must_use]
    pub fn of(cpus: &[usize]) -> Self {
        let mut set = CpuSet::new();
        for cpu in cpus.iter().filter(|cpu| **cpu < CpuSet::MAX_CPU) {
            set.set(*cpu);
        }
        Self(set)
    }

    /// Lets the calling thread run on all of them, whatever pin it inherited.
    pub fn apply(&self) {
        if let Err(error) = sched_setaffinity(None, &self.0) {
            tracing::warn!(%error, "a thread stays on its parent's CPUs");
        }
    }
}

/// How far threads beside the shards stand back from them, in steps of `nice`.
const STAND_BACK: libc::c_int = 5;

/// Lets the calling thread stand back where a shard wants the same CPU: what it does may be late, what the
/// shard does is waited for.
pub fn stand_back() {
    // SAFETY: no memory is passed; on Linux 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, STAND_BACK) };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::warn!(%error, "a thread does not stand back from the shards");
    }
}

/// Free memory that the allocator keeps at the end of a heap.
const KEPT_FREE_BYTES: libc::c_int = 512 << 20;
/// Up to this, memory comes out of a heap rather than straight from the system: the most there can be.
const HEAP_BLOCK_BYTES_MAX: libc::c_int = 32 << 20;

/// Has the allocator keep what is freed, for the next batch or commit: memory from the system costs a page
/// fault each four kilobytes, which is more than all that is done with a batch. Idle times give it back:
/// [`give_memory_back`].
pub fn keep_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no memory of ours; may be called by any thread at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, HEAP_BLOCK_BYTES_MAX);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE_BYTES);
        // A heap that has become empty is given back unless the one before it has less room than this.
        libc::mallopt(libc::M_TOP_PAD, KEPT_FREE_BYTES);
    }
}

/// Gives memory that is free within the process back to the system.
///
/// The allocator keeps what is freed in the middle of its heap. Takes milliseconds for hundreds of
/// megabytes, in which allocations on all threads may wait: for idle times.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no memory of ours; may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Makes a panic on any of this crate's threads end the process, in debug builds too: a shard that
/// died alone would leave its clients waiting for ever.
pub fn abort_on_shard_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            report(info);
            let thread = std::thread::current();
            if thread.name().is_some_and(|name| name.starts_with(THREAD_PREFIX)) {
                std::process::abort();
            }
        }));
    });
}

/// Says why and ends the process at once, without unwinding or flushing anything.
pub fn stop_process(reason: fmt::Arguments<'_>) -> ! {
    tracing::error!("{reason}; stopping the process");
    eprintln!("chronik: {reason}; stopping the process");
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_where_its_mask_says() {
        let all = ProcessMask::current().unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|cpu| all.0.is_set(*cpu)).unwrap();
        std::thread::spawn(move || {
            ProcessMask::of(&[first, usize::MAX]).apply();
            let now = ProcessMask::current().unwrap();
            assert!(now.0.count() == 1 && now.0.is_set(first));
        })
        .join()
        .unwrap();
        assert_eq!(ProcessMask::current().unwrap().0, all.0);
    }
}
