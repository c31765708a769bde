use crate::format::wal_entry::WalEntry;
use crate::machine::input::PartitionConfig;
use crate::machine::limits::ShardLimits;
use crate::machine::testing::{Bench, batch, key};
use crate::model::{Acks, Offset};

/// A shard for which a kilobyte is a large run, with two partitions.
fn bench() -> Bench {
    let mut bench = Bench::new(ShardLimits { run_bytes_min: 1000, ..ShardLimits::default() });
    bench.open(0, 1, PartitionConfig::default());
    bench.open(1, 1, PartitionConfig::default());
    bench.job_log.clear();
    bench.written.clear();
    bench
}

/// What the commits hold that were written.
fn entries(bench: &Bench) -> Vec<String> {
    let line = |entry: &WalEntry| match entry {
        WalEntry::Batch { key, batch } => {
            format!("{} batch {}", key.partition, batch.header.base_offset)
        }
        WalEntry::Flushed { key, end_offset } => format!("{} flushed {end_offset}", key.partition),
        other => panic!("{other:?}"),
    };
    bench.written.iter().flat_map(|commit| &commit.entries).map(line).collect()
}

#[test]
fn a_large_run_goes_to_segments_and_counts_once_the_log_says_so() {
    let mut bench = bench();
    bench.holds_commits = true;
    let large = bench.send(Acks::All, 0, batch(3, 1500));
    assert_eq!(bench.job_log, ["runs 0 x1"]);
    // It is in segments, durably, and may not be read yet.
    assert_eq!(bench.views[&key(0)].end_offset(), Some(Offset(3)));
    assert_eq!((bench.outcome(large), bench.high_watermark(0)), (None, 0));
    bench.release_commits();
    assert_eq!((bench.outcome(large), bench.high_watermark(0)), (Some(vec![Ok(0)]), 3));
    assert_eq!(entries(&bench), ["0 flushed 3"]);
}

#[test]
fn small_batches_of_others_do_not_wait_for_a_run() {
    let mut bench = bench();
    bench.holds_store = true;
    let large = bench.send(Acks::All, 0, batch(1, 1500));
    let small = bench.send(Acks::All, 1, batch(1, 100));
    assert_eq!((bench.outcome(large), bench.outcome(small)), (None, Some(vec![Ok(0)])));
    bench.release_store();
    assert_eq!(bench.outcome(large), Some(vec![Ok(0)]));
    assert_eq!(entries(&bench), ["1 batch 0", "0 flushed 1"]);
}

#[test]
fn what_follows_a_run_gathers_behind_it_and_is_small_again_when_it_is() {
    let mut bench = bench();
    bench.holds_store = true;
    let first = bench.send(Acks::All, 0, batch(1, 1500));
    let second = bench.send(Acks::All, 0, batch(1, 600));
    let third = bench.send(Acks::All, 0, batch(1, 600));
    bench.work();
    assert_eq!(bench.job_log, ["runs 0 x1", "runs 0 x2"]);
    let fourth = bench.send(Acks::All, 0, batch(1, 100));
    let is_answered = |token| bench.outcome(token).is_some();
    assert_eq!([first, second, third, fourth].map(is_answered), [true, false, false, false]);
    bench.release_store();
    assert_eq!(bench.outcome(fourth), Some(vec![Ok(3)]));
    assert_eq!(entries(&bench), ["0 flushed 1", "0 flushed 3", "0 batch 3"]);
}

#[test]
fn a_run_takes_along_what_rounds_have_not_brought_to_segments() {
    let mut bench = bench();
    bench.send(Acks::All, 0, batch(1, 100));
    bench.send(Acks::All, 0, batch(1, 1500));
    assert_eq!(bench.job_log, ["runs 0 x2"]);
    // The next round has nothing left to append.
    bench.pass_millis(10_000);
    assert_eq!(bench.job_log.len(), 2, "{:?}", bench.job_log);
    assert!(bench.job_log[1].starts_with("checkpoint"), "{:?}", bench.job_log);
}

#[test]
fn a_run_that_finds_no_space_goes_through_the_log() {
    let mut bench = bench();
    bench.disk_full = true;
    let large = bench.send(Acks::All, 0, batch(1, 1500));
    let next = bench.send(Acks::All, 0, batch(1, 1500));
    assert_eq!((bench.outcome(large), bench.outcome(next)), (Some(vec![Ok(0)]), Some(vec![Ok(1)])));
    assert_eq!(entries(&bench), ["0 batch 0", "0 batch 1"]);
}

#[test]
fn runs_start_a_round_once_a_start_would_have_too_much_to_read() {
    let limits =
        ShardLimits { run_bytes_min: 1000, round_run_bytes: 4000, ..ShardLimits::default() };
    let mut bench = Bench::new(limits);
    bench.open(0, 1, PartitionConfig::default());
    bench.job_log.clear();
    for _ in 0..3 {
        bench.send(Acks::All, 0, batch(1, 1500));
    }
    assert_eq!(bench.job_log[..3], ["runs 0 x1"; 3]);
    assert!(bench.job_log[3].starts_with("checkpoint"), "{:?}", bench.job_log);
}

#[test]
fn a_stop_waits_for_runs() {
    let mut bench = bench();
    bench.holds_store = true;
    let large = bench.send(Acks::All, 0, batch(1, 1500));
    bench.act(|machine, now, out| machine.stop(now, out));
    assert_eq!(bench.stopped, 0);
    bench.release_store();
    assert_eq!((bench.outcome(large), bench.stopped), (Some(vec![Ok(0)]), 1));
}
