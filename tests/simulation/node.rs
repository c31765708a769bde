//! The node's IO, performed one piece at a time: WAL writes, storage jobs, file preparation.

mod wal_files;

pub use self::wal_files::{wal_lines, wal_paths, write_durably};

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use chronik_shards::format::record_batch::{Batches, StoredBatch};
use chronik_shards::format::wal;
use chronik_shards::format::wal_entry::Commit;
use chronik_shards::machine::coordinators::GROUPS_TOPIC;
use chronik_shards::machine::effect::{
    Effect, LogView, NoSpace, RecoveredPartition, SegmentMeta, StoreJob, StoreReply, WalStart,
};
use chronik_shards::machine::input::{
    FetchData, FetchError, FetchInput, FetchPartition, PartitionConfig, PartitionSpec,
};
use chronik_shards::machine::limits::ShardLimits;
use chronik_shards::machine::shard::ShardMachine;
use chronik_shards::model::{
    LeaderEpoch, Lsn, Now, Offset, ReplicaKey, ShardId, TimestampMs, WalFileSeq,
};
use chronik_shards::store::SegmentStore;
use chronik_shards::store::deleted_topics::DeletedTopics;
use chronik_shards::store::disk::{Disk, OpenMode};
use chronik_shards::store::paths::{self, SegmentFile};
use chronik_shards::store::recovery::{Gone, RecoveryError, RecoveryInput, recover};
use chronik_shards::store::sim_disk::{SimDisk, WriteInFlight};

/// Small, so that files fill, rounds run and the bound is met all the time.
const LIMITS: ShardLimits = ShardLimits {
    wal_file_bytes: 64 * 1024,
    wal_files_max: 3,
    commit_bytes_max: 24 * 1024,
    commits_in_flight_max: 2,
    round_bytes: 48 * 1024,
    round_age_ms: 5000,
    run_bytes_min: 4 * 1024,
    round_run_bytes: 96 * 1024,
    tail_cache_bytes: 32 * 1024,
    parked_produces_max: 64,
    fetch_waits_max: 64,
    seal_after_ms: 20,
    retention_interval_ms: 60_000,
    compaction_interval_ms: 2_000,
    tail_cache_idle_ms: 30_000,
};

/// A topic's partition as the control plane would know it.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its topic's name.
    pub topic_name: String,
    /// Its configuration.
    pub config: PartitionConfig,
}

/// One shard and what is under way for it.
pub struct Shard {
    /// Its decisions.
    pub machine: ShardMachine,
    store: SegmentStore<SimDisk>,
    jobs: VecDeque<StoreJob>,
    writes: Vec<(Lsn, WriteInFlight)>,
    files_wanted: VecDeque<(WalFileSeq, Option<WalFileSeq>)>,
}

/// How often a node did what is rare.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    /// It cut segments.
    pub cuts: u64,
    /// A run of a partition that it leads went straight to segments.
    pub led_runs: u64,
    /// A run of a partition that it follows did.
    pub followed_runs: u64,
    /// Compaction put segments in the place of others.
    pub swaps: u64,
}

/// A node that runs.
pub struct Node {
    /// By number.
    pub shards: Vec<Shard>,
    disk: SimDisk,
    /// What it has heard is deleted.
    pub deleted: DeletedTopics,
    /// A write could not begin: the process would have ended.
    has_failed: bool,
    /// Recovery went on with the WALs there were.
    pub has_gone_on: bool,
    /// What it did that is noted.
    pub did: Counts,
    /// A deliberate bug: compaction does not stop at the high watermark.
    pub compacts_too_far: bool,
    /// They hold what no checkpoint covers.
    pub has_uncovered: bool,
    /// What recovery said.
    pub report: Vec<String>,
}

fn data() -> PathBuf {
    PathBuf::from("/data")
}

/// Prepares the directory that everything is in.
pub fn format(disk: &SimDisk) {
    disk.create_dir(&data()).expect("an empty disk takes a directory");
    disk.sync_filesystem(Path::new("/")).expect("nothing fails yet");
}

