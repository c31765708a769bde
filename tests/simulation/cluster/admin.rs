//! Administration while everything else goes on: topics come, grow, change and go, replicas move.

use std::collections::BTreeMap;

use chronik_shards::format::metadata_command::{
    Assignment, ConfigEntry, CreatePartitions, CreateTopic, DeleteTopic, MetadataCommand,
    ReassignPartition, SetTopicConfig,
};
use chronik_shards::machine::input::PartitionConfig;
use chronik_shards::machine::metadata::{MetadataImage, Topic};
use chronik_shards::machine::topic_config::{BrokerConfig, ConfigLimits, TopicSettings};
use chronik_shards::model::TopicId;

use super::*;

pub const REPLICAS: usize = 3;
/// Names that topics have, again and again.
const NAMES: u8 = 3;
const PARTITIONS_MAX: usize = 4;

/// What was created so far.
#[derive(Default)]
pub struct Topics {
    /// One for each topic that there ever was.
    serial: u8,
    /// What moved last.
    moved: Option<ReplicaKey>,
}

/// A topic's configuration as its partitions have it; as on a node, no more replicas have to be in sync than
/// there are.
pub fn config(topic: &Topic, replicas: usize) -> PartitionConfig {
    let broker = BrokerConfig::new(ConfigLimits { message_bytes_max: 16 * 1024 });
    let settings = TopicSettings::resolve(&topic.configs, &broker);
    let config = settings.expect("what is set can be resolved").partition;
    let min_insync_replicas = config.min_insync_replicas.min(replicas);
    PartitionConfig { min_insync_replicas, ..config }
}

/// What a node has by the metadata.
pub fn replicas_on(view: &MetadataImage, node: NodeId) -> BTreeMap<ReplicaKey, Known> {
    let mut known = BTreeMap::new();
    for topic in view.topics() {
        for (key, partition) in topic.replicas().filter(|(_, found)| found.replicas.contains(&node))
        {
            let config = config(topic, partition.replicas.len());
            known.insert(key, Known { topic_name: topic.name.clone(), config });
        }
    }
    known
}

pub fn entry(name: &str, value: impl ToString) -> ConfigEntry {
    ConfigEntry { name: name.to_owned(), value: value.to_string() }
}

impl World {
    /// The first topic, on nodes that are all there.
    pub(super) fn found(&mut self) {
        for seat in 0..NODES {
            self.controller.unfence(seat);
        }
        self.create_topic(1);
        assert!(!self.keys().is_empty(), "the first topic is there");
    }

    /// Whether a partition's topic is compacted; of one that is deleted, nobody knows any more.
    pub(super) fn is_compacted(&self, key: ReplicaKey) -> bool {
        let topic = self.controller.image().topic(key.topic_id);
        topic.is_some_and(|topic| topic.configs.contains_key("cleanup.policy"))
    }

    /// Whether a partition was not deleted.
    pub(super) fn exists(&self, key: ReplicaKey) -> bool {
        self.controller.image().partition(key).is_some()
    }

    pub(super) fn administer(&mut self) {
        match self.rng.below(12) {
            0..3 => {
                let name = 1 + self.rng.below(u64::from(NAMES)) as u8;
                self.create_topic(name);
            }
            3 => self.delete_topic(),
            4..6 => self.create_partitions(),
            6..9 => self.change_config(),
            _ => self.reassign(),
        }
    }

    /// A topic, unless there is one of that name or nobody to lead it.
    fn create_topic(&mut self, name: u8) {
        let name_text = format!("topic-{name}");
        let image = self.controller.image();
        if image.topic_named(&name_text).is_some() || self.topics.serial == u8::MAX {
            return;
        }
        let Ok(partitions) = image.assign(usize::from(name), 2, REPLICAS) else { return };
        let mut id = [name; 16];
        id[0] = self.topics.serial + 1;
        let mut configs = vec![
            entry("min.insync.replicas", 2),
            entry("segment.bytes", 4000 + self.rng.below(60_000)),
            entry("retention.ms", -1),
        ];
        let is_compacted = self.rng.one_in(3) || self.bug == Some(Bug::CompactsBeyondWatermark);
        if is_compacted {
            let ratio = [0.0, 0.3][self.rng.place(2)];
            configs.retain(|entry| entry.name != "segment.bytes");
            configs.extend([
                entry("cleanup.policy", "compact"),
                entry("segment.bytes", 2000 + self.rng.below(12_000)),
                entry("min.cleanable.dirty.ratio", ratio),
            ]);
            self.note(Event::CompactedTopic);
        } else if self.rng.one_in(3) {
            configs.push(entry("retention.bytes", 30_000 + self.rng.below(100_000)));
        }
        let counts_early = self.rng.one_in(4) || self.bug == Some(Bug::RejoinsWithoutEpoch);
        if counts_early && !is_compacted {
            configs.extend([entry("flush.messages", 1000), entry("flush.ms", 50)]);
            self.note(Event::TopicThatCountsEarly);
        }
        let topic_id = TopicId(id);
        let create = CreateTopic { name: name_text, topic_id, partitions, configs };
        let outcome = self.controller.apply(MetadataCommand::CreateTopic(create));
        self.trace(|| format!("create topic {name} as {topic_id}: {outcome:?}"));
        if outcome.is_err() {
            return;
        }
        self.topics.serial += 1;
        let is_again = self.topics.serial > NAMES;
        self.open_new();
        if is_again {
            self.note(Event::TopicCreatedAgain);
        }
    }

