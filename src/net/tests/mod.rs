//! Real loopback sockets against a toy dispatcher, whose frames are words.
//!
//! `echo …` is answered with itself; `wait <gate> …` likewise, once the test opens that gate; `fail`
//! becomes an error later; `none` has no response, `settle <gate>` neither and is held till then; `close` is refused; `fetch <n>` is answered with as
//! many of n bytes as the response budget has; `big <n>` with n bytes. In capitals the same are
//! barriers.

mod bounds;
mod ends;
mod order;
mod rounds;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use chronik_shards::model::ShardId;
use glommio::LocalExecutorBuilder;

use super::listener::{Acceptor, BoundListener, ConnectionCounts, HandOver};
use super::*;

/// After this a wait of a test has failed.
const PATIENCE: Duration = Duration::from_secs(20);

type Job = Box<dyn FnOnce(&Host) + Send>;

/// What the test's thread and the shard's thread share.
#[derive(Default)]
struct Shared {
    jobs: Mutex<(VecDeque<Job>, Option<Waker>)>,
    gates: Mutex<(BTreeSet<String>, Vec<Waker>)>,
}

impl Shared {
    fn push(&self, job: Job) {
        let mut jobs = self.jobs.lock().unwrap();
        jobs.0.push_back(job);
        if let Some(waker) = jobs.1.take() {
            waker.wake();
        }
    }

    fn open(&self, gate: &str) {
        let mut gates = self.gates.lock().unwrap();
        gates.0.insert(gate.to_owned());
        gates.1.drain(..).for_each(Waker::wake);
    }
}

/// What jobs find on the shard's thread.
struct Host {
    connections: ShardConnections<Toy>,
    dispatched: Rc<RefCell<Vec<String>>>,
    acceptor: RefCell<Option<Acceptor>>,
    ended: Rc<Cell<bool>>,
}

struct Toy {
    shared: Arc<Shared>,
    dispatched: Rc<RefCell<Vec<String>>>,
}

impl Dispatcher for Toy {
    fn is_pipelined(&self, frame: &[u8]) -> bool {
        frame.first().is_some_and(u8::is_ascii_lowercase)
    }

    fn can_wait(&self, frame: &[u8]) -> bool {
        frame.starts_with(b"Beat")
    }

    async fn dispatch(&self, frame: Bytes, connection: &Rc<ConnectionContext>) -> Dispatched {
        let text = String::from_utf8_lossy(&frame).into_owned();
        let mut words = text.split(' ').map(str::to_owned);
        let word = words.next().unwrap_or_default().to_lowercase();
        let argument = words.next().unwrap_or_default();
        self.dispatched.borrow_mut().push(format!("{word} {argument}"));
        match word.as_str() {
            "none" => Dispatched::Respond(Box::pin(async { Ok(None) })),
            "close" => Dispatched::Close("asked to".to_owned()),
            "fail" => Dispatched::Respond(Box::pin(async { Err("asked to fail".to_owned()) })),
            "big" => {
                let bytes = argument.parse().unwrap();
                Dispatched::Ready(Response::new(vec![Bytes::from(vec![b'x'; bytes])]))
            }
            "fetch" => {
                let budget = connection.response_budget();
                let reservation = budget.try_take_up_to(argument.parse().unwrap());
                let bytes = Bytes::from(vec![b'x'; reservation.bytes()]);
                Dispatched::Ready(Response::new(vec![bytes]).with_reservation(reservation))
            }
            "wait" | "settle" => {
                let shared = Arc::clone(&self.shared);
                Dispatched::Respond(Box::pin(async move {
                    poll_fn(|cx| {
                        let mut gates = shared.gates.lock().unwrap();
                        if gates.0.contains(&argument) {
                            return Poll::Ready(());
                        }
                        gates.1.push(cx.waker().clone());
                        Poll::Pending
                    })
                    .await;
                    Ok((word == "wait").then(|| Response::new(vec![frame])))
                }))
            }
            _ => Dispatched::Ready(Response::new(vec![frame])),
        }
    }
}

/// Delivers sockets to the inbox of their shard, as the mesh does.
struct Inboxes(Vec<Arc<Shared>>);

impl HandOver for Inboxes {
    async fn hand_over(&self, shard: ShardId, socket: AcceptedSocket) {
        self.0[usize::from(shard.get())].push(Box::new(move |host| host.connections.adopt(socket)));
    }
}

/// One shard on its own thread.
struct TestShard {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl TestShard {
    fn start(config: NetConfig) -> Self {
        let shared = Arc::<Shared>::default();
        let inbox = Arc::clone(&shared);
        let thread = LocalExecutorBuilder::default()
            .io_memory(64 << 10)
            .spawn(move || serve_jobs(config, inbox))
            .unwrap();
        let thread = std::thread::spawn(move || thread.join().unwrap());
        Self { shared, thread: Some(thread) }
    }

