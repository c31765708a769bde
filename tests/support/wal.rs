//! What a server that does not run left in its write-ahead log.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chronik_shards::format::wal::{Scanned, Scanner, decode_entries, parse_file_name};
use chronik_shards::format::wal_entry::WalEntry;
use chronik_shards::model::ShardId;

/// A commit in a WAL file.
#[derive(Debug)]
pub struct FoundCommit {
    pub path: PathBuf,
    pub position: u64,
    pub padded_bytes: u64,
    pub lsn: u64,
    pub entries: Vec<WalEntry>,
    pub payload: Bytes,
}

/// All commits of a shard's WAL files, by LSN, up to where one is torn.
pub fn commits(data_dir: &Path, shard: u16) -> Vec<FoundCommit> {
    let mut found = Vec::new();
    for entry in fs::read_dir(wal_dir(data_dir, shard)).expect("a WAL directory") {
        let path = entry.expect("a directory that stays").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8");
        let Some(seq) = parse_file_name(name) else { continue };
        let file = File::open(&path).expect("a WAL file");
        let bytes = file.metadata().expect("an open file").len();
        let mut scanner =
            Scanner::new(ShardId(shard), seq, bytes, |position, buffer: &mut [u8]| {
                file.read_exact_at(buffer, position)
            });
        while let Some(Scanned::Commit { header, payload }) =
            scanner.next_commit().expect("a file that can be read")
        {
            let payload: Bytes = payload;
            found.push(FoundCommit {
                path: path.clone(),
                position: header.position,
                padded_bytes: header.padded_bytes(),
                lsn: header.lsn.0,
                entries: decode_entries(&payload, header.entry_count).expect("its CRC is right"),
                payload,
            });
        }
    }
    found.sort_by_key(|found| found.lsn);
    found
}

/// Takes away the last `count` commits of every shard, but for the first of a file: what a disk leaves that said of
/// them that it had them, and had not, when the power went.
pub fn forget_last_commits(data_dir: &Path, count: usize) {
    for shard in 0.. {
        if !wal_dir(data_dir, shard).is_dir() {
            return;
        }
        let mut commits = commits(data_dir, shard);
        let Some(newest) = commits.last().map(|last| last.path.clone()) else { continue };
        commits.retain(|commit| commit.path == newest);
        let first = commits.len().saturating_sub(count).max(1);
        if let Some(first) = commits.get(first) {
            let file = File::options().write(true).open(&newest).expect("a WAL file");
            let bytes = file.metadata().expect("an open file").len();
            file.set_len(first.position).expect("a file that can be cut");
            file.set_len(bytes).expect("a file that may be as long as before");
        }
    }
}

fn wal_dir(data_dir: &Path, shard: u16) -> PathBuf {
    data_dir.join(format!("shards/{shard}/wal"))
}
