//! Read buffers that a shard's connections borrow for as long as they hold unprocessed bytes.
//!
//! The pool lends up to [`POOLED_MAX`] buffers of [`POOLED_BYTES`]; beyond that a connection gets a
//! small one of its own. So an idle connection owns none, and one that is not let go on (budget,
//! order) keeps at most one, shrunk where little is left in it.

use std::cell::{Cell, RefCell};

/// Bytes of a pooled buffer: what one `recv` may bring.
pub(super) const POOLED_BYTES: usize = 64 << 10;
/// Pooled buffers of a shard, lent or not: 4 MiB.
pub(super) const POOLED_MAX: usize = 64;
/// Bytes of a buffer beyond the pool.
pub(super) const SMALL_BYTES: usize = 4 << 10;
/// Buffers kept for the next read while nobody has them.
const KEPT_MAX: usize = 8;

/// The pool of one shard.
#[derive(Debug, Default)]
pub(super) struct ReadBuffers {
    free: RefCell<Vec<Box<[u8]>>>,
    lent: Cell<usize>,
}

/// Bytes received and not yet processed.
#[derive(Debug)]
pub(super) struct ReadBuffer {
    memory: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReadBuffers {
    /// An empty buffer to read into.
    pub(super) fn take(&self) -> ReadBuffer {
        let memory = if self.lent.get() < POOLED_MAX {
            self.lent.set(self.lent.get() + 1);
            let kept = self.free.borrow_mut().pop();
            kept.unwrap_or_else(|| vec![0; POOLED_BYTES].into_boxed_slice())
        } else {
            vec![0; SMALL_BYTES].into_boxed_slice()
        };
        ReadBuffer { memory, start: 0, end: 0 }
    }

    /// Takes a buffer back, whatever is in it.
    pub(super) fn give_back(&self, buffer: ReadBuffer) {
        if buffer.memory.len() != POOLED_BYTES {
            return;
        }
        self.lent.set(self.lent.get() - 1);
        let mut free = self.free.borrow_mut();
        if free.len() < KEPT_MAX {
            free.push(buffer.memory);
        }
    }

    /// Moves what is left of a pooled buffer into a small one if it fits, for a connection that is
    /// going to wait.
    pub(super) fn shrink(&self, buffer: &mut ReadBuffer) {
        let left = buffer.unprocessed().len();
        if buffer.memory.len() != POOLED_BYTES || left > SMALL_BYTES {
            return;
        }
        let mut memory = vec![0; SMALL_BYTES].into_boxed_slice();
        memory[..left].copy_from_slice(buffer.unprocessed());
        let small = ReadBuffer { memory, start: 0, end: left };
        self.give_back(std::mem::replace(buffer, small));
    }

    #[cfg(test)]
    pub(super) fn lent(&self) -> usize {
        self.lent.get()
    }
}

impl ReadBuffer {
    /// Where a read puts its bytes.
    pub(super) fn space(&mut self) -> &mut [u8] {
        &mut self.memory[self.end..]
    }

    /// Notes that a read put `bytes` into the space.
    pub(super) fn filled(&mut self, bytes: usize) {
        assert!(
            bytes <= self.memory.len() - self.end,
            "a read of {bytes} bytes overran its buffer"
        );
        self.end += bytes;
    }

    /// What was received and not yet consumed.
    pub(super) fn unprocessed(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// Notes that the first `bytes` of the unprocessed ones are dealt with.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.end, "consumed more than was received");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_pool_buffers_are_small() {
        let pool = ReadBuffers::default();
        let mut lent: Vec<_> = (0..POOLED_MAX).map(|_| pool.take()).collect();
        assert_eq!(pool.take().space().len(), SMALL_BYTES);
        pool.give_back(lent.pop().unwrap());
        assert_eq!(pool.take().space().len(), POOLED_BYTES);
        for buffer in lent {
            pool.give_back(buffer);
        }
        assert!(pool.free.borrow().len() <= KEPT_MAX);
    }

    #[test]
    fn shrinking_keeps_the_unprocessed_bytes_and_returns_the_large_buffer() {
        let pool = ReadBuffers::default();
        let mut buffer = pool.take();
        buffer.space()[..6].copy_from_slice(b"abcdef");
        buffer.filled(6);
        buffer.consume(2);
        pool.shrink(&mut buffer);
        assert_eq!(buffer.unprocessed(), b"cdef");
        assert_eq!(pool.lent(), 0);
    }
}
