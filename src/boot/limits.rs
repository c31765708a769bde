//! What the kernel must offer: io_uring, locked memory, open files.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::{BootError, MEMLOCK_BYTES_MIN, OPEN_FILES_MIN};

/// Asks the kernel for a small ring and lets go of it again.
///
/// # Errors
/// [`BootError::IoUring`] with what stands in the way.
pub fn check_io_uring() -> Result<(), BootError> {
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
    let error = io::Error::last_os_error();
    Err(BootError::IoUring(match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel does not have it; 5.8 or newer is needed".to_owned(),
        Some(libc::EPERM | libc::EACCES) => {
            "this process may not use it; see sysctl kernel.io_uring_disabled and the seccomp \
             profile of the container"
                .to_owned()
        }
        Some(libc::ENOMEM) => "too little memory may be locked; raise ulimit -l".to_owned(),
        _ => error.to_string(),
    }))
}

/// Checks how much memory may be locked.
///
/// # Errors
/// [`BootError::Limit`] below [`MEMLOCK_BYTES_MIN`].
pub fn check_memlock() -> Result<(), BootError> {
    let found = limit(libc::RLIMIT_MEMLOCK)?.rlim_cur;
    if found < MEMLOCK_BYTES_MIN {
        return Err(BootError::Limit {
            resource: "locked memory in bytes",
            found,
            required: MEMLOCK_BYTES_MIN,
            remedy: "raise it with ulimit -l (in KiB), LimitMEMLOCK= or --ulimit memlock",
        });
    }
    Ok(())
}

/// Raises the number of files that may be open to all that is allowed; answers with it.
///
/// # Errors
/// [`BootError::Limit`] below [`OPEN_FILES_MIN`].
pub fn raise_open_files() -> Result<u64, BootError> {
    let mut limit = limit(libc::RLIMIT_NOFILE)?;
    if limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: reads a struct that outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            let source = io::Error::last_os_error();
            return Err(BootError::System { what: "raising the limit of open files", source });
        }
    }
    if limit.rlim_cur < OPEN_FILES_MIN {
        return Err(BootError::Limit {
            resource: "open files",
            found: limit.rlim_cur,
            required: OPEN_FILES_MIN,
            remedy: "raise it with ulimit -Hn, LimitNOFILE= or --ulimit nofile",
        });
    }
    Ok(limit.rlim_cur)
}

fn limit(resource: libc::__rlimit_resource_t) -> Result<libc::rlimit, BootError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes a struct that outlives the call.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        let source = io::Error::last_os_error();
        return Err(BootError::System { what: "reading a resource limit", source });
    }
    Ok(limit)
}
