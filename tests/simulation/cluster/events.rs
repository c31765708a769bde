//! What a set of seeds has to meet, and what it has to find.

/// Something that a seed set must not miss.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    Acked,
    Duplicate,
    TimedOut,
    NotLeader,
    NotEnoughReplicas,
    NotEnoughReplicasAfterAppend,
    DeposedLeaderAnswered,
    RecordsDeleted,
    Fetched,
    FetchedFromFollower,
    NotAvailableYet,
    Killed,
    PowerLost,
    AllDown,
    Started,
    Frozen,
    Cut,
    OneWayCut,
    ControllerCut,
    Reset,
    SlowDisk,
    Fenced,
    LeaderMoved,
    IsrShrank,
    IsrGrew,
    IsrRefused,
    Truncated,
    BeganAnew,
    SegmentsCut,
    LedRunInSegments,
    FollowedRunInSegments,
    ReadForCatchUp,
    OtherShardCount,
    OpenWaited,
    TopicDeleted,
    TopicCreatedAgain,
    PartitionsCreated,
    RetentionChanged,
    MinInsyncReplicasChanged,
    Reassigned,
    ReassignmentTakenBack,
    ReplicaLeft,
}

impl Event {
    /// All but `DeposedLeaderAnswered`, which takes a producer that turns back to a leader of the past.
    pub const ALL: &[Self] = &[
        Self::Acked,
        Self::Duplicate,
        Self::TimedOut,
        Self::NotLeader,
        Self::NotEnoughReplicas,
        Self::NotEnoughReplicasAfterAppend,
        Self::RecordsDeleted,
        Self::Fetched,
        Self::FetchedFromFollower,
        Self::NotAvailableYet,
        Self::Killed,
        Self::PowerLost,
        Self::AllDown,
        Self::Started,
        Self::Frozen,
        Self::Cut,
        Self::OneWayCut,
        Self::ControllerCut,
        Self::Reset,
        Self::SlowDisk,
        Self::Fenced,
        Self::LeaderMoved,
        Self::IsrShrank,
        Self::IsrGrew,
        Self::IsrRefused,
        Self::Truncated,
        Self::BeganAnew,
        Self::SegmentsCut,
        Self::LedRunInSegments,
        Self::FollowedRunInSegments,
        Self::ReadForCatchUp,
        Self::OtherShardCount,
        Self::OpenWaited,
        Self::TopicDeleted,
        Self::TopicCreatedAgain,
        Self::PartitionsCreated,
        Self::RetentionChanged,
        Self::MinInsyncReplicasChanged,
        Self::Reassigned,
        Self::ReassignmentTakenBack,
        Self::ReplicaLeft,
    ];
}

/// A bug put in on purpose, to show that the checks see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A commit is reported written while it is not.
    AckBeforeFlush,
    /// A follower's acknowledgement counts before its flush.
    FollowerAckBeforeFlush,
    /// The high watermark follows the committed in-sync set, not the maximal one.
    CommittedIsrOnly,
    /// A follower goes on behind what it should have cut.
    SkippedTruncation,
    /// The controller elects replicas that are not in sync.
    ElectionOutsideIsr,
}
