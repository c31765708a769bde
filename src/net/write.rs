//! Responses gathered into as few `sendmsg` calls as possible. Long chunks are not copied; short ones are, behind each other,
//! because the kernel's work for a slice costs more.

use std::io;
use std::ops::Range;
use std::os::fd::RawFd;

use bytes::Bytes;
use chronik_shards::io::socket::{SLICES_MAX, send_now};

use super::budget::Reservation;
use super::response_queue::Answer;

/// Most bytes handed to a socket at once: the kernel copies them on the shard's time.
pub(super) const SEND_BYTES_MAX: usize = 256 << 10;

/// Bytes after which a batch takes no further response.
const BATCH_BYTES: usize = 1 << 20;

const LENGTH_BYTES: usize = 4;
/// A chunk up to this is copied.
const SHORT_CHUNK_BYTES_MAX: usize = 256;
/// Memory for short chunks that is kept from batch to batch.
const KEPT_BYTES: usize = 4 << 10;

/// Responses on their way out, and how far they got. Reused from batch to batch.
#[derive(Debug, Default)]
pub(super) struct WriteBatch {
    parts: Vec<Part>,
    /// Lengths and short chunks.
    short: Vec<u8>,
    /// First part with unwritten bytes, and how many of its bytes are written.
    next: usize,
    offset: usize,
    bytes: usize,
    /// Requests that are settled with it, and how many of them have a response.
    settled: usize,
    responses: usize,
    guards: Vec<Reservation>,
}

#[derive(Debug)]
enum Part {
    /// This part of the short ones.
    Short(Range<usize>),
    Chunk(Bytes),
}

impl WriteBatch {
    /// Adds a response, if there is one, and the guards that live until the batch is written.
    pub(super) fn push(&mut self, answer: Answer) {
        let Answer { response, request } = answer;
        self.settled += 1;
        self.guards.push(request);
        let Some(response) = response else { return };
        self.responses += 1;
        let length = response.bytes();
        let prefix = i32::try_from(length).expect("handlers bound a response far below 2 GiB");
        self.push_short(&prefix.to_be_bytes());
        for chunk in response.chunks {
            match chunk.len() {
                0 => {}
                1..=SHORT_CHUNK_BYTES_MAX => self.push_short(&chunk),
                _ => self.parts.push(Part::Chunk(chunk)),
            }
        }
        self.guards.extend(response.reservation);
        self.bytes += LENGTH_BYTES + length;
    }

    fn push_short(&mut self, bytes: &[u8]) {
        let start = self.short.len();
        self.short.extend_from_slice(bytes);
        let end = self.short.len();
        match self.parts.last_mut() {
            Some(Part::Short(range)) => range.end = end,
            Some(Part::Chunk(_)) | None => self.parts.push(Part::Short(start..end)),
        }
    }

    fn slice<'a>(&'a self, part: &'a Part) -> &'a [u8] {
        match part {
            Part::Short(range) => &self.short[range.clone()],
            Part::Chunk(bytes) => bytes,
        }
    }

    /// Whether it should leave before it takes another response.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.parts.len() >= SLICES_MAX
    }

    /// Requests that are settled when it is written.
    pub(super) fn settled(&self) -> usize {
        self.settled
    }

    /// Responses in it.
    pub(super) fn responses(&self) -> usize {
        self.responses
    }

    /// Whether all of it is written.
    pub(super) fn is_written(&self) -> bool {
        self.next == self.parts.len()
    }

    /// The first slice with unwritten bytes.
    pub(super) fn first_unwritten(&self) -> &[u8] {
        self.parts.get(self.next).map_or(&[], |part| &self.slice(part)[self.offset..])
    }

    /// Notes that the next `bytes` are written; their memory is let go chunk by chunk.
    pub(super) fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let left = self.first_unwritten().len();
            assert!(left > 0, "more bytes were written than were there");
            if bytes < left {
                self.offset += bytes;
                return;
            }
            bytes -= left;
            self.parts[self.next] = Part::Short(0..0);
            self.next += 1;
            self.offset = 0;
        }
    }

    /// Empties it for the next responses: the guards end here.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
        self.guards.clear();
        self.short.clear();
        if self.short.capacity() > KEPT_BYTES {
            self.short = Vec::new();
        }
        (self.next, self.offset, self.bytes) = (0, 0, 0);
        (self.settled, self.responses) = (0, 0);
    }

    /// Hands as much to the socket as it takes now, [`SEND_BYTES_MAX`] at most.
    ///
    /// # Errors
    /// `WouldBlock` when its buffer is full; anything else is the end of the connection.
    pub(super) fn send(&self, socket: RawFd) -> io::Result<usize> {
        let unwritten = self.parts[self.next..].iter().map(|part| self.slice(part));
        let first = self.first_unwritten();
        let slices = std::iter::once(first).chain(unwritten.skip(1));
        send_now(socket, bounded(slices, SEND_BYTES_MAX))
    }
}

