//! The names that generated code uses, and its two error paths.

pub use bytes::Bytes;

pub use crate::encode::EncodeBuf;
pub use crate::error::{DecodeError, EncodeError};
pub use crate::message::{Message, VersionRange, Wire};
pub use crate::reader::{Reader, TaggedFields};
pub use crate::records::Records;
pub use crate::string::KafkaString;
pub use crate::uuid::Uuid;

/// The error for a field that is set but has no place in this version.
#[cold]
pub fn absent(field: &'static str, version: i16) -> EncodeError {
    EncodeError::AbsentField { field, version }
}

/// The value of a field that cannot be null in this version.
pub fn required<'a, T>(value: &'a Option<T>, field: &'static str) -> Result<&'a T, EncodeError> {
    value.as_ref().ok_or(EncodeError::NullField { field })
}
