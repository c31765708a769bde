//! Connections between control planes: one each way between two nodes, each with a thread of its own.
//!
//! A node connects to every peer and sends on that connection; it receives on those that the peers have
//! made to it. Each peer has a bounded queue, in order. What does not fit is dropped, and raft is told:
//! it sends again what still matters. The same holds for what was queued while a peer was away, since
//! all of it is old by then.
//!
//! A connection is made at once and again after pauses that grow to a second, so that the order in which
//! nodes start does not matter. Both ends say who they are before anything else ([`acquaintance`]).
//!
//! [`acquaintance`]: super::acquaintance

mod frames;
mod receiver;
mod sender;

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chronik_shards::model::NodeId;
use crossbeam::channel::{Sender, TrySendError, bounded};

use super::acquaintance::Acquaintance;
use super::handle::Request;
use super::peer_message::{Delivery, PeerMessage};
use receiver::Receiver;
use sender::Link;

/// Messages that wait for one peer.
const PEER_QUEUE_MAX: usize = 256;

/// The way into a peer's thread.
struct Queue {
    /// Host and port.
    address: String,
    messages: Sender<PeerMessage>,
    /// Says that the peer is there.
    knock: Sender<()>,
}

/// The connections of this node's control plane.
pub(super) struct Transport {
    links: BTreeMap<NodeId, Queue>,
    acquaintance: Arc<Acquaintance>,
    queue: Sender<Request>,
    receiver: Receiver,
    stopping: Arc<AtomicBool>,
}

impl Transport {
    /// Listens on `listen`.
    pub(super) fn start(
        listen: SocketAddr,
        acquaintance: &Arc<Acquaintance>,
        queue: &Sender<Request>,
    ) -> io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let listener = TcpListener::bind(listen)?;
        let acquaintance = Arc::clone(acquaintance);
        let receiver = Receiver::start(
            listener,
            Arc::clone(&acquaintance),
            queue.clone(),
            Arc::clone(&stopping),
        )?;
        let (links, queue) = (BTreeMap::new(), queue.clone());
        Ok(Self { links, acquaintance, queue, receiver, stopping })
    }

    /// Connects to these nodes at these addresses, and to no other from now on.
    pub(super) fn connect_to(&mut self, peers: &BTreeMap<NodeId, String>) -> io::Result<()> {
        // The thread of one that is dropped ends with its queue.
        self.links.retain(|node, link| peers.get(node) == Some(&link.address));
        for (node, address) in peers {
            if self.links.contains_key(node) {
                continue;
            }
            let (messages, outgoing) = bounded(PEER_QUEUE_MAX);
            let (knock, knocked) = bounded(1);
            let link = Link {
                peer: *node,
                address: address.clone(),
                acquaintance: Arc::clone(&self.acquaintance),
                outgoing,
                knocked,
                reports: self.queue.clone(),
                stopping: Arc::clone(&self.stopping),
            };
            link.start()?;
            self.links.insert(*node, Queue { address: address.clone(), messages, knock });
        }
        Ok(())
    }

    /// Queues a message. What raft must know when it is dropped instead.
    pub(super) fn send(&self, to: NodeId, message: PeerMessage) -> Option<Delivery> {
        let lost = |message: &PeerMessage| match message.is_snapshot() {
            true => Delivery::SnapshotLost,
            false => Delivery::Lost,
        };
        let Some(link) = self.links.get(&to) else { return Some(lost(&message)) };
        match link.messages.try_send(message) {
            Ok(()) => None,
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => {
                Some(lost(&message))
            }
        }
    }

    /// A peer has connected: it is there, and can be connected to.
    pub(super) fn knock(&self, peer: NodeId) {
        if let Some(link) = self.links.get(&peer) {
            // One knock is as good as two.
            let _ = link.knock.try_send(());
        }
    }

    /// Stops listening and has every thread end. One that is about to connect takes a moment longer, and
    /// holds nothing that anybody waits for.
    pub(super) fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        // A sender waits for its queue, and that ends here.
        drop(self.links);
        self.receiver.stop();
    }
}
