use std::io;

use super::world::{NOW, World, check_indexes, config, data, expected_state, key, read_log};
use crate::format::producer_snapshot;
use crate::format::record_batch::{BatchHeader, StoredBatch};
use crate::machine::effect::{CheckpointJob, LogView, StoreJob, StoreReply};
use crate::model::{Lsn, Offset, ShardId};
use crate::store::deleted_topics::DeletedTopics;
use crate::store::disk::{Disk, OpenMode, StdDisk, read_file};
use crate::store::paths::{self, SegmentFile, segment_file};
use crate::store::recovery::{Gone, RecoveryInput, recover};
use crate::store::sim_disk::SimDisk;
use crate::store::{SegmentStore, StoreError};

fn store(disk: &SimDisk) -> SegmentStore<SimDisk> {
    for dir in [data(), paths::shards_dir(&data()), paths::topics_dir(&data())] {
        disk.create_dir(&dir).unwrap();
    }
    disk.create_dir(&paths::shard_dir(&data(), ShardId(0))).unwrap();
    disk.sync_filesystem(&data()).unwrap();
    let mut store = SegmentStore::new(disk.clone(), data(), ShardId(0), Vec::new(), 3);
    let reply = execute(&mut store, open(2000));
    assert!(matches!(reply, StoreReply::Segments { .. }), "{reply:?}");
    store
}

fn open(segment_bytes: u64) -> StoreJob {
    let config = config(segment_bytes);
    StoreJob::Open { key: key(7, 0), topic_name: "pears".to_owned(), config }
}

fn execute(store: &mut SegmentStore<SimDisk>, job: StoreJob) -> StoreReply {
    store.execute(job).unwrap().pop().unwrap()
}

fn append(store: &mut SegmentStore<SimDisk>, batches: &[StoredBatch]) -> StoreReply {
    execute(store, StoreJob::Append { key: key(7, 0), batches: batches.to_vec(), now: NOW })
}

fn view(reply: StoreReply) -> LogView {
    let StoreReply::Segments { view, .. } = reply else { panic!("{reply:?}") };
    view
}

/// Batches of one producer, from offset 0.
fn batches(sizes: &[usize]) -> Vec<StoredBatch> {
    let mut world = World::new(1, 1);
    sizes.iter().map(|size| world.next_batch(key(7, 0), 2, &vec![3; *size])).collect()
}

#[test]
fn one_append_rolls_as_often_as_it_must_and_leaves_snapshots() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    let batches = batches(&[100, 600, 900, 100, 900, 50]);
    let view = view(append(&mut store, &batches));
    let bases: Vec<_> = view.iter().map(|segment| segment.base_offset.0).collect();
    assert_eq!(bases, [0, 4, 6, 8, 10]);
    let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
    let expected: Vec<u8> = batches.iter().flat_map(|batch| batch.to_log()).collect();
    assert_eq!(read_log(&disk, &dir, &view), expected);
    check_indexes(&disk, &dir, &view);
    for base in [4, 6, 8, 10] {
        let path = segment_file(&dir, SegmentFile::Snapshot, Offset(base));
        let producers = producer_snapshot::decode(&read_file(&disk, &path).unwrap()).unwrap();
        assert_eq!(producers[0].batches[0].last_offset, Offset(base - 1));
    }
}

#[test]
fn an_append_without_space_is_cut_back_and_succeeds_later() {
    let batches = batches(&[100, 600, 900, 100, 900, 50]);
    let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
    let mut refused = 0;
    for quota in (300..6500).step_by(97) {
        let disk = SimDisk::new();
        let mut store = store(&disk);
        let before = view(append(&mut store, &batches[..1]));
        let files = disk.files();
        disk.set_quota(Some(quota));
        match append(&mut store, &batches[1..]) {
            StoreReply::NoSpace { key: Some(found) } => {
                assert_eq!(found, key(7, 0));
                assert!(disk.files() == files, "quota {quota}: as before");
                assert_eq!(read_log(&disk, &dir, &before), batches[0].to_log());
                refused += 1;
            }
            reply => assert_eq!(view(reply).end_offset(), Some(Offset(12))),
        }
        disk.set_quota(None);
        if disk.files() == files {
            let after = view(append(&mut store, &batches[1..]));
            check_indexes(&disk, &dir, &after);
        }
    }
    assert!(refused > 10);
}

