//! CreateTopics, and the one path by which any topic comes to be: auto-creation calls [`create`] too.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;

use chronik_protocol::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use chronik_protocol::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult, CreateTopicsResponse,
};
use chronik_protocol::{ErrorCode, KafkaString, Uuid};
use chronik_shards::format::metadata_command::{
    Assignment, ConfigEntry, CreateTopic, MetadataCommand,
};
use chronik_shards::io::turn::Turn;
use chronik_shards::machine::coordinators::GROUPS_TOPIC;
use chronik_shards::machine::metadata::ApplyOutcome;
use chronik_shards::machine::topic_config::{
    GroupsTopicSettings, check_topic_configs, describe_topic,
};
use chronik_shards::model::{NodeId, TopicId};

use super::configs::source_code;
use super::error::Refusal;
use super::{Handlers, error, repeats};
use crate::metadata_view::MetadataView;

/// What a topic counts towards a turn, in bytes received: where it is only checked, nothing is waited for.
const TOPIC_COST: usize = 16 << 10;

/// A topic that somebody wants.
#[derive(Clone, Debug)]
pub struct NewTopic {
    name: String,
    replicas: Replicas,
    configs: BTreeMap<String, String>,
    /// Whether it is the server that wants it, which may ask for what clients may not.
    is_own: bool,
}

/// How its partitions are laid out.
#[derive(Clone, Debug)]
enum Replicas {
    /// Counts; `None` takes the broker's default.
    Counted { partitions: Option<usize>, replication_factor: Option<usize> },
    /// Chosen by the client, by partition.
    Assigned(Vec<Assignment>),
}

/// A topic that is there now, or would be.
#[derive(Clone, Debug)]
pub struct Created {
    topic_id: TopicId,
    partitions: usize,
    replication_factor: usize,
}

impl NewTopic {
    /// A topic as auto-creation makes it.
    #[must_use]
    pub fn with_defaults(name: String) -> Self {
        let replicas = Replicas::Counted { partitions: None, replication_factor: None };
        Self { name, replicas, configs: BTreeMap::new(), is_own: false }
    }

    /// The topic of groups.
    #[must_use]
    pub fn of_groups(settings: GroupsTopicSettings) -> Self {
        let replicas = Replicas::Counted {
            partitions: Some(settings.partitions),
            replication_factor: Some(settings.replication_factor),
        };
        let configs = [
            ("cleanup.policy", "compact".to_owned()),
            ("compression.type", "producer".to_owned()),
            ("segment.bytes", settings.segment_bytes.to_string()),
        ];
        let configs = configs.map(|(name, value)| (name.to_owned(), value)).into();
        Self { name: GROUPS_TOPIC.to_owned(), replicas, configs, is_own: true }
    }

    fn parse(topic: &CreatableTopic) -> Result<Self, Refusal> {
        let mut configs = BTreeMap::new();
        for config in &topic.configs {
            let Some(value) = &config.value else {
                let message = format!("{} has no value", config.name);
                return Err(Refusal::new(ErrorCode::InvalidConfig, message));
            };
            configs.insert(config.name.to_string(), value.to_string());
        }
        let replicas = match topic.assignments.is_empty() {
            true => Replicas::Counted {
                partitions: partition_count(topic.num_partitions)?,
                replication_factor: replication_factor(topic.replication_factor)?,
            },
            false => Replicas::Assigned(assigned(topic)?),
        };
        Ok(Self { name: topic.name.to_string(), replicas, configs, is_own: false })
    }
}

fn partition_count(wire: i32) -> Result<Option<usize>, Refusal> {
    match wire {
        -1 => Ok(None),
        1.. => Ok(Some(wire as usize)),
        _ => Err(Refusal::new(ErrorCode::InvalidPartitions, "a topic has at least one partition")),
    }
}

fn replication_factor(wire: i16) -> Result<Option<usize>, Refusal> {
    match wire {
        -1 => Ok(None),
        1.. => Ok(Some(wire as usize)),
        _ => {
            let message = "the replication factor is at least 1, or -1 for the default";
            Err(Refusal::new(ErrorCode::InvalidReplicationFactor, message))
        }
    }
}

fn assigned(topic: &CreatableTopic) -> Result<Vec<Assignment>, Refusal> {
    if topic.num_partitions != -1 || topic.replication_factor != -1 {
        let message = "with an assignment, partitions and replication factor are both -1";
        return Err(Refusal::new(ErrorCode::InvalidRequest, message));
    }
    let mut by_partition = BTreeMap::new();
    for assignment in &topic.assignments {
        let replicas = assignment.broker_ids.iter().map(|id| NodeId(*id)).collect();
        let placed = by_partition.insert(assignment.partition_index, Assignment { replicas });
        if placed.is_some() {
            let message = format!("partition {} is assigned twice", assignment.partition_index);
            return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
        }
    }
    if !by_partition.keys().copied().eq(0..by_partition.len() as i32) {
        let message = "partitions are numbered from 0 without a gap";
        return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    }
    Ok(by_partition.into_values().collect())
}

