//! Three nodes under load, of which some are killed, frozen, stopped or cut off, again and again.
//!
//! `CHRONIK_CHAOS_ROUNDS` faults instead of a few, from `CHRONIK_CHAOS_SEED`; `CHRONIK_CHAOS_FAULT` names the one
//! kind that there is to be.

mod checks;
mod clients;
mod faults;
mod scene;

use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::produce_response::ProduceResponse;

use self::checks::Verifier;
use self::clients::{Consumer, From, Producer, Profile};
use self::faults::{Deck, Fault, inflict};
use self::scene::Scene;
use crate::ledger::{Acknowledged, Identity, Ledger};
use crate::support::batch::Batch;
use crate::support::client::Client;
use crate::support::cluster::ClusterOptions;
use crate::support::random::Random;
use crate::support::replicated::{await_agreement, await_in_sync, create_replicated};
use crate::support::requests::{PRODUCE_BY_NAME, error, produce_request, produced};
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
    let rounds = match std::env::var("CHRONIK_CHAOS_ROUNDS") {
        Ok(text) => text.parse().expect("CHRONIK_CHAOS_ROUNDS is a number"),
        Err(_) => ROUNDS,
    };
    let only = std::env::var("CHRONIK_CHAOS_FAULT").ok().map(|name| {
        let known = faults::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
        known.unwrap_or_else(|| panic!("{name} is none of {:?}", faults::ALL))
    });
    campaign(rounds, only, Random::seed_from_env("CHRONIK_CHAOS_SEED"));
}

fn campaign(rounds: usize, only: Option<Fault>, seed: u64) {
    println!("chaos: {rounds} rounds in a cluster, CHRONIK_CHAOS_SEED={seed}");
    let mut random = Random::new(seed);
    let shards: Vec<u16> = (0..3).map(|_| random.between(1, SHARDS_MAX) as u16).collect();
    let mut cluster = ClusterOptions::shards(&shards).links().start();
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
            let acks = if is_idempotent || partition % 2 == 0 { -1 } else { 1 };
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
            let mut late = Late { partition, first: verifier.next_probe(), client: None };
            let send_late = |node| late.send(scene, node);
            let over = inflict(fault, &mut cluster, leader, &mut random, send_late);
            late.hear(ledger);
            let when = format!("round {round}, {fault:?} of {leader}, seed {seed}");
            let gap = verifier.await_available(over, &when);
            println!("chaos: {when}: all partitions take records {gap:.2?} after its end");
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
    verifier.await_available(Instant::now(), "at the end");
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

/// A produce that reaches a node while it is frozen. Should it be acknowledged when the node thaws, it has to be there.
struct Late {
    partition: usize,
    first: Identity,
    client: Option<Client>,
}

impl Late {
    fn send(&mut self, scene: &Scene, node: i32) {
        let batch = Batch::of([self.first.value()]).encode();
        let request = produce_request(&scene.topic, self.partition as i32, -1, batch);
        // The kernel takes connections and bytes for the process.
        let mut client = scene.connect(node, ROUND_PATIENCE).expect("a node that is frozen");
        client.try_send(PRODUCE_BY_NAME, &request).expect("a node that is frozen");
        self.client = Some(client);
    }

    fn hear(self, ledger: &Ledger) {
        let Some(mut client) = self.client else { return };
        let Ok(response) = client.try_receive::<ProduceResponse>() else { return };
        let answer = produced(response);
        if error(answer.error_code) == ErrorCode::None {
            let batch =
                Acknowledged { base_offset: answer.base_offset, first: self.first, count: 1 };
            ledger.acknowledge(self.partition, batch);
        }
    }
}

/// Waits for a random number of acknowledgements.
fn await_load(random: &mut Random, scene: &Scene) {
    let target = scene.acknowledged() + random.between(50, 1000) as u64;
    wait_within(ROUND_PATIENCE, "acknowledgements", || {
        assert!(!scene.has_failed(), "a client failed");
        (scene.acknowledged() >= target).then_some(())
    });
}
