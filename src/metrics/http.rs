//! The HTTP of the metrics listener: one thread, a few connections, one answer each.
//!
//! A connection brings one request of at most [`HEAD_BYTES_MAX`], gets one answer, and is closed. It has
//! `REQUEST_TIME` to ask and `ANSWER_TIME` to take the answer. There are [`CONNECTIONS_MAX`] of them at most: one
//! more takes the place of the one that has said nothing for longest, so that such keep nobody out. What a client sends
//! can end nothing but its own connection.
//!
//! The thread sleeps in the kernel while nobody is connected. While an answer is made the others wait for it, which
//! the maker bounds.
//!
//! Deliberately absent: connections that are kept, bodies of requests, compression, TLS.

use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Open connections.
pub const CONNECTIONS_MAX: usize = 32;
/// Longest request, its headers included.
pub const HEAD_BYTES_MAX: usize = 8 << 10;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;
/// How long a request may take to come.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long an answer may take to be taken.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long a client is listened to that has its answer: what it sent and nobody read would undo the answer.
const FAREWELL_TIME: Duration = Duration::from_secs(1);
/// Pause before connections are taken again when there was nothing to take them with.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Read at once.
const READ_BYTES: usize = 4 << 10;

/// What is asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request<'a> {
    /// The path, without what follows a question mark.
    pub path: &'a str,
}

/// What is answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The code and its words.
    pub status: &'static str,
    /// Of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: Rc<[u8]>,
}

impl Answer {
    /// A line for whoever asked.
    #[must_use]
    pub fn line(status: &'static str, line: &str) -> Self {
        let body = format!("{line}\n").into_bytes().into();
        Self { status, content_type: "text/plain; charset=utf-8", body }
    }
}

