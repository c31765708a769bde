//! A node from its configuration to its orderly stop.
//!
//! Order: the claim on directory and address, the control plane (which registers this incarnation and so
//! raises the leader epochs), recovery of what the metadata names, the shards, and only then clients.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chronik_shards::format::metadata_command::{
    BrokerEndpoint, BrokerIncarnation, MetadataCommand,
};
use chronik_shards::format::peer_frame::ClusterId;
use chronik_shards::io::inbox::InboxSender;
use chronik_shards::io::process::{self, ProcessMask};
use chronik_shards::io::runtime::ShardCpus;
use chronik_shards::io::wal_files;
use chronik_shards::machine::limits::ShardLimits;
use chronik_shards::machine::metadata::MetadataImage;
use chronik_shards::machine::replication::PeerLimits;
use chronik_shards::machine::topic_config::BrokerConfig;
use chronik_shards::model::{NodeId, ShardId, TimestampMs, TopicId};
use chronik_shards::shard::{self, NodeHandle, NodeSpec, ShardPlan, StartError};
use chronik_shards::store::SegmentStore;
use chronik_shards::store::cleaner::CleanerLimits;
use chronik_shards::store::deleted_topics::{DeletedTopics, HeardDeletions};
use chronik_shards::store::disk::StdDisk;
use chronik_shards::store::pace::Pace;
use chronik_shards::store::paths;
use chronik_shards::store::recovery::{
    Gone, Recovered, RecoveryError, RecoveryInput, recover_in_phases,
};
use crossbeam::channel::RecvTimeoutError;

use crate::boot::{self, BootError, Claim};
use crate::config::{Endpoint, NodeConfig};
use crate::control::{
    self, ClusterConfig, CompactionPolicy, ControlConfig, ControlError, ControlHandle,
    ControlStart, ControlStartError, ControlThread, NodeIdentity, Waited, random_bytes,
};
use crate::front::{self, FrontPlan, STOP_GRACE, Serve, ShardEvent};
use crate::metadata_view::MetadataView;
use crate::metrics::MetricsThread;
use crate::net::listener::{BoundListener, ConnectionCounts};
use crate::net::{NetConfig, SocketOptions};

