//! A small node on a simulated disk: a WAL writer, stores, and a model of what must survive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::path::{Path, PathBuf};

use crate::format::batch_builder::BatchBuilder;
use crate::format::compacted_batch;
use crate::format::compression::Codec;
use crate::format::positions::PartitionCheckpoint;
use crate::format::record_batch::StoredBatch;
use crate::format::sample_batch::SampleBatch;
use crate::format::wal;
use crate::format::wal_entry::{Commit, WalEntry};
use crate::machine::effect::{CheckpointJob, LogView, StoreJob, StoreReply, WalStart};
use crate::machine::input::PartitionConfig;
use crate::model::{
    LeaderEpoch, Lsn, Offset, PartitionIndex, ProducerEpoch, ProducerId, ReplicaKey, ShardId,
    TimestampMs, TopicId, WalFileSeq,
};
use crate::store::SegmentStore;
use crate::store::cleaner::CleanerLimits;
use crate::store::disk::{Disk, OpenMode, read_file};
use crate::store::paths::{self, SegmentFile, segment_file};
use crate::store::producers::ProducerTable;
use crate::store::recovery::{Gone, Recovered, RecoveryError, RecoveryInput, recover};
use crate::store::segment::Segment;
use crate::store::sim_disk::{SimDisk, WriteInFlight};

pub const WAL_FILE_BYTES: u64 = 32 << 10;
pub const NOW: TimestampMs = TimestampMs(1_000_000);
pub const EPOCH: i32 = 3;

/// Something that died because the disk did.
#[derive(Debug)]
pub struct Dead;

/// A partition as it must be.
#[derive(Clone, Default)]
pub struct Model {
    /// Durable in the WAL, from offset 0.
    pub batches: Vec<StoredBatch>,
    /// Handed to the WAL and perhaps durable.
    pub maybe: Vec<StoredBatch>,
    /// Batches that were given to the segments.
    pub in_segments: usize,
    pub log_start: Offset,
    pub maybe_log_start: Offset,
    pub sequence: i32,
}

impl Model {
    pub fn end(&self) -> Offset {
        self.batches.last().map_or(Offset::ZERO, StoredBatch::end_offset)
    }
}

struct Wal {
    next_lsn: Lsn,
    durable: Lsn,
    file: WalFileSeq,
    position: u64,
    file_bytes: u64,
    /// Last LSN of every file.
    files: BTreeMap<WalFileSeq, Lsn>,
}

pub struct World {
    pub disk: SimDisk,
    pub shards: u16,
    pub partitions: Vec<(ReplicaKey, String)>,
    pub models: BTreeMap<ReplicaKey, Model>,
    /// Partitions that only other nodes have.
    pub moved_away: BTreeSet<ReplicaKey>,
    pub segment_bytes: u64,
    stores: Vec<SegmentStore<SimDisk>>,
    wals: Vec<Wal>,
}

pub fn data() -> PathBuf {
    PathBuf::from("/data")
}

pub fn key(topic: u8, partition: i32) -> ReplicaKey {
    ReplicaKey { topic_id: TopicId([topic; 16]), partition: PartitionIndex(partition) }
}

pub fn config(segment_bytes: u64) -> PartitionConfig {
    PartitionConfig { segment_bytes, ..PartitionConfig::default() }
}

impl World {
    pub fn new(partitions: i32, shards: u16) -> Self {
        let disk = SimDisk::new();
        disk.create_dir(&data()).unwrap();
        disk.sync_filesystem(Path::new("/")).unwrap();
        let partitions: Vec<_> = (0..partitions).map(|p| (key(7, p), "pears".to_owned())).collect();
        let models = partitions.iter().map(|(key, _)| (*key, Model::default())).collect();
        let mut world = Self {
            disk,
            shards,
            partitions,
            models,
            moved_away: BTreeSet::new(),
            segment_bytes: 6000,
            stores: Vec::new(),
            wals: Vec::new(),
        };
        let recovered = world.recover().unwrap();
        world.resume(recovered);
        world.open_all().unwrap();
        world
    }

    pub fn input(&self) -> RecoveryInput {
        RecoveryInput {
            data: data(),
            partitions: self
                .partitions
                .iter()
                .map(|(key, name)| (*key, name.clone(), config(self.segment_bytes)))
                .collect(),
            gone: Gone { topics: [TopicId([66; 16])].into(), replicas: self.moved_away.clone() },
            shards: self.shards,
            accept_data_loss: false,
            wal_file_bytes: WAL_FILE_BYTES,
            now: NOW,
        }
    }

