//! AlterConfigs: all overrides of a topic at once; what is not named goes back to its default.

use std::collections::BTreeMap;
use std::rc::Rc;

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::alter_configs_request::{
    AlterConfigsRequest, AlterConfigsResource,
};
use chronik_protocol::messages::alter_configs_response::{
    AlterConfigsResourceResponse, AlterConfigsResponse,
};
use chronik_shards::format::metadata_command::{ConfigEntry, MetadataCommand, SetTopicConfig};
use chronik_shards::machine::topic_config::check_topic_configs;

use super::configs::Changed;
use super::error::Refusal;
use super::{Handlers, configs, error};
use crate::metadata_view::MetadataView;

/// Answers an AlterConfigs request.
pub async fn handle(handlers: &Rc<Handlers>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut responses = Vec::with_capacity(request.resources.len());
    for resource in &request.resources {
        let mut told = AlterConfigsResourceResponse {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..AlterConfigsResourceResponse::default()
        };
        let command = command(&handlers.metadata.borrow(), resource);
        let changed = match command {
            Ok(command) => configs::propose(handlers, command, request.validate_only).await,
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = changed {
            told.error_code = refusal.code.code();
            told.error_message = Some(refusal.message.into());
        }
        responses.push(told);
    }
    AlterConfigsResponse { responses, ..AlterConfigsResponse::default() }
}

/// `None` where nothing is to be changed.
fn command(
    view: &MetadataView,
    resource: &AlterConfigsResource,
) -> Result<Option<MetadataCommand>, Refusal> {
    let changes_nothing = resource.configs.is_empty();
    let (kind, name) = (resource.resource_type, &resource.resource_name);
    let topic = match configs::changed(view, kind, name, changes_nothing)? {
        Changed::Topic(topic) => topic,
        Changed::Nothing => return Ok(None),
        Changed::Group => {
            let message = "a group's configuration is changed by IncrementalAlterConfigs";
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    };
    let mut overrides = BTreeMap::new();
    for config in &resource.configs {
        let Some(value) = &config.value else {
            let message = format!("{} has no value", config.name);
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        };
        if overrides.insert(config.name.to_string(), value.trim().to_owned()).is_some() {
            let message = format!("{} is named more than once", config.name);
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    }
    check_topic_configs(&overrides, view.broker_config())
        .map_err(|error| error::of_config(&error))?;
    let set = overrides.into_iter().map(|(name, value)| ConfigEntry { name, value }).collect();
    let command = SetTopicConfig { topic_id: topic.id, replace: true, set, remove: Vec::new() };
    Ok(Some(MetadataCommand::SetTopicConfig(command)))
}
