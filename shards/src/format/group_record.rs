//! Records of `__consumer_offsets`, as Apache Kafka 4 writes them.
//!
//! A key begins with the kind of the record, a value with its version; both are 16 bits, big-endian. Strings
//! and arrays of the versions named *flexible* below have compact lengths, and every struct of theirs ends in
//! tagged fields. A record without a value is a tombstone: what the key names is gone.
//!
//! | kind | key behind the kind | value | versions |
//! | ---: | --- | --- | --- |
//! | 0 | group, topic, partition | offset of a consumer in a layout of its own | 0 |
//! | 1 | group, topic, partition | [`CommittedOffset`] | 0–3, flexible 4 |
//! | 2 | group | [`GroupMetadata`] | 0–3, flexible 4 |
//! | 3 | group | [`ConsumerGroupMetadata`] | flexible 0 |
//! | 4 | group | retired: only its tombstones are written | flexible 0 |
//! | 5 | group, member | [`ConsumerGroupMember`] | flexible 0 |
//! | 6 | group | [`TargetAssignmentMetadata`] | flexible 0 |
//! | 7 | group, member | [`TargetAssignment`] | flexible 0 |
//! | 8 | group, member | [`CurrentAssignment`] | flexible 0 |
//! | 16 | group, regular expression | [`ResolvedRegularExpression`] | flexible 0 |
//!
//! Keys are never flexible. Other kinds (share groups, streams groups) are [`GroupRecordError::UnknownKind`]:
//! whoever replays passes them over. Source: the schemas in Kafka's group coordinator, KIP-848, KIP-915.
//!
//! Deliberately absent: the contents of subscriptions and assignments, which only clients understand.

mod fields;
mod values;

use bytes::Bytes;

use crate::model::{Offset, PartitionIndex, TimestampMs, TopicId};
use fields::{Input, Output};

/// The version in which [`GroupMetadata`] is written.
const GROUP_METADATA_VERSION: i16 = 3;

/// Why bytes are not a record of this topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupRecordError {
    /// The bytes end within a field.
    #[error("ends within a field")]
    Truncated,
    /// More elements than the bytes left can hold.
    #[error("counts {0} elements in fewer bytes")]
    Count(usize),
    /// A length below −1, or null where there must be something.
    #[error("has an impossible length")]
    Length,
    /// A string that is not UTF-8.
    #[error("has text that is not UTF-8")]
    Utf8,
    /// A variable-length number above 32 bits.
    #[error("has an overlong number")]
    Number,
    /// Bytes behind the last field.
    #[error("is followed by {0} bytes")]
    Trailing(usize),
    /// Two lists that belong together have different lengths.
    #[error("has {partitions} partitions and {epochs} epochs")]
    Epochs {
        /// Partitions.
        partitions: usize,
        /// Their epochs.
        epochs: usize,
    },
    /// A key of a kind that is not known: its record is to be passed over.
    #[error("is of unknown kind {0}")]
    UnknownKind(i16),
    /// A value in a version that is not known.
    #[error("is of kind {kind} in unknown version {version}")]
    UnknownVersion {
        /// The kind.
        kind: i16,
        /// The version.
        version: i16,
    },
}

/// One record: a change of one group. `None` for a value is a tombstone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupRecord {
    /// Where a group is in a partition.
    Offset {
        /// Whose.
        key: OffsetKey,
        /// The offset; none: it is deleted.
        value: Option<CommittedOffset>,
    },
    /// A classic group.
    Group {
        /// Which.
        group_id: String,
        /// Its state; none: it is deleted.
        value: Option<GroupMetadata>,
    },
    /// A consumer group of the next-generation protocol.
    ConsumerGroup {
        /// Which.
        group_id: String,
        /// Its state; none: it is deleted.
        value: Option<ConsumerGroupMetadata>,
    },
    /// Partitions of a group's topics, in a layout that is retired: what it held is not looked at.
    ConsumerGroupPartitions {
        /// Which.
        group_id: String,
        /// Whether it is a tombstone, the only form that is still written.
        deleted: bool,
    },
    /// A member of a consumer group.
    Member {
        /// Which.
        key: MemberKey,
        /// What it told of itself; none: it left.
        value: Option<ConsumerGroupMember>,
    },
    /// The epoch of all target assignments of a group.
    TargetEpoch {
        /// Which.
        group_id: String,
        /// The epoch; none: it is deleted.
        value: Option<TargetAssignmentMetadata>,
    },
    /// What a member shall come to have.
    Target {
        /// Which.
        key: MemberKey,
        /// The partitions; none: it left.
        value: Option<TargetAssignment>,
    },
    /// What a member has.
    Current {
        /// Which.
        key: MemberKey,
        /// The partitions; none: it left.
        value: Option<CurrentAssignment>,
    },
    /// The topics that a regular expression matches.
    RegularExpression {
        /// Whose.
        group_id: String,
        /// The expression.
        expression: String,
        /// The topics; none: nobody subscribes with it any more.
        value: Option<ResolvedRegularExpression>,
    },
}