    pub fn recover(&self) -> Result<Recovered, RecoveryError> {
        recover(&self.disk, &self.input())
    }

    /// Goes on from a recovery: what may have been durable is now known.
    pub fn resume(&mut self, recovered: Recovered) {
        for partition in &recovered.partitions {
            let key = partition.state.key;
            let model = self.models.get_mut(&key).unwrap();
            let end = partition.state.flushed_end;
            let maybe = std::mem::take(&mut model.maybe);
            model.batches.extend(maybe.into_iter().filter(|batch| batch.end_offset() <= end));
            model.in_segments = model.batches.len();
            model.log_start = partition.state.log_start_offset;
            model.maybe_log_start = model.log_start;
        }
        let wal = |start: &WalStart| Wal {
            next_lsn: start.next_lsn,
            durable: Lsn(start.next_lsn.0 - 1),
            file: start.file,
            position: start.position,
            file_bytes: start.file_bytes,
            // Of the active file's commits, which ones the checkpoint covers does not matter here.
            files: [(start.file, Lsn(start.next_lsn.0 - 1))]
                .into_iter()
                .chain(start.full.iter().copied())
                .chain(start.free.iter().map(|seq| (*seq, Lsn(0))))
                .collect(),
        };
        self.wals = recovered.wal.iter().map(wal).collect();
        let disk = &self.disk;
        let store =
            |(shard, logs)| SegmentStore::new(disk.clone(), data(), ShardId(shard as u16), logs, 4);
        self.stores = recovered.logs.into_iter().enumerate().map(store).collect();
    }

    pub fn open_all(&mut self) -> Result<(), Dead> {
        for (key, topic_name) in self.partitions.clone() {
            let config = config(self.segment_bytes);
            self.job(StoreJob::Open { key, topic_name: topic_name.clone(), config })?;
            let leader_epoch = LeaderEpoch(EPOCH);
            self.commit(key, vec![WalEntry::Opened { key, topic_name, leader_epoch }])?;
        }
        Ok(())
    }

    fn shard(&self, key: ReplicaKey) -> usize {
        usize::from(key.shard(self.shards).0)
    }

    pub fn job(&mut self, job: StoreJob) -> Result<StoreReply, Dead> {
        let key = match &job {
            StoreJob::Open { key, .. }
            | StoreJob::Configure { key, .. }
            | StoreJob::Append { key, .. }
            | StoreJob::Roll { key }
            | StoreJob::DeleteSegments { key, .. }
            | StoreJob::Truncate { key, .. }
            | StoreJob::Compact { key, .. }
            | StoreJob::SwapSegments { key, .. }
            | StoreJob::Remove { key } => *key,
            StoreJob::AppendRuns { runs, .. } => runs[0].0,
            StoreJob::Checkpoint(_) | StoreJob::RemoveLeftovers => {
                panic!("checkpoints and leftovers have their own way")
            }
        };
        let shard = self.shard(key);
        match self.stores[shard].execute(job).map_err(|_| Dead)?.pop() {
            Some(StoreReply::Failed { .. }) | None => Err(Dead),
            Some(reply) => Ok(reply),
        }
    }

    /// The next batch of a partition, by an idempotent producer.
    pub fn next_batch(&mut self, key: ReplicaKey, records: i32, value: &[u8]) -> StoredBatch {
        let model = self.models.get_mut(&key).unwrap();
        let last = model.maybe.last().or(model.batches.last());
        let base = last.map_or(0, |last| last.end_offset().0);
        let sample = SampleBatch {
            records,
            value,
            timestamp: TimestampMs(1000 + base / 3),
            producer_id: ProducerId(5),
            producer_epoch: ProducerEpoch(0),
            base_sequence: model.sequence,
        };
        model.sequence += records;
        let batch = sample.at(base, EPOCH);
        model.maybe.push(batch.clone());
        batch
    }

    /// Writes a batch to the WAL, durably.
    pub fn produce(&mut self, key: ReplicaKey, records: i32, value: &[u8]) -> Result<(), Dead> {
        let batch = self.next_batch(key, records, value);
        self.commit(key, vec![WalEntry::Batch { key, batch }])?;
        self.settle(key);
        Ok(())
    }

