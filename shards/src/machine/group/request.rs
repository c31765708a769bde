//! What the coordinator is asked, and what it answers: Kafka's requests, typed.
//!
//! Where a version of a request decides over the answer, the field says so; numbers of versions and of
//! errors are the handlers' to know.

use bytes::Bytes;

use crate::format::group_record::{ConsumerGroupMember, TopicPartitions};
use crate::model::{Offset, PartitionIndex, TopicId};

/// Names a request until it is answered. Given by whoever asks, never twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// A request to the coordinator of one group, or of several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupRequest {
    /// A member of a classic group joins, or joins again.
    Join(JoinGroup),
    /// A member of a classic group asks for its part; the leader brings everybody's.
    Sync(SyncGroup),
    /// A member of a classic group is there.
    Heartbeat(Heartbeat),
    /// Members of a classic group leave.
    Leave(LeaveGroup),
    /// Offsets are to be remembered.
    CommitOffsets(CommitOffsets),
    /// Remembered offsets are asked for.
    FetchOffsets(FetchOffsets),
    /// Remembered offsets are to be forgotten.
    DeleteOffsets(DeleteOffsets),
    /// Groups without members are to be forgotten.
    DeleteGroups(Vec<String>),
    /// What classic groups are like.
    DescribeGroups(Vec<String>),
    /// Which groups there are.
    ListGroups(ListGroups),
    /// A member of a consumer group is there, joins or leaves.
    ConsumerHeartbeat(ConsumerHeartbeat),
    /// What consumer groups are like.
    DescribeConsumerGroups(Vec<String>),
}

/// The answer to a [`GroupRequest`] of the same name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupResponse {
    /// To [`GroupRequest::Join`].
    Join(Result<Joined, GroupError>),
    /// To [`GroupRequest::Sync`].
    Sync(Result<Synced, GroupError>),
    /// To [`GroupRequest::Heartbeat`].
    Heartbeat(Result<(), GroupError>),
    /// To [`GroupRequest::Leave`]: one line a member, as they were named.
    Leave(Result<Vec<LeftMember>, GroupError>),
    /// To [`GroupRequest::CommitOffsets`]: topic, partition and outcome, as they were named.
    CommitOffsets(Result<Vec<PartitionOutcome>, GroupError>),
    /// To [`GroupRequest::FetchOffsets`].
    FetchOffsets(Result<Vec<FetchedOffset>, GroupError>),
    /// To [`GroupRequest::DeleteOffsets`]: topic, partition and outcome, as they were named.
    DeleteOffsets(Result<Vec<PartitionOutcome>, GroupError>),
    /// To [`GroupRequest::DeleteGroups`].
    DeleteGroups(Vec<(String, Result<(), GroupError>)>),
    /// To [`GroupRequest::DescribeGroups`].
    DescribeGroups(Vec<(String, Result<DescribedGroup, GroupError>)>),
    /// To [`GroupRequest::ListGroups`].
    ListGroups(Result<Vec<ListedGroup>, GroupError>),
    /// To [`GroupRequest::ConsumerHeartbeat`].
    ConsumerHeartbeat(Result<ConsumerBeat, GroupError>),
    /// To [`GroupRequest::DescribeConsumerGroups`].
    DescribeConsumerGroups(Vec<(String, Result<DescribedConsumerGroup, GroupError>)>),
}

impl GroupRequest {
    /// Whether the answer may rest on records that the request asks for.
    #[must_use]
    pub fn may_record(&self) -> bool {
        match self {
            Self::Join(_)
            | Self::Sync(_)
            | Self::Leave(_)
            | Self::CommitOffsets(_)
            | Self::DeleteOffsets(_)
            | Self::DeleteGroups(_)
            | Self::ConsumerHeartbeat(_) => true,
            Self::Heartbeat(_)
            | Self::FetchOffsets(_)
            | Self::DescribeGroups(_)
            | Self::ListGroups(_)
            | Self::DescribeConsumerGroups(_) => false,
        }
    }

    /// Whether the answer may wait for other members, for minutes.
    #[must_use]
    pub fn waits_for_others(&self) -> bool {
        matches!(self, Self::Join(_) | Self::Sync(_))
    }
}

