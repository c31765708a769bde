//! The control thread: it feeds the member with requests, messages and ticks, and ends the process when
//! the log cannot be kept.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronik_shards::format::metadata_command::{BrokerEndpoint, RegisterBroker};
use chronik_shards::machine::controller::ControllerSettings;
use chronik_shards::machine::metadata::{ApplyOutcome, MetadataImage};
use chronik_shards::model::{BrokerEpoch, MonotonicMicros, NodeId};
use crossbeam::channel::{Receiver, Sender, bounded};

use super::acquaintance::Acquaintance;
use super::handle::{ControlError, ReplyOnce, Request};
use super::identity::{NodeIdentity, random_bytes};
use super::log::{LogError, RaftLog};
use super::member::{ControlFailure, Member, MemberConfig};
use super::members::Members;
use super::peer_message::{Delivery, PeerMessage};
use super::transport::Transport;
use super::{ClusterConfig, ClusterTiming, ControlConfig, ControlStartError, PROPOSALS_MAX};

/// After so long a command of the controller that seems to be without effect is proposed again.
const CONTROLLER_RETRY_MS: u64 = 500;
/// How long a controller that stops waits for another one to take over.
const HAND_OVER_PATIENCE: Duration = Duration::from_millis(500);

/// What a node knows when it has started.
pub(super) struct Starting {
    pub(super) image: MetadataImage,
    pub(super) broker_epoch: BrokerEpoch,
    /// Of a node with peers: what they have agreed on.
    pub(super) cluster_id: Option<String>,
}

/// The state of the control thread.
pub(super) struct ControlNode {
    member: Member<RaftLog>,
    cluster: Option<Cluster>,
    begun: Instant,
    /// The cluster has forgotten this node while it was away.
    is_gone: bool,
    /// What becomes of this node's registration.
    registered: Receiver<Result<ApplyOutcome, ControlError>>,
}

/// What a node with peers has beside.
struct Cluster {
    node_id: NodeId,
    /// As configured: where the control plane of each other node is.
    peers: BTreeMap<NodeId, String>,
    transport: Transport,
    acquaintance: Arc<Acquaintance>,
    identity: NodeIdentity,
    data_dir: PathBuf,
    tick: Duration,
    next_tick: Instant,
    /// The newest connection of each peer.
    connections: BTreeMap<NodeId, u64>,
    /// Up to where the metadata were looked at for what they say of the peers.
    looked: Option<u64>,
    /// Nodes that were registered then.
    registered: BTreeSet<NodeId>,
}

/// Whether the thread goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Serve,
    Stop { hand_over: bool },
}

impl ControlNode {
    /// Opens the log and begins to register this node. Alone it is registered when this returns; with
    /// peers the thread must run for that.
    pub(super) fn open(
        config: &ControlConfig,
        queue: Option<&Sender<Request>>,
    ) -> Result<Self, ControlStartError> {
        let unnamed = |error: std::io::Error| ControlStartError::Thread(error.to_string());
        let peers = config.cluster.iter().flat_map(|cluster| cluster.peers.keys().copied());
        let members = Members::founding(peers.chain([config.node_id]));
        let founds = config.cluster.as_ref().is_none_or(|cluster| cluster.founds);
        let log = RaftLog::open(&config.directory, &members, founds, config.accept_data_loss)?;
        let incarnation = random_bytes().map_err(unnamed)?;
        let named = config.identity.cluster_id_bytes();
        let cluster_id = named.map_or_else(random_bytes, Ok).map_err(unnamed)?;
        let member_config = MemberConfig {
            members: members.clone(),
            registration: registration(config, incarnation, &members),
            compaction: config.compaction,
            controller: controller_settings(config.cluster.as_ref(), cluster_id),
        };
        let mut member =
            Member::open(member_config, log).map_err(|error| at_start(error, config))?;
        let cluster = match (&config.cluster, queue) {
            (None, _) | (_, None) => {
                member.lead_alone().map_err(|error| at_start(error, config))?;
                None
            }
            (Some(cluster), Some(queue)) => {
                let (node, directory) = (config.node_id, config.identity.directory_id);
                let acquaintance = Acquaintance::new(node, directory, incarnation, members, named);
                // Before anybody is listened to: what is committed says who is to be listened to.
                member.replay().map_err(|error| at_start(error, config))?;
                let mut cluster =
                    Cluster::start(config.node_id, cluster, &config.identity, acquaintance, queue)?;
                cluster.follow(&member).map_err(|error| at_start(error, config))?;
                Some(cluster)
            }
        };
        let (answer, registered) = bounded(1);
        let reply = ReplyOnce::new(Box::new(move |result| drop(answer.send(result))));
        let mut node = Self { member, cluster, begun: Instant::now(), is_gone: false, registered };
        node.member.register(node.now(), reply);
        node.turn().map_err(|error| at_start(error, config))?;
        Ok(node)
    }

