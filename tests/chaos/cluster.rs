//! Three nodes under load, of which some are killed, frozen, stopped or cut off, again and again.
//!
//! `CHRONIK_CHAOS_ROUNDS` faults instead of a few, from `CHRONIK_CHAOS_SEED`; `CHRONIK_CHAOS_FAULT` names the one
//! kind that there is to be.

mod checks;
mod clients;
mod faults;
mod libraries;
mod probe;
mod scene;

use std::time::{Duration, Instant};

use self::checks::Verifier;
use self::clients::{Consumer, From, Producer, Profile};
use self::faults::{Deck, Fault, inflict};
use self::probe::Course;
use self::scene::Scene;
use crate::ledger::Ledger;
use crate::support::cluster::ClusterOptions;
use crate::support::random::Random;
use crate::support::replicated::{await_agreement, await_in_sync, create_replicated};
use crate::support::{unique, wait_within};

const ROUNDS: usize = 5;
const PARTITIONS: usize = 6;
const SHARDS_MAX: usize = 3;

/// Idempotent ones come first, one a partition.
const IDEMPOTENT_WORKERS: u32 = PARTITIONS as u32;
const WORKERS: u32 = 12;

const ROUND_PATIENCE: Duration = Duration::from_secs(60);

/// Small segments, so that they roll while nodes come and go.
const SEGMENT_BYTES: (&str, &str) = ("segment.bytes", "1000000");

#[test]
fn no_fault_loses_or_doubles_what_all_in_sync_replicas_acknowledged() {
    let seed = Random::seed_from_env("CHRONIK_CHAOS_SEED");
    let options = ClusterOptions::default();
    campaign(chosen_rounds(), chosen_fault(), seed, options);
}

fn chosen_rounds() -> usize {
    match std::env::var("CHRONIK_CHAOS_ROUNDS") {
        Ok(text) => text.parse().expect("CHRONIK_CHAOS_ROUNDS is a number"),
        Err(_) => ROUNDS,
    }
}

fn chosen_fault() -> Option<Fault> {
    let name = std::env::var("CHRONIK_CHAOS_FAULT").ok()?;
    let known = faults::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
    Some(known.unwrap_or_else(|| panic!("{name} is none of {:?}", faults::ALL)))
}

#[test]
fn what_disks_lie_about_is_found_to_be_lost() {
    // The proof that the other test can fail: the same checks must notice when acknowledged records are on no disk.
    let campaign = || campaign(3, Some(Fault::LyingDisks), 1, ClusterOptions::default());
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(campaign));
    let panic = outcome.expect_err("records that are on no disk were not missed");
    let reason = panic.downcast_ref::<String>().map_or("", String::as_str);
    let is_loss = [
        "acknowledged and not there",
        " was due",
        "seen at offset",
        "the log was",
        "a client failed",
        "a probe",
    ];
    let reason = panic.downcast_ref::<&str>().copied().unwrap_or(reason);
    assert!(is_loss.iter().any(|known| reason.contains(known)), "{reason}");
}

fn campaign(rounds: usize, only: Option<Fault>, seed: u64, options: ClusterOptions) {
    println!("chaos: {rounds} rounds in a cluster, CHRONIK_CHAOS_SEED={seed}");
    let mut random = Random::new(seed);
    let shards: Vec<u16> = (0..3).map(|_| random.between(1, SHARDS_MAX) as u16).collect();
    let mut cluster = ClusterOptions { shards, links: true, ..options }.start();
    let topic = unique("chaos");
    create_replicated(&mut cluster.client(1), &topic, PARTITIONS as i32, 3, &[SEGMENT_BYTES]);
    await_agreement(&cluster, &topic, PARTITIONS);

    let scene = &Scene::new(&cluster, &topic, PARTITIONS);
    let ledger = &Ledger::new(PARTITIONS);
    let of_leaders = &Ledger::new(PARTITIONS);
    let of_replicas = &Ledger::new(PARTITIONS);
    let seen = vec![of_leaders, of_replicas];
    let mut verifier = Verifier::new(scene, ledger, seen, IDEMPOTENT_WORKERS, random.next());
    let mut gaps: Vec<(Duration, Fault)> = Vec::new();
    std::thread::scope(|scope| {
        // Before the clients: when this thread panics they must be sent home.
        let _watch = scene.watch();
        let mut clients = Vec::new();
        for worker in 0..WORKERS {
            let partition = worker as usize % PARTITIONS;
            let is_idempotent = worker < IDEMPOTENT_WORKERS;
            let acks = if is_idempotent || partition.is_multiple_of(2) { -1 } else { 1 };
            let is_patient = !is_idempotent && acks == -1;
            let seed = random.next();
            let profile = Profile { worker, partition, acks, is_idempotent, is_patient, seed };
            let producer = Producer::new(profile, scene, ledger);
            clients.push(scope.spawn(move || producer.run()));
        }
        for (from, ledger) in [(From::Leaders, of_leaders), (From::Replicas, of_replicas)] {
            let consumer = Consumer::new(from, scene, ledger, random.next());
            clients.push(scope.spawn(move || consumer.run()));
        }

        let mut deck = Deck::default();
        for round in 0..rounds {
            await_load(&mut random, scene);
            let fault = only.unwrap_or_else(|| deck.draw(&mut random));
            let led = await_agreement(&cluster, &topic, PARTITIONS);
            let partition = random.below(PARTITIONS);
            let leader = led[partition].node;
            let mut course = Course::new(scope, (scene, ledger), round as u32, partition);
            let begin = Instant::now();
            inflict(fault, &mut cluster, leader, &mut random, &mut course);
            let lasted = begin.elapsed();
            let gap = course.available();
            let when = format!("round {round}, {fault:?} of {leader}, seed {seed}");
            println!(
                "chaos: {when}: {lasted:.2?}; all partitions take records {gap:.2?} after its end"
            );
            gaps.push((gap, fault));
            cluster.assert_alive();
            verifier.check(&when);
            // Sometimes the next fault finds a cluster that has not recovered of the last.
            if random.chance(2) {
                await_in_sync(&cluster, 1, &topic, 3);
            }
        }
        await_load(&mut random, scene);
        scene.end();
        for client in clients {
            client.join().expect("a client");
        }
    });
    await_in_sync(&cluster, 1, &topic, 3);
    verifier.check(&format!("at the end, seed {seed}"));
    verifier.check_seen_all();
    cluster.stop_all();
    let compared = verifier.check_files(&cluster);

    gaps.sort_unstable_by_key(|(gap, _)| *gap);
    println!(
        "chaos: {rounds} faults in a cluster, {} batches acknowledged, {} with {} records by all in-sync replicas, {} \
         sent again, {} records read back, 0 lost, 0 twice, {} MiB the same on all nodes; available again: median \
         {:.2?}, worst {:.2?}",
        scene.acknowledged(),
        ledger.batches(),
        ledger.records(),
        ledger.resent(),
        verifier.records(),
        compared >> 20,
        gaps.get(gaps.len() / 2).map(|it| it.0).unwrap_or_default(),
        gaps.last(),
    );
}

/// Waits for a random number of acknowledgements.
fn await_load(random: &mut Random, scene: &Scene) {
    let target = scene.acknowledged() + random.between(50, 1000) as u64;
    wait_within(ROUND_PATIENCE, "acknowledgements", || {
        assert!(!scene.has_failed(), "a client failed");
        (scene.acknowledged() >= target).then_some(())
    });
}