    fn open_new(&mut self) {
        for key in self.keys() {
            self.model.open(key);
        }
    }

    /// The topics that are not that of the groups.
    fn client_topics(&self) -> impl Iterator<Item = &Topic> {
        let topics = self.controller.image().topics();
        topics.filter(|topic| topic.id != groups::TOPIC_ID)
    }

    fn any_topic(&mut self) -> Option<Topic> {
        let count = self.client_topics().count();
        let place = self.rng.place(count.max(1));
        self.client_topics().nth(place).cloned()
    }

    fn delete_topic(&mut self) {
        if self.client_topics().count() < 2 {
            return;
        }
        let Some(topic) = self.any_topic() else { return };
        let delete = DeleteTopic { topic_id: topic.id };
        self.trace(|| format!("delete {} {}", topic.name, topic.id));
        self.controller.apply(MetadataCommand::DeleteTopic(delete)).expect("it is there");
        for (key, _) in topic.replicas() {
            self.model.close(key);
        }
        self.note(Event::TopicDeleted);
        // Often at once under the same name, while requests for the old one are under way.
        let name = topic.id.0[1];
        if self.rng.one_in(2) {
            self.create_topic(name);
        }
    }

    fn create_partitions(&mut self) {
        let Some(topic) = self.any_topic() else { return };
        let existing = topic.partitions.len();
        let assigned = self.controller.image().assign(existing, 1, REPLICAS);
        let Some(partitions) = assigned.ok().filter(|_| existing < PARTITIONS_MAX) else { return };
        let grow = CreatePartitions { topic_id: topic.id, existing: existing as u32, partitions };
        let outcome = self.controller.apply(MetadataCommand::CreatePartitions(grow));
        self.trace(|| format!("{} grows: {outcome:?}", topic.name));
        if outcome.is_ok() {
            self.open_new();
            self.note(Event::PartitionsCreated);
        }
    }

    fn change_config(&mut self) {
        let Some(topic) = self.any_topic() else { return };
        let (set, event) = match self.rng.below(6) {
            0 => {
                let bytes = 30_000 + self.rng.below(100_000);
                (entry("retention.bytes", bytes), Event::RetentionChanged)
            }
            1 => {
                let millis = [-1, 500, 3000][self.rng.place(3)];
                (entry("retention.ms", millis), Event::RetentionChanged)
            }
            2 => {
                let bytes = 4000 + self.rng.below(60_000);
                (entry("segment.bytes", bytes), Event::RetentionChanged)
            }
            _ => {
                let members = 1 + self.rng.below(3);
                (entry("min.insync.replicas", members), Event::MinInsyncReplicasChanged)
            }
        };
        self.trace(|| format!("{} gets {set:?}", topic.name));
        let (topic_id, remove) = (topic.id, Vec::new());
        let set = SetTopicConfig { topic_id, replace: false, set: vec![set], remove };
        self.controller.apply(MetadataCommand::SetTopicConfig(set)).expect("it is there");
        self.note(event);
    }

    /// Replicas move to other nodes, whether those are there or not; now and then back again.
    fn reassign(&mut self) {
        let keys = self.all_keys();
        let place = self.rng.place(keys.len());
        // Often the same again, so that a replica comes back to where it has just left.
        let again = self.topics.moved.filter(|key| self.exists(*key));
        let key = again.filter(|_| self.rng.one_in(2)).unwrap_or(keys[place]);
        self.topics.moved = Some(key);
        let mut nodes = self.controller.image().broker_ids();
        while nodes.len() > REPLICAS {
            let place = self.rng.place(nodes.len());
            nodes.remove(place);
        }
        let place = self.rng.place(nodes.len());
        nodes.rotate_left(place);
        let is_taken_back = self.rng.one_in(4);
        let target = (!is_taken_back).then_some(Assignment { replicas: nodes });
        self.reassign_to(key, target);
    }

    pub(super) fn reassign_to(&mut self, key: ReplicaKey, target: Option<Assignment>) {
        let reassign = ReassignPartition { key, target };
        self.trace(|| format!("{reassign:?}"));
        let event = match reassign.target {
            Some(_) => Event::Reassigned,
            None => Event::ReassignmentTakenBack,
        };
        // Refused when nobody would be left, or nothing is moving.
        if self.controller.apply(MetadataCommand::ReassignPartition(reassign)).is_ok() {
            self.note(event);
        }
    }
}
