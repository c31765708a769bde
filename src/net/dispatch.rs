//! What the connection layer asks of whoever understands the frames.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

use super::budget::{Budget, Reservation};

/// Identity of a connection within the life of the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a client says of itself in ApiVersions. Source: KIP-511.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientSoftware {
    /// `ClientSoftwareName`.
    pub name: String,
    /// `ClientSoftwareVersion`.
    pub version: String,
}

/// A connection as a handler sees it. Owner: the connection's shard.
#[derive(Debug)]
pub struct ConnectionContext {
    id: ConnectionId,
    peer: SocketAddr,
    response_budget: Budget,
    software: RefCell<Option<Rc<ClientSoftware>>>,
    client_id: OnceCell<Box<str>>,
}

impl ConnectionContext {
    /// A connection nothing is known of but its address.
    #[must_use]
    pub fn new(id: ConnectionId, peer: SocketAddr, response_budget: Budget) -> Self {
        let (software, client_id) = (RefCell::new(None), OnceCell::new());
        Self { id, peer, response_budget, software, client_id }
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The client's address.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Budget of the shard for responses that wait to be written. A handler whose answer can shrink
    /// takes what is free with `try_take_up_to` and hands the reservation over with its
    /// [`Response`]; it never waits for it.
    #[must_use]
    pub fn response_budget(&self) -> &Budget {
        &self.response_budget
    }

    /// What the client said of itself; `None` before an ApiVersions request of version 3 or later.
    #[must_use]
    pub fn software(&self) -> Option<Rc<ClientSoftware>> {
        self.software.borrow().clone()
    }

    /// Notes what the client says of itself.
    pub fn set_software(&self, software: ClientSoftware) {
        *self.software.borrow_mut() = Some(Rc::new(software));
    }

    /// The client id of the connection's first request that had one, for log lines.
    #[must_use]
    pub fn client_id(&self) -> Option<&str> {
        self.client_id.get().map(|id| &**id)
    }

    /// Notes the client id of a request; all but the first are ignored.
    pub fn note_client_id(&self, client_id: &str) {
        self.client_id.get_or_init(|| client_id.into());
    }
}

/// One response: its bytes behind the length prefix, which the connection puts in front.
#[derive(Debug, Default)]
pub struct Response {
    pub(super) chunks: Vec<Bytes>,
    pub(super) reservation: Option<Reservation>,
}

impl Response {
    /// A response of these chunks, written one after the other; long ones are not copied.
    #[must_use]
    pub fn new(chunks: Vec<Bytes>) -> Self {
        Self { chunks, reservation: None }
    }

    /// Ties bytes of the response budget to it: released when it is written or its connection gone.
    #[must_use]
    pub fn with_reservation(mut self, reservation: Reservation) -> Self {
        self.reservation = Some(reservation);
        self
    }

    /// Bytes behind the length prefix.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }
}

/// The second phase of a request: ends in its response, in `None` where the protocol has none, or in the reason
/// to close the connection.
///
/// It is polled once it is the oldest unanswered one of its connection, not before: whatever has to
/// run beside earlier requests is started in the first phase. It is dropped, and so cancelled, when
/// the connection ends first.
pub type PendingResponse = Pin<Box<dyn Future<Output = Result<Option<Response>, String>>>>;

/// What became of a frame in the first phase.
pub enum Dispatched {
    /// The response is there already.
    Ready(Response),
    /// The response follows.
    Respond(PendingResponse),
    /// The connection is closed once what came before is answered. Says why, for the log.
    Close(String),
}

impl fmt::Debug for Dispatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(response) => f.debug_tuple("Ready").field(response).finish(),
            Self::Respond(_) => f.write_str("Respond(..)"),
            Self::Close(why) => f.debug_tuple("Close").field(why).finish(),
        }
    }
}

/// Whoever understands the frames. One a shard.
pub trait Dispatcher: 'static {
    /// Whether the frame may be dispatched while earlier ones of its kind are unanswered: true for
    /// Produce and Fetch, false for everything else and for what cannot be read.
    fn is_pipelined(&self, frame: &[u8]) -> bool;

    /// Whether nobody minds if the frame is looked at some milliseconds later: true for heartbeats.
    fn can_wait(&self, frame: &[u8]) -> bool;

    /// The first phase. Called frame by frame in order of arrival; the next frame of the connection
    /// waits until it returns. It awaits nothing but room in a queue and its turn on the shard.
    fn dispatch(
        &self,
        frame: Bytes,
        connection: &Rc<ConnectionContext>,
    ) -> impl Future<Output = Dispatched>;
}
