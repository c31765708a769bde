//! Why a connection ended.

use std::{fmt, io};

/// Why a connection ended. The caller has nothing left to do: the socket is closed and the line logged.
#[derive(Debug)]
pub enum CloseReason {
    /// The peer ended its stream between two requests.
    EndOfStream,
    /// The peer ended its stream inside a request.
    TruncatedFrame,
    /// The length in front of a request is negative: not a Kafka client.
    NegativeLength(i32),
    /// The length in front of a request is over `socket.request.max.bytes`. An HTTP request or a TLS
    /// hello reads as one, too.
    OversizeFrame {
        /// The length the peer announced.
        length: usize,
        /// The bound.
        limit: usize,
    },
    /// The dispatcher refused the request or its answer: what it said.
    Refused(String),
    /// Reading failed.
    ReadFailed(io::Error),
    /// Writing failed.
    WriteFailed(io::Error),
    /// The peer reset the connection while it was not being read.
    PeerGone,
    /// The peer takes no bytes.
    WriteStalled,
    /// The peer began a request and does not go on.
    ReadStalled,
    /// Nothing happened for `connections.max.idle.ms`.
    Idle,
    /// Requests of a half-closed connection took too long.
    DrainTimedOut,
    /// The node stops.
    Stopped,
}

impl CloseReason {
    /// Number of kinds.
    pub const KINDS: usize = 13;

    /// Index of the kind, for counters: below [`Self::KINDS`].
    #[must_use]
    pub const fn kind(&self) -> usize {
        match self {
            Self::EndOfStream => 0,
            Self::TruncatedFrame => 1,
            Self::NegativeLength(_) => 2,
            Self::OversizeFrame { .. } => 3,
            Self::Refused(_) => 4,
            Self::ReadFailed(_) => 5,
            Self::WriteFailed(_) => 6,
            Self::PeerGone => 7,
            Self::WriteStalled => 8,
            Self::ReadStalled => 9,
            Self::Idle => 10,
            Self::DrainTimedOut => 11,
            Self::Stopped => 12,
        }
    }

    /// Name of a kind as a metric label.
    #[must_use]
    pub const fn kind_name(kind: usize) -> &'static str {
        const NAMES: [&str; CloseReason::KINDS] = [
            "end_of_stream",
            "truncated_frame",
            "negative_length",
            "oversize_frame",
            "refused",
            "read_failed",
            "write_failed",
            "peer_gone",
            "write_stalled",
            "read_stalled",
            "idle",
            "drain_timed_out",
            "stopped",
        ];
        NAMES[kind]
    }

    /// Whether an operator should see it: the others are how connections normally end.
    #[must_use]
    pub const fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::EndOfStream
                | Self::ReadFailed(_)
                | Self::WriteFailed(_)
                | Self::PeerGone
                | Self::Idle
                | Self::Stopped
        )
    }

    /// Whether requests already accepted are still answered before the socket is closed.
    pub(super) const fn drains(&self) -> bool {
        match self {
            Self::EndOfStream
            | Self::TruncatedFrame
            | Self::NegativeLength(_)
            | Self::OversizeFrame { .. }
            | Self::Refused(_)
            | Self::Stopped => true,
            Self::ReadFailed(_)
            | Self::WriteFailed(_)
            | Self::PeerGone
            | Self::WriteStalled
            | Self::ReadStalled
            | Self::Idle
            | Self::DrainTimedOut => false,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EndOfStream => write!(f, "the peer ended its stream"),
            Self::TruncatedFrame => write!(f, "the peer ended its stream inside a request"),
            Self::NegativeLength(length) => {
                write!(f, "request length {length} is negative: not a Kafka client")
            }
            Self::OversizeFrame { length, limit } => write!(
                f,
                "request length {length} is over socket.request.max.bytes={limit} (or not a Kafka client)"
            ),
            Self::Refused(why) => write!(f, "request refused: {why}"),
            Self::ReadFailed(error) => write!(f, "read failed: {error}"),
            Self::WriteFailed(error) => write!(f, "write failed: {error}"),
            Self::PeerGone => write!(f, "the peer reset the connection"),
            Self::WriteStalled => write!(f, "the peer takes no bytes of its responses"),
            Self::ReadStalled => write!(f, "the peer does not go on with a begun request"),
            Self::Idle => write!(f, "idle for connections.max.idle.ms"),
            Self::DrainTimedOut => write!(f, "requests of a closing connection took too long"),
            Self::Stopped => write!(f, "the node stops"),
        }
    }
}
