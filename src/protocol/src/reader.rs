//! Reads wire primitives from one buffer, without copying.
//!
//! Decides what a byte string may cost. Invariants:
//!
//! * `pos <= end <= buffer.len()`; nothing is read outside of it.
//! * A length is compared with the bytes left before anything is allocated or sliced.
//! * An array of `count` elements is refused unless the bytes left could hold that many of the smallest
//!   element. It begins with room for no more Rust values than fit into as many bytes as are left, and then
//!   doubles, never past `count`, as elements are really decoded. So what decoding holds is bounded by the
//!   bytes it has consumed, times the memory of an element over its least size on the wire, times 1.5
//!   while an array moves. The worst request holds 50 bytes for each of its own (many offset fetches of
//!   empty groups), the worst response 68; `tests/codec/hostile.rs` measures and limits both.
//!
//! Absent on purpose: a position to seek to, and any knowledge of messages.

use bytes::Bytes;

use crate::error::{DecodeError, DecodeErrorKind as Kind};
use crate::message::Wire;
use crate::records::Records;
use crate::string::KafkaString;
use crate::uuid::Uuid;

/// Longest string in any version: compact lengths could say more, but Kafka refuses that.
pub(crate) const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Unknown tagged fields of one struct in ascending order of their tags.
pub type TaggedFields = Vec<(u32, Bytes)>;

/// A cursor over one frame. Strings and byte strings that it yields share the frame's memory.
#[derive(Clone, Debug)]
pub struct Reader {
    buffer: Bytes,
    pos: usize,
    end: usize,
}

impl From<Bytes> for Reader {
    fn from(buffer: Bytes) -> Self {
        Self::new(buffer)
    }
}

impl Reader {
    /// A reader at the first byte of `buffer`.
    pub fn new(buffer: Bytes) -> Self {
        let end = buffer.len();
        Self { buffer, pos: 0, end }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.end - self.pos
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.pos
    }

    /// Fails unless every byte was read.
    pub fn expect_end(&self) -> Result<(), DecodeError> {
        match self.remaining() {
            0 => Ok(()),
            left => Err(self.error(Kind::TrailingBytes(left))),
        }
    }

    /// An error at the current position.
    #[cold]
    pub fn error(&self, kind: Kind) -> DecodeError {
        DecodeError { offset: self.pos, kind }
    }

