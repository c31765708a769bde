//! The write-ahead log's order: what goes into the next commit, where it goes, when it counts.
//!
//! Entries queue up; while fewer than two commits are in flight the writer pulls the next, which takes
//! all that waits and fits. Commits may be written in any order and count in LSN order only. A commit
//! never spans files. While a file fills, a spare is prepared; a full file is recycled once a
//! checkpoint covers its last commit.
//!
//! Invariants: LSNs are contiguous; positions within a file only grow; every file is exactly one of
//! active, spare, full or free, and there are at most `files_max` of them.
//!
//! Absent: bytes and files (io), and what entries mean (the shard).

use std::collections::{HashMap, VecDeque};

use super::effect::{Effect, NoSpace, WalStart};
use super::input::Token;
use super::large_runs::Run;
use super::partitions::{FixedHash, Slot};
use super::queue::pop_front_if;
use crate::format::wal::{BLOCK_BYTES, COMMIT_HEADER_BYTES, entry_bytes};
use crate::format::wal_entry::{Commit, WalEntry};
use crate::model::{Lsn, MonotonicMicros, Offset, ReplicaKey, WalFileSeq};

/// How long to wait before a file is asked for again that did not fit the disk.
pub const NO_SPACE_RETRY_MS: u64 = 1000;

/// Bounds of the log.
#[derive(Clone, Copy, Debug)]
pub struct WalLimits {
    /// Size of every file but the first, a multiple of the block size.
    pub file_bytes: u64,
    /// Files there may be at once, at least 2.
    pub files_max: usize,
    /// Largest commit, padding included; a single larger entry goes alone.
    pub commit_bytes_max: u64,
    /// Commits that may be written at once.
    pub in_flight_max: usize,
}

/// What becomes true when an entry is durable.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    /// A partition's records below `end_offset` are durable.
    Batch {
        /// Whose.
        slot: Slot,
        /// The offset after the last record.
        end_offset: Offset,
    },
    /// A log start moved.
    LogStart {
        /// Whose.
        slot: Slot,
        /// For the store.
        key: ReplicaKey,
        /// First offset there is.
        log_start_offset: Offset,
        /// Who asked; `None` for retention.
        token: Option<Token>,
    },
    /// A log was cut.
    Truncated {
        /// Whose.
        slot: Slot,
        /// For the store: whose, where, and whether nothing is kept. `None` where segments have none of it.
        segments: Option<(ReplicaKey, Offset, bool)>,
    },
    /// Nobody waits for it.
    Opened,
    /// The directory may go.
    Closed {
        /// Whose.
        key: ReplicaKey,
    },
}

/// A commit that is durable, and so are all before it.
#[derive(Debug)]
pub struct DurableCommit {
    /// In entry order. Handed back through [`WalQueue::reuse`].
    pub notes: Vec<Note>,
    /// Size in the file; 0 for a seal.
    pub bytes: u64,
}

#[derive(Debug)]
struct Pending {
    entry: WalEntry,
    note: Note,
    bytes: u64,
}

#[derive(Debug)]
struct InFlight {
    lsn: Lsn,
    written: bool,
    durable: DurableCommit,
}

#[derive(Clone, Copy, Debug)]
struct FullFile {
    seq: WalFileSeq,
    last_lsn: Lsn,
}

/// The file after the active one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spare {
    Absent,
    /// `recycled` is the file that becomes it, which is still there if that fails.
    Preparing {
        seq: WalFileSeq,
        recycled: Option<WalFileSeq>,
    },
    Ready {
        seq: WalFileSeq,
    },
    /// The disk had no room.
    Refused {
        retry_at: MonotonicMicros,
    },
}

/// Whether the newest durable commit is to be followed by an empty one that says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seal {
    NotNeeded,
    Due { at: MonotonicMicros },
    Wanted,
}

