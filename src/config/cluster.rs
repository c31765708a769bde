//! The part of a configuration that makes a node one of several: its peers, in a file or by flags.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use chronik_shards::model::NodeId;

use super::file::{ConfigFile, PeerEntry};
use super::{Endpoint, NodeConfigError, Peers, parse_endpoint, value_error};
use crate::cli::RaftCluster;
use crate::control::ClusterTiming;

/// How far the replication port is above the client port when nobody says where it is.
const WAL_PORT_OFFSET: u16 = 199;

/// What the parts of a node's configuration that it has in any case come to.
pub(super) struct Own<'a> {
    pub(super) node_id: NodeId,
    /// Where it listens for clients.
    pub(super) bind: SocketAddr,
    /// Where clients connect.
    pub(super) advertised: &'a Endpoint,
}

/// This node's entry among the file's peers.
pub(super) fn own_entry(file: &ConfigFile, node_id: NodeId) -> Option<&PeerEntry> {
    file.peers.iter().find(|peer| peer.id == node_id.get())
}

/// The peers, if the node has any.
pub(super) fn peers(
    flags: Option<&RaftCluster>,
    file: &ConfigFile,
    path: Option<&Path>,
    own: &Own<'_>,
) -> Result<Option<Peers>, NodeConfigError> {
    let peers = match (flags, file.peers.is_empty()) {
        (Some(flags), true) => by_flags(flags, file, own)?,
        (Some(flags), false) => {
            let reason = "the configuration file names the peers already; leave one of them out";
            return Err(value_error("--peers", flags.peers.join(","), reason));
        }
        (None, false) => in_file(file, own)?,
        (None, true) => {
            let Some(key) = file.cluster_key() else { return Ok(None) };
            let path = path.unwrap_or(Path::new("")).to_owned();
            return Err(NodeConfigError::ClusterKey { path, key });
        }
    };
    let binds = [own.bind, peers.replication_bind, peers.control_bind];
    let keys = ["[bind] kafka", "[bind] wal", "[bind] raft"];
    for (at, bind) in binds.iter().enumerate() {
        if bind.port() == 0 {
            return Err(value_error(keys[at], bind, "nobody can be told port 0"));
        }
        if let Some(before) = binds[..at].iter().position(|other| other == bind) {
            let reason = format!("{} is the same address", keys[before]);
            return Err(value_error(keys[at], bind, reason));
        }
    }
    Ok(Some(peers))
}

/// `raft-cluster` with its flags. The file may still say where to listen for replication and what to tell
/// peers.
fn by_flags(
    flags: &RaftCluster,
    file: &ConfigFile,
    own: &Own<'_>,
) -> Result<Peers, NodeConfigError> {
    let mut control = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for peer in &flags.peers {
        let refuse = |reason: &str| value_error("--peers", peer, reason);
        let (id, address) =
            peer.trim().split_once('@').ok_or_else(|| refuse("ID@HOST:PORT is due"))?;
        let id = id.parse().ok().filter(|id| *id >= 0);
        let id = id.ok_or_else(|| refuse("a node id, 0 or more, is due before the @"))?;
        let endpoint = dialled(address)
            .ok_or_else(|| refuse("a host and a port are due behind the @: 2@host:5001"))?;
        if NodeId(id) == own.node_id {
            return Err(refuse("this is the node itself; name the others"));
        }
        if !addresses.insert(endpoint.to_string()) {
            return Err(refuse("another peer has this address"));
        }
        if control.insert(NodeId(id), endpoint.to_string()).is_some() {
            return Err(refuse("another peer has this id"));
        }
    }
    let replication_bind = match (flags.wal_addr, &file.bind.wal) {
        (Some(address), _) => address,
        (None, Some(text)) => socket_address("[bind] wal", text)?,
        (None, None) => {
            let port = own.bind.port().checked_add(WAL_PORT_OFFSET).ok_or_else(|| {
                let reason =
                    "there is no port 199 above; name the replication port with --wal-addr";
                value_error("--kafka-port", own.bind.port(), reason)
            })?;
            SocketAddr::new(own.bind.ip(), port)
        }
    };
    let advertise = |key, given: &Option<String>, bind: SocketAddr| match given {
        Some(text) => advertised(key, text, bind.port()),
        None => Ok(Endpoint { port: bind.port(), ..own.advertised.clone() }),
    };
    Ok(Peers {
        control_bind: flags.raft_addr,
        replication_bind,
        control_advertised: advertise("[advertise] raft", &file.advertise.raft, flags.raft_addr)?,
        replication_advertised: advertise(
            "[advertise] wal",
            &file.advertise.wal,
            replication_bind,
        )?,
        control,
        founds: flags.bootstrap,
        timing: ClusterTiming::default(),
    })
}