    /// Writes a batch of keyed records to the WAL, durably; a record without a value is a tombstone.
    pub fn produce_keyed(
        &mut self,
        key: ReplicaKey,
        producer: i64,
        records: &[(u8, Option<usize>)],
        codec: Codec,
    ) -> Result<StoredBatch, Dead> {
        let model = self.models.get_mut(&key).unwrap();
        let base = model.end();
        let sequence = model.batches.iter().filter(|b| b.header.producer_id.0 == producer);
        let sequence = sequence.map(|batch| batch.header.record_count).sum();
        let mut builder = BatchBuilder::new(codec);
        if producer >= 0 {
            builder = builder.idempotent(ProducerId(producer), ProducerEpoch(0), sequence);
        }
        for (at, (name, bytes)) in (0..).zip(records) {
            let value = bytes.map(|bytes| vec![*name; bytes]);
            let time = TimestampMs(1000 + base.0 + at);
            builder.push(time, Some(&[*name]), value.as_deref(), &[]);
        }
        let batch = StoredBatch::place(builder.build(), base, LeaderEpoch(EPOCH));
        self.produce_batch(key, batch.clone())?;
        Ok(batch)
    }

    /// Writes a batch without records to the WAL, durably, as a follower gets it.
    pub fn produce_nothing(&mut self, key: ReplicaKey, offsets: i64) -> Result<(), Dead> {
        let base = self.models[&key].end();
        let filler = compacted_batch::filler(base, base.plus(offsets), LeaderEpoch(EPOCH));
        self.produce_batch(key, filler)
    }

    /// Writes a batch to the WAL, durably.
    pub fn produce_batch(&mut self, key: ReplicaKey, batch: StoredBatch) -> Result<(), Dead> {
        self.models.get_mut(&key).unwrap().maybe.push(batch.clone());
        self.commit(key, vec![WalEntry::Batch { key, batch }])?;
        self.settle(key);
        Ok(())
    }

    /// Writes to the WAL that a log is cut, and what follows there, durably.
    pub fn commit_cut(
        &mut self,
        key: ReplicaKey,
        end_offset: Offset,
        next: Option<StoredBatch>,
    ) -> Result<(), Dead> {
        let next = next.map(|batch| WalEntry::Batch { key, batch });
        self.commit(key, vec![WalEntry::Truncated { key, end_offset }])?;
        next.map_or(Ok(()), |next| self.commit(key, vec![next]))
    }

    /// Does a job and returns all that is answered.
    pub fn replies(&mut self, key: ReplicaKey, job: StoreJob) -> Result<Vec<StoreReply>, Dead> {
        let shard = self.shard(key);
        self.stores[shard].execute(job).map_err(|_| Dead)
    }

    /// A step of the compaction under way.
    pub fn compact(&mut self, key: ReplicaKey) -> Result<Vec<StoreReply>, Dead> {
        let shard = self.shard(key);
        assert!(self.stores[shard].is_compacting(), "a compaction has something to do");
        Ok(self.stores[shard].compact().map_err(|_| Dead)?.replies)
    }

    /// With this much memory for keys.
    pub fn limit_map(&mut self, map_bytes_max: usize) {
        let limits = CleanerLimits { map_bytes_max, ..CleanerLimits::default() };
        self.stores = std::mem::take(&mut self.stores)
            .into_iter()
            .map(|store| store.with_cleaner(limits))
            .collect();
    }

    /// What was in flight for a partition is durable.
    pub fn settle(&mut self, key: ReplicaKey) {
        let model = self.models.get_mut(&key).unwrap();
        model.batches.append(&mut model.maybe);
    }

    pub fn commit(&mut self, key: ReplicaKey, entries: Vec<WalEntry>) -> Result<(), Dead> {
        let write = self.start_commit(key, entries)?;
        self.disk.complete_write(write).map_err(|_| Dead)?;
        let shard = self.shard(key);
        self.wals[shard].durable = Lsn(self.wals[shard].next_lsn.0 - 1);
        Ok(())
    }

    /// Starts a commit on the partition's shard.
    pub fn start_commit(
        &mut self,
        key: ReplicaKey,
        entries: Vec<WalEntry>,
    ) -> Result<WriteInFlight, Dead> {
        let shard = self.shard(key);
        let bytes = wal::encoded_bytes(&entries);
        if self.wals[shard].position + bytes as u64 > self.wals[shard].file_bytes {
            self.next_wal_file(shard)?;
        }
        let wal = &mut self.wals[shard];
        let commit = Commit {
            lsn: wal.next_lsn,
            file: wal.file,
            position: wal.position,
            durable: wal.durable,
            entries,
        };
        let mut out = vec![0; bytes];
        wal::encode(ShardId(shard as u16), &commit, &mut out);
        let path = paths::wal_file(&data(), ShardId(shard as u16), wal.file);
        let file = self.disk.open(&path, OpenMode::Write).map_err(|_| Dead)?;
        let write = self.disk.start_write(&file, wal.position, &out).map_err(|_| Dead)?;
        wal.position += bytes as u64;
        wal.files.insert(wal.file, wal.next_lsn);
        wal.next_lsn = wal.next_lsn.next();
        Ok(write)
    }

