//! What this node was told to be, checked before anything starts.
//!
//! Flag, then variable, then file, then default. A key that nothing would honour is refused by name;
//! among them are the keys that form a cluster, which this server does not serve.

mod file;
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

use crate::cli::CommandLine;
use crate::control::ClusterTiming;
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
    /// The other nodes; `None` when this one is alone, which is what the server's keys come to.
    pub peers: Option<Peers>,
}

/// The other nodes of a cluster, and how this one takes part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peers {
    /// Where this node listens for the control planes of the others.
    pub control_bind: SocketAddr,
    /// Host and port of every other node's control plane.
    pub control: BTreeMap<NodeId, String>,
    /// Where this node stands.
    pub rack: Option<String>,
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
    /// The file has a key that only a cluster could honour.
    #[error("configuration file {path}: {key} is for clusters, and this server runs a single node")]
    ClusterKey {
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
        let bind = bind(&command, &file)?;
        let advertised = advertised(&command, &file, bind)?;
        let plan = Plan::resolve(&profile(&command, &file)?, host)?;
        let log_level = log_level(command.log_level.as_deref())?;
        let data_dir =
            command.data_dir.or(file.data_dir).unwrap_or_else(|| DEFAULT_DATA_DIR.into());

        let mut broker = BrokerConfig::new(config_limits(&plan.profile.limits));
        for (name, value) in &file.kafka {
            broker.set(name, value)?;
        }
        let listener = |endpoint: &dyn std::fmt::Display| format!("PLAINTEXT://{endpoint}");
        broker.record("node.id", node_id.to_string())?;
        broker.record("broker.id", node_id.to_string())?;
        broker.record("listeners", listener(&bind))?;
        broker.record("advertised.listeners", listener(&advertised))?;
        broker.record("log.dirs", data_dir.display().to_string())?;
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
            peers: None,
        })
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

fn bind(command: &CommandLine, file: &ConfigFile) -> Result<SocketAddr, NodeConfigError> {
    let in_file = match &file.bind_kafka {
        Some(text) => Some(text.parse::<SocketAddr>().map_err(|_| {
            value_error("[bind] kafka", text, "an IP address and a port are due: 127.0.0.1:9092")
        })?),
        None => None,
    };
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
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
    bind: SocketAddr,
) -> Result<Endpoint, NodeConfigError> {
    let key = "--advertised-addr";
    let endpoint = match command.advertised_addr.as_ref().or(file.advertise_kafka.as_ref()) {
        Some(text) => parse_endpoint(text, bind.port()).ok_or_else(|| {
            value_error(key, text, "a host name or address is due, with or without a port")
        })?,
        None => Endpoint { host: bind.ip().to_string(), port: bind.port() },
    };
    if endpoint.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
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
