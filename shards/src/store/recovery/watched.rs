//! A disk that remembers whether anything was changed through it that has to be durable.
//!
//! Cutting a file does not count. What recovery cuts is void: should it come back in a crash, it is cut
//! again, and what is written in its place is synced on its own account.
//!
//! A start after an orderly stop changes no segment, and need not wait until the file system has
//! written back what other processes left.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::path::Path;

use crate::store::disk::{DirEntry, Disk, OpenMode};

/// Passes everything on to another disk.
pub struct WatchedDisk<'a, D> {
    disk: &'a D,
    is_changed: Cell<bool>,
}

impl<'a, D: Disk> WatchedDisk<'a, D> {
    /// Nothing was changed yet.
    pub fn new(disk: &'a D) -> Self {
        Self { disk, is_changed: Cell::new(false) }
    }

    /// Whether content was written or a name changed.
    pub fn is_changed(&self) -> bool {
        self.is_changed.get()
    }

    fn changing(&self) -> &'a D {
        self.is_changed.set(true);
        self.disk
    }
}

impl<D: Disk> Disk for WatchedDisk<'_, D> {
    type File = D::File;

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<D::File> {
        // May create the file, which is nothing to lose before something is written to it.
        self.disk.open(path, mode)
    }

    fn bytes(&self, file: &D::File) -> io::Result<u64> {
        self.disk.bytes(file)
    }

    fn read_at(&self, file: &D::File, position: u64, out: &mut [u8]) -> io::Result<usize> {
        self.disk.read_at(file, position, out)
    }

    fn will_read(&self, file: &D::File, bytes: u64) {
        self.disk.will_read(file, bytes);
    }

    fn write_at(&self, file: &D::File, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        self.changing().write_at(file, position, slices)
    }

    fn truncate(&self, file: &D::File, bytes: u64) -> io::Result<()> {
        self.disk.truncate(file, bytes)
    }

    fn sync(&self, file: &D::File) -> io::Result<()> {
        self.disk.sync(file)
    }

    fn start_writeback(&self, _file: &D::File, _position: u64, _bytes: u64) -> io::Result<()> {
        // A start would wait behind it wherever it syncs a file or a directory, and the device has WALs to
        // read. Whoever syncs the file system later writes it back.
        Ok(())
    }

    fn sync_filesystem(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_filesystem(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.changing().create_dir(dir)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.changing().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.changing().remove_file(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.changing().remove_dir(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.list(dir)
    }
}
