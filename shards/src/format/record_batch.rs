//! Kafka's record batch, magic 2: the unit that is produced, logged, replicated and fetched.
//!
//! Decides which of a client's bytes may enter a log ([`ProducedBatch::check`]) and which bytes of a
//! log may be believed ([`StoredBatch::from_log`]). The producer's bytes are kept as they came. Only
//! `base_offset` and `partition_leader_epoch` lie outside the CRC and are stamped by the leader; both
//! are within the first sixteen bytes, so a stored batch is those sixteen bytes anew and the rest by
//! reference.
//!
//! Invariants: a parsed header's offsets do not overflow, so [`BatchHeader::end_offset`] is total;
//! a checked batch is one batch to the byte.
//!
//! Absent on purpose: the records themselves (see [`super::record`]), message formats 0 and 1, and
//! anything that depends on a topic's configuration or on a producer's history.

use bytes::{BufMut, Bytes, BytesMut};

use super::compression::{Codec, CompressionError};
use super::record::RecordFault;
use crate::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TimestampMs};

/// Bytes of the head that a leader stamps anew: base offset, length and leader epoch.
pub const STAMPED_BYTES: usize = 16;

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;

/// The only message format there is here. Source: KIP-98.
pub const MAGIC: i8 = 2;

/// Base offset and the length field itself: what the length field does not count.
const LENGTH_EXCLUDES: usize = 12;
const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
/// The CRC covers everything from here to the end.
const CRC_FROM: usize = 21;
const MAX_TIMESTAMP_AT: usize = 35;

/// Length, attributes, two deltas, key length, value length and header count, one byte each.
const RECORD_BYTES_MIN: usize = 7;

const CODEC_BITS: i16 = 0b111;
const LOG_APPEND_TIME_BIT: i16 = 1 << 3;
/// The base timestamp is when the batch's tombstones may go. Source: KIP-534.
const DELETE_HORIZON_BIT: i16 = 1 << 6;

const _: () = assert!(STAMPED_BYTES == MAGIC_AT && STAMPED_BYTES <= CRC_FROM);

/// Why bytes are not an acceptable record batch.
///
/// The variants are as fine as the answers to clients are; the code for each is in its text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BatchError {
    /// The bytes end before the batch does. CORRUPT_MESSAGE.
    #[error("a batch of at least {needed} bytes in {found}")]
    Truncated {
        /// Bytes there are.
        found: usize,
        /// Bytes the batch claims, or that any header takes.
        needed: usize,
    },
    /// The length field cannot be a batch's. CORRUPT_MESSAGE.
    #[error("a batch length of {length}")]
    Length {
        /// The field.
        length: i32,
    },
    /// Bytes that are no batch follow the batch. CORRUPT_MESSAGE.
    #[error("{bytes} bytes of something else after the batch")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// The CRC does not match the content. CORRUPT_MESSAGE.
    #[error("CRC-32C {computed:#010x} where the batch says {found:#010x}")]
    Crc {
        /// What the batch carries.
        found: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// Another message format. UNSUPPORTED_FOR_MESSAGE_FORMAT.
    #[error("message format {found}, only {MAGIC} is served")]
    Magic {
        /// The magic byte.
        found: i8,
    },
    /// No bytes at all where one batch was due. INVALID_RECORD.
    #[error("no batch")]
    NoBatch,
    /// Another batch follows the first. INVALID_RECORD.
    #[error("more than one batch: {bytes} bytes after the first")]
    MoreThanOneBatch {
        /// Bytes after the first batch.
        bytes: usize,
    },
    /// The number of records disagrees with the offsets or with the size. INVALID_RECORD.
    #[error("{record_count} records, last offset delta {last_offset_delta}, {record_bytes} bytes")]
    Count {
        /// The header's number of records.
        record_count: i32,
        /// The header's last offset delta.
        last_offset_delta: i32,
        /// Bytes after the header.
        record_bytes: usize,
    },
    /// Offsets that cannot be: negative or beyond 63 bits. INVALID_RECORD from a client, damage in a
    /// log.
    #[error("base offset {base_offset} and last offset delta {last_offset_delta}")]
    Offsets {
        /// The header's base offset.
        base_offset: i64,
        /// The header's last offset delta.
        last_offset_delta: i32,
    },
    /// No such codec. INVALID_RECORD.
    #[error("unknown codec {id}")]
    Codec {
        /// Bits 0–2 of the attributes.
        id: i16,
    },
    /// Attribute bits that a producer may not set. INVALID_RECORD.
    #[error("attributes {attributes:#06x}")]
    Attributes {
        /// All of them.
        attributes: i16,
    },
    /// A producer claims that the broker has stamped the time. INVALID_TIMESTAMP.
    #[error("the producer set the timestamp type to LogAppendTime")]
    TimestampType,
    /// Producer id, epoch and sequence do not belong together. INVALID_RECORD.
    #[error("producer {producer_id} epoch {producer_epoch} sequence {base_sequence}")]
    Producer {
        /// The header's producer id.
        producer_id: ProducerId,
        /// The header's producer epoch.
        producer_epoch: ProducerEpoch,
        /// The header's base sequence.
        base_sequence: i32,
    },
    /// The records cannot be decompressed. INVALID_RECORD, because their CRC is right and they would be no
    /// better another time; MESSAGE_TOO_LARGE for [`CompressionError::TooLarge`].
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// A record is not well formed or not in its place. INVALID_RECORD.
    #[error("record {index} {fault}")]
    Record {
        /// Its place in the batch.
        index: i32,
        /// What is wrong with it.
        fault: RecordFault,
    },
}

