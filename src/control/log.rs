//! The replicated log on disk: raft-engine below, a tail in memory above.
//!
//! raft-rs reads its log synchronously, so everything since the last snapshot is kept in memory.
//! Invariants: an entry is in memory only when it is on disk · indexes are contiguous · entries at or
//! below the snapshot stay in memory only, for subscribers · what the watermark says is committed is
//! in the log, or the log is refused.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use super::engine_files::find_unsafe_header;
use super::member::MemberLog;
use super::members::{Members, raft_id};
use super::watermark::Watermark;
use chronik_shards::model::NodeId;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};

/// The only group in the engine.
const GROUP: u64 = 1;
const HARD_STATE: &[u8] = b"hard_state";
const SNAPSHOT: &[u8] = b"snapshot";

/// A log that cannot be used. Stop: what was promised can no longer be kept.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The engine or the disk below it.
    #[error("the metadata log in {directory}: {source}")]
    Engine {
        /// Where.
        directory: String,
        /// What it says.
        source: raft_engine::Error,
    },
    /// The files beside the engine's own.
    #[error("the metadata log in {directory}: {source}")]
    Files {
        /// Where.
        directory: String,
        /// The reason.
        source: std::io::Error,
    },
    /// It is of another group of nodes.
    #[error(
        "the metadata log in {directory} belongs to nodes {found}, and this node is started with nodes \
         {expected}: start it with the peers it had"
    )]
    OtherMembers {
        /// Where.
        directory: String,
        /// In the log.
        found: Members,
        /// As configured.
        expected: Members,
    },
    /// What is there contradicts itself.
    #[error("the metadata log in {directory} is damaged: {reason}")]
    Damaged {
        /// Where.
        directory: String,
        /// In which way.
        reason: String,
    },
}

struct EntryIndex;

impl MessageExt for EntryIndex {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

/// The log of this node.
pub(super) struct RaftLog {
    directory: String,
    engine: Engine,
    watermark: Watermark,
    hard_state: HardState,
    snapshot: Snapshot,
    /// Index and term of the entry before the first one in memory.
    before_tail: (u64, u64),
    tail: VecDeque<Entry>,
    /// Of entries above the snapshot.
    bytes_since_snapshot: usize,
}

impl RaftLog {
    /// Opens the log in `directory`. A new one belongs to `members`, or to nobody yet if the node does not
    /// found a group but comes to one; another group's is refused.
    ///
    /// A log that ends before what was committed is refused, unless `accept_data_loss` is set.
    pub(super) fn open(
        directory: &Path,
        members: &Members,
        founds: bool,
        accept_data_loss: bool,
    ) -> Result<Self, LogError> {
        let name = directory.display().to_string();
        let failed = |source| LogError::Engine { directory: name.clone(), source };
        let damaged = |reason| LogError::Damaged { directory: name.clone(), reason };
        let inaccessible = |source| LogError::Files { directory: name.clone(), source };
        if let Some(file) = find_unsafe_header(directory).map_err(inaccessible)? {
            return Err(damaged(format!("the header of {}", file.display())));
        }
        let engine = open_engine(&name).map_err(failed)?;
        let watermark = Watermark::open(directory).map_err(inaccessible)?;
        let committed = match &watermark {
            Some(watermark) => watermark.committed(),
            None if engine.is_empty() => 0,
            // Anything may have been committed.
            None => u64::MAX,
        };

        let snapshot = match engine.get_message(GROUP, SNAPSHOT).map_err(failed)? {
            Some(snapshot) => snapshot,
            None if committed == 0 || accept_data_loss => {
                Watermark::create(directory, 0).map_err(inaccessible)?;
                let snapshot = match founds {
                    true => first_snapshot(members),
                    false => first_snapshot(&Members::nobody()),
                };
                let mut batch = LogBatch::default();
                batch.put_message(GROUP, SNAPSHOT.to_vec(), &snapshot).map_err(failed)?;
                engine.write(&mut batch, true).map_err(failed)?;
                snapshot
            }
            None => return Err(damaged("it has no snapshot".to_owned())),
        };
        let start = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        let tail = read_tail(&engine, start.0).map_err(failed)?;
        if let Some((entry, due)) = tail.iter().zip(start.0 + 1..).find(|(e, due)| e.index != *due)
        {
            return Err(damaged(format!("entry {} where {due} is due", entry.index)));
        }
        let end = start.0 + tail.len() as u64;
        let mut hard_state: HardState =
            engine.get_message(GROUP, HARD_STATE).map_err(failed)?.unwrap_or_default();

        // Later the log knows better who its members are: nodes have come and gone since.
        let found = Members::of(snapshot.get_metadata().get_conf_state());
        let is_untouched = start.0 == 0 && hard_state.commit == 0 && committed == 0;
        let is_known = found == *members || found == Members::nobody();
        if !is_known && (is_untouched || found.is_lone() || members.is_lone()) {
            let (directory, expected) = (name.clone(), members.clone());
            return Err(LogError::OtherMembers { directory, found, expected });
        }
        // They are written together; raft would panic, or forget its term.
        if hard_state.commit < start.0 {
            return Err(damaged(format!("it does not know its snapshot at {} committed", start.0)));
        }
        let committed = committed.max(hard_state.commit);
        let watermark = match watermark {
            Some(watermark) if committed <= end => watermark,
            None if committed <= end => Watermark::create(directory, 0).map_err(inaccessible)?,
            _ if accept_data_loss => {
                tracing::warn!("the metadata log in {name} lost what was after entry {end}");
                hard_state.commit = hard_state.commit.min(end);
                Watermark::create(directory, end).map_err(inaccessible)?
            }
            None => return Err(damaged("the file \"committed\" is missing".to_owned())),
            Some(_) => {
                return Err(damaged(format!("it ends at {end} and {committed} was committed")));
            }
        };
        // The file is newer than what the engine says: that goes there with the next entries only.
        hard_state.commit = hard_state.commit.max(watermark.committed());
        Ok(Self {
            directory: name,
            engine,
            watermark,
            hard_state,
            snapshot,
            before_tail: start,
            bytes_since_snapshot: tail.iter().map(entry_bytes).sum(),
            tail: tail.into(),
        })
    }

