//! What this node was told to be, checked before anything starts.
//!
//! Flag, then variable, then file, then default. A key that nothing would honour is refused by name;
//! among them are the keys of a cluster in a node that has no peers.

mod cluster;
mod file;
mod metrics;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use chronik_shards::format::wal::BLOCK_BYTES;
use chronik_shards::machine::limits::ShardLimits;
use chronik_shards::machine::topic_config::{BrokerConfig, ConfigError, ConfigLimits};
use chronik_shards::model::NodeId;
use chronik_tuning::host::Host;
use chronik_tuning::plan::{Plan, PlanError};
use chronik_tuning::profile::{DEFAULT_PROFILE, Profile, ProfileError, ShardCount};
use tracing::level_filters::LevelFilter;

use crate::cli::{CommandLine, RaftCluster, Task};
use crate::control::ClusterTiming;
use crate::metrics::MetricsConfig;
use file::ConfigFile;

const DEFAULT_PORT: u16 = 9092;
const DEFAULT_NODE_ID: i32 = 1;
const DEFAULT_DATA_DIR: &str = "./data";

/// A node's configuration, complete and valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfig {
    /// This node.
    pub node_id: NodeId,
    /// Everything it stores.
    pub data_dir: PathBuf,
    /// Where it listens for clients.
    pub bind: SocketAddr,
    /// Where clients are told to connect.
    pub advertised: Endpoint,
    /// What it uses of its host.
    pub plan: Plan,
    /// What is logged.
    pub log_level: LevelFilter,
    /// Whether to start without acknowledged records that are damaged.
    pub accept_data_loss: bool,
    /// Kafka's own keys.
    pub broker: BrokerConfig,
    /// Where this node stands, if that is known.
    pub rack: Option<String>,
    /// The other nodes; `None` when this one is alone.
    pub peers: Option<Peers>,
    /// Where metrics are told, if they are.
    pub metrics: Option<MetricsConfig>,
}

/// The other nodes of a cluster, and how this one takes part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peers {
    /// Where this node listens for the control planes of the others.
    pub control_bind: SocketAddr,
    /// Where this node listens for the shards of the others, for replication.
    pub replication_bind: SocketAddr,
    /// Where the others' control planes connect.
    pub control_advertised: Endpoint,
    /// Where the others' shards connect.
    pub replication_advertised: Endpoint,
    /// Host and port of every other node's control plane.
    pub control: BTreeMap<NodeId, String>,
    /// Whether this node forms a cluster with its peers if its data directory is new. It comes to theirs
    /// otherwise.
    pub founds: bool,
    /// How fast things are noticed.
    pub timing: ClusterTiming,
}

/// A host and port as clients dial them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A configuration that this node does not start with. One line each, naming the key.
#[derive(Debug, thiserror::Error)]
pub enum NodeConfigError {
    /// The file cannot be read.
    #[error("configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("configuration file {path}: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// The file has a key that does not exist.
    #[error("configuration file {path}: unknown key {key}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key with its table.
        key: String,
    },
    /// The file has a key that only a node with peers could honour.
    #[error(
        "configuration file {path}: {key} is for clusters, and this node is alone: name all nodes, one \
         [[peers]] table each"
    )]
    ClusterKey {
        /// The file.
        path: PathBuf,
        /// The key with its table.
        key: &'static str,
    },
    /// The file lacks a key.
    #[error("configuration file {path}: {key} is missing")]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key with its table.
        key: String,
    },
    /// A key's value is of another kind.
    #[error("configuration file {path}: {key} takes {expected}")]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// The key with its table.
        key: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A key of the `[kafka]` table.
    #[error("[kafka] {0}")]
    Kafka(#[from] ConfigError),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The profile on this host.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A flag's or key's value.
    #[error("{key}={value}: {reason}")]
    Value {
        /// The flag, which the variable and the file's key are named after.
        key: &'static str,
        /// What was given.
        value: String,
        /// What is due.
        reason: String,
    },
}

