//! Where things are in the data directory.
//!
//! ```text
//! shards/checkpoint                     only while a recovery is being completed
//! shards/<n>/checkpoint
//! shards/<n>/wal/<seq>.wal
//! topics/<topic>-<p>/<offset>.log …
//! topics/<topic>-<p>/<offset>.log.cleaned …  rewritten by compaction and not in its place yet
//! topics/<topic>-<p>.<topic id>-new     being created
//! topics/<topic>-<p>.<topic id>-stray   its name was wanted by a newer topic
//! topics/<topic>-<p>.<topic id>-delete  being removed
//! ```

use std::path::{Path, PathBuf};

use crate::format::wal;
use crate::model::{Offset, PartitionIndex, ReplicaKey, ShardId, TopicId, WalFileSeq};

/// The directory of all shards.
#[must_use]
pub fn shards_dir(data: &Path) -> PathBuf {
    data.join("shards")
}

/// A shard's directory.
#[must_use]
pub fn shard_dir(data: &Path, shard: ShardId) -> PathBuf {
    shards_dir(data).join(shard.to_string())
}

/// A shard's checkpoint.
#[must_use]
pub fn checkpoint(data: &Path, shard: ShardId) -> PathBuf {
    shard_dir(data, shard).join("checkpoint")
}

/// What a recovery found, for all shards; supersedes their checkpoints while it exists.
#[must_use]
pub fn recovery_checkpoint(data: &Path) -> PathBuf {
    shards_dir(data).join("checkpoint")
}

/// The directory of a shard's WAL.
#[must_use]
pub fn wal_dir(data: &Path, shard: ShardId) -> PathBuf {
    shard_dir(data, shard).join("wal")
}

/// A WAL file.
#[must_use]
pub fn wal_file(data: &Path, shard: ShardId, seq: WalFileSeq) -> PathBuf {
    wal_dir(data, shard).join(wal::file_name(seq))
}

/// The directory of all partitions.
#[must_use]
pub fn topics_dir(data: &Path) -> PathBuf {
    data.join("topics")
}

/// A partition's directory.
#[must_use]
pub fn partition_dir(data: &Path, topic_name: &str, partition: PartitionIndex) -> PathBuf {
    topics_dir(data).join(format!("{topic_name}-{partition}"))
}

/// The kinds of files that a segment has, and the snapshot at its beginning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SegmentFile {
    /// Record batches.
    Log,
    /// Offset index.
    Index,
    /// Time index.
    TimeIndex,
    /// Idempotent producers as of the offset.
    Snapshot,
}

impl SegmentFile {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Log, Self::Index, Self::TimeIndex, Self::Snapshot];

    fn extension(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Index => "index",
            Self::TimeIndex => "timeindex",
            Self::Snapshot => "snapshot",
        }
    }

    /// The file's name.
    #[must_use]
    pub fn name(self, base_offset: Offset) -> String {
        format!("{:020}.{}", base_offset.0, self.extension())
    }

    /// What a file's name says, or `None` for another kind of file.
    #[must_use]
    pub fn parse(name: &str) -> Option<(Self, Offset)> {
        let (digits, extension) = name.split_once('.')?;
        let kind = Self::ALL.into_iter().find(|kind| kind.extension() == extension)?;
        let plain = digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit());
        let offset = plain.then(|| digits.parse().ok()).flatten()?;
        Some((kind, Offset(offset)))
    }
}

/// What the name of a segment's file ends with while compaction has not put it in its place.
pub const CLEANED_SUFFIX: &str = ".cleaned";

/// A file of a segment.
#[must_use]
pub fn segment_file(dir: &Path, kind: SegmentFile, base_offset: Offset) -> PathBuf {
    dir.join(kind.name(base_offset))
}

/// Why a partition's directory does not have its plain name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aside {
    /// Not all there yet.
    New,
    /// A newer topic wanted the name.
    Stray,
    /// On its way out.
    Delete,
}

impl Aside {
    const ALL: [(Self, &str); 3] =
        [(Self::New, "-new"), (Self::Stray, "-stray"), (Self::Delete, "-delete")];

    /// The directory's name with the reason and the topic's id.
    #[must_use]
    pub fn path(self, data: &Path, topic_name: &str, key: ReplicaKey) -> PathBuf {
        let suffix = Self::ALL.into_iter().find(|(aside, _)| *aside == self);
        let suffix = suffix.map_or("", |(_, suffix)| suffix);
        let (partition, id) = (key.partition, key.topic_id);
        topics_dir(data).join(format!("{topic_name}-{partition}.{id}{suffix}"))
    }
}

/// What the name of a directory of a partition says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionDirName {
    /// The topic's name.
    pub topic_name: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// The reason for its name and the topic's id, if it was put aside.
    pub aside: Option<(Aside, TopicId)>,
}

impl PartitionDirName {
    /// Reads a directory's name. `None`: not a partition's.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        for (aside, suffix) in Aside::ALL {
            let Some(rest) = name.strip_suffix(suffix) else { continue };
            // A topic's name may look like a suffix, so the id decides.
            let Some((plain, id)) = rest.rsplit_once('.') else { continue };
            if let (Ok(id), Some(plain)) = (id.parse(), Self::plain(plain)) {
                return Some(Self { aside: Some((aside, id)), ..plain });
            }
        }
        Self::plain(name)
    }

    fn plain(name: &str) -> Option<Self> {
        let (topic_name, digits) = name.rsplit_once('-')?;
        let plain = digits.bytes().all(|digit| digit.is_ascii_digit()) && !topic_name.is_empty();
        let partition = plain.then(|| digits.parse().ok()).flatten()?;
        let partition = PartitionIndex(partition);
        Some(Self { topic_name: topic_name.to_owned(), partition, aside: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_file_names_read_back() {
        for kind in SegmentFile::ALL {
            assert_eq!(SegmentFile::parse(&kind.name(Offset(77))), Some((kind, Offset(77))));
        }
        assert_eq!(SegmentFile::Log.name(Offset(5)), "00000000000000000005.log");
        for name in ["5.log", "00000000000000000005.tmp", "00000000000000000005.log.tmp", ""] {
            assert_eq!(SegmentFile::parse(name), None, "{name}");
        }
    }

    #[test]
    fn directory_names_read_back_whatever_the_topic_is_called() {
        let data = Path::new("/d");
        let key = ReplicaKey { topic_id: TopicId([0xFB; 16]), partition: PartitionIndex(12) };
        for topic in ["pears", "a-1", "x.y-new", "z-delete", "."] {
            let plain = partition_dir(data, topic, key.partition);
            let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
            let expected = PartitionDirName {
                topic_name: topic.to_owned(),
                partition: key.partition,
                aside: None,
            };
            assert_eq!(PartitionDirName::parse(&name(&plain)), Some(expected.clone()));
            for (aside, _) in Aside::ALL {
                let path = aside.path(data, topic, key);
                let aside = Some((aside, key.topic_id));
                let expected = PartitionDirName { aside, ..expected.clone() };
                assert_eq!(PartitionDirName::parse(&name(&path)), Some(expected));
            }
        }
        assert_eq!(PartitionDirName::parse("lost+found"), None);
        assert_eq!(PartitionDirName::parse("-1"), None);
    }
}
