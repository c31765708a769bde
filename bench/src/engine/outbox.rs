//! Bytes on their way to a socket: small ones copied together, large ones shared.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};

use bytes::Bytes;

/// Pieces that one system call takes at most.
const SLICES_MAX: usize = 64;

/// Written bytes at the front of the copied ones that are worth moving the rest for.
const COMPACT_BYTES: usize = 256 << 10;

#[derive(Debug)]
enum Piece {
    /// The next bytes of `Outbox::copied`.
    Copied(usize),
    Shared(Bytes),
}

/// What a connection still has to write. Bounded by the requests that are under way.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// Bytes of the first piece that are written.
    first_written: usize,
    copied: Vec<u8>,
    /// Bytes of `copied` that belong to no piece any more.
    copied_done: usize,
    appended: u64,
    written: u64,
}

impl Outbox {
    /// Appends a copy of `bytes`, to be changed by the caller at will.
    pub fn copy(&mut self, bytes: &[u8]) -> &mut [u8] {
        self.appended += bytes.len() as u64;
        match self.pieces.back_mut() {
            Some(Piece::Copied(length)) => *length += bytes.len(),
            Some(Piece::Shared(_)) | None if bytes.is_empty() => {}
            Some(Piece::Shared(_)) | None => self.pieces.push_back(Piece::Copied(bytes.len())),
        }
        let from = self.copied.len();
        self.copied.extend_from_slice(bytes);
        &mut self.copied[from..]
    }

    /// Appends bytes by reference.
    pub fn share(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.appended += bytes.len() as u64;
            self.pieces.push_back(Piece::Shared(bytes));
        }
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes that were ever appended: the stream's position behind the last request.
    #[must_use]
    pub const fn appended(&self) -> u64 {
        self.appended
    }

    /// Bytes that were ever written.
    #[must_use]
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Writes until nothing is left (`true`) or the socket is full.
    ///
    /// # Errors
    /// The socket's.
    pub fn write_to(&mut self, socket: &mut impl Write) -> io::Result<bool> {
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let (count, total) = self.fill(&mut slices);
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.advance(written);
                    // A short write says that the socket is full; asking again would only hear it twice.
                    if written < total {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn fill<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> (usize, usize) {
        let mut skip = self.first_written;
        let mut copied = &self.copied[self.copied_done..];
        let (mut count, mut total) = (0, 0);
        for (piece, slice) in self.pieces.iter().zip(slices.iter_mut()) {
            let bytes: &[u8] = match piece {
                Piece::Copied(length) => {
                    let (piece, rest) = copied.split_at(*length);
                    copied = rest;
                    piece
                }
                Piece::Shared(bytes) => bytes,
            };
            *slice = IoSlice::new(&bytes[skip..]);
            total += bytes.len() - skip;
            count += 1;
            skip = 0;
        }
        (count, total)
    }

    fn advance(&mut self, mut bytes: usize) {
        self.written += bytes as u64;
        while bytes > 0 {
            let piece = self.pieces.front().expect("no more is written than there was");
            let length = match piece {
                Piece::Copied(length) => *length,
                Piece::Shared(shared) => shared.len(),
            };
            let left = length - self.first_written;
            if bytes < left {
                self.first_written += bytes;
                break;
            }
            bytes -= left;
            self.first_written = 0;
            if let Some(Piece::Copied(length)) = self.pieces.pop_front() {
                self.copied_done += length;
            }
        }
        if self.copied_done == self.copied.len() {
            self.copied.clear();
            self.copied_done = 0;
        } else if self.copied_done >= COMPACT_BYTES {
            self.copied.drain(..self.copied_done);
            self.copied_done = 0;
        }
    }
}
