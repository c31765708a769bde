use crate::format::wal_entry::WalEntry;
use crate::machine::input::{PartitionConfig, ProduceError};
use crate::machine::testing::{Bench, WALL, batch, key};
use crate::model::{Acks, Lsn, TimestampMs};

fn bench() -> Bench {
    Bench::with_partition(PartitionConfig::default())
}

#[test]
fn nothing_is_acknowledged_or_readable_before_its_commit_is_durable() {
    let mut bench = bench();
    bench.holds_commits = true;
    let leader = bench.send(Acks::Leader, 0, batch(3, 100));
    let all = bench.send(Acks::All, 0, batch(2, 100));
    assert_eq!((bench.outcome(leader), bench.outcome(all)), (None, None));
    assert_eq!(bench.high_watermark(0), 0);
    bench.release_commits();
    assert_eq!(bench.outcome(leader), Some(vec![Ok(0)]));
    assert_eq!(bench.outcome(all), Some(vec![Ok(3)]));
    assert_eq!(bench.high_watermark(0), 5);
}

#[test]
fn commits_written_out_of_order_count_in_lsn_order() {
    let mut bench = bench();
    bench.holds_commits = true;
    let first = bench.send(Acks::All, 0, batch(1, 100));
    let second = bench.send(Acks::All, 0, batch(1, 100));
    assert_eq!(bench.commits.len(), 2);
    bench.write(1);
    assert_eq!((bench.outcome(first), bench.outcome(second)), (None, None));
    bench.write(0);
    assert_eq!(bench.done.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [first, second]);
}

#[test]
fn two_commits_are_in_flight_and_the_rest_gathers() {
    let mut bench = bench();
    bench.holds_commits = true;
    for _ in 0..6 {
        bench.send(Acks::All, 0, batch(1, 100));
    }
    assert_eq!(bench.commits.len(), 2);
    bench.write(0);
    let sizes: Vec<_> = bench.commits.iter().map(|commit| commit.entries.len()).collect();
    assert_eq!(sizes, [1, 4]);
    // The second was built before the first was durable, the third after.
    assert_eq!(bench.commits[0].durable.0 + 2, bench.commits[0].lsn.0);
    assert_eq!(bench.commits[1].durable.0 + 2, bench.commits[1].lsn.0);
}

#[test]
fn a_request_is_answered_once_when_all_its_partitions_are_decided() {
    let mut bench = bench();
    bench.open(1, 1, PartitionConfig::default());
    bench.holds_commits = true;
    let batches = vec![(0, batch(1, 100)), (7, batch(1, 100)), (1, batch(1, 100))];
    let token = bench.send_all(Acks::All, batches);
    assert_eq!(bench.outcome(token), None);
    bench.release_commits();
    let unknown = Err(ProduceError::UnknownPartition(key(7)));
    assert_eq!(bench.outcome(token), Some(vec![Ok(0), unknown, Ok(0)]));
}

#[test]
fn acks_none_is_settled_when_it_is_appended() {
    let mut bench = bench();
    bench.holds_commits = true;
    let appended = bench.send(Acks::None, 0, batch(2, 100));
    let unknown = bench.send(Acks::None, 9, batch(2, 100));
    assert_eq!(bench.outcome(appended), Some(vec![Ok(0)]));
    assert_eq!(bench.outcome(unknown), Some(vec![Err(ProduceError::UnknownPartition(key(9)))]));
    assert_eq!(bench.high_watermark(0), 0);
    bench.release_commits();
    assert_eq!(bench.high_watermark(0), 2);
}

#[test]
fn a_request_that_times_out_is_answered_once_and_its_batch_may_count_later() {
    let mut bench = bench();
    bench.holds_commits = true;
    let token = bench.send(Acks::All, 0, batch(1, 100));
    bench.pass_millis(30_001);
    assert_eq!(bench.outcome(token), Some(vec![Err(ProduceError::TimedOut)]));
    bench.release_commits();
    assert_eq!(bench.high_watermark(0), 1);
    assert_eq!(bench.done.len(), 1);
}

