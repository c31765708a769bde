//! One connection of a load: its socket, its requests under way, its counts.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Request;
use super::frame_reader::FrameReader;
use super::outbox::Outbox;

/// A request that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub(super) request: Request,
    pub(super) due_ns: u64,
    pub(super) correlation_id: i32,
    /// The stream's position behind its last byte.
    pub(super) end: u64,
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) outbox: Outbox,
    pub(super) reader: FrameReader,
    pub(super) pending: VecDeque<Pending>,
    /// Whether the socket may take more, as far as is known.
    pub(super) writable: bool,
    /// At a fixed rate: the load's number of its next request.
    pub(super) next_number: u64,
    next_correlation_id: i32,
    /// Its traffic has nothing more to send.
    pub(super) exhausted: bool,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, address: SocketAddr, index: usize) -> Self {
        Self {
            stream,
            address,
            outbox: Outbox::default(),
            reader: FrameReader::default(),
            pending: VecDeque::new(),
            writable: true,
            next_number: index as u64,
            next_correlation_id: 0,
            exhausted: false,
        }
    }

    pub(super) fn correlation_id(&mut self) -> i32 {
        let id = self.next_correlation_id;
        self.next_correlation_id = id.wrapping_add(1) & i32::MAX;
        id
    }
}

/// A connected socket that does not block.
pub(super) fn open(address: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}
