//! Blocking file work: segments, checkpoints, directories, recovery.
//!
//! Synchronous, behind the [`disk::Disk`] trait: a storage thread runs it on the real disk, a
//! simulator on `sim_disk`. What to store is decided by the machine; here is how, and what a
//! failure means: no space is answered and given again, a partition's damage fences the partition,
//! and a failed sync is an error that must stop the process, because nobody knows what the kernel
//! dropped.
//!
//! Deliberately absent: the WAL's writing (that is `io`), clocks, and any sync on append but that of large
//! runs.

pub mod cleaner;
mod compaction;
pub mod deleted_topics;
mod direct_write;
pub mod disk;
mod freeing;
mod open_files;
pub mod pace;
pub mod partition_log;
pub mod paths;
mod producers;
pub mod recovery;
mod segment;
#[cfg(any(test, feature = "simulation"))]
pub mod sim_disk;
mod truncate;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use self::cleaner::{Cleaner, CleanerLimits};
use self::deleted_topics::HeardDeletions;
use self::disk::{Disk, is_no_space, read_file, replace_file};
use self::open_files::OpenFiles;
use self::partition_log::{PartitionLog, create_dir};
use self::paths::Aside;
use self::producers::ProducerTable;
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::partition_metadata;
use crate::format::positions::PartitionCheckpoint;
use crate::format::record_batch::StoredBatch;
use crate::machine::effect::{CheckpointJob, LogView, StoreJob, StoreReply};
use crate::machine::input::PartitionConfig;
use crate::model::{Offset, PartitionIndex, ReplicaKey, ShardId, TimestampMs, TopicId};

/// An error after which the process must stop.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A sync failed: what was written before may be lost, and trying again would hide it.
    #[error("sync of {path} failed: {error}")]
    Sync {
        /// What was to be made durable.
        path: PathBuf,
        /// The disk's words.
        error: io::Error,
    },
    /// The checkpoint cannot be written, for another reason than space.
    #[error("checkpoint {path}: {error}")]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The disk's words.
        error: io::Error,
    },
}

/// The storage of one shard.
pub struct SegmentStore<D: Disk> {
    disk: D,
    data: PathBuf,
    shard: ShardId,
    logs: BTreeMap<ReplicaKey, PartitionLog>,
    /// Fenced: every job for them is answered with a failure.
    failed: BTreeSet<ReplicaKey>,
    /// There was no space for their directories: jobs for them find none, until they are opened.
    unopened: BTreeSet<ReplicaKey>,
    /// Deleted, with the topic's name: their directories could not be removed.
    leftovers: BTreeMap<ReplicaKey, String>,
    files: OpenFiles<D>,
    cleaner: Cleaner<D>,
    deleted: HeardDeletions,
}

impl<D: Disk> SegmentStore<D> {
    /// Takes over what recovery found for the shard. At most `open_files_max` files stay open.
    pub fn new(
        disk: D,
        data: PathBuf,
        shard: ShardId,
        logs: Vec<PartitionLog>,
        open_files_max: usize,
    ) -> Self {
        let logs = logs.into_iter().map(|log| (log.key, log)).collect();
        let files = OpenFiles::new(open_files_max);
        let (failed, unopened, leftovers) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        let cleaner = Cleaner::new(CleanerLimits::default());
        let deleted = HeardDeletions::default();
        Self { disk, data, shard, logs, failed, unopened, leftovers, files, cleaner, deleted }
    }

    /// Hears there which topics are deleted.
    #[must_use]
    pub fn with_deleted_topics(mut self, deleted: HeardDeletions) -> Self {
        self.deleted = deleted;
        self
    }

    /// With other bounds of compaction.
    #[must_use]
    pub fn with_cleaner(mut self, limits: CleanerLimits) -> Self {
        self.cleaner = Cleaner::new(limits);
        self
    }

