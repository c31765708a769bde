use crate::machine::effect::StoreReply;
use crate::machine::input::{FetchError, PartitionConfig, ProduceError};
use crate::machine::limits::ShardLimits;
use crate::machine::testing::{Bench, batch, key};
use crate::model::{Acks, Lsn, WalFileSeq};

fn small() -> Bench {
    let mut bench = Bench::new(Bench::small_wal());
    bench.open(0, 1, PartitionConfig::default());
    bench
}

#[test]
fn a_round_appends_what_is_durable_then_checkpoints() {
    let mut bench = Bench::with_partition(PartitionConfig::default());
    bench.sent(batch(2, 100)).unwrap();
    bench.holds_commits = true;
    bench.send(Acks::All, 0, batch(2, 100));
    bench.pass_millis(6000);
    assert_eq!(bench.job_log, ["open", "append 0 x1", "checkpoint 2"]);
    let checkpoint = bench.checkpoints.last().unwrap();
    assert_eq!((checkpoint.lsn, checkpoint.partitions[0].flushed_end.0), (Lsn(2), 2));
}

#[test]
fn no_checkpoint_before_every_append_is_answered() {
    let mut bench = Bench::with_partition(PartitionConfig::default());
    bench.open(1, 1, PartitionConfig::default());
    bench.send_all(Acks::All, vec![(0, batch(1, 100)), (1, batch(1, 100))]);
    bench.disk_full = true;
    bench.pass_millis(5500);
    assert!(bench.checkpoints.is_empty());
    assert!(!bench.job_log.iter().any(|job| job.starts_with("checkpoint")));
    bench.disk_full = false;
    bench.pass_millis(2000);
    let ends: Vec<_> = bench.checkpoints[0].partitions.iter().map(|p| p.flushed_end.0).collect();
    assert_eq!(ends, [1, 1]);
}

#[test]
fn full_wal_files_are_recycled_for_ever() {
    let mut bench = small();
    for offset in 0..50 {
        assert_eq!(bench.sent(batch(1, 3000)), Ok(offset));
    }
    assert!(bench.files.len() > 10);
    assert_eq!(bench.files[0], (WalFileSeq(2), None));
    assert!(bench.files[1..].iter().all(|(_, recycled)| recycled.is_some()));
}

#[test]
fn at_the_wal_bound_produces_park_in_order_and_resume() {
    let mut bench = small();
    bench.holds_store = true;
    let tokens: Vec<_> = (0..12).map(|_| bench.send(Acks::All, 0, batch(1, 3000))).collect();
    let answered = tokens.iter().filter(|token| bench.outcome(**token).is_some()).count();
    assert!((6..10).contains(&answered), "{answered}");
    bench.release_store();
    for (offset, token) in tokens.iter().enumerate() {
        assert_eq!(bench.outcome(*token), Some(vec![Ok(offset as i64)]));
    }
}

#[test]
fn a_parked_produce_times_out_with_nothing_appended() {
    let mut bench = small();
    bench.holds_store = true;
    let tokens: Vec<_> = (0..12).map(|_| bench.send(Acks::All, 0, batch(1, 3000))).collect();
    bench.pass_millis(30_001);
    assert_eq!(bench.outcome(tokens[11]), Some(vec![Err(ProduceError::TimedOut)]));
    bench.release_store();
    let acknowledged = tokens.iter().filter(|t| bench.outcome(**t).unwrap()[0].is_ok()).count();
    let end = bench.machine.info(key(0)).unwrap().log_end_offset.0;
    assert!(end < 12 && end >= acknowledged as i64);
}

#[test]
fn acks_none_is_not_settled_while_it_waits_for_room() {
    let mut bench = small();
    bench.holds_store = true;
    let tokens: Vec<_> = (0..12).map(|_| bench.send(Acks::None, 0, batch(1, 3000))).collect();
    assert_eq!(bench.outcome(tokens[0]), Some(vec![Ok(0)]));
    assert_eq!(bench.outcome(tokens[11]), None);
    bench.release_store();
    assert_eq!(bench.outcome(tokens[11]), Some(vec![Ok(11)]));
}

