//! What touches a runtime, a thread or a device: it performs effects and decides nothing.
//!
//! glommio and the threads beside it stay within this directory, `mesh` and `shard`, so that a
//! change of runtime touches nothing else. `unsafe` code lives here only.

pub mod inbox;
pub mod local;
pub mod log_reader;
pub mod lru;
pub mod peer_socket;
pub mod places;
pub mod process;
pub mod runtime;
pub mod socket;
pub mod store_thread;
pub mod turn;
pub mod wal_files;
pub mod wal_writer;
