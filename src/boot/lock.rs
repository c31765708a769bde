//! One process per data directory.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use super::BootError;

/// An exclusive lock on a data directory. The kernel lets go of it when the process ends, however it
/// ends.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// [`BootError::DirectoryInUse`] or [`BootError::Directory`].
    pub fn acquire(data_dir: &Path) -> Result<Self, BootError> {
        let failed = |source| BootError::Directory { path: data_dir.to_owned(), source };
        fs::create_dir_all(data_dir).map_err(failed)?;
        let mut options = File::options();
        let file = options
            .create(true)
            .truncate(false)
            .write(true)
            .open(data_dir.join("lock"))
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(BootError::DirectoryInUse(data_dir.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}
