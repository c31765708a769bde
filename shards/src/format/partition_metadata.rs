//! Kafka's `partition.metadata`: which topic a directory belongs to, as text.
//!
//! Two lines, `version: 0` and `topic_id: ` with the id in URL-safe base64.

use crate::model::TopicId;

/// The file's name in a partition's directory.
pub const FILE_NAME: &str = "partition.metadata";

/// The file's content.
#[must_use]
pub fn encode(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {topic_id}")
}

/// Reads a file's content. `None`: not of this format.
#[must_use]
pub fn decode(text: &str) -> Option<TopicId> {
    let mut lines = text.lines();
    let version = lines.next()?.strip_prefix("version:")?.trim();
    let topic_id = lines.next()?.strip_prefix("topic_id:")?.trim();
    (version == "0" && lines.next().is_none()).then(|| topic_id.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_text_reads_back() {
        let topic_id = TopicId(*b"\x00\x01\x02\x03\xff\xfe\xfd\xfc0123abcd");
        assert_eq!(encode(topic_id), "version: 0\ntopic_id: AAECA__-_fwwMTIzYWJjZA");
        assert_eq!(decode(&encode(topic_id)), Some(topic_id));
        assert_eq!(decode(&(encode(topic_id) + "\n")), Some(topic_id));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "version: 0", "version: 1\ntopic_id: AAECA__-_fwwMTIzYWJjZA", "x\ny"] {
            assert_eq!(decode(text), None, "{text:?}");
        }
        assert_eq!(decode("version: 0\ntopic_id: short"), None);
    }
}
