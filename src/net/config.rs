//! The numbers of the connection layer, each a bound.

use std::time::Duration;

use super::socket::SocketOptions;

/// A request above this takes its memory from the half for large ones.
pub const LARGE_REQUEST_BYTES: usize = 1 << 20;

/// Bounds of one shard's connections. Every shard has a copy.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// `socket.request.max.bytes`: largest request, without its length prefix.
    pub frame_bytes_max: usize,
    /// Requests of one connection that are dispatched and not yet answered. When reached, the
    /// connection is not dispatched from until one is answered.
    pub pipelined_requests_max: usize,
    /// Bytes of requests the shard holds at once, half of them for requests above
    /// `LARGE_REQUEST_BYTES`: announced and not sent, those keep no small one waiting. A frame larger
    /// than its half is admitted when it is alone there.
    pub request_budget_bytes: usize,
    /// Bytes of responses that wait to be written, as far as handlers reserve them.
    pub response_budget_bytes: usize,
    /// `connections.max.idle.ms`: a connection with nothing under way is closed after this.
    pub idle_max: Duration,
    /// A peer that takes no byte of a waiting response for this long is closed.
    pub write_stall_max: Duration,
    /// A peer that sends no byte of a begun request for this long is closed.
    pub read_stall_max: Duration,
    /// How long requests of a half-closed connection may still take.
    pub drain_max: Duration,
    /// Period of the shard's one timer that looks for idle and stalled connections: also the error
    /// of the four durations above.
    pub housekeeping_interval: Duration,
    /// Options set on every accepted socket.
    pub socket: SocketOptions,
}

impl Default for NetConfig {
    fn default() -> Self {
        Self {
            frame_bytes_max: 104_857_600,
            pipelined_requests_max: 128,
            request_budget_bytes: 64 << 20,
            response_budget_bytes: 64 << 20,
            idle_max: Duration::from_millis(600_000),
            write_stall_max: Duration::from_secs(60),
            read_stall_max: Duration::from_secs(30),
            drain_max: Duration::from_secs(60),
            housekeeping_interval: Duration::from_secs(10),
            socket: SocketOptions::default(),
        }
    }
}