/// What is under way somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pending {
    /// A WAL write of a shard, by its place.
    Write(usize, usize),
    /// A shard's next storage job.
    Job(usize),
    /// A shard's next WAL file.
    File(usize),
    /// A step of a shard's compaction.
    Compact(usize),
}

impl Node {
    /// Recovers what is on the disk and starts.
    pub fn start(
        disk: &SimDisk,
        shards: u16,
        known: &BTreeMap<ReplicaKey, Known>,
        gone: &Gone,
        leader_epoch: LeaderEpoch,
        now: Now,
        out: &mut Vec<(usize, Effect)>,
    ) -> Result<Self, RecoveryError> {
        let (mut node, partitions) = Self::recovered(disk, shards, known, gone, now)?;
        for found in partitions {
            let key = found.state.key;
            node.open(now, key, &known[&key], leader_epoch, Some(found), out);
        }
        node.check_begun()?;
        Ok(node)
    }

    /// Recovers what is on the disk; its partitions are to be opened.
    pub fn recovered(
        disk: &SimDisk,
        shards: u16,
        known: &BTreeMap<ReplicaKey, Known>,
        gone: &Gone,
        now: Now,
    ) -> Result<(Self, Vec<RecoveredPartition>), RecoveryError> {
        let recovered = recover(
            disk,
            &RecoveryInput {
                data: data(),
                partitions: known
                    .iter()
                    .map(|(key, known)| (*key, known.topic_name.clone(), known.config.clone()))
                    .collect(),
                gone: gone.clone(),
                shards,
                accept_data_loss: false,
                wal_file_bytes: LIMITS.wal_file_bytes,
                now: now.wall,
            },
        )?;
        let partitions = recovered.partitions;
        let keys = |shard| {
            let keys = partitions.iter().map(|found| found.state.key);
            keys.filter(|key| key.shard(shards) == shard).collect()
        };
        let (deleted, heard) = DeletedTopics::new(usize::from(shards));
        let shard = |(((id, wal), logs), heard): (((u16, WalStart), _), _)| Shard {
            machine: ShardMachine::start(ShardId(id), LIMITS, wal, keys(ShardId(id))),
            store: SegmentStore::new(disk.clone(), data(), ShardId(id), logs, 4)
                .with_deleted_topics(heard),
            jobs: VecDeque::new(),
            writes: Vec::new(),
            files_wanted: VecDeque::new(),
        };
        let has_gone_on = recovered.wal.iter().any(|wal| wal.position > 0);
        let has_uncovered = recovered.wal.iter().any(|wal| wal.uncovered_bytes > 0);
        let mut report = recovered.report;
        report.extend(recovered.wal.iter().map(|wal| format!("{wal:?}")));
        let seats = (0..shards).zip(recovered.wal).zip(recovered.logs).zip(heard);
        let node = Self {
            shards: seats.map(shard).collect(),
            disk: disk.clone(),
            deleted,
            has_failed: false,
            did: Counts::default(),
            compacts_too_far: false,
            has_gone_on,
            has_uncovered,
            report,
        };
        Ok((node, partitions))
    }

    /// Whether the first writes could begin.
    pub fn check_begun(&self) -> Result<(), RecoveryError> {
        if self.has_failed {
            let error = io::Error::other("the first commit cannot be written");
            return Err(RecoveryError::Disk { path: data(), error });
        }
        Ok(())
    }

    /// The shard that owns a partition.
    pub fn owner(&self, key: ReplicaKey) -> usize {
        usize::from(key.shard(self.shards.len() as u16).0)
    }

    /// Opens a partition, new or recovered.
    pub fn open(
        &mut self,
        now: Now,
        key: ReplicaKey,
        known: &Known,
        leader_epoch: LeaderEpoch,
        recovered: Option<RecoveredPartition>,
        out: &mut Vec<(usize, Effect)>,
    ) {
        let spec = PartitionSpec {
            key,
            topic_name: known.topic_name.clone(),
            leader_epoch,
            config: known.config.clone(),
        };
        let owner = self.owner(key);
        self.act(now, owner, out, |machine, out| machine.open_partition(now, spec, recovered, out));
    }

