//! A Chronik node of the benchmark's own, in a process of its own.
//!
//! It has a new data directory within the one that was chosen, and removes it at its end.

use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use chronik::boot::init_logging;
use chronik::cli::CommandLine;
use chronik::config::NodeConfig;
use chronik::node::Node;
use chronik_tuning::host::Host;
use clap::Parser;

use crate::child::{ChildError, ServerChild, free_port, serve_until_unwanted};

/// The hidden subcommand.
pub const SUBCOMMAND: &str = "embedded-node";

/// Why there is no node.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// A directory cannot be made.
    #[error("data directory {path}: {error}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The process.
    #[error(transparent)]
    Child(#[from] ChildError),
}

/// A node that runs. Dropping it stops it.
#[derive(Debug)]
pub struct EmbeddedNode {
    address: SocketAddr,
    // The process ends before what it left is removed: fields are dropped in their order.
    process: ServerChild,
    data: DataDir,
}

/// A directory that is removed in the end, if the node has not done that itself.
#[derive(Debug)]
struct DataDir(PathBuf);

impl Drop for DataDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

impl EmbeddedNode {
    /// Starts a node with its data in a new directory under `parent`, and with further flags of `chronik-server`.
    ///
    /// `program` is this program's executable.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn start(program: &Path, parent: &Path, flags: &[String]) -> Result<Self, EmbeddedError> {
        let port = free_port()?;
        let path = parent.join(format!("chronik-bench-{}-{port}", std::process::id()));
        let failed = |error| EmbeddedError::Directory { path: path.clone(), error };
        fs::create_dir_all(parent).map_err(failed)?;
        fs::create_dir(&path).map_err(failed)?;
        let data = DataDir(path);
        let port_text = port.to_string();
        let own = [
            OsStr::new("--data-dir"),
            data.0.as_os_str(),
            "--kafka-port".as_ref(),
            port_text.as_ref(),
        ];
        let arguments = own.into_iter().chain(flags.iter().map(OsStr::new));
        let process = ServerChild::start(program, SUBCOMMAND, arguments)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Ok(Self { address, process, data })
    }

    /// Where it serves Kafka clients.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Everything it stores.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data.0
    }
}

/// What the process of the node does. `arguments` are those behind the subcommand.
pub fn serve(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let name = OsString::from("chronik-server");
    let mut command = CommandLine::parse_from(std::iter::once(name).chain(arguments));
    let data_dir = command.data_dir.clone();
    // What it says beside the figures should be worth reading.
    command.log_level.get_or_insert_with(|| "warn".to_owned());
    let served = serve_node(command);
    if let Some(data_dir) = data_dir {
        drop(fs::remove_dir_all(data_dir));
    }
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("embedded node: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_node(command: CommandLine) -> Result<(), Box<dyn std::error::Error>> {
    let config = NodeConfig::resolve(command, &Host::read()?)?;
    init_logging(config.log_level);
    let node = Node::start(&config)?;
    serve_until_unwanted()?;
    node.stop();
    Ok(())
}