impl NodeConfig {
    /// Puts everything together; reads the configuration file if one is named.
    ///
    /// # Errors
    /// [`NodeConfigError`] naming the first key that is refused, or what this host does not have.
    pub fn resolve(command: CommandLine, host: &Host) -> Result<Self, NodeConfigError> {
        let file = match &command.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let node_id = node_id(command.node_id.or(file.node_id))?;
        let bind = bind(&command, &file, node_id)?;
        let advertised = advertised(&command, &file, node_id, bind)?;
        let flags = match &command.task {
            Some(Task::RaftCluster(flags)) => Some(flags),
            Some(Task::Cluster(_)) | None => None,
        };
        let own = cluster::Own { node_id, bind, advertised: &advertised };
        let peers = cluster::peers(flags, &file, command.config.as_deref(), &own)?;
        let plan = Plan::resolve(&profile(&command, &file)?, host)?;
        let log_level = log_level(command.log_level.as_deref())?;
        let rack = rack(&command, &file)?;
        let metrics = metrics::resolve(&command, &file, bind, peers.as_ref())?;
        let mut broker = broker_config(flags, &file, &plan, peers.as_ref())?;
        let data_dir =
            command.data_dir.or(file.data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into());

        let listener = |endpoint: &dyn std::fmt::Display| format!("PLAINTEXT://{endpoint}");
        broker.record("node.id", node_id.to_string())?;
        broker.record("broker.id", node_id.to_string())?;
        broker.record("listeners", listener(&bind))?;
        broker.record("advertised.listeners", listener(&advertised))?;
        broker.record("log.dirs", data_dir.display().to_string())?;
        if let Some(rack) = &rack {
            broker.record("broker.rack", rack.clone())?;
        }
        let accept_data_loss = command.accept_data_loss;
        Ok(Self {
            node_id,
            data_dir,
            bind,
            advertised,
            plan,
            log_level,
            accept_data_loss,
            broker,
            rack,
            peers,
            metrics,
        })
    }
}

impl Endpoint {
    /// Reads a host and a port as somebody dials them; `None` without a port, and for the address of all
    /// interfaces.
    #[must_use]
    pub fn dialled(text: &str) -> Option<Self> {
        cluster::dialled(text)
    }

    /// Whether it is the address of all interfaces, where nobody can connect to.
    fn is_unspecified(&self) -> bool {
        self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

fn value_error(
    key: &'static str,
    value: impl ToString,
    reason: impl Into<String>,
) -> NodeConfigError {
    NodeConfigError::Value { key, value: value.to_string(), reason: reason.into() }
}

fn node_id(given: Option<i32>) -> Result<NodeId, NodeConfigError> {
    let id = given.unwrap_or(DEFAULT_NODE_ID);
    if id < 0 {
        return Err(value_error("--node-id", id, "a node id is 0 or more"));
    }
    Ok(NodeId(id))
}

fn bind(
    command: &CommandLine,
    file: &ConfigFile,
    node_id: NodeId,
) -> Result<SocketAddr, NodeConfigError> {
    let in_file = match &file.bind.kafka {
        Some(text) => Some(text.parse::<SocketAddr>().map_err(|_| {
            value_error("[bind] kafka", text, "an IP address and a port are due: 127.0.0.1:9092")
        })?),
        None => None,
    };
    let entry = cluster::own_entry(file, node_id).and_then(|peer| cluster::dialled(&peer.kafka));
    let default_port = entry.map_or(DEFAULT_PORT, |endpoint| endpoint.port);
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), default_port);
    let base = in_file.unwrap_or(default);
    let port = command.kafka_port.unwrap_or(base.port());
    if port == 0 {
        return Err(value_error("--kafka-port", port, "clients cannot be told port 0"));
    }
    Ok(SocketAddr::new(command.bind_addr.unwrap_or(base.ip()), port))
}

fn advertised(
    command: &CommandLine,
    file: &ConfigFile,
    node_id: NodeId,
    bind: SocketAddr,
) -> Result<Endpoint, NodeConfigError> {
    let key = "--advertised-addr";
    let entry = cluster::own_entry(file, node_id).map(|peer| &peer.kafka);
    let given = command.advertised_addr.as_ref().or(file.advertise.kafka.as_ref()).or(entry);
    let endpoint = match given {
        Some(text) => parse_endpoint(text, bind.port()).ok_or_else(|| {
            value_error(key, text, "a host name or address is due, with or without a port")
        })?,
        None => Endpoint { host: bind.ip().to_string(), port: bind.port() },
    };
    if endpoint.is_unspecified() {
        let reason = "clients cannot connect to this address; say where they can";
        return Err(value_error(key, &endpoint.host, reason));
    }
    Ok(endpoint)
}

