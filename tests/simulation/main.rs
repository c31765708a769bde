//! One node, simulated: the real machines, the real store and the real recovery on virtual time and on a
//! disk that loses what a disk may lose. One seed is one exact run.
//!
//!     cargo test --test simulation                                  a few hundred seeds
//!     CHRONIK_SIM_SEEDS=0..5000 cargo test --release --test simulation
//!     CHRONIK_SIM_SEED=17 cargo test --test simulation -- --nocapture     one seed, with its trace
//!
//! The simulator performs the effects: WAL writes in any order, storage jobs late, files prepared late. It
//! crashes the process between any two of them, cuts the power in the middle of writes, fills the disk and
//! flips bits. A model of what clients were told is compared with what they can read.

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
    let next = AtomicU64::new(seeds.start);
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut events: BTreeMap<Event, u64> = BTreeMap::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return events;
            }
            for (event, count) in checked(seed).events {
                *events.entry(event).or_default() += count;
            }
        }
    };
    let mut events: BTreeMap<Event, u64> = BTreeMap::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            for (event, count) in thread.join().expect("the panic above names its seed") {
                *events.entry(event).or_default() += count;
            }
        }
    });
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
    for line in include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#')) {
        let seed = line.split_whitespace().next().expect("a line begins with its seed");
        checked(seed.parse().expect("a seed is a number"));
    }
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
