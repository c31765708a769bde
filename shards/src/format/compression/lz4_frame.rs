//! LZ4 frames: the container is read and written here, block by block, so that memory follows the
//! data and not the block size that a frame claims.
//!
//! Layout of a frame, little-endian:
//!
//! | size | field |
//! | ---: | --- |
//! | 4 | magic 0x184d2204 |
//! | 1 | flags: version 01 in bits 6–7, independent blocks 5, block checksums 4, content size 3, content checksum 2, dictionary 0 |
//! | 1 | largest block in bits 4–6: 64 KiB, 256 KiB, 1 MiB, 4 MiB for 4–7 |
//! | 0 or 8 | content size |
//! | 1 | second byte of xxHash-32 over the fields after the magic |
//! | … | blocks: length in 4 bytes, bit 31 set if stored as is; data; its xxHash-32 if flagged |
//! | 4 | 0: the end |
//! | 0 or 4 | xxHash-32 of the content |

use std::hash::Hasher;

use lz4_flex::block::{self, DecompressError};
use twox_hash::XxHash32;

use super::{Codec, CompressionError, damaged};

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();

/// Independent blocks of at most 64 KiB and no checksums, which is what the Java client writes and
/// every client reads: the CRC of the batch covers it all.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82];
const BLOCK_BYTES: usize = 64 * 1024;

const STORED_BIT: u32 = 1 << 31;

/// How far back a linked block may refer.
const WINDOW_BYTES: usize = 64 * 1024;

/// One byte of a match length stands for 255 bytes. Nothing in the format expands further.
const EXPANSION_MAX: usize = 255;

pub(super) fn compress(input: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(HEADER.len() + input.len() / 2);
    output.extend_from_slice(&HEADER);
    for chunk in input.chunks(BLOCK_BYTES) {
        let compressed = block::compress(chunk);
        let stored = compressed.len() >= chunk.len();
        let data = if stored { chunk } else { &compressed[..] };
        let length = u32::try_from(data.len()).expect("at most a chunk");
        let mark = if stored { STORED_BIT } else { 0 };
        output.extend_from_slice(&(length | mark).to_le_bytes());
        output.extend_from_slice(data);
    }
    output.extend_from_slice(&[0; 4]);
    output
}

pub(super) fn decompress(input: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut blocks = Blocks::new(input)?;
    let mut output = Vec::new();
    loop {
        let room = limit - output.len();
        if !blocks.append_next(&mut output, room, limit)? {
            return Ok(output);
        }
    }
}

/// The blocks of a frame.
pub(super) struct Blocks<'a> {
    rest: &'a [u8],
    frame: FrameHeader,
    /// Over what came out, if the frame ends with a checksum of that.
    content: Option<XxHash32>,
    content_bytes: u64,
    ended: bool,
}

impl<'a> Blocks<'a> {
    pub(super) fn new(input: &'a [u8]) -> Result<Self, CompressionError> {
        let mut rest = input;
        let frame = FrameHeader::read(&mut rest)?;
        let content = frame.content_checksum.then(|| XxHash32::with_seed(0));
        Ok(Self { rest, frame, content, content_bytes: 0, ended: false })
    }

    /// How many of the last `bytes` that came out the next block may refer to.
    pub(super) fn window(&self, bytes: usize) -> usize {
        if self.frame.linked_blocks { bytes.min(WINDOW_BYTES) } else { 0 }
    }

