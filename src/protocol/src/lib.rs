//! Kafka's wire protocol: bytes to typed messages and back.
//!
//! The codecs of all requests and responses of Kafka 4.4 are generated from the tables in `schema/` when the
//! crate is built. This crate decides what is well-formed, and nothing else: no sockets, no limits on frames,
//! no opinion on which versions a broker offers.
//!
//! Invariants:
//!
//! * No byte string makes a decoder panic, or allocate more than a constant factor of its length (see
//!   `reader`).
//! * What decodes also encodes, in the same version, to bytes that decode to an equal message.
//! * Byte strings are never copied: decoded ones share the frame, long ones are shared by the encoding.
//!
//! Deliberately absent: the format inside `records` fields, compression, and the records that brokers
//! write into their own internal topics.

mod api;
mod encode;
mod error;
mod error_code;
mod frame;
mod message;
pub mod messages;
mod reader;
mod records;
mod rt;
mod string;
mod uuid;

pub use api::{Request, Response};
pub use encode::{EncodeBuf, SHARE_BYTES_MIN, TagMark, TagWriter};
pub use error::{DecodeError, DecodeErrorKind, EncodeError};
pub use error_code::ErrorCode;
pub use frame::{EncodedResponse, RequestFrame, encode_and_count, encode_request, encode_response};
pub use message::{Message, VersionRange, Wire};
pub use messages::{AnyRequest, AnyResponse, ApiKey};
pub use reader::{Reader, TaggedFields};
pub use records::Records;
pub use string::KafkaString;
pub use uuid::Uuid;
