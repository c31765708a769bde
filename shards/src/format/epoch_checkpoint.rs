//! Kafka's `leader-epoch-checkpoint`: which leader epoch began at which offset, as text.
//!
//! The first line is the version, 0; the second the number of entries; then one line each, epoch and
//! start offset with a space between, oldest first.

use std::fmt::Write as _;

use crate::model::{LeaderEpoch, Offset};

/// The file's name in a partition's directory.
pub const FILE_NAME: &str = "leader-epoch-checkpoint";

/// The file's content.
#[must_use]
pub fn encode(epochs: &[(LeaderEpoch, Offset)]) -> String {
    let mut text = format!("0\n{}\n", epochs.len());
    for (epoch, start) in epochs {
        writeln!(text, "{epoch} {start}").expect("writing to a string does not fail");
    }
    text
}

/// Reads a file's content. `None`: not of this format, or not growing in both fields.
#[must_use]
pub fn decode(text: &str) -> Option<Vec<(LeaderEpoch, Offset)>> {
    let mut lines = text.lines();
    if lines.next()? != "0" {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
    for line in lines {
        let (epoch, start) = line.split_once(' ')?;
        let entry = (LeaderEpoch(epoch.parse().ok()?), Offset(start.parse().ok()?));
        if epochs.last().is_some_and(|last| last.0 >= entry.0 || last.1 > entry.1) {
            return None;
        }
        epochs.push(entry);
    }
    (epochs.len() == count).then_some(epochs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_text_reads_back() {
        let epochs = vec![(LeaderEpoch(0), Offset(0)), (LeaderEpoch(5), Offset(1234))];
        assert_eq!(encode(&epochs), "0\n2\n0 0\n5 1234\n");
        assert_eq!(decode(&encode(&epochs)), Some(epochs));
        assert_eq!(decode(&encode(&[])), Some(Vec::new()));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "1\n0\n", "0\n1\n", "0\n0\n0 0\n", "0\n1\n0 x\n", "0\n1\n5\n"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        assert_eq!(decode("0\n2\n5 0\n5 10\n"), None);
        assert_eq!(decode("0\n2\n4 10\n5 9\n"), None);
    }
}
