//! Frames: a length of four bytes, a header, a message.
//!
//! A server's connection reads the length prefix, which it must bound before it reads on, and writes it;
//! requests are decoded and responses encoded without. A request is encoded with it, ready to be sent.

use bytes::Bytes;

use crate::api::{Request, Response};
use crate::encode::EncodeBuf;
use crate::error::{DecodeError, DecodeErrorKind, EncodeError};
use crate::message::Message;
use crate::messages::{AnyRequest, ApiKey, RequestHeader, ResponseHeader};
use crate::reader::Reader;

const LENGTH_PREFIX_BYTES: usize = 4;

/// Room for the small fields of most responses.
const INITIAL_BYTES: usize = 256;

/// A request whose header was read and whose body was not.
#[derive(Clone, Debug)]
pub struct RequestFrame {
    /// The API.
    pub api: ApiKey,
    /// The header; its version may be one that nobody supports.
    pub header: RequestHeader,
    /// The reader at the first byte of the body.
    pub body: Reader,
}

impl RequestFrame {
    /// Reads the header of a frame without its length prefix.
    ///
    /// Succeeds for a known API in any version, so that `ApiVersions` in a version from the future can be
    /// answered. An API that is not known is an error: its header's layout is not known either.
    pub fn parse(frame: Bytes) -> Result<Self, DecodeError> {
        let mut peek = Reader::new(frame.clone());
        let key = peek.i16()?;
        let version = peek.i16()?;
        let mut body = Reader::new(frame);
        let unknown = || body.error(DecodeErrorKind::UnknownApiKey(key));
        let api = ApiKey::from_i16(key).ok_or_else(unknown)?;
        let header = RequestHeader::decode(&mut body, api.request_header_version(version))?;
        Ok(Self { api, header, body })
    }

    /// Version of the body.
    pub fn version(&self) -> i16 {
        self.header.request_api_version
    }

    /// Decodes the body. `R` must be the request of this API.
    ///
    /// Bytes that follow the request are passed over, as Kafka does: librdkafka's Metadata request ends with
    /// fields that its version does not have.
    pub fn decode<R: Request>(mut self) -> Result<R, DecodeError> {
        assert!(R::API == self.api, "{} is no request of {}", R::NAME, self.api);
        R::decode(&mut self.body, self.header.request_api_version)
    }

    /// Decodes the body, which must end with the frame.
    pub fn decode_any(mut self) -> Result<AnyRequest, DecodeError> {
        let version = self.version();
        let request = AnyRequest::decode(&mut self.body, self.api, version)?;
        self.body.expect_end()?;
        Ok(request)
    }
}

/// A response without the length in front of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedResponse {
    /// To be sent in order.
    pub chunks: Vec<Bytes>,
    /// The error codes that it tells, each with how often. Empty where all went well.
    pub error_codes: Vec<(i16, u32)>,
}

/// A response without the length in front of it, as chunks to be sent in order.
pub fn encode_response<R: Response>(
    correlation_id: i32,
    version: i16,
    response: &R,
) -> Result<Vec<Bytes>, EncodeError> {
    encode_and_count(correlation_id, version, response).map(|encoded| encoded.chunks)
}

/// As [`encode_response`], along with the errors that the response tells.
pub fn encode_and_count<R: Response>(
    correlation_id: i32,
    version: i16,
    response: &R,
) -> Result<EncodedResponse, EncodeError> {
    let header = ResponseHeader { correlation_id, ..Default::default() };
    let mut w = EncodeBuf::with_capacity(INITIAL_BYTES);
    header.encode(&mut w, R::API.response_header_version(version))?;
    response.encode(&mut w, version)?;
    frame_length(w.len())?;
    let error_codes = w.take_error_codes();
    Ok(EncodedResponse { chunks: w.into_chunks(), error_codes })
}

/// A whole request frame, length prefix included, as chunks to be sent in order.
///
/// The header's API key and version are set from `R` and `version`.
pub fn encode_request<R: Request>(
    mut header: RequestHeader,
    version: i16,
    request: &R,
) -> Result<Vec<Bytes>, EncodeError> {
    header.request_api_key = R::API.key();
    header.request_api_version = version;
    let mut w = EncodeBuf::with_capacity(INITIAL_BYTES);
    w.i32(0);
    header.encode(&mut w, R::API.request_header_version(version))?;
    request.encode(&mut w, version)?;
    let length = frame_length(w.len() - LENGTH_PREFIX_BYTES)?;
    w.patch_i32(0, length);
    Ok(w.into_chunks())
}

fn frame_length(length: usize) -> Result<i32, EncodeError> {
    i32::try_from(length).map_err(|_| EncodeError::FrameTooLarge { length })
}
