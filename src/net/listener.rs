//! Accepting: one task of one shard, which gives each socket to the shard with the fewest.
//!
//! Invariants
//! - The accepting task is never cancelled: glommio would lose a connection and its descriptor. It
//!   ends after [`Acceptor::stop`] has shut the listening socket down, which wakes it.
//! - No error of `accept` ends it, and none makes it spin: without descriptors it pauses.
//! - A [`ConnectionSlot`] travels with each socket and is given back wherever that is dropped.
//!
//! The counts of open connections are atomics, shared by all shards: they are touched when a connection
//! opens or closes, not on the data path, and a guard cannot get lost in a full queue as a message can.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chronik_shards::model::ShardId;
use glommio::net::{AcceptedTcpStream, TcpListener};

use super::dispatch::ConnectionId;
use super::log_limit::LogLimit;
use super::socket::AcceptedSocket;

/// Connections the kernel keeps until they are accepted.
const BACKLOG: libc::c_int = 1024;
/// Errors in a row that concern one connection each and are passed over without a pause.
const ERRORS_WITHOUT_PAUSE: u32 = 16;
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

const LOG_REFUSED: usize = 0;
const LOG_FAILED: usize = 1;

/// Open connections of every shard. Shared by all.
#[derive(Debug)]
pub struct ConnectionCounts {
    shards: Box<[AtomicUsize]>,
}

/// One connection in the counts; leaves them on drop.
#[derive(Debug)]
pub struct ConnectionSlot {
    counts: Arc<ConnectionCounts>,
    shard: usize,
}

/// A bound socket that nobody accepts from yet. May move to the accepting shard.
#[derive(Debug)]
pub struct BoundListener {
    listener: StdListener,
}

/// Takes accepted sockets to their shards.
pub trait HandOver: 'static {
    /// Delivers the socket to that shard, which adopts it. May wait for room on the way; a socket that
    /// cannot be delivered is dropped and so closed.
    fn hand_over(&self, shard: ShardId, socket: AcceptedSocket) -> impl Future<Output = ()>;
}

/// The accepting task, as its shard holds it.
#[derive(Debug)]
pub struct Acceptor {
    state: Rc<AcceptState>,
}

#[derive(Debug)]
struct AcceptState {
    fd: RawFd,
    stopping: Cell<bool>,
    ended: Cell<bool>,
}

impl ConnectionCounts {
    /// Counts for this many shards.
    #[must_use]
    pub fn new(shards: u16) -> Arc<Self> {
        Arc::new(Self { shards: (0..shards).map(|_| AtomicUsize::new(0)).collect() })
    }

    /// Open connections of the node.
    #[must_use]
    pub fn total(&self) -> usize {
        self.shards.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Counts a connection to the shard with the fewest.
    ///
    /// # Panics
    /// Without shards.
    #[must_use]
    pub fn claim(self: &Arc<Self>) -> (ShardId, ConnectionSlot) {
        let shard = (0..self.shards.len())
            .min_by_key(|&shard| self.shards[shard].load(Ordering::Relaxed))
            .expect("a node has at least one shard");
        self.shards[shard].fetch_add(1, Ordering::Relaxed);
        let id = u16::try_from(shard).expect("there are at most u16::MAX shards");
        (ShardId(id), ConnectionSlot { counts: Arc::clone(self), shard })
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        self.counts.shards[self.shard].fetch_sub(1, Ordering::Relaxed);
    }
}

impl BoundListener {
    /// Binds and listens, without SO_REUSEPORT: a port that another process has is an error.
    ///
    /// # Errors
    /// What the kernel says, with the address in front.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
        };
        let listener = StdListener::bind(address).map_err(named)?;
        // SAFETY: a valid listening socket; listening again sets the backlog.
        if unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) } != 0 {
            return Err(named(io::Error::last_os_error()));
        }
        Ok(Self { listener })
    }

    /// The address it is bound to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Starts accepting by a task in the task queue of the caller. Beyond `connections_max` open ones
    /// of the node, connections are accepted and closed at once.
    #[must_use]
    pub fn accept<H: HandOver>(
        self,
        counts: Arc<ConnectionCounts>,
        connections_max: usize,
        hand_over: H,
    ) -> Acceptor {
        let fd = self.listener.into_raw_fd();
        // SAFETY: the descriptor was owned here and is handed over.
        let listener = unsafe { TcpListener::from_raw_fd(fd) };
        let (stopping, ended) = (Cell::new(false), Cell::new(false));
        let state = Rc::new(AcceptState { fd, stopping, ended });
        let accepting = Accepting {
            state: Rc::clone(&state),
            counts,
            connections_max,
            next_id: 1,
            log: LogLimit::new(),
        };
        glommio::spawn_local(accepting.run(listener, hand_over)).detach();
        Acceptor { state }
    }
}

