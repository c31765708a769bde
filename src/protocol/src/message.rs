//! What every generated message can do.

use std::fmt;

use bytes::Bytes;

use crate::encode::EncodeBuf;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::reader::Reader;

/// Inclusive range of versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// Lowest version.
    pub min: i16,
    /// Highest version.
    pub max: i16,
}

impl VersionRange {
    /// Whether `version` lies in the range.
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// The versions of the range, ascending.
    pub fn iter(self) -> std::ops::RangeInclusive<i16> {
        self.min..=self.max
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// A struct on the wire, whole message or nested. The version must be valid for the message around it.
pub trait Wire: Sized {
    /// Reads the struct.
    fn read(r: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Writes the struct. After an error the buffer holds a part of it.
    fn write(&self, w: &mut EncodeBuf, version: i16) -> Result<(), EncodeError>;
}

/// A message of the protocol: a request, a response, a header, or data that clients exchange.
pub trait Message: Wire + Clone + Default + PartialEq + fmt::Debug {
    /// Kafka's name.
    const NAME: &'static str;
    /// Key of the API that the message is a request or a response of.
    const API_KEY: Option<i16>;
    /// Versions that have a layout here; unstable ones are left out.
    const VALID_VERSIONS: VersionRange;
    /// First valid version with compact lengths and tagged fields.
    const FLEXIBLE_FROM: Option<i16>;

    /// Whether `version` has compact lengths and tagged fields.
    fn is_flexible(version: i16) -> bool {
        Self::FLEXIBLE_FROM.is_some_and(|from| version >= from)
    }

    /// Decodes the message; bytes may follow it.
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError> {
        if !Self::VALID_VERSIONS.contains(version) {
            return Err(r.error(DecodeErrorKind::UnsupportedVersion(version)));
        }
        Self::read(r, version)
    }

    /// Decodes a message that fills `bytes`.
    fn decode_exact(bytes: Bytes, version: i16) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let message = Self::decode(&mut r, version)?;
        r.expect_end()?;
        Ok(message)
    }

    /// Appends the message to `w`. After an error `w` is of no use.
    fn encode(&self, w: &mut EncodeBuf, version: i16) -> Result<(), EncodeError> {
        if !Self::VALID_VERSIONS.contains(version) {
            return Err(EncodeError::UnsupportedVersion { message: Self::NAME, version });
        }
        self.write(w, version)
    }

    /// The encoded message in one piece.
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut w = EncodeBuf::new();
        self.encode(&mut w, version)?;
        Ok(w.into_bytes())
    }

    /// Bytes that the encoded message takes. Costs an encoding, except that long byte strings are not copied.
    fn encoded_size(&self, version: i16) -> Result<usize, EncodeError> {
        let mut w = EncodeBuf::new();
        self.encode(&mut w, version)?;
        Ok(w.len())
    }
}
