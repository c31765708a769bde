//! Damage to what was acknowledged is named and refused, and never silently cut away.

use super::world::{World, data, key};
use crate::format::wal::{BLOCK_BYTES, encoded_bytes};
use crate::format::wal_entry::WalEntry;
use crate::machine::effect::StoreJob;
use crate::model::{Offset, PartitionIndex, ReplicaKey, ShardId, TopicId, WalFileSeq};
use crate::store::disk::{Disk, OpenMode};
use crate::store::paths::{self, SegmentFile, segment_file};
use crate::store::recovery::{Damage, Recovered, RecoveryError, recover};
use crate::store::sim_disk::SimDisk;

const KEY: ReplicaKey = ReplicaKey { topic_id: TopicId([7; 16]), partition: PartitionIndex(0) };

/// One partition on one shard, with a batch of two records an entry, a block a commit.
fn world(batches: usize) -> World {
    let mut world = World::new(1, 1);
    for _ in 0..batches {
        world.produce(KEY, 2, b"value").unwrap();
    }
    world
}

fn damages(world: &World) -> Vec<Damage> {
    let before = world.disk.files();
    match recover(&world.disk, &world.input()) {
        Err(RecoveryError::Damaged(damages)) => {
            assert!(world.disk.files() == before, "a refusal changes nothing");
            damages
        }
        other => panic!("not refused: {other:?}"),
    }
}

fn accepted(world: &World) -> Recovered {
    let input = crate::store::recovery::RecoveryInput { accept_data_loss: true, ..world.input() };
    recover(&world.disk, &input).unwrap()
}

fn offsets(damages: &[Damage]) -> Vec<(i64, i64)> {
    let pair = |damage: &Damage| damage.offsets.map(|(from, end)| (from.0, end.0));
    damages.iter().filter(|damage| damage.key == Some(KEY)).filter_map(pair).collect()
}

fn wal_path() -> std::path::PathBuf {
    paths::wal_file(&data(), ShardId(0), WalFileSeq(1))
}

fn log_path(base: i64) -> std::path::PathBuf {
    let dir = paths::partition_dir(&data(), "pears", KEY.partition);
    segment_file(&dir, SegmentFile::Log, Offset(base))
}

fn truncate(disk: &SimDisk, path: &std::path::Path, bytes: u64) {
    let file = disk.open(path, OpenMode::Write).unwrap();
    disk.truncate(&file, bytes).unwrap();
    disk.sync(&file).unwrap();
}

// The first commit of a world opens the partition: batch n is in block n + 1.

#[test]
fn a_damaged_commit_in_the_middle_of_the_wal_names_its_offsets_and_refuses() {
    for position in [8, 60, 120] {
        let world = world(5);
        world.disk.flip_bit(&wal_path(), 3 * BLOCK_BYTES + position, 2);
        let found = damages(&world);
        // What the commit says of itself where it still says something, and the gap it leaves.
        assert!(offsets(&found).contains(&(4, 10)), "{found:?}");
        assert!(found.iter().any(|damage| damage.what.contains("LSN 4")), "{found:?}");
        let recovered = accepted(&world);
        assert_eq!(recovered.partitions[0].state.flushed_end, Offset(4));
        assert!(recovered.report.iter().any(|line| line.contains("lost, as accepted")));
    }
}

#[test]
fn a_damaged_last_commit_is_a_torn_tail() {
    let mut world = world(5);
    world.disk.flip_bit(&wal_path(), 5 * BLOCK_BYTES + 60, 2);
    // As a torn tail it counts as never acknowledged.
    let model = world.models.get_mut(&KEY).unwrap();
    model.batches.pop();
    let recovered = world.recover().unwrap();
    world.check(&recovered);
    assert!(recovered.report.iter().any(|line| line.contains("torn tail")));
}

#[test]
fn a_seal_turns_damage_to_the_last_batch_into_corruption() {
    let mut world = world(5);
    world.commit(KEY, Vec::new()).unwrap();
    world.disk.flip_bit(&wal_path(), 5 * BLOCK_BYTES + 60, 2);
    assert!(offsets(&damages(&world)).contains(&(8, 10)));
}

