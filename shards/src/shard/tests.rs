//! Whole nodes in a temporary directory, with storage that only knows how to append.

mod exchanges;
mod restart;
mod storage;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::*;
use crate::format::record_batch::{Batches, ProducedBatch};
use crate::format::sample_batch::SampleBatch;
use crate::io::wal_files::{Wanted, prepare};
use crate::io::wal_writer::{WriteFault, WriteHook};
use crate::machine::effect::WalStart;
use crate::machine::input::{
    FetchError, FetchInput, FetchPartition, PartitionConfig, PartitionSpec, ProduceError,
    ProducePartition,
};
use crate::machine::limits::ShardLimits;
use crate::model::{
    Acks, LeaderEpoch, Lsn, Offset, PartitionIndex, ReplicaKey, ShardId, TimestampMs, TopicId,
    WalFileSeq,
};
use storage::AppendOnly;

const FILE_BYTES: u64 = 1 << 20;
const GRACE: Duration = Duration::from_secs(20);

fn limits() -> ShardLimits {
    ShardLimits {
        wal_file_bytes: FILE_BYTES,
        wal_files_max: 4,
        commit_bytes_max: 256 << 10,
        round_bytes: 256 << 10,
        tail_cache_bytes: 64 << 10,
        ..ShardLimits::default()
    }
}

/// A spec of `shards` unpinned shards with empty WALs.
fn spec(data: &Path, shards: u16) -> NodeSpec {
    let plan = |shard: u16| {
        let wal = data.join("shards").join(shard.to_string()).join("wal");
        std::fs::create_dir_all(&wal).unwrap();
        let first = Wanted { seq: WalFileSeq(1), recycle: None };
        prepare(ShardId(shard), &wal, FILE_BYTES, first).unwrap();
        let start = WalStart::empty(Lsn(1), WalFileSeq(1), FILE_BYTES);
        ShardPlan { limits: limits(), ..ShardPlan::new(start, Box::new(AppendOnly::new(data))) }
    };
    NodeSpec {
        calls_max: 8,
        ..NodeSpec::new(data.to_owned(), (0..shards).map(plan).collect(), Vec::new())
    }
}

fn key(partition: i32) -> ReplicaKey {
    ReplicaKey { topic_id: TopicId([9; 16]), partition: PartitionIndex(partition) }
}

fn open(handle: &ShardHandle, partition: i32) {
    let key = key(partition);
    if handle.shard_of(&key) == handle.id() {
        handle.open_partition(PartitionSpec {
            key,
            topic_name: "pears".to_owned(),
            leader_epoch: LeaderEpoch(1),
            config: PartitionConfig { segment_bytes: 128 << 10, ..Default::default() },
        });
    }
}

fn batch(value: &[u8]) -> ProducedBatch {
    let sample = SampleBatch { value, timestamp: TimestampMs(5000), ..Default::default() };
    ProducedBatch::check(sample.encode()).unwrap()
}

/// A test that runs on every shard of a node. Control events open partitions.
fn run<F, M, T>(spec: NodeSpec, partitions: i32, test: F) -> Vec<T>
where
    F: FnOnce(ShardHandle) -> M + Clone + Send + 'static,
    M: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (results, outcome): (Sender<T>, Receiver<T>) = unbounded();
    let shards = spec.shards.len();
    let node = start(spec, move |handle: ShardHandle| {
        let opening = handle.clone();
        let main = async move {
            for partition in 0..partitions {
                // Every shard has opened its own before it says that it did.
                while handle
                    .partition_infos(handle.shard_of(&key(partition)), vec![key(partition)])
                    .await
                    == [None]
                {
                    glommio::executor().yield_task_queue_now().await;
                }
            }
            results.send(test(handle.clone()).await).unwrap();
            handle.stopping().await;
        };
        (move |partition| open(&opening, partition), main)
    })
    .unwrap();
    for sender in node.control() {
        for partition in 0..partitions {
            sender.send(partition).unwrap();
        }
    }
    let results = (0..shards).map(|_| outcome.recv().unwrap()).collect();
    node.stop(GRACE, &mut |_| {});
    results
}

async fn produce(handle: &ShardHandle, acks: Acks, partition: i32, value: &[u8]) -> PendingProduce {
    let part = ProduceRequestPart {
        acks,
        deadline: handle.now().monotonic.plus_millis(20_000),
        partitions: [ProducePartition { key: key(partition), batch: batch(value) }].into(),
    };
    handle.produce(handle.shard_of(&key(partition)), part).await
}

async fn fetch(
    handle: &ShardHandle,
    partition: i32,
    offset: Offset,
    max_bytes: usize,
) -> Result<Fetched, FetchError> {
    let wanted = FetchPartition {
        key: key(partition),
        offset,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        max_bytes,
    };
    let input = FetchInput { max_bytes, partitions: vec![wanted] };
    let mut fetched = handle.fetch(handle.shard_of(&key(partition)), input).await;
    assert_eq!(fetched.len(), 1);
    fetched.remove(0).result
}

