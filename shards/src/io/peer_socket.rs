//! A connection between shards of two nodes: frames in, frames out.
//!
//! What is received goes into buffers of a frame's own size, which its batches keep referring to; what
//! is sent is not copied. Memory for a frame grows with what has arrived of it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use super::socket::{poll_uninterrupted, receive_now, send_now, shut_down};
use crate::format::peer_frame::{FrameError, FrameHeader, HEADER_BYTES, PeerFrame, decode};

/// What is read at once while no large frame is on its way.
const READ_BYTES: usize = 64 << 10;
/// With so much of a frame missing, its bytes are not worth a copy.
const STRAIGHT_BYTES_MIN: usize = 16 << 10;
/// Memory that a frame's length alone warrants; more comes with its bytes.
const FRAME_BYTES_AT_ONCE: usize = 2 << 20;
/// Bytes after which what was gathered leaves before more is added.
pub const SEND_BYTES: usize = 1 << 20;

/// Why a connection between shards ended.
#[derive(Debug, thiserror::Error)]
pub enum PeerSocketError {
    /// The system, or the peer's.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A connected socket of the executor it was made on. One task reads, one writes.
#[derive(Debug)]
pub struct PeerSocket {
    stream: RefCell<TcpStream>,
    fd: RawFd,
}

impl PeerSocket {
    /// Connects to the first of the addresses that takes it, each within `patience`. A name is looked up on a thread
    /// beside the shard.
    ///
    /// # Errors
    /// The last address's, or the look-up's.
    pub async fn connect(host: &str, port: u16, patience: Duration) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses(host, port).await? {
            match TcpStream::connect_timeout(address, patience).await {
                Ok(stream) => return Self::new(stream),
                Err(error) => last = io::Error::from(error),
            }
        }
        Err(last)
    }

    /// A socket that was accepted on another thread.
    ///
    /// # Errors
    /// The system's.
    pub fn adopt(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned here and handed over.
        Self::new(unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) })
    }

    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let fd = stream.as_raw_fd();
        Ok(Self { stream: RefCell::new(stream), fd })
    }

    /// Another descriptor of the same connection, to go on with on another thread.
    ///
    /// # Errors
    /// The system's.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        // SAFETY: the descriptor is open for as long as the stream lives.
        unsafe { BorrowedFd::borrow_raw(self.fd) }.try_clone_to_owned()
    }

    /// Ends the connection: the peer learns it, and whoever reads or writes here.
    pub fn shut_down(&self) {
        shut_down(self.fd);
    }

    fn poll_read(&self, context: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        poll_uninterrupted(|| Pin::new(&mut *stream).poll_read(context, space))
    }

    fn poll_write(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        poll_uninterrupted(|| Pin::new(&mut *stream).poll_write(context, bytes))
    }
}

async fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let host = host.to_owned();
    let looked_up = glommio::executor().spawn_blocking(move || {
        (host.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>) //
    });
    looked_up.await
}

/// The receiving half of a connection.
#[derive(Debug)]
pub struct FrameReader<'a> {
    socket: &'a PeerSocket,
    buffer: Box<[u8]>,
    /// What of the buffer is not processed.
    start: usize,
    end: usize,
}

impl<'a> FrameReader<'a> {
    /// Nothing was read yet.
    #[must_use]
    pub fn new(socket: &'a PeerSocket) -> Self {
        Self { socket, buffer: vec![0; READ_BYTES].into(), start: 0, end: 0 }
    }

    /// The next frame, of at most `frame_bytes_max`; `None` at the end of the stream.
    ///
    /// # Errors
    /// A stream that ends within a frame, or that has something else.
    pub async fn next(
        &mut self,
        frame_bytes_max: usize,
    ) -> Result<Option<PeerFrame>, PeerSocketError> {
        while self.end - self.start < HEADER_BYTES {
            if !self.fill().await? {
                if self.start == self.end {
                    return Ok(None);
                }
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
        let (head, _) = self.buffer[self.start..self.end].split_first_chunk().expect("it is there");
        let header = FrameHeader::parse(head, frame_bytes_max)?;
        self.start += HEADER_BYTES;
        let payload = self.payload(header.payload_bytes).await?;
        Ok(Some(decode(&header, payload)?))
    }

    /// Whether more has arrived than the frames that were taken.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.start < self.end
    }

    async fn payload(&mut self, bytes: usize) -> io::Result<Bytes> {
        let mut payload = BytesMut::with_capacity(bytes.min(FRAME_BYTES_AT_ONCE));
        loop {
            let missing = bytes - payload.len();
            let there = missing.min(self.end - self.start);
            payload.extend_from_slice(&self.buffer[self.start..self.start + there]);
            self.start += there;
            let missing = missing - there;
            if missing == 0 {
                return Ok(payload.freeze());
            }
            if missing >= STRAIGHT_BYTES_MIN && self.receive_straight(&mut payload, missing)? {
                continue;
            }
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes what the kernel has of a large frame straight to its place, without waiting. `false`: there is nothing
    /// now, or never will be; a read has to tell.
    fn receive_straight(&mut self, payload: &mut BytesMut, missing: usize) -> io::Result<bool> {
        assert_eq!(self.start, self.end, "what was read is processed before more is read");
        if payload.capacity() == payload.len() {
            payload.reserve(missing.min(payload.len()));
        }
        let space = payload.spare_capacity_mut();
        let room = space.len().min(missing);
        let received = receive_now(self.socket.fd, &mut space[..room], &mut [])?;
        if let Some(bytes) = received {
            // SAFETY: the call has put that many bytes there.
            unsafe { payload.set_len(payload.len() + bytes) };
        }
        Ok(received.is_some())
    }

    /// Reads once; `false` at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        let space = &mut self.buffer[self.end..];
        let bytes = poll_fn(|context| self.socket.poll_read(context, space)).await?;
        self.end += bytes;
        Ok(bytes > 0)
    }
}

/// The sending half of a connection: what has not left yet.
#[derive(Debug, Default)]
pub struct FrameWriter {
    pieces: VecDeque<Bytes>,
    bytes: usize,
}

impl FrameWriter {
    /// Adds a frame.
    pub fn push(&mut self, frame: &PeerFrame) {
        for piece in frame.encode() {
            self.bytes += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// Whether what is there should leave first.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= SEND_BYTES
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Sends everything.
    ///
    /// # Errors
    /// The end of the connection.
    pub async fn send(&mut self, socket: &PeerSocket) -> io::Result<()> {
        while let Some(first) = self.pieces.front() {
            let sent = match send_now(socket.fd, self.pieces.iter().map(|piece| &piece[..])) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll_fn(|context| socket.poll_write(context, first)).await
                }
                sent => sent,
            }?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(sent);
        }
        Ok(())
    }

    fn advance(&mut self, mut sent: usize) {
        self.bytes -= sent;
        while let Some(first) = self.pieces.front_mut() {
            if sent < first.len() {
                let _ = first.split_to(sent);
                return;
            }
            sent -= first.len();
            self.pieces.pop_front();
        }
        assert_eq!(sent, 0, "more was sent than was there");
    }
}
