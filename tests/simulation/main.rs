//! One node, and a cluster of four (see `cluster`), simulated: the real machines, the real store and the real
//! recovery on virtual time and on disks that lose what a disk may lose. One seed is one exact run.
//!
//!     cargo test --test simulation                                  a few hundred seeds
//!     CHRONIK_SIM_SEEDS=0..5000 cargo test --release --test simulation -- --nocapture     a range, and what it came to
//!     CHRONIK_SIM_SEED=17 cargo test --test simulation -- --nocapture     one seed, with its trace
//!     CHRONIK_SIM_CLUSTER_SEED=17 cargo test --test simulation cluster -- --nocapture     one of a cluster
//!
//! The simulator performs the effects: WAL writes in any order, storage jobs late, files prepared late. It
//! crashes the process between any two of them, cuts the power in the middle of writes, fills the disk and
//! flips bits. A model of what clients were told is compared with what they can read.

mod cluster;
mod cluster_groups;
mod groups;
mod model;
mod node;
mod rng;
mod run;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use run::{Bug, Event, Outcome, run};

/// Seeds of a plain `cargo test`.
const SEEDS: std::ops::Range<u64> = 0..300;
/// Within so many seeds a deliberate bug must be found.
const BUG_SEEDS: u64 = 60;

/// Runs seeds on all cores and adds up what happened; panics with the first seed that fails.
fn campaign(seeds: std::ops::Range<u64>) -> BTreeMap<Event, u64> {
    let mut events: BTreeMap<Event, u64> = BTreeMap::new();
    for (event, count) in on_all_cores(seeds, checked).into_iter().flat_map(|it| it.events) {
        *events.entry(event).or_default() += count;
    }
    events
}

/// A run that must find nothing.
fn checked(seed: u64) -> Outcome {
    let replay = format!("CHRONIK_SIM_SEED={seed} cargo test --test simulation -- --nocapture");
    let result = std::panic::catch_unwind(|| run(seed, None, false));
    match result {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(breach)) => panic!("seed {seed}: {breach}\nreplay: {replay}"),
        Err(_) => panic!("seed {seed} panicked\nreplay: {replay}"),
    }
}

fn seeds_wanted() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("CHRONIK_SIM_SEEDS") else { return SEEDS };
    let (from, to) = text.split_once("..").expect("CHRONIK_SIM_SEEDS is FROM..TO");
    from.parse().expect("FROM is a number")..to.parse().expect("TO is a number")
}

#[test]
fn no_acknowledged_record_is_lost_in_any_seed() {
    if let Ok(seed) = std::env::var("CHRONIK_SIM_SEED") {
        let seed = seed.parse().expect("CHRONIK_SIM_SEED is a number");
        let outcome = run(seed, None, true);
        println!("{outcome:?}");
        outcome.expect("the seed finds nothing");
        return;
    }
    let seeds = seeds_wanted();
    let (count, begun) = (seeds.end - seeds.start, Instant::now());
    let events = campaign(seeds);
    println!("{count} seeds in {:.1} s: {events:?}", begun.elapsed().as_secs_f64());
    if count >= SEEDS.end {
        for event in Event::ALL {
            assert!(events.contains_key(event), "no seed had {event:?}: the simulator went blind");
        }
    }
}

#[test]
fn seeds_that_once_failed_stay_mended() {
    for seed in seeds_of(include_str!("seeds.txt")) {
        checked(seed);
    }
}

/// The seeds of a list: lines that begin with one, and remarks.
fn seeds_of(list: &str) -> impl Iterator<Item = u64> {
    list.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let seed = line.split_whitespace().next().expect("a line begins with its seed");
        seed.parse().expect("a seed is a number")
    })
}

#[test]
fn same_seed_gives_the_same_trace() {
    for seed in [1, 7, 23] {
        assert_eq!(checked(seed).trace_hash, checked(seed).trace_hash, "seed {seed}");
    }
    assert_ne!(checked(1).trace_hash, checked(7).trace_hash, "seeds differ");
}

/// The checker can fail: each deliberate bug is found.
fn is_found(bug: Bug) {
    let found = (0..BUG_SEEDS).find(|seed| {
        let result = std::panic::catch_unwind(|| run(*seed, Some(bug), false));
        !matches!(result, Ok(Ok(_)))
    });
    println!("{bug:?} is found by seed {found:?}");
    assert!(found.is_some(), "{bug:?} is not found within {BUG_SEEDS} seeds");
}

#[test]
fn acknowledging_before_the_flush_is_found() {
    is_found(Bug::AckBeforeFlush);
}

#[test]
fn acknowledging_past_a_hole_is_found() {
    is_found(Bug::AckPastHole);
}

#[test]
fn a_checkpoint_claimed_before_its_sync_is_found() {
    is_found(Bug::CheckpointUnsynced);
}

#[test]
fn a_recovery_without_the_last_commit_is_found() {
    is_found(Bug::LastCommitIgnored);
}

#[test]
fn a_recovery_that_trusts_the_cache_is_found() {
    is_found(Bug::CacheTrusted);
}

