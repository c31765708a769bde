//! A blocking client that can pipeline, and that can say things no client should.
//!
//! Answers are checked to come in request order, to fill their frame, and to decode.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use chronik_protocol::messages::{RequestHeader, ResponseHeader};
use chronik_protocol::{
    AnyRequest, AnyResponse, ApiKey, EncodeBuf, Message, Reader, Request, Response, encode_request,
};

use super::PATIENCE;

/// Largest response that is believed.
const FRAME_BYTES_MAX: usize = 256 << 20;

#[derive(Clone, Copy, Debug)]
struct Expected {
    correlation_id: i32,
    api: ApiKey,
    version: i16,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    next_correlation_id: i32,
    expected: VecDeque<Expected>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, next_correlation_id: 1, expected: VecDeque::new() })
    }

    pub fn set_read_timeout(&self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("a socket option");
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Requests that were sent and not answered yet.
    pub fn in_flight(&self) -> usize {
        self.expected.len()
    }

    /// Sends a request and receives its answer, which must be the next one.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_call(version, request)
            .unwrap_or_else(|error| panic!("{} version {version}: {error}", R::NAME))
    }

    pub fn try_call<R: Request>(&mut self, version: i16, request: &R) -> io::Result<R::Response> {
        self.try_send(version, request)?;
        self.try_receive()
    }

    /// Sends a request that will be answered.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.try_send(version, request)
            .unwrap_or_else(|error| panic!("{} version {version}: {error}", R::NAME));
    }

    pub fn try_send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        let correlation_id = self.write(version, request)?;
        self.expected.push_back(Expected { correlation_id, api: R::API, version });
        Ok(())
    }

    /// Sends a request that must not be answered.
    pub fn send_unanswered<R: Request>(&mut self, version: i16, request: &R) {
        self.write(version, request).expect("the connection takes a request");
    }

    fn write<R: Request>(&mut self, version: i16, request: &R) -> io::Result<i32> {
        let correlation_id = self.correlation_id();
        let header = header(correlation_id);
        let chunks = encode_request(header, version, request).expect("an encodable request");
        let whole: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.iter().copied()).collect();
        self.stream.write_all(&whole)?;
        Ok(correlation_id)
    }

    fn correlation_id(&mut self) -> i32 {
        let id = self.next_correlation_id;
        self.next_correlation_id += 1;
        id
    }

    /// The answer to the oldest request.
    pub fn receive<R: Response>(&mut self) -> R {
        self.try_receive().unwrap_or_else(|error| panic!("{}: {error}", R::NAME))
    }

    pub fn try_receive<R: Response>(&mut self) -> io::Result<R> {
        let (mut reader, expected) = self.try_receive_header()?;
        assert_eq!(R::API, expected.api, "the next answer is another API's");
        let response = R::decode(&mut reader, expected.version)
            .unwrap_or_else(|error| panic!("{} version {}: {error}", R::NAME, expected.version));
        reader.expect_end().unwrap_or_else(|error| panic!("{}: {error}", R::NAME));
        Ok(response)
    }

    fn try_receive_header(&mut self) -> io::Result<(Reader, Expected)> {
        let expected = *self.expected.front().expect("a request is waiting for its answer");
        let frame = self.try_read_frame()?.ok_or_else(|| {
            io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")
        })?;
        self.expected.pop_front();
        let mut reader = Reader::new(frame);
        let version = expected.api.response_header_version(expected.version);
        let header = ResponseHeader::decode(&mut reader, version).expect("a response header");
        assert_eq!(header.correlation_id, expected.correlation_id, "answers in request order");
        Ok((reader, expected))
    }

    /// Sends a request of any API with its fields as given; `None`: the server closed instead of
    /// answering.
    pub fn call_any(&mut self, version: i16, request: &AnyRequest) -> Option<AnyResponse> {
        let api = request.api();
        let mut body = EncodeBuf::new();
        request.encode(&mut body, version).expect("an encodable request");
        self.send_body(api, version, &body.into_bytes());
        match self.try_receive_header() {
            Ok((mut reader, _)) => {
                let response = AnyResponse::decode(&mut reader, api, version)
                    .unwrap_or_else(|error| panic!("{api} version {version}: {error}"));
                reader
                    .expect_end()
                    .unwrap_or_else(|error| panic!("{api} version {version}: {error}"));
                Some(response)
            }
            Err(error) if is_closed(&error) => None,
            Err(error) => panic!("{api} version {version}: {error}"),
        }
    }

    /// Sends a request whose header says `api` and `version`, whatever the body is.
    pub fn send_body(&mut self, api: ApiKey, version: i16, body: &[u8]) {
        let correlation_id = self.correlation_id();
        let frame = frame(api, version, correlation_id, body);
        self.stream.write_all(&frame).expect("the connection takes a request");
        self.expected.push_back(Expected { correlation_id, api, version });
    }

    /// Sends bytes as they are. What the peer thinks of them, reading will tell.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        // The server may have closed before it read all of it.
        let _ = self.stream.write_all(bytes);
    }

    /// The next frame without its length, or `None` at the end of the stream.
    pub fn try_read_frame(&mut self) -> io::Result<Option<Bytes>> {
        let mut prefix = [0; 4];
        match self.stream.read(&mut prefix)? {
            0 => return Ok(None),
            read => self.stream.read_exact(&mut prefix[read..])?,
        }
        let length = usize::try_from(i32::from_be_bytes(prefix)).expect("a length from 0");
        assert!(length <= FRAME_BYTES_MAX, "a response of {length} bytes");
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame)?;
        Ok(Some(frame.into()))
    }

    /// Waits for the server to close this connection; it must not say anything before.
    pub fn expect_close(&mut self, why: &str) {
        match self.try_read_frame() {
            Ok(None) => {}
            Err(error) if is_closed(&error) => {}
            Ok(Some(frame)) => panic!("{why}: answered with {} bytes", frame.len()),
            Err(error) => panic!("{why}: the connection stays open ({error})"),
        }
    }
}

/// A request frame with its length.
pub fn frame(api: ApiKey, version: i16, correlation_id: i32, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader {
        request_api_key: api.key(),
        request_api_version: version,
        ..header(correlation_id)
    };
    let header = header.to_bytes(api.request_header_version(version)).expect("a header");
    let mut frame = ((header.len() + body.len()) as i32).to_be_bytes().to_vec();
    frame.extend(&header);
    frame.extend(body);
    frame
}

fn header(correlation_id: i32) -> RequestHeader {
    RequestHeader {
        correlation_id,
        client_id: Some("chronik-tests".into()),
        ..RequestHeader::default()
    }
}

/// Whether the other side ended the connection, as opposed to being silent.
pub fn is_closed(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}
