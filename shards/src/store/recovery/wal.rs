//! Reading and judging the WALs of the shards there were.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use super::go_on::{Extent, Tail};
use super::replay::{self, Overlay};
use super::{Damage, RecoveryError, at};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::positions::PartitionCheckpoint;
use crate::format::wal::{
    self, BLOCK_BYTES, CommitHeader, SalvagedEntry, Scanned, Scanner, decode_entries,
};
use crate::format::wal_entry::WalEntry;
use crate::model::{Lsn, ReplicaKey, ShardId, WalFileSeq};
use crate::store::disk::{DirEntry, Disk, OpenMode, read_file};
use crate::store::paths;

/// How much of a damaged commit is read to name what it held.
const SALVAGE_BYTES_MAX: u64 = 4 << 20;

/// A shard that there was.
#[derive(Debug)]
pub struct OldShard {
    /// Its number.
    pub shard: ShardId,
    /// Its WAL files and their sizes, oldest first.
    pub files: Vec<(WalFileSeq, u64)>,
    /// How its WAL ends; `None` without a checkpoint to count from.
    pub tail: Option<Tail>,
}

/// What checkpoints and WALs say together.
pub struct WalState {
    /// What the WAL says of each partition.
    pub replay: BTreeMap<ReplicaKey, Overlay>,
    /// Where each partition stood.
    pub checkpoints: BTreeMap<ReplicaKey, PartitionCheckpoint>,
    /// Acknowledged entries that cannot be read.
    pub damages: Vec<Damage>,
    /// For people.
    pub report: Vec<String>,
    /// The shards there were, by number.
    pub shards: Vec<OldShard>,
    /// No LSN above this one was ever used.
    pub last_lsn: Lsn,
    /// An earlier recovery left its checkpoint of all shards: it did not come to its end.
    pub is_unfinished: bool,
    /// A checkpoint could not be read: nobody knows of some partitions where they stood.
    pub lacks_checkpoint: bool,
}

/// Reads the state of all shards, whatever their number.
pub fn read<D: Disk>(disk: &D, data: &Path) -> Result<WalState, RecoveryError> {
    let mut state = WalState {
        replay: BTreeMap::new(),
        checkpoints: BTreeMap::new(),
        damages: Vec::new(),
        report: Vec::new(),
        shards: Vec::new(),
        last_lsn: Lsn(0),
        is_unfinished: false,
        lacks_checkpoint: false,
    };
    let shards_dir = paths::shards_dir(data);
    disk.sync_dir(&shards_dir).map_err(at(&shards_dir))?;
    let overall = read_checkpoint(disk, &paths::recovery_checkpoint(data), &mut state.report)?;
    let entries = disk.list(&shards_dir).map_err(at(&shards_dir))?;
    let number = |entry: &DirEntry| entry.name.parse().ok().filter(|_| entry.is_dir).map(ShardId);
    let mut shards: Vec<ShardId> = entries.iter().filter_map(number).collect();
    shards.sort_unstable();
    let found = disk.map_all(shards, |disk, shard| read_shard(disk, data, shard, overall.as_ref()));
    // LSNs grow over all shards whenever partitions move between them, so this is the order of time for
    // every partition, wherever it lived.
    let mut commits = BTreeMap::new();
    for found in found {
        let found = found?;
        let shard = found.old.shard;
        commits.extend(found.commits.into_iter().map(|(lsn, entries)| ((lsn, shard), entries)));
        state.checkpoints.extend(by_key(found.partitions));
        state.damages.extend(found.damages);
        state.report.extend(found.report);
        state.last_lsn = state.last_lsn.max(found.last_lsn);
        state.shards.push(found.old);
    }
    let has_own = |shard: &OldShard| shard.tail.is_some();
    state.lacks_checkpoint = state.shards.is_empty() || !state.shards.iter().all(has_own);
    if let Some(overall) = overall {
        state.lacks_checkpoint = false;
        state.report.push("a recovery was not finished: going on from it".to_owned());
        state.is_unfinished = true;
        state.last_lsn = state.last_lsn.max(overall.lsn);
        state.checkpoints = by_key(overall.partitions);
    }
    state.replay = replay::fold(commits.into_values().flatten(), &mut state.damages);
    Ok(state)
}

