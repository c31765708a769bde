//! Every configuration key of a topic.

use super::value::{self, Rule};
use super::{BrokerConfig, ConfigError};

const HOUR_MS: i64 = 3_600_000;
const MINUTE_MS: i64 = 60_000;
const FOREVER: &str = "9223372036854775807";

/// A key that a topic may override.
#[derive(Clone, Copy, Debug)]
pub struct TopicKey {
    /// Kafka's name.
    pub name: &'static str,
    /// What it accepts.
    pub rule: Rule,
    /// When neither the topic nor the broker says otherwise.
    pub default: &'static str,
    /// Broker keys that set it for all topics; the first that is set counts. The last one carries
    /// the default when it is described.
    pub synonyms: &'static [Synonym],
    /// What it does.
    pub doc: &'static str,
}

/// A broker key that is the base of a topic key.
#[derive(Clone, Copy, Debug)]
pub struct Synonym {
    /// The broker key.
    pub key: &'static str,
    /// What one of its units is in the topic key's unit.
    pub unit: i64,
}

impl Synonym {
    /// The broker's value in the topic key's unit, when it is set.
    pub(super) fn value(&self, broker: &BrokerConfig) -> Option<String> {
        let text = broker.explicit(self.key)?;
        if self.unit == 1 {
            return Some(text.to_owned());
        }
        let number = value::number(text);
        // Below zero means "no limit" in every unit.
        let scaled = if number < 0 { -1 } else { number.saturating_mul(self.unit) };
        Some(scaled.to_string())
    }
}

const fn same(key: &'static str) -> Synonym {
    Synonym { key, unit: 1 }
}

