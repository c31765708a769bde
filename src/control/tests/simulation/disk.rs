//! A log in memory that forgets, in a crash, what was not synced.

use std::cell::RefCell;
use std::rc::Rc;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::control::log::{LogError, first_snapshot};
use crate::control::member::MemberLog;
use crate::control::members::Members;

/// What is on a disk.
#[derive(Clone, Default)]
pub(super) struct Disk {
    hard_state: HardState,
    snapshot: Snapshot,
    /// Above the snapshot, and a few below it.
    before_tail: (u64, u64),
    tail: Vec<Entry>,
}

impl Disk {
    pub(super) fn new(members: &Members) -> Self {
        Self { snapshot: first_snapshot(members), ..Self::default() }
    }

    fn end(&self) -> u64 {
        self.before_tail.0 + self.tail.len() as u64
    }

    /// Forgets the last entries above the snapshot, though they were synced: a disk that lies.
    pub(super) fn lose_tail(&mut self, entries: usize) {
        let below = self.snapshot.get_metadata().index - self.before_tail.0;
        let keep = self.tail.len().saturating_sub(entries).max(below as usize);
        self.tail.truncate(keep);
        self.hard_state.commit = self.hard_state.commit.min(self.end());
    }
}

/// An open log on a disk.
pub(super) struct MemoryLog {
    disk: Rc<RefCell<Disk>>,
    live: Disk,
}

impl MemoryLog {
    /// What a start finds on the disk.
    pub(super) fn open(disk: Rc<RefCell<Disk>>) -> Self {
        let mut live = disk.borrow().clone();
        let metadata = live.snapshot.get_metadata();
        live.before_tail = (metadata.index, metadata.term);
        let above = live.before_tail.0;
        live.tail.retain(|entry| entry.index > above);
        Self { disk, live }
    }

    fn sync(&self) {
        *self.disk.borrow_mut() = self.live.clone();
    }
}

impl MemberLog for MemoryLog {
    fn persist(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        sync: bool,
    ) -> Result<(), LogError> {
        if let Some(state) = hard_state {
            self.live.hard_state = state.clone();
        }
        if let Some(first) = entries.first() {
            let before = self.live.before_tail.0;
            assert!(first.index > self.live.snapshot.get_metadata().index && first.index > before);
            assert!(first.index <= self.live.end() + 1, "entries are contiguous");
            self.live.tail.truncate((first.index - before - 1) as usize);
            self.live.tail.extend_from_slice(entries);
        }
        if sync {
            self.sync();
        }
        Ok(())
    }

    fn install(
        &mut self,
        snapshot: &Snapshot,
        hard_state: Option<&HardState>,
    ) -> Result<(), LogError> {
        let metadata = snapshot.get_metadata();
        assert!(metadata.index > self.live.snapshot.get_metadata().index);
        if let Some(state) = hard_state {
            self.live.hard_state = state.clone();
        }
        self.live.hard_state.commit = self.live.hard_state.commit.max(metadata.index);
        self.live.before_tail = (metadata.index, metadata.term);
        self.live.snapshot = snapshot.clone();
        self.live.tail.clear();
        self.sync();
        Ok(())
    }

    fn commit_to(&mut self, index: u64) -> Result<(), LogError> {
        self.live.hard_state.commit = self.live.hard_state.commit.max(index);
        Ok(())
    }

    fn compact(
        &mut self,
        index: u64,
        data: Vec<u8>,
        members: ConfState,
        kept: usize,
    ) -> Result<(), LogError> {
        let term = self.term(index).unwrap();
        self.live.snapshot.set_data(data.into());
        let metadata = self.live.snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(members);
        let keep_from = (index + 1).saturating_sub(kept as u64);
        while self.live.tail.first().is_some_and(|entry| entry.index < keep_from) {
            let entry = self.live.tail.remove(0);
            self.live.before_tail = (entry.index, entry.term);
        }
        self.sync();
        Ok(())
    }

    fn since_snapshot(&self) -> (u64, usize) {
        (self.live.end() - self.live.snapshot.get_metadata().index, 0)
    }

    fn last_snapshot(&self) -> (u64, &[u8]) {
        (self.live.snapshot.get_metadata().index, self.live.snapshot.get_data())
    }

    fn entries_between(&self, after: u64, through: u64) -> Option<Vec<Entry>> {
        let skipped = after.checked_sub(self.live.before_tail.0)? as usize;
        let entries = self.live.tail.iter().skip(skipped);
        Some(entries.take_while(|entry| entry.index <= through).cloned().collect())
    }
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state = self.live.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState::new(self.live.hard_state.clone(), conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let entries = low.checked_sub(1).and_then(|at| self.entries_between(at, high - 1));
        let mut entries = entries.ok_or(StorageError::Compacted)?;
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let (before, term) = self.live.before_tail;
        if index == before {
            return Ok(term);
        }
        let at = index.checked_sub(before + 1).ok_or(StorageError::Compacted)? as usize;
        Ok(self.live.tail.get(at).ok_or(StorageError::Unavailable)?.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.live.before_tail.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.live.end())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.live.snapshot.get_metadata().index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.live.snapshot.clone())
    }
}
