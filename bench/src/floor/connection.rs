//! One connection of a bare server.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use futures_io::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

use super::frames::{FrameCursor, Piece, push_answer, push_echoed_head};
use super::group::GroupCommit;

/// Most bytes of one read.
const READ_BYTES_MAX: usize = 256 << 10;
/// Reads after which others get their turn.
const READS_PER_TURN: usize = 8;

/// What a core does with what it reads.
#[derive(Clone)]
pub(super) enum Work {
    /// Drops it, and answers each frame at once.
    Answer,
    /// Sends each frame back.
    Echo,
    /// Drops it, and answers nothing.
    Discard,
    /// Answers each frame when it is on the disk.
    Commit(Rc<GroupCommit>),
}

/// Bytes that a connection shall write. Shared with whoever has answers for it.
#[derive(Default)]
pub(super) struct Answers {
    bytes: RefCell<Vec<u8>>,
    waker: RefCell<Option<Waker>>,
}

impl Answers {
    /// Adds an answer.
    pub(super) fn push(&self, id: super::frames::CorrelationId) {
        push_answer(&mut self.bytes.borrow_mut(), id);
    }

    /// Has the connection write.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    #[cfg(test)]
    pub(super) fn pending_bytes(&self) -> usize {
        self.bytes.borrow().len()
    }

    fn listen(&self, context: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
    }
}

struct Connection {
    stream: TcpStream,
    work: Work,
    cursor: FrameCursor,
    answers: Rc<Answers>,
    /// What is being written, and how far that is.
    writing: Vec<u8>,
    written: usize,
    /// What connections without a log read into, one after the other.
    scratch: Rc<RefCell<Vec<u8>>>,
    /// Correlation ids of the frames that one read completed.
    completed: Vec<super::frames::CorrelationId>,
}

/// What the connections of a core read into that do not keep what they read.
pub(super) fn scratch() -> Rc<RefCell<Vec<u8>>> {
    Rc::new(RefCell::new(vec![0; READ_BYTES_MAX]))
}

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, work: Work, scratch: Rc<RefCell<Vec<u8>>>) {
    let mut connection = Connection {
        stream,
        work,
        cursor: FrameCursor::default(),
        answers: Rc::default(),
        writing: Vec::new(),
        written: 0,
        scratch,
        completed: Vec::new(),
    };
    // A client that leaves in the middle is none of the server's business.
    let _ = poll_fn(|context| connection.turn(context)).await;
}

impl Connection {
    /// Writes and reads until neither goes on.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.answers.listen(context);
        for _ in 0..READS_PER_TURN {
            ready!(self.flush(context))?;
            if ready!(self.read(context))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.written == self.writing.len() {
                self.writing.clear();
                self.written = 0;
                std::mem::swap(&mut self.writing, &mut self.answers.bytes.borrow_mut());
                if self.writing.is_empty() {
                    return Poll::Ready(Ok(()));
                }
            }
            let rest = &self.writing[self.written..];
            self.written += ready!(Pin::new(&mut self.stream).poll_write(context, rest))?;
        }
    }

    /// Reads once, and says how many bytes.
    fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { stream, work, cursor, answers, scratch, completed, .. } = self;
        let stream = Pin::new(stream);
        if let Work::Commit(log) = work {
            let mut gathering = log.gathering.borrow_mut();
            let space = gathering.space(READ_BYTES_MAX);
            if space.is_empty() {
                log.await_space(context);
                return Poll::Pending;
            }
            let read = ready!(stream.poll_read(context, space))?;
            cursor.advance(gathering.take_in(read), |piece| {
                if let Piece::End(id) = piece {
                    completed.push(id);
                }
            })?;
            log.gathered(&mut gathering, answers, completed.drain(..));
            return Poll::Ready(Ok(read));
        }
        let mut scratch = scratch.borrow_mut();
        let read = ready!(stream.poll_read(context, &mut scratch))?;
        let mut out = answers.bytes.borrow_mut();
        match work {
            Work::Discard | Work::Commit(_) => {}
            Work::Answer => cursor.advance(&scratch[..read], |piece| {
                if let Piece::End(id) = piece {
                    push_answer(&mut out, id);
                }
            })?,
            Work::Echo => cursor.advance(&scratch[..read], |piece| match piece {
                Piece::Head(head) => push_echoed_head(&mut out, head),
                Piece::Body(bytes) => out.extend_from_slice(bytes),
                Piece::End(_) => {}
            })?,
        }
        Poll::Ready(Ok(read))
    }
}
