//! Four nodes, simulated: the real machines, frames, stores and recoveries, on virtual time, a virtual network
//! and disks that lie. One seed is one exact run.
//!
//! Connections deliver in order or not at all: frames are late, directions are cut, connections are reset.
//! The controller is an oracle: the real metadata image with its guards, applied in one order, told to each
//! node late. It fences who is silent, elects from the in-sync set, and now and then moves a leader.

mod admin;
mod checks;
mod clients;
mod controller;
mod disks;
mod events;
mod faults;
mod groups;
mod loss;
mod network;

use std::collections::{BTreeMap, BTreeSet};

use chronik_shards::machine::effect::Effect;
use chronik_shards::machine::input::Token;
use chronik_shards::machine::replica::NodeIdentity;
use chronik_shards::machine::replication::PeerLimits;
use chronik_shards::model::{BrokerEpoch, LeaderEpoch, NodeId, Now, Offset, ReplicaKey, TopicId};
use chronik_shards::store::recovery::Gone;
use chronik_shards::store::sim_disk::SimDisk;

use self::admin::Topics;
use self::clients::Producer;
use self::controller::Controller;
pub use self::events::{Bug, Event};
use self::groups::Groups;
pub use self::groups::TOPIC_ID as GROUPS_TOPIC_ID;
use self::loss::Lost;
use self::network::Network;
use super::model::{BatchId, Breach, Model};
use super::node::{self, Known, Node, Pending, moment};
use super::rng::Rng;

/// One more than a partition has replicas, so that they can move.
pub const NODES: usize = 4;
const STEPS: u64 = 4000;
const STEPS_WITH_GROUPS: u64 = 6000;
const PRODUCERS: usize = 5;
/// Steps in which a cluster without faults has to come to rest.
const SETTLE_STEPS: u64 = 60_000;

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// What happened, and how often.
    pub events: BTreeMap<Event, u64>,
    /// Virtual time that passed.
    pub micros: u64,
    /// Over every step.
    pub trace_hash: u64,
}

/// One node and what it stands on.
pub struct Seat {
    pub disk: SimDisk,
    pub shards: u16,
    /// `None` while it is down.
    pub node: Option<Node>,
    /// Grows with every start: what was under way for an earlier one counts no more.
    pub incarnation: u64,
    pub broker_epoch: BrokerEpoch,
    /// No thread of it runs until then.
    pub frozen_until: u64,
    /// Its disk does nothing until then.
    pub slow_until: u64,
    /// Its disk has a quota.
    is_full: bool,
    /// The next sync ends its process.
    fails_syncs: bool,
    /// Its disk before a bit of it flipped.
    backup: Option<SimDisk>,
    /// Its disk is an empty one, and the controller knows it with the former.
    is_replaced: bool,
    /// Which data directory it is on.
    directory: u8,
    /// How far its wall clock is off.
    wall_ahead_ms: i64,
    /// What its process did that is noted.
    did: node::Counts,
}

pub struct World {
    rng: Rng,
    seats: Vec<Seat>,
    controller: Controller,
    network: Network,
    model: Model,
    /// Of a thousand steps.
    faults: u64,
    topics: Topics,
    /// `None`: there are none.
    groups: Option<Groups>,
    /// What processes had acknowledged and not flushed when they ended, where a topic allows that.
    lost: Vec<Lost>,
    micros: u64,
    producers: Vec<Producer>,
    awaited: BTreeMap<(usize, usize, Token), usize>,
    next_token: u64,
    next_batch: BatchId,
    next_producer: i64,
    /// Who led in an epoch: never two.
    leaders: BTreeMap<(ReplicaKey, LeaderEpoch), usize>,
    /// The epoch under which an offset was written, once a client may have seen it.
    written: BTreeMap<(ReplicaKey, Offset), (BatchId, LeaderEpoch)>,
    events: BTreeMap<Event, u64>,
    hash: u64,
    bug: Option<Bug>,
    has_trace: bool,
    is_calm: bool,
}

