//! Reads everything back while clients go on, and compares it with what was acknowledged and seen.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;

use super::probe::{AVAILABLE_PATIENCE, is_probe};
use super::scene::{Leaders, Scene};
use crate::ledger::{Acknowledged, Identity, Ledger};
use crate::support::batch::HEADER_BYTES;
use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::requests::{EARLIEST, LATEST, batches, error, fetch, list_offset};

const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

/// Longer than any node takes itself for the leader that is none.
const STALE_PATIENCE: Duration = Duration::from_secs(10);

/// What the logs hold, as far as it was read back.
pub struct Verifier<'a> {
    scene: &'a Scene,
    /// What producers were told.
    ledger: &'a Ledger,
    /// What each consumer saw.
    seen: Vec<&'a Ledger>,
    /// Workers below are idempotent.
    idempotent_workers: u32,
    leaders: Leaders,
    logs: Vec<Vec<Identity>>,
    /// In which epoch those led who were asked last.
    epochs: Vec<i32>,
    next_number: Vec<HashMap<u32, u32>>,
    probes: HashSet<(u32, u32)>,
}

impl<'a> Verifier<'a> {
    pub fn new(
        scene: &'a Scene,
        ledger: &'a Ledger,
        seen: Vec<&'a Ledger>,
        idempotent_workers: u32,
        seed: u64,
    ) -> Self {
        Self {
            scene,
            ledger,
            seen,
            idempotent_workers,
            leaders: Leaders::new(scene, seed),
            logs: vec![Vec::new(); scene.partitions],
            epochs: vec![-1; scene.partitions],
            next_number: vec![HashMap::new(); scene.partitions],
            probes: HashSet::new(),
        }
    }

    /// Checks all partitions, up to what the leaders say is readable now.
    pub fn check(&mut self, when: &str) {
        for partition in 0..self.logs.len() {
            let acknowledged = self.ledger.take_acknowledged(partition);
            let ends = acknowledged.iter().map(|batch| batch.base_offset + i64::from(batch.count));
            let end = ends.max().unwrap_or(0);
            let begun = Instant::now();
            // Whatever is acknowledged before the leader is asked lies below its high watermark. A node that was cut off may
            // take itself for the leader a moment longer: it has less, and another one is asked.
            loop {
                let patience = match self.read_on(partition, when) {
                    Some(reached) if reached >= end => break,
                    Some(_) => STALE_PATIENCE,
                    None => AVAILABLE_PATIENCE,
                };
                let log = self.logs[partition].len();
                assert!(
                    begun.elapsed() < patience,
                    "{when}, partition {partition}: the log was {log} records long, and what is below {end} is \
                     acknowledged and not there"
                );
                assert!(!self.scene.has_failed(), "a client failed");
                self.leaders.refresh(self.scene);
            }
            self.check_acknowledged(partition, &acknowledged, when);
            self.check_seen(partition, when);
        }
    }

    /// Reads what came since the last check; says where the log ends for who was asked, unless that was nobody who knows.
    fn read_on(&mut self, partition: usize, when: &str) -> Option<i64> {
        let leader = self.leaders.of(partition);
        let client = leader.and_then(|leader| self.scene.connect(leader.node, ANSWER_PATIENCE));
        let mut client = client?;
        let (topic, index) = (&self.scene.topic, partition as i32);
        let [start, found] =
            [EARLIEST, LATEST].map(|at| list_offset(&mut client, topic, index, at));
        for answer in [&start, &found] {
            if answer.error_code != 0 {
                assert!(error(answer.error_code).is_retriable(), "{when}: {answer:?}");
                return None;
            }
        }
        assert_eq!(start.offset, 0, "{when}, partition {partition}");
        let from = self.logs[partition].len();
        // Who led in an epoch before the last one that was heard of leads no more.
        if found.leader_epoch < self.epochs[partition] {
            return None;
        }
        self.epochs[partition] = found.leader_epoch;
        assert!(
            from as i64 <= found.offset,
            "{when}, partition {partition}: the log was {from} records long and ends at {} now",
            found.offset
        );
        let is_complete =
            read_to(&mut client, topic, partition, found.offset, &mut self.logs[partition]);
        for offset in from..self.logs[partition].len() {
            let record = self.logs[partition][offset];
            self.check_turn(partition, record).unwrap_or_else(|due| {
                panic!(
                    "{when}, partition {partition}: {record:?} at offset {offset}, {due} was due"
                )
            });
        }
        is_complete.then_some(found.offset)
    }

