use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::format::batch_builder::BatchBuilder;
use crate::format::record::max_timestamp_record;

const NOW: TimestampMs = TimestampMs(5_000_000);

const RULES: CompactionRules = CompactionRules {
    now: NOW,
    delete_retention_ms: 1000,
    keeps_emptied: false,
    expanded_bytes_max: 1 << 20,
};

/// A record as a consumer sees it: offset, time, key, value, number of headers.
type Seen = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, usize);

fn seen(batch: &StoredBatch) -> Vec<Seen> {
    let stored = StoredBatch::from_log(batch.to_log()).expect("sealed");
    let payload = stored.decompressed(1 << 20).unwrap();
    Records::new(&stored.header, &payload)
        .map(|record| {
            let record = record.unwrap();
            (
                stored.header.base_offset.0 + i64::from(record.offset_delta),
                stored.header.timestamp_of(&record).0,
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                record.headers.len(),
            )
        })
        .collect()
}

fn batch(codec: Codec, values: &[Option<&[u8]>]) -> StoredBatch {
    let mut builder = BatchBuilder::new(codec).idempotent(ProducerId(7), ProducerEpoch(2), 40);
    for (at, value) in (0..).zip(values) {
        let headers = [("h", Some(&b"x"[..]))];
        let key = [b'k', at as u8];
        let time = TimestampMs(1000 + 10 * at);
        builder.push(time, Some(&key), *value, &headers[..at as usize % 2]);
    }
    StoredBatch::place(builder.build(), Offset(100), LeaderEpoch(3))
}

fn rewritten(compacted: Compacted) -> StoredBatch {
    match compacted {
        Compacted::Rewritten(batch) => batch,
        other => panic!("not rewritten: {other:?}"),
    }
}

#[test]
fn what_stays_keeps_offsets_times_producer_and_codec() {
    for codec in Codec::ALL {
        let before = batch(codec, &[Some(b"a"), Some(b"b"), Some(b"c"), Some(b"d")]);
        let mut counts = RecordCounts::default();
        let after = compact(&before, RULES, &mut counts, |offset, _| offset.0 % 2 == 1).unwrap();
        let after = rewritten(after);
        assert_eq!(counts, RecordCounts { read: 4, kept: 2 });
        let expected: Vec<Seen> =
            seen(&before).into_iter().filter(|record| record.0 % 2 == 1).collect();
        assert_eq!(seen(&after), expected);
        assert_eq!(after.header.base_offset, before.header.base_offset);
        assert_eq!(after.header.last_offset(), before.header.last_offset());
        assert_eq!(after.header.idempotence(), before.header.idempotence());
        assert_eq!(after.header.codec(), Ok(codec));
        assert_eq!(after.header.leader_epoch, LeaderEpoch(3));
        assert_eq!(after.header.base_timestamp, TimestampMs(1010), "the first that stays");
        assert_eq!(after.header.max_timestamp, TimestampMs(1030));
    }
}

#[test]
fn a_batch_that_loses_nothing_keeps_its_bytes() {
    let whole = batch(Codec::Lz4, &[Some(b"a"), Some(b"b")]);
    let mut counts = RecordCounts::default();
    let compacted = compact(&whole, RULES, &mut counts, |_, _| true).unwrap();
    assert!(matches!(compacted, Compacted::Unchanged));
}

#[test]
fn tombstones_get_a_horizon_once_and_keep_it() {
    let before = batch(Codec::None, &[Some(b"a"), None, Some(b"c")]);
    let mut counts = RecordCounts::default();
    let first = rewritten(compact(&before, RULES, &mut counts, |_, _| true).unwrap());
    assert_eq!(first.header.delete_horizon(), Some(TimestampMs(NOW.0 + 1000)));
    assert_eq!(seen(&first), seen(&before), "their times are what they were");
    assert_eq!(first.header.max_timestamp, before.header.max_timestamp);

    let later = CompactionRules { now: TimestampMs(NOW.0 + 500), ..RULES };
    let second = compact(&first, later, &mut counts, |_, _| true).unwrap();
    assert!(matches!(second, Compacted::Unchanged));
    let third = rewritten(compact(&first, later, &mut counts, |at, _| at.0 != 100).unwrap());
    assert_eq!(third.header.delete_horizon(), first.header.delete_horizon());
    assert_eq!(seen(&third), seen(&before)[1..]);
}

#[test]
fn an_emptied_batch_goes_unless_its_place_is_needed() {
    let before = batch(Codec::Zstd, &[Some(b"a"), None]);
    let mut counts = RecordCounts::default();
    let gone = compact(&before, RULES, &mut counts, |_, _| false).unwrap();
    assert!(matches!(gone, Compacted::Dropped));
    let keeps = CompactionRules { keeps_emptied: true, ..RULES };
    let empty = rewritten(compact(&before, keeps, &mut counts, |_, _| false).unwrap());
    assert_eq!(seen(&empty), []);
    assert_eq!(empty.header.record_count, 0);
    assert_eq!(empty.header.codec(), Ok(Codec::None));
    assert_eq!(empty.header.end_offset(), before.header.end_offset());
    assert_eq!(empty.header.idempotence(), before.header.idempotence());
    assert_eq!(max_timestamp_record(&empty), Ok(None));
    assert!(matches!(
        compact(&empty, keeps, &mut counts, |_, _| false).unwrap(),
        Compacted::Unchanged
    ));
    assert!(matches!(
        compact(&empty, RULES, &mut counts, |_, _| false).unwrap(),
        Compacted::Dropped
    ));
}

