//! One shard's machine and all that performs its effects.
//!
//! The machine is borrowed for one input at a time and never across an await. Effects are performed
//! in order right after, and none of them calls back into the machine: they fill slots, push
//! messages and raise signals.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::hash::BuildHasherDefault;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::task::Poll;
use std::time::{Instant, SystemTime};

use super::commit_times::CommitsBegun;
use super::peers::Peers;
use super::request::{ProduceRequestPart, Reply, Request, ShardReport};
use crate::format::peer_frame::PeerFrame;
use crate::format::wal_entry::Commit;
use crate::io::local::{Latch, Signal, Slot};
use crate::io::log_reader::LogReader;
use crate::io::places::Places;
use crate::io::process;
use crate::io::store_thread::StoreQueue;
use crate::io::wal_files::{WalFilePreparer, Wanted};
use crate::io::wal_writer::{CommitSource, WalWriter};
use crate::machine::effect::{Effect, RecoveredPartition};
use crate::machine::group::GroupResponse;
use crate::machine::input::{FetchError, FetchWait, PartitionSpec, ProduceInput, Token};
use crate::machine::replica::ReplicaAssignment;
use crate::machine::replication::{ConnectionId, PeerEffect};
use crate::machine::shard::ShardMachine;
use crate::mesh::{Caller, Incoming, MeshPort};
use crate::model::{Lsn, MonotonicMicros, Now, ReplicaKey, ShardId, TimestampMs};
use crate::store::pace::Pace;
use crate::store::paths::partition_dir;

/// How often a shard turns at least while somebody waits.
const PULSE_MS: u64 = 100;

/// Lookups whose order shows nowhere.
type Map<K, V> = HashMap<K, V, BuildHasherDefault<ahash::AHasher>>;

/// Freed at once by the machine, this much is worth the search for free pages.
const GIVEN_BACK_BYTES_MIN: usize = 1 << 20;

/// The two clocks. Copies agree, so that deadlines may cross shards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub(super) fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            monotonic: MonotonicMicros(self.origin.elapsed().as_micros() as u64),
            wall: TimestampMs(wall.as_millis() as i64),
        }
    }
}

/// Who gets an answer.
#[derive(Debug)]
pub(super) enum Origin {
    Own(Slot<Reply>),
    Peer(Caller),
}

/// Why a token is parked.
#[derive(Debug)]
pub(super) enum Parked {
    Produce(Origin),
    Wait(Origin),
    Delete(ReplicaKey, Origin),
    Group(Origin),
    /// To be answered by a request of its own.
    GroupOf(ShardId, u64),
}

pub(super) type Port = MeshPort<Request, Reply>;

#[derive(Debug)]
pub(super) struct Core {
    pub(super) id: ShardId,
    pub(super) shards: u16,
    pub(super) clock: Clock,
    pub(super) port: Rc<Port>,
    pub(super) reader: LogReader,
    pub(super) wal: Rc<WalWriter>,
    pub(super) files: WalFilePreparer,
    pub(super) store: StoreQueue,
    pace: Pace,
    /// Raised when the machine's next deadline has come nearer than the timer's.
    pub(super) deadline_moved: Signal,
    pub(super) stopping: Latch,
    pub(super) machine_stopped: Latch,
    pub(super) exit: Latch,
    pub(super) peers: Peers,
    me: Weak<Self>,
    machine: RefCell<ShardMachine>,
    effects: RefCell<Vec<Effect>>,
    timer_at: Cell<Option<MonotonicMicros>>,
    /// By token.
    pub(super) parked: RefCell<Places<Parked>>,
    /// Parked fetches of other shards, to find them when they are cancelled.
    peer_waits: RefCell<Map<Caller, Token>>,
    recovered: RefCell<Map<ReplicaKey, RecoveredPartition>>,
    directories: RefCell<Map<ReplicaKey, Rc<Path>>>,
    data_dir: PathBuf,
    report: RefCell<ShardReport>,
    commits_begun: CommitsBegun,
    /// Whoever waits for coordinators on other shards, by number.
    pub(super) group_waits: RefCell<Places<Slot<GroupResponse>>>,
    /// What takes them holds this core in turn.
    events: OnceCell<Weak<dyn TakeEvents>>,
}

