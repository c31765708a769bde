//! Metadata: brokers, topics, leaders. Creates topics that a client asks for, where that is allowed.
//!
//! Creation takes the one path that CreateTopics takes; the answer waits for it, so that the client
//! finds leaders in it.

use std::collections::BTreeSet;
use std::rc::Rc;

use chronik_protocol::messages::metadata_request::MetadataRequest;
use chronik_protocol::messages::metadata_response::{
    MetadataResponse, MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use chronik_protocol::{ErrorCode, KafkaString, Uuid};
use chronik_shards::machine::metadata::{Topic, check_topic_name};
use chronik_shards::model::{NodeId, TopicId};

use super::create_topics::{self, NewTopic};
use super::{CLUSTER_OPERATIONS, Handlers, TOPIC_OPERATIONS, groups, partitions};
use crate::metadata_view::MetadataView;

/// A topic of the request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Name(KafkaString),
    Id(Uuid),
}

/// Answers a Metadata request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    // Version 0 cannot say null: there an empty list means all topics.
    let asks_for_all = match &request.topics {
        None => true,
        Some(topics) => version == 0 && topics.is_empty(),
    };
    let mut topics = Vec::new();
    if asks_for_all {
        let view = handlers.metadata.borrow();
        topics.extend(view.image().topics().map(|topic| described(topic, &view)));
    } else {
        let mut all = BTreeSet::new();
        for topic in request.topics.unwrap_or_default() {
            // An id comes before a name: the Java client sends an empty name along with it.
            let asked = match topic.name {
                Some(name) if topic.topic_id == Uuid::ZERO => Asked::Name(name),
                _ => Asked::Id(topic.topic_id),
            };
            // A topic that is named twice is answered once.
            if all.insert(asked.clone()) {
                topics.push(one(handlers, asked, request.allow_auto_topic_creation, version).await);
            }
        }
    }
    if request.include_topic_authorized_operations {
        for topic in topics.iter_mut().filter(|topic| topic.error_code == 0) {
            topic.topic_authorized_operations = TOPIC_OPERATIONS;
        }
    }
    let mut response = MetadataResponse::default();
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = CLUSTER_OPERATIONS;
    }
    let view = handlers.metadata.borrow();
    MetadataResponse {
        brokers: brokers(&view),
        cluster_id: Some(handlers.cluster_id.clone()),
        controller_id: view.controller().get(),
        topics,
        ..response
    }
}

fn brokers(view: &MetadataView) -> Vec<MetadataResponseBroker> {
    let broker = |(node_id, broker): (NodeId, &chronik_shards::machine::metadata::Broker)| {
        MetadataResponseBroker {
            node_id: node_id.get(),
            host: KafkaString::from(broker.host.as_str()),
            port: i32::from(broker.port),
            rack: broker.rack.as_deref().map(KafkaString::from),
            ..MetadataResponseBroker::default()
        }
    };
    // Clients are not sent to nodes that nobody hears of.
    view.image().brokers().filter(|(_, broker)| !broker.fenced).map(broker).collect()
}

/// One topic that was asked for, created first when it is missing and that is allowed.
async fn one(
    handlers: &Rc<Handlers>,
    asked: Asked,
    may_create: bool,
    version: i16,
) -> MetadataResponseTopic {
    let name = match asked {
        Asked::Id(id) => {
            let view = handlers.metadata.borrow();
            return match view.image().topic(TopicId(id.0)) {
                Some(topic) => described(topic, &view),
                // Before version 12 a name cannot be null.
                None => {
                    let name = (version < 12).then(KafkaString::default);
                    refused(name, id, ErrorCode::UnknownTopicId)
                }
            };
        }
        Asked::Name(name) => name,
    };
    {
        let view = handlers.metadata.borrow();
        if let Some(topic) = view.image().topic_named(&name) {
            return described(topic, &view);
        }
    }
    if check_topic_name(&name).is_err() {
        return refused(Some(name), Uuid::ZERO, ErrorCode::InvalidTopicException);
    }
    if !may_create || !handlers.settings.auto_create_topics {
        return refused(Some(name), Uuid::ZERO, ErrorCode::UnknownTopicOrPartition);
    }
    let new = match groups::is_internal(&name) {
        true => NewTopic::of_groups(handlers.settings.groups_topic),
        false => NewTopic::with_defaults(name.to_string()),
    };
    match create_topics::create(handlers, new).await {
        // The leaders in the answer are asked next.
        Ok(_) => handlers.spread(i32::MAX).await,
        // Somebody else was faster: what counts is that it exists.
        Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => {}
        Err(refusal) => return refused(Some(name), Uuid::ZERO, refusal.code),
    }
    let view = handlers.metadata.borrow();
    match view.image().topic_named(&name) {
        Some(topic) => described(topic, &view),
        None => refused(Some(name), Uuid::ZERO, ErrorCode::UnknownTopicOrPartition),
    }
}

fn refused(name: Option<KafkaString>, topic_id: Uuid, code: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: code.code(),
        name,
        topic_id,
        ..MetadataResponseTopic::default()
    }
}

fn described(topic: &Topic, view: &MetadataView) -> MetadataResponseTopic {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.get()).collect::<Vec<_>>();
    let described = topic
        .replicas()
        .map(|(key, partition)| MetadataResponsePartition {
            error_code: match partition.leader {
                Some(_) => ErrorCode::None.code(),
                None => ErrorCode::LeaderNotAvailable.code(),
            },
            partition_index: key.partition.get(),
            leader_id: partition.leader.map_or(-1, |leader| leader.get()),
            leader_epoch: partition.leader_epoch.get(),
            replica_nodes: ids(&partition.replicas),
            isr_nodes: ids(&partition.isr),
            offline_replicas: ids(&partitions::offline(view, partition)),
            ..MetadataResponsePartition::default()
        })
        .collect();
    MetadataResponseTopic {
        name: Some(KafkaString::from(topic.name.as_str())),
        topic_id: Uuid(topic.id.0),
        is_internal: groups::is_internal(&topic.name),
        partitions: described,
        ..MetadataResponseTopic::default()
    }
}
