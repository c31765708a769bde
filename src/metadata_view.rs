//! What a shard knows of the cluster: its image of the metadata, and every topic's settings resolved
//! once instead of on every request.
//!
//! One a shard, changed only by committed commands in log order.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ahash::RandomState;
use chronik_shards::format::metadata_command::MetadataCommand;
use chronik_shards::machine::metadata::{MetadataChange, MetadataImage, Topic};
use chronik_shards::machine::topic_config::{BrokerConfig, TopicSettings};
use chronik_shards::model::{NodeId, TopicId};

/// A shard's view of the metadata.
#[derive(Debug)]
pub struct MetadataView {
    node_id: NodeId,
    /// The controller, as far as this node knows.
    controller: Option<NodeId>,
    /// What the broker was started with.
    started_with: Arc<BrokerConfig>,
    /// The same with the cluster's settings in the place of the broker's own.
    broker: BrokerConfig,
    image: MetadataImage,
    settings: HashMap<TopicId, TopicSettings, RandomState>,
}

impl MetadataView {
    /// The view of `node_id` on an image.
    #[must_use]
    pub fn new(node_id: NodeId, broker: Arc<BrokerConfig>, image: MetadataImage) -> Self {
        // Topic ids are drawn by the server: nobody can choose them to collide.
        let mut settings = HashMap::with_hasher(RandomState::with_seeds(1, 2, 3, 4));
        let started_with = broker;
        let broker = started_with.in_cluster(image.cluster_configs());
        settings.extend(image.topics().map(|topic| (topic.id, resolve(topic, &broker))));
        Self { node_id, controller: None, started_with, broker, image, settings }
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node_id
    }

    /// The node that clients are told to be the controller. Any node takes what is meant for it, so one that
    /// is there is named while the group looks for a leader.
    #[must_use]
    pub fn controller(&self) -> NodeId {
        let is_there = |node: &NodeId| self.image.broker(*node).is_some_and(|it| !it.fenced);
        self.controller.filter(is_there).unwrap_or(self.node_id)
    }

    /// The controller, as far as this node knows.
    #[must_use]
    pub fn known_controller(&self) -> Option<NodeId> {
        self.controller
    }

    /// Takes note of who is the controller.
    pub fn set_controller(&mut self, node: Option<NodeId>) {
        self.controller = node;
    }

    /// What the broker was started with, as far as the cluster has not agreed on something else.
    #[must_use]
    pub fn broker_config(&self) -> &BrokerConfig {
        &self.broker
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// A topic's settings; `None` for a topic that the image does not have.
    #[must_use]
    pub fn settings(&self, topic: TopicId) -> Option<&TopicSettings> {
        self.settings.get(&topic)
    }

    /// What a group has of its own.
    #[must_use]
    pub fn group_configs(&self, group_id: &str) -> &BTreeMap<String, String> {
        static NOTHING: BTreeMap<String, String> = BTreeMap::new();
        self.image.group_configs().get(group_id).unwrap_or(&NOTHING)
    }

    /// Applies a committed command. An index that is not above the applied one changes nothing.
    pub fn apply(&mut self, index: u64, command: &MetadataCommand) -> Vec<MetadataChange> {
        let changes = self.image.apply(index, command).changes;
        self.follow(&changes);
        changes
    }

    /// Takes a newer image in the place of the commands that lead to it. One that is not newer changes
    /// nothing.
    pub fn replace(&mut self, image: &MetadataImage) -> Vec<MetadataChange> {
        if image.applied() <= self.image.applied() {
            return Vec::new();
        }
        let changes = self.image.changes_to(image);
        self.image = image.clone();
        self.follow(&changes);
        changes
    }

    /// Keeps the settings in line with the image.
    fn follow(&mut self, changes: &[MetadataChange]) {
        for change in changes {
            match change {
                MetadataChange::TopicCreated { topic_id }
                | MetadataChange::TopicConfigChanged { topic_id } => {
                    let topic = self.image.topic(*topic_id).expect("the change names its topic");
                    self.settings.insert(*topic_id, resolve(topic, &self.broker));
                }
                MetadataChange::TopicDeleted { topic } => {
                    self.settings.remove(&topic.id);
                }
                MetadataChange::ClusterConfigChanged => {
                    self.broker = self.started_with.in_cluster(self.image.cluster_configs());
                    for topic in self.image.topics() {
                        self.settings.insert(topic.id, resolve(topic, &self.broker));
                    }
                }
                MetadataChange::BrokerRegistered { .. }
                | MetadataChange::BrokerChanged { .. }
                | MetadataChange::BrokerUnregistered { .. }
                | MetadataChange::ClusterFounded
                | MetadataChange::GroupConfigChanged
                | MetadataChange::PartitionsCreated { .. }
                | MetadataChange::PartitionChanged { .. } => {}
            }
        }
    }
}

/// Settings of a topic. Overrides were checked before they were committed; should an older release have
/// written one that this one does not know, it is left out and said so.
fn resolve(topic: &Topic, broker: &BrokerConfig) -> TopicSettings {
    let mut overrides = topic.configs.clone();
    loop {
        match TopicSettings::resolve(&overrides, broker) {
            Ok(settings) => return settings,
            Err(error) => {
                tracing::warn!(topic = topic.name, %error, "a topic's override is left out");
                let left_out = overrides.remove(error.key()).is_some();
                assert!(left_out || !overrides.is_empty(), "defaults resolve: {error}");
                if !left_out {
                    overrides = BTreeMap::new();
                }
            }
        }
    }
}