/// What takes the control thread's events.
pub(super) trait TakeEvents {
    /// Takes all that have come and returns how many there were.
    fn take(&self) -> usize;
}

/// What a core is made of.
pub(super) struct Parts {
    pub(super) id: ShardId,
    pub(super) shards: u16,
    pub(super) clock: Clock,
    pub(super) port: Rc<Port>,
    pub(super) reader: LogReader,
    pub(super) wal: WalWriter,
    pub(super) files: WalFilePreparer,
    pub(super) store: StoreQueue,
    pub(super) pace: Pace,
    pub(super) machine: ShardMachine,
    pub(super) recovered: Vec<RecoveredPartition>,
    pub(super) data_dir: PathBuf,
    pub(super) peer_frame_bytes_max: usize,
}

impl Core {
    pub(super) fn new(parts: Parts) -> Rc<Self> {
        let recovered = parts.recovered.into_iter().map(|found| (found.state.key, found)).collect();
        Rc::new_cyclic(|me| Self {
            id: parts.id,
            shards: parts.shards,
            clock: parts.clock,
            port: parts.port,
            reader: parts.reader,
            wal: Rc::new(parts.wal),
            files: parts.files,
            store: parts.store,
            pace: parts.pace,
            deadline_moved: Signal::default(),
            stopping: Latch::default(),
            machine_stopped: Latch::default(),
            exit: Latch::default(),
            peers: Peers::new(parts.peer_frame_bytes_max),
            me: Weak::clone(me),
            machine: RefCell::new(parts.machine),
            effects: RefCell::default(),
            timer_at: Cell::default(),
            parked: RefCell::default(),
            peer_waits: RefCell::default(),
            recovered: RefCell::new(recovered),
            directories: RefCell::default(),
            data_dir: parts.data_dir,
            report: RefCell::new(ShardReport { shard: parts.id, ..Default::default() }),
            group_waits: RefCell::default(),
            commits_begun: CommitsBegun::default(),
            events: OnceCell::new(),
        })
    }

    /// Says who takes the control thread's events. Once.
    pub(super) fn take_events_with(&self, events: Weak<dyn TakeEvents>) {
        assert!(self.events.set(events).is_ok(), "a shard has one front");
    }

    /// Takes what the control thread has sent so far and returns how much there was.
    pub(super) fn take_events(&self) -> usize {
        let taken = self.events.get().and_then(Weak::upgrade).map_or(0, |events| events.take());
        if taken > 0 {
            self.count(|report| report.messages += taken as u64);
        }
        taken
    }

