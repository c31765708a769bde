//! Requests in a stream of bytes, as far as a bare server looks at them: where each ends, and its correlation id.
//!
//! ```text
//! 0   4  length of what follows
//! 4   2  API key
//! 6   2  version
//! 8   4  correlation id
//! 12  …  not looked at
//! ```

use std::io;

/// Bytes of a frame that are looked at.
const HEAD_BYTES: usize = 12;
/// Of them, those that the length counts.
const COUNTED_BYTES: usize = HEAD_BYTES - 4;
/// A longer frame is none.
const FRAME_BYTES_MAX: usize = 1 << 30;

/// A request's number, which its answer begins with.
pub(super) type CorrelationId = [u8; 4];

/// What a piece of the stream is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A frame's head is complete.
    Head(&'a [u8; HEAD_BYTES]),
    /// What follows in it.
    Body(&'a [u8]),
    /// The frame is complete.
    End(CorrelationId),
}

/// Where one connection's stream is.
#[derive(Debug, Default)]
pub(super) struct FrameCursor {
    head: [u8; HEAD_BYTES],
    head_filled: usize,
    body_left: usize,
}

impl FrameCursor {
    /// Bytes of the frame's body that are still to come.
    pub(super) fn body_left(&self) -> usize {
        self.body_left
    }

    /// Goes on by so many bytes of the body that nobody saw; answers with the frame's number at its end.
    ///
    /// # Panics
    /// Beyond the body.
    pub(super) fn skip(&mut self, bytes: usize) -> Option<CorrelationId> {
        assert!(bytes <= self.body_left, "only a body is skipped");
        self.body_left -= bytes;
        let is_end = self.head_filled == HEAD_BYTES && self.body_left == 0;
        is_end.then(|| self.end())
    }

    fn end(&mut self) -> CorrelationId {
        let [.., a, b, c, d] = self.head;
        self.head_filled = 0;
        [a, b, c, d]
    }

    /// Goes on by the stream's next bytes.
    pub(super) fn advance(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Piece<'_>),
    ) -> io::Result<()> {
        while !bytes.is_empty() {
            if self.head_filled < HEAD_BYTES {
                let (now, rest) = bytes.split_at(bytes.len().min(HEAD_BYTES - self.head_filled));
                self.head[self.head_filled..self.head_filled + now.len()].copy_from_slice(now);
                self.head_filled += now.len();
                bytes = rest;
                if self.head_filled < HEAD_BYTES {
                    return Ok(());
                }
                self.body_left = body_bytes(&self.head)?;
                each(Piece::Head(&self.head));
            }
            let (now, rest) = bytes.split_at(bytes.len().min(self.body_left));
            if !now.is_empty() {
                each(Piece::Body(now));
            }
            self.body_left -= now.len();
            bytes = rest;
            if self.body_left == 0 {
                each(Piece::End(self.end()));
            }
        }
        Ok(())
    }
}

fn body_bytes(head: &[u8; HEAD_BYTES]) -> io::Result<usize> {
    let [a, b, c, d, ..] = *head;
    let length = i32::from_be_bytes([a, b, c, d]);
    let counted = usize::try_from(length).ok().filter(|bytes| *bytes <= FRAME_BYTES_MAX);
    counted
        .and_then(|bytes| bytes.checked_sub(COUNTED_BYTES))
        .ok_or_else(|| io::Error::other(format!("a frame of {length} bytes")))
}

/// The small answer: nothing but the correlation id.
pub(super) fn push_answer(out: &mut Vec<u8>, id: CorrelationId) {
    let [a, b, c, d] = id;
    out.extend_from_slice(&[0, 0, 0, 4, a, b, c, d]);
}

/// The head of a frame that goes back whole: an answer begins with its correlation id, so the first eight bytes
/// behind the length change their order.
pub(super) fn push_echoed_head(out: &mut Vec<u8>, head: &[u8; HEAD_BYTES]) {
    out.extend_from_slice(&head[..4]);
    out.extend_from_slice(&head[8..]);
    out.extend_from_slice(&head[4..8]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: u32, body: &[u8]) -> Vec<u8> {
        let mut frame = ((8 + body.len()) as u32).to_be_bytes().to_vec();
        frame.extend([0, 0, 0, 9]);
        frame.extend(id.to_be_bytes());
        frame.extend(body);
        frame
    }

    #[test]
    fn frames_are_found_however_the_stream_is_cut() {
        let stream = [frame(1, b"abc"), frame(2, b""), frame(3, &[7; 100])].concat();
        for step in [1, 2, 5, 11, 12, 13, stream.len()] {
            let mut cursor = FrameCursor::default();
            let (mut heads, mut body, mut ids) = (0, Vec::new(), Vec::new());
            for bytes in stream.chunks(step) {
                let each = |piece: Piece<'_>| match piece {
                    Piece::Head(_) => heads += 1,
                    Piece::Body(bytes) => body.extend_from_slice(bytes),
                    Piece::End(id) => ids.push(u32::from_be_bytes(id)),
                };
                cursor.advance(bytes, each).unwrap();
            }
            assert_eq!((heads, ids), (3, vec![1, 2, 3]), "steps of {step}");
            assert_eq!(body, [b"abc".as_slice(), &[7; 100]].concat());
        }
    }

    #[test]
    fn a_body_may_be_skipped_unseen() {
        let frame = frame(5, &[1; 50]);
        let mut cursor = FrameCursor::default();
        cursor.advance(&frame[..20], |piece| assert!(!matches!(piece, Piece::End(_)))).unwrap();
        assert_eq!(cursor.body_left(), 42);
        assert_eq!(cursor.skip(40), None);
        assert_eq!(cursor.skip(2), Some([0, 0, 0, 5]));
        assert_eq!(cursor.body_left(), 0);
    }

    #[test]
    fn lengths_that_cannot_be_are_errors() {
        for length in [-1i32, 0, 7, i32::MAX] {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend([0; 8]);
            assert!(FrameCursor::default().advance(&bytes, |_| {}).is_err(), "{length}");
        }
    }

    #[test]
    fn answers_begin_with_the_correlation_id() {
        let mut out = Vec::new();
        push_answer(&mut out, [1, 2, 3, 4]);
        assert_eq!(out, [0, 0, 0, 4, 1, 2, 3, 4]);
        out.clear();
        push_echoed_head(&mut out, &[0, 0, 0, 9, 5, 5, 6, 6, 1, 2, 3, 4]);
        assert_eq!(out, [0, 0, 0, 9, 1, 2, 3, 4, 5, 5, 6, 6]);
    }
}
