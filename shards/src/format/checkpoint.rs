//! A shard's checkpoint file: what of its partitions is safely in segments.
//!
//! | offset | size | field, little-endian |
//! | --- | --- | --- |
//! | 0 | 4 | magic, `CHCP` |
//! | 4 | 2 | version, 1 |
//! | 6 | 2 | shard |
//! | 8 | 4 | body bytes: exactly what follows the header |
//! | 12 | 4 | CRC-32C of bytes 0 to 11 and of the body |
//! | 16 | | body: rkyv, little-endian, 32-bit relative pointers, unaligned, root at its end |
//!
//! The root of an rkyv buffer is found from its end, so the length is exact: a byte more would be
//! read as something else. The body is checked again by rkyv before a field is read.

use rkyv::{Archive, Deserialize, Serialize, rancor};

use super::positions::{PartitionCheckpoint, ProducerBatch, ProducerCheckpoint};
use crate::model::{
    LeaderEpoch, Lsn, Offset, PartitionIndex, ProducerEpoch, ProducerId, ReplicaKey, ShardId,
    TimestampMs, TopicId,
};

const MAGIC: [u8; 4] = *b"CHCP";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 16;

/// A checkpoint file's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Whose.
    pub shard: ShardId,
    /// Every commit of the shard up to this one is in segments.
    pub lsn: Lsn,
    /// The shard's partitions.
    pub partitions: Vec<PartitionCheckpoint>,
}

/// Why a file is not a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Not a checkpoint, or of another version.
    #[error("no checkpoint of version {VERSION}")]
    Header,
    /// Cut, or followed by something else.
    #[error("a checkpoint of {expected} bytes in {found}")]
    Bytes {
        /// What the header says.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// The CRC does not match the content.
    #[error("the checkpoint's CRC does not match")]
    Crc,
    /// The CRC matches and the body makes no sense: written by something else.
    #[error("the checkpoint's body: {0}")]
    Body(String),
}

#[derive(Archive, Serialize, Deserialize)]
struct Body {
    lsn: u64,
    partitions: Vec<Partition>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Partition {
    topic_id: [u8; 16],
    partition: i32,
    log_start_offset: i64,
    high_watermark: i64,
    flushed_end: i64,
    leader_epoch: i32,
    epochs: Vec<(i32, i64)>,
    producers: Vec<Producer>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Producer {
    id: i64,
    epoch: i16,
    last_timestamp: i64,
    batches: Vec<Batch>,
}

#[derive(Archive, Serialize, Deserialize)]
struct Batch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    last_offset: i64,
    timestamp: i64,
}

/// The file's bytes.
///
/// # Panics
/// When the checkpoint exceeds 4 GiB: a shard's partitions are bounded far below.
#[must_use]
pub fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    let body = Body {
        lsn: checkpoint.lsn.0,
        partitions: checkpoint.partitions.iter().map(Partition::from).collect(),
    };
    let body = rkyv::to_bytes::<rancor::Error>(&body).expect("plain data in memory serializes");
    let body_bytes = u32::try_from(body.len()).expect("a checkpoint is far below 4 GiB");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(checkpoint.shard.0.to_le_bytes());
    bytes.extend(body_bytes.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), &body);
    bytes.extend(crc.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Reads a file's bytes.
///
/// # Errors
/// When they are not exactly one intact checkpoint of this version.
pub fn decode(bytes: &[u8]) -> Result<Checkpoint, CheckpointError> {
    let (header, body) =
        bytes.split_first_chunk::<HEADER_BYTES>().ok_or(CheckpointError::Header)?;
    if header[..4] != MAGIC || header[4..6] != VERSION.to_le_bytes() {
        return Err(CheckpointError::Header);
    }
    let expected = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if expected != body.len() {
        return Err(CheckpointError::Bytes { expected, found: body.len() });
    }
    let crc = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), body);
    if header[12..] != crc.to_le_bytes() {
        return Err(CheckpointError::Crc);
    }
    let body = rkyv::from_bytes::<Body, rancor::Error>(body)
        .map_err(|error| CheckpointError::Body(error.to_string()))?;
    Ok(Checkpoint {
        shard: ShardId(u16::from_le_bytes([header[6], header[7]])),
        lsn: Lsn(body.lsn),
        partitions: body.partitions.into_iter().map(PartitionCheckpoint::from).collect(),
    })
}