#[test]
fn commits_behind_a_torn_one_are_dropped_with_it() {
    let mut world = world(3);
    let mut writes = Vec::new();
    for _ in 0..2 {
        let batch = world.next_batch(KEY, 2, b"in flight");
        let entries = vec![WalEntry::Batch { key: KEY, batch }];
        assert_eq!(encoded_bytes(&entries) as u64, BLOCK_BYTES);
        writes.push(world.start_commit(KEY, entries).unwrap());
    }
    // Only the second of the two lands.
    world.disk.complete_write(writes[1]).unwrap();
    // A seed that keeps no sector of the first: its header is in its first sector.
    let origin = world.disk.fork();
    let lost = (0..64).find(|seed| {
        let disk = origin.fork();
        disk.crash(*seed);
        let files = disk.files();
        files[&wal_path()][4 * BLOCK_BYTES as usize] == 0
    });
    world.disk.crash(lost.unwrap());
    let recovered = world.recover().unwrap();
    world.check(&recovered);
    assert_eq!(recovered.partitions[0].state.flushed_end, Offset(6));
}

#[test]
fn synced_records_that_do_not_verify_are_damage_and_unsynced_ones_are_replaced() {
    let mut world = world(4);
    world.checkpoint(0).unwrap();
    world.produce(KEY, 2, b"value").unwrap();
    world.flush(KEY).unwrap();
    let bytes = world.models[&KEY].batches[0].total_bytes() as u64;
    let origin = world.disk.fork();
    world.disk.flip_bit(&log_path(0), 4 * bytes + 70, 1);
    let recovered = world.recover().unwrap();
    world.check(&recovered);

    world.disk = origin.fork();
    world.disk.flip_bit(&log_path(0), 2 * bytes + 70, 1);
    assert_eq!(offsets(&damages(&world))[0], (4, 8));
    assert_eq!(accepted(&world).partitions[0].state.flushed_end, Offset(4));

    world.disk = origin;
    truncate(&world.disk, &log_path(0), 3 * bytes - 1);
    assert_eq!(offsets(&damages(&world))[0], (4, 8));
}

#[test]
fn missing_segments_are_damage() {
    let mut world = world(2);
    world.job(StoreJob::Roll { key: KEY }).unwrap();
    world.checkpoint(0).unwrap();
    world.job(StoreJob::Roll { key: KEY }).unwrap();
    world.produce(KEY, 2, b"value").unwrap();
    world.checkpoint(0).unwrap();
    let origin = world.disk.fork();
    world.disk.remove_file(&log_path(0)).unwrap();
    assert_eq!(offsets(&damages(&world)), [(0, 4)]);
    assert_eq!(accepted(&world).partitions[0].state.log_start_offset, Offset(4));

    world.disk = origin;
    world.disk.remove_file(&log_path(0)).unwrap();
    world.disk.remove_file(&log_path(4)).unwrap();
    assert_eq!(offsets(&damages(&world)), [(0, 6)]);
    let recovered = accepted(&world);
    assert_eq!(recovered.partitions[0].state.log_start_offset, Offset(6));
    assert_eq!(recovered.partitions[0].state.flushed_end, Offset(6));
}

#[test]
fn a_missing_wal_is_damage() {
    let world = world(2);
    world.disk.remove_file(&wal_path()).unwrap();
    assert!(damages(&world)[0].what.contains("no WAL file"));
}

#[test]
fn missing_or_damaged_indexes_are_rebuilt() {
    // Of a segment closed before the last sync only the presence and the ends of the indexes are
    // looked at: the time that a start takes must not grow with the data.
    for (segment_bytes, kinds_of_damage) in [(80_000, 3), (30_000, 2)] {
        let mut world = World::new(1, 1);
        world.segment_bytes = segment_bytes;
        world.open_all().unwrap();
        for size in [3000, 2500, 2000, 4000, 1000, 6000, 200, 5000] {
            world.produce(KEY, 2, &vec![1; size]).unwrap();
        }
        world.checkpoint(0).unwrap();
        let dir = paths::partition_dir(&data(), "pears", KEY.partition);
        let origin = world.disk.fork();
        for kind in [SegmentFile::Index, SegmentFile::TimeIndex] {
            let path = segment_file(&dir, kind, Offset::ZERO);
            for damage in 0..kinds_of_damage {
                world.disk = origin.fork();
                match damage {
                    0 => world.disk.remove_file(&path).unwrap(),
                    1 => truncate(&world.disk, &path, 5),
                    _ => world.disk.flip_bit(&path, 3, 4),
                }
                let recovered = world.recover().unwrap();
                world.check(&recovered);
                assert!(recovered.report.iter().any(|line| line.contains("rebuilt")));
            }
        }
    }
}

