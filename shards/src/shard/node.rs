//! Starts the shards of a node, and stops them in order.
//!
//! A stop has three steps, each over all shards before the next: the fronts wind down; the machines
//! bring everything to segments; the threads end. A front may therefore use every shard until the
//! last front is done.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use glommio::ExecutorJoinHandle;

use super::core::{Clock, Core, Parts, Port, TakeEvents};
use super::handle::ShardHandle;
use super::request::{Reply, Request};
use crate::format::wal::file_name;
use crate::io::inbox::{Ears, Inbox, InboxSender};
use crate::io::log_reader::{LogReader, ReaderLimits};
use crate::io::process::{ProcessMask, abort_on_shard_panic};
use crate::io::runtime::{self, ExecutorPlan, ShardCpus, TaskQueues};
use crate::io::store_thread::{self, Storage, StoreQueue};
use crate::io::wal_files::{Prepared, WalFilePreparer};
use crate::io::wal_writer::{WalWriter, WriteHook, WriterOptions};
use crate::machine::effect::{NoSpace, RecoveredPartition, StoreReply, WalStart};
use crate::machine::limits::ShardLimits;
use crate::machine::shard::ShardMachine;
use crate::mesh::{self, MeshSeat};
use crate::model::ShardId;
use crate::store::pace::Pace;
use crate::store::paths::wal_dir;

/// Replies of the storage thread that a shard has not taken yet; beyond, that thread waits.
const STORE_REPLIES_MAX: usize = 1024;

/// A node to be started.
pub struct NodeSpec {
    /// Where everything is.
    pub data_dir: PathBuf,
    /// One plan a shard, by number.
    pub shards: Vec<ShardPlan>,
    /// Every partition that recovery found. A shard's are given to its machine as they are opened.
    pub recovered: Vec<RecoveredPartition>,
    /// Calls that each shard may have under way at each other shard.
    pub calls_max: usize,
    /// Control events that a shard has not taken yet; beyond, their sender waits.
    pub control_events_max: usize,
    /// Memory for segment indexes, a shard.
    pub index_cache_bytes: usize,
    /// Segments that a shard keeps open for reading.
    pub read_files_max: usize,
    /// Bytes that each of a shard's rings registers, out of the limit on locked memory.
    pub ring_buffer_bytes: usize,
    /// Largest frame that a shard of another node may send.
    pub peer_frame_bytes_max: usize,
    /// Asked before each WAL write; for tests.
    pub write_hook: Option<WriteHook>,
}

/// How one shard runs.
pub struct ShardPlan {
    /// Where its thread runs.
    pub cpus: ShardCpus,
    /// How long to look for work before sleeping.
    pub spin_before_park: Duration,
    /// How long a commit that could go out waits for more.
    pub commit_linger: Duration,
    /// Bounds of its machine.
    pub limits: ShardLimits,
    /// Where its WAL goes on.
    pub wal: WalStart,
    /// Its storage.
    pub store: Box<dyn Storage>,
    /// How fast its storage goes: set by the shard.
    pub pace: Pace,
}

impl ShardPlan {
    /// An unpinned shard with the usual bounds.
    #[must_use]
    pub fn new(wal: WalStart, store: Box<dyn Storage>) -> Self {
        Self {
            cpus: ShardCpus::Inherited,
            spin_before_park: Duration::ZERO,
            commit_linger: Duration::ZERO,
            limits: ShardLimits::default(),
            wal,
            store,
            pace: Pace::default(),
        }
    }
}

