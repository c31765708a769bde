//! The control plane: metadata that survives restarts and is the same on every shard.
//!
//! One thread of its own drives a Raft group over raft-engine. It takes proposals from a bounded
//! queue, makes them durable, applies them in log order to its image, hands each committed command
//! to every subscribed shard, and then answers the proposer. No shard ever waits for it: a proposal
//! returns at once and its answer is a callback.
//!
//! The group begins with the nodes that the configuration names: the first five vote, further ones learn.
//! Later nodes come and go as the metadata say (`member`). Its
//! leader is the controller, which fences silent nodes and has leaders elected
//! ([`chronik_shards::machine::controller`]). Any node takes proposals: it passes them on, again if they
//! get lost, and each counts once. A node that is alone leads itself, without timers: its idle control
//! plane sleeps in the kernel.
//!
//! Deliberately absent: decisions about replicas (`machine::metadata`).

mod acquaintance;
mod engine_files;
mod handle;
mod identity;
mod log;
mod log_bridge;
mod member;
mod members;
mod node;
mod own_proposals;
mod peer_message;
mod quorum;
mod spread;
#[cfg(test)]
mod tests;
mod transport;
mod watermark;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use chronik_shards::format::metadata_command::BrokerEndpoint;
use chronik_shards::machine::metadata::MetadataImage;
use chronik_shards::model::{BrokerEpoch, NodeId};
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};

pub use handle::{
    CommittedCommand, ControlError, ControlHandle, MetadataSink, MetadataUpdate, Reply,
};
pub use identity::{Founding, IdentityError, NodeIdentity, random_bytes, random_topic_id};
pub use log::LogError;
pub use members::{Members, VOTERS_MAX};
pub use quorum::{MemberState, QuorumState};

use handle::Request;
use node::{ControlNode, Starting};

/// Proposals that may wait for the control thread; one more is refused.
pub const PROPOSALS_MAX: usize = 1024;

/// Largest encoded command. A topic at its partition bound with a few replicas stays far below.
pub const COMMAND_BYTES_MAX: usize = 8 << 20;

/// What the control plane needs to know to start.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Where its log is: `data/raft`.
    pub directory: PathBuf,
    /// This node.
    pub node_id: NodeId,
    /// How many shards this node runs.
    pub shards: u16,
    /// Where clients reach this node.
    pub advertised_host: String,
    /// Where clients reach this node.
    pub advertised_port: u16,
    /// Where it stands, if that is known: replicas are spread over racks.
    pub rack: Option<String>,
    /// Who this is, as the data directory says.
    pub identity: NodeIdentity,
    /// The other nodes; `None` when this one is alone.
    pub cluster: Option<ClusterConfig>,
    /// Whether to start although committed metadata is damaged, without it.
    pub accept_data_loss: bool,
    /// How much log gathers before it is replaced by a snapshot.
    pub compaction: CompactionPolicy,
}

/// What a node with peers needs to know of them.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where the data directory is: the identity in it gets the cluster's name.
    pub data_dir: PathBuf,
    /// Where this node listens for the control planes of its peers.
    pub listen: SocketAddr,
    /// Where the peers' control planes connect to this one.
    pub control_advertised: BrokerEndpoint,
    /// Where the peers' shards connect to those of this node.
    pub replication_advertised: BrokerEndpoint,
    /// Host and port of every other node's control plane.
    pub peers: BTreeMap<NodeId, String>,
    /// Settings that hold for all topics of the cluster unless they say otherwise, as this node was
    /// configured with them.
    pub defaults: BTreeMap<String, String>,
    /// Whether a node without a log founds a group with its peers. It comes to theirs otherwise.
    pub founds: bool,
    /// How fast things are noticed.
    pub timing: ClusterTiming,
}

/// How fast a cluster notices what goes wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClusterTiming {
    /// Raft's clock. A leader that is silent for ten of them is replaced.
    pub tick: Duration,
    /// A node that is not heard of for so long is fenced: others lead its partitions.
    pub session: Duration,
    /// How often partitions are given back to their preferred leaders.
    pub balance_interval: Duration,
}

impl Default for ClusterTiming {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(50),
            session: Duration::from_millis(800),
            balance_interval: Duration::from_secs(5),
        }
    }
}

/// When the log is replaced by a snapshot of the image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactionPolicy {
    /// After this many entries …
    pub entries: usize,
    /// … or this many bytes, whichever comes first.
    pub bytes: usize,
    /// Entries below the snapshot that stay in memory for subscribers that are a little behind.
    pub kept_entries: usize,
}

impl Default for CompactionPolicy {
    fn default() -> Self {
        Self { entries: 8192, bytes: 16 << 20, kept_entries: 1024 }
    }
}

