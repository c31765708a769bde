//! A socket on its way from the accepting shard to its own, and its options.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::time::Duration;

use glommio::net::TcpStream;

use super::dispatch::ConnectionId;
use super::listener::ConnectionSlot;

/// Options of a client's socket. TCP_NODELAY is always set: responses are gathered already.
#[derive(Clone, Debug)]
pub struct SocketOptions {
    /// Silence after which the kernel asks whether the peer is alive; `None` never asks.
    pub keepalive_idle: Option<Duration>,
    /// `socket.send.buffer.bytes`; `None` leaves it to the kernel.
    pub send_buffer_bytes: Option<usize>,
    /// `socket.receive.buffer.bytes`; `None` leaves it to the kernel.
    pub receive_buffer_bytes: Option<usize>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            keepalive_idle: Some(Duration::from_secs(120)),
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        }
    }
}

impl SocketOptions {
    /// Sets them on a socket.
    ///
    /// # Errors
    /// What `setsockopt` says; the socket is still usable.
    pub fn apply(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let fd = socket.as_raw_fd();
        set_option(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
        if let Some(idle) = self.keepalive_idle {
            let seconds = libc::c_int::try_from(idle.as_secs()).unwrap_or(libc::c_int::MAX);
            set_option(fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
            set_option(fd, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, seconds.max(1))?;
        }
        let buffers = [
            (libc::SO_SNDBUF, self.send_buffer_bytes),
            (libc::SO_RCVBUF, self.receive_buffer_bytes),
        ];
        for (option, bytes) in buffers {
            if let Some(bytes) = bytes {
                let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
                set_option(fd, libc::SOL_SOCKET, option, bytes)?;
            }
        }
        Ok(())
    }
}

fn set_option(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` lives through the call and `size` is its size.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the peer has reset the connection, asked without waiting. A mere end of its stream does
/// not count: it may still read.
pub(super) fn peer_is_gone(fd: RawFd) -> bool {
    let mut poll = libc::pollfd { fd, events: 0, revents: 0 };
    // SAFETY: one valid entry, no waiting.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready > 0 && poll.revents & (libc::POLLERR | libc::POLLHUP) != 0
}

/// An accepted socket. May move between shards; dropped anywhere, it closes and gives its slot back.
#[derive(Debug)]
pub struct AcceptedSocket {
    /// Identity the connection will have.
    pub id: ConnectionId,
    /// The client's address.
    pub peer: SocketAddr,
    pub(super) fd: OwnedFd,
    pub(super) slot: ConnectionSlot,
}

impl AcceptedSocket {
    /// The descriptor, and what counts it.
    pub fn into_parts(self) -> (OwnedFd, ConnectionSlot) {
        (self.fd, self.slot)
    }

    /// Makes it a stream of the executor this runs on.
    pub(super) fn into_stream(self) -> (TcpStream, ConnectionSlot) {
        // SAFETY: the descriptor is owned here and handed over.
        let stream = unsafe { TcpStream::from_raw_fd(self.fd.into_raw_fd()) };
        (stream, self.slot)
    }
}