impl GroupResponse {
    /// The same answer, had it come to `error`.
    #[must_use]
    pub fn failed(self, error: &GroupError) -> Self {
        let failed = || error.clone();
        match self {
            Self::Join(_) => Self::Join(Err(failed())),
            Self::Sync(_) => Self::Sync(Err(failed())),
            Self::Heartbeat(_) => Self::Heartbeat(Err(failed())),
            Self::Leave(_) => Self::Leave(Err(failed())),
            Self::CommitOffsets(_) => Self::CommitOffsets(Err(failed())),
            Self::FetchOffsets(_) => Self::FetchOffsets(Err(failed())),
            Self::DeleteOffsets(_) => Self::DeleteOffsets(Err(failed())),
            Self::DeleteGroups(lines) => {
                Self::DeleteGroups(lines.into_iter().map(|(id, _)| (id, Err(failed()))).collect())
            }
            Self::DescribeGroups(lines) => {
                Self::DescribeGroups(lines.into_iter().map(|(id, _)| (id, Err(failed()))).collect())
            }
            Self::ListGroups(_) => Self::ListGroups(Err(failed())),
            Self::ConsumerHeartbeat(_) => Self::ConsumerHeartbeat(Err(failed())),
            Self::DescribeConsumerGroups(lines) => Self::DescribeConsumerGroups(
                lines.into_iter().map(|(id, _)| (id, Err(failed()))).collect(),
            ),
        }
    }
}

/// Why a request is refused. The names are Kafka's; `handlers` has the numbers.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GroupError {
    /// Another node, or a newer incarnation of this one, coordinates the group.
    #[error("this is not the coordinator of the group: find it again")]
    NotCoordinator,
    /// The coordinator is reading the partition.
    #[error("the coordinator is loading: try again")]
    LoadInProgress,
    /// Nothing can be remembered now: too few replicas are in sync, the disk is full, or the log cannot be read.
    #[error("the coordinator cannot remember anything now: try again")]
    NotAvailable,
    /// The coordinator has as much as it may hold.
    #[error(
        "the coordinator holds {held} bytes of groups and offsets, and may hold {limit}: delete groups, or \
         spread them over more partitions of __consumer_offsets"
    )]
    CoordinatorFull {
        /// Held now.
        held: usize,
        /// The bound.
        limit: usize,
    },
    /// The member does not exist, or does not any more: it is to join anew.
    #[error("the group has no such member")]
    UnknownMemberId,
    /// The member is of another generation than the group.
    #[error("the group is in another generation")]
    IllegalGeneration,
    /// The member is to join again.
    #[error("the group is rebalancing: join it")]
    RebalanceInProgress,
    /// The member has no protocol in common with the others.
    #[error("the member's protocols are not those of the group")]
    InconsistentGroupProtocol,
    /// A group cannot have that name.
    #[error("the group id is empty")]
    InvalidGroupId,
    /// The session time-out is outside of what is allowed.
    #[error("a session time-out of {found} ms is not within {min} to {max} ms")]
    InvalidSessionTimeout {
        /// Asked for.
        found: i32,
        /// `group.min.session.timeout.ms`
        min: i32,
        /// `group.max.session.timeout.ms`
        max: i32,
    },
    /// The member is to join again, with this id. Source: KIP-394.
    #[error("join again with the member id {member_id}")]
    MemberIdRequired {
        /// The id that it was given.
        member_id: String,
    },
    /// Somebody else has become the static member of this instance id. Source: KIP-345.
    #[error("another member has joined with the same instance id")]
    FencedInstanceId,
    /// The group has as many members as it may have.
    #[error("the group has {limit} members, which is group.max.size")]
    GroupMaxSizeReached {
        /// The bound.
        limit: usize,
    },
    /// What the members told of themselves, or were assigned, does not fit a record.
    #[error("the group's record would take {bytes} bytes, and may take {limit}")]
    GroupTooLarge {
        /// What it would take.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// There is no such group.
    #[error("there is no group {0:?}")]
    GroupIdNotFound(String),
    /// The group has members.
    #[error("the group has members")]
    NonEmptyGroup,
    /// Members of the group subscribe to the topic.
    #[error("members of the group subscribe to the topic")]
    GroupSubscribedToTopic,
    /// What is to be kept beside an offset is too long.
    #[error("metadata of {bytes} bytes: {limit} are allowed (offset.metadata.max.bytes)")]
    OffsetMetadataTooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// The request cannot be.
    #[error("the request cannot be: {0}")]
    InvalidRequest(&'static str),
    /// There is no assignor of that name.
    #[error("there is no assignor {0:?}: uniform and range are there")]
    UnsupportedAssignor(String),
    /// The text is no regular expression.
    #[error("no regular expression: {0}")]
    InvalidRegularExpression(String),
    /// The member is of another epoch than the coordinator knows: it is to give all up and join again.
    #[error("the member is in another epoch: it is to give up its partitions and join again")]
    FencedMemberEpoch,
    /// The member is in a later epoch than it says, and has not had the partitions for long enough.
    #[error("the member is in another epoch")]
    StaleMemberEpoch,
    /// Another member has joined with the instance id and has not left.
    #[error("the instance id is in use")]
    UnreleasedInstanceId,
    /// A member of a consumer group asks in a version that has no member epochs.
    #[error("members of consumer groups commit in version 9 or above")]
    UnsupportedVersion,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Client {
    /// How the client calls itself.
    pub id: String,
    /// Where it connected from, as it is shown: `/127.0.0.1`.
    pub host: String,
}

/// See [`GroupRequest::Join`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinGroup {
    /// The group.
    pub group_id: String,
    /// Who asks.
    pub client: Client,
    /// Empty for a new member.
    pub member_id: String,
    /// Set by a static member.
    pub instance_id: Option<String>,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// How long it may take to join a rebalance; where the version has none, its session time-out.
    pub rebalance_timeout_ms: i32,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// Name and metadata, in its order of preference.
    pub protocols: Vec<(String, Bytes)>,
    /// Random bytes out of which a member id is made if it needs one.
    pub fresh_id: [u8; 16],
    /// From version 4 on: a new member is told its id before it joins.
    pub knows_member_id_required: bool,
    /// From version 9 on: a leader can be told to skip the assignment.
    pub knows_skip_assignment: bool,
}

/// What a member learns at the end of the join phase.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// Its id.
    pub member_id: String,
    /// The group's generation.
    pub generation: i32,
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// What the members agreed on.
    pub protocol: Option<String>,
    /// Who assigns.
    pub leader: String,
    /// Whether the leader is to leave the assignment as it is.
    pub skip_assignment: bool,
    /// All members, for the leader.
    pub members: Vec<JoinedMember>,
}