/// The header's fields, in the order of the layout. Big-endian:
///
/// | offset | size | field |
/// | ---: | ---: | --- |
/// | 0 | 8 | base offset |
/// | 8 | 4 | length: bytes after this field |
/// | 12 | 4 | partition leader epoch |
/// | 16 | 1 | magic: 2 |
/// | 17 | 4 | CRC-32C of everything from offset 21 to the end |
/// | 21 | 2 | attributes |
/// | 23 | 4 | last offset delta |
/// | 27 | 8 | base timestamp, ms |
/// | 35 | 8 | max timestamp, ms |
/// | 43 | 8 | producer id |
/// | 51 | 2 | producer epoch |
/// | 53 | 4 | base sequence |
/// | 57 | 4 | record count |
/// | 61 | … | records, as one compressed stream under a codec |
///
/// Source: KIP-98.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchHeader {
    /// Offset of the first record. From a producer: 0, and ignored.
    pub base_offset: Offset,
    /// The whole batch, from its first byte to its last.
    pub total_bytes: usize,
    /// Stamped by the leader.
    pub leader_epoch: LeaderEpoch,
    /// CRC-32C from the attributes to the end.
    pub crc: u32,
    /// Codec in bits 0–2, timestamp type in bit 3, transactional in bit 4, control in bit 5, delete horizon in bit 6.
    pub attributes: i16,
    /// Offset of the last record less `base_offset`.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas count from.
    pub base_timestamp: TimestampMs,
    /// The largest timestamp of the records.
    pub max_timestamp: TimestampMs,
    /// The idempotent producer, or [`ProducerId::NONE`].
    pub producer_id: ProducerId,
    /// The producer's incarnation.
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record; −1 without an idempotent producer.
    pub base_sequence: i32,
    /// Number of records.
    pub record_count: i32,
}

/// Records of whole batches that lie one behind the other, as their headers say; of what is behind the last whole one,
/// nothing.
#[must_use]
pub fn record_count(mut batches: &[u8]) -> u64 {
    let mut count = 0;
    while let Some(head) = batches.first_chunk::<HEADER_BYTES>() {
        let length = usize::try_from(i32::from_be_bytes(field(head, 8))).unwrap_or(0);
        let Some((_, rest)) = batches.split_at_checked(length + LENGTH_EXCLUDES) else { break };
        count += u64::try_from(i32::from_be_bytes(field(head, 57))).unwrap_or(0);
        batches = rest;
    }
    count
}

/// What an idempotent producer says of a batch. Source: KIP-98.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Idempotence {
    /// The producer, at least 0.
    pub producer_id: ProducerId,
    /// Its incarnation, at least 0.
    pub producer_epoch: ProducerEpoch,
    /// Sequence number of the first record, at least 0.
    pub base_sequence: i32,
    /// Sequence number of the last record. Numbers wrap from `i32::MAX` to 0.
    pub last_sequence: i32,
}

