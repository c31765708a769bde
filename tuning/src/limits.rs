//! What the kernel must allow: io_uring, locked memory, open files.
//!
//! Each rule is here once: a node's plan, its start and the check of a host ask the same functions. A
//! refusal names the limit and what to raise it to, instead of failing within a runtime later.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Memory that a ring registers where the limit on locked memory allows it.
pub const RING_BUFFER_BYTES_WANTED: u64 = 1 << 20;

/// Smallest memory of a ring that a shard's executor takes.
pub const RING_BUFFER_BYTES_MIN: u64 = 64 << 10;

/// Rings of a shard, each of which registers its memory.
pub const RINGS_PER_SHARD: u64 = 3;

/// Limit on locked memory below which the runtime does not start, whatever its rings register.
const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Open files below which a node does not start.
const OPEN_FILES_MIN: u64 = 1024;

/// Open files of a shard below which it does not start.
const OPEN_FILES_PER_SHARD_MIN: u64 = 128;

/// Connections beyond which a node accepts none, however many files it may open.
pub const CONNECTIONS_MAX: usize = 20_000;

/// A limit that is too low. In words: the fact, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {}", self.fact(), self.remedy())]
pub enum LimitError {
    /// The kernel does not offer io_uring to this process.
    IoUring {
        /// What the kernel says.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Locked memory does not suffice for the rings.
    Memlock {
        /// The limit.
        found: u64,
        /// What is needed.
        required: u64,
        /// For how many shards.
        shards: usize,
    },
    /// Too few files may be open.
    OpenFiles {
        /// The limit.
        found: u64,
        /// What is needed.
        required: u64,
        /// For how many shards.
        shards: usize,
    },
}

impl LimitError {
    /// What is too low.
    #[must_use]
    pub fn fact(&self) -> String {
        match self {
            Self::IoUring { reason, .. } => format!("io_uring is not available, {reason}"),
            Self::Memlock { found, required, shards } => format!(
                "the limit on locked memory (RLIMIT_MEMLOCK) is {found} bytes and {shards} shards need \
                 {required}"
            ),
            Self::OpenFiles { found, required, shards } => format!(
                "the limit on open files (RLIMIT_NOFILE) is {found} and {shards} shards need {required}"
            ),
        }
    }

    /// How to raise it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::IoUring { remedy, .. } => (*remedy).to_owned(),
            Self::Memlock { required, .. } => memlock_remedy(*required),
            Self::OpenFiles { required, .. } => open_files_remedy(*required),
        }
    }
}

/// How to allow so many bytes of locked memory.
#[must_use]
pub fn memlock_remedy(bytes: u64) -> String {
    let kib = bytes.div_ceil(1024);
    format!("raise it with `ulimit -l {kib}`, LimitMEMLOCK={bytes} or --ulimit memlock={bytes}")
}

/// How to allow so many open files.
#[must_use]
pub fn open_files_remedy(files: u64) -> String {
    format!("raise it with `ulimit -Hn {files}`, LimitNOFILE={files} or --ulimit nofile={files}")
}

/// How the files that may be open are shared out. The parts together leave an eighth for the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenFiles {
    /// Connections of the node.
    pub connections_max: usize,
    /// Segments that a shard keeps open for reading.
    pub read_per_shard: usize,
    /// Segments that a shard keeps open for writing.
    pub written_per_shard: usize,
}

impl OpenFiles {
    /// Shares out `limit` descriptors.
    ///
    /// # Errors
    /// [`LimitError::OpenFiles`].
    pub fn share(limit: u64, shards: usize) -> Result<Self, LimitError> {
        let required = OPEN_FILES_MIN.max(OPEN_FILES_PER_SHARD_MIN * shards as u64);
        if limit < required {
            return Err(LimitError::OpenFiles { found: limit, required, shards });
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Self {
            connections_max: (limit / 2).min(CONNECTIONS_MAX),
            read_per_shard: (limit / 4 / shards).min(4096),
            written_per_shard: (limit / 8 / shards).min(4096),
        })
    }
}

/// Bytes that each ring of `shards` shards may register within a limit on locked memory.
///
/// # Errors
/// [`LimitError::Memlock`].
pub fn ring_buffer_bytes(limit: Option<u64>, shards: usize) -> Result<usize, LimitError> {
    let Some(limit) = limit else { return Ok(RING_BUFFER_BYTES_WANTED as usize) };
    let rings = RINGS_PER_SHARD * shards as u64;
    let required = (rings * RING_BUFFER_BYTES_MIN).max(MEMLOCK_BYTES_MIN);
    if limit < required {
        return Err(LimitError::Memlock { found: limit, required, shards });
    }
    // A quarter is left for what else the user has locked.
    let share = limit / 4 * 3 / rings / 4096 * 4096;
    Ok(share.clamp(RING_BUFFER_BYTES_MIN, RING_BUFFER_BYTES_WANTED) as usize)
}

