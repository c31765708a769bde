//! Whether the records of a produced batch are what its header says.
//!
//! A broker that stored records which do not parse would hand every consumer a batch that it cannot get
//! past. So each record is walked before its batch enters a log: well formed, in its place without holes,
//! as many as the header counts, nothing behind the last; where a topic is compacted, with a key. What keys, values and
//! headers hold is not looked at.
//!
//! The walk goes along with the decompression and keeps nothing but its place: whatever a batch expands to,
//! memory stays that of one piece (see [`super::compression::Pieces`]). It can be left between two pieces, so
//! that a long batch need not hold its thread.

use super::compression::Pieces;
use super::record::{Reader, RecordFault};
use super::record_batch::{BatchError, BatchHeader, ProducedBatch};
use crate::model::TimestampMs;

/// What a piece counts at least: a codec may do much for a piece that is small or empty.
const PIECE_BYTES_MIN: usize = 16 << 10;

/// A walk over the records of a batch.
pub struct RecordCheck<'a> {
    pieces: Pieces<'a>,
    place: Place,
    walked: usize,
}

impl ProducedBatch {
    /// Begins to look at every record. They may take `limit_bytes` without compression.
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::Codec`].
    pub fn record_check(&self, limit_bytes: usize) -> Result<RecordCheck<'_>, BatchError> {
        let pieces = Pieces::new(self.header.codec()?, self.payload(), limit_bytes)?;
        Ok(RecordCheck { pieces, place: Place::first(&self.header), walked: 0 })
    }

    /// Looks at every record at once. Returns the latest time among them.
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::Codec`], [`BatchError::Record`].
    pub fn check_records(&self, limit_bytes: usize) -> Result<TimestampMs, BatchError> {
        self.record_check(limit_bytes)?.finish()
    }
}

impl RecordCheck<'_> {
    /// Whether a record without a key is refused, as [`RecordFault::NoKey`].
    #[must_use]
    pub fn requires_keys(mut self, requires_keys: bool) -> Self {
        self.place.requires_keys = requires_keys;
        self
    }

    /// Walks all that is left. Returns the latest time of the records.
    ///
    /// # Errors
    /// As [`RecordCheck::advance`].
    pub fn finish(mut self) -> Result<TimestampMs, BatchError> {
        loop {
            if let Some(latest) = self.advance(usize::MAX)? {
                return Ok(latest);
            }
        }
    }

    /// Walks on, over `bytes` or little more. The latest time of the records once all are walked; not to
    /// be called again then, nor after an error.
    ///
    /// # Errors
    /// [`BatchError::Compression`], [`BatchError::Record`].
    pub fn advance(&mut self, bytes: usize) -> Result<Option<TimestampMs>, BatchError> {
        let until = self.walked.saturating_add(bytes);
        while self.walked < until {
            let Some(piece) = self.pieces.next_piece()? else {
                return self.place.end().map(Some);
            };
            self.walked = self.walked.saturating_add(piece.len().max(PIECE_BYTES_MIN));
            self.place.walk(piece)?;
        }
        Ok(None)
    }

    /// What was walked so far, in bytes without compression; small pieces count for more.
    #[must_use]
    pub const fn walked(&self) -> usize {
        self.walked
    }
}

/// How far a walk is.
struct Place {
    /// The next record, or the one that is cut.
    next: i32,
    count: i32,
    cut: Option<CutRecord>,
    base_timestamp: TimestampMs,
    latest: TimestampMs,
    requires_keys: bool,
}

impl Place {
    fn first(header: &BatchHeader) -> Self {
        let (count, base_timestamp) = (header.record_count, header.base_timestamp);
        let latest = TimestampMs(i64::MIN);
        Self { next: 0, count, cut: None, base_timestamp, latest, requires_keys: false }
    }

    fn walk(&mut self, piece: &[u8]) -> Result<(), BatchError> {
        let mut reader = Reader(piece);
        if self.cut.is_some() {
            self.walk_cut(&mut reader)?;
        }
        while !reader.0.is_empty() {
            if self.next == self.count {
                return Err(BatchError::Record {
                    index: self.next - 1,
                    fault: RecordFault::Trailing,
                });
            }
            let begin = reader.0;
            if let Some(record) = Ordinary::at(begin) {
                self.pass(record.timestamp_delta, record.offset_delta, record.has_key)?;
                reader.0 = &begin[record.bytes..];
                continue;
            }
            match reader.record() {
                Ok(record) => {
                    self.pass(record.timestamp_delta, record.offset_delta, record.key.is_some())?;
                }
                Err(RecordFault::Truncated) => {
                    // By the end of the piece, or by its own length: only a closer look can tell.
                    reader.0 = begin;
                    self.cut = Some(CutRecord::default());
                    self.walk_cut(&mut reader)?;
                }
                Err(fault) => return Err(self.fault(fault)),
            }
        }
        Ok(())
    }

