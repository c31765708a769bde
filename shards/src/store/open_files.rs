//! A bounded set of open segment files, so that thousands of partitions need few descriptors.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::disk::{Disk, OpenMode, read_file};
use super::paths::{SegmentFile, segment_file};
use crate::format::partition_metadata;
use crate::model::{Offset, ReplicaKey};

type Name = (ReplicaKey, SegmentFile, Offset);

/// Open files, least recently used first out.
pub struct OpenFiles<D: Disk> {
    files: BTreeMap<Name, (u64, D::File)>,
    /// The same by their last use.
    by_use: BTreeMap<u64, Name>,
    files_max: usize,
    uses: u64,
}

impl<D: Disk> OpenFiles<D> {
    /// Keeps at most `files_max` open.
    pub fn new(files_max: usize) -> Self {
        Self {
            files: BTreeMap::new(),
            by_use: BTreeMap::new(),
            files_max: files_max.max(1),
            uses: 0,
        }
    }

    /// The file of a segment, opened for writing and created if needed.
    pub fn get(&mut self, disk: &D, dir: &Path, name: Name) -> io::Result<&D::File> {
        self.uses += 1;
        if !self.files.contains_key(&name) {
            self.make_room();
            let (key, kind, base_offset) = name;
            let file = disk.open(&segment_file(dir, kind, base_offset), OpenMode::Write)?;
            // After the open, not before: a newer topic of the same name may have taken the
            // directory's name a moment ago. Directories appear with their metadata, so what was
            // opened in the newer topic's is found out here.
            let metadata = read_file(disk, &dir.join(partition_metadata::FILE_NAME))?;
            let owner = str::from_utf8(&metadata).ok().and_then(partition_metadata::decode);
            if owner != Some(key.topic_id) {
                return Err(io::Error::other(format!("{} is not of {key}", dir.display())));
            }
            self.files.insert(name, (0, file));
        }
        let (used, file) = self.files.get_mut(&name).expect("opened above");
        self.by_use.remove(used);
        *used = self.uses;
        self.by_use.insert(self.uses, name);
        Ok(file)
    }

    /// Closes the files of a partition from a base offset on, or all of them.
    pub fn close(&mut self, key: ReplicaKey, from: Option<Offset>) {
        let stays = |name: &Name| name.0 != key || from.is_some_and(|from| name.2 < from);
        self.files.retain(|name, _| stays(name));
        self.by_use.retain(|_, name| stays(name));
    }

    fn make_room(&mut self) {
        while self.files.len() >= self.files_max {
            let Some((_, name)) = self.by_use.pop_first() else { return };
            self.files.remove(&name);
        }
    }
}
