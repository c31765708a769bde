//! The same faults under load from client libraries that are not of this project.
//!
//! `CHRONIK_CHAOS_CLIENTS=java,franz-go` names them; without it nothing of this runs. Each is a program below
//! `tests/clients` with an idempotent producer and a consumer, which writes down what was acknowledged and what it read.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::faults::{Deck, Fault, inflict};
use super::probe::Course;
use super::scene::Scene;
use super::{PARTITIONS, chosen_fault, chosen_rounds};
use crate::ledger::Ledger;
use crate::support::cluster::{Cluster, ClusterOptions};
use crate::support::random::Random;
use crate::support::replicated::{Leader, await_agreement, await_in_sync, create_replicated};
use crate::support::requests::read_values;
use crate::support::{poll_pause, unique, wait_within};

const CLIENTS: &str = "CHRONIK_CHAOS_CLIENTS";

/// Leaders of one partition that the Java client has to follow one after another.
const LEADER_CHANGES: usize = 20;

/// The programs may have to be compiled first.
const START_PATIENCE: Duration = Duration::from_secs(300);
const END_PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn libraries_lose_and_double_nothing_whatever_the_fault() {
    let clients = asked_for();
    if clients.is_empty() {
        return;
    }
    let mut deck = Deck::default();
    let only = chosen_fault();
    let rounds = chosen_rounds();
    let seed = Random::seed_from_env("CHRONIK_CHAOS_SEED");
    println!("chaos: {rounds} rounds with {clients:?}, CHRONIK_CHAOS_SEED={seed}");
    let mut done = 0;
    ride(&clients, seed, true, |random, _| {
        done += 1;
        (done <= rounds)
            .then(|| (only.unwrap_or_else(|| deck.draw(random)), random.below(PARTITIONS)))
    });
}

#[test]
fn the_java_client_rides_through_leader_changes() {
    if !asked_for().iter().any(|client| client == "java") {
        return;
    }
    let seed = Random::seed_from_env("CHRONIK_CHAOS_SEED");
    println!("chaos: {LEADER_CHANGES} leaders, CHRONIK_CHAOS_SEED={seed}");
    let (mut changes, mut last) = (0, None);
    ride(&["java".to_owned()], seed, false, |random, leaders| {
        // Counted where it is seen: in between there may have been more.
        changes +=
            usize::from(last.replace(leaders[0].node).is_some_and(|it| it != leaders[0].node));
        println!(
            "chaos: {changes} changes of the leader of partition 0, which is {:?} now",
            leaders[0]
        );
        let fault = if random.chance(2) { Fault::KillLeader } else { Fault::StopLeader };
        (changes < LEADER_CHANGES).then_some((fault, 0))
    });
}

fn asked_for() -> Vec<String> {
    let named = std::env::var(CLIENTS).unwrap_or_default();
    named.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Lets the clients work while there are faults, of the leader of a partition. `next` names them until there are
/// enough.
fn ride(
    clients: &[String],
    seed: u64,
    may_give_up: bool,
    mut next: impl FnMut(&mut Random, &[Leader]) -> Option<(Fault, usize)>,
) {
    let mut random = Random::new(seed);
    let mut cluster = ClusterOptions::default().links().start();
    let [topic, probes] = ["chaos", "probes"].map(unique);
    for name in [&topic, &probes] {
        create_replicated(&mut cluster.client(1), name, PARTITIONS as i32, 3, &[]);
    }
    await_agreement(&cluster, &topic, PARTITIONS);
    let mut loads: Vec<Load> =
        clients.iter().map(|client| Load::start(client, &cluster, &topic)).collect();
    wait_within(START_PATIENCE, "acknowledgements to all clients", || {
        loads.iter_mut().all(Load::is_under_way).then_some(())
    });

    let scene = &Scene::new(&cluster, &probes, PARTITIONS);
    let ledger = &Ledger::new(PARTITIONS);
    let (mut gaps, mut round) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        let _watch = scene.watch();
        loop {
            let led = await_agreement(&cluster, &topic, PARTITIONS);
            let Some((fault, partition)) = next(&mut random, &led) else { return };
            let mut course = Course::new(scope, (scene, ledger), round, partition);
            let leader = led[partition].node;
            inflict(fault, &mut cluster, leader, &mut random, &mut course);
            let gap = course.available();
            println!("chaos: round {round}, {fault:?} of {leader}: {gap:.2?} after its end");
            gaps.push(gap);
            cluster.assert_alive();
            loads.iter_mut().for_each(Load::assert_alive);
            await_in_sync(&cluster, 1, &topic, 3);
            round += 1;
        }
    });
    for load in &mut loads {
        load.end();
    }
    let logs: Vec<Vec<String>> = (0..PARTITIONS)
        .map(|partition| {
            let leader = await_agreement(&cluster, &topic, PARTITIONS)[partition].node;
            read_values(&mut cluster.client(leader), &topic, partition as i32, 0)
        })
        .collect();
    for load in &loads {
        load.check(&logs, may_give_up);
    }
    gaps.sort_unstable();
    println!(
        "chaos: {round} faults with {clients:?}, {} records read back, 0 lost, 0 twice; available again: median {:.2?}, \
         worst {:.2?}",
        logs.iter().map(Vec::len).sum::<usize>(),
        gaps.get(gaps.len() / 2),
        gaps.last(),
    );
}