    /// Entries `after + 1 ..= through`, or `None` when some are compacted away.
    fn entries_after(&self, after: u64, through: u64) -> Option<impl Iterator<Item = &Entry>> {
        let skipped = usize::try_from(after.checked_sub(self.before_tail.0)?).ok()?;
        Some(self.tail.iter().skip(skipped).take_while(move |entry| entry.index <= through))
    }

    fn snapshot_index(&self) -> u64 {
        self.snapshot.get_metadata().index
    }

    fn end(&self) -> u64 {
        self.before_tail.0 + self.tail.len() as u64
    }

    fn failed(&self, source: raft_engine::Error) -> LogError {
        LogError::Engine { directory: self.directory.clone(), source }
    }
}

impl MemberLog for RaftLog {
    fn persist(
        &mut self,
        entries: &[Entry],
        hard_state: Option<&HardState>,
        sync: bool,
    ) -> Result<(), LogError> {
        if entries.is_empty() && hard_state.is_none() {
            return Ok(());
        }
        let mut batch = LogBatch::default();
        batch.add_entries::<EntryIndex>(GROUP, entries).map_err(|e| self.failed(e))?;
        if let Some(state) = hard_state {
            batch.put_message(GROUP, HARD_STATE.to_vec(), state).map_err(|e| self.failed(e))?;
        }
        self.engine.write(&mut batch, sync).map_err(|e| self.failed(e))?;
        if let Some(state) = hard_state {
            self.hard_state = state.clone();
        }
        if let Some(first) = entries.first() {
            assert!(first.index > self.snapshot_index(), "a snapshot's entries are committed");
            assert!(first.index <= self.end() + 1, "entries are contiguous");
            while self.tail.back().is_some_and(|entry| entry.index >= first.index) {
                let replaced = self.tail.pop_back().map_or(0, |entry| entry_bytes(&entry));
                self.bytes_since_snapshot -= replaced;
            }
        }
        self.bytes_since_snapshot += entries.iter().map(entry_bytes).sum::<usize>();
        self.tail.extend(entries.iter().cloned());
        Ok(())
    }

    fn commit_to(&mut self, index: u64) -> Result<(), LogError> {
        self.hard_state.commit = self.hard_state.commit.max(index);
        let directory = &self.directory;
        self.watermark
            .raise(index)
            .map_err(|source| LogError::Files { directory: directory.clone(), source })
    }