/// Everything readable of a partition: bytes as a consumer gets them.
async fn consume(handle: &ShardHandle, partition: i32) -> Vec<u8> {
    let mut all = Vec::new();
    let mut offset = Offset::ZERO;
    loop {
        let fetched = fetch(handle, partition, offset, 50_000).await.unwrap();
        if fetched.bytes == 0 {
            assert_eq!(offset, fetched.high_watermark);
            return all;
        }
        let bytes = fetched.records.concat();
        assert_eq!(bytes.len(), fetched.bytes);
        for found in Batches::new(&bytes) {
            let (_, header) = found.unwrap();
            assert_eq!(header.base_offset, offset, "no gap, nothing twice");
            offset = header.end_offset();
        }
        all.extend(bytes);
    }
}

fn every_shard_to_every_partition(shards: u16) {
    const ROUNDS: usize = 60;
    let data = tempfile::tempdir().unwrap();
    let partitions = 2 * i32::from(shards);
    let reports = run(spec(data.path(), shards), partitions, async move |handle: ShardHandle| {
        let value = vec![handle.id().0 as u8; 4000];
        let mut own = vec![Vec::new(); partitions as usize];
        for _ in 0..ROUNDS {
            let mut pending = Vec::new();
            for partition in 0..partitions {
                pending.push(produce(&handle, Acks::All, partition, &value).await);
            }
            for (partition, pending) in pending.into_iter().enumerate() {
                let outcome = pending.await.remove(0);
                own[partition].push(outcome.result.unwrap().base_offset);
            }
        }
        for (partition, offsets) in own.iter().enumerate() {
            assert!(offsets.is_sorted(), "appended in the order of the calls");
            let all = consume(&handle, partition as i32).await;
            for offset in offsets {
                let (at, header) = Batches::new(&all)
                    .map(Result::unwrap)
                    .find(|(_, header)| header.base_offset == *offset)
                    .unwrap();
                let bytes = &all[at..at + header.total_bytes];
                assert!(bytes.windows(100).any(|window| window == &value[..100]));
            }
        }
        handle.report(handle.id()).await
    });
    let produced = u64::from(shards) * ROUNDS as u64 * partitions as u64;
    assert!(reports.iter().all(|report| report.commits > 0));
    assert!(reports.iter().any(|report| report.reads.hot + report.reads.cold > 0));
    // The orderly stop brings everything to segments.
    let mut stored = 0;
    for partition in 0..partitions {
        let directory = data.path().join("topics").join(format!("pears-{partition}"));
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let content = std::fs::read(path).unwrap();
                stored += Batches::new(&content).map(Result::unwrap).count() as u64;
            }
        }
    }
    assert_eq!(stored, produced);
}

#[test]
fn one_shard_serves_itself() {
    every_shard_to_every_partition(1);
}

#[test]
fn two_shards_serve_one_another() {
    every_shard_to_every_partition(2);
}

#[test]
fn four_shards_serve_one_another() {
    every_shard_to_every_partition(4);
}

#[test]
fn nothing_is_answered_before_its_commit_is_on_the_disk() {
    let data = tempfile::tempdir().unwrap();
    let mut spec = spec(data.path(), 1);
    let delay = Duration::from_millis(30);
    spec.write_hook = Some(WriteHook(Arc::new(move |_, _| WriteFault::Delay(delay))));
    let results = run(spec, 0, async move |handle: ShardHandle| {
        open(&handle, 0);
        let begun = handle.now().monotonic;
        let accepted = produce(&handle, Acks::None, 0, b"x").await.await;
        let outcomes = produce(&handle, Acks::Leader, 0, b"y").await.await;
        let took = handle.now().monotonic.since(begun);
        assert!(u128::from(took) >= delay.as_micros(), "{took} us");
        assert_eq!(accepted[0].result.as_ref().unwrap().base_offset, Offset(0));
        outcomes.into_iter().map(|outcome| outcome.result.unwrap().base_offset).collect::<Vec<_>>()
    });
    assert_eq!(results, [[Offset(1)]]);
}

#[test]
fn waiting_fetch_is_answered_by_the_next_record_and_by_its_deadline() {
    let data = tempfile::tempdir().unwrap();
    run(spec(data.path(), 2), 2, async |handle: ShardHandle| {
        for partition in 0..2 {
            let shard = handle.shard_of(&key(partition));
            let end = fetch(&handle, partition, Offset::ZERO, 1).await.unwrap().high_watermark;
            let soon = handle.now().monotonic.plus_millis(5);
            handle.wait_fetch(shard, vec![(key(partition), end)], usize::MAX, soon).await;
            assert!(handle.now().monotonic >= soon);

            let late = handle.now().monotonic.plus_millis(600_000);
            let waits = handle.clone();
            let wait = glommio::spawn_local(async move {
                waits.wait_fetch(shard, vec![(key(partition), end)], 1, late).await;
            });
            produce(&handle, Acks::Leader, partition, b"wake up").await.await;
            wait.await;
        }
    });
}

