//! The threads that listen: one that accepts, and one for each connection of a peer.

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use chronik_shards::model::NodeId;
use crossbeam::channel::Sender;

use super::frames::{Refused, read_message, receive};
use crate::control::acquaintance::Acquaintance;
use crate::control::handle::Request;

/// Connections at a time, those that have not said who they are among them. One more is closed.
const CONNECTIONS_MAX: usize = 64;
/// Pause after an accept that failed, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the threads share.
struct Shared {
    acquaintance: Arc<Acquaintance>,
    queue: Sender<Request>,
    stopping: Arc<AtomicBool>,
    /// Open connections by number, so that they can be ended.
    open: Mutex<Connections>,
    next: AtomicU64,
}

#[derive(Default)]
struct Connections {
    streams: BTreeMap<u64, TcpStream>,
    /// The newest of each peer: it replaces the one before, which may be half open for ever.
    by_peer: BTreeMap<NodeId, u64>,
}

/// The listening side.
pub(super) struct Receiver {
    listener: TcpListener,
    acceptor: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Receiver {
    pub(super) fn start(
        listener: TcpListener,
        acquaintance: Arc<Acquaintance>,
        queue: Sender<Request>,
        stopping: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            acquaintance,
            queue,
            stopping,
            open: Mutex::default(),
            next: AtomicU64::new(1),
        });
        let (accepting, threads) = (listener.try_clone()?, Arc::clone(&shared));
        let acceptor = std::thread::Builder::new()
            .name("control accept".to_owned())
            .spawn(move || accept(&accepting, &threads))?;
        Ok(Self { listener, acceptor, shared })
    }

    /// Ends every connection and every thread. The transport's stop is set before.
    pub(super) fn stop(self) {
        // SAFETY: the descriptor is open as long as the listener lives. The call ends an accept that
        // waits, which nothing else does.
        unsafe { libc::shutdown(self.listener.as_raw_fd(), libc::SHUT_RDWR) };
        if self.acceptor.join().is_err() {
            tracing::error!("the thread that accepts control planes panicked");
        }
        self.shared.close_all();
        // The threads of connections hold nothing that anybody waits for, and end by themselves.
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    loop {
        let accepted = listener.accept();
        if shared.stopping.load(Ordering::Acquire) {
            return;
        }
        match accepted {
            Ok((stream, _)) => serve(stream, shared),
            Err(error) => {
                tracing::warn!(%error, "a control plane's connection cannot be accepted");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    }
}

fn serve(stream: TcpStream, shared: &Arc<Shared>) {
    let connection = shared.next.fetch_add(1, Ordering::Relaxed);
    let Ok(handle) = stream.try_clone() else { return };
    if !shared.admit(connection, handle) {
        tracing::warn!("more than {CONNECTIONS_MAX} connections of control planes: one is closed");
        return;
    }
    let threads = Arc::clone(shared);
    let spawned = std::thread::Builder::new().name("control from".to_owned()).spawn(move || {
        converse(stream, connection, &threads);
        threads.leave(connection);
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread for a control plane's connection");
        shared.leave(connection);
    }
}

fn converse(mut stream: TcpStream, connection: u64, shared: &Shared) {
    let address = stream.peer_addr().map_or_else(|_| "?".to_owned(), |it| it.to_string());
    let peer = match receive(&mut stream, &shared.acquaintance) {
        Ok(peer) => peer,
        Err(Refused::Io(error)) => {
            tracing::debug!(%address, %error, "a connection to the control plane says nothing");
            return;
        }
        Err(refused) => {
            tracing::warn!(%address, "a connection to the control plane is refused: {refused}");
            return;
        }
    };
    shared.replace(peer, connection);
    if shared.queue.send(Request::Connected { peer, connection }).is_err() {
        return;
    }
    loop {
        match read_message(&mut stream) {
            Ok(message) => {
                let message = Request::Peer { from: peer, connection, message };
                if shared.queue.send(message).is_err() {
                    return;
                }
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidData {
                    tracing::warn!(%peer, %error, "a control plane's connection is closed");
                }
                return;
            }
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Connections> {
        // Maps of sockets are whole at every moment.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self, connection: u64, stream: TcpStream) -> bool {
        let streams = &mut self.open().streams;
        let fits = streams.len() < CONNECTIONS_MAX;
        if fits {
            streams.insert(connection, stream);
        }
        fits
    }

    /// Ends the connection that the peer had before, if any.
    fn replace(&self, peer: NodeId, connection: u64) {
        let mut open = self.open();
        let before = open.by_peer.insert(peer, connection);
        if let Some(stream) = before.and_then(|before| open.streams.get(&before)) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn leave(&self, connection: u64) {
        self.open().streams.remove(&connection);
    }

    fn close_all(&self) {
        for stream in self.open().streams.values() {
            // One that is closed already needs no closing.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