    /// Does a job and answers it.
    ///
    /// # Errors
    /// Only those after which the process must stop.
    pub fn execute(&mut self, job: StoreJob) -> Result<Vec<StoreReply>, StoreError> {
        self.deleted.listen();
        match job {
            StoreJob::Open { key, topic_name, config } => {
                let result = self.open(key, topic_name, config);
                match &result {
                    Err(error) if is_no_space(error) => self.unopened.insert(key),
                    _ => self.unopened.remove(&key),
                };
                Ok(vec![self.answer(key, result)])
            }
            StoreJob::Configure { key, config } => {
                if let Some(log) = self.logs.get_mut(&key) {
                    log.config = config;
                }
                Ok(Vec::new())
            }
            StoreJob::Append { key, batches, now } => Ok(vec![
                self.with_log(key, |log, disk, files| log.append(disk, files, &batches, now)),
            ]),
            StoreJob::AppendRuns { runs, now } => self.append_runs(runs, now),
            StoreJob::Roll { key } => {
                Ok(vec![self.with_log(key, |log, disk, files| log.roll(disk, files))])
            }
            StoreJob::DeleteSegments { key, log_start_offset } => {
                Ok(vec![self.with_log(key, |log, disk, files| {
                    log.delete_below(disk, files, log_start_offset)
                })])
            }
            StoreJob::Compact { key, id, end_offset, now } => {
                self.begin_compaction(key, id, end_offset, now)
            }
            StoreJob::SwapSegments { key, id } => self.swap_segments(key, id),
            StoreJob::Truncate { key, end_offset, begins_anew } => {
                self.abandon_compaction(key);
                Ok(vec![self.truncate(key, end_offset, begins_anew)])
            }
            StoreJob::Checkpoint(job) => self.checkpoint(*job),
            StoreJob::Remove { key } => Ok(self.remove(key)),
            StoreJob::RemoveLeftovers => Ok(vec![self.remove_leftovers()]),
        }
    }

