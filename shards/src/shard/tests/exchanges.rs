//! Reads beside an exchange of segments.

use std::task::Poll;

use super::*;
use crate::format::batch_builder::BatchBuilder;
use crate::format::compression::Codec;
use crate::io::store_thread::{Storage, StorageError};
use crate::machine::effect::{StoreJob, StoreReply};
use crate::store::SegmentStore;
use crate::store::cleaner::CompactionStep;
use crate::store::disk::StdDisk;

/// The real storage, but every exchange waits for a word.
struct Gated {
    store: SegmentStore<StdDisk>,
    begun: Sender<()>,
    gate: Receiver<()>,
}

impl Storage for Gated {
    fn execute(&mut self, job: StoreJob) -> Result<Vec<StoreReply>, StorageError> {
        if matches!(job, StoreJob::SwapSegments { .. }) {
            let _ = self.begun.send(());
            // Once nobody has a word to give, none is waited for.
            let _ = self.gate.recv();
        }
        Ok(self.store.execute(job)?)
    }

    fn is_compacting(&self) -> bool {
        self.store.is_compacting()
    }

    fn compact(&mut self) -> Result<CompactionStep, StorageError> {
        Ok(self.store.compact()?)
    }

    fn compaction_rest(&self, _worked: Duration, _bytes: u64) -> Duration {
        Duration::ZERO
    }

    fn finish(self: Box<Self>) -> Result<(), StorageError> {
        Ok(self.store.finish()?)
    }
}

fn keyed(round: usize) -> ProducedBatch {
    let mut builder = BatchBuilder::new(Codec::None);
    for key in [round as u8 % 7, 200] {
        builder.push(TimestampMs(5000), Some(&[key]), Some(&[key; 2000]), &[]);
    }
    builder.build()
}

/// How long a read that should wait is watched: many of its looks.
const WATCHED_MS: u64 = 30;

#[test]
fn reads_wait_while_segments_are_exchanged_and_get_what_is_there_then() {
    let data = tempfile::tempdir().unwrap();
    let wal = data.path().join("shards/0/wal");
    for dir in [wal.clone(), data.path().join("topics")] {
        std::fs::create_dir_all(dir).unwrap();
    }
    prepare(ShardId(0), &wal, FILE_BYTES, Wanted { seq: WalFileSeq(1), recycle: None }).unwrap();
    let (begun, exchanges) = unbounded();
    let (open_gate, gate) = unbounded();
    let disk = StdDisk::default();
    let store = SegmentStore::new(disk, data.path().to_owned(), ShardId(0), Vec::new(), 64);
    let limits = ShardLimits { compaction_interval_ms: 1, ..limits() };
    let start = WalStart::empty(Lsn(1), WalFileSeq(1), FILE_BYTES);
    let plan =
        ShardPlan { limits, ..ShardPlan::new(start, Box::new(Gated { store, begun, gate })) };
    let spec =
        NodeSpec { calls_max: 8, ..NodeSpec::new(data.path().to_owned(), vec![plan], Vec::new()) };
    run(spec, 0, async move |handle: ShardHandle| {
        let config = PartitionConfig {
            segment_bytes: 32 << 10,
            cleanup_compact: true,
            min_cleanable_dirty_ppm: 0,
            ..PartitionConfig::default()
        };
        handle.open_partition(PartitionSpec {
            key: key(0),
            topic_name: "pears".to_owned(),
            leader_epoch: LeaderEpoch(1),
            config,
        });
        let mut round = 0;
        while exchanges.is_empty() {
            let part = ProduceRequestPart {
                acks: Acks::All,
                deadline: handle.now().monotonic.plus_millis(20_000),
                partitions: [ProducePartition { key: key(0), batch: keyed(round) }].into(),
            };
            handle.produce(ShardId(0), part).await.await.remove(0).result.unwrap();
            round += 1;
        }
        // Nothing of the oldest segment was read before, so that no file of it is open.
        let mut records = Box::pin(fetch(&handle, 0, Offset::ZERO, 50_000));
        let time = ListOffset {
            key: key(0),
            current_leader_epoch: None,
            position: ListPosition::Timestamp(TimestampMs(4000)),
        };
        let mut listed = Box::pin(handle.list_offsets(ShardId(0), vec![time]));
        let until = handle.now().monotonic.plus_millis(WATCHED_MS);
        while handle.now().monotonic < until {
            let waits = std::future::poll_fn(|context| {
                let records = records.as_mut().poll(context).is_pending();
                Poll::Ready((records, listed.as_mut().poll(context).is_pending()))
            });
            assert_eq!(waits.await, (true, true), "it waits for the exchange");
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        // This exchange and all that follow.
        drop(open_gate);
        let fetched = records.await.unwrap();
        let bytes = fetched.records.concat();
        let (_, first) = Batches::new(&bytes).next().unwrap().unwrap();
        // Of the first batch nothing is left: both of its keys came again.
        assert!(first.base_offset > Offset::ZERO, "{first:?}");
        let listed = listed.await.remove(0).unwrap();
        assert!(listed.is_some_and(|found| found.offset > Offset::ZERO), "{listed:?}");
    });
}
