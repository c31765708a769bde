//! One run: nodes, network, faults and a workload, from one seed.

mod work;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use chronik_shards::format::metadata_command::{
    Assignment, BrokerEndpoint, BrokerIncarnation, ChangePartition, ConfigEntry, CreateTopic,
    IsrMember, JoinNode, MetadataCommand, NodeNamed, ReassignPartition, RegisterBroker,
    SetClusterConfig,
};
use chronik_shards::machine::controller::ControllerSettings;
use chronik_shards::machine::metadata::{ApplyOutcome, Broker, MetadataImage, ProposalId};
use chronik_shards::model::{MonotonicMicros, NodeId, TopicId};
use crossbeam::channel::{Receiver, Sender, unbounded};
use raft::eraftpb::MessageType;

use super::checker::{Checker, MARKER};
use super::disk::{Disk, MemoryLog};
use crate::control::handle::ReplyOnce;
use crate::control::member::{Member, MemberConfig};
use crate::control::members::Members;
use crate::control::peer_message::{Delivery, PeerMessage};
use crate::control::{CompactionPolicy, ControlError, MetadataUpdate};

const TICK_US: u64 = 50_000;
/// How long faults last.
const FAULTS_US: u64 = 20_000_000;
/// How long everything may take to be well afterwards.
const HEALING_US: u64 = 12_000_000;

/// Something that is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bug {
    None,
    /// A proposal that is sent again is another one.
    NewNumberOnRetry,
    /// What was synced is not on the disk after a crash.
    DisksForget,
}

/// What a run has seen.
pub(super) struct Outcome {
    pub(super) failovers: u64,
    pub(super) acknowledged: usize,
    pub(super) images_installed: u64,
    /// Nodes that came, and that went.
    pub(super) came: usize,
    pub(super) went: usize,
    /// Stands for everything that happened.
    pub(super) trace: u64,
}

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

struct Node {
    disk: Rc<RefCell<Disk>>,
    /// Which process it is.
    process: u8,
    member: Option<Member<MemoryLog>>,
    /// A shard's image, and what it is told.
    image: MetadataImage,
    updates: Receiver<MetadataUpdate>,
    frozen_until: u64,
    stage: Stage,
    is_registered: bool,
}

/// What a node has to do with the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It may come one day.
    Aside,
    /// It is told to come, or has been there from the first.
    Member,
    /// It was taken off and does not come back.
    Gone,
}

/// Nodes that may come, beside those that found the cluster.
const SPARE_NODES: i32 = 2;

enum Event {
    Deliver { from: NodeId, process: u8, to: NodeId, message: PeerMessage },
    Tick(NodeId),
    Trouble,
    Work,
}

type Answers = (String, Result<ApplyOutcome, ControlError>);

/// A run under way.
pub(super) struct Run {
    chance: Chance,
    bug: Bug,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    nodes: BTreeMap<NodeId, Node>,
    /// Who founds the cluster.
    members: Members,
    /// A node whose partitions are moved away, so that it can go.
    evacuated: Option<NodeId>,
    told_to_leave: BTreeSet<NodeId>,
    /// Directed links that are cut.
    cut: BTreeSet<(NodeId, NodeId)>,
    loss_percent: u64,
    delay_us: u64,
    healing: bool,
    checker: Checker,
    answers: (Sender<Answers>, Receiver<Answers>),
    next_marker: u64,
    next_topic: u8,
    trace: u64,
    proposals_seen: BTreeSet<Vec<u8>>,
}