/// A running client; it ends with the value.
struct Load {
    name: String,
    process: Child,
    directory: tempfile::TempDir,
}

impl Load {
    fn start(name: &str, cluster: &Cluster, topic: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
        let mut command = Command::new(program.join("run-load"));
        command
            .env("BOOTSTRAP", cluster.bootstrap())
            .env("TOPIC", topic)
            .env("PARTITIONS", PARTITIONS.to_string())
            .env("ACKNOWLEDGED", directory.path().join("acknowledged"))
            .env("FAILED", directory.path().join("failed"))
            .env("CONSUMED", directory.path().join("consumed"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(directory.path().join("stderr")).unwrap());
        // SAFETY: prctl is async-signal-safe. A client must not outlive a test that was killed.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let process = command.spawn().unwrap_or_else(|error| panic!("{program:?}: {error}"));
        Self { name: name.to_owned(), process, directory }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn is_under_way(&mut self) -> bool {
        self.assert_alive();
        let has = |file| fs::metadata(self.path(file)).is_ok_and(|it| it.len() > 0);
        has("acknowledged") && has("consumed")
    }

    fn assert_alive(&mut self) {
        let ended = self.process.try_wait().unwrap();
        assert!(ended.is_none(), "{} ended: {ended:?}\n{}", self.name, self.stderr());
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.path("stderr")).unwrap_or_default()
    }

    /// Ends the load in order: everything that was sent is acknowledged or given up.
    fn end(&mut self) {
        self.assert_alive();
        drop(self.process.stdin.take());
        let deadline = Instant::now() + END_PATIENCE;
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "{} does not end\n{}", self.name, self.stderr());
            poll_pause();
        };
        assert!(status.success(), "{}: {status}\n{}", self.name, self.stderr());
    }

    /// Compares what it wrote down with what is there. A record that the client gave up may be there or not: it may
    /// have lost sight of it while a leader was frozen.
    fn check(&self, logs: &[Vec<String>], may_give_up: bool) {
        let failed: HashSet<String> = self.lines("failed").into_iter().map(|line| line.2).collect();
        assert!(may_give_up || failed.is_empty(), "{} gave up {failed:?}", self.name);
        let acknowledged = self.lines("acknowledged");
        let mut stored = 0;
        for (partition, log) in logs.iter().enumerate() {
            let prefix = format!("{}:{partition}:", self.name);
            let mut next = 0u64;
            for number in log.iter().filter_map(|value| value.strip_prefix(&prefix)) {
                let number: u64 = number.parse().unwrap();
                assert!(number >= next, "{}: {number} in {partition}, {next} was due", self.name);
                let lost = (next..number).find(|lost| !failed.contains(&format!("{prefix}{lost}")));
                assert_eq!(lost, None, "{} in partition {partition}", self.name);
                next = number + 1;
                stored += 1;
            }
        }
        let mut told = 0;
        for (partition, offset, value) in &acknowledged {
            let found = logs[*partition].get(*offset as usize);
            assert_eq!(found, Some(value), "{} was told of {partition}@{offset}", self.name);
            told += 1;
        }
        let found: HashSet<&str> = acknowledged.iter().map(|line| line.2.as_str()).collect();
        assert_eq!(found.len(), told, "{}: told twice of one record", self.name);
        let given_up = logs.iter().flatten().filter(|value| failed.contains(*value)).count();
        assert_eq!(told + given_up, stored, "{}: acknowledged, and there", self.name);
        assert!(told > 0, "{} sent nothing", self.name);
        let mut positions: HashMap<usize, i64> = HashMap::new();
        for (partition, offset, value) in self.lines("consumed") {
            let next = positions.entry(partition).or_default();
            assert_eq!(offset, *next, "{} skipped or went back in {partition}", self.name);
            assert_eq!(
                logs[partition].get(offset as usize),
                Some(&value),
                "{} read {partition}@{offset}",
                self.name
            );
            *next += 1;
        }
        let consumed: i64 = positions.values().sum();
        assert!(consumed > 0, "{} read nothing", self.name);
        println!(
            "chaos: {}: {told} records acknowledged, {} given up, {given_up} of them there, {consumed} read",
            self.name,
            failed.len()
        );
    }

    fn lines(&self, file: &str) -> Vec<(usize, i64, String)> {
        let text = fs::read_to_string(self.path(file)).unwrap();
        let line = |line: &str| {
            let mut words = line.splitn(3, ' ');
            let (partition, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Some((partition, offset, words.next()?.to_owned()))
        };
        text.lines().map(|it| line(it).unwrap_or_else(|| panic!("{}: {it}", self.name))).collect()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
