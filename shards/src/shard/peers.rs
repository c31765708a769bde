//! Connections to and from shards of other nodes: what the machine wants of its peers is done here.
//!
//! One task a connection, which reads and writes and tells the machine when it ends. Reading comes
//! first: an acknowledgement that waits in the socket is worth more than a frame that could leave.
//!
//! Bounds: the machine's windows bound what is sent and what is taken; a connection holds one frame that arrives
//! and [`SEND_BYTES`](crate::io::peer_socket::SEND_BYTES) and a frame that leave.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::core::Core;
use crate::format::metadata_command::ChangePartition;
use crate::format::peer_frame::{Hello, PeerFrame};
use crate::format::record_batch::{Batches, StoredBatch};
use crate::io::local::{Latch, Signal};
use crate::io::log_reader::{Range, ReadFor};
use crate::io::peer_socket::{FrameReader, FrameWriter, PeerSocket, PeerSocketError};
use crate::machine::replication::{ConnectionId, LogRead, PeerEffect};
use crate::model::{NodeId, Offset, ReplicaKey, ShardId};

/// How long an attempt to connect may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);

/// The peers of a shard.
#[derive(Debug)]
pub(super) struct Peers {
    connections: RefCell<BTreeMap<ConnectionId, Rc<Connection>>>,
    addresses: RefCell<BTreeMap<NodeId, (String, u16)>>,
    /// Whom connecting to has failed last time: said once.
    unreachable: RefCell<BTreeSet<(NodeId, ShardId)>>,
    /// In-sync sets to be proposed: at most one of each partition that is led here.
    proposals: RefCell<VecDeque<ChangePartition>>,
    proposed: Signal,
    frame_bytes_max: usize,
}

/// A connection as others than its task know it.
#[derive(Debug)]
struct Connection {
    /// Whose shard is at the other end.
    node_id: NodeId,
    shard: ShardId,
    /// The machine has frames for it.
    ready: Signal,
    /// The machine is done with it.
    closed: Latch,
}

/// How a connection came to its end.
enum End {
    /// The machine wanted it, or the node stops: nobody has to be told.
    Closed,
    /// The peer closed it.
    ByPeer,
    Failed(PeerSocketError),
}

impl Peers {
    /// No peers. Frames may have `frame_bytes_max`.
    pub(super) fn new(frame_bytes_max: usize) -> Self {
        Self {
            connections: RefCell::default(),
            addresses: RefCell::default(),
            unreachable: RefCell::default(),
            proposals: RefCell::default(),
            proposed: Signal::default(),
            frame_bytes_max,
        }
    }

    /// Where a node's shards are reached from now on.
    pub(super) fn set_address(&self, node_id: NodeId, host: String, port: u16) {
        self.addresses.borrow_mut().insert(node_id, (host, port));
    }

    /// The next in-sync set to propose.
    pub(super) async fn next_proposal(&self) -> ChangePartition {
        loop {
            if let Some(change) = self.proposals.borrow_mut().pop_front() {
                return change;
            }
            self.proposed.wait().await;
        }
    }

    fn insert(&self, id: ConnectionId, node_id: NodeId, shard: ShardId) -> Rc<Connection> {
        let (ready, closed) = (Signal::default(), Latch::default());
        let connection = Rc::new(Connection { node_id, shard, ready, closed });
        self.connections.borrow_mut().insert(id, Rc::clone(&connection));
        connection
    }
}

impl Core {
    /// Does what the machine wants of its peers.
    pub(super) fn perform_for_peers(&self) {
        loop {
            let Some(effect) = self.next_peer_effect() else { return };
            match effect {
                PeerEffect::Connect { connection, node_id, shard } => {
                    let open = self.peers.insert(connection, node_id, shard);
                    let core = self.me();
                    spawn(async move { core.dial(open, connection).await });
                }
                PeerEffect::Disconnect { connection, reason } => {
                    if let Some(open) = self.peers.connections.borrow_mut().remove(&connection) {
                        let (node, peer) = (open.node_id, open.shard);
                        tracing::info!(shard = %self.id, %node, %peer, reason, "disconnects a peer");
                        open.closed.open();
                    }
                }
                PeerEffect::FramesReady { connection } => {
                    if let Some(open) = self.peers.connections.borrow().get(&connection) {
                        open.ready.raise();
                    }
                }
                PeerEffect::ReadLog(read) => {
                    let core = self.me();
                    spawn(async move { core.read_for_peer(read).await });
                }
                PeerEffect::Acknowledged { node_id, key, end_offset } => {
                    self.tell_acknowledged(node_id, key, end_offset);
                }
                PeerEffect::ProposeIsr(change) => {
                    self.peers.proposals.borrow_mut().push_back(change);
                    self.peers.proposed.raise();
                }
            }
        }
    }

