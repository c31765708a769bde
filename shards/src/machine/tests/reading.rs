use crate::machine::input::{EpochEnd, FetchData, FetchError, FetchInput, PartitionConfig};
use crate::machine::limits::ShardLimits;
use crate::machine::testing::{Bench, batch, cached, key, wanted};
use crate::model::{Acks, LeaderEpoch, Offset};

fn bench() -> Bench {
    Bench::with_partition(PartitionConfig::default())
}

#[test]
fn a_fetch_is_served_from_memory_up_to_the_high_watermark() {
    let mut bench = bench();
    for _ in 0..3 {
        bench.sent(batch(2, 100)).unwrap();
    }
    bench.holds_commits = true;
    bench.send(Acks::All, 0, batch(2, 100));
    assert_eq!(cached(&bench.fetch(3).unwrap().data), [2, 4]);
    assert_eq!(cached(&bench.fetch(6).unwrap().data), [0i64; 0]);
    let error = FetchError::OutOfRange {
        offset: Offset(7),
        log_start: Offset(0),
        high_watermark: Offset(6),
    };
    assert_eq!(bench.fetch(7).unwrap_err(), error);
}

#[test]
fn reads_of_the_disk_rest_while_there_are_producers() {
    let mut bench = bench();
    let rest = |bench: &Bench| bench.machine.cold_rest_percent(bench.now.monotonic);
    bench.pass_millis(1000);
    assert_eq!(rest(&bench), 0);
    bench.sent(batch(2, 100)).unwrap();
    assert_eq!(rest(&bench), 300);
    bench.pass_millis(99);
    assert_eq!(rest(&bench), 300);
    // The WAL writes a last line of its own when it has fallen silent.
    bench.pass_millis(1000);
    assert_eq!(rest(&bench), 0);
}

#[test]
fn the_first_batch_is_whole_and_later_partitions_share_what_is_left() {
    let mut bench = bench();
    for partition in 1..4 {
        bench.open(partition, 1, PartitionConfig::default());
        bench.send(Acks::All, partition, batch(1, 500));
        bench.send(Acks::All, partition, batch(1, 500));
    }
    let mut fetch = |max_bytes, partition_max| {
        let partitions = (0..4).map(|p| wanted(p, 0, partition_max)).collect();
        let plans = bench.machine.fetch(&FetchInput { max_bytes, partitions });
        plans
            .iter()
            .map(|plan| cached(&plan.result.as_ref().unwrap().data).len())
            .collect::<Vec<_>>()
    };
    assert_eq!(fetch(1, 1 << 20), [0, 1, 0, 0]);
    assert_eq!(fetch(1000, 1 << 20), [0, 2, 0, 0]);
    assert_eq!(fetch(1001, 600), [0, 1, 1, 1]);
    assert_eq!(fetch(0, 0), [0, 1, 0, 0]);
}

#[test]
fn only_batches_in_segments_leave_the_cache_and_are_read_from_there() {
    let limits = ShardLimits { tail_cache_bytes: 2000, ..ShardLimits::default() };
    let mut bench = Bench::new(limits);
    bench.open(0, 1, PartitionConfig::default());
    for _ in 0..10 {
        bench.sent(batch(1, 1000)).unwrap();
    }
    assert_eq!(cached(&bench.fetch(0).unwrap().data).len(), 10);
    assert_eq!(bench.machine.cached_from(key(0), Offset(4)).len(), 6);
    bench.pass_millis(6000);
    assert!(bench.machine.cached_from(key(0), Offset(0)).is_empty());
    let FetchData::InSegments { offset, end, .. } = bench.fetch(4).unwrap().data else {
        panic!("evicted")
    };
    assert_eq!((offset.0, end.0), (4, 9));
    assert_eq!(cached(&bench.fetch(9).unwrap().data), [9]);
}

#[test]
fn the_cache_of_an_idle_shard_goes_and_leaves_no_timer() {
    let mut bench = bench();
    bench.pass_millis(10_000);
    let retention_alone = bench.machine.next_deadline();
    bench.sent(batch(1, 1000)).unwrap();
    bench.pass_millis(ShardLimits::default().tail_cache_idle_ms - 1);
    assert_eq!(cached(&bench.fetch(0).unwrap().data), [0]);
    bench.sent(batch(1, 1000)).unwrap();
    bench.pass_millis(ShardLimits::default().tail_cache_idle_ms - 1);
    assert_eq!(cached(&bench.fetch(0).unwrap().data), [0, 1], "the second kept the first");
    bench.pass_millis(1);
    assert_eq!(bench.machine.cached_bytes(), 0);
    assert!(matches!(bench.fetch(0).unwrap().data, FetchData::InSegments { .. }));
    assert_eq!(bench.machine.next_deadline(), retention_alone);
}

