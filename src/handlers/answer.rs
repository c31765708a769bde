//! From a typed response to what the connection sends.

use bytes::{Buf, Bytes};
use chronik_protocol::{EncodeError, Response, encode_response};

use crate::net;

/// A frame's length, as the codec writes it.
const LENGTH_PREFIX_BYTES: usize = 4;

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer {
    /// These chunks are the whole frame.
    Frame(Vec<Bytes>),
    /// Nothing that the protocol could say: the connection is closed, with this reason in the log.
    Close(String),
}

impl Answer {
    /// An encoded frame. That a response of ours cannot be encoded is our fault: the client is not left
    /// waiting for it.
    pub fn of(encoded: Result<Vec<Bytes>, EncodeError>) -> Self {
        match encoded {
            Ok(chunks) => Self::Frame(chunks),
            Err(error) => Self::Close(format!("a response could not be encoded: {error}")),
        }
    }

    /// As the connection layer takes it.
    pub fn into_result(self) -> Result<net::Response, String> {
        match self {
            Self::Frame(mut chunks) => {
                // The connection puts the length in front itself.
                chunks[0].advance(LENGTH_PREFIX_BYTES);
                Ok(net::Response::new(chunks))
            }
            Self::Close(reason) => Err(reason),
        }
    }
}

/// Encodes a response.
pub fn answer<R: Response>(correlation_id: i32, version: i16, response: &R) -> Answer {
    Answer::of(encode_response(correlation_id, version, response))
}
