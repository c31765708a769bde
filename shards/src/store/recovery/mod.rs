//! From the files that a crash left to partitions that can be served.
//!
//! 1. Every old shard's checkpoint and WAL are read, and the WAL is judged: what counts, what was torn, what
//!    is damaged. What counts, and the checkpoint, are durable before anything follows from them.
//! 2. The entries are folded into what each partition's log must look like.
//! 3. Each partition's files are inspected against that. Up to here nothing is changed: damage to
//!    what was acknowledged refuses the start, unless its loss is accepted.
//! 4. The segments are cut, completed and indexed, not yet durably.
//! 5. Where the shards are those of before and nothing is given up, their WALs are gone on with, as if the
//!    process had never ended: see `go_on`. Otherwise everything is synced, one checkpoint for all shards
//!    replaces the old shards' state, and new WALs begin: see `install`.
//!
//! Invariants: a crash anywhere leaves a directory from which recovery comes to the same result,
//! because step 4 only brings segments nearer to what the WAL says, and the WAL is dropped only
//! after the checkpoint that makes it needless. Within a shard LSNs are contiguous as long as its WAL is
//! gone on with; WAL generations grow for ever, and LSNs over all shards whenever partitions change
//! shards, so that entries of several old shards have one order, and a recycled file's old content never
//! counts.
//!
//! Deliberately absent: which shard owns a partition (the key says), and leader epochs' growth at
//! start (the control plane's).

mod go_on;
mod install;
mod partition;
mod rebuild;
mod replay;
mod scan;
mod wal;
mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use self::partition::{Inspection, Subject};
use self::replay::Overlay;
use self::watched::WatchedDisk;
use super::disk::Disk;
use super::open_files::OpenFiles;
use super::partition_log::PartitionLog;
use super::paths::{self, Aside, PartitionDirName};
use super::{owner, remove_tree};
use crate::format::positions::PartitionCheckpoint;
use crate::machine::effect::{RecoveredPartition, WalStart};
use crate::machine::input::PartitionConfig;
use crate::machine::metadata::{MetadataImage, Topic};
use crate::model::{NodeId, Offset, ReplicaKey, TimestampMs, TopicId};

/// What recovery has to know.
#[derive(Clone, Debug)]
pub struct RecoveryInput {
    /// The data directory.
    pub data: PathBuf,
    /// The partitions of this node by its metadata, with the topic's name and configuration.
    pub partitions: Vec<(ReplicaKey, String, PartitionConfig)>,
    /// What this node holds no longer: its directories go.
    pub gone: Gone,
    /// Today's number of shards.
    pub shards: u16,
    /// Go on without what is damaged.
    pub accept_data_loss: bool,
    /// Size of a WAL file: a multiple of the block.
    pub wal_file_bytes: u64,
    /// Bounds the age of segments whose records are of the future or have no time.
    pub now: TimestampMs,
}

/// What a node holds no longer, by its metadata. What these do not speak of stays.
#[derive(Clone, Default, Debug)]
pub struct Gone {
    /// Topics that were deleted.
    pub topics: BTreeSet<TopicId>,
    /// Partitions of which other nodes have all replicas: this node's were moved away, while it was down perhaps.
    pub replicas: BTreeSet<ReplicaKey>,
}

impl Gone {
    /// What `node` holds no longer by the committed metadata `image`.
    #[must_use]
    pub fn from(node: NodeId, image: &MetadataImage) -> Self {
        let replicas = image.topics().flat_map(Topic::replicas);
        let elsewhere = replicas.filter(|(_, partition)| !partition.replicas.contains(&node));
        Self {
            topics: image.deleted_topics().collect(),
            replicas: elsewhere.map(|(key, _)| key).collect(),
        }
    }
}

/// Where to go on.
#[derive(Debug)]
pub struct Recovered {
    /// For the machines: one for every partition that the metadata names.
    pub partitions: Vec<RecoveredPartition>,
    /// For the stores, by shard.
    pub logs: Vec<Vec<PartitionLog>>,
    /// For the machines, by shard.
    pub wal: Vec<WalStart>,
    /// What was found and done, for people.
    pub report: Vec<String>,
}

/// Something acknowledged that cannot be read any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The partition, where it is known.
    pub key: Option<ReplicaKey>,
    /// Its topic's name, where that is known.
    pub topic_name: Option<String>,
    /// The offsets that are lost, end exclusive, where they are known.
    pub offsets: Option<(Offset, Offset)>,
    /// What is wrong, and where.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.topic_name, self.key) {
            (Some(name), Some(key)) => write!(f, "{name}-{}: ", key.partition)?,
            (None, Some(key)) => write!(f, "{key}: ")?,
            (_, None) => {}
        }
        if let Some((from, end)) = self.offsets {
            write!(f, "offsets {from}..{end}: ")?;
        }
        f.write_str(&self.what)
    }
}