#[test]
fn directories_of_deleted_topics_go_and_strays_stay() {
    let mut world = world(1);
    let (deleted, stray) = (TopicId([66; 16]), TopicId([67; 16]));
    for (topic_id, name) in [(deleted, "plums"), (stray, "figs")] {
        let key = ReplicaKey { topic_id, partition: PartitionIndex(0) };
        let config = super::world::config(1000);
        world.models.entry(key).or_default();
        world.job(StoreJob::Open { key, topic_name: name.to_owned(), config }).unwrap();
        world.produce(key, 1, b"x").unwrap();
    }
    world.models.retain(|key, _| *key == KEY);
    let recovered = world.recover().unwrap();
    world.check(&recovered);
    let names: Vec<_> = world
        .disk
        .list(&paths::topics_dir(&data()))
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(names, ["figs-0", "pears-0"]);
    let figs = paths::partition_dir(&data(), "figs", PartitionIndex(0));
    let log = segment_file(&figs, SegmentFile::Log, Offset::ZERO);
    assert!(!world.disk.files()[&log].is_empty(), "what the WAL had of the stray is in it");
}

#[test]
fn a_topic_created_anew_under_the_same_name_gets_the_directory() {
    let mut world = world(2);
    let newer = key(8, 0);
    world.models.insert(newer, super::world::Model::default());
    let config = super::world::config(1000);
    world.job(StoreJob::Open { key: newer, topic_name: "pears".to_owned(), config }).unwrap();
    // The older one's job comes late, as from another shard: it must not touch the newer's files.
    assert!(world.flush(KEY).is_err());
    world.produce(newer, 1, b"new").unwrap();
    world.flush(newer).unwrap();
    world.partitions = vec![(newer, "pears".to_owned())];
    world.models.remove(&KEY);
    let mut input = world.input();
    input.gone.topics.insert(KEY.topic_id);
    let recovered = recover(&world.disk, &input).unwrap();
    world.check(&recovered);
    let entries = world.disk.list(&paths::topics_dir(&data())).unwrap();
    assert_eq!(entries.len(), 1, "{entries:?}");
}

#[test]
fn what_is_left_of_a_replica_that_was_moved_away_goes_and_is_no_part_of_one_that_comes_back() {
    let moved = key(7, 1);
    for is_in_segments in [false, true] {
        let mut world = World::new(2, 1);
        for batch in 0..3 {
            world.produce(KEY, 2, b"stays").unwrap();
            world.produce(moved, 2, b"goes").unwrap();
            if batch == 1 && is_in_segments {
                world.checkpoint(0).unwrap();
            }
        }
        let model = world.models[&moved].clone();
        world.partitions.retain(|(key, _)| *key == KEY);
        world.moved_away.insert(moved);
        let dir = paths::partition_dir(&data(), "pears", moved.partition);
        assert!(!world.disk.list(&dir).unwrap().is_empty());
        let recovered = world.recover().unwrap();
        world.check(&recovered);
        let names = world.disk.list(&paths::topics_dir(&data())).unwrap();
        let names: Vec<_> = names.into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["pears-0"], "{:?}", recovered.report);

        // Moved back, it begins without records, and a crash then finds those that came since, and no others.
        world
            .models
            .insert(moved, super::world::Model { sequence: model.sequence, ..Default::default() });
        world.resume(recovered);
        world.partitions.push((moved, "pears".to_owned()));
        world.moved_away.clear();
        world.open_all().unwrap();
        world.produce(moved, 2, b"came since").unwrap();
        world.disk.crash(7);
        let recovered = world.recover().unwrap();
        world.check(&recovered);
    }
}

#[test]
fn a_former_replica_that_was_put_aside_is_not_taken_for_the_one_that_has_its_name() {
    let mut world = world(3);
    world.checkpoint(0).unwrap();
    let plain = paths::partition_dir(&data(), "pears", KEY.partition);
    let aside = paths::Aside::Stray.path(&data(), "pears", KEY);
    world.disk.create_dir(&aside).unwrap();
    let metadata = crate::format::partition_metadata::FILE_NAME;
    let content = world.disk.files()[&plain.join(metadata)].clone();
    let file = world.disk.open(&aside.join(metadata), OpenMode::Write).unwrap();
    world.disk.write_at(&file, 0, &[std::io::IoSlice::new(&content)]).unwrap();
    let recovered = world.recover().unwrap();
    world.check(&recovered);
    assert!(world.disk.list(&aside).is_err(), "{:?}", recovered.report);
}
