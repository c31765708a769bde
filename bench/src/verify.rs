//! Reading back what was written: count, order, CRC.

use bytes::Bytes;
use chronik_protocol::messages::FetchRequest;
use chronik_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use chronik_shards::format::record_batch::{Batches, StoredBatch};

use crate::error::BenchError;
use crate::fetch::FETCH_VERSION_MAX;
use crate::produce::batch::Numbering;
use crate::topic::Topic;
use crate::wire::Wire;

const FETCH_BYTES: i32 = 8 << 20;
const WAIT_MS: i32 = 500;
/// Answers without a record in a row, after which a partition is taken to have no more.
const EMPTY_MAX: u32 = 4;

/// What a partition was found to hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// Records.
    pub records: u64,
    /// Batches of each producer.
    pub batches: Vec<u64>,
}

/// Whether batches may be missing between a producer's others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holes {
    /// Every batch was acknowledged.
    None,
    /// Some were not, or nobody was to be told.
    Allowed,
}

/// What a log is checked against, batch by batch.
#[derive(Debug)]
struct Checker {
    numbering: Numbering,
    holes: Holes,
    next_offset: i64,
    /// Lowest number that each producer's next batch may have.
    next_count: Vec<u64>,
    found: Found,
}

impl Checker {
    fn new(numbering: Numbering, holes: Holes) -> Self {
        let producers = usize::try_from(numbering.producers).expect("a count of connections");
        let found = Found { records: 0, batches: vec![0; producers] };
        Self { numbering, holes, next_offset: 0, next_count: vec![0; producers], found }
    }

    /// Takes the whole batches at the beginning of `bytes`.
    fn take(&mut self, bytes: &Bytes) -> Result<(), String> {
        for batch in Batches::new(bytes) {
            let (at, header) = batch.map_err(|error| error.to_string())?;
            let whole = bytes.slice(at..at + header.total_bytes);
            let batch = StoredBatch::from_log(whole).map_err(|error| error.to_string())?;
            self.take_batch(&batch)?;
        }
        Ok(())
    }

    fn take_batch(&mut self, batch: &StoredBatch) -> Result<(), String> {
        let (base, due) = (batch.header.base_offset.0, self.next_offset);
        if base != due {
            return Err(format!("a batch at offset {base} where {due} is due"));
        }
        let stamp = batch.header.base_timestamp.0;
        let (producer, count) = self
            .numbering
            .parse(stamp)
            .ok_or_else(|| format!("offset {base}: timestamp {stamp} is no number of this run"))?;
        let index = usize::try_from(producer).expect("below the number of producers");
        let next = &mut self.next_count[index];
        if count < *next || self.holes == Holes::None && count != *next {
            return Err(format!(
                "offset {base}: batch {count} of producer {producer} where {next} is due"
            ));
        }
        *next = count + 1;
        self.found.batches[index] += 1;
        self.next_offset = batch.end_offset().0;
        self.found.records += u64::try_from(batch.header.record_count).unwrap_or(0);
        Ok(())
    }
}

/// Reads a partition from its beginning to `end_offset`; every batch must be whole, in its place, and the next of its
/// producer, or a later one where there may be holes.
///
/// # Errors
/// [`BenchError`], [`BenchError::Untrue`] for a batch that should not be there or is missing.
pub fn read_back(
    target: &str,
    topic: &Topic,
    partition: usize,
    end_offset: i64,
    numbering: Numbering,
    holes: Holes,
) -> Result<Found, BenchError> {
    let mut wire = Wire::connect(topic.leaders[partition])?;
    let version = wire.version::<FetchRequest>(FETCH_VERSION_MAX)?;
    let untrue = |what: String| BenchError::Untrue {
        target: target.to_owned(),
        what: format!("{}-{partition}: {what}", topic.name),
    };
    let mut checker = Checker::new(numbering, holes);
    let mut empty = 0;
    while checker.next_offset < end_offset {
        let request = fetch_request(&topic.name, partition, checker.next_offset);
        let answer = wire.call_version(version, &request)?;
        wire.check("Fetch", answer.error_code, None)?;
        let before = checker.next_offset;
        for data in answer.responses.into_iter().flat_map(|topic| topic.partitions) {
            wire.check("Fetch", data.error_code, None)?;
            let records = data.records.unwrap_or_default().into_bytes();
            checker.take(&records).map_err(untrue)?;
        }
        empty = if checker.next_offset == before { empty + 1 } else { 0 };
        if empty >= EMPTY_MAX {
            let next = checker.next_offset;
            return Err(untrue(format!("nothing from offset {next} on, the end is {end_offset}")));
        }
    }
    Ok(checker.found)
}

