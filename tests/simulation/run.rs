//! One run: a workload, faults, and the checks after every step.

mod clients;
mod faults;

pub use self::clients::{check_clean, fill, seen, whole, whole_batches};

use std::collections::{BTreeMap, BTreeSet};

use chronik_shards::format::batch_builder::BatchBuilder;
use chronik_shards::format::compression::Codec;
use chronik_shards::format::record::Records;
use chronik_shards::format::record_batch::{ProducedBatch, StoredBatch};
use chronik_shards::machine::effect::Effect;
use chronik_shards::machine::input::{
    FetchError, FetchWait, PartitionConfig, ProduceError, ProduceInput, ProduceOutcome,
    ProducePartition, Token,
};
use chronik_shards::model::{
    Acks, LeaderEpoch, Now, Offset, PartitionIndex, ProducerEpoch, ProducerId, ReplicaKey,
    TimestampMs, TopicId,
};
use chronik_shards::store::recovery::{Gone, RecoveryError};
use chronik_shards::store::sim_disk::SimDisk;

use super::model::{BatchId, Breach, Model, Seen};
use super::node::{self, Known, Node, Pending, moment, topic_name};
use super::rng::Rng;

const STEPS: u64 = 1200;
const PRODUCERS: usize = 6;

/// Something that a seed set must not miss.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Event {
    Acked,
    Duplicate,
    TimedOut,
    StorageFull,
    Fetched,
    WaitAnswered,
    RecordsDeleted,
    TopicDeleted,
    DiskFull,
    Killed,
    PowerLost,
    CrashedInRecovery,
    CrashedAfterStart,
    WentOn,
    WentOnUncovered,
    StoppedInOrder,
    OtherShardCount,
    DamageRefused,
    DamageHarmless,
    Compacted,
    SegmentsSwapped,
    CrashedInJob,
}

impl Event {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Acked,
        Self::Duplicate,
        Self::TimedOut,
        Self::StorageFull,
        Self::Fetched,
        Self::WaitAnswered,
        Self::RecordsDeleted,
        Self::TopicDeleted,
        Self::DiskFull,
        Self::Killed,
        Self::PowerLost,
        Self::CrashedInRecovery,
        Self::CrashedAfterStart,
        Self::WentOn,
        Self::WentOnUncovered,
        Self::StoppedInOrder,
        Self::OtherShardCount,
        Self::DamageRefused,
        Self::DamageHarmless,
        Self::Compacted,
        Self::SegmentsSwapped,
        Self::CrashedInJob,
    ];
}

/// A bug put in on purpose, to show that the checks see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A commit is reported written while it is not.
    AckBeforeFlush,
    /// The second of two commits lands and both are reported written.
    AckPastHole,
    /// A checkpoint is reported written without its sync.
    CheckpointUnsynced,
    /// Recovery does not see the newest commit of a WAL.
    LastCommitIgnored,
    /// Recovery goes on from commits that are in a cache only.
    CacheTrusted,
    /// Recovery frees WALs by checkpoints whose names are in a cache only.
    NamesTrusted,
    /// Recovery uses the numbers of torn commits again and leaves those readable.
    TornTailKept,
    /// Compaction takes rewritten segments for durable that are in a cache only.
    SwapUnsynced,
}

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What happened, and how often.
    pub events: BTreeMap<Event, u64>,
    /// Over every step.
    pub trace_hash: u64,
}

/// A client that produces to one partition, one batch at a time, and asks again until it is told.
struct Producer {
    key: ReplicaKey,
    id: ProducerId,
    next_sequence: i32,
    /// Sent and not acknowledged. An idempotent producer sends it again, the same.
    unacked: Option<(ProducedBatch, BatchId)>,
    is_waiting: bool,
    /// The last acknowledged one, to be sent again on purpose.
    last: Option<(ProducedBatch, BatchId, Offset)>,
}

enum Awaited {
    Batch {
        producer: usize,
        key: ReplicaKey,
        id: BatchId,
        repeats: Option<Offset>,
    },
    /// Of a batch with acks=0, which promises nothing.
    Acceptance,
    Wait,
    Deletion {
        key: ReplicaKey,
    },
}

struct World {
    rng: Rng,
    disk: SimDisk,
    node: Node,
    /// Shards of the next start.
    shards: u16,
    model: Model,
    known: BTreeMap<ReplicaKey, Known>,
    gone: Gone,
    epoch: i32,
    micros: u64,
    producers: Vec<Producer>,
    awaited: BTreeMap<(usize, Token), Awaited>,
    next_token: u64,
    next_batch: BatchId,
    next_topic: u8,
    next_producer: i64,
    is_full: bool,
    events: BTreeMap<Event, u64>,
    hash: u64,
    bug: Option<Bug>,
    has_trace: bool,
}