fn by_key(partitions: Vec<PartitionCheckpoint>) -> BTreeMap<ReplicaKey, PartitionCheckpoint> {
    partitions.into_iter().map(|partition| (partition.key, partition)).collect()
}

fn read_checkpoint<D: Disk>(
    disk: &D,
    path: &Path,
    report: &mut Vec<String>,
) -> Result<Option<Checkpoint>, RecoveryError> {
    match read_file(disk, path) {
        Ok(content) => match checkpoint::decode(&content) {
            Ok(checkpoint) => Ok(Some(checkpoint)),
            Err(error) => {
                report.push(format!("{}: {error}; reading the segments instead", path.display()));
                Ok(None)
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(path)(error)),
    }
}

/// What one shard's checkpoint and WAL say.
struct ShardFound {
    old: OldShard,
    /// The commits that count, in order.
    commits: Vec<(Lsn, Vec<WalEntry>)>,
    /// Its checkpoint.
    partitions: Vec<PartitionCheckpoint>,
    damages: Vec<Damage>,
    report: Vec<String>,
    last_lsn: Lsn,
}

fn read_shard<D: Disk>(
    disk: &D,
    data: &Path,
    shard: ShardId,
    overall: Option<&Checkpoint>,
) -> Result<ShardFound, RecoveryError> {
    let (mut report, mut damages) = (Vec::new(), Vec::new());
    // The process before may have ended between giving the checkpoint its name and making that durable.
    // The WAL that it covers must not be freed before the name is.
    let dir = paths::shard_dir(data, shard);
    disk.sync_dir(&dir).map_err(at(&dir))?;
    let own = read_checkpoint(disk, &paths::checkpoint(data, shard), &mut report)?;
    let files = wal_files(disk, data, shard)?;
    let base = overall.or(own.as_ref()).map(|checkpoint| checkpoint.lsn);
    if own.is_some() && overall.is_none() && files.is_empty() {
        let what = format!("shard {shard} has a checkpoint and no WAL file");
        damages.push(Damage { key: None, topic_name: None, offsets: None, what });
    }
    if own.is_none() && overall.is_none() && !files.is_empty() {
        report.push(format!("shard {shard}: no checkpoint, reading the last segments"));
    }
    let Needed { files: needed, unused } = needed(disk, data, shard, &files, base)?;
    let found = Found::read(disk, data, shard, &needed, base)?;
    let headers = found.commits.iter().map(|(lsn, commit)| (*lsn, commit.durable));
    let judgement = judge(base, headers);
    found.make_durable(disk, data, shard, &judgement)?;
    for (from, to) in &judgement.missing {
        let entries = found.salvage(disk, data, shard, &files, *from, *to)?;
        name_missing(shard, *from, *to, &entries, &mut damages);
    }
    if !judgement.torn.is_empty() || !found.damaged.is_empty() && judgement.missing.is_empty() {
        report.push(format!(
            "shard {shard}: torn tail behind LSN {} dropped, {} later commits with it",
            judgement.last,
            judgement.torn.len()
        ));
    }
    let seen = found.commits.keys().chain(found.damaged.keys()).max().copied();
    let tail = own.as_ref().map(|own| Tail {
        checkpointed: own.lsn,
        last: judgement.last,
        extents: found.extents,
        unused,
    });
    let (mut commits, mut bytes) = (Vec::new(), 0);
    for (lsn, commit) in found.commits.into_iter().filter(|(lsn, _)| *lsn <= judgement.last) {
        bytes += commit.payload.len();
        match decode_entries(&commit.payload, commit.entry_count) {
            Ok(entries) => commits.push((lsn, entries)),
            Err(error) => {
                let what = format!("shard {shard}, LSN {lsn}: {error}");
                damages.push(Damage { key: None, topic_name: None, offsets: None, what });
            }
        }
    }
    report.push(format!("shard {shard}: {} commits, {bytes} bytes read", commits.len()));
    let own_last = own.as_ref().map_or(Lsn(0), |checkpoint| checkpoint.lsn);
    Ok(ShardFound {
        old: OldShard { shard, files, tail },
        commits,
        partitions: own.map(|own| own.partitions).unwrap_or_default(),
        damages,
        report,
        last_lsn: own_last.max(seen.unwrap_or_default()),
    })
}

fn wal_files<D: Disk>(
    disk: &D,
    data: &Path,
    shard: ShardId,
) -> Result<Vec<(WalFileSeq, u64)>, RecoveryError> {
    let dir = paths::wal_dir(data, shard);
    let entries = match disk.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(at(&dir))?,
    };
    let file = |entry: &DirEntry| Some((wal::parse_file_name(&entry.name)?, entry.bytes));
    Ok(entries.iter().filter_map(file).collect())
}

