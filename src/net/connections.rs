//! All connections of one shard: their list, their shared budgets, their housekeeping and their end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::budget::Budget;
use super::close::CloseReason;
use super::config::NetConfig;
use super::connection::{self, Connection};
use super::dispatch::{ConnectionContext, ConnectionId, Dispatcher};
use super::listener::ConnectionSlot;
use super::log_limit::LogLimit;
use super::read_buffer::ReadBuffers;
use super::rounds::Rounds;
use super::socket::AcceptedSocket;
use super::sweep::{Observation, SweepState};

/// The connections of one shard. Clones share them; the shard's thread owns them.
pub struct ShardConnections<D> {
    shard: Rc<Shard<D>>,
}

/// What the connections of a shard have in common.
pub(super) struct Shard<D> {
    pub(super) config: NetConfig,
    pub(super) dispatcher: Rc<D>,
    pub(super) request_budget: Budget,
    pub(super) large_request_budget: Budget,
    pub(super) response_budget: Budget,
    pub(super) buffers: ReadBuffers,
    pub(super) rounds: Rc<Rounds>,
    pub(super) stats: Stats,
    connections: RefCell<BTreeMap<ConnectionId, Entry>>,
    log: RefCell<LogLimit<{ CloseReason::KINDS }>>,
    housekeeping: Cell<bool>,
    stopping: Cell<bool>,
    emptied: RefCell<Option<Waker>>,
}

struct Entry {
    connection: Rc<Connection>,
    sweep: SweepState,
}

/// Counters of one shard since its start.
#[derive(Debug, Default)]
pub(super) struct Stats {
    opened: Cell<u64>,
    requests: Cell<u64>,
    responses: Cell<u64>,
    bytes_in: Cell<u64>,
    bytes_out: Cell<u64>,
    closed: [Cell<u64>; CloseReason::KINDS],
}

/// The connections of a shard in numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetStats {
    /// Open connections.
    pub connections: usize,
    /// Connections ever opened.
    pub opened: u64,
    /// Connections closed, by [`CloseReason::kind`].
    pub closed: [u64; CloseReason::KINDS],
    /// Requests received.
    pub requests: u64,
    /// Responses written.
    pub responses: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Bytes of requests held.
    pub request_bytes_reserved: usize,
    /// Connections that wait for memory.
    pub waiting_for_memory: usize,
    /// Bytes of responses that wait to be written, as far as handlers reserved them.
    pub response_bytes_reserved: usize,
}

impl<D> Clone for ShardConnections<D> {
    fn clone(&self) -> Self {
        Self { shard: Rc::clone(&self.shard) }
    }
}

impl<D: Dispatcher> ShardConnections<D> {
    /// No connections yet.
    ///
    /// # Panics
    /// If the configuration allows no request in flight.
    #[must_use]
    pub fn new(config: NetConfig, dispatcher: Rc<D>) -> Self {
        assert!(config.pipelined_requests_max > 0, "a connection needs room for one request");
        let shard = Shard {
            request_budget: Budget::new(config.request_budget_bytes / 2),
            large_request_budget: Budget::new(config.request_budget_bytes / 2),
            response_budget: Budget::new(config.response_budget_bytes),
            config,
            dispatcher,
            buffers: ReadBuffers::default(),
            rounds: Rc::default(),
            stats: Stats::default(),
            connections: RefCell::default(),
            log: RefCell::new(LogLimit::new()),
            housekeeping: Cell::new(false),
            stopping: Cell::new(false),
            emptied: RefCell::new(None),
        };
        Self { shard: Rc::new(shard) }
    }

    /// Serves an accepted socket from now on, by a task in the task queue of the caller. A socket that
    /// arrives while the shard stops is closed.
    pub fn adopt(&self, socket: AcceptedSocket) {
        if self.shard.stopping.get() {
            return;
        }
        if let Err(error) = self.shard.config.socket.apply(socket.fd.as_fd()) {
            tracing::debug!(connection = %socket.id, %error, "socket options not set");
        }
        let (id, peer) = (socket.id, socket.peer);
        let (stream, slot) = socket.into_stream();
        let budget = self.shard.response_budget.clone();
        let context = Rc::new(ConnectionContext::new(id, peer, budget));
        let connection = Rc::new(Connection::new(context, stream));
        let sweep = SweepState::new(Instant::now());
        let entry = Entry { connection: Rc::clone(&connection), sweep };
        let replaced = self.shard.connections.borrow_mut().insert(id, entry);
        assert!(replaced.is_none(), "connection ids are unique: {id}");
        bump(&self.shard.stats.opened, 1);

        let listed = Listed { shard: Rc::clone(&self.shard), id, _slot: slot };
        glommio::spawn_local(async move {
            let reason = connection::serve(&connection, &listed.shard).await;
            listed.shard.note_end(&connection, &reason);
        })
        .detach();
        self.keep_house();
    }

