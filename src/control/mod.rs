//! The control plane: metadata that survives restarts and is the same on every shard.
//!
//! One thread of its own drives a Raft group over raft-engine. It takes proposals from a bounded
//! queue, makes them durable, applies them in log order to its image, hands each committed command
//! to every subscribed shard, and then answers the proposer. No shard ever waits for it: a proposal
//! returns at once and its answer is a callback.
//!
//! Today the group has one voter. What peers add has its place: a transport's messages become
//! another request of the thread's queue, outgoing ones leave where the loop asserts that there are
//! none, and a tick makes the loop's wait finite. Alone, there is no timer: an idle control plane
//! sleeps in the kernel.
//!
//! Deliberately absent: decisions about replicas (`machine::metadata`), and retrying proposals.

mod engine_files;
mod handle;
mod identity;
mod log;
mod log_bridge;
mod node;
#[cfg(test)]
mod tests;
mod watermark;

use std::path::PathBuf;
use std::thread::JoinHandle;

use chronik_shards::machine::metadata::MetadataImage;
use chronik_shards::model::{BrokerEpoch, NodeId};
use crossbeam::channel::bounded;

pub use handle::{CommittedCommand, ControlError, ControlHandle, MetadataSink, ProposalReply};
pub use identity::{IdentityError, NodeIdentity, random_bytes, random_topic_id};
pub use log::LogError;

use handle::Request;
use node::ControlNode;

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
    /// Whether to start although committed metadata is damaged, without it.
    pub accept_data_loss: bool,
    /// How much log gathers before it is replaced by a snapshot.
    pub compaction: CompactionPolicy,
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
    /// Finishes the proposals that are queued, then ends the thread.
    ///
    /// Everything committed is durable already: stopping only ends the serving.
    pub fn stop(self) {
        self.handle.send_stop();
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
    /// The registration was refused.
    #[error("this node cannot register: {0}")]
    Registration(ControlError),
    /// The thread cannot be created, or died.
    #[error("the control thread: {0}")]
    Thread(String),
}

/// Opens the log, replays it and registers this node.
///
/// # Errors
/// [`ControlStartError`]: nothing runs then.
pub fn start(config: ControlConfig) -> Result<ControlStart, ControlStartError> {
    let (queue, requests) = bounded::<Request>(PROPOSALS_MAX);
    let (report, started) = bounded(1);
    let serve = move || match ControlNode::open(&config) {
        Err(error) => drop(report.send(Err(error))),
        Ok((mut node, broker_epoch)) => {
            // Nobody listens when the starter gave up; then the queue is closed as well.
            let _ = report.send(Ok((node.image().clone(), broker_epoch)));
            node.serve(&requests);
        }
    };
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(serve)
        .map_err(|error| ControlStartError::Thread(error.to_string()))?;
    let started =
        started.recv().map_err(|_| ControlStartError::Thread("it ended at start".to_owned()))?;
    let (image, broker_epoch) = started?;
    let handle = ControlHandle::new(queue);
    let thread = ControlThread { handle: handle.clone(), thread };
    Ok(ControlStart { image, broker_epoch, handle, thread })
}