    fn next_wal_file(&mut self, shard: usize) -> Result<(), Dead> {
        let id = ShardId(shard as u16);
        let newest = self.wals[shard].files.keys().next_back().copied();
        let seq = newest.unwrap_or_default().next();
        let path = paths::wal_file(&data(), id, seq);
        // Files whose commits are all in segments are marked with LSN 0.
        let current = self.wals[shard].file;
        let free =
            self.wals[shard].files.iter().find(|(old, last)| **old != current && last.0 == 0);
        let free = free.map(|(seq, _)| *seq);
        let mark = wal::unused_block(id, seq);
        match free {
            Some(old) => {
                let from = paths::wal_file(&data(), id, old);
                let file = self.disk.open(&from, OpenMode::Write).map_err(|_| Dead)?;
                self.disk.write_at(&file, 0, &[IoSlice::new(&mark)]).map_err(|_| Dead)?;
                self.disk.sync(&file).map_err(|_| Dead)?;
                self.disk.rename(&from, &path).map_err(|_| Dead)?;
                self.wals[shard].files.remove(&old);
            }
            None => {
                let file = self.disk.open(&path, OpenMode::Write).map_err(|_| Dead)?;
                let zeroes = vec![0; WAL_FILE_BYTES as usize - mark.len()];
                let content = [IoSlice::new(&mark), IoSlice::new(&zeroes)];
                self.disk.write_at(&file, 0, &content).map_err(|_| Dead)?;
                self.disk.sync(&file).map_err(|_| Dead)?;
            }
        }
        self.disk.sync_dir(&paths::wal_dir(&data(), id)).map_err(|_| Dead)?;
        let wal = &mut self.wals[shard];
        wal.file = seq;
        wal.position = 0;
        wal.file_bytes = WAL_FILE_BYTES;
        wal.files.insert(seq, Lsn(0));
        Ok(())
    }

    /// Appends what is durable to the partition's segments.
    pub fn flush(&mut self, key: ReplicaKey) -> Result<(), Dead> {
        let model = &self.models[&key];
        let batches = model.batches[model.in_segments..].to_vec();
        let count = model.batches.len();
        if batches.is_empty() {
            return Ok(());
        }
        self.job(StoreJob::Append { key, batches, now: NOW })?;
        self.models.get_mut(&key).unwrap().in_segments = count;
        Ok(())
    }

    /// A whole round of a shard.
    pub fn checkpoint(&mut self, shard: u16) -> Result<(), Dead> {
        let keys: Vec<_> = self.partitions.iter().map(|(key, _)| *key).collect();
        let own: Vec<_> =
            keys.into_iter().filter(|key| key.shard(self.shards).0 == shard).collect();
        for key in &own {
            self.flush(*key)?;
        }
        let lsn = self.wals[usize::from(shard)].durable;
        let partitions = own.iter().map(|key| expected_state(*key, &self.models[key])).collect();
        let job = StoreJob::Checkpoint(Box::new(CheckpointJob { lsn, partitions }));
        let reply = self.stores[usize::from(shard)].execute(job).map_err(|_| Dead)?.pop();
        if !matches!(reply, Some(StoreReply::Checkpointed { .. })) {
            return Err(Dead);
        }
        let wal = &mut self.wals[usize::from(shard)];
        let current = wal.file;
        for (seq, last) in &mut wal.files {
            if *seq != current && *last <= lsn {
                *last = Lsn(0);
            }
        }
        Ok(())
    }

    /// Moves the log start to the beginning of a durable batch, then drops segments.
    pub fn delete_records(&mut self, key: ReplicaKey, batch: usize) -> Result<(), Dead> {
        let model = self.models.get_mut(&key).unwrap();
        let Some(batch) = model.batches.get(batch) else { return Ok(()) };
        let offset = batch.header.base_offset.max(model.log_start);
        model.maybe_log_start = offset;
        self.commit(key, vec![WalEntry::LogStart { key, log_start_offset: offset }])?;
        self.models.get_mut(&key).unwrap().log_start = offset;
        self.job(StoreJob::DeleteSegments { key, log_start_offset: offset })?;
        Ok(())
    }

