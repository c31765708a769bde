//! What the server acknowledged, and what a consumer saw.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::support::random::Random;

/// A record by who sent it and its number there; its value follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub worker: u32,
    pub number: u32,
}

/// Most bytes of a value; rarely reached.
const VALUE_BYTES_MAX: usize = 100_000;

impl Identity {
    /// The value of the record, of a length that depends on its identity.
    pub fn value(self) -> Vec<u8> {
        let mut random = Random::new(u64::from(self.worker) << 32 | u64::from(self.number));
        let length = match random.below(200) {
            0 => random.between(10_000, VALUE_BYTES_MAX),
            1..20 => random.between(1000, 5000),
            _ => random.between(0, 300),
        };
        let mut value = Vec::with_capacity(length + 16);
        value.extend(self.worker.to_be_bytes());
        value.extend(self.number.to_be_bytes());
        while value.len() < length + 8 {
            value.extend(random.next().to_be_bytes());
        }
        value.truncate(length + 8);
        value
    }

    /// The identity of a record that was read. A value that nobody sent fails.
    pub fn of(value: &[u8]) -> Self {
        assert!(value.len() >= 8, "a value of {} bytes, which nobody sent", value.len());
        let word = |at: usize| u32::from_be_bytes(value[at..at + 4].try_into().unwrap());
        let identity = Self { worker: word(0), number: word(4) };
        assert!(identity.value() == value, "{identity:?} has another value than was sent");
        identity
    }
}

/// A batch that was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub base_offset: i64,
    pub first: Identity,
    pub count: u32,
}

/// What all clients learnt.
#[derive(Debug)]
pub struct Ledger {
    acknowledged: Vec<Mutex<Vec<Acknowledged>>>,
    seen: Vec<Mutex<Vec<Identity>>>,
    batches: AtomicU64,
    records: AtomicU64,
    resent: AtomicU64,
}

impl Ledger {
    pub fn new(partitions: usize) -> Self {
        Self {
            acknowledged: (0..partitions).map(|_| Mutex::default()).collect(),
            seen: (0..partitions).map(|_| Mutex::default()).collect(),
            batches: AtomicU64::new(0),
            records: AtomicU64::new(0),
            resent: AtomicU64::new(0),
        }
    }

    pub fn partitions(&self) -> usize {
        self.seen.len()
    }

    pub fn acknowledge(&self, partition: usize, batch: Acknowledged) {
        self.acknowledged[partition].lock().unwrap().push(batch);
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.records.fetch_add(batch.count.into(), Ordering::Relaxed);
    }

    /// The acknowledgements since this was last asked.
    pub fn take_acknowledged(&self, partition: usize) -> Vec<Acknowledged> {
        std::mem::take(&mut *self.acknowledged[partition].lock().unwrap())
    }

    /// The consumer's next record of the partition.
    pub fn see(&self, partition: usize, offset: i64, record: Identity) {
        let mut seen = self.seen[partition].lock().unwrap();
        assert_eq!(offset, seen.len() as i64, "partition {partition}: offsets are dense");
        seen.push(record);
    }

    pub fn seen(&self, partition: usize) -> Vec<Identity> {
        self.seen[partition].lock().unwrap().clone()
    }

    pub fn note_resent(&self, batches: usize) {
        self.resent.fetch_add(batches as u64, Ordering::Relaxed);
    }

    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    pub fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub fn resent(&self) -> u64 {
        self.resent.load(Ordering::Relaxed)
    }
}
