//! Requests and replies between the shards of a node.
//!
//! Every ordered pair of shards has two bounded queues: one for what the first asks, one for what
//! the second answers. A caller holds one of `capacity` permits of the pair from before its request
//! is queued until its reply has been taken out, and waits in line when none is free. That one bound
//! makes every queue here large enough by construction:
//!
//! - replies: each answers a call that holds a permit, so at most `capacity`;
//! - requests: each holds a permit, so at most `capacity`;
//! - cancellations share the queue of the requests, behind the request they cancel. Take the oldest
//!   one in the queue. Calls cancelled behind it were either under way when it was pushed, at most
//!   `capacity`, or were pushed after it, so that they are in the queue still, unanswered, holding
//!   one of `capacity` permits. Together: `3 * capacity` places are enough.
//!
//! Nobody therefore waits for a queue, only for permits, and permits are freed by answering, which
//! never waits: two shards that flood one another cannot lock up.
//!
//! A message that is queued does not ring its peer's bell by itself: [`MeshPort::ring`], a task of the shard, does so after
//! what is ready has run, once for all that was queued meanwhile. A peer that slept is woken for a batch.
//!
//! Messages of one shard to another arrive in order. Payloads are reference-counted buffers; nothing
//! mutable is shared. Absent on purpose: broadcast, priorities, and any knowledge of the messages.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use crossbeam::queue::ArrayQueue;

use crate::io::inbox::{Bell, Ears};
use crate::io::local::{Permits, Signal, Slot};
use crate::io::places::Places;
use crate::model::ShardId;

/// Messages after which a peer is rung before everything that is ready has run.
const UNRUNG_MAX: usize = 32;

/// One shard's place in the mesh, before its thread has started.
#[derive(Debug)]
pub struct MeshSeat<Q, R> {
    shared: Arc<Shared<Q, R>>,
    id: ShardId,
    ears: Ears,
}

#[derive(Debug)]
struct Shared<Q, R> {
    shards: usize,
    capacity: usize,
    /// From shard f to shard t: `f * shards + t`. The pairs of a shard with itself stay unused.
    lanes: Vec<Lane<Q, R>>,
    bells: Vec<Arc<Bell>>,
}

/// What one shard asks another, and what it is answered.
#[derive(Debug)]
struct Lane<Q, R> {
    requests: ArrayQueue<ToPeer<Q>>,
    replies: ArrayQueue<(u64, R)>,
}

#[derive(Debug)]
enum ToPeer<Q> {
    Request(u64, Q),
    Cancel(u64),
}

/// Who asked: where the answer goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Caller {
    /// The shard.
    pub shard: ShardId,
    /// Its number for the call.
    call: u64,
}

/// What a shard hears from a peer.
#[derive(Debug)]
pub enum Incoming<Q> {
    /// Answer it, once, with [`MeshPort::reply`].
    Request(Caller, Q),
    /// The caller lost interest. It still gets its one answer, whatever it says; if that was given
    /// already, there is nothing to do.
    Cancelled(Caller),
}

/// One shard's end of the mesh, on its thread.
#[derive(Debug)]
pub struct MeshPort<Q, R> {
    shared: Arc<Shared<Q, R>>,
    id: ShardId,
    calls: RefCell<Places<Slot<R>>>,
    permits: Vec<Permits>,
    /// By peer: messages that it was not rung for.
    unrung: Vec<Cell<usize>>,
    /// Raised when there is one.
    rings: Signal,
}

/// An answer on its way. Dropping it tells the peer that nobody waits any more.
#[derive(Debug)]
pub struct Call<Q, R> {
    port: Rc<MeshPort<Q, R>>,
    peer: ShardId,
    call: u64,
    slot: Slot<R>,
}

/// Seats for `shards` shards. A pair has at most `capacity` calls under way in each direction.
///
/// # Errors
/// When there are not enough file descriptors for the bells.
///
/// # Panics
/// When there is no shard or no capacity.
pub fn build<Q, R>(shards: u16, capacity: usize) -> io::Result<Vec<MeshSeat<Q, R>>> {
    assert!(shards > 0 && capacity > 0, "a mesh has shards and room");
    let count = usize::from(shards);
    let lanes = (0..count * count)
        .map(|lane| {
            // A shard does not call itself: the smallest queue there is.
            let unused = lane / count == lane % count;
            Lane {
                requests: ArrayQueue::new(if unused { 1 } else { 3 * capacity }),
                replies: ArrayQueue::new(if unused { 1 } else { capacity }),
            }
        })
        .collect();
    let bells: Vec<_> = (0..count).map(|_| Bell::new()).collect::<io::Result<_>>()?;
    let (bells, ears): (Vec<_>, Vec<_>) = bells.into_iter().unzip();
    let shared = Arc::new(Shared { shards: count, capacity, lanes, bells });
    let seat = |(id, ears)| MeshSeat { shared: Arc::clone(&shared), id: ShardId(id), ears };
    Ok((0..shards).zip(ears).map(seat).collect())
}

impl<Q, R> MeshSeat<Q, R> {
    /// The shard's bell: give it to the shard's inboxes too.
    pub fn bell(&self) -> Arc<Bell> {
        Arc::clone(&self.shared.bells[usize::from(self.id.0)])
    }