/// Runs a seed. An error is a broken promise.
pub fn run(seed: u64, bug: Option<Bug>, has_trace: bool) -> Result<Outcome, Breach> {
    let mut rng = Rng::new(seed);
    let disk = SimDisk::new();
    node::format(&disk);
    let shards = 1 + rng.below(3) as u16;
    let mut effects = Vec::new();
    let node = Node::start(
        &disk,
        shards,
        &BTreeMap::new(),
        &Gone::default(),
        LeaderEpoch(1),
        moment(1_000_000),
        &mut effects,
    )
    .map_err(|error| format!("an empty disk: {error}"))?;
    let mut world = World {
        rng,
        disk,
        node,
        shards,
        model: Model::default(),
        known: BTreeMap::new(),
        gone: Gone::default(),
        epoch: 1,
        micros: 1_000_000,
        producers: Vec::new(),
        awaited: BTreeMap::new(),
        next_token: 1,
        next_batch: 1,
        next_topic: 1,
        next_producer: 1000,
        is_full: false,
        events: BTreeMap::new(),
        hash: seed,
        bug,
        has_trace,
    };
    world.create_topic();
    world.create_topic();
    for _ in 0..PRODUCERS {
        world.add_producer();
    }
    for _ in 0..STEPS {
        world.step()?;
        for shard in &world.node.shards {
            shard.machine.check_invariants();
        }
    }
    world.fill_disk(false);
    world.settle()?;
    world.read_everything()?;
    world.restart(true)?;
    Ok(Outcome { events: world.events, trace_hash: world.hash })
}

impl World {
    fn now(&self) -> Now {
        moment(self.micros)
    }

    fn note(&mut self, event: Event) {
        *self.events.entry(event).or_default() += 1;
    }

    fn trace(&mut self, what: impl FnOnce() -> String) {
        let line = what();
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if self.has_trace {
            println!("{:>10} {line}", self.micros);
        }
    }

    fn step(&mut self) -> Result<(), Breach> {
        match self.rng.below(1000) {
            0..420 => self.perform_one()?,
            420..700 => self.produce()?,
            700..780 => self.fetch()?,
            780..800 => self.wait()?,
            800..815 => self.delete_records()?,
            815..950 => self.pass_time()?,
            950..958 => self.change_config()?,
            958..964 => self.create_topic(),
            964..967 => self.delete_topic()?,
            967..975 => self.fill_disk(!self.is_full),
            975..983 => self.kill()?,
            983..990 => self.lose_power()?,
            990..993 => self.stop_in_order()?,
            993..996 => self.rot()?,
            _ => self.misbehave()?,
        }
        Ok(())
    }

    // -- IO ---------------------------------------------------------------------------------------

    fn perform_one(&mut self) -> Result<(), Breach> {
        let pending = self.node.pending();
        if pending.is_empty() {
            return Ok(());
        }
        let pending = pending[self.rng.place(pending.len())];
        self.perform(pending)
    }

    fn perform(&mut self, pending: Pending) -> Result<(), Breach> {
        self.trace(|| format!("{pending:?}"));
        let mut effects = Vec::new();
        let now = self.now();
        let swaps = self.node.did.swaps;
        let lies = self.bug == Some(Bug::SwapUnsynced) && matches!(pending, Pending::Compact(_));
        self.disk.lie_about_file_syncs(lies);
        let performed = self.node.perform(now, pending, &mut effects);
        self.disk.lie_about_file_syncs(false);
        performed.map_err(|error| format!("{pending:?}: {error}"))?;
        (swaps..self.node.did.swaps).for_each(|_| self.note(Event::SegmentsSwapped));
        self.take(effects)
    }

    /// Lets everything that is under way finish, and the seals be written.
    fn settle(&mut self) -> Result<(), Breach> {
        for _ in 0..4 {
            for _ in 0..10_000 {
                if self.node.is_quiet() {
                    break;
                }
                self.perform_one()?;
            }
            self.micros += 2_000_000;
            self.tick()?;
        }
        for _ in 0..10_000 {
            if self.node.is_quiet() {
                return Ok(());
            }
            self.perform_one()?;
        }
        Err("the node does not come to rest".to_owned())
    }

    fn pass_time(&mut self) -> Result<(), Breach> {
        let scale = [100, 10_000, 300_000, 7_000_000][self.rng.place(4)];
        self.micros += 1 + self.rng.below(scale);
        self.tick()
    }

    fn tick(&mut self) -> Result<(), Breach> {
        let (now, mut effects) = (self.now(), Vec::new());
        for shard in 0..self.node.shards.len() {
            let due = self.node.shards[shard].machine.next_deadline();
            if due.is_some_and(|due| due <= now.monotonic) {
                self.node.act(now, shard, &mut effects, |machine, out| machine.tick(now, out));
            }
        }
        self.take(effects)
    }

    fn take(&mut self, effects: Vec<(usize, Effect)>) -> Result<(), Breach> {
        for (shard, effect) in effects {
            self.trace(|| format!("shard {shard}: {effect:?}"));
            match effect {
                Effect::ProduceDone { token, outcomes } => {
                    match self.awaited.remove(&(shard, token)) {
                        Some(Awaited::Batch { producer, key, id, repeats }) => {
                            self.answered(producer, key, id, repeats, &outcomes)?;
                        }
                        Some(Awaited::Acceptance) => {}
                        Some(Awaited::Wait | Awaited::Deletion { .. }) | None => {
                            return Err(format!("{token:?} is answered and was not asked"));
                        }
                    }
                }
                Effect::FetchReady { token } => {
                    if self.awaited.remove(&(shard, token)).is_none() {
                        return Err(format!("{token:?} is ready and did not wait"));
                    }
                    self.note(Event::WaitAnswered);
                }
                Effect::RecordsDeleted { token, log_start_offset } => {
                    let awaited = self.awaited.remove(&(shard, token));
                    if let Some(Awaited::Deletion { key }) = awaited {
                        self.model.log_start(key, log_start_offset)?;
                        self.note(Event::RecordsDeleted);
                    }
                }
                Effect::Stopped => {}
                other => return Err(format!("{other:?} is no answer")),
            }
        }
        Ok(())
    }

    fn token(&mut self) -> Token {
        self.next_token += 1;
        Token(self.next_token)
    }
}
