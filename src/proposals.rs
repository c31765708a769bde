//! A shard's way to the control thread and back.
//!
//! Both what was committed and what became of a proposal come through the shard's one control inbox,
//! in the order in which the control thread says them. So a proposer that wakes finds its change
//! applied on its own shard.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::time::Duration;

use chronik_shards::format::metadata_command::MetadataCommand;
use chronik_shards::io::inbox::InboxSender;
use chronik_shards::io::local::Slot;
use chronik_shards::machine::metadata::ApplyOutcome;

use crate::control::{ControlError, ControlHandle, QuorumState, Reply};
use crate::front::ShardEvent;

/// The control thread's answer, on its way to the shard that has asked.
#[derive(Debug)]
pub struct Answer<T> {
    number: u64,
    result: Result<T, ControlError>,
}

/// Who waits on this shard for answers of one kind. At most as many as the control thread's queue takes, and
/// as many as it keeps: one more is refused there.
struct Waiting<T>(RefCell<HashMap<u64, Slot<Result<T, ControlError>>>>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> Waiting<T> {
    /// Whoever has gone away meanwhile needs no answer.
    fn fill(&self, answer: Answer<T>) {
        if let Some(slot) = self.0.borrow_mut().remove(&answer.number) {
            slot.fill(answer.result);
        }
    }
}

/// What one shard has asked the control thread.
pub struct Proposals {
    control: ControlHandle,
    inbox: InboxSender<ShardEvent>,
    next: Cell<u64>,
    proposing: Waiting<ApplyOutcome>,
    /// How does the group stand?
    asking: Waiting<QuorumState>,
    /// Have all nodes applied something?
    spreading: Waiting<()>,
}

impl Proposals {
    /// Proposes through `control`; answers come back through `inbox`.
    #[must_use]
    pub fn new(control: ControlHandle, inbox: InboxSender<ShardEvent>) -> Self {
        Self {
            control,
            inbox,
            next: Cell::new(0),
            proposing: Waiting::default(),
            asking: Waiting::default(),
            spreading: Waiting::default(),
        }
    }

    /// Proposes a change; returns when it is applied on this shard.
    ///
    /// # Errors
    /// [`ControlError`]: see there what was done and what was not.
    pub async fn propose(&self, command: &MetadataCommand) -> Result<ApplyOutcome, ControlError> {
        let ask = |reply| self.control.propose(command, reply);
        self.ask(&self.proposing, ShardEvent::Answered, ask).await
    }

    /// Asks how the Raft group stands.
    ///
    /// # Errors
    /// [`ControlError`] when nobody could tell in time.
    pub async fn quorum(&self) -> Result<QuorumState, ControlError> {
        let ask = |reply| self.control.quorum(reply);
        self.ask(&self.asking, ShardEvent::Quorum, ask).await
    }

    /// Returns when every node that is there has applied the metadata up to `index`, or `patience` is at its
    /// end.
    ///
    /// # Errors
    /// [`ControlError`] when the control thread has too much to do, or has stopped.
    pub async fn when_spread(&self, index: u64, patience: Duration) -> Result<(), ControlError> {
        let ask = |reply| self.control.when_spread(index, patience, reply);
        self.ask(&self.spreading, ShardEvent::Spread, ask).await
    }

    async fn ask<T: Send + 'static>(
        &self,
        waiting: &Waiting<T>,
        event: fn(Answer<T>) -> ShardEvent,
        ask: impl FnOnce(Reply<T>) -> Result<(), ControlError>,
    ) -> Result<T, ControlError> {
        let number = self.next.get();
        self.next.set(number + 1);
        let inbox = self.inbox.clone();
        // Runs on the control thread, which may wait for this shard; this shard never waits for it.
        let reply = move |result| {
            // A shard that has ended has nobody left who waits.
            drop(inbox.send(event(Answer { number, result })));
        };
        let slot = Slot::default();
        waiting.0.borrow_mut().insert(number, slot.clone());
        if let Err(error) = ask(Box::new(reply)) {
            waiting.0.borrow_mut().remove(&number);
            return Err(error);
        }
        slot.await
    }

    /// Wakes the proposer.
    pub fn answered(&self, answer: Answer<ApplyOutcome>) {
        self.proposing.fill(answer);
    }

    /// Wakes whoever asked how the group stands.
    pub fn told(&self, answer: Answer<QuorumState>) {
        self.asking.fill(answer);
    }

    /// Wakes whoever waits for all nodes.
    pub fn spread(&self, answer: Answer<()>) {
        self.spreading.fill(answer);
    }
}
