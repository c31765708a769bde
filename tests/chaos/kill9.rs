//! `kill -9` at random moments under load, then a start with the same or another number of shards.
//!
//! `CHRONIK_CHAOS_ROUNDS` kills instead of a few, from `CHRONIK_CHAOS_SEED`.

use std::time::{Duration, Instant};

use super::gate::Gate;
use super::ledger::Ledger;
use super::load::{Producer, Profile, consume};
use super::verify::Verifier;
use crate::support::random::Random;
use crate::support::requests::create_topic_with;
use crate::support::server::{Options, Server};
use crate::support::{unique, wait_within};

const ROUNDS: usize = 5;
const PARTITIONS: usize = 12;
const SHARDS_MAX: usize = 4;

/// Idempotent ones come first.
const IDEMPOTENT_WORKERS: u32 = 6;
const WORKERS: u32 = 8;

/// How long it may take until the batches of a round are acknowledged.
const ROUND_PATIENCE: Duration = Duration::from_secs(90);

/// Small segments, so that they roll while the server is killed.
const SEGMENT_BYTES: (&str, &str) = ("segment.bytes", "1000000");

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_there_twice() {
    campaign(rounds(), Random::seed_from_env("CHRONIK_CHAOS_SEED"), &[SEGMENT_BYTES], &[]);
}

#[test]
fn nothing_is_lost_of_what_goes_straight_to_segments() {
    let (_profile, flag) = profile("large_run_bytes = \"1 KiB\"");
    campaign(rounds(), Random::seed_from_env("CHRONIK_CHAOS_SEED"), &[SEGMENT_BYTES], &[&flag]);
}

fn rounds() -> usize {
    match std::env::var("CHRONIK_CHAOS_ROUNDS") {
        Ok(text) => text.parse().expect("CHRONIK_CHAOS_ROUNDS is a number"),
        Err(_) => ROUNDS,
    }
}

/// A configuration file with a key of the profile, and the flag that names it.
fn profile(key: &str) -> (tempfile::NamedTempFile, String) {
    let profile = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(profile.path(), format!("[profile]\n{key}\n")).expect("a small file");
    let flag = format!("--config={}", profile.path().display());
    (profile, flag)
}

#[test]
fn what_is_acknowledged_before_the_flush_is_found_to_be_lost() {
    // The proof that the other test can fail: a topic may trade durability away, and the same checks
    // must notice.
    let config = [SEGMENT_BYTES, ("flush.messages", "9223372036854775807"), ("flush.ms", "60000")];
    // The disk gets everything so late that there is always something that it does not have.
    let (_profile, flag) = profile("commit_linger_us = 300000");
    let outcome = std::panic::catch_unwind(|| campaign(3, 1, &config, &[&flag]));
    let panic = outcome.expect_err("records that were never flushed survived kill -9");
    let reason = panic.downcast_ref::<String>().expect("a panic with a reason");
    let is_loss = ["acknowledged and not there", "the log was", "a consumer saw"];
    assert!(is_loss.iter().any(|known| reason.contains(known)), "{reason}");
}

fn campaign(rounds: usize, seed: u64, config: &[(&str, &str)], flags: &[&str]) {
    println!("chaos: {rounds} rounds, CHRONIK_CHAOS_SEED={seed}");
    let mut random = Random::new(seed);

    let mut shards = random.between(1, SHARDS_MAX) as u16;
    let options = flags.iter().fold(Options::shards(shards), |options, flag| options.flag(flag));
    let mut server = Server::start_with(options);
    let topic = unique("chaos");
    create_topic_with(&mut server.client(), &topic, PARTITIONS as i32, config);

    let ledger = Ledger::new(PARTITIONS);
    let gate = Gate::new(server.address());
    let mut verifier = Verifier::new(&topic, PARTITIONS, IDEMPOTENT_WORKERS);
    let mut restarts = Vec::new();
    std::thread::scope(|scope| {
        // Before the clients: when this thread panics they must be sent home.
        let _watch = gate.watch();
        let mut producers = Vec::new();
        for worker in 0..WORKERS {
            let profile = Profile {
                worker,
                acks: if worker % 2 == 0 { -1 } else { 1 },
                is_idempotent: worker < IDEMPOTENT_WORKERS,
                seed: random.next(),
            };
            let producer = Producer::new(profile, &topic, &gate, &ledger);
            producers.push(scope.spawn(move || producer.run()));
        }
        scope.spawn(|| consume(&topic, &gate, &ledger));

        for round in 0..rounds {
            await_kill_moment(&mut random, &ledger, &gate);
            gate.close();
            server.kill9();
            gate.await_parked(WORKERS as usize + 1, ROUND_PATIENCE);
            // With the same number the WALs are gone on with, with another they begin anew.
            if random.between(0, 1) == 1 {
                shards = random.between(1, SHARDS_MAX) as u16;
            }
            restarts.push(server.restart_with_shards(shards));
            let when = format!("round {round}, {shards} shards, seed {seed}");
            verifier.check(&mut server.client(), &ledger, &when);
            gate.open(server.address());
        }
        await_kill_moment(&mut random, &ledger, &gate);
        gate.end();
        for producer in producers {
            producer.join().expect("a producer");
        }
    });
    verifier.check(&mut server.client(), &ledger, &format!("at the end, seed {seed}"));
    verifier.check_again(&mut server.client());
    server.stop();

    restarts.sort_unstable();
    println!(
        "chaos: {rounds} kills, {} batches with {} records acknowledged, {} batches sent again, {} records \
         read back, 0 lost, 0 twice; restart to first answer: median {:?}, worst {:?}",
        ledger.batches(),
        ledger.records(),
        ledger.resent(),
        verifier.records(),
        restarts.get(restarts.len() / 2).copied().unwrap_or_default(),
        restarts.last().copied().unwrap_or_default(),
    );
    assert!(ledger.resent() > 0 || rounds == 0, "no crash ever met a batch in flight");
}

/// Waits for a random number of acknowledgements, and a little more than the last of them.
fn await_kill_moment(random: &mut Random, ledger: &Ledger, gate: &Gate) {
    let target = ledger.batches() + random.between(50, 1500) as u64;
    wait_within(ROUND_PATIENCE, "acknowledgements", || {
        assert!(!gate.has_failed(), "a client failed");
        (ledger.batches() >= target).then_some(())
    });
    // The looks at the counter are regular; the moment must not be.
    let moment = Instant::now() + Duration::from_micros(random.below(5000) as u64);
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}
