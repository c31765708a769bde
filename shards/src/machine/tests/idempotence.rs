use crate::machine::effect::RecoveredPartition;
use crate::machine::input::{PartitionConfig, PartitionSpec, ProduceError};
use crate::machine::testing::{Bench, idempotent, key};
use crate::model::{Acks, LeaderEpoch, ProducerEpoch, ProducerId, TimestampMs};

fn bench() -> Bench {
    Bench::with_partition(PartitionConfig::default())
}

fn gap(expected: i32, found: i32) -> Result<i64, ProduceError> {
    Err(ProduceError::OutOfOrderSequence { producer_id: ProducerId(7), expected, found })
}

#[test]
fn a_duplicate_of_the_last_five_batches_gets_the_original_offset() {
    let mut bench = bench();
    for sequence in 0..6 {
        assert_eq!(bench.sent(idempotent(7, 0, sequence * 2, 2)), Ok(i64::from(sequence) * 2));
    }
    for sequence in 1..6 {
        assert_eq!(bench.sent(idempotent(7, 0, sequence * 2, 2)), Ok(i64::from(sequence) * 2));
    }
    assert_eq!(bench.sent(idempotent(7, 0, 0, 2)), Err(ProduceError::DuplicateSequence));
    assert_eq!(bench.high_watermark(0), 12);
}

#[test]
fn older_duplicates_are_known_as_far_back_as_nothing_is_missing() {
    let mut bench = bench();
    // Its first batches this replica has not seen.
    for sequence in 10..20 {
        bench.sent(idempotent(7, 0, sequence * 2, 2)).unwrap();
    }
    let older = Err(ProduceError::DuplicateSequence);
    for (first, count, expected) in [
        (20, 2, older.clone()),
        (28, 2, older.clone()),
        // Whole batches or several of them are there, and so are parts of them.
        (20, 10, older),
        (18, 2, gap(40, 18)),
        (19, 2, gap(40, 19)),
        // It reaches into those that are remembered, as none of them.
        (29, 2, gap(40, 29)),
        (42, 2, gap(40, 42)),
    ] {
        assert_eq!(bench.sent(idempotent(7, 0, first, count)), expected, "{first}+{count}");
    }
    assert_eq!(bench.high_watermark(0), 20);
    // A new epoch begins at 0, and of the one before nothing counts.
    for sequence in 0..7 {
        bench.sent(idempotent(7, 1, sequence, 1)).unwrap();
    }
    assert_eq!(bench.sent(idempotent(7, 1, 1, 1)), Err(ProduceError::DuplicateSequence));
    assert!(bench.sent(idempotent(7, 0, 22, 2)).is_err());
}

#[test]
fn older_duplicates_are_not_known_across_a_wrap() {
    let mut bench = bench();
    let first = i32::MAX - 3;
    for sequence in (first..=i32::MAX).chain(0..6) {
        bench.sent(idempotent(7, 0, sequence, 1)).unwrap();
    }
    assert_eq!(bench.sent(idempotent(7, 0, 0, 1)), Err(ProduceError::DuplicateSequence));
    assert_eq!(bench.sent(idempotent(7, 0, i32::MAX, 1)), gap(6, i32::MAX));
    // Nor of a batch in which it wraps.
    let mut bench = self::bench();
    bench.sent(idempotent(7, 0, i32::MAX - 1, 4)).unwrap();
    for sequence in 2..9 {
        bench.sent(idempotent(7, 0, sequence, 1)).unwrap();
    }
    assert_eq!(bench.sent(idempotent(7, 0, 2, 1)), Err(ProduceError::DuplicateSequence));
    assert_eq!(bench.sent(idempotent(7, 0, 1, 1)), gap(9, 1));
    assert_eq!(bench.sent(idempotent(7, 0, i32::MAX - 1, 4)), gap(9, i32::MAX - 1));
}

#[test]
fn an_older_duplicate_counts_when_what_came_after_it_does() {
    let mut bench = bench();
    bench.sent(idempotent(7, 0, 0, 1)).unwrap();
    bench.holds_commits = true;
    for sequence in 1..7 {
        bench.send(Acks::All, 0, idempotent(7, 0, sequence, 1));
    }
    for acks in [Acks::All, Acks::Leader] {
        let token = bench.send(acks, 0, idempotent(7, 0, 0, 1));
        assert_eq!(bench.outcome(token), Some(vec![Err(ProduceError::TimedOut)]), "it may follow");
    }
    bench.release_commits();
    assert_eq!(bench.sent(idempotent(7, 0, 0, 1)), Err(ProduceError::DuplicateSequence));
}