/// Names a committed offset.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OffsetKey {
    /// The group.
    pub group_id: String,
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
}

/// Names a member.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberKey {
    /// The group.
    pub group_id: String,
    /// The member.
    pub member_id: String,
}

/// Where a group is in a partition.
///
/// | size | field | versions |
/// | ---: | --- | --- |
/// | 8 | offset | 0+ |
/// | 4 | leader epoch of the record before it, −1: not known | 3+ |
/// | … | metadata: string of the client's own | 0+ |
/// | 8 | commit timestamp | 0+ |
/// | 8 | expiry timestamp | 1 |
/// | tag 0, 16 | topic id, if not zero | 4+ |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedOffset {
    /// The next record to be read.
    pub offset: Offset,
    /// Leader epoch of the record before it, if the client said. Source: KIP-320.
    pub leader_epoch: Option<i32>,
    /// Whatever the client wants to keep beside it.
    pub metadata: String,
    /// When it was committed.
    pub committed_at: TimestampMs,
    /// When it ends, if the client said so: clients before KIP-211 could.
    pub expires_at: Option<TimestampMs>,
    /// The topic's identity, zero when the record does not tell.
    pub topic_id: TopicId,
}

/// A classic group, as of the end of its last rebalance.
///
/// | size | field | versions |
/// | ---: | --- | --- |
/// | … | protocol type: string | 0+ |
/// | 4 | generation | 0+ |
/// | … | protocol: string or null | 0+ |
/// | … | member id of the leader: string or null | 0+ |
/// | 8 | timestamp of the last change of state | 2+ |
/// | … | array of members | 0+ |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupMetadata {
    /// `consumer` for consumers; empty for a group that is only offsets.
    pub protocol_type: String,
    /// Number of the rebalance.
    pub generation: i32,
    /// What the members agreed on.
    pub protocol: Option<String>,
    /// Who assigned.
    pub leader: Option<String>,
    /// When the group came into this state, `NONE` when the record does not tell.
    pub state_at: TimestampMs,
    /// The members.
    pub members: Vec<ClassicMember>,
}

/// A member of a classic group.
///
/// | size | field | versions |
/// | ---: | --- | --- |
/// | … | member id: string | 0+ |
/// | … | group instance id: string or null | 3+ |
/// | … | client id: string | 0+ |
/// | … | client host: string | 0+ |
/// | 4 | rebalance time-out, milliseconds | 1+ |
/// | 4 | session time-out, milliseconds | 0+ |
/// | … | subscription: bytes | 0+ |
/// | … | assignment: bytes | 0+ |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassicMember {
    /// Given by the coordinator.
    pub member_id: String,
    /// Given by its operator, for a static member. Source: KIP-345.
    pub instance_id: Option<String>,
    /// How the client calls itself.
    pub client_id: String,
    /// Where it connected from.
    pub client_host: String,
    /// How long it may take to join a rebalance.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// Its metadata for the protocol that was agreed on.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// A consumer group: 4 bytes of epoch; tag 0 is the hash of what its topics looked like, if not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConsumerGroupMetadata {
    /// Grows when the group must be assigned anew.
    pub epoch: i32,
    /// Of the topics that the members subscribe to, 0: not known.
    pub metadata_hash: i64,
}

