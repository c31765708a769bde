//! Groups in simulated clusters: the coordinators of real shards, which fail over with the leaders of their
//! partitions. See `cluster/groups.rs`.
//!
//!     cargo test --test simulation cluster_groups
//!     CHRONIK_SIM_SEEDS=0..500 cargo test --release --test simulation cluster_groups -- --nocapture
//!     CHRONIK_SIM_CLUSTER_GROUPS_SEED=17 cargo test --test simulation cluster_groups -- --nocapture     one seed, with its trace

use std::collections::BTreeMap;
use std::time::Instant;

use crate::cluster::{Bug, Event, Outcome, run_with_groups};
use crate::{on_all_cores, seeds_of, seeds_wanted};

/// Seeds of a plain `cargo test`.
const SEEDS: std::ops::Range<u64> = 0..60;
/// Within so many seeds a deliberate bug must be found.
const BUG_SEEDS: u64 = 60;

/// A run that must find nothing.
fn checked(seed: u64) -> Outcome {
    let replay = format!(
        "CHRONIK_SIM_CLUSTER_GROUPS_SEED={seed} cargo test --test simulation cluster_groups -- --nocapture"
    );
    match std::panic::catch_unwind(|| run_with_groups(seed, None, false)) {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(breach)) => {
            panic!("seed {seed} of clusters with groups: {breach}\nreplay: {replay}")
        }
        Err(_) => panic!("seed {seed} of clusters with groups panicked\nreplay: {replay}"),
    }
}

#[test]
fn groups_survive_the_failures_of_their_coordinators() {
    if let Ok(seed) = std::env::var("CHRONIK_SIM_CLUSTER_GROUPS_SEED") {
        let seed = seed.parse().expect("CHRONIK_SIM_CLUSTER_GROUPS_SEED is a number");
        let outcome = run_with_groups(seed, None, true);
        println!("{outcome:?}");
        outcome.expect("the seed finds nothing");
        return;
    }
    let wanted = std::env::var("CHRONIK_SIM_SEEDS").is_ok();
    let seeds = if wanted { seeds_wanted() } else { SEEDS };
    let (count, begun) = (seeds.end - seeds.start, Instant::now());
    let mut events: BTreeMap<Event, u64> = BTreeMap::new();
    let mut micros = 0;
    for outcome in on_all_cores(seeds, checked) {
        micros += outcome.micros;
        for (event, count) in outcome.events {
            *events.entry(event).or_default() += count;
        }
    }
    let (real, simulated) = (begun.elapsed().as_secs_f64(), micros / 1_000_000);
    println!(
        "{count} clusters with groups, {simulated} simulated seconds in {real:.1} s: {events:?}"
    );
    if count >= SEEDS.end {
        for event in Event::OF_GROUPS {
            assert!(events.contains_key(event), "no seed had {event:?}: the simulator went blind");
        }
    }
}

#[test]
fn seeds_of_groups_in_clusters_that_once_failed_stay_mended() {
    for seed in seeds_of(include_str!("cluster/groups/seeds.txt")) {
        checked(seed);
    }
}

#[test]
fn same_seed_gives_the_same_trace_of_a_cluster_with_groups() {
    for seed in [1, 8] {
        assert_eq!(checked(seed).trace_hash, checked(seed).trace_hash, "seed {seed}");
    }
}

/// The checks of groups can fail: each deliberate bug is found.
fn is_found(bug: Bug) {
    let found = (0..BUG_SEEDS).find_map(|seed| {
        match std::panic::catch_unwind(|| run_with_groups(seed, Some(bug), false)) {
            Ok(Ok(_)) => None,
            Ok(Err(breach)) => Some((seed, breach)),
            Err(_) => Some((seed, "the panic above".to_owned())),
        }
    });
    println!("{bug:?} is found: {found:?}");
    assert!(found.is_some(), "{bug:?} is not found within {BUG_SEEDS} seeds");
}

#[test]
fn a_coordinator_that_answers_before_its_records_are_committed_is_found() {
    is_found(Bug::GroupAnswersEarly);
}

#[test]
fn a_coordinator_that_loads_up_to_a_stale_end_is_found() {
    is_found(Bug::GroupsLoadStale);
}