    /// The orderly end, after the last checkpoint: completes the time indexes and leaves producer
    /// snapshots, so that Kafka's own tools find a partition as Kafka leaves it.
    ///
    /// # Errors
    /// When the sync fails. A file that cannot be written is left to the next recovery.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.cleaner.abandon(&self.disk);
        for (key, log) in &mut self.logs {
            if !self.failed.contains(key)
                && let Err(error) = log.finish(&self.disk, &mut self.files)
            {
                tracing::warn!(partition = %key, %error, "no producer snapshot was left");
            }
        }
        self.sync_filesystem()
    }

    fn append_runs(
        &mut self,
        runs: Vec<(ReplicaKey, Vec<StoredBatch>)>,
        now: TimestampMs,
    ) -> Result<Vec<StoreReply>, StoreError> {
        let mut replies = Vec::with_capacity(runs.len() + 1);
        for (key, batches) in runs {
            let append = |log: &mut PartitionLog, disk: &D, files: &mut OpenFiles<D>| {
                log.append(disk, files, &batches, now)
            };
            let reply = self.with_log(key, append);
            if matches!(reply, StoreReply::Segments { .. })
                && let Some(log) = self.logs.get_mut(&key)
            {
                let synced = log.sync(&self.disk, &mut self.files);
                synced.map_err(|error| StoreError::Sync { path: log.dir.clone(), error })?;
            }
            replies.push(reply);
        }
        replies.push(StoreReply::RunsDone);
        Ok(replies)
    }

    fn with_log(
        &mut self,
        key: ReplicaKey,
        act: impl FnOnce(&mut PartitionLog, &D, &mut OpenFiles<D>) -> io::Result<()>,
    ) -> StoreReply {
        let result = match self.logs.get_mut(&key) {
            _ if self.failed.contains(&key) => Err(io::Error::other("failed before")),
            Some(log) => act(log, &self.disk, &mut self.files),
            None if self.unopened.contains(&key) => Err(io::ErrorKind::StorageFull.into()),
            None => Err(io::Error::other("the partition was not opened")),
        };
        self.answer(key, result)
    }

    /// A log that cannot be cut holds what nobody may read: it is fenced, whatever the reason.
    fn truncate(&mut self, key: ReplicaKey, end: Offset, begins_anew: bool) -> StoreReply {
        let cut = self.with_log(key, |log, disk, files| {
            let done =
                if begins_anew { log.clear(disk, files) } else { log.truncate(disk, files, end) };
            done.map_err(|error| io::Error::other(format!("cut at {end}: {error}")))
        });
        match (cut, self.logs.get(&key)) {
            (StoreReply::Segments { key, view }, Some(log)) => {
                StoreReply::Truncated { key, view, producers: log.producers.to_checkpoint() }
            }
            // Its directory has found no space yet: nothing is in segments that could be cut.
            (StoreReply::NoSpace { .. }, _) => {
                StoreReply::Truncated { key, view: LogView::default(), producers: Vec::new() }
            }
            (other, _) => other,
        }
    }

    fn answer(&mut self, key: ReplicaKey, result: io::Result<()>) -> StoreReply {
        match (result, self.logs.get(&key)) {
            (Ok(()), Some(log)) => StoreReply::Segments { key, view: log.view() },
            (Ok(()), None) => StoreReply::Removed { key },
            (Err(error), _) if is_no_space(&error) => StoreReply::NoSpace { key: Some(key) },
            (Err(error), _) => {
                self.abandon_compaction(key);
                self.failed.insert(key);
                StoreReply::Failed { key, reason: error.to_string() }
            }
        }
    }

    fn open(
        &mut self,
        key: ReplicaKey,
        topic_name: String,
        config: PartitionConfig,
    ) -> io::Result<()> {
        if self.failed.contains(&key) {
            return Err(io::Error::other("failed before"));
        }
        if let Some(log) = self.logs.get_mut(&key) {
            log.config = config;
            return Ok(());
        }
        let dir = if self.deleted.contains(key.topic_id) {
            // The plain name may be the next topic's by now. This one only waits to be removed.
            Aside::Stray.path(&self.data, &topic_name, key)
        } else {
            let plain = paths::partition_dir(&self.data, &topic_name, key.partition);
            let owner = owner(&self.disk, &plain)?;
            // Every replica that a start knew has its log here. What else is in the way is another topic's, or of a replica
            // that was moved away while the node was down and is moved back now: this one begins without records.
            put_aside(&self.disk, &self.data, &topic_name, key.partition, owner)?;
            plain
        };
        let temporary = Aside::New.path(&self.data, &topic_name, key);
        create_dir(&self.disk, &temporary, &dir, key)?;
        self.logs.insert(key, PartitionLog::new(key, topic_name, dir, config));
        Ok(())
    }

    /// Partitions whose epochs cannot be written are answered as failed before the checkpoint is: it says
    /// what they are as far as it goes, and the others must not wait for them.
    fn checkpoint(&mut self, job: CheckpointJob) -> Result<Vec<StoreReply>, StoreError> {
        for partition in &job.partitions {
            self.adopt(partition);
        }
        let mut replies = Vec::new();
        for log in self.logs.values_mut().filter(|log| !self.failed.contains(&log.key)) {
            match log.write_epochs(&self.disk) {
                Ok(()) => {}
                Err(error) if is_no_space(&error) => {
                    replies.push(StoreReply::NoSpace { key: None });
                    break;
                }
                Err(error) => {
                    replies.push(StoreReply::Failed { key: log.key, reason: error.to_string() });
                }
            }
        }
        self.failed.extend(replies.iter().filter_map(|reply| match reply {
            StoreReply::Failed { key, .. } => Some(*key),
            _ => None,
        }));
        if matches!(replies.last(), Some(StoreReply::NoSpace { .. })) {
            return Ok(replies);
        }
        self.sync_filesystem()?;
        self.logs.values_mut().for_each(PartitionLog::synced);
        let path = paths::checkpoint(&self.data, self.shard);
        let lsn = job.lsn;
        let ends: Vec<_> = job.partitions.iter().map(|line| (line.key, line.flushed_end)).collect();
        let content =
            checkpoint::encode(&Checkpoint { shard: self.shard, lsn, partitions: job.partitions });
        match replace_file(&self.disk, &path, &content) {
            Ok(()) => {}
            Err(error) if is_no_space(&error) => {
                replies.push(StoreReply::NoSpace { key: None });
                return Ok(replies);
            }
            Err(error) => return Err(StoreError::Checkpoint { path, error }),
        }
        for (key, end) in ends {
            if self.logs.get_mut(&key).is_some_and(|log| log.checkpointed(end)) {
                replies.push(
                    self.with_log(key, |log, disk, files| {
                        log.delete_below(disk, files, Offset::ZERO)
                    }),
                );
            }
        }
        replies.push(StoreReply::Checkpointed { lsn });
        Ok(replies)
    }

    /// Producers expire by the machine's rules; its word on them replaces ours.
    fn adopt(&mut self, partition: &PartitionCheckpoint) {
        let Some(log) = self.logs.get_mut(&partition.key) else { return };
        let end = log.end_offset();
        // A log that begins anew has nothing in segments, though its old ones may still be there.
        let is_empty = partition.log_start_offset == partition.flushed_end;
        assert!(
            is_empty
                || self.failed.contains(&partition.key)
                || end.is_none_or(|end| partition.flushed_end <= end),
            "{}: checkpoint at {}, segments end at {end:?}",
            partition.key,
            partition.flushed_end
        );
        if end == Some(partition.flushed_end) {
            log.producers = ProducerTable::from_checkpoint(&partition.producers);
        }
    }

    fn remove(&mut self, key: ReplicaKey) -> Vec<StoreReply> {
        self.abandon_compaction(key);
        self.files.close(key, None);
        self.failed.remove(&key);
        self.unopened.remove(&key);
        let mut replies = vec![StoreReply::Removed { key }];
        if let Some(log) = self.logs.remove(&key) {
            self.leftovers.insert(key, log.topic_name);
            self.remove_leftover(key);
            if !self.leftovers.is_empty() {
                replies.push(StoreReply::Leftovers { count: self.leftovers.len() });
            }
        }
        replies
    }

    fn remove_leftovers(&mut self) -> StoreReply {
        for key in self.leftovers.keys().copied().collect::<Vec<_>>() {
            self.remove_leftover(key);
        }
        StoreReply::Leftovers { count: self.leftovers.len() }
    }

    fn remove_leftover(&mut self, key: ReplicaKey) {
        let Some(topic_name) = self.leftovers.get(&key) else { return };
        let has_successor = self.logs.contains_key(&key);
        match remove_partition(&self.disk, &self.data, topic_name, key, has_successor) {
            Ok(()) => drop(self.leftovers.remove(&key)),
            Err(error) => tracing::error!(
                partition = %key,
                topic = topic_name,
                %error,
                "the directory of a deleted partition cannot be removed; it is tried again later and at the next start"
            ),
        }
    }

    fn sync_filesystem(&self) -> Result<(), StoreError> {
        let sync = self.disk.sync_filesystem(&self.data);
        sync.map_err(|error| StoreError::Sync { path: self.data.clone(), error })
    }
}