#[test]
fn an_idle_cache_keeps_what_no_segment_has() {
    let mut bench = bench();
    bench.holds_store = true;
    bench.sent(batch(1, 1000)).unwrap();
    bench.pass_millis(2 * ShardLimits::default().tail_cache_idle_ms);
    assert_eq!(cached(&bench.fetch(0).unwrap().data), [0]);
    bench.holds_store = false;
    while !bench.jobs.is_empty() {
        bench.work();
    }
    bench.pass_millis(ShardLimits::default().tail_cache_idle_ms);
    assert_eq!(bench.machine.cached_bytes(), 0);
}

#[test]
fn clients_with_another_epoch_are_fenced() {
    let mut bench = Bench::new(ShardLimits::default());
    bench.open(0, 5, PartitionConfig::default());
    let check = |epoch| bench.machine.check_leads(key(0), Some(LeaderEpoch(epoch)));
    let (asked, current) = (LeaderEpoch(4), LeaderEpoch(5));
    assert_eq!(check(4), Err(FetchError::FencedEpoch { asked, current }));
    assert_eq!(check(5), Ok(()));
    let asked = LeaderEpoch(6);
    assert_eq!(check(6), Err(FetchError::UnknownEpoch { asked, current }));
}

#[test]
fn a_history_that_parts_from_ours_is_told_where() {
    let mut bench = bench();
    bench.sent(batch(5, 100)).unwrap();
    bench.open(0, 4, PartitionConfig::default());
    bench.sent(batch(5, 100)).unwrap();
    let mut fetch = |offset, epoch| {
        let mut partition = wanted(0, offset, 1000);
        partition.last_fetched_epoch = Some(LeaderEpoch(epoch));
        let input = FetchInput { max_bytes: 1000, partitions: vec![partition] };
        bench.machine.fetch(&input).pop().unwrap().result.unwrap().diverging
    };
    let end = |epoch, end| Some(EpochEnd { epoch: LeaderEpoch(epoch), end_offset: Offset(end) });
    assert_eq!(fetch(5, 1), None);
    assert_eq!(fetch(7, 4), None);
    assert_eq!(fetch(7, 1), end(1, 5));
    assert_eq!(fetch(7, 3), end(1, 5));
}

#[test]
fn a_wait_is_answered_when_enough_became_readable_and_not_before() {
    let mut bench = bench();
    bench.open(1, 1, PartitionConfig::default());
    bench.sent(batch(1, 100)).unwrap();
    let wait = bench.wait(350, &[(0, 0), (1, 0)], 60_000);
    bench.send(Acks::All, 1, batch(1, 100));
    bench.holds_commits = true;
    bench.send(Acks::All, 0, batch(1, 200));
    assert!(bench.ready.is_empty());
    bench.release_commits();
    assert_eq!(bench.ready, [wait]);
    bench.send(Acks::All, 0, batch(1, 900));
    assert_eq!(bench.ready.len(), 1);
}

#[test]
fn a_wait_that_has_enough_or_can_never_have_is_answered_at_once() {
    let mut bench = bench();
    bench.sent(batch(1, 100)).unwrap();
    let enough = bench.wait(100, &[(0, 0)], 60_000);
    let unknown = bench.wait(100, &[(9, 0)], 60_000);
    let beyond = bench.wait(100, &[(0, 5)], 60_000);
    assert_eq!(bench.ready, [enough, unknown, beyond]);
}

#[test]
fn waits_end_at_their_deadlines_and_cancelled_ones_never() {
    let mut bench = bench();
    let late = bench.wait(1, &[(0, 0)], 500);
    let early = bench.wait(1, &[(0, 0)], 100);
    let cancelled = bench.wait(1, &[(0, 0)], 50);
    bench.machine.cancel_wait(cancelled);
    bench.machine.check_invariants();
    bench.pass_millis(99);
    assert!(bench.ready.is_empty());
    bench.pass_millis(1);
    assert_eq!(bench.ready, [early]);
    bench.pass_millis(1000);
    assert_eq!(bench.ready, [early, late]);
}

#[test]
fn waits_beyond_the_bound_are_answered_at_once() {
    let limits = ShardLimits { fetch_waits_max: 1, ..ShardLimits::default() };
    let mut bench = Bench::new(limits);
    bench.open(0, 1, PartitionConfig::default());
    bench.wait(1, &[(0, 0)], 500);
    let second = bench.wait(1, &[(0, 0)], 500);
    assert_eq!(bench.ready, [second]);
}