/// The queue in front of a shard's write-ahead log. Owner: the shard.
#[derive(Debug)]
pub struct WalQueue {
    limits: WalLimits,
    pending: VecDeque<Pending>,
    pending_bytes: u64,
    /// Bytes of the batches that came since the writer last asked for a commit.
    gathered: HashMap<Slot, u64, FixedHash>,
    in_flight: VecDeque<InFlight>,
    next_lsn: Lsn,
    durable: Lsn,
    checkpointed: Lsn,
    active: WalFileSeq,
    active_bytes: u64,
    position: u64,
    spare: Spare,
    /// Since a file was refused until one is prepared.
    lacks_space: bool,
    full: VecDeque<FullFile>,
    free: VecDeque<WalFileSeq>,
    newest_seq: WalFileSeq,
    /// The writer was told that entries wait and has not come yet.
    signalled: bool,
    seal: Seal,
    spent_notes: Vec<Vec<Note>>,
}

impl WalQueue {
    /// A log that goes on where recovery says.
    ///
    /// # Panics
    /// When the limits cannot work: fewer than two files, or a commit larger than a file. When
    /// recovery contradicts itself.
    pub fn new(limits: WalLimits, start: WalStart) -> Self {
        assert!(limits.files_max >= 2, "one file fills while another is flushed");
        assert!(limits.in_flight_max >= 1, "a commit has to go out");
        for bytes in [limits.file_bytes, start.file_bytes, start.position] {
            assert!(bytes.is_multiple_of(BLOCK_BYTES), "files are whole blocks");
        }
        assert!(limits.commit_bytes_max <= limits.file_bytes, "a commit fits a file");
        assert!(start.next_lsn > Lsn(0), "LSNs start at 1");
        let durable = Lsn(start.next_lsn.0 - 1);
        assert!(start.checkpointed <= durable, "only what is durable is checkpointed");
        let files = start.full.iter().map(|(seq, _)| *seq).chain([start.file]);
        let newest_seq = files.chain(start.free.iter().copied()).max();
        let full = |(seq, last_lsn)| FullFile { seq, last_lsn };
        let mut queue = Self {
            limits,
            pending: VecDeque::new(),
            pending_bytes: 0,
            gathered: HashMap::default(),
            in_flight: VecDeque::new(),
            next_lsn: start.next_lsn,
            durable,
            checkpointed: start.checkpointed,
            active: start.file,
            active_bytes: start.file_bytes,
            position: start.position,
            spare: Spare::Absent,
            lacks_space: false,
            full: start.full.into_iter().map(full).collect(),
            free: start.free.into(),
            newest_seq: newest_seq.unwrap_or(start.file),
            signalled: false,
            seal: Seal::NotNeeded,
            spent_notes: Vec::new(),
        };
        // A smaller bound than the last process had: no file is created until it is met by recycling.
        queue.limits.files_max = limits.files_max.max(queue.file_count());
        queue
    }

    /// Whether an entry of this size can ever be written.
    pub fn fits_a_file(&self, entry_bytes: usize) -> bool {
        padded(COMMIT_HEADER_BYTES as u64 + entry_bytes as u64) <= self.limits.file_bytes
    }

    /// Whether there is room for more than what waits already, here or `beside`.
    ///
    /// The bound is soft by one request, so that a large request is late but never stuck.
    pub fn admits(&self, beside: u64) -> bool {
        let spare = match self.spare {
            Spare::Ready { .. } => self.limits.file_bytes,
            Spare::Absent | Spare::Preparing { .. } | Spare::Refused { .. } => 0,
        };
        self.pending_bytes + beside < self.active_bytes - self.position + spare
    }

    /// Queues an entry.
    pub fn push(&mut self, entry: WalEntry, note: Note) {
        let bytes = entry_bytes(&entry) as u64;
        if let (WalEntry::Batch { .. }, Note::Batch { slot, .. }) = (&entry, note) {
            *self.gathered.entry(slot).or_default() += bytes;
        }
        self.pending_bytes += bytes;
        self.pending.push_back(Pending { entry, note, bytes });
    }

