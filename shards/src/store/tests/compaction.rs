//! What compaction leaves, whenever it is interrupted.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::world::{Dead, EPOCH, NOW, World, data, key, read_log};
use crate::format::compression::Codec;
use crate::format::record::Records;
use crate::format::record_batch::{Batches, StoredBatch};
use crate::machine::compaction::offset_map::SLOT_BYTES;
use crate::machine::effect::{CompactionFailure, CompactionReport, LogView, StoreJob, StoreReply};
use crate::model::{LeaderEpoch, Offset, ProducerId, ReplicaKey, TimestampMs};
use crate::store::disk::Disk;
use crate::store::paths;

const DAY_MS: i64 = 24 * 3600 * 1000;

/// Offset, key and whether there is a value.
pub type Line = (i64, u8, bool);

/// What one compaction came to.
#[derive(Debug)]
pub struct Done {
    pub result: Result<CompactionReport, CompactionFailure>,
    pub view: LogView,
    pub swaps: usize,
}

/// Runs a compaction to its end.
pub fn compact(world: &mut World, key: ReplicaKey, now: TimestampMs) -> Result<Done, Dead> {
    let view = view(world, key)?;
    let end_offset = view.sealed.last().map_or(Offset::ZERO, |sealed| sealed.end_offset);
    let job = StoreJob::Compact { key, id: 7, end_offset, now };
    let mut replies = world.replies(key, job)?;
    let mut swaps = 0;
    loop {
        for reply in std::mem::take(&mut replies) {
            match reply {
                StoreReply::Compacted { id: 7, view, result, .. } => {
                    return Ok(Done { result, view, swaps });
                }
                StoreReply::SegmentsRewritten { id: 7, .. } => {
                    swaps += 1;
                    let swapped = world.replies(key, StoreJob::SwapSegments { key, id: 7 })?;
                    assert!(matches!(swapped[0], StoreReply::Swapped { .. }));
                    replies.extend(swapped.into_iter().skip(1));
                }
                other => panic!("{other:?}"),
            }
        }
        if replies.is_empty() {
            replies = world.compact(key)?;
        }
    }
}

/// A job that changes nothing tells the segments.
pub fn view(world: &mut World, key: ReplicaKey) -> Result<LogView, Dead> {
    match world.job(StoreJob::DeleteSegments { key, log_start_offset: Offset::ZERO })? {
        StoreReply::Segments { view, .. } => Ok(view),
        other => panic!("{other:?}"),
    }
}

pub fn batches(world: &World, view: &LogView) -> Vec<StoredBatch> {
    let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
    let log = Bytes::from(read_log(&world.disk, &dir, view));
    let stored = |(at, bytes): (usize, usize)| StoredBatch::from_log(log.slice(at..at + bytes));
    Batches::new(&log)
        .map(|batch| batch.map(|(at, header)| (at, header.total_bytes)).unwrap())
        .map(|place| stored(place).unwrap())
        .collect()
}

pub fn lines(batches: &[StoredBatch]) -> Vec<Line> {
    let mut lines = Vec::new();
    for batch in batches {
        let payload = batch.decompressed(1 << 20).unwrap();
        for record in Records::new(&batch.header, &payload) {
            let record = record.unwrap();
            let offset = batch.header.base_offset.0 + i64::from(record.offset_delta);
            lines.push((offset, record.key.unwrap()[0], record.value.is_some()));
        }
    }
    lines
}

/// Everything that was written, in order.
fn written(world: &World) -> Vec<Line> {
    lines(&world.models[&key(7, 0)].batches)
}

/// What must be left of a log of which all below `end` is compacted and no tombstone has gone.
fn newest(all: &[Line], end: Offset) -> Vec<Line> {
    let mut last: BTreeMap<u8, i64> = BTreeMap::new();
    for (offset, key, _) in all.iter().filter(|line| line.0 < end.0) {
        last.insert(*key, *offset);
    }
    all.iter().copied().filter(|line| line.0 >= end.0 || last[&line.1] == line.0).collect()
}

