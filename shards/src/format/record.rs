//! The records inside a batch, and the few things a broker does with them: checking them, finding
//! one by its time, and compressing them anew.
//!
//! A broker that stores what producers send looks inside only when it must. Decoding borrows from
//! the decompressed payload and allocates nothing of its own; the headers of a record are decoded
//! when they are asked for.

use std::borrow::Cow;

use super::batch_builder::{put_length, put_nullable, put_varint};
use super::compression::{self, Compression, CompressionError};
use super::record_batch::{BatchError, BatchHeader, ProducedBatch, StoredBatch, seal};
use crate::model::{Offset, TimestampMs};

/// What a batch may expand to when a broker looks for a time inside it.
///
/// Sixty-four times the default `max.message.bytes`: a legitimate batch that compresses better is
/// rare, and answering a look-up is no reason to take more memory.
pub const SEARCHED_BYTES_MAX: usize = 64 << 20;

/// One record.
///
/// | size | field |
/// | ---: | --- |
/// | varint | length: bytes after this field |
/// | 1 | attributes: none are defined |
/// | varint | timestamp delta, to the batch's base timestamp |
/// | varint | offset delta, to the batch's base offset |
/// | varint | key length, −1: no key |
/// | … | key |
/// | varint | value length, −1: no value |
/// | … | value |
/// | varint | number of headers |
/// | … | each header: key length, key (by convention UTF-8), value length or −1, value |
///
/// Varints are zigzag-encoded, 64 bits wide and of at most ten bytes for the timestamp delta, 32 bits wide and
/// of at most five for the rest. Source:
/// KIP-82, KIP-98.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// Its time less the batch's base timestamp.
    pub timestamp_delta: i64,
    /// Its offset less the batch's base offset, at least 0.
    pub offset_delta: i32,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; a record without one is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

impl Record<'_> {
    /// Appends the record with another timestamp delta. `body` is scratch.
    pub(super) fn encode(&self, timestamp_delta: i64, body: &mut Vec<u8>, out: &mut Vec<u8>) {
        body.clear();
        body.push(0);
        put_varint(body, timestamp_delta);
        put_varint(body, self.offset_delta.into());
        put_nullable(body, self.key);
        put_nullable(body, self.value);
        put_length(body, self.headers.count);
        body.extend_from_slice(self.headers.encoded);
        put_length(out, body.len());
        out.extend_from_slice(body);
    }
}

/// The headers of a record, already found well formed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Headers<'a> {
    count: usize,
    encoded: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Key and value of each, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut rest = Reader(self.encoded);
        (0..self.count).map(move |_| rest.header().expect("walked when the record was read"))
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordFault {
    /// The payload ends within it.
    #[error("is cut off")]
    Truncated,
    /// A variable-length integer that does not end where it must.
    #[error("has an overlong number")]
    Number,
    /// A length below −1, or −1 where there must be something.
    #[error("has an impossible length")]
    Length,
    /// Its fields take fewer bytes than it claims.
    #[error("is shorter than it claims")]
    Padding,
    /// Its offset delta is not its place in the batch.
    #[error("has the wrong offset delta")]
    OffsetDelta,
    /// It has no key where records are told apart by their keys.
    #[error("has no key, and its topic is compacted: send a key, or set cleanup.policy=delete")]
    NoKey,
    /// Bytes follow the last record.
    #[error("is the last, but bytes follow it")]
    Trailing,
}

/// Records of an uncompressed payload, in order. Ends after the header's number of records, and
/// after an error.
///
/// Offset deltas must grow, as they do in every log; whether there may be holes between them is the
/// caller's to know.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: Reader<'a>,
    next: i32,
    count: i32,
    last_offset_delta: i32,
    offset_delta_max: i32,
}

impl<'a> Records<'a> {
    /// The records of a batch with this header, whose payload, decompressed, is `payload`.
    #[must_use]
    pub fn new(header: &BatchHeader, payload: &'a [u8]) -> Self {
        Self {
            rest: Reader(payload),
            next: 0,
            count: header.record_count.max(0),
            last_offset_delta: -1,
            offset_delta_max: header.last_offset_delta,
        }
    }