/// A control plane that runs: this node is registered and its leader epochs are new.
pub struct ControlStart {
    /// Everything committed so far. Recovery and the shards start from it.
    pub image: MetadataImage,
    /// This incarnation.
    pub broker_epoch: BrokerEpoch,
    /// The cluster, as clients see it.
    pub cluster_id: String,
    /// For proposals and subscriptions.
    pub handle: ControlHandle,
    /// Ends with [`ControlThread::stop`].
    pub thread: ControlThread,
}

/// The running thread.
pub struct ControlThread {
    handle: ControlHandle,
    thread: JoinHandle<()>,
}

impl ControlThread {
    /// For proposals and subscriptions.
    #[must_use]
    pub fn handle(&self) -> ControlHandle {
        self.handle.clone()
    }

    /// Finishes the proposals that are queued, then ends the thread. A controller hands its duties over;
    /// proposals that wait for another node are answered with [`ControlError::Stopped`].
    ///
    /// Everything committed is durable already: stopping only ends the serving.
    pub fn stop(self) {
        self.end(true);
    }

    /// Ends the thread as a crash would: the peers are not told.
    #[cfg(test)]
    fn kill(self) {
        self.end(false);
    }

    fn end(self, hand_over: bool) {
        self.handle.send_stop(hand_over);
        if self.thread.join().is_err() {
            tracing::error!("the control thread panicked");
        }
    }
}

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlStartError {
    /// Its log cannot be opened, read or written.
    #[error(transparent)]
    Log(#[from] LogError),
    /// raft refuses.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// The peers' control planes could not reach this one.
    #[error("cannot listen for the control planes of peers on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The reason.
        source: std::io::Error,
    },
    /// The peers have agreed on another cluster than the data directory's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The cluster has forgotten the node meanwhile.
    #[error(
        "this node was taken off the cluster; to have it back, add it and empty its data directory"
    )]
    TakenOff,
    /// The registration was refused.
    #[error("this node cannot register: {0}")]
    Registration(ControlError),
    /// The thread cannot be created, or died.
    #[error("the control thread: {0}")]
    Thread(String),
}

/// A control plane on its way up. A node with peers listens to them already.
pub struct ControlStarting {
    thread: ControlThread,
    started: Receiver<Result<Starting, ControlStartError>>,
    cluster_id: Option<String>,
}

/// How far a start has come.
pub enum Waited {
    /// The node is registered.
    Started(Box<ControlStart>),
    /// It is not: wait again, or stop it.
    NotYet(ControlStarting),
}

impl ControlStarting {
    /// Waits for at most `patience` until this node is registered, which takes a majority of the voters.
    ///
    /// # Errors
    /// [`ControlStartError`]: nothing runs then.
    pub fn wait(self, patience: Duration) -> Result<Waited, ControlStartError> {
        let Starting { image, broker_epoch, cluster_id } = match self.started.recv_timeout(patience)
        {
            Ok(started) => started?,
            Err(RecvTimeoutError::Timeout) => return Ok(Waited::NotYet(self)),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(ControlStartError::Thread("it ended at start".to_owned()));
            }
        };
        let cluster_id = cluster_id.or(self.cluster_id);
        let cluster_id = cluster_id.expect("a node that is alone has a cluster id from the first");
        let (handle, thread) = (self.thread.handle.clone(), self.thread);
        let start = ControlStart { image, broker_epoch, cluster_id, handle, thread };
        Ok(Waited::Started(Box::new(start)))
    }

    /// Ends it before it has started.
    pub fn stop(self) {
        self.thread.stop();
    }
}

/// Opens the log, replays it and begins to register this node.
///
/// # Errors
/// [`ControlStartError`]: nothing runs then.
pub fn begin(config: ControlConfig) -> Result<ControlStarting, ControlStartError> {
    let (queue, requests) = bounded::<Request>(PROPOSALS_MAX);
    let (report, started) = bounded(1);
    let cluster_id = config.identity.cluster_id.clone();
    // The thread holds no sender itself: it ends when nobody can ask any more.
    let peers = config.cluster.as_ref().map(|_| queue.clone());
    let serve = move || {
        let opened = match peers {
            Some(peers) => ControlNode::open(&config, Some(&peers)),
            None => ControlNode::open(&config, None),
        };
        match opened {
            Err(error) => drop(report.send(Err(error))),
            Ok(node) => node.run(requests, &report, &config),
        }
    };
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(serve)
        .map_err(|error| ControlStartError::Thread(error.to_string()))?;
    let thread = ControlThread { handle: ControlHandle::new(queue), thread };
    Ok(ControlStarting { thread, started, cluster_id })
}

/// Opens the log, replays it and registers this node. Waits for the peers as long as it takes.
///
/// # Errors
/// [`ControlStartError`]: nothing runs then.
pub fn start(config: ControlConfig) -> Result<ControlStart, ControlStartError> {
    let mut starting = begin(config)?;
    loop {
        match starting.wait(Duration::from_secs(3600))? {
            Waited::Started(start) => return Ok(*start),
            Waited::NotYet(not_yet) => starting = not_yet,
        }
    }
}