/// Of every key the newest records are there, one behind the other: nothing is lost, nothing comes back.
fn check_suffixes(all: &[Line], found: &[Line]) {
    let mut due: BTreeMap<u8, Vec<i64>> = BTreeMap::new();
    let mut there: BTreeMap<u8, Vec<i64>> = BTreeMap::new();
    all.iter().for_each(|line| due.entry(line.1).or_default().push(line.0));
    found.iter().for_each(|line| there.entry(line.1).or_default().push(line.0));
    for (key, due) in &due {
        let there = there.get(key).map(Vec::as_slice).unwrap_or_default();
        assert!(!there.is_empty(), "the newest of key {key} is lost: {due:?}");
        assert!(due.ends_with(there), "of key {key} there is {there:?}, of {due:?}");
    }
    assert!(found.iter().all(|line| all.contains(line)), "what is there was written there");
}

/// A log of several segments: keys again and again, of two producers, and one that has gone silent.
pub fn busy_world(codec: Codec) -> World {
    let mut world = World::new(1, 1);
    world.segment_bytes = 1500;
    for (partition, topic_name) in world.partitions.clone() {
        let config = super::world::config(world.segment_bytes);
        world.job(StoreJob::Open { key: partition, topic_name, config }).unwrap();
    }
    let key = key(7, 0);
    world.produce_keyed(key, 99, &[(1, Some(30)), (2, Some(30))], codec).unwrap();
    for round in 0..30usize {
        let records: Vec<(u8, Option<usize>)> = (0..3)
            .map(|at| {
                let name = ((round * 7 + at * 5) % 11) as u8;
                (name, (round % 4 != at).then_some(40 + round % 20))
            })
            .collect();
        world.produce_keyed(key, [5, 6, -1][round % 3], &records, codec).unwrap();
        if round % 5 == 4 {
            world.flush(key).unwrap();
        }
    }
    world.flush(key).unwrap();
    world.checkpoint(0).unwrap();
    world
}

#[test]
fn only_the_newest_of_every_key_stays_at_its_offset() {
    for codec in [Codec::None, Codec::Lz4] {
        let mut world = busy_world(codec);
        let before = view(&mut world, key(7, 0)).unwrap();
        assert!(before.sealed.len() >= 2, "{before:?}");
        let end = before.sealed.last().unwrap().end_offset;
        let done = compact(&mut world, key(7, 0), NOW).unwrap();
        let report = done.result.unwrap();
        let after = batches(&world, &done.view);
        assert_eq!(lines(&after), newest(&written(&world), end), "{codec}");
        assert_eq!(report.end_offset, end);
        assert_eq!(report.segments_before, before.sealed.len() as u64);
        assert_eq!(report.segments_after, done.view.sealed.len() as u64);
        let bytes: u64 = done.view.sealed.iter().map(|sealed| sealed.bytes).sum();
        assert_eq!(report.bytes_after, bytes);
        assert!(report.bytes_after < report.bytes_before);
        assert_eq!(done.view.first_dirty_offset, end);
        assert_eq!(done.view.end_offset(), before.end_offset());
        assert_eq!(done.view.generation as usize, done.swaps);
        let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
        check_compacted_indexes(&world, &dir, &done.view);
        // Of the silent producer the last batch stays, empty.
        let silent = |batch: &&StoredBatch| batch.header.producer_id == ProducerId(99);
        let silent: Vec<&StoredBatch> = after.iter().filter(silent).collect();
        assert_eq!(silent.len(), 1);
        assert_eq!(silent[0].header.record_count, 0);
        let last = after.iter().find(|batch| batch.end_offset() == end);
        assert!(last.is_some(), "the compacted part says where it ends");

        // Nothing is new: the second one changes nothing but what tombstones say.
        let again = compact(&mut world, key(7, 0), NOW).unwrap();
        assert_eq!(lines(&batches(&world, &again.view)), lines(&after));
        // What was made small is put together.
        let (segments, before) = (again.view.sealed.len(), done.view.sealed.len());
        assert!(segments < before, "{segments} of {before}");
    }
}