#[test]
fn a_duplicate_waits_until_its_original_is_durable() {
    let mut bench = bench();
    bench.holds_commits = true;
    bench.send(Acks::All, 0, idempotent(7, 0, 0, 1));
    let later = bench.send(Acks::All, 0, idempotent(7, 0, 1, 1));
    let again = bench.send(Acks::All, 0, idempotent(7, 0, 0, 1));
    assert_eq!(bench.outcome(again), None);
    bench.write(0);
    assert_eq!(bench.outcome(again), Some(vec![Ok(0)]));
    assert_eq!(bench.outcome(later), None);
    bench.release_commits();
    assert_eq!(bench.outcome(later), Some(vec![Ok(1)]));
}

#[test]
fn a_gap_in_the_sequence_is_out_of_order() {
    let mut bench = bench();
    bench.sent(idempotent(7, 0, 0, 3)).unwrap();
    assert_eq!(bench.sent(idempotent(7, 0, 4, 1)), gap(3, 4));
    assert_eq!(bench.sent(idempotent(7, 0, 3, 1)), Ok(3));
}

#[test]
fn the_sequence_wraps_to_zero() {
    let mut bench = bench();
    bench.sent(idempotent(7, 0, i32::MAX - 1, 2)).unwrap();
    assert_eq!(bench.sent(idempotent(7, 0, 1, 1)), gap(0, 1));
    assert_eq!(bench.sent(idempotent(7, 0, 0, 1)), Ok(2));
}

#[test]
fn an_unknown_producer_begins_anywhere_and_a_newer_epoch_at_zero() {
    let mut bench = bench();
    assert_eq!(bench.sent(idempotent(7, 1, 500, 1)), Ok(0));
    assert_eq!(bench.sent(idempotent(7, 2, 501, 1)), gap(0, 501));
    assert_eq!(bench.sent(idempotent(7, 2, 0, 1)), Ok(1));
    let error = ProduceError::InvalidProducerEpoch {
        producer_id: ProducerId(7),
        current: ProducerEpoch(2),
        found: ProducerEpoch(1),
    };
    assert_eq!(bench.sent(idempotent(7, 1, 501, 1)), Err(error));
}

#[test]
fn an_idle_producer_expires_after_a_day() {
    let mut bench = bench();
    bench.sent(idempotent(7, 0, 0, 1)).unwrap();
    bench.pass_millis(23 * 3600 * 1000);
    assert_eq!(bench.sent(idempotent(7, 0, 9, 1)), gap(1, 9));
    bench.pass_millis(2 * 3600 * 1000);
    assert_eq!(bench.sent(idempotent(7, 0, 9, 1)), Ok(1));
}

#[test]
fn a_checkpoint_knows_producers_as_of_the_cut_and_not_beyond() {
    let mut bench = bench();
    for sequence in 0..3 {
        bench.sent(idempotent(7, 0, sequence, 1)).unwrap();
    }
    bench.holds_store = true;
    bench.pass_millis(6000);
    for sequence in 3..12 {
        bench.sent(idempotent(7, 0, sequence, 1)).unwrap();
    }
    bench.release_store();
    let line = &bench.checkpoints.last().unwrap().partitions[0];
    assert_eq!(line.flushed_end.0, 3);
    let sequences: Vec<_> = line.producers[0].batches.iter().map(|b| b.last_sequence).collect();
    assert_eq!(sequences, [0, 1, 2]);
    bench.pass_millis(6000);
    let line = &bench.checkpoints.last().unwrap().partitions[0];
    let sequences: Vec<_> = line.producers[0].batches.iter().map(|b| b.last_sequence).collect();
    assert_eq!((line.flushed_end.0, sequences), (12, vec![7, 8, 9, 10, 11]));
}

#[test]
fn recovered_producers_are_recognised() {
    let mut before = bench();
    before.sent(idempotent(7, 3, 10, 2)).unwrap();
    before.act(|machine, now, out| machine.stop(now, out));
    let state = before.checkpoints.last().unwrap().partitions[0].clone();
    assert_eq!(state.epochs, [(LeaderEpoch(1), crate::model::Offset(0))]);
    let view = before.views[&key(0)].clone();
    let recovered = RecoveredPartition { state, view, is_ahead: false };
    let mut after = Bench::new(crate::machine::limits::ShardLimits::default());
    after.views = before.views.clone();
    let spec = PartitionSpec {
        key: key(0),
        topic_name: "topic".into(),
        leader_epoch: LeaderEpoch(2),
        config: PartitionConfig::default(),
    };
    after.act(|machine, now, out| machine.open_partition(now, spec, Some(recovered), out));
    assert_eq!(after.high_watermark(0), 2);
    assert_eq!(after.sent(idempotent(7, 3, 10, 2)), Ok(0));
    assert_eq!(after.sent(idempotent(7, 3, 12, 1)), Ok(2));
    let end = after.machine.epoch_end(key(0), None, LeaderEpoch(1)).unwrap().unwrap();
    assert_eq!((end.epoch.0, end.end_offset.0), (1, 2));
    assert!(after.now.wall > TimestampMs(0));
}
