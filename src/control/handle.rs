//! How the rest of the node reaches the control thread.

use std::sync::Arc;
use std::time::Duration;

use chronik_shards::format::metadata_command::MetadataCommand;
use chronik_shards::machine::metadata::{ApplyOutcome, MetadataImage, Rejection};
use chronik_shards::model::NodeId;
use crossbeam::channel::{Sender, TrySendError, bounded};

use super::peer_message::{Delivery, PeerMessage};
use super::quorum::QuorumState;
use super::{COMMAND_BYTES_MAX, PROPOSALS_MAX};

/// A command with its place in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommittedCommand {
    /// Its log index. A shard ignores one that is not above its image's.
    pub index: u64,
    /// What to apply.
    pub command: MetadataCommand,
}

/// What a shard is told of the metadata.
#[derive(Clone, Debug)]
pub enum MetadataUpdate {
    /// The next command.
    Command(Arc<CommittedCommand>),
    /// All of it: the commands up to here are no longer at hand.
    Image(Arc<MetadataImage>),
    /// Which node is the controller, as far as this one knows.
    Controller(Option<NodeId>),
}

/// Takes what is committed for a shard, in log order. Runs on the control thread: it may hand the
/// update over and must not block.
pub type MetadataSink = Box<dyn Fn(MetadataUpdate) + Send>;

/// Takes an answer, once. Runs on the control thread; it may hand the answer over and must not block.
pub type Reply<T> = Box<dyn FnOnce(Result<T, ControlError>) + Send>;

/// Why a proposal, or a subscription, came to nothing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlError {
    /// Reject: the command was committed and changed nothing.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Retry: the queue is full. The command was not proposed.
    #[error("{PROPOSALS_MAX} metadata changes are waiting")]
    Busy,
    /// Retry: no controller was found in time. The command may have been committed nevertheless.
    #[error("no controller has taken the change in time; it may have been made nevertheless")]
    TimedOut,
    /// Look: the command was committed while this node was behind, and what came of it was not told.
    #[error("the change was committed while this node was behind: look at the metadata")]
    OutcomeUnknown,
    /// Reject: larger than any command may be.
    #[error("a metadata command of {0} bytes: {COMMAND_BYTES_MAX} are allowed")]
    TooLarge(usize),
    /// Stop: the control plane has ended. The command may have been committed.
    #[error("the control plane has stopped")]
    Stopped,
}

/// What the control thread is asked.
pub(super) enum Request {
    Propose {
        command: Vec<u8>,
        reply: ReplyOnce,
    },
    Subscribe {
        after: u64,
        sink: MetadataSink,
        reply: Sender<()>,
    },
    /// The node's partitions are open: it may lead.
    Ready,
    /// How does the group stand?
    Quorum {
        reply: ReplyOnce<QuorumState>,
    },
    /// Have all nodes that are there applied the metadata up to an index?
    Spread {
        index: u64,
        patience: Duration,
        reply: ReplyOnce<()>,
    },
    /// Is another node there that stays?
    Company {
        reply: Sender<bool>,
    },
    /// From a peer that has shown who it is.
    Peer {
        from: NodeId,
        connection: u64,
        message: PeerMessage,
    },
    /// A peer has connected; what an earlier connection of it still holds is void.
    Connected {
        peer: NodeId,
        connection: u64,
    },
    /// A peer says that this node is not of the cluster any more, by the metadata at a log index.
    Gone {
        applied: u64,
    },
    /// What became of messages to a peer.
    Delivery {
        to: NodeId,
        report: Delivery,
    },
    /// End; a controller first has another one take over, if that is asked for.
    Stop {
        hand_over: bool,
    },
}

/// An answer that is given exactly once: whoever drops it unanswered says "stopped".
pub(super) struct ReplyOnce<T = ApplyOutcome>(Option<Reply<T>>);

impl Request {
    /// Drops it with its reply uncalled: whoever asks was told otherwise.
    fn forget(self) {
        match self {
            Self::Propose { reply, .. } => reply.forget(),
            Self::Quorum { reply } => reply.forget(),
            Self::Spread { reply, .. } => reply.forget(),
            Self::Subscribe { .. }
            | Self::Ready
            | Self::Company { .. }
            | Self::Peer { .. }
            | Self::Connected { .. }
            | Self::Gone { .. }
            | Self::Delivery { .. }
            | Self::Stop { .. } => {}
        }
    }
}

impl<T> ReplyOnce<T> {
    pub(super) fn new(reply: Reply<T>) -> Self {
        Self(Some(reply))
    }