    fn read(&mut self) -> Result<Record<'a>, RecordFault> {
        let record = self.rest.record()?;
        if record.offset_delta <= self.last_offset_delta
            || record.offset_delta > self.offset_delta_max
        {
            return Err(RecordFault::OffsetDelta);
        }
        if self.next + 1 == self.count && !self.rest.0.is_empty() {
            return Err(RecordFault::Trailing);
        }
        self.last_offset_delta = record.offset_delta;
        Ok(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        let index = self.next;
        let record = self.read().map_err(|fault| BatchError::Record { index, fault });
        self.next = if record.is_ok() { index + 1 } else { self.count };
        Some(record)
    }
}

impl std::iter::FusedIterator for Records<'_> {}

impl BatchHeader {
    /// The time of a record of this batch: the broker's for all of them, or the producer's.
    #[must_use]
    pub const fn timestamp_of(&self, record: &Record<'_>) -> TimestampMs {
        if self.is_log_append_time() {
            self.max_timestamp
        } else {
            // Saturating, because both numbers are the producer's.
            TimestampMs(self.base_timestamp.0.saturating_add(record.timestamp_delta))
        }
    }

    /// The payload without compression, borrowed where it has none.
    fn decompress<'a>(
        &self,
        payload: &'a [u8],
        limit_bytes: usize,
    ) -> Result<Cow<'a, [u8]>, BatchError> {
        let codec = self.codec()?;
        if codec == compression::Codec::None {
            if payload.len() > limit_bytes {
                return Err(CompressionError::TooLarge { codec, limit: limit_bytes }.into());
            }
            return Ok(Cow::Borrowed(payload));
        }
        Ok(Cow::Owned(compression::decompress(codec, payload, limit_bytes)?))
    }
}

impl ProducedBatch {
    /// The payload without compression, borrowed where it has none. Feed it to [`Records`].
    ///
    /// # Errors
    /// [`BatchError::Compression`].
    pub fn decompressed(&self, limit_bytes: usize) -> Result<Cow<'_, [u8]>, BatchError> {
        self.header.decompress(self.payload(), limit_bytes)
    }
}

