use crate::machine::effect::StoreReply;
use crate::machine::input::{FetchError, PartitionConfig, ProduceError};
use crate::machine::testing::{Bench, batch, key};
use crate::model::{Acks, Offset};

fn bench() -> Bench {
    Bench::with_partition(PartitionConfig::default())
}

#[test]
fn deleted_records_are_gone_once_the_wal_says_so() {
    let mut bench = bench();
    bench.sent(batch(10, 100)).unwrap();
    bench.holds_commits = true;
    let token = bench.delete_records(Some(4)).unwrap();
    assert_eq!(bench.machine.info(key(0)).unwrap().log_start_offset, Offset(0));
    assert!(bench.deleted.is_empty());
    bench.release_commits();
    assert_eq!(bench.deleted, [(token, Offset(4))]);
    assert!(matches!(bench.fetch(3), Err(FetchError::OutOfRange { .. })));
    let all = bench.delete_records(None).unwrap();
    let lower = bench.delete_records(Some(2)).unwrap();
    assert_eq!(bench.deleted[1..], [(all, Offset(10)), (lower, Offset(10))]);
    assert!(matches!(bench.delete_records(Some(11)), Err(FetchError::OutOfRange { .. })));
}

#[test]
fn a_closed_partition_answers_its_waiters_and_its_files_go_after_the_wal_entry() {
    let mut bench = bench();
    bench.holds_commits = true;
    let produced = bench.send(Acks::All, 0, batch(1, 100));
    let wait = bench.wait(1, &[(0, 0)], 60_000);
    bench.act(|machine, now, out| machine.close_partition(now, key(0), out));
    let unknown = ProduceError::UnknownPartition(key(0));
    assert_eq!(bench.outcome(produced), Some(vec![Err(unknown.clone())]));
    assert_eq!(bench.ready, [wait]);
    assert_eq!(bench.sent(batch(1, 100)), Err(unknown));
    assert_eq!(bench.job_log, ["open"]);
    bench.release_commits();
    assert_eq!(bench.job_log, ["open", "remove"]);
}

#[test]
fn what_could_not_be_removed_is_removed_later_at_a_pace_that_slows_down() {
    let mut bench = bench();
    let attempts =
        |bench: &Bench| bench.job_log.iter().filter(|job| *job == "remove leftovers").count();
    let told = |bench: &mut Bench, count| {
        let reply = StoreReply::Leftovers { count };
        bench.act(|machine, now, out| machine.store_done(now, reply, out));
    };
    for (pause_ms, expected) in [(1000, 1), (2000, 2), (4000, 3)] {
        told(&mut bench, 2);
        told(&mut bench, 3);
        bench.pass_millis(pause_ms - 1);
        assert_eq!(attempts(&bench), expected - 1, "not before {pause_ms} ms");
        bench.pass_millis(1);
        assert_eq!(attempts(&bench), expected);
    }
    told(&mut bench, 0);
    bench.pass_millis(600_000);
    assert_eq!(attempts(&bench), 3, "there is nothing left");
}

#[test]
fn closing_in_the_middle_of_a_round_does_not_hold_it() {
    let mut bench = bench();
    bench.open(1, 1, PartitionConfig::default());
    bench.send_all(Acks::All, vec![(0, batch(1, 100)), (1, batch(1, 100))]);
    bench.holds_store = true;
    bench.pass_millis(5500);
    bench.act(|machine, now, out| machine.close_partition(now, key(0), out));
    bench.release_store();
    assert_eq!(bench.checkpoints.len(), 1);
}

fn rolled(config: PartitionConfig) -> Bench {
    let mut bench = Bench::with_partition(config);
    for _ in 0..3 {
        bench.sent(batch(1, 1000)).unwrap();
        bench.pass_millis(6000);
        let view = bench.views.get_mut(&key(0)).unwrap();
        let active = view.active.take().unwrap();
        view.sealed = view.sealed.iter().copied().chain([active]).collect();
    }
    bench.sent(batch(1, 1000)).unwrap();
    bench.pass_millis(6000);
    bench
}

#[test]
fn retention_by_size_removes_whole_segments_through_the_wal() {
    let config = PartitionConfig { retention_bytes: Some(2500), ..PartitionConfig::default() };
    let mut bench = rolled(config);
    bench.holds_commits = true;
    bench.pass_millis(301_000);
    assert!(!bench.job_log.iter().any(|job| job.starts_with("delete")));
    bench.release_commits();
    assert_eq!(bench.machine.info(key(0)).unwrap().log_start_offset, Offset(1));
    assert_eq!(bench.job_log.iter().filter(|job| *job == "delete 1").count(), 1);
    assert_eq!(bench.views[&key(0)].sealed.len(), 2);
}

#[test]
fn retention_by_time_rolls_a_wholly_expired_active_segment_first() {
    let config = PartitionConfig { retention_ms: Some(3_600_000), ..PartitionConfig::default() };
    let mut bench = rolled(config);
    bench.pass_millis(4_000_000);
    let jobs = bench.job_log.iter().filter(|job| *job == "roll" || job.starts_with("delete"));
    assert_eq!(jobs.collect::<Vec<_>>(), ["roll", "delete 4"]);
    assert_eq!(bench.machine.info(key(0)).unwrap().log_start_offset, Offset(4));
    assert_eq!(bench.sent(batch(1, 100)), Ok(4));
}

#[test]
fn without_cleanup_delete_nothing_expires() {
    let config = PartitionConfig {
        retention_ms: Some(1),
        cleanup_delete: false,
        ..PartitionConfig::default()
    };
    let mut bench = rolled(config);
    bench.pass_millis(4_000_000);
    assert_eq!(bench.machine.info(key(0)).unwrap().log_start_offset, Offset(0));
}

#[test]
fn a_checkpoint_is_asked_for_once_though_an_append_of_its_round_was_refused() {
    let mut bench = bench();
    bench.sent(batch(1, 100)).unwrap();
    bench.disk_full = true;
    bench.pass_millis(5100);
    bench.disk_full = false;
    bench.holds_store = true;
    bench.act(|machine, now, out| machine.close_partition(now, key(0), out));
    bench.pass_millis(2000);
    let asked = bench.job_log.iter().filter(|job| job.starts_with("checkpoint")).count();
    assert_eq!(asked, 1);
}

#[test]
fn a_partition_that_comes_back_begins_when_the_files_of_the_former_are_gone() {
    let mut bench = rolled(PartitionConfig::default());
    bench.holds_commits = true;
    bench.act(|machine, now, out| machine.close_partition(now, key(0), out));
    bench.job_log.clear();
    bench.open(0, 9, PartitionConfig::default());
    assert!(bench.job_log.is_empty(), "the log does not say yet that the former is closed");
    bench.release_commits();
    assert_eq!(bench.job_log[..2], ["remove", "open"]);
    let info = bench.machine.info(key(0)).unwrap();
    assert_eq!((info.log_start_offset, info.log_end_offset), (Offset(0), Offset(0)));
    assert_eq!(bench.sent(batch(1, 100)), Ok(0));
}
