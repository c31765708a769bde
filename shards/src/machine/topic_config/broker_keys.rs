//! Every configuration key of a broker. All are fixed when it starts.

use super::ConfigError;
use super::value::Rule;
use crate::machine::group::MigrationPolicy;

/// Where a key is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// In the `[kafka]` table of the configuration file, under its own name.
    KafkaTable,
    /// By a flag (and its variable and file key), named here.
    Flag(&'static str),
}

/// A key of a broker.
#[derive(Clone, Copy, Debug)]
pub struct BrokerKey {
    /// Kafka's name.
    pub name: &'static str,
    /// What it accepts.
    pub rule: Rule,
    /// When it is not set.
    pub default: &'static str,
    /// Where it is set.
    pub origin: Origin,
    /// What it does.
    pub doc: &'static str,
}

const fn key(
    name: &'static str,
    rule: Rule,
    default: &'static str,
    doc: &'static str,
) -> BrokerKey {
    BrokerKey { name, rule, default, origin: Origin::KafkaTable, doc }
}

const fn flag(name: &'static str, flag: &'static str, doc: &'static str) -> BrokerKey {
    BrokerKey { name, rule: Rule::Text, default: "", origin: Origin::Flag(flag), doc }
}

const NATURAL: Rule = Rule::Long { min: 0, max: i64::MAX };
const FROM_MINUS_ONE: Rule = Rule::Long { min: -1, max: i64::MAX };
const POSITIVE_INT: Rule = Rule::Int { min: 1, max: i32::MAX };
const FOREVER: &str = "9223372036854775807";

/// The name of Kafka's selector that sends consumers to a replica in their rack. Source: KIP-392.
pub const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