impl Acceptor {
    /// Stops accepting: connections that arrive from now on are refused by the kernel.
    pub fn stop(&self) {
        if self.state.stopping.replace(true) || self.state.ended.get() {
            return;
        }
        // SAFETY: the accepting task owns the descriptor and has not ended. Its accept returns.
        unsafe { libc::shutdown(self.state.fd, libc::SHUT_RD) };
    }

    /// Whether the accepting task has ended and closed the listening socket.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state.ended.get()
    }
}

struct Accepting {
    state: Rc<AcceptState>,
    counts: Arc<ConnectionCounts>,
    connections_max: usize,
    next_id: u64,
    log: LogLimit<2>,
}

impl Accepting {
    async fn run<H: HandOver>(mut self, listener: TcpListener, hand_over: H) {
        let mut errors = 0;
        while !self.state.stopping.get() {
            let socket = match listener.shared_accept().await {
                Ok(accepted) => self.admit(accepted),
                Err(error) => Err(io::Error::from(error)),
            };
            match socket {
                Ok(Some((shard, socket))) => {
                    errors = 0;
                    hand_over.hand_over(shard, socket).await;
                }
                Ok(None) => errors = 0,
                Err(_) if self.state.stopping.get() => {}
                Err(error) => {
                    errors += 1;
                    self.log_failure(&error);
                    if let Some(pause) = pause_after(&error, errors) {
                        glommio::timer::sleep(pause).await;
                    }
                }
            }
            glommio::yield_if_needed().await;
        }
        self.state.ended.set(true);
        drop(listener);
    }

    /// Gives an accepted socket an identity and a shard, or closes it.
    fn admit(
        &mut self,
        accepted: AcceptedTcpStream,
    ) -> io::Result<Option<(ShardId, AcceptedSocket)>> {
        // Bound at once, because only a bound stream closes its descriptor when dropped.
        let stream = accepted.bind_to_executor();
        if self.state.stopping.get() {
            return Ok(None);
        }
        let open = self.counts.total();
        if open >= self.connections_max {
            if let Some(unlogged) = self.log.admit(LOG_REFUSED, Instant::now()) {
                let limit = self.connections_max;
                tracing::warn!(
                    open,
                    unlogged,
                    "connection refused: max.connections={limit} are open"
                );
            }
            return Ok(None);
        }
        // A peer that has already left again has no address.
        let Ok(peer) = stream.peer_addr() else { return Ok(None) };
        // A stream does not give its descriptor away, so the socket travels by a duplicate.
        // SAFETY: the descriptor is open for as long as `stream` lives.
        let fd = unsafe { BorrowedFd::borrow_raw(stream.as_raw_fd()) }.try_clone_to_owned()?;
        let id = ConnectionId(self.next_id);
        self.next_id += 1;
        let (shard, slot) = self.counts.claim();
        Ok(Some((shard, AcceptedSocket { id, peer, fd, slot })))
    }

    fn log_failure(&mut self, error: &io::Error) {
        if let Some(unlogged) = self.log.admit(LOG_FAILED, Instant::now()) {
            tracing::warn!(%error, unlogged, "accept failed; going on");
        }
    }
}

/// How long to wait after an error, the `count`th in a row: not at all if it concerns one connection,
/// growing if it concerns the process.
fn pause_after(error: &io::Error, count: u32) -> Option<Duration> {
    let exhausted = matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    );
    if !exhausted && count <= ERRORS_WITHOUT_PAUSE {
        return None;
    }
    Some((PAUSE_MIN * (1 << count.min(10))).min(PAUSE_MAX))
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn a_connection_goes_to_the_shard_with_the_fewest() {
        let counts = ConnectionCounts::new(3);
        let claimed: Vec<_> = (0..6).map(|_| counts.claim()).collect();
        assert_eq!(
            claimed.iter().map(|(shard, _)| shard.get()).collect::<Vec<_>>(),
            [0, 1, 2, 0, 1, 2]
        );
        let mut claimed = claimed;
        drop(claimed.remove(4));
        assert_eq!(counts.total(), 5);
        assert_eq!(counts.claim().0, ShardId(1));
    }

    #[test]
    fn without_descriptors_accepting_pauses_and_an_aborted_connection_is_passed_over() {
        let error = io::Error::from_raw_os_error;
        assert!(pause_after(&error(libc::EMFILE), 1).is_some());
        assert_eq!(pause_after(&error(libc::EMFILE), u32::MAX), Some(PAUSE_MAX));
        assert_eq!(pause_after(&error(libc::ECONNABORTED), 1), None);
        assert!(pause_after(&error(libc::EBADF), ERRORS_WITHOUT_PAUSE + 1).is_some());
    }

    #[test]
    fn a_port_that_is_taken_is_an_error() {
        let first = BoundListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let error = BoundListener::bind(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