#[test]
fn the_brokers_time_stays_that_of_every_record() {
    let producer = batch(Codec::None, &[Some(b"a"), None, Some(b"c")]);
    let produced = crate::format::record_batch::ProducedBatch::check(producer.bytes).unwrap();
    let stamped = produced.with_log_append_time(TimestampMs(77_000));
    let before = StoredBatch::place(stamped, Offset(100), LeaderEpoch(3));
    let mut counts = RecordCounts::default();
    let after = rewritten(compact(&before, RULES, &mut counts, |at, _| at.0 > 100).unwrap());
    assert!(after.header.is_log_append_time());
    assert_eq!(seen(&after), seen(&before)[1..]);
    assert!(seen(&after).iter().all(|record| record.1 == 77_000));
}

#[test]
fn batches_of_transactions_are_left_alone() {
    for build in [BatchBuilder::transactional, BatchBuilder::control] {
        let builder = BatchBuilder::new(Codec::None).idempotent(ProducerId(7), ProducerEpoch(2), 0);
        let batch = build(builder.record(TimestampMs(5), Some(b"k"), None)).build();
        let batch = StoredBatch::place(batch, Offset(9), LeaderEpoch(0));
        let mut counts = RecordCounts::default();
        let compacted = compact(&batch, RULES, &mut counts, |_, _| false).unwrap();
        assert!(matches!(compacted, Compacted::Unchanged));
        assert_eq!(counts, RecordCounts { read: 1, kept: 1 });
    }
}

#[test]
fn a_filler_names_offsets_and_nothing_else() {
    let filler = filler(Offset(40), Offset(45), LeaderEpoch(6));
    assert_eq!(
        filler.to_log()[..],
        [
            &40i64.to_be_bytes()[..],
            &49i32.to_be_bytes(),
            &6i32.to_be_bytes(),
            &[2],
            &filler.header.crc.to_be_bytes(),
            &[0, 0],
            &4i32.to_be_bytes(),
            &[0xff; 16],
            &[0xff; 14],
            &[0; 4],
        ]
        .concat()
    );
    assert_eq!(seen(&filler), []);
    assert_eq!(filler.end_offset(), Offset(45));
}

#[test]
fn a_batch_that_expands_too_far_is_an_error() {
    let value = vec![0; 4000];
    let batch = batch(Codec::Gzip, &[Some(&value), Some(&value)]);
    let tight = CompactionRules { expanded_bytes_max: 4000, ..RULES };
    let error = compact(&batch, tight, &mut RecordCounts::default(), |_, _| false).unwrap_err();
    assert!(matches!(error, BatchError::Compression(CompressionError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn any_choice_leaves_exactly_the_chosen(
        records in vec((any::<bool>(), any::<bool>(), -5_000i64..5_000), 1..40),
        codec in 0usize..5,
        steps in vec((any::<u64>(), 0i64..3000), 1..4),
    ) {
        let mut builder = BatchBuilder::new(Codec::ALL[codec]);
        for (at, (has_value, has_header, time)) in (0u32..).zip(&records) {
            let headers = [("name", None)];
            let value = vec![at as u8; at as usize];
            builder.push(
                TimestampMs(1_000_000 + time),
                Some(&at.to_be_bytes()),
                has_value.then_some(&value),
                &headers[..usize::from(*has_header)],
            );
        }
        let mut batch = StoredBatch::place(builder.build(), Offset(1 << 40), LeaderEpoch(1));
        let mut expected = seen(&batch);
        let mut now = NOW.0;
        for (choice, later) in steps {
            now += later;
            let rules = CompactionRules { now: TimestampMs(now), keeps_emptied: true, ..RULES };
            let chosen = |offset: i64| choice >> (offset % 64) & 1 == 1;
            let horizon = batch.header.delete_horizon();
            expected.retain(|record| chosen(record.0));
            let mut counts = RecordCounts::default();
            match compact(&batch, rules, &mut counts, |offset, _| chosen(offset.0)).unwrap() {
                Compacted::Unchanged => {}
                Compacted::Rewritten(after) => batch = after,
                Compacted::Dropped => prop_assert!(false, "its place was to be kept"),
            }
            prop_assert_eq!(seen(&batch), expected.clone());
            prop_assert_eq!(counts.kept, expected.len() as u64);
            if expected.iter().any(|record| record.3.is_none()) {
                let due = horizon.unwrap_or(TimestampMs(now + 1000));
                prop_assert_eq!(batch.header.delete_horizon(), Some(due));
            }
            prop_assert_eq!(batch.end_offset(), Offset((1 << 40) + records.len() as i64));
        }
    }
}