/// Why there is no going on.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// Acknowledged data is damaged, and its loss was not accepted. Nothing was changed.
    #[error(
        "acknowledged data is damaged:{}\nrestore it from a copy, or start once with \
         --accept-data-loss to go on without it",
        lines(.0)
    )]
    Damaged(Vec<Damage>),
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// The disk's words.
        error: io::Error,
    },
}

fn lines(damages: &[Damage]) -> String {
    damages.iter().map(|damage| format!("\n  {damage}")).collect()
}

/// Names the file of an error.
fn at(path: &Path) -> impl FnOnce(io::Error) -> RecoveryError + '_ {
    move |error| RecoveryError::Disk { path: path.to_owned(), error }
}

/// A part of a recovery that is done; for those who want to know where the time goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Checkpoints and WALs are read and judged.
    WalRead,
    /// Every partition's files are looked at.
    PartitionsInspected,
    /// The partitions hold all there is; not yet durably.
    PartitionsApplied,
    /// The WALs can be written to.
    WalReady,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WalRead => "WALs read",
            Self::PartitionsInspected => "partitions inspected",
            Self::PartitionsApplied => "partitions brought up to the WALs",
            Self::WalReady => "WALs ready",
        })
    }
}

/// Recovers a data directory, or begins a new one.
///
/// # Errors
/// [`RecoveryError::Damaged`] leaves everything as it was.
///
/// # Panics
/// When asked for no shards or for WAL files that are not whole blocks.
pub fn recover<D: Disk>(disk: &D, input: &RecoveryInput) -> Result<Recovered, RecoveryError> {
    recover_in_phases(disk, input, &mut |_| {})
}

/// Like [`recover`]; calls `done` behind each phase.
///
/// # Errors
/// As [`recover`].
///
/// # Panics
/// As [`recover`].
pub fn recover_in_phases<D: Disk>(
    disk: &D,
    input: &RecoveryInput,
    done: &mut dyn FnMut(Phase),
) -> Result<Recovered, RecoveryError> {
    assert!(input.shards > 0, "a node has at least one shard");
    for dir in [paths::shards_dir(&input.data), paths::topics_dir(&input.data)] {
        disk.create_dir(&dir).map_err(at(&dir))?;
    }
    disk.sync_dir(&input.data).map_err(at(&input.data))?;

    let wal::WalState {
        replay,
        checkpoints,
        mut damages,
        mut report,
        shards,
        last_lsn,
        is_unfinished,
        lacks_checkpoint,
    } = wal::read(disk, &input.data)?;
    done(Phase::WalRead);
    // A replica that comes back is another one, under the same key: nothing may speak of the former then, unless
    // it says that it is closed.
    let is_closed = |key| replay.get(key).is_some_and(|overlay| overlay.closed);
    let is_former = |key| input.gone.replicas.contains(key) && !is_closed(key);
    let speaks_of_former = checkpoints.keys().chain(replay.keys()).any(is_former);
    let Found { mut subjects, former } = find(disk, input, &checkpoints, replay, &mut report)?;
    subjects.iter_mut().for_each(|subject| subject.lacks_checkpoint = lacks_checkpoint);
    let names: BTreeMap<ReplicaKey, String> =
        subjects.iter().map(|subject| (subject.key, subject.topic_name.clone())).collect();
    let inspections = inspect(disk, subjects, &mut damages)?;
    for damage in &mut damages {
        damage.topic_name = damage.key.and_then(|key| names.get(&key).cloned());
    }
    done(Phase::PartitionsInspected);
    if !damages.is_empty() {
        if !input.accept_data_loss {
            return Err(RecoveryError::Damaged(damages));
        }
        report.extend(damages.iter().map(|damage| format!("lost, as accepted: {damage}")));
    }
    let nothing_given_up = damages.is_empty() && !is_unfinished && !speaks_of_former;
    let mut applied = apply(disk, input, inspections, &mut report)?;
    done(Phase::PartitionsApplied);
    let wal = if nothing_given_up && applied.is_covered && go_on::are_same(input.shards, &shards) {
        let wal = go_on::go_on(disk, &input.data, shards)?;
        report.extend(wal.iter().enumerate().map(|(shard, wal)| {
            format!("shard {shard}: goes on at LSN {} in file {}", wal.next_lsn, wal.file)
        }));
        wal
    } else {
        let states: Vec<PartitionCheckpoint> =
            applied.partitions.iter().map(|partition| partition.state.clone()).collect();
        report.push(format!("new WALs, next LSN {}", last_lsn.next()));
        let wal = install::install(disk, input, &states, &shards, last_lsn, applied.needs_sync)?;
        for log in applied.logs.iter_mut().flatten() {
            log.checkpointed(log.end_offset().unwrap_or_default());
        }
        wal
    };
    remove_former(disk, input, former, &mut report);
    done(Phase::WalReady);
    report.push(format!("{} partitions", applied.partitions.len()));
    Ok(Recovered { partitions: applied.partitions, logs: applied.logs, wal, report })
}