/// Whoever knows the answers.
pub trait Answers {
    /// Answers a request. Takes a bounded time.
    fn answer(&mut self, request: Request<'_>) -> Answer;

    /// When [`Self::tick`] has something to do.
    fn next_deadline(&self) -> Option<Instant>;

    /// Time passed.
    fn tick(&mut self, now: Instant);
}

/// Serves until the other end of `stop` is closed.
pub fn serve(listener: &TcpListener, stop: &PipeReader, answers: &mut impl Answers) {
    let mut server = Server { connections: Vec::new(), accept_after: None };
    loop {
        match server.wait(listener, stop, answers.next_deadline()) {
            Ok(Woken { is_over: true, .. }) => return,
            Ok(woken) => server.turn(listener, &woken, answers),
            Err(error) => {
                // The kernel has no memory for it: others will tell, too.
                tracing::warn!(%error, "the metrics listener cannot wait for connections");
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
        answers.tick(Instant::now());
    }
}

struct Server {
    /// Oldest first.
    connections: Vec<Connection>,
    /// Nobody is let in before.
    accept_after: Option<Instant>,
}

/// What the kernel has said.
struct Woken {
    is_over: bool,
    has_guests: bool,
    /// By connection.
    ready: Vec<bool>,
}

impl Server {
    fn wait(
        &self,
        listener: &TcpListener,
        stop: &PipeReader,
        deadline: Option<Instant>,
    ) -> io::Result<Woken> {
        let of_connections = self.connections.iter().map(|connection| connection.deadline);
        let next = of_connections.chain(self.accept_after).chain(deadline).min();
        let timeout = next.map(|at| {
            // Rounded up: a moment too early would find nothing to do.
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        let lets_in = if self.accept_after.is_none() { PollFlags::IN } else { PollFlags::empty() };
        let mut places = vec![PollFd::new(stop, PollFlags::IN), PollFd::new(listener, lets_in)];
        places.extend(self.connections.iter().map(|it| PollFd::new(&it.stream, it.interest())));
        match poll(&mut places, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let said = |place: &PollFd<'_>| !place.revents().is_empty();
        Ok(Woken {
            is_over: said(&places[0]),
            has_guests: said(&places[1]) && self.accept_after.is_none(),
            ready: places[2..].iter().map(said).collect(),
        })
    }

    fn turn(&mut self, listener: &TcpListener, woken: &Woken, answers: &mut impl Answers) {
        let now = Instant::now();
        if self.accept_after.is_some_and(|at| at <= now) {
            self.accept_after = None;
        }
        let mut ready = woken.ready.iter();
        self.connections.retain_mut(|connection| {
            let is_ready = ready.next().copied().unwrap_or(false);
            let goes_on = !is_ready || connection.go_on(answers);
            goes_on && connection.deadline > Instant::now()
        });
        if woken.has_guests {
            self.let_in(listener);
        }
    }

    fn let_in(&mut self, listener: &TcpListener) {
        for _ in 0..CONNECTIONS_MAX {
            match listener.accept() {
                Ok((stream, _)) if stream.set_nonblocking(true).is_ok() => {
                    if self.connections.len() >= CONNECTIONS_MAX {
                        let waits = |it: &Connection| !matches!(it.phase, Phase::Answering { .. });
                        let longest = self.connections.iter().position(waits).unwrap_or(0);
                        self.connections.remove(longest);
                    }
                    self.connections.push(Connection::new(stream));
                }
                // It has left again.
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if concerns_one(&error) => {}
                Err(error) => {
                    tracing::debug!(%error, "the metrics listener takes nobody for a moment");
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }
}

/// Whether an error of `accept` is about the one connection, so that the next may be taken at once.
fn concerns_one(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted)
}

struct Connection {
    stream: TcpStream,
    phase: Phase,
    deadline: Instant,
}

enum Phase {
    Asking(Vec<u8>),
    Answering {
        head: Vec<u8>,
        body: Rc<[u8]>,
        written: usize,
    },
    /// The answer is sent; what the client still sends is thrown away.
    Leaving,
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let deadline = Instant::now() + REQUEST_TIME;
        Self { stream, phase: Phase::Asking(Vec::new()), deadline }
    }

    fn interest(&self) -> PollFlags {
        match self.phase {
            Phase::Asking(_) | Phase::Leaving => PollFlags::IN,
            Phase::Answering { .. } => PollFlags::OUT,
        }
    }

    /// Does what can be done without waiting. Returns whether the connection goes on.
    fn go_on(&mut self, answers: &mut impl Answers) -> bool {
        match &mut self.phase {
            Phase::Asking(head) => match receive(&mut self.stream, head) {
                Received::NotYet => true,
                Received::Gone => false,
                Received::Bytes => match ask(head, answers) {
                    None => true,
                    Some((answer, has_body)) => {
                        self.begin_answer(&answer, has_body);
                        self.send()
                    }
                },
            },
            Phase::Answering { .. } => self.send(),
            Phase::Leaving => {
                let mut thrown_away = [0; READ_BYTES];
                match self.stream.read(&mut thrown_away) {
                    Ok(0) => false,
                    Ok(_) => true,
                    Err(error) => is_for_later(&error),
                }
            }
        }
    }

    fn begin_answer(&mut self, answer: &Answer, has_body: bool) {
        let Answer { status, content_type, body } = answer;
        let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n{allow}\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let body = if has_body { Rc::clone(body) } else { Rc::default() };
        self.deadline = Instant::now() + ANSWER_TIME;
        self.phase = Phase::Answering { head: head.into_bytes(), body, written: 0 };
    }

    fn send(&mut self) -> bool {
        let Phase::Answering { head, body, written } = &mut self.phase else { return true };
        loop {
            let rest = match head.get(*written..) {
                Some(rest) if !rest.is_empty() => rest,
                _ => &body[*written - head.len()..],
            };
            if rest.is_empty() {
                break;
            }
            match self.stream.write(rest) {
                Ok(0) => return false,
                Ok(bytes) => *written += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return is_for_later(&error),
            }
        }
        self.phase = Phase::Leaving;
        self.deadline = Instant::now() + FAREWELL_TIME;
        self.stream.shutdown(Shutdown::Write).is_ok()
    }
}

enum Received {
    Bytes,
    NotYet,
    Gone,
}

/// Takes what is there, as far as a request may be long.
fn receive(stream: &mut TcpStream, head: &mut Vec<u8>) -> Received {
    let before = head.len();
    let room = READ_BYTES.min(HEAD_BYTES_MAX - before);
    head.resize(before + room, 0);
    let read = stream.read(&mut head[before..]);
    head.truncate(before + read.as_ref().map_or(0, |bytes| *bytes));
    match read {
        Ok(0) => Received::Gone,
        Ok(_) => Received::Bytes,
        Err(error) if is_for_later(&error) => Received::NotYet,
        Err(_) => Received::Gone,
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The answer to a request and whether its body is wanted; `None` while the request is not whole.
fn ask(head: &[u8], answers: &mut impl Answers) -> Option<(Answer, bool)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let refused = |status, why: &str| Some((Answer::line(status, why), true));
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() < HEAD_BYTES_MAX => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return refused("431 Request Header Fields Too Large", "too many headers");
        }
        Err(error) => return refused("400 Bad Request", &format!("no request: {error}")),
    }
    let has_body = match request.method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return refused("405 Method Not Allowed", "GET or HEAD"),
    };
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    Some((answers.answer(Request { path }), has_body))
}

#[cfg(test)]
mod tests;
