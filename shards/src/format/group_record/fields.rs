//! Fields of keys and values, in the plain and in the flexible form.

use bytes::{BufMut, Bytes, BytesMut};

use super::{GroupRecordError as Error, MemberKey};
use crate::model::TopicId;

/// Reads fields one after the other.
pub(super) struct Input<'a> {
    rest: &'a [u8],
    /// Whether lengths are compact and structs end in tagged fields.
    pub(super) flexible: bool,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, flexible: false }
    }

    /// A value's version, when it is one of `known`; from `flexible_from` on fields are flexible.
    pub(super) fn version(
        &mut self,
        kind: i16,
        known: std::ops::RangeInclusive<i16>,
        flexible_from: i16,
    ) -> Result<i16, Error> {
        let version = self.i16()?;
        if !known.contains(&version) {
            return Err(Error::UnknownVersion { kind, version });
        }
        self.flexible = version >= flexible_from;
        Ok(version)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Error::Truncated)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(super) fn i8(&mut self) -> Result<i8, Error> {
        self.array().map(i8::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Result<i16, Error> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Error> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Error> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn topic_id(&mut self) -> Result<TopicId, Error> {
        self.array().map(TopicId)
    }

    /// A number behind which there is nothing.
    pub(super) fn last_i32(&mut self) -> Result<i32, Error> {
        let value = self.i32()?;
        self.end()?;
        Ok(value)
    }

    fn varint(&mut self) -> Result<u32, Error> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::Number)
    }

    /// A length; `None` is null. `short` is that of a string in the plain form.
    fn length(&mut self, short: bool) -> Result<Option<usize>, Error> {
        if self.flexible {
            return Ok(self.varint()?.checked_sub(1).map(|length| length as usize));
        }
        let length = if short { i32::from(self.i16()?) } else { self.i32()? };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length).map(Some).map_err(|_| Error::Length),
        }
    }

    pub(super) fn nullable_string(&mut self) -> Result<Option<String>, Error> {
        let Some(length) = self.length(true)? else { return Ok(None) };
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| Error::Utf8)?;
        Ok(Some(text.to_owned()))
    }

    pub(super) fn string(&mut self) -> Result<String, Error> {
        self.nullable_string()?.ok_or(Error::Length)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Error> {
        let length = self.length(false)?.ok_or(Error::Length)?;
        self.take(length).map(Bytes::copy_from_slice)
    }

    pub(super) fn member(&mut self) -> Result<MemberKey, Error> {
        Ok(MemberKey { group_id: self.string()?, member_id: self.string()? })
    }

    /// An array whose elements take `least_bytes` or more each.
    pub(super) fn list<T>(
        &mut self,
        least_bytes: usize,
        mut element: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let count = self.length(false)?.ok_or(Error::Length)?;
        if count > self.rest.len() / least_bytes {
            return Err(Error::Count(count));
        }
        let mut list = Vec::with_capacity(count.min(self.rest.len() / size_of::<T>().max(1)));
        for _ in 0..count {
            list.push(element(self)?);
        }
        Ok(list)
    }

    /// The tagged fields at the end of a flexible struct. `known` reads the field of a tag that it knows,
    /// and passes over what else there is.
    pub(super) fn tagged(
        &mut self,
        mut known: impl FnMut(u32, &mut Self) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            let tag = self.varint()?;
            let length = self.varint()? as usize;
            let mut field = Input { rest: self.take(length)?, flexible: true };
            if known(tag, &mut field)? {
                field.end()?;
            }
        }
        Ok(())
    }

    pub(super) fn no_tagged(&mut self) -> Result<(), Error> {
        self.tagged(|_, _| Ok(false))
    }

    pub(super) fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() { Ok(()) } else { Err(Error::Trailing(self.rest.len())) }
    }
}

/// Writes fields one after the other.
#[derive(Default)]
pub(super) struct Output {
    bytes: BytesMut,
    flexible: bool,
}

impl Output {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A value in `version`.
    pub(super) fn value(version: i16, flexible: bool) -> Self {
        let mut output = Self { bytes: BytesMut::new(), flexible };
        output.bytes.put_i16(version);
        output
    }

    /// The content of a tagged field.
    pub(super) fn tag() -> Self {
        Self { bytes: BytesMut::new(), flexible: true }
    }

    pub(super) fn kind(&mut self, kind: i16) -> &mut Self {
        self.bytes.put_i16(kind);
        self
    }

    pub(super) fn i8(&mut self, value: i8) -> &mut Self {
        self.bytes.put_i8(value);
        self
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.bytes.put_i32(value);
        self
    }

    pub(super) fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes.put_i64(value);
        self
    }

    pub(super) fn topic_id(&mut self, value: TopicId) -> &mut Self {
        self.bytes.put_slice(&value.0);
        self
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.put_u8(value as u8);
    }

    fn length(&mut self, length: usize) {
        let length = i32::try_from(length).expect("memory bounds what a record holds");
        if self.flexible { self.varint(length as u32 + 1) } else { self.bytes.put_i32(length) }
    }

    pub(super) fn nullable_string(&mut self, value: Option<&str>) -> &mut Self {
        match (value, self.flexible) {
            (Some(text), true) => {
                self.length(text.len());
                self.bytes.put_slice(text.as_bytes());
            }
            (Some(text), false) => {
                let length = i16::try_from(text.len()).expect("requests carry no longer strings");
                self.bytes.put_i16(length);
                self.bytes.put_slice(text.as_bytes());
            }
            (None, true) => self.bytes.put_u8(0),
            (None, false) => self.bytes.put_i16(-1),
        }
        self
    }

    pub(super) fn string(&mut self, value: &str) -> &mut Self {
        self.nullable_string(Some(value))
    }

    pub(super) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.length(value.len());
        self.bytes.put_slice(value);
        self
    }

    pub(super) fn list<T>(
        &mut self,
        list: &[T],
        mut element: impl FnMut(&mut Self, &T),
    ) -> &mut Self {
        self.length(list.len());
        for item in list {
            element(self, item);
        }
        self
    }

    /// The end of a flexible struct, with tag 0 when there is one.
    pub(super) fn tagged(&mut self, tag_0: Option<Self>) -> &mut Self {
        match tag_0 {
            _ if !self.flexible => {}
            None => self.bytes.put_u8(0),
            Some(field) => {
                self.bytes.put_slice(&[1, 0]);
                let length = u32::try_from(field.bytes.len()).expect("memory bounds a record");
                self.varint(length);
                self.bytes.put_slice(&field.bytes);
            }
        }
        self
    }

    pub(super) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}
