//! The frame around rkyv bodies of the control plane: log commands and image snapshots.
//!
//! rkyv reads its root from the end of a buffer, so a longer or shorter buffer may validate as
//! something else. The frame therefore fixes the exact length, and a checksum stands before any
//! decoding.
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 4 | magic |
//! | 4 | 2 | kind |
//! | 6 | 2 | version of the kind's layout |
//! | 8 | 4 | length of the body |
//! | 12 | 4 | CRC-32C over bytes 0..12 and the body |
//! | 16 | length | body |
//!
//! All numbers are little-endian.

/// Bytes before the body.
pub const FRAME_HEADER_BYTES: usize = 16;

/// Bytes that are not a frame, or not one that this release reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataFormatError {
    /// Fewer bytes than the header or than it announces, or more.
    #[error("a metadata frame of {found} bytes where {expected} are due")]
    Length {
        /// Bytes given.
        found: usize,
        /// Bytes due.
        expected: usize,
    },
    /// Something else.
    #[error("not a metadata frame: magic {0:#010x}")]
    Magic(u32),
    /// The checksum disagrees.
    #[error("a metadata frame's checksum is {found:#010x}, its bytes give {computed:#010x}")]
    Checksum {
        /// In the header.
        found: u32,
        /// Over the bytes.
        computed: u32,
    },
    /// Written by another release.
    #[error("metadata kind {kind} in version {version} is not known to this release")]
    Unknown {
        /// The kind.
        kind: u16,
        /// Its version.
        version: u16,
    },
    /// The checksum holds and the body does not decode.
    #[error("a metadata body does not decode: {0}")]
    Body(String),
}

/// A verified frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the body is.
    pub kind: u16,
    /// How it is laid out.
    pub version: u16,
    /// The bytes.
    pub body: &'a [u8],
}

/// Puts a header before `body`.
///
/// # Panics
/// When the body has 4 GiB or more, which no command or snapshot comes near.
#[must_use]
pub fn seal(magic: u32, kind: u16, version: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).expect("metadata bodies stay below 4 GiB");
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
    frame.extend_from_slice(&magic.to_le_bytes());
    frame.extend_from_slice(&kind.to_le_bytes());
    frame.extend_from_slice(&version.to_le_bytes());
    frame.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&frame), body);
    frame.extend_from_slice(&crc.to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// Checks that `bytes` are exactly one frame.
///
/// # Errors
/// [`MetadataFormatError`]: length, magic or checksum.
pub fn open(magic: u32, bytes: &[u8]) -> Result<Frame<'_>, MetadataFormatError> {
    let short = MetadataFormatError::Length { found: bytes.len(), expected: FRAME_HEADER_BYTES };
    let (header, body) = bytes.split_at_checked(FRAME_HEADER_BYTES).ok_or(short)?;
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if word(0) != magic {
        return Err(MetadataFormatError::Magic(word(0)));
    }
    let expected = FRAME_HEADER_BYTES + word(8) as usize;
    if bytes.len() != expected {
        return Err(MetadataFormatError::Length { found: bytes.len(), expected });
    }
    let computed = crc32c::crc32c_append(crc32c::crc32c(&header[..12]), body);
    if word(12) != computed {
        return Err(MetadataFormatError::Checksum { found: word(12), computed });
    }
    Ok(Frame { kind: half(4), version: half(6), body })
}
