//! DeleteTopics: by name, or by id from version 6. Source: KIP-516.

use std::collections::HashSet;
use std::rc::Rc;

use chronik_protocol::messages::delete_topics_request::{DeleteTopicState, DeleteTopicsRequest};
use chronik_protocol::messages::delete_topics_response::{
    DeletableTopicResult, DeleteTopicsResponse,
};
use chronik_protocol::{ErrorCode, Uuid};
use chronik_shards::format::metadata_command::{DeleteTopic, MetadataCommand};
use chronik_shards::model::TopicId;

use super::error::Refusal;
use super::{Handlers, error, repeats};

/// Answers a DeleteTopics request.
pub async fn handle(
    handlers: &Rc<Handlers>,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let asked: Vec<DeleteTopicState> = match version {
        6.. => request.topics,
        _ => request
            .topic_names
            .into_iter()
            .map(|name| DeleteTopicState { name: Some(name), ..DeleteTopicState::default() })
            .collect(),
    };
    let repeated = repeats::of(asked.iter().map(named));
    let mut seen = HashSet::new();
    let mut responses = Vec::with_capacity(asked.len());
    for topic in &asked {
        // A topic that is named more than once is refused once.
        if !seen.insert(named(topic)) {
            continue;
        }
        let result = if repeated.contains(&named(topic)) {
            Err(Refusal::new(ErrorCode::InvalidRequest, "the topic is named more than once"))
        } else {
            delete(handlers, topic).await
        };
        let mut told = DeletableTopicResult {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            ..DeletableTopicResult::default()
        };
        match result {
            Ok((name, id)) => {
                told.name = Some(name.into());
                told.topic_id = Uuid(id.0);
            }
            Err(refusal) => {
                told.error_code = refusal.code.code();
                told.error_message = Some(refusal.message.into());
            }
        }
        responses.push(told);
    }
    if responses.iter().any(|topic| topic.error_code == ErrorCode::None.code()) {
        handlers.spread(request.timeout_ms).await;
    }
    DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }
}

fn named(topic: &DeleteTopicState) -> (Option<&str>, Uuid) {
    (topic.name.as_deref(), topic.topic_id)
}

async fn delete(
    handlers: &Handlers,
    asked: &DeleteTopicState,
) -> Result<(String, TopicId), Refusal> {
    let (name, topic_id) = {
        let view = handlers.metadata.borrow();
        let (found, unknown) = match (&asked.name, asked.topic_id) {
            (Some(name), Uuid::ZERO) => {
                (view.image().topic_named(name), ErrorCode::UnknownTopicOrPartition)
            }
            (None, id) if id != Uuid::ZERO => {
                (view.image().topic(TopicId(id.0)), ErrorCode::UnknownTopicId)
            }
            (Some(_), _) | (None, _) => {
                let message = "a topic is named either by name or by id";
                return Err(Refusal::new(ErrorCode::InvalidRequest, message));
            }
        };
        let found = found.ok_or_else(|| Refusal::new(unknown, "there is no such topic"))?;
        (found.name.clone(), found.id)
    };
    let command = MetadataCommand::DeleteTopic(DeleteTopic { topic_id });
    let proposed = handlers.propose(command).await;
    proposed.map(|_| (name, topic_id)).map_err(|error| error::of_control(&error))
}