/// Why a node does not start. One line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Something is in the way.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The control plane.
    #[error(transparent)]
    Control(#[from] ControlStartError),
    /// The data.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The shards.
    #[error(transparent)]
    Shards(#[from] StartError),
    /// The shards' subscription to the metadata.
    #[error("metadata: {0}")]
    Metadata(#[from] ControlError),
    /// The operating system.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: std::io::Error,
    },
}

/// A node that serves clients.
pub struct Node {
    shards: NodeHandle<ShardEvent>,
    control: ControlThread,
    metrics: Option<MetricsThread>,
    /// This incarnation, if others must know that it stops.
    leaving: Option<BrokerIncarnation>,
    // Given up last: while it is held, no other server touches the directory.
    _claim: Claim,
}

impl Node {
    /// Starts a node; returns when it serves clients.
    ///
    /// # Errors
    /// [`NodeError`]: nothing runs then.
    pub fn start(config: &NodeConfig) -> Result<Self, NodeError> {
        let node = Self::start_unless(config, &mut || false)?;
        Ok(node.expect("nobody gave the start up"))
    }

    /// Starts a node; returns when it serves clients, or `None` when `is_given_up` says so while it waits for
    /// its peers.
    ///
    /// # Errors
    /// [`NodeError`]: nothing runs then.
    pub fn start_unless(
        config: &NodeConfig,
        is_given_up: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Self>, NodeError> {
        let mut laps = Laps::begin("start");
        for line in config.plan.display(&config.data_dir).to_string().lines() {
            tracing::info!("plan: {line}");
        }
        let _control_core = ControlCore::enter(config.plan.control_cpus.as_deref())
            .map_err(|error| NodeError::System { what: "the affinity mask", error })?;
        process::keep_free_memory();
        let claim = boot::claim(config)?;
        let listener = BoundListener::bind(config.bind)
            .map_err(|source| BootError::Address { address: config.bind, source })?;
        let replication = match &config.peers {
            Some(peers) => Some(BoundListener::bind(peers.replication_bind).map_err(|source| {
                BootError::Address { address: peers.replication_bind, source }
            })?),
            None => None,
        };
        let metrics = start_metrics(config)?;
        laps.done("directory and addresses claimed");
        let Some(control) = start_control(config, &claim.identity, is_given_up)? else {
            return Ok(None);
        };
        laps.done("metadata open");
        let broker = Arc::new(config.broker.clone());
        let limits = ShardLimits {
            retention_interval_ms: broker.settings().retention_interval_ms,
            compaction_interval_ms: broker.settings().compaction_interval_ms,
            ..config.plan.profile.limits
        };
        wal_files::await_writers(&paths::shards_dir(&config.data_dir))
            .map_err(|error| NodeError::System { what: "the WAL", error })?;
        let recovered =
            recover_data(config, Arc::clone(&broker), control.image.clone(), &limits, &mut laps)?;
        for line in &recovered.report {
            tracing::info!("recovery: {line}");
        }
        // What was read of the WALs is in segments now.
        process::give_memory_back();
        let counts = ConnectionCounts::new(config.plan.shard_count());
        let seed = random_bytes().map_err(|error| NodeError::System { what: "random", error })?;
        let (deleted, heard) = DeletedTopics::new(usize::from(config.plan.shard_count()));
        let plan = FrontPlan {
            node_id: config.node_id,
            cluster_id: control.cluster_id.clone(),
            broker_epoch: control.broker_epoch,
            peer_cluster_id: peer_cluster_id(&control.cluster_id),
            peer_limits: peer_limits(&broker),
            broker,
            image: Arc::new(control.image.clone()),
            control: control.handle.clone(),
            deleted,
            counts,
            connections_max: config.plan.open_files.connections_max,
            net: net_config(config),
            data_dir: config.data_dir.clone(),
            session_seed: u32::from_le_bytes([seed[0], seed[1], seed[2], seed[3]]),
        };
        let spec = node_spec(config, limits, recovered, heard);
        let shards = shard::start(spec, move |handle| front::build(plan, handle))?;
        laps.done("shards started");
        let incarnation =
            BrokerIncarnation { node_id: config.node_id, broker_epoch: control.broker_epoch };
        let leaving = config.peers.as_ref().map(|_| incarnation);
        let node = Self { shards, control: control.thread, metrics, leaving, _claim: claim };
        let inboxes = node.shards.control();
        for inbox in &inboxes {
            subscribe(&control.handle, control.image.applied(), inbox)?;
        }
        if let Some(metrics) = &node.metrics {
            metrics.serve(inboxes.clone());
        }
        serve(inboxes, listener, replication);
        // Its partitions are open: from here on it may lead some.
        node.control.handle().ready()?;
        tracing::info!(
            address = %config.bind,
            advertised = %config.advertised,
            shards = config.plan.shard_count(),
            millis = laps.begun.elapsed().as_millis(),
            "chronik serves Kafka clients"
        );
        Ok(Some(node))
    }

    /// Stops in order: no new requests, those under way answered, everything in segments, threads ended.
    ///
    /// In a cluster others lead what they can before this node stops to.
    pub fn stop(self) {
        let mut laps = Laps::begin("stop");
        if let Some(metrics) = &self.metrics {
            metrics.stopping();
        }
        let leaving = self.leaving.as_ref().map(|broker| (self.control.handle(), *broker));
        if let Some((control, broker)) = &leaving {
            propose_within(control, &MetadataCommand::DrainBroker(*broker));
            laps.done("others lead");
        }
        self.shards.stop(STOP_GRACE, &mut |milestone| laps.done(milestone));
        if let Some((control, broker)) = &leaving {
            propose_within(control, &MetadataCommand::FenceBroker(*broker));
            laps.done("the peers know");
        }
        self.control.stop();
        laps.done("control plane ended");
        if let Some(metrics) = self.metrics {
            metrics.stop();
        }
        tracing::info!(millis = laps.begun.elapsed().as_millis(), "chronik has stopped");
    }
}

/// How long a start waits before it says that it waits for peers.
const PEERS_PATIENCE: Duration = Duration::from_secs(5);
/// How often a start that waits looks whether it is given up.
const PEERS_LOOK: Duration = Duration::from_millis(100);
/// How long a stop waits for each of the changes that its peers go by. Without them they find out by its
/// silence.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);

/// How often it is looked whether anybody is left whom the change matters to.
const LEAVE_LOOK: Duration = Duration::from_millis(20);

/// Proposes a change, and waits for it as long as there is another node that stays: where all stop, the last ones
/// find no majority any more, and nobody goes by what they say.
fn propose_within(control: &ControlHandle, command: &MetadataCommand) {
    let (answer, answered) = crossbeam::channel::bounded(1);
    let reply = move |result| drop(answer.send(result));
    let deadline = Instant::now() + LEAVE_PATIENCE;
    let mut result = control.propose(command, Box::new(reply)).map(|()| None);
    while let Ok(None) = result {
        result = match answered.recv_timeout(LEAVE_LOOK) {
            Ok(outcome) => outcome.map(Some),
            Err(RecvTimeoutError::Disconnected) => Err(ControlError::Stopped),
            Err(RecvTimeoutError::Timeout) if Instant::now() >= deadline => {
                Err(ControlError::TimedOut)
            }
            Err(RecvTimeoutError::Timeout) if !control.has_company() => return,
            Err(RecvTimeoutError::Timeout) => Ok(None),
        };
    }
    if let Err(error) = result {
        tracing::warn!(%error, "the peers are not told that this node stops");
    }
}

/// Says how long each part of a start or a stop took.
struct Laps {
    of: &'static str,
    begun: Instant,
    last: Instant,
}

impl Laps {
    fn begin(of: &'static str) -> Self {
        let begun = Instant::now();
        Self { of, begun, last: begun }
    }

    fn done(&mut self, what: impl Display) {
        let now = Instant::now();
        let millis = now.duration_since(self.last).as_millis();
        tracing::info!(millis, "{}: {what}", self.of);
        self.last = now;
    }
}

/// Has the metrics told, if somebody asks for them.
fn start_metrics(config: &NodeConfig) -> Result<Option<MetricsThread>, BootError> {
    let Some(metrics) = config.metrics else { return Ok(None) };
    let refused = |source| BootError::Address { address: metrics.bind, source };
    MetricsThread::start(metrics).map(Some).map_err(refused)
}

fn start_control(
    config: &NodeConfig,
    identity: &NodeIdentity,
    is_given_up: &mut dyn FnMut() -> bool,
) -> Result<Option<ControlStart>, ControlStartError> {
    let cluster = config.peers.as_ref().map(|peers| ClusterConfig {
        data_dir: config.data_dir.clone(),
        listen: peers.control_bind,
        control_advertised: endpoint(&peers.control_advertised),
        replication_advertised: endpoint(&peers.replication_advertised),
        peers: peers.control.clone(),
        defaults: config.broker.cluster_values(),
        founds: peers.founds,
        timing: peers.timing,
    });
    let mut starting = control::begin(ControlConfig {
        directory: config.data_dir.join("raft"),
        node_id: config.node_id,
        shards: config.plan.shard_count(),
        advertised_host: config.advertised.host.clone(),
        advertised_port: config.advertised.port,
        rack: config.rack.clone(),
        identity: identity.clone(),
        cluster,
        compaction: CompactionPolicy::default(),
        accept_data_loss: config.accept_data_loss,
    })?;
    let mut complained = Instant::now();
    loop {
        match starting.wait(PEERS_LOOK)? {
            Waited::Started(start) => return Ok(Some(*start)),
            Waited::NotYet(not_yet) => starting = not_yet,
        }
        if is_given_up() {
            starting.stop();
            return Ok(None);
        }
        if complained.elapsed() >= PEERS_PATIENCE {
            complained = Instant::now();
            tracing::warn!("waiting for peers: a majority of the voters must be there");
        }
    }
}

fn endpoint(endpoint: &Endpoint) -> BrokerEndpoint {
    BrokerEndpoint { host: endpoint.host.clone(), port: endpoint.port }
}

/// Brings every partition of this node to where its acknowledged records end.
fn recover_data(
    config: &NodeConfig,
    broker: Arc<BrokerConfig>,
    image: MetadataImage,
    limits: &ShardLimits,
    laps: &mut Laps,
) -> Result<Recovered, RecoveryError> {
    let gone = Gone::from(config.node_id, &image);
    let partitions = replicas_here(config.node_id, broker, image);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    recover_in_phases(
        &StdDisk::default(),
        &RecoveryInput {
            data: config.data_dir.clone(),
            partitions,
            gone,
            shards: config.plan.shard_count(),
            accept_data_loss: config.accept_data_loss,
            wal_file_bytes: limits.wal_file_bytes,
            now: TimestampMs(i64::try_from(now).unwrap_or(i64::MAX)),
        },
        &mut |phase| laps.done(phase),
    )
}

/// Every partition that this node has a replica of, with its topic's name and configuration.
fn replicas_here(
    node_id: NodeId,
    broker: Arc<BrokerConfig>,
    image: MetadataImage,
) -> Vec<(chronik_shards::model::ReplicaKey, String, chronik_shards::machine::input::PartitionConfig)>
{
    let view = MetadataView::new(node_id, broker, image);
    let mut found = Vec::with_capacity(view.image().partition_count());
    for topic in view.image().topics() {
        let settings = view.settings(topic.id).expect("every topic has settings");
        for (key, partition) in topic.replicas() {
            if partition.replicas.contains(&node_id) {
                found.push((key, topic.name.clone(), settings.partition.clone()));
            }
        }
    }
    found
}

fn node_spec(
    config: &NodeConfig,
    limits: ShardLimits,
    recovered: Recovered,
    heard: Vec<HeardDeletions>,
) -> NodeSpec {
    let plan = &config.plan;
    let settings = config.broker.settings();
    let count = usize::from(plan.shard_count());
    let limit = settings.compaction_bytes_per_second_max;
    let cleaner = CleanerLimits {
        map_bytes_max: settings.compaction_map_bytes / count,
        io_bytes_per_second_max: limit.map(|bytes| bytes.div_ceil(count as u64)),
    };
    let cpus = plan.shard_cpus.as_deref();
    let unpinned =
        cpus.map_or(ShardCpus::Inherited, |cpus| ShardCpus::Among(ProcessMask::of(cpus)));
    let shards = (0u16..)
        .zip(&plan.shards)
        .zip(recovered.wal)
        .zip(recovered.logs)
        .zip(heard)
        .map(|((((shard, cpu), wal), logs), heard)| {
            let data: PathBuf = config.data_dir.clone();
            let open_files = plan.open_files.written_per_shard;
            let pace = Pace::default();
            let disk = StdDisk::paced(pace.clone());
            let store = SegmentStore::new(disk, data, ShardId(shard), logs, open_files)
                .with_cleaner(cleaner)
                .with_deleted_topics(heard);
            ShardPlan {
                cpus: cpu.map_or(unpinned, ShardCpus::Pinned),
                spin_before_park: plan.profile.spin_before_park,
                commit_linger: plan.profile.commit_linger,
                limits,
                pace,
                ..ShardPlan::new(wal, Box::new(store))
            }
        })
        .collect();
    NodeSpec {
        index_cache_bytes: plan.profile.memory.index_cache_bytes,
        read_files_max: plan.open_files.read_per_shard,
        ring_buffer_bytes: plan.ring_buffer_bytes,
        // A batch may be as large as a request; a frame has it, and a little more.
        peer_frame_bytes_max: config.broker.settings().socket_request_max_bytes
            + PeerLimits::default().frame_bytes_max,
        ..NodeSpec::new(config.data_dir.clone(), shards, recovered.partitions)
    }
}

/// The cluster's identity as peers tell each other.
fn peer_cluster_id(cluster_id: &str) -> ClusterId {
    let id: TopicId = cluster_id.parse().expect("a cluster id was checked when it was read");
    ClusterId(id.0)
}

/// How replication goes about it.
fn peer_limits(broker: &BrokerConfig) -> PeerLimits {
    PeerLimits {
        lag_time_max_ms: broker.settings().replica_lag_time_max_ms,
        tells_acks: tracing::enabled!(tracing::Level::DEBUG),
        ..PeerLimits::default()
    }
}

/// Bounds of each shard's connections.
fn net_config(config: &NodeConfig) -> NetConfig {
    let settings = config.broker.settings();
    let profile = &config.plan.profile;
    NetConfig {
        frame_bytes_max: settings.socket_request_max_bytes,
        idle_max: Duration::from_millis(settings.connections_max_idle_ms),
        request_budget_bytes: profile.memory.request_bytes,
        response_budget_bytes: profile.memory.response_bytes,
        socket: SocketOptions {
            send_buffer_bytes: profile.socket_send_bytes,
            receive_buffer_bytes: profile.socket_receive_bytes,
            ..SocketOptions::default()
        },
        ..NetConfig::default()
    }
}

/// Keeps the calling thread, and what it starts, on the control core; ends with the value.
struct ControlCore {
    before: Option<ProcessMask>,
}

impl ControlCore {
    /// Without CPUs nothing changes.
    fn enter(cpus: Option<&[usize]>) -> std::io::Result<Self> {
        let Some(cpus) = cpus else { return Ok(Self { before: None }) };
        let before = ProcessMask::current()?;
        ProcessMask::of(cpus).apply();
        Ok(Self { before: Some(before) })
    }
}

impl Drop for ControlCore {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            before.apply();
        }
    }
}

/// Has the control thread tell a shard what is committed after `applied`.
fn subscribe(
    control: &control::ControlHandle,
    applied: u64,
    inbox: &InboxSender<ShardEvent>,
) -> Result<(), ControlError> {
    let inbox = inbox.clone();
    let sink = move |update| {
        // A shard that has ended needs to know nothing more.
        drop(inbox.send(ShardEvent::Metadata(update)));
    };
    control.subscribe(applied, Box::new(sink))
}

/// Lets clients and peers in; the first shard accepts.
fn serve(
    inboxes: Vec<InboxSender<ShardEvent>>,
    listener: BoundListener,
    mut replication: Option<BoundListener>,
) {
    let inboxes: Arc<[_]> = inboxes.into();
    let mut listener = Some(listener);
    for inbox in inboxes.iter() {
        let (listener, replication) = (listener.take(), replication.take());
        let serve = Serve { inboxes: Arc::clone(&inboxes), listener, replication };
        drop(inbox.send(ShardEvent::Serve(serve)));
    }
}