const KEYS: &[BrokerKey] = &[
    flag("advertised.listeners", "--advertised-addr", "Where clients are told to connect."),
    key(
        "auto.create.topics.enable",
        Rule::Boolean,
        "true",
        "Whether a client that asks for a topic that does not exist creates it.",
    ),
    flag("broker.id", "--node-id", "This node's id."),
    flag("broker.rack", "--rack", "Where this node stands: replicas are spread over racks."),
    key(
        "compression.type",
        Rule::OneOf(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "producer",
        "compression.type of topics that do not set it.",
    ),
    key(
        "connections.max.idle.ms",
        Rule::Long { min: 1000, max: i32::MAX as i64 },
        "600000",
        "Milliseconds without a request after which a connection is closed.",
    ),
    key(
        "default.replication.factor",
        Rule::Int { min: 1, max: i16::MAX as i32 },
        "1",
        "Replicas of a partition whose creator leaves the number to the server; no more than there \
         are nodes. The same for the whole cluster.",
    ),
    key(
        "group.consumer.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        "How often members of consumer groups are to be heard, in milliseconds, unless their group sets it.",
    ),
    key(
        "group.consumer.max.heartbeat.interval.ms",
        POSITIVE_INT,
        "15000",
        "Largest consumer.heartbeat.interval.ms that a group may set.",
    ),
    key(
        "group.consumer.max.session.timeout.ms",
        POSITIVE_INT,
        "60000",
        "Largest consumer.session.timeout.ms that a group may set.",
    ),
    key(
        "group.consumer.max.size",
        POSITIVE_INT,
        "10000",
        "Members that a consumer group may have. The default differs from Kafka's, which is no limit.",
    ),
    key(
        "group.consumer.migration.policy",
        Rule::AnyCaseOf(MigrationPolicy::NAMES),
        "bidirectional",
        "Whether groups with members change between the classic and the next-generation protocol when members \
         of the other one join or the last of theirs leaves: bidirectional, upgrade (to the next-generation \
         protocol), downgrade or disabled. Groups without members always may.",
    ),
    key(
        "group.consumer.min.heartbeat.interval.ms",
        POSITIVE_INT,
        "5000",
        "Smallest consumer.heartbeat.interval.ms that a group may set.",
    ),
    key(
        "group.consumer.min.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        "Smallest consumer.session.timeout.ms that a group may set.",
    ),
    key(
        "group.consumer.session.timeout.ms",
        POSITIVE_INT,
        "45000",
        "Milliseconds that a member of a consumer group may be silent, unless its group sets it.",
    ),
    key(
        "group.initial.rebalance.delay.ms",
        Rule::Int { min: 0, max: i32::MAX },
        "3000",
        "Milliseconds that the first members of a classic group wait for others.",
    ),
    key(
        "group.max.session.timeout.ms",
        POSITIVE_INT,
        "1800000",
        "Longest session time-out that a member of a classic group may ask for.",
    ),
    key(
        "group.max.size",
        POSITIVE_INT,
        "10000",
        "Members that a classic group may have. The default differs from Kafka's, which is no limit.",
    ),
    key(
        "group.min.session.timeout.ms",
        POSITIVE_INT,
        "6000",
        "Shortest session time-out that a member of a classic group may ask for.",
    ),
    flag("listeners", "--bind-addr and --kafka-port", "Where the server listens for clients."),
    key(
        "log.cleaner.backoff.ms",
        Rule::Long { min: 1, max: i64::MAX },
        "15000",
        "How often partitions are looked for that compaction may be waiting for, in milliseconds.",
    ),
    key(
        "log.cleaner.dedupe.buffer.size",
        Rule::Long { min: 1 << 20, max: 1 << 40 },
        "134217728",
        "Memory for the keys of compactions under way, in bytes, of all shards together: 24 bytes a \
         key. Where a partition has more keys it takes several compactions.",
    ),
    key(
        "log.cleaner.delete.retention.ms",
        NATURAL,
        "86400000",
        "delete.retention.ms of topics that do not set it.",
    ),
    key(
        "log.cleaner.io.max.bytes.per.second",
        Rule::Long { min: 1024, max: i64::MAX },
        FOREVER,
        "Bytes that compactions read and write in a second at most, of all shards together. Without \
         a limit they rest six times as long as they work.",
    ),
    key(
        "log.cleaner.max.compaction.lag.ms",
        Rule::Long { min: 1, max: i64::MAX },
        FOREVER,
        "max.compaction.lag.ms of topics that do not set it.",
    ),
    key(
        "log.cleaner.min.cleanable.ratio",
        Rule::Ratio,
        "0.5",
        "min.cleanable.dirty.ratio of topics that do not set it.",
    ),
    key(
        "log.cleaner.min.compaction.lag.ms",
        NATURAL,
        "0",
        "min.compaction.lag.ms of topics that do not set it.",
    ),
    key(
        "log.cleanup.policy",
        Rule::ListOf(&["compact", "delete"]),
        "delete",
        "cleanup.policy of topics that do not set it.",
    ),
    flag("log.dirs", "--data-dir", "The directory that holds everything this node stores."),
    key(
        "log.flush.interval.messages",
        Rule::Long { min: 1, max: i64::MAX },
        "1",
        "flush.messages of topics that do not set it. The default differs from Kafka's: every \
         acknowledged record is on the disk.",
    ),
    key("log.flush.interval.ms", NATURAL, FOREVER, "flush.ms of topics that do not set it."),
    key(
        "log.message.timestamp.after.max.ms",
        NATURAL,
        "3600000",
        "message.timestamp.after.max.ms of topics that do not set it.",
    ),
    key(
        "log.message.timestamp.before.max.ms",
        NATURAL,
        FOREVER,
        "message.timestamp.before.max.ms of topics that do not set it.",
    ),
    key(
        "log.message.timestamp.type",
        Rule::OneOf(&["CreateTime", "LogAppendTime"]),
        "CreateTime",
        "message.timestamp.type of topics that do not set it.",
    ),
    key(
        "log.retention.bytes",
        FROM_MINUS_ONE,
        "-1",
        "retention.bytes of topics that do not set it.",
    ),
    key(
        "log.retention.check.interval.ms",
        Rule::Long { min: 1, max: i64::MAX },
        "300000",
        "How often records are looked for that retention lets go, in milliseconds.",
    ),
    key(
        "log.retention.hours",
        Rule::Int { min: -1, max: i32::MAX },
        "168",
        "retention.ms of topics that do not set it, in hours. log.retention.minutes and \
         log.retention.ms come before it.",
    ),
    key(
        "log.retention.minutes",
        Rule::Int { min: -1, max: i32::MAX },
        "",
        "retention.ms of topics that do not set it, in minutes. log.retention.ms comes before it.",
    ),
    key("log.retention.ms", FROM_MINUS_ONE, "", "retention.ms of topics that do not set it."),
    key(
        "log.roll.hours",
        Rule::Int { min: 1, max: i32::MAX },
        "168",
        "segment.ms of topics that do not set it, in hours. log.roll.ms comes before it.",
    ),
    key(
        "log.roll.ms",
        Rule::Long { min: 1, max: i64::MAX },
        "",
        "segment.ms of topics that do not set it.",
    ),
    key(
        "log.segment.bytes",
        Rule::Int { min: 14, max: i32::MAX },
        "1073741824",
        "segment.bytes of topics that do not set it.",
    ),
    key(
        "message.max.bytes",
        Rule::MessageBytes,
        "1048588",
        "max.message.bytes of topics that do not set it.",
    ),
    key(
        "min.insync.replicas",
        Rule::Int { min: 1, max: i32::MAX },
        "1",
        "min.insync.replicas of topics that do not set it. The same for the whole cluster.",
    ),
    flag("node.id", "--node-id", "This node's id."),
    key(
        "num.partitions",
        Rule::Int { min: 1, max: crate::machine::metadata::TOPIC_PARTITIONS_MAX as i32 },
        "1",
        "Partitions of a topic whose creator leaves the number to the server.",
    ),
    key(
        "offset.metadata.max.bytes",
        Rule::Int { min: 0, max: i32::MAX },
        "4096",
        "Largest text that a consumer may keep beside an offset.",
    ),
    key(
        "offsets.commit.timeout.ms",
        POSITIVE_INT,
        "5000",
        "Milliseconds that a group's change may take to be on all in-sync replicas before whoever asked \
         is told to try again.",
    ),
    key(
        "offsets.retention.check.interval.ms",
        Rule::Long { min: 1, max: i64::MAX },
        "600000",
        "How often committed offsets are looked for whose retention is over, in milliseconds.",
    ),
    key(
        "offsets.retention.minutes",
        POSITIVE_INT,
        "10080",
        "Minutes that committed offsets are kept after their group has lost its last member, or after their \
         commit where a group has no members of its own.",
    ),
    key(
        "offsets.topic.num.partitions",
        Rule::Int { min: 1, max: crate::machine::metadata::TOPIC_PARTITIONS_MAX as i32 },
        "50",
        "Partitions of __consumer_offsets, when it is created.",
    ),
    key(
        "offsets.topic.replication.factor",
        Rule::Int { min: 1, max: i16::MAX as i32 },
        "3",
        "Replicas of each partition of __consumer_offsets, when it is created. Where it is not set and the \
         configuration names fewer nodes, as many as there are nodes.",
    ),
    key(
        "offsets.topic.segment.bytes",
        Rule::Int { min: 14, max: i32::MAX },
        "104857600",
        "segment.bytes of __consumer_offsets, when it is created.",
    ),
    key(
        "replica.lag.time.max.ms",
        Rule::Long { min: 1, max: i64::MAX },
        "30000",
        "Milliseconds that a follower may be behind before it leaves the in-sync set.",
    ),
    key(
        "replica.selector.class",
        Rule::OneOf(&["", RACK_AWARE_SELECTOR]),
        "",
        "Which replica consumers read from: empty for the leader, Kafka's rack-aware selector for one \
         in their own rack.",
    ),
    key(
        "socket.request.max.bytes",
        // Enough for any request without records; a smaller bound would lock clients out.
        Rule::Int { min: 1024, max: i32::MAX },
        "104857600",
        "Largest request that is read, in bytes. A connection that announces more is closed.",
    ),
    key(
        "unclean.leader.election.enable",
        Rule::Boolean,
        "false",
        "unclean.leader.election.enable of topics that do not set it. The same for the whole cluster.",
    ),
];

/// All keys, by name.
#[must_use]
pub fn broker_keys() -> &'static [BrokerKey] {
    KEYS
}

pub(super) fn find(name: &str) -> Result<&'static BrokerKey, ConfigError> {
    KEYS.iter()
        .find(|key| key.name == name)
        .ok_or_else(|| ConfigError::UnknownKey { name: name.to_owned(), of: "a broker" })
}