#[test]
fn a_torn_tail_that_stays_readable_is_found() {
    is_found(Bug::TornTailKept);
}

#[test]
fn a_recovery_that_trusts_names_in_the_cache_is_found() {
    is_found(Bug::NamesTrusted);
}

#[test]
fn segments_that_are_exchanged_before_they_are_durable_are_found() {
    is_found(Bug::SwapUnsynced);
}

/// Seeds of a plain `cargo test` for the cluster.
const CLUSTER_SEEDS: std::ops::Range<u64> = 0..150;
/// Within so many seeds a deliberate bug of replication must be found.
const CLUSTER_BUG_SEEDS: u64 = 60;

/// A cluster's run that must find nothing.
fn checked_cluster(seed: u64) -> cluster::Outcome {
    let replay = format!(
        "CHRONIK_SIM_CLUSTER_SEED={seed} cargo test --test simulation cluster -- --nocapture"
    );
    match std::panic::catch_unwind(|| cluster::run(seed, None, false)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(breach)) => panic!("cluster seed {seed}: {breach}\nreplay: {replay}"),
        Err(_) => panic!("cluster seed {seed} panicked\nreplay: {replay}"),
    }
}

#[test]
fn no_acknowledged_record_of_a_cluster_is_lost_in_any_seed() {
    if let Ok(seed) = std::env::var("CHRONIK_SIM_CLUSTER_SEED") {
        let seed = seed.parse().expect("CHRONIK_SIM_CLUSTER_SEED is a number");
        let outcome = cluster::run(seed, None, true);
        println!("{outcome:?}");
        outcome.expect("the seed finds nothing");
        return;
    }
    let wanted = std::env::var("CHRONIK_SIM_SEEDS").is_ok();
    let seeds = if wanted { seeds_wanted() } else { CLUSTER_SEEDS };
    let (count, begun) = (seeds.end - seeds.start, Instant::now());
    let mut events: BTreeMap<cluster::Event, u64> = BTreeMap::new();
    let mut micros = 0;
    for outcome in on_all_cores(seeds, checked_cluster) {
        micros += outcome.micros;
        for (event, count) in outcome.events {
            *events.entry(event).or_default() += count;
        }
    }
    let (real, simulated) = (begun.elapsed().as_secs_f64(), micros / 1_000_000);
    println!("{count} clusters, {simulated} simulated seconds in {real:.1} s: {events:?}");
    if count >= CLUSTER_SEEDS.end {
        for event in cluster::Event::ALL {
            assert!(events.contains_key(event), "no seed had {event:?}: the simulator went blind");
        }
    }
}

#[test]
fn cluster_seeds_that_once_failed_stay_mended() {
    for seed in seeds_of(include_str!("cluster/seeds.txt")) {
        checked_cluster(seed);
    }
}

/// Runs seeds on all cores.
fn on_all_cores<T: Send>(seeds: std::ops::Range<u64>, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return outcomes;
            }
            outcomes.push(run(seed));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Vec<T>>| {
            thread.join().expect("the panic above names its seed")
        };
        threads.into_iter().flat_map(join).collect()
    })
}

#[test]
fn same_seed_gives_the_same_trace_of_a_cluster() {
    for seed in [1, 7] {
        let trace = |seed| checked_cluster(seed).trace_hash;
        assert_eq!(trace(seed), trace(seed), "seed {seed}");
    }
}

/// The cluster's checks can fail: each deliberate bug is found.
fn is_found_in_a_cluster(bug: cluster::Bug) {
    let found = (0..CLUSTER_BUG_SEEDS).find_map(|seed| {
        match std::panic::catch_unwind(|| cluster::run(seed, Some(bug), false)) {
            Ok(Ok(_)) => None,
            Ok(Err(breach)) => Some((seed, breach)),
            Err(_) => Some((seed, "the panic above".to_owned())),
        }
    });
    println!("{bug:?} is found: {found:?}");
    assert!(found.is_some(), "{bug:?} is not found within {CLUSTER_BUG_SEEDS} seeds");
}

#[test]
fn acknowledging_before_the_flush_is_found_in_a_cluster() {
    is_found_in_a_cluster(cluster::Bug::AckBeforeFlush);
}

#[test]
fn counting_a_follower_before_its_flush_is_found() {
    is_found_in_a_cluster(cluster::Bug::FollowerAckBeforeFlush);
}

#[test]
fn a_watermark_of_the_committed_set_is_found() {
    is_found_in_a_cluster(cluster::Bug::CommittedIsrOnly);
}

#[test]
fn a_skipped_truncation_is_found() {
    is_found_in_a_cluster(cluster::Bug::SkippedTruncation);
}

#[test]
fn a_rebooted_broker_that_rejoins_without_its_epoch_is_found() {
    is_found_in_a_cluster(cluster::Bug::RejoinsWithoutEpoch);
}

#[test]
fn a_compaction_beyond_the_high_watermark_is_found() {
    is_found_in_a_cluster(cluster::Bug::CompactsBeyondWatermark);
}

#[test]
fn an_election_outside_the_in_sync_set_is_found() {
    is_found_in_a_cluster(cluster::Bug::ElectionOutsideIsr);
}
