//! A shard on a bench: a machine whose effects are performed in memory, at once or when told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::effect::{
    CheckpointJob, Effect, LogView, NoSpace, SegmentMeta, StoreJob, StoreReply, WalStart,
};
use super::group::GroupResponse;
use super::input::{
    FetchData, FetchError, FetchInput, FetchPartition, FetchSlice, FetchWait, PartitionConfig,
    PartitionSpec, ProduceError, ProduceInput, ProduceOutcome, ProduceOutcomes, ProducePartition,
    Token,
};
use super::limits::ShardLimits;
use super::shard::ShardMachine;
use crate::format::record_batch::{BatchHeader, ProducedBatch};
use crate::format::wal::encoded_bytes;
use crate::format::wal_entry::{Commit, WalEntry};
use crate::model::{
    Acks, LeaderEpoch, Lsn, MonotonicMicros, Now, Offset, PartitionIndex, ProducerEpoch,
    ProducerId, ReplicaKey, ShardId, TimestampMs, TopicId, WalFileSeq,
};

pub const WALL: TimestampMs = TimestampMs(1_700_000_000_000);

pub fn key(partition: i32) -> ReplicaKey {
    ReplicaKey { topic_id: TopicId([1; 16]), partition: PartitionIndex(partition) }
}

/// A batch of `count` records that takes `bytes` bytes.
pub fn batch(count: i32, bytes: usize) -> ProducedBatch {
    let header = BatchHeader {
        base_offset: Offset(0),
        total_bytes: bytes.max(61),
        leader_epoch: LeaderEpoch(-1),
        crc: 0,
        attributes: 0,
        last_offset_delta: count - 1,
        base_timestamp: WALL,
        max_timestamp: WALL,
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch(-1),
        base_sequence: -1,
        record_count: count,
    };
    ProducedBatch { header, bytes: Bytes::from(vec![0; bytes.max(61)]) }
}

pub fn idempotent(producer: i64, epoch: i16, sequence: i32, count: i32) -> ProducedBatch {
    let mut batch = batch(count, 100);
    batch.header.producer_id = ProducerId(producer);
    batch.header.producer_epoch = ProducerEpoch(epoch);
    batch.header.base_sequence = sequence;
    batch
}

pub struct Bench {
    pub machine: ShardMachine,
    pub limits: ShardLimits,
    pub now: Now,
    /// Commits pulled and not yet written.
    pub commits: VecDeque<Commit>,
    pub written: Vec<Commit>,
    pub jobs: VecDeque<StoreJob>,
    pub job_log: Vec<String>,
    pub files: Vec<(WalFileSeq, Option<WalFileSeq>)>,
    pub asked_files: VecDeque<WalFileSeq>,
    pub done: Vec<(Token, ProduceOutcomes)>,
    pub ready: Vec<Token>,
    pub deleted: Vec<(Token, Offset)>,
    pub checkpoints: Vec<CheckpointJob>,
    pub stopped: usize,
    /// What coordinators of groups answered.
    pub group_answers: Vec<(Token, GroupResponse)>,
    /// Coordinators that are to read their partition.
    pub loads: VecDeque<(ReplicaKey, LeaderEpoch)>,
    /// What the operator is told of groups.
    pub group_failures: Vec<String>,
    pub commit_signals: usize,
    pub holds_commits: bool,
    pub holds_store: bool,
    pub disk_full: bool,
    /// Fenced: checkpoints go on without them.
    pub failed: Vec<ReplicaKey>,
    pub views: BTreeMap<ReplicaKey, LogView>,
    next_token: u64,
}

