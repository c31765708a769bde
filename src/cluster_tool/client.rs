//! A connection that asks and waits.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use chronik_protocol::messages::{RequestHeader, ResponseHeader};
use chronik_protocol::{Message, Reader, Request, encode_request};

use super::ToolError;

/// How long anything may take on the wire.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer that is believed.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// One connection to a server.
pub(super) struct Client {
    server: String,
    stream: TcpStream,
    next_correlation_id: i32,
}

impl Client {
    pub(super) fn connect(server: &str) -> Result<Self, ToolError> {
        let failed = |source| ToolError::Connection { server: server.to_owned(), source };
        let mut last = io::Error::new(ErrorKind::NotFound, "the address has no host");
        for address in server.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
                    stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
                    let server = server.to_owned();
                    return Ok(Self { server, stream, next_correlation_id: 1 });
                }
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    /// Asks, and waits for the answer.
    pub(super) fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> Result<R::Response, ToolError> {
        self.try_call(version, request)
            .map_err(|source| ToolError::Connection { server: self.server.clone(), source })
    }

    fn try_call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        let correlation_id = self.next_correlation_id;
        self.next_correlation_id += 1;
        let header = RequestHeader {
            correlation_id,
            client_id: Some("chronik-server cluster".into()),
            ..RequestHeader::default()
        };
        let chunks = encode_request(header, version, request).map_err(io::Error::other)?;
        for chunk in chunks {
            self.stream.write_all(&chunk)?;
        }
        let mut prefix = [0; 4];
        self.stream.read_exact(&mut prefix)?;
        let length = usize::try_from(i32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(invalid(format!("an answer of {length} bytes")));
        }
        let mut frame = Vec::new();
        let limit = u64::try_from(length).unwrap_or(u64::MAX);
        if (&mut self.stream).take(limit).read_to_end(&mut frame)? < length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let mut reader = Reader::new(frame.into());
        let decoded = ResponseHeader::decode(&mut reader, R::API.response_header_version(version));
        let header = decoded.map_err(|error| invalid(error.to_string()))?;
        if header.correlation_id != correlation_id {
            return Err(invalid("the answer to another request".to_owned()));
        }
        R::Response::decode(&mut reader, version).map_err(|error| invalid(error.to_string()))
    }
}

fn invalid(reason: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}
