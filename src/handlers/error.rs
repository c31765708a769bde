//! Kafka's error codes for our errors: mapped here, once, without a catch-all arm.

use chronik_protocol::ErrorCode;
use chronik_shards::format::compression::CompressionError;
use chronik_shards::format::record_batch::BatchError;
use chronik_shards::machine::input::{FetchError, ProduceError};
use chronik_shards::machine::metadata::Rejection;
use chronik_shards::machine::topic_config::ConfigError;

use crate::control::ControlError;

/// A batch that a producer's bytes do not make.
pub fn of_batch(error: &BatchError) -> ErrorCode {
    match error {
        BatchError::Truncated { .. }
        | BatchError::Length { .. }
        | BatchError::TrailingBytes { .. }
        | BatchError::Crc { .. } => ErrorCode::CorruptMessage,
        BatchError::Magic { .. } => ErrorCode::UnsupportedForMessageFormat,
        BatchError::NoBatch
        | BatchError::MoreThanOneBatch { .. }
        | BatchError::Count { .. }
        | BatchError::Offsets { .. }
        | BatchError::Codec { .. }
        | BatchError::Attributes { .. }
        | BatchError::Record { .. }
        | BatchError::Compression(CompressionError::Damaged { .. })
        | BatchError::Producer { .. } => ErrorCode::InvalidRecord,
        BatchError::Compression(CompressionError::TooLarge { .. }) => ErrorCode::MessageTooLarge,
        BatchError::TimestampType => ErrorCode::InvalidTimestamp,
    }
}

/// A batch that a partition did not acknowledge.
pub fn of_produce(error: &ProduceError) -> ErrorCode {
    match error {
        ProduceError::UnknownPartition(_) => ErrorCode::UnknownTopicOrPartition,
        ProduceError::TooLarge { .. } => ErrorCode::MessageTooLarge,
        ProduceError::TimestampOutOfWindow { .. } => ErrorCode::InvalidTimestamp,
        ProduceError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        ProduceError::DuplicateSequence => ErrorCode::DuplicateSequenceNumber,
        ProduceError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        ProduceError::Transactional => ErrorCode::TransactionalIdAuthorizationFailed,
        ProduceError::ControlBatch => ErrorCode::InvalidRecord,
        ProduceError::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
        ProduceError::NotEnoughReplicasAfterAppend { .. } => {
            ErrorCode::NotEnoughReplicasAfterAppend
        }
        ProduceError::NotLeader { .. } => ErrorCode::NotLeaderOrFollower,
        ProduceError::TimedOut => ErrorCode::RequestTimedOut,
        ProduceError::StorageFull | ProduceError::StorageFailed => ErrorCode::KafkaStorageError,
        // Retriable: the client finds the next leader, or this node after its restart.
        ProduceError::Stopping => ErrorCode::NotLeaderOrFollower,
    }
}

/// A partition that cannot be read.
pub fn of_fetch(error: &FetchError) -> ErrorCode {
    match error {
        FetchError::UnknownPartition(_) => ErrorCode::UnknownTopicOrPartition,
        FetchError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        FetchError::FencedEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        FetchError::UnknownEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        FetchError::OffsetNotAvailable { .. } => ErrorCode::OffsetNotAvailable,
        FetchError::NotLeader { .. } => ErrorCode::NotLeaderOrFollower,
        FetchError::StorageFailed => ErrorCode::KafkaStorageError,
    }
}

/// Why something was not done: a code for programs and a sentence for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Kafka's code.
    pub code: ErrorCode,
    /// What to do about it.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// A command that was committed and changed nothing.
pub fn of_rejection(rejection: &Rejection) -> Refusal {
    let code = match rejection {
        Rejection::TopicExists { .. } => ErrorCode::TopicAlreadyExists,
        Rejection::TopicName(_) | Rejection::TopicNameCollides { .. } => {
            ErrorCode::InvalidTopicException
        }
        Rejection::UnknownTopic(_) | Rejection::UnknownPartition(_) => {
            ErrorCode::UnknownTopicOrPartition
        }
        Rejection::Assignment { .. } | Rejection::IneligibleReplica { .. } => {
            ErrorCode::InvalidReplicaAssignment
        }
        Rejection::PartitionCount { .. } => ErrorCode::InvalidPartitions,
        // Somebody else changed it in between: asking again is right.
        Rejection::PartitionCountChanged { .. } => ErrorCode::InvalidPartitions,
        Rejection::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
        Rejection::StalePartitionEpoch { .. } => ErrorCode::InvalidUpdateVersion,
        Rejection::StaleBrokerEpoch { .. } | Rejection::StaleProposer(_) => {
            ErrorCode::StaleBrokerEpoch
        }
        Rejection::NodeExists(_) => ErrorCode::DuplicateVoter,
        Rejection::NodeLeaving(_) | Rejection::OtherDirectory(_) => ErrorCode::InvalidRegistration,
        Rejection::UnknownBroker(_) => ErrorCode::BrokerIdNotRegistered,
        Rejection::BrokerInUse(_) => ErrorCode::InvalidRequest,
        Rejection::NoReassignment(_) => ErrorCode::NoReassignmentInProgress,
        Rejection::GroupConfigsFull => ErrorCode::PolicyViolation,
        Rejection::NoShards(_) => ErrorCode::InvalidRegistration,
        // The log never gives an index twice, topic ids are drawn at random, and no client founds a
        // cluster.
        Rejection::TopicIdUsed(_)
        | Rejection::ProducerIdsExhausted
        | Rejection::ClusterFounded
        | Rejection::AlreadyApplied { .. } => ErrorCode::UnknownServerError,
    };
    Refusal::new(code, rejection.to_string())
}

/// A proposal that did not come through.
pub fn of_control(error: &ControlError) -> Refusal {
    let code = match error {
        ControlError::Rejected(rejection) => return of_rejection(rejection),
        ControlError::Busy
        | ControlError::TimedOut
        | ControlError::OutcomeUnknown
        | ControlError::Stopped => ErrorCode::RequestTimedOut,
        ControlError::TooLarge(_) => ErrorCode::InvalidRequest,
    };
    Refusal::new(code, error.to_string())
}

/// A setting that is refused.
pub fn of_config(error: &ConfigError) -> Refusal {
    let code = match error {
        ConfigError::UnknownKey { .. }
        | ConfigError::InvalidValue { .. }
        | ConfigError::SetElsewhere { .. }
        | ConfigError::NotAList { .. } => ErrorCode::InvalidConfig,
        ConfigError::NamedTwice { .. } => ErrorCode::InvalidRequest,
    };
    Refusal::new(code, error.to_string())
}