impl NodeSpec {
    /// A node with the usual bounds.
    #[must_use]
    pub fn new(
        data_dir: PathBuf,
        shards: Vec<ShardPlan>,
        recovered: Vec<RecoveredPartition>,
    ) -> Self {
        Self {
            data_dir,
            shards,
            recovered,
            calls_max: 256,
            control_events_max: 1024,
            index_cache_bytes: 16 << 20,
            read_files_max: 16,
            ring_buffer_bytes: 64 << 10,
            peer_frame_bytes_max: 128 << 20,
            write_hook: None,
        }
    }
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system does not let shards speak to each other.
    #[error("cannot connect the shards: {0}")]
    System(#[from] io::Error),
    /// A shard's thread or one of its files could not be had.
    #[error("shard {shard} does not start: {error}")]
    Shard {
        /// The shard.
        shard: ShardId,
        /// Why.
        error: io::Error,
    },
}

/// What a shard's thread is told.
#[derive(Clone, Copy, Debug)]
enum Command {
    WindDown,
    StopMachine,
    Exit,
}

/// What a shard's thread tells.
#[derive(Debug)]
enum Milestone {
    Started(io::Result<()>),
    FrontDone,
    MachineStopped,
}

/// A node that runs.
#[derive(Debug)]
pub struct NodeHandle<T> {
    shards: Vec<RunningShard<T>>,
}

#[derive(Debug)]
struct RunningShard<T> {
    id: ShardId,
    commands: InboxSender<Command>,
    control: InboxSender<T>,
    milestones: Receiver<Milestone>,
    thread: ExecutorJoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
}

/// What a shard's thread starts from.
struct Seat<T> {
    mesh: MeshSeat<Request, Reply>,
    shards: u16,
    clock: Clock,
    data_dir: PathBuf,
    limits: ShardLimits,
    wal: WalStart,
    commit_linger: Duration,
    write_hook: Option<WriteHook>,
    reader: ReaderLimits,
    recovered: Vec<RecoveredPartition>,
    peer_frame_bytes_max: usize,
    store: StoreQueue,
    pace: Pace,
    files: WalFilePreparer,
    events: Inbox<T>,
    inboxes: Inboxes,
    milestones: Sender<Milestone>,
}

/// What comes to a shard from threads that are no shards, but for the control thread.
struct Inboxes {
    commands: Inbox<Command>,
    store: Inbox<StoreReply>,
    files: Inbox<Prepared>,
}

/// The control thread's events, and the front that takes them.
struct Events<T, C> {
    inbox: Inbox<T>,
    take: RefCell<C>,
}

/// Starts a node and returns when every shard serves.
///
/// `front` is called once on each shard's thread. It returns what takes the control thread's events
/// (called before the requests of other shards that were sent after them), and the future that is
/// the shard's main task; that one returns some time after [`ShardHandle::stopping`].
///
/// # Errors
/// When the process's limits, a thread or a file are in the way. Shards that had started are ended.
pub fn start<T, F, C, M>(spec: NodeSpec, front: F) -> Result<NodeHandle<T>, StartError>
where
    T: Send + 'static,
    F: FnOnce(ShardHandle) -> (C, M) + Clone + Send + 'static,
    C: FnMut(T) + 'static,
    M: Future<Output = ()> + 'static,
{
    abort_on_shard_panic();
    let count = spec.shards.len();
    let shards = u16::try_from(count).expect("a node has at most 65,535 shards");
    assert!(shards > 0, "a node has a shard");
    let reader = ReaderLimits {
        open_files_max: spec.read_files_max,
        index_cache_bytes: spec.index_cache_bytes,
    };
    let mask = ProcessMask::current()?;
    let clock = Clock::start();

    let mut recovered: Vec<Vec<RecoveredPartition>> = (0..count).map(|_| Vec::new()).collect();
    for found in spec.recovered {
        recovered[usize::from(found.state.key.shard(shards).0)].push(found);
    }
    let mut node = NodeHandle { shards: Vec::with_capacity(count) };
    let seats = mesh::build(shards, spec.calls_max)?;
    for ((plan, mesh), recovered) in spec.shards.into_iter().zip(seats).zip(recovered) {
        let id = mesh.id();
        let executor = ExecutorPlan {
            cpus: plan.cpus,
            spin_before_park: plan.spin_before_park,
            ring_buffer_bytes: spec.ring_buffer_bytes,
        };
        let prepare = |node: &mut NodeHandle<T>| -> io::Result<()> {
            let bell = mesh.bell();
            let (commands, command_inbox) = Inbox::new(4, bell.clone());
            let (control, control_inbox) = Inbox::new(spec.control_events_max, bell.clone());
            let (replies, store_inbox) = Inbox::new(STORE_REPLIES_MAX, bell.clone());
            let (prepared, files_inbox) = Inbox::new(4, bell);
            let (milestones, milestone_queue) = unbounded();
            let (store, store_thread) = store_thread::start(id, mask, replies, plan.store)?;
            let directory = wal_dir(&spec.data_dir, id);
            let file_bytes = plan.limits.wal_file_bytes;
            let (files, files_thread) =
                WalFilePreparer::start(id, mask, directory, file_bytes, prepared)?;
            let seat = Seat {
                mesh,
                shards,
                clock,
                data_dir: spec.data_dir.clone(),
                limits: plan.limits,
                wal: plan.wal,
                commit_linger: plan.commit_linger,
                write_hook: spec.write_hook.clone(),
                reader,
                recovered,
                peer_frame_bytes_max: spec.peer_frame_bytes_max,
                store,
                pace: plan.pace,
                files,
                events: control_inbox,
                inboxes: Inboxes {
                    commands: command_inbox,
                    store: store_inbox,
                    files: files_inbox,
                },
                milestones,
            };
            let front = front.clone();
            let thread = runtime::start(id, executor, move || live(seat, front))?;
            node.shards.push(RunningShard {
                id,
                commands,
                control,
                milestones: milestone_queue,
                thread,
                helpers: vec![store_thread, files_thread],
            });
            Ok(())
        };
        if let Err(error) = prepare(&mut node) {
            node.end();
            return Err(StartError::Shard { shard: id, error });
        }
    }
    match node.started() {
        Ok(()) => Ok(node),
        Err(error) => {
            node.end();
            Err(error)
        }
    }
}

impl<T> NodeHandle<T> {
    fn started(&self) -> Result<(), StartError> {
        for shard in &self.shards {
            let error = match shard.milestones.recv() {
                Ok(Milestone::Started(Ok(()))) => continue,
                Ok(Milestone::Started(Err(error))) => error,
                Ok(other) => unreachable!("a shard first says whether it started, not {other:?}"),
                Err(_) => io::Error::other("its executor could not be created"),
            };
            return Err(StartError::Shard { shard: shard.id, error });
        }
        Ok(())
    }