#[test]
fn flush_messages_lets_that_many_records_count_before_they_are_durable() {
    let config = PartitionConfig { flush_messages: 10, ..PartitionConfig::default() };
    let mut bench = Bench::with_partition(config);
    bench.holds_commits = true;
    let early = bench.send(Acks::Leader, 0, batch(9, 100));
    assert_eq!(bench.outcome(early), Some(vec![Ok(0)]));
    assert_eq!(bench.high_watermark(0), 9);
    let late = bench.send(Acks::All, 0, batch(1, 100));
    assert_eq!(bench.outcome(late), None);
    bench.release_commits();
    assert_eq!(bench.outcome(late), Some(vec![Ok(9)]));
}

#[test]
fn too_few_in_sync_replicas_refuse_acks_all_only() {
    let config = PartitionConfig { min_insync_replicas: 2, ..PartitionConfig::default() };
    let mut bench = Bench::with_partition(config);
    let error = ProduceError::NotEnoughReplicas { in_sync: 1, required: 2 };
    assert_eq!(bench.sent(batch(1, 100)), Err(error));
    let token = bench.send(Acks::Leader, 0, batch(1, 100));
    assert_eq!(bench.outcome(token), Some(vec![Ok(0)]));
}

#[test]
fn batches_outside_the_topics_limits_are_refused_and_take_no_offset() {
    let config = PartitionConfig {
        max_message_bytes: 200,
        timestamp_before_max_ms: Some(1000),
        timestamp_after_max_ms: Some(1000),
        ..PartitionConfig::default()
    };
    let mut bench = Bench::with_partition(config);
    let large = Err(ProduceError::TooLarge { bytes: 201, limit: 200 });
    assert_eq!(bench.sent(batch(1, 201)), large);
    for (offset_ms, refused) in [(-1001, true), (1001, true), (-1000, false), (1000, false)] {
        let mut dated = batch(1, 100);
        let timestamp = TimestampMs(WALL.0 + offset_ms);
        (dated.header.base_timestamp, dated.header.max_timestamp) = (timestamp, timestamp);
        let error = Err(ProduceError::TimestampOutOfWindow { timestamp });
        assert_eq!(bench.sent(dated) == error, refused, "{offset_ms}");
    }
    for (attributes, error) in
        [(0x10, ProduceError::Transactional), (0x20, ProduceError::ControlBatch)]
    {
        let mut marked = batch(1, 100);
        marked.header.attributes = attributes;
        assert_eq!(bench.sent(marked), Err(error));
    }
    assert_eq!(bench.high_watermark(0), 2);
}

#[test]
fn log_append_time_stamps_the_batch_and_tells_the_producer() {
    let config = PartitionConfig { log_append_time: true, ..PartitionConfig::default() };
    let mut bench = Bench::with_partition(config);
    let mut old = batch(1, 100);
    old.header.max_timestamp = TimestampMs(5);
    bench.send(Acks::All, 0, old);
    let appended = bench.done[0].1[0].result.clone().unwrap();
    assert_eq!(appended.log_append_time, Some(WALL));
    let entry = bench.written.iter().flat_map(|commit| &commit.entries).last().unwrap();
    let WalEntry::Batch { batch, .. } = entry else { panic!("{entry:?}") };
    assert!(batch.header.is_log_append_time() && batch.header.max_timestamp == WALL);
}

#[test]
fn an_idle_shard_seals_its_last_commit_once() {
    let mut bench = bench();
    bench.sent(batch(1, 100)).unwrap();
    let before = bench.written.len();
    bench.pass_millis(1000);
    let seal = bench.written.last().unwrap().clone();
    assert!(seal.entries.is_empty());
    assert_eq!(seal.durable, Lsn(seal.lsn.0 - 1));
    bench.pass_millis(1000);
    assert_eq!(bench.written.len(), before + 1);
}

#[test]
fn an_idle_empty_shard_has_nothing_due() {
    let mut bench = bench();
    bench.pass_millis(3_600_000);
    assert_eq!(bench.machine.next_deadline(), None);
}

#[test]
fn an_idle_partition_is_small() {
    assert!(size_of::<crate::machine::partition::Partition>() < 1024);
}

#[test]
fn a_batch_larger_than_a_wal_file_is_refused() {
    let mut bench = Bench::new(Bench::small_wal());
    let config = PartitionConfig { max_message_bytes: 1 << 20, ..PartitionConfig::default() };
    bench.open(0, 1, config);
    let error = Err(ProduceError::TooLarge { bytes: 17 << 10, limit: 16 << 10 });
    assert_eq!(bench.sent(batch(1, 17 << 10)), error);
    assert_eq!(bench.sent(batch(1, 15 << 10)), Ok(0));
}