impl Run {
    pub(super) fn new(seed: u64, bug: Bug) -> Self {
        let mut chance = Chance(seed);
        let count = 3 + 2 * chance.below(2) as i32 + i32::from(chance.percent(20));
        let members = Members::founding((1..=count).map(NodeId));
        let mut run = Self {
            loss_percent: chance.below(10),
            delay_us: 200 + chance.below(20_000),
            chance,
            bug,
            now: 0,
            events: BTreeMap::new(),
            next_event: 0,
            nodes: BTreeMap::new(),
            members,
            evacuated: None,
            told_to_leave: BTreeSet::new(),
            cut: BTreeSet::new(),
            healing: false,
            checker: Checker::default(),
            answers: unbounded(),
            next_marker: 0,
            next_topic: 1,
            trace: 0,
            proposals_seen: BTreeSet::new(),
        };
        for node in (1..=count + SPARE_NODES).map(NodeId) {
            let stage = if node.get() <= count { Stage::Member } else { Stage::Aside };
            let members =
                if stage == Stage::Member { run.members.clone() } else { Members::nobody() };
            let disk = Rc::new(RefCell::new(Disk::new(&members)));
            let (_, updates) = unbounded();
            let image = MetadataImage::default();
            let (process, member, frozen_until) = (0, None, 0);
            let state = Node {
                disk,
                process,
                member,
                image,
                updates,
                frozen_until,
                stage,
                is_registered: false,
            };
            run.nodes.insert(node, state);
            let tick_at = run.chance.below(TICK_US);
            if stage == Stage::Member {
                run.start(node);
            }
            run.at(tick_at, Event::Tick(node));
        }
        run.at(300_000, Event::Trouble);
        run.at(100_000, Event::Work);
        run
    }

