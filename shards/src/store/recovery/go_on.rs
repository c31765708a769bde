//! Going on with the WALs as they are: the process that starts takes the place of the one that ended.
//!
//! What the WALs have beyond their checkpoints is in segments by now, but not durably, and stays where it is:
//! no sync is waited for. The shard's next flush round syncs the segments, writes the checkpoint and
//! frees the files, as it would have in the process before. Until then a crash finds what this one found:
//! the old checkpoints, and a WAL that is longer by what came since.
//!
//! What has to be true on the disk before a shard writes its next commit:
//! - Every commit that counts is durable: `wal` has seen to that before anything followed from it.
//! - No commit that does not count can be read any more, since its number is going to be used again. It is
//!   overwritten; and a file that says that it is unused, behind whose first block a torn commit may lie, gets
//!   another generation.
//! - The names of the files are durable, since one of them may have been made a moment before the end.
//!
//! Deliberately absent: other shards than there were, and anything that has to be given up. That is for
//! `install`.

use std::io::{self, IoSlice};
use std::path::Path;

use super::wal::OldShard;
use super::{RecoveryError, at};
use crate::format::wal::BLOCK_BYTES;
use crate::machine::effect::WalStart;
use crate::model::{Lsn, ShardId, WalFileSeq};
use crate::store::disk::{Disk, OpenMode};
use crate::store::paths;

/// Zeroes are written in pieces of this size.
const ZEROES_BYTES: usize = 1 << 20;

/// Where a commit lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The file.
    pub file: WalFileSeq,
    /// Its number.
    pub lsn: Lsn,
    /// Where it begins.
    pub position: u64,
    /// Where it ends, padding included.
    pub end: u64,
}

/// How a shard's WAL ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tail {
    /// The checkpoint covers every commit up to this one.
    pub checkpointed: Lsn,
    /// Commits up to this one count.
    pub last: Lsn,
    /// Where the commits of the files that were read lie, whether they count or not.
    pub extents: Vec<Extent>,
    /// Files that were not read because they say that they hold nothing.
    pub unused: Vec<WalFileSeq>,
}

/// What a shard goes on with, and what has to be done before.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plan {
    start: WalStart,
    /// Commits that do not count.
    void: Vec<Extent>,
    /// Files that get another name, and with it another generation.
    renamed: Vec<(WalFileSeq, WalFileSeq)>,
}

/// Whether today's `shards` shards are those there were, each with a checkpoint and a commit behind which
/// its WAL can go on.
pub fn are_same(shards: u16, old: &[OldShard]) -> bool {
    let whole = |old: &OldShard| {
        let is_whole = |(_, bytes): &(WalFileSeq, u64)| bytes.is_multiple_of(BLOCK_BYTES);
        let counts = |tail: &Tail| tail.extents.iter().any(|extent| extent.lsn <= tail.last);
        old.tail.as_ref().is_some_and(counts) && old.files.iter().all(is_whole)
    };
    let numbers = old.iter().map(|old| old.shard);
    numbers.eq((0..shards).map(ShardId)) && old.iter().all(whole)
}

/// Makes the WALs ready to be gone on with. Every shard is one that [`are_same`] has found whole.
pub fn go_on<D: Disk>(
    disk: &D,
    data: &Path,
    old: Vec<OldShard>,
) -> Result<Vec<WalStart>, RecoveryError> {
    let starts = disk.map_all(old, |disk, old| {
        let plan = plan(&old);
        for extent in &plan.void {
            let path = paths::wal_file(data, old.shard, extent.file);
            erase(disk, &path, extent).map_err(at(&path))?;
        }
        for (from, to) in &plan.renamed {
            let path = paths::wal_file(data, old.shard, *from);
            let renamed = paths::wal_file(data, old.shard, *to);
            disk.rename(&path, &renamed).map_err(at(&path))?;
        }
        let dir = paths::wal_dir(data, old.shard);
        disk.sync_dir(&dir).map_err(at(&dir))?;
        Ok(plan.start)
    });
    starts.into_iter().collect()
}

fn plan(old: &OldShard) -> Plan {
    let tail = old.tail.as_ref().expect("the caller has asked whether there is one");
    let (counted, void): (Vec<Extent>, Vec<Extent>) =
        tail.extents.iter().partition(|extent| extent.lsn <= tail.last);
    let file = counted.iter().map(|extent| extent.file).max();
    let file = file.expect("the caller has asked whether there is a commit that counts");
    let ends = counted.iter().filter(|extent| extent.file == file).map(|extent| extent.end);
    let uncovered = || counted.iter().filter(|extent| extent.lsn > tail.checkpointed);
    let mut start = WalStart {
        position: ends.max().unwrap_or(0),
        checkpointed: tail.checkpointed,
        uncovered_bytes: uncovered().map(|extent| extent.end - extent.position).sum(),
        ..WalStart::empty(tail.last.next(), file, 0)
    };
    let mut newest = old.files.iter().map(|(seq, _)| *seq).max().unwrap_or(file);
    let mut renamed = Vec::new();
    for (seq, bytes) in &old.files {
        let last = uncovered().filter(|extent| extent.file == *seq).map(|extent| extent.lsn).max();
        match last {
            _ if *seq == file => start.file_bytes = *bytes,
            Some(last) => start.full.push((*seq, last)),
            None if tail.unused.contains(seq) => {
                newest = newest.next();
                renamed.push((*seq, newest));
                start.free.push(newest);
            }
            None => start.free.push(*seq),
        }
    }
    Plan { start, void, renamed }
}

