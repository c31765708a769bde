//! Configuration keys: which exist, what they accept, what they mean for a partition.
//!
//! Three tables, [`topic_keys`], [`broker_keys`] and that of groups, hold every key that has an effect, in Kafka's
//! spelling; any other key is refused by name, because a setting that is accepted and does nothing
//! is a defect. A topic's value is its override, else the broker's, else the default.
//!
//! Deliberately absent: changing a broker's values while it runs, and the keys of functions that
//! this server does not have (tiering, quotas).

mod alter;
mod broker_keys;
mod describe;
mod group_keys;
#[cfg(test)]
mod tests;
mod topic_keys;
mod value;

use std::collections::BTreeMap;

pub use alter::{ConfigOp, alter};
pub use broker_keys::{BrokerKey, Origin, broker_keys};
pub use describe::{
    ConfigDescription, ConfigSource, ConfigSynonym, describe_broker, describe_topic,
};
pub use group_keys::{alter_group, describe_group, group_overrides};
pub use topic_keys::{Synonym, TopicKey, topic_keys};
pub use value::{ConfigType, Rule};

use super::group::{GroupSettings, MigrationPolicy};
use super::input::PartitionConfig;
use crate::format::compression::Codec;

const MINUTE_MS: i64 = 60_000;

/// A setting that is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// No such key, or one that would have no effect.
    #[error("{name} is not a configuration of {of} that this server serves")]
    UnknownKey {
        /// The key.
        name: String,
        /// "a topic", "a broker" or "a group".
        of: &'static str,
    },
    /// The key exists and does not take this value.
    #[error("{name}={value}: {reason}")]
    InvalidValue {
        /// The key.
        name: String,
        /// What was given.
        value: String,
        /// What it takes.
        reason: String,
    },
    /// The key is set elsewhere.
    #[error("{name} is not set here but by {origin}")]
    SetElsewhere {
        /// The key.
        name: String,
        /// Where to set it.
        origin: &'static str,
    },
    /// A list operation on a key that is no list.
    #[error("{name} is not a list: nothing can be appended to it or subtracted from it")]
    NotAList {
        /// The key.
        name: String,
    },
    /// One request names a key more than once.
    #[error("{name} is named more than once")]
    NamedTwice {
        /// The key.
        name: String,
    },
}

impl ConfigError {
    /// The key in question.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::UnknownKey { name, .. }
            | Self::InvalidValue { name, .. }
            | Self::SetElsewhere { name, .. }
            | Self::NotAList { name }
            | Self::NamedTwice { name } => name,
        }
    }
}

/// Bounds that come from how the server is built and started, not from a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfigLimits {
    /// Largest batch that one WAL file can hold: the ceiling of `max.message.bytes`.
    pub message_bytes_max: usize,
}

/// Keys of a broker that are the same for a whole cluster.
const CLUSTER_KEYS: &[&str] =
    &["default.replication.factor", "min.insync.replicas", "unclean.leader.election.enable"];

/// What a broker was started with: the base that topics override.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BrokerConfig {
    limits: ConfigLimits,
    /// Only what was set; everything else has its default.
    values: BTreeMap<&'static str, String>,
}

impl BrokerConfig {
    /// All defaults.
    #[must_use]
    pub fn new(limits: ConfigLimits) -> Self {
        Self { limits, values: BTreeMap::new() }
    }

