use crate::machine::input::PartitionConfig;
use crate::machine::survey::{Survey, Tally};
use crate::machine::testing::{Bench, batch, key};
use crate::model::{Acks, Offset};

#[test]
fn a_survey_in_steps_counts_every_partition_once() {
    let mut bench = Bench::with_partition(PartitionConfig::default());
    for partition in 1..5 {
        bench.open(partition, 1, PartitionConfig::default());
    }
    bench.sent(batch(3, 200)).unwrap();
    let mut whole = Survey::default();
    assert_eq!(bench.machine.survey(0, 100, &mut whole), None);
    assert_eq!((whole.partitions, whole.led, whole.failed), (5, 5, 0));
    assert_eq!((whole.log_bytes, whole.unflushed_bytes), (200, 200));
    assert_eq!((whole.under_replicated, whole.under_min_isr), (0, 0));
    let (mut in_steps, mut next) = (Survey::default(), Some(0));
    while let Some(first) = next {
        next = bench.machine.survey(first, 2, &mut in_steps);
    }
    assert_eq!(in_steps, whole);
    bench.pass_millis(6000);
    let mut flushed = Survey::default();
    assert_eq!(bench.machine.survey(0, 100, &mut flushed), None);
    assert_eq!((flushed.log_bytes, flushed.unflushed_bytes), (200, 0));
}

#[test]
fn what_clients_produce_is_counted_and_duplicates_are_not() {
    let mut bench = Bench::with_partition(PartitionConfig::default());
    bench.sent(crate::machine::testing::idempotent(7, 0, 0, 2)).unwrap();
    bench.sent(crate::machine::testing::idempotent(7, 0, 0, 2)).unwrap();
    bench.send(Acks::None, 0, batch(5, 300));
    // Refused: there is no such partition.
    bench.send(Acks::Leader, 9, batch(5, 300));
    let expected = Tally { produced_records: 7, produced_bytes: 400, ..Tally::default() };
    assert_eq!(bench.machine.tally(), expected);
}

#[test]
fn the_write_ahead_log_is_taken_by_what_is_written_and_waits() {
    let mut bench = Bench::with_partition(PartitionConfig::default());
    let before = bench.machine.wal_use();
    let limits = bench.limits;
    assert_eq!(before.bytes_max, limits.wal_file_bytes * limits.wal_files_max as u64);
    bench.sent(batch(1, 100_000)).unwrap();
    let taken = bench.machine.wal_use().taken_bytes - before.taken_bytes;
    assert!((100_000..120_000).contains(&taken), "{taken}");
}

#[test]
fn a_leader_knows_its_high_watermark() {
    let mut bench = Bench::with_partition(PartitionConfig::default());
    bench.sent(batch(3, 200)).unwrap();
    assert_eq!(bench.machine.known_high_watermark(key(0)), Some(Offset(3)));
    assert_eq!(bench.machine.known_high_watermark(key(1)), None);
}