/// The file's `[[peers]]`, with `[bind]` and `[advertise]` for what differs.
fn in_file(file: &ConfigFile, own: &Own<'_>) -> Result<Peers, NodeConfigError> {
    let mut control = BTreeMap::new();
    let mut addresses = BTreeSet::new();
    for peer in &file.peers {
        if peer.id < 0 {
            return Err(value_error("[[peers]] id", peer.id, "a node id is 0 or more"));
        }
        let of = [
            ("[[peers]] kafka", &peer.kafka),
            ("[[peers]] wal", &peer.wal),
            ("[[peers]] raft", &peer.raft),
        ];
        for (key, text) in of {
            let endpoint = dialled(text)
                .ok_or_else(|| value_error(key, text, "a host and a port are due: host:5001"))?;
            if !addresses.insert(endpoint.to_string()) {
                let reason = "this address is there twice, and every listener has its own";
                return Err(value_error(key, text, reason));
            }
        }
        if control.insert(NodeId(peer.id), peer.raft.clone()).is_some() {
            return Err(value_error("[[peers]] id", peer.id, "two nodes have this id"));
        }
    }
    control.remove(&own.node_id);
    let entry = own_entry(file, own.node_id).ok_or_else(|| {
        let reason = "no [[peers]] table has this id, and this node is one of them";
        value_error("node_id", own.node_id, reason)
    })?;
    let keys = ["[bind] wal", "[advertise] wal"];
    let wal = listener(keys, &entry.wal, &file.bind.wal, &file.advertise.wal, own)?;
    let keys = ["[bind] raft", "[advertise] raft"];
    let raft = listener(keys, &entry.raft, &file.bind.raft, &file.advertise.raft, own)?;
    Ok(Peers {
        control_bind: raft.0,
        replication_bind: wal.0,
        control_advertised: raft.1,
        replication_advertised: wal.1,
        control,
        founds: file.bootstrap.unwrap_or(true),
        timing: ClusterTiming::default(),
    })
}

/// Where a node listens, and where its peers connect: as its own entry says, unless `[bind]` and
/// `[advertise]` say otherwise.
fn listener(
    [bind_key, advertise_key]: [&'static str; 2],
    entry: &str,
    bind: &Option<String>,
    advertise: &Option<String>,
    own: &Own<'_>,
) -> Result<(SocketAddr, Endpoint), NodeConfigError> {
    let told = dialled(entry).expect("every entry was looked at");
    let bind = match bind {
        Some(text) => socket_address(bind_key, text)?,
        None => SocketAddr::new(own.bind.ip(), told.port),
    };
    let advertised = match advertise {
        Some(text) => advertised(advertise_key, text, bind.port())?,
        None => told,
    };
    Ok((bind, advertised))
}

/// An address with its port, as somebody dials it.
pub(super) fn dialled(text: &str) -> Option<Endpoint> {
    // Two default ports that lead to different endpoints: the text has none.
    let endpoint = parse_endpoint(text, 1)?;
    let has_port = parse_endpoint(text, 2)? == endpoint;
    (has_port && !endpoint.is_unspecified()).then_some(endpoint)
}

fn socket_address(key: &'static str, text: &str) -> Result<SocketAddr, NodeConfigError> {
    let reason = "an IP address and a port are due: 0.0.0.0:5001";
    text.parse().map_err(|_| value_error(key, text, reason))
}

fn advertised(
    key: &'static str,
    text: &str,
    default_port: u16,
) -> Result<Endpoint, NodeConfigError> {
    let endpoint = parse_endpoint(text, default_port);
    endpoint.filter(|endpoint| !endpoint.is_unspecified()).ok_or_else(|| {
        let reason = "a host name or address that peers can connect to is due";
        value_error(key, text, reason)
    })
}