impl BatchHeader {
    pub(super) const TRANSACTIONAL_BIT: i16 = 1 << 4;
    pub(super) const CONTROL_BIT: i16 = 1 << 5;

    /// Reads the header at the beginning of `bytes`, which may be shorter or longer than the batch.
    ///
    /// Checks the magic, that the length covers a header, and that the offsets do not overflow. Does
    /// not check the CRC nor anything a log may legitimately hold.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] below [`HEADER_BYTES`], [`BatchError::Magic`],
    /// [`BatchError::Length`], [`BatchError::Offsets`].
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        // The magic is at the same place in every format, and the old formats may be shorter: name
        // the format before the size.
        match bytes.get(MAGIC_AT) {
            Some(magic) if *magic as i8 != MAGIC => {
                return Err(BatchError::Magic { found: *magic as i8 });
            }
            _ => {}
        }
        let Some((head, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(BatchError::Truncated { found: bytes.len(), needed: HEADER_BYTES });
        };
        let length = i32::from_be_bytes(field(head, 8));
        let total_bytes = usize::try_from(length).unwrap_or(0) + LENGTH_EXCLUDES;
        if total_bytes < HEADER_BYTES {
            return Err(BatchError::Length { length });
        }
        let base_offset = i64::from_be_bytes(field(head, 0));
        let last_offset_delta = i32::from_be_bytes(field(head, 23));
        let end_offset = base_offset.checked_add(i64::from(last_offset_delta) + 1);
        if base_offset < 0 || last_offset_delta < 0 || end_offset.is_none() {
            return Err(BatchError::Offsets { base_offset, last_offset_delta });
        }
        Ok(Self {
            base_offset: Offset(base_offset),
            total_bytes,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(head, 12))),
            crc: u32::from_be_bytes(field(head, CRC_AT)),
            attributes: i16::from_be_bytes(field(head, CRC_FROM)),
            last_offset_delta,
            base_timestamp: TimestampMs(i64::from_be_bytes(field(head, 27))),
            max_timestamp: TimestampMs(i64::from_be_bytes(field(head, MAX_TIMESTAMP_AT))),
            producer_id: ProducerId(i64::from_be_bytes(field(head, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(head, 51))),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: i32::from_be_bytes(field(head, 57)),
        })
    }

    /// Number of offsets the batch takes. After compaction it may exceed the number of records.
    #[must_use]
    pub const fn offset_count(&self) -> i64 {
        self.last_offset_delta as i64 + 1
    }

    /// Offset of the batch's last record.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        self.base_offset.plus(self.last_offset_delta as i64)
    }

    /// The offset after the batch's last.
    #[must_use]
    pub const fn end_offset(&self) -> Offset {
        self.base_offset.plus(self.offset_count())
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// [`BatchError::Codec`] where the number is not one.
    pub const fn codec(&self) -> Result<Codec, BatchError> {
        let id = self.attributes & CODEC_BITS;
        match Codec::from_id(id) {
            Some(codec) => Ok(codec),
            None => Err(BatchError::Codec { id }),
        }
    }

    /// Whether every record has the time at which the broker appended it, which is
    /// `max_timestamp`, whatever the records' own deltas say.
    #[must_use]
    pub const fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME_BIT != 0
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & Self::TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch holds a transaction marker rather than a client's records.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & Self::CONTROL_BIT != 0
    }

    /// When the batch's tombstones may go, once compaction has met them. Source: KIP-534.
    #[must_use]
    pub const fn delete_horizon(&self) -> Option<TimestampMs> {
        match self.attributes & DELETE_HORIZON_BIT {
            0 => None,
            _ => Some(self.base_timestamp),
        }
    }

    /// The same header over records that count their times from `horizon`, when the tombstones among them may go.
    pub(super) const fn with_delete_horizon(mut self, horizon: TimestampMs) -> Self {
        self.attributes |= DELETE_HORIZON_BIT;
        self.base_timestamp = horizon;
        self
    }

    /// The header of the same offsets, producer and time without any record.
    pub(super) const fn emptied(mut self) -> Self {
        self.attributes &= !(CODEC_BITS | DELETE_HORIZON_BIT);
        self.base_timestamp = self.max_timestamp;
        self.record_count = 0;
        self
    }

    /// The largest timestamp of its records. Without records the header may still say what the largest once was.
    #[must_use]
    pub const fn newest_record(&self) -> TimestampMs {
        if self.record_count == 0 { TimestampMs::NONE } else { self.max_timestamp }
    }

    /// Whether it says of offsets on both sides of `offset` that nothing is there, and nothing else.
    #[must_use]
    pub fn is_empty_across(&self, offset: Offset) -> bool {
        let is_empty = self.record_count == 0 && self.total_bytes == HEADER_BYTES;
        is_empty && self.base_offset < offset && self.end_offset() > offset
    }

    /// What the idempotent producer says, or `None` without one.
    #[must_use]
    pub const fn idempotence(&self) -> Option<Idempotence> {
        if self.producer_id.0 < 0 {
            return None;
        }
        // Adding in 32 bits and clearing the sign is the wrap from `i32::MAX` to 0.
        let last_sequence = self.base_sequence.wrapping_add(self.last_offset_delta) & i32::MAX;
        Some(Idempotence {
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            last_sequence,
        })
    }

    /// The same header over records of another codec.
    pub(super) const fn with_codec(mut self, codec: Codec) -> Self {
        self.attributes = self.attributes & !CODEC_BITS | codec.id();
        self
    }

    /// The header's bytes, with `length` and `crc` as the fields say.
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_i64(self.base_offset.0);
        out.put_i32(self.length());
        out.put_i32(self.leader_epoch.0);
        out.put_i8(MAGIC);
        out.put_u32(self.crc);
        out.put_i16(self.attributes);
        out.put_i32(self.last_offset_delta);
        out.put_i64(self.base_timestamp.0);
        out.put_i64(self.max_timestamp.0);
        out.put_i64(self.producer_id.0);
        out.put_i16(self.producer_epoch.0);
        out.put_i32(self.base_sequence);
        out.put_i32(self.record_count);
        bytes
    }

    fn length(&self) -> i32 {
        i32::try_from(self.total_bytes - LENGTH_EXCLUDES)
            .expect("parsed from, or sealed within, i32")
    }
}