/// The files of a shard that have to be read, and newer ones that have not.
struct Needed {
    /// May hold a commit beyond the checkpoint; oldest first, with their sizes.
    files: Vec<(WalFileSeq, u64)>,
    /// Say that they were never used.
    unused: Vec<WalFileSeq>,
}

/// Finds the files that may hold a commit beyond `base`, of `files`, which are all there are, oldest first.
///
/// LSNs grow from one file to the next, so where a file begins with a commit that is at most the next
/// one after `base`, no earlier file has anything beyond it: those wait to be recycled. A file that
/// says that it is unused holds nothing that was ever acknowledged.
fn needed<D: Disk>(
    disk: &D,
    data: &Path,
    shard: ShardId,
    files: &[(WalFileSeq, u64)],
    base: Option<Lsn>,
) -> Result<Needed, RecoveryError> {
    let mut block = vec![0; BLOCK_BYTES as usize];
    let mut needed = Needed { files: Vec::new(), unused: Vec::new() };
    for (seq, bytes) in files.iter().rev() {
        let path = paths::wal_file(data, shard, *seq);
        let file = disk.open(&path, OpenMode::Read).map_err(at(&path))?;
        let read = disk.read_at(&file, 0, &mut block).map_err(at(&path))?;
        if wal::is_unused(&block[..read], shard, *seq) {
            needed.unused.push(*seq);
            continue;
        }
        needed.files.push((*seq, *bytes));
        let begins_by = |base: Lsn| {
            CommitHeader::parse(&block[..read]).is_some_and(|header| {
                header.shard == shard
                    && header.generation == *seq
                    && header.position == 0
                    && header.lsn <= base.next()
            })
        };
        if base.is_some_and(begins_by) {
            break;
        }
    }
    needed.files.reverse();
    needed.unused.reverse();
    Ok(needed)
}

/// What damaged commits held, as far as they still say; for the message.
fn name_missing(
    shard: ShardId,
    from: Lsn,
    to: Lsn,
    entries: &[SalvagedEntry],
    damages: &mut Vec<Damage>,
) {
    let which = if from == to { format!("LSN {from}") } else { format!("LSNs {from} to {to}") };
    let what = format!("shard {shard}, {which}: acknowledged and not readable");
    if entries.is_empty() {
        damages.push(Damage { key: None, topic_name: None, offsets: None, what });
        return;
    }
    for entry in entries {
        let damage = Damage {
            key: Some(entry.key),
            topic_name: None,
            offsets: entry.offsets,
            what: what.clone(),
        };
        damages.push(damage);
    }
}

struct FoundCommit {
    durable: Lsn,
    payload: bytes::Bytes,
    entry_count: u32,
    file: WalFileSeq,
    end: u64,
    position: u64,
}

/// The commits of one shard beyond its checkpoint.
#[derive(Default)]
struct Found {
    commits: BTreeMap<Lsn, FoundCommit>,
    damaged: BTreeMap<Lsn, Vec<SalvagedEntry>>,
    /// Where each commit lies that has a header, those the checkpoint covers included.
    extents: Vec<Extent>,
}