const KEYS: &[TopicKey] = &[
    TopicKey {
        name: "cleanup.policy",
        rule: Rule::ListOf(&["compact", "delete"]),
        default: "delete",
        synonyms: &[same("log.cleanup.policy")],
        doc: "How old records leave. With delete, whole segments go once retention.ms or \
              retention.bytes is exceeded. With compact, every key keeps its newest record, and \
              records without a key are refused. Both may be given.",
    },
    TopicKey {
        name: "compression.type",
        rule: Rule::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        default: "producer",
        synonyms: &[same("compression.type")],
        doc: "How batches are stored. With producer they keep the bytes that were sent; any other \
              value has the server compress each batch again that comes in another form.",
    },
    TopicKey {
        name: "delete.retention.ms",
        rule: Rule::Long { min: 0, max: i64::MAX },
        default: "86400000",
        synonyms: &[same("log.cleaner.delete.retention.ms")],
        doc: "How long, in milliseconds, a compacted topic keeps a tombstone from the first \
              compaction on that meets it. Who reads from the beginning has that long to learn that \
              a key was deleted.",
    },
    TopicKey {
        name: "flush.messages",
        rule: Rule::Long { min: 1, max: i64::MAX },
        default: "1",
        synonyms: &[same("log.flush.interval.messages")],
        doc: "How many records may be acknowledged before they are on the disk. The default here is \
              1, unlike Kafka's: every acknowledged record is durable. A larger value answers \
              acks=1 and acks=all before the flush, which then follows within flush.ms.",
    },
    TopicKey {
        name: "flush.ms",
        rule: Rule::Long { min: 0, max: i64::MAX },
        default: FOREVER,
        synonyms: &[same("log.flush.interval.ms")],
        doc: "How long, in milliseconds, an acknowledged record may stay unflushed. Matters only \
              with flush.messages above 1.",
    },
    TopicKey {
        name: "max.compaction.lag.ms",
        rule: Rule::Long { min: 1, max: i64::MAX },
        default: FOREVER,
        synonyms: &[same("log.cleaner.max.compaction.lag.ms")],
        doc: "How long, in milliseconds, a record of a compacted topic may stay before compaction \
              looks at it, however few there are. Segments are rolled as early.",
    },
    TopicKey {
        name: "max.message.bytes",
        rule: Rule::MessageBytes,
        default: "1048588",
        synonyms: &[same("message.max.bytes")],
        doc: "Largest batch that is accepted, in bytes with its header and as sent. The upper bound \
              is what one write-ahead log file can hold.",
    },
    TopicKey {
        name: "message.timestamp.after.max.ms",
        rule: Rule::Long { min: 0, max: i64::MAX },
        default: "3600000",
        synonyms: &[same("log.message.timestamp.after.max.ms")],
        doc: "How far, in milliseconds, a record's timestamp may lie ahead of the server's clock \
              before the batch is refused. Not looked at with LogAppendTime.",
    },
    TopicKey {
        name: "message.timestamp.before.max.ms",
        rule: Rule::Long { min: 0, max: i64::MAX },
        default: FOREVER,
        synonyms: &[same("log.message.timestamp.before.max.ms")],
        doc: "How far, in milliseconds, a record's timestamp may lie behind the server's clock \
              before the batch is refused. Not looked at with LogAppendTime.",
    },
    TopicKey {
        name: "message.timestamp.type",
        rule: Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        default: "CreateTime",
        synonyms: &[same("log.message.timestamp.type")],
        doc: "Whose time a record carries: the producer's (CreateTime) or the server's at the \
              append (LogAppendTime).",
    },
    TopicKey {
        name: "min.cleanable.dirty.ratio",
        rule: Rule::Ratio,
        default: "0.5",
        synonyms: &[same("log.cleaner.min.cleanable.ratio")],
        doc: "How much of a compacted topic's partition has to be new since its last compaction, \
              by bytes of its closed segments, before the next one.",
    },
    TopicKey {
        name: "min.compaction.lag.ms",
        rule: Rule::Long { min: 0, max: i64::MAX },
        default: "0",
        synonyms: &[same("log.cleaner.min.compaction.lag.ms")],
        doc: "How long, in milliseconds, every record of a compacted topic stays at least, whatever \
              follows it. No more than max.compaction.lag.ms.",
    },
    TopicKey {
        name: "min.insync.replicas",
        rule: Rule::Int { min: 1, max: i32::MAX },
        default: "1",
        synonyms: &[same("min.insync.replicas")],
        doc: "How many replicas must be in sync, the leader included, for a produce with acks=all \
              to be accepted. More than a partition has replicas means all of them.",
    },
    TopicKey {
        name: "retention.bytes",
        rule: Rule::Long { min: -1, max: i64::MAX },
        default: "-1",
        synonyms: &[same("log.retention.bytes")],
        doc: "How many bytes a partition keeps before its oldest segments go; -1 is no limit.",
    },
    TopicKey {
        name: "retention.ms",
        rule: Rule::Long { min: -1, max: i64::MAX },
        default: "604800000",
        synonyms: &[
            same("log.retention.ms"),
            Synonym { key: "log.retention.minutes", unit: MINUTE_MS },
            Synonym { key: "log.retention.hours", unit: HOUR_MS },
        ],
        doc: "How long, in milliseconds, a record is kept before its segment goes; -1 is for ever.",
    },
    TopicKey {
        name: "segment.bytes",
        rule: Rule::Int { min: 14, max: i32::MAX },
        default: "1073741824",
        synonyms: &[same("log.segment.bytes")],
        doc: "Size in bytes at which a new segment is begun. Retention removes whole segments.",
    },
    TopicKey {
        name: "segment.ms",
        rule: Rule::Long { min: 1, max: i64::MAX },
        default: "604800000",
        synonyms: &[same("log.roll.ms"), Synonym { key: "log.roll.hours", unit: HOUR_MS }],
        doc: "Age in milliseconds at which a new segment is begun even if the last one is not full.",
    },
    TopicKey {
        name: "unclean.leader.election.enable",
        rule: Rule::Boolean,
        default: "false",
        synonyms: &[same("unclean.leader.election.enable")],
        doc: "Whether a replica that is not in sync may lead when no other can. Records that were \
              acknowledged may be lost then.",
    },
];

/// All keys, by name.
#[must_use]
pub fn topic_keys() -> &'static [TopicKey] {
    KEYS
}

pub(super) fn find(name: &str) -> Result<&'static TopicKey, ConfigError> {
    KEYS.iter()
        .find(|key| key.name == name)
        .ok_or_else(|| ConfigError::UnknownKey { name: name.to_owned(), of: "a topic" })
}
