//! A log that is cut where it has no records, and a crash in the middle of that.

use super::compaction::{batches, busy_world, busy_world_on, compact, view};
use super::world::{Dead, EPOCH, NOW, World, data, key};
use crate::format::compacted_batch;
use crate::format::compression::Codec;
use crate::format::record_batch::StoredBatch;
use crate::format::sample_batch::SampleBatch;
use crate::machine::effect::{StoreJob, StoreReply};
use crate::model::{LeaderEpoch, Offset};
use crate::store::disk::{Disk, OpenMode};
use crate::store::paths;

/// How many places in holes are cut at.
const CUTS: usize = 5;

/// A follower's log, as it took it from a leader that had compacted its own.
fn followers_world() -> World {
    let mut world = World::new(1, 1);
    world.segment_bytes = 700;
    let key = key(7, 0);
    for round in 0..9usize {
        let records = [(round as u8, Some(30)), (1, Some(40 + 25 * round))];
        world.produce_keyed(key, 5, &records, Codec::None).unwrap();
        // Of all kinds of lengths, so that one of them lies across a sector's border.
        world.produce_nothing(key, 3 + round as i64).unwrap();
        world.produce_nothing(key, 2).unwrap();
        world.flush(key).unwrap();
    }
    world.checkpoint(0).unwrap();
    world
}

/// A log that was compacted: it has holes, and batches without records.
fn compacted_world() -> World {
    let mut world = busy_world(Codec::None);
    compact(&mut world, key(7, 0), NOW).unwrap();
    world.checkpoint(0).unwrap();
    world
}

/// Everything of a log below its end: first offset and end of what has records.
fn records(batches: &[StoredBatch]) -> Vec<(i64, i64)> {
    let has_records = batches.iter().filter(|batch| batch.header.record_count > 0);
    has_records.map(|batch| (batch.header.base_offset.0, batch.end_offset().0)).collect()
}

/// The batch that a new leader has behind the cut.
fn next(at: Offset) -> StoredBatch {
    SampleBatch { records: 2, ..SampleBatch::default() }.at(at.0, EPOCH + 1)
}

/// Why it did not come to its end, if so.
fn cut(world: &mut World, at: Offset, goes_on: bool) -> Result<(), String> {
    let key = key(7, 0);
    let mut jobs = vec![StoreJob::Truncate { key, end_offset: at, begins_anew: false }];
    if goes_on {
        jobs.push(StoreJob::Append { key, batches: vec![next(at)], now: NOW });
    }
    for job in jobs {
        match world.replies(key, job) {
            Ok(replies) if replies.iter().any(|it| matches!(it, StoreReply::Failed { .. })) => {
                return Err(format!("{replies:?}"));
            }
            Ok(_) => {}
            Err(Dead) => return Err("the disk is dead".to_owned()),
        }
    }
    Ok(())
}

/// Cuts a log at offsets at which it has no record, and crashes after every number of changes.
fn crash_in_cuts(origin: &World) {
    let origin_disk = origin.disk.fork();
    let (end, whole) = {
        let mut world = busy_world_on(origin, origin_disk.fork());
        let view = view(&mut world, key(7, 0)).unwrap();
        (view.end_offset().unwrap(), records(&batches(&world, &view)))
    };
    let is_empty = |at: &i64| !whole.iter().any(|(base, end)| base < at && end >= at);
    let empty: Vec<i64> = (1..end.0).filter(is_empty).collect();
    assert!(empty.len() > CUTS, "there are holes: {empty:?}");
    for at in empty.iter().step_by(empty.len().div_ceil(CUTS)).copied().map(Offset) {
        let below: Vec<_> = whole.iter().copied().filter(|(_, end)| *end <= at.0).collect();
        for goes_on in [false, true] {
            let mut changes = 0;
            loop {
                let mut world = busy_world_on(origin, origin_disk.fork());
                world.commit_cut(key(7, 0), at, goes_on.then(|| next(at))).unwrap();
                world.disk.fail_after(Some(changes));
                let done = cut(&mut world, at, goes_on);
                let what = format!("cut at {at}, goes on {goes_on}, {changes} changes");
                world.disk.crash(changes * 31 + at.0 as u64);
                world.disk.fail_after(None);
                // Every other time the start that follows dies, too.
                if changes % 2 == 1 {
                    world.disk.fail_after(Some(changes % 7));
                    let _ = world.recover();
                    world.disk.crash(changes ^ 0x55);
                    world.disk.fail_after(None);
                }
                let recovered = world.recover().unwrap_or_else(|error| panic!("{what}: {error}"));
                let state = &recovered.partitions[0].state;
                let expected = if goes_on { at.plus(2) } else { at };
                assert_eq!(state.flushed_end, expected, "{what}");
                let found = batches(&world, &recovered.partitions[0].view);
                let mut expected = below.clone();
                expected.extend(goes_on.then_some((at.0, at.0 + 2)));
                assert_eq!(records(&found), expected, "{what}");
                if goes_on {
                    let epochs = [(LeaderEpoch(EPOCH), Offset(0)), (LeaderEpoch(EPOCH + 1), at)];
                    assert_eq!(state.epochs, epochs, "{what}");
                }
                // A second start finds what the first has left.
                world.disk.crash(changes);
                let again = world.recover().unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(again.partitions[0].state, *state, "{what}");
                if done.is_ok() {
                    break;
                }
                changes += 1;
                assert!(changes < 100, "{what}: it never ends, {done:?}");
            }
        }
    }
}