/// A member, as the leader learns of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinedMember {
    /// Its id.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// Its metadata for the group's protocol.
    pub metadata: Bytes,
}

/// See [`GroupRequest::Sync`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncGroup {
    /// The group.
    pub group_id: String,
    /// Its generation.
    pub generation: i32,
    /// Who asks.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// What the member takes for the group's protocol type, from version 5 on.
    pub protocol_type: Option<String>,
    /// What the member takes for the group's protocol, from version 5 on.
    pub protocol: Option<String>,
    /// Member and assignment, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Synced {
    /// The group's protocol type.
    pub protocol_type: Option<String>,
    /// The group's protocol.
    pub protocol: Option<String>,
    /// What the leader gave it.
    pub assignment: Bytes,
}

/// See [`GroupRequest::Heartbeat`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// The group.
    pub group_id: String,
    /// Its generation.
    pub generation: i32,
    /// Who asks.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
}

/// See [`GroupRequest::Leave`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaveGroup {
    /// The group.
    pub group_id: String,
    /// Who leaves: member id, or empty with an instance id, which is how operators remove static members.
    pub members: Vec<(String, Option<String>)>,
}

/// What became of one who was to leave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeftMember {
    /// As it was named.
    pub member_id: String,
    /// As it was named.
    pub instance_id: Option<String>,
    /// Whether it left.
    pub outcome: Result<(), GroupError>,
}

/// See [`GroupRequest::CommitOffsets`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommitOffsets {
    /// The group.
    pub group_id: String,
    /// Generation or member epoch; below 0 without a group's membership.
    pub generation_or_epoch: i32,
    /// Empty without a group's membership.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// How long they are to be kept, if the client says so: versions 2 to 4.
    pub retention_ms: Option<i64>,
    /// From version 9 on: the client knows member epochs, and groups that are not there.
    pub knows_epochs: bool,
    /// What is to be remembered.
    pub offsets: Vec<OffsetToCommit>,
}

/// An offset to be remembered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OffsetToCommit {
    /// The topic's name.
    pub topic: String,
    /// Its identity, zero if it is not known.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The next record to be read.
    pub offset: Offset,
    /// Leader epoch of the record before it, if the client said.
    pub leader_epoch: Option<i32>,
    /// Whatever the client wants to keep beside it.
    pub metadata: String,
}