/// `host`, `host:port`, `[v6]`, `[v6]:port`, or an IPv6 address by itself.
fn parse_endpoint(text: &str, default_port: u16) -> Option<Endpoint> {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        match rest {
            "" => (host, None),
            _ => (host, Some(rest.strip_prefix(':')?)),
        }
    } else if text.parse::<IpAddr>().is_ok() {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => default_port,
    };
    let in_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let is_name = !host.is_empty() && host.len() <= 253 && host.chars().all(in_name);
    (is_name || host.parse::<IpAddr>().is_ok()).then(|| Endpoint { host: host.to_owned(), port })
}

/// The profile that is asked for, with what the file's table and the flags change of it.
fn profile(command: &CommandLine, file: &ConfigFile) -> Result<Profile, NodeConfigError> {
    let name = command.profile.as_ref().or(file.profile.as_ref());
    let mut profile = Profile::load(name.map_or(DEFAULT_PROFILE, String::as_str))?;
    let origin = command.config.as_ref().map_or_else(String::new, |path| {
        format!("configuration file {}, [profile]", path.display())
    });
    profile.override_with(&origin, &file.profile_changes)?;
    if let Some(count) = command.shards {
        profile.shards = ShardCount::Count(count);
    }
    profile.pin &= !command.no_pin;
    Ok(profile)
}

fn rack(command: &CommandLine, file: &ConfigFile) -> Result<Option<String>, NodeConfigError> {
    let rack = command.rack.as_ref().or(file.rack.as_ref());
    match rack.map(|rack| rack.trim()) {
        Some("") => Err(value_error("--rack", "", "a name is due; leave it out if there is none")),
        rack => Ok(rack.map(str::to_owned)),
    }
}

/// Kafka's keys: the `[kafka]` table, and what has a key or flag of its own beside.
fn broker_config(
    flags: Option<&RaftCluster>,
    file: &ConfigFile,
    plan: &Plan,
    peers: Option<&Peers>,
) -> Result<BrokerConfig, NodeConfigError> {
    let mut broker = BrokerConfig::new(config_limits(&plan.profile.limits));
    for (name, value) in &file.kafka {
        broker.set(name, value)?;
    }
    let factor = ("replication_factor", "default.replication.factor", file.replication_factor);
    let min = ("min_insync_replicas", "min.insync.replicas", file.min_insync_replicas);
    for (key, name, in_file) in [factor, min] {
        let Some(value) = in_file else { continue };
        if broker.explicit(name).is_some() {
            let reason = format!("[kafka] {name} says the same; leave one of them out");
            return Err(value_error(key, value, reason));
        }
        broker.set(name, &value.to_string())?;
    }
    let factor = flags.and_then(|flags| flags.replication_factor);
    let min = flags.and_then(|flags| flags.min_insync_replicas);
    for (name, flag) in [("default.replication.factor", factor), ("min.insync.replicas", min)] {
        if let Some(value) = flag {
            broker.set(name, &value.to_string())?;
        }
    }
    let nodes = peers.map_or(1, |peers| peers.control.len() + 1);
    let groups = "offsets.topic.replication.factor";
    if broker.explicit(groups).is_none()
        && broker.settings().groups_topic.replication_factor > nodes
    {
        broker.set(groups, &nodes.to_string())?;
    }
    let factor = broker.settings().default_replication_factor;
    if factor > nodes {
        let reason = format!("more replicas than nodes: there are {nodes}");
        return Err(value_error("replication_factor", factor, reason));
    }
    let min = broker.min_insync_replicas();
    if peers.is_some() && min > factor {
        let reason = format!("more than the replication factor, which is {factor}");
        return Err(value_error("min_insync_replicas", min, reason));
    }
    Ok(broker)
}

/// Bounds of a configuration that follow from the shards' limits.
fn config_limits(limits: &ShardLimits) -> ConfigLimits {
    // A commit never spans files, and its header takes less than a block.
    let message_bytes = limits.wal_file_bytes.saturating_sub(2 * BLOCK_BYTES);
    ConfigLimits { message_bytes_max: usize::try_from(message_bytes).unwrap_or(usize::MAX) }
}

fn log_level(given: Option<&str>) -> Result<LevelFilter, NodeConfigError> {
    Ok(match given.unwrap_or("info") {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        other => {
            let reason = "one of error, warn, info, debug, trace is due";
            return Err(value_error("--log-level", other, reason));
        }
    })
}