/// The first `room` bytes of the slices.
fn bounded<'a>(
    slices: impl Iterator<Item = &'a [u8]>,
    mut room: usize,
) -> impl Iterator<Item = &'a [u8]> {
    slices.map_while(move |slice| {
        let within = &slice[..slice.len().min(room)];
        room -= within.len();
        (!within.is_empty()).then_some(within)
    })
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::net::budget::Budget;
    use crate::net::dispatch::Response;

    fn answer(budget: &Budget, chunks: &[&'static [u8]]) -> Answer {
        let chunks = chunks.iter().map(|chunk| Bytes::from_static(chunk)).collect();
        let response = Some(Response::new(chunks));
        Answer { response, request: budget.try_reserve(1).unwrap() }
    }

    #[test]
    fn responses_leave_in_one_call_each_behind_its_length() {
        let budget = Budget::new(100);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut batch = WriteBatch::default();
        batch.push(answer(&budget, &[b"ab", b"", b"c"]));
        batch.push(answer(&budget, &[]));
        batch.push(answer(&budget, &[b"d"]));
        assert_eq!(batch.send(ours.as_raw_fd()).unwrap(), 16);
        batch.advance(16);
        assert!(batch.is_written());
        assert_eq!(budget.reserved(), 3, "the guards live until the batch is cleared");
        batch.clear();
        assert_eq!(budget.reserved(), 0);
        drop(ours);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"\0\0\0\x03abc\0\0\0\0\0\0\0\x01d");
    }

    #[test]
    fn a_socket_is_handed_a_bounded_share_of_the_slices() {
        let slices: [&[u8]; 3] = [b"abc", b"defg", b"h"];
        let within = |room| bounded(slices.into_iter(), room).collect::<Vec<_>>().concat();
        assert_eq!(within(5), b"abcde");
        assert_eq!(within(7), b"abcdefg");
        assert_eq!(within(9), b"abcdefgh");
    }

    #[test]
    fn short_chunks_share_a_slice_and_long_ones_keep_their_place_between_them() {
        const LONG: &[u8] = &[b'x'; SHORT_CHUNK_BYTES_MAX + 1];
        let budget = Budget::new(100);
        let mut batch = WriteBatch::default();
        batch.push(answer(&budget, &[b"ab"]));
        batch.push(answer(&budget, &[b"c", LONG, b"d"]));
        assert_eq!(batch.parts.len(), 3);
        let mut got = Vec::new();
        while !batch.is_written() {
            got.extend_from_slice(batch.first_unwritten());
            let bytes = batch.first_unwritten().len();
            batch.advance(bytes);
        }
        assert_eq!(got, [&b"\0\0\0\x02ab\0\0\x01\x03c"[..], LONG, b"d"].concat());
    }

    #[test]
    fn writing_goes_on_where_it_stopped() {
        let budget = Budget::new(100);
        let mut batch = WriteBatch::default();
        batch.push(answer(&budget, &[b"abc", b"de"]));
        let mut got = Vec::new();
        while !batch.is_written() {
            let step = batch.first_unwritten().len().min(2);
            got.extend_from_slice(&batch.first_unwritten()[..step]);
            batch.advance(step);
        }
        assert_eq!(got, b"\0\0\0\x05abcde");
    }

    #[test]
    fn a_batch_of_more_slices_than_one_call_takes_is_sent_in_parts() {
        const LONG: &[u8] = &[b'x'; SHORT_CHUNK_BYTES_MAX + 1];
        let budget = Budget::new(1000);
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut batch = WriteBatch::default();
        batch.push(answer(&budget, &[LONG; 2 * SLICES_MAX]));
        assert!(batch.is_full());
        let (mut calls, mut received) = (0, 0);
        while !batch.is_written() {
            let sent = batch.send(ours.as_raw_fd()).unwrap();
            batch.advance(sent);
            calls += 1;
            theirs.read_exact(&mut vec![0; sent]).unwrap();
            received += sent;
        }
        assert_eq!((calls, received), (3, LENGTH_BYTES + 2 * SLICES_MAX * LONG.len()));
    }
}
