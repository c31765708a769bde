//! Gathers the bytes of a message as a list of chunks.
//!
//! Small values collect in one buffer. A byte string of `SHARE_BYTES_MIN` or more is not copied: its
//! position among the small bytes is noted, and the finished list interleaves the two. Because the small bytes
//! stay in one mutable buffer until then, sizes that precede their content are patched in place.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::EncodeError;
use crate::message::Wire;
use crate::reader::TaggedFields;
use crate::records::Records;
use crate::string::KafkaString;
use crate::uuid::Uuid;

/// Byte strings of this length or more are shared with the encoded message instead of copied.
pub const SHARE_BYTES_MIN: usize = 1024;

/// The growing encoding of one message or frame.
#[derive(Debug, Default)]
pub struct EncodeBuf {
    small: BytesMut,
    /// Shared chunks, each with the count of small bytes before it. Ascending.
    shared: Vec<(usize, Bytes)>,
    shared_bytes: usize,
    error_codes: Vec<(i16, u32)>,
}

/// Where a tagged field's content begins; handed from `begin_tag` to `end_tag`.
#[derive(Debug)]
#[must_use]
pub struct TagMark {
    small_bytes: usize,
    shared_chunks: usize,
    total_bytes: usize,
}

impl EncodeBuf {
    /// An empty buffer that allocates on first use.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for `small_bytes` of copied values.
    pub fn with_capacity(small_bytes: usize) -> Self {
        Self { small: BytesMut::with_capacity(small_bytes), ..Self::default() }
    }

    /// Bytes encoded so far, shared ones included.
    pub fn len(&self) -> usize {
        self.small.len() + self.shared_bytes
    }