    /// Gives a machine an input; IO goes where it is performed later, answers to `out`.
    pub fn act<T>(
        &mut self,
        now: Now,
        shard: usize,
        out: &mut Vec<(usize, Effect)>,
        input: impl FnOnce(&mut ShardMachine, &mut Vec<Effect>) -> T,
    ) -> T {
        let mut effects = Vec::new();
        let result = input(&mut self.shards[shard].machine, &mut effects);
        for effect in effects {
            match effect {
                Effect::Store(job) => self.queue(shard, job),
                Effect::PrepareWalFile { seq, recycle } => {
                    self.shards[shard].files_wanted.push_back((seq, recycle));
                }
                Effect::CommitPending => self.pull(now, shard),
                answer => out.push((shard, answer)),
            }
        }
        self.pull(now, shard);
        result
    }

    /// Begins every write that the machine lets go.
    fn pull(&mut self, now: Now, shard: usize) {
        while let Some(commit) = self.next_commit(now, shard) {
            match self.begin(shard, &commit) {
                Ok(write) => self.shards[shard].writes.push((commit.lsn, write)),
                Err(_) => self.has_failed = true,
            }
        }
    }

    fn next_commit(&mut self, now: Now, shard: usize) -> Option<Commit> {
        let mut effects = Vec::new();
        let commit = self.shards[shard].machine.next_commit(now, &mut effects);
        for effect in effects {
            match effect {
                Effect::Store(job) => self.queue(shard, job),
                other => unreachable!("a commit asks for segments at most, not {other:?}"),
            }
        }
        commit
    }

    fn queue(&mut self, shard: usize, mut job: StoreJob) {
        match &mut job {
            StoreJob::Compact { end_offset, .. } if self.compacts_too_far => {
                *end_offset = Offset(i64::MAX);
            }
            StoreJob::SwapSegments { .. } => self.did.swaps += 1,
            StoreJob::Truncate { .. } => self.did.cuts += 1,
            StoreJob::AppendRuns { runs, .. } => {
                for (key, _) in runs {
                    let standing = self.shards[shard].machine.replica_standing(*key);
                    match standing.is_some_and(|standing| standing.leads) {
                        true => self.did.led_runs += 1,
                        false => self.did.followed_runs += 1,
                    }
                }
            }
            _ => {}
        }
        self.shards[shard].jobs.push_back(job);
    }

    fn begin(&self, shard: usize, commit: &Commit) -> io::Result<WriteInFlight> {
        let id = ShardId(shard as u16);
        let path = paths::wal_file(&data(), id, commit.file);
        let file = self.disk.open(&path, OpenMode::Write)?;
        let mut bytes = vec![0xAA; wal::encoded_bytes(&commit.entries)];
        wal::encode(id, commit, &mut bytes);
        self.disk.start_write(&file, commit.position, &bytes)
    }

    /// Everything that is under way.
    pub fn pending(&self) -> Vec<Pending> {
        let mut found = Vec::new();
        for (index, shard) in self.shards.iter().enumerate() {
            found.extend((0..shard.writes.len()).map(|place| Pending::Write(index, place)));
            if !shard.jobs.is_empty() {
                found.push(Pending::Job(index));
            }
            if !shard.files_wanted.is_empty() {
                found.push(Pending::File(index));
            }
            if shard.store.is_compacting() {
                found.push(Pending::Compact(index));
            }
        }
        found
    }

