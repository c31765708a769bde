//! Answers on their way, from this shard or another.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::core::Core;
use super::request::{Reply, Request};
use crate::io::local::Slot;
use crate::machine::input::{ProduceOutcomes, Token};
use crate::mesh::Call;

/// The answer to one request. Dropping it before it came cancels what can be cancelled: a parked
/// fetch, and nothing that changes a log.
#[derive(Debug)]
pub struct Answer(Inner);

#[derive(Debug)]
enum Inner {
    Own { core: Rc<Core>, slot: Slot<Reply>, wait: Option<Token> },
    Peer(Call<Request, Reply>),
}

impl Answer {
    pub(super) fn own(core: Rc<Core>, slot: Slot<Reply>, wait: Option<Token>) -> Self {
        Self(Inner::Own { core, slot, wait })
    }

    pub(super) fn peer(call: Call<Request, Reply>) -> Self {
        Self(Inner::Peer(call))
    }

    pub(super) async fn reply(mut self) -> Reply {
        std::future::poll_fn(|context| self.poll_reply(context)).await
    }

    fn poll_reply(&mut self, context: &mut Context<'_>) -> Poll<Reply> {
        match &mut self.0 {
            Inner::Own { slot, .. } => Pin::new(slot).poll(context),
            Inner::Peer(call) => Pin::new(call).poll(context),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Inner::Own { core, slot, wait: Some(token) } = &self.0
            && !slot.is_settled()
        {
            core.cancel(*token);
        }
    }
}

/// The outcomes of a produce that was handed over.
///
/// Dropping it changes nothing for the records. With `acks=0` it resolves when they are in the log.
#[derive(Debug)]
pub struct PendingProduce(pub(super) Answer);

impl Future for PendingProduce {
    type Output = ProduceOutcomes;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll_reply(context).map(|reply| match reply {
            Reply::Produced(outcomes) => outcomes,
            other => unreachable!("a produce was answered with {other:?}"),
        })
    }
}