/// Limit on locked memory at which each ring registers all that it wants.
#[must_use]
pub fn memlock_bytes_wanted(shards: usize) -> u64 {
    RINGS_PER_SHARD * shards as u64 * RING_BUFFER_BYTES_WANTED / 3 * 4
}

/// Asks the kernel for a small ring and lets go of it again.
///
/// # Errors
/// [`LimitError::IoUring`] with what stands in the way.
pub fn check_io_uring() -> Result<(), LimitError> {
    // `struct io_uring_params` is 120 bytes; zeroes ask for nothing special.
    let mut params = [0u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes at the pointer, which is what is there.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, params.as_mut_ptr()) };
    if ring >= 0 {
        let ring = i32::try_from(ring).expect("a file descriptor");
        // SAFETY: the descriptor was just made and belongs to nobody else.
        drop(unsafe { OwnedFd::from_raw_fd(ring) });
        return Ok(());
    }
    Err(io_uring_refused(&io::Error::last_os_error()))
}

fn io_uring_refused(error: &io::Error) -> LimitError {
    let (reason, remedy) = match error.raw_os_error() {
        Some(libc::ENOSYS) => (
            "this kernel does not have it".to_owned(),
            "run Linux 5.8 or newer, built with io_uring",
        ),
        Some(libc::EPERM | libc::EACCES) => (
            "this process may not use it".to_owned(),
            "run `sysctl -w kernel.io_uring_disabled=0`, and in a container allow io_uring_setup, \
             io_uring_enter and io_uring_register in its seccomp profile",
        ),
        Some(libc::ENOMEM) => {
            ("too little memory may be locked".to_owned(), "raise it with `ulimit -l 8192`")
        }
        _ => (error.to_string(), "see `man 2 io_uring_setup`"),
    };
    LimitError::IoUring { reason, remedy }
}

/// Raises the number of files that may be open to all that is allowed; answers with it.
///
/// # Errors
/// When the system refuses what it refuses nobody.
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_buffers_fit_the_limit_and_shrink_before_refusing() {
        let mib = 1 << 20;
        assert_eq!(ring_buffer_bytes(None, 64), Ok(mib));
        assert_eq!(ring_buffer_bytes(Some(8 << 20), 2), Ok(mib));
        let bytes = ring_buffer_bytes(Some(8 << 20), 20).unwrap();
        assert!((RING_BUFFER_BYTES_MIN as usize..=8 * mib / 60).contains(&bytes), "{bytes}");
        assert_eq!(ring_buffer_bytes(Some(memlock_bytes_wanted(64)), 64), Ok(mib));
    }

    #[test]
    fn too_little_locked_memory_says_what_to_raise() {
        let error = ring_buffer_bytes(Some(64 << 10), 1).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("RLIMIT_MEMLOCK") && text.contains("ulimit -l 512"), "{text}");
        assert!(ring_buffer_bytes(Some(8 << 20), 64).is_err());
    }

    #[test]
    fn open_files_are_shared_out_within_their_limit() {
        for (limit, shards) in [(1024, 1), (1024, 8), (20_000, 2), (1 << 30, 64), (u64::MAX, 256)] {
            let files = OpenFiles::share(limit, shards).unwrap();
            let per_shard = files.read_per_shard + files.written_per_shard;
            assert!((files.connections_max + shards * per_shard) as u64 <= limit);
            assert!(files.connections_max > 0 && files.read_per_shard >= 16);
            assert!(files.written_per_shard >= 8, "{limit} {shards}");
        }
        let error = OpenFiles::share(4096, 64).unwrap_err().to_string();
        assert!(error.contains("RLIMIT_NOFILE") && error.contains("ulimit -Hn 8192"), "{error}");
        assert!(OpenFiles::share(1023, 1).is_err());
    }

    #[test]
    fn open_files_are_raised_to_what_is_allowed() {
        let raised = raise_open_files().unwrap();
        assert_eq!(raise_open_files().unwrap(), raised);
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), raised);
    }

    #[test]
    fn a_refused_ring_names_what_is_in_the_way() {
        let line = |errno| io_uring_refused(&io::Error::from_raw_os_error(errno)).to_string();
        assert!(line(libc::ENOSYS).contains("5.8"));
        assert!(line(libc::EPERM).contains("kernel.io_uring_disabled"));
        assert!(line(libc::ENOMEM).contains("ulimit -l"));
        assert!(line(libc::EMFILE).contains("Too many open files"));
    }
}
