//! The null sink: what the client can do when the server does next to nothing.
//!
//! One thread, an epoll loop. Of large frames it reads the first bytes, and has the kernel throw the rest away
//! without copying it; answers of one turn leave in one write.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;

use rustix::event::epoll;
use rustix::net::{RecvFlags, recv};

use super::frames::{FrameCursor, Piece, push_answer};

/// The listening socket among the sockets that are watched.
const LISTENER: u64 = u64::MAX;
const EVENTS_MAX: usize = 256;
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// The rest of a body that is worth a call to throw it away.
const DROP_BYTES_MIN: usize = 16 << 10;
/// Bytes of the read that follows such a body, so that little of the next is copied.
const READ_AFTER_DROP_BYTES: usize = 1 << 10;

struct Connection {
    stream: TcpStream,
    cursor: FrameCursor,
    read_bytes: usize,
    answers: Vec<u8>,
}

/// Starts the thread; answers with its address. It ends with the process.
pub(super) fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let interest = epoll::EventFlags::IN;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), interest)?;
    thread::Builder::new().name("sink".to_owned()).spawn(move || {
        if let Err(error) = run(&epoll, &listener) {
            super::server::give_up(&format!("the sink failed: {error}"));
        }
    })?;
    Ok(address)
}

fn run(epoll: &OwnedFd, listener: &TcpListener) -> io::Result<()> {
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut next = 0;
    let empty =
        epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
    let mut events = vec![empty; EVENTS_MAX];
    let mut scratch = vec![0; READ_BYTES];
    loop {
        let ready = match epoll::wait(epoll, &mut events[..], None) {
            Ok(ready) => ready,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..ready] {
            let id = event.data.u64();
            if id == LISTENER {
                let Ok((stream, _)) = listener.accept() else { continue };
                // Level-triggered and blocking: a read follows readiness, and a small write is taken.
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                let data = epoll::EventData::new_u64(next);
                epoll::add(epoll, &stream, data, epoll::EventFlags::IN)?;
                connections.insert(next, Connection::new(stream));
                next += 1;
            } else if let Some(connection) = connections.get_mut(&id)
                && !matches!(connection.take(&mut scratch), Ok(true))
            {
                // Closing a socket ends its watch.
                connections.remove(&id);
            }
        }
    }
}

impl Connection {
    fn new(stream: TcpStream) -> Self {
        let (cursor, answers) = (FrameCursor::default(), Vec::new());
        Self { stream, cursor, read_bytes: READ_BYTES, answers }
    }

    /// Takes what the socket has; `false` at its end.
    fn take(&mut self, scratch: &mut Vec<u8>) -> io::Result<bool> {
        let Self { stream, cursor, answers, read_bytes } = self;
        answers.clear();
        loop {
            let left = cursor.body_left();
            let drops = left >= DROP_BYTES_MIN;
            let result = if drops {
                // A buffer is needed for its size alone: the kernel does not write to it.
                scratch.resize(scratch.len().max(left), 0);
                let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
                recv(&*stream, &mut scratch[..left], flags).map(|(_, bytes)| bytes)
            } else {
                recv(&*stream, &mut scratch[..*read_bytes], RecvFlags::DONTWAIT)
                    .map(|(_, bytes)| bytes)
            };
            match result {
                Ok(0) => return Ok(false),
                Ok(bytes) if drops => {
                    if let Some(id) = cursor.skip(bytes) {
                        push_answer(answers, id);
                        *read_bytes = READ_AFTER_DROP_BYTES;
                    }
                }
                Ok(bytes) => {
                    *read_bytes = READ_BYTES;
                    cursor.advance(&scratch[..bytes], |piece| {
                        if let Piece::End(id) = piece {
                            push_answer(answers, id);
                        }
                    })?;
                }
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
        }
        (&*stream).write_all(answers)?;
        Ok(true)
    }
}
