//! Why bytes are no message, and why a message cannot become bytes.
//!
//! A `DecodeError` is about the peer's bytes: answer or close. An `EncodeError` is a mistake of the caller.

use std::fmt;

/// Bytes that do not follow the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeError {
    /// Distance from the start of the reader's buffer at which decoding stopped, in bytes.
    pub offset: usize,
    /// What is wrong there.
    pub kind: DecodeErrorKind,
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// A value, or a length that was read, reaches past the last byte.
    Truncated {
        /// Bytes that the value needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// More elements are announced than the bytes left can hold.
    CountTooLarge {
        /// Elements announced.
        count: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A length below -1.
    NegativeLength(i32),
    /// Null for a field that cannot be null in this version.
    UnexpectedNull,
    /// A string that is not UTF-8.
    InvalidUtf8,
    /// A string longer than a 16-bit length can say, which Kafka does not allow in compact form either.
    StringTooLong(usize),
    /// A variable-length integer above 32 bits.
    VarintTooLong,
    /// A tagged field whose content is shorter than its announced size.
    TaggedFieldSize,
    /// The same unknown tag twice in one struct.
    DuplicateTag(u32),
    /// Bytes after the end of the message.
    TrailingBytes(usize),
    /// An API key that is not in the schema tables.
    UnknownApiKey(i16),
    /// A version for which the message has no layout.
    UnsupportedVersion(i16),
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use DecodeErrorKind as Kind;
        match self.kind {
            Kind::Truncated { needed, left } => write!(f, "{needed} bytes needed, {left} left"),
            Kind::CountTooLarge { count, left } => {
                write!(f, "{count} elements cannot fit into {left} bytes")
            }
            Kind::NegativeLength(length) => write!(f, "negative length {length}"),
            Kind::UnexpectedNull => write!(f, "null where none is allowed"),
            Kind::InvalidUtf8 => write!(f, "string is not UTF-8"),
            Kind::StringTooLong(length) => write!(f, "string of {length} bytes"),
            Kind::VarintTooLong => write!(f, "varint exceeds 32 bits"),
            Kind::TaggedFieldSize => write!(f, "tagged field ends before its announced size"),
            Kind::DuplicateTag(tag) => write!(f, "tag {tag} occurs twice"),
            Kind::TrailingBytes(count) => write!(f, "{count} bytes after the end"),
            Kind::UnknownApiKey(key) => write!(f, "unknown API key {key}"),
            Kind::UnsupportedVersion(version) => write!(f, "unsupported version {version}"),
        }?;
        write!(f, " (at byte {})", self.offset)
    }
}

impl std::error::Error for DecodeError {}

/// A message that has no encoding in the version asked for. Fields are named `Message.Struct.Field`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// The message has no layout in this version.
    UnsupportedVersion {
        /// Kafka's name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field that this version lacks, and that must not be dropped, is not at its default.
    AbsentField {
        /// The field.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field is null that cannot be null in this version.
    NullField {
        /// The field.
        field: &'static str,
    },
    /// A string, byte string or array exceeds its length field.
    TooLong {
        /// The field.
        field: &'static str,
        /// Its length in bytes or elements.
        length: usize,
    },
    /// Unknown tagged fields that are not ascending, or that use a tag of the schema.
    TagOrder {
        /// The struct that holds them.
        owner: &'static str,
        /// The offending tag.
        tag: u32,
    },
    /// The frame exceeds the 31 bits of its length prefix.
    FrameTooLarge {
        /// Bytes after the length prefix.
        length: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::UnsupportedVersion { message, version } => {
                write!(f, "{message} has no version {version}")
            }
            Self::AbsentField { field, version } => {
                write!(f, "{field} is set but version {version} lacks it")
            }
            Self::NullField { field } => write!(f, "{field} must not be null"),
            Self::TooLong { field, length } => write!(f, "{field} is too long: {length}"),
            Self::TagOrder { owner, tag } => write!(f, "tag {tag} of {owner} is out of order"),
            Self::FrameTooLarge { length } => write!(f, "frame of {length} bytes"),
        }
    }
}

impl std::error::Error for EncodeError {}