impl Bench {
    pub fn new(limits: ShardLimits) -> Self {
        let start = WalStart::empty(Lsn(1), WalFileSeq(1), limits.wal_file_bytes);
        Self {
            machine: ShardMachine::start(ShardId(0), limits, start, BTreeSet::new()),
            limits,
            now: Now { monotonic: MonotonicMicros(1_000_000), wall: WALL },
            commits: VecDeque::new(),
            written: Vec::new(),
            jobs: VecDeque::new(),
            job_log: Vec::new(),
            files: Vec::new(),
            asked_files: VecDeque::new(),
            done: Vec::new(),
            ready: Vec::new(),
            deleted: Vec::new(),
            checkpoints: Vec::new(),
            stopped: 0,
            group_answers: Vec::new(),
            loads: VecDeque::new(),
            group_failures: Vec::new(),
            commit_signals: 0,
            holds_commits: false,
            holds_store: false,
            disk_full: false,
            failed: Vec::new(),
            views: BTreeMap::new(),
            next_token: 0,
        }
    }

    /// One open partition, settled.
    pub fn with_partition(config: PartitionConfig) -> Self {
        let mut bench = Self::new(ShardLimits::default());
        bench.open(0, 1, config);
        bench
    }

    pub fn small_wal() -> ShardLimits {
        ShardLimits {
            wal_file_bytes: 16 << 10,
            wal_files_max: 2,
            commit_bytes_max: 8 << 10,
            ..ShardLimits::default()
        }
    }

    pub fn open(&mut self, partition: i32, epoch: i32, config: PartitionConfig) {
        let spec = PartitionSpec {
            key: key(partition),
            topic_name: "topic".into(),
            leader_epoch: LeaderEpoch(epoch),
            config,
        };
        self.act(|machine, now, out| machine.open_partition(now, spec, None, out));
    }

    pub fn send_all(&mut self, acks: Acks, batches: Vec<(i32, ProducedBatch)>) -> Token {
        let token = self.token();
        let partitions = batches
            .into_iter()
            .map(|(partition, batch)| ProducePartition { key: key(partition), batch })
            .collect();
        let deadline = self.now.monotonic.plus_millis(30_000);
        let input = ProduceInput { token, acks, deadline, partitions };
        self.act(|machine, now, out| machine.produce(now, input, out));
        token
    }

    pub fn send(&mut self, acks: Acks, partition: i32, batch: ProducedBatch) -> Token {
        self.send_all(acks, vec![(partition, batch)])
    }

    /// The base offsets or errors of an answered produce.
    pub fn outcome(&self, token: Token) -> Option<Vec<Result<i64, ProduceError>>> {
        let mut answers = self.done.iter().filter(|(other, _)| *other == token);
        let outcomes = &answers.next()?.1;
        assert!(answers.next().is_none(), "answered once");
        let offset = |outcome: &ProduceOutcome| outcome.result.clone().map(|at| at.base_offset.0);
        Some(outcomes.iter().map(offset).collect())
    }

    pub fn sent(&mut self, batch: ProducedBatch) -> Result<i64, ProduceError> {
        let token = self.send(Acks::All, 0, batch);
        self.outcome(token).expect("answered")[0].clone()
    }

    pub fn fetch(&mut self, offset: i64) -> Result<FetchSlice, FetchError> {
        let partitions = vec![wanted(0, offset, 1 << 20)];
        let mut plans = self.machine.fetch(&FetchInput { max_bytes: 1 << 20, partitions });
        plans.pop().unwrap().result
    }

    pub fn wait(&mut self, min_bytes: usize, partitions: &[(i32, i64)], millis: u64) -> Token {
        let token = self.token();
        let wait = FetchWait {
            token,
            deadline: self.now.monotonic.plus_millis(millis),
            min_bytes,
            partitions: partitions.iter().map(|(p, offset)| (key(*p), Offset(*offset))).collect(),
        };
        self.act(|machine, now, out| machine.wait_fetch(now, wait, out));
        token
    }

    pub fn delete_records(&mut self, before: Option<i64>) -> Result<Token, FetchError> {
        let token = self.token();
        let mut result = Ok(());
        self.act(|machine, now, out| {
            result = machine.delete_records(now, token, key(0), before.map(Offset), out);
        });
        result.map(|()| token)
    }