    /// Where to send control events, by shard.
    pub fn control(&self) -> Vec<InboxSender<T>> {
        self.shards.iter().map(|shard| shard.control.clone()).collect()
    }

    /// Stops the node and returns when everything is in segments and every thread has ended. Fronts
    /// that are not done after `grace` are cut off. Calls `done` with what has been done on the way.
    pub fn stop(self, grace: Duration, done: &mut dyn FnMut(&'static str)) {
        self.tell(Command::WindDown);
        let deadline = std::time::Instant::now() + grace;
        for shard in &self.shards {
            if let Err(RecvTimeoutError::Timeout) = shard.milestones.recv_deadline(deadline) {
                tracing::warn!(shard = %shard.id, "connections were cut off by the stop");
            }
        }
        done("requests answered");
        self.tell(Command::StopMachine);
        for shard in &self.shards {
            // A front that was late may still be heard of.
            while let Ok(milestone) = shard.milestones.recv() {
                if matches!(milestone, Milestone::MachineStopped) {
                    break;
                }
            }
        }
        done("everything in segments");
        self.end();
        done("shards ended");
    }

    fn end(self) {
        self.tell(Command::Exit);
        for shard in self.shards {
            if let Err(error) = shard.thread.join() {
                tracing::error!(shard = %shard.id, %error, "a shard's thread ended badly");
            }
            for helper in shard.helpers {
                if helper.join().is_err() {
                    tracing::error!(shard = %shard.id, "a helper thread ended badly");
                }
            }
        }
    }

    fn tell(&self, command: Command) {
        for shard in &self.shards {
            // A shard that did not start has nobody to listen.
            let _ = shard.commands.send(command);
        }
    }
}

/// The life of a shard's thread.
async fn live<T, F, C, M>(seat: Seat<T>, front: F)
where
    T: 'static,
    F: FnOnce(ShardHandle) -> (C, M),
    C: FnMut(T) + 'static,
    M: Future<Output = ()> + 'static,
{
    let milestones = seat.milestones.clone();
    let say = |milestone| {
        // Whoever started the node may have given up on it.
        let _ = milestones.send(milestone);
    };
    let (core, ears, events, inboxes, queues) = match build(seat).await {
        Ok(built) => built,
        Err(error) => return say(Milestone::Started(Err(error))),
    };
    let (on_event, main) = front(ShardHandle::new(Rc::clone(&core)));
    // Held here until the shard ends.
    let events = Rc::new(Events { inbox: events, take: RefCell::new(on_event) });
    core.take_events_with(Rc::downgrade(&events) as Weak<dyn TakeEvents>);
    let tasks: [std::pin::Pin<Box<dyn Future<Output = ()>>>; 4] = [
        Box::pin(listen(Rc::clone(&core), ears, inboxes, queues)),
        Box::pin(Rc::clone(&core.port).ring()),
        Box::pin(Rc::clone(&core).keep_time()),
        Box::pin(Rc::clone(&core.wal).run(Rc::clone(&core), queues.urgent)),
    ];
    for task in tasks {
        match glommio::spawn_local_into(task, queues.urgent) {
            Ok(task) => drop(task.detach()),
            Err(error) => return say(Milestone::Started(Err(io::Error::from(error)))),
        }
    }
    say(Milestone::Started(Ok(())));
    let main = glommio::spawn_local({
        let milestones = milestones.clone();
        async move {
            main.await;
            let _ = milestones.send(Milestone::FrontDone);
        }
    });
    core.machine_stopped.wait_or(&core.exit).await;
    say(Milestone::MachineStopped);
    core.exit.wait().await;
    drop(main);
    core.store.close();
    core.files.close();
    core.wal.close().await;
}

async fn build<T>(seat: Seat<T>) -> io::Result<(Rc<Core>, Ears, Inbox<T>, Inboxes, TaskQueues)> {
    let id = seat.mesh.id();
    let queues = TaskQueues::create();
    let directory = wal_dir(&seat.data_dir, id);
    let name = directory.join(file_name(seat.wal.file));
    // The first file that this executor opens for direct IO; see `wal_writer`.
    let options = WriterOptions { linger: seat.commit_linger, hook: seat.write_hook };
    let wal = WalWriter::open(id, directory, seat.wal.file, options).await?;
    let keys = seat.recovered.iter().map(|found| found.state.key).collect();
    tracing::debug!(shard = %id, file = %name.display(), "shard starts");
    let (port, ears) = seat.mesh.sit();
    let core = Core::new(Parts {
        id,
        shards: seat.shards,
        clock: seat.clock,
        port,
        reader: LogReader::new(seat.reader, queues.cold_reads),
        wal,
        files: seat.files,
        store: seat.store,
        pace: seat.pace,
        machine: ShardMachine::start(id, seat.limits, seat.wal, keys),
        recovered: seat.recovered,
        data_dir: seat.data_dir,
        peer_frame_bytes_max: seat.peer_frame_bytes_max,
    });
    Ok((core, ears, seat.events, seat.inboxes, queues))
}

/// Takes everything that other threads send, for ever.
async fn listen(core: Rc<Core>, ears: Ears, inboxes: Inboxes, queues: TaskQueues) {
    let take_inboxes = || core.take_events() + inboxes.take(&core, queues);
    let port: &Port = &core.port;
    let mut listener = ears.listen();
    loop {
        listener.heard().await;
        core.count(|report| report.wakeups += 1);
        loop {
            let mut taken = take_inboxes();
            for peer in port.peers() {
                let take_inboxes = || taken += take_inboxes();
                let heard = port.drain(peer, take_inboxes, |message| core.hear(message));
                taken += heard;
                glommio::yield_if_needed().await;
            }
            if taken == 0 {
                break;
            }
        }
    }
}

impl<T, C: FnMut(T)> TakeEvents for Events<T, C> {
    fn take(&self) -> usize {
        let mut taken = 0;
        while let Some(event) = self.inbox.try_take() {
            (self.take.borrow_mut())(event);
            taken += 1;
        }
        taken
    }
}

impl Inboxes {
    /// Empties all inboxes and returns how much there was.
    fn take(&self, core: &Rc<Core>, queues: TaskQueues) -> usize {
        let mut taken = 0;
        while let Some(reply) = self.store.try_take() {
            core.store.flush();
            let replaced = match &reply {
                // What was read ahead of the cut is of another history, and old segments take room while they are open.
                StoreReply::Truncated { key, .. } | StoreReply::Swapped { key, .. } => Some(*key),
                _ => None,
            };
            core.drive(|machine, now, out| machine.store_done(now, reply, out));
            if let Some(key) = replaced {
                core.reader.forget(key);
            }
            taken += 1;
        }
        while let Some(prepared) = self.files.try_take() {
            file_prepared(core, queues, prepared);
            taken += 1;
        }
        while let Some(command) = self.commands.try_take() {
            match command {
                Command::WindDown => {
                    core.drive(|machine, now, out| machine.wind_down(now, out));
                    core.stopping.open();
                }
                Command::StopMachine => core.drive(|machine, now, out| machine.stop(now, out)),
                Command::Exit => core.exit.open(),
            }
            taken += 1;
        }
        core.count(|report| report.messages += taken as u64);
        taken
    }
}

fn file_prepared(core: &Rc<Core>, queues: TaskQueues, prepared: Prepared) {
    let Prepared { wanted, has_space } = prepared;
    let core = Rc::clone(core);
    let task = async move {
        if has_space {
            core.wal.file_prepared(wanted).await;
        }
        let result = if has_space { Ok(()) } else { Err(NoSpace) };
        core.drive(|machine, now, out| machine.wal_file_prepared(now, wanted.seq, result, out));
    };
    match glommio::spawn_local_into(task, queues.urgent) {
        Ok(task) => drop(task.detach()),
        Err(error) => {
            crate::io::process::stop_process(format_args!("the urgent queue is gone: {error}"))
        }
    }
}