/// Looks at every partition, several at once.
fn inspect<D: Disk>(
    disk: &D,
    subjects: Vec<Subject>,
    damages: &mut Vec<Damage>,
) -> Result<Vec<Inspection>, RecoveryError> {
    let inspections = disk.map_all(subjects, |disk, subject| {
        let dir = subject.dir.clone();
        partition::inspect(disk, subject).map_err(at(&dir))
    });
    let inspections = inspections.into_iter().collect::<Result<Vec<_>, _>>()?;
    damages.extend(inspections.iter().flat_map(|inspection| inspection.damages.iter().cloned()));
    Ok(inspections)
}

/// The partitions when their files hold all there is.
struct Applied {
    partitions: Vec<RecoveredPartition>,
    /// By shard.
    logs: Vec<Vec<PartitionLog>>,
    /// Something was written, or is there, that no checkpoint says is durable.
    needs_sync: bool,
    /// Whatever segments hold is durable or in the WAL of its own shard.
    is_covered: bool,
}

/// Makes the files of every partition what its inspection says, several at once.
fn apply<D: Disk>(
    disk: &D,
    input: &RecoveryInput,
    inspections: Vec<Inspection>,
    report: &mut Vec<String>,
) -> Result<Applied, RecoveryError> {
    let watched = WatchedDisk::new(disk);
    remove_deleted(&watched, input, report)?;
    let mut applied = Applied {
        partitions: Vec::new(),
        logs: (0..input.shards).map(|_| Vec::new()).collect(),
        needs_sync: watched.is_changed(),
        is_covered: true,
    };
    let done = disk.map_all(inspections, |disk, inspection| {
        let dir = inspection.subject.dir.clone();
        let (known, key) = (inspection.subject.known, inspection.subject.key);
        let (proven_end, covered_end) =
            (inspection.subject.proven_end(), inspection.subject.covered_end());
        let watched = WatchedDisk::new(disk);
        let mut report = Vec::new();
        let (mut log, state) =
            rebuild::apply(&watched, &input.data, inspection, input.now, &mut report)
                .map_err(at(&dir))?;
        let end = state.flushed_end;
        let is_ahead = known && end > covered_end;
        if is_ahead {
            // A run of batches was in segments before the WAL could say so.
            let mut files = OpenFiles::new(rebuild::OPEN_FILES_MAX);
            log.sync(disk, &mut files).map_err(at(&dir))?;
        }
        let needs_sync = proven_end != Some(end) || watched.is_changed();
        let found = known.then_some((key, log, state, is_ahead));
        Ok((found, needs_sync, report))
    });
    for done in done {
        let (known, needs_sync, lines) = done?;
        report.extend(lines);
        applied.needs_sync |= needs_sync;
        applied.is_covered &= known.is_some();
        if let Some((key, log, state, is_ahead)) = known {
            applied.partitions.push(RecoveredPartition { state, view: log.view(), is_ahead });
            applied.logs[usize::from(key.shard(input.shards).0)].push(log);
        }
    }
    Ok(applied)
}

/// What was found in the data directory.
struct Found {
    subjects: Vec<Subject>,
    /// Directories of replicas that are gone.
    former: Vec<(ReplicaKey, PathBuf, PartitionDirName)>,
}