/// Overwrites a commit with zeroes, durably.
fn erase<D: Disk>(disk: &D, path: &Path, extent: &Extent) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Write)?;
    write_zeroes(disk, &file, extent.position, extent.end)?;
    disk.sync(&file)
}

/// Writes zeroes from `position` to `end`.
pub fn write_zeroes<D: Disk>(
    disk: &D,
    file: &D::File,
    mut position: u64,
    end: u64,
) -> io::Result<()> {
    let bytes = end.saturating_sub(position);
    let zeroes = vec![0; ZEROES_BYTES.min(usize::try_from(bytes).unwrap_or(ZEROES_BYTES))];
    while position < end {
        let piece = &zeroes[..zeroes.len().min((end - position) as usize)];
        disk.write_at(file, position, &[IoSlice::new(piece)])?;
        position += piece.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE_BYTES: u64 = 16 * BLOCK_BYTES;

    fn extents(file: u64, lsns: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = Extent> {
        let first = *lsns.start();
        lsns.map(move |lsn| Extent {
            file: WalFileSeq(file),
            lsn: Lsn(lsn),
            position: (lsn - first) * BLOCK_BYTES,
            end: (lsn - first + 1) * BLOCK_BYTES,
        })
    }

    fn old(files: &[u64], tail: Tail) -> OldShard {
        let files = files.iter().map(|seq| (WalFileSeq(*seq), FILE_BYTES)).collect();
        OldShard { shard: ShardId(0), files, tail: Some(tail) }
    }

    #[test]
    fn every_file_becomes_what_it_was() {
        // 3 was freed; 4 is full and covered by the checkpoint, up to its last commit; 5 is full.
        let extents: Vec<Extent> =
            extents(4, 10..=12).chain(extents(5, 13..=15)).chain(extents(6, 16..=17)).collect();
        let unused = vec![WalFileSeq(7), WalFileSeq(8)];
        let tail = Tail { checkpointed: Lsn(12), last: Lsn(17), extents, unused };
        let plan = plan(&old(&[3, 4, 5, 6, 7, 8], tail));
        assert_eq!(
            plan.start,
            WalStart {
                next_lsn: Lsn(18),
                file: WalFileSeq(6),
                file_bytes: FILE_BYTES,
                position: 2 * BLOCK_BYTES,
                checkpointed: Lsn(12),
                uncovered_bytes: 5 * BLOCK_BYTES,
                full: vec![(WalFileSeq(5), Lsn(15))],
                free: [3, 4, 9, 10].map(WalFileSeq).to_vec(),
            }
        );
        assert_eq!(plan.void, []);
        let pair = |from, to| (WalFileSeq(from), WalFileSeq(to));
        assert_eq!(plan.renamed, [pair(7, 9), pair(8, 10)]);
    }

    #[test]
    fn commits_behind_the_last_that_counts_are_void_wherever_they_lie() {
        // 12 is torn; 13 went to the next file.
        let torn: Vec<Extent> = extents(4, 10..=12).chain(extents(5, 13..=13)).collect();
        let tail =
            Tail { checkpointed: Lsn(9), last: Lsn(11), extents: torn.clone(), unused: Vec::new() };
        let plan = plan(&old(&[4, 5], tail));
        assert_eq!(plan.void, torn[2..]);
        let start = plan.start;
        assert_eq!((start.file, start.position), (WalFileSeq(4), 2 * BLOCK_BYTES));
        assert_eq!((start.next_lsn, start.free), (Lsn(12), vec![WalFileSeq(5)]));
    }

    #[test]
    fn other_shards_or_missing_pieces_are_not_gone_on_with() {
        let tail = Tail {
            checkpointed: Lsn(30),
            last: Lsn(30),
            extents: extents(4, 28..=30).collect(),
            unused: Vec::new(),
        };
        let whole = |shard| OldShard { shard: ShardId(shard), ..old(&[4], tail.clone()) };
        assert!(are_same(2, &[whole(0), whole(1)]));
        assert!(!are_same(1, &[whole(0), whole(1)]));
        assert!(!are_same(3, &[whole(0), whole(1)]));
        assert!(!are_same(2, &[whole(0), whole(2)]));
        assert!(!are_same(1, &[OldShard { tail: None, ..whole(0) }]));
        let empty = Tail { extents: Vec::new(), ..tail.clone() };
        assert!(!are_same(1, &[OldShard { tail: Some(empty), ..whole(0) }]));
        let ragged = vec![(WalFileSeq(4), BLOCK_BYTES + 1)];
        assert!(!are_same(1, &[OldShard { files: ragged, ..whole(0) }]));
        assert!(!are_same(1, &[]));
    }
}
