//! The WAL files on a simulated disk, as traces and deliberate bugs look into them.

use std::io::IoSlice;
use std::path::{Path, PathBuf};

use chronik_shards::format::wal;
use chronik_shards::format::wal_entry::WalEntry;
use chronik_shards::model::ShardId;
use chronik_shards::store::disk::{Disk, OpenMode};
use chronik_shards::store::sim_disk::SimDisk;

/// What WAL files hold, a line a commit; for traces.
pub fn wal_lines(disk: &SimDisk) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, bytes) in wal_paths(disk) {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a WAL file's name");
        let seq = wal::parse_file_name(name).expect("a WAL file's name");
        let shard = path.ancestors().nth(2).and_then(|dir| dir.file_name()?.to_str()?.parse().ok());
        let shard = ShardId(shard.expect("a shard's directory"));
        let read = |position: u64, out: &mut [u8]| {
            out.copy_from_slice(&bytes[position as usize..position as usize + out.len()]);
            Ok(())
        };
        let mut scanner = wal::Scanner::new(shard, seq, bytes.len() as u64, read);
        lines.push(format!("{}: unused {}", path.display(), {
            bytes
                .get(..wal::BLOCK_BYTES as usize)
                .is_some_and(|block| wal::is_unused(block, shard, seq))
        }));
        while let Ok(Some(scanned)) = scanner.next_commit() {
            let header = *scanned.header();
            let entries = match scanned {
                wal::Scanned::Commit { payload, .. } => {
                    wal::decode_entries(&payload, header.entry_count).map_or_else(
                        |error| error.to_string(),
                        |entries| entries.iter().map(entry_line).collect::<Vec<_>>().join(", "),
                    )
                }
                wal::Scanned::Damaged { .. } => "damaged".to_owned(),
            };
            let (lsn, durable, at) = (header.lsn, header.durable, header.position);
            lines.push(format!("  {lsn} at {at}, durable {durable}: {entries}"));
        }
    }
    lines
}

fn entry_line(entry: &WalEntry) -> String {
    match entry {
        WalEntry::Batch { key, batch } => {
            format!("{key} {}..{}", batch.header.base_offset, batch.end_offset())
        }
        WalEntry::Opened { key, .. } => format!("{key} opened"),
        WalEntry::LogStart { key, log_start_offset } => format!("{key} from {log_start_offset}"),
        WalEntry::Truncated { key, end_offset } => format!("{key} cut at {end_offset}"),
        WalEntry::Flushed { key, end_offset } => format!("{key} in segments to {end_offset}"),
        WalEntry::Closed { key } => format!("{key} closed"),
    }
}

/// Paths of WAL files on a disk.
pub fn wal_paths(disk: &SimDisk) -> Vec<(PathBuf, Vec<u8>)> {
    let is_wal = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "wal");
    disk.files().into_iter().filter(|(path, _)| is_wal(path)).collect()
}

/// Overwrites a piece of a file, durably.
pub fn write_durably(disk: &SimDisk, path: &Path, position: u64, bytes: &[u8]) {
    let written = disk.open(path, OpenMode::Write).and_then(|file| {
        disk.write_at(&file, position, &[IoSlice::new(bytes)])?;
        disk.sync(&file)
    });
    // A disk that is about to die takes nothing more.
    drop(written);
}