fn node_id(seat: usize) -> NodeId {
    NodeId(seat as i32 + 1)
}

fn seat_of(node: NodeId) -> usize {
    node.0 as usize - 1
}

/// Small, so that windows fill, catching up reads segments, and who is slow is out soon.
const PEERS: PeerLimits = PeerLimits {
    window_bytes: 24 * 1024,
    frame_bytes_max: 8 * 1024,
    frames_in_flight_max: 8,
    heartbeat_ms: 100,
    peer_timeout_ms: 700,
    reconnect_ms_max: 200,
    positions_delay_ms: 2,
    waiting_opens_max: 64,
    lag_time_max_ms: 400,
    slow_factor: 5,
    slow_ms_min: 40,
    slow_after_ms: 200,
    tells_acks: true,
};

/// Runs a seed. An error is a broken promise.
pub fn run(seed: u64, bug: Option<Bug>, has_trace: bool) -> Result<Outcome, Breach> {
    let mut world = World::new(seed, bug, has_trace);
    world.start_all()?;
    world.found();
    for _ in 0..PRODUCERS {
        world.add_producer();
    }
    world.finish(STEPS)
}

/// Runs a seed with groups, whose coordinators live and die with everything else.
pub fn run_with_groups(seed: u64, bug: Option<Bug>, has_trace: bool) -> Result<Outcome, Breach> {
    let mut world = World::new(seed, bug, has_trace);
    world.plan_groups();
    world.start_all()?;
    world.found();
    world.found_groups();
    world.add_producer();
    world.finish(STEPS_WITH_GROUPS)
}

impl World {
    fn new(seed: u64, bug: Option<Bug>, has_trace: bool) -> Self {
        let mut rng = Rng::new(seed ^ 0x0c1a_57e2);
        let faults = [4, 20][rng.place(2)];
        let seats = (0..NODES)
            .map(|_| {
                let disk = SimDisk::new();
                node::format(&disk);
                Seat {
                    disk,
                    shards: 1 + rng.below(2) as u16,
                    node: None,
                    incarnation: 0,
                    broker_epoch: BrokerEpoch(0),
                    frozen_until: 0,
                    slow_until: 0,
                    is_full: false,
                    fails_syncs: false,
                    backup: None,
                    is_replaced: false,
                    directory: 0,
                    wall_ahead_ms: 0,
                    did: node::Counts::default(),
                }
            })
            .collect();
        Self {
            rng,
            seats,
            controller: Controller::default(),
            network: Network::default(),
            model: Model::default(),
            faults,
            topics: Topics::default(),
            groups: None,
            lost: Vec::new(),
            micros: 1_000_000,
            producers: Vec::new(),
            awaited: BTreeMap::new(),
            next_token: 1,
            next_batch: 1,
            next_producer: 1000,
            leaders: BTreeMap::new(),
            written: BTreeMap::new(),
            events: BTreeMap::new(),
            hash: seed,
            bug,
            has_trace,
            is_calm: false,
        }
    }

    fn finish(mut self, steps: u64) -> Result<Outcome, Breach> {
        for _ in 0..steps {
            self.step()?;
        }
        self.settle()?;
        self.check_everything()?;
        Ok(Outcome { events: self.events, micros: self.micros - 1_000_000, trace_hash: self.hash })
    }

    /// The time as a node has it.
    fn now(&self, seat: usize) -> Now {
        let mut now = moment(self.micros);
        now.wall.0 += self.seats[seat].wall_ahead_ms;
        now
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
        self.micros += self.rng.below(300);
        self.excuse();
        match self.rng.below(1000) {
            0..330 => self.perform_one()?,
            330..640 => self.deliver_one()?,
            640..770 => self.produce()?,
            770..800 => self.fetch()?,
            800..810 => self.delete_records()?,
            810..875 => self.controller_step()?,
            875..972 => self.pass_time()?,
            972..980 => self.administer(),
            place if place < 980 + self.faults => self.fault()?,
            _ => self.produce()?,
        }
        self.groups_step()
    }

