//! Several control planes on a virtual clock, network and disks. One seed is one exact run.
//!
//! The members are the real ones, raft and the controller among them. Messages get lost, delayed,
//! doubled and overtaken; links are cut, both ways or one; nodes crash, forget what was not synced, and
//! come back; they freeze and thaw. Meanwhile every node proposes changes, the leaders of partitions
//! shrink and grow in-sync sets, and nodes come and go for good. [`checker`] looks at every step.
//!
//! `CHRONIK_SIM_SEEDS=0..1000` chooses the seeds.

mod checker;
mod disk;
mod run;

use run::{Bug, Run};

/// Seeds of an ordinary run of the tests.
const SEEDS: std::ops::Range<u64> = 0..40;

fn seeds() -> std::ops::Range<u64> {
    let Ok(text) = std::env::var("CHRONIK_SIM_SEEDS") else { return SEEDS };
    let bounds =
        text.split_once("..").and_then(|(from, to)| Some(from.parse().ok()?..to.parse().ok()?));
    bounds.unwrap_or_else(|| panic!("CHRONIK_SIM_SEEDS={text}: two numbers are due, as in 0..1000"))
}

/// Names the seed when something in it fails.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {0}: CHRONIK_SIM_SEEDS={0}..{1}", self.0, self.0 + 1);
        }
    }
}

#[test]
fn metadata_agree_whatever_happens() {
    let (mut failovers, mut acknowledged, mut images, mut came, mut went) = (0, 0, 0, 0, 0);
    for seed in seeds() {
        let _named = Named(seed);
        let outcome = Run::new(seed, Bug::None).finish();
        failovers += outcome.failovers;
        acknowledged += outcome.acknowledged;
        images += outcome.images_installed;
        came += outcome.came;
        went += outcome.went;
    }
    println!(
        "{failovers} changes of leaders, {acknowledged} changes told, {images} snapshots, {came} nodes \
         came, {went} went"
    );
    if seeds() == SEEDS {
        let tried = [failovers > 0, acknowledged > 0, images > 0, came > 0, went > 0];
        assert_eq!(tried, [true; 5], "or something was not tried");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let trace = |seed| Run::new(seed, Bug::None).finish().trace;
    for seed in [1, 2, 3] {
        assert_eq!(trace(seed), trace(seed));
    }
    assert_ne!(trace(1), trace(2));
}

/// Whether some seed shows that `bug` is there.
fn is_caught(bug: Bug) -> bool {
    (0..60).any(|seed| std::panic::catch_unwind(|| Run::new(seed, bug).finish()).is_err())
}

#[test]
fn proposals_that_count_twice_are_caught() {
    assert!(is_caught(Bug::NewNumberOnRetry));
}

#[test]
fn disks_that_forget_what_was_synced_are_caught() {
    assert!(is_caught(Bug::DisksForget));
}