impl StoredBatch {
    /// The payload without compression, borrowed where it has none. Feed it to [`Records`].
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::Codec`].
    pub fn decompressed(&self, limit_bytes: usize) -> Result<Cow<'_, [u8]>, BatchError> {
        self.header.decompress(self.payload(), limit_bytes)
    }
}

/// The same records under another compression. For batches whose records were checked, see
/// [`check_records`](ProducedBatch::check_records): they are not looked at here. A batch of that codec already,
/// whatever its level, is returned as it came.
///
/// `limit_bytes` bounds what the records may take without compression.
///
/// # Errors
/// [`BatchError::Compression`], [`BatchError::Length`].
pub fn recompress(
    batch: ProducedBatch,
    compression: impl Into<Compression>,
    limit_bytes: usize,
) -> Result<ProducedBatch, BatchError> {
    let compression = compression.into();
    if batch.header.codec()? == compression.codec() {
        return Ok(batch);
    }
    let payload = batch.decompressed(limit_bytes)?;
    seal(
        batch.header.with_codec(compression.codec()),
        &compression::compress(compression, &payload),
    )
}

/// The first record of the batch whose time is `target` or later: its offset and its time.
///
/// # Errors
/// [`BatchError::Compression`] for damage or beyond [`SEARCHED_BYTES_MAX`], [`BatchError::Codec`],
/// [`BatchError::Record`].
pub fn find_timestamp(
    batch: &StoredBatch,
    target: TimestampMs,
) -> Result<Option<(Offset, TimestampMs)>, BatchError> {
    if batch.header.max_timestamp < target {
        return Ok(None);
    }
    let payload = batch.decompressed(SEARCHED_BYTES_MAX)?;
    for record in Records::new(&batch.header, &payload) {
        let record = record?;
        let timestamp = batch.header.timestamp_of(&record);
        if timestamp >= target {
            return Ok(Some((offset_of(batch, &record), timestamp)));
        }
    }
    Ok(None)
}

/// The first record of those with the largest time in the batch: its offset and its time. `None`
/// only for a batch that compaction has emptied.
///
/// # Errors
/// As [`find_timestamp`].
pub fn max_timestamp_record(
    batch: &StoredBatch,
) -> Result<Option<(Offset, TimestampMs)>, BatchError> {
    // Not the header's word: it is the producer's, and no record may have that time.
    let payload = batch.decompressed(SEARCHED_BYTES_MAX)?;
    let mut latest: Option<(Offset, TimestampMs)> = None;
    for record in Records::new(&batch.header, &payload) {
        let record = record?;
        let timestamp = batch.header.timestamp_of(&record);
        if latest.is_none_or(|(_, known)| timestamp > known) {
            latest = Some((offset_of(batch, &record), timestamp));
        }
    }
    Ok(latest)
}

const fn offset_of(batch: &StoredBatch, record: &Record<'_>) -> Offset {
    batch.header.base_offset.plus(record.offset_delta as i64)
}

/// What is left of a payload or of a record.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next record, to its last byte.
    #[inline]
    pub(super) fn record(&mut self) -> Result<Record<'a>, RecordFault> {
        let length = usize::try_from(self.int()?).map_err(|_| RecordFault::Length)?;
        let mut body = Reader(self.take(length)?);
        body.take(1)?;
        let timestamp_delta = body.long()?;
        let offset_delta = body.int()?;
        let key = body.nullable()?;
        let value = body.nullable()?;
        let count = usize::try_from(body.int()?).map_err(|_| RecordFault::Length)?;
        let encoded = body.0;
        // Ends at the first header that is not there, however many are claimed.
        for _ in 0..count {
            body.header()?;
        }
        if !body.0.is_empty() {
            return Err(RecordFault::Padding);
        }
        let headers = Headers { count, encoded };
        Ok(Record { timestamp_delta, offset_delta, key, value, headers })
    }

    #[inline(always)]
    fn header(&mut self) -> Result<(&'a [u8], Option<&'a [u8]>), RecordFault> {
        let key = self.nullable()?.ok_or(RecordFault::Length)?;
        Ok((key, self.nullable()?))
    }

    #[inline(always)]
    fn nullable(&mut self) -> Result<Option<&'a [u8]>, RecordFault> {
        match self.int()? {
            -1 => Ok(None),
            length => {
                let length = usize::try_from(length).map_err(|_| RecordFault::Length)?;
                self.take(length).map(Some)
            }
        }
    }

    #[inline(always)]
    fn take(&mut self, length: usize) -> Result<&'a [u8], RecordFault> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(RecordFault::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline(always)]
    fn int(&mut self) -> Result<i32, RecordFault> {
        match self.short_bits() {
            Some(bits) => Ok((bits >> 1) as i32 ^ -((bits & 1) as i32)),
            None => i32::try_from(zigzag(self.bits(5)?)).map_err(|_| RecordFault::Number),
        }
    }

    #[inline(always)]
    fn long(&mut self) -> Result<i64, RecordFault> {
        match self.short_bits() {
            Some(bits) => Ok(zigzag(bits.into())),
            None => self.bits(10).map(zigzag),
        }
    }

    /// A number of at most three bytes, as nearly all are; `None` leaves it to [`Self::bits`].
    #[inline(always)]
    fn short_bits(&mut self) -> Option<u32> {
        let low = |byte: u8| u32::from(byte & 0x7f);
        let (bits, rest) = match *self.0 {
            [a @ ..0x80, ref rest @ ..] => (u32::from(a), rest),
            [a, b @ ..0x80, ref rest @ ..] => (low(a) | low(b) << 7, rest),
            [a, b, c @ ..0x80, ref rest @ ..] => (low(a) | low(b) << 7 | low(c) << 14, rest),
            _ => return None,
        };
        self.0 = rest;
        Some(bits)
    }

    #[cold]
    fn bits(&mut self, bytes_max: usize) -> Result<u64, RecordFault> {
        let mut bits = 0u64;
        for (place, byte) in self.0.iter().take(bytes_max).enumerate() {
            // The tenth byte has room for one bit.
            if place == 9 && *byte > 1 {
                return Err(RecordFault::Number);
            }
            bits |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Ok(bits);
            }
        }
        Err(if self.0.len() < bytes_max { RecordFault::Truncated } else { RecordFault::Number })
    }
}

const fn zigzag(bits: u64) -> i64 {
    (bits >> 1) as i64 ^ -((bits & 1) as i64)
}

#[cfg(test)]
mod tests;
