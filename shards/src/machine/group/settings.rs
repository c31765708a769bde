//! What an operator may set, with Kafka's defaults, and the bounds of a coordinator.

/// `group.consumer.migration.policy`: whether a group with members may change its protocol. One without members
/// always may. Source: KIP-848.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MigrationPolicy {
    /// Both ways.
    #[default]
    Bidirectional,
    /// From the classic protocol to the next-generation one.
    Upgrade,
    /// From the next-generation protocol to the classic one.
    Downgrade,
    /// Neither way, and nobody joins by the other protocol.
    Disabled,
}

impl MigrationPolicy {
    /// The values of the key, Kafka's.
    pub const NAMES: &[&str] = &["bidirectional", "upgrade", "downgrade", "disabled"];

    /// The policy of that name, whatever the case of its letters.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "bidirectional" => Some(Self::Bidirectional),
            "upgrade" => Some(Self::Upgrade),
            "downgrade" => Some(Self::Downgrade),
            "disabled" => Some(Self::Disabled),
            _ => None,
        }
    }

    pub(super) fn allows_upgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Upgrade)
    }

    pub(super) fn allows_downgrade(self) -> bool {
        matches!(self, Self::Bidirectional | Self::Downgrade)
    }
}

/// Settings of a coordinator. The names in code style are Kafka's keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long the first members of a group wait for others.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members of a group, those included that were only told their id. Whoever comes
    /// beyond is refused with `GROUP_MAX_SIZE_REACHED`.
    pub members_max: usize,
    /// A new member whose request to join waits longer is forgotten: its connection may be gone.
    pub new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_max_bytes: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: u64,
    /// Tombstones of one look at what has expired; the rest has its turn a moment later.
    pub expired_records_max: usize,
    /// What the record of a group may take: it must fit a batch of the topic.
    pub group_record_bytes_max: usize,
    /// `offsets.commit.timeout.ms`: how long an answer waits for its records to be committed.
    pub commit_timeout_ms: u64,
    /// `group.consumer.max.size`
    pub consumer_members_max: usize,
    /// `group.consumer.session.timeout.ms`, unless a group has a time of its own.
    pub consumer_session_timeout_ms: i32,
    /// `group.consumer.heartbeat.interval.ms`, unless a group has one of its own.
    pub consumer_heartbeat_interval_ms: i32,
    /// `group.consumer.migration.policy`
    pub migration_policy: MigrationPolicy,
    /// What groups and offsets of one partition may take in memory. At the bound nothing new is taken: no
    /// new member, no offset of a partition that had none. What is there goes on.
    pub held_bytes_max: usize,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            members_max: 10_000,
            new_member_join_timeout_ms: 300_000,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            expired_records_max: 1_000,
            group_record_bytes_max: 1_000_000,
            commit_timeout_ms: 5_000,
            consumer_members_max: 10_000,
            consumer_session_timeout_ms: 45_000,
            consumer_heartbeat_interval_ms: 5_000,
            migration_policy: MigrationPolicy::default(),
            held_bytes_max: 64 << 20,
        }
    }
}

/// What a group has of its own: the configuration of a resource of type `GROUP`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GroupOverrides {
    /// `consumer.session.timeout.ms`
    pub consumer_session_timeout_ms: Option<i32>,
    /// `consumer.heartbeat.interval.ms`
    pub consumer_heartbeat_interval_ms: Option<i32>,
}