    fn walk_cut(&mut self, reader: &mut Reader<'_>) -> Result<(), BatchError> {
        let Some(mut cut) = self.cut.take() else { return Ok(()) };
        match cut.walk(reader) {
            Ok(true) => self.pass(cut.timestamp_delta, cut.offset_delta, cut.has_key)?,
            Ok(false) => self.cut = Some(cut),
            Err(fault) => return Err(self.fault(fault)),
        }
        Ok(())
    }

    fn pass(
        &mut self,
        timestamp_delta: i64,
        offset_delta: i32,
        has_key: bool,
    ) -> Result<(), BatchError> {
        if offset_delta != self.next {
            return Err(self.fault(RecordFault::OffsetDelta));
        }
        if self.requires_keys && !has_key {
            return Err(self.fault(RecordFault::NoKey));
        }
        // Saturating, because both numbers are the producer's.
        let timestamp = TimestampMs(self.base_timestamp.0.saturating_add(timestamp_delta));
        self.latest = self.latest.max(timestamp);
        self.next += 1;
        Ok(())
    }

    fn end(&self) -> Result<TimestampMs, BatchError> {
        if self.cut.is_some() || self.next < self.count {
            return Err(self.fault(RecordFault::Truncated));
        }
        Ok(self.latest)
    }

    fn fault(&self, fault: RecordFault) -> BatchError {
        BatchError::Record { index: self.next, fault }
    }
}

/// A record as nearly all are: numbers of at most three bytes, no headers, more bytes behind it. Every produced
/// record is walked, most of them by this alone; it says nothing about the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ordinary {
    bytes: usize,
    timestamp_delta: i64,
    offset_delta: i32,
    has_key: bool,
}

/// More than the numbers before a key take, and a power of two, so that no place in it is out of bounds.
const HEAD_BYTES: usize = 32;

impl Ordinary {
    #[inline]
    fn at(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; HEAD_BYTES] = bytes.first_chunk()?;
        let (length, at) = short_number(head, 0)?;
        let bytes_end = at + usize::try_from(length).ok()?;
        // The attributes take a byte.
        let (timestamp_delta, at) = short_number(head, at + 1)?;
        let (offset_delta, at) = short_number(head, at)?;
        let (key, at) = short_number(head, at)?;
        let value_at = at + nullable_bytes(key)?;
        let (value, at) = match bytes.get(value_at..)?.first_chunk::<HEAD_BYTES>() {
            Some(rest) => short_number(rest, 0)?,
            None => return None,
        };
        let headers_at = value_at + at + nullable_bytes(value)?;
        let is_whole = headers_at + 1 == bytes_end && bytes.get(headers_at) == Some(&0);
        is_whole.then_some(Self {
            bytes: bytes_end,
            timestamp_delta: timestamp_delta.into(),
            offset_delta,
            has_key: key >= 0,
        })
    }
}

#[inline]
fn nullable_bytes(length: i32) -> Option<usize> {
    if length == -1 { Some(0) } else { usize::try_from(length).ok() }
}

/// A number of at most three bytes, and where it ends. `at` is far from the end of `head`.
#[inline]
fn short_number(head: &[u8; HEAD_BYTES], at: usize) -> Option<(i32, usize)> {
    let byte = |place: usize| u32::from(head[(at + place) % HEAD_BYTES]);
    let (a, b, c) = (byte(0), byte(1), byte(2));
    let (bits, bytes) = if a < 0x80 {
        (a, 1)
    } else if b < 0x80 {
        (a & 0x7f | b << 7, 2)
    } else if c < 0x80 {
        (a & 0x7f | (b & 0x7f) << 7 | c << 14, 3)
    } else {
        return None;
    };
    Some(((bits >> 1) as i32 ^ -((bits & 1) as i32), at + bytes))
}