    /// Whether nothing was encoded yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The encoding in order, as chunks none of which is empty.
    pub fn into_chunks(mut self) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(2 * self.shared.len() + 1);
        let mut taken = 0;
        for (before, bytes) in self.shared {
            if before > taken {
                chunks.push(self.small.split_to(before - taken).freeze());
                taken = before;
            }
            chunks.push(bytes);
        }
        if !self.small.is_empty() {
            chunks.push(self.small.freeze());
        }
        chunks
    }

    /// The encoding as one piece; copies if shared chunks exist.
    pub fn into_bytes(self) -> Bytes {
        if self.shared.is_empty() {
            return self.small.freeze();
        }
        let mut whole = BytesMut::with_capacity(self.len());
        for chunk in self.into_chunks() {
            whole.extend_from_slice(&chunk);
        }
        whole.freeze()
    }

    /// Overwrites four bytes that were written among the small ones at `at`.
    pub(crate) fn patch_i32(&mut self, at: usize, value: i32) {
        self.small[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// A boolean.
    pub fn bool(&mut self, value: bool) {
        self.small.put_u8(u8::from(value));
    }

    /// An 8-bit integer.
    pub fn i8(&mut self, value: i8) {
        self.small.put_i8(value);
    }

    /// A 16-bit integer.
    pub fn i16(&mut self, value: i16) {
        self.small.put_i16(value);
    }

    /// A field that says how something ended: errors are counted.
    pub fn error_code(&mut self, code: i16) {
        if code != 0 {
            self.count_error(code);
        }
        self.i16(code);
    }

    #[cold]
    fn count_error(&mut self, code: i16) {
        match self.error_codes.iter_mut().find(|(known, _)| *known == code) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.error_codes.push((code, 1)),
        }
    }

    /// The errors that were written, each code with how often; takes them out.
    pub fn take_error_codes(&mut self) -> Vec<(i16, u32)> {
        std::mem::take(&mut self.error_codes)
    }

    /// An unsigned 16-bit integer.
    pub fn u16(&mut self, value: u16) {
        self.small.put_u16(value);
    }

    /// A 32-bit integer.
    pub fn i32(&mut self, value: i32) {
        self.small.put_i32(value);
    }

    /// An unsigned 32-bit integer.
    pub fn u32(&mut self, value: u32) {
        self.small.put_u32(value);
    }

    /// A 64-bit integer.
    pub fn i64(&mut self, value: i64) {
        self.small.put_i64(value);
    }

    /// A 64-bit floating-point number.
    pub fn f64(&mut self, value: f64) {
        self.small.put_f64(value);
    }

    /// A UUID.
    pub fn uuid(&mut self, value: Uuid) {
        self.small.put_slice(&value.0);
    }

    /// An unsigned variable-length integer.
    pub fn varint(&mut self, value: u32) {
        let (bytes, length) = varint(value);
        self.small.put_slice(&bytes[..length]);
    }

    /// Bytes as they are, shared if they are long.
    pub fn raw(&mut self, bytes: &Bytes) {
        if bytes.len() < SHARE_BYTES_MIN {
            self.small.put_slice(bytes);
        } else {
            self.shared_bytes += bytes.len();
            self.shared.push((self.small.len(), bytes.clone()));
        }
    }

    /// A length of four bytes or a compact one; `None` stands for null.
    fn length(
        &mut self,
        flex: bool,
        length: Option<usize>,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        let signed = match length {
            None => -1,
            Some(n) => i32::try_from(n).map_err(|_| EncodeError::TooLong { field, length: n })?,
        };
        if flex {
            // A length of up to 2^31 - 1 plus one fits into 32 unsigned bits; null becomes 0.
            self.varint((i64::from(signed) + 1) as u32);
        } else {
            self.i32(signed);
        }
        Ok(())
    }

    /// A string; `flex` selects the compact form.
    pub fn string(
        &mut self,
        flex: bool,
        value: &KafkaString,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        self.nullable_string(flex, Some(value), field)
    }

    /// A string or null.
    pub fn nullable_string(
        &mut self,
        flex: bool,
        value: Option<&KafkaString>,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        let length = value.map_or(0, |v| v.as_bytes().len());
        let short = i16::try_from(length).map_err(|_| EncodeError::TooLong { field, length })?;
        match (flex, value) {
            (true, _) => self.length(true, value.map(|_| length), field)?,
            (false, Some(_)) => self.i16(short),
            (false, None) => self.i16(-1),
        }
        if let Some(value) = value {
            self.small.put_slice(value.as_bytes());
        }
        Ok(())
    }

    /// A byte string.
    pub fn bytes(
        &mut self,
        flex: bool,
        value: &Bytes,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        self.nullable_bytes(flex, Some(value), field)
    }

    /// A byte string or null.
    pub fn nullable_bytes(
        &mut self,
        flex: bool,
        value: Option<&Bytes>,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        self.length(flex, value.map(Bytes::len), field)?;
        if let Some(value) = value {
            self.raw(value);
        }
        Ok(())
    }

    /// Record batches.
    pub fn records(
        &mut self,
        flex: bool,
        value: &Records,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        self.nullable_records(flex, Some(value), field)
    }

    /// Record batches or null.
    pub fn nullable_records(
        &mut self,
        flex: bool,
        value: Option<&Records>,
        field: &'static str,
    ) -> Result<(), EncodeError> {
        self.length(flex, value.map(Records::len), field)?;
        for chunk in value.map_or(&[][..], Records::chunks) {
            self.raw(chunk);
        }
        Ok(())
    }

    /// A struct behind its marker byte, or null.
    pub fn nullable_record<T: Wire>(
        &mut self,
        value: Option<&T>,
        version: i16,
    ) -> Result<(), EncodeError> {
        match value {
            None => self.i8(-1),
            Some(value) => {
                self.i8(1);
                value.write(self, version)?;
            }
        }
        Ok(())
    }

    /// An array.
    pub fn array<T>(
        &mut self,
        flex: bool,
        items: &[T],
        field: &'static str,
        element: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.nullable_array(flex, Some(items), field, element)
    }

    /// An array or null.
    pub fn nullable_array<T>(
        &mut self,
        flex: bool,
        items: Option<&[T]>,
        field: &'static str,
        mut element: impl FnMut(&mut Self, &T) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.length(flex, items.map(<[T]>::len), field)?;
        for item in items.unwrap_or_default() {
            element(self, item)?;
        }
        Ok(())
    }

    /// The tagged fields of a struct whose schema knows none.
    pub fn unknown_tagged_fields(
        &mut self,
        unknown: &TaggedFields,
        owner: &'static str,
    ) -> Result<(), EncodeError> {
        self.tagged_fields(0, unknown, owner)?.finish(self)
    }

    /// Begins the tagged fields of a struct: writes their count.
    pub fn tagged_fields<'a>(
        &mut self,
        known: usize,
        unknown: &'a TaggedFields,
        owner: &'static str,
    ) -> Result<TagWriter<'a>, EncodeError> {
        let count = known + unknown.len();
        let short = u32::try_from(count)
            .map_err(|_| EncodeError::TooLong { field: owner, length: count })?;
        self.varint(short);
        Ok(TagWriter { rest: unknown, owner, last: None })
    }

    /// Writes a tag and leaves room for the size of its content, which follows.
    fn begin_tag(&mut self, tag: u32) -> TagMark {
        self.varint(tag);
        // One byte is enough for most; `end_tag` makes room if not.
        self.small.put_u8(0);
        TagMark {
            small_bytes: self.small.len(),
            shared_chunks: self.shared.len(),
            total_bytes: self.len(),
        }
    }

    /// Fills in the size of the content written since `begin_tag`.
    pub fn end_tag(&mut self, mark: TagMark) -> Result<(), EncodeError> {
        let size = self.len() - mark.total_bytes;
        let short = u32::try_from(size)
            .map_err(|_| EncodeError::TooLong { field: "tagged field", length: size })?;
        let (bytes, length) = varint(short);
        let extra = length - 1;
        if extra > 0 {
            let end = self.small.len();
            self.small.resize(end + extra, 0);
            self.small.copy_within(mark.small_bytes..end, mark.small_bytes + extra);
            for (before, _) in &mut self.shared[mark.shared_chunks..] {
                *before += extra;
            }
        }
        let at = mark.small_bytes - 1;
        self.small[at..at + length].copy_from_slice(&bytes[..length]);
        Ok(())
    }
}