#[test]
fn a_crash_in_a_cut_of_a_compacted_log_leaves_the_log_up_to_there() {
    crash_in_cuts(&compacted_world());
}

#[test]
fn a_crash_in_a_cut_of_a_followers_log_with_named_holes_leaves_the_log_up_to_there() {
    crash_in_cuts(&followers_world());
}

#[test]
fn a_batch_without_records_that_only_the_wal_has_is_cut_as_well() {
    let key = key(7, 0);
    for (at, goes_on) in (13..22).flat_map(|at| [(Offset(at), false), (Offset(at), true)]) {
        let mut world = World::new(1, 1);
        world.produce_keyed(key, 5, &[(1, Some(3)), (2, Some(3))], Codec::None).unwrap();
        world.checkpoint(0).unwrap();
        world.produce_nothing(key, 10).unwrap();
        world.produce_nothing(key, 11).unwrap();
        world.commit_cut(key, at, goes_on.then(|| next(at))).unwrap();
        world.disk.crash(at.0 as u64);
        let recovered = world.recover().unwrap();
        let end = if goes_on { at.plus(2) } else { at };
        assert_eq!(recovered.partitions[0].state.flushed_end, end);
        let found = records(&batches(&world, &recovered.partitions[0].view));
        assert_eq!(found, if goes_on { vec![(0, 2), (at.0, at.0 + 2)] } else { vec![(0, 2)] });
    }
}

#[test]
fn records_that_are_missing_below_a_cut_are_damage() {
    let mut world = followers_world();
    let key = key(7, 0);
    // Behind the last batch with records there is nothing but a batch without any.
    let end = world.models[&key].end();
    world.commit_cut(key, Offset(end.0 - 1), None).unwrap();
    let dir = paths::partition_dir(&data(), "pears", key.partition);
    let view = view(&mut world, key).unwrap();
    let last = view.iter().last().unwrap().base_offset;
    let path = paths::segment_file(&dir, paths::SegmentFile::Log, last);
    let file = world.disk.open(&path, OpenMode::Write).unwrap();
    world.disk.truncate(&file, 10).unwrap();
    world.disk.crash(1);
    assert!(world.recover().is_err());
}

#[test]
fn a_cut_puts_the_epoch_of_its_offset_on_what_fills_the_hole() {
    let mut world = World::new(1, 1);
    let key = key(7, 0);
    let filler = compacted_batch::filler(Offset(0), Offset(9), LeaderEpoch(EPOCH));
    world.produce_batch(key, filler).unwrap();
    world.checkpoint(0).unwrap();
    cut(&mut world, Offset(4), false).unwrap();
    let view = view(&mut world, key).unwrap();
    let left = batches(&world, &view);
    let [batch] = &left[..] else { panic!("{left:?}") };
    assert_eq!((batch.end_offset(), batch.header.leader_epoch), (Offset(4), LeaderEpoch(EPOCH)));
}
