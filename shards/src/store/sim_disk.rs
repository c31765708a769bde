//! A disk in memory that loses what a real one may lose.
//!
//! Reads see every write at once. A [crash](SimDisk::crash) keeps, of what no sync has covered, a
//! subset drawn from the caller's seed: each 512-byte sector of a file on its own, a length between the
//! synced and the written one, and each change of a name on its own as far as it still makes sense.
//! Faults are asked for: no space beyond a quota, an error of the next sync or after a number of
//! changes, flipped bits. A durable write (`O_DSYNC`) is started and completed; a crash in between
//! leaves any of its sectors.
//!
//! Deterministic: ordered maps, and no randomness but the seed. Cloning gives another handle to the
//! same disk.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::disk::{DirEntry, Disk, OpenMode};

/// What is written at once or not at all.
pub const SECTOR_BYTES: usize = 512;

/// A handle to a simulated disk.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
}

/// An open file of a [`SimDisk`].
#[derive(Clone, Copy, Debug)]
pub struct SimFile {
    inode: u64,
    life: u64,
}

/// A durable write that is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct WriteInFlight(u64);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Dir,
    File(u64),
}

type Names = BTreeMap<PathBuf, Node>;

#[derive(Clone, Debug)]
enum NameChange {
    Put(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    /// Where it takes place; of a new name, where that is.
    fn place(&self) -> &Path {
        match self {
            Self::Put(path, _) | Self::Remove(path) | Self::Rename(_, path) => path,
        }
    }

    /// Names the same file after a directory above it was renamed.
    fn follow(&mut self, from: &Path, to: &Path) {
        let follow = |path: &mut PathBuf| {
            if let Ok(rest) = path.strip_prefix(from)
                && rest != Path::new("")
            {
                *path = to.join(rest);
            }
        };
        match self {
            Self::Put(path, _) | Self::Remove(path) => follow(path),
            Self::Rename(one, other) => {
                follow(one);
                follow(other);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors whose present bytes are not durable.
    dirty: BTreeSet<usize>,
}

#[derive(Clone, Debug, Default)]
struct State {
    names: Names,
    durable_names: Names,
    pending: Vec<NameChange>,
    contents: BTreeMap<u64, Content>,
    in_flight: BTreeMap<u64, (SimFile, u64, Vec<u8>)>,
    next_id: u64,
    life: u64,
    quota: Option<u64>,
    failing_syncs: bool,
    lying_syncs: bool,
    lying_file_syncs: bool,
    lying_dir_syncs: bool,
    changes: u64,
    changes_left: Option<u64>,
}

/// SplitMix64: small, seeded, good enough to choose what a crash keeps.
#[derive(Clone, Debug)]
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

impl SimDisk {
    /// An empty disk with a root directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Another disk with the same content and the same faults, independent from now on.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { state: Rc::new(RefCell::new(self.state.borrow().clone())) }
    }

    /// Loses power: what was not made durable is kept or lost as `seed` says. Open files are closed,
    /// and faults that were asked for are over, the quota excepted.
    pub fn crash(&self, seed: u64) {
        let mut draw = Draw(seed);
        let state = &mut *self.state.borrow_mut();
        state.crash(&mut draw);
    }

    /// The process ends and the machine goes on: each write in flight is done as a whole or was never
    /// begun, as `seed` says; everything else stays as reads see it. What is done of them reads see at
    /// once; it is durable with the next sync of the file, since nobody has waited for it.
    pub fn end_process(&self, seed: u64) {
        self.state.borrow_mut().end_process(&mut Draw(seed));
    }

    /// Bytes that files may take together; `None` is no limit.
    pub fn set_quota(&self, bytes: Option<u64>) {
        self.state.borrow_mut().quota = bytes;
    }

    /// Lets every sync fail from now on, or no longer.
    pub fn fail_syncs(&self, failing: bool) {
        self.state.borrow_mut().failing_syncs = failing;
    }

    /// Lets every sync of the filesystem say that it was done while it was not, or no longer.
    pub fn lie_about_syncs(&self, lying: bool) {
        self.state.borrow_mut().lying_syncs = lying;
    }

    /// Lets every sync of a file say that it was done while it was not, or no longer.
    pub fn lie_about_file_syncs(&self, lying: bool) {
        self.state.borrow_mut().lying_file_syncs = lying;
    }

    /// Lets every sync of a directory say that it was done while it was not, or no longer.
    pub fn lie_about_dir_syncs(&self, lying: bool) {
        self.state.borrow_mut().lying_dir_syncs = lying;
    }

    /// Lets everything fail after `changes` more changes, as seen from a process that is about to
    /// die; `None` takes that back.
    pub fn fail_after(&self, changes: Option<u64>) {
        self.state.borrow_mut().changes_left = changes;
    }

    /// How many changes (writes, syncs, names) there were.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.state.borrow().changes
    }

    /// Flips a bit of a file, as rot does: synced or not.
    ///
    /// # Panics
    /// When there is no such file or bit.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u32) {
        let mut state = self.state.borrow_mut();
        let Some(Node::File(inode)) = state.names.get(path).copied() else {
            panic!("no file {}", path.display());
        };
        let content = state.contents.get_mut(&inode).expect("a named file has content");
        let position = position as usize;
        content.now[position] ^= 1u8 << bit;
        if let Some(byte) = content.durable.get_mut(position) {
            *byte ^= 1u8 << bit;
        }
    }

    /// Begins a write that is durable once [completed](Self::complete_write). It must lie within the
    /// file, as in a prepared WAL file.
    ///
    /// # Errors
    /// When the file is closed or too short.
    pub fn start_write(
        &self,
        file: &SimFile,
        position: u64,
        bytes: &[u8],
    ) -> io::Result<WriteInFlight> {
        let state = &mut *self.state.borrow_mut();
        state.change()?;
        let content = state.content(file)?;
        if position as usize + bytes.len() > content.durable.len() {
            return Err(ErrorKind::InvalidInput.into());
        }
        let id = state.id();
        state.in_flight.insert(id, (*file, position, bytes.to_vec()));
        Ok(WriteInFlight(id))
    }

    /// The write is done and durable.
    ///
    /// # Errors
    /// When the disk crashed since.
    pub fn complete_write(&self, write: WriteInFlight) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.change()?;
        let (file, position, bytes) =
            state.in_flight.remove(&write.0).ok_or(ErrorKind::BrokenPipe)?;
        let content = state.content(&file)?;
        let range = position as usize..position as usize + bytes.len();
        content.now[range.clone()].copy_from_slice(&bytes);
        content.durable[range].copy_from_slice(&bytes);
        Ok(())
    }

