//! The connections between the nodes of a cluster, by way of proxies that can hold what passes.
//!
//! A direction that is held is like a network that loses everything: the sender notices nothing but
//! silence, and what was sent arrives when the hold ends, unless somebody gave the connection up before. New
//! connections are accepted meanwhile, as a far router would, and carry nothing.
//!
//! Who connects for replication is read from the first frame; of control planes every pair has a proxy of its own.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use chronik_shards::format::peer_frame::{self, FrameHeader, PeerFrame};

use super::server::free_address;

/// Bytes that pass in one go.
const CHUNK_BYTES: usize = 64 << 10;

/// How long somebody who connects may take to say who it is.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);

/// From a node to another.
type Direction = (i32, i32);

/// What happens to what is sent in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Way {
    #[default]
    Open,
    /// Every chunk arrives so much later, and the next one not before.
    Slow(Duration),
    /// Nothing arrives.
    Held,
}

#[derive(Debug, Default)]
struct State {
    ways: BTreeMap<Direction, Way>,
    /// Both ends of every connection, under a number of its own, by who opened it to whom.
    open: BTreeMap<u64, (Direction, TcpStream, TcpStream)>,
    next: u64,
    is_ending: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a connection; its number.
    fn enter(&self, ends: (Direction, TcpStream, TcpStream)) -> u64 {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        state.open.insert(number, ends);
        number
    }

    /// Waits until something may pass in this direction; false when all ends.
    fn await_passage(&self, direction: Direction) -> bool {
        let mut state = self.lock();
        loop {
            if state.is_ending {
                return false;
            }
            match state.ways.get(&direction).copied().unwrap_or_default() {
                Way::Open => return true,
                Way::Slow(delay) => {
                    drop(state);
                    thread::sleep(delay);
                    return !self.lock().is_ending;
                }
                Way::Held => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// The proxies. They end with the value.
#[derive(Debug)]
pub struct Links {
    shared: Arc<Shared>,
    wal: BTreeMap<i32, SocketAddr>,
    raft: BTreeMap<Direction, SocketAddr>,
}

impl Links {
    /// Between nodes with their addresses for replication and for control planes.
    pub fn between(nodes: impl Iterator<Item = (i32, SocketAddr, SocketAddr)>) -> Self {
        let nodes: Vec<_> = nodes.collect();
        let mut links =
            Self { shared: Arc::default(), wal: BTreeMap::new(), raft: BTreeMap::new() };
        for &(to, wal, raft) in &nodes {
            let address = links.listen(to, wal, None);
            links.wal.insert(to, address);
            for &(from, ..) in nodes.iter().filter(|(from, ..)| *from != to) {
                let address = links.listen(to, raft, Some(from));
                links.raft.insert((from, to), address);
            }
        }
        links
    }

    /// Where replication reaches a node.
    pub fn wal(&self, to: i32) -> SocketAddr {
        self.wal[&to]
    }

    /// Where a node reaches the control plane of another.
    pub fn raft(&self, from: i32, to: i32) -> SocketAddr {
        self.raft[&(from, to)]
    }

    /// What happens from now on to what `from` sends to `to`.
    pub fn set(&self, from: i32, to: i32, way: Way) {
        self.shared.lock().ways.insert((from, to), way);
        self.shared.changed.notify_all();
    }

    /// Likewise in both directions.
    pub fn set_both(&self, one: i32, other: i32, way: Way) {
        self.set(one, other, way);
        self.set(other, one, way);
    }

    /// Breaks all connections between two nodes.
    pub fn reset(&self, one: i32, other: i32) {
        self.shared.lock().open.retain(|_, ((from, to), near, far)| {
            let is_meant = [(one, other), (other, one)].contains(&(*from, *to));
            if is_meant {
                close(near, far);
            }
            !is_meant
        });
    }

    /// Everything passes again.
    pub fn heal(&self) {
        self.shared.lock().ways.clear();
        self.shared.changed.notify_all();
    }

    fn listen(&self, to: i32, target: SocketAddr, from: Option<i32>) -> SocketAddr {
        let address = free_address();
        let listener = TcpListener::bind(address).expect("an address that was free just now");
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            for near in listener.incoming() {
                if shared.lock().is_ending {
                    return;
                }
                let Ok(near) = near else { continue };
                let shared = Arc::clone(&shared);
                // Whoever breaks off has its reasons; both ends are closed then.
                thread::spawn(move || drop(connect(&shared, near, to, target, from)));
            }
        });
        address
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_ending = true;
        for (_, near, far) in std::mem::take(&mut state.open).into_values() {
            close(&near, &far);
        }
        drop(state);
        self.shared.changed.notify_all();
        // Those who accept look at it when somebody comes.
        for address in self.wal.values().chain(self.raft.values()) {
            drop(TcpStream::connect(address));
        }
    }
}

fn close(near: &TcpStream, far: &TcpStream) {
    // One that is closed already is what is wanted.
    let _ = near.shutdown(Shutdown::Both);
    let _ = far.shutdown(Shutdown::Both);
}

/// Serves one connection to its end.
fn connect(
    shared: &Arc<Shared>,
    mut near: TcpStream,
    to: i32,
    target: SocketAddr,
    from: Option<i32>,
) -> io::Result<()> {
    let (from, first) = match from {
        Some(from) => (from, Vec::new()),
        None => read_hello(&mut near)?,
    };
    if !shared.await_passage((from, to)) {
        return Ok(());
    }
    let far = TcpStream::connect(target)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    (&far).write_all(&first)?;
    let ends = ((from, to), near.try_clone()?, far.try_clone()?);
    let number = shared.enter(ends);
    let back = {
        let (shared, source, sink) = (Arc::clone(shared), far.try_clone()?, near.try_clone()?);
        thread::spawn(move || pump(&shared, (to, from), source, sink))
    };
    pump(shared, (from, to), near.try_clone()?, far.try_clone()?);
    back.join().expect("a pump does not panic");
    shared.lock().open.remove(&number);
    Ok(())
}

/// Passes on what comes until one side ends, then ends both.
fn pump(shared: &Shared, direction: Direction, mut source: TcpStream, mut sink: TcpStream) {
    let mut chunk = vec![0; CHUNK_BYTES];
    while let Ok(read @ 1..) = source.read(&mut chunk) {
        if !shared.await_passage(direction) || sink.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    // What was sent before the end of the stream is through; its end is held like everything else.
    shared.await_passage(direction);
    close(&source, &sink);
}

/// Who connects for replication, and the bytes that said so.
fn read_hello(near: &mut TcpStream) -> io::Result<(i32, Vec<u8>)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    near.set_read_timeout(Some(HELLO_PATIENCE))?;
    let mut head = [0; peer_frame::HEADER_BYTES];
    near.read_exact(&mut head)?;
    let header = FrameHeader::parse(&head, peer_frame::HANDSHAKE_BYTES_MAX);
    let header = header.map_err(|_| invalid())?;
    let mut payload = vec![0; header.payload_bytes];
    near.read_exact(&mut payload)?;
    near.set_read_timeout(None)?;
    let frame = peer_frame::decode(&header, Bytes::copy_from_slice(&payload));
    let Ok(PeerFrame::Hello(hello)) = frame else { return Err(invalid()) };
    Ok((hello.node_id.get(), [head.as_slice(), &payload].concat()))
}
