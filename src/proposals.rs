//! A shard's way to the control thread and back.
//!
//! Both what was committed and what became of a proposal come through the shard's one control inbox,
//! in the order in which the control thread says them. So a proposer that wakes finds its change
//! applied on its own shard.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use chronik_shards::format::metadata_command::MetadataCommand;
use chronik_shards::io::inbox::InboxSender;
use chronik_shards::io::local::Slot;
use chronik_shards::machine::metadata::ApplyOutcome;

use crate::control::{ControlError, ControlHandle, QuorumState};
use crate::front::ShardEvent;

/// The answer to a proposal, on its way to the shard that made it.
#[derive(Debug)]
pub struct ProposalAnswer {
    proposal: u64,
    result: Result<ApplyOutcome, ControlError>,
}

/// How the Raft group stands, on its way to the shard that has asked.
#[derive(Debug)]
pub struct QuorumAnswer {
    question: u64,
    result: Result<QuorumState, ControlError>,
}

/// The proposals of one shard that wait for their answer. At most as many as the control thread's queue
/// takes: one more is refused there.
pub struct Proposals {
    control: ControlHandle,
    inbox: InboxSender<ShardEvent>,
    next: Cell<u64>,
    waiting: RefCell<HashMap<u64, Slot<Result<ApplyOutcome, ControlError>>>>,
    /// Questions how the group stands.
    asking: RefCell<HashMap<u64, Slot<Result<QuorumState, ControlError>>>>,
}

impl Proposals {
    /// Proposes through `control`; answers come back through `inbox`.
    #[must_use]
    pub fn new(control: ControlHandle, inbox: InboxSender<ShardEvent>) -> Self {
        let (waiting, asking) = (RefCell::default(), RefCell::default());
        Self { control, inbox, next: Cell::new(0), waiting, asking }
    }

    /// Proposes a change; returns when it is applied on this shard.
    ///
    /// # Errors
    /// [`ControlError`]: see there what was done and what was not.
    pub async fn propose(&self, command: &MetadataCommand) -> Result<ApplyOutcome, ControlError> {
        let proposal = self.next.get();
        self.next.set(proposal + 1);
        let inbox = self.inbox.clone();
        // Runs on the control thread, which may wait for this shard; this shard never waits for it.
        let reply = move |result| {
            // A shard that has ended has nobody left who waits.
            drop(inbox.send(ShardEvent::Answered(ProposalAnswer { proposal, result })));
        };
        let slot = Slot::default();
        self.waiting.borrow_mut().insert(proposal, slot.clone());
        if let Err(error) = self.control.propose(command, Box::new(reply)) {
            self.waiting.borrow_mut().remove(&proposal);
            return Err(error);
        }
        slot.await
    }

    /// Asks how the Raft group stands.
    ///
    /// # Errors
    /// [`ControlError`] when nobody could tell in time.
    pub async fn quorum(&self) -> Result<QuorumState, ControlError> {
        let question = self.next.get();
        self.next.set(question + 1);
        let inbox = self.inbox.clone();
        let reply = move |result| {
            // As above.
            drop(inbox.send(ShardEvent::Quorum(QuorumAnswer { question, result })));
        };
        let slot = Slot::default();
        self.asking.borrow_mut().insert(question, slot.clone());
        if let Err(error) = self.control.quorum(Box::new(reply)) {
            self.asking.borrow_mut().remove(&question);
            return Err(error);
        }
        slot.await
    }

    /// Wakes whoever asked how the group stands.
    pub fn told(&self, answer: QuorumAnswer) {
        if let Some(slot) = self.asking.borrow_mut().remove(&answer.question) {
            slot.fill(answer.result);
        }
    }

    /// Wakes the proposer. One that has gone away meanwhile needs no answer.
    pub fn answered(&self, answer: ProposalAnswer) {
        if let Some(slot) = self.waiting.borrow_mut().remove(&answer.proposal) {
            slot.fill(answer.result);
        }
    }
}