/// What a member told of itself.
///
/// | size | field |
/// | ---: | --- |
/// | … | instance id: string or null |
/// | … | rack id: string or null |
/// | … | client id: string |
/// | … | client host: string |
/// | … | names of the topics it subscribes to: array of strings |
/// | … | regular expression it subscribes with: string or null |
/// | 4 | rebalance time-out, milliseconds |
/// | … | assignor it asks for: string or null |
/// | tag 0 | one byte, 0 for none or 1; session time-out, 4 bytes; protocols: array of name and metadata |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerGroupMember {
    /// Given by its operator, for a static member.
    pub instance_id: Option<String>,
    /// Where it stands.
    pub rack_id: Option<String>,
    /// How the client calls itself.
    pub client_id: String,
    /// Where it connected from.
    pub client_host: String,
    /// Topics it subscribes to by name.
    pub topics: Vec<String>,
    /// Regular expression it subscribes with.
    pub expression: Option<String>,
    /// How long it may take to give partitions up.
    pub rebalance_timeout_ms: i32,
    /// The server-side assignor it asks for.
    pub server_assignor: Option<String>,
    /// Set for a member that still speaks the classic protocol.
    pub classic: Option<ClassicProtocols>,
}

/// What the coordinator must know of a member that speaks the classic protocol in a consumer group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassicProtocols {
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// Name and metadata, in its order of preference.
    pub protocols: Vec<(String, Bytes)>,
}

/// The epoch of all target assignments: 4 bytes; tag 0 is when they were computed, if not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TargetAssignmentMetadata {
    /// The group's epoch that they were computed for.
    pub epoch: i32,
    /// When.
    pub assigned_at: TimestampMs,
}

/// Partitions of a topic: 16 bytes of topic id, an array of 4 bytes each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicPartitions {
    /// The topic.
    pub topic_id: TopicId,
    /// Its partitions.
    pub partitions: Vec<PartitionIndex>,
}

/// What a member shall come to have: an array of [`TopicPartitions`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TargetAssignment {
    /// By topic.
    pub topics: Vec<TopicPartitions>,
}

/// How far a member is on its way to its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberState {
    /// 0: it has all that its epoch's target gives it.
    Stable,
    /// 1: it has been told to give partitions up.
    UnrevokedPartitions,
    /// 2: it waits for partitions that others have.
    UnreleasedPartitions,
    /// 127, and any number that a later release may write: the member is to join again.
    Unknown,
}

/// Partitions that a member has, each with the member epoch in which it got it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AssignedPartitions {
    /// The topic.
    pub topic_id: TopicId,
    /// Partition and epoch; no epoch when the record does not tell.
    pub partitions: Vec<(PartitionIndex, Option<i32>)>,
}

/// What a member has.
///
/// | size | field |
/// | ---: | --- |
/// | 4 | member epoch |
/// | 4 | member epoch before |
/// | 1 | state: see [`MemberState`] |
/// | … | partitions it has: array of topic id, partitions, tag 0: array of epochs |
/// | … | partitions it shall give up, likewise |
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CurrentAssignment {
    /// The epoch that the member must name.
    pub epoch: i32,
    /// The epoch that it may still name when the last answer got lost.
    pub previous_epoch: i32,
    /// How far it is.
    pub state: MemberState,
    /// What it has.
    pub assigned: Vec<AssignedPartitions>,
    /// What it shall give up.
    pub revoking: Vec<AssignedPartitions>,
}

/// The topics that a regular expression matches: array of strings, 8 bytes of version, 8 of timestamp.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ResolvedRegularExpression {
    /// Their names.
    pub topics: Vec<String>,
    /// Offset of the metadata that they were looked up in.
    pub version: i64,
    /// When.
    pub resolved_at: TimestampMs,
}

impl GroupRecord {
    /// The group that the record is of.
    #[must_use]
    pub fn group_id(&self) -> &str {
        match self {
            Self::Offset { key, .. } => &key.group_id,
            Self::Member { key, .. } | Self::Target { key, .. } | Self::Current { key, .. } => {
                &key.group_id
            }
            Self::Group { group_id, .. }
            | Self::ConsumerGroup { group_id, .. }
            | Self::ConsumerGroupPartitions { group_id, .. }
            | Self::TargetEpoch { group_id, .. }
            | Self::RegularExpression { group_id, .. } => group_id,
        }
    }