/// Answers a CreateTopics request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let repeated = repeats::of(request.topics.iter().map(|topic| &*topic.name));
    let mut seen = HashSet::new();
    let mut topics = Vec::new();
    let mut turn = Turn::default();
    for topic in &request.topics {
        turn.after(TOPIC_COST).await;
        // A topic that is named more than once is refused once.
        if !seen.insert(&*topic.name) {
            continue;
        }
        let result = if repeated.contains(&*topic.name) {
            Err(Refusal::new(ErrorCode::InvalidRequest, "the topic is named more than once"))
        } else {
            create_one(handlers, topic, request.validate_only).await
        };
        topics.push(match result {
            Ok(created) => told(handlers, topic, &created, version),
            Err(refusal) => CreatableTopicResult {
                name: topic.name.clone(),
                error_code: refusal.code.code(),
                error_message: Some(refusal.message.as_str().into()),
                // An error leaves the list null: there is no topic to describe.
                configs: None,
                ..CreatableTopicResult::default()
            },
        });
    }
    if topics.iter().any(|topic| topic.error_code == ErrorCode::None.code())
        && !request.validate_only
    {
        handlers.spread(request.timeout_ms).await;
    }
    CreateTopicsResponse { topics, ..CreateTopicsResponse::default() }
}

async fn create_one(
    handlers: &Rc<Handlers>,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<Created, Refusal> {
    let new = NewTopic::parse(topic)?;
    if validate_only {
        let view = handlers.metadata.borrow();
        return command(&view, TopicId::ZERO, new).map(|(_, created)| created);
    }
    create(handlers, new).await
}

/// Creates a topic and waits until this node serves it.
pub async fn create(handlers: &Rc<Handlers>, new: NewTopic) -> Result<Created, Refusal> {
    let topic_id = handlers.fresh_topic_id();
    let (command, mut created) = command(&handlers.metadata.borrow(), topic_id, new)?;
    match handlers.propose(MetadataCommand::CreateTopic(command)).await {
        Ok(ApplyOutcome::TopicCreated { topic_id }) => {
            created.topic_id = topic_id;
            Ok(created)
        }
        Ok(other) => unreachable!("a creation is answered with a topic, not {other:?}"),
        Err(error) => Err(error::of_control(&error)),
    }
}

/// Checks everything that can be checked before the proposal.
fn command(
    view: &MetadataView,
    topic_id: TopicId,
    new: NewTopic,
) -> Result<(CreateTopic, Created), Refusal> {
    let image = view.image();
    image.check_new_topic(&new.name).map_err(|rejection| error::of_rejection(&rejection))?;
    if !new.is_own {
        check_topic_configs(&new.configs, view.broker_config())
            .map_err(|error| Refusal::new(ErrorCode::InvalidConfig, error.to_string()))?;
    }
    let settings = view.broker_config().settings();
    let partitions: Vec<Assignment> = match new.replicas {
        Replicas::Assigned(partitions) => partitions,
        Replicas::Counted { partitions, replication_factor } => {
            let partitions = partitions.unwrap_or(settings.num_partitions);
            let factor = replication_factor.unwrap_or(settings.default_replication_factor);
            let bound = chronik_shards::machine::metadata::TOPIC_PARTITIONS_MAX;
            if partitions > bound {
                let message = format!("{partitions} partitions: a topic may have up to {bound}");
                return Err(Refusal::new(ErrorCode::InvalidPartitions, message));
            }
            image.assign(0, partitions, factor).map_err(|error| {
                Refusal::new(ErrorCode::InvalidReplicationFactor, error.to_string())
            })?
        }
    };
    let created = Created {
        topic_id,
        partitions: partitions.len(),
        replication_factor: partitions.first().map_or(0, |first| first.replicas.len()),
    };
    check_assignment(view, &partitions, created.replication_factor)?;
    let command = CreateTopic {
        name: new.name,
        topic_id,
        partitions,
        configs: new.configs.into_iter().map(|(name, value)| ConfigEntry { name, value }).collect(),
    };
    Ok((command, created))
}

/// Every partition has the same number of replicas, each on another known node.
pub(super) fn check_assignment(
    view: &MetadataView,
    partitions: &[Assignment],
    replication_factor: usize,
) -> Result<(), Refusal> {
    let refuse = |message: String| Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, message));
    for Assignment { replicas } in partitions {
        if replicas.is_empty() || replicas.len() != replication_factor {
            return refuse(format!(
                "{} replicas where {replication_factor} are due",
                replicas.len()
            ));
        }
        for (index, node) in replicas.iter().enumerate() {
            if view.image().broker(*node).is_none() {
                return refuse(format!("there is no node {node}"));
            }
            if replicas[..index].contains(node) {
                return refuse(format!("node {node} is named twice"));
            }
        }
    }
    Ok(())
}

fn told(
    handlers: &Handlers,
    topic: &CreatableTopic,
    created: &Created,
    version: i16,
) -> CreatableTopicResult {
    let view = handlers.metadata.borrow();
    let overrides = topic
        .configs
        .iter()
        .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())))
        .collect();
    let configs = (version >= 5).then(|| {
        describe_topic(&overrides, view.broker_config())
            .into_iter()
            .map(|config| CreatableTopicConfigs {
                name: KafkaString::from_static(config.name),
                value: config.value.map(KafkaString::from),
                read_only: config.read_only,
                config_source: source_code(config.source),
                is_sensitive: false,
                ..CreatableTopicConfigs::default()
            })
            .collect()
    });
    CreatableTopicResult {
        name: topic.name.clone(),
        topic_id: Uuid(created.topic_id.0),
        num_partitions: created.partitions as i32,
        replication_factor: created.replication_factor as i16,
        configs,
        ..CreatableTopicResult::default()
    }
}