impl From<&PartitionCheckpoint> for Partition {
    fn from(partition: &PartitionCheckpoint) -> Self {
        Self {
            topic_id: partition.key.topic_id.0,
            partition: partition.key.partition.0,
            log_start_offset: partition.log_start_offset.0,
            high_watermark: partition.high_watermark.0,
            flushed_end: partition.flushed_end.0,
            leader_epoch: partition.leader_epoch.0,
            epochs: partition.epochs.iter().map(|(epoch, start)| (epoch.0, start.0)).collect(),
            producers: partition.producers.iter().map(Producer::from).collect(),
        }
    }
}

impl From<Partition> for PartitionCheckpoint {
    fn from(partition: Partition) -> Self {
        let epoch = |(epoch, start)| (LeaderEpoch(epoch), Offset(start));
        Self {
            key: ReplicaKey {
                topic_id: TopicId(partition.topic_id),
                partition: PartitionIndex(partition.partition),
            },
            log_start_offset: Offset(partition.log_start_offset),
            high_watermark: Offset(partition.high_watermark),
            flushed_end: Offset(partition.flushed_end),
            leader_epoch: LeaderEpoch(partition.leader_epoch),
            epochs: partition.epochs.into_iter().map(epoch).collect(),
            producers: partition.producers.into_iter().map(ProducerCheckpoint::from).collect(),
        }
    }
}

impl From<&ProducerCheckpoint> for Producer {
    fn from(producer: &ProducerCheckpoint) -> Self {
        let batch = |batch: &ProducerBatch| Batch {
            first_sequence: batch.first_sequence,
            last_sequence: batch.last_sequence,
            base_offset: batch.base_offset.0,
            last_offset: batch.last_offset.0,
            timestamp: batch.timestamp.0,
        };
        Self {
            id: producer.producer_id.0,
            epoch: producer.producer_epoch.0,
            last_timestamp: producer.last_timestamp.0,
            batches: producer.batches.iter().map(batch).collect(),
        }
    }
}

impl From<Producer> for ProducerCheckpoint {
    fn from(producer: Producer) -> Self {
        let batch = |batch: Batch| ProducerBatch {
            first_sequence: batch.first_sequence,
            last_sequence: batch.last_sequence,
            base_offset: Offset(batch.base_offset),
            last_offset: Offset(batch.last_offset),
            timestamp: TimestampMs(batch.timestamp),
        };
        Self {
            producer_id: ProducerId(producer.id),
            producer_epoch: ProducerEpoch(producer.epoch),
            last_timestamp: TimestampMs(producer.last_timestamp),
            batches: producer.batches.into_iter().map(batch).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Checkpoint {
        let batch = ProducerBatch {
            first_sequence: 1,
            last_sequence: 2,
            base_offset: Offset(3),
            last_offset: Offset(4),
            timestamp: TimestampMs(5),
        };
        Checkpoint {
            shard: ShardId(2),
            lsn: Lsn(0x0102_0304),
            partitions: vec![PartitionCheckpoint {
                key: ReplicaKey { topic_id: TopicId([0xEE; 16]), partition: PartitionIndex(6) },
                log_start_offset: Offset(7),
                high_watermark: Offset(8),
                flushed_end: Offset(9),
                leader_epoch: LeaderEpoch(10),
                epochs: vec![(LeaderEpoch(11), Offset(12))],
                producers: vec![ProducerCheckpoint {
                    producer_id: ProducerId(13),
                    producer_epoch: ProducerEpoch(14),
                    last_timestamp: TimestampMs(15),
                    batches: vec![batch],
                }],
            }],
        }
    }

    #[test]
    fn golden_bytes_read_back() {
        let bytes = encode(&sample());
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, GOLDEN);
        assert_eq!(decode(&bytes), Ok(sample()));
    }

    #[test]
    fn damaged_checkpoints_are_refused() {
        let bytes = encode(&sample());
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            assert!(decode(&damaged).is_err(), "flip at {place}");
        }
        let longer = [bytes, vec![0]].concat();
        assert!(matches!(decode(&longer), Err(CheckpointError::Bytes { .. })));
    }

    const GOLDEN: &str = concat!(
        "434843500100020096000000504d7b1e0b0000000c0000000000000001000000",
        "020000000300000000000000040000000000000005000000000000000d000000",
        "000000000e000f00000000000000ceffffff01000000eeeeeeeeeeeeeeeeeeee",
        "eeeeeeeeeeee0600000007000000000000000800000000000000090000000000",
        "00000a0000008affffff01000000aeffffff010000000403020100000000b8ff",
        "ffff01000000",
    );
}