    /// Gives the machine one input and performs what comes of it.
    pub(super) fn drive<T>(
        &self,
        input: impl FnOnce(&mut ShardMachine, Now, &mut Vec<Effect>) -> T,
    ) -> T {
        let mut effects = self.effects.take();
        let result = input(&mut self.machine.borrow_mut(), self.clock.now(), &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.effects.replace(effects);
        self.perform_for_peers();
        let (next, rest) = {
            let machine = self.machine.borrow();
            (machine.next_deadline(), machine.storage_rest_percent())
        };
        self.pace.set_rest_percent(rest);
        if next.is_some_and(|next| self.timer_at.get().is_none_or(|armed| next < armed)) {
            self.deadline_moved.raise();
        }
        result
    }

    /// Itself, for a task that outlives a call.
    pub(super) fn me(&self) -> Rc<Self> {
        self.me.upgrade().expect("it is borrowed, so it is there")
    }

    pub(super) fn next_peer_effect(&self) -> Option<PeerEffect> {
        self.machine.borrow_mut().next_peer_effect()
    }

    /// The next frame to send on a connection; reads of segments that it leads to are begun.
    pub(super) fn next_peer_frame(&self, connection: ConnectionId) -> Option<PeerFrame> {
        let now = self.clock.now();
        let frame = self.machine.borrow_mut().next_peer_frame(now, connection);
        self.perform_for_peers();
        frame
    }

    /// Whether somebody waits for this shard, or this shard for another.
    fn is_waited_for(&self) -> bool {
        !self.parked.borrow().is_empty() || self.port.under_way() > 0
    }

    /// Call it before somebody begins to wait: the timer has to run from now on. While others wait it does.
    pub(super) fn begin_wait(&self) {
        if self.is_waited_for() {
            return;
        }
        let latest = self.clock.now().monotonic.plus_millis(2 * PULSE_MS);
        if self.timer_at.get().is_none_or(|armed| armed > latest) {
            self.deadline_moved.raise();
        }
    }

    /// Looks at the machine.
    pub(super) fn look<T>(&self, at: impl FnOnce(&ShardMachine) -> T) -> T {
        at(&self.machine.borrow())
    }

    fn perform(&self, effect: Effect) {
        match effect {
            Effect::ProduceDone { token, outcomes } => {
                self.settle(token, |_| Reply::Produced(outcomes));
            }
            Effect::FetchReady { token } => self.settle(token, |_| Reply::Ready),
            Effect::RecordsDeleted { token, log_start_offset } => {
                self.settle(token, |_| Reply::Deleted(Ok(log_start_offset)));
            }
            Effect::GroupAnswered { token, response } => self.settle_group(token, response),
            Effect::LoadGroups { key, leader_epoch } => self.load_groups(key, leader_epoch),
            Effect::GroupsFailed { key, reason } => {
                tracing::error!(partition = %key, reason, "groups cannot be coordinated");
            }
            Effect::CommitPending => self.wal.kick(),
            Effect::PrepareWalFile { seq, recycle } => self.files.prepare(Wanted { seq, recycle }),
            Effect::Store(job) => self.store.push(job),
            Effect::Stopped => self.machine_stopped.open(),
        }
    }

    /// Answers what is parked under a token. Nothing is, if it was cancelled.
    pub(super) fn settle(&self, token: Token, reply: impl FnOnce(&Parked) -> Reply) {
        let Some(parked) = self.parked.borrow_mut().remove(token.0) else { return };
        let reply = reply(&parked);
        let origin = match parked {
            Parked::Produce(origin)
            | Parked::Wait(origin)
            | Parked::Delete(_, origin)
            | Parked::Group(origin) => origin,
            Parked::GroupOf(..) => unreachable!("settled by settle_group"),
        };
        if let (Origin::Peer(caller), Reply::Ready) = (&origin, &reply) {
            self.peer_waits.borrow_mut().remove(caller);
        }
        self.answer(origin, reply);
    }

    pub(super) fn answer(&self, origin: Origin, reply: Reply) {
        match origin {
            Origin::Own(slot) => slot.fill(reply),
            Origin::Peer(caller) => self.port.reply(caller, reply),
        }
    }

    /// Forgets a parked fetch. Whoever waits on another shard still gets an answer.
    pub(super) fn cancel(&self, token: Token) {
        self.machine.borrow_mut().cancel_wait(token);
        self.settle(token, |_| Reply::Ready);
    }

    /// Takes a message from another shard.
    pub(super) fn hear(self: &Rc<Self>, message: Incoming<Request>) {
        self.count(|report| report.messages += 1);
        match message {
            Incoming::Request(caller, request) => {
                self.handle(Origin::Peer(caller), request);
            }
            Incoming::Cancelled(caller) => {
                let token = self.peer_waits.borrow_mut().remove(&caller);
                if let Some(token) = token {
                    self.cancel(token);
                }
            }
        }
    }

    /// Takes a request. Returns the token of a fetch that may be cancelled.
    pub(super) fn handle(self: &Rc<Self>, origin: Origin, request: Request) -> Option<Token> {
        match request {
            Request::Produce(part) => self.produce(origin, part),
            Request::WaitFetch { partitions, min_bytes, deadline } => {
                let caller = match origin {
                    Origin::Peer(caller) => Some(caller),
                    Origin::Own(_) => None,
                };
                let token = self.park(Parked::Wait(origin));
                if let Some(caller) = caller {
                    self.peer_waits.borrow_mut().insert(caller, token);
                }
                let wait = FetchWait { token, deadline, min_bytes, partitions };
                self.drive(|machine, now, out| machine.wait_fetch(now, wait, out));
                return Some(token);
            }
            Request::DeleteRecords { key, before } => {
                let token = self.park(Parked::Delete(key, origin));
                let begun = self.drive(|machine, now, out| {
                    machine.delete_records(now, token, key, before, out)
                });
                if let Err(error) = begun {
                    self.settle(token, |_| Reply::Deleted(Err(error)));
                }
            }
            Request::Fetch(input) => self.fetch(origin, &input),
            Request::ListOffsets(questions) => self.list_offsets(origin, questions),
            Request::EpochEnds(questions) => {
                let ends = self.look(|machine| {
                    let end = |question: &super::EpochQuestion| {
                        machine.epoch_end(
                            question.key,
                            question.current_leader_epoch,
                            question.asked,
                        )
                    };
                    questions.iter().map(end).collect()
                });
                self.answer(origin, Reply::EpochEnds(ends));
            }
            Request::Infos(keys) => {
                let infos =
                    self.look(|machine| keys.iter().map(|key| machine.info(*key)).collect());
                self.answer(origin, Reply::Infos(infos));
            }
            Request::HighWatermarks(keys) => {
                let known = self.look(|machine| {
                    keys.iter().map(|key| machine.known_high_watermark(*key)).collect()
                });
                self.answer(origin, Reply::HighWatermarks(known));
            }
            Request::Group { key, request, answer_to } => {
                self.group(origin, key, *request, answer_to);
            }
            Request::GroupAnswer { answer_to, response } => {
                self.take_group_answer(answer_to, *response);
                self.answer(origin, Reply::Taken);
            }
            Request::Report => {
                let report = self.report();
                self.answer(origin, Reply::Report(Box::new(report)));
            }
        }
        None
    }

    fn produce(&self, origin: Origin, part: ProduceRequestPart) {
        let ProduceRequestPart { acks, deadline, partitions } = part;
        let token = self.park(Parked::Produce(origin));
        let input = ProduceInput { token, acks, deadline, partitions };
        self.drive(|machine, now, out| machine.produce(now, input, out));
    }

    pub(super) fn park(&self, parked: Parked) -> Token {
        self.begin_wait();
        Token(self.parked.borrow_mut().insert(parked))
    }

    pub(super) fn open_partition(&self, spec: PartitionSpec) {
        let recovered = self.locate(&spec);
        self.drive(|machine, now, out| machine.open_partition(now, spec, recovered, out));
    }

    pub(super) fn assign_replica(&self, assignment: &ReplicaAssignment) {
        let recovered = self.locate(&assignment.spec);
        self.drive(|machine, now, out| machine.assign_replica(now, assignment, recovered, out));
    }

    /// Notes where a partition's files are, and hands out what recovery found of it.
    fn locate(&self, spec: &PartitionSpec) -> Option<RecoveredPartition> {
        let key = spec.key;
        assert_eq!(key.shard(self.shards), self.id, "{key} belongs to another shard");
        let directory = || partition_dir(&self.data_dir, &spec.topic_name, key.partition).into();
        self.directories.borrow_mut().entry(key).or_insert_with(directory);
        self.recovered.borrow_mut().remove(&key)
    }

    pub(super) fn close_partition(&self, key: ReplicaKey) {
        self.recovered.borrow_mut().remove(&key);
        self.directories.borrow_mut().remove(&key);
        self.drive(|machine, now, out| machine.close_partition(now, key, out));
        self.reader.forget(key);
        // The machine forgets deletions along with the partition.
        let orphans: Vec<Token> = {
            let parked = self.parked.borrow();
            let of_key =
                |parked: &Parked| matches!(parked, Parked::Delete(whose, _) if *whose == key);
            parked
                .iter()
                .filter(|(_, parked)| of_key(parked))
                .map(|(token, _)| Token(token))
                .collect()
        };
        for token in orphans {
            self.settle(token, |_| Reply::Deleted(Err(FetchError::UnknownPartition(key))));
        }
    }

    pub(super) fn directory(&self, key: ReplicaKey) -> Option<Rc<Path>> {
        self.directories.borrow().get(&key).map(Rc::clone)
    }

    /// Runs the machine's clock, for ever: one timer, and none while nothing will be due and nobody
    /// waits.
    ///
    /// While somebody waits, the timer also keeps the executors turning: an executor that the
    /// kernel suspends for longer than its preemption timer, between polling its rings and running
    /// its tasks, goes to sleep on tasks that are ready and stays so until its next event.
    pub(super) async fn keep_time(self: Rc<Self>) {
        loop {
            let now = self.clock.now().monotonic;
            let pulse = self.is_waited_for().then(|| now.plus_millis(PULSE_MS));
            let due = self.look(ShardMachine::next_deadline);
            let next = due.into_iter().chain(pulse).min();
            self.timer_at.set(next);
            let Some(at) = next else {
                self.deadline_moved.wait().await;
                continue;
            };
            let left = std::time::Duration::from_micros(at.since(now));
            if left.is_zero() {
                // A tick may leave its deadline in place only by moving it; let others run between.
                self.tick();
                glommio::executor().yield_task_queue_now().await;
                continue;
            }
            let mut timer = std::pin::pin!(glommio::timer::Timer::new(left));
            let has_moved = std::future::poll_fn(|context| {
                if self.deadline_moved.poll_raised(context).is_ready() {
                    return Poll::Ready(true);
                }
                timer.as_mut().poll(context).map(|_| false)
            });
            if !has_moved.await && due != next {
                self.port.nudge();
            }
        }
    }

    fn tick(&self) {
        let cached = self.look(ShardMachine::cached_bytes);
        self.drive(|machine, now, out| machine.tick(now, out));
        if self.look(ShardMachine::cached_bytes) + GIVEN_BACK_BYTES_MIN <= cached {
            process::give_memory_back();
        }
    }

    pub(super) fn count(&self, change: impl FnOnce(&mut ShardReport)) {
        change(&mut self.report.borrow_mut());
    }

    pub(super) fn report(&self) -> ShardReport {
        ShardReport {
            reads: self.reader.counts(),
            store_jobs_waiting: self.store.waiting(),
            parked: self.parked.borrow().len(),
            compaction: self.look(ShardMachine::compaction_totals),
            tally: self.look(ShardMachine::tally),
            wal: self.look(ShardMachine::wal_use),
            ..*self.report.borrow()
        }
    }
}

impl CommitSource for Core {
    fn next_commit(&self) -> Option<Commit> {
        self.drive(|machine, now, out| {
            let commit = machine.next_commit(now, out)?;
            self.commits_begun.begin(commit.lsn, now.monotonic);
            Some(commit)
        })
    }

    fn commit_written(&self, lsn: Lsn, bytes: usize) {
        self.drive(|machine, now, out| {
            let micros = self.commits_begun.end(lsn, now.monotonic);
            self.count(|report| {
                report.commit_times.add(micros);
                report.commits += 1;
                report.commit_bytes += bytes as u64;
            });
            machine.commit_written(now, lsn, out);
        });
    }
}