/// Whose a directory is, by the metadata in it; `None` when there is none. Metadata that cannot be
/// read is no topic's: it was lost in a crash before anything in the directory was durable, or has
/// rotted, which the missing segments will tell.
fn owner<D: Disk>(disk: &D, dir: &Path) -> io::Result<Option<TopicId>> {
    match read_file(disk, &dir.join(partition_metadata::FILE_NAME)) {
        Ok(content) => {
            let owner = str::from_utf8(&content).ok().and_then(partition_metadata::decode);
            Ok(Some(owner.unwrap_or(TopicId::ZERO)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Frees the plain name of a partition's directory, if there is one, for another topic.
///
/// Two topics of one name are never alive together: the other one is on its way out, on another shard
/// perhaps, or it is a stray that nobody may delete. A directory that has lost its metadata in a
/// crash has no owner, and there may be several of them.
fn put_aside<D: Disk>(
    disk: &D,
    data: &Path,
    topic_name: &str,
    partition: PartitionIndex,
    owner: Option<TopicId>,
) -> io::Result<()> {
    let dir = paths::partition_dir(data, topic_name, partition);
    match disk.list(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map(drop)?,
    }
    let mut topic_id = owner.unwrap_or(TopicId::ZERO);
    let stray = loop {
        let aside = ReplicaKey { topic_id, partition };
        let stray = Aside::Stray.path(data, topic_name, aside);
        match disk.list(&stray) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break stray,
            listed => listed.map(drop)?,
        }
        topic_id = TopicId((u128::from_be_bytes(topic_id.0).wrapping_add(1)).to_be_bytes());
    };
    tracing::warn!(directory = %dir.display(), moved = %stray.display(), "stray partition");
    disk.rename(&dir, &stray)
}

/// Renames a partition's directory away and removes it, wherever a newer one may have put it: of another topic, or
/// of this partition that came back and `has_successor` therefore.
fn remove_partition<D: Disk>(
    disk: &D,
    data: &Path,
    topic_name: &str,
    key: ReplicaKey,
    has_successor: bool,
) -> io::Result<()> {
    let plain = paths::partition_dir(data, topic_name, key.partition);
    let doomed = Aside::Delete.path(data, topic_name, key);
    let stray = Aside::Stray.path(data, topic_name, key);
    // An attempt before this one may have come so far.
    remove_tree_if_there(disk, &doomed)?;
    for dir in [Some(plain).filter(|_| !has_successor), Some(stray)].into_iter().flatten() {
        if owner(disk, &dir)? == Some(key.topic_id) {
            disk.rename(&dir, &doomed)?;
            disk.sync_dir(&paths::topics_dir(data))?;
            remove_tree(disk, &doomed)?;
        }
    }
    Ok(())
}

fn remove_tree_if_there<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        listed => listed.and_then(|_| remove_tree(disk, dir)),
    }
}

/// Removes a directory of files.
fn remove_tree<D: Disk>(disk: &D, dir: &Path) -> io::Result<()> {
    for entry in disk.list(dir)? {
        let path = dir.join(&entry.name);
        if entry.is_dir { remove_tree(disk, &path)? } else { disk.remove_file(&path)? }
    }
    disk.remove_dir(dir)
}
