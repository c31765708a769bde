//! The value of `records` fields: batches that stay where they are.

use bytes::{Bytes, BytesMut};

/// Record batches as a sequence of shared chunks; on the wire their concatenation.
///
/// A decoded value is one chunk of its frame. A fetch response is built from slices of memory caches and
/// files without copying them together. Equality is that of the concatenated bytes.
#[derive(Clone)]
pub struct Records(Chunks);

#[derive(Clone)]
enum Chunks {
    Single(Bytes),
    Many { chunks: Vec<Bytes>, total_bytes: usize },
}

impl Records {
    /// No bytes, which is not null.
    pub const fn new() -> Self {
        Self(Chunks::Single(Bytes::new()))
    }

    /// Appends a chunk.
    pub fn push(&mut self, chunk: Bytes) {
        match &mut self.0 {
            _ if chunk.is_empty() => {}
            Chunks::Single(first) if first.is_empty() => *first = chunk,
            Chunks::Single(first) => {
                let total_bytes = first.len() + chunk.len();
                let chunks = vec![std::mem::take(first), chunk];
                self.0 = Chunks::Many { chunks, total_bytes };
            }
            Chunks::Many { chunks, total_bytes } => {
                *total_bytes += chunk.len();
                chunks.push(chunk);
            }
        }
    }

    /// The chunks in order. No records may be one empty chunk.
    pub fn chunks(&self) -> &[Bytes] {
        match &self.0 {
            Chunks::Single(bytes) => std::slice::from_ref(bytes),
            Chunks::Many { chunks, .. } => chunks,
        }
    }

    /// Bytes over all chunks.
    pub fn len(&self) -> usize {
        match &self.0 {
            Chunks::Single(bytes) => bytes.len(),
            Chunks::Many { total_bytes, .. } => *total_bytes,
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes in one piece; copies only if there are several chunks.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Chunks::Single(bytes) => bytes,
            Chunks::Many { chunks, total_bytes } => {
                let mut whole = BytesMut::with_capacity(total_bytes);
                for chunk in chunks {
                    whole.extend_from_slice(&chunk);
                }
                whole.freeze()
            }
        }
    }

    fn iter_bytes(&self) -> impl Iterator<Item = &u8> {
        self.chunks().iter().flat_map(|chunk| chunk.iter())
    }
}

impl Default for Records {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self(Chunks::Single(bytes))
    }
}

impl FromIterator<Bytes> for Records {
    fn from_iter<I: IntoIterator<Item = Bytes>>(chunks: I) -> Self {
        let mut records = Self::new();
        for chunk in chunks {
            records.push(chunk);
        }
        records
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Chunks::Single(a), Chunks::Single(b)) => a == b,
            _ => self.len() == other.len() && self.iter_bytes().eq(other.iter_bytes()),
        }
    }
}

impl Eq for Records {}

impl std::fmt::Debug for Records {
    // The bytes themselves would drown a log line.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Records({} bytes in {} chunks)", self.len(), self.chunks().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equality_and_length_ignore_the_chunking() {
        let whole = Records::from(Bytes::from_static(b"abcdef"));
        let parts: Records =
            [&b"ab"[..], b"", b"cde", b"f"].into_iter().map(Bytes::from_static).collect();
        assert_eq!(parts.chunks().len(), 3);
        assert_eq!((parts.len(), &parts), (6, &whole));
        assert_ne!(parts, Records::from(Bytes::from_static(b"abcdeg")));
        assert_eq!(parts.into_bytes(), whole.into_bytes());
    }
}