    pub(super) fn finish(mut self) -> Outcome {
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = at;
            if at >= FAULTS_US && !self.healing {
                self.heal();
            }
            if at >= FAULTS_US + HEALING_US {
                break;
            }
            self.event(event);
        }
        self.check_the_end();
        let founders = self.members.nodes().count();
        let in_stage = |stage| self.nodes.values().filter(move |it| it.stage == stage).count();
        let came = self.nodes.len() - in_stage(Stage::Aside) - founders;
        Outcome {
            came,
            went: in_stage(Stage::Gone),
            failovers: self.checker.failovers,
            acknowledged: self.checker.acknowledged(),
            images_installed: self.checker.images_installed,
            trace: self.trace,
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Tick(node) => {
                let at = self.now + TICK_US;
                self.at(at, Event::Tick(node));
                self.with(node, |member, now, send| member.tick(now, send));
            }
            Event::Deliver { from, process, to, message } => {
                // The connection of an earlier process ends with the next one's.
                let is_current = self.nodes[&from].process == process;
                let frozen_until = self.nodes[&to].frozen_until;
                if self.now < frozen_until {
                    self.at(frozen_until, Event::Deliver { from, process, to, message });
                } else if is_current {
                    self.with(to, |member, now, _| member.step(now, from, message));
                }
            }
            Event::Trouble => {
                let next = self.now + 50_000 + self.chance.below(1_500_000);
                self.at(next, Event::Trouble);
                if !self.healing {
                    self.trouble();
                }
            }
            Event::Work => {
                let next = self.now + 5_000 + self.chance.below(120_000);
                self.at(next, Event::Work);
                self.work();
            }
        }
    }

    /// Has a running node do something, and carries out what follows.
    fn with(
        &mut self,
        node: NodeId,
        act: impl FnOnce(&mut Member<MemoryLog>, MonotonicMicros, &mut dyn FnMut(NodeId, PeerMessage)),
    ) {
        let now = MonotonicMicros(self.now);
        let state = self.nodes.get_mut(&node).expect("nodes stay");
        if self.now < state.frozen_until {
            return;
        }
        let Some(member) = &mut state.member else { return };
        let mut sent = Vec::new();
        let mut send = |to, message| sent.push((to, message));
        act(member, now, &mut send);
        member.drive(now, &mut send).expect("a log in memory can be written");
        for update in state.updates.try_iter() {
            self.checker.apply(&mut state.image, update);
        }
        let process = state.process;
        // A process that finds itself taken off ends.
        let (was, is) = (state.is_registered, state.image.broker(node).is_some());
        state.is_registered = is;
        if was && !is {
            (state.member, state.stage) = (None, Stage::Gone);
        }
        for (to, message) in sent {
            self.send(node, process, to, message);
        }
        self.take_answers();
        let applied = self.nodes[&node].image.applied();
        self.note(self.now ^ (node.get() as u64) << 40 ^ applied << 20);
    }

    fn note(&mut self, what: u64) {
        self.trace = (self.trace.rotate_left(5) ^ what).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    fn send(&mut self, from: NodeId, process: u8, to: NodeId, mut message: PeerMessage) {
        if self.bug == Bug::NewNumberOnRetry {
            self.renumber_when_repeated(&mut message);
        }
        let is_lost = self.cut.contains(&(from, to))
            || (!self.healing && self.chance.percent(self.loss_percent));
        if message.is_snapshot() {
            let report = if is_lost { Delivery::SnapshotLost } else { Delivery::SnapshotSent };
            self.report(from, to, report);
        } else if is_lost && self.chance.percent(50) {
            self.report(from, to, Delivery::Lost);
        }
        if is_lost {
            return;
        }
        let copies = 1 + usize::from(!self.healing && self.chance.percent(3));
        for _ in 0..copies {
            let at = self.now + 100 + self.chance.below(self.delay_us);
            let message = message.clone();
            self.at(at, Event::Deliver { from, process, to, message });
        }
    }

    fn report(&mut self, from: NodeId, to: NodeId, report: Delivery) {
        let state = self.nodes.get_mut(&from).expect("nodes stay");
        if let Some(member) = &mut state.member {
            member.report(to, report);
        }
    }

    fn renumber_when_repeated(&mut self, message: &mut PeerMessage) {
        let PeerMessage::Raft(message) = message else { return };
        if message.get_msg_type() != MessageType::MsgPropose {
            return;
        }
        for entry in message.mut_entries().iter_mut() {
            let Some(mut id) = ProposalId::decode(&entry.context) else { continue };
            let stripped = ProposalId { floor: 0, ..id }.encode().to_vec();
            if !self.proposals_seen.insert(stripped) {
                id.number += 1000;
                entry.context = id.encode().to_vec().into();
            }
        }
    }

    fn take_answers(&mut self) {
        for (marker, result) in self.answers.1.try_iter() {
            match result {
                Ok(_) => self.checker.acknowledge(marker),
                // What was not answered with success may have been done or not.
                Err(
                    ControlError::Rejected(_)
                    | ControlError::Busy
                    | ControlError::TimedOut
                    | ControlError::OutcomeUnknown
                    | ControlError::Stopped,
                ) => {}
                Err(error @ ControlError::TooLarge(_)) => panic!("{error}"),
            }
        }
    }

    fn start(&mut self, node: NodeId) {
        let state = self.nodes.get_mut(&node).expect("nodes stay");
        state.process += 1;
        let mut incarnation = [state.process; 16];
        incarnation[0] = node.get() as u8;
        let registration = RegisterBroker {
            node_id: node,
            incarnation,
            shards: 1,
            host: "localhost".to_owned(),
            port: 9092,
            directory_id: [node.get() as u8; 16],
            rack: None,
            fenced: true,
            replication: None,
            control: None,
        };
        let configured = self.members.nodes().count() as i32 + SPARE_NODES;
        let state = self.nodes.get_mut(&node).expect("nodes stay");
        let config = MemberConfig {
            members: Members::founding((1..=configured).map(NodeId)),
            registration,
            compaction: CompactionPolicy { entries: 60, bytes: usize::MAX, kept_entries: 20 },
            controller: ControllerSettings {
                session_ms: 800,
                retry_ms: 500,
                balance_interval_ms: 2000,
                cluster_configs: [("min.insync.replicas".to_owned(), "2".to_owned())].into(),
                cluster_id: incarnation,
            },
        };
        let log = MemoryLog::open(Rc::clone(&state.disk));
        let mut member = Member::open(config, log).expect("a log in memory can be read");
        let (queue, updates) = unbounded();
        // As a shard does: it begins with the image that the control plane has.
        state.image = member.image().clone();
        state.is_registered = state.image.broker(node).is_some();
        member.subscribe(state.image.applied(), Box::new(move |update| drop(queue.send(update))));
        member.set_ready();
        member.register(MonotonicMicros(self.now), ReplyOnce::new(Box::new(|_| {})));
        (state.member, state.updates, state.frozen_until) = (Some(member), updates, 0);
        self.note(u64::from(node.get() as u8) << 8 | 1);
    }

    fn crash(&mut self, node: NodeId) {
        let forgets = self.bug == Bug::DisksForget && self.chance.percent(50);
        let state = self.nodes.get_mut(&node).expect("nodes stay");
        state.member = None;
        if forgets {
            state.disk.borrow_mut().lose_tail(20);
        }
        self.note(u64::from(node.get() as u8) << 8 | 2);
        self.take_answers();
    }

    fn any_node(&mut self) -> NodeId {
        let at = self.chance.below(self.nodes.len() as u64) as usize;
        *self.nodes.keys().nth(at).expect("below the number of nodes")
    }

    fn trouble(&mut self) {
        let node = self.any_node();
        match self.chance.below(10) {
            0..4 if self.nodes[&node].stage != Stage::Member => {}
            0..4 => match self.nodes[&node].member {
                Some(_) => self.crash(node),
                None => self.start(node),
            },
            4 => {
                // Two sides that do not hear each other.
                let side: BTreeSet<NodeId> =
                    self.nodes.keys().copied().filter(|_| self.chance.percent(40)).collect();
                let all: Vec<NodeId> = self.nodes.keys().copied().collect();
                for one in &all {
                    for other in all.iter().filter(|it| side.contains(it) != side.contains(one)) {
                        self.cut.insert((*one, *other));
                    }
                }
            }
            5 => {
                let other = self.any_node();
                self.cut.insert((node, other));
            }
            6 => {
                let thaw = self.now + 200_000 + self.chance.below(2_000_000);
                self.nodes.get_mut(&node).expect("nodes stay").frozen_until = thaw;
            }
            7 => self.loss_percent = self.chance.below(30),
            _ => self.cut.clear(),
        }
    }

    fn heal(&mut self) {
        self.healing = true;
        self.cut.clear();
        let nodes: Vec<NodeId> = self.nodes.keys().copied().collect();
        for node in nodes {
            self.nodes.get_mut(&node).expect("nodes stay").frozen_until = 0;
            if self.nodes[&node].member.is_none() && self.nodes[&node].stage == Stage::Member {
                self.start(node);
            }
        }
    }

    fn check_the_end(&mut self) {
        let controllers = self.nodes.values().filter_map(|node| node.member.as_ref());
        let controllers = controllers.filter(|member| member.is_controller()).count();
        assert_eq!(controllers, 1, "one controller when all is well");
        let leader = self.nodes.values().filter_map(|node| node.member.as_ref());
        let leader = leader.clone().find(|member| member.is_controller()).expect("counted");
        let members = leader.members();
        let furthest = self.nodes.values().map(|node| node.image.applied()).max();
        for (node, state) in &self.nodes {
            if !members.contains(*node) {
                // One that went while it was away has not heard of it; its peers would refuse it.
                let may = self.told_to_leave.contains(node) || state.stage == Stage::Aside;
                assert!(may, "node {node} is no member");
                continue;
            }
            assert_ne!(state.stage, Stage::Aside, "node {node} came by itself");
            if state.stage == Stage::Gone {
                // It has ended; that the group forgets it may be under way.
                continue;
            }
            let image = &state.image;
            // Work goes on: the last commands may be under way.
            assert!(image.applied() + 40 > furthest.unwrap_or(0), "node {node} is left behind");
            let stays = |node: NodeId| !image.is_leaving(node);
            // Whoever was about to stop comes back as another incarnation only.
            let there = |(node, broker): (NodeId, &Broker)| {
                !broker.fenced || broker.draining || !stays(node)
            };
            assert!(image.brokers().all(there), "all are there");
            for (key, partition) in image.topics().flat_map(|topic| topic.replicas()) {
                assert!(partition.leader.is_some(), "{key} is led by nobody");
            }
            self.checker.check_acknowledged_before(image);
        }
    }
}