/// `N` bytes of a header at a constant place.
fn field<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&head[at..at + N]);
    value
}

/// A batch of a log, of `header` and `records`: fills in the length and the CRC.
///
/// # Errors
/// [`BatchError::Length`] where the records do not fit the length field.
pub(super) fn seal_stored(header: BatchHeader, records: &[u8]) -> Result<StoredBatch, BatchError> {
    let ProducedBatch { header, bytes } = seal(header, records)?;
    Ok(StoredBatch { header, bytes })
}

/// A batch of `header` and `records`: fills in the length and the CRC.
///
/// # Errors
/// [`BatchError::Length`] where the records do not fit the length field.
pub(super) fn seal(mut header: BatchHeader, records: &[u8]) -> Result<ProducedBatch, BatchError> {
    header.total_bytes = HEADER_BYTES + records.len();
    if i32::try_from(header.total_bytes).is_err() {
        return Err(BatchError::Length { length: i32::MAX });
    }
    let head = header.encode();
    header.crc = crc32c::crc32c_append(crc32c::crc32c(&head[CRC_FROM..]), records);
    let mut bytes = BytesMut::with_capacity(header.total_bytes);
    bytes.extend_from_slice(&header.encode());
    bytes.extend_from_slice(records);
    Ok(ProducedBatch { header, bytes: bytes.freeze() })
}