    #[inline]
    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.buffer[self.pos..self.end].first_chunk::<N>() {
            Some(bytes) => {
                self.pos += N;
                Ok(*bytes)
            }
            None => Err(self.truncated(N)),
        }
    }

    #[cold]
    fn truncated(&self, needed: usize) -> DecodeError {
        self.error(Kind::Truncated { needed, left: self.remaining() })
    }

    /// A boolean; any byte but 0 is true, as in Kafka.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.take::<1>()? != [0])
    }

    /// An 8-bit integer.
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.take().map(i8::from_be_bytes)
    }

    /// A 16-bit integer.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.take().map(i16::from_be_bytes)
    }

    /// An unsigned 16-bit integer.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.take().map(u16::from_be_bytes)
    }

    /// A 32-bit integer.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.take().map(i32::from_be_bytes)
    }

    /// An unsigned 32-bit integer.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.take().map(u32::from_be_bytes)
    }

    /// A 64-bit integer.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.take().map(i64::from_be_bytes)
    }

    /// A 64-bit floating-point number.
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.take().map(f64::from_be_bytes)
    }

    /// A UUID.
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.take().map(Uuid)
    }

    /// An unsigned variable-length integer of at most 32 bits.
    pub fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.error(Kind::VarintTooLong))
    }

    /// The next `length` bytes, shared with the buffer.
    pub fn slice(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.remaining() {
            return Err(self.truncated(length));
        }
        let bytes = self.buffer.slice(self.pos..self.pos + length);
        self.pos += length;
        Ok(bytes)
    }

    /// A length of four bytes, or of a compact field; `None` stands for null.
    fn length(&mut self, flex: bool) -> Result<Option<usize>, DecodeError> {
        if flex {
            return Ok(self.varint()?.checked_sub(1).map(|length| length as usize));
        }
        let length = self.i32()?;
        self.signed_length(length)
    }

    fn signed_length(&self, length: i32) -> Result<Option<usize>, DecodeError> {
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(self.error(Kind::NegativeLength(length))),
        }
    }

    fn present<T>(&self, value: Option<T>) -> Result<T, DecodeError> {
        value.ok_or_else(|| self.error(Kind::UnexpectedNull))
    }

    /// A string; `flex` selects the compact form.
    pub fn string(&mut self, flex: bool) -> Result<KafkaString, DecodeError> {
        let value = self.nullable_string(flex)?;
        self.present(value)
    }

    /// A string or null.
    pub fn nullable_string(&mut self, flex: bool) -> Result<Option<KafkaString>, DecodeError> {
        let length = if flex {
            self.length(true)?
        } else {
            let length = self.i16()?;
            self.signed_length(i32::from(length))?
        };
        let Some(length) = length else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(self.error(Kind::StringTooLong(length)));
        }
        let bytes = self.slice(length)?;
        KafkaString::from_utf8(bytes).map(Some).map_err(|_| self.error(Kind::InvalidUtf8))
    }

    /// A byte string.
    pub fn bytes(&mut self, flex: bool) -> Result<Bytes, DecodeError> {
        let value = self.nullable_bytes(flex)?;
        self.present(value)
    }

    /// A byte string or null.
    pub fn nullable_bytes(&mut self, flex: bool) -> Result<Option<Bytes>, DecodeError> {
        match self.length(flex)? {
            Some(length) => self.slice(length).map(Some),
            None => Ok(None),
        }
    }

    /// Record batches, as one chunk.
    pub fn records(&mut self, flex: bool) -> Result<Records, DecodeError> {
        self.bytes(flex).map(Records::from)
    }

    /// Record batches, as one chunk, or null.
    pub fn nullable_records(&mut self, flex: bool) -> Result<Option<Records>, DecodeError> {
        Ok(self.nullable_bytes(flex)?.map(Records::from))
    }

    /// A struct behind its marker byte; below zero stands for null, as in Kafka.
    pub fn nullable_record<T: Wire>(&mut self, version: i16) -> Result<Option<T>, DecodeError> {
        if self.i8()? < 0 { Ok(None) } else { T::read(self, version).map(Some) }
    }

    /// An array whose elements take `least_bytes` or more each.
    pub fn array<T>(
        &mut self,
        flex: bool,
        least_bytes: usize,
        element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let value = self.nullable_array(flex, least_bytes, element)?;
        self.present(value)
    }

    /// An array or null.
    pub fn nullable_array<T>(
        &mut self,
        flex: bool,
        least_bytes: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        let Some(count) = self.count(flex, least_bytes)? else { return Ok(None) };
        let mut items = Vec::with_capacity(count.min(self.remaining() / size_of::<T>().max(1)));
        for decoded in 0..count {
            if decoded == items.capacity() {
                // Doubles like a plain push, but never past the announced count.
                items.reserve_exact(decoded.max(4).min(count - decoded));
            }
            items.push(element(self)?);
        }
        Ok(Some(items))
    }

    fn count(&mut self, flex: bool, least_bytes: usize) -> Result<Option<usize>, DecodeError> {
        let count = self.length(flex)?;
        if let Some(count) = count {
            self.check_count(count, least_bytes)?;
        }
        Ok(count)
    }

    fn check_count(&self, count: usize, least_bytes: usize) -> Result<(), DecodeError> {
        let left = self.remaining();
        if count > left / least_bytes.max(1) {
            return Err(self.error(Kind::CountTooLarge { count, left }));
        }
        Ok(())
    }

    /// The tagged fields at the end of a struct, none of which the schema knows.
    pub fn unknown_tagged_fields(&mut self) -> Result<TaggedFields, DecodeError> {
        self.tagged_fields(&mut |_, _| Ok(false))
    }

    /// The tagged fields at the end of a struct.
    ///
    /// `known` reads the content of a tag that the schema knows, or answers `false` without reading.
    /// Yields the others in ascending order. Errors if `known` does not read exactly the announced size.
    pub fn tagged_fields(
        &mut self,
        known: &mut dyn FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<TaggedFields, DecodeError> {
        let count = self.varint()? as usize;
        let mut unknown = TaggedFields::new();
        if count == 0 {
            return Ok(unknown);
        }
        self.check_count(count, 2)?;
        for seen in 0..count {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            if size > self.remaining() {
                return Err(self.truncated(size));
            }
            let outer_end = self.end;
            self.end = self.pos + size;
            if known(self, tag)? {
                if self.pos != self.end {
                    return Err(self.error(Kind::TaggedFieldSize));
                }
            } else {
                if unknown.len() == unknown.capacity() {
                    unknown.reserve_exact(unknown.len().max(1).min(count - seen));
                }
                unknown.push((tag, self.slice(size)?));
            }
            self.end = outer_end;
        }
        if !unknown.is_sorted_by_key(|(tag, _)| *tag) {
            unknown.sort_by_key(|(tag, _)| *tag);
        }
        match unknown.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(twice) => Err(self.error(Kind::DuplicateTag(twice[0].0))),
            None => Ok(unknown),
        }
    }
}
