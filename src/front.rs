//! What a shard's thread runs in front of its machine: connections, handlers, and the metadata that
//! tells which partitions it owns.
//!
//! Order at the start: the partitions of the image are opened, the node subscribes the shard to the
//! metadata log, then [`ShardEvent::Serve`] lets clients in. So no client meets a shard that does not
//! know what it owns.

use std::cell::{OnceCell, RefCell};
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use chronik_shards::format::peer_frame::ClusterId;
use chronik_shards::io::inbox::{InboxSender, NotSent};
use chronik_shards::io::local::Slot;
use chronik_shards::machine::group::TopicFacts;
use chronik_shards::machine::metadata::{ApplyOutcome, MetadataChange, MetadataImage, Topic};
use chronik_shards::machine::replica::NodeIdentity;
use chronik_shards::machine::replication::PeerLimits;
use chronik_shards::machine::topic_config::{BrokerConfig, group_overrides};
use chronik_shards::model::{BrokerEpoch, NodeId, PartitionIndex, ReplicaKey, ShardId, TopicId};
use chronik_shards::shard::ShardHandle;
use chronik_shards::store::deleted_topics::DeletedTopics;

use crate::control::{ControlHandle, MetadataUpdate, QuorumState};
use crate::handlers::request_counts::RequestCounts;
use crate::handlers::{Handlers, KafkaDispatcher};
use crate::introduction::{IntroducedPeer, Introductions};
use crate::isr_changes;
use crate::metadata_view::MetadataView;
use crate::metrics::figures::Question;
use crate::metrics::watch::{Asked, Watch};
use crate::net::listener::{BoundListener, ConnectionCounts, HandOver};
use crate::net::{AcceptedSocket, NetConfig, ShardConnections};
use crate::proposals::{Answer, Proposals};
use crate::replicas;

/// How long an orderly stop waits for requests that are under way.
pub const STOP_GRACE: Duration = Duration::from_secs(10);

/// What other threads tell a shard's front.
#[derive(Debug)]
pub enum ShardEvent {
    /// Metadata are committed: apply them.
    Metadata(MetadataUpdate),
    /// A proposal of this shard has its answer.
    Answered(Answer<ApplyOutcome>),
    /// A question of this shard how the Raft group stands has its answer.
    Quorum(Answer<QuorumState>),
    /// All nodes have applied what this shard has asked about, or need not be waited for.
    Spread(Answer<()>),
    /// A connection that this shard shall serve.
    Connection(AcceptedSocket),
    /// How is the shard doing?
    Asked(Question),
    /// A peer that has introduced itself to another shard and wants this one.
    Peer(IntroducedPeer),
    /// Everything is in place: let clients in.
    Serve(Serve),
}

/// What a shard needs to let clients in.
#[derive(Debug)]
pub struct Serve {
    /// Where to send every shard's events, by shard.
    pub inboxes: Arc<[InboxSender<ShardEvent>]>,
    /// For the one shard that accepts.
    pub listener: Option<BoundListener>,
    /// Where peers connect to replicate, for the same shard.
    pub replication: Option<BoundListener>,
}

/// What every shard's front starts from.
#[derive(Clone)]
pub struct FrontPlan {
    /// This node.
    pub node_id: NodeId,
    /// Identity of the cluster.
    pub cluster_id: String,
    /// This incarnation.
    pub broker_epoch: BrokerEpoch,
    /// Identity of the cluster to peers.
    pub peer_cluster_id: ClusterId,
    /// Bounds and times of replication.
    pub peer_limits: PeerLimits,
    /// What the broker was started with.
    pub broker: Arc<BrokerConfig>,
    /// Everything committed so far.
    pub image: Arc<MetadataImage>,
    /// For proposals.
    pub control: ControlHandle,
    /// Where this node's stores hear of deleted topics.
    pub deleted: DeletedTopics,
    /// Open connections of all shards.
    pub counts: Arc<ConnectionCounts>,
    /// Open connections beyond which new ones are closed.
    pub connections_max: usize,
    /// Bounds of each shard's connections.
    pub net: NetConfig,
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Keeps ids of fetch sessions of an earlier process from matching.
    pub session_seed: u32,
}

/// Incremental fetch sessions of the node, as Kafka's `max.incremental.fetch.session.cache.slots`.
pub const FETCH_SESSIONS_MAX: usize = 1000;

/// The front of one shard.
struct Front {
    shard: ShardHandle,
    deleted: DeletedTopics,
    view: Rc<RefCell<MetadataView>>,
    proposals: OnceCell<Rc<Proposals>>,
    serve: Slot<Serve>,
    /// Connections that came before this shard served.
    early: RefCell<Vec<AcceptedSocket>>,
    connections: OnceCell<ShardConnections<KafkaDispatcher>>,
    /// How the shard is doing.
    asked: Rc<Asked>,
}