/// The header of the one batch that `bytes` is, its CRC verified.
fn parse_whole(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    if bytes.is_empty() {
        return Err(BatchError::NoBatch);
    }
    let header = BatchHeader::parse(bytes)?;
    if bytes.len() < header.total_bytes {
        return Err(BatchError::Truncated { found: bytes.len(), needed: header.total_bytes });
    }
    let rest = &bytes[header.total_bytes..];
    if !rest.is_empty() {
        // A damaged length and a second batch are told apart, because clients are.
        return Err(match BatchHeader::parse(rest) {
            Ok(_) => BatchError::MoreThanOneBatch { bytes: rest.len() },
            Err(_) => BatchError::TrailingBytes { bytes: rest.len() },
        });
    }
    let computed = crc32c::crc32c(&bytes[CRC_FROM..]);
    if computed != header.crc {
        return Err(BatchError::Crc { found: header.crc, computed });
    }
    Ok(header)
}

/// A batch that passed every check a producer's bytes must pass.
#[derive(Clone, Debug)]
pub struct ProducedBatch {
    /// Parsed from `bytes`.
    pub header: BatchHeader,
    /// Exactly one batch.
    pub bytes: Bytes,
}

impl ProducedBatch {
    /// Accepts a client's bytes if they are one batch that may enter a log.
    ///
    /// Looks at the header and at the CRC; the records inside are
    /// [`check_records`](Self::check_records)'s matter.
    ///
    /// # Errors
    /// What of it is wrong, as [`BatchError`] lists it. Transactional and control batches are well
    /// formed and pass: who may send them is not a matter of bytes.
    pub fn check(bytes: Bytes) -> Result<Self, BatchError> {
        let header = parse_whole(&bytes)?;
        check_attributes(&header)?;
        check_count(&header)?;
        check_producer(&header)?;
        Ok(Self { header, bytes })
    }

    /// The records, still compressed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The same records under the broker's time: every one of them is then read as of `now`.
    ///
    /// Copies the batch, because the attributes and `max_timestamp` lie under the CRC.
    #[must_use]
    pub fn with_log_append_time(self, now: TimestampMs) -> Self {
        let mut header = self.header;
        header.attributes |= LOG_APPEND_TIME_BIT;
        header.max_timestamp = now;
        seal(header, self.payload()).expect("as long as before")
    }

    /// The same batch with `latest` as the largest timestamp of its records, whatever its producer wrote.
    /// Copies it if that is another.
    #[must_use]
    pub fn with_max_timestamp(self, latest: TimestampMs) -> Self {
        if self.header.max_timestamp == latest {
            return self;
        }
        let header = BatchHeader { max_timestamp: latest, ..self.header };
        seal(header, self.payload()).expect("as long as before")
    }
}

/// Refuses what only a broker may set, and what has no meaning.
fn check_attributes(header: &BatchHeader) -> Result<(), BatchError> {
    header.codec()?;
    if header.is_log_append_time() {
        return Err(BatchError::TimestampType);
    }
    let known = CODEC_BITS | BatchHeader::TRANSACTIONAL_BIT | BatchHeader::CONTROL_BIT;
    if header.attributes & !known != 0 {
        return Err(BatchError::Attributes { attributes: header.attributes });
    }
    Ok(())
}

/// A producer's batch has no holes, and room for the records it claims.
fn check_count(header: &BatchHeader) -> Result<(), BatchError> {
    let record_bytes = header.total_bytes - HEADER_BYTES;
    let claimed = usize::try_from(header.record_count).unwrap_or(0);
    let fits = match header.codec()? {
        Codec::None => claimed.checked_mul(RECORD_BYTES_MIN).is_some_and(|n| n <= record_bytes),
        Codec::Gzip | Codec::Snappy | Codec::Lz4 | Codec::Zstd => record_bytes > 0,
    };
    if claimed == 0 || i64::from(header.record_count) != header.offset_count() || !fits {
        return Err(BatchError::Count {
            record_count: header.record_count,
            last_offset_delta: header.last_offset_delta,
            record_bytes,
        });
    }
    Ok(())
}

/// An idempotent producer sends all three numbers; a transaction has an idempotent producer.
fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let complete = match header.idempotence() {
        Some(numbers) => numbers.producer_epoch.0 >= 0 && numbers.base_sequence >= 0,
        None => header.producer_id == ProducerId::NONE && !header.is_transactional(),
    };
    // A marker carries its producer's id and epoch, but takes no sequence number.
    if !complete && !header.is_control() {
        return Err(BatchError::Producer {
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        });
    }
    Ok(())
}

