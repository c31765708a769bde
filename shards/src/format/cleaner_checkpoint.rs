//! How far a partition's log is compacted, and which segments are being exchanged: two small texts in its directory.
//!
//! `cleaner-checkpoint`:
//!
//! | line | field |
//! | --- | --- |
//! | 1 | version: 0 |
//! | 2 | first dirty offset |
//! | 3 | end of the offsets that may be nobody's |
//!
//! `segment-swap`, while it is there, says that the segments from one offset to another are replaced by one, which lies
//! beside them under other names:
//!
//! | line | field |
//! | --- | --- |
//! | 1 | version: 0 |
//! | 2 | base offset of the first segment replaced, and of the one that replaces them |
//! | 3 | offset behind the last segment replaced |

use crate::model::Offset;

/// The checkpoint's name in a partition's directory.
pub const FILE_NAME: &str = "cleaner-checkpoint";

/// The name of a swap that is decided, in a partition's directory.
pub const SWAP_FILE_NAME: &str = "segment-swap";

/// How far a log is compacted.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct CleanerCheckpoint {
    /// Below it, every key is there once at most.
    pub first_dirty_offset: Offset,
    /// Below it, offsets may be missing: compaction has taken their records, or may have.
    pub holes_end: Offset,
}

impl CleanerCheckpoint {
    /// Of a log whose checkpoint cannot be read: nothing is known to be clean, anything may be missing.
    pub const UNKNOWN: Self =
        Self { first_dirty_offset: Offset::ZERO, holes_end: Offset(i64::MAX) };

    /// The same for a log that was cut at `end`.
    #[must_use]
    pub fn cut(self, end: Offset) -> Self {
        Self {
            first_dirty_offset: self.first_dirty_offset.min(end),
            holes_end: self.holes_end.min(end),
        }
    }
}

/// Segments that are replaced by one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentSwap {
    /// Names the one that replaces them.
    pub base_offset: Offset,
    /// The segments that begin below are replaced.
    pub end_offset: Offset,
}

/// The checkpoint's content.
#[must_use]
pub fn encode(checkpoint: CleanerCheckpoint) -> String {
    two_offsets(checkpoint.first_dirty_offset, checkpoint.holes_end)
}

/// Reads the checkpoint. `None`: not of this format.
#[must_use]
pub fn decode(text: &str) -> Option<CleanerCheckpoint> {
    let (first_dirty_offset, holes_end) = read_two_offsets(text)?;
    Some(CleanerCheckpoint { first_dirty_offset, holes_end })
}

/// A swap's content.
#[must_use]
pub fn encode_swap(swap: SegmentSwap) -> String {
    two_offsets(swap.base_offset, swap.end_offset)
}

/// Reads a swap. `None`: not of this format.
#[must_use]
pub fn decode_swap(text: &str) -> Option<SegmentSwap> {
    let (base_offset, end_offset) = read_two_offsets(text)?;
    Some(SegmentSwap { base_offset, end_offset })
}

fn two_offsets(first: Offset, second: Offset) -> String {
    format!("0\n{first}\n{second}\n")
}

/// Two offsets that do not fall.
fn read_two_offsets(text: &str) -> Option<(Offset, Offset)> {
    let lines: Vec<&str> = text.strip_suffix('\n')?.split('\n').collect();
    let ["0", first, second] = lines[..] else { return None };
    let offset = |line: &str| {
        let digits = line.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| line.parse().ok()).flatten().map(Offset)
    };
    let (first, second) = (offset(first)?, offset(second)?);
    (first <= second).then_some((first, second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_texts_read_back() {
        let checkpoint =
            CleanerCheckpoint { first_dirty_offset: Offset(17), holes_end: Offset(1234) };
        assert_eq!(encode(checkpoint), "0\n17\n1234\n");
        assert_eq!(decode("0\n17\n1234\n"), Some(checkpoint));
        let swap = SegmentSwap { base_offset: Offset(0), end_offset: Offset(i64::MAX) };
        assert_eq!(encode_swap(swap), "0\n0\n9223372036854775807\n");
        assert_eq!(decode_swap(&encode_swap(swap)), Some(swap));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "0\n",
            "0\n1\n",
            "0\n1\n2",
            "1\n1\n2\n",
            "0\n2\n1\n",
            "0\n1\n2\n3\n",
            "0\n-1\n2\n",
            "0\n+1\n2\n",
            "0\n1\n9223372036854775808\n",
            "0\n\n2\n",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
            assert_eq!(decode_swap(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_cut_takes_back_what_was_said_of_offsets_behind_it() {
        let checkpoint = |first_dirty: i64, holes_end: i64| CleanerCheckpoint {
            first_dirty_offset: Offset(first_dirty),
            holes_end: Offset(holes_end),
        };
        assert_eq!(checkpoint(10, 20).cut(Offset(30)), checkpoint(10, 20));
        assert_eq!(checkpoint(10, 20).cut(Offset(15)), checkpoint(10, 15));
        assert_eq!(checkpoint(10, 20).cut(Offset(5)), checkpoint(5, 5));
    }
}
