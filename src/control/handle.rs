//! How the rest of the node reaches the control thread.

use std::sync::Arc;

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

/// Takes a proposal's answer, once. Runs on the control thread, or on the proposer's when the
/// proposal was refused at once; it may hand the answer over and must not block.
pub type ProposalReply = Reply<ApplyOutcome>;

/// Takes how the group stands, once. Runs where a [`ProposalReply`] does.
pub type QuorumReply = Reply<QuorumState>;

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

type Reply<T> = Box<dyn FnOnce(Result<T, ControlError>) + Send>;

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
        reply: ProposalReply,
    ) -> Result<(), ControlError> {
        let command = command.encode();
        if command.len() > COMMAND_BYTES_MAX {
            return Err(ControlError::TooLarge(command.len()));
        }
        let request = Request::Propose { command, reply: ReplyOnce::new(reply) };
        let (request, error) = match self.queue.try_send(request) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(request)) => (request, ControlError::Busy),
            Err(TrySendError::Disconnected(request)) => (request, ControlError::Stopped),
        };
        if let Request::Propose { reply, .. } = request {
            reply.forget();
        }
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
    pub fn quorum(&self, reply: QuorumReply) -> Result<(), ControlError> {
        let request = Request::Quorum { reply: ReplyOnce::new(reply) };
        let (request, error) = match self.queue.try_send(request) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(request)) => (request, ControlError::Busy),
            Err(TrySendError::Disconnected(request)) => (request, ControlError::Stopped),
        };
        if let Request::Quorum { reply } = request {
            reply.forget();
        }
        Err(error)
    }

    /// Waits for room in the queue; a thread that has ended needs no telling.
    pub(super) fn send_stop(&self, hand_over: bool) {
        let _ = self.queue.send(Request::Stop { hand_over });
    }
}
