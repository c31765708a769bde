//! Nodes with their real storage, stopped in order and started again with other shard counts.

use std::path::Path;

use super::*;
use crate::store::SegmentStore;
use crate::store::disk::StdDisk;
use crate::store::recovery::{Gone, RecoveryInput, recover};

const PARTITIONS: i32 = 6;

fn config() -> PartitionConfig {
    PartitionConfig { segment_bytes: 128 << 10, ..Default::default() }
}

/// A node as recovery leaves it.
fn recovered_spec(data: &Path, shards: u16) -> NodeSpec {
    let partitions = (0..PARTITIONS).map(|index| (key(index), "pears".to_owned(), config()));
    let input = RecoveryInput {
        data: data.to_owned(),
        partitions: partitions.collect(),
        gone: Gone::default(),
        shards,
        accept_data_loss: false,
        wal_file_bytes: FILE_BYTES,
        now: TimestampMs(1 << 40),
    };
    let recovered = recover(&StdDisk::default(), &input).unwrap();
    let plans = (0..shards)
        .zip(recovered.wal)
        .zip(recovered.logs)
        .map(|((shard, wal), logs)| {
            let store =
                SegmentStore::new(StdDisk::default(), data.to_owned(), ShardId(shard), logs, 64);
            ShardPlan { limits: limits(), ..ShardPlan::new(wal, Box::new(store)) }
        })
        .collect();
    NodeSpec { calls_max: 8, ..NodeSpec::new(data.to_owned(), plans, recovered.partitions) }
}

/// Everything that each shard reads, which has to be the same; then `more` batches for every
/// partition from every shard. Returns the bytes of each partition.
fn read_then_produce(data: &Path, shards: u16, more: usize) -> Vec<Vec<u8>> {
    let spec = recovered_spec(data, shards);
    let reached = std::sync::Arc::new(std::sync::Barrier::new(usize::from(shards)));
    let all = run(spec, PARTITIONS, async move |handle: ShardHandle| {
        let mut read = Vec::new();
        for partition in 0..PARTITIONS {
            read.push(consume(&handle, partition).await);
        }
        // Nobody produces while somebody else still reads. The shards may not block one another, so
        // the barrier is waited for where blocking is allowed.
        let reached = std::sync::Arc::clone(&reached);
        glommio::executor().spawn_blocking(move || reached.wait().is_leader()).await;
        let value = vec![handle.id().0 as u8; 3000];
        for _ in 0..more {
            for partition in 0..PARTITIONS {
                let outcome = produce(&handle, Acks::All, partition, &value).await.await.remove(0);
                outcome.result.unwrap();
            }
        }
        read
    });
    assert!(all.iter().all(|read| *read == all[0]), "every shard reads the same");
    all.into_iter().next().unwrap()
}

#[test]
fn records_survive_stops_and_other_shard_counts() {
    let data = tempfile::tempdir().unwrap();
    let mut expected = 0;
    let mut before = vec![Vec::new(); PARTITIONS as usize];
    for (shards, more) in [(2, 40), (4, 20), (1, 30), (3, 0)] {
        let read = read_then_produce(data.path(), shards, more);
        for (read, before) in read.iter().zip(&before) {
            assert_eq!(Batches::new(read).map(Result::unwrap).count(), expected);
            assert!(read.starts_with(before), "what was read once is read again");
        }
        before = read;
        expected += usize::from(shards) * more;
    }
}
