//! Asking a server one thing at a time: versions, topics, offsets.
//!
//! Blocking, with a time-out, and in whatever version both sides have. The measured traffic does not go this
//! way; it uses the versions found here.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::Bytes;
use chronik_protocol::messages::{ApiVersionsRequest, RequestHeader, ResponseHeader};
use chronik_protocol::{
    ApiKey, DecodeError, EncodeError, ErrorCode, Message, Reader, Request, VersionRange,
    encode_request,
};

/// The client's name in requests.
pub const CLIENT_ID: &str = "chronik-bench";

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Largest answer that is believed.
const FRAME_BYTES_MAX: usize = 512 << 20;

/// Why a server could not be asked, or what it said instead.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Not an address.
    #[error("{0} is not the address of a server: host:port is due")]
    Address(String),
    /// No connection, or it broke.
    #[error("{address}: {error}")]
    Io {
        /// Where to.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// No version that both sides know.
    #[error("{address} serves {api} in versions {theirs:?}, chronik-bench speaks {ours}")]
    Version {
        /// Where to.
        address: SocketAddr,
        /// What was to be asked.
        api: ApiKey,
        /// What the server offers.
        theirs: Option<(i16, i16)>,
        /// What is known here.
        ours: VersionRange,
    },
    /// The answer cannot be read.
    #[error("{address}: an answer to {api} that cannot be read: {error}")]
    Decode {
        /// Where from.
        address: SocketAddr,
        /// What was asked.
        api: ApiKey,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// The request has no form in that version.
    #[error("{api}: {error}")]
    Encode {
        /// What was to be asked.
        api: ApiKey,
        /// Why it cannot be.
        error: EncodeError,
    },
    /// An answer to another question.
    #[error("{address}: an answer to {api} with the wrong correlation id")]
    Correlation {
        /// Where from.
        address: SocketAddr,
        /// What was asked.
        api: ApiKey,
    },
    /// The server says no.
    #[error("{address}: {what}: {code}{}", message.as_deref().map(|text| format!(" ({text})")).unwrap_or_default())]
    Refused {
        /// Where from.
        address: SocketAddr,
        /// What was asked.
        what: String,
        /// Kafka's name of the error.
        code: String,
        /// The server's own words.
        message: Option<String>,
    },
    /// It did not happen in time.
    #[error("{address}: {what} took longer than {patience:?}")]
    Patience {
        /// Whom.
        address: SocketAddr,
        /// What was waited for.
        what: String,
        /// How long.
        patience: Duration,
    },
}

/// Kafka's name of an error code.
#[must_use]
pub fn code_name(code: i16) -> String {
    ErrorCode::from_i16(code).map_or_else(|| format!("error {code}"), |code| code.name().to_owned())
}

/// Resolves `host:port`.
///
/// # Errors
/// [`WireError::Address`].
pub fn resolve(text: &str) -> Result<SocketAddr, WireError> {
    let mut found = text.to_socket_addrs().map_err(|_| WireError::Address(text.to_owned()))?;
    found.next().ok_or_else(|| WireError::Address(text.to_owned()))
}

/// One connection for questions.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    address: SocketAddr,
    versions: BTreeMap<i16, (i16, i16)>,
    next_correlation_id: i32,
}

impl Wire {
    /// Connects and asks what the server speaks.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn connect(address: SocketAddr) -> Result<Self, WireError> {
        let io = |error| WireError::Io { address, error };
        let stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(io)?;
        stream.set_nodelay(true).map_err(io)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(io)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(io)?;
        let mut wire = Self { stream, address, versions: BTreeMap::new(), next_correlation_id: 0 };
        // Version 0 is understood by every broker, and has all that is needed.
        let answer = wire.call_version(0, &ApiVersionsRequest::default())?;
        wire.check("ApiVersions", answer.error_code, None)?;
        wire.versions = answer
            .api_keys
            .iter()
            .map(|api| (api.api_key, (api.min_version, api.max_version)))
            .collect();
        Ok(wire)
    }

    /// Where it goes to.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The highest version of an API that both sides have, and that is at most `cap`.
    ///
    /// # Errors
    /// [`WireError::Version`].
    pub fn version<R: Request>(&self, cap: i16) -> Result<i16, WireError> {
        let ours = R::VALID_VERSIONS;
        let theirs = self.versions.get(&R::API.key()).copied();
        let common = theirs.map(|(min, max)| (min.max(ours.min), max.min(ours.max).min(cap)));
        match common {
            Some((min, max)) if min <= max => Ok(max),
            _ => Err(WireError::Version { address: self.address, api: R::API, theirs, ours }),
        }
    }

    /// Asks in the highest common version.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, WireError> {
        self.call_version(self.version::<R>(i16::MAX)?, request)
    }

    /// Asks in a version.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn call_version<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, WireError> {
        let address = self.address;
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id = correlation_id.wrapping_add(1) & i32::MAX;
        let header = request_header(correlation_id);
        let chunks = encode_request(header, version, request)
            .map_err(|error| WireError::Encode { api: R::API, error })?;
        let frame = self.exchange(&chunks).map_err(|error| WireError::Io { address, error })?;
        let decode = |error| WireError::Decode { address, api: R::API, error };
        let mut reader = Reader::new(frame);
        let header = ResponseHeader::decode(&mut reader, R::API.response_header_version(version))
            .map_err(decode)?;
        if header.correlation_id != correlation_id {
            return Err(WireError::Correlation { address, api: R::API });
        }
        R::Response::decode(&mut reader, version).map_err(decode)
    }

    fn exchange(&mut self, chunks: &[Bytes]) -> io::Result<Bytes> {
        for chunk in chunks {
            self.stream.write_all(chunk)?;
        }
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix)?;
        let length = i32::from_be_bytes(prefix);
        let length = usize::try_from(length).ok().filter(|length| *length <= FRAME_BYTES_MAX);
        let length = length.ok_or_else(|| {
            let what = format!("an answer of {} bytes", i32::from_be_bytes(prefix));
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        Ok(frame.into())
    }

    /// Turns an error code into an error.
    ///
    /// # Errors
    /// [`WireError::Refused`] unless the code is 0.
    pub fn check(&self, what: &str, code: i16, message: Option<&str>) -> Result<(), WireError> {
        if code == 0 {
            return Ok(());
        }
        Err(WireError::Refused {
            address: self.address,
            what: what.to_owned(),
            code: code_name(code),
            message: message.map(str::to_owned),
        })
    }
}

/// The header of this client's requests.
#[must_use]
pub fn request_header(correlation_id: i32) -> RequestHeader {
    RequestHeader { correlation_id, client_id: Some(CLIENT_ID.into()), ..RequestHeader::default() }
}