    /// Whose seat it is.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Takes the seat, on the shard's thread. The second is for whoever drains the port.
    pub fn sit(self) -> (Rc<MeshPort<Q, R>>, Ears) {
        let unrung = (0..self.shared.shards).map(|_| Cell::new(0)).collect();
        let permits = (0..self.shared.shards).map(|_| Permits::new(self.shared.capacity)).collect();
        let port = MeshPort {
            shared: self.shared,
            id: self.id,
            calls: RefCell::default(),
            permits,
            unrung,
            rings: Signal::default(),
        };
        (Rc::new(port), self.ears)
    }
}

impl<Q, R> Shared<Q, R> {
    fn lane(&self, from: ShardId, to: ShardId) -> &Lane<Q, R> {
        assert!(from != to, "a shard calls itself directly");
        &self.lanes[usize::from(from.0) * self.shards + usize::from(to.0)]
    }

    fn ring(&self, shard: ShardId) {
        self.bells[usize::from(shard.0)].ring();
    }
}

impl<Q, R> MeshPort<Q, R> {
    /// Number of shards.
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.shared.shards).expect("built from a u16")
    }

    /// Every other shard.
    pub fn peers(&self) -> impl Iterator<Item = ShardId> + use<Q, R> {
        let own = self.id;
        (0..self.shard_count()).map(ShardId).filter(move |peer| *peer != own)
    }

    /// Makes the peers that have not answered turn once.
    pub fn nudge(&self) {
        for peer in self.peers().map(|peer| usize::from(peer.0)) {
            if self.permits[peer].free() < self.shared.capacity {
                self.shared.bells[peer].nudge();
            }
        }
    }

    /// Hands a request to `peer` and returns the answer to come. Waits only for a permit, in line.
    ///
    /// # Panics
    /// When `peer` is the caller's own shard.
    pub async fn call(self: &Rc<Self>, peer: ShardId, request: Q) -> Call<Q, R> {
        self.permits[usize::from(peer.0)].acquire().await;
        let slot = Slot::default();
        let call = self.calls.borrow_mut().insert(slot.clone());
        self.push(peer, ToPeer::Request(call, request));
        Call { port: Rc::clone(self), peer, call, slot }
    }

    fn push(&self, peer: ShardId, message: ToPeer<Q>) {
        let pushed = self.shared.lane(self.id, peer).requests.push(message);
        assert!(pushed.is_ok(), "permits bound the requests and cancellations of a lane");
        self.queued(peer);
    }

    /// Notes that something was queued for `peer`.
    fn queued(&self, peer: ShardId) {
        let unrung = &self.unrung[usize::from(peer.0)];
        unrung.set(unrung.get() + 1);
        if unrung.get() == UNRUNG_MAX {
            unrung.set(0);
            self.shared.ring(peer);
        } else if unrung.get() == 1 {
            self.rings.raise();
        }
    }

    /// Rings the bells of peers that have something to hear, for ever. A shard runs it as a task, behind those that
    /// queue messages.
    pub async fn ring(self: Rc<Self>) {
        loop {
            self.rings.wait().await;
            for peer in self.peers() {
                if self.unrung[usize::from(peer.0)].take() > 0 {
                    self.shared.ring(peer);
                }
            }
        }
    }

    /// Answers a request. Never waits.
    pub fn reply(&self, caller: Caller, reply: R) {
        let pushed = self.shared.lane(caller.shard, self.id).replies.push((caller.call, reply));
        assert!(pushed.is_ok(), "the caller's permits bound the replies of a lane");
        self.queued(caller.shard);
    }

    /// Takes what `peer` has sent: its replies, which wake their callers, and then its requests.
    ///
    /// `first` runs after it is settled which requests are taken now and before the first is
    /// handled. Whatever `first` takes out of an inbox therefore includes everything that was put
    /// there before those requests were sent.
    ///
    /// Returns how many messages there were.
    pub fn drain(
        &self,
        peer: ShardId,
        first: impl FnOnce(),
        mut each: impl FnMut(Incoming<Q>),
    ) -> usize {
        let answers = &self.shared.lane(self.id, peer).replies;
        let mut taken = 0;
        while let Some((call, reply)) = answers.pop() {
            self.settle(peer, call, reply);
            taken += 1;
        }
        let requests = &self.shared.lane(peer, self.id).requests;
        let arrived = requests.len();
        first();
        for _ in 0..arrived {
            let Some(message) = requests.pop() else { break };
            each(match message {
                ToPeer::Request(call, request) => {
                    Incoming::Request(Caller { shard: peer, call }, request)
                }
                ToPeer::Cancel(call) => Incoming::Cancelled(Caller { shard: peer, call }),
            });
            taken += 1;
        }
        taken
    }

    fn settle(&self, peer: ShardId, call: u64, reply: R) {
        let slot = self.calls.borrow_mut().remove(call).expect("a call is answered once");
        slot.fill(reply);
        self.permits[usize::from(peer.0)].release();
    }

    /// Calls that have no answer yet.
    pub fn under_way(&self) -> usize {
        self.calls.borrow().len()
    }
}

impl<Q, R> Unpin for Call<Q, R> {}

impl<Q, R> Future for Call<Q, R> {
    type Output = R;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<R> {
        Pin::new(&mut self.slot).poll(context)
    }
}

impl<Q, R> Drop for Call<Q, R> {
    fn drop(&mut self) {
        if !self.slot.is_settled() {
            self.port.push(self.peer, ToPeer::Cancel(self.call));
        }
    }
}

#[cfg(test)]
mod tests;