    /// Whether a node runs at this moment.
    fn runs(&self, seat: usize) -> bool {
        self.seats[seat].node.is_some() && self.seats[seat].frozen_until <= self.micros
    }

    fn running(&self) -> Vec<usize> {
        (0..NODES).filter(|seat| self.runs(*seat)).collect()
    }

    fn perform_one(&mut self) -> Result<(), Breach> {
        let mut pending: Vec<(usize, Pending)> = Vec::new();
        for seat in self.running() {
            if self.seats[seat].slow_until <= self.micros {
                let node = self.seats[seat].node.as_ref().expect("it runs");
                pending.extend(node.pending().into_iter().map(|pending| (seat, pending)));
            }
        }
        if pending.is_empty() {
            return Ok(());
        }
        let (seat, pending) = pending[self.rng.place(pending.len())];
        self.perform(seat, pending)
    }

    fn perform(&mut self, seat: usize, pending: Pending) -> Result<(), Breach> {
        self.trace(|| format!("node {} {pending:?}", seat + 1));
        let (now, mut effects) = (self.now(seat), Vec::new());
        let node = self.seats[seat].node.as_mut().expect("it runs");
        match node.perform(now, pending, &mut effects) {
            Ok(()) => self.take(seat, effects),
            Err(_) if self.ends_by_failed_sync(seat) => Ok(()),
            Err(error) => Err(format!("node {} {pending:?}: {error}", seat + 1)),
        }
    }

    fn pass_time(&mut self) -> Result<(), Breach> {
        // Without faults nobody is to seem slow for want of a turn.
        let scales =
            if self.is_calm { [100, 500, 1000, 3000] } else { [100, 3000, 10_000, 60_000] };
        let scale = scales[self.rng.place(4)];
        self.micros += 1 + self.rng.below(scale);
        self.tick()
    }

    fn tick(&mut self) -> Result<(), Breach> {
        for seat in self.running() {
            let now = self.now(seat);
            let mut effects = Vec::new();
            let node = self.seats[seat].node.as_mut().expect("it runs");
            for shard in 0..node.shards.len() {
                let due = node.shards[shard].machine.next_deadline();
                if due.is_some_and(|due| due <= now.monotonic) {
                    node.act(now, shard, &mut effects, |machine, out| machine.tick(now, out));
                }
            }
            self.take(seat, effects)?;
        }
        self.heartbeats()
    }

    /// What a node answered, and what its machines want of peers.
    fn take(&mut self, seat: usize, effects: Vec<(usize, Effect)>) -> Result<(), Breach> {
        for (shard, effect) in effects {
            self.trace(|| format!("node {} shard {shard}: {effect:?}", seat + 1));
            match effect {
                Effect::ProduceDone { token, outcomes } => {
                    if let Some(producer) = self.awaited.remove(&(seat, shard, token)) {
                        self.answered(seat, producer, &outcomes)?;
                    }
                }
                Effect::GroupAnswered { token, response } => {
                    self.group_answered(seat, token, *response);
                }
                Effect::LoadGroups { key, leader_epoch } => {
                    self.load_groups(seat, shard, key, leader_epoch);
                }
                Effect::GroupsFailed { key, reason } => self.groups_failed(key, &reason)?,
                Effect::FetchReady { .. } | Effect::RecordsDeleted { .. } | Effect::Stopped => {}
                other => return Err(format!("{other:?} is no answer")),
            }
        }
        self.peer_effects(seat)?;
        self.check_node(seat)
    }

