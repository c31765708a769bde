//! The connection layer: sockets in, frames to the dispatcher, responses out in request order.
//!
//! One shard accepts ([`listener`]) and hands each socket to the shard with the fewest connections;
//! from then on the connection is touched by that shard's thread only. A connection is **one task**
//! that polls a reader and then a writer (`connection`): whatever one read brought is dispatched
//! first, and all responses that are ready leave in one `sendmsg`.
//!
//! Invariants
//! - Responses leave in request order. A barrier request (anything but Produce and Fetch) is
//!   dispatched when everything before it is answered, and nothing passes it.
//! - The bytes of a request are reserved from the shard's budget before its body is kept; what waits
//!   for that is not read. A reservation is a guard and ends on every path.
//! - An idle connection owns no read buffer and no timer. While a shard has connections, one
//!   housekeeping timer wakes it every `housekeeping_interval` (10 s by default); without, none does.
//! - While many requests come that can wait, heartbeats, connections that send nothing else are read together every
//!   few milliseconds (`rounds`).
//! - Nothing a peer sends can end anything but its own connection.
//!
//! System calls: reads go through glommio's stream, which tries `recv(MSG_DONTWAIT)` first and arms a
//! poll in the ring already submitted at the next park; a `recv` of our own would need that same poll
//! and so save nothing. Reads are readiness-based, so the 64 KiB read buffer is lent by a pool of the
//! shard for the duration of one read. Frames are copied out of it into exactly sized buffers: one
//! copy in cache, and in exchange a cached record batch never keeps a stranger's 64 KiB alive.
//!
//! Absent on purpose: TLS, SASL, quotas, and any knowledge of the Kafka protocol beyond the 4-byte
//! length in front of a frame.

pub mod budget;
mod close;
mod config;
mod connection;
mod connections;
mod dispatch;
mod framing;
pub mod listener;
mod log_limit;
mod read_buffer;
mod response_queue;
mod rounds;
mod socket;
mod sweep;
mod write;

#[cfg(test)]
mod tests;

pub use close::CloseReason;
pub use config::NetConfig;
pub use connections::{NetStats, ShardConnections};
pub use dispatch::{
    ClientSoftware, ConnectionContext, ConnectionId, Dispatched, Dispatcher, PendingResponse,
    Response,
};
pub use socket::{AcceptedSocket, SocketOptions};
