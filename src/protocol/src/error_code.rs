//! Kafka's error codes: number, name and whether a client may retry.
//!
//! Which code answers which failure is decided by the handlers, not here.

use std::fmt;

/// Declares the codes once: number, Kafka's name, variant, and what a client does with it.
macro_rules! error_codes {
    ($($code:literal $name:ident $variant:ident $retry:ident,)*) => {
        /// An error code of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("`", stringify!($name), "`, ", stringify!($retry), ".")]
                $variant = $code,
            )*
        }

        impl ErrorCode {
            /// Every code, ascending.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code with this number, if Kafka has one.
            pub const fn from_i16(code: i16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Kafka's name, such as `NOT_LEADER_OR_FOLLOWER`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($name),)*
                }
            }

            /// Whether Kafka's clients retry on their own after this error.
            pub const fn is_retriable(self) -> bool {
                match self {
                    $(Self::$variant => is_retriable!($retry),)*
                }
            }
        }
    };
}

macro_rules! is_retriable {
    (retriable) => {
        true
    };
    (final) => {
        false
    };
}

impl ErrorCode {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether this is an error at all.
    pub const fn is_error(self) -> bool {
        !matches!(self, Self::None)
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> Self {
        code.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

error_codes! {
    -1 UNKNOWN_SERVER_ERROR UnknownServerError final,
    0 NONE None final,
    1 OFFSET_OUT_OF_RANGE OffsetOutOfRange final,
    2 CORRUPT_MESSAGE CorruptMessage retriable,
    3 UNKNOWN_TOPIC_OR_PARTITION UnknownTopicOrPartition retriable,
    4 INVALID_FETCH_SIZE InvalidFetchSize final,
    5 LEADER_NOT_AVAILABLE LeaderNotAvailable retriable,
    6 NOT_LEADER_OR_FOLLOWER NotLeaderOrFollower retriable,
    7 REQUEST_TIMED_OUT RequestTimedOut retriable,
    8 BROKER_NOT_AVAILABLE BrokerNotAvailable final,
    9 REPLICA_NOT_AVAILABLE ReplicaNotAvailable retriable,
    10 MESSAGE_TOO_LARGE MessageTooLarge final,
    11 STALE_CONTROLLER_EPOCH StaleControllerEpoch final,
    12 OFFSET_METADATA_TOO_LARGE OffsetMetadataTooLarge final,
    13 NETWORK_EXCEPTION NetworkException retriable,
    14 COORDINATOR_LOAD_IN_PROGRESS CoordinatorLoadInProgress retriable,
    15 COORDINATOR_NOT_AVAILABLE CoordinatorNotAvailable retriable,
    16 NOT_COORDINATOR NotCoordinator retriable,
    17 INVALID_TOPIC_EXCEPTION InvalidTopicException final,
    18 RECORD_LIST_TOO_LARGE RecordListTooLarge final,
    19 NOT_ENOUGH_REPLICAS NotEnoughReplicas retriable,
    20 NOT_ENOUGH_REPLICAS_AFTER_APPEND NotEnoughReplicasAfterAppend retriable,
    21 INVALID_REQUIRED_ACKS InvalidRequiredAcks final,
    22 ILLEGAL_GENERATION IllegalGeneration final,
    23 INCONSISTENT_GROUP_PROTOCOL InconsistentGroupProtocol final,
    24 INVALID_GROUP_ID InvalidGroupId final,
    25 UNKNOWN_MEMBER_ID UnknownMemberId final,
    26 INVALID_SESSION_TIMEOUT InvalidSessionTimeout final,
    27 REBALANCE_IN_PROGRESS RebalanceInProgress final,
    28 INVALID_COMMIT_OFFSET_SIZE InvalidCommitOffsetSize final,
    29 TOPIC_AUTHORIZATION_FAILED TopicAuthorizationFailed final,
    30 GROUP_AUTHORIZATION_FAILED GroupAuthorizationFailed final,
    31 CLUSTER_AUTHORIZATION_FAILED ClusterAuthorizationFailed final,
    32 INVALID_TIMESTAMP InvalidTimestamp final,
    33 UNSUPPORTED_SASL_MECHANISM UnsupportedSaslMechanism final,
    34 ILLEGAL_SASL_STATE IllegalSaslState final,
    35 UNSUPPORTED_VERSION UnsupportedVersion final,
    36 TOPIC_ALREADY_EXISTS TopicAlreadyExists final,
    37 INVALID_PARTITIONS InvalidPartitions final,
    38 INVALID_REPLICATION_FACTOR InvalidReplicationFactor final,
    39 INVALID_REPLICA_ASSIGNMENT InvalidReplicaAssignment final,
    40 INVALID_CONFIG InvalidConfig final,
    41 NOT_CONTROLLER NotController retriable,
    42 INVALID_REQUEST InvalidRequest final,
    43 UNSUPPORTED_FOR_MESSAGE_FORMAT UnsupportedForMessageFormat final,
    44 POLICY_VIOLATION PolicyViolation final,
    45 OUT_OF_ORDER_SEQUENCE_NUMBER OutOfOrderSequenceNumber final,
    46 DUPLICATE_SEQUENCE_NUMBER DuplicateSequenceNumber final,
    47 INVALID_PRODUCER_EPOCH InvalidProducerEpoch final,
    48 INVALID_TXN_STATE InvalidTxnState final,
    49 INVALID_PRODUCER_ID_MAPPING InvalidProducerIdMapping final,
    50 INVALID_TRANSACTION_TIMEOUT InvalidTransactionTimeout final,
    51 CONCURRENT_TRANSACTIONS ConcurrentTransactions retriable,
    52 TRANSACTION_COORDINATOR_FENCED TransactionCoordinatorFenced final,
    53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED TransactionalIdAuthorizationFailed final,
    54 SECURITY_DISABLED SecurityDisabled final,
    55 OPERATION_NOT_ATTEMPTED OperationNotAttempted final,
    56 KAFKA_STORAGE_ERROR KafkaStorageError retriable,
    57 LOG_DIR_NOT_FOUND LogDirNotFound final,
    58 SASL_AUTHENTICATION_FAILED SaslAuthenticationFailed final,
    59 UNKNOWN_PRODUCER_ID UnknownProducerId final,
    60 REASSIGNMENT_IN_PROGRESS ReassignmentInProgress final,
    61 DELEGATION_TOKEN_AUTH_DISABLED DelegationTokenAuthDisabled final,
    62 DELEGATION_TOKEN_NOT_FOUND DelegationTokenNotFound final,
    63 DELEGATION_TOKEN_OWNER_MISMATCH DelegationTokenOwnerMismatch final,
    64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED DelegationTokenRequestNotAllowed final,
    65 DELEGATION_TOKEN_AUTHORIZATION_FAILED DelegationTokenAuthorizationFailed final,
    66 DELEGATION_TOKEN_EXPIRED DelegationTokenExpired final,
    67 INVALID_PRINCIPAL_TYPE InvalidPrincipalType final,
    68 NON_EMPTY_GROUP NonEmptyGroup final,
    69 GROUP_ID_NOT_FOUND GroupIdNotFound final,
    70 FETCH_SESSION_ID_NOT_FOUND FetchSessionIdNotFound retriable,
    71 INVALID_FETCH_SESSION_EPOCH InvalidFetchSessionEpoch retriable,
    72 LISTENER_NOT_FOUND ListenerNotFound retriable,
    73 TOPIC_DELETION_DISABLED TopicDeletionDisabled final,
    74 FENCED_LEADER_EPOCH FencedLeaderEpoch retriable,
    75 UNKNOWN_LEADER_EPOCH UnknownLeaderEpoch retriable,
    76 UNSUPPORTED_COMPRESSION_TYPE UnsupportedCompressionType final,
    77 STALE_BROKER_EPOCH StaleBrokerEpoch final,
    78 OFFSET_NOT_AVAILABLE OffsetNotAvailable retriable,
    79 MEMBER_ID_REQUIRED MemberIdRequired final,
    80 PREFERRED_LEADER_NOT_AVAILABLE PreferredLeaderNotAvailable retriable,
    81 GROUP_MAX_SIZE_REACHED GroupMaxSizeReached final,
    82 FENCED_INSTANCE_ID FencedInstanceId final,
    83 ELIGIBLE_LEADERS_NOT_AVAILABLE EligibleLeadersNotAvailable retriable,
    84 ELECTION_NOT_NEEDED ElectionNotNeeded retriable,
    85 NO_REASSIGNMENT_IN_PROGRESS NoReassignmentInProgress final,
    86 GROUP_SUBSCRIBED_TO_TOPIC GroupSubscribedToTopic final,
    87 INVALID_RECORD InvalidRecord final,
    88 UNSTABLE_OFFSET_COMMIT UnstableOffsetCommit retriable,
    89 THROTTLING_QUOTA_EXCEEDED ThrottlingQuotaExceeded retriable,
    90 PRODUCER_FENCED ProducerFenced final,
    91 RESOURCE_NOT_FOUND ResourceNotFound final,
    92 DUPLICATE_RESOURCE DuplicateResource final,
    93 UNACCEPTABLE_CREDENTIAL UnacceptableCredential final,
    94 INCONSISTENT_VOTER_SET InconsistentVoterSet final,
    95 INVALID_UPDATE_VERSION InvalidUpdateVersion final,
    96 FEATURE_UPDATE_FAILED FeatureUpdateFailed final,
    97 PRINCIPAL_DESERIALIZATION_FAILURE PrincipalDeserializationFailure final,
    98 SNAPSHOT_NOT_FOUND SnapshotNotFound final,
    99 POSITION_OUT_OF_RANGE PositionOutOfRange final,
    100 UNKNOWN_TOPIC_ID UnknownTopicId retriable,
    101 DUPLICATE_BROKER_REGISTRATION DuplicateBrokerRegistration final,
    102 BROKER_ID_NOT_REGISTERED BrokerIdNotRegistered final,
    103 INCONSISTENT_TOPIC_ID InconsistentTopicId retriable,
    104 INCONSISTENT_CLUSTER_ID InconsistentClusterId final,
    105 TRANSACTIONAL_ID_NOT_FOUND TransactionalIdNotFound final,
    106 FETCH_SESSION_TOPIC_ID_ERROR FetchSessionTopicIdError retriable,
    107 INELIGIBLE_REPLICA IneligibleReplica final,
    108 NEW_LEADER_ELECTED NewLeaderElected final,
    109 OFFSET_MOVED_TO_TIERED_STORAGE OffsetMovedToTieredStorage final,
    110 FENCED_MEMBER_EPOCH FencedMemberEpoch final,
    111 UNRELEASED_INSTANCE_ID UnreleasedInstanceId final,
    112 UNSUPPORTED_ASSIGNOR UnsupportedAssignor final,
    113 STALE_MEMBER_EPOCH StaleMemberEpoch final,
    114 MISMATCHED_ENDPOINT_TYPE MismatchedEndpointType final,
    115 UNSUPPORTED_ENDPOINT_TYPE UnsupportedEndpointType final,
    116 UNKNOWN_CONTROLLER_ID UnknownControllerId final,
    117 UNKNOWN_SUBSCRIPTION_ID UnknownSubscriptionId final,
    118 TELEMETRY_TOO_LARGE TelemetryTooLarge final,
    119 INVALID_REGISTRATION InvalidRegistration final,
    120 TRANSACTION_ABORTABLE TransactionAbortable final,
    121 INVALID_RECORD_STATE InvalidRecordState final,
    122 SHARE_SESSION_NOT_FOUND ShareSessionNotFound retriable,
    123 INVALID_SHARE_SESSION_EPOCH InvalidShareSessionEpoch retriable,
    124 FENCED_STATE_EPOCH FencedStateEpoch final,
    125 INVALID_VOTER_KEY InvalidVoterKey final,
    126 DUPLICATE_VOTER DuplicateVoter final,
    127 VOTER_NOT_FOUND VoterNotFound final,
    128 INVALID_REGULAR_EXPRESSION InvalidRegularExpression final,
    129 REBOOTSTRAP_REQUIRED RebootstrapRequired final,
    130 STREAMS_INVALID_TOPOLOGY StreamsInvalidTopology final,
    131 STREAMS_INVALID_TOPOLOGY_EPOCH StreamsInvalidTopologyEpoch final,
    132 STREAMS_TOPOLOGY_FENCED StreamsTopologyFenced final,
    133 SHARE_SESSION_LIMIT_REACHED ShareSessionLimitReached retriable,
    134 GROUP_DELETION_FAILED GroupDeletionFailed final,
    135 STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED StreamsTopologyDescriptionUpdateFailed final,
    136 CONTROLLER_ID_NOT_REGISTERED ControllerIdNotRegistered final,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_dense_and_convert_both_ways() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(code.code(), index as i16 - 1, "{code}");
            assert_eq!(ErrorCode::from_i16(code.code()), Some(*code));
        }
        assert_eq!(ErrorCode::from_i16(ErrorCode::ALL.len() as i16 - 1), None);
        assert_eq!(ErrorCode::from_i16(-2), None);
    }

    #[test]
    fn well_known_codes_keep_number_name_and_retry() {
        let known = [
            (-1, "UNKNOWN_SERVER_ERROR", false),
            (0, "NONE", false),
            (1, "OFFSET_OUT_OF_RANGE", false),
            (3, "UNKNOWN_TOPIC_OR_PARTITION", true),
            (6, "NOT_LEADER_OR_FOLLOWER", true),
            (19, "NOT_ENOUGH_REPLICAS", true),
            (35, "UNSUPPORTED_VERSION", false),
            (45, "OUT_OF_ORDER_SEQUENCE_NUMBER", false),
            (87, "INVALID_RECORD", false),
        ];
        for (number, name, retriable) in known {
            let code = ErrorCode::from_i16(number).expect("code exists");
            assert_eq!((code.name(), code.is_retriable()), (name, retriable));
        }
    }
}