    /// Closes what is idle or stalled at `now`. The housekeeping timer calls it.
    pub fn sweep(&self, now: Instant) {
        let shard = &self.shard;
        let contended = shard.request_budget.waiting() + shard.large_request_budget.waiting() > 0;
        for entry in shard.connections.borrow_mut().values_mut() {
            let found = Observation::of(&entry.connection);
            let verdict = entry.sweep.judge(now, found, contended, &shard.config);
            let gone = || {
                (found.is_blind() && entry.connection.peer_is_gone())
                    .then_some(CloseReason::PeerGone)
            };
            if let Some(reason) = verdict.or_else(gone) {
                entry.connection.close(reason);
            }
        }
    }

    /// Orderly end: reads nothing further, answers what was accepted, closes. What is not done after
    /// `grace` is closed as it is.
    pub async fn stop(&self, grace: Duration) {
        self.shard.stopping.set(true);
        self.for_each(Connection::stop);
        let mut timer = pin!(glommio::timer::sleep(grace));
        poll_fn(|cx| match self.poll_empty(cx.waker()) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => timer.as_mut().poll(cx),
        })
        .await;
        self.for_each(|connection| connection.close(CloseReason::Stopped));
        poll_fn(|cx| self.poll_empty(cx.waker())).await;
    }

    /// Number of open connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shard.connections.borrow().len()
    }

    /// Whether none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters now.
    #[must_use]
    pub fn stats(&self) -> NetStats {
        let stats = &self.shard.stats;
        // Open connections count for themselves until they end.
        let (mut bytes_in, mut bytes_out) = (stats.bytes_in.get(), stats.bytes_out.get());
        self.for_each(|connection| {
            bytes_in += connection.activity.bytes_in.get();
            bytes_out += connection.activity.bytes_out.get();
        });
        NetStats {
            connections: self.len(),
            opened: stats.opened.get(),
            closed: std::array::from_fn(|kind| stats.closed[kind].get()),
            requests: stats.requests.get(),
            responses: stats.responses.get(),
            bytes_in,
            bytes_out,
            request_bytes_reserved: self.shard.request_budget.reserved()
                + self.shard.large_request_budget.reserved(),
            waiting_for_memory: self.shard.request_budget.waiting()
                + self.shard.large_request_budget.waiting(),
            response_bytes_reserved: self.shard.response_budget.reserved(),
        }
    }

    #[cfg(test)]
    pub(super) fn in_rounds(&self) -> usize {
        self.shard.rounds.len()
    }

    #[cfg(test)]
    pub(super) fn buffers_lent(&self) -> usize {
        self.shard.buffers.lent()
    }

    fn for_each(&self, mut visit: impl FnMut(&Connection)) {
        self.shard.connections.borrow().values().for_each(|entry| visit(&entry.connection));
    }

    fn poll_empty(&self, waker: &Waker) -> Poll<()> {
        if self.is_empty() {
            return Poll::Ready(());
        }
        *self.shard.emptied.borrow_mut() = Some(waker.clone());
        Poll::Pending
    }

    /// Runs the shard's one timer for as long as there are connections.
    fn keep_house(&self) {
        if self.shard.housekeeping.replace(true) {
            return;
        }
        let this = self.clone();
        glommio::spawn_local(async move {
            while !this.is_empty() {
                glommio::timer::sleep(this.shard.config.housekeeping_interval).await;
                this.sweep(Instant::now());
            }
            this.shard.housekeeping.set(false);
        })
        .detach();
    }
}

impl<D> Shard<D> {
    fn note_end(&self, connection: &Connection, reason: &CloseReason) {
        bump(&self.stats.bytes_in, connection.activity.bytes_in.take());
        bump(&self.stats.bytes_out, connection.activity.bytes_out.take());
        bump(&self.stats.closed[reason.kind()], 1);
        let context = &connection.context;
        let (id, peer) = (context.id(), context.peer());
        let client = context.client_id().unwrap_or("");
        if !reason.is_fault() {
            tracing::debug!(connection = %id, %peer, client, "closed: {reason}");
        } else if let Some(unlogged) = self.log.borrow_mut().admit(reason.kind(), Instant::now()) {
            tracing::warn!(connection = %id, %peer, client, unlogged, "closed: {reason}");
        }
    }
}

impl Stats {
    pub(super) fn request_received(&self) {
        bump(&self.requests, 1);
    }

    pub(super) fn responses_written(&self, responses: usize) {
        bump(&self.responses, responses as u64);
    }
}

fn bump(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get() + by);
}

/// Takes a connection off the list when its task ends, however it ends.
struct Listed<D> {
    shard: Rc<Shard<D>>,
    id: ConnectionId,
    _slot: ConnectionSlot,
}

impl<D> Drop for Listed<D> {
    fn drop(&mut self) {
        let removed = self.shard.connections.borrow_mut().remove(&self.id);
        drop(removed);
        if self.shard.connections.borrow().is_empty()
            && let Some(waker) = self.shard.emptied.take()
        {
            waker.wake();
        }
    }
}