/// A batch at its place in a log. The first [`STAMPED_BYTES`] of `bytes` are superseded by
/// [`StoredBatch::stamp`].
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// As it is in the log: with the log's base offset and leader epoch.
    pub header: BatchHeader,
    /// The producer's bytes.
    pub bytes: Bytes,
}

impl StoredBatch {
    /// The batch with the place that its leader gives it.
    ///
    /// # Panics
    /// When the offsets leave 63 bits: a log does not get that long.
    #[must_use]
    pub fn place(batch: ProducedBatch, base_offset: Offset, leader_epoch: LeaderEpoch) -> Self {
        let ProducedBatch { mut header, bytes } = batch;
        assert!(
            base_offset >= Offset::ZERO
                && base_offset.0.checked_add(header.offset_count()).is_some(),
            "a batch of {} offsets at {base_offset}",
            header.offset_count()
        );
        header.base_offset = base_offset;
        header.leader_epoch = leader_epoch;
        Self { header, bytes }
    }

    /// Accepts the bytes of one batch as a log holds them.
    ///
    /// # Errors
    /// [`BatchError::NoBatch`], [`BatchError::Magic`], [`BatchError::Length`],
    /// [`BatchError::Offsets`], [`BatchError::Truncated`], [`BatchError::TrailingBytes`],
    /// [`BatchError::MoreThanOneBatch`], [`BatchError::Crc`]. What a producer may not send but a log
    /// may hold (holes after compaction, the broker's time) passes.
    pub fn from_log(bytes: Bytes) -> Result<Self, BatchError> {
        let header = parse_whole(&bytes)?;
        Ok(Self { header, bytes })
    }

    /// The first bytes of the batch as the log holds them.
    #[must_use]
    pub fn stamp(&self) -> [u8; STAMPED_BYTES] {
        let mut stamp = [0; STAMPED_BYTES];
        stamp[..8].copy_from_slice(&self.header.base_offset.0.to_be_bytes());
        stamp[8..12].copy_from_slice(&self.header.length().to_be_bytes());
        stamp[12..].copy_from_slice(&self.header.leader_epoch.0.to_be_bytes());
        stamp
    }

    /// Everything after the stamp.
    #[must_use]
    pub fn tail(&self) -> &[u8] {
        &self.bytes[STAMPED_BYTES..]
    }

    /// Everything after the stamp, by reference.
    #[must_use]
    pub fn tail_bytes(&self) -> Bytes {
        self.bytes.slice(STAMPED_BYTES..)
    }

    /// The whole batch in one piece: a copy.
    #[must_use]
    pub fn to_log(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.total_bytes());
        bytes.extend_from_slice(&self.stamp());
        bytes.extend_from_slice(self.tail());
        bytes.freeze()
    }

    /// The records, still compressed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// The whole batch, from its first byte to its last.
    #[must_use]
    pub const fn total_bytes(&self) -> usize {
        self.header.total_bytes
    }

    /// The offset after the batch's last.
    #[must_use]
    pub const fn end_offset(&self) -> Offset {
        self.header.end_offset()
    }
}

/// The batches of a piece of a log: where each begins, and its header.
///
/// Ends at a batch that is not all there, and after an error. Reads headers only and checks no CRC;
/// a damaged length may therefore look like an incomplete batch.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    next: usize,
    failed: bool,
}

impl<'a> Batches<'a> {
    /// Over `bytes`, which begin with a batch.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0, failed: false }
    }

    /// Bytes taken by the batches returned so far.
    #[must_use]
    pub const fn consumed(&self) -> usize {
        self.next
    }
}

impl Iterator for Batches<'_> {
    type Item = Result<(usize, BatchHeader), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.bytes[self.next..];
        if self.failed || rest.is_empty() {
            return None;
        }
        match BatchHeader::parse(rest) {
            Ok(header) if header.total_bytes <= rest.len() => {
                let at = self.next;
                self.next += header.total_bytes;
                Some(Ok((at, header)))
            }
            Ok(_) | Err(BatchError::Truncated { .. }) => None,
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

impl std::iter::FusedIterator for Batches<'_> {}

#[cfg(test)]
mod tests;
