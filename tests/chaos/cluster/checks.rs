//! Reads everything back while clients go on, and compares it with what was acknowledged and seen.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;

use super::scene::{Leaders, Scene};
use crate::ledger::{Acknowledged, Identity, Ledger};
use crate::support::batch::{Batch, HEADER_BYTES};
use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::poll_pause;
use crate::support::requests::{
    LATEST, PRODUCE_BY_NAME, batches, error, fetch, list_offset, log_start, produce_request,
    produced,
};

/// The worker number of the records that are written to see whether a partition takes any.
const PROBE: u32 = u32::MAX;

/// How long until a partition must take records again. What is wanted is printed, not asserted.
const AVAILABLE_PATIENCE: Duration = Duration::from_secs(60);

const ANSWER_PATIENCE: Duration = Duration::from_secs(5);

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
    next_number: Vec<HashMap<u32, u32>>,
    probes: u32,
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
            next_number: vec![HashMap::new(); scene.partitions],
            probes: 0,
        }
    }

    /// Waits until every partition acknowledges a record to acks=all; how long after `since` the last one did.
    pub fn await_available(&mut self, since: Instant, when: &str) -> Duration {
        for partition in 0..self.logs.len() {
            while !self.probe(partition) {
                assert!(
                    since.elapsed() < AVAILABLE_PATIENCE,
                    "{when}, partition {partition}: takes no record; leader {:?}",
                    self.leaders.of(partition)
                );
                assert!(!self.scene.has_failed(), "a client failed");
                self.leaders.refresh(self.scene);
            }
        }
        since.elapsed()
    }

    fn probe(&mut self, partition: usize) -> bool {
        let leader = self.leaders.of(partition);
        let client = leader.and_then(|leader| self.scene.connect(leader.node, ANSWER_PATIENCE));
        let Some(mut client) = client else { return false };
        // One that was refused may be there all the same: every attempt has a number of its own.
        let first = self.next_probe();
        let bytes = Batch::of([first.value()]).encode();
        let request = produce_request(&self.scene.topic, partition as i32, -1, bytes);
        let Ok(response) = client.try_call(PRODUCE_BY_NAME, &request) else { return false };
        let answer = produced(response);
        match error(answer.error_code) {
            ErrorCode::None => {
                let batch = Acknowledged { base_offset: answer.base_offset, first, count: 1 };
                self.ledger.acknowledge(partition, batch);
                true
            }
            code => {
                assert!(code.is_retriable(), "partition {partition}: {code:?}");
                poll_pause();
                false
            }
        }
    }

    /// A record that is told from all others.
    pub fn next_probe(&mut self) -> Identity {
        self.probes += 1;
        Identity { worker: PROBE, number: self.probes }
    }

    /// Checks all partitions, up to what the leaders say is readable now.
    pub fn check(&mut self, when: &str) {
        for partition in 0..self.logs.len() {
            // Whatever is acknowledged before the leader is asked lies below its high watermark.
            let acknowledged = self.ledger.take_acknowledged(partition);
            let deadline = Instant::now() + AVAILABLE_PATIENCE;
            while !self.read_on(partition, when) {
                assert!(Instant::now() < deadline, "{when}, partition {partition}: not readable");
                assert!(!self.scene.has_failed(), "a client failed");
                self.leaders.refresh(self.scene);
            }
            self.check_acknowledged(partition, &acknowledged, when);
            self.check_seen(partition, when);
        }
    }

    /// Reads what came since the last check; false when somebody else has to be asked.
    fn read_on(&mut self, partition: usize, when: &str) -> bool {
        let leader = self.leaders.of(partition);
        let client = leader.and_then(|leader| self.scene.connect(leader.node, ANSWER_PATIENCE));
        let Some(mut client) = client else { return false };
        let (topic, index) = (&self.scene.topic, partition as i32);
        let found = list_offset(&mut client, topic, index, LATEST);
        if found.error_code != 0 {
            assert!(error(found.error_code).is_retriable(), "{when}: {found:?}");
            return false;
        }
        assert_eq!(log_start(&mut client, topic, index), 0, "{when}, partition {partition}");
        let from = self.logs[partition].len();
        assert!(
            from as i64 <= found.offset,
            "{when}, partition {partition}: the log was {from} records long and ends at {} now",
            found.offset
        );
        let is_complete =
            read_to(&mut client, topic, partition, found.offset, &mut self.logs[partition]);
        for (offset, record) in self.logs[partition].iter().enumerate().skip(from) {
            let next = self.next_number[partition].entry(record.worker).or_default();
            let is_next = match record.worker < self.idempotent_workers {
                // No duplicate, no gap.
                true => record.number == *next,
                // No duplicate, and in order; who is not idempotent gives up what it knows nothing of.
                false => record.number >= *next,
            };
            assert!(
                is_next,
                "{when}, partition {partition}: {record:?} at offset {offset}, {next} was due"
            );
            *next = record.number + 1;
        }
        is_complete
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
