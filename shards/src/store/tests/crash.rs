use proptest::prelude::*;

use super::world::{Dead, World, data, key};
use crate::format::wal_entry::WalEntry;
use crate::machine::effect::StoreJob;
use crate::store::recovery::recover;

#[derive(Clone, Debug)]
enum Step {
    Produce { partition: i32, records: i32, bytes: usize },
    Flush { partition: i32 },
    Roll { partition: i32 },
    Delete { partition: i32, batch: usize },
    Checkpoint { shard: u16 },
    Crash { seed: u64, shards: u16 },
    Restart { shards: u16 },
}

const PARTITIONS: i32 = 3;

fn step() -> impl Strategy<Value = Step> {
    let partition = 0..PARTITIONS;
    prop_oneof![
        8 => (partition.clone(), 1..4, 1usize..3000)
            .prop_map(|(partition, records, bytes)| Step::Produce { partition, records, bytes }),
        4 => partition.clone().prop_map(|partition| Step::Flush { partition }),
        1 => partition.clone().prop_map(|partition| Step::Roll { partition }),
        1 => (partition, 0usize..20).prop_map(|(partition, batch)| Step::Delete { partition, batch }),
        2 => (0u16..3).prop_map(|shard| Step::Checkpoint { shard }),
        1 => (any::<u64>(), 1u16..4).prop_map(|(seed, shards)| Step::Crash { seed, shards }),
        1 => (1u16..4).prop_map(|shards| Step::Restart { shards }),
    ]
}

fn perform(world: &mut World, step: &Step) -> Result<(), Dead> {
    match step {
        Step::Produce { partition, records, bytes } => {
            world.produce(key(7, *partition), *records, &vec![*bytes as u8; *bytes])
        }
        Step::Flush { partition } => world.flush(key(7, *partition)),
        Step::Roll { partition } => {
            world.job(StoreJob::Roll { key: key(7, *partition) }).map(|_| ())
        }
        Step::Delete { partition, batch } => world.delete_records(key(7, *partition), *batch),
        Step::Checkpoint { shard } => world.checkpoint(shard % world.shards),
        Step::Crash { seed, shards } => {
            world.disk.crash(*seed);
            restart(world, *shards);
            Ok(())
        }
        Step::Restart { shards } => {
            for shard in 0..world.shards {
                world.checkpoint(shard)?;
            }
            world.finish();
            restart(world, *shards);
            Ok(())
        }
    }
}

fn restart(world: &mut World, shards: u16) {
    world.shards = shards;
    let recovered = world.recover().unwrap();
    world.check(&recovered);
    world.resume(recovered);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_was_durable_is_recovered_after_any_crash(
        steps in prop::collection::vec(step(), 1..60),
        dies_after in 0u64..400,
        seed in any::<u64>(),
        shards in 1u16..4,
    ) {
        let mut world = World::new(PARTITIONS, 2);
        let mut alive = true;
        world.disk.fail_after(Some(dies_after));
        for step in &steps {
            // A restart on a dying disk would only test the harness.
            if matches!(step, Step::Crash { .. } | Step::Restart { .. }) {
                world.disk.fail_after(None);
            }
            if perform(&mut world, step).is_err() {
                alive = false;
                break;
            }
        }
        // Commits may be in flight at the end, two at a time.
        if alive {
            for partition in [0, 1] {
                let key = key(7, partition);
                let batch = world.next_batch(key, 2, b"in flight");
                let _ = world.start_commit(key, vec![WalEntry::Batch { key, batch }]);
            }
        }
        world.disk.crash(seed);
        restart(&mut world, shards);
        // And it goes on from there.
        for partition in 0..PARTITIONS {
            world.produce(key(7, partition), 1, b"later").unwrap();
        }
        world.disk.crash(seed ^ 1);
        restart(&mut world, 3 - shards / 2);
    }
}

/// A world with something of everything: flushed, rolled, only in the WAL.
fn busy_world() -> World {
    let mut world = World::new(PARTITIONS, 3);
    for round in 0..6usize {
        for partition in 0..PARTITIONS {
            world.produce(key(7, partition), 2, &vec![7; 700 * (round + 1)]).unwrap();
        }
        match round {
            2 => (0..3).for_each(|shard| world.checkpoint(shard).unwrap()),
            4 => world.flush(key(7, 0)).unwrap(),
            _ => {}
        }
    }
    world.delete_records(key(7, 1), 2).unwrap();
    world
}

#[test]
fn a_crash_at_any_step_of_a_recovery_changes_nothing_in_its_result() {
    let mut world = busy_world();
    world.disk.crash(11);
    world.shards = 2;
    let origin = world.disk.fork();
    let reference = {
        let recovered = recover(&origin.fork(), &world.input()).unwrap();
        recovered.partitions.into_iter().map(|partition| partition.state).collect::<Vec<_>>()
    };
    let mut changes = 0;
    loop {
        world.disk = origin.fork();
        world.disk.fail_after(Some(changes));
        let finished = recover(&world.disk, &world.input()).is_ok();
        for shards in [2, 1] {
            let crashed = world.disk.fork();
            crashed.crash(changes * 31 + u64::from(shards));
            let survivor = std::mem::replace(&mut world.disk, crashed);
            world.shards = shards;
            let recovered = recover(&world.disk, &world.input())
                .unwrap_or_else(|error| panic!("after {changes} changes: {error}"));
            world.check(&recovered);
            let states: Vec<_> =
                recovered.partitions.into_iter().map(|partition| partition.state).collect();
            assert_eq!(states, reference, "after {changes} changes");
            world.disk = survivor;
        }
        world.shards = 2;
        if finished {
            break;
        }
        changes += 1;
    }
    assert!(changes > 20, "the recovery had steps");
}

#[test]
fn an_orderly_restart_replays_nothing_and_rewrites_no_segment() {
    let mut world = busy_world();
    for shard in 0..3 {
        world.checkpoint(shard).unwrap();
    }
    world.finish();
    let topics = crate::store::paths::topics_dir(&data());
    let logs = |world: &World| {
        let mut files = world.disk.files();
        files.retain(|path, _| {
            path.starts_with(&topics) && path.extension().is_some_and(|kind| kind == "log")
        });
        files
    };
    let before = logs(&world);
    let recovered = world.recover().unwrap();
    world.check(&recovered);
    assert_eq!(logs(&world), before);
    assert!(!recovered.report.iter().any(|line| line.contains("from the WAL")));
}

#[test]
fn a_recovery_without_checkpoints_reads_the_last_segments() {
    let world = busy_world();
    for shard in 0..3 {
        world.disk.flip_bit(
            &crate::store::paths::checkpoint(&data(), crate::model::ShardId(shard)),
            20,
            3,
        );
    }
    world.disk.crash(5);
    let recovered = world.recover().unwrap();
    assert!(recovered.report.iter().any(|line| line.contains("no checkpoint")));
    for partition in &recovered.partitions {
        assert_eq!(partition.state.flushed_end, world.models[&partition.state.key].end());
    }
}