/// A record that the end of a piece cuts through, walked byte by byte until it is whole.
#[derive(Default)]
struct CutRecord {
    next: Field,
    /// What of the record is still to come, as far as its length tells.
    left: usize,
    /// How much of that belongs to a key or a value.
    skipped: usize,
    /// Of a number that is begun.
    bits: u64,
    bits_shift: u32,
    headers: i32,
    timestamp_delta: i64,
    offset_delta: i32,
    has_key: bool,
}

/// What comes next; keys and values are passed over behind their lengths.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Field {
    #[default]
    Length,
    Attributes,
    TimestampDelta,
    OffsetDelta,
    KeyLength,
    ValueLength,
    HeaderCount,
    HeaderKeyLength,
    HeaderValueLength,
    End,
}

impl CutRecord {
    /// Goes on as far as there are bytes; true when the record is whole.
    fn walk(&mut self, reader: &mut Reader<'_>) -> Result<bool, RecordFault> {
        loop {
            let passed = self.skipped.min(reader.0.len());
            reader.0 = &reader.0[passed..];
            self.skipped -= passed;
            if self.skipped > 0 {
                return Ok(false);
            }
            if self.next == Field::End {
                return if self.left == 0 { Ok(true) } else { Err(RecordFault::Padding) };
            }
            let Some((byte, rest)) = reader.0.split_first() else { return Ok(false) };
            reader.0 = rest;
            if self.next != Field::Length {
                self.left = self.left.checked_sub(1).ok_or(RecordFault::Truncated)?;
            }
            if self.next == Field::Attributes {
                self.next = Field::TimestampDelta;
            } else if let Some(number) = self.number(*byte)? {
                self.field(number)?;
            }
        }
    }

    /// The next byte of a number, which it may end.
    fn number(&mut self, byte: u8) -> Result<Option<i64>, RecordFault> {
        let (shift_max, last_max) = match self.next {
            Field::TimestampDelta => (63, 1),
            _ => (28, u8::MAX >> 1),
        };
        if self.bits_shift == shift_max && byte > last_max {
            return Err(RecordFault::Number);
        }
        self.bits |= u64::from(byte & 0x7f) << self.bits_shift;
        self.bits_shift += 7;
        if byte & 0x80 != 0 {
            return Ok(None);
        }
        let bits = std::mem::take(&mut self.bits);
        self.bits_shift = 0;
        Ok(Some((bits >> 1) as i64 ^ -((bits & 1) as i64)))
    }

    fn field(&mut self, number: i64) -> Result<(), RecordFault> {
        if self.next == Field::TimestampDelta {
            self.timestamp_delta = number;
            self.next = Field::OffsetDelta;
            return Ok(());
        }
        let number = i32::try_from(number).map_err(|_| RecordFault::Number)?;
        self.next = match self.next {
            Field::Length => {
                self.left = usize::try_from(number).map_err(|_| RecordFault::Length)?;
                Field::Attributes
            }
            Field::OffsetDelta => {
                self.offset_delta = number;
                Field::KeyLength
            }
            Field::KeyLength => {
                self.has_key = number >= 0;
                self.skip_nullable(number)?;
                Field::ValueLength
            }
            Field::ValueLength => {
                self.skip_nullable(number)?;
                Field::HeaderCount
            }
            Field::HeaderCount if number < 0 => return Err(RecordFault::Length),
            Field::HeaderCount => {
                self.headers = number;
                self.header_or_end()
            }
            Field::HeaderKeyLength => {
                self.skip(number)?;
                Field::HeaderValueLength
            }
            Field::HeaderValueLength => {
                self.skip_nullable(number)?;
                self.headers -= 1;
                self.header_or_end()
            }
            Field::Attributes | Field::TimestampDelta | Field::End => {
                unreachable!("fields without a number of 32 bits")
            }
        };
        Ok(())
    }

    fn header_or_end(&self) -> Field {
        if self.headers == 0 { Field::End } else { Field::HeaderKeyLength }
    }

    fn skip_nullable(&mut self, length: i32) -> Result<(), RecordFault> {
        if length == -1 { Ok(()) } else { self.skip(length) }
    }

    fn skip(&mut self, length: i32) -> Result<(), RecordFault> {
        let length = usize::try_from(length).map_err(|_| RecordFault::Length)?;
        self.left = self.left.checked_sub(length).ok_or(RecordFault::Truncated)?;
        self.skipped = length;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
