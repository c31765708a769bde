//! What must hold before anything starts, and what ends it.
//!
//! Every check answers with one line that names the thing: an occupied port, a locked directory, a
//! directory of another node, a kernel without io_uring. A server that starts beside another one and
//! shares its port would look like success to clients and lose their records.

mod limits;
mod lock;
mod logging;
mod port;
mod signals;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use limits::{check_io_uring, check_memlock, raise_open_files};
pub use lock::DirectoryLock;
pub use logging::init_logging;
pub use port::check_port_free;
pub use signals::{StopSignal, stop_signals};

use crate::config::NodeConfig;
use crate::control::{IdentityError, NodeIdentity};

/// Memory that io_uring must be allowed to lock, below which the runtime does not start.
pub const MEMLOCK_BYTES_MIN: u64 = 512 << 10;

/// Files that must be allowed to be open: a few a shard, one a connection, two a partition.
pub const OPEN_FILES_MIN: u64 = 1024;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Another server uses the directory.
    #[error("data directory {0} is in use by another server")]
    DirectoryInUse(PathBuf),
    /// The directory cannot be made or locked.
    #[error("data directory {path}: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The directory belongs to another node, cluster or release.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Records are there and the log that says what they are is not.
    #[error(
        "data directory {0} holds records and no metadata log: bring back its folder \"raft\", or give \
         the records up with --accept-data-loss"
    )]
    MetadataMissing(PathBuf),
    /// Another process listens there.
    #[error("address {0} is in use by another process")]
    AddressInUse(SocketAddr),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Address {
        /// Which.
        address: SocketAddr,
        /// The reason.
        source: io::Error,
    },
    /// The kernel does not offer io_uring to this process.
    #[error("io_uring is not available: {0}")]
    IoUring(String),
    /// A resource limit is too low.
    #[error("the limit of {resource} is {found}, at least {required} is needed: {remedy}")]
    Limit {
        /// In words.
        resource: &'static str,
        /// Now.
        found: u64,
        /// Least.
        required: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// The operating system refuses something that it refuses nobody.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// A directory and an address that belong to this process.
#[derive(Debug)]
pub struct Claim {
    /// Held as long as the process runs.
    pub lock: DirectoryLock,
    /// Whose directory it is.
    pub identity: NodeIdentity,
}

/// Makes all checks, in an order that touches nothing of another server.
///
/// # Errors
/// [`BootError`]: one line that names what is in the way.
pub fn claim(config: &NodeConfig) -> Result<Claim, BootError> {
    check_io_uring()?;
    check_memlock()?;
    raise_open_files()?;
    let lock = DirectoryLock::acquire(&config.data_dir)?;
    let identity = NodeIdentity::establish(&config.data_dir, config.node_id)?;
    if !config.accept_data_loss {
        check_metadata_present(&config.data_dir)?;
    }
    check_port_free(config.bind)?;
    Ok(Claim { lock, identity })
}

/// The control plane makes a new log where there is none; beside records of an old one that would
/// declare all of them unknown. It makes its own folder before anyone makes those of the records.
fn check_metadata_present(data_dir: &Path) -> Result<(), BootError> {
    let has = |part: &str| data_dir.join(part).exists();
    if (has("shards") || has("topics")) && !has("raft") {
        return Err(BootError::MetadataMissing(data_dir.to_owned()));
    }
    Ok(())
}
