//! Kafka's offset index and time index of a segment, and lookups in their bytes.
//!
//! An offset index entry names a batch by its *last* offset and gives its position in the log file:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 4 | last offset of the batch, less the segment's base offset, big-endian |
//! | 4 | 4 | position of the batch in the log file, big-endian |
//!
//! A time index entry names the largest timestamp so far and the batch that has it:
//!
//! | offset | size | field |
//! | --- | --- | --- |
//! | 0 | 8 | timestamp, big-endian |
//! | 8 | 4 | last offset of the batch, less the segment's base offset, big-endian |
//!
//! Both grow strictly in every field. Neither carries a checksum: what they say is a place to begin
//! reading headers, and [`is_sound`](offset_index_is_sound) is all that can be said of them alone.

use crate::model::{Offset, TimestampMs};

/// Bytes of an offset index entry.
pub const OFFSET_ENTRY_BYTES: usize = 8;

/// Bytes of a time index entry.
pub const TIME_ENTRY_BYTES: usize = 12;

/// The log is indexed once in so many bytes. Source: Kafka's default of `index.interval.bytes`.
pub const INDEX_INTERVAL_BYTES: u64 = 4096;

/// One entry of an offset index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OffsetEntry {
    /// Last offset of the batch less the segment's base offset.
    pub relative_offset: u32,
    /// Where the batch begins in the log file.
    pub position: u32,
}

impl OffsetEntry {
    /// The entry's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; OFFSET_ENTRY_BYTES] {
        let mut bytes = [0; OFFSET_ENTRY_BYTES];
        bytes[..4].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes[4..].copy_from_slice(&self.position.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        Self { relative_offset: be_u32(&bytes[..4]), position: be_u32(&bytes[4..8]) }
    }
}

/// One entry of a time index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeEntry {
    /// The largest timestamp of the segment up to here.
    pub timestamp: TimestampMs,
    /// Last offset of the first batch that has it, less the segment's base offset.
    pub relative_offset: u32,
}