#[test]
fn a_failed_sync_is_fatal_and_a_full_disk_is_not() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    append(&mut store, &batches(&[100]));
    let job = || {
        let job = CheckpointJob { lsn: Lsn(4), partitions: Vec::new() };
        StoreJob::Checkpoint(Box::new(job))
    };
    disk.set_quota(Some(0));
    let reply = execute(&mut store, job());
    assert!(matches!(reply, StoreReply::NoSpace { key: None }), "{reply:?}");
    disk.set_quota(None);
    assert!(matches!(execute(&mut store, job()), StoreReply::Checkpointed { lsn: Lsn(4) }));
    disk.fail_syncs(true);
    assert!(matches!(store.execute(job()), Err(StoreError::Sync { .. })));
}

#[test]
fn a_partition_whose_epochs_cannot_be_written_does_not_keep_the_checkpoint_from_the_others() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    append(&mut store, &batches(&[100]));
    // The file's place is taken.
    let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
    disk.create_dir(&dir.join("leader-epoch-checkpoint.tmp")).unwrap();
    let checkpoint = |store: &mut SegmentStore<SimDisk>, lsn| {
        let job = CheckpointJob { lsn: Lsn(lsn), partitions: Vec::new() };
        store.execute(StoreJob::Checkpoint(Box::new(job))).unwrap()
    };
    let replies = checkpoint(&mut store, 4);
    let [StoreReply::Failed { key: failed, .. }, StoreReply::Checkpointed { lsn }] = &replies[..]
    else {
        panic!("{replies:?}")
    };
    assert_eq!((*failed, *lsn), (key(7, 0), Lsn(4)));
    // Once is enough.
    let replies = checkpoint(&mut store, 5);
    assert!(matches!(replies[..], [StoreReply::Checkpointed { lsn: Lsn(5) }]), "{replies:?}");
}

#[test]
fn an_append_that_does_not_continue_the_log_fences_the_partition() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    let batches = batches(&[100, 100, 100]);
    append(&mut store, &batches[..1]);
    assert!(matches!(append(&mut store, &batches[2..]), StoreReply::Failed { .. }));
    assert!(matches!(append(&mut store, &batches[1..]), StoreReply::Failed { .. }));
}

#[test]
fn deleting_everything_leaves_an_empty_segment_at_the_end() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    let batches = batches(&[900, 900, 900]);
    append(&mut store, &batches);
    execute(&mut store, StoreJob::Roll { key: key(7, 0) });
    let log_start_offset = Offset(6);
    let deleted = StoreJob::DeleteSegments { key: key(7, 0), log_start_offset };
    // A recovery reads what no checkpoint speaks of, for its producers.
    assert!(view(execute(&mut store, deleted)).total_bytes() > 0);
    let model = super::world::Model { batches, ..Default::default() };
    let partitions = vec![expected_state(key(7, 0), &model)];
    let job = CheckpointJob { lsn: Lsn(4), partitions };
    let mut replies = store.execute(StoreJob::Checkpoint(Box::new(job))).unwrap();
    assert!(matches!(replies.pop(), Some(StoreReply::Checkpointed { lsn: Lsn(4) })));
    let view = view(replies.pop().unwrap());
    assert_eq!(view.total_bytes(), 0);
    assert_eq!(view.end_offset(), Some(Offset(6)));
    let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
    let logs = disk.list(&dir).unwrap();
    let logs = logs.iter().filter(|entry| entry.name.ends_with(".log")).count();
    assert_eq!(logs, 1);
}