    /// Connects to a peer, and serves the connection to its end.
    async fn dial(self: Rc<Self>, open: Rc<Connection>, id: ConnectionId) {
        let (node_id, shard) = (open.node_id, open.shard);
        let is_news = |failed: bool| {
            let mut unreachable = self.peers.unreachable.borrow_mut();
            let target = (node_id, shard);
            if failed { unreachable.insert(target) } else { unreachable.remove(&target) }
        };
        let address = self.peers.addresses.borrow().get(&node_id).cloned();
        let connected = match &address {
            Some((host, port)) => PeerSocket::connect(host, *port, CONNECT_PATIENCE).await,
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no address is known of it")),
        };
        let end = match connected {
            _ if open.closed.is_open() => End::Closed,
            Ok(socket) => {
                let has_recovered = is_news(false);
                tracing::debug!(shard = %self.id, node = %node_id, peer = %shard, has_recovered, "connected to a peer");
                self.drive(|machine, now, out| machine.peer_connected(now, id, out));
                self.serve_peer(&open, id, &socket).await
            }
            Err(error) => {
                if is_news(true) {
                    tracing::warn!(shard = %self.id, node = %node_id, peer = %shard, %error, "cannot reach a peer; tries again");
                }
                End::ByPeer
            }
        };
        self.peer_ended(&open, id, end);
    }

    /// Takes over a connection whose peer has said who it is, or refuses it.
    pub(super) fn adopt_peer(&self, socket: OwnedFd, hello: Hello) {
        let socket = match PeerSocket::adopt(socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!(%error, "cannot take a peer's connection over"),
        };
        let accepted = self.drive(|machine, now, out| machine.peer_accepted(now, &hello, out));
        let core = self.me();
        match accepted {
            Ok(id) => {
                let open = self.peers.insert(id, hello.node_id, hello.shard);
                // The machine has said that there is an answer before there was a connection for it.
                open.ready.raise();
                spawn(async move {
                    let end = core.serve_peer(&open, id, &socket).await;
                    core.peer_ended(&open, id, end);
                });
            }
            Err(refused) => {
                tracing::info!(shard = %self.id, node = %hello.node_id, reason = refused.text, "refuses a peer");
                spawn(async move {
                    let mut writer = FrameWriter::default();
                    writer.push(&PeerFrame::Refused(refused));
                    // Whoever was refused may have left.
                    let _ = writer.send(&socket).await;
                });
            }
        }
    }

    async fn serve_peer(&self, open: &Connection, id: ConnectionId, socket: &PeerSocket) -> End {
        let mut closed = pin!(open.closed.wait_or(&self.exit));
        let mut reader = pin!(self.read_frames(id, socket));
        let mut writer = pin!(self.write_frames(open, id, socket));
        poll_fn(|context| {
            if closed.as_mut().poll(context).is_ready() {
                return Poll::Ready(End::Closed);
            }
            match reader.as_mut().poll(context) {
                Poll::Ready(Ok(())) => return Poll::Ready(End::ByPeer),
                Poll::Ready(Err(error)) => return Poll::Ready(End::Failed(error)),
                Poll::Pending => {}
            }
            writer.as_mut().poll(context).map(|error| End::Failed(error.into()))
        })
        .await
    }

    async fn read_frames(
        &self,
        id: ConnectionId,
        socket: &PeerSocket,
    ) -> Result<(), PeerSocketError> {
        let mut frames = FrameReader::new(socket);
        while let Some(frame) = frames.next(self.peers.frame_bytes_max).await? {
            self.drive(|machine, now, out| machine.peer_frame(now, id, frame, out));
            glommio::yield_if_needed().await;
        }
        Ok(())
    }

    /// Ends only by a failure.
    async fn write_frames(
        &self,
        open: &Connection,
        id: ConnectionId,
        socket: &PeerSocket,
    ) -> io::Error {
        let mut writer = FrameWriter::default();
        loop {
            while !writer.is_full()
                && let Some(frame) = self.next_peer_frame(id)
            {
                writer.push(&frame);
            }
            if writer.is_empty() {
                open.ready.wait().await;
                continue;
            }
            if let Err(error) = writer.send(socket).await {
                return error;
            }
        }
    }

    /// For operators who look for it in the log.
    fn tell_acknowledged(&self, node: NodeId, key: ReplicaKey, end_offset: Offset) {
        let addresses = self.peers.addresses.borrow();
        let (host, port) = addresses.get(&node).map_or(("?", 0), |(host, port)| (host, *port));
        let directory = self.directory(key);
        let name = directory.as_deref().and_then(Path::file_name).unwrap_or_default();
        let name = name.to_string_lossy();
        tracing::debug!(
            "ACK received from {host}:{port}: {name} offset {end_offset} (node {node})"
        );
    }

    fn peer_ended(&self, open: &Connection, id: ConnectionId, end: End) {
        match end {
            End::Closed => return,
            End::ByPeer => {}
            End::Failed(error) => {
                let (node, peer) = (open.node_id, open.shard);
                tracing::info!(shard = %self.id, %node, %peer, %error, "a peer's connection ended");
            }
        }
        if self.peers.connections.borrow_mut().remove(&id).is_some() {
            self.drive(|machine, now, out| machine.peer_lost(now, id, out));
        }
    }

    async fn read_for_peer(self: Rc<Self>, read: LogRead) {
        let LogRead { key, offset, end, bytes_max, .. } = read;
        let range = Range { offset, end, max_bytes: bytes_max };
        let batches = match self.read(key, range, ReadFor::Node).await {
            Ok(bytes) => Batches::new(&bytes)
                .map_while(Result::ok)
                .map_while(|(at, header)| {
                    StoredBatch::from_log(bytes.slice(at..at + header.total_bytes)).ok()
                })
                .collect(),
            // Why is in the log; the stream is begun again.
            Err(_) => Vec::new(),
        };
        self.drive(|machine, now, out| machine.log_read(now, read, batches, out));
    }
}

fn spawn(task: impl Future<Output = ()> + 'static) {
    glommio::spawn_local(task).detach();
}