    /// Appends the next block to `output`, which ends with the window, if there is one. There are `room`
    /// bytes of `limit` for it.
    pub(super) fn append_next(
        &mut self,
        output: &mut Vec<u8>,
        room: usize,
        limit: usize,
    ) -> Result<bool, CompressionError> {
        if self.ended {
            return Ok(false);
        }
        let mark = u32::from_le_bytes(take(&mut self.rest)?);
        if mark == 0 {
            self.ended = true;
            return self.check_end().map(|()| false);
        }
        let length = (mark & !STORED_BIT) as usize;
        let (data, after) = self.rest.split_at_checked(length).ok_or_else(cut)?;
        self.rest = after;
        if length > self.frame.block_bytes_max {
            return Err(damaged(Codec::Lz4, "a block is longer than the frame allows"));
        }
        if self.frame.block_checksums && u32::from_le_bytes(take(&mut self.rest)?) != hash(data) {
            return Err(damaged(Codec::Lz4, "a block's checksum is wrong"));
        }
        let start = output.len();
        if mark & STORED_BIT == 0 {
            append_block(data, &self.frame, room, limit, output)?;
        } else if data.len() <= room {
            output.extend_from_slice(data);
        } else {
            return Err(too_large(limit));
        }
        self.content_bytes += (output.len() - start) as u64;
        if let Some(content) = &mut self.content {
            content.write(&output[start..]);
        }
        Ok(true)
    }

    fn check_end(&mut self) -> Result<(), CompressionError> {
        if let Some(content) = &self.content
            && u32::from_le_bytes(take(&mut self.rest)?) != content.finish_32()
        {
            return Err(damaged(Codec::Lz4, "the content's checksum is wrong"));
        }
        if self.frame.content_bytes.is_some_and(|bytes| bytes != self.content_bytes) {
            return Err(damaged(Codec::Lz4, "the content's size is wrong"));
        }
        if !self.rest.is_empty() {
            return Err(damaged(Codec::Lz4, "something follows the frame"));
        }
        Ok(())
    }
}

struct FrameHeader {
    linked_blocks: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_bytes: Option<u64>,
    block_bytes_max: usize,
}

impl FrameHeader {
    fn read(rest: &mut &[u8]) -> Result<Self, CompressionError> {
        if take::<4>(rest)? != MAGIC {
            return Err(damaged(Codec::Lz4, "no frame"));
        }
        let descriptor = *rest;
        let [flags, sizes] = take::<2>(rest)?;
        if flags >> 6 != 1 || flags & 0b11 != 0 || sizes & 0b1000_1111 != 0 || sizes >> 4 < 4 {
            return Err(damaged(Codec::Lz4, "a frame with unknown flags"));
        }
        let content_bytes =
            if flags & 1 << 3 == 0 { None } else { Some(u64::from_le_bytes(take(rest)?)) };
        let computed = hash(&descriptor[..descriptor.len() - rest.len()]);
        if take::<1>(rest)? != [(computed >> 8) as u8] {
            return Err(damaged(Codec::Lz4, "the frame header's checksum is wrong"));
        }
        Ok(Self {
            linked_blocks: flags & 1 << 5 == 0,
            block_checksums: flags & 1 << 4 != 0,
            content_checksum: flags & 1 << 2 != 0,
            content_bytes,
            block_bytes_max: 1 << (8 + 2 * (sizes >> 4)),
        })
    }
}

fn append_block(
    data: &[u8],
    frame: &FrameHeader,
    room: usize,
    limit: usize,
    output: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let start = output.len();
    let possible = data.len().saturating_mul(EXPANSION_MAX).min(frame.block_bytes_max);
    let room = possible.min(room);
    output.resize(start + room, 0);
    let (before, block) = output.split_at_mut(start);
    let written = if frame.linked_blocks {
        block::decompress_into_with_dict(data, block, &before[start.saturating_sub(WINDOW_BYTES)..])
    } else {
        block::decompress_into(data, block)
    };
    match written {
        Ok(written) => {
            output.truncate(start + written);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if room < possible => Err(too_large(limit)),
        Err(_) => Err(damaged(Codec::Lz4, "a block does not decode")),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], CompressionError> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or_else(cut)?;
    *rest = after;
    Ok(*taken)
}

fn hash(bytes: &[u8]) -> u32 {
    XxHash32::oneshot(0, bytes)
}

const fn cut() -> CompressionError {
    damaged(Codec::Lz4, "the frame is cut off")
}

const fn too_large(limit: usize) -> CompressionError {
    CompressionError::TooLarge { codec: Codec::Lz4, limit }
}