#[test]
fn dropped_wait_leaves_nothing_parked_on_either_shard() {
    let data = tempfile::tempdir().unwrap();
    run(spec(data.path(), 2), 2, async |handle: ShardHandle| {
        for partition in 0..2 {
            let shard = handle.shard_of(&key(partition));
            let late = handle.now().monotonic.plus_millis(600_000);
            // More than the calls a pair of shards may have under way: places must come back.
            for _ in 0..50 {
                let wait =
                    handle.wait_fetch(shard, vec![(key(partition), Offset::ZERO)], 1 << 30, late);
                let mut wait = Box::pin(wait);
                let pending = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(wait.as_mut().poll(context).is_pending())
                });
                assert!(pending.await);
                drop(wait);
                handle.partition_infos(shard, vec![key(partition)]).await;
            }
        }
        let others = ShardId(1 - handle.id().0);
        while handle.report(others).await.parked + handle.report(handle.id()).await.parked > 0 {
            glommio::executor().yield_task_queue_now().await;
        }
    });
}

#[test]
fn unknown_partition_is_an_outcome() {
    let data = tempfile::tempdir().unwrap();
    run(spec(data.path(), 2), 2, async |handle: ShardHandle| {
        for partition in 7..9 {
            let outcome = produce(&handle, Acks::All, partition, b"x").await.await.remove(0);
            assert_eq!(outcome.result, Err(ProduceError::UnknownPartition(key(partition))));
            let fetched = fetch(&handle, partition, Offset::ZERO, 100).await;
            assert_eq!(fetched.unwrap_err(), FetchError::UnknownPartition(key(partition)));
        }
    });
}

#[test]
fn offsets_are_found_by_end_and_by_time_in_segments_and_memory() {
    let data = tempfile::tempdir().unwrap();
    run(spec(data.path(), 1), 1, async |handle: ShardHandle| {
        let value = vec![1; 4000];
        let mut last = Offset::ZERO;
        for _ in 0..120 {
            let outcome = produce(&handle, Acks::All, 0, &value).await.await.remove(0);
            last = outcome.result.unwrap().base_offset;
        }
        let ask = |position| ListOffset { key: key(0), current_leader_epoch: None, position };
        let questions = vec![
            ask(ListPosition::Earliest),
            ask(ListPosition::Latest),
            ask(ListPosition::Timestamp(TimestampMs(4000))),
            ask(ListPosition::Timestamp(TimestampMs(5001))),
            ask(ListPosition::MaxTimestamp),
        ];
        let listed = handle.list_offsets(ShardId(0), questions).await;
        let offsets: Vec<_> =
            listed.into_iter().map(|listed| listed.unwrap().map(|listed| listed.offset)).collect();
        let end = Some(last.plus(1));
        let start = Some(Offset::ZERO);
        assert_eq!(offsets, [start, end, start, None, start]);
        assert_eq!(handle.delete_records(ShardId(0), key(0), None).await, Ok(last.plus(1)));
        let gone = fetch(&handle, 0, Offset::ZERO, 100).await.unwrap_err();
        assert!(matches!(gone, FetchError::OutOfRange { .. }), "{gone:?}");
    });
}

#[test]
fn what_the_control_thread_has_sent_is_there_for_who_takes_it_before_the_shard_hears_of_it() {
    let data = tempfile::tempdir().unwrap();
    let (results, outcome) = unbounded();
    let (stands, still) = unbounded();
    let (sent, waits) = unbounded();
    let node = start(spec(data.path(), 1), move |handle: ShardHandle| {
        let opening = handle.clone();
        let main = async move {
            // The thread stands still, so nothing but the call below can have taken the event.
            stands.send(()).unwrap();
            waits.recv().unwrap();
            let before = handle.has_partition(key(0));
            handle.take_events();
            results.send((before, handle.has_partition(key(0)))).unwrap();
            handle.stopping().await;
        };
        (move |partition| open(&opening, partition), main)
    })
    .unwrap();
    still.recv().unwrap();
    node.control()[0].send(0).unwrap();
    sent.send(()).unwrap();
    assert_eq!(outcome.recv().unwrap(), (false, true));
    node.stop(GRACE, &mut |_| {});
}

#[test]
fn missing_wal_file_is_an_error_of_the_start() {
    let data = tempfile::tempdir().unwrap();
    let mut spec = spec(data.path(), 2);
    spec.shards[1].wal.file = WalFileSeq(7);
    let error = start(spec, |_: ShardHandle| (|(): ()| {}, async {})).unwrap_err();
    assert!(error.to_string().contains("shard 1 does not start"), "{error}");
}
