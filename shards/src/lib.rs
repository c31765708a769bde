//! The shard engine of Chronik.
//!
//! A *shard* is a thread pinned to a core and all it owns: its partitions, its write-ahead log, its
//! memory, its sockets. Imports go `model ← format ← machine ← store ← io`; all meet in `shard`.

pub mod format;
#[cfg(feature = "io")]
pub mod io;
pub mod machine;
#[cfg(feature = "io")]
pub mod mesh;
pub mod model;
#[cfg(feature = "io")]
pub mod shard;
pub mod store;