    fn install(
        &mut self,
        snapshot: &Snapshot,
        hard_state: Option<&HardState>,
    ) -> Result<(), LogError> {
        let (index, term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        assert!(index > self.snapshot_index(), "raft takes newer snapshots only");
        let mut hard_state = hard_state.unwrap_or(&self.hard_state).clone();
        hard_state.commit = hard_state.commit.max(index);
        // One batch, as in a compaction. Entries beyond the snapshot go too: raft takes a snapshot only
        // where its log says something else.
        let mut batch = LogBatch::default();
        batch.put_message(GROUP, HARD_STATE.to_vec(), &hard_state).map_err(|e| self.failed(e))?;
        batch.put_message(GROUP, SNAPSHOT.to_vec(), snapshot).map_err(|e| self.failed(e))?;
        batch.add_command(GROUP, Command::Compact { index: self.end().max(index) + 1 });
        self.engine.write(&mut batch, true).map_err(|e| self.failed(e))?;
        self.engine.purge_expired_files().map_err(|e| self.failed(e))?;

        self.hard_state = hard_state;
        self.snapshot = snapshot.clone();
        self.before_tail = (index, term);
        self.tail.clear();
        self.bytes_since_snapshot = 0;
        Ok(())
    }

    fn compact(
        &mut self,
        index: u64,
        data: Vec<u8>,
        members: ConfState,
        kept: usize,
    ) -> Result<(), LogError> {
        let term = self.term(index).expect("a snapshot is taken of an applied entry");
        let mut snapshot = Snapshot::default();
        snapshot.set_data(data.into());
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(members);

        // One batch: the entries go if and only if the snapshot is there, and with it a hard state
        // that knows them committed. The entry at `index` stays in the engine, so that it never
        // runs empty and always knows where the log ends.
        assert!(self.hard_state.commit >= index, "only committed entries are in a snapshot");
        let mut batch = LogBatch::default();
        batch
            .put_message(GROUP, HARD_STATE.to_vec(), &self.hard_state)
            .map_err(|e| self.failed(e))?;
        batch.put_message(GROUP, SNAPSHOT.to_vec(), &snapshot).map_err(|e| self.failed(e))?;
        batch.add_command(GROUP, Command::Compact { index });
        self.engine.write(&mut batch, true).map_err(|e| self.failed(e))?;
        self.engine.purge_expired_files().map_err(|e| self.failed(e))?;

        self.snapshot = snapshot;
        let above = self.tail.iter().filter(|entry| entry.index > index);
        self.bytes_since_snapshot = above.map(entry_bytes).sum();
        let keep_from = (index + 1).saturating_sub(kept as u64);
        let leaving = self.tail.partition_point(|entry| entry.index < keep_from);
        for entry in self.tail.drain(..leaving) {
            self.before_tail = (entry.index, entry.term);
        }
        Ok(())
    }

    fn since_snapshot(&self) -> (u64, usize) {
        (self.end() - self.snapshot_index(), self.bytes_since_snapshot)
    }

    fn last_snapshot(&self) -> (u64, &[u8]) {
        (self.snapshot_index(), self.snapshot.get_data())
    }

    fn entries_between(&self, after: u64, through: u64) -> Option<Vec<Entry>> {
        Some(self.entries_after(after, through)?.cloned().collect())
    }
}

/// Opens the engine. Metadata is small; the defaults would keep gigabytes before they purge.
fn open_engine(directory: &str) -> raft_engine::Result<Engine> {
    Engine::open(Config {
        dir: directory.to_owned(),
        recovery_threads: 1,
        target_file_size: ReadableSize::mb(8),
        purge_threshold: ReadableSize::mb(64),
        enable_log_recycle: false,
        ..Config::default()
    })
}

/// All entries above the snapshot.
fn read_tail(engine: &Engine, snapshot_index: u64) -> raft_engine::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if let (Some(first), Some(last)) = (engine.first_index(GROUP), engine.last_index(GROUP)) {
        let from = first.max(snapshot_index + 1);
        if from <= last {
            engine.fetch_entries_to::<EntryIndex>(GROUP, from, last + 1, None, &mut entries)?;
        }
    }
    Ok(entries)
}

/// Of a log that nothing was written to: it says who votes.
pub(super) fn first_snapshot(members: &Members) -> Snapshot {
    let ids = |nodes: &BTreeSet<NodeId>| nodes.iter().map(|node| raft_id(*node)).collect();
    let conf_state = ConfState {
        voters: ids(&members.voters),
        learners: ids(&members.learners),
        ..ConfState::default()
    };
    let mut snapshot = Snapshot::default();
    snapshot.mut_metadata().set_conf_state(conf_state);
    snapshot
}

fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + size_of::<Entry>()
}

impl Storage for RaftLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state = self.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState::new(self.hard_state.clone(), conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        assert!(high <= self.end() + 1, "entries to {high} of a log that ends at {}", self.end());
        let Some(entries) = low.checked_sub(1).and_then(|at| self.entries_after(at, high - 1))
        else {
            return Err(StorageError::Compacted.into());
        };
        let mut entries = entries.cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before_tail.0 {
            return Ok(self.before_tail.1);
        }
        let at = index.checked_sub(self.before_tail.0 + 1).ok_or(StorageError::Compacted)?;
        let entry = usize::try_from(at).ok().and_then(|at| self.tail.get(at));
        Ok(entry.ok_or(StorageError::Unavailable)?.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before_tail.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.end())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshot_index() < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.snapshot.clone())
    }
}