    /// Whether nothing waits and nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_empty()
    }

    /// Every commit up to this one is durable.
    pub fn durable(&self) -> Lsn {
        self.durable
    }

    /// Every commit up to this one is in segments.
    pub fn checkpointed_lsn(&self) -> Lsn {
        self.checkpointed
    }

    /// Tells the writer once that there is something to pull.
    pub fn signal(&mut self, out: &mut Vec<Effect>) {
        if !self.signalled && self.next_bytes().is_some() {
            self.signalled = true;
            out.push(Effect::CommitPending);
        }
    }

    /// Takes out the waiting batches of the partitions that have gathered at least `bytes_min` since
    /// the writer last asked, where they `may_leave`; as runs, with what they take in a segment.
    pub fn divert(&mut self, bytes_min: u64, may_leave: impl Fn(Slot) -> bool) -> Vec<(Slot, Run)> {
        let is_large = |(slot, bytes): &(&Slot, &u64)| **bytes >= bytes_min && may_leave(**slot);
        let mut large: Vec<Slot> =
            self.gathered.iter().filter(is_large).map(|(slot, _)| *slot).collect();
        if large.is_empty() {
            return Vec::new();
        }
        large.sort_unstable();
        let mut runs = Vec::new();
        let mut rest = VecDeque::with_capacity(self.pending.len());
        for pending in self.pending.drain(..) {
            match (&pending.entry, pending.note) {
                (WalEntry::Batch { batch, .. }, Note::Batch { slot, end_offset })
                    if large.binary_search(&slot).is_ok() =>
                {
                    self.pending_bytes -= pending.bytes;
                    let base_offset = batch.header.base_offset;
                    let bytes = batch.total_bytes() as u64;
                    runs.push((slot, Run { base_offset, end_offset, bytes }));
                }
                _ => rest.push_back(pending),
            }
        }
        self.pending = rest;
        runs
    }

    /// The next commit, or `None` when nothing waits, enough are in flight, or no file has room.
    pub fn next_commit(&mut self) -> Option<Commit> {
        self.signalled = false;
        self.gathered.clear();
        let first_bytes = self.next_bytes()?;
        if first_bytes > self.active_bytes - self.position {
            self.rotate();
        }
        let room = self.active_bytes - self.position;
        let limit = room.min(self.limits.commit_bytes_max).max(first_bytes);
        let mut entries = Vec::with_capacity(self.pending.len());
        let mut notes = self.spent_notes.pop().unwrap_or_default();
        let mut bytes = COMMIT_HEADER_BYTES as u64;
        while let Some(next) =
            pop_front_if(&mut self.pending, |next| padded(bytes + next.bytes) <= limit)
        {
            bytes += next.bytes;
            self.pending_bytes -= next.bytes;
            entries.push(next.entry);
            push_note(&mut notes, next.note);
        }
        let total = padded(bytes);
        let (lsn, position) = (self.next_lsn, self.position);
        self.next_lsn = lsn.next();
        self.position += total;
        assert!(self.position <= self.active_bytes, "{lsn:?} ends within its file");
        self.seal = Seal::NotNeeded;
        let sealing = entries.is_empty();
        let durable = DurableCommit { notes, bytes: if sealing { 0 } else { total } };
        self.in_flight.push_back(InFlight { lsn, written: false, durable });
        Some(Commit { lsn, file: self.active, position, durable: self.durable, entries })
    }

    /// A commit is on the disk.
    ///
    /// # Panics
    /// When it was not in flight.
    pub fn written(&mut self, lsn: Lsn) {
        let place = self.in_flight.iter_mut().find(|commit| commit.lsn == lsn);
        place.expect("only commits in flight are written").written = true;
    }

    /// The oldest commit in flight, if it is written: then it counts.
    pub fn pop_durable(
        &mut self,
        now: MonotonicMicros,
        seal_after_ms: u64,
    ) -> Option<DurableCommit> {
        let commit = pop_front_if(&mut self.in_flight, |commit| commit.written)?;
        assert_eq!(commit.lsn, self.durable.next(), "durable in LSN order");
        self.durable = commit.lsn;
        if self.is_idle() && commit.durable.bytes > 0 {
            self.seal = Seal::Due { at: now.plus_millis(seal_after_ms) };
        }
        Some(commit.durable)
    }

    /// Takes the notes of a commit back, for their memory.
    pub fn reuse(&mut self, mut notes: Vec<Note>) {
        const KEPT_NOTES: usize = 4096;
        if self.spent_notes.len() < self.limits.in_flight_max && notes.capacity() <= KEPT_NOTES {
            notes.clear();
            self.spent_notes.push(notes);
        }
    }

    /// Asks for a spare file unless there is one, or none may be had now.
    pub fn prepare_spare(&mut self, out: &mut Vec<Effect>) {
        let may_create = match self.spare {
            Spare::Preparing { .. } | Spare::Ready { .. } | Spare::Refused { .. } => return,
            Spare::Absent => self.file_count() < self.limits.files_max,
        };
        let recycled = self.free.pop_front();
        if recycled.is_none() && !may_create {
            return;
        }
        let seq = self.newest_seq.next();
        self.newest_seq = seq;
        self.spare = Spare::Preparing { seq, recycled };
        out.push(Effect::PrepareWalFile { seq, recycle: recycled });
    }

    /// A file was prepared, or could not be.
    ///
    /// # Panics
    /// When it was not asked for.
    pub fn prepared(&mut self, now: MonotonicMicros, seq: WalFileSeq, result: Result<(), NoSpace>) {
        let Spare::Preparing { seq: asked, recycled } = self.spare else {
            panic!("{seq:?} was not asked for");
        };
        assert_eq!(seq, asked, "the file asked for");
        self.lacks_space = result.is_err();
        self.spare = match result {
            Ok(()) => Spare::Ready { seq },
            Err(NoSpace) => {
                self.free.extend(recycled);
                Spare::Refused { retry_at: now.plus_millis(NO_SPACE_RETRY_MS) }
            }
        };
    }

    /// How much of the log is taken, in percent of its bound: the files that no checkpoint has freed, the active one as
    /// far as it is written, and what waits.
    pub fn taken_percent(&self) -> u32 {
        let percent = 100 * self.taken_bytes() / self.bytes_max();
        u32::try_from(percent).unwrap_or(100).min(100)
    }

    /// How much of the log is taken.
    pub fn taken_bytes(&self) -> u64 {
        let full: u64 = self.full.len() as u64 * self.limits.file_bytes;
        full + self.position + self.pending_bytes
    }

    /// The log's bound.
    pub fn bytes_max(&self) -> u64 {
        self.limits.files_max as u64 * self.limits.file_bytes
    }

    /// Whether only a checkpoint can make room for the file after the active one.
    pub fn wants_checkpoint(&self) -> bool {
        match self.spare {
            Spare::Ready { .. } | Spare::Preparing { .. } => false,
            Spare::Absent => self.free.is_empty() && self.file_count() >= self.limits.files_max,
            Spare::Refused { .. } => self.free.is_empty() && !self.full.is_empty(),
        }
    }

    /// Whether the disk had no room for a file.
    pub fn lacks_space(&self) -> bool {
        self.lacks_space
    }

    /// Whether something waits that no file has room for, now that all else is durable.
    pub fn is_stuck(&self) -> bool {
        self.in_flight.is_empty() && !self.pending.is_empty() && self.next_bytes().is_none()
    }

    /// A checkpoint covers every commit up to `lsn`: files that end there are free.
    pub fn checkpointed(&mut self, lsn: Lsn) {
        assert!(lsn >= self.checkpointed && lsn <= self.durable, "checkpoint at {lsn:?}");
        self.checkpointed = lsn;
        while let Some(file) = pop_front_if(&mut self.full, |file| file.last_lsn <= lsn) {
            self.free.push_back(file.seq);
            // Renaming a file needs no room: no reason to wait for the retry.
            if matches!(self.spare, Spare::Refused { .. }) {
                self.spare = Spare::Absent;
            }
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_deadline(&self) -> Option<MonotonicMicros> {
        let retry = match self.spare {
            Spare::Refused { retry_at } => Some(retry_at),
            Spare::Absent | Spare::Preparing { .. } | Spare::Ready { .. } => None,
        };
        let seal = match self.seal {
            Seal::Due { at } => Some(at),
            Seal::NotNeeded | Seal::Wanted => None,
        };
        retry.into_iter().chain(seal).min()
    }

    /// Time passed: a seal may be due, a refused file may be asked for again.
    pub fn tick(&mut self, now: MonotonicMicros) {
        if matches!(self.spare, Spare::Refused { retry_at } if retry_at <= now) {
            self.spare = Spare::Absent;
        }
        if matches!(self.seal, Seal::Due { at } if at <= now) {
            self.seal = Seal::Wanted;
        }
    }

    /// Panics where the invariants do not hold.
    pub fn check_invariants(&self) {
        let pending: u64 = self.pending.iter().map(|pending| pending.bytes).sum();
        assert_eq!(pending, self.pending_bytes, "waiting bytes are counted");
        assert!(self.in_flight.len() <= self.limits.in_flight_max, "commits in flight are bounded");
        for (place, commit) in self.in_flight.iter().enumerate() {
            assert_eq!(commit.lsn.0, self.durable.0 + 1 + place as u64, "LSNs are contiguous");
        }
        assert_eq!(self.next_lsn.0, self.durable.0 + 1 + self.in_flight.len() as u64);
        assert!(self.position <= self.active_bytes, "commits end within their file");
        assert!(self.file_count() <= self.limits.files_max, "files are bounded");
        let ends: Vec<_> = self.full.iter().map(|file| file.last_lsn).collect();
        assert!(ends.is_sorted(), "full files in order: {ends:?}");
        assert!(ends.iter().all(|end| *end > self.checkpointed), "flushed files are free");
        let mut files: Vec<_> = self.full.iter().map(|file| file.seq).collect();
        files.extend(&self.free);
        files.push(self.active);
        match self.spare {
            Spare::Preparing { seq, .. } | Spare::Ready { seq } => files.push(seq),
            Spare::Absent | Spare::Refused { .. } => {}
        }
        files.sort_unstable();
        assert!(
            files.windows(2).all(|pair| pair[0] < pair[1]),
            "each file is one thing: {files:?}"
        );
    }

    /// Size of the smallest commit that could go out now, or `None` when none can.
    fn next_bytes(&self) -> Option<u64> {
        if self.in_flight.len() >= self.limits.in_flight_max {
            return None;
        }
        let entry = match self.pending.front() {
            Some(pending) => pending.bytes,
            None if self.seal == Seal::Wanted => 0,
            None => return None,
        };
        let bytes = padded(COMMIT_HEADER_BYTES as u64 + entry);
        let fits = bytes <= self.active_bytes - self.position;
        (fits || matches!(self.spare, Spare::Ready { .. })).then_some(bytes)
    }

    fn rotate(&mut self) {
        let Spare::Ready { seq } = self.spare else { panic!("no file to go on with") };
        let last_lsn = Lsn(self.next_lsn.0 - 1);
        if last_lsn <= self.checkpointed {
            self.free.push_back(self.active);
        } else {
            self.full.push_back(FullFile { seq: self.active, last_lsn });
        }
        self.active = seq;
        self.active_bytes = self.limits.file_bytes;
        self.position = 0;
        self.spare = Spare::Absent;
    }

    fn file_count(&self) -> usize {
        let spare = match self.spare {
            Spare::Preparing { .. } | Spare::Ready { .. } => 1,
            Spare::Absent | Spare::Refused { .. } => 0,
        };
        1 + spare + self.full.len() + self.free.len()
    }
}

/// Records of one partition that follow each other become durable as one.
fn push_note(notes: &mut Vec<Note>, note: Note) {
    if let Note::Batch { slot, end_offset } = note
        && let Some(Note::Batch { slot: last_slot, end_offset: last_end }) = notes.last_mut()
        && *last_slot == slot
    {
        *last_end = end_offset;
        return;
    }
    notes.push(note);
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}
