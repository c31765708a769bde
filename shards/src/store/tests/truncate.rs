//! A cut log is the log that never had more.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::world::{NOW, World, check_indexes, config, data, key, read_log};
use crate::format::epoch_checkpoint;
use crate::format::positions::ProducerCheckpoint;
use crate::format::record_batch::StoredBatch;
use crate::format::segment_index::time_entries;
use crate::machine::effect::{CheckpointJob, LogView, StoreJob, StoreReply};
use crate::model::{LeaderEpoch, Lsn, Offset, ShardId};
use crate::store::SegmentStore;
use crate::store::disk::{Disk, read_file};
use crate::store::paths::{self, SegmentFile, segment_file};
use crate::store::sim_disk::SimDisk;

fn store(disk: &SimDisk) -> SegmentStore<SimDisk> {
    for dir in [data(), paths::shards_dir(&data()), paths::topics_dir(&data())] {
        disk.create_dir(&dir).unwrap();
    }
    disk.create_dir(&paths::shard_dir(&data(), ShardId(0))).unwrap();
    disk.sync_filesystem(&data()).unwrap();
    let mut store = SegmentStore::new(disk.clone(), data(), ShardId(0), Vec::new(), 3);
    let (topic_name, config) = ("pears".to_owned(), config(2000));
    execute(&mut store, StoreJob::Open { key: key(7, 0), topic_name, config });
    store
}

fn execute(store: &mut SegmentStore<SimDisk>, job: StoreJob) -> StoreReply {
    store.execute(job).unwrap().pop().unwrap()
}

fn append(store: &mut SegmentStore<SimDisk>, batches: &[StoredBatch]) -> LogView {
    let job = StoreJob::Append { key: key(7, 0), batches: batches.to_vec(), now: NOW };
    match execute(store, job) {
        StoreReply::Segments { view, .. } => view,
        other => panic!("{other:?}"),
    }
}

fn cut(
    store: &mut SegmentStore<SimDisk>,
    end: i64,
    begins_anew: bool,
) -> (LogView, Vec<ProducerCheckpoint>) {
    let job = StoreJob::Truncate { key: key(7, 0), end_offset: Offset(end), begins_anew };
    match execute(store, job) {
        StoreReply::Truncated { view, producers, .. } => (view, producers),
        other => panic!("{other:?}"),
    }
}

/// Twelve batches of two records in two leader epochs, over several segments: more than are remembered of a
/// producer.
fn batches() -> Vec<StoredBatch> {
    let mut world = World::new(1, 1);
    let sizes = [100, 600, 900, 100, 900, 50, 50, 50, 50, 900, 50, 50];
    let batch = |(place, size): (usize, &usize)| {
        let mut batch = world.next_batch(key(7, 0), 2, &vec![3; *size]);
        batch.header.leader_epoch = LeaderEpoch(if place < 7 { 1 } else { 4 });
        batch
    };
    sizes.iter().enumerate().map(batch).collect()
}

fn checkpoint(store: &mut SegmentStore<SimDisk>) {
    let job = CheckpointJob { lsn: Lsn(1), partitions: Vec::new() };
    execute(store, StoreJob::Checkpoint(Box::new(job)));
}

fn files(disk: &SimDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_log = |path: &PathBuf| path.starts_with(paths::topics_dir(&data()));
    disk.files().into_iter().filter(|(path, _)| is_log(path)).collect()
}