    /// Key and value as they are written; a tombstone has no value.
    ///
    /// # Panics
    /// When a string is longer than a 16-bit length can say: requests cannot carry such.
    #[must_use]
    pub fn encode(&self) -> (Bytes, Option<Bytes>) {
        let mut key = Output::new();
        let value = match self {
            Self::Offset { key: of, value } => {
                key.kind(1).string(&of.group_id).string(&of.topic).i32(of.partition.0);
                value.as_ref().map(|value| value.encode(value.version()))
            }
            Self::Group { group_id, value } => {
                key.kind(2).string(group_id);
                value.as_ref().map(|value| value.encode(GROUP_METADATA_VERSION))
            }
            Self::ConsumerGroup { group_id, value } => {
                key.kind(3).string(group_id);
                value.as_ref().map(ConsumerGroupMetadata::encode)
            }
            Self::ConsumerGroupPartitions { group_id, deleted } => {
                key.kind(4).string(group_id);
                (!deleted).then(values::no_partitions)
            }
            Self::Member { key: of, value } => {
                key.kind(5).string(&of.group_id).string(&of.member_id);
                value.as_ref().map(ConsumerGroupMember::encode)
            }
            Self::TargetEpoch { group_id, value } => {
                key.kind(6).string(group_id);
                value.as_ref().map(TargetAssignmentMetadata::encode)
            }
            Self::Target { key: of, value } => {
                key.kind(7).string(&of.group_id).string(&of.member_id);
                value.as_ref().map(TargetAssignment::encode)
            }
            Self::Current { key: of, value } => {
                key.kind(8).string(&of.group_id).string(&of.member_id);
                value.as_ref().map(CurrentAssignment::encode)
            }
            Self::RegularExpression { group_id, expression, value } => {
                key.kind(16).string(group_id).string(expression);
                value.as_ref().map(ResolvedRegularExpression::encode)
            }
        };
        (key.finish(), value)
    }

    /// Reads a record. What it holds is copied: it does not keep its batch alive.
    ///
    /// # Errors
    /// [`GroupRecordError`]; allocation is bounded by the length of key and value.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Self, GroupRecordError> {
        let mut key = Input::new(key);
        let kind = key.i16()?;
        let record = match kind {
            0 | 1 => {
                let key = OffsetKey {
                    group_id: key.string()?,
                    topic: key.string()?,
                    partition: PartitionIndex(key.last_i32()?),
                };
                let value = match kind {
                    0 => value.map(CommittedOffset::decode_legacy),
                    _ => value.map(CommittedOffset::decode),
                };
                return Ok(Self::Offset { key, value: value.transpose()? });
            }
            2 => Self::Group {
                group_id: key.string()?,
                value: value.map(GroupMetadata::decode).transpose()?,
            },
            3 => Self::ConsumerGroup {
                group_id: key.string()?,
                value: value.map(ConsumerGroupMetadata::decode).transpose()?,
            },
            4 => {
                Self::ConsumerGroupPartitions { group_id: key.string()?, deleted: value.is_none() }
            }
            5 => Self::Member {
                key: key.member()?,
                value: value.map(ConsumerGroupMember::decode).transpose()?,
            },
            6 => Self::TargetEpoch {
                group_id: key.string()?,
                value: value.map(TargetAssignmentMetadata::decode).transpose()?,
            },
            7 => Self::Target {
                key: key.member()?,
                value: value.map(TargetAssignment::decode).transpose()?,
            },
            8 => Self::Current {
                key: key.member()?,
                value: value.map(CurrentAssignment::decode).transpose()?,
            },
            16 => Self::RegularExpression {
                group_id: key.string()?,
                expression: key.string()?,
                value: value.map(ResolvedRegularExpression::decode).transpose()?,
            },
            other => return Err(GroupRecordError::UnknownKind(other)),
        };
        key.end()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
