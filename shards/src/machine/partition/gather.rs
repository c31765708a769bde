//! Small batches of one partition, put next to each other in memory.
//!
//! A batch by itself keeps the whole request alive that it came in, in memory that another thread may have allocated.
//! Small ones are copied instead, into chunks that the partition's own thread allocates: one allocation for
//! dozens of batches, and the request's memory goes back to where it came from as soon as it is answered.
//!
//! A chunk lives as long as any of its batches. The batches of a partition leave the cache in the order in which they
//! came, so that beyond what the cache counts a partition holds one chunk at most. Chunks begin small and
//! grow with the partition's traffic.

use bytes::{Bytes, BytesMut};

/// Larger batches stay where they are: to copy them costs more than it saves.
const SMALL_BYTES_MAX: usize = 4 << 10;
/// Of a chunk of a partition that was idle.
const CHUNK_BYTES_MIN: usize = 4 << 10;
/// Of a chunk of a busy one.
const CHUNK_BYTES_MAX: usize = 32 << 10;

/// Where a partition's small batches go. Owner: the partition.
#[derive(Debug, Default)]
pub struct Gather {
    /// What is free of the newest chunk.
    free: BytesMut,
    /// Size of the newest chunk; 0 without one.
    chunk_bytes: usize,
}

impl Gather {
    /// The same bytes, in a chunk if they are few.
    pub fn take_in(&mut self, bytes: Bytes) -> Bytes {
        if bytes.len() > SMALL_BYTES_MAX {
            return bytes;
        }
        if self.free.capacity() < bytes.len() {
            self.chunk_bytes = (2 * self.chunk_bytes).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
            self.free = BytesMut::with_capacity(self.chunk_bytes);
        }
        self.free.extend_from_slice(&bytes);
        self.free.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(byte: u8, bytes: usize) -> Bytes {
        Bytes::from(vec![byte; bytes])
    }

    #[test]
    fn small_batches_follow_each_other_in_memory_and_keep_their_bytes() {
        let mut gather = Gather::default();
        let first = gather.take_in(batch(1, 100));
        let second = gather.take_in(batch(2, 200));
        assert_eq!((&first[..], &second[..]), (&[1; 100][..], &[2; 200][..]));
        assert_eq!(first.as_ptr_range().end, second.as_ptr_range().start);
    }

    #[test]
    fn large_batches_are_not_copied() {
        let mut gather = Gather::default();
        let large = batch(1, SMALL_BYTES_MAX + 1);
        assert_eq!(gather.take_in(large.clone()).as_ptr(), large.as_ptr());
    }

    #[test]
    fn chunks_grow_with_the_traffic_up_to_their_bound() {
        let mut gather = Gather::default();
        let mut sizes = Vec::new();
        for _ in 0..100 {
            let kept = gather.take_in(batch(1, SMALL_BYTES_MAX));
            assert_eq!(kept.len(), SMALL_BYTES_MAX);
            sizes.push(gather.chunk_bytes);
        }
        assert!(sizes.is_sorted());
        assert_eq!((sizes[0], sizes[99]), (CHUNK_BYTES_MIN, CHUNK_BYTES_MAX));
    }
}