    /// Sets a key that an operator may set in the `[kafka]` table.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key: unknown, set elsewhere, or not with this value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let key = broker_keys::find(name)?;
        if let Origin::Flag(origin) = key.origin {
            return Err(ConfigError::SetElsewhere { name: name.to_owned(), origin });
        }
        key.rule.check(name, value, self.limits)?;
        self.values.insert(key.name, value.trim().to_owned());
        Ok(())
    }

    /// Records a key that flags decide, so that it can be described.
    ///
    /// # Errors
    /// [`ConfigError::UnknownKey`].
    pub fn record(&mut self, name: &str, value: String) -> Result<(), ConfigError> {
        let key = broker_keys::find(name)?;
        self.values.insert(key.name, value);
        Ok(())
    }

    /// The bounds that hold for every key.
    #[must_use]
    pub fn limits(&self) -> ConfigLimits {
        self.limits
    }

    /// How many replicas an acknowledgement needs in topics that do not say it.
    #[must_use]
    pub fn min_insync_replicas(&self) -> usize {
        usize::try_from(value::number(self.effective("min.insync.replicas"))).unwrap_or(usize::MAX)
    }

    /// A key's value as it was set, or `None` when it has its default.
    #[must_use]
    pub fn explicit(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The keys by which every node of a cluster must go alike, with this broker's values: the cluster
    /// agrees on those of its controller.
    #[must_use]
    pub fn cluster_values(&self) -> BTreeMap<String, String> {
        let value = |name: &&'static str| ((*name).to_owned(), self.effective(name).to_owned());
        CLUSTER_KEYS.iter().map(value).collect()
    }

    /// This broker as one of a cluster that has agreed on `values`.
    #[must_use]
    pub fn in_cluster(&self, values: &BTreeMap<String, String>) -> Self {
        let mut broker = self.clone();
        for name in CLUSTER_KEYS {
            if let Some(value) = values.get(*name) {
                broker.values.insert(name, value.clone());
            }
        }
        broker
    }

    /// The broker's own settings as numbers.
    #[must_use]
    pub fn settings(&self) -> BrokerSettings {
        let number = |name| value::number(self.effective(name));
        let size = |name| usize::try_from(number(name)).unwrap_or(usize::MAX);
        let positive = |name| u64::try_from(number(name)).unwrap_or(0);
        BrokerSettings {
            num_partitions: size("num.partitions"),
            default_replication_factor: size("default.replication.factor"),
            auto_create_topics: self.effective("auto.create.topics.enable") == "true",
            retention_interval_ms: u64::try_from(number("log.retention.check.interval.ms"))
                .unwrap_or(u64::MAX),
            compaction_interval_ms: positive("log.cleaner.backoff.ms"),
            compaction_map_bytes: size("log.cleaner.dedupe.buffer.size"),
            compaction_bytes_per_second_max: Some(number("log.cleaner.io.max.bytes.per.second"))
                .filter(|limit| *limit != i64::MAX)
                .and_then(|limit| u64::try_from(limit).ok()),
            socket_request_max_bytes: size("socket.request.max.bytes"),
            connections_max_idle_ms: positive("connections.max.idle.ms"),
            replica_lag_time_max_ms: positive("replica.lag.time.max.ms"),
            selects_replicas_by_rack: !self.effective("replica.selector.class").is_empty(),
            groups_topic: GroupsTopicSettings {
                partitions: size("offsets.topic.num.partitions"),
                replication_factor: size("offsets.topic.replication.factor"),
                segment_bytes: positive("offsets.topic.segment.bytes"),
            },
        }
    }

    /// What coordinators of groups go by.
    #[must_use]
    pub fn group_settings(&self) -> GroupSettings {
        let number = |name| value::number(self.effective(name));
        let int = |name| i32::try_from(number(name)).unwrap_or(i32::MAX);
        let size = |name| usize::try_from(number(name)).unwrap_or(usize::MAX);
        let positive = |name| u64::try_from(number(name)).unwrap_or(0);
        GroupSettings {
            session_timeout_min_ms: int("group.min.session.timeout.ms"),
            session_timeout_max_ms: int("group.max.session.timeout.ms"),
            initial_rebalance_delay_ms: int("group.initial.rebalance.delay.ms"),
            members_max: size("group.max.size"),
            offset_metadata_max_bytes: size("offset.metadata.max.bytes"),
            offsets_retention_ms: number("offsets.retention.minutes").saturating_mul(MINUTE_MS),
            offsets_retention_check_interval_ms: positive("offsets.retention.check.interval.ms"),
            commit_timeout_ms: positive("offsets.commit.timeout.ms"),
            consumer_session_timeout_ms: int("group.consumer.session.timeout.ms"),
            consumer_heartbeat_interval_ms: int("group.consumer.heartbeat.interval.ms"),
            consumer_members_max: size("group.consumer.max.size"),
            migration_policy: MigrationPolicy::named(
                self.effective("group.consumer.migration.policy"),
            )
            .expect("checked by the key's rule"),
            ..GroupSettings::default()
        }
    }

    /// A key's value, set or default.
    fn effective(&self, name: &'static str) -> &str {
        self.explicit(name).unwrap_or_else(|| {
            broker_keys::find(name).map(|key| key.default).expect("a key of the table")
        })
    }
}

/// A broker's own settings, those that are not a base for topics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BrokerSettings {
    /// `num.partitions`: of a topic whose creator did not say.
    pub num_partitions: usize,
    /// `default.replication.factor`: of a topic whose creator did not say.
    pub default_replication_factor: usize,
    /// `auto.create.topics.enable`.
    pub auto_create_topics: bool,
    /// `log.retention.check.interval.ms`.
    pub retention_interval_ms: u64,
    /// `log.cleaner.backoff.ms`.
    pub compaction_interval_ms: u64,
    /// `log.cleaner.dedupe.buffer.size`: of all shards together.
    pub compaction_map_bytes: usize,
    /// `log.cleaner.io.max.bytes.per.second`: of all shards together; `None` is no limit.
    pub compaction_bytes_per_second_max: Option<u64>,
    /// `socket.request.max.bytes`: a longer frame closes its connection.
    pub socket_request_max_bytes: usize,
    /// `connections.max.idle.ms`.
    pub connections_max_idle_ms: u64,
    /// `replica.lag.time.max.ms`.
    pub replica_lag_time_max_ms: u64,
    /// `replica.selector.class`: whether consumers are sent to replicas in their rack.
    pub selects_replicas_by_rack: bool,
    /// `offsets.topic.…`.
    pub groups_topic: GroupsTopicSettings,
}

/// How `__consumer_offsets` is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupsTopicSettings {
    /// `offsets.topic.num.partitions`.
    pub partitions: usize,
    /// `offsets.topic.replication.factor`.
    pub replication_factor: usize,
    /// `offsets.topic.segment.bytes`.
    pub segment_bytes: u64,
}