/// Merges known and unknown tagged fields into ascending order.
#[derive(Debug)]
pub struct TagWriter<'a> {
    rest: &'a [(u32, Bytes)],
    owner: &'static str,
    last: Option<u32>,
}

impl TagWriter<'_> {
    /// Begins the content of a tag that the schema knows; end it with `EncodeBuf::end_tag`.
    pub fn begin(&mut self, w: &mut EncodeBuf, tag: u32) -> Result<TagMark, EncodeError> {
        self.unknown_below(w, u64::from(tag))?;
        self.advance(tag)?;
        Ok(w.begin_tag(tag))
    }

    /// Writes the unknown fields that are left.
    pub fn finish(mut self, w: &mut EncodeBuf) -> Result<(), EncodeError> {
        self.unknown_below(w, u64::MAX)
    }

    fn unknown_below(&mut self, w: &mut EncodeBuf, limit: u64) -> Result<(), EncodeError> {
        while let Some(((tag, content), rest)) = self.rest.split_first() {
            if u64::from(*tag) >= limit {
                break;
            }
            self.advance(*tag)?;
            let mark = w.begin_tag(*tag);
            w.raw(content);
            w.end_tag(mark)?;
            self.rest = rest;
        }
        Ok(())
    }

    fn advance(&mut self, tag: u32) -> Result<(), EncodeError> {
        if self.last.is_some_and(|last| last >= tag) {
            return Err(EncodeError::TagOrder { owner: self.owner, tag });
        }
        self.last = Some(tag);
        Ok(())
    }
}

fn varint(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut length = 0;
    loop {
        bytes[length] = (value & 0x7f) as u8;
        value >>= 7;
        length += 1;
        if value == 0 {
            return (bytes, length);
        }
        bytes[length - 1] |= 0x80;
    }
}
