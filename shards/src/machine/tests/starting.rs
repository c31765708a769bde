//! A shard whose WAL goes on from the process before.

use crate::machine::effect::WalStart;
use crate::machine::input::PartitionConfig;
use crate::machine::limits::ShardLimits;
use crate::machine::shard::ShardMachine;
use crate::machine::testing::{Bench, batch, key};
use crate::model::{Lsn, ShardId, WalFileSeq};

const FILE_BYTES: u64 = 16 << 10;

/// Commits 4 to 9 are in segments and no checkpoint covers them; partitions 0 and 1 were recovered.
fn gone_on(uncovered_bytes: u64) -> Bench {
    let limits = ShardLimits { wal_files_max: 3, ..Bench::small_wal() };
    let mut bench = Bench::new(limits);
    let start = WalStart {
        position: 4 << 10,
        checkpointed: Lsn(3),
        uncovered_bytes,
        full: vec![(WalFileSeq(5), Lsn(7))],
        free: vec![WalFileSeq(4), WalFileSeq(7)],
        ..WalStart::empty(Lsn(10), WalFileSeq(6), FILE_BYTES)
    };
    let recovered = [key(0), key(1)].into();
    bench.machine = ShardMachine::start(ShardId(0), limits, start, recovered);
    bench
}

#[test]
fn commits_go_on_behind_the_last_and_free_files_are_recycled() {
    let mut bench = gone_on(20_000);
    bench.open(0, 1, PartitionConfig::default());
    let first = &bench.written[0];
    assert_eq!((first.lsn, first.file, first.position), (Lsn(10), WalFileSeq(6), 4 << 10));
    assert_eq!(first.durable, Lsn(9));
    assert_eq!(bench.files, [(WalFileSeq(8), Some(WalFileSeq(4)))]);
}

#[test]
fn no_round_begins_before_every_recovered_partition_is_open() {
    let mut bench = gone_on(u64::MAX / 2);
    bench.open(0, 1, PartitionConfig::default());
    bench.pass_millis(60_000);
    assert!(bench.checkpoints.is_empty(), "a checkpoint would not speak of partition 1");
    bench.open(1, 1, PartitionConfig::default());
    let checkpoint = bench.checkpoints.first().expect("a round was due");
    assert_eq!(checkpoint.partitions.len(), 2);
    assert!(checkpoint.lsn >= Lsn(9));
}

#[test]
fn a_recovered_partition_that_is_deleted_first_is_not_waited_for() {
    let mut bench = gone_on(u64::MAX / 2);
    bench.open(0, 1, PartitionConfig::default());
    bench.act(|machine, now, out| machine.close_partition(now, key(1), out));
    bench.pass_millis(10);
    assert_eq!(bench.checkpoints.first().map(|job| job.partitions.len()), Some(1));
}

#[test]
fn what_no_checkpoint_covers_is_checkpointed_by_its_age_without_new_records() {
    let mut bench = gone_on(4096);
    bench.open(0, 1, PartitionConfig::default());
    bench.open(1, 1, PartitionConfig::default());
    bench.pass_millis(6000);
    assert_eq!(bench.checkpoints.len(), 1);
    // The file that was kept is free now.
    for _ in 0..20 {
        bench.sent(batch(1, 3000)).unwrap();
    }
    assert!(bench.files.iter().any(|(_, recycled)| *recycled == Some(WalFileSeq(5))));
}

#[test]
fn a_stop_before_all_is_open_leaves_the_wal_as_it_is() {
    let mut bench = gone_on(20_000);
    bench.open(0, 1, PartitionConfig::default());
    bench.act(|machine, now, out| machine.stop(now, out));
    assert_eq!(bench.stopped, 1);
    assert!(bench.checkpoints.is_empty());
}

#[test]
fn an_orderly_stop_checkpoints_what_recovery_left() {
    let mut bench = gone_on(20_000);
    bench.open(0, 1, PartitionConfig::default());
    bench.open(1, 1, PartitionConfig::default());
    bench.act(|machine, now, out| machine.stop(now, out));
    assert_eq!(bench.stopped, 1);
    assert!(bench.checkpoints.last().is_some_and(|job| job.lsn >= Lsn(9)));
}