    /// Every file and its content as reads see them, for comparison.
    #[must_use]
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.state.borrow();
        let file = |(path, node): (&PathBuf, &Node)| match node {
            Node::File(inode) => Some((path.clone(), state.contents.get(inode)?.now.clone())),
            Node::Dir => None,
        };
        state.names.iter().filter_map(file).collect()
    }
}

impl State {
    fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn change(&mut self) -> io::Result<()> {
        match &mut self.changes_left {
            Some(0) => return Err(io::Error::other("the disk is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.changes += 1;
        Ok(())
    }

    /// A sync, which is a change, too.
    fn sync_change(&mut self) -> io::Result<()> {
        self.change()?;
        if self.failing_syncs { Err(io::Error::other("sync failed")) } else { Ok(()) }
    }

    fn content(&mut self, file: &SimFile) -> io::Result<&mut Content> {
        if file.life != self.life {
            return Err(io::Error::other("the file was open when the disk crashed"));
        }
        self.contents.get_mut(&file.inode).ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn parent_exists(&self, path: &Path) -> bool {
        let parent = path.parent().unwrap_or(Path::new(""));
        parent.parent().is_none() || self.names.get(parent) == Some(&Node::Dir)
    }

    fn rename_now(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.pending.push(change);
    }

    /// Makes the pending changes of names in the directories that `wanted` accepts durable.
    fn settle_names(&mut self, wanted: impl Fn(&Path) -> bool) {
        for change in std::mem::take(&mut self.pending) {
            let settles = match &change {
                NameChange::Put(path, _) | NameChange::Remove(path) => wanted(path),
                NameChange::Rename(from, to) => wanted(from) || wanted(to),
            };
            if settles {
                apply(&mut self.durable_names, &change);
                match &change {
                    // What is pending within a renamed directory is within it under its new name.
                    NameChange::Rename(from, to) => {
                        self.pending.iter_mut().for_each(|earlier| earlier.follow(from, to));
                    }
                    // And within one that is gone nothing is.
                    NameChange::Remove(path) => {
                        self.pending.retain(|earlier| !earlier.place().starts_with(path));
                    }
                    NameChange::Put(..) => {}
                }
            } else {
                self.pending.push(change);
            }
        }
    }

    fn used(&self) -> u64 {
        self.contents.values().map(|content| content.now.len() as u64).sum()
    }

    fn end_process(&mut self, draw: &mut Draw) {
        for (file, position, bytes) in std::mem::take(&mut self.in_flight).into_values() {
            let Ok(content) = self.content(&file) else { continue };
            if draw.coin() {
                let range = position as usize..position as usize + bytes.len();
                content.dirty.extend(range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES));
                content.now[range].copy_from_slice(&bytes);
            }
        }
    }

    fn crash(&mut self, draw: &mut Draw) {
        for (file, position, bytes) in std::mem::take(&mut self.in_flight).into_values() {
            let Ok(content) = self.content(&file) else { continue };
            for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                if draw.coin() {
                    let at = position as usize + index * SECTOR_BYTES;
                    content.now[at..at + sector.len()].copy_from_slice(sector);
                    content.durable[at..at + sector.len()].copy_from_slice(sector);
                }
            }
        }
        // Directories that were to take the place of one that stays. What happened in them did not happen in that one.
        let mut lost: Vec<PathBuf> = Vec::new();
        for change in std::mem::take(&mut self.pending) {
            let (kept, place) = (draw.coin(), change.place());
            if lost.iter().any(|dir| place.starts_with(dir)) {
                continue;
            }
            let takes_over = matches!(change, NameChange::Rename(..));
            if takes_over && self.durable_names.get(place) == Some(&Node::Dir) {
                lost.push(place.to_owned());
            } else if kept {
                apply(&mut self.durable_names, &change);
            }
        }
        self.names.clear();
        // Parents sort before their children, so one pass drops every orphan.
        for (path, node) in self.durable_names.clone() {
            if self.parent_exists(&path) {
                self.names.insert(path, node);
            }
        }
        self.durable_names = self.names.clone();
        let names = &self.names;
        self.contents.retain(|inode, _| names.values().any(|node| *node == Node::File(*inode)));
        for content in self.contents.values_mut() {
            content.crash(draw);
        }
        self.life += 1;
        self.failing_syncs = false;
        self.changes_left = None;
    }
}

fn apply(names: &mut Names, change: &NameChange) {
    match change {
        NameChange::Put(path, node) => {
            names.insert(path.clone(), *node);
        }
        // A directory goes empty, so whatever is still in it went before.
        NameChange::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
        NameChange::Rename(from, to) => {
            if !names.contains_key(from) {
                return;
            }
            let moved: Vec<PathBuf> =
                names.keys().filter(|path| path.starts_with(from)).cloned().collect();
            for path in moved {
                let Some(node) = names.remove(&path) else { continue };
                let rest = path.strip_prefix(from).unwrap_or(Path::new(""));
                let target = if rest.as_os_str().is_empty() { to.clone() } else { to.join(rest) };
                names.insert(target, node);
            }
        }
    }
}

impl Content {
    fn sync(&mut self) {
        self.durable.clone_from(&self.now);
        self.dirty.clear();
    }

    fn crash(&mut self, draw: &mut Draw) {
        let (durable, now) = (self.durable.len(), self.now.len());
        let (low, high) = (durable.min(now), durable.max(now));
        let bytes = match draw.below(3) {
            0 => durable,
            1 => now,
            _ => low + draw.below((high - low) as u64 + 1) as usize,
        };
        let mut kept = self.durable.clone();
        kept.resize(bytes, 0);
        for sector in std::mem::take(&mut self.dirty) {
            let range = sector * SECTOR_BYTES..((sector + 1) * SECTOR_BYTES).min(bytes).min(now);
            if draw.coin() && range.start < range.end {
                kept[range.clone()].copy_from_slice(&self.now[range]);
            }
        }
        self.now = kept;
        self.sync();
    }

    fn resize(&mut self, bytes: usize) {
        let (from, to) = (bytes.min(self.now.len()), bytes.max(self.now.len()));
        self.now.resize(bytes, 0);
        self.dirty.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let state = &mut *self.state.borrow_mut();
        let inode = match (state.names.get(path), mode) {
            (Some(Node::File(inode)), _) => *inode,
            (Some(Node::Dir), _) => return Err(ErrorKind::IsADirectory.into()),
            (None, OpenMode::Write) if state.parent_exists(path) => {
                state.change()?;
                let inode = state.id();
                state.contents.insert(inode, Content::default());
                state.rename_now(NameChange::Put(path.to_owned(), Node::File(inode)));
                inode
            }
            (None, _) => return Err(ErrorKind::NotFound.into()),
        };
        Ok(SimFile { inode, life: state.life })
    }

    fn bytes(&self, file: &SimFile) -> io::Result<u64> {
        Ok(self.state.borrow_mut().content(file)?.now.len() as u64)
    }

    fn read_at(&self, file: &SimFile, position: u64, out: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        let content = state.content(file)?;
        let from = content.now.get(position as usize..).unwrap_or_default();
        let count = from.len().min(out.len());
        out[..count].copy_from_slice(&from[..count]);
        Ok(count)
    }

    fn write_at(&self, file: &SimFile, position: u64, slices: &[IoSlice<'_>]) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.change()?;
        let mut bytes = slices.iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
        let position = position as usize;
        let (used, quota) = (state.used(), state.quota);
        let content = state.content(file)?;
        let mut result = Ok(());
        if let Some(quota) = quota {
            // What there is room for is written, as by a real file system.
            let room = quota.saturating_sub(used) as usize;
            let most = (content.now.len() + room).saturating_sub(position);
            if bytes.len() > most {
                bytes.truncate(most);
                result = Err(ErrorKind::StorageFull.into());
            }
        }
        let end = position + bytes.len();
        if !bytes.is_empty() {
            if end > content.now.len() {
                content.resize(end);
            }
            content.now[position..end].copy_from_slice(&bytes);
            content.dirty.extend(position / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
        }
        result
    }

    fn truncate(&self, file: &SimFile, bytes: u64) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.change()?;
        state.content(file)?.resize(bytes as usize);
        Ok(())
    }

    fn sync(&self, file: &SimFile) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.sync_change()?;
        if !state.lying_file_syncs {
            state.content(file)?.sync();
        }
        Ok(())
    }

    fn start_writeback(&self, _file: &SimFile, _position: u64, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_filesystem(&self, _dir: &Path) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.sync_change()?;
        if !state.lying_syncs {
            state.contents.values_mut().for_each(Content::sync);
            state.settle_names(|_| true);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        state.sync_change()?;
        if !state.lying_dir_syncs {
            state.settle_names(|path| path.parent() == Some(dir));
        }
        Ok(())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        match state.names.get(dir) {
            Some(Node::Dir) => return Ok(()),
            Some(Node::File(_)) => return Err(ErrorKind::AlreadyExists.into()),
            None if !state.parent_exists(dir) => return Err(ErrorKind::NotFound.into()),
            None => {}
        }
        state.change()?;
        state.rename_now(NameChange::Put(dir.to_owned(), Node::Dir));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        if !state.names.contains_key(from) || !state.parent_exists(to) {
            return Err(ErrorKind::NotFound.into());
        }
        if state.names.get(to) == Some(&Node::Dir) {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        state.change()?;
        state.rename_now(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        match state.names.get(path) {
            Some(Node::File(_)) => {}
            Some(Node::Dir) => return Err(ErrorKind::IsADirectory.into()),
            None => return Err(ErrorKind::NotFound.into()),
        }
        state.change()?;
        state.rename_now(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        if state.names.get(dir) != Some(&Node::Dir) {
            return Err(ErrorKind::NotFound.into());
        }
        if state.names.keys().any(|path| path.parent() == Some(dir)) {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        state.change()?;
        state.rename_now(NameChange::Remove(dir.to_owned()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.borrow();
        if !state.parent_exists(&dir.join("entry")) {
            return Err(ErrorKind::NotFound.into());
        }
        let entry = |(path, node): (&PathBuf, &Node)| {
            let name = path.file_name()?.to_str()?.to_owned();
            let bytes = match node {
                Node::Dir => 0,
                Node::File(inode) => state.contents.get(inode)?.now.len() as u64,
            };
            Some(DirEntry { name, is_dir: *node == Node::Dir, bytes })
        };
        Ok(state
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir))
            .filter_map(entry)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::{read_file, replace_file};

    fn write(disk: &SimDisk, path: &str, bytes: &[u8]) -> SimFile {
        let file = disk.open(Path::new(path), OpenMode::Write).unwrap();
        disk.write_at(&file, 0, &[IoSlice::new(bytes)]).unwrap();
        file
    }

    /// The contents that a crash may leave, over many seeds.
    fn outcomes(prepare: impl Fn(&SimDisk)) -> BTreeSet<Option<Vec<u8>>> {
        let outcome = |seed| {
            let disk = SimDisk::new();
            prepare(&disk);
            disk.crash(seed);
            read_file(&disk, Path::new("/f")).ok()
        };
        (0..200).map(outcome).collect()
    }

    #[test]
    fn what_was_synced_with_its_name_survives_every_crash() {
        let outcomes = outcomes(|disk| {
            let file = write(disk, "/f", b"synced");
            disk.sync(&file).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
        });
        assert_eq!(outcomes, [Some(b"synced".to_vec())].into());
    }

    #[test]
    fn a_synced_file_without_a_synced_name_may_be_gone() {
        let outcomes = outcomes(|disk| {
            let file = write(disk, "/f", b"synced");
            disk.sync(&file).unwrap();
        });
        assert_eq!(outcomes, [None, Some(b"synced".to_vec())].into());
    }

    #[test]
    fn unsynced_sectors_are_lost_one_by_one() {
        let outcomes = outcomes(|disk| {
            let file = write(disk, "/f", &[1; 2 * SECTOR_BYTES]);
            disk.sync_filesystem(Path::new("/")).unwrap();
            disk.write_at(&file, 0, &[IoSlice::new(&[2; 2 * SECTOR_BYTES])]).unwrap();
        });
        let heads: BTreeSet<_> = outcomes
            .into_iter()
            .map(|content| content.map(|content| (content[0], content[SECTOR_BYTES])))
            .collect();
        let expected = [(1, 1), (1, 2), (2, 1), (2, 2)].map(Some);
        assert_eq!(heads, expected.into());
    }

    #[test]
    fn replacing_a_file_leaves_the_old_or_the_new_and_then_the_new() {
        let old = |disk: &SimDisk| replace_file(disk, Path::new("/f"), b"old").unwrap();
        for changes in 0..6 {
            let outcomes = outcomes(|disk| {
                old(disk);
                disk.fail_after(Some(changes));
                let _ = replace_file(disk, Path::new("/f"), b"new!");
            });
            let both = [Some(b"old".to_vec()), Some(b"new!".to_vec())];
            assert!(outcomes.is_subset(&both.into()), "after {changes} changes: {outcomes:?}");
        }
        let outcomes = outcomes(|disk| {
            old(disk);
            replace_file(disk, Path::new("/f"), b"new!").unwrap();
        });
        assert_eq!(outcomes, [Some(b"new!".to_vec())].into());
    }

    #[test]
    fn a_durable_write_is_torn_only_while_it_is_in_flight() {
        let prepare = |complete: bool| {
            move |disk: &SimDisk| {
                let file = write(disk, "/f", &[0; 2 * SECTOR_BYTES]);
                disk.sync_filesystem(Path::new("/")).unwrap();
                let started = disk.start_write(&file, 0, &[9; 2 * SECTOR_BYTES]).unwrap();
                if complete {
                    disk.complete_write(started).unwrap();
                }
            }
        };
        assert_eq!(outcomes(prepare(true)), [Some(vec![9; 2 * SECTOR_BYTES])].into());
        assert_eq!(outcomes(prepare(false)).len(), 4);
    }

    #[test]
    fn a_full_disk_takes_what_fits_and_says_so() {
        let disk = SimDisk::new();
        disk.set_quota(Some(10));
        let file = write(&disk, "/f", &[1; 8]);
        let result = disk.write_at(&file, 8, &[IoSlice::new(&[2; 8])]);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(disk.bytes(&file).unwrap(), 10);
        disk.write_at(&file, 0, &[IoSlice::new(&[3; 8])]).unwrap();
    }

    #[test]
    fn a_renamed_directory_takes_its_files_along() {
        let disk = SimDisk::new();
        disk.create_dir(Path::new("/a")).unwrap();
        write(&disk, "/a/f", b"x");
        disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
        assert_eq!(read_file(&disk, Path::new("/b/f")).unwrap(), b"x");
        assert!(disk.list(Path::new("/a")).is_err());
        assert!(disk.remove_dir(Path::new("/b")).is_err());
    }
}