    /// Starts a node, unless it is refused: it registers, recovers, and is told what it has.
    fn start(&mut self, seat: usize) -> Result<(), Breach> {
        if self.seats[seat].is_replaced {
            self.note(Event::Refused);
            return Ok(());
        }
        let shards = match self.rng.one_in(4) && self.seats[seat].incarnation > 0 {
            true => 1 + self.rng.below(3) as u16,
            false => self.seats[seat].shards,
        };
        if shards != self.seats[seat].shards {
            self.note(Event::OtherShardCount);
        }
        self.seats[seat].shards = shards;
        self.seats[seat].incarnation += 1;
        self.seats[seat].frozen_until = 0;
        self.seats[seat].slow_until = 0;
        self.seats[seat].did = node::Counts::default();
        let incarnation = self.seats[seat].incarnation;
        let process =
            controller::Process { incarnation, shards, directory: self.seats[seat].directory };
        let broker_epoch = self.controller.register(node_id(seat), process, self.micros);
        self.seats[seat].broker_epoch = broker_epoch;
        self.excuse();
        self.trace(|| format!("node {} starts, {shards} shards, {broker_epoch:?}", seat + 1));
        let view = self.controller.view(seat);
        let known: BTreeMap<ReplicaKey, Known> = admin::replicas_on(view, node_id(seat));
        let gone = Gone::from(node_id(seat), view);
        let now = self.now(seat);
        let disk = self.seats[seat].disk.clone();
        // A machine that stays full does not start; somebody makes room.
        disk.set_quota(None);
        self.seats[seat].is_full = false;
        let (mut started, partitions) = match Node::recovered(&disk, shards, &known, &gone, now) {
            Ok(recovered) => recovered,
            Err(error) => return self.did_not_start(seat, &error),
        };
        if self.seats[seat].backup.take().is_some() {
            self.note(Event::DamageHarmless);
        }
        for found in &partitions {
            self.trace(|| format!("node {} recovers {:?}", seat + 1, found.state));
        }
        let me = NodeIdentity { node_id: node_id(seat), broker_epoch };
        for shard in &mut started.shards {
            shard.machine.join_cluster(network::CLUSTER, me, PEERS);
            if self.groups.is_some() {
                groups::coordinate(&mut shard.machine, now);
            }
        }
        started.compacts_too_far = self.bug == Some(Bug::CompactsBeyondWatermark);
        self.seats[seat].node = Some(started);
        let mut recovered: BTreeMap<ReplicaKey, _> =
            partitions.into_iter().map(|found| (found.state.key, found)).collect();
        for key in known.keys() {
            self.assign(seat, *key, recovered.remove(key))?;
        }
        self.note(Event::Started);
        Ok(())
    }

    fn start_all(&mut self) -> Result<(), Breach> {
        for seat in 0..NODES {
            if self.seats[seat].node.is_none() {
                self.start(seat)?;
            }
        }
        Ok(())
    }

    /// Lets a cluster without faults come to rest: everyone in sync, every batch acknowledged.
    fn settle(&mut self) -> Result<(), Breach> {
        self.trace(|| "calm".to_owned());
        self.is_calm = true;
        self.network.heal();
        self.controller.heal();
        self.calm_groups();
        for seat in 0..NODES {
            self.seats[seat].frozen_until = 0;
            self.seats[seat].slow_until = 0;
            self.seats[seat].wall_ahead_ms = 0;
            self.seats[seat].is_full = false;
            self.seats[seat].fails_syncs = false;
            self.seats[seat].disk.set_quota(None);
            self.seats[seat].disk.fail_syncs(false);
        }
        for step in 0..SETTLE_STEPS {
            self.excuse();
            if step % 64 == 0 {
                self.give_up_replaced();
                self.start_all()?;
            }
            match self.rng.below(100) {
                0..35 => self.perform_one()?,
                35..70 => self.deliver_one()?,
                70..75 => self.retry_unacked()?,
                75..85 => self.controller_step()?,
                _ => self.pass_time()?,
            }
            self.groups_step()?;
            if step % 64 == 0 {
                if self.is_at_rest() {
                    return Ok(());
                }
                self.check_healing()?;
            }
        }
        Err(format!("the cluster does not come to rest: {}", self.unrest()))
    }
}