/// What became of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionOutcome {
    /// The topic's name.
    pub topic: String,
    /// The partition.
    pub partition: PartitionIndex,
    /// Whether it is done.
    pub outcome: Result<(), GroupError>,
}

/// See [`GroupRequest::FetchOffsets`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchOffsets {
    /// The group.
    pub group_id: String,
    /// Member id and epoch, if it says that it is a member of a consumer group: from version 9 on.
    pub member: Option<(String, i32)>,
    /// Topic and partitions; `None` asks for all.
    pub topics: Option<Vec<(String, Vec<PartitionIndex>)>>,
}

/// A remembered offset, or that there is none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchedOffset {
    /// The topic's name.
    pub topic: String,
    /// The topic's identity when the offset was committed, zero if that is not known.
    pub topic_id: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Offset, leader epoch if it is known, and metadata.
    pub committed: Option<(Offset, Option<i32>, String)>,
}

/// See [`GroupRequest::DeleteOffsets`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteOffsets {
    /// The group.
    pub group_id: String,
    /// Topic and partition.
    pub partitions: Vec<(String, PartitionIndex)>,
}

/// What a classic group is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedGroup {
    /// Kafka's name of its state.
    pub state: &'static str,
    /// Its protocol type, empty if it has none.
    pub protocol_type: String,
    /// Its protocol, while it is stable.
    pub protocol: String,
    /// Its members.
    pub members: Vec<DescribedMember>,
}

/// What a member of a classic group is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedMember {
    /// Its id.
    pub member_id: String,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// How its client calls itself.
    pub client_id: String,
    /// Where it connected from.
    pub client_host: String,
    /// Its metadata, while the group is stable.
    pub metadata: Bytes,
    /// Its assignment, while the group is stable.
    pub assignment: Bytes,
}

/// See [`GroupRequest::ListGroups`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ListGroups {
    /// Names of states, in any case; empty: every state.
    pub states: Vec<String>,
    /// Names of types, in any case; empty: every type.
    pub types: Vec<String>,
}

/// A group, as it is listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedGroup {
    /// Its id.
    pub group_id: String,
    /// Its protocol type, empty if it has none.
    pub protocol_type: String,
    /// Kafka's name of its state.
    pub state: &'static str,
    /// Kafka's name of its type.
    pub group_type: &'static str,
}

/// See [`GroupRequest::ConsumerHeartbeat`]. What is `None` is as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerHeartbeat {
    /// The group.
    pub group_id: String,
    /// Who asks.
    pub client: Client,
    /// Its id, chosen by the member; by whoever hands on a request of version 0 that has none.
    pub member_id: String,
    /// Its epoch; 0 joins, −1 leaves, −2 leaves for a while.
    pub member_epoch: i32,
    /// Of a static member.
    pub instance_id: Option<String>,
    /// Where it stands.
    pub rack_id: Option<String>,
    /// How long it may take to give partitions up.
    pub rebalance_timeout_ms: Option<i32>,
    /// Topics that it subscribes to.
    pub topics: Option<Vec<String>>,
    /// Regular expression that it subscribes with, empty for none.
    pub expression: Option<String>,
    /// Assignor that it asks for.
    pub server_assignor: Option<String>,
    /// Partitions that it has.
    pub owned: Option<Vec<TopicPartitions>>,
}

/// What a member of a consumer group learns.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerBeat {
    /// Its id.
    pub member_id: String,
    /// The epoch that it is to name from now on.
    pub member_epoch: i32,
    /// How often it is to be heard.
    pub heartbeat_interval_ms: i32,
    /// What it is to have, when that has changed or it cannot know.
    pub assignment: Option<Vec<TopicPartitions>>,
}

/// What a consumer group is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedConsumerGroup {
    /// Kafka's name of its state.
    pub state: &'static str,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch that the target assignment is for.
    pub target_epoch: i32,
    /// Who assigns.
    pub assignor: String,
    /// Its members.
    pub members: Vec<DescribedConsumer>,
}

/// What a member of a consumer group is like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DescribedConsumer {
    /// Its id.
    pub member_id: String,
    /// Its epoch.
    pub member_epoch: i32,
    /// What it told of itself.
    pub told: ConsumerGroupMember,
    /// What it has.
    pub assigned: Vec<TopicPartitions>,
    /// What it shall have.
    pub target: Vec<TopicPartitions>,
}
