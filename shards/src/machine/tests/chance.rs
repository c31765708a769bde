//! Any order of inputs, completions and full disks keeps the invariants, and everybody is answered.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::format::wal_entry::WalEntry;
use crate::machine::input::PartitionConfig;
use crate::machine::limits::ShardLimits;
use crate::machine::testing::{Bench, batch, idempotent, key};
use crate::model::{Acks, Offset};

/// Tight bounds, so that every one of them is met.
fn bench() -> Bench {
    let limits = ShardLimits {
        round_bytes: 20 << 10,
        tail_cache_bytes: 10_000,
        parked_produces_max: 5,
        fetch_waits_max: 3,
        wal_files_max: 3,
        ..Bench::small_wal()
    };
    let mut bench = Bench::new(limits);
    for partition in 0..3 {
        let config = PartitionConfig { retention_bytes: Some(8000), ..PartitionConfig::default() };
        bench.open(partition, 1, config);
    }
    (bench.holds_commits, bench.holds_store) = (true, true);
    bench
}

fn act(bench: &mut Bench, tokens: &mut Vec<crate::machine::input::Token>, op: u8, value: u16) {
    let partition = i32::from(value % 3);
    match op {
        0 => tokens.push(bench.send(Acks::All, partition, batch(2, usize::from(value % 7000)))),
        1 => {
            let both = vec![(0, batch(1, 3000)), (2, batch(1, 500))];
            tokens.push(bench.send_all(Acks::Leader, both));
        }
        2 => {
            tokens.push(bench.send(Acks::All, partition, idempotent(1, 0, i32::from(value % 4), 1)))
        }
        3 | 4 if !bench.commits.is_empty() => {
            let place = usize::from(value) % bench.commits.len();
            bench.write(place);
        }
        5 | 6 => bench.work(),
        7 => bench.pass_millis(u64::from(value % 3000)),
        8 => bench.disk_full = value.is_multiple_of(3),
        9 => {
            let offset = bench.machine.info(key(partition)).map_or(0, |info| info.high_watermark.0);
            bench.wait(usize::from(value % 5000), &[(partition, offset), (1, 0)], 200);
        }
        10 if partition == 0 => {
            let _ = bench.delete_records(value.is_multiple_of(2).then_some(i64::from(value % 20)));
        }
        11 => bench.pass_millis(301_000),
        12 if value < 2000 => {
            bench.act(|machine, now, out| machine.close_partition(now, key(2), out));
        }
        13 => {
            let offset = i64::from(value % 40);
            let _ = bench.fetch(offset);
        }
        14 => bench.open(partition.min(1), i32::from(value % 50), PartitionConfig::default()),
        _ => {}
    }
}

/// Ends of the partitions in the commits that a crash now would leave.
fn durable_ends(bench: &Bench) -> BTreeMap<i32, Offset> {
    let mut written: Vec<_> = bench.written.iter().collect();
    written.sort_by_key(|commit| commit.lsn);
    let mut ends = BTreeMap::new();
    for (place, commit) in written.iter().enumerate() {
        if commit.lsn.0 != place as u64 + 1 {
            break;
        }
        for entry in &commit.entries {
            if let WalEntry::Batch { key, batch } = entry {
                ends.insert(key.partition.0, batch.end_offset());
            }
        }
    }
    ends
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn nobody_is_forgotten_and_nothing_readable_is_lost(ops in vec((0u8..15, any::<u16>()), 1..150)) {
        let mut bench = bench();
        let mut tokens = Vec::new();
        for (op, value) in ops {
            act(&mut bench, &mut tokens, op, value);
            let ends = durable_ends(&bench);
            for partition in 0..3 {
                let info = bench.machine.info(key(partition));
                let end = ends.get(&partition).copied().unwrap_or_default();
                prop_assert!(info.is_none_or(|info| info.high_watermark <= end));
            }
            for (_, outcomes) in &bench.done {
                for outcome in outcomes {
                    let end = ends.get(&outcome.key.partition.0).copied().unwrap_or_default();
                    let safe = outcome.result.as_ref().map_or(true, |at| at.base_offset < end);
                    prop_assert!(safe, "acknowledged before it was durable: {:?}", outcome);
                }
            }
        }
        bench.disk_full = false;
        bench.release_commits();
        bench.release_store();
        bench.pass_millis(40_000);
        for token in tokens {
            prop_assert!(bench.outcome(token).is_some());
        }
        bench.act(|machine, now, out| machine.stop(now, out));
        bench.pass_millis(10_000);
        prop_assert_eq!(bench.stopped, 1);
    }
}
