//! Reads everything back and compares it with what was acknowledged and seen.

use std::collections::HashMap;

use chronik_protocol::ErrorCode;

use super::ledger::{Identity, Ledger};
use crate::support::batch::Batch;
use crate::support::client::Client;
use crate::support::requests::{batches, error, fetch, high_watermark, log_start, produce_bytes};

/// The worker number of the verifier's own records.
const VERIFIER: u32 = u32::MAX;

/// What the logs hold, as far as it was read back.
#[derive(Debug)]
pub struct Verifier {
    topic: String,
    idempotent_workers: u32,
    logs: Vec<Vec<Identity>>,
    next_number: Vec<HashMap<u32, u32>>,
    probes: u32,
}

impl Verifier {
    /// Workers below `idempotent_workers` are idempotent.
    pub fn new(topic: &str, partitions: usize, idempotent_workers: u32) -> Self {
        Self {
            topic: topic.to_owned(),
            idempotent_workers,
            logs: vec![Vec::new(); partitions],
            next_number: vec![HashMap::new(); partitions],
            probes: 0,
        }
    }

    /// Checks all partitions while nobody writes.
    pub fn check(&mut self, client: &mut Client, ledger: &Ledger, when: &str) {
        for partition in 0..self.logs.len() {
            let index = partition as i32;
            let end = high_watermark(client, &self.topic, index);
            assert_eq!(log_start(client, &self.topic, index), 0, "{when}, partition {partition}");
            self.read_on(client, partition, end, when);
            self.check_acknowledged(ledger, partition, when);
            self.check_seen(ledger, partition, when);
            self.check_end(client, partition, when);
        }
    }

    /// Reads what came since the last check; offsets are dense up to the high watermark.
    fn read_on(&mut self, client: &mut Client, partition: usize, end: i64, when: &str) {
        let log = &mut self.logs[partition];
        assert!(
            log.len() as i64 <= end,
            "{when}, partition {partition}: the log was {} records long and ends at {end} now",
            log.len()
        );
        let from = log.len();
        read_to(client, &self.topic, partition, end, log);
        for (offset, record) in log.iter().enumerate().skip(from) {
            if record.worker < self.idempotent_workers {
                // In sequence: no duplicate, no gap.
                let next = self.next_number[partition].entry(record.worker).or_default();
                assert_eq!(
                    record.number, *next,
                    "{when}, partition {partition}: worker {} at offset {offset}",
                    record.worker
                );
                *next += 1;
            }
        }
    }

    fn check_acknowledged(&self, ledger: &Ledger, partition: usize, when: &str) {
        let log = &self.logs[partition];
        for batch in ledger.take_acknowledged(partition) {
            for n in 0..batch.count {
                let offset = batch.base_offset as usize + n as usize;
                let number = batch.first.number + n;
                let expected = Identity { worker: batch.first.worker, number };
                let found = log.get(offset);
                assert_eq!(
                    found,
                    Some(&expected),
                    "{when}, partition {partition}, offset {offset}: acknowledged and not there; \
                     the log ends at {}",
                    log.len()
                );
            }
        }
    }

    fn check_seen(&self, ledger: &Ledger, partition: usize, when: &str) {
        let log = &self.logs[partition];
        let seen = ledger.seen(partition);
        assert!(
            seen.len() <= log.len(),
            "{when}, partition {partition}: a consumer saw {} records, {} are there",
            seen.len(),
            log.len()
        );
        for (offset, (seen, stored)) in seen.iter().zip(log).enumerate() {
            assert_eq!(seen, stored, "{when}, partition {partition}: seen at offset {offset}");
        }
    }

    /// The next record goes where the high watermark is: nothing lies hidden behind it.
    fn check_end(&mut self, client: &mut Client, partition: usize, when: &str) {
        let record = Identity { worker: VERIFIER, number: self.probes };
        self.probes += 1;
        let batch = Batch::of([record.value()]).encode();
        let response = produce_bytes(client, &self.topic, partition as i32, 1, batch);
        assert_eq!(error(response.error_code), ErrorCode::None, "{when}, partition {partition}");
        let log = &mut self.logs[partition];
        assert_eq!(
            response.base_offset,
            log.len() as i64,
            "{when}, partition {partition}: log end offset and high watermark"
        );
        log.push(record);
    }

    /// Reads all logs once more from the beginning: nothing that was checked has changed since.
    pub fn check_again(&self, client: &mut Client) {
        for (partition, log) in self.logs.iter().enumerate() {
            let mut again = Vec::with_capacity(log.len());
            read_to(client, &self.topic, partition, log.len() as i64, &mut again);
            assert!(again == *log, "partition {partition} reads differently the second time");
        }
    }

    pub fn records(&self) -> usize {
        self.logs.iter().map(Vec::len).sum()
    }
}

/// Appends what the partition holds from the log's length to `end`.
fn read_to(client: &mut Client, topic: &str, partition: usize, end: i64, log: &mut Vec<Identity>) {
    while (log.len() as i64) < end {
        let next = log.len() as i64;
        let data = fetch(client, topic, partition as i32, next);
        assert_eq!(error(data.error_code), ErrorCode::None, "{partition} at {next}");
        for (offset, record) in batches(&data).iter().flat_map(|batch| batch.records()) {
            if offset >= next {
                assert_eq!(offset, log.len() as i64, "partition {partition}: offsets are dense");
                log.push(Identity::of(&record.value.unwrap()));
            }
        }
        assert!(log.len() as i64 > next, "partition {partition}: nothing at {next}, end {end}");
    }
}
