//! Chronik nodes of the benchmark's own, each in a process of its own: one that is alone, or a cluster.
//!
//! Each has a new data directory within the one that was chosen, and removes it at its end.

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

use crate::child::{ChildError, ServerChild, free_port, free_ports, serve_until_unwanted};

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
        Self::start_at(free_port()?, program, parent, &[], flags)
    }

    /// As [`EmbeddedNode::start`], on a port of the caller's choice and with what the caller wants beside.
    fn start_at(
        port: u16,
        program: &Path,
        parent: &Path,
        more: &[String],
        flags: &[String],
    ) -> Result<Self, EmbeddedError> {
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
        let arguments = own.into_iter().chain(more.iter().chain(flags).map(OsStr::new));
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

/// Nodes that form a cluster. Dropping it stops them.
#[derive(Debug)]
pub struct EmbeddedCluster {
    nodes: Vec<EmbeddedNode>,
}

impl EmbeddedCluster {
    /// Starts `count` nodes, each as [`EmbeddedNode::start`] does. Topics have a replica on each of up to three nodes
    /// unless their creator says otherwise, and need all but one of them in sync. The nodes share out the CPUs, unless
    /// `flags` say how many shards a node has.
    ///
    /// # Errors
    /// [`EmbeddedError`].
    pub fn start(
        count: usize,
        program: &Path,
        parent: &Path,
        flags: &[String],
    ) -> Result<Self, EmbeddedError> {
        // Taken all at once, so that none is given twice.
        let ports = free_ports(3 * count)?;
        let (kafka, rest) = ports.split_at(count);
        let (raft, wal) = rest.split_at(count);
        let replicas = count.min(3);
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let share = share_of_cpus(cpus, count, flags);
        let started: Vec<Result<EmbeddedNode, EmbeddedError>> = std::thread::scope(|scope| {
            let starting: Vec<_> = (0..count)
                .map(|place| {
                    let others = (0..count).filter(|other| *other != place);
                    let peer = |other| format!("{}@127.0.0.1:{}", other + 1, raft[other]);
                    let peers: Vec<String> = others.map(peer).collect();
                    let mut more = share.clone();
                    more.extend([
                        format!("--node-id={}", place + 1),
                        "raft-cluster".to_owned(),
                        "--bootstrap".to_owned(),
                        format!("--raft-addr=127.0.0.1:{}", raft[place]),
                        format!("--wal-addr=127.0.0.1:{}", wal[place]),
                        format!("--peers={}", peers.join(",")),
                        format!("--replication-factor={replicas}"),
                        format!("--min-insync-replicas={}", replicas.max(2) - 1),
                    ]);
                    let port = kafka[place];
                    // None of them serves before most of them are there.
                    scope.spawn(move || EmbeddedNode::start_at(port, program, parent, &more, flags))
                })
                .collect();
            let joined = starting.into_iter().map(|thread| thread.join());
            joined.map(|node| node.expect("starting a node does not panic")).collect()
        });
        Ok(Self { nodes: started.into_iter().collect::<Result<_, _>>()? })
    }

    /// Its nodes.
    #[must_use]
    pub fn nodes(&self) -> &[EmbeddedNode] {
        &self.nodes
    }
}

/// Flags that decide how many threads a node has, and where.
const OWN_SHARES: [&str; 4] = ["--shards", "--no-pin", "--profile", "--config"];

/// The flags by which each of `count` nodes has its part of the machine's CPUs, one at least: each of them for itself
/// would take all, and three threads with work would wait for each CPU.
fn share_of_cpus(cpus: usize, count: usize, flags: &[String]) -> Vec<String> {
    let decides = |flag: &String| OWN_SHARES.iter().any(|own| flag.starts_with(own));
    if flags.iter().any(decides) {
        return Vec::new();
    }
    // The kernel spreads them: nodes do not know of each other's CPUs.
    vec![format!("--shards={}", (cpus / count).max(1)), "--no-pin".to_owned()]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_share_out_the_cpus_unless_they_are_told_otherwise() {
        let shards = |cpus, flags: &[&str]| {
            let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
            share_of_cpus(cpus, 3, &flags)
        };
        assert_eq!(shards(2, &[]), ["--shards=1", "--no-pin"]);
        assert_eq!(shards(12, &["--log-level=warn"]), ["--shards=4", "--no-pin"]);
        for own in ["--shards=2", "--no-pin", "--profile=latency", "--config=node.toml"] {
            assert!(shards(12, &[own]).is_empty(), "{own}");
        }
    }
}