/// Everything that has to be looked at: the partitions of the metadata, and those that only the WAL
/// or the directory knows, except for what is gone.
fn find<D: Disk>(
    disk: &D,
    input: &RecoveryInput,
    checkpoints: &BTreeMap<ReplicaKey, PartitionCheckpoint>,
    mut replay: BTreeMap<ReplicaKey, Overlay>,
    report: &mut Vec<String>,
) -> Result<Found, RecoveryError> {
    let topics = paths::topics_dir(&input.data);
    let mut dirs: BTreeMap<ReplicaKey, (PathBuf, PartitionDirName)> = BTreeMap::new();
    let mut former = Vec::new();
    for entry in disk.list(&topics).map_err(at(&topics))? {
        let Some(name) = PartitionDirName::parse(&entry.name).filter(|_| entry.is_dir) else {
            continue;
        };
        let path = topics.join(&entry.name);
        if !matches!(name.aside, None | Some((Aside::Stray, _))) {
            continue;
        }
        match owner(disk, &path) {
            Ok(Some(topic_id)) => {
                let key = ReplicaKey { topic_id, partition: name.partition };
                // Of two, the one that was put aside is a former replica's: the other one has taken its name.
                let (is_aside, other) = (name.aside.is_some(), dirs.remove(&key));
                let [kept, older] = match other {
                    Some(other) if is_aside => [Some(other), Some((path, name))],
                    other => [Some((path, name)), other],
                };
                dirs.extend(kept.map(|kept| (key, kept)));
                former.extend(older.map(|(path, name)| (key, path, name)));
            }
            Ok(None) => report.push(format!("{}: no partition, left alone", path.display())),
            Err(error) => return Err(at(&path)(error)),
        }
    }
    let mut subjects = Vec::new();
    for (key, topic_name, config) in &input.partitions {
        let plain = paths::partition_dir(&input.data, topic_name, key.partition);
        let found = dirs.remove(key).map(|(path, _)| path);
        subjects.push(Subject {
            key: *key,
            topic_name: topic_name.clone(),
            config: config.clone(),
            known: true,
            dir: found.clone().unwrap_or_else(|| plain.clone()),
            found: found.is_some(),
            checkpoint: checkpoints.get(key).cloned(),
            lacks_checkpoint: false,
            overlay: replay.remove(key).unwrap_or_default(),
        });
    }
    for (key, overlay) in replay {
        let found = dirs.remove(&key);
        if input.gone.replicas.contains(&key) {
            former.extend(found.map(|(path, name)| (key, path, name)));
            continue;
        }
        if overlay.closed || input.gone.topics.contains(&key.topic_id) {
            continue;
        }
        let name =
            overlay.topic_name.clone().or(found.as_ref().map(|found| found.1.topic_name.clone()));
        let topic_name = name.unwrap_or_else(|| key.topic_id.to_string());
        report.push(format!(
            "{topic_name}-{} of {}: not in the metadata, kept",
            key.partition, key.topic_id
        ));
        subjects.push(Subject {
            key,
            config: PartitionConfig::default(),
            known: false,
            dir: match &found {
                Some((path, _)) => path.clone(),
                None => Aside::Stray.path(&input.data, &topic_name, key),
            },
            found: found.is_some(),
            topic_name,
            checkpoint: checkpoints.get(&key).cloned(),
            lacks_checkpoint: false,
            overlay,
        });
    }
    for (key, (path, name)) in dirs {
        if input.gone.replicas.contains(&key) {
            former.push((key, path, name));
        } else if !input.gone.topics.contains(&key.topic_id) {
            report.push(format!("{}: stray, left alone", path.display()));
        }
    }
    let known: BTreeSet<&ReplicaKey> = input.partitions.iter().map(|(key, ..)| key).collect();
    // What the metadata do not speak of stays.
    former.retain(|(key, ..)| known.contains(key) || input.gone.replicas.contains(key));
    Ok(Found { subjects, former })
}

/// Removes the directories of replicas that are gone, when no WAL and no checkpoint speaks of them any more:
/// should one be moved back while the node is down again, nothing is missed. Where that fails, the next start
/// tries again.
fn remove_former<D: Disk>(
    disk: &D,
    input: &RecoveryInput,
    former: Vec<(ReplicaKey, PathBuf, PartitionDirName)>,
    report: &mut Vec<String>,
) {
    for (key, path, name) in former {
        // At once or not at all, for the same reason.
        let doomed = Aside::Delete.path(&input.data, &name.topic_name, key);
        let removed = disk
            .rename(&path, &doomed)
            .and_then(|()| disk.sync_dir(&paths::topics_dir(&input.data)))
            .and_then(|()| remove_tree(disk, &doomed));
        report.push(match removed {
            Ok(()) => format!("{}: other nodes have the partition, removed", path.display()),
            Err(error) => format!("{}: not removed: {error}", path.display()),
        });
    }
}

/// Removes the directories of deleted topics and of creations and removals that were not finished.
fn remove_deleted<D: Disk>(
    disk: &D,
    input: &RecoveryInput,
    report: &mut Vec<String>,
) -> Result<(), RecoveryError> {
    let topics = paths::topics_dir(&input.data);
    for entry in disk.list(&topics).map_err(at(&topics))? {
        let Some(name) = PartitionDirName::parse(&entry.name).filter(|_| entry.is_dir) else {
            continue;
        };
        let path = topics.join(&entry.name);
        let topic_id = match name.aside {
            Some((_, topic_id)) => Some(topic_id),
            None if input.gone.topics.is_empty() => None,
            None => owner(disk, &path).unwrap_or(None),
        };
        let unfinished = matches!(name.aside, Some((Aside::New | Aside::Delete, _)));
        if unfinished || topic_id.is_some_and(|id| input.gone.topics.contains(&id)) {
            remove_tree(disk, &path).map_err(at(&path))?;
            report.push(format!("{}: removed", path.display()));
        }
    }
    Ok(())
}
