//! One connection: a reader and a writer polled by one task, reader first.
//!
//! The reader is a straight line per request: length, memory, body, turn, dispatch. While it waits for
//! its turn it keeps a read pending as long as its buffer is empty, so that a peer that leaves while
//! it waits for an answer is noticed at once. When bytes that may not be processed yet are in the
//! buffer, reading on would defeat back-pressure: then a failing write tells, or the sweep, which
//! asks the kernel for a reset (see [`super::sweep`]).
//!
//! An end of stream ends the reader for good; what was accepted before is still answered, because a
//! client may close its sending half first.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::Bytes;
use chronik_shards::io::socket::{poll_uninterrupted, receive_now};
use chronik_shards::io::turn::{Turn, give_way};
use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use super::close::CloseReason;
use super::config::LARGE_REQUEST_BYTES;
use super::connections::Shard;
use super::dispatch::{ConnectionContext, Dispatched, Dispatcher};
use super::framing::{LengthPrefix, PartialFrame};
use super::read_buffer::{ReadBuffer, ReadBuffers};
use super::response_queue::ResponseQueue;
use super::rounds::{REQUESTS_IN_A_ROW, Rounds, Seat};
use super::socket;
use super::write::{SEND_BYTES_MAX, WriteBatch};

/// With so much of a frame missing, its bytes are not worth a copy.
const STRAIGHT_BYTES_MIN: usize = 16 << 10;
/// What is read behind such a frame: the next one's length, and it whole if it is small.
const AHEAD_BYTES_MAX: usize = 4 << 10;

/// A connection, shared by its task and the shard's list.
pub(super) struct Connection {
    pub(super) context: Rc<ConnectionContext>,
    pub(super) queue: ResponseQueue,
    pub(super) activity: Activity,
    stream: RefCell<TcpStream>,
    fd: RawFd,
    stopping: Cell<bool>,
    close_request: RefCell<Option<CloseReason>>,
    task: RefCell<Option<Waker>>,
}

/// What the sweep looks at. Counters only: no clock is read on the way of a request.
#[derive(Debug, Default)]
pub(super) struct Activity {
    pub(super) phase: Cell<ReadPhase>,
    pub(super) bytes_in: Cell<u64>,
    pub(super) bytes_out: Cell<u64>,
    /// Requests whose body was begun.
    pub(super) frames: Cell<u64>,
    /// `bytes_in` when the last of them was begun.
    pub(super) frame_begun_at: Cell<u64>,
    pub(super) write_blocked: Cell<bool>,
}

/// What the reader is at.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) enum ReadPhase {
    /// No request is begun, or only its length.
    #[default]
    BetweenFrames,
    /// The length is known; memory for it is not free.
    AwaitingMemory,
    /// The body is arriving.
    Receiving,
    /// The request is there; earlier ones are to be answered first.
    AwaitingTurn,
    /// The dispatcher has it.
    Dispatching,
    /// Nothing is read any more; what was accepted is answered.
    Ended,
}

impl Connection {
    pub(super) fn new(context: Rc<ConnectionContext>, stream: TcpStream) -> Self {
        let fd = stream.as_raw_fd();
        Self {
            context,
            queue: ResponseQueue::default(),
            activity: Activity::default(),
            stream: RefCell::new(stream),
            fd,
            stopping: Cell::new(false),
            close_request: RefCell::new(None),
            task: RefCell::new(None),
        }
    }

    /// Lets it answer what it has accepted and then end.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.wake();
    }

    /// Ends it without further answers.
    pub(super) fn close(&self, reason: CloseReason) {
        self.close_request.borrow_mut().get_or_insert(reason);
        self.wake();
    }

    /// Whether the kernel knows that the peer has reset the connection.
    pub(super) fn peer_is_gone(&self) -> bool {
        socket::peer_is_gone(self.fd)
    }

    fn wake(&self) {
        if let Some(waker) = self.task.borrow().as_ref() {
            waker.wake_by_ref();
        }
    }

    fn remember_task(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        match task.as_mut() {
            Some(known) => known.clone_from(waker),
            None => *task = Some(waker.clone()),
        }
    }
}

