//! The metrics listener: what the node and its groups are doing, for Prometheus, and whether it is well.
//!
//! A thread of its own, which stands back from the shards (`nice`), takes requests ([`http`]), asks every shard, and
//! writes the text. Shards are asked through the inbox that the control thread tells them metadata by; each looks at
//! itself in short steps with rests between them ([`watch`]), and has one question at a time. So a scrape takes no lock,
//! waits for no peer, and costs a shard what its steps cost, however many ask: scrapes within `FRESH` of each other
//! get the same text. A shard that does not answer within `PATIENCE` is left out and counted.
//!
//! Series by group, topic or partition are bounded by [`MetricsLimits`]; the rest are as many as there are shards, APIs
//! and error codes.
//!
//! Deliberately absent: pushing, history, exemplars, and lag of partitions that are on other nodes alone. Their
//! leader tells the high watermark, and whoever has both subtracts: a scrape that asked peers would fail along
//! with them.

mod families;
pub mod figures;
pub mod http;
mod limits;
mod process;
mod text;
pub mod watch;

use std::io::{self, PipeWriter};
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chronik_shards::io::inbox::InboxSender;
use chronik_shards::io::process::{THREAD_PREFIX, stand_back};
use crossbeam::channel::{Receiver, Sender, bounded};

use self::figures::{Answer, Question};
use self::http::{Answer as HttpAnswer, Answers, Request};
pub use self::limits::MetricsLimits;
use self::process::ProcessFigures;
use crate::front::ShardEvent;

/// How long shards may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a text is given to whoever asks again.
const FRESH: Duration = Duration::from_secs(1);

const OK: &str = "200 OK";
const UNAVAILABLE: &str = "503 Service Unavailable";

/// Where the metrics are told, and how much.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MetricsConfig {
    /// Where to listen.
    pub bind: SocketAddr,
    /// What is told by name.
    pub limits: MetricsLimits,
}

/// The listener and its thread.
#[derive(Debug)]
pub struct MetricsThread {
    node: Arc<Node>,
    /// Closed to end the thread.
    stop: PipeWriter,
    thread: JoinHandle<()>,
}

/// What the node tells the thread.
#[derive(Debug, Default)]
struct Node {
    /// The shards' inboxes, once they serve.
    shards: OnceLock<Vec<InboxSender<ShardEvent>>>,
    is_stopping: AtomicBool,
}

impl MetricsThread {
    /// Listens. Until [`Self::serve`] is called it tells that the node starts, and of the process alone.
    ///
    /// # Errors
    /// What the kernel says of the address, or of the thread.
    pub fn start(config: MetricsConfig) -> io::Result<Self> {
        let listener = TcpListener::bind(config.bind)?;
        listener.set_nonblocking(true)?;
        let (stopped, stop) = io::pipe()?;
        let node = Arc::new(Node::default());
        let of_thread = Arc::clone(&node);
        let run = move || {
            stand_back();
            let mut teller = Teller::new(of_thread, config.limits);
            http::serve(&listener, &stopped, &mut teller);
        };
        let thread = std::thread::Builder::new().name(format!("{THREAD_PREFIX}metrics"));
        Ok(Self { node, stop, thread: thread.spawn(run)? })
    }

    /// The shards are there: ask them.
    ///
    /// # Panics
    /// On a second call.
    pub fn serve(&self, shards: Vec<InboxSender<ShardEvent>>) {
        let is_first = self.node.shards.set(shards).is_ok();
        assert!(is_first, "a node begins to serve once");
    }

    /// The node begins to stop, and is not ready any more.
    pub fn stopping(&self) {
        self.node.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Ends the thread.
    pub fn stop(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the metrics thread panicked");
        }
    }
}

/// Knows the answers.
struct Teller {
    node: Arc<Node>,
    limits: MetricsLimits,
    round: u64,
    /// Once the shards serve.
    asking: Option<Asking>,
    /// The last text, and until when it is given again.
    text: Option<(Instant, Rc<[u8]>)>,
}

/// The questions to the shards.
struct Asking {
    sender: Sender<Answer>,
    answers: Receiver<Answer>,
    /// By shard: whether it has a question that it has not answered.
    asked: Vec<bool>,
}

impl Teller {
    fn new(node: Arc<Node>, limits: MetricsLimits) -> Self {
        Self { node, limits, round: 0, asking: None, text: None }
    }