fn fetch_request(topic: &str, partition: usize, offset: i64) -> FetchRequest {
    FetchRequest {
        replica_id: -1,
        max_wait_ms: WAIT_MS,
        min_bytes: 1,
        max_bytes: FETCH_BYTES,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![FetchPartition {
                partition: i32::try_from(partition).expect("Kafka counts partitions in 32 bits"),
                fetch_offset: offset,
                partition_max_bytes: FETCH_BYTES,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use chronik_shards::format::compression::Codec;
    use chronik_shards::format::record_batch::ProducedBatch;
    use chronik_shards::model::{LeaderEpoch, Offset};

    use super::*;
    use crate::produce::batch::{BatchShape, BatchTemplate};

    const NUMBERING: Numbering = Numbering { start_ms: 1000, producers: 2 };

    /// A batch of three records as a log holds it.
    fn batch(offset: i64, producer: u64, count: u64) -> Vec<u8> {
        let shape = BatchShape { record_bytes: 10, records: 3, codec: Codec::None, key_bytes: 0 };
        let template = BatchTemplate::build(shape, 1);
        let mut bytes = template.bytes().to_vec();
        template.stamp().write(&mut bytes, NUMBERING.timestamp_ms(producer, count).unwrap());
        let produced = ProducedBatch::check(bytes.into()).unwrap();
        StoredBatch::place(produced, Offset(offset), LeaderEpoch(0)).to_log().to_vec()
    }

    fn check(batches: &[Vec<u8>]) -> Result<Found, String> {
        let mut checker = Checker::new(NUMBERING, Holes::None);
        checker.take(&batches.concat().into())?;
        Ok(checker.found)
    }

    #[test]
    fn a_true_log_is_counted() {
        let found = check(&[batch(0, 0, 0), batch(3, 1, 0), batch(6, 0, 1)]).unwrap();
        assert_eq!(found, Found { records: 9, batches: vec![2, 1] });
    }

    #[test]
    fn holes_swaps_repetitions_and_damage_are_found() {
        let refused = |batches: &[Vec<u8>]| check(batches).unwrap_err();
        assert!(refused(&[batch(0, 0, 0), batch(4, 0, 1)]).contains("where 3 is due"));
        assert!(refused(&[batch(0, 0, 1), batch(3, 0, 0)]).contains("batch 1 of producer 0"));
        assert!(refused(&[batch(0, 0, 0), batch(3, 0, 0)]).contains("batch 0 of producer 0"));
        let mut damaged = batch(0, 0, 0);
        *damaged.last_mut().unwrap() ^= 1;
        assert!(refused(&[damaged]).contains("CRC"));
        let mut lossy = Checker::new(NUMBERING, Holes::Allowed);
        lossy.take(&[batch(0, 0, 0), batch(3, 0, 2)].concat().into()).unwrap();
        assert_eq!(lossy.found, Found { records: 6, batches: vec![2, 0] });
        assert!(lossy.take(&batch(6, 0, 1).into()).unwrap_err().contains("batch 1 of producer 0"));
        let other_run = Numbering { start_ms: 5000, ..NUMBERING };
        let mut checker = Checker::new(other_run, Holes::None);
        assert!(checker.take(&batch(0, 0, 0).into()).unwrap_err().contains("no number"));
    }
}
