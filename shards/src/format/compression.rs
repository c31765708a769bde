//! The codecs of record batches, as Kafka's clients frame them.
//!
//! Decides what counts as a well-formed compressed payload. Every decoder works under the caller's
//! limit, and none allocates by what the input claims: memory grows with what was really decoded,
//! or is bounded by the input's length times the most that the codec can expand it.
//!
//! | codec | written | also read |
//! | --- | --- | --- |
//! | gzip | one member, level 6 | several members |
//! | snappy | xerial stream, blocks of 32 KiB | one bare block, as librdkafka writes it |
//! | lz4 | one frame, independent blocks of 64 KiB | every block size, linked blocks, checksums |
//! | zstd | one frame with its content size, level 3 | several frames, no content size |
//!
//! Absent on purpose: dictionaries, and LZ4 frames with the header checksum of message format 0.

mod lz4_frame;
mod pieces;
#[cfg(test)]
mod tests;
mod xerial;

use std::fmt;
use std::io::{Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use zstd::zstd_safe::{self, DCtx};

pub use pieces::Pieces;

/// How the records of a batch are compressed: bits 0–2 of its attributes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Codec {
    /// Not compressed.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks, framed as xerial's snappy-java does.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

impl Codec {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number, if there is one.
    #[must_use]
    pub const fn from_id(id: i16) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The number in a batch's attributes.
    #[must_use]
    pub const fn id(self) -> i16 {
        self as i16
    }
}

impl fmt::Display for Codec {
    /// As `compression.type` spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

/// What to compress with: a codec and, where it has one, its level.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip {
        /// From 0, which only stores, to 9, the smallest.
        level: u32,
    },
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// zstd.
    Zstd {
        /// From −131072, the fastest, to 22, the smallest.
        level: i32,
    },
}

impl Compression {
    /// What reads it back.
    #[must_use]
    pub const fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip { .. } => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd { .. } => Codec::Zstd,
        }
    }
}

impl From<Codec> for Compression {
    /// At the level that Kafka's clients use unless told otherwise.
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip { level: 6 },
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd { level: 3 },
        }
    }
}

/// Why a payload could not be decompressed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompressionError {
    /// Not what the codec writes.
    #[error("damaged {codec} data: {fault}")]
    Damaged {
        /// The codec.
        codec: Codec,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// More than the caller allows.
    #[error("{codec} data expands beyond {limit} bytes")]
    TooLarge {
        /// The codec.
        codec: Codec,
        /// The caller's limit.
        limit: usize,
    },
}

/// The bytes that were compressed to `input`, at most `limit_bytes` of them.
///
/// # Errors
/// [`CompressionError`].
pub fn decompress(
    codec: Codec,
    input: &[u8],
    limit_bytes: usize,
) -> Result<Vec<u8>, CompressionError> {
    match codec {
        Codec::None if input.len() > limit_bytes => {
            Err(CompressionError::TooLarge { codec, limit: limit_bytes })
        }
        Codec::None => Ok(input.to_vec()),
        Codec::Gzip => gunzip(input, limit_bytes),
        Codec::Snappy => xerial::decompress(input, limit_bytes),
        Codec::Lz4 => lz4_frame::decompress(input, limit_bytes),
        Codec::Zstd => unzstd(input, limit_bytes),
    }
}

/// `input` compressed so that every Kafka client reads it. A [`Codec`] stands for its usual level.
#[must_use]
pub fn compress(compression: impl Into<Compression>, input: &[u8]) -> Vec<u8> {
    match compression.into() {
        Compression::None => input.to_vec(),
        Compression::Gzip { level } => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::new(level.min(9)));
            encoder.write_all(input).expect("a vector takes everything");
            encoder.finish().expect("a vector takes everything")
        }
        Compression::Snappy => xerial::compress(input),
        Compression::Lz4 => lz4_frame::compress(input),
        Compression::Zstd { level } => {
            let mut output = Vec::with_capacity(zstd_safe::compress_bound(input.len()));
            zstd_safe::compress(&mut output, input, level).expect("the bound on the size holds");
            output
        }
    }
}

fn gunzip(input: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut output = Vec::new();
    MultiGzDecoder::new(input)
        .take((limit as u64).saturating_add(1))
        .read_to_end(&mut output)
        .map_err(|_| not_inflating())?;
    if output.len() > limit {
        return Err(CompressionError::TooLarge { codec: Codec::Gzip, limit });
    }
    Ok(output)
}

/// How far a first attempt at zstd trusts the input: past that, each attempt has four times the room.
const ZSTD_FIRST_RATIO: usize = 32;

/// In one piece, so that no window is allocated: a frame of a few bytes may claim 128 MiB of it.
fn unzstd(input: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let too_large = CompressionError::TooLarge { codec: Codec::Zstd, limit };
    let claimed = zstd_content_bytes(input)?;
    if claimed.is_some_and(|bytes| bytes > limit as u64) {
        return Err(too_large);
    }
    let mut context = zstd_context()?;
    let mut room = input.len().saturating_mul(ZSTD_FIRST_RATIO).min(limit);
    if let Some(bytes) = claimed {
        room = room.min(usize::try_from(bytes).expect("within the limit"));
    }
    loop {
        // Vectors may get more than they ask for; the limit is checked on what was written.
        let mut output = Vec::with_capacity(room);
        match context.decompress(&mut output, input) {
            Ok(_) if output.len() > limit => return Err(too_large),
            Ok(_) => return Ok(output),
            Err(code) if code != zstd_output_too_small() => {
                return Err(damaged(Codec::Zstd, "does not decode"));
            }
            Err(_) if room >= limit => return Err(too_large),
            Err(_) => room = room.saturating_mul(4).max(4096).min(limit),
        }
    }
}

/// What the first frame says that it holds, if it says so.
fn zstd_content_bytes(input: &[u8]) -> Result<Option<u64>, CompressionError> {
    zstd_safe::get_frame_content_size(input).map_err(|_| damaged(Codec::Zstd, "no frame"))
}

fn zstd_context() -> Result<DCtx<'static>, CompressionError> {
    DCtx::try_create().ok_or(damaged(Codec::Zstd, "no memory to read it"))
}

/// zstd returns an error as its negated number.
const fn zstd_output_too_small() -> zstd_safe::ErrorCode {
    (zstd_safe::zstd_sys::ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize).wrapping_neg()
}

const fn not_inflating() -> CompressionError {
    damaged(Codec::Gzip, "does not inflate")
}

const fn damaged(codec: Codec, fault: &'static str) -> CompressionError {
    CompressionError::Damaged { codec, fault }
}
