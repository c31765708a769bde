//! The servers of a run: named ones, and nodes of our own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use chronik_protocol::messages::MetadataRequest;

use crate::cli::TargetOptions;
use crate::embedded::{EmbeddedCluster, EmbeddedNode};
use crate::error::BenchError;
use crate::host;
use crate::process::{self, Usage};
use crate::report::TargetFacts;
use crate::sink::SinkProcess;
use crate::wire::{Wire, resolve};

/// Name of the node of our own.
pub const EMBEDDED: &str = "chronik";
/// Name of the cluster of our own.
const CLUSTER: &str = "cluster";
/// Name of the server that keeps nothing.
const SINK: &str = "null-sink";
/// Name of a broker that was given without one.
const UNNAMED: &str = "broker";

/// A server that is measured.
#[derive(Debug)]
pub struct Target {
    /// In the table.
    pub name: String,
    /// Where it is asked.
    pub address: SocketAddr,
    /// Its processes, those that are of this machine and may be seen.
    pub pids: Vec<u32>,
    data_dir: Option<PathBuf>,
    // Runs as long as the target is there.
    own: Option<Own>,
}

/// A server of our own.
#[derive(Debug)]
#[allow(dead_code, reason = "held so that they run")]
enum Own {
    Node(EmbeddedNode),
    Cluster(EmbeddedCluster),
    Sink(SinkProcess),
}

impl Target {
    /// Opens what the options name. `program` is this program's executable.
    ///
    /// # Errors
    /// [`BenchError`]: nothing runs then.
    pub fn open(options: &TargetOptions, program: &Path) -> Result<Vec<Self>, BenchError> {
        let mut named = options.target.clone();
        named.extend(options.bootstrap.iter().map(|at| (UNNAMED.to_owned(), at.clone())));
        let embedded = options.embedded || named.is_empty();
        let own = [(embedded, EMBEDDED), (options.nodes.is_some(), CLUSTER), (options.sink, SINK)];
        let own = own.into_iter().filter(|(wanted, _)| *wanted);
        named.extend(own.map(|(_, name)| (name.to_owned(), String::new())));
        for (index, (name, _)) in named.iter().enumerate() {
            if named[..index].iter().any(|(other, _)| other == name) {
                let what = format!("--target {name}: another one has that name");
                return Err(BenchError::Options(what));
            }
        }
        if !embedded
            && options.nodes.is_none()
            && (options.data_dir.is_some() || !options.node_flag.is_empty())
        {
            let what = "--data-dir and --node-flag are for the embedded node: add --embedded";
            return Err(BenchError::Options(what.to_owned()));
        }
        named.retain(|(_, address)| !address.is_empty());
        for (name, _) in &options.target_data {
            if !named.iter().any(|(known, _)| known == name) {
                let what = format!("--target-data {name}: no --target has that name");
                return Err(BenchError::Options(what));
            }
        }
        let mut targets = Vec::with_capacity(named.len() + 1);
        for (name, address) in named {
            let address = resolve(&address)?;
            // Whether it answers shows before anything else is begun.
            let mut wire = Wire::connect(address)?;
            let data = options.target_data.iter().find(|(known, _)| *known == name);
            targets.push(Self {
                name,
                address,
                pids: brokers(&mut wire)?.into_iter().filter_map(process::listener).collect(),
                data_dir: data.map(|(_, folder)| PathBuf::from(folder)),
                own: None,
            });
        }
        if embedded {
            let parent = options.data_dir.clone().unwrap_or_else(std::env::temp_dir);
            let node = EmbeddedNode::start(program, &parent, &options.node_flag)?;
            targets.push(Self {
                name: EMBEDDED.to_owned(),
                address: node.address(),
                pids: vec![node.pid()],
                data_dir: Some(node.data_dir().to_owned()),
                own: Some(Own::Node(node)),
            });
        }
        if let Some(count) = options.nodes {
            let parent = options.data_dir.clone().unwrap_or_else(std::env::temp_dir);
            let cluster =
                EmbeddedCluster::start(usize::from(count), program, &parent, &options.node_flag)?;
            let nodes = cluster.nodes();
            targets.push(Self {
                name: CLUSTER.to_owned(),
                address: nodes[0].address(),
                pids: nodes.iter().map(EmbeddedNode::pid).collect(),
                data_dir: Some(nodes[0].data_dir().to_owned()),
                own: Some(Own::Cluster(cluster)),
            });
        }
        if options.sink {
            let sink = SinkProcess::start(program)?;
            targets.push(Self {
                name: SINK.to_owned(),
                address: sink.address(),
                pids: vec![sink.pid()],
                data_dir: None,
                own: Some(Own::Sink(sink)),
            });
        }
        Ok(targets)
    }

    /// A server of this machine that is no broker.
    #[must_use]
    pub fn bare(name: &str, address: SocketAddr, pid: u32) -> Self {
        Self { name: name.to_owned(), address, pids: vec![pid], data_dir: None, own: None }
    }

    /// What its processes have used so far.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.pids.iter().map(|pid| process::usage(*pid)).reduce(|one, other| {
            let (one, other) = (one?, other?);
            Some(Usage {
                cpu: one.cpu + other.cpu,
                resident_bytes: one.resident_bytes + other.resident_bytes,
            })
        })?
    }

    /// Bytes that its processes had read from disks so far; `None` when that is not to be seen.
    #[must_use]
    pub fn disk_read_bytes(&self) -> Option<u64> {
        let read = self.pids.iter().map(|pid| process::disk_read_bytes(*pid));
        read.reduce(|one, other| Some(one? + other?))?
    }

    /// Whether it keeps nothing, so that only the client is measured.
    #[must_use]
    pub const fn is_sink(&self) -> bool {
        matches!(self.own, Some(Own::Sink(_)))
    }

    /// Where its data is, if that is known.
    #[must_use]
    pub fn data_dir(&self) -> Option<PathBuf> {
        self.data_dir.clone()
    }

    /// For the head of the report.
    #[must_use]
    pub fn facts(&self) -> TargetFacts {
        let unknown = || "unknown".to_owned();
        let mut facts = vec![("at".to_owned(), self.address.to_string())];
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        let known = Some(pids.join(", ")).filter(|pids| !pids.is_empty());
        facts.push(("pid".to_owned(), known.unwrap_or_else(unknown)));
        let filesystem = self.data_dir.as_deref().and_then(host::filesystem);
        facts.push(("data on".to_owned(), filesystem.unwrap_or_else(unknown)));
        TargetFacts { name: self.name.clone(), facts }
    }
}

/// Where all brokers of a cluster listen.
fn brokers(wire: &mut Wire) -> Result<Vec<SocketAddr>, BenchError> {
    let nothing = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
    let answer = wire.call(&nothing)?;
    let listens = answer.brokers.iter().map(|at| resolve(&format!("{}:{}", at.host, at.port)));
    Ok(listens.collect::<Result<_, _>>()?)
}