    pub fn finish(&mut self) {
        for store in self.stores.drain(..) {
            store.finish().unwrap();
        }
    }

    /// Compares what recovery found with the model, down to the bytes of logs and indexes.
    pub fn check(&self, recovered: &Recovered) {
        assert_eq!(recovered.partitions.len(), self.partitions.len());
        assert_eq!(recovered.wal.len(), usize::from(self.shards));
        for partition in &recovered.partitions {
            let state = &partition.state;
            let model = &self.models[&state.key];
            let end = state.flushed_end;
            assert!(end >= model.end(), "{}: {end} of {}", state.key, model.end());
            let starts = [model.log_start, model.maybe_log_start];
            assert!(starts.contains(&state.log_start_offset), "{}", state.key);
            let possible: Vec<_> = model.batches.iter().chain(&model.maybe).cloned().collect();
            let expected: Vec<_> =
                possible.into_iter().filter(|batch| batch.end_offset() <= end).collect();
            let dir = paths::partition_dir(&data(), "pears", state.key.partition);
            let log = read_log(&self.disk, &dir, &partition.view);
            let from = partition.view.iter().next().map_or(end, |first| first.base_offset);
            assert!(from <= state.log_start_offset.max(model.log_start));
            let bytes: Vec<u8> = expected
                .iter()
                .filter(|batch| batch.header.base_offset >= from)
                .flat_map(|batch| batch.to_log())
                .collect();
            assert_eq!(log.len(), bytes.len(), "{}", state.key);
            assert!(log == bytes, "{}: the log's bytes", state.key);
            check_indexes(&self.disk, &dir, &partition.view);
            let settled = Model { batches: expected, ..Model::default() };
            let expected = expected_state(state.key, &settled);
            assert_eq!(state.producers, expected.producers, "{}", state.key);
            assert_eq!(state.epochs, expected.epochs, "{}", state.key);
        }
        let leftover = paths::recovery_checkpoint(&data());
        assert!(!self.disk.files().contains_key(&leftover));
    }
}

pub fn expected_state(key: ReplicaKey, model: &Model) -> PartitionCheckpoint {
    let mut producers = ProducerTable::default();
    model.batches.iter().for_each(|batch| producers.observe(&batch.header));
    let first = model.batches.first().map(|batch| batch.header.leader_epoch);
    PartitionCheckpoint {
        key,
        log_start_offset: model.log_start,
        high_watermark: model.end(),
        flushed_end: model.end(),
        leader_epoch: LeaderEpoch(EPOCH),
        epochs: first.into_iter().map(|epoch| (epoch, Offset::ZERO)).collect(),
        producers: producers.to_checkpoint(),
    }
}

/// The bytes of all segments, one behind the other.
pub fn read_log(disk: &SimDisk, dir: &Path, view: &LogView) -> Vec<u8> {
    let mut log = Vec::new();
    for segment in view.iter() {
        let path = segment_file(dir, SegmentFile::Log, segment.base_offset);
        let content = read_file(disk, &path).unwrap();
        assert_eq!(content.len() as u64, segment.bytes, "no byte beyond the segment");
        log.extend(content);
    }
    log
}

/// Every index must be what appending the log from its beginning gives.
pub fn check_indexes(disk: &SimDisk, dir: &Path, view: &LogView) {
    use crate::format::record_batch::Batches;
    for meta in view.iter() {
        let file = |kind| read_file(disk, &segment_file(dir, kind, meta.base_offset)).unwrap();
        let mut segment = Segment::new(meta.base_offset, NOW);
        let (mut index, mut time_index) = (Vec::new(), Vec::new());
        let log = file(SegmentFile::Log);
        for batch in Batches::new(&log) {
            let due = segment.push(&batch.unwrap().1, NOW);
            index.extend(due.offset.iter().flat_map(|entry| entry.encode()));
            time_index.extend(due.time.iter().flat_map(|entry| entry.encode()));
        }
        if view.active.is_none_or(|active| active.base_offset != meta.base_offset) {
            time_index.extend(segment.seal().iter().flat_map(|entry| entry.encode()));
        }
        assert_eq!(file(SegmentFile::Index), index, "index of {}", meta.base_offset);
        assert_eq!(file(SegmentFile::TimeIndex), time_index, "time index of {}", meta.base_offset);
        assert_eq!(segment.end_offset, meta.end_offset);
        let sealed_max = segment.meta().max_timestamp;
        assert_eq!(meta.max_timestamp, sealed_max, "largest time of {}", meta.base_offset);
    }
}
