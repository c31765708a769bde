//! What the control planes of two nodes say to each other, and how it lies in a frame.
//!
//! A frame is that of the metadata ([`metadata_frame`]): magic "CHCP", a kind, a version, a length and
//! a CRC-32C. Raft's messages are protobuf, which is parsed for authenticated peers only: its parser
//! is not made for strangers.
//!
//! The body of a question how the group stands is its number, eight bytes; that of the answer is
//! described in [`quorum`](super::quorum). A question whether the metadata are applied is its number and the log
//! index, eight bytes each; the answer is the number. A heartbeat's body:
//!
//! | offset | size | field |
//! | ---: | ---: | --- |
//! | 0 | 4 | node |
//! | 4 | 8 | broker epoch |
//! | 12 | 8 | log index that the node has applied |
//! | 20 | 1 | 1 when it can serve, else 0 |
//!
//! All numbers are little-endian.
//!
//! [`metadata_frame`]: chronik_shards::format::metadata_frame

use chronik_shards::format::metadata_frame::{Frame, seal};
use chronik_shards::machine::controller::BrokerHeartbeat;
use chronik_shards::model::{BrokerEpoch, NodeId};
use protobuf::Message as _;
use raft::eraftpb::Message;

use super::quorum::QuorumState;

/// First four bytes of every frame between control planes: "CHCP".
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"CHCP");

/// Kinds of frames. Never reused.
pub(super) mod kind {
    pub(in crate::control) const HELLO: u16 = 1;
    pub(in crate::control) const WELCOME: u16 = 2;
    pub(in crate::control) const REFUSAL: u16 = 3;
    pub(in crate::control) const RAFT: u16 = 4;
    pub(in crate::control) const HEARTBEAT: u16 = 5;
    pub(in crate::control) const ASK_QUORUM: u16 = 6;
    pub(in crate::control) const QUORUM: u16 = 7;
    pub(in crate::control) const ASK_APPLIED: u16 = 8;
    pub(in crate::control) const APPLIED: u16 = 9;
    pub(in crate::control) const GONE: u16 = 10;
}

/// The version in which every kind is written and read.
pub(super) const VERSION: u16 = 1;

const HEARTBEAT_BYTES: usize = 21;

/// A message between the control planes of two nodes.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum PeerMessage {
    /// Consensus.
    Raft(Box<Message>),
    /// To the controller.
    Heartbeat(BrokerHeartbeat),
    /// To the leader: how does the group stand? With a number of the one that asks.
    AskQuorum(u64),
    /// The answer to the question of that number.
    Quorum(u64, QuorumState),
    /// Is the log applied up to an index? With a number of the one that asks. Answered when it is.
    AskApplied {
        /// The question's.
        number: u64,
        /// The log index.
        index: u64,
    },
    /// The log is applied as far as the question of that number asks.
    Applied(u64),
}

/// What became of messages to a peer, as far as raft must know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Delivery {
    /// Some did not get through.
    Lost,
    /// A snapshot was handed over.
    SnapshotSent,
    /// A snapshot did not get through.
    SnapshotLost,
}

/// A frame that does not hold what its kind says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum PeerMessageError {
    #[error("a frame of kind {kind} in version {version} is not known")]
    Unknown { kind: u16, version: u16 },
    #[error("a message that does not decode: {0}")]
    Body(String),
}

impl PeerMessage {
    /// The message as a frame.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Raft(message) => {
                let body =
                    message.write_to_bytes().expect("raft's messages have no required field");
                seal(MAGIC, kind::RAFT, VERSION, &body)
            }
            Self::AskQuorum(number) => {
                seal(MAGIC, kind::ASK_QUORUM, VERSION, &number.to_le_bytes())
            }
            Self::Quorum(number, state) => {
                seal(MAGIC, kind::QUORUM, VERSION, &state.encode(*number))
            }
            Self::AskApplied { number, index } => {
                let body = [number.to_le_bytes(), index.to_le_bytes()].concat();
                seal(MAGIC, kind::ASK_APPLIED, VERSION, &body)
            }
            Self::Applied(number) => seal(MAGIC, kind::APPLIED, VERSION, &number.to_le_bytes()),
            Self::Heartbeat(heartbeat) => {
                let mut body = Vec::with_capacity(HEARTBEAT_BYTES);
                body.extend_from_slice(&heartbeat.node_id.get().to_le_bytes());
                body.extend_from_slice(&heartbeat.broker_epoch.get().to_le_bytes());
                body.extend_from_slice(&heartbeat.applied.to_le_bytes());
                body.push(u8::from(heartbeat.ready));
                seal(MAGIC, kind::HEARTBEAT, VERSION, &body)
            }
        }
    }

    /// Reads the message in a frame of an authenticated peer.
    pub(super) fn decode(frame: &Frame<'_>) -> Result<Self, PeerMessageError> {
        match (frame.kind, frame.version) {
            (kind::RAFT, VERSION) => Message::parse_from_bytes(frame.body)
                .map(|message| Self::Raft(Box::new(message)))
                .map_err(|error| PeerMessageError::Body(error.to_string())),
            (kind::HEARTBEAT, VERSION) => heartbeat(frame.body)
                .map(Self::Heartbeat)
                .ok_or_else(|| PeerMessageError::Body("a heartbeat".to_owned())),
            (kind::ASK_QUORUM, VERSION) => number(frame.body).map(Self::AskQuorum),
            (kind::APPLIED, VERSION) => number(frame.body).map(Self::Applied),
            (kind::ASK_APPLIED, VERSION) => {
                let (asked, index) = frame.body.split_at(frame.body.len() / 2);
                Ok(Self::AskApplied { number: number(asked)?, index: number(index)? })
            }
            (kind::QUORUM, VERSION) => QuorumState::decode(frame.body)
                .map(|(number, state)| Self::Quorum(number, state))
                .ok_or_else(|| PeerMessageError::Body("how the group stands".to_owned())),
            (kind, version) => Err(PeerMessageError::Unknown { kind, version }),
        }
    }

    pub(super) fn is_snapshot(&self) -> bool {
        matches!(self, Self::Raft(message) if message.has_snapshot())
    }
}