/// Builds the front on its shard's thread: what takes the events, and the main task.
pub fn build(
    plan: FrontPlan,
    shard: ShardHandle,
) -> (impl FnMut(ShardEvent) + 'static, impl Future<Output = ()> + 'static) {
    let image = MetadataImage::clone(&plan.image);
    let view = MetadataView::new(plan.node_id, Arc::clone(&plan.broker), image);
    let me = NodeIdentity { node_id: plan.node_id, broker_epoch: plan.broker_epoch };
    shard.join_cluster(plan.peer_cluster_id, me, plan.peer_limits);
    shard.coordinate_groups(plan.broker.group_settings());
    let front = Rc::new(Front {
        shard,
        deleted: plan.deleted.clone(),
        view: Rc::new(RefCell::new(view)),
        proposals: OnceCell::new(),
        serve: Slot::default(),
        early: RefCell::default(),
        connections: OnceCell::new(),
        asked: Rc::default(),
    });
    front.assign_all();
    let events = Rc::clone(&front);
    (move |event| events.take(event), front.run(plan))
}

impl Front {
    fn take(&self, event: ShardEvent) {
        match event {
            ShardEvent::Metadata(update) => {
                let changes = {
                    let mut view = self.view.borrow_mut();
                    match update {
                        MetadataUpdate::Command(committed) => {
                            view.apply(committed.index, &committed.command)
                        }
                        MetadataUpdate::Image(image) => view.replace(&image),
                        MetadataUpdate::Controller(node) => {
                            view.set_controller(node);
                            Vec::new()
                        }
                    }
                };
                for change in changes {
                    self.follow(&change);
                }
            }
            ShardEvent::Answered(answer) => self.proposals().answered(answer),
            ShardEvent::Quorum(answer) => self.proposals().told(answer),
            ShardEvent::Spread(answer) => self.proposals().spread(answer),
            ShardEvent::Connection(socket) => {
                // The shard that accepts may serve a moment earlier than this one. What waits is bounded as
                // all open connections are.
                match self.connections.get() {
                    Some(connections) => connections.adopt(socket),
                    None => self.early.borrow_mut().push(socket),
                }
            }
            ShardEvent::Asked(question) => self.asked.put(question),
            ShardEvent::Peer(peer) => self.shard.adopt_peer(peer.socket, peer.hello),
            ShardEvent::Serve(serve) => self.serve.fill(serve),
        }
    }

    fn proposals(&self) -> &Proposals {
        self.proposals.get().expect("a question comes before its answer")
    }

    /// Brings the shard's partitions in line with a change of the metadata.
    fn follow(&self, change: &MetadataChange) {
        let view = self.view.borrow();
        match change {
            MetadataChange::TopicCreated { topic_id } => {
                self.tell_groups(&view, *topic_id);
                self.assign_from(&view, *topic_id, PartitionIndex(0));
            }
            MetadataChange::PartitionsCreated { topic_id, first } => {
                self.tell_groups(&view, *topic_id);
                self.assign_from(&view, *topic_id, *first);
            }
            MetadataChange::TopicDeleted { topic } => {
                self.deleted.note(topic.id);
                let version = groups_version(&view);
                self.shard.group_topic_changed(version, &topic.name, None);
                for (key, _) in topic.replicas().filter(|(key, _)| self.owns(*key)) {
                    self.shard.close_partition(key);
                }
            }
            MetadataChange::PartitionChanged { key } => self.assign(&view, *key),
            MetadataChange::TopicConfigChanged { topic_id } => {
                let topic = view.image().topic(*topic_id).expect("the change names its topic");
                self.configure(&view, topic);
            }
            MetadataChange::ClusterConfigChanged => {
                for topic in view.image().topics() {
                    self.configure(&view, topic);
                }
            }
            MetadataChange::GroupConfigChanged => self.tell_group_configs(&view),
            MetadataChange::BrokerRegistered { node_id } => {
                self.locate(&view, *node_id);
                self.assign_with(&view, *node_id);
            }
            MetadataChange::BrokerChanged { .. }
            | MetadataChange::BrokerUnregistered { .. }
            | MetadataChange::ClusterFounded => {}
        }
    }

    /// Has the topic's partitions go by its settings as they are now.
    fn configure(&self, view: &MetadataView, topic: &Topic) {
        let settings = view.settings(topic.id).expect("every topic has settings");
        for (key, partition) in topic.replicas().filter(|(key, _)| self.owns(*key)) {
            self.shard.configure_partition(key, replicas::config(settings, partition));
        }
    }

    fn assign_all(&self) {
        let view = self.view.borrow();
        for node_id in view.image().broker_ids() {
            self.locate(&view, node_id);
        }
        self.tell_group_configs(&view);
        for topic in view.image().topics() {
            self.tell_groups(&view, topic.id);
            self.assign_from(&view, topic.id, PartitionIndex(0));
        }
    }

    /// Tells coordinators what groups have of their own.
    fn tell_group_configs(&self, view: &MetadataView) {
        let configs = view.image().group_configs().iter();
        let overrides = configs.map(|(group_id, own)| (group_id.clone(), group_overrides(own)));
        self.shard.group_overrides_changed(overrides.collect());
    }