/// How batches are stored. Source: `compression.type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CompressionType {
    /// As the producer sent them.
    Producer,
    /// Not compressed.
    Uncompressed,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl CompressionType {
    /// What batches of other codecs are brought to; `None` leaves it to the producer.
    #[must_use]
    pub const fn codec(self) -> Option<Codec> {
        match self {
            Self::Producer => None,
            Self::Uncompressed => Some(Codec::None),
            Self::Gzip => Some(Codec::Gzip),
            Self::Snappy => Some(Codec::Snappy),
            Self::Lz4 => Some(Codec::Lz4),
            Self::Zstd => Some(Codec::Zstd),
        }
    }
}

/// A topic's configuration, resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicSettings {
    /// What its partitions need.
    pub partition: PartitionConfig,
    /// What a batch becomes before it reaches a partition.
    pub compression: CompressionType,
}

impl TopicSettings {
    /// Resolves a topic's overrides on top of a broker's values.
    ///
    /// `max.message.bytes` is cut to what a WAL file holds now: a topic may have been created when
    /// that was more.
    ///
    /// # Errors
    /// [`ConfigError`] when an override is not one that this release writes.
    pub fn resolve(
        overrides: &BTreeMap<String, String>,
        broker: &BrokerConfig,
    ) -> Result<Self, ConfigError> {
        // Sizes were within their bound when they were proposed.
        let unbounded = ConfigLimits { message_bytes_max: i32::MAX as usize };
        for (name, value) in overrides {
            topic_keys::find(name)?.rule.check(name, value, unbounded)?;
        }
        let text = |name: &'static str| effective(name, overrides, broker);
        let number = |name| value::number(&text(name));
        let positive = |name| u64::try_from(number(name)).ok();
        let below_max = |name| Some(number(name)).filter(|value| *value != i64::MAX);
        let message_bytes = usize::try_from(number("max.message.bytes")).unwrap_or(0);
        let policies = text("cleanup.policy");
        let has_policy = |policy| value::list(&policies).any(|word| word == policy);
        let cleanup_compact = has_policy("compact");
        let max_compaction_lag_ms = below_max("max.compaction.lag.ms");
        // What may not stay for longer must not stay in a segment that is written either.
        let lag_ms = max_compaction_lag_ms.filter(|_| cleanup_compact).unwrap_or(i64::MAX);
        let partition = PartitionConfig {
            max_message_bytes: message_bytes.min(broker.limits.message_bytes_max),
            min_insync_replicas: usize::try_from(number("min.insync.replicas")).unwrap_or(1),
            segment_bytes: positive("segment.bytes").unwrap_or(u64::MAX),
            segment_ms: number("segment.ms").min(lag_ms),
            retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: positive("retention.bytes"),
            cleanup_delete: has_policy("delete"),
            cleanup_compact,
            delete_retention_ms: number("delete.retention.ms"),
            min_cleanable_dirty_ppm: value::ppm(&text("min.cleanable.dirty.ratio")),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            max_compaction_lag_ms,
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_before_max_ms: below_max("message.timestamp.before.max.ms"),
            timestamp_after_max_ms: below_max("message.timestamp.after.max.ms"),
            flush_messages: positive("flush.messages").unwrap_or(1),
            flush_ms: below_max("flush.ms").and_then(|ms| ms.try_into().ok()).unwrap_or(u64::MAX),
        };
        let compression = match text("compression.type").as_str() {
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => CompressionType::Producer,
        };
        Ok(Self { partition, compression })
    }
}

/// Checks overrides before they are proposed.
///
/// # Errors
/// [`ConfigError`] naming the first key that is refused.
pub fn check_topic_configs(
    overrides: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> Result<(), ConfigError> {
    for (name, value) in overrides {
        topic_keys::find(name)?.rule.check(name, value, broker.limits)?;
    }
    check_together(overrides, broker)
}

/// Checks what keys say together, each of them being fine.
fn check_together(
    overrides: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> Result<(), ConfigError> {
    let lag_ms = |name| value::number(&effective(name, overrides, broker));
    let (min_ms, max_ms) = (lag_ms("min.compaction.lag.ms"), lag_ms("max.compaction.lag.ms"));
    if min_ms > max_ms {
        return Err(ConfigError::InvalidValue {
            name: "min.compaction.lag.ms".to_owned(),
            value: min_ms.to_string(),
            reason: format!("no more than max.compaction.lag.ms={max_ms} is due"),
        });
    }
    Ok(())
}

/// A topic key's value: override, else the first broker key that is set, else the default.
fn effective(
    name: &'static str,
    overrides: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> String {
    if let Some(value) = overrides.get(name) {
        return value.trim().to_owned();
    }
    let key = topic_keys::find(name).expect("a key of the table");
    let from_broker = key.synonyms.iter().find_map(|synonym| synonym.value(broker));
    from_broker.unwrap_or_else(|| key.default.to_owned())
}