fn number(body: &[u8]) -> Result<u64, PeerMessageError> {
    let bytes = body.try_into().map_err(|_| PeerMessageError::Body("a number".to_owned()))?;
    Ok(u64::from_le_bytes(bytes))
}

fn heartbeat(body: &[u8]) -> Option<BrokerHeartbeat> {
    let body: &[u8; HEARTBEAT_BYTES] = body.try_into().ok()?;
    let ready = match body[20] {
        0 => false,
        1 => true,
        _ => return None,
    };
    Some(BrokerHeartbeat {
        node_id: NodeId(i32::from_le_bytes(body[..4].try_into().ok()?)),
        broker_epoch: BrokerEpoch(i64::from_le_bytes(body[4..12].try_into().ok()?)),
        applied: u64::from_le_bytes(body[12..20].try_into().ok()?),
        ready,
    })
}

#[cfg(test)]
mod tests {
    use chronik_shards::format::metadata_frame::open;
    use raft::eraftpb::MessageType;

    use super::*;

    fn heartbeat() -> PeerMessage {
        let (node_id, broker_epoch) = (NodeId(2), BrokerEpoch(3));
        PeerMessage::Heartbeat(BrokerHeartbeat { node_id, broker_epoch, applied: 4, ready: true })
    }

    #[test]
    fn messages_read_back_as_written() {
        let mut raft = Message::default();
        raft.set_msg_type(MessageType::MsgHeartbeat);
        (raft.from, raft.to, raft.term) = (2, 3, 9);
        let (leader, members) = (NodeId(1), Vec::new());
        let state = QuorumState { leader, term: 2, committed: 3, members };
        let messages = [
            heartbeat(),
            PeerMessage::Raft(Box::new(raft)),
            PeerMessage::AskQuorum(7),
            PeerMessage::Quorum(7, state),
            PeerMessage::AskApplied { number: 7, index: 8 },
            PeerMessage::Applied(7),
        ];
        for message in messages {
            let bytes = message.encode();
            assert_eq!(PeerMessage::decode(&open(MAGIC, &bytes).unwrap()), Ok(message));
        }
    }

    #[test]
    fn bytes_of_messages_never_change() {
        let hex = |message: PeerMessage| -> String {
            message.encode().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        assert_eq!(
            hex(heartbeat()),
            "434843500500010015000000e7e10031020000000300000000000000040000000000000001"
        );
        assert_eq!(
            hex(PeerMessage::AskApplied { number: 2, index: 3 }),
            "434843500800010010000000bc16279502000000000000000300000000000000"
        );
        assert_eq!(
            hex(PeerMessage::Applied(2)),
            "4348435009000100080000008b0a4cb70200000000000000"
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let refused = |kind, version, body: &[u8]| {
            let bytes = seal(MAGIC, kind, version, body);
            PeerMessage::decode(&open(MAGIC, &bytes).unwrap()).unwrap_err()
        };
        for (kind, version) in [(kind::HELLO, 1), (kind::RAFT, 2), (11, 1)] {
            assert_eq!(refused(kind, version, b""), PeerMessageError::Unknown { kind, version });
        }
        for (kind, body) in [
            (kind::RAFT, &b"\xff\xff\xff"[..]),
            (kind::HEARTBEAT, b""),
            (kind::ASK_QUORUM, b"short"),
            (kind::ASK_APPLIED, b"seventeen bytes ."),
            (kind::APPLIED, b"short"),
            (kind::QUORUM, b"short"),
            (kind::HEARTBEAT, &[2; HEARTBEAT_BYTES]),
        ] {
            assert!(matches!(refused(kind, 1, body), PeerMessageError::Body(_)), "{body:?}");
        }
    }
}