/// Indexes as appending what is left gives them.
fn check_compacted_indexes(world: &World, dir: &std::path::Path, view: &LogView) {
    use crate::store::disk::read_file;
    use crate::store::paths::{SegmentFile, segment_file};
    use crate::store::segment::Segment;
    for meta in view.sealed.iter() {
        let file =
            |kind| read_file(&world.disk, &segment_file(dir, kind, meta.base_offset)).unwrap();
        let mut segment = Segment::new(meta.base_offset, NOW);
        let (mut index, mut time_index) = (Vec::new(), Vec::new());
        for batch in Batches::new(&file(SegmentFile::Log)) {
            let header = batch.unwrap().1;
            segment.skip_to(header.base_offset);
            let due = segment.push(&header, NOW);
            index.extend(due.offset.iter().flat_map(|entry| entry.encode()));
            time_index.extend(due.time.iter().flat_map(|entry| entry.encode()));
        }
        time_index.extend(segment.seal().iter().flat_map(|entry| entry.encode()));
        assert_eq!(file(SegmentFile::Index), index);
        assert_eq!(file(SegmentFile::TimeIndex), time_index);
        assert_eq!(meta.max_timestamp, segment.meta().max_timestamp);
        assert!(segment.end_offset <= meta.end_offset);
    }
}

#[test]
fn tombstones_go_once_their_time_is_over_and_nothing_older_comes_back() {
    let mut world = busy_world(Codec::None);
    let first = compact(&mut world, key(7, 0), NOW).unwrap();
    let end = first.view.first_dirty_offset;
    let kept = lines(&batches(&world, &first.view));
    let is_tombstone = |line: &&Line| !line.2 && line.0 < end.0;
    assert!(kept.iter().filter(is_tombstone).count() > 1);
    let early = compact(&mut world, key(7, 0), TimestampMs(NOW.0 + DAY_MS - 1)).unwrap();
    assert_eq!(lines(&batches(&world, &early.view)), kept);
    let late = compact(&mut world, key(7, 0), TimestampMs(NOW.0 + DAY_MS)).unwrap();
    let left = lines(&batches(&world, &late.view));
    let expected: Vec<Line> =
        kept.iter().copied().filter(|line| line.2 || line.0 >= end.0).collect();
    assert_eq!(left, expected);
}

#[test]
fn a_small_map_compacts_as_far_as_it_came_and_goes_on_from_there() {
    let mut world = busy_world(Codec::None);
    world.limit_map(16 * SLOT_BYTES);
    // More keys than the map holds.
    for name in 100..140u8 {
        world
            .produce_keyed(key(7, 0), -1, &[(name, Some(60)), (1, Some(20))], Codec::None)
            .unwrap();
    }
    world.checkpoint(0).unwrap();
    let all = written(&world);
    let mut before = Offset::ZERO;
    let mut rounds = 0;
    loop {
        let done = compact(&mut world, key(7, 0), NOW).unwrap();
        let report = done.result.unwrap();
        let end = done.view.first_dirty_offset;
        let left = lines(&batches(&world, &done.view));
        check_suffixes(&all, &left);
        let clean: Vec<u8> = left.iter().filter(|line| line.0 < end.0).map(|it| it.1).collect();
        let mut unique = clean.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), clean.len(), "every key once below {end}");
        rounds += 1;
        if !report.was_map_full {
            break;
        }
        assert!(end > before, "it gets on");
        before = end;
    }
    assert!(rounds >= 3, "{rounds}");
}

