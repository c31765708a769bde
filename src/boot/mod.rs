//! What must hold before anything starts, and what ends it.
//!
//! Every check answers with one line that names the thing: an occupied port, a locked directory, a
//! directory of another node, a kernel without io_uring. A server that starts beside another one and
//! shares its port would look like success to clients and lose their records.

mod lock;
mod logging;
mod port;
mod signals;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use lock::DirectoryLock;
pub use logging::init_logging;
pub use port::check_port_free;
pub use signals::{StopSignal, stop_signals};

use chronik_tuning::limits::{LimitError, check_io_uring, raise_open_files};

use crate::config::NodeConfig;
use crate::control::{Founding, IdentityError, NodeIdentity};

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
    /// The kernel does not allow something.
    #[error(transparent)]
    Limit(#[from] LimitError),
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

/// Makes all checks, in an order that touches nothing of another server. What the host must have for the
/// node's plan was looked at when that was made.
///
/// # Errors
/// [`BootError`]: one line that names what is in the way.
pub fn claim(config: &NodeConfig) -> Result<Claim, BootError> {
    check_io_uring()?;
    raise_open_files()
        .map_err(|source| BootError::System { what: "raising the limit of open files", source })?;
    let lock = DirectoryLock::acquire(&config.data_dir)?;
    let founding = match &config.peers {
        None => Founding::Alone,
        Some(_) => Founding::WithPeers,
    };
    let identity = NodeIdentity::establish(&config.data_dir, config.node_id, founding)?;
    if !config.accept_data_loss {
        check_metadata_present(&config.data_dir)?;
    }
    check_port_free(config.bind)?;
    if let Some(metrics) = &config.metrics {
        check_port_free(metrics.bind)?;
    }
    if let Some(peers) = &config.peers {
        check_port_free(peers.control_bind)?;
        check_port_free(peers.replication_bind)?;
    }
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