    /// Performs one piece. An error is one after which the process must stop.
    pub fn perform(
        &mut self,
        now: Now,
        pending: Pending,
        out: &mut Vec<(usize, Effect)>,
    ) -> io::Result<()> {
        match pending {
            Pending::Write(shard, place) => {
                let (lsn, write) = self.shards[shard].writes.remove(place);
                self.disk.complete_write(write)?;
                self.act(now, shard, out, |machine, out| machine.commit_written(now, lsn, out));
            }
            Pending::Job(shard) => {
                let job = self.shards[shard].jobs.pop_front().expect("it is pending");
                let replies = self.shards[shard].store.execute(job).map_err(io::Error::other)?;
                self.answer(shard, now, replies, out);
            }
            Pending::Compact(shard) => {
                let step = self.shards[shard].store.compact().map_err(io::Error::other)?;
                self.answer(shard, now, step.replies, out);
            }
            Pending::File(shard) => {
                let (seq, recycle) =
                    self.shards[shard].files_wanted.pop_front().expect("it is pending");
                let result = match self.prepare(ShardId(shard as u16), seq, recycle) {
                    Ok(()) => Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => Err(NoSpace),
                    Err(error) => return Err(error),
                };
                self.act(now, shard, out, |machine, out| {
                    machine.wal_file_prepared(now, seq, result, out);
                });
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        shard: usize,
        now: Now,
        replies: Vec<StoreReply>,
        out: &mut Vec<(usize, Effect)>,
    ) {
        for reply in replies {
            self.act(now, shard, out, |machine, out| machine.store_done(now, reply, out));
        }
    }

    fn prepare(
        &self,
        shard: ShardId,
        seq: WalFileSeq,
        recycle: Option<WalFileSeq>,
    ) -> io::Result<()> {
        let target = paths::wal_file(&data(), shard, seq);
        let directory = paths::wal_dir(&data(), shard);
        let mark = wal::unused_block(shard, seq);
        if let Some(recycle) = recycle {
            let old = paths::wal_file(&data(), shard, recycle);
            let file = self.disk.open(&old, OpenMode::Write)?;
            self.disk.write_at(&file, 0, &[IoSlice::new(&mark)])?;
            let bytes = self.disk.bytes(&file)?;
            if bytes < LIMITS.wal_file_bytes {
                let zeroes = vec![0; (LIMITS.wal_file_bytes - bytes) as usize];
                self.disk.write_at(&file, bytes, &[IoSlice::new(&zeroes)])?;
            }
            self.disk.sync(&file)?;
            self.disk.rename(&old, &target)?;
        } else {
            let unfinished = directory.join("next.tmp");
            let file = self.disk.open(&unfinished, OpenMode::Write)?;
            let zeroes = vec![0; LIMITS.wal_file_bytes as usize - mark.len()];
            let content = [IoSlice::new(&mark), IoSlice::new(&zeroes)];
            let filled = self
                .disk
                .write_at(&file, 0, &content)
                .and_then(|()| self.disk.sync(&file))
                .and_then(|()| self.disk.rename(&unfinished, &target));
            if let Err(error) = filled {
                let _ = self.disk.remove_file(&unfinished);
                return Err(error);
            }
        }
        self.disk.sync_dir(&directory)
    }

    /// A deliberate bug: says that the oldest write is durable while it is not, and forgets it.
    pub fn claim_write(&mut self, now: Now, shard: usize, out: &mut Vec<(usize, Effect)>) -> bool {
        if self.shards[shard].writes.is_empty() {
            return false;
        }
        let (lsn, _) = self.shards[shard].writes.remove(0);
        self.act(now, shard, out, |machine, out| machine.commit_written(now, lsn, out));
        true
    }

    /// A deliberate bug: completes the younger of two writes and claims the older as well.
    pub fn claim_past_hole(
        &mut self,
        now: Now,
        shard: usize,
        out: &mut Vec<(usize, Effect)>,
    ) -> bool {
        if self.shards[shard].writes.len() < 2 {
            return false;
        }
        let (younger, write) = self.shards[shard].writes.remove(1);
        self.disk.complete_write(write).expect("nothing fails");
        self.act(now, shard, out, |machine, out| machine.commit_written(now, younger, out));
        self.claim_write(now, shard, out)
    }

    /// A deliberate bug: writes a checkpoint without the sync that it speaks of.
    pub fn claim_checkpoint(
        &mut self,
        now: Now,
        shard: usize,
        out: &mut Vec<(usize, Effect)>,
    ) -> bool {
        if !matches!(self.shards[shard].jobs.front(), Some(StoreJob::Checkpoint(_))) {
            return false;
        }
        self.disk.lie_about_syncs(true);
        let done = self.perform(now, Pending::Job(shard), out);
        self.disk.lie_about_syncs(false);
        done.is_ok()
    }

    /// Whether nothing is under way and nothing waits.
    pub fn is_quiet(&self) -> bool {
        self.pending().is_empty()
    }

    /// Reads a partition as a consumer does, from `offset` on, at most about `max_bytes`.
    pub fn fetch(
        &mut self,
        key: ReplicaKey,
        offset: Offset,
        max_bytes: usize,
    ) -> Result<(Offset, Offset, Vec<StoredBatch>), FetchError> {
        let wanted = FetchPartition {
            key,
            offset,
            current_leader_epoch: None,
            last_fetched_epoch: None,
            max_bytes,
        };
        let owner = self.owner(key);
        let machine = &mut self.shards[owner].machine;
        let plan = machine
            .fetch(&FetchInput { max_bytes, partitions: vec![wanted] })
            .pop()
            .expect("one partition has one plan");
        let view = machine.log_view(key).unwrap_or_default();
        let slice = plan.result?;
        let batches = match slice.data {
            FetchData::Nothing => Vec::new(),
            FetchData::Cached(batches) => batches,
            FetchData::InSegments { offset, end, .. } => {
                self.read_segments(key, &view, offset, end)
            }
        };
        Ok((slice.log_start_offset, slice.high_watermark, batches))
    }

    /// Reads batches that overlap `offset..end`, out of one segment. Compaction may have left nothing at the end of one.
    pub fn read_segments(
        &self,
        key: ReplicaKey,
        view: &LogView,
        offset: Offset,
        end: Offset,
    ) -> Vec<StoredBatch> {
        let mut segments = view.iter().filter(|segment| segment.end_offset > offset);
        let read = |segment| self.read_segment(key, segment, offset, end);
        segments.find_map(|it| Some(read(it)).filter(|it| !it.is_empty())).unwrap_or_default()
    }

    fn read_segment(
        &self,
        key: ReplicaKey,
        segment: &SegmentMeta,
        offset: Offset,
        end: Offset,
    ) -> Vec<StoredBatch> {
        let dir = paths::partition_dir(&data(), &topic_name(key), key.partition);
        let path = paths::segment_file(&dir, SegmentFile::Log, segment.base_offset);
        let file = self.disk.open(&path, OpenMode::Read).expect("a listed segment is there");
        let mut bytes = vec![0; segment.bytes as usize];
        let read = self.disk.read_at(&file, 0, &mut bytes).expect("a segment can be read");
        assert_eq!(read, bytes.len(), "a segment is as long as it is said to be");
        let bytes = Bytes::from(bytes);
        let places: Vec<(usize, usize)> = Batches::new(&bytes)
            .map(|batch| batch.expect("a segment holds batches"))
            .filter(|(_, header)| header.end_offset() > offset && header.base_offset < end)
            .map(|(at, header)| (at, at + header.total_bytes))
            .collect();
        let stored = |(from, to)| StoredBatch::from_log(bytes.slice(from..to)).expect("CRC holds");
        places.into_iter().map(stored).collect()
    }
}

/// Every topic has one name, out of its id; others may have had the same.
pub fn topic_name(key: ReplicaKey) -> String {
    if key.topic_id == crate::cluster::GROUPS_TOPIC_ID {
        return GROUPS_TOPIC.to_owned();
    }
    format!("topic-{}", key.topic_id.0[1])
}

/// A moment.
pub fn moment(micros: u64) -> Now {
    Now {
        monotonic: chronik_shards::model::MonotonicMicros(micros),
        wall: TimestampMs(1_700_000_000_000 + (micros / 1000) as i64),
    }
}
