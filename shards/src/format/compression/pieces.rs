//! Decompression piece by piece, for whoever looks at what comes out once and keeps none of it.
//!
//! Memory does not grow with what comes out: one piece, and as far back as the codec may refer.
//!
//! | codec | a piece is | held beside it |
//! | --- | --- | --- |
//! | none | the whole input | nothing |
//! | gzip | 64 KiB at most | 32 KiB |
//! | snappy | one block: what the input can expand to at most | nothing |
//! | lz4 | one block: 4 MiB at most | 64 KiB |
//! | zstd | 64 KiB at most | the frame's window, 128 MiB at most; pages of it that were never written do not exist |
//!
//! What is accepted is what [`super::decompress`] accepts, except zstd windows above 128 MiB, which no client
//! makes unless it is told to.

use std::io::Read;

use flate2::bufread::MultiGzDecoder;
use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer};

use super::{
    Codec, CompressionError, damaged, lz4_frame, not_inflating, xerial, zstd_content_bytes,
    zstd_context,
};

/// Bounds of what a codec without blocks of its own is asked for at a time.
const PIECE_BYTES_MIN: usize = 4 << 10;
const PIECE_BYTES_MAX: usize = 64 << 10;

/// A compressed payload, decompressed as it is asked for.
pub struct Pieces<'a> {
    source: Source<'a>,
    /// The piece, behind what the codec may still refer to.
    buffer: Vec<u8>,
    /// What a codec without blocks of its own is asked for at a time.
    piece_bytes: usize,
    /// What may still come out.
    room: usize,
    limit: usize,
}

enum Source<'a> {
    None(Option<&'a [u8]>),
    Gzip(MultiGzDecoder<&'a [u8]>),
    Snappy(xerial::Blocks<'a>),
    Lz4(lz4_frame::Blocks<'a>),
    Zstd(ZstdFrames<'a>),
}

impl<'a> Pieces<'a> {
    /// The pieces of what was compressed to `input`, which are at most `limit_bytes` together.
    ///
    /// # Errors
    /// [`CompressionError`].
    pub fn new(
        codec: Codec,
        input: &'a [u8],
        limit_bytes: usize,
    ) -> Result<Self, CompressionError> {
        let source = match codec {
            Codec::None => Source::None(Some(input)),
            Codec::Gzip => Source::Gzip(MultiGzDecoder::new(input)),
            Codec::Snappy => Source::Snappy(xerial::Blocks::new(input)),
            Codec::Lz4 => Source::Lz4(lz4_frame::Blocks::new(input)?),
            Codec::Zstd => Source::Zstd(ZstdFrames::new(input, limit_bytes)?),
        };
        // A small input needs no large buffer: most batches are small.
        let piece_bytes = input.len().saturating_mul(8).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        let (buffer, room, limit) = (Vec::new(), limit_bytes, limit_bytes);
        Ok(Self { source, buffer, piece_bytes, room, limit })
    }

    /// The next piece, which may be empty; `None` after the last.
    ///
    /// # Errors
    /// [`CompressionError`].
    pub fn next_piece(&mut self) -> Result<Option<&[u8]>, CompressionError> {
        let Self { source, buffer, piece_bytes, room, limit } = self;
        let (codec, piece) = match source {
            Source::None(input) => (Codec::None, input.take()),
            Source::Gzip(decoder) => {
                buffer.resize(*piece_bytes, 0);
                let read = decoder.read(buffer).map_err(|_| not_inflating())?;
                (Codec::Gzip, (read > 0).then(|| &buffer[..read]))
            }
            Source::Snappy(blocks) => {
                buffer.clear();
                let more = blocks.append_next(buffer, *room, *limit)?;
                (Codec::Snappy, more.then_some(&buffer[..]))
            }
            Source::Lz4(blocks) => {
                let kept = blocks.window(buffer.len());
                buffer.drain(..buffer.len() - kept);
                let more = blocks.append_next(buffer, *room, *limit)?;
                (Codec::Lz4, more.then(|| &buffer[kept..]))
            }
            Source::Zstd(frames) => {
                buffer.resize(*piece_bytes, 0);
                (Codec::Zstd, frames.read(buffer)?.map(|read| &buffer[..read]))
            }
        };
        let bytes = piece.map_or(0, <[u8]>::len);
        *room =
            room.checked_sub(bytes).ok_or(CompressionError::TooLarge { codec, limit: *limit })?;
        Ok(piece)
    }
}

/// One zstd frame or several.
struct ZstdFrames<'a> {
    context: DCtx<'static>,
    rest: &'a [u8],
    /// Whether a frame has begun and not ended.
    within: bool,
}

impl<'a> ZstdFrames<'a> {
    fn new(input: &'a [u8], limit: usize) -> Result<Self, CompressionError> {
        if zstd_content_bytes(input)?.is_some_and(|bytes| bytes > limit as u64) {
            return Err(CompressionError::TooLarge { codec: Codec::Zstd, limit });
        }
        Ok(Self { context: zstd_context()?, rest: input, within: true })
    }

    /// Fills `space` as far as there is anything; `None` at the end.
    fn read(&mut self, space: &mut [u8]) -> Result<Option<usize>, CompressionError> {
        // Asked again after the end of the last frame, zstd would wait for another.
        if self.rest.is_empty() && !self.within {
            return Ok(None);
        }
        let mut output = OutBuffer::around(space);
        loop {
            let mut input = InBuffer::around(self.rest);
            let before = output.pos();
            let hint = self
                .context
                .decompress_stream(&mut output, &mut input)
                .map_err(|_| damaged(Codec::Zstd, "does not decode"))?;
            let taken = input.pos;
            self.rest = &self.rest[taken..];
            self.within = hint != 0;
            if output.pos() == output.capacity() {
                return Ok(Some(output.pos()));
            }
            if self.rest.is_empty() && !self.within {
                return Ok((output.pos() > 0).then(|| output.pos()));
            }
            if taken == 0 && output.pos() == before {
                return Err(damaged(Codec::Zstd, "is cut off"));
            }
        }
    }
}