impl TimeEntry {
    /// The entry's bytes.
    #[must_use]
    pub fn encode(self) -> [u8; TIME_ENTRY_BYTES] {
        let mut bytes = [0; TIME_ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.timestamp.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.relative_offset.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let timestamp = bytes[..8].iter().fold(0, |value, byte| value << 8 | i64::from(*byte));
        Self { timestamp: TimestampMs(timestamp), relative_offset: be_u32(&bytes[8..12]) }
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// The whole entries of an offset index.
pub fn offset_entries(index: &[u8]) -> impl DoubleEndedIterator<Item = OffsetEntry> {
    index.as_chunks::<OFFSET_ENTRY_BYTES>().0.iter().map(|entry| OffsetEntry::decode(entry))
}

/// The whole entries of a time index.
pub fn time_entries(index: &[u8]) -> impl DoubleEndedIterator<Item = TimeEntry> {
    index.as_chunks::<TIME_ENTRY_BYTES>().0.iter().map(|entry| TimeEntry::decode(entry))
}

/// Where in the log file to begin reading headers for `target`: the last indexed batch that ends at
/// or below it, or the file's beginning.
#[must_use]
pub fn position_for_offset(index: &[u8], base_offset: Offset, target: Offset) -> u32 {
    let entries = index.as_chunks::<OFFSET_ENTRY_BYTES>().0;
    let below = |entry: &[u8; OFFSET_ENTRY_BYTES]| {
        i64::from(OffsetEntry::decode(entry).relative_offset) <= target.since(base_offset)
    };
    let count = entries.partition_point(below);
    count.checked_sub(1).map_or(0, |last| OffsetEntry::decode(&entries[last]).position)
}

/// An offset at or below that of the first record at or after `target`, as far as the time index
/// tells: look for the record from there on.
#[must_use]
pub fn offset_for_timestamp(index: &[u8], base_offset: Offset, target: TimestampMs) -> Offset {
    let entries = index.as_chunks::<TIME_ENTRY_BYTES>().0;
    let below = |entry: &[u8; TIME_ENTRY_BYTES]| TimeEntry::decode(entry).timestamp <= target;
    let count = entries.partition_point(below);
    count.checked_sub(1).map_or(base_offset, |last| {
        base_offset.plus(i64::from(TimeEntry::decode(&entries[last]).relative_offset))
    })
}

/// Whether an offset index is whole entries that grow and point into a log of `log_bytes`.
#[must_use]
pub fn offset_index_is_sound(index: &[u8], log_bytes: u64) -> bool {
    let grows = |pair: &[[u8; OFFSET_ENTRY_BYTES]]| {
        let (earlier, later) = (OffsetEntry::decode(&pair[0]), OffsetEntry::decode(&pair[1]));
        earlier.relative_offset < later.relative_offset && earlier.position < later.position
    };
    let (entries, rest) = index.as_chunks::<OFFSET_ENTRY_BYTES>();
    let inside = offset_entries(index).next_back();
    rest.is_empty()
        && entries.windows(2).all(grows)
        && inside.is_none_or(|last| u64::from(last.position) < log_bytes)
}

/// Whether a time index is whole entries that grow and name offsets of a segment of `offsets`
/// offsets.
#[must_use]
pub fn time_index_is_sound(index: &[u8], offsets: i64) -> bool {
    let grows = |pair: &[[u8; TIME_ENTRY_BYTES]]| {
        let (earlier, later) = (TimeEntry::decode(&pair[0]), TimeEntry::decode(&pair[1]));
        earlier.relative_offset < later.relative_offset && earlier.timestamp < later.timestamp
    };
    let (entries, rest) = index.as_chunks::<TIME_ENTRY_BYTES>();
    let inside = time_entries(index).next_back();
    rest.is_empty()
        && entries.windows(2).all(grows)
        && inside.is_none_or(|last| i64::from(last.relative_offset) < offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset_index(entries: &[(u32, u32)]) -> Vec<u8> {
        let encode = |&(relative_offset, position): &(u32, u32)| {
            OffsetEntry { relative_offset, position }.encode()
        };
        entries.iter().flat_map(encode).collect()
    }

    fn time_index(entries: &[(i64, u32)]) -> Vec<u8> {
        let encode = |&(timestamp, relative_offset): &(i64, u32)| {
            TimeEntry { timestamp: TimestampMs(timestamp), relative_offset }.encode()
        };
        entries.iter().flat_map(encode).collect()
    }

    #[test]
    fn golden_bytes_of_the_entries() {
        assert_eq!(offset_index(&[(0x0102, 0x0a0b_0c0d)]), [0, 0, 1, 2, 10, 11, 12, 13]);
        let expected = [0, 0, 0, 0, 0, 0, 3, 232, 0, 0, 1, 2];
        assert_eq!(time_index(&[(1000, 0x0102)]), expected);
    }

    #[test]
    fn entries_read_back_and_a_partial_one_is_left_out() {
        let mut bytes = time_index(&[(-1, 3), (i64::MAX, u32::MAX)]);
        bytes.push(1);
        let found: Vec<_> =
            time_entries(&bytes).map(|entry| (entry.timestamp.0, entry.relative_offset)).collect();
        assert_eq!(found, [(-1, 3), (i64::MAX, u32::MAX)]);
    }

    #[test]
    fn offset_lookup_finds_the_last_batch_that_ends_at_or_below() {
        let index = offset_index(&[(9, 100), (19, 200), (29, 300)]);
        for (target, position) in [(1000, 0), (1008, 0), (1009, 100), (1020, 200), (9999, 300)] {
            assert_eq!(position_for_offset(&index, Offset(1000), Offset(target)), position);
        }
        assert_eq!(position_for_offset(&[], Offset(1000), Offset(1001)), 0);
        assert_eq!(position_for_offset(&index, Offset(1000), Offset(1)), 0);
    }

    #[test]
    fn time_lookup_finds_the_last_entry_not_after() {
        let index = time_index(&[(50, 9), (70, 29)]);
        for (target, offset) in [(1, 1000), (50, 1009), (69, 1009), (70, 1029), (99, 1029)] {
            let found = offset_for_timestamp(&index, Offset(1000), TimestampMs(target));
            assert_eq!(found, Offset(offset));
        }
    }

    #[test]
    fn indexes_that_do_not_grow_or_leave_the_segment_are_unsound() {
        assert!(offset_index_is_sound(&[], 0));
        assert!(offset_index_is_sound(&offset_index(&[(1, 10), (2, 20)]), 21));
        assert!(!offset_index_is_sound(&offset_index(&[(1, 10), (2, 20)]), 20));
        assert!(!offset_index_is_sound(&offset_index(&[(1, 10), (1, 20)]), 21));
        assert!(!offset_index_is_sound(&offset_index(&[(1, 10), (0, 0)]), 21));
        assert!(!offset_index_is_sound(&[0; 9], 100));
        assert!(time_index_is_sound(&time_index(&[(5, 1), (6, 2)]), 3));
        assert!(!time_index_is_sound(&time_index(&[(5, 1), (6, 2)]), 2));
        assert!(!time_index_is_sound(&time_index(&[(5, 1), (5, 2)]), 3));
        assert!(!time_index_is_sound(&[0; 13], 3));
    }
}
