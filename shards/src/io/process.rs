//! What the process may use, and how it ends when it must not go on.
//!
//! Limits are looked at before anything is started, so that a refusal names the limit and what to
//! raise it to instead of failing within a runtime.

use std::fmt;
use std::io;
use std::sync::Once;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Names of threads whose panic ends the process.
pub const THREAD_PREFIX: &str = "chronik-";

/// Memory that an executor's rings register at best, each of its three rings anew.
const RING_BUFFERS_WANTED: u64 = 1 << 20;

/// Below this an executor does not start at all.
const MEMLOCK_MIN: u64 = 512 << 10;

/// Smallest ring buffers that an executor takes.
const RING_BUFFERS_MIN: u64 = 64 << 10;

/// Why the process cannot run as it was told to.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// Locked memory does not suffice for the rings.
    #[error(
        "the limit on locked memory (RLIMIT_MEMLOCK) is {found} bytes and {shards} shards need \
         {needed}: raise it with `ulimit -l {kib}`, LimitMEMLOCK= or --ulimit memlock={needed}",
        kib = needed.div_ceil(1024)
    )]
    Memlock {
        /// The limit.
        found: u64,
        /// What is needed.
        needed: u64,
        /// For how many shards.
        shards: usize,
    },
    /// A shard is to run on a CPU that this process may not use.
    #[error("shard {shard} is to run on CPU {cpu}, which is not in this process's affinity mask")]
    Cpu {
        /// The shard.
        shard: usize,
        /// The CPU.
        cpu: usize,
    },
    /// The system did not say.
    #[error("cannot read the process's limits: {0}")]
    Unknown(#[from] io::Error),
}

/// The CPUs this process may run on, ascending.
pub fn cpus() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect())
}

/// The set of CPUs that a helper thread may run on, taken before any thread was pinned.
#[derive(Clone, Copy)]
pub struct ProcessMask(CpuSet);

impl fmt::Debug for ProcessMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProcessMask({} CPUs)", self.0.count())
    }
}

impl ProcessMask {
    /// The calling thread's.
    pub fn current() -> io::Result<Self> {
        Ok(Self(sched_getaffinity(None)?))
    }

    /// Lets the calling thread run on all of them, whatever pin it inherited.
    pub fn apply(&self) {
        if let Err(error) = sched_setaffinity(None, &self.0) {
            tracing::warn!(%error, "a helper thread stays on its parent's CPU");
        }
    }
}

/// Checks locked memory for `shards` executors and says how many bytes each ring may register.
pub fn ring_buffer_bytes(shards: usize) -> Result<usize, LimitError> {
    let limit = getrlimit(Resource::Memlock).current;
    ring_buffers_within(limit, shards).map(|bytes| bytes as usize)
}

fn ring_buffers_within(limit: Option<u64>, shards: usize) -> Result<u64, LimitError> {
    let Some(limit) = limit else { return Ok(RING_BUFFERS_WANTED) };
    let rings = 3 * shards as u64;
    let needed = (rings * RING_BUFFERS_MIN).max(MEMLOCK_MIN);
    if limit < needed {
        return Err(LimitError::Memlock { found: limit, needed, shards });
    }
    // A quarter is left for what else the user has locked.
    let share = limit / 4 * 3 / rings / 4096 * 4096;
    Ok(share.clamp(RING_BUFFERS_MIN, RING_BUFFERS_WANTED))
}

/// Raises the soft limit on open files to the hard one. Returns the limit now.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, wanted)
    {
        tracing::warn!(%error, "the limit on open files stays at {:?}", limit.current);
        return limit.current.unwrap_or(u64::MAX);
    }
    limit.maximum.unwrap_or(u64::MAX)
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
    fn ring_buffers_fit_the_limit_and_shrink_before_refusing() {
        let mib = 1 << 20;
        assert_eq!(ring_buffers_within(None, 64).unwrap(), mib);
        assert_eq!(ring_buffers_within(Some(8 * mib), 2).unwrap(), mib);
        let bytes = ring_buffers_within(Some(8 * mib), 20).unwrap();
        assert!((RING_BUFFERS_MIN..=8 * mib / 60).contains(&bytes), "{bytes}");
    }

    #[test]
    fn too_little_locked_memory_says_what_to_raise() {
        let error = ring_buffers_within(Some(64 << 10), 1).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("RLIMIT_MEMLOCK") && text.contains("ulimit -l 512"), "{text}");
        assert!(ring_buffers_within(Some(8 << 20), 64).is_err());
    }

    #[test]
    fn this_process_has_a_cpu() {
        assert!(!cpus().unwrap().is_empty());
    }
}