    /// Serves requests until told to stop or until nobody can ask any more; says when this node is
    /// registered.
    pub(super) fn run(
        mut self,
        requests: Receiver<Request>,
        report: &Sender<Result<Starting, ControlStartError>>,
        config: &ControlConfig,
    ) {
        let mut started = false;
        loop {
            if !started && let Some(starting) = self.starting() {
                started = starting.is_ok();
                // Nobody listens when the starter gave up; then the queue is closed as well.
                let _ = report.send(starting);
                if !started {
                    break;
                }
            }
            let next = self.await_requests(&requests);
            if let Err(failure) = self.turn() {
                if !started {
                    let _ = report.send(Err(at_start(failure, config)));
                    break;
                }
                if matches!(failure, ControlFailure::TakenOff) {
                    // It leads nothing and holds nothing: there is nothing to be put in order.
                    tracing::warn!("{failure}; the process ends");
                    std::process::exit(0);
                }
                // Nothing may be acknowledged any more, and a write that failed once must not be
                // tried again: the kernel may have dropped its pages.
                tracing::error!("{failure}; stopping the process");
                std::process::abort();
            }
            if let Next::Stop { hand_over } = next {
                if hand_over {
                    self.hand_over(&requests);
                }
                break;
            }
        }
        // First the queue: whoever waits for room in it must not be waited for.
        drop(requests);
        if let Some(cluster) = self.cluster {
            cluster.transport.stop();
        }
    }

    /// What the starter is told, when it is time.
    fn starting(&self) -> Option<Result<Starting, ControlStartError>> {
        if let Ok(Err(error)) = self.registered.try_recv() {
            return Some(Err(ControlStartError::Registration(error)));
        }
        let broker_epoch = self.member.broker_epoch()?;
        let cluster_id = match &self.cluster {
            Some(cluster) => Some(cluster.identity.cluster_id.clone()?),
            None => None,
        };
        let image = self.member.image().clone();
        Some(Ok(Starting { image, broker_epoch, cluster_id }))
    }