    /// Records of a producer are in the order in which it sent them, and there once.
    fn check_turn(&mut self, partition: usize, record: Identity) -> Result<(), String> {
        let Identity { worker, number } = record;
        if is_probe(worker) {
            // Each is sent on a connection of its own: they may overtake each other.
            let is_first = self.probes.insert((worker, number));
            return is_first.then_some(()).ok_or_else(|| "another".to_owned());
        }
        let next = self.next_number[partition].entry(worker).or_default();
        // Who is idempotent leaves no gap; others give up what they know nothing of.
        let is_next = match worker < self.idempotent_workers {
            true => number == *next,
            false => number >= *next,
        };
        let due = std::mem::replace(next, number + 1);
        is_next.then_some(()).ok_or_else(|| due.to_string())
    }

    fn check_acknowledged(&self, partition: usize, acknowledged: &[Acknowledged], when: &str) {
        let log = &self.logs[partition];
        for batch in acknowledged {
            for n in 0..batch.count {
                let offset = batch.base_offset as usize + n as usize;
                let number = batch.first.number + n;
                let expected = Identity { worker: batch.first.worker, number };
                assert_eq!(
                    log.get(offset),
                    Some(&expected),
                    "{when}, partition {partition}, offset {offset}: acknowledged and not there; \
                     the log ends at {}",
                    log.len()
                );
            }
        }
    }

    /// Consumers saw what is there. They may be ahead of what was read here.
    fn check_seen(&self, partition: usize, when: &str) {
        let log = &self.logs[partition];
        for ledger in &self.seen {
            for (offset, (seen, stored)) in ledger.seen(partition).iter().zip(log).enumerate() {
                assert_eq!(seen, stored, "{when}, partition {partition}: seen at offset {offset}");
            }
        }
    }

    /// At the end, when nobody writes: consumers saw nothing that is not there.
    pub fn check_seen_all(&self) {
        for (partition, log) in self.logs.iter().enumerate() {
            for ledger in &self.seen {
                let seen = ledger.seen(partition).len();
                assert!(
                    seen <= log.len(),
                    "partition {partition}: {seen} seen, {} there",
                    log.len()
                );
            }
        }
    }

    /// Compares the segment files of all nodes, which have stopped, below what was readable: they are the same, and
    /// hold what was read.
    pub fn check_files(&self, cluster: &Cluster) -> u64 {
        let mut compared = 0;
        for (partition, log) in self.logs.iter().enumerate() {
            let end = log.len() as i64;
            let mut first: Option<Vec<u8>> = None;
            for id in cluster.ids() {
                let bytes = stored(cluster, id, &self.scene.topic, partition, end);
                match &first {
                    Some(first) => {
                        let differ = first.iter().zip(&bytes).position(|(one, other)| one != other);
                        assert!(
                            *first == bytes,
                            "partition {partition}: nodes 1 and {id} differ at byte {differ:?} of {} and {}",
                            first.len(),
                            bytes.len()
                        );
                    }
                    None => first = Some(bytes),
                }
            }
            compared += first.map_or(0, |bytes| bytes.len() as u64);
        }
        compared
    }

    pub fn records(&self) -> usize {
        self.logs.iter().map(Vec::len).sum()
    }
}

/// Appends what the partition holds from the log's length to `end`; false when it is not told here any more.
fn read_to(
    client: &mut Client,
    topic: &str,
    partition: usize,
    end: i64,
    log: &mut Vec<Identity>,
) -> bool {
    while (log.len() as i64) < end {
        let next = log.len() as i64;
        let data = fetch(client, topic, partition as i32, next);
        match error(data.error_code) {
            ErrorCode::None => {}
            code => {
                assert!(code.is_retriable(), "{partition} at {next}: {code:?}");
                return false;
            }
        }
        for (offset, record) in batches(&data).iter().flat_map(|batch| batch.records()) {
            if offset >= next {
                assert_eq!(offset, log.len() as i64, "partition {partition}: offsets are dense");
                log.push(Identity::of(&record.value.unwrap()));
            }
        }
        if log.len() as i64 == next {
            return false;
        }
    }
    true
}

/// The batches of a replica's segments below `end`, one after another.
fn stored(cluster: &Cluster, id: i32, topic: &str, partition: usize, end: i64) -> Vec<u8> {
    let directory = cluster.data_dir(id).join("topics").join(format!("{topic}-{partition}"));
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    logs.sort();
    let mut all = Vec::new();
    let mut next = 0;
    for path in logs {
        let bytes = fs::read(&path).unwrap();
        let mut rest = &bytes[..];
        while rest.len() >= HEADER_BYTES && next < end {
            let length = i32::from_be_bytes(rest[8..12].try_into().unwrap()) as usize + 12;
            let base = i64::from_be_bytes(rest[..8].try_into().unwrap());
            let delta = i32::from_be_bytes(rest[23..27].try_into().unwrap());
            assert_eq!(base, next, "{path:?}: batches follow each other");
            all.extend(&rest[..length]);
            rest = &rest[length..];
            next = base + i64::from(delta) + 1;
        }
    }
    assert!(next >= end, "{directory:?} ends at {next}, {end} were readable");
    all
}
