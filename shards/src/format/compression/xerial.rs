//! Snappy as Kafka's clients send it: the stream of xerial's snappy-java, or one bare block.

use super::{Codec, CompressionError, damaged};

/// What the Java client cuts its input into.
const BLOCK_BYTES: usize = 32 * 1024;

const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";

/// Magic, version 1, and 1 as the lowest version that can read it.
const HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

/// A copy of 64 bytes takes three. Nothing in the format expands further.
const EXPANSION_MAX: usize = 22;

/// Layout: [`HEADER`], then blocks, each with its compressed length before it as 4 bytes big-endian.
pub(super) fn compress(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(HEADER.len() + input.len() / 2);
    output.extend_from_slice(HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for chunk in input.chunks(BLOCK_BYTES) {
        let block = encoder.compress_vec(chunk).expect("a chunk is below snappy's bound of 4 GiB");
        let length = u32::try_from(block.len()).expect("a block is little longer than its chunk");
        output.extend_from_slice(&length.to_be_bytes());
        output.extend_from_slice(&block);
    }
    output
}

/// The blocks of a stream, or the one bare block.
pub(super) struct Blocks<'a> {
    rest: &'a [u8],
    framed: bool,
    ended: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        // The magic cannot begin a bare block: its third byte would copy from before the beginning.
        // The two versions after it are not looked at, because some clients swap their bytes.
        let framed = input.len() >= HEADER.len() && input.starts_with(MAGIC);
        let rest = if framed { &input[HEADER.len()..] } else { input };
        Self { rest, framed, ended: false }
    }

    /// Appends the next block to `output`, if there is one, for which there are `room` bytes of `limit`.
    pub(super) fn append_next(
        &mut self,
        output: &mut Vec<u8>,
        room: usize,
        limit: usize,
    ) -> Result<bool, CompressionError> {
        if self.ended || self.framed && self.rest.is_empty() {
            return Ok(false);
        }
        let block = if self.framed {
            let cut = damaged(Codec::Snappy, "a block is cut off");
            let (length, after) = self.rest.split_first_chunk::<4>().ok_or(cut.clone())?;
            let length = u32::from_be_bytes(*length) as usize;
            let (block, after) = after.split_at_checked(length).ok_or(cut)?;
            self.rest = after;
            block
        } else {
            self.ended = true;
            self.rest
        };
        append_block(block, room, limit, output)?;
        Ok(true)
    }
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut blocks = Blocks::new(input);
    let mut output = Vec::new();
    loop {
        let room = limit - output.len();
        if !blocks.append_next(&mut output, room, limit)? {
            return Ok(output);
        }
    }
}

fn append_block(
    block: &[u8],
    room: usize,
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let unreadable = || damaged(Codec::Snappy, "a block does not decode");
    let claimed = snap::raw::decompress_len(block).map_err(|_| unreadable())?;
    if claimed > block.len().saturating_mul(EXPANSION_MAX) {
        return Err(unreadable());
    }
    if claimed > room {
        return Err(CompressionError::TooLarge { codec: Codec::Snappy, limit });
    }
    let start = output.len();
    output.resize(start + claimed, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut output[start..])
        .map_err(|_| unreadable())
        .map(|_| ())
}