impl Found {
    /// Reads files, which are given with their sizes, oldest first.
    fn read<D: Disk>(
        disk: &D,
        data: &Path,
        shard: ShardId,
        files: &[(WalFileSeq, u64)],
        base: Option<Lsn>,
    ) -> Result<Self, RecoveryError> {
        let mut open = Vec::new();
        // The system begins to read all of them before the first is waited for.
        for (seq, bytes) in files {
            let path = paths::wal_file(data, shard, *seq);
            let file = disk.open(&path, OpenMode::Read).map_err(at(&path))?;
            disk.will_read(&file, *bytes);
            open.push(file);
        }
        let mut found = Self::default();
        for ((seq, bytes), file) in files.iter().zip(&open) {
            let path = paths::wal_file(data, shard, *seq);
            found.scan(disk, file, shard, *seq, *bytes, base).map_err(at(&path))?;
        }
        Ok(found)
    }

    fn scan<D: Disk>(
        &mut self,
        disk: &D,
        file: &D::File,
        shard: ShardId,
        seq: WalFileSeq,
        bytes: u64,
        base: Option<Lsn>,
    ) -> io::Result<()> {
        let read = |position: u64, out: &mut [u8]| match disk.read_at(file, position, out)? {
            read if read == out.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        let mut scanner = Scanner::new(shard, seq, bytes, read);
        while let Some(scanned) = scanner.next_commit()? {
            let header = *scanned.header();
            self.extents.push(Extent {
                file: seq,
                lsn: header.lsn,
                position: header.position,
                end: header.end(),
            });
            if base.is_some_and(|base| header.lsn <= base) {
                continue;
            }
            match scanned {
                Scanned::Commit { payload, .. } => {
                    let commit = FoundCommit {
                        durable: header.durable,
                        payload,
                        entry_count: header.entry_count,
                        file: seq,
                        end: header.end(),
                        position: header.position,
                    };
                    self.commits.insert(header.lsn, commit);
                }
                Scanned::Damaged { entries, .. } => {
                    self.damaged.insert(header.lsn, entries);
                }
            }
        }
        Ok(())
    }

    /// Syncs the files of commits that count and that nobody has seen finished.
    ///
    /// The process that wrote them may have ended before the device had given up its cache. What follows from
    /// them, the removal of segments below a log start for one, must not outlive them.
    fn make_durable<D: Disk>(
        &self,
        disk: &D,
        data: &Path,
        shard: ShardId,
        judgement: &Judgement,
    ) -> Result<(), RecoveryError> {
        let counts = |(lsn, _): &(&Lsn, &FoundCommit)| **lsn <= judgement.last;
        let unproven = self.commits.range(judgement.durable.next()..).filter(counts);
        for seq in unproven.map(|(_, commit)| commit.file).collect::<BTreeSet<_>>() {
            let path = paths::wal_file(data, shard, seq);
            let file = disk.open(&path, OpenMode::Read).map_err(at(&path))?;
            disk.sync(&file).map_err(at(&path))?;
        }
        Ok(())
    }

    /// What the commits `from..=to` say, from their damaged payloads or from the place where they
    /// must have been.
    fn salvage<D: Disk>(
        &self,
        disk: &D,
        data: &Path,
        shard: ShardId,
        files: &[(WalFileSeq, u64)],
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<SalvagedEntry>, RecoveryError> {
        let known: Vec<_> = self.damaged.range(from..=to).flat_map(|(_, found)| found).collect();
        if !known.is_empty() {
            return Ok(known.into_iter().copied().collect());
        }
        let before = self.commits.range(..from).next_back().map(|(_, commit)| commit);
        let after = self.commits.range(to..).next().map(|(_, commit)| commit);
        let mut places = Vec::new();
        places.extend(before.map(|commit| (commit.file, commit.end)));
        places.extend(after.map(|commit| (commit.file, 0)));
        for (seq, position) in places {
            let Some((_, bytes)) = files.iter().find(|(found, _)| *found == seq) else { continue };
            let next = after.filter(|commit| commit.file == seq);
            let end = next.map_or(*bytes, |commit| commit.position);
            let count = end.saturating_sub(position).min(SALVAGE_BYTES_MAX);
            let path = paths::wal_file(data, shard, seq);
            let mut piece = vec![0; count as usize];
            let file = disk.open(&path, OpenMode::Read).map_err(at(&path))?;
            let read = disk.read_at(&file, position, &mut piece).map_err(at(&path))?;
            let entries = wal::salvage(&piece[..read]);
            if !entries.is_empty() {
                return Ok(entries);
            }
        }
        Ok(Vec::new())
    }
}

/// What of a shard's commits counts.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Judgement {
    /// Commits up to this one count.
    last: Lsn,
    /// Numbers that were durable once and are not there, as inclusive ranges.
    missing: Vec<(Lsn, Lsn)>,
    /// Commits behind a torn one: never acknowledged.
    torn: Vec<Lsn>,
    /// Commits up to this one were durable when a later one was built.
    durable: Lsn,
}

/// Judges the commits found, given as number and durable LSN in order. `base` is the checkpoint's;
/// without one the first commit found is taken for the first there was.
fn judge(base: Option<Lsn>, commits: impl Iterator<Item = (Lsn, Lsn)> + Clone) -> Judgement {
    let first = commits.clone().next().map(|(lsn, _)| Lsn(lsn.0.saturating_sub(1)));
    let base = base.or(first).unwrap_or_default();
    let durable = commits.clone().map(|(_, durable)| durable).max().unwrap_or_default().max(base);
    let mut judgement = Judgement { last: base, missing: Vec::new(), torn: Vec::new(), durable };
    for (lsn, _) in commits {
        let expected = judgement.last.next();
        if lsn == expected {
            judgement.last = lsn;
        } else if expected <= durable {
            let end = Lsn(lsn.0 - 1);
            judgement.missing.push((expected, end.min(durable)));
            // Beyond what was durable a hole is a tear, in front of this commit.
            if end > durable {
                judgement.last = durable;
                judgement.torn.push(lsn);
            } else {
                judgement.last = lsn;
            }
        } else {
            judgement.torn.push(lsn);
        }
    }
    if judgement.last < durable {
        judgement.missing.push((judgement.last.next(), durable));
        judgement.last = durable;
    }
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(base: Option<u64>, commits: &[(u64, u64)]) -> (u64, Vec<(u64, u64)>, Vec<u64>) {
        let commits = commits.iter().map(|(lsn, durable)| (Lsn(*lsn), Lsn(*durable)));
        let judgement = judge(base.map(Lsn), commits);
        let missing = judgement.missing.iter().map(|(from, to)| (from.0, to.0)).collect();
        (judgement.last.0, missing, judgement.torn.iter().map(|lsn| lsn.0).collect())
    }

    #[test]
    fn a_hole_is_torn_or_corrupt_by_what_was_durable_behind_it() {
        let table = [
            (Some(4), vec![], (4, vec![], vec![])),
            (Some(4), vec![(5, 4), (6, 5)], (6, vec![], vec![])),
            (None, vec![(9, 8), (10, 8)], (10, vec![], vec![])),
            // 6 was in flight together with 7: a torn tail.
            (Some(4), vec![(5, 4), (7, 5)], (5, vec![], vec![7])),
            // 7 knew that 6 was durable: corruption. 7 itself counts.
            (Some(4), vec![(5, 4), (7, 6)], (7, vec![(6, 6)], vec![])),
            // The checkpoint says that 5 must be there.
            (Some(4), vec![(6, 5)], (6, vec![(5, 5)], vec![])),
            (Some(4), vec![(6, 4)], (4, vec![], vec![6])),
            // Corruption in the middle, a torn tail behind.
            (Some(4), vec![(6, 5), (7, 6), (9, 7)], (7, vec![(5, 5)], vec![9])),
            // A hole that is durable in part.
            (Some(4), vec![(5, 4), (8, 6)], (6, vec![(6, 6)], vec![8])),
        ];
        for (base, commits, expected) in table {
            assert_eq!(judged(base, &commits), expected, "{base:?} {commits:?}");
        }
    }
}
