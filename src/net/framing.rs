//! The 4-byte big-endian length in front of every request, and the frame behind it.
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | length of the frame, big-endian, signed; these 4 bytes not included |
//! | 4 | length | the frame |
//!
//! Pure: bytes in, a length or a frame out, wherever the stream was cut.

use std::mem::MaybeUninit;

use bytes::Bytes;

use super::close::CloseReason;

const LENGTH_BYTES: usize = 4;

/// The length prefix as far as it has arrived.
#[derive(Debug, Default)]
pub(super) struct LengthPrefix {
    bytes: [u8; LENGTH_BYTES],
    filled: usize,
}

/// A frame as far as it has arrived.
#[derive(Debug)]
pub(super) struct PartialFrame {
    bytes: Vec<u8>,
    length: usize,
}

impl LengthPrefix {
    /// Takes what belongs to the prefix off `input`, and returns how much that was and, once
    /// complete, the length.
    pub(super) fn take_from(
        &mut self,
        input: &[u8],
        frame_bytes_max: usize,
    ) -> (usize, Result<Option<usize>, CloseReason>) {
        let taken = input.len().min(LENGTH_BYTES - self.filled);
        self.bytes[self.filled..self.filled + taken].copy_from_slice(&input[..taken]);
        self.filled += taken;
        if self.filled < LENGTH_BYTES {
            return (taken, Ok(None));
        }
        self.filled = 0;
        let signed = i32::from_be_bytes(self.bytes);
        let checked = match usize::try_from(signed) {
            Err(_) => Err(CloseReason::NegativeLength(signed)),
            Ok(length) if length > frame_bytes_max => {
                Err(CloseReason::OversizeFrame { length, limit: frame_bytes_max })
            }
            Ok(length) => Ok(Some(length)),
        };
        (taken, checked)
    }

    /// Whether the stream stands between two frames.
    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }
}

impl PartialFrame {
    /// A frame of `length` bytes, which the caller has reserved. The memory is asked for at once and
    /// touched as bytes arrive.
    pub(super) fn new(length: usize) -> Self {
        Self { bytes: Vec::with_capacity(length), length }
    }

    /// Takes what belongs to the frame off `input` and returns how much that was.
    pub(super) fn take_from(&mut self, input: &[u8]) -> usize {
        let taken = input.len().min(self.length - self.bytes.len());
        self.bytes.extend_from_slice(&input[..taken]);
        taken
    }

    /// Bytes that have not arrived.
    pub(super) fn missing(&self) -> usize {
        self.length - self.bytes.len()
    }

    /// Where the missing bytes go. Note with [`received`](Self::received) what was put there.
    pub(super) fn space(&mut self) -> &mut [MaybeUninit<u8>] {
        let missing = self.missing();
        &mut self.bytes.spare_capacity_mut()[..missing]
    }

    /// Notes that the first `bytes` bytes of the space are there.
    ///
    /// # Safety
    /// They are.
    pub(super) unsafe fn received(&mut self, bytes: usize) {
        assert!(bytes <= self.missing(), "a read of {bytes} bytes overran its frame");
        // SAFETY: the capacity is that of the whole frame, and the caller has set these bytes.
        unsafe { self.bytes.set_len(self.bytes.len() + bytes) };
    }

    /// Whether all of it is here.
    pub(super) fn is_complete(&self) -> bool {
        self.bytes.len() == self.length
    }

    /// The frame.
    pub(super) fn finish(self) -> Bytes {
        assert!(self.is_complete(), "a frame is dispatched only when all of it is here");
        Bytes::from(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(input: &[u8], step: usize) -> (Vec<Bytes>, LengthPrefix) {
        let (mut prefix, mut partial, mut out) = (LengthPrefix::default(), None, Vec::new());
        for mut chunk in input.chunks(step) {
            loop {
                if partial.is_none() {
                    let (taken, length) = prefix.take_from(chunk, 1000);
                    chunk = &chunk[taken..];
                    partial = length.unwrap().map(PartialFrame::new);
                }
                let Some(frame) = &mut partial else { break };
                chunk = &chunk[frame.take_from(chunk)..];
                if !frame.is_complete() {
                    break;
                }
                out.extend(partial.take().map(PartialFrame::finish));
            }
        }
        (out, prefix)
    }

    #[test]
    fn frames_are_the_same_wherever_the_stream_is_cut() {
        let input = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01x\0\0";
        for step in 1..=input.len() {
            let (out, prefix) = frames(input, step);
            assert_eq!(out, [&b"abc"[..], b"", b"x"], "cut every {step} bytes");
            assert!(!prefix.is_empty());
        }
    }

    #[test]
    fn a_negative_or_oversize_length_is_refused_before_anything_is_allocated() {
        let check = |bytes: &[u8; 4]| LengthPrefix::default().take_from(bytes, 104_857_600).1;
        assert!(matches!(check(b"\xff\xff\xff\xff"), Err(CloseReason::NegativeLength(-1))));
        for garbage in [b"GET ", b"\x16\x03\x01\x02", b"\x06\x40\x00\x01"] {
            assert!(matches!(check(garbage), Err(CloseReason::OversizeFrame { .. })));
        }
        assert!(matches!(check(b"\x06\x40\x00\x00"), Ok(Some(104_857_600))));
    }
}
