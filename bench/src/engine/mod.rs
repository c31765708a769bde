//! The client that measures: one thread, an epoll loop over its connections.
//!
//! What is sent and what an answer says is the business of a [`Traffic`]; when it is sent, how it is counted and
//! how long it took is decided here. Brokers and the bare servers of the `floor` are driven by the same loop.
//!
//! * Closed loop: a connection has `in_flight` requests under way; the next goes out when an answer came.
//!   Latency counts from the moment of sending.
//! * Fixed rate: every request has the moment at which it is due. One that is held up, because the connection has
//!   `in_flight` requests under way or because the client was late, still counts from when it was due. That is
//!   what corrects coordinated omission.
//!
//! What is measured lies between the ends of a [`Window`]: answers that came in it make the throughput, requests that
//! were due in it make the latency. After the window nothing becomes due; what is under way, and what was due and held
//! up, is seen to its end for a bounded time.
//!
//! Invariants: nothing is allocated for a request once the buffers have grown; answers are matched to
//! requests in order, by correlation id; a connection holds at most `in_flight` requests.

mod connection;
mod event_loop;
mod frame_reader;
mod outbox;
mod pace;
mod schedule;
#[cfg(test)]
mod tests;
mod thread_cpu;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hdrhistogram::Histogram;

pub use frame_reader::{Frame, FrameReader, ReadEnd};
pub use outbox::Outbox;
pub use pace::Pace;
pub use schedule::{Clock, Live, Schedule, StopFlag, Window};
pub use thread_cpu::ThreadCost;

/// Latencies above this are counted as this.
pub const LATENCY_MAX: Duration = Duration::from_secs(300);

/// How long a connection may take to be made.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// A histogram of nanoseconds with three significant digits.
#[must_use]
pub fn latency_histogram() -> Histogram<u64> {
    let highest = u64::try_from(LATENCY_MAX.as_nanos()).expect("minutes in nanoseconds");
    Histogram::new_with_bounds(1_000, highest, 3).expect("constant bounds that the crate takes")
}

/// What was moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Requests that were done.
    pub requests: u64,
    /// Records in them, or in their answers.
    pub records: u64,
    /// Bytes of the records' values, before compression.
    pub bytes: u64,
}

impl Tally {
    /// One request with this content.
    #[must_use]
    pub const fn request(records: u64, bytes: u64) -> Self {
        Self { requests: 1, records, bytes }
    }

    /// Adds what another has.
    pub const fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// A request that a [`Traffic`] put into the outbox.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The traffic's own, handed back with the answer.
    pub tag: u64,
    /// Whether the server answers it. One that is not answered is done when the socket has taken its last byte.
    pub answered: bool,
    /// What it moves, where that is known before the answer; for an unanswered one it is what counts.
    pub moves: Tally,
}

/// Why an answer does not count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The server refused the request and said so. Counted, and the run goes on.
    Refused(String),
    /// The answer is none to this request, or cannot be true. The run ends.
    Wrong(String),
}

/// What is sent on the connections of one [`Load`], and what the answers mean.
pub trait Traffic: Send + 'static {
    /// Puts the next request of a connection into its outbox, as one frame with its length; `None` when this
    /// connection has nothing more to send.
    ///
    /// `due_ns` is when it should leave, on the run's clock.
    fn next_request(
        &mut self,
        connection: usize,
        correlation_id: i32,
        due_ns: u64,
        outbox: &mut Outbox,
    ) -> Option<Request>;

    /// Says what an answer moved. `frame` has no length, and begins with the right correlation id.
    ///
    /// # Errors
    /// [`Fault`].
    fn judge(
        &mut self,
        connection: usize,
        request: &Request,
        frame: Frame<'_>,
        now_ns: u64,
    ) -> Result<Tally, Fault>;
}

/// Connections with the same kind of traffic, run by one thread.
#[derive(Debug)]
pub struct Load<T> {
    /// Name of the thread.
    pub name: String,
    /// Where each connection goes to.
    pub addresses: Vec<SocketAddr>,
    /// What goes over them.
    pub traffic: T,
    /// Most requests under way on a connection.
    pub in_flight: usize,
    /// When requests are due.
    pub pace: Pace,
    /// Largest answer that is believed.
    pub frame_bytes_max: usize,
}

/// Why a load ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No connection.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The server closed, or the network failed.
    #[error("connection {connection} to {address} broke: {error}")]
    Broken {
        /// Which of the load's.
        connection: usize,
        /// Where it went to.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// An answer that cannot be right.
    #[error("a wrong answer from {address} on connection {connection}: {what}")]
    Wrong {
        /// Which of the load's.
        connection: usize,
        /// Where it went to.
        address: SocketAddr,
        /// What is wrong with it.
        what: String,
    },
    /// The system refused the client something.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
    /// The client's own thread panicked.
    #[error("the client's thread {0} ended by a panic, which is a bug in chronik-bench")]
    Panicked(String),
}

/// What a load did.
#[derive(Debug)]
pub struct Outcome<T> {
    /// Done within the window.
    pub measured: Tally,
    /// Done at any time, ramp and drain included.
    pub done: Tally,
    /// Nanoseconds of the requests that were due within the window.
    pub latency: Histogram<u64>,
    /// Requests that the server refused, at any time.
    pub refused: u64,
    /// The server's words for the first of them.
    pub first_refusal: Option<String>,
    /// Requests without an answer when the drain's time was up.
    pub unanswered: u64,
    /// How long the window was.
    pub window: Duration,
    /// What the thread cost within the window.
    pub cost: ThreadCost,
    /// The traffic, with what it knows.
    pub traffic: T,
    /// Still open: a server may drop what it has not read yet of a connection that is closed.
    pub connections: Vec<std::net::TcpStream>,
}

/// A load whose connections are open.
#[derive(Debug)]
pub struct Connected<T> {
    load: Load<T>,
    streams: Vec<std::net::TcpStream>,
}

impl<T: Traffic> Load<T> {
    /// Opens the connections.
    ///
    /// # Errors
    /// [`EngineError::Connect`].
    pub fn connect(self) -> Result<Connected<T>, EngineError> {
        assert!(self.in_flight > 0, "a connection with no request under way sends none");
        let mut streams = Vec::with_capacity(self.addresses.len());
        for address in &self.addresses {
            let stream = connection::open(*address, CONNECT_PATIENCE)
                .map_err(|error| EngineError::Connect { address: *address, error })?;
            streams.push(stream);
        }
        Ok(Connected { load: self, streams })
    }
}

impl<T: Traffic> Connected<T> {
    /// Runs the load on a thread of its own.
    ///
    /// # Errors
    /// [`EngineError::System`] without a thread.
    pub fn spawn(self, schedule: &Schedule) -> Result<Running<T>, EngineError> {
        let name = self.load.name.clone();
        let schedule = schedule.clone();
        let live = Arc::new(Live::default());
        let shared = Arc::clone(&live);
        let thread = std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || event_loop::run(self.load, self.streams, &schedule, &shared))
            .map_err(|error| EngineError::System { what: "starting a thread", error })?;
        Ok(Running { name, thread, live })
    }
}

/// A load that runs.
#[derive(Debug)]
pub struct Running<T> {
    name: String,
    thread: JoinHandle<Result<Outcome<T>, EngineError>>,
    live: Arc<Live>,
}

impl<T> Running<T> {
    /// Figures while it runs.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end of the drain.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn join(self) -> Result<Outcome<T>, EngineError> {
        self.thread.join().unwrap_or(Err(EngineError::Panicked(self.name)))
    }
}