#[test]
fn a_full_disk_refuses_produces_at_the_bound_and_recovers() {
    let mut bench = small();
    bench.disk_full = true;
    let tokens: Vec<_> = (0..12).map(|_| bench.send(Acks::All, 0, batch(1, 3000))).collect();
    assert_eq!(bench.outcome(tokens[11]), Some(vec![Err(ProduceError::StorageFull)]));
    bench.pass_millis(5000);
    assert_eq!(bench.sent(batch(1, 3000)), Err(ProduceError::StorageFull));
    assert!(bench.fetch(0).is_ok());
    bench.disk_full = false;
    bench.pass_millis(3000);
    assert!(bench.sent(batch(1, 3000)).is_ok());
}

#[test]
fn parked_produces_are_bounded() {
    let limits = ShardLimits { parked_produces_max: 2, ..Bench::small_wal() };
    let mut bench = Bench::new(limits);
    bench.open(0, 1, PartitionConfig::default());
    bench.holds_store = true;
    let tokens: Vec<_> = (0..16).map(|_| bench.send(Acks::All, 0, batch(1, 3000))).collect();
    assert_eq!(bench.outcome(tokens[15]), Some(vec![Err(ProduceError::TimedOut)]));
}

#[test]
fn a_failed_partition_is_fenced_and_the_round_goes_on() {
    let mut bench = Bench::with_partition(PartitionConfig::default());
    bench.open(1, 1, PartitionConfig::default());
    bench.send_all(Acks::All, vec![(0, batch(1, 100)), (1, batch(1, 100))]);
    bench.holds_store = true;
    bench.pass_millis(5500);
    bench.failed.push(key(0));
    let failed = StoreReply::Failed { key: key(0), reason: "damaged".into() };
    bench.act(|machine, now, out| machine.store_done(now, failed, out));
    assert_eq!(bench.sent(batch(1, 100)), Err(ProduceError::StorageFailed));
    assert_eq!(bench.fetch(0).unwrap_err(), FetchError::StorageFailed);
    bench.jobs.retain(|job| {
        !matches!(job,
        crate::machine::effect::StoreJob::Append { key: other, .. } if *other == key(0))
    });
    bench.release_store();
    assert_eq!(bench.checkpoints.len(), 1);
    assert_eq!(bench.send(Acks::All, 1, batch(1, 100)), bench.done.last().unwrap().0);
}

#[test]
fn records_of_a_failed_partition_that_are_in_the_wal_only_are_kept_there() {
    let mut bench = Bench::with_partition(PartitionConfig::default());
    bench.open(1, 1, PartitionConfig::default());
    bench.send_all(Acks::All, vec![(0, batch(1, 100)), (1, batch(1, 100))]);
    bench.failed.push(key(0));
    let failed = StoreReply::Failed { key: key(0), reason: "damaged".into() };
    bench.act(|machine, now, out| machine.store_done(now, failed, out));
    let kept_from = bench.checkpoints.last().map_or(0, |job| job.lsn.0);
    bench.pass_millis(5500);
    assert_eq!(bench.checkpoints.last().unwrap().lsn.0, kept_from, "frees nothing");
    bench.act(|machine, now, out| machine.close_partition(now, key(0), out));
    bench.send(Acks::All, 1, batch(1, 100));
    bench.pass_millis(5500);
    assert!(bench.checkpoints.last().unwrap().lsn.0 > kept_from, "the deletion lets the WAL go on");
}

#[test]
fn stop_refuses_produces_answers_waits_and_flushes_everything() {
    let mut bench = Bench::with_partition(PartitionConfig::default());
    bench.holds_commits = true;
    let produced = bench.send(Acks::All, 0, batch(3, 100));
    let wait = bench.wait(1, &[(0, 0)], 60_000);
    bench.act(|machine, now, out| machine.stop(now, out));
    assert_eq!(bench.ready, [wait]);
    assert_eq!(bench.sent(batch(1, 100)), Err(ProduceError::Stopping));
    assert_eq!(bench.stopped, 0);
    bench.release_commits();
    assert_eq!(bench.outcome(produced), Some(vec![Ok(0)]));
    assert_eq!(bench.checkpoints.last().unwrap().partitions[0].flushed_end.0, 3);
    assert_eq!((bench.stopped, bench.machine.next_deadline()), (1, None));
}

#[test]
fn stop_does_not_wait_for_a_full_disk() {
    let mut bench = small();
    bench.disk_full = true;
    for _ in 0..12 {
        bench.send(Acks::All, 0, batch(1, 3000));
    }
    bench.act(|machine, now, out| machine.stop(now, out));
    assert_eq!(bench.stopped, 1);
    assert_eq!(bench.done.len(), 12);
}
