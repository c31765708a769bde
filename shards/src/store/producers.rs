//! Idempotent producers as batches in segments show them: what snapshots and recovery need.
//!
//! No judgement is made here; these batches were accepted once.

use std::collections::BTreeMap;

use crate::format::positions::{ProducerBatch, ProducerCheckpoint};
use crate::format::record_batch::BatchHeader;
use crate::model::{Offset, ProducerId};

/// How many batches of a producer are remembered. Source: Kafka.
const BATCHES_MAX: usize = 5;

/// The producers of a partition as of some offset.
#[derive(Clone, Debug, Default)]
pub struct ProducerTable {
    producers: BTreeMap<ProducerId, ProducerCheckpoint>,
}

impl ProducerTable {
    /// Starts from a checkpoint or a snapshot.
    #[must_use]
    pub fn from_checkpoint(producers: &[ProducerCheckpoint]) -> Self {
        let entry = |producer: &ProducerCheckpoint| (producer.producer_id, producer.clone());
        Self { producers: producers.iter().map(entry).collect() }
    }

    /// Takes the next batch of the log.
    pub fn observe(&mut self, header: &BatchHeader) {
        let Some(found) = header.idempotence() else { return };
        let new = || ProducerCheckpoint {
            producer_id: found.producer_id,
            producer_epoch: found.producer_epoch,
            last_timestamp: header.max_timestamp,
            batches: Vec::new(),
        };
        let producer = self.producers.entry(found.producer_id).or_insert_with(new);
        if producer.producer_epoch != found.producer_epoch {
            producer.producer_epoch = found.producer_epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_MAX {
            producer.batches.remove(0);
        }
        producer.last_timestamp = producer.last_timestamp.max(header.max_timestamp);
        producer.batches.push(ProducerBatch {
            first_sequence: found.base_sequence,
            last_sequence: found.last_sequence,
            base_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        });
    }

    /// Where the newest batch of each producer ends: its last offset.
    pub fn last_offsets(&self) -> BTreeMap<ProducerId, Offset> {
        let last = |producer: &ProducerCheckpoint| producer.batches.last().map(|it| it.last_offset);
        self.producers.iter().filter_map(|(id, producer)| Some((*id, last(producer)?))).collect()
    }

    /// Every producer, by id.
    #[must_use]
    pub fn to_checkpoint(&self) -> Vec<ProducerCheckpoint> {
        self.producers.values().cloned().collect()
    }
}
