//! From a typed response to what the connection sends.

use bytes::Bytes;
use chronik_protocol::{EncodeError, Response, encode_and_count};

use super::request_counts::RequestCounts;
use crate::net;

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer {
    /// These chunks, behind the length that the connection puts in front.
    Frame(Vec<Bytes>),
    /// Nothing that the protocol could say: the connection is closed, with this reason in the log.
    Close(String),
}

impl Answer {
    /// An encoded response. That a response of ours cannot be encoded is our fault: the client is not left
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
            Self::Frame(chunks) => Ok(net::Response::new(chunks)),
            Self::Close(reason) => Err(reason),
        }
    }
}

/// Encodes a response, and counts the errors that it tells.
pub fn answer<R: Response>(
    counts: &RequestCounts,
    correlation_id: i32,
    version: i16,
    response: &R,
) -> Answer {
    Answer::of(encode_and_count(correlation_id, version, response).map(|encoded| {
        counts.failed(R::API, &encoded.error_codes);
        encoded.chunks
    }))
}