    fn metrics(&mut self) -> HttpAnswer {
        let now = Instant::now();
        let body = match &self.text {
            Some((until, body)) if now < *until => Rc::clone(body),
            _ => {
                let answers = self.ask(Some(self.limits));
                let process = ProcessFigures::read();
                let took = now.elapsed();
                let told = families::Told { answers: answers.as_deref(), process, took };
                let body: Rc<[u8]> = families::text(&told, &self.limits).into();
                self.text = Some((Instant::now() + FRESH, Rc::clone(&body)));
                body
            }
        };
        HttpAnswer { status: OK, content_type: text::CONTENT_TYPE, body }
    }

    /// Whether everything runs that has to: a shard that hangs does not answer.
    fn live(&mut self) -> HttpAnswer {
        let Some(answers) = self.ask(None) else {
            return HttpAnswer::line(OK, "the node starts");
        };
        match silent(&answers) {
            None => HttpAnswer::line(OK, "every shard answers"),
            Some(shard) if self.is_stopping() => {
                HttpAnswer::line(OK, &format!("the node stops, shard {shard} has"))
            }
            Some(shard) => HttpAnswer::line(UNAVAILABLE, &format!("shard {shard} does not answer")),
        }
    }

    /// Whether clients are served here.
    fn ready(&mut self) -> HttpAnswer {
        let refuse = |why: &str| HttpAnswer::line(UNAVAILABLE, why);
        let Some(answers) = self.ask(None) else { return refuse("the node starts") };
        if self.is_stopping() {
            return refuse("the node stops");
        }
        if let Some(shard) = silent(&answers) {
            return refuse(&format!("shard {shard} does not answer"));
        }
        for answer in answers.iter().flatten() {
            let (shard, standing) = (answer.shard, answer.standing);
            match (standing.is_unfenced, standing.knows_controller, standing.is_stopping) {
                (true, true, false) => {}
                (_, _, true) => return refuse("the node stops"),
                (_, false, _) => return refuse(&format!("shard {shard} knows no controller")),
                (false, ..) => {
                    return refuse(&format!("the cluster takes the node for gone (shard {shard})"));
                }
            }
        }
        HttpAnswer::line(OK, "clients are served")
    }

    fn is_stopping(&self) -> bool {
        self.node.is_stopping.load(Ordering::Relaxed)
    }

    /// Asks every shard, and returns what they answer in time, by shard; `None` before they serve.
    fn ask(&mut self, limits: Option<MetricsLimits>) -> Option<Vec<Option<Answer>>> {
        let shards = self.node.shards.get()?;
        let asking = self.asking.get_or_insert_with(|| Asking::new(shards.len()));
        self.round += 1;
        Some(asking.ask(shards, self.round, limits))
    }
}

impl Asking {
    fn new(shards: usize) -> Self {
        // A shard has one question at a time: there is room for every answer.
        let (sender, answers) = bounded(shards);
        Self { sender, answers, asked: vec![false; shards] }
    }

    fn ask(
        &mut self,
        shards: &[InboxSender<ShardEvent>],
        round: u64,
        limits: Option<MetricsLimits>,
    ) -> Vec<Option<Answer>> {
        while let Ok(late) = self.answers.try_recv() {
            self.asked[usize::from(late.shard.get())] = false;
        }
        let mut awaited = 0;
        for (asked, inbox) in self.asked.iter_mut().zip(shards).filter(|(asked, _)| !**asked) {
            let question = Question { round, limits, answers: self.sender.clone() };
            *asked = inbox.try_send(ShardEvent::Asked(question)).is_ok();
            awaited += usize::from(*asked);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut found: Vec<Option<Answer>> = shards.iter().map(|_| None).collect();
        while awaited > 0 {
            let Ok(answer) = self.answers.recv_deadline(deadline) else { break };
            let shard = usize::from(answer.shard.get());
            self.asked[shard] = false;
            if answer.round == round {
                awaited -= 1;
                found[shard] = Some(answer);
            }
        }
        found
    }
}

/// A shard that has not answered.
fn silent(answers: &[Option<Answer>]) -> Option<usize> {
    answers.iter().position(Option::is_none)
}

impl Answers for Teller {
    fn answer(&mut self, request: Request<'_>) -> HttpAnswer {
        match request.path {
            "/metrics" => self.metrics(),
            "/health/live" => self.live(),
            "/health/ready" => self.ready(),
            _ => HttpAnswer::line("404 Not Found", "/metrics, /health/live or /health/ready"),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.text.as_ref().map(|(until, _)| *until)
    }

    /// A text that is not given any more takes no memory.
    fn tick(&mut self, now: Instant) {
        self.text.take_if(|(until, _)| *until <= now);
    }
}

#[cfg(test)]
mod tests;