    pub fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }

    pub fn high_watermark(&self, partition: i32) -> i64 {
        self.machine.info(key(partition)).unwrap().high_watermark.0
    }

    /// Lets time pass, ticking where the machine asks for it.
    pub fn pass_millis(&mut self, millis: u64) {
        let end = self.now.monotonic.plus_millis(millis);
        while let Some(due) = self.machine.next_deadline().filter(|due| *due <= end) {
            self.go_to(due.max(self.now.monotonic));
            self.act(|machine, now, out| machine.tick(now, out));
            let next = self.machine.next_deadline();
            assert!(next.is_none_or(|next| next > self.now.monotonic), "a tick does what is due");
        }
        self.go_to(end);
    }

    fn go_to(&mut self, monotonic: MonotonicMicros) {
        self.now.wall.0 += (monotonic.since(self.now.monotonic) / 1000) as i64;
        self.now.monotonic = monotonic;
    }

    pub fn act(&mut self, input: impl FnOnce(&mut ShardMachine, Now, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        input(&mut self.machine, self.now, &mut out);
        self.machine.check_invariants();
        self.perform(out);
        self.settle();
    }

    /// Does the oldest store job.
    pub fn work(&mut self) {
        let job = self.jobs.pop_front();
        for reply in job.into_iter().flat_map(|job| self.execute(job)).collect::<Vec<_>>() {
            self.act(|machine, now, out| machine.store_done(now, reply, out));
        }
    }

    pub fn write(&mut self, place: usize) {
        let commit = self.commits.remove(place).unwrap();
        let lsn = commit.lsn;
        self.written.push(commit);
        self.act(|machine, now, out| machine.commit_written(now, lsn, out));
    }

    pub fn release_commits(&mut self) {
        self.holds_commits = false;
        self.settle();
    }

    pub fn release_store(&mut self) {
        self.holds_store = false;
        self.settle();
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::ProduceDone { token, outcomes } => self.done.push((token, outcomes)),
                Effect::FetchReady { token } => self.ready.push(token),
                Effect::RecordsDeleted { token, log_start_offset } => {
                    self.deleted.push((token, log_start_offset));
                }
                Effect::GroupAnswered { token, response } => {
                    self.group_answers.push((token, *response));
                }
                Effect::LoadGroups { key, leader_epoch } => {
                    self.loads.push_back((key, leader_epoch));
                }
                Effect::GroupsFailed { reason, .. } => self.group_failures.push(reason),
                Effect::CommitPending => {
                    self.commit_signals += 1;
                    while let Some(commit) = self.next_commit() {
                        let end = commit.position + encoded_bytes(&commit.entries) as u64;
                        assert!(end <= self.limits.wal_file_bytes, "within its file");
                        self.commits.push_back(commit);
                    }
                }
                Effect::PrepareWalFile { seq, recycle } => {
                    let checkpointed = self.checkpoints.last().map_or(Lsn(0), |job| job.lsn);
                    let all = self.written.iter().chain(&self.commits);
                    let mut kept = all.filter(|commit| Some(commit.file) == recycle);
                    assert!(kept.all(|commit| commit.lsn <= checkpointed), "{recycle:?} is needed");
                    self.files.push((seq, recycle));
                    self.asked_files.push_back(seq);
                }
                Effect::Store(job) => {
                    self.job_log.push(job_name(&job));
                    self.jobs.push_back(job);
                }
                Effect::Stopped => self.stopped += 1,
            }
        }
    }

    fn settle(&mut self) {
        loop {
            if let Some(seq) = self.asked_files.pop_front() {
                let is_new = self.files.last().unwrap().1.is_none();
                let result = if self.disk_full && is_new { Err(NoSpace) } else { Ok(()) };
                self.step(|machine, now, out| machine.wal_file_prepared(now, seq, result, out));
            } else if !self.holds_commits && !self.commits.is_empty() {
                let commit = self.commits.pop_front().unwrap();
                let lsn = commit.lsn;
                self.written.push(commit);
                self.step(|machine, now, out| machine.commit_written(now, lsn, out));
            } else if !self.holds_store && !self.jobs.is_empty() {
                let job = self.jobs.pop_front().unwrap();
                for reply in self.execute(job) {
                    self.step(|machine, now, out| machine.store_done(now, reply, out));
                }
            } else {
                return;
            }
        }
    }

    fn next_commit(&mut self) -> Option<Commit> {
        let mut out = Vec::new();
        let commit = self.machine.next_commit(self.now, &mut out);
        self.machine.check_invariants();
        self.perform(out);
        commit
    }

    fn step(&mut self, input: impl FnOnce(&mut ShardMachine, Now, &mut Vec<Effect>)) {
        let mut out = Vec::new();
        input(&mut self.machine, self.now, &mut out);
        self.machine.check_invariants();
        self.perform(out);
    }

    /// Everything that a checkpoint lets the WAL forget is in segments.
    fn check_covers(&self, job: &CheckpointJob) {
        for commit in self.written.iter().filter(|commit| commit.lsn <= job.lsn) {
            for entry in &commit.entries {
                let WalEntry::Batch { key, batch } = entry else { continue };
                let line = job.partitions.iter().find(|line| line.key == *key);
                let line = line.filter(|line| !self.failed.contains(&line.key));
                let covered = line.is_none_or(|line| batch.end_offset() <= line.flushed_end);
                assert!(covered, "{key}: {} is not in segments", batch.header.base_offset);
            }
        }
        for line in &job.partitions {
            let end = self.views.get(&line.key).and_then(LogView::end_offset);
            assert_eq!(end.unwrap_or(Offset(0)), line.flushed_end, "{} in segments", line.key);
        }
    }

    /// What the store would do, on views alone.
    fn execute(&mut self, job: StoreJob) -> Vec<StoreReply> {
        if let StoreJob::AppendRuns { runs, now } = job {
            let append = |(key, batches)| StoreJob::Append { key, batches, now };
            let mut replies: Vec<_> =
                runs.into_iter().map(append).flat_map(|job| self.execute(job)).collect();
            replies.push(StoreReply::RunsDone);
            return replies;
        }
        self.execute_one(job).into_iter().collect()
    }

    fn execute_one(&mut self, job: StoreJob) -> Option<StoreReply> {
        let key = match job {
            StoreJob::AppendRuns { .. } => unreachable!("taken apart before"),
            StoreJob::Open { key, .. } => key,
            StoreJob::Append { key, .. } if self.disk_full => {
                return Some(StoreReply::NoSpace { key: Some(key) });
            }
            StoreJob::Append { key, batches, now } => {
                let view = self.views.entry(key).or_default();
                for batch in batches {
                    let base_offset = view.end_offset().unwrap_or(Offset(0));
                    if batch.end_offset() <= base_offset {
                        continue;
                    }
                    assert_eq!(batch.header.base_offset, base_offset, "appends are contiguous");
                    let active = view.active.get_or_insert(SegmentMeta {
                        base_offset,
                        end_offset: base_offset,
                        bytes: 0,
                        max_timestamp: TimestampMs::NONE,
                        created: now,
                    });
                    active.end_offset = batch.end_offset();
                    active.bytes += batch.total_bytes() as u64;
                    active.max_timestamp = active.max_timestamp.max(batch.header.max_timestamp);
                }
                key
            }
            StoreJob::Roll { key } => {
                let view = self.views.entry(key).or_default();
                if let Some(active) = view.active.take().filter(|active| active.bytes > 0) {
                    view.sealed = view.sealed.iter().copied().chain([active]).collect();
                    let base_offset = active.end_offset;
                    let max_timestamp = TimestampMs::NONE;
                    view.active =
                        Some(SegmentMeta { base_offset, bytes: 0, max_timestamp, ..active });
                }
                key
            }
            StoreJob::DeleteSegments { key, log_start_offset } => {
                let view = self.views.entry(key).or_default();
                let sealed = view.sealed.iter().copied();
                view.sealed = sealed.filter(|s| s.end_offset > log_start_offset).collect();
                key
            }
            StoreJob::Checkpoint(_) if self.disk_full => {
                return Some(StoreReply::NoSpace { key: None });
            }
            StoreJob::Checkpoint(job) => {
                let lsn = job.lsn;
                self.check_covers(&job);
                self.checkpoints.push(*job);
                return Some(StoreReply::Checkpointed { lsn });
            }
            StoreJob::Truncate { key, end_offset, begins_anew } => {
                let view = self.views.entry(key).or_default();
                if begins_anew {
                    *view = LogView::default();
                }
                let cut = |segment: SegmentMeta| SegmentMeta {
                    end_offset: segment.end_offset.min(end_offset),
                    ..segment
                };
                let kept = |segment: &SegmentMeta| segment.base_offset < end_offset;
                let all: Vec<_> = view.iter().copied().filter(kept).map(cut).collect();
                *view = LogView { active: None, sealed: all.into(), ..LogView::default() };
                let (view, producers) = (view.clone(), Vec::new());
                return Some(StoreReply::Truncated { key, view, producers });
            }
            StoreJob::RemoveLeftovers => return None,
            StoreJob::Remove { key } => {
                self.views.remove(&key);
                return Some(StoreReply::Removed { key });
            }
            StoreJob::Configure { .. } | StoreJob::Compact { .. } => return None,
            StoreJob::SwapSegments { key, .. } => {
                let view = self.views.entry(key).or_default().clone();
                return Some(StoreReply::Swapped { key, view });
            }
        };
        let view = self.views.entry(key).or_default().clone();
        Some(StoreReply::Segments { key, view })
    }
}