    pub(super) fn answer(mut self, result: Result<T, ControlError>) {
        if let Some(reply) = self.0.take() {
            reply(result);
        }
    }

    /// Drops the reply uncalled: its proposer was told otherwise.
    fn forget(mut self) {
        self.0 = None;
    }
}

impl<T> Drop for ReplyOnce<T> {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply(Err(ControlError::Stopped));
        }
    }
}

/// Proposes changes of the metadata and subscribes to them. Cheap to clone.
#[derive(Clone)]
pub struct ControlHandle {
    queue: Sender<Request>,
}

impl ControlHandle {
    pub(super) fn new(queue: Sender<Request>) -> Self {
        Self { queue }
    }

    /// Proposes `command`. After `Ok`, `reply` is called exactly once, on the control thread; after an
    /// error never.
    ///
    /// When the reply says `Ok`, the command is durable, applied here, and handed to every subscribed
    /// sink. Returns at once.
    ///
    /// # Errors
    /// [`ControlError::Busy`] when the queue is full, [`ControlError::TooLarge`],
    /// [`ControlError::Stopped`]. Nothing was proposed then.
    pub fn propose(
        &self,
        command: &MetadataCommand,
        reply: Reply<ApplyOutcome>,
    ) -> Result<(), ControlError> {
        let command = command.encode();
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ControlError::TooLarge(command.len()));
        }
        self.ask(Request::Propose { command, reply: ReplyOnce::new(reply) })
    }

    fn ask(&self, request: Request) -> Result<(), ControlError> {
        let (request, error) = match self.queue.try_send(request) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(request)) => (request, ControlError::Busy),
            Err(TrySendError::Disconnected(request)) => (request, ControlError::Stopped),
        };
        request.forget();
        Err(error)
    }

    /// Proposes `command` and waits for the answer. For tests and start-up, never on a shard.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn propose_and_wait(
        &self,
        command: &MetadataCommand,
    ) -> Result<ApplyOutcome, ControlError> {
        let (answer, answered) = bounded(1);
        self.propose(command, Box::new(move |result| drop(answer.send(result))))?;
        answered.recv().unwrap_or(Err(ControlError::Stopped))
    }

    /// Has `sink` called with every command after log index `after`, those already committed first, or
    /// the whole image where they are no longer at hand. Waits until that is arranged: for start-up,
    /// never on a shard.
    ///
    /// # Errors
    /// [`ControlError::Stopped`].
    pub fn subscribe(&self, after: u64, sink: MetadataSink) -> Result<(), ControlError> {
        let (reply, arranged) = bounded(1);
        self.queue
            .send(Request::Subscribe { after, sink, reply })
            .map_err(|_| ControlError::Stopped)?;
        arranged.recv().map_err(|_| ControlError::Stopped)
    }

    /// Says that this node's partitions are open and that it can lead some. Before that the controller
    /// leaves it fenced.
    ///
    /// # Errors
    /// [`ControlError::Stopped`].
    pub fn ready(&self) -> Result<(), ControlError> {
        self.queue.send(Request::Ready).map_err(|_| ControlError::Stopped)
    }

    /// Asks how the Raft group stands. After `Ok`, `reply` is called exactly once, with what the group's
    /// leader says; after an error never. Returns at once.
    ///
    /// # Errors
    /// [`ControlError::Busy`] when the queue is full, [`ControlError::Stopped`].
    pub fn quorum(&self, reply: Reply<QuorumState>) -> Result<(), ControlError> {
        self.ask(Request::Quorum { reply: ReplyOnce::new(reply) })
    }

    /// Asks to be told when every node that is there has applied the metadata up to `index` and handed them to
    /// its shards, or when `patience` is at its end. After `Ok`, `reply` is called exactly once; after an
    /// error never. Returns at once.
    ///
    /// # Errors
    /// [`ControlError::Busy`] when the queue is full, [`ControlError::Stopped`].
    pub fn when_spread(
        &self,
        index: u64,
        patience: Duration,
        reply: Reply<()>,
    ) -> Result<(), ControlError> {
        self.ask(Request::Spread { index, patience, reply: ReplyOnce::new(reply) })
    }

    /// Whether another node is there that is not about to stop. Waits for the answer: never on a shard.
    #[must_use]
    pub fn has_company(&self) -> bool {
        let (reply, answered) = bounded(1);
        // A control plane that has ended knows nobody.
        self.queue.send(Request::Company { reply }).is_ok() && answered.recv().unwrap_or(false)
    }

    /// Waits for room in the queue; a thread that has ended needs no telling.
    pub(super) fn send_stop(&self, hand_over: bool) {
        let _ = self.queue.send(Request::Stop { hand_over });
    }
}