    /// Runs a job on the shard's thread.
    fn run<R: Send + 'static>(&self, job: impl FnOnce(&Host) -> R + Send + 'static) -> R {
        let (sender, receiver) = mpsc::channel();
        self.shared.push(Box::new(move |host| sender.send(job(host)).unwrap()));
        receiver.recv_timeout(PATIENCE).expect("the shard answers")
    }

    fn stats(&self) -> NetStats {
        self.run(|host| host.connections.stats())
    }

    fn dispatched(&self) -> Vec<String> {
        self.run(|host| host.dispatched.borrow().clone())
    }

    /// Waits until the counters fulfil a condition.
    fn until(&self, what: &str, condition: impl Fn(&NetStats) -> bool) -> NetStats {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.stats();
            if condition(&stats) {
                return stats;
            }
            assert!(Instant::now() < deadline, "never happened: {what}; {stats:?}");
            std::thread::yield_now();
        }
    }

    /// Waits until a connection was closed for that reason.
    fn until_closed(&self, name: &str) {
        let kind = (0..CloseReason::KINDS).find(|&kind| CloseReason::kind_name(kind) == name);
        self.until(name, |stats| stats.closed[kind.unwrap()] > 0);
    }

    fn sweep_after(&self, seconds: u64) {
        self.run(move |host| host.connections.sweep(Instant::now() + Duration::from_secs(seconds)));
    }

    fn open(&self, gate: &str) {
        self.shared.open(gate);
    }

    /// Begins the orderly stop.
    fn stop(&self, grace: Duration) {
        self.run(move |host| {
            if let Some(acceptor) = host.acceptor.borrow().as_ref() {
                acceptor.stop();
            }
            let (connections, ended) = (host.connections.clone(), Rc::clone(&host.ended));
            glommio::spawn_local(async move {
                connections.stop(grace).await;
                ended.set(true);
            })
            .detach();
        });
    }
}

impl Drop for TestShard {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.shared.push(Box::new(|host| host.ended.set(true)));
            self.thread.take().unwrap().join().unwrap();
        }
    }
}

async fn serve_jobs(config: NetConfig, shared: Arc<Shared>) {
    let dispatched = Rc::default();
    let toy = Toy { shared: Arc::clone(&shared), dispatched: Rc::clone(&dispatched) };
    let host = Host {
        connections: ShardConnections::new(config, Rc::new(toy)),
        dispatched,
        acceptor: RefCell::default(),
        ended: Rc::default(),
    };
    while !host.ended.get() {
        let job = poll_fn(|cx| {
            let mut jobs = shared.jobs.lock().unwrap();
            match jobs.0.pop_front() {
                Some(job) => Poll::Ready(job),
                None => {
                    jobs.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        });
        job.await(&host);
        glommio::yield_if_needed().await;
    }
}

/// Shards and the listener on the first of them.
fn listen(configs: Vec<NetConfig>, connections_max: usize) -> (Vec<TestShard>, SocketAddr) {
    let shards: Vec<_> = configs.into_iter().map(TestShard::start).collect();
    let bound = BoundListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = bound.local_addr().unwrap();
    let inboxes = Inboxes(shards.iter().map(|shard| Arc::clone(&shard.shared)).collect());
    let counts = ConnectionCounts::new(u16::try_from(shards.len()).unwrap());
    shards[0].run(move |host| {
        *host.acceptor.borrow_mut() = Some(bound.accept(counts, connections_max, inboxes));
    });
    (shards, address)
}

/// One shard that listens.
fn server(config: NetConfig) -> (TestShard, SocketAddr) {
    let (mut shards, address) = listen(vec![config], 10_000);
    (shards.remove(0), address)
}

struct Client(TcpStream);

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn send(&mut self, text: &str) {
        self.0.write_all(&frame(text)).unwrap();
    }

    fn receive(&mut self) -> String {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut body).unwrap();
        String::from_utf8(body).unwrap()
    }

    /// Asserts that nothing more comes, whether the stream ends or is reset.
    fn expect_end(&mut self) {
        match self.0.read(&mut [0; 1]) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("expected the end of the stream, got {other:?}"),
        }
    }

    /// Closes so that the server sees a reset.
    fn reset(self) {
        use std::os::fd::AsRawFd;
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let size = size_of::<libc::linger>() as libc::socklen_t;
        let (fd, value) = (self.0.as_raw_fd(), (&raw const linger).cast());
        // SAFETY: `linger` lives through the call and `size` is its size.
        let result =
            unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, value, size) };
        assert_eq!(result, 0);
    }
}

fn frame(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn padded(text: &str, bytes: usize) -> String {
    format!("{text} {}", "x".repeat(bytes - text.len() - 1))
}