#[test]
fn a_run_is_durable_when_it_is_done_whatever_was_there_before() {
    for seed in 0..40 {
        let disk = SimDisk::new();
        let mut store = store(&disk);
        let batches = batches(&[900, 3000, 5000, 700, 9000]);
        // What an ordinary append has left in the cache, a run makes durable as well.
        append(&mut store, &batches[..1]);
        let mut run = |batches: &[StoredBatch]| {
            let runs = vec![(key(7, 0), batches.to_vec())];
            let replies = store.execute(StoreJob::AppendRuns { runs, now: NOW }).unwrap();
            assert!(
                matches!(&replies[..], [StoreReply::Segments { .. }, StoreReply::RunsDone]),
                "{replies:?}"
            );
        };
        run(&batches[..2]);
        run(&batches[2..4]);
        run(&batches[4..]);
        disk.crash(seed);
        let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
        let mut found = Vec::new();
        for entry in disk.list(&dir).unwrap() {
            if entry.name.ends_with(".log") {
                let mut content = read_file(&disk, &dir.join(&entry.name)).unwrap();
                while let Ok(header) = BatchHeader::parse(&content) {
                    let rest = content.split_off(header.total_bytes);
                    found.push(content);
                    content = rest;
                }
                assert!(content.iter().all(|byte| *byte == 0), "padding is zeroes");
            }
        }
        let expected: Vec<_> = batches.iter().map(|batch| batch.to_log().to_vec()).collect();
        assert!(found == expected, "seed {seed}");
    }
}

#[test]
fn a_run_without_space_leaves_the_log_as_it_was() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    let batches = batches(&[900, 3000, 5000]);
    let run = |batches: &[StoredBatch]| StoreJob::AppendRuns {
        runs: vec![(key(7, 0), batches.to_vec())],
        now: NOW,
    };
    store.execute(run(&batches[..1])).unwrap();
    let used: usize = disk.files().values().map(Vec::len).sum();
    disk.set_quota(Some(used as u64 + 2000));
    let replies = store.execute(run(&batches[1..])).unwrap();
    let refused =
        matches!(&replies[..], [StoreReply::NoSpace { key: Some(_) }, StoreReply::RunsDone]);
    assert!(refused, "{replies:?}");
    disk.set_quota(None);
    let replies = store.execute(run(&batches[1..])).unwrap();
    let [StoreReply::Segments { view, .. }, StoreReply::RunsDone] = &replies[..] else {
        panic!("{replies:?}")
    };
    assert_eq!(view.end_offset(), batches.last().map(StoredBatch::end_offset));
}

#[test]
fn removing_a_partition_removes_its_directory() {
    let disk = SimDisk::new();
    let mut store = store(&disk);
    append(&mut store, &batches(&[900, 900, 900]));
    let reply = execute(&mut store, StoreJob::Remove { key: key(7, 0) });
    assert!(matches!(reply, StoreReply::Removed { .. }));
    assert!(disk.list(&paths::topics_dir(&data())).unwrap().is_empty());
    let reply = execute(&mut store, StoreJob::Remove { key: key(7, 0) });
    assert!(matches!(reply, StoreReply::Removed { .. }));
}

#[test]
fn a_topic_that_is_opened_after_the_next_of_its_name_leaves_that_one_alone() {
    let disk = SimDisk::new();
    // The newer topic is `key(7, 0)`; the older one is on another shard, whose storage is behind.
    let mut newer = store(&disk);
    let (deleted, mut heard) = DeletedTopics::new(1);
    let mut older = SegmentStore::new(disk.clone(), data(), ShardId(1), Vec::new(), 3)
        .with_deleted_topics(heard.remove(0));
    deleted.note(key(6, 0).topic_id);
    let (topic_name, config) = ("pears".to_owned(), config(2000));
    let reply = execute(&mut older, StoreJob::Open { key: key(6, 0), topic_name, config });
    assert!(matches!(reply, StoreReply::Segments { .. }), "{reply:?}");
    let batches = batches(&[900, 900, 900]);
    let view = view(append(&mut newer, &batches));
    execute(&mut older, StoreJob::Remove { key: key(6, 0) });
    let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
    let expected: Vec<u8> = batches.iter().flat_map(|batch| batch.to_log()).collect();
    assert_eq!(read_log(&disk, &dir, &view), expected);
    assert_eq!(disk.list(&paths::topics_dir(&data())).unwrap().len(), 1);
}