#[test]
fn a_cut_at_any_border_leaves_what_a_shorter_log_has() {
    let batches = batches();
    for kept in 0..=batches.len() {
        let (disk, other) = (SimDisk::new(), SimDisk::new());
        let (mut long, mut short) = (store(&disk), store(&other));
        append(&mut long, &batches);
        checkpoint(&mut long);
        let (view, producers) = cut(&mut long, 2 * kept as i64, false);
        let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
        let expected: Vec<u8> = batches[..kept].iter().flat_map(|batch| batch.to_log()).collect();
        assert_eq!(read_log(&disk, &dir, &view), expected, "{kept} kept");
        let last = producers.first().and_then(|producer| producer.batches.last());
        let expected = batches[..kept].last().map(|batch| batch.header.last_offset());
        assert_eq!(last.map(|batch| batch.last_offset), expected, "{kept} kept");
        checkpoint(&mut long);

        // Both go on alike.
        append(&mut short, &batches[..kept]);
        let (long_view, short_view) =
            (append(&mut long, &batches[kept..]), append(&mut short, &batches[kept..]));
        assert_eq!(long_view.end_offset(), short_view.end_offset());
        check_indexes(&disk, &dir, &long_view);
        for store in [&mut long, &mut short] {
            checkpoint(store);
        }
        let epochs = dir.join(epoch_checkpoint::FILE_NAME);
        assert_eq!(read_file(&disk, &epochs).unwrap(), read_file(&other, &epochs).unwrap());
        let log = |view: &LogView, disk| read_log(disk, &dir, view);
        assert_eq!(log(&long_view, &disk), log(&short_view, &other));
    }
}

#[test]
fn a_cut_needs_no_space_no_sync_and_no_index() {
    let batches = batches();
    let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
    for (kept, without_index) in (0..=batches.len()).flat_map(|kept| [(kept, false), (kept, true)])
    {
        let (disk, other) = (SimDisk::new(), SimDisk::new());
        let (mut full, mut roomy) = (store(&disk), store(&other));
        for store in [&mut full, &mut roomy] {
            append(store, &batches);
        }
        if without_index {
            let is_index = |path: &PathBuf| path.extension().is_some_and(|it| it == "index");
            for path in files(&disk).into_keys().filter(is_index) {
                disk.remove_file(&path).unwrap();
            }
        }
        disk.set_quota(Some(0));
        disk.fail_syncs(true);
        let end = 2 * kept as i64;
        let (cut_view, _) = cut(&mut full, end, false);
        let other_view = cut(&mut roomy, end, false).0;
        assert!(cut_view.iter().eq(other_view.iter()), "{kept} kept");
        disk.set_quota(None);
        disk.fail_syncs(false);
        let views = [&mut full, &mut roomy].map(|store| append(store, &batches[kept..]));
        assert!(views[0].iter().eq(views[1].iter()), "{kept} kept");
        assert_eq!(read_log(&disk, &dir, &views[0]), read_log(&other, &dir, &views[1]));
        for segment in views[0].iter() {
            let path = segment_file(&dir, SegmentFile::TimeIndex, segment.base_offset);
            let time_index = read_file(&disk, &path).unwrap();
            let last = time_entries(&time_index).next_back().map(|entry| entry.timestamp);
            assert!(last.is_none_or(|last| last <= segment.max_timestamp));
            if views[0].active.is_none_or(|active| active.base_offset != segment.base_offset) {
                assert_eq!(
                    last,
                    Some(segment.max_timestamp),
                    "a closed segment says its largest time"
                );
            }
        }
    }
}

#[test]
fn a_cut_within_a_batch_fences_the_partition() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    append(&mut store, &batches());
    let job = StoreJob::Truncate { key: key(7, 0), end_offset: Offset(7), begins_anew: false };
    let reply = execute(&mut store, job);
    assert!(matches!(reply, StoreReply::Failed { .. }), "{reply:?}");
}

#[test]
fn a_cut_behind_the_end_changes_nothing() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    append(&mut store, &batches());
    let before = files(&disk);
    cut(&mut store, 24, false);
    assert_eq!(files(&disk), before);
}

#[test]
fn a_log_that_begins_anew_has_nothing_and_takes_any_offset() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    let batches = batches();
    append(&mut store, &batches[..9]);
    let (view, producers) = cut(&mut store, 20, true);
    assert_eq!((view.end_offset(), producers), (None, Vec::new()));
    let view = append(&mut store, &batches[10..]);
    assert_eq!(view.iter().next().map(|segment| segment.base_offset), Some(Offset(20)));
}
