//! Bytes from a socket, cut into frames.
//!
//! Small frames are slices of a buffer that the thread's connections share, many to a read. A large one gets a buffer
//! of its own, which the socket then fills directly and which is used again for the next.

use std::io::{self, ErrorKind, IoSliceMut, Read};

use bytes::Bytes;

const PREFIX_BYTES: usize = 4;

/// An answer without its length.
#[derive(Clone, Copy, Debug)]
pub enum Frame<'a> {
    /// Came with others.
    Small(&'a [u8]),
    /// Has a buffer of its own. It is used again unless a clone is kept.
    Large(&'a Bytes),
}

impl Frame<'_> {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Small(bytes) => bytes,
            Self::Large(bytes) => bytes,
        }
    }

    /// The bytes for a decoder that shares them; a small frame is copied.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Small(bytes) => Bytes::copy_from_slice(bytes),
            Self::Large(bytes) => (*bytes).clone(),
        }
    }
}

/// How a read ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadEnd {
    /// The socket has nothing more for now.
    Drained,
    /// The other side has closed.
    Closed,
}

/// One connection's frames.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// Of a small frame, what has come of it.
    leftover: Vec<u8>,
    /// Of a large frame, without its length. As long as the largest so far.
    large: Vec<u8>,
    large_filled: usize,
    /// 0: no large frame is being read.
    large_bytes: usize,
}

impl FrameReader {
    /// Reads what the socket has and hands every whole frame to `each`.
    ///
    /// # Errors
    /// The socket's, `InvalidData` for a length beyond `frame_bytes_max`, and what `each` returns.
    pub fn read<E: From<io::Error>>(
        &mut self,
        socket: &mut impl Read,
        scratch: &mut [u8],
        frame_bytes_max: usize,
        mut each: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<ReadEnd, E> {
        loop {
            let kept = self.leftover.len();
            scratch[..kept].copy_from_slice(&self.leftover);
            self.leftover.clear();
            let wanted = self.large_bytes - self.large_filled;
            let room = wanted + scratch.len() - kept;
            let read = {
                let large = &mut self.large[self.large_filled..self.large_filled + wanted];
                let small = &mut scratch[kept..];
                match socket.read_vectored(&mut [IoSliceMut::new(large), IoSliceMut::new(small)]) {
                    Ok(0) => return Ok(ReadEnd::Closed),
                    Ok(read) => read,
                    Err(error) => {
                        self.leftover.extend_from_slice(&scratch[..kept]);
                        match error.kind() {
                            ErrorKind::WouldBlock => return Ok(ReadEnd::Drained),
                            ErrorKind::Interrupted => continue,
                            _ => return Err(error.into()),
                        }
                    }
                }
            };
            let into_large = read.min(wanted);
            self.large_filled += into_large;
            if self.large_bytes > 0 && self.large_filled == self.large_bytes {
                self.hand_out_large(&mut each)?;
            }
            self.split(
                &scratch[..kept + read - into_large],
                scratch.len(),
                frame_bytes_max,
                &mut each,
            )?;
            if read < room {
                return Ok(ReadEnd::Drained);
            }
        }
    }

    fn hand_out_large<E>(
        &mut self,
        each: &mut impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let whole = Bytes::from(std::mem::take(&mut self.large));
        let frame = whole.slice(..self.large_bytes);
        self.large_bytes = 0;
        self.large_filled = 0;
        let judged = each(Frame::Large(&frame));
        drop(frame);
        // Takes the buffer back; copies it if the frame was kept.
        self.large = Vec::from(whole);
        judged
    }

    fn split<E: From<io::Error>>(
        &mut self,
        mut bytes: &[u8],
        scratch_bytes: usize,
        frame_bytes_max: usize,
        each: &mut impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() {
            let length = i32::from_be_bytes(*prefix);
            let length = usize::try_from(length).ok().filter(|bytes| *bytes <= frame_bytes_max);
            let Some(length) = length else {
                let what = format!("a frame of {} bytes", i32::from_be_bytes(*prefix));
                return Err(io::Error::new(ErrorKind::InvalidData, what).into());
            };
            if rest.len() >= length {
                let (frame, rest) = rest.split_at(length);
                each(Frame::Small(frame))?;
                bytes = rest;
            } else if length > scratch_bytes / 2 {
                if self.large.len() < length {
                    self.large.resize(length, 0);
                }
                self.large[..rest.len()].copy_from_slice(rest);
                self.large_filled = rest.len();
                self.large_bytes = length;
                return Ok(());
            } else {
                break;
            }
        }
        self.leftover.extend_from_slice(bytes);
        Ok(())
    }
}