#[test]
fn a_directory_that_cannot_be_removed_is_in_nobodys_way_and_goes_later() {
    let names = |disk: &SimDisk| -> Vec<String> {
        let listed = disk.list(&paths::topics_dir(&data())).unwrap();
        listed.into_iter().map(|entry| entry.name).collect()
    };
    // Wherever an attempt fails: before the directory has another name, and behind that.
    for changes in 0..8 {
        let disk = SimDisk::new();
        let mut store = store(&disk);
        append(&mut store, &batches(&[900, 900, 900]));
        disk.fail_after(Some(changes));
        let replies = store.execute(StoreJob::Remove { key: key(7, 0) }).unwrap();
        disk.fail_after(None);
        assert!(matches!(replies[0], StoreReply::Removed { .. }), "{replies:?}");
        let Some(StoreReply::Leftovers { count: 1 }) = replies.get(1) else {
            assert_eq!(names(&disk), Vec::<String>::new());
            continue;
        };
        assert!(!names(&disk).is_empty(), "after {changes} changes");
        // The partition comes back meanwhile.
        assert_eq!(view(execute(&mut store, open(2000))).end_offset(), None);
        append(&mut store, &batches(&[50]));
        let reply = execute(&mut store, StoreJob::RemoveLeftovers);
        assert!(matches!(reply, StoreReply::Leftovers { count: 0 }), "{reply:?}");
        assert_eq!(names(&disk), ["pears-0"], "after {changes} changes");
        append(&mut store, &batches(&[50, 60])[1..]);
    }
}

#[test]
fn the_real_disk_comes_back_with_what_was_stored() {
    let dir = tempfile::tempdir().unwrap();
    let input = RecoveryInput {
        data: dir.path().to_owned(),
        partitions: vec![(key(7, 0), "pears".to_owned(), config(3000))],
        gone: Gone::default(),
        shards: 1,
        accept_data_loss: false,
        wal_file_bytes: 1 << 20,
        now: NOW,
    };
    let recovered = recover(&StdDisk::default(), &input).unwrap();
    let logs = recovered.logs.into_iter().next().unwrap();
    let mut store = SegmentStore::new(StdDisk::default(), input.data.clone(), ShardId(0), logs, 8);
    store.execute(open(3000)).unwrap();
    let batches = batches(&[900, 900, 900, 1200]);
    let job = StoreJob::Append { key: key(7, 0), batches: batches.clone(), now: NOW };
    let reply = store.execute(job).unwrap().pop();
    let end = batches.last().unwrap().end_offset();
    let model = super::world::Model { batches, ..Default::default() };
    let partitions = vec![expected_state(key(7, 0), &model)];
    let job = CheckpointJob { lsn: Lsn(9), partitions };
    store.execute(StoreJob::Checkpoint(Box::new(job))).unwrap();
    store.finish().unwrap();
    let again = recover(&StdDisk::default(), &input).unwrap();
    assert_eq!(again.partitions[0].state.flushed_end, end);
    let Some(StoreReply::Segments { view, .. }) = reply else { panic!("{reply:?}") };
    assert_eq!(again.partitions[0].view.total_bytes(), view.total_bytes());
    assert_eq!(again.wal[0].next_lsn, Lsn(10));
    let missing = StdDisk::default().open(&dir.path().join("none"), OpenMode::Read).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
}

#[test]
fn a_replica_that_no_start_knew_begins_without_the_segments_of_a_former_one() {
    let disk = SimDisk::new();
    append(&mut store(&disk), &batches(&[100, 600, 900, 100]));
    let dir = paths::partition_dir(&data(), "pears", key(7, 0).partition);
    assert!(read_file(&disk, &segment_file(&dir, SegmentFile::Log, Offset(4))).is_ok());
    let mut again = SegmentStore::new(disk.clone(), data(), ShardId(0), Vec::new(), 3);
    assert_eq!(view(execute(&mut again, open(2000))).end_offset(), None);
    append(&mut again, &batches(&[50]));
    assert!(read_file(&disk, &segment_file(&dir, SegmentFile::Log, Offset(4))).is_err());
}

#[test]
fn a_partition_whose_directory_found_no_space_has_nothing_to_cut() {
    let disk = SimDisk::new();
    drop(store(&disk));
    disk.set_quota(Some(0));
    let mut store = SegmentStore::new(disk.clone(), data(), ShardId(0), Vec::new(), 3);
    assert!(matches!(execute(&mut store, open(2000)), StoreReply::NoSpace { .. }));
    let cut = StoreJob::Truncate { key: key(7, 0), end_offset: Offset(0), begins_anew: true };
    assert!(matches!(execute(&mut store, cut), StoreReply::Truncated { .. }));
    disk.set_quota(None);
    assert_eq!(view(execute(&mut store, open(2000))).end_offset(), None);
}