    fn now(&self) -> MonotonicMicros {
        let micros = self.begun.elapsed().as_micros();
        MonotonicMicros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// Takes what there is, or waits for it until the next tick.
    fn await_requests(&mut self, requests: &Receiver<Request>) -> Next {
        let first = match &self.cluster {
            None => requests.recv().map_err(|_| ()),
            Some(cluster) => match requests.recv_deadline(cluster.next_tick) {
                Ok(request) => Ok(request),
                Err(error) if error.is_timeout() => return Next::Serve,
                Err(_) => Err(()),
            },
        };
        let Ok(first) = first else { return Next::Stop { hand_over: true } };
        let mut next = self.take(first);
        // What has gathered meanwhile shares one write.
        for request in requests.try_iter().take(PROPOSALS_MAX) {
            if let stop @ Next::Stop { .. } = self.take(request) {
                next = stop;
            }
        }
        next
    }

    fn take(&mut self, request: Request) -> Next {
        let now = self.now();
        match request {
            Request::Propose { command, reply } => self.member.propose(now, command, reply),
            Request::Subscribe { after, sink, reply } => {
                self.member.subscribe(after, sink);
                // The starter may have given up waiting.
                let _ = reply.send(());
            }
            Request::Quorum { reply } => self.member.ask_quorum(now, reply),
            Request::Spread { index, patience, reply } => {
                self.member.await_spread(now, index, patience, reply);
            }
            Request::Ready => self.member.set_ready(),
            Request::Company { reply } => {
                // Whoever asked may have given up waiting.
                let _ = reply.send(self.member.has_company());
            }
            Request::Connected { peer, connection } => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.transport.knock(peer);
                    let newest = cluster.connections.entry(peer).or_default();
                    *newest = connection.max(*newest);
                }
            }
            Request::Peer { from, connection, message } => {
                let cluster = self.cluster.as_ref();
                let newest = cluster.and_then(|cluster| cluster.connections.get(&from));
                let is_peer = cluster.is_some_and(|cluster| cluster.acquaintance.is_peer(from));
                // What an earlier connection still holds may be of an earlier process, and one that is open
                // of a node that has gone.
                if newest == Some(&connection) && is_peer {
                    self.member.step(now, from, message);
                }
            }
            Request::Gone { applied } => {
                self.is_gone |= self.member.is_gone_at(applied);
            }
            Request::Delivery { to, report } => self.member.report(to, report),
            Request::Stop { hand_over } => return Next::Stop { hand_over },
        }
        Next::Serve
    }

    /// Ticks when it is time, performs what is to be done, and follows what the metadata say of the peers.
    fn turn(&mut self) -> Result<(), ControlFailure> {
        if self.is_gone {
            return Err(ControlFailure::TakenOff);
        }
        let now = self.now();
        let Some(cluster) = &mut self.cluster else {
            return self.member.drive(now, &mut |_, _| unreachable!("there is nobody to write to"));
        };
        let mut undelivered: Vec<(NodeId, Delivery)> = Vec::new();
        let transport = &cluster.transport;
        let mut send = |to: NodeId, message: PeerMessage| {
            undelivered.extend(transport.send(to, message).map(|delivery| (to, delivery)));
        };
        if Instant::now() >= cluster.next_tick {
            // One, however late: a process that was stopped for a while has not heard of its peers in
            // between, and must hear of them before it draws conclusions.
            cluster.next_tick = Instant::now() + cluster.tick;
            self.member.tick(now, &mut send);
        }
        self.member.drive(now, &mut send)?;
        for (to, delivery) in undelivered {
            self.member.report(to, delivery);
        }
        cluster.follow(&self.member)
    }

    /// A controller that stops has another one take over, so that nobody need find out. Where all stop there is
    /// nobody who would.
    fn hand_over(&mut self, requests: &Receiver<Request>) {
        if self.cluster.is_none() || !self.member.has_company() || !self.member.hand_over() {
            return;
        }
        let deadline = Instant::now() + HAND_OVER_PATIENCE;
        while self.member.leads() && Instant::now() < deadline {
            // Told to stop once more, it does no more than it does already.
            let _ = self.await_requests(requests);
            if let Err(failure) = self.turn() {
                tracing::error!("{failure}; the controller stops without a successor");
                return;
            }
        }
    }
}

impl Cluster {
    fn start(
        node_id: NodeId,
        config: &ClusterConfig,
        identity: &NodeIdentity,
        acquaintance: Acquaintance,
        queue: &Sender<Request>,
    ) -> Result<Self, ControlStartError> {
        let acquaintance = Arc::new(acquaintance);
        let transport = Transport::start(config.listen, &acquaintance, queue)
            .map_err(|source| ControlStartError::Listen { address: config.listen, source })?;
        Ok(Self {
            node_id,
            peers: config.peers.clone(),
            transport,
            acquaintance,
            identity: identity.clone(),
            data_dir: config.data_dir.clone(),
            tick: config.timing.tick,
            next_tick: Instant::now() + config.timing.tick,
            connections: BTreeMap::new(),
            looked: None,
            registered: BTreeSet::new(),
        })
    }