/// Serves the connection to its end and says why it ended.
pub(super) async fn serve<D: Dispatcher>(connection: &Connection, shard: &Shard<D>) -> CloseReason {
    let mut reader = pin!(read_requests(connection, shard));
    let mut writer = pin!(write_responses(connection, shard));
    let mut ended = None;
    let (queue, phase) = (&connection.queue, &connection.activity.phase);
    poll_fn(|cx| {
        connection.remember_task(cx.waker());
        if let Some(reason) = connection.close_request.borrow_mut().take() {
            return Poll::Ready(reason);
        }
        if ended.is_none() {
            match reader.as_mut().poll(cx) {
                Poll::Ready(reason) if !reason.drains() => return Poll::Ready(reason),
                Poll::Ready(reason) => ended = Some(reason),
                // A request the dispatcher has is part of what was accepted.
                Poll::Pending
                    if connection.stopping.get() && phase.get() != ReadPhase::Dispatching =>
                {
                    ended = Some(CloseReason::Stopped);
                }
                Poll::Pending => {}
            }
            if ended.is_some() {
                phase.set(ReadPhase::Ended);
            }
        }
        let unanswered = queue.unanswered();
        if let Poll::Ready(reason) = writer.as_mut().poll(cx) {
            return Poll::Ready(reason);
        }
        if queue.unanswered() == 0
            && let Some(reason) = ended.take()
        {
            return Poll::Ready(reason);
        }
        // The reader went first and may wait for just these answers. By way of the run queue, so that
        // other connections get their turn.
        if phase.get() == ReadPhase::AwaitingTurn && queue.unanswered() < unanswered {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

async fn read_requests<D: Dispatcher>(connection: &Connection, shard: &Shard<D>) -> CloseReason {
    let mut input = Input {
        connection,
        buffers: &shard.buffers,
        rounds: &shard.rounds,
        could_wait: 0,
        seat: None,
        buffer: None,
        prefix: LengthPrefix::default(),
        ended: false,
    };
    let mut turn = Turn::default();
    loop {
        let request_bytes = match read_request(&mut input, shard).await {
            Ok(bytes) => bytes,
            Err(reason) => return reason,
        };
        if connection.stopping.get() {
            return CloseReason::Stopped;
        }
        turn.after_request(request_bytes).await;
        glommio::yield_if_needed().await;
    }
}

/// One request, from its length to the queue of the unanswered. Returns its bytes.
async fn read_request<D: Dispatcher>(
    input: &mut Input<'_>,
    shard: &Shard<D>,
) -> Result<usize, CloseReason> {
    let connection = input.connection;
    let (queue, activity) = (&connection.queue, &connection.activity);

    activity.phase.set(ReadPhase::BetweenFrames);
    let length = input.length(shard.config.frame_bytes_max).await?;

    activity.phase.set(ReadPhase::AwaitingMemory);
    let budget = match length {
        0..=LARGE_REQUEST_BYTES => &shard.request_budget,
        _ => &shard.large_request_budget,
    };
    let memory = match budget.try_reserve(length) {
        Some(memory) => memory,
        None => {
            input.shrink();
            budget.reserve(length).await
        }
    };

    activity.phase.set(ReadPhase::Receiving);
    activity.frames.set(activity.frames.get() + 1);
    activity.frame_begun_at.set(activity.bytes_in.get());
    let frame = input.frame(length).await?;
    shard.stats.request_received();

    input.note(shard.dispatcher.can_wait(&frame));

    activity.phase.set(ReadPhase::AwaitingTurn);
    let pipelined = shard.dispatcher.is_pipelined(&frame);
    let unanswered_max = if pipelined { shard.config.pipelined_requests_max - 1 } else { 0 };
    input.until(|| queue.unanswered() <= unanswered_max).await?;

    activity.phase.set(ReadPhase::Dispatching);
    match shard.dispatcher.dispatch(frame, &connection.context).await {
        Dispatched::Ready(response) => queue.push_ready(response, memory),
        Dispatched::Respond(pending) => queue.push_pending(pending, memory),
        Dispatched::Close(why) => return Err(CloseReason::Refused(why)),
    }
    activity.phase.set(ReadPhase::AwaitingTurn);
    if !pipelined {
        input.until(|| queue.unanswered() == 0).await?;
    }
    Ok(length)
}

/// The receiving half of a connection and what has arrived.
struct Input<'a> {
    connection: &'a Connection,
    buffers: &'a ReadBuffers,
    rounds: &'a Rc<Rounds>,
    /// Requests in a row that could.
    could_wait: u32,
    /// While it is read in rounds.
    seat: Option<Seat>,
    /// Present exactly while it holds unprocessed bytes.
    buffer: Option<ReadBuffer>,
    prefix: LengthPrefix,
    ended: bool,
}

impl Input<'_> {
    /// Sees to it that whoever sends what can wait is read in rounds, and nobody else.
    fn note(&mut self, can_wait: bool) {
        if !can_wait {
            self.could_wait = 0;
            self.seat = None;
            return;
        }
        self.rounds.count_one(Instant::now());
        self.could_wait = self.could_wait.saturating_add(1);
        if self.could_wait >= REQUESTS_IN_A_ROW && self.seat.is_none() {
            self.seat = self.rounds.join(self.connection.fd);
        }
    }

    /// The length of the next frame.
    async fn length(&mut self, frame_bytes_max: usize) -> Result<usize, CloseReason> {
        loop {
            if let Some(buffer) = &self.buffer {
                let (taken, length) = self.prefix.take_from(buffer.unprocessed(), frame_bytes_max);
                self.consume(taken);
                if let Some(length) = length? {
                    return Ok(length);
                }
            }
            if self.buffer.is_none() && !self.fill().await? {
                return Err(if self.prefix.is_empty() {
                    CloseReason::EndOfStream
                } else {
                    CloseReason::TruncatedFrame
                });
            }
        }
    }

    /// The frame of that length.
    async fn frame(&mut self, length: usize) -> Result<Bytes, CloseReason> {
        let mut frame = PartialFrame::new(length);
        loop {
            if let Some(buffer) = &self.buffer {
                let taken = frame.take_from(buffer.unprocessed());
                self.consume(taken);
            }
            if frame.is_complete() {
                return Ok(frame.finish());
            }
            if frame.missing() >= STRAIGHT_BYTES_MIN && self.receive_straight(&mut frame)? {
                continue;
            }
            if !self.fill().await? {
                return Err(CloseReason::TruncatedFrame);
            }
        }
    }

    /// Takes what the kernel has for a large frame straight to its place, and the beginning of what follows
    /// into a buffer, without waiting. `false`: there is nothing now, or never will be; a read has to tell.
    fn receive_straight(&mut self, frame: &mut PartialFrame) -> Result<bool, CloseReason> {
        assert!(self.buffer.is_none(), "what was read is processed before more is read");
        let mut ahead = self.buffers.take();
        let missing = frame.missing();
        let space = &mut ahead.space()[..AHEAD_BYTES_MAX];
        let received = receive_now(self.connection.fd, frame.space(), space);
        if let Ok(Some(bytes)) = received {
            let straight = bytes.min(missing);
            // SAFETY: the call has put the first of what it received there.
            unsafe { frame.received(straight) };
            ahead.filled(bytes - straight);
            let received = &self.connection.activity.bytes_in;
            received.set(received.get() + bytes as u64);
        }
        if ahead.unprocessed().is_empty() {
            self.buffers.give_back(ahead);
        } else {
            self.buffer = Some(ahead);
        }
        received.map(|bytes| bytes.is_some()).map_err(CloseReason::ReadFailed)
    }

    /// Waits for a condition on the queue of the unanswered, with a read pending while the buffer is
    /// empty. Every change of that queue is followed by a poll of the reader.
    async fn until(&mut self, condition: impl Fn() -> bool) -> Result<(), CloseReason> {
        if condition() {
            return Ok(());
        }
        self.shrink();
        poll_fn(|cx| {
            if condition() {
                return Poll::Ready(Ok(()));
            }
            if self.buffer.is_none()
                && !self.ended
                && let Poll::Ready(Err(reason)) = self.poll_fill(cx)
            {
                return Poll::Ready(Err(reason));
            }
            Poll::Pending
        })
        .await
    }

    /// Reads once into an empty buffer; `false` at the end of the stream.
    async fn fill(&mut self) -> Result<bool, CloseReason> {
        poll_fn(|cx| self.poll_fill(cx)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, CloseReason>> {
        assert!(self.buffer.is_none(), "what was read is processed before more is read");
        if self.ended {
            return Poll::Ready(Ok(false));
        }
        let mut buffer = self.buffers.take();
        let in_round = self.seat.as_ref().and_then(|seat| seat.poll_receive(cx, buffer.space()));
        let read = in_round.unwrap_or_else(|| {
            self.seat = None;
            let mut stream = self.connection.stream.borrow_mut();
            poll_uninterrupted(|| Pin::new(&mut *stream).poll_read(cx, buffer.space()))
        });
        let Poll::Ready(Ok(bytes @ 1..)) = read else {
            self.buffers.give_back(buffer);
            let read = ready!(read);
            self.ended = read.is_ok();
            return Poll::Ready(read.map(|_| false).map_err(CloseReason::ReadFailed));
        };
        buffer.filled(bytes);
        self.buffer = Some(buffer);
        let received = &self.connection.activity.bytes_in;
        received.set(received.get() + bytes as u64);
        Poll::Ready(Ok(true))
    }

    fn consume(&mut self, bytes: usize) {
        let Some(buffer) = &mut self.buffer else { return };
        buffer.consume(bytes);
        if buffer.unprocessed().is_empty() {
            self.release();
        }
    }

    fn shrink(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            self.buffers.shrink(buffer);
        }
    }

    fn release(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.buffers.give_back(buffer);
        }
    }
}

impl Drop for Input<'_> {
    fn drop(&mut self) {
        self.release();
    }
}

/// Writes responses as they become ready, all that are ready together. Ends only by a failure.
async fn write_responses<D: Dispatcher>(connection: &Connection, shard: &Shard<D>) -> CloseReason {
    let queue = &connection.queue;
    let mut batch = WriteBatch::default();
    loop {
        let refused = poll_fn(|cx| collect(queue, &mut batch, cx)).await;
        if let Err(error) = write_batch(connection, &mut batch).await {
            return CloseReason::WriteFailed(error);
        }
        shard.stats.responses_written(batch.responses());
        queue.settled(batch.settled());
        batch.clear();
        if let Some(why) = refused {
            return CloseReason::Refused(why);
        }
    }
}

/// Moves ready responses into the batch; waits while there are none. Ends with the reason if the last
/// one looked at is a refusal.
fn collect(
    queue: &ResponseQueue,
    batch: &mut WriteBatch,
    cx: &mut Context<'_>,
) -> Poll<Option<String>> {
    while !batch.is_full() {
        match queue.poll_next(cx) {
            Poll::Ready(Ok(answer)) => batch.push(answer),
            Poll::Ready(Err(why)) => return Poll::Ready(Some(why)),
            Poll::Pending if batch.settled() == 0 => return Poll::Pending,
            Poll::Pending => break,
        }
    }
    Poll::Ready(None)
}

async fn write_batch(connection: &Connection, batch: &mut WriteBatch) -> io::Result<()> {
    let activity = &connection.activity;
    while !batch.is_written() {
        let written = match batch.send(connection.fd) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                activity.write_blocked.set(true);
                let written = poll_fn(|cx| {
                    let mut stream = connection.stream.borrow_mut();
                    let slice = batch.first_unwritten();
                    let slice = &slice[..slice.len().min(SEND_BYTES_MAX)];
                    poll_uninterrupted(|| Pin::new(&mut *stream).poll_write(cx, slice))
                })
                .await;
                activity.write_blocked.set(false);
                written?
            }
            Err(error) => return Err(error),
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        activity.bytes_out.set(activity.bytes_out.get() + written as u64);
        batch.advance(written);
        if written == SEND_BYTES_MAX && !batch.is_written() {
            give_way().await;
        }
    }
    Ok(())
}
