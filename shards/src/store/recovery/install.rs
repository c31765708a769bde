//! The end of a recovery that begins new WALs: from here on the old ones are not needed.
//!
//! Everything in segments is made durable (unless nothing was changed and the checkpoints prove that it
//! is), then one checkpoint for all shards says so. It stands
//! until the new shards have their WAL files and their own checkpoints and the leftovers are gone;
//! a recovery that finds it ignores every older commit and goes on from it.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::go_on::write_zeroes;
use super::wal::OldShard;
use super::{RecoveryError, RecoveryInput, at};
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::positions::PartitionCheckpoint;
use crate::format::wal::BLOCK_BYTES;
use crate::machine::effect::WalStart;
use crate::model::{Lsn, ShardId, WalFileSeq};
use crate::store::disk::{Disk, OpenMode, replace_file};
use crate::store::{paths, remove_tree};

/// The checkpoint of all shards is of none.
const ALL_SHARDS: ShardId = ShardId(u16::MAX);

/// Size of the first WAL file of a shard that has none: room for the time it takes to fill one of the
/// usual size with zeroes, which the shard has done as soon as it runs. So a first start does not wait
/// for that.
const FIRST_FILE_BYTES: u64 = 4 << 20;

/// Makes the recovery final.
pub fn install<D: Disk>(
    disk: &D,
    input: &RecoveryInput,
    states: &[PartitionCheckpoint],
    old: &[OldShard],
    last_lsn: Lsn,
    needs_sync: bool,
) -> Result<Vec<WalStart>, RecoveryError> {
    assert!(input.wal_file_bytes.is_multiple_of(BLOCK_BYTES), "WAL files are whole blocks");
    let data = &input.data;
    if needs_sync {
        disk.sync_filesystem(data).map_err(at(data))?;
    }
    let overall = paths::recovery_checkpoint(data);
    write_checkpoint(disk, &overall, ALL_SHARDS, last_lsn, states.to_vec())?;

    // Generations are never used twice, by any shard: what a recycled file holds stays void.
    let used = old.iter().flat_map(|shard| &shard.files).map(|(seq, _)| *seq).max();
    let seq = used.unwrap_or_default().next();
    let mut spare: Vec<_> = old
        .iter()
        .flat_map(|shard| shard.files.iter().map(|(seq, bytes)| (shard.shard, *seq, *bytes)))
        .filter(|(_, _, bytes)| *bytes == input.wal_file_bytes)
        .collect();
    let mut starts = Vec::new();
    for shard in (0..input.shards).map(ShardId) {
        create_dirs(disk, data, shard)?;
        // A file of the shard itself if there is one.
        let own = spare.iter().position(|file| file.0 == shard);
        let recycled = match own {
            Some(index) => Some(spare.remove(index)),
            None => spare.pop(),
        };
        let path = paths::wal_file(data, shard, seq);
        let file_bytes = match recycled {
            Some((from, old_seq, bytes)) => {
                let old_path = paths::wal_file(data, from, old_seq);
                disk.rename(&old_path, &path).map_err(at(&old_path))?;
                bytes
            }
            None => {
                let bytes = input.wal_file_bytes.min(FIRST_FILE_BYTES);
                zero_fill(disk, &path, bytes).map_err(at(&path))?;
                bytes
            }
        };
        starts.push(WalStart::empty(last_lsn.next(), seq, file_bytes));
    }
    let shard_dirs = (0..input.shards).map(ShardId).chain(old.iter().map(|old| old.shard));
    for shard in shard_dirs.clone().collect::<BTreeSet<_>>() {
        let dir = paths::wal_dir(data, shard);
        match disk.sync_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(at(&dir))?,
        }
    }
    for shard in (0..input.shards).map(ShardId) {
        let own = states.iter().filter(|state| state.key.shard(input.shards) == shard);
        let path = paths::checkpoint(data, shard);
        write_checkpoint(disk, &path, shard, last_lsn, own.cloned().collect())?;
    }
    remove_rest(disk, input, old, seq)?;
    // A removed WAL that came back later would be replayed once more.
    for shard in (0..input.shards).map(ShardId) {
        let dir = paths::wal_dir(data, shard);
        disk.sync_dir(&dir).map_err(at(&dir))?;
    }
    let shards_dir = paths::shards_dir(data);
    disk.sync_dir(&shards_dir).map_err(at(&shards_dir))?;
    disk.remove_file(&overall).map_err(at(&overall))?;
    disk.sync_dir(&shards_dir).map_err(at(&shards_dir))?;
    Ok(starts)
}

fn write_checkpoint<D: Disk>(
    disk: &D,
    path: &Path,
    shard: ShardId,
    lsn: Lsn,
    partitions: Vec<PartitionCheckpoint>,
) -> Result<(), RecoveryError> {
    let content = checkpoint::encode(&Checkpoint { shard, lsn, partitions });
    replace_file(disk, path, &content).map_err(at(path))
}

fn create_dirs<D: Disk>(disk: &D, data: &Path, shard: ShardId) -> Result<(), RecoveryError> {
    for dir in [paths::shard_dir(data, shard), paths::wal_dir(data, shard)] {
        disk.create_dir(&dir).map_err(at(&dir))?;
        if let Some(parent) = dir.parent() {
            disk.sync_dir(parent).map_err(at(parent))?;
        }
    }
    Ok(())
}

fn zero_fill<D: Disk>(disk: &D, path: &Path, bytes: u64) -> io::Result<()> {
    let file = disk.open(path, OpenMode::Write)?;
    write_zeroes(disk, &file, 0, bytes)?;
    disk.sync(&file)
}

/// Removes the WAL files of before and the shards that are no more.
fn remove_rest<D: Disk>(
    disk: &D,
    input: &RecoveryInput,
    old: &[OldShard],
    kept: WalFileSeq,
) -> Result<(), RecoveryError> {
    let data = &input.data;
    for shard in old.iter().map(|old| old.shard) {
        if shard.0 >= input.shards {
            let dir = paths::shard_dir(data, shard);
            remove_tree(disk, &dir).map_err(at(&dir))?;
            continue;
        }
        let dir = paths::wal_dir(data, shard);
        let keep = paths::wal_file(data, shard, kept);
        for entry in disk.list(&dir).map_err(at(&dir))? {
            let path = dir.join(&entry.name);
            if path != keep && !entry.is_dir {
                disk.remove_file(&path).map_err(at(&path))?;
            }
        }
    }
    Ok(())
}