    /// Tells coordinators of groups what there is to subscribe to.
    fn tell_groups(&self, view: &MetadataView, topic_id: TopicId) {
        let topic = view.image().topic(topic_id).expect("the caller has it from the image");
        let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        let facts = TopicFacts { topic_id, partitions };
        self.shard.group_topic_changed(groups_version(view), &topic.name, Some(facts));
    }

    /// Says where the shards of a peer are reached.
    fn locate(&self, view: &MetadataView, node_id: NodeId) {
        let broker = view.image().broker(node_id);
        if node_id != view.node_id()
            && let Some(endpoint) = broker.and_then(|broker| broker.replication.as_ref())
        {
            self.shard.set_peer_address(node_id, endpoint.host.clone(), endpoint.port);
        }
    }

    /// The partitions with a replica on a node that is of a new incarnation, with other shards perhaps.
    fn assign_with(&self, view: &MetadataView, node_id: NodeId) {
        for topic in view.image().topics() {
            for (key, _) in topic.replicas().filter(|(_, found)| found.replicas.contains(&node_id))
            {
                self.assign(view, key);
            }
        }
    }

    fn assign_from(&self, view: &MetadataView, topic_id: TopicId, first: PartitionIndex) {
        let topic = view.image().topic(topic_id).expect("the caller has it from the image");
        for (key, _) in topic.replicas().filter(|(key, _)| key.partition >= first) {
            self.assign(view, key);
        }
    }

    /// Tells the shard what a partition is that it owns a replica of, or that it owns none any more.
    fn assign(&self, view: &MetadataView, key: ReplicaKey) {
        if !self.owns(key) {
            return;
        }
        match replicas::assignment(view, key) {
            Some(assignment) => self.shard.assign_replica(&assignment),
            None if self.shard.has_partition(key) => self.shard.close_partition(key),
            None => {}
        }
    }

    fn owns(&self, key: ReplicaKey) -> bool {
        self.shard.shard_of(&key) == self.shard.id()
    }

    /// Serves clients from [`ShardEvent::Serve`] until the node stops.
    async fn run(self: Rc<Self>, plan: FrontPlan) {
        let Serve { inboxes, listener, replication } = self.serve.clone().await;
        let inbox = inboxes[usize::from(self.shard.id().get())].clone();
        let proposals = Rc::new(Proposals::new(plan.control.clone(), inbox));
        let is_first = self.proposals.set(Rc::clone(&proposals)).is_ok();
        assert!(is_first, "a shard is told once to serve");
        let isr_changes = isr_changes::propose(self.shard.clone(), Rc::clone(&proposals));
        glommio::spawn_local(isr_changes).detach();
        let (shard, view) = (self.shard.clone(), Rc::clone(&self.view));
        let counts = Rc::new(RequestCounts::default());
        let handlers = Handlers::new(&plan, shard, view, proposals, Rc::clone(&counts));
        let dispatcher = Rc::new(KafkaDispatcher(Rc::new(handlers)));
        let connections = ShardConnections::new(plan.net, dispatcher);
        // Set once: the assertion above holds for both cells.
        let _ = self.connections.set(connections.clone());
        let (shard, view) = (self.shard.clone(), Rc::clone(&self.view));
        let watch = Watch { shard, view, connections: connections.clone(), counts };
        glommio::spawn_local(watch.answer(Rc::clone(&self.asked))).detach();
        for socket in self.early.take() {
            connections.adopt(socket);
        }
        let introductions = replication.map(|listener| {
            let (shard, view) = (self.shard.clone(), Rc::clone(&self.view));
            Introductions { shard, view, inboxes: Arc::clone(&inboxes) }.begin(listener)
        });
        let acceptor = listener.map(|listener| {
            let hand_over =
                ToShards { own: self.shard.id(), connections: connections.clone(), inboxes };
            listener.accept(plan.counts, plan.connections_max, hand_over)
        });
        self.shard.stopping().await;
        for acceptor in acceptor.iter().chain(&introductions) {
            acceptor.stop();
        }
        connections.stop(STOP_GRACE).await;
    }
}

/// The place in the metadata, as coordinators of groups record it.
fn groups_version(view: &MetadataView) -> i64 {
    i64::try_from(view.image().applied()).unwrap_or(i64::MAX)
}

/// Gives accepted sockets to the shards that were chosen for them.
struct ToShards {
    own: ShardId,
    connections: ShardConnections<KafkaDispatcher>,
    inboxes: Arc<[InboxSender<ShardEvent>]>,
}

/// Pause before a full inbox is tried again; the kernel's backlog holds new connections meanwhile.
const INBOX_PAUSE: Duration = Duration::from_millis(1);

impl HandOver for ToShards {
    async fn hand_over(&self, shard: ShardId, socket: AcceptedSocket) {
        if shard == self.own {
            return self.connections.adopt(socket);
        }
        let mut event = ShardEvent::Connection(socket);
        loop {
            match self.inboxes[usize::from(shard.get())].try_send(event) {
                // A shard that has ended drops the socket, and so closes it.
                Ok(()) | Err(NotSent::Ended(_)) => return,
                Err(NotSent::Full(back)) => event = back,
            }
            glommio::timer::sleep(INBOX_PAUSE).await;
        }
    }
}