#[test]
fn a_crash_at_any_step_loses_nothing_and_doubles_nothing() {
    let origin = busy_world(Codec::None);
    let all = written(&origin);
    let origin_disk = origin.disk.fork();
    let mut changes = 0;
    loop {
        let mut is_finished = false;
        for crash in 0..4u64 {
            let mut world = busy_world_on(&origin, origin_disk.fork());
            world.disk.fail_after(Some(changes));
            is_finished = compact(&mut world, key(7, 0), NOW).is_ok_and(|done| done.result.is_ok());
            match crash {
                0 => world.disk.end_process(changes),
                _ => world.disk.crash(changes * 17 + crash),
            }
            world.disk.fail_after(None);
            // A start may die in the middle of it, too.
            if crash == 3 {
                world.disk.fail_after(Some(changes % 13));
                let _ = world.recover();
                world.disk.crash(changes ^ 0x55);
            }
            let recovered =
                world.recover().unwrap_or_else(|error| panic!("after {changes}: {error}"));
            let state = recovered.partitions[0].state.clone();
            let expected = super::world::expected_state(key(7, 0), &world.models[&key(7, 0)]);
            assert_eq!(state.producers, expected.producers, "after {changes} changes");
            assert_eq!(state.flushed_end, expected.flushed_end);
            assert_eq!(state.epochs, expected.epochs);
            let found = lines(&batches(&world, &recovered.partitions[0].view));
            check_suffixes(&all, &found);
            if is_finished {
                let end = recovered.partitions[0].view.first_dirty_offset;
                assert!(end > Offset::ZERO, "what was said to be clean is");
                assert_eq!(found, newest(&all, end));
            }
            let leftovers = |name: &str| name.ends_with(".cleaned") || name.contains("swap");
            let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
            let names: Vec<String> =
                world.disk.list(&dir).unwrap().into_iter().map(|entry| entry.name).collect();
            assert!(!names.iter().any(|name| leftovers(name)), "{names:?}");
            // And it goes on from there.
            world.resume(recovered);
            world.open_all().unwrap();
            world.produce_keyed(key(7, 0), 5, &[(1, Some(9))], Codec::None).unwrap();
            world.checkpoint(0).unwrap();
            let done = compact(&mut world, key(7, 0), NOW).unwrap();
            assert!(done.result.is_ok());
            check_suffixes(&written(&world), &lines(&batches(&world, &done.view)));
        }
        if is_finished {
            break;
        }
        changes += 1;
    }
    assert!(changes > 40, "the compaction had steps: {changes}");
}

/// The same world on another disk, started anew.
pub fn busy_world_on(origin: &World, disk: crate::store::sim_disk::SimDisk) -> World {
    let mut world = World::new(1, 1);
    world.disk = disk;
    world.segment_bytes = origin.segment_bytes;
    world.models = origin.models.clone();
    let recovered = world.recover().unwrap();
    world.resume(recovered);
    world.open_all().unwrap();
    world
}

#[test]
fn without_checkpoints_a_compacted_log_is_read_as_it_is() {
    let mut world = busy_world(Codec::None);
    let done = compact(&mut world, key(7, 0), NOW).unwrap();
    let left = lines(&batches(&world, &done.view));
    world.produce_keyed(key(7, 0), -1, &[(1, Some(9))], Codec::None).unwrap();
    let checkpoint = paths::checkpoint(&data(), crate::model::ShardId(0));
    world.disk.flip_bit(&checkpoint, 20, 3);
    world.disk.crash(3);
    let recovered = world.recover().unwrap();
    let state = &recovered.partitions[0].state;
    assert_eq!(state.flushed_end, world.models[&key(7, 0)].end());
    assert_eq!(state.epochs, [(LeaderEpoch(EPOCH), Offset::ZERO)]);
    let found = lines(&batches(&world, &recovered.partitions[0].view));
    assert_eq!(found[..left.len()], left[..]);
    assert_eq!(found.len(), left.len() + 1);
}

#[test]
fn a_full_disk_ends_a_compaction_and_leaves_the_log_as_it_was() {
    let mut world = busy_world(Codec::None);
    let before = view(&mut world, key(7, 0)).unwrap();
    let used: u64 = world.disk.files().values().map(|bytes| bytes.len() as u64).sum();
    world.disk.set_quota(Some(used + 30));
    let done = compact(&mut world, key(7, 0), NOW).unwrap();
    assert_eq!(done.result, Err(CompactionFailure::NoSpace));
    assert_eq!(done.view.sealed, before.sealed);
    assert_eq!(lines(&batches(&world, &done.view)), written(&world));
    world.disk.set_quota(None);
    assert!(compact(&mut world, key(7, 0), NOW).unwrap().result.is_ok());
}

#[test]
fn records_that_cannot_be_read_are_left_alone_with_all_that_is_around_them() {
    let mut world = busy_world(Codec::None);
    let before = view(&mut world, key(7, 0)).unwrap();
    let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
    let second = before.sealed[1].base_offset;
    let path = paths::segment_file(&dir, paths::SegmentFile::Log, second);
    world.disk.flip_bit(&path, 100, 1);
    let done = compact(&mut world, key(7, 0), NOW).unwrap();
    let Err(CompactionFailure::Unreadable(reason)) = done.result else { panic!("{done:?}") };
    assert!(reason.contains(&format!("segment {second} at byte")), "{reason}");
    assert_eq!(done.view.sealed, before.sealed);
}