    /// The cluster's name goes into the data directory; nodes are held to theirs.
    fn follow(&mut self, member: &Member<RaftLog>) -> Result<(), ControlFailure> {
        let image = member.image();
        if self.looked == Some(image.applied()) {
            return Ok(());
        }
        self.looked = Some(image.applied());
        if let Some(cluster_id) = image.cluster_id() {
            self.identity.join(&self.data_dir, cluster_id)?;
            self.acquaintance.joined(cluster_id);
        }
        let registered: BTreeSet<NodeId> = image.brokers().map(|(node, _)| node).collect();
        for node in self.registered.difference(&registered) {
            self.acquaintance.forget(*node);
        }
        let is_taken_off =
            self.registered.contains(&self.node_id) && !registered.contains(&self.node_id);
        self.registered = registered;
        self.acquaintance.learn(directories(image));
        self.meet(&member.members(), image);
        if is_taken_off {
            return Err(ControlFailure::TakenOff);
        }
        Ok(())
    }

    /// Listens to the members of the group and to those that may come, and connects to them.
    fn meet(&mut self, members: &Members, image: &MetadataImage) {
        let joining = image.joining().map(|node| node.node_id).collect();
        // Before its group has told a node who is in it, it goes by what it was started with.
        let others: BTreeSet<NodeId> = match *members == Members::nobody() {
            true => self.peers.keys().copied().collect(),
            false => members.nodes().filter(|node| *node != self.node_id).collect(),
        };
        let applied = image.applied();
        self.acquaintance.meet(applied, &others, joining, *members == Members::nobody());
        let address = |node: &NodeId| {
            let known = self.peers.get(node).cloned();
            let registered = || image.broker(*node)?.control.as_ref().map(address);
            let joining = || image.joining().find(|it| it.node_id == *node);
            known.or_else(registered).or_else(|| joining().map(|it| address(&it.control)))
        };
        let wanted = others.iter().filter_map(|node| Some((*node, address(node)?))).collect();
        if let Err(error) = self.transport.connect_to(&wanted) {
            tracing::error!(%error, "no thread for the connection to a control plane");
        }
    }
}

fn address(endpoint: &BrokerEndpoint) -> String {
    match endpoint.host.contains(':') {
        true => format!("[{}]:{}", endpoint.host, endpoint.port),
        false => format!("{}:{}", endpoint.host, endpoint.port),
    }
}

/// With which data directory each node is registered.
fn directories(image: &MetadataImage) -> impl Iterator<Item = (NodeId, [u8; 16])> {
    image.brokers().map(|(node, broker)| (node, broker.directory_id))
}

fn registration(
    config: &ControlConfig,
    incarnation: [u8; 16],
    members: &Members,
) -> RegisterBroker {
    RegisterBroker {
        node_id: config.node_id,
        incarnation,
        shards: config.shards,
        host: config.advertised_host.clone(),
        port: config.advertised_port,
        directory_id: config.identity.directory_id,
        rack: config.rack.clone(),
        // Alone there is nobody who would unfence it, and nobody else who could lead.
        fenced: !members.is_lone(),
        replication: config.cluster.as_ref().map(|cluster| cluster.replication_advertised.clone()),
        control: config.cluster.as_ref().map(|cluster| cluster.control_advertised.clone()),
    }
}

fn controller_settings(
    cluster: Option<&ClusterConfig>,
    cluster_id: [u8; 16],
) -> ControllerSettings {
    let timing = cluster.map_or_else(ClusterTiming::default, |cluster| cluster.timing);
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    ControllerSettings {
        session_ms: millis(timing.session),
        retry_ms: CONTROLLER_RETRY_MS,
        balance_interval_ms: millis(timing.balance_interval),
        cluster_configs: cluster.map(|cluster| cluster.defaults.clone()).unwrap_or_default(),
        cluster_id,
    }
}

fn at_start(failure: ControlFailure, config: &ControlConfig) -> ControlStartError {
    match failure {
        ControlFailure::Log(error) => error.into(),
        ControlFailure::Raft(error) => error.into(),
        ControlFailure::Identity(error) => error.into(),
        ControlFailure::TakenOff => ControlStartError::TakenOff,
        failure @ (ControlFailure::Unreadable { .. } | ControlFailure::Snapshot { .. }) => {
            let directory = config.directory.display().to_string();
            LogError::Damaged { directory, reason: failure.to_string() }.into()
        }
    }
}
