//! Peers that connect to replicate: they say who they are, and go to the shard that they want.
//!
//! One shard accepts. Until a peer has introduced itself it is a stranger: its first frame has to come soon, is
//! short, and nothing may follow it before it is answered. Whether it is welcome is the wanted shard's to say.
//!
//! Bounds: so many strangers at once; more are closed.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chronik_shards::format::peer_frame::{HANDSHAKE_BYTES_MAX, Hello, PeerFrame, Refusal, Refused};
use chronik_shards::io::inbox::{InboxSender, NotSent};
use chronik_shards::io::peer_socket::{FrameReader, FrameWriter, PeerSocket, PeerSocketError};
use chronik_shards::model::ShardId;
use chronik_shards::shard::ShardHandle;

use crate::front::ShardEvent;
use crate::metadata_view::MetadataView;
use crate::net::AcceptedSocket;
use crate::net::listener::{Acceptor, BoundListener, ConnectionCounts, HandOver};

/// Strangers at once.
const STRANGERS_MAX: usize = 1024;
/// How long a stranger may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a full inbox is tried again.
const INBOX_PAUSE: Duration = Duration::from_millis(1);

/// A connection whose peer has said who it is and whom it wants.
#[derive(Debug)]
pub struct IntroducedPeer {
    /// The connection.
    pub socket: OwnedFd,
    /// What it said.
    pub hello: Hello,
}

/// Takes peers in, for all shards of the node.
#[derive(Clone)]
pub struct Introductions {
    /// The shard that accepts.
    pub shard: ShardHandle,
    /// Who is known.
    pub view: Rc<RefCell<MetadataView>>,
    /// Every shard's events, by shard.
    pub inboxes: Arc<[InboxSender<ShardEvent>]>,
}

impl Introductions {
    /// Accepts peers from now on.
    #[must_use]
    pub fn begin(self, listener: BoundListener) -> Acceptor {
        // Strangers stay on the shard that accepts: for them there is one.
        listener.accept(ConnectionCounts::new(1), STRANGERS_MAX, self)
    }

    async fn introduce(self, accepted: AcceptedSocket) {
        let address = accepted.peer;
        let (socket, _one_stranger) = accepted.into_parts();
        let introduced = async {
            let stranger = PeerSocket::adopt(socket)?;
            let hello = read_hello(&stranger).await?;
            if let Some(refused) = self.refusal(&hello) {
                tracing::info!(peer = %address, node = %hello.node_id, reason = refused.text, "refuses a peer");
                let mut writer = FrameWriter::default();
                writer.push(&PeerFrame::Refused(refused));
                return writer.send(&stranger).await;
            }
            let socket = stranger.duplicate()?;
            self.pass_on(IntroducedPeer { socket, hello }).await;
            Ok(())
        };
        if let Err(error) = introduced.await {
            tracing::warn!(peer = %address, %error, "a connection for replication is no peer's");
        }
    }

    /// What keeps the peer from any shard of this node.
    fn refusal(&self, hello: &Hello) -> Option<Refused> {
        let shards = self.shard.shard_count();
        if hello.target_shard.get() >= shards {
            let text = format!("this node has {shards} shards, none is {}", hello.target_shard);
            return Some(Refused { reason: Refusal::Shard, text });
        }
        let is_known = self.view.borrow().image().broker(hello.node_id).is_some();
        (!is_known).then(|| Refused {
            reason: Refusal::UnknownNode,
            text: format!("node {} is not registered, as far as is known here", hello.node_id),
        })
    }

    async fn pass_on(&self, peer: IntroducedPeer) {
        let target = peer.hello.target_shard;
        if target == self.shard.id() {
            return self.shard.adopt_peer(peer.socket, peer.hello);
        }
        let mut event = ShardEvent::Peer(peer);
        loop {
            match self.inboxes[usize::from(target.get())].try_send(event) {
                // A shard that has ended drops the socket, and so closes it.
                Ok(()) | Err(NotSent::Ended(_)) => return,
                Err(NotSent::Full(back)) => event = back,
            }
            glommio::timer::sleep(INBOX_PAUSE).await;
        }
    }
}

impl HandOver for Introductions {
    async fn hand_over(&self, _: ShardId, socket: AcceptedSocket) {
        glommio::spawn_local(self.clone().introduce(socket)).detach();
    }
}

async fn read_hello(stranger: &PeerSocket) -> io::Result<Hello> {
    let read = async {
        let mut frames = FrameReader::new(stranger);
        let frame = frames.next(HANDSHAKE_BYTES_MAX).await;
        // What follows would be lost with this reader.
        Ok((frame, frames.has_more()))
    };
    let (frame, has_more) =
        glommio::timer::timeout(PATIENCE, read).await.map_err(io::Error::from)?;
    match frame {
        Ok(Some(PeerFrame::Hello(hello))) if !has_more => Ok(hello),
        Ok(Some(_)) => Err(io::Error::other("it does not begin as a peer does")),
        Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(PeerSocketError::Io(error)) => Err(error),
        Err(PeerSocketError::Frame(error)) => Err(io::Error::other(error)),
    }
}