#[test]
fn deletion_and_cuts_end_a_compaction() {
    for cut in [false, true] {
        let mut world = busy_world(Codec::None);
        let before = view(&mut world, key(7, 0)).unwrap();
        let end_offset = before.sealed.last().unwrap().end_offset;
        let key = key(7, 0);
        world.replies(key, StoreJob::Compact { key, id: 1, end_offset, now: NOW }).unwrap();
        world.compact(key).unwrap();
        if cut {
            let end_offset = before.sealed[1].base_offset;
            let job = StoreJob::Truncate { key, end_offset, begins_anew: false };
            world.job(job).unwrap();
            let swapped = world.replies(key, StoreJob::SwapSegments { key, id: 1 }).unwrap();
            let [StoreReply::Swapped { view, .. }] = &swapped[..] else { panic!("{swapped:?}") };
            assert_eq!(view.end_offset(), Some(end_offset));
            assert_eq!(view.holes_end, end_offset);
        } else {
            let log_start_offset = before.sealed[0].end_offset;
            world.job(StoreJob::DeleteSegments { key, log_start_offset }).unwrap();
            let replies = world.compact(key).unwrap();
            let [StoreReply::Compacted { result, .. }] = &replies[..] else {
                panic!("{replies:?}")
            };
            assert_eq!(*result, Err(CompactionFailure::Overtaken));
        }
    }
}

#[test]
fn a_cut_in_a_hole_ends_the_log_where_it_was_asked_to() {
    let mut world = busy_world(Codec::None);
    let done = compact(&mut world, key(7, 0), NOW).unwrap();
    let after = batches(&world, &done.view);
    let hole = after.windows(2).find(|pair| pair[0].end_offset() < pair[1].header.base_offset);
    let at = hole.expect("there is a hole")[0].end_offset().plus(1);
    let key = key(7, 0);
    let job = StoreJob::Truncate { key, end_offset: at, begins_anew: false };
    let StoreReply::Truncated { view, .. } = world.job(job).unwrap() else { panic!("not cut") };
    assert_eq!(view.end_offset(), Some(at));
    let left = batches(&world, &view);
    assert_eq!(left.last().unwrap().end_offset(), at);
    assert!(view.first_dirty_offset <= view.holes_end && view.holes_end <= at);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_log_keeps_the_newest_of_every_key(
        all in vec(vec((0u8..12, prop::option::of(1usize..200)), 1..5), 4..60),
        segment_bytes in 300u64..3000,
        slots in 16usize..200,
        codec in 0usize..5,
        deaths in vec(0u64..120, 0..3),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(1, 1);
        world.segment_bytes = segment_bytes;
        for (partition, topic_name) in world.partitions.clone() {
            let config = super::world::config(segment_bytes);
            world.job(StoreJob::Open { key: partition, topic_name, config }).unwrap();
        }
        let key = key(7, 0);
        for (at, records) in all.iter().enumerate() {
            let producer = [5, -1][at % 2];
            world.produce_keyed(key, producer, records, Codec::ALL[codec]).unwrap();
        }
        world.checkpoint(0).unwrap();
        let everything = written(&world);
        for death in deaths {
            world.limit_map(slots * SLOT_BYTES);
            world.disk.fail_after(Some(death));
            let _ = compact(&mut world, key, NOW);
            world.disk.fail_after(None);
            world.disk.crash(seed ^ death);
            let recovered = world.recover().unwrap();
            check_suffixes(&everything, &lines(&batches(&world, &recovered.partitions[0].view)));
            world.resume(recovered);
            world.open_all().unwrap();
        }
        world.limit_map(slots * SLOT_BYTES);
        if view(&mut world, key).unwrap().sealed.is_empty() {
            return Ok(());
        }
        loop {
            let done = compact(&mut world, key, NOW).unwrap();
            let report = done.result.unwrap();
            let left = lines(&batches(&world, &done.view));
            check_suffixes(&everything, &left);
            if !report.was_map_full {
                prop_assert_eq!(left, newest(&everything, done.view.first_dirty_offset));
                break;
            }
        }
        world.disk.crash(seed);
        let recovered = world.recover().unwrap();
        let end = recovered.partitions[0].view.first_dirty_offset;
        let left = lines(&batches(&world, &recovered.partitions[0].view));
        prop_assert_eq!(left, newest(&everything, end));
    }
}