pub fn wanted(partition: i32, offset: i64, max_bytes: usize) -> FetchPartition {
    FetchPartition {
        key: key(partition),
        offset: Offset(offset),
        current_leader_epoch: None,
        last_fetched_epoch: None,
        max_bytes,
    }
}

/// Base offsets of what a fetch found in memory.
pub fn cached(data: &FetchData) -> Vec<i64> {
    match data {
        FetchData::Cached(batches) => batches.iter().map(|b| b.header.base_offset.0).collect(),
        FetchData::Nothing => Vec::new(),
        FetchData::InSegments { .. } => panic!("in memory, not {data:?}"),
    }
}

fn job_name(job: &StoreJob) -> String {
    match job {
        StoreJob::Open { .. } => "open".into(),
        StoreJob::Configure { .. } => "configure".into(),
        StoreJob::Append { key, batches, .. } => {
            format!("append {} x{}", key.partition, batches.len())
        }
        StoreJob::AppendRuns { runs, .. } => {
            let run = |(key, batches): &(ReplicaKey, Vec<_>)| {
                format!("{} x{}", key.partition, batches.len())
            };
            format!("runs {}", runs.iter().map(run).collect::<Vec<_>>().join(", "))
        }
        StoreJob::Roll { .. } => "roll".into(),
        StoreJob::Checkpoint(job) => format!("checkpoint {}", job.lsn),
        StoreJob::DeleteSegments { log_start_offset, .. } => format!("delete {log_start_offset}"),
        StoreJob::Truncate { end_offset, .. } => format!("truncate {end_offset}"),
        StoreJob::Remove { .. } => "remove".into(),
        StoreJob::Compact { .. } => "compact".into(),
        StoreJob::SwapSegments { .. } => "swap".into(),
        StoreJob::RemoveLeftovers => "remove leftovers".into(),
    }
}
